/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * What the guest can send is decided per packet by its header, so HOST_* need nothing from the tap. What the guest can
 * receive is TUNSETOFFLOAD's business: without it the kernel cuts and checksums before it queues. UDP segmentation came with
 * Linux 6.2, both ways at once, so that its TUN_F bits being taken tells about HOST_USO as well.
 */
#include "virtio/net_tap.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include "base/util.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define GUEST_SEGMENTS                                                                                             \
	(BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |               \
	 BIT(NET_F_GUEST_USO4) | BIT(NET_F_GUEST_USO6))
#define HOST_SEGMENTS                                                                                              \
	(BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) | BIT(NET_F_HOST_USO))
#define GUEST_USO (BIT(NET_F_GUEST_USO4) | BIT(NET_F_GUEST_USO6))

int net_tap_setup(int fd, uint64_t wanted, uint64_t *have, struct cai_error *err)
{
	const unsigned need = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	struct ifreq ifr = {0};
	int size = sizeof(struct virtio_net_hdr_v1);

	*have = 0;
	if (ioctl(fd, TUNGETIFF, &ifr) < 0)
		return cai_fail_errno(err, errno, "cannot examine a tap device");
	if (((unsigned short)ifr.ifr_flags & need) != need)
		return cai_fail(err, EINVAL, "a tap device must be opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR");
	if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
		return cai_fail_errno(err, errno, "cannot set the header size of a tap device");

	/* Segmentation presumes checksums (virtio 1.2 section 5.1.3.1). */
	wanted &= NET_OFFLOADS;
	if (!(wanted & BIT(VIRTIO_NET_F_GUEST_CSUM)))
		wanted &= ~GUEST_SEGMENTS;
	if (!(wanted & BIT(VIRTIO_NET_F_CSUM)))
		wanted &= ~HOST_SEGMENTS;
	/* The kernel takes UDP over both protocols or over none. */
	if ((wanted & GUEST_USO) != GUEST_USO)
		wanted &= ~GUEST_USO;

	unsigned long flags = 0;
	if (wanted & BIT(VIRTIO_NET_F_GUEST_CSUM))
		flags |= TUN_F_CSUM;
	if (wanted & BIT(VIRTIO_NET_F_GUEST_TSO4))
		flags |= TUN_F_TSO4;
	if (wanted & BIT(VIRTIO_NET_F_GUEST_TSO6))
		flags |= TUN_F_TSO6;
	if (wanted & BIT(VIRTIO_NET_F_GUEST_ECN))
		flags |= TUN_F_TSO_ECN;
	if (wanted & (GUEST_USO | BIT(NET_F_HOST_USO))) {
		/* Asked for even when only HOST_USO is wanted: the answer tells; what is set is put right below. */
		if (ioctl(fd, TUNSETOFFLOAD, flags | TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6) < 0)
			wanted &= ~(GUEST_USO | BIT(NET_F_HOST_USO));
	}
	if (wanted & GUEST_USO)
		flags |= TUN_F_USO4 | TUN_F_USO6;
	if (ioctl(fd, TUNSETOFFLOAD, flags) < 0)
		return cai_fail_errno(err, errno, "cannot set the offloads of a tap device");
	*have = wanted;
	return 0;
}
