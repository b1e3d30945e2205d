/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the process that runs a sandbox: stop, kill, pause, unpause, wait; and start and restart, which make one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "cli/life.h"
#include "cli/words.h"
#include "image/run_config.h"
#include "sandbox/events.h"
#include "sandbox/plan.h"
#include "sandbox/runner.h"

#define ASK_MS	    20000
#define SETTLE_MS   15000 /* for a runner that has told of the end to let go of the lock */
#define KILL_EXTRA  30	  /* seconds that an end may take beyond the stop timeout: powering off, removing */

struct job {
	const char *op;
	int signo;
	int timeout; /* seconds; -1: the sandbox's own */
	uint32_t bits;
};

static bool runs(const struct sandbox_view *v)
{
	return v->state.status == STATUS_RUNNING || v->state.status == STATUS_PAUSED;
}

static int not_running(const struct sandbox_view *v, struct cai_error *err)
{
	return cai_fail(err, ESRCH, "the sandbox is not running (it is %s)", sandbox_status_name(v->state.status));
}

/* Waits for the announced end. The status in *status; -1 with *err. */
static int await_exit(int fd, struct sandbox_view *v, int timeout_ms, int *status, struct cai_error *err)
{
	for (;;) {
		json_t *o = runner_next(fd, timeout_ms, err);
		json_t *e = json_object_get(o, "exit");
		if (!o)
			return -1;
		*status = (int)json_integer_value(e);
		bool done = json_is_integer(e);
		json_decref(o);
		if (!done)
			continue;
		/* Until the lock is free the directory is the runner's; then a removal or a start may follow at once. */
		int r = sandbox_dir_lock_wait(&v->dir, SETTLE_MS, NULL);
		if (r > 0) {
			close(v->dir.lock_fd);
			v->dir.lock_fd = -1;
		}
		return 0;
	}
}

static int ask(struct sandbox_view *v, json_t *request, struct cai_error *err)
{
	cleanup_close int fd = runner_connect(&v->dir, err);
	if (fd < 0) {
		json_decref(request);
		return not_running(v, err);
	}
	json_t *o = runner_ask(fd, request, ASK_MS, err);
	json_decref(o);
	return o ? 0 : -1;
}

static int control_stop(struct sandbox_view *v, int timeout, struct cai_error *err)
{
	int seconds = timeout >= 0 ? timeout : (int)v->conf.spec.stop_timeout, status;
	cleanup_close int fd = runner_connect(&v->dir, err);
	if (fd < 0)
		return 0; /* it has ended meanwhile */
	json_t *o = runner_ask(fd, json_pack("{s:s,s:i}", "op", "stop", "timeout", seconds), ASK_MS, err);
	if (!o)
		return -1;
	bool ended = json_is_integer(json_object_get(o, "exit"));
	json_decref(o);
	return ended ? 0 : await_exit(fd, v, (seconds + KILL_EXTRA) * 1000, &status, err);
}

int control_end(struct sandbox_view *v, struct cai_error *err)
{
	int status;
	cleanup_close int fd = runner_connect(&v->dir, NULL);
	if (fd < 0)
		return 0;
	json_t *o = runner_ask(fd, json_pack("{s:s,s:i}", "op", "signal", "signal", 9), ASK_MS, err);
	if (!o)
		return -1;
	bool ended = json_is_integer(json_object_get(o, "exit"));
	json_decref(o);
	return ended ? 0 : await_exit(fd, v, KILL_EXTRA * 1000, &status, err);
}

static int do_stop(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	struct job *j = ctx;
	if (runs(v)) {
		events_add(s, "stop", &v->dir, &v->conf.spec, NULL);
		if (control_stop(v, j->timeout, err) < 0)
			return -1;
	}
	puts(v->name);
	return 0;
}

static int do_kill(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	struct job *j = ctx;
	if (!runs(v))
		return not_running(v, err);
	if (ask(v, json_pack("{s:s,s:i}", "op", "signal", "signal", j->signo), err) < 0)
		return -1;
	events_add(s, "kill", &v->dir, &v->conf.spec, json_pack("{s:i}", "signal", j->signo));
	puts(v->name);
	return 0;
}

static int do_pause(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	struct job *j = ctx;
	if (!runs(v))
		return not_running(v, err);
	if (ask(v, json_pack("{s:s}", "op", j->op), err) < 0)
		return -1;
	puts(v->name);
	return 0;
}

static int do_wait(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	int status = v->state.exit_code;
	if (v->state.status == STATUS_CREATED)
		return cai_fail(err, EINVAL, "the sandbox was never started");
	if (runs(v)) {
		cleanup_close int fd = runner_connect(&v->dir, NULL);
		json_t *o = fd < 0 ? NULL : runner_ask(fd, json_pack("{s:s}", "op", "wait"), ASK_MS, err);
		json_t *e = json_object_get(o, "exit");
		if (json_is_integer(e))
			status = (int)json_integer_value(e);
		else if (o && await_exit(fd, v, -1, &status, err) < 0) {
			json_decref(o);
			return -1;
		}
		if (!o) { /* it ended between our look and our question */
			struct sandbox_state st;
			if (sandbox_dir_lock_wait(&v->dir, SETTLE_MS, NULL) > 0 && sandbox_state_read(&v->dir, &st, NULL) == 0) {
				status = st.exit_code;
				sandbox_state_free(&st);
			}
		}
		json_decref(o);
	}
	printf("%d\n", status);
	fflush(stdout);
	return 0;
}

/* Starts what is not running. Returns the exit status of the program when attached, else 0 or 125. */
static int start_view(struct store *s, struct sandbox_view *v, bool attach, bool stdin_too, struct cai_error *err)
{
	struct sandbox_spec *spec = &v->conf.spec;
	struct sandbox_plan p;
	if (runs(v))
		return attach ? (cai_fail(err, EBUSY, "it runs already; 'caisson logs -f %s' shows what it writes", v->name), EXIT_CAISSON) : 0;
	if (v->state.status == STATUS_SUSPENDED) {
		cai_fail(err, EINVAL, "it is suspended; 'caisson resume %s' lets it go on", v->name);
		return EXIT_CAISSON;
	}
	int r = sandbox_dir_lock_wait(&v->dir, SETTLE_MS, err);
	if (r <= 0) {
		if (r == 0)
			cai_fail(err, EBUSY, "another command is busy with it");
		return EXIT_CAISSON;
	}
	spec->detached = !attach;
	if (attach && !stdin_too)
		spec->interactive = false;
	if (sandbox_plan_make(&p, spec, err) < 0)
		return EXIT_CAISSON;
	int status;
	if (attach) {
		bool started;
		status = life_attached(&p, &v->dir, &v->state, &started);
	} else {
		status = life_detached(&p, &v->dir, &v->state, err);
	}
	sandbox_plan_free(&p);
	return status;
}

enum { B_ATTACH, B_INTERACTIVE, B_HELP, B_TIME, B_SIGNAL };

static int set(void *ctx, int id, const char *value, struct cai_error *err)
{
	struct job *j = ctx;
	char *end;
	if (id == B_TIME) {
		long n = strtol(value, &end, 10);
		if (end == value || *end || n < 0 || n > 1000000)
			return cai_fail(err, EINVAL, "-t needs a number of seconds, not '%s'", value);
		j->timeout = (int)n;
	} else if (id == B_SIGNAL) {
		j->signo = image_signal_number(value);
		if (j->signo <= 0)
			return cai_fail(err, EINVAL, "'%s' is no signal", value);
	} else {
		j->bits |= 1u << id;
	}
	return 0;
}

static int command(int argc, char **argv, const struct cli_option *opts, struct job *j, void (*help)(void),
		   int (*fn)(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err))
{
	struct words w;
	struct cai_error err = {0};
	if (words_parse(argc, argv, opts, set, j, &w, &err) < 0)
		return words_usage(&err);
	if (j->bits & 1u << B_HELP) {
		help();
		return 0;
	}
	if (!w.n) {
		cli_say("which sandbox? see caisson %s --help", argv[0]);
		return CLI_EXIT_USAGE;
	}
	return words_each(&w, fn, j);
}

const struct cli_option options_help[] = {
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};
const struct cli_option options_stop[] = {
	{"time", 't', OPT_VALUE, B_TIME},
	{"timeout", 0, OPT_VALUE, B_TIME},
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};
const struct cli_option options_kill[] = {
	{"signal", 's', WORD_SIGNAL, B_SIGNAL},
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};
const struct cli_option options_start[] = {
	{"attach", 'a', OPT_FLAG, B_ATTACH},
	{"interactive", 'i', OPT_FLAG, B_INTERACTIVE},
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};

void help_stop(void)
{
	puts("usage: caisson stop [-t SECONDS] SANDBOX...\n\n"
	     "Send the sandbox's stop signal (TERM unless its image or --stop-signal says otherwise), and KILL when it has not ended\n"
	     "after SECONDS (10, or what --stop-timeout said).\n\n"
	     "  -t, --time SECONDS  how long to wait before it is killed");
}

int cmd_stop(int argc, char **argv)
{
	struct job j = {.timeout = -1};
	return command(argc, argv, options_stop, &j, help_stop, do_stop);
}

void help_kill(void)
{
	puts("usage: caisson kill [-s SIGNAL] SANDBOX...\n\nSend a signal to the sandbox's program.\n\n  -s, --signal SIGNAL  by name or number (KILL)");
}

int cmd_kill(int argc, char **argv)
{
	struct job j = {.signo = 9};
	return command(argc, argv, options_kill, &j, help_kill, do_kill);
}

void help_pause(void)
{
	puts("usage: caisson pause SANDBOX...\n\nStop everything in the sandbox where it is, until unpause.");
}

int cmd_pause(int argc, char **argv)
{
	struct job j = {.op = "pause"};
	return command(argc, argv, options_help, &j, help_pause, do_pause);
}

void help_unpause(void)
{
	puts("usage: caisson unpause SANDBOX...\n\nLet a paused sandbox go on.");
}

int cmd_unpause(int argc, char **argv)
{
	struct job j = {.op = "unpause"};
	return command(argc, argv, options_help, &j, help_unpause, do_pause);
}

void help_wait(void)
{
	puts("usage: caisson wait SANDBOX...\n\nWait until the sandboxes have ended, and print their exit statuses.");
}

int cmd_wait(int argc, char **argv)
{
	struct job j = {0};
	return command(argc, argv, options_help, &j, help_wait, do_wait);
}

static int do_start(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	if (start_view(s, v, false, false, err))
		return -1;
	puts(v->name);
	return 0;
}

void help_start(void)
{
	puts("usage: caisson start [-a] [-i] SANDBOX...\n\n"
	     "Start sandboxes that have ended or were only created, in the background.\n\n"
	     "  -a, --attach       in the foreground: show what the one sandbox writes, and exit with its status\n"
	     "  -i, --interactive  with -a: pass standard input on, when it was made with -i");
}

int cmd_start(int argc, char **argv)
{
	struct job j = {0};
	struct words w;
	struct cai_error err = {0};
	if (words_parse(argc, argv, options_start, set, &j, &w, &err) < 0)
		return words_usage(&err);
	if (!(j.bits & 1u << B_ATTACH) || (j.bits & 1u << B_HELP))
		return command(argc, argv, options_start, &j, help_start, do_start);
	if (w.n != 1) {
		cli_say("start -a takes one sandbox");
		return CLI_EXIT_USAGE;
	}
	struct store s;
	struct sandbox_view v;
	int status = CLI_EXIT_USAGE;
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	if (sandbox_view_find(&s, w.v[0], &v, &err) == 0) {
		status = start_view(&s, &v, true, j.bits & 1u << B_INTERACTIVE, &err);
		sandbox_view_free(&v);
	}
	if (err.text[0])
		cli_say("%s", err.text);
	store_close(&s);
	return status;
}

static int do_restart(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	struct job *j = ctx;
	if (runs(v)) {
		struct sandbox_state st;
		if (control_stop(v, j->timeout, err) < 0)
			return -1;
		if (v->conf.spec.remove)
			return cai_fail(err, EINVAL, "it was made with --rm, so stopping it has removed it");
		if (sandbox_state_read(&v->dir, &st, err) < 0)
			return -1;
		sandbox_state_free(&v->state);
		v->state = st;
	}
	return do_start(NULL, s, v, err);
}

void help_restart(void)
{
	puts("usage: caisson restart [-t SECONDS] SANDBOX...\n\nStop sandboxes, as stop does, and start them again.\n\n"
	     "  -t, --time SECONDS  how long to wait before they are killed");
}

int cmd_restart(int argc, char **argv)
{
	struct job j = {.timeout = -1};
	return command(argc, argv, options_stop, &j, help_restart, do_restart);
}
