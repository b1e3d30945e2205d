/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and ending caisson-net (helper/main.c): for published ports, for names, and to keep the router for a moment. */
#ifndef NET_HELPER_H
#define NET_HELPER_H

#include <sys/types.h>

#include "net/link.h"
#include "net/ports.h"
#include "net/resolv.h"
#include "net/router.h"

struct helper {
	pid_t pid;    /* 0: not running */
	int leash_fd; /* closing it ends the helper; -1 */
};

void helper_init(struct helper *h);
/* Serves the published ports. The sockets may be closed here afterwards. */
int helper_start_proxy(struct helper *h, const char *libexec, const struct router *r, const struct link *l, const struct ports *p,
		       struct cai_error *err);
/* Answers the sandbox's questions about names on the gateway's address. group 0: no members; servers NULL: no others. */
int helper_start_names(struct helper *h, const char *libexec, const struct router *r, const struct link *l, uint32_t group,
		       const struct resolv *servers, struct cai_error *err);
void helper_stop(struct helper *h);
/*
 * Leaves a process behind that closes the taps (which takes the kernel tens of milliseconds: nobody should wait for it) and, with a
 * namespace (ns_fd, else -1), keeps the router for ms. Its pid, or -1; not waited for.
 */
pid_t helper_start_linger(const char *libexec, int ns_fd, unsigned ms, const int *taps, unsigned n_taps, struct cai_error *err);

#endif
