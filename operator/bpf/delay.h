/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Delay: an excess packet passes with an earliest departure time (bpf_skb_set_tstamp, since 5.18). The fq
 * qdisc behind the egress hook holds the packet until then.
 *
 *	departs = backlog + min(cost, burst)    the time at which the packet conforms (charge.h)
 *
 * With a fair queue, fair.h makes the time of a flow with a smaller backlog earlier.
 *
 * max_delay limits the backlog ahead of a packet, not the packet's own cost, so a GSO packet passes an empty
 * bucket at any rate. Small packets (acknowledgments, SYN, DNS, ping) are charged and never wait, so that
 * the peer of a bulk transfer gets its answers at once. tb_max_backlog (bucket.h) has the limits of both.
 */
#ifndef TB_DELAY_H
#define TB_DELAY_H

#include "bucket.h"
#include "charge.h"
#include "context.h"
#include "fair.h"
#include "gcra.h"

enum {
	TB_ECN_MASK = 3,
	TB_ECN_NOT_ECT = 0,
	TB_ECN_ECT1 = 1, /* L4S, RFC 9331 */
	TB_ECN_CE = 3,
	/* ECT(0) packets are marked if the backlog exceeds max_delay / TB_CE_FRACTION. */
	TB_CE_FRACTION = 5,
};

/* ECT(1) packets are marked if the backlog exceeds 1 ms. */
#define TB_CE_ECT1_Q ((__s64)TB_QUANTA_PER_NS * 1000000)
/* BPF_SKB_TSTAMP_DELIVERY_MONO. Linux 6.10 renamed it to BPF_SKB_CLOCK_MONOTONIC, with the same value. */
#define TB_CLOCK_MONOTONIC 1

/*
 * Marks the packet of an ECN-capable sender (RFC 3168). Packets with a VLAN tag in the frame stay as they
 * are: bpf_skb_ecn_set_ce() writes at the network header, which is the tag there.
 */
static __always_inline void tb_mark_ecn(const struct tb_ctx *ctx, __s64 backlog)
{
	__s64 threshold = ctx->config->max_delay_q / TB_CE_FRACTION;
	__u8 ecn;

	if (backlog <= threshold && backlog <= TB_CE_ECT1_Q)
		return;
	if (!tb_is_protocol(ctx->skb, TB_ETH_P_IP) && !tb_is_protocol(ctx->skb, TB_ETH_P_IPV6))
		return;
	ecn = tb_net_byte(ctx->skb, 1) >> (tb_is_protocol(ctx->skb, TB_ETH_P_IPV6) ? 4 : 0) & TB_ECN_MASK;
	if (ecn == TB_ECN_NOT_ECT || ecn == TB_ECN_CE)
		return;
	if (backlog > (ecn == TB_ECN_ECT1 ? TB_CE_ECT1_Q : threshold) && bpf_skb_ecn_set_ce(ctx->skb) > 0)
		ctx->stats->ce_packets += ctx->packet.segments;
}

/*
 * Lets the packet depart at once. Without a time, fq delays a packet of a local socket by the pacing rate of
 * the socket (SO_MAX_PACING_RATE, which needs no capability). Packets of other hosts have no socket here.
 */
static __always_inline void tb_depart_now(const struct tb_ctx *ctx)
{
	ctx->skb->tstamp = ctx->skb->sk ? ctx->now_ns : 0;
}

/*
 * A packet can arrive with a departure time: from TCP, which leaves its pacing to an fq, from another
 * limiter, or from a socket with SO_TXTIME, which needs no capability. A veth keeps it. Packets lose a time
 * beyond max_delay, and without TB_PACING any time, so that no sender can fill fq
 * (core/limits/queue_bound.py). 0 is no time.
 */
static __always_inline void tb_bound_departure(const struct tb_ctx *ctx)
{
	const struct tb_config *config = ctx->config;
	__u64 longest_q = config->flags & TB_PACING ? config->max_delay_q : 0;

	if (ctx->skb->tstamp - 1 >= ctx->now_ns + longest_q / TB_QUANTA_PER_NS)
		tb_depart_now(ctx);
}

/* Sets the departure time, unless the packet already has a later one. */
static __always_inline void tb_set_departure(const struct tb_ctx *ctx, __u64 delay_ns)
{
	__u64 departs_ns = ctx->now_ns + delay_ns;

	if (!delay_ns || ctx->skb->tstamp >= departs_ns)
		return;
	/* The kernel rejects packets other than IP, such as ARP: these depart at once. */
	if (!bpf_skb_set_tstamp(ctx->skb, departs_ns, TB_CLOCK_MONOTONIC))
		ctx->stats->delayed_ns += delay_ns * ctx->packet.segments;
}

/*
 * Admits small packets that exceed the limit by a bucket of their own, with the rates of the slot and half of
 * max_delay as burst: they pass behind large packets of any length, and add no more than this to the backlog.
 */
static __always_inline int tb_admit_small(const struct tb_ctx *ctx)
{
	const struct tb_config *config = ctx->config;
	__u64 burst = config->max_delay_q / 2;
	__u32 slot = ctx->slot;
	struct tb_flows *state = bpf_map_lookup_elem(&tb_flows, &slot);
	struct tb_schedule schedule = {};
	struct tb_bucket bucket;

	if (!state)
		return 0;
	if (ctx->remote && !ctx->remote->is_new) {
		bucket = tb_peer_bucket(ctx, TB_SMALL);
		if (!tb_accepts(&bucket, ctx->now, &schedule))
			return 0;
	}
	bucket = tb_bucket(ctx, TB_CONFORM, tb_meter(&state->small_bytes_tat, &config->bytes_scale, burst),
			   tb_meter(&state->small_packets_tat, &config->packets_scale, burst));
	return tb_charge_one(ctx, &bucket, &schedule);
}

/*
 * Charges an excess packet, and lets it pass at once or later; with TB_OBSERVE, only counts it. Returns 0,
 * with nothing charged, if the backlog is too long.
 */
static __always_inline int tb_delay(struct tb_ctx *ctx)
{
	struct tb_schedule schedule = {};
	struct tb_turn turn = {};
	int is_small = tb_is_small(ctx);

	tb_find_turn(ctx, &turn);
	ctx->max_backlog = tb_fair_limit(ctx, &turn);
	if (is_small ? !tb_admit_small(ctx) : !tb_charge(ctx, TB_ENQUEUE, &schedule))
		return 0;
	if (is_small)
		tb_charge_all(ctx, &schedule);
	if (turn.first) {
		schedule.departs = tb_take_turn(ctx, &turn, schedule.departs);
		schedule.backlog = turn.wait;
	}
	tb_count(ctx, &ctx->stats->delayed_packets, &ctx->stats->delayed_bytes);
	if (ctx->config->flags & TB_OBSERVE)
		return 1;
	tb_mark_ecn(ctx, schedule.backlog);
	if (is_small)
		tb_depart_now(ctx);
	else
		tb_set_departure(ctx, (__u64)schedule.departs / TB_QUANTA_PER_NS);
	return 1;
}

#endif
