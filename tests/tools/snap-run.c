/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snap-run: makes a snapshot of a booted Linux guest and restores it, again and again, running a program in each copy; for tests and for
 * measuring.
 *
 *   snap-run build DIR --kernel F --initrd F --cmdline FILE [--disk F[:ro]]... [--empty]... [--cpus N] [-m MB] [--setup DEV] [--warm CMD]...
 *   snap-run build DIR --from DIR [--disk F[:ro]]... [--empty]... [--net]... [--attach F] [--setup DEV] [--warm CMD]... [-- PREPARE...]
 *   snap-run run DIR [--disk F[:ro]]... [--empty | --empty-rw]... [--net]... [-n N] [--expect TEXT] [--setup DEV] [--attach F] [--no-code] [--verify] [--times] [--stats] -- CMD...
 *   snap-run chain DIR --from DIR | --kernel F ... [-n N] [--setup DEV] [--disk F[:ro]]... -- CMD...
 *
 * build boots, waits for the agent, with --setup mounts the root from DEV, runs each --warm command in it, and writes DIR/state, DIR/memory
 * and DIR/code. With --from it restores instead of booting; with --settle it waits until the guest has nothing left to do. PREPARE is run as a function of the agent, before all others: "prepare /dev/vda erofs".
 * --attach puts F into the first slot, --upper a copy of F into the second, for the writable layer; --upper-copy that is the
 * template's, DIR/upper, a copy of which is there from the beginning; --quiet leaves out the interrupt of the new generation id; --net is a network that is not connected. run restores N copies one after the other, and in each one runs CMD, whose output must be TEXT. --times prints medians
 * and the 99th percentile, in microseconds since the start of the monitor's process; cpu is what it took of the host's CPUs, by all of its threads. Exit status 0 when all went well.
 *
 * chain starts CMD, which goes on for itself and writes to the console, and takes N snapshots at random moments, each but the first an incremental
 * one on the one before: DIR/0, DIR/1, ... Then it restores each of them and lets it run for a moment; what the console says is in
 * DIR/console and DIR/0/console and so on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proto/agent.h"
#include "proto/control.h"
#include "proto/snapshot.h"

enum { T_CONFIGURED, T_STARTED, T_READY, T_CONNECTED, T_HELLO, T_PROCESS, T_OUTPUT, T_EXIT, T_GONE, T_CPU, N_TIMES };
static const char *const time_names[] = {"configured", "started", "ready", "connected", "hello", "process", "output", "exit", "gone", "cpu"};

struct options {
	struct control_config cfg;
	const char *dir, *from, *vmm, *setup, *expect, *attach, *upper, *upper_copy;
	char *warm[16];
	unsigned n_warm, n;
	bool times, no_code, stats, settle;
	char **argv;
};

struct run {
	pid_t pid;
	int control, stream;
	char path[108];
	double t0, t[N_TIMES];
	uint32_t exit_status;
	double kernel; /* of T_CPU, the host kernel's part */
	long faults; /* of the monitor, in the host's page tables */
	struct buf out;
	uint64_t instructions;
	bool show;
};

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fprintf(stderr, "snap-run: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	exit(1);
}

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void mark(struct run *r, unsigned what)
{
	if (!r->t[what])
		r->t[what] = now_us() - r->t0;
}

static int open_in(const char *dir, const char *name, int flags)
{
	char path[4096 + 16];
	snprintf(path, sizeof(path), "%.4080s/%.15s", dir, name);
	return open(path, flags | O_CLOEXEC, 0600);
}

static int listen_on(struct run *r)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(r->path, sizeof(r->path), "/tmp/snap-run.%d.%d", (int)getpid(), r->control);
	strcpy(a.sun_path, r->path);
	unlink(r->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 8) < 0)
		fail("cannot listen: %s", strerror(errno));
	return fd;
}

static void connect_agent(struct run *r)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, r->path);
	r->stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->stream < 0 || connect(r->stream, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail("cannot connect: %s", strerror(errno));
}

static void send_all(int fd, const void *p, size_t n)
{
	const char *from = p;
	while (n) {
		ssize_t k = send(fd, from, n, MSG_NOSIGNAL);
		if (k <= 0)
			fail("cannot send: %s", strerror(errno));
		from += k;
		n -= (size_t)k;
	}
}

static void put_session(struct options *o, struct buf *b, const char *setup, char **argv, uint32_t flags)
{
	static char *const none[] = {NULL};
	static char v4[] = "10.88.0.2/24", v6[] = "fd00:88::2/64", gateway4[] = "10.88.0.1", gateway6[] = "fd00:88::1";
	if (setup) {
		struct agent_setup s = {.hostname = (char[]){"copy"}, .root_dev = (char *)(uintptr_t)setup, .root_fstype = (char[]){"erofs"},
					.root_mode = o->upper || o->upper_copy ? AGENT_ROOT_OVERLAY_DISK : AGENT_ROOT_OVERLAY_TMPFS,
					.upper_dev = (char[]){"/dev/vdb"}, .upper_fstype = (char[]){"ext4"}, .hosts = (char[]){"127.0.0.1\tlocalhost\n10.88.0.2\tcopy\n"},
					.resolv_conf = (char[]){"nameserver 10.88.0.1\n"}, .n_ifaces = o->cfg.n_nets};
		for (unsigned i = 0; i < s.n_ifaces; i++)
			s.iface[i] = (struct agent_iface){.mac = {2, 0, 0, 0, 1, (uint8_t)i}, .n_addrs = 2, .addr = {v4, v6}, .gateway4 = gateway4, .gateway6 = gateway6};
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		s.realtime_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
		if (getrandom(s.entropy, sizeof(s.entropy), 0) != (ssize_t)sizeof(s.entropy))
			fail("no random numbers");
		agent_put_setup(b, &s);
	}
	if (argv)
		agent_put_start(b, &(struct agent_start){.flags = flags, .argv = argv, .env = (char **)(uintptr_t)none});
}

static void spawn_monitor(struct options *o, struct run *r)
{
	int sv[2];
	char *argv[] = {(char[]){"caisson-vmm"}, NULL}, *env[] = {NULL};
	posix_spawn_file_actions_t fa;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		fail("socketpair: %s", strerror(errno));
	r->control = sv[0];
	r->t0 = now_us();
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, sv[1], CONTROL_FD);
	int e = posix_spawn(&r->pid, o->vmm, &fa, NULL, argv, getenv("CAISSON_DEBUG") ? environ : env);
	if (e)
		fail("cannot run %s: %s", o->vmm, strerror(e));
	posix_spawn_file_actions_destroy(&fa);
	close(sv[1]);
}

static void request(int sock, enum control_type type, uint32_t seq)
{
	struct buf b = {0};
	control_put(&b, type, seq);
	control_send(sock, b.p, b.len, NULL, 0);
	buf_free(&b);
}

/* Sends CONFIGURE and, without waiting, START. */
static void begin(struct options *o, struct run *r, int listener)
{
	int fds[CONTROL_MAX_FDS];
	struct buf b = {0};
	o->cfg.fd[CONTROL_FD_VSOCK] = listener;
	unsigned n = control_config_fds(&o->cfg, fds);
	control_put_config(&b, 1, &o->cfg);
	if (b.failed || control_send(r->control, b.p, b.len, fds, n) < 0)
		fail("cannot configure");
	buf_free(&b);
	request(r->control, CONTROL_START, 2);
}

/* One packet from the monitor; its type and sequence. */
static unsigned on_control(struct run *r, uint32_t *seq)
{
	static uint8_t p[CONTROL_MAX_PACKET];
	struct control_header h;
	struct cai_error err;
	unsigned n_fds = 0;
	long n = control_recv(r->control, p, sizeof(p), NULL, &n_fds);
	/* It went without reading START: what it said before comes after this error. */
	if (n < 0 && errno == ECONNRESET)
		n = control_recv(r->control, p, sizeof(p), NULL, &n_fds);
	if (n <= 0)
		fail("the monitor has gone");
	struct buf_reader rd = buf_reader(p, (size_t)n);
	if (control_get_header(&rd, &h, &err) < 0)
		fail("%s", err.text);
	*seq = h.seq;
	if (h.type == CONTROL_ERROR) {
		char *text;
		uint32_t e;
		control_get_error(&rd, &e, &text, &err);
		fail("refused: %s", text);
	}
	if (h.type == CONTROL_ENDED) {
		struct control_ended e;
		control_get_ended(&rd, &e, &err);
		fprintf(stderr, "%s", e.console ? e.console : "");
		fail("the guest ended: %s", e.text);
	}
	if (h.type == CONTROL_STATUS) {
		struct control_status s;
		if (control_get_status(&rd, &s, &err) == 0)
			r->instructions = s.instructions;
		if (r->show)
			printf("instructions %llu, blocks decoded %llu, tlb misses %llu\n", (unsigned long long)s.instructions,
			       (unsigned long long)s.blocks_decoded, (unsigned long long)s.tlb_misses);
	}
	if (h.type == CONTROL_READY)
		mark(r, T_READY);
	if (h.type == CONTROL_OK && h.seq == 1)
		mark(r, T_CONFIGURED);
	if (h.type == CONTROL_OK && h.seq == 2)
		mark(r, T_STARTED);
	return h.type;
}

/* What has come on the stream: a frame's type (0: not whole yet), its body in *body; taken off in. */
static unsigned next_frame(struct buf *in, struct buf *body)
{
	struct agent_header h;
	struct cai_error err;
	if (in->len < AGENT_HEADER_SIZE)
		return 0;
	if (agent_get_header(in->p, &h, &err) < 0)
		fail("%s", err.text);
	if (in->len < AGENT_HEADER_SIZE + h.len)
		return 0;
	body->len = 0;
	buf_put_bytes(body, in->p + AGENT_HEADER_SIZE, h.len);
	memmove(in->p, in->p + AGENT_HEADER_SIZE + h.len, in->len - AGENT_HEADER_SIZE - h.len);
	in->len -= AGENT_HEADER_SIZE + h.len;
	return h.type;
}

/* Runs a session to its end: SETUP if setup, START if argv. */
static void session(struct options *o, struct run *r, const char *setup, char **argv, uint32_t flags)
{
	struct buf b = {0}, in = {0}, body = {0};
	bool line = false, done = false;
	connect_agent(r);
	buf_put_bytes(&b, "CONNECT 1024\n", 13);
	put_session(o, &b, setup, argv, flags);
	send_all(r->stream, b.p, b.len);
	while (!done) {
		struct pollfd p[] = {{.fd = r->control, .events = POLLIN}, {.fd = r->stream, .events = POLLIN}};
		if (poll(p, 2, 30000) <= 0)
			fail("no answer");
		uint32_t seq;
		if (p[0].revents)
			on_control(r, &seq);
		if (!p[1].revents)
			continue;
		char chunk[65536];
		ssize_t n = recv(r->stream, chunk, sizeof(chunk), 0);
		if (n <= 0)
			fail("the session was closed");
		buf_put_bytes(&in, chunk, (size_t)n);
		if (!line) {
			char *nl = memchr(in.p, '\n', in.len);
			if (!nl)
				continue;
			mark(r, T_CONNECTED);
			line = true;
			size_t k = (size_t)(nl + 1 - (char *)in.p);
			memmove(in.p, in.p + k, in.len - k);
			in.len -= k;
		}
		for (unsigned type; !done && (type = next_frame(&in, &body));) {
			struct agent_error e;
			struct agent_exit x;
			switch (type) {
			case AGENT_HELLO:
				mark(r, T_HELLO);
				break;
			case AGENT_OK:
				done = !argv;
				break;
			case AGENT_STARTED:
				mark(r, T_PROCESS);
				done = flags & AGENT_START_DETACH;
				break;
			case AGENT_STDOUT:
			case AGENT_STDERR:
				mark(r, T_OUTPUT);
				buf_put_bytes(&r->out, body.p, body.len);
				break;
			case AGENT_EXIT:
				mark(r, T_EXIT);
				agent_get_exit(body.p, body.len, &x, NULL);
				r->exit_status = x.signal ? 128 + x.signal : x.status;
				done = true;
				break;
			case AGENT_ERROR:
				agent_get_error(body.p, body.len, &e, NULL);
				fail("the agent refused: %s", e.text);
			}
		}
	}
	close(r->stream);
	buf_free(&b);
	buf_free(&in);
	buf_free(&body);
}

static int finish(struct run *r)
{
	int w = 0;
	struct rusage u;
	close(r->control);
	wait4(r->pid, &w, 0, &u);
	mark(r, T_GONE);
	r->t[T_CPU] = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
	r->kernel = (double)u.ru_stime.tv_sec * 1e6 + (double)u.ru_stime.tv_usec;
	r->faults = u.ru_minflt;
	unlink(r->path);
	return w;
}

static void wait_for(struct run *r, enum control_type type, uint32_t seq)
{
	uint32_t got;
	while (on_control(r, &got) != type || (seq && got != seq))
		;
}

static void copy_to(const struct options *o, const char *from, const char *name, char to[4200])
{
	char command[9000];
	snprintf(to, 4200, "%.4000s/%s", o->dir, name);
	snprintf(command, sizeof(command), "cp --sparse=always '%.4000s' '%s'", from, to);
	if (system(command) != 0)
		fail("cannot copy %s", from);
}

static void attach_one(struct run *r, unsigned disk, const char *path, uint32_t flags)
{
	struct buf b = {0};
	int fd = open(path, (flags & CONTROL_DISK_READONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	control_put_attach(&b, 7, &(struct control_attach){.disk = disk, .flags = flags});
	control_send(r->control, b.p, b.len, &fd, 1);
	buf_free(&b);
	close(fd);
}

static void attach(struct options *o, struct run *r)
{
	if (o->attach)
		attach_one(r, 0, o->attach, CONTROL_DISK_READONLY);
	if (o->upper) {
		char copy[4200];
		copy_to(o, o->upper, "upper", copy);
		attach_one(r, 1, copy, 0);
	}
}

/* Waits until the guest has nothing left to do: its end of the session closes at once, but what it frees it gives back two seconds later, and
 * copies made before that would each do it again. */
static void settle(struct options *o, struct run *r)
{
	uint64_t before = 0;
	usleep(300000);
	for (unsigned i = 0; o->settle && i < 6; i++) {
		request(r->control, CONTROL_QUERY, 6);
		wait_for(r, CONTROL_STATUS, 6);
		if (i && r->instructions - before < 100000)
			break;
		before = r->instructions;
		usleep(2500000);
	}
}

static void build(struct options *o)
{
	struct run r = {0};
	spawn_monitor(o, &r);
	int listener = listen_on(&r);
	begin(o, &r, listener);
	attach(o, &r);
	wait_for(&r, CONTROL_READY, 0);
	if (o->argv)
		session(o, &r, NULL, o->argv, AGENT_START_BUILTIN);
	if (r.exit_status || r.out.len)
		fail("the agent's function ended with %u: %.*s", r.exit_status, (int)r.out.len, (char *)r.out.p);
	if (o->setup)
		session(o, &r, o->setup, NULL, 0);
	for (unsigned i = 0; i < o->n_warm; i++) {
		char *argv[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, o->warm[i], NULL};
		session(o, &r, NULL, argv, 0);
		if (r.exit_status)
			fail("the warm-up failed with %u: %.*s", r.exit_status, (int)r.out.len, (char *)r.out.p);
	}
	settle(o, &r);
	const int flags = O_RDWR | O_CREAT | O_TRUNC;
	bool code = o->cfg.accel == CONTROL_ACCEL_SOFT;
	struct control_snapshot s = {.flags = CONTROL_SNAPSHOT_STOP | (code ? CONTROL_SNAPSHOT_CODE : 0)};
	int fds[] = {open_in(o->dir, "state", flags), open_in(o->dir, "memory", flags), open_in(o->dir, "code", flags)};
	if (fds[0] < 0 || fds[1] < 0 || fds[2] < 0)
		fail("cannot write to %s", o->dir);
	struct buf b = {0};
	control_put_snapshot(&b, 5, &s);
	double t = now_us();
	control_send(r.control, b.p, b.len, fds, code ? 3 : 2);
	wait_for(&r, CONTROL_OK, 5);
	printf("snapshot: ready after %.1f ms, written in %.1f ms\n", r.t[T_READY] / 1e3, (now_us() - t) / 1e3);
	buf_free(&b);
	finish(&r);
}

/* The memory files of the snapshot in DIR/k, by the ids in its index. */
static void open_layers(struct options *o, unsigned k)
{
	struct snapshot s, t;
	struct cai_error err;
	char dir[4096];
	snprintf(dir, sizeof(dir), "%s/%u", o->dir, k);
	int fd = open_in(dir, "state", O_RDONLY);
	if (snapshot_read(&s, fd, &err) < 0)
		fail("%s", err.text);
	o->cfg.fd[CONTROL_FD_STATE] = fd;
	fd = open_in(dir, "code", O_RDONLY);
	o->cfg.fd[CONTROL_FD_CODE] = fd;
	for (unsigned i = 0; i < s.memory.n_layers; i++)
		for (unsigned j = 0; j <= k; j++) {
			snprintf(dir, sizeof(dir), "%s/%u", o->dir, j);
			fd = open_in(dir, "state", O_RDONLY);
			if (snapshot_read(&t, fd, &err) < 0)
				fail("%s", err.text);
			close(fd);
			if (!memcmp(t.manifest.id, s.memory.layer[i], SNAPSHOT_ID_BYTES))
				o->cfg.fd[CONTROL_FD_MEMORY + i] = open_in(dir, "memory", O_RDONLY);
			snapshot_free(&t);
		}
	snapshot_free(&s);
}

static void chain(struct options *o)
{
	struct run r = {0};
	char dir[4096];
	uint8_t last[SNAPSHOT_ID_BYTES] = {0};
	const bool soft = o->cfg.accel == CONTROL_ACCEL_SOFT;
	o->cfg.fd[CONTROL_FD_CONSOLE] = open_in(o->dir, "console", O_RDWR | O_CREAT | O_TRUNC);
	int listener = listen_on(&r);
	spawn_monitor(o, &r);
	begin(o, &r, listener);
	wait_for(&r, CONTROL_READY, 0);
	if (o->setup)
		session(o, &r, o->setup, NULL, 0);
	session(o, &r, NULL, o->argv, AGENT_START_DETACH);
	srand((unsigned)getpid());
	for (unsigned k = 0; k < o->n; k++) {
		usleep(1000 + (unsigned)rand() % 60000);
		snprintf(dir, sizeof(dir), "%s/%u", o->dir, k);
		mkdir(dir, 0700);
		const int flags = O_RDWR | O_CREAT | O_TRUNC;
		int fds[] = {open_in(dir, "state", flags), open_in(dir, "memory", flags), open_in(dir, "code", flags)};
		/* The longest chain there can be, then a full one again. */
		struct control_snapshot s = {.flags = (k % CONTROL_MAX_LAYERS ? CONTROL_SNAPSHOT_INCREMENTAL : 0) | (soft ? CONTROL_SNAPSHOT_CODE : 0)};
		struct snapshot got;
		struct cai_error err;
		struct buf b = {0};
		memcpy(s.parent, last, sizeof(last));
		control_put_snapshot(&b, 5, &s);
		double t = now_us();
		control_send(r.control, b.p, b.len, fds, soft ? 3 : 2);
		wait_for(&r, CONTROL_OK, 5);
		t = now_us() - t;
		buf_free(&b);
		if (snapshot_read(&got, fds[0], &err) < 0)
			fail("%s", err.text);
		memcpy(last, got.manifest.id, sizeof(last));
		struct stat st;
		fstat(fds[1], &st);
		printf("snapshot %u: %u files, %u extents, %lld KiB, %.1f ms\n", k, got.memory.n_layers, got.memory.n_extents, (long long)st.st_blocks / 2, t / 1e3);
		snapshot_free(&got);
		for (unsigned i = 0; i < 3; i++)
			close(fds[i]);
	}
	usleep(50000);
	finish(&r);
	close(listener);
	for (unsigned k = 0; k < o->n; k++) {
		struct run c = {0};
		for (unsigned i = CONTROL_FD_STATE; i < CONTROL_N_FDS; i++) {
			if (o->cfg.fd[i] >= 0)
				close(o->cfg.fd[i]);
			o->cfg.fd[i] = -1;
		}
		close(o->cfg.fd[CONTROL_FD_CONSOLE]);
		snprintf(dir, sizeof(dir), "%s/%u", o->dir, k);
		o->cfg.fd[CONTROL_FD_CONSOLE] = open_in(dir, "console", O_RDWR | O_CREAT | O_TRUNC);
		o->cfg.fd[CONTROL_FD_KERNEL] = o->cfg.fd[CONTROL_FD_INITRD] = -1;
		o->cfg.vcpus = 0;
		o->cfg.mem_bytes = 0;
		o->cfg.flags = CONTROL_FLAG_VERIFY;
		open_layers(o, k);
		listener = listen_on(&c);
		spawn_monitor(o, &c);
		begin(o, &c, listener);
		wait_for(&c, CONTROL_READY, 0);
		usleep(100000);
		finish(&c);
		close(listener);
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static void one(struct options *o, double *t)
{
	if (o->upper_copy) {
		char copy[4200];
		copy_to(o, o->upper_copy, "upper.run", copy);
		if (o->cfg.disk_fd[1] >= 0)
			close(o->cfg.disk_fd[1]);
		o->cfg.disk_fd[1] = open(copy, O_RDWR | O_CLOEXEC);
		o->cfg.disk[1].flags = 0;
	}
	struct run r = {0};
	r.control = -1;
	int listener = listen_on(&r);
	spawn_monitor(o, &r);
	begin(o, &r, listener);
	attach(o, &r);
	session(o, &r, o->setup, o->argv, 0);
	r.show = o->stats;
	if (o->stats) {
		request(r.control, CONTROL_QUERY, 6);
		wait_for(&r, CONTROL_STATUS, 6);
	}
	int w = finish(&r);
	if (o->stats)
		printf("page faults %ld, CPU %.0f us, %.0f of it the kernel's\n", r.faults, r.t[T_CPU], r.kernel);
	close(listener);
	if (!WIFEXITED(w) || WEXITSTATUS(w))
		fail("the monitor ended with 0x%x", (unsigned)w);
	if (r.exit_status)
		fail("the program ended with %u: %.*s", r.exit_status, (int)r.out.len, (char *)r.out.p);
	if (o->expect && (r.out.len != strlen(o->expect) || memcmp(r.out.p, o->expect, r.out.len)))
		fail("the program said \"%.*s\"", (int)r.out.len, (char *)r.out.p);
	if (!o->expect && !o->times)
		fwrite(r.out.p, 1, r.out.len, stdout);
	buf_free(&r.out);
	memcpy(t, r.t, sizeof(r.t));
}

static void run(struct options *o)
{
	double (*t)[N_TIMES] = calloc(o->n, sizeof(*t)), *column = calloc(o->n, sizeof(*column));
	for (unsigned i = 0; i < o->n; i++)
		one(o, t[i]);
	for (unsigned k = 0; o->times && k < N_TIMES; k++) {
		for (unsigned i = 0; i < o->n; i++)
			column[i] = t[i][k];
		qsort(column, o->n, sizeof(*column), compare);
		printf("%-10s p50 %8.0f  p99 %8.0f  min %8.0f us\n", time_names[k], column[o->n / 2], column[o->n * 99 / 100], column[0]);
	}
	free(t);
	free(column);
}

static void add_disk(struct options *o, char *arg)
{
	unsigned i = o->cfg.n_disks++;
	char *colon = arg ? strrchr(arg, ':') : NULL;
	bool ro = colon && !strcmp(colon, ":ro");
	if (ro)
		*colon = 0;
	o->cfg.disk[i].flags = arg ? (ro ? CONTROL_DISK_READONLY : 0) : CONTROL_DISK_EMPTY | CONTROL_DISK_READONLY;
	snprintf(o->cfg.disk[i].id, sizeof(o->cfg.disk[i].id), "disk%u", i);
	if (arg && (o->cfg.disk_fd[i] = open(arg, (ro ? O_RDONLY : O_RDWR) | O_CLOEXEC)) < 0)
		fail("cannot open %s", arg);
}

int main(int argc, char **argv)
{
	struct options o = {.n = 1, .vmm = getenv("CAISSON_VMM")};
	static char cmdline[CONTROL_MAX_CMDLINE];
	control_config_init(&o.cfg);
	o.cfg.accel = CONTROL_ACCEL_SOFT;
	o.cfg.fd[CONTROL_FD_CONSOLE] = dup(2);
	if (argc < 3 || (strcmp(argv[1], "build") && strcmp(argv[1], "run") && strcmp(argv[1], "chain")))
		fail("usage: see the head of its source");
	bool building = !strcmp(argv[1], "build"), chaining = !strcmp(argv[1], "chain");
	o.dir = argv[2];
	if (building || chaining) {
		o.cfg.vcpus = 1;
		o.cfg.mem_bytes = 512ull << 20;
		strcpy(o.cfg.cpu_model, "v2");
	}
	int i = 3;
	for (; i < argc && strcmp(argv[i], "--"); i++) {
		char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
		bool took = true;
		if (!strcmp(a, "--kernel") && v)
			o.cfg.fd[CONTROL_FD_KERNEL] = open(v, O_RDONLY | O_CLOEXEC);
		else if (!strcmp(a, "--initrd") && v)
			o.cfg.fd[CONTROL_FD_INITRD] = open(v, O_RDONLY | O_CLOEXEC);
		else if (!strcmp(a, "--cmdline") && v) {
			FILE *f = fopen(v, "r");
			if (!f || !fgets(cmdline, sizeof(cmdline), f))
				fail("cannot read %s", v);
			cmdline[strcspn(cmdline, "\n")] = 0;
			o.cfg.cmdline = cmdline;
			fclose(f);
		} else if (!strcmp(a, "--disk") && v)
			add_disk(&o, v);
		else if (!strcmp(a, "--cpus") && v)
			o.cfg.vcpus = (uint32_t)atoi(v);
		else if (!strcmp(a, "-m") && v)
			o.cfg.mem_bytes = strtoull(v, NULL, 0) << 20;
		else if (!strcmp(a, "--setup") && v)
			o.setup = v;
		else if (!strcmp(a, "--attach") && v)
			o.attach = v;
		else if (!strcmp(a, "--upper") && v)
			o.upper = v;
		else if (!strcmp(a, "--upper-copy") && v)
			o.upper_copy = v;
		else if (!strcmp(a, "--from") && v)
			o.from = v;
		else if (!strcmp(a, "--warm") && v && o.n_warm < 16)
			o.warm[o.n_warm++] = v;
		else if (!strcmp(a, "--expect") && v)
			o.expect = v;
		else if (!strcmp(a, "-n") && v)
			o.n = (unsigned)atoi(v);
		else if (!strcmp(a, "--kvm") && (took = false, true)) {
			o.cfg.accel = CONTROL_ACCEL_KVM;
			o.cfg.fd[CONTROL_FD_KVM] = open("/dev/kvm", O_RDWR | O_CLOEXEC);
		} else if (!strcmp(a, "--empty") && (took = false, true))
			add_disk(&o, NULL);
		else if (!strcmp(a, "--empty-rw") && (took = false, true)) {
			add_disk(&o, NULL);
			o.cfg.disk[o.cfg.n_disks - 1].flags = CONTROL_DISK_EMPTY;
		} else if (!strcmp(a, "--net") && (took = false, true))
			o.cfg.net[o.cfg.n_nets++] = (struct control_net){.mac = {2, 0, 0, 0, 0, 1}, .mtu = 1500, .kind = CONTROL_NET_TAP, .n_pairs = 1};
		else if (!strcmp(a, "--times") && (took = false, true))
			o.times = true;
		else if (!strcmp(a, "--verify") && (took = false, true))
			o.cfg.flags |= CONTROL_FLAG_VERIFY_LATE;
		else if (!strcmp(a, "--quiet") && (took = false, true))
			o.cfg.flags |= CONTROL_FLAG_QUIET_GENERATION;
		else if (!strcmp(a, "--settle") && (took = false, true))
			o.settle = true;
		else if (!strcmp(a, "--stats") && (took = false, true))
			o.stats = true;
		else if (!strcmp(a, "--no-code") && (took = false, true))
			o.no_code = true;
		else
			fail("what is %s?", a);
		i += took;
	}
	o.argv = i + 1 < argc ? argv + i + 1 : NULL;
	static char beside[4096];
	ssize_t n = readlink("/proc/self/exe", beside, sizeof(beside) - 64);
	if (!o.vmm && n > 0) {
		beside[n] = 0;
		*strrchr(beside, '/') = 0;
		strcat(beside, "/../../src/vmm/caisson-vmm");
		o.vmm = beside;
	}
	const char *from = building || chaining ? o.from : o.dir;
	if (from) {
		o.cfg.vcpus = 0;
		o.cfg.mem_bytes = 0;
		o.cfg.fd[CONTROL_FD_STATE] = open_in(from, "state", O_RDONLY);
		o.cfg.fd[CONTROL_FD_MEMORY] = open_in(from, "memory", O_RDONLY);
		if (!o.no_code)
			o.cfg.fd[CONTROL_FD_CODE] = open_in(from, "code", O_RDONLY);
	}
	if (building) {
		build(&o);
		return 0;
	}
	if (chaining) {
		chain(&o);
		return 0;
	}
	if (o.cfg.fd[CONTROL_FD_STATE] < 0 || o.cfg.fd[CONTROL_FD_MEMORY] < 0 || !o.argv || !o.n)
		fail("there is no snapshot in %s, or nothing to run", o.dir);
	run(&o);
	return 0;
}
