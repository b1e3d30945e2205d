/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits, capabilities, Landlock, seccomp: what a container's processes may ask of the kernel.
 *
 * Theory of operation: all four are inherited, so they are put on once, before the agent is executed, and hold for everything that ever runs
 * in the container, exec'd programs too. no_new_privs keeps set-uid programs from giving back what was taken.
 *
 * Landlock is a second wall behind the mount namespace: everything beneath the container's root is allowed, nothing else. A directory of
 * the host that got in as a descriptor (the way of CVE-2024-21626) opens nothing, since it does not lie beneath that root.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "container/internal.h"
#include "container_seccomp.h"

/* Younger than Debian 12's headers. */
#define LL_TRUNCATE       (1ULL << 14)
#define LL_SCOPE_ABSTRACT (1ULL << 0)
#define LL_SCOPE_SIGNAL   (1ULL << 1)
struct landlock_attr {
	uint64_t fs, net, scoped;
};

static const uint64_t default_caps = BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FSETID) | BIT(CAP_FOWNER) | BIT(CAP_MKNOD) | BIT(CAP_NET_RAW) |
				     BIT(CAP_SETGID) | BIT(CAP_SETUID) | BIT(CAP_SETFCAP) | BIT(CAP_SETPCAP) | BIT(CAP_NET_BIND_SERVICE) |
				     BIT(CAP_SYS_CHROOT) | BIT(CAP_KILL) | BIT(CAP_AUDIT_WRITE);

int confine_capability(const char *name)
{
	if (!strncasecmp(name, "CAP_", 4))
		name += 4;
	for (unsigned i = 0; i < ARRAY_LEN(container_capabilities); i++)
		if (!strcasecmp(container_capabilities[i], name))
			return (int)i;
	return -1;
}

int confine_capability_set(const struct container_spec *spec, uint64_t *caps, struct cai_error *err)
{
	uint64_t all = BIT(ARRAY_LEN(container_capabilities)) - 1;
	*caps = default_caps;
	/* "ALL" first, wherever it stands; what is named alone wins over it, as with docker. */
	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned drop = 0; drop < 2; drop++) {
			const char *const *list = drop ? spec->cap_drop : spec->cap_add;
			for (; list && *list; list++) {
				bool is_all = !strcasecmp(*list, "ALL");
				int cap = is_all ? 0 : confine_capability(*list);
				if (cap < 0)
					return cai_fail(err, EINVAL, "there is no capability \"%.40s\"", *list);
				if (is_all != (pass == 0))
					continue;
				uint64_t bits = is_all ? all : BIT((unsigned)cap);
				*caps = drop ? *caps & ~bits : *caps | bits;
			}
		}
	return 0;
}

int confine_limits(struct child *c, struct cai_error *err)
{
	for (unsigned i = 0; i < c->spec->n_rlimits; i++) {
		const struct container_rlimit *l = &c->spec->rlimits[i];
		struct rlimit now, r = {.rlim_cur = l->soft, .rlim_max = l->hard};
		if (getrlimit((__rlimit_resource_t)l->resource, &now) < 0)
			return cai_fail_errno(err, errno, "there is no resource limit %d", l->resource);
		if (setrlimit((__rlimit_resource_t)l->resource, &r) == 0)
			continue;
		if (r.rlim_max > now.rlim_max)
			r.rlim_max = now.rlim_max;
		if (r.rlim_cur > r.rlim_max)
			r.rlim_cur = r.rlim_max;
		if (setrlimit((__rlimit_resource_t)l->resource, &r) < 0)
			return cai_fail_errno(err, errno, "cannot set resource limit %d", l->resource);
	}
	if (c->spec->oom_score_adj) {
		char text[16];
		snprintf(text, sizeof(text), "%d", c->spec->oom_score_adj);
		cleanup_close int fd = openat(c->proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);
		if (fd < 0 || (file_write_full(fd, text, strlen(text)) < 0 && errno != EACCES))
			return cai_fail_errno(err, errno, "cannot set oom_score_adj");
	}
	return 0;
}

int confine_capabilities(uint64_t caps, struct cai_error *err)
{
	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if ((cap > 63 || !(caps & BIT(cap))) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return cai_fail_errno(err, errno, "cannot drop capability %u", cap);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct now[2], d[2] = {{0}};
	if (syscall(SYS_capget, &h, now) < 0)
		return cai_fail_errno(err, errno, "cannot read capabilities");
	for (unsigned i = 0; i < 2; i++) {
		/* Where the caller itself lacks one (a container around us), the container does too. The inheritable set is empty: what is in
		 * it survives execution by any user of the container (CVE-2022-24769). */
		d[i].permitted = (uint32_t)(caps >> (32 * i)) & now[i].permitted;
		d[i].effective = d[i].permitted;
	}
	if (syscall(SYS_capset, &h, d) < 0)
		return cai_fail_errno(err, errno, "cannot drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return cai_fail_errno(err, errno, "cannot set no_new_privs");
	return 0;
}

static int allow(int ruleset, int fd, uint64_t access)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
	return (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

int confine_landlock(struct child *c, uint64_t caps, struct cai_error *err)
{
	/* Landlock forbids mounting, which is what this capability is asked for. */
	if (caps & BIT(CAP_SYS_ADMIN))
		return 0;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 2) /* none; or one that could not let files be moved between directories */
		return 0;
	struct landlock_attr a = {.fs = (LANDLOCK_ACCESS_FS_REFER << 1) - 1};
	size_t size = sizeof(a.fs);
	if (abi >= 3)
		a.fs |= LL_TRUNCATE;
	if (abi >= 6) {
		a.scoped = LL_SCOPE_ABSTRACT | LL_SCOPE_SIGNAL;
		size = sizeof(a);
	}
	cleanup_close int ruleset = (int)syscall(SYS_landlock_create_ruleset, &a, size, 0);
	if (ruleset < 0)
		return cai_fail_errno(err, errno, "cannot make a Landlock ruleset");
	cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || allow(ruleset, root, a.fs) < 0)
		return cai_fail_errno(err, errno, "cannot allow the container's root in a Landlock ruleset");
	/* A sealed memfd lies on no file system that Landlock restricts. */
	if (allow(ruleset, c->agent_fd, LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE) < 0 && errno != EBADFD)
		return cai_fail_errno(err, errno, "cannot allow the agent in a Landlock ruleset");
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return cai_fail_errno(err, errno, "cannot enter a Landlock ruleset");
	c->report.landlock = true;
	return 0;
}

int confine_seccomp(uint64_t caps, struct cai_error *err)
{
	enum { HEAD = 4, PER_CALL = 2 };
	struct sock_filter program[HEAD + PER_CALL * ARRAY_LEN(container_filter_caps) + ARRAY_LEN(container_filter)];
	unsigned n = 0, calls = 0;
	for (unsigned i = 0; i < ARRAY_LEN(container_filter_caps); i++)
		calls += (caps >> container_filter_caps[i].cap) & 1;
	/* Each call that a capability brings: one comparison and one "allow", in front of the program that the build made. The ones of the default
	 * set are in that program already. */
	if (calls) {
		program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
		program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
		program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
		program[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
		for (unsigned i = 0; i < ARRAY_LEN(container_filter_caps); i++)
			if ((caps >> container_filter_caps[i].cap) & 1) {
				program[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, container_filter_caps[i].nr, 0, 1);
				program[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
			}
	}
	memcpy(program + n, container_filter, sizeof(container_filter));
	struct sock_fprog prog = {.len = (unsigned short)(n + ARRAY_LEN(container_filter)), .filter = program};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return errno == EINVAL ? cai_fail(err, errno, "the host's kernel has no seccomp filters, which the container engine needs")
				       : cai_fail_errno(err, errno, "cannot install the container's system call filter");
	return 0;
}
