/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caisson-image: fetches and unpacks images for `caisson`, which runs it and reads its answer.
 *
 *   caisson-image pull REF
 *   caisson-image import PATH [NAME]
 *   caisson-image bootstrap debian[:SUITE] [NAME] [--packages A,B]
 *   caisson-image resolve REF
 *   caisson-image export erofs|tar|oci REF FILE       to "-": standard output, and no answer
 *   caisson-image rootfs DIR OUT                       an EROFS file OUT (must not be there) of DIR
 *   caisson-image tar [--name NAME | --contents] [--follow] [--owner] PATH
 *   caisson-image untar [--from NAME] [--name NAME | --contents] [--owner] DIR
 *
 * Answers one JSON object on standard output and exits 0; on failure one sentence on standard error and
 * status 125. tar has the archive on standard output and no answer; untar reads one from standard input
 * (image/copy.h says what the flags mean). Flags: --store DIR (what stands for $CAISSON_ROOT), --quiet (no
 * progress), --json (accepted; there is no other form).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "image/build.h"
#include "image/copy.h"
#include "image/export.h"

#define FAILED 125

struct args {
	const char *store, *packages, *from, *name, *words[4];
	int n;
	bool quiet, contents, follow, owner;
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

static json_t *do_export(struct image_store *s, const struct args *a, struct cai_error *err)
{
	static const char *const names[] = {
	    [EXPORT_EROFS] = "erofs", [EXPORT_TAR] = "tar", [EXPORT_OCI] = "oci"};
	for (size_t k = 0; k < ARRAY_LEN(names); k++)
		if (!strcmp(a->words[1], names[k]))
			return image_export(s, a->words[2], a->words[3], (enum export_format)k, err);
	cai_fail(err, EINVAL, "'%s' is no format; it must be oci, tar or erofs", a->words[1]);
	return NULL;
}

static json_t *do_rootfs(struct image_store *s, const struct args *a, struct cai_error *err)
{
	return image_rootfs(a->words[1], a->words[2], err);
}

static json_t *do_tar(struct image_store *s, const struct args *a, struct cai_error *err)
{
	struct copy_out_options o = {
	    .name = a->name, .contents = a->contents, .follow = a->follow, .owner = a->owner};
	struct copy_result r;
	return copy_out(a->words[1], &o, STDOUT_FILENO, &r, err) < 0 ? NULL : json_null();
}

static json_t *do_untar(struct image_store *s, const struct args *a, struct cai_error *err)
{
	struct copy_in_options o = {
	    .from = a->from, .name = a->name, .contents = a->contents, .owner = a->owner};
	struct copy_result r;
	if (copy_in(a->words[1], &o, STDIN_FILENO, &r, err) < 0)
		return NULL;
	return json_pack("{s:I,s:I,s:I}", "entries", (json_int_t)r.entries, "bytes", (json_int_t)r.bytes,
			 "left_out", (json_int_t)r.left_out);
}

static const struct {
	const char *name;
	bool store;   /* whether it needs the store */
	int min, max; /* words, the command's own included */
	json_t *(*run)(struct image_store *s, const struct args *a, struct cai_error *err);
} commands[] = {
    {"pull", true, 2, 2, do_pull},
    {"import", true, 2, 3, do_import},
    {"bootstrap", true, 2, 3, do_bootstrap},
    {"resolve", true, 2, 2, do_resolve},
    {"export", true, 4, 4, do_export},
    {"rootfs", false, 3, 3, do_rootfs},
    {"tar", false, 2, 2, do_tar},
    {"untar", false, 2, 2, do_untar},
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
		else if (!dashes && !strcmp(w, "--contents"))
			a->contents = true;
		else if (!dashes && !strcmp(w, "--follow"))
			a->follow = true;
		else if (!dashes && !strcmp(w, "--owner"))
			a->owner = true;
		else if (!dashes && !strcmp(w, "--from") && k + 1 < argc)
			a->from = argv[++k];
		else if (!dashes && !strcmp(w, "--name") && k + 1 < argc)
			a->name = argv[++k];
		else if (!dashes && !strcmp(w, "--store") && k + 1 < argc)
			a->store = argv[++k];
		else if (!dashes && !strcmp(w, "--packages") && k + 1 < argc)
			a->packages = argv[++k];
		else if (!dashes && w[0] == '-' && w[1])
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
		else if (!commands[k].store || image_store_open(&store, a.store, &err) == 0)
			answer = commands[k].run(&store, &a, &err);
	}
	image_store_close(&store);
	if (json_is_null(answer)) /* it has answered in its own way */
		return 0;
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
