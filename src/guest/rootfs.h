/* SPDX-License-Identifier: Apache-2.0 */
/* The root file system of a guest: from a block device to the new "/". */
#ifndef GUEST_ROOTFS_H
#define GUEST_ROOTFS_H

#include "base/error.h"
#include "proto/agent.h"

/* "erofs" or "ext4" by the magic number in the first 2048 bytes of a device, or NULL. */
const char *rootfs_detect(const unsigned char block[2048]);

/* Mounts what m asks for on /newroot. /dev is there already. 0, or -1 with nothing left mounted. */
int rootfs_mount(const struct agent_setup *m, struct cai_error *err);
/* Moves /dev and /proc below /newroot, makes it the root directory and mounts the rest. */
int rootfs_enter(const struct agent_setup *m, struct cai_error *err);
/* For a guest that stays in its initramfs: mounts the rest here. */
int rootfs_populate(bool readonly, struct cai_error *err);

#endif
