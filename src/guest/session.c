/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A session is one stream. Its bytes are cut into frames; a whole frame that lies in what was just read is handled in place,
 * only one that comes in pieces is collected. Handlers append their answers to s->out and change the state; at the end of each
 * callback session_service() sends, and sets what is watched, from the state alone. Nothing is freed while a callback of the
 * session may be running: session_close() moves it to the agent's dead list, which the next callback empties.
 *
 * Whatever a host sends wrong ends its own session with an ERROR frame. Frames that were right when they were sent (input or a
 * signal that crossed the process's end) are ignored.
 */
#include "guest/session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define OOM_COUNT_NS 300000000u /* after a start, see struct agent */

#define GRACE_NS  50000000u   /* after the process: for what its children still write */
#define HANGUP_NS 1000000000u /* between SIGHUP and SIGKILL */
#define LINGER_NS 5000000000u /* for the host to close a finished stream */

void session_bury(struct agent *a)
{
	while (a->dead) {
		struct session *s = a->dead;
		a->dead = s->next;
		free(s);
	}
}

static void close_stream(struct session *s)
{
	loop_del(s->stream);
	s->stream = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	free(s->body);
	s->body = NULL;
	buf_free(&s->out);
	s->out_at = 0;
}

static void close_process_fds(struct session *s)
{
	loop_del(s->report);
	s->report = NULL;
	session_close_outputs(s);
	session_close_stdin(s);
	buf_free(&s->in);
	spawned_close(&s->p);
}

void session_close(struct session *s)
{
	if (s->state == SESSION_DEAD)
		return;
	free(s->heir);
	s->heir = NULL;
	close_stream(s);
	close_process_fds(s);
	loop_del(s->timer);
	s->timer = NULL;
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->state = SESSION_DEAD;
	s->next = s->a->dead;
	s->a->dead = s;
	s->a->n_sessions--;
}

static bool has_process(const struct session *s)
{
	return s->p.pid > 0 && !s->reaped;
}

void session_kill(struct session *s)
{
	if (has_process(s)) {
		kill(s->p.pid, SIGKILL);
		if (!s->a->ops.reap_all)
			waitpid(s->p.pid, NULL, 0);
	}
	session_close(s);
}

static void on_timer(void *ctx)
{
	struct session *s = ctx;
	enum session_timer what = s->timer_for;

	session_bury(s->a);
	s->timer_for = TIMER_NONE;
	switch (what) {
	case TIMER_RETRY:
		break;
	case TIMER_GRACE:
		session_drain(s);
		break;
	case TIMER_KILL:
		s->a->ops.signal_session(s->p.pid, SIGKILL);
		if (!has_process(s)) {
			session_close(s);
			return;
		}
		kill(s->p.pid, SIGKILL); /* session_reaped closes the session */
		break;
	case TIMER_LINGER:
		session_close(s);
		return;
	case TIMER_NONE:
		return;
	}
	session_service(s);
}

void session_arm(struct session *s, enum session_timer what, uint64_t delay_ns)
{
	if (!s->timer)
		s->timer = loop_add_timer(s->a->loop, on_timer, s, NULL);
	if (!s->timer)
		return; /* out of descriptors: what waits for this goes without its bound */
	s->timer_for = what;
	loop_timer_set(s->timer, clock_mono_ns() + delay_ns);
}

void session_stream_lost(struct session *s)
{
	bool unfinished = s->state == SESSION_STARTING || s->state == SESSION_RUNNING || s->state == SESSION_DETACHING;
	close_stream(s);
	if (!unfinished) {
		session_close(s);
		return;
	}
	/* Before the terminal is closed, so that all get SIGHUP, not only its foreground job. */
	if (s->a->ops.signal_session(s->p.pid, SIGHUP) == 0 && has_process(s))
		kill(s->p.pid, SIGHUP); /* not a session leader yet */
	close_process_fds(s);
	s->state = SESSION_ORPHAN;
	session_arm(s, TIMER_KILL, HANGUP_NS);
	if (!s->timer)
		session_kill(s);
}

void session_linger(struct session *s)
{
	close_process_fds(s);
	s->stdin_open = false;
	s->state = SESSION_LINGER;
}

void session_end_with_error(struct session *s, uint32_t code, int errnum, const char *text)
{
	agent_put_error(&s->out, code, (uint32_t)errnum, text);
	session_linger(s);
}

void session_protocol_error(struct session *s, const char *text)
{
	if (has_process(s)) {
		s->a->ops.signal_session(s->p.pid, SIGKILL);
		kill(s->p.pid, SIGKILL);
	}
	session_end_with_error(s, AGENT_E_PROTOCOL, 0, text);
}

void session_maybe_exit(struct session *s)
{
	if (s->state != SESSION_RUNNING || !s->reaped || s->p.out >= 0 || s->p.err >= 0)
		return;
	struct agent_exit x = {0};
	const struct agent_ops *ops = &s->a->ops;
	if (s->wait_status != 0 && ops->oom_kills) {
		s->a->oom_kills = ops->oom_kills(ops->ctx);
		if (s->a->oom_kills > s->oom_kills)
			x.flags |= AGENT_EXIT_OOM;
	}
	if (WIFSIGNALED(s->wait_status))
		x.signal = (uint32_t)WTERMSIG(s->wait_status);
	else
		x.status = (uint32_t)WEXITSTATUS(s->wait_status);
	if (s->preparing && s->wait_status == 0 && ops->prepared)
		ops->prepared(ops->ctx);
	agent_put_exit(&s->out, &x);
	session_linger(s);
}

void session_run(struct session *s)
{
	s->state = SESSION_RUNNING;
	session_credit(s);
	if (!s->reaped)
		return;
	session_maybe_exit(s);
	if (s->state == SESSION_RUNNING)
		session_arm(s, TIMER_GRACE, GRACE_NS);
}

static void note_reaped(struct session *s, int wait_status)
{
	s->reaped = true;
	s->wait_status = wait_status;
	switch (s->state) {
	case SESSION_RUNNING:
		session_maybe_exit(s);
		if (s->state == SESSION_RUNNING)
			session_arm(s, TIMER_GRACE, GRACE_NS);
		session_service(s);
		break;
	case SESSION_ORPHAN:
		/* Others of its session may still be there; they have until the timer. */
		if (s->timer_for == TIMER_NONE || s->a->ops.signal_session(s->p.pid, 0) == 0)
			session_close(s);
		break;
	default:
		break;
	}
}

void session_reaped(struct agent *a, pid_t pid, int wait_status)
{
	for (struct session *s = a->sessions; s; s = s->next) {
		if (s->p.pid == pid && !s->reaped) {
			note_reaped(s, wait_status);
			return;
		}
	}
}

void session_reap_own(struct agent *a)
{
	struct session *next;
	for (struct session *s = a->sessions; s; s = next) {
		int status;
		next = s->next;
		if (has_process(s) && waitpid(s->p.pid, &status, WNOHANG) == s->p.pid)
			note_reaped(s, status);
	}
}

/* The child says that it could not become the program, or, by closing, that it did. */
static void on_report(void *ctx, uint32_t events)
{
	struct session *s = ctx;
	struct spawn_report r;

	session_bury(s->a);
	ssize_t n = read(s->p.report, &r, sizeof(r));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	loop_del(s->report);
	s->report = NULL;
	close(s->p.report);
	s->p.report = -1;
	if (n == (ssize_t)sizeof(r)) {
		r.text[sizeof(r.text) - 1] = 0;
		session_end_with_error(s, r.code, r.errnum, r.text);
		/* It is on its way out; PID 1 reaps it like any other child. */
		if (has_process(s) && !s->a->ops.reap_all) {
			waitpid(s->p.pid, NULL, 0);
			s->reaped = true;
		}
	} else {
		agent_put_u32(&s->out, AGENT_STARTED, (uint32_t)s->p.pid);
		if (s->apart)
			session_linger(s);
		else
			session_run(s);
	}
	session_service(s);
}

/* Its mounts and SETUP's would get in each other's way. */
static bool is_preparing(const struct agent *a)
{
	for (const struct session *s = a->sessions; s; s = s->next)
		if (s->preparing && has_process(s))
			return true;
	return false;
}

static void handle_setup(struct session *s, const uint8_t *body, uint32_t len)
{
	struct agent_setup m;
	struct cai_error err;
	uint32_t code = AGENT_E_INTERNAL;

	const struct agent_ops *ops = &s->a->ops;
	if (s->had_setup) {
		session_protocol_error(s, "SETUP came twice on one stream");
		return;
	}
	if (is_preparing(s->a)) {
		session_end_with_error(s, AGENT_E_INTERNAL, EBUSY, "the machine is still being prepared");
		return;
	}
	if (agent_get_setup(body, len, &m, &err) < 0) {
		session_protocol_error(s, err.text);
		return;
	}
	s->had_setup = true;
	int rc = 0;
	if (!s->a->setup_done) {
		s->a->together = ops->first_together;
		for (unsigned i = 0; i < m.n_mounts; i++)
			s->a->together &= m.mount[i].type != AGENT_MOUNT_VIRTIOFS;
		rc = ops->setup(ops->ctx, &m, &code, &err);
	} else if (ops->renew) {
		rc = ops->renew(ops->ctx, &m, &code, &err);
	}
	explicit_bzero(m.entropy, sizeof(m.entropy));
	agent_setup_free(&m);
	if (rc < 0) {
		session_end_with_error(s, code, err.errnum, err.text);
		return;
	}
	s->a->setup_done = true;
	agent_put_frame(&s->out, AGENT_OK, NULL, 0);
}

static int start_preparing(struct session *s, char *const *argv, uint32_t *code, struct cai_error *err)
{
	const struct agent_ops *ops = &s->a->ops;
	s->preparing = false; /* not this one: it has no process yet */
	if (is_preparing(s->a))
		return cai_fail(err, EBUSY, "the machine is still being prepared");
	s->preparing = true;
	return ops->prepare ? ops->prepare(ops->ctx, argv, code, err) : cai_fail(err, ENOTSUP, "there is no machine to prepare");
}

static void handle_start(struct session *s, const uint8_t *body, uint32_t len)
{
	struct agent_start m;
	struct cai_error err;

	if (s->state != SESSION_IDLE) {
		session_protocol_error(s, "START came twice on one stream");
		return;
	}
	if (agent_get_start(body, len, &m, &err) < 0) {
		session_protocol_error(s, err.text);
		return;
	}
	s->preparing = (m.flags & AGENT_START_BUILTIN) && !strcmp(m.argv[0], "prepare");
	const char *refusal = s->preparing == !s->a->setup_done ? NULL
			      : s->preparing			 ? "it is too late to prepare the machine: SETUP was done"
								 : "START came before SETUP";
	if (refusal) {
		agent_start_free(&m);
		session_protocol_error(s, refusal);
		return;
	}
	uint32_t code = AGENT_E_INTERNAL;
	if (s->preparing && start_preparing(s, m.argv, &code, &err) < 0) {
		agent_start_free(&m);
		session_end_with_error(s, code, err.errnum, err.text);
		return;
	}
	s->oom_kills = s->a->oom_kills;
	if (!s->preparing)
		loop_timer_set(s->a->oom_timer, clock_mono_ns() + OOM_COUNT_NS);
	s->apart = m.flags & AGENT_START_DETACH;
	s->builtin = m.flags & AGENT_START_BUILTIN;
	/* Later, what runs in the sandbox may have put anything in a program's way: a file system of its own, say. */
	enum spawn_how how = s->a->together ? SPAWN_TOGETHER : SPAWN_APART;
	s->a->together = false;
	int rc = s->a->ops.spawn(&m, how, &s->p, &err);
	s->stdin_open = rc == 0 && (m.flags & AGENT_START_STDIN);
	agent_start_free(&m);
	if (rc < 0) {
		session_end_with_error(s, AGENT_E_INTERNAL, err.errnum, err.text);
		return;
	}
	s->state = SESSION_STARTING;
	s->report = loop_add_fd(s->a->loop, s->p.report, EPOLLIN, on_report, s, &err);
	if (!s->report) {
		kill(s->p.pid, SIGKILL);
		session_end_with_error(s, AGENT_E_INTERNAL, err.errnum, err.text);
	}
}

static void handle_stdin(struct session *s, const uint8_t *body, uint32_t len)
{
	if (len > AGENT_MAX_DATA || len > s->window || !s->stdin_open) {
		session_protocol_error(s, !s->stdin_open        ? "STDIN came for a process without an open stdin"
				  : len > AGENT_MAX_DATA ? "a STDIN frame is larger than allowed"
							 : "STDIN went over its window");
		return;
	}
	s->window -= len;
	if (len && session_stdin(s, body, len) < 0)
		session_protocol_error(s, "out of memory in the guest");
}

static void handle_signal(struct session *s, const uint8_t *body, uint32_t len)
{
	uint32_t sig;
	if (agent_get_u32(body, len, &sig, NULL) < 0 || sig < 1 || sig > 64)
		session_protocol_error(s, "SIGNAL names no signal");
	else if (has_process(s))
		kill(s->p.pid, (int)sig);
}

static void handle_resize(struct session *s, const uint8_t *body, uint32_t len)
{
	struct winsize ws = {0};
	if (agent_get_resize(body, len, &ws.ws_row, &ws.ws_col, NULL) < 0)
		session_protocol_error(s, "malformed RESIZE");
	else if (s->p.tty && s->p.out >= 0 && ioctl(s->p.out, TIOCSWINSZ, &ws) < 0)
		return; /* the terminal went away: so will the process */
}

static void handle_frame(struct session *s, const uint8_t *body, uint32_t len)
{
	uint16_t type = s->header.type;
	bool process = s->state == SESSION_STARTING || s->state == SESSION_RUNNING;

	if (type == AGENT_SETUP && !process) {
		handle_setup(s, body, len);
	} else if (type == AGENT_START) {
		handle_start(s, body, len);
	} else if (type == AGENT_POWEROFF && !process && len == 0) {
		s->a->ops.poweroff(s->a->ops.ctx);
		agent_stop(s->a);
	} else if (type == AGENT_ATTACH && s->state == SESSION_IDLE) {
		session_attach(s, body, len);
	} else if (type == AGENT_DETACH && s->state == SESSION_RUNNING && len == 0) {
		session_detach(s);
	} else if (type == AGENT_STDIN && process) {
		handle_stdin(s, body, len);
	} else if (type == AGENT_STDIN_CLOSE && process && len == 0) {
		if (s->stdin_open)
			session_stdin_end(s);
	} else if (type == AGENT_RESIZE && process) {
		handle_resize(s, body, len);
	} else if (type == AGENT_SIGNAL && process) {
		handle_signal(s, body, len);
	} else {
		char text[80];
		snprintf(text, sizeof(text), "a frame of type %u is not expected now", type);
		session_protocol_error(s, text);
	}
}

/* Cuts bytes of the stream into frames. */
static void feed(struct session *s, const uint8_t *p, size_t n)
{
	while (n && s->state != SESSION_LINGER && s->state != SESSION_DETACHING) {
		if (s->head_len < AGENT_HEADER_SIZE) {
			size_t k = AGENT_HEADER_SIZE - s->head_len;
			if (k > n)
				k = n;
			memcpy(s->head + s->head_len, p, k);
			s->head_len += (unsigned)k;
			p += k;
			n -= k;
			if (s->head_len < AGENT_HEADER_SIZE)
				return;
			struct cai_error err;
			if (agent_get_header(s->head, &s->header, &err) < 0) {
				session_protocol_error(s, err.text);
				return;
			}
		}
		uint32_t len = s->header.len;
		if (!s->body && n >= len) { /* whole: handled where it lies (or it is empty) */
			s->head_len = 0;
			handle_frame(s, p, len);
			p += len;
			n -= len;
			continue;
		}
		if (!s->body) {
			s->body = malloc(len);
			s->body_len = 0;
			if (!s->body) {
				session_protocol_error(s, "out of memory in the guest");
				return;
			}
		}
		size_t k = len - s->body_len;
		if (k > n)
			k = n;
		memcpy(s->body + s->body_len, p, k);
		s->body_len += (uint32_t)k;
		p += k;
		n -= k;
		if (s->body_len == len) {
			cleanup_free uint8_t *whole = steal_ptr(&s->body);
			s->head_len = 0;
			handle_frame(s, whole, len);
		}
	}
}

static void on_stream(void *ctx, uint32_t events)
{
	struct session *s = ctx;

	session_bury(s->a);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		ssize_t n = recv(s->fd, s->a->scratch, SCRATCH_SIZE, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			session_stream_lost(s);
			return;
		}
		if (n > 0)
			feed(s, s->a->scratch, (size_t)n);
	}
	session_service(s);
}

void session_service(struct session *s)
{
	if (s->state == SESSION_DEAD || s->state == SESSION_ORPHAN || s->state == SESSION_DETACHED)
		return;
	if (s->out.failed) {
		session_kill(s);
		return;
	}
	if (session_flush(s) < 0) {
		session_stream_lost(s);
		return;
	}
	if (s->last_drain && s->state == SESSION_RUNNING && !session_pending(s)) {
		session_drain(s);
		if (s->state == SESSION_DEAD || s->state == SESSION_ORPHAN)
			return;
		if (session_flush(s) < 0) {
			session_stream_lost(s);
			return;
		}
	}
	if (s->state == SESSION_DETACHING && !session_pending(s))
		session_leave_process(s);
	if (s->state == SESSION_LINGER && !session_pending(s) && s->timer_for != TIMER_LINGER) {
		shutdown(s->fd, SHUT_WR);
		session_arm(s, TIMER_LINGER, LINGER_NS);
		if (!s->timer) {
			session_close(s);
			return;
		}
	}
	bool want_write = session_pending(s) > 0;
	if (want_write != s->want_write) {
		loop_set_events(s->stream, want_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
		s->want_write = want_write;
	}
	session_watch_outputs(s);
}

struct session *session_alloc(struct agent *a)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->a = a;
	s->fd = -1;
	s->p = SPAWNED_NONE;
	s->window = AGENT_STDIN_WINDOW;
	return s;
}

void session_link(struct session *s)
{
	s->next = s->a->sessions;
	s->link = &s->a->sessions;
	if (s->next)
		s->next->link = &s->next;
	s->a->sessions = s;
	s->a->n_sessions++;
}

int session_new(struct agent *a, int fd, struct cai_error *err)
{
	struct session *s = session_alloc(a);
	if (!s) {
		close(fd);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	s->fd = fd;
	s->stream = loop_add_fd(a->loop, fd, EPOLLIN, on_stream, s, err);
	if (!s->stream) {
		close(fd);
		free(s);
		return -1;
	}
	session_link(s);

	struct utsname un;
	char kernel[256] = "";
	if (uname(&un) == 0)
		snprintf(kernel, sizeof(kernel), "%.64s %.64s %.64s", un.sysname, un.release, un.machine);
	agent_put_hello(&s->out, &(struct agent_hello){.version = AGENT_VERSION, .kernel = kernel});
	session_service(s);
	return 0;
}
