/* SPDX-License-Identifier: Apache-2.0 */
/* `caisson template ...`: saved machines that microVMs are restored from. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/run_options.h"
#include "cli/words.h"
#include "sandbox/sandbox.h"
#include "sandbox/template.h"

void help_template(void)
{
	puts("usage: caisson template COMMAND [FLAGS] [ARGUMENTS]\n\n"
	     "A microVM does not boot: it is restored from a saved machine, which is made when the first one like it is started, and made\n"
	     "anew when Caisson, its kernel or the host's boot changes. To make one ahead, or with a program already in memory:\n\n"
	     "  build [IMAGE]    make the template of an image (of the built-in one) anew\n"
	     "  ls               list templates\n"
	     "  inspect NAME...  print all that is known of templates, as JSON\n"
	     "  rm NAME...       remove templates; what runs is not concerned\n\n"
	     "      --warm CMD   with build: a command for the image's shell, run first, so that what it reads is in memory\n"
	     "      --cpus N     with build: of the machine (1)\n"
	     "  -m, --memory N   with build: of the machine (512M)\n"
	     "      --network none|NAME  with build: as sandboxes are to have it\n"
	     "      --json       print JSON\n"
	     "  -q, --quiet      print names only");
}

enum { O_JSON, O_QUIET, O_HELP, O_WARM, O_CPUS, O_MEMORY, O_NETWORK };
const struct cli_option options_template[] = {
	{"json", 0, OPT_FLAG, O_JSON},		    {"quiet", 'q', OPT_FLAG, O_QUIET},
	{"help", 'h', OPT_FLAG, O_HELP},	    {"warm", 0, WORD_TEXT, O_WARM},
	{"cpus", 0, WORD_TEXT, O_CPUS},  {"memory", 'm', WORD_TEXT, O_MEMORY},
	{"network", 0, WORD_NETWORK, O_NETWORK}, {NULL, 0, 0, 0},
};

struct template_args {
	bool flag[3];
	const char *warm, *cpus, *memory, *network;
	struct words w;
	struct store store;
};

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct template_args *a = ctx;
	switch (id) {
	case O_WARM:
		a->warm = v;
		break;
	case O_CPUS:
		a->cpus = v;
		break;
	case O_MEMORY:
		a->memory = v;
		break;
	case O_NETWORK:
		a->network = v;
		break;
	default:
		a->flag[id] = true;
	}
	return 0;
}

/* The machine is what `caisson create` with these flags would have; the command in it does not matter. */
static int do_build(struct template_args *a, struct cai_error *err)
{
	char *argv[12] = {(char *)"create"}, *warm[] = {(char *)"/bin/sh", (char *)"-c", (char *)(uintptr_t)a->warm, NULL};
	const struct {
		const char *flag, *value;
	} passed[] = {{"--cpus", a->cpus}, {"--memory", a->memory}, {"--network", a->network}};
	int argc = 1;
	for (size_t i = 0; i < ARRAY_LEN(passed); i++)
		if (passed[i].value) {
			argv[argc++] = (char *)(uintptr_t)passed[i].flag;
			argv[argc++] = (char *)(uintptr_t)passed[i].value;
		}
	argv[argc++] = (char *)(uintptr_t)(a->w.n > 1 ? a->w.v[1] : "--");
	argv[argc++] = (char *)"true";
	struct run_args r;
	struct sandbox_plan p;
	int status = -1;
	if (run_args_parse("create", argc, argv, &r, err) == 0 && sandbox_spec_check(&r.spec, err) == 0 && run_args_resolve(&r, err) == 0 &&
	    sandbox_plan_make(&p, &r.spec, err) == 0) {
		status = sandbox_template(&p, a->warm ? warm : NULL, err);
		sandbox_plan_free(&p);
	}
	run_args_free(&r);
	return status;
}

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static int do_ls(struct template_args *a, struct cai_error *err)
{
	json_t *list = template_list(&a->store, err), *o;
	size_t k;
	if (a->flag[O_JSON])
		return cli_print_json(list);
	if (!a->flag[O_QUIET])
		printf("%-33s  %-5s  %-30s  %4s  %8s  %8s  %s\n", "NAME", "LEVEL", "IMAGE", "CPUS", "MEMORY", "ON DISK", "CREATED");
	json_array_foreach(list, k, o)
	{
		if (a->flag[O_QUIET])
			puts(text(o, "name"));
		else
			printf("%-33s  %-5s  %-30s  %4d  %5.0f MB  %5.1f MB  %.19s\n", text(o, "name"), text(o, "level"), text(o, "image"),
			       (int)json_integer_value(json_object_get(o, "cpus")), (double)json_integer_value(json_object_get(o, "memory")) / 1048576,
			       (double)json_integer_value(json_object_get(o, "bytes")) / 1e6, text(o, "created"));
	}
	json_decref(list);
	return 0;
}

static int do_inspect(struct template_args *a, struct cai_error *err)
{
	json_t *list = template_list(&a->store, err), *o, *found = json_array();
	size_t k;
	int missing = 0;
	for (int i = 1; i < a->w.n; i++) {
		size_t before = json_array_size(found);
		json_array_foreach(list, k, o)
		{
			const char *name = text(o, "name"), *dash = strchr(name, '-');
			if (!strncmp(name, a->w.v[i], strlen(a->w.v[i])) || (dash && !strncmp(dash + 1, a->w.v[i], strlen(a->w.v[i]))))
				json_array_append(found, o);
		}
		if (json_array_size(found) == before) {
			cli_say("there is no template '%s'; 'caisson template ls' lists them", a->w.v[i]);
			missing = 1;
		}
	}
	json_decref(list);
	int r = cli_print_json(found);
	return r ? r : missing;
}

static int do_rm(struct template_args *a, struct cai_error *err)
{
	int status = 0;
	for (int i = 1; i < a->w.n; i++) {
		if (template_remove(&a->store, a->w.v[i], err) == 0) {
			puts(a->w.v[i]);
			continue;
		}
		cli_say("%s", err->text);
		err->text[0] = 0;
		status = 1;
	}
	return status;
}

static const struct {
	struct cli_action a;
	int (*run)(struct template_args *a, struct cai_error *err); /* exit status, or -1 with *err */
} commands[] = {
	{{"build", 0, 1, WORD_IMAGE, WORD_NONE}, do_build},
	{{"ls", 0, 0, WORD_NONE, WORD_NONE}, do_ls},
	{{"inspect", 1, 64, WORD_TEMPLATE, WORD_TEMPLATE}, do_inspect},
	{{"rm", 1, 64, WORD_TEMPLATE, WORD_TEMPLATE}, do_rm},
};

const struct cli_action *action_template(size_t i)
{
	return i < ARRAY_LEN(commands) ? &commands[i].a : NULL;
}

int cmd_template(int argc, char **argv)
{
	struct template_args a = {0};
	struct cai_error err = {0};
	if (words_parse(argc, argv, options_template, set, &a, &a.w, &err) < 0)
		return words_usage(&err);
	const char *name = a.w.n ? a.w.v[0] : NULL;
	if (a.flag[O_HELP] || !name) {
		help_template();
		return name || a.flag[O_HELP] ? 0 : CLI_EXIT_USAGE;
	}
	int k = words_action("template", name, action_template);
	if (k < 0)
		return CLI_EXIT_USAGE;
	if (a.w.n - 1 < commands[k].a.min || a.w.n - 1 > commands[k].a.max) {
		cli_say("wrong number of arguments for 'caisson template %s'; see caisson template --help", name);
		return CLI_EXIT_USAGE;
	}
	if (store_open(&a.store, &err) < 0)
		return words_usage(&err);
	int status = commands[k].run(&a, &err);
	store_close(&a.store);
	if (status < 0 && err.text[0])
		cli_say("%s", err.text);
	return status < 0 ? CLI_EXIT_USAGE : status;
}
