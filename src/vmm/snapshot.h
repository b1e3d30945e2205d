/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a snapshot of a machine (docs/snapshots.md). All on the loop's thread, with the machine paused.
 */
#ifndef VMM_SNAPSHOT_H
#define VMM_SNAPSHOT_H

#include "base/error.h"
#include "proto/control.h"
#include "proto/snapshot.h"
#include "vmm/machine.h"

/*
 * Writes state, memory and, if asked for, decoded code to the request's descriptors, which stay the caller's. After success the machine keeps a log
 * of what is written from here on, so that the next snapshot can be an incremental one on this. After a failure what the files
 * hold means nothing, and the machine is as it was.
 */
int machine_snapshot(struct machine *m, const struct control_snapshot *q, struct cai_error *err);

/* snapshot_memory.c: writes the memory that a new snapshot with this id needs, and makes its index. parent: NULL for a full one. */
int snapshot_write_memory(struct machine *m, const struct snapshot_memory *parent, const uint8_t id[SNAPSHOT_ID_BYTES], int fd,
			  struct snapshot_memory *index, struct cai_error *err);

/* Writes all of n bytes at off. */
int snapshot_write_at(int fd, const void *p, size_t n, uint64_t off, const char *what, struct cai_error *err);

#endif
