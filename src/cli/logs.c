/* SPDX-License-Identifier: Apache-2.0 */
/* `caisson logs`: what a sandbox's program has written. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/loop.h"
#include "cli/cli.h"
#include "cli/words.h"
#include "sandbox/logfile.h"

#define CHUNK	(256u << 10)
#define POLL_MS 50

void help_logs(void)
{
	puts("usage: caisson logs [FLAGS] SANDBOX\n\n"
	     "Print what the sandbox's program wrote to its standard output and standard error.\n\n"
	     "  -f, --follow      go on until the sandbox ends\n"
	     "  -n, --tail N      only the last N lines\n"
	     "      --since TIME  only what is newer: 2026-01-02T03:04:05[Z], or how long ago: 90s, 10m, 2h\n"
	     "      --until TIME  only what is older\n"
	     "  -t, --timestamps  each line with its time");
}

enum { O_FOLLOW, O_TAIL, O_SINCE, O_UNTIL, O_TIMES, O_HELP };
const struct cli_option options_logs[] = {
	{"follow", 'f', OPT_FLAG, O_FOLLOW},
	{"tail", 'n', OPT_VALUE, O_TAIL},
	{"since", 0, OPT_VALUE, O_SINCE},
	{"until", 0, OPT_VALUE, O_UNTIL},
	{"timestamps", 't', OPT_FLAG, O_TIMES},
	{"help", 'h', OPT_FLAG, O_HELP},
	{NULL, 0, 0, 0},
};

struct logs {
	bool follow, times, help;
	long tail; /* -1: all */
	int64_t since, until;
	bool start_of_line[2];
};

int cli_parse_time(const char *text, int64_t *ns, struct cai_error *err)
{
	struct tm tm = {0};
	char *end;
	double v = strtod(text, &end);
	if (end != text && strlen(end) <= 1 && strchr("smhd", *end)) {
		double unit = *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 1;
		*ns = *end ? (int64_t)clock_real_ns() - (int64_t)(v * unit * 1e9) : (int64_t)(v * 1e9);
		return 0;
	}
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (!rest)
		rest = strptime(text, "%Y-%m-%d", &tm);
	if (!rest)
		return cai_fail(err, EINVAL, "'%s' is no time; write 2026-01-02T03:04:05Z, or how long ago: 90s, 10m, 2h", text);
	double frac = *rest == '.' ? strtod(rest, &end) : 0;
	if (*rest == '.')
		rest = end;
	if (*rest && strcmp(rest, "Z"))
		return cai_fail(err, EINVAL, "'%s': times are UTC, with Z at the end or nothing", text);
	*ns = (int64_t)timegm(&tm) * 1000000000 + (int64_t)(frac * 1e9);
	return 0;
}

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct logs *l = ctx;
	char *end;
	switch (id) {
	case O_FOLLOW:
		l->follow = true;
		return 0;
	case O_TIMES:
		l->times = true;
		return 0;
	case O_HELP:
		l->help = true;
		return 0;
	case O_TAIL:
		l->tail = !strcmp(v, "all") ? -1 : strtol(v, &end, 10);
		return !strcmp(v, "all") || (end != v && !*end && l->tail >= 0) ? 0 : cai_fail(err, EINVAL, "--tail needs a number of lines, not '%s'", v);
	case O_SINCE:
		return cli_parse_time(v, &l->since, err);
	case O_UNTIL:
		return cli_parse_time(v, &l->until, err);
	}
	return 0;
}

static int print_line(struct logs *l, const char *p, size_t n)
{
	struct log_line line;
	if (!log_line_parse(p, n, &line) || line.time_ns < l->since || (l->until && line.time_ns > l->until))
		return 0;
	FILE *f = line.stream == 1 ? stdout : stderr;
	bool *start = &l->start_of_line[line.stream - 1];
	if (l->times && *start)
		fprintf(f, "%s ", line.time);
	fwrite(line.text, 1, line.len, f);
	if (!line.partial)
		fputc('\n', f);
	*start = !line.partial;
	return ferror(f) ? -1 : 0;
}

/* The whole lines of text[0..n); returns how many bytes they were, or -1. */
static ssize_t print_lines(struct logs *l, const char *text, size_t n)
{
	size_t at = 0;
	const char *nl;
	while (at < n && (nl = memchr(text + at, '\n', n - at))) {
		if (print_line(l, text + at, (size_t)(nl - text) - at) < 0)
			return -1;
		at = (size_t)(nl - text) + 1;
	}
	return (ssize_t)at;
}

/* Prints from the descriptor's offset to its end. 0, or -1 when nobody reads any more. */
static int drain(struct logs *l, int fd, char *buf, size_t *have)
{
	for (;;) {
		ssize_t got = read(fd, buf + *have, CHUNK - *have);
		if (got <= 0)
			break;
		*have += (size_t)got;
		ssize_t used = print_lines(l, buf, *have);
		if (used < 0)
			return -1;
		if (used == 0 && *have == CHUNK)
			*have = 0; /* no line of ours is that long */
		memmove(buf, buf + used, *have - (size_t)used);
		*have -= (size_t)used;
	}
	return fflush(stdout) || fflush(stderr) ? -1 : 0;
}

/* Where the last n lines of a file begin. */
static off_t tail_offset(int fd, long n)
{
	char buf[16384];
	off_t at = lseek(fd, 0, SEEK_END);
	long seen = -1; /* the newline at the very end ends the last line */
	while (at > 0) {
		size_t want = at < (off_t)sizeof(buf) ? (size_t)at : sizeof(buf);
		at -= (off_t)want;
		if (file_pread_full(fd, buf, want, at) != (ssize_t)want)
			return 0;
		for (size_t i = want; i-- > 0;)
			if (buf[i] == '\n' && ++seen == n)
				return at + (off_t)i + 1;
	}
	return 0;
}

static int follow(struct logs *l, struct sandbox_view *v)
{
	cleanup_close int fd = openat(v->dir.dir_fd, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	cleanup_close int old = openat(v->dir.dir_fd, "log.1", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	cleanup_free char *buf = malloc(CHUNK);
	size_t have = 0;
	struct stat st, now;
	if (!buf)
		return -1;
	if (old >= 0 && l->tail < 0 && drain(l, old, buf, &have) < 0)
		return -1;
	if (fd >= 0 && l->tail >= 0)
		lseek(fd, tail_offset(fd, l->tail), SEEK_SET);
	for (;;) {
		bool runs = sandbox_dir_held(&v->dir); /* before reading: what it writes before it ends is there then */
		if (fd < 0)
			fd = openat(v->dir.dir_fd, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd >= 0 && drain(l, fd, buf, &have) < 0)
			return -1;
		if (!l->follow || !runs)
			return 0;
		/* A full log was put aside: the rest of it has been read, the new one is next. */
		if (fd >= 0 && fstat(fd, &st) == 0 && fstatat(v->dir.dir_fd, "log", &now, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino != now.st_ino) {
			close(steal_fd(&fd));
			continue;
		}
		poll(NULL, 0, POLL_MS);
	}
}

int cmd_logs(int argc, char **argv)
{
	struct logs l = {.tail = -1, .start_of_line = {true, true}};
	struct words w;
	struct cai_error err = {0};
	struct store s;
	struct sandbox_view v;
	if (words_parse(argc, argv, options_logs, set, &l, &w, &err) < 0)
		return words_usage(&err);
	if (l.help) {
		help_logs();
		return 0;
	}
	if (w.n != 1) {
		cli_say("logs takes one sandbox; see caisson logs --help");
		return CLI_EXIT_USAGE;
	}
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	int status = 0;
	if (sandbox_view_find(&s, w.v[0], &v, &err) < 0) {
		cli_say("%s", err.text);
		status = 1;
	} else {
		status = follow(&l, &v) < 0 ? 1 : 0;
		sandbox_view_free(&v);
	}
	store_close(&s);
	return status;
}
