/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: only the holder of a sandbox's lock writes its state, so a reader that finds "running" and can take the lock
 * knows that the record lies; it holds the lock then and may put it right. Readers never wait.
 */
#include "sandbox/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/util.h"
#include "sandbox/events.h"
#include "sandbox/paths.h"

static const char *const status_names[] = {"created", "running", "paused", "exited", "suspended"};

const char *sandbox_status_name(enum sandbox_status s)
{
	return status_names[s];
}

void sandbox_state_init(struct sandbox_state *s)
{
	*s = (struct sandbox_state){.created_ns = (int64_t)clock_real_ns()};
}

void sandbox_state_free(struct sandbox_state *s)
{
	json_decref(s->network);
	s->network = NULL;
}

void format_time(int64_t ns, char out[40])
{
	struct tm tm;
	time_t t = (time_t)(ns / 1000000000);
	out[0] = 0;
	if (ns <= 0 || !gmtime_r(&t, &tm))
		return;
	size_t n = strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, 40 - n, ".%09ldZ", (long)(ns % 1000000000));
}

int sandbox_state_write(struct sandbox_dir *d, const struct sandbox_state *s, bool durable, struct cai_error *err)
{
	json_t *o = json_pack("{s:i,s:s,s:I,s:I,s:I,s:i,s:b,s:i,s:i,s:I,s:s,s:b,s:s,s:i,s:s,s:s,s:O*}", "version", 1, "status",
			      status_names[s->status], "created_ns", (json_int_t)s->created_ns, "started_ns", (json_int_t)s->started_ns,
			      "finished_ns", (json_int_t)s->finished_ns, "exit_code", s->exit_code, "oom", s->oom, "runner",
			      (int)s->runner, "engine_pid", (int)s->engine_pid, "engine_start", (json_int_t)s->engine_start, "note", s->note, "kvm", s->kvm, "boundary", boundary_name(s->boundary),
			      "starts", (int)s->starts, "boot_id", s->boot_id, "error", "", "network", s->network);
	if (o && s->starting)
		json_object_set_new(o, "starting", json_true());
	if (o && s->error[0])
		json_object_set_new(o, "error", spec_json_text(s->error));
	int r = sandbox_dir_write(d, "state.json", o, durable, err);
	json_decref(o);
	return r;
}

int sandbox_state_read(const struct sandbox_dir *d, struct sandbox_state *s, struct cai_error *err)
{
	*s = (struct sandbox_state){0};
	json_t *o = sandbox_dir_read(d, "state.json", err);
	if (!o)
		return -1;
	const char *status = json_string_value(json_object_get(o, "status")), *boot = json_string_value(json_object_get(o, "boot_id"));
	const char *boundary = json_string_value(json_object_get(o, "boundary")), *error = json_string_value(json_object_get(o, "error"));
	unsigned i = 0;
	while (status && i < ARRAY_LEN(status_names) && strcmp(status, status_names[i]))
		i++;
	if (!status || i == ARRAY_LEN(status_names)) {
		json_decref(o);
		return cai_fail(err, EINVAL, "%s/state.json is damaged", d->path);
	}
	s->status = (enum sandbox_status)i;
#define INT(field) s->field = (__typeof__(s->field))json_integer_value(json_object_get(o, #field))
	INT(created_ns);
	INT(started_ns);
	INT(finished_ns);
	INT(exit_code);
	INT(runner);
	INT(engine_pid);
	INT(engine_start);
	INT(starts);
#undef INT
	s->starting = json_is_true(json_object_get(o, "starting"));
	s->oom = json_is_true(json_object_get(o, "oom"));
	s->kvm = json_is_true(json_object_get(o, "kvm"));
	if (!boundary || boundary_parse(boundary, &s->boundary) < 0)
		s->boundary = BOUNDARY_NONE;
	snprintf(s->boot_id, sizeof(s->boot_id), "%s", boot ? boot : "");
	snprintf(s->error, sizeof(s->error), "%s", error ? error : "");
	const char *note = json_string_value(json_object_get(o, "note"));
	snprintf(s->note, sizeof(s->note), "%s", note ? note : "");
	s->network = json_incref(json_object_get(o, "network"));
	json_decref(o);
	return 0;
}

/* Only true while somebody holds the lock. */
static bool claims_a_runner(const struct sandbox_state *s)
{
	return s->status == STATUS_RUNNING || s->status == STATUS_PAUSED || s->starting;
}

void sandbox_remove(struct store *st, struct sandbox_view *v)
{
	struct sandbox_state now;
	bool ended = sandbox_state_read(&v->dir, &now, NULL) == 0;
	if (!ended || claims_a_runner(&now))
		sandbox_sweep(st, &v->dir);
	if (ended)
		sandbox_state_free(&now);
	events_add(st, "destroy", &v->dir, &v->conf.spec, NULL);
	sandbox_dir_remove(&v->dir, v->conf.spec.name);
}

/* With the lock held: the runner of a sandbox that claims to run is gone. 0 when the sandbox is gone, too. */
static int heal(struct store *st, struct sandbox_view *v)
{
	char boot[40];
	host_boot_id(boot);
	if (v->conf.spec.remove) {
		sandbox_remove(st, v);
		return 0;
	}
	sandbox_sweep(st, &v->dir);
	v->state.status = STATUS_EXITED;
	v->state.starting = false;
	v->state.exit_code = 137;
	v->state.finished_ns = (int64_t)clock_real_ns();
	snprintf(v->state.error, sizeof(v->state.error), "%s",
		 strcmp(boot, v->state.boot_id) ? "the host restarted while it ran" : "the process that ran it was killed");
	v->state.runner = v->state.engine_pid = 0;
	json_decref(v->state.network);
	v->state.network = NULL;
	sandbox_state_write(&v->dir, &v->state, true, NULL);
	events_add(st, "die", &v->dir, &v->conf.spec, json_pack("{s:i}", "exit_code", 137));
	close(v->dir.lock_fd);
	v->dir.lock_fd = -1;
	return 1;
}

static int judge(struct store *st, struct sandbox_view *v)
{
	if (!claims_a_runner(&v->state))
		return 1;
	if (v->dir.lock_fd >= 0 || sandbox_dir_lock(&v->dir, NULL) <= 0)
		return 1;
	/* Under the lock, once more: it may have ended properly since we read. */
	struct sandbox_state now;
	if (sandbox_state_read(&v->dir, &now, NULL) == 0) {
		sandbox_state_free(&v->state);
		v->state = now;
		if (claims_a_runner(&now))
			return heal(st, v);
	}
	close(v->dir.lock_fd);
	v->dir.lock_fd = -1;
	return 1;
}

/* A directory without config.json: somebody is making or removing it, or was. */
static int judge_unborn(struct store *st, struct sandbox_dir *d)
{
	cleanup_close int making = store_lock(st, NULL);
	int r = making < 0 || d->lock_fd >= 0 ? 0 : sandbox_dir_lock(d, NULL);
	if (r > 0 && faccessat(d->dir_fd, "config.json", F_OK, 0) < 0 && errno == ENOENT) {
		sandbox_sweep(st, d);
		store_release_names(st, d->id); /* which they were is not known any more */
		sandbox_dir_remove(d, NULL);
	} else if (r > 0) {
		close(d->lock_fd);
		d->lock_fd = -1;
	}
	return 0;
}

int sandbox_view_open(struct store *s, struct sandbox_dir *d, struct sandbox_view *v, struct cai_error *err)
{
	struct cai_error e = {0};
	memset(v, 0, sizeof(*v));
	json_t *o = sandbox_dir_read(d, "config.json", &e);
	if (!o && e.errnum == ENOENT)
		return judge_unborn(s, d);
	if (!o || sandbox_spec_from_json(o, &v->conf, &e) < 0) {
		json_decref(o);
		return cai_fail(err, e.errnum, "%s", e.text);
	}
	json_decref(o);
	if (sandbox_state_read(d, &v->state, &e) < 0) {
		spec_loaded_free(&v->conf);
		return e.errnum == ENOENT ? 0 : cai_fail(err, e.errnum, "%s", e.text);
	}
	v->dir = *d;
	sandbox_dir_init(d);
	v->name = v->conf.spec.name ? v->conf.spec.name : v->dir.id;
	if (judge(s, v) > 0)
		return 1;
	sandbox_view_free(v);
	return 0;
}

void sandbox_view_free(struct sandbox_view *v)
{
	sandbox_dir_close(&v->dir);
	spec_loaded_free(&v->conf);
	sandbox_state_free(&v->state);
}

int sandbox_view_find(struct store *s, const char *what, struct sandbox_view *v, struct cai_error *err)
{
	struct sandbox_dir d;
	if (store_find(s, what, &d, err) < 0)
		return -1;
	int r = sandbox_view_open(s, &d, v, err);
	if (r <= 0)
		sandbox_dir_close(&d);
	return r > 0 ? 0 : r < 0 ? -1 : cai_fail(err, ENOENT, "there is no sandbox '%.80s'; 'caisson ps -a' lists them", what);
}

struct heal_ctx {
	struct store *s;
	unsigned left;
};

static int heal_one(void *ctx, struct sandbox_dir *d)
{
	struct heal_ctx *h = ctx;
	struct sandbox_view v;
	if (sandbox_view_open(h->s, d, &v, NULL) > 0)
		sandbox_view_free(&v);
	return --h->left == 0;
}

void store_heal(struct store *s, unsigned max)
{
	struct heal_ctx h = {s, max};
	store_each(s, heal_one, &h, NULL);
}
