/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one table names every member that is kept, so that writing and reading cannot disagree. What is read is a
 * file of this user's own, but it is checked as any: types and sizes here, values by sandbox_spec_check.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "sandbox/spec.h"

enum type { T_TEXT, T_LIST, T_U64, T_UINT, T_INT, T_BOOL };

static const struct member {
	const char *key;
	enum type type;
	size_t at;
} members[] = {
#define M(key, type, field) {key, type, offsetof(struct sandbox_spec, field)}
	M("name", T_TEXT, name),
	M("engine", T_UINT, engine),
	M("trust", T_UINT, trust),
	M("accel", T_UINT, accel),
	M("at_least", T_UINT, at_least),
	M("cpus", T_UINT, cpus),
	M("cpu_milli", T_UINT, cpu_milli),
	M("memory", T_U64, memory),
	M("pids", T_U64, pids),
	M("image", T_TEXT, image),
	M("image_id", T_TEXT, image_id),
	M("rootfs", T_TEXT, rootfs),
	M("kernel", T_TEXT, kernel),
	M("initrd", T_TEXT, initrd),
	M("append", T_TEXT, append),
	M("argv", T_LIST, argv),
	M("env", T_LIST, env),
	M("cwd", T_TEXT, cwd),
	M("user", T_TEXT, user),
	M("hostname", T_TEXT, hostname),
	M("labels", T_LIST, labels),
	M("volumes", T_LIST, volumes),
	M("anon", T_LIST, anon),
	M("tmpfs", T_LIST, tmpfs),
	M("publish", T_LIST, publish),
	M("network", T_TEXT, network),
	M("dns", T_LIST, dns),
	M("add_host", T_LIST, add_host),
	M("mac", T_TEXT, mac),
	M("disk", T_U64, disk),
	M("ephemeral", T_BOOL, ephemeral),
	M("read_only", T_BOOL, read_only),
	M("interactive", T_BOOL, interactive),
	M("tty", T_BOOL, tty),
	M("detached", T_BOOL, detached),
	M("remove", T_BOOL, remove),
	M("console", T_BOOL, console),
	M("cold", T_BOOL, cold),
	M("stop_signal", T_INT, stop_signal),
	M("stop_timeout", T_UINT, stop_timeout),
#undef M
};

json_t *spec_json_text(const char *s)
{
	json_t *v = json_string(s);
	if (v)
		return v;
	size_t n = strlen(s);
	char *hex = malloc(2 * n + 1);
	if (!hex)
		return NULL;
	for (size_t i = 0; i < n; i++)
		sprintf(hex + 2 * i, "%02x", (unsigned char)s[i]);
	v = json_pack("{s:s}", "hex", hex);
	free(hex);
	return v;
}

json_t *sandbox_spec_to_json(const struct sandbox_spec *s)
{
	json_t *o = json_object();
	for (size_t i = 0; i < ARRAY_LEN(members); i++) {
		const void *p = (const char *)s + members[i].at;
		json_t *v = NULL;
		switch (members[i].type) {
		case T_TEXT:
			v = *(char *const *)p ? spec_json_text(*(char *const *)p) : NULL;
			break;
		case T_LIST:
			for (char *const *l = *(char *const *const *)p; l && *l; l++) {
				if (!v)
					v = json_array();
				json_array_append_new(v, spec_json_text(*l));
			}
			break;
		case T_U64:
			v = json_integer((json_int_t) * (const uint64_t *)p);
			break;
		case T_UINT:
			v = json_integer((json_int_t) * (const unsigned *)p);
			break;
		case T_INT:
			v = json_integer((json_int_t) * (const int *)p);
			break;
		case T_BOOL:
			v = *(const bool *)p ? json_true() : NULL;
			break;
		}
		if (v)
			json_object_set_new(o, members[i].key, v);
	}
	return o;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The text of v: the JSON value's own, or one that *out owns. NULL when it is none. */
static const char *text_of(struct spec_loaded *out, json_t *v)
{
	if (json_is_string(v))
		return json_string_value(v);
	const char *hex = json_string_value(json_object_get(v, "hex"));
	if (!hex || strlen(hex) % 2)
		return NULL;
	size_t n = strlen(hex) / 2;
	char *s = malloc(n + 1), **texts = realloc(out->texts, (out->n_texts + 1) * sizeof(*texts));
	if (texts)
		out->texts = texts;
	if (!s || !texts) {
		free(s);
		return NULL;
	}
	for (size_t i = 0; i < n; i++) {
		int a = hex_digit(hex[2 * i]), b = hex_digit(hex[2 * i + 1]);
		if (a < 0 || b < 0 || (a | b) == 0) {
			free(s);
			return NULL;
		}
		s[i] = (char)(a << 4 | b);
	}
	s[n] = 0;
	return out->texts[out->n_texts++] = s;
}

static char **list_of(struct spec_loaded *out, json_t *v)
{
	size_t n = json_array_size(v);
	if (!json_is_array(v) || n > 65536 || out->n_lists == ARRAY_LEN(out->lists))
		return NULL;
	char **l = calloc(n + 1, sizeof(*l));
	if (!l)
		return NULL;
	out->lists[out->n_lists++] = l;
	for (size_t i = 0; i < n; i++)
		if (!(l[i] = (char *)(uintptr_t)text_of(out, json_array_get(v, i))))
			return NULL;
	return l;
}

static bool take(struct spec_loaded *out, const struct member *m, json_t *v)
{
	void *p = (char *)&out->spec + m->at;
	json_int_t n = json_integer_value(v);
	switch (m->type) {
	case T_TEXT:
		return (*(const char **)p = text_of(out, v)) != NULL;
	case T_LIST:
		return (*(char ***)p = list_of(out, v)) != NULL;
	case T_U64:
		*(uint64_t *)p = (uint64_t)n;
		return json_is_integer(v) && n >= 0;
	case T_UINT:
		*(unsigned *)p = (unsigned)n;
		return json_is_integer(v) && n >= 0 && n <= 0x7fffffff;
	case T_INT:
		*(int *)p = (int)n;
		return json_is_integer(v) && n >= 0 && n <= 0x7fffffff;
	case T_BOOL:
		*(bool *)p = json_is_true(v);
		return json_is_boolean(v);
	}
	return false;
}

int sandbox_spec_from_json(json_t *o, struct spec_loaded *out, struct cai_error *err)
{
	memset(out, 0, sizeof(*out));
	sandbox_spec_init(&out->spec);
	out->json = json_incref(o);
	for (size_t i = 0; i < ARRAY_LEN(members); i++) {
		json_t *v = json_object_get(o, members[i].key);
		if (v && !take(out, &members[i], v)) {
			cai_fail(err, EINVAL, "the sandbox's record is damaged: \"%s\" has no usable value", members[i].key);
			spec_loaded_free(out);
			return -1;
		}
	}
	const struct sandbox_spec *s = &out->spec;
	if (s->engine > ENGINE_CONTAINER || s->trust > TRUST_HOSTILE || s->accel > ACCEL_SOFT || s->at_least > BOUNDARY_HARDWARE) {
		spec_loaded_free(out);
		return cai_fail(err, EINVAL, "the sandbox's record is of another version of Caisson");
	}
	return 0;
}

void spec_loaded_free(struct spec_loaded *s)
{
	for (unsigned i = 0; i < s->n_lists; i++)
		free(s->lists[i]);
	for (unsigned i = 0; i < s->n_texts; i++)
		free(s->texts[i]);
	free(s->texts);
	json_decref(s->json);
	memset(s, 0, sizeof(*s));
}
