// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs for timing under BPF_PROG_TEST_RUN: the shipped data path, with the slot in skb->mark, because a
 * test run has no tc_classid.
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

int data_path_ingress(struct __sk_buff *skb)
{
	return tb_limit(skb, skb->mark, TB_INGRESS_HOOK, bpf_ktime_get_ns());
}

/* The alternative to the filter's classid: a hash finds the slot by the interface. */
int data_path_by_hash(struct __sk_buff *skb)
{
	__u32 ifindex = skb->mark;
	__u32 *slot = slot_of_ifindex.lookup(&ifindex);

	if (!slot)
		return TB_PASS;
	return tb_limit(skb, *slot, TB_EGRESS_HOOK, bpf_ktime_get_ns());
}
