/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes with an image: a first byte 't' is followed by a layer (tar, perhaps compressed), which goes through merging into an
 * EROFS file; anything else is one of the JSON documents, and the text of a reference.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/layer.h"
#include "image/oci.h"
#include "image/registry.h"
#include "image/run_config.h"

static void layer(const uint8_t *data, size_t size)
{
	struct tree_limits l = tree_default_limits;
	struct tree t;
	struct erofs_writer w;
	struct cai_error err;
	uint64_t n;
	l.max_bytes = 16 << 20;
	l.max_entries = 2000;
	l.ratio_from = 1 << 20;
	int in = memfd_create("in", 0), out = memfd_create("out", 0), spill = memfd_create("spill", 0);
	if (in < 0 || out < 0 || spill < 0 || write(in, data, size) != (ssize_t)size || tree_init(&t, &l) < 0)
		abort();
	if (erofs_writer_init(&w, out, spill, l.max_bytes, &err) == 0) {
		struct blob b = {.fd = in, .len = size};
		t.drop = erofs_file_drop;
		t.drop_ctx = &w;
		layer_apply(&b, 1, NULL, NULL, &t, &w, NULL, &err);
		if (layer_apply(&b, 2, NULL, NULL, &t, &w, NULL, &err) == 0)
			erofs_finish(&w, &t, &n, &err);
	}
	erofs_writer_free(&w);
	tree_free(&t);
	close(in);
	close(out);
	close(spill);
}

static void document(const uint8_t *data, size_t size)
{
	struct cai_error err;
	struct oci_descriptor d;
	char name[256];
	json_t *doc = oci_parse((const char *)data, size, "it", &err);
	struct oci_manifest *m = malloc(sizeof(*m));
	char(*ids)[IMAGE_DIGEST_LEN + 1] = malloc(OCI_MAX_LAYERS * sizeof(*ids));
	if (doc && m && ids) {
		oci_kind(doc, &err);
		oci_pick(doc, "x:1", &d, name, &err);
		oci_manifest(doc, m, &err);
		for (unsigned k = 0; k < 3; k++)
			oci_config(doc, k, ids, &err);
	}
	struct image_run_config c;
	struct image_run_request q = {0};
	struct image_run_plan p;
	if (doc && image_run_config_parse(json_object_get(doc, "config") ? json_object_get(doc, "config") : doc, &c, &err) == 0) {
		if (image_run_plan_make(&c, &q, &p, &err) == 0)
			image_run_plan_free(&p);
		image_run_config_free(&c);
	}
	json_decref(doc);
	free(m);
	free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_ref ref;
	if (size && data[0] == 't') {
		layer(data + 1, size - 1);
		return 0;
	}
	document(data, size);
	char *text = strndup((const char *)data, size);
	char value[64];
	if (text) {
		image_ref_parse(text, &ref, NULL);
		registry_challenge(text, "realm", value, sizeof(value));
		image_signal_number(text);
	}
	free(text);
	return 0;
}
