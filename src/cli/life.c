/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: everything that may take long and needs no tidying (parsing, the probe, an image of a
 * directory) has been done, with signals doing what they always do. From here on every signal that could end this
 * process is blocked and read from a descriptor instead, so that there is a single way out:
 * through the end of the functions below, where the terminal is restored and the sandbox taken down. A crash of this
 * process is covered by its children's leashes and the next command.
 *
 * In front, signals belong to the program in the sandbox. Before it runs, they end the run. When it does not react, the
 * third SIGINT or SIGTERM ends the sandbox. Behind, SIGTERM and SIGINT stop the sandbox as `caisson stop` does.
 */
#include "cli/life.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/terminal.h"

#define INSIST 3 /* so many SIGINT or SIGTERM without effect end the sandbox */

struct run {
	struct loop *loop;
	struct sandbox *sandbox;
	struct terminal term;
	bool tty, behind, started;
	int sigfd;
	int report; /* behind: where the parent waits for news; -1 once told */
	unsigned insisted;
	unsigned stop_timeout;
};

static const int stdio_fds[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

/* What the process behind tells the one in front: a status, and a sentence with it unless that is 0. */
struct news {
	int status;
	char text[480];
};

static void tell(struct run *r, int status, const char *text)
{
	struct news n = {.status = status};
	if (r->report < 0)
		return;
	snprintf(n.text, sizeof(n.text), "%s", text);
	if (file_write_full(r->report, &n, sizeof(n)) < 0) {
		/* nobody listens any more: no reason to stop */
	}
	close(r->report);
	r->report = -1;
}

static void on_started(void *ctx)
{
	struct run *r = ctx;
	r->started = true;
	if (r->behind) {
		tell(r, 0, "");
		return;
	}
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

static void on_signal_behind(struct run *r, int signo)
{
	if (signo != SIGINT && signo != SIGTERM)
		return;
	if (++r->insisted >= INSIST)
		sandbox_kill(r->sandbox, 137, "");
	else
		sandbox_stop(r->sandbox, r->stop_timeout);
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
		sandbox_signal(r->sandbox, signo, NULL);
}

static void on_signal(void *ctx, uint32_t events)
{
	struct run *r = ctx;
	struct signalfd_siginfo si;
	while (read(r->sigfd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		(r->behind ? on_signal_behind : on_one_signal)(r, (int)si.ssi_signo);
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

/* From start to end; r has the differences between in front and behind. */
static int live(struct run *r, const struct sandbox_plan *p, struct sandbox_dir *d, struct sandbox_state *st, struct sandbox_hooks *h,
		struct cai_error *err)
{
	int status = EXIT_CAISSON;
	h->started = on_started;
	h->ended = on_ended;
	h->ctx = r;
	r->stop_timeout = p->spec->stop_timeout;
	r->loop = loop_new(err);
	if (!r->loop)
		return status;
	if ((r->sigfd = take_signals(err)) >= 0 && loop_add_fd(r->loop, r->sigfd, EPOLLIN, on_signal, r, err) &&
	    (r->sandbox = sandbox_start(r->loop, p, d, st, h, err))) {
		if (!r->behind && sandbox_warning(r->sandbox)[0])
			cli_say("warning: %s", sandbox_warning(r->sandbox));
		if (loop_run(r->loop, err) == 0)
			status = sandbox_exit_status(r->sandbox);
		terminal_restore(&r->term);
		if (!r->behind && sandbox_why(r->sandbox)[0])
			cli_say("%s", sandbox_why(r->sandbox));
		if (!r->behind)
			print_console(sandbox_console(r->sandbox));
		if (r->behind && !r->started)
			cai_fail(err, 0, "%s", sandbox_why(r->sandbox));
	}
	terminal_restore(&r->term);
	return status;
}

int life_attached(const struct sandbox_plan *p, struct sandbox_dir *d, struct sandbox_state *st, bool *started)
{
	const struct sandbox_spec *spec = p->spec;
	struct cai_error err = {0};
	struct run r = {.sigfd = -1, .report = -1, .tty = spec->tty, .term = {.fd = -1, .keep_quit = spec->console}};
	if (spec->tty && spec->interactive && isatty(STDIN_FILENO))
		r.term.fd = STDIN_FILENO;
	struct sandbox_hooks h = {.in = STDIN_FILENO, .out = STDOUT_FILENO, .err = STDERR_FILENO};
	terminal_size(stdio_fds, 3, &h.rows, &h.cols);
	int status = live(&r, p, d, st, &h, &err);
	if (err.text[0])
		cli_say("%s", err.text);
	*started = r.sandbox != NULL;
	sandbox_finish(r.sandbox);
	loop_free(r.loop);
	if (r.sigfd >= 0)
		close(r.sigfd);
	return status;
}

/* In the process behind. Does not return. */
static void behind(const struct sandbox_plan *p, struct sandbox_dir *d, struct sandbox_state *st, int report)
{
	struct cai_error err = {0};
	struct run r = {.sigfd = -1, .report = report, .behind = true, .term = {.fd = -1}};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), hold[2] = {-1, -1};
	setsid();
	if (chdir("/") < 0 || null < 0 || pipe2(hold, O_CLOEXEC) < 0)
		_exit(EXIT_CAISSON);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2);
	/* A standard input that nobody writes to and that does not end, as `docker run -di` has it. */
	struct sandbox_hooks h = {.in = p->spec->interactive ? hold[0] : 0, .out = 1, .err = 2};
	int status = live(&r, p, d, st, &h, &err);
	bool ran = r.started;
	if (r.sandbox && !ran) {
		/* The record stays with the one in front, who decides what becomes of it. */
		snprintf(st->error, sizeof(st->error), "%s", sandbox_why(r.sandbox));
	}
	sandbox_finish(r.sandbox);
	tell(&r, status ? status : EXIT_CAISSON, err.text[0] ? err.text : "the sandbox ended before its command ran");
	_exit(0);
}

int life_detached(const struct sandbox_plan *p, struct sandbox_dir *d, struct sandbox_state *st, struct cai_error *err)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0) {
		cai_fail_errno(err, errno, "cannot make a pipe");
		return EXIT_CAISSON;
	}
	cleanup_close int rd = fds[0], wr = fds[1];
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) {
		cai_fail_errno(err, errno, "cannot start a process for the sandbox");
		return EXIT_CAISSON;
	}
	if (pid == 0) {
		close(steal_fd(&rd));
		behind(p, d, st, wr);
	}
	close(steal_fd(&wr));
	struct news n;
	if (file_read_full(rd, &n, sizeof(n)) != (ssize_t)sizeof(n)) {
		cai_fail(err, 0, "the process that was to run the sandbox ended unexpectedly");
		return EXIT_CAISSON;
	}
	if (n.status) {
		n.text[sizeof(n.text) - 1] = 0;
		cai_fail(err, 0, "%s", n.text);
	}
	return n.status;
}
