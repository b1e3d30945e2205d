/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a table of options and one loop. getopt_long is not used because it permutes
 * arguments, keeps its state in globals and prints messages of its own that suggest nothing.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

#define MAX_WORD 48

void cli_defuse(char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		/* C0 controls and DEL; C1 controls, which UTF-8 writes as C2 80 to C2 9F */
		bool c1 = c == 0xc2 && i + 1 < n && ((unsigned char)text[i + 1] & 0xe0) == 0x80;
		if (c < 32 || c == 127 || c1)
			text[i] = '?';
	}
}

void cli_say(const char *fmt, ...)
{
	char line[1400];
	va_list ap;
	va_start(ap, fmt);
	int n = snprintf(line, sizeof(line), "caisson: ");
	int m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	n += m < 0 ? 0 : m;
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	cli_defuse(line, (size_t)n);
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nobody is left to tell */
}

/* Edits (insert, delete, replace, swap neighbours) between two words. */
static unsigned distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	unsigned d[MAX_WORD + 1][MAX_WORD + 1];
	if (n > MAX_WORD || m > MAX_WORD)
		return 1000;
	for (size_t i = 0; i <= n; i++)
		for (size_t j = 0; j <= m; j++) {
			if (!i || !j) {
				d[i][j] = (unsigned)(i + j);
				continue;
			}
			unsigned v = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			if (d[i - 1][j] + 1 < v)
				v = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < v)
				v = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < v)
				v = d[i - 2][j - 2] + 1;
			d[i][j] = v;
		}
	return d[n][m];
}

const char *cli_nearest(const char *word, const char *const *candidates, size_t n)
{
	const char *best = NULL;
	unsigned best_d = 3; /* at most two edits, and never most of the word */
	for (size_t i = 0; i < n; i++) {
		unsigned d = distance(word, candidates[i]);
		if (strlen(word) >= 3 && !strncmp(candidates[i], word, strlen(word)))
			d = 1; /* an abbreviation */
		if (d < best_d && d * 2 <= strlen(candidates[i])) {
			best_d = d;
			best = candidates[i];
		}
	}
	return best;
}

static int unknown(const char *word, const struct cli_option *opts, struct cai_error *err)
{
	const char *names[64];
	size_t n = 0;
	for (const struct cli_option *o = opts; o->name && n < ARRAY_LEN(names); o++)
		names[n++] = o->name;
	const char *near = cli_nearest(word, names, n);
	return near ? cai_fail(err, 0, "unknown flag --%s; did you mean --%s?", word, near)
		    : cai_fail(err, 0, "unknown flag --%s; see --help", word);
}

int cli_options(int argc, char **argv, const struct cli_option *opts,
		int (*set)(void *ctx, int id, const char *value, struct cai_error *err), void *ctx,
		struct cli_parse *out, struct cai_error *err)
{
	int i = 1;
	out->dashes = false;
	for (; i < argc; i++) {
		char *a = argv[i];
		if (a[0] != '-' || !a[1])
			break;
		if (!strcmp(a, "--")) {
			out->dashes = true;
			i++;
			break;
		}
		if (a[1] == '-') {
			char word[MAX_WORD + 1];
			const char *eq = strchr(a, '='), *value = eq ? eq + 1 : NULL;
			size_t n = eq ? (size_t)(eq - a - 2) : strlen(a + 2);
			snprintf(word, sizeof(word), "%.*s", (int)(n < MAX_WORD ? n : MAX_WORD), a + 2);
			const struct cli_option *o = opts;
			while (o->name && strcmp(o->name, word))
				o++;
			if (!o->name)
				return unknown(word, opts, err);
			if (o->kind == OPT_FLAG && value)
				return cai_fail(err, 0, "--%s takes no value", o->name);
			if (o->kind != OPT_FLAG && !value) {
				if (++i >= argc)
					return cai_fail(err, 0, "--%s needs a value", o->name);
				value = argv[i];
			}
			if (set(ctx, o->id, value, err) < 0)
				return -1;
			continue;
		}
		for (char *c = a + 1; *c; c++) {
			const struct cli_option *o = opts;
			while (o->name && o->letter != *c)
				o++;
			if (!o->name)
				return cai_fail(err, 0, "unknown flag -%c%s%s; see --help", *c,
						a[2] ? " in " : "", a[2] ? a : "");
			if (o->kind == OPT_FLAG) {
				if (set(ctx, o->id, NULL, err) < 0)
					return -1;
				continue;
			}
			const char *value = c[1] ? c + 1 : ++i < argc ? argv[i] : NULL;
			if (!value)
				return cai_fail(err, 0, "-%c needs a value", *c);
			if (c[1] == '=') /* -m=1G, as --memory=1G */
				value++;
			if (set(ctx, o->id, value, err) < 0)
				return -1;
			break;
		}
	}
	out->next = i;
	return 0;
}
