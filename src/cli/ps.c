/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at sandboxes: ps, inspect, port. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "cli/cli.h"
#include "cli/describe.h"
#include "cli/json.h"
#include "cli/words.h"
#include "image/ref.h"

void help_ps(void)
{
	puts("usage: caisson ps [FLAGS]\n\n"
	     "List running sandboxes.\n\n"
	     "  -a, --all         all sandboxes, also those that have ended\n"
	     "  -q, --quiet       ids only\n"
	     "  -s, --size        with the size of what was written in them\n"
	     "  -n, --last N      the N newest ones, running or not\n"
	     "      --no-trunc    do not shorten commands\n"
	     "      --filter F    only those that fit: name=TEXT, id=PREFIX, status=STATUS, label=KEY[=VALUE],\n"
	     "                    image=NAME, engine=ENGINE, boundary=BOUNDARY, exited=STATUS; may be repeated\n"
	     "      --json        JSON");
}

enum { O_ALL, O_QUIET, O_SIZE, O_LAST, O_NO_TRUNC, O_FILTER, O_JSON, O_HELP };
const struct cli_option options_ps[] = {
	{"all", 'a', OPT_FLAG, O_ALL},
	{"quiet", 'q', OPT_FLAG, O_QUIET},
	{"size", 's', OPT_FLAG, O_SIZE},
	{"last", 'n', OPT_VALUE, O_LAST},
	{"no-trunc", 0, OPT_FLAG, O_NO_TRUNC},
	{"filter", 'f', WORD_FILTER, O_FILTER},
	{"json", 0, OPT_FLAG, O_JSON},
	{"help", 'h', OPT_FLAG, O_HELP},
	{NULL, 0, 0, 0},
};

#define MAX_FILTERS 32

struct ps {
	bool flag[8];
	long last;
	const char *filter[MAX_FILTERS];
	unsigned n_filters;
	struct store *s;
	struct row {
		json_t *o; /* describe_sandbox's */
		int64_t created;
	} *rows;
	size_t n;
};

const char *const ps_filter_keys[] = {"name", "id", "status", "label", "image", "engine", "boundary", "exited", NULL};

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct ps *p = ctx;
	if (id == O_FILTER) {
		size_t n = strcspn(v, "=");
		for (const char *const *key = ps_filter_keys; *key; key++)
			if (v[n] && strlen(*key) == n && !strncmp(*key, v, n) && p->n_filters < MAX_FILTERS) {
				p->filter[p->n_filters++] = v;
				return 0;
			}
		return cai_fail(err, EINVAL, "--filter '%s': there are name, id, status, label, image, engine, boundary and exited, each with =VALUE", v);
	}
	if (id == O_LAST) {
		char *end;
		p->last = strtol(v, &end, 10);
		if (end == v || *end || p->last < 0)
			return cai_fail(err, EINVAL, "--last needs a number, not '%s'", v);
	}
	p->flag[id] = true;
	return 0;
}

static bool has_label(const struct sandbox_spec *s, const char *want)
{
	size_t n = strcspn(want, "=");
	for (char *const *l = s->labels; l && *l; l++)
		if (want[n] ? !strcmp(*l, want) : !strncmp(*l, want, n) && ((*l)[n] == '=' || !(*l)[n]))
			return true;
	return false;
}

static bool fits(const struct sandbox_view *v, const char *filter)
{
	const struct sandbox_spec *s = &v->conf.spec;
	const char *value = strchr(filter, '=') + 1;
	switch (filter[0] == 'i' ? filter[1] : filter[0] == 'e' ? filter[1] : filter[0]) {
	case 'n': /* name; engine */
		return filter[0] == 'n' ? strstr(v->name, value) != NULL : !strcmp(engine_name(s->engine), value);
	case 'd': /* id */
		return !strncmp(v->dir.id, value, strlen(value));
	case 's':
		return !strcmp(sandbox_status_name(v->state.status), value);
	case 'l':
		return has_label(s, value);
	case 'm': /* image */
		return s->image && (!strcmp(s->image, value) || !strncmp(s->image, value, strlen(value)));
	case 'b':
		return !strcmp(boundary_name(v->state.boundary), value);
	default: /* exited */
		return v->state.status == STATUS_EXITED && v->state.exit_code == atoi(value);
	}
}

static int add_row(void *ctx, struct sandbox_dir *d)
{
	struct ps *p = ctx;
	struct sandbox_view v;
	struct cai_error err = {0};
	int r = sandbox_view_open(p->s, d, &v, &err);
	if (r < 0)
		cli_say("%s", err.text);
	if (r <= 0)
		return 0;
	bool want = p->flag[O_ALL] || p->flag[O_LAST] || v.state.status == STATUS_RUNNING || v.state.status == STATUS_PAUSED;
	for (unsigned i = 0; i < p->n_filters; i++) {
		/* Asked for by status, the ended ones are wanted too. */
		if (!strncmp(p->filter[i], "status=", 7) || !strncmp(p->filter[i], "exited=", 7))
			want = true;
	}
	for (unsigned i = 0; i < p->n_filters && want; i++)
		want = fits(&v, p->filter[i]);
	struct row *rows = want ? realloc(p->rows, (p->n + 1) * sizeof(*rows)) : NULL;
	if (rows) {
		p->rows = rows;
		p->rows[p->n++] = (struct row){describe_sandbox(&v, p->flag[O_SIZE]), v.state.created_ns};
	}
	sandbox_view_free(&v);
	return 0;
}

static int newest_first(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	return x->created < y->created ? 1 : x->created > y->created ? -1 : 0;
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

/* The program's words on one line, cut to n bytes, without what could drive a terminal. */
static void command_line(json_t *o, char *out, size_t n)
{
	size_t k, at = 0;
	json_t *w;
	out[0] = 0;
	json_array_foreach(json_object_get(o, "command"), k, w)
	{
		const char *s = json_string_value(w);
		int r = snprintf(out + at, n - at, "%s%s", k ? " " : "", s ? s : "?");
		if (r < 0 || (at += (size_t)r) >= n) {
			memcpy(out + n - 4, "...", 4);
			break;
		}
	}
	cli_defuse(out, strlen(out));
}

static void print_row(const struct ps *p, json_t *o)
{
	char cmd[512], ports[256] = "";
	size_t k, at = 0;
	json_t *w;
	command_line(o, cmd, p->flag[O_NO_TRUNC] ? sizeof(cmd) : 24);
	json_array_foreach(json_object_get(o, "ports"), k, w)
	{
		int r = snprintf(ports + at, sizeof(ports) - at, "%s%s", k ? ", " : "", json_string_value(w));
		if (r < 0 || (at += (size_t)r) >= sizeof(ports))
			break;
	}
	printf("%-12s  %-20s  %-23s  %-10s  %-10s  %-20s", text(o, "id"), text(o, "image"), cmd, text(o, "engine"), text(o, "boundary"),
	       text(o, "status_text"));
	if (p->flag[O_SIZE])
		printf("  %8.1f MB", (double)json_integer_value(json_object_get(o, "disk_used")) / 1e6);
	printf("  %s%s%s\n", text(o, "name"), ports[0] ? "  " : "", ports);
}

int cmd_ps(int argc, char **argv)
{
	struct ps p = {0};
	struct words w;
	struct cai_error err = {0};
	struct store s;
	if (words_parse(argc, argv, options_ps, set, &p, &w, &err) < 0)
		return words_usage(&err);
	if (p.flag[O_HELP]) {
		help_ps();
		return 0;
	}
	if (w.n) {
		cli_say("ps takes no arguments, but '%s' was given; to see one sandbox: caisson inspect %s", w.v[0], w.v[0]);
		return CLI_EXIT_USAGE;
	}
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	p.s = &s;
	int r = store_each(&s, add_row, &p, &err);
	store_close(&s);
	if (p.n)
		qsort(p.rows, p.n, sizeof(*p.rows), newest_first);
	size_t n = p.flag[O_LAST] && (size_t)p.last < p.n ? (size_t)p.last : p.n;
	json_t *list = p.flag[O_JSON] ? json_array() : NULL;
	if (!list && !p.flag[O_QUIET])
		printf("%-12s  %-20s  %-23s  %-10s  %-10s  %-20s%s  NAME\n", "ID", "IMAGE", "COMMAND", "ENGINE", "BOUNDARY", "STATUS",
		       p.flag[O_SIZE] ? "  DISK       " : "");
	for (size_t i = 0; i < p.n; i++) {
		if (list && i < n)
			json_array_append(list, p.rows[i].o);
		else if (i < n && p.flag[O_QUIET])
			puts(text(p.rows[i].o, "id"));
		else if (i < n)
			print_row(&p, p.rows[i].o);
		json_decref(p.rows[i].o);
	}
	free(p.rows);
	if (r < 0) {
		json_decref(list);
		return words_usage(&err);
	}
	return list ? cli_print_json(list) : 0;
}

void help_inspect(void)
{
	puts("usage: caisson inspect SANDBOX...\n\nPrint all that is known of sandboxes, as JSON.");
}

static int do_inspect(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	json_array_append_new(ctx, describe_sandbox(v, true));
	return 0;
}

enum { B_JSON, B_HELP };
const struct cli_option options_json[] = {
	{"json", 0, OPT_FLAG, B_JSON},
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};

int cmd_inspect(int argc, char **argv)
{
	struct words w;
	struct cai_error err = {0};
	uint32_t bits = 0;
	if (words_parse(argc, argv, options_json, words_set_bits, &bits, &w, &err) < 0)
		return words_usage(&err);
	if (bits & 1u << B_HELP) {
		help_inspect();
		return 0;
	}
	if (!w.n) {
		cli_say("which sandbox? see caisson inspect --help");
		return CLI_EXIT_USAGE;
	}
	json_t *list = json_array();
	int status = words_each(&w, do_inspect, list), r = cli_print_json(list);
	return status ? status : r;
}

void help_port(void)
{
	puts("usage: caisson port SANDBOX [--json]\n\nPrint which ports of this host lead to which of the sandbox.");
}

static int do_port(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	json_t *ports = json_object_get(v->state.network, "ports"), *p;
	size_t k;
	if (*(uint32_t *)ctx & 1u << B_JSON) {
		json_t *o = ports ? json_incref(ports) : json_array();
		return cli_print_json(o) ? -1 : 0;
	}
	json_array_foreach(ports, k, p) puts(json_string_value(p));
	return 0;
}

int cmd_port(int argc, char **argv)
{
	struct words w;
	struct cai_error err = {0};
	uint32_t bits = 0;
	if (words_parse(argc, argv, options_json, words_set_bits, &bits, &w, &err) < 0)
		return words_usage(&err);
	if (bits & 1u << B_HELP) {
		help_port();
		return 0;
	}
	if (w.n != 1) {
		cli_say("port takes one sandbox; see caisson port --help");
		return CLI_EXIT_USAGE;
	}
	return words_each(&w, do_port, &bits);
}
