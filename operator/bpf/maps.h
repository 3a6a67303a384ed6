/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps. bcc creates them and pins them in TB_PIN_DIR, or opens existing pins; libbpf (stock tc) reads BTF
 * definitions, and pins by name. The loader translates libbpf's functions to bcc's (bpf/loader.py).
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

/* IPv4 addresses are IPv4-mapped (RFC 4291, 2.5.5.2). */
struct tb_address {
	__u32 words[4];
};

TB_MAP("array", BPF_MAP_TYPE_ARRAY, __u32, struct tb_config, tb_config, TB_SLOTS);
TB_MAP("array", BPF_MAP_TYPE_ARRAY, __u32, struct tb_meters, tb_meters, TB_SLOTS);
TB_MAP("percpu_array", BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct tb_stats, tb_stats, TB_SLOTS);
TB_MAP("array", BPF_MAP_TYPE_ARRAY, __u32, struct tb_owner, tb_owners, TB_SLOTS);
/* The flows of each slot with Delay: 8 KiB. */
TB_MAP("array", BPF_MAP_TYPE_ARRAY, __u32, struct tb_flows, tb_flows, TB_SLOTS);
/* The addresses of the node. */
TB_MAP("hash", BPF_MAP_TYPE_HASH, struct tb_address, __u8, tb_node, 1024);
/* All CPUs share one LRU list: with BPF_F_NO_COMMON_LRU each CPU has a list with a part of the capacity. */
TB_MAP("lru_hash", BPF_MAP_TYPE_LRU_HASH, struct tb_peer_key, struct tb_peer, tb_peers, TB_PEERS);

#endif
