/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * What the kernel itself shows is mounted in the initramfs, before anybody asks for anything: /proc, /sys and /dev, with all that belongs
 * below them. Three mounts are then moved into the root, whatever that is, and what belongs to them goes along.
 *
 * The disk is mounted on /lower and, for an overlay, a tmpfs or a second disk on /rw; the result is on /newroot. An initramfs cannot be
 * pivoted away, so /newroot is moved over "/" and entered with chroot, as every distribution's initramfs does. All of this may
 * have been prepared, before SETUP came, and is taken if it is what SETUP asks for; else the root is left again, the same way back.
 *
 * The image decides what /dev, /proc and the like are in it. They are made where they are missing and something can be
 * made; one that is not a directory (a symbolic link, say) is refused, since a mount would land where it points. A read-only root
 * without /sys goes without it.
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
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "guest/kernel_abi.h"

#define EROFS_MAGIC 0xe0f5e1e2u /* at 1024 */
#define EXT4_MAGIC  0xef53u     /* at 1024 + 0x38 */

#define NEWROOT "/newroot"
#define DISK_WAIT_US  2000000u
#define FIRST_WAIT_US 100u
#define LAST_WAIT_US  1600u

const char *rootfs_detect(const unsigned char block[2048])
{
	if (load_le32(block + 1024) == EROFS_MAGIC)
		return "erofs";
	if (load_le16(block + 1024 + 0x38) == EXT4_MAGIC)
		return "ext4";
	return NULL;
}

static bool is_empty_disk(int fd)
{
	struct stat st;
	uint64_t bytes = 0;
	return fstat(fd, &st) == 0 && S_ISBLK(st.st_mode) && ioctl(fd, GUEST_BLKGETSIZE64, &bytes) == 0 && !bytes;
}

/* Opens the device, which may still be appearing, or be a slot that has just got its disk: the kernel sees that a moment later. */
static int open_device(const char *dev)
{
	int fd = -1;
	for (unsigned waited = 0, step = FIRST_WAIT_US;; waited += step, step = step < LAST_WAIT_US ? step * 2 : step) {
		if (fd < 0)
			fd = open(dev, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		bool early = fd < 0 ? errno == ENOENT || errno == ENXIO : is_empty_disk(fd);
		if (!early || waited >= DISK_WAIT_US)
			return fd;
		nanosleep(&(struct timespec){.tv_nsec = step * 1000l}, NULL);
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
	if (is_empty_disk(fd)) {
		cai_fail(err, ENOMEDIUM, "there is no disk in %.64s", dev);
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

/* 1 when path is a directory to mount on, made if need be; 0 when there is none and none can be made; -1 for something else. */
static int mount_point(const char *path, mode_t mode, struct cai_error *err)
{
	const char *name = strncmp(path, NEWROOT "/", sizeof(NEWROOT)) ? path : path + sizeof(NEWROOT) - 1;
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

/* What every guest needs and every program expects, on /newroot. */
static int make_mount_points(bool readonly, struct cai_error *err)
{
	static const char *const must[] = {NEWROOT "/dev", NEWROOT "/proc"};
	for (size_t i = 0; i < ARRAY_LEN(must); i++) {
		int there = mount_point(must[i], 0755, err);
		if (there == 0)
			return cai_fail(err, EROFS, "the root file system has no directory %s and is read-only", must[i] + strlen(NEWROOT));
		if (there < 0)
			return -1;
	}
	if (mount_point(NEWROOT "/sys", 0755, err) < 0)
		return -1;
	/* On a read-only root there is nothing to do about it. */
	int tmp = mount_point(NEWROOT "/tmp", 01777, readonly ? err : NULL), run = mount_point(NEWROOT "/run", 0755, readonly ? err : NULL);
	return readonly && (tmp < 0 || run < 0) ? -1 : 0;
}

/* dev: empty for an upper layer in memory. */
static int mount_upper(const char *dev, const char *fstype, struct cai_error *err)
{
	static const char what[] = "disk of the writable layer";
	if (!*dev) {
		if (mount("tmpfs", "/rw", "tmpfs", MS_NOATIME, "mode=0755") < 0)
			return cai_fail_errno(err, errno, "no memory file system for the writable layer");
		return 0;
	}
	const char *type = choose_type(what, dev, fstype, err);
	if (!type)
		return -1;
	return mount_disk(what, dev, type, "/rw", false, err);
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

/* dev, fstype: as above. */
static int mount_overlay(const char *dev, const char *fstype, int *upper_fd, struct cai_error *err)
{
	if (mount_upper(dev, fstype, err) < 0 || make_upper_dirs(err) < 0)
		return -1;
	if (*dev) {
		*upper_fd = open("/rw", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (*upper_fd < 0)
			return cai_fail_errno(err, errno, "cannot open the writable layer");
	}
	if (mount("overlay", NEWROOT, "overlay", MS_NOATIME, "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work") < 0)
		return cai_fail_errno(err, errno, "cannot put a writable layer over the root disk");
	return 0;
}

static void unmount_overlay(struct rootfs *r)
{
	if (r->upper_fd >= 0)
		close(steal_fd(&r->upper_fd));
	umount2(NEWROOT, MNT_DETACH);
	umount2("/rw", MNT_DETACH);
	r->overlay = false;
}

static void unmount_all(struct rootfs *r)
{
	unmount_overlay(r);
	umount2("/lower", MNT_DETACH);
	r->lower[0] = 0;
}

static int mount_lower(struct rootfs *r, const char *dev, const char *fstype, struct cai_error *err)
{
	static const char *const places[] = {NEWROOT, "/lower", "/rw"};
	const char *type = choose_type("root disk", dev, fstype, err);
	if (!type)
		return -1;
	for (size_t i = 0; i < ARRAY_LEN(places); i++)
		mkdir(places[i], 0755); /* the initramfs has them; a foreign one may not */
	if (mount_disk("root disk", dev, type, "/lower", true, err) < 0)
		return -1;
	snprintf(r->lower, sizeof(r->lower), "%s", dev);
	r->lower_type = type;
	return 0;
}

int rootfs_prepare(struct rootfs *r, const struct rootfs_plan *p, struct cai_error *err)
{
	const char *upper = p->upper_dev ? p->upper_dev : "";
	if (r->lower[0] && (strcmp(r->lower, p->dev) || r->overlay != p->overlay || (r->overlay && strcmp(r->upper, upper))))
		return cai_fail(err, EBUSY, "the root disk %s is mounted already", r->lower);
	if (strlen(p->dev) >= sizeof(r->lower) || strlen(upper) >= sizeof(r->upper))
		return cai_fail(err, EINVAL, "a disk's name is too long");
	if (r->lower[0])
		return rootfs_leave(r, err);
	if (mount_lower(r, p->dev, p->fstype, err) < 0)
		return -1;
	if (p->overlay && (mount_overlay(upper, p->upper_fstype, &r->upper_fd, err) < 0 || make_mount_points(false, err) < 0)) {
		unmount_all(r);
		return -1;
	}
	r->overlay = p->overlay;
	strcpy(r->upper, upper);
	return 0;
}

static bool same(const char *wanted, const char *there)
{
	return !wanted || !*wanted || !strcmp(wanted, there);
}

/* Does the lower file system that was prepared serve here? And the overlay with it? */
static bool lower_fits(const struct rootfs *r, const struct agent_setup *m)
{
	return r->lower[0] && m->root_mode != AGENT_ROOT_DIRECT && !strcmp(r->lower, m->root_dev) && same(m->root_fstype, r->lower_type);
}

static bool overlay_fits(const struct rootfs *r, const struct agent_setup *m)
{
	if (!r->overlay || !lower_fits(r, m))
		return false;
	if (m->root_mode == AGENT_ROOT_OVERLAY_DISK)
		return r->upper[0] && !strcmp(r->upper, m->upper_dev) && same(m->upper_fstype, "ext4");
	return m->root_mode == AGENT_ROOT_OVERLAY_TMPFS && !r->upper[0];
}

/* What m asks for, on /newroot. */
static int mount_root(struct rootfs *r, const struct agent_setup *m, struct cai_error *err)
{
	const bool disk = m->root_mode == AGENT_ROOT_OVERLAY_DISK, readonly = m->root_mode == AGENT_ROOT_READONLY;
	if (disk || m->root_mode == AGENT_ROOT_OVERLAY_TMPFS) {
		if (!r->lower[0] && mount_lower(r, m->root_dev, m->root_fstype, err) < 0)
			return -1;
		if (mount_overlay(disk ? m->upper_dev : "", m->upper_fstype, &r->upper_fd, err) < 0)
			return -1;
	} else if (r->lower[0]) {
		if (mount("/lower", NEWROOT, NULL, MS_MOVE, NULL) < 0)
			return cai_fail_errno(err, errno, "cannot mount the root disk");
		r->lower[0] = 0;
	} else {
		const char *type = choose_type("root disk", m->root_dev, m->root_fstype, err);
		mkdir(NEWROOT, 0755);
		if (!type || mount_disk("root disk", m->root_dev, type, NEWROOT, readonly, err) < 0)
			return -1;
	}
	return make_mount_points(readonly, err);
}

int rootfs_setup(struct rootfs *r, const struct agent_setup *m, struct cai_error *err)
{
	const bool fits = overlay_fits(r, m);
	if (fits && r->old_root >= 0)
		return 0;
	if (rootfs_leave(r, err) < 0)
		return -1;
	if (r->lower[0] && !lower_fits(r, m))
		unmount_all(r);
	else if (r->overlay && !fits)
		unmount_overlay(r);
	if (!fits && mount_root(r, m, err) < 0) {
		unmount_all(r);
		return -1;
	}
	return rootfs_enter(r, m->root_mode == AGENT_ROOT_READONLY, err);
}

void rootfs_finish(const struct rootfs *r)
{
	const int upper_fd = r->upper_fd;
	sync();
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	if (upper_fd < 0 || fchdir(upper_fd) < 0)
		return;
	if (mount(NULL, ".", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0 && ioctl(upper_fd, GUEST_FIFREEZE, 0) < 0)
		sync();
}

void rootfs_stay(void)
{
	mount_point("/tmp", 01777, NULL);
	mount_point("/run", 0755, NULL);
}

int rootfs_scratch(bool prepared, struct cai_error *err)
{
	int none = -1;
	if (prepared)
		return mount(NULL, NEWROOT, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOATIME, NULL) < 0
			       ? cai_fail_errno(err, errno, "cannot make the root file system read-only")
			       : 0;
	return mount_overlay("", "", &none, err) < 0 || make_mount_points(false, err) < 0 ? -1 : 0;
}

struct mount_spec {
	const char *type, *where, *options;
	unsigned long flags;
	mode_t mode;
	bool must; /* the guest is useless without it */
};

int rootfs_kernel_mounts(struct cai_error *err)
{
	static const struct mount_spec mounts[] = {
		{"proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555, false},
		{"sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0555, false},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0755, false},
		{"devtmpfs", "/dev", "mode=0755", MS_NOSUID, 0755, true},
		{"devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC, 0755, true},
		{"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV, 01777, false},
		{"mqueue", "/dev/mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0755, false},
	};
	static const char *const links[][2] = {
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	};
	for (size_t i = 0; i < ARRAY_LEN(mounts); i++) {
		const struct mount_spec *s = &mounts[i];
		mkdir(s->where, s->mode);
		if (mount(s->type, s->where, s->type, s->flags, s->options) < 0 && s->must)
			return cai_fail_errno(err, errno, "cannot mount %s in the guest", s->where);
	}
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			return cai_fail_errno(err, errno, "cannot make %s in the guest", links[i][1]);
	return 0;
}

static const char *const moved[] = {"/dev", "/proc", "/sys"};

int rootfs_enter(struct rootfs *r, bool readonly, struct cai_error *err)
{
	cleanup_close int old_root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_LEN(moved); i++) {
		char to[32];
		snprintf(to, sizeof(to), NEWROOT "%s", moved[i]);
		if (mount(moved[i], to, NULL, MS_MOVE, NULL) == 0)
			continue;
		if (strcmp(moved[i], "/sys") != 0)
			return cai_fail_errno(err, errno, "cannot switch to the root file system");
		umount2("/sys", MNT_DETACH);
	}
	if (old_root < 0 || chdir(NEWROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return cai_fail_errno(err, errno, "cannot switch to the root file system");
	r->old_root = steal_fd(&old_root);
	if (readonly) {
		mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
		mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	}
	return 0;
}

static int move_mount_to(int from, const char *to)
{
	return (int)syscall(GUEST_NR_MOVE_MOUNT, from, "", AT_FDCWD, to, GUEST_MOVE_F_EMPTY_PATH);
}

int rootfs_leave(struct rootfs *r, struct cai_error *err)
{
	if (r->old_root < 0)
		return 0;
	cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd[ARRAY_LEN(moved)], bad = 0;
	for (size_t i = 0; i < ARRAY_LEN(moved); i++)
		fd[i] = open(moved[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || fchdir(r->old_root) < 0 || chroot(".") < 0)
		bad = errno;
	for (size_t i = 0; i < ARRAY_LEN(moved); i++) {
		/* /sys may have been left out. */
		if (!bad && move_mount_to(fd[i], moved[i]) < 0 && strcmp(moved[i], "/sys") != 0)
			bad = errno;
		if (fd[i] >= 0)
			close(fd[i]);
	}
	if (!bad && move_mount_to(root, NEWROOT) < 0)
		bad = errno;
	if (bad)
		return cai_fail_errno(err, bad, "cannot leave the root file system");
	close(steal_fd(&r->old_root));
	return 0;
}
