/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a vCPU on KVM.
 *
 * Theory of operation: kvm_vcpu_run() enters the guest until there is something to tell the monitor. Device accesses are answered
 * through the monitor's bus in between. KVM completes the instruction behind a device access at the beginning of the next
 * KVM_RUN, so before this function returns it enters once more with immediate_exit set, which completes the instruction and
 * executes no other. INIT and SIPI, HLT and interrupts are the kernel's business (its own local APICs).
 *
 * A kick sets `kicked`, then run->immediate_exit, then sends SIGRTMIN to the thread, in this order: whichever of "before KVM_RUN",
 * "on the way in" and "inside" the vCPU is at, one of the three ends the run. The signal needs a handler (vm.c) and must not be
 * blocked on the vCPU's thread: that is seen to on the first run of each thread.
 *
 * What a vCPU thread asks of the kernel once the VM is made (for the jail's allow-list):
 *
 *   call             arguments                                       when
 *   ioctl            KVM_RUN on the vCPU                             always
 *   ioctl            KVM_GET/SET_REGS, _SREGS, _XSAVE, _XCRS, _MSRS,   state saved or loaded; SREGS, REGS also in texts of failures,
 *                    _LAPIC, _MP_STATE, _VCPU_EVENTS, _DEBUGREGS     and all but LAPIC in the assist
 *   ioctl            KVM_TRANSLATE, KVM_SET_GUEST_DEBUG              failures, the assist, single steps, quirks
 *   ioctl            KVM_IRQ_LINE on the VM                          devices that interrupt without irqfd; any thread
 *   rt_sigprocmask   SIG_UNBLOCK SIGRTMIN                            first run of a thread
 *   rt_sigreturn     -                                               after a kick
 *   tgkill, getpid   own process, SIGRTMIN                           kicks; any thread
 *   futex            process-private                                 kicks that meet
 *   mmap, munmap     anonymous                                       the assist's first use (one struct x86_cpu)
 *
 * KVM_IRQFD and KVM_IOEVENTFD are used only before the guest runs, as is everything in vm.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "hv/kvm/kvm_int.h"

int kvm_vcpu_create(struct kvm_vm *vm, unsigned index, struct cai_error *err)
{
	struct kvm_vcpu *v = calloc(1, sizeof *v);
	if (!v)
		return cai_fail(err, ENOMEM, "out of memory");
	v->hv.vm = &vm->hv;
	v->hv.index = index;
	v->run = MAP_FAILED;
	pthread_mutex_init(&v->lock, NULL);
	vm->hv.vcpu[index] = &v->hv;
	v->fd = kvm_ioctl(vm->vm_fd, KVM_CREATE_VCPU, (void *)(uintptr_t)index);
	if (v->fd < 0)
		return cai_fail_errno(err, errno, "KVM cannot make CPU %u", index);
	v->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED)
		return cai_fail_errno(err, errno, "cannot map CPU %u of KVM", index);
	if (kvm_set_cpuid(vm, v, err) < 0)
		return -1;
	return kvm_quirks_vcpu_init(v, err);
}

void kvm_vcpu_destroy(struct kvm_vcpu *v)
{
	kvm_assist_free(v);
	if (v->run != MAP_FAILED)
		munmap(v->run, kvm_vm_of(v->hv.vm)->run_size);
	if (v->fd >= 0)
		close(v->fd);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

void kvm_vcpu_kick(struct hv_vcpu *hv)
{
	struct kvm_vcpu *v = kvm_vcpu_of(hv);
	atomic_store(&v->kicked, true);
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&v->lock);
	if (v->running)
		pthread_kill(v->thread, SIGRTMIN);
	pthread_mutex_unlock(&v->lock);
}

/* True when a kick was asked for; takes it. */
static bool take_kick(struct kvm_vcpu *v)
{
	/* Cleared first: a kick that comes in between sets it again, and at worst one KVM_RUN returns for nothing. */
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	return atomic_exchange(&v->kicked, false);
}

void kvm_bus_mmio(struct hv_vm *vm, uint64_t gpa, uint8_t *data, unsigned len, bool is_write)
{
	const struct hv_bus *b = &vm->cfg.bus;
	/* KVM hands over the pieces of an access that crosses pages, which may be 3, 5, 6 or 7 bytes long. */
	while (len) {
		unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
		if ((!b->mmio || !b->mmio(b->ctx, gpa, data, n, is_write)) && !is_write)
			memset(data, 0xff, n);
		gpa += n;
		data += n;
		len -= n;
	}
}

void kvm_bus_pio(struct hv_vm *vm, uint16_t port, uint8_t *data, unsigned len, bool is_write)
{
	const struct hv_bus *b = &vm->cfg.bus;
	if ((!b->pio || !b->pio(b->ctx, port, data, len, is_write)) && !is_write)
		memset(data, 0xff, len);
}

static void do_pio(struct kvm_vcpu *v)
{
	struct kvm_run *run = v->run;
	unsigned size = run->io.size, count = run->io.count;
	uint64_t off = run->io.data_offset;
	/* The kernel is trusted, but this page is shared with it and cheap to check. */
	if (size > 4 || off > kvm_vm_of(v->hv.vm)->run_size ||
	    (uint64_t)size * count > kvm_vm_of(v->hv.vm)->run_size - off)
		return;
	uint8_t *p = (uint8_t *)run + off;
	for (; count; count--, p += size)
		kvm_bus_pio(v->hv.vm, run->io.port, p, size, run->io.direction == KVM_EXIT_IO_OUT);
}

/* Appends what a reader of a failure needs: where the CPU was, and on what instruction. */
static void describe_cpu(struct kvm_vcpu *v, char *text, size_t size)
{
	struct kvm_regs r;
	struct kvm_sregs s;
	uint8_t b[15];
	size_t n = strlen(text);
	if (kvm_ioctl(v->fd, KVM_GET_REGS, &r) < 0 || kvm_ioctl(v->fd, KVM_GET_SREGS, &s) < 0)
		return;
	/* After a shutdown on AMD's hardware KVM has reset the CPU already: its registers tell nothing. */
	if (r.rip == 0xfff0 && s.cs.selector == 0xf000)
		return;
	n += (size_t)snprintf(text + n, size - n,
			      " (CPU %u, RIP 0x%llx, RSP 0x%llx, CS 0x%x, CR0 0x%llx, CR2 0x%llx, CR3 0x%llx, bytes",
			      v->hv.index, r.rip, r.rsp, s.cs.selector, s.cr0, s.cr2, s.cr3);
	if (n >= size)
		return;
	unsigned got = kvm_peek(v, s.cs.base + r.rip, b, sizeof b);
	for (unsigned i = 0; i < got && n + 4 < size; i++)
		n += (size_t)snprintf(text + n, size - n, " %02x", b[i]);
	snprintf(text + n, size - n, got ? ")" : " unreadable)");
}

static int failed(struct kvm_vcpu *v, struct hv_exit *exit, const char *what)
{
	exit->reason = HV_EXIT_FAILED;
	snprintf(exit->text, sizeof exit->text, "%s", what);
	describe_cpu(v, exit->text, sizeof exit->text);
	return 0;
}

static int shutdown(struct kvm_vcpu *v, struct hv_exit *exit)
{
	exit->reason = HV_EXIT_SHUTDOWN;
	snprintf(exit->text, sizeof exit->text, "the guest's processor shut down (triple fault)");
	describe_cpu(v, exit->text, sizeof exit->text);
	return 0;
}

static int internal_error(struct kvm_vcpu *v, struct hv_exit *exit, bool *resume)
{
	const char *why = NULL;
	char what[120];
	switch (v->run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		switch (kvm_assist(v, &why)) {
		case 0:
			*resume = true;
			return 0;
		case KVM_ASSIST_SHUTDOWN:
			return shutdown(v, exit);
		}
		snprintf(what, sizeof what, "neither KVM nor the instruction assist can execute an instruction: %s", why);
		break;
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		snprintf(what, sizeof what, "KVM met two exceptions at once");
		break;
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		snprintf(what, sizeof what, "KVM could not deliver an event to the guest");
		break;
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		snprintf(what, sizeof what, "the processor left the guest for an unknown reason");
		break;
	default:
		snprintf(what, sizeof what, "KVM reports internal error %u", v->run->internal.suberror);
	}
	return failed(v, exit, what);
}

static int handle_exit(struct kvm_vcpu *v, struct hv_exit *exit, bool *resume)
{
	struct kvm_run *run = v->run;
	char what[160];
	const char *why;
	*resume = false;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		v->io_pending = true;
		do_pio(v);
		*resume = true;
		return 0;
	case KVM_EXIT_MMIO:
		v->io_pending = true;
		if (run->mmio.len <= 8)
			kvm_bus_mmio(v->hv.vm, run->mmio.phys_addr, run->mmio.data, run->mmio.len, run->mmio.is_write);
		*resume = true;
		return 0;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_INTR:
	case KVM_EXIT_HLT: /* only without the kernel's interrupt controllers; running on is harmless */
		*resume = true;
		return 0;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		v->io_pending = true;
		kvm_quirks_msr(v);
		*resume = true;
		return 0;
	case KVM_EXIT_SHUTDOWN:
		return shutdown(v, exit);
	case KVM_EXIT_SYSTEM_EVENT:
		exit->reason = HV_EXIT_SHUTDOWN;
		snprintf(exit->text, sizeof exit->text, "KVM reports a system event of type %u",
			 run->system_event.type);
		return 0;
	case KVM_EXIT_DEBUG:
		switch (kvm_quirks_debug(v, &why)) {
		case KVM_QUIRK_DONE:
			*resume = true;
			return 0;
		case KVM_QUIRK_FAILED:
			snprintf(what, sizeof what, "a page fault cannot be passed on: %s", why);
			return failed(v, exit, what);
		case KVM_QUIRK_NOT_OURS:
			break;
		}
		exit->reason = HV_EXIT_DEBUG;
		return 0;
	case KVM_EXIT_INTERNAL_ERROR:
		return internal_error(v, exit, resume);
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(what, sizeof what, "the processor refused to enter the guest (hardware reason 0x%llx)",
			 run->fail_entry.hardware_entry_failure_reason);
		return failed(v, exit, what);
	case KVM_EXIT_UNKNOWN:
		snprintf(what, sizeof what, "KVM left the guest for an unknown hardware reason 0x%llx",
			 run->hw.hardware_exit_reason);
		return failed(v, exit, what);
	default:
		snprintf(what, sizeof what, "KVM left the guest for reason %u, which is not handled", run->exit_reason);
		return failed(v, exit, what);
	}
}

/* KVM_RUN itself failed. */
static int run_failed(struct kvm_vcpu *v, struct hv_exit *exit, int e)
{
	char what[160];
	if (e == EIO || e == ENODEV || e == EBADF || e == ENXIO || e == EPERM)
		snprintf(what, sizeof what, "lost accelerator: KVM does not run this machine any more: %s", strerror(e));
	else if (e == EFAULT)
		snprintf(what, sizeof what, "KVM met a page of guest memory that the host cannot provide");
	else if (e == ENOMEM)
		snprintf(what, sizeof what, "the host has no memory left for KVM");
	else
		snprintf(what, sizeof what, "KVM cannot run the guest: %s", strerror(e));
	return failed(v, exit, what);
}

/* Completes the instruction behind the last device access. Returns 0, or -1 with *exit filled. */
static int complete_io(struct kvm_vcpu *v, struct hv_exit *exit)
{
	/* A read-modify-write or a string instruction may ask for a further access; a few at most belong to one instruction that
	 * KVM restarts at its boundary. */
	while (v->io_pending) {
		bool resume;
		v->io_pending = false;
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		if (ioctl(v->fd, KVM_RUN, NULL) < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			run_failed(v, exit, errno);
			return -1;
		}
		handle_exit(v, exit, &resume);
		if (!resume)
			return -1;
	}
	return 0;
}

static int run_loop(struct kvm_vcpu *v, struct hv_exit *exit)
{
	for (;;) {
		bool resume;
		if (take_kick(v)) {
			if (complete_io(v, exit) < 0)
				return 0;
			__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
			/* A kick between the two stores has its flag set; the next run returns at once then. */
			if (atomic_load(&v->kicked))
				__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
			exit->reason = HV_EXIT_KICKED;
			return 0;
		}
		v->io_pending = false;
		if (ioctl(v->fd, KVM_RUN, NULL) < 0) {
			/* EAGAIN: a vCPU that waits for its SIPI was woken by something else. */
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return run_failed(v, exit, errno);
		}
		handle_exit(v, exit, &resume);
		if (!resume)
			return 0;
	}
}

int kvm_vcpu_run(struct hv_vcpu *hv, struct hv_exit *exit)
{
	struct kvm_vcpu *v = kvm_vcpu_of(hv);
	exit->text[0] = 0;
	pthread_mutex_lock(&v->lock);
	v->thread = pthread_self();
	v->running = true;
	pthread_mutex_unlock(&v->lock);
	if (!v->unblocked || !pthread_equal(v->unblocked_thread, pthread_self())) {
		sigset_t set;
		sigemptyset(&set);
		sigaddset(&set, SIGRTMIN);
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		v->unblocked = true;
		v->unblocked_thread = pthread_self();
	}
	int r = run_loop(v, exit);
	pthread_mutex_lock(&v->lock);
	v->running = false;
	pthread_mutex_unlock(&v->lock);
	return r;
}

int kvm_vcpu_step(struct hv_vcpu *hv, bool on)
{
	return kvm_quirks_guest_debug(kvm_vcpu_of(hv), on);
}
