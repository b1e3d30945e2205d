/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions and interrupts through the IDT (SDM vol. 3 chapter 6): 64-bit gates with IST in long mode, 32-bit gates at the same
 * privilege in protected mode (for set-up code), the interrupt table in real mode.
 *
 * Theory of operation: one attempt either completes or leaves the CPU as it was with the new fault in c->exc; x86_deliver() then decides by
 * the classes of table 6-5 whether that fault is delivered instead, becomes #DF, or shuts the processor down.
 */
#include "base/util.h"
#include "x86/insn.h"
#include "x86/paging.h"
#include "x86/system.h"

enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

static enum fault_class class_of(unsigned vector)
{
	switch (vector) {
	case X86_DE: case X86_TS: case X86_NP: case X86_SS_FAULT: case X86_GP:
		return CONTRIBUTORY;
	case X86_PF:
		return PAGE_FAULT;
	}
	return BENIGN;
}

/* Error codes that name an IDT entry: index * 8, IDT bit, EXT bit for events from outside the program. */
static uint32_t idt_error(unsigned vector, bool soft)
{
	return vector * 8 + 2 + !soft;
}

static bool deliver_long(struct x86_cpu *c, const struct x86_exception *e)
{
	const uint32_t at = e->vector * 16u;
	uint64_t gate[2];
	if (at + 15 > c->idtr.limit)
		return x86_raise(c, X86_GP, idt_error(e->vector, e->soft));
	if (!x86_read_system(c, c->idtr.base + at, gate, 16))
		return false;
	const unsigned type = gate[0] >> 40 & 0x1f, dpl = gate[0] >> 45 & 3, ist = gate[0] >> 32 & 7;
	if (type != 0xe && type != 0xf)
		return x86_raise(c, X86_GP, idt_error(e->vector, e->soft));
	if (e->soft && dpl < c->cpl)
		return x86_raise(c, X86_GP, idt_error(e->vector, true));
	if (!(gate[0] >> 47 & 1))
		return x86_raise(c, X86_NP, idt_error(e->vector, e->soft));
	const uint64_t rip = (gate[0] & 0xffff) | (gate[0] >> 32 & 0xffff0000) | gate[1] << 32;

	const uint16_t selector = (uint16_t)(gate[0] >> 16);
	const uint32_t ext = !e->soft;
	struct x86_descriptor code;
	if (!(selector & 0xfffc))
		return x86_raise(c, X86_GP, ext);
	if (!x86_read_descriptor(c, selector, false, false, &code))
		return false;
	const unsigned code_dpl = (code.seg.attr >> X86_ATTR_DPL_SHIFT) & 3u;
	if (code.system || !(code.seg.attr & 8) || code_dpl > c->cpl || !(code.seg.attr & X86_ATTR_L) || (code.seg.attr & X86_ATTR_DB))
		return x86_raise(c, X86_GP, (selector & 0xfffcu) | ext);
	if (!(code.seg.attr & X86_ATTR_P))
		return x86_raise(c, X86_NP, (selector & 0xfffcu) | ext);
	const bool conforming = code.seg.attr & 4;
	const unsigned new_cpl = conforming ? c->cpl : code_dpl;
	const bool inward = new_cpl < c->cpl;

	uint64_t rsp = c->r[X86_RSP];
	if (ist || inward) {
		const unsigned off = ist ? 36 + 8 * (ist - 1) : 4 + 8 * new_cpl;
		if (off + 7 > c->tr.limit)
			return x86_raise(c, X86_TS, (c->tr.selector & 0xfffcu) | ext);
		if (!x86_read_system(c, c->tr.base + off, &rsp, 8))
			return false;
	}
	if (!x86_canonical(rsp))
		return x86_raise(c, X86_SS_FAULT, ext);
	if (!x86_canonical(rip))
		return x86_raise(c, X86_GP, ext);
	rsp &= ~15ull;

	uint64_t frame[6];
	unsigned n = 0;
	if (e->has_error)
		frame[n++] = e->error;
	uint64_t flags = x86_get_rflags(c);
	frame[n++] = c->rip;
	frame[n++] = c->seg[X86_CS].selector;
	frame[n++] = flags;
	frame[n++] = c->r[X86_RSP];
	frame[n++] = c->seg[X86_SS].selector;
	rsp -= n * 8;
	const uint8_t cpl = c->cpl;
	c->cpl = (uint8_t)new_cpl;
	if (!x86_write_system(c, rsp, frame, n * 8)) {
		c->cpl = cpl;
		return false;
	}
	c->r[X86_RSP] = rsp;
	if (inward)
		c->seg[X86_SS] = (struct x86_segment){.selector = (uint16_t)new_cpl, .attr = (uint16_t)(new_cpl << X86_ATTR_DPL_SHIFT)};
	c->seg[X86_CS] = code.seg;
	c->seg[X86_CS].selector = (uint16_t)((selector & 0xfffcu) | new_cpl);
	c->rip = rip;
	flags &= ~(uint64_t)(X86_FL_TF | X86_FL_NT | X86_FL_RF | X86_FL_VM);
	if (type == 0xe)
		flags &= ~(uint64_t)X86_FL_IF;
	x86_set_rflags(c, flags);
	x86_update_mode(c);
	return true;
}

static bool deliver_legacy(struct x86_cpu *c, const struct x86_exception *e)
{
	const bool pe = c->cr0 & X86_CR0_PE;
	const uint32_t at = e->vector * (pe ? 8u : 4u);
	const uint64_t flags = x86_get_rflags(c);
	uint64_t target, gate = 0, sp = c->r[X86_RSP];
	unsigned size = 2, type = 6;
	uint16_t selector;
	if (at + (pe ? 7 : 3) > c->idtr.limit)
		return x86_raise(c, X86_GP, idt_error(e->vector, e->soft));
	if (!x86_read_system(c, c->idtr.base + at, &gate, pe ? 8 : 4))
		return false;
	selector = (uint16_t)(gate >> 16);
	target = gate & 0xffff;
	if (pe) {
		type = gate >> 40 & 0x1f;
		if ((type != 0xe && type != 0xf) || !(gate >> 47 & 1))
			return x86_raise(c, X86_GP, idt_error(e->vector, e->soft));
		target |= gate >> 32 & 0xffff0000;
		size = 4;
	}
	const uint64_t mask = c->seg[X86_SS].attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu;
	const uint64_t frame[4] = {flags, c->seg[X86_CS].selector, c->rip, e->error};
	const unsigned n = e->has_error && pe ? 4 : 3;
	for (unsigned i = 0; i < n; i++) {
		sp -= size;
		if (!x86_write_system(c, (uint32_t)(c->segbase[X86_SS] + (sp & mask)), &frame[i], size))
			return false;
	}
	if (!x86_load_cs_far(c, selector, target))
		return false;
	c->r[X86_RSP] = (c->r[X86_RSP] & ~mask) | (sp & mask);
	uint64_t clear = X86_FL_TF | X86_FL_RF | X86_FL_AC | X86_FL_NT;
	if (type != 0xf)
		clear |= X86_FL_IF;
	x86_set_rflags(c, flags & ~clear);
	return true;
}

int x86_deliver(struct x86_cpu *c, const struct x86_exception *event)
{
	struct x86_exception e = *event;
	if (e.soft)
		e.has_error = false;
	for (unsigned tries = 0; tries < 4; tries++) {
		if (e.vector == X86_PF && e.has_error)
			c->cr2 = e.cr2;
		c->irq_shadow = 0;
		if ((c->efer & X86_EFER_LMA) ? deliver_long(c, &e) : deliver_legacy(c, &e)) {
			if (e.vector == X86_NMI)
				c->nmi_masked = true;
			return 0;
		}
		if (e.vector == X86_DF && !e.soft)
			return -1;
		/* A refused INT n is a fault of that instruction, so it is where the program stopped. */
		if (e.soft)
			c->rip -= e.error;
		const enum fault_class first = e.soft || e.vector > 31 || e.vector == X86_NMI ? BENIGN : class_of(e.vector), second = class_of(c->exc.vector);
		bool df = (first == CONTRIBUTORY && second == CONTRIBUTORY) || (first == PAGE_FAULT && second != BENIGN);
		e = df ? (struct x86_exception){.vector = X86_DF, .has_error = true} : c->exc;
	}
	return -1;
}

int x86_interrupt(struct x86_cpu *c, unsigned vector)
{
	struct x86_exception e = {.vector = (uint8_t)vector};
	return x86_deliver(c, &e);
}
