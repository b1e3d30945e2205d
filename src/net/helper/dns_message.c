/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: of what the sandbox and the servers send, only the header and the first question are
 * read, by one function that knows how much there is. Names in questions are not compressed; a pointer there
 * is refused, so nothing is ever followed. All other sections are carried, not understood.
 */
#include "net/helper/dns_message.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* The question that starts at DNS_HEADER. */
static bool parse_question(const uint8_t *p, size_t n, struct dns_question *q)
{
	size_t at = DNS_HEADER, out = 0;
	for (;;) {
		if (at >= n)
			return false;
		unsigned len = p[at++];
		if (len == 0)
			break;
		if (len > 63 || len > n - at || out + len + 2 > DNS_NAME_MAX)
			return false;
		if (out)
			q->name[out++] = '.';
		for (unsigned k = 0; k < len; k++, at++) {
			/* A dot inside a label must not look like one between two. */
			bool plain = isalnum(p[at]) || p[at] == '-' || p[at] == '_';
			q->name[out++] = plain ? (char)tolower(p[at]) : '?';
		}
	}
	q->name[out] = 0;
	if (n - at < 4)
		return false;
	q->type = get16(p + at);
	q->class = get16(p + at + 2);
	q->end = at + 4;
	return true;
}

bool dns_parse_query(const uint8_t *p, size_t n, struct dns_question *q)
{
	/* QR 0, OPCODE 0, one question, no answers. */
	if (n < DNS_HEADER || (p[2] & 0xf8) != 0 || get16(p + 4) != 1 || get16(p + 6) != 0)
		return false;
	return parse_question(p, n, q);
}

bool dns_is_response(const uint8_t *p, size_t n, const uint8_t *question, size_t question_len)
{
	if (n < DNS_HEADER || !(p[2] & 0x80) || get16(p + 4) != 1 || n - DNS_HEADER < question_len)
		return false;
	for (size_t k = 0; k < question_len; k++)
		if (tolower(p[DNS_HEADER + k]) != tolower(question[k]))
			return false;
	return true;
}

size_t dns_respond(const uint8_t *p, const struct dns_question *q, unsigned rcode, const uint8_t *data,
		   size_t data_len, unsigned n_answers, uint32_t ttl, uint8_t *out, size_t size)
{
	size_t at = q->end, record = 12 + data_len;
	if (size < at || (size - at) / record < n_answers)
		return 0;
	memcpy(out, p, at);
	out[2] = (uint8_t)(0x84 | (p[2] & 0x01)); /* QR, AA, the query's RD */
	out[3] = (uint8_t)(0x80 | rcode);	  /* RA */
	put16(out + 6, (uint16_t)n_answers);
	put16(out + 8, 0);
	put16(out + 10, 0);
	for (unsigned k = 0; k < n_answers; k++, at += record) {
		put16(out + at, 0xc000 | DNS_HEADER); /* the question's name */
		put16(out + at + 2, q->type);
		put16(out + at + 4, DNS_IN);
		put16(out + at + 6, (uint16_t)(ttl >> 16));
		put16(out + at + 8, (uint16_t)ttl);
		put16(out + at + 10, (uint16_t)data_len);
		memcpy(out + at + 12, data + k * data_len, data_len);
	}
	return at;
}

size_t dns_put_name(const char *name, uint8_t *out, size_t size)
{
	size_t at = 0;
	while (*name) {
		size_t len = strcspn(name, ".");
		if (len == 0 || len > 63 || at + len + 2 > size || at + len + 2 > 255)
			return 0;
		out[at++] = (uint8_t)len;
		memcpy(out + at, name, len);
		at += len;
		name += len;
		if (*name == '.')
			name++;
	}
	if (at >= size)
		return 0;
	out[at++] = 0;
	return at;
}

static unsigned reverse4(const char *name, uint8_t addr[16])
{
	unsigned v[4];
	int n = 0;
	if (sscanf(name, "%3u.%3u.%3u.%3u.in-addr.arpa%n", &v[3], &v[2], &v[1], &v[0], &n) != 4 || n == 0 ||
	    name[n])
		return 0;
	for (unsigned k = 0; k < 4; k++) {
		if (v[k] > 255)
			return 0;
		addr[k] = (uint8_t)v[k];
	}
	return 4;
}

unsigned dns_reverse_address(const char *name, uint8_t addr[16])
{
	/* 32 hexadecimal digits, lowest first, each followed by a dot. */
	if (strlen(name) != 64 + strlen("ip6.arpa") || strcmp(name + 64, "ip6.arpa") != 0)
		return reverse4(name, addr);
	for (unsigned k = 0; k < 32; k++) {
		char c = name[2 * k];
		if (!isxdigit((unsigned char)c) || name[2 * k + 1] != '.')
			return 0;
		uint8_t digit = (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
		unsigned at = 15 - k / 2;
		addr[at] = (uint8_t)(k % 2 ? addr[at] | digit << 4 : digit);
	}
	return 16;
}
