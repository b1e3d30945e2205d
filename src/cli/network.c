/* SPDX-License-Identifier: Apache-2.0 */
/* `caisson network ...`: named networks, whose members reach each other by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/words.h"
#include "net/networks.h"
#include "sandbox/paths.h"

void help_network(void)
{
	puts("usage: caisson network COMMAND [FLAGS] [NAME...]\n\n"
	     "  create NAME      make a network; sandboxes join it with 'caisson run --network NAME'\n"
	     "  ls               list networks\n"
	     "  inspect NAME...  print all that is known of networks and their members, as JSON\n"
	     "  rm NAME...       remove networks that have no members\n\n"
	     "      --internal   with create: members reach each other and nothing else\n"
	     "      --json       print JSON\n"
	     "  -q, --quiet      print names only\n\n"
	     "Members of a network reach each other by the names and host names of their sandboxes. Without "
	     "--network a\n"
	     "sandbox has a network of its own; with --network none it has none.");
}

enum { O_JSON, O_QUIET, O_HELP, O_INTERNAL };
const struct cli_option options_network[] = {
    {"json", 0, OPT_FLAG, O_JSON},
    {"quiet", 'q', OPT_FLAG, O_QUIET},
    {"help", 'h', OPT_FLAG, O_HELP},
    {"internal", 0, OPT_FLAG, O_INTERNAL},
    {NULL, 0, 0, 0},
};

struct network_args {
	bool flag[4];
	struct words w;
	int root;
};

static int set(void *ctx, int id, const char *value, struct cai_error *err)
{
	((struct network_args *)ctx)->flag[id] = true;
	return 0;
}

static json_t *describe(const struct network *net, bool members, struct cai_error *err)
{
	json_t *o = json_pack("{s:s,s:s,s:b,s:I}", "name", net->name, "id", net->id, "internal",
			      net->internal, "created", (json_int_t)net->created);
	struct network_member *list;
	size_t n;
	if (!members)
		return o;
	if (network_members(net, &list, &n, err) < 0) {
		json_decref(o);
		return NULL;
	}
	json_t *a = json_array();
	for (size_t k = 0; k < n; k++)
		json_array_append_new(a,
				      json_pack("{s:s,s:s,s:s,s:s}", "id", list[k].id, "name", list[k].name,
						"address4", list[k].addr4, "address6", list[k].addr6));
	free(list);
	json_object_set_new(o, "members", a);
	return o;
}

static int do_create(struct network_args *a, struct cai_error *err)
{
	struct network net;
	if (network_create(a->root, a->w.v[0], a->flag[O_INTERNAL], &net, err) < 0)
		return -1;
	if (a->flag[O_JSON])
		return cli_print_json(describe(&net, false, err));
	puts(net.name);
	return 0;
}

static int do_ls(struct network_args *a, struct cai_error *err)
{
	cleanup_free struct network *list = NULL;
	size_t n;
	if (network_list(a->root, &list, &n, err) < 0)
		return -1;
	if (a->flag[O_JSON]) {
		json_t *all = json_array();
		for (size_t k = 0; k < n; k++)
			json_array_append_new(all, describe(&list[k], false, err));
		return cli_print_json(all);
	}
	if (!a->flag[O_QUIET])
		printf("%-32s %-14s %-9s %s\n", "NAME", "ID", "INTERNAL", "MEMBERS");
	for (size_t k = 0; k < n; k++) {
		struct network_member *members = NULL;
		size_t count = 0;
		if (a->flag[O_QUIET]) {
			puts(list[k].name);
			continue;
		}
		if (network_members(&list[k], &members, &count, err) < 0)
			return -1;
		free(members);
		printf("%-32s %-14.12s %-9s %zu\n", list[k].name, list[k].id, list[k].internal ? "yes" : "no",
		       count);
	}
	return 0;
}

static int do_inspect(struct network_args *a, struct cai_error *err)
{
	json_t *all = json_array();
	for (int k = 0; k < a->w.n; k++) {
		struct network net;
		json_t *o =
		    network_load(a->root, a->w.v[k], &net, err) < 0 ? NULL : describe(&net, true, err);
		if (!o) {
			json_decref(all);
			return -1;
		}
		json_array_append_new(all, o);
	}
	return cli_print_json(all);
}

static int do_rm(struct network_args *a, struct cai_error *err)
{
	int status = 0;
	for (int k = 0; k < a->w.n; k++) {
		if (network_remove(a->root, a->w.v[k], err) == 0) {
			puts(a->w.v[k]);
			continue;
		}
		cli_say("%s", err->text); /* the others are still removed, as with rm(1) */
		status = CLI_EXIT_USAGE;
	}
	return status;
}

static const struct {
	struct cli_action a;
	int (*run)(struct network_args *a, struct cai_error *err); /* exit status, or -1 with *err */
} commands[] = {
    {{"create", 1, 1, WORD_TEXT, WORD_NONE}, do_create},
    {{"ls", 0, 0, WORD_NONE, WORD_NONE}, do_ls},
    {{"list", 0, 0, WORD_NONE, WORD_NONE}, do_ls},
    {{"inspect", 1, 64, WORD_OWN_NETWORK, WORD_OWN_NETWORK}, do_inspect},
    {{"rm", 1, 64, WORD_OWN_NETWORK, WORD_OWN_NETWORK}, do_rm},
};

const struct cli_action *action_network(size_t i)
{
	return i < ARRAY_LEN(commands) ? &commands[i].a : NULL;
}

int cmd_network(int argc, char **argv)
{
	struct network_args a = {.root = -1};
	struct cai_error err = {0};
	cleanup_free char *path = NULL;
	const char *name = argc > 1 ? argv[1] : NULL;
	if (!name || !strcmp(name, "--help") || !strcmp(name, "-h")) {
		help_network();
		return name ? 0 : CLI_EXIT_USAGE;
	}
	int k = words_action("network", name, action_network);
	if (k < 0)
		return CLI_EXIT_USAGE;
	if (words_parse(argc - 1, argv + 1, options_network, set, &a, &a.w, &err) < 0)
		return words_usage(&err);
	if (a.flag[O_HELP]) {
		help_network();
		return 0;
	}
	if (a.w.n < commands[k].a.min || a.w.n > commands[k].a.max) {
		cli_say("wrong number of arguments for 'caisson network %s'; see caisson network --help",
			name);
		return CLI_EXIT_USAGE;
	}
	if (a.flag[O_INTERNAL] && commands[k].run != do_create) {
		cli_say("--internal goes with 'caisson network create'");
		return CLI_EXIT_USAGE;
	}
	cleanup_close int root = paths_root(&path, &err);
	a.root = root;
	int status = root < 0 ? -1 : commands[k].run(&a, &err);
	if (status < 0)
		cli_say("%s", err.text);
	return status < 0 ? CLI_EXIT_USAGE : status;
}
