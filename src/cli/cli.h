/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands share: their table, options, messages. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CLI_EXIT_USAGE                                                                                       \
	125 /* as for every failure of Caisson itself, so that a program's own status stays recognisable */

/* What a word of the command line is, a flag's value or an argument: it decides what completion offers (complete.c). */
enum cli_word {
	WORD_NONE,	  /* none: a flag takes no value, a command no (further) argument */
	WORD_TEXT,	  /* what only the user knows */
	WORD_PROGRAM,	  /* the words of a program in a sandbox; no flag of ours stands among or behind them */
	WORD_FILE,
	WORD_DIR,
	WORD_COPY,	  /* SANDBOX:PATH, or a file of this host */
	WORD_SANDBOX,	  /* any */
	WORD_RUNNING,	  /* or paused */
	WORD_PAUSED,
	WORD_ENDED,	  /* or never started */
	WORD_IMAGE,
	WORD_NETWORK,	  /* a named one, or "none" */
	WORD_OWN_NETWORK, /* a named one */
	WORD_TEMPLATE,
	WORD_SIGNAL,
	WORD_ENGINE,
	WORD_TRUST,
	WORD_BOUNDARY,
	WORD_ACCEL,
	WORD_PULL,
	WORD_FILTER,	  /* of ps */
	WORD_CHECKPOINT,
	WORD_COMMAND,	  /* of caisson itself */
};

/* A command of a command, as in `caisson image ls`. */
struct cli_action {
	const char *name;
	int min, max; /* arguments */
	enum cli_word first, rest;
};

struct cli_option;
struct cli_command {
	const char *name, *summary;
	int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit status */
	void (*help)(void);
	const struct cli_option *options; /* NULL: none */
	enum cli_word first, rest;	  /* its arguments, where it has no actions */
	const struct cli_action *(*action)(size_t i); /* the i-th, or NULL; NULL: it has none */
};
extern const struct cli_command cli_commands[]; /* ends with a NULL name */

int cmd_run(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_start(int argc, char **argv);
int cmd_restart(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_unpause(int argc, char **argv);
int cmd_wait(int argc, char **argv);
int cmd_rm(int argc, char **argv);
int cmd_prune(int argc, char **argv);
int cmd_ps(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_port(int argc, char **argv);
int cmd_logs(int argc, char **argv);
int cmd_exec(int argc, char **argv);
int cmd_cp(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_stats(int argc, char **argv);
int cmd_update(int argc, char **argv);
int cmd_rename(int argc, char **argv);
int cmd_events(int argc, char **argv);
int cmd_pull(int argc, char **argv);
int cmd_image(int argc, char **argv);
int cmd_network(int argc, char **argv);
int cmd_checkpoint(int argc, char **argv);
int cmd_restore(int argc, char **argv);
int cmd_fork(int argc, char **argv);
int cmd_suspend(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_rollback(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_version(int argc, char **argv);
void help_run(void);
void help_create(void);
void help_start(void);
void help_restart(void);
void help_stop(void);
void help_kill(void);
void help_pause(void);
void help_unpause(void);
void help_wait(void);
void help_rm(void);
void help_prune(void);
void help_ps(void);
void help_inspect(void);
void help_port(void);
void help_logs(void);
void help_exec(void);
void help_cp(void);
void help_top(void);
void help_stats(void);
void help_update(void);
void help_rename(void);
void help_events(void);
void help_pull(void);
void help_image(void);
void help_network(void);
void help_checkpoint(void);
void help_restore(void);
void help_fork(void);
void help_suspend(void);
void help_resume(void);
void help_rollback(void);
void help_template(void);
void help_doctor(void);
void help_version(void);

/* Replaces what could drive a terminal: parts of our sentences come from the guest. */
void cli_defuse(char *text, size_t n);
/* One line on stderr: "caisson: TEXT", defused. */
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * Options. `--name value`, `--name=value`, `-n value`, `-nvalue`, and short flags without value together
 * (-it). Parsing stops at the first word that is no option, and after "--".
 */
enum { OPT_FLAG = WORD_NONE, OPT_VALUE = WORD_TEXT };
struct cli_option {
	const char *name; /* long, without dashes */
	char letter;	  /* short, or 0 */
	int kind; /* OPT_FLAG; else what its value is, an enum cli_word */
	int id; /* what the callback is told */
};
struct cli_parse {
	int next;    /* index of the first argument that is no option */
	bool dashes; /* "--" ended the options */
};
extern const struct cli_option options_run[], options_start[], options_stop[], options_kill[], options_help[], options_rm[], options_prune[], options_ps[], options_json[],
	options_logs[], options_exec[], options_cp[], options_stats[], options_update[], options_events[], options_pull[], options_image[],
	options_network[], options_template[], options_checkpoint[], options_restore[], options_fork[], options_saved[], options_doctor[], options_version[];
const struct cli_action *action_image(size_t i);
const struct cli_action *action_network(size_t i);
const struct cli_action *action_template(size_t i);
extern const char *const ps_filter_keys[]; /* ends with NULL */

/* `caisson __complete WORD...`: prints what the last WORD may become. */
int cmd_complete(int argc, char **argv);

/* Calls set(ctx, id, value) for each option (value NULL for flags); it returns 0, or -1 with *err. -1 with
 * *err on anything unknown, with the nearest name suggested. */
int cli_options(int argc, char **argv, const struct cli_option *opts,
		int (*set)(void *ctx, int id, const char *value, struct cai_error *err), void *ctx,
		struct cli_parse *out, struct cai_error *err);

/* The candidate closest to word, or NULL when none is close enough to be meant. */
const char *cli_nearest(const char *word, const char *const *candidates, size_t n);

/* A time as users write it, "2026-01-02T03:04:05Z" or "10m" (ago), into CLOCK_REALTIME ns. */
int cli_parse_time(const char *text, int64_t *ns, struct cai_error *err);

#endif
