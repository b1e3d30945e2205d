/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that run vCPUs, and stopping and starting all of them together.
 *
 * Thread rules: vcpus_create, vcpus_release and vcpus_hold are for one controlling thread (the event loop's); vcpus_halt may be
 * called from any, a vCPU's own included.
 */
#ifndef VMM_VCPUS_H
#define VMM_VCPUS_H

#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"
#include "hv/hv.h"

/* A vCPU left hv_vcpu_run() for good: SHUTDOWN, STOP, FAILED or DEBUG. On its thread; the vCPU does not run again. */
typedef void vcpus_exit_fn(void *ctx, unsigned index, const struct hv_exit *exit);

struct vcpus;
struct vcpu_thread {
	struct vcpus *all;
	struct hv_vcpu *vcpu;
	pthread_t thread;
};

struct vcpus {
	pthread_mutex_t lock;
	pthread_cond_t go;     /* to the threads: `want` has changed */
	pthread_cond_t parked; /* to the controller: one more has parked */
	enum { VCPUS_HOLD, VCPUS_RUN, VCPUS_QUIT } want;
	bool halted;           /* vcpus_halt: never run again */
	unsigned n, n_parked;
	struct hv_vm *vm;
	vcpus_exit_fn *on_exit;
	void *ctx;
	struct vcpu_thread t[HV_MAX_VCPUS];
};

/* Makes n threads and returns when all of them are up and held. After a failure nothing is left. vm is borrowed. */
int vcpus_create(struct vcpus *v, struct hv_vm *vm, unsigned n, vcpus_exit_fn *on_exit, void *ctx, struct cai_error *err);
/* Ends the threads; the monitor itself just exits. */
void vcpus_destroy(struct vcpus *v);

void vcpus_release(struct vcpus *v);
/* Returns when every vCPU has stopped at an instruction boundary; -1 when one does not within timeout_ms (they are then
 * released again). */
int vcpus_hold(struct vcpus *v, unsigned timeout_ms, struct cai_error *err);
/* Makes all stop soon and for good, without waiting. */
void vcpus_halt(struct vcpus *v);

#endif
