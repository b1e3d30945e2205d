/* SPDX-License-Identifier: Apache-2.0 */
/* Running caisson-image, which does what needs network, archive and TLS libraries. */
#ifndef CLI_IMAGE_HELPER_H
#define CLI_IMAGE_HELPER_H

#include <jansson.h>

#include "base/error.h"

/* Runs caisson-image with the NULL-terminated words; its messages and progress go to standard error. Returns
 * its answer, or NULL when it failed: *err is then empty when it has said why itself. */
json_t *image_helper(const char *const *words, struct cai_error *err);

#endif
