/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest on the software CPU: code, page tables, descriptors and machine state from the input. Nothing outside of guest RAM may
 * be touched, whatever the guest does: RAM lies between inaccessible pages, and the TLB's entries are checked at the end.
 *
 * Input: byte 0: bits 0-1 the mode (enum xm_mode), bit 2 run by blocks, bit 3 link them, bit 4 compare; byte 1: vector of interrupts, 0 none;
 * byte 2: how many changes; then the changes {u16 where, u64 value}, 16 bytes that choose the registers, and code.
 *
 * Compare: user code that cannot reach the tables is run both ways, up to its first exception, and both must agree in registers,
 * exception and memory. So blocks, links, fused compares, dropped flags and code that changes itself are held to single steps.
 */
#include "fuzz.h"
#include "fuzz_x86_exec.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "x86/fp.h"

#define MAX_CHANGES 48
#define LIMIT       200

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* Where: 0.. an 8-byte word of RAM; 0x8000.. a page table entry, made of flags and a page number; 0xf000.. a word of the CPU's state. */
static void change(struct xm *m, struct x86_state *s, uint16_t where, uint64_t v, bool only_user)
{
	if (where >= 0xf000) {
		size_t at = (where & 0xfffu) * 8;
		if (!only_user && at + 8 <= sizeof(*s))
			memcpy((uint8_t *)s + at, &v, 8);
	} else if (where >= 0x8000) {
		static const uint64_t target[] = {0xfee00000, MEM_HOLE_END, MEM_HOLE_END + 0xf000, 1ull << 45, 0x30000, 0x40000000, 0, 0x200000};
		uint64_t page = v >> 16 & 0xff;
		uint64_t e = (v & 0x1ff) | (v >> 9 & 1) << 63 | (page < 0x40 ? page << 12 : target[page & 7]);
		if (!only_user)
			mem_write(&m->mem, XM_TABLES + (where & 0x7ffu) * 8, &e, 8);
	} else if (!only_user || (where * 8u >= XM_CODE && where * 8u < XM_LOW)) {
		mem_write(&m->mem, where * 8u % XM_LOW, &v, 8);
	}
}

static uint64_t reg_value(uint8_t b)
{
	static const uint64_t v[] = {
		0, 1, ~0ull, XM_DATA, XM_DATA + 0xffc, XM_DATA + 0x8000, XM_DEVICE_PAGE, XM_RO_PAGE, XM_NX_PAGE, XM_RO_PAGE - 4,
		XM_CODE, XM_CODE + 0x40, XM_CODE + 0x1000, XM_CODE + 0x200, 0x200000 + XM_CODE, 0x40000000 + XM_DATA,
		0xffff800000000000, 0x7ffffffffffe, 0xffffff8000000000ull | XM_CODE, XM_TABLE_PAGE + 0x80, XM_GDT + 0x20, XM_TSS, 0x3c, 0x80000000,
		0x7fffffff, 0xffffffff, 0x8000000000000000, 0xc0000080, 0x1b, 0x10, 0x23, 64,
	};
	return v[b % 32] + (uint64_t)(b >> 5);
}

/* What both ways must agree in. */
struct result {
	enum x86_leave why;
	struct x86_exception exc;
	struct x86_state s;
	uint8_t ram[XM_RAM];
};

static void take(struct xm *m, enum x86_leave why, struct result *r)
{
	memset(r, 0, sizeof(*r));
	r->why = why;
	if (why == X86_LEAVE_EXCEPTION)
		r->exc = m->c->exc;
	x86_cpu_save(m->c, &r->s);
	memcpy(r->ram, m->mem.base, XM_RAM);
}

static void compare(const struct result *a, const struct result *b)
{
	if (a->why == X86_LEAVE_PENDING || b->why == X86_LEAVE_PENDING)
		return; /* neither's end, so they may stand at different instructions */
	must(a->why == b->why);
	if (a->why == X86_LEAVE_EXCEPTION)
		must(a->exc.vector == b->exc.vector && a->exc.has_error == b->exc.has_error && a->exc.error == b->exc.error &&
		     (a->exc.vector != X86_PF || a->exc.cr2 == b->exc.cr2));
	must(memcmp(a->s.gpr, b->s.gpr, sizeof(a->s.gpr)) == 0);
	must(a->s.rip == b->s.rip && a->s.rflags == b->s.rflags);
	must(memcmp(&a->s.fx, &b->s.fx, sizeof(a->s.fx)) == 0);
	must(memcmp(a->ram + XM_CODE, b->ram + XM_CODE, XM_RAM - XM_CODE) == 0);
}

struct input {
	const uint8_t *changes, *regs, *code;
	unsigned n_changes;
	size_t code_bytes;
	enum xm_mode mode;
	bool only_user;
};

static void set_up(struct xm *m, const struct input *in, bool blocks)
{
	struct x86_state s;
	xm_reset(m, in->mode, &s);
	for (unsigned i = 0; i < 16; i++)
		s.gpr[i] = reg_value(in->regs[i]);
	if (in->mode != XM_USER)
		s.gpr[X86_RSP] = XM_CODE - 0x1000 + (in->regs[X86_RSP] & 0x7f);
	must(mem_write(&m->mem, XM_CODE, in->code, in->code_bytes) == 0);
	for (unsigned i = 0; i < in->n_changes; i++)
		change(m, &s, load_le16(in->changes + i * 10), load_le64(in->changes + i * 10 + 2), in->only_user);
	xm_load(m, &s, blocks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Mappings of the process, made once; xm_reset() and xm_load() leave nothing of an earlier input in them. */
	static struct xm m;
	static struct result a, b;
	if (!m.c)
		xm_create(&m);
	if (size < 3)
		return 0;
	const uint8_t how = data[0], vector = data[1];
	struct input in = {.mode = (enum xm_mode)(how & 3), .n_changes = data[2] % (MAX_CHANGES + 1), .changes = data + 3};
	if (size < 3 + in.n_changes * 10 + 16 + 1)
		return 0;
	in.regs = data + 3 + in.n_changes * 10;
	in.code = in.regs + 16;
	in.code_bytes = size - (size_t)(in.code - data);
	if (in.code_bytes > XM_CODE_BYTES)
		in.code_bytes = XM_CODE_BYTES;
	if (how & 0x10) {
		in.mode = XM_USER;
		in.only_user = true;
		set_up(&m, &in, false);
		take(&m, xm_step(&m, LIMIT, false, 0), &a);
		xm_check(&m);
		set_up(&m, &in, true);
		take(&m, xm_blocks(&m, LIMIT, false, 0, how & 8), &b);
		xm_check(&m);
		compare(&a, &b);
		return 0;
	}
	set_up(&m, &in, how & 4);
	if (how & 4)
		xm_blocks(&m, LIMIT, true, vector, how & 8);
	else
		xm_step(&m, LIMIT, true, vector);
	xm_check(&m);
	return 0;
}
