/* SPDX-License-Identifier: Apache-2.0 */
/* Segmentation, control registers and MSRs: the checks and state changes behind the system instructions. Slow tier only; functions that
 * return bool return false with the fault in c->exc and nothing changed. */
#ifndef X86_SYSTEM_H
#define X86_SYSTEM_H

#include "x86/cpu.h"

/* A descriptor as read from a table. */
struct x86_descriptor {
	struct x86_segment seg; /* selector not set */
	uint64_t la;            /* its linear address */
	bool system;            /* S = 0 */
};

/* Reads the descriptor of a non-null selector. A selector beyond its table: false without a fault (c->exc untouched) when `quiet`, else
 * #GP(selector). wide: 16-byte descriptors (LDT, TSS in long mode). */
bool x86_read_descriptor(struct x86_cpu *c, uint16_t selector, bool wide, bool quiet, struct x86_descriptor *d);
/* MOV or POP to a segment register other than CS. */
bool x86_load_segment(struct x86_cpu *c, enum x86_seg s, uint16_t selector);
/* Far JMP, CALL and RET within the same privilege: loads CS. size: operand size, cuts rip. */
bool x86_load_cs_far(struct x86_cpu *c, uint16_t selector, uint64_t rip);
bool x86_iret(struct x86_cpu *c, unsigned size);
bool x86_lldt(struct x86_cpu *c, uint16_t selector);
bool x86_ltr(struct x86_cpu *c, uint16_t selector);
/* CS and SS as SYSCALL and friends load them, flat and without looking at tables. */
void x86_flat_cs(struct x86_cpu *c, uint16_t selector, unsigned dpl, bool is64);
void x86_flat_ss(struct x86_cpu *c, uint16_t selector, unsigned dpl);

bool x86_write_cr(struct x86_cpu *c, unsigned n, uint64_t v);
bool x86_read_cr(struct x86_cpu *c, unsigned n, uint64_t *v);
/* Port I/O: at CPL > IOPL it would need the TSS's permission map, which is not implemented: #GP. */
bool x86_io_allowed(struct x86_cpu *c);
bool x86_read_msr(struct x86_cpu *c, uint32_t msr, uint64_t *v);
bool x86_write_msr(struct x86_cpu *c, uint32_t msr, uint64_t v);

static inline bool x86_canonical(uint64_t la)
{
	return (uint64_t)((int64_t)(la << 16) >> 16) == la;
}

#endif
