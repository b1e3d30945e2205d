/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * The disk is mounted on /lower and, for an overlay, a tmpfs or a second disk on /rw; the result is on /newroot. An initramfs cannot be
 * pivoted away, so /newroot is moved over "/" and entered with chroot, as every distribution's initramfs does.
 *
 * The image decides what /dev, /proc and the like are in it. They are made where they are missing and something can be
 * made; one that is not a directory (a symbolic link, say) is refused, since a mount would land where it points. A read-only root
 * without one goes without that mount.
 *
 * A second disk stays mounted where no name leads once the root has been entered. A descriptor of it is kept for the end: a read-only
 * remount leaves it clean; and where that is refused, because something still has a file open for writing, freezing does.
 */
#include "guest/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "guest/kernel_abi.h"

#define EROFS_MAGIC 0xe0f5e1e2u /* at 1024 */
#define EXT4_MAGIC  0xef53u     /* at 1024 + 0x38 */

const char *rootfs_detect(const unsigned char block[2048])
{
	if (load_le32(block + 1024) == EROFS_MAGIC)
		return "erofs";
	if (load_le16(block + 1024 + 0x38) == EXT4_MAGIC)
		return "ext4";
	return NULL;
}

/* Opens the device, which may still be appearing. */
static int open_device(const char *dev)
{
	for (int tries = 0;; tries++) {
		int fd = open(dev, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 || tries == 200 || (errno != ENOENT && errno != ENXIO))
			return fd;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}

/* The type to mount: the one given, or by magic number. what: the disk's part, for the sentence. */
static const char *choose_type(const char *what, const char *dev, const char *wanted, struct cai_error *err)
{
	unsigned char block[2048];
	struct stat st;

	if (strncmp(dev, "/dev/", 5) != 0) {
		cai_fail(err, EINVAL, "the %s \"%.64s\" is not a device", what, dev);
		return NULL;
	}
	cleanup_close int fd = open_device(dev);
	if (fd < 0) {
		cai_fail_errno(err, errno, "the %s %.64s cannot be opened", what, dev);
		return NULL;
	}
	if (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode)) {
		cai_fail(err, ENOTBLK, "%.64s is not a disk", dev);
		return NULL;
	}
	const char *found = NULL;
	if (file_pread_full(fd, block, sizeof(block), 0) == (ssize_t)sizeof(block))
		found = rootfs_detect(block);
	if (!found) {
		cai_fail(err, 0, "the %s %.64s holds neither an EROFS nor an ext4 file system", what, dev);
		return NULL;
	}
	if (wanted && *wanted && strcmp(wanted, found) != 0) {
		cai_fail(err, 0, "the %s %.64s holds a file system of type %s, not %.32s", what, dev, found, wanted);
		return NULL;
	}
	return found;
}

static int mount_disk(const char *what, const char *dev, const char *type, const char *where, bool readonly, struct cai_error *err)
{
	unsigned long flags = readonly ? MS_RDONLY : MS_NOATIME;
	/* Freed blocks go back to the host; tables that a sparse image does not have are not written just to be zero. */
	const char *options = !readonly && !strcmp(type, "ext4") ? "discard,noinit_itable" : NULL;
	int rc = mount(dev, where, type, flags, options);
	/* ext4 with an unplayed journal on a disk that must not be written: what is there is readable all the same. */
	if (rc < 0 && readonly && (errno == EROFS || errno == EACCES) && !strcmp(type, "ext4"))
		rc = mount(dev, where, type, flags, "noload");
	if (rc < 0 && errno == ENODEV)
		return cai_fail(err, ENODEV, "the guest's kernel has no %s file system", type);
	if (rc < 0 && (errno == EINVAL || errno == EIO || errno == EUCLEAN || errno == EBADMSG))
		return cai_fail_errno(err, errno, "the %s file system on the %s %s is damaged or of an unknown variant", type, what,
				      dev);
	return rc < 0 ? cai_fail_errno(err, errno, "the %s %s cannot be mounted", what, dev) : 0;
}

static int mount_upper(const struct agent_setup *m, struct cai_error *err)
{
	static const char what[] = "disk of the writable layer";
	if (m->root_mode == AGENT_ROOT_OVERLAY_TMPFS) {
		if (mount("tmpfs", "/rw", "tmpfs", MS_NOATIME, "mode=0755") < 0)
			return cai_fail_errno(err, errno, "no memory file system for the writable layer");
		return 0;
	}
	const char *type = choose_type(what, m->upper_dev, m->upper_fstype, err);
	if (!type)
		return -1;
	return mount_disk(what, m->upper_dev, type, "/rw", false, err);
}

/* The merged root takes owner and mode from the upper directory: at first those of the image's root, later what they became. */
static int make_upper_dirs(struct cai_error *err)
{
	struct stat st;
	if (mkdir("/rw/work", 0755) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make the writable layer");
	if (mkdir("/rw/upper", 0755) < 0)
		return errno == EEXIST ? 0 : cai_fail_errno(err, errno, "cannot make the writable layer");
	if (stat("/lower", &st) == 0 && (chown("/rw/upper", st.st_uid, st.st_gid) < 0 || chmod("/rw/upper", st.st_mode & 07777) < 0))
		return cai_fail_errno(err, errno, "cannot prepare the writable layer");
	return 0;
}

static int mount_overlay(const struct agent_setup *m, int *upper_fd, struct cai_error *err)
{
	if (mount_upper(m, err) < 0 || make_upper_dirs(err) < 0)
		return -1;
	if (m->root_mode == AGENT_ROOT_OVERLAY_DISK) {
		*upper_fd = open("/rw", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (*upper_fd < 0)
			return cai_fail_errno(err, errno, "cannot open the writable layer");
	}
	if (mount("overlay", "/newroot", "overlay", MS_NOATIME, "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work") < 0)
		return cai_fail_errno(err, errno, "cannot put a writable layer over the root disk");
	return 0;
}

static void unmount_all(void)
{
	umount2("/newroot", MNT_DETACH);
	umount2("/rw", MNT_DETACH);
	umount2("/lower", MNT_DETACH);
}

int rootfs_mount(const struct agent_setup *m, int *upper_fd, struct cai_error *err)
{
	bool overlay = m->root_mode == AGENT_ROOT_OVERLAY_TMPFS || m->root_mode == AGENT_ROOT_OVERLAY_DISK;

	*upper_fd = -1;
	const char *type = choose_type("root disk", m->root_dev, m->root_fstype, err);
	if (!type)
		return -1;
	mkdir("/newroot", 0755);
	if (!overlay)
		return mount_disk("root disk", m->root_dev, type, "/newroot", m->root_mode == AGENT_ROOT_READONLY, err);

	mkdir("/lower", 0755);
	mkdir("/rw", 0755);
	if (mount_disk("root disk", m->root_dev, type, "/lower", true, err) < 0)
		return -1;
	if (mount_overlay(m, upper_fd, err) < 0) {
		if (*upper_fd >= 0)
			close(steal_fd(upper_fd));
		unmount_all();
		return -1;
	}
	return 0;
}

void rootfs_finish(int upper_fd)
{
	sync();
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	if (upper_fd < 0 || fchdir(upper_fd) < 0)
		return;
	if (mount(NULL, ".", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0 && ioctl(upper_fd, GUEST_FIFREEZE, 0) < 0)
		sync();
}

/* 1 when path is a directory to mount on, made if need be; 0 when there is none and none can be made; -1 for something else. */
static int mount_point(const char *path, mode_t mode, struct cai_error *err)
{
	const char *name = strncmp(path, "/newroot/", 9) ? path : path + 8;
	struct stat st;
	if (lstat(path, &st) < 0) {
		if (mkdir(path, 0755) < 0)
			return 0;
		if (chmod(path, mode) < 0)
			return 0;
		return 1;
	}
	if (!S_ISDIR(st.st_mode))
		return cai_fail(err, ENOTDIR, "%s of the root file system is not a directory", name);
	return 1;
}

struct mount_spec {
	const char *what, *where, *type, *options;
	unsigned long flags;
	mode_t mode;
	bool must;     /* the guest is useless without it */
	bool readonly; /* wanted only where the root is read-only */
};

int rootfs_populate(bool readonly, struct cai_error *err)
{
	static const struct mount_spec mounts[] = {
		{"sysfs", "/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0755, false, false},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", "nsdelegate", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0755, false, false},
		{"devpts", "/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC, 0755, true, false},
		{"tmpfs", "/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV, 01777, false, false},
		{"mqueue", "/dev/mqueue", "mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0755, false, false},
		{"tmpfs", "/run", "tmpfs", "mode=0755", MS_NOSUID | MS_NODEV, 0755, false, true},
		{"tmpfs", "/tmp", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV, 01777, false, true},
	};
	static const char *const links[][2] = {
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	};
	for (size_t i = 0; i < ARRAY_LEN(mounts); i++) {
		const struct mount_spec *s = &mounts[i];
		if (s->readonly && !readonly)
			continue;
		int there = mount_point(s->where, s->mode, err);
		if (there < 0)
			return -1;
		if (!there && !s->must)
			continue;
		if (mount(s->what, s->where, s->type, s->flags, s->options) < 0 && s->must)
			return cai_fail_errno(err, errno, "cannot mount %s in the guest", s->where);
	}
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			return cai_fail_errno(err, errno, "cannot make %s in the guest", links[i][1]);
	/* What an image may lack and every program expects; on a read-only root there is nothing to do about it. */
	mount_point("/tmp", 01777, NULL);
	mount_point("/run", 0755, NULL);
	return 0;
}

/* The new root's mount point for something that every guest needs. */
static int need_mount_point(const char *path, const char *name, struct cai_error *err)
{
	int there = mount_point(path, 0755, err);
	if (there == 0)
		return cai_fail(err, EROFS, "the root file system has no directory %s and is read-only", name);
	return there < 0 ? -1 : 0;
}

int rootfs_enter(const struct agent_setup *m, struct cai_error *err)
{
	if (need_mount_point("/newroot/dev", "/dev", err) < 0 || need_mount_point("/newroot/proc", "/proc", err) < 0)
		goto undo;
	if (mount("/dev", "/newroot/dev", NULL, MS_MOVE, NULL) < 0 || mount("/proc", "/newroot/proc", NULL, MS_MOVE, NULL) < 0 ||
	    chdir("/newroot") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return cai_fail_errno(err, errno, "cannot switch to the root file system");
	return rootfs_populate(m->root_mode == AGENT_ROOT_READONLY, err);
undo:
	unmount_all();
	return -1;
}
