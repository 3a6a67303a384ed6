/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sets the differentiated services code point of IPv4 and IPv6 packets (RFC 2474). ECN bits stay. */
#ifndef TB_DSCP_H
#define TB_DSCP_H

#include "compiler.h"
#include "packet.h"

enum {
	TB_ETHERTYPE_OFFSET = 12,
	TB_IPV4_CHECKSUM_OFFSET = 10,
	TB_DSCP_SHIFT = 2, /* above the ECN bits */
	TB_IPV6_DSCP_SHIFT = 6,
};

/* The header's checksum compensates the change in a sum over the packet, so skb->csum stays right. */
static __always_inline void tb_set_ipv4_dscp(struct __sk_buff *skb, __u32 network, __u16 dscp)
{
	__u16 before = tb_load_be16(skb, network);
	__u16 after = (before & ~(0x3f << TB_DSCP_SHIFT)) | dscp << TB_DSCP_SHIFT;
	__u16 wire = __builtin_bswap16(after);

	bpf_l3_csum_replace(skb, network + TB_IPV4_CHECKSUM_OFFSET, __builtin_bswap16(before), wire,
			    sizeof(wire));
	bpf_skb_store_bytes(skb, network, &wire, sizeof(wire), 0);
}

static __always_inline void tb_set_ipv6_dscp(struct __sk_buff *skb, __u32 network, __u16 dscp)
{
	__u16 before = tb_load_be16(skb, network);
	__u16 after = (before & ~(0x3f << TB_IPV6_DSCP_SHIFT)) | dscp << TB_IPV6_DSCP_SHIFT;
	__u16 wire = __builtin_bswap16(after);

	bpf_skb_store_bytes(skb, network, &wire, sizeof(wire), BPF_F_RECOMPUTE_CSUM);
}

/* Changes IP packets only, below at most two VLAN tags in the frame. */
static __always_inline void tb_set_dscp(struct __sk_buff *skb, __u16 dscp)
{
	__u32 network = TB_ETH_HLEN;
	__u16 ethertype = tb_skip_vlan_tags(skb, tb_load_be16(skb, TB_ETHERTYPE_OFFSET), &network);

	if (ethertype == TB_ETH_P_IP)
		tb_set_ipv4_dscp(skb, network, dscp);
	else if (ethertype == TB_ETH_P_IPV6)
		tb_set_ipv6_dscp(skb, network, dscp);
}

#endif
