/* SPDX-License-Identifier: Apache-2.0 */
/* `caisson exec`: one more program in a running sandbox. */
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
#include "cli/cli.h"
#include "cli/terminal.h"
#include "cli/words.h"
#include "sandbox/call.h"
#include "sandbox/events.h"
#include "sandbox/sandbox.h"

void help_exec(void)
{
	puts("usage: caisson exec [FLAGS] SANDBOX COMMAND [ARGUMENT...]\n\n"
	     "Run one more command in a running sandbox.\n\n"
	     "  -i, --interactive        pass standard input on\n"
	     "  -t, --tty                give the command a terminal\n"
	     "  -d, --detach             do not wait for it\n"
	     "  -e, --env NAME[=VALUE]   set an environment variable\n"
	     "  -w, --workdir DIR        working directory (the sandbox's)\n"
	     "  -u, --user USER[:GROUP]  user (the sandbox's)\n\n"
	     "exit status: the command's own; 128 + n when signal n ended it; 127, 126 and 125 as for run");
}

enum { O_INTERACTIVE, O_TTY, O_DETACH, O_ENV, O_WORKDIR, O_USER, O_HELP };
const struct cli_option options_exec[] = {
	{"interactive", 'i', OPT_FLAG, O_INTERACTIVE},
	{"tty", 't', OPT_FLAG, O_TTY},
	{"detach", 'd', OPT_FLAG, O_DETACH},
	{"env", 'e', OPT_VALUE, O_ENV},
	{"workdir", 'w', OPT_VALUE, O_WORKDIR},
	{"user", 'u', OPT_VALUE, O_USER},
	{"help", 'h', OPT_FLAG, O_HELP},
	{NULL, 0, 0, 0},
};

#define MAX_ENV 1024

struct exec {
	bool interactive, tty, detach, help;
	const char *cwd, *user, *env[MAX_ENV];
	size_t n_env;
	/* while it runs */
	struct loop *loop;
	struct session *session;
	struct terminal term;
	int sigfd;
};

static const int stdio_fds[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct exec *x = ctx;
	switch (id) {
	case O_INTERACTIVE:
		x->interactive = true;
		break;
	case O_TTY:
		x->tty = true;
		break;
	case O_DETACH:
		x->detach = true;
		break;
	case O_ENV:
		if (!*v || *v == '=' || x->n_env == MAX_ENV)
			return cai_fail(err, EINVAL, "-e needs NAME=VALUE or NAME, not '%s'", v);
		x->env[x->n_env++] = v;
		break;
	case O_WORKDIR:
		x->cwd = v;
		return v[0] == '/' ? 0 : cai_fail(err, EINVAL, "-w needs an absolute path in the sandbox, not '%s'", v);
	case O_USER:
		x->user = v;
		break;
	case O_HELP:
		x->help = true;
	}
	return 0;
}

static void on_started(void *ctx)
{
	struct exec *x = ctx;
	uint16_t rows, cols;
	if (x->detach) {
		loop_stop(x->loop);
		return;
	}
	terminal_raw(&x->term);
	terminal_size(stdio_fds, 3, &rows, &cols);
	if (x->tty && rows && cols)
		session_resize(x->session, rows, cols);
}

static void on_ended(void *ctx)
{
	struct exec *x = ctx;
	loop_stop(x->loop);
}

static void on_signal(void *ctx, uint32_t events)
{
	struct exec *x = ctx;
	struct signalfd_siginfo si;
	uint16_t rows, cols;
	while (read(x->sigfd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo != SIGWINCH) {
			session_signal(x->session, (int)si.ssi_signo);
			continue;
		}
		terminal_size(stdio_fds, 3, &rows, &cols);
		if (x->tty && rows && cols)
			session_resize(x->session, rows, cols);
	}
}

static int take_signals(struct cai_error *err)
{
	sigset_t set_;
	static const int ours[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	sigemptyset(&set_);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		sigaddset(&set_, ours[i]);
	signal(SIGPIPE, SIG_IGN);
	int fd = signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot receive signals");
	sigprocmask(SIG_BLOCK, &set_, NULL);
	return fd;
}

/* The sandbox's own environment with -e on top. A malloc'd list of borrowed strings and of those in *owned. */
static char **environment(const struct exec *x, char *const *base, char **owned)
{
	size_t n = 0, o = 0;
	while (base && base[n])
		n++;
	char **l = calloc(n + x->n_env + 1, sizeof(*l));
	if (!l)
		return NULL;
	n = 0;
	for (; base && base[n]; n++)
		l[n] = base[n];
	for (size_t i = 0; i < x->n_env; i++) {
		char *e = (char *)(uintptr_t)x->env[i];
		size_t len = strcspn(e, "=");
		if (!e[len]) {
			const char *v = getenv(e);
			if (!v || asprintf(&e, "%s=%s", x->env[i], v) < 0)
				continue;
			owned[o++] = e;
		}
		size_t k = 0;
		while (k < n && (strncmp(l[k], e, len) || l[k][len] != '='))
			k++;
		l[k] = e;
		n += k == n;
	}
	return l;
}

static int run(struct exec *x, struct store *s, struct sandbox_view *v, char **argv, struct cai_error *err)
{
	char *owned[MAX_ENV] = {0};
	int status = EXIT_CAISSON;
	char why[480];
	const struct sandbox_spec *spec = &v->conf.spec;
	cleanup_free char **env = environment(x, spec->env, owned);
	struct agent_start start = {
		.flags = (x->tty && !x->detach ? AGENT_START_TTY : 0) | (x->interactive && !x->detach ? AGENT_START_STDIN : 0) |
			 (x->detach ? AGENT_START_DETACH : 0),
		.argv = argv,
		.env = env,
		.cwd = (char *)(uintptr_t)(x->cwd ? x->cwd : spec->cwd ? spec->cwd : ""),
		.user = (char *)(uintptr_t)(x->user ? x->user : spec->user ? spec->user : ""),
	};
	terminal_size(stdio_fds, 3, &start.rows, &start.cols);
	if (x->tty && x->interactive && isatty(STDIN_FILENO))
		x->term.fd = STDIN_FILENO;
	int in = x->interactive && !x->detach ? STDIN_FILENO : -1;
	x->loop = loop_new(err);
	if (x->loop && (x->sigfd = take_signals(err)) >= 0 && loop_add_fd(x->loop, x->sigfd, EPOLLIN, on_signal, x, err) &&
	    (x->session = call_session(x->loop, v, &start, in, STDOUT_FILENO, STDERR_FILENO, on_started, on_ended, x, err)) &&
	    loop_run(x->loop, err) == 0) {
		terminal_restore(&x->term);
		events_add(s, "exec", &v->dir, spec, json_pack("{s:o}", "command", spec_json_text(argv[0])));
		if (x->detach && session_running(x->session)) {
			status = 0;
		} else {
			status = call_status(x->session, why, sizeof(why));
			if (why[0])
				cli_say("%s", why);
		}
	}
	terminal_restore(&x->term);
	session_free(x->session);
	loop_free(x->loop);
	if (x->sigfd >= 0)
		close(x->sigfd);
	for (size_t i = 0; i < MAX_ENV; i++)
		free(owned[i]);
	return status;
}

int cmd_exec(int argc, char **argv)
{
	struct exec x = {.sigfd = -1, .term = {.fd = -1}};
	struct cli_parse p;
	struct cai_error err = {0};
	struct store s;
	struct sandbox_view v;
	if (cli_options(argc, argv, options_exec, set, &x, &p, &err) < 0)
		return words_usage(&err);
	if (x.help) {
		help_exec();
		return 0;
	}
	if (argc - p.next < 2) {
		cli_say("exec needs a sandbox and a command; see caisson exec --help");
		return CLI_EXIT_USAGE;
	}
	if (x.tty && x.interactive && !x.detach && !isatty(STDIN_FILENO)) {
		cli_say("-t with -i needs a terminal on standard input; leave out -t to pass a pipe or file on");
		return CLI_EXIT_USAGE;
	}
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	int status = EXIT_CAISSON;
	if (sandbox_view_find(&s, argv[p.next], &v, &err) == 0) {
		status = run(&x, &s, &v, argv + p.next + 1, &err);
		sandbox_view_free(&v);
	}
	if (err.text[0])
		cli_say("%s", err.text);
	store_close(&s);
	return status;
}
