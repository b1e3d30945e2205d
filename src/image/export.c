/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a confined process reads the EROFS file and writes a tar archive, which is the result,
 * or the one layer of an OCI archive. That archive also has docker's manifest.json, with which docker load
 * takes it. The configuration is the image's own but for what it says of layers.
 */
#include "image/export.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "image/digest.h"
#include "image/unpack.h"

struct layer {
	int fd;
	uint64_t size;
	char digest[IMAGE_DIGEST_LEN + 1];
};

static int fail_archive(struct archive *a, struct cai_error *err)
{
	const char *why = archive_error_string(a);
	return cai_fail(err, archive_errno(a), "cannot write the archive: %s", why ? why : "it failed");
}

/* Contents are text (n bytes of it), or, when that is NULL, the layer's. */
static int put_member(struct archive *a, const char *name, const char *text, uint64_t n, int fd,
		      struct cai_error *err)
{
	struct archive_entry *e = archive_entry_new();
	cleanup_free char *buf = malloc(1 << 18);
	if (!e || !buf) {
		archive_entry_free(e);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	archive_entry_set_pathname(e, name);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 0444);
	archive_entry_set_size(e, (la_int64_t)n);
	int r = archive_write_header(a, e);
	archive_entry_free(e);
	if (r != ARCHIVE_OK)
		return fail_archive(a, err);
	for (uint64_t at = 0; at < n;) {
		size_t part = n - at < 1 << 18 ? (size_t)(n - at) : 1 << 18;
		if (!text && file_pread_full(fd, buf, part, (off_t)at) != (ssize_t)part)
			return cai_fail(err, EIO, "cannot read the layer back");
		if (archive_write_data(a, text ? text + at : buf, part) != (la_ssize_t)part)
			return fail_archive(a, err);
		at += part;
	}
	return 0;
}

/* A JSON document as a member; a blob when name is NULL, whose digest then goes to digest. */
static int put_json(struct archive *a, const char *name, json_t *o, char digest[IMAGE_DIGEST_LEN + 1],
		    size_t *size, struct cai_error *err)
{
	cleanup_free char *text = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	char blob[96];
	json_decref(o);
	if (!text || (!name && digest_of(text, strlen(text), digest) < 0))
		return cai_fail(err, ENOMEM, "out of memory");
	if (!name)
		snprintf(blob, sizeof(blob), "blobs/sha256/%s", digest + 7);
	if (size)
		*size = strlen(text);
	return put_member(a, name ? name : blob, text, strlen(text), -1, err);
}

static json_t *descriptor(const char *type, const char *digest, uint64_t size)
{
	return json_pack("{s:s,s:s,s:I}", "mediaType", type, "digest", digest, "size", (json_int_t)size);
}

static int put_all(struct archive *a, const json_t *meta, const struct layer *l, const char *name,
		   struct cai_error *err)
{
	char config[IMAGE_DIGEST_LEN + 1], manifest[IMAGE_DIGEST_LEN + 1], blob[96], config_blob[96];
	size_t config_size, manifest_size;
	json_t *c = json_copy(json_object_get(meta, "image"));
	json_object_del(c, "history"); /* it tells of layers that are one now */
	json_object_set_new(c, "rootfs", json_pack("{s:s,s:[s]}", "type", "layers", "diff_ids", l->digest));
	snprintf(blob, sizeof(blob), "blobs/sha256/%s", l->digest + 7);
	if (put_json(a, "oci-layout", json_pack("{s:s}", "imageLayoutVersion", "1.0.0"), NULL, NULL, err) <
		0 ||
	    put_member(a, blob, NULL, l->size, l->fd, err) < 0 ||
	    put_json(a, NULL, c, config, &config_size, err) < 0)
		return -1;
	snprintf(config_blob, sizeof(config_blob), "blobs/sha256/%s", config + 7);
	json_t *m =
	    json_pack("{s:i,s:s,s:o,s:[o]}", "schemaVersion", 2, "mediaType",
		      "application/vnd.oci.image.manifest.v1+json", "config",
		      descriptor("application/vnd.oci.image.config.v1+json", config, config_size), "layers",
		      descriptor("application/vnd.oci.image.layer.v1.tar", l->digest, l->size));
	if (put_json(a, NULL, m, manifest, &manifest_size, err) < 0)
		return -1;
	json_t *d = descriptor("application/vnd.oci.image.manifest.v1+json", manifest, manifest_size);
	if (name)
		json_object_set_new(d, "annotations",
				    json_pack("{s:s,s:s}", "io.containerd.image.name", name,
					      "org.opencontainers.image.ref.name",
					      strrchr(name, ':') ? strrchr(name, ':') + 1 : name));
	json_t *saved = json_pack("[{s:s,s:o,s:[s]}]", "Config", config_blob, "RepoTags",
				  name ? json_pack("[s]", name) : json_array(), "Layers", blob);
	if (put_json(a, "index.json", json_pack("{s:i,s:[o]}", "schemaVersion", 2, "manifests", d), NULL,
		     NULL, err) < 0) {
		json_decref(saved);
		return -1;
	}
	return put_json(a, "manifest.json", saved, NULL, NULL, err);
}

static int write_oci(const json_t *meta, const struct layer *l, const char *name, int out,
		     struct cai_error *err)
{
	struct archive *a = archive_write_new();
	int ok = -1;
	if (!a)
		return cai_fail(err, ENOMEM, "out of memory");
	if (archive_write_set_format_ustar(a) != ARCHIVE_OK ||
	    archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
	    archive_write_open_fd(a, out) != ARCHIVE_OK)
		fail_archive(a, err);
	else if ((ok = put_all(a, meta, l, name, err)) == 0 && archive_write_close(a) != ARCHIVE_OK)
		ok = fail_archive(a, err);
	archive_write_free(a);
	return ok;
}

/* Holes stay holes where out is a file. */
static int copy_erofs(int in, int out, struct cai_error *err)
{
	struct stat st;
	off_t size = lseek(in, 0, SEEK_END), at = 0;
	bool holes = fstat(out, &st) == 0 && S_ISREG(st.st_mode) && lseek(out, 0, SEEK_CUR) == 0;
	int r = size < 0 ? -1 : 0;
	while (r == 0 && at < size) {
		off_t end = size;
		if (holes && ((at = lseek(in, at, SEEK_DATA)) < 0 || (end = lseek(in, at, SEEK_HOLE)) < 0))
			break; /* the rest is a hole */
		if (holes && lseek(out, at, SEEK_SET) < 0)
			r = -1;
		while (r == 0 && at < end)
			if (sendfile(out, in, &at, (size_t)(end - at)) <= 0)
				r = -1;
	}
	if (r == 0 && holes)
		r = ftruncate(out, size);
	return r < 0 ? cai_fail_errno(err, errno, "cannot copy the image") : 0;
}

static int write_format(struct image_store *s, int erofs, const json_t *meta, const char *name,
			enum export_format format, int out, struct cai_error *err)
{
	struct layer l;
	if (format == EXPORT_EROFS)
		return copy_erofs(erofs, out, err);
	if (format == EXPORT_TAR)
		return unpack_export(erofs, out, &tree_default_limits, &l.size, l.digest, err);
	char scratch[64];
	cleanup_close int fd = image_store_temp(s, scratch, err);
	if (fd < 0)
		return -1;
	image_store_temp_drop(s, scratch);
	l.fd = fd;
	if (unpack_export(erofs, fd, &tree_default_limits, &l.size, l.digest, err) < 0)
		return -1;
	return write_oci(meta, &l, name, out, err);
}

json_t *image_export(struct image_store *s, const char *ref, const char *file, enum export_format format,
		     struct cai_error *err)
{
	json_t *o = image_store_resolve(s, ref, err), *result = NULL;
	const char *id = json_string_value(json_object_get(o, "id")),
		   *name = json_string_value(json_array_get(json_object_get(o, "tags"), 0));
	json_t *meta = o ? image_store_meta(s, id, err) : NULL;
	cleanup_close int in =
	    meta ? open(json_string_value(json_object_get(o, "rootfs")), O_RDONLY | O_CLOEXEC) : -1;
	cleanup_free char *tmp = NULL;
	struct stat st = {0};
	if (meta && in < 0)
		cai_fail_errno(err, errno, "cannot open the image %s", ref);
	if (in < 0)
		goto out;
	if (!strcmp(file, "-")) {
		if (write_format(s, in, meta, name, format, STDOUT_FILENO, err) == 0)
			result = json_null();
		goto out;
	}
	/* Beside file first, so that file is whole when it appears. */
	cleanup_close int out = asprintf(&tmp, "%s.tmp.%d", file, (int)getpid()) < 0
				    ? -1
				    : open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (out < 0) {
		cai_fail_errno(err, errno, "cannot export %s to %s", ref, file);
		goto out;
	}
	if (write_format(s, in, meta, name, format, out, err) < 0)
		cai_wrap(err, "cannot export %s", ref);
	else if (fsync(out) < 0 || fstat(out, &st) < 0 || rename(tmp, file) < 0)
		cai_fail_errno(err, errno, "cannot export %s to %s", ref, file);
	else
		result = json_pack("{s:s,s:I}", "file", file, "size", (json_int_t)st.st_size);
	if (!result)
		unlink(tmp);
out:
	json_decref(meta);
	json_decref(o);
	return result;
}
