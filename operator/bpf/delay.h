/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Delay: a packet that exceeds is let through now with an earliest departure time, which the fq qdisc behind
 * the egress hook holds it for. Included after gcra.h and packet.h.
 *
 * What is bounded is what waits ahead of a packet, not its own cost, so that a super-packet goes through an
 * empty bucket at any rate. Small packets (acknowledgements, SYN, DNS, ping) are charged and never wait, so
 * that what is waited for is not behind the bulk. They are dropped only where more is ahead than bulk alone
 * can put there: a super-packet behind the longest delay, and the longest delay once more.
 */
#ifndef TB_DELAY_H
#define TB_DELAY_H

enum {
	TB_SMALL_BYTES = 256,
	TB_SUPER_BYTES = 1 << 16, /* the largest super-packet, unless BIG TCP is switched on */
	TB_SUPER_SEGMENTS = 64,
	TB_ECN_MASK = 3,
	TB_ECN_NOT_ECT = 0,
	TB_ECN_ECT1 = 1, /* L4S, RFC 9331 */
	TB_ECN_CE = 3,
	/* ECT(0) is marked from this fraction of the longest delay on. */
	TB_CE_FRACTION = 5,
};

/* ECT(1) is marked from 1 ms on. */
#define TB_CE_ECT1_Q ((__s64)TB_QUANTA_PER_NS * 1000000)

/* The clock type of a departure time: since 6.10 BPF_SKB_CLOCK_MONOTONIC, with the same value. */
#define TB_CLOCK_MONOTONIC 1

/* A packet's place among what waits, in quanta from now on; 0 is now. */
struct tb_wait {
	__s64 ahead; /* when all that waits ahead of it will have gone */
	__s64 departs;
};

static __always_inline __s64 tb_later_of(__s64 a, __s64 b)
{
	return a > b ? a : b;
}

static __always_inline int tb_is_small(struct tb_packet packet)
{
	return packet.wire_bytes <= TB_SMALL_BYTES;
}

/* The most that may wait ahead of a packet by a meter of which a super-packet takes so much. */
static __always_inline __s64 tb_max_ahead(const struct tb_config *config, struct tb_packet packet,
					  __u64 super_cost)
{
	return tb_is_small(packet) ? 2 * config->max_delay_q + super_cost : config->max_delay_q;
}

/* Charges a packet unless more than max_ahead waits ahead of it. Safe against other CPUs. */
static __always_inline int tb_take_later(__u64 *word, __u64 now, __u64 cost, __u64 burst, __s64 max_ahead,
					 struct tb_wait *wait)
{
	for (int try = 0; try < TB_TRIES; try++) {
		__u64 tat = tb_read(word);
		__u64 base = tb_base(tat, now, burst);

		if ((__s64)(base - now) > max_ahead)
			return 0;
		if (__sync_val_compare_and_swap(word, tat, base + cost) != tat)
			continue;
		wait->ahead = tb_later_of(wait->ahead, base - now);
		wait->departs = tb_later_of(wait->departs, base - now + tb_min(cost, burst));
		return 1;
	}
	return 0;
}

/* The decision alone, nothing charged. */
static __always_inline int tb_is_full(__u64 *word, __u64 now, __u64 burst, __s64 max_ahead)
{
	return (__s64)(tb_base(tb_read(word), now, burst) - now) > max_ahead;
}

/* Both meters, or neither. The wait is the longer of the two. */
static __always_inline int tb_charge_later(const struct tb_config *config, struct tb_meters *meters,
					   struct tb_packet packet, __u64 now, struct tb_wait *wait)
{
	__u64 bytes_cost = tb_bytes_cost(packet.wire_bytes, config->bytes_scale);
	__u64 packets_cost = tb_packets_cost(packet.segments, config->packets_scale);
	__s64 bytes_ahead = tb_max_ahead(config, packet, tb_bytes_cost(TB_SUPER_BYTES, config->bytes_scale));
	__s64 packets_ahead =
		tb_max_ahead(config, packet, tb_packets_cost(TB_SUPER_SEGMENTS, config->packets_scale));

	/* Looked at first, so that a flood that the packet meter refuses never touches the byte meter. */
	if (config->packets_scale &&
	    tb_is_full(&meters->packets_tat, now, config->packets_burst_q, packets_ahead))
		return 0;
	if (config->bytes_scale &&
	    !tb_take_later(&meters->bytes_tat, now, bytes_cost, config->bytes_burst_q, bytes_ahead, wait))
		return 0;
	if (!config->packets_scale || tb_take_later(&meters->packets_tat, now, packets_cost,
						    config->packets_burst_q, packets_ahead, wait))
		return 1;
	if (config->bytes_scale)
		__sync_fetch_and_add(&meters->bytes_tat, -bytes_cost);
	return 0;
}

static __always_inline __u8 tb_ecn(struct __sk_buff *skb)
{
	if (tb_is_protocol(skb, TB_ETH_P_IPV6))
		return tb_net_byte(skb, 1) >> 4 & TB_ECN_MASK;
	return tb_net_byte(skb, 1) & TB_ECN_MASK;
}

/*
 * Tells an ECN-capable sender to slow down, RFC 3168. Left alone is all whose network header is not where the
 * kernel looks for it: under a tag in the frame, bpf_skb_ecn_set_ce() would write to the tag.
 */
static __always_inline void tb_signal(struct __sk_buff *skb, const struct tb_config *config,
				      struct tb_stats *stats, struct tb_packet packet, __s64 ahead)
{
	__s64 threshold = config->max_delay_q / TB_CE_FRACTION;
	__u8 ecn;

	if (ahead <= threshold && ahead <= TB_CE_ECT1_Q)
		return;
	if (!tb_is_protocol(skb, TB_ETH_P_IP) && !tb_is_protocol(skb, TB_ETH_P_IPV6))
		return;
	ecn = tb_ecn(skb);
	if (ecn == TB_ECN_NOT_ECT || ecn == TB_ECN_CE)
		return;
	if (ahead > (ecn == TB_ECN_ECT1 ? TB_CE_ECT1_Q : threshold) && bpf_skb_ecn_set_ce(skb) > 0)
		stats->ce_packets += packet.segments;
}

/*
 * A packet may come with a departure time: of the node's own TCP, which paces itself by an fq it finds, of
 * an inner limiter, or of a sender who asked for it (SO_TXTIME, free to all), which outlives the way through
 * a veth. That of a forwarded packet is heeded up to the longest delay only: whoever sends must not decide
 * how much fq holds.
 */
static __always_inline void tb_bound_departure(struct __sk_buff *skb, const struct tb_config *config,
					       __u64 now_ns)
{
	if (skb->ingress_ifindex && skb->tstamp > now_ns + config->max_delay_q / TB_QUANTA_PER_NS)
		skb->tstamp = 0;
}

/* Never before the time that the packet came with. */
static __always_inline void tb_depart(struct __sk_buff *skb, struct tb_stats *stats, __u64 now_ns,
				      __u64 delay_ns)
{
	if (!delay_ns || skb->tstamp >= now_ns + delay_ns)
		return;
	/* Refused for what is no IP, such as ARP: that goes at once. */
	if (!bpf_skb_set_tstamp(skb, now_ns + delay_ns, TB_CLOCK_MONOTONIC))
		stats->delayed_ns += delay_ns;
}

/* Lets a packet that exceeds through, at once or later; with TB_OBSERVE it only counts what would become of
 * it. Returns 0, with nothing charged, if it is to be dropped. */
static __always_inline int tb_delay(struct __sk_buff *skb, const struct tb_config *config,
				    struct tb_meters *meters, struct tb_stats *stats, struct tb_packet packet,
				    __u64 now_ns)
{
	struct tb_wait wait = {};

	if (!tb_charge_later(config, meters, packet, now_ns * TB_QUANTA_PER_NS, &wait))
		return 0;
	stats->delayed_packets += packet.segments;
	stats->delayed_bytes += packet.wire_bytes;
	if (config->flags & TB_OBSERVE)
		return 1;
	tb_signal(skb, config, stats, packet, wait.ahead);
	if (!tb_is_small(packet))
		tb_depart(skb, stats, now_ns, (__u64)wait.departs / TB_QUANTA_PER_NS);
	return 1;
}

#endif
