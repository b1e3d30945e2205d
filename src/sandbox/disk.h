/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writable layer of a microVM: a sparse file upper.ext4 in the sandbox's directory. It is cloned from a file system of its size
 * that was formatted once (ROOT/disks), by reflink where the host's file system has it, else by copying the few blocks that are not
 * holes; so that no start of a sandbox pays for mkfs.
 */
#ifndef SANDBOX_DISK_H
#define SANDBOX_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox/store.h"

/* Opens the sandbox's disk for reading and writing, making it when there is none yet. bytes: its size then; from: what it is cloned from then, of
 * that size, or -1 for a new file system. -1 with *err. */
int disk_open(struct store *s, struct sandbox_dir *d, uint64_t bytes, int from, struct cai_error *err);
bool disk_exists(const struct sandbox_dir *d);
/* Copies upper.ext4 from one directory into another, by reflink where that works. */
int disk_copy(int from_dir, int to_dir, struct cai_error *err);
/* Allocated bytes of the sandbox's writable layer, either engine's. */
uint64_t disk_used(const struct sandbox_dir *d);

#endif
