/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Netlink messages, built into one buffer and sent with one system call: a whole network is a handful of
 * batches. Written by hand because `caisson` is a static program and Debian has no static libmnl.
 *
 * Building never fails at once: a full batch (or a lack of memory) is remembered and reported by nl_transact.
 */
#ifndef NET_NETLINK_H
#define NET_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct nl_batch {
	struct buf b;
	size_t msg;	/* where the current message starts */
	size_t nest[8]; /* where the open nested attributes start */
	unsigned depth;
	uint32_t first_seq, seq; /* of the batch's first message, of the next one */
	bool bad;		 /* too deep, or an attribute too long */
};

/* A socket of the calling thread's network namespace; protocol: NETLINK_ROUTE or NETLINK_NETFILTER. -1 on
 * failure. Close-on-exec. */
int nl_open(int protocol, struct cai_error *err);

#define NL_BATCH                                                                                             \
	{                                                                                                    \
		.first_seq = 1, .seq = 1                                                                     \
	}
void nl_batch_free(struct nl_batch *b);
#define cleanup_batch __attribute__((cleanup(nl_batch_free)))

/* A message: NLM_F_REQUEST is added to flags. hdr: the family's header (ifinfomsg, nfgenmsg, ...). */
void nl_begin(struct nl_batch *b, uint16_t type, uint16_t flags, const void *hdr, size_t n);
void nl_end(struct nl_batch *b);
void nl_attr(struct nl_batch *b, uint16_t type, const void *p, size_t n);
void nl_attr_u8(struct nl_batch *b, uint16_t type, uint8_t v);
void nl_attr_u32(struct nl_batch *b, uint16_t type, uint32_t v);
void nl_attr_be32(struct nl_batch *b, uint16_t type, uint32_t v); /* nf_tables' byte order */
void nl_attr_be64(struct nl_batch *b, uint16_t type, uint64_t v);
void nl_attr_str(struct nl_batch *b, uint16_t type, const char *s); /* with its NUL */
void nl_nest(struct nl_batch *b, uint16_t type);
void nl_unnest(struct nl_batch *b);
/* Bytes inside the current attribute (a nested header such as ifinfomsg in VETH_INFO_PEER). */
void nl_raw(struct nl_batch *b, const void *p, size_t n);

/*
 * Sends the batch and waits for the answers of all messages that asked for one (NLM_F_ACK). The kernel goes
 * on after a message that fails; the first failure is returned: its errno in *err (with the kernel's own
 * words where it has any) and, when failed is not NULL, the index of its message. 0 or -1. The batch is
 * emptied.
 */
int nl_transact(int fd, struct nl_batch *b, unsigned *failed, struct cai_error *err, const char *what);

/* Sends one message (a dump, or a request with one answer) and calls fn for each answer until the end. fn
 * returns 0 to go on. */
struct nlmsghdr;
int nl_dump(int fd, struct nl_batch *b, int (*fn)(const struct nlmsghdr *h, void *ctx), void *ctx,
	    struct cai_error *err, const char *what);

/* The attributes of a message by type: table[0..max] of NULL or the attribute; later ones win; sizes are
 * checked. */
struct nlattr;
void nl_parse(const void *p, size_t n, const struct nlattr **table, unsigned max);
static inline const void *nl_data(const struct nlattr *a)
{
	return (const uint8_t *)a + 4;
}
size_t nl_len(const struct nlattr *a);
uint32_t nl_get_u32(const struct nlattr *a); /* 0 when absent or short */
/* Copies a string attribute; "" when absent. */
void nl_get_str(const struct nlattr *a, char *out, size_t n);

#endif
