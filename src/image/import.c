/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: what PATH is, is seen from what is in it. A layout (a directory) and an archive of one
 * (whose members were first copied to a scratch file by a confined process) are the same thing behind `struct
 * source`: blobs by name. The small JSON documents are read here; layers are only passed on, as descriptors
 * and offsets.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "image/build.h"
#include "image/digest.h"

struct source {
	int dir;   /* an OCI layout, or -1 */
	bool flat; /* its blobs are beside the manifest, as skopeo's dir: has them */
	int spool;
	struct archive_member *members;
	int n_members;
	int opened[OCI_MAX_LAYERS];
	unsigned n_opened;
};

static void source_close(struct source *s)
{
	for (unsigned k = 0; k < s->n_opened; k++)
		close(s->opened[k]);
	if (s->dir >= 0)
		close(s->dir);
	if (s->spool >= 0)
		close(s->spool);
	free(s->members);
}

/* The blob called name ("blobs/sha256/HEX", "manifest.json"); its descriptor stays the source's. */
static int source_blob(struct source *s, const char *name, struct blob *out, struct cai_error *err)
{
	if (s->flat && !strncmp(name, "blobs/sha256/", 13))
		name += 13;
	if (s->dir >= 0) {
		struct stat st;
		cleanup_close int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0 || fstat(fd, &st) < 0)
			return cai_fail_errno(err, errno, "the image has no %s", name);
		if (!S_ISREG(st.st_mode))
			return cai_fail(err, EINVAL, "%s is no file", name);
		if (s->n_opened == OCI_MAX_LAYERS)
			return cai_fail(err, EMFILE, "the image has too many layers");
		s->opened[s->n_opened++] = fd;
		*out = (struct blob){.fd = steal_fd(&fd), .len = (uint64_t)st.st_size};
		return 0;
	}
	const char *want = name;
	for (unsigned hops = 0; hops < 8; hops++) {
		const struct archive_member *m = NULL;
		for (int k = 0; k < s->n_members; k++)
			if (!strcmp(s->members[k].name, want))
				m = &s->members[k]; /* the last one of a name, as with tar */
		if (!m)
			break;
		if (m->link[0]) {
			want = m->link;
			continue;
		}
		*out = (struct blob){.fd = s->spool, .off = m->off, .len = m->len};
		return 0;
	}
	return cai_fail(err, ENOENT, "the image has no %.100s", name);
}

/* A small document; digest (may be NULL) is checked. Owned by the caller. */
static char *source_text(struct source *s, const char *name, const char *digest, size_t *n,
			 struct cai_error *err)
{
	struct blob b;
	char got[IMAGE_DIGEST_LEN + 1];
	if (source_blob(s, name, &b, err) < 0)
		return NULL;
	if (b.len > OCI_MAX_DOCUMENT) {
		cai_fail(err, EFBIG, "%s is larger than %u MiB", name, OCI_MAX_DOCUMENT >> 20);
		return NULL;
	}
	cleanup_free char *text = malloc(b.len + 1);
	if (!text || file_pread_full(b.fd, text, b.len, (off_t)b.off) != (ssize_t)b.len ||
	    digest_of(text, b.len, got) < 0) {
		cai_fail(err, EIO, "cannot read %s", name);
		return NULL;
	}
	text[b.len] = 0;
	*n = b.len;
	if (digest && strcmp(digest, got)) {
		cai_fail(err, EBADMSG, "%s is not what its digest says: it has %s", name, got);
		return NULL;
	}
	return steal_ptr(&text);
}

static const char *blob_name(const char *digest, char out[96])
{
	snprintf(out, 96, "blobs/sha256/%s", digest + 7);
	return out;
}

/* The full name for the image: the one asked for, else the one it carries, else none. */
static const char *choose_tag(const char *asked, const char *carried, char full[720], struct cai_error *err)
{
	struct image_ref ref;
	if (asked) {
		if (image_ref_parse(asked, &ref, err) < 0)
			return NULL;
	} else if (!carried || !carried[0] || image_ref_parse(carried, &ref, NULL) < 0) {
		full[0] = 0;
		return full;
	}
	if (!ref.tag[0])
		strcpy(ref.tag, "latest");
	ref.digest[0] = 0; /* a digest names contents, which the name need not */
	return image_ref_full(&ref, full, 720);
}

/* file: where the manifest is, or NULL for the blob of its digest. */
static json_t *import_manifest(struct image_store *st, struct source *s, const char *file,
			       const struct oci_descriptor *d, const struct image_origin *from,
			       struct cai_error *err)
{
	char name[96];
	size_t n, cn;
	cleanup_free char *text =
			      source_text(s, file ? file : blob_name(d->digest, name), d->digest, &n, err),
			  *config = NULL;
	cleanup_free struct unpack_layer *layers = calloc(OCI_MAX_LAYERS, sizeof(*layers));
	cleanup_free struct oci_manifest *m = calloc(1, sizeof(*m));
	json_t *doc = text && layers && m ? oci_parse(text, n, "the image's manifest", err) : NULL;
	int ok = doc ? oci_manifest(doc, m, err) : -1;
	json_decref(doc);
	if (ok < 0)
		return NULL;
	if (!(config = source_text(s, blob_name(m->config.digest, name), m->config.digest, &cn, err)))
		return NULL;
	for (unsigned k = 0; k < m->n_layers; k++) {
		if (source_blob(s, blob_name(m->layers[k].digest, name), &layers[k].blob, err) < 0)
			return NULL;
		if (layers[k].blob.len != m->layers[k].size) {
			cai_fail(err, EBADMSG, "layer %u is %llu bytes long, but its manifest says %llu",
				 k + 1, (unsigned long long)layers[k].blob.len,
				 (unsigned long long)m->layers[k].size);
			return NULL;
		}
		strcpy(layers[k].digest, m->layers[k].digest);
	}
	struct image_origin o = *from;
	o.manifest = d->digest;
	return image_build(st, config, cn, layers, m->n_layers, &o, err);
}

static json_t *import_layout(struct image_store *st, struct source *s, const char *path, const char *name,
			     struct cai_error *err)
{
	struct oci_descriptor d;
	char carried[256], inner[256], full[720], blob[96];
	size_t n;
	cleanup_free char *text = source_text(s, "index.json", NULL, &n, err);
	json_t *doc = text ? oci_parse(text, n, "index.json", err) : NULL;
	if (!doc || oci_pick(doc, name, &d, carried, err) < 0)
		goto fail;
	/* An entry may be an index of platforms itself. */
	for (unsigned level = 0;; level++) {
		cleanup_free char *t = source_text(s, blob_name(d.digest, blob), d.digest, &n, err);
		json_decref(doc);
		doc = t ? oci_parse(t, n, "the image's manifest", err) : NULL;
		int kind = doc ? oci_kind(doc, err) : -1;
		if (kind < 0)
			goto fail;
		if (kind == OCI_MANIFEST)
			break;
		if (level == 2) {
			cai_fail(err, ELOOP, "the image's indexes are nested too deep");
			goto fail;
		}
		if (oci_pick(doc, NULL, &d, inner, err) < 0)
			goto fail;
	}
	json_decref(doc);
	/* A layout often carries a tag only. */
	const char *tag = choose_tag(name, strpbrk(carried, "/:") ? carried : NULL, full, err);
	struct image_origin from = {.source = path, .manifest = "", .tag = tag && tag[0] ? tag : NULL};
	return tag ? import_manifest(st, s, NULL, &d, &from, err) : NULL;
fail:
	json_decref(doc);
	return NULL;
}

/* A directory as skopeo's dir: and podman save --format docker-dir make it: the manifest, and blobs named by
 * their digests. */
static json_t *import_flat(struct image_store *st, struct source *s, const char *path, const char *name,
			   struct cai_error *err)
{
	char full[720];
	struct oci_descriptor d = {0};
	size_t n;
	cleanup_free char *text = source_text(s, "manifest.json", NULL, &n, err);
	const char *tag = choose_tag(name, NULL, full, err);
	struct image_origin from = {.source = path, .manifest = "", .tag = tag && tag[0] ? tag : NULL};
	if (!text || !tag || digest_of(text, n, d.digest) < 0)
		return NULL;
	return import_manifest(st, s, "manifest.json", &d, &from, err);
}

/* Which of an archive's images is meant: the one of that name, or the only one. */
static const json_t *pick_saved(const json_t *doc, const char *name, struct cai_error *err)
{
	struct image_ref want, have;
	if (json_array_size(doc) == 1)
		return json_array_get(doc, 0);
	for (size_t k = 0; name && image_ref_parse(name, &want, NULL) == 0 && k < json_array_size(doc); k++) {
		const json_t *e = json_array_get(doc, k), *tags = json_object_get(e, "RepoTags");
		for (size_t j = 0; j < json_array_size(tags); j++) {
			const char *t = json_string_value(json_array_get(tags, j));
			if (t && image_ref_parse(t, &have, NULL) == 0 &&
			    !strcmp(want.registry, have.registry) && !strcmp(want.repo, have.repo) &&
			    !strcmp(want.tag, have.tag))
				return e;
		}
	}
	cai_fail(err, EINVAL,
		 "the archive holds %zu images; name one of them, as 'caisson image import PATH NAME'",
		 json_array_size(doc));
	return NULL;
}

/* The other names that an archive gives its image, as docker load gives them. */
static void add_names(struct image_store *st, const json_t *tags, const char *id)
{
	for (size_t k = 1; id && k < json_array_size(tags) && k < 64; k++) {
		char full[720];
		const char *t = choose_tag(NULL, json_string_value(json_array_get(tags, k)), full, NULL);
		if (t && t[0])
			image_store_tag(st, t, id, NULL);
	}
}

/* docker save's manifest.json: [{"Config": NAME, "RepoTags": [...], "Layers": [NAME...]}]. */
static json_t *import_saved(struct image_store *st, struct source *s, const char *path, const char *name,
			    struct cai_error *err)
{
	char full[720], id[IMAGE_DIGEST_LEN + 1];
	size_t n, cn;
	cleanup_free char *text = source_text(s, "manifest.json", NULL, &n, err), *config = NULL;
	cleanup_free struct unpack_layer *layers = calloc(OCI_MAX_LAYERS, sizeof(*layers));
	json_t *doc = text && layers ? oci_parse(text, n, "manifest.json", err) : NULL, *result = NULL;
	if (!doc)
		return NULL;
	const json_t *e = pick_saved(doc, name, err), *list = json_object_get(e, "Layers");
	if (!e)
		goto out;
	const char *cname = json_string_value(json_object_get(e, "Config"));
	size_t n_layers = json_array_size(list);
	if (!cname || !n_layers || n_layers > OCI_MAX_LAYERS) {
		cai_fail(err, EINVAL, "manifest.json names %s",
			 cname ? "no layers, or too many" : "no configuration");
		goto out;
	}
	if (!(config = source_text(s, cname, NULL, &cn, err)))
		goto out;
	/* The file is named by its digest. */
	const char *base = strrchr(cname, '/');
	base = base ? base + 1 : cname;
	if (digest_of(config, cn, id) < 0 ||
	    (strspn(base, "0123456789abcdef") == 64 && strncmp(base, id + 7, 64))) {
		cai_fail(err, EBADMSG, "the image's configuration is not what its name says: it has %s", id);
		goto out;
	}
	for (size_t k = 0; k < n_layers; k++) {
		const char *l = json_string_value(json_array_get(list, k));
		if (!l || source_blob(s, l, &layers[k].blob, err) < 0) {
			if (!l)
				cai_fail(err, EINVAL, "manifest.json names a layer that is no text");
			goto out;
		}
		if (!strncmp(l, "blobs/sha256/", 13))
			snprintf(layers[k].digest, sizeof(layers[k].digest), "sha256:%.64s", l + 13);
	}
	const char *tag =
	    choose_tag(name, json_string_value(json_array_get(json_object_get(e, "RepoTags"), 0)), full, err);
	struct image_origin from = {.source = path, .manifest = "", .tag = tag && tag[0] ? tag : NULL};
	if (tag)
		result = image_build(st, config, cn, layers, (unsigned)n_layers, &from, err);
	if (result && !name)
		add_names(st, json_object_get(e, "RepoTags"),
			  json_string_value(json_object_get(result, "id")));
out:
	json_decref(doc);
	return result;
}

static bool has(struct source *s, const char *name)
{
	for (int k = 0; k < s->n_members; k++)
		if (!strcmp(s->members[k].name, name))
			return true;
	return false;
}

static json_t *import_file(struct image_store *st, int fd, uint64_t size, const char *path, const char *name,
			   struct cai_error *err)
{
	char scratch[64], full[720];
	struct source s = {.dir = -1, .spool = image_store_temp(st, scratch, err)};
	json_t *result = NULL;
	if (s.spool < 0)
		return NULL;
	image_store_temp_drop(st, scratch);
	s.members = calloc(ARCHIVE_MAX_MEMBERS, sizeof(*s.members));
	s.n_members = s.members ? unpack_archive(fd, s.spool, &tree_default_limits, s.members, err)
				: cai_fail(err, ENOMEM, "out of memory");
	if (s.n_members > 0) {
		result = has(&s, "manifest.json") ? import_saved(st, &s, path, name, err)
						  : import_layout(st, &s, path, name, err);
	} else if (s.n_members == 0) {
		struct unpack_layer l = {.blob = {.fd = fd, .len = size}};
		const char *tag = choose_tag(name, NULL, full, err);
		struct image_origin from = {
		    .source = path, .manifest = "", .tag = tag && tag[0] ? tag : NULL};
		if (tag)
			result = image_build_bare(st, &l, -1, &from, err);
	}
	source_close(&s);
	return result;
}

/* Standard input in a scratch file, since an archive is read twice. */
static int spool(struct image_store *st, struct cai_error *err)
{
	char scratch[64];
	cleanup_close int fd = image_store_temp(st, scratch, err);
	cleanup_free char *buf = malloc(1 << 18);
	if (fd < 0 || !buf)
		return -1;
	image_store_temp_drop(st, scratch);
	for (uint64_t n = 0;;) {
		ssize_t got = file_read_full(STDIN_FILENO, buf, 1 << 18);
		if (got < 0 || (got > 0 && file_write_full(fd, buf, (size_t)got) < 0))
			return cai_fail_errno(err, errno, "cannot copy standard input");
		if (got == 0)
			return lseek(fd, 0, SEEK_SET) < 0 ? -1 : steal_fd(&fd);
		if ((n += (uint64_t)got) > 2 * tree_default_limits.max_bytes)
			return cai_fail(err, EFBIG,
					"standard input is larger than %llu MiB, which is the limit",
					(unsigned long long)(2 * tree_default_limits.max_bytes) >> 20);
	}
}

json_t *image_import(struct image_store *st, const char *path, const char *name, struct cai_error *err)
{
	struct image_ref ref;
	struct stat sb;
	char full[720];
	json_t *result = NULL;
	if (name && image_ref_parse(name, &ref, err) < 0)
		return NULL;
	cleanup_close int fd =
	    strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : spool(st, err);
	if (fd < 0 && !strcmp(path, "-"))
		return NULL;
	if (fd < 0 || fstat(fd, &sb) < 0) {
		cai_fail_errno(err, errno, "cannot open %s", path);
		return NULL;
	}
	if (S_ISREG(sb.st_mode)) {
		result = import_file(st, fd, (uint64_t)sb.st_size, path, name, err);
	} else if (!S_ISDIR(sb.st_mode)) {
		cai_fail(err, EINVAL, "it is neither a file nor a directory");
	} else if (faccessat(fd, "oci-layout", F_OK, 0) == 0) {
		struct source s = {.dir = steal_fd(&fd), .spool = -1};
		result = import_layout(st, &s, path, name, err);
		source_close(&s);
	} else if (faccessat(fd, "manifest.json", F_OK, 0) == 0 && faccessat(fd, "version", F_OK, 0) == 0) {
		struct source s = {.dir = steal_fd(&fd), .spool = -1, .flat = true};
		result = import_flat(st, &s, path, name, err);
		source_close(&s);
	} else {
		const char *tag = choose_tag(name, NULL, full, err);
		struct image_origin from = {
		    .source = path, .manifest = "", .tag = tag && tag[0] ? tag : NULL};
		result = tag ? image_build_bare(st, NULL, fd, &from, err) : NULL;
	}
	if (!result)
		cai_wrap(err, "cannot import %s", path);
	return result;
}
