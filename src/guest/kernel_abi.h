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
#define GUEST_RNDRESEEDCRNG _IO('R', 0x07)
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

/* openat2(2), Linux 5.6: linux/openat2.h. */
#define GUEST_NR_OPENAT2          437
#define GUEST_RESOLVE_NO_XDEV     0x01u
#define GUEST_RESOLVE_NO_MAGIC    0x02u
#define GUEST_RESOLVE_BENEATH     0x08u
#define GUEST_RESOLVE_IN_ROOT     0x10u
struct guest_open_how {
	uint64_t flags, mode, resolve;
};

/* Mounts as descriptors, Linux 5.2 and 5.12: linux/mount.h. */
#define GUEST_NR_OPEN_TREE        428
#define GUEST_NR_MOVE_MOUNT       429
#define GUEST_NR_FSOPEN           430
#define GUEST_NR_FSCONFIG         431
#define GUEST_NR_FSMOUNT          432
#define GUEST_NR_MOUNT_SETATTR    442
#define GUEST_OPEN_TREE_CLONE     1u
#define GUEST_OPEN_TREE_CLOEXEC   02000000u
#define GUEST_AT_EMPTY_PATH       0x1000u
#define GUEST_AT_RECURSIVE        0x8000u
#define GUEST_MOVE_F_EMPTY_PATH   0x04u
#define GUEST_MOVE_T_EMPTY_PATH   0x40u
#define GUEST_FSOPEN_CLOEXEC      1u
#define GUEST_FSMOUNT_CLOEXEC     1u
enum guest_fsconfig { GUEST_FSCONFIG_FLAG = 0, GUEST_FSCONFIG_STRING = 1, GUEST_FSCONFIG_CREATE = 6 };
#define GUEST_MOUNT_RDONLY        0x01u
#define GUEST_MOUNT_NOSUID        0x02u
#define GUEST_MOUNT_NODEV         0x04u
#define GUEST_MOUNT_NOEXEC        0x08u
#define GUEST_MOUNT_ATIME         0x70u /* the field of the next two; 0 in it is relatime */
#define GUEST_MOUNT_NOATIME       0x10u
#define GUEST_MOUNT_STRICTATIME   0x20u
#define GUEST_MOUNT_NODIRATIME    0x80u
struct guest_mount_attr {
	uint64_t set, clear, propagation, userns_fd;
};

/* linux/fs.h */
#define GUEST_FIFREEZE     _IOWR('X', 119, int)
#define GUEST_BLKGETSIZE64 _IOR(0x12, 114, uint64_t)

/* linux/sched.h; clone(2) with no stack of its own is fork(2) with flags. */
#define GUEST_CLONE_NEWNS  0x00020000u
#define GUEST_CLONE_NEWUTS 0x04000000u
#define GUEST_CLONE_NEWIPC 0x08000000u
#define GUEST_CLONE_NEWPID 0x20000000u
#define GUEST_CLONE_NEWNET 0x40000000u

/* Routing netlink: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h. */
#ifndef AF_NETLINK
#define AF_NETLINK 16
#endif
#define GUEST_NLM_REQUEST    0x01u
#define GUEST_NLM_ACK        0x04u
#define GUEST_NLM_REPLACE    0x100u
#define GUEST_NLM_DUMP       0x300u
#define GUEST_NLM_CREATE     0x400u
#define GUEST_NLMSG_ERROR    2u
#define GUEST_NLMSG_DONE     3u
#define GUEST_RTM_NEWLINK    16u
#define GUEST_RTM_GETLINK    18u
#define GUEST_RTM_NEWADDR    20u
#define GUEST_RTM_DELADDR    21u
#define GUEST_RTM_GETADDR    22u
#define GUEST_RTM_NEWROUTE   24u
#define GUEST_IFLA_ADDRESS   1u
#define GUEST_IFLA_IFNAME    3u
#define GUEST_IFLA_MTU       4u
#define GUEST_IFLA_LINKINFO  18u
#define GUEST_IFLA_INFO_KIND 1u
#define GUEST_IFA_ADDRESS    1u
#define GUEST_IFA_LOCAL      2u
#define GUEST_IFA_BROADCAST  4u
#define GUEST_IFA_FLAGS      8u
#define GUEST_IFA_F_NODAD    0x02u
#define GUEST_RTA_OIF        4u
#define GUEST_RTA_GATEWAY    5u
#define GUEST_RTA_PRIORITY   6u
#define GUEST_RT_TABLE_MAIN  254
#define GUEST_RTPROT_BOOT    3
#define GUEST_RTN_UNICAST    1
#define GUEST_RTNH_F_ONLINK  4u
#define GUEST_ARPHRD_ETHER   1
struct guest_nlmsghdr {
	uint32_t len;
	uint16_t type, flags;
	uint32_t seq, pid;
};
struct guest_rtattr {
	uint16_t len, type;
};
struct guest_ifinfomsg {
	uint8_t family, pad;
	uint16_t type;
	int32_t index;
	uint32_t flags, change;
};
struct guest_ifaddrmsg {
	uint8_t family, prefixlen, flags, scope;
	uint32_t index;
};
struct guest_rtmsg {
	uint8_t family, dst_len, src_len, tos, table, protocol, scope, type;
	uint32_t flags;
};
struct guest_sockaddr_nl {
	sa_family_t family;
	uint16_t pad;
	uint32_t pid, groups;
};

#endif
