/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the manifest is fetched and checked, the configuration and the layers go to blobs/HEX
 * in the store, and from there on it is an import. A blob's file stays until an image was made of it, so a
 * pull that was interrupted goes on where it stopped; it is locked while it is being written, which makes a
 * second pull of the same layer wait for the first. Digests are checked where the bytes are unpacked; a blob
 * that fails is removed, so that the next pull starts anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "image/build.h"
#include "image/digest.h"
#include "image/registry.h"

struct pull {
	struct image_store *store;
	struct registry *registry;
	struct oci_manifest manifest;
	char digest[IMAGE_DIGEST_LEN + 1];	     /* the manifest's */
	struct registry_fetch f[OCI_MAX_LAYERS + 1]; /* each blob once; the configuration first */
	unsigned n;
	bool show;
	struct timespec shown;
};

static void progress(void *ctx)
{
	struct pull *p = ctx;
	struct timespec now;
	uint64_t have = 0, all = 0;
	unsigned done = 0;
	char bar[31];
	if (!p->show)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	for (unsigned k = 0; k < p->n; k++) {
		have += p->f[k].have;
		all += p->f[k].size;
		done += p->f[k].done;
	}
	if (done < p->n &&
	    (now.tv_sec - p->shown.tv_sec) * 1000 + (now.tv_nsec - p->shown.tv_nsec) / 1000000 < 100)
		return;
	p->shown = now;
	unsigned filled = all ? (unsigned)(have * 30 / all) : 30;
	for (unsigned k = 0; k < 30; k++)
		bar[k] = k < filled ? '=' : ' ';
	bar[30] = 0;
	fprintf(stderr, "\r[%s] %.1f of %.1f MB, %u of %u parts\033[K", bar, (double)have / 1e6,
		(double)all / 1e6, done, p->n);
}

static void blob_path(const char *digest, char out[80])
{
	snprintf(out, 80, "blobs/%s", digest + 7);
}

static void drop_blobs(struct pull *p)
{
	char path[80];
	for (unsigned k = 0; k < p->n; k++) {
		blob_path(p->f[k].digest, path);
		unlinkat(p->store->dir, path, 0);
	}
}

static int by_digest(const void *a, const void *b)
{
	return strcmp(((const struct registry_fetch *)a)->digest, ((const struct registry_fetch *)b)->digest);
}

static struct registry_fetch *find_blob(struct pull *p, const char *digest)
{
	struct registry_fetch key;
	strcpy(key.digest, digest);
	return bsearch(&key, p->f, p->n, sizeof(key), by_digest);
}

/* Lists each blob once, in the order of their digests: that is the order in which all pulls lock them, so
 * that none waits for one that waits for it. */
static int list_blobs(struct pull *p, struct cai_error *err)
{
	const struct oci_manifest *m = &p->manifest;
	for (unsigned k = 0; k <= m->n_layers; k++) {
		const struct oci_descriptor *d = k ? &m->layers[k - 1] : &m->config;
		struct registry_fetch *f = p->f + p->n;
		if (d->size > 2 * tree_default_limits.max_bytes)
			return cai_fail(err, EFBIG, "a layer of %llu MiB is larger than Caisson takes",
					(unsigned long long)d->size >> 20);
		for (f = p->f; f < p->f + p->n && strcmp(f->digest, d->digest); f++)
			;
		if (f < p->f + p->n && f->size != d->size)
			return cai_fail(err, EINVAL, "the manifest gives two sizes for %s", d->digest);
		if (f < p->f + p->n)
			continue;
		strcpy(f->digest, d->digest);
		f->size = d->size;
		f->fd = -1;
		p->n++;
	}
	qsort(p->f, p->n, sizeof(*p->f), by_digest);
	return 0;
}

/* Opens the blob's file, waiting for whoever is writing it. */
static int open_blob(struct pull *p, struct registry_fetch *f, struct cai_error *err)
{
	char path[80];
	struct stat st, named;
	blob_path(f->digest, path);
	for (;;) {
		int r = -1;
		f->fd = openat(p->store->dir, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		while (f->fd >= 0 && (r = flock(f->fd, LOCK_EX)) < 0 && errno == EINTR)
			;
		if (f->fd < 0 || r < 0 || fstat(f->fd, &st) < 0)
			return cai_fail_errno(err, errno, "cannot open %s/%s", p->store->path, path);
		/* The one that was waited for may have made an image of it and removed it. */
		if (fstatat(p->store->dir, path, &named, 0) == 0 && named.st_ino == st.st_ino)
			break;
		close(f->fd);
	}
	f->have = (uint64_t)st.st_size <= f->size ? (uint64_t)st.st_size : 0;
	return 0;
}

/* The manifest for this machine, through at most two indexes. */
static int get_manifest(struct pull *p, const struct image_ref *ref, struct cai_error *err)
{
	struct oci_descriptor d;
	char want[IMAGE_DIGEST_LEN + 1], what[160];
	strcpy(want, ref->digest);
	snprintf(what, sizeof(what), "%s", want[0] ? want : ref->tag);
	for (unsigned level = 0;; level++) {
		size_t n;
		cleanup_free char *text = registry_manifest(p->registry, what, OCI_MAX_DOCUMENT, &n, err);
		if (!text || digest_of(text, n, p->digest) < 0)
			return -1;
		if (want[0] && strcmp(want, p->digest))
			return cai_fail(err, EBADMSG,
					"the registry sent a manifest with the digest %s instead of %s",
					p->digest, want);
		json_t *doc = oci_parse(text, n, "the image's manifest", err);
		int kind = doc ? oci_kind(doc, err) : -1, ok = -1;
		if (kind == OCI_MANIFEST)
			ok = oci_manifest(doc, &p->manifest, err);
		else if (kind == OCI_INDEX)
			ok = level == 2 ? cai_fail(err, ELOOP, "the image's indexes are nested too deep")
					: oci_pick(doc, NULL, &d, NULL, err);
		json_decref(doc);
		if (ok < 0 || kind == OCI_MANIFEST)
			return ok;
		strcpy(want, d.digest);
		strcpy(what, d.digest);
	}
}

static json_t *build(struct pull *p, const struct image_origin *from, struct cai_error *err)
{
	const struct oci_manifest *m = &p->manifest;
	cleanup_free struct unpack_layer *layers = calloc(OCI_MAX_LAYERS, sizeof(*layers));
	cleanup_free char *config = malloc(m->config.size + 1);
	char got[IMAGE_DIGEST_LEN + 1];
	const struct registry_fetch *c = find_blob(p, m->config.digest);
	if (!layers || !config ||
	    file_pread_full(c->fd, config, m->config.size, 0) != (ssize_t)m->config.size ||
	    digest_of(config, m->config.size, got) < 0) {
		cai_fail(err, EIO, "cannot read the image's configuration");
		return NULL;
	}
	if (strcmp(got, m->config.digest)) {
		cai_fail(err, EBADMSG,
			 "the image's configuration is not what its digest says: expected %s, got %s",
			 m->config.digest, got);
		return NULL;
	}
	for (unsigned k = 0; k < m->n_layers; k++) {
		layers[k].blob =
		    (struct blob){.fd = find_blob(p, m->layers[k].digest)->fd, .len = m->layers[k].size};
		strcpy(layers[k].digest, m->layers[k].digest);
	}
	return image_build(p->store, config, m->config.size, layers, m->n_layers, from, err);
}

/* The image under its name, if it is here; its id is the configuration's digest, which the manifest gave. */
static json_t *already_here(struct pull *p, const char *full, struct cai_error *err)
{
	char id[IMAGE_DIGEST_LEN + 1];
	if (image_store_find(p->store, p->manifest.config.digest, id, NULL) < 0 ||
	    image_store_tag(p->store, full, id, err) < 0)
		return NULL;
	return json_pack("{s:s,s:s,s:b,s:i,s:i}", "id", id, "tag", full, "new", 0, "size", 0, "entries", 0);
}

json_t *image_pull(struct image_store *s, const char *text, bool quiet, struct cai_error *err)
{
	struct image_ref ref;
	char full[720];
	cleanup_free struct pull *p = calloc(1, sizeof(*p));
	json_t *result = NULL;
	int ok = p ? image_ref_parse(text, &ref, err) : cai_fail(err, ENOMEM, "out of memory");
	if (ok < 0)
		return NULL;
	if (mkdirat(s->dir, "blobs", 0700) < 0 && errno != EEXIST) {
		cai_fail_errno(err, errno, "cannot make %s/blobs", s->path);
		return NULL;
	}
	p->store = s;
	p->show = !quiet && isatty(STDERR_FILENO);
	if (!(p->registry = registry_open(&ref, err)) || get_manifest(p, &ref, err) < 0)
		goto out;
	image_ref_full(&ref, full, sizeof(full));
	struct image_origin from = {.source = full, .manifest = p->digest, .tag = full};
	if ((result = already_here(p, full, err)))
		goto out;
	ok = list_blobs(p, err);
	for (unsigned k = 0; k < p->n && ok == 0; k++)
		ok = open_blob(p, &p->f[k], err);
	/* Whoever was waited for may have made it. */
	if (ok == 0 && !(result = already_here(p, full, err)))
		ok = registry_fetch(p->registry, p->f, p->n, progress, p, err);
	if (p->show)
		fprintf(stderr, "\r\033[K");
	/* Nothing of the network is needed any more, nor its secrets. */
	registry_close(p->registry);
	p->registry = NULL;
	if (ok == 0 && !result)
		result = build(p, &from, err);
	if (ok == 0)
		drop_blobs(p);
out:
	registry_close(p->registry);
	for (unsigned k = 0; k < p->n; k++)
		if (p->f[k].fd >= 0)
			close(p->f[k].fd);
	if (!result)
		cai_wrap(err, "cannot pull %s", text);
	return result;
}
