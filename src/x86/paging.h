/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear addresses to memory: the page walk (SDM vol. 3 chapter 4: 4-level and, for 32-bit set-up code, none or PAE-less
 * off), the soft TLB, and the accessors of the slow tier.
 *
 * Every accessor returns true, or false with c->exc filled (#PF, #GP for a non-canonical address, #SS) and no memory
 * changed. Addresses are linear (segment base added). Accesses may cross pages; both pages are checked before anything is written.
 */
#ifndef X86_PAGING_H
#define X86_PAGING_H

#include "x86/cpu.h"

enum x86_access { X86_READ, X86_WRITE, X86_EXEC };

/* Walks the page tables for one access with the current privilege. True: *gpa is the guest-physical address. Sets A and D bits. */
bool x86_translate(struct x86_cpu *c, uint64_t la, enum x86_access a, uint64_t *gpa);
/* The same, without touching A and D bits, the TLB or c->exc; for debuggers. */
bool x86_translate_peek(struct x86_cpu *c, uint64_t la, uint64_t *gpa);

/* size: 1, 2, 4, 8 as one access (atomic within an aligned unit, as x86 has it); any size up to 4096 bytewise in x86_read_bytes. */
bool x86_read(struct x86_cpu *c, uint64_t la, unsigned size, void *v);
bool x86_write(struct x86_cpu *c, uint64_t la, unsigned size, const void *v);
bool x86_read_bytes(struct x86_cpu *c, uint64_t la, void *v, unsigned n);
bool x86_write_bytes(struct x86_cpu *c, uint64_t la, const void *v, unsigned n);
/* Checks that n bytes at la could be written (#PF now rather than half-way). */
bool x86_probe_write(struct x86_cpu *c, uint64_t la, unsigned n);
/* As the supervisor, whatever the CPL (descriptor tables, TSS, IDT). */
bool x86_read_system(struct x86_cpu *c, uint64_t la, void *v, unsigned n);
bool x86_write_system(struct x86_cpu *c, uint64_t la, const void *v, unsigned n);

/* A host pointer to [la, la+size) for a read-modify-write or a long copy, if it is plain RAM in one page (and, for writing, on return the
 * caller must call x86_host_written). NULL with c->exc.vector == 0xff: not plain (crosses a page, MMIO): use the other accessors;
 * NULL otherwise: fault in c->exc. */
void *x86_host(struct x86_cpu *c, uint64_t la, unsigned size, enum x86_access a);
void x86_host_written(struct x86_cpu *c, uint64_t la, unsigned size);
#define X86_NOT_PLAIN 0xff

/* Up to 15 instruction bytes at la; *n is how many could be fetched. False only when the first byte faults. */
bool x86_fetch(struct x86_cpu *c, uint64_t la, uint8_t *buf, unsigned want, unsigned *n);

void x86_tlb_flush(struct x86_cpu *c, bool global_too);
void x86_tlb_flush_page(struct x86_cpu *c, uint64_t la);
/* Drops write tags for the guest-physical page (it now holds decoded code); all when gpa is ~0. */
void x86_tlb_revoke_write(struct x86_cpu *c, uint64_t gpa);

#endif
