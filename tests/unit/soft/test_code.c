/* SPDX-License-Identifier: Apache-2.0 */
/* The block cache: when a page may be decoded, what a write drops, what is left when it is full; and the jump cache beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "hv/soft/code.h"
#include "x86/insn.h"
#include "x86/opcodes.h"
#include "x86/paging.h"

#define PAGE 5u

struct rig {
	struct mem mem;
	struct code_cache code;
	uint8_t *page;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct cai_error err = {0};
	if (!r || mem_create(&r->mem, MEM_MIN_BYTES, &err) < 0 || code_cache_init(&r->code, &r->mem, CODE_CACHE_MIN, &err) < 0)
		return -1;
	r->page = mem_hva(&r->mem, (uint64_t)PAGE << MEM_PAGE_SHIFT, MEM_PAGE_SIZE);
	memset(r->page, 0x90, MEM_PAGE_SIZE);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;
	code_cache_destroy(&r->code);
	mem_destroy(&r->mem);
	free(r);
	return 0;
}

static const struct x86_block *build(struct rig *r, unsigned off)
{
	bool full;
	return code_build(&r->code, PAGE, r->page, off, X86_MODE_64, &full);
}

static void test_a_page_is_not_decoded_while_someone_may_write_to_it(void **state)
{
	struct rig *r = *state;
	assert_null(build(r, 0));
	atomic_store(&r->code.pages[PAGE].is_code, 1);
	atomic_store(&r->code.writers[PAGE], 4);
	assert_null(build(r, 0));
	atomic_store(&r->code.writers[PAGE], 0);
	const struct x86_block *b = build(r, 0);
	assert_non_null(b);
	assert_ptr_equal(build(r, 0), b);
	assert_ptr_equal(code_find(&r->code, PAGE, 0, X86_MODE_64), b);
	assert_null(code_find(&r->code, PAGE, 0, X86_MODE_32));
}

static void test_a_write_drops_blocks_only_where_bytes_were_decoded(void **state)
{
	struct rig *r = *state;
	atomic_store(&r->code.pages[PAGE].is_code, 1);
	r->page[130] = 0xc3;
	const struct x86_block *b = build(r, 128);
	assert_non_null(b);
	assert_false(code_invalidate(&r->code, PAGE, 64, 64));
	assert_false(code_invalidate(&r->code, PAGE, 192, 4096 - 192));
	assert_false(code_invalidate(&r->code, PAGE + 1, 128, 1));
	assert_ptr_equal(code_find(&r->code, PAGE, 128, X86_MODE_64), b);
	assert_true(code_invalidate(&r->code, PAGE, 191, 1));
	assert_null(code_find(&r->code, PAGE, 128, X86_MODE_64));
	assert_true(b->dead);
	/* And writes are fast again. */
	assert_int_equal(atomic_load(&r->code.pages[PAGE].is_code), 0);
}

static void test_a_write_behind_an_invalid_opcode_drops_it(void **state)
{
	struct rig *r = *state;
	atomic_store(&r->code.pages[PAGE].is_code, 1);
	r->page[63] = 0x0f;
	r->page[64] = 0x04;
	assert_non_null(build(r, 63));
	r->page[64] = 0x05;
	assert_true(code_invalidate(&r->code, PAGE, 64, 1));
}

static void test_a_dead_block_is_linked_to_nothing(void **state)
{
	struct rig *r = *state;
	atomic_store(&r->code.pages[PAGE].is_code, 1);
	r->page[0] = 0xeb; /* jmp to 0x81 */
	r->page[1] = 0x7f;
	r->page[0x81] = 0xc3;
	const struct x86_block *from = build(r, 0), *to = build(r, 0x81);
	struct x86_op *j = (struct x86_op *)(uintptr_t)&from->op[0];
	assert_int_equal(j->h, X86_OP_goto_near);
	code_invalidate(&r->code, PAGE, 0x81, 1);
	code_link(&r->code, from, j, to);
	assert_int_equal(j->disp, 0);
	atomic_store(&r->code.pages[PAGE].is_code, 1);
	from = build(r, 0);
	to = build(r, 0x81);
	j = (struct x86_op *)(uintptr_t)&from->op[0];
	code_link(&r->code, from, j, to);
	assert_ptr_equal(r->code.arena + j->disp, to);
}

static void test_a_full_cache_says_so_and_is_whole_after_emptying(void **state)
{
	struct rig *r = *state;
	bool full = false;
	unsigned n = 0;
	for (unsigned turn = 0; turn < 3; turn++) {
		for (unsigned page = 0; page < r->code.n_pages && !full; page++) {
			uint8_t *host = r->mem.base + (uint64_t)page * MEM_PAGE_SIZE;
			memset(host, 0x90, MEM_PAGE_SIZE);
			atomic_store(&r->code.pages[page].is_code, 1);
			for (unsigned off = 0; off < MEM_PAGE_SIZE && !full; off += 3) {
				const struct x86_block *b = code_build(&r->code, page, host, off, X86_MODE_64, &full);
				assert_true(full || b);
				if (b)
					assert_true((const uint8_t *)&b->op[b->n_ops] <= r->code.arena + r->code.size);
				n++;
			}
		}
		assert_true(full);
		code_empty(&r->code);
		assert_null(code_find(&r->code, 0, 0, X86_MODE_64));
		assert_int_equal(atomic_load(&r->code.pages[0].is_code), 0);
		full = false;
	}
	assert_true(n > 1000);
}

/* The store of a writer and the look at is_code, against the mark of a decoder and its look at the bytes: one must see the other. */
struct race {
	struct rig *r;
	pthread_barrier_t go;
};
static void *racing_writer(void *arg)
{
	struct race *race = arg;
	for (unsigned i = 0; i < 3000; i++) {
		pthread_barrier_wait(&race->go);
		*(volatile uint8_t *)race->r->page = 0xc3;
		code_invalidate(&race->r->code, PAGE, 0, 1);
		pthread_barrier_wait(&race->go);
	}
	return NULL;
}
static void test_a_writer_and_a_decoder_never_miss_each_other(void **state)
{
	struct race race = {.r = *state};
	struct rig *r = race.r;
	pthread_t t;
	pthread_barrier_init(&race.go, NULL, 2);
	assert_int_equal(pthread_create(&t, NULL, racing_writer, &race), 0);
	for (unsigned i = 0; i < 3000; i++) {
		code_empty(&r->code);
		r->page[0] = 0x90;
		pthread_barrier_wait(&race.go);
		atomic_store(&r->code.pages[PAGE].is_code, 1);
		build(r, 0);
		pthread_barrier_wait(&race.go);
		const struct x86_block *b = code_find(&r->code, PAGE, 0, X86_MODE_64);
		if (b)
			assert_int_equal(b->op[0].h, X86_OP_ret);
	}
	pthread_join(t, NULL);
	pthread_barrier_destroy(&race.go);
}

/* Generations come round after 2^29 flushes: entries of the first time must not hold then, their memory may be in use for something else. */
static void test_a_jump_target_does_not_come_back_when_its_generation_does(void **state)
{
	struct rig *r = *state;
	static const struct x86_cpu_model model;
	const struct x86_env env = {.mem = &r->mem, .model = &model};
	struct x86_cpu *c = aligned_alloc(64, align_up(sizeof(*c), 64));
	assert_non_null(c);
	for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
		x86_cpu_init(c, &env, NULL, 0);
		c->efer = X86_EFER_LMA | X86_EFER_LME;
		c->seg[X86_CS].attr |= X86_ATTR_L;
		c->cpl = (uint8_t)cpl;
		x86_update_mode(c);
		x86_note_jump(c, 0x1234, 64);
		const struct x86_jump *j = &c->jc[X86_JC_INDEX(0x1234ull)];
		assert_int_equal(j->gen, c->jc_gen);
		c->jc_gens[0] = c->jc_gens[1] = 0u - 16;
		x86_update_mode(c);
		for (unsigned i = 0; i < 8; i++) {
			x86_tlb_flush(c, true);
			assert_int_not_equal(j->gen, c->jc_gen);
		}
	}
	free(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_a_page_is_not_decoded_while_someone_may_write_to_it),
		T(test_a_write_drops_blocks_only_where_bytes_were_decoded),
		T(test_a_write_behind_an_invalid_opcode_drops_it),
		T(test_a_dead_block_is_linked_to_nothing),
		T(test_a_full_cache_says_so_and_is_whole_after_emptying),
		T(test_a_writer_and_a_decoder_never_miss_each_other),
		T(test_a_jump_target_does_not_come_back_when_its_generation_does),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
