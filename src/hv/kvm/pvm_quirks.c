/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Living with a KVM that interprets guest ring 0 ("kvm_pvm"; see pvm_quirks.h).
 *
 * Theory of operation. Its defects, as seen on kernel 6.18, and what is done about each:
 *
 *  - Instructions that its interpreter lacks end KVM_RUN with an internal error: the instruction assist executes them. For speed
 *    the Linux command line also talks the kernel out of using the frequent ones, because CPUID in ring 0 shows the host's features
 *    whatever KVM_SET_CPUID2 said.
 *  - SYSCALL from ring 3 enters LSTAR with the user's CS, so that the first fetch faults: #PF with error code 0x15. Writes of LSTAR are
 *    caught with an MSR filter; from then on a debug breakpoint at the guest's #PF handler shows each page fault before the guest
 *    sees it. One that is such a SYSCALL is turned into what it should have been: the stack pointer before the fault, kernel
 *    CS and SS, RIP at LSTAR. Any other has its first instruction executed by the assist, since KVM's breakpoint knows no resume flag.
 *  - VMCALL in ring 0 never returns: initcalls that issue one are kept from running.
 *
 * No guest memory is changed.
 */
#include "hv/kvm/pvm_quirks.h"

#include <errno.h>
#include <string.h>
#include <cpuid.h>

#include "base/util.h"
#include "hv/kvm/kvm_int.h"

#define MSR_STAR   0xC0000081u
#define MSR_LSTAR  0xC0000082u
#define MSR_SFMASK 0xC0000084u

/* A KVM on a processor that shows neither VMX nor SVM can only be such a one. Asked of the processor itself, because in the jail there is
 * no /sys to look for the module's name in. */
unsigned kvm_quirks_detect(void)
{
	unsigned a, b, c, d;
	if (__get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 5))
		return 0;
	if (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 2))
		return 0;
	return KVM_QUIRK_PVM;
}

/* Linux's numbers of CPUID features: word * 32 + bit (arch/x86/include/asm/cpufeatures.h). In order: XSAVE, POPCNT, SMAP, SMEP, INVPCID, RDSEED,
 * RDRAND, CX16, FSGSBASE, PCID, MOVBE, UMIP, PCLMULQDQ, AES (the kernel's checksums and ciphers would use the last two in ring 0); then, because
 * REP in the interpreter goes byte by byte, ERMS, REP_GOOD, FSRM. */
const char *kvm_quirks_cmdline(unsigned quirks)
{
	if (!(quirks & KVM_QUIRK_PVM))
		return "";
	return "clearcpuid=154,151,308,295,298,306,158,141,288,145,150,514,129,153,297,112,580 "
	       "initcall_blacklist=ptp_kvm_init";
}

int kvm_quirks_vcpu_init(struct kvm_vcpu *v, struct cai_error *err)
{
	struct kvm_vm *vm = kvm_vm_of(v->hv.vm);
	if (!(vm->quirks & KVM_QUIRK_PVM) || v->hv.index != 0)
		return 0;
	struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR, .args[0] = KVM_MSR_EXIT_REASON_FILTER};
	uint8_t deny = 0;
	struct kvm_msr_filter f = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = {.flags = KVM_MSR_FILTER_WRITE, .base = MSR_LSTAR, .nmsrs = 1, .bitmap = &deny},
	};
	if (kvm_ioctl(vm->vm_fd, KVM_ENABLE_CAP, &cap) < 0 || kvm_ioctl(vm->vm_fd, KVM_X86_SET_MSR_FILTER, &f) < 0)
		return cai_fail_errno(err, errno, "KVM cannot watch the guest's system-call entry");
	return 0;
}

int kvm_quirks_guest_debug(struct kvm_vcpu *v, bool step)
{
	struct kvm_guest_debug d = {0};
	v->quirk.step = step;
	if (step)
		d.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
	if (v->quirk.pf_handler) {
		d.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
		d.arch.debugreg[0] = v->quirk.pf_handler;
		d.arch.debugreg[7] = 0x402; /* G0, execution, and the bit that is always 1 */
	}
	return kvm_ioctl(v->fd, KVM_SET_GUEST_DEBUG, &d) < 0 ? -1 : 0;
}

/* Puts the breakpoint where the guest's IDT says that #PF leads. */
static void watch_page_faults(struct kvm_vcpu *v)
{
	struct kvm_sregs s;
	uint8_t gate[16];
	uint64_t handler = 0;
	if (kvm_ioctl(v->fd, KVM_GET_SREGS, &s) == 0 && s.idt.limit >= 14 * 16 + 15 &&
	    kvm_peek(v, s.idt.base + 14 * 16, gate, sizeof gate) == sizeof gate && (gate[5] & 0x80))
		handler = load_le16(gate) | (uint64_t)load_le16(gate + 6) << 16 | (uint64_t)load_le32(gate + 8) << 32;
	if (handler != v->quirk.pf_handler) {
		v->quirk.pf_handler = handler;
		kvm_quirks_guest_debug(v, v->quirk.step);
	}
}

void kvm_quirks_lstar_set(struct kvm_vcpu *v, uint64_t lstar)
{
	if (!(kvm_vm_of(v->hv.vm)->quirks & KVM_QUIRK_PVM))
		return;
	v->quirk.lstar = lstar;
	if (lstar)
		watch_page_faults(v);
}

void kvm_quirks_msr(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	if (run->exit_reason == KVM_EXIT_X86_WRMSR) {
		run->msr.error = kvm_msr_set(v, run->msr.index, run->msr.data) < 0;
		if (!run->msr.error && run->msr.index == MSR_LSTAR)
			kvm_quirks_lstar_set(v, run->msr.data);
	} else {
		uint64_t val = 0;
		run->msr.error = kvm_msr_get(v, run->msr.index, &val) < 0;
		run->msr.data = val;
	}
}

struct pf_frame {
	uint64_t error, rip, cs, rflags, rsp, ss;
};

/* True when the frame is that of a SYSCALL which went wrong, and not of a program that jumped to the entry by itself. */
static bool is_failed_syscall(struct kvm_vcpu *v, const struct kvm_regs *r, const struct pf_frame *f)
{
	uint8_t op[2];
	return f->error == 0x15 && f->rip == v->quirk.lstar && (f->cs & 3) == 3 &&
	       kvm_peek(v, r->rcx - 2, op, 2) == 2 && op[0] == 0x0f && op[1] == 0x05;
}

static bool enter_kernel(struct kvm_vcpu *v, struct kvm_regs *r, const struct pf_frame *f)
{
	struct kvm_sregs s;
	uint64_t star, sfmask;
	if (kvm_ioctl(v->fd, KVM_GET_SREGS, &s) < 0 || kvm_msr_get(v, MSR_STAR, &star) < 0 ||
	    kvm_msr_get(v, MSR_SFMASK, &sfmask) < 0)
		return false;
	uint16_t cs = (uint16_t)(star >> 32) & 0xfffc;
	s.cs = (struct kvm_segment){.limit = 0xffffffff, .selector = cs, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	s.ss = (struct kvm_segment){
		.limit = 0xffffffff, .selector = (uint16_t)(cs + 8), .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
	r->rip = f->rip;
	r->rsp = f->rsp;
	r->rflags = (f->rflags & ~(sfmask | 0x10000u)) | 2;
	return kvm_ioctl(v->fd, KVM_SET_SREGS, &s) == 0 && kvm_ioctl(v->fd, KVM_SET_REGS, r) == 0;
}

/* Executes the handler's first instruction. The usual ones change nothing but RIP here. */
static bool step_over(struct kvm_vcpu *v, struct kvm_regs *r, const char **why)
{
	static const struct {
		uint8_t len, bytes[4];
	} idle[] = {
		{4, {0xf3, 0x0f, 0x1e, 0xfa}}, /* ENDBR64 */
		{3, {0x0f, 0x1f, 0x00}},       /* NOP */
		{1, {0x90}},
	};
	uint8_t b[4] = {0};
	unsigned n = kvm_peek(v, r->rip, b, sizeof b);
	for (size_t i = 0; i < ARRAY_LEN(idle); i++)
		if (n >= idle[i].len && memcmp(b, idle[i].bytes, idle[i].len) == 0) {
			r->rip += idle[i].len;
			return kvm_ioctl(v->fd, KVM_SET_REGS, r) == 0;
		}
	return kvm_assist(v, why) == 0;
}

enum kvm_quirk_result kvm_quirks_debug(struct kvm_vcpu *v, const char **why)
{
	struct kvm_regs r;
	struct pf_frame f;
	bool ok;
	*why = "its registers cannot be changed";
	if (!v->quirk.pf_handler || v->run->debug.arch.pc != v->quirk.pf_handler)
		return KVM_QUIRK_NOT_OURS;
	if (kvm_ioctl(v->fd, KVM_GET_REGS, &r) < 0)
		return KVM_QUIRK_FAILED;
	if (kvm_peek(v, r.rsp, (uint8_t *)&f, sizeof f) == sizeof f && is_failed_syscall(v, &r, &f))
		ok = enter_kernel(v, &r, &f);
	else
		ok = step_over(v, &r, why);
	return ok ? KVM_QUIRK_DONE : KVM_QUIRK_FAILED;
}
