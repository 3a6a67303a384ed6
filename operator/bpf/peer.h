/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Peers: each remote address, or prefix, has its own bucket below the slot's.
 *
 * The buckets form a chain (bucket.h): a packet passes if all buckets accept it, and is charged to all or to
 * none. The peer's bucket comes first, so that a flood of one peer takes nothing from the others.
 *
 * A peer without an entry has a full bucket. The first packet that the slot's bucket accepts creates the
 * entry, so that a flood of forged addresses replaces entries at most at the slot's rate. Packets without an
 * address, and packets whose entry the map rejects, share one bucket at the rate of a single peer.
 */
#ifndef TB_PEER_H
#define TB_PEER_H

#include "bucket.h"
#include "compiler.h"
#include "context.h"
#include "layout.h"
#include "maps.h"
#include "packet.h"

enum {
	TB_IPV4_SOURCE = 12,
	TB_IPV4_DESTINATION = 16,
	TB_IPV6_SOURCE = 8,
	TB_IPV6_DESTINATION = 24,
};

/* The peer of a packet, and its meters: those of shared_peer if the peer has no entry. */
struct tb_remote {
	struct tb_peer_key key;
	struct tb_peer *peer;
	int is_new; /* has no entry yet, and can get one */
};

/* The tat that reads as a full bucket for the longest time: 2^63 quanta, 417 days. */
static __always_inline __u64 tb_full_tat(__u64 now)
{
	return now + (1ULL << 63);
}

/*
 * Copies an address of 4 or 16 bytes to an aligned buffer, by direct access if the linear part of the skb has
 * it: that is 15 ns faster than the helper. Returns 0 if the packet is too short.
 */
static __always_inline int tb_load_address(struct __sk_buff *skb, __u32 offset, __u64 *address, __u32 size)
{
	const void *direct = (void *)(long)skb->data + offset;

	if (direct + size > (void *)(long)skb->data_end)
		return !bpf_skb_load_bytes(skb, offset, address, size);
	if (size == 4) {
		*(__u32 *)address = *(const __u32 *)direct;
		return 1;
	}
	address[0] = ((const __u64 *)direct)[0];
	address[1] = ((const __u64 *)direct)[1];
	return 1;
}

/* Writes the remote prefix to the key. Every fragment has addresses. Returns 0 if the packet has none. */
static __always_inline int tb_remote_prefix(struct __sk_buff *skb, const struct tb_config *config,
					    struct tb_peer_key *key)
{
	__u32 network = TB_ETH_HLEN;
	int is_destination = !!(config->flags & TB_PEER_IS_DESTINATION);

	key->ethertype = tb_skip_vlan_tags(skb, __builtin_bswap16(skb->protocol), &network);
	if (key->ethertype == TB_ETH_P_IP) {
		network += is_destination ? TB_IPV4_DESTINATION : TB_IPV4_SOURCE;
		if (!tb_load_address(skb, network, key->prefix, 4))
			return 0;
		key->prefix[0] &= config->peer_ipv4_mask;
		key->prefix_length = config->peer_ipv4_prefix_length;
		return 1;
	}
	network += is_destination ? TB_IPV6_DESTINATION : TB_IPV6_SOURCE;
	if (key->ethertype != TB_ETH_P_IPV6 || !tb_load_address(skb, network, key->prefix, 16))
		return 0;
	key->prefix[0] &= config->peer_ipv6_mask[0];
	key->prefix[1] &= config->peer_ipv6_mask[1];
	key->prefix_length = config->peer_ipv6_prefix_length;
	return 1;
}

/* Points remote to the meters of its peer. Returns 0, and keeps the pointer, if the peer has no entry. */
static __always_inline int tb_find_entry(struct tb_remote *remote)
{
	struct tb_peer *peer = tb_peer_of(&remote->key);

	if (peer)
		remote->peer = peer;
	return peer != NULL;
}

static __always_inline void tb_find_remote(const struct tb_ctx *ctx, __u32 slot, struct tb_remote *remote)
{
	remote->key = (struct tb_peer_key){ .epoch = ctx->meters->peers_epoch, .slot = slot };
	remote->peer = &ctx->meters->shared_peer;
	remote->is_new = tb_remote_prefix(ctx->skb, ctx->config, &remote->key) && !tb_find_entry(remote);
}

static __always_inline struct tb_bucket tb_peer_bucket(const struct tb_ctx *ctx, enum tb_admission admission)
{
	const struct tb_config *config = ctx->config;
	struct tb_peer *peer = ctx->remote->peer;

	return tb_bucket(ctx, admission,
			 (struct tb_meter){ .word = &peer->bytes_tat,
					    .scale = &config->peer_bytes_scale,
					    .burst = config->peer_bytes_burst_q },
			 (struct tb_meter){ .word = &peer->packets_tat,
					    .scale = &config->peer_packets_scale,
					    .burst = config->peer_packets_burst_q });
}

/*
 * Creates an entry with a full bucket; if the map rejects it, the peer keeps the shared bucket. Returns
 * whether the bucket accepts the packet.
 */
static __always_inline int tb_insert_peer(struct tb_remote *remote, struct tb_bucket *bucket, __u64 now)
{
	struct tb_peer full = { tb_full_tat(now), tb_full_tat(now) };

	tb_add_peer(&remote->key, &full);
	tb_find_entry(remote);
	remote->is_new = 0;
	bucket->bytes.word = &remote->peer->bytes_tat;
	bucket->packets.word = &remote->peer->packets_tat;
	return tb_bucket_accepts(bucket, now);
}

/* Charges the slot's bucket, a chain of one. Returns 0 if it rejects the packet. */
static __always_inline int tb_charge_slot(const struct tb_ctx *ctx, enum tb_admission admission,
					  struct tb_schedule *schedule)
{
	struct tb_bucket slot = tb_slot_bucket(ctx, admission);

	if (!tb_bucket_accepts(&slot, ctx->now))
		return 0;
	tb_charge_bucket(&slot, ctx->now, schedule);
	if (schedule->late < 0)
		tb_refund_bucket(&slot);
	return schedule->late >= 0;
}

/* Charges the peer's bucket and the slot's. Returns 0 if one of them rejects the packet. */
static __always_inline int tb_charge_peer_and_slot(const struct tb_ctx *ctx, enum tb_admission admission,
						   struct tb_schedule *schedule)
{
	struct tb_remote *remote = ctx->remote;
	struct tb_bucket slot = tb_slot_bucket(ctx, admission);
	struct tb_bucket peer = tb_peer_bucket(ctx, admission);

	if (!remote->is_new && !tb_bucket_accepts(&peer, ctx->now)) {
		if (admission == TB_CONFORM)
			ctx->stats->peer_too_fast_packets += ctx->packet.segments;
		return 0;
	}
	if (!tb_bucket_accepts(&slot, ctx->now))
		return 0;
	if (remote->is_new && !tb_insert_peer(remote, &peer, ctx->now))
		return 0;
	tb_charge_bucket(&slot, ctx->now, schedule);
	tb_charge_bucket(&peer, ctx->now, schedule);
	if (schedule->late < 0) {
		tb_refund_bucket(&slot);
		tb_refund_bucket(&peer);
		return 0;
	}
	if (remote->peer == &ctx->meters->shared_peer)
		ctx->stats->shared_peer_packets += ctx->packet.segments;
	return 1;
}

/* Charges the packet to the chain of its buckets: to all of them, or to none. Returns 0 if one rejects it. */
static __always_inline int tb_charge(const struct tb_ctx *ctx, enum tb_admission admission,
				     struct tb_schedule *schedule)
{
	if (ctx->remote)
		return tb_charge_peer_and_slot(ctx, admission, schedule);
	return tb_charge_slot(ctx, admission, schedule);
}

#endif
