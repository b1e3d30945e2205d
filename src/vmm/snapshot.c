/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the guest stands still, so memory and state may be written one after the other; taking the state writes nothing to guest
 * memory. Making the files last on disk is for the caller, who owns their names. The VM's state fixes the moment that the processors'
 * clocks are told for, so it is taken before them.
 *
 * What the guest sees of the host's CPU is recorded twice: in the manifest, for a reader that looks for a snapshot it can restore, and as the
 * list of all CPUID leaves, which is what a restore checks.
 */
#include "vmm/snapshot.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/util.h"
#include "virtio/state.h"
#include "vmm/build_id.h"
#include "vmm/config.h"
#include "vmm/cpu_state.h"

int snapshot_write_at(int fd, const void *p, size_t n, uint64_t off, const char *what, struct cai_error *err)
{
	const char *from = p;
	while (n) {
		ssize_t k = pwrite(fd, from, n, (off_t)off);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return cai_fail_errno(err, k < 0 ? errno : EIO, "cannot write the snapshot's %s file", what);
		from += k;
		off += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

/* The caller's files: regular, and empty, so that nothing of older content shows through the holes. */
static int check_file(int fd, const char *what, struct cai_error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot examine the snapshot's %s file", what);
	if (!S_ISREG(st.st_mode) || st.st_size)
		return cai_fail(err, EINVAL, "the snapshot's %s file is not an empty regular file", what);
	return 0;
}

void machine_host_vendor(char vendor[16])
{
	unsigned a = 0, b = 0, c = 0, d = 0;
	__get_cpuid(0, &a, &b, &c, &d);
	memset(vendor, 0, 16);
	store_le32(vendor, b);
	store_le32(vendor + 4, d);
	store_le32(vendor + 8, c);
}

static void fill_manifest(struct machine *m, struct snapshot_manifest *f)
{
	uint32_t r[4];
	const struct x86_cpu_model *cpuid = hv_cpuid(m->vm);
	f->machine = SNAPSHOT_MACHINE;
	f->real_ns = clock_real_ns();
	f->accel = m->cfg.accel;
	f->vcpus = m->cfg.vcpus;
	f->mem_bytes = m->mem.size;
	memcpy(f->cpu_model, m->cfg.cpu_model, sizeof(f->cpu_model));
	f->cpu_model_version = m->model.version;
	machine_host_vendor(f->vendor);
	x86_cpuid(cpuid, 0, 0x40000010, 0, r);
	f->tsc_khz = r[0];
	x86_cpuid(cpuid, 0, 0x40000001, 0, r);
	f->paravirt = r[0];
	x86_cpuid(cpuid, 0, 7, 0, r);
	f->mitigations = r[3] >> 29 & 1 ? X86_V2_ARCH_CAPABILITIES : 0;
	build_id(f->build);
	if (virtio_vsock_agent_ready(m->vsock))
		f->flags |= SNAPSHOT_FLAG_READY;
	f->n_devices = m->n_slots;
	for (unsigned i = 0; i < m->n_slots; i++)
		f->device[i].kind = m->slot[i]->ops->device_id;
	for (unsigned i = 0; i < m->cfg.n_disks; i++) {
		struct snapshot_device *d = &f->device[CONFIG_FIRST_DISK_SLOT + i];
		d->flags = m->cfg.disk[i].flags & CONTROL_DISK_READONLY ? SNAPSHOT_DEVICE_READONLY : 0;
		d->bytes = virtio_blk_bytes(m->blk[i]);
		memcpy(d->id, m->cfg.disk[i].id, sizeof(d->id));
	}
}

static int put_processors(struct machine *m, struct snapshot_writer *w, struct cai_error *err)
{
	cleanup_free struct x86_state *s = aligned_alloc(16, align_up(sizeof(*s), 16));
	struct hv_vm_state vm;
	if (!s)
		return cai_fail(err, ENOMEM, "out of memory");
	if (hv_get_vm_state(m->vm, &vm, err) < 0)
		return -1;
	snapshot_begin(w, SNAPSHOT_VM, 0);
	vm_state_put(&w->body, &vm);
	snapshot_end(w);
	for (unsigned i = 0; i < m->cfg.vcpus; i++) {
		if (hv_get_state(m->vm->vcpu[i], s, err) < 0)
			return -1;
		snapshot_begin(w, SNAPSHOT_VCPU, i);
		cpu_state_put(&w->body, s);
		snapshot_end(w);
	}
	snapshot_begin(w, SNAPSHOT_CPUID, 0);
	cpuid_put(&w->body, hv_cpuid(m->vm));
	snapshot_end(w);
	return 0;
}

static void put_serial(struct machine *m, struct buf *out)
{
	struct serial_state s;
	serial_save(m->serial, &s);
	const uint8_t regs[] = {s.ier, s.fcr, s.lcr, s.mcr, s.lsr_sticky, s.scr, s.dll, s.dlm, s.thre_pending, s.timeout_pending, s.rx_len};
	buf_put_bytes(out, regs, sizeof(regs));
	buf_put_bytes(out, s.rx, sizeof(s.rx));
}

static int put_devices(struct machine *m, struct snapshot_writer *w, struct cai_error *err)
{
	snapshot_begin(w, SNAPSHOT_SERIAL, 0);
	put_serial(m, &w->body);
	snapshot_end(w);
	for (unsigned i = 0; i < m->n_slots; i++) {
		snapshot_begin(w, SNAPSHOT_VIRTIO, i);
		if (virtio_dev_save(m->slot[i], &w->body, err) < 0)
			return -1;
		snapshot_end(w);
	}
	return 0;
}

static int write_state(struct machine *m, const struct snapshot_manifest *f, const struct snapshot_memory *index, int fd,
		       struct cai_error *err)
{
	struct snapshot_writer w = {.n = 0};
	struct buf out = {0};
	snapshot_begin(&w, SNAPSHOT_MANIFEST, 0);
	snapshot_put_manifest(&w.body, f);
	snapshot_end(&w);
	int rc = put_processors(m, &w, err);
	if (rc == 0)
		rc = put_devices(m, &w, err);
	if (rc == 0) {
		snapshot_begin(&w, SNAPSHOT_MEMORY, 0);
		snapshot_put_memory(&w.body, index);
		snapshot_end(&w);
		if (!snapshot_finish(&w, &out))
			rc = cai_fail(err, ENOMEM, "out of memory for the snapshot's state");
	}
	if (rc == 0)
		rc = snapshot_write_at(fd, out.p, out.len, 0, "state", err);
	buf_free(&out);
	snapshot_writer_free(&w);
	return rc;
}

static const struct snapshot_memory *parent_of(struct machine *m, const struct control_snapshot *q, struct cai_error *err)
{
	const struct snapshot_memory *last = &m->last;
	if (!last->n_layers || memcmp(last->layer[last->n_layers - 1], q->parent, SNAPSHOT_ID_BYTES)) {
		cai_fail(err, ESTALE, "an incremental snapshot can only build on the last one that this monitor wrote or was restored from, which is "
			 "another");
		return NULL;
	}
	return last;
}

int machine_snapshot(struct machine *m, const struct control_snapshot *q, struct cai_error *err)
{
	struct snapshot_manifest f = {.flags = 0};
	struct snapshot_memory index = {0};
	const struct snapshot_memory *parent = NULL;
	if (check_file(q->state_fd, "state", err) < 0 || check_file(q->memory_fd, "memory", err) < 0)
		return -1;
	if ((q->flags & CONTROL_SNAPSHOT_CODE) && check_file(q->code_fd, "code", err) < 0)
		return -1;
	if (q->flags & CONTROL_SNAPSHOT_INCREMENTAL) {
		parent = parent_of(m, q, err);
		if (!parent)
			return -1;
		memcpy(f.parent, q->parent, sizeof(f.parent));
	}
	if (getrandom(f.id, sizeof(f.id), 0) != (ssize_t)sizeof(f.id))
		return cai_fail_errno(err, errno, "the host gives no random numbers");
	console_flush(&m->console);
	fill_manifest(m, &f);
	if ((m->last.n_layers && hv_dirty_fetch(m->vm, err) < 0) || snapshot_write_memory(m, parent, f.id, q->memory_fd, &index, err) < 0)
		return -1;
	if (write_state(m, &f, &index, q->state_fd, err) < 0 ||
	    ((q->flags & CONTROL_SNAPSHOT_CODE) && hv_save_code(m->vm, q->code_fd, f.id, f.build, err) < 0) ||
	    (!(q->flags & CONTROL_SNAPSHOT_STOP) && hv_dirty_begin(m->vm, err) < 0)) {
		snapshot_memory_free(&index);
		return -1;
	}
	snapshot_memory_free(&m->last);
	m->last = index;
	return 0;
}
