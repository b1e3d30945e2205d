/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct x86_state to and from KVM's registers.
 *
 * Theory of operation: KVM splits a vCPU's state over many calls, and the order of setting them matters: special registers before
 * the local APIC (its mode is in IA32_APIC_BASE), the local APIC before the TSC deadline (a deadline is only kept in deadline mode),
 * general registers before events (setting them drops pending exceptions). MSRs that the host's KVM lacks read as 0 here, and
 * setting one to 0 is not an error.
 */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "hv/kvm/kvm_int.h"

/* The order of setting: the APIC timer's deadline is not among them, it goes last. */
static const struct {
	uint32_t index;
	size_t offset;
} msr_table[] = {
#define M(i, f) {i, offsetof(struct x86_state, f)}
	M(0xC0000081, star),
	M(0xC0000082, lstar),
	M(0xC0000083, cstar),
	M(0xC0000084, sfmask),
	M(0xC0000102, kernel_gs_base),
	M(0x174, sysenter_cs),
	M(0x175, sysenter_esp),
	M(0x176, sysenter_eip),
	M(0x277, pat),
	M(0x2FF, mtrr_def_type),
	M(0x1A0, misc_enable),
	M(0xC0000103, tsc_aux),
	M(0x10, tsc),
	M(0x3B, tsc_adjust),
	M(0x4B564D00, kvm_wall_clock),
	M(0x4B564D01, kvm_system_time),
	M(0x4B564D02, kvm_async_pf),
	M(0x4B564D03, kvm_steal_time),
	M(0x4B564D05, kvm_poll_control),
	M(0x4B564D04, kvm_pv_eoi),
#undef M
};
#define MSR_TSC          0x10
#define MSR_TSC_ADJUST   0x3B
#define MSR_TSC_DEADLINE 0x6E0

struct msr_list {
	struct kvm_msrs h;
	struct kvm_msr_entry e[ARRAY_LEN(msr_table)];
};

int kvm_msr_get(struct kvm_vcpu *v, uint32_t index, uint64_t *val)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} l = {.h.nmsrs = 1, .e.index = index};
	if (kvm_ioctl(v->fd, KVM_GET_MSRS, &l) != 1)
		return -1;
	*val = l.e.data;
	return 0;
}

int kvm_msr_set(struct kvm_vcpu *v, uint32_t index, uint64_t val)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} l = {.h.nmsrs = 1, .e = {.index = index, .data = val}};
	return kvm_ioctl(v->fd, KVM_SET_MSRS, &l) == 1 ? 0 : -1;
}

static uint64_t *msr_field(struct x86_state *s, size_t i)
{
	return (uint64_t *)((char *)s + msr_table[i].offset);
}

static int get_msrs(struct kvm_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct msr_list l;
	for (size_t done = 0; done < ARRAY_LEN(msr_table);) {
		size_t n = ARRAY_LEN(msr_table) - done;
		memset(&l, 0, sizeof l);
		l.h.nmsrs = (uint32_t)n;
		for (size_t i = 0; i < n; i++)
			l.e[i].index = msr_table[done + i].index;
		int r = kvm_ioctl(v->fd, KVM_GET_MSRS, &l);
		if (r < 0)
			return cai_fail_errno(err, errno, "cannot read MSRs of CPU %u", v->hv.index);
		for (int i = 0; i < r; i++)
			*msr_field(s, done + (size_t)i) = l.e[i].data;
		done += (size_t)r;
		if ((size_t)r < n)
			*msr_field(s, done++) = 0; /* this one does not exist here */
	}
	if (kvm_msr_get(v, MSR_TSC_DEADLINE, &s->tsc_deadline) < 0)
		s->tsc_deadline = 0;
	return 0;
}

static int set_msrs(struct kvm_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	struct msr_list l;
	for (size_t done = 0; done < ARRAY_LEN(msr_table);) {
		size_t n = ARRAY_LEN(msr_table) - done;
		memset(&l, 0, sizeof l);
		l.h.nmsrs = (uint32_t)n;
		for (size_t i = 0; i < n; i++) {
			l.e[i].index = msr_table[done + i].index;
			l.e[i].data = *msr_field((struct x86_state *)s, done + i);
		}
		int r = kvm_ioctl(v->fd, KVM_SET_MSRS, &l);
		if (r < 0)
			return cai_fail_errno(err, errno, "cannot set MSRs of CPU %u", v->hv.index);
		if ((size_t)r < n && l.e[r].data != 0 && l.e[r].index != 0x1A0 && l.e[r].index != 0x2FF)
			return cai_fail(err, ENOTSUP, "this host's KVM does not accept 0x%llx in MSR 0x%x",
					(unsigned long long)l.e[r].data, l.e[r].index);
		done += (size_t)r + ((size_t)r < n);
	}
	return 0;
}

static void seg_from_kvm(struct x86_segment *d, const struct kvm_segment *k)
{
	d->base = k->base;
	d->limit = k->limit;
	d->selector = k->selector;
	d->attr = (uint16_t)(k->type | k->s << 4 | k->dpl << 5 | (k->present && !k->unusable) << 7 | k->avl << 12 |
			     k->l << 13 | k->db << 14 | k->g << 15);
}

static void seg_to_kvm(struct kvm_segment *k, const struct x86_segment *d)
{
	*k = (struct kvm_segment){
		.base = d->base,
		.limit = d->limit,
		.selector = d->selector,
		.type = d->attr & 15,
		.s = d->attr >> 4 & 1,
		.dpl = d->attr >> 5 & 3,
		.present = d->attr >> 7 & 1,
		.avl = d->attr >> 12 & 1,
		.l = d->attr >> 13 & 1,
		.db = d->attr >> 14 & 1,
		.g = d->attr >> 15 & 1,
		.unusable = !(d->attr & X86_ATTR_P),
	};
}

static int get_regs(struct kvm_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct kvm_regs r;
	if (kvm_ioctl(v->fd, KVM_GET_REGS, &r) < 0)
		return cai_fail_errno(err, errno, "cannot read the registers of CPU %u", v->hv.index);
	const uint64_t g[16] = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
				r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
	memcpy(s->gpr, g, sizeof g);
	s->rip = r.rip;
	s->rflags = r.rflags;
	return 0;
}

static int set_regs(struct kvm_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	const uint64_t *g = s->gpr;
	struct kvm_regs r = {
		.rax = g[X86_RAX], .rcx = g[X86_RCX], .rdx = g[X86_RDX], .rbx = g[X86_RBX],
		.rsp = g[X86_RSP], .rbp = g[X86_RBP], .rsi = g[X86_RSI], .rdi = g[X86_RDI],
		.r8 = g[8], .r9 = g[9], .r10 = g[10], .r11 = g[11],
		.r12 = g[12], .r13 = g[13], .r14 = g[14], .r15 = g[15],
		.rip = s->rip, .rflags = s->rflags | 2,
	};
	if (kvm_ioctl(v->fd, KVM_SET_REGS, &r) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the registers of CPU %u", v->hv.index);
	return 0;
}

static int get_sregs(struct kvm_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct kvm_sregs k;
	if (kvm_ioctl(v->fd, KVM_GET_SREGS, &k) < 0)
		return cai_fail_errno(err, errno, "cannot read the special registers of CPU %u", v->hv.index);
	const struct kvm_segment *seg[X86_N_SEGS] = {&k.es, &k.cs, &k.ss, &k.ds, &k.fs, &k.gs};
	for (unsigned i = 0; i < X86_N_SEGS; i++)
		seg_from_kvm(&s->seg[i], seg[i]);
	seg_from_kvm(&s->tr, &k.tr);
	seg_from_kvm(&s->ldtr, &k.ldt);
	s->gdtr = (struct x86_dtable){k.gdt.base, k.gdt.limit};
	s->idtr = (struct x86_dtable){k.idt.base, k.idt.limit};
	s->cr0 = k.cr0;
	s->cr2 = k.cr2;
	s->cr3 = k.cr3;
	s->cr4 = k.cr4;
	s->cr8 = k.cr8;
	s->efer = k.efer;
	s->apic_base = k.apic_base;
	return 0;
}

static int set_sregs(struct kvm_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	struct kvm_sregs k = {0};
	struct kvm_segment *seg[X86_N_SEGS] = {&k.es, &k.cs, &k.ss, &k.ds, &k.fs, &k.gs};
	for (unsigned i = 0; i < X86_N_SEGS; i++)
		seg_to_kvm(seg[i], &s->seg[i]);
	seg_to_kvm(&k.tr, &s->tr);
	seg_to_kvm(&k.ldt, &s->ldtr);
	/* VMX refuses to enter a guest whose task register is not a busy TSS, which software never looks at before it has loaded one. */
	if (!k.tr.present) {
		k.tr.present = 1;
		k.tr.unusable = 0;
		k.tr.type = 11;
		k.tr.s = 0;
		if (!k.tr.limit)
			k.tr.limit = 0xffff;
	}
	k.gdt = (struct kvm_dtable){.base = s->gdtr.base, .limit = s->gdtr.limit};
	k.idt = (struct kvm_dtable){.base = s->idtr.base, .limit = s->idtr.limit};
	k.cr0 = s->cr0;
	k.cr2 = s->cr2;
	k.cr3 = s->cr3;
	k.cr4 = s->cr4;
	k.cr8 = s->cr8;
	k.efer = s->efer;
	k.apic_base = s->apic_base ? s->apic_base : HV_LAPIC_BASE | 0x800u | (v->hv.index == 0 ? 0x100u : 0);
	if (kvm_ioctl(v->fd, KVM_SET_SREGS, &k) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the special registers of CPU %u", v->hv.index);
	return 0;
}

/* KVM_GET_FPU would leave MXCSR out, so this goes by the XSAVE image: the FXSAVE image first, then a header that starts with the
 * components it holds (SDM vol. 1 section 13.4). */
#define XSAVE_HEADER   512
#define XSTATE_X87_SSE 3u

static int get_fpu(struct kvm_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct kvm_xsave k;
	_Static_assert(sizeof s->fx == XSAVE_HEADER, "the FXSAVE image has 512 bytes");
	if (kvm_ioctl(v->fd, KVM_GET_XSAVE, &k) < 0)
		return cai_fail_errno(err, errno, "cannot read the floating-point state of CPU %u", v->hv.index);
	memcpy(&s->fx, k.region, sizeof s->fx);
	struct kvm_xcrs x = {0};
	s->xcr0 = 1;
	if (kvm_vm_of(v->hv.vm)->has_xcrs && kvm_ioctl(v->fd, KVM_GET_XCRS, &x) == 0 && x.nr_xcrs)
		s->xcr0 = x.xcrs[0].value;
	return 0;
}

static int set_fpu(struct kvm_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	struct kvm_xsave k;
	struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = s->xcr0}};
	if (s->xcr0 > 1 && kvm_vm_of(v->hv.vm)->has_xcrs && kvm_ioctl(v->fd, KVM_SET_XCRS, &x) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept XCR0 of CPU %u", v->hv.index);
	/* What lies beyond the FXSAVE image stays as it is. */
	if (kvm_ioctl(v->fd, KVM_GET_XSAVE, &k) < 0)
		return cai_fail_errno(err, errno, "cannot read the floating-point state of CPU %u", v->hv.index);
	memcpy(k.region, &s->fx, sizeof s->fx);
	k.region[24 / 4] &= 0xffff; /* MXCSR's reserved bits would be refused */
	k.region[XSAVE_HEADER / 4] |= XSTATE_X87_SSE;
	if (kvm_ioctl(v->fd, KVM_SET_XSAVE, &k) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the floating-point state of CPU %u",
				      v->hv.index);
	return 0;
}

static int get_lapic(struct kvm_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct kvm_lapic_state l;
	if (kvm_ioctl(v->fd, KVM_GET_LAPIC, &l) < 0)
		return cai_fail_errno(err, errno, "cannot read the local APIC of CPU %u", v->hv.index);
	for (unsigned i = 0; i < X86_LAPIC_REGS; i++)
		memcpy(&s->lapic[i], l.regs + 16 * i, 4);
	return 0;
}

static int set_lapic(struct kvm_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	struct kvm_lapic_state l = {0};
	/* A state that says nothing about the local APIC (its version register is never 0) leaves it as after RESET. */
	if (!s->lapic[3])
		return 0;
	for (unsigned i = 0; i < X86_LAPIC_REGS; i++)
		memcpy(l.regs + 16 * i, &s->lapic[i], 4);
	if (kvm_ioctl(v->fd, KVM_SET_LAPIC, &l) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the local APIC of CPU %u", v->hv.index);
	return 0;
}

static int get_events(struct kvm_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct kvm_vcpu_events e = {0};
	if (kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e) < 0)
		return cai_fail_errno(err, errno, "cannot read the events of CPU %u", v->hv.index);
	/* SVM knows one shadow only and shows both bits. */
	s->irq_shadow = (e.interrupt.shadow & KVM_X86_SHADOW_INT_STI)	   ? 1
			: (e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS) ? 2
									   : 0;
	s->nmi_pending = e.nmi.pending || e.nmi.injected;
	s->nmi_masked = e.nmi.masked;
	s->event_pending = e.exception.injected || e.interrupt.injected;
	s->event_vector = e.exception.injected ? e.exception.nr : e.interrupt.injected ? e.interrupt.nr : 0;
	s->event_has_error = e.exception.injected && e.exception.has_error_code;
	s->event_error = s->event_has_error ? e.exception.error_code : 0;
	s->event_soft = !e.exception.injected && e.interrupt.injected && e.interrupt.soft;
	return 0;
}

static int set_events(struct kvm_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	bool irq = s->event_pending && (s->event_soft || s->event_vector >= 32);
	struct kvm_vcpu_events e = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
		.exception.injected = s->event_pending && !irq,
		.exception.nr = s->event_vector,
		.exception.has_error_code = s->event_has_error,
		.exception.error_code = s->event_error,
		.interrupt.injected = irq,
		.interrupt.nr = irq ? s->event_vector : 0,
		.interrupt.soft = irq && s->event_soft,
		.interrupt.shadow = s->irq_shadow == 2	 ? KVM_X86_SHADOW_INT_MOV_SS
				    : s->irq_shadow == 1 ? KVM_X86_SHADOW_INT_STI
							 : 0,
		.nmi.pending = s->nmi_pending,
		.nmi.masked = s->nmi_masked,
	};
	if (!e.exception.injected)
		e.exception.nr = 0;
	if (kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the events of CPU %u", v->hv.index);
	return 0;
}

static int get_debug(struct kvm_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct kvm_debugregs d;
	if (kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &d) < 0)
		return cai_fail_errno(err, errno, "cannot read the debug registers of CPU %u", v->hv.index);
	for (unsigned i = 0; i < 4; i++)
		s->dr[i] = d.db[i];
	s->dr[6] = d.dr6;
	s->dr[7] = d.dr7;
	return 0;
}

static int set_debug(struct kvm_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	struct kvm_debugregs d = {.dr6 = s->dr[6] & 0xffffffff, .dr7 = s->dr[7] & 0xffffffff};
	for (unsigned i = 0; i < 4; i++)
		d.db[i] = s->dr[i];
	if (kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &d) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the debug registers of CPU %u", v->hv.index);
	return 0;
}

static int get_mp(struct kvm_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct kvm_mp_state m;
	if (kvm_ioctl(v->fd, KVM_GET_MP_STATE, &m) < 0)
		return cai_fail_errno(err, errno, "cannot read the state of CPU %u", v->hv.index);
	s->mp_state = m.mp_state == KVM_MP_STATE_UNINITIALIZED	 ? X86_MP_WAIT_INIT
		      : m.mp_state == KVM_MP_STATE_INIT_RECEIVED ? X86_MP_WAIT_SIPI
		      : m.mp_state == KVM_MP_STATE_HALTED	 ? X86_MP_HALTED
								 : X86_MP_RUNNABLE;
	return 0;
}

static int set_mp(struct kvm_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	static const uint32_t to_kvm[] = {
		[X86_MP_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
		[X86_MP_WAIT_INIT] = KVM_MP_STATE_UNINITIALIZED,
		[X86_MP_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
		[X86_MP_HALTED] = KVM_MP_STATE_HALTED,
	};
	if (s->mp_state >= ARRAY_LEN(to_kvm))
		return cai_fail(err, EINVAL, "CPU %u has the unknown state %u", v->hv.index, s->mp_state);
	struct kvm_mp_state m = {.mp_state = to_kvm[s->mp_state]};
	if (kvm_ioctl(v->fd, KVM_SET_MP_STATE, &m) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the state of CPU %u", v->hv.index);
	return 0;
}

int kvm_state_get(struct kvm_vcpu *v, unsigned parts, struct x86_state *s, struct cai_error *err)
{
	/* The processor state first: reading it makes KVM take a pending INIT or SIPI, which changes registers. */
	if (((parts & KVM_PART_MP) && get_mp(v, s, err) < 0) ||
	    ((parts & KVM_PART_REGS) && get_regs(v, s, err) < 0) ||
	    ((parts & KVM_PART_SREGS) && get_sregs(v, s, err) < 0) ||
	    ((parts & KVM_PART_FPU) && get_fpu(v, s, err) < 0) ||
	    ((parts & KVM_PART_LAPIC) && get_lapic(v, s, err) < 0) ||
	    ((parts & KVM_PART_MSRS) && get_msrs(v, s, err) < 0) ||
	    ((parts & KVM_PART_DEBUG) && get_debug(v, s, err) < 0) ||
	    ((parts & KVM_PART_EVENTS) && get_events(v, s, err) < 0))
		return -1;
	return 0;
}

int kvm_state_set(struct kvm_vcpu *v, unsigned parts, const struct x86_state *s, struct cai_error *err)
{
	if (((parts & KVM_PART_SREGS) && set_sregs(v, s, err) < 0) ||
	    ((parts & KVM_PART_FPU) && set_fpu(v, s, err) < 0) ||
	    ((parts & KVM_PART_MSRS) && set_msrs(v, s, err) < 0) ||
	    ((parts & KVM_PART_LAPIC) && set_lapic(v, s, err) < 0) ||
	    ((parts & KVM_PART_REGS) && set_regs(v, s, err) < 0) ||
	    ((parts & KVM_PART_MP) && set_mp(v, s, err) < 0) ||
	    ((parts & KVM_PART_DEBUG) && set_debug(v, s, err) < 0) ||
	    ((parts & KVM_PART_EVENTS) && set_events(v, s, err) < 0))
		return -1;
	if ((parts & KVM_PART_MSRS) && s->tsc_deadline && kvm_msr_set(v, MSR_TSC_DEADLINE, s->tsc_deadline) < 0)
		return cai_fail(err, ENOTSUP, "this host's KVM has no TSC-deadline timer");
	if (parts & KVM_PART_MSRS)
		kvm_quirks_lstar_set(v, s->lstar);
	return 0;
}

int kvm_translate(struct kvm_vcpu *v, uint64_t la, uint64_t *gpa)
{
	struct kvm_translation t = {.linear_address = la};
	if (kvm_ioctl(v->fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
		return -1;
	*gpa = t.physical_address;
	return 0;
}

unsigned kvm_peek(struct kvm_vcpu *v, uint64_t la, uint8_t *buf, unsigned n)
{
	unsigned done = 0;
	while (done < n) {
		uint64_t gpa, at = la + done;
		unsigned part = MEM_PAGE_SIZE - (unsigned)(at % MEM_PAGE_SIZE);
		if (part > n - done)
			part = n - done;
		if (kvm_translate(v, at, &gpa) < 0 || mem_read(v->hv.vm->cfg.mem, gpa, buf + done, part) < 0)
			break;
		done += part;
	}
	return done;
}
