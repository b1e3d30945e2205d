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

/* SETUP: an operation of struct agent_ops; ctx is not used. Mounts the root file system with all that a program expects in it and makes
 * it the root directory; sets clock, entropy, host name, loopback. */
int machine_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err);
/* POWEROFF: an operation of struct agent_ops. Ends all processes, writes back, powers off. Does not return. */
void machine_poweroff(void *ctx);

/* Vsock: a listening socket on AGENT_PORT, or -1; and the announcement to the monitor. */
int machine_listen(struct cai_error *err);
int machine_announce(struct cai_error *err);

#endif
