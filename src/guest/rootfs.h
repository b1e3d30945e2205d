/* SPDX-License-Identifier: Apache-2.0 */
/* The root file system of a guest: from a block device to the new "/". */
#ifndef GUEST_ROOTFS_H
#define GUEST_ROOTFS_H

#include <stdbool.h>

#include "base/error.h"
#include "proto/agent.h"

/* What is mounted, on its way to become the root. */
struct rootfs {
	char lower[64];         /* the disk that is mounted on /lower; empty: none */
	const char *lower_type; /* its type; static */
	bool overlay;           /* rootfs_prepare has put an upper layer in memory over it, on /newroot */
	int upper_fd;           /* the directory that the writable layer's disk is mounted on, -1 without: no name leads there any more */
};
#define ROOTFS_INIT {.upper_fd = -1}

/* "erofs" or "ext4" by the magic number in the first 2048 bytes of a device, or NULL. */
const char *rootfs_detect(const unsigned char block[2048]);

/* Mounts what the kernel itself shows: /proc, /sys, /dev and what is below them. Once. */
int rootfs_kernel_mounts(struct cai_error *err);

/*
 * Mounts a disk read-only as the lower file system and, with overlay, the root that AGENT_ROOT_OVERLAY_TMPFS asks for; rootfs_mount takes both
 * when they fit. fstype: empty for any. The same disk again is no error. On failure nothing is left mounted.
 */
int rootfs_prepare(struct rootfs *r, const char *dev, const char *fstype, bool overlay, struct cai_error *err);
/* In a mount namespace of its own, after rootfs_prepare: something to enter, for a program that must leave nothing behind. prepared: the
 * root that overlay has made, which then cannot be written to; else one more with an upper layer of its own. */
int rootfs_scratch(bool prepared, struct cai_error *err);

/* Mounts what m asks for on /newroot. 0, or -1 with nothing left mounted. */
int rootfs_mount(struct rootfs *r, const struct agent_setup *m, struct cai_error *err);
/* Moves /dev, /proc and /sys below /newroot and makes it the root directory. readonly: /tmp and /run become memory. */
int rootfs_enter(bool readonly, struct cai_error *err);
/* For a guest that stays in its initramfs. */
void rootfs_stay(void);

/* Writes back and leaves the disks clean, whoever still has files open. Nothing can be written afterwards. */
void rootfs_finish(const struct rootfs *r);

#endif
