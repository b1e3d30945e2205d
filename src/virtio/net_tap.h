/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preparing a tap descriptor for virtio-net. This needs ioctls that a jailed monitor may not make, so whoever opens the tap
 * does it: open /dev/net/tun, TUNSETIFF with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (and IFF_MULTI_QUEUE, once a descriptor, for
 * several queue pairs), then net_tap_setup() on each.
 */
#ifndef VIRTIO_NET_TAP_H
#define VIRTIO_NET_TAP_H

#include <stdint.h>

#include "base/error.h"

/* VIRTIO_NET_F_*, which not all versions of the kernel's header have. */
#define NET_F_GUEST_USO4 54
#define NET_F_GUEST_USO6 55
#define NET_F_HOST_USO   56

/* All features that depend on the tap: checksums and segmentation, both ways (virtio 1.2 section 5.1.3). */
#define NET_OFFLOADS                                                                                               \
	(1ull << 0 /* CSUM */ | 1ull << 1 /* GUEST_CSUM */ | 1ull << 7 /* GUEST_TSO4 */ |                          \
	 1ull << 8 /* GUEST_TSO6 */ | 1ull << 9 /* GUEST_ECN */ | 1ull << 11 /* HOST_TSO4 */ |                     \
	 1ull << 12 /* HOST_TSO6 */ | 1ull << 13 /* HOST_ECN */ | 1ull << NET_F_GUEST_USO4 |                       \
	 1ull << NET_F_GUEST_USO6 | 1ull << NET_F_HOST_USO)

/*
 * Sets the header's size to the 12 bytes of struct virtio_net_hdr_v1 and turns on what the guest may receive. wanted: a subset
 * of NET_OFFLOADS (other bits are ignored); *have: what this tap and kernel offer of it, for struct virtio_net_options. All
 * descriptors of one tap must be given the same wanted: the offloads are the interface's. 0 or -1.
 */
int net_tap_setup(int fd, uint64_t wanted, uint64_t *have, struct cai_error *err);

#endif
