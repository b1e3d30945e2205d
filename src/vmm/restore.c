/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a snapshot is as hostile as a guest. Its container was checked as a whole by snapshot_read(); each section is checked by
 * whoever it belongs to. Memory is mapped, not read: what is in it is the guest's business, and a file that turns out shorter than its
 * index says ends the guest when it gets there (fatal.c).
 *
 * Order: the VM's state brings the moment that processors' clocks count from, and the interrupt controller with its pins' levels, which devices
 * then agree with; processors; devices; last the new generation id and its interrupt, which the guest finds pending before it runs
 * another instruction.
 */
#include "vmm/restore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/util.h"
#include "dev/acpi.h"
#include "virtio/state.h"
#include "vmm/build_id.h"
#include "vmm/cpu_state.h"

#define TSC_TOLERANCE 250u /* millionths that a clock may differ by without the guest's notice (KVM's figure) */

static int check_manifest(struct machine *m, struct cai_error *err)
{
	const struct snapshot_manifest *f = &m->restore->manifest;
	struct control_config *c = &m->cfg;
	char vendor[16];
	if (c->vcpus && c->vcpus != f->vcpus)
		return cai_fail(err, EINVAL, "the snapshot is of a machine with %u processors, not %u", f->vcpus, c->vcpus);
	if (c->mem_bytes && c->mem_bytes != f->mem_bytes)
		return cai_fail(err, EINVAL, "the snapshot is of a machine with %llu MiB of memory, not %llu", (unsigned long long)f->mem_bytes >> 20,
				(unsigned long long)c->mem_bytes >> 20);
	if (c->cpu_model[0] && strncmp(c->cpu_model, f->cpu_model, sizeof(c->cpu_model)))
		return cai_fail(err, EINVAL, "the snapshot is of a machine with CPU model %s, not %.15s", f->cpu_model, c->cpu_model);
	c->vcpus = f->vcpus;
	c->mem_bytes = f->mem_bytes;
	memcpy(c->cpu_model, f->cpu_model, sizeof(c->cpu_model));
	/* A guest that ran on the host's own CPU may have taken its errata into account. */
	machine_host_vendor(vendor);
	if (f->accel == CONTROL_ACCEL_KVM && c->accel == CONTROL_ACCEL_KVM && memcmp(vendor, f->vendor, sizeof(vendor)))
		return cai_fail(err, ENOTSUP, "the snapshot was taken on a CPU of %s, this host's is of %s", f->vendor, vendor);
	return 0;
}

int restore_open(struct machine *m, struct cai_error *err)
{
	m->restore = calloc(1, sizeof(*m->restore));
	if (!m->restore)
		return cai_fail(err, ENOMEM, "out of memory");
	return snapshot_read(m->restore, m->cfg.fd[CONTROL_FD_STATE], err) < 0 ? -1 : check_manifest(m, err);
}

static int check_layers(struct machine *m, struct cai_error *err)
{
	const struct snapshot_memory *x = &m->restore->memory;
	unsigned given = 0;
	while (given < CONTROL_MAX_LAYERS && m->cfg.fd[CONTROL_FD_MEMORY + given] >= 0)
		given++;
	if (given != x->n_layers)
		return cai_fail(err, EINVAL, "the snapshot is made of %u memory files; %u were given", x->n_layers, given);
	for (unsigned i = 0; i < given; i++) {
		struct stat st;
		uint64_t end = 0;
		for (uint32_t k = 0; k < x->n_extents; k++)
			if (x->extent[k].layer == i)
				end = ((uint64_t)x->extent[k].first + x->extent[k].n) * SNAPSHOT_CHUNK;
		if (end > m->cfg.mem_bytes)
			end = m->cfg.mem_bytes;
		if (fstat(m->cfg.fd[CONTROL_FD_MEMORY + i], &st) < 0)
			return cai_fail_errno(err, errno, "cannot examine memory file %u of the snapshot", i + 1);
		if (!S_ISREG(st.st_mode))
			return cai_fail(err, EINVAL, "memory file %u of the snapshot is not a regular file", i + 1);
		if ((uint64_t)st.st_size < end)
			return cai_fail(err, EINVAL, "memory file %u of the snapshot is cut short: it has %lld bytes, %llu are needed", i + 1,
					(long long)st.st_size, (unsigned long long)end);
	}
	return 0;
}

static int verify(struct machine *m, struct cai_error *err)
{
	const struct snapshot_memory *x = &m->restore->memory;
	uint32_t k = 0;
	for (uint32_t i = 0; i < x->n_extents; i++)
		for (uint64_t c = x->extent[i].first; c < (uint64_t)x->extent[i].first + x->extent[i].n; c++, k++) {
			const uint64_t at = c * SNAPSHOT_CHUNK, left = m->mem.size - at;
			if (crc32c(0, m->mem.base + at, left < SNAPSHOT_CHUNK ? left : SNAPSHOT_CHUNK) != x->crc[k])
				return cai_fail(err, EINVAL, "the snapshot is damaged: the checksum of memory file %u is wrong at offset 0x%llx",
						x->extent[i].layer + 1, (unsigned long long)at);
		}
	return 0;
}

static void on_damage(void *ctx, uint64_t offset)
{
	struct machine *m = ctx;
	machine_end(m, CONTROL_END_ACCEL_LOST, "the snapshot is damaged: the checksum of its memory at offset 0x%llx is wrong", (unsigned long long)offset);
}

static int verify_later(struct machine *m, struct cai_error *err)
{
	const struct snapshot_memory *x = &m->restore->memory;
	const uint64_t chunks = (m->mem.size + SNAPSHOT_CHUNK - 1) / SNAPSHOT_CHUNK;
	uint32_t *crc = calloc(chunks, sizeof(*crc)), k = 0;
	uint64_t *pending = calloc(chunks / 64 + 1, sizeof(*pending));
	if (!crc || !pending) {
		free(crc);
		free(pending);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	for (uint32_t i = 0; i < x->n_extents; i++)
		for (uint64_t c = x->extent[i].first; c < (uint64_t)x->extent[i].first + x->extent[i].n; c++) {
			crc[c] = x->crc[k++];
			pending[c / 64] |= BIT(c % 64);
		}
	return mem_check_begin(&m->mem, SNAPSHOT_CHUNK, crc, pending, on_damage, m, err);
}

int restore_memory(struct machine *m, struct cai_error *err)
{
	const struct snapshot_memory *x = &m->restore->memory;
	const uint64_t size = m->cfg.mem_bytes;
	if (check_layers(m, err) < 0)
		return -1;
	cleanup_free struct mem_part *part = calloc(x->n_extents + 1, sizeof(*part));
	if (!part)
		return cai_fail(err, ENOMEM, "out of memory");
	for (uint32_t i = 0; i < x->n_extents; i++) {
		const struct snapshot_extent *e = &x->extent[i];
		uint64_t end = ((uint64_t)e->first + e->n) * SNAPSHOT_CHUNK;
		part[i].offset = (uint64_t)e->first * SNAPSHOT_CHUNK;
		part[i].size = (end < size ? end : size) - part[i].offset;
		part[i].fd = m->cfg.fd[CONTROL_FD_MEMORY + e->layer];
	}
	if (mem_create_private(&m->mem, size, part, x->n_extents, err) < 0)
		return -1;
	if ((m->cfg.flags & CONTROL_FLAG_VERIFY_LATE) && m->cfg.accel == CONTROL_ACCEL_SOFT)
		return verify_later(m, err);
	return m->cfg.flags & (CONTROL_FLAG_VERIFY | CONTROL_FLAG_VERIFY_LATE) ? verify(m, err) : 0;
}

/* Puts the name of a section in front of what is wrong with it. */
static int in_section(enum snapshot_tag tag, uint32_t instance, struct cai_error *err)
{
	char name[80];
	snapshot_section_name(tag, instance, name, sizeof(name));
	return cai_wrap(err, "the snapshot does not fit: %s", name);
}

static int check_cpu(struct machine *m, struct cai_error *err)
{
	const struct snapshot_manifest *f = &m->restore->manifest;
	struct buf_reader r;
	uint32_t v[4];
	if (f->cpu_model_version != m->model.version)
		return cai_fail(err, ENOTSUP, "the snapshot was taken with version %u of CPU model %s, this is version %u", f->cpu_model_version,
				f->cpu_model, m->model.version);
	x86_cpuid(hv_cpuid(m->vm), 0, 0x40000010, 0, v);
	uint64_t differ = f->tsc_khz > v[0] ? f->tsc_khz - v[0] : v[0] - f->tsc_khz;
	if (differ * 1000000 > (uint64_t)f->tsc_khz * TSC_TOLERANCE)
		return cai_fail(err, ENOTSUP, "the snapshot's clock counts %u kHz, this machine's %u kHz (accelerator %s)", f->tsc_khz, v[0],
				m->vm->ops->name);
	if (snapshot_find(m->restore, SNAPSHOT_CPUID, 0, &r, err) < 0 || cpuid_check(&r, hv_cpuid(m->vm), err) < 0)
		return -1;
	x86_cpuid(hv_cpuid(m->vm), 0, 7, 0, v);
	const uint64_t mitigations = v[3] >> 29 & 1 ? X86_V2_ARCH_CAPABILITIES : 0;
	if (f->mitigations != mitigations)
		return cai_fail(err, ENOTSUP, "the snapshot's guest was told of other defects of its CPU (IA32_ARCH_CAPABILITIES 0x%llx, here 0x%llx)",
				(unsigned long long)f->mitigations, (unsigned long long)mitigations);
	return 0;
}

static int load_processors(struct machine *m, struct cai_error *err)
{
	struct hv_vm_state vm;
	struct buf_reader r;
	cleanup_free struct x86_state *s = aligned_alloc(16, align_up(sizeof(*s), 16));
	if (!s)
		return cai_fail(err, ENOMEM, "out of memory");
	if (snapshot_find(m->restore, SNAPSHOT_VM, 0, &r, err) < 0)
		return -1;
	if (vm_state_get(&r, &vm, err) < 0 || hv_set_vm_state(m->vm, &vm, err) < 0)
		return in_section(SNAPSHOT_VM, 0, err);
	for (unsigned i = 0; i < m->cfg.vcpus; i++) {
		if (snapshot_find(m->restore, SNAPSHOT_VCPU, i, &r, err) < 0)
			return -1;
		if (cpu_state_get(&r, s, err) < 0 || hv_set_state(m->vm->vcpu[i], s, err) < 0)
			return in_section(SNAPSHOT_VCPU, i, err);
	}
	return 0;
}

static int load_serial(struct machine *m, struct cai_error *err)
{
	struct buf_reader r;
	struct serial_state s = {0};
	if (snapshot_find(m->restore, SNAPSHOT_SERIAL, 0, &r, err) < 0)
		return -1;
	uint8_t *const regs[] = {&s.ier, &s.fcr, &s.lcr, &s.mcr, &s.lsr_sticky, &s.scr, &s.dll, &s.dlm, &s.thre_pending, &s.timeout_pending, &s.rx_len};
	for (unsigned i = 0; i < ARRAY_LEN(regs); i++)
		*regs[i] = buf_get_u8(&r);
	const void *rx = buf_get_bytes(&r, sizeof(s.rx));
	if (!buf_done(&r)) {
		cai_fail(err, EINVAL, "it has another size than such a state");
		return in_section(SNAPSHOT_SERIAL, 0, err);
	}
	memcpy(s.rx, rx, sizeof(s.rx));
	serial_load(m->serial, &s);
	return 0;
}

static int load_devices(struct machine *m, struct cai_error *err)
{
	const struct snapshot_manifest *f = &m->restore->manifest;
	struct buf_reader r;
	if (f->n_devices != m->n_slots)
		return cai_fail(err, EINVAL, "the snapshot is of a machine with %u virtio devices, this one has %u", f->n_devices, m->n_slots);
	if (load_serial(m, err) < 0)
		return -1;
	for (unsigned i = 0; i < m->n_slots; i++) {
		if (snapshot_find(m->restore, SNAPSHOT_VIRTIO, i, &r, err) < 0)
			return -1;
		if (virtio_dev_load(m->slot[i], &r, err) < 0)
			return in_section(SNAPSHOT_VIRTIO, i, err);
	}
	return 0;
}

/* Two machines made from one snapshot are not the same machine: the guest's kernel learns it and makes its random numbers anew. */
static int new_generation(struct machine *m, struct cai_error *err)
{
	uint8_t id[16];
	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return cai_fail_errno(err, errno, "the host gives no random numbers");
	if (acpi_set_generation(&m->mem, id) < 0)
		return cai_fail(err, EINVAL, "the machine has no place for its generation id");
	if (m->cfg.flags & CONTROL_FLAG_QUIET_GENERATION)
		return 0;
	hv_irq_line(m->vm, LAYOUT_GED_GSI, true);
	hv_irq_line(m->vm, LAYOUT_GED_GSI, false);
	return 0;
}

int restore_load(struct machine *m, struct cai_error *err)
{
	if (check_cpu(m, err) < 0)
		return -1;
	/* Everything that is written from here on differs from the files. */
	if (hv_dirty_begin(m->vm, err) < 0)
		return -1;
	if (load_processors(m, err) < 0)
		return -1;
	/* After them, since it brings what each of them knew of it; before anything else writes to guest memory. */
	if (m->cfg.fd[CONTROL_FD_CODE] >= 0) {
		uint8_t build[20];
		build_id(build);
		if (hv_load_code(m->vm, m->cfg.fd[CONTROL_FD_CODE], m->restore->manifest.id, build, err) < 0)
			return -1;
	}
	if (load_devices(m, err) < 0 || new_generation(m, err) < 0)
		return -1;
	/* Memory that was needed for this may have turned out to be damaged. */
	char why[480];
	if (ending_get(&m->ending, why))
		return cai_fail(err, EINVAL, "%s", why);
	m->last = m->restore->memory;
	m->restore->memory = (struct snapshot_memory){0};
	snapshot_free(m->restore);
	free(m->restore);
	m->restore = NULL;
	m->restored = true;
	return 0;
}

void restore_resume(struct machine *m)
{
	for (unsigned i = 0; m->restored && i < m->n_slots; i++)
		virtio_dev_resume(m->slot[i]);
	m->restored = false;
}
