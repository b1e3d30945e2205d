/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `caisson image ...`. What only looks into the store or removes from it is done here; what unpacks is done
 * by caisson-image.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/image_helper.h"
#include "cli/json.h"
#include "cli/words.h"
#include "image/store.h"

#define MAX_CONFIG (1u << 20) /* bytes of a sandbox's configuration */

void help_image(void)
{
	puts("usage: caisson image COMMAND [FLAGS] [ARGUMENTS]\n\n"
	     "  import PATH [NAME]   make an image of an OCI layout, a docker save archive, a root tar or a "
	     "directory\n"
	     "  bootstrap debian[:SUITE] [NAME] [--packages A,B]\n"
	     "                       make a Debian image with mmdebstrap\n"
	     "  ls                   list images\n"
	     "  inspect REF...       print all that is known of images, as JSON\n"
	     "  rm REF...            remove names, and images with their last name\n"
	     "  prune                remove images that have no name and no sandbox, and what interrupted "
	     "pulls "
	     "left\n"
	     "  export REF FILE      write an image to FILE, or - for standard output\n\n"
	     "  --format F   export: oci, an archive that import, docker load and podman load take (for - "
	     "and names "
	     "in .tar);\n"
	     "               tar, the root file system; erofs, the same as EROFS (else)\n"
	     "  --json       print JSON\n"
	     "  -q, --quiet  print ids only\n"
	     "  -f, --force  rm: also images that sandboxes were made from; those cannot be started again\n\n"
	     "REF is a name or at least six digits of an image's id.");
}

enum { O_JSON, O_QUIET, O_HELP, O_FORCE, O_PACKAGES, O_FORMAT };
const struct cli_option options_image[] = {
    {"json", 0, OPT_FLAG, O_JSON},
    {"quiet", 'q', OPT_FLAG, O_QUIET},
    {"help", 'h', OPT_FLAG, O_HELP},
    {"force", 'f', OPT_FLAG, O_FORCE},
    {"packages", 0, OPT_VALUE, O_PACKAGES},
    {"format", 0, OPT_VALUE, O_FORMAT},
    {NULL, 0, 0, 0},
};

struct image_args {
	bool flag[4];
	const char *packages, *format;
	struct words w;
	struct image_store store;
};

static int set(void *ctx, int id, const char *value, struct cai_error *err)
{
	struct image_args *a = ctx;
	if (id == O_PACKAGES)
		a->packages = value;
	else if (id == O_FORMAT)
		a->format = value;
	else
		a->flag[id] = true;
	return 0;
}

static int made(json_t *o, const struct image_args *a)
{
	if (a->flag[O_JSON])
		return cli_print_json(o);
	const char *id = json_string_value(json_object_get(o, "id")),
		   *tag = json_string_value(json_object_get(o, "tag"));
	if (!a->flag[O_QUIET] && tag)
		fprintf(stderr, "named %s\n", image_ref_familiar(tag));
	puts(id ? id : "");
	json_decref(o);
	return 0;
}

static int do_import(struct image_args *a, struct cai_error *err)
{
	const char *words[] = {"import", "--", a->w.v[0], a->w.n > 1 ? a->w.v[1] : NULL, NULL};
	json_t *o = image_helper(words, err);
	return o ? made(o, a) : -1;
}

static int do_bootstrap(struct image_args *a, struct cai_error *err)
{
	const char *words[8] = {"bootstrap"};
	int n = 1;
	if (a->packages) {
		words[n++] = "--packages";
		words[n++] = a->packages;
	}
	words[n++] = "--";
	words[n++] = a->w.v[0];
	if (a->w.n > 1)
		words[n++] = a->w.v[1];
	json_t *o = image_helper(words, err);
	return o ? made(o, a) : -1;
}

static void print_size(json_int_t n)
{
	if (n >= 1000000000)
		printf("%8.1f GB", (double)n / 1e9);
	else
		printf("%8.1f MB", (double)n / 1e6);
}

static void print_age(json_int_t since)
{
	long long s = (long long)time(NULL) - since;
	char text[32];
	if (s < 120)
		snprintf(text, sizeof(text), "%lld s ago", s < 0 ? 0 : s);
	else if (s < 7200)
		snprintf(text, sizeof(text), "%lld min ago", s / 60);
	else if (s < 172800)
		snprintf(text, sizeof(text), "%lld h ago", s / 3600);
	else
		snprintf(text, sizeof(text), "%lld days ago", s / 86400);
	printf("  %s\n", text);
}

static int do_ls(struct image_args *a, struct cai_error *err)
{
	json_t *list = image_store_list(&a->store, err), *o, *t;
	size_t k, j;
	if (!list)
		return -1;
	if (a->flag[O_JSON])
		return cli_print_json(list);
	if (!a->flag[O_QUIET])
		printf("%-40s %-14s %11s  %s\n", "NAME", "ID", "SIZE", "IMPORTED");
	json_array_foreach(list, k, o)
	{
		const char *id = json_string_value(json_object_get(o, "id"));
		json_t *tags = json_object_get(o, "tags");
		if (a->flag[O_QUIET]) {
			puts(id);
			continue;
		}
		for (j = 0; j < json_array_size(tags) || j == 0; j++) {
			t = json_array_get(tags, j);
			printf("%-40s %-14.12s ", t ? image_ref_familiar(json_string_value(t)) : "<none>",
			       id + 7);
			print_size(json_integer_value(json_object_get(o, "size")));
			print_age(json_integer_value(json_object_get(o, "imported")));
		}
	}
	json_decref(list);
	return 0;
}

static int do_inspect(struct image_args *a, struct cai_error *err)
{
	json_t *all = json_array();
	for (int k = 0; k < a->w.n; k++) {
		json_t *o = image_store_resolve(&a->store, a->w.v[k], err);
		json_t *meta =
		    o ? image_store_meta(&a->store, json_string_value(json_object_get(o, "id")), err) : NULL;
		if (!meta) {
			json_decref(o);
			json_decref(all);
			return -1;
		}
		json_object_update_missing(o, meta);
		json_object_del(o, "version");
		json_decref(meta);
		json_array_append_new(all, o);
	}
	return cli_print_json(all);
}

/* How many sandboxes were made from an image: those whose configuration (sandbox/store.h) names it. */
static unsigned count_sandboxes(void *ctx, const char *id)
{
	const struct image_args *a = ctx;
	unsigned n = 0;
	int fd = openat(a->store.dir, "../sandboxes", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; d && (e = readdir(d));) {
		char path[300];
		cleanup_free char *text = malloc(MAX_CONFIG);
		snprintf(path, sizeof(path), "%s/config.json", e->d_name);
		cleanup_close int file = e->d_name[0] == '.' || !text
					     ? -1
					     : openat(dirfd(d), path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		ssize_t got = file < 0 ? -1 : file_read_full(file, text, MAX_CONFIG);
		json_t *o = got > 0 ? json_loadb(text, (size_t)got, 0, NULL) : NULL;
		const char *of = json_string_value(json_object_get(o, "image_id"));
		n += of && !strcmp(of, id);
		json_decref(o);
	}
	return n;
}

static int do_rm(struct image_args *a, struct cai_error *err)
{
	struct image_users users = {.count = count_sandboxes, .ctx = a};
	int status = 0;
	json_t *all = json_array(), *v;
	size_t j;
	for (int k = 0; k < a->w.n; k++) {
		json_t *o = image_store_remove(&a->store, a->w.v[k], a->flag[O_FORCE] ? NULL : &users, err);
		if (!o) { /* the others are still removed, as with rm(1) */
			cli_say("%s", err->text);
			status = CLI_EXIT_USAGE;
			continue;
		}
		if (!a->flag[O_JSON] && !a->flag[O_QUIET]) {
			json_array_foreach(json_object_get(o, "untagged"), j, v)
			    printf("untagged %s\n", image_ref_familiar(json_string_value(v)));
			json_array_foreach(json_object_get(o, "deleted"), j, v)
			    printf("deleted %s\n", json_string_value(v));
		}
		json_array_append_new(all, o);
	}
	if (a->flag[O_JSON])
		return cli_print_json(all) || status ? CLI_EXIT_USAGE : 0;
	json_decref(all);
	return status;
}

static int do_prune(struct image_args *a, struct cai_error *err)
{
	struct image_users users = {.count = count_sandboxes, .ctx = a};
	json_t *o = image_store_prune(&a->store, &users, err), *v;
	size_t j;
	if (!o)
		return -1;
	if (a->flag[O_JSON])
		return cli_print_json(o);
	json_array_foreach(json_object_get(o, "deleted"), j, v) printf("deleted %s\n", json_string_value(v));
	printf("freed");
	print_size(json_integer_value(json_object_get(o, "freed")));
	putchar('\n');
	json_decref(o);
	return 0;
}

static int do_export(struct image_args *a, struct cai_error *err)
{
	const char *to = a->w.v[1], *format = a->format;
	size_t n = strlen(to);
	if (!format)
		format = !strcmp(to, "-") || (n > 4 && !strcmp(to + n - 4, ".tar")) ? "oci" : "erofs";
	const char *words[] = {"export", "--", format, a->w.v[0], to, NULL};
	if (!strcmp(to, "-"))
		return image_helper_stream(words, err);
	json_t *o = image_helper(words, err);
	if (!o)
		return -1;
	if (a->flag[O_JSON])
		return cli_print_json(o);
	json_decref(o);
	return 0;
}

static const struct {
	struct cli_action a;
	int (*run)(struct image_args *a,
		   struct cai_error *err); /* exit status, or -1 with *err ("" when it was told already) */
} commands[] = {
    {{"import", 1, 2, WORD_FILE, WORD_TEXT}, do_import},
    {{"bootstrap", 1, 2, WORD_TEXT, WORD_TEXT}, do_bootstrap},
    {{"ls", 0, 0, WORD_NONE, WORD_NONE}, do_ls},
    {{"list", 0, 0, WORD_NONE, WORD_NONE}, do_ls},
    {{"inspect", 1, 64, WORD_IMAGE, WORD_IMAGE}, do_inspect},
    {{"rm", 1, 64, WORD_IMAGE, WORD_IMAGE}, do_rm},
    {{"prune", 0, 0, WORD_NONE, WORD_NONE}, do_prune},
    {{"export", 2, 2, WORD_IMAGE, WORD_FILE}, do_export},
};

const struct cli_action *action_image(size_t i)
{
	return i < ARRAY_LEN(commands) ? &commands[i].a : NULL;
}

int cmd_image(int argc, char **argv)
{
	struct image_args a = {.store = {.dir = -1}};
	struct cai_error err = {0};
	const char *name = argc > 1 ? argv[1] : NULL;
	if (!name || !strcmp(name, "--help") || !strcmp(name, "-h")) {
		help_image();
		return name ? 0 : CLI_EXIT_USAGE;
	}
	int k = words_action("image", name, action_image);
	if (k < 0)
		return CLI_EXIT_USAGE;
	if (words_parse(argc - 1, argv + 1, options_image, set, &a, &a.w, &err) < 0)
		return words_usage(&err);
	if (a.flag[O_HELP]) {
		help_image();
		return 0;
	}
	if (a.w.n < commands[k].a.min || a.w.n > commands[k].a.max) {
		cli_say("wrong number of arguments for 'caisson image %s'; see caisson image --help", name);
		return CLI_EXIT_USAGE;
	}
	int status = image_store_open(&a.store, NULL, &err) < 0 ? -1 : commands[k].run(&a, &err);
	image_store_close(&a.store);
	if (status < 0 && err.text[0])
		cli_say("%s", err.text);
	return status < 0 ? CLI_EXIT_USAGE : status;
}
