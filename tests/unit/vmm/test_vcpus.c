/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "fake_hv.h"
#include "vmm/vcpus.h"

struct fixture {
	struct mem mem;
	struct hv_vm *vm;
	struct vcpus v;
	atomic_int exits;
	enum hv_exit_reason reason;
};

static void nap(void)
{
	nanosleep(&(struct timespec){0, 2000000}, NULL);
}

static void on_exit_(void *ctx, unsigned index, const struct hv_exit *e)
{
	struct fixture *f = ctx;
	f->reason = e->reason;
	atomic_fetch_add(&f->exits, 1);
}

static bool no_port(void *ctx, uint16_t port, void *data, unsigned len, bool is_write)
{
	return false;
}

static void make(struct fixture *f, unsigned n, const uint8_t *program, size_t len)
{
	struct cai_error err;
	struct x86_state s = {.rip = 0x1000};
	memset(f, 0, sizeof(*f));
	assert_int_equal(mem_create(&f->mem, MEM_MIN_BYTES, &err), 0);
	mem_write(&f->mem, 0x1000, program, len);
	struct hv_config c = {.mem = &f->mem, .n_vcpus = n, .bus.pio = no_port};
	assert_int_equal(hv_soft_create(&c, &f->vm, &err), 0);
	hv_set_state(f->vm->vcpu[0], &s, &err);
	assert_int_equal(vcpus_create(&f->v, f->vm, n, on_exit_, f, &err), 0);
}

static void drop(struct fixture *f)
{
	vcpus_destroy(&f->v);
	hv_destroy(f->vm);
	mem_destroy(&f->mem);
}

static uint64_t instructions(struct fixture *f)
{
	struct hv_stats s;
	hv_vcpu_stats(f->vm->vcpu[0], &s);
	return s.instructions;
}

static void vcpus_are_held_until_released(void **state)
{
	struct fixture f;
	make(&f, 4, (const uint8_t *)"s", 1);
	nap();
	assert_int_equal(instructions(&f), 0);
	vcpus_release(&f.v);
	while (!instructions(&f))
		nap();
	drop(&f);
}

static void holding_stops_spinning_and_halted_vcpus_many_times(void **state)
{
	struct fixture f;
	make(&f, 3, (const uint8_t *)"s", 1);
	for (int i = 0; i < 300; i++) {
		struct cai_error err;
		vcpus_release(&f.v);
		if (i % 7 == 0)
			nap();
		assert_int_equal(vcpus_hold(&f.v, 10000, &err), 0);
		uint64_t n = instructions(&f);
		if (i % 50 == 0)
			nap();
		assert_int_equal(instructions(&f), n);
	}
	drop(&f);
}

static void a_vcpu_that_does_not_stop_is_reported_and_goes_on(void **state)
{
	struct fixture f;
	uint8_t p[16], *e = fake_u16(p, FAKE_SLEEP, 300);
	e = fake_op(e, FAKE_SPIN);
	make(&f, 1, p, (size_t)(e - p));
	vcpus_release(&f.v);
	while (!instructions(&f))
		nap();
	struct cai_error err;
	assert_int_equal(vcpus_hold(&f.v, 20, &err), -1);
	assert_non_null(strstr(err.text, "1 of 1 vCPUs did not stop"));
	while (instructions(&f) < 10)
		nap();
	assert_int_equal(vcpus_hold(&f.v, 10000, &err), 0);
	drop(&f);
}

static void a_vcpu_that_left_counts_as_stopped(void **state)
{
	struct fixture f;
	struct cai_error err;
	make(&f, 2, (const uint8_t *)"t", 1);
	vcpus_release(&f.v);
	while (!atomic_load(&f.exits))
		nap();
	assert_int_equal(f.reason, HV_EXIT_SHUTDOWN);
	assert_int_equal(vcpus_hold(&f.v, 10000, &err), 0);
	vcpus_release(&f.v);
	nap();
	assert_int_equal(atomic_load(&f.exits), 1);
	drop(&f);
}

static void a_halt_is_for_good(void **state)
{
	struct fixture f;
	struct cai_error err;
	make(&f, 2, (const uint8_t *)"s", 1);
	vcpus_release(&f.v);
	vcpus_halt(&f.v);
	vcpus_release(&f.v);
	assert_int_equal(vcpus_hold(&f.v, 10000, &err), 0);
	drop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vcpus_are_held_until_released),
		cmocka_unit_test(holding_stops_spinning_and_halted_vcpus_many_times),
		cmocka_unit_test(a_vcpu_that_does_not_stop_is_reported_and_goes_on),
		cmocka_unit_test(a_vcpu_that_left_counts_as_stopped),
		cmocka_unit_test(a_halt_is_for_good),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
