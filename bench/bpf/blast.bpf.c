// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The traffic source's program, run by the kernel over frames of its own making (BPF_PROG_TEST_RUN with
// BPF_F_TEST_XDP_LIVE_FRAMES, kernel Documentation/bpf/bpf_prog_run.rst). It makes each frame one of the next flow, puts
// the stamp on it, and sends it out of the interface that the run names.
//
// The kernel reuses frames: it restores their length (reset_ctx in net/bpf/test_run.c) and not their bytes, so everything
// that changes is written anew each time.
//
// It does what ../src/generator/{spread,shape,stamp}.rs do; a test compares the frames.

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FIRST_PORT 1024
#define FLOWS_PER_ADDRESS 50000
#define PICKS_IN_BLOCK 1024
#define SHAPES 3
#define TURNS 12
#define MAGIC 0x5267
#define STAMP_BYTES 18
#define STAMP_WORDS 9
// Headers and stamp at their longest: TCP over IPv6.
#define DEEPEST 80
#define SECOND 1000000000ull
// How often it looks at the clock for a frame that is not due yet: some 10 us. Then another frame tries.
#define LOOKS 400

// All set before loading.
const volatile __u32 flows = 1;
const volatile __u32 first_low = 0;
const volatile __u32 new_per_second = 0;
const volatile __u64 started = 0;
const volatile __u32 picks_len = 0;

// Where things are: see `Places`. Zero: there is none.
const volatile __u32 ip_len_at = 0;
const volatile __u32 ip_checksum_at = 0;
const volatile __u32 source_low_at = 0;
const volatile __u32 port_at = 0;
const volatile __u32 udp_len_at = 0;
const volatile __u32 flags_at = 0;
const volatile __u32 checksum_at = 0;
const volatile __u32 stamp_at = 0;

// Lengths without check sequence, and one's-complement sums of what does not change: see `Sums`.
const volatile __u32 lens[SHAPES] = {};
const volatile __u32 ip_lens[SHAPES] = {};
const volatile __u32 ip_sums[SHAPES] = {};
const volatile __u32 datagram_sums[SHAPES] = {};
const volatile __u8 turns[TURNS] = {};
const volatile __u32 flags_of[2] = {};

// Frames sent, over all runs.
__u64 turn = 0;

// Set before each run. As in pace.rs: tokens come at `rate` from `start` on, `keep` of them do not expire; `gone` ones
// are used or forfeited. A rate of 0: no tokens are needed. Nothing is sent from `end` on.
struct control {
	__u64 start;
	__u64 end;
	__u64 rate;
	__u64 keep;
	__u64 gone;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} controls SEC(".maps");

// What the flow in each place has sent.
struct sent {
	__u32 flow;
	__u32 next;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); // as many as flows
	__type(key, __u32);
	__type(value, struct sent);
} sequences SEC(".maps");

// Places that are gone through in turn.
struct block {
	__u32 places[PICKS_IN_BLOCK];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); // as many as there are
	__type(key, __u32);
	__type(value, struct block);
} picks SEC(".maps");

static __always_inline __u32 fold(__u32 sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	return (sum >> 16) + (sum & 0xffff);
}

static __always_inline __u32 place_of(__u64 number)
{
	__u32 at, block;
	struct block *found;

	if (!picks_len)
		return number % flows;
	at = number % picks_len;
	block = at / PICKS_IN_BLOCK;
	found = bpf_map_lookup_elem(&picks, &block);
	return found ? found->places[at % PICKS_IN_BLOCK] : 0;
}

static __always_inline __u32 flow_in(__u32 place, __u64 now)
{
	__u64 born;

	if (!new_per_second)
		return place;
	born = (now - started) * new_per_second / SECOND;
	return born + (place + flows - born % flows) % flows;
}

static __always_inline __u32 sequence_of(__u32 place, __u32 flow)
{
	struct sent *sent = bpf_map_lookup_elem(&sequences, &place);

	if (!sent)
		return 0;
	if (sent->flow != flow) {
		sent->flow = flow;
		sent->next = 0;
	}
	return sent->next++;
}

// The stamp's check: see stamp.rs.
static __always_inline __u16 check(__u32 flow, __u32 sequence, __u64 time)
{
	__u64 numbers = ((__u64)flow << 32 | sequence) * 0x9e3779b97f4a7c15ull;
	__u64 times = ((__u64)MAGIC << 48 | time) * 0xbf58476d1ce4e5b9ull;

	return (numbers ^ times) >> 48;
}

// Waits until a frame may leave, but not long. Returns the time then; 0: not now.
static __always_inline __u64 due(void)
{
	__u32 only = 0;
	struct control *control = bpf_map_lookup_elem(&controls, &only);

	if (!control)
		return 0;
	for (int look = 0; look < LOOKS; look++) {
		__u64 now = bpf_ktime_get_ns(), there;

		if (now >= control->end)
			return 0;
		if (!control->rate)
			return now;
		there = (now - control->start) * control->rate / SECOND + 1 - control->gone;
		if (!there)
			continue;
		control->gone += 1 + (there > control->keep ? there - control->keep : 0);
		return now;
	}
	return 0;
}

// Writes the stamp and returns its sum.
static __always_inline __u32 write_stamp(__be16 *to, __u32 flow, __u32 sequence, __u64 now)
{
	__u64 time = now & 0xffffffffffffull;
	__u16 words[STAMP_WORDS] = {
		MAGIC, flow >> 16, flow, sequence >> 16, sequence, time >> 32, time >> 16, time, check(flow, sequence, time),
	};
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < STAMP_WORDS; i++) {
		to[i] = bpf_htons(words[i]);
		sum += words[i];
	}
	return sum;
}

SEC("xdp")
int blast(struct xdp_md *ctx)
{
	__u64 number = turn, now = due();
	__u64 at = (number + number / flows) % TURNS;
	__u32 place, flow, sequence, port, low, flags, shape, sum;
	void *data, *end;

	if (!now)
		return XDP_DROP;
	turn = number + 1;
	place = place_of(number);
	flow = flow_in(place, now);
	sequence = sequence_of(place, flow);
	port = FIRST_PORT + flow % FLOWS_PER_ADDRESS;
	low = (first_low + flow / FLOWS_PER_ADDRESS) & 0xffff;
	flags = sequence ? flags_of[1] : flags_of[0];

	// The verifier does not know what a remainder is, and the compiler must not know that it is one.
	asm volatile("" : "+r"(at));
	if (at >= TURNS)
		return XDP_DROP;
	shape = turns[at];
	if (shape >= SHAPES)
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (lens[shape] < end - data && bpf_xdp_adjust_tail(ctx, (int)lens[shape] - (int)(end - data)))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	// Known when the program is loaded, so that the verifier follows.
	if (stamp_at > DEEPEST || checksum_at > DEEPEST || flags_at > DEEPEST || port_at > DEEPEST ||
	    source_low_at > DEEPEST || ip_checksum_at > DEEPEST || ip_len_at > DEEPEST || udp_len_at > DEEPEST)
		return XDP_DROP;
	if (data + stamp_at + STAMP_BYTES > end)
		return XDP_DROP;
	*(__be16 *)(data + ip_len_at) = bpf_htons(ip_lens[shape]);
	if (udp_len_at)
		*(__be16 *)(data + udp_len_at) = bpf_htons(lens[shape] - port_at);
	*(__be16 *)(data + source_low_at) = bpf_htons(low);
	*(__be16 *)(data + port_at) = bpf_htons(port);
	if (ip_checksum_at)
		*(__be16 *)(data + ip_checksum_at) = bpf_htons(~fold(ip_sums[shape] + low) & 0xffff);
	if (flags_at)
		*(__be16 *)(data + flags_at) = bpf_htons(flags);
	sum = write_stamp(data + stamp_at, flow, sequence, now);
	sum = ~fold(datagram_sums[shape] + low + port + flags + sum) & 0xffff;
	*(__be16 *)(data + checksum_at) = bpf_htons(sum ?: 0xffff);
	return XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
