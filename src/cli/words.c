/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/words.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

int words_parse(int argc, char **argv, const struct cli_option *opts,
		int (*set)(void *ctx, int id, const char *value, struct cai_error *err), void *ctx, struct words *w, struct cai_error *err)
{
	w->n = 0;
	for (;;) {
		struct cli_parse p;
		if (cli_options(argc, argv, opts, set, ctx, &p, err) < 0)
			return -1;
		argc -= p.next;
		argv += p.next;
		do {
			w->v[w->n] = NULL;
			if (argc <= 0)
				return 0;
			if (w->n == CLI_MAX_WORDS)
				return cai_fail(err, E2BIG, "too many arguments");
			w->v[w->n++] = argv[0];
			argc--;
			argv++;
		} while (p.dashes);
		argc++; /* cli_options skips a first word */
		argv--;
	}
}

int words_action(const char *command, const char *name, const struct cli_action *(*action)(size_t i))
{
	const char *names[32];
	size_t n = 0;
	for (const struct cli_action *a; n < ARRAY_LEN(names) && (a = action(n)); n++) {
		if (!strcmp(a->name, name))
			return (int)n;
		names[n] = a->name;
	}
	const char *near = cli_nearest(name, names, n);
	cli_say("there is no 'caisson %s %s'%s%s%s", command, name, near ? "; did you mean '" : "; see caisson ", near ? near : command,
		near ? "'?" : " --help");
	return -1;
}

int words_set_bits(void *ctx, int id, const char *value, struct cai_error *err)
{
	*(uint32_t *)ctx |= 1u << id;
	return 0;
}

int words_each(const struct words *w, int (*fn)(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err), void *ctx)
{
	struct store s;
	struct cai_error err = {0};
	int status = 0;
	if (store_open(&s, &err) < 0) {
		cli_say("%s", err.text);
		return CLI_EXIT_USAGE;
	}
	for (int i = 0; i < w->n; i++) {
		struct sandbox_view v;
		err.text[0] = 0;
		if (sandbox_view_find(&s, w->v[i], &v, &err) < 0) {
			cli_say("%s", err.text);
			status = 1;
			continue;
		}
		if (fn(ctx, &s, &v, &err) < 0) {
			cli_say("%s: %s", v.name, err.text);
			status = 1;
		}
		sandbox_view_free(&v);
	}
	store_close(&s);
	return status;
}

int words_usage(const struct cai_error *err)
{
	cli_say("%s", err->text);
	return CLI_EXIT_USAGE;
}
