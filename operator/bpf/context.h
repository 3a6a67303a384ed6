/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The context of one decision: the packet, its slot, and the time. */
#ifndef TB_CONTEXT_H
#define TB_CONTEXT_H

#include "compiler.h"
#include "layout.h"
#include "packet.h"
#include "size.h"

struct tb_remote;

/* The program passes no address of this struct to a helper, so that its fields stay in registers. */
struct tb_ctx {
	struct __sk_buff *skb;
	enum tb_hook hook;
	__u32 slot;
	const struct tb_config *config;
	struct tb_meters *meters;
	struct tb_stats *stats;
	struct tb_remote *remote; /* NULL without TB_PER_PEER */
	struct tb_packet packet;
	__u64 now_ns;
	__u64 now;         /* the same time in quanta */
	__s64 max_backlog; /* of a large excess packet */
};

static __always_inline void tb_count(const struct tb_ctx *ctx, __u64 *packets, __u64 *bytes)
{
	*packets += ctx->packet.segments;
	*bytes += ctx->packet.wire_bytes;
}

#endif
