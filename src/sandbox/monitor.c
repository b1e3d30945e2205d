/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the monitor is spawned with vfork semantics (posix_spawn), so its start does not
 * depend on how large this process is. It gets /dev/null, a pipe for its diagnostics and the control socket,
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
#include <spawn.h>
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

int monitor_start(struct monitor *m, const char *program, struct cai_error *err)
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

	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none, all;
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&fa, 0, 1);
	posix_spawn_file_actions_adddup2(&fa, log_wr, 2);
	posix_spawn_file_actions_adddup2(
	    &fa, theirs, CONTROL_FD); /* also clears close-on-exec when the number is the same */
	posix_spawnattr_init(&at);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setsigdefault(&at, &all);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
	char *env[] = {log_debug_on() ? (char *)"CAISSON_DEBUG=1" : NULL, NULL};
	pid_t pid;
	int e = posix_spawn(&pid, program, &fa, &at, (char *[]){(char *)"caisson-vmm", NULL}, env);
	posix_spawnattr_destroy(&at);
	posix_spawn_file_actions_destroy(&fa);
	if (e)
		return cai_fail_errno(err, e, "cannot start the monitor %s", program);
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
