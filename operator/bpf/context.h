/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The packet that the program decides on, with its slot: the first argument of most functions. */
#ifndef TB_CONTEXT_H
#define TB_CONTEXT_H

#include "compiler.h"
#include "layout.h"
#include "packet.h"

struct tb_remote;

/*
 * No helper gets the address of this struct, so the compiler keeps its fields in registers and on the stack
 * as if they were variables. A field whose address goes to a helper (tb_remote.key) must stay outside.
 */
struct tb_ctx {
	struct __sk_buff *skb;
	enum tb_hook hook;
	const struct tb_config *config;
	struct tb_meters *meters;
	struct tb_stats *stats;
	struct tb_remote *remote; /* NULL without TB_PER_PEER */
	struct tb_packet packet;
	__u64 now_ns;
	__u64 now; /* the same time in quanta */
};

#endif
