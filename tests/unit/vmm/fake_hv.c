/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_hv.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>

#include "hv/hv.h"
#include "hv/kvm/probe.h"

struct fake_vcpu {
	struct hv_vcpu hv;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool kicked;
	uint64_t rip;
	_Atomic uint64_t instructions;
};

struct fake_vm {
	struct hv_vm hv;
	struct fake_vcpu vcpu[HV_MAX_VCPUS];
};

static bool take_kick(struct fake_vcpu *v, bool wait)
{
	pthread_mutex_lock(&v->lock);
	while (wait && !v->kicked)
		pthread_cond_wait(&v->cond, &v->lock);
	bool k = v->kicked;
	v->kicked = false;
	pthread_mutex_unlock(&v->lock);
	return k;
}

static int leave(struct hv_exit *e, enum hv_exit_reason reason, const char *text)
{
	e->reason = reason;
	snprintf(e->text, sizeof(e->text), "%s", text);
	return 0;
}

static int fake_run(struct hv_vcpu *hv, struct hv_exit *e)
{
	struct fake_vcpu *v = (struct fake_vcpu *)hv;
	const struct hv_config *c = &hv->vm->cfg;
	for (;;) {
		uint8_t op[16] = {FAKE_HALT};
		if (hv->index == 0)
			mem_read(c->mem, v->rip, op, sizeof(op));
		if (take_kick(v, op[0] == FAKE_HALT))
			return leave(e, HV_EXIT_KICKED, "");
		v->instructions++;
		uint16_t u16;
		uint64_t u64;
		memcpy(&u16, op + 1, 2);
		memcpy(&u64, op + 1, 8);
		switch (op[0]) {
		case FAKE_PORT:
			c->bus.pio(c->bus.ctx, u16, op + 3, 1, true);
			v->rip += 4;
			break;
		case FAKE_MMIO:
			c->bus.mmio(c->bus.ctx, u64, op + 9, 4, true);
			v->rip += 13;
			break;
		case FAKE_SLEEP:
			nanosleep(&(struct timespec){u16 / 1000, u16 % 1000 * 1000000L}, NULL);
			v->rip += 3;
			break;
		case FAKE_CALL:
			syscall(u16, 0, 0, 0, 0, 0, 0);
			v->rip += 3;
			break;
		case FAKE_SPIN:
			break;
		case FAKE_TRIPLE:
			return leave(e, HV_EXIT_SHUTDOWN, "at RIP 0x100000");
		case FAKE_STOP:
			return leave(e, HV_EXIT_STOP, "");
		case FAKE_CRASH: {
			volatile uintptr_t wild = 8;
			*(volatile int *)wild = 1;
			break;
		}
		default:
			return leave(e, HV_EXIT_FAILED, "the test said so");
		}
	}
}

static void fake_kick(struct hv_vcpu *hv)
{
	struct fake_vcpu *v = (struct fake_vcpu *)hv;
	pthread_mutex_lock(&v->lock);
	v->kicked = true;
	pthread_cond_signal(&v->cond);
	pthread_mutex_unlock(&v->lock);
}

static int fake_irq_line(struct hv_vm *vm, unsigned gsi, bool level)
{
	return 0;
}

static int fake_set_state(struct hv_vcpu *hv, const struct x86_state *s, struct cai_error *err)
{
	((struct fake_vcpu *)hv)->rip = s->rip;
	return 0;
}

static void fake_stats(struct hv_vcpu *hv, struct hv_stats *st)
{
	st->instructions = ((struct fake_vcpu *)hv)->instructions;
}

static void fake_destroy(struct hv_vm *vm)
{
	free(vm);
}

static const struct hv_ops fake_ops = {
	.name = "fake",
	.vm_destroy = fake_destroy,
	.irq_line = fake_irq_line,
	.vcpu_run = fake_run,
	.vcpu_kick = fake_kick,
	.set_state = fake_set_state,
	.vcpu_stats = fake_stats,
};

int hv_soft_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err)
{
	struct fake_vm *vm = calloc(1, sizeof(*vm));
	if (!vm)
		return cai_fail(err, ENOMEM, "out of memory");
	vm->hv.ops = &fake_ops;
	vm->hv.cfg = *cfg;
	for (unsigned i = 0; i < cfg->n_vcpus; i++) {
		vm->vcpu[i].hv = (struct hv_vcpu){.vm = &vm->hv, .index = i};
		pthread_mutex_init(&vm->vcpu[i].lock, NULL);
		pthread_cond_init(&vm->vcpu[i].cond, NULL);
		vm->hv.vcpu[i] = &vm->vcpu[i].hv;
	}
	*out = &vm->hv;
	return 0;
}

int hv_kvm_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err)
{
	return cai_fail(err, ENODEV, "this test has no KVM");
}

void kvm_probe_run(int fd, struct kvm_probe *out)
{
	*out = (struct kvm_probe){.verdict = KVM_ABSENT};
}

int kvm_probe_json(const struct kvm_probe *p, char *buf, size_t size)
{
	return -1;
}

unsigned long fake_elf(void *out, unsigned long room, const void *program, unsigned long n)
{
	struct {
		uint8_t ident[16];
		uint16_t type, machine;
		uint32_t version;
		uint64_t entry, phoff, shoff;
		uint32_t flags;
		uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
		struct {
			uint32_t type, flags;
			uint64_t offset, vaddr, paddr, filesz, memsz, align;
		} ph;
	} h = {
		.ident = {0x7f, 'E', 'L', 'F', 2, 1, 1},
		.type = 2,
		.machine = 62,
		.version = 1,
		.entry = 0x100000,
		.phoff = 64,
		.ehsize = 64,
		.phentsize = 56,
		.phnum = 1,
		.ph = {.type = 1, .flags = 7, .offset = 0x1000, .vaddr = 0x100000, .paddr = 0x100000, .filesz = n, .memsz = n, .align = 0x1000},
	};
	if (room < 0x1000 + n)
		return 0;
	memset(out, 0, 0x1000);
	memcpy(out, &h, sizeof(h));
	memcpy((uint8_t *)out + 0x1000, program, n);
	return 0x1000 + n;
}
