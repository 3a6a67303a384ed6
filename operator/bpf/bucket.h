/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Buckets that are asked together: a packet is charged to every meter of a chain of buckets, or to none.
 * Included after gcra.h and packet.h.
 *
 * First all meters are looked at, so that what one refuses touches none. Then all are charged, each by one
 * addition, and if another CPU's packet came between, all is given back. While such a packet's charge stands,
 * a packet on a third CPU may be refused for it: never is more let through than one CPU would have.
 *
 * There are few branches here, and no loops: the verifier follows each of them to the end of the program, for
 * each way that leads to it. Two CPUs that both lost to others in a row are no case here.
 */
#ifndef TB_BUCKET_H
#define TB_BUCKET_H

enum {
	TB_SMALL_BYTES = 256,
	TB_SUPER_BYTES = 1 << 16, /* the largest super-packet, unless BIG TCP is switched on */
	TB_SUPER_SEGMENTS = 64,
};

/* When a packet is to go. */
enum tb_when {
	TB_NOW,   /* it conforms */
	TB_LATER, /* not too much waits ahead of it */
};

struct tb_meter {
	__u64 *word;
	const __u64 *scale; /* 0 is a meter not in use */
	__u64 cost;
	__u64 burst;
	__s64 max_ahead; /* the most that may be ahead of the packet */
};

struct tb_bucket {
	struct tb_meter bytes;
	struct tb_meter packets;
};

/* What the meters say of a packet, in quanta from now on; 0 is now. */
struct tb_place {
	__s64 ahead;   /* when all that waits ahead of it will have gone */
	__s64 departs; /* when it conforms */
	__s64 over;    /* negative if it was too late for one of them */
	__s64 window;  /* 0 if one of them was idle */
};

static __always_inline int tb_is_small(struct tb_packet packet)
{
	return packet.wire_bytes <= TB_SMALL_BYTES;
}

/* Read anew each time: what the verifier knows of it from before would make other paths of what follows. */
static __always_inline int tb_is_used(const struct tb_meter *meter)
{
	return *(const volatile __u64 *)meter->scale != 0;
}

/* The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators"). */
static __always_inline __u64 tb_scrambled(__u64 number)
{
	number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9ULL;
	number = (number ^ number >> 27) * 0x94d049bb133111ebULL;
	return number ^ number >> 31;
}

/*
 * How much bulk may find ahead of it: each packet another amount, from half of the longest delay to all of
 * it, so that the flow that fills the bucket is the one that loses, and not whoever comes while it is full
 * ("lock-out", RFC 7567). It is the largest of four uniform numbers: where a share x of the upper half is
 * ahead, x^4 of the packets are dropped.
 */
static __always_inline __s64 tb_patience(const struct tb_config *config, __u64 now)
{
	__u64 dice = tb_scrambled(now), half = config->max_delay_q / 2;
	__s64 most = tb_later_of(tb_later_of(dice & 0xffff, dice >> 16 & 0xffff),
				 tb_later_of(dice >> 32 & 0xffff, dice >> 48));

	return half + (half * most >> 16);
}

/*
 * The most that may be ahead of a packet by a meter of which it and a super-packet take so much. A packet
 * that conforms has its tokens: less than nothing is ahead of it.
 */
static __always_inline __s64 tb_max_ahead(const struct tb_config *config, struct tb_packet packet,
					  enum tb_when when, __u64 now, __u64 need, __u64 super_cost)
{
	if (when == TB_NOW)
		return -(__s64)need;
	if (tb_is_small(packet))
		return config->max_delay_q + config->max_delay_q / 2 + super_cost;
	return tb_patience(config, now);
}

static __always_inline struct tb_meter tb_byte_meter(const struct tb_config *config, struct tb_packet packet,
						     enum tb_when when, __u64 now, __u64 *word,
						     const __u64 *scale, __u64 burst)
{
	__u64 cost = tb_bytes_cost(packet.wire_bytes, *scale);
	__u64 super_cost = tb_bytes_cost(TB_SUPER_BYTES, *scale);

	return (struct tb_meter){
		.word = word,
		.scale = scale,
		.cost = cost,
		.burst = burst,
		.max_ahead = tb_max_ahead(config, packet, when, now, tb_lesser_of(cost, burst), super_cost),
	};
}

static __always_inline struct tb_meter tb_packet_meter(const struct tb_config *config,
						       struct tb_packet packet, enum tb_when when, __u64 now,
						       __u64 *word, const __u64 *scale, __u64 burst)
{
	__u64 cost = tb_packets_cost(packet.segments, *scale);
	__u64 super_cost = tb_packets_cost(TB_SUPER_SEGMENTS, *scale);

	return (struct tb_meter){
		.word = word,
		.scale = scale,
		.cost = cost,
		.burst = burst,
		.max_ahead = tb_max_ahead(config, packet, when, now, tb_lesser_of(cost, burst), super_cost),
	};
}

static __always_inline struct tb_bucket tb_bucket_of_slot(const struct tb_config *config,
							  struct tb_meters *meters, struct tb_packet packet,
							  enum tb_when when, __u64 now)
{
	return (struct tb_bucket){
		tb_byte_meter(config, packet, when, now, &meters->bytes_tat, &config->bytes_scale,
			      config->bytes_burst_q),
		tb_packet_meter(config, packet, when, now, &meters->packets_tat, &config->packets_scale,
				config->packets_burst_q),
	};
}

/* Re-centres the window of an idle meter: it is as full as it was. */
static __always_inline __s64 tb_ahead(const struct tb_meter *meter, __u64 now)
{
	__u64 tat = tb_read(meter->word);

	if (tb_base(tat, now, meter->burst) == tat)
		return tat - now;
	__sync_val_compare_and_swap(meter->word, tat, now - meter->burst);
	return -(__s64)meter->burst;
}

static __always_inline int tb_meter_has_room(const struct tb_meter *meter, __u64 now)
{
	return !tb_is_used(meter) || tb_ahead(meter, now) <= meter->max_ahead;
}

static __always_inline int tb_has_room(const struct tb_bucket *bucket, __u64 now)
{
	return tb_meter_has_room(&bucket->packets, now) && tb_meter_has_room(&bucket->bytes, now);
}

static __always_inline void tb_add(const struct tb_meter *meter, __u64 now, struct tb_place *place)
{
	__s64 ahead;

	if (!tb_is_used(meter))
		return;
	ahead = __sync_fetch_and_add(meter->word, meter->cost) - now;
	place->ahead = tb_later_of(place->ahead, ahead);
	place->departs = tb_later_of(place->departs, ahead + tb_lesser_of(meter->cost, meter->burst));
	place->over |= meter->max_ahead - ahead;
	place->window = tb_lesser_of(place->window, ahead + meter->burst);
}

static __always_inline void tb_charge(const struct tb_bucket *bucket, __u64 now, struct tb_place *place)
{
	tb_add(&bucket->bytes, now, place);
	tb_add(&bucket->packets, now, place);
}

/* The cost of a meter not in use is 0. */
static __always_inline void tb_give_back(const struct tb_bucket *bucket)
{
	__sync_fetch_and_add(bucket->bytes.word, -bucket->bytes.cost);
	__sync_fetch_and_add(bucket->packets.word, -bucket->packets.cost);
}

/* A chain of one. */
static __always_inline int tb_charge_alone(const struct tb_config *config, struct tb_meters *meters,
					   struct tb_packet packet, enum tb_when when, __u64 now,
					   struct tb_place *place)
{
	struct tb_bucket bucket = tb_bucket_of_slot(config, meters, packet, when, now);

	if (!tb_has_room(&bucket, now))
		return 0;
	tb_charge(&bucket, now, place);
	if (place->over < 0)
		tb_give_back(&bucket);
	return place->over >= 0;
}

#endif
