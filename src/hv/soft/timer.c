/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timer thread: fires the APIC timers of vCPUs that are running guest code.
 *
 * Theory of operation: it sleeps until the earliest deadline of the vCPUs that are awake, then lets the APIC post its interrupt, which sets the
 * flag that the vCPU looks at between blocks. A vCPU that halts sleeps until its own deadline and is none of this thread's business.
 * When a vCPU arms a deadline that is earlier than the one being waited for, it wakes the thread; a deadline that went
 * away is noticed only when the thread wakes by itself.
 */
#include "hv/soft/soft.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

uint64_t soft_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Waits while *word == seen, until `deadline` (CLOCK_MONOTONIC ns, UINT64_MAX for ever). */
void soft_futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline)
{
	struct timespec ts = {.tv_sec = (time_t)(deadline / 1000000000u), .tv_nsec = (long)(deadline % 1000000000u)};
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, seen, deadline == UINT64_MAX ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY);
}

void soft_futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void soft_post(struct soft_vcpu *v, uint32_t bits)
{
	atomic_fetch_or(&v->cpu->pending, bits);
	if (atomic_load(&v->sleeping))
		soft_futex_wake(&v->cpu->pending);
}

static void *timer_main(void *arg)
{
	struct soft_vm *vm = arg;
	while (!atomic_load(&vm->timer_stop)) {
		const uint32_t seen = atomic_load(&vm->timer_word);
		atomic_store(&vm->timer_target, UINT64_MAX);
		uint64_t now = soft_now(), next = UINT64_MAX;
		for (unsigned i = 0; i < vm->base.cfg.n_vcpus; i++) {
			if (atomic_load(&vm->vcpu[i].sleeping))
				continue;
			/* The vCPU may have gone to sleep since, with the deadline already taken off: nobody else would wake it. */
			if (lapic_timer_deadline(vm->chip, i) <= now && lapic_poll_timer(vm->chip, i, now) && atomic_load(&vm->vcpu[i].sleeping))
				soft_futex_wake(&vm->vcpu[i].cpu->pending);
			uint64_t d = lapic_timer_deadline(vm->chip, i);
			if (d < next)
				next = d;
		}
		atomic_store(&vm->timer_target, next);
		/* A deadline set between the look and the store bumped the word, so the wait returns at once. */
		soft_futex_wait(&vm->timer_word, seen, next);
	}
	return NULL;
}

void soft_timer_changed(void *ctx, unsigned vcpu)
{
	struct soft_vm *vm = ctx;
	if (lapic_timer_deadline(vm->chip, vcpu) < atomic_load(&vm->timer_target)) {
		atomic_fetch_add(&vm->timer_word, 1);
		soft_futex_wake(&vm->timer_word);
	}
}

int soft_timer_start(struct soft_vm *vm, struct cai_error *err)
{
	pthread_attr_t a;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 64 << 10);
	int e = pthread_create(&vm->timer_thread, &a, timer_main, vm);
	pthread_attr_destroy(&a);
	if (e)
		return cai_fail_errno(err, e, "cannot start the timer thread");
	vm->timer_started = true;
	return 0;
}

void soft_timer_stop(struct soft_vm *vm)
{
	if (!vm->timer_started)
		return;
	atomic_store(&vm->timer_stop, true);
	atomic_fetch_add(&vm->timer_word, 1);
	soft_futex_wake(&vm->timer_word);
	pthread_join(vm->timer_thread, NULL);
}
