/* SPDX-License-Identifier: Apache-2.0 */
#include "image/digest.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

int digest_init(struct digest *d)
{
	d->ctx = EVP_MD_CTX_new();
	if (!d->ctx || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1) {
		digest_free(d);
		return -1;
	}
	return 0;
}

void digest_add(struct digest *d, const void *p, size_t n)
{
	if (d->ctx && n)
		EVP_DigestUpdate(d->ctx, p, n);
}

void digest_end(struct digest *d, char out[IMAGE_DIGEST_LEN + 1])
{
	unsigned char md[EVP_MAX_MD_SIZE] = {0};
	unsigned n = 0;
	if (d->ctx)
		EVP_DigestFinal_ex(d->ctx, md, &n);
	strcpy(out, "sha256:");
	for (unsigned k = 0; k < 32; k++)
		snprintf(out + 7 + 2 * k, 3, "%02x", md[k]);
	digest_free(d);
}

void digest_free(struct digest *d)
{
	EVP_MD_CTX_free(d->ctx);
	d->ctx = NULL;
}

int digest_of(const void *p, size_t n, char out[IMAGE_DIGEST_LEN + 1])
{
	struct digest d;
	if (digest_init(&d) < 0)
		return -1;
	digest_add(&d, p, n);
	digest_end(&d, out);
	return 0;
}
