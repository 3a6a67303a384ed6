// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What some CNI plugins do: hands a packet to the pod's end of a veth, past all hooks of the host's end.
// The filter's classid is the index of the host's end.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

static long (*bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect_peer;

__attribute__((section("tc/ingress"), used)) int redirect_peer(struct __sk_buff *skb)
{
	if (skb->protocol != __builtin_bswap16(ETH_P_IP))
		return TC_ACT_UNSPEC;
	return bpf_redirect_peer(skb->tc_classid, 0);
}

__attribute__((section("license"), used)) char _license[] = "Dual BSD/GPL";
