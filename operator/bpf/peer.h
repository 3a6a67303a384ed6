/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Peers: each remote address, or prefix, has its own bucket below the slot's.
 *
 * The buckets form a chain (charge.h): a packet passes if all buckets accept it, and is charged to all or to
 * none. The peer's bucket comes first, so that a flood of one peer takes nothing from the others.
 *
 * A peer without an entry has a full bucket. The first packet that the slot's bucket accepts creates the
 * entry, so that a flood of forged addresses replaces entries at most at the slot's rate. Packets without an
 * address, and packets whose entry the map rejects, share one bucket at the rate of a single peer.
 */
#ifndef TB_PEER_H
#define TB_PEER_H

#include "bucket.h"
#include "context.h"
#include "maps.h"

/* The peer of a packet, and its meters: those of shared_peer if the peer has no entry. */
struct tb_remote {
	struct tb_peer_key key;
	struct tb_peer *peer;
	int is_new; /* has no entry yet, and can get one */
};

/*
 * Copies an address of 4 or 16 bytes to an aligned buffer, by direct access if the linear part of the skb has
 * it: that is 15 ns faster than the helper. Returns 0 if the packet is too short.
 */
static __always_inline int tb_load_address(struct __sk_buff *skb, __u32 offset, __u64 *address, __u32 size)
{
	const void *direct = (void *)(long)skb->data + offset;

	if (direct + size > (void *)(long)skb->data_end)
		return !bpf_skb_load_bytes(skb, offset, address, size);
	if (size == 4)
		*(__u32 *)address = *(const __u32 *)direct;
	else {
		address[0] = ((const __u64 *)direct)[0];
		address[1] = ((const __u64 *)direct)[1];
	}
	return 1;
}

/* Writes the remote prefix to the key. Every fragment has addresses. Returns 0 if the packet has none. */
static __always_inline int tb_remote_prefix(const struct tb_ctx *ctx, struct tb_peer_key *key)
{
	const struct tb_config *config = ctx->config;
	int is_destination = !!(config->flags & TB_PEER_IS_DESTINATION);
	__u32 network = tb_network_offset(ctx->skb);

	key->ethertype = tb_skip_vlan_tags(ctx->skb, __builtin_bswap16(ctx->skb->protocol), &network);
	if (key->ethertype == TB_ETH_P_IP) {
		network += TB_IPV4_SOURCE + is_destination * 4;
		if (!tb_load_address(ctx->skb, network, key->prefix, 4))
			return 0;
		key->prefix[0] &= config->peer_ipv4_mask;
		key->prefix_length = config->peer_ipv4_prefix_length;
		return 1;
	}
	network += TB_IPV6_SOURCE + is_destination * 16;
	if (key->ethertype != TB_ETH_P_IPV6 || !tb_load_address(ctx->skb, network, key->prefix, 16))
		return 0;
	key->prefix[0] &= config->peer_ipv6_mask[0];
	key->prefix[1] &= config->peer_ipv6_mask[1];
	key->prefix_length = config->peer_ipv6_prefix_length;
	return 1;
}

/* Points remote to the meters of its peer. Returns 0, and keeps the pointer, if the peer has no entry. */
static __always_inline int tb_find_entry(struct tb_remote *remote)
{
	struct tb_peer *peer = bpf_map_lookup_elem(&tb_peers, &remote->key);

	if (peer)
		remote->peer = peer;
	return peer != NULL;
}

static __always_inline void tb_find_remote(const struct tb_ctx *ctx, __u32 slot, struct tb_remote *remote)
{
	remote->key = (struct tb_peer_key){ .epoch = ctx->meters->peers_epoch, .slot = slot };
	remote->peer = &ctx->meters->shared_peer;
	remote->is_new = tb_remote_prefix(ctx, &remote->key) && !tb_find_entry(remote);
}

static __always_inline struct tb_bucket tb_peer_bucket(const struct tb_ctx *ctx, enum tb_admission how)
{
	const struct tb_config *config = ctx->config;
	__u64 *bytes = &ctx->remote->peer->bytes_tat, *packets = &ctx->remote->peer->packets_tat;

	return tb_bucket(ctx, how, tb_meter(bytes, &config->peer_bytes_scale, config->peer_bytes_burst_q),
			 tb_meter(packets, &config->peer_packets_scale, config->peer_packets_burst_q));
}

/* Creates an entry with a full bucket, unless the map rejects it. Returns whether the packet is accepted. */
static __always_inline int tb_insert_peer(const struct tb_ctx *ctx, struct tb_bucket *bucket,
					  struct tb_schedule *out)
{
	struct tb_remote *remote = ctx->remote;
	__u64 full_tat = ctx->now + (1ULL << 63); /* a full bucket for the longest possible time, 417 days */
	struct tb_peer full = { full_tat, full_tat };

	bpf_map_update_elem(&tb_peers, &remote->key, &full, BPF_NOEXIST);
	tb_find_entry(remote);
	remote->is_new = 0;
	bucket->bytes.word = &remote->peer->bytes_tat;
	bucket->packets.word = &remote->peer->packets_tat;
	return tb_accepts(bucket, ctx->now, out);
}

#endif
