/* SPDX-License-Identifier: Apache-2.0 */
/* Runs cases on the software CPU: long mode, CPL 3, page tables that map what native.c maps. */
#include "diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "mem/mem.h"
#include "soft_fast.h"
#include "x86/cpu.h"
#include "x86/fp.h"
#include "x86/paging.h"

#define GPA_TABLES 0x1000ull
#define GPA_CODE   0x10000ull
#define GPA_DATA   0x20000ull

#define P_RW_U 7ull
#define P_RO_U 5ull
#define P_NX   (1ull << 63)

static struct {
	struct mem mem;
	struct x86_cpu_model model;
	struct x86_env env;
	struct x86_cpu *c;
	uint8_t *code, *data; /* the pages behind CODE_PAGE and DATA */
} soft;

static bool no_device(struct x86_cpu *c, uint64_t gpa, void *data, unsigned len, bool is_write)
{
	if (!is_write)
		memset(data, 0xff, len);
	return false;
}
static bool no_port(struct x86_cpu *c, uint16_t port, void *data, unsigned len, bool is_write)
{
	return no_device(c, port, data, len, is_write);
}
static int no_msr_read(struct x86_cpu *c, uint32_t msr, uint64_t *v)
{
	return -1;
}
static int no_msr_write(struct x86_cpu *c, uint32_t msr, uint64_t v)
{
	return -1;
}
static uint64_t no_tsc(struct x86_cpu *c)
{
	return 0;
}

static void set_entry(uint64_t table, unsigned index, uint64_t v)
{
	uint64_t *p = mem_hva(&soft.mem, table + index * 8, 8);
	*p = v;
}

static void make_tables(void)
{
	const uint64_t pml4 = GPA_TABLES, pdpt = pml4 + 0x1000, pd = pml4 + 0x2000, pt_code = pml4 + 0x3000, pt_data = pml4 + 0x4000;
	set_entry(pml4, 0, pdpt | P_RW_U);
	set_entry(pdpt, 0, pd | P_RW_U);
	set_entry(pd, CODE_PAGE >> 21, pt_code | P_RW_U);
	set_entry(pd, DATA >> 21, pt_data | P_RW_U);
	set_entry(pt_code, 0, GPA_CODE | P_RO_U);
	for (unsigned i = 0; i < DATA_PAGES; i++)
		if (i != 4 && i != 6)
			set_entry(pt_data, i, (GPA_DATA + i * 0x1000) | (i == 2 || i == 3 ? P_RO_U : P_RW_U) | P_NX);
}

int soft_start(void)
{
	struct cai_error err;
	if (mem_create(&soft.mem, MEM_MIN_BYTES, &err)) {
		fprintf(stderr, "difftest: %s\n", err.text);
		return -1;
	}
	x86_cpu_model_init(&soft.model, "v2", 1000000, 1);
	soft.env = (struct x86_env){
		.mem = &soft.mem,
		.model = &soft.model,
		.mmio = no_device,
		.pio = no_port,
		.rdmsr = no_msr_read,
		.wrmsr = no_msr_write,
		.rdtsc = no_tsc,
	};
	make_tables();
	soft.code = mem_hva(&soft.mem, GPA_CODE, 0x1000);
	soft.data = mem_hva(&soft.mem, GPA_DATA, DATA_PAGES * 0x1000);
	memset(soft.code, 0xcc, 0x1000);
	if (posix_memalign((void **)&soft.c, 64, sizeof(*soft.c)))
		return -1;
	struct x86_cpu *c = soft.c;
	memset(c, 0, sizeof(*c));
	x86_cpu_init(c, &soft.env, NULL, 0);
	c->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
	c->cr3 = GPA_TABLES;
	c->cr4 = 0x20 | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_SMEP | X86_CR4_SMAP | X86_CR4_UMIP;
	c->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	for (unsigned s = 0; s < X86_N_SEGS; s++)
		c->seg[s] = (struct x86_segment){0};
	c->seg[X86_CS] = (struct x86_segment){.selector = 0x33, .limit = ~0u, .attr = 0xa0fb};
	c->seg[X86_SS] = (struct x86_segment){.selector = 0x2b, .limit = ~0u, .attr = 0xc0f3};
	c->seg[X86_DS] = c->seg[X86_ES] = c->seg[X86_SS];
	c->tr.limit = 0x67; /* no I/O permission bitmap */
	c->cpl = 3;
	x86_update_mode(c);
	x86_tlb_flush(c, true);
	return 0;
}

bool soft_has_fast(void)
{
	return FAST_TIER;
}

static uint8_t *window(uint64_t boundary)
{
	return soft.data + (boundary - DATA) - WINDOW / 2;
}

void soft_run(const struct test_case *t, struct outcome *o, int tier)
{
	struct x86_cpu *c = soft.c;
	memcpy(soft.code + (CODE_START & 0xfff), t->code, CODE_BYTES);
	memcpy(window(t->boundary), t->win, WINDOW);
	memcpy(c->r, t->r, sizeof(t->r));
	x86_set_rflags(c, t->rflags);
	x86_fx_set(c, &t->fx);
	c->seg[X86_CS].selector = t->mode32 ? 0x23 : 0x33;
	c->seg[X86_CS].attr = t->mode32 ? 0xc0fb : 0xa0fb;
	x86_update_mode(c);
	c->rip = CODE_START;
	c->exc = (struct x86_exception){0};
	x86_fp_enter(c);
	enum x86_leave leave;
	unsigned steps = 0;
	if (t->family != FAM_SEQUENCE)
		do /* a REP instruction may take several */
			leave = tier == 0 ? x86_step(c) : fast_step(c);
		while (leave == X86_LEAVE_STEP && c->rip == CODE_START && ++steps < 1000);
	else if (tier == 0)
		do
			leave = x86_step(c);
		while (leave == X86_LEAVE_STEP && soft.code[c->rip & 0xfff] != 0xcc && ++steps < 1000);
	else
		leave = fast_blocks(c, soft.code);
	x86_fp_leave(c);
	memcpy(o->r, c->r, sizeof(o->r));
	o->rip = c->rip;
	o->rflags = x86_get_rflags(c);
	o->vector = leave == X86_LEAVE_STEP ? 3 : leave == X86_LEAVE_EXCEPTION ? c->exc.vector : 0x100u + leave;
	o->error = leave == X86_LEAVE_EXCEPTION && c->exc.has_error ? c->exc.error : 0;
	o->cr2 = leave == X86_LEAVE_EXCEPTION && c->exc.vector == X86_PF ? c->exc.cr2 : 0;
	x86_fx_get(c, &o->fx);
	memcpy(o->win, window(t->boundary), WINDOW);
}
