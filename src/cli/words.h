/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands on existing sandboxes share: their words and flags, the store, and one loop over the sandboxes named. */
#ifndef CLI_WORDS_H
#define CLI_WORDS_H

#include "cli/cli.h"
#include "sandbox/state.h"

#define CLI_MAX_WORDS 1024

struct words {
	const char *v[CLI_MAX_WORDS + 1]; /* ends with NULL */
	int n;
};

/* Flags may stand before and behind the words. 0, or -1 with *err. */
int words_parse(int argc, char **argv, const struct cli_option *opts,
		int (*set)(void *ctx, int id, const char *value, struct cai_error *err), void *ctx, struct words *w, struct cai_error *err);

/* The index of the action called name among those of a command, as in `caisson image ls`; -1 when there is none, which has been said. */
int words_action(const char *command, const char *name, const struct cli_action *(*action)(size_t i));

/* A set() for commands whose flags are all FLAGs with ids below 32: ctx is a uint32_t of bits. */
int words_set_bits(void *ctx, int id, const char *value, struct cai_error *err);

/*
 * Calls fn for each sandbox that w names, healed and open; prints what it says went wrong and goes on. Returns 0, or 1 when one failed
 * (docker's status), or 125 when the store cannot be opened.
 */
int words_each(const struct words *w, int (*fn)(void *ctx, struct store *s, struct sandbox_view *v, struct cai_error *err), void *ctx);

/* Prints the sentence and returns the status for wrong usage. */
int words_usage(const struct cai_error *err);

#endif
