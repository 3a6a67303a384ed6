/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Delay: a packet that exceeds is let through now with an earliest departure time, which the fq qdisc behind
 * the egress hook holds it for. Included after gcra.h and packet.h.
 *
 * What is bounded is what waits ahead of a packet, not its own cost, so that a super-packet goes through an
 * empty bucket at any rate. Small packets (acknowledgements, SYN, DNS, ping) are charged and never wait, so
 * that what is waited for is not behind the bulk; they are dropped only where twice as much is ahead.
 */
#ifndef TB_DELAY_H
#define TB_DELAY_H

enum {
	TB_SMALL_BYTES = 256,
	TB_ECN_MASK = 3,
	TB_ECN_ECT1 = 1, /* L4S, RFC 9331 */
	/* ECT(0) is marked from this fraction of the longest delay on. */
	TB_CE_FRACTION = 5,
};

/* ECT(1) is marked from 1 ms on. */
#define TB_CE_ECT1_Q (TB_QUANTA_PER_NS * 1000000)

/* The clock type of a departure time: since 6.10 BPF_SKB_CLOCK_MONOTONIC, with the same value. */
#define TB_CLOCK_MONOTONIC 1

/* A packet's place among what waits, in quanta from now on; 0 is now. */
struct tb_wait {
	__u64 ahead; /* when all that waits ahead of it will have gone */
	__u64 departs;
};

static __always_inline __u64 tb_after(__u64 time, __u64 now)
{
	return (__s64)(time - now) > 0 ? time - now : 0;
}

static __always_inline __u64 tb_max(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

/* Charges a packet unless more than max_ahead waits ahead of it. Safe against other CPUs. */
static __always_inline enum tb_case tb_take_later(__u64 *word, __u64 now, __u64 cost, __u64 burst,
						  __u64 max_ahead, __u64 *base)
{
	for (int try = 0; try < TB_TRIES; try++) {
		__u64 tat = *(volatile __u64 *)word;

		*base = tb_base(tat, now, burst);
		if (tb_after(*base, now) > max_ahead)
			return TB_TOO_FAST;
		if (__sync_val_compare_and_swap(word, tat, *base + cost) == tat)
			return TB_IN_WINDOW;
	}
	return TB_CONTENDED;
}

static __always_inline void tb_queue_behind(struct tb_wait *wait, __u64 now, __u64 base, __u64 cost,
					    __u64 burst)
{
	wait->ahead = tb_max(wait->ahead, tb_after(base, now));
	wait->departs = tb_max(wait->departs, tb_after(base + tb_min(cost, burst), now));
}

/* Both meters, or neither. The wait is the longer of the two. */
static __always_inline int tb_charge_later(const struct tb_config *config, struct tb_meters *meters,
					   struct tb_packet packet, __u64 now, __u64 max_ahead,
					   struct tb_wait *wait)
{
	__u64 bytes_cost = tb_bytes_cost(packet.wire_bytes, config->bytes_scale);
	__u64 packets_cost = tb_packets_cost(packet.segments, config->packets_scale);
	__u64 base;

	if (config->bytes_scale) {
		if (tb_take_later(&meters->bytes_tat, now, bytes_cost, config->bytes_burst_q, max_ahead,
				  &base) >= TB_TOO_FAST)
			return 0;
		tb_queue_behind(wait, now, base, bytes_cost, config->bytes_burst_q);
	}
	if (!config->packets_scale)
		return 1;
	if (tb_take_later(&meters->packets_tat, now, packets_cost, config->packets_burst_q, max_ahead,
			  &base) >= TB_TOO_FAST) {
		if (config->bytes_scale)
			__sync_fetch_and_add(&meters->bytes_tat, -bytes_cost);
		return 0;
	}
	tb_queue_behind(wait, now, base, packets_cost, config->packets_burst_q);
	return 1;
}

static __always_inline __u8 tb_ecn(struct __sk_buff *skb)
{
	if (tb_is_protocol(skb, TB_ETH_P_IPV6))
		return tb_net_byte(skb, 1) >> 4 & TB_ECN_MASK;
	return tb_net_byte(skb, 1) & TB_ECN_MASK;
}

/* Tells an ECN-capable sender to slow down, RFC 3168. What is no IP, or behind a tag in the frame, is left.
 */
static __always_inline void tb_signal(struct __sk_buff *skb, const struct tb_config *config,
				      struct tb_stats *stats, __u64 ahead)
{
	__u64 threshold = config->max_delay_q / TB_CE_FRACTION;

	if (ahead <= tb_min(threshold, TB_CE_ECT1_Q))
		return;
	if (ahead <= (tb_ecn(skb) == TB_ECN_ECT1 ? TB_CE_ECT1_Q : threshold))
		return;
	stats->ce_packets += bpf_skb_ecn_set_ce(skb) > 0;
}

/* Lets a packet that exceeds through, at once or later. Returns 0, with nothing charged, if it is to be
 * dropped. */
static __always_inline int tb_delay(struct __sk_buff *skb, const struct tb_config *config,
				    struct tb_meters *meters, struct tb_stats *stats, struct tb_packet packet,
				    __u64 now_ns)
{
	int small = packet.wire_bytes <= TB_SMALL_BYTES;
	__u64 max_ahead = config->max_delay_q << small;
	struct tb_wait wait = {};

	if (!tb_charge_later(config, meters, packet, now_ns * TB_QUANTA_PER_NS, max_ahead, &wait))
		return 0;
	stats->delayed_packets += packet.segments;
	stats->delayed_bytes += packet.wire_bytes;
	tb_signal(skb, config, stats, wait.ahead);
	if (small || !wait.departs)
		return 1;
	/* Refused for what is no IP, such as ARP: that goes at once. */
	if (!bpf_skb_set_tstamp(skb, now_ns + wait.departs / TB_QUANTA_PER_NS, TB_CLOCK_MONOTONIC))
		stats->delayed_ns += wait.departs / TB_QUANTA_PER_NS;
	return 1;
}

#endif
