/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The size of a packet on the wire, and the bytes of its headers that other files read. */
#ifndef TB_PACKET_H
#define TB_PACKET_H

#include "compiler.h"

enum {
	TB_ETH_HLEN = 14,
	TB_ETH_P_IP = 0x0800,
	TB_ETH_P_ARP = 0x0806,
	TB_ETH_P_8021Q = 0x8100,
	TB_ETH_P_IPV6 = 0x86dd,
	TB_ETH_P_8021AD = 0x88a8,
	TB_VLAN_HLEN = 4,
	TB_IPV6_HLEN = 40,
	TB_UDP_HLEN = 8,
	TB_IPPROTO_HOPOPTS = 0,
	TB_IPPROTO_TCP = 6,
	TB_IPPROTO_UDP = 17,
	TB_IPPROTO_ICMPV6 = 58,
	TB_ND_FIRST = 133, /* router solicitation ... */
	TB_ND_LAST = 137,  /* ... redirect */
	TB_ND_HOP_LIMIT = 255,
};

enum tb_hook {
	TB_INGRESS_HOOK,
	TB_EGRESS_HOOK,
};

/* 64 bits each, because bcc compiles for BPF without 32-bit arithmetic. */
struct tb_packet {
	__u64 wire_bytes; /* Ethernet frames without FCS, with the headers of each segment */
	__u64 segments;
};

/* Returns one byte, by its offset in the network header; 0 if the packet is too short. */
static __always_inline __u8 tb_net_byte(struct __sk_buff *skb, __u32 offset)
{
	__u8 byte = 0;

	bpf_skb_load_bytes_relative(skb, offset, &byte, 1, BPF_HDR_START_NET);
	return byte;
}

/* Returns 16 bits of the frame in host byte order; 0 if the packet is too short. */
static __always_inline __u16 tb_load_be16(struct __sk_buff *skb, __u32 offset)
{
	__u16 word = 0;

	bpf_skb_load_bytes(skb, offset, &word, sizeof(word));
	return __builtin_bswap16(word);
}

static __always_inline int tb_is_vlan(__u16 ethertype)
{
	return ethertype == TB_ETH_P_8021Q || ethertype == TB_ETH_P_8021AD;
}

/* Returns the ethertype below at most two VLAN tags in the frame, and adds the tags' length to network. */
static __always_inline __u16 tb_skip_vlan_tags(struct __sk_buff *skb, __u16 ethertype, __u32 *network)
{
	for (int tags = 0; tags < 2; tags++) {
		if (!tb_is_vlan(ethertype))
			break;
		ethertype = tb_load_be16(skb, *network + 2);
		*network += TB_VLAN_HLEN;
	}
	return ethertype;
}

static __always_inline int tb_is_protocol(struct __sk_buff *skb, __u16 ethertype)
{
	return skb->protocol == (__u32)__builtin_bswap16(ethertype);
}

/*
 * Returns the bytes of headers that each segment of a GSO packet repeats. A BIG TCP packet over IPv6 has a
 * hop-by-hop option (jumbo payload) that segmentation removes: it does not count.
 */
static __always_inline __u32 tb_segment_headers(struct __sk_buff *skb)
{
	__u32 transport, option = 0;
	__u8 protocol;

	if (tb_is_protocol(skb, TB_ETH_P_IPV6)) {
		protocol = tb_net_byte(skb, 6);
		transport = TB_IPV6_HLEN;
		if (protocol == TB_IPPROTO_HOPOPTS) {
			protocol = tb_net_byte(skb, TB_IPV6_HLEN);
			option = 8 * (tb_net_byte(skb, TB_IPV6_HLEN + 1) + 1);
		}
	} else {
		protocol = tb_net_byte(skb, 9);
		transport = 4 * (tb_net_byte(skb, 0) & 0xf);
	}
	if (protocol == TB_IPPROTO_TCP)
		return TB_ETH_HLEN + transport + 4 * (tb_net_byte(skb, transport + option + 12) >> 4);
	return TB_ETH_HLEN + transport + TB_UDP_HLEN;
}

/*
 * The same by direct access, 40 ns faster, for TCP and UDP over IP with the headers in the linear part of an
 * Ethernet frame. Returns 0 for other packets. If the frame's ethertype is skb->protocol, the network header
 * is behind it.
 */
static __always_inline __u64 tb_linear_headers(struct __sk_buff *skb)
{
	const __u8 *network = (void *)(long)skb->data + TB_ETH_HLEN, *tcp;
	void *end = (void *)(long)skb->data_end;
	__u64 transport = TB_IPV6_HLEN;
	__u8 protocol;

	if ((void *)(network + TB_IPV6_HLEN) > end || *(__u16 *)(network - 2) != skb->protocol)
		return 0;
	if (tb_is_protocol(skb, TB_ETH_P_IPV6)) {
		protocol = network[6];
	} else if (tb_is_protocol(skb, TB_ETH_P_IP)) {
		protocol = network[9];
		transport = 4 * (network[0] & 0xf);
	} else
		return 0;
	if (protocol == TB_IPPROTO_UDP)
		return TB_ETH_HLEN + transport + TB_UDP_HLEN;
	if (protocol != TB_IPPROTO_TCP)
		return 0;
	tcp = network + transport;
	asm("" : "+r"(tcp)); /* the pointer that is checked must be the one that is read */
	if ((void *)(tcp + 13) > end)
		return 0;
	return TB_ETH_HLEN + transport + 4 * (tcp[12] >> 4);
}

static __always_inline __u64 tb_headers(struct __sk_buff *skb)
{
	__u64 headers = tb_linear_headers(skb);

	return headers ? headers : tb_segment_headers(skb);
}

/* Returns the number of segments of a GSO packet: gso_size bytes of payload each. */
static __always_inline __u64 tb_segments(struct __sk_buff *skb, __u64 headers)
{
	__u64 gso_size = skb->gso_size;

	return skb->len > headers ? (skb->len - headers + gso_size - 1) / gso_size : 1;
}

/*
 * At an egress hook, wire_len is the length that the qdisc layer accounts (qdisc_pkt_len_init() in
 * net/core/dev.c). For a GSO packet of a virtual machine or a raw socket, gso_segs is 0.
 */
static __always_inline struct tb_packet tb_egress_packet(struct __sk_buff *skb)
{
	struct tb_packet packet = { .wire_bytes = skb->wire_len, .segments = skb->gso_segs };

	if (!packet.segments)
		packet.segments = skb->gso_size ? tb_segments(skb, tb_headers(skb)) : 1;
	return packet;
}

/* At an ingress hook, wire_len includes neither segments nor the Ethernet header. len includes the latter. */
static __always_inline struct tb_packet tb_ingress_packet(struct __sk_buff *skb)
{
	struct tb_packet packet = { .wire_bytes = skb->len, .segments = 1 };
	__u64 headers;

	if (!skb->gso_size)
		return packet;
	headers = tb_headers(skb);
	packet.segments = tb_segments(skb, headers);
	if (skb->gso_segs > packet.segments) /* SCTP: gso_size is GSO_BY_FRAGS */
		packet.segments = skb->gso_segs;
	packet.wire_bytes += (packet.segments - 1) * headers;
	return packet;
}

/*
 * Whether the packet is ARP or IPv6 neighbour discovery, which every other packet depends on. A hop limit
 * below 255 shows that the packet comes from another link, and is not valid (RFC 4861, 7.1).
 */
static __always_inline int tb_is_neighbour_discovery(struct __sk_buff *skb)
{
	__u8 type;

	if (tb_is_protocol(skb, TB_ETH_P_ARP))
		return 1;
	if (!tb_is_protocol(skb, TB_ETH_P_IPV6) || tb_net_byte(skb, 6) != TB_IPPROTO_ICMPV6 ||
	    tb_net_byte(skb, 7) != TB_ND_HOP_LIMIT)
		return 0;
	type = tb_net_byte(skb, TB_IPV6_HLEN);
	return type >= TB_ND_FIRST && type <= TB_ND_LAST;
}

#endif
