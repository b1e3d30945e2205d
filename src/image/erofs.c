/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Block 0 is the superblock. Contents follow in the order in which they come, a file's whole blocks in one
 * run, so that nothing is ever moved; what a later layer replaces is punched out again. The last, partial
 * block of a file belongs beside its inode, which is placed only at the end, so it waits in a scratch file
 * meanwhile (memory would not be bounded by the number of files). At the end, one pass in breadth-first order
 * numbers the inodes and lays them out, directories included; a second one writes them. An inode's number is
 * its place in 32-byte slots after meta_blkaddr; the root's must fit 16 bits, so it comes first.
 *
 * A tail is inline only where inode, attributes and tail fit one block, since the kernel reads it from one;
 * else the file takes one more data block. Sparse files have a map of chunks, large enough that the map stays
 * small.
 */
#include "image/erofs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/util.h"

#define MAGIC		 0xe0f5e1e2u
#define SUPER_OFFSET	 1024u
#define SUPER_SIZE	 128u
#define COMPAT_CHECKSUM	 1u
#define COMPAT_MTIME	 2u
#define INCOMPAT_CHUNKED 4u
#define SLOT		 32u
#define INODE_SIZE	 64u
#define LAYOUT_PLAIN	 0u
#define LAYOUT_INLINE	 2u
#define LAYOUT_CHUNK	 4u
#define DIRENT_SIZE	 12u
#define XATTR_HEADER	 12u
#define NO_BLOCK	 0xffffffffu
#define MAX_CHUNKS	 16384u	     /* of one file: the map is at most 64 KiB */
#define MAX_MAP_ENTRIES	 (32u << 20) /* of all files */
#define SPILL_BUF	 65536u
#define OUT_BUF		 (256u << 10)

int erofs_writer_init(struct erofs_writer *w, int fd, int spill, uint64_t max_bytes, struct cai_error *err)
{
	memset(w, 0, sizeof(*w));
	w->fd = fd;
	w->spill = spill;
	w->max_bytes = max_bytes;
	w->next_block = 1;
	w->spill_buf = malloc(SPILL_BUF);
	return w->spill_buf ? 0 : cai_fail(err, ENOMEM, "out of memory");
}

void erofs_writer_free(struct erofs_writer *w)
{
	free(w->spill_buf);
	w->spill_buf = NULL;
}

static int put_at(int fd, const void *p, size_t n, uint64_t off, struct cai_error *err)
{
	while (n) {
		ssize_t r = pwrite(fd, p, n, (off_t)off);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return cai_fail_errno(err, errno, "cannot write the image");
		p = (const char *)p + r;
		n -= (size_t)r;
		off += (uint64_t)r;
	}
	return 0;
}

static int take_blocks(struct erofs_writer *w, uint64_t n, uint64_t *first, struct cai_error *err)
{
	*first = 0;
	if ((w->next_block + n) * EROFS_BLOCK > w->max_bytes || w->next_block + n >= NO_BLOCK)
		return cai_fail(err, EFBIG, "the image unpacks to more than %llu MiB, which is the limit",
				(unsigned long long)w->max_bytes >> 20);
	*first = w->next_block;
	w->next_block += n;
	return 0;
}

/* Attributes as they stand after an inode; 0 bytes when there are none. */
static unsigned xattr_prefix(const char *name, const char **rest)
{
	static const struct {
		const char *prefix;
		unsigned index;
	} table[] = {{"user.", 1},
		     {"system.posix_acl_access", 2},
		     {"system.posix_acl_default", 3},
		     {"trusted.", 4},
		     {"security.", 6}};
	for (size_t k = 0; k < ARRAY_LEN(table); k++) {
		size_t n = strlen(table[k].prefix);
		if (!strncmp(name, table[k].prefix, n)) {
			*rest = name + n;
			return table[k].index;
		}
	}
	*rest = name;
	return 0;
}

static uint32_t xattr_size(const struct tree_inode *i)
{
	uint32_t n = 0;
	for (const struct tree_xattr *x = i->xattrs; x; x = x->next) {
		const char *rest;
		xattr_prefix(x->name, &rest);
		n += (uint32_t)align_up(4 + strlen(rest) + x->len, 4);
	}
	return n ? n + XATTR_HEADER : 0;
}

static bool tail_fits(const struct tree_inode *i, uint64_t tail)
{
	return INODE_SIZE + xattr_size(i) + tail <= EROFS_BLOCK;
}

static int begin_sparse(struct erofs_writer *w, struct tree_inode *i, struct cai_error *err)
{
	uint64_t blocks = (i->size + EROFS_BLOCK - 1) / EROFS_BLOCK;
	i->chunk_bits = 0;
	while ((blocks + (1ull << i->chunk_bits) - 1) >> i->chunk_bits > MAX_CHUNKS)
		i->chunk_bits++;
	if (i->chunk_bits > 31 || i->size > (uint64_t)INT64_MAX)
		return cai_fail(err, EFBIG, "a sparse file of %llu bytes is larger than EROFS can hold",
				(unsigned long long)i->size);
	i->n_chunks = (uint32_t)((blocks + (1ull << i->chunk_bits) - 1) >> i->chunk_bits);
	w->map_entries += i->n_chunks;
	if (w->map_entries > MAX_MAP_ENTRIES)
		return cai_fail(err, E2BIG, "the image has more large sparse files than Caisson takes");
	i->chunks = malloc(i->n_chunks * sizeof(*i->chunks));
	if (!i->chunks)
		return cai_fail(err, ENOMEM, "out of memory");
	memset(i->chunks, 0xff, i->n_chunks * sizeof(*i->chunks));
	return 0;
}

int erofs_file_begin(struct erofs_writer *w, struct tree_inode *i, bool sparse, struct cai_error *err)
{
	w->file = i;
	i->block = NO_BLOCK;
	if (sparse && i->size >= EROFS_BLOCK) {
		w->file_end = i->size;
		return begin_sparse(w, i, err);
	}
	if (i->size > w->max_bytes)
		return cai_fail(err, EFBIG, "the image unpacks to more than %llu MiB, which is the limit",
				(unsigned long long)w->max_bytes >> 20);
	uint64_t blocks = i->size / EROFS_BLOCK, first;
	i->tail_len = (uint16_t)(i->size % EROFS_BLOCK);
	if (i->tail_len && !tail_fits(i, i->tail_len)) {
		blocks++;
		i->tail_len = 0;
	}
	w->file_end = i->size - i->tail_len;
	if (blocks) {
		if (take_blocks(w, blocks, &first, err) < 0)
			return -1;
		i->block = (uint32_t)first;
		i->n_blocks = (uint32_t)blocks;
	}
	memset(w->tail, 0, i->tail_len);
	return 0;
}

static int put_chunks(struct erofs_writer *w, uint64_t off, const uint8_t *p, size_t n, struct cai_error *err)
{
	struct tree_inode *i = w->file;
	uint64_t chunk = (uint64_t)EROFS_BLOCK << i->chunk_bits, first;
	while (n) {
		uint64_t k = off / chunk, in = off % chunk;
		size_t m = chunk - in < n ? (size_t)(chunk - in) : n;
		if (i->chunks[k] == NO_BLOCK) {
			uint64_t left = i->size - k * chunk, len = left < chunk ? left : chunk;
			if (take_blocks(w, (len + EROFS_BLOCK - 1) / EROFS_BLOCK, &first, err) < 0)
				return -1;
			i->chunks[k] = (uint32_t)first;
		}
		if (put_at(w->fd, p, m, (uint64_t)i->chunks[k] * EROFS_BLOCK + in, err) < 0)
			return -1;
		p += m;
		off += m;
		n -= m;
	}
	return 0;
}

int erofs_file_put(struct erofs_writer *w, uint64_t off, const void *data, size_t n, struct cai_error *err)
{
	const uint8_t *p = data;
	struct tree_inode *i = w->file;
	if (off > i->size || n > i->size - off)
		return cai_fail(err, EINVAL, "a file has more contents than its size says");
	w->stored += n;
	if (w->stored > w->max_bytes)
		return cai_fail(err, EFBIG, "the image unpacks to more than %llu MiB, which is the limit",
				(unsigned long long)w->max_bytes >> 20);
	if (i->chunks)
		return put_chunks(w, off, p, n, err);
	if (off < w->file_end) {
		size_t m = w->file_end - off < n ? (size_t)(w->file_end - off) : n;
		if (put_at(w->fd, p, m, (uint64_t)i->block * EROFS_BLOCK + off, err) < 0)
			return -1;
		off += m;
		p += m;
		n -= m;
	}
	if (n)
		memcpy(w->tail + (off - w->file_end), p, n);
	return 0;
}

static int spill_flush(struct erofs_writer *w, struct cai_error *err)
{
	if (w->spill_len && put_at(w->spill, w->spill_buf, w->spill_len, w->spill_start, err) < 0)
		return -1;
	w->spill_start += w->spill_len;
	w->spill_len = 0;
	return 0;
}

int erofs_file_end(struct erofs_writer *w, struct cai_error *err)
{
	struct tree_inode *i = w->file;
	w->file = NULL;
	if (!i->tail_len)
		return 0;
	if (w->spill_len + i->tail_len > SPILL_BUF && spill_flush(w, err) < 0)
		return -1;
	i->tail = w->spill_start + w->spill_len;
	memcpy(w->spill_buf + w->spill_len, w->tail, i->tail_len);
	w->spill_len += i->tail_len;
	return 0;
}

static void punch(struct erofs_writer *w, uint32_t block, uint64_t n)
{
	if (block != NO_BLOCK && n)
		fallocate(w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)block * EROFS_BLOCK,
			  (off_t)(n * EROFS_BLOCK));
}

void erofs_file_drop(void *writer, struct tree_inode *i)
{
	struct erofs_writer *w = writer;
	if (!S_ISREG(i->mode))
		return;
	if (i->chunks)
		for (uint32_t k = 0; k < i->n_chunks; k++) {
			uint64_t chunk = 1ull << i->chunk_bits,
				 left = (i->size + EROFS_BLOCK - 1) / EROFS_BLOCK - k * chunk;
			punch(w, i->chunks[k], left < chunk ? left : chunk);
		}
	else if (i->n_blocks)
		punch(w, i->block, i->n_blocks);
}

/* ---- metadata
 * -------------------------------------------------------------------------------------------------- */

struct entry {
	const char *name;
	size_t len;
	struct tree_inode *inode;
};

struct listing {
	struct entry *e;
	size_t n, cap;
	bool failed;
};

static void list_one(struct listing *l, const char *name, struct tree_inode *i)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		struct entry *e = realloc(l->e, cap * sizeof(*e));
		if (!e) {
			l->failed = true;
			return;
		}
		l->e = e;
		l->cap = cap;
	}
	l->e[l->n++] = (struct entry){name, strlen(name), i};
}

static void list_child(void *ctx, const struct tree_dent *d)
{
	list_one(ctx, d->name, d->inode);
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* All entries with "." and "..", which EROFS sorts among the others. */
static int list_dir(struct tree_inode *dir, struct listing *l, struct cai_error *err)
{
	l->n = 0;
	list_one(l, ".", dir);
	list_one(l, "..", dir->parent);
	tree_each(dir, list_child, l);
	if (l->failed)
		return cai_fail(err, ENOMEM, "out of memory");
	/* Only names that begin with a byte below '.' or with dots themselves are out of place. */
	qsort(l->e, l->n, sizeof(*l->e), by_bytes);
	return 0;
}

/* How many entries from k on fill one block, and the bytes they take. */
static size_t block_of(const struct listing *l, size_t k, uint32_t *bytes)
{
	uint32_t used = 0;
	size_t n = 0;
	for (; k + n < l->n; n++) {
		uint32_t more = DIRENT_SIZE + (uint32_t)l->e[k + n].len;
		if (used + more > EROFS_BLOCK)
			break;
		used += more;
	}
	*bytes = used;
	return n;
}

static uint8_t file_type(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 1;
	case S_IFDIR:
		return 2;
	case S_IFCHR:
		return 3;
	case S_IFBLK:
		return 4;
	case S_IFIFO:
		return 5;
	case S_IFSOCK:
		return 6;
	case S_IFLNK:
		return 7;
	}
	return 0;
}

struct plan {
	struct tree_inode *first, *last;
	uint64_t meta; /* bytes so far */
	uint64_t inodes;
	bool chunked;
};

/* Whether the inode's last bytes stand behind it. */
static uint32_t inline_len(const struct tree_inode *i)
{
	return i->tail_len;
}

/* Gives the inode its place: slots of 32 bytes, what must be in one block in one. */
static void place(struct plan *p, struct tree_inode *i)
{
	uint32_t head = INODE_SIZE + xattr_size(i);
	uint64_t len = head + inline_len(i), at = align_up(p->meta, SLOT);
	bool crosses = at / EROFS_BLOCK != (at + len - 1) / EROFS_BLOCK;
	if (i->chunks)
		len = align_up(head, 4) + 4ull * i->n_chunks;
	if (crosses && len <= EROFS_BLOCK)
		at = align_up(at, EROFS_BLOCK);
	else if (at / EROFS_BLOCK != (at + INODE_SIZE - 1) / EROFS_BLOCK)
		at = align_up(at, EROFS_BLOCK);
	i->nid = at / SLOT;
	i->meta_len = len;
	i->ino = (uint32_t)++p->inodes;
	p->meta = at + len;
	if (p->last)
		p->last->next = i;
	else
		p->first = i;
	p->last = i;
	i->next = NULL;
}

static int plan_inode(struct erofs_writer *w, struct plan *p, struct tree_inode *i, struct listing *l,
		      struct cai_error *err)
{
	uint64_t first;
	if (S_ISDIR(i->mode)) {
		if (list_dir(i, l, err) < 0)
			return -1;
		uint32_t bytes, blocks = 0, last = 0;
		for (size_t k = 0; k < l->n; blocks++, last = bytes)
			k += block_of(l, k, &bytes);
		i->size = (uint64_t)(blocks - 1) * EROFS_BLOCK + last;
		i->tail_len = 0;
		if (last < EROFS_BLOCK && tail_fits(i, last)) {
			i->tail_len = (uint16_t)last;
			blocks--;
		}
		i->block = NO_BLOCK;
		i->n_blocks = blocks;
		if (blocks) {
			if (take_blocks(w, blocks, &first, err) < 0)
				return -1;
			i->block = (uint32_t)first;
		}
	} else if (S_ISLNK(i->mode)) {
		i->size = strlen(i->target);
		i->tail_len = tail_fits(i, i->size) ? (uint16_t)i->size : 0;
		i->block = NO_BLOCK;
		if (!i->tail_len) {
			if (take_blocks(w, 1, &first, err) < 0)
				return -1;
			i->block = (uint32_t)first;
			i->n_blocks = 1;
		}
	}
	p->chunked |= i->chunks != NULL;
	place(p, i);
	return 0;
}

/* Breadth first: a directory's entries stand together. An inode with several names is placed at its first. */
static int plan_all(struct erofs_writer *w, struct plan *p, struct tree *t, struct cai_error *err)
{
	struct listing mine = {0}, own = {0};
	int r = plan_inode(w, p, t->root, &own, err);
	for (struct tree_inode *d = t->root; d && r == 0; d = d->next) {
		if (!S_ISDIR(d->mode))
			continue;
		if ((r = list_dir(d, &mine, err)) < 0)
			break;
		for (size_t k = 0; k < mine.n && r == 0; k++)
			if (!mine.e[k].inode->ino)
				r = plan_inode(w, p, mine.e[k].inode, &own, err);
	}
	free(mine.e);
	free(own.e);
	return r;
}

struct out {
	struct erofs_writer *w;
	uint8_t *buf;
	uint64_t at; /* file offset of buf */
	size_t len;
};

static int out_flush(struct out *o, struct cai_error *err)
{
	int r = o->len ? put_at(o->w->fd, o->buf, o->len, o->at, err) : 0;
	o->at += o->len;
	o->len = 0;
	return r;
}

static int out_put(struct out *o, const void *p, size_t n, struct cai_error *err)
{
	while (n) {
		size_t m = OUT_BUF - o->len < n ? OUT_BUF - o->len : n;
		if (p) {
			memcpy(o->buf + o->len, p, m);
			p = (const char *)p + m;
		} else {
			memset(o->buf + o->len, 0, m);
		}
		o->len += m;
		n -= m;
		if (o->len == OUT_BUF && out_flush(o, err) < 0)
			return -1;
	}
	return 0;
}

static void dir_block(const struct listing *l, size_t k, size_t n, uint8_t *out)
{
	uint32_t name = (uint32_t)n * DIRENT_SIZE;
	for (size_t j = 0; j < n; j++) {
		const struct entry *e = &l->e[k + j];
		uint8_t *d = out + j * DIRENT_SIZE;
		store_le64(d, e->inode->nid);
		store_le16(d + 8, (uint16_t)name);
		d[10] = file_type(e->inode->mode);
		d[11] = 0;
		memcpy(out + name, e->name, e->len);
		name += (uint32_t)e->len;
	}
}

static int write_xattrs(struct out *o, const struct tree_inode *i, struct cai_error *err)
{
	uint8_t head[XATTR_HEADER] = {0};
	if (!i->xattrs)
		return 0;
	if (out_put(o, head, sizeof(head), err) < 0)
		return -1;
	for (const struct tree_xattr *x = i->xattrs; x; x = x->next) {
		const char *rest;
		uint8_t e[4];
		e[1] = (uint8_t)xattr_prefix(x->name, &rest);
		size_t n = strlen(rest), used = 4 + n + x->len;
		e[0] = (uint8_t)n;
		store_le16(e + 2, x->len);
		if (out_put(o, e, 4, err) < 0 || out_put(o, rest, n, err) < 0 ||
		    out_put(o, x->value, x->len, err) < 0 ||
		    out_put(o, NULL, align_up(used, 4) - used, err) < 0)
			return -1;
	}
	return 0;
}

/* Directory blocks go to the data area, the last one perhaps to tail. */
static int write_dir(struct erofs_writer *w, struct tree_inode *i, struct listing *l, uint8_t *tail,
		     struct cai_error *err)
{
	if (list_dir(i, l, err) < 0)
		return -1;
	uint32_t bytes, b = 0;
	for (size_t k = 0; k < l->n; b++) {
		size_t n = block_of(l, k, &bytes);
		memset(tail, 0, EROFS_BLOCK);
		dir_block(l, k, n, tail);
		if (b < i->n_blocks &&
		    put_at(w->fd, tail, EROFS_BLOCK, ((uint64_t)i->block + b) * EROFS_BLOCK, err) < 0)
			return -1;
		k += n;
	}
	return 0;
}

static int write_inode(struct out *o, struct tree_inode *i, struct listing *l, struct cai_error *err)
{
	struct erofs_writer *w = o->w;
	uint8_t raw[INODE_SIZE] = {0}, tail[EROFS_BLOCK];
	uint32_t xs = xattr_size(i), u = i->block;
	unsigned layout = i->chunks ? LAYOUT_CHUNK : i->tail_len ? LAYOUT_INLINE : LAYOUT_PLAIN;
	if (i->chunks)
		u = i->chunk_bits;
	else if (S_ISCHR(i->mode) || S_ISBLK(i->mode))
		u = (minor(i->rdev) & 0xff) | major(i->rdev) << 8 | (minor(i->rdev) & ~0xffu) << 12;
	else if (!S_ISDIR(i->mode) && !S_ISREG(i->mode) && !S_ISLNK(i->mode))
		u = 0;
	store_le16(raw, (uint16_t)(1 | layout << 1));
	store_le16(raw + 2, (uint16_t)(xs ? 1 + (xs - XATTR_HEADER) / 4 : 0));
	store_le16(raw + 4, (uint16_t)i->mode);
	store_le64(raw + 8, i->size);
	store_le32(raw + 16, u);
	store_le32(raw + 20, i->ino);
	store_le32(raw + 24, i->uid);
	store_le32(raw + 28, i->gid);
	store_le64(raw + 32, (uint64_t)i->mtime);
	store_le32(raw + 40, i->mtime_ns);
	store_le32(raw + 44, S_ISDIR(i->mode) ? 2 + i->n_subdirs : i->nlink);
	if (S_ISDIR(i->mode)) {
		if (write_dir(w, i, l, tail, err) < 0)
			return -1;
	} else if (S_ISLNK(i->mode)) {
		memset(tail, 0, sizeof(tail));
		memcpy(tail, i->target, i->size);
		if (i->n_blocks &&
		    put_at(w->fd, tail, EROFS_BLOCK, (uint64_t)i->block * EROFS_BLOCK, err) < 0)
			return -1;
	} else if (i->tail_len) {
		ssize_t got = pread(w->spill, tail, i->tail_len, (off_t)i->tail);
		if (got != (ssize_t)i->tail_len)
			return cai_fail_errno(err, got < 0 ? errno : EIO,
					      "cannot read the scratch file back");
	}
	if (out_put(o, raw, sizeof(raw), err) < 0 || write_xattrs(o, i, err) < 0)
		return -1;
	for (uint32_t k = 0; i->chunks && k < i->n_chunks; k++) {
		uint8_t c[4];
		store_le32(c, i->chunks[k]);
		if (out_put(o, c, 4, err) < 0)
			return -1;
	}
	return out_put(o, tail, i->tail_len, err);
}

static uint32_t crc32c(uint32_t crc, const uint8_t *p, size_t n)
{
	while (n--) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return crc;
}

static int write_super(struct erofs_writer *w, const struct plan *p, const struct tree *t,
		       uint64_t meta_block, uint64_t blocks, struct cai_error *err)
{
	uint8_t b[EROFS_BLOCK] = {0}, *s = b + SUPER_OFFSET;
	store_le32(s, MAGIC);
	store_le32(s + 8, COMPAT_CHECKSUM | COMPAT_MTIME);
	s[12] = 12; /* log2 of the block size */
	store_le16(s + 14, (uint16_t)t->root->nid);
	store_le64(s + 16, p->inodes);
	store_le32(s + 36, (uint32_t)blocks);
	store_le32(s + 40, (uint32_t)meta_block);
	memcpy(s + 64, "caisson", 7); /* volume name */
	store_le32(s + 80, p->chunked ? INCOMPAT_CHUNKED : 0);
	store_le32(s + 4, crc32c(~0u, s, EROFS_BLOCK - SUPER_OFFSET));
	return put_at(w->fd, b, sizeof(b), 0, err);
}

int erofs_finish(struct erofs_writer *w, struct tree *t, uint64_t *size, struct cai_error *err)
{
	struct plan p = {
	    .meta = 2 * SLOT}; /* inode number 0 is one that readdir(3) may take for a deleted entry */
	struct listing l = {0};
	if (spill_flush(w, err) < 0 || plan_all(w, &p, t, err) < 0)
		return -1;
	uint64_t meta_block, meta_blocks = (p.meta + EROFS_BLOCK - 1) / EROFS_BLOCK;
	if (take_blocks(w, meta_blocks, &meta_block, err) < 0)
		return -1;
	struct out o = {.w = w, .buf = malloc(OUT_BUF), .at = meta_block * EROFS_BLOCK};
	int r = o.buf ? 0 : cai_fail(err, ENOMEM, "out of memory");
	for (struct tree_inode *i = p.first; i && r == 0; i = i->next) {
		uint64_t want = meta_block * EROFS_BLOCK + i->nid * SLOT;
		r = out_put(&o, NULL, want - (o.at + o.len), err);
		if (r == 0)
			r = write_inode(&o, i, &l, err);
	}
	if (r == 0)
		r = out_put(&o, NULL, w->next_block * EROFS_BLOCK - (o.at + o.len), err);
	if (r == 0)
		r = out_flush(&o, err);
	if (r == 0)
		r = write_super(w, &p, t, meta_block, w->next_block, err);
	free(o.buf);
	free(l.e);
	if (r < 0)
		return -1;
	*size = w->next_block * EROFS_BLOCK;
	return 0;
}
