/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/shares.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "sandbox/paths.h"

#define FS_SOCKET 3 /* what caisson-fs inherits */
#define FS_DIR	  4
#define END_MS	  2000

struct shares {
	unsigned n, n_servers;
	struct agent_mount mount[SPEC_MAX_MOUNTS];
	char *owned[SPEC_MAX_MOUNTS * 3];
	unsigned n_owned;
	pid_t pid[SPEC_MAX_MOUNTS];
	int sock[SPEC_MAX_MOUNTS]; /* the monitor's ends, until it has its copies */
};

static char *keep(struct shares *s, char *text)
{
	if (text)
		s->owned[s->n_owned++] = text;
	return text;
}

static int open_source(const char *text, const struct spec_volume *v, struct cai_error *err)
{
	int fd = open(v->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && make_dirs(v->source, 0755) == 0) /* as docker does */
		fd = open(v->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOTDIR)
		return cai_fail(err, ENOTDIR, "-v %s: a microVM can share directories only; share the directory that the file is in", text);
	return fd < 0 ? cai_fail_errno(err, errno, "-v %s: cannot open the directory", text) : fd;
}

static int spawn(struct shares *s, const char *program, int sock, int dir, bool read_only, struct cai_error *err)
{
	char dir_arg[16];
	snprintf(dir_arg, sizeof(dir_arg), "%d", FS_DIR);
	char *argv[] = {(char *)"caisson-fs", (char *)"--dir-fd", dir_arg, read_only ? (char *)"--readonly" : NULL, NULL};
	char *env[] = {NULL};
	/* Out of the way of the numbers that they are to get. */
	cleanup_close int a = fcntl(sock, F_DUPFD_CLOEXEC, FS_DIR + 1), b = fcntl(dir, F_DUPFD_CLOEXEC, FS_DIR + 1);
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&fa, 0, 1);
	posix_spawn_file_actions_adddup2(&fa, a, FS_SOCKET);
	posix_spawn_file_actions_adddup2(&fa, b, FS_DIR);
	posix_spawnattr_init(&at);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setsigdefault(&at, &all);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
	int e = a < 0 || b < 0 ? errno : posix_spawn(&s->pid[s->n_servers], program, &fa, &at, argv, env);
	posix_spawnattr_destroy(&at);
	posix_spawn_file_actions_destroy(&fa);
	return e ? cai_fail_errno(err, e, "cannot start %s", program) : 0;
}

static int share(struct shares *s, const char *text, const char *program, struct control_config *c, struct cai_error *err)
{
	struct spec_volume v;
	int sp[2];
	if (spec_parse_volume(text, &v, err) < 0)
		return -1;
	if (c->n_fs == CONTROL_MAX_FS)
		return cai_fail(err, E2BIG, "a microVM shares at most %d directories", CONTROL_MAX_FS);
	cleanup_close int dir = open_source(text, &v, err);
	if (dir < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sp) < 0)
		return cai_fail_errno(err, errno, "cannot make a socket");
	cleanup_close int mine = sp[0], theirs = sp[1];
	if (spawn(s, program, theirs, dir, v.read_only, err) < 0)
		return -1;
	struct control_fs *f = &c->fs[c->n_fs];
	snprintf(f->tag, sizeof(f->tag), "v%u", s->n_servers);
	c->fs_fd[c->n_fs++] = s->sock[s->n_servers++] = steal_fd(&mine);
	s->mount[s->n++] = (struct agent_mount){.type = AGENT_MOUNT_VIRTIOFS,
						.source = keep(s, strdup(f->tag)),
						.target = keep(s, strdup(v.target)),
						.flags = v.read_only ? AGENT_MOUNT_RDONLY : 0};
	return 0;
}

struct shares *shares_start(struct loop *l, const struct sandbox_spec *spec, struct control_config *c, struct cai_error *err)
{
	struct shares *s = calloc(1, sizeof(*s));
	if (!s) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	cleanup_free char *program = spec->volumes && *spec->volumes ? paths_libexec("caisson-fs", err) : NULL;
	for (char *const *t = spec->volumes; t && *t; t++)
		if (!program || share(s, *t, program, c, err) < 0) {
			shares_stop(s);
			return NULL;
		}
	for (char *const *t = spec->tmpfs; t && *t; t++) {
		char *target = keep(s, strdup(*t)), *options = target ? strchr(target, ':') : NULL;
		if (options)
			*options++ = 0;
		s->mount[s->n++] = (struct agent_mount){.type = AGENT_MOUNT_TMPFS, .target = target, .options = options};
	}
	/* The image's VOLUMEs are directories of the writable layer, and of a read-only root memory. */
	for (char *const *t = spec->anon; t && *t && s->n < SPEC_MAX_MOUNTS; t++)
		s->mount[s->n++] = (struct agent_mount){.type = spec->read_only ? AGENT_MOUNT_TMPFS : AGENT_MOUNT_DIRECTORY, .target = *t};
	return s;
}

void shares_setup(const struct shares *s, struct agent_setup *m)
{
	m->n_mounts = s->n;
	for (unsigned i = 0; i < s->n; i++)
		m->mount[i] = s->mount[i];
}

void shares_stop(struct shares *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->n_servers; i++)
		if (s->sock[i] >= 0)
			close(s->sock[i]);
	uint64_t end = clock_mono_ns() + END_MS * 1000000ull;
	for (unsigned i = 0; i < s->n_servers; i++) {
		int r;
		while ((r = waitpid(s->pid[i], NULL, WNOHANG)) == 0 && clock_mono_ns() < end)
			poll(NULL, 0, 1);
		if (r == 0) {
			kill(s->pid[i], SIGKILL);
			waitpid(s->pid[i], NULL, 0);
		}
	}
	for (unsigned i = 0; i < s->n_owned; i++)
		free(s->owned[i]);
	free(s);
}
