/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm-run: a developer's way to run a guest on caisson-vmm with nothing else around it. The serial console is standard output (and
 * with -i standard input); how the guest ended is told on standard error and by the exit status:
 *
 *   0 powered off   10 + n: CONTROL_END_n (12 reset, 13 panic, 14 triple fault, 15 stopped, 16 accelerator lost, 17 jail,
 *   18 internal)   2 refused configuration or usage   3 the monitor died without a word   4 --timeout passed
 *
 * Not installed; it shares no code with the command line that users have.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "proto/control.h"
#include "virtio/net_tap.h"

static const char usage[] =
	"usage: vmm-run [--accel soft|kvm] [--cpus N] [-m MB] --kernel F [--initrd F] [--disk F[:ro]]... [--append STR]\n"
	"               [--net tap:NAME[,QUEUES]|stream:PATH[,mtu]]... [--fs TAG=DIR[:ro]]...\n"
	"               [--cmdline STR] [--vsock PATH] [--listen PATH] [--code-cache KB] [--stats] [--pause MS] [--mmio] [--timeout S] [-i] [--probe NAME]\n"
	"               [--vmm PATH]\n"
	"  --net tap:NAME makes a tap with all offloads, or opens it; --net stream:PATH connects to passt's socket;\n"
	"  --fs shares a directory, with $CAISSON_FS or the caisson-fs beside this build;\n"
	"  --mmio names the virtio devices on the command line, for kernels without ACPI (with it they are found by themselves);\n"
	"  --pause pauses and resumes the guest again and again, MS milliseconds each;\n"
	"  --append adds to the default command line, --cmdline replaces it; --vsock listens there for \"CONNECT port\";\n"
	"  --stats asks for the monitor's figures at the end of each second and when the agent is ready; -i gives it standard\n"
	"  input as the console's; --probe tries a forbidden call. The monitor is $CAISSON_VMM, or beside this build.\n";

struct options {
	struct control_config cfg;
	const char *vmm, *append;
	bool stats;
	int timeout, pause_ms;
	bool started, mmio;
	char cmdline[CONTROL_MAX_CMDLINE];
};

static void __attribute__((noreturn)) fail(const char *what, const char *on)
{
	fprintf(stderr, "vmm-run: %s%s%s%s%s\n", what, on ? " " : "", on ? on : "", errno ? ": " : "", errno ? strerror(errno) : "");
	exit(2);
}

static int open_or_fail(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		fail("cannot open", path);
	return fd;
}

static int listen_or_fail(const char *path, int type)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (strlen(path) >= sizeof(a.sun_path))
		fail("path too long:", path);
	strcpy(a.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 64) < 0)
		fail("cannot listen on", path);
	return fd;
}

static void add_disk(struct options *o, char *arg)
{
	if (o->cfg.n_disks == CONTROL_MAX_DISKS)
		fail("too many disks", NULL);
	unsigned i = o->cfg.n_disks++;
	char *colon = strrchr(arg, ':');
	bool ro = colon && !strcmp(colon, ":ro");
	if (ro)
		*colon = 0;
	o->cfg.disk[i].flags = ro ? CONTROL_DISK_READONLY : 0;
	snprintf(o->cfg.disk[i].id, sizeof(o->cfg.disk[i].id), "disk%u", i);
	o->cfg.disk_fd[i] = open_or_fail(arg, ro ? O_RDONLY : O_RDWR);
}

/* A tap of that name in this network namespace, made if there is none; MAC addresses are 02:ca:15:50:00:01 and following. */
static void open_tap(struct options *o, char *name, unsigned queues)
{
	struct control_net *n = &o->cfg.net[o->cfg.n_nets];
	n->kind = CONTROL_NET_TAP;
	for (; n->n_fds < queues; n->n_fds++) {
		struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (queues > 1 ? IFF_MULTI_QUEUE : 0))};
		struct cai_error err;
		int fd = open_or_fail("/dev/net/tun", O_RDWR);
		snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
		if (ioctl(fd, TUNSETIFF, &ifr) < 0)
			fail("cannot make the tap", name);
		if (net_tap_setup(fd, NET_OFFLOADS, &n->offloads, &err) < 0)
			fail(err.text, NULL);
		o->cfg.net_fd[o->cfg.n_nets][n->n_fds] = fd;
	}
}

static void connect_stream(struct options *o, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail("cannot connect to", path);
	o->cfg.net[o->cfg.n_nets].kind = CONTROL_NET_STREAM;
	o->cfg.net[o->cfg.n_nets].n_fds = 1;
	o->cfg.net_fd[o->cfg.n_nets][0] = fd;
}

static void add_net(struct options *o, char *arg)
{
	if (o->cfg.n_nets == CONTROL_MAX_NETS)
		fail("too many networks", NULL);
	struct control_net *n = &o->cfg.net[o->cfg.n_nets];
	char *comma = strchr(arg, ',');
	unsigned number = comma ? (unsigned)atoi(comma + 1) : 0;
	if (comma)
		*comma = 0;
	memcpy(n->mac, (uint8_t[]){2, 0xca, 0x15, 0x50, 0, (uint8_t)(o->cfg.n_nets + 1)}, 6);
	if (!strncmp(arg, "tap:", 4)) {
		open_tap(o, arg + 4, number > 1 && number <= CONTROL_MAX_NET_FDS ? number : 1);
	} else if (!strncmp(arg, "stream:", 7)) {
		connect_stream(o, arg + 7);
		n->mtu = (uint16_t)number;
	} else {
		fail("not a network:", arg);
	}
	o->cfg.n_nets++;
}

/* A program of this build, unless the environment names another. */
static const char *program(const char *variable, const char *beside)
{
	static char path[2][4096];
	static unsigned turn;
	char *p = path[turn++ % 2];
	ssize_t n = readlink("/proc/self/exe", p, sizeof(path[0]) - 64);
	if (getenv(variable) || n <= 0)
		return getenv(variable);
	p[n] = 0;
	*strrchr(p, '/') = 0;
	return strcat(strcat(p, "/../../src/"), beside);
}

static void add_fs(struct options *o, char *arg)
{
	int sv[2];
	unsigned i = o->cfg.n_fs++;
	char *dir = strchr(arg, '='), *colon = dir ? strrchr(dir, ':') : NULL;
	bool ro = colon && !strcmp(colon, ":ro");
	if (!dir || i == CONTROL_MAX_FS)
		fail("not a shared directory:", arg);
	*dir++ = 0;
	if (ro)
		*colon = 0;
	strncpy(o->cfg.fs[i].tag, arg, sizeof(o->cfg.fs[i].tag));
	int fd = open_or_fail(dir, O_RDONLY | O_DIRECTORY);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		fail("cannot make a socket pair", NULL);
	if (fork() == 0) {
		/* Out of the way of 3 and 4 first. */
		int s = fcntl(sv[1], F_DUPFD, 10), d = fcntl(fd, F_DUPFD, 10);
		dup2(s, 3);
		dup2(d, 4);
		execl(program("CAISSON_FS", "fs/caisson-fs"), "caisson-fs", ro ? "--readonly" : NULL, NULL);
		perror("vmm-run: caisson-fs");
		_exit(2);
	}
	close(sv[1]);
	close(fd);
	o->cfg.fs_fd[i] = sv[0];
}

static void parse(struct options *o, int argc, char **argv)
{
	enum { ACCEL = 256, CPUS, KERNEL, INITRD, DISK, APPEND, CMDLINE, VSOCK, LISTEN, CACHE, STATS, TIMEOUT, PROBE, VMM, PAUSE, MMIO, NET, FS };
	static const struct option longs[] = {
		{"accel", 1, 0, ACCEL},     {"cpus", 1, 0, CPUS},       {"kernel", 1, 0, KERNEL}, {"initrd", 1, 0, INITRD},
		{"disk", 1, 0, DISK},       {"append", 1, 0, APPEND},   {"cmdline", 1, 0, CMDLINE}, {"vsock", 1, 0, VSOCK},
		{"listen", 1, 0, LISTEN},   {"code-cache", 1, 0, CACHE}, {"stats", 0, 0, STATS},   {"timeout", 1, 0, TIMEOUT},
		{"probe", 1, 0, PROBE},     {"vmm", 1, 0, VMM},         {"pause", 1, 0, PAUSE},     {"mmio", 0, 0, MMIO},
		{"net", 1, 0, NET},         {"fs", 1, 0, FS},
		{0},
	};
	struct control_config *c = &o->cfg;
	const char *cmdline = NULL;
	for (int k; (k = getopt_long(argc, argv, "m:i", longs, NULL)) != -1;) {
		errno = 0;
		switch (k) {
		case 'm': c->mem_bytes = strtoull(optarg, NULL, 0) << 20; break;
		case 'i': c->fd[CONTROL_FD_CONSOLE_IN] = 0; break;
		case ACCEL: c->accel = !strcmp(optarg, "kvm") ? CONTROL_ACCEL_KVM : CONTROL_ACCEL_SOFT; break;
		case CPUS: c->vcpus = (uint32_t)strtoul(optarg, NULL, 0); break;
		case KERNEL: c->fd[CONTROL_FD_KERNEL] = open_or_fail(optarg, O_RDONLY); break;
		case INITRD: c->fd[CONTROL_FD_INITRD] = open_or_fail(optarg, O_RDONLY); break;
		case DISK: add_disk(o, optarg); break;
		case APPEND: o->append = optarg; break;
		case CMDLINE: cmdline = optarg; break;
		case VSOCK: c->fd[CONTROL_FD_VSOCK] = listen_or_fail(optarg, SOCK_STREAM); break;
		case LISTEN: c->fd[CONTROL_FD_LISTEN] = listen_or_fail(optarg, SOCK_SEQPACKET); break;
		case CACHE: c->code_cache_bytes = strtoull(optarg, NULL, 0) << 10; break;
		case STATS: o->stats = true; break;
		case TIMEOUT: o->timeout = atoi(optarg); break;
		case PROBE:
			c->flags |= CONTROL_FLAG_SELFTEST_JAIL;
			snprintf(c->jail_probe, sizeof(c->jail_probe), "%s", optarg);
			break;
		case PAUSE: o->pause_ms = atoi(optarg); break;
		case MMIO: o->mmio = true; break;
		case NET: add_net(o, optarg); break;
		case FS: add_fs(o, optarg); break;
		case VMM: o->vmm = optarg; break;
		default: fputs(usage, stderr); exit(2);
		}
	}
	errno = 0;
	if (optind != argc || c->fd[CONTROL_FD_KERNEL] < 0) {
		fputs(usage, stderr);
		exit(2);
	}
	if (c->accel == CONTROL_ACCEL_KVM)
		c->fd[CONTROL_FD_KVM] = open_or_fail("/dev/kvm", O_RDWR);
	int n = snprintf(o->cmdline, sizeof(o->cmdline), "%s", cmdline ? cmdline : "console=ttyS0 panic=-1 tsc=reliable");
	for (unsigned i = 0; o->mmio && i < 3 + c->n_disks + c->n_nets + c->n_fs; i++)
		n += snprintf(o->cmdline + n, sizeof(o->cmdline) - (size_t)n, " virtio_mmio.device=4K@0x%x:%u", 0xd0000000u + i * 0x1000,
			      5 + i);
	if (o->append)
		n += snprintf(o->cmdline + n, sizeof(o->cmdline) - (size_t)n, " %s", o->append);
	if (n >= (int)sizeof(o->cmdline))
		fail("command line too long", NULL);
	c->cmdline = o->cmdline;
}

static pid_t spawn(const char *vmm, int sock)
{
	pid_t pid = fork();
	if (pid < 0)
		fail("cannot fork", NULL);
	if (pid == 0) {
		if (sock == CONTROL_FD)
			fcntl(sock, F_SETFD, 0);
		else
			dup2(sock, CONTROL_FD);
		execl(vmm, "caisson-vmm", NULL);
		fprintf(stderr, "vmm-run: cannot run %s: %s\n", vmm, strerror(errno));
		_exit(2);
	}
	close(sock);
	return pid;
}

static void request(int sock, enum control_type type, uint32_t seq)
{
	struct buf b = {0};
	control_put(&b, type, seq);
	control_send(sock, b.p, b.len, NULL, 0);
	buf_free(&b);
}

static void send_config(int sock, const struct control_config *c)
{
	int fds[CONTROL_MAX_FDS];
	unsigned n = control_config_fds(c, fds);
	struct buf b = {0};
	control_put_config(&b, 1, c);
	if (b.failed || control_send(sock, b.p, b.len, fds, n) < 0)
		fail("cannot send the configuration", NULL);
	buf_free(&b);
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void show_status(const struct control_status *s)
{
	double up = (double)s->uptime_ns / 1e9;
	fprintf(stderr,
		"vmm-run: up %.3f s  %.1f M instructions (%.1f M/s)  at ready %.1f M  blocks %llu  cache %llu KiB  tlb misses %llu  "
		"assists %llu  given back %llu KiB\n",
		up, (double)s->instructions / 1e6, up > 0 ? (double)s->instructions / 1e6 / up : 0, (double)s->instructions_at_ready / 1e6,
		(unsigned long long)s->blocks_decoded, (unsigned long long)s->code_cache_bytes >> 10,
		(unsigned long long)s->tlb_misses, (unsigned long long)s->assists, (unsigned long long)s->balloon_bytes >> 10);
	if (s->net_rx_frames || s->net_tx_frames)
		fprintf(stderr, "vmm-run: net rx %llu frames %llu bytes %llu dropped  tx %llu frames %llu bytes %llu dropped\n",
			(unsigned long long)s->net_rx_frames, (unsigned long long)s->net_rx_bytes, (unsigned long long)s->net_rx_dropped,
			(unsigned long long)s->net_tx_frames, (unsigned long long)s->net_tx_bytes, (unsigned long long)s->net_tx_dropped);
	if (s->fs_requests)
		fprintf(stderr, "vmm-run: shared directories %llu requests, read %llu bytes, written %llu\n",
			(unsigned long long)s->fs_requests, (unsigned long long)s->fs_read_bytes, (unsigned long long)s->fs_written_bytes);
	if (s->disk_reads || s->disk_writes)
		fprintf(stderr, "vmm-run: disks read %llu bytes in %llu requests, written %llu in %llu\n",
			(unsigned long long)s->disk_read_bytes, (unsigned long long)s->disk_reads,
			(unsigned long long)s->disk_written_bytes, (unsigned long long)s->disk_writes);
}

static const char *const ends[] = {"?",	      "powered off",  "reset", "panicked", "triple fault", "stopped", "accelerator lost",
				   "jail",    "internal error"};

/* One packet; returns an exit status, or -1 to go on. */
static int on_packet(struct options *o, int sock, double t0)
{
	static uint8_t p[CONTROL_MAX_PACKET];
	struct cai_error err;
	struct control_header h;
	unsigned n_fds = 0;
	long n = control_recv(sock, p, sizeof(p), NULL, &n_fds);
	if (n <= 0) {
		fprintf(stderr, "vmm-run: the monitor died without a word\n");
		return 3;
	}
	struct buf_reader r = buf_reader(p, (size_t)n);
	if (control_get_header(&r, &h, &err) < 0) {
		fprintf(stderr, "vmm-run: %s\n", err.text);
		return 3;
	}
	if (h.type == CONTROL_ERROR) {
		cleanup_free char *text = NULL;
		uint32_t e;
		control_get_error(&r, &e, &text, &err);
		fprintf(stderr, "vmm-run: refused: %s\n", text ? text : "?");
		return h.seq == 1 ? 2 : -1;
	} else if (h.type == CONTROL_OK && h.seq == 1) {
		if (o->stats)
			fprintf(stderr, "vmm-run: configured after %.1f ms\n", (seconds() - t0) * 1e3);
		request(sock, CONTROL_START, 2);
	} else if (h.type == CONTROL_OK && h.seq == 2) {
		o->started = true;
	} else if (h.type == CONTROL_STATUS) {
		struct control_status s;
		if (control_get_status(&r, &s, &err) == 0)
			show_status(&s);
	} else if (h.type == CONTROL_READY) {
		fprintf(stderr, "vmm-run: agent ready after %.3f s\n", seconds() - t0);
		if (o->stats)
			request(sock, CONTROL_QUERY, 3);
	} else if (h.type == CONTROL_ENDED) {
		struct control_ended e;
		if (control_get_ended(&r, &e, &err) < 0)
			return 3;
		const char *name = e.reason < sizeof(ends) / sizeof(*ends) ? ends[e.reason] : "?";
		fprintf(stderr, "vmm-run: %s: %s (after %.3f s)\n", name, e.text, seconds() - t0);
		int status = e.reason == CONTROL_END_POWEROFF ? 0 : 10 + (int)e.reason;
		control_ended_free(&e);
		return status;
	}
	return -1;
}

static int run(struct options *o, int sock)
{
	double t0 = seconds(), next = t0 + 1, flip = t0 + o->pause_ms / 1e3;
	bool paused = false;
	send_config(sock, &o->cfg);
	for (;;) {
		struct pollfd p = {.fd = sock, .events = POLLIN};
		double now = seconds();
		if (o->timeout && now - t0 > o->timeout) {
			fprintf(stderr, "vmm-run: timeout\n");
			return 4;
		}
		if (o->stats && now >= next) {
			request(sock, CONTROL_QUERY, 3);
			next += 1;
		}
		if (o->pause_ms && o->started && now >= flip) {
			request(sock, paused ? CONTROL_RESUME : CONTROL_PAUSE, 4);
			paused = !paused;
			flip = now + o->pause_ms / 1e3;
		}
		if (poll(&p, 1, o->pause_ms ? 1 : 100) <= 0)
			continue;
		int status = on_packet(o, sock, t0);
		if (status >= 0)
			return status;
	}
}

int main(int argc, char **argv)
{
	struct options o = {.vmm = getenv("CAISSON_VMM")};
	control_config_init(&o.cfg);
	o.cfg.vcpus = 1;
	o.cfg.mem_bytes = 512ull << 20;
	o.cfg.accel = CONTROL_ACCEL_SOFT;
	o.cfg.fd[CONTROL_FD_CONSOLE] = 1;
	strcpy(o.cfg.cpu_model, "v2");
	parse(&o, argc, argv);

	if (!o.vmm)
		o.vmm = program("CAISSON_VMM", "vmm/caisson-vmm");
	int sv[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		fail("cannot make a socket pair", NULL);
	pid_t pid = spawn(o.vmm, sv[1]);
	int status = run(&o, sv[0]);
	close(sv[0]); /* ends a monitor that still runs */
	int w = 0;
	waitpid(pid, &w, 0);
	if (WIFSIGNALED(w))
		fprintf(stderr, "vmm-run: the monitor died of signal %d\n", WTERMSIG(w));
	return status;
}
