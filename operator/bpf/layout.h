/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The structs that the program and user space share: values of the maps, and the keys of the peers.
 *
 * A slot holds the limit of one pod and direction, or of one interface, or the guard of a limit. The filter's
 * classid is the slot's number. Slot 0 has no owner: it counts the packets whose filter names an unused slot.
 *
 * Configuration, meters and counters are in different maps, so that a new rate changes neither the bucket nor
 * the counters, and words that all CPUs write are not in the memory that all CPUs read. Values are not
 * aligned to cache lines: on 6.18 an array's values start at 56 modulo 64.
 *
 * hack/layout.py generates tokenbucket/layout.py from this file ("make generate"). A changed struct needs a
 * new TB_LAYOUT_VERSION, unless an unused field gets a meaning for which 0 keeps the old behavior.
 */
#ifndef TB_LAYOUT_H
#define TB_LAYOUT_H

#include "compiler.h"

enum tb_constant {
	TB_LAYOUT_VERSION = 2,
	TB_NO_SLOT = 0,
	TB_CELLS = 256,  /* of a row of tb_flows */
	TB_IFB = 0x7462, /* index of tokenbucket's ifb device inside a pod (netlink/ifb.py) */
};

enum tb_flag {
	TB_OBSERVE = 1 << 0,             /* count excess packets, and forward them */
	TB_NODE_RESERVE = 1 << 1,        /* packets that the node sends may use the reserve */
	TB_MARK = 1 << 2,                /* forward excess packets with another code point */
	TB_DELAY = 1 << 3,               /* egress hook: forward excess packets with a departure time */
	TB_PER_PEER = 1 << 4,            /* a bucket for each peer, below the slot's */
	TB_PEER_IS_DESTINATION = 1 << 5, /* the peer is the destination of a packet, not the source */
	TB_PACING = 1 << 6, /* with TB_DELAY: departure times of other programs count, up to max_delay */
	TB_OBSERVE_BY_MODE = 1 << 7, /* for agents: the policy did not ask for TB_OBSERVE */
};

/*
 * Only user space writes the configuration. A scale is the time of one byte or packet, a fixed-point number
 * (gcra.h); 0 means that the meter is not used. A burst is the time that it takes at the rate. _q: quanta.
 */
struct tb_config {
	/* Read for every packet. */
	__u64 bytes_scale; /* TB_BYTES_SHIFT fraction bits */
	__u64 bytes_burst_q;
	__u64 packets_scale; /* TB_PACKETS_SHIFT fraction bits */
	__u64 packets_burst_q;
	__u64 reserve_scale; /* as bytes_scale */
	__u64 reserve_burst_q;
	__u64 flags;
	__u64 dscp; /* with TB_MARK */
	/* Read for excess packets; and the declared rates, which only user space reads. */
	__u64 max_delay_q; /* with TB_DELAY: the longest backlog ahead of a packet */
	__u64 bits_per_s;
	__u64 packets_per_s;
	__u64 reserve_bits_per_s;
	__u64 peer_bits_per_s;
	__u64 peer_packets_per_s;
	__u64 longest_backlog_q; /* with TB_DELAY, of packets that depart in turn (fair.h); 0: FIFO queue */
	__u64 unused;
	/* With TB_PER_PEER: the bucket of each peer, and the prefix of an address that identifies a peer. */
	__u64 peer_bytes_scale;
	__u64 peer_bytes_burst_q;
	__u64 peer_packets_scale;
	__u64 peer_packets_burst_q;
	__u64 peer_ipv4_mask; /* masks in network byte order; IPv4 uses the first four bytes */
	__u64 peer_ipv6_mask[2];
	__u16 peer_ipv4_prefix_length;
	__u16 peer_ipv6_prefix_length;
	__u32 unused_peer;
};

/* The meters of a peer, as in tb_meters. A peer without an entry has a full bucket. */
struct tb_peer {
	__u64 bytes_tat;
	__u64 packets_tat;
};

/* The state of a slot's meters: theoretical arrival times in quanta (gcra.h). */
struct tb_meters {
	__u64 bytes_tat;
	__u64 packets_tat;
	__u64 reserve_tat;
	struct tb_peer shared_peer; /* of all packets whose peer has no entry */
	__u64 peers_epoch;          /* user space writes a new one when the slot gets a new owner */
	__u64 fair_top;             /* the largest tag of a flow (fair.h) */
	__u64 fair_others;          /* the part of the backlog beyond that of the largest flow */
};

/* A cell of the flows of a slot (fair.h), in quanta. */
struct tb_flow {
	__u64 tag;     /* virtual time at which what the flow has queued has departed */
	__u64 departs; /* time of its last packet */
};

/* More state of a slot with TB_DELAY: two rows of cells, and meters of small packets (delay.h). */
struct tb_flows {
	struct tb_flow cells[2 * TB_CELLS];
	__u64 small_bytes_tat;
	__u64 small_packets_tat;
};

/* The key of a peer's meters. */
struct tb_peer_key {
	__u64 epoch; /* as in the slot's meters */
	__u32 slot;
	__u16 ethertype;
	__u16 prefix_length;
	__u64 prefix[2]; /* network byte order; IPv4 uses the first four bytes */
};

/* Counters of one CPU. Packets are wire packets: each segment of a GSO packet counts. */
struct tb_stats {
	/* Conforming packets, by case (gcra.h); then excess packets that were forwarded or dropped. */
	__u64 in_window_packets;
	__u64 idle_packets;
	__u64 conform_bytes;
	__u64 shared_peer_packets; /* charged to the shared peer, of conforming packets */
	__u64 forwarded_packets;   /* excess packets with Mark or Observe */
	__u64 forwarded_bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
	/* All excess packets, the third case; then more of their outcomes. */
	__u64 too_fast_packets;
	__u64 too_fast_bytes;
	__u64 reserve_packets; /* passed within the reserve */
	__u64 reserve_bytes;
	__u64 contended_packets; /* excess because other CPUs changed the word TB_TRIES times */
	__u64 unmetered_packets; /* passed because the slot has no meter */
	__u64 unmetered_bytes;
	__u64 marked_packets;
	/* Excess packets that Delay let through, at once (small packets) or later; with TB_OBSERVE, would. */
	__u64 delayed_packets;
	__u64 delayed_bytes;
	__u64 delayed_ns;            /* sum of the delays, each segment's */
	__u64 ce_packets;            /* marked as having experienced congestion */
	__u64 peer_too_fast_packets; /* excess packets of their peer's bucket */
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

enum tb_role {
	TB_ROLE_LIMIT = 0,
	TB_ROLE_GUARD =
		1, /* core/limits/guard.py; an older agent ignores the role and frees one of both slots */
};

/* The owner of a slot, for a restarted agent and for commands without an agent. Strings end in NUL. */
struct tb_owner {
	__u8 kind;
	__u8 direction; /* as the pod or the device sees it */
	__u8 role;
	__u8 unused[5];
	__u64 generation;    /* of the policy */
	char uid[48];        /* of the pod; for a device, the inode of its network namespace */
	char namespace_[64]; /* of pod and policy; empty for a device */
	char name[256];      /* of the pod, or of the device */
	char policy[256];    /* empty for a device */
};

#define TB_OFFSET(type, field) __builtin_offsetof(struct type, field)
_Static_assert(sizeof(struct tb_config) == 192 && TB_OFFSET(tb_config, peer_bytes_scale) == 128, "version 2");
_Static_assert(sizeof(struct tb_meters) == 64 && TB_OFFSET(tb_meters, peers_epoch) == 40, "version 2");
_Static_assert(sizeof(struct tb_flow) == 16 && sizeof(struct tb_flows) == 8208, "version 2");
_Static_assert(sizeof(struct tb_stats) == 192 && TB_OFFSET(tb_stats, delayed_packets) == 128, "version 2");
_Static_assert(sizeof(struct tb_owner) == 640 && TB_OFFSET(tb_owner, uid) == 16, "version 2");
_Static_assert(sizeof(struct tb_peer) == 16 && sizeof(struct tb_peer_key) == 32, "version 2, no padding");

#endif
