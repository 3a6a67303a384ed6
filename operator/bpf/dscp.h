/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sets the differentiated services code point of IPv4 and IPv6 packets (RFC 2474). ECN bits stay. */
#ifndef TB_DSCP_H
#define TB_DSCP_H

#include "packet.h"

enum {
	TB_IPV4_CHECKSUM_OFFSET = 10,
	TB_DSCP_SHIFT = 2, /* above the ECN bits */
	TB_IPV6_DSCP_SHIFT = 6,
};

/*
 * Changes IP packets only, below at most two VLAN tags in the frame. Returns whether the packet is one. The
 * checksum of an IPv4 header compensates the change in a sum over the packet, so skb->csum stays right; IPv6
 * needs BPF_F_RECOMPUTE_CSUM.
 */
static __always_inline int tb_set_dscp(struct __sk_buff *skb, __u16 dscp)
{
	__u32 network = tb_network_offset(skb);
	__u16 outer = network ? tb_load_be16(skb, TB_ETH_HLEN - 2) : __builtin_bswap16(skb->protocol);
	__u16 ethertype = tb_skip_vlan_tags(skb, outer, &network);
	int is_ipv6 = ethertype == TB_ETH_P_IPV6, shift = is_ipv6 ? TB_IPV6_DSCP_SHIFT : TB_DSCP_SHIFT;
	__u16 before, after;

	if (!is_ipv6 && ethertype != TB_ETH_P_IP)
		return 0;
	before = tb_load_be16(skb, network);
	after = __builtin_bswap16((before & ~(0x3f << shift)) | dscp << shift);
	if (!is_ipv6)
		bpf_l3_csum_replace(skb, network + TB_IPV4_CHECKSUM_OFFSET, __builtin_bswap16(before), after,
				    sizeof(after));
	bpf_skb_store_bytes(skb, network, &after, sizeof(after), is_ipv6 ? BPF_F_RECOMPUTE_CSUM : 0);
	return 1;
}

#endif
