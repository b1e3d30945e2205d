/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM on KVM has beside its vCPUs: the I/O APIC, the clock, the dirty log.
 *
 * Theory of operation: KVM keeps an I/O APIC's redirection entries as the chip has them, and of the pins' levels only which of them wait for
 * service. Levels of edge pins are of no use to it, and one that it is given would fire again; so only those of level pins go in.
 *
 * KVM_GET_DIRTY_LOG hands over what was written since it was last called and begins anew; what devices and the assist write goes past
 * KVM and is in mem's own log. Both ends of the period are therefore a call to it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "hv/kvm/kvm_int.h"

#define RTE_LEVEL BIT(15)
#define MSR_TSC   0x10

static int get_ioapic(struct kvm_vm *vm, struct kvm_irqchip *chip, struct cai_error *err)
{
	*chip = (struct kvm_irqchip){.chip_id = KVM_IRQCHIP_IOAPIC};
	if (kvm_ioctl(vm->vm_fd, KVM_GET_IRQCHIP, chip) < 0)
		return cai_fail_errno(err, errno, "cannot read the interrupt controller");
	return 0;
}

int kvm_vm_get_state(struct hv_vm *hv, struct hv_vm_state *s, struct cai_error *err)
{
	struct kvm_vm *vm = kvm_vm_of(hv);
	struct kvm_irqchip chip;
	struct kvm_clock_data clock = {0};
	if (get_ioapic(vm, &chip, err) < 0)
		return -1;
	const struct kvm_ioapic_state *io = &chip.chip.ioapic;
	*s = (struct hv_vm_state){.ioapic_id = (uint8_t)io->id, .ioapic_select = (uint8_t)io->ioregsel, .ioapic_level = io->irr & (uint32_t)(BIT(HV_N_GSI) - 1)};
	for (unsigned i = 0; i < HV_N_GSI; i++)
		s->ioapic_rte[i] = io->redirtbl[i].bits;
	if (kvm_ioctl(vm->vm_fd, KVM_GET_CLOCK, &clock) < 0)
		return cai_fail_errno(err, errno, "cannot read the guest's clock");
	s->clock_ns = clock.clock;
	if (kvm_msr_get(kvm_vcpu_of(hv->vcpu[0]), MSR_TSC, &s->clock_tsc) < 0)
		return cai_fail(err, ENOTSUP, "this host's KVM does not tell a guest's TSC");
	vm->still_tsc = s->clock_tsc;
	return 0;
}

int kvm_vm_set_state(struct hv_vm *hv, const struct hv_vm_state *s, struct cai_error *err)
{
	struct kvm_vm *vm = kvm_vm_of(hv);
	struct kvm_irqchip chip;
	if (get_ioapic(vm, &chip, err) < 0)
		return -1;
	struct kvm_ioapic_state *io = &chip.chip.ioapic;
	io->id = s->ioapic_id & 0xf;
	io->ioregsel = s->ioapic_select;
	io->irr = 0;
	for (unsigned i = 0; i < HV_N_GSI; i++) {
		io->redirtbl[i].bits = s->ioapic_rte[i];
		if ((s->ioapic_rte[i] & RTE_LEVEL) && (s->ioapic_level >> i & 1))
			io->irr |= 1u << i;
	}
	if (kvm_ioctl(vm->vm_fd, KVM_SET_IRQCHIP, &chip) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the interrupt controller's state");
	struct kvm_clock_data clock = {.clock = s->clock_ns};
	if (kvm_ioctl(vm->vm_fd, KVM_SET_CLOCK, &clock) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the guest's clock");
	return 0;
}

/* Reads region i's log, which empties it; the bits go to mem's log where keep says so. */
static int take_log(struct kvm_vm *vm, unsigned i, bool keep, struct cai_error *err)
{
	struct mem *m = vm->hv.cfg.mem;
	const struct mem_region *r = &m->region[i];
	const uint64_t pages = r->size >> MEM_PAGE_SHIFT, first = (uint64_t)(r->hva - m->base) >> MEM_PAGE_SHIFT;
	cleanup_free uint64_t *bits = calloc((pages + 63) / 64, sizeof *bits);
	if (!bits)
		return cai_fail(err, ENOMEM, "out of memory");
	struct kvm_dirty_log log = {.slot = i, .dirty_bitmap = bits};
	if (kvm_ioctl(vm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
		return cai_fail_errno(err, errno, "KVM does not tell which memory was written");
	for (uint64_t w = 0; keep && w < (pages + 63) / 64; w++)
		for (uint64_t left = bits[w]; left; left &= left - 1)
			mem_dirty_set(m, first + w * 64 + (uint64_t)__builtin_ctzll(left));
	return 0;
}

int kvm_dirty_begin(struct hv_vm *hv, struct cai_error *err)
{
	struct kvm_vm *vm = kvm_vm_of(hv);
	const struct mem *m = hv->cfg.mem;
	for (unsigned i = 0; i < m->n_regions; i++) {
		struct kvm_userspace_memory_region r = {
			.slot = i,
			.flags = KVM_MEM_LOG_DIRTY_PAGES,
			.guest_phys_addr = m->region[i].gpa,
			.memory_size = m->region[i].size,
			.userspace_addr = (uintptr_t)m->region[i].hva,
		};
		if (!vm->logging && kvm_ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
			return cai_fail_errno(err, errno, "KVM does not log writes to guest memory");
		if (take_log(vm, i, false, err) < 0)
			return -1;
	}
	vm->logging = true;
	return 0;
}

int kvm_dirty_fetch(struct hv_vm *hv, struct cai_error *err)
{
	for (unsigned i = 0; i < hv->cfg.mem->n_regions; i++)
		if (take_log(kvm_vm_of(hv), i, true, err) < 0)
			return -1;
	return 0;
}
