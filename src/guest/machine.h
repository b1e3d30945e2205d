/* SPDX-License-Identifier: Apache-2.0 */
/* The machine as its PID 1 sees it: mounts, identity, power. Only for use in a guest: every function changes the whole system. */
#ifndef GUEST_MACHINE_H
#define GUEST_MACHINE_H

#include <stdint.h>

#include "base/error.h"
#include "proto/agent.h"

/* What must be there before the agent listens: /proc alone. Failures show later, where the thing is needed. */
void machine_early(void);
/* Is word one of the kernel command line's words? */
bool machine_cmdline_has(const char *word);

/* What SETUP leaves for the end; ctx of the operations below. */
struct machine {
	int upper_fd; /* the directory that the writable layer's disk is mounted on, -1 without: it cannot be reached by name any more */
};
#define MACHINE_INIT {.upper_fd = -1}

/* SETUP: an operation of struct agent_ops; ctx is a struct machine. Mounts the root file system with all that a program expects in it and makes
 * it the root directory; sets clock, entropy, host name, loopback. */
int machine_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err);
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
