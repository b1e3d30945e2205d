/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine on KVM.
 *
 * Theory of operation: the VM has the kernel's own local APICs and IOAPIC (KVM_CREATE_IRQCHIP) and no other device. The legacy
 * interrupt controllers that come with them are cut off by a routing table that leads each GSI to the IOAPIC pin of the same number
 * and nowhere else: a guest of a hardware-reduced machine never programs them, and an unprogrammed 8259 would deliver
 * vectors 0 to 15. Guest RAM is one memory slot for each region.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "hv/kvm/kvm_int.h"

/* Intel hardware without "unrestricted guest" needs four pages of guest-physical address space for real mode. They lie between the IOAPIC
 * and the end of the hole below 4 GiB, where the address map has nothing. */
#define KVM_TSS_GPA      0xFFFBD000ull
#define KVM_IDENTITY_GPA 0xFFFBC000ull

/* Ticks of a TSC that asking all vCPUs for their state may take: a guest that adjusts one does so by more, or does not care. */
#define KVM_TSC_SKEW 1000000000ull

static void vm_destroy(struct hv_vm *hv)
{
	struct kvm_vm *vm = kvm_vm_of(hv);
	for (unsigned i = 0; i < hv->cfg.n_vcpus; i++)
		if (hv->vcpu[i])
			kvm_vcpu_destroy(kvm_vcpu_of(hv->vcpu[i]));
	if (vm->vm_fd >= 0)
		close(vm->vm_fd);
	free(vm);
}

static int vm_irq_line(struct hv_vm *hv, unsigned gsi, bool level)
{
	struct kvm_irq_level l = {.irq = gsi, .level = level};
	if (gsi >= HV_N_GSI)
		return -1;
	return kvm_ioctl(kvm_vm_of(hv)->vm_fd, KVM_IRQ_LINE, &l) < 0 ? -1 : 0;
}

static int vm_irqfd(struct hv_vm *hv, unsigned gsi, int fd, struct cai_error *err)
{
	struct kvm_irqfd i = {.fd = (uint32_t)fd, .gsi = gsi};
	if (gsi >= HV_N_GSI)
		return cai_fail(err, EINVAL, "there is no interrupt pin %u", gsi);
	if (kvm_ioctl(kvm_vm_of(hv)->vm_fd, KVM_IRQFD, &i) < 0)
		return cai_fail_errno(err, errno, "KVM cannot connect an eventfd to interrupt %u", gsi);
	return 0;
}

static int vm_ioeventfd(struct hv_vm *hv, uint64_t gpa, unsigned len, uint32_t match, int fd, struct cai_error *err)
{
	struct kvm_ioeventfd e = {
		.addr = gpa,
		.len = len,
		.datamatch = match,
		.fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};
	if (kvm_ioctl(kvm_vm_of(hv)->vm_fd, KVM_IOEVENTFD, &e) < 0)
		return cai_fail_errno(err, errno, "KVM cannot connect an eventfd to writes at 0x%llx",
				      (unsigned long long)gpa);
	return 0;
}

static int op_get_state(struct hv_vcpu *v, struct x86_state *s, struct cai_error *err)
{
	struct kvm_vm *vm = kvm_vm_of(v->vm);
	memset(s, 0, sizeof *s);
	if (kvm_state_get(kvm_vcpu_of(v), KVM_PART_ALL, s, err) < 0)
		return -1;
	/* The vCPUs are asked one after the other; those that only differ by that have the same TSC. */
	if (vm->still_tsc && s->tsc - vm->still_tsc < KVM_TSC_SKEW)
		s->tsc = vm->still_tsc;
	return 0;
}

static int op_set_state(struct hv_vcpu *v, const struct x86_state *s, struct cai_error *err)
{
	uint64_t tsc = 0;
	if (kvm_state_set(kvm_vcpu_of(v), KVM_PART_ALL, s, err) < 0)
		return -1;
	/* A guest whose clock makes a jump is not the guest that was saved. One KVM that cannot set a TSC is only there for tests. */
	if (s->tsc && !(kvm_vm_of(v->vm)->quirks & KVM_QUIRK_PVM) && kvm_msr_get(kvm_vcpu_of(v), 0x10, &tsc) == 0 &&
	    tsc - s->tsc > 10 * KVM_TSC_SKEW)
		return cai_fail(err, ENOTSUP, "this host's KVM cannot set a guest's TSC");
	return 0;
}

static const struct x86_cpu_model *op_cpuid(struct hv_vm *hv)
{
	return &kvm_vm_of(hv)->cpuid;
}

static void op_stats(struct hv_vcpu *v, struct hv_stats *st)
{
	st->assists = atomic_load_explicit(&kvm_vcpu_of(v)->assists, memory_order_relaxed);
}

static const struct hv_ops kvm_ops = {
	.name = "kvm",
	.vm_destroy = vm_destroy,
	.irq_line = vm_irq_line,
	.irqfd = vm_irqfd,
	.ioeventfd = vm_ioeventfd,
	.vcpu_run = kvm_vcpu_run,
	.vcpu_kick = kvm_vcpu_kick,
	.get_state = op_get_state,
	.set_state = op_set_state,
	.cpuid = op_cpuid,
	.get_vm_state = kvm_vm_get_state,
	.set_vm_state = kvm_vm_set_state,
	.dirty_begin = kvm_dirty_begin,
	.dirty_fetch = kvm_dirty_fetch,
	.step = kvm_vcpu_step,
	.vcpu_stats = op_stats,
};

static void kick_signal(int sig)
{
	/* Its arrival is the message: it ends KVM_RUN with EINTR. */
}

/* The kick signal must have a handler, or it would end the process or do nothing. One that somebody else installed is left alone. */
static int install_kick_signal(struct cai_error *err)
{
	struct sigaction sa;
	if (sigaction(SIGRTMIN, NULL, &sa) == 0 && !(sa.sa_flags & SA_SIGINFO) &&
	    (sa.sa_handler == SIG_DFL || sa.sa_handler == SIG_IGN)) {
		memset(&sa, 0, sizeof sa);
		sa.sa_handler = kick_signal;
		sigemptyset(&sa.sa_mask);
		if (sigaction(SIGRTMIN, &sa, NULL) < 0)
			return cai_fail_errno(err, errno, "cannot install a signal handler");
	}
	return 0;
}

static int add_ram(struct kvm_vm *vm, struct cai_error *err)
{
	const struct mem *m = vm->hv.cfg.mem;
	for (unsigned i = 0; i < m->n_regions; i++) {
		struct kvm_userspace_memory_region r = {
			.slot = i,
			.guest_phys_addr = m->region[i].gpa,
			.memory_size = m->region[i].size,
			.userspace_addr = (uintptr_t)m->region[i].hva,
		};
		if (kvm_ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
			return cai_fail_errno(err, errno, "KVM does not accept %llu MiB of guest memory at 0x%llx",
					      (unsigned long long)r.memory_size >> 20,
					      (unsigned long long)r.guest_phys_addr);
	}
	return 0;
}

static int make_irqchip(struct kvm_vm *vm, struct cai_error *err)
{
	uint64_t identity = KVM_IDENTITY_GPA;
	/* Only Intel hardware looks at these two; a KVM without them is none of it. */
	if (kvm_ioctl(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 && errno != ENOTTY && errno != EINVAL)
		return cai_fail_errno(err, errno, "KVM does not accept the identity map's place");
	if (kvm_ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, (void *)KVM_TSS_GPA) < 0 && errno != ENOTTY && errno != EINVAL)
		return cai_fail_errno(err, errno, "KVM does not accept the task state segment's place");
	if (kvm_ioctl(vm->vm_fd, KVM_CREATE_IRQCHIP, NULL) < 0)
		return cai_fail_errno(err, errno, "KVM cannot make its interrupt controllers");

	cleanup_free struct kvm_irq_routing *rt =
		calloc(1, sizeof *rt + HV_N_GSI * sizeof(struct kvm_irq_routing_entry));
	if (!rt)
		return cai_fail(err, ENOMEM, "out of memory");
	rt->nr = HV_N_GSI;
	for (unsigned i = 0; i < HV_N_GSI; i++) {
		rt->entries[i].gsi = i;
		rt->entries[i].type = KVM_IRQ_ROUTING_IRQCHIP;
		rt->entries[i].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		rt->entries[i].u.irqchip.pin = i;
	}
	if (kvm_ioctl(vm->vm_fd, KVM_SET_GSI_ROUTING, rt) < 0)
		return cai_fail_errno(err, errno, "KVM does not accept the interrupt routing");
	return 0;
}

static const struct {
	int cap;
	const char *name;
} required[] = {
	{KVM_CAP_IRQCHIP, "interrupt controllers"},
	{KVM_CAP_USER_MEMORY, "user memory"},
	{KVM_CAP_IRQFD, "irqfd"},
	{KVM_CAP_IOEVENTFD, "ioeventfd"},
	{KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
	{KVM_CAP_EXT_CPUID, "CPUID"},
	{KVM_CAP_MP_STATE, "processor states"},
	{KVM_CAP_VCPU_EVENTS, "event state"},
};

int hv_kvm_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err)
{
	*out = NULL;
	if (cfg->n_vcpus < 1 || cfg->n_vcpus > HV_MAX_VCPUS)
		return cai_fail(err, EINVAL, "a microVM has 1 to %d CPUs, not %u", HV_MAX_VCPUS, cfg->n_vcpus);
	int api = kvm_ioctl(cfg->kvm_fd, KVM_GET_API_VERSION, NULL);
	if (api < 0)
		return cai_fail_errno(err, errno, "this is not KVM's device");
	if (api != KVM_API_VERSION)
		return cai_fail(err, 0, "KVM's API is version %d, needed is %d", api, KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_LEN(required); i++)
		if (kvm_ioctl(cfg->kvm_fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)required[i].cap) <= 0)
			return cai_fail(err, ENOTSUP, "this host's KVM does not offer %s", required[i].name);
	if (install_kick_signal(err) < 0)
		return -1;

	struct kvm_vm *vm = calloc(1, sizeof *vm);
	if (!vm)
		return cai_fail(err, ENOMEM, "out of memory");
	vm->hv.ops = &kvm_ops;
	vm->hv.cfg = *cfg;
	vm->quirks = kvm_quirks_detect();
	vm->has_xcrs = kvm_ioctl(cfg->kvm_fd, KVM_CHECK_EXTENSION, (void *)KVM_CAP_XCRS) > 0;
	vm->vm_fd = kvm_ioctl(cfg->kvm_fd, KVM_CREATE_VM, NULL);
	int size = kvm_ioctl(cfg->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (vm->vm_fd < 0 || size < (int)sizeof(struct kvm_run)) {
		cai_fail_errno(err, errno, "KVM cannot make a virtual machine");
		goto fail;
	}
	vm->run_size = (size_t)size;
	if (make_irqchip(vm, err) < 0 || add_ram(vm, err) < 0)
		goto fail;
	for (unsigned i = 0; i < cfg->n_vcpus; i++)
		if (kvm_vcpu_create(vm, i, err) < 0)
			goto fail;
	*out = &vm->hv;
	return 0;
fail:
	vm_destroy(&vm->hv);
	return -1;
}
