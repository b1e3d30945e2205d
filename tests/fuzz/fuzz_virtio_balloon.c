/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile guest against virtio-balloon. */
#include "fuzz.h"
#include "fuzz_virtio.h"

#include "virtio/balloon.h"

static struct virtio_dev *create(struct fv *f)
{
	struct virtio_balloon *b = virtio_balloon_create(&f->mem, (struct irq_line){0}, NULL);
	f->device = b;
	return virtio_balloon_dev(b);
}

static void destroy(struct fv *f)
{
	virtio_balloon_destroy(f->device);
}

static void extra(struct fv *f, uint8_t op)
{
	if (op & 0x10) {
		virtio_balloon_set_target(f->device, fv_u32(f));
		return;
	}
	/* a list of page numbers, small ones mostly in RAM */
	uint32_t pfn[32];
	unsigned n = fv_u8(f) % 33;
	for (unsigned i = 0; i < n; i++)
		pfn[i] = op & 0x20 ? fv_u32(f) : fv_u16(f) + 0x100u;
	mem_write(&f->mem, 0x40000, pfn, n * 4);
	fv_chain(f, op >> 7, &(struct fv_seg){0x40000, n * 4, false}, 1);
	fv_notify(f, op >> 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fv_run(&(struct fv_target){create, destroy, extra}, data, size);
}
