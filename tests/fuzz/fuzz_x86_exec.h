/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small machine for fuzzing the software CPU: RAM in two pieces between inaccessible pages, descriptor and page tables that work
 * until the input changes them, and handlers for exceptions that go on at the next byte.
 */
#ifndef FUZZ_X86_EXEC_H
#define FUZZ_X86_EXEC_H

#include <stdbool.h>
#include <stdint.h>

#include "hv/soft/code.h"
#include "mem/mem.h"
#include "x86/cpu.h"
#include "x86/state.h"

#define XM_LOW    0x30000u /* bytes of RAM from 0 */
#define XM_HIGH   0x10000u /* bytes of RAM from 4 GiB */
#define XM_RAM    (XM_LOW + XM_HIGH)
#define XM_TABLES 0x1000u  /* PML4, PDPT, PD, PT: one page each */
#define XM_GDT    0x5000u
#define XM_IDT    0x6000u
#define XM_HANDLERS 0x7000u
#define XM_TSS    0x8000u
#define XM_CODE   0x10000u /* what user code may reach begins here */
#define XM_CODE_BYTES 0x4000u
#define XM_DATA   0x20000u

/* Where linear addresses lead, besides the low 256 KiB: the same page tables in the upper half, and large pages at 2 MiB and 1 GiB. */
#define XM_DEVICE_PAGE 0x40000u /* linear page behind RAM: a device */
#define XM_RO_PAGE     0x41000u /* read-only, of XM_DATA */
#define XM_NX_PAGE     0x42000u /* no execution, of XM_CODE */
#define XM_TABLE_PAGE  0x43000u /* the page table itself, for the supervisor */

enum xm_mode { XM_KERNEL, XM_USER, XM_COMPAT, XM_REAL };

struct xm {
	struct mem mem;
	struct x86_cpu_model model;
	struct x86_env env;
	struct code_cache code;
	bool use_code;      /* decoded blocks are in use */
	struct x86_cpu *c;
	unsigned device_calls; /* so far */
	uint64_t tsc;
};

/* Once: maps everything. */
void xm_create(struct xm *m);
/* RAM, tables and *s as every run starts; nothing of an earlier run is left. */
void xm_reset(struct xm *m, enum xm_mode mode, struct x86_state *s);
/* Puts s on the CPU. */
void xm_load(struct xm *m, const struct x86_state *s, bool blocks);

/* Runs up to `limit` instructions, one by one or by blocks; delivers exceptions where `deliver`, and now and then an interrupt of that
 * vector (0: none). Returns why it ended; X86_LEAVE_PENDING when the limit was reached. */
enum x86_leave xm_step(struct xm *m, unsigned limit, bool deliver, uint8_t vector);
enum x86_leave xm_blocks(struct xm *m, unsigned limit, bool deliver, uint8_t vector, bool linked);

/* Aborts unless the CPU's and the TLB's invariants hold. */
void xm_check(const struct xm *m);

#endif
