/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that are open soon after a start, read into the page cache anew, from their beginning to their end. What a program brings in by page faults is
 * cached page by page, what is read in order in pieces of up to 128 KiB; and the kernel maps and unmaps such a piece in one step
 * instead of page by page, each time the file is used.
 */
#ifndef GUEST_RECACHE_H
#define GUEST_RECACHE_H

#include <stddef.h>
#include <stdint.h>

#define RECACHE_FILES 256

struct recache {
	int watch;           /* fanotify; -1 where that cannot be had: then nothing is done */
	unsigned n;
	uint64_t left;       /* bytes that may still be read */
	int fd[RECACHE_FILES];
	uint64_t ino[RECACHE_FILES];
};

/* Watches what is opened from now on on the file system that path is on. */
void recache_watch(struct recache *r, const char *path);
/* Notes what was opened so far: plain files of a size for which it makes a difference. */
void recache_note(struct recache *r);
/* Reads what was noted, once nothing has it mapped any more; and ends the watch. */
void recache_read(struct recache *r);

#endif
