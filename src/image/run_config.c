/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one reader with one budget takes every text out of the document, so that no member can
 * be forgotten when bounds are counted. What docker ignores is ignored (a variable without '='); what would
 * be obeyed in a way that nobody meant (a relative volume, a port of 0, a signal that does not exist) is
 * refused, with the member's name.
 */
#include "image/run_config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/util.h"

static const char default_path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* A list of texts that ends with NULL. */
struct list {
	char **v;
	size_t n;
};

static void free_list(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

static int list_take(struct list *l, char *text, struct cai_error *err)
{
	char **v = text ? realloc(l->v, (l->n + 2) * sizeof(*v)) : NULL;
	if (!v) {
		free(text);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	l->v = v;
	v[l->n++] = text;
	v[l->n] = NULL;
	return 0;
}

static int list_add(struct list *l, const char *text, struct cai_error *err)
{
	return list_take(l, strdup(text), err);
}

/* The length of the name in "NAME=VALUE"; without a '=', of all of it. */
static size_t name_len(const char *s)
{
	return strcspn(s, "=");
}

static size_t find_name(const struct list *l, const char *s)
{
	size_t n = name_len(s), k = 0;
	while (k < l->n && (strncmp(l->v[k], s, n) || l->v[k][n] != '='))
		k++;
	return k;
}

/* Sets a variable, in the place where it was when it was set before. */
static int list_set(struct list *l, const char *s, struct cai_error *err)
{
	size_t k = find_name(l, s);
	if (k == l->n)
		return list_add(l, s, err);
	char *copy = strdup(s);
	if (!copy)
		return cai_fail(err, ENOMEM, "out of memory");
	free(l->v[k]);
	l->v[k] = copy;
	return 0;
}

static void list_unset(struct list *l, const char *s)
{
	size_t k = find_name(l, s);
	if (k == l->n)
		return;
	free(l->v[k]);
	memmove(l->v + k, l->v + k + 1, (l->n - k) * sizeof(*l->v)); /* the NULL too */
	l->n--;
}

/* ---- reading the document -------------------------------------------------------------------------- */

struct reader {
	const json_t *config;
	size_t text; /* bytes so far */
	struct cai_error *err;
};

/* Counts a text against the budget. */
static int count(struct reader *r, const char *s, const char *member)
{
	r->text += strlen(s) + 1;
	if (r->text > IMAGE_RUN_MAX_TEXT)
		return cai_fail(r->err, E2BIG,
				"the image's configuration has more than %u KiB of text (in %s)",
				IMAGE_RUN_MAX_TEXT >> 10, member);
	return 0;
}

static int wrong(struct reader *r, const char *member, const char *why)
{
	return cai_fail(r->err, EINVAL, "the image's configuration has %s in %s", why, member);
}

/* A member's texts: an array, or (docker's old form) one text. */
static int read_texts(struct reader *r, const char *member, struct list *out)
{
	const json_t *a = json_object_get(r->config, member);
	if (json_is_string(a))
		return count(r, json_string_value(a), member) < 0 ||
			       list_add(out, json_string_value(a), r->err) < 0
			   ? -1
			   : 0;
	if (!a || json_is_null(a))
		return 0;
	if (!json_is_array(a))
		return wrong(r, member, "something other than a list");
	if (json_array_size(a) > IMAGE_RUN_MAX_ITEMS)
		return wrong(r, member, "too many entries");
	for (size_t k = 0; k < json_array_size(a); k++) {
		const char *s = json_string_value(json_array_get(a, k));
		if (!s)
			return wrong(r, member, "an entry that is no text");
		if (count(r, s, member) < 0 || list_add(out, s, r->err) < 0)
			return -1;
	}
	return 0;
}

static int read_text(struct reader *r, const char *member, const char *otherwise, char **out)
{
	const json_t *o = json_object_get(r->config, member);
	if (o && !json_is_null(o) && !json_is_string(o))
		return wrong(r, member, "something other than a text");
	const char *s = json_is_string(o) ? json_string_value(o) : "";
	if (count(r, s, member) < 0)
		return -1;
	*out = strdup(s[0] ? s : otherwise);
	return *out ? 0 : cai_fail(r->err, ENOMEM, "out of memory");
}

static int read_env(struct reader *r, struct list *out)
{
	struct list all = {0};
	int ok = read_texts(r, "Env", &all);
	for (size_t k = 0; k < all.n && ok == 0; k++)
		if (all.v[k][0] != '=' && strchr(all.v[k], '='))
			ok = list_set(out, all.v[k], r->err);
	free_list(all.v);
	return ok;
}

/* An absolute path, in its shortest form, that cannot lead out of where it is resolved. */
static char *clean_path(const char *s)
{
	char *out = s[0] == '/' && strlen(s) < 4096 ? malloc(strlen(s) + 2) : NULL, *p = out;
	while (out && *s) {
		size_t n = strcspn(s, "/");
		if (n == 2 && !strncmp(s, "..", 2)) {
			free(out);
			return NULL;
		}
		if (n && !(n == 1 && s[0] == '.')) {
			*p++ = '/';
			memcpy(p, s, n);
			p += n;
		}
		s += n;
		s += strspn(s, "/");
	}
	if (out) {
		if (p == out)
			*p++ = '/';
		*p = 0;
	}
	return out;
}

/* The members whose keys are what counts: {"/data": {}}. */
static const json_t *read_set(struct reader *r, const char *member, size_t max, int *ok)
{
	const json_t *o = json_object_get(r->config, member);
	*ok = 0;
	if (!o || json_is_null(o))
		return NULL;
	if (!json_is_object(o))
		*ok = wrong(r, member, "something other than an object");
	else if (json_object_size(o) > max)
		*ok = wrong(r, member, "too many entries");
	return *ok < 0 ? NULL : o;
}

static int read_volumes(struct reader *r, struct list *out)
{
	int ok;
	const char *key;
	json_t *v, *o = (json_t *)(uintptr_t)read_set(r, "Volumes", IMAGE_RUN_MAX_ITEMS, &ok);
	json_object_foreach(o, key, v)
	{
		if (count(r, key, "Volumes") < 0)
			return -1;
		cleanup_free char *path = clean_path(key);
		if (!path || !strcmp(path, "/"))
			return wrong(r, "Volumes", "a path that is not absolute, or leads to the root");
		bool known = false;
		for (size_t k = 0; k < out->n; k++)
			known |= !strcmp(out->v[k], path);
		if (!known && list_take(out, steal_ptr(&path), r->err) < 0)
			return -1;
	}
	return ok;
}

static int read_labels(struct reader *r, struct list *out)
{
	int ok;
	const char *key;
	json_t *v, *o = (json_t *)(uintptr_t)read_set(r, "Labels", IMAGE_RUN_MAX_ITEMS, &ok);
	json_object_foreach(o, key, v)
	{
		const char *s = json_string_value(v);
		char *both;
		if (!s || !key[0])
			return wrong(r, "Labels", "an entry that is no text");
		if (count(r, key, "Labels") < 0 || count(r, s, "Labels") < 0)
			return -1;
		if (list_take(out, asprintf(&both, "%s=%s", key, s) < 0 ? NULL : both, r->err) < 0)
			return -1;
	}
	return ok;
}

/* "80", "80/tcp", "8000-8010/udp". */
static int parse_port(const char *s, struct image_port *p)
{
	unsigned n[2] = {0}, k = 0;
	for (;; k++) {
		size_t digits = strspn(s, "0123456789");
		if (!digits || digits > 5)
			return -1;
		n[k] = (unsigned)atoi(s);
		s += digits;
		if (*s != '-' || k == 1)
			break;
		s++;
	}
	if (k == 0)
		n[1] = n[0];
	if (!n[0] || n[0] > n[1] || n[1] > 65535)
		return -1;
	if (*s && strcasecmp(s, "/tcp") && strcasecmp(s, "/udp") && strcasecmp(s, "/sctp"))
		return -1;
	p->first = (uint16_t)n[0];
	p->last = (uint16_t)n[1];
	p->udp = !strcasecmp(s, "/udp");
	return strcasecmp(s, "/sctp") ? 1 : 0;
}

static int read_ports(struct reader *r, struct image_run_config *c)
{
	int ok;
	const char *key;
	json_t *v, *o = (json_t *)(uintptr_t)read_set(r, "ExposedPorts", IMAGE_RUN_MAX_PORTS, &ok);
	if (o && !(c->ports = calloc(json_object_size(o) + 1, sizeof(*c->ports))))
		return cai_fail(r->err, ENOMEM, "out of memory");
	json_object_foreach(o, key, v)
	{
		int kind = parse_port(key, &c->ports[c->n_ports]);
		if (kind < 0)
			return wrong(r, "ExposedPorts", "what is no port");
		c->n_ports += kind > 0; /* SCTP is not forwarded by anything here */
	}
	return ok;
}

int image_signal_number(const char *text)
{
	size_t digits = strspn(text, "0123456789");
	if (digits && !text[digits]) {
		int n = digits > 2 ? 0 : atoi(text);
		return n >= 1 && n <= 64 ? n : -1;
	}
	if (!strncasecmp(text, "SIG", 3))
		text += 3;
	/* Numbers of the kernel's; the C library keeps some of the real-time ones for itself. */
	static const struct {
		const char *name;
		int base;
	} rt[] = {{"RTMIN", 34}, {"RTMAX", 64}};
	for (size_t k = 0; k < ARRAY_LEN(rt); k++) {
		size_t n = strlen(rt[k].name), more;
		if (strncasecmp(text, rt[k].name, n))
			continue;
		if (!text[n])
			return rt[k].base;
		more = strspn(text + n + 1, "0123456789");
		if (text[n] != (k ? '-' : '+') || !more || more > 2 || text[n + 1 + more])
			return -1;
		int got = k ? 64 - atoi(text + n + 1) : 34 + atoi(text + n + 1);
		return got >= 34 && got <= 64 ? got : -1;
	}
	if (!strcasecmp(text, "IOT"))
		return SIGABRT;
	if (!strcasecmp(text, "IO"))
		return SIGIO;
	for (int s = 1; s < 32; s++) {
		const char *name = sigabbrev_np(s);
		if (name && !strcasecmp(name, text))
			return s;
	}
	return -1;
}

static int read_all(struct reader *r, struct image_run_config *c, struct list l[5])
{
	cleanup_free char *workdir = NULL, *stop = NULL;
	if (read_texts(r, "Entrypoint", &l[0]) < 0 || read_texts(r, "Cmd", &l[1]) < 0 ||
	    read_env(r, &l[2]) < 0 || read_volumes(r, &l[3]) < 0 || read_labels(r, &l[4]) < 0 ||
	    read_ports(r, c) < 0 || read_text(r, "User", "", &c->user) < 0 ||
	    read_text(r, "WorkingDir", "/", &workdir) < 0 || read_text(r, "StopSignal", "15", &stop) < 0)
		return -1;
	/* What a Dockerfile's WORKDIR leaves is absolute; other tools leave relative ones, meant from the
	 * root. */
	cleanup_free char *rooted = NULL;
	if (asprintf(&rooted, "/%s", workdir) < 0 || !(c->workdir = clean_path(rooted)))
		return wrong(r, "WorkingDir", "a path with '..', or one that is too long,");
	c->stop_signal = image_signal_number(stop);
	return c->stop_signal < 0 ? wrong(r, "StopSignal", "what is no signal") : 0;
}

int image_run_config_parse(const json_t *config, struct image_run_config *out, struct cai_error *err)
{
	struct list l[5] = {{0}};
	struct reader r = {.config = json_is_object(config) ? config : NULL, .err = err};
	memset(out, 0, sizeof(*out));
	int ok = read_all(&r, out, l);
	for (size_t k = 0; k < 5 && ok == 0; k++)
		if (!l[k].v && !(l[k].v = calloc(1, sizeof(char *))))
			ok = cai_fail(err, ENOMEM, "out of memory");
	out->entrypoint = l[0].v;
	out->cmd = l[1].v;
	out->env = l[2].v;
	out->volumes = l[3].v;
	out->labels = l[4].v;
	if (ok < 0)
		image_run_config_free(out);
	return ok;
}

void image_run_config_free(struct image_run_config *c)
{
	free(c->name);
	free(c->rootfs);
	free_list(c->entrypoint);
	free_list(c->cmd);
	free_list(c->env);
	free(c->workdir);
	free(c->user);
	free_list(c->volumes);
	free_list(c->labels);
	free(c->ports);
	memset(c, 0, sizeof(*c));
}

int image_run_config_load(struct image_store *s, const char *ref, struct image_run_config *out,
			  struct cai_error *err)
{
	struct image_ref parsed;
	char full[720];
	memset(out, 0, sizeof(*out));
	json_t *o = image_store_resolve(s, ref, err), *v;
	if (!o)
		return -1;
	int ok = image_run_config_parse(json_object_get(o, "config"), out, err);
	if (ok < 0) {
		cai_wrap(err, "the image %.200s cannot be run", ref);
	} else {
		snprintf(out->id, sizeof(out->id), "%s", json_string_value(json_object_get(o, "id")));
		out->rootfs = strdup(json_string_value(json_object_get(o, "rootfs")));
		if (image_ref_parse(ref, &parsed, NULL) == 0) {
			size_t k;
			image_ref_full(&parsed, full, sizeof(full));
			json_array_foreach(json_object_get(o, "tags"), k, v)
			{
				if (!out->name && !strcmp(json_string_value(v), full))
					out->name = strdup(full);
			}
		}
		if (!out->rootfs) {
			image_run_config_free(out);
			ok = cai_fail(err, ENOMEM, "out of memory");
		}
	}
	json_decref(o);
	return ok;
}

/* ---- docker's rules -------------------------------------------------------------------------------- */

static int add_all(struct list *l, const char *const *v, struct cai_error *err)
{
	for (; v && *v; v++)
		if (list_add(l, *v, err) < 0)
			return -1;
	return 0;
}

static int make_argv(const struct image_run_config *image, const struct image_run_request *q, struct list *l,
		     struct cai_error *err)
{
	bool words = q->command && q->command[0];
	if (q->entrypoint && q->entrypoint[0] && list_add(l, q->entrypoint, err) < 0)
		return -1;
	if (!q->entrypoint && image && add_all(l, (const char *const *)image->entrypoint, err) < 0)
		return -1;
	if (words)
		return add_all(l, q->command, err);
	if (!q->entrypoint && image && add_all(l, (const char *const *)image->cmd, err) < 0)
		return -1;
	if (!l->n)
		return cai_fail(err, EINVAL,
				"there is no command to run: %s; give one after the image's name",
				q->entrypoint ? "the entry point was emptied" : "the image names none");
	return 0;
}

static int make_env(const struct image_run_config *image, const struct image_run_request *q, struct list *l,
		    struct cai_error *err)
{
	if (list_add(l, default_path, err) < 0)
		return -1;
	for (char **v = image ? image->env : NULL; v && *v; v++)
		if (list_set(l, *v, err) < 0)
			return -1;
	for (const char *const *v = q->env; v && *v; v++) {
		if (!name_len(*v))
			return cai_fail(err, EINVAL, "the variable '%.100s' has no name", *v);
		if (!strchr(*v, '='))
			list_unset(l, *v);
		else if (list_set(l, *v, err) < 0)
			return -1;
	}
	return 0;
}

int image_run_plan_make(const struct image_run_config *image, const struct image_run_request *q,
			struct image_run_plan *out, struct cai_error *err)
{
	struct list argv = {0}, env = {0};
	const char *workdir = q->workdir && q->workdir[0] ? q->workdir
			      : image			  ? image->workdir
							  : "/",
		   *user = q->user && q->user[0] ? q->user
			   : image		 ? image->user
						 : "";
	memset(out, 0, sizeof(*out));
	int ok = make_argv(image, q, &argv, err);
	if (ok == 0)
		ok = make_env(image, q, &env, err);
	if (ok == 0 && workdir[0] != '/')
		ok = cai_fail(err, EINVAL, "the working directory '%.200s' is not an absolute path", workdir);
	out->argv = argv.v;
	out->env = env.v;
	if (ok == 0 && (!(out->user = strdup(user)) || !(out->workdir = strdup(workdir))))
		ok = cai_fail(err, ENOMEM, "out of memory");
	if (ok < 0)
		image_run_plan_free(out);
	return ok;
}

void image_run_plan_free(struct image_run_plan *p)
{
	free_list(p->argv);
	free_list(p->env);
	free(p->user);
	free(p->workdir);
	memset(p, 0, sizeof(*p));
}
