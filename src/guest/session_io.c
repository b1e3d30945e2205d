/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Output: a pipe is read into the agent's one scratch buffer, right behind room for a frame's header, and sent from there; what
 * the stream does not take is copied to s->out, and until that is gone the session's pipes are not watched. So a session holds at
 * most one frame, and a program that writes faster than the host reads waits in its own write(2).
 *
 * Input: STDIN goes into the pipe at once, and what does not fit into s->in, which the window keeps below
 * AGENT_STDIN_WINDOW. Consumed bytes are credited in pieces of CREDIT_STEP, so that a typed character costs no answer.
 *
 * The end: a program's own output is in its pipes when it is reaped, but others may have inherited them and hold them open for
 * ever. So after a grace each output is read once more, no further than what is in it at that moment.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/util.h"
#include "guest/session.h"

#define CREDIT_STEP  (64u << 10)
#define TTY_BUDGET   (128u << 10) /* more than a terminal buffers */
#define RETRY_NS     100000000u
#define KEEP_BUF     4096u        /* an emptied queue larger than this is given back */

static ssize_t stream_send(struct session *s, const void *p, size_t n)
{
	ssize_t r;
	do
		r = send(s->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	return r;
}

static void reset_queue(struct buf *b, size_t *at)
{
	*at = 0;
	if (b->cap > KEEP_BUF)
		buf_free(b);
	b->len = 0;
}

int session_flush(struct session *s)
{
	while (session_pending(s)) {
		ssize_t n = stream_send(s, s->out.p + s->out_at, session_pending(s));
		if (n < 0)
			return -1;
		if (n == 0)
			return 0;
		s->out_at += (size_t)n;
	}
	reset_queue(&s->out, &s->out_at);
	return 0;
}

static int *output_fd(struct session *s, int which)
{
	return which == OUT ? &s->p.out : &s->p.err;
}

static void close_output(struct session *s, int which)
{
	int *fd = output_fd(s, which);
	loop_del(s->output[which]);
	s->output[which] = NULL;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void session_close_outputs(struct session *s)
{
	close_output(s, OUT);
	close_output(s, ERR);
}

enum took { TOOK_SOME, TOOK_NOTHING, TOOK_LAST, TOOK_LOST };

/* Moves at most one frame from an output to the stream, which must be empty of earlier ones. */
static enum took take_output(struct session *s, int which, size_t max)
{
	int fd = *output_fd(s, which);
	uint8_t *frame = s->a->scratch;
	if (max > AGENT_MAX_DATA)
		max = AGENT_MAX_DATA;
	ssize_t n = read(fd, frame + AGENT_HEADER_SIZE, max);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return TOOK_NOTHING;
	if (n <= 0) /* a terminal that no process has open reads as EIO */
		return TOOK_LAST;

	struct buf view = {.p = frame, .cap = SCRATCH_SIZE};
	agent_put_frame(&view, which == OUT ? AGENT_STDOUT : AGENT_STDERR, NULL, 0);
	store_le32(frame, (uint32_t)n);
	size_t len = AGENT_HEADER_SIZE + (size_t)n;
	ssize_t sent = stream_send(s, frame, len);
	if (sent < 0)
		return TOOK_LOST;
	if ((size_t)sent < len)
		buf_put_bytes(&s->out, frame + sent, len - (size_t)sent);
	return TOOK_SOME;
}

static void on_output(struct session *s, int which)
{
	session_bury(s->a);
	if (!session_pending(s)) {
		switch (take_output(s, which, AGENT_MAX_DATA)) {
		case TOOK_LOST:
			session_stream_lost(s);
			return;
		case TOOK_LAST:
			if (s->p.tty && !s->reaped) {
				/* Nobody has the terminal open right now, but the program lives and may open it again. */
				loop_del(s->output[which]);
				s->output[which] = NULL;
				session_arm(s, TIMER_RETRY, RETRY_NS);
				return;
			}
			close_output(s, which);
			break;
		case TOOK_SOME:
		case TOOK_NOTHING:
			break;
		}
	}
	session_maybe_exit(s);
	session_service(s);
}

static void on_stdout(void *ctx, uint32_t events)
{
	on_output(ctx, OUT);
}

static void on_stderr(void *ctx, uint32_t events)
{
	on_output(ctx, ERR);
}

void session_watch_outputs(struct session *s)
{
	for (int i = 0; i < N_OUTPUTS; i++) {
		int fd = *output_fd(s, i);
		bool want = s->state == SESSION_RUNNING && fd >= 0 && !session_pending(s) && s->timer_for != TIMER_RETRY;
		if (want && !s->output[i]) {
			s->output[i] = loop_add_fd(s->a->loop, fd, EPOLLIN, i == OUT ? on_stdout : on_stderr, s, NULL);
			if (!s->output[i])
				close_output(s, i);
		} else if (!want && s->output[i]) {
			/* Not an event mask of 0: epoll would go on reporting a writer that is gone. */
			loop_del(s->output[i]);
			s->output[i] = NULL;
		}
	}
}

void session_drain(struct session *s)
{
	for (int i = 0; i < N_OUTPUTS; i++) {
		int fd = *output_fd(s, i), ready = 0;
		if (!s->last_drain) {
			if (fd >= 0 && ioctl(fd, FIONREAD, &ready) < 0)
				ready = 0;
			/* A terminal does not say how much is still on its way through the line discipline. */
			s->budget[i] = s->p.tty ? TTY_BUDGET : (size_t)ready;
		}
	}
	s->last_drain = true;
	for (int i = 0; i < N_OUTPUTS; i++) {
		while (*output_fd(s, i) >= 0 && !session_pending(s)) {
			uint32_t before = s->budget[i] < AGENT_MAX_DATA ? (uint32_t)s->budget[i] : AGENT_MAX_DATA;
			enum took t = before ? take_output(s, i, before) : TOOK_LAST;
			if (t == TOOK_LOST) {
				session_stream_lost(s);
				return;
			}
			if (t == TOOK_SOME)
				s->budget[i] -= load_le32(s->a->scratch);
			else
				close_output(s, i);
		}
	}
	session_maybe_exit(s);
}

static void on_input_room(void *ctx, uint32_t events)
{
	struct session *s = ctx;
	session_bury(s->a);
	if (session_stdin(s, NULL, 0) < 0) {
		session_kill(s);
		return;
	}
	session_service(s);
}

void session_close_stdin(struct session *s)
{
	loop_del(s->input);
	s->input = NULL;
	if (s->p.in >= 0)
		close(s->p.in);
	s->p.in = -1;
	reset_queue(&s->in, &s->in_at);
}

void session_credit(struct session *s)
{
	/* Not before STARTED, which is the first answer. */
	if (s->owed >= CREDIT_STEP && s->stdin_open && s->state == SESSION_RUNNING) {
		agent_put_u32(&s->out, AGENT_STDIN_CREDIT, s->owed);
		s->window += s->owed;
		s->owed = 0;
	}
}

/* Returns bytes taken; all of them when nobody reads any more, so that the host does not wait for credit. */
static size_t write_input(struct session *s, const uint8_t *p, size_t n)
{
	size_t at = 0;
	while (at < n && s->p.in >= 0) {
		ssize_t r = write(s->p.in, p + at, n - at);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN)
			return at;
		if (r < 0) {
			close(s->p.in); /* EPIPE: the program closed its stdin */
			s->p.in = -1;
			break;
		}
		at += (size_t)r;
	}
	return s->p.in >= 0 ? at : n;
}

int session_stdin(struct session *s, const void *p, size_t n)
{
	if (n)
		s->last_byte = ((const uint8_t *)p)[n - 1];
	/* The source must go before write_input may close its descriptor. */
	loop_del(s->input);
	s->input = NULL;

	size_t queued = s->in.len - s->in_at;
	if (queued) {
		size_t w = write_input(s, s->in.p + s->in_at, queued);
		s->in_at += w;
		queued -= w;
		s->owed += (uint32_t)w;
		if (!queued)
			reset_queue(&s->in, &s->in_at);
	}
	if (n && !queued) {
		size_t w = write_input(s, p, n);
		s->owed += (uint32_t)w;
		p = (const uint8_t *)p + w;
		n -= w;
	}
	if (n) {
		if (s->in_at) { /* keep the queue within the window: move it to the front */
			memmove(s->in.p, s->in.p + s->in_at, queued);
			s->in.len = queued;
			s->in_at = 0;
		}
		buf_put_bytes(&s->in, p, n);
		queued += n;
	}
	session_credit(s);
	if (s->in.failed)
		return -1;
	if (queued) {
		s->input = loop_add_fd(s->a->loop, s->p.in, EPOLLOUT, on_input_room, s, NULL);
		if (!s->input)
			return -1;
	} else if (s->stdin_eof) {
		session_close_stdin(s);
	}
	return 0;
}

void session_stdin_end(struct session *s)
{
	struct termios t;
	s->stdin_open = false;
	s->stdin_eof = true;
	if (s->p.tty && s->p.in >= 0 && tcgetattr(s->p.in, &t) == 0 && (t.c_lflag & ICANON)) {
		/* A terminal has no end of file but the character for it: once behind a newline, else once to end the line and
		 * once more. Behind raw input there is none. */
		uint8_t eof[2] = {t.c_cc[VEOF], t.c_cc[VEOF]};
		bool mid_line = s->last_byte && s->last_byte != '\n';
		if (session_stdin(s, eof, mid_line ? 2 : 1) < 0)
			session_close_stdin(s);
		return;
	}
	if (session_stdin(s, NULL, 0) < 0)
		session_close_stdin(s);
}
