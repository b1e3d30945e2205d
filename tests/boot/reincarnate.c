/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of one VM and the beginning of another: the guest's whole state goes through the sections of a snapshot, its memory through a file, and a
 * new VM, of this accelerator or the other, goes on with it.
 *
 * The file is what a chain of incremental snapshots would hold: after the first time only pages of the dirty log are written to it. So a page
 * that the log misses comes back old; and before it is used, the file is compared with the memory it stands for.
 */
#include "run-guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "vmm/cpu_state.h"

static int write_memory(struct guest_host *h, struct cai_error *err)
{
	const struct mem *m = &h->mem;
	const bool first = h->file < 0;
	if (first) {
		h->file = memfd_create("snapshot", MFD_CLOEXEC);
		if (h->file < 0 || ftruncate(h->file, (off_t)m->size) < 0)
			return cai_fail_errno(err, errno, "cannot make a memory file");
	} else if (hv_dirty_fetch(h->vm, err) < 0) {
		return -1;
	}
	for (uint64_t p = 0; p < m->size >> MEM_PAGE_SHIFT; p++) {
		const uint8_t *page = m->base + (p << MEM_PAGE_SHIFT);
		if (!first && !mem_dirty_test(m, p))
			continue;
		h->pages_written++;
		if (pwrite(h->file, page, MEM_PAGE_SIZE, (off_t)(p << MEM_PAGE_SHIFT)) != MEM_PAGE_SIZE)
			return cai_fail_errno(err, errno, "cannot write memory");
	}
	uint8_t *view = mmap(NULL, m->size, PROT_READ, MAP_SHARED, h->file, 0);
	if (view == MAP_FAILED)
		return cai_fail_errno(err, errno, "cannot map the memory file");
	int rc = 0;
	for (uint64_t at = 0; rc == 0 && at < m->size; at += MEM_PAGE_SIZE)
		if (memcmp(view + at, m->base + at, MEM_PAGE_SIZE))
			rc = cai_fail(err, 0, "the page at 0x%llx was written and is not in the dirty log", (unsigned long long)at);
	munmap(view, m->size);
	return rc;
}

int guest_reincarnate(struct guest_host *h, bool kvm, struct cai_error *err)
{
	struct buf b = {0};
	struct hv_vm_state vm;
	struct x86_state s __attribute__((aligned(16)));
	size_t end[HV_MAX_VCPUS + 1];
	if (hv_get_vm_state(h->vm, &vm, err) < 0)
		return -1;
	vm_state_put(&b, &vm);
	end[0] = b.len;
	for (unsigned i = 0; i < h->cfg.n_vcpus; i++) {
		if (hv_get_state(h->vm->vcpu[i], &s, err) < 0)
			return -1;
		cpu_state_put(&b, &s);
		end[i + 1] = b.len;
	}
	if (write_memory(h, err) < 0)
		return -1;
	const uint64_t size = h->mem.size;
	hv_destroy(h->vm);
	h->vm = NULL;
	mem_destroy(&h->mem);
	const struct mem_part part = {.offset = 0, .size = size, .fd = h->file};
	if (mem_create_private(&h->mem, size, &part, 1, err) < 0)
		return -1;
	if ((kvm ? hv_kvm_create : hv_soft_create)(&h->cfg, &h->vm, err) < 0 || hv_dirty_begin(h->vm, err) < 0)
		return -1;
	struct buf_reader r = buf_reader(b.p, end[0]);
	if (vm_state_get(&r, &vm, err) < 0 || hv_set_vm_state(h->vm, &vm, err) < 0)
		return -1;
	for (unsigned i = 0; i < h->cfg.n_vcpus; i++) {
		r = buf_reader(b.p + end[i], end[i + 1] - end[i]);
		if (cpu_state_get(&r, &s, err) < 0 || hv_set_state(h->vm->vcpu[i], &s, err) < 0)
			return -1;
	}
	buf_free(&b);
	return 0;
}
