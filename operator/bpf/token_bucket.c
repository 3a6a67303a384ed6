// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The data path: one token bucket per slot, for both clsact hooks.
 *
 * A packet that passes gets TC_ACT_UNSPEC, so that the next program on the hook runs. If the slot or its
 * configuration is missing, the packet passes and is counted: a limiter must never become an outage.
 */
#include "bucket.h"
#include "charge.h"
#include "context.h"
#include "delay.h"
#include "dscp.h"
#include "fair.h"
#include "gcra.h"
#include "maps.h"
#include "peer.h"
#include "reserve.h"

enum {
	TB_PASS = -1, /* TC_ACT_UNSPEC */
	TB_DROP = 2,  /* TC_ACT_SHOT */
};

/* Mark changes the code point of excess packets (two-color marking), and does not charge them. */
static __always_inline int tb_handle_excess(struct tb_ctx *ctx)
{
	__u64 flags = ctx->config->flags;

	tb_count(ctx, &ctx->stats->too_fast_packets, &ctx->stats->too_fast_bytes);
	if (!(flags & TB_MARK)) {
		if (ctx->hook == TB_EGRESS_HOOK && flags & TB_DELAY) {
			if (tb_delay(ctx))
				return TB_PASS;
			if (!(flags & TB_OBSERVE))
				tb_depart_now(ctx); /* a packet in the reserve does not wait */
		}
		if (tb_take_reserve(ctx))
			return TB_PASS;
		if (!(flags & TB_OBSERVE)) {
			tb_count(ctx, &ctx->stats->dropped_packets, &ctx->stats->dropped_bytes);
			return TB_DROP;
		}
	} else if (!(flags & TB_OBSERVE) && tb_set_dscp(ctx->skb, ctx->config->dscp))
		ctx->stats->marked_packets += ctx->packet.segments;
	tb_count(ctx, &ctx->stats->forwarded_packets, &ctx->stats->forwarded_bytes);
	return TB_PASS;
}

static __always_inline int tb_pass_unmetered(const struct tb_ctx *ctx)
{
	__u32 slot = TB_NO_SLOT;
	struct tb_stats *stats = bpf_map_lookup_elem(&tb_stats, &slot);

	if (stats)
		tb_count(ctx, &stats->unmetered_packets, &stats->unmetered_bytes);
	return TB_PASS;
}

static __always_inline int tb_limit(struct __sk_buff *skb, __u32 slot, enum tb_hook hook, __u64 now_ns)
{
	struct tb_remote remote;
	struct tb_ctx ctx = {
		.skb = skb,
		.hook = hook,
		.slot = slot,
		.config = bpf_map_lookup_elem(&tb_config, &slot),
		.meters = bpf_map_lookup_elem(&tb_meters, &slot),
		.stats = bpf_map_lookup_elem(&tb_stats, &slot),
		.packet = tb_size(skb, hook),
		.now_ns = now_ns,
		.now = now_ns * TB_QUANTA_PER_NS,
	};
	const struct tb_config *config = ctx.config;
	enum tb_case verdict;

	if (!config || !ctx.meters || !ctx.stats)
		return tb_pass_unmetered(&ctx);
	if (hook == TB_EGRESS_HOOK && (config->flags & (TB_DELAY | TB_OBSERVE)) == TB_DELAY)
		tb_bound_departure(&ctx);
	if (config->flags & TB_PER_PEER) {
		ctx.remote = &remote;
		tb_find_remote(&ctx, slot, &remote);
	} else if (!config->packets_scale && !config->bytes_scale)
		return tb_pass_unmetered(&ctx);
	verdict = tb_charge_conforming(&ctx);
	if (verdict >= TB_TOO_FAST) {
		if (verdict == TB_CONTENDED)
			ctx.stats->contended_packets += ctx.packet.segments;
		return tb_handle_excess(&ctx);
	}
	if (verdict == TB_IDLE)
		ctx.stats->idle_packets += ctx.packet.segments;
	else
		ctx.stats->in_window_packets += ctx.packet.segments;
	ctx.stats->conform_bytes += ctx.packet.wire_bytes;
	return TB_PASS;
}

SEC("tc/egress")
int at_egress_hook(struct __sk_buff *skb)
{
	return tb_limit(skb, skb->tc_classid, TB_EGRESS_HOOK, bpf_ktime_get_ns());
}

SEC("tc/ingress")
int at_ingress_hook(struct __sk_buff *skb)
{
	return tb_limit(skb, skb->tc_classid, TB_INGRESS_HOOK, bpf_ktime_get_ns());
}

#ifndef TB_PIN_DIR
char _license[] SEC("license") = "Dual BSD/GPL";
#endif
