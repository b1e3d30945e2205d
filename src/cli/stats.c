/* SPDX-License-Identifier: Apache-2.0 */
/* What sandboxes use and run: stats, top. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/describe.h"
#include "cli/json.h"
#include "cli/words.h"
#include "sandbox/call.h"
#include "sandbox/runner.h"

#define MAX_ANSWER (4u << 20)
#define ASK_MS	   20000
#define SAMPLE_MS  500

enum { B_JSON, B_HELP, B_NO_STREAM }; /* as options_json has the first two */
const struct cli_option options_stats[] = {
	{"json", 0, OPT_FLAG, B_JSON},
	{"no-stream", 0, OPT_FLAG, B_NO_STREAM},
	{"help", 'h', OPT_FLAG, B_HELP},
	{NULL, 0, 0, 0},
};

void help_stats(void)
{
	puts("usage: caisson stats [FLAGS] [SANDBOX...]\n\n"
	     "Show what running sandboxes use: CPU, memory of the host and of the guest, disk, network. On a terminal it goes on until\n"
	     "interrupted.\n\n"
	     "      --no-stream  once\n"
	     "      --json       once, as JSON");
}

static json_t *ask_stats(struct sandbox_view *v, struct cai_error *err)
{
	cleanup_close int fd = runner_connect(&v->dir, err);
	json_t *o = fd < 0 ? NULL : runner_ask(fd, json_pack("{s:s}", "op", "stats"), ASK_MS, err);
	json_t *st = json_incref(json_object_get(o, "stats"));
	json_decref(o);
	if (!st && !err->text[0])
		cai_fail(err, ESRCH, "the sandbox has ended");
	return st;
}

/* Host's and guest's figures of one sandbox, the CPU as a share of one CPU over a moment. NULL where it has just ended. */
static json_t *sample(struct sandbox_view *v)
{
	struct cai_error err = {0};
	json_t *a = ask_stats(v, &err);
	if (!a)
		return NULL;
	uint64_t t0 = clock_mono_ns();
	json_int_t cpu0 = json_integer_value(json_object_get(a, "cpu_ns"));
	json_t *guest = v->state.status == STATUS_RUNNING ? call_builtin_json(v, (char *[]){(char *)"stats", NULL}, MAX_ANSWER, &err) : NULL;
	poll(NULL, 0, SAMPLE_MS);
	json_t *b = ask_stats(v, &err);
	double share = b ? (double)(json_integer_value(json_object_get(b, "cpu_ns")) - cpu0) / (double)(clock_mono_ns() - t0) * 100 : 0;
	json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:f,s:o,s:o}", "id", v->dir.id, "name", v->name, "engine", engine_name(v->conf.spec.engine), "status",
			      sandbox_status_name(v->state.status), "cpu_percent", share, "host", b ? b : json_incref(a), "guest",
			      guest ? guest : json_null());
	json_decref(a);
	return o;
}

static double mb(json_t *o, const char *key)
{
	return (double)json_integer_value(json_object_get(o, key)) / 1e6;
}

static void print_sample(json_t *o)
{
	json_t *h = json_object_get(o, "host"), *m = json_object_get(json_object_get(o, "guest"), "memory");
	double used = mb(m, "total") - mb(m, "available");
	char guest[48] = "-";
	if (m && !strcmp(json_string_value(json_object_get(o, "engine")), "microvm"))
		snprintf(guest, sizeof(guest), "%.1f of %.1f MB", used, mb(m, "total"));
	printf("%-12s  %-20.20s  %6.1f%%  %9.1f MB  %-18s  %8.1f MB  %8.1f / %.1f MB\n", json_string_value(json_object_get(o, "id")),
	       json_string_value(json_object_get(o, "name")), json_real_value(json_object_get(o, "cpu_percent")), mb(h, "memory"), guest,
	       mb(h, "disk_used"), mb(h, "net_rx"), mb(h, "net_tx"));
}

struct gather {
	struct store *s;
	const struct words *w;
	json_t *list;
	int failed;
};

static int gather_one(void *ctx, struct sandbox_dir *d)
{
	struct gather *g = ctx;
	struct sandbox_view v;
	if (sandbox_view_open(g->s, d, &v, NULL) <= 0)
		return 0;
	json_t *o = v.state.status == STATUS_RUNNING || v.state.status == STATUS_PAUSED ? sample(&v) : NULL;
	if (o)
		json_array_append_new(g->list, o);
	sandbox_view_free(&v);
	return 0;
}

static json_t *gather(struct store *s, const struct words *w, int *status)
{
	struct gather g = {s, w, json_array(), 0};
	struct cai_error err = {0};
	if (!w->n)
		store_each(s, gather_one, &g, &err);
	for (int i = 0; i < w->n; i++) {
		struct sandbox_view v;
		json_t *o = NULL;
		if (sandbox_view_find(s, w->v[i], &v, &err) < 0) {
			cli_say("%s", err.text);
			*status = 1;
			continue;
		}
		if (v.state.status != STATUS_RUNNING && v.state.status != STATUS_PAUSED) {
			cli_say("%s: the sandbox is not running (it is %s)", v.name, sandbox_status_name(v.state.status));
			*status = 1;
		} else {
			o = sample(&v);
		}
		if (o)
			json_array_append_new(g.list, o);
		sandbox_view_free(&v);
	}
	return g.list;
}

int cmd_stats(int argc, char **argv)
{
	struct words w;
	struct cai_error err = {0};
	struct store s;
	uint32_t bits = 0;
	if (words_parse(argc, argv, options_stats, words_set_bits, &bits, &w, &err) < 0)
		return words_usage(&err);
	if (bits & 1u << B_HELP) {
		help_stats();
		return 0;
	}
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	int status = 0;
	bool stream = isatty(STDOUT_FILENO) && !(bits & (1u << B_JSON | 1u << B_NO_STREAM));
	do {
		json_t *list = gather(&s, &w, &status), *o;
		size_t k;
		if (bits & 1u << B_JSON) {
			int r = cli_print_json(list);
			status = status ? status : r;
			break;
		}
		if (stream)
			fputs("\033[H\033[2J", stdout);
		printf("%-12s  %-20s  %7s  %12s  %-18s  %11s  %s\n", "ID", "NAME", "CPU", "HOST MEMORY", "GUEST MEMORY", "DISK", "NET IN / OUT");
		json_array_foreach(list, k, o) print_sample(o);
		json_decref(list);
		if (fflush(stdout))
			break;
	} while (stream && status == 0);
	store_close(&s);
	return status;
}

void help_top(void)
{
	puts("usage: caisson top SANDBOX [--json]\n\nList the processes in a running sandbox.");
}

static int do_top(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err)
{
	json_t *list = call_builtin_json(v, (char *[]){(char *)"ps", NULL}, MAX_ANSWER, err), *o;
	size_t k;
	if (!list)
		return -1;
	if (*(uint32_t *)ctx & 1u << B_JSON)
		return cli_print_json(list) ? -1 : 0;
	printf("%7s %7s %-10s %1s %10s %10s  %s\n", "PID", "PPID", "USER", "S", "CPU", "RSS", "COMMAND");
	json_array_foreach(list, k, o)
	{
		const char *user = json_string_value(json_object_get(o, "user")), *st = json_string_value(json_object_get(o, "state")),
			   *c = json_string_value(json_object_get(o, "cmd"));
		char uid[24], cmd[256], who[24];
		snprintf(uid, sizeof(uid), "%lld", (long long)json_integer_value(json_object_get(o, "uid")));
		snprintf(who, sizeof(who), "%.16s", user ? user : uid);
		snprintf(cmd, sizeof(cmd), "%s", c ? c : "");
		cli_defuse(cmd, strlen(cmd));
		cli_defuse(who, strlen(who));
		printf("%7lld %7lld %-10s %.1s %8.2f s %7.1f MB  %s\n", (long long)json_integer_value(json_object_get(o, "pid")),
		       (long long)json_integer_value(json_object_get(o, "ppid")), who, st ? st : "?",
		       (double)json_integer_value(json_object_get(o, "cpu_ms")) / 1e3, mb(o, "rss"), cmd);
	}
	json_decref(list);
	return 0;
}

int cmd_top(int argc, char **argv)
{
	struct words w;
	struct cai_error err = {0};
	uint32_t bits = 0;
	if (words_parse(argc, argv, options_json, words_set_bits, &bits, &w, &err) < 0)
		return words_usage(&err);
	if (bits & 1u << B_HELP) {
		help_top();
		return 0;
	}
	if (w.n != 1) {
		cli_say("top takes one sandbox; see caisson top --help");
		return CLI_EXIT_USAGE;
	}
	return words_each(&w, do_top, &bits);
}
