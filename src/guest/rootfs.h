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
	bool overlay;           /* rootfs_prepare has put an upper layer over it, on /newroot: */
	char upper[64];         /* on this disk; empty: in memory */
	int upper_fd;           /* the directory that the writable layer's disk is mounted on, -1 without: no name leads there any more */
	int old_root;           /* the initramfs, when the root has been entered; else -1 */
};
#define ROOTFS_INIT {.upper_fd = -1, .old_root = -1}

struct rootfs_plan {
	const char *dev, *fstype; /* the lower file system; an empty type is any */
	bool overlay;             /* with an upper layer, on */
	const char *upper_dev, *upper_fstype; /* a disk, or NULL: in memory */
};

/* "erofs" or "ext4" by the magic number in the first 2048 bytes of a device, or NULL. */
const char *rootfs_detect(const unsigned char block[2048]);

/* Mounts what the kernel itself shows: /proc, /sys, /dev and what is below them. Once. */
int rootfs_kernel_mounts(struct cai_error *err);

/*
 * Mounts p's disk read-only as the lower file system and, with overlay, the root that AGENT_ROOT_OVERLAY_TMPFS or _DISK asks for, on /newroot.
 * rootfs_setup takes what fits. The same again is no error, and leaves the root if it was entered. On failure nothing is left mounted.
 */
int rootfs_prepare(struct rootfs *r, const struct rootfs_plan *p, struct cai_error *err);
/* In a mount namespace of its own, after rootfs_prepare: something to enter, for a program that must leave nothing behind. prepared: the
 * root that overlay has made, which then cannot be written to; else one more with an upper layer of its own. */
int rootfs_scratch(bool prepared, struct cai_error *err);

/* Mounts what m asks for and makes it the root directory. r->overlay then tells whether it is what was prepared. */
int rootfs_setup(struct rootfs *r, const struct agent_setup *m, struct cai_error *err);
/* Moves /dev, /proc and /sys below /newroot and makes it the root directory. readonly: /tmp and /run become memory. */
int rootfs_enter(struct rootfs *r, bool readonly, struct cai_error *err);
/* Back to the initramfs, with what rootfs_enter moved; nothing where it was not entered. */
int rootfs_leave(struct rootfs *r, struct cai_error *err);
/* For a guest that stays in its initramfs. */
void rootfs_stay(void);

/* Writes back and leaves the disks clean, whoever still has files open. Nothing can be written afterwards. */
void rootfs_finish(const struct rootfs *r);

#endif
