/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the helper starts as root, because it has to enter the router's namespace; from here
 * on it is nobody. The system call filter is the wall and the rest stands behind it, entered where the host
 * allows it. Which descriptors may send to chosen addresses is part of the filter (argument 0 of sendto),
 * which holds because no call on the list can make a second descriptor of a socket.
 *
 * A sanitizer's runtime makes calls of its own: builds with one go without the filter.
 */
#include "net/helper/confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

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

static void empty_root(int flags)
{
	flags |= CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
	/* Without root a user namespace gives what it takes, for as long as it takes. */
	if ((unshare(flags) < 0 && unshare(flags | CLONE_NEWUSER) < 0) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("helper", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "mode=0500,size=4k,nr_inodes=2") < 0 ||
	    chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return;
	if (umount2(".", MNT_DETACH) == 0)
		(void)!chdir("/");
}

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

static int drop(struct cai_error *err)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
			       setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return cai_fail_errno(err, errno, "cannot become nobody");
	if (syscall(SYS_capset, &h, d) < 0)
		return cai_fail_errno(err, errno, "cannot drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot set no_new_privs");
	return 0;
}

static int connecting(scmp_filter_ctx f)
{
	static const int calls[] = {SCMP_SYS(connect), SCMP_SYS(setsockopt), SCMP_SYS(getsockopt),
				    SCMP_SYS(sendmsg), SCMP_SYS(recvmsg)};
	int r = 0;
	for (size_t k = 0; k < ARRAY_LEN(calls) && r == 0; k++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[k], 0);
	if (r == 0)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_INET));
	if (r == 0)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_INET6));
	return r;
}

/* sendto: anywhere on the listed descriptors, elsewhere only without an address; never with MSG_FASTOPEN,
 * which connects. */
static int sending(scmp_filter_ctx f, const struct confine *c)
{
	int r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 2,
				 SCMP_A3(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0), SCMP_A4(SCMP_CMP_EQ, 0));
	for (unsigned k = 0; k < c->n_send_to && r == 0; k++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 2,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)c->send_to[k]),
				     SCMP_A3(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0));
	return r;
}

static int filter(const struct confine *c, struct cai_error *err)
{
	static const int allowed[] = {
	    SCMP_SYS(read),
	    SCMP_SYS(write),
	    SCMP_SYS(recvfrom),
	    SCMP_SYS(shutdown),
	    SCMP_SYS(close),
	    SCMP_SYS(accept4),
	    SCMP_SYS(epoll_wait),
	    SCMP_SYS(epoll_pwait),
	    SCMP_SYS(epoll_ctl),
	    SCMP_SYS(timerfd_settime),
	    SCMP_SYS(clock_gettime),
	    SCMP_SYS(brk),
	    SCMP_SYS(mmap),
	    SCMP_SYS(munmap),
	    SCMP_SYS(mremap),
	    SCMP_SYS(madvise),
	    SCMP_SYS(futex),
	    SCMP_SYS(getrandom),
	    SCMP_SYS(rt_sigreturn),
	    SCMP_SYS(rt_sigprocmask),
	    SCMP_SYS(restart_syscall),
	    SCMP_SYS(gettid),
	    SCMP_SYS(getpid),
	    SCMP_SYS(tgkill),
	    SCMP_SYS(exit),
	    SCMP_SYS(exit_group),
	};
	if (SANITIZED)
		return 0;
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!f)
		return cai_fail(err, ENOMEM, "cannot make a system call filter");
	int r = 0;
	for (size_t k = 0; k < ARRAY_LEN(allowed) && r == 0; k++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[k], 0);
	if (r == 0)
		r = sending(f, c);
	if (r == 0 && c->may_connect)
		r = connecting(f);
	if (r == 0)
		r = seccomp_load(f);
	seccomp_release(f);
	return r < 0 ? cai_fail_errno(err, -r, "cannot install the system call filter") : 0;
}

int confine_helper(const struct confine *c, struct cai_error *err)
{
	empty_root(c->own_network ? CLONE_NEWNET : 0);
	lower(RLIMIT_CORE, 0);
	lower(RLIMIT_FSIZE, 0);
	lower(RLIMIT_MEMLOCK, 0);
	lower(RLIMIT_NPROC, 0);
	if (!SANITIZED)
		lower(RLIMIT_AS, 256u << 20);
	if (drop(err) < 0)
		return -1;
	return filter(c, err);
}
