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
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

static void map_self(uid_t uid, gid_t gid, uid_t inside_uid, gid_t inside_gid)
{
	char text[64];
	write_text("/proc/self/setgroups", "deny");
	snprintf(text, sizeof(text), "%u %u 1", (unsigned)inside_uid, (unsigned)uid);
	write_text("/proc/self/uid_map", text);
	snprintf(text, sizeof(text), "%u %u 1", (unsigned)inside_gid, (unsigned)gid);
	write_text("/proc/self/gid_map", text);
}

/* Makes the directory that the process is in its root, with what is mounted below it. */
static bool tree_as_root(void)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return false;
	cleanup_close int tree =
	    (int)syscall(SYS_open_tree, AT_FDCWD, ".", AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return tree >= 0 &&
	       syscall(SYS_move_mount, tree, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) == 0 &&
	       chdir("/proc") == 0 && syscall(SYS_pivot_root, ".", ".") == 0 &&
	       umount2(".", MNT_DETACH) == 0 && chdir("/") == 0;
}

static void isolate(enum confine_kind kind, int tree)
{
	const int flags = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	if (kind == CONFINE_READ_TREE) {
		/* In a user namespace of its own, others' owners would not be seen, and root could not read
		 * everybody's files. */
		if (unshare(flags) < 0)
			return;
	} else if (kind == CONFINE_NO_FILES) {
		if (uid == 0 && unshare(flags | CLONE_NEWNS) == 0) {
			empty_root();
			if (setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
			    setresuid(NOBODY, NOBODY, NOBODY) == 0)
				return;
			return;
		}
		if (unshare(flags | CLONE_NEWNS | CLONE_NEWUSER) < 0)
			return;
		map_self(uid, gid, NOBODY, NOBODY);
		empty_root();
	} else {
		/* The copy of the mounts is where the current directory then is; a descriptor stays in the
		 * old one, whose mounts cannot be taken. */
		if (fchdir(tree) < 0)
			return;
		if (unshare(flags | CLONE_NEWNS) < 0) {
			if (uid == 0 || unshare(flags | CLONE_NEWNS | CLONE_NEWUSER) < 0)
				return;
			map_self(uid, gid, uid, gid);
		}
		/* The descriptor, too, is to lead to nothing else. */
		cleanup_close int root = tree_as_root() ? open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
		if (root >= 0 && dup3(root, tree, O_CLOEXEC) < 0)
			return;
	}
}

/* Landlock's rights by the interface's versions; the header may be older than the kernel. */
#define LL_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define LL_WRITE                                                                                             \
	(LL_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |                          \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_FIFO |          \
	 LANDLOCK_ACCESS_FS_MAKE_SYM | LL_REFER | LL_TRUNCATE)
#define LL_REFER    (1ULL << 13) /* version 2 */
#define LL_TRUNCATE (1ULL << 14) /* version 3 */

/* Needs no_new_privs. The third wall: done without where the kernel has none. */
static void landlock(enum confine_kind kind, int tree)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (version < 1 || SANITIZED)
		return;
	struct landlock_ruleset_attr all = {.handled_access_fs = (1ULL << (version >= 3	  ? 15
									   : version == 2 ? 14
											  : 13)) -
								 1};
	struct landlock_path_beneath_attr below = {.allowed_access =
						       (kind == CONFINE_NO_FILES    ? 0
							: kind == CONFINE_READ_TREE ? LL_READ
										    : LL_WRITE) &
						       all.handled_access_fs,
						   .parent_fd = tree};
	if (kind >= CONFINE_WRITE_TREE && version < 2)
		return; /* it would keep hard links between directories from being made */
	cleanup_close int rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);
	if (rules < 0)
		return;
	if (kind != CONFINE_NO_FILES &&
	    syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0) < 0)
		return;
	if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		return;
}

static uint32_t kept_capabilities(enum confine_kind kind)
{
	const uint32_t write = 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER;
	switch (kind) {
	case CONFINE_NO_FILES:
		return 0;
	case CONFINE_READ_TREE:
		/* trusted.* attributes are read with CAP_SYS_ADMIN only; they are left behind rather than
		 * that kept. */
		return 1u << CAP_DAC_READ_SEARCH;
	case CONFINE_WRITE_TREE:
		return write;
	case CONFINE_WRITE_TREE_OWNERS:
		return write | 1u << CAP_CHOWN | 1u << CAP_FSETID;
	}
	return 0;
}

static int drop_capabilities(enum confine_kind kind, struct cai_error *err)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	uint32_t keep = geteuid() == 0 ? kept_capabilities(kind) : 0;
	struct __user_cap_data_struct now[2] = {{0}};
	if (keep && syscall(SYS_capget, &h, now) == 0) /* root in a container may lack some */
		d[0].permitted = d[0].effective = keep & now[0].permitted;
	if (syscall(SYS_capset, &h, d) < 0)
		return cai_fail_errno(err, errno, "cannot drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot set no_new_privs");
	return 0;
}

static int filter(enum confine_kind kind, struct cai_error *err)
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
	static const int writing[] = {
	    SCMP_SYS(openat2),	 SCMP_SYS(mkdirat), SCMP_SYS(symlinkat), SCMP_SYS(linkat),
	    SCMP_SYS(unlinkat),	 SCMP_SYS(fchown),  SCMP_SYS(fchownat),	 SCMP_SYS(fchmod),
	    SCMP_SYS(utimensat), SCMP_SYS(umask),
	};
	if (SANITIZED)
		return 0;
	const bool files = kind != CONFINE_NO_FILES;
	scmp_filter_ctx c = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!c)
		return cai_fail(err, ENOMEM, "cannot make a system call filter");
	int r = 0;
	for (size_t k = 0; k < ARRAY_LEN(allowed) && r == 0; k++)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, allowed[k], 0);
	for (size_t k = 0; files && k < ARRAY_LEN(reading) && r == 0; k++)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, reading[k], 0);
	for (size_t k = 0; kind >= CONFINE_WRITE_TREE && k < ARRAY_LEN(writing) && r == 0; k++)
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, writing[k], 0);
	if (kind >= CONFINE_WRITE_TREE && r == 0) /* FIFOs, and nothing else */
		r = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(mknodat), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, S_IFMT, S_IFIFO));
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

int confine_enter(const struct confine_limits *l, enum confine_kind kind, int tree, struct cai_error *err)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	isolate(kind, tree);
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
	if (drop_capabilities(kind, err) < 0)
		return -1;
	landlock(kind, tree);
	return filter(kind, err);
}
