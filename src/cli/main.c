/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: `caisson` is a table of commands over the sandbox library. Its start is part of every
 * sandbox's start, so nothing happens here but what makes the process safe: descriptors 0 to 2 exist (else a
 * socket could take the place of stdout), and what was inherited beyond them is not passed on to the programs
 * that are started.
 */
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/cli.h"

static int cmd_help(int argc, char **argv);

static void help_help(void)
{
	puts("usage: caisson help [COMMAND]\n\nSay what Caisson does, or what COMMAND does.");
}

const struct cli_command cli_commands[] = {
    {"run", "run a command in a new sandbox", cmd_run, help_run, options_run, WORD_IMAGE, WORD_PROGRAM, NULL},
    {"create", "make a sandbox without starting it", cmd_create, help_create, options_run, WORD_IMAGE, WORD_PROGRAM, NULL},
    {"start", "start sandboxes that have ended", cmd_start, help_start, options_start, WORD_ENDED, WORD_ENDED, NULL},
    {"restart", "stop sandboxes and start them again", cmd_restart, help_restart, options_stop, WORD_SANDBOX, WORD_SANDBOX, NULL},
    {"stop", "stop sandboxes", cmd_stop, help_stop, options_stop, WORD_RUNNING, WORD_RUNNING, NULL},
    {"kill", "send sandboxes a signal", cmd_kill, help_kill, options_kill, WORD_RUNNING, WORD_RUNNING, NULL},
    {"pause", "stop everything in sandboxes where it is", cmd_pause, help_pause, options_help, WORD_RUNNING, WORD_RUNNING, NULL},
    {"unpause", "let paused sandboxes go on", cmd_unpause, help_unpause, options_help, WORD_PAUSED, WORD_PAUSED, NULL},
    {"wait", "wait for sandboxes to end", cmd_wait, help_wait, options_help, WORD_SANDBOX, WORD_SANDBOX, NULL},
    {"rm", "remove sandboxes", cmd_rm, help_rm, options_rm, WORD_SANDBOX, WORD_SANDBOX, NULL},
    {"prune", "remove all sandboxes that do not run", cmd_prune, help_prune, options_prune, WORD_NONE, WORD_NONE, NULL},
    {"ps", "list sandboxes", cmd_ps, help_ps, options_ps, WORD_NONE, WORD_NONE, NULL},
    {"inspect", "print all that is known of sandboxes", cmd_inspect, help_inspect, options_json, WORD_SANDBOX, WORD_SANDBOX, NULL},
    {"port", "list a sandbox's published ports", cmd_port, help_port, options_json, WORD_RUNNING, WORD_NONE, NULL},
    {"logs", "print what a sandbox's program wrote", cmd_logs, help_logs, options_logs, WORD_SANDBOX, WORD_NONE, NULL},
    {"exec", "run one more command in a sandbox", cmd_exec, help_exec, options_exec, WORD_RUNNING, WORD_PROGRAM, NULL},
    {"cp", "copy files into and out of sandboxes", cmd_cp, help_cp, options_cp, WORD_COPY, WORD_COPY, NULL},
    {"top", "list a sandbox's processes", cmd_top, help_top, options_json, WORD_RUNNING, WORD_NONE, NULL},
    {"stats", "show what sandboxes use", cmd_stats, help_stats, options_stats, WORD_RUNNING, WORD_RUNNING, NULL},
    {"update", "change the limits of sandboxes", cmd_update, help_update, options_update, WORD_SANDBOX, WORD_SANDBOX, NULL},
    {"rename", "give a sandbox another name", cmd_rename, help_rename, options_help, WORD_SANDBOX, WORD_TEXT, NULL},
    {"events", "print what happens to sandboxes", cmd_events, help_events, options_events, WORD_NONE, WORD_NONE, NULL},
    {"pull", "fetch an image from a registry", cmd_pull, help_pull, options_pull, WORD_IMAGE, WORD_NONE, NULL},
    {"image", "import, list, inspect and remove images", cmd_image, help_image, options_image, WORD_NONE, WORD_NONE, action_image},
    {"checkpoint", "save a running microVM with all that is in it", cmd_checkpoint, help_checkpoint, options_checkpoint, WORD_RUNNING, WORD_TEXT, NULL},
    {"restore", "go on with a checkpoint, in a new sandbox", cmd_restore, help_restore, options_restore, WORD_CHECKPOINT, WORD_NONE, NULL},
    {"fork", "copy a running microVM", cmd_fork, help_fork, options_fork, WORD_RUNNING, WORD_NONE, NULL},
    {"suspend", "save running microVMs to disk and end them", cmd_suspend, help_suspend, options_saved, WORD_RUNNING, WORD_RUNNING, NULL},
    {"resume", "let suspended sandboxes go on", cmd_resume, help_resume, options_saved, WORD_ENDED, WORD_ENDED, NULL},
    {"rollback", "let a sandbox go on from a checkpoint of it", cmd_rollback, help_rollback, options_saved, WORD_SANDBOX, WORD_CHECKPOINT, NULL},
    {"template", "make, list and remove saved machines", cmd_template, help_template, options_template, WORD_NONE, WORD_NONE, action_template},
    {"network", "make, list and remove named networks", cmd_network, help_network, options_network, WORD_NONE, WORD_NONE, action_network},
    {"doctor", "say what this host offers, what is missing and how to mend it", cmd_doctor, help_doctor, options_doctor, WORD_NONE, WORD_NONE, NULL},
    {"version", "print the version", cmd_version, help_version, options_version, WORD_NONE, WORD_NONE, NULL},
    {"help", "print this, or the help of a command", cmd_help, help_help, NULL, WORD_COMMAND, WORD_NONE, NULL},
    {NULL, NULL, NULL, NULL, NULL, WORD_NONE, WORD_NONE, NULL},
};

static void usage(FILE *f)
{
	fputs("caisson runs code you do not trust in a microVM with its own Linux kernel, and code you trust in a container.\n\n"
	      "usage: caisson [--root DIR] COMMAND [FLAGS] [ARGUMENTS]\n\ncommands:\n",
	      f);
	for (const struct cli_command *c = cli_commands; c->name; c++)
		fprintf(f, "  %-9s %s\n", c->name, c->summary);
	fputs("\ntry:\n  caisson run -it --rm -- sh\n  caisson run --help\n", f);
}

static const struct cli_command *find(const char *name)
{
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static int unknown_command(const char *name)
{
	const char *names[64];
	size_t n = 0;
	for (const struct cli_command *c = cli_commands; c->name && n < ARRAY_LEN(names); c++)
		names[n++] = c->name;
	const char *near = cli_nearest(name, names, n);
	if (near)
		cli_say("unknown command '%s'; did you mean '%s'?", name, near);
	else
		cli_say("unknown command '%s'; 'caisson help' lists them", name);
	return CLI_EXIT_USAGE;
}

static int cmd_help(int argc, char **argv)
{
	if (argc < 2) {
		usage(stdout);
		return 0;
	}
	const struct cli_command *c = find(argv[1]);
	if (!c)
		return unknown_command(argv[1]);
	c->help();
	return 0;
}

/* A message that cannot be written (a full disk, a closed pipe) is a failure of the command that printed it.
 */
static int finish(int status)
{
	if (fflush(stdout) != 0 && status == 0) {
		cli_say("cannot write to standard output");
		return CLI_EXIT_USAGE;
	}
	return status;
}

int main(int argc, char **argv)
{
	for (int fd; (fd = open("/dev/null", O_RDWR)) >= 0;)
		if (fd > 2) {
			close(fd);
			break;
		}
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	const char *debug = getenv("CAISSON_DEBUG");
	log_set_debug(debug && *debug && strcmp(debug, "0"));

	if (argc < 2) {
		usage(stderr);
		return CLI_EXIT_USAGE;
	}
	if (!strncmp(argv[1], "--root", 6) && (argv[1][6] == '=' || !argv[1][6])) {
		const char *root = argv[1][6] ? argv[1] + 7 : argc > 2 ? argv[2] : NULL;
		int skip = argv[1][6] ? 1 : 2;
		if (!root || root[0] != '/' || setenv("CAISSON_ROOT", root, 1) < 0) {
			cli_say("--root needs the absolute path of a directory");
			return CLI_EXIT_USAGE;
		}
		argc -= skip;
		argv += skip;
		if (argc < 2) {
			usage(stderr);
			return CLI_EXIT_USAGE;
		}
	}
	const char *name = argv[1];
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	else if (!strcmp(name, "--version") || !strcmp(name, "-V"))
		name = "version";
	else if (name[0] == '-') {
		cli_say("unknown flag %s before the command; flags follow it, as in 'caisson run -it -- sh'",
			name);
		return CLI_EXIT_USAGE;
	}
	if (!strcmp(name, "__complete")) /* for shells; not in the table, which is for people */
		return finish(cmd_complete(argc - 1, argv + 1));
	const struct cli_command *c = find(name);
	if (!c)
		return unknown_command(name);
	return finish(c->run(argc - 1, argv + 1));
}
