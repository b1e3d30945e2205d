/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one event loop. A listening socket makes sessions (session.c), a signalfd for SIGCHLD reaps: as PID 1
 * every child, since orphans of the guest's programs become its children; else only those that it started itself.
 */
#include "guest/agent.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/session.h"

static void on_child(void *ctx, uint32_t events)
{
	struct agent *a = ctx;
	struct signalfd_siginfo si[8];

	session_bury(a);
	/* Signals coalesce: what counts is asking wait, not how many arrived. */
	while (read(a->signal_fd, si, sizeof(si)) > 0)
		;
	if (!a->ops.reap_all) {
		session_reap_own(a);
		return;
	}
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		session_reaped(a, pid, status);
}

static void on_connection(void *ctx, uint32_t events)
{
	struct agent *a = ctx;
	struct cai_error err;

	session_bury(a);
	int fd = accept4(a->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		agent_add_stream(a, fd, &err); /* a connection that cannot be served is closed: the host sees that */
}

static void on_oom_timer(void *ctx)
{
	struct agent *a = ctx;
	if (a->ops.oom_kills)
		a->oom_kills = a->ops.oom_kills(a->ops.ctx);
}

struct agent *agent_new(const struct agent_ops *ops, struct cai_error *err)
{
	struct agent *a = calloc(1, sizeof(*a));
	if (!a) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	a->ops = *ops;
	a->listen_fd = a->signal_fd = -1;
	a->loop = loop_new(err);
	a->scratch = malloc(SCRATCH_SIZE);
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	if (a->loop && a->scratch)
		a->signal_fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	if (a->signal_fd >= 0)
		a->sigchld = loop_add_fd(a->loop, a->signal_fd, EPOLLIN, on_child, a, err);
	if (a->sigchld)
		a->oom_timer = loop_add_timer(a->loop, on_oom_timer, a, err);
	if (!a->oom_timer) {
		if (a->loop && a->signal_fd < 0)
			cai_fail_errno(err, errno, "cannot watch for ended processes");
		agent_free(a);
		return NULL;
	}
	return a;
}

void agent_free(struct agent *a)
{
	if (!a)
		return;
	while (a->sessions)
		session_kill(a->sessions);
	session_bury(a);
	loop_free(a->loop);
	if (a->listen_fd >= 0)
		close(a->listen_fd);
	if (a->signal_fd >= 0)
		close(a->signal_fd);
	free(a->scratch);
	free(a);
}

int agent_listen(struct agent *a, int fd, struct cai_error *err)
{
	if (a->listen_fd >= 0) {
		close(fd);
		return cai_fail(err, 0, "the agent listens already");
	}
	a->listen_fd = fd;
	a->listener = loop_add_fd(a->loop, fd, EPOLLIN, on_connection, a, err);
	return a->listener ? 0 : -1;
}

int agent_add_stream(struct agent *a, int fd, struct cai_error *err)
{
	if (a->n_sessions >= AGENT_MAX_SESSIONS) {
		struct buf b = {0};
		agent_put_error(&b, AGENT_E_INTERNAL, EAGAIN, "the guest has as many sessions as it can serve");
		/* A fresh stream has room for so little; if not, closing it says the same. */
		if (!b.failed && send(fd, b.p, b.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			cai_fail(err, 0, "refused");
		buf_free(&b);
		close(fd);
		return cai_fail(err, EAGAIN, "more than %d sessions", AGENT_MAX_SESSIONS);
	}
	return session_new(a, fd, err);
}

int agent_run(struct agent *a, struct cai_error *err)
{
	return loop_run(a->loop, err);
}

void agent_stop(struct agent *a)
{
	loop_stop(a->loop);
}

unsigned agent_sessions(const struct agent *a)
{
	return a->n_sessions;
}
