/* SPDX-License-Identifier: Apache-2.0 */
/* Everything a sandbox needs, open and checked, before anything is started. */
#ifndef SANDBOX_PLAN_H
#define SANDBOX_PLAN_H

#include "sandbox/accel.h"
#include "sandbox/rootfs.h"
#include "sandbox/spec.h"
#include "sandbox/store.h"

struct sandbox_plan {
	const struct sandbox_spec *spec; /* borrowed */
	struct store store;
	struct accel_pick accel; /* microVM */
	enum boundary boundary;
	struct rootfs root;
	int kernel, initrd, kvm; /* microVM: descriptors; kvm -1 under the software CPU */
	int agent;		 /* container: caisson-init, open for reading */
	char *monitor;		 /* path of caisson-vmm */
	char *cmdline;
	int restore_dir;      /* a checkpoint to go on from, open; owned; -1: none */
	uint32_t restore_pid; /* its main process, as the guest counts */
};

/* Fails with one sentence, having started nothing. May take long (an image is made of a directory, the host
 * is probed) and may be interrupted by a signal that kills. On failure *p needs no freeing. */
int sandbox_plan_make(struct sandbox_plan *p, const struct sandbox_spec *spec, struct cai_error *err);
void sandbox_plan_free(struct sandbox_plan *p);

#endif
