/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The token bucket: the generic cell rate algorithm (ITU-T I.371, "virtual scheduling") on one 64-bit word.
 *
 * The word, tat, is the theoretical arrival time: the time at which the next packet is due if all packets
 * arrive at exactly the declared rate.
 *
 *	cost   = size / rate              the time that a packet takes at the rate
 *	base   = max(tat, now - burst)    the bucket holds at most the burst
 *	tokens = now - base
 *	A packet conforms if min(cost, burst) <= tokens. Then tat = base + cost.
 *
 * The word is the left edge of the sliding window of the Open Packet Processor's token bucket, with the same
 * three cases. A packet in the window moves the edge by its cost. A packet right of the window finds an idle
 * meter, and first moves the window to now - burst. A packet left of the window arrives too fast.
 *
 * Unit: a quantum is 1/256 ns. A cost is rounded to the nearest quantum: the cost of a 60-byte packet at
 * 100 Gbit/s (4.8 ns) is exact to 0.04 %. Only a packet that passes moves a word, from base by its cost.
 *
 * The clock in quanta wraps every 2.28 years (2^64 quanta), so times are compared by their difference modulo
 * 2^64. A tat up to TB_AHEAD_MAX ahead of the clock is the future; every other tat is the past.
 *
 * Pure: the time is an argument. tests/bpf also compiles this file for the host.
 */
#ifndef TB_GCRA_H
#define TB_GCRA_H

#include "compiler.h"

#define TB_QUANTA_PER_NS 256ULL
#define TB_QUANTA_PER_S (TB_QUANTA_PER_NS * 1000000000ULL)
/* 39 hours: longer than the cost and the delay of any packet. */
#define TB_AHEAD_MAX (1ULL << 55)
/*
 * Larger costs are cut to this value: 65,535 segments at 1 packet/s, and 70 MB at 8 kbit/s, fit. A packet is
 * charged on top of a backlog, and both must fit.
 */
#define TB_COST_MAX (TB_AHEAD_MAX / 2)
/* A GSO packet has at most 65,535 segments. Bytes above TB_BYTES_MAX are charged in units of TB_BYTES_MAX. */
#define TB_BYTES_MAX (1ULL << 22)
#define TB_PACKETS_MAX (1ULL << 18)
/* The largest packet that may use the reserve, in bytes. At 33 bit/s its cost just fits in 64 bits. */
#define TB_RESERVE_MAX (1ULL << 14)
/*
 * The fraction bits of a scale, the time of one byte or packet in quanta. The largest amount times the
 * largest scale must fit in 64 bits, 1.84e19. At 1 Tbit/s and 10^9 packets/s a scale is exact to 10^-5.
 *
 *	2^22 bytes   * 256e9 / (8 kbit/s / 8) * 2^14 = 1.76e19
 *	2^18 packets * 256e9 / 1 packet/s     * 2^8  = 1.72e19
 */
#define TB_BYTES_SHIFT 14
#define TB_PACKETS_SHIFT 8

_Static_assert(TB_BYTES_MAX <= ~0ULL / ((TB_QUANTA_PER_S * 8 / 8000) << TB_BYTES_SHIFT), "fits at 8 kbit/s");
_Static_assert(TB_PACKETS_MAX <= ~0ULL / (TB_QUANTA_PER_S << TB_PACKETS_SHIFT), "fits at 1 packet/s");

/* On machines with up to about 100 CPUs, a CPU practically never loses this many races in a row. */
#define TB_TRIES 32

enum tb_case {
	TB_IN_WINDOW,
	TB_IDLE,
	TB_TOO_FAST,
	TB_CONTENDED,
};

/*
 * Minimum and maximum of numbers below 2^62, without a branch: the verifier follows both ways of every branch
 * to the end of the program. The asm statement hides the comparison, or the compiler makes a branch of it.
 */
static __always_inline __s64 tb_negative_part(__s64 number)
{
	__s64 mask = number >> 63;

	asm("" : "+r"(mask));
	return number & mask;
}

static __always_inline __s64 tb_min(__s64 a, __s64 b)
{
	return b + tb_negative_part(a - b);
}

static __always_inline __s64 tb_max(__s64 a, __s64 b)
{
	return a - tb_negative_part(a - b);
}

/*
 * The time that an amount takes at the rate, rounded to the nearest quantum. It is a multiplication and a
 * shift, because a 64-bit division takes up to 90 cycles on current processors.
 */
static __always_inline __u64 tb_cost(__u64 amount, __u64 scale, int shift)
{
	return (amount * scale + (1ULL << (shift - 1))) >> shift;
}

static __always_inline __u64 tb_bytes_cost(__u64 bytes, __u64 scale)
{
	__u64 units = bytes / TB_BYTES_MAX, unit_cost = scale * (TB_BYTES_MAX >> TB_BYTES_SHIFT);

	return tb_min(units * unit_cost + tb_cost(bytes % TB_BYTES_MAX, scale, TB_BYTES_SHIFT), TB_COST_MAX);
}

static __always_inline __u64 tb_packets_cost(__u64 packets, __u64 scale)
{
	return tb_min(tb_cost(tb_min(packets, TB_PACKETS_MAX), scale, TB_PACKETS_SHIFT), TB_COST_MAX);
}

/*
 * The start of the window for a packet at now: max(tat, now - burst), in wrapping arithmetic. One comparison
 * checks both ends of "ahead by up to TB_AHEAD_MAX, or past by up to the burst", because the verifier follows
 * each branch of a loop in every round.
 */
static __always_inline __u64 tb_base(__u64 tat, __u64 now, __u64 burst)
{
	return now - tat + TB_AHEAD_MAX <= burst + TB_AHEAD_MAX ? tat : now - burst;
}

/*
 * Charges the packet if it conforms, by compare-and-swap: all CPUs share the word. A packet larger than the
 * burst passes if the bucket is full, and is charged its whole cost.
 */
static __always_inline enum tb_case tb_take(__u64 *word, __u64 now, __u64 cost, __u64 burst)
{
	for (int try = 0; try < TB_TRIES; try++) {
		__u64 tat = *(volatile __u64 *)word;
		__u64 base = tb_base(tat, now, burst);

		if ((__s64)(now - base) < tb_min(cost, burst))
			return TB_TOO_FAST;
		if (__sync_val_compare_and_swap(word, tat, base + cost) == tat)
			return base == tat ? TB_IN_WINDOW : TB_IDLE;
	}
	return TB_CONTENDED;
}

#endif
