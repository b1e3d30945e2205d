/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What CPUID tells a guest on KVM: the model, cut down to what this host's KVM supports.
 *
 * Theory of operation: leaves with feature bits are intersected with KVM_GET_SUPPORTED_CPUID bit by bit; a few bits that the
 * interrupt controllers or this backend provide themselves are kept although KVM does not list them. Leaves that are not
 * feature bits (names, topology, address widths, frequencies) come from the model; frequencies are replaced by what KVM says
 * this vCPU's TSC runs at, since a guest that believes another figure keeps wrong time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "hv/kvm/kvm_int.h"

#define MAX_ENTRIES 256

struct cpuid_list {
	struct kvm_cpuid2 h;
	struct kvm_cpuid_entry2 e[MAX_ENTRIES];
};

static const struct kvm_cpuid_entry2 *find(const struct cpuid_list *l, uint32_t leaf, uint32_t subleaf)
{
	for (uint32_t i = 0; i < l->h.nent && i < MAX_ENTRIES; i++)
		if (l->e[i].function == leaf &&
		    (!(l->e[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || l->e[i].index == subleaf))
			return &l->e[i];
	return NULL;
}

#define LEAF1_ECX_X2APIC     (1u << 21)
#define LEAF1_ECX_DEADLINE   (1u << 24)
#define LEAF1_ECX_OSXSAVE    (1u << 27)
#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define APM_EDX_INVARIANT    (1u << 8)

/* Cuts e down to what s (NULL: nothing) offers, where its registers are feature bits. */
static void mask_features(int kvm_fd, struct kvm_cpuid_entry2 *e, const struct kvm_cpuid_entry2 *s)
{
	static const struct kvm_cpuid_entry2 none;
	uint32_t keep_ecx;
	if (!s)
		s = &none;
	switch (e->function) {
	case 1:
		keep_ecx = LEAF1_ECX_HYPERVISOR | LEAF1_ECX_X2APIC;
		if (kvm_ioctl(kvm_fd, KVM_CHECK_EXTENSION, (void *)KVM_CAP_TSC_DEADLINE_TIMER) > 0)
			keep_ecx |= LEAF1_ECX_DEADLINE;
		e->ecx &= (s->ecx | keep_ecx) & ~LEAF1_ECX_OSXSAVE; /* KVM itself follows CR4.OSXSAVE */
		e->edx &= s->edx | (1u << 9) | (1u << 28); /* APIC is there; HTT is topology */
		break;
	case 7:
		if (e->index == 0) {
			e->ebx &= s->ebx;
			e->ecx &= s->ecx;
			e->edx &= s->edx;
		} else {
			e->eax &= s->eax;
			e->ebx &= s->ebx;
			e->ecx &= s->ecx;
			e->edx &= s->edx;
		}
		break;
	case 0xD:
		e->eax &= s->eax;
		e->edx &= s->edx;
		break;
	case 0x40000001:
		e->eax &= s->eax;
		break;
	case 0x80000001:
		e->ecx &= s->ecx;
		e->edx &= s->edx;
		break;
	case 0x80000007:
		/* KVM lists it only where its own clock is stable; the frequency told below is constant in any case. */
		e->edx &= s->edx | APM_EDX_INVARIANT;
		break;
	case 0x80000008:
		e->ebx &= s->ebx;
		/* No more physical address bits than the host has. */
		if ((s->eax & 0xff) && (e->eax & 0xff) > (s->eax & 0xff))
			e->eax = (e->eax & ~0xffu) | (s->eax & 0xff);
		break;
	}
}

static void set_frequency(struct kvm_cpuid_entry2 *e, uint32_t khz)
{
	if (e->function == 0x40000010) {
		e->eax = khz;
	} else if (e->function == 0x15 && e->eax) {
		/* TSC = crystal * ebx / eax. The model's crystal is the APIC timer's clock, 1 GHz in KVM too, and eax its kHz. */
		e->ebx = khz;
	} else if (e->function == 0x16 && e->eax) {
		e->eax = e->ebx = khz / 1000;
	}
}

int kvm_set_cpuid(struct kvm_vm *vm, struct kvm_vcpu *v, struct cai_error *err)
{
	const struct x86_cpu_model *m = vm->hv.cfg.model;
	cleanup_free struct cpuid_list *have = calloc(1, sizeof *have), *out = calloc(1, sizeof *out);
	if (!have || !out)
		return cai_fail(err, ENOMEM, "out of memory");
	have->h.nent = MAX_ENTRIES;
	if (kvm_ioctl(vm->hv.cfg.kvm_fd, KVM_GET_SUPPORTED_CPUID, have) < 0)
		return cai_fail_errno(err, errno, "KVM does not tell which CPUs it supports");
	int khz = kvm_ioctl(v->fd, KVM_GET_TSC_KHZ, NULL);

	for (unsigned i = 0; i < m->n && i < X86_MAX_CPUID; i++) {
		struct kvm_cpuid_entry2 *e = &out->e[out->h.nent++];
		uint32_t r[4];
		x86_cpuid(m, v->hv.index, m->entry[i].leaf, m->entry[i].subleaf, r);
		*e = (struct kvm_cpuid_entry2){
			.function = m->entry[i].leaf,
			.index = m->entry[i].subleaf,
			.flags = m->entry[i].has_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = r[0], .ebx = r[1], .ecx = r[2], .edx = r[3],
		};
		mask_features(vm->hv.cfg.kvm_fd, e, find(have, e->function, e->index));
		if (khz > 0)
			set_frequency(e, (uint32_t)khz);
		if (v->hv.index == 0)
			vm->cpuid.entry[vm->cpuid.n++] = (struct x86_cpuid_entry){
				.leaf = e->function, .subleaf = e->index, .has_subleaf = m->entry[i].has_subleaf,
				.eax = e->eax, .ebx = e->ebx, .ecx = e->ecx, .edx = e->edx};
	}
	if (kvm_ioctl(v->fd, KVM_SET_CPUID2, out) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the CPU model %s", m->name);
	return 0;
}
