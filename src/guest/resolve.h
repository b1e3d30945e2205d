/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening what a path names below a directory that it must not leave: openat2(2), in the kernel, so that no rename or link made at
 * the same time changes what is reached. Links in /proc that jump elsewhere are never followed.
 */
#ifndef GUEST_RESOLVE_H
#define GUEST_RESOLVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum resolve_scope {
	RESOLVE_BENEATH, /* whatever would leave the directory fails: EXDEV */
	RESOLVE_ROOTED,  /* the directory is "/" to absolute links and to "..", as in chroot(2) */
};

/* Opens path below dir; an empty path is dir itself. A descriptor (close-on-exec), or -1 with errno. */
int resolve_open(int dir, const char *path, enum resolve_scope scope, int flags);

/* An O_PATH descriptor of the directory; with make, directories that are missing are made, mode 0755. -1 with errno. */
int resolve_dir(int dir, const char *path, enum resolve_scope scope, bool make);

#endif
