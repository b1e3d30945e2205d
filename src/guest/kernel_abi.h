/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few pieces of Linux's user interface that musl does not declare and whose kernel headers musl's compiler does not see.
 * All are fixed for x86-64 by the kernel's promise to programs (include/uapi).
 */
#ifndef GUEST_KERNEL_ABI_H
#define GUEST_KERNEL_ABI_H

#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* linux/vm_sockets.h */
#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif
#define GUEST_VSOCK_CID_ANY  0xffffffffu
#define GUEST_VSOCK_CID_HOST 2u
struct guest_sockaddr_vm {
	sa_family_t family;
	uint16_t reserved;
	uint32_t port, cid;
	uint8_t flags, zero[3];
};

/* linux/random.h: RNDADDENTROPY takes {int bits, int bytes, data}. */
#define GUEST_RNDADDENTROPY _IOW('R', 0x03, int[2])
struct guest_pool_entropy {
	int bits, bytes;
	uint8_t data[32];
};

/* asm-generic/ioctls.h: a descriptor of a pty's other end, with no path involved. */
#define GUEST_TIOCGPTPEER _IO('T', 0x41)
#define GUEST_TIOCSPTLCK  _IOW('T', 0x31, int)

/* close_range(2), Linux 5.11 with the flag, 5.9 without. */
#define GUEST_NR_CLOSE_RANGE      436
#define GUEST_CLOSE_RANGE_CLOEXEC 4u

#endif
