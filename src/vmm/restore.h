/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a machine from a snapshot (docs/snapshots.md) instead of from a kernel. machine_create() calls these in order; each returns 0, or -1
 * with a sentence that says which part of the snapshot is wrong or does not fit, and why.
 */
#ifndef VMM_RESTORE_H
#define VMM_RESTORE_H

#include "base/error.h"
#include "vmm/machine.h"

/* Reads the state file, checks that this host and configuration can take it, and fills in what the configuration leaves to it. */
int restore_open(struct machine *m, struct cai_error *err);
/* Maps guest memory. */
int restore_memory(struct machine *m, struct cai_error *err);
/* With VM, platform and devices made: loads all state. The machine then stands where the snapshot's stood, but with a new generation id. */
int restore_load(struct machine *m, struct cai_error *err);
/* Before vCPUs first run, on the loop's thread with devices going: what was on its way to a device is looked for. */
void restore_resume(struct machine *m);

#endif
