/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which accelerator runs a microVM, and which boundary that is.
 *
 * What KVM is worth on this host is found by the monitor's probe (`caisson-vmm --probe`), which runs a tiny
 * guest. Its verdict is cached in the root directory until the host reboots, the monitor changes, or
 * /dev/kvm appears, vanishes or changes its permissions.
 */
#ifndef SANDBOX_ACCEL_H
#define SANDBOX_ACCEL_H

#include "base/error.h"
#include "sandbox/store.h"
#include "sandbox/spec.h"

enum kvm_state { KVM_ABSENT, KVM_NO_PERMISSION, KVM_UNUSABLE, KVM_USABLE };

struct kvm_verdict {
	enum kvm_state state;
	enum boundary boundary; /* what --accel kvm would be; BOUNDARY_NONE when it cannot run at all */
	char reason[256];	/* one clause: why it is not usable, or what it is */
	char cmdline[512];	/* kernel parameters that a guest on this KVM needs; usually empty */
	double mips;		/* ring-0 speed the probe saw, million instructions a second; 0: not timed */
	double probe_ms;	/* what the probe took */
	bool cached;
};

/* The verdict, cached or probed now; fresh: probe in any case. Fails only when the monitor cannot be run. */
int accel_probe(struct store *r, bool fresh, struct kvm_verdict *v, struct cai_error *err);

struct accel_pick {
	bool kvm;
	enum boundary boundary;
	struct kvm_verdict verdict; /* valid when probed */
	bool probed;
};

/* Chooses for the spec. Fails, saying what would satisfy it, when the demanded boundary cannot be had or KVM
 * is demanded and cannot run at all. */
int accel_choose(struct store *r, const struct sandbox_spec *s, struct accel_pick *p,
		 struct cai_error *err);

const char *kvm_state_name(enum kvm_state s);
/* One clause for the user on how to get a usable KVM, by state. */
const char *kvm_mend(enum kvm_state s);

#endif
