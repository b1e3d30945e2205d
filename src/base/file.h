/* SPDX-License-Identifier: Apache-2.0 */
/* File helpers: whole reads and writes that survive EINTR and short counts. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Reads up to n bytes; stops early only at end of file. Returns the count, or -1 with errno. */
ssize_t file_read_full(int fd, void *buf, size_t n);
/* As file_read_full, at an offset. */
ssize_t file_pread_full(int fd, void *buf, size_t n, off_t off);
/* Writes all n bytes. Returns 0, or -1 with errno. */
int file_write_full(int fd, const void *buf, size_t n);
/* Reads a whole small file (at most max bytes; more is an error). *out is malloc'd, NUL-terminated past *len. */
int file_read_all(const char *path, size_t max, char **out, size_t *len, struct cai_error *err);
/* Writes path atomically: temporary file beside it, fsync, rename. */
int file_replace(const char *path, const void *buf, size_t n, mode_t mode, struct cai_error *err);

#endif
