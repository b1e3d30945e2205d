/* SPDX-License-Identifier: Apache-2.0 */
/* Removing sandboxes: rm, prune. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/words.h"
#include "sandbox/disk.h"
#include "sandbox/runner.h"

#define SETTLE_MS 30000

enum { B_FORCE, B_JSON, B_HELP };

const struct cli_option options_rm[] = {
	{"force", 'f', OPT_FLAG, B_FORCE},
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};
const struct cli_option options_prune[] = {
	{"force", 'f', OPT_FLAG, B_FORCE},
	{"json", 0, OPT_FLAG, B_JSON},
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};

/* With force: ends what runs. Then the lock is ours; -1 with *err. */
static int take(struct sandbox_view *v, bool force, struct cai_error *err)
{
	if (v->state.status == STATUS_RUNNING || v->state.status == STATUS_PAUSED) {
		if (!force)
			return cai_fail(err, EBUSY, "the sandbox is running; stop it first, or remove it with 'caisson rm -f'");
		cleanup_close int fd = runner_connect(&v->dir, NULL);
		if (fd >= 0)
			json_decref(runner_ask(fd, json_pack("{s:s,s:i}", "op", "signal", "signal", 9), 5000, NULL));
	}
	int r = sandbox_dir_lock_wait(&v->dir, force ? SETTLE_MS : 2000, err);
	return r > 0 ? 0 : r < 0 ? -1 : cai_fail(err, EBUSY, "another command is busy with it");
}

static int do_rm(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	uint32_t bits = *(uint32_t *)ctx;
	struct cai_error e = {0};
	if (take(v, bits & 1u << B_FORCE, &e) < 0) {
		if (e.errnum != ENOENT) /* gone: made with --rm */
			return cai_fail(err, e.errnum, "%s", e.text);
	} else {
		sandbox_remove(s, v);
	}
	puts(v->name);
	return 0;
}

void help_rm(void)
{
	puts("usage: caisson rm [-f] SANDBOX...\n\n"
	     "Remove sandboxes with all that was written in them.\n\n"
	     "  -f, --force  also those that run, which are killed; no complaint about those that do not exist");
}

int cmd_rm(int argc, char **argv)
{
	struct words w;
	struct cai_error err = {0};
	uint32_t bits = 0;
	if (words_parse(argc, argv, options_rm, words_set_bits, &bits, &w, &err) < 0)
		return words_usage(&err);
	if (bits & 1u << B_HELP) {
		help_rm();
		return 0;
	}
	if (!w.n) {
		cli_say("which sandbox? see caisson rm --help");
		return CLI_EXIT_USAGE;
	}
	if (bits & 1u << B_FORCE) {
		/* As docker: what is not there needs no removing. A damaged record does. */
		struct store s;
		if (store_open(&s, &err) < 0)
			return words_usage(&err);
		int n = 0;
		for (int i = 0; i < w.n; i++) {
			struct sandbox_dir d;
			struct sandbox_view v;
			if (store_find(&s, w.v[i], &d, NULL) < 0)
				continue;
			if (sandbox_view_open(&s, &d, &v, &err) > 0) {
				sandbox_view_free(&v);
				w.v[n++] = w.v[i];
			} else if (err.text[0] && sandbox_dir_lock(&d, NULL) > 0) {
				sandbox_sweep(&s, &d);
				sandbox_dir_remove(&d, w.v[i]);
				puts(w.v[i]);
			}
			sandbox_dir_close(&d);
		}
		w.n = n;
		store_close(&s);
	}
	return words_each(&w, do_rm, &bits);
}

struct prune {
	struct store *s;
	uint64_t freed;
	json_t *ids;
};

static int prune_one(void *ctx, struct sandbox_dir *d)
{
	struct prune *p = ctx;
	struct sandbox_view v;
	if (sandbox_view_open(p->s, d, &v, NULL) <= 0)
		return 0;
	if (v.state.status == STATUS_EXITED || v.state.status == STATUS_CREATED) {
		uint64_t bytes = disk_used(&v.dir);
		if (sandbox_dir_lock(&v.dir, NULL) > 0) {
			json_array_append_new(p->ids, json_string(v.dir.id));
			p->freed += bytes;
			sandbox_remove(p->s, &v);
		}
	}
	sandbox_view_free(&v);
	return 0;
}

void help_prune(void)
{
	puts("usage: caisson prune [-f] [--json]\n\n"
	     "Remove all sandboxes that do not run, with all that was written in them.\n\n"
	     "  -f, --force  do not ask");
}

int cmd_prune(int argc, char **argv)
{
	struct words w;
	struct cai_error err = {0};
	struct store s;
	uint32_t bits = 0;
	if (words_parse(argc, argv, options_prune, words_set_bits, &bits, &w, &err) < 0)
		return words_usage(&err);
	if (bits & 1u << B_HELP) {
		help_prune();
		return 0;
	}
	if (!(bits & 1u << B_FORCE)) {
		char answer[16] = "";
		fputs("This removes all sandboxes that do not run. Go on? [y/N] ", stderr);
		if (!fgets(answer, sizeof(answer), stdin) || (answer[0] != 'y' && answer[0] != 'Y'))
			return 1;
	}
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	struct prune p = {.s = &s, .ids = json_array()};
	int r = store_each(&s, prune_one, &p, &err);
	store_prune_unpacked(&s);
	store_close(&s);
	if (r < 0) {
		json_decref(p.ids);
		return words_usage(&err);
	}
	if (bits & 1u << B_JSON)
		return cli_print_json(json_pack("{s:o,s:I}", "deleted", p.ids, "freed", (json_int_t)p.freed));
	size_t k;
	json_t *v;
	json_array_foreach(p.ids, k, v) puts(json_string_value(v));
	printf("freed %.1f MB\n", (double)p.freed / 1e6);
	json_decref(p.ids);
	return 0;
}
