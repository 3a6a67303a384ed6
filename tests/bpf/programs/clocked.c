// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The shipped program with its two inputs from outside taken from the test: the time from the first two words
 * of skb->cb, and the slot from skb->mark, because BPF_PROG_TEST_RUN accepts no tc_classid.
 */
#include "token_bucket.c"

static __always_inline __u64 clock_of_test(struct __sk_buff *skb)
{
	return (__u64)skb->cb[1] << 32 | skb->cb[0];
}

SEC("tc/clocked_egress")
int clocked_egress(struct __sk_buff *skb)
{
	return tb_limit(skb, skb->mark, TB_EGRESS_HOOK, clock_of_test(skb));
}

SEC("tc/clocked_ingress")
int clocked_ingress(struct __sk_buff *skb)
{
	return tb_limit(skb, skb->mark, TB_INGRESS_HOOK, clock_of_test(skb));
}
