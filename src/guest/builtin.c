/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a table of functions that have the form of a small program: words in, an error out. What they print goes
 * through one buffer of JSON text, written at the end, so that a failure prints nothing but its sentence.
 */
#include "guest/builtin.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "guest/json.h"
#include "guest/prepare.h"
#include "guest/procs.h"
#include "guest/tar.h"
#include "proto/agent.h"
#include "proto/text.h"

static int print(struct buf *b, struct cai_error *err)
{
	buf_put_u8(b, '\n');
	int rc = b->failed ? cai_fail(err, ENOMEM, "out of memory in the sandbox") : file_write_full(STDOUT_FILENO, b->p, b->len);
	if (rc < 0 && !b->failed)
		cai_fail_errno(err, errno, "cannot write the answer");
	buf_free(b);
	return rc;
}

static int run_stat(char *const *argv, struct cai_error *err)
{
	const char *path = argv[1];
	struct stat st;
	struct buf b = {0};
	char target[PATH_MAX];

	if (lstat(path, &st) < 0)
		return cai_fail_errno(err, errno, "%.300s", path);
	const char *type = S_ISDIR(st.st_mode) ? "dir" : S_ISREG(st.st_mode) ? "file" : S_ISLNK(st.st_mode) ? "link" : "other";
	json_put(&b, "{\"type\":\"%s\",\"mode\":%u,\"size\":%lld,\"uid\":%u,\"gid\":%u,\"mtime\":%lld", type, st.st_mode & 07777u,
		 (long long)st.st_size, st.st_uid, st.st_gid, (long long)st.st_mtime);
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlink(path, target, sizeof(target));
		if (n < 0) {
			buf_free(&b);
			return cai_fail_errno(err, errno, "%.300s", path);
		}
		json_put(&b, ",\"target\":");
		json_put_string(&b, target, (size_t)n);
	}
	json_put(&b, "}");
	return print(&b, err);
}

static int run_tar_out(char *const *argv, struct cai_error *err)
{
	return tar_out(argv[1], STDOUT_FILENO, err);
}

static ssize_t read_stdin(void *ctx, void *p, size_t n)
{
	return read(STDIN_FILENO, p, n);
}

/* "UID:GID" */
static bool parse_owner(const char *s, struct tar_in_options *o)
{
	char *end;
	unsigned long uid = strtoul(s, &end, 10);
	if (*s < '0' || *s > '9' || *end != ':' || uid >= UINT32_MAX)
		return false;
	s = end + 1;
	unsigned long gid = strtoul(s, &end, 10);
	o->set_owner = true;
	o->uid = (uint32_t)uid;
	o->gid = (uint32_t)gid;
	return *s >= '0' && *s <= '9' && !*end && gid < UINT32_MAX;
}

static int run_tar_in(char *const *argv, struct cai_error *err)
{
	struct tar_in_options o = {0};
	for (int i = 2; argv[i]; i++)
		if (strncmp(argv[i], "--owner=", 8) != 0 || !parse_owner(argv[i] + 8, &o))
			return cai_fail(err, EINVAL, "unknown option %.64s", argv[i]);
	cleanup_close int dir = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return cai_fail_errno(err, errno, "%.300s", argv[1]);
	return tar_in(dir, read_stdin, NULL, &o, err);
}

static int print_json(int (*fill)(struct buf *json, struct cai_error *err), struct cai_error *err)
{
	struct buf b = {0};
	if (fill(&b, err) == 0)
		return print(&b, err);
	buf_free(&b);
	return -1;
}

static int run_ps(char *const *argv, struct cai_error *err)
{
	return print_json(procs_list, err);
}

static int run_stats(char *const *argv, struct cai_error *err)
{
	return print_json(procs_stats, err);
}

static const struct builtin {
	const char *name;
	int min, max; /* words behind the name */
	int (*run)(char *const *argv, struct cai_error *err);
} builtins[] = {
	{"stat", 1, 1, run_stat},       {"tar-out", 1, 1, run_tar_out}, {"tar-in", 1, 8, run_tar_in},
	{"prepare", 2, AGENT_MAX_ARGS, prepare_warm_up},
	{"ps", 0, 0, run_ps},           {"stats", 0, 0, run_stats},
};

static const struct builtin *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(builtins); i++)
		if (!strcmp(builtins[i].name, name))
			return &builtins[i];
	return NULL;
}

bool builtin_exists(const char *name)
{
	return find(name) != NULL;
}

int builtin_run(char *const *argv)
{
	const struct builtin *f = find(argv[0]);
	struct cai_error err = {.text = ""};
	int n = 0;

	while (argv[n + 1])
		n++;
	if (!f || n < f->min || n > f->max) {
		dprintf(STDERR_FILENO, "%s: wrong number of arguments\n", argv[0]);
		return 2;
	}
	if (f->run(argv, &err) < 0) {
		proto_make_printable(err.text, false); /* it may hold names of files */
		dprintf(STDERR_FILENO, "%s\n", err.text);
		return 1;
	}
	return 0;
}
