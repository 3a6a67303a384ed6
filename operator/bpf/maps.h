/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps, for both compilers: bcc creates them where TB_PIN_DIR says or takes the pins that are there;
 * clang writes BTF definitions for libbpf (stock tc), which pins them by name.
 */
#ifndef TB_MAPS_H
#define TB_MAPS_H

#include "layout.h"

#ifndef TB_SLOTS
#define TB_SLOTS 2048
#endif

#ifdef TB_PIN_DIR /* bcc */

#define TB_MAP(bcc_type, libbpf_type, value, name) \
	BPF_TABLE_PINNED(bcc_type, __u32, value, name, TB_SLOTS, TB_PIN_DIR "/" #name)

#else /* clang */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define TB_MAP(bcc_type, libbpf_type, value_type, name) \
	struct {                                        \
		__uint(type, libbpf_type);              \
		__uint(max_entries, TB_SLOTS);          \
		__type(key, __u32);                     \
		__type(value, value_type);              \
		__uint(pinning, LIBBPF_PIN_BY_NAME);    \
	} name SEC(".maps")

#endif

TB_MAP("array", BPF_MAP_TYPE_ARRAY, struct tb_config, tb_config);
TB_MAP("array", BPF_MAP_TYPE_ARRAY, struct tb_meters, tb_meters);
TB_MAP("percpu_array", BPF_MAP_TYPE_PERCPU_ARRAY, struct tb_stats, tb_stats);
TB_MAP("array", BPF_MAP_TYPE_ARRAY, struct tb_owner, tb_owners);

/* bcc rewrites look-ups, but not inside a macro. */
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
#endif

#endif
