/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sandbox's program wrote, kept for `caisson logs`. One line of the file is
 *
 *   TIME STREAM TAG TEXT      2026-01-02T03:04:05.123456789Z stdout F hello
 *
 * as the Kubernetes CRI has it: TAG F for a whole line, P for a piece of one (it was longer than LOG_MAX_LINE, or the stream ended
 * without a newline). The file is bounded: beyond LOG_MAX_FILE it becomes log.1 and the one before is dropped.
 */
#ifndef SANDBOX_LOGFILE_H
#define SANDBOX_LOGFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/store.h"

#define LOG_MAX_LINE (16u << 10)
#define LOG_MAX_FILE (16u << 20)

struct logfile;

/* Opens the sandbox's log to go on at its end. dir is borrowed for as long as the log is open. */
struct logfile *logfile_open(struct sandbox_dir *dir, struct cai_error *err);
/* stream: 1 or 2. Never fails: what a full disk does not take is lost. */
void logfile_write(struct logfile *l, int stream, const void *p, size_t n);
void logfile_close(struct logfile *l); /* NULL is allowed */

struct log_line {
	int64_t time_ns;
	char time[36]; /* as in the file */
	int stream;    /* 1 or 2 */
	bool partial;
	const char *text; /* borrowed; not NUL-terminated */
	size_t len;
};
/* One line of the file without its newline. False for what is none. */
bool log_line_parse(const char *p, size_t n, struct log_line *out);

#endif
