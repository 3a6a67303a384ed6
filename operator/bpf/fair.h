/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fair departures: flows that exceed one limit share its rate, and a packet of a flow with little queued does
 * not wait behind flows with much. There is no queue per flow, no timer, and a fixed number of steps.
 *
 * Fluid fair queueing (Demers, Keshav, Shenker: "Analysis and Simulation of a Fair Queueing Algorithm")
 * serves all backlogged flows at one speed. If the flows j have queued b_j, as time at the rate, and E = sum
 * b_j is the backlog of the meter (gcra.h), then the last byte of flow i leaves after
 *
 *	W(b_i) = sum_j min(b_j, b_i)
 *
 * W is concave, 0 at 0, and E at the largest backlog b_max. Its chord is therefore a lower bound that needs
 * no sum over flows ("linear virtual time"):
 *
 *	waits(i) = E * b_i / b_max    <= W(b_i) <= E
 *
 * The flow with the largest backlog, and so a lone flow, waits exactly as in a FIFO queue. No packet departs
 * later than in a FIFO queue, so fq never holds more packets, and the rate is never left unused. All packets
 * charge one word, so the admitted total is the same.
 *
 * Virtual time V is the work that each backlogged flow has received. A flow has a finish tag, V + b_i, and
 * the slot has the largest tag. V needs no timer: it reaches the largest tag when the meter's backlog ends.
 *
 *	share = b_max / E    at the last packet; in parts of 2^24, not above 1
 *	V     = largest tag - E * share
 *	b_i   = tag of i - V, between -credit and b_max
 *
 * The credit of a flow that was idle covers a request of several packets. Packets that do not pass this file
 * (conforming, small, of the reserve) move only E: the line becomes flatter.
 *
 * A flow's tag is in two cells, which other flows may share, and the smaller tag counts (Cormode and
 * Muthukrishnan: "An Improved Data Stream Summary: The Count-Min Sketch"). A cell also has the departure time
 * of its last packet, before which the flow's next packet does not depart.
 *
 * Other CPUs can write between the reads and the writes. An update that is lost, a stale cell, or an attacker
 * who finds colliding hashes makes a packet depart between now and the time of the FIFO queue. It never
 * changes a total. tests/bpf/test_fair.py has the properties.
 */
#ifndef TB_FAIR_H
#define TB_FAIR_H

#include "bucket.h"
#include "context.h"
#include "gcra.h"
#include "maps.h"

enum {
	TB_SHARE_BITS = 24,
	TB_SHARE_ONE = 1 << TB_SHARE_BITS,
	/* 4,096 flows with equal backlogs. With more flows, some packets depart earlier than their share. */
	TB_SHARE_MIN = 1 << 12,
	/* Times are multiplied and divided in units of 2^10 quanta (4 ns), so that products fit in 64 bits.
	 */
	TB_FAIR_SHIFT = 10,
	TB_CREDIT_BYTES = 10000,
	TB_CREDIT_PACKETS = 7,
	/* The credit is at most max_delay / 8: at low rates, the bytes alone take too long. */
	TB_CREDIT_FRACTION = 8,
};

/* 18 minutes. Longer times are cut: a large packet is not admitted behind such a backlog. */
#define TB_FAIR_MAX (1LL << 48)
_Static_assert(48 - TB_FAIR_SHIFT + TB_SHARE_BITS < 64, "TB_FAIR_MAX times a share fits");

/* The place of an excess packet among the flows of its slot, in quanta relative to now. */
struct tb_turn {
	struct tb_flow *first, *second; /* NULL: the packet waits as in a FIFO queue */
	__s64 ahead;                    /* backlog of the meters */
	__s64 ahead_after;              /* with this packet */
	__s64 cost;
	__u64 top;  /* the largest tag */
	__s64 span; /* the largest backlog of a flow */
	__s64 own;  /* backlog of this flow */
	__s64 wait; /* for the packets that depart before this one */
};

/* Without a branch, as tb_min (gcra.h): all bits if the number is negative, or not 0. */
static __always_inline __s64 tb_if_negative(__s64 number)
{
	return tb_negative_part(number) >> 63;
}

static __always_inline __s64 tb_if_not_0(__u64 number)
{
	return tb_if_negative(number | -number);
}

/* The difference of two times modulo 2^64, cut to +-TB_FAIR_MAX, so that tb_min and tb_max can compare. */
static __always_inline __s64 tb_difference(__u64 a, __u64 b)
{
	__s64 difference = a - b, sign = tb_if_negative(difference);
	__s64 is_cut = tb_if_not_0(difference >> 48 ^ sign);

	return (difference & ~is_cut) | ((sign ^ TB_FAIR_MAX) & is_cut);
}

/* The backlog of a word; negative: its tokens. As tb_base: a word beyond TB_AHEAD_MAX is the past. */
static __always_inline __s64 tb_ahead(__u64 tat, __u64 now, __u64 burst)
{
	__s64 difference = tat - now;

	return tb_max(difference & ~tb_if_negative((__s64)TB_AHEAD_MAX - difference), -(__s64)burst);
}

/* Adds a meter, unless it is not used. The longer backlog counts, as for the departure time (charge.h). */
static __always_inline void tb_add_meter(struct tb_turn *turn, __s64 ahead, __u64 cost, __u64 scale)
{
	ahead = tb_min(ahead, TB_FAIR_MAX);
	cost = tb_min(cost, TB_FAIR_MAX);
	turn->ahead = tb_max(turn->ahead, ahead & tb_if_not_0(scale));
	turn->ahead_after = tb_max(turn->ahead_after, (ahead + cost) & tb_if_not_0(scale));
	turn->cost = tb_max(turn->cost, cost);
}

static __always_inline void tb_add_meters(const struct tb_ctx *ctx, struct tb_turn *turn)
{
	const volatile struct tb_config *config = ctx->config;
	const volatile struct tb_meters *meters = ctx->meters;
	__u64 bytes_scale = config->bytes_scale, packets_scale = config->packets_scale;

	tb_add_meter(turn, tb_ahead(meters->bytes_tat, ctx->now, config->bytes_burst_q),
		     tb_bytes_cost(ctx->packet.wire_bytes, bytes_scale), bytes_scale);
	tb_add_meter(turn, tb_ahead(meters->packets_tat, ctx->now, config->packets_burst_q),
		     tb_packets_cost(ctx->packet.segments, packets_scale), packets_scale);
}

static __always_inline __u64 tb_share(const struct tb_ctx *ctx)
{
	__u32 others = *(volatile __u64 *)&ctx->meters->fair_others;

	return tb_max(TB_SHARE_ONE - (__s64)others, TB_SHARE_MIN);
}

/* Of a flow that was idle. No credit without a backlog: a lone flow gets nothing beyond the burst. */
static __always_inline __s64 tb_credit(const struct tb_ctx *ctx, __s64 ahead)
{
	const struct tb_config *config = ctx->config;
	__s64 bytes = tb_bytes_cost(TB_CREDIT_BYTES, config->bytes_scale);
	__s64 packets = tb_packets_cost(TB_CREDIT_PACKETS, config->packets_scale);

	return tb_min(tb_min(tb_max(bytes, packets), config->max_delay_q / TB_CREDIT_FRACTION), ahead);
}

static __always_inline void tb_compute_wait(const struct tb_ctx *ctx, struct tb_turn *turn)
{
	__u64 share = tb_share(ctx);
	__s64 tag, last, on_line;

	turn->top = *(volatile __u64 *)&ctx->meters->fair_top;
	turn->span = ((__u64)turn->ahead >> TB_FAIR_SHIFT) * share >> (TB_SHARE_BITS - TB_FAIR_SHIFT);
	tag = tb_min(tb_difference(turn->first->tag, turn->top), tb_difference(turn->second->tag, turn->top));
	turn->own = tb_max(tb_min(tag, 0) + turn->span, -tb_credit(ctx, turn->ahead));
	last = tb_min(tb_ahead(turn->first->departs, ctx->now, 0),
		      tb_ahead(turn->second->departs, ctx->now, 0));
	on_line = ((__u64)tb_max(turn->own, 0) >> TB_FAIR_SHIFT << TB_SHARE_BITS) / share << TB_FAIR_SHIFT;
	turn->wait = tb_max(on_line, last) | ~tb_if_negative(turn->own - turn->span);
	turn->wait = tb_min(turn->wait & (2 * TB_FAIR_MAX - 1), turn->ahead);
}

/*
 * Finds the flow's cells and computes its wait. Small packets, packets without a departure time (not IP), and
 * packets with a bucket of their peer keep the order of arrival.
 */
static __always_inline void tb_find_turn(const struct tb_ctx *ctx, struct tb_turn *turn)
{
	__u32 slot = ctx->slot, hash;
	struct tb_flows *flows;

	if (!ctx->config->longest_backlog_q || tb_is_small(ctx) || ctx->remote ||
	    (!tb_is_protocol(ctx->skb, TB_ETH_P_IP) && !tb_is_protocol(ctx->skb, TB_ETH_P_IPV6)))
		return;
	flows = bpf_map_lookup_elem(&tb_flows, &slot);
	if (!flows)
		return;
	hash = bpf_get_hash_recalc(ctx->skb); /* fq needs the hash too, and finds it computed */
	turn->first = &flows->cells[hash & (TB_CELLS - 1)];
	turn->second = &flows->cells[TB_CELLS + (hash >> 8 & (TB_CELLS - 1))];
	tb_add_meters(ctx, turn);
	tb_compute_wait(ctx, turn);
}

/*
 * The longest backlog with which a meter accepts the packet. A packet that departs before a part of the
 * backlog is dropped early by its own wait, and the backlog can be longer than max_delay: half of it departs
 * at once if new flows use their credit.
 */
static __always_inline __s64 tb_fair_limit(const struct tb_ctx *ctx, const struct tb_turn *turn)
{
	__s64 early = tb_early_drop_limit(ctx), longest = ctx->config->longest_backlog_q;

	return early + ((longest - early) & tb_if_negative(turn->wait - turn->ahead) &
			~tb_if_negative(early - turn->wait));
}

/* A tag beyond the largest, or a departure beyond the FIFO queue's, is stale. */
static __always_inline void tb_update_cell(const struct tb_ctx *ctx, const struct tb_turn *turn,
					   struct tb_flow *cell, __s64 departs, __s64 fifo)
{
	__u64 tag = turn->top - turn->span + turn->own + turn->cost;
	__s64 last = tb_difference(*(volatile __u64 *)&cell->departs, ctx->now);
	__s64 more = tb_difference(cell->tag, tag);
	__s64 is_stale = tb_if_negative(turn->cost - tb_difference(cell->tag, turn->top));

	*(volatile __u64 *)&cell->tag = tag + tb_max(more & ~is_stale, 0);
	is_stale = tb_if_negative(fifo - last);
	*(volatile __u64 *)&cell->departs = ctx->now + tb_max(last & ~is_stale, departs);
}

static __always_inline void tb_update_slot(const struct tb_ctx *ctx, const struct tb_turn *turn)
{
	__s64 span = tb_max(turn->span, turn->own + turn->cost);
	__u64 share = ((__u64)span >> TB_FAIR_SHIFT << TB_SHARE_BITS) /
		      (__u64)tb_max(turn->ahead_after >> TB_FAIR_SHIFT, 1);

	*(volatile __u64 *)&ctx->meters->fair_top = turn->top - turn->span + span;
	*(volatile __u64 *)&ctx->meters->fair_others = TB_SHARE_ONE - tb_min(share, TB_SHARE_ONE);
}

/*
 * Records a packet that was charged. Returns when it departs: fifo is the time of a FIFO queue. The flow with
 * the largest backlog departs then.
 */
static __always_inline __s64 tb_take_turn(const struct tb_ctx *ctx, const struct tb_turn *turn, __s64 fifo)
{
	__s64 departs = tb_min(tb_max(turn->wait, fifo & ~tb_if_negative(turn->own - turn->span)), fifo);

	tb_update_cell(ctx, turn, turn->first, departs, fifo);
	tb_update_cell(ctx, turn, turn->second, departs, fifo);
	tb_update_slot(ctx, turn);
	return departs;
}

#endif
