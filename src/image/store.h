/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image store: a directory "images" below $CAISSON_ROOT, else below /var/lib/caisson for root, else below
 * ~/.local/share/caisson:
 *
 *   HEX.erofs   the root file system, read-only; HEX is the image's id, the sha256 of its OCI configuration
 *   HEX.json    what is known of it; an image exists when this does
 *   tags.json   names to ids
 *   lock        flock(2) for changes; reading takes none
 *   tmp/        unfinished files, each locked by the process that writes it
 *
 * Everything appears by rename, whole, after it was synced. A process killed anywhere leaves at most a file
 * in tmp/ or an EROFS file without its JSON; whoever locks the store next removes both. An image that is open
 * elsewhere can be removed.
 *
 * Needs base and jansson only, so that `caisson` can look into it without starting caisson-image. One thread.
 */
#ifndef IMAGE_STORE_H
#define IMAGE_STORE_H

#include <jansson.h>
#include <stdint.h>

#include "base/error.h"
#include "image/ref.h"

struct image_store {
	char *path; /* of the directory "images" */
	int dir;
};

/* root: what stands for $CAISSON_ROOT; NULL takes the default. The directories are made (0700) when absent.
 */
int image_store_open(struct image_store *s, const char *root, struct cai_error *err);
void image_store_close(struct image_store *s);

/* Waits for the store's lock and removes what killed processes left. The descriptor is the lock; close it. */
int image_store_lock(struct image_store *s, struct cai_error *err);

/* A new file in tmp/ (read and write); name gets its name. It is removed by the next command unless it is
 * committed. */
int image_store_temp(struct image_store *s, char name[64], struct cai_error *err);
void image_store_temp_drop(struct image_store *s, const char *name);
/*
 * Makes an image of the temporary file fd named temp (closed by the caller): syncs it, names it, writes meta
 * (borrowed; "id" is its id) and sets the tag full name when that is not NULL. An image of the same id that
 * is there already is kept. Takes the lock.
 */
int image_store_commit(struct image_store *s, const char *temp, int fd, json_t *meta, const char *tag,
		       struct cai_error *err);
/* Lets a full name mean an image that is there. Takes the lock. */
int image_store_tag(struct image_store *s, const char *tag, const char *id, struct cai_error *err);

/* The id that a reference means: a name, or at least six digits of an id with or without "sha256:". -1 with a
 * sentence when there is none. */
int image_store_find(struct image_store *s, const char *ref, char id[IMAGE_DIGEST_LEN + 1],
		     struct cai_error *err);
/* HEX.json; a new reference, or NULL with *err. Its members: "id", "manifest" (digest or ""), "size" (of the
 * EROFS file), "imported" (seconds since 1970), "source" (text), "image" (the OCI configuration document). */
json_t *image_store_meta(struct image_store *s, const char *id, struct cai_error *err);
/* {"id", "rootfs": path, "tags": [...], "config": {"Entrypoint", "Cmd", "Env", "WorkingDir", "User", ...}}:
 * all that running needs. */
json_t *image_store_resolve(struct image_store *s, const char *ref, struct cai_error *err);
/* [{"id", "tags", "size", "imported", "created", "source"}], newest first. */
json_t *image_store_list(struct image_store *s, struct cai_error *err);
/* Who says how many sandboxes need an image; the store knows nothing of them. Called with the store locked.
 */
struct image_users {
	unsigned (*count)(void *ctx, const char *id);
	void *ctx;
};

/* Removes a name, and the image with its last name; an id removes the image and all names. An image that
 * sandboxes need stays, with EBUSY (users NULL: none is asked for). Returns {"untagged": [...], "deleted":
 * [...]}. */
json_t *image_store_remove(struct image_store *s, const char *ref, const struct image_users *users,
			   struct cai_error *err);
/* Removes images without a name that no sandbox needs, and what interrupted pulls have left. Returns
 * {"deleted": [...], "freed": bytes}. */
json_t *image_store_prune(struct image_store *s, const struct image_users *users, struct cai_error *err);

#endif
