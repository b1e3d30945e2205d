/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PID 1 for testing the agent in a real guest that has no vsock: the agent's own sources, with a host's side as its first child,
 * over socket pairs. The host's side sends SETUP as the kernel command line asks (boottest.mode=overlay, readonly, direct; boottest.dev=),
 * runs a shell script that reports on the guest, prints what came, and sends POWEROFF.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "guest/agent.h"
#include "guest/machine.h"

static unsigned receive(int fd, uint8_t **body, uint32_t *len)
{
	uint8_t raw[AGENT_HEADER_SIZE];
	struct agent_header h;
	if (file_read_full(fd, raw, sizeof(raw)) != (ssize_t)sizeof(raw) || agent_get_header(raw, &h, NULL) < 0)
		return 0;
	*len = h.len;
	*body = calloc(1, h.len + 1);
	if (!*body || file_read_full(fd, *body, h.len) != (ssize_t)h.len)
		return 0;
	return h.type;
}

static void transmit(int fd, struct buf *b)
{
	if (b->failed || file_write_full(fd, b->p, b->len) < 0)
		printf("boottest: sending failed\n");
	buf_free(b);
}

/* Prints frames up to and with the one that ends an exchange. Returns its type. */
static unsigned report(int fd)
{
	for (;;) {
		uint8_t *body = NULL;
		uint32_t len = 0;
		struct agent_error e;
		struct agent_exit x;
		unsigned type = receive(fd, &body, &len);
		switch (type) {
		case AGENT_STDOUT:
		case AGENT_STDERR:
			fwrite(body, 1, len, stdout);
			break;
		case AGENT_ERROR:
			if (agent_get_error(body, len, &e, NULL) == 0)
				printf("boottest: error %u: %s\n", e.code, e.text);
			return type;
		case AGENT_EXIT:
			if (agent_get_exit(body, len, &x, NULL) == 0)
				printf("boottest: exit %u signal %u\n", x.status, x.signal);
			return type;
		case AGENT_OK:
			printf("boottest: ok\n");
			return type;
		case 0:
			printf("boottest: stream ended\n");
			return 0;
		default:
			break;
		}
		free(body);
	}
}

static const char *option(char *cmdline, const char *name, char *value, size_t max)
{
	char *p = strstr(cmdline, name);
	if (!p)
		return "";
	p += strlen(name);
	snprintf(value, max, "%.*s", (int)strcspn(p, " \n"), p);
	return value;
}

static void host_side(int *fds)
{
	static char script[] =
		"echo \"user $(id -u) host $(hostname) year $(date +%Y)\"\n"
		"for d in / /proc /sys /dev /dev/pts /dev/shm /dev/mqueue /sys/fs/cgroup /run /tmp; do\n"
		" awk -v d=$d '$2 == d { split($4, o, \",\"); t = $2 \" \" $3 \" \" o[1] } END { if (t) print \"mount\", t }' /proc/mounts\n"
		"done\n"
		"ls -l /dev/fd /dev/stdin /dev/stdout /dev/stderr | awk '{ print \"link\", $9, $11 }'\n"
		"stat -c 'mode %n %a' / /tmp /dev/null /dev/ptmx /dev/shm\n"
		"cat /etc/hosts | sed 's/^/hosts /'\n"
		"touch /root/w 2>/dev/null && echo writable || echo read-only\n"
		"ping -c1 -W1 127.0.0.1 >/dev/null && echo loopback up\n"
		"echo \"oom self $(cat /proc/self/oom_score_adj)\"\n"
		"echo \"entropy $(cat /proc/sys/kernel/random/entropy_avail)\"\n"
		"exit 5\n";
	char mode[16] = "", dev[64] = "", *cmdline = NULL;
	size_t n;
	struct buf b = {0};
	if (file_read_all("/proc/cmdline", 4096, &cmdline, &n, NULL) < 0)
		return;
	option(cmdline, "boottest.mode=", mode, sizeof(mode));
	option(cmdline, "boottest.dev=", dev, sizeof(dev));

	struct agent_setup setup = {
		.hostname = (char[]){"sandbox"},
		.realtime_ns = 1893456000000000000ull, /* 2030 */
		.root_dev = dev,
		.root_mode = !strcmp(mode, "direct") ? AGENT_ROOT_DIRECT : !strcmp(mode, "readonly") ? AGENT_ROOT_READONLY : AGENT_ROOT_OVERLAY_TMPFS,
	};
	memset(setup.entropy, 0x5a, sizeof(setup.entropy));
	agent_put_setup(&b, &setup);
	transmit(fds[0], &b);
	if (report(fds[0]) == AGENT_OK) {
		char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, script, NULL};
		agent_put_start(&b, &(struct agent_start){.argv = argv});
		transmit(fds[0], &b);
		report(fds[0]);
		char *tty[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"tty; stty size; sleep 0.1 & exit 0"}, NULL};
		agent_put_start(&b, &(struct agent_start){.flags = AGENT_START_TTY, .rows = 11, .cols = 22, .argv = tty});
		transmit(fds[1], &b);
		report(fds[1]);
	}
	fflush(stdout);
	agent_put_frame(&b, AGENT_POWEROFF, NULL, 0);
	transmit(fds[2], &b);
	for (;;)
		pause();
}

int main(void)
{
	struct machine machine = MACHINE_INIT;
	const struct agent_ops ops = {
		.setup = machine_setup,
		.poweroff = machine_poweroff,
		.spawn = spawn_process,
		.signal_session = spawn_signal_session,
		.oom_kills = machine_oom_kills,
		.ctx = &machine,
		.reap_all = true,
	};
	struct cai_error err = {.text = ""};
	int mine[3], theirs[3];
	sigset_t chld;

	machine_early(&machine);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 3; i++) {
		int sp[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sp) < 0)
			return 1;
		mine[i] = sp[0];
		theirs[i] = sp[1];
	}
	pid_t pid = fork();
	if (pid == 0) {
		host_side(theirs);
		_exit(1);
	}
	for (int i = 0; i < 3; i++)
		close(theirs[i]);
	struct agent *a = agent_new(&ops, &err);
	for (int i = 0; a && i < 3; i++)
		agent_add_stream(a, mine[i], &err);
	if (!a || agent_run(a, &err) < 0)
		printf("boottest: %s\n", err.text);
	return 1;
}
