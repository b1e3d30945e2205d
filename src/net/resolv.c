/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the host's servers are given to the sandbox as they are when it can reach them by
 * itself. It cannot when they are on the host (127.0.0.53, a dnsmasq on a bridge) or behind an address that
 * is closed to sandboxes (the clouds' 169.254.169.254); then the helper in the router asks for it.
 */
#include "net/resolv.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/file.h"

#define RESOLV_CONF_MAX (64u << 10)

/* Adds a word to a list of words, if there is room for it and it is harmless. */
static void add_word(char *list, size_t n, const char *word)
{
	size_t len = strlen(list);
	for (const char *p = word; *p; p++)
		if (*p <= ' ' || *p > '~')
			return;
	if (*word && len + strlen(word) + 2 <= n)
		snprintf(list + len, n - len, "%s%s", len ? " " : "", word);
}

static void add_server(struct resolv *r, const char *word)
{
	struct ip_addr a;
	if (r->n_servers < RESOLV_MAX && ip_parse(word, &a) == 0)
		r->server[r->n_servers++] = a;
}

void resolv_parse(const char *text, struct resolv *r)
{
	cleanup_free char *copy = strdup(text);
	char *at = copy, *line, *word;
	memset(r, 0, sizeof(*r));
	while (at && (line = strsep(&at, "\n"))) {
		char *rest = line;
		line[strcspn(line, "#;\r")] = 0;
		while ((word = strsep(&rest, " \t")) && !*word)
			;
		if (!word)
			continue;
		bool server = strcmp(word, "nameserver") == 0, options = strcmp(word, "options") == 0;
		bool search = strcmp(word, "search") == 0 || strcmp(word, "domain") == 0;
		if (search)
			r->search[0] = 0; /* the last one counts */
		while ((word = strsep(&rest, " \t"))) {
			if (!*word)
				continue;
			if (server)
				add_server(r, word);
			else if (search)
				add_word(r->search, sizeof(r->search), word);
			else if (options)
				add_word(r->options, sizeof(r->options), word);
		}
	}
}

static bool in4(const uint8_t *b, uint8_t first, uint8_t second, bool both)
{
	return b[0] == first && (!both || b[1] == second);
}

bool resolv_unreachable(const struct ip_addr *a)
{
	static const uint8_t loopback6[16] = {[15] = 1};
	if (a->family == AF_INET) {
		if (in4(a->b, 127, 0, false) || in4(a->b, 169, 254, true) || a->b[0] == 0)
			return true;
		struct sockaddr_in sa = {.sin_family = AF_INET};
		memcpy(&sa.sin_addr, a->b, 4);
		cleanup_close int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		/* Only an address of this host can be bound. */
		return s >= 0 && bind(s, (struct sockaddr *)&sa, sizeof(sa)) == 0;
	}
	if (memcmp(a->b, loopback6, 16) == 0 || (a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80))
		return true;
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
	memcpy(&sa.sin6_addr, a->b, 16);
	cleanup_close int s = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return s >= 0 && bind(s, (struct sockaddr *)&sa, sizeof(sa)) == 0;
}

void resolv_collect(const struct net_request *q, struct resolv *r)
{
	cleanup_free char *text = NULL;
	size_t n;
	if (file_read_all("/etc/resolv.conf", RESOLV_CONF_MAX, &text, &n, NULL) < 0)
		text = NULL;
	resolv_parse(text ? text : "", r);
	if (q->dns && q->dns[0]) {
		r->n_servers = 0;
		for (size_t k = 0; q->dns[k]; k++)
			add_server(r, q->dns[k]);
	}
	if (q->dns_search && q->dns_search[0]) {
		r->search[0] = 0;
		for (size_t k = 0; q->dns_search[k]; k++)
			if (strcmp(q->dns_search[k], ".") != 0) /* docker's way to say: none */
				add_word(r->search, sizeof(r->search), q->dns_search[k]);
	}
	if (q->dns_option && q->dns_option[0]) {
		r->options[0] = 0;
		for (size_t k = 0; q->dns_option[k]; k++)
			add_word(r->options, sizeof(r->options), q->dns_option[k]);
	}
	r->direct = true;
	for (size_t k = 0; k < r->n_servers; k++)
		r->direct = r->direct && !resolv_unreachable(&r->server[k]);
}

char *resolv_text(const struct resolv *r, const char *server)
{
	char *text = NULL, a[46];
	size_t n;
	FILE *f = open_memstream(&text, &n);
	if (!f)
		return NULL;
	if (server) {
		fprintf(f, "nameserver %s\n", server);
	} else {
		for (size_t k = 0; k < r->n_servers; k++) {
			ip_format(&r->server[k], a, sizeof(a));
			fprintf(f, "nameserver %s\n", a);
		}
	}
	if (r->search[0])
		fprintf(f, "search %s\n", r->search);
	if (r->options[0])
		fprintf(f, "options %s\n", r->options);
	return fclose(f) == 0 ? text : NULL;
}

static void hosts_line(FILE *f, const struct ip_addr *a, const struct net_request *q)
{
	char text[46];
	if (!a || a->family == 0 || (!q->hostname && !q->name))
		return;
	ip_format(a, text, sizeof(text));
	fputs(text, f);
	if (q->hostname)
		fprintf(f, "\t%s", q->hostname);
	if (q->name && (!q->hostname || strcmp(q->name, q->hostname) != 0))
		fprintf(f, "%c%s", q->hostname ? ' ' : '\t', q->name);
	fputc('\n', f);
}

char *hosts_text(const struct net_request *q, const struct ip_addr *addr4, const struct ip_addr *addr6)
{
	static const struct ip_addr loopback = {.family = AF_INET, .b = {127, 0, 1, 1}};
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);
	if (!f)
		return NULL;
	fputs("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost "
	      "ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
	      f);
	for (size_t k = 0; q->add_host && q->add_host[k]; k++) {
		const char *sep = strpbrk(q->add_host[k], ":=");
		if (sep)
			fprintf(f, "%s\t%.*s\n", sep + 1, (int)(sep - q->add_host[k]), q->add_host[k]);
	}
	hosts_line(f, addr4 ? addr4 : &loopback, q);
	hosts_line(f, addr6, q);
	return fclose(f) == 0 ? text : NULL;
}
