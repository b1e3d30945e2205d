/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng and virtio-balloon, driven as a guest would. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <linux/virtio_balloon.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/balloon.h"
#include "virtio/rng.h"

#define RAM  (32u << 20)
#define RING (BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))

static struct drv d;

static int setup(void **state)
{
	drv_init(&d, RAM);
	return 0;
}

static int teardown(void **state)
{
	drv_fini(&d);
	return 0;
}

static void random_bytes_fill_the_buffers(void **state)
{
	struct cai_error err;
	struct virtio_rng *r = virtio_rng_create(&d.mem, drv_irq(&d), &err);
	assert_non_null(r);
	drv_start(&d, virtio_rng_dev(r), RING, 1, 8);
	uint64_t a = drv_alloc(&d, 256, 256);
	struct drv_seg seg[] = {{a, 64, true}, {a + 128, 64, true}};
	uint8_t zero[64] = {0}, before[64];
	uint32_t len;
	drv_add(&d, 0, seg, 2);
	drv_notify(&d, 0);
	assert_true(drv_used(&d, 0, NULL, &len));
	assert_int_equal(len, 128);
	assert_memory_not_equal(drv_ptr(&d, a, 64), zero, 64);
	assert_memory_equal(drv_ptr(&d, a + 64, 64), zero, 64);
	assert_memory_not_equal(drv_ptr(&d, a + 128, 64), zero, 64);
	memcpy(before, drv_ptr(&d, a, 64), 64);
	drv_add(&d, 0, seg, 2);
	drv_notify(&d, 0);
	assert_memory_not_equal(drv_ptr(&d, a, 64), before, 64);
	virtio_rng_destroy(r);
}

static void a_request_for_everything_is_bounded(void **state)
{
	struct cai_error err;
	struct virtio_rng *r = virtio_rng_create(&d.mem, drv_irq(&d), &err);
	drv_start(&d, virtio_rng_dev(r), RING, 1, 8);
	uint64_t a = 1 << 20;
	struct drv_seg seg[] = {{a, 8 << 20, true}, {a, 8 << 20, true}, {a, 100, true}};
	uint32_t len;
	drv_add(&d, 0, seg, 3);
	drv_notify(&d, 0);
	assert_true(drv_used(&d, 0, NULL, &len));
	assert_int_equal(len, VIRTIO_RNG_MAX_REQUEST);
	assert_int_equal(load_le64(drv_ptr(&d, a + VIRTIO_RNG_MAX_REQUEST, 8)), 0);
	/* readable segments are no place to write */
	struct drv_seg out = {a + (4 << 20), 64, false};
	drv_used(&d, 0, NULL, NULL);
	drv_add(&d, 0, &out, 1);
	drv_notify(&d, 0);
	assert_true(drv_used(&d, 0, NULL, &len));
	assert_int_equal(len, 0);
	virtio_rng_destroy(r);
}

static unsigned resident(uint64_t gpa, unsigned pages)
{
	unsigned char vec[4096];
	assert_int_equal(mincore(drv_ptr(&d, gpa, pages * 4096ull), pages * 4096ull, vec), 0);
	unsigned n = 0;
	for (unsigned i = 0; i < pages; i++)
		n += vec[i] & 1;
	return n;
}

static void inflated_pages_go_back_to_the_host(void **state)
{
	struct cai_error err;
	struct virtio_balloon *b = virtio_balloon_create(&d.mem, drv_irq(&d), &err);
	assert_non_null(b);
	drv_start(&d, virtio_balloon_dev(b), RING | BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM), 2, 128);
	uint64_t area = 8 << 20, list = drv_alloc(&d, 4096, 4096);
	memset(drv_ptr(&d, area, 64 * 4096), 0x11, 64 * 4096);
	assert_int_equal(resident(area, 64), 64);
	/* a run, a single page, numbers outside of RAM, a page twice, and half a number at the end */
	uint32_t *pfn = drv_ptr(&d, list, 4096);
	unsigned n = 0;
	for (unsigned i = 0; i < 16; i++)
		pfn[n++] = (uint32_t)(area >> 12) + i;
	pfn[n++] = 0xffffffff;
	pfn[n++] = RAM >> 12;
	pfn[n++] = 0x80000000;
	pfn[n++] = (uint32_t)(area >> 12) + 40;
	pfn[n++] = (uint32_t)(area >> 12) + 40;
	struct drv_seg seg = {list, 4 * n + 2, false};
	drv_add(&d, 0, &seg, 1);
	drv_notify(&d, 0);
	assert_true(drv_used(&d, 0, NULL, NULL));
	assert_false(drv_needs_reset(&d));
	assert_int_equal(resident(area, 64), 64 - 17);
	assert_int_equal(virtio_balloon_freed_bytes(b), 18 * 4096);
	assert_int_equal(*(uint8_t *)drv_ptr(&d, area + 5 * 4096, 1), 0);
	assert_int_equal(*(uint8_t *)drv_ptr(&d, area + 20 * 4096, 1), 0x11);
	/* deflating needs nothing but an answer */
	drv_add(&d, 1, &seg, 1);
	drv_notify(&d, 1);
	assert_true(drv_used(&d, 1, NULL, NULL));
	/* an absurd chain is refused */
	struct drv_seg huge = {0, 1 << 20, false};
	drv_add(&d, 0, &huge, 1);
	drv_notify(&d, 0);
	assert_true(drv_needs_reset(&d));
	virtio_balloon_destroy(b);
}

static void reported_ranges_go_back_to_the_host(void **state)
{
	static const unsigned queues[] = {2, 4}; /* as Linux counts, and as the specification does */
	for (unsigned i = 0; i < ARRAY_LEN(queues); i++) {
		struct cai_error err;
		struct virtio_balloon *b = virtio_balloon_create(&d.mem, drv_irq(&d), &err);
		unsigned q = queues[i];
		drv_start(&d, virtio_balloon_dev(b), RING | BIT(VIRTIO_BALLOON_F_REPORTING), q + 1, 128);
		uint64_t area = 8 << 20;
		memset(drv_ptr(&d, area, 64 * 4096), 0x11, 64 * 4096);
		struct drv_seg seg[] = {{area, 8 * 4096, true}, {area + 16 * 4096 + 1, 4 * 4096, true}, {area + 50 * 4096, 100, true}};
		uint32_t len;
		drv_add(&d, q, seg, 3);
		drv_notify(&d, q);
		assert_true(drv_used(&d, q, NULL, &len));
		assert_int_equal(len, 0);
		assert_int_equal(resident(area, 64), 64 - 8 - 3); /* only whole pages */
		assert_int_equal(virtio_balloon_freed_bytes(b), 11 * 4096);
		virtio_balloon_destroy(b);
	}
}

static void reporting_that_was_not_negotiated_does_nothing(void **state)
{
	struct cai_error err;
	struct virtio_balloon *b = virtio_balloon_create(&d.mem, drv_irq(&d), &err);
	drv_start(&d, virtio_balloon_dev(b), RING, 3, 128);
	uint64_t area = 8 << 20;
	memset(drv_ptr(&d, area, 4096), 0x11, 4096);
	struct drv_seg seg = {area, 4096, true};
	drv_add(&d, 2, &seg, 1);
	drv_notify(&d, 2);
	assert_true(drv_used(&d, 2, NULL, NULL));
	assert_int_equal(*(uint8_t *)drv_ptr(&d, area, 1), 0x11);
	virtio_balloon_destroy(b);
}

static void the_target_is_announced(void **state)
{
	struct cai_error err;
	struct virtio_balloon *b = virtio_balloon_create(&d.mem, drv_irq(&d), &err);
	drv_start(&d, virtio_balloon_dev(b), RING, 2, 128);
	virtio_balloon_set_target(b, 1234);
	assert_int_equal(drv_ack(&d), VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(drv_config(&d, 0, 4), 1234);
	drv_write(&d, VIRTIO_MMIO_CONFIG + 4, 77);
	assert_int_equal(virtio_balloon_actual(b), 77);
	drv_write(&d, VIRTIO_MMIO_CONFIG, 5); /* ours to set */
	assert_int_equal(drv_config(&d, 0, 4), 1234);
	drv_write(&d, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(virtio_balloon_actual(b), 0);
	virtio_balloon_destroy(b);
}

static unsigned told;

static void on_write(void *ctx, uint64_t gpa, uint64_t len)
{
	told++;
	assert_true(gpa + len <= RAM);
}

static void every_write_is_reported_to_memory(void **state)
{
	struct cai_error err;
	struct virtio_rng *r = virtio_rng_create(&d.mem, drv_irq(&d), &err);
	drv_start(&d, virtio_rng_dev(r), RING, 1, 8);
	static _Atomic uint64_t dirty[RAM / 4096 / 64];
	memset(dirty, 0, sizeof(dirty));
	d.mem.dirty = dirty;
	mem_set_notify(&d.mem, on_write, NULL);
	uint64_t a = 9 << 20;
	struct drv_seg seg = {a + 4000, 200, true};
	drv_add(&d, 0, &seg, 1);
	drv_notify(&d, 0);
	uint64_t page = a >> 12, used = d.q[0].used >> 12;
	assert_true(dirty[page / 64] >> page % 64 & 1);
	assert_true(dirty[(page + 1) / 64] >> (page + 1) % 64 & 1);
	assert_false(dirty[(page + 2) / 64] >> (page + 2) % 64 & 1);
	assert_true(dirty[used / 64] >> used % 64 & 1);
	assert_true(told >= 2);
	d.mem.dirty = NULL;
	virtio_rng_destroy(r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(random_bytes_fill_the_buffers),
		T(a_request_for_everything_is_bounded),
		T(inflated_pages_go_back_to_the_host),
		T(reported_ranges_go_back_to_the_host),
		T(reporting_that_was_not_negotiated_does_nothing),
		T(the_target_is_announced),
		T(every_write_is_reported_to_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
