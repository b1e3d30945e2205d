/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the OCI distribution API (docker's registry API, version 2): documents and blobs over libcurl,
 * with bearer and basic authentication. What comes back is as hostile as any file; callers check digests. One
 * thread.
 */
#ifndef IMAGE_REGISTRY_H
#define IMAGE_REGISTRY_H

#include <stdint.h>

#include "base/error.h"
#include "image/ref.h"

struct registry;

/* Finds credentials in docker's config.json, and whether a loopback registry speaks plain HTTP. */
struct registry *registry_open(const struct image_ref *ref, struct cai_error *err);
void registry_close(struct registry *r);

/* The manifest or index called what (a tag or digest), at most max bytes. Owned by the caller. */
char *registry_manifest(struct registry *r, const char *what, size_t max, size_t *n, struct cai_error *err);

struct registry_fetch {
	char digest[IMAGE_DIGEST_LEN + 1];
	uint64_t size, have; /* of the blob; bytes in the file already, advanced while it runs */
	int fd;		     /* borrowed */
	/* the registry's own */
	void *easy;
	struct registry *registry;
	unsigned tries, refused, generation;
	uint64_t from, not_before;
	bool failed_write, running, done;
};
/* Fetches blobs, several at a time, each from where its file ends. progress is called now and then. */
int registry_fetch(struct registry *r, struct registry_fetch *f, unsigned n, void (*progress)(void *ctx),
		   void *ctx, struct cai_error *err);

/* The parameters of a WWW-Authenticate header, for tests: finds key="value" in a challenge. 0, or -1 when
 * there is none. */
int registry_challenge(const char *header, const char *key, char *out, size_t n);

#endif
