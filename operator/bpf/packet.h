/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The bytes of headers that the program reads. */
#ifndef TB_PACKET_H
#define TB_PACKET_H

#include "compiler.h"

enum {
	TB_ETH_HLEN = 14,
	TB_ETH_P_IP = 0x0800,
	TB_ETH_P_ARP = 0x0806,
	TB_ETH_P_TEB = 0x6558, /* Ethernet in a tunnel */
	TB_ETH_P_8021Q = 0x8100,
	TB_ETH_P_IPV6 = 0x86dd,
	TB_ETH_P_MPLS = 0x8847,
	TB_ETH_P_MPLS_MC = 0x8848,
	TB_ETH_P_8021AD = 0x88a8,
	TB_VLAN_HLEN = 4,
	TB_IPV4_SOURCE = 12, /* offsets of addresses; the destination follows the source */
	TB_IPV6_SOURCE = 8,
	TB_IPV6_HLEN = 40,
	TB_UDP_HLEN = 8,
	TB_GPE_IP = 1, /* next protocols of VXLAN-GPE */
	TB_GPE_IPV6 = 2,
	TB_SCTP_HLEN = 12,
	TB_IPPROTO_HOPOPTS = 0,
	TB_IPPROTO_IPIP = 4,
	TB_IPPROTO_TCP = 6,
	TB_IPPROTO_UDP = 17,
	TB_IPPROTO_IPV6 = 41,
	TB_IPPROTO_ROUTING = 43,
	TB_IPPROTO_GRE = 47,
	TB_IPPROTO_AH = 51,
	TB_IPPROTO_ICMPV6 = 58,
	TB_IPPROTO_DSTOPTS = 60,
	TB_IPPROTO_SCTP = 132,
	TB_IPPROTO_MPLS = 137,
	TB_IN_UDP = 256, /* no IP protocol, and no ethertype */
	TB_HEADERS_MAX = 12,
	TB_GSO_BY_FRAGS = 0xffff, /* gso_size of SCTP: segments differ */
	TB_ND_FIRST = 133,        /* router solicitation ... */
	TB_ND_LAST = 137,         /* ... redirect */
	TB_ND_HOP_LIMIT = 255,
};

enum tb_hook {
	TB_INGRESS_HOOK,
	TB_EGRESS_HOOK,
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

/* Returns whether the packet has no Ethernet header. Few packets begin with 8 bytes of their IP header. */
static __always_inline int tb_is_layer_3(struct __sk_buff *skb)
{
	__u64 frame = 0, network = 0;

	bpf_skb_load_bytes(skb, 0, &frame, sizeof(frame));
	bpf_skb_load_bytes_relative(skb, 0, &network, sizeof(network), BPF_HDR_START_NET);
	return frame == network;
}

/*
 * Returns the offset of the network header: 0 on interfaces without an Ethernet header. A frame that contains
 * skb->protocol, and does not begin with an IP version, has an Ethernet header.
 */
static __always_inline __u32 tb_network_offset(struct __sk_buff *skb)
{
	const __u8 *frame = (void *)(long)skb->data;

	if ((void *)(frame + TB_ETH_HLEN) <= (void *)(long)skb->data_end && frame[0] >> 4 != 4 &&
	    frame[0] >> 4 != 6 && *(const __u16 *)(frame + TB_ETH_HLEN - 2) == (__u16)skb->protocol)
		return TB_ETH_HLEN;
	return tb_is_layer_3(skb) ? 0 : TB_ETH_HLEN;
}

/* Returns the ethertype below at most two VLAN tags in the frame, and adds the tags' length to network. */
static __always_inline __u16 tb_skip_vlan_tags(struct __sk_buff *skb, __u16 ethertype, __u32 *network)
{
	for (int tags = 0; tags < 2; tags++) {
		if (ethertype != TB_ETH_P_8021Q && ethertype != TB_ETH_P_8021AD)
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
 * Returns whether the packet is ARP or IPv6 neighbor discovery, on which all other packets depend. A hop
 * limit below 255 shows that the packet comes from another link, and is not valid (RFC 4861, 7.1).
 */
static __always_inline int tb_is_neighbor_discovery(struct __sk_buff *skb)
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
