/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The size of a packet on the wire. A GSO packet repeats its headers in every segment. */
#ifndef TB_SIZE_H
#define TB_SIZE_H

#include "compiler.h"
#include "gcra.h"
#include "packet.h"

/* 64 bits each, because bcc compiles for BPF without 32-bit arithmetic. */
struct tb_packet {
	__u64 wire_bytes; /* Ethernet frames without FCS, with the headers of each segment */
	__u64 segments;
};

/*
 * Returns the length of the headers of TCP in the linear part of an Ethernet frame, otherwise 0: direct
 * access is 45 ns faster than tb_walk_headers. If skb->protocol is in the frame, the network header follows
 * it. A frame that begins with an IP version may have no Ethernet header.
 */
static __always_inline __s64 tb_linear_headers(struct __sk_buff *skb)
{
	const __u8 *frame = (void *)(long)skb->data, *network = frame + TB_ETH_HLEN, *tcp;
	void *end = (void *)(long)skb->data_end;
	int is_ipv6 = tb_is_protocol(skb, TB_ETH_P_IPV6);
	__u64 transport;

	if ((void *)(network + TB_IPV6_HLEN) > end || *(__u16 *)(network - 2) != skb->protocol ||
	    (!is_ipv6 && !tb_is_protocol(skb, TB_ETH_P_IP)) || frame[0] >> 4 == (is_ipv6 ? 6 : 4))
		return 0;
	transport = is_ipv6 ? TB_IPV6_HLEN : 4 * (network[0] & 0xf);
	tcp = network + transport;
	asm("" : "+r"(tcp)); /* the pointer that is checked must be the one that is read */
	if (network[is_ipv6 ? 6 : 9] != TB_IPPROTO_TCP || (void *)(tcp + 13) > end)
		return 0;
	return TB_ETH_HLEN + transport + 4 * (tcp[12] >> 4);
}

static __always_inline __u32 tb_be16(const __u8 *bytes)
{
	return bytes[0] << 8 | bytes[1];
}

/*
 * Returns the ethertype or protocol in a UDP packet that looks like a tunnel, and adds the length of the
 * tunnel's header. Tunnels use any port: the length in the next IP header shows whether it is one.
 */
static __always_inline __u32 tb_in_udp(const __u8 *payload, __u64 *offset)
{
	__u32 ethertype = tb_be16(payload + 2), version = payload[0] >> 4;

	if (version == 4 || version == 6) /* FOU */
		return version == 4 ? TB_IPPROTO_IPIP : TB_IPPROTO_IPV6;
	if (payload[0] < 32 && (payload[1] == TB_IPPROTO_IPIP || payload[1] == TB_IPPROTO_IPV6)) {
		*offset += 4 + 4 * payload[0]; /* GUE */
		return payload[1];
	}
	if (ethertype == TB_ETH_P_TEB || ethertype == TB_ETH_P_IP || ethertype == TB_ETH_P_IPV6) {
		*offset += 8 + 4 * (payload[0] & 0x3f); /* Geneve */
		return ethertype;
	}
	if (payload[2] & 1)
		return TB_ETH_P_MPLS; /* the last label, or no tunnel */
	*offset += 8;
	if (payload[3] == TB_GPE_IP || payload[3] == TB_GPE_IPV6) /* VXLAN-GPE */
		return payload[3] == TB_GPE_IP ? TB_ETH_P_IP : TB_ETH_P_IPV6;
	return TB_ETH_P_TEB; /* VXLAN, or no tunnel */
}

/* Returns the number, without what the verifier knows of it: it follows the code after this once. */
static __always_inline __u64 tb_hidden(__u64 number, __u64 unknown)
{
	asm volatile("%0 ^= %1\n\t%0 ^= %1" : "+r"(number) : "r"(unknown));
	return number;
}

/*
 * Returns the length of the headers that each segment repeats: of VLAN, MPLS, IP in IP, GRE, tunnels in UDP,
 * and IPv6 extensions. Negative if a header is unknown: then the number is the length before that header.
 */
static __always_inline __s64 tb_walk_headers(struct __sk_buff *skb)
{
	__u32 next = __builtin_bswap16(skb->protocol); /* an ethertype or an IP protocol */
	__u64 offset = TB_ETH_HLEN, known = 0, total;

	/* Unrolled: the verifier of Linux 6.1 rejects a loop that clang closes without a jump. */
#pragma unroll
	for (int count = 0; count <= TB_HEADERS_MAX; count++) {
		__u8 header[16] = {};

		if (count == TB_HEADERS_MAX) {
			offset = known ? known : offset; /* without what may be no tunnel */
			known = 0;
			break;
		}
		next = tb_hidden(next, skb->len);
		known = tb_hidden(known, skb->len);
		offset = tb_hidden(offset, skb->len);
		bpf_skb_load_bytes_relative(skb, offset - TB_ETH_HLEN, header, sizeof(header),
					    BPF_HDR_START_NET);
		if (next == TB_IPPROTO_IPIP || next == TB_IPPROTO_IPV6)
			next = next == TB_IPPROTO_IPIP ? TB_ETH_P_IP : TB_ETH_P_IPV6;
		if (next == TB_ETH_P_IP || next == TB_ETH_P_IPV6) {
			total = next == TB_ETH_P_IP ? tb_be16(header + 2)
						    : TB_IPV6_HLEN + tb_be16(header + 4);
			if (known && offset + total != skb->len && offset + total != skb->len + TB_ETH_HLEN)
				break; /* no tunnel */
			known = 0;
			offset += next == TB_ETH_P_IP ? 4 * (header[0] & 0xf) : TB_IPV6_HLEN;
			next = next == TB_ETH_P_IP ? header[9] : header[6];
		} else if (next == TB_IPPROTO_TCP) {
			known = offset + 4 * (header[12] >> 4);
			break;
		} else if (next == TB_IPPROTO_SCTP) {
			known = offset + TB_SCTP_HLEN;
			break;
		} else if (next == TB_IPPROTO_UDP) {
			offset += TB_UDP_HLEN;
			known = offset;
			next = TB_IN_UDP;
		} else if (next == TB_IN_UDP)
			next = tb_in_udp(header, &offset);
		else if (next == TB_ETH_P_TEB) {
			offset += TB_ETH_HLEN;
			next = tb_be16(header + 12);
			if (next < TB_ETH_P_IP) /* no ethertype */
				break;
		} else if (next == TB_ETH_P_8021Q || next == TB_ETH_P_8021AD) {
			offset += TB_VLAN_HLEN;
			next = tb_be16(header + 2);
		} else if (next == TB_ETH_P_MPLS || next == TB_ETH_P_MPLS_MC || next == TB_IPPROTO_MPLS) {
			offset += 4;
			if (header[2] & 1) /* the last label */
				next = header[4] >> 4 == 6 ? TB_IPPROTO_IPV6 : TB_IPPROTO_IPIP;
		} else if (next == TB_IPPROTO_GRE) {
			offset += 4 + 4 * (header[0] >> 7) + 4 * (header[0] >> 5 & 1) +
				  4 * (header[0] >> 4 & 1);
			next = tb_be16(header + 2);
		} else if (next == TB_IPPROTO_HOPOPTS || next == TB_IPPROTO_ROUTING ||
			   next == TB_IPPROTO_DSTOPTS || next == TB_IPPROTO_AH) {
			offset += next == TB_IPPROTO_AH ? 4 * (header[1] + 2) : 8 * (header[1] + 1);
			next = header[0];
		} else
			break;
	}
	return tb_hidden(known ? known : -offset, (__u64)skb->len << 32);
}

/*
 * Sizes a GSO packet: gso_size bytes of payload in each segment but the last, which has 1 byte or more. With
 * gso_segs, this bounds the length of the headers on both sides. If the headers in the packet are unknown or
 * out of bounds, the upper bound counts. gso_segs is 0 in packets of virtual machines and raw sockets: with
 * unknown headers of half the packet, no other length of the headers makes more bytes.
 * Segments of layer 3 interfaces count with Ethernet headers, except the first.
 */
static __always_inline void tb_size_segments(struct __sk_buff *skb, struct tb_packet *packet)
{
	__s64 length = skb->len, size = skb->gso_size, segments = skb->gso_segs, payload, most;
	__s64 headers = tb_linear_headers(skb);
	int is_known;

	if (!headers)
		headers = tb_walk_headers(skb);
	is_known = headers > 0;
	headers = is_known ? headers : -headers;
	if (!segments) {
		payload = length - headers + (tb_is_layer_3(skb) ? TB_ETH_HLEN : 0);
		segments = payload > size ? (__u64)(payload + size - 1) / (__u64)size : 1;
		if (!is_known) {
			headers = tb_max(headers, length / 2);
			segments++; /* the last one may be short */
		}
	} else if (size != TB_GSO_BY_FRAGS) {
		most = length - (segments - 1) * size - 1;
		if (most > 0 && (!is_known || headers > most || headers < length - segments * size))
			headers = most;
	}
	packet->segments = segments;
	packet->wire_bytes = tb_max(packet->wire_bytes, length + (segments - 1) * headers) +
			     (segments - 1) * TB_VLAN_HLEN * skb->vlan_present;
	packet->segments = tb_hidden(packet->segments, (__u64)length << 32 | length);
	packet->wire_bytes = tb_hidden(packet->wire_bytes, (__u64)length << 32 | length);
}

/*
 * Returns the size of a packet. At an egress hook, wire_len is the length that the qdisc layer accounts
 * (qdisc_pkt_len_init() in net/core/dev.c), without SCTP headers, and in some kernels without those in
 * tunnels. At an ingress hook, wire_len includes neither segments nor the Ethernet header; len has the
 * latter. A VLAN tag outside the frame is in neither.
 */
static __always_inline struct tb_packet tb_size(struct __sk_buff *skb, enum tb_hook hook)
{
	struct tb_packet packet = { .wire_bytes = hook == TB_EGRESS_HOOK ? skb->wire_len : skb->len,
				    .segments = 1 };

	if (skb->gso_size)
		tb_size_segments(skb, &packet);
	packet.wire_bytes += TB_VLAN_HLEN * skb->vlan_present;
	return packet;
}

#endif
