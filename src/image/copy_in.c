/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a name from the archive is cut into parts and looked at before anything else is done
 * with it: ".." is refused, the first part must be the one that was asked for. What is left is walked one
 * part at a time from the descriptor of dest, with openat2(2) that takes neither links nor magic links, so
 * that every call that changes something names one plain entry of a directory that is held open. That alone
 * keeps the writing below dest; the confinement (dest as the root of a mount namespace, Landlock, a system
 * call filter) is the second wall.
 *
 * Directories get their mode and time at the end, deepest first: a directory without write permission could
 * not be filled, and filling it would change its time.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <locale.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/confine.h"
#include "image/copy.h"

#define MAX_NAME     4095u
#define MAX_DEPTH    512u
#define MAX_LEFT_OUT 20u /* so many are told one by one */
#define CHUNK	     (256u << 10)

struct made_dir {
	struct made_dir *next; /* the one made before */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
	bool known; /* the archive has an entry for it, else it was only on the way */
	char path[];
};

/* A file that this archive brought: what hard links may lead to. */
struct made_file {
	dev_t dev;
	ino_t ino;
};

struct extractor {
	struct archive *a;
	const struct copy_in_options *o;
	struct copy_result *r;
	struct cai_error *err;
	int root; /* dest */
	char from[256];
	struct made_dir *dirs;
	void *files;   /* tsearch of struct made_file */
	void *by_path; /* tsearch of struct made_dir */
	/* the directory used last */
	int dir;
	char dir_path[MAX_NAME + 1];
};

static int by_inode(const void *a, const void *b)
{
	const struct made_file *x = a, *y = b;
	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int by_dir_path(const void *a, const void *b)
{
	return strcmp(((const struct made_dir *)a)->path, ((const struct made_dir *)b)->path);
}

/* A name without what a terminal would obey. Borrowed from out. */
static const char *printable(const char *s, char out[256])
{
	size_t n = 0;
	for (; *s && n < 255; s++)
		out[n++] = (unsigned char)*s < 32 || *s == 127 ? '?' : *s;
	out[n] = 0;
	return out;
}

static void leave_out(struct extractor *x, const char *path, const char *why)
{
	char text[256];
	if (++x->r->left_out <= MAX_LEFT_OUT)
		fprintf(stderr, "caisson: left out %s: %s\n", printable(path, text), why);
	else if (x->r->left_out == MAX_LEFT_OUT + 1)
		fputs("caisson: and more is left out\n", stderr);
}

static bool is_part(const char *s, size_t n, const char *want)
{
	return strlen(want) == n && !strncmp(s, want, n);
}

/* Adds one part to a path of *len bytes. */
static int add_part(char out[MAX_NAME + 1], size_t *len, const char *part, size_t n)
{
	if (*len + n + 1 > MAX_NAME)
		return -1;
	if (*len)
		out[(*len)++] = '/';
	memcpy(out + *len, part, n);
	*len += n;
	out[*len] = 0;
	return 0;
}

static int bad_name(struct extractor *x, const char *name, const char *why)
{
	char text[256];
	return cai_fail(x->err, EINVAL, "the archive's entry '%s' %s", printable(name, text), why);
}

/*
 * Where the archive's name leads, relative to dest ("" is dest itself): the first part is checked and
 * replaced; empty parts and "." go.
 */
static int map_name(struct extractor *x, const char *in, char out[MAX_NAME + 1])
{
	const struct copy_in_options *o = x->o;
	size_t len = 0;
	unsigned parts = 0;
	out[0] = 0;
	if (!x->from[0]) { /* the first entry decides */
		const char *s = in + strspn(in, "/");
		snprintf(x->from, sizeof(x->from), "%.*s", (int)(s[0] ? strcspn(s, "/") : 1), s[0] ? s : ".");
	}
	bool matched = !strcmp(x->from, ".");
	if (matched && !o->contents && o->name && add_part(out, &len, o->name, strlen(o->name)) < 0)
		return bad_name(x, in, "has too long a name");
	for (const char *s = in; *s;) {
		const char *part = s;
		size_t n = strcspn(s, "/");
		s += n;
		s += strspn(s, "/");
		if (!n || is_part(part, n, "."))
			continue;
		if (is_part(part, n, ".."))
			return bad_name(x, in, "leads out of the directory");
		if (n > 255 || ++parts > MAX_DEPTH)
			return bad_name(x, in, "has too long a name");
		if (!matched) {
			if (!is_part(part, n, x->from))
				break;
			matched = true;
			if (o->contents)
				continue;
			if (o->name) {
				part = o->name;
				n = strlen(part);
			}
		}
		if (add_part(out, &len, part, n) < 0)
			return bad_name(x, in, "has too long a name");
	}
	return matched ? 0 : bad_name(x, in, "is not below the name that was asked for");
}

static int open_below(int dir, const char *path, int flags)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	return (int)syscall(SYS_openat2, dir, path[0] ? path : ".", &how, sizeof(how));
}

static int in_the_way(struct extractor *x, const char *path, int e)
{
	char text[256];
	if (e == ELOOP || e == ENOTDIR)
		return cai_fail(x->err, e, "there is something other than a directory on the way to '%s'",
				printable(path, text));
	return cai_fail_errno(x->err, e, "cannot make '%s'", printable(path, text));
}

static struct made_dir *find_dir(struct extractor *x, const char *path)
{
	struct made_dir *key = malloc(sizeof(*key) + strlen(path) + 1);
	if (!key)
		return NULL;
	strcpy(key->path, path);
	void *p = tfind(key, &x->by_path, by_dir_path);
	free(key);
	return p ? *(struct made_dir **)p : NULL;
}

/* Makes one directory, unless it is there; what was made gets its mode at the end. */
static int make_dir(struct extractor *x, int parent, const char *name, const char *path)
{
	struct stat st;
	if (mkdirat(parent, name, 0700) < 0) {
		if (errno != EEXIST)
			return in_the_way(x, path, errno);
		if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
			return in_the_way(x, path, ENOTDIR);
		return 0;
	}
	struct made_dir *d = calloc(1, sizeof(*d) + strlen(path) + 1);
	if (!d)
		return cai_fail(x->err, ENOMEM, "out of memory");
	strcpy(d->path, path);
	d->mode = 0755;
	if (!tsearch(d, &x->by_path, by_dir_path)) {
		free(d);
		return cai_fail(x->err, ENOMEM, "out of memory");
	}
	d->next = x->dirs;
	x->dirs = d;
	return 0;
}

/* Makes what is missing of path, which is a directory's; gives a descriptor. */
static int make_path(struct extractor *x, const char *path)
{
	char so_far[MAX_NAME + 1] = "";
	size_t len = 0;
	cleanup_close int at = open_below(x->root, "", O_PATH | O_DIRECTORY);
	for (const char *s = path; *s && at >= 0;) {
		char part[256];
		size_t n = strcspn(s, "/");
		memcpy(part, s, n);
		part[n] = 0;
		s += n + (s[n] == '/');
		add_part(so_far, &len, part, n);
		if (make_dir(x, at, part, so_far) < 0)
			return -1;
		int next = open_below(at, part, O_PATH | O_DIRECTORY);
		int e = errno;
		close(at);
		at = next;
		if (at < 0)
			return in_the_way(x, so_far, e);
	}
	return at < 0 ? in_the_way(x, path, errno) : steal_fd(&at);
}

/* The directory that holds path, made when absent; *name is path's last part. Borrowed. */
static int parent_of(struct extractor *x, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) : 0;
	*name = slash ? slash + 1 : path;
	if (x->dir >= 0 && strlen(x->dir_path) == n && !strncmp(x->dir_path, path, n))
		return x->dir;
	if (x->dir >= 0)
		close(x->dir);
	memcpy(x->dir_path, path, n);
	x->dir_path[n] = 0;
	x->dir = open_below(x->root, x->dir_path, O_PATH | O_DIRECTORY);
	if (x->dir < 0 && errno == ENOENT)
		x->dir = make_path(x, x->dir_path);
	else if (x->dir < 0)
		in_the_way(x, x->dir_path, errno);
	return x->dir;
}

/* Makes room for something that is no directory. */
static int clear_name(struct extractor *x, int parent, const char *name, const char *path)
{
	char text[256];
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno == EISDIR || errno == EPERM) {
		struct stat st;
		if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
			return cai_fail(x->err, EISDIR, "'%s' is a directory here, but not in the archive",
					printable(path, text));
		errno = EPERM;
	}
	return cai_fail_errno(x->err, errno, "cannot replace '%s'", printable(path, text));
}

static struct timespec mtime_of(struct archive_entry *e)
{
	struct timespec t = {.tv_sec = archive_entry_mtime(e), .tv_nsec = archive_entry_mtime_nsec(e)};
	if (t.tv_nsec < 0 || t.tv_nsec >= 1000000000)
		t.tv_nsec = 0;
	return t;
}

static mode_t mode_of(struct extractor *x, struct archive_entry *e)
{
	return archive_entry_perm(e) & (x->o->owner ? 07777 : 01777);
}

static int owner_of(struct extractor *x, struct archive_entry *e, const char *path, uid_t *uid, gid_t *gid)
{
	la_int64_t u = archive_entry_uid(e), g = archive_entry_gid(e);
	if (u < 0 || u >= UINT32_MAX || g < 0 || g >= UINT32_MAX)
		return bad_name(x, path, "has an impossible owner");
	*uid = (uid_t)u;
	*gid = (gid_t)g;
	return 0;
}

static int note_file(struct extractor *x, int parent, const char *name)
{
	struct stat st;
	struct made_file *f;
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* somebody took it away */
	if (!(f = malloc(sizeof(*f))))
		return cai_fail(x->err, ENOMEM, "out of memory");
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	struct made_file **p = tsearch(f, &x->files, by_inode);
	if (!p || *p != f)
		free(f);
	return p ? 0 : cai_fail(x->err, ENOMEM, "out of memory");
}

static int copy_contents(struct extractor *x, int fd, la_int64_t size, const char *path)
{
	char text[256];
	const void *p;
	size_t n;
	la_int64_t off;
	int r;
	while ((r = archive_read_data_block(x->a, &p, &n, &off)) == ARCHIVE_OK) {
		if (off < 0 || off > size || n > (uint64_t)(size - off))
			return bad_name(x, path, "has more contents than its size says");
		for (size_t put = 0; put < n;) {
			ssize_t w = pwrite(fd, (const char *)p + put, n - put, off + (la_int64_t)put);
			if (w < 0 && errno == EINTR)
				continue;
			if (w <= 0)
				return cai_fail_errno(x->err, errno, "cannot write '%s'",
						      printable(path, text));
			put += (size_t)w;
		}
		x->r->bytes += n;
	}
	if (r != ARCHIVE_EOF)
		return cai_fail(x->err, EIO, "the archive ends or is damaged within '%s'",
				printable(path, text));
	if (ftruncate(fd, size) < 0)
		return cai_fail_errno(x->err, errno, "cannot write '%s'", printable(path, text));
	return 0;
}

static int put_file(struct extractor *x, struct archive_entry *e, int parent, const char *name,
		    const char *path)
{
	char text[256];
	uid_t uid = 0;
	gid_t gid = 0;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, mtime_of(e)};
	if (archive_entry_size(e) < 0 || (x->o->owner && owner_of(x, e, path, &uid, &gid) < 0))
		return bad_name(x, path, "has an impossible size or owner");
	if (clear_name(x, parent, name, path) < 0)
		return -1;
	cleanup_close int fd =
	    openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return cai_fail_errno(x->err, errno, "cannot make '%s'", printable(path, text));
	if (note_file(x, parent, name) < 0 || copy_contents(x, fd, archive_entry_size(e), path) < 0)
		return -1;
	if ((x->o->owner && fchown(fd, uid, gid) < 0) || fchmod(fd, mode_of(x, e)) < 0)
		return cai_fail_errno(x->err, errno, "cannot set the owner or mode of '%s'",
				      printable(path, text));
	futimens(fd, times); /* a file system that has no such times keeps its own */
	return 0;
}

/* Symbolic links and FIFOs. */
static int put_special(struct extractor *x, struct archive_entry *e, int parent, const char *name,
		       const char *path)
{
	char text[256];
	uid_t uid = 0;
	gid_t gid = 0;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, mtime_of(e)};
	const char *target = archive_entry_symlink(e);
	bool link = archive_entry_filetype(e) == AE_IFLNK;
	if (link && (!target || !target[0] || strlen(target) > 4095))
		return bad_name(x, path, "is a symbolic link without a target, or with too long a one");
	if (x->o->owner && owner_of(x, e, path, &uid, &gid) < 0)
		return -1;
	if (clear_name(x, parent, name, path) < 0)
		return -1;
	if ((link ? symlinkat(target, parent, name)
		  : mknodat(parent, name, S_IFIFO | (mode_of(x, e) & 0777), 0)) < 0 ||
	    (x->o->owner && fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0))
		return cai_fail_errno(x->err, errno, "cannot make '%s'", printable(path, text));
	utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW);
	return note_file(x, parent, name);
}

static int put_link(struct extractor *x, const char *target, int parent, const char *name, const char *path)
{
	char to[MAX_NAME + 1], text[256];
	struct stat st;
	if (map_name(x, target, to) < 0)
		return -1;
	char *slash = strrchr(to, '/');
	if (slash)
		*slash = 0;
	cleanup_close int dir = open_below(x->root, slash ? to : "", O_PATH | O_DIRECTORY);
	const char *last = slash ? slash + 1 : to;
	if (dir < 0 || fstatat(dir, last, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !tfind(&(struct made_file){st.st_dev, st.st_ino}, &x->files, by_inode))
		return bad_name(x, path, "is a hard link to what the archive has not brought");
	struct stat now;
	if (fstatat(parent, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev == st.st_dev &&
	    now.st_ino == st.st_ino)
		return 0;
	if (clear_name(x, parent, name, path) < 0)
		return -1;
	if (linkat(dir, last, parent, name, 0) < 0)
		return cai_fail_errno(x->err, errno, "cannot link '%s'", printable(path, text));
	return 0;
}

static int put_dir(struct extractor *x, struct archive_entry *e, const char *path)
{
	const char *name;
	int parent = parent_of(x, path, &name);
	if (parent < 0 || make_dir(x, parent, name, path) < 0)
		return -1;
	struct made_dir *d = find_dir(x, path);
	if (!d)
		return 0; /* it was there, and stays as it was */
	if (x->o->owner && owner_of(x, e, path, &d->uid, &d->gid) < 0)
		return -1;
	d->mode = mode_of(x, e);
	d->mtime = mtime_of(e);
	d->known = true;
	return 0;
}

static int one_entry(struct extractor *x, struct archive_entry *e)
{
	char path[MAX_NAME + 1];
	const char *in = archive_entry_pathname(e), *hard = archive_entry_hardlink(e), *name;
	if (!in || !in[0])
		return cai_fail(x->err, EINVAL, "an entry of the archive has no name");
	if (map_name(x, in, path) < 0)
		return -1;
	x->r->entries++;
	mode_t type = archive_entry_filetype(e);
	if (!hard && (type == AE_IFCHR || type == AE_IFBLK || type == AE_IFSOCK)) {
		leave_out(x, in, type == AE_IFSOCK ? "a socket" : "a device");
		return 0;
	}
	if (!path[0])
		return type == AE_IFDIR && !hard ? 0 : bad_name(x, in, "is no directory");
	if (!hard && type == AE_IFDIR)
		return put_dir(x, e, path);
	int parent = parent_of(x, path, &name);
	if (parent < 0)
		return -1;
	if (hard)
		return put_link(x, hard, parent, name, path);
	if (type == AE_IFREG)
		return put_file(x, e, parent, name, path);
	if (type == AE_IFLNK || type == AE_IFIFO)
		return put_special(x, e, parent, name, path);
	leave_out(x, in, "of a kind that Caisson does not know");
	return 0;
}

/* Modes, owners and times of the directories that were made: the last first, so that what is below comes
 * before what holds it. */
static int finish_dirs(struct extractor *x, bool report)
{
	int r = 0;
	for (struct made_dir *d = x->dirs; d; d = d->next) {
		char text[256];
		struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, d->mtime};
		cleanup_close int fd = open_below(x->root, d->path, O_RDONLY | O_DIRECTORY);
		if (fd < 0)
			continue; /* somebody took it away */
		if (((x->o->owner && d->known && fchown(fd, d->uid, d->gid) < 0) ||
		     fchmod(fd, d->mode) < 0) &&
		    report && r == 0)
			r = cai_fail_errno(x->err, errno, "cannot set the owner or mode of '%s'",
					   printable(d->path, text));
		if (d->known)
			futimens(fd, times);
	}
	return r;
}

static int read_all(struct extractor *x)
{
	struct archive_entry *e;
	char text[256];
	int r;
	while ((r = archive_read_next_header(x->a, &e)) == ARCHIVE_OK || r == ARCHIVE_WARN)
		if (one_entry(x, e) < 0)
			return -1;
	if (r == ARCHIVE_EOF && x->r->entries)
		return 0;
	const char *why = r == ARCHIVE_EOF ? "it is empty" : archive_error_string(x->a);
	return cai_fail(x->err, EIO, "what comes is no whole tar archive: %s",
			printable(why ? why : "it is damaged", text));
}

static int check_options(const struct copy_in_options *o, struct cai_error *err)
{
	const char *names[] = {o->from, o->name};
	for (unsigned k = 0; k < 2; k++) {
		const char *s = names[k];
		if (s && (!s[0] || strchr(s, '/') || !strcmp(s, "..") || strlen(s) > 255 ||
			  (k == 1 && !strcmp(s, "."))))
			return cai_fail(err, EINVAL, "'%.100s' is no name for an entry", s);
	}
	if (o->owner && geteuid() != 0)
		return cai_fail(err, EPERM, "only root can keep owners");
	return 0;
}

static void free_all(struct extractor *x)
{
	archive_read_free(x->a);
	while (x->by_path) {
		struct made_dir *d = *(struct made_dir **)x->by_path;
		tdelete(d, &x->by_path, by_dir_path);
		free(d);
	}
	tdestroy(x->files, free);
	if (x->dir >= 0)
		close(x->dir);
	if (x->root >= 0)
		close(x->root);
}

int copy_in_at(int dir, const struct copy_in_options *o, int in, struct copy_result *r, struct cai_error *err)
{
	struct extractor x = {.o = o, .r = r, .err = err, .dir = -1};
	memset(r, 0, sizeof(*r));
	if (check_options(o, err) < 0)
		return -1;
	if (o->from)
		snprintf(x.from, sizeof(x.from), "%s", o->from);
	x.root = open_below(dir, "", O_PATH | O_DIRECTORY);
	x.a = archive_read_new();
	int ok = x.root < 0 ? cai_fail_errno(err, errno, "cannot open the directory") : 0;
	if (ok == 0 && !x.a)
		ok = cai_fail(err, ENOMEM, "out of memory");
	if (ok == 0) {
		archive_read_support_format_tar(x.a);
		archive_read_support_format_empty(x.a);
		if (archive_read_open_fd(x.a, in, CHUNK) != ARCHIVE_OK)
			ok = cai_fail(err, EIO, "what comes is no tar archive");
	}
	if (ok == 0)
		ok = read_all(&x);
	/* Padding behind the archive's end: whoever writes it should not find the pipe closed. */
	uint8_t rest[4096];
	for (unsigned k = 0; k < 1024 && ok == 0 && read(in, rest, sizeof(rest)) > 0; k++)
		;
	if (x.root >= 0) {
		int done = finish_dirs(&x, ok == 0);
		ok = ok < 0 ? ok : done;
	}
	free_all(&x);
	return ok;
}

int copy_in(const char *dest, const struct copy_in_options *o, int in, struct copy_result *r,
	    struct cai_error *err)
{
	setlocale(LC_CTYPE, "C.UTF-8"); /* its tables come from a file */
	if (check_options(o, err) < 0)
		return -1;
	cleanup_close int dir = open(dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return cai_fail_errno(err, errno, "cannot open the directory %.300s", dest);
	struct confine_limits limits = {.memory = 2ull << 30, .file = UINT64_MAX};
	umask(0);
	if (confine_enter(&limits, o->owner ? CONFINE_WRITE_TREE_OWNERS : CONFINE_WRITE_TREE, dir, err) < 0)
		return -1;
	return copy_in_at(dir, o, in, r, err);
}
