// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The traffic source's program, run by the kernel over frames of its own making (BPF_PROG_TEST_RUN with
// BPF_F_TEST_XDP_LIVE_FRAMES, kernel Documentation/bpf/bpf_prog_run.rst). It makes each frame one of the next flow and
// sends it out of the interface that the run names.
//
// The kernel reuses frames without resetting them, so everything that changes is written anew each time.

#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Mirrored in ../src/traffic.rs: an Ethernet, IPv4 and UDP frame without options.
#define IP_CHECKSUM 24
#define SOURCE_LOW 28
#define SOURCE_PORT 34
#define UDP_CHECKSUM 40
#define SMALLEST 60
#define FIRST_PORT 1024
#define FLOWS_PER_ADDRESS 50000

// Set before loading. Sums are one's-complement, of the template without the source port and the low half of the source
// address, not complemented.
const volatile __u32 flows = 1;
const volatile __u32 first_low = 0;
const volatile __u32 ip_sum = 0;
const volatile __u32 udp_sum = 0;

__u32 next_flow = 0;

static __always_inline __be16 finish(__u32 sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return bpf_htons(~sum & 0xffff);
}

SEC("xdp")
int blast(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 flow = next_flow;
	__u32 port = FIRST_PORT + flow % FLOWS_PER_ADDRESS;
	__u32 low = (first_low + flow / FLOWS_PER_ADDRESS) & 0xffff;

	if (data + SMALLEST > end)
		return XDP_DROP;
	next_flow = flow + 1 < flows ? flow + 1 : 0;
	*(__be16 *)(data + SOURCE_LOW) = bpf_htons(low);
	*(__be16 *)(data + SOURCE_PORT) = bpf_htons(port);
	*(__be16 *)(data + IP_CHECKSUM) = finish(ip_sum + low);
	*(__be16 *)(data + UDP_CHECKSUM) = finish(udp_sum + low + port);
	return XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
