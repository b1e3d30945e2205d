/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the monitor is forked, so that the child can enter its control group first: moving a
 * process from outside waits for the kernel's grace period. It gets /dev/null, a pipe for its diagnostics and the control socket,
 * and never a descriptor of the user's terminal: a monitor taken over by its guest must not be able to type
 * into the user's shell. It also gets its own session, so that Ctrl-C goes to this process alone, which
 * decides what it means.
 *
 * The control socket is the leash: when this process dies in whatever way, the kernel closes our end and the
 * monitor exits.
 */
#include "sandbox/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"

#define STOP_TIMEOUT_NS 2000000000ull

void monitor_init(struct monitor *m)
{
	*m = (struct monitor){.control = -1, .log = -1};
}

/* In the child: nothing but the descriptors that it is meant to have, in the places where it looks for them. */
static void become_monitor(const char *program, int control, int log, int fail, void (*prepare)(void *ctx), void *ctx)
{
	sigset_t none;
	char *env[] = {log_debug_on() ? (char *)"CAISSON_DEBUG=1" : NULL, NULL};
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	for (int i = 1; i < NSIG; i++)
		sigaction(i, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (prepare)
		prepare(ctx);
	/* Out of the way of 0 to CONTROL_FD first. */
	control = fcntl(control, F_DUPFD_CLOEXEC, CONTROL_FD + 1);
	log = fcntl(log, F_DUPFD_CLOEXEC, CONTROL_FD + 1);
	fail = fcntl(fail, F_DUPFD_CLOEXEC, CONTROL_FD + 1);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (control >= 0 && log >= 0 && null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1 && dup2(log, 2) == 2 &&
	    dup2(control, CONTROL_FD) == CONTROL_FD)
		execve(program, (char *[]){(char *)"caisson-vmm", NULL}, env);
	int e = errno;
	if (write(fail, &e, sizeof(e)) < 0)
		_exit(126);
	_exit(127);
}

int monitor_start(struct monitor *m, const char *program, void (*prepare)(void *ctx), void *ctx, struct cai_error *err)
{
	int sp[2], lp[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sp) < 0)
		return cai_fail_errno(err, errno, "cannot make the control socket");
	cleanup_close int mine = sp[0], theirs = sp[1];
	if (pipe2(lp, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int log_rd = lp[0], log_wr = lp[1];
	if (fcntl(mine, F_SETFL, O_NONBLOCK) < 0 || fcntl(log_rd, F_SETFL, O_NONBLOCK) < 0)
		return cai_fail_errno(err, errno, "cannot set up the control socket");

	int failed[2]; /* says which errno execve had; closed by a successful one */
	if (pipe2(failed, O_CLOEXEC) < 0)
		return cai_fail_errno(err, errno, "cannot make a pipe");
	cleanup_close int fail_rd = failed[0], fail_wr = failed[1];
	pid_t pid = fork();
	if (pid < 0)
		return cai_fail_errno(err, errno, "cannot start the monitor");
	if (pid == 0)
		become_monitor(program, theirs, log_wr, fail_wr, prepare, ctx);
	close(steal_fd(&fail_wr));
	int e = 0;
	if (read(fail_rd, &e, sizeof(e)) == (ssize_t)sizeof(e)) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return cai_fail_errno(err, e, "cannot start the monitor %s", program);
	}
	m->pid = pid;
	m->control = steal_fd(&mine);
	m->log = steal_fd(&log_rd);
	return 0;
}

int monitor_boot(struct monitor *m, const struct control_config *c, struct cai_error *err)
{
	struct buf b = {0}, s = {0};
	int fds[CONTROL_MAX_FDS];
	unsigned n = control_config_fds(c, fds);
	control_put_config(&b, ++m->seq, c);
	control_put(&s, CONTROL_START, ++m->seq);
	int r = b.failed || s.failed ? (errno = ENOMEM, -1) : control_send(m->control, b.p, b.len, fds, n);
	if (r == 0)
		r = control_send(m->control, s.p, s.len, NULL, 0);
	int e = errno;
	buf_free(&b);
	buf_free(&s);
	/* A monitor that died at once closed its end: the loop learns why from its exit status, which says
	 * more than EPIPE. */
	if (r < 0 && e != EPIPE && e != ECONNRESET)
		return cai_fail_errno(err, e, "cannot configure the monitor");
	return 0;
}

int monitor_next(struct monitor *m, struct monitor_event *e)
{
	memset(e, 0, sizeof(*e));
	if (m->control < 0)
		return -1;
	cleanup_free uint8_t *packet = malloc(CONTROL_MAX_PACKET);
	int fds[CONTROL_MAX_FDS];
	unsigned n_fds = CONTROL_MAX_FDS;
	if (!packet)
		return -1;
	long n = control_recv(m->control, packet, CONTROL_MAX_PACKET, fds, &n_fds);
	if (n < 0 && errno == ECONNRESET) {
		/* It went with something of ours unread (START after a refused CONFIGURE). The kernel reports
		 * that once, before the packets that it left for us, which say why. */
		n_fds = CONTROL_MAX_FDS;
		n = control_recv(m->control, packet, CONTROL_MAX_PACKET, fds, &n_fds);
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	while (n_fds) /* a monitor has no business sending descriptors */
		close(fds[--n_fds]);
	struct buf_reader r = buf_reader(packet, (size_t)n);
	struct control_header h;
	if (control_get_header(&r, &h, NULL) < 0)
		return -1;
	e->type = (enum control_type)h.type;
	e->seq = h.seq;
	switch (e->type) {
	case CONTROL_OK:
	case CONTROL_READY:
		return 1;
	case CONTROL_ERROR:
		return control_get_error(&r, &e->errnum, &e->text, NULL) < 0 ? -1 : 1;
	case CONTROL_STATUS:
		return control_get_status(&r, &e->status, NULL) < 0 ? -1 : 1;
	case CONTROL_ENDED:
		return control_get_ended(&r, &e->ended, NULL) < 0 ? -1 : 1;
	default:
		return -1;
	}
}

void monitor_event_free(struct monitor_event *e)
{
	free(e->text);
	e->text = NULL;
	control_ended_free(&e->ended);
}

/* Waits until the monitor closed its end, which it does after its memory is freed. True when it did. */
static bool wait_gone(struct monitor *m)
{
	uint64_t end = clock_mono_ns() + STOP_TIMEOUT_NS;
	char sink[4096];
	for (;;) {
		uint64_t now = clock_mono_ns();
		if (now >= end)
			return false;
		struct pollfd p[2] = {{.fd = m->control, .events = POLLIN}, {.fd = m->log, .events = POLLIN}};
		if (poll(p, 2, (int)((end - now) / 1000000) + 1) < 0)
			continue;
		/* Its diagnostics are read on, else it could block writing them. */
		if (p[1].revents && read(m->log, sink, sizeof(sink)) == 0) {
			close(m->log);
			m->log = -1;
		}
		if (p[0].revents) {
			ssize_t n = recv(m->control, sink, sizeof(sink), MSG_DONTWAIT);
			if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
				return true;
		}
	}
}

void monitor_stop(struct monitor *m)
{
	if (m->pid > 0 && !m->reaped) {
		struct buf b = {0};
		control_put(&b, CONTROL_STOP, ++m->seq);
		if (m->control >= 0 && !b.failed)
			control_send(m->control, b.p, b.len, NULL, 0);
		buf_free(&b);
		if (m->control >= 0)
			shutdown(m->control, SHUT_WR);
		if (m->control < 0 || !wait_gone(m)) {
			log_debug("the monitor did not stop when asked; killing it");
			kill(m->pid, SIGKILL);
		}
		while (waitpid(m->pid, &m->wait_status, 0) < 0 && errno == EINTR)
			;
		m->reaped = true;
	}
	if (m->control >= 0)
		close(m->control);
	if (m->log >= 0)
		close(m->log);
	m->control = m->log = -1;
}

void monitor_describe_end(const struct monitor *m, char *out, size_t n)
{
	int st = m->wait_status;
	if (!m->reaped)
		snprintf(out, n, "is still there");
	else if (WIFSIGNALED(st))
		snprintf(out, n, "was killed by signal %d (%s)", WTERMSIG(st), strsignal(WTERMSIG(st)));
	else
		snprintf(out, n, "exited with status %d", WEXITSTATUS(st));
}
