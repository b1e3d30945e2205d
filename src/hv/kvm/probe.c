/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a VM of 64 KiB with one vCPU is put into long mode by hand and started at one routine of probe_guest.S after
 * the other; each ends with a byte on a port. A KVM that stops on an instruction, faults where a CPU would not, or needs
 * longer than its time is thereby known to lack it. Last, a loop is timed, made longer until it takes a millisecond. A repeated
 * timer signal gets the thread out of KVM_RUN when the guest does not end.
 */
#include "hv/kvm/probe.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/util.h"
#include "hv/kvm/probe_guest.h"
#include "hv/kvm/pvm_quirks.h"

#define TEST_NS  60000000ull  /* for one routine */
#define TOTAL_NS 800000000ull /* for all of them */
#define TICK_NS  5000000
#define LOOP_NS  1000000    /* a timed loop that took this long tells the speed */

extern const uint8_t probe_guest_code[], probe_guest_code_end[], probe_guest_user[], probe_guest_user_end[];
extern const uint8_t probe_t_long_mode[], probe_t_popcnt[], probe_t_cmpxchg16b[], probe_t_stac[], probe_t_int3[],
	probe_t_fwait[], probe_t_fxsave[], probe_t_syscall[], probe_t_pio[], probe_t_mmio[], probe_t_paging[],
	probe_t_loop[];
extern const uint8_t probe_h_bp[], probe_h_pf[], probe_h_other[], probe_h_user_done[];

struct probe_vm {
	int vm_fd, vcpu_fd;
	uint8_t *ram;
	struct kvm_run *run;
	size_t run_size;
	uint64_t until; /* CLOCK_MONOTONIC at which the whole probe gives up */
};

static uint64_t code_gpa(const uint8_t *p)
{
	return PG_CODE + (uint64_t)(p - probe_guest_code);
}

static void __attribute__((format(printf, 3, 4))) say(struct kvm_probe *p, enum kvm_verdict v, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	p->verdict = v;
	vsnprintf(p->reason, sizeof p->reason, fmt, ap);
	va_end(ap);
}

static void put_gate(uint8_t *ram, unsigned vector, const uint8_t *handler, unsigned dpl)
{
	uint64_t a = code_gpa(handler);
	store_le64(ram + PG_IDT + 16 * vector,
		   (a & 0xffff) | 8ull << 16 | (0x8eull | dpl << 5) << 40 | (a >> 16 & 0xffff) << 48);
	store_le64(ram + PG_IDT + 16 * vector + 8, a >> 32);
}

static void fill_memory(uint8_t *ram)
{
	memcpy(ram + PG_CODE, probe_guest_code, (size_t)(probe_guest_code_end - probe_guest_code));
	memcpy(ram + PG_USER, probe_guest_user, (size_t)(probe_guest_user_end - probe_guest_user));
	store_le64(ram + PG_PML4, PG_PDPT | 7);
	store_le64(ram + PG_PDPT, PG_PD | 7);
	store_le64(ram + PG_PD, PG_PT | 7);
	for (unsigned i = 0; i < PG_SIZE >> 12; i++) {
		bool user = i == PG_USER >> 12 || i == (PG_USTACK - 1) >> 12;
		store_le64(ram + PG_PT + 8 * i, (uint64_t)i << 12 | (user ? 7 : 3));
	}
	store_le64(ram + PG_PDPT + 8 * (PG_MMIO >> 30), PG_MMIO_PD | 3);
	store_le64(ram + PG_MMIO_PD + 8 * (PG_MMIO >> 21 & 511), PG_MMIO | 0x83);
	for (unsigned v = 0; v < 32; v++)
		put_gate(ram, v, probe_h_other, 0);
	put_gate(ram, 3, probe_h_bp, 0);
	put_gate(ram, 14, probe_h_pf, 0);
	put_gate(ram, 0x40, probe_h_user_done, 3);
	store_le64(ram + PG_GDT + 0x08, 0x00AF9B000000FFFF);
	store_le64(ram + PG_GDT + 0x10, 0x00CF93000000FFFF);
	store_le64(ram + PG_GDT + 0x20, 0x00CFF3000000FFFF);
	store_le64(ram + PG_GDT + 0x28, 0x00AFFB000000FFFF);
	store_le64(ram + PG_TSS + 4, PG_KSTACK);
}

static int set_state(struct probe_vm *vm, const uint8_t *entry, uint64_t rcx)
{
	struct kvm_sregs s;
	if (ioctl(vm->vcpu_fd, KVM_GET_SREGS, &s) < 0)
		return -1;
	struct kvm_segment data = {.limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cs = (struct kvm_segment){.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
	s.tr = (struct kvm_segment){.base = PG_TSS, .limit = 103, .selector = 0x30, .type = 11, .present = 1};
	s.gdt = (struct kvm_dtable){.base = PG_GDT, .limit = 0x2f};
	s.idt = (struct kvm_dtable){.base = PG_IDT, .limit = 0x40 * 16 + 15};
	s.cr0 = 0x80050033;
	s.cr3 = PG_PML4;
	s.cr4 = 0x620; /* PAE, OSFXSR, OSXMMEXCPT */
	s.efer = 0xD01;
	struct kvm_regs r = {
		.rip = code_gpa(entry), .rsp = PG_STACK, .rflags = 2, .rcx = rcx,
	};
	struct kvm_fpu f = {.fcw = 0x37f, .mxcsr = 0x1f80};
	struct kvm_vcpu_events e = {0};
	if (ioctl(vm->vcpu_fd, KVM_SET_SREGS, &s) < 0 || ioctl(vm->vcpu_fd, KVM_SET_FPU, &f) < 0 ||
	    ioctl(vm->vcpu_fd, KVM_SET_REGS, &r) < 0)
		return -1;
	ioctl(vm->vcpu_fd, KVM_SET_VCPU_EVENTS, &e);
	return 0;
}

/* Runs one routine. 0: it ended well; -1: not. */
static int run_routine(struct probe_vm *vm, const uint8_t *entry, uint64_t rcx)
{
	uint64_t until = clock_mono_ns() + TEST_NS;
	struct kvm_run *run = vm->run;
	if (until > vm->until)
		until = vm->until;
	if (set_state(vm, entry, rcx) < 0)
		return -1;
	for (unsigned exits = 0; exits < 64; exits++) {
		while (ioctl(vm->vcpu_fd, KVM_RUN, NULL) < 0)
			if (errno != EINTR || clock_mono_ns() > until)
				return -1;
		if (run->exit_reason == KVM_EXIT_MMIO) {
			/* What was written must have been the magic number, and it reads as that. */
			uint32_t magic = PG_MAGIC;
			if (run->mmio.len != 4 || (run->mmio.is_write && memcmp(run->mmio.data, &magic, 4)))
				return -1;
			if (!run->mmio.is_write)
				memcpy(run->mmio.data, &magic, 4);
		} else if (run->exit_reason == KVM_EXIT_IO) {
			uint8_t *p = (uint8_t *)run + run->io.data_offset;
			if (run->io.port == PG_PORT_END)
				return *p == 0 ? 0 : -1;
			if (run->io.direction == KVM_EXIT_IO_IN && run->io.size == 4)
				store_le32(p, PG_MAGIC);
		} else {
			return -1; /* shutdown, internal error, anything else */
		}
	}
	return -1;
}

/* What the host's own CPU has; a guest cannot be blamed for the lack of it. */
enum { NEED_NOTHING, NEED_POPCNT, NEED_CX16, NEED_SMAP };
static bool host_has(unsigned need)
{
	unsigned a, b, c, d;
	switch (need) {
	case NEED_POPCNT:
		return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 23);
	case NEED_CX16:
		return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 13);
	case NEED_SMAP:
		return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 20);
	}
	return true;
}

static const struct {
	const char *name;
	const uint8_t *entry;
	unsigned need;
} routines[] = {
	{"long mode", probe_t_long_mode, NEED_NOTHING},
	{"port I/O", probe_t_pio, NEED_NOTHING},
	{"MMIO", probe_t_mmio, NEED_NOTHING},
	{"paging", probe_t_paging, NEED_NOTHING},
	{"POPCNT", probe_t_popcnt, NEED_POPCNT},
	{"CMPXCHG16B", probe_t_cmpxchg16b, NEED_CX16},
	{"STAC", probe_t_stac, NEED_SMAP},
	{"INT3", probe_t_int3, NEED_NOTHING},
	{"FWAIT", probe_t_fwait, NEED_NOTHING},
	{"FXSAVE", probe_t_fxsave, NEED_NOTHING},
	{"SYSCALL", probe_t_syscall, NEED_NOTHING},
};

/* Time that this thread has had a processor, in ns: unlike the wall's it stands still while a busy host runs something else. */
static uint64_t thread_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Million instructions a second in the guest: of runs that become longer until one is long enough for entry, exit and first touches not to
 * count, the fastest. Each length is tried three times, so that a disturbed run does not count. */
static uint64_t measure(struct probe_vm *vm)
{
	uint64_t best = 0, took = 0;
	for (uint64_t rounds = 2000; rounds <= 2000000000 && took < LOOP_NS; rounds *= 8) {
		took = UINT64_MAX;
		for (unsigned i = 0; i < 3; i++) {
			uint64_t t = thread_ns();
			if (run_routine(vm, probe_t_loop, rounds) < 0)
				return best ? best : 1; /* slower than a million a second, or it did not end */
			t = thread_ns() - t;
			took = t < took ? t : took;
		}
		uint64_t mips = rounds * 2 * 1000 / (took ? took : 1);
		best = mips > best ? mips : best;
	}
	return best ? best : 1;
}

static void run_all(struct probe_vm *vm, struct kvm_probe *p)
{
	for (size_t i = 0; i < ARRAY_LEN(routines); i++) {
		if (!host_has(routines[i].need))
			continue;
		if (run_routine(vm, routines[i].entry, 0) < 0 && p->n_missing < KVM_PROBE_MAX_MISSING)
			p->missing[p->n_missing++] = routines[i].name;
		if (i == 0 && p->n_missing)
			return; /* nothing else can work */
	}
	p->mips = measure(vm);
}

static void judge(struct kvm_probe *p)
{
	char list[160] = "";
	size_t n = 0;
	for (unsigned i = 0; i < p->n_missing && n < sizeof list; i++)
		n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", p->missing[i]);
	bool slow = p->mips < KVM_PROBE_MIN_MIPS;
	if (slow && p->n_missing)
		say(p, KVM_UNUSABLE, "this host's KVM interprets the guest kernel (%llu million instructions a second) and fails at %s",
		    (unsigned long long)p->mips, list);
	else if (slow)
		say(p, KVM_UNUSABLE, "this host's KVM interprets the guest kernel (%llu million instructions a second)",
		    (unsigned long long)p->mips);
	else if (p->n_missing)
		say(p, KVM_UNUSABLE, "this host's KVM fails at %s", list);
	else
		p->verdict = KVM_USABLE;
}

static void close_vm(struct probe_vm *vm)
{
	if (vm->run != MAP_FAILED)
		munmap(vm->run, vm->run_size);
	if (vm->vcpu_fd >= 0)
		close(vm->vcpu_fd);
	if (vm->vm_fd >= 0)
		close(vm->vm_fd);
	if (vm->ram != MAP_FAILED)
		munmap(vm->ram, PG_SIZE);
}

static int set_cpuid(int kvm, int vcpu_fd)
{
	const unsigned max = 256;
	cleanup_free struct kvm_cpuid2 *c = calloc(1, sizeof *c + max * sizeof(struct kvm_cpuid_entry2));
	if (!c)
		return -1;
	c->nent = max;
	return ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c) < 0 ? -1 : ioctl(vcpu_fd, KVM_SET_CPUID2, c);
}

/* Makes the VM. 0, or -1 with p filled. */
static int open_vm(struct probe_vm *vm, int kvm, struct kvm_probe *p)
{
	uint64_t identity = 0xFFFBC000;
	const char *what = "make a virtual machine";
	*vm = (struct probe_vm){.vm_fd = -1, .vcpu_fd = -1, .ram = MAP_FAILED, .run = MAP_FAILED};
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	vm->vm_fd = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm->vm_fd < 0 || size < (int)sizeof(struct kvm_run))
		goto fail;
	ioctl(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, 0xFFFBD000ul);
	what = "make a CPU";
	vm->run_size = (size_t)size;
	vm->vcpu_fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, 0);
	if (vm->vcpu_fd < 0)
		goto fail;
	vm->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu_fd, 0);
	vm->ram = mmap(NULL, PG_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm->run == MAP_FAILED || vm->ram == MAP_FAILED)
		goto fail;
	what = "give a guest memory";
	fill_memory(vm->ram);
	struct kvm_userspace_memory_region r = {.memory_size = PG_SIZE, .userspace_addr = (uintptr_t)vm->ram};
	if (ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
		goto fail;
	what = "tell a guest its CPU model";
	if (set_cpuid(kvm, vm->vcpu_fd) < 0)
		goto fail;
	return 0;
fail:
	say(p, KVM_UNUSABLE, "this host's KVM cannot %s: %s", what, strerror(errno));
	return -1;
}

static void tick(int sig)
{
	/* Its arrival ends KVM_RUN. */
}

/* Runs the guest with the timer signal in place. */
static void with_timer(struct probe_vm *vm, struct kvm_probe *p)
{
	struct sigaction sa = {.sa_handler = tick}, old;
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
	struct itimerspec every = {.it_value.tv_nsec = TICK_NS, .it_interval.tv_nsec = TICK_NS};
	sigset_t unblock, old_mask;
	timer_t timer;
	ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	sigemptyset(&sa.sa_mask);
	sigemptyset(&unblock);
	sigaddset(&unblock, SIGRTMIN);
	if (timer_create(CLOCK_MONOTONIC, &ev, &timer) < 0) {
		say(p, KVM_UNUSABLE, "KVM was not tried, because a timer cannot be made: %s", strerror(errno));
		return;
	}
	sigaction(SIGRTMIN, &sa, &old);
	pthread_sigmask(SIG_UNBLOCK, &unblock, &old_mask);
	timer_settime(timer, 0, &every, NULL);
	run_all(vm, p);
	timer_delete(timer);
	/* A tick may still be on its way to this thread: let it arrive while the handler is there. */
	pthread_sigmask(SIG_SETMASK, &old_mask, NULL);
	sigaction(SIGRTMIN, &old, NULL);
	judge(p);
}

static void probe(int fd, struct kvm_probe *p)
{
	struct probe_vm vm;
	cleanup_close int own = -1;
	if (fd < 0) {
		fd = own = open("/dev/kvm", O_RDWR | O_CLOEXEC);
		if (own < 0 && (errno == EACCES || errno == EPERM)) {
			say(p, KVM_NO_PERMISSION, "/dev/kvm is there, but this user may not open it (usually: join the group kvm)");
			return;
		}
		if (own < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO)) {
			say(p, KVM_ABSENT, errno == ENOENT ? "there is no /dev/kvm on this host"
							   : "/dev/kvm has no driver behind it");
			return;
		}
		if (own < 0) {
			say(p, KVM_UNUSABLE, "/dev/kvm cannot be opened: %s", strerror(errno));
			return;
		}
	}
	p->api = ioctl(fd, KVM_GET_API_VERSION, NULL);
	if (p->api != KVM_API_VERSION) {
		p->api = p->api < 0 ? 0 : p->api;
		say(p, KVM_UNUSABLE, p->api ? "this host's KVM has an API that is not version 12"
					    : "/dev/kvm is not KVM's device");
		return;
	}
	if (open_vm(&vm, fd, p) == 0) {
		vm.until = clock_mono_ns() + TOTAL_NS;
		with_timer(&vm, p);
		p->boundary = kvm_quirks_detect() ? KVM_BOUNDARY_HYPERVISOR : KVM_BOUNDARY_HARDWARE;
	}
	close_vm(&vm);
}

void kvm_probe_run(int fd, struct kvm_probe *out)
{
	uint64_t t = clock_mono_ns();
	*out = (struct kvm_probe){.verdict = KVM_UNUSABLE, .cmdline = ""};
	probe(fd, out);
	if (out->boundary != KVM_BOUNDARY_NONE)
		out->cmdline = kvm_quirks_cmdline(kvm_quirks_detect());
	out->ns = clock_mono_ns() - t;
}

struct json {
	char *p;
	size_t size, n;
};

static void __attribute__((format(printf, 2, 3))) put(struct json *j, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int r = vsnprintf(j->n < j->size ? j->p + j->n : NULL, j->n < j->size ? j->size - j->n : 0, fmt, ap);
	va_end(ap);
	j->n += r > 0 ? (size_t)r : 0;
}

static void put_string(struct json *j, const char *s)
{
	put(j, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			put(j, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			put(j, "\\u%04x", (unsigned char)*s);
		else
			put(j, "%c", *s);
	}
	put(j, "\"");
}

int kvm_probe_json(const struct kvm_probe *p, char *buf, size_t size)
{
	static const char *const verdict[] = {
		[KVM_ABSENT] = "absent",
		[KVM_NO_PERMISSION] = "no-permission",
		[KVM_UNUSABLE] = "unusable",
		[KVM_USABLE] = "usable",
	};
	static const char *const boundary[] = {
		[KVM_BOUNDARY_NONE] = "none",
		[KVM_BOUNDARY_HYPERVISOR] = "hypervisor",
		[KVM_BOUNDARY_HARDWARE] = "hardware",
	};
	struct json j = {.p = buf, .size = size};
	put(&j, "{\"kvm\":\"%s\",\"reason\":", verdict[p->verdict]);
	put_string(&j, p->reason);
	put(&j, ",\"boundary\":\"%s\",\"mips\":%llu,\"ns\":%llu,\"api\":%d,\"missing\":[", boundary[p->boundary],
	    (unsigned long long)p->mips, (unsigned long long)p->ns, p->api);
	for (unsigned i = 0; i < p->n_missing; i++) {
		put(&j, "%s", i ? "," : "");
		put_string(&j, p->missing[i]);
	}
	put(&j, "],\"cmdline\":");
	put_string(&j, p->cmdline);
	put(&j, "}");
	return j.n < size ? (int)j.n : -1;
}
