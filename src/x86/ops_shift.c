/* SPDX-License-Identifier: Apache-2.0 */
/* Shifts and rotates, multiplication and division, bit operations: as in ops_alu.c, on the host's own instructions. */
#include "x86/op.h"

#define TAKE_FLAGS "\n\tlahf\n\tseto %%al"
/* Puts the guest's flags from AX on the host: OF from AL's 1 + 0x7f, the rest by SAHF. A shift by 0 leaves them as they are. */
#define GIVE_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"

#define SHIFT_ASM(op, x, m, d, n, ax)                                                                              \
	__asm__(GIVE_FLAGS #op #x " %%cl, %" m "[d_]" TAKE_FLAGS : [d_] "+r"(d), "+a"(ax) : "c"((uint8_t)(n)) : "cc")

#define CL_COUNT REG(uint8_t, X86_RCX * 8)
#define DEF_SHIFT_FORM(op, form, x, T, m, count)                                                                   \
	HANDLER(op##_r##form##_##x)                                                                                \
	{                                                                                                          \
		T d = REG(T, u->dst);                                                                              \
		uint16_t ax = c->fl;                                                                               \
		SHIFT_ASM(op, x, m, d, count, ax);                                                                 \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_m##form##_##x)                                                                                \
	{                                                                                                          \
		LOAD_RMW(T, d, EA0());                                                                             \
		uint16_t ax = c->fl;                                                                               \
		SHIFT_ASM(op, x, m, d, count, ax);                                                                 \
		STORE_RMW(T, d);                                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}
#define DEF_SHIFT(op)                                                                                              \
	DEF_SHIFT_FORM(op, i, b, uint8_t, "b", u->imm) DEF_SHIFT_FORM(op, c, b, uint8_t, "b", CL_COUNT)            \
	DEF_SHIFT_FORM(op, i, w, uint16_t, "w", u->imm) DEF_SHIFT_FORM(op, c, w, uint16_t, "w", CL_COUNT)          \
	DEF_SHIFT_FORM(op, i, l, uint32_t, "k", u->imm) DEF_SHIFT_FORM(op, c, l, uint32_t, "k", CL_COUNT)          \
	DEF_SHIFT_FORM(op, i, q, uint64_t, "q", u->imm) DEF_SHIFT_FORM(op, c, q, uint64_t, "q", CL_COUNT)
DEF_SHIFT(rol) DEF_SHIFT(ror) DEF_SHIFT(rcl) DEF_SHIFT(rcr) DEF_SHIFT(shl) DEF_SHIFT(shr) DEF_SHIFT(sar)

#define DEF_SHIFT_NF(op, x, T, S, expr, mask)                                                                      \
	HANDLER(op##_rin_##x)                                                                                      \
	{                                                                                                          \
		W_##x(u->dst, (T)((S)REG(T, u->dst) expr (u->imm & mask)));                                        \
		NEXT();                                                                                            \
	}
DEF_SHIFT_NF(shl, l, uint32_t, uint32_t, <<, 31)
DEF_SHIFT_NF(shl, q, uint64_t, uint64_t, <<, 63)
DEF_SHIFT_NF(shr, l, uint32_t, uint32_t, >>, 31)
DEF_SHIFT_NF(shr, q, uint64_t, uint64_t, >>, 63)
DEF_SHIFT_NF(sar, l, uint32_t, int32_t, >>, 31)
DEF_SHIFT_NF(sar, q, uint64_t, int64_t, >>, 63)

/* Double shifts; idx 0: by imm, 1: by CL. */
#define DSHIFT_ASM(op, x, m, d, s, n, ax)                                                                          \
	__asm__(GIVE_FLAGS #op #x " %%cl, %" m "[s_], %" m "[d_]" TAKE_FLAGS                                       \
		: [d_] "+r"(d), "+a"(ax)                                                                           \
		: [s_] "r"(s), "c"((uint8_t)(n))                                                                   \
		: "cc")
#define DEF_DSHIFT(op, x, T, m)                                                                                    \
	HANDLER(op##_r_##x)                                                                                        \
	{                                                                                                          \
		T d = REG(T, u->dst), s = REG(T, u->src);                                                          \
		uint16_t ax = c->fl;                                                                               \
		DSHIFT_ASM(op, x, m, d, s, u->idx ? CL_COUNT : u->imm, ax);                                        \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(op##_m_##x)                                                                                        \
	{                                                                                                          \
		LOAD_RMW(T, d, EA0());                                                                             \
		T s = REG(T, u->src);                                                                              \
		uint16_t ax = c->fl;                                                                               \
		DSHIFT_ASM(op, x, m, d, s, u->idx ? CL_COUNT : u->imm, ax);                                        \
		STORE_RMW(T, d);                                                                                   \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}
DEF_DSHIFT(shld, w, uint16_t, "w") DEF_DSHIFT(shld, l, uint32_t, "k") DEF_DSHIFT(shld, q, uint64_t, "q")
DEF_DSHIFT(shrd, w, uint16_t, "w") DEF_DSHIFT(shrd, l, uint32_t, "k") DEF_DSHIFT(shrd, q, uint64_t, "q")

/* Two- and three-operand IMUL; undefined flags come from the host. */
#define DEF_IMUL(x, T, m)                                                                                          \
	HANDLER(imul_rr_##x)                                                                                       \
	{                                                                                                          \
		T d = REG(T, u->dst), s = REG(T, u->src);                                                          \
		uint16_t ax;                                                                                       \
		__asm__("imul" #x " %" m "[s_], %" m "[d_]" TAKE_FLAGS : [d_] "+r"(d), "=&a"(ax) : [s_] "r"(s) : "cc"); \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(imul_rri_##x)                                                                                      \
	{                                                                                                          \
		T d = REG(T, u->src), s = (T)(int64_t)u->imm;                                                      \
		uint16_t ax;                                                                                       \
		__asm__("imul" #x " %" m "[s_], %" m "[d_]" TAKE_FLAGS : [d_] "+r"(d), "=&a"(ax) : [s_] "r"(s) : "cc"); \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}
DEF_IMUL(w, uint16_t, "w") DEF_IMUL(l, uint32_t, "k") DEF_IMUL(q, uint64_t, "q")

/* One-operand MUL and IMUL: rDX:rAX = rAX * src. */
#define SLOT_A (X86_RAX * 8)
#define SLOT_D (X86_RDX * 8)
#define DEF_MUL1(name, insn, x, T, m)                                                                              \
	HANDLER(name##_##x)                                                                                        \
	{                                                                                                          \
		T a = REG(T, SLOT_A), d, s = REG(T, u->src);                                                       \
		uint32_t fl;                                                                                   \
		__asm__(insn #x " %" m "[s_]\n\tmov %%rax, %%r8\n\tlahf\n\tseto %%al\n\tmovzwl %%ax, %[f_]\n\tmov %%r8, %%rax" \
			: "+a"(a), "=&d"(d), [f_] "=&r"(fl)                                                        \
			: [s_] "r"(s)                                                                              \
			: "cc", "r8");                                                                             \
		W_##x(SLOT_A, a);                                                                                  \
		W_##x(SLOT_D, d);                                                                                  \
		c->fl = (uint16_t)fl;                                                                              \
		NEXT();                                                                                            \
	}
#define DEF_MUL8(name, insn)                                                                                       \
	HANDLER(name##_b)                                                                                          \
	{                                                                                                          \
		uint16_t a = REG(uint8_t, SLOT_A);                                                                 \
		uint8_t s = REG(uint8_t, u->src);                                                                  \
		uint32_t fl;                                                                                       \
		__asm__(insn "b %b[s_]\n\tmov %%rax, %%r8\n\tlahf\n\tseto %%al\n\tmovzwl %%ax, %[f_]\n\tmov %%r8, %%rax" \
			: "+a"(a), [f_] "=&r"(fl)                                                                  \
			: [s_] "r"(s)                                                                              \
			: "cc", "r8");                                                                             \
		W_w(SLOT_A, a);                                                                                    \
		c->fl = (uint16_t)fl;                                                                              \
		NEXT();                                                                                            \
	}
DEF_MUL8(mul, "mul") DEF_MUL1(mul, "mul", w, uint16_t, "w") DEF_MUL1(mul, "mul", l, uint32_t, "k") DEF_MUL1(mul, "mul", q, uint64_t, "q")
DEF_MUL8(imul1, "imul") DEF_MUL1(imul1, "imul", w, uint16_t, "w") DEF_MUL1(imul1, "imul", l, uint32_t, "k")
DEF_MUL1(imul1, "imul", q, uint64_t, "q")

/* Division: #DE where the divisor is 0 or the quotient does not fit; flags are left alone. */
#if X86_TIER_FAST
#define DIVIDE_ERROR() return x86_go_slow(c, u, table)
#else
#define DIVIDE_ERROR() RAISE_NOERR(X86_DE)
#endif
HANDLER(div_b)
{
	unsigned n = REG(uint16_t, SLOT_A), s = REG(uint8_t, u->src);
	if (!s || n / s > 0xff)
		DIVIDE_ERROR();
	W_w(SLOT_A, (n / s) | (n % s) << 8);
	NEXT();
}
HANDLER(idiv_b)
{
	int n = REG(int16_t, SLOT_A), s = REG(int8_t, u->src);
	if (!s || n / s > 127 || n / s < -128)
		DIVIDE_ERROR();
	W_w(SLOT_A, ((n / s) & 0xff) | ((unsigned)(n % s) & 0xff) << 8);
	NEXT();
}
#define DEF_DIV(x, T, S, W2, SW2, bits)                                                                            \
	HANDLER(div_##x)                                                                                           \
	{                                                                                                          \
		T s = REG(T, u->src), hi = REG(T, SLOT_D);                                                         \
		if (hi >= s)                                                                                       \
			DIVIDE_ERROR();                                                                            \
		W2 n = (W2)hi << bits | REG(T, SLOT_A);                                                            \
		T q, r;                                                                                            \
		DIV_##x(n, s, q, r);                                                                               \
		W_##x(SLOT_A, q);                                                                                  \
		W_##x(SLOT_D, r);                                                                                  \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(idiv_##x)                                                                                          \
	{                                                                                                          \
		S s = REG(S, u->src);                                                                              \
		SW2 n = (SW2)((W2)REG(T, SLOT_D) << bits | REG(T, SLOT_A));                                        \
		SW2 least = (SW2)((W2)1 << (2 * bits - 1));                                                        \
		if (!s || (s == -1 && n == least))                                                                 \
			DIVIDE_ERROR();                                                                            \
		SW2 q = n / s;                                                                                     \
		if (q != (S)q)                                                                                     \
			DIVIDE_ERROR();                                                                            \
		W_##x(SLOT_A, (T)q);                                                                               \
		W_##x(SLOT_D, (T)(n % s));                                                                         \
		NEXT();                                                                                            \
	}
#define DIV_w(n, s, q, r) (q = (uint16_t)((n) / (s)), r = (uint16_t)((n) % (s)))
#define DIV_l(n, s, q, r) (q = (uint32_t)((n) / (s)), r = (uint32_t)((n) % (s)))
#define DIV_q(n, s, q, r) __asm__("divq %[s_]" : "=a"(q), "=d"(r) : "0"((uint64_t)(n)), "1"((uint64_t)((n) >> 64)), [s_] "r"(s) : "cc")
DEF_DIV(w, uint16_t, int16_t, uint32_t, int32_t, 16)
DEF_DIV(l, uint32_t, int32_t, uint64_t, int64_t, 32)
DEF_DIV(q, uint64_t, int64_t, unsigned __int128, __int128, 64)

/* Bit tests; the bit number (src slot, or imm where src is slot ZERO) is taken modulo the operand size. CF is the old bit; other flags
 * stay, as on current CPUs. */
#define DEF_BT1(op, x, T, bits, expr)                                                                              \
	HANDLER(op##_rr_##x)                                                                                       \
	{                                                                                                          \
		T d = REG(T, u->dst);                                                                              \
		unsigned n = (unsigned)((REG(uint64_t, u->src) + (uint64_t)(int64_t)u->imm) & (bits - 1));         \
		const T bit = (T)((T)1 << n);                                                                      \
		c->fl = (uint16_t)((c->fl & ~X86_F_CF) | ((d >> n & 1) ? X86_F_CF : 0));                           \
		(void)bit;                                                                                         \
		expr;                                                                                              \
		NEXT();                                                                                            \
	}
#define DEF_BTM(op, x, T, bits, asmop)                                                                             \
	HANDLER(op##_m_##x)                                                                                        \
	{                                                                                                          \
		T n = (T)((REG(uint64_t, u->src) + (uint64_t)(int64_t)u->imm) & (bits - 1));                       \
		uint8_t cf;                                                                                        \
		LOCKED(T, EA0(), p, {                                                                              \
			__asm__ volatile("lock " asmop #x " %[n_], %[p_]\n\tsetc %[c_]"                            \
					 : [p_] "+m"(*p), [c_] "=q"(cf)                                            \
					 : [n_] "r"(n)                                                             \
					 : "cc", "memory");                                                        \
		});                                                                                                \
		c->fl = (uint16_t)((c->fl & ~X86_F_CF) | (cf ? X86_F_CF : 0));                                     \
		NEXT();                                                                                            \
	}
#define DEF_BT(x, T, bits)                                                                                         \
	DEF_BT1(bt, x, T, bits, (void)0)                                                                           \
	DEF_BT1(bts, x, T, bits, W_##x(u->dst, d | bit))                                                           \
	DEF_BT1(btr, x, T, bits, W_##x(u->dst, d & (T)~bit))                                                       \
	DEF_BT1(btc, x, T, bits, W_##x(u->dst, d ^ bit))                                                           \
	DEF_BTM(bts, x, T, bits, "bts") DEF_BTM(btr, x, T, bits, "btr") DEF_BTM(btc, x, T, bits, "btc")            \
	/* A bit string in memory: slot EA += the operand that holds the bit that register src names. */           \
	HANDLER(ea_bit_##x)                                                                                        \
	{                                                                                                          \
		__typeof__((T)0) s = REG(T, u->src);                                                               \
		int64_t n = bits == 64 ? (int64_t)s : bits == 32 ? (int32_t)s : (int16_t)s;                        \
		c->r[X86_R_EA] = EA0() + (uint64_t)((n >> (bits == 64 ? 6 : bits == 32 ? 5 : 4)) * (bits / 8));    \
		NEXT();                                                                                            \
	}
DEF_BT(w, uint16_t, 16)
DEF_BT(l, uint32_t, 32)
DEF_BT(q, uint64_t, 64)

/* BSF and BSR of 0 leave the destination as it is, as every current CPU does. */
#define DEF_SCAN(op, x, T, m)                                                                                      \
	HANDLER(op##_##x)                                                                                          \
	{                                                                                                          \
		T d = REG(T, u->dst), s = REG(T, u->src);                                                          \
		uint16_t ax;                                                                                       \
		__asm__(#op #x " %" m "[s_], %" m "[d_]" TAKE_FLAGS : [d_] "+r"(d), "=&a"(ax) : [s_] "r"(s) : "cc"); \
		if (s)                                                                                             \
			W_##x(u->dst, d);                                                                          \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}
DEF_SCAN(bsf, w, uint16_t, "w") DEF_SCAN(bsf, l, uint32_t, "k") DEF_SCAN(bsf, q, uint64_t, "q")
DEF_SCAN(bsr, w, uint16_t, "w") DEF_SCAN(bsr, l, uint32_t, "k") DEF_SCAN(bsr, q, uint64_t, "q")

/* POPCNT without relying on the host having it: CF, OF, SF, AF, PF are cleared, ZF is set when the source is 0. */
#define DEF_POPCNT(x, T)                                                                                           \
	HANDLER(popcnt_##x)                                                                                        \
	{                                                                                                          \
		T s = REG(T, u->src);                                                                              \
		W_##x(u->dst, __builtin_popcountll(s));                                                            \
		c->fl = 0x0200 | (s ? 0 : X86_F_ZF);                                                               \
		NEXT();                                                                                            \
	}
DEF_POPCNT(w, uint16_t) DEF_POPCNT(l, uint32_t) DEF_POPCNT(q, uint64_t)

/* CRC32 (Castagnoli) of the source; imm 1: a 64-bit destination (same 32-bit result). */
#define DEF_CRC32(x, T)                                                                                            \
	HANDLER(crc32_##x)                                                                                         \
	{                                                                                                          \
		uint32_t crc = REG(uint32_t, u->dst);                                                              \
		T s = REG(T, u->src);                                                                              \
		for (unsigned i = 0; i < sizeof(T); i++) {                                                         \
			crc ^= (uint8_t)((uint64_t)s >> (8 * i));                                                  \
			for (unsigned k = 0; k < 8; k++)                                                           \
				crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);                                      \
		}                                                                                                  \
		W_l(u->dst, crc);                                                                                  \
		NEXT();                                                                                            \
	}
DEF_CRC32(b, uint8_t) DEF_CRC32(w, uint16_t) DEF_CRC32(l, uint32_t) DEF_CRC32(q, uint64_t)

/* XADD and CMPXCHG with memory are done locked whether or not the guest asks for it. */
#define DEF_XCHG(x, T, m)                                                                                          \
	HANDLER(xadd_r_##x)                                                                                        \
	{                                                                                                          \
		T d = REG(T, u->dst), s = REG(T, u->src);                                                          \
		uint16_t ax;                                                                                       \
		__asm__("xadd" #x " %" m "[s_], %" m "[d_]" TAKE_FLAGS : [d_] "+&r"(d), [s_] "+&r"(s), "=&a"(ax) : : "cc"); \
		W_##x(u->src, s);                                                                                  \
		W_##x(u->dst, d);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(xadd_m_##x)                                                                                        \
	{                                                                                                          \
		T s = REG(T, u->src);                                                                              \
		uint16_t ax;                                                                                       \
		LOCKED(T, EA0(), p, {                                                                              \
			__asm__ volatile("lock xadd" #x " %" m "[s_], %[p_]" TAKE_FLAGS                            \
					 : [p_] "+m"(*p), [s_] "+&r"(s), "=&a"(ax)                                 \
					 :                                                                         \
					 : "cc", "memory");                                                        \
		});                                                                                                \
		W_##x(u->src, s);                                                                                  \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(cmpxchg_r_##x)                                                                                     \
	{                                                                                                          \
		T a = REG(T, SLOT_A), d = REG(T, u->dst), s = REG(T, u->src);                                      \
		uint16_t ax;                                                                                       \
		__asm__("cmp" #x " %" m "[d_], %" m "[a_]" TAKE_FLAGS : "=&a"(ax) : [d_] "r"(d), [a_] "r"(a) : "cc"); \
		if (a == d)                                                                                        \
			W_##x(u->dst, s);                                                                          \
		else                                                                                               \
			W_##x(SLOT_A, d);                                                                          \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}                                                                                                          \
	HANDLER(cmpxchg_m_##x)                                                                                     \
	{                                                                                                          \
		const T a = REG(T, SLOT_A), s = REG(T, u->src);                                                    \
		T seen;                                                                                            \
		LOCKED(T, EA0(), p, {                                                                              \
			seen = a;                                                                                  \
			__asm__ volatile("lock cmpxchg" #x " %" m "[s_], %[p_]"                                    \
					 : [p_] "+m"(*p), "+a"(seen)                                               \
					 : [s_] "r"(s)                                                             \
					 : "cc", "memory");                                                        \
		});                                                                                                \
		uint16_t ax;                                                                                       \
		__asm__("cmp" #x " %" m "[d_], %" m "[a_]" TAKE_FLAGS : "=&a"(ax) : [d_] "r"(seen), [a_] "r"(a) : "cc"); \
		if (seen != a)                                                                                     \
			W_##x(SLOT_A, seen);                                                                       \
		c->fl = ax;                                                                                        \
		NEXT();                                                                                            \
	}
DEF_XCHG(b, uint8_t, "b") DEF_XCHG(w, uint16_t, "w") DEF_XCHG(l, uint32_t, "k") DEF_XCHG(q, uint64_t, "q")

#if !X86_TIER_FAST
HANDLER(cmpxchg8b)
{
	uint64_t a = (uint32_t)c->r[X86_RAX] | c->r[X86_RDX] << 32, s = (uint32_t)c->r[X86_RBX] | c->r[X86_RCX] << 32;
	uint64_t seen;
	LOCKED(uint64_t, EA0(), p, {
		seen = a;
		__asm__ volatile("lock cmpxchgq %[s_], %[p_]" : [p_] "+m"(*p), "+a"(seen) : [s_] "r"(s) : "cc", "memory");
	});
	if (seen != a) {
		W_l(SLOT_A, seen);
		W_l(SLOT_D, seen >> 32);
	}
	c->fl = (uint16_t)((c->fl & ~X86_F_ZF) | (seen == a ? X86_F_ZF : 0));
	NEXT();
}

HANDLER(cmpxchg16b)
{
	if (EA0() & 15)
		RAISE(X86_GP, 0);
	uint64_t lo = c->r[X86_RAX], hi = c->r[X86_RDX];
	bool same;
	typedef unsigned __int128 u128;
	LOCKED(u128, EA0(), p, {
		__asm__ volatile("lock cmpxchg16b %[p_]"
				 : [p_] "+m"(*p), "+a"(lo), "+d"(hi), "=@ccz"(same)
				 : "b"(c->r[X86_RBX]), "c"(c->r[X86_RCX])
				 : "memory");
	});
	if (!same) {
		c->r[X86_RAX] = lo;
		c->r[X86_RDX] = hi;
	}
	c->fl = (uint16_t)((c->fl & ~X86_F_ZF) | (same ? X86_F_ZF : 0));
	NEXT();
}
#endif
