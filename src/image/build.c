/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: an image's id is the digest of its configuration document, which holds the digests of
 * the unpacked layers: two images of one id have the same root and the same settings, however they were
 * packed and wherever they came from. What has no configuration gets one made up of nothing but its content,
 * so that importing the same thing twice gives one image.
 */
#include "image/build.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/digest.h"

static json_t *answer(const char *id, const struct image_origin *from, bool is_new,
		      const struct unpack_result *r)
{
	return json_pack("{s:s,s:s?,s:b,s:I,s:I}", "id", id, "tag", from->tag, "new", is_new, "size",
			 (json_int_t)(r ? r->size : 0), "entries", (json_int_t)(r ? r->entries : 0));
}

static json_t *commit(struct image_store *s, const char *temp, int fd, const char *id, json_t *config,
		      const struct image_origin *from, const struct unpack_result *r, struct cai_error *err)
{
	json_t *meta = json_pack("{s:i,s:s,s:s,s:I,s:I,s:s,s:O}", "version", 1, "id", id, "manifest",
				 from->manifest, "size", (json_int_t)r->size, "imported",
				 (json_int_t)time(NULL), "source", from->source, "image", config);
	if (!meta) {
		cai_fail(err, ENOMEM, "cannot describe the image (is its source's name no UTF-8?)");
		return NULL;
	}
	int ok = image_store_commit(s, temp, fd, meta, from->tag, err);
	json_decref(meta);
	return ok < 0 ? NULL : answer(id, from, true, r);
}

/* The two files that unpacking writes to; spill is gone when it is closed. */
static int make_files(struct image_store *s, char temp[64], int *out, int *spill, struct cai_error *err)
{
	char scratch[64];
	*out = *spill = -1;
	if ((*out = image_store_temp(s, temp, err)) < 0)
		return -1;
	if ((*spill = image_store_temp(s, scratch, err)) < 0) {
		image_store_temp_drop(s, temp);
		return -1;
	}
	image_store_temp_drop(s, scratch);
	return 0;
}

json_t *image_build(struct image_store *s, const char *config, size_t n, struct unpack_layer *layers,
		    unsigned n_layers, const struct image_origin *from, struct cai_error *err)
{
	char id[IMAGE_DIGEST_LEN + 1], have[IMAGE_DIGEST_LEN + 1], temp[64],
	    ids[OCI_MAX_LAYERS][IMAGE_DIGEST_LEN + 1];
	cleanup_close int out = -1, spill = -1;
	cleanup_free struct unpack_result *r = calloc(1, sizeof(*r));
	json_t *result = NULL, *doc = oci_parse(config, n, "the image's configuration", err);
	if (!doc || !r || digest_of(config, n, id) < 0 || oci_config(doc, n_layers, ids, err) < 0)
		goto out;
	for (unsigned k = 0; k < n_layers; k++)
		if (!layers[k].diff_id[0])
			strcpy(layers[k].diff_id, ids[k]);
	if (image_store_find(s, id, have, NULL) == 0) {
		if (!from->tag || image_store_tag(s, from->tag, id, err) == 0)
			result = answer(id, from, false, NULL);
		goto out;
	}
	if (make_files(s, temp, &out, &spill, err) < 0)
		goto out;
	if (unpack_layers(layers, n_layers, out, spill, &tree_default_limits, r, err) == 0)
		result = commit(s, temp, out, id, doc, from, r, err);
	if (!result)
		image_store_temp_drop(s, temp);
out:
	json_decref(doc);
	return result;
}

json_t *image_build_bare(struct image_store *s, const struct unpack_layer *layer, int dir,
			 const struct image_origin *from, struct cai_error *err)
{
	char id[IMAGE_DIGEST_LEN + 1], temp[64];
	cleanup_close int out = -1, spill = -1;
	cleanup_free struct unpack_result *r = calloc(1, sizeof(*r));
	cleanup_free char *text = NULL;
	json_t *result = NULL, *doc = NULL;
	if (!r || make_files(s, temp, &out, &spill, err) < 0)
		return NULL;
	int done = layer ? unpack_layers(layer, 1, out, spill, &tree_default_limits, r, err)
			 : unpack_directory(dir, out, spill, true, &tree_default_limits, r, err);
	if (done == 0) {
		json_t *config =
		    from->cmd ? json_pack("{s:[s],s:[s]}", "Cmd", from->cmd, "Env",
					  "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
			      : json_object();
		doc = json_pack("{s:s,s:s,s:o,s:{s:s,s:[s]}}", "architecture", "amd64", "os", "linux",
				"config", config, "rootfs", "type", "layers", "diff_ids", r->diff_ids[0]);
		text = doc ? json_dumps(doc, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
		if (text && digest_of(text, strlen(text), id) == 0)
			result = commit(s, temp, out, id, doc, from, r, err);
		else
			cai_fail(err, ENOMEM, "out of memory");
	}
	if (!result)
		image_store_temp_drop(s, temp);
	json_decref(doc);
	return result;
}

json_t *image_rootfs(const char *dir, const char *file, struct cai_error *err)
{
	cleanup_close int in = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_free struct unpack_result *r = calloc(1, sizeof(*r));
	if (in < 0 || !r) {
		cai_fail_errno(err, in < 0 ? errno : ENOMEM, "cannot open the directory %.200s", dir);
		return NULL;
	}
	cleanup_close int out = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	cleanup_free char *copy = strdup(file);
	cleanup_close int spill =
	    out < 0 || !copy ? -1 : open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (out < 0) {
		cai_fail_errno(err, errno, "cannot make %.200s", file);
		return NULL;
	}
	int e = errno;
	if (spill < 0 && (spill = memfd_create("spill", MFD_CLOEXEC)) < 0)
		cai_fail_errno(err, e, "cannot make a scratch file beside %.200s", file);
	else if (unpack_directory(in, out, spill, false, &tree_default_limits, r, err) == 0)
		return json_pack("{s:I,s:I}", "size", (json_int_t)r->size, "entries", (json_int_t)r->entries);
	else
		cai_wrap(err, "cannot make an image of %.200s", dir);
	unlink(file);
	return NULL;
}
