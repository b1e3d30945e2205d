/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `caisson cp`. Theory of operation: a tar goes from one side to the other. In the sandbox the agent makes or extracts it, confined as
 * everything in there is; on this host caisson-image does, confined to the destination. Neither end resolves a path of the other. What is
 * decided here is only what docker decides: where the copy goes and what its top entry is called.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/words.h"
#include "sandbox/call.h"
#include "sandbox/paths.h"

extern char **environ;

void help_cp(void)
{
	puts("usage: caisson cp [FLAGS] SANDBOX:PATH DEST\n"
	     "       caisson cp [FLAGS] SOURCE SANDBOX:PATH\n\n"
	     "Copy a file or a directory with all that is in it, out of a running sandbox or into one. As with docker: into DEST when that is\n"
	     "a directory, else as DEST; of a SOURCE that ends in '/.' the contents only; '-' is a tar archive on standard output or\n"
	     "standard input.\n\n"
	     "  -a, --archive      keep owners (as numbers); else a copy belongs to root in the sandbox, to you on this host\n"
	     "  -L, --follow-link  a SOURCE that is a symbolic link is followed");
}

enum { B_ARCHIVE, B_FOLLOW, B_HELP };
const struct cli_option options_cp[] = {
	{"archive", 'a', OPT_FLAG, B_ARCHIVE},
	{"follow-link", 'L', OPT_FLAG, B_FOLLOW},
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};

/* What stands at a path: of either side. */
struct place {
	bool there, dir;
};

struct copy {
	struct sandbox_view *v;
	uint32_t bits;
	char dir[4096];	   /* where the archive is extracted */
	char name[256];	   /* what the top entry is to be called; "": as it is */
	bool contents;
};

/* "SANDBOX:PATH": where the colon is; NULL for a path of this host (one that begins with '/', '.' or '-', or has no colon). */
static const char *colon(const char *arg)
{
	return arg[0] == '/' || arg[0] == '.' || !strcmp(arg, "-") ? NULL : strchr(arg, ':');
}

static bool ends_in_dot(const char *path)
{
	size_t n = strlen(path);
	return !strcmp(path, ".") || (n >= 2 && !strcmp(path + n - 2, "/."));
}

/* Splits into the directory and the last part, without slashes at the end. */
static int split(const char *path, char *dir, size_t dn, char *base, size_t bn, struct cai_error *err)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	size_t slash = n;
	while (slash > 0 && path[slash - 1] != '/')
		slash--;
	if (n - slash >= bn || slash >= dn || n == 0)
		return cai_fail(err, ENAMETOOLONG, "the path '%.80s' is too long", path);
	snprintf(base, bn, "%.*s", (int)(n - slash), path + slash);
	snprintf(dir, dn, "%.*s", (int)slash, slash ? path : ".");
	if (!slash)
		strcpy(dir, ".");
	return 0;
}

/* Decides as docker does. from_base: the source's own name. */
static int decide(struct copy *c, bool source_is_dir, bool contents, const struct place *to, const char *to_path, struct cai_error *err)
{
	size_t n = strlen(to_path);
	bool slash = n && to_path[n - 1] == '/';
	if (to->there && to->dir) {
		if (n >= sizeof(c->dir))
			return cai_fail(err, ENAMETOOLONG, "the path '%.80s' is too long", to_path);
		strcpy(c->dir, to_path);
		c->contents = contents;
		return 0;
	}
	if (to->there && source_is_dir)
		return cai_fail(err, ENOTDIR, "a directory cannot be copied onto the file %s", to_path);
	if (slash && !source_is_dir)
		return cai_fail(err, ENOENT, "there is no directory %s", to_path);
	return split(to_path, c->dir, sizeof(c->dir), c->name, sizeof(c->name), err);
}

/* Starts caisson-image with standard input or output replaced by fd. answer: a pipe for its JSON, or -1. */
static pid_t helper(const char *const *words, int in, int out, struct cai_error *err)
{
	cleanup_free char *prog = paths_libexec("caisson-image", err);
	posix_spawn_file_actions_t fa;
	pid_t pid = -1;
	if (!prog)
		return -1;
	posix_spawn_file_actions_init(&fa);
	if (in >= 0)
		posix_spawn_file_actions_adddup2(&fa, in, 0);
	if (out >= 0)
		posix_spawn_file_actions_adddup2(&fa, out, 1);
	else
		posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	int e = posix_spawn(&pid, prog, &fa, NULL, (char *const *)(uintptr_t)words, environ);
	posix_spawn_file_actions_destroy(&fa);
	return e ? cai_fail_errno(err, e, "cannot run %s", prog) : pid;
}

/* Waits for the helper: 0, or -1 with *err, which is empty when the helper has said itself what is wrong. */
static int reap(pid_t pid, struct cai_error *err)
{
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		return cai_fail(err, 0, "caisson-image was killed by signal %d (%s); what was copied is incomplete", WTERMSIG(status),
				strsignal(WTERMSIG(status)));
	return WEXITSTATUS(status) ? -1 : 0;
}

static int look_inside(struct sandbox_view *v, const char *path, struct place *p, struct cai_error *err)
{
	struct cai_error e = {0};
	char through[4096];
	*p = (struct place){0};
	json_t *o = call_builtin_json(v, (char *[]){(char *)"stat", (char *)(uintptr_t)path, NULL}, 65536, &e);
	const char *type = json_string_value(json_object_get(o, "type"));
	if (type && !strcmp(type, "link")) { /* where it leads decides */
		json_decref(o);
		snprintf(through, sizeof(through), "%.4090s/.", path);
		p->there = true;
		o = call_builtin_json(v, (char *[]){(char *)"stat", through, NULL}, 65536, &e);
		p->dir = o != NULL;
		json_decref(o);
		return 0;
	}
	if (type) {
		p->there = true;
		p->dir = !strcmp(type, "dir");
	} else if (!strstr(e.text, "No such file")) {
		json_decref(o);
		return cai_fail(err, e.errnum, "%s", e.text);
	}
	json_decref(o);
	return 0;
}

static void look_here(const char *path, struct place *p)
{
	struct stat st;
	*p = (struct place){0};
	p->there = stat(path, &st) == 0;
	p->dir = p->there && S_ISDIR(st.st_mode);
}

/* What every name in the agent's archive of path begins with, as proto/agent.h has it: anything else that comes is not what was asked for. */
static int archive_top(const char *path, char *top, size_t n, struct cai_error *err)
{
	char dir[4096];
	if (split(path, dir, sizeof(dir), top, n, err) < 0)
		return -1;
	if (!*top || !strcmp(top, "/") || !strcmp(top, ".") || !strcmp(top, ".."))
		strcpy(top, ".");
	return 0;
}

static int copy_out_of(struct copy *c, const char *path, const char *dest, struct cai_error *err)
{
	struct place from, to;
	char top[256];
	int p[2];
	if (archive_top(path, top, sizeof(top), err) < 0 || look_inside(c->v, path, &from, err) < 0)
		return -1;
	if (!from.there)
		return cai_fail(err, ENOENT, "there is no %s in the sandbox", path);
	char follow[4096];
	snprintf(follow, sizeof(follow), "%.4090s%s", path, (c->bits & 1u << B_FOLLOW) && from.dir ? "/" : "");
	char *argv[] = {(char *)"tar-out", follow, NULL};
	if (!strcmp(dest, "-"))
		return call_builtin(c->v, argv, -1, STDOUT_FILENO, err) ? -1 : 0;
	look_here(dest, &to);
	bool contents = ends_in_dot(path);
	if (decide(c, from.dir, contents, &to, dest, err) < 0)
		return -1;
	if (contents && !to.there) { /* a directory of that name, and the contents into it */
		if (mkdir(dest, 0755) < 0)
			return cai_fail_errno(err, errno, "cannot make %s", dest);
		snprintf(c->dir, sizeof(c->dir), "%s", dest);
		c->name[0] = 0;
		c->contents = true;
	}
	if (access(c->dir, W_OK) < 0)
		return cai_fail_errno(err, errno, "cannot write to %s", c->dir);
	if (pipe2(p, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int rd = p[0], wr = p[1];
	const char *words[12] = {"caisson-image", "untar", "--from", top};
	unsigned n = 4;
	if (c->bits & 1u << B_ARCHIVE)
		words[n++] = "--owner";
	if (c->contents)
		words[n++] = "--contents";
	else if (c->name[0]) {
		words[n++] = "--name";
		words[n++] = c->name;
	}
	words[n++] = "--";
	words[n++] = c->dir;
	pid_t pid = helper(words, rd, -1, err);
	if (pid < 0)
		return -1;
	close(steal_fd(&rd));
	int r = call_builtin(c->v, argv, -1, wr, err);
	close(steal_fd(&wr));
	struct cai_error why = {0};
	if (reap(pid, &why) < 0) {
		*err = why; /* the agent's broken pipe is no news beside it */
		return -1;
	}
	return r ? -1 : 0;
}

static int copy_into(struct copy *c, const char *source, const char *path, struct cai_error *err)
{
	struct place from, to;
	int p[2];
	if (look_inside(c->v, path, &to, err) < 0)
		return -1;
	if (!strcmp(source, "-")) {
		if (!to.dir)
			return cai_fail(err, ENOTDIR, "there is no directory %s in the sandbox to extract the archive in", path);
		return call_builtin(c->v, (char *[]){(char *)"tar-in", (char *)(uintptr_t)path, NULL}, STDIN_FILENO, STDOUT_FILENO, err) ? -1 : 0;
	}
	struct stat st;
	if (lstat(source, &st) < 0)
		return cai_fail_errno(err, errno, "cannot copy %s", source);
	look_here(source, &from);
	bool is_dir = S_ISDIR(st.st_mode) || ((c->bits & 1u << B_FOLLOW) && from.dir) || (from.dir && source[strlen(source) - 1] == '/');
	bool contents = ends_in_dot(source);
	if (decide(c, is_dir, contents, &to, path, err) < 0)
		return -1;
	if (pipe2(p, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int rd = p[0], wr = p[1];
	const char *words[12] = {"caisson-image", "tar"};
	unsigned n = 2;
	if (c->bits & 1u << B_ARCHIVE)
		words[n++] = "--owner";
	if (c->bits & 1u << B_FOLLOW)
		words[n++] = "--follow";
	if (c->contents)
		words[n++] = "--contents";
	else if (c->name[0]) {
		words[n++] = "--name";
		words[n++] = c->name;
	}
	words[n++] = "--";
	words[n++] = source;
	pid_t pid = helper(words, -1, wr, err);
	if (pid < 0)
		return -1;
	close(steal_fd(&wr));
	int r = call_builtin(c->v, (char *[]){(char *)"tar-in", c->dir, NULL}, rd, STDOUT_FILENO, err);
	close(steal_fd(&rd));
	struct cai_error why = {0};
	int h = reap(pid, &why);
	if (r == 0 && h < 0)
		*err = why;
	return r || h < 0 ? -1 : 0;
}

int cmd_cp(int argc, char **argv)
{
	struct words w;
	struct cai_error err = {0};
	struct copy c = {0};
	if (words_parse(argc, argv, options_cp, words_set_bits, &c.bits, &w, &err) < 0)
		return words_usage(&err);
	if (c.bits & 1u << B_HELP) {
		help_cp();
		return 0;
	}
	const char *out = w.n == 2 ? colon(w.v[0]) : NULL, *in = w.n == 2 ? colon(w.v[1]) : NULL;
	if (!out == !in) {
		cli_say(out ? "cp copies between this host and a sandbox, not between two sandboxes" : "one of two paths must be SANDBOX:PATH; see caisson cp --help");
		return CLI_EXIT_USAGE;
	}
	struct store s;
	struct sandbox_view v;
	char name[128];
	const char *arg = out ? w.v[0] : w.v[1], *path = (out ? out : in) + 1;
	snprintf(name, sizeof(name), "%.*s", (int)(path - 1 - arg), arg);
	if (!*path) {
		cli_say("which path in the sandbox? write %s:PATH", name);
		return CLI_EXIT_USAGE;
	}
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	int status = 1;
	signal(SIGPIPE, SIG_IGN);
	if (sandbox_view_find(&s, name, &v, &err) == 0) {
		c.v = &v;
		if ((out ? copy_out_of(&c, path, w.v[1], &err) : copy_into(&c, w.v[0], path, &err)) == 0)
			status = 0;
		sandbox_view_free(&v);
	}
	if (status && err.text[0])
		cli_say("%s", err.text);
	store_close(&s);
	return status;
}
