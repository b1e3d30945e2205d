/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands between a sandbox and passt where there is no root for a packet filter: every frame of the
 * sandbox is looked at, and only those go on that come from its own address and go to somebody else than the
 * host.
 */
#ifndef NET_HELPER_SIEVE_H
#define NET_HELPER_SIEVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "net/rtnl.h"

#define SIEVE_FRAME_MAX 65550u /* an Ethernet header and the longest IPv4 packet */
#define SIEVE_ADDRS	256u

struct sieve {
	struct ip_addr addr4, addr6; /* the sandbox's; family 0: none */
	struct ip_addr dns; /* where passt answers for the host's servers, port 53 only; family 0: nowhere */
	struct ip_addr host[SIEVE_ADDRS]; /* all addresses of the host */
	size_t n_host;
};

/* Whether a frame of the sandbox may go on. Any bytes are allowed. */
bool sieve_pass(const struct sieve *s, const uint8_t *frame, size_t n);
/* An address that no sandbox shall reach, whoever's it is: loopback, link-local, metadata services,
 * multicast, IPv4 in IPv6's clothes. */
bool sieve_forbidden(const struct ip_addr *a);

struct relay;
struct relay_options {
	struct sieve sieve;
	int sandbox_fd; /* a stream of frames with their length in front, or a tap */
	bool tap;
	int passt_fd;	/* the stream to passt */
	int notice_fd;	/* NETLINK_ROUTE, subscribed to changes of addresses; -1: none */
	int netlink_fd; /* NETLINK_ROUTE, to list them; -1: none */
};
/* Carries frames until one side ends, then stops the loop. Descriptors are the caller's and become
 * non-blocking. */
struct relay *relay_new(struct loop *l, const struct relay_options *o, struct cai_error *err);
void relay_free(struct relay *r);

#endif
