/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A batch is a run of messages in one buffer, each with a sequence number of its own, so that an answer names
 * its message. rtnetlink handles the messages of one datagram in order and goes on after a failure; nf_tables
 * takes everything between BATCH_BEGIN and BATCH_END as one transaction. Both answer messages flagged
 * NLM_F_ACK, in order, so the end is known by counting, without a timer.
 *
 * The answers come from the kernel and are trusted to be messages, yet their lengths are checked like
 * anybody's.
 */
#include "net/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define ANSWER_SIZE (64u << 10)

int nl_open(int protocol, struct cai_error *err)
{
	int on = 1;
	cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open a netlink socket");
	/* Both only shape the answers; kernels without them answer with more or less text. */
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	/* An answer that never comes is a defect somewhere; it shall not hang a sandbox's start. */
	struct timeval limit = {.tv_sec = 20};
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return steal_fd(&fd);
}

void nl_batch_free(struct nl_batch *b)
{
	buf_free(&b->b);
}

static void pad(struct nl_batch *b)
{
	static const uint8_t zero[4];
	size_t over = b->b.len & 3;
	if (over)
		buf_put_bytes(&b->b, zero, 4 - over);
}

void nl_raw(struct nl_batch *b, const void *p, size_t n)
{
	buf_put_bytes(&b->b, p, n);
	pad(b);
}

void nl_begin(struct nl_batch *b, uint16_t type, uint16_t flags, const void *hdr, size_t n)
{
	struct nlmsghdr h = {.nlmsg_type = type, .nlmsg_flags = flags | NLM_F_REQUEST, .nlmsg_seq = b->seq++};
	b->msg = b->b.len;
	b->depth = 0;
	buf_put_bytes(&b->b, &h, sizeof(h));
	nl_raw(b, hdr, n);
}

void nl_end(struct nl_batch *b)
{
	uint32_t len = (uint32_t)(b->b.len - b->msg);
	if (b->depth != 0)
		b->bad = true;
	if (!b->b.failed)
		memcpy(b->b.p + b->msg + offsetof(struct nlmsghdr, nlmsg_len), &len, sizeof(len));
}

void nl_attr(struct nl_batch *b, uint16_t type, const void *p, size_t n)
{
	struct nlattr a = {.nla_len = (uint16_t)(n + sizeof(a)), .nla_type = type};
	if (n + sizeof(a) > UINT16_MAX) {
		b->bad = true;
		return;
	}
	buf_put_bytes(&b->b, &a, sizeof(a));
	if (n)
		nl_raw(b, p, n);
}

void nl_attr_u8(struct nl_batch *b, uint16_t type, uint8_t v)
{
	nl_attr(b, type, &v, sizeof(v));
}

void nl_attr_u32(struct nl_batch *b, uint16_t type, uint32_t v)
{
	nl_attr(b, type, &v, sizeof(v));
}

void nl_attr_be32(struct nl_batch *b, uint16_t type, uint32_t v)
{
	v = __builtin_bswap32(v);
	nl_attr(b, type, &v, sizeof(v));
}

void nl_attr_be64(struct nl_batch *b, uint16_t type, uint64_t v)
{
	v = __builtin_bswap64(v);
	nl_attr(b, type, &v, sizeof(v));
}

void nl_attr_str(struct nl_batch *b, uint16_t type, const char *s)
{
	nl_attr(b, type, s, strlen(s) + 1);
}

void nl_nest(struct nl_batch *b, uint16_t type)
{
	if (b->depth == ARRAY_LEN(b->nest)) {
		b->bad = true;
		return;
	}
	b->nest[b->depth++] = b->b.len;
	nl_attr(b, type | NLA_F_NESTED, NULL, 0);
}

void nl_unnest(struct nl_batch *b)
{
	if (b->depth == 0) {
		b->bad = true;
		return;
	}
	size_t at = b->nest[--b->depth], n = b->b.len - at;
	uint16_t len = (uint16_t)n;
	if (n > UINT16_MAX)
		b->bad = true;
	if (!b->b.failed)
		memcpy(b->b.p + at + offsetof(struct nlattr, nla_len), &len, sizeof(len));
}

static unsigned acks_wanted(const struct nl_batch *b)
{
	unsigned n = 0;
	for (size_t at = 0; at + sizeof(struct nlmsghdr) <= b->b.len;) {
		struct nlmsghdr h;
		memcpy(&h, b->b.p + at, sizeof(h));
		n += h.nlmsg_flags & NLM_F_ACK ? 1 : 0;
		at += NLMSG_ALIGN(h.nlmsg_len);
	}
	return n;
}

static int send_batch(int fd, struct nl_batch *b, struct cai_error *err, const char *what)
{
	if (b->b.failed || b->bad)
		return cai_fail(err, ENOMEM, "%s: no memory for the request", what);
	int want = (int)b->b.len;
	/* A large transaction needs a large socket buffer; a small one never gets here. */
	if (want > 100 << 10)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &want, sizeof(want));
	ssize_t n;
	do
		n = send(fd, b->b.p, b->b.len, 0); /* without an address: to the kernel */
	while (n < 0 && errno == EINTR);
	return n < 0 ? cai_fail_errno(err, errno, "%s", what) : 0;
}

/* The kernel's own sentence about an error, when it gave one. */
static void error_text(const struct nlmsghdr *h, char *out, size_t n)
{
	size_t at = NLMSG_HDRLEN + sizeof(struct nlmsgerr);
	out[0] = 0;
	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || h->nlmsg_len < at)
		return;
	const struct nlattr *t[NLMSGERR_ATTR_MSG + 1];
	if (!(h->nlmsg_flags & NLM_F_CAPPED)) {
		const struct nlmsgerr *e = (const void *)((const uint8_t *)h + NLMSG_HDRLEN);
		if (e->msg.nlmsg_len > sizeof(e->msg))
			at += NLMSG_ALIGN(e->msg.nlmsg_len) - sizeof(e->msg);
		if (at > h->nlmsg_len)
			return;
	}
	nl_parse((const uint8_t *)h + at, h->nlmsg_len - at, t, NLMSGERR_ATTR_MSG);
	nl_get_str(t[NLMSGERR_ATTR_MSG], out, n);
}

static ssize_t receive(int fd, void *p, size_t n)
{
	ssize_t got;
	do
		got = recv(fd, p, n, 0);
	while (got < 0 && errno == EINTR);
	return got;
}

int nl_transact(int fd, struct nl_batch *b, unsigned *failed, struct cai_error *err, const char *what)
{
	unsigned acks = acks_wanted(b);
	uint32_t first = b->first_seq, last = b->seq;
	int result = send_batch(fd, b, err, what), worst = 0;
	cleanup_free uint8_t *answer = NULL;

	b->b.len = 0;
	b->first_seq = b->seq;
	if (result < 0)
		return -1;
	answer = malloc(ANSWER_SIZE);
	if (!answer)
		return cai_fail(err, ENOMEM, "%s: out of memory", what);
	while (acks > 0) {
		ssize_t n = receive(fd, answer, ANSWER_SIZE);
		if (n < 0)
			return cai_fail_errno(err, errno, "%s: no answer from the kernel", what);
		size_t left = (size_t)n;
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			const struct nlmsgerr *e = NLMSG_DATA(h);
			/* Answers to an earlier batch that was given up on are not this one's. */
			if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_len < NLMSG_LENGTH(sizeof(*e)) ||
			    (int32_t)(h->nlmsg_seq - first) < 0 || (int32_t)(h->nlmsg_seq - last) >= 0)
				continue;
			if (acks > 0)
				acks--;
			if (e->error == 0 || worst)
				continue;
			char text[200];
			worst = -e->error;
			error_text(h, text, sizeof(text));
			if (failed)
				*failed = h->nlmsg_seq - first;
			if (text[0])
				cai_fail(err, worst, "%s: %s (%s)", what, strerror(worst), text);
			else
				cai_fail_errno(err, worst, "%s", what);
		}
	}
	return worst ? -1 : 0;
}

int nl_dump(int fd, struct nl_batch *b, int (*fn)(const struct nlmsghdr *h, void *ctx), void *ctx,
	    struct cai_error *err, const char *what)
{
	uint32_t seq = b->first_seq;
	bool multi = false, done = false;
	int result = send_batch(fd, b, err, what), stop = 0;
	cleanup_free uint8_t *answer = NULL;

	b->b.len = 0;
	b->first_seq = b->seq;
	if (result < 0)
		return -1;
	answer = malloc(ANSWER_SIZE);
	if (!answer)
		return cai_fail(err, ENOMEM, "%s: out of memory", what);
	while (!done) {
		ssize_t n = receive(fd, answer, ANSWER_SIZE);
		if (n < 0)
			return cai_fail_errno(err, errno, "%s: no answer from the kernel", what);
		size_t left = (size_t)n;
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_seq != seq)
				continue;
			multi = multi || (h->nlmsg_flags & NLM_F_MULTI);
			if (h->nlmsg_type == NLMSG_DONE) {
				done = true;
			} else if (h->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *e = NLMSG_DATA(h);
				if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(*e)) && e->error)
					return cai_fail_errno(err, -e->error, "%s", what);
				done = true;
			} else {
				/* The rest is read even when nobody wants it: the socket is used again. */
				if (!stop)
					stop = fn(h, ctx);
				done = done || !multi;
			}
		}
	}
	return 0;
}

void nl_parse(const void *p, size_t n, const struct nlattr **table, unsigned max)
{
	const uint8_t *at = p;
	for (unsigned k = 0; k <= max; k++)
		table[k] = NULL;
	while (n >= sizeof(struct nlattr)) {
		const struct nlattr *a = (const void *)at;
		unsigned type = a->nla_type & NLA_TYPE_MASK;
		if (a->nla_len < sizeof(*a) || a->nla_len > n)
			return;
		if (type <= max)
			table[type] = a;
		size_t step = NLA_ALIGN(a->nla_len);
		if (step >= n)
			return;
		at += step;
		n -= step;
	}
}

size_t nl_len(const struct nlattr *a)
{
	return a ? a->nla_len - sizeof(*a) : 0;
}

uint32_t nl_get_u32(const struct nlattr *a)
{
	uint32_t v = 0;
	if (nl_len(a) >= sizeof(v))
		memcpy(&v, nl_data(a), sizeof(v));
	return v;
}

void nl_get_str(const struct nlattr *a, char *out, size_t n)
{
	size_t len = nl_len(a);
	out[0] = 0;
	if (len == 0)
		return;
	len = strnlen(nl_data(a), len);
	if (len >= n)
		len = n - 1;
	memcpy(out, nl_data(a), len);
	out[len] = 0;
}
