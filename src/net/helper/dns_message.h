/* SPDX-License-Identifier: Apache-2.0 */
/* As much of a DNS message as the resolver has to understand (RFC 1035 section 4.1): its header and its one
 * question. */
#ifndef NET_HELPER_DNS_MESSAGE_H
#define NET_HELPER_DNS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_HEADER   12u
#define DNS_NAME_MAX 254u /* as text, with its NUL */

enum { DNS_A = 1, DNS_PTR = 12, DNS_AAAA = 28, DNS_IN = 1 };
enum { DNS_NOERROR = 0, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_REFUSED = 5 };

struct dns_question {
	char name[DNS_NAME_MAX]; /* lower case, dots between labels, none at the end; "" is the root; other
				    bytes than a host name has are '?' */
	uint16_t type, class;
	size_t end; /* of the question section: where it stops in the message */
};

/* A standard query with exactly one question. False: it is none, and deserves no answer. */
bool dns_parse_query(const uint8_t *p, size_t n, struct dns_question *q);
/* A response whose question is the same bytes as `question` (a message's bytes from DNS_HEADER on, letters in
 * any case). */
bool dns_is_response(const uint8_t *p, size_t n, const uint8_t *question, size_t question_len);

/*
 * Builds the response to query p in out: its id and question, rcode, and n_answers records of the question's
 * type with data of data_len bytes each (addresses), living ttl seconds. Returns its length; 0 when it does
 * not fit.
 */
size_t dns_respond(const uint8_t *p, const struct dns_question *q, unsigned rcode, const uint8_t *data,
		   size_t data_len, unsigned n_answers, uint32_t ttl, uint8_t *out, size_t size);
/* Text to the wire's form, for PTR. Returns its length or 0. */
size_t dns_put_name(const char *name, uint8_t *out, size_t size);
/* The address that a name below in-addr.arpa or ip6.arpa stands for: 4, 16, or 0 bytes. */
unsigned dns_reverse_address(const char *name, uint8_t addr[16]);

#endif
