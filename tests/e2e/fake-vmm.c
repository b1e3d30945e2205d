/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for caisson-vmm, for tests of `caisson` itself: it speaks the control protocol, answers CONNECT
 * as the vsock device does, and serves the real agent's core, which runs the command on this host instead of
 * in a guest. No jail, no machine.
 *
 * Words of the kernel command line (caisson run --append) make it misbehave:
 *   fake.refuse  answers CONFIGURE with ERROR      fake.panic    reports a panic 0.2 s after START
 *   fake.die     kills itself 0.2 s after START    fake.deaf     never answers CONNECT
 *   fake.reset   reports a reset after 0.2 s       fake.garbage  breaks the agent protocol
 * --probe prints the file FAKE-DIR/probe.json beside the program, or says "unusable".
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "guest/agent.h"
#include "proto/control.h"

struct fake {
	struct control_config config;
	struct agent *agent;
};

static void reply(struct buf *b)
{
	control_send(CONTROL_FD, b->p, b->len, NULL, 0);
	buf_free(b);
}

static void ended(enum control_end reason, const char *text, const char *console)
{
	struct buf b = {0};
	struct control_ended e = {.reason = reason, .text = (char *)text, .console = (char *)console};
	control_put_ended(&b, &e);
	reply(&b);
}

/* 0 at the peer's end. */
static int receive(struct control_header *h, uint8_t *packet, struct buf_reader *r, int *fds, unsigned *n_fds)
{
	*n_fds = CONTROL_MAX_FDS;
	long n = control_recv(CONTROL_FD, packet, CONTROL_MAX_PACKET, fds, n_fds);
	if (n <= 0)
		return 0;
	*r = buf_reader(packet, (size_t)n);
	return control_get_header(r, h, NULL) == 0;
}

/* The rest of the control conversation: STOP and the client's end both end the fake. */
static void *control_thread(void *ctx)
{
	struct fake *f = ctx;
	static uint8_t packet[CONTROL_MAX_PACKET];
	struct control_header h;
	struct buf_reader r;
	int fds[CONTROL_MAX_FDS];
	unsigned n;
	while (receive(&h, packet, &r, fds, &n)) {
		struct buf b = {0};
		control_put(&b, CONTROL_OK, h.seq);
		reply(&b);
		if (h.type == CONTROL_STOP) {
			ended(CONTROL_END_STOPPED, "stopped", "");
			break;
		}
	}
	agent_stop(f->agent);
	return NULL;
}

static void *trouble_thread(void *ctx)
{
	struct fake *f = ctx;
	usleep(200000);
	if (strstr(f->config.cmdline, "fake.die"))
		kill(getpid(), SIGKILL);
	if (strstr(f->config.cmdline, "fake.panic"))
		ended(CONTROL_END_PANIC, "Attempted to kill init",
		      "Kernel panic - not syncing: Attempted to kill init\nend of trace \033[31m\n");
	else
		ended(CONTROL_END_RESET, "", "");
	agent_stop(f->agent);
	return NULL;
}

static int fake_setup(void *ctx, const struct agent_setup *m, uint32_t *code, struct cai_error *err)
{
	return 0;
}

static void fake_poweroff(void *ctx)
{
}

/* Accepts the client and answers its CONNECT line. -1 also when whoever started us is gone. */
static int accept_stream(int listener)
{
	struct pollfd p[2] = {{.fd = listener, .events = POLLIN}, {.fd = CONTROL_FD}};
	poll(p, 2, -1);
	if (p[1].revents)
		return -1;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	char c = 0;
	while (fd >= 0 && c != '\n')
		if (read(fd, &c, 1) != 1)
			return -1;
	if (fd >= 0 && write(fd, "OK 5000\n", 8) != 8)
		return -1;
	return fd;
}

static int probe(const char *self)
{
	char path[4096], text[2048];
	const char *slash = strrchr(self, '/');
	snprintf(path, sizeof(path), "%.*s/probe.json", slash ? (int)(slash - self) : 1, slash ? self : ".");
	FILE *in = fopen(path, "r");
	size_t n = in ? fread(text, 1, sizeof(text), in) : 0;
	if (n)
		fwrite(text, 1, n, stdout);
	else
		puts("{\"kvm\":\"unusable\",\"reason\":\"this is a "
		     "stand-in\",\"boundary\":\"hypervisor\",\"mips\":3.5,\"ns\":1000000}");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--probe"))
		return probe(argv[0]);
	static uint8_t packet[CONTROL_MAX_PACKET];
	struct fake f = {0};
	struct control_header h;
	struct buf_reader r;
	struct buf b = {0};
	int fds[CONTROL_MAX_FDS];
	unsigned n;
	struct cai_error err = {0};
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &chld, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (!receive(&h, packet, &r, fds, &n) || h.type != CONTROL_CONFIGURE ||
	    control_get_config(&r, fds, n, &f.config, &err) < 0) {
		fprintf(stderr, "bad CONFIGURE: %s\n", err.text);
		return 1;
	}
	if (strstr(f.config.cmdline, "fake.refuse")) {
		control_put_error(&b, h.seq, EINVAL, "the kernel is truncated: it ends at byte 17");
		reply(&b);
		return 1;
	}
	control_put(&b, CONTROL_OK, h.seq);
	reply(&b);
	if (!receive(&h, packet, &r, fds, &n) || h.type != CONTROL_START)
		return 1;
	b = (struct buf){0};
	control_put(&b, CONTROL_OK, h.seq);
	reply(&b);

	struct agent_ops ops = {
	    .setup = fake_setup, .poweroff = fake_poweroff, .spawn = spawn_process, .ctx = &f};
	f.agent = agent_new(&ops, &err);
	if (!f.agent)
		return 1;
	pthread_t t;
	if (strstr(f.config.cmdline, "fake.panic") || strstr(f.config.cmdline, "fake.die") ||
	    strstr(f.config.cmdline, "fake.reset"))
		pthread_create(&t, NULL, trouble_thread, &f);
	pthread_create(&t, NULL, control_thread, &f);
	if (!strstr(f.config.cmdline, "fake.deaf")) {
		int s = accept_stream(f.config.fd[CONTROL_FD_VSOCK]);
		if (s >= 0 && strstr(f.config.cmdline, "fake.garbage")) {
			if (write(s, "this is no frame at all", 23) != 23)
				return 1;
		} else if (s >= 0) {
			fcntl(s, F_SETFL, O_NONBLOCK);
			agent_add_stream(f.agent, s, &err);
		}
	}
	agent_run(f.agent, &err);
	agent_free(f.agent);
	return 0;
}
