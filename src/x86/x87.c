/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any x87 instruction, exactly.
 *
 * Theory of operation: the guest's whole x87 state is put on the host with FRSTOR, the very instruction is executed (a code stub each,
 * with a memory operand redirected to a buffer), and FNSAVE takes the state back. The host's FCW is the guest's meanwhile: an
 * unmasked exception only becomes pending there and FNSAVE clears it, so stack faults, tags, biased results and condition codes are
 * the host's in every case. The common cases have quicker handlers in x87_ops.c.
 *
 * Memory is read before and written after; the state is committed last.
 */
#include "x86/x87.h"

#include <string.h>

#include "base/util.h"
#include "x86/fp.h"
#include "x86/paging.h"

/* 32-bit protected-mode image of FNSAVE (SDM vol. 1 figures 8-9 and 8-11's layout). */
struct image {
	uint32_t fcw, fsw, ftw, fip, fcs, fdp, fds;
	uint8_t st[8][10];
} __attribute__((packed));

/* Stubs of 4 bytes: the instruction, then jmp *%rcx. Register forms: opcode by ModRM 0xc0..0xff; memory forms: opcode by ModRM.reg, on [rdi]. */
extern const char x86_x87_stub_reg[] __attribute__((visibility("hidden")));
extern const char x86_x87_stub_mem[] __attribute__((visibility("hidden")));
__asm__(".pushsection .text\n\t.balign 16\n\t.hidden x86_x87_stub_reg\n\t.globl x86_x87_stub_reg\nx86_x87_stub_reg:\n\t"
	".set x87_i, 0\n\t.rept 512\n\t"
	".byte 0xd8 + (x87_i >> 6), 0xc0 + (x87_i & 63), 0xff, 0xe1\n\t"
	".set x87_i, x87_i + 1\n\t.endr\n\t"
	".hidden x86_x87_stub_mem\n\t.globl x86_x87_stub_mem\nx86_x87_stub_mem:\n\t"
	".set x87_i, 0\n\t.rept 64\n\t"
	".byte 0xd8 + (x87_i >> 3), 7 + (x87_i & 7) * 8, 0xff, 0xe1\n\t"
	".set x87_i, x87_i + 1\n\t.endr\n\t.popsection");

/* Register forms that exist, one bit a value of ModRM & 63, by opcode. */
static const uint64_t valid_reg[8] = {
	/* D8 */ ~0ull,
	/* D9: C0-CF, D0, D8-DF (FSTP again), E0 E1 E4 E5 E8-EE, F0-FF */ 0xffff7f33ff01ffffull,
	/* DA: FCMOVcc, E9 */ 0x00000200ffffffffull,
	/* DB: FCMOVNcc, E0-E4, E8-F7 */ 0x00ffff1fffffffffull,
	/* DC */ ~0ull,
	/* DD: C0-CF, D0-EF */ 0x0000ffffffffffffull,
	/* DE: C0-D7, D9, E0-FF */ 0xffffffff02ffffffull,
	/* DF: C0-DF, E0, E8-F7 */ 0x00ffff01ffffffffull,
};

/* Memory operands by opcode and ModRM.reg: bytes, with 0x80 for a store; 0: no such instruction; SPECIAL: done here. */
#define W 0x80
#define SPECIAL 0xff
static const uint8_t mem_operand[8][8] = {
	{4, 4, 4, 4, 4, 4, 4, 4},
	{4, 0, 4 | W, 4 | W, SPECIAL, SPECIAL, SPECIAL, SPECIAL},
	{4, 4, 4, 4, 4, 4, 4, 4},
	{4, 4 | W, 4 | W, 4 | W, 0, 10, 0, 10 | W},
	{8, 8, 8, 8, 8, 8, 8, 8},
	{8, 8 | W, 8 | W, 8 | W, SPECIAL, 0, SPECIAL, SPECIAL},
	{2, 2, 2, 2, 2, 2, 2, 2},
	{2, 2 | W, 2 | W, 2 | W, 10, 8, 10 | W, 8 | W},
};

static void to_image(const struct x86_cpu *c, struct image *m)
{
	memset(m, 0, sizeof(*m));
	m->fcw = c->fcw;
	m->fsw = c->fsw;
	for (unsigned i = 0; i < 8; i++)
		if (!(c->ftw >> i & 1))
			m->ftw |= 3u << 2 * i;
	const unsigned top = c->fsw >> 11 & 7;
	for (unsigned i = 0; i < 8; i++)
		memcpy(m->st[i], c->st[(top + i) & 7], 10);
}

static void from_image(struct x86_cpu *c, const struct image *m)
{
	c->fcw = (uint16_t)m->fcw;
	c->fsw = (uint16_t)m->fsw;
	c->ftw = 0;
	for (unsigned i = 0; i < 8; i++)
		if ((m->ftw >> 2 * i & 3) != 3)
			c->ftw |= (uint8_t)(1u << i);
	const unsigned top = c->fsw >> 11 & 7;
	for (unsigned i = 0; i < 8; i++)
		memcpy(c->st[(top + i) & 7], m->st[i], 10);
}

/* Runs one stub on the image; fl goes in and out in the layout of x86_cpu.fl. */
static void run(struct image *m, const char *stub, void *operand, uint16_t *fl)
{
	uint64_t ax = *fl;
	__asm__ volatile("frstor %[m]\n\t"
			 "sahf\n\t"
			 "leaq 1f(%%rip), %%rcx\n\t"
			 "jmp *%[stub]\n"
			 "1:\tlahf\n\t"
			 "seto %%al\n\t"
			 "fnsave %[m]"
			 : [m] "+m"(*m), "+a"(ax)
			 : [stub] "r"(stub), "D"(operand)
			 : "rcx", "cc", "memory", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
	*fl = (uint16_t)ax;
}

static bool available(struct x86_cpu *c, bool waits)
{
	if (c->cr0 & (X86_CR0_EM | X86_CR0_TS))
		return x86_raise_noerr(c, X86_NM);
	if (waits && c->fsw & X86_FSW_ES)
		return x86_raise_noerr(c, X86_MF);
	return true;
}

static void note(struct x86_cpu *c, unsigned imm, uint64_t rip)
{
	c->fip = rip;
	if (c->fsw & X86_FSW_ES)
		c->fop = imm & 0x7ff;
}

bool x86_x87_reg(struct x86_cpu *c, unsigned imm, uint64_t rip)
{
	const unsigned op = imm >> 8 & 7, modrm = imm & 0xff;
	if (!(valid_reg[op] >> (modrm & 63) & 1))
		return x86_raise_noerr(c, X86_UD);
	switch (imm & 0x7ff) {
	case 0x3e2: /* FNCLEX */
		if (!available(c, false))
			return false;
		c->fsw &= 0x7f00;
		x86_x87_flags_changed();
		return true;
	case 0x3e3: /* FNINIT */
		if (!available(c, false))
			return false;
		x86_x87_init(c);
		x86_x87_flags_changed();
		return true;
	case 0x3e0: /* FNENI, FNDISI, FNSETPM: nothing since the 387 */
	case 0x3e1:
	case 0x3e4:
		return available(c, false);
	case 0x7e0: /* FNSTSW AX */
		if (!available(c, false))
			return false;
		c->r[X86_RAX] = (c->r[X86_RAX] & ~0xffffull) | c->fsw;
		return true;
	}
	if (!available(c, true))
		return false;
	struct image m;
	uint16_t fl = c->fl;
	to_image(c, &m);
	run(&m, x86_x87_stub_reg + (op * 64 + (modrm & 63)) * 4, &m, &fl);
	from_image(c, &m);
	if ((op & 3) == 3 && (modrm >= 0xe8 && modrm < 0xf8)) /* FCOMI and its kind */
		c->fl = fl;
	note(c, imm, rip);
	return true;
}

static bool special(struct x86_cpu *c, unsigned which, bool env16, uint64_t ea)
{
	const bool waits = which == 0x14 || which == 0x15 || which == 0x54; /* the loads */
	if (!available(c, waits))
		return false;
	uint16_t v;
	switch (which) {
	case 0x14: /* D9 /4 FLDENV */
		return x86_x87_load_env(c, ea, env16, false);
	case 0x15: /* D9 /5 FLDCW */
		if (!x86_read(c, ea, 2, &v))
			return false;
		c->fcw = (uint16_t)((v & 0x1f3f) | 0x40);
		x86_x87_update_es(c);
		return true;
	case 0x16: /* D9 /6 FNSTENV */
		return x86_x87_store_env(c, ea, env16, false);
	case 0x17: /* D9 /7 FNSTCW */
		return x86_write(c, ea, 2, &c->fcw);
	case 0x54: /* DD /4 FRSTOR */
		return x86_x87_load_env(c, ea, env16, true);
	case 0x56: /* DD /6 FNSAVE */
		return x86_x87_store_env(c, ea, env16, true);
	default: /* DD /7 FNSTSW */
		return x86_write(c, ea, 2, &c->fsw);
	}
}

bool x86_x87_mem(struct x86_cpu *c, unsigned imm, uint64_t rip, uint64_t ea)
{
	const unsigned op = imm >> 8 & 7, reg = imm >> 3 & 7;
	const unsigned kind = mem_operand[op][reg];
	if (kind == 0)
		return x86_raise_noerr(c, X86_UD);
	if (kind == SPECIAL)
		return special(c, op << 4 | reg, imm & X86_X87_ENV16, ea);
	if (!available(c, true))
		return false;
	const unsigned size = kind & 0x7f;
	uint8_t operand[16] __attribute__((aligned(16))) = {0};
	if (!(kind & W) && !(size <= 8 ? x86_read(c, ea, size, operand) : x86_read_bytes(c, ea, operand, size)))
		return false;
	struct image m;
	uint16_t fl = c->fl;
	to_image(c, &m);
	run(&m, x86_x87_stub_mem + (op * 8 + reg) * 4, operand, &fl);
	if (kind & W) {
		/* An unmasked invalid operation, overflow or underflow keeps the instruction from storing. */
		const bool stores = !(m.fsw & ~m.fcw & 0x19);
		if (stores && !(size <= 8 ? x86_write(c, ea, size, operand) : x86_write_bytes(c, ea, operand, size)))
			return false;
	}
	from_image(c, &m);
	note(c, imm, rip);
	c->fdp = ea;
	return true;
}

bool x86_fwait(struct x86_cpu *c)
{
	if ((c->cr0 & (X86_CR0_MP | X86_CR0_TS)) == (X86_CR0_MP | X86_CR0_TS))
		return x86_raise_noerr(c, X86_NM);
	if (c->fsw & X86_FSW_ES)
		return x86_raise_noerr(c, X86_MF);
	return true;
}
