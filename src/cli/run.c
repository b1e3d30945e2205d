/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: everything that may take long and needs no tidying (parsing, the probe, an image of a
 * directory) comes first, with signals doing what they always do. Then every signal that could end this
 * process is blocked and read from a descriptor instead, so that from there on there is a single way out:
 * through the end of cmd_run, where the terminal is restored and the sandbox taken down. A crash of this
 * process is covered by the monitor's leash and the next command.
 *
 * Signals belong to the program in the guest. Before it runs, they end the run. When it does not react, the
 * third SIGINT or SIGTERM ends the sandbox.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/notice.h"
#include "cli/run_options.h"
#include "cli/terminal.h"
#include "sandbox/sandbox.h"

#define INSIST 3 /* so many SIGINT or SIGTERM without effect end the sandbox */

struct run {
	struct loop *loop;
	struct sandbox *sandbox;
	struct terminal term;
	bool tty;
	int sigfd;
	unsigned insisted;
};

static const int stdio_fds[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

static void on_started(void *ctx)
{
	struct run *r = ctx;
	terminal_raw(&r->term);
	if (r->tty) {
		uint16_t rows, cols; /* it may have changed since START was written */
		terminal_size(stdio_fds, 3, &rows, &cols);
		if (rows && cols)
			sandbox_resize(r->sandbox, rows, cols);
	}
}

static void on_ended(void *ctx)
{
	struct run *r = ctx;
	loop_stop(r->loop);
}

static void on_one_signal(struct run *r, int signo)
{
	if (signo == SIGWINCH || signo == SIGCONT) {
		uint16_t rows, cols;
		if (signo == SIGCONT && r->term.raw)
			terminal_raw(&r->term); /* whoever had the terminal while we were stopped may have
						   changed it */
		terminal_size(stdio_fds, 3, &rows, &cols);
		if (r->tty && rows && cols)
			sandbox_resize(r->sandbox, rows, cols);
		return;
	}
	bool insisting = (signo == SIGINT || signo == SIGTERM) && ++r->insisted >= INSIST;
	if (!sandbox_running(r->sandbox) || r->term.keep_quit)
		sandbox_kill(r->sandbox, 128 + signo, "");
	else if (insisting)
		sandbox_kill(r->sandbox, 128 + signo,
			     "the command did not end when asked; the sandbox was stopped");
	else
		sandbox_signal(r->sandbox, signo);
}

static void on_signal(void *ctx, uint32_t events)
{
	struct run *r = ctx;
	struct signalfd_siginfo si;
	while (read(r->sigfd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		on_one_signal(r, (int)si.ssi_signo);
}

/* Blocks what would end this process, or must be acted on; returns the signalfd. */
static int take_signals(struct cai_error *err)
{
	sigset_t set;
	sigfillset(&set);
	static const int not_ours[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE,  SIGILL,  SIGTRAP, SIGABRT,
				       SIGSYS,	SIGCHLD, SIGPIPE, SIGURG, SIGTSTP, SIGTTIN, SIGTTOU};
	for (size_t i = 0; i < sizeof(not_ours) / sizeof(not_ours[0]); i++)
		sigdelset(&set, not_ours[i]);
	signal(SIGPIPE, SIG_IGN);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot receive signals");
	sigprocmask(SIG_BLOCK, &set, NULL);
	return fd;
}

/* The console's last lines as they are, but without what could drive the user's terminal. */
static void print_console(const char *text)
{
	if (!text[0])
		return;
	fputs("--- the guest's last console lines ---\n", stderr);
	for (const char *p = text; *p; p++)
		if (*p != '\r')
			fputc(*p == '\n' || *p == '\t' || (*p >= 32 && *p < 127) ? *p : '?', stderr);
	fputs(text[strlen(text) - 1] == '\n' ? "---\n" : "\n---\n", stderr);
}

static int run_plan(const struct sandbox_plan *plan, struct cai_error *err)
{
	const struct sandbox_spec *spec = plan->spec;
	struct run r = {.sigfd = -1, .tty = spec->tty, .term = {.fd = -1, .keep_quit = spec->console}};
	if (spec->tty && spec->interactive && isatty(STDIN_FILENO))
		r.term.fd = STDIN_FILENO;
	struct sandbox_hooks h = {.started = on_started,
				  .ended = on_ended,
				  .ctx = &r,
				  .in = STDIN_FILENO,
				  .out = STDOUT_FILENO,
				  .err = STDERR_FILENO};
	terminal_size(stdio_fds, 3, &h.rows, &h.cols);
	int status = EXIT_CAISSON;
	r.loop = loop_new(err);
	if (!r.loop)
		return status;
	if ((r.sigfd = take_signals(err)) >= 0 && loop_add_fd(r.loop, r.sigfd, EPOLLIN, on_signal, &r, err) &&
	    (r.sandbox = sandbox_start(r.loop, plan, &h, err)) && loop_run(r.loop, err) == 0) {
		status = sandbox_exit_status(r.sandbox);
		terminal_restore(&r.term);
		if (sandbox_why(r.sandbox)[0])
			cli_say("%s", sandbox_why(r.sandbox));
		print_console(sandbox_console(r.sandbox));
	}
	terminal_restore(&r.term);
	sandbox_free(r.sandbox);
	loop_free(r.loop);
	if (r.sigfd >= 0)
		close(r.sigfd);
	return status;
}

int cmd_run(int argc, char **argv)
{
	struct run_args a;
	struct cai_error err = {0};
	struct sandbox_plan plan;
	int status = EXIT_CAISSON;
	if (run_args_parse(argc, argv, &a, &err) < 0) {
		cli_say("%s", err.text);
	} else if (a.help) {
		help_run();
		status = 0;
	} else if (a.spec.tty && a.spec.interactive && !isatty(STDIN_FILENO)) {
		cli_say(
		    "-t with -i needs a terminal on standard input; leave out -t to pass a pipe or file on");
	} else if (sandbox_plan_make(&plan, &a.spec, &err) < 0) {
		cli_say("%s", err.text);
	} else {
		notice_boundary(&plan.accel);
		if (plan.accel.kvm && plan.accel.verdict.state != KVM_USABLE)
			cli_say("warning: this host's KVM is unfit for guests%s%s; the sandbox will be slow "
				"(--accel soft is better here)",
				plan.accel.verdict.reason[0] ? ": " : "", plan.accel.verdict.reason);
		status = run_plan(&plan, &err);
		if (err.text[0])
			cli_say("%s", err.text);
		sandbox_plan_free(&plan);
	}
	run_args_free(&a);
	return status;
}
