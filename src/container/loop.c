/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: kernels before 6.12 mount EROFS from block devices only. A loop device is set up read-only with "autoclear": it goes
 * by itself when its last mount does, so nothing has to be remembered or cleaned up after a crash.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/internal.h"

#define MAX_TRIES 64

/* Returns a descriptor to be kept until the mount is made. */
int loop_attach(int image_fd, char *path, size_t size, struct cai_error *err)
{
	cleanup_close int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return cai_fail_errno(err, errno, "this kernel mounts no EROFS files, and /dev/loop-control cannot be opened");
	struct loop_config config = {.fd = (unsigned)image_fd, .info = {.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR}};
	for (int i = 0; i < MAX_TRIES; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0)
			return cai_fail_errno(err, errno, "no loop device is free");
		snprintf(path, size, "/dev/loop%d", number);
		cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			return cai_fail_errno(err, errno, "cannot open %s", path);
		if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			return steal_fd(&fd);
		if (errno != EBUSY) /* EBUSY: another process took it in between */
			return cai_fail_errno(err, errno, "cannot set up %s", path);
	}
	return cai_fail(err, EBUSY, "no loop device could be had");
}
