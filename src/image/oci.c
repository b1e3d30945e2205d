/* SPDX-License-Identifier: Apache-2.0 */
#include "image/oci.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

json_t *oci_parse(const char *text, size_t n, const char *what, struct cai_error *err)
{
	json_error_t je;
	if (n > OCI_MAX_DOCUMENT) {
		cai_fail(err, EFBIG, "%s is larger than %u MiB", what, OCI_MAX_DOCUMENT >> 20);
		return NULL;
	}
	json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
	if (!o)
		cai_fail(err, EINVAL, "%s is no valid JSON: %s at line %d", what, je.text, je.line);
	return o;
}

static const char *member(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

int oci_kind(const json_t *doc, struct cai_error *err)
{
	if (json_is_array(json_object_get(doc, "manifests")))
		return OCI_INDEX;
	if (json_is_array(json_object_get(doc, "layers")) && json_is_object(json_object_get(doc, "config")))
		return OCI_MANIFEST;
	if (json_integer_value(json_object_get(doc, "schemaVersion")) == 1)
		return cai_fail(
		    err, EINVAL,
		    "the image is in docker's old format (schema 1); push it again with a current docker");
	return cai_fail(err, EINVAL, "the document is neither an image's manifest nor an index of them");
}

static int descriptor(const json_t *o, const char *what, struct oci_descriptor *out, struct cai_error *err)
{
	const char *digest = member(o, "digest");
	json_t *size = json_object_get(o, "size");
	if (!image_digest_valid(digest))
		return cai_fail(err, EINVAL, "%s has no sha256 digest", what);
	if (!json_is_integer(size) || json_integer_value(size) < 0)
		return cai_fail(err, EINVAL, "%s has no valid size", what);
	strcpy(out->digest, digest);
	out->size = (uint64_t)json_integer_value(size);
	return 0;
}

static bool fits(const json_t *entry)
{
	const json_t *p = json_object_get(entry, "platform");
	/* Attestations are listed as manifests of an unknown platform; artifacts have other types. */
	return !json_is_object(p) ||
	       (!strcmp(member(p, "os"), "linux") && !strcmp(member(p, "architecture"), "amd64"));
}

/* How well an entry's variant suits any machine: smaller is better. */
static unsigned variant_rank(const json_t *entry)
{
	const char *v = member(json_object_get(entry, "platform"), "variant");
	return v[0] == 'v' && v[1] >= '2' && v[1] <= '9' && !v[2] ? (unsigned)(v[1] - '1') : 0;
}

static const char *name_of(const json_t *entry)
{
	const json_t *a = json_object_get(entry, "annotations");
	const char *n = member(a, "io.containerd.image.name");
	return n[0] ? n : member(a, "org.opencontainers.image.ref.name");
}

/* Whether a name from an annotation, which may be a tag only, is the one wanted. */
static bool named(const char *have, const char *want)
{
	struct image_ref a, b;
	if (!strcmp(have, want))
		return true;
	return image_ref_parse(have, &a, NULL) == 0 && image_ref_parse(want, &b, NULL) == 0 &&
	       !strcmp(a.registry, b.registry) && !strcmp(a.repo, b.repo) && !strcmp(a.tag, b.tag);
}

int oci_pick(const json_t *index, const char *want, struct oci_descriptor *out, char ref_name[256],
	     struct cai_error *err)
{
	const json_t *list = json_object_get(index, "manifests"), *found = NULL;
	char names[200] = "";
	unsigned n = 0, all = 0;
	for (size_t k = 0; k < json_array_size(list); k++) {
		const json_t *e = json_array_get(list, k);
		all++;
		if (!fits(e))
			continue;
		const char *name = name_of(e);
		if (want && named(name, want)) {
			found = e;
			n = 1;
			break;
		}
		if (!n++)
			found = e;
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%.60s",
			 names[0] ? ", " : "", name[0] ? name : "(no name)");
		/* The same image for variants of the platform: the one for the plainest machine, of these the
		 * first. */
		if (n == 2 && json_is_object(json_object_get(found, "platform")) &&
		    json_is_object(json_object_get(e, "platform")) && !name[0]) {
			n = 1;
			if (variant_rank(e) < variant_rank(found))
				found = e;
		}
	}
	if (!n)
		return cai_fail(err, ENOENT,
				all ? "the image is not made for linux/amd64" : "the index lists no image");
	if (n > 1)
		return cai_fail(err, EINVAL, "there are several images in it; name one of: %s", names);
	if (ref_name)
		snprintf(ref_name, 256, "%.255s", name_of(found));
	return descriptor(found, "an entry of the index", out, err);
}

int oci_manifest(const json_t *doc, struct oci_manifest *out, struct cai_error *err)
{
	const json_t *layers = json_object_get(doc, "layers");
	memset(out, 0, sizeof(*out));
	if (descriptor(json_object_get(doc, "config"), "the image's configuration", &out->config, err) < 0)
		return -1;
	if (out->config.size > OCI_MAX_DOCUMENT)
		return cai_fail(err, EFBIG, "the image's configuration is larger than %u MiB",
				OCI_MAX_DOCUMENT >> 20);
	size_t n = json_array_size(layers);
	if (!n || n > OCI_MAX_LAYERS)
		return cai_fail(err, EINVAL, "the image has %zu layers; Caisson takes 1 to %u", n,
				OCI_MAX_LAYERS);
	for (size_t k = 0; k < n; k++) {
		const json_t *l = json_array_get(layers, k);
		const char *type = member(l, "mediaType");
		if (type[0] && !strstr(type, ".layer.") && !strstr(type, "image.rootfs."))
			return cai_fail(err, EINVAL,
					"this is no container image: it has a part of type '%.100s'", type);
		if (strstr(type, "foreign") || strstr(type, "encrypted"))
			return cai_fail(err, EINVAL, "a layer is of type '%.100s', which Caisson cannot read",
					type);
		if (descriptor(l, "a layer", &out->layers[k], err) < 0)
			return -1;
	}
	out->n_layers = (unsigned)n;
	return 0;
}

int oci_config(const json_t *doc, unsigned n_layers, char diff_ids[][IMAGE_DIGEST_LEN + 1],
	       struct cai_error *err)
{
	const char *os = member(doc, "os"), *arch = member(doc, "architecture");
	if (!json_is_object(doc))
		return cai_fail(err, EINVAL, "the image's configuration is no JSON object");
	if ((os[0] && strcmp(os, "linux")) || (arch[0] && strcmp(arch, "amd64")))
		return cai_fail(err, EINVAL, "the image is made for %.40s/%.40s, not for linux/amd64",
				os[0] ? os : "?", arch[0] ? arch : "?");
	const json_t *ids = json_object_get(json_object_get(doc, "rootfs"), "diff_ids");
	if (json_array_size(ids) != n_layers)
		return cai_fail(err, EINVAL, "the image's configuration names %zu layers, its manifest %u",
				json_array_size(ids), n_layers);
	for (unsigned k = 0; k < n_layers; k++) {
		const char *d = json_string_value(json_array_get(ids, k));
		if (!d || !image_digest_valid(d))
			return cai_fail(err, EINVAL,
					"the image's configuration has no valid diff_id for layer %u", k + 1);
		strcpy(diff_ids[k], d);
	}
	return 0;
}
