/* SPDX-License-Identifier: Apache-2.0 */
/* Changing what a sandbox is: update, rename. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/run_options.h"
#include "cli/words.h"
#include "sandbox/events.h"
#include "sandbox/runner.h"

#define ASK_MS 20000

enum { O_CPUS, O_MEMORY, O_PIDS, O_TIMEOUT, O_HELP };
const struct cli_option options_update[] = {
	{"cpus", 0, OPT_VALUE, O_CPUS},
	{"memory", 'm', OPT_VALUE, O_MEMORY},
	{"pids-limit", 0, OPT_VALUE, O_PIDS},
	{"stop-timeout", 0, OPT_VALUE, O_TIMEOUT},
	{"help", 'h', OPT_FLAG, O_HELP},
	{NULL, 0, 0, 0},
};

struct update {
	bool cpus, memory, pids, timeout, help;
	unsigned milli;
	uint64_t bytes, n_pids;
	unsigned seconds;
};

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct update *u = ctx;
	char *end = NULL;
	switch (id) {
	case O_CPUS:
		u->cpus = true;
		return parse_cpus(v, &u->milli, err);
	case O_MEMORY:
		u->memory = true;
		return parse_size(v, &u->bytes, err);
	case O_PIDS:
		u->pids = true;
		u->n_pids = strtoull(v, &end, 10);
		break;
	case O_TIMEOUT:
		u->timeout = true;
		u->seconds = (unsigned)strtoul(v, &end, 10);
		break;
	case O_HELP:
		u->help = true;
		return 0;
	}
	return end != v && !*end && v[0] != '-' ? 0 : cai_fail(err, EINVAL, "'%s' is no number", v);
}

static bool runs(const struct sandbox_view *v)
{
	return v->state.status == STATUS_RUNNING || v->state.status == STATUS_PAUSED;
}

/* Writes config.json. Of one that runs, the runner is told; else its lock is taken, so that nobody starts it meanwhile. */
static int store_config(struct sandbox_view *v, struct cai_error *err)
{
	if (!runs(v) && sandbox_dir_lock_wait(&v->dir, 2000, err) <= 0)
		return cai_fail(err, EBUSY, "another command is busy with it");
	json_t *o = sandbox_spec_to_json(&v->conf.spec);
	int r = sandbox_dir_write(&v->dir, "config.json", o, true, err);
	json_decref(o);
	return r;
}

static int do_update(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	const struct update *u = ctx;
	struct sandbox_spec *sp = &v->conf.spec, before = *sp;
	bool vm = sp->engine == ENGINE_MICROVM;
	bool live = (u->cpus && !vm) || (u->cpus && vm) || (u->memory && !vm) || (u->pids && !vm);
	if (u->cpus) {
		sp->cpu_milli = u->milli;
		if (vm && runs(v) && (u->milli + 999) / 1000 > sp->cpus)
			return cai_fail(err, EINVAL, "a running microVM has the %u virtual CPUs it was started with; stop it first to give it more", sp->cpus);
		if (!vm || !runs(v))
			sp->cpus = (u->milli + 999) / 1000;
	}
	if (u->memory) {
		if (vm && runs(v))
			return cai_fail(err, EINVAL, "a running microVM's memory cannot be changed; stop it first");
		sp->memory = u->bytes;
	}
	if (u->pids)
		sp->pids = u->n_pids;
	if (u->timeout)
		sp->stop_timeout = u->seconds;
	if (sandbox_spec_check(sp, err) < 0 || store_config(v, err) < 0)
		return -1;
	if (runs(v) && live) {
		cleanup_close int fd = runner_connect(&v->dir, err);
		json_t *o = fd < 0 ? NULL : runner_ask(fd, json_pack("{s:s}", "op", "update"), ASK_MS, err);
		if (!o) { /* refused: as it was */
			*sp = before;
			store_config(v, NULL);
			return -1;
		}
		json_decref(o);
	}
	events_add(s, "update", &v->dir, sp, NULL);
	puts(v->name);
	return 0;
}

void help_update(void)
{
	puts("usage: caisson update [FLAGS] SANDBOX...\n\n"
	     "Change the limits of sandboxes. Of a running microVM only the CPU time can be changed; the rest holds from its next start.\n\n"
	     "      --cpus N          CPUs, such as 2 or 0.5\n"
	     "  -m, --memory SIZE     memory\n"
	     "      --pids-limit N    processes of a container\n"
	     "      --stop-timeout N  seconds until stop kills");
}

int cmd_update(int argc, char **argv)
{
	struct update u = {0};
	struct words w;
	struct cai_error err = {0};
	if (words_parse(argc, argv, options_update, set, &u, &w, &err) < 0)
		return words_usage(&err);
	if (u.help) {
		help_update();
		return 0;
	}
	if (!w.n || !(u.cpus || u.memory || u.pids || u.timeout)) {
		cli_say(w.n ? "nothing to change; see caisson update --help" : "which sandbox? see caisson update --help");
		return CLI_EXIT_USAGE;
	}
	return words_each(&w, do_update, &u);
}

void help_rename(void)
{
	puts("usage: caisson rename SANDBOX NAME\n\nGive a sandbox another name.");
}

static int do_rename(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	const char *name = ctx, *old = v->conf.spec.name;
	if (store_rename(s, &v->dir, NULL, name, err) < 0)
		return -1;
	v->conf.spec.name = name;
	if (store_config(v, err) < 0) {
		v->conf.spec.name = old;
		return -1;
	}
	/* Now that the new name holds, the old one may go. */
	char path[SANDBOX_NAME_MAX + 16];
	if (old && sandbox_name_ok(old)) {
		snprintf(path, sizeof(path), "names/%s", old);
		unlinkat(s->root_fd, path, 0);
	}
	events_add(s, "rename", &v->dir, &v->conf.spec, json_pack("{s:s}", "old_name", old ? old : v->dir.id));
	return 0;
}

int cmd_rename(int argc, char **argv)
{
	struct words w;
	struct cai_error err = {0};
	uint32_t bits = 0;
	if (words_parse(argc, argv, options_help, words_set_bits, &bits, &w, &err) < 0)
		return words_usage(&err);
	if (bits || w.n != 2) {
		help_rename();
		return bits ? 0 : CLI_EXIT_USAGE;
	}
	const char *name = w.v[1];
	w.n = 1;
	return words_each(&w, do_rename, (void *)(uintptr_t)name);
}
