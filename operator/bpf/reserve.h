/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The reserve of a slot is for small packets that the node sends (probes of the kubelet) and for neighbor
 * discovery, which must survive a flood. All buckets are charged too, so that the total stays at the rate.
 */
#ifndef TB_RESERVE_H
#define TB_RESERVE_H

#include "charge.h"
#include "context.h"
#include "maps.h"
#include "packet.h"

/*
 * Inside a pod, every packet has an ingress interface, so the source address shows that the node sent it. A
 * forged or translated address gives access to the reserve, and no more.
 */
static __always_inline int tb_has_node_source(struct __sk_buff *skb)
{
	struct tb_address source = {};
	__u32 network = tb_network_offset(skb);
	__u16 ethertype = tb_skip_vlan_tags(skb, __builtin_bswap16(skb->protocol), &network);

	if (ethertype == TB_ETH_P_IP) {
		source.words[2] = __builtin_bswap32(0xffff);
		bpf_skb_load_bytes(skb, network + TB_IPV4_SOURCE, &source.words[3], 4);
	} else
		bpf_skb_load_bytes(skb, network + TB_IPV6_SOURCE, source.words, sizeof(source));
	return bpf_map_lookup_elem(&tb_node, &source) != NULL;
}

static __always_inline int tb_is_from_node(const struct tb_ctx *ctx)
{
	if (!(ctx->config->flags & TB_NODE_RESERVE))
		return 0;
	if (ctx->hook == TB_INGRESS_HOOK || ctx->skb->ifindex == TB_IFB)
		return tb_has_node_source(ctx->skb);
	return !ctx->skb->ingress_ifindex;
}

static __always_inline int tb_take_from_reserve(const struct tb_ctx *ctx)
{
	const struct tb_config *config = ctx->config;
	struct tb_meter meter =
		tb_meter(&ctx->meters->reserve_tat, &config->reserve_scale, config->reserve_burst_q);
	struct tb_schedule schedule = {};

	meter.cost = tb_bytes_cost(ctx->packet.wire_bytes, config->reserve_scale);
	meter.max_backlog = -tb_min(meter.cost, meter.burst);
	if (!tb_meter_accepts(&meter, ctx->now, &schedule))
		return 0;
	tb_charge_meter(&meter, ctx->now, &schedule);
	if (schedule.late < 0)
		__sync_fetch_and_add(meter.word, -meter.cost);
	return schedule.late >= 0;
}

static __always_inline int tb_take_reserve(const struct tb_ctx *ctx)
{
	struct tb_schedule schedule = {};

	if (!ctx->config->reserve_scale || ctx->packet.wire_bytes > TB_RESERVE_MAX ||
	    (!tb_is_from_node(ctx) && !tb_is_neighbor_discovery(ctx->skb)) || !tb_take_from_reserve(ctx))
		return 0;
	tb_charge_all(ctx, &schedule);
	tb_count(ctx, &ctx->stats->reserve_packets, &ctx->stats->reserve_bytes);
	return 1;
}

#endif
