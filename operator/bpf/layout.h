/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the program and user space share: the values of the maps, indexed by slot, and those of the peers.
 *
 * A slot is the limit of one pod and direction, or of one device. It reaches the program as the
 * filter's classid. Slot 0 belongs to nobody: it counts the packets whose filter names no slot in use.
 *
 * Configuration, meters and counters are apart, so that a new rate leaves the bucket and its
 * counters as they are, and so that a cache line is either read by all CPUs or written by them.
 *
 * tokenbucket/layout.py mirrors this file; a test compares sizes and offsets.
 * A change here is a new TB_LAYOUT_VERSION, unless it gives a word a use for which 0, as in what is pinned
 * already, is right.
 */
#ifndef TB_LAYOUT_H
#define TB_LAYOUT_H

#include <linux/types.h>

enum {
	TB_LAYOUT_VERSION = 2,
	TB_NO_SLOT = 0,
};

enum tb_flag {
	TB_OBSERVE = 1 << 0,             /* count what exceeds, forward it all the same */
	TB_NODE_RESERVE = 1 << 1,        /* the node's own packets may use the reserve */
	TB_MARK = 1 << 2,                /* forward what exceeds with another code point */
	TB_DELAY = 1 << 3,               /* at an egress hook: forward what exceeds with a departure time */
	TB_PER_PEER = 1 << 4,            /* a bucket for each peer, under the slot's */
	TB_PEER_IS_DESTINATION = 1 << 5, /* the peer is where a packet goes to, not where it comes from */
};

/*
 * Written only by user space. Times are in quanta (gcra.h): of a rate, the time that one unit takes, as a
 * fixed-point number; of a burst, the time that it takes at the rate. A scale of 0 is a meter not in use.
 */
struct tb_config {
	/* The first cache line: what each packet reads. */
	__u64 bytes_scale; /* fraction of TB_BYTES_SHIFT bits */
	__u64 bytes_burst_q;
	__u64 packets_scale; /* fraction of TB_PACKETS_SHIFT bits */
	__u64 packets_burst_q;
	__u64 reserve_scale; /* as bytes_scale */
	__u64 reserve_burst_q;
	__u64 flags;
	__u64 dscp; /* with TB_MARK */
	/* The second: for packets that exceed; and the rates as declared, for people. */
	__u64 max_delay_q; /* with TB_DELAY: the most that may wait ahead of a packet */
	__u64 bits_per_s;
	__u64 packets_per_s;
	__u64 reserve_bits_per_s;
	__u64 peer_bits_per_s;
	__u64 peer_packets_per_s;
	__u64 unused[2];
	/* The third, with TB_PER_PEER: the bucket of each peer, and how much of an address makes one. */
	__u64 peer_bytes_scale;
	__u64 peer_bytes_burst_q;
	__u64 peer_packets_scale;
	__u64 peer_packets_burst_q;
	__u64 peer_ipv4_mask; /* masks in the order of a packet's bytes; of IPv4 the first four */
	__u64 peer_ipv6_mask[2];
	__u16 peer_ipv4_prefix_length;
	__u16 peer_ipv6_prefix_length;
	__u32 unused_peer;
};

/* The meters of a peer. A peer without an entry in the map has a full bucket. */
struct tb_peer {
	__u64 bytes_tat;
	__u64 packets_tat;
};

/* Theoretical arrival times in quanta (gcra.h): the whole state of the meters, one cache line. */
struct tb_meters {
	__u64 bytes_tat;
	__u64 packets_tat;
	__u64 reserve_tat;
	struct tb_peer shared_peer; /* of all packets that cannot have a peer's of their own */
	__u64 peers_epoch;          /* a slot that is given to another starts another */
	__u64 unused[2];
};

/* Whose meters they are. */
struct tb_peer_key {
	__u64 epoch; /* as in the slot's meters */
	__u32 slot;
	__u16 ethertype;
	__u16 prefix_length;
	__u64 prefix[2]; /* in the order of a packet's bytes; of IPv4 the first four */
};

/* Kept per CPU. Packets are wire packets: each segment of a GSO packet counts. */
struct tb_stats {
	/*
	 * The first cache line: what a conforming packet touches, which was one of the first two cases; and
	 * what became of those that exceeded, where it was nothing better.
	 */
	__u64 in_window_packets;
	__u64 idle_packets;
	__u64 conform_bytes;
	__u64 shared_peer_packets; /* had no peer's bucket of their own, but the one shared */
	__u64 forwarded_packets;   /* let through all the same: marked, or only observed */
	__u64 forwarded_bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
	/* The second: the third case, and what became of those packets. */
	__u64 too_fast_packets;
	__u64 too_fast_bytes;
	__u64 reserve_packets; /* let through within the reserve */
	__u64 reserve_bytes;
	__u64 contended_packets; /* exceeded only because the word kept changing under the decision */
	__u64 unmetered_packets; /* let through because the slot has no meter */
	__u64 unmetered_bytes;
	__u64 marked_packets;
	/* The third: of those, what Delay let through, at once (small packets) or later; or would have. */
	__u64 delayed_packets;
	__u64 delayed_bytes;
	__u64 delayed_ns;            /* delay given */
	__u64 ce_packets;            /* ECN-capable ones that were told of congestion */
	__u64 peer_too_fast_packets; /* too fast for their peer's bucket, whatever the slot's says */
	__u64 unused_delayed[3];
};

enum tb_owner_kind {
	TB_OWNER_NONE = 0,
	TB_OWNER_POD = 1,
	TB_OWNER_DEVICE = 2,
};

enum tb_direction {
	TB_INGRESS = 0,
	TB_EGRESS = 1,
};

/*
 * Whose slot it is. The program never reads it: it is how a restarted agent, or a command that runs
 * without one, knows what the slots mean. Strings end in NUL.
 */
struct tb_owner {
	__u8 kind;
	__u8 direction; /* as the pod sees it; for a device, as the device sees it */
	__u8 unused[6];
	__u64 generation;    /* of the policy */
	char uid[48];        /* of the pod; for a device, the inode of its network namespace */
	char namespace_[64]; /* of pod and policy; empty for a device */
	char name[256];      /* of the pod, or of the device */
	char policy[256];    /* empty for a device */
};

#endif
