/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work that touches hostile bytes, each piece in a confined process of its own (image/confine.h). What
 * such a process says is itself checked before it is believed. Call from a process without other threads.
 */
#ifndef IMAGE_UNPACK_H
#define IMAGE_UNPACK_H

#include "image/layer.h"
#include "image/oci.h"

struct unpack_layer {
	struct blob blob;
	char digest[IMAGE_DIGEST_LEN + 1], diff_id[IMAGE_DIGEST_LEN + 1]; /* "" is not checked */
};

struct unpack_result {
	uint64_t size, entries, bytes; /* of the EROFS file; in the tree; of contents */
	char diff_ids[OCI_MAX_LAYERS][IMAGE_DIGEST_LEN + 1];
};

/* Unpacks layers, lowest first, into an EROFS file at out (empty, readable and writable); spill is an empty
 * scratch file. */
int unpack_layers(const struct unpack_layer *l, unsigned n, int out, int spill,
		  const struct tree_limits *limits, struct unpack_result *r, struct cai_error *err);

/* The same from the directory dir (open for reading); diff_ids[0] is the digest of the EROFS file, if hash
 * asks for it, else "". */
int unpack_directory(int dir, int out, int spill, bool hash, const struct tree_limits *limits,
		     struct unpack_result *r, struct cai_error *err);

/* Writes the EROFS file as a tar archive to out (image/export.h). What it says of size and digest is checked
 * where out can be read. */
int unpack_export(int erofs, int out, const struct tree_limits *limits, uint64_t *size,
		  char diff_id[IMAGE_DIGEST_LEN + 1], struct cai_error *err);

/* A member of an archive that holds an image (docker save, OCI archive). */
struct archive_member {
	char name[200], link[200]; /* link: the name that this one stands for, or "" */
	uint64_t off, len;	   /* in the spool file */
};
#define ARCHIVE_MAX_MEMBERS 4096u
/*
 * Lists the archive in fd and copies its members to spool (an empty file). Returns how many, in members
 * (ARCHIVE_MAX_MEMBERS of them); 0 when it is no archive of an image but perhaps one of a root file system;
 * -1 on errors.
 */
int unpack_archive(int fd, int spool, const struct tree_limits *limits, struct archive_member *members,
		   struct cai_error *err);

#endif
