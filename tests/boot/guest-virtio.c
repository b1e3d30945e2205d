/* SPDX-License-Identifier: Apache-2.0 */
#include "run-guest.h"

int guest_virtio_start(struct guest_host *h, bool kvm, struct cai_error *err)
{
	return 0;
}

void guest_virtio_stop(struct guest_host *h)
{
}

bool guest_virtio_mmio(struct guest_host *h, uint64_t gpa, void *data, unsigned len, bool is_write)
{
	return false;
}
