/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Peers: each remote address, or prefix, has a bucket of its own under the slot's. Included after bucket.h.
 *
 * Buckets form a chain, the peer's below the slot's: a packet passes if all of them let it, and is charged to
 * all or to none. What its peer's bucket refuses touches no other, so that one peer's flood takes nothing of
 * what the others share.
 *
 * A peer without an entry has a full bucket. It gets the entry with the first packet that the slot's bucket
 * lets through, so that a flood of forged addresses turns the map over no faster than at the slot's rate.
 * What can have no entry, because it has no address or because the map refused it, shares one bucket at the
 * rate of a single peer.
 */
#ifndef TB_PEER_H
#define TB_PEER_H

enum {
	TB_IPV4_SOURCE = 12,
	TB_IPV4_DESTINATION = 16,
	TB_IPV6_SOURCE = 8,
	TB_IPV6_DESTINATION = 24,
};

/* Whose packet it is, and its meters: the shared ones where it has no entry. */
struct tb_remote {
	struct tb_peer_key key;
	struct tb_peer *peer;
	int is_new; /* has no entry yet, and may have one */
};

/* A word that reads as a full bucket for as long as can be. */
static __always_inline __u64 tb_never_used(__u64 now)
{
	return now + (1ULL << 63);
}

/* The remote prefix. Addresses are in each fragment's header. Returns 0 where there is none. */
static __always_inline int tb_remote_prefix(struct __sk_buff *skb, const struct tb_config *config,
					    struct tb_peer_key *key)
{
	__u32 network = TB_ETH_HLEN;
	int goes_to = !!(config->flags & TB_PEER_IS_DESTINATION);

	key->ethertype = tb_below_tags(skb, __builtin_bswap16(skb->protocol), &network);
	if (key->ethertype == TB_ETH_P_IP) {
		network += goes_to ? TB_IPV4_DESTINATION : TB_IPV4_SOURCE;
		if (bpf_skb_load_bytes(skb, network, key->prefix, 4))
			return 0;
		key->prefix[0] &= config->peer_ipv4_mask;
		key->prefix_length = config->peer_ipv4_prefix_length;
		return 1;
	}
	if (key->ethertype != TB_ETH_P_IPV6)
		return 0;
	network += goes_to ? TB_IPV6_DESTINATION : TB_IPV6_SOURCE;
	if (bpf_skb_load_bytes(skb, network, key->prefix, sizeof(key->prefix)))
		return 0;
	key->prefix[0] &= config->peer_ipv6_mask[0];
	key->prefix[1] &= config->peer_ipv6_mask[1];
	key->prefix_length = config->peer_ipv6_prefix_length;
	return 1;
}

/* Points to the peer's meters where it has an entry, and leaves the pointer alone where it has none. */
static __always_inline int tb_look_up(struct tb_remote *remote)
{
	struct tb_peer *peer = tb_peer_of(&remote->key);

	if (peer)
		remote->peer = peer;
	return peer != NULL;
}

static __always_inline void tb_find_remote(struct __sk_buff *skb, const struct tb_config *config,
					   struct tb_meters *meters, __u32 slot, struct tb_remote *remote)
{
	remote->key = (struct tb_peer_key){ .epoch = meters->peers_epoch, .slot = slot };
	remote->peer = &meters->shared_peer;
	remote->is_new = tb_remote_prefix(skb, config, &remote->key) && !tb_look_up(remote);
}

/* Gives a peer its entry, with a full bucket; where the map refuses it, it has the shared one. */
static __always_inline void tb_enter(struct tb_remote *remote, __u64 now)
{
	struct tb_peer full = { tb_never_used(now), tb_never_used(now) };

	tb_add_peer(&remote->key, &full);
	tb_look_up(remote);
	remote->is_new = 0;
}

static __always_inline struct tb_bucket tb_bucket_of_peer(const struct tb_config *config,
							  struct tb_peer *peer, struct tb_packet packet,
							  enum tb_when when, __u64 now)
{
	return (struct tb_bucket){
		tb_byte_meter(config, packet, when, now, &peer->bytes_tat, &config->peer_bytes_scale,
			      config->peer_bytes_burst_q),
		tb_packet_meter(config, packet, when, now, &peer->packets_tat, &config->peer_packets_scale,
				config->peer_packets_burst_q),
	};
}

/* Gives a peer its entry. Returns whether it has room: what has no entry is not alone in its bucket. */
static __always_inline int tb_admit(struct tb_remote *remote, struct tb_bucket *bucket, __u64 now)
{
	tb_enter(remote, now);
	bucket->bytes.word = &remote->peer->bytes_tat;
	bucket->packets.word = &remote->peer->packets_tat;
	return tb_has_room(bucket, now);
}

/*
 * Charges the bucket of the packet's peer and the slot's: both, or neither. A chain of three would be looked
 * at, charged and given back in the same way.
 */
static __always_inline int tb_charge_chain(const struct tb_config *config, struct tb_meters *meters,
					   struct tb_stats *stats, struct tb_remote *remote,
					   struct tb_packet packet, enum tb_when when, __u64 now,
					   struct tb_place *place)
{
	struct tb_bucket of_slot = tb_bucket_of_slot(config, meters, packet, when, now);
	struct tb_bucket of_peer = tb_bucket_of_peer(config, remote->peer, packet, when, now);

	if (!remote->is_new && !tb_has_room(&of_peer, now)) {
		if (when == TB_NOW)
			stats->peer_too_fast_packets += packet.segments;
		return 0;
	}
	if (!tb_has_room(&of_slot, now))
		return 0;
	if (remote->is_new && !tb_admit(remote, &of_peer, now))
		return 0;
	tb_charge(&of_slot, now, place);
	tb_charge(&of_peer, now, place);
	if (place->over < 0) {
		tb_give_back(&of_slot);
		tb_give_back(&of_peer);
		return 0;
	}
	if (remote->peer == &meters->shared_peer)
		stats->shared_peer_packets += packet.segments;
	return 1;
}

#endif
