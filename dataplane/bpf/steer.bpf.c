// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The steering program: which packets of an interface go to the balancer's AF_XDP socket of their
// queue, and which to the kernel.
//
//   to another hardware address than the interface's -> XDP_PASS
//   to a service            -> redirect
//   from a NAT backend's service port, and not to one of the balancer's own addresses -> redirect
//   everything else         -> XDP_PASS: ARP, ND, BGP, SSH, health checks and their answers
//   no socket in the slot   -> XDP_PASS: a dead worker never takes the host's own traffic with it
//
// One instance and one XSKMAP per interface: the kernel drops, and does not pass, what is
// redirected to a socket of another device or queue (net/xdp/xsk.c, xsk_rcv_check).
//
// Not looked into, so passed: VLAN tags, IPv6 extension headers, IPv4 fragments but the first. A
// first fragment carries the ports, so it is redirected and the balancer counts its drop.
//
// The layouts here are mirrored and asserted in ../src/xsk/program.rs.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_QUEUES 64
#define MAX_SERVICES 16384
#define MAX_RETURNS 65536
#define MAX_LOCALS 4096

// The fragment offset in iphdr.frag_off, without the flags (RFC 791, 3.1).
#define FRAGMENT_OFFSET 0x1fff

// One transport endpoint. IPv4 is IPv4-mapped (::ffff:a.b.c.d, RFC 4291, 2.5.5.2); address and port
// in network order.
struct endpoint {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

_Static_assert(sizeof(struct endpoint) == 20, "mirrored in program.rs");
_Static_assert(__builtin_offsetof(struct endpoint, port) == 16, "mirrored in program.rs");
_Static_assert(__builtin_offsetof(struct endpoint, protocol) == 18, "mirrored in program.rs");

struct address {
	__u8 bytes[16];
};

_Static_assert(sizeof(struct address) == 16, "mirrored in program.rs");

// Indices into steer_stats; all count packets.
enum counter {
	RECEIVED,            // seen by the program
	PASSED_OTHER,        // to the kernel: not the balancer's
	PASSED_NO_SOCKET,    // to the kernel: the balancer's, but nobody in the slot
	REDIRECTED_SERVICE,  // to the socket: addressed to a service
	REDIRECTED_RETURN,   // to the socket: from a NAT backend
	COUNTERS,
};

_Static_assert(COUNTERS == 5, "mirrored in program.rs");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint);
	__type(value, __u32);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_RETURNS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint);
	__type(value, __u32);
} returns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_LOCALS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32);
} locals SEC(".maps");

// The interface's hardware address in its first six bytes; all zero: unknown, every frame counts as ours.
struct own {
	__u8 address[8];
};

_Static_assert(sizeof(struct own) == 8, "mirrored in program.rs");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct own);
} own SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} steer_stats SEC(".maps");

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&steer_stats, &counter);

	if (value)
		*value += 1;
}

static __always_inline int pass(void)
{
	count(PASSED_OTHER);
	return XDP_PASS;
}

static __always_inline int redirect(struct xdp_md *ctx, __u32 counter)
{
	// The lowest flag bits are the verdict when the slot is empty (bpf-helpers(7), bpf_redirect_map).
	long verdict = bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);

	count(verdict == XDP_REDIRECT ? counter : PASSED_NO_SOCKET);
	return verdict;
}

static __always_inline void map_ipv4(__u8 address[16], __be32 ipv4)
{
	__builtin_memset(address, 0, 10);
	address[10] = 0xff;
	address[11] = 0xff;
	__builtin_memcpy(address + 12, &ipv4, 4);
}

static __always_inline int is_mapped(const struct in6_addr *address)
{
	return !address->s6_addr32[0] && !address->s6_addr32[1] && address->s6_addr32[2] == bpf_htonl(0xffff);
}

// XDP also sees what a promiscuous device or a flooding switch delivers and the kernel would drop as somebody else's
// (PACKET_OTHERHOST). Forwarding that would duplicate packets, and with direct server return make them circle.
static __always_inline int is_for_us(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	__u32 zero = 0;
	struct own *mine = bpf_map_lookup_elem(&own, &zero);
	__u8 known = 0, differs = 0;
	int i;

	if (!mine || (void *)(ethernet + 1) > end)
		return 0;
#pragma unroll
	for (i = 0; i < ETH_ALEN; i++) {
		known |= mine->address[i];
		differs |= mine->address[i] ^ ethernet->h_dest[i];
	}
	return !known || !differs;
}

// Reads both endpoints. False if this is nothing that the balancer could be meant by.
static __always_inline int parse(struct xdp_md *ctx, struct endpoint *from, struct endpoint *to)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	__be16 *ports;
	__u8 protocol;

	if ((void *)(ethernet + 1) > end)
		return 0;

	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(ethernet + 1);
		__u32 header;

		if ((void *)(ip + 1) > end)
			return 0;
		header = ip->ihl * 4;
		if (ip->version != 4 || header < sizeof(*ip))
			return 0;
		if (ip->frag_off & bpf_htons(FRAGMENT_OFFSET))
			return 0;
		protocol = ip->protocol;
		map_ipv4(from->address, ip->saddr);
		map_ipv4(to->address, ip->daddr);
		ports = (void *)ip + header;
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end)
			return 0;
		if (ip->version != 6)
			return 0;
		// An IPv4-mapped address is how IPv4 is written here; nobody may send one (RFC 4291, 2.5.5.2).
		if (is_mapped(&ip->saddr) || is_mapped(&ip->daddr))
			return 0;
		protocol = ip->nexthdr;
		__builtin_memcpy(from->address, &ip->saddr, 16);
		__builtin_memcpy(to->address, &ip->daddr, 16);
		ports = (void *)(ip + 1);
	} else {
		return 0;
	}

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return 0;
	if ((void *)(ports + 2) > end)
		return 0;
	from->port = ports[0];
	from->protocol = protocol;
	from->pad = 0;
	to->port = ports[1];
	to->protocol = protocol;
	to->pad = 0;
	return 1;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	struct endpoint from, to;

	count(RECEIVED);
	if (!is_for_us(ctx) || !parse(ctx, &from, &to))
		return pass();
	if (bpf_map_lookup_elem(&services, &to))
		return redirect(ctx, REDIRECTED_SERVICE);
	if (bpf_map_lookup_elem(&returns, &from) && !bpf_map_lookup_elem(&locals, &to.address))
		return redirect(ctx, REDIRECTED_RETURN);
	return pass();
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
