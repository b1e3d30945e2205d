/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees to and from a sandbox, as tar streams: the host's half of `caisson cp`; the other half is the
 * agent's. What comes from a sandbox is hostile. Both functions confine the process that calls them for good,
 * and are therefore the last thing that it does.
 */
#ifndef IMAGE_COPY_H
#define IMAGE_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct copy_result {
	uint64_t entries, bytes; /* written; of contents */
	uint64_t left_out; /* entries that were refused or have no place in a tar; told on standard error */
};

struct copy_out_options {
	const char *name; /* what the top entry is called; NULL: path's last part */
	bool contents;	  /* what is in the directory path, without path itself */
	bool follow;	  /* path itself is followed when it is a symbolic link */
	bool owner;	  /* keep owners (numbers); else everything belongs to root */
};

/*
 * Writes a tar (ustar, with pax headers where that cannot say it) of path, a file or a directory with all
 * below it, to the descriptor out: modes, times, symbolic and hard links, FIFOs, devices. Sockets are left
 * out, and so are extended attributes. Where path ends in "", "." or ".." the names have no top entry, as
 * with contents. Links below path are never followed.
 */
int copy_out(const char *path, const struct copy_out_options *o, int out, struct copy_result *r,
	     struct cai_error *err);

struct copy_in_options {
	const char *from; /* what every name in the archive must begin with ("." when it holds contents only);
			     NULL: what the first one begins with */
	const char *name; /* takes its place; NULL: it stays */
	bool contents;	  /* it is left out: what is in the top directory goes into dest itself */
	bool owner;	  /* root only: keep owners (numbers), set-user-id and set-group-id bits */
};

/*
 * Extracts the tar that comes from the descriptor in below dest, a directory that is there. Nothing is made,
 * changed or removed outside of it, whatever the archive says and whatever others do to the tree meanwhile:
 * where the host allows it dest is the process's root directory, links are never followed, ".." is refused.
 * A file that is there is replaced, never written into; a directory and what is none never replace each
 * other. Directories that are there keep their modes and owners. A hard link leads only to what this archive
 * brought. Devices are left out. What was extracted before an error stays.
 */
int copy_in(const char *dest, const struct copy_in_options *o, int in, struct copy_result *r,
	    struct cai_error *err);
/* The same below an open directory, without confining the process: for tests. */
int copy_in_at(int dir, const struct copy_in_options *o, int in, struct copy_result *r,
	       struct cai_error *err);

#endif
