/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x87 environment in memory: FNSTENV, FLDENV, FNSAVE, FRSTOR (SDM vol. 1 figures 8-9 to 8-12, protected-mode layouts), FXSAVE,
 * FXRSTOR (SDM vol. 1 10.5).
 */
#include "x86/x87.h"

#include <string.h>

#include "base/util.h"
#include "x86/fp.h"
#include "x86/paging.h"

static bool probe(struct x86_cpu *c, uint64_t ea, unsigned n, bool write)
{
	uint32_t v;
	return write ? x86_probe_write(c, ea, n) : x86_read(c, ea, n, &v);
}
/* Processors check both ends of these long operands before anything else: the near one first, with FXSAVE and FXRSTOR the far one. */
static bool probe_env(struct x86_cpu *c, uint64_t ea, unsigned n, bool env16, bool write)
{
	return probe(c, ea, env16 ? 2 : 4, write) && probe(c, ea + n - 1, 1, write);
}

/* The two-bit tag of physical register n: valid, zero, special, empty. */
static unsigned full_tag(const struct x86_cpu *c, unsigned n)
{
	if (!(c->ftw >> n & 1))
		return 3;
	const uint64_t mantissa = load_le64(c->st[n]);
	const unsigned exponent = load_le16(c->st[n] + 8) & 0x7fffu;
	if (exponent == 0)
		return mantissa == 0 ? 1 : 2;
	return exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

bool x86_x87_store_env(struct x86_cpu *c, uint64_t ea, bool env16, bool save)
{
	uint8_t b[108];
	unsigned tags = 0;
	for (unsigned n = 0; n < 8; n++)
		tags |= full_tag(c, n) << 2 * n;
	unsigned n;
	if (env16) {
		const uint16_t e[7] = {c->fcw, c->fsw, (uint16_t)tags, (uint16_t)c->fip, 0, (uint16_t)c->fdp, 0};
		n = sizeof(e);
		memcpy(b, e, n);
	} else {
		/* The upper halves of the 16-bit fields are stored as ones. */
		const uint32_t e[7] = {0xffff0000u | c->fcw, 0xffff0000u | c->fsw, 0xffff0000u | tags,
				       (uint32_t)c->fip,     (uint32_t)c->fop << 16, (uint32_t)c->fdp, 0xffff0000u};
		n = sizeof(e);
		memcpy(b, e, n);
	}
	const unsigned top = c->fsw >> 11 & 7;
	for (unsigned i = 0; save && i < 8; i++, n += 10)
		memcpy(b + n, c->st[(top + i) & 7], 10);
	if (!probe_env(c, ea, n, env16, true) || !x86_write_bytes(c, ea, b, n))
		return false;
	if (save) {
		x86_x87_init(c);
		x86_x87_flags_changed();
	} else {
		c->fcw |= 0x3f;
		x86_x87_update_es(c);
	}
	return true;
}

bool x86_x87_load_env(struct x86_cpu *c, uint64_t ea, bool env16, bool save)
{
	uint8_t b[108];
	const unsigned env_bytes = env16 ? 14 : 28;
	const unsigned n_bytes = env_bytes + (save ? 80 : 0);
	if (!probe_env(c, ea, n_bytes, env16, false) || !x86_read_bytes(c, ea, b, n_bytes))
		return false;
	unsigned tags;
	if (env16) {
		c->fcw = load_le16(b);
		c->fsw = load_le16(b + 2);
		tags = load_le16(b + 4);
		c->fip = load_le16(b + 6);
		c->fop = 0;
		c->fdp = load_le16(b + 10);
	} else {
		c->fcw = load_le16(b);
		c->fsw = load_le16(b + 4);
		tags = load_le16(b + 8);
		c->fip = load_le32(b + 12);
		c->fop = load_le16(b + 18) & 0x7ff;
		c->fdp = load_le32(b + 20);
	}
	c->fcw = (uint16_t)((c->fcw & 0x1f3f) | 0x40);
	c->ftw = 0;
	for (unsigned n = 0; n < 8; n++)
		if ((tags >> 2 * n & 3) != 3)
			c->ftw |= (uint8_t)(1u << n);
	const unsigned top = c->fsw >> 11 & 7;
	for (unsigned i = 0; save && i < 8; i++)
		memcpy(c->st[(top + i) & 7], b + env_bytes + i * 10, 10);
	x86_x87_update_es(c);
	x86_x87_flags_changed();
	return true;
}

/* FXSAVE and FXRSTOR: bytes that the instruction touches; XMM8-15 exist in 64-bit mode only. */
static unsigned fx_bytes(const struct x86_cpu *c)
{
	return c->mode == X86_MODE_64 ? 416 : 288;
}

static bool fx_check(struct x86_cpu *c, uint64_t ea)
{
	if (c->cr0 & (X86_CR0_EM | X86_CR0_TS))
		return x86_raise_noerr(c, X86_NM);
	return !(ea & 15) || x86_raise(c, X86_GP, 0);
}

bool x86_fxsave(struct x86_cpu *c, uint64_t ea, bool wide)
{
	struct x86_fxsave f;
	if (!fx_check(c, ea))
		return false;
	x86_mxcsr_sync(c);
	x86_fx_get(c, &f);
	if (!wide) { /* the upper halves hold FCS and FDS */
		f.fip = (uint32_t)f.fip;
		f.fdp = (uint32_t)f.fdp;
	}
	return probe(c, ea + sizeof(f) - 1, 1, true) && x86_write_bytes(c, ea, &f, fx_bytes(c));
}

bool x86_fxrstor(struct x86_cpu *c, uint64_t ea, bool wide)
{
	struct x86_fxsave f;
	if (!fx_check(c, ea) || !probe(c, ea + sizeof(f) - 1, 1, false) || !x86_read_bytes(c, ea, &f, fx_bytes(c)))
		return false;
	if (f.mxcsr & ~X86_MXCSR_VALID)
		return x86_raise(c, X86_GP, 0);
	if (!wide) {
		f.fip = (uint32_t)f.fip;
		f.fdp = (uint32_t)f.fdp;
	}
	if (c->mode != X86_MODE_64)
		memcpy(f.xmm[8], &c->xmm[8], 8 * 16);
	x86_fx_set(c, &f);
	x86_mxcsr_reload(c);
	x86_x87_flags_changed();
	x86_update_mode(c);
	return true;
}
