/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A bucket: a byte meter and a packet meter that accept a packet together. This file reads meters, and
 * charge.h charges them.
 */
#ifndef TB_BUCKET_H
#define TB_BUCKET_H

#include "context.h"
#include "gcra.h"

enum {
	TB_SMALL_BYTES = 256,
	/* A GSO packet of one peer in segments of 36 bytes, the least of Linux's TCP with timestamps. */
	TB_GSO_BYTES = 1 << 18,
	TB_GSO_SEGMENTS = 2048,
};

/* The condition on which a meter accepts a packet. */
enum tb_admission {
	TB_CONFORM, /* the packet's tokens are there */
	TB_ENQUEUE, /* the backlog ahead of the packet is short enough */
	TB_SMALL,   /* the same for a small packet of one peer */
};

struct tb_meter {
	__u64 *word;
	const __u64 *scale; /* 0: the meter is not used */
	__u64 burst;
	__u64 cost;
	__s64 max_backlog; /* the longest backlog with which the meter accepts the packet */
};

struct tb_bucket {
	struct tb_meter bytes, packets;
};

/* The result of all meters, in quanta relative to now. */
struct tb_schedule {
	__s64 backlog; /* the time until the packets ahead have departed; at least 0 */
	__s64 departs; /* the time until the packet conforms; at least 0 */
	__s64 late;    /* negative if a backlog was longer than a meter accepts */
	__u64 idle;    /* not 0 if a meter was idle */
};

static __always_inline int tb_is_small(const struct tb_ctx *ctx)
{
	return ctx->packet.wire_bytes <= TB_SMALL_BYTES;
}

/* volatile: otherwise the verifier tracks the value, and follows the code after the test once per value. */
static __always_inline int tb_is_used(const struct tb_meter *meter)
{
	return *(const volatile __u64 *)meter->scale != 0;
}

/* The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators"). */
static __always_inline __u64 tb_mix64(__u64 number)
{
	number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9ULL;
	number = (number ^ number >> 27) * 0x94d049bb133111ebULL;
	return number ^ number >> 31;
}

/*
 * Randomized early drop. Each large packet draws the longest backlog that it accepts:
 *
 *	limit = max_delay/2 + max_delay/2 * draw / 2^16,  draw = max(r1, r2, r3, r4),  r uniform in [0, 2^16)
 *
 * If the backlog covers a share x of the upper half, P(draw < x * 2^16) = x^4 of the packets are dropped. The
 * flow with the most packets loses the most, and a full queue does not lock out the others (RFC 7567, 2.1).
 */
static __always_inline __s64 tb_early_drop_limit(const struct tb_ctx *ctx)
{
	__u64 rnd = tb_mix64(ctx->now), half = ctx->config->max_delay_q / 2;
	__s64 draw = tb_max(tb_max(rnd & 0xffff, rnd >> 16 & 0xffff), tb_max(rnd >> 32 & 0xffff, rnd >> 48));

	return half + (half * draw >> 16);
}

/*
 * The longest backlog with which a meter accepts the packet. A conforming packet finds its tokens: a negative
 * backlog. A small packet does not wait, so it must pass behind the longest queue of its peer's large
 * packets, which is a GSO packet admitted at max_delay.
 */
static __always_inline __s64 tb_max_backlog(const struct tb_ctx *ctx, enum tb_admission how, __u64 need,
					    __u64 gso)
{
	if (how == TB_CONFORM)
		return -(__s64)need;
	if (how == TB_SMALL)
		return ctx->config->max_delay_q + ctx->config->max_delay_q / 2 + gso;
	return ctx->max_backlog;
}

static __always_inline struct tb_meter tb_meter(__u64 *word, const __u64 *scale, __u64 burst)
{
	return (struct tb_meter){ .word = word, .scale = scale, .burst = burst };
}

static __always_inline struct tb_bucket tb_bucket(const struct tb_ctx *ctx, enum tb_admission how,
						  struct tb_meter bytes, struct tb_meter packets)
{
	bytes.cost = tb_bytes_cost(ctx->packet.wire_bytes, *bytes.scale);
	bytes.max_backlog = tb_max_backlog(ctx, how, tb_min(bytes.cost, bytes.burst),
					   tb_bytes_cost(TB_GSO_BYTES, *bytes.scale));
	packets.cost = tb_packets_cost(ctx->packet.segments, *packets.scale);
	packets.max_backlog = tb_max_backlog(ctx, how, tb_min(packets.cost, packets.burst),
					     tb_packets_cost(TB_GSO_SEGMENTS, *packets.scale));
	return (struct tb_bucket){ bytes, packets };
}

static __always_inline struct tb_bucket tb_slot_bucket(const struct tb_ctx *ctx, enum tb_admission how)
{
	const struct tb_config *config = ctx->config;
	__u64 *bytes = &ctx->meters->bytes_tat, *packets = &ctx->meters->packets_tat;

	return tb_bucket(ctx, how, tb_meter(bytes, &config->bytes_scale, config->bytes_burst_q),
			 tb_meter(packets, &config->packets_scale, config->packets_burst_q));
}

/* The time until all charged packets have departed; negative: the tokens. Re-centers an idle window. */
static __always_inline __s64 tb_backlog(const struct tb_meter *meter, __u64 now, struct tb_schedule *out)
{
	__u64 tat = *(volatile __u64 *)meter->word, base = tb_base(tat, now, meter->burst);

	if (base != tat)
		__sync_val_compare_and_swap(meter->word, tat, base);
	out->idle |= base ^ tat;
	return base - now;
}

static __always_inline int tb_meter_accepts(const struct tb_meter *meter, __u64 now, struct tb_schedule *out)
{
	return !tb_is_used(meter) || tb_backlog(meter, now, out) <= meter->max_backlog;
}

/* The packet meter first: a flood that it rejects does not read the byte meter. */
static __always_inline int tb_accepts(const struct tb_bucket *bucket, __u64 now, struct tb_schedule *out)
{
	return tb_meter_accepts(&bucket->packets, now, out) && tb_meter_accepts(&bucket->bytes, now, out);
}

#endif
