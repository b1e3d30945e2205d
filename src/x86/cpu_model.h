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

/* What IA32_ARCH_CAPABILITIES (MSR 0x10A) reads as under model v2: not susceptible to anything that a kernel would work
 * around. The software CPU answers it itself. Bits as in SDM vol. 4: RDCL_NO 0, SKIP_L1DFL_VMENTRY 3, SSB_NO 4, MDS_NO 5,
 * PSCHANGE_MC_NO 6, TAA_NO 8, SBDR_SSDP_NO 13, FBSDP_NO 14, PSDP_NO 15, BHI_NO 20, PBRSB_NO 24, GDS_NO 26, RFDS_NO 27,
 * ITS_NO 62. IBRS_ALL (1) obliges the CPU to offer IA32_SPEC_CTRL
 * (MSR 0x48: bits 0..2 and 10 may be written; under the software CPU without effect, reading as 0) and IA32_PRED_CMD (0x49:
 * write-only, bit 0, no effect). */
#define X86_MSR_SPEC_CTRL         0x48u
#define X86_MSR_PRED_CMD          0x49u
#define X86_SPEC_CTRL_WRITABLE    0x407ull
#define X86_MSR_ARCH_CAPABILITIES 0x10Au
#define X86_V2_ARCH_CAPABILITIES                                                                                   \
	(1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 | 1ull << 13 | 1ull << 14 | \
	 1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 | 1ull << 27 | 1ull << 62)

#define X86_PHYS_BITS   46 /* CPUID 0x80000008 of every model */
#define X86_LINEAR_BITS 48

struct x86_cpu_model {
	char name[16]; /* "v2", ... */
	unsigned version;
	unsigned n;
	struct x86_cpuid_entry entry[X86_MAX_CPUID];
};

/* Fills *m with the named model ("v2"). Returns 0, or -1 when there is no such model. tsc_khz: the guest TSC's frequency, told
 * in leaves 0x15/0x16 and 0x40000010. n_vcpus (1..64): for topology leaves. */
int x86_cpu_model_init(struct x86_cpu_model *m, const char *name, uint32_t tsc_khz, unsigned n_vcpus);

/* CPUID as vCPU apic_id sees it: looks up the leaf and fills in what differs by CPU (APIC ids) and by state (OSXSAVE is
 * not set here). Unknown leaves read as zero. */
void x86_cpuid(const struct x86_cpu_model *m, uint32_t apic_id, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
