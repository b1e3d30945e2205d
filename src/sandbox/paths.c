/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: every place is the first of an ordered list: an environment variable for tests and
 * packagers, then what is relative to the running program, so that an installed tree can be moved and a build
 * tree needs no installation. The root directory is the only one whose ownership matters for safety
 * (sockets that command a monitor live in it), so it alone is opened without following links and checked
 * after the open.
 */
#include "sandbox/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

char *path_join(const char *a, const char *b)
{
	char *s;
	return asprintf(&s, "%s/%s", a, b) < 0 ? NULL : s;
}

int make_dirs(const char *path, unsigned mode)
{
	cleanup_free char *p = strdup(path);
	if (!p) {
		errno = ENOMEM;
		return -1;
	}
	for (char *s = p + 1;; s++) {
		if (*s != '/' && *s)
			continue;
		char c = *s;
		*s = 0;
		if (mkdir(p, mode) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
			return -1;
		*s = c;
		if (!c)
			break;
	}
	struct stat st;
	if (stat(path, &st) < 0)
		return -1;
	if (!S_ISDIR(st.st_mode)) {
		errno = ENOTDIR;
		return -1;
	}
	return 0;
}

void host_boot_id(char out[40])
{
	memset(out, 0, 40);
	cleanup_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || file_read_full(fd, out, 36) != 36)
		strcpy(out, "unknown");
}

static const char *env_path(const char *name)
{
	const char *v = getenv(name);
	return v && v[0] == '/' ? v : NULL; /* relative ones are ignored, as the XDG specification asks */
}

int paths_root(char **path, struct cai_error *err)
{
	cleanup_free char *p = NULL;
	const char *root = getenv("CAISSON_ROOT"), *xdg = env_path("XDG_DATA_HOME"), *home = env_path("HOME");
	uid_t me = geteuid();
	int r = 0;
	if (root && *root) {
		if (root[0] != '/')
			return cai_fail(err, EINVAL, "the root directory must be an absolute path, not '%s'", root);
		r = asprintf(&p, "%s", root);
	} else if (me == 0) {
		r = asprintf(&p, "/var/lib/caisson");
	} else if (xdg) {
		r = asprintf(&p, "%s/caisson", xdg);
	} else if (home) {
		r = asprintf(&p, "%s/.local/share/caisson", home);
	} else {
		return cai_fail(err, ENOENT, "no place for sandboxes: set HOME or CAISSON_ROOT");
	}
	if (r < 0)
		return cai_fail(err, ENOMEM, "out of memory");
	cleanup_close int fd = open(p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		if (mkdir(p, 0700) < 0 && errno != EEXIST && make_dirs(p, 0700) < 0)
			return cai_fail_errno(err, errno, "cannot make the root directory %s", p);
		fd = open(p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open the root directory %s", p);
	struct stat st;
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot look at the root directory %s", p);
	if (st.st_uid != me)
		return cai_fail(
		    err, EPERM,
		    "the root directory %s belongs to user %u, not to you; remove it or set CAISSON_ROOT",
		    p, (unsigned)st.st_uid);
	if (st.st_mode & 022)
		return cai_fail(err, EPERM, "other users may write to the root directory %s; chmod 0700 it or set CAISSON_ROOT", p);
	*path = steal_ptr(&p);
	return steal_fd(&fd);
}

static char *home_place(const char *xdg_var, const char *for_root, const char *below_home, const char *what,
			struct cai_error *err)
{
	cleanup_free char *p = NULL;
	const char *xdg = env_path(xdg_var), *home = env_path("HOME");
	int r;
	if (xdg)
		r = asprintf(&p, "%s/caisson", xdg);
	else if (geteuid() == 0)
		r = asprintf(&p, "%s", for_root);
	else if (home)
		r = asprintf(&p, "%s/%s", home, below_home);
	else {
		cai_fail(err, ENOENT, "no place for the %s: neither %s nor HOME is set", what, xdg_var);
		return NULL;
	}
	if (r < 0) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (make_dirs(p, 0700) < 0) {
		cai_fail_errno(err, errno, "cannot make the %s %s", what, p);
		return NULL;
	}
	return steal_ptr(&p);
}

char *paths_cache(struct cai_error *err)
{
	return home_place("XDG_CACHE_HOME", "/var/cache/caisson", ".cache/caisson", "cache directory", err);
}

char *paths_state(struct cai_error *err)
{
	return home_place("XDG_STATE_HOME", "/var/lib/caisson", ".local/state/caisson", "state directory",
			  err);
}

/* The directory of the running program, in out; false where /proc is not mounted. */
static bool self_dir(char out[4096])
{
	ssize_t n = readlink("/proc/self/exe", out, 4095);
	if (n <= 0)
		return false;
	out[n] = 0;
	char *slash = strrchr(out, '/');
	if (!slash)
		return false;
	*slash = 0;
	return true;
}

/* The first of DIR/REL over the NULL-terminated rel list that exists. */
static char *first_existing(const char *dir, const char *const *rel)
{
	for (; *rel; rel++) {
		char *p = path_join(dir, *rel);
		if (p && access(p, R_OK) == 0) {
			char *plain = realpath(p, NULL); /* without "..", for people */
			if (plain)
				free(p);
			return plain ? plain : p;
		}
		free(p);
	}
	return NULL;
}

char *paths_libexec(const char *name, struct cai_error *err)
{
	char dir[4096], place[6][128];
	const char *tries[7] = {0};
	const char *env = getenv("CAISSON_LIBEXEC");
	if (env && *env) {
		char *p = path_join(env, name);
		if (p && access(p, X_OK) == 0)
			return p;
		cai_fail_errno(err, p ? errno : ENOMEM, "CAISSON_LIBEXEC holds no usable %s (%s)", name,
			       p ? p : env);
		free(p);
		return NULL;
	}
	if (!self_dir(dir)) {
		cai_fail(err, ENOENT,
			 "cannot tell where this program is (is /proc mounted?); set CAISSON_LIBEXEC");
		return NULL;
	}
	static const char *const parents[6] = {"libexec/caisson", "vmm", "image", "fs", "net", "guest"};
	for (unsigned i = 0; i < 6; i++) {
		snprintf(place[i], sizeof(place[i]), "../%s/%s", parents[i], name);
		tries[i] = place[i];
	}
	char *p = first_existing(dir, tries);
	if (!p)
		cai_fail(err, ENOENT,
			 "%s is missing: neither %s/%s nor the build tree's exists; install Caisson again or "
			 "set CAISSON_LIBEXEC",
			 name, dir, place[0]);
	return p;
}

char *paths_asset(enum paths_asset which, struct cai_error *err)
{
	/* name in share/caisson, what it is, how to get it; then the places in a build tree, from
	 * BUILD/src/cli */
	static const struct {
		const char *name, *what, *mend, *tree[3];
	} assets[] = {
	    [ASSET_KERNEL] = {"vmlinux",
			      "the guest kernel",
			      "build it with 'make kernel' or pass --kernel FILE",
			      {"../../kernel/vmlinux"}},
	    [ASSET_INITRD] = {"initramfs.cpio",
			      "the guest's initramfs",
			      "run 'make'",
			      {"../guest/initramfs.cpio"}},
	    [ASSET_BUSYBOX] = {"busybox.erofs",
			       "the built-in image",
			       "run 'make' or pass --rootfs DIR",
			       {"../guest/busybox.erofs"}},
	    [ASSET_CMDLINE] = {"cmdline",
			       "the guest kernel's command line",
			       "run 'make'",
			       {"../../kernel/cmdline", "../../../kernel/cmdline"}},
	};
	char dir[4096];
	const char *env = getenv("CAISSON_SHARE"), *name = assets[which].name;
	if (env && *env) {
		char *p = path_join(env, name);
		if (p && access(p, R_OK) == 0)
			return p;
		cai_fail_errno(err, p ? errno : ENOMEM, "CAISSON_SHARE holds no readable %s (%s)", name,
			       p ? p : env);
		free(p);
		return NULL;
	}
	if (!self_dir(dir)) {
		cai_fail(err, ENOENT,
			 "cannot tell where this program is (is /proc mounted?); set CAISSON_SHARE");
		return NULL;
	}
	char share[64];
	snprintf(share, sizeof(share), "../share/caisson/%s", name);
	char *p = first_existing(
	    dir, (const char *const[]){share, assets[which].tree[0], assets[which].tree[1], NULL});
	if (!p)
		cai_fail(err, ENOENT, "%s is missing (%s/%s); %s", assets[which].what, dir, share,
			 assets[which].mend);
	return p;
}
