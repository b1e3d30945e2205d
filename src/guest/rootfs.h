/* SPDX-License-Identifier: Apache-2.0 */
/* The root file system of a guest: from a block device to the new "/". */
#ifndef GUEST_ROOTFS_H
#define GUEST_ROOTFS_H

#include <stdbool.h>

#include "base/error.h"
#include "proto/agent.h"

/* "erofs" or "ext4" by the magic number in the first 2048 bytes of a device, or NULL. */
const char *rootfs_detect(const unsigned char block[2048]);

/* Mounts what m asks for on /newroot. /dev is there already. 0, or -1 with nothing left mounted. *upper_fd becomes the directory that
 * the writable layer's disk is mounted on, or -1 where there is no such disk; the caller's. */
int rootfs_mount(const struct agent_setup *m, int *upper_fd, struct cai_error *err);
/* Moves /dev and /proc below /newroot, makes it the root directory and mounts the rest. */
int rootfs_enter(const struct agent_setup *m, struct cai_error *err);
/* For a guest that stays in its initramfs: mounts the rest here. */
int rootfs_populate(bool readonly, struct cai_error *err);
/* Writes back and leaves the disks clean, whoever still has files open: / and what rootfs_mount gave in upper_fd. Nothing can be
 * written afterwards. */
void rootfs_finish(int upper_fd);

#endif
