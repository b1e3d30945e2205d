/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "proto/agent.h"
#include "proto/control.h"

void help_version(void)
{
	puts("usage: caisson version [--json]\n\nPrint the version of Caisson and of the protocols its parts "
	     "speak.");
}

enum { O_JSON, O_HELP };
const struct cli_option options_version[] = {
    {"json", 0, OPT_FLAG, O_JSON},
    {"help", 'h', OPT_FLAG, O_HELP},
    {NULL, 0, 0, 0},
};

static int set(void *ctx, int id, const char *value, struct cai_error *err)
{
	((bool *)ctx)[id] = true;
	return 0;
}

int cmd_version(int argc, char **argv)
{
	bool flag[2] = {false};
	struct cli_parse p;
	struct cai_error err;
	if (cli_options(argc, argv, options_version, set, flag, &p, &err) < 0) {
		cli_say("%s", err.text);
		return CLI_EXIT_USAGE;
	}
	if (flag[O_HELP]) {
		help_version();
		return 0;
	}
	if (p.next < argc) {
		cli_say("version takes no argument '%s'", argv[p.next]);
		return CLI_EXIT_USAGE;
	}
	if (!flag[O_JSON]) {
		puts("caisson " CAISSON_VERSION);
		return 0;
	}
	return cli_print_json(json_pack("{s:s,s:i,s:i}", "version", CAISSON_VERSION, "agent_protocol",
					AGENT_VERSION, "control_protocol", CONTROL_VERSION));
}
