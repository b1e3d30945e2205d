/* SPDX-License-Identifier: Apache-2.0 */
/* Sections of a snapshot: processors, the VM, virtio devices; what goes out comes back, what cannot be is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "../virtio/driver.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/state.h"
#include "virtio/vsock.h"
#include "vmm/cpu_state.h"

static struct x86_state sample_cpu(void)
{
	struct x86_state s;
	memset(&s, 0, sizeof(s));
	for (unsigned i = 0; i < 16; i++)
		s.gpr[i] = 0x1111111111111111ull * i;
	s.rip = 0xffffffff81000000;
	s.rflags = 0x202;
	s.cr0 = 0x80050033;
	s.cr4 = 0x6f0;
	s.efer = 0xd01;
	s.tr = (struct x86_segment){1, 2, 3, 0x8b};
	s.fx.fcw = 0x37f;
	memset(s.fx.xmm, 0xab, sizeof(s.fx.xmm));
	memset(s.fx.st, 0xcd, sizeof(s.fx.st));
	for (unsigned i = 0; i < X86_LAPIC_REGS; i++)
		s.lapic[i] = i;
	for (unsigned i = 0; i < X86_N_MTRRS; i++)
		s.mtrr[i] = i;
	s.mp_state = X86_MP_HALTED;
	s.event_error = 0x1234;
	return s;
}

static void a_processor_comes_back_as_it_was(void **state)
{
	struct x86_state s = sample_cpu(), t;
	struct buf b = {0};
	struct cai_error err;
	cpu_state_put(&b, &s);
	struct buf_reader r = buf_reader(b.p, b.len);
	assert_int_equal(cpu_state_get(&r, &t, &err), 0);
	assert_memory_equal(s.gpr, t.gpr, sizeof(s.gpr));
	assert_memory_equal(s.lapic, t.lapic, sizeof(s.lapic));
	assert_memory_equal(s.mtrr, t.mtrr, sizeof(s.mtrr));
	assert_memory_equal(&s.fx, &t.fx, 160 + 256);
	assert_memory_equal(&s.tr, &t.tr, sizeof(s.tr));
	assert_true(s.rip == t.rip && s.efer == t.efer && s.mp_state == t.mp_state && s.event_error == t.event_error);
	for (size_t n = 0; n < b.len; n++) {
		r = buf_reader(b.p, n);
		assert_int_equal(cpu_state_get(&r, &t, &err), -1);
	}
	buf_free(&b);
}

static void a_processor_that_cannot_be_is_refused(void **state)
{
	struct x86_state t, bad[] = {sample_cpu(), sample_cpu(), sample_cpu(), sample_cpu(), sample_cpu(), sample_cpu(), sample_cpu(), sample_cpu(), sample_cpu()};
	bad[0].cr0 = 0x80000000;           /* paging without protection */
	bad[1].cr4 = 0;                    /* without PAE */
	bad[2].efer = 0x901;               /* LMA missing */
	bad[3].cr0 |= 1ull << 40;
	bad[4].efer |= 1ull << 20;
	bad[5].mp_state = 4;
	bad[6].irq_shadow = 3;
	bad[7].event_pending = 2;
	bad[8].rflags |= 1u << 17;         /* virtual 8086 mode */
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct buf b = {0};
		struct cai_error err;
		cpu_state_put(&b, &bad[i]);
		struct buf_reader r = buf_reader(b.p, b.len);
		if (cpu_state_get(&r, &t, &err) == 0)
			fail_msg("case %u was taken", i);
		buf_free(&b);
	}
}

static void features_that_are_not_here_are_named(void **state)
{
	struct x86_cpu_model now, then;
	struct buf b = {0};
	struct cai_error err;
	x86_cpu_model_init(&now, "v2", 1000000, 1);
	then = now;
	cpuid_put(&b, &then);
	struct buf_reader r = buf_reader(b.p, b.len);
	assert_int_equal(cpuid_check(&r, &now, &err), 0);
	b.len = 0;
	for (unsigned i = 0; i < then.n; i++)
		if (then.entry[i].leaf == 1)
			then.entry[i].ecx |= 1u << 28;
	cpuid_put(&b, &then);
	r = buf_reader(b.p, b.len);
	assert_int_equal(cpuid_check(&r, &now, &err), -1);
	assert_non_null(strstr(err.text, "CPUID 0x1 ECX, bits 0x10000000"));
	buf_free(&b);
}

static int disk(uint64_t bytes)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static void reset_reader(struct buf_reader *r, const struct buf *b)
{
	*r = buf_reader(b->p, b->len);
}

/* A blk device in use, saved; then loaded into a new one that goes on with the same rings. */
static void a_disk_goes_on_in_the_middle_of_its_ring(void **state)
{
	struct drv d;
	struct cai_error err;
	struct buf saved = {0};
	struct buf_reader r;
	const char serial[20] = "x";
	drv_init(&d, MIB(16));
	struct virtio_blk *b = virtio_blk_create(&d.mem, drv_irq(&d), disk(MIB(1)), false, serial, &err);
	assert_non_null(b);
	drv_start(&d, virtio_blk_dev(b), BIT(VIRTIO_RING_F_EVENT_IDX), 1, 8);
	uint64_t head = drv_alloc(&d, 16, 16), data = drv_alloc(&d, 512, 16), status = drv_alloc(&d, 1, 1);
	const struct drv_seg seg[] = {{head, 16, false}, {data, 512, false}, {status, 1, true}};
	memset(drv_ptr(&d, head, 16), 0, 16);
	store_le32(drv_ptr(&d, head, 16), VIRTIO_BLK_T_OUT);
	for (unsigned i = 0; i < 5; i++) {
		drv_add(&d, 0, seg, 3);
		drv_notify(&d, 0);
	}
	/* One more is in the ring, its notification on the way. */
	drv_add(&d, 0, seg, 3);
	assert_int_equal(virtio_dev_save(virtio_blk_dev(b), &saved, &err), 0);
	virtio_blk_destroy(b);

	b = virtio_blk_create(&d.mem, drv_irq(&d), disk(MIB(1)), false, serial, &err);
	d.dev = virtio_blk_dev(b);
	reset_reader(&r, &saved);
	assert_int_equal(virtio_dev_load(d.dev, &r, &err), 0);
	virtio_dev_resume(d.dev);
	uint16_t h;
	uint32_t len;
	for (unsigned i = 0; i < 6; i++)
		assert_true(drv_used(&d, 0, &h, &len));
	assert_false(drv_used(&d, 0, &h, &len));
	drv_add(&d, 0, seg, 3);
	drv_notify(&d, 0);
	assert_true(drv_used(&d, 0, &h, &len));
	assert_int_equal(*(uint8_t *)drv_ptr(&d, status, 1), VIRTIO_BLK_S_OK);
	virtio_blk_destroy(b);

	/* Cut anywhere, or with another disk behind it: refused. */
	for (size_t n = 0; n < saved.len; n++) {
		b = virtio_blk_create(&d.mem, drv_irq(&d), disk(MIB(1)), false, serial, &err);
		r = buf_reader(saved.p, n);
		assert_int_equal(virtio_dev_load(virtio_blk_dev(b), &r, &err), -1);
		virtio_blk_destroy(b);
	}
	b = virtio_blk_create(&d.mem, drv_irq(&d), disk(MIB(2)), false, serial, &err);
	reset_reader(&r, &saved);
	assert_int_equal(virtio_dev_load(virtio_blk_dev(b), &r, &err), -1);
	assert_non_null(strstr(err.text, "2048 sectors"));
	virtio_blk_destroy(b);
	buf_free(&saved);
	drv_fini(&d);
}

static void an_empty_slot_gets_its_disk_at_restore(void **state)
{
	struct drv d;
	struct cai_error err;
	struct buf saved = {0};
	struct buf_reader r;
	const char serial[20] = "x";
	drv_init(&d, MIB(16));
	struct virtio_blk *b = virtio_blk_create(&d.mem, drv_irq(&d), -1, true, serial, &err);
	drv_start(&d, virtio_blk_dev(b), 0, 1, 8);
	assert_int_equal(drv_config(&d, 0, 8), 0);
	uint32_t generation = drv_read(&d, 0xfc);
	assert_int_equal(virtio_dev_save(virtio_blk_dev(b), &saved, &err), 0);
	virtio_blk_destroy(b);
	b = virtio_blk_create(&d.mem, drv_irq(&d), disk(MIB(1)), true, serial, &err);
	d.dev = virtio_blk_dev(b);
	reset_reader(&r, &saved);
	assert_int_equal(virtio_dev_load(d.dev, &r, &err), 0);
	virtio_dev_resume(d.dev);
	assert_int_equal(drv_config(&d, 0, 8), 2048);
	assert_int_not_equal(drv_read(&d, 0xfc), generation);
	assert_int_equal(drv_ack(&d), 2);
	virtio_blk_destroy(b);
	buf_free(&saved);
	drv_fini(&d);
}

/* Every byte of a saved device, changed: loaded or refused, never a fault (the sanitizers watch), and what is loaded can be driven. */
static void no_change_to_a_saved_device_does_harm(void **state)
{
	struct drv d;
	struct cai_error err;
	drv_init(&d, MIB(16));
	for (unsigned kind = 0; kind < 4; kind++) {
		struct buf saved = {0};
		for (int at = -1; at < (int)saved.len; at++)
			for (unsigned flip = 0; flip < (at < 0 ? 1u : 3u); flip++) {
				static const uint8_t with[] = {1, 0x80, 0xff};
				struct virtio_rng *g = kind == 0 ? virtio_rng_create(&d.mem, drv_irq(&d), &err) : NULL;
				struct virtio_balloon *l = kind == 1 ? virtio_balloon_create(&d.mem, drv_irq(&d), &err) : NULL;
				struct virtio_vsock *v = kind == 2 ? virtio_vsock_create(&d.mem, drv_irq(&d), NULL, -1, NULL, NULL, &err) : NULL;
				struct virtio_net_options o = {.mac = {2}, .max_pairs = 1};
				struct virtio_net *n = kind == 3 ? virtio_net_create(&d.mem, drv_irq(&d), NULL, &o, &err) : NULL;
				struct virtio_dev *dev = g ? virtio_rng_dev(g) : l ? virtio_balloon_dev(l) : v ? virtio_vsock_dev(v) : virtio_net_dev(n);
				if (at < 0) {
					drv_start(&d, dev, BIT(VIRTIO_RING_F_EVENT_IDX), 1, 8);
					assert_int_equal(virtio_dev_save(dev, &saved, &err), 0);
				} else {
					uint8_t *p = malloc(saved.len);
					memcpy(p, saved.p, saved.len);
					p[at] ^= with[flip];
					struct buf_reader r = buf_reader(p, saved.len);
					if (virtio_dev_load(dev, &r, &err) == 0)
						virtio_dev_resume(dev);
					if (v)
						virtio_vsock_poll(v);
					if (n)
						virtio_net_poll(n);
					free(p);
				}
				virtio_rng_destroy(g);
				virtio_balloon_destroy(l);
				virtio_vsock_destroy(v);
				virtio_net_destroy(n);
			}
		buf_free(&saved);
	}
	drv_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_processor_comes_back_as_it_was),
		cmocka_unit_test(a_processor_that_cannot_be_is_refused),
		cmocka_unit_test(features_that_are_not_here_are_named),
		cmocka_unit_test(a_disk_goes_on_in_the_middle_of_its_ring),
		cmocka_unit_test(an_empty_slot_gets_its_disk_at_restore),
		cmocka_unit_test(no_change_to_a_saved_device_does_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
