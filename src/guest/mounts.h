/* SPDX-License-Identifier: Apache-2.0 */
/* What SETUP mounts below the root: shared directories, tmpfs, binds. */
#ifndef GUEST_MOUNTS_H
#define GUEST_MOUNTS_H

#include "base/error.h"
#include "proto/agent.h"

/* Makes m's mounts in order, their targets and sources resolved inside root, a directory that nothing may leave. What was mounted
 * before a failure stays. */
int mounts_make(int root, const struct agent_setup *m, struct cai_error *err);

#endif
