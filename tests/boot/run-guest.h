/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the test host share. */
#ifndef TESTS_BOOT_RUN_GUEST_H
#define TESTS_BOOT_RUN_GUEST_H

#include <pthread.h>
#include <stdatomic.h>

#include "hv/hv.h"
#include "mem/mem.h"

struct guest_virtio;

struct guest_host {
	struct mem mem;
	struct hv_config cfg;
	struct hv_vm *vm;
	_Atomic int code; /* the guest's exit code, -1 while it runs */
	pthread_mutex_t lock;
	pthread_cond_t ended;
	uint8_t scratch_port[4], scratch_mmio[64], counter;
	struct guest_virtio *virtio;
	/* Standing still (under lock), and what reincarnate.c keeps. */
	bool freeze;
	unsigned n_frozen;
	int file; /* memory of the last VM; -1: there was none */
	uint64_t pages_written;
};

/* Ends the guest with an exit code; the first one counts. Any thread. */
void guest_host_end(struct guest_host *h, int code);

/* guest-virtio.c: one virtio-rng, reached through ioeventfd and irqfd under kvm and directly under soft. */
int guest_virtio_start(struct guest_host *h, bool kvm, struct cai_error *err);
int guest_virtio_stop(struct guest_host *h); /* -1: a notification came the wrong way */
bool guest_virtio_mmio(struct guest_host *h, uint64_t gpa, void *data, unsigned len, bool is_write);

/* reincarnate.c: with all vCPUs stopped, ends the VM and goes on in a new one. */
int guest_reincarnate(struct guest_host *h, bool kvm, struct cai_error *err);


#endif
