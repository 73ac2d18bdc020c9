// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The sink's program: everything that arrives goes to the queue's socket, with the time of its arrival in front of it.
// What finds no socket is dropped, so that no kernel answers traffic that is not its own.

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define QUEUES 64

// Mirrored in ../src/generator/sink.rs: what lies in front of a packet, in native order.
#define MARK 0x52696e6767617465ull

struct arrival {
	__u64 mark;
	__u64 time;
};

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	struct arrival *arrival;

	// Drivers without metadata refuse; the reader's own clock is what is left then.
	if (!bpf_xdp_adjust_meta(ctx, -(int)sizeof(*arrival))) {
		arrival = (void *)(long)ctx->data_meta;
		if ((void *)(arrival + 1) <= (void *)(long)ctx->data) {
			arrival->mark = MARK;
			arrival->time = bpf_ktime_get_ns();
		}
	}
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
