/* SPDX-License-Identifier: Apache-2.0 */
/* `caisson run` and `caisson create`: from a command line to a sandbox in the store, and on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"
#include "cli/life.h"
#include "cli/notice.h"
#include "cli/run_options.h"

#define HEAL_AT_MOST 64 /* sandboxes looked at on the way: starting must not get slower with how many there are */

static void warn_about(const struct sandbox_plan *p)
{
	if (p->spec->engine == ENGINE_CONTAINER)
		return;
	notice_boundary(&p->accel);
	if (p->accel.kvm && p->accel.verdict.state != KVM_USABLE)
		cli_say("warning: this host's KVM is unfit for guests%s%s; the sandbox will be slow "
			"(--accel soft is better here)",
			p->accel.verdict.reason[0] ? ": " : "", p->accel.verdict.reason);
}

static int write_cidfile(const struct run_args *a, const char *id, struct cai_error *err)
{
	if (!a->cidfile)
		return 0;
	if (access(a->cidfile, F_OK) == 0)
		return cai_fail(err, EEXIST, "--cidfile %s exists already; remove it or name another", a->cidfile);
	return file_replace(a->cidfile, id, strlen(id), 0644, err);
}

/* A sandbox that never ran leaves nothing, also when the process that was to run it was killed halfway. */
static void forget(struct sandbox_plan *p, struct sandbox_dir *d)
{
	if (d->dir_fd < 0)
		return;
	sandbox_sweep(&p->store, d);
	sandbox_dir_remove(d, p->spec->name);
}

static int run_planned(struct run_args *a, struct sandbox_plan *p, bool start)
{
	struct cai_error err = {0};
	struct sandbox_dir d;
	struct sandbox_state st;
	int status = EXIT_CAISSON;
	warn_about(p);
	store_heal(&p->store, HEAL_AT_MOST);
	if (sandbox_create(p, start, &d, &st, &err) < 0) {
		cli_say("%s", err.text);
		return status;
	}
	if (write_cidfile(a, d.id, &err) < 0) {
		cli_say("%s", err.text);
		forget(p, &d);
	} else if (!start) {
		puts(d.id);
		status = 0;
	} else if (a->spec.detached) {
		char id[SANDBOX_ID_LEN + 1];
		memcpy(id, d.id, sizeof(id));
		status = life_detached(p, &d, &st, &err);
		if (status == 0) {
			puts(id);
		} else {
			cli_say("%s", err.text);
			forget(p, &d);
		}
	} else {
		bool started;
		status = life_attached(p, &d, &st, &started);
		if (!started)
			forget(p, &d);
	}
	sandbox_state_free(&st);
	sandbox_dir_close(&d);
	return status;
}

static int run_or_create(const char *command, int argc, char **argv)
{
	struct run_args a;
	struct cai_error err = {0};
	struct sandbox_plan plan;
	bool start = !strcmp(command, "run");
	int status = EXIT_CAISSON;
	if (run_args_parse(command, argc, argv, &a, &err) < 0) {
		cli_say("%s", err.text);
	} else if (a.help) {
		(start ? help_run : help_create)();
		status = 0;
	} else if (start && !a.spec.detached && a.spec.tty && a.spec.interactive && !isatty(STDIN_FILENO)) {
		cli_say(
		    "-t with -i needs a terminal on standard input; leave out -t to pass a pipe or file on");
	} else if (sandbox_spec_check(&a.spec, &err) < 0 || run_args_resolve(&a, &err) < 0 || sandbox_plan_make(&plan, &a.spec, &err) < 0) {
		if (err.text[0])
			cli_say("%s", err.text);
	} else {
		status = run_planned(&a, &plan, start);
		sandbox_plan_free(&plan);
	}
	run_args_free(&a);
	return status;
}

int cmd_run(int argc, char **argv)
{
	return run_or_create("run", argc, argv);
}

int cmd_create(int argc, char **argv)
{
	return run_or_create("create", argc, argv);
}
