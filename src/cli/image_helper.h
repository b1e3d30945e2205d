/* SPDX-License-Identifier: Apache-2.0 */
/* Running caisson-image, which does what needs network, archive and TLS libraries. */
#ifndef CLI_IMAGE_HELPER_H
#define CLI_IMAGE_HELPER_H

#include <jansson.h>

#include "base/error.h"
#include "image/run_config.h"

/* Runs caisson-image with the NULL-terminated words; its messages and progress go to standard error. Returns
 * its answer, or NULL when it failed: *err is then empty when it has said why itself. */
json_t *image_helper(const char *const *words, struct cai_error *err);
/* Runs it with its standard output where ours is. 0, or -1 with *err as above. */
int image_helper_stream(const char *const *words, struct cai_error *err);

enum image_when { IMAGE_PULL_MISSING, IMAGE_PULL_ALWAYS, IMAGE_PULL_NEVER };

/*
 * The image that ref means, pulled first when it is missing (or always). root: what stands for $CAISSON_ROOT,
 * or NULL. quiet: no progress on standard error. 0, or -1: *err is empty when caisson-image has said why
 * itself.
 */
int image_get(const char *root, const char *ref, enum image_when when, bool quiet,
	      struct image_run_config *out, struct cai_error *err);

#endif
