/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent as PID 1 of a container (`caisson-init --container`). The engine has made namespaces, mounts, limits, capabilities and
 * filter before it executed the agent, and has left it one descriptor: 3, a listening Unix stream socket. Whatever the agent starts
 * inherits exactly that confinement; nothing here lifts or adds to it.
 */
#ifndef GUEST_CONTAINER_H
#define GUEST_CONTAINER_H

#include <stdint.h>

#include "base/error.h"
#include "proto/agent.h"

#define CONTAINER_LISTEN_FD 3

/* Checks the inherited socket and closes every descriptor above it. The socket, or -1. */
int container_listener(struct cai_error *err);

/* Operations of struct agent_ops; ctx is not used. SETUP changes nothing. POWEROFF ends all processes and then the agent itself, and with
 * it the PID namespace. */
int container_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err);
void container_poweroff(void *ctx);
uint64_t container_oom_kills(void *ctx);

#endif
