// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The steering program: which packets of an interface go to the balancer's AF_XDP socket of their
// queue, and which to the kernel.
//
//   to another hardware address than the interface's -> XDP_PASS
//   to a service                                     -> redirect
//   from a NAT backend's service port, and not to one of the balancer's own addresses -> redirect
//   from a full-nat backend's, to an address and port that full-nat takes as source   -> redirect
//   a fragment without ports -> redirect, if its addresses alone fit one of these
//   an ICMP error            -> where a packet would go that answers the one it is about
//   an echo request          -> redirect, if it is to a service's address and the balancer answers
//   everything else          -> XDP_PASS: ARP, ND, BGP, SSH, health checks and their answers
//   no socket in the slot    -> XDP_PASS: a dead worker never takes the host's own traffic with it
//
// One instance and one XSKMAP per interface: the kernel drops, and does not pass, what is
// redirected to a socket of another device or queue (net/xdp/xsk.c, xsk_rcv_check).
//
// Up to two VLAN tags are read; a service may ask for certain ones. Not looked into, so passed:
// three tags, and IPv6 extension headers but one fragment header.
//
// The usual packet has no tags and goes to a service of one address and port, or comes from a
// backend's one port: it costs a lookup or two in hash tables, and no longest prefix match.
//
// The layouts here are mirrored in ../src/xsk/program/layout.rs; loading compares their sizes.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_QUEUES 64
#define MAX_SERVICES 16384
#define MAX_RETURNS 131072
#define MAX_LOCALS 4096
#define MAX_POOL 1024
// Longest prefix tries take memory for what is in them, whatever may be.
#define MAX_PREFIXES 65536
#define MAX_PORT_PREFIXES 1048576

// How often a packet is looked up. A look in vain may be because all changed meanwhile: what it looks for can have moved
// behind it, from a map not yet read to one that was. Between two reads of one `change` nothing moves. Each more
// look takes a change in between, some system calls of the control thread, so four are more than a packet meets.
#define LOOKS 4

// How many port ranges can cover one address, those of shorter prefixes included.
#define RULES 8

// The flag "more fragments" and the fragment offset in iphdr.frag_off (RFC 791, 3.1).
#define MORE_FRAGMENTS 0x2000
#define FRAGMENT_OFFSET 0x1fff

// The fragment offset in the fragment header (RFC 8200, 4.5).
#define FRAGMENT_OFFSET_V6 0xfff8

// IANA's protocol numbers, where the kernel's headers name none or another.
#define PROTOCOL_ICMP 1
#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_GRE 47
#define PROTOCOL_ICMPV6 58

// ICMP (RFC 792) and ICMPv6 types (RFC 4443).
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_FIRST_ERROR 1
#define ICMPV6_LAST_ERROR 4
#define ICMPV6_ECHO_REQUEST 128

// One transport endpoint. IPv4 is IPv4-mapped (::ffff:a.b.c.d, RFC 4291, 2.5.5.2); address and port
// in network order.
struct endpoint {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

_Static_assert(sizeof(struct endpoint) == 20, "mirrored in layout.rs");
_Static_assert(__builtin_offsetof(struct endpoint, port) == 16, "mirrored in layout.rs");
_Static_assert(__builtin_offsetof(struct endpoint, protocol) == 18, "mirrored in layout.rs");

struct address {
	__u8 bytes[16];
};

_Static_assert(sizeof(struct address) == 16, "mirrored in layout.rs");

// A prefix of addresses of one family and protocol. With the family before it, ::/0 does not cover
// what is IPv4-mapped.
struct prefix {
	__u32 bits; // of what follows
	__u8 family;
	__u8 pad[2];
	__u8 protocol;
	__u8 address[16];
};

_Static_assert(sizeof(struct prefix) == 24, "mirrored in layout.rs");

// Ports of one address with the same first bits. A range of ports is a few of these.
struct port_prefix {
	__u32 bits; // of what follows
	__u8 protocol;
	__u8 pad[3];
	__u8 address[16];
	__be16 port;
	__u8 rest[2];
};

_Static_assert(sizeof(struct port_prefix) == 28, "mirrored in layout.rs");

// VLAN tags: the number of the inner one in the lower half, that of the outer one of two in the
// upper; each with TAGGED. 0 is no tag in a packet, and any in a service.
typedef __u32 tags_t;
#define TAGGED 0x1000
#define VLAN_NUMBER 0x0fff

// Ports in host order, both included. A rule that is not used has its first above its last.
struct rule {
	__u16 first;
	__u16 last;
	tags_t tags;
};

struct rules {
	struct rule rule[RULES];
};

_Static_assert(sizeof(struct rules) == 64, "mirrored in layout.rs");

// What an endpoint is, as the source of a packet.
enum source {
	NAT = 1,              // a backend of a NAT service
	FULL_NAT = 2,         // a backend of a full-nat service
	TUNNEL = 4,           // where a tunnel ends; tunnels carry one way, so only ICMP errors ask
	NAT_FRAGMENT = 8,     // with port 0: an address that has NAT
	FULL_NAT_FRAGMENT = 16, // with port 0: an address that has FULL_NAT
};

// What is the same for all packets.
struct settings {
	__u8 address[6];   // the interface's; all zero: unknown, every frame counts as ours
	__u8 has;          // enum has: which of the rarer maps have entries
	__u8 pad;
	__u16 pool_first;  // the ports that full-nat takes, in host order, both included
	__u16 pool_last;
	__u32 change;      // another one after each change, between what is added and what is taken away
};

enum has {
	HAS_RANGES = 1,
	HAS_RETURN_RANGES = 2,
};

_Static_assert(sizeof(struct settings) == 16, "mirrored in layout.rs");

// Indices into steer_stats; all count packets.
enum counter {
	RECEIVED,            // seen by the program
	PASSED_OTHER,        // to the kernel: not the balancer's
	PASSED_NO_SOCKET,    // to the kernel: the balancer's, but nobody in the slot
	PASSED_VLAN,         // to the kernel: for a service that asks for other VLAN tags
	REDIRECTED_SERVICE,  // to the socket: addressed to a service
	REDIRECTED_RETURN,   // to the socket: from a NAT or full-nat backend
	REDIRECTED_FRAGMENT, // to the socket: a fragment without ports, of either
	REDIRECTED_ICMP,     // to the socket: an ICMP error about one of the balancer's packets
	REDIRECTED_ECHO,     // to the socket: an echo request to a service's address
	COUNTERS,
};

_Static_assert(COUNTERS == 9, "mirrored in layout.rs");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

// Services of one address and port.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SERVICES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint);
	__type(value, tags_t);
} services SEC(".maps");

// All others. A prefix has the rules of those that cover it, too, after its own.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct rules);
} ranges SEC(".maps");

// What is asked for with no port: addresses of services, under their protocol if their fragments
// are followed, under ICMP's if echo requests are answered.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, tags_t);
} addresses SEC(".maps");

// enum source of single ports.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_RETURNS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint);
	__type(value, __u32);
} returns SEC(".maps");

// enum source of port ranges; an entry has what those have that cover it, too.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_PORT_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct port_prefix);
	__type(value, __u32);
} return_ranges SEC(".maps");

// The host's own addresses.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_LOCALS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32);
} locals SEC(".maps");

// The addresses that full-nat takes as source.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_POOL);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32);
} pool SEC(".maps");

// The sources of tunnels' outer headers that are none of the host's own addresses. Protocol 0.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
} tunnel_sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} steer_stats SEC(".maps");

// What a packet turned out to be.
enum kind {
	NOTHING,  // that the balancer could be meant by
	WHOLE,    // TCP or UDP with ports
	FRAGMENT, // TCP or UDP without: not the first of its fragments. The ports are 0
	ERROR,    // an ICMP error; the endpoints are those of a packet that answers the one it is about
	ECHO,     // an echo request. The ports are 0
};

struct packet {
	struct endpoint from;
	struct endpoint to;
	tags_t tags;
	__u8 family; // 4 or 6
	__u8 is_fragment;
	__u8 is_later; // and not the first
};

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&steer_stats, &counter);

	if (value)
		*value += 1;
}

static __always_inline int pass(__u32 counter)
{
	count(counter);
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
static __always_inline int is_for_us(struct xdp_md *ctx, const struct settings *settings)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	__u8 known = 0, differs = 0;
	int i;

	if ((void *)(ethernet + 1) > end)
		return 0;
#pragma unroll
	for (i = 0; i < ETH_ALEN; i++) {
		known |= settings->address[i];
		differs |= settings->address[i] ^ ethernet->h_dest[i];
	}
	return !known || !differs;
}

static __always_inline int is_transport(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static __always_inline int is_tag(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD) || type == bpf_htons(ETH_P_QINQ1);
}

// Both ends of an IP header but their ports.
static __always_inline void set_protocol(struct endpoint *from, struct endpoint *to, __u8 protocol)
{
	from->port = 0;
	from->protocol = protocol;
	from->pad = 0;
	to->port = 0;
	to->protocol = protocol;
	to->pad = 0;
}

// Reads the IPv4 header at `*next`, and moves `*next` behind it. False if it is none.
static __always_inline int read_ipv4(void **next, void *end, struct packet *packet, struct endpoint *from,
				     struct endpoint *to)
{
	struct iphdr *ip = *next;
	__u32 header;

	if ((void *)(ip + 1) > end)
		return 0;
	header = ip->ihl * 4;
	if (ip->version != 4 || header < sizeof(*ip))
		return 0;
	packet->is_later = !!(ip->frag_off & bpf_htons(FRAGMENT_OFFSET));
	packet->is_fragment = !!(ip->frag_off & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS));
	map_ipv4(from->address, ip->saddr);
	map_ipv4(to->address, ip->daddr);
	set_protocol(from, to, ip->protocol);
	*next = (void *)ip + header;
	return 1;
}

// The same of IPv6, with one fragment header if there is one.
static __always_inline int read_ipv6(void **next, void *end, struct packet *packet, struct endpoint *from,
				     struct endpoint *to)
{
	struct ipv6hdr *ip = *next;
	__u8 protocol;

	if ((void *)(ip + 1) > end)
		return 0;
	if (ip->version != 6)
		return 0;
	// An IPv4-mapped address is how IPv4 is written here; nobody may send one (RFC 4291, 2.5.5.2).
	if (is_mapped(&ip->saddr) || is_mapped(&ip->daddr))
		return 0;
	packet->is_later = 0;
	packet->is_fragment = 0;
	protocol = ip->nexthdr;
	*next = ip + 1;
	if (protocol == PROTOCOL_FRAGMENT) {
		struct {
			__u8 protocol;
			__u8 reserved;
			__be16 offset;
			__be32 identification;
		} *fragment = *next;

		if ((void *)(fragment + 1) > end)
			return 0;
		packet->is_fragment = 1;
		packet->is_later = !!(fragment->offset & bpf_htons(FRAGMENT_OFFSET_V6));
		protocol = fragment->protocol;
		*next = fragment + 1;
	}
	__builtin_memcpy(from->address, &ip->saddr, 16);
	__builtin_memcpy(to->address, &ip->daddr, 16);
	set_protocol(from, to, protocol);
	return 1;
}

static __always_inline int read_ports(void *next, void *end, struct endpoint *from, struct endpoint *to)
{
	__be16 *ports = next;

	if ((void *)(ports + 2) > end)
		return 0;
	from->port = ports[0];
	to->port = ports[1];
	return 1;
}

// Reads what an ICMP message behind `packet` is about.
static __always_inline enum kind read_icmp(void *next, void *end, struct packet *packet)
{
	int is_v4 = packet->family == 4;
	struct endpoint *from = &packet->to, *to = &packet->from;
	struct {
		__u8 type;
		__u8 code;
		__be16 checksum;
		__be32 rest;
	} *icmp = next;

	if ((void *)(icmp + 1) > end)
		return NOTHING;
	next = icmp + 1;
	if (is_v4) {
		if (icmp->type == ICMP_ECHO_REQUEST && !icmp->code)
			return ECHO;
		if (icmp->type != ICMP_UNREACHABLE && icmp->type != ICMP_TIME_EXCEEDED &&
		    icmp->type != ICMP_PARAMETER_PROBLEM)
			return NOTHING;
		if (!read_ipv4(&next, end, packet, from, to))
			return NOTHING;
	} else {
		if (icmp->type == ICMPV6_ECHO_REQUEST && !icmp->code)
			return ECHO;
		if (icmp->type < ICMPV6_FIRST_ERROR || icmp->type > ICMPV6_LAST_ERROR)
			return NOTHING;
		if (!read_ipv6(&next, end, packet, from, to))
			return NOTHING;
	}
	if (packet->is_later)
		return NOTHING;
	if (is_transport(to->protocol))
		return read_ports(next, end, from, to) ? ERROR : NOTHING;
	if (to->protocol == PROTOCOL_IPIP || to->protocol == PROTOCOL_IPV6 || to->protocol == PROTOCOL_GRE)
		return ERROR;
	return NOTHING;
}

// Reads a frame whose Ethernet header is there.
static __always_inline enum kind read(struct xdp_md *ctx, struct packet *packet)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	void *next = ethernet + 1;
	__be16 type;
	int i;

	if (next > end)
		return NOTHING;
	type = ethernet->h_proto;
	packet->tags = 0;
#pragma unroll
	for (i = 0; i < 2; i++) {
		struct {
			__be16 control;
			__be16 type;
		} *tag = next;

		if (!is_tag(type))
			break;
		if ((void *)(tag + 1) > end)
			return NOTHING;
		packet->tags = packet->tags << 16 | TAGGED | (bpf_ntohs(tag->control) & VLAN_NUMBER);
		type = tag->type;
		next = tag + 1;
	}

	if (type == bpf_htons(ETH_P_IP)) {
		packet->family = 4;
		if (!read_ipv4(&next, end, packet, &packet->from, &packet->to))
			return NOTHING;
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		packet->family = 6;
		if (!read_ipv6(&next, end, packet, &packet->from, &packet->to))
			return NOTHING;
	} else {
		return NOTHING;
	}

	if (is_transport(packet->to.protocol)) {
		if (packet->is_later)
			return FRAGMENT;
		return read_ports(next, end, &packet->from, &packet->to) ? WHOLE : NOTHING;
	}
	// An error that came in fragments would be one that nobody may send (RFC 1812, 4.3.2.3).
	if (packet->is_fragment || packet->to.protocol != (packet->family == 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6))
		return NOTHING;
	return read_icmp(next, end, packet);
}

// The tags that a packet for a service must have, if it is for one.
struct asked {
	int is_service;
	tags_t tags;
};

// The longest prefix in `trie` that has `address`.
static __always_inline void *longest(void *trie, __u8 family, __u8 protocol, const __u8 address[16])
{
	struct prefix key = { .bits = 32 + 128, .family = family, .protocol = protocol };

	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(trie, &key);
}

// The service at `to`.
static __always_inline struct asked service_at(const struct packet *packet, const struct settings *settings)
{
	tags_t *exact = bpf_map_lookup_elem(&services, &packet->to);
	__u16 port = bpf_ntohs(packet->to.port);
	struct rules *rules;
	int i;

	if (exact)
		return (struct asked){ 1, *exact };
	if (!(settings->has & HAS_RANGES))
		return (struct asked){ 0, 0 };
	rules = longest(&ranges, packet->family, packet->to.protocol, packet->to.address);
	if (!rules)
		return (struct asked){ 0, 0 };
#pragma unroll
	for (i = 0; i < RULES; i++)
		if (rules->rule[i].first <= port && port <= rules->rule[i].last)
			return (struct asked){ 1, rules->rule[i].tags };
	return (struct asked){ 0, 0 };
}

// The service that has the address of `to`, whose port is not known or not asked for.
static __always_inline struct asked service_of(const struct packet *packet)
{
	tags_t *tags = longest(&addresses, packet->family, packet->to.protocol, packet->to.address);

	return tags ? (struct asked){ 1, *tags } : (struct asked){ 0, 0 };
}

// enum source of `from`.
static __always_inline __u32 source(const struct packet *packet, const struct settings *settings)
{
	__u32 *exact = bpf_map_lookup_elem(&returns, &packet->from);
	struct port_prefix key = { .bits = 8 * (sizeof(key) - sizeof(key.bits) - sizeof(key.rest)) };
	__u32 *range;

	if (exact)
		return *exact;
	if (!(settings->has & HAS_RETURN_RANGES))
		return 0;
	key.protocol = packet->from.protocol;
	__builtin_memcpy(key.address, packet->from.address, 16);
	key.port = packet->from.port;
	range = bpf_map_lookup_elem(&return_ranges, &key);
	return range ? *range : 0;
}

// Whether the packet returns through the balancer: its source is a backend of a kind that has it so, and its
// destination is what the balancer wrote there as the source, if it did. What a backend sends to the balancer itself
// is an answer to a health check.
static __always_inline int is_return(const struct packet *packet, const struct settings *settings, enum kind kind)
{
	__u16 port = bpf_ntohs(packet->to.port);
	__u32 is = source(packet, settings);
	int is_local;

	if (!is)
		return 0;
	if (kind == FRAGMENT) {
		if (is & FULL_NAT_FRAGMENT && bpf_map_lookup_elem(&pool, &packet->to.address))
			return 1;
		return is & NAT_FRAGMENT && !bpf_map_lookup_elem(&locals, &packet->to.address);
	}
	if (is & FULL_NAT && settings->pool_first <= port && port <= settings->pool_last &&
	    bpf_map_lookup_elem(&pool, &packet->to.address))
		return 1;
	is_local = !!bpf_map_lookup_elem(&locals, &packet->to.address);
	if (is & NAT && !is_local)
		return 1;
	return kind == ERROR && is & TUNNEL &&
	       (is_local || longest(&tunnel_sources, packet->family, 0, packet->to.address));
}

// What becomes of a packet, by the maps as they are.
struct found {
	int is_ours; // of the balancer
	__u32 counter;
};

static __always_inline struct found look(const struct packet *packet, const struct settings *settings, enum kind kind)
{
	int asks_port = kind == WHOLE || kind == ERROR;
	struct asked asked = asks_port ? service_at(packet, settings) : service_of(packet);

	if (asked.is_service) {
		if (asked.tags && asked.tags != packet->tags)
			return (struct found){ 0, PASSED_VLAN };
		return (struct found){ 1, kind == WHOLE      ? REDIRECTED_SERVICE
					  : kind == FRAGMENT ? REDIRECTED_FRAGMENT
					  : kind == ERROR    ? REDIRECTED_ICMP
							     : REDIRECTED_ECHO };
	}
	if (kind != ECHO && is_return(packet, settings, kind))
		return (struct found){ 1, kind == WHOLE      ? REDIRECTED_RETURN
					  : kind == FRAGMENT ? REDIRECTED_FRAGMENT
							     : REDIRECTED_ICMP };
	return (struct found){ 0, PASSED_OTHER };
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	__u32 zero = 0;
	const volatile struct settings *now;
	struct settings *known = bpf_map_lookup_elem(&settings, &zero);
	struct packet packet;
	struct found found;
	enum kind kind;
	int looks;

	count(RECEIVED);
	if (!known || !is_for_us(ctx, known))
		return pass(PASSED_OTHER);
	kind = read(ctx, &packet);
	if (kind == NOTHING)
		return pass(PASSED_OTHER);
	now = known;
	for (looks = 0; looks < LOOKS; looks++) {
		__u32 change = now->change;

		found = look(&packet, known, kind);
		if (found.is_ours)
			return redirect(ctx, found.counter);
		if (now->change == change)
			break;
	}
	return pass(found.counter);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
