/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a small state machine over one stream.
 *
 *   LINE    "CONNECT port" was sent; the monitor holds it until the agent listens and then answers with a
 * line HELLO   the agent speaks first, with its version SETUP   SETUP and START are sent together, to save a
 * round trip through the guest; OK is awaited START   STARTED is awaited RUN     data flows; EXIT ends it
 *
 * Output: frames are handled strictly in order from one receive buffer; when an outlet cannot take all of a
 * frame, the stream is not read until it can, so the guest's program blocks as it would on a full pipe.
 * Input: never more is read from the caller than the window allows and the stream takes, so nothing grows
 * without bound.
 *
 * When the reader of standard output goes away, a program on the host would get SIGPIPE at its next write.
 * Here the next write happens in the guest, which cannot know; so the program is sent SIGPIPE, and if it
 * still writes a second later (it ignores the signal, as Python does), the session ends as if the signal had
 * killed it.
 */
#include "sandbox/session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "sandbox/outlet.h"
#include "sandbox/watch.h"

#define RX_SIZE		 (AGENT_HEADER_SIZE + AGENT_MAX_BODY)
#define TX_HIGH		 (64u << 10) /* stdin is not read while more than this waits to be sent */
#define MAX_LINE	 64	     /* of the monitor's answer to CONNECT */
#define PIPE_PATIENCE_NS 1000000000ull

enum state { ST_LINE, ST_HELLO, ST_SETUP, ST_START, ST_RUN, ST_ENDED };

struct session {
	struct session_config c;
	enum state state;
	struct session_result result;
	char *kernel;
	struct watch stream, in, out, err;
	struct outlet o_out, o_err;
	struct buf tx;
	size_t tx_off;
	uint8_t *rx;
	size_t rx_len, rx_off; /* received, consumed */
	size_t data_off;       /* how much of the current frame's data was written out */
	uint32_t window;       /* bytes of STDIN that may still be sent */
	bool detaching;
	bool in_eof, told; /* told: c.output has had the current frame */
	uint64_t pipe_ns; /* when standard output was found closed */
};

static void end(struct session *s, enum session_end how)
{
	if (s->state == ST_ENDED)
		return;
	s->state = ST_ENDED;
	s->result.end = how;
	watch_set(&s->stream, 0);
	watch_set(&s->in, 0);
	watch_set(&s->out, 0);
	watch_set(&s->err, 0);
	s->c.ended(s->c.ctx);
}

static void lost(struct session *s, const char *why)
{
	if (!s->result.text[0])
		snprintf(s->result.text, sizeof(s->result.text), "%s", why);
	end(s, SESSION_LOST);
}

/* Sends what waits. A closed stream is noticed by the reader, which may still have output and EXIT to fetch.
 */
static void flush(struct session *s)
{
	while (s->tx_off < s->tx.len) {
		ssize_t n = send(s->stream.fd, s->tx.p + s->tx_off, s->tx.len - s->tx_off,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			if (s->tx_off > TX_HIGH) { /* else a stream that is never quite empty would grow the
						      buffer for ever */
				memmove(s->tx.p, s->tx.p + s->tx_off, s->tx.len - s->tx_off);
				s->tx.len -= s->tx_off;
				s->tx_off = 0;
			}
			return;
		}
		if (n < 0) {
			s->tx_off = s->tx.len;
			s->in_eof = true;
			break;
		}
		s->tx_off += (size_t)n;
	}
	s->tx.len = s->tx_off = 0;
}

static bool blocked_out(const struct session *s)
{
	return s->out.events || s->err.events;
}

static void update(struct session *s)
{
	if (s->state == ST_ENDED)
		return;
	watch_set(&s->stream, (blocked_out(s) ? 0 : EPOLLIN) | (s->tx_off < s->tx.len ? EPOLLOUT : 0));
	bool want = s->state == ST_RUN && !s->in_eof && !s->detaching && s->window && s->tx.len - s->tx_off < TX_HIGH;
	watch_set(&s->in, want ? EPOLLIN : 0);
}

/* Moves one piece of standard input; false when there is nothing more to do now. */
static bool read_input(struct session *s)
{
	uint8_t data[AGENT_MAX_DATA];
	size_t max = s->window < sizeof(data) ? s->window : sizeof(data);
	ssize_t n = read(s->in.fd, data, max);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) { /* an error (a terminal that hung up) is the end of input, too */
		s->in_eof = true;
		agent_put_frame(&s->tx, AGENT_STDIN_CLOSE, NULL, 0);
	} else {
		s->window -= (uint32_t)n;
		agent_put_frame(&s->tx, AGENT_STDIN, data, (size_t)n);
	}
	flush(s);
	return true;
}

static void pump_input(struct session *s)
{
	update(s);
	/* What epoll refuses to watch is always ready. */
	while (s->state == ST_RUN && s->in.unpollable && !s->in_eof && !s->detaching && s->window &&
	       s->tx.len - s->tx_off < TX_HIGH)
		if (!read_input(s))
			break;
	update(s);
}

static void on_input(void *ctx, uint32_t events)
{
	struct session *s = ctx;
	if (s->state == ST_RUN && !s->in_eof && !s->detaching && s->window)
		read_input(s);
	pump_input(s);
}

/* Writes the rest of the current frame's data. False when the outlet is full: the frame stays current. */
static bool write_output(struct session *s, struct outlet *o, struct watch *w, const uint8_t *p, size_t n)
{
	bool was_broken = o->broken;
	s->data_off += outlet_write(o, p + s->data_off, n - s->data_off);
	if (o->broken && o == &s->o_out) {
		if (!was_broken) {
			s->pipe_ns = clock_mono_ns();
			if (o->broken != EPIPE && o->broken != EIO)
				s->result.lost_output = o->broken;
			agent_put_u32(&s->tx, AGENT_SIGNAL, SIGPIPE);
			flush(s);
		} else if (clock_mono_ns() - s->pipe_ns > PIPE_PATIENCE_NS) {
			s->result.signal = SIGPIPE;
			end(s, SESSION_EXITED);
			return false;
		}
	}
	if (s->data_off < n) {
		watch_set(w, EPOLLOUT);
		return w->unpollable; /* cannot be awaited: try again at once */
	}
	s->data_off = 0;
	return true;
}

static void send_setup(struct session *s)
{
	struct agent_setup m = *s->c.setup; /* its strings stay the caller's */
	m.realtime_ns = clock_real_ns();
	if (getrandom(m.entropy, sizeof(m.entropy), 0) != (ssize_t)sizeof(m.entropy))
		memset(m.entropy, 0, sizeof(m.entropy));
	agent_put_setup(&s->tx, &m);
	if (s->c.start)
		agent_put_start(&s->tx, s->c.start);
	else
		agent_put_u32(&s->tx, AGENT_ATTACH, s->c.attach);
	explicit_bzero(m.entropy, sizeof(m.entropy));
	s->state = ST_SETUP;
}

/* What this session is for, said as soon as the agent has spoken. */
static void send_request(struct session *s)
{
	if (s->c.setup) {
		send_setup(s);
	} else if (s->c.start) {
		agent_put_start(&s->tx, s->c.start);
		s->state = ST_START;
	} else if (s->c.attach) {
		agent_put_u32(&s->tx, AGENT_ATTACH, s->c.attach);
		s->state = ST_START;
	} else {
		agent_put_frame(&s->tx, AGENT_POWEROFF, NULL, 0);
		s->state = ST_START;
	}
	if (s->tx.failed) {
		lost(s, "the command line or environment is too large for a sandbox");
		return;
	}
	flush(s);
}

static void on_hello(struct session *s, const uint8_t *body, size_t len)
{
	struct agent_hello m;
	struct cai_error e;
	if (agent_get_hello(body, len, &m, &e) < 0) {
		lost(s, e.text);
		return;
	}
	if (m.version != AGENT_VERSION) {
		snprintf(s->result.text, sizeof(s->result.text),
			 "the guest's agent speaks version %u of the protocol, this program version %u",
			 m.version, AGENT_VERSION);
		lost(s, "");
	} else {
		s->kernel = steal_ptr(&m.kernel);
		log_debug("the agent answers: %s", s->kernel);
		send_request(s);
	}
	agent_hello_free(&m);
}

static void on_error(struct session *s, const uint8_t *body, size_t len)
{
	struct agent_error m;
	struct cai_error e;
	if (agent_get_error(body, len, &m, &e) < 0) {
		lost(s, e.text);
		return;
	}
	s->result.error_code = m.code;
	snprintf(s->result.text, sizeof(s->result.text), "%s", m.text ? m.text : "");
	agent_error_free(&m);
	end(s, SESSION_REFUSED);
}

/* One whole frame. False: stop here, either because an outlet is full (the frame is kept) or because the
 * session ended. */
static bool handle(struct session *s, uint16_t type, const uint8_t *body, size_t len)
{
	struct cai_error e = {0};
	if (type == AGENT_ERROR && s->state >= ST_HELLO && s->state < ST_RUN) {
		on_error(s, body, len);
		return false;
	}
	switch (s->state) {
	case ST_HELLO:
		if (type == AGENT_HELLO) {
			on_hello(s, body, len);
			return s->state != ST_ENDED;
		}
		break;
	case ST_SETUP:
		if (type == AGENT_OK) {
			s->state = ST_START;
			return true;
		}
		break;
	case ST_START:
		if (type == AGENT_ATTACHED && s->c.attach) {
			struct agent_attached m;
			if (agent_get_attached(body, len, &m, &e) < 0 || m.window > AGENT_STDIN_WINDOW)
				break;
			s->window = m.window;
			s->in_eof |= !(m.flags & AGENT_ATTACHED_STDIN);
			s->state = ST_RUN;
			s->c.started(s->c.ctx);
			pump_input(s);
			return true;
		}
		if (type == AGENT_STARTED && !s->c.attach) {
			s->state = ST_RUN;
			s->c.started(s->c.ctx);
			pump_input(s);
			return true;
		}
		break;
	case ST_RUN:
		if (type == AGENT_STDOUT || type == AGENT_STDERR) {
			if (s->c.output && !s->told)
				s->c.output(s->c.ctx, type == AGENT_STDOUT ? 1 : 2, body, len);
			s->told = true;
			return type == AGENT_STDOUT ? write_output(s, &s->o_out, &s->out, body, len)
						    : write_output(s, &s->o_err, &s->err, body, len);
		}
		if (type == AGENT_STDIN_CREDIT) {
			uint32_t n;
			if (agent_get_u32(body, len, &n, &e) == 0 && n <= AGENT_STDIN_WINDOW - s->window) {
				s->window += n;
				pump_input(s);
				return true;
			}
		}
		if (type == AGENT_DETACHED && s->detaching) {
			if (agent_get_u32(body, len, &s->result.pid, &e) < 0)
				break;
			end(s, SESSION_DETACHED);
			return false;
		}
		if (type == AGENT_EXIT) {
			struct agent_exit x;
			if (agent_get_exit(body, len, &x, &e) == 0) {
				s->result.status = x.status;
				s->result.signal = x.signal;
				s->result.oom = x.flags & AGENT_EXIT_OOM;
				end(s, SESSION_EXITED);
				return false;
			}
		}
		break;
	default:
		return false;
	}
	lost(s, e.text[0] ? e.text : "the guest's agent broke the protocol");
	return false;
}

/* The answer to CONNECT: one line, then the agent's bytes may follow at once. */
static bool parse_line(struct session *s)
{
	uint8_t *nl = memchr(s->rx, '\n', s->rx_len);
	if (!nl) {
		if (s->rx_len >= MAX_LINE)
			lost(s, "the monitor answered CONNECT with nonsense");
		return false;
	}
	if (s->rx_len < 3 || memcmp(s->rx, "OK ", 3)) {
		lost(s, "the monitor refused the connection to the guest's agent");
		return false;
	}
	s->rx_off = (size_t)(nl + 1 - s->rx);
	s->state = ST_HELLO;
	return true;
}

static void parse(struct session *s)
{
	if (s->state == ST_LINE && !parse_line(s))
		return;
	while (s->state != ST_ENDED && s->rx_len - s->rx_off >= AGENT_HEADER_SIZE) {
		struct agent_header h;
		struct cai_error e;
		const uint8_t *f = s->rx + s->rx_off;
		if (agent_get_header(f, &h, &e) < 0) {
			lost(s, e.text);
			return;
		}
		if (s->rx_len - s->rx_off - AGENT_HEADER_SIZE < h.len)
			break;
		if (!handle(s, h.type, f + AGENT_HEADER_SIZE, h.len))
			break;
		if (s->data_off == 0) {
			s->rx_off += AGENT_HEADER_SIZE + h.len;
			s->told = false;
		}
	}
	if (s->rx_off && !blocked_out(s)) {
		memmove(s->rx, s->rx + s->rx_off, s->rx_len - s->rx_off);
		s->rx_len -= s->rx_off;
		s->rx_off = 0;
	}
}

static void on_stream(void *ctx, uint32_t events)
{
	struct session *s = ctx;
	if (events & EPOLLOUT)
		flush(s);
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !blocked_out(s)) {
		ssize_t n = recv(s->stream.fd, s->rx + s->rx_len, RX_SIZE - s->rx_len, MSG_DONTWAIT);
		if (n > 0) {
			s->rx_len += (size_t)n;
			parse(s);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			lost(s, "the connection to the guest's agent ended");
		}
	}
	pump_input(s);
}

static void on_outlet(void *ctx, uint32_t events)
{
	struct session *s = ctx;
	watch_set(&s->out, 0);
	watch_set(&s->err, 0);
	parse(s);
	pump_input(s);
}

struct session *session_new(struct loop *l, const struct session_config *c, struct cai_error *err)
{
	struct session *s = calloc(1, sizeof(*s));
	uint8_t *rx = malloc(RX_SIZE);
	if (!s || !rx) {
		free(s);
		free(rx);
		close(c->stream);
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	s->c = *c;
	s->rx = rx;
	s->window = AGENT_STDIN_WINDOW;
	s->in_eof = c->in < 0;
	s->stream = (struct watch){.loop = l, .fd = c->stream, .fn = on_stream, .ctx = s};
	s->in = (struct watch){.loop = l, .fd = c->in, .fn = on_input, .ctx = s};
	s->out = (struct watch){.loop = l, .fd = c->out, .fn = on_outlet, .ctx = s};
	s->err = (struct watch){.loop = l, .fd = c->err, .fn = on_outlet, .ctx = s};
	outlet_init(&s->o_out, c->out);
	outlet_init(&s->o_err, c->err);
	if (c->connect_line) {
		char line[32];
		buf_put_bytes(&s->tx, line, (size_t)snprintf(line, sizeof(line), "CONNECT %u\n", AGENT_PORT));
		flush(s);
	} else {
		s->state = ST_HELLO;
	}
	update(s);
	return s;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	watch_set(&s->stream, 0);
	watch_set(&s->in, 0);
	watch_set(&s->out, 0);
	watch_set(&s->err, 0);
	close(s->stream.fd);
	buf_free(&s->tx);
	free(s->rx);
	free(s->kernel);
	free(s);
}

bool session_running(const struct session *s)
{
	return s && s->state == ST_RUN;
}

void session_signal(struct session *s, int signo)
{
	if (!session_running(s))
		return;
	agent_put_u32(&s->tx, AGENT_SIGNAL, (uint32_t)signo);
	flush(s);
	update(s);
}

void session_detach(struct session *s)
{
	if (!session_running(s) || s->detaching)
		return;
	s->detaching = true;
	agent_put_frame(&s->tx, AGENT_DETACH, NULL, 0);
	flush(s);
	update(s);
}

void session_resize(struct session *s, uint16_t rows, uint16_t cols)
{
	if (!session_running(s))
		return;
	agent_put_resize(&s->tx, rows, cols);
	flush(s);
	update(s);
}

const struct session_result *session_result(const struct session *s)
{
	return &s->result;
}

const char *session_guest_kernel(const struct session *s)
{
	return s->kernel;
}
