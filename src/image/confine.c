/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the system call filter is the wall: without open, socket, clone and execve there is
 * nothing to get hold of. Namespaces with an empty root, no capabilities and another user are behind it, for
 * the day that a kernel bug is reachable through read() and mmap(). They are entered where the host allows it
 * and done without where it does not; the filter is not.
 *
 * A sanitizer's runtime makes calls of its own, so builds with one go without the filter and the memory
 * limit.
 */
#include "image/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"

#define NOBODY 65534u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static void lower(int resource, uint64_t to)
{
	struct rlimit r;
	if (getrlimit(resource, &r) < 0)
		return;
	if (r.rlim_max == RLIM_INFINITY || r.rlim_max > to)
		r.rlim_max = to;
	r.rlim_cur = r.rlim_max;
	setrlimit(resource, &r);
}

static void write_text(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && file_write_full(fd, text, strlen(text)) < 0)
		return; /* an unmapped user is nobody, too */
}

static bool empty_root(void)
{
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("jail", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		     "mode=0500,size=4k,nr_inodes=2") == 0 &&
	       chdir("/proc") == 0 && syscall(SYS_pivot_root, ".", ".") == 0 &&
	       umount2(".", MNT_DETACH) == 0 && chdir("/") == 0;
}

static void isolate(bool files)
{
	int flags = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	char text[64];
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (files) {
		/* In a user namespace of its own, root could no longer read everybody's files. */
		if (unshare(flags) < 0 && uid != 0 && unshare(flags | CLONE_NEWUSER) < 0)
			return;
		return;
	}
	flags |= CLONE_NEWNS;
	if (uid == 0 && unshare(flags) == 0) {
		empty_root();
		if (setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
		    setresuid(NOBODY, NOBODY, NOBODY) == 0)
			return;
		return;
	}
	if (unshare(flags | CLONE_NEWUSER) < 0)
		return;
	write_text("/proc/self/setgroups", "deny");
	snprintf(text, sizeof(text), "%u %u 1", NOBODY, (unsigned)uid);
	write_text("/proc/self/uid_map", text);
	snprintf(text, sizeof(text), "%u %u 1", NOBODY, (unsigned)gid);
	write_text("/proc/self/gid_map", text);
	empty_root();
}

static int drop_capabilities(bool keep_read, struct cai_error *err)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (keep_read && geteuid() == 0) {
		/* trusted.* attributes are read with CAP_SYS_ADMIN only; they are left behind rather than
		 * that kept. */
		d[0].permitted = d[0].effective = 1u << CAP_DAC_READ_SEARCH;
		if (syscall(SYS_capset, &h, d) == 0)
			goto done;
		memset(d, 0, sizeof(d));
	}
	if (syscall(SYS_capset, &h, d) < 0)
		return cai_fail_errno(err, errno, "cannot drop capabilities");
done:
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot set no_new_privs");
	return 0;
}

static int filter(bool files, struct cai_error *err)
{
	static const int allowed[] = {
	    SCMP_SYS(read),	      SCMP_SYS(pread64),	 SCMP_SYS(write),
	    SCMP_SYS(pwrite64),	      SCMP_SYS(writev),		 SCMP_SYS(lseek),
	    SCMP_SYS(fallocate),      SCMP_SYS(ftruncate),	 SCMP_SYS(fstat),
	    SCMP_SYS(newfstatat),     SCMP_SYS(close),		 SCMP_SYS(brk),
	    SCMP_SYS(mmap),	      SCMP_SYS(munmap),		 SCMP_SYS(mremap),
	    SCMP_SYS(madvise),	      SCMP_SYS(mprotect),	 SCMP_SYS(futex),
	    SCMP_SYS(getrandom),      SCMP_SYS(clock_gettime),	 SCMP_SYS(gettimeofday),
	    SCMP_SYS(getpid),	      SCMP_SYS(gettid),		 SCMP_SYS(rt_sigaction),
	    SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),	 SCMP_SYS(tgkill),
	    SCMP_SYS(sched_yield),    SCMP_SYS(restart_syscall), SCMP_SYS(exit),
	    SCMP_SYS(exit_group),
	};
	static const int reading[] = {
	    SCMP_SYS(openat),	 SCMP_SYS(getdents64), SCMP_SYS(readlinkat), SCMP_SYS(flistxattr),
	    SCMP_SYS(fgetxattr), SCMP_SYS(llistxattr), SCMP_SYS(lgetxattr),  SCMP_SYS(fcntl),
	    SCMP_SYS(readlink),	 SCMP_SYS(statx),      SCMP_SYS(getuid),     SCMP_SYS(getgid),
	    SCMP_SYS(geteuid),	 SCMP_SYS(getegid),
	};
	if (SANITIZED)
		return 0;
	scmp_filter_ctx c = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!c)
		return cai_fail(err, ENOMEM, "cannot make a system call filter");
	int r = 0;
	for (size_t k = 0; k < ARRAY_LEN(allowed) && r == 0; k++)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, allowed[k], 0);
	for (size_t k = 0; files && k < ARRAY_LEN(reading) && r == 0; k++)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, reading[k], 0);
	/* What libraries probe for and do without. */
	static const int harmless[] = {SCMP_SYS(open),	  SCMP_SYS(openat),    SCMP_SYS(ioctl),
				       SCMP_SYS(sysinfo), SCMP_SYS(prlimit64), SCMP_SYS(readlink)};
	for (size_t k = 0; k < ARRAY_LEN(harmless) && r == 0; k++)
		if (!files || (harmless[k] != SCMP_SYS(openat) && harmless[k] != SCMP_SYS(readlink)))
			r = seccomp_rule_add(c, SCMP_ACT_ERRNO(EPERM), harmless[k], 0);
	if (r == 0)
		r = seccomp_load(c);
	seccomp_release(c);
	return r < 0 ? cai_fail_errno(err, -r, "cannot install the system call filter") : 0;
}

int confine_enter(const struct confine_limits *l, bool files, struct cai_error *err)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	isolate(files);
	/* A change of user clears it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	lower(RLIMIT_CORE, 0);
	lower(RLIMIT_FSIZE, l->file);
	lower(RLIMIT_NPROC, 0);
	lower(RLIMIT_MEMLOCK, 0);
	lower(RLIMIT_NOFILE, 1024);
	if (!SANITIZED)
		lower(RLIMIT_AS, l->memory);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (drop_capabilities(files, err) < 0)
		return -1;
	return filter(files, err);
}
