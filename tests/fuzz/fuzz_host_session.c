/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of the agent's protocol, where the guest is the hostile side: the input is what the guest's agent (or the monitor in its
 * name) sends to `caisson run`. Byte 0: size of the pieces (bits 0-4), standard input (bit 5), output to pipes instead of sockets (6),
 * nobody reads the output (7). What the user is then told holds no control characters; the end is told once; nothing stays open.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox/session.h"

#define MAX_ROUNDS 3000

struct told {
	unsigned started, ended;
};

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void on_started(void *ctx)
{
	struct told *t = ctx;
	must(t->started++ == 0 && t->ended == 0);
}
static void on_ended(void *ctx)
{
	must(((struct told *)ctx)->ended++ == 0);
}

static int lowest_free_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	close(fd);
	return fd;
}

/* A channel whose reading end is p[0]. */
static void channel(int p[2], bool pipes)
{
	int small = 4096;
	if (pipes) {
		must(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
		fcntl(p[1], F_SETPIPE_SZ, small);
	} else {
		must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p) == 0);
		setsockopt(p[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	}
}

static void drain(int fd)
{
	uint8_t sink[16384];
	while (fd >= 0 && read(fd, sink, sizeof(sink)) > 0)
		;
}

static bool printable(const char *s, size_t max)
{
	size_t n = strnlen(s, max);
	for (size_t i = 0; i < n; i++)
		if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return n < max;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *argv[] = {"true", NULL}, *env[] = {NULL};
	struct agent_setup setup = {.hostname = "h", .root_dev = "/dev/vda", .root_fstype = "", .root_mode = AGENT_ROOT_OVERLAY_TMPFS};
	struct agent_start start = {.flags = AGENT_START_STDIN, .argv = argv, .env = env, .cwd = "", .user = ""};
	if (size < 1)
		return 0;
	signal(SIGPIPE, SIG_IGN);
	const uint8_t how = data[0];
	const size_t step = (how & 0x1f) == 0x1f ? 65536 : 1 + (how & 0x1f) * 11u;
	data++;
	size--;
	const int before = lowest_free_fd();
	int guest[2], out[2], err_[2], in[2] = {-1, -1};
	struct cai_error err = {0};
	struct told told = {0};
	struct loop *l = loop_new(&err);
	must(l && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, guest) == 0);
	channel(out, how & 0x40);
	channel(err_, how & 0x40);
	if (how & 0x20) {
		channel(in, how & 0x40);
		must(write(in[1], "typed", 5) == 5);
	}
	if (how & 0x80) {
		close(out[0]);
		out[0] = -1;
	}
	struct session *s = session_new(l, &(struct session_config){.stream = guest[1], .in = in[0], .out = out[1], .err = err_[1], .setup = &setup,
								    .start = &start, .started = on_started, .ended = on_ended, .ctx = &told}, &err);
	must(s != NULL);
	for (unsigned n = 0; n < MAX_ROUNDS && !told.ended; n++) {
		drain(guest[0]);
		size_t k = size < step ? size : step;
		ssize_t sent = k ? send(guest[0], data, k, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
		if (sent > 0) {
			data += sent;
			size -= (size_t)sent;
		}
		if (!size)
			shutdown(guest[0], SHUT_WR);
		must(loop_poll(l, &err) == 0);
		if (n % 3 == 0) {
			drain(out[0]);
			drain(err_[0]);
		}
		if (n % 16 == 15) {
			session_resize(s, 25, 80);
			session_signal(s, SIGINT);
		}
	}
	must(size || told.ended); /* the stream's end is the session's */
	const struct session_result *r = session_result(s);
	must(!told.ended == !r->end && (r->end != SESSION_EXITED || (told.started && r->signal <= 127 && r->status <= 255)));
	must(printable(r->text, sizeof(r->text)));
	must(!session_guest_kernel(s) || printable(session_guest_kernel(s), 4096));
	must(!told.ended || !session_running(s));
	session_free(s);
	loop_free(l);
	const int fds[] = {guest[0], out[0], out[1], err_[0], err_[1], in[0], in[1]};
	for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	must(lowest_free_fd() == before);
	return 0;
}
