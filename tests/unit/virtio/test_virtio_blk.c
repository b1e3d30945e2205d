/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk, driven as a guest would. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/blk.h"

#define RAM      (32u << 20)
#define SECTORS  256u
#define SERIAL   "disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define RING     (BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))

static struct drv d;
static struct virtio_blk *b;
static int file; /* the test's own descriptor of the backing */

static uint8_t pattern(uint64_t i)
{
	return (uint8_t)(i * 7 + i / 512);
}

/* A file of SECTORS sectors and 100 bytes. */
static int make_file(void)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	uint8_t buf[SECTORS * 512 + 100];
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = pattern(i);
	assert_int_equal(write(fd, buf, sizeof(buf)), sizeof(buf));
	return fd;
}

static void start(int fd, bool readonly)
{
	struct cai_error err;
	b = virtio_blk_create(&d.mem, drv_irq(&d), fd, readonly, SERIAL, &err);
	assert_non_null(b);
	drv_start(&d, virtio_blk_dev(b), RING, 1, 128);
}

static int setup(void **state)
{
	drv_init(&d, RAM);
	file = make_file();
	return 0;
}

static int teardown(void **state)
{
	virtio_blk_destroy(b);
	b = NULL;
	close(file);
	drv_fini(&d);
	return 0;
}

/* One request with its data cut into pieces; returns the status byte, the used length in *used. */
static uint8_t request(uint32_t type, uint64_t sector, uint64_t data, uint32_t len, uint32_t piece, uint32_t *used)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	uint64_t h = drv_alloc(&d, 16, 16), s = drv_alloc(&d, 1, 1);
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};
	memcpy(drv_ptr(&d, h, 16), &hdr, 16);
	*(uint8_t *)drv_ptr(&d, s, 1) = 0xee;
	struct drv_seg seg[128];
	unsigned n = 0;
	seg[n++] = (struct drv_seg){h, 16, false};
	for (uint32_t at = 0; at < len; at += piece)
		seg[n++] = (struct drv_seg){data + at, piece < len - at ? piece : len - at, in};
	seg[n++] = (struct drv_seg){s, 1, true};
	uint16_t head = n > 8 ? drv_add_indirect(&d, 0, seg, n) : drv_add(&d, 0, seg, n), got;
	drv_notify(&d, 0);
	uint32_t u;
	assert_true(drv_used(&d, 0, &got, &u));
	assert_int_equal(got, head);
	if (used)
		*used = u;
	return *(uint8_t *)drv_ptr(&d, s, 1);
}

static void tells_its_size(void **state)
{
	start(dup(file), false);
	assert_int_equal(drv_config(&d, 0, 8), SECTORS); /* rounded down */
	assert_int_equal(drv_config(&d, offsetof(struct virtio_blk_config, seg_max), 4), 126);
	drv_write(&d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	uint32_t f = drv_read(&d, VIRTIO_MMIO_DEVICE_FEATURES);
	assert_true(f & BIT(VIRTIO_BLK_F_FLUSH));
	assert_true(f & BIT(VIRTIO_BLK_F_DISCARD)); /* tmpfs punches holes */
	assert_false(f & BIT(VIRTIO_BLK_F_RO));
}

static void reads_what_the_file_holds(void **state)
{
	start(dup(file), true);
	uint64_t a = drv_alloc(&d, 64 << 10, 4096);
	static const struct {
		uint64_t sector;
		uint32_t len, piece;
	} cases[] = {{0, 512, 512}, {3, 4096, 4096}, {SECTORS - 1, 512, 100}, {0, 65536, 4096}, {8, 32768, 300}, {5, 0, 1}};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t *p = drv_ptr(&d, a, 65536);
		uint32_t used;
		memset(p, 0, 65536);
		assert_int_equal(request(VIRTIO_BLK_T_IN, cases[i].sector, a, cases[i].len, cases[i].piece, &used), VIRTIO_BLK_S_OK);
		assert_int_equal(used, cases[i].len + 1);
		for (uint32_t k = 0; k < cases[i].len; k++)
			assert_int_equal(p[k], pattern(cases[i].sector * 512 + k));
	}
}

static void writes_reach_the_file(void **state)
{
	start(dup(file), false);
	uint64_t a = drv_alloc(&d, 8192, 4096);
	uint8_t *p = drv_ptr(&d, a, 8192), back[8192];
	for (unsigned i = 0; i < 8192; i++)
		p[i] = (uint8_t)(i * 13);
	uint32_t used;
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 10, a, 8192, 1000, &used), VIRTIO_BLK_S_OK);
	assert_int_equal(used, 1);
	assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, 1, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(file, back, 8192, 10 * 512), 8192);
	assert_memory_equal(back, p, 8192);
	struct stat st;
	fstat(file, &st);
	assert_int_equal(st.st_size, SECTORS * 512 + 100);
}

static void what_succeeded_is_counted(void **state)
{
	struct virtio_blk_stats s;
	start(dup(file), false);
	uint64_t a = drv_alloc(&d, 4096, 4096);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, a, 1024, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 1, a, 512, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 2, a, 1024, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_IN, SECTORS, a, 512, 512, NULL), VIRTIO_BLK_S_IOERR);
	virtio_blk_get_stats(b, &s);
	assert_true(s.reads == 1 && s.read_bytes == 1024 && s.writes == 2 && s.written_bytes == 1536);
}

static void requests_outside_the_disk_fail(void **state)
{
	start(dup(file), false);
	uint64_t a = drv_alloc(&d, 8192, 4096);
	static const struct {
		uint64_t sector;
		uint32_t len;
	} cases[] = {{SECTORS, 512}, {SECTORS - 1, 1024}, {~0ull, 512}, {~0ull >> 9, 512}, {(~0ull >> 9) + 1, 512}, {1ull << 55, 512},
		     {0, 100}, {0, 513}};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		uint32_t used;
		assert_int_equal(request(VIRTIO_BLK_T_IN, cases[i].sector, a, cases[i].len, 512, &used), VIRTIO_BLK_S_IOERR);
		assert_int_equal(used, 1);
		assert_int_equal(request(VIRTIO_BLK_T_OUT, cases[i].sector, a, cases[i].len, 512, NULL), VIRTIO_BLK_S_IOERR);
	}
	struct stat st;
	fstat(file, &st);
	assert_int_equal(st.st_size, SECTORS * 512 + 100);
	assert_int_equal(request(77, 0, a, 512, 512, NULL), VIRTIO_BLK_S_UNSUPP);
}

static void read_only_is_enforced_whatever_the_driver_does(void **state)
{
	start(dup(file), true);
	drv_write(&d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	assert_true(drv_read(&d, VIRTIO_MMIO_DEVICE_FEATURES) & BIT(VIRTIO_BLK_F_RO));
	uint64_t a = drv_alloc(&d, 4096, 4096);
	memset(drv_ptr(&d, a, 512), 0x5a, 512);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 0, a, 512, 512, NULL), VIRTIO_BLK_S_IOERR);
	struct virtio_blk_discard_write_zeroes z = {.sector = 0, .num_sectors = 8};
	memcpy(drv_ptr(&d, a, sizeof(z)), &z, sizeof(z));
	assert_int_not_equal(request(VIRTIO_BLK_T_DISCARD, 0, a, sizeof(z), 16, NULL), VIRTIO_BLK_S_OK);
	assert_int_not_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, a, sizeof(z), 16, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, 1, NULL), VIRTIO_BLK_S_OK);
	uint8_t c;
	assert_int_equal(pread(file, &c, 1, 1), 1);
	assert_int_equal(c, pattern(1));
}

static void a_file_that_shrank_gives_errors(void **state)
{
	start(dup(file), false);
	uint64_t a = drv_alloc(&d, 4096, 4096);
	assert_int_equal(ftruncate(file, 20 * 512 + 100), 0);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 19, a, 512, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 19, a, 1024, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 100, a, 512, 512, NULL), VIRTIO_BLK_S_IOERR);
}

static void the_serial_is_given(void **state)
{
	start(dup(file), true);
	uint64_t a = drv_alloc(&d, 64, 64);
	uint32_t used;
	memset(drv_ptr(&d, a, 64), 0xaa, 64);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, a, 20, 20, &used), VIRTIO_BLK_S_OK);
	assert_int_equal(used, 21);
	assert_memory_equal(drv_ptr(&d, a, 20), SERIAL, 20);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, a, 3, 3, &used), VIRTIO_BLK_S_OK);
	assert_int_equal(used, 4);
	assert_int_equal(request(VIRTIO_BLK_T_GET_ID, 0, a, 0, 3, &used), VIRTIO_BLK_S_OK);
}

static void discarded_and_zeroed_ranges_read_zero(void **state)
{
	start(dup(file), false);
	uint64_t a = drv_alloc(&d, 4096, 4096);
	for (unsigned i = 0; i < 3; i++) {
		uint32_t type = i ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_DISCARD;
		uint64_t at = 16 + 32 * i;
		struct virtio_blk_discard_write_zeroes z[2] = {
			{.sector = at, .num_sectors = 8, .flags = i == 2 ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0},
			{.sector = at + 16, .num_sectors = 1}};
		memcpy(drv_ptr(&d, a, sizeof(z)), z, sizeof(z));
		assert_int_equal(request(type, 0, a, sizeof(z), 16, NULL), VIRTIO_BLK_S_OK);
		uint8_t back[8 * 512], zero[8 * 512] = {0};
		assert_int_equal(pread(file, back, sizeof(back), (off_t)at * 512), sizeof(back));
		assert_memory_equal(back, zero, sizeof(zero));
		assert_int_equal(pread(file, back, 1, (off_t)(at + 8) * 512), 1);
		assert_int_equal(back[0], pattern((at + 8) * 512));
	}
	static const struct virtio_blk_discard_write_zeroes bad[] = {
		{.sector = SECTORS, .num_sectors = 1},
		{.sector = ~0ull, .num_sectors = 2},
		{.sector = 0, .num_sectors = ~0u},
		{.sector = 0, .num_sectors = 1, .flags = 2},
	};
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		memcpy(drv_ptr(&d, a, sizeof(bad[i])), &bad[i], sizeof(bad[i]));
		assert_int_not_equal(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, a, sizeof(bad[i]), 16, NULL), VIRTIO_BLK_S_OK);
	}
	assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, a, 15, 16, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_DISCARD, 0, a, 0, 16, NULL), VIRTIO_BLK_S_IOERR);
}

static void an_empty_slot_gets_its_disk_later(void **state)
{
	struct cai_error err;
	start(-1, false);
	uint64_t a = drv_alloc(&d, 4096, 4096);
	assert_int_equal(drv_config(&d, 0, 8), 0);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, a, 512, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 0, a, 0, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(VIRTIO_BLK_T_FLUSH, 0, 0, 0, 1, NULL), VIRTIO_BLK_S_IOERR);
	drv_ack(&d);
	uint32_t gen = drv_read(&d, VIRTIO_MMIO_CONFIG_GENERATION);
	assert_int_equal(virtio_blk_attach(b, dup(file), true, &err), 0);
	assert_int_equal(drv_ack(&d), VIRTIO_MMIO_INT_CONFIG);
	assert_int_not_equal(drv_read(&d, VIRTIO_MMIO_CONFIG_GENERATION), gen);
	assert_int_equal(drv_config(&d, 0, 8), SECTORS);
	assert_int_equal(request(VIRTIO_BLK_T_IN, 2, a, 512, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(*(uint8_t *)drv_ptr(&d, a + 9, 1), pattern(1024 + 9));
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 2, a, 512, 512, NULL), VIRTIO_BLK_S_IOERR);
	int other = dup(file);
	assert_int_equal(virtio_blk_attach(b, other, true, &err), -1);
	assert_string_equal(err.text, "the disk slot is already in use");
	virtio_blk_detach(b);
	assert_int_equal(drv_config(&d, 0, 8), 0);
	assert_int_equal(virtio_blk_attach(b, other, false, &err), 0);
	assert_int_equal(request(VIRTIO_BLK_T_OUT, 2, a, 512, 512, NULL), VIRTIO_BLK_S_OK);
}

static void wrong_descriptors_are_refused(void **state)
{
	struct cai_error err;
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	assert_null(virtio_blk_create(&d.mem, drv_irq(&d), pipes[0], true, SERIAL, &err));
	assert_string_equal(err.text, "a disk must be a regular file or a block device");
	int null = open("/dev/null", O_RDONLY);
	assert_null(virtio_blk_create(&d.mem, drv_irq(&d), null, false, SERIAL, &err));
	close(null);
	close(pipes[0]);
	close(pipes[1]);
}

static void a_chain_without_header_or_status_stops_the_device(void **state)
{
	uint64_t a = drv_alloc(&d, 4096, 4096);
	start(dup(file), false);
	struct drv_seg no_status[] = {{a, 16, false}};
	drv_add(&d, 0, no_status, 1);
	drv_notify(&d, 0);
	assert_true(drv_needs_reset(&d));
	drv_start(&d, virtio_blk_dev(b), RING, 1, 128);
	struct drv_seg short_header[] = {{a, 15, false}, {a + 16, 1, true}};
	drv_add(&d, 0, short_header, 2);
	drv_notify(&d, 0);
	assert_true(drv_needs_reset(&d));
}

static void header_and_status_may_be_cut_anywhere(void **state)
{
	start(dup(file), false);
	uint64_t a = drv_alloc(&d, 4096, 4096);
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN, .sector = 1};
	memcpy(drv_ptr(&d, a, 16), &hdr, 16);
	struct drv_seg seg[] = {{a, 3, false}, {a + 3, 13, false}, {a + 100, 200, true}, {a + 300, 313, true}};
	drv_add(&d, 0, seg, 4);
	drv_notify(&d, 0);
	uint32_t used;
	assert_true(drv_used(&d, 0, NULL, &used));
	assert_int_equal(used, 513);
	const uint8_t *p = drv_ptr(&d, a + 100, 513);
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(p[i], pattern(512 + i));
	assert_int_equal(p[512], VIRTIO_BLK_S_OK);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(tells_its_size),
		T(reads_what_the_file_holds),
		T(writes_reach_the_file),
		T(what_succeeded_is_counted),
		T(requests_outside_the_disk_fail),
		T(read_only_is_enforced_whatever_the_driver_does),
		T(a_file_that_shrank_gives_errors),
		T(the_serial_is_given),
		T(discarded_and_zeroed_ranges_read_zero),
		T(an_empty_slot_gets_its_disk_later),
		T(wrong_descriptors_are_refused),
		T(a_chain_without_header_or_status_stops_the_device),
		T(header_and_status_may_be_cut_anywhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
