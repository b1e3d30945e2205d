/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints: saved running sandboxes, below ROOT/checkpoints, a directory each, which appears by rename, whole:
 *
 *   state, memory     the machine (docs/snapshots.md)
 *   upper.ext4        its writable disk, where it has one
 *   checkpoint.json   the sandbox's configuration, its main process, when and of what it was made
 *
 * A suspended sandbox has the same in its own directory, in suspended/, without the disk, which stays in place.
 */
#ifndef SANDBOX_CHECKPOINT_H
#define SANDBOX_CHECKPOINT_H

#include "sandbox/plan.h"
#include "sandbox/state.h"

struct checkpoint_info {
	struct spec_loaded conf; /* of the sandbox, as it was */
	uint32_t pid;		 /* its main process, as the guest counts */
	int64_t created_ns;
	char sandbox[SANDBOX_ID_LEN + 1], sandbox_name[SANDBOX_NAME_MAX + 1];
	int dir; /* open; owned */
};

/* Makes the directory for a new checkpoint: path gets its name for now (owned by the caller). The descriptor returned is its lock: while it is
 * open, nobody takes the directory for what a killed command left. -1 with *err. */
int checkpoint_begin(struct store *s, char **path, struct cai_error *err);
/* Gives it its name, for good (NULL: one is invented; it is put into out). EEXIST when that is taken. */
int checkpoint_commit(struct store *s, const char *path, const char *name, char out[SANDBOX_NAME_MAX + 1], struct cai_error *err);
void checkpoint_abandon(const char *path);

/* By name, or by the beginning of one that fits one only. */
int checkpoint_open(struct store *s, const char *name, struct checkpoint_info *c, struct cai_error *err);
/* From a directory, such as one that checkpoint_begin made, or a sandbox's suspended/. */
int checkpoint_open_at(int parent, const char *path, struct checkpoint_info *c, struct cai_error *err);
void checkpoint_close(struct checkpoint_info *c);
/* [{"name","sandbox","sandbox_name","image","created","bytes"}]; a new reference. */
json_t *checkpoint_list(struct store *s, struct cai_error *err);
int checkpoint_remove(struct store *s, const char *name, struct cai_error *err);

/* Lets a plan that was just made go on from the checkpoint. */
int checkpoint_use(const struct checkpoint_info *c, struct sandbox_plan *p, struct cai_error *err);

#endif
