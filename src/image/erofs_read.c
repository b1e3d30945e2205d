/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: an inode lies at a multiple of 32 bytes behind meta_blkaddr; attributes follow it, and behind those what its layout says: the
 * end of the contents (inline), or a table of chunks. A directory's contents are blocks, each a table of entries and then their names; the
 * first name's offset tells how many entries there are.
 */
#include "image/erofs_read.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/file.h"
#include "base/util.h"

#define MAGIC            0xe0f5e1e2u
#define SUPER_OFFSET     1024
#define SUPER_SIZE       128
#define INCOMPAT_PADDING 1u /* of compressed files, which are refused one by one */
#define INCOMPAT_CHUNKED 4u
#define LAYOUT_PLAIN     0
#define LAYOUT_INLINE    2
#define LAYOUT_CHUNK     4
#define COMPACT_SIZE     32
#define EXTENDED_SIZE    64
#define DIRENT_SIZE      12
#define XATTR_HEADER     12
#define NO_BLOCK         0xffffffffu
#define MAX_BLOCK        4096
#define CHUNK_INDEXES    (1u << 5)
#define CHUNK_BITS       31u

static int broken(struct cai_error *err, const char *what, uint64_t nid)
{
	return cai_fail(err, EINVAL, "the EROFS image is broken: %s (inode %llu)", what, (unsigned long long)nid);
}

/* The one way to bytes of the image. */
static int fetch(const struct erofs_reader *e, uint64_t at, void *to, size_t n, struct cai_error *err)
{
	if (at > e->size || n > e->size - at)
		return cai_fail(err, EINVAL, "the EROFS image is broken: it refers to bytes beyond its end");
	ssize_t r = file_pread_full(e->fd, to, n, (off_t)at);
	return r == (ssize_t)n ? 0 : cai_fail_errno(err, r < 0 ? errno : EIO, "cannot read the EROFS image");
}

int erofs_read_open(struct erofs_reader *e, int fd, struct cai_error *err)
{
	uint8_t s[SUPER_SIZE];
	struct stat st;
	*e = (struct erofs_reader){.fd = fd};
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot read the EROFS image");
	e->size = (uint64_t)st.st_size;
	if (e->size < SUPER_OFFSET + SUPER_SIZE || fetch(e, SUPER_OFFSET, s, sizeof(s), NULL) < 0 || load_le32(s) != MAGIC)
		return cai_fail(err, EINVAL, "the image is no EROFS file system");
	e->block_bits = s[12];
	if (e->block_bits < 9 || (1u << (e->block_bits & 31)) > MAX_BLOCK)
		return cai_fail(err, ENOTSUP, "the EROFS image has blocks of another size than this program reads");
	if (load_le32(s + 80) & ~(INCOMPAT_PADDING | INCOMPAT_CHUNKED) || load_le16(s + 86))
		return cai_fail(err, ENOTSUP, "the EROFS image has features that this program does not read");
	e->root = load_le16(s + 14);
	e->meta = (uint64_t)load_le32(s + 40) << e->block_bits;
	return 0;
}

static dev_t device(uint32_t v)
{
	return makedev((v >> 8) & 0xfff, (v & 0xff) | ((v >> 12) & 0xfff00));
}

int erofs_read_node(const struct erofs_reader *e, uint64_t nid, struct erofs_node *n, struct cai_error *err)
{
	uint8_t i[EXTENDED_SIZE];
	*n = (struct erofs_node){.nid = nid};
	if (nid > e->size / COMPACT_SIZE)
		return broken(err, "there is no such inode", nid);
	uint64_t at = e->meta + nid * COMPACT_SIZE;
	if (fetch(e, at, i, COMPACT_SIZE, err) < 0)
		return -1;
	unsigned format = load_le16(i), count = load_le16(i + 2);
	bool extended = format & 1;
	n->layout = (format >> 1) & 7;
	n->mode = load_le16(i + 4);
	n->raw = load_le32(i + 16);
	if (extended) {
		if (fetch(e, at, i, EXTENDED_SIZE, err) < 0)
			return -1;
		n->size = load_le64(i + 8);
		n->uid = load_le32(i + 24);
		n->gid = load_le32(i + 28);
		n->mtime = (int64_t)load_le64(i + 32);
		n->mtime_ns = load_le32(i + 40) % 1000000000u;
		n->nlink = load_le32(i + 44);
	} else {
		n->nlink = load_le16(i + 6);
		n->size = load_le32(i + 8);
		n->uid = load_le16(i + 24);
		n->gid = load_le16(i + 26);
	}
	if (n->size > INT64_MAX / 2)
		return broken(err, "a size is impossible", nid);
	n->xattrs = at + (extended ? EXTENDED_SIZE : COMPACT_SIZE);
	n->body = n->xattrs + (count ? 12 + 4 * (uint64_t)(count - 1) : 0);
	if (S_ISCHR(n->mode) || S_ISBLK(n->mode))
		n->rdev = device(n->raw);
	return 0;
}

/* Where chunk number c lies. */
static int chunk_block(const struct erofs_reader *e, const struct erofs_node *n, uint64_t c, uint32_t *block, struct cai_error *err)
{
	uint8_t entry[8];
	unsigned size = n->raw & CHUNK_INDEXES ? 8 : 4;
	if (c > e->size / size)
		return broken(err, "a table of chunks is too long", n->nid);
	if (fetch(e, align_up(n->body, size) + c * size, entry, size, err) < 0)
		return -1;
	if (size == 8 && load_le16(entry + 2))
		return broken(err, "contents are on another device", n->nid);
	*block = load_le32(entry + (size == 8 ? 4 : 0));
	return 0;
}

int erofs_read_extent(const struct erofs_reader *e, const struct erofs_node *n, uint64_t off, struct erofs_extent *x, struct cai_error *err)
{
	uint64_t block = 1ull << e->block_bits, left = n->size - off;
	if (off >= n->size)
		return broken(err, "contents end early", n->nid);
	if (n->layout == LAYOUT_CHUNK) {
		unsigned bits = e->block_bits + (n->raw & CHUNK_BITS);
		uint32_t first = NO_BLOCK;
		if (bits > 48 || (n->raw & 0xffff & ~(CHUNK_INDEXES | CHUNK_BITS)))
			return broken(err, "a chunk format is unknown", n->nid);
		if (chunk_block(e, n, off >> bits, &first, err) < 0)
			return -1;
		uint64_t in = off & ((1ull << bits) - 1), run = (1ull << bits) - in;
		*x = (struct erofs_extent){.at = ((uint64_t)first << e->block_bits) + in, .len = run < left ? run : left, .hole = first == NO_BLOCK};
	} else if (n->layout == LAYOUT_PLAIN || n->layout == LAYOUT_INLINE) {
		/* Inline: the last, partial block follows the inode; what is before it lies in blocks. */
		uint64_t tail = n->layout == LAYOUT_INLINE ? n->size & ~(block - 1) : n->size;
		if (n->layout == LAYOUT_INLINE && off >= tail)
			*x = (struct erofs_extent){.at = n->body + (off - tail), .len = left};
		else
			*x = (struct erofs_extent){.at = ((uint64_t)n->raw << e->block_bits) + off, .len = tail - off, .hole = n->raw == NO_BLOCK};
	} else {
		return cai_fail(err, ENOTSUP, "the EROFS image is compressed, which this program does not read");
	}
	if (!x->hole && (x->at > e->size || x->len > e->size - x->at))
		return broken(err, "contents lie beyond its end", n->nid);
	return 0;
}

/* Part of the contents; holes read as zeros. */
static int contents(const struct erofs_reader *e, const struct erofs_node *n, uint64_t off, uint8_t *to, size_t len, struct cai_error *err)
{
	while (len) {
		struct erofs_extent x;
		if (erofs_read_extent(e, n, off, &x, err) < 0)
			return -1;
		size_t part = x.len < len ? (size_t)x.len : len;
		if (x.hole)
			memset(to, 0, part);
		else if (fetch(e, x.at, to, part, err) < 0)
			return -1;
		off += part;
		to += part;
		len -= part;
	}
	return 0;
}

static int dir_block(const struct erofs_node *n, const uint8_t *b, size_t len, int (*fn)(const char *, uint64_t, void *, struct cai_error *),
		     void *arg, struct cai_error *err)
{
	if (len < DIRENT_SIZE)
		return broken(err, "a directory is too short", n->nid);
	size_t names = load_le16(b + 8);
	if (names < DIRENT_SIZE || names % DIRENT_SIZE || names > len)
		return broken(err, "a directory's table is broken", n->nid);
	for (size_t i = 0; i < names / DIRENT_SIZE; i++) {
		const uint8_t *d = b + i * DIRENT_SIZE;
		bool last = (i + 1) * DIRENT_SIZE == names;
		size_t from = load_le16(d + 8), to = last ? len : load_le16(d + DIRENT_SIZE + 8);
		if (from < names || to < from || to > len)
			return broken(err, "a name lies outside of its directory", n->nid);
		char name[256];
		size_t size = last ? strnlen((const char *)b + from, to - from) : to - from;
		if (!size || size > 255 || memchr(b + from, '/', size) || memchr(b + from, 0, size))
			return broken(err, "a name is impossible", n->nid);
		memcpy(name, b + from, size);
		name[size] = 0;
		if (strcmp(name, ".") && strcmp(name, "..") && fn(name, load_le64(d), arg, err) < 0)
			return -1;
	}
	return 0;
}

int erofs_read_dir(const struct erofs_reader *e, const struct erofs_node *n,
		   int (*fn)(const char *name, uint64_t nid, void *arg, struct cai_error *err), void *arg, struct cai_error *err)
{
	uint8_t b[MAX_BLOCK];
	size_t block = 1u << e->block_bits;
	if (n->size > e->size)
		return broken(err, "a directory is larger than the image", n->nid);
	for (uint64_t off = 0; off < n->size; off += block) {
		size_t len = n->size - off < block ? (size_t)(n->size - off) : block;
		if (contents(e, n, off, b, len, err) < 0 || dir_block(n, b, len, fn, arg, err) < 0)
			return -1;
	}
	return 0;
}

int erofs_read_link(const struct erofs_reader *e, const struct erofs_node *n, char *text, size_t size, struct cai_error *err)
{
	if (!n->size || n->size >= size)
		return broken(err, "a link's target is empty or too long", n->nid);
	if (contents(e, n, 0, (uint8_t *)text, (size_t)n->size, err) < 0)
		return -1;
	text[n->size] = 0;
	return strlen(text) == n->size ? 0 : broken(err, "a link's target holds a NUL", n->nid);
}

int erofs_read_xattrs(const struct erofs_reader *e, const struct erofs_node *n,
		      int (*fn)(const char *name, const void *value, size_t len, void *arg, struct cai_error *err), void *arg, struct cai_error *err)
{
	static const char *const prefixes[] = {[1] = "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", [6] = "security."};
	uint8_t head[XATTR_HEADER], value[65536];
	char name[32 + 256];
	if (n->body == n->xattrs)
		return 0;
	if (fetch(e, n->xattrs, head, sizeof(head), err) < 0)
		return -1;
	if (head[4])
		return cai_fail(err, ENOTSUP, "the EROFS image has shared attributes, which this program does not read");
	for (uint64_t at = n->xattrs + XATTR_HEADER; at < n->body;) {
		if (n->body - at < 4 || fetch(e, at, head, 4, err) < 0)
			return broken(err, "its attributes end early", n->nid);
		size_t name_len = head[0], len = load_le16(head + 2);
		if (4 + name_len + len > n->body - at)
			return broken(err, "its attributes end early", n->nid);
		const char *prefix = head[1] < ARRAY_LEN(prefixes) ? prefixes[head[1]] : NULL;
		if (prefix) {
			size_t k = strlen(prefix);
			memcpy(name, prefix, k);
			if (fetch(e, at + 4, name + k, name_len, err) < 0 || fetch(e, at + 4 + name_len, value, len, err) < 0)
				return -1;
			name[k + name_len] = 0;
			if (fn(name, value, len, arg, err) < 0)
				return -1;
		}
		at = align_up(at + 4 + name_len + len - n->xattrs, 4) + n->xattrs;
	}
	return 0;
}
