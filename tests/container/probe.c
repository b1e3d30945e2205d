/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an attacker in a container would try, one attempt a subcommand; static, so that it runs in any root. Each prints "NAME: ok" or
 * "NAME: ERRNO" lines for the tests to judge. Some subcommands are the host's half of an attempt.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int say(const char *name, long r)
{
	if (r >= 0)
		printf("%s: ok\n", name);
	else
		printf("%s: %s\n", name, strerrorname_np(errno));
	return r >= 0;
}

/* Each in a child: some end it. */
static void forbidden(const char *name, long nr, long a, long b, long c, long d, long e)
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		long r = syscall(nr, a, b, c, d, e);
		if (r == 0 && (nr == SYS_clone || nr == 435))
			_exit(0); /* the child of a clone that succeeded */
		say(name, r);
		fflush(stdout);
		_exit(0);
	}
	int status;
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("%s: signal %d\n", name, WTERMSIG(status));
}

static int cmd_syscalls(void)
{
	static char three[64];
	long p = (long)(void *)three, path = (long)(void *)"/";
	forbidden("unshare-user", SYS_unshare, CLONE_NEWUSER, 0, 0, 0, 0);
	forbidden("unshare-mount", SYS_unshare, CLONE_NEWNS, 0, 0, 0, 0);
	forbidden("clone-user", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	forbidden("clone-cgroup", SYS_clone, CLONE_NEWCGROUP | SIGCHLD, 0, 0, 0, 0);
	forbidden("clone3", 435, p, 64, 0, 0, 0);
	forbidden("setns", SYS_setns, 0, CLONE_NEWNS, 0, 0, 0);
	forbidden("mount", SYS_mount, path, path, (long)(void *)"tmpfs", 0, 0);
	forbidden("umount2", SYS_umount2, (long)(void *)"/proc/kcore", MNT_DETACH, 0, 0, 0);
	forbidden("pivot_root", SYS_pivot_root, path, path, 0, 0, 0);
	forbidden("fsopen", 430, (long)(void *)"tmpfs", 0, 0, 0, 0);
	forbidden("open_tree", 428, AT_FDCWD, path, 1, 0, 0);
	forbidden("move_mount", 429, 0, p, 0, p, 0);
	forbidden("mount_setattr", 442, -1, p, 0, p, 32);
	forbidden("keyctl", SYS_keyctl, 0, -3, 0, 0, 0);
	forbidden("add_key", SYS_add_key, p, p, p, 0, 0);
	forbidden("bpf", SYS_bpf, 0, p, 64, 0, 0);
	forbidden("perf_event_open", SYS_perf_event_open, p, 0, -1, -1, 0);
	forbidden("io_uring_setup", 425, 1, p, 0, 0, 0);
	forbidden("userfaultfd", SYS_userfaultfd, 0, 0, 0, 0, 0);
	forbidden("kexec_load", SYS_kexec_load, 0, 0, 0, 0, 0);
	forbidden("init_module", SYS_init_module, p, 0, p, 0, 0);
	forbidden("finit_module", SYS_finit_module, 0, p, 0, 0, 0);
	forbidden("delete_module", SYS_delete_module, p, 0, 0, 0, 0);
	forbidden("open_by_handle_at", SYS_open_by_handle_at, AT_FDCWD, p, 0, 0, 0);
	forbidden("syslog", SYS_syslog, 3, p, 10, 0, 0);
	forbidden("reboot", SYS_reboot, 0xfee1dead, 672274793, 0, 0, 0);
	forbidden("swapon", SYS_swapon, path, 0, 0, 0, 0);
	forbidden("iopl", SYS_iopl, 3, 0, 0, 0, 0);
	forbidden("ioperm", SYS_ioperm, 0x64, 1, 1, 0, 0);
	forbidden("settimeofday", SYS_settimeofday, p, 0, 0, 0, 0);
	forbidden("clock_settime", SYS_clock_settime, 0, p, 0, 0, 0);
	forbidden("sethostname", SYS_sethostname, (long)(void *)"x", 1, 0, 0, 0);
	forbidden("acct", SYS_acct, 0, 0, 0, 0, 0);
	forbidden("quotactl", SYS_quotactl, 0, p, 0, p, 0);
	forbidden("fanotify_init", SYS_fanotify_init, 0, 0, 0, 0, 0);
	forbidden("personality", SYS_personality, 0x0040000, 0, 0, 0, 0);
	forbidden("kcmp", SYS_kcmp, 1, 1, 0, 0, 0);
	forbidden("pidfd_getfd", 438, 0, 0, 0, 0, 0);
	forbidden("nfsservctl", SYS_nfsservctl, 0, 0, 0, 0, 0);
	forbidden("socket-vsock", SYS_socket, AF_VSOCK, SOCK_STREAM, 0, 0, 0);
	forbidden("socket-alg", SYS_socket, AF_ALG, SOCK_SEQPACKET, 0, 0, 0);
	forbidden("unknown", 600, 0, 0, 0, 0, 0);
	forbidden("x32", 0x40000000 | SYS_getpid, 0, 0, 0, 0, 0);
	/* And what programs live on. */
	forbidden("getpid", SYS_getpid, 0, 0, 0, 0, 0);
	forbidden("socket-unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0, 0);
	forbidden("socket-inet", SYS_socket, AF_INET, SOCK_STREAM, 0, 0, 0);
	forbidden("socket-raw", SYS_socket, AF_INET6, SOCK_DGRAM, 0, 0, 0);
	forbidden("memfd_create", SYS_memfd_create, (long)(void *)"x", 0, 0, 0, 0);
	forbidden("getxattrat", 464, AT_FDCWD, 0, 0, 0, 0);
	forbidden("clone-plain", SYS_clone, SIGCHLD, 0, 0, 0, 0);
	forbidden("chroot", SYS_chroot, path, 0, 0, 0, 0);
	return 0;
}

static int cmd_int80(void)
{
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L /* getpid of i386 */) : "memory");
	printf("int80: %ld\n", r);
	return 0;
}

/* Makes a block or character node in DIR and opens it. */
static int cmd_node(const char *dir, unsigned maj, unsigned min)
{
	char path[256];
	static const mode_t kinds[] = {S_IFBLK, S_IFCHR};
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/node%d", dir, i);
		unlink(path);
		if (!say(i ? "mknod-char" : "mknod-block", mknod(path, kinds[i] | 0666, makedev(maj, min))))
			continue;
		say(i ? "open-char" : "open-block", open(path, O_RDONLY));
		unlink(path);
	}
	return 0;
}

/* The class of CVE-2019-5736: whatever runs the agent's file, nobody in here may write to it. SECONDS of trying on every process. */
static int cmd_write_exe(int seconds)
{
	time_t end = time(NULL) + seconds;
	int seen = 0, refused[4] = {0}, held[64], n_held = 0;
	while (time(NULL) < end) {
		/* PID 1, and whatever was started last. */
		char text[64] = "";
		int pids[8] = {1}, last = 0, fd = open("/proc/loadavg", O_RDONLY);
		if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strrchr(text, ' '))
			last = atoi(strrchr(text, ' '));
		close(fd);
		for (int i = 1; i < 8; i++)
			pids[i] = last - 4 + i;
		for (int i = 0; i < 8; i++) {
			char path[64], link[256];
			snprintf(path, sizeof(path), "/proc/%d/exe", pids[i]);
			ssize_t n = readlink(path, link, sizeof(link) - 1);
			if (n > 0)
				link[n] = 0;
			if (n <= 0 ? pids[i] != 1 : !strstr(link, "caisson-init"))
				continue;
			seen++;
			if (open(path, O_WRONLY) >= 0)
				printf("open-for-writing %s: ok\n", path);
			else
				refused[errno == EROFS ? 0 : errno == EACCES ? 1 : errno == ETXTBSY ? 2 : 3]++;
			fd = open(path, O_RDONLY);
			if (fd >= 0 && n_held < 64)
				held[n_held++] = fd;
		}
	}
	/* Through a descriptor that was got while it could be got, when nobody runs the file any more. */
	for (int i = 0; i < n_held; i++) {
		char path[64];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", held[i]);
		if (open(path, O_WRONLY) >= 0)
			printf("reopen-for-writing: ok\n");
		else if (errno != EROFS && errno != EPERM && errno != EACCES)
			printf("reopen-for-writing: %s\n", strerrorname_np(errno));
	}
	printf("seen %d, held %d, EROFS %d, EACCES %d, ETXTBSY %d, other %d\n", seen, n_held, refused[0], refused[1], refused[2], refused[3]);
	return 0;
}

/* A sealed memfd may be opened for writing, but not written. */
static long try_write(const char *path)
{
	int fd = open(path, O_WRONLY);
	return fd < 0 ? -1 : write(fd, "x", 1);
}

/* In the agent's place: first as the file that the engine executes, then as another program that kept a descriptor of it. */
static int cmd_agent(void)
{
	int out = open("/out/result", O_CREAT | O_WRONLY | O_TRUNC, 0644), fd = open("/proc/self/exe", O_RDONLY);
	char number[16];
	dup2(out, 1);
	say("write-while-running", try_write("/proc/self/exe"));
	say("descriptor", fd);
	fflush(stdout);
	snprintf(number, sizeof(number), "%d", fd);
	execl("/bin/probe", "probe", "reopen", number, NULL);
	return say("exec", -1);
}

static int cmd_reopen(int fd)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	say("write-later", try_write(path));
	say("truncate", truncate(path, 0));
	say("chmod", chmod(path, 0777));
	say("chown", chown(path, 0, 0));
	say("unlink-exe", unlink(path));
	return 0;
}

static int unix_socket(const char *path, struct sockaddr_un *sa)
{
	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(sa->sun_path, sizeof(sa->sun_path), "%s", path);
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

/* Host's half: hands a directory of the host to whoever connects. */
static int cmd_give(const char *path, const char *dir)
{
	struct sockaddr_un sa;
	int s = unix_socket(path, &sa), fd = open(dir, O_RDONLY | O_DIRECTORY);
	unlink(path);
	if (fd < 0 || bind(s, (struct sockaddr *)&sa, sizeof(sa)) < 0 || chmod(path, 0666) < 0 || listen(s, 1) < 0)
		return say("give", -1), 1;
	int c = accept(s, NULL, NULL);
	char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(fd));
	sendmsg(c, &m, 0);
	sleep(1);
	return 0;
}

/* Container's half: a directory of the host as a descriptor; can it be used? */
static int cmd_take(const char *path, const char *name)
{
	struct sockaddr_un sa;
	int s = unix_socket(path, &sa), fd = -1;
	for (int i = 0; connect(s, (struct sockaddr *)&sa, sizeof(sa)) < 0; i++) {
		if (i == 100)
			return say("connect", -1), 1;
		usleep(20000);
	}
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	if (recvmsg(s, &m, 0) < 0 || !CMSG_FIRSTHDR(&m))
		return say("recvmsg", -1), 1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	say("openat-inside", openat(fd, name, O_RDONLY));
	say("openat-up", openat(fd, "../../../../../../../../etc/passwd", O_RDONLY));
	say("fchdir", fchdir(fd));
	say("open-relative", open(name, O_RDONLY));
	say("create", openat(fd, "planted", O_CREAT | O_WRONLY, 0644));
	say("chroot-out", fchdir(fd) == 0 && chroot(".") == 0 ? open("/etc/passwd", O_RDONLY) : -1);
	return 0;
}

/* Descriptors that a program starts with, besides its own three. */
static int cmd_fds(void)
{
	for (int fd = 3; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf("open: %d\n", fd);
	printf("looked\n");
	return 0;
}

static int cmd_flip(const char *name, const char *target, int seconds)
{
	time_t end = time(NULL) + seconds;
	char aside[256];
	snprintf(aside, sizeof(aside), "%s.aside", name);
	unlink(aside);
	mkdir(name, 0755);
	if (symlink(target, aside) < 0)
		return say("symlink", -1), 1;
	while (time(NULL) < end)
		syscall(SYS_renameat2, AT_FDCWD, name, AT_FDCWD, aside, 2 /* RENAME_EXCHANGE */);
	return 0;
}

static int cmd_eat(size_t mib)
{
	for (size_t i = 0; i < mib; i++) {
		char *p = malloc(1 << 20);
		if (!p)
			return 1;
		memset(p, 1, 1 << 20);
	}
	printf("ate %zu\n", mib);
	return 0;
}

static int cmd_forks(int n)
{
	int i;
	for (i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			pause();
			_exit(0);
		}
		if (pid < 0)
			break;
	}
	printf("forked %d\n", i);
	kill(0, SIGTERM);
	return 0;
}

int main(int argc, char **argv)
{
	const char *c = argc > 1 ? argv[1] : "";
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(60);
	if (!strcmp(c, "syscalls"))
		return cmd_syscalls();
	if (!strcmp(c, "int80"))
		return cmd_int80();
	if (!strcmp(c, "node") && argc == 5)
		return cmd_node(argv[2], (unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
	if (!strcmp(c, "write-exe") && argc == 3)
		return cmd_write_exe(atoi(argv[2]));
	if (!strcmp(c, "give") && argc == 4)
		return cmd_give(argv[2], argv[3]);
	if (!strcmp(c, "take") && argc == 4)
		return cmd_take(argv[2], argv[3]);
	if (!strcmp(c, "--container"))
		return cmd_agent();
	if (!strcmp(c, "reopen") && argc == 3)
		return cmd_reopen(atoi(argv[2]));
	if (!strcmp(c, "fds"))
		return cmd_fds();
	if (!strcmp(c, "flip") && argc == 5)
		return cmd_flip(argv[2], argv[3], atoi(argv[4]));
	if (!strcmp(c, "eat") && argc == 3)
		return cmd_eat((size_t)atoi(argv[2]));
	if (!strcmp(c, "forks") && argc == 3)
		return signal(SIGTERM, SIG_IGN), cmd_forks(atoi(argv[2]));
	fprintf(stderr, "probe: no such attempt\n");
	return 2;
}
