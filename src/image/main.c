/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caisson-image: fetches and unpacks images for `caisson`, which runs it and reads its answer.
 *
 *   caisson-image pull REF
 *   caisson-image import PATH [NAME]
 *   caisson-image bootstrap debian[:SUITE] [NAME] [--packages A,B]
 *   caisson-image resolve REF
 *
 * Answers one JSON object on standard output and exits 0; on failure one sentence on standard error and
 * status 125. Flags: --store DIR (what stands for $CAISSON_ROOT), --quiet (no progress), --json (accepted;
 * there is no other form).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "image/build.h"

#define FAILED 125

struct args {
	const char *store, *packages, *words[4];
	int n;
	bool quiet;
};

static json_t *do_import(struct image_store *s, const struct args *a, struct cai_error *err)
{
	return image_import(s, a->words[1], a->n > 2 ? a->words[2] : NULL, err);
}

static json_t *do_pull(struct image_store *s, const struct args *a, struct cai_error *err)
{
	return image_pull(s, a->words[1], a->quiet, err);
}

static json_t *do_bootstrap(struct image_store *s, const struct args *a, struct cai_error *err)
{
	return image_bootstrap(s, a->words[1], a->packages, a->n > 2 ? a->words[2] : NULL, err);
}

static json_t *do_resolve(struct image_store *s, const struct args *a, struct cai_error *err)
{
	return image_store_resolve(s, a->words[1], err);
}

static const struct {
	const char *name;
	int min, max; /* words, the command's own included */
	json_t *(*run)(struct image_store *s, const struct args *a, struct cai_error *err);
} commands[] = {
    {"pull", 2, 2, do_pull},
    {"import", 2, 3, do_import},
    {"bootstrap", 2, 3, do_bootstrap},
    {"resolve", 2, 2, do_resolve},
};

static int parse(int argc, char **argv, struct args *a, struct cai_error *err)
{
	bool dashes = false;
	for (int k = 1; k < argc; k++) {
		char *w = argv[k];
		if (!dashes && !strcmp(w, "--"))
			dashes = true;
		else if (!dashes && !strcmp(w, "--json"))
			continue;
		else if (!dashes && !strcmp(w, "--quiet"))
			a->quiet = true;
		else if (!dashes && !strcmp(w, "--store") && k + 1 < argc)
			a->store = argv[++k];
		else if (!dashes && !strcmp(w, "--packages") && k + 1 < argc)
			a->packages = argv[++k];
		else if (!dashes && w[0] == '-')
			return cai_fail(err, 0, "unknown flag %s", w);
		else if (a->n < (int)ARRAY_LEN(a->words))
			a->words[a->n++] = w;
		else
			return cai_fail(err, 0, "too many arguments");
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct args a = {0};
	struct cai_error err = {0};
	struct image_store store = {.dir = -1};
	json_t *answer = NULL;
	if (parse(argc, argv, &a, &err) == 0) {
		size_t k = 0;
		while (k < ARRAY_LEN(commands) && (!a.n || strcmp(commands[k].name, a.words[0])))
			k++;
		if (k == ARRAY_LEN(commands) || a.n < commands[k].min || a.n > commands[k].max)
			cai_fail(&err, 0,
				 "unknown command or wrong arguments; `caisson image` runs this program");
		else if (image_store_open(&store, a.store, &err) == 0)
			answer = commands[k].run(&store, &a, &err);
	}
	image_store_close(&store);
	if (answer &&
	    (json_dumpf(answer, stdout, JSON_COMPACT) < 0 || putchar('\n') == EOF || fflush(stdout) != 0)) {
		cai_fail(&err, 0, "cannot write the answer");
		json_decref(answer);
		answer = NULL;
	}
	if (!answer)
		fprintf(stderr, "caisson: %s\n", err.text[0] ? err.text : "it failed");
	json_decref(answer);
	return answer ? 0 : FAILED;
}
