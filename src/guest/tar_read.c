/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * The stream is read block by block. A header says how much data follows it; extended headers (pax 'x', GNU 'L' and 'K') are data
 * themselves, kept in r->over until the entry that they describe, whose own fields they override. Everything else that programs put into
 * archives (labels, pax headers for all that follows) is skipped; what would change the contents and is not supported (sparse
 * files, volumes) is refused.
 *
 * Nothing is allocated for a length before it is below a bound, and no number is used before it is known to fit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "guest/tar.h"

/* Offsets in a header block: POSIX.1-2001, pax, "ustar Interchange Format". */
enum {
	H_NAME = 0, H_MODE = 100, H_UID = 108, H_GID = 116, H_SIZE = 124, H_MTIME = 136, H_SUM = 148, H_TYPE = 156, H_LINK = 157,
	H_MAGIC = 257, H_MAJOR = 329, H_MINOR = 337, H_PREFIX = 345,
};
#define MAX_SIZE (UINT64_MAX / 4) /* of an entry: sums with it do not overflow */

/* What extended headers said about the next entry. */
struct overrides {
	char *path, *linkpath;
	bool has_size, has_uid, has_gid, has_mtime;
	uint64_t size, uid, gid;
	int64_t mtime;
	uint32_t mtime_ns;
};

struct tar_reader {
	tar_read_fn *fn;
	void *ctx;
	uint64_t left;    /* data of the current entry that is still to come */
	size_t padding;   /* and what fills its last block */
	bool ended;
	char *name, *target; /* of the current entry */
	struct overrides over;
};

struct tar_reader *tar_reader_new(tar_read_fn *fn, void *ctx, struct cai_error *err)
{
	struct tar_reader *r = calloc(1, sizeof(*r));
	if (!r) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	r->fn = fn;
	r->ctx = ctx;
	return r;
}

static void forget_overrides(struct tar_reader *r)
{
	free(r->over.path);
	free(r->over.linkpath);
	r->over = (struct overrides){0};
}

void tar_reader_free(struct tar_reader *r)
{
	if (!r)
		return;
	forget_overrides(r);
	free(r->name);
	free(r->target);
	free(r);
}

static int bad(struct cai_error *err, const char *what)
{
	return cai_fail(err, EINVAL, "the archive is damaged: %s", what);
}

/* All n bytes; 0, or 1 when the source had ended before the first of them. */
static int read_exactly(struct tar_reader *r, void *buf, size_t n, struct cai_error *err)
{
	size_t got = 0;
	while (got < n) {
		ssize_t k = r->fn(r->ctx, (char *)buf + got, n - got);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return cai_fail_errno(err, errno, "cannot read the archive");
		if (k == 0)
			return got ? bad(err, "it ends in the middle of an entry") : 1;
		got += (size_t)k;
	}
	return 0;
}

static int skip(struct tar_reader *r, uint64_t n, struct cai_error *err)
{
	char sink[8192];
	while (n) {
		size_t k = n < sizeof(sink) ? (size_t)n : sizeof(sink);
		int rc = read_exactly(r, sink, k, err);
		if (rc)
			return rc < 0 ? -1 : bad(err, "it ends in the middle of an entry");
		n -= k;
	}
	return 0;
}

/* An octal number with blanks around it, or GNU's base 256 with the top bit set. False for anything else, and for what is over UINT64_MAX / 4. */
static bool number(const uint8_t *p, size_t n, uint64_t *v)
{
	size_t i = 0;
	*v = 0;
	if (p[0] & 0x80) {
		if (p[0] & 0x7f) /* negative, or far too large */
			return false;
		for (i = 1; i < n; i++) {
			if (*v > MAX_SIZE >> 8)
				return false;
			*v = *v << 8 | p[i];
		}
		return true;
	}
	while (i < n && p[i] == ' ')
		i++;
	for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
		if (*v > MAX_SIZE >> 3)
			return false;
		*v = *v << 3 | (uint64_t)(p[i] - '0');
	}
	for (; i < n; i++)
		if (p[i] != ' ' && p[i] != 0)
			return false;
	return true;
}

/* GNU's way of writing times before 1970 is the only negative number that is understood. */
static bool time_field(const uint8_t *p, size_t n, int64_t *v)
{
	uint64_t u = UINT64_MAX;
	if (p[0] == 0xff) {
		for (size_t i = 1; i < n; i++)
			u = u << 8 | p[i];
		*v = (int64_t)u;
		return *v < 0 && *v > -(int64_t)(MAX_SIZE >> 8);
	}
	bool ok = number(p, n, &u);
	*v = (int64_t)u;
	return ok;
}

static bool checksum_right(const uint8_t h[TAR_BLOCK])
{
	uint64_t want;
	int64_t plain = 0, with_sign = 0; /* some old programs summed signed bytes */
	for (unsigned i = 0; i < TAR_BLOCK; i++) {
		uint8_t b = i >= H_SUM && i < H_SUM + 8 ? ' ' : h[i];
		plain += b;
		with_sign += (int8_t)b;
	}
	return number(h + H_SUM, 8, &want) && ((int64_t)want == plain || (int64_t)want == with_sign);
}

/* The data of an extended header, NUL-terminated. */
static char *read_text(struct tar_reader *r, uint64_t size, size_t max, struct cai_error *err)
{
	if (size > max) {
		bad(err, "an extended header is too long");
		return NULL;
	}
	cleanup_free char *text = malloc((size_t)size + 1);
	if (!text) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	int rc = read_exactly(r, text, (size_t)size, err);
	if (rc > 0 && size)
		rc = bad(err, "it ends in the middle of an entry");
	if (rc < 0 || skip(r, tar_padding(size), err) < 0)
		return NULL;
	text[size] = 0;
	return steal_ptr(&text);
}

static bool decimal(const char *s, size_t n, uint64_t *v)
{
	*v = 0;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9' || *v > MAX_SIZE / 10)
			return false;
		*v = *v * 10 + (uint64_t)(s[i] - '0');
	}
	return n > 0;
}

/* "-12.345" */
static bool decimal_time(const char *s, size_t n, struct overrides *o)
{
	bool minus = n && s[0] == '-';
	uint64_t seconds;
	const char *point = memchr(s, '.', n);
	size_t whole = point ? (size_t)(point - s) : n;
	if (!decimal(s + minus, whole - minus, &seconds))
		return false;
	o->mtime = minus ? -(int64_t)seconds : (int64_t)seconds;
	o->mtime_ns = 0;
	uint32_t unit = 100000000;
	for (size_t i = whole + 1; point && i < n; i++, unit /= 10) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		o->mtime_ns += (uint32_t)(s[i] - '0') * unit;
	}
	if (minus && o->mtime_ns) { /* towards minus infinity, as timespec has it */
		o->mtime--;
		o->mtime_ns = 1000000000 - o->mtime_ns;
	}
	return true;
}

static int take_string(char **to, const char *value, size_t n, struct cai_error *err)
{
	if (n > TAR_MAX_NAME || memchr(value, 0, n))
		return bad(err, "a name is too long or holds a zero byte");
	free(*to);
	*to = n ? strndup(value, n) : NULL; /* an empty value takes an earlier one back */
	return *to || !n ? 0 : cai_fail(err, ENOMEM, "out of memory");
}

static bool key_is(const char *key, size_t n, const char *name)
{
	return n == strlen(name) && !memcmp(key, name, n);
}

static int take_record(struct overrides *o, const char *key, size_t key_len, const char *value, size_t n, struct cai_error *err)
{
	bool ok = true;
	if (key_is(key, key_len, "path"))
		return take_string(&o->path, value, n, err);
	if (key_is(key, key_len, "linkpath"))
		return take_string(&o->linkpath, value, n, err);
	if (key_is(key, key_len, "size"))
		ok = o->has_size = decimal(value, n, &o->size);
	else if (key_is(key, key_len, "uid"))
		ok = o->has_uid = decimal(value, n, &o->uid);
	else if (key_is(key, key_len, "gid"))
		ok = o->has_gid = decimal(value, n, &o->gid);
	else if (key_is(key, key_len, "mtime"))
		ok = o->has_mtime = decimal_time(value, n, o);
	else if (key_len > 11 && !memcmp(key, "GNU.sparse.", 11))
		return cai_fail(err, ENOTSUP, "the archive holds a sparse file, which is not supported");
	return ok ? 0 : bad(err, "an extended header holds a number that is none");
}

/* Records of the form "LENGTH KEY=VALUE\n", the length counting all of it. */
static int take_pax(struct tar_reader *r, const char *text, size_t n, struct cai_error *err)
{
	while (n) {
		uint64_t len;
		const char *space = memchr(text, ' ', n < 8 ? n : 8);
		if (!space || !decimal(text, (size_t)(space - text), &len) || len > n || len < (size_t)(space - text) + 3 ||
		    text[len - 1] != '\n')
			return bad(err, "an extended header is malformed");
		const char *key = space + 1, *end = text + len - 1;
		const char *equals = memchr(key, '=', (size_t)(end - key));
		if (!equals)
			return bad(err, "an extended header is malformed");
		if (take_record(&r->over, key, (size_t)(equals - key), equals + 1, (size_t)(end - equals - 1), err) < 0)
			return -1;
		text += len;
		n -= (size_t)len;
	}
	return 0;
}

/* GNU's long name or link target: the name, usually with a zero byte behind it. */
static int take_gnu_name(char **to, const char *text, size_t n, struct cai_error *err)
{
	return take_string(to, text, strnlen(text, n), err);
}

/* Joins what a ustar header splits. Owned by the caller; NULL without memory. */
static char *header_name(const uint8_t h[TAR_BLOCK])
{
	const char *name = (const char *)h + H_NAME, *prefix = (const char *)h + H_PREFIX;
	size_t n = strnlen(name, 100), p = memcmp(h + H_MAGIC, "ustar", 6) ? 0 : strnlen(prefix, 155);
	char *s = malloc(p + 1 + n + 1);
	if (!s)
		return NULL;
	memcpy(s, prefix, p);
	if (p)
		s[p++] = '/';
	memcpy(s + p, name, n);
	s[p + n] = 0;
	return s;
}

static bool fits_u32(uint64_t v)
{
	return v < UINT32_MAX; /* and is not "no user" */
}

/* Fills *e of a header and of what extended headers said before it. */
static int make_entry(struct tar_reader *r, const uint8_t h[TAR_BLOCK], uint64_t size, struct tar_entry *e, struct cai_error *err)
{
	struct overrides *o = &r->over;
	uint64_t mode, uid, gid, major = 0, minor = 0;
	uint8_t type = h[H_TYPE] ? h[H_TYPE] : '0';

	if (!number(h + H_MODE, 8, &mode) || !time_field(h + H_MTIME, 12, &e->mtime) || !number(h + H_UID, 8, &uid) ||
	    !number(h + H_GID, 8, &gid))
		return bad(err, "a header holds a number that is none");
	if ((type == TAR_CHAR || type == TAR_BLOCKDEV) && (!number(h + H_MAJOR, 8, &major) || !number(h + H_MINOR, 8, &minor)))
		return bad(err, "a header holds a number that is none");
	uid = o->has_uid ? o->uid : uid;
	gid = o->has_gid ? o->gid : gid;
	if (!fits_u32(uid) || !fits_u32(gid) || !fits_u32(major) || !fits_u32(minor))
		return bad(err, "an owner or a device number is out of range");

	free(r->name);
	free(r->target);
	r->name = o->path ? steal_ptr(&o->path) : header_name(h);
	r->target = o->linkpath ? steal_ptr(&o->linkpath) : strndup((const char *)h + H_LINK, 100);
	if (!r->name || !r->target)
		return cai_fail(err, ENOMEM, "out of memory");
	if (!*r->name)
		return bad(err, "an entry has no name");
	if (type == '7')
		type = TAR_FILE;
	/* Before ustar a directory was a file whose name ends so. */
	if (type == TAR_FILE && r->name[strlen(r->name) - 1] == '/')
		type = TAR_DIR;
	e->type = type;
	e->name = r->name;
	e->target = type == TAR_SYMLINK || type == TAR_HARDLINK ? r->target : "";
	e->mode = (uint32_t)mode & 07777;
	e->uid = (uint32_t)uid;
	e->gid = (uint32_t)gid;
	e->major = (uint32_t)major;
	e->minor = (uint32_t)minor;
	if (o->has_mtime) {
		e->mtime = o->mtime;
		e->mtime_ns = o->mtime_ns;
	}
	/* Other types have no data, whatever their size says. */
	e->size = type == TAR_FILE ? size : 0;
	r->left = e->size;
	r->padding = tar_padding(e->size);
	forget_overrides(r);
	return 1;
}

/* A header that describes the one after it, or nothing that matters. */
static int take_special(struct tar_reader *r, uint8_t type, uint64_t size, struct cai_error *err)
{
	bool pax = type == 'x' || type == 'X';
	if (!pax && type != 'L' && type != 'K')
		return skip(r, size + tar_padding(size), err);
	cleanup_free char *text = read_text(r, size, pax ? TAR_MAX_PAX : TAR_MAX_NAME, err);
	if (!text)
		return -1;
	if (pax)
		return take_pax(r, text, (size_t)size, err);
	return take_gnu_name(type == 'L' ? &r->over.path : &r->over.linkpath, text, (size_t)size, err);
}

int tar_next(struct tar_reader *r, struct tar_entry *e, struct cai_error *err)
{
	uint8_t h[TAR_BLOCK];
	static const uint8_t zero[TAR_BLOCK];

	*e = (struct tar_entry){0};
	if (r->ended)
		return 0;
	if (skip(r, r->left + r->padding, err) < 0)
		return -1;
	r->left = r->padding = 0;
	for (;;) {
		uint64_t size;
		int rc = read_exactly(r, h, sizeof(h), err);
		if (rc)
			return rc < 0 ? -1 : bad(err, "it ends without an end mark");
		if (!memcmp(h, zero, sizeof(h))) {
			r->ended = true;
			return 0;
		}
		if (!checksum_right(h))
			return bad(err, "a header has the wrong checksum, or this is no tar archive");
		if (!number(h + H_SIZE, 12, &size))
			return bad(err, "a header holds a number that is none");
		switch (h[H_TYPE]) {
		case 'x':
		case 'X':
		case 'L':
		case 'K':
		case 'g':
		case 'V':
			if (take_special(r, h[H_TYPE], size, err) < 0)
				return -1;
			continue;
		case 'S':
			return cai_fail(err, ENOTSUP, "the archive holds a sparse file, which is not supported");
		case 0:
		case '0' ... '7':
			return make_entry(r, h, r->over.has_size ? r->over.size : size, e, err);
		default:
			return cai_fail(err, ENOTSUP, "the archive holds an entry of type 0x%02x, which is not supported", h[H_TYPE]);
		}
	}
}

ssize_t tar_data(struct tar_reader *r, void *buf, size_t n, struct cai_error *err)
{
	if (!r->left)
		return 0;
	ssize_t k;
	do
		k = r->fn(r->ctx, buf, n < r->left ? n : (size_t)r->left);
	while (k < 0 && errno == EINTR);
	if (k < 0)
		return cai_fail_errno(err, errno, "cannot read the archive");
	if (k == 0)
		return bad(err, "it ends in the middle of an entry");
	r->left -= (uint64_t)k;
	return k;
}
