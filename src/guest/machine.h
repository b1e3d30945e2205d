/* SPDX-License-Identifier: Apache-2.0 */
/* The machine as its PID 1 sees it: mounts, identity, power. Only for use in a guest: every function changes the whole system. */
#ifndef GUEST_MACHINE_H
#define GUEST_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "guest/etc.h"
#include "guest/netif.h"
#include "guest/rootfs.h"
#include "proto/agent.h"

/* What SETUP, and what prepares for it, leave for later; ctx of the operations below. */
struct machine {
	struct rootfs root;
	struct etc etc;
	struct netif net;
	bool early_failed;
	struct cai_error early; /* then: why */
};
#define MACHINE_INIT {.root = ROOTFS_INIT, .etc = ETC_INIT}

/* What no SETUP changes: the kernel's own file systems, loopback. A failure shows when SETUP comes. */
void machine_early(struct machine *m);
/* Is word one of the kernel command line's words? */
bool machine_cmdline_has(const char *word);

/* SETUP: an operation of struct agent_ops; ctx is a struct machine. Mounts the root file system with all that a program expects in it and makes
 * it the root directory; sets clock, entropy, host name. */
int machine_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err);
/* An operation of struct agent_ops: makes a copy of a machine that was set up another machine; mounts nothing. */
int machine_renew(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err);
/* An operation of struct agent_ops: the mounts of "prepare". */
int machine_prepare(void *ctx, char *const *argv, uint32_t *code, struct cai_error *err);
/* Likewise: its warm-up has succeeded. Enters the root. */
void machine_prepared(void *ctx);
/* POWEROFF: an operation of struct agent_ops. Ends all processes, writes back, powers off. Does not return. */
void machine_poweroff(void *ctx);
/* An operation of struct agent_ops. */
uint64_t machine_oom_kills(void *ctx);

/* Ends every other process of this PID 1's namespace: SIGTERM, SIGKILL to what is left half a second later; and reaps them. */
void machine_end_processes(void);

/* Vsock: a listening socket on AGENT_PORT, or -1; and the announcement to the monitor. */
int machine_listen(struct cai_error *err);
int machine_announce(struct cai_error *err);

#endif
