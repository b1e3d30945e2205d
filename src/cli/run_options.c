/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/util.h"
#include "cli/cli.h"
#include "net/publish.h"

#define MAX_ENV_FILE (1u << 20)

/* clang-format off */
static void help(const char *command)
{
	printf("usage: caisson %s [FLAGS] IMAGE [COMMAND [ARGUMENT...]]\n"
	       "       caisson %s [FLAGS] -- [COMMAND [ARGUMENT...]]\n\n", command, command);
	fputs(!strcmp(command, "run") ? "Run a command in a new sandbox" : "Make a sandbox without starting it", stdout);
	puts(" of an image, which is pulled when it is missing; without IMAGE, of a\n"
	     "small built-in one.\n"
	     "\n"
	     "the boundary\n"
	     "      --engine WHICH       microvm: its own kernel in a virtual machine (default); container: namespaces\n"
	     "                           of this host's kernel, for code that you trust\n"
	     "      --trust HOW          untrusted (default), hostile or trusted; only trusted code may share the kernel\n"
	     "      --boundary LEAST     hardware, hypervisor, software or namespace: refuse to run behind less\n"
	     "      --accel WHICH        auto, kvm or soft: who runs a microVM's CPU (auto)\n"
	     "\n"
	     "what runs\n"
	     "      --rootfs DIR|FILE    root file system instead of an image: a directory, an EROFS or ext4 file\n"
	     "      --entrypoint CMD     in place of the image's\n"
	     "  -e, --env NAME[=VALUE]   set an environment variable; NAME alone takes this host's value\n"
	     "      --env-file FILE      the same from a file, one a line\n"
	     "  -w, --workdir DIR        working directory\n"
	     "  -u, --user USER[:GROUP]  user by name or number, as the image knows them\n"
	     "  -i, --interactive        pass standard input on\n"
	     "  -t, --tty                give the command a terminal");
	if (!strcmp(command, "run"))
		puts("  -d, --detach             run in the background and print the sandbox's id");
	puts("      --name NAME          name of the sandbox\n"
	     "      --hostname NAME      its host name (its name, or its id)\n"
	     "  -l, --label KEY=VALUE    a label, for ps --filter\n"
	     "      --rm                 remove the sandbox when it ends\n"
	     "      --pull WHEN          missing, always or never (missing)\n"
	     "  -q, --quiet              no progress while it is fetched\n"
	     "      --stop-signal SIG    what `stop` sends first (the image's, or TERM)\n"
	     "      --stop-timeout N     seconds until `stop` kills (10)\n"
	     "      --cidfile FILE       write the id to FILE\n"
	     "\n"
	     "files\n"
	     "  -v, --volume HOST:GUEST[:ro]  share a directory of this host\n"
	     "      --tmpfs GUEST[:OPTIONS]   a file system in memory\n"
	     "      --disk SIZE          of the writable layer (10G; a microVM's)\n"
	     "      --ephemeral          keep the writable layer in memory\n"
	     "      --read-only          no writable layer\n"
	     "\n"
	     "network\n"
	     "  -p, --publish [ADDR:]HOST:GUEST[/udp]  a port of this host for one of the sandbox (on 127.0.0.1)\n"
	     "  -P, --publish-all        each port that the image EXPOSEs, on a free port of 127.0.0.1\n"
	     "      --network none|NAME  no network, or a named one (its own private one)\n"
	     "      --dns ADDR           name server\n"
	     "      --add-host NAME:ADDR a line of /etc/hosts\n"
	     "      --mac ADDR           hardware address\n"
	     "\n"
	     "limits\n"
	     "      --cpus N             CPUs, such as 2 or 0.5 (1)\n"
	     "  -m, --memory SIZE        memory, such as 256M or 2G (a microVM's: 512M; a container's: no limit)\n"
	     "      --pids-limit N       processes of a container (4096)\n"
	     "\n"
	     "the machine of a microVM\n"
	     "      --kernel FILE        guest kernel: ELF vmlinux or bzImage (Caisson's own)\n"
	     "      --initrd FILE        initramfs (Caisson's own, with its agent)\n"
	     "      --append WORDS       add to the kernel's command line\n"
	     "      --console            join the serial console instead of running a command through the\n"
	     "                           agent, for kernels and initramfs of others; Ctrl-\\ ends it\n"
	     "      --cold               boot, even where a saved machine could be restored (see caisson template)\n"
	     "      --debug              show the guest's console and Caisson's own steps on standard error\n"
	     "\n"
	     "exit status: the command's own; 128 + n when signal n ended it; 127 command not found,\n"
	     "126 command cannot be executed, 125 Caisson or the machine failed (a sentence says how)");
}
/* clang-format on */

void help_run(void)
{
	help("run");
}

void help_create(void)
{
	help("create");
}

enum {
	O_ROOTFS, O_ENV, O_ENV_FILE, O_WORKDIR, O_USER, O_INTERACTIVE, O_TTY, O_DETACH, O_NAME, O_HOSTNAME, O_LABEL, O_RM, O_PULL, O_STOP_SIGNAL,
	O_STOP_TIMEOUT, O_CIDFILE, O_ENTRYPOINT, O_ENGINE, O_TRUST, O_BOUNDARY, O_ACCEL, O_VOLUME, O_TMPFS, O_DISK, O_EPHEMERAL, O_READ_ONLY,
	O_PUBLISH, O_PUBLISH_ALL, O_NETWORK, O_DNS, O_ADD_HOST, O_MAC, O_CPUS, O_MEMORY, O_PIDS, O_KERNEL, O_INITRD, O_APPEND, O_CONSOLE, O_COLD, O_DEBUG, O_QUIET, O_HELP,
};

const struct cli_option options_run[] = {
    {"rootfs", 0, WORD_FILE, O_ROOTFS},
    {"env", 'e', OPT_VALUE, O_ENV},
    {"env-file", 0, WORD_FILE, O_ENV_FILE},
    {"workdir", 'w', OPT_VALUE, O_WORKDIR},
    {"user", 'u', OPT_VALUE, O_USER},
    {"interactive", 'i', OPT_FLAG, O_INTERACTIVE},
    {"tty", 't', OPT_FLAG, O_TTY},
    {"detach", 'd', OPT_FLAG, O_DETACH},
    {"name", 0, OPT_VALUE, O_NAME},
    {"hostname", 0, OPT_VALUE, O_HOSTNAME},
    {"label", 'l', OPT_VALUE, O_LABEL},
    {"rm", 0, OPT_FLAG, O_RM},
    {"pull", 0, WORD_PULL, O_PULL},
    {"stop-signal", 0, WORD_SIGNAL, O_STOP_SIGNAL},
    {"stop-timeout", 0, OPT_VALUE, O_STOP_TIMEOUT},
    {"cidfile", 0, WORD_FILE, O_CIDFILE},
    {"entrypoint", 0, OPT_VALUE, O_ENTRYPOINT},
    {"engine", 0, WORD_ENGINE, O_ENGINE},
    {"trust", 0, WORD_TRUST, O_TRUST},
    {"boundary", 0, WORD_BOUNDARY, O_BOUNDARY},
    {"accel", 0, WORD_ACCEL, O_ACCEL},
    {"volume", 'v', WORD_DIR, O_VOLUME},
    {"tmpfs", 0, OPT_VALUE, O_TMPFS},
    {"disk", 0, OPT_VALUE, O_DISK},
    {"ephemeral", 0, OPT_FLAG, O_EPHEMERAL},
    {"read-only", 0, OPT_FLAG, O_READ_ONLY},
    {"publish", 'p', OPT_VALUE, O_PUBLISH},
    {"publish-all", 'P', OPT_FLAG, O_PUBLISH_ALL},
    {"network", 0, WORD_NETWORK, O_NETWORK},
    {"net", 0, WORD_NETWORK, O_NETWORK},
    {"dns", 0, OPT_VALUE, O_DNS},
    {"add-host", 0, OPT_VALUE, O_ADD_HOST},
    {"mac", 0, OPT_VALUE, O_MAC},
    {"cpus", 0, OPT_VALUE, O_CPUS},
    {"memory", 'm', OPT_VALUE, O_MEMORY},
    {"pids-limit", 0, OPT_VALUE, O_PIDS},
    {"kernel", 0, WORD_FILE, O_KERNEL},
    {"initrd", 0, WORD_FILE, O_INITRD},
    {"append", 0, OPT_VALUE, O_APPEND},
    {"console", 0, OPT_FLAG, O_CONSOLE},
    {"cold", 0, OPT_FLAG, O_COLD},
    {"debug", 0, OPT_FLAG, O_DEBUG},
    {"quiet", 'q', OPT_FLAG, O_QUIET},
    {"help", 'h', OPT_FLAG, O_HELP},
    {NULL, 0, 0, 0},
};

static int list_add(struct text_list *l, char *entry, struct cai_error *err)
{
	char **v = entry ? realloc(l->v, (l->n + 2) * sizeof(*v)) : NULL;
	if (!v) {
		free(entry);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	l->v = v;
	l->v[l->n++] = entry;
	l->v[l->n] = NULL;
	return 0;
}

/* A malloc'd path (with what stands behind it, of a volume) that means the same from any directory: the sandbox may be started from another. */
static char *absolute(const char *path)
{
	cleanup_free char *here = *path && *path != '/' ? getcwd(NULL, 0) : NULL;
	char *full;
	if (here)
		return asprintf(&full, "%s/%s", here, path) < 0 ? NULL : full;
	return strdup(path);
}

static int set_path(struct run_args *a, const char **out, const char *path, struct cai_error *err)
{
	if (list_add(&a->paths, absolute(path), err) < 0)
		return -1;
	*out = a->paths.v[a->paths.n - 1];
	return 0;
}

/* NAME=VALUE; or NAME, which becomes this host's value, or stays alone and takes the image's away. */
static int add_env(struct run_args *a, const char *text, struct cai_error *err)
{
	const char *eq = strchr(text, '='), *v = eq ? NULL : getenv(text);
	if (eq == text || !*text)
		return cai_fail(err, EINVAL, "-e needs NAME=VALUE or NAME, not '%s'", text);
	char *entry = NULL;
	if (v ? asprintf(&entry, "%s=%s", text, v) < 0 : !(entry = strdup(text)))
		entry = NULL;
	return list_add(&a->env, entry, err);
}

static int add_env_file(struct run_args *a, const char *path, struct cai_error *err)
{
	cleanup_free char *text = NULL;
	size_t len;
	if (file_read_all(path, MAX_ENV_FILE, &text, &len, err) < 0)
		return cai_wrap(err, "--env-file");
	for (char *line = text, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		line += strspn(line, " \t");
		size_t n = strlen(line);
		if (n && line[n - 1] == '\r')
			line[n - 1] = 0;
		if (*line && *line != '#' && add_env(a, line, err) < 0)
			return cai_wrap(err, "--env-file %s", path);
	}
	return 0;
}

int parse_cpus(const char *value, unsigned *milli, struct cai_error *err)
{
	char *end;
	errno = 0;
	double v = value[0] >= '0' && value[0] <= '9' ? strtod(value, &end) : -1;
	if (value[0] == '-' && strtod(value, &end) < 0 && !*end)
		return cai_fail(err, EINVAL, "a sandbox has 1 to %d CPUs, not %s", SPEC_MAX_CPUS, value);
	if (v < 0 || errno || *end)
		return cai_fail(err, EINVAL, "--cpus needs a number such as 2 or 0.5, not '%s'", value);
	if (v < 0.01 || v > SPEC_MAX_CPUS)
		return cai_fail(err, EINVAL, "a sandbox has 1 to %d CPUs (or a part of one, at least 0.01), not %s", SPEC_MAX_CPUS, value);
	*milli = (unsigned)(v * 1000 + 0.5);
	return 0;
}

static int parse_number(const char *flag, const char *v, unsigned long max, unsigned long *out, struct cai_error *err)
{
	char *end;
	errno = 0;
	*out = strtoul(v, &end, 10);
	if (errno || end == v || *end || v[0] == '-' || *out > max)
		return cai_fail(err, EINVAL, "--%s needs a whole number of at most %lu, not '%s'", flag, max, v);
	return 0;
}

const char *const accel_choices[] = {[ACCEL_AUTO] = "auto", [ACCEL_KVM] = "kvm", [ACCEL_SOFT] = "soft", NULL};
const char *const pull_choices[] = {[IMAGE_PULL_MISSING] = "missing", [IMAGE_PULL_ALWAYS] = "always", [IMAGE_PULL_NEVER] = "never", NULL};

static int choice(const char *const *choices, const char *v)
{
	for (int i = 0; choices[i]; i++)
		if (!strcmp(choices[i], v))
			return i;
	return -1;
}

static int set_accel(struct sandbox_spec *s, const char *v, struct cai_error *err)
{
	int i = choice(accel_choices, v);
	if (i < 0)
		return cai_fail(err, EINVAL, "--accel is auto, kvm or soft, not '%s'", v);
	s->accel = (enum accel_choice)i;
	return 0;
}

static int set_cpus(struct sandbox_spec *s, const char *v, struct cai_error *err)
{
	unsigned milli;
	if (parse_cpus(v, &milli, err) < 0)
		return -1;
	s->cpus = (milli + 999) / 1000;
	s->cpu_milli = milli; /* whole CPUs of a microVM need no quota: see run_args_parse */
	return 0;
}

static int set(void *ctx, int id, const char *v, struct cai_error *err)
{
	struct run_args *a = ctx;
	struct sandbox_spec *s = &a->spec;
	unsigned long n;
	switch (id) {
	case O_ROOTFS:
		return *v ? set_path(a, &s->rootfs, v, err) : cai_fail(err, EINVAL, "--rootfs needs a directory or file");
	case O_ENV:
		return add_env(a, v, err);
	case O_ENV_FILE:
		return add_env_file(a, v, err);
	case O_WORKDIR:
		a->cwd = v;
		return v[0] == '/'
			   ? 0
			   : cai_fail(err, EINVAL, "-w needs an absolute path in the sandbox, not '%s'", v);
	case O_USER:
		a->user = v;
		return 0;
	case O_INTERACTIVE:
		s->interactive = true;
		return 0;
	case O_TTY:
		s->tty = true;
		return 0;
	case O_DETACH:
		s->detached = true;
		return 0;
	case O_NAME:
		s->name = v;
		return 0;
	case O_HOSTNAME:
		s->hostname = v;
		return *v && strlen(v) <= 64 ? 0 : cai_fail(err, EINVAL, "a host name has 1 to 64 bytes");
	case O_LABEL:
		return v[0] && v[0] != '=' ? list_add(&a->labels, strdup(v), err) : cai_fail(err, EINVAL, "a label is KEY or KEY=VALUE, not '%s'", v);
	case O_RM:
		s->remove = true;
		return 0;
	case O_PULL:
		if (choice(pull_choices, v) < 0)
			return cai_fail(err, EINVAL, "--pull is missing, always or never, not '%s'", v);
		a->pull = (enum image_when)choice(pull_choices, v);
		return 0;
	case O_STOP_SIGNAL:
		s->stop_signal = image_signal_number(v);
		return s->stop_signal > 0 ? 0 : cai_fail(err, EINVAL, "'%s' is no signal", v);
	case O_STOP_TIMEOUT:
		if (parse_number("stop-timeout", v, 1000000, &n, err) < 0)
			return -1;
		s->stop_timeout = (unsigned)n;
		return 0;
	case O_CIDFILE:
		a->cidfile = v;
		return 0;
	case O_ENTRYPOINT:
		a->entrypoint = v;
		return 0;
	case O_ENGINE:
		return engine_parse(v, &s->engine) < 0 ? cai_fail(err, EINVAL, "--engine is microvm or container, not '%s'", v) : 0;
	case O_TRUST:
		return trust_parse(v, &s->trust) < 0 ? cai_fail(err, EINVAL, "--trust is untrusted, hostile or trusted, not '%s'", v) : 0;
	case O_BOUNDARY:
		if (boundary_parse(v, &s->at_least) < 0 || s->at_least == BOUNDARY_NONE)
			return cai_fail(err, EINVAL,
					"--boundary is hardware, hypervisor or software (or namespace), not '%s'", v);
		return 0;
	case O_ACCEL:
		return set_accel(s, v, err);
	case O_VOLUME:
		return list_add(&a->volumes, v[0] == '.' ? absolute(v) : strdup(v), err);
	case O_TMPFS:
		return list_add(&a->tmpfs, strdup(v), err);
	case O_DISK:
		return parse_size(v, &s->disk, err);
	case O_EPHEMERAL:
		s->ephemeral = true;
		return 0;
	case O_READ_ONLY:
		s->read_only = true;
		return 0;
	case O_PUBLISH:
		return list_add(&a->publish, strdup(v), err);
	case O_PUBLISH_ALL:
		a->publish_all = true;
		return 0;
	case O_NETWORK:
		s->network = strcmp(v, "private") && strcmp(v, "default") && strcmp(v, "bridge") ? v : NULL;
		return !strcmp(v, "host") ? cai_fail(err, EINVAL, "--network host is not possible: a sandbox never shares this host's network") : 0;
	case O_DNS:
		return net_dns_parse(v, err) < 0 ? -1 : list_add(&a->dns, strdup(v), err);
	case O_ADD_HOST:
		return net_add_host_parse(v, err) < 0 ? -1 : list_add(&a->add_host, strdup(v), err);
	case O_MAC:
		s->mac = v;
		return net_mac_parse(v, (uint8_t[6]){0}, err);
	case O_CPUS:
		return set_cpus(s, v, err);
	case O_MEMORY:
		a->have_memory = true;
		return parse_size(v, &s->memory, err);
	case O_PIDS:
		if (!strcmp(v, "-1"))
			v = "0";
		if (parse_number("pids-limit", v, 4194304, &n, err) < 0)
			return -1;
		s->pids = n;
		return 0;
	case O_KERNEL:
		return set_path(a, &s->kernel, v, err);
	case O_INITRD:
		return set_path(a, &s->initrd, v, err);
	case O_APPEND:
		s->append = v;
		return 0;
	case O_CONSOLE:
		s->console = true;
		return 0;
	case O_COLD:
		s->cold = true;
		return 0;
	case O_DEBUG:
		s->debug = true;
		log_set_debug(true);
		return 0;
	case O_QUIET:
		a->quiet = true;
		return 0;
	case O_HELP:
		a->help = true;
		return 0;
	}
	return 0;
}

static bool has_env(const struct run_args *a, const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < a->env.n; i++)
		if (!strncmp(a->env.v[i], name, n) && (a->env.v[i][n] == '=' || !a->env.v[i][n]))
			return true;
	return false;
}

/* What contradicts itself. */
static int check(const struct run_args *a, struct cai_error *err)
{
	const struct sandbox_spec *s = &a->spec;
	if (s->detached && s->debug)
		return cai_fail(err, EINVAL, "--debug writes to this terminal, so it cannot go with -d");
	if (s->detached && s->console)
		return cai_fail(err, EINVAL, "--console joins this terminal, so it cannot go with -d");
	if (s->ephemeral && s->read_only)
		return cai_fail(err, EINVAL, "--read-only has no writable layer that --ephemeral could keep in memory; leave out one");
	return 0;
}

int run_args_parse(const char *command, int argc, char **argv, struct run_args *a, struct cai_error *err)
{
	static char *const shell[] = {(char *)"sh", NULL};
	struct cli_parse p;
	memset(a, 0, sizeof(*a));
	sandbox_spec_init(&a->spec);
	if (geteuid() == 0) /* others often cannot keep limits, and what was not asked for should not fail */
		a->spec.pids = 4096;
	struct sandbox_spec *s = &a->spec;
	if (cli_options(argc, argv, options_run, set, a, &p, err) < 0)
		return -1;
	if (a->help)
		return 0;
	if (check(a, err) < 0)
		return -1;
	if (s->tty && getenv("TERM") && !has_env(a, "TERM") && add_env(a, "TERM", err) < 0)
		return -1; /* a program on a terminal must know which; an explicit -e TERM=... wins */
	if (s->engine == ENGINE_CONTAINER && !a->have_memory)
		s->memory = 0;
	if (s->engine == ENGINE_MICROVM && s->cpu_milli % 1000 == 0)
		s->cpu_milli = 0;
	s->labels = a->labels.v;
	s->volumes = a->volumes.v;
	s->tmpfs = a->tmpfs.v;
	s->publish = a->publish.v;
	s->dns = a->dns.v;
	s->add_host = a->add_host.v;
	a->words = argv + p.next;
	if (s->console)
		return *a->words ? cai_fail(err, EINVAL, "with --console the guest's own init decides what runs; leave out '%s'", *a->words)
				 : 0;
	if (!p.dashes && *a->words) {
		if (s->rootfs)
			return cai_fail(err, EINVAL,
					"with --rootfs the command follows '--': caisson %s ... -- %s ...",
					command, *a->words);
		s->image = *a->words++;
	}
	if (*a->words && !**a->words)
		return cai_fail(err, EINVAL, "the command%s is empty", p.dashes ? " after '--'" : "");
	if (!s->image && !*a->words && !a->entrypoint) {
		if (!p.dashes && !(s->interactive && s->tty))
			return cai_fail(
			    err, EINVAL,
			    "nothing to run: name an image, or write the command after '--', as in 'caisson run -- uname -a'");
		a->words = shell;
	}
	return 0;
}

/* -P: "PORT/PROTOCOL" is any free port of the host for that one. */
static int publish_exposed(struct run_args *a, struct cai_error *err)
{
	for (unsigned i = 0; a->publish_all && i < a->image.n_ports; i++) {
		const struct image_port *p = &a->image.ports[i];
		char *text;
		for (unsigned port = p->first; port <= p->last; port++)
			if (list_add(&a->publish, asprintf(&text, "%u/%s", port, p->udp ? "udp" : "tcp") < 0 ? NULL : text, err) < 0)
				return -1;
	}
	a->spec.publish = a->publish.v;
	return 0;
}

int run_args_resolve(struct run_args *a, struct cai_error *err)
{
	struct sandbox_spec *s = &a->spec;
	if (s->console)
		return 0;
	if (s->image && image_get(NULL, s->image, a->pull, a->quiet, &a->image, err) < 0)
		return -1;
	struct image_run_request q = {.entrypoint = a->entrypoint,
				      .command = (const char *const *)a->words,
				      .env = (const char *const *)a->env.v,
				      .user = a->user,
				      .workdir = a->cwd};
	if (image_run_plan_make(s->image ? &a->image : NULL, &q, &a->plan, err) < 0)
		return -1;
	s->argv = a->plan.argv;
	s->env = a->plan.env;
	s->user = a->plan.user;
	s->cwd = a->plan.workdir;
	if (!s->image)
		return 0;
	s->image_id = a->image.id;
	s->anon = a->image.volumes;
	if (!s->stop_signal)
		s->stop_signal = a->image.stop_signal;
	for (char **l = a->image.labels; l && *l; l++) {
		size_t n = strcspn(*l, "=");
		bool given = false;
		for (size_t i = 0; i < a->labels.n; i++)
			given |= !strncmp(a->labels.v[i], *l, n) && (a->labels.v[i][n] == '=' || !a->labels.v[i][n]);
		if (!given && list_add(&a->labels, strdup(*l), err) < 0)
			return -1;
	}
	s->labels = a->labels.v;
	return publish_exposed(a, err);
}

static void list_free(struct text_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

void run_args_free(struct run_args *a)
{
	struct text_list *l[] = {&a->env, &a->labels, &a->volumes, &a->tmpfs, &a->publish, &a->dns, &a->add_host, &a->paths};
	for (size_t i = 0; i < ARRAY_LEN(l); i++)
		list_free(l[i]);
	image_run_config_free(&a->image);
	image_run_plan_free(&a->plan);
	memset(a, 0, sizeof(*a));
}
