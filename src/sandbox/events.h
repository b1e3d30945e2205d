/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happened to sandboxes: one JSON object a line in ROOT/events, appended with one write each. Kept to 2 x 1 MiB: a full file becomes
 * events.1 in place of the one before. Best effort: an event that cannot be written is lost, never a reason to fail.
 */
#ifndef SANDBOX_EVENTS_H
#define SANDBOX_EVENTS_H

#include "sandbox/spec.h"
#include "sandbox/store.h"

/* what: "create", "start", "die", "stop", "kill", "pause", "unpause", "rename", "exec", "checkpoint", "oom", "destroy", ... more: further
 * members (taken over), or NULL. */
void events_add(struct store *s, const char *what, const struct sandbox_dir *d, const struct sandbox_spec *spec, json_t *more);

#endif
