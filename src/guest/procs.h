/* SPDX-License-Identifier: Apache-2.0 */
/* What goes on in the sandbox, read from /proc, as JSON: see proto/agent.h for the form of each. */
#ifndef GUEST_PROCS_H
#define GUEST_PROCS_H

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

/* The number behind "name " at the start of a line of the file, or 0. */
uint64_t procs_counter(const char *path, const char *name);

/* "ps" */
int procs_list(struct buf *json, struct cai_error *err);
/* "stats" */
int procs_stats(struct buf *json, struct cai_error *err);

#endif
