/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps, for both compilers. bcc creates them and pins them in TB_PIN_DIR, or opens the pins that exist.
 * clang writes BTF definitions; libbpf, for example in stock tc, pins the maps by name.
 */
#ifndef TB_MAPS_H
#define TB_MAPS_H

#include "compiler.h"
#include "layout.h"

#ifndef TB_SLOTS
#define TB_SLOTS 2048
#endif

/* Peers of all slots together: 112 bytes each, 7 MiB of kernel memory. */
#ifndef TB_PEERS
#define TB_PEERS 65536
#endif

#ifdef TB_PIN_DIR /* bcc */

#define TB_MAP(bcc_type, libbpf_type, key, value, name, size) \
	BPF_TABLE_PINNED(bcc_type, key, value, name, size, TB_PIN_DIR "/" #name)

#else /* clang */

#define TB_MAP(bcc_type, libbpf_type, key_type, value_type, name, size) \
	struct {                                                        \
		__uint(type, libbpf_type);                              \
		__uint(max_entries, size);                              \
		__type(key, key_type);                                  \
		__type(value, value_type);                              \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                    \
	} name SEC(".maps")

#endif

TB_MAP("array", BPF_MAP_TYPE_ARRAY, __u32, struct tb_config, tb_config, TB_SLOTS);
TB_MAP("array", BPF_MAP_TYPE_ARRAY, __u32, struct tb_meters, tb_meters, TB_SLOTS);
TB_MAP("percpu_array", BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct tb_stats, tb_stats, TB_SLOTS);
TB_MAP("array", BPF_MAP_TYPE_ARRAY, __u32, struct tb_owner, tb_owners, TB_SLOTS);
/* All CPUs share one LRU list: with BPF_F_NO_COMMON_LRU each CPU has a list with a part of the capacity. */
TB_MAP("lru_hash", BPF_MAP_TYPE_LRU_HASH, struct tb_peer_key, struct tb_peer, tb_peers, TB_PEERS);

/* bcc rewrites method calls on maps, but not inside a macro. */
#ifdef TB_PIN_DIR
static __always_inline struct tb_config *tb_config_of(__u32 slot)
{
	return tb_config.lookup(&slot);
}

static __always_inline struct tb_meters *tb_meters_of(__u32 slot)
{
	return tb_meters.lookup(&slot);
}

static __always_inline struct tb_stats *tb_stats_of(__u32 slot)
{
	return tb_stats.lookup(&slot);
}

static __always_inline struct tb_peer *tb_peer_of(struct tb_peer_key *key)
{
	return tb_peers.lookup(key);
}

/* Keeps an entry that exists. */
static __always_inline void tb_add_peer(struct tb_peer_key *key, struct tb_peer *peer)
{
	tb_peers.insert(key, peer);
}
#else
static __always_inline struct tb_config *tb_config_of(__u32 slot)
{
	return bpf_map_lookup_elem(&tb_config, &slot);
}

static __always_inline struct tb_meters *tb_meters_of(__u32 slot)
{
	return bpf_map_lookup_elem(&tb_meters, &slot);
}

static __always_inline struct tb_stats *tb_stats_of(__u32 slot)
{
	return bpf_map_lookup_elem(&tb_stats, &slot);
}

static __always_inline struct tb_peer *tb_peer_of(struct tb_peer_key *key)
{
	return bpf_map_lookup_elem(&tb_peers, key);
}

static __always_inline void tb_add_peer(struct tb_peer_key *key, struct tb_peer *peer)
{
	bpf_map_update_elem(&tb_peers, key, peer, BPF_NOEXIST);
}
#endif

#endif
