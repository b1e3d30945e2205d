/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a microVM may use of the host, kept by a control group around its monitor: CPU time, and memory beyond the guest's own as a
 * second bound. On a host whose control groups cannot be used, the guest's own size is the only limit, which the log says.
 */
#ifndef SANDBOX_QUOTA_H
#define SANDBOX_QUOTA_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"
#include "sandbox/spec.h"

struct quota;

/* Makes the group. NULL with *err only when the spec asks for what this host cannot keep; a struct with nothing behind it else. */
struct quota *quota_new(const char *id, const struct sandbox_spec *spec, struct cai_error *err);
/* In the child, before it becomes the monitor. Best effort. */
void quota_enter(void *limits);
bool quota_oom(const struct quota *l); /* NULL is allowed here and below */
/* Adds "cpu_ns", "memory", "pids" of the group, or of the process where there is no group. */
void quota_stats(const struct quota *l, pid_t pid, json_t *into);
int quota_update(const struct quota *l, const struct sandbox_spec *spec, struct cai_error *err);
void quota_free(struct quota *l); /* kills what is in the group, removes it */
/* Removes the group that a dead runner left. */
void quota_heal(const char *id);

#endif
