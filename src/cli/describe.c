/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/describe.h"

#include <stdio.h>
#include <string.h>

#include "base/loop.h"
#include "image/ref.h"
#include "sandbox/disk.h"

void describe_age(int64_t since, char out[32])
{
	long long s = ((long long)clock_real_ns() - since) / 1000000000;
	if (s < 0)
		s = 0;
	if (s < 120)
		snprintf(out, 32, "%lld s", s);
	else if (s < 7200)
		snprintf(out, 32, "%lld min", s / 60);
	else if (s < 172800)
		snprintf(out, 32, "%lld h", s / 3600);
	else
		snprintf(out, 32, "%lld days", s / 86400);
}

static json_t *list(char *const *l)
{
	json_t *a = json_array();
	for (; l && *l; l++)
		json_array_append_new(a, spec_json_text(*l));
	return a;
}

static json_t *labels(char *const *l)
{
	json_t *o = json_object();
	for (; l && *l; l++) {
		char key[256];
		size_t n = strcspn(*l, "=");
		snprintf(key, sizeof(key), "%.*s", (int)(n < 255 ? n : 255), *l);
		json_object_set_new(o, key, spec_json_text((*l)[n] ? *l + n + 1 : ""));
	}
	return o;
}

static void status_text(const struct sandbox_view *v, char *out, size_t n)
{
	char age[32];
	switch (v->state.status) {
	case STATUS_CREATED:
		snprintf(out, n, "created");
		return;
	case STATUS_RUNNING:
	case STATUS_PAUSED:
		describe_age(v->state.started_ns, age);
		snprintf(out, n, "up %s%s", age, v->state.status == STATUS_PAUSED ? " (paused)" : "");
		return;
	case STATUS_SUSPENDED:
		describe_age(v->state.finished_ns, age);
		snprintf(out, n, "suspended %s ago", age);
		return;
	case STATUS_EXITED:
		describe_age(v->state.finished_ns, age);
		snprintf(out, n, "exited (%d) %s ago", v->state.exit_code, age);
	}
}

static void set_time(json_t *o, const char *key, int64_t ns)
{
	char text[40];
	format_time(ns, text);
	json_object_set_new(o, key, text[0] ? json_string(text) : json_null());
}

json_t *describe_sandbox(const struct sandbox_view *v, bool size)
{
	const struct sandbox_spec *s = &v->conf.spec;
	const struct sandbox_state *st = &v->state;
	char text[64];
	json_t *o = json_object(), *conf = sandbox_spec_to_json(s);
	/* Names in place of numbers, for people and scripts. */
	static const char *const accels[] = {"auto", "kvm", "soft"};
	json_object_set_new(conf, "engine", json_string(engine_name(s->engine)));
	json_object_set_new(conf, "trust", json_string(trust_name(s->trust)));
	json_object_set_new(conf, "accel", json_string(accels[s->accel]));
	json_object_set_new(conf, "at_least", json_string(boundary_name(s->at_least)));
	status_text(v, text, sizeof(text));
	bool ran = st->starts > 0;
	json_object_set_new(o, "id", json_string(v->dir.id));
	json_object_set_new(o, "name", json_string(v->name));
	json_object_set_new(o, "status", json_string(sandbox_status_name(st->status)));
	json_object_set_new(o, "status_text", json_string(text));
	json_object_set_new(o, "image", spec_json_text(s->image ? s->image : s->rootfs ? s->rootfs : "built-in"));
	json_object_set_new(o, "image_id", s->image_id ? json_string(s->image_id) : json_null());
	json_object_set_new(o, "command", list(s->argv));
	json_object_set_new(o, "engine", json_string(engine_name(s->engine)));
	json_object_set_new(o, "trust", json_string(trust_name(s->trust)));
	json_object_set_new(o, "boundary", json_string(ran ? boundary_name(st->boundary) : ""));
	json_object_set_new(o, "accelerator", s->engine == ENGINE_MICROVM && ran ? json_string(st->kvm ? "kvm" : "soft") : json_null());
	set_time(o, "created", st->created_ns);
	set_time(o, "started", st->started_ns);
	set_time(o, "finished", st->finished_ns);
	json_object_set_new(o, "exit_code", st->status == STATUS_EXITED ? json_integer(st->exit_code) : json_null());
	json_object_set_new(o, "oom_killed", json_boolean(st->oom));
	json_object_set_new(o, "note", json_string(st->note));
	json_object_set_new(o, "error", spec_json_text(st->error));
	json_object_set_new(o, "starts", json_integer(st->starts));
	json_object_set_new(o, "runner_pid", st->runner ? json_integer(st->runner) : json_null());
	json_object_set_new(o, "engine_pid", st->engine_pid ? json_integer(st->engine_pid) : json_null());
	json_object_set_new(o, "labels", labels(s->labels));
	json_object_set(o, "network", st->network ? st->network : json_null());
	json_t *ports = json_object_get(st->network, "ports");
	json_object_set_new(o, "ports", ports ? json_incref(ports) : json_array());
	json_object_set_new(o, "directory", json_string(v->dir.path));
	if (size)
		json_object_set_new(o, "disk_used", json_integer((json_int_t)disk_used(&v->dir)));
	json_object_set_new(o, "config", conf);
	return o;
}
