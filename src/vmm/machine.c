/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * The parts find each other here and nowhere else: devices get a bus window and an interrupt line, the accelerator gets the two
 * buses as callbacks. Device accesses run on vCPU threads; what comes from outside (console input, vsock streams, KVM's
 * doorbells) runs on the loop. A pause stops the first by parking vCPUs and the second by no longer looking at the nested
 * device loop, so nothing moves in a paused guest.
 *
 * With KVM a queue notification is an ioeventfd, an interrupt an irqfd: neither leaves the kernel on the vCPU's thread. The
 * software CPU shares our address space, so plain calls are the quickest there.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <linux/kvm.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "boot/kernel.h"
#include "dev/acpi.h"
#include "virtio/mmio.h"
#include "vmm/config.h"
#include "vmm/restore.h"

#define SOFT_TSC_KHZ  1000000u /* the software CPU counts nanoseconds */
#define PAUSE_MS      10000u
#define DRAIN_MS      500u     /* for requests to the servers of shared directories; those not answered by then are lost to a snapshot */
#define MIN_MAX_FILE  GIB(1)   /* room for a console log */

static bool on_mmio(void *ctx, uint64_t gpa, void *data, unsigned len, bool is_write)
{
	struct machine *m = ctx;
	return bus_access(&m->mmio, gpa, data, len, is_write);
}

static bool on_pio(void *ctx, uint16_t port, void *data, unsigned len, bool is_write)
{
	struct machine *m = ctx;
	return bus_access(&m->pio, port, data, len, is_write);
}

static void set_irq(void *ctx, unsigned gsi, bool level)
{
	struct machine *m = ctx;
	hv_irq_line(m->vm, gsi, level);
}

static struct irq_line line(struct machine *m, unsigned gsi)
{
	return (struct irq_line){.set = set_irq, .ctx = m, .gsi = gsi};
}

void machine_end(struct machine *m, enum control_end reason, const char *fmt, ...)
{
	char text[480];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!ending_set(&m->ending, reason, "%s", text))
		return;
	if (m->vcpus_made)
		vcpus_halt(&m->vcpus);
	if (m->hooks.ended)
		m->hooks.ended(m->hooks.ctx);
}

/* A guest that resets or switches itself off after a panic ended by the panic. */
static void end_of_guest(struct machine *m, enum control_end reason, const char *otherwise)
{
	cleanup_free char *tail = console_tail(&m->console);
	char why[320];
	if (tail && ending_find_panic(tail, false, why, sizeof(why)))
		machine_end(m, CONTROL_END_PANIC, "%s", why);
	else
		machine_end(m, reason, "%s", otherwise);
}

static void on_reset(void *ctx, enum reset_kind kind)
{
	if (kind == RESET_POWEROFF)
		machine_end(ctx, CONTROL_END_POWEROFF, "the guest powered off");
	else
		end_of_guest(ctx, CONTROL_END_RESET, "the guest asked for a reset");
}

static void on_panicked(void *ctx)
{
	end_of_guest(ctx, CONTROL_END_PANIC, "its console shows no reason");
}

static void on_vcpu_exit(void *ctx, unsigned index, const struct hv_exit *e)
{
	struct machine *m = ctx;
	switch (e->reason) {
	case HV_EXIT_SHUTDOWN:
		if (strstr(e->text, "triple fault"))
			machine_end(m, CONTROL_END_TRIPLE_FAULT, "%s", e->text);
		else
			machine_end(m, CONTROL_END_TRIPLE_FAULT, "vCPU %u met a triple fault%s%s", index, e->text[0] ? ": " : "",
				    e->text);
		break;
	case HV_EXIT_STOP:
		/* A device callback stopped it and has said why; this is for one that has not. */
		machine_end(m, CONTROL_END_INTERNAL, "vCPU %u was stopped without a reason", index);
		break;
	case HV_EXIT_DEBUG:
		machine_end(m, CONTROL_END_INTERNAL, "vCPU %u stopped for a debugger, and there is none", index);
		break;
	default:
		machine_end(m, CONTROL_END_ACCEL_LOST, "vCPU %u cannot go on: %s", index,
			    e->text[0] ? e->text : "it gave no reason");
	}
}

/* A kernel told to hang after a panic, without pvpanic, shows only by its last line. */
static void look_for_panic(struct machine *m)
{
	cleanup_free char *tail = console_tail(&m->console);
	char why[320];
	if (tail && ending_find_panic(tail, true, why, sizeof(why)))
		machine_end(m, CONTROL_END_PANIC, "%s", why);
}

static void on_dev_wake(void *ctx)
{
	struct machine *m = ctx;
	console_on_wake(&m->console);
}

static void on_console_output(void *ctx)
{
	look_for_panic(ctx);
}

static void on_ready(void *ctx)
{
	struct machine *m = ctx;
	if (m->hooks.ready)
		m->hooks.ready(m->hooks.ctx);
}

static void on_dev_events(void *ctx, uint32_t events)
{
	struct machine *m = ctx;
	struct cai_error err;
	if (loop_poll(m->dev_loop, &err) < 0)
		machine_end(m, CONTROL_END_INTERNAL, "%s", err.text);
}

static int make_loop(struct machine *m, struct loop *outer, struct cai_error *err)
{
	m->outer = outer;
	m->dev_loop = loop_new(err);
	if (!m->dev_loop)
		return -1;
	m->dev_source = loop_add_fd(outer, loop_fd(m->dev_loop), EPOLLIN, on_dev_events, m, err);
	loop_on_wake(m->dev_loop, on_dev_wake, m);
	return m->dev_source ? 0 : -1;
}

/* The frequency that KVM gives its guests' TSC. 0 where it cannot say. */
static uint32_t kvm_tsc_khz(int kvm_fd)
{
	cleanup_close int vm = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	if (vm < 0)
		return 0;
	int khz = ioctl(vm, KVM_GET_TSC_KHZ, 0);
	if (khz > 0)
		return (uint32_t)khz;
	cleanup_close int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	khz = vcpu < 0 ? 0 : ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
	return khz > 0 ? (uint32_t)khz : 0;
}

static int make_vm(struct machine *m, struct cai_error *err)
{
	const struct control_config *c = &m->cfg;
	bool kvm = c->accel == CONTROL_ACCEL_KVM;
	uint32_t khz = kvm ? kvm_tsc_khz(c->fd[CONTROL_FD_KVM]) : SOFT_TSC_KHZ;
	if ((m->restore ? restore_memory(m, err) : mem_create(&m->mem, c->mem_bytes, err)) < 0)
		return -1;
	if (x86_cpu_model_init(&m->model, c->cpu_model, khz, c->vcpus) < 0)
		return cai_fail(err, EINVAL, "there is no CPU model \"%.15s\"", c->cpu_model);
	struct hv_config h = {
		.mem = &m->mem,
		.n_vcpus = c->vcpus,
		.model = &m->model,
		.bus = {.ctx = m, .mmio = on_mmio, .pio = on_pio},
		.code_cache_bytes = c->code_cache_bytes,
		.kvm_fd = c->fd[CONTROL_FD_KVM],
	};
	if ((kvm ? hv_kvm_create : hv_soft_create)(&h, &m->vm, err) < 0)
		return cai_wrap(err, "the accelerator %s does not start", kvm ? "kvm" : "soft");
	return 0;
}

static int make_platform(struct machine *m, struct cai_error *err)
{
	if (console_init(&m->console, m->dev_loop, m->cfg.fd[CONTROL_FD_CONSOLE], m->cfg.fd[CONTROL_FD_CONSOLE_IN], err) < 0)
		return -1;
	m->console.written = on_console_output;
	m->console.ctx = m;
	struct serial_config sc = {
		.irq = line(m, LAYOUT_COM1_GSI), .wake = console_wake, .space = console_space, .ctx = &m->console};
	m->serial = serial_new(&sc);
	if (!m->serial)
		return cai_fail(err, ENOMEM, "out of memory");
	m->console.serial = m->serial;
	m->reset = (struct reset_dev){.ended = on_reset, .ctx = m};
	m->pvpanic = (struct pvpanic){.panicked = on_panicked, .ctx = m};
	if (bus_add(&m->pio, LAYOUT_COM1_PORT, SERIAL_PORTS, serial_access, m->serial) < 0 || reset_attach(&m->reset, &m->pio) < 0 ||
	    pvpanic_attach(&m->pvpanic, &m->pio) < 0)
		return cai_fail(err, 0, "two devices claim the same port");
	return 0;
}

static void on_doorbell(void *ctx, uint32_t events)
{
	struct machine_doorbell *d = ctx;
	uint64_t n;
	if (read(d->fd, &n, sizeof(n)) != (ssize_t)sizeof(n))
		return;
	/* A queue that is being fed all the time gets its turns among the loop's other sources. */
	if (virtio_dev_process(d->dev, d->queue)) {
		n = 1;
		if (write(d->fd, &n, sizeof(n)) < 0)
			return; /* full: the doorbell is ringing already */
	}
}

/* One queue's notifications without an exit. Where the kernel is out of room for them, the exit does. */
static int add_doorbell(struct machine *m, struct virtio_dev *dev, unsigned queue, uint64_t base, struct cai_error *err)
{
	if (m->n_doorbells == MACHINE_MAX_DOORBELLS)
		return 0;
	cleanup_close int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot make an eventfd");
	if (hv_ioeventfd(m->vm, base + VIRTIO_MMIO_NOTIFY, 4, queue, fd, NULL) < 0)
		return 0;
	struct machine_doorbell *d = &m->doorbell[m->n_doorbells];
	*d = (struct machine_doorbell){.dev = dev, .queue = queue, .fd = fd};
	d->source = loop_add_fd(m->dev_loop, fd, EPOLLIN, on_doorbell, d, err);
	if (!d->source)
		return -1;
	m->n_doorbells++;
	steal_fd(&fd);
	return 0;
}

static int connect_kvm(struct machine *m, struct virtio_dev *dev, unsigned slot, uint64_t base, struct cai_error *err)
{
	cleanup_close int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot make an eventfd");
	if (hv_irqfd(m->vm, LAYOUT_VIRTIO_GSI + slot, fd, err) < 0)
		return -1;
	virtio_dev_set_irqfd(dev, fd);
	m->irqfd[slot] = steal_fd(&fd);
	for (unsigned q = 0; q < dev->ops->n_queues; q++)
		if (dev->ops->queue_size[q] && add_doorbell(m, dev, q, base, err) < 0)
			return -1;
	return 0;
}

static struct irq_line next_line(struct machine *m)
{
	return line(m, LAYOUT_VIRTIO_GSI + m->n_slots);
}

/* Puts a device into the next free slot. */
static int plug(struct machine *m, struct virtio_dev *dev, struct cai_error *err)
{
	unsigned slot = m->n_slots++;
	uint64_t base = LAYOUT_VIRTIO_BASE + (uint64_t)slot * LAYOUT_VIRTIO_SIZE;
	m->slot[slot] = dev;
	if (bus_add(&m->mmio, base, LAYOUT_VIRTIO_SIZE, virtio_mmio_access, dev) < 0)
		return cai_fail(err, 0, "two devices claim the same address");
	return m->cfg.accel == CONTROL_ACCEL_KVM ? connect_kvm(m, dev, slot, base, err) : 0;
}

static int make_disks(struct machine *m, struct cai_error *err)
{
	for (unsigned i = 0; i < m->cfg.n_disks; i++) {
		bool ro = m->cfg.disk[i].flags & CONTROL_DISK_READONLY;
		struct stat st;
		if (fstat(m->cfg.disk_fd[i], &st) == 0 && S_ISREG(st.st_mode))
			m->disk_bytes[i] = (uint64_t)st.st_size;
		m->blk[i] = virtio_blk_create(&m->mem, next_line(m), m->cfg.disk_fd[i], ro, m->cfg.disk[i].id, err);
		if (!m->blk[i])
			return cai_wrap(err, "disk %u", i + 1);
		m->cfg.disk_fd[i] = -1;
		if (plug(m, virtio_blk_dev(m->blk[i]), err) < 0)
			return -1;
	}
	return 0;
}

static int make_net(struct machine *m, unsigned i, struct cai_error *err)
{
	static const enum virtio_net_kind kinds[] = {
		[CONTROL_NET_TAP] = NET_TAP, [CONTROL_NET_STREAM] = NET_STREAM, [CONTROL_NET_DGRAM] = NET_DGRAM};
	const struct control_net *c = &m->cfg.net[i];
	struct virtio_net_options opt = {
		.mtu = c->mtu,
		.max_pairs = c->n_pairs ? c->n_pairs : c->n_fds ? c->n_fds : 1,
		.offloads = c->offloads,
	};
	memcpy(opt.mac, c->mac, sizeof(opt.mac));
	m->net[i] = virtio_net_create(&m->mem, next_line(m), m->dev_loop, &opt, err);
	if (!m->net[i])
		return -1;
	if (c->n_fds) {
		if (virtio_net_attach(m->net[i], kinds[c->kind], m->cfg.net_fd[i], c->n_fds, err) < 0)
			return -1;
		for (unsigned k = 0; k < c->n_fds; k++)
			m->cfg.net_fd[i][k] = -1; /* the device's now */
	}
	return plug(m, virtio_net_dev(m->net[i]), err);
}

static int make_fs(struct machine *m, unsigned i, struct cai_error *err)
{
	/* As much as the host allows: a large request should not go in pieces. */
	int bytes = 1 << 20;
	setsockopt(m->cfg.fs_fd[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	m->fs[i] = virtio_fs_create(&m->mem, next_line(m), m->dev_loop, m->cfg.fs_fd[i], m->cfg.fs[i].tag, err);
	if (!m->fs[i])
		return -1;
	m->cfg.fs_fd[i] = -1; /* the device's now */
	return plug(m, virtio_fs_dev(m->fs[i]), err);
}

/* The order of slots is the guest's order of devices, and stable: what comes later in it never moves what is there. */
static int make_virtio(struct machine *m, struct cai_error *err)
{
	int *fd = m->cfg.fd;
	m->vsock = virtio_vsock_create(&m->mem, next_line(m), m->dev_loop, fd[CONTROL_FD_VSOCK], on_ready, m, err);
	if (!m->vsock)
		return -1;
	fd[CONTROL_FD_VSOCK] = -1; /* the device's now */
	if (plug(m, virtio_vsock_dev(m->vsock), err) < 0)
		return -1;
	m->rng = virtio_rng_create(&m->mem, next_line(m), err);
	if (!m->rng || plug(m, virtio_rng_dev(m->rng), err) < 0)
		return -1;
	m->balloon = virtio_balloon_create(&m->mem, next_line(m), err);
	if (!m->balloon || plug(m, virtio_balloon_dev(m->balloon), err) < 0)
		return -1;
	if (make_disks(m, err) < 0)
		return -1;
	for (unsigned i = 0; i < m->cfg.n_nets; i++)
		if (make_net(m, i, err) < 0)
			return cai_wrap(err, "network %u", i + 1);
	for (unsigned i = 0; i < m->cfg.n_fs; i++)
		if (make_fs(m, i, err) < 0)
			return cai_wrap(err, "shared directory %u", i + 1);
	return 0;
}

static int load(struct machine *m, struct cai_error *err)
{
	if (m->restore)
		return restore_load(m, err);
	struct acpi_config ac = {.n_vcpus = m->cfg.vcpus, .n_virtio = m->n_slots};
	struct boot_config bc = {
		.kernel_fd = m->cfg.fd[CONTROL_FD_KERNEL], .initrd_fd = m->cfg.fd[CONTROL_FD_INITRD], .cmdline = m->cfg.cmdline};
	if (acpi_build(&m->mem, &ac, &bc.rsdp_gpa, err) < 0)
		return -1;
	cleanup_free struct x86_state *s = calloc(1, sizeof(*s));
	if (!s)
		return cai_fail(err, ENOMEM, "out of memory");
	if (boot_load_kernel(&m->mem, &bc, s, NULL, err) < 0 || hv_set_state(m->vm->vcpu[0], s, err) < 0)
		return -1;
	for (unsigned i = 1; i < m->cfg.vcpus; i++) {
		boot_ap_state(s, i);
		if (hv_set_state(m->vm->vcpu[i], s, err) < 0)
			return -1;
	}
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

struct machine *machine_create(struct control_config *cfg, struct loop *loop, const struct machine_hooks *hooks,
			       struct cai_error *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	if (!m) {
		cai_fail(err, ENOMEM, "out of memory");
		control_config_free(cfg);
		return NULL;
	}
	m->cfg = *cfg;
	control_config_init(cfg);
	m->hooks = *hooks;
	m->mem.fd = -1;
	for (unsigned i = 0; i < LAYOUT_VIRTIO_SLOTS; i++)
		m->irqfd[i] = -1;
	ending_init(&m->ending);
	if ((m->cfg.fd[CONTROL_FD_STATE] >= 0 && restore_open(m, err) < 0) || config_check(&m->cfg, err) < 0 || make_loop(m, loop, err) < 0 || make_vm(m, err) < 0 || make_platform(m, err) < 0 ||
	    make_virtio(m, err) < 0 || load(m, err) < 0 ||
	    vcpus_create(&m->vcpus, m->vm, m->cfg.vcpus, on_vcpu_exit, m, err) < 0) {
		machine_destroy(m);
		return NULL;
	}
	m->vcpus_made = true;
	/* What has been read or duplicated is not kept where a jailed monitor could misuse it. */
	close_fd(&m->cfg.fd[CONTROL_FD_KERNEL]);
	close_fd(&m->cfg.fd[CONTROL_FD_INITRD]);
	close_fd(&m->cfg.fd[CONTROL_FD_KVM]);
	for (unsigned i = CONTROL_FD_STATE; i < CONTROL_N_FDS; i++)
		close_fd(&m->cfg.fd[i]);
	return m;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	if (m->vcpus_made)
		vcpus_destroy(&m->vcpus);
	virtio_vsock_destroy(m->vsock);
	virtio_rng_destroy(m->rng);
	virtio_balloon_destroy(m->balloon);
	for (unsigned i = 0; i < CONTROL_MAX_DISKS; i++)
		virtio_blk_destroy(m->blk[i]);
	for (unsigned i = 0; i < CONTROL_MAX_NETS; i++)
		virtio_net_destroy(m->net[i]);
	for (unsigned i = 0; i < CONTROL_MAX_FS; i++)
		virtio_fs_destroy(m->fs[i]);
	hv_destroy(m->vm);
	loop_del(m->dev_source);
	loop_free(m->dev_loop);
	serial_free(m->serial);
	for (unsigned i = 0; i < m->n_doorbells; i++)
		close_fd(&m->doorbell[i].fd);
	for (unsigned i = 0; i < LAYOUT_VIRTIO_SLOTS; i++)
		close_fd(&m->irqfd[i]);
	mem_destroy(&m->mem);
	control_config_free(&m->cfg);
	if (m->restore)
		snapshot_free(m->restore);
	free(m->restore);
	snapshot_memory_free(&m->last);
	pthread_mutex_destroy(&m->ending.lock);
	free(m);
}

void machine_run(struct machine *m)
{
	loop_set_events(m->dev_source, EPOLLIN);
	restore_resume(m);
	vcpus_release(&m->vcpus);
}

int machine_pause(struct machine *m, struct cai_error *err)
{
	if (vcpus_hold(&m->vcpus, PAUSE_MS, err) < 0)
		return -1;
	/* Replies that arrive while the guest stands still would change memory that is being saved. */
	for (unsigned i = 0; i < m->cfg.n_fs; i++)
		virtio_fs_drain(m->fs[i], DRAIN_MS);
	loop_set_events(m->dev_source, 0);
	return 0;
}

static void device_stats(struct machine *m, struct control_status *s)
{
	s->balloon_bytes = virtio_balloon_freed_bytes(m->balloon);
	for (unsigned i = 0; i < m->cfg.n_disks; i++) {
		struct virtio_blk_stats b;
		virtio_blk_get_stats(m->blk[i], &b);
		s->disk_read_bytes += b.read_bytes;
		s->disk_reads += b.reads;
		s->disk_written_bytes += b.written_bytes;
		s->disk_writes += b.writes;
	}
	for (unsigned i = 0; i < m->cfg.n_nets; i++) {
		struct virtio_net_stats n;
		virtio_net_get_stats(m->net[i], &n);
		s->net_rx_bytes += n.rx_bytes;
		s->net_rx_frames += n.rx_frames;
		s->net_tx_bytes += n.tx_bytes;
		s->net_tx_frames += n.tx_frames;
		s->net_rx_dropped += n.rx_dropped;
		s->net_tx_dropped += n.tx_dropped;
	}
	for (unsigned i = 0; i < m->cfg.n_fs; i++) {
		struct virtio_fs_stats f;
		virtio_fs_get_stats(m->fs[i], &f);
		s->fs_read_bytes += f.read_bytes;
		s->fs_written_bytes += f.written_bytes;
		s->fs_requests += f.requests;
	}
}

int machine_attach_disk(struct machine *m, const struct control_attach *a, struct cai_error *err)
{
	if (a->disk >= m->cfg.n_disks)
		return cai_fail(err, EINVAL, "there is no disk slot %u", a->disk + 1);
	return virtio_blk_attach(m->blk[a->disk], a->fd, a->flags & CONTROL_DISK_READONLY, err);
}

void machine_stats(struct machine *m, struct control_status *s)
{
	for (unsigned i = 0; i < m->cfg.vcpus; i++) {
		struct hv_stats st;
		hv_vcpu_stats(m->vm->vcpu[i], &st);
		s->instructions += st.instructions;
		s->blocks_decoded += st.blocks_decoded;
		s->tlb_misses += st.tlb_misses;
		s->assists += st.assists;
		/* One cache serves all vCPUs. */
		if (st.code_cache_bytes > s->code_cache_bytes)
			s->code_cache_bytes = st.code_cache_bytes;
	}
	device_stats(m, s);
}

uint64_t machine_max_file(const struct machine *m)
{
	uint64_t most = MIN_MAX_FILE;
	for (unsigned i = 0; i < m->cfg.n_disks; i++)
		if (m->disk_bytes[i] > most)
			most = m->disk_bytes[i];
	/* Whatever will be put into an empty slot. */
	for (unsigned i = 0; i < m->cfg.n_disks; i++)
		if ((m->cfg.disk[i].flags & (CONTROL_DISK_EMPTY | CONTROL_DISK_READONLY)) == CONTROL_DISK_EMPTY)
			most = INT64_MAX;
	/* A snapshot's files. */
	if (m->mem.size > most)
		most = m->mem.size;
	return most;
}
