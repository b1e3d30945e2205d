/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories that a microVM shares with the host (-v): one caisson-fs process each, which confines itself to its directory, and a
 * virtio-fs device in the monitor that passes the guest's requests on to it. The processes end with their sockets.
 */
#ifndef SANDBOX_SHARES_H
#define SANDBOX_SHARES_H

#include "base/loop.h"
#include "proto/agent.h"
#include "proto/control.h"
#include "sandbox/spec.h"

struct shares;

/* Starts the servers and adds the devices to *c, whose descriptors stay this module's. NULL with *err. */
struct shares *shares_start(struct loop *l, const struct sandbox_spec *spec, struct control_config *c, struct cai_error *err);
/* Adds the mounts, memory file systems included, to the agent's SETUP; strings stay this module's. */
void shares_setup(const struct shares *s, struct agent_setup *m);
void shares_stop(struct shares *s); /* waits for the servers, killing those that do not end; NULL is allowed */

#endif
