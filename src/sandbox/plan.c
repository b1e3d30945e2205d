/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: all that can be wrong with a request is found here, in the order in which a user would
 * want to hear of it, before a directory or a process exists. What comes out is descriptors: the monitor
 * opens nothing itself, and what was checked is what is used, whatever happens to the names meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "proto/control.h"
#include "sandbox/paths.h"
#include "sandbox/plan.h"

static int open_regular(const char *what, const char *path, struct cai_error *err)
{
	struct stat st;
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot open the %s %s", what, path);
	if (!S_ISREG(st.st_mode))
		return cai_fail(err, EINVAL, "the %s %s is not a regular file", what, path);
	if (st.st_size == 0)
		return cai_fail(err, EINVAL, "the %s %s is empty", what, path);
	return steal_fd(&fd);
}

static int open_asset(const char *what, const char *given, enum paths_asset which, struct cai_error *err)
{
	if (given)
		return open_regular(what, given, err);
	cleanup_free char *own = paths_asset(which, err);
	return own ? open_regular(what, own, err) : -1;
}

/* One line from the file beside the kernel, then what the accelerator needs, then what the user appends, who
 * has the last word. */
static char *make_cmdline(const struct sandbox_plan *p, struct cai_error *err)
{
	const struct sandbox_spec *spec = p->spec;
	const char *accel = p->accel.kvm ? p->accel.verdict.cmdline : "";
	cleanup_free char *path = paths_asset(ASSET_CMDLINE, err);
	cleanup_free char *base = NULL;
	size_t len;
	if (!path || file_read_all(path, CONTROL_MAX_CMDLINE, &base, &len, err) < 0)
		return NULL;
	for (size_t i = 0; i < len; i++)
		if (base[i] == '\n' || base[i] == '\t')
			base[i] = ' ';
	while (len && base[len - 1] == ' ')
		base[--len] = 0;
	char *s;
	if (asprintf(&s, "%s%s%s%s%s%s", base, spec->debug ? " ignore_loglevel" : "", accel[0] ? " " : "",
		     accel, spec->append ? " " : "", spec->append ? spec->append : "") < 0) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (strlen(s) >= CONTROL_MAX_CMDLINE) {
		cai_fail(err, E2BIG,
			 "the kernel command line is too long: %zu bytes, at most %d are possible; shorten "
			 "--append",
			 strlen(s), CONTROL_MAX_CMDLINE - 1);
		free(s);
		return NULL;
	}
	return s;
}

static int fill_microvm(struct sandbox_plan *p, struct cai_error *err)
{
	const struct sandbox_spec *spec = p->spec;
	if (!(p->monitor = paths_libexec("caisson-vmm", err)))
		return -1;
	if ((p->kernel = open_asset("kernel", spec->kernel, ASSET_KERNEL, err)) < 0)
		return -1;
	if ((p->initrd = open_asset("initramfs", spec->initrd, ASSET_INITRD, err)) < 0)
		return -1;
	if (accel_choose(&p->store, spec, &p->accel, err) < 0 || !(p->cmdline = make_cmdline(p, err)))
		return -1;
	if (p->accel.kvm && (p->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)) < 0)
		return cai_fail_errno(err, errno, "cannot open /dev/kvm");
	p->boundary = p->accel.boundary;
	return 0;
}

static int fill_container(struct sandbox_plan *p, struct cai_error *err)
{
	p->boundary = BOUNDARY_NAMESPACE;
	cleanup_free char *agent = paths_libexec("caisson-init", err);
	return !agent || (p->agent = open_regular("agent", agent, err)) < 0 ? -1 : 0;
}

/* The image in the store: an EROFS file that never changes under its name. */
static int open_image(struct sandbox_plan *p, struct cai_error *err)
{
	const struct sandbox_spec *spec = p->spec;
	char path[128];
	const char *hex = strchr(spec->image_id, ':');
	if (!hex || strlen(hex) != 65 || strspn(hex + 1, "0123456789abcdef") != 64)
		return cai_fail(err, EINVAL, "the sandbox's record names no image");
	snprintf(path, sizeof(path), "images/%s.erofs", hex + 1);
	p->root.fd = openat(p->store.root_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	p->root.fstype = "erofs";
	if (p->root.fd < 0)
		return cai_fail_errno(err, errno, "the image %s (%.19s) cannot be opened; 'caisson pull' it again",
				      spec->image ? spec->image : "", spec->image_id);
	return 0;
}

static int fill(struct sandbox_plan *p, struct cai_error *err)
{
	const struct sandbox_spec *spec = p->spec;
	if (sandbox_spec_check(spec, err) < 0)
		return -1;
	if (store_open(&p->store, err) < 0)
		return -1;
	if ((spec->engine == ENGINE_CONTAINER ? fill_container : fill_microvm)(p, err) < 0)
		return -1;
	if (spec->image_id)
		return open_image(p, err);
	return rootfs_open(spec->rootfs, &p->root, err);
}

int sandbox_plan_make(struct sandbox_plan *p, const struct sandbox_spec *spec, struct cai_error *err)
{
	*p = (struct sandbox_plan){.spec = spec,
				   .store = {.root_fd = -1, .dir_fd = -1},
				   .root.fd = -1,
				   .kernel = -1,
				   .initrd = -1,
				   .kvm = -1,
				   .agent = -1,
				   .restore_dir = -1};
	if (fill(p, err) == 0)
		return 0;
	sandbox_plan_free(p);
	return -1;
}

void sandbox_plan_free(struct sandbox_plan *p)
{
	store_close(&p->store);
	rootfs_close(&p->root);
	int *fds[] = {&p->kernel, &p->initrd, &p->kvm, &p->agent, &p->restore_dir};
	for (unsigned i = 0; i < 5; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	free(p->monitor);
	free(p->cmdline);
	p->monitor = p->cmdline = NULL;
}
