// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The shipped program with its two inputs from outside taken from the test: the time from skb->tstamp,
 * and the slot from skb->mark, because BPF_PROG_TEST_RUN accepts no tc_classid.
 */
#include "token_bucket.c"

SEC("tc/clocked_egress")
int clocked_egress(struct __sk_buff *skb)
{
	return tb_limit(skb, skb->mark, TB_EGRESS_HOOK, skb->tstamp);
}

SEC("tc/clocked_ingress")
int clocked_ingress(struct __sk_buff *skb)
{
	return tb_limit(skb, skb->mark, TB_INGRESS_HOOK, skb->tstamp);
}
