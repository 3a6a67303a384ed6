/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The token bucket: the generic cell rate algorithm (ITU-T I.371, "virtual scheduling") on one word.
 *
 * The word, tat, is the theoretical arrival time: when the next packet would be due if all so far had
 * come at exactly the declared rate. An idle meter's tat lies in the past, and the tokens in the bucket
 * are the time since then, at most the burst. A packet takes cost = size / rate of it.
 *
 * It is the left edge of the sliding window of the Open Packet Processor's token bucket, and the three
 * cases are that machine's: packets in the window move it by their cost; a packet right of the window
 * (idle for longer than the burst) re-centres it first; a packet left of it comes too fast.
 *
 * Unit: a quantum is 1/256 ns. A cost is rounded to the nearest quantum, so a 60-byte packet at
 * 100 Gbit/s (4.8 ns) is charged to within 0.04 %.
 *
 * Invariant: a word moves only when a packet is let through, by that packet's cost from base.
 *
 * The clock in quanta wraps every 2.28 years, so times are compared by their difference modulo 2^64: up to
 * TB_AHEAD_MAX is ahead of the clock, all else is the past. That reads right at any uptime.
 *
 * Pure: the time comes in as an argument. This file also compiles for the host, see tests/bpf.
 */
#ifndef TB_GCRA_H
#define TB_GCRA_H

#include <linux/types.h>

#define TB_QUANTA_PER_NS 256ULL
#define TB_QUANTA_PER_S (TB_QUANTA_PER_NS * 1000000000ULL)
/* 18 minutes: more than a packet costs and waits for. */
#define TB_AHEAD_MAX (1ULL << 48)
/* Costs that could be more are cut here, so that there is room for what waits ahead: it is charged on top. */
#define TB_COST_MAX (TB_AHEAD_MAX / 2)
/*
 * Above the largest super-packet that a kernel builds (512 KiB), and what a raw socket can ask for: 64 KiB of
 * segments that carry a byte each, 3.6 MB on the wire.
 */
#define TB_BYTES_MAX (1ULL << 22)
#define TB_PACKETS_MAX (1ULL << 18)
/* The largest packet that a reserve is asked for, in bytes: at 33 bit/s its cost just fits 64 bits. */
#define TB_RESERVE_MAX (1ULL << 14)
/*
 * Bits of fraction of a scale, the time per unit: what 8 kbit/s and 1 packet/s leave of 64 bits under the
 * most bytes and packets. At the other end, 1 Tbit/s and 10^9 packets/s, a scale is still exact to 10^-5.
 */
#define TB_BYTES_SHIFT 14
#define TB_PACKETS_SHIFT 8

/* Losing the word to another CPU this often in a row does not happen by chance below some 100 CPUs. */
#define TB_TRIES 32

enum tb_case {
	TB_IN_WINDOW,
	TB_IDLE,
	TB_TOO_FAST,
	TB_CONTENDED,
};

/*
 * A minimum and a maximum without a branch, each of which the verifier would follow both ways. Numbers below
 * 2^62. The compiler must not see that the mask is a comparison, or it makes a branch of it.
 */
static __always_inline __s64 tb_negative_part(__s64 number)
{
	__s64 mask = number >> 63;

	asm volatile("" : "+r"(mask));
	return number & mask;
}

static __always_inline __s64 tb_lesser_of(__s64 a, __s64 b)
{
	return b + tb_negative_part(a - b);
}

static __always_inline __s64 tb_later_of(__s64 a, __s64 b)
{
	return a - tb_negative_part(a - b);
}

static __always_inline __u64 tb_read(__u64 *word)
{
	return *(volatile __u64 *)word;
}

/*
 * Time that an amount takes, rounded to the nearest quantum. A multiplication and a shift, because a 64-bit
 * division takes up to 90 cycles on processors still in use.
 */
static __always_inline __u64 tb_cost(__u64 amount, __u64 scale, int shift)
{
	return tb_lesser_of((amount * scale + (1ULL << (shift - 1))) >> shift, TB_COST_MAX);
}

static __always_inline __u64 tb_bytes_cost(__u64 bytes, __u64 scale)
{
	return tb_cost(tb_lesser_of(bytes, TB_BYTES_MAX), scale, TB_BYTES_SHIFT);
}

static __always_inline __u64 tb_packets_cost(__u64 packets, __u64 scale)
{
	return tb_cost(tb_lesser_of(packets, TB_PACKETS_MAX), scale, TB_PACKETS_SHIFT);
}

/*
 * Where the window starts for a packet at now: max(tat, now - burst), in wrapping arithmetic. One comparison
 * for both ends of "ahead by up to TB_AHEAD_MAX, or past by up to the burst": each branch in a loop is one
 * that the verifier follows in every round.
 */
static __always_inline __u64 tb_base(__u64 tat, __u64 now, __u64 burst)
{
	return now - tat + TB_AHEAD_MAX <= burst + TB_AHEAD_MAX ? tat : now - burst;
}

/* A packet larger than the burst passes when the bucket is full; its whole cost is charged. */
static __always_inline int tb_conforms(__u64 base, __u64 now, __u64 cost, __u64 burst)
{
	return (__s64)(now - base) >= tb_lesser_of(cost, burst);
}

/* The decision alone, nothing charged. */
static __always_inline int tb_would_conform(__u64 tat, __u64 now, __u64 cost, __u64 burst)
{
	return tb_conforms(tb_base(tat, now, burst), now, cost, burst);
}

/* Charges the packet if it conforms. Safe against other CPUs. */
static __always_inline enum tb_case tb_take(__u64 *word, __u64 now, __u64 cost, __u64 burst)
{
	for (int try = 0; try < TB_TRIES; try++) {
		__u64 tat = tb_read(word);
		__u64 base = tb_base(tat, now, burst);

		if (!tb_conforms(base, now, cost, burst))
			return TB_TOO_FAST;
		if (__sync_val_compare_and_swap(word, tat, base + cost) == tat)
			return base == tat ? TB_IN_WINDOW : TB_IDLE;
	}
	return TB_CONTENDED;
}

#endif
