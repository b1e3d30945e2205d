/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON documents of an image: index, manifest, configuration (OCI image specification 1.1; docker's
 * schema 2 is the same with other media types). All are hostile; nothing that these functions accept is
 * larger than stated here.
 */
#ifndef IMAGE_OCI_H
#define IMAGE_OCI_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/ref.h"

#define OCI_MAX_LAYERS	 256u
#define OCI_MAX_DOCUMENT (4u << 20) /* bytes of JSON */

struct oci_descriptor {
	char digest[IMAGE_DIGEST_LEN + 1];
	uint64_t size;
};

struct oci_manifest {
	struct oci_descriptor config, layers[OCI_MAX_LAYERS];
	unsigned n_layers;
};

enum oci_kind { OCI_INDEX, OCI_MANIFEST };

/* Parses a document, refusing duplicate keys and what is no object. A new reference, or NULL. what names it
 * in the sentence. */
json_t *oci_parse(const char *text, size_t n, const char *what, struct cai_error *err);
/* Which document it is; -1 for one that Caisson does not know, docker's old schema 1 included. */
int oci_kind(const json_t *doc, struct cai_error *err);
/*
 * The manifest of an index that fits this machine (linux/amd64; entries without a platform fit). want: the
 * name or tag of the one meant, matched against annotations, or NULL; several that fit are an error that
 * lists their names. ref_name (may be NULL) gets its name, or "".
 */
int oci_pick(const json_t *index, const char *want, struct oci_descriptor *out, char ref_name[256],
	     struct cai_error *err);
int oci_manifest(const json_t *doc, struct oci_manifest *out, struct cai_error *err);
/* Checks a configuration: linux/amd64, and a diff_id for each of the n_layers layers, which go to diff_ids.
 */
int oci_config(const json_t *doc, unsigned n_layers, char diff_ids[][IMAGE_DIGEST_LEN + 1],
	       struct cai_error *err);

#endif
