/* SPDX-License-Identifier: Apache-2.0 */
/* Making an image of layers or of a directory and putting it into the store; what import, pull and bootstrap
 * share. */
#ifndef IMAGE_BUILD_H
#define IMAGE_BUILD_H

#include "image/store.h"
#include "image/unpack.h"

struct image_origin {
	const char *source;   /* for people: a path or a reference */
	const char *manifest; /* digest of the manifest, or "" */
	const char *tag;      /* full name to give the image, or NULL */
	const char *cmd;      /* for images without a configuration: the default command, or NULL */
};

/*
 * An image of an OCI configuration document (its n bytes as they came, whose digest is the image's id) and
 * its layers. Layers without a diff_id get the configuration's. When the store has the image already, only
 * the tag is set. Returns
 * {"id", "tag", "new", "size", "entries"}, or NULL.
 */
json_t *image_build(struct image_store *s, const char *config, size_t n, struct unpack_layer *layers,
		    unsigned n_layers, const struct image_origin *from, struct cai_error *err);
/* An image of one layer without a configuration, or (layer NULL) of the open directory dir; the configuration
 * is made up. */
json_t *image_build_bare(struct image_store *s, const struct unpack_layer *layer, int dir,
			 const struct image_origin *from, struct cai_error *err);

/* PATH: a directory (an OCI layout, a directory of skopeo's or a root), or a file (docker save, OCI archive,
 * root tar); "-" is standard input. name: what to call it, or NULL for the names it has; of several images,
 * it is the name of the one that is meant. */
json_t *image_import(struct image_store *s, const char *path, const char *name, struct cai_error *err);
/* debian[:SUITE] with packages (comma-separated, or NULL) through mmdebstrap. */
json_t *image_bootstrap(struct image_store *s, const char *what, const char *packages, const char *name,
			struct cai_error *err);

/* An EROFS file of a directory, outside of the store: file must not be there, and is gone after a failure.
 * Not synced. {"size", "entries"}. */
json_t *image_rootfs(const char *dir, const char *file, struct cai_error *err);

/* From a registry, over HTTPS (plain HTTP on loopback when that is all there is). Progress goes to standard
 * error when it is a terminal and quiet is false. */
json_t *image_pull(struct image_store *s, const char *ref, bool quiet, struct cai_error *err);

#endif
