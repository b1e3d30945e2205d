/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: passt turns each packet into a system call of its user: a packet to 127.0.0.1 becomes
 * a datagram to the host's own loopback, if the sandbox is rude enough to send one. So the destination
 * decides, before passt sees it, and so does the source, as the router's rules do it with root. Only the
 * fixed headers are read; what is neither ARP, IPv4 nor IPv6 does not pass.
 */
#include "net/helper/sieve.h"

#include <netinet/in.h>
#include <string.h>

#include "base/util.h"

#define ETH_HEADER 14u
#define PORT_DNS   53u

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static bool prefix_is(const uint8_t *a, const uint8_t *prefix, unsigned bits)
{
	unsigned bytes = bits / 8, rest = bits % 8;
	return memcmp(a, prefix, bytes) == 0 &&
	       (rest == 0 || ((a[bytes] ^ prefix[bytes]) >> (8 - rest)) == 0);
}

bool sieve_forbidden(const struct ip_addr *a)
{
	static const struct {
		uint8_t family, bits, prefix[16];
	} list[] = {
	    {AF_INET, 8, {0}}, /* 0.0.0.0 is this host */
	    {AF_INET, 8, {127}},
	    {AF_INET, 16, {169, 254}}, /* link-local, and most clouds' metadata */
	    {AF_INET, 32, {100, 100, 100, 200}},
	    {AF_INET, 32, {192, 0, 0, 192}},
	    {AF_INET, 3, {224}}, /* multicast, reserved, broadcast */
	    {AF_INET6, 64, {0}}, /* ::, ::1, and all ways to write an IPv4 address there */
	    {AF_INET6, 10, {0xfe, 0x80}},
	    {AF_INET6, 10, {0xfe, 0xc0}},
	    {AF_INET6, 8, {0xff}},
	    {AF_INET6, 32, {0xfd, 0x00, 0x0e, 0xc2}},
	    {AF_INET6, 128, {0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54}},
	    {AF_INET6, 128, {0xfd, 0x00, 0x00, 0xc1, [12] = 0xa9, [13] = 0xfe, [14] = 0xa9, [15] = 0xfe}},
	};
	for (size_t k = 0; k < ARRAY_LEN(list); k++)
		if (a->family == list[k].family && prefix_is(a->b, list[k].prefix, list[k].bits))
			return true;
	/* NAT64 and 6to4 wrap an IPv4 address. */
	static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b}, six_to_four[2] = {0x20, 0x02};
	struct ip_addr inner = {.family = AF_INET};
	if (a->family == AF_INET6 && (prefix_is(a->b, nat64, 96) || prefix_is(a->b, six_to_four, 16))) {
		memcpy(inner.b, a->b + (a->b[0] == 0x20 ? 2 : 12), 4);
		return sieve_forbidden(&inner);
	}
	return false;
}

static bool same(const struct ip_addr *a, const struct ip_addr *b)
{
	return a->family == b->family && memcmp(a->b, b->b, ip_bytes(a)) == 0;
}

static bool to_host(const struct sieve *s, const struct ip_addr *dst)
{
	for (size_t k = 0; k < s->n_host; k++)
		if (same(&s->host[k], dst))
			return true;
	return false;
}

static bool pass4(const struct sieve *s, const uint8_t *p, size_t n)
{
	struct ip_addr src = {.family = AF_INET}, dst = {.family = AF_INET};
	size_t header;
	if (n < 20 || p[0] >> 4 != 4)
		return false;
	header = (size_t)(p[0] & 15) * 4;
	if (header < 20 || header > n)
		return false;
	memcpy(src.b, p + 12, 4);
	memcpy(dst.b, p + 16, 4);
	if (!same(&src, &s->addr4))
		return false;
	if (s->dns.family == AF_INET && same(&dst, &s->dns)) {
		/* A first fragment of TCP or UDP, to port 53. */
		bool carries = (p[9] == IPPROTO_UDP || p[9] == IPPROTO_TCP) && (get16(p + 6) & 0x1fff) == 0;
		return carries && n >= header + 4 && get16(p + header + 2) == PORT_DNS;
	}
	return !sieve_forbidden(&dst) && !to_host(s, &dst);
}

static bool pass6(const struct sieve *s, const uint8_t *p, size_t n)
{
	struct ip_addr src = {.family = AF_INET6}, dst = {.family = AF_INET6};
	if (n < 40 || p[0] >> 4 != 6)
		return false;
	memcpy(src.b, p + 8, 16);
	memcpy(dst.b, p + 24, 16);
	/* Neighbour discovery: to the link, from any address of the link. Nothing of it leaves passt. */
	bool link_src =
	    (src.b[0] == 0xfe && (src.b[1] & 0xc0) == 0x80) || same(&src, &s->addr6) || src.b[15] == 0;
	bool link_dst = dst.b[0] == 0xff || (dst.b[0] == 0xfe && (dst.b[1] & 0xc0) == 0x80);
	if (link_dst)
		return p[6] == IPPROTO_ICMPV6 && link_src && n >= 48 && p[40] >= 133 && p[40] <= 136;
	return same(&src, &s->addr6) && !sieve_forbidden(&dst) && !to_host(s, &dst);
}

bool sieve_pass(const struct sieve *s, const uint8_t *frame, size_t n)
{
	if (n < ETH_HEADER || n > SIEVE_FRAME_MAX)
		return false;
	switch (get16(frame + 12)) {
	case 0x0806:
		return true;
	case 0x0800:
		return pass4(s, frame + ETH_HEADER, n - ETH_HEADER);
	case 0x86dd:
		return pass6(s, frame + ETH_HEADER, n - ETH_HEADER);
	default:
		return false;
	}
}
