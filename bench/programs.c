// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs for timing under BPF_PROG_TEST_RUN. The slot comes from skb->mark, because a test run has no
 * tc_classid; all else is the shipped data path.
 */
#include "token_bucket.c"

BPF_TABLE("hash", __u32, __u32, slot_of_ifindex, TB_SLOTS);

int empty(struct __sk_buff *skb)
{
	return TB_PASS;
}

int clock_read(struct __sk_buff *skb)
{
	/* Used in the verdict, or the compiler leaves the call out. */
	return bpf_ktime_get_ns() ? TB_PASS : TB_DROP;
}

int data_path(struct __sk_buff *skb)
{
	return tb_limit(skb, skb->mark, TB_EGRESS_HOOK, bpf_ktime_get_ns());
}

/* What it would cost to find the slot by the interface instead of by the filter's classid. */
int data_path_by_hash(struct __sk_buff *skb)
{
	__u32 ifindex = skb->mark;
	__u32 *slot = slot_of_ifindex.lookup(&ifindex);

	if (!slot)
		return TB_PASS;
	return tb_limit(skb, *slot, TB_EGRESS_HOOK, bpf_ktime_get_ns());
}
