/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest code into operations. Byte 0 chooses the mode, bytes 1 and 2 where in a page the code lies, byte 3 how many operations a block may
 * have; the rest is code. Nothing outside of the code may be read, and operations may name only what exists: handlers index the register
 * file and follow links with what stands in them, unchecked.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "x86/opcodes.h"
#include "x86/translate.h"

#define MAX_OPS 128
#define SLOTS   (X86_N_SLOTS * 8)

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void check_op(const struct x86_op *o)
{
	must(o->h < X86_N_OPS);
	must(o->h == X86_OP_lg_bcd || o->dst < SLOTS); /* there it is AAM's immediate */
	must(o->src < SLOTS && o->base < SLOTS && (o->idx & 0xf8) < SLOTS);
	/* Linked branches: the target is an offset in the page. */
	if ((o->h >= X86_OP_j_o && o->h <= X86_OP_j_nle) || o->h == X86_OP_goto_near || o->h == X86_OP_call_near)
		must(o->imm >= 0 && o->imm < (int32_t)MEM_PAGE_SIZE);
}

static bool same(const struct x86_insn *a, const struct x86_insn *b)
{
	return a->len == b->len && a->map == b->map && a->op == b->op && a->opsize == b->opsize && a->addrsize == b->addrsize &&
	       a->has_modrm == b->has_modrm && a->disp == b->disp && a->imm == b->imm && a->imm_size == b->imm_size;
}

static void one_insn(const uint8_t *code, size_t n, enum x86_mode mode, unsigned off)
{
	struct x86_insn i, again;
	enum x86_decode_result r = x86_decode(code, (unsigned)n, mode, &i);
	if (r == X86_DECODE_MORE)
		must(n < X86_MAX_LEN);
	if (r != X86_DECODE_OK)
		return;
	must(i.len >= 1 && i.len <= X86_MAX_LEN && i.len <= n && i.mode == mode);
	must(!i.has_modrm || i.mod == 3 || (i.base <= X86_RIP_REG && i.index <= X86_NO_REG && i.scale <= 3));
	/* Its own bytes are enough, and none of them can be missing. */
	must(x86_decode(code, i.len, mode, &again) == X86_DECODE_OK && same(&i, &again));
	for (unsigned k = 0; k < i.len; k++)
		must(x86_decode(code, k, mode, &again) == X86_DECODE_MORE);

	struct x86_op op[X86_MAX_OPS_PER_INSN + 1];
	struct x86_xlat x;
	memset(op, 0xa5, sizeof(op));
	x86_translate_insn(&i, off, op, &x);
	must(x.n_ops >= 1 && x.n_ops <= X86_MAX_OPS_PER_INSN);
	must(x.no_flags < (int)x.n_ops);
	for (unsigned k = 0; k < x.n_ops; k++)
		check_op(&op[k]);
	if (x.no_flags >= 0)
		must(op[x.no_flags].h + x.no_flags_by < X86_N_OPS);
	for (unsigned k = 0; k < sizeof(op[0]); k++)
		must(((uint8_t *)&op[X86_MAX_OPS_PER_INSN])[k] == 0xa5);
}

static void one_block(const uint8_t *page, unsigned off, enum x86_mode mode, unsigned max_ops)
{
	unsigned n_insns = 0, bytes = 0;
	struct x86_op *op = malloc(max_ops * sizeof(*op)); /* exact, so that one too many is seen */
	must(op != NULL);
	unsigned n = x86_build_block(page, off, mode, op, max_ops, &n_insns, &bytes);
	must(n <= max_ops);
	if (n) {
		must(n_insns >= 1 && n_insns <= n && bytes >= 1 && bytes <= MEM_PAGE_SIZE - off);
		for (unsigned k = 0; k < n; k++) {
			check_op(&op[k]);
			must(X86_IP_OFF(&op[k]) >= off || X86_IP_LEN(&op[k]) == 0);
		}
	}
	free(op);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 5)
		return 0;
	const enum x86_mode mode = (enum x86_mode)(data[0] % 3);
	const unsigned off = (data[1] | (unsigned)data[2] << 8) % MEM_PAGE_SIZE;
	const unsigned max_ops = X86_MAX_OPS_PER_INSN + 1 + data[3] % (MAX_OPS - X86_MAX_OPS_PER_INSN);
	data += 4;
	size -= 4;
	uint8_t *page = malloc(MEM_PAGE_SIZE);
	must(page != NULL);
	memset(page, 0x90, MEM_PAGE_SIZE);
	const unsigned room = MEM_PAGE_SIZE - off, n = size < room ? (unsigned)size : room;
	memcpy(page + off, data, n);
	one_block(page, off, mode, max_ops);
	free(page);

	/* Every instruction from every byte on, each in a buffer that ends where the input does. */
	for (size_t at = 0; at < size && at < 64; at++) {
		size_t left = size - at < X86_MAX_LEN ? size - at : X86_MAX_LEN;
		uint8_t *code = malloc(left);
		must(code != NULL);
		memcpy(code, data + at, left);
		one_insn(code, left, mode, (unsigned)((off + at) % MEM_PAGE_SIZE));
		free(code);
	}
	return 0;
}
