/* SPDX-License-Identifier: Apache-2.0 */
/* `caisson pull`: caisson-image does it. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/image_helper.h"
#include "cli/json.h"
#include "image/ref.h"

void help_pull(void)
{
	puts("usage: caisson pull [--json] [--quiet] REF\n\n"
	     "Fetch an image from a registry. REF is [REGISTRY/]NAME[:TAG][@DIGEST]; without a registry it "
	     "is\n"
	     "docker.io's. Credentials come from docker's config.json. What was fetched before an "
	     "interruption is\n"
	     "not fetched again.\n\n"
	     "  --json       print a JSON object: id, tag, new, size, entries\n"
	     "  -q, --quiet  print the image's id only, and no progress");
}

enum { O_JSON, O_QUIET, O_HELP };
const struct cli_option options_pull[] = {
    {"json", 0, OPT_FLAG, O_JSON},
    {"quiet", 'q', OPT_FLAG, O_QUIET},
    {"help", 'h', OPT_FLAG, O_HELP},
    {NULL, 0, 0, 0},
};

static int set(void *ctx, int id, const char *value, struct cai_error *err)
{
	((bool *)ctx)[id] = true;
	return 0;
}

int cmd_pull(int argc, char **argv)
{
	bool flag[3] = {false};
	struct cli_parse p;
	struct cai_error err;
	struct image_ref ref;
	if (cli_options(argc, argv, options_pull, set, flag, &p, &err) < 0) {
		cli_say("%s", err.text);
		return CLI_EXIT_USAGE;
	}
	if (flag[O_HELP]) {
		help_pull();
		return 0;
	}
	if (p.next + 1 != argc) {
		cli_say("pull takes one image name, as in 'caisson pull debian:12'");
		return CLI_EXIT_USAGE;
	}
	if (image_ref_parse(argv[p.next], &ref, &err) < 0) {
		cli_say("%s", err.text);
		return CLI_EXIT_USAGE;
	}
	const char *words[] = {"pull", flag[O_QUIET] ? "--quiet" : "--json", "--", argv[p.next], NULL};
	json_t *o = image_helper(words, &err);
	if (!o) {
		if (err.text[0])
			cli_say("%s", err.text);
		return CLI_EXIT_USAGE;
	}
	if (flag[O_JSON])
		return cli_print_json(o);
	const char *id = json_string_value(json_object_get(o, "id"));
	if (!flag[O_QUIET])
		fprintf(stderr, "%s\n",
			json_is_true(json_object_get(o, "new")) ? "image stored" : "image is up to date");
	puts(id ? id : "");
	json_decref(o);
	return 0;
}
