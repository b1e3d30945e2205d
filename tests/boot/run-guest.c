/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run-guest --accel kvm|soft [--cpus N] [--reincarnate MS] [--hop] [--timeout SECONDS] [--churn MS] [--code-cache KB] [--skip-pvm WHY] GUEST.elf
 *
 * Theory of operation: loads a bare-metal ELF64 test guest into 64 MiB of RAM, starts it in long mode with the first 4 GiB mapped one to one
 * (RDI = number of CPUs; RSI = 0 under soft, 1 under kvm, 3 under a kvm that interprets ring 0), and serves the few devices that such guests use:
 *
 *   port 0xE9        text, passed on to standard output (one byte or a string)
 *   port 0xF4        exit code: 0 passed, 77 skipped, else failed
 *   port 0xF1        pulses the IOAPIC pin that is written
 *   port 0xF2        level: bit 7 up or down, the rest the pin
 *   port 0xE0..0xE3  a 4-byte scratch register, any size
 *   port 0xE8        reads count up by one; a 16 or 32-bit read gives the count in each byte
 *   0xD0100000       64 bytes of scratch MMIO, any size
 *
 * and a virtio-rng at the first virtio-mmio slot. Exit status: the guest's; 1 on any
 * other end; 77 where the accelerator is not here. With --churn a guest of one CPU is stopped every MS milliseconds and its whole
 * state is taken out and put back, which it must not notice. With --reincarnate it is stopped after 1 to MS milliseconds, again and again, and goes
 * on in a new VM made from its state and memory; with --hop under the other accelerator each time.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "hv/hv.h"
#include "hv/kvm/pvm_quirks.h"
#include "run-guest.h"

#define GUEST_RAM   MIB(64)
#define SCRATCH_GPA 0xD0100000ull
#define SKIP        77

static bool dev_pio(void *ctx, uint16_t port, void *data, unsigned len, bool is_write)
{
	struct guest_host *h = ctx;
	uint8_t *p = data;
	if (port == 0xE9 && is_write) {
		pthread_mutex_lock(&h->lock);
		fwrite(p, 1, len, stdout);
		fflush(stdout);
		pthread_mutex_unlock(&h->lock);
		return true;
	}
	if (port == 0xF4 && is_write) {
		guest_host_end(h, p[0]);
		return true;
	}
	if (port == 0xF1 && is_write) {
		hv_irq_line(h->vm, p[0], true);
		hv_irq_line(h->vm, p[0], false);
		return true;
	}
	if (port == 0xF2 && is_write) {
		hv_irq_line(h->vm, p[0] & 0x7f, p[0] & 0x80);
		return true;
	}
	if (port >= 0xE0 && port + len <= 0xE4) {
		pthread_mutex_lock(&h->lock);
		if (is_write)
			memcpy(h->scratch_port + port - 0xE0, p, len);
		else
			memcpy(p, h->scratch_port + port - 0xE0, len);
		pthread_mutex_unlock(&h->lock);
		return true;
	}
	if (port == 0xE8 && !is_write) {
		memset(p, h->counter++, len);
		return true;
	}
	return false;
}

static bool dev_mmio(void *ctx, uint64_t gpa, void *data, unsigned len, bool is_write)
{
	struct guest_host *h = ctx;
	if (gpa >= SCRATCH_GPA && gpa + len <= SCRATCH_GPA + sizeof h->scratch_mmio) {
		pthread_mutex_lock(&h->lock);
		if (is_write)
			memcpy(h->scratch_mmio + gpa - SCRATCH_GPA, data, len);
		else
			memcpy(data, h->scratch_mmio + gpa - SCRATCH_GPA, len);
		pthread_mutex_unlock(&h->lock);
		return true;
	}
	return guest_virtio_mmio(h, gpa, data, len, is_write);
}

void guest_host_end(struct guest_host *h, int code)
{
	int none = -1;
	atomic_compare_exchange_strong(&h->code, &none, code);
	for (unsigned i = 0; i < h->cfg.n_vcpus; i++)
		if (h->vm && h->vm->vcpu[i])
			hv_vcpu_kick(h->vm->vcpu[i]);
	pthread_mutex_lock(&h->lock);
	pthread_cond_broadcast(&h->ended);
	pthread_mutex_unlock(&h->lock);
}

struct runner {
	struct guest_host *h;
	struct hv_vcpu *vcpu;
	pthread_t thread;
	unsigned index, churn, churned;
};

static void churn(struct runner *r)
{
	struct x86_state s;
	struct cai_error err;
	if (hv_get_state(r->vcpu, &s, &err) < 0 || hv_set_state(r->vcpu, &s, &err) < 0) {
		fprintf(stderr, "run-guest: %s\n", err.text);
		guest_host_end(r->h, 1);
	}
	r->churned++;
}

static void *kick_often(void *arg)
{
	struct runner *r = arg;
	while (atomic_load(&r->h->code) < 0) {
		usleep(r->churn * 1000);
		hv_vcpu_kick(r->vcpu);
	}
	return NULL;
}

/* Waits while the guest stands still; afterwards the vCPU may be another one. */
static void stand_still(struct runner *r)
{
	struct guest_host *h = r->h;
	pthread_mutex_lock(&h->lock);
	if (h->freeze) {
		h->n_frozen++;
		pthread_cond_broadcast(&h->ended);
		while (h->freeze)
			pthread_cond_wait(&h->ended, &h->lock);
		h->n_frozen--;
		r->vcpu = h->vm->vcpu[r->index];
	}
	pthread_mutex_unlock(&h->lock);
}

/* Called with the lock held. */
static void move_on(struct guest_host *h, bool kvm)
{
	struct cai_error err;
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	h->freeze = true;
	for (unsigned i = 0; i < h->cfg.n_vcpus; i++)
		hv_vcpu_kick(h->vm->vcpu[i]);
	while (h->n_frozen < h->cfg.n_vcpus && atomic_load(&h->code) < 0)
		if (pthread_cond_timedwait(&h->ended, &h->lock, &until) == ETIMEDOUT) {
			fprintf(stderr, "run-guest: the guest does not stand still\n");
			atomic_store(&h->code, 1);
		}
	if (atomic_load(&h->code) < 0 && guest_reincarnate(h, kvm, &err) < 0) {
		fprintf(stderr, "run-guest: %s\n", err.text);
		_exit(1);
	}
	h->freeze = false;
	pthread_cond_broadcast(&h->ended);
}

static void *run_vcpu(void *arg)
{
	struct runner *r = arg;
	struct hv_exit e;
	while (atomic_load(&r->h->code) < 0) {
		stand_still(r);
		if (hv_vcpu_run(r->vcpu, &e) < 0) {
			fprintf(stderr, "run-guest: CPU %u: hv_vcpu_run failed\n", r->vcpu->index);
			guest_host_end(r->h, 1);
		} else if (e.reason == HV_EXIT_KICKED && r->churn) {
			churn(r);
		} else if (e.reason == HV_EXIT_SHUTDOWN || e.reason == HV_EXIT_FAILED) {
			fprintf(stderr, "run-guest: CPU %u: %s\n", r->vcpu->index, e.text);
			guest_host_end(r->h, 1);
		}
	}
	return NULL;
}

/* Loads the ELF's segments at their physical addresses. Returns the entry, or 0. The file comes from this build. */
static uint64_t load_elf(struct mem *m, const char *path)
{
	cleanup_free char *img = NULL;
	size_t n;
	struct cai_error err;
	if (file_read_all(path, MIB(32), &img, &n, &err) < 0) {
		fprintf(stderr, "run-guest: %s\n", err.text);
		return 0;
	}
	const Elf64_Ehdr *eh = (const void *)img;
	if (n < sizeof *eh || memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_machine != EM_X86_64) {
		fprintf(stderr, "run-guest: %s is no x86-64 ELF file\n", path);
		return 0;
	}
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		const Elf64_Phdr *ph = (const void *)(img + eh->e_phoff + i * sizeof *ph);
		if (ph->p_type != PT_LOAD)
			continue;
		if (ph->p_offset + ph->p_filesz > n || mem_write(m, ph->p_paddr, img + ph->p_offset, ph->p_filesz) < 0) {
			fprintf(stderr, "run-guest: %s does not fit\n", path);
			return 0;
		}
	}
	return eh->e_entry;
}

/* Long mode with the first 4 GiB one to one in 2 MiB pages: PML4 at 0x9000, PDPT at 0xA000, page directories from 0xB000; GDT at 0x500. */
static void make_state(struct mem *m, uint64_t entry, unsigned cpus, unsigned accel, struct x86_state *s)
{
	const uint64_t gdt[] = {0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF};
	uint64_t e = 0xA003;
	mem_write(m, 0x500, gdt, sizeof gdt);
	mem_write(m, 0x9000, &e, 8);
	for (unsigned i = 0; i < 4; i++) {
		e = 0xB003 + i * 0x1000;
		mem_write(m, 0xA000 + 8 * i, &e, 8);
		for (unsigned j = 0; j < 512; j++) {
			e = (uint64_t)i << 30 | (uint64_t)j << 21 | 0x83;
			mem_write(m, 0xB000 + i * 0x1000 + 8 * j, &e, 8);
		}
	}
	memset(s, 0, sizeof *s);
	for (unsigned i = 0; i < X86_N_SEGS; i++)
		s->seg[i] = (struct x86_segment){0, 0xffffffff, 0x18, 0xC093};
	s->seg[X86_CS] = (struct x86_segment){0, 0xffffffff, 0x10, 0xA09B};
	s->tr = (struct x86_segment){0, 0xffff, 0, 0x008B};
	s->gdtr = (struct x86_dtable){0x500, sizeof gdt - 1};
	s->cr0 = 0x80050033;
	s->cr3 = 0x9000;
	s->cr4 = 0x20;
	s->efer = 0xD00;
	s->xcr0 = 1;
	s->rip = entry;
	s->rflags = 2;
	s->gpr[X86_RSP] = 0x8FF0;
	s->gpr[X86_RDI] = cpus;
	s->gpr[X86_RSI] = accel;
	s->fx.fcw = 0x37F;
	s->fx.mxcsr = 0x1F80;
	s->dr[6] = 0xFFFF0FF0;
	s->dr[7] = 0x400;
	s->pat = 0x0007040600070406;
	s->apic_base = 0xFEE00900;
}

static int skip(const char *why)
{
	printf("skipped: %s\n", why);
	return SKIP;
}

int main(int argc, char **argv)
{
	const char *accel = NULL, *elf = NULL, *skip_pvm = NULL;
	unsigned cpus = 1, timeout = 30, churn_ms = 0, code_kb = 0, lives_ms = 0, lives = 0;
	bool hop = false;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--accel") && i + 1 < argc)
			accel = argv[++i];
		else if (!strcmp(argv[i], "--cpus") && i + 1 < argc)
			cpus = (unsigned)atoi(argv[++i]);
		else if (!strcmp(argv[i], "--timeout") && i + 1 < argc)
			timeout = (unsigned)atoi(argv[++i]);
		else if (!strcmp(argv[i], "--churn") && i + 1 < argc)
			churn_ms = (unsigned)atoi(argv[++i]);
		else if (!strcmp(argv[i], "--reincarnate") && i + 1 < argc)
			lives_ms = (unsigned)atoi(argv[++i]);
		else if (!strcmp(argv[i], "--hop"))
			hop = true;
		else if (!strcmp(argv[i], "--code-cache") && i + 1 < argc)
			code_kb = (unsigned)atoi(argv[++i]);
		else if (!strcmp(argv[i], "--skip-pvm") && i + 1 < argc)
			skip_pvm = argv[++i];
		else
			elf = argv[i];
	}
	if (!accel || !elf || (strcmp(accel, "kvm") && strcmp(accel, "soft"))) {
		fprintf(stderr, "usage: run-guest --accel kvm|soft [--cpus N] [--timeout S] [--churn MS] [--code-cache KB] [--skip-pvm WHY] GUEST.elf\n");
		return 2;
	}
	bool kvm = !strcmp(accel, "kvm");
	struct guest_host h = {.code = -1, .file = -1, .cfg = {.n_vcpus = cpus, .kvm_fd = -1, .code_cache_bytes = KIB(code_kb)}};
	struct cai_error err = {0};
	pthread_mutex_init(&h.lock, NULL);
	pthread_cond_init(&h.ended, NULL);
	if (kvm || hop) {
		h.cfg.kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
		if (h.cfg.kvm_fd < 0)
			return skip(errno == ENOENT ? "there is no /dev/kvm" : "/dev/kvm may not be opened");
		if (skip_pvm && kvm_quirks_detect())
			return skip(skip_pvm);
	}
	struct x86_cpu_model model;
	x86_cpu_model_init(&model, "v2", 1000000, cpus);
	if (mem_create(&h.mem, GUEST_RAM, &err) < 0)
		goto fail;
	uint64_t entry = load_elf(&h.mem, elf);
	if (!entry)
		return 1;
	h.cfg.mem = &h.mem;
	h.cfg.model = &model;
	h.cfg.bus = (struct hv_bus){.ctx = &h, .mmio = dev_mmio, .pio = dev_pio};
	if ((kvm ? hv_kvm_create : hv_soft_create)(&h.cfg, &h.vm, &err) < 0)
		goto fail;
	struct x86_state s;
	make_state(&h.mem, entry, cpus, (kvm || hop ? kvm_quirks_detect() ? 3 : 1 : 0) | (hop ? 4 : 0), &s);
	if (hv_set_state(h.vm->vcpu[0], &s, &err) < 0 || (!lives_ms && guest_virtio_start(&h, kvm, &err) < 0))
		goto fail;

	struct runner r[HV_MAX_VCPUS];
	for (unsigned i = 0; i < cpus; i++) {
		r[i] = (struct runner){.h = &h, .vcpu = h.vm->vcpu[i], .index = i, .churn = cpus == 1 ? churn_ms : 0};
		pthread_create(&r[i].thread, NULL, run_vcpu, &r[i]);
	}
	pthread_t kicker;
	if (r[0].churn)
		pthread_create(&kicker, NULL, kick_often, &r[0]);
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout;
	srand((unsigned)until.tv_nsec);
	pthread_mutex_lock(&h.lock);
	while (lives_ms && atomic_load(&h.code) < 0) {
		struct timespec t, now;
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += (1 + rand() % (int)lives_ms) * 1000000l;
		t.tv_sec += t.tv_nsec / 1000000000;
		t.tv_nsec %= 1000000000;
		while (atomic_load(&h.code) < 0 && pthread_cond_timedwait(&h.ended, &h.lock, &t) != ETIMEDOUT)
			;
		clock_gettime(CLOCK_REALTIME, &now);
		if (now.tv_sec > until.tv_sec)
			break;
		if (atomic_load(&h.code) >= 0)
			break;
		kvm = hop ? !kvm : kvm;
		move_on(&h, kvm);
		lives++;
	}
	while (atomic_load(&h.code) < 0)
		if (pthread_cond_timedwait(&h.ended, &h.lock, &until) == ETIMEDOUT)
			break;
	pthread_mutex_unlock(&h.lock);
	if (atomic_load(&h.code) < 0) {
		fprintf(stderr, "run-guest: no result after %u s\n", timeout);
		guest_host_end(&h, 1);
		for (unsigned i = 0; i < cpus; i++) {
			pthread_join(r[i].thread, NULL);
			if (hv_get_state(h.vm->vcpu[i], &s, &err) == 0)
				fprintf(stderr, "run-guest: CPU %u: RIP 0x%llx RSP 0x%llx RFLAGS 0x%llx CR3 0x%llx state %u\n", i,
					(unsigned long long)s.rip, (unsigned long long)s.gpr[X86_RSP],
					(unsigned long long)s.rflags, (unsigned long long)s.cr3, s.mp_state);
		}
	} else {
		for (unsigned i = 0; i < cpus; i++)
			pthread_join(r[i].thread, NULL);
	}
	if (r[0].churn) {
		pthread_join(kicker, NULL);
		printf("run-guest: state taken out and put back %u times\n", r[0].churned);
	}
	if (lives_ms)
		printf("run-guest: %u lives, %llu pages written\n", lives + 1, (unsigned long long)h.pages_written);
	struct hv_stats st;
	uint64_t assists = 0, insns = 0, blocks = 0;
	for (unsigned i = 0; i < cpus; i++) {
		hv_vcpu_stats(h.vm->vcpu[i], &st);
		assists += st.assists;
		insns += st.instructions;
		blocks += st.blocks_decoded;
	}
	printf("run-guest: %s, %u CPUs, code %d, %llu assists, %llu instructions, %llu blocks\n", accel, cpus,
	       atomic_load(&h.code), (unsigned long long)assists, (unsigned long long)insns, (unsigned long long)blocks);
	int code = atomic_load(&h.code);
	if (guest_virtio_stop(&h) < 0 && code == 0)
		code = 1;
	hv_destroy(h.vm);
	mem_destroy(&h.mem);
	return code;
fail:
	fprintf(stderr, "run-guest: %s\n", err.text);
	return 1;
}
