/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's sessions against a hostile host: the input is what the host sends on one stream, in pieces whose size its first byte
 * chooses; what is left when the agent has ended that stream (EXIT, ERROR, DETACHED) goes to another, at most MAX_STREAMS. Nothing is forked: START makes pipes without a process behind them. What the first letter of the command asks for:
 * 'c' echoes stdin to stdout, 'f' fails as a command that does not exist, 'e' has ended already; any other closed its stdin and
 * never writes. At the end nothing may be left open.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/session.h"

/* Over any pid_max: signals to it reach nobody. */
#define NO_SUCH_PID 0x3ffffff0
#define MAX_STREAMS 4u

struct host {
	struct agent *a;
	const uint8_t *p;
	size_t left, step;
	int fd;
	struct loop_source *source;
	bool reap;
	unsigned streams;
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static int setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err)
{
	*code = AGENT_E_ROOTFS;
	return m->hostname[0] == 'x' ? cai_fail(err, EINVAL, "no root") : 0;
}

static int prepare(void *ctx, char *const *argv, uint32_t *code, struct cai_error *err)
{
	*code = AGENT_E_ROOTFS;
	return argv[1] && argv[1][0] == 'x' ? cai_fail(err, EINVAL, "no root") : 0;
}

static void poweroff(void *ctx)
{
}

/* The reading end of a pipe that nobody writes to any more. */
static int at_end(const void *first, size_t n)
{
	int p[2];
	must(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	must(n == 0 || write(p[1], first, n) == (ssize_t)n);
	close(p[1]);
	return p[0];
}

static unsigned signal_session(pid_t leader, int sig)
{
	must(leader == NO_SUCH_PID);
	return 0;
}

static int spawn(const struct agent_start *m, enum spawn_how how, struct spawned *s, struct cai_error *err)
{
	static const struct spawn_report failed = {AGENT_E_NOT_FOUND, ENOENT, "no such command"};
	char kind = m->argv[0][0];
	int p[2];

	must(m->argv[0] && m->cwd && m->user && m->n_rlimits <= AGENT_MAX_RLIMITS);
	*s = (struct spawned){.pid = NO_SUCH_PID, .in = -1, .out = -1, .err = -1, .report = -1};
	if (kind == 'n')
		return cai_fail(err, EAGAIN, "no more processes");
	s->report = kind == 'f' ? at_end(&failed, sizeof(failed)) : at_end(NULL, 0);
	s->err = at_end("note", 4);
	must(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	if (kind == 'e') {
		s->out = at_end("output", 6);
		close(p[0]);
	} else {
		s->out = p[0];
	}
	if (m->flags & AGENT_START_STDIN)
		s->in = kind == 'c' ? p[1] : dup(p[1]);
	if (!(m->flags & AGENT_START_STDIN) || kind != 'c')
		close(p[1]);
	return 0;
}

static void host_step(void *ctx, uint32_t events);

static void host_connect(struct host *h)
{
	struct cai_error err;
	int sp[2];
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sp) == 0);
	h->fd = sp[1];
	h->streams++;
	h->source = loop_add_fd(h->a->loop, sp[1], EPOLLIN | EPOLLOUT, host_step, h, &err);
	must(h->source != NULL);
	must(agent_add_stream(h->a, sp[0], &err) == 0);
}

static void host_step(void *ctx, uint32_t events)
{
	struct host *h = ctx;
	uint8_t sink[4096];
	ssize_t n;

	while ((n = recv(h->fd, sink, sizeof(sink), MSG_DONTWAIT)) > 0)
		;
	if (n == 0 || (n < 0 && errno != EAGAIN)) {
		/* The agent ended its direction; having it all, it must close when we do. */
		loop_del(h->source);
		h->source = NULL;
		close(h->fd);
		h->fd = -1;
		if (h->left && h->streams < MAX_STREAMS)
			host_connect(h);
		else
			agent_stop(h->a);
		return;
	}
	if (!(events & EPOLLOUT))
		return;
	if (h->left) {
		size_t k = h->left < h->step ? h->left : h->step;
		n = send(h->fd, h->p, k, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			h->p += n;
			h->left -= (size_t)n;
		}
		return;
	}
	if (h->reap)
		session_reaped(h->a, NO_SUCH_PID, 3 << 8);
	h->reap = false;
	shutdown(h->fd, SHUT_WR);
	loop_set_events(h->source, EPOLLIN);
}

static int lowest_free_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct agent_ops ops = {.setup = setup, .prepare = prepare, .poweroff = poweroff, .spawn = spawn, .signal_session = signal_session};
	int before = lowest_free_fd();
	struct cai_error err;

	if (size < 1)
		return 0;
	signal(SIGPIPE, SIG_IGN);
	struct agent *a = agent_new(&ops, &err);
	must(a != NULL);
	a->setup_done = data[0] & 0x80;
	struct host h = {.a = a, .p = data + 1, .left = size - 1, .fd = -1, .reap = true};
	h.step = data[0] & 0x40 ? 65536 : 1 + (size_t)(data[0] & 0x3f) * 7;
	host_connect(&h);
	must(agent_run(a, &err) == 0);
	must(agent_sessions(a) <= 2 * h.streams); /* with the process that each may have detached */
	agent_free(a);
	if (h.fd >= 0)
		close(h.fd);
	must(lowest_free_fd() == before);
	return 0;
}
