/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the probe costs milliseconds on a good KVM and up to a second on one that interprets
 * ring 0, while a sandbox should start in less, so its verdict is kept. The cache key holds all that can
 * change the answer within one boot: boot id, the monitor's inode and mtime, and what stat and access say
 * about /dev/kvm for this user. `auto` is conservative: it takes KVM only where the probe called it usable.
 */
#include "sandbox/accel.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/util.h"
#include "sandbox/paths.h"

#define PROBE_CACHE	 "probe.json"
#define PROBE_TIMEOUT_MS 10000

static const char *const state_names[] = {
    [KVM_ABSENT] = "absent",
    [KVM_NO_PERMISSION] = "no-permission",
    [KVM_UNUSABLE] = "unusable",
    [KVM_USABLE] = "usable",
};

const char *kvm_state_name(enum kvm_state s)
{
	return state_names[s];
}

/* Absent has as many cures as causes; the CPU tells which. */
static const char *mend_absent(void)
{
	unsigned a, b, c = 0, d, xc = 0;
	__get_cpuid(1, &a, &b, &c, &d);
	__get_cpuid(0x80000001, &a, &b, &xc, &d);
	if (c & (1u << 5)) /* VMX */
		return "run 'sudo modprobe kvm_intel'";
	if (xc & (1u << 2)) /* SVM */
		return "run 'sudo modprobe kvm_amd'";
	if (c & (1u << 31)) /* a hypervisor is present */
		return "turn on nested virtualization for this virtual machine, then run 'sudo modprobe -a "
		       "kvm_intel kvm_amd'";
	return "turn on VT-x or AMD-V in the firmware's setup, then run 'sudo modprobe -a kvm_intel kvm_amd'";
}

const char *kvm_mend(enum kvm_state s)
{
	struct stat st;
	switch (s) {
	case KVM_ABSENT:
		return mend_absent();
	case KVM_NO_PERMISSION:
		if (stat("/dev/kvm", &st) == 0 && st.st_gid != 0 && (st.st_mode & 060) == 060)
			return "run 'sudo usermod -aG $(stat -c %G /dev/kvm) $USER' and log in again";
		return "run 'sudo chgrp kvm /dev/kvm; sudo chmod g+rw /dev/kvm; sudo usermod -aG kvm $USER' "
		       "and log in again";
	case KVM_UNUSABLE:
		return "run on hardware with VT-x or AMD-V, or in a virtual machine with nested "
		       "virtualization";
	case KVM_USABLE:
		break;
	}
	return "";
}

static void cache_key(const char *vmm, char out[320])
{
	char boot[40];
	struct stat v = {0}, k = {0};
	host_boot_id(boot);
	stat(vmm, &v);
	int have = stat("/dev/kvm", &k);
	snprintf(out, 320, "1 %s vmm %lu:%lu:%ld.%09ld kvm %d %o %u:%u %lx %d", boot, (unsigned long)v.st_dev,
		 (unsigned long)v.st_ino, (long)v.st_mtim.tv_sec, v.st_mtim.tv_nsec, have, k.st_mode,
		 k.st_uid, k.st_gid, (unsigned long)k.st_rdev,
		 have == 0 ? faccessat(AT_FDCWD, "/dev/kvm", R_OK | W_OK, AT_EACCESS) : -1);
}

/* A verdict from the probe's JSON object. */
static int verdict_from_json(json_t *o, struct kvm_verdict *v, struct cai_error *err)
{
	const char *state = json_string_value(json_object_get(o, "kvm"));
	const char *reason = json_string_value(json_object_get(o, "reason"));
	const char *boundary = json_string_value(json_object_get(o, "boundary"));
	const char *cmdline = json_string_value(json_object_get(o, "cmdline"));
	*v = (struct kvm_verdict){.state = KVM_UNUSABLE};
	unsigned i = 0;
	while (state && i < ARRAY_LEN(state_names) && strcmp(state, state_names[i]))
		i++;
	if (!state || i == ARRAY_LEN(state_names))
		return cai_fail(err, EPROTO, "the KVM probe answered with no known state");
	v->state = (enum kvm_state)i;
	if (!boundary || boundary_parse(boundary, &v->boundary) < 0)
		v->boundary = BOUNDARY_NONE;
	if (v->state == KVM_USABLE && v->boundary < BOUNDARY_HYPERVISOR)
		v->state =
		    KVM_UNUSABLE; /* a usable KVM without a boundary is a contradiction: do not build on it */
	snprintf(v->reason, sizeof(v->reason), "%s", reason ? reason : "");
	if (cmdline &&
	    strlen(cmdline) < sizeof(v->cmdline)) /* half a list of parameters would be worse than none */
		strcpy(v->cmdline, cmdline);
	v->mips = json_number_value(json_object_get(o, "mips"));
	v->probe_ms = json_number_value(json_object_get(o, "ns")) / 1e6;
	return 0;
}

static bool read_cache(struct store *r, const char *key, struct kvm_verdict *v)
{
	char text[2048];
	cleanup_close int fd = openat(r->root_fd, PROBE_CACHE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd < 0 ? -1 : file_read_full(fd, text, sizeof(text));
	if (n <= 0)
		return false;
	json_t *o = json_loadb(text, (size_t)n, 0, NULL);
	const char *k = json_string_value(json_object_get(o, "key"));
	bool ok = k && !strcmp(k, key) && verdict_from_json(json_object_get(o, "verdict"), v, NULL) == 0;
	json_decref(o);
	if (ok)
		v->cached = true;
	return ok;
}

/* Best effort: without a cache the next run probes again. */
static void write_cache(struct store *r, const char *key, json_t *verdict)
{
	char tmp[64];
	json_t *o = json_pack("{s:s,s:O}", "key", key, "verdict", verdict);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	snprintf(tmp, sizeof(tmp), ".probe.%d", (int)getpid());
	cleanup_close int fd =
	    openat(r->root_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (!text || fd < 0 || file_write_full(fd, text, strlen(text)) < 0 ||
	    renameat(r->root_fd, tmp, r->root_fd, PROBE_CACHE) < 0)
		unlinkat(r->root_fd, tmp, 0);
	free(text);
	json_decref(o);
}

/* Reads until end of file or the deadline. Returns the length, or -1. */
static ssize_t read_answer(int fd, char *buf, size_t max)
{
	uint64_t end = clock_mono_ns() + PROBE_TIMEOUT_MS * 1000000ull;
	size_t n = 0;
	while (n < max) {
		uint64_t now = clock_mono_ns();
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (now >= end || poll(&p, 1, (int)((end - now) / 1000000) + 1) <= 0)
			return -1;
		ssize_t got = read(fd, buf + n, max - n);
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

static json_t *run_probe(const char *vmm, struct cai_error *err)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0) {
		cai_fail_errno(err, errno, "cannot make a pipe");
		return NULL;
	}
	cleanup_close int rd = p[0], wr = p[1];
	posix_spawn_file_actions_t fa;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, wr, 1);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	if (!log_debug_on())
		posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY, 0);
	pid_t pid;
	char *env[] = {NULL};
	int e = posix_spawn(&pid, vmm, &fa, NULL, (char *[]){(char *)vmm, "--probe", NULL}, env);
	posix_spawn_file_actions_destroy(&fa);
	close(steal_fd(&wr));
	if (e) {
		cai_fail_errno(err, e, "cannot run %s", vmm);
		return NULL;
	}
	char text[4096];
	ssize_t n = read_answer(rd, text, sizeof(text));
	if (n < 0)
		kill(pid, SIGKILL);
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	json_t *o = n > 0 ? json_loadb(text, (size_t)n, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
	if (!o)
		cai_fail(err, EPROTO,
			 n < 0 ? "the KVM probe did not answer within %d s" : "the KVM probe gave no answer",
			 PROBE_TIMEOUT_MS / 1000);
	return o;
}

int accel_probe(struct store *r, bool fresh, struct kvm_verdict *v, struct cai_error *err)
{
	char key[320];
	cleanup_free char *vmm = paths_libexec("caisson-vmm", err);
	if (!vmm)
		return -1;
	cache_key(vmm, key);
	if (!fresh && read_cache(r, key, v))
		return 0;
	struct cai_error why = {0};
	json_t *o = run_probe(vmm, &why);
	if (!o || verdict_from_json(o, v, &why) < 0) {
		/* A probe that hangs or dies is itself a verdict: this KVM is not to be used. It is kept like
		 * any other. */
		json_decref(o);
		o = json_pack("{s:s,s:s,s:s}", "kvm", "unusable", "reason", why.text, "boundary", "none");
		if (!o || verdict_from_json(o, v, NULL) < 0)
			return cai_fail(err, ENOMEM, "out of memory");
	}
	write_cache(r, key, o);
	json_decref(o);
	return 0;
}

/* The sentence for an unmet --boundary. */
static int refuse(const struct sandbox_spec *s, const struct accel_pick *p, struct cai_error *err)
{
	const char *want = boundary_name(s->at_least), *have = boundary_name(p->boundary);
	const struct kvm_verdict *v = &p->verdict;
	if (s->accel == ACCEL_SOFT)
		return cai_fail(err, EPERM,
				"--boundary %s is refused: --accel soft is a boundary of software; leave out "
				"--accel soft",
				want);
	if (v->state == KVM_USABLE || s->accel == ACCEL_KVM)
		return cai_fail(err, EPERM,
				"--boundary %s is refused: this host offers '%s' at most; a host whose KVM "
				"uses VT-x or AMD-V would satisfy it",
				want, have);
	bool forced = v->boundary >= s->at_least;
	return cai_fail(err, EPERM,
			"--boundary %s is refused: this run's boundary would be '%s', as KVM here is "
			"%s%s%s%s; to satisfy it: %s%s",
			want, have,
			v->state == KVM_NO_PERMISSION ? "not permitted" : kvm_state_name(v->state),
			v->reason[0] ? " (" : "", v->reason, v->reason[0] ? ")" : "", kvm_mend(v->state),
			forced ? ", or accept this KVM's slowness with --accel kvm" : "");
}

int accel_choose(struct store *r, const struct sandbox_spec *s, struct accel_pick *p,
		 struct cai_error *err)
{
	*p = (struct accel_pick){.boundary = BOUNDARY_SOFTWARE};
	if (s->accel != ACCEL_SOFT) {
		if (accel_probe(r, false, &p->verdict, err) < 0)
			return -1;
		p->probed = true;
		enum kvm_state st = p->verdict.state;
		if (s->accel == ACCEL_KVM && (st == KVM_ABSENT || st == KVM_NO_PERMISSION))
			return cai_fail(err, ENODEV,
					"--accel kvm is refused: KVM is %s (%s); %s, or use --accel soft",
					st == KVM_ABSENT ? "absent" : "not permitted",
					p->verdict.reason[0] ? p->verdict.reason : "/dev/kvm", kvm_mend(st));
		if (st == KVM_USABLE || s->accel == ACCEL_KVM) {
			p->kvm = true;
			p->boundary =
			    p->verdict.boundary == BOUNDARY_NONE ? BOUNDARY_HYPERVISOR : p->verdict.boundary;
		}
	}
	return p->boundary >= s->at_least ? 0 : refuse(s, p, err);
}
