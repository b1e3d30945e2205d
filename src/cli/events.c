/* SPDX-License-Identifier: Apache-2.0 */
/* `caisson events`: what happened to sandboxes. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "cli/cli.h"
#include "cli/words.h"
#include "sandbox/events.h"

#define POLL_MS 100

void help_events(void)
{
	puts("usage: caisson events [FLAGS]\n\n"
	     "Print what happens to sandboxes from now on.\n\n"
	     "      --since TIME  what has happened since then first: 2026-01-02T03:04:05Z, or how long ago: 10m\n"
	     "      --until TIME  end there; with --since alone it goes on\n"
	     "      --json        as JSON, one object a line");
}

enum { O_SINCE, O_UNTIL, O_JSON, O_HELP };
const struct cli_option options_events[] = {
	{"since", 0, OPT_VALUE, O_SINCE},
	{"until", 0, OPT_VALUE, O_UNTIL},
	{"json", 0, OPT_FLAG, O_JSON},
	{"help", 'h', OPT_FLAG, O_HELP},
	{NULL, 0, 0, 0},
};

struct events {
	int64_t since, until;
	bool json, help;
};

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct events *e = ctx;
	if (id == O_SINCE)
		return cli_parse_time(v, &e->since, err);
	if (id == O_UNTIL)
		return cli_parse_time(v, &e->until, err);
	if (id == O_JSON)
		e->json = true;
	else
		e->help = true;
	return 0;
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static void print(const struct events *e, const char *line)
{
	json_t *o = json_loads(line, 0, NULL);
	json_int_t t = json_integer_value(json_object_get(o, "time_ns"));
	if (o && t >= e->since && (!e->until || t <= e->until)) {
		if (e->json)
			fputs(line, stdout);
		else
			printf("%s %-10s %s %s", text(o, "time"), text(o, "event"), text(o, "id"), text(o, "name"));
		json_t *code = json_object_get(o, "exit_code");
		if (!e->json && code)
			printf(" exit_code=%d", (int)json_integer_value(code));
		if (!e->json)
			putchar('\n');
	}
	json_decref(o);
}

static void print_file(const struct events *e, FILE *f)
{
	char *line = NULL;
	size_t cap = 0;
	while (f && getline(&line, &cap, f) > 0)
		print(e, line);
	free(line);
}

static FILE *open_events(struct store *s, const char *name)
{
	int fd = openat(s->root_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	if (!f && fd >= 0)
		close(fd);
	return f;
}

static void watch(struct store *s, const struct events *e)
{
	cleanup_fclose FILE *f = open_events(s, "events");
	bool skip = !e->since;
	if (f && skip)
		fseek(f, 0, SEEK_END);
	while (!e->until || (int64_t)clock_real_ns() <= e->until) {
		struct stat a, b;
		if (!f)
			f = open_events(s, "events");
		print_file(e, f);
		if (fflush(stdout))
			return;
		if (f && fstat(fileno(f), &a) == 0 && fstatat(s->root_fd, "events", &b, 0) == 0 && a.st_ino != b.st_ino) {
			fclose(f);
			f = NULL;
			continue;
		}
		poll(NULL, 0, POLL_MS);
		if (f)
			clearerr(f);
	}
	print_file(e, f);
}

int cmd_events(int argc, char **argv)
{
	struct events e = {0};
	struct words w;
	struct cai_error err = {0};
	struct store s;
	if (words_parse(argc, argv, options_events, set, &e, &w, &err) < 0)
		return words_usage(&err);
	if (e.help) {
		help_events();
		return 0;
	}
	if (store_open(&s, &err) < 0)
		return words_usage(&err);
	if (e.since) {
		cleanup_fclose FILE *old = open_events(&s, "events.1");
		print_file(&e, old);
	}
	watch(&s, &e);
	store_close(&s);
	return 0;
}
