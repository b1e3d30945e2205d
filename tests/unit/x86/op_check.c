/* SPDX-License-Identifier: Apache-2.0 */
#include "op_check.h"

#include <string.h>

#include "x86/vec.h"

const char *const op_name[X86_N_OPS] = {
#define OP(name)   [X86_OP_##name] = #name,
#define SLOW(name) [X86_OP_##name] = #name,
#include "x86/ops.def"
#undef OP
#undef SLOW
};

static bool starts(unsigned h, const char *prefix)
{
	return !strncmp(op_name[h], prefix, strlen(prefix));
}
static bool ends(unsigned h, const char *suffix)
{
	size_t n = strlen(op_name[h]), k = strlen(suffix);
	return n >= k && !strcmp(op_name[h] + n - k, suffix);
}

/* A slot, or one of AH CH DH BH. */
static bool is_slot(unsigned off)
{
	return off % 8 == 0 ? off / 8 < X86_N_SLOTS : off % 8 == 1 && off <= X86_RBX * 8 + 1;
}
static bool is_size(unsigned n)
{
	return n == 2 || n == 4 || n == 8;
}
/* Of an operation that works on bytes: only they may name AH to BH. */
static bool is_byte_op(unsigned h)
{
	return ends(h, "_b") || strstr(op_name[h], "_b_j_") || strstr(op_name[h], "rr_bw") || strstr(op_name[h], "rr_bl") ||
	       strstr(op_name[h], "rr_bq") || starts(h, "set_");
}
static bool is_vec(unsigned h)
{
	return h >= X86_OP_vec_rr && h < X86_OP_x87_r;
}
static bool is_indexed(unsigned h)
{
	return starts(h, "ea") || starts(h, "leax") || starts(h, "mov_rmx") || starts(h, "mov_mrx") || starts(h, "movzx_rmx") || ends(h, "_xmi") ||
	       ends(h, "_mxi") || h == X86_OP_vec_xmi || h == X86_OP_vec_mxi;
}
/* Branches that are linked: imm is the target's offset in the page. */
static bool is_near(unsigned h)
{
	return (h >= X86_OP_j_o && h <= X86_OP_j_nle) || h == X86_OP_goto_near || h == X86_OP_call_near;
}

static const char *special(const struct x86_op *o, bool *dst, bool *src)
{
	*dst = *src = false;
	switch (o->h) {
	case X86_OP_ea:
		return o->dst > 2 ? "address size" : o->src > 7 ? "segment" : NULL;
	case X86_OP_ea_rip:
		return o->dst > 1 ? "address size" : o->src > 7 ? "segment" : NULL;
	case X86_OP_ea_seg:
		return o->src > 7 ? "segment" : NULL;
	case X86_OP_mov_rseg:
		*dst = true;
		return o->src >= X86_N_SEGS ? "segment" : NULL;
	case X86_OP_push_seg:
		return o->src >= X86_N_SEGS ? "segment" : !is_size(o->idx) ? "size" : NULL;
	case X86_OP_pop_seg:
		return o->dst >= X86_N_SEGS || o->dst == X86_CS ? "segment" : !is_size(o->idx) ? "size" : NULL;
	case X86_OP_mov_segr:
		*src = true;
		return o->dst >= X86_N_SEGS || o->dst == X86_CS ? "segment" : NULL;
	case X86_OP_lds:
		*dst = true;
		return o->src >= X86_N_SEGS || o->src == X86_CS ? "segment" : !is_size(o->idx) ? "size" : NULL;
	case X86_OP_xlat:
		return o->src >= X86_N_SEGS ? "segment" : !is_size(o->idx) ? "size" : NULL;
	case X86_OP_mov_crr: case X86_OP_mov_drr:
		*src = true;
		return o->dst > 15 ? "register number" : NULL;
	case X86_OP_mov_rcr: case X86_OP_mov_rdr:
		*dst = true;
		return o->src > 15 ? "register number" : NULL;
	case X86_OP_movs: case X86_OP_stos: case X86_OP_lods: case X86_OP_scas: case X86_OP_cmps: case X86_OP_ins: case X86_OP_outs:
		return (o->dst != 1 && !is_size(o->dst)) || !is_size(o->src) ? "size" : o->idx >= X86_N_SEGS ? "segment" :
		       (unsigned)o->imm > 2 ? "repetition" : NULL;
	case X86_OP_loop:
		return o->dst > 3 ? "kind" : !is_size(o->src) ? "size" : NULL;
	case X86_OP_in: case X86_OP_out:
		return o->idx != 1 && o->idx != 2 && o->idx != 4 ? "size" : o->src > 1 ? "port form" : NULL;
	case X86_OP_lg_jcc:
		return o->dst > 15 ? "condition" : NULL;
	case X86_OP_lg_bcd:
		return NULL;
	case X86_OP_enter: case X86_OP_pushf: case X86_OP_popf: case X86_OP_iret: case X86_OP_retf: case X86_OP_jmp_fm: case X86_OP_call_fm:
	case X86_OP_jmp_ptr: case X86_OP_call_ptr:
		return !is_size(o->idx) ? "size" : NULL;
	}
	if (is_vec(o->h))
		return o->dst > 15 || o->src > 15 ? "register number" : (uint32_t)o->imm >> 8 >= x86_vec_rows ? "row" : NULL;
	*dst = *src = true;
	return NULL;
}

const char *op_wrong(const struct x86_op *o)
{
	bool dst, src;
	if (o->h >= X86_N_OPS)
		return "no such operation";
	const char *what = special(o, &dst, &src);
	if (what)
		return what;
	if ((dst && !is_slot(o->dst)) || (src && !is_slot(o->src)))
		return "slot";
	if (((dst && o->dst % 8) || (src && o->src % 8)) && !is_byte_op(o->h))
		return "high byte register of a wider operation";
	if (o->base % 8 || o->base / 8 >= X86_N_SLOTS)
		return "base";
	if ((o->idx & 0xf8) / 8 >= X86_N_SLOTS || (is_indexed(o->h) && o->idx & 4))
		return "index";
	if (is_near(o->h) && (uint32_t)o->imm >= MEM_PAGE_SIZE)
		return "target outside of the page";
	if (o->h == X86_OP_cmov_w && (uint32_t)o->imm > 15)
		return "condition";
	/* What a program cannot name must not be written: ZERO and PAGE hold what every address computation relies on. */
	if (dst && o->dst == X86_R_PAGE * 8)
		return "destination";
	return NULL;
}

bool op_is_terminal(unsigned h, enum x86_mode mode)
{
	static const uint16_t terminal[] = {
		X86_OP_ud, X86_OP_gp, X86_OP_end, X86_OP_goto_near, X86_OP_goto_far, X86_OP_jmp_far, X86_OP_call_near, X86_OP_call_far, X86_OP_jmp_r,
		X86_OP_jmp_m, X86_OP_call_r, X86_OP_call_m, X86_OP_ret, X86_OP_ret_i, X86_OP_iret, X86_OP_int_n, X86_OP_syscall, X86_OP_sysret,
		X86_OP_sysenter, X86_OP_sysexit, X86_OP_hlt, X86_OP_wrmsr, X86_OP_popf, X86_OP_mov_segr, X86_OP_pop_seg, X86_OP_lds, X86_OP_lmsw,
		X86_OP_invlpg, X86_OP_mov_crr, X86_OP_out, X86_OP_jmp_ptr, X86_OP_call_ptr, X86_OP_jmp_fm, X86_OP_call_fm, X86_OP_retf,
		X86_OP_lg_call, X86_OP_lg_call_r, X86_OP_lg_jmp, X86_OP_lg_jmp_r, X86_OP_lg_jcc, X86_OP_lg_ret,
	};
	if (h == X86_OP_loop && mode != X86_MODE_64)
		return true;
	for (unsigned i = 0; i < sizeof(terminal) / sizeof(terminal[0]); i++)
		if (terminal[i] == h)
			return true;
	return false;
}

bool op_is_flagless_form(unsigned h, unsigned nf)
{
	if (nf >= X86_N_OPS)
		return false;
	const char *a = op_name[h], *b = op_name[nf];
	size_t n = strlen(a);
	return strlen(b) == n + 1 && !strncmp(a, b, n - 2) && b[n - 2] == 'n' && !strcmp(a + n - 2, b + n - 1);
}
