// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The data path: one token bucket per slot, for both clsact hooks.
 *
 * A packet that is let through gets TC_ACT_UNSPEC, so that other programs on the hook still run.
 * Whatever is missing (slot, configuration) lets the packet pass and is counted: a limiter must never
 * become an outage.
 */
#include "maps.h"
#include "gcra.h"
#include "packet.h"
#include "dscp.h"
#include "bucket.h"
#include "peer.h"
#include "delay.h"

#ifdef TB_PIN_DIR
#define SEC(name)
#endif

enum {
	TB_PASS = -1, /* TC_ACT_UNSPEC */
	TB_DROP = 2,  /* TC_ACT_SHOT */
};

/* Charges the packet meter, and the byte meter where there is one: both, or neither. */
static __always_inline enum tb_case tb_charge_packets(const struct tb_config *config,
						      struct tb_meters *meters, struct tb_packet packet,
						      __u64 now)
{
	__u64 cost = tb_packets_cost(packet.segments, config->packets_scale);
	__u64 bytes_cost = tb_bytes_cost(packet.wire_bytes, config->bytes_scale);
	enum tb_case verdict;

	if (!config->bytes_scale)
		return tb_take(&meters->packets_tat, now, cost, config->packets_burst_q);
	/* Looked at first, so that a flood that the packet meter refuses never touches the byte meter. */
	if (!tb_would_conform(tb_read(&meters->packets_tat), now, cost, config->packets_burst_q))
		return TB_TOO_FAST;
	verdict = tb_take(&meters->bytes_tat, now, bytes_cost, config->bytes_burst_q);
	if (verdict >= TB_TOO_FAST)
		return verdict;
	verdict = tb_take(&meters->packets_tat, now, cost, config->packets_burst_q);
	if (verdict >= TB_TOO_FAST)
		__sync_fetch_and_add(&meters->bytes_tat, -bytes_cost);
	return verdict;
}

/*
 * A small allowance beside the bucket, for what the node itself sends (probes of the kubelet) and for
 * neighbour discovery, which must not be lost in a flood. It is charged to the bucket all the same, so that
 * the total stays at the rate. Not for bulk.
 */
static __always_inline int tb_passes_in_reserve(struct __sk_buff *skb, const struct tb_config *config,
						struct tb_meters *meters, struct tb_packet packet, __u64 now)
{
	int of_the_node = (config->flags & TB_NODE_RESERVE) && !skb->ingress_ifindex;
	__u64 cost = tb_bytes_cost(packet.wire_bytes, config->reserve_scale);

	if (!config->reserve_scale || packet.wire_bytes > TB_RESERVE_MAX ||
	    (!of_the_node && !tb_is_neighbour_discovery(skb)))
		return 0;
	if (tb_take(&meters->reserve_tat, now, cost, config->reserve_burst_q) >= TB_TOO_FAST)
		return 0;
	__sync_fetch_and_add(&meters->bytes_tat, tb_bytes_cost(packet.wire_bytes, config->bytes_scale));
	__sync_fetch_and_add(&meters->packets_tat, tb_packets_cost(packet.segments, config->packets_scale));
	return 1;
}

static __always_inline int tb_forward(struct tb_stats *stats, struct tb_packet packet)
{
	stats->forwarded_packets += packet.segments;
	stats->forwarded_bytes += packet.wire_bytes;
	return TB_PASS;
}

static __always_inline int tb_drop(struct tb_stats *stats, struct tb_packet packet)
{
	stats->dropped_packets += packet.segments;
	stats->dropped_bytes += packet.wire_bytes;
	return TB_DROP;
}

/* Two-colour marking: what conforms keeps its colour, what exceeds gets the other. Nothing is charged. */
static __always_inline int tb_mark(struct __sk_buff *skb, const struct tb_config *config,
				   struct tb_stats *stats, struct tb_packet packet)
{
	if (!(config->flags & TB_OBSERVE)) {
		stats->marked_packets += packet.segments;
		tb_set_dscp(skb, config->dscp);
	}
	return tb_forward(stats, packet);
}

static __always_inline int tb_exceed(struct __sk_buff *skb, const struct tb_config *config,
				     struct tb_meters *meters, struct tb_stats *stats,
				     struct tb_remote *remote, struct tb_packet packet, enum tb_hook hook,
				     __u64 now_ns)
{
	stats->too_fast_packets += packet.segments;
	stats->too_fast_bytes += packet.wire_bytes;
	if (config->flags & TB_MARK)
		return tb_mark(skb, config, stats, packet);
	if (hook == TB_EGRESS_HOOK && config->flags & TB_DELAY &&
	    tb_delay(skb, config, meters, stats, remote, packet, now_ns))
		return TB_PASS;
	if (tb_passes_in_reserve(skb, config, meters, packet, now_ns * TB_QUANTA_PER_NS)) {
		stats->reserve_packets += packet.segments;
		stats->reserve_bytes += packet.wire_bytes;
		return TB_PASS;
	}
	return config->flags & TB_OBSERVE ? tb_forward(stats, packet) : tb_drop(stats, packet);
}

static __always_inline int tb_unmetered(struct tb_packet packet)
{
	struct tb_stats *stats = tb_stats_of(TB_NO_SLOT);

	if (stats) {
		stats->unmetered_packets += packet.segments;
		stats->unmetered_bytes += packet.wire_bytes;
	}
	return TB_PASS;
}

static __always_inline enum tb_case tb_charge_with_peer(const struct tb_config *config,
							struct tb_meters *meters, struct tb_stats *stats,
							struct tb_remote *remote, struct tb_packet packet,
							__u64 now)
{
	struct tb_place place = { .window = TB_AHEAD_MAX };

	if (!tb_charge_chain(config, meters, stats, remote, packet, TB_NOW, now, &place))
		return TB_TOO_FAST;
	return place.window > 0 ? TB_IN_WINDOW : TB_IDLE;
}

static __always_inline int tb_limit(struct __sk_buff *skb, __u32 slot, enum tb_hook hook, __u64 now_ns)
{
	struct tb_config *config = tb_config_of(slot);
	struct tb_meters *meters = tb_meters_of(slot);
	struct tb_stats *stats = tb_stats_of(slot);
	struct tb_packet packet = hook == TB_EGRESS_HOOK ? tb_leaving(skb) : tb_arriving(skb);
	__u64 now = now_ns * TB_QUANTA_PER_NS;
	struct tb_remote of_packet, *remote = NULL;

	enum tb_case verdict;

	if (!config || !meters || !stats)
		return tb_unmetered(packet);
	if (hook == TB_EGRESS_HOOK && (config->flags & (TB_DELAY | TB_OBSERVE)) == TB_DELAY)
		tb_bound_departure(skb, config, now_ns);
	if (config->flags & TB_PER_PEER) {
		remote = &of_packet;
		tb_find_remote(skb, config, meters, slot, remote);
		verdict = tb_charge_with_peer(config, meters, stats, remote, packet, now);
	} else if (config->packets_scale)
		verdict = tb_charge_packets(config, meters, packet, now);
	else if (config->bytes_scale)
		verdict = tb_take(&meters->bytes_tat, now,
				  tb_bytes_cost(packet.wire_bytes, config->bytes_scale),
				  config->bytes_burst_q);
	else
		return tb_unmetered(packet);
	if (verdict >= TB_TOO_FAST) {
		if (verdict == TB_CONTENDED)
			stats->contended_packets += packet.segments;
		return tb_exceed(skb, config, meters, stats, remote, packet, hook, now_ns);
	}
	if (verdict == TB_IDLE)
		stats->idle_packets += packet.segments;
	else
		stats->in_window_packets += packet.segments;
	stats->conform_bytes += packet.wire_bytes;
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
