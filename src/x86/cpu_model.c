/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a model is a flat list of CPUID leaves made once at start-up; x86_cpuid() looks a leaf up and patches the
 * fields that differ by CPU. What a leaf means is in SDM vol. 2 CPUID; leaves from 0x40000000 on in Linux
 * Documentation/virt/kvm/x86/cpuid.rst.
 *
 * Why model v2 says GenuineIntel, family 6, model 0x1A, stepping 5 (a Nehalem, the first x86-64-v2 CPU):
 *  - AMD's start-up code in Linux looks for northbridges in PCI space and sets LFENCE and spin-loop MSRs; Intel's does neither.
 *  - glibc 2.36 chooses memcpy and memmove by model: for a Nehalem the unaligned SSE2 ones that use REP MOVSB for long copies, which
 *    run at the host's speed under the software CPU. For an Intel model that it does not know it takes the SSSE3 ones with their
 *    shifting tables, many times slower there. (A Bonnell would be on Linux's list of CPUs that do not speculate at all,
 *    but glibc takes the slow copies for it as well.)
 *  - Linux 6.12 has no errata workaround for this model and stepping, and reads no model-specific frequency MSRs.
 * Speculation: IA32_ARCH_CAPABILITIES rules out everything that has a bit for it. For Spectre v2, which has none, IBRS_ALL makes
 * Linux prefer one write to IA32_SPEC_CTRL at start over building indirect calls as retpolines, so the model also offers
 * that MSR (0x48) and the command MSR beside it (0x49); under the software CPU they do nothing. For branch history
 * injection, which Linux assumes of every hypervisor's guest whatever BHI_NO says, BHI_CTRL makes it set a bit there instead of
 * running a clearing loop at every system call. A kernel told mitigations=off does none of this.
 *
 * The frequency leaves give the TSC and APIC clock outright, so that no kernel has to calibrate against a timer that is not there.
 */
#include "x86/cpu_model.h"

#include <stdio.h>
#include <string.h>

#include "base/util.h"

#define LEAF_KVM_BASE     0x40000000u
#define LEAF_KVM_FEATURES 0x40000001u
#define LEAF_TIMING       0x40000010u

/* Leaf 1 */
#define F1C_SSE3         BIT(0)
#define F1C_SSSE3        BIT(9)
#define F1C_CX16         BIT(13)
#define F1C_SSE41        BIT(19)
#define F1C_SSE42        BIT(20)
#define F1C_X2APIC       BIT(21)
#define F1C_POPCNT       BIT(23)
#define F1C_TSC_DEADLINE BIT(24)
#define F1C_HYPERVISOR   BIT(31)
#define F1D_FPU          BIT(0)
#define F1D_PSE          BIT(3)
#define F1D_TSC          BIT(4)
#define F1D_MSR          BIT(5)
#define F1D_PAE          BIT(6)
#define F1D_CX8          BIT(8)
#define F1D_APIC         BIT(9)
#define F1D_SEP          BIT(11)
#define F1D_PGE          BIT(13)
#define F1D_CMOV         BIT(15)
#define F1D_PAT          BIT(16)
#define F1D_PSE36        BIT(17)
#define F1D_CLFSH        BIT(19)
#define F1D_MMX          BIT(23)
#define F1D_FXSR         BIT(24)
#define F1D_SSE          BIT(25)
#define F1D_SSE2         BIT(26)
#define F1D_SS           BIT(27) /* self-snoop: memory types need no flushing */
#define F1D_HTT          BIT(28)

/* Leaf 7 */
#define F7B_SMEP      BIT(7)
#define F7B_ERMS      BIT(9)
#define F7B_SMAP      BIT(20)
#define F7D_FSRM      BIT(4)
#define F6A_ARAT BIT(2)
#define F7D_SPEC_CTRL BIT(26)
#define F7D_ARCH_CAPS BIT(29)
#define F72D_BHI_CTRL BIT(4)

/* Leaves 0x80000001, 7, 8 */
#define FXC_LAHF    BIT(0)
#define FXD_SYSCALL BIT(11)
#define FXD_NX      BIT(20)
#define FXD_1GB     BIT(26)
#define FXD_RDTSCP  BIT(27)
#define FXD_LM      BIT(29)
#define FX7D_INVARIANT_TSC BIT(8)

/* KVM features */
#define KVM_CLOCKSOURCE2        BIT(3)
#define KVM_CLOCKSOURCE_STABLE  BIT(24)

#define APIC_BUS_KHZ 1000000u
#define SIGNATURE_NEHALEM 0x000106A5u

static void add(struct x86_cpu_model *m, uint32_t leaf, int subleaf, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	if (m->n == X86_MAX_CPUID)
		return;
	m->entry[m->n++] = (struct x86_cpuid_entry){
		.leaf = leaf,
		.subleaf = subleaf < 0 ? 0 : (uint32_t)subleaf,
		.has_subleaf = subleaf >= 0,
		.eax = (uint32_t)a,
		.ebx = (uint32_t)b,
		.ecx = (uint32_t)c,
		.edx = (uint32_t)d,
	};
}

/* Bits needed to number n things. */
static unsigned id_bits(unsigned n)
{
	unsigned bits = 0;
	while ((1u << bits) < n)
		bits++;
	return bits;
}

/* One level of leaf 4: type 1 data, 2 instruction, 3 unified; 64-byte lines. */
static void add_cache(struct x86_cpu_model *m, int index, unsigned type, unsigned level, unsigned ways, unsigned sets,
		      unsigned sharing, unsigned cores)
{
	uint32_t eax = type | level << 5 | 1u << 8 | (sharing - 1) << 14 | (cores - 1) << 26;
	add(m, 4, index, eax, 63 | (ways - 1) << 22, sets - 1, 0);
}

static void add_brand(struct x86_cpu_model *m, const char *brand)
{
	uint8_t text[48] = {0};
	memcpy(text, brand, strnlen(brand, sizeof(text) - 1));
	for (unsigned i = 0; i < 3; i++) {
		const uint8_t *p = text + 16 * i;
		add(m, 0x80000002u + i, -1, load_le32(p), load_le32(p + 4), load_le32(p + 8), load_le32(p + 12));
	}
}

static void add_topology(struct x86_cpu_model *m, unsigned n_vcpus)
{
	/* One package; every vCPU a core of its own. EDX (the x2APIC id) is patched by x86_cpuid(). */
	add(m, 0xB, 0, 0, 1, 0 | 1 << 8, 0);
	add(m, 0xB, 1, id_bits(n_vcpus), n_vcpus, 1 | 2 << 8, 0);
	add(m, 0xB, 2, 0, 0, 2, 0);
}

static void fill_v2(struct x86_cpu_model *m, uint32_t tsc_khz, unsigned n_vcpus)
{
	unsigned cores = 1u << id_bits(n_vcpus); /* leaf 4 and leaf 1 count ids, not CPUs */

	add(m, 0, -1, 0x16, 0x756E6547, 0x6C65746E, 0x49656E69); /* GenuineIntel */
	add(m, 1, -1, SIGNATURE_NEHALEM, 8u << 8 | cores << 16,
	    F1C_SSE3 | F1C_SSSE3 | F1C_CX16 | F1C_SSE41 | F1C_SSE42 | F1C_X2APIC | F1C_POPCNT | F1C_TSC_DEADLINE |
		    F1C_HYPERVISOR,
	    F1D_FPU | F1D_PSE | F1D_TSC | F1D_MSR | F1D_PAE | F1D_CX8 | F1D_APIC | F1D_SEP | F1D_PGE | F1D_CMOV |
		    F1D_PAT | F1D_PSE36 | F1D_CLFSH | F1D_MMX | F1D_FXSR | F1D_SSE | F1D_SSE2 | F1D_SS |
		    (n_vcpus > 1 ? F1D_HTT : 0));
	/* Descriptor 0xFF: caches are in leaf 4; 0x03, 0x4F: plausible TLBs for programs that look here only. */
	add(m, 2, -1, 0x00FF4F01 | 0x03000000, 0, 0, 0);
	add_cache(m, 0, 1, 1, 8, 64, 1, cores);         /* 32 KiB data */
	add_cache(m, 1, 2, 1, 4, 128, 1, cores);        /* 32 KiB instruction */
	add_cache(m, 2, 3, 2, 8, 512, 1, cores);        /* 256 KiB */
	add_cache(m, 3, 3, 3, 16, 8192, cores, cores);  /* 8 MiB, shared */
	/* The APIC timer always runs: without this bit Linux keeps a periodic tick, for fear that the timer stops in idle. */
	add(m, 6, -1, F6A_ARAT, 0, 0, 0);
	add(m, 7, 0, 2, F7B_SMEP | F7B_ERMS | F7B_SMAP, 0, F7D_FSRM | F7D_SPEC_CTRL | F7D_ARCH_CAPS);
	add(m, 7, 2, 0, 0, 0, F72D_BHI_CTRL);
	add_topology(m, n_vcpus);
	/* TSC = crystal * ebx / eax; the crystal is the APIC timer's clock. */
	add(m, 0x15, -1, APIC_BUS_KHZ, tsc_khz, APIC_BUS_KHZ * 1000, 0);
	add(m, 0x16, -1, tsc_khz / 1000, tsc_khz / 1000, 100, 0);

	add(m, LEAF_KVM_BASE, -1, LEAF_TIMING, 0x4B4D564B, 0x564B4D56, 0x0000004D); /* KVMKVMKVM */
	add(m, LEAF_KVM_FEATURES, -1, KVM_CLOCKSOURCE2 | KVM_CLOCKSOURCE_STABLE, 0, 0, 0);
	add(m, LEAF_TIMING, -1, tsc_khz, APIC_BUS_KHZ, 0, 0);

	add(m, 0x80000000u, -1, 0x80000008u, 0, 0, 0);
	add(m, 0x80000001u, -1, 0, 0, FXC_LAHF, FXD_SYSCALL | FXD_NX | FXD_1GB | FXD_RDTSCP | FXD_LM);
	add_brand(m, "Caisson v2 CPU");
	add(m, 0x80000006u, -1, 0, 0, 256u << 16 | 6u << 12 | 64, 0);
	add(m, 0x80000007u, -1, 0, 0, 0, FX7D_INVARIANT_TSC);
	add(m, 0x80000008u, -1, X86_PHYS_BITS | X86_LINEAR_BITS << 8, 0, 0, 0);
}

int x86_cpu_model_init(struct x86_cpu_model *m, const char *name, uint32_t tsc_khz, unsigned n_vcpus)
{
	if (strcmp(name, "v2") != 0 || n_vcpus < 1 || n_vcpus > 64)
		return -1;
	memset(m, 0, sizeof(*m));
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->version = 1;
	fill_v2(m, tsc_khz, n_vcpus);
	return 0;
}

static const struct x86_cpuid_entry *find(const struct x86_cpu_model *m, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct x86_cpuid_entry *e = &m->entry[i];
		if (e->leaf == leaf && (!e->has_subleaf || e->subleaf == subleaf))
			return e;
	}
	return NULL;
}

void x86_cpuid(const struct x86_cpu_model *m, uint32_t apic_id, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	const struct x86_cpuid_entry *e = find(m, leaf, subleaf);
	if (!e) {
		memset(out, 0, 4 * sizeof(out[0]));
		/* Levels past the last echo their number and the id (SDM: leaf 0xB, invalid sub-leaves). */
		if (leaf == 0xB) {
			out[2] = subleaf & 0xFF;
			out[3] = apic_id;
		}
		return;
	}
	out[0] = e->eax;
	out[1] = e->ebx;
	out[2] = e->ecx;
	out[3] = e->edx;
	if (leaf == 1)
		out[1] = (out[1] & 0x00FFFFFFu) | apic_id << 24;
	else if (leaf == 0xB)
		out[3] = apic_id;
}
