/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM backend without a guest program of note: the probe's answers, state in and out, kicks in every situation. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/loop.h"
#include "base/util.h"
#include "hv/hv.h"
#include "hv/kvm/probe.h"

static void the_probe_answers_in_json_that_a_parser_takes(void **state)
{
	struct kvm_probe p = {
		.verdict = KVM_UNUSABLE, .boundary = KVM_BOUNDARY_HYPERVISOR, .reason = "a \"quoted\" \\ one\n", .api = 12, .mips = 3, .ns = 4,
		.n_missing = 2, .missing = {"POPCNT", "INT3"}, .cmdline = "a=1 b=2",
	};
	char b[512];
	int n = kvm_probe_json(&p, b, sizeof b);
	assert_string_equal(b, "{\"kvm\":\"unusable\",\"reason\":\"a \\\"quoted\\\" \\\\ one\\u000a\",\"boundary\":\"hypervisor\",\"mips\":3,\"ns\":4,"
			       "\"api\":12,\"missing\":[\"POPCNT\",\"INT3\"],\"cmdline\":\"a=1 b=2\"}");
	assert_int_equal(n, strlen(b));
	for (size_t size = 0; size <= (size_t)n; size++)
		assert_int_equal(kvm_probe_json(&p, b, size), -1);
	assert_int_equal(kvm_probe_json(&p, b, (size_t)n + 1), n);
}

static void the_probe_tells_kvm_from_another_device(void **state)
{
	struct kvm_probe p;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	kvm_probe_run(fd, &p);
	close(fd);
	assert_int_equal(p.verdict, KVM_UNUSABLE);
	assert_non_null(strstr(p.reason, "not KVM"));
	assert_int_equal(p.boundary, KVM_BOUNDARY_NONE);
	assert_string_equal(p.cmdline, "");
}

static void the_probe_ends_in_time_with_a_verdict(void **state)
{
	struct kvm_probe p;
	uint64_t t = clock_mono_ns();
	kvm_probe_run(-1, &p);
	assert_true(clock_mono_ns() - t < 5000000000ull);
	if (p.verdict == KVM_USABLE) {
		assert_int_equal(p.n_missing, 0);
		assert_true(p.mips >= KVM_PROBE_MIN_MIPS);
		assert_string_equal(p.reason, "");
	} else {
		assert_string_not_equal(p.reason, "");
	}
	if (p.verdict == KVM_ABSENT || p.verdict == KVM_NO_PERMISSION)
		assert_int_equal(p.boundary, KVM_BOUNDARY_NONE);
}

/* A VM whose CPU 0 is in long mode at a few bytes of code. */
struct fixture {
	struct mem mem;
	struct x86_cpu_model model;
	struct hv_config cfg;
	struct hv_vm *vm;
	struct x86_state s;
	unsigned pio_writes;
	uint64_t pio_value;
};

static bool on_pio(void *ctx, uint16_t port, void *data, unsigned len, bool is_write)
{
	struct fixture *f = ctx;
	if (is_write) {
		f->pio_writes++;
		f->pio_value = 0;
		memcpy(&f->pio_value, data, len);
		if (port == 0x99)
			hv_vcpu_kick(f->vm->vcpu[0]);
		return true;
	}
	return false;
}

static int make(void **state)
{
	static struct fixture fixture;
	struct fixture *f = &fixture;
	struct cai_error err;
	*state = f;
	memset(f, 0, sizeof *f);
	f->cfg.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (f->cfg.kvm_fd < 0)
		return 0;
	assert_int_equal(mem_create(&f->mem, MIB(16), &err), 0);
	assert_int_equal(x86_cpu_model_init(&f->model, "v2", 1000000, 2), 0);
	f->cfg.mem = &f->mem;
	f->cfg.model = &f->model;
	f->cfg.n_vcpus = 2;
	f->cfg.bus = (struct hv_bus){.ctx = f, .pio = on_pio};
	assert_int_equal(hv_kvm_create(&f->cfg, &f->vm, &err), 0);
	uint64_t pml4 = 0x2003;
	mem_write(&f->mem, 0x1000, &pml4, 8);
	uint64_t pd = 0x3003;
	mem_write(&f->mem, 0x2000, &pd, 8);
	for (uint64_t i = 0; i < 8; i++) {
		uint64_t e = i << 21 | 0x83;
		mem_write(&f->mem, 0x3000 + 8 * i, &e, 8);
	}
	struct x86_state *s = &f->s;
	for (unsigned i = 0; i < X86_N_SEGS; i++)
		s->seg[i] = (struct x86_segment){0, 0xffffffff, 0x18, 0xC093};
	s->seg[X86_CS] = (struct x86_segment){0, 0xffffffff, 0x10, 0xA09B};
	s->tr = (struct x86_segment){0x5000, 0x67, 0x40, 0x008B};
	s->gdtr = (struct x86_dtable){0x6000, 0x7f};
	s->idtr = (struct x86_dtable){0x7000, 0xfff};
	s->cr0 = 0x80050033;
	s->cr3 = 0x1000;
	s->cr4 = 0x6a0;
	s->efer = 0xD01;
	s->xcr0 = 1;
	s->rip = 0x10000;
	s->gpr[X86_RSP] = 0x9000;
	s->rflags = 2;
	s->fx.fcw = 0x37F;
	s->fx.mxcsr = 0x1F80;
	s->dr[6] = 0xFFFF0FF0;
	s->dr[7] = 0x400;
	s->pat = 0x0007040600070406;
	s->apic_base = 0xFEE00900;
	return 0;
}

static int unmake(void **state)
{
	struct fixture *f = *state;
	if (f->cfg.kvm_fd >= 0) {
		hv_destroy(f->vm);
		mem_destroy(&f->mem);
		close(f->cfg.kvm_fd);
	}
	return 0;
}

static struct fixture *need(void **state)
{
	struct fixture *f = *state;
	if (f->cfg.kvm_fd < 0) {
		print_message("skipped: /dev/kvm cannot be opened\n");
		skip();
	}
	return f;
}

static void start(struct fixture *f, const void *code, size_t n)
{
	struct cai_error err;
	mem_write(&f->mem, 0x10000, code, n);
	assert_int_equal(hv_set_state(f->vm->vcpu[0], &f->s, &err), 0);
}

static void state_comes_back_as_it_was_set(void **state)
{
	struct fixture *f = need(state);
	struct x86_state *s = &f->s, got;
	struct cai_error err;
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = 0x1111111111111111ull * i;
	s->rip = 0xffffffff81000123;
	s->rflags = 0x246;
	s->seg[X86_FS].base = 0x7f0000001000;
	s->seg[X86_GS].base = 0xffff888000001000;
	s->seg[X86_DS] = (struct x86_segment){.selector = 0};
	s->ldtr = (struct x86_segment){.selector = 0};
	s->cr2 = 0x123456789000;
	s->cr8 = 5;
	s->star = 0x0023001000000000;
	s->lstar = 0xffffffff81000000;
	s->sfmask = 0x257fd5;
	s->kernel_gs_base = 0x7fffffff0000;
	s->sysenter_cs = 0x10;
	s->fx.fcw = 0x27F;
	s->fx.fsw = 0x3800;
	s->fx.ftw = 0x80;
	s->fx.mxcsr = 0x1FA0;
	for (unsigned i = 0; i < 10; i++)
		s->fx.st[0][i] = (uint8_t)(0x80 + i);
	for (unsigned i = 0; i < 256; i++)
		s->fx.xmm[i / 16][i % 16] = (uint8_t)(i * 3);
	s->dr[0] = 0x401000;
	s->irq_shadow = 1;
	s->nmi_masked = 1;
	assert_int_equal(hv_set_state(f->vm->vcpu[0], s, &err), 0);
	assert_int_equal(hv_get_state(f->vm->vcpu[0], &got, &err), 0);
	assert_memory_equal(got.gpr, s->gpr, sizeof got.gpr);
	assert_int_equal(got.rip, s->rip);
	assert_int_equal(got.rflags, s->rflags);
	for (unsigned i = 0; i < X86_N_SEGS; i++) {
		assert_int_equal(got.seg[i].selector, s->seg[i].selector);
		assert_int_equal(got.seg[i].base, s->seg[i].base);
		assert_int_equal(got.seg[i].attr & X86_ATTR_P, s->seg[i].attr & X86_ATTR_P);
		if (s->seg[i].attr & X86_ATTR_P) {
			assert_int_equal(got.seg[i].limit, s->seg[i].limit);
			assert_int_equal(got.seg[i].attr, s->seg[i].attr);
		}
	}
	assert_int_equal(got.tr.base, s->tr.base);
	assert_int_equal(got.tr.attr, s->tr.attr);
	assert_int_equal(got.gdtr.base, s->gdtr.base);
	assert_int_equal(got.idtr.limit, s->idtr.limit);
	assert_int_equal(got.cr0, s->cr0);
	assert_int_equal(got.cr2, s->cr2);
	assert_int_equal(got.cr3, s->cr3);
	assert_int_equal(got.cr4, s->cr4);
	assert_int_equal(got.cr8, s->cr8);
	assert_int_equal(got.efer, s->efer);
	assert_int_equal(got.star, s->star);
	assert_int_equal(got.lstar, s->lstar);
	assert_int_equal(got.sfmask, s->sfmask);
	assert_int_equal(got.kernel_gs_base, s->kernel_gs_base);
	assert_int_equal(got.sysenter_cs, s->sysenter_cs);
	assert_int_equal(got.pat, s->pat);
	assert_int_equal(got.fx.fcw, s->fx.fcw);
	assert_int_equal(got.fx.fsw, s->fx.fsw);
	assert_int_equal(got.fx.ftw, s->fx.ftw);
	assert_int_equal(got.fx.mxcsr, s->fx.mxcsr);
	assert_memory_equal(got.fx.st[0], s->fx.st[0], 10);
	assert_memory_equal(got.fx.xmm, s->fx.xmm, sizeof got.fx.xmm);
	assert_int_equal(got.dr[0], s->dr[0]);
	assert_int_equal(got.irq_shadow, 1);
	assert_int_equal(got.nmi_masked, 1);
	assert_int_equal(got.mp_state, X86_MP_RUNNABLE);
	/* and a second time, through what was read */
	assert_int_equal(hv_set_state(f->vm->vcpu[0], &got, &err), 0);
	assert_int_equal(hv_get_state(f->vm->vcpu[1], &got, &err), 0);
	assert_int_equal(got.mp_state, X86_MP_WAIT_INIT);
}

static void a_kick_before_the_run_ends_it_at_once(void **state)
{
	struct fixture *f = need(state);
	static const uint8_t spin[] = {0xeb, 0xfe};
	struct hv_exit e;
	start(f, spin, sizeof spin);
	hv_vcpu_kick(f->vm->vcpu[0]);
	assert_int_equal(hv_vcpu_run(f->vm->vcpu[0], &e), 0);
	assert_int_equal(e.reason, HV_EXIT_KICKED);
}

static void *kick_soon(void *arg)
{
	struct fixture *f = arg;
	usleep(30000);
	hv_vcpu_kick(f->vm->vcpu[0]);
	return NULL;
}

static void kicked_while(struct fixture *f, const void *code, size_t n)
{
	struct hv_exit e;
	pthread_t t;
	start(f, code, n);
	for (unsigned i = 0; i < 3; i++) {
		pthread_create(&t, NULL, kick_soon, f);
		assert_int_equal(hv_vcpu_run(f->vm->vcpu[0], &e), 0);
		pthread_join(t, NULL);
		assert_int_equal(e.reason, HV_EXIT_KICKED);
	}
}

static void a_kick_ends_a_spinning_guest(void **state)
{
	static const uint8_t spin[] = {0xeb, 0xfe};
	kicked_while(need(state), spin, sizeof spin);
}

static void a_kick_ends_a_halted_guest(void **state)
{
	static const uint8_t halt[] = {0xf4, 0xeb, 0xfd};
	kicked_while(need(state), halt, sizeof halt);
}

static void a_kick_from_a_device_leaves_the_instruction_complete(void **state)
{
	struct fixture *f = need(state);
	/* mov $7, %al; out %al, $0x99; inc %rbx; jmp . */
	static const uint8_t code[] = {0xb0, 7, 0xe6, 0x99, 0x48, 0xff, 0xc3, 0xeb, 0xfe};
	struct hv_exit e;
	struct x86_state got;
	struct cai_error err;
	start(f, code, sizeof code);
	assert_int_equal(hv_vcpu_run(f->vm->vcpu[0], &e), 0);
	assert_int_equal(e.reason, HV_EXIT_KICKED);
	assert_int_equal(hv_get_state(f->vm->vcpu[0], &got, &err), 0);
	assert_int_equal(got.rip, 0x10004);
	assert_int_equal(got.gpr[X86_RBX], 0);
	assert_int_equal(f->pio_writes, 1);
	assert_int_equal(f->pio_value, 7);
	/* it goes on behind it, without a second access */
	pthread_t t;
	pthread_create(&t, NULL, kick_soon, f);
	assert_int_equal(hv_vcpu_run(f->vm->vcpu[0], &e), 0);
	pthread_join(t, NULL);
	assert_int_equal(hv_get_state(f->vm->vcpu[0], &got, &err), 0);
	assert_int_equal(got.rip, 0x10007);
	assert_int_equal(got.gpr[X86_RBX], 1);
	assert_int_equal(f->pio_writes, 1);
}

static void a_triple_fault_is_a_shutdown(void **state)
{
	struct fixture *f = need(state);
	static const uint8_t code[] = {0x0f, 0x0b};
	struct hv_exit e;
	f->s.idtr.limit = 0;
	start(f, code, sizeof code);
	assert_int_equal(hv_vcpu_run(f->vm->vcpu[0], &e), 0);
	assert_int_equal(e.reason, HV_EXIT_SHUTDOWN);
	assert_non_null(strstr(e.text, "triple fault"));
}

static void nonsense_is_refused_with_a_sentence(void **state)
{
	struct fixture *f = need(state);
	struct cai_error err;
	struct hv_vm *vm;
	struct hv_config cfg = f->cfg;
	cfg.n_vcpus = 0;
	assert_int_equal(hv_kvm_create(&cfg, &vm, &err), -1);
	cfg.n_vcpus = 33;
	assert_int_equal(hv_kvm_create(&cfg, &vm, &err), -1);
	cfg.n_vcpus = 1;
	cfg.kvm_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(hv_kvm_create(&cfg, &vm, &err), -1);
	assert_non_null(strstr(err.text, "not KVM"));
	close(cfg.kvm_fd);
	f->s.mp_state = 77;
	assert_int_equal(hv_set_state(f->vm->vcpu[0], &f->s, &err), -1);
	assert_int_equal(hv_irqfd(f->vm, 24, 0, &err), -1);
	assert_int_equal(hv_irq_line(f->vm, 24, true), -1);
	assert_int_equal(hv_irq_line(f->vm, 23, true), 0);
}

int main(void)
{
#define WITH_VM(f) cmocka_unit_test_setup_teardown(f, make, unmake)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_probe_answers_in_json_that_a_parser_takes),
		cmocka_unit_test(the_probe_tells_kvm_from_another_device),
		cmocka_unit_test(the_probe_ends_in_time_with_a_verdict),
		WITH_VM(state_comes_back_as_it_was_set),
		WITH_VM(a_kick_before_the_run_ends_it_at_once),
		WITH_VM(a_kick_ends_a_spinning_guest),
		WITH_VM(a_kick_ends_a_halted_guest),
		WITH_VM(a_kick_from_a_device_leaves_the_instruction_complete),
		WITH_VM(a_triple_fault_is_a_shutdown),
		WITH_VM(nonsense_is_refused_with_a_sentence),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
