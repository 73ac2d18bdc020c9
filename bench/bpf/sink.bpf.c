// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The sink's program: everything that arrives goes to the queue's socket. What finds none is dropped, so that no kernel
// answers traffic that is not its own.

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#define QUEUES 64

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
