/* SPDX-License-Identifier: Apache-2.0 */
/* Printing a JSON object, the same way in every command. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"

/* Prints o (taken over; NULL means that memory ran out) and a newline. Returns the exit status. */
static inline int cli_print_json(json_t *o)
{
	int r = o ? json_dumpf(o, stdout, JSON_INDENT(2)) : -1;
	json_decref(o);
	if (r < 0 || putchar('\n') == EOF) {
		cli_say("cannot print the JSON");
		return CLI_EXIT_USAGE;
	}
	return 0;
}

#endif
