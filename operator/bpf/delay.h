/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Delay: a packet that exceeds is let through now with an earliest departure time, which the fq qdisc behind
 * the egress hook holds it for. Included after peer.h.
 *
 * What is bounded is what waits ahead of a packet, not its own cost, so that a super-packet goes through an
 * empty bucket at any rate. Small packets (acknowledgements, SYN, DNS, ping) are charged and never wait, so
 * that what is waited for is not behind the bulk. They are dropped only where more is ahead than bulk alone
 * can put there: a super-packet behind the longest delay, and half of that delay for themselves.
 */
#ifndef TB_DELAY_H
#define TB_DELAY_H

enum {
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
				    struct tb_meters *meters, struct tb_stats *stats,
				    struct tb_remote *remote, struct tb_packet packet, __u64 now_ns)
{
	struct tb_place place = {};
	__u64 now = now_ns * TB_QUANTA_PER_NS;

	if (!(remote ? tb_charge_chain(config, meters, stats, remote, packet, TB_LATER, now, &place)
		     : tb_charge_alone(config, meters, packet, TB_LATER, now, &place)))
		return 0;
	stats->delayed_packets += packet.segments;
	stats->delayed_bytes += packet.wire_bytes;
	if (config->flags & TB_OBSERVE)
		return 1;
	tb_signal(skb, config, stats, packet, place.ahead);
	if (!tb_is_small(packet))
		tb_depart(skb, stats, now_ns, (__u64)place.departs / TB_QUANTA_PER_NS);
	return 1;
}

#endif
