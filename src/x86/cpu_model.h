/* SPDX-License-Identifier: Apache-2.0 */
/* Named, versioned CPU models: what CPUID tells a guest (SDM vol. 2 CPUID). */
#ifndef X86_CPU_MODEL_H
#define X86_CPU_MODEL_H

#include <stdint.h>

struct x86_cpuid_entry {
	uint32_t leaf, subleaf;
	uint8_t has_subleaf; /* subleaf counts in the match */
	uint32_t eax, ebx, ecx, edx;
};

#define X86_MAX_CPUID 40

struct x86_cpu_model {
	char name[16]; /* "v2", ... */
	unsigned version;
	unsigned n;
	struct x86_cpuid_entry entry[X86_MAX_CPUID];
};

/* Fills *m with the named model ("v2"). Returns 0, or -1 when there is no such model. tsc_khz: the guest TSC's frequency, told
 * in leaves 0x15/0x16 and 0x40000010. n_vcpus: for topology leaves. */
int x86_cpu_model_init(struct x86_cpu_model *m, const char *name, uint32_t tsc_khz, unsigned n_vcpus);

/* CPUID as vCPU apic_id sees it: looks up the leaf and fills in what differs by CPU (APIC ids) and by state (OSXSAVE is
 * not set here). Unknown leaves read as zero. */
void x86_cpuid(const struct x86_cpu_model *m, uint32_t apic_id, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
