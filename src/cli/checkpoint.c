/* SPDX-License-Identifier: Apache-2.0 */
/* Saving running sandboxes and going on with them: checkpoint, restore, fork, suspend, resume, rollback. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/control.h"
#include "cli/json.h"
#include "cli/life.h"
#include "cli/words.h"
#include "sandbox/checkpoint.h"
#include "sandbox/disk.h"
#include "sandbox/runner.h"

#define SAVE_MS	  600000 /* a large memory on a slow disk */
#define SETTLE_MS 15000
#define MAX_FORKS 1000

static bool runs(const struct sandbox_view *v)
{
	return v->state.status == STATUS_RUNNING || v->state.status == STATUS_PAUSED;
}

/* Asks the runner to save the sandbox into dir. */
static int save(struct sandbox_view *v, const char *dir, bool stop, struct cai_error *err)
{
	if (!runs(v))
		return cai_fail(err, ESRCH, "the sandbox is not running (it is %s)", sandbox_status_name(v->state.status));
	cleanup_close int fd = runner_connect(&v->dir, err);
	if (fd < 0)
		return -1;
	json_t *o = runner_ask(fd, json_pack("{s:s,s:s,s:b}", "op", "checkpoint", "dir", dir, "stop", stop), SAVE_MS, err);
	if (!o)
		return -1;
	bool ended = !json_object_get(o, "ok");
	json_decref(o);
	if (ended)
		return cai_fail(err, ESRCH, "the sandbox ended before it could be saved");
	if (stop) { /* until the lock is free the directory is the runner's */
		json_decref(runner_next(fd, SETTLE_MS, NULL));
		if (sandbox_dir_lock_wait(&v->dir, SETTLE_MS, NULL) > 0) {
			close(v->dir.lock_fd);
			v->dir.lock_fd = -1;
		}
	}
	return 0;
}

/* A new sandbox that goes on where the checkpoint was taken. Returns an exit status; with *id filled where it is in the background. */
static int go_on(struct checkpoint_info *c, const char *name, bool attach, bool publish, char id[SANDBOX_ID_LEN + 1], struct cai_error *err)
{
	struct sandbox_spec *spec = &c->conf.spec;
	struct sandbox_plan p;
	struct sandbox_dir d;
	struct sandbox_state st;
	struct stat disk;
	int status = EXIT_CAISSON;
	bool started = false;
	spec->name = name;
	spec->detached = !attach;
	if (!publish)
		spec->publish = NULL;
	if (!attach)
		spec->debug = false;
	if (sandbox_plan_make(&p, spec, err) < 0)
		return status;
	if (checkpoint_use(c, &p, err) == 0 && sandbox_create(&p, true, &d, &st, err) == 0) {
		bool has_disk = fstatat(c->dir, "upper.ext4", &disk, AT_SYMLINK_NOFOLLOW) == 0;
		memcpy(id, d.id, SANDBOX_ID_LEN + 1);
		if (has_disk && disk_copy(c->dir, d.dir_fd, err) < 0)
			;
		else if (attach)
			status = life_attached(&p, &d, &st, &started);
		else
			started = (status = life_detached(&p, &d, &st, err)) == 0;
		if (!started && d.dir_fd >= 0)
			sandbox_dir_remove(&d, name);
		sandbox_state_free(&st);
		sandbox_dir_close(&d);
	}
	sandbox_plan_free(&p);
	return status;
}

/* The same sandbox goes on, in place. Its lock is taken here. */
static int go_on_in_place(struct sandbox_view *v, struct checkpoint_info *c, struct cai_error *err)
{
	struct sandbox_spec *spec = &v->conf.spec;
	struct sandbox_plan p;
	int r = v->dir.lock_fd >= 0 ? 1 : sandbox_dir_lock_wait(&v->dir, SETTLE_MS, err);
	if (r <= 0)
		return r < 0 ? -1 : cai_fail(err, EBUSY, "another command is busy with it");
	spec->detached = true;
	spec->debug = false;
	if (sandbox_plan_make(&p, spec, err) < 0)
		return -1;
	r = checkpoint_use(c, &p, err);
	if (r == 0 && life_detached(&p, &v->dir, &v->state, err) != 0)
		r = -1;
	sandbox_plan_free(&p);
	return r;
}

enum { B_LEAVE, B_JSON, B_QUIET, B_HELP, B_ATTACH, O_NAME, O_COUNT };
const struct cli_option options_checkpoint[] = {{"leave-running", 'R', OPT_FLAG, B_LEAVE},
						{"json", 0, OPT_FLAG, B_JSON},
						{"quiet", 'q', OPT_FLAG, B_QUIET},
						{"help", 'h', OPT_FLAG, B_HELP},
						{NULL, 0, 0, 0}};
const struct cli_option options_restore[] = {
	{"name", 0, WORD_TEXT, O_NAME}, {"attach", 'a', OPT_FLAG, B_ATTACH}, {"help", 'h', OPT_FLAG, B_HELP}, {NULL, 0, 0, 0}};
const struct cli_option options_fork[] = {{"count", 'n', WORD_TEXT, O_COUNT}, {"help", 'h', OPT_FLAG, B_HELP}, {NULL, 0, 0, 0}};

const struct cli_option options_saved[] = {{"help", 'h', OPT_FLAG, B_HELP}, {NULL, 0, 0, 0}};

struct args {
	uint32_t bits;
	const char *name;
	unsigned long count;
	struct words w;
};

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct args *a = ctx;
	char *end;
	if (id == O_NAME) {
		a->name = v;
		return sandbox_name_ok(v) ? 0 : cai_fail(err, EINVAL, "'%s' is no sandbox name", v);
	}
	if (id == O_COUNT) {
		a->count = strtoul(v, &end, 10);
		return end != v && !*end && a->count >= 1 && a->count <= MAX_FORKS ? 0 : cai_fail(err, EINVAL, "-n needs a number from 1 to %d, not '%s'", MAX_FORKS, v);
	}
	a->bits |= 1u << id;
	return 0;
}

/* Parses; returns -1 to go on, or the exit status. */
static int begin(int argc, char **argv, const struct cli_option *opts, struct args *a, int min, int max, void (*help)(void))
{
	struct cai_error err = {0};
	*a = (struct args){.count = 1};
	if (words_parse(argc, argv, opts, set, a, &a->w, &err) < 0)
		return words_usage(&err);
	if (a->bits & 1u << B_HELP) {
		help();
		return 0;
	}
	if (a->w.n < min || a->w.n > max) {
		cli_say("wrong number of arguments; see caisson %s --help", argv[0]);
		return CLI_EXIT_USAGE;
	}
	return -1;
}

void help_checkpoint(void)
{
	puts("usage: caisson checkpoint [FLAGS] SANDBOX [NAME]\n"
	     "       caisson checkpoint ls|inspect|rm [ARGUMENTS]\n\n"
	     "Save a running microVM with all that is in it: memory, processes, open files, disk. restore makes new sandboxes of it that\n"
	     "go on from there; connections to other hosts end. The sandbox ends, unless --leave-running.\n\n"
	     "  ls               list checkpoints\n"
	     "  inspect NAME...  print all that is known of checkpoints, as JSON\n"
	     "  rm NAME...       remove checkpoints\n\n"
	     "  -R, --leave-running  the sandbox goes on\n"
	     "      --json           print JSON\n"
	     "  -q, --quiet          names only");
}

static int list(struct store *s, const struct args *a, struct cai_error *err)
{
	json_t *l = checkpoint_list(s, err), *o;
	size_t k;
	if (a->bits & 1u << B_JSON)
		return cli_print_json(l);
	if (!(a->bits & 1u << B_QUIET))
		printf("%-24s  %-20s  %-24s  %8s  %s\n", "NAME", "SANDBOX", "IMAGE", "ON DISK", "CREATED");
	json_array_foreach(l, k, o)
	{
		const char *name = json_string_value(json_object_get(o, "name")), *image = json_string_value(json_object_get(o, "image"));
		if (a->bits & 1u << B_QUIET)
			puts(name);
		else
			printf("%-24s  %-20s  %-24s  %5.1f MB  %.19s\n", name, json_string_value(json_object_get(o, "sandbox_name")), image ? image : "?",
			       (double)json_integer_value(json_object_get(o, "bytes")) / 1e6, json_string_value(json_object_get(o, "created")));
	}
	json_decref(l);
	return 0;
}

static int inspect(struct store *s, const struct args *a, struct cai_error *err)
{
	json_t *found = json_array();
	int status = 0;
	for (int i = 1; i < a->w.n; i++) {
		struct checkpoint_info c;
		char when[40];
		if (checkpoint_open(s, a->w.v[i], &c, err) < 0) {
			cli_say("%s", err->text);
			err->text[0] = 0;
			status = 1;
			continue;
		}
		format_time(c.created_ns, when);
		json_array_append_new(found, json_pack("{s:s,s:s,s:s,s:s,s:i,s:o}", "name", a->w.v[i], "sandbox", c.sandbox, "sandbox_name", c.sandbox_name,
						       "created", when, "pid", (int)c.pid, "config", sandbox_spec_to_json(&c.conf.spec)));
		checkpoint_close(&c);
	}
	int r = cli_print_json(found);
	return r ? r : status;
}

static int remove_all(struct store *s, const struct args *a, struct cai_error *err)
{
	int status = 0;
	for (int i = 1; i < a->w.n; i++) {
		if (checkpoint_remove(s, a->w.v[i], err) == 0) {
			puts(a->w.v[i]);
			continue;
		}
		cli_say("%s", err->text);
		err->text[0] = 0;
		status = 1;
	}
	return status;
}

static int checkpoint(struct store *s, const struct args *a, struct cai_error *err)
{
	struct sandbox_view v;
	char *path, name[SANDBOX_NAME_MAX + 1];
	if (a->w.n > 2 || (a->w.n == 2 && !sandbox_name_ok(a->w.v[1])))
		return cai_fail(err, EINVAL, a->w.n > 2 ? "a checkpoint has one name" : "'%s' is no name for a checkpoint", a->w.v[1]);
	if (sandbox_view_find(s, a->w.v[0], &v, err) < 0)
		return -1;
	cleanup_close int lock = checkpoint_begin(s, &path, err);
	int r = lock < 0 ? -1 : 0;
	if (r == 0) {
		r = save(&v, path, false, err);
		if (r == 0)
			r = checkpoint_commit(s, path, a->w.n == 2 ? a->w.v[1] : NULL, name, err);
		if (r < 0)
			checkpoint_abandon(path);
		free(path);
	}
	if (r == 0) {
		puts(name);
		if (!(a->bits & 1u << B_LEAVE))
			r = control_end(&v, err);
	}
	sandbox_view_free(&v);
	return r;
}

int cmd_checkpoint(int argc, char **argv)
{
	struct args a;
	struct cai_error err = {0};
	struct store s;
	int r = begin(argc, argv, options_checkpoint, &a, 1, CLI_MAX_WORDS, help_checkpoint);
	if (r >= 0)
		return r;
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	static const struct {
		const char *name;
		int (*run)(struct store *s, const struct args *a, struct cai_error *err);
	} own[] = {{"ls", list}, {"inspect", inspect}, {"rm", remove_all}};
	size_t k = 0;
	while (k < ARRAY_LEN(own) && strcmp(own[k].name, a.w.v[0]))
		k++;
	r = k < ARRAY_LEN(own) ? own[k].run(&s, &a, &err) : checkpoint(&s, &a, &err);
	store_close(&s);
	if (r < 0)
		cli_say("%s", err.text);
	return r < 0 ? 1 : r;
}

void help_restore(void)
{
	puts("usage: caisson restore [FLAGS] CHECKPOINT\n\n"
	     "Make a new sandbox that goes on where the checkpoint was taken, in the background, and print its id. It has its own network\n"
	     "addresses, host name and random numbers, and today's time.\n\n"
	     "      --name NAME  name of the new sandbox\n"
	     "  -a, --attach     in the foreground: show what it writes, and exit with its status");
}

int cmd_restore(int argc, char **argv)
{
	struct args a;
	struct cai_error err = {0};
	struct store s;
	struct checkpoint_info c;
	char id[SANDBOX_ID_LEN + 1];
	int status = begin(argc, argv, options_restore, &a, 1, 1, help_restore);
	if (status >= 0)
		return status;
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	status = CLI_EXIT_USAGE;
	bool attach = a.bits & 1u << B_ATTACH;
	if (checkpoint_open(&s, a.w.v[0], &c, &err) == 0) {
		status = go_on(&c, a.name, attach, true, id, &err);
		checkpoint_close(&c);
		if (status == 0 && !attach)
			puts(id);
	}
	if (err.text[0])
		cli_say("%s", err.text);
	store_close(&s);
	return status;
}

void help_fork(void)
{
	puts("usage: caisson fork [-n N] SANDBOX\n\n"
	     "Make N copies of a running microVM, each with all that is in it, and print their ids, one a line. The original goes on. Copies\n"
	     "have no published ports.\n\n"
	     "  -n, --count N  how many (1)");
}

int cmd_fork(int argc, char **argv)
{
	struct args a;
	struct cai_error err = {0};
	struct store s;
	struct sandbox_view v;
	char *path = NULL;
	cleanup_close int lock = -1;
	int status = begin(argc, argv, options_fork, &a, 1, 1, help_fork);
	if (status >= 0)
		return status;
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	status = CLI_EXIT_USAGE;
	if (sandbox_view_find(&s, a.w.v[0], &v, &err) == 0) {
		if ((lock = checkpoint_begin(&s, &path, &err)) >= 0 && save(&v, path, false, &err) == 0)
			status = 0;
		sandbox_view_free(&v);
	}
	for (unsigned long i = 0; i < a.count && status == 0; i++) {
		struct checkpoint_info c;
		char id[SANDBOX_ID_LEN + 1];
		status = CLI_EXIT_USAGE;
		if (checkpoint_open_at(AT_FDCWD, path, &c, &err) < 0)
			break;
		status = go_on(&c, NULL, false, false, id, &err);
		checkpoint_close(&c);
		if (status == 0) {
			puts(id);
			fflush(stdout);
		}
	}
	if (path)
		checkpoint_abandon(path);
	free(path);
	if (err.text[0])
		cli_say("%s", err.text);
	store_close(&s);
	return status;
}

void help_suspend(void)
{
	puts("usage: caisson suspend SANDBOX...\n\nSave running microVMs to disk and end them; resume lets them go on where they were.");
}

static int do_suspend(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	cleanup_free char *path = NULL;
	if (asprintf(&path, "%s/suspended", v->dir.path) < 0)
		return cai_fail(err, ENOMEM, "out of memory");
	if (!runs(v))
		return cai_fail(err, ESRCH, "the sandbox is not running (it is %s)", sandbox_status_name(v->state.status));
	checkpoint_abandon(path);
	if (mkdir(path, 0700) < 0)
		return cai_fail_errno(err, errno, "cannot make %s", path);
	if (save(v, path, true, err) < 0) {
		checkpoint_abandon(path);
		return -1;
	}
	puts(v->name);
	return 0;
}

static int each(int argc, char **argv, void (*help)(void), int (*fn)(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err))
{
	struct args a;
	int r = begin(argc, argv, options_saved, &a, 1, CLI_MAX_WORDS, help);
	return r >= 0 ? r : words_each(&a.w, fn, NULL);
}

int cmd_suspend(int argc, char **argv)
{
	return each(argc, argv, help_suspend, do_suspend);
}

void help_resume(void)
{
	puts("usage: caisson resume SANDBOX...\n\nLet suspended sandboxes go on where they were.");
}

static int do_resume(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	struct checkpoint_info c;
	if (v->state.status != STATUS_SUSPENDED)
		return cai_fail(err, EINVAL, "the sandbox is not suspended (it is %s)", sandbox_status_name(v->state.status));
	if (checkpoint_open_at(v->dir.dir_fd, "suspended", &c, err) < 0)
		return -1;
	int r = go_on_in_place(v, &c, err);
	checkpoint_close(&c);
	if (r < 0) {
		/* Nothing is lost: it is suspended as before. */
		v->state.status = STATUS_SUSPENDED;
		if (v->dir.lock_fd >= 0)
			sandbox_state_write(&v->dir, &v->state, true, NULL);
		return -1;
	}
	cleanup_free char *path = NULL;
	if (asprintf(&path, "%s/suspended", v->dir.path) >= 0)
		checkpoint_abandon(path);
	puts(v->name);
	return 0;
}

int cmd_resume(int argc, char **argv)
{
	return each(argc, argv, help_resume, do_resume);
}

void help_rollback(void)
{
	puts("usage: caisson rollback SANDBOX CHECKPOINT\n\n"
	     "Let a sandbox go on where a checkpoint of it was taken, in place: what has happened in it since then is lost.");
}

static int do_rollback(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	struct checkpoint_info c;
	struct stat st;
	if (checkpoint_open(s, ctx, &c, err) < 0)
		return -1;
	int r = strcmp(c.sandbox, v->dir.id) ? cai_fail(err, EINVAL, "the checkpoint is of another sandbox, %s; 'caisson restore' makes a new one of it", c.sandbox_name)
					     : 0;
	if (r == 0 && runs(v))
		r = control_end(v, err);
	if (r == 0 && sandbox_dir_lock_wait(&v->dir, SETTLE_MS, err) <= 0)
		r = cai_fail(err, EBUSY, "another command is busy with it");
	if (r == 0 && fstatat(c.dir, "upper.ext4", &st, AT_SYMLINK_NOFOLLOW) == 0)
		r = disk_copy(c.dir, v->dir.dir_fd, err);
	if (r == 0)
		r = go_on_in_place(v, &c, err);
	checkpoint_close(&c);
	if (r == 0)
		puts(v->name);
	return r;
}

int cmd_rollback(int argc, char **argv)
{
	struct args a;
	int r = begin(argc, argv, options_saved, &a, 2, 2, help_rollback);
	if (r >= 0)
		return r;
	const char *name = a.w.v[1];
	a.w.n = 1;
	return words_each(&a.w, do_rollback, (void *)(uintptr_t)name);
}
