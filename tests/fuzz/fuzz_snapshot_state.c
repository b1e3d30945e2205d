/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states in a snapshot, loaded into what they are for, which is then used: a processor of the software CPU that runs for a while, and virtio
 * devices that are looked at, notified and reset. The first byte chooses.
 */
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "fuzz.h"
#include "hv/hv.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/mmio.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/state.h"
#include "virtio/vsock.h"
#include "vmm/cpu_state.h"

#define RAM MIB(16)

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void set_irq(void *ctx, unsigned gsi, bool level)
{
}

static struct mem *machine_memory(void)
{
	static struct mem m; /* the process's; cleared for each input */
	if (!m.base)
		must(mem_create(&m, RAM, NULL) == 0);
	memset(m.base, 0, KIB(64));
	return &m;
}

static void processor(struct buf_reader *r)
{
	static struct hv_vm *vm; /* made once; each input loads it anew */
	static struct x86_cpu_model model;
	struct x86_state s __attribute__((aligned(16)));
	struct cai_error err;
	struct hv_exit exit;
	if (!vm) {
		x86_cpu_model_init(&model, "v2", 1000000, 1);
		struct hv_config c = {.mem = machine_memory(), .n_vcpus = 1, .model = &model};
		must(hv_soft_create(&c, &vm, &err) == 0);
	}
	machine_memory();
	if (cpu_state_get(r, &s, &err) < 0 || hv_set_state(vm->vcpu[0], &s, &err) < 0)
		return;
	/* With a kick pending it looks at interrupts and events, and takes a few steps. */
	for (unsigned i = 0; i < 8; i++) {
		vm->ops->step(vm->vcpu[0], true);
		hv_vcpu_kick(vm->vcpu[0]);
		must(hv_vcpu_run(vm->vcpu[0], &exit) == 0);
		if (exit.reason == HV_EXIT_SHUTDOWN || exit.reason == HV_EXIT_FAILED || s.mp_state != X86_MP_RUNNABLE)
			break;
		must(hv_get_state(vm->vcpu[0], &s, &err) == 0);
	}
}

static void whole_vm(struct buf_reader *r)
{
	struct hv_vm_state s;
	struct cai_error err;
	struct buf out = {0};
	if (vm_state_get(r, &s, &err) < 0)
		return;
	vm_state_put(&out, &s);
	buf_free(&out);
}

static void features(struct buf_reader *r)
{
	struct x86_cpu_model m;
	struct cai_error err;
	x86_cpu_model_init(&m, "v2", 1000000, 1);
	cpuid_check(r, &m, &err);
}

/* Any register access, and every queue notified. */
static void drive(struct virtio_dev *d)
{
	uint32_t v;
	virtio_dev_resume(d);
	for (uint64_t off = 0; off < 0x120; off += 4)
		virtio_mmio_access(d, off, &v, 4, false);
	for (unsigned i = 0; i < d->ops->n_queues; i++)
		virtio_dev_notify(d, i);
	struct buf out = {0};
	must(virtio_dev_save(d, &out, NULL) == 0);
	buf_free(&out);
	v = 0;
	virtio_mmio_access(d, 0x70, &v, 4, true);
	must(!d->status);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cai_error err;
	struct irq_line irq = {.set = set_irq};
	const char serial[20] = "fuzz";
	if (!size)
		return 0;
	struct buf_reader r = buf_reader(data + 1, size - 1);
	struct mem *m = machine_memory();
	switch (data[0] % 8) {
	case 0:
		processor(&r);
		break;
	case 1:
		whole_vm(&r);
		break;
	case 2:
		features(&r);
		break;
	case 3: {
		int fd = memfd_create("disk", MFD_CLOEXEC);
		must(ftruncate(fd, MIB(1)) == 0);
		struct virtio_blk *b = virtio_blk_create(m, irq, fd, false, serial, &err);
		if (virtio_dev_load(virtio_blk_dev(b), &r, &err) == 0)
			drive(virtio_blk_dev(b));
		virtio_blk_destroy(b);
		break;
	}
	case 4: {
		struct virtio_rng *g = virtio_rng_create(m, irq, &err);
		if (virtio_dev_load(virtio_rng_dev(g), &r, &err) == 0)
			drive(virtio_rng_dev(g));
		virtio_rng_destroy(g);
		break;
	}
	case 5: {
		struct virtio_balloon *b = virtio_balloon_create(m, irq, &err);
		if (virtio_dev_load(virtio_balloon_dev(b), &r, &err) == 0)
			drive(virtio_balloon_dev(b));
		virtio_balloon_destroy(b);
		break;
	}
	case 6: {
		struct virtio_vsock *v = virtio_vsock_create(m, irq, NULL, -1, NULL, NULL, &err);
		if (virtio_dev_load(virtio_vsock_dev(v), &r, &err) == 0) {
			drive(virtio_vsock_dev(v));
			virtio_vsock_poll(v);
		}
		virtio_vsock_destroy(v);
		break;
	}
	default: {
		struct virtio_net_options o = {.mac = {2}, .max_pairs = 2};
		struct virtio_net *n = virtio_net_create(m, irq, NULL, &o, &err);
		if (virtio_dev_load(virtio_net_dev(n), &r, &err) == 0) {
			drive(virtio_net_dev(n));
			virtio_net_poll(n);
		}
		virtio_net_destroy(n);
	}
	}
	return 0;
}
