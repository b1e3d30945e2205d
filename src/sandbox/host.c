/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one function a subject, each adding one finding or more. A subject is tried out rather
 * than looked up wherever that is cheap (namespaces are really made, KVM really runs a guest), since what a
 * file in /proc promises and what a sandboxed or nested host allows differ often enough.
 */
#include "sandbox/host.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "cgroup/cgroup.h"
#include "container/container.h"
#include "net/net.h"
#include "sandbox/paths.h"

#define CGROUP2_MAGIC 0x63677270

const char *finding_state_name(enum finding_state s)
{
	static const char *const names[] = {"ok", "degraded", "missing"};
	return names[s];
}

static struct finding *add(struct host_report *r, const char *id, enum finding_state st, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static struct finding *add(struct host_report *r, const char *id, enum finding_state st, const char *fmt, ...)
{
	/* the table is sized for all callers below; the last slot would be reused rather than overrun */
	struct finding *f = &r->f[r->n < HOST_MAX_FINDINGS ? r->n++ : HOST_MAX_FINDINGS - 1];
	*f = (struct finding){.id = id, .state = st};
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	return f;
}

static void mend(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void mend(struct finding *f, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(f->mend, sizeof(f->mend), fmt, ap);
	va_end(ap);
}

/* The value of KEY in lines of "KEY<separator>value", copied without quotes; false when absent. */
static bool field(const char *text, const char *key, char separator, char *out, size_t n)
{
	for (const char *line = text; line && *line;
	     line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		size_t k = strlen(key);
		if (strncmp(line, key, k))
			continue;
		const char *v = line + k;
		v += strspn(v, " \t");
		if (*v != separator)
			continue;
		v++;
		v += strspn(v, " \t\"");
		size_t len = strcspn(v, "\"\n");
		snprintf(out, n, "%.*s", (int)(len < n ? len : n - 1), v);
		return true;
	}
	return false;
}

static void look_at_system(struct host_report *r)
{
	struct utsname u;
	char distro[128] = "unknown distribution";
	cleanup_free char *text = NULL;
	size_t len;
	uname(&u);
	if (file_read_all("/etc/os-release", 65536, &text, &len, NULL) == 0)
		field(text, "PRETTY_NAME", '=', distro, sizeof(distro));
	struct finding *f =
	    add(r, "host", FINDING_OK, "%s %s %s, %s", u.sysname, u.release, u.machine, distro);
	f->required = true;
	int major = 0, minor = 0;
	if (strcmp(u.machine, "x86_64")) {
		f->state = FINDING_MISSING;
		mend(f, "Caisson runs on x86-64 only");
	} else if (sscanf(u.release, "%d.%d", &major, &minor) == 2 &&
		   (major < 5 || (major == 5 && minor < 10))) {
		f->state = FINDING_DEGRADED;
		mend(f, "Linux 5.10 or later is what Caisson is tested on");
	}
}

static bool has_flag(const char *flags, const char *name)
{
	size_t n = strlen(name);
	for (const char *p = flags; (p = strstr(p, name)); p += n)
		if ((p == flags || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
			return true;
	return false;
}

static void look_at_cpu(struct host_report *r)
{
	cleanup_free char *text = NULL;
	char model[128] = "unknown", flags[4096] = "";
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	cleanup_close int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && (text = calloc(1, 16384))) {
		/* the first processor's entry is enough */
		if (file_read_full(fd, text, 16383) > 0 &&
		    field(text, "model name", ':', model, sizeof(model)))
			field(text, "flags", ':', flags, sizeof(flags));
	}
	struct finding *f =
	    add(r, "cpu", FINDING_OK, "%ld x %s%s%s%s", n, model, has_flag(flags, "vmx") ? ", VT-x" : "",
		has_flag(flags, "svm") ? ", AMD-V" : "",
		has_flag(flags, "hypervisor") ? ", itself a virtual machine" : "");
	static const char *const need[] = {"cx16", "popcnt", "sse4_2", "ssse3"};
	for (size_t i = 0; flags[0] && i < ARRAY_LEN(need); i++)
		if (!has_flag(flags, need[i])) {
			f->state = FINDING_DEGRADED;
			mend(f, "this CPU lacks %s; guests are given the x86-64-v2 instructions", need[i]);
		}
}

static void look_at_kvm(struct host_report *r, bool fresh)
{
	struct store reg;
	struct cai_error err = {0};
	r->boundary = BOUNDARY_SOFTWARE;
	if (store_open(&reg, &err) < 0) {
		struct finding *f = add(r, "runtime", FINDING_MISSING, "%s", err.text);
		f->required = true;
		mend(f, "make that directory usable, or set CAISSON_ROOT to another");
		return;
	}
	add(r, "runtime", FINDING_OK, "%s", reg.root)->required = true;
	if (accel_probe(&reg, fresh, &r->kvm, &err) < 0) {
		mend(add(r, "kvm", FINDING_MISSING, "%s", err.text), "install Caisson again");
	} else {
		const struct kvm_verdict *v = &r->kvm;
		char timing[96] = "";
		r->kvm_known = true;
		if (v->mips > 0)
			snprintf(timing, sizeof(timing), ", guest kernel code at %.1f million instructions/s",
				 v->mips);
		struct finding *f = add(
		    r, "kvm",
		    v->state == KVM_USABLE     ? FINDING_OK
		    : v->state == KVM_UNUSABLE ? FINDING_DEGRADED
					       : FINDING_MISSING,
		    "%s%s%s%s (probe %.1f ms%s)",
		    v->state == KVM_NO_PERMISSION ? "no permission" : kvm_state_name(v->state),
		    v->reason[0] ? ": " : "", v->reason, timing, v->probe_ms, v->cached ? ", cached" : "");
		if (v->state != KVM_USABLE)
			mend(f, "%s; until then the software CPU is used", kvm_mend(v->state));
		if (v->state == KVM_USABLE)
			r->boundary = v->boundary;
	}
	store_close(&reg);
	const char *const meaning[] = {
	    [BOUNDARY_NONE] = "",
	    [BOUNDARY_SOFTWARE] = !r->kvm_known                          ? "Caisson's own CPU"
				: r->kvm.state == KVM_ABSENT        ? "Caisson's own CPU: this host has no KVM; see caisson doctor"
				: r->kvm.state == KVM_NO_PERMISSION ? "Caisson's own CPU: /dev/kvm is not yours to open; see caisson doctor"
								    : "Caisson's own CPU: this host's KVM is unfit for guests; see caisson doctor",
	    [BOUNDARY_HYPERVISOR] = "KVM without VT-x or AMD-V",
	    [BOUNDARY_HARDWARE] = "KVM with VT-x or AMD-V",
	};
	add(r, "boundary", FINDING_OK, "%s (%s)", boundary_name(r->boundary), meaning[r->boundary]);
}

/* The namespaces of the monitor's jail, really made, in a child that is gone again at once. */
static void look_at_namespaces(struct host_report *r)
{
	const int without_user = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC;
	int status = 0;
	pid_t pid = fork();
	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | without_user) == 0 ? 0 : (errno & 0x7f));
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		add(r, "namespaces", FINDING_OK, "user, mount, pid, net and ipc namespaces can be made")
		    ->required = geteuid() != 0;
		return;
	}
	struct finding *f = add(r, "namespaces", geteuid() == 0 ? FINDING_DEGRADED : FINDING_MISSING,
				"user namespaces cannot be made: %s",
				pid < 0 ? "fork failed" : strerror(WEXITSTATUS(status)));
	f->required = geteuid() != 0;
	char v[16] = "";
	cleanup_close int fd =
	    open("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && file_read_full(fd, v, 15) > 0 && v[0] == '1')
		mend(f, "run 'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'");
	else if (access("/proc/sys/kernel/unprivileged_userns_clone", F_OK) == 0)
		mend(
		    f,
		    "run 'sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000'");
	else
		mend(f, "run 'sudo sysctl -w user.max_user_namespaces=15000'; in a container, allow user "
			"namespaces");
}

static void look_at_cgroups(struct host_report *r)
{
	static const char *const layouts[] = {[CGROUP_NONE] = "none", [CGROUP_V1] = "v1", [CGROUP_HYBRID] = "hybrid", [CGROUP_V2] = "v2"};
	static const char *const names[CGROUP_N] = {"memory", "cpu", "pids", "freezer", "cpuacct"};
	unsigned have;
	enum cgroup_layout layout = cgroup_probe(&have);
	char missing[256], list[64] = "";
	size_t n = 0;
	for (unsigned i = 0; i < CGROUP_N; i++)
		if (have & 1u << i)
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? " " : "", names[i]);
	cgroup_missing(missing, sizeof(missing));
	struct finding *f = add(r, "cgroups", !missing[0] ? FINDING_OK : have ? FINDING_DEGRADED : FINDING_MISSING, "%s%s%s%s%s", layouts[layout],
				list[0] ? ": " : "", list, missing[0] ? "; " : "", missing);
	if (missing[0])
		mend(f, "limits that cannot be kept are refused when they are asked for; as root all that the host's kernel offers can be used");
}

static void look_at_containers(struct host_report *r)
{
	char text[300];
	bool ok = container_probe(text, sizeof(text));
	struct finding *f = add(r, "containers", !ok ? FINDING_MISSING : text[0] ? FINDING_DEGRADED : FINDING_OK, "%s",
				text[0] ? text : "can be made");
	if (!ok)
		mend(f, "microVMs are not concerned; --engine container is refused");
}

static void look_at_network(struct host_report *r)
{
	char text[300];
	bool ok = net_describe(text, sizeof(text)) == 0;
	struct finding *f = add(r, "network", ok ? FINDING_OK : FINDING_MISSING, "%s", text);
	if (!ok)
		mend(f, "until then sandboxes need --network none");
}

static void look_at_filesystems(struct host_report *r)
{
	cleanup_free char *text = NULL;
	size_t len;
	if (file_read_all("/proc/filesystems", 65536, &text, &len, NULL) < 0)
		return;
	bool overlay = strstr(text, "\toverlay\n"), erofs = strstr(text, "\terofs\n");
	if (overlay && erofs) {
		add(r, "filesystems", FINDING_OK, "overlay and erofs");
		return;
	}
	struct finding *f =
	    add(r, "filesystems", FINDING_DEGRADED, "the host's kernel lacks %s%s%s",
		overlay ? "" : "overlay", overlay || erofs ? "" : " and ", erofs ? "" : "erofs");
	mend(f, "microVMs bring their own; for containers run 'sudo modprobe overlay erofs'");
}

static void look_at_resources(struct host_report *r)
{
	struct sysinfo si;
	cleanup_free char *text = NULL;
	size_t len;
	char v[64];
	if (sysinfo(&si) == 0) {
		unsigned long long total = (unsigned long long)si.totalram * si.mem_unit >> 20, avail = total;
		if (file_read_all("/proc/meminfo", 65536, &text, &len, NULL) == 0 &&
		    field(text, "MemAvailable", ':', v, sizeof(v)))
			avail = strtoull(v, NULL, 10) >> 10;
		struct finding *f = add(r, "memory", avail < 768 ? FINDING_DEGRADED : FINDING_OK,
					"%llu MiB, %llu MiB available", total, avail);
		if (avail < 768)
			mend(f, "a sandbox is given 512 MiB unless -m says less; free some memory");
	}
	struct cai_error err = {0};
	cleanup_free char *cache = paths_cache(&err);
	struct statvfs vfs;
	if (!cache) {
		mend(add(r, "disk", FINDING_DEGRADED, "%s", err.text),
		     "set XDG_CACHE_HOME to a directory you can write");
	} else if (statvfs(cache, &vfs) == 0) {
		unsigned long long mb = (unsigned long long)vfs.f_bavail * vfs.f_frsize >> 20;
		struct finding *f = add(r, "disk", mb < 1024 ? FINDING_DEGRADED : FINDING_OK,
					"%llu MiB free for the cache in %s", mb, cache);
		if (mb < 1024)
			mend(f, "images made with --rootfs DIR need room there; set XDG_CACHE_HOME to a "
				"larger disk");
	}
}

/* The programs that `caisson` starts, but the monitor, without which nothing runs at all. */
static void look_at_helpers(struct host_report *r)
{
	static const struct {
		const char *name, *lost;
	} helpers[] = {{"caisson-image", "images and --rootfs DIR"},
		       {"caisson-fs", "-v with a microVM"},
		       {"caisson-net", "published ports and names"},
		       {"caisson-init", "containers"}};
	char lost[160] = "";
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_LEN(helpers); i++) {
		cleanup_free char *p = paths_libexec(helpers[i].name, NULL);
		if (!p)
			n += (size_t)snprintf(lost + n, sizeof(lost) - n, "%s%s (%s)", n ? ", " : "", helpers[i].name, helpers[i].lost);
	}
	struct finding *f = add(r, "helpers", n ? FINDING_MISSING : FINDING_OK, "%s%s", n ? "missing: " : "all there", lost);
	if (n)
		mend(f, "install Caisson again");
}

static void look_at_mke2fs(struct host_report *r)
{
	static const char *const places[] = {"/usr/sbin/mke2fs", "/sbin/mke2fs", "/usr/bin/mke2fs", "/usr/local/sbin/mke2fs"};
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		if (access(places[i], X_OK) == 0) {
			add(r, "mke2fs", FINDING_OK, "%s", places[i]);
			return;
		}
	mend(add(r, "mke2fs", FINDING_MISSING, "not installed; a microVM's writable disk needs it (--ephemeral does not)"),
	     "run 'sudo apt install e2fsprogs'");
}

static void look_at_parts(struct host_report *r)
{
	look_at_mke2fs(r);
	look_at_helpers(r);
	static const struct {
		const char *id;
		enum paths_asset which;
	} parts[] = {{"kernel", ASSET_KERNEL},
		     {"cmdline", ASSET_CMDLINE},
		     {"initramfs", ASSET_INITRD},
		     {"image", ASSET_BUSYBOX}};
	struct cai_error err = {0};
	cleanup_free char *vmm = paths_libexec("caisson-vmm", &err);
	add(r, "monitor", vmm ? FINDING_OK : FINDING_MISSING, "%s", vmm ? vmm : err.text)->required = true;
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		cleanup_free char *p = paths_asset(parts[i].which, &err);
		struct stat st;
		struct finding *f;
		if (p && stat(p, &st) == 0)
			f = add(r, parts[i].id, FINDING_OK, "%s (%lld KiB)", p,
				(long long)(st.st_size + 1023) >> 10);
		else
			f = add(r, parts[i].id, FINDING_MISSING, "%s", err.text);
		f->required = true;
	}
}

void host_examine(struct host_report *r, bool fresh)
{
	memset(r, 0, sizeof(*r));
	look_at_system(r);
	look_at_cpu(r);
	look_at_kvm(r, fresh);
	look_at_namespaces(r);
	look_at_cgroups(r);
	look_at_containers(r);
	look_at_network(r);
	look_at_filesystems(r);
	look_at_resources(r);
	look_at_parts(r);
	r->can_run = true;
	for (unsigned i = 0; i < r->n; i++)
		if (r->f[i].required && r->f[i].state == FINDING_MISSING)
			r->can_run = false;
}
