/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caisson-init: PID 1 of a microVM. It reports that it lives (where the kernel command line asks with "caisson.hello"), listens on
 * vsock, tells the monitor, and serves the agent protocol until POWEROFF.
 *
 * PID 1 must not end: the kernel would panic. Where something is missing (no vsock, say) it says so on the console and stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/machine.h"

/* One write, so that the line comes whole between the kernel's. */
static void say(const char *text)
{
	char line[600];
	int n = snprintf(line, sizeof(line), "caisson-init: %s\n", text);
	if (n >= (int)sizeof(line))
		n = (int)sizeof(line) - 1;
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* a console that takes nothing is nobody's */
}

/* The kernel opens /dev/console as 0, 1 and 2 where the initramfs has it; without it these must not become sockets. */
static void ensure_stdio(void)
{
	if (fcntl(STDERR_FILENO, F_GETFD) >= 0)
		return;
	int fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < STDERR_FILENO)
		fd = dup(fd);
}

static void block_signals(void)
{
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static struct agent *start(struct cai_error *err)
{
	const struct agent_ops ops = {
		.setup = machine_setup,
		.poweroff = machine_poweroff,
		.spawn = spawn_process,
		.signal_session = spawn_signal_session,
		.reap_all = true,
	};

	struct agent *a = agent_new(&ops, err);
	if (!a)
		return NULL;
	int fd = machine_listen(err);
	if (fd < 0 || agent_listen(a, fd, err) < 0 || machine_announce(err) < 0)
		say(err->text); /* a machine without vsock: nobody can ask for anything, but orphans are reaped */
	return a;
}

int main(void)
{
	struct cai_error err = {.text = ""};

	if (getpid() != 1) {
		fprintf(stderr, "caisson-init: runs only as PID 1 of a Caisson guest\n");
		return 2;
	}
	ensure_stdio();
	machine_early();
	if (machine_cmdline_has("caisson.hello"))
		say("ready");
	block_signals();
	struct agent *a = start(&err);
	if (!a || agent_run(a, &err) < 0)
		say(err.text);
	for (;;)
		pause();
}
