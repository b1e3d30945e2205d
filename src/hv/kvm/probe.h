/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is this host's KVM good for running a guest kernel? Opening /dev/kvm proves nothing: the probe runs a tiny guest that executes what a
 * kernel needs and times a loop. It takes a few milliseconds where KVM is real, under 100 where it is not, and never more than a second.
 */
#ifndef HV_KVM_PROBE_H
#define HV_KVM_PROBE_H

#include <stddef.h>
#include <stdint.h>

enum kvm_verdict {
	KVM_ABSENT,        /* no /dev/kvm, or nothing behind it */
	KVM_NO_PERMISSION, /* it is there, but not for this user */
	KVM_UNUSABLE,      /* it runs guest kernels slowly, wrongly or not at all */
	KVM_USABLE,        /* native speed, nothing missing */
};

enum kvm_boundary { KVM_BOUNDARY_NONE, KVM_BOUNDARY_HYPERVISOR, KVM_BOUNDARY_HARDWARE };

#define KVM_PROBE_MIN_MIPS   200 /* slower than this is interpretation */
#define KVM_PROBE_MAX_MISSING 16

struct kvm_probe {
	enum kvm_verdict verdict;
	enum kvm_boundary boundary; /* what KVM stands on: VMX or SVM, or neither */
	char reason[300];           /* one sentence that a user can act on; "" when usable */
	int api;                    /* KVM's API version, 0 when unknown */
	uint64_t mips;              /* million guest instructions a second in ring 0; 0 when not measured */
	uint64_t ns;                /* what the probe took */
	unsigned n_missing;
	const char *missing[KVM_PROBE_MAX_MISSING]; /* what the guest could not do; static strings */
	const char *cmdline;        /* for a Linux guest's command line on this KVM; "" when nothing is needed */
};

/* Fills *out; never fails otherwise. fd: an open /dev/kvm (borrowed), or -1 to open it here. Installs a handler for SIGRTMIN while it
 * runs; not for use from two threads at once. Needs no privilege but access to the device. */
void kvm_probe_run(int fd, struct kvm_probe *out);

/* One JSON object, no newline: {"kvm":"absent|no-permission|unusable|usable","reason":...,"boundary":"hardware|hypervisor|none","mips":N,"ns":N,
 * "api":N,"missing":[...],"cmdline":...}. Returns its length, or -1 when it does not fit in size bytes. */
int kvm_probe_json(const struct kvm_probe *p, char *buf, size_t size);

#endif
