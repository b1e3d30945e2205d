/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: `want` says what all threads should do, under the lock; a thread looks at it before each hv_vcpu_run().
 * To stop them the controller changes `want` and then kicks. A kick is sticky in the accelerator, so one that falls between a
 * thread's look and its hv_vcpu_run() makes that run return at once: none is missed, and no signal is involved here.
 * n_parked counts threads that wait and those whose vCPU has left for good, which never move again.
 */
#include "vmm/vcpus.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/util.h"

#define STACK_BYTES KIB(128)

/* Waits until this vCPU may run; false when the thread is to end. */
static bool may_run(struct vcpus *v)
{
	pthread_mutex_lock(&v->lock);
	if (v->want != VCPUS_RUN) {
		v->n_parked++;
		pthread_cond_signal(&v->parked);
		while (v->want == VCPUS_HOLD)
			pthread_cond_wait(&v->go, &v->lock);
		v->n_parked--;
	}
	bool run = v->want == VCPUS_RUN;
	pthread_mutex_unlock(&v->lock);
	return run;
}

/* The vCPU has left: stay parked until the end. */
static void stay(struct vcpus *v)
{
	pthread_mutex_lock(&v->lock);
	v->n_parked++;
	pthread_cond_signal(&v->parked);
	while (v->want != VCPUS_QUIT)
		pthread_cond_wait(&v->go, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

static void *run_vcpu(void *arg)
{
	struct vcpu_thread *t = arg;
	struct vcpus *v = t->all;
	while (may_run(v)) {
		struct hv_exit exit = {.reason = HV_EXIT_FAILED};
		if (hv_vcpu_run(t->vcpu, &exit) < 0 && !exit.text[0]) {
			exit.reason = HV_EXIT_FAILED;
			snprintf(exit.text, sizeof(exit.text), "the accelerator gave no reason");
		}
		if (exit.reason == HV_EXIT_KICKED)
			continue;
		v->on_exit(v->ctx, t->vcpu->index, &exit);
		stay(v);
		break;
	}
	return NULL;
}

int vcpus_create(struct vcpus *v, struct hv_vm *vm, unsigned n, vcpus_exit_fn *on_exit, void *ctx, struct cai_error *err)
{
	*v = (struct vcpus){.vm = vm, .on_exit = on_exit, .ctx = ctx, .want = VCPUS_HOLD};
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->go, NULL);
	pthread_condattr_t ca;
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&v->parked, &ca);
	pthread_condattr_destroy(&ca);

	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	int e = 0;
	for (unsigned i = 0; i < n && !e; i++) {
		v->t[i] = (struct vcpu_thread){.all = v, .vcpu = vm->vcpu[i]};
		e = pthread_create(&v->t[i].thread, &attr, run_vcpu, &v->t[i]);
		if (!e)
			v->n++;
	}
	pthread_attr_destroy(&attr);
	if (e) {
		unsigned made = v->n;
		vcpus_destroy(v);
		return cai_fail_errno(err, e, "cannot make the thread of vCPU %u", made);
	}
	/* A new thread makes system calls of its own before it comes to us, which the coming filter would not let pass. */
	pthread_mutex_lock(&v->lock);
	while (v->n_parked < v->n)
		pthread_cond_wait(&v->parked, &v->lock);
	pthread_mutex_unlock(&v->lock);
	return 0;
}

static void set_want(struct vcpus *v, int want)
{
	pthread_mutex_lock(&v->lock);
	if (!v->halted || want == VCPUS_QUIT)
		v->want = want;
	pthread_cond_broadcast(&v->go);
	pthread_mutex_unlock(&v->lock);
}

static void kick_all(struct vcpus *v)
{
	for (unsigned i = 0; i < v->n; i++)
		hv_vcpu_kick(v->t[i].vcpu);
}

void vcpus_destroy(struct vcpus *v)
{
	set_want(v, VCPUS_QUIT);
	kick_all(v);
	for (unsigned i = 0; i < v->n; i++)
		pthread_join(v->t[i].thread, NULL);
	v->n = 0;
	pthread_cond_destroy(&v->parked);
	pthread_cond_destroy(&v->go);
	pthread_mutex_destroy(&v->lock);
}

void vcpus_release(struct vcpus *v)
{
	set_want(v, VCPUS_RUN);
}

int vcpus_hold(struct vcpus *v, unsigned timeout_ms, struct cai_error *err)
{
	set_want(v, VCPUS_HOLD);
	kick_all(v);
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += timeout_ms / 1000;
	ts.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	int e = 0;
	pthread_mutex_lock(&v->lock);
	while (v->n_parked < v->n && e != ETIMEDOUT)
		e = pthread_cond_timedwait(&v->parked, &v->lock, &ts);
	unsigned running = v->n - v->n_parked;
	pthread_mutex_unlock(&v->lock);
	if (!running)
		return 0;
	vcpus_release(v);
	return cai_fail(err, ETIMEDOUT, "%u of %u vCPUs did not stop within %u ms", running, v->n, timeout_ms);
}

void vcpus_halt(struct vcpus *v)
{
	pthread_mutex_lock(&v->lock);
	v->halted = true;
	if (v->want == VCPUS_RUN)
		v->want = VCPUS_HOLD;
	pthread_mutex_unlock(&v->lock);
	kick_all(v);
}
