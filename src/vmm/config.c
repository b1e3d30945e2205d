/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the client is trusted with its own user's power and no more, and a mistake of its user must end in a
 * sentence. Descriptors are checked for what they are, not for their names, which the monitor never learns.
 */
#include "vmm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include "dev/layout.h"
#include "hv/hv.h"
#include "mem/mem.h"
#include "virtio/net_tap.h"

static int check_regular(int fd, const char *what, struct cai_error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot examine the %s", what);
	if (S_ISDIR(st.st_mode))
		return cai_fail(err, EISDIR, "the %s is a directory, not a file", what);
	if (!S_ISREG(st.st_mode))
		return cai_fail(err, EINVAL, "the %s is not a regular file", what);
	if (st.st_size == 0)
		return cai_fail(err, EINVAL, "the %s is empty", what);
	int mode = fcntl(fd, F_GETFL);
	if (mode < 0 || (mode & O_ACCMODE) == O_WRONLY || (mode & O_PATH))
		return cai_fail(err, EBADF, "the %s was not opened for reading", what);
	return 0;
}

static int check_disk(const struct control_config *c, unsigned i, struct cai_error *err)
{
	struct stat st;
	bool ro = c->disk[i].flags & CONTROL_DISK_READONLY;
	if (fstat(c->disk_fd[i], &st) < 0)
		return cai_fail_errno(err, errno, "cannot examine disk %u", i + 1);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return cai_fail(err, EINVAL, "disk %u is neither a regular file nor a block device", i + 1);
	int mode = fcntl(c->disk_fd[i], F_GETFL);
	if (mode < 0 || (mode & O_PATH) || (mode & O_ACCMODE) == O_WRONLY || (!ro && (mode & O_ACCMODE) != O_RDWR))
		return cai_fail(err, EBADF, "disk %u was not opened for %s", i + 1, ro ? "reading" : "reading and writing");
	return 0;
}

static int socket_option(int fd, int option)
{
	int v = -1;
	socklen_t n = sizeof(v);
	return getsockopt(fd, SOL_SOCKET, option, &v, &n) < 0 ? -1 : v;
}

/* The control listener is the server's to check. */
static int check_vsock(int fd, struct cai_error *err)
{
	if (fd < 0)
		return 0;
	if (socket_option(fd, SO_DOMAIN) != AF_UNIX || socket_option(fd, SO_TYPE) != SOCK_STREAM || socket_option(fd, SO_ACCEPTCONN) != 1)
		return cai_fail(err, EINVAL, "the vsock descriptor is not a listening Unix stream socket");
	return 0;
}

static int check_memory(const struct control_config *c, struct cai_error *err)
{
	struct sysinfo si;
	if (c->mem_bytes % MEM_PAGE_SIZE || c->mem_bytes < MEM_MIN_BYTES || c->mem_bytes > MEM_MAX_BYTES)
		return cai_fail(err, EINVAL, "%llu bytes of guest memory are not possible: whole pages from %llu MiB to %llu GiB are",
				(unsigned long long)c->mem_bytes, MEM_MIN_BYTES >> 20, MEM_MAX_BYTES >> 30);
	if (sysinfo(&si) == 0 && c->mem_bytes > (uint64_t)si.totalram * si.mem_unit)
		return cai_fail(err, ENOMEM, "%llu MiB of guest memory are more than this host has (%llu MiB)",
				(unsigned long long)c->mem_bytes >> 20, (unsigned long long)si.totalram * si.mem_unit >> 20);
	return 0;
}

/* A socket of the type whose other end is there. */
static bool is_connected(int fd, int type)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof(a);
	int have = socket_option(fd, SO_TYPE);
	return (have == type || (type == SOCK_DGRAM && have == SOCK_SEQPACKET)) && getpeername(fd, (struct sockaddr *)&a, &n) == 0;
}

static int check_net(const struct control_config *c, unsigned i, struct cai_error *err)
{
	const struct control_net *n = &c->net[i];
	struct stat st;
	if (n->offloads & ~NET_OFFLOADS)
		return cai_fail(err, EINVAL, "network %u has unknown offloads 0x%llx", i + 1, (unsigned long long)(n->offloads & ~NET_OFFLOADS));
	for (unsigned k = 0; k < n->n_fds; k++) {
		int fd = c->net_fd[i][k];
		if (n->kind == CONTROL_NET_TAP && (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode)))
			return cai_fail(err, EINVAL, "network %u: the descriptor is not a tap device", i + 1);
		if (n->kind == CONTROL_NET_STREAM && !is_connected(fd, SOCK_STREAM))
			return cai_fail(err, EINVAL, "network %u: the descriptor is not a connected stream socket", i + 1);
		if (n->kind == CONTROL_NET_DGRAM && !is_connected(fd, SOCK_DGRAM))
			return cai_fail(err, EINVAL, "network %u: the descriptor is not a connected datagram socket", i + 1);
	}
	return 0;
}

static int check_fs(const struct control_config *c, unsigned i, struct cai_error *err)
{
	if (socket_option(c->fs_fd[i], SO_DOMAIN) != AF_UNIX || !is_connected(c->fs_fd[i], SOCK_STREAM))
		return cai_fail(err, EINVAL, "shared directory %u: the descriptor is not a connected Unix stream socket", i + 1);
	return 0;
}

int config_check(const struct control_config *c, struct cai_error *err)
{
	if (c->vcpus < 1 || c->vcpus > HV_MAX_VCPUS)
		return cai_fail(err, EINVAL, "%u vCPUs asked for; 1 to %u are possible", c->vcpus, HV_MAX_VCPUS);
	if (check_memory(c, err) < 0)
		return -1;
	if (c->accel != CONTROL_ACCEL_SOFT && c->accel != CONTROL_ACCEL_KVM)
		return cai_fail(err, EINVAL, "accelerator %u does not exist", c->accel);
	if (c->accel == CONTROL_ACCEL_KVM && c->fd[CONTROL_FD_KVM] < 0)
		return cai_fail(err, EINVAL, "the accelerator kvm needs /dev/kvm, which was not passed in");
	const bool restore = c->fd[CONTROL_FD_STATE] >= 0;
	if (c->fd[CONTROL_FD_KERNEL] < 0 && !restore)
		return cai_fail(err, EINVAL, "there is no kernel");
	if (!restore && check_regular(c->fd[CONTROL_FD_KERNEL], "kernel", err) < 0)
		return -1;
	if (c->fd[CONTROL_FD_INITRD] >= 0 && check_regular(c->fd[CONTROL_FD_INITRD], "initramfs", err) < 0)
		return -1;
	if (check_vsock(c->fd[CONTROL_FD_VSOCK], err) < 0)
		return -1;
	if (c->n_disks + c->n_nets + c->n_fs > LAYOUT_VIRTIO_SLOTS - CONFIG_FIRST_DISK_SLOT)
		return cai_fail(err, EINVAL, "%u disks, %u networks and %u shared directories asked for; at most %u in all are possible",
				c->n_disks, c->n_nets, c->n_fs, LAYOUT_VIRTIO_SLOTS - CONFIG_FIRST_DISK_SLOT);
	for (unsigned i = 0; i < c->n_disks; i++)
		if (!(c->disk[i].flags & CONTROL_DISK_EMPTY) && check_disk(c, i, err) < 0)
			return -1;
	for (unsigned i = 0; i < c->n_nets; i++)
		if (check_net(c, i, err) < 0)
			return -1;
	for (unsigned i = 0; i < c->n_fs; i++)
		if (check_fs(c, i, err) < 0)
			return -1;
	return 0;
}
