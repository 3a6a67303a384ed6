/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The packet that the program decides on, with its slot. Brings compiler.h, layout.h and packet.h. */
#ifndef TB_CONTEXT_H
#define TB_CONTEXT_H

#include "compiler.h"
#include "layout.h"
#include "packet.h"

struct tb_remote;

/* No helper gets an address in this struct, so its fields stay in registers. tb_remote has a key for helpers.
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

static __always_inline void tb_count(const struct tb_ctx *ctx, __u64 *packets, __u64 *bytes)
{
	*packets += ctx->packet.segments;
	*bytes += ctx->packet.wire_bytes;
}

#endif
