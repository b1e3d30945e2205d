/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One machine: guest RAM, an accelerator's VM, buses, devices and the threads of its vCPUs, put together from a
 * configuration. It knows neither who controls it nor its jail.
 *
 * Thread rules: all functions are for the loop's thread, except machine_end.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "bus/bus.h"
#include "dev/layout.h"
#include "dev/pvpanic.h"
#include "dev/reset.h"
#include "dev/serial.h"
#include "hv/hv.h"
#include "mem/mem.h"
#include "proto/control.h"
#include "proto/snapshot.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/fs.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "vmm/console.h"
#include "vmm/ending.h"
#include "vmm/vcpus.h"

struct machine;

/* A doorbell of KVM: the guest wrote `queue` to a device's notify register. */
struct machine_doorbell {
	struct virtio_dev *dev;
	unsigned queue;
	int fd;
	struct loop_source *source;
};
#define MACHINE_MAX_DOORBELLS 96 /* a queue that gets none is notified by an exit */

struct machine_hooks {
	void (*ready)(void *ctx); /* the agent announced itself; on the loop's thread */
	void (*ended)(void *ctx); /* ending_get(&m->ending) has an answer; any thread */
	void *ctx;
};

struct machine {
	struct control_config cfg; /* owned */
	struct machine_hooks hooks;
	struct mem mem;
	struct x86_cpu_model model;
	struct hv_vm *vm;
	struct vcpus vcpus;
	bool vcpus_made;
	struct bus mmio, pio;
	/* Device events, nested in the monitor's loop by dev_source, so that a pause stops them all. */
	struct loop *outer, *dev_loop;
	struct loop_source *dev_source;
	struct serial *serial;
	struct console console;
	struct reset_dev reset;
	struct pvpanic pvpanic;
	struct virtio_vsock *vsock;
	struct virtio_rng *rng;
	struct virtio_balloon *balloon;
	struct virtio_blk *blk[CONTROL_MAX_DISKS];
	uint64_t disk_bytes[CONTROL_MAX_DISKS]; /* of regular files; 0 for devices */
	struct virtio_net *net[CONTROL_MAX_NETS];
	struct virtio_fs *fs[CONTROL_MAX_FS];
	struct virtio_dev *slot[LAYOUT_VIRTIO_SLOTS];
	unsigned n_slots;
	int irqfd[LAYOUT_VIRTIO_SLOTS];
	struct machine_doorbell doorbell[MACHINE_MAX_DOORBELLS];
	unsigned n_doorbells;
	struct ending ending;
	/* Snapshots (snapshot.c, restore.c) */
	struct snapshot *restore;    /* while the machine is being made from it; owned */
	bool restored;               /* devices have not been looked at since */
	struct snapshot_memory last; /* of the snapshot that the dirty log counts from; no layers: there is none */
};

/* Builds everything up to held vCPU threads. Takes *cfg over, leaving it empty, whether or not it succeeds. NULL on failure. */
struct machine *machine_create(struct control_config *cfg, struct loop *loop, const struct machine_hooks *hooks,
			       struct cai_error *err);
/* For tests; the monitor exits instead, which is quicker. */
void machine_destroy(struct machine *m);

void machine_run(struct machine *m);
/* Stops vCPUs at an instruction boundary and devices between two requests. */
int machine_pause(struct machine *m, struct cai_error *err);

/* Gives an empty disk slot its disk. a->fd is the machine's from a successful return on. */
int machine_attach_disk(struct machine *m, const struct control_attach *a, struct cai_error *err);

/* The host's CPU vendor as CPUID spells it. */
void machine_host_vendor(char vendor[16]);

/* Ends the guest: vCPUs stop, hooks.ended is called. The first reason given is kept. Any thread. */
void machine_end(struct machine *m, enum control_end reason, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Fills the accelerator's figures, summed over vCPUs, and the devices', summed over those of a kind. */
void machine_stats(struct machine *m, struct control_status *s);
/* The largest offset that a write to any of its descriptors may reach, for RLIMIT_FSIZE. */
uint64_t machine_max_file(const struct machine *m);

#endif
