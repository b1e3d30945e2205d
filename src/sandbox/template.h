/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: saved machines, ready to run, that new microVMs are restored from instead of booting (ROOT/templates). Two levels:
 *
 *   base   a booted machine of one shape (kernel, agent, CPUs, memory, devices), its disk slots empty
 *   image  made from the base: the image's disk attached, its file system mounted, what a program's start needs in memory
 *   disk   the same, and the disk of a new writable layer mounted: the template has that disk as it then was, and what is restored from it needs a
 *          copy of it. Only for sandboxes that are started for the first time
 *
 * A directory each, named GENERATION-KEY: the generation changes with the monitor, the kernel, the agent and the host's boot, and what
 * is of another generation is removed when a template is made; the key is the shape, and of an image its identity. It holds the snapshot's
 * files (docs/snapshots.md) and template.json, and appears by rename, whole.
 */
#ifndef SANDBOX_TEMPLATE_H
#define SANDBOX_TEMPLATE_H

#include "proto/control.h"
#include "sandbox/plan.h"

enum template_level {
	TEMPLATE_NONE,
	TEMPLATE_BASE,
	TEMPLATE_IMAGE,
	TEMPLATE_DISK,
	TEMPLATE_WHOLE, /* a checkpoint: nothing is attached later */
};

struct template {
	enum template_level level;
	int state, memory, code, upper; /* owned; -1 where absent */
	char name[64];
};

void template_init(struct template *t);
void template_close(struct template *t);

/*
 * The best template for the machine that c describes (disk 0 is the root, disk 1, if any, the upper one), made now when there is
 * none. new_disk: the size of the writable layer's disk that is still to be made, as a copy of upper when there is one, before
 * monitor_restore; 0 when there is a disk, or none is wanted. warm: the NULL-terminated command to run when an image's is made, or NULL for the usual; fresh: make it anew. -1 when the machine
 * must boot: *err then says why, for those who asked for a template.
 */
int template_get(const struct sandbox_plan *p, const struct control_config *c, uint64_t new_disk, char *const *warm, bool fresh, struct template *t,
		 struct cai_error *err);

/* As monitor_boot, from the template: what is not in it is attached. CONFIGURE and START have the sequences 1 and 2. */
struct monitor;
int monitor_restore(struct monitor *m, const struct template *t, const struct control_config *c, struct cai_error *err);

/* [{"name", "level", "image", "cpus", "memory", "created", "bytes"}]; a new reference. */
json_t *template_list(struct store *s, struct cai_error *err);
/* By its name or the beginning of it. ENOENT. */
int template_remove(struct store *s, const char *name, struct cai_error *err);

#endif
