/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: lines are put together per stream, since a program's writes come in arbitrary pieces, and handed to the
 * kernel in one write for each piece received, so that a reader never waits for more than what the program has written.
 */
#include "sandbox/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/loop.h"
#include "sandbox/state.h"

struct logfile {
	struct sandbox_dir *dir;
	int fd;
	uint64_t size;
	struct part {
		char *p;
		size_t n;
	} part[2];
	struct buf out;
};

static int open_file(struct logfile *l)
{
	struct stat st;
	l->fd = openat(l->dir->dir_fd, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	l->size = l->fd >= 0 && fstat(l->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
	return l->fd < 0 ? -1 : 0;
}

struct logfile *logfile_open(struct sandbox_dir *dir, struct cai_error *err)
{
	struct logfile *l = calloc(1, sizeof(*l));
	if (!l) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	l->dir = dir;
	if (open_file(l) < 0) {
		cai_fail_errno(err, errno, "cannot open %s/log", dir->path);
		free(l);
		return NULL;
	}
	return l;
}

static void put(struct logfile *l, const char *time, int stream, char tag, const char *p, size_t n)
{
	char head[64];
	int h = snprintf(head, sizeof(head), "%s %s %c ", time, stream == 1 ? "stdout" : "stderr", tag);
	buf_put_bytes(&l->out, head, (size_t)h);
	buf_put_bytes(&l->out, p, n);
	buf_put_u8(&l->out, '\n');
}

static void flush(struct logfile *l)
{
	if (!l->out.failed && l->out.len && l->fd >= 0 && file_write_full(l->fd, l->out.p, l->out.len) == 0)
		l->size += l->out.len;
	buf_free(&l->out);
	l->out = (struct buf){0};
	if (l->size > LOG_MAX_FILE) {
		close(l->fd);
		renameat(l->dir->dir_fd, "log", l->dir->dir_fd, "log.1");
		open_file(l);
	}
}

/* The unfinished line of a stream, together with p; false when memory ran out and it was dropped. */
static void add_part(struct part *q, const char *p, size_t n)
{
	if (!n)
		return;
	if (!q->p)
		q->p = malloc(LOG_MAX_LINE);
	if (q->p) {
		memcpy(q->p + q->n, p, n);
		q->n += n;
	}
}

void logfile_write(struct logfile *l, int stream, const void *data, size_t n)
{
	const char *p = data;
	struct part *q = &l->part[stream - 1];
	char time[40];
	format_time((int64_t)clock_real_ns(), time);
	while (n) {
		size_t room = LOG_MAX_LINE - q->n, look = n < room ? n : room;
		const char *nl = memchr(p, '\n', look);
		size_t take = nl ? (size_t)(nl - p) : look;
		if (nl && !q->n) {
			put(l, time, stream, 'F', p, take);
		} else {
			add_part(q, p, take);
			if (nl || q->n == LOG_MAX_LINE) {
				put(l, time, stream, nl ? 'F' : 'P', q->p ? q->p : "", q->n);
				q->n = 0;
			}
		}
		take += nl ? 1 : 0;
		p += take;
		n -= take;
	}
	flush(l);
}

void logfile_close(struct logfile *l)
{
	if (!l)
		return;
	char time[40];
	format_time((int64_t)clock_real_ns(), time);
	for (int i = 0; i < 2; i++) {
		if (l->part[i].n)
			put(l, time, i + 1, 'P', l->part[i].p, l->part[i].n);
		free(l->part[i].p);
	}
	flush(l);
	if (l->fd >= 0)
		close(l->fd);
	free(l);
}

static bool digits(const char *p, size_t n, long *v)
{
	*v = 0;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		*v = *v * 10 + (p[i] - '0');
	}
	return true;
}

bool log_line_parse(const char *p, size_t n, struct log_line *out)
{
	/* 2026-01-02T03:04:05.123456789Z stdout F text */
	long y, mo, d, h, mi, s, ns;
	if (n < 40 || !digits(p, 4, &y) || p[4] != '-' || !digits(p + 5, 2, &mo) || p[7] != '-' || !digits(p + 8, 2, &d) || p[10] != 'T' ||
	    !digits(p + 11, 2, &h) || p[13] != ':' || !digits(p + 14, 2, &mi) || p[16] != ':' || !digits(p + 17, 2, &s) || p[19] != '.' ||
	    !digits(p + 20, 9, &ns) || p[29] != 'Z' || p[30] != ' ')
		return false;
	if (!memcmp(p + 31, "stdout ", 7))
		out->stream = 1;
	else if (!memcmp(p + 31, "stderr ", 7))
		out->stream = 2;
	else
		return false;
	if ((p[38] != 'F' && p[38] != 'P') || p[39] != ' ')
		return false;
	struct tm tm = {.tm_year = (int)y - 1900, .tm_mon = (int)mo - 1, .tm_mday = (int)d, .tm_hour = (int)h, .tm_min = (int)mi, .tm_sec = (int)s};
	out->time_ns = (int64_t)timegm(&tm) * 1000000000 + ns;
	memcpy(out->time, p, 30);
	out->time[30] = 0;
	out->partial = p[38] == 'P';
	out->text = p + 40;
	out->len = n - 40;
	return true;
}
