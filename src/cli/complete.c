/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `caisson __complete WORD...`: what the shells' completion asks for (completion/). Theory of operation: the words are followed as the
 * command itself would follow them, by the same tables (cli.h), up to the last one, which is the one that is being typed; then what may stand
 * there is printed, one a line, cut to what begins as it does, with a tab and a word of explanation where there is one. A line that
 * begins with ':' is for the shell: ":files" and ":dirs" ask it to add its own, ":nospace" that none of this ends the word.
 *
 * It only looks: nothing is healed, no runner is asked. Names come from files, so what a shell could misread is left out.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/run_options.h"
#include "image/store.h"
#include "net/networks.h"
#include "sandbox/checkpoint.h"
#include "sandbox/state.h"
#include "sandbox/template.h"

struct complete {
	const char *cur;    /* the word that is being typed, or the flag's value in it */
	const char *before; /* what stands before cur in that word: "--engine=" */
	struct store s;
	enum cli_word word; /* which sandboxes are wanted */
};

static bool harmless(const char *text)
{
	return text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/@=+-")] == 0;
}

/* One candidate, text followed by end; when it begins with what was typed. */
static void offer(const struct complete *c, const char *text, const char *end, const char *why)
{
	size_t n = strlen(text), typed = strlen(c->cur);
	if (strncmp(c->cur, text, typed < n ? typed : n) || (typed > n && strcmp(c->cur + n, end)) || !harmless(text))
		return;
	printf("%s%s%s", c->before, text, end);
	if (why && *why) {
		char line[96];
		snprintf(line, sizeof(line), "%s", why);
		cli_defuse(line, strlen(line));
		printf("\t%s", line);
	}
	putchar('\n');
}

static bool wanted(enum cli_word word, const struct sandbox_dir *d, const struct sandbox_state *st)
{
	bool runs = (st->status == STATUS_RUNNING || st->status == STATUS_PAUSED) && sandbox_dir_held(d);
	switch (word) {
	case WORD_RUNNING:
	case WORD_COPY:
		return runs;
	case WORD_PAUSED:
		return runs && st->status == STATUS_PAUSED;
	case WORD_ENDED:
		return !runs;
	default:
		return true;
	}
}

static int offer_sandbox(void *ctx, struct sandbox_dir *d)
{
	struct complete *c = ctx;
	struct sandbox_state st;
	json_t *conf = sandbox_dir_read(d, "config.json", NULL);
	const char *name = json_string_value(json_object_get(conf, "name")), *image = json_string_value(json_object_get(conf, "image"));
	if (conf && sandbox_state_read(d, &st, NULL) == 0) {
		char why[96];
		snprintf(why, sizeof(why), "%s%s%s", sandbox_status_name(st.status), image ? ", " : "", image ? image : "");
		if (wanted(c->word, d, &st))
			offer(c, name && *name ? name : d->id, c->word == WORD_COPY ? ":" : "", why);
		sandbox_state_free(&st);
	}
	json_decref(conf);
	return 0;
}

static void offer_sandboxes(struct complete *c, enum cli_word word)
{
	c->word = word;
	if (store_open(&c->s, NULL) < 0)
		return;
	store_each(&c->s, offer_sandbox, c, NULL);
	store_close(&c->s);
}

static void offer_checkpoints(struct complete *c)
{
	json_t *list = checkpoint_list(&c->s, NULL), *o;
	size_t k;
	json_array_foreach(list, k, o) offer(c, json_string_value(json_object_get(o, "name")), "", json_string_value(json_object_get(o, "sandbox_name")));
	json_decref(list);
}

static void offer_images(const struct complete *c)
{
	struct image_store s;
	json_t *o, *t;
	size_t k, j;
	if (image_store_open(&s, NULL, NULL) < 0)
		return;
	json_t *list = image_store_list(&s, NULL);
	json_array_foreach(list, k, o)
	{
		const char *id = json_string_value(json_object_get(o, "id"));
		json_t *tags = json_object_get(o, "tags");
		char digits[13];
		snprintf(digits, sizeof(digits), "%.12s", id && strlen(id) > 7 ? id + 7 : "");
		json_array_foreach(tags, j, t) offer(c, image_ref_familiar(json_string_value(t)), "", digits);
		if (!json_array_size(tags) && *digits)
			offer(c, digits, "", "no name");
	}
	json_decref(list);
	image_store_close(&s);
}

static void offer_networks(const struct complete *c)
{
	struct store s;
	cleanup_free struct network *list = NULL;
	size_t n = 0;
	if (store_open(&s, NULL) < 0)
		return;
	if (network_list(s.root_fd, &list, &n, NULL) == 0)
		for (size_t i = 0; i < n; i++)
			offer(c, list[i].name, "", list[i].internal ? "internal" : "");
	store_close(&s);
}

static void offer_templates(const struct complete *c)
{
	struct store s;
	json_t *o;
	size_t k;
	if (store_open(&s, NULL) < 0)
		return;
	json_t *list = template_list(&s, NULL);
	json_array_foreach(list, k, o)
	{
		const char *image = json_string_value(json_object_get(o, "image"));
		offer(c, json_string_value(json_object_get(o, "name")), "", image && *image ? image : "base");
	}
	json_decref(list);
	store_close(&s);
}

static void offer_list(const struct complete *c, const char *const *list, const char *end)
{
	for (; *list; list++)
		offer(c, *list, end, NULL);
}

static void offer_signals(const struct complete *c)
{
	for (int i = 1; i < 32; i++)
		if (sigabbrev_np(i))
			offer(c, sigabbrev_np(i), "", sigdescr_np(i));
}

/* The values of an enum whose names a function gives. */
#define OFFER_ENUM(c, name, first, last)                                                                                                         \
	for (int i = (first); i <= (int)(last); i++)                                                                                            \
	offer(c, name(i), "", NULL)

/* ps --filter KEY=VALUE: the key, or the value where there is a list of them. */
static void offer_filter(struct complete *c)
{
	const char *eq = strchr(c->cur, '=');
	if (!eq) {
		offer_list(c, ps_filter_keys, "=");
		puts(":nospace");
		return;
	}
	char before[128], key[16];
	snprintf(key, sizeof(key), "%.*s", (int)(eq - c->cur), c->cur);
	snprintf(before, sizeof(before), "%s%s=", c->before, key);
	struct complete v = {.cur = eq + 1, .before = before};
	if (!strcmp(key, "status"))
		OFFER_ENUM(&v, sandbox_status_name, STATUS_CREATED, STATUS_SUSPENDED);
	else if (!strcmp(key, "engine"))
		OFFER_ENUM(&v, engine_name, ENGINE_MICROVM, ENGINE_CONTAINER);
	else if (!strcmp(key, "boundary"))
		OFFER_ENUM(&v, boundary_name, BOUNDARY_NAMESPACE, BOUNDARY_HARDWARE);
	else if (!strcmp(key, "name"))
		offer_sandboxes(&v, WORD_SANDBOX);
	else if (!strcmp(key, "image"))
		offer_images(&v);
}

static void offer_commands(const struct complete *c)
{
	for (const struct cli_command *k = cli_commands; k->name; k++)
		offer(c, k->name, "", k->summary);
}

static void offer_word(struct complete *c, enum cli_word word)
{
	switch (word) {
	case WORD_NONE:
	case WORD_TEXT:
	case WORD_PROGRAM:
		return;
	case WORD_FILE:
		puts(":files");
		return;
	case WORD_DIR:
		puts(":dirs");
		return;
	case WORD_COPY:
		if (!strchr(c->cur, ':'))
			puts(":files");
		puts(":nospace");
		offer_sandboxes(c, word);
		return;
	case WORD_SANDBOX:
	case WORD_RUNNING:
	case WORD_PAUSED:
	case WORD_ENDED:
		offer_sandboxes(c, word);
		return;
	case WORD_IMAGE:
		offer_images(c);
		return;
	case WORD_NETWORK:
		offer(c, "none", "", "no network");
		offer_networks(c);
		return;
	case WORD_CHECKPOINT:
		offer_checkpoints(c);
		return;
	case WORD_OWN_NETWORK:
		offer_networks(c);
		return;
	case WORD_TEMPLATE:
		offer_templates(c);
		return;
	case WORD_SIGNAL:
		offer_signals(c);
		return;
	case WORD_ENGINE:
		OFFER_ENUM(c, engine_name, ENGINE_MICROVM, ENGINE_CONTAINER);
		return;
	case WORD_TRUST:
		OFFER_ENUM(c, trust_name, TRUST_UNTRUSTED, TRUST_HOSTILE);
		return;
	case WORD_BOUNDARY:
		OFFER_ENUM(c, boundary_name, BOUNDARY_NAMESPACE, BOUNDARY_HARDWARE);
		return;
	case WORD_ACCEL:
		offer_list(c, accel_choices, "");
		return;
	case WORD_PULL:
		offer_list(c, pull_choices, "");
		return;
	case WORD_FILTER:
		offer_filter(c);
		return;
	case WORD_COMMAND:
		offer_commands(c);
		return;
	}
}

static const struct cli_option *by_name(const struct cli_option *o, const char *name, size_t n)
{
	while (o && o->name && (strlen(o->name) != n || strncmp(o->name, name, n)))
		o++;
	return o && o->name ? o : NULL;
}

/* The option whose value the word after this one is; NULL when that is a word of its own. */
static const struct cli_option *value_follows(const struct cli_option *opts, const char *word)
{
	if (word[1] == '-') {
		const struct cli_option *o = by_name(opts, word + 2, strlen(word + 2)); /* none with "=" in it */
		return o && o->kind != OPT_FLAG ? o : NULL;
	}
	for (const char *l = word + 1; *l; l++)
		for (const struct cli_option *o = opts; o && o->name; o++)
			if (o->letter == *l && o->kind != OPT_FLAG)
				return l[1] ? NULL : o;
	return NULL;
}

static void offer_flags(const struct complete *c, const struct cli_option *o)
{
	for (; o && o->name; o++) {
		char flag[64], letter[4] = "";
		snprintf(flag, sizeof(flag), "--%s", o->name);
		if (o->letter)
			snprintf(letter, sizeof(letter), "-%c", o->letter);
		offer(c, flag, "", letter);
	}
}

static void offer_flag_value(struct complete *c, const struct cli_option *opts)
{
	const char *eq = strchr(c->cur, '=');
	const struct cli_option *o = by_name(opts, c->cur + 2, (size_t)(eq - c->cur - 2));
	char before[64];
	if (!o || o->kind == OPT_FLAG)
		return;
	snprintf(before, sizeof(before), "%.*s", (int)(eq - c->cur) + 1, c->cur);
	struct complete v = {.cur = eq + 1, .before = before};
	offer_word(&v, (enum cli_word)o->kind);
}

/* Behind a command: words w[0..n) are there, c->cur is typed. */
static void complete_arguments(struct complete *c, const struct cli_option *opts, enum cli_word first, enum cli_word rest, char **w, int n)
{
	const struct cli_option *value = NULL; /* its value is the next word */
	bool only_words = false;
	int args = 0;
	for (int i = 0; i < n; i++) {
		if (value) {
			value = NULL;
		} else if (!only_words && !strcmp(w[i], "--")) {
			only_words = true;
			args += rest == WORD_PROGRAM; /* no image is named then */
		} else if (!only_words && w[i][0] == '-' && w[i][1]) {
			value = value_follows(opts, w[i]);
		} else {
			args++;
			only_words |= rest == WORD_PROGRAM;
		}
	}
	if (value) {
		offer_word(c, (enum cli_word)value->kind);
		return;
	}
	enum cli_word word = args ? rest : first;
	if (!only_words && c->cur[0] == '-' && c->cur[1] == '-' && strchr(c->cur, '='))
		offer_flag_value(c, opts);
	else if (!only_words && (c->cur[0] == '-' || (word == WORD_NONE && !c->cur[0])))
		offer_flags(c, opts);
	else
		offer_word(c, word);
}

static void complete_action(struct complete *c, const struct cli_command *k, char **w, int n)
{
	const struct cli_action *a;
	for (size_t i = 0; (a = k->action(i)); i++)
		if (n == 0)
			offer(c, a->name, "", NULL);
		else if (!strcmp(a->name, w[0]))
			break;
	if (n == 0 && c->cur[0] == '-')
		offer(c, "--help", "", "-h");
	if (n && a)
		complete_arguments(c, k->options, a->first, a->max > 1 ? a->rest : WORD_NONE, w + 1, n - 1);
}

int cmd_complete(int argc, char **argv)
{
	struct complete c = {.cur = argv[argc - 1], .before = ""};
	char **w = argv + 1;
	int n = argc - 2; /* words before the one that is typed */
	if (n < 0)
		return CLI_EXIT_USAGE;
	if (n && !strncmp(w[0], "--root=", 7)) {
		setenv("CAISSON_ROOT", w[0] + 7, 1);
		w++, n--;
	} else if (n && !strcmp(w[0], "--root")) {
		if (n == 1) {
			offer_word(&c, WORD_DIR);
			return 0;
		}
		setenv("CAISSON_ROOT", w[1], 1);
		w += 2, n -= 2;
	}
	if (n == 0) {
		if (c.cur[0] == '-') {
			offer(&c, "--root", "", "another root directory");
			offer(&c, "--help", "", "-h");
			offer(&c, "--version", "", "-V");
		} else {
			offer_commands(&c);
		}
		return 0;
	}
	for (const struct cli_command *k = cli_commands; k->name; k++) {
		if (strcmp(k->name, w[0]))
			continue;
		if (k->action)
			complete_action(&c, k, w + 1, n - 1);
		else
			complete_arguments(&c, k->options, k->first, k->rest, w + 1, n - 1);
	}
	return 0;
}
