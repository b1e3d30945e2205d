/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The defects of one family of KVM and how this backend lives with them; the only place that knows about them.
 *
 * "kvm_pvm" is a KVM without VMX or SVM: it executes guest ring 3 natively and interprets guest ring 0. It serves to test this
 * backend, never to be chosen for speed. On any other KVM all of this is inert.
 */
#ifndef HV_KVM_PVM_QUIRKS_H
#define HV_KVM_PVM_QUIRKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct kvm_vcpu;

#define KVM_QUIRK_PVM 0x1u /* the host's KVM is of that family */

struct kvm_quirk_vcpu {
	uint64_t lstar;      /* where SYSCALL leads; 0 before the guest has said */
	uint64_t pf_handler; /* linear address of the guest's #PF handler: a breakpoint is there; 0 without one */
	bool step;           /* hv_step is on */
};

/* KVM_QUIRK_* of this host, if it has a KVM at all. Makes no system call. */
unsigned kvm_quirks_detect(void);

/* What a Linux guest's command line needs on a KVM with these quirks; "" where nothing. */
const char *kvm_quirks_cmdline(unsigned quirks);

int kvm_quirks_vcpu_init(struct kvm_vcpu *v, struct cai_error *err);
/* Answers KVM_EXIT_X86_RDMSR and _WRMSR. */
void kvm_quirks_msr(struct kvm_vcpu *v);
/* LSTAR was set from outside the guest, or by it. */
void kvm_quirks_lstar_set(struct kvm_vcpu *v, uint64_t lstar);
/* KVM_EXIT_DEBUG: was it a breakpoint of ours, and is it dealt with? *why says why not. */
enum kvm_quirk_result { KVM_QUIRK_NOT_OURS, KVM_QUIRK_DONE, KVM_QUIRK_FAILED };
enum kvm_quirk_result kvm_quirks_debug(struct kvm_vcpu *v, const char **why);
/* Single-steps (or not) without losing the breakpoint of ours. */
int kvm_quirks_guest_debug(struct kvm_vcpu *v, bool step);

#endif
