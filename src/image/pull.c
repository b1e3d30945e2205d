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

/* Opens the blob's file, waiting for whoever is writing it. */
static int open_blob(struct pull *p, const struct oci_descriptor *d, struct cai_error *err)
{
	char path[80];
	struct stat st, named;
	struct registry_fetch *f = &p->f[p->n];
	for (unsigned k = 0; k < p->n; k++)
		if (!strcmp(p->f[k].digest, d->digest))
			return p->f[k].size == d->size
				   ? (int)k
				   : cai_fail(err, EINVAL, "the manifest gives two sizes for %s", d->digest);
	if (d->size > 2 * tree_default_limits.max_bytes)
		return cai_fail(err, EFBIG, "a layer of %llu MiB is larger than Caisson takes",
				(unsigned long long)d->size >> 20);
	blob_path(d->digest, path);
	for (;;) {
		f->fd = openat(p->store->dir, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (f->fd < 0 || flock(f->fd, LOCK_EX) < 0 || fstat(f->fd, &st) < 0)
			return cai_fail_errno(err, errno, "cannot open %s/%s", p->store->path, path);
		/* The one that was waited for may have made an image of it and removed it. */
		if (fstatat(p->store->dir, path, &named, 0) == 0 && named.st_ino == st.st_ino)
			break;
		close(f->fd);
	}
	f->size = d->size;
	f->have = (uint64_t)st.st_size <= d->size ? (uint64_t)st.st_size : 0;
	strcpy(f->digest, d->digest);
	return (int)p->n++;
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

static json_t *build(struct pull *p, const int *index, const struct image_origin *from, struct cai_error *err)
{
	const struct oci_manifest *m = &p->manifest;
	cleanup_free struct unpack_layer *layers = calloc(OCI_MAX_LAYERS, sizeof(*layers));
	cleanup_free char *config = malloc(m->config.size + 1);
	char got[IMAGE_DIGEST_LEN + 1];
	if (!layers || !config ||
	    file_pread_full(p->f[0].fd, config, m->config.size, 0) != (ssize_t)m->config.size ||
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
		layers[k].blob = (struct blob){.fd = p->f[index[k]].fd, .len = m->layers[k].size};
		strcpy(layers[k].digest, m->layers[k].digest);
	}
	return image_build(p->store, config, m->config.size, layers, m->n_layers, from, err);
}

json_t *image_pull(struct image_store *s, const char *text, bool quiet, struct cai_error *err)
{
	struct image_ref ref;
	char full[720], id[IMAGE_DIGEST_LEN + 1];
	cleanup_free struct pull *p = calloc(1, sizeof(*p));
	cleanup_free int *index = calloc(OCI_MAX_LAYERS, sizeof(*index));
	json_t *result = NULL;
	int ok = p && index ? image_ref_parse(text, &ref, err) : cai_fail(err, ENOMEM, "out of memory");
	if (ok < 0 || (mkdirat(s->dir, "blobs", 0700) < 0 && errno != EEXIST))
		return NULL;
	p->store = s;
	p->show = !quiet && isatty(STDERR_FILENO);
	if (!(p->registry = registry_open(&ref, err)) || get_manifest(p, &ref, err) < 0)
		goto out;
	image_ref_full(&ref, full, sizeof(full));
	struct image_origin from = {.source = full, .manifest = p->digest, .tag = full};
	/* The image may be here under another name. Its id is the configuration's digest, which the manifest
	 * gave. */
	if (image_store_find(s, p->manifest.config.digest, id, NULL) == 0) {
		if (image_store_tag(s, full, id, err) == 0)
			result = json_pack("{s:s,s:s,s:b,s:i,s:i}", "id", id, "tag", full, "new", 0, "size",
					   0, "entries", 0);
		goto out;
	}
	ok = open_blob(p, &p->manifest.config, err) < 0 ? -1 : 0;
	for (unsigned k = 0; k < p->manifest.n_layers && ok == 0; k++)
		ok = (index[k] = open_blob(p, &p->manifest.layers[k], err)) < 0 ? -1 : 0;
	if (ok == 0)
		ok = registry_fetch(p->registry, p->f, p->n, progress, p, err);
	if (p->show)
		fprintf(stderr, "\r\033[K");
	/* Nothing of the network is needed any more, nor its secrets. */
	registry_close(p->registry);
	p->registry = NULL;
	if (ok == 0) {
		result = build(p, index, &from, err);
		drop_blobs(p);
	}
out:
	registry_close(p->registry);
	for (unsigned k = 0; k < p->n; k++)
		close(p->f[k].fd);
	if (!result)
		cai_wrap(err, "cannot pull %s", text);
	return result;
}
