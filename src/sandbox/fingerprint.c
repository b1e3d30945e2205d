/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a walk by descriptors (openat, fstatat, never following links), each directory's names
 * sorted so that the order in which the file system lists them does not matter. A file changed without a new
 * ctime would be missed; ctime cannot be set by programs, but its clock is coarse (up to 10 ms), so a caller
 * must not trust a fingerprint whose newest ctime is within that of the scan (rootfs.c waits it out).
 *
 * The hash is SipHash-2-4 (Aumasson and Bernstein, 2012) with a fixed key: fast, and without the accidental
 * collisions that a plain sum of fields invites. It guards against mistakes, not against the owner of the
 * tree.
 */
#include "sandbox/fingerprint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define MAX_DEPTH 256 /* one descriptor a level; path names end at 4096 bytes anyway */

static uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static void rounds(uint64_t v[4], unsigned n)
{
	while (n--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotl(v[1], 13) ^ v[0];
		v[3] = rotl(v[3], 16) ^ v[2];
		v[0] = rotl(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotl(v[1], 17) ^ v[2];
		v[3] = rotl(v[3], 21) ^ v[0];
		v[2] = rotl(v[2], 32);
	}
}

void siphash_init(struct siphash *h)
{
	const uint64_t k0 = 0x0706050403020100, k1 = 0x0f0e0d0c0b0a0908;
	*h = (struct siphash){.v = {0x736f6d6570736575 ^ k0, 0x646f72616e646f6d ^ k1 ^ 0xee,
				    0x6c7967656e657261 ^ k0, 0x7465646279746573 ^ k1}};
}

static void word(struct siphash *h, uint64_t m)
{
	h->v[3] ^= m;
	rounds(h->v, 2);
	h->v[0] ^= m;
}

void siphash_add(struct siphash *h, const void *p, uint64_t n)
{
	const uint8_t *b = p;
	h->total += n;
	while (n) {
		if (h->n_tail == 0 && n >= 8) {
			word(h, load_le64(b));
			b += 8;
			n -= 8;
			continue;
		}
		h->tail |= (uint64_t)*b++ << (8 * h->n_tail);
		n--;
		if (++h->n_tail == 8) {
			word(h, h->tail);
			h->tail = 0;
			h->n_tail = 0;
		}
	}
}

void siphash_end(struct siphash *h, uint64_t out[2])
{
	word(h, h->tail | h->total << 56);
	h->v[2] ^= 0xee;
	rounds(h->v, 4);
	out[0] = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
	h->v[1] ^= 0xdd;
	rounds(h->v, 4);
	out[1] = h->v[0] ^ h->v[1] ^ h->v[2] ^ h->v[3];
}

struct walk {
	struct siphash hash;
	struct fingerprint *f;
	dev_t dev;
	const char *top;
};

struct names {
	char **p;
	size_t n, cap;
};

static void cleanup_names(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->p[i]);
	free(l->p);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_names(DIR *d, struct names *l)
{
	for (struct dirent *e; errno = 0, (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (l->n == l->cap) {
			size_t cap = l->cap ? l->cap * 2 : 32;
			char **p = realloc(l->p, cap * sizeof(*p));
			if (!p)
				return -1;
			l->p = p;
			l->cap = cap;
		}
		if (!(l->p[l->n] = strdup(e->d_name)))
			return -1;
		l->n++;
	}
	if (errno)
		return -1;
	if (l->n)
		qsort(l->p, l->n, sizeof(*l->p), by_name);
	return 0;
}

static void add_entry(struct walk *w, const char *name, const struct stat *st, unsigned depth)
{
	int64_t mtime = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
	int64_t ctime_ns = (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
	uint64_t v[9] = {depth, st->st_mode, st->st_ino, (uint64_t)st->st_uid << 32 | st->st_gid, st->st_rdev,
			 /* a directory's size says how its file system packs names, no more */
			 S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size, (uint64_t)mtime,
			 (uint64_t)ctime_ns, strlen(name)};
	siphash_add(&w->hash, v, sizeof(v));
	siphash_add(&w->hash, name, strlen(name));
	w->f->entries++;
	if (S_ISREG(st->st_mode))
		w->f->bytes += (uint64_t)st->st_size;
	if (ctime_ns > w->f->newest_ns)
		w->f->newest_ns = ctime_ns;
}

/* fd is the directory's, taken over. */
static int walk_dir(struct walk *w, int fd, const char *name, unsigned depth, struct cai_error *err)
{
	cleanup_closedir DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	__attribute__((cleanup(cleanup_names))) struct names l = {0};
	if (list_names(d, &l) < 0)
		return cai_fail_errno(err, errno, "cannot list '%s' below %s", name, w->top);
	for (size_t i = 0; i < l.n; i++) {
		struct stat st;
		if (fstatat(fd, l.p[i], &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
			if (errno == ENOENT)
				continue; /* removed while we look: the rescan after the image is made will
					     differ */
			return cai_fail_errno(err, errno, "cannot look at '%s/%s' below %s", name, l.p[i],
					      w->top);
		}
		add_entry(w, l.p[i], &st, depth);
		if (!S_ISDIR(st.st_mode))
			continue;
		if (st.st_dev != w->dev)
			return cai_fail(
			    err, EXDEV,
			    "'%s/%s' below %s is another mounted file system; unmount it or copy the tree",
			    name, l.p[i], w->top);
		if (depth >= MAX_DEPTH)
			return cai_fail(err, ELOOP, "%s is more than %d directories deep", w->top, MAX_DEPTH);
		int sub = openat(fd, l.p[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0 && errno == ENOENT)
			continue;
		if (sub < 0)
			return cai_fail_errno(err, errno, "cannot read the directory '%s/%s' below %s", name,
					      l.p[i], w->top);
		if (walk_dir(w, sub, l.p[i], depth + 1, err) < 0)
			return -1;
	}
	return 0;
}

int fingerprint_tree(const char *path, struct fingerprint *f, struct cai_error *err)
{
	struct walk w = {.f = f, .top = path};
	*f = (struct fingerprint){0};
	cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot open the directory %s", path);
	w.dev = st.st_dev;
	siphash_init(&w.hash);
	uint64_t dev = st.st_dev;
	siphash_add(&w.hash, &dev, sizeof(dev));
	add_entry(&w, "", &st, 0);
	if (walk_dir(&w, steal_fd(&fd), ".", 1, err) < 0)
		return -1;
	siphash_end(&w.hash, f->hash);
	return 0;
}
