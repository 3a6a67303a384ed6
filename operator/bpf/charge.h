/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Charging: a chain of buckets (the peer's and the slot's, or the slot's alone) charges a packet to all
 * meters or to none, in three steps without a loop:
 *
 *	1. Read all meters. If one rejects the packet, no meter is charged.
 *	2. Charge all meters, each by one atomic addition, which returns the word as it was.
 *	3. If a word shows that another CPU charged it after step 1 and the packet no longer fits, refund all.
 *
 * The chain never admits more than one CPU alone would. Between steps 2 and 3 a third CPU can reject a packet
 * because of a charge that is refunded later.
 *
 * tb_take (gcra.h) is faster for one word, but is a loop. The verifier follows each branch of each round to
 * the end of the program: four loops exceed its limit of a million instructions.
 */
#ifndef TB_CHARGE_H
#define TB_CHARGE_H

#include "bucket.h"
#include "context.h"
#include "peer.h"

static __always_inline void tb_charge_meter(const struct tb_meter *meter, __u64 now, struct tb_schedule *out)
{
	__s64 backlog;

	if (!tb_is_used(meter))
		return;
	backlog = __sync_fetch_and_add(meter->word, meter->cost) - now;
	out->backlog = tb_max(out->backlog, backlog);
	out->departs = tb_max(out->departs, backlog + tb_min(meter->cost, meter->burst));
	out->late |= meter->max_backlog - backlog;
}

static __always_inline void tb_charge_bucket(const struct tb_bucket *bucket, __u64 now,
					     struct tb_schedule *out)
{
	tb_charge_meter(&bucket->packets, now, out);
	tb_charge_meter(&bucket->bytes, now, out);
}

/* The cost of an unused meter is 0. */
static __always_inline void tb_refund_bucket(const struct tb_bucket *bucket)
{
	__sync_fetch_and_add(bucket->bytes.word, -bucket->bytes.cost);
	__sync_fetch_and_add(bucket->packets.word, -bucket->packets.cost);
}

/* Charges the peer's bucket and the slot's. Returns 0 if one of them rejects the packet. */
static __always_inline int tb_charge_peer_and_slot(const struct tb_ctx *ctx, enum tb_admission how,
						   struct tb_schedule *out)
{
	struct tb_remote *remote = ctx->remote;
	struct tb_bucket slot = tb_slot_bucket(ctx, how);
	struct tb_bucket peer = tb_peer_bucket(ctx, how);

	if (!remote->is_new && !tb_accepts(&peer, ctx->now, out)) {
		if (how == TB_CONFORM)
			ctx->stats->peer_too_fast_packets += ctx->packet.segments;
		return 0;
	}
	if (!tb_accepts(&slot, ctx->now, out))
		return 0;
	if (remote->is_new && !tb_insert_peer(ctx, &peer, out))
		return 0;
	tb_charge_bucket(&slot, ctx->now, out);
	tb_charge_bucket(&peer, ctx->now, out);
	if (out->late < 0) {
		tb_refund_bucket(&slot);
		tb_refund_bucket(&peer);
		return 0;
	}
	if (remote->peer == &ctx->meters->shared_peer)
		ctx->stats->shared_peer_packets += ctx->packet.segments;
	return 1;
}

/* Charges a bucket if it accepts the packet. Returns whether it does. */
static __always_inline int tb_charge_one(const struct tb_ctx *ctx, const struct tb_bucket *bucket,
					 struct tb_schedule *out)
{
	if (!tb_accepts(bucket, ctx->now, out))
		return 0;
	tb_charge_bucket(bucket, ctx->now, out);
	if (out->late < 0)
		tb_refund_bucket(bucket);
	return out->late >= 0;
}

/*
 * Charges the packet to the chain of its buckets: to all, or to none. Returns 0 if one rejects the packet. A
 * chain of one has its own code: testing for a second bucket costs 4 ns.
 */
static __always_inline int tb_charge(const struct tb_ctx *ctx, enum tb_admission how, struct tb_schedule *out)
{
	struct tb_bucket slot;

	if (ctx->remote)
		return tb_charge_peer_and_slot(ctx, how, out);
	slot = tb_slot_bucket(ctx, how);
	return tb_charge_one(ctx, &slot, out);
}

/*
 * Charges a packet that conforms to all meters. One meter is the fast path: a chain costs 2 to 4 ns more. The
 * slot has a rate.
 */
static __always_inline enum tb_case tb_charge_conforming(const struct tb_ctx *ctx)
{
	const struct tb_config *config = ctx->config;
	struct tb_schedule schedule = {};

	if (!ctx->remote && !config->bytes_scale)
		return tb_take(&ctx->meters->packets_tat, ctx->now,
			       tb_packets_cost(ctx->packet.segments, config->packets_scale),
			       config->packets_burst_q);
	if (!ctx->remote && !config->packets_scale)
		return tb_take(&ctx->meters->bytes_tat, ctx->now,
			       tb_bytes_cost(ctx->packet.wire_bytes, config->bytes_scale),
			       config->bytes_burst_q);
	if (!tb_charge(ctx, TB_CONFORM, &schedule))
		return TB_TOO_FAST;
	return schedule.idle ? TB_IDLE : TB_IN_WINDOW;
}

/* Charges a bucket without a test. The reads before move idle words to the start of the window. */
static __always_inline void tb_charge_untested(const struct tb_bucket *bucket, __u64 now,
					       struct tb_schedule *out)
{
	tb_meter_accepts(&bucket->packets, now, out);
	tb_meter_accepts(&bucket->bytes, now, out);
	tb_charge_bucket(bucket, now, out);
}

/* Charges a packet to all buckets that passes by a bucket of its own: small packets and the reserve. */
static __always_inline void tb_charge_all(const struct tb_ctx *ctx, struct tb_schedule *out)
{
	struct tb_bucket bucket = tb_slot_bucket(ctx, TB_SMALL);

	tb_charge_untested(&bucket, ctx->now, out);
	if (!ctx->remote)
		return;
	bucket = tb_peer_bucket(ctx, TB_SMALL);
	if (ctx->remote->is_new)
		tb_insert_peer(ctx, &bucket, out);
	tb_charge_untested(&bucket, ctx->now, out);
}

#endif
