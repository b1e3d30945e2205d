/* SPDX-License-Identifier: Apache-2.0 */
/* DETACH and ATTACH: a process changes its stream and neither side loses, doubles or waits for a byte. */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"

static char sh[] = "sh", dash_c[] = "-c", cat[] = "cat";
static char *cat_argv[] = {cat, NULL};
static const struct agent_start cat_start = {.flags = AGENT_START_STDIN, .argv = cat_argv};

static struct server *srv(void **state)
{
	return *state;
}

static bool gone_within(uint32_t pid, int ms)
{
	for (; ms > 0; ms -= 10) {
		if (kill((pid_t)pid, 0) < 0 && errno == ESRCH)
			return true;
		usleep(10000);
	}
	return false;
}

static void send_empty(int fd, enum agent_type type)
{
	struct buf b = {0};
	agent_put_frame(&b, type, NULL, 0);
	client_send(fd, &b);
}

static void send_u32(int fd, enum agent_type type, uint32_t v)
{
	struct buf b = {0};
	agent_put_u32(&b, type, v);
	client_send(fd, &b);
}

static void send_stdin(int fd, const void *p, size_t n)
{
	struct buf b = {0};
	for (size_t at = 0; at < n; at += AGENT_MAX_DATA)
		agent_put_frame(&b, AGENT_STDIN, (const uint8_t *)p + at, n - at < AGENT_MAX_DATA ? n - at : AGENT_MAX_DATA);
	client_send(fd, &b);
}

static int start(void **state, const struct agent_start *m, uint32_t *pid)
{
	uint8_t *body;
	uint32_t len;
	int fd = client_connect(srv(state));
	client_start(fd, m);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_STARTED);
	assert_int_equal(agent_get_u32(body, len, pid, NULL), 0);
	free(body);
	return fd;
}

static int start_script(void **state, const char *script, uint32_t flags, uint32_t *pid)
{
	char *argv[] = {sh, dash_c, (char *)(uintptr_t)script, NULL};
	return start(state, &(struct agent_start){.flags = flags, .argv = argv, .rows = 24, .cols = 80}, pid);
}

/* One frame of a running session; its type. */
static unsigned step(int fd, struct outcome *o, uint32_t *window)
{
	uint8_t *body;
	uint32_t len, v;
	unsigned type = client_recv(fd, &body, &len);
	if (type == AGENT_STDOUT || type == AGENT_STDERR) {
		buf_put_bytes(type == AGENT_STDOUT ? &o->out : &o->err, body, len);
	} else if (type == AGENT_EXIT) {
		o->exited = true;
		assert_int_equal(agent_get_exit(body, len, &o->exit, NULL), 0);
	} else if (type == AGENT_STDIN_CREDIT || type == AGENT_DETACHED) {
		assert_int_equal(agent_get_u32(body, len, &v, NULL), 0);
		if (type == AGENT_DETACHED)
			o->pid = v;
		else if (window)
			*window += v;
	} else {
		fail_msg("unexpected frame %u", type);
	}
	free(body);
	return type;
}

/* Sends DETACH, reads to the stream's end. False when it was EXIT instead. */
static bool detach(int fd, struct outcome *o)
{
	unsigned type;
	uint8_t *body;
	uint32_t len;
	send_empty(fd, AGENT_DETACH);
	do
		type = step(fd, o, NULL);
	while (type != AGENT_DETACHED && type != AGENT_EXIT);
	assert_int_equal(client_recv(fd, &body, &len), 0); /* nothing comes behind it */
	close(fd);
	return type == AGENT_DETACHED;
}

static int attach(void **state, uint32_t pid, struct agent_attached *a)
{
	struct agent_attached unused;
	uint8_t *body;
	uint32_t len;
	int fd = client_connect(srv(state));
	send_u32(fd, AGENT_ATTACH, pid);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_ATTACHED);
	assert_int_equal(agent_get_attached(body, len, a ? a : &unused, NULL), 0);
	free(body);
	return fd;
}

static void attach_is_refused(void **state, uint32_t pid)
{
	struct outcome o = {0};
	int fd = client_connect(srv(state));
	send_u32(fd, AGENT_ATTACH, pid);
	client_finish(fd, &o);
	assert_int_equal(o.error_code, AGENT_E_NOT_FOUND);
	assert_non_null(strstr(o.error, "no process"));
	outcome_free(&o);
	close(fd);
}

static void *numbers(unsigned n, const char *end, size_t *len)
{
	char *text = malloc(n * 10ul);
	*len = 0;
	for (unsigned i = 1; i <= n; i++)
		*len += (size_t)sprintf(text + *len, "%u%s", i, end);
	return text;
}

/* Reads an output of numbers through streams that change after a few frames each. */
static void read_in_parts(void **state, int fd, uint32_t pid, struct outcome *o, unsigned *parts)
{
	unsigned seed = pid;
	while (!o->exited) {
		unsigned n = (unsigned)rand_r(&seed) % 6;
		while (n-- && step(fd, o, NULL) != AGENT_EXIT)
			;
		if (o->exited) {
			close(fd);
			return;
		}
		if (n & 1)
			usleep(1000); /* for pipes and stream to fill */
		if (!detach(fd, o))
			return;
		assert_int_equal(o->pid, pid);
		(*parts)++;
		fd = attach(state, pid, NULL);
	}
	close(fd);
}

static void output_through_many_streams_is_whole(void **state)
{
	size_t len;
	char *want = numbers(400000, "\n", &len);
	struct outcome o = {0};
	uint32_t pid;
	unsigned parts = 0;
	int fd = start_script(state, "seq 1 400000 >&2 & seq 1 400000; wait; exit 9", 0, &pid);
	read_in_parts(state, fd, pid, &o, &parts);
	assert_true(parts > 5);
	assert_int_equal(o.out.len, len);
	assert_memory_equal(o.out.p, want, len);
	assert_int_equal(o.err.len, len);
	assert_memory_equal(o.err.p, want, len);
	assert_int_equal(o.exit.status, 9);
	outcome_free(&o);
	free(want);
}

static void a_terminals_output_through_many_streams_is_whole(void **state)
{
	size_t len;
	char *want = numbers(60000, "\r\n", &len);
	struct outcome o = {0};
	uint32_t pid;
	unsigned parts = 0;
	int fd = start_script(state, "seq 1 60000; exit 4", AGENT_START_TTY | AGENT_START_STDIN, &pid);
	read_in_parts(state, fd, pid, &o, &parts);
	assert_true(parts > 5);
	assert_int_equal(o.out.len, len);
	assert_memory_equal(o.out.p, want, len);
	assert_int_equal(o.exit.status, 4);
	outcome_free(&o);
	free(want);
}

/* The host reads nothing when it detaches: what was read of the process is sent first, the rest waits. */
static void a_full_stream_is_emptied_first(void **state)
{
	struct outcome o = {0};
	uint32_t pid;
	int fd = start_script(state, "head -c 3000000 /dev/zero; echo >&2 written", 0, &pid);
	usleep(200000);
	send_empty(fd, AGENT_DETACH);
	usleep(100000);
	attach_is_refused(state, pid); /* it is not told yet */
	while (step(fd, &o, NULL) != AGENT_DETACHED)
		;
	assert_true(o.out.len > 0 && o.out.len < 3000000);
	assert_int_equal(o.err.len, 0);
	close(fd);
	fd = attach(state, pid, NULL);
	while (step(fd, &o, NULL) != AGENT_EXIT)
		;
	assert_int_equal(o.out.len, 3000000);
	assert_int_equal(o.err.len, 8);
	outcome_free(&o);
	close(fd);
}

static void the_window_is_what_is_not_queued(void **state)
{
	uint8_t *data = malloc(AGENT_STDIN_WINDOW);
	struct agent_attached a;
	struct outcome o = {0};
	uint32_t pid;
	for (size_t i = 0; i < AGENT_STDIN_WINDOW; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 11);
	int fd = start(state, &cat_start, &pid);
	send_u32(fd, AGENT_SIGNAL, SIGSTOP);
	/* The pipe takes 64 KiB, the agent keeps the rest. */
	send_stdin(fd, data, AGENT_STDIN_WINDOW);
	assert_true(detach(fd, &o));
	for (int i = 0; i < 3; i++) {
		fd = attach(state, pid, &a);
		assert_int_equal(a.flags, AGENT_ATTACHED_STDIN);
		assert_int_equal(a.window, 65536);
		assert_true(detach(fd, &o));
	}
	assert_int_equal(o.out.len, 0);
	/* It goes on being fed: 64 KiB go through to its output. */
	kill((pid_t)pid, SIGCONT);
	for (int i = 0; i < 500 && a.window < AGENT_STDIN_WINDOW; i++) {
		usleep(10000);
		fd = attach(state, pid, &a);
		assert_true(detach(fd, &o));
	}
	assert_int_equal(a.window, AGENT_STDIN_WINDOW);
	fd = attach(state, pid, &a);
	send_stdin(fd, data, AGENT_STDIN_WINDOW); /* the whole window, not a byte less */
	send_empty(fd, AGENT_STDIN_CLOSE);
	client_finish(fd, &o);
	assert_true(o.exited && o.exit.status == 0);
	assert_int_equal(o.out.len, 2 * AGENT_STDIN_WINDOW);
	assert_memory_equal(o.out.p, data, AGENT_STDIN_WINDOW);
	assert_memory_equal(o.out.p + AGENT_STDIN_WINDOW, data, AGENT_STDIN_WINDOW);
	outcome_free(&o);
	close(fd);
	free(data);
}

/* One byte over what ATTACHED said ends the session, so the count above is not just generous. */
static void a_byte_over_the_window_is_refused(void **state)
{
	uint8_t *data = calloc(1, AGENT_STDIN_WINDOW);
	struct outcome o = {0};
	struct agent_attached a;
	uint32_t pid;
	int fd = start(state, &cat_start, &pid);
	send_u32(fd, AGENT_SIGNAL, SIGSTOP);
	send_stdin(fd, data, AGENT_STDIN_WINDOW);
	assert_true(detach(fd, &o));
	fd = attach(state, pid, &a);
	send_stdin(fd, data, a.window);
	assert_true(detach(fd, &o));
	fd = attach(state, pid, &a);
	assert_int_equal(a.window, 0);
	send_stdin(fd, data, 1);
	client_finish(fd, &o);
	assert_int_equal(o.error_code, AGENT_E_PROTOCOL);
	assert_non_null(strstr(o.error, "window"));
	outcome_free(&o);
	close(fd);
	free(data);
}

/* Bytes go through cat, the stream changes at any point with input on its way. */
static void input_in_flight_arrives_once(void **state)
{
	const size_t total = 4u << 20;
	uint8_t *data = malloc(total);
	struct outcome o = {0};
	struct agent_attached a;
	uint32_t pid, window = AGENT_STDIN_WINDOW;
	size_t sent = 0;
	unsigned seed = 5, cycles = 0;
	bool closed = false;
	for (size_t i = 0; i < total; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 13);
	int fd = start(state, &cat_start, &pid);
	while (!o.exited) {
		size_t n = (size_t)rand_r(&seed) % 70001;
		n = n < window ? n : window;
		n = n < total - sent ? n : total - sent;
		if (n) {
			send_stdin(fd, data + sent, n);
			sent += n;
			window -= (uint32_t)n;
		}
		if (sent == total && !closed) {
			send_empty(fd, AGENT_STDIN_CLOSE);
			closed = true;
		}
		if (rand_r(&seed) % 4 == 0) {
			if (!detach(fd, &o))
				break;
			fd = attach(state, pid, &a);
			assert_int_equal(a.flags, closed ? 0 : AGENT_ATTACHED_STDIN);
			window = a.window;
			cycles++;
		}
		struct pollfd p = {.fd = fd, .events = POLLIN};
		while (!o.exited && poll(&p, 1, window && !closed ? 0 : WAIT_MS) == 1)
			if (step(fd, &o, &window) == AGENT_STDIN_CREDIT)
				break;
		assert_true(window <= AGENT_STDIN_WINDOW);
	}
	assert_true(cycles > 10);
	assert_int_equal(o.out.len, total);
	assert_memory_equal(o.out.p, data, total);
	outcome_free(&o);
	free(data);
}

static void an_end_of_input_stays_one(void **state)
{
	struct agent_attached a;
	struct outcome o = {0};
	uint32_t pid;
	int fd = start(state, &cat_start, &pid);
	send_u32(fd, AGENT_SIGNAL, SIGSTOP);
	send_stdin(fd, "last", 4);
	send_empty(fd, AGENT_STDIN_CLOSE);
	assert_true(detach(fd, &o));
	fd = attach(state, pid, &a);
	assert_int_equal(a.flags, 0);
	assert_int_equal(a.window, 0);
	send_u32(fd, AGENT_SIGNAL, SIGCONT);
	client_finish(fd, &o);
	assert_true(outcome_says(&o, "last"));
	assert_true(o.exited && o.exit.status == 0);
	outcome_free(&o);
	close(fd);
}

static void a_line_a_stream_for_many_streams(void **state)
{
	for (unsigned tty = 0; tty < 2; tty++) {
		struct outcome o = {0};
		uint32_t pid;
		char line[20];
		int fd = start_script(state, tty ? "stty -echo -onlcr; echo up; exec cat" : "echo up; exec cat",
				      AGENT_START_STDIN | (tty ? AGENT_START_TTY : 0), &pid);
		while (o.out.len < 3)
			step(fd, &o, NULL);
		for (unsigned i = 0; i < 300; i++) {
			size_t before = o.out.len, n = (size_t)sprintf(line, "line %u\n", i);
			send_stdin(fd, line, n);
			while (i % 3 && o.out.len < before + n)
				step(fd, &o, NULL);
			assert_true(detach(fd, &o));
			fd = attach(state, pid, NULL);
			while (o.out.len < before + n)
				step(fd, &o, NULL);
			assert_int_equal(o.out.len, before + n);
			assert_memory_equal(o.out.p + before, line, n);
		}
		send_empty(fd, AGENT_STDIN_CLOSE);
		client_finish(fd, &o);
		assert_true(o.exited && o.exit.status == 0);
		outcome_free(&o);
		close(fd);
	}
}

static void exit_and_detach_at_once_are_one_or_the_other(void **state)
{
	unsigned detached = 0, exited = 0;
	for (unsigned i = 0; i < 150; i++) {
		struct outcome o = {0};
		uint32_t pid;
		int fd = start_script(state, i & 1 ? "echo out; exit 7" : "echo out; echo err >&2; kill -9 $$", 0, &pid);
		usleep((i * 37) % 4000);
		if (detach(fd, &o)) {
			detached++;
			if (i % 3 == 0)
				usleep(2000);
			fd = attach(state, pid, NULL);
			while (step(fd, &o, NULL) != AGENT_EXIT)
				;
			close(fd);
		} else {
			exited++;
		}
		attach_is_refused(state, pid);
		assert_true(outcome_says(&o, "out\n"));
		assert_int_equal(o.err.len, i & 1 ? 0 : 4);
		assert_int_equal(o.exit.status, i & 1 ? 7 : 0);
		assert_int_equal(o.exit.signal, i & 1 ? 0 : SIGKILL);
		outcome_free(&o);
	}
	print_message("%u detached, %u had exited\n", detached, exited);
}

static void the_end_of_a_detached_process_is_remembered(void **state)
{
	static const char *const scripts[] = {
		"sleep 0.1; echo out; echo err >&2; exit 5",
		"sleep 0.1; echo out; echo err >&2; sleep 4 & exit 5", /* something keeps the pipes */
	};
	for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
		struct outcome o = {0};
		uint32_t pid;
		uint64_t t = clock_mono_ns();
		int fd = start_script(state, scripts[i], 0, &pid);
		assert_true(detach(fd, &o));
		assert_true(gone_within(pid, 2000)); /* no zombie */
		fd = attach(state, pid, NULL);
		/* Once more, with its end known and its output half told. */
		if (detach(fd, &o))
			fd = attach(state, pid, NULL);
		while (!o.exited && step(fd, &o, NULL) != AGENT_EXIT)
			;
		assert_true(outcome_says(&o, "out\n"));
		assert_int_equal(o.err.len, 4);
		assert_int_equal(o.exit.status, 5);
		assert_true(clock_mono_ns() - t < 3500000000u);
		close(fd);
		outcome_free(&o);
	}
	/* On a terminal. */
	struct outcome o = {0};
	uint32_t pid;
	int fd = start_script(state, "sleep 0.1; seq 1 300; exit 6", AGENT_START_TTY, &pid);
	assert_true(detach(fd, &o));
	assert_true(gone_within(pid, 2000));
	fd = attach(state, pid, NULL);
	while (step(fd, &o, NULL) != AGENT_EXIT)
		;
	assert_int_equal(o.out.len, 9 * 3 + 90 * 4 + 201 * 5);
	assert_int_equal(o.exit.status, 6);
	close(fd);
	outcome_free(&o);
}

static void what_is_not_detached_cannot_be_attached(void **state)
{
	struct outcome o = {0};
	uint32_t pid;
	attach_is_refused(state, 0);
	attach_is_refused(state, 1);
	attach_is_refused(state, 0xffffffff); /* no session's "no process" */
	int fd = start(state, &cat_start, &pid);
	attach_is_refused(state, pid); /* it has a stream */
	assert_true(detach(fd, &o));
	attach_is_refused(state, pid + 1);
	fd = attach(state, pid, NULL);
	attach_is_refused(state, pid); /* somebody was first */
	send_empty(fd, AGENT_STDIN_CLOSE);
	client_finish(fd, &o);
	assert_true(o.exited && o.exit.status == 0);
	close(fd);
	attach_is_refused(state, pid);
	outcome_free(&o);

	char *argv[] = {(char[]){"tar-out"}, (char[]){"/proc/self/exe"}, NULL};
	fd = start(state, &(struct agent_start){.flags = AGENT_START_BUILTIN, .argv = argv}, &pid);
	send_empty(fd, AGENT_DETACH);
	o = (struct outcome){0};
	client_finish(fd, &o);
	assert_true(o.exited || o.error_code == AGENT_E_PROTOCOL); /* it may have ended before */
	outcome_free(&o);
	close(fd);
}

static void a_detached_process_is_left_alone_and_an_attached_one_hangs_up(void **state)
{
	struct outcome o = {0};
	uint32_t pid;
	int fd = start_script(state, "trap 'echo got' USR1; yes | head -c 1000000 >&2; while :; do sleep 0.02; done", 0, &pid);
	assert_true(detach(fd, &o));
	assert_false(gone_within(pid, 1300)); /* longer than a lost stream leaves */
	/* Frames behind DETACH are thrown away. */
	fd = attach(state, pid, NULL);
	struct buf b = {0};
	agent_put_frame(&b, AGENT_DETACH, NULL, 0);
	agent_put_u32(&b, AGENT_SIGNAL, SIGKILL);
	agent_put_frame(&b, AGENT_DETACH, NULL, 0);
	client_send(fd, &b);
	while (step(fd, &o, NULL) != AGENT_DETACHED)
		;
	close(fd);
	fd = attach(state, pid, NULL);
	while (o.err.len < 1000000)
		step(fd, &o, NULL);
	send_u32(fd, AGENT_SIGNAL, SIGUSR1);
	while (o.out.len < 4)
		step(fd, &o, NULL);
	close(fd);
	assert_true(gone_within(pid, 900)); /* SIGHUP */
	attach_is_refused(state, pid);
	outcome_free(&o);

	/* A stream that is lost in the middle of DETACH is lost. */
	fd = start_script(state, "exec yes", 0, &pid);
	usleep(100000);
	send_empty(fd, AGENT_DETACH);
	usleep(50000);
	close(fd);
	assert_true(gone_within(pid, 900));
	attach_is_refused(state, pid);
}

static void a_terminal_keeps_its_size_and_takes_another(void **state)
{
	struct outcome o = {0};
	struct buf b = {0};
	uint32_t pid;
	int fd = start_script(state, "stty -echo; echo up; while read x; do stty size; done; echo end",
			      AGENT_START_TTY | AGENT_START_STDIN, &pid);
	while (o.out.len < 4)
		step(fd, &o, NULL);
	agent_put_resize(&b, 31, 97);
	client_send(fd, &b);
	assert_true(detach(fd, &o));
	fd = attach(state, pid, NULL);
	send_stdin(fd, "\n", 1);
	while (!o.out.len || !memmem(o.out.p, o.out.len, "31 97\r\n", 7))
		step(fd, &o, NULL);
	b = (struct buf){0};
	agent_put_resize(&b, 50, 132);
	client_send(fd, &b);
	send_stdin(fd, "\n", 1);
	while (!memmem(o.out.p, o.out.len, "50 132\r\n", 8))
		step(fd, &o, NULL);
	send_empty(fd, AGENT_STDIN_CLOSE);
	client_finish(fd, &o);
	assert_memory_equal(o.out.p + o.out.len - 5, "end\r\n", 5);
	outcome_free(&o);
	close(fd);
}

static void setup_attach_and_more_may_come_in_one_piece(void **state)
{
	struct outcome o = {0};
	struct buf b = {0};
	uint8_t *body;
	uint32_t pid, len;
	int fd = start(state, &cat_start, &pid);
	send_stdin(fd, "one\n", 4);
	assert_true(detach(fd, &o));

	/* An identity that cannot be had: the process waits on. */
	fd = client_connect(srv(state));
	agent_put_setup(&b, &(struct agent_setup){.hostname = (char[]){"bad"}});
	agent_put_u32(&b, AGENT_ATTACH, pid);
	client_send(fd, &b);
	struct outcome e = {0};
	client_finish(fd, &e);
	assert_int_equal(e.error_code, AGENT_E_NETWORK);
	close(fd);

	b = (struct buf){0};
	fd = client_connect(srv(state));
	put_setup(&b, "/dev/bad"); /* of a second SETUP this is not looked at */
	agent_put_u32(&b, AGENT_ATTACH, pid);
	agent_put_frame(&b, AGENT_DETACH, NULL, 0);
	client_send(fd, &b);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_OK);
	free(body);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_ATTACHED);
	free(body);
	while (step(fd, &o, NULL) != AGENT_DETACHED)
		;
	close(fd);
	fd = attach(state, pid, NULL);
	send_empty(fd, AGENT_STDIN_CLOSE);
	client_finish(fd, &o);
	assert_true(outcome_says(&o, "one\n"));
	outcome_free(&o);
	close(fd);

	/* Twice on one stream is a mistake. */
	b = (struct buf){0};
	fd = client_connect(srv(state));
	put_setup(&b, "");
	put_setup(&b, "");
	client_send(fd, &b);
	assert_int_equal(client_recv(fd, &body, &len), AGENT_OK);
	free(body);
	client_finish(fd, &e);
	assert_int_equal(e.error_code, AGENT_E_PROTOCOL);
	assert_non_null(strstr(e.error, "SETUP came twice"));
	close(fd);
}

/* In a server of its own, so that nobody else's lingering sessions count. */
static void detached_sessions_count_and_die_with_the_agent(void **state)
{
	struct server s;
	void *mine = &s;
	uint32_t pid[256];
	unsigned n = 0;
	server_start(&s);
	for (int tries = 0; n < 256 && tries < 1000; tries++) {
		struct outcome o = {0};
		int fd = client_connect(&s);
		if (fd < 0) {
			usleep(10000);
			continue;
		}
		close(fd);
		fd = start(&mine, &cat_start, &pid[n++]);
		send_stdin(fd, "x", 1);
		assert_true(detach(fd, &o));
		outcome_free(&o);
		if (n == 250)
			break;
	}
	assert_int_equal(n, 250);
	int fds[8], k = 0;
	usleep(200000);
	while (k < 7 && (fds[k] = client_connect(&s)) >= 0)
		k++;
	assert_int_equal(k, 6);
	while (k)
		close(fds[--k]);
	usleep(200000);
	server_stop(&s);
	for (unsigned i = 0; i < n; i++)
		assert_true(gone_within(pid[i], 2000));
}

static int start_server(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	server_start(s);
	*state = s;
	return 0;
}

static int stop_server(void **state)
{
	server_stop(*state);
	free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_through_many_streams_is_whole),
		cmocka_unit_test(a_terminals_output_through_many_streams_is_whole),
		cmocka_unit_test(a_full_stream_is_emptied_first),
		cmocka_unit_test(the_window_is_what_is_not_queued),
		cmocka_unit_test(a_byte_over_the_window_is_refused),
		cmocka_unit_test(input_in_flight_arrives_once),
		cmocka_unit_test(an_end_of_input_stays_one),
		cmocka_unit_test(a_line_a_stream_for_many_streams),
		cmocka_unit_test(exit_and_detach_at_once_are_one_or_the_other),
		cmocka_unit_test(the_end_of_a_detached_process_is_remembered),
		cmocka_unit_test(what_is_not_detached_cannot_be_attached),
		cmocka_unit_test(a_detached_process_is_left_alone_and_an_attached_one_hangs_up),
		cmocka_unit_test(a_terminal_keeps_its_size_and_takes_another),
		cmocka_unit_test(setup_attach_and_more_may_come_in_one_piece),
		cmocka_unit_test(detached_sessions_count_and_die_with_the_agent),
	};
	return cmocka_run_group_tests_name("attach", tests, start_server, stop_server);
}
