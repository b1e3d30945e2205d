/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Register states at a CPU's start. All begin as the processor leaves RESET (SDM vol. 3 table 10-1), which an application processor
 * keeps; the bootstrap processor gets in addition what firmware and a boot loader would have left behind.
 */
#include <string.h>

#include "base/util.h"
#include "boot/internal.h"
#include "dev/layout.h"

#define CR0_PE 0x00000001u
#define CR0_ET 0x00000010u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u
#define CR4_PAE 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u

#define TYPE_DATA 0x3u /* read-write, accessed */
#define TYPE_CODE 0xBu /* execute-read, accessed */
#define TYPE_LDT  0x2u
#define TYPE_TSS  0xBu /* busy, 32 or 64 bits */

#define SEL_CODE64 0x10u
#define SEL_DATA   0x18u
#define SEL_TSS    0x20u
#define SEL_CODE32 0x30u
#define GDT_LIMIT  0x37u

#define MTRR_DEF_WB 0x806u /* enabled, write-back by default: what firmware sets up for RAM */

/* Local APIC registers at reset (SDM vol. 3 section 11.4.7.1), by offset / 16. */
static void lapic_at_reset(uint32_t *regs, uint32_t apic_id)
{
	regs[0x02] = apic_id << 24;
	regs[0x03] = 0x00050014; /* six LVT entries, version 0x14 */
	regs[0x0E] = 0xFFFFFFFF; /* DFR */
	regs[0x0F] = 0x000000FF; /* spurious vector; software-disabled */
	for (unsigned i = 0x32; i <= 0x37; i++)
		regs[i] = 0x00010000; /* LVT masked */
}

static void state_at_reset(struct x86_state *s, uint32_t apic_id)
{
	memset(s, 0, sizeof(*s));
	s->rip = 0xFFF0;
	s->rflags = 2;
	for (unsigned i = 0; i < X86_N_SEGS; i++)
		s->seg[i] = (struct x86_segment){.limit = 0xFFFF, .attr = X86_ATTR_P | X86_ATTR_S | TYPE_DATA};
	s->seg[X86_CS] = (struct x86_segment){
		.base = 0xFFFF0000, .selector = 0xF000, .limit = 0xFFFF, .attr = X86_ATTR_P | X86_ATTR_S | TYPE_CODE};
	s->ldtr = (struct x86_segment){.limit = 0xFFFF, .attr = X86_ATTR_P | TYPE_LDT};
	s->tr = (struct x86_segment){.limit = 0xFFFF, .attr = X86_ATTR_P | TYPE_TSS};
	s->gdtr.limit = s->idtr.limit = 0xFFFF;
	s->cr0 = CR0_CD | CR0_NW | CR0_ET;
	s->xcr0 = 1;
	s->dr[6] = 0xFFFF0FF0;
	s->dr[7] = 0x400;
	s->fx.fcw = 0x37F;
	s->fx.mxcsr = 0x1F80;
	s->fx.mxcsr_mask = 0xFFFF;
	s->pat = 0x0007040600070406;
	s->misc_enable = 1; /* fast strings */
	s->apic_base = LAYOUT_LAPIC_BASE | BIT(11) | (apic_id == 0 ? BIT(8) : 0);
	lapic_at_reset(s->lapic, apic_id);
}

void boot_ap_state(struct x86_state *s, uint32_t apic_id)
{
	state_at_reset(s, apic_id);
	s->mtrr_def_type = MTRR_DEF_WB;
	s->mp_state = X86_MP_WAIT_INIT;
}

static void flat_segments(struct x86_state *s, uint16_t code_selector, uint16_t code_mode)
{
	const struct x86_segment data = {.limit = 0xFFFFFFFF,
					 .selector = SEL_DATA,
					 .attr = X86_ATTR_P | X86_ATTR_S | TYPE_DATA | X86_ATTR_DB | X86_ATTR_G};
	for (unsigned i = 0; i < X86_N_SEGS; i++)
		s->seg[i] = data;
	s->seg[X86_CS].selector = code_selector;
	s->seg[X86_CS].attr = X86_ATTR_P | X86_ATTR_S | TYPE_CODE | code_mode | X86_ATTR_G;
	s->tr = (struct x86_segment){.limit = 0x67, .selector = SEL_TSS, .attr = X86_ATTR_P | TYPE_TSS};
	s->gdtr = (struct x86_dtable){.base = BOOT_GDT_GPA, .limit = GDT_LIMIT};
	s->idtr = (struct x86_dtable){0}; /* an exception before the guest has handlers is a triple fault */
	s->mtrr_def_type = MTRR_DEF_WB;
	s->mp_state = X86_MP_RUNNABLE;
}

void boot_state_64(struct x86_state *s, uint64_t entry)
{
	state_at_reset(s, 0);
	flat_segments(s, SEL_CODE64, X86_ATTR_L);
	s->cr0 = CR0_PE | CR0_ET | CR0_PG;
	s->cr3 = BOOT_PML4_GPA;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	s->rip = entry;
	s->gpr[X86_RSI] = BOOT_PARAMS_GPA;
	s->gpr[X86_RSP] = BOOT_STACK_TOP;
}

void boot_state_pvh(struct x86_state *s, uint32_t entry)
{
	state_at_reset(s, 0);
	flat_segments(s, SEL_CODE32, X86_ATTR_DB);
	s->cr0 = CR0_PE | CR0_ET;
	s->rip = entry;
	s->gpr[X86_RBX] = BOOT_PVH_GPA;
}
