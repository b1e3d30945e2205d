/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and ending caisson-net (helper/main.c): for published ports, for names, and to keep the router for
 * a moment. */
#ifndef NET_HELPER_H
#define NET_HELPER_H

#include <sys/types.h>

#include "net/link.h"
#include "net/ports.h"
#include "net/resolv.h"
#include "net/router.h"

/* A command line, and descriptors that the program inherits under the numbers they have. */
struct words {
	char **argv;
	size_t n;
	int *keep;
	size_t n_keep;
	bool failed;
};
void words_free(struct words *w);
#define cleanup_words __attribute__((cleanup(words_free)))
void words_add(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void words_keep(struct words *w, int fd);
/* out: its standard output, -1: /dev/null; so is its input, and detached its standard error too. A session of
 * its own, an empty environment. */
pid_t words_start(const struct words *w, int out, bool detached, struct cai_error *err);

struct helper {
	pid_t pid;    /* 0: not running */
	int leash_fd; /* closing it ends the helper; -1 */
};

void helper_init(struct helper *h);
/* Serves the published ports. The sockets may be closed here afterwards. */
int helper_start_proxy(struct helper *h, const char *libexec, const struct router *r, const struct link *l,
		       const struct ports *p, struct cai_error *err);
/* Answers the sandbox's questions about names on the gateway's address. group 0: no members; servers NULL: no
 * others. */
int helper_start_names(struct helper *h, const char *libexec, const struct router *r, const struct link *l,
		       uint32_t group, const struct resolv *servers, struct cai_error *err);
void helper_stop(struct helper *h);
/*
 * Leaves a process behind that closes the taps (which takes the kernel tens of milliseconds: nobody should
 * wait for it) and, with a namespace (ns_fd, else -1), keeps the router for ms. Its pid, or -1; not waited
 * for.
 */
pid_t helper_start_linger(const char *libexec, int ns_fd, unsigned ms, const int *taps, unsigned n_taps,
			  struct cai_error *err);

#endif
