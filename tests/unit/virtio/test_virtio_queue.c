/* SPDX-License-Identifier: Apache-2.0 */
/* The queue core and the MMIO transport, through a device that only records and returns its chains. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/mmio.h"

#define RAM       (32u << 20)
#define RING_BITS (BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))

struct probe {
	struct virtio_dev dev;
	struct virtq_chain chain; /* the last one */
	unsigned served, activated, resets;
	uint32_t config[2];
	bool endless; /* as if another vCPU kept the queue full */
};

static struct probe *to_probe(struct virtio_dev *d)
{
	return container_of(d, struct probe, dev);
}

static void probe_config_read(struct virtio_dev *d, uint32_t off, void *buf, unsigned len)
{
	virtio_config_copy(to_probe(d)->config, sizeof(to_probe(d)->config), off, buf, len);
}

static bool probe_notify(struct virtio_dev *d, unsigned queue)
{
	struct probe *p = to_probe(d);
	if (p->endless) {
		p->served++;
		return true;
	}
	struct virtq *q = &d->q[queue];
	virtq_disable_notify(q, d->mem);
	int r = virtq_pop(q, d->mem, &p->chain);
	if (r < 0) {
		virtio_dev_fail(d, "test");
		return false;
	}
	if (r == 0)
		return virtq_enable_notify(q, d->mem);
	p->served++;
	virtq_push(q, d->mem, p->chain.head, (uint32_t)p->chain.in_len);
	virtio_dev_used(d, q);
	return true;
}

static void probe_activate(struct virtio_dev *d)
{
	to_probe(d)->activated++;
}

static void probe_reset(struct virtio_dev *d)
{
	to_probe(d)->resets++;
}

static const struct virtio_dev_ops probe_ops = {
	.name = "probe",
	.device_id = 42,
	.n_queues = 2,
	.queue_size = {8, 0},
	.config_read = probe_config_read,
	.activate = probe_activate,
	.notify = probe_notify,
	.reset = probe_reset,
};

static struct drv d;
static struct probe p;

static int setup(void **state)
{
	drv_init(&d, RAM);
	memset(&p, 0, sizeof(p));
	virtio_dev_init(&p.dev, &probe_ops, RING_BITS, &d.mem, drv_irq(&d));
	d.dev = &p.dev;
	return 0;
}

static int teardown(void **state)
{
	virtio_dev_fini(&p.dev);
	drv_fini(&d);
	return 0;
}

static void identifies_itself(void **state)
{
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_DEVICE_ID), 42);
	drv_write(&d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_DEVICE_FEATURES), 1);
	drv_write(&d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_DEVICE_FEATURES), RING_BITS);
	drv_write(&d, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_DEVICE_FEATURES), 0);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
	drv_write(&d, VIRTIO_MMIO_QUEUE_SEL, 0);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_QUEUE_NUM_MAX), 8);
	drv_write(&d, VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	drv_write(&d, VIRTIO_MMIO_QUEUE_SEL, 0xffffffff);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
}

static void registers_of_the_wrong_width_read_zero(void **state)
{
	uint64_t v = ~0ull;
	virtio_mmio_access(&p.dev, 0, &v, 8, false);
	assert_int_equal(v, 0);
	v = ~0ull;
	virtio_mmio_access(&p.dev, 1, &v, 4, false);
	assert_int_equal((uint32_t)v, 0);
	p.config[0] = 0x11223344;
	p.config[1] = 0x55667788;
	assert_int_equal(drv_config(&d, 0, 8), 0x5566778811223344);
	assert_int_equal(drv_config(&d, 3, 1), 0x11);
	assert_int_equal(drv_config(&d, 6, 4), 0x5566); /* half past the end */
	assert_int_equal(drv_config(&d, 8, 4), 0);
	assert_int_equal(drv_config(&d, 0xefc, 4), 0);
}

static void unknown_features_are_refused(void **state)
{
	drv_write(&d, VIRTIO_MMIO_STATUS, 3);
	drv_write(&d, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	drv_write(&d, VIRTIO_MMIO_DRIVER_FEATURES, 1 | 1u << 2); /* VERSION_1 and RING_PACKED */
	drv_write(&d, VIRTIO_MMIO_STATUS, 3 | VIRTIO_CONFIG_S_FEATURES_OK);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_STATUS), 3);
	drv_write(&d, VIRTIO_MMIO_DRIVER_FEATURES, 0); /* not even VERSION_1 */
	drv_write(&d, VIRTIO_MMIO_STATUS, 3 | VIRTIO_CONFIG_S_FEATURES_OK);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_STATUS), 3);
	/* DRIVER_OK without FEATURES_OK does not start the device */
	drv_write(&d, VIRTIO_MMIO_STATUS, 3 | VIRTIO_CONFIG_S_DRIVER_OK);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_STATUS), 3);
	assert_int_equal(p.activated, 0);
}

static void bad_queue_addresses_need_a_reset(void **state)
{
	static const struct {
		uint32_t num;
		uint64_t desc, avail, used;
	} cases[] = {
		{8, RAM, 0x2000, 0x3000},         /* past RAM */
		{8, RAM - 64, 0x2000, 0x3000},    /* ends past RAM */
		{8, 0x1008, 0x2000, 0x3000},      /* misaligned */
		{8, 0x1000, 0x2001, 0x3000},
		{8, 0x1000, 0x2000, 0x3002},
		{8, 0x1000, ~0ull - 1, 0x3000},   /* wraps */
		{8, 0x1000, 0x2000, ~0ull - 3},
		{3, 0x1000, 0x2000, 0x3000},      /* no power of two */
		{0, 0x1000, 0x2000, 0x3000},
		{16, 0x1000, 0x2000, 0x3000},     /* more than offered */
		{0x10008, 0x1000, 0x2000, 0x3000},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		drv_start(&d, &p.dev, RING_BITS, 0, 8);
		drv_write(&d, VIRTIO_MMIO_QUEUE_SEL, 0);
		drv_write(&d, VIRTIO_MMIO_QUEUE_NUM, cases[i].num);
		drv_write(&d, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)cases[i].desc);
		drv_write(&d, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(cases[i].desc >> 32));
		drv_write(&d, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)cases[i].avail);
		drv_write(&d, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(cases[i].avail >> 32));
		drv_write(&d, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)cases[i].used);
		drv_write(&d, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(cases[i].used >> 32));
		drv_write(&d, VIRTIO_MMIO_QUEUE_READY, 1);
		assert_int_equal(drv_read(&d, VIRTIO_MMIO_QUEUE_READY), 0);
		assert_true(drv_needs_reset(&d));
		assert_int_equal(drv_read(&d, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	}
}

static void a_running_queue_cannot_be_moved(void **state)
{
	drv_start(&d, &p.dev, RING_BITS, 1, 8);
	drv_write(&d, VIRTIO_MMIO_QUEUE_SEL, 0);
	drv_write(&d, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0xdead);
	drv_write(&d, VIRTIO_MMIO_QUEUE_NUM, 4);
	assert_int_equal(p.dev.q[0].desc, d.q[0].desc);
	assert_int_equal(p.dev.q[0].size, 8);
}

static void chains_arrive_in_order_with_their_segments(void **state)
{
	for (int indirect = 0; indirect < 2; indirect++) {
		drv_start(&d, &p.dev, RING_BITS, 1, 8);
		uint64_t a = drv_alloc(&d, 4096, 4096);
		memcpy(drv_ptr(&d, a, 5), "hello", 5);
		struct drv_seg seg[] = {{a, 2, false}, {a + 2, 3, false}, {a, 0, false}, {a + 100, 7, true}, {a + 200, 9, true}};
		uint16_t head = indirect ? drv_add_indirect(&d, 0, seg, 5) : drv_add(&d, 0, seg, 5);
		drv_notify(&d, 0);
		assert_false(drv_needs_reset(&d));
		assert_int_equal(p.chain.n_out, 2);
		assert_int_equal(p.chain.n_in, 2);
		assert_int_equal(p.chain.out_len, 5);
		assert_int_equal(p.chain.in_len, 16);
		char text[6] = "";
		assert_true(virtq_read(&p.chain, 0, text, 5));
		assert_string_equal(text, "hello");
		assert_false(virtq_read(&p.chain, 1, text, 5));
		assert_true(virtq_write(&d.mem, &p.chain, 5, "ABCD", 4)); /* across the two segments */
		assert_memory_equal(drv_ptr(&d, a + 105, 2), "AB", 2);
		assert_memory_equal(drv_ptr(&d, a + 200, 2), "CD", 2);
		assert_false(virtq_write(&d.mem, &p.chain, 13, "ABCD", 4));
		struct iovec iov[VIRTQ_MAX_SIZE];
		assert_int_equal(virtq_slice(&p.chain, true, 6, 100, iov), 2);
		assert_int_equal(iov[0].iov_len, 1);
		assert_int_equal(iov[1].iov_len, 9);
		uint16_t h;
		uint32_t len;
		assert_true(drv_used(&d, 0, &h, &len));
		assert_int_equal(h, head);
		assert_int_equal(len, 16);
		assert_false(drv_used(&d, 0, NULL, NULL));
	}
}

static void rings_wrap_around(void **state)
{
	drv_start(&d, &p.dev, RING_BITS, 1, 8);
	uint64_t a = drv_alloc(&d, 64, 64);
	struct drv_seg seg = {a, 64, true};
	for (unsigned i = 0; i < 70000; i++) {
		uint16_t head = drv_add(&d, 0, &seg, 1), h;
		drv_notify(&d, 0);
		assert_true(drv_used(&d, 0, &h, NULL));
		assert_int_equal(h, head);
	}
	assert_int_equal(p.served, 70000);
}

/* Each case breaks one rule; the device must stop, say so, and come back after a reset. */
static void a_driver_that_breaks_the_rules_is_stopped(void **state)
{
	enum { LOOP, SELF, NEXT_RANGE, HEAD_RANGE, INDEX_JUMP, OUTSIDE, WRAP, STRADDLE, ORDER, IND_NESTED, IND_LEN, IND_EMPTY, IND_LONG,
	       IND_OUTSIDE, IND_NEXT_FLAG, IND_LOOP, IND_RANGE, IND_FEATURE, TOO_LONG, CASES };
	for (int i = 0; i < CASES; i++) {
		drv_start(&d, &p.dev, i == IND_FEATURE ? BIT(VIRTIO_RING_F_EVENT_IDX) : RING_BITS, 1, 8);
		uint64_t a = drv_alloc(&d, 8192, 4096), t = drv_alloc(&d, 4096, 4096);
		struct vring_desc *tab = drv_ptr(&d, t, 4096);
		memset(tab, 0, 4096);
		uint16_t head = 0;
		drv_desc(&d, 0, 0, a, 16, 0, 0);
		switch (i) {
		case LOOP:
			drv_desc(&d, 0, 0, a, 16, VRING_DESC_F_NEXT, 1);
			drv_desc(&d, 0, 1, a, 16, VRING_DESC_F_NEXT, 0);
			break;
		case SELF:
			drv_desc(&d, 0, 0, a, 0, VRING_DESC_F_NEXT, 0); /* empty segments must not make it endless */
			break;
		case NEXT_RANGE:
			drv_desc(&d, 0, 0, a, 16, VRING_DESC_F_NEXT, 8);
			break;
		case HEAD_RANGE:
			head = 8;
			break;
		case INDEX_JUMP:
			d.q[0].avail_idx += 9;
			break;
		case OUTSIDE:
			drv_desc(&d, 0, 0, RAM, 16, 0, 0);
			break;
		case WRAP:
			drv_desc(&d, 0, 0, ~0ull - 7, 16, 0, 0);
			break;
		case STRADDLE:
			drv_desc(&d, 0, 0, RAM - 8, 16, VRING_DESC_F_WRITE, 0);
			break;
		case ORDER:
			drv_desc(&d, 0, 0, a, 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
			drv_desc(&d, 0, 1, a, 16, 0, 0);
			break;
		case IND_NESTED:
			drv_desc(&d, 0, 0, t, 16, VRING_DESC_F_INDIRECT, 0);
			tab[0] = (struct vring_desc){t, 16, VRING_DESC_F_INDIRECT, 0};
			break;
		case IND_LEN:
			drv_desc(&d, 0, 0, t, 17, VRING_DESC_F_INDIRECT, 0);
			break;
		case IND_EMPTY:
			drv_desc(&d, 0, 0, t, 0, VRING_DESC_F_INDIRECT, 0);
			break;
		case IND_LONG:
			drv_desc(&d, 0, 0, t, 16 * 9, VRING_DESC_F_INDIRECT, 0);
			break;
		case IND_OUTSIDE:
			drv_desc(&d, 0, 0, RAM - 16, 32, VRING_DESC_F_INDIRECT, 0);
			break;
		case IND_NEXT_FLAG:
			drv_desc(&d, 0, 0, t, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
			break;
		case IND_LOOP:
			drv_desc(&d, 0, 0, t, 32, VRING_DESC_F_INDIRECT, 0);
			tab[0] = (struct vring_desc){a, 8, VRING_DESC_F_NEXT, 1};
			tab[1] = (struct vring_desc){a, 8, VRING_DESC_F_NEXT, 0};
			break;
		case IND_RANGE:
			drv_desc(&d, 0, 0, t, 32, VRING_DESC_F_INDIRECT, 0);
			tab[0] = (struct vring_desc){a, 8, VRING_DESC_F_NEXT, 2};
			break;
		case IND_FEATURE:
			drv_desc(&d, 0, 0, t, 16, VRING_DESC_F_INDIRECT, 0);
			tab[0] = (struct vring_desc){a, 8, 0, 0};
			break;
		case TOO_LONG: /* an indirect table behind direct descriptors: nine in all */
			drv_desc(&d, 0, 0, a, 1, VRING_DESC_F_NEXT, 1);
			drv_desc(&d, 0, 1, t, 16 * 8, VRING_DESC_F_INDIRECT, 0);
			for (uint16_t k = 0; k < 8; k++)
				tab[k] = (struct vring_desc){a, 1, k < 7 ? VRING_DESC_F_NEXT : 0, (uint16_t)(k + 1)};
			break;
		default:
			break;
		}
		unsigned before = p.served;
		drv_publish(&d, 0, head);
		drv_notify(&d, 0);
		if (p.served != before || !drv_needs_reset(&d))
			fail_msg("case %d was let through", i);
		assert_true(drv_ack(&d) & VIRTIO_MMIO_INT_CONFIG);
		drv_notify(&d, 0);
		assert_int_equal(p.served, before);
		drv_start(&d, &p.dev, RING_BITS, 1, 8);
		assert_false(drv_needs_reset(&d));
	}
}

static void direct_then_indirect_is_one_chain(void **state)
{
	drv_start(&d, &p.dev, RING_BITS, 1, 8);
	uint64_t a = drv_alloc(&d, 4096, 4096), t = drv_alloc(&d, 32, 16);
	struct vring_desc tab[2] = {{a, 8, VRING_DESC_F_NEXT, 1}, {a, 4, VRING_DESC_F_WRITE, 0}};
	memcpy(drv_ptr(&d, t, 32), tab, 32);
	drv_desc(&d, 0, 3, a, 16, VRING_DESC_F_NEXT, 5);
	drv_desc(&d, 0, 5, t, 32, VRING_DESC_F_INDIRECT, 0);
	drv_publish(&d, 0, 3);
	drv_notify(&d, 0);
	assert_int_equal(p.served, 1);
	assert_int_equal(p.chain.out_len, 24);
	assert_int_equal(p.chain.in_len, 4);
}

static void an_edge_is_made_for_each_new_cause(void **state)
{
	drv_start(&d, &p.dev, 0, 1, 8);
	uint64_t a = drv_alloc(&d, 64, 64);
	struct drv_seg seg = {a, 64, true};
	drv_add(&d, 0, &seg, 1);
	drv_notify(&d, 0);
	assert_int_equal(d.rises, 1);
	assert_true(d.level);
	/* not acknowledged yet: an edge-triggered pin must still see the second */
	drv_add(&d, 0, &seg, 1);
	drv_notify(&d, 0);
	assert_int_equal(d.rises, 2);
	virtio_dev_lock(&p.dev);
	virtio_dev_config_changed(&p.dev);
	virtio_dev_unlock(&p.dev);
	assert_int_equal(d.rises, 3);
	drv_write(&d, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	assert_true(d.level); /* the other cause still stands */
	drv_write(&d, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	assert_false(d.level);
}

static void an_irqfd_takes_the_place_of_the_line(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	virtio_dev_set_irqfd(&p.dev, fd);
	drv_start(&d, &p.dev, 0, 1, 8);
	uint64_t a = drv_alloc(&d, 64, 64), count = 0;
	struct drv_seg seg = {a, 64, true};
	drv_add(&d, 0, &seg, 1);
	drv_notify(&d, 0);
	assert_int_equal(d.rises, 0);
	assert_int_equal(read(fd, &count, 8), 8);
	assert_int_equal(count, 1);
	assert_int_equal(drv_ack(&d), VIRTIO_MMIO_INT_VRING);
	close(fd);
}

static void interrupts_are_left_out_when_not_wanted(void **state)
{
	uint64_t a = drv_alloc(&d, 64, 64);
	struct drv_seg seg = {a, 64, true};
	/* by flag */
	drv_start(&d, &p.dev, 0, 1, 8);
	store_le16(drv_ptr(&d, d.q[0].avail, 2), VRING_AVAIL_F_NO_INTERRUPT);
	drv_add(&d, 0, &seg, 1);
	drv_notify(&d, 0);
	assert_int_equal(d.rises, 0);
	/* by event index: only when the used index passes it */
	drv_start(&d, &p.dev, RING_BITS, 1, 8);
	uint8_t *event = drv_ptr(&d, d.q[0].avail + 4 + 2 * 8, 2);
	store_le16(event, 2);
	static const unsigned rises[] = {1, 1, 2, 2}; /* the first has nothing to compare with */
	for (unsigned i = 0; i < 4; i++) {
		drv_add(&d, 0, &seg, 1);
		drv_notify(&d, 0);
		assert_int_equal(d.rises, rises[i]);
	}
}

static void notifications_are_asked_for_by_event_index(void **state)
{
	drv_start(&d, &p.dev, RING_BITS, 1, 8);
	uint64_t a = drv_alloc(&d, 64, 64);
	struct drv_seg seg = {a, 64, true};
	for (unsigned i = 1; i <= 3; i++) {
		drv_add(&d, 0, &seg, 1);
		drv_notify(&d, 0);
		assert_int_equal(load_le16(drv_ptr(&d, d.q[0].used + 4 + 8 * 8, 2)), i);
	}
}

static void a_notification_before_the_driver_is_up_does_nothing(void **state)
{
	drv_notify(&d, 0);
	drv_notify(&d, 1);
	drv_notify(&d, 0xffffffff);
	virtio_dev_notify(&p.dev, 7);
	assert_int_equal(p.served, 0);
	drv_start(&d, &p.dev, RING_BITS, 1, 8);
	assert_int_equal(p.activated, 1);
	drv_notify(&d, 1); /* a queue that does not exist */
	assert_false(drv_needs_reset(&d));
	drv_write(&d, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(p.resets, 2);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_STATUS), 0);
	assert_int_equal(p.dev.q[0].ready, false);
	assert_int_equal(p.dev.q[0].max_size, 8);
}

static void *notify_thread(void *arg)
{
	drv_notify(&d, 0);
	return NULL;
}

static void an_endless_queue_makes_way_for_the_monitor(void **state)
{
	drv_start(&d, &p.dev, RING_BITS, 1, 8);
	p.endless = true;
	assert_true(virtio_dev_process(&p.dev, 0)); /* one piece, and it says that there is more */
	assert_int_equal(p.served, 1);
	assert_false(virtio_dev_process(&p.dev, 2));
	pthread_t t;
	assert_int_equal(pthread_create(&t, NULL, notify_thread, NULL), 0);
	for (unsigned i = 0; i < 100; i++) {
		virtio_dev_lock(&p.dev);
		unsigned served = p.served;
		virtio_dev_unlock(&p.dev);
		assert_true(served > 0);
		usleep(100);
	}
	virtio_dev_lock(&p.dev);
	p.endless = false;
	virtio_dev_unlock(&p.dev);
	pthread_join(t, NULL);
	assert_false(virtio_dev_process(&p.dev, 0));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(identifies_itself),
		T(registers_of_the_wrong_width_read_zero),
		T(unknown_features_are_refused),
		T(bad_queue_addresses_need_a_reset),
		T(a_running_queue_cannot_be_moved),
		T(chains_arrive_in_order_with_their_segments),
		T(rings_wrap_around),
		T(a_driver_that_breaks_the_rules_is_stopped),
		T(direct_then_indirect_is_one_chain),
		T(an_edge_is_made_for_each_new_cause),
		T(an_irqfd_takes_the_place_of_the_line),
		T(interrupts_are_left_out_when_not_wanted),
		T(notifications_are_asked_for_by_event_index),
		T(a_notification_before_the_driver_is_up_does_nothing),
		T(an_endless_queue_makes_way_for_the_monitor),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
