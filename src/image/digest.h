/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 digests as OCI writes them: "sha256:" and 64 hexadecimal digits. */
#ifndef IMAGE_DIGEST_H
#define IMAGE_DIGEST_H

#include <stddef.h>

#include "image/ref.h"

struct digest {
	void *ctx; /* libcrypto's */
};

int digest_init(struct digest *d); /* -1 when memory ran out */
void digest_add(struct digest *d, const void *p, size_t n);
void digest_end(struct digest *d, char out[IMAGE_DIGEST_LEN + 1]); /* also frees */
void digest_free(struct digest *d);				   /* harmless after digest_end */
/* The digest of n bytes. */
int digest_of(const void *p, size_t n, char out[IMAGE_DIGEST_LEN + 1]);

#endif
