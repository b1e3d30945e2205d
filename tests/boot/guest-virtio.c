/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test host's virtio-rng. Under KVM the guest's notifications arrive through an ioeventfd, on a thread of their own, and interrupts
 * leave through an irqfd, as in the monitor; under the software CPU both are direct calls.
 */
#include "run-guest.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dev/layout.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"

struct guest_virtio {
	struct virtio_rng *rng;
	struct virtio_dev *dev;
	bool kvm;
	int notify_fd, irq_fd, stop_fd;
	pthread_t thread;
	bool have_thread;
	unsigned trapped; /* notifications that came as MMIO; under KVM there must be none */
};

static void set_irq(void *ctx, unsigned gsi, bool level)
{
	struct guest_host *h = ctx;
	hv_irq_line(h->vm, gsi, level);
}

static void *serve(void *arg)
{
	struct guest_virtio *g = arg;
	struct pollfd p[2] = {{.fd = g->notify_fd, .events = POLLIN}, {.fd = g->stop_fd, .events = POLLIN}};
	for (;;) {
		uint64_t n;
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (p[1].revents)
			return NULL;
		if (p[0].revents && read(g->notify_fd, &n, 8) == 8)
			virtio_dev_notify(g->dev, 0);
	}
}

int guest_virtio_start(struct guest_host *h, bool kvm, struct cai_error *err)
{
	struct guest_virtio *g = calloc(1, sizeof *g);
	if (!g)
		return cai_fail(err, ENOMEM, "out of memory");
	h->virtio = g;
	g->kvm = kvm;
	g->notify_fd = g->irq_fd = g->stop_fd = -1;
	g->rng = virtio_rng_create(&h->mem, (struct irq_line){.set = set_irq, .ctx = h, .gsi = LAYOUT_VIRTIO_GSI}, err);
	if (!g->rng)
		return -1;
	g->dev = virtio_rng_dev(g->rng);
	if (!kvm)
		return 0;
	g->notify_fd = eventfd(0, EFD_CLOEXEC);
	g->irq_fd = eventfd(0, EFD_CLOEXEC);
	g->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (g->notify_fd < 0 || g->irq_fd < 0 || g->stop_fd < 0)
		return cai_fail_errno(err, errno, "cannot make an eventfd");
	if (hv_irqfd(h->vm, LAYOUT_VIRTIO_GSI, g->irq_fd, err) < 0 ||
	    hv_ioeventfd(h->vm, LAYOUT_VIRTIO_BASE + VIRTIO_MMIO_NOTIFY, 4, 0, g->notify_fd, err) < 0)
		return -1;
	virtio_dev_set_irqfd(g->dev, g->irq_fd);
	g->have_thread = pthread_create(&g->thread, NULL, serve, g) == 0;
	return 0;
}

int guest_virtio_stop(struct guest_host *h)
{
	struct guest_virtio *g = h->virtio;
	uint64_t one = 1;
	int r = 0;
	if (!g)
		return 0;
	if (g->have_thread && write(g->stop_fd, &one, 8) == 8)
		pthread_join(g->thread, NULL);
	if (g->kvm && g->trapped) {
		fprintf(stderr, "run-guest: %u virtio notifications missed the ioeventfd\n", g->trapped);
		r = -1;
	}
	virtio_rng_destroy(g->rng);
	if (g->kvm) {
		close(g->notify_fd);
		close(g->irq_fd);
		close(g->stop_fd);
	}
	free(g);
	h->virtio = NULL;
	return r;
}

bool guest_virtio_mmio(struct guest_host *h, uint64_t gpa, void *data, unsigned len, bool is_write)
{
	if (!h->virtio || gpa < LAYOUT_VIRTIO_BASE || gpa + len > LAYOUT_VIRTIO_BASE + LAYOUT_VIRTIO_SIZE)
		return false;
	if (is_write && gpa - LAYOUT_VIRTIO_BASE == VIRTIO_MMIO_NOTIFY)
		h->virtio->trapped++;
	virtio_mmio_access(h->virtio->dev, gpa - LAYOUT_VIRTIO_BASE, data, len, is_write);
	return true;
}
