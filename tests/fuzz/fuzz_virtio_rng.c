/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile guest against virtio-rng. */
#include "fuzz.h"
#include "fuzz_virtio.h"

#include "virtio/rng.h"

static struct virtio_dev *create(struct fv *f)
{
	struct virtio_rng *r = virtio_rng_create(&f->mem, (struct irq_line){0}, NULL);
	f->device = r;
	return virtio_rng_dev(r);
}

static void destroy(struct fv *f)
{
	virtio_rng_destroy(f->device);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fv_run(&(struct fv_target){create, destroy, NULL}, data, size);
}
