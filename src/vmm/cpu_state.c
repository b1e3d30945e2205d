/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a table lists the fields of struct x86_state in the order of the format, each with its size and count, so that
 * writing and reading cannot disagree. Then the few things are checked that a guest can never bring about and that code behind this relies
 * on: control registers with bits the processor does not have, paging without what it takes, numbers out of their range. The registers
 * that a guest may set as it likes are its own business, wrong as they may be.
 */
#include "vmm/cpu_state.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/util.h"
#include "x86/cpu.h"

struct field {
	uint16_t offset, size, count;
};

#define F(f)    {offsetof(struct x86_state, f), sizeof(((struct x86_state *)0)->f), 1}
#define A(f, n) {offsetof(struct x86_state, f), sizeof(((struct x86_state *)0)->f[0]), n}
#define SEG(f)  {offsetof(struct x86_state, f.base), 8, 1}, {offsetof(struct x86_state, f.limit), 4, 1}, \
		{offsetof(struct x86_state, f.selector), 2, 1}, {offsetof(struct x86_state, f.attr), 2, 1}
#define DT(f)   {offsetof(struct x86_state, f.base), 8, 1}, {offsetof(struct x86_state, f.limit), 2, 1}

static const struct field fields[] = {
	A(gpr, 16), F(rip), F(rflags),
	SEG(seg[0]), SEG(seg[1]), SEG(seg[2]), SEG(seg[3]), SEG(seg[4]), SEG(seg[5]), SEG(tr), SEG(ldtr), DT(gdtr), DT(idtr),
	F(cr0), F(cr2), F(cr3), F(cr4), F(cr8), F(efer), F(xcr0), A(dr, 8),
	F(fx.fcw), F(fx.fsw), F(fx.ftw), F(fx.fop), F(fx.fip), F(fx.fdp), F(fx.mxcsr), F(fx.mxcsr_mask),
	{offsetof(struct x86_state, fx.st), 1, 128}, {offsetof(struct x86_state, fx.xmm), 1, 256},
	F(star), F(lstar), F(cstar), F(sfmask), F(kernel_gs_base), F(sysenter_cs), F(sysenter_esp), F(sysenter_eip),
	F(pat), F(mtrr_def_type), F(misc_enable), F(tsc_aux), A(mtrr, X86_N_MTRRS),
	F(apic_base), F(tsc_deadline), F(tsc), F(tsc_adjust),
	F(kvm_wall_clock), F(kvm_system_time), F(kvm_async_pf), F(kvm_steal_time), F(kvm_poll_control), F(kvm_pv_eoi),
	F(mp_state), F(irq_shadow), F(nmi_pending), F(nmi_masked), F(event_pending), F(event_vector), F(event_has_error), F(event_soft),
	F(event_error), A(lapic, X86_LAPIC_REGS),
};

void cpu_state_put(struct buf *out, const struct x86_state *s)
{
	/* The host is little-endian like the format, so each item is its own image. */
	for (unsigned i = 0; i < ARRAY_LEN(fields); i++)
		buf_put_bytes(out, (const char *)s + fields[i].offset, (size_t)fields[i].size * fields[i].count);
}

#define CR0_KNOWN  (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | BIT(29) | BIT(30) | X86_CR0_PG)
#define CR4_KNOWN  0x37fffffull /* all that any model may have; an accelerator knows better */
#define EFER_KNOWN (X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE)

static int check(const struct x86_state *s, struct cai_error *err)
{
	const bool paging = s->cr0 & X86_CR0_PG, lme = s->efer & X86_EFER_LME, lma = s->efer & X86_EFER_LMA;
	if ((s->cr0 & ~(uint64_t)CR0_KNOWN) || (s->cr4 & ~CR4_KNOWN) || (s->efer & ~(uint64_t)EFER_KNOWN))
		return cai_fail(err, EINVAL, "a control register has bits that do not exist");
	if (paging && (!(s->cr0 & X86_CR0_PE) || !(s->cr4 & X86_CR4_PAE) || !lme))
		return cai_fail(err, EINVAL, "paging is on in a mode that there is not");
	if (lma != (paging && lme))
		return cai_fail(err, EINVAL, "long mode contradicts the control registers");
	if (s->cr8 > 15 || s->mp_state > X86_MP_HALTED || s->irq_shadow > 2)
		return cai_fail(err, EINVAL, "a field is out of its range");
	if (s->nmi_pending > 1 || s->nmi_masked > 1 || s->event_pending > 1 || s->event_has_error > 1 || s->event_soft > 1)
		return cai_fail(err, EINVAL, "a flag is neither set nor clear");
	if (s->rflags & X86_FL_VM)
		return cai_fail(err, EINVAL, "it is in virtual 8086 mode, which there is not");
	return 0;
}

int cpu_state_get(struct buf_reader *r, struct x86_state *s, struct cai_error *err)
{
	memset(s, 0, sizeof(*s));
	for (unsigned i = 0; i < ARRAY_LEN(fields); i++) {
		const size_t n = (size_t)fields[i].size * fields[i].count;
		const void *p = buf_get_bytes(r, n);
		if (p)
			memcpy((char *)s + fields[i].offset, p, n);
	}
	if (!buf_done(r))
		return cai_fail(err, EINVAL, "it has another size than a processor's state");
	return check(s, err);
}

void vm_state_put(struct buf *out, const struct hv_vm_state *s)
{
	buf_put_u8(out, s->ioapic_id);
	buf_put_u8(out, s->ioapic_select);
	buf_put_u16(out, 0);
	buf_put_u32(out, s->ioapic_level);
	for (unsigned i = 0; i < HV_N_GSI; i++)
		buf_put_u64(out, s->ioapic_rte[i]);
	buf_put_u64(out, s->clock_ns);
	buf_put_u64(out, s->clock_tsc);
}

int vm_state_get(struct buf_reader *r, struct hv_vm_state *s, struct cai_error *err)
{
	*s = (struct hv_vm_state){0};
	s->ioapic_id = buf_get_u8(r);
	s->ioapic_select = buf_get_u8(r);
	buf_get_u16(r);
	s->ioapic_level = buf_get_u32(r);
	for (unsigned i = 0; i < HV_N_GSI; i++)
		s->ioapic_rte[i] = buf_get_u64(r);
	s->clock_ns = buf_get_u64(r);
	s->clock_tsc = buf_get_u64(r);
	if (!buf_done(r))
		return cai_fail(err, EINVAL, "it has another size than such a state");
	if (s->ioapic_level >> HV_N_GSI)
		return cai_fail(err, EINVAL, "it tells of interrupt pins that there are not");
	return 0;
}

void cpuid_put(struct buf *out, const struct x86_cpu_model *m)
{
	buf_put_u32(out, m->n);
	for (unsigned i = 0; i < m->n; i++) {
		const struct x86_cpuid_entry *e = &m->entry[i];
		buf_put_u32(out, e->leaf);
		buf_put_u32(out, e->subleaf);
		buf_put_u32(out, e->eax);
		buf_put_u32(out, e->ebx);
		buf_put_u32(out, e->ecx);
		buf_put_u32(out, e->edx);
	}
}

/* Which registers of a leaf are feature bits, one bit each from EAX on. */
static unsigned feature_registers(uint32_t leaf, uint32_t subleaf)
{
	switch (leaf) {
	case 1:
	case 0x80000001u:
		return 4 | 8;
	case 7:
		return subleaf ? 1 | 2 | 4 | 8 : 2 | 4 | 8;
	case 0x40000001u:
		return 1;
	case 0x80000007u:
		return 8;
	}
	return 0;
}

int cpuid_check(struct buf_reader *r, const struct x86_cpu_model *now, struct cai_error *err)
{
	static const char *const names[] = {"EAX", "EBX", "ECX", "EDX"};
	uint32_t n = buf_get_u32(r);
	if (r->bad || n > X86_MAX_CPUID || r->left != n * 24ull)
		return cai_fail(err, EINVAL, "the snapshot's list of CPU features is malformed");
	while (n--) {
		uint32_t leaf = buf_get_u32(r), subleaf = buf_get_u32(r), have[4];
		unsigned which = feature_registers(leaf, subleaf);
		x86_cpuid(now, 0, leaf, subleaf, have);
		for (unsigned i = 0; i < 4; i++) {
			uint32_t had = buf_get_u32(r), lacks = had & ~have[i];
			if ((which >> i & 1) && lacks)
				return cai_fail(err, ENOTSUP, "the snapshot's guest uses CPU features that this machine lacks (CPUID 0x%x %s, bits 0x%x)",
						leaf, names[i], lacks);
		}
	}
	return 0;
}
