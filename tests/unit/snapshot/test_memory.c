/* SPDX-License-Identifier: Apache-2.0 */
/* RAM made from parts of files, giving pages back, and the dirty log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/util.h"
#include "mem/mem.h"

#define SIZE MIB(16)

/* A file whose byte at each offset says its page and the file. */
static int file_with(uint8_t tag)
{
	int fd = memfd_create("layer", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	for (uint64_t at = 0; at < SIZE; at += MEM_PAGE_SIZE) {
		uint8_t b[2] = {tag, (uint8_t)(at >> MEM_PAGE_SHIFT)};
		assert_int_equal(pwrite(fd, b, 2, (off_t)at), 2);
	}
	return fd;
}

static void parts_are_seen_where_they_belong(void **state)
{
	struct mem m;
	struct cai_error err;
	int a = file_with('a'), b = file_with('b');
	const struct mem_part parts[] = {{0, MIB(1), a}, {MIB(1), MIB(2), b}, {MIB(8), MIB(1), a}};
	assert_int_equal(mem_create_private(&m, SIZE, parts, 3, &err), 0);
	close(a);
	close(b);
	assert_int_equal(m.base[0], 'a');
	assert_int_equal(m.base[MIB(1)], 'b');
	assert_int_equal(m.base[MIB(1) + 1], 0);
	assert_int_equal(m.base[MIB(3)], 0);
	assert_int_equal(m.base[MIB(8) + MEM_PAGE_SIZE + 1], 1);
	mem_destroy(&m);
}

static void a_part_outside_of_ram_is_refused(void **state)
{
	static const struct mem_part bad[] = {{SIZE, 4096, 0}, {0, SIZE + 4096, 0}, {100, 4096, 0}, {0, 100, 0}, {0, 0, 0}, {1ull << 63, 1ull << 63, 0}};
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct mem m;
		struct cai_error err;
		assert_int_equal(mem_create_private(&m, SIZE, &bad[i], 1, &err), -1);
	}
}

static void writes_stay_private(void **state)
{
	struct mem m, n;
	struct cai_error err;
	int a = file_with('a');
	const struct mem_part part = {0, SIZE, a};
	assert_int_equal(mem_create_private(&m, SIZE, &part, 1, &err), 0);
	assert_int_equal(mem_create_private(&n, SIZE, &part, 1, &err), 0);
	m.base[0] = 'x';
	assert_int_equal(n.base[0], 'a');
	uint8_t byte;
	assert_int_equal(pread(a, &byte, 1, 0), 1);
	assert_int_equal(byte, 'a');
	close(a);
	mem_destroy(&m);
	mem_destroy(&n);
}

static void a_page_given_back_never_shows_the_file_again(void **state)
{
	struct mem m;
	struct cai_error err;
	int a = file_with('a');
	const struct mem_part part = {0, SIZE, a};
	assert_int_equal(mem_create_private(&m, SIZE, &part, 1, &err), 0);
	m.base[MIB(1)] = 'x';
	for (unsigned i = 0; i < 3; i++) { /* again when it is anonymous already, and when it has been written since */
		assert_int_equal(mem_discard(&m, MIB(1) - 4096, MIB(1)), 0);
		for (uint64_t at = MIB(1) - 4096; at < MIB(2) - 4096; at++)
			assert_int_equal(m.base[at], 0);
		memset(m.base + MIB(1), 'y', 8192);
	}
	assert_int_equal(m.base[MIB(1) - 8192], 'a');
	assert_int_equal(m.base[MIB(2) - 4096], 'a');
	close(a);
	mem_destroy(&m);
}

/* A guest that gives back every second page would have the kernel run out of mappings. */
static void scattered_pages_are_zero_too(void **state)
{
	struct mem m;
	struct cai_error err;
	const uint64_t size = MIB(256);
	int a = memfd_create("layer", MFD_CLOEXEC);
	assert_int_equal(ftruncate(a, (off_t)size), 0);
	const struct mem_part part = {0, size, a};
	for (uint64_t at = 0; at < size; at += MEM_PAGE_SIZE)
		assert_int_equal(pwrite(a, "f", 1, (off_t)at), 1);
	assert_int_equal(mem_create_private(&m, size, &part, 1, &err), 0);
	for (uint64_t at = 0; at < size; at += 2 * MEM_PAGE_SIZE)
		assert_int_equal(mem_discard(&m, at, MEM_PAGE_SIZE), 0);
	for (uint64_t at = 0; at < size; at += MEM_PAGE_SIZE)
		assert_int_equal(m.base[at], at / MEM_PAGE_SIZE % 2 ? 'f' : 0);
	close(a);
	mem_destroy(&m);
}

static void the_dirty_log_begins_anew(void **state)
{
	struct mem m;
	struct cai_error err;
	assert_int_equal(mem_create(&m, SIZE, &err), 0);
	assert_int_equal(mem_write(&m, 0, "x", 1), 0);
	assert_int_equal(mem_dirty_begin(&m, &err), 0);
	assert_false(mem_dirty_test(&m, 0));
	assert_int_equal(mem_write(&m, 2 * MEM_PAGE_SIZE - 1, "xy", 2), 0);
	assert_true(mem_dirty_test(&m, 1) && mem_dirty_test(&m, 2) && !mem_dirty_test(&m, 3));
	assert_int_equal(mem_discard(&m, MIB(1), MEM_PAGE_SIZE), 0);
	assert_true(mem_dirty_test(&m, 256));
	assert_int_equal(mem_dirty_begin(&m, &err), 0);
	assert_false(mem_dirty_test(&m, 1) || mem_dirty_test(&m, 256));
	mem_destroy(&m);
}

static void count(void *ctx, uint64_t offset)
{
	uint64_t *bad = ctx;
	bad[0]++;
	bad[1] = offset;
}

static void a_damaged_chunk_is_told_once_when_it_is_used(void **state)
{
	struct mem m;
	struct cai_error err;
	uint64_t bad[2] = {0};
	int a = file_with('a');
	const struct mem_part part = {0, SIZE, a};
	assert_int_equal(mem_create_private(&m, SIZE, &part, 1, &err), 0);
	uint32_t *crc = calloc(SIZE / 65536, sizeof(*crc));
	uint64_t *pending = calloc(SIZE / 65536 / 64, sizeof(*pending));
	for (uint64_t c = 0; c < SIZE / 65536; c++)
		crc[c] = crc32c(0, m.base + c * 65536, 65536);
	memset(pending, 0xff, SIZE / 65536 / 8);
	crc[5] ^= 1;
	crc[6] ^= 1;
	pending[0] &= ~(1ull << 6); /* nobody asks about this one */
	assert_int_equal(mem_check_begin(&m, 65536, crc, pending, count, bad, &err), 0);
	/* A write that was made after a look changes nothing. */
	assert_int_equal(mem_write(&m, 3 * 65536 + 8, "xyz", 3), 0);
	uint8_t b[3];
	assert_int_equal(mem_read(&m, 3 * 65536 + 8, b, 3), 0);
	assert_memory_equal(b, "xyz", 3);
	assert_int_equal(bad[0], 0);
	assert_int_equal(mem_write(&m, 5 * 65536 - 1, "xyz", 3), 0);
	assert_int_equal(bad[0], 1);
	assert_int_equal(bad[1], 5 * 65536);
	for (uint64_t at = 0; at < SIZE; at += 4096)
		assert_int_equal(mem_read(&m, at, b, 1), 0);
	assert_int_equal(bad[0], 1);
	close(a);
	mem_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts_are_seen_where_they_belong),
		cmocka_unit_test(a_part_outside_of_ram_is_refused),
		cmocka_unit_test(writes_stay_private),
		cmocka_unit_test(a_page_given_back_never_shows_the_file_again),
		cmocka_unit_test(scattered_pages_are_zero_too),
		cmocka_unit_test(the_dirty_log_begins_anew),
		cmocka_unit_test(a_damaged_chunk_is_told_once_when_it_is_used),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
