/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `caisson run` and `caisson create`, parsed into a sandbox spec. */
#ifndef CLI_RUN_OPTIONS_H
#define CLI_RUN_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/image_helper.h"
#include "sandbox/spec.h"

/* A list of texts that ends with NULL once run_args_finish has run. */
struct text_list {
	char **v; /* owned, as are its strings */
	size_t n;
};

struct run_args {
	struct sandbox_spec spec; /* points into argv and into what follows */
	struct text_list env, labels, volumes, tmpfs, publish, dns, add_host, paths;
	const char *entrypoint, *user, *cwd; /* NULL: not given */
	char *const *words;		     /* the command's words; NULL-terminated */
	bool have_memory, publish_all;
	enum image_when pull;
	bool quiet, help;
	const char *cidfile;
	/* what the image said, and what came of it */
	struct image_run_config image;
	struct image_run_plan plan;
};

/* command: "run" or "create". 0, or -1 with one sentence. Free with run_args_free in either case. */
int run_args_parse(const char *command, int argc, char **argv, struct run_args *a, struct cai_error *err);
/* Finds the image, pulling it where it is missing, and applies docker's rules of overriding. 0, or -1: with *err empty, all has been said. */
int run_args_resolve(struct run_args *a, struct cai_error *err);
void run_args_free(struct run_args *a);

/* What --accel and --pull may be, in the order of their enums; end with NULL. */
extern const char *const accel_choices[], *const pull_choices[];

/* "1.5" into thousandths of a CPU. */
int parse_cpus(const char *text, unsigned *milli, struct cai_error *err);

#endif
