/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image references as docker writes them: [REGISTRY/]REPOSITORY[:TAG][@sha256:HEX]. A first part without '.',
 * ':' or "localhost" is no registry: `debian` is docker.io/library/debian:latest.
 */
#ifndef IMAGE_REF_H
#define IMAGE_REF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define IMAGE_DIGEST_LEN 71 /* "sha256:" and 64 hexadecimal digits */

struct image_ref {
	char registry[256];		   /* "docker.io", "localhost:5000", "[::1]:5000" */
	char repo[256];			   /* "library/debian" */
	char tag[129];			   /* "" only when a digest is given */
	char digest[IMAGE_DIGEST_LEN + 1]; /* "" or "sha256:..." */
};

/* 0, or -1 with a sentence that says which part is wrong. */
int image_ref_parse(const char *text, struct image_ref *out, struct cai_error *err);
/* The full name, "docker.io/library/debian:latest"; with the digest when there is one. Returns out. */
char *image_ref_full(const struct image_ref *r, char *out, size_t n);
/* The same as a user would type it, "debian:latest". full is what image_ref_full gave. Borrowed from full. */
const char *image_ref_familiar(const char *full);
/* Whether text is "sha256:" and 64 lower-case hexadecimal digits, and nothing else. */
bool image_digest_valid(const char *text);

#endif
