/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation: words of the command line are cut from the right, since an IPv6 address has colons of
 * its own. */
#include "net/publish.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/rtnl.h"

struct range {
	unsigned first, last;
};

/* "80" or "8000-8010"; where any port will do also "" and "0": first = last = 0. */
static int parse_range(const char *text, bool any, struct range *r)
{
	unsigned long v[2] = {0};
	int n = 0;
	*r = (struct range){0, 0};
	if (!*text || strcmp(text, "0") == 0)
		return any ? 0 : -1;
	for (const char *p = text; n < 2; n++) {
		char *end;
		if (!isdigit((unsigned char)*p))
			return -1;
		v[n] = strtoul(p, &end, 10);
		if (v[n] < 1 || v[n] > 65535)
			return -1;
		if (*end == 0) {
			*r = (struct range){(unsigned)v[0], (unsigned)v[n]};
			return r->first <= r->last ? 0 : -1;
		}
		if (*end != '-')
			return -1;
		p = end + 1;
	}
	return -1;
}

static int parse_proto(char *text, uint8_t *proto)
{
	char *slash = strchr(text, '/');
	*proto = IPPROTO_TCP;
	if (!slash)
		return 0;
	*slash = 0;
	if (strcasecmp(slash + 1, "udp") == 0)
		*proto = IPPROTO_UDP;
	else if (strcasecmp(slash + 1, "tcp") != 0)
		return -1;
	return 0;
}

static int parse_addr(char *text, char out[46])
{
	struct ip_addr a;
	size_t n = strlen(text);
	bool brackets = n > 1 && text[0] == '[' && text[n - 1] == ']';
	if (brackets) {
		text[n - 1] = 0;
		text++;
	}
	/* A link-local address means nothing without a link, and a zone is not an address. */
	if (ip_parse(text, &a) < 0 || (a.family == AF_INET6) != brackets)
		return -1;
	ip_format(&a, out, 46);
	return 0;
}

int net_publish_parse(const char *text, struct net_publish **list, size_t *n, struct cai_error *err)
{
	static const char usage[] =
	    "write it as [ADDR:]HOST:GUEST[/tcp|/udp], as in 8080:80 or [::1]:5353:53/udp";
	cleanup_free char *copy = strdup(text);
	struct net_publish p = {.addr = "127.0.0.1"};
	struct range host, guest;
	char *host_text = NULL, *addr_text = NULL, *guest_text = copy;
	if (!copy)
		return cai_fail(err, ENOMEM, "out of memory");
	if (parse_proto(copy, &p.proto) < 0)
		return cai_fail(err, EINVAL, "a published port is tcp or udp: '%s': %s", text, usage);
	char *colon = strrchr(copy, ':');
	if (colon) {
		*colon = 0;
		guest_text = colon + 1;
		host_text = copy;
		colon = strrchr(copy, ':');
		if (colon) {
			*colon = 0;
			host_text = colon + 1;
			addr_text = copy;
		}
	}
	if (addr_text && parse_addr(addr_text, p.addr) < 0)
		return cai_fail(err, EINVAL,
				"cannot publish on '%s', which is no IPv4 address or [IPv6 address]: %s",
				addr_text, usage);
	if (parse_range(guest_text, false, &guest) < 0 ||
	    parse_range(host_text ? host_text : "", true, &host) < 0)
		return cai_fail(err, EINVAL, "cannot publish '%s': a port is a number from 1 to 65535: %s",
				text, usage);
	if (host.first && host.last - host.first != guest.last - guest.first)
		return cai_fail(err, EINVAL, "cannot publish '%s': the two ranges of ports differ in length",
				text);
	size_t more = guest.last - guest.first + 1;
	if (*n + more > NET_MAX_PUBLISH)
		return cai_fail(err, E2BIG, "more than %d published ports", NET_MAX_PUBLISH);
	struct net_publish *grown = realloc(*list, (*n + more) * sizeof(*grown));
	if (!grown)
		return cai_fail(err, ENOMEM, "out of memory");
	*list = grown;
	for (size_t k = 0; k < more; k++) {
		p.guest_port = (uint16_t)(guest.first + k);
		p.host_port = (uint16_t)(host.first ? host.first + k : 0);
		grown[(*n)++] = p;
	}
	return 0;
}

void net_publish_format(const struct net_publish *p, char *text, size_t n)
{
	bool six = strchr(p->addr, ':') != NULL;
	snprintf(text, n, "%s%s%s:%u -> %u/%s", six ? "[" : "", p->addr, six ? "]" : "", p->host_port,
		 p->guest_port, p->proto == IPPROTO_UDP ? "udp" : "tcp");
}

int net_mac_parse(const char *text, uint8_t mac[6], struct cai_error *err)
{
	unsigned char v[6];
	int n = 0;
	static const uint8_t zero[6];
	if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
		   &n) != 6 ||
	    n != 17 || text[17])
		return cai_fail(err, EINVAL, "'%s' is no MAC address; one looks like 02:00:00:00:00:01",
				text);
	if ((v[0] & 1) || memcmp(v, zero, 6) == 0)
		return cai_fail(err, EINVAL,
				"the MAC address '%s' is not one machine's (its first byte must be even, and "
				"not all may be zero)",
				text);
	memcpy(mac, v, 6);
	return 0;
}

int net_dns_parse(const char *text, struct cai_error *err)
{
	struct ip_addr a;
	if (ip_parse(text, &a) < 0)
		return cai_fail(err, EINVAL, "the name server '%s' is no address", text);
	return 0;
}

int net_add_host_parse(const char *text, struct cai_error *err)
{
	struct ip_addr a;
	const char *sep = strpbrk(text, ":=");
	size_t n = sep ? (size_t)(sep - text) : 0;
	bool good = n > 0 && n <= 253;
	for (size_t k = 0; k < n; k++)
		good = good && (isalnum((unsigned char)text[k]) || strchr("-_.", text[k]));
	if (good && strcmp(sep + 1, "host-gateway") == 0)
		return cai_fail(err, EINVAL,
				"'%s': a sandbox cannot reach its host, so there is no host-gateway", text);
	if (!good || ip_parse(sep + 1, &a) < 0)
		return cai_fail(err, EINVAL, "'%s' names no host: write NAME:ADDRESS, as in db:192.0.2.7",
				text);
	return 0;
}

bool net_name_ok(const char *name)
{
	size_t n = strlen(name);
	if (n == 0 || n > NET_NAME_MAX || !isalnum((unsigned char)name[0]))
		return false;
	for (size_t k = 0; k < n; k++)
		if (!isalnum((unsigned char)name[k]) && !strchr("._-", name[k]))
			return false;
	return true;
}
