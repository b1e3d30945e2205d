/* SPDX-License-Identifier: Apache-2.0 */
/*
 * container-run: a developer's and the tests' way to start a container with nothing else around the engine. It starts one from a directory
 * or an EROFS file, runs a command through the agent, and ends with the command's status (128 + signal), 125 where the container
 * could not be started. Not installed; it shares no code with the command line that users have.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "container/container.h"
#include "proto/agent.h"

static const char usage[] =
	"usage: container-run (--dir DIR | --image FILE) [--agent FILE] [--id ID] [--upper DIR [--discard]] [--read-only] [--bind SRC:DST[:ro]]...\n"
	"               [--tmpfs DST[:OPTIONS]]... [--memory BYTES] [--cpus N] [--pids N] [--cap-add NAME]... [--cap-drop NAME]...\n"
	"               [--userns auto|never|always] [--unconfined] [--hostname NAME] [--hosts TEXT] [--resolv TEXT] [--rlimit N:SOFT:HARD]...\n"
	"               [--user USER] [--cwd DIR] [--netns PATH] [--info] [--stats] [--time] [--repeat N] [--freeze MS] [--leak FILE]\n"
	"               [--meanwhile FILE] COMMAND...\n"
	"  --agent default $CAISSON_INIT; --info prints what is in force and the pid on standard error; --leak opens FILE without\n"
	"  close-on-exec first, to show that it does not get in; --meanwhile executes FILE in the container again and again\n"
	"  beside the command; --heal ID, --unpack IMAGE:DIR and --remove DIR only call container_heal and so on.\n";

#define MAX_LIST 32

struct options {
	struct container_spec spec;
	struct container_mount mounts[CONTAINER_MAX_MOUNTS];
	struct container_rlimit rlimits[MAX_LIST];
	const char *add[MAX_LIST + 1], *drop[MAX_LIST + 1];
	unsigned n_add, n_drop;
	const char *agent, *user, *cwd;
	const char *meanwhile;
	bool info, stats, time, quiet;
	unsigned repeat, freeze_ms;
	char **argv;
};

static void __attribute__((noreturn)) fail(const char *text)
{
	fprintf(stderr, "container-run: %s\n", text);
	exit(125);
}

static double ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int open_or_fail(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0) {
		perror(path);
		exit(125);
	}
	return fd;
}

static void add_mount(struct options *o, enum container_mount_kind kind, char *arg)
{
	if (o->spec.n_mounts == CONTAINER_MAX_MOUNTS)
		fail("too many mounts");
	struct container_mount *m = &o->mounts[o->spec.n_mounts++];
	m->kind = kind;
	if (kind == CONTAINER_BIND) {
		char *end = strrchr(arg, ':');
		if (end && !strcmp(end, ":ro")) {
			m->readonly = true;
			*end = 0;
		}
		m->source = arg;
		char *colon = strchr(arg, ':');
		if (!colon)
			fail("--bind SRC:DST");
		*colon = 0;
		m->target = colon + 1;
	} else {
		char *colon = strchr(arg, ':');
		if (colon)
			*colon++ = 0;
		m->target = arg;
		m->options = colon;
	}
}

static void parse(struct options *o, int argc, char **argv)
{
	enum { DIR_ = 256, IMAGE, AGENT, ID, UPPER, RO, BIND, TMPFS, MEMORY, CPUS, PIDS, ADD, DROP, USERNS, UNCONFINED, HOSTNAME, HOSTS, RESOLV,
	       RLIMIT, USER, CWD, NETNS, INFO, STATS, TIME, DISCARD, REPEAT, FREEZE, LEAK, HEAL, MEANWHILE, UNPACK, REMOVE };
	static const struct option longs[] = {
		{"dir", 1, 0, DIR_}, {"image", 1, 0, IMAGE}, {"agent", 1, 0, AGENT}, {"id", 1, 0, ID}, {"upper", 1, 0, UPPER},
		{"read-only", 0, 0, RO}, {"bind", 1, 0, BIND}, {"tmpfs", 1, 0, TMPFS}, {"memory", 1, 0, MEMORY}, {"cpus", 1, 0, CPUS},
		{"pids", 1, 0, PIDS}, {"cap-add", 1, 0, ADD}, {"cap-drop", 1, 0, DROP}, {"userns", 1, 0, USERNS}, {"unconfined", 0, 0, UNCONFINED},
		{"hostname", 1, 0, HOSTNAME}, {"hosts", 1, 0, HOSTS}, {"resolv", 1, 0, RESOLV}, {"rlimit", 1, 0, RLIMIT}, {"user", 1, 0, USER},
		{"cwd", 1, 0, CWD}, {"netns", 1, 0, NETNS}, {"info", 0, 0, INFO}, {"stats", 0, 0, STATS}, {"time", 0, 0, TIME}, {"discard", 0, 0, DISCARD},
		{"repeat", 1, 0, REPEAT}, {"freeze", 1, 0, FREEZE}, {"leak", 1, 0, LEAK}, {"heal", 1, 0, HEAL},
		{"meanwhile", 1, 0, MEANWHILE}, {"unpack", 1, 0, UNPACK}, {"remove", 1, 0, REMOVE}, {0},
	};
	struct container_spec *s = &o->spec;
	struct cai_error err;
	for (int k; (k = getopt_long(argc, argv, "+", longs, NULL)) != -1;) {
		switch (k) {
		case DIR_: s->rootfs_dir = optarg; break;
		case IMAGE: s->image_fd = open_or_fail(optarg, O_RDONLY); break;
		case AGENT: o->agent = optarg; break;
		case ID: s->id = optarg; break;
		case UPPER: s->upper_dir = optarg; break;
		case RO: s->read_only = true; break;
		case BIND: add_mount(o, CONTAINER_BIND, optarg); break;
		case TMPFS: add_mount(o, CONTAINER_TMPFS, optarg); break;
		case MEMORY: s->limits.memory = strtoull(optarg, NULL, 0); break;
		case CPUS: s->limits.cpus = atof(optarg); break;
		case PIDS: s->limits.pids = strtoull(optarg, NULL, 0); break;
		case ADD: o->add[o->n_add < MAX_LIST ? o->n_add++ : 0] = optarg; break;
		case DROP: o->drop[o->n_drop < MAX_LIST ? o->n_drop++ : 0] = optarg; break;
		case USERNS:
			s->userns = !strcmp(optarg, "never") ? CONTAINER_USERNS_NEVER : !strcmp(optarg, "always") ? CONTAINER_USERNS_ALWAYS : CONTAINER_USERNS_AUTO;
			break;
		case UNCONFINED: s->seccomp_unconfined = true; break;
		case HOSTNAME: s->hostname = optarg; break;
		case HOSTS: s->hosts = optarg; break;
		case RESOLV: s->resolv_conf = optarg; break;
		case RLIMIT: {
			struct container_rlimit *r = &o->rlimits[s->n_rlimits];
			unsigned long long soft, hard;
			if (s->n_rlimits == MAX_LIST || sscanf(optarg, "%d:%llu:%llu", &r->resource, &soft, &hard) != 3)
				fail("--rlimit N:SOFT:HARD");
			r->soft = soft;
			r->hard = hard;
			s->n_rlimits++;
			break;
		}
		case USER: o->user = optarg; break;
		case CWD: o->cwd = optarg; break;
		case NETNS: s->netns_fd = open_or_fail(optarg, O_RDONLY); break;
		case INFO: o->info = true; break;
		case STATS: o->stats = true; break;
		case TIME: o->time = true; break;
		case DISCARD: s->discard = true; break;
		case REPEAT: o->repeat = (unsigned)atoi(optarg); break;
		case FREEZE: o->freeze_ms = (unsigned)atoi(optarg); break;
		case LEAK:
			if (dup(open_or_fail(optarg, O_RDONLY)) < 0) /* without close-on-exec */
				fail("cannot leak");
			break;
		case MEANWHILE: o->meanwhile = optarg; break;
		case HEAL:
			if (container_heal(optarg, 0, 0, &err) < 0)
				fail(err.text);
			exit(0);
		case UNPACK: {
			char *colon = strchr(optarg, ':');
			if (!colon)
				fail("--unpack IMAGE:DIR");
			*colon = 0;
			if (container_unpack(open_or_fail(optarg, O_RDONLY), colon + 1, &err) < 0)
				fail(err.text);
			exit(0);
		}
		case REMOVE:
			if (container_remove_tree(optarg, &err) < 0)
				fail(err.text);
			exit(0);
		default: fputs(usage, stderr); exit(125);
		}
	}
	o->argv = argv + optind;
	if (!o->argv[0] || !o->agent) {
		fputs(usage, stderr);
		exit(125);
	}
	s->mounts = o->mounts;
	s->rlimits = o->rlimits;
	s->cap_add = o->add;
	s->cap_drop = o->drop;
}

static int put(int fd, struct buf *b)
{
	int r = b->failed ? -1 : file_write_full(fd, b->p, b->len);
	buf_free(b);
	return r;
}

static unsigned get(int fd, uint8_t **body, uint32_t *len)
{
	uint8_t raw[AGENT_HEADER_SIZE];
	struct agent_header h;
	struct cai_error err;
	*body = NULL;
	if (file_read_full(fd, raw, sizeof(raw)) != (ssize_t)sizeof(raw))
		return 0;
	if (agent_get_header(raw, &h, &err) < 0)
		fail(err.text);
	*body = malloc(h.len + 1);
	*len = h.len;
	if (!*body || file_read_full(fd, *body, h.len) != (ssize_t)h.len)
		fail("the agent's frame ended early");
	return h.type;
}

/* Runs the command; its status, or -1 when the agent went away. */
static int command(struct options *o, int fd, double *started)
{
	char *env[] = {NULL};
	struct agent_start m = {.argv = o->argv, .env = env, .cwd = (char *)(uintptr_t)(o->cwd ? o->cwd : ""), .user = (char *)(uintptr_t)(o->user ? o->user : "")};
	struct buf b = {0};
	agent_put_setup(&b, &(struct agent_setup){.hostname = (char[]){""}});
	agent_put_start(&b, &m);
	if (put(fd, &b) < 0)
		return -1;
	for (;;) {
		uint8_t *body;
		uint32_t len;
		unsigned type = get(fd, &body, &len);
		cleanup_free uint8_t *owned = body;
		if (type == AGENT_STDOUT || type == AGENT_STDERR) {
			if (!o->quiet)
				file_write_full(type == AGENT_STDOUT ? 1 : 2, body, len);
		} else if (type == AGENT_STARTED) {
			*started = ms();
		} else if (type == AGENT_EXIT) {
			struct agent_exit e;
			if (agent_get_exit(body, len, &e, NULL) < 0)
				return -1;
			return e.signal ? 128 + (int)e.signal : (int)e.status;
		} else if (type == AGENT_ERROR) {
			struct agent_error e = {.code = 0};
			if (agent_get_error(body, len, &e, NULL) == 0 && !o->quiet)
				fprintf(stderr, "container-run: agent: %s\n", e.text);
			int status = e.code == AGENT_E_NOT_FOUND ? 127 : 126;
			agent_error_free(&e);
			return status;
		} else if (!type) {
			return -1;
		}
	}
}

static int connect_agent(const struct sockaddr_un *sa)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1; /* the agent has gone away */
}

/* A process that starts o->meanwhile in the container until it is killed. */
static pid_t start_meanwhile(const struct options *o, const struct sockaddr_un *sa)
{
	pid_t pid = o->meanwhile ? fork() : -1;
	if (pid != 0)
		return pid;
	char *argv[] = {(char *)(uintptr_t)o->meanwhile, NULL};
	struct options again = *o;
	again.argv = argv;
	again.quiet = true;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		double unused;
		int fd = connect_agent(sa);
		if (fd < 0)
			_exit(0);
		command(&again, fd, &unused);
		close(fd);
	}
}

static void show_stats(const struct container *c)
{
	struct cgroup_stats s;
	struct cai_error err;
	if (container_stats(c, &s, &err) < 0)
		fail(err.text);
	fprintf(stderr, "stats: have=%x memory=%llu peak=%llu limit=%llu oom_kills=%llu cpu_ns=%llu pids=%llu pids_limit=%llu\n", s.have,
		(unsigned long long)s.memory, (unsigned long long)s.memory_peak, (unsigned long long)s.memory_limit, (unsigned long long)s.oom_kills,
		(unsigned long long)s.cpu_ns, (unsigned long long)s.pids, (unsigned long long)s.pids_limit);
}

static int freeze(const struct options *o, const struct container *c, struct cai_error *err)
{
	if (container_freeze(c, err) < 0)
		return -1;
	usleep(o->freeze_ms * 1000);
	return container_thaw(c, err);
}

static int run(struct options *o, unsigned turn)
{
	struct container c;
	struct cai_error err = {.text = ""};
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char id[64];
	double t[6];
	t[0] = ms();
	if (o->spec.id)
		snprintf(id, sizeof(id), "%s", o->spec.id);
	else
		snprintf(id, sizeof(id), "test-%d-%u", (int)getpid(), turn);
	struct container_spec s = o->spec;
	s.id = id;
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/container-run.%d.sock", (int)getpid());
	unlink(sa.sun_path);
	s.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s.listen_fd < 0 || bind(s.listen_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(s.listen_fd, 16) < 0)
		fail("cannot listen");
	t[1] = ms();
	if (container_start(&s, &c, &err) < 0) {
		unlink(sa.sun_path);
		fail(err.text);
	}
	t[2] = ms();
	if (o->info)
		fprintf(stderr, "info: pid=%d userns=%d uid_base=%u landlock=%d seccomp=%d note=%s\n", c.pid, c.userns, c.uid_base, c.landlock, c.seccomp, c.note);
	close(s.listen_fd);
	cleanup_close int fd = connect_agent(&sa);
	pid_t other = start_meanwhile(o, &sa);
	if (o->freeze_ms && freeze(o, &c, &err) < 0) {
		container_destroy(&c, NULL);
		unlink(sa.sun_path);
		fail(err.text);
	}
	t[3] = t[2];
	int status = fd < 0 ? -1 : command(o, fd, &t[3]);
	t[4] = ms();
	unlink(sa.sun_path);
	if (other > 0) {
		kill(other, SIGKILL);
		waitpid(other, NULL, 0);
	}
	if (o->stats)
		show_stats(&c);
	if (container_destroy(&c, &err) < 0)
		fail(err.text);
	t[5] = ms();
	if (o->time)
		fprintf(stderr, "time: start %.2f  command started %.2f  ended %.2f  destroyed %.2f  all %.2f ms\n", t[2] - t[1], t[3] - t[2], t[4] - t[3],
			t[5] - t[4], t[5] - t[0]);
	if (status < 0)
		fprintf(stderr, "container-run: the agent went away\n");
	return status < 0 ? 125 : status;
}

int main(int argc, char **argv)
{
	struct options o = {.agent = getenv("CAISSON_INIT"), .repeat = 1};
	o.spec.image_fd = o.spec.netns_fd = -1;
	parse(&o, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	o.spec.agent_fd = open_or_fail(o.agent, O_RDONLY);
	int status = 0;
	for (unsigned i = 0; i < o.repeat; i++)
		status = run(&o, i);
	return status;
}
