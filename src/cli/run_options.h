/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `caisson run`, parsed into a sandbox spec. */
#ifndef CLI_RUN_OPTIONS_H
#define CLI_RUN_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "sandbox/spec.h"

struct run_args {
	struct sandbox_spec spec; /* points into argv and into env below */
	char **env;		  /* owned, as are its strings */
	size_t n_env;
	bool help;
};

/* 0, or -1 with one sentence. Free with run_args_free in either case. */
int run_args_parse(int argc, char **argv, struct run_args *a, struct cai_error *err);
void run_args_free(struct run_args *a);

#endif
