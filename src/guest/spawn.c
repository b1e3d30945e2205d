/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * The parent makes the pipes (or opens a terminal's master) and forks. The child becomes a session leader, takes its
 * terminal or pipes as 0, 1, 2, and then, while still root, sets limits, looks up the user, makes the working directory; it
 * changes to the user, enters the directory and executes the program. A close-on-exec pipe tells the parent how that went:
 * end of file means that the program runs, a struct spawn_report says why it does not. The parent waits for neither; it
 * watches the pipe in its event loop. (Only SPAWN_TOGETHER makes it wait, as vfork does. A child that has become another user and shares
 * memory with a PID 1 of root's cannot be traced by that user: changing the user makes that memory "not dumpable".)
 *
 * The lookup in PATH follows execvp(3), in the PATH that the program itself gets, with one difference: a file that is no
 * program is an error, it is not handed to /bin/sh.
 */
#include "guest/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "guest/builtin.h"
#include "guest/kernel_abi.h"
#include "guest/users.h"

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

void spawned_close(struct spawned *s)
{
	int *fds[] = {&s->in, &s->out, &s->err, &s->report};
	for (unsigned i = 0; i < 4; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

/* Everything below, up to spawn_process, runs in the child. */

static void __attribute__((noreturn, format(printf, 4, 5)))
give_up(int report, uint32_t code, int errnum, const char *fmt, ...)
{
	struct spawn_report r = {.code = code, .errnum = errnum};
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(r.text, sizeof(r.text), fmt, ap);
	va_end(ap);
	if (write(report, &r, sizeof(r)) < 0)
		_exit(126);
	_exit(127);
}

static const char *env_value(char *const *env, const char *name)
{
	size_t n = strlen(name);
	for (; env && *env; env++)
		if (!strncmp(*env, name, n) && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

/* What make_env may add; on the child's stack, which is a copy or the caller's own. */
#define ADDED_ENV 4
struct added_env {
	char home[sizeof("HOME=") + sizeof(((struct guest_user *)0)->home)], host[sizeof("HOSTNAME=") + HOST_NAME_MAX];
};

static size_t count_env(const struct agent_start *m)
{
	size_t n = 0;
	while (m->env && m->env[n])
		n++;
	return n;
}

/* The environment of START with what is missing added; env has room for n + ADDED_ENV and the end. */
static void make_env(char **env, size_t n, struct added_env *added, const struct agent_start *m, const struct guest_user *u)
{
	static char path[] = DEFAULT_PATH, term[] = "TERM=xterm";
	char host[HOST_NAME_MAX + 1] = "";
	if (n)
		memcpy(env, m->env, n * sizeof(*env));
	gethostname(host, sizeof(host) - 1);
	if (!env_value(m->env, "PATH"))
		env[n++] = path;
	if ((m->flags & AGENT_START_TTY) && !env_value(m->env, "TERM"))
		env[n++] = term;
	if (!env_value(m->env, "HOME")) {
		snprintf(added->home, sizeof(added->home), "HOME=%s", u->home);
		env[n++] = added->home;
	}
	if (host[0] && !env_value(m->env, "HOSTNAME")) {
		snprintf(added->host, sizeof(added->host), "HOSTNAME=%s", host);
		env[n++] = added->host;
	}
	env[n] = NULL;
}

/* mkdir -p. Failure shows when the directory is entered. */
static void make_dirs(const char *path)
{
	char part[PATH_MAX];
	struct stat st;
	if (stat(path, &st) == 0 || snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return;
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		mkdir(part, 0755);
		*p = '/';
	}
	mkdir(part, 0755);
}

static void become_user(int report, const struct guest_user *u)
{
	/* Where nothing changes (root in the guest, or a test without privileges) nothing is asked for: */
	bool same = geteuid() == u->uid && getegid() == u->gid;
	if (same && u->uid != 0)
		return;
	/* a container may have taken from root what this needs, or be a user namespace that denies it. Root without its groups loses nothing. */
	if (setgroups(u->n_groups, u->groups) < 0 && !(same && errno == EPERM))
		give_up(report, AGENT_E_BAD_USER, errno, "cannot set the groups of user %u: %s", (unsigned)u->uid, strerror(errno));
	if (same)
		return;
	if (setgid(u->gid) < 0 || setuid(u->uid) < 0)
		give_up(report, AGENT_E_BAD_USER, errno, "cannot become user %u, group %u: %s", (unsigned)u->uid,
			(unsigned)u->gid, strerror(errno));
}

static void set_limits(int report, const struct agent_start *m)
{
	for (unsigned i = 0; i < m->n_rlimits; i++) {
		const struct agent_rlimit *l = &m->rlimit[i];
		struct rlimit rl = {.rlim_cur = l->soft, .rlim_max = l->hard};
		if (setrlimit((int)l->resource, &rl) < 0)
			give_up(report, AGENT_E_INTERNAL, errno, "cannot set resource limit %u: %s", l->resource,
				strerror(errno));
	}
}

/* A terminal becomes the controlling one, pipes become 0, 1, 2. */
static void take_stdio(int report, int master, const struct guest_user *u, int in, int out, int err)
{
	if (master >= 0) {
		in = ioctl(master, GUEST_TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (in < 0 || ioctl(in, TIOCSCTTY, 0) < 0)
			give_up(report, AGENT_E_INTERNAL, errno, "cannot take the terminal: %s", strerror(errno));
		out = err = in;
		/* The user may open its own terminal by name. */
		if (u->uid != geteuid() && fchown(in, u->uid, (gid_t)-1) < 0)
			give_up(report, AGENT_E_INTERNAL, errno, "cannot hand over the terminal: %s", strerror(errno));
	} else if (in < 0 || out < 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null < 0)
			give_up(report, AGENT_E_INTERNAL, errno, "cannot open /dev/null: %s", strerror(errno));
		in = in < 0 ? null : in;
		out = out < 0 ? null : out;
		err = err < 0 ? null : err;
	}
	/* Sources are all above 2 (spawn_process sees to it), so no dup2 overwrites one that is still needed. */
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		give_up(report, AGENT_E_INTERNAL, errno, "cannot set up stdin, stdout and stderr: %s", strerror(errno));
}

static void reset_signals(void)
{
	/* exec resets caught signals but keeps ignored ones. */
	sigset_t none;
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void __attribute__((noreturn)) exec_failed(int report, const char *name, const char *path, int e)
{
	struct stat st;
	if (e == ENOENT && stat(path, &st) == 0)
		give_up(report, AGENT_E_NOT_FOUND, e,
			"%.200s cannot run: the interpreter or dynamic loader that it names does not exist in the guest", name);
	if (e == ENOENT || e == ENOTDIR)
		give_up(report, AGENT_E_NOT_FOUND, e, "%.200s does not exist in the guest", name);
	if (e == EACCES && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		give_up(report, AGENT_E_NOT_EXEC, e, "%.200s is a directory, not a program", name);
	give_up(report, AGENT_E_NOT_EXEC, e, "%.200s cannot be executed: %s", name, strerror(e));
}

static void __attribute__((noreturn)) exec_program(int report, char *const *argv, char *const *env)
{
	const char *name = argv[0];
	char path[PATH_MAX];

	if (!*name)
		give_up(report, AGENT_E_NOT_FOUND, ENOENT, "the command is an empty word");
	if (strchr(name, '/')) {
		execve(name, argv, env);
		exec_failed(report, name, name, errno);
	}
	/* execvp: go on past what does not exist or may not be entered, but remember that something was there. */
	int denied = 0;
	char denied_path[PATH_MAX] = "";
	const char *p = env_value(env, "PATH");
	for (p = p ? p : ""; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
		int n = (int)strcspn(p, ":");
		if (snprintf(path, sizeof(path), "%.*s%s%s", n, p, n ? "/" : "./", name) >= (int)sizeof(path))
			continue;
		execve(path, argv, env);
		switch (errno) {
		case EACCES:
			denied = EACCES;
			memcpy(denied_path, path, sizeof(path));
			break;
		case ENOENT: {
			struct stat st;
			if (stat(path, &st) == 0)
				exec_failed(report, name, path, ENOENT);
			break;
		}
		case ENOTDIR:
		case ENAMETOOLONG:
		case ELOOP:
		case ENODEV:
		case ETIMEDOUT:
		case ESTALE:
			break;
		default:
			exec_failed(report, name, path, errno);
		}
	}
	if (denied)
		exec_failed(report, name, denied_path, denied);
	give_up(report, AGENT_E_NOT_FOUND, ENOENT, "%.200s is not found in the guest's PATH", name);
}

static void __attribute__((noreturn))
run_child(const struct agent_start *m, int report, int master, int in, int out, int err)
{
	struct guest_user u;
	struct cai_error e;

	setsid();
	reset_signals();
	if (users_lookup(m->user ? m->user : "", &u, &e) < 0)
		give_up(report, AGENT_E_BAD_USER, e.errnum, "%s", e.text);
	if (!(m->user && *m->user) && geteuid() != 0) {
		u.uid = geteuid(); /* only in tests: the agent itself is root */
		u.gid = getegid();
	}
	take_stdio(report, master, &u, in, out, err);
	set_limits(report, m);
	const char *cwd = m->cwd && *m->cwd ? m->cwd : "/";
	if (cwd[0] != '/')
		give_up(report, AGENT_E_BAD_CWD, EINVAL, "the working directory %.200s is not an absolute path", cwd);
	make_dirs(cwd);
	bool builtin = m->flags & AGENT_START_BUILTIN;
	if (builtin && !builtin_exists(m->argv[0]))
		give_up(report, AGENT_E_NOT_FOUND, ENOENT, "the agent has no function %.64s", m->argv[0]);
	struct added_env added;
	const size_t n_env = count_env(m); /* at most AGENT_MAX_ARGS */
	char *env[n_env + ADDED_ENV + 1];
	make_env(env, n_env, &added, m, &u);
	become_user(report, &u);
	if (chdir(cwd) < 0)
		give_up(report, AGENT_E_BAD_CWD, errno, "cannot enter the working directory %.200s: %s", cwd,
			strerror(errno));
	if (builtin) {
		/* No exec closes the agent's descriptors; that the report is closed says that it runs. */
		syscall(GUEST_NR_CLOSE_RANGE, 3u, ~0u, 0u);
		environ = env;
		_exit(builtin_run(m->argv));
	}
	/* All of the agent's descriptors are close-on-exec already; this is for what someone forgets one day. */
	syscall(GUEST_NR_CLOSE_RANGE, 3u, ~0u, GUEST_CLOSE_RANGE_CLOEXEC);
	exec_program(report, m->argv, env);
}

/* A descriptor that is not 0, 1 or 2, where the child puts its own. */
static int above_stdio(int *fd)
{
	if (*fd < 0 || *fd > 2)
		return 0;
	int high = fcntl(*fd, F_DUPFD_CLOEXEC, 3);
	if (high < 0)
		return -1;
	close(*fd);
	*fd = high;
	return 0;
}

/* mine becomes non-blocking; theirs stays as a program expects it. */
static int make_pipe(int *mine, int *theirs, bool i_write)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		return -1;
	*mine = p[i_write ? 1 : 0];
	*theirs = p[i_write ? 0 : 1];
	if (above_stdio(mine) < 0 || above_stdio(theirs) < 0)
		return -1;
	return fcntl(*mine, F_SETFL, O_NONBLOCK);
}

static int open_terminal(const struct agent_start *m, struct spawned *s)
{
	int unlock = 0;
	struct winsize ws = {.ws_row = m->rows, .ws_col = m->cols};
	/* Not blocking, even if someone in the guest put something else there. */
	s->out = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (s->out < 0 || above_stdio(&s->out) < 0 || ioctl(s->out, GUEST_TIOCSPTLCK, &unlock) < 0)
		return -1;
	if (m->rows && m->cols && ioctl(s->out, TIOCSWINSZ, &ws) < 0)
		return -1;
	if (m->flags & AGENT_START_STDIN) {
		s->in = fcntl(s->out, F_DUPFD_CLOEXEC, 3);
		if (s->in < 0)
			return -1;
	}
	s->tty = true;
	return 0;
}

int spawn_process(const struct agent_start *m, enum spawn_how how, struct spawned *s, struct cai_error *err)
{
	cleanup_close int in = -1, out = -1, errfd = -1, report = -1;
	*s = (struct spawned){.pid = -1, .in = -1, .out = -1, .err = -1, .report = -1};

	int rc = make_pipe(&s->report, &report, false);
	if (rc == 0 && (m->flags & AGENT_START_TTY)) {
		rc = open_terminal(m, s);
	} else if (rc == 0 && !(m->flags & AGENT_START_DETACH)) {
		if (m->flags & AGENT_START_STDIN)
			rc = make_pipe(&s->in, &in, true);
		if (rc == 0)
			rc = make_pipe(&s->out, &out, false);
		if (rc == 0)
			rc = make_pipe(&s->err, &errfd, false);
	}
	if (rc < 0) {
		cai_fail_errno(err, errno, "the guest cannot make %s", m->flags & AGENT_START_TTY ? "a terminal" : "pipes");
		spawned_close(s);
		return -1;
	}
	/* run_child never returns, changes nothing that is used here and leaves nothing allocated. A function of the agent does not become a
	 * program. */
	s->pid = how == SPAWN_TOGETHER && !(m->flags & AGENT_START_BUILTIN) ? vfork() : fork();
	if (s->pid < 0) {
		cai_fail_errno(err, errno, "the guest cannot start another process");
		spawned_close(s);
		return -1;
	}
	if (s->pid == 0)
		run_child(m, report, s->tty ? s->out : -1, in, out, errfd);
	return 0;
}

/* The session id of a process: the fourth word behind the command in /proc/PID/stat (the command itself may hold anything but is
 * the only part that may hold a parenthesis). -1 where the process is gone. */
static pid_t session_of(const char *pid)
{
	char path[64], text[1024];
	snprintf(path, sizeof(path), "/proc/%.16s/stat", pid);
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n <= 0)
		return -1;
	text[n] = 0;
	char *p = strrchr(text, ')');
	char state;
	int ppid, pgrp, sid;
	if (!p || sscanf(p + 1, " %c %d %d %d", &state, &ppid, &pgrp, &sid) != 4 || state == 'Z')
		return -1;
	return sid;
}

unsigned spawn_signal_session(pid_t leader, int sig)
{
	unsigned n = 0;
	if (leader <= 1)
		return 0;
	cleanup_closedir DIR *proc = opendir("/proc");
	struct dirent *e;
	while (proc && (e = readdir(proc))) {
		int pid = atoi(e->d_name);
		if (pid > 1 && pid != getpid() && session_of(e->d_name) == leader && kill(pid, sig) == 0)
			n++;
	}
	return n;
}
