/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/cli.h"

/* clang-format off */
void help_run(void)
{
	puts("usage: caisson run [FLAGS] -- [COMMAND [ARGUMENT...]]\n"
	     "       caisson run [FLAGS] IMAGE [COMMAND [ARGUMENT...]]   (reserved: images come later)\n"
	     "\n"
	     "Start a microVM with its own Linux kernel and run COMMAND (sh) in it.\n"
	     "\n"
	     "what runs\n"
	     "      --rootfs DIR|FILE    root file system: a directory, or an EROFS or ext4 file;\n"
	     "                           read-only under an overlay in memory (a small busybox image)\n"
	     "  -e, --env NAME[=VALUE]   set an environment variable; NAME alone takes this host's value\n"
	     "  -w, --workdir DIR        working directory (/)\n"
	     "  -u, --user USER[:GROUP]  user by name or number, as the guest knows them (root)\n"
	     "  -i, --interactive        pass standard input on\n"
	     "  -t, --tty                give the command a terminal\n"
	     "      --name NAME          name of the sandbox, also its host name\n"
	     "      --rm                 remove the sandbox when it ends; for now every sandbox is\n"
	     "\n"
	     "the machine\n"
	     "      --cpus N             1 to 32 CPUs (1)\n"
	     "  -m, --memory SIZE        memory, such as 256M or 2G (512M)\n"
	     "      --accel WHICH        auto, kvm or soft: who runs the guest's CPU (auto)\n"
	     "      --boundary LEAST     hardware, hypervisor or software: refuse to run behind less\n"
	     "      --kernel FILE        guest kernel: ELF vmlinux or bzImage (Caisson's own)\n"
	     "      --initrd FILE        initramfs (Caisson's own, with its agent)\n"
	     "      --append WORDS       add to the kernel's command line\n"
	     "      --console            join the serial console instead of running a command through the\n"
	     "                           agent, for kernels and initramfs of others; Ctrl-\\ ends it\n"
	     "      --debug              show the guest's console and Caisson's own steps on standard error\n"
	     "\n"
	     "exit status: the command's own; 128 + n when signal n ended it; 127 command not found,\n"
	     "126 command cannot be executed, 125 Caisson or the machine failed (a sentence says how)");
}
/* clang-format on */

enum {
	O_ROOTFS,
	O_ENV,
	O_WORKDIR,
	O_USER,
	O_INTERACTIVE,
	O_TTY,
	O_NAME,
	O_RM,
	O_CPUS,
	O_MEMORY,
	O_ACCEL,
	O_BOUNDARY,
	O_KERNEL,
	O_INITRD,
	O_APPEND,
	O_CONSOLE,
	O_DEBUG,
	O_HELP,
	O_VOLUME,
	O_PUBLISH,
	O_DETACH,
	O_NETWORK,
	O_ENTRYPOINT,
};

static const struct cli_option options[] = {
    {"rootfs", 0, OPT_VALUE, O_ROOTFS},
    {"env", 'e', OPT_VALUE, O_ENV},
    {"workdir", 'w', OPT_VALUE, O_WORKDIR},
    {"user", 'u', OPT_VALUE, O_USER},
    {"interactive", 'i', OPT_FLAG, O_INTERACTIVE},
    {"tty", 't', OPT_FLAG, O_TTY},
    {"name", 0, OPT_VALUE, O_NAME},
    {"rm", 0, OPT_FLAG, O_RM},
    {"cpus", 0, OPT_VALUE, O_CPUS},
    {"memory", 'm', OPT_VALUE, O_MEMORY},
    {"accel", 0, OPT_VALUE, O_ACCEL},
    {"boundary", 0, OPT_VALUE, O_BOUNDARY},
    {"kernel", 0, OPT_VALUE, O_KERNEL},
    {"initrd", 0, OPT_VALUE, O_INITRD},
    {"append", 0, OPT_VALUE, O_APPEND},
    {"console", 0, OPT_FLAG, O_CONSOLE},
    {"debug", 0, OPT_FLAG, O_DEBUG},
    {"help", 'h', OPT_FLAG, O_HELP},
    /* known from elsewhere, not here yet: they get a sentence of their own */
    {"volume", 'v', OPT_FLAG, O_VOLUME},
    {"publish", 'p', OPT_FLAG, O_PUBLISH},
    {"detach", 'd', OPT_FLAG, O_DETACH},
    {"network", 0, OPT_FLAG, O_NETWORK},
    {"entrypoint", 0, OPT_FLAG, O_ENTRYPOINT},
    {NULL, 0, 0, 0},
};

/* Adds NAME=VALUE, in place of an earlier one of the same name. NAME alone: the host's value, nothing when it
 * has none. */
static int add_env(struct run_args *a, const char *text, struct cai_error *err)
{
	const char *eq = strchr(text, '=');
	size_t n = eq ? (size_t)(eq - text) : strlen(text);
	if (n == 0)
		return cai_fail(err, EINVAL, "-e needs NAME=VALUE or NAME, not '%s'", text);
	char *entry;
	if (eq) {
		entry = strdup(text);
	} else {
		const char *v = getenv(text);
		if (!v)
			return 0;
		if (asprintf(&entry, "%s=%s", text, v) < 0)
			entry = NULL;
	}
	char **env = entry ? realloc(a->env, (a->n_env + 2) * sizeof(*env)) : NULL;
	if (!env) {
		free(entry);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	a->env = env;
	for (size_t i = 0; i < a->n_env; i++)
		if (!strncmp(env[i], entry, n + 1)) {
			free(env[i]);
			env[i] = entry;
			return 0;
		}
	env[a->n_env++] = entry;
	env[a->n_env] = NULL;
	return 0;
}

static int parse_cpus(const char *value, unsigned *out, struct cai_error *err)
{
	char *end;
	errno = 0;
	long v = strtol(value, &end, 10);
	if (errno || end == value || *end)
		return cai_fail(err, EINVAL, "--cpus needs a whole number from 1 to %d, not '%s'",
				SPEC_MAX_CPUS, value);
	if (v < 1 || v > SPEC_MAX_CPUS)
		return cai_fail(err, EINVAL, "a sandbox has 1 to %d CPUs, not %ld", SPEC_MAX_CPUS, v);
	*out = (unsigned)v;
	return 0;
}

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct run_args *a = ctx;
	struct sandbox_spec *s = &a->spec;
	switch (id) {
	case O_ROOTFS:
		s->rootfs = v;
		return *v ? 0 : cai_fail(err, EINVAL, "--rootfs needs a directory or file");
	case O_ENV:
		return add_env(a, v, err);
	case O_WORKDIR:
		s->cwd = v;
		return v[0] == '/'
			   ? 0
			   : cai_fail(err, EINVAL, "-w needs an absolute path in the guest, not '%s'", v);
	case O_USER:
		s->user = v;
		return 0;
	case O_INTERACTIVE:
		s->interactive = true;
		return 0;
	case O_TTY:
		s->tty = true;
		return 0;
	case O_NAME:
		s->name = v;
		return 0;
	case O_RM:
		return 0;
	case O_CPUS:
		return parse_cpus(v, &s->cpus, err);
	case O_MEMORY:
		return parse_size(v, &s->memory, err);
	case O_ACCEL:
		if (!strcmp(v, "auto"))
			s->accel = ACCEL_AUTO;
		else if (!strcmp(v, "kvm"))
			s->accel = ACCEL_KVM;
		else if (!strcmp(v, "soft"))
			s->accel = ACCEL_SOFT;
		else
			return cai_fail(err, EINVAL, "--accel is auto, kvm or soft, not '%s'", v);
		return 0;
	case O_BOUNDARY:
		if (boundary_parse(v, &s->at_least) < 0 || s->at_least == BOUNDARY_NONE)
			return cai_fail(err, EINVAL,
					"--boundary is hardware, hypervisor or software, not '%s'", v);
		return 0;
	case O_KERNEL:
		s->kernel = v;
		return 0;
	case O_INITRD:
		s->initrd = v;
		return 0;
	case O_APPEND:
		s->append = v;
		return 0;
	case O_CONSOLE:
		s->console = true;
		return 0;
	case O_DEBUG:
		s->debug = true;
		log_set_debug(true);
		return 0;
	case O_HELP:
		a->help = true;
		return 0;
	case O_VOLUME:
		return cai_fail(err, EINVAL,
				"-v is not there yet: put files into a directory for --rootfs, or pass them "
				"with 'tar c . | caisson run -i -- ...'");
	case O_PUBLISH:
	case O_NETWORK:
		return cai_fail(
		    err, EINVAL,
		    "networks are not there yet: a sandbox has none for now, so --%s has no meaning",
		    id == O_PUBLISH ? "publish" : "network");
	case O_DETACH:
		return cai_fail(err, EINVAL,
				"-d is not there yet: a sandbox ends with the command that started it; run "
				"it in the background with '&'");
	case O_ENTRYPOINT:
		return cai_fail(
		    err, EINVAL,
		    "--entrypoint belongs to images, which come later; write the command after '--'");
	}
	return 0;
}

int run_args_parse(int argc, char **argv, struct run_args *a, struct cai_error *err)
{
	static char *const shell[] = {(char *)"sh", NULL};
	static char *const none[] = {NULL};
	struct cli_parse p;
	memset(a, 0, sizeof(*a));
	sandbox_spec_init(&a->spec);
	if (cli_options(argc, argv, options, set, a, &p, err) < 0)
		return -1;
	if (a->help)
		return 0;
	if (a->spec.tty &&
	    getenv("TERM")) { /* a program on a terminal must know which; an explicit -e TERM=... wins */
		bool given = false;
		for (size_t i = 0; i < a->n_env; i++)
			given |= !strncmp(a->env[i], "TERM=", 5);
		if (!given && add_env(a, "TERM", err) < 0)
			return -1;
	}
	a->spec.env = a->env ? a->env : none;
	a->spec.argv = argv + p.next;
	bool words = p.next < argc;
	if (a->spec.console)
		return words
			   ? cai_fail(err, EINVAL,
				      "with --console the guest's own init decides what runs; leave out '%s'",
				      argv[p.next])
			   : 0;
	if (!p.dashes && words) {
		if (a->spec.rootfs)
			return cai_fail(err, EINVAL,
					"with --rootfs the command follows '--': caisson run ... -- %s ...",
					argv[p.next]);
		return cai_fail(err, EINVAL,
				"images come later, so '%s' cannot be run yet; use the built-in image "
				"(caisson run -- CMD) or a root directory (caisson run --rootfs DIR -- CMD)",
				argv[p.next]);
	}
	if (!words) {
		if (!p.dashes && !(a->spec.interactive && a->spec.tty))
			return cai_fail(
			    err, EINVAL,
			    "nothing to run: write the command after '--', as in 'caisson run -- uname -a'");
		a->spec.argv = shell;
	} else if (!argv[p.next][0]) {
		return cai_fail(err, EINVAL, "the command after '--' is empty");
	}
	return 0;
}

void run_args_free(struct run_args *a)
{
	for (size_t i = 0; i < a->n_env; i++)
		free(a->env[i]);
	free(a->env);
	a->env = NULL;
	a->n_env = 0;
}
