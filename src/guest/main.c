/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caisson-init: PID 1 of a sandbox. In a microVM it reports that it lives (where the kernel command line asks with "caisson.hello"), listens on
 * vsock, tells the monitor, and serves the agent protocol until POWEROFF.
 * With --container it is PID 1 of a container: everything about that has been set up, descriptor 3 is the socket to listen on.
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
#include "guest/container.h"
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
	/* What a parent may have ignored: programs are to find it as usual. */
	static const int inherited[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGCHLD, SIGTTOU, SIGTTIN, SIGTSTP};
	sigset_t chld;
	for (unsigned i = 0; i < sizeof(inherited) / sizeof(inherited[0]); i++)
		signal(inherited[i], SIG_DFL);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static struct agent *start(struct machine *m, struct cai_error *err)
{
	const struct agent_ops ops = {
		.setup = machine_setup,
		.renew = machine_renew,
		.prepare = machine_prepare,
		.prepared = machine_prepared,
		.poweroff = machine_poweroff,
		.spawn = spawn_process,
		.signal_session = spawn_signal_session,
		.oom_kills = machine_oom_kills,
		.ctx = m,
		.first_together = true,
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

/* Ends when it cannot serve, unlike a machine's: its end is the container's, and the engine sees it. */
static int run_container(void)
{
	const struct agent_ops ops = {
		.setup = container_setup,
		.poweroff = container_poweroff,
		.spawn = spawn_process,
		.signal_session = spawn_signal_session,
		.oom_kills = container_oom_kills,
		.reap_all = true,
	};
	struct cai_error err = {.text = ""};

	block_signals();
	int fd = container_listener(&err);
	if (fd >= 0) {
		struct agent *a = agent_new(&ops, &err);
		if (a && agent_listen(a, fd, &err) == 0 && agent_run(a, &err) == 0)
			return 0;
	}
	say(err.text);
	return 1;
}

int main(int argc, char **argv)
{
	struct cai_error err = {.text = ""};
	struct machine machine = MACHINE_INIT;

	if (getpid() != 1) {
		fprintf(stderr, "caisson-init: runs only as PID 1 of a Caisson sandbox\n");
		return 2;
	}
	/* The kernel hands init what it does not understand of its command line, but "--container" never comes from there. */
	if (argc == 2 && !strcmp(argv[1], "--container"))
		return run_container();
	ensure_stdio();
	machine_early(&machine);
	if (machine_cmdline_has("caisson.hello"))
		say("ready");
	block_signals();
	struct agent *a = start(&machine, &err);
	if (!a || agent_run(a, &err) < 0)
		say(err.text);
	for (;;)
		pause();
}
