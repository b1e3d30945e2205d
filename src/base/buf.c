/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

const void *buf_get_bytes(struct buf_reader *r, size_t n)
{
	if (r->bad || n > r->left) {
		r->bad = true;
		return NULL;
	}
	const void *p = r->p;
	r->p += n;
	r->left -= n;
	return p;
}

uint8_t buf_get_u8(struct buf_reader *r)
{
	const uint8_t *p = buf_get_bytes(r, 1);
	return p ? *p : 0;
}

uint16_t buf_get_u16(struct buf_reader *r)
{
	const void *p = buf_get_bytes(r, 2);
	return p ? load_le16(p) : 0;
}

uint32_t buf_get_u32(struct buf_reader *r)
{
	const void *p = buf_get_bytes(r, 4);
	return p ? load_le32(p) : 0;
}

uint64_t buf_get_u64(struct buf_reader *r)
{
	const void *p = buf_get_bytes(r, 8);
	return p ? load_le64(p) : 0;
}

char *buf_get_string(struct buf_reader *r, size_t max)
{
	uint32_t n = buf_get_u32(r);
	if (n > max)
		r->bad = true;
	const char *p = buf_get_bytes(r, n);
	if (!p)
		return NULL;
	if (memchr(p, 0, n)) {
		r->bad = true;
		return NULL;
	}
	char *s = malloc((size_t)n + 1);
	if (!s) {
		r->bad = true;
		return NULL;
	}
	memcpy(s, p, n);
	s[n] = 0;
	return s;
}

void buf_free(struct buf *b)
{
	free(b->p);
	*b = (struct buf){0};
}

void buf_put_bytes(struct buf *b, const void *p, size_t n)
{
	if (b->failed)
		return;
	if (b->cap - b->len < n) {
		size_t cap = b->cap ? b->cap : 256;
		while (cap - b->len < n)
			cap *= 2;
		uint8_t *q = realloc(b->p, cap);
		if (!q) {
			b->failed = true;
			return;
		}
		b->p = q;
		b->cap = cap;
	}
	if (n)
		memcpy(b->p + b->len, p, n);
	b->len += n;
}

void buf_put_u8(struct buf *b, uint8_t v)
{
	buf_put_bytes(b, &v, 1);
}

void buf_put_u16(struct buf *b, uint16_t v)
{
	buf_put_bytes(b, &v, 2);
}

void buf_put_u32(struct buf *b, uint32_t v)
{
	buf_put_bytes(b, &v, 4);
}

void buf_put_u64(struct buf *b, uint64_t v)
{
	buf_put_bytes(b, &v, 8);
}

void buf_put_string(struct buf *b, const char *s)
{
	size_t n = strlen(s);
	buf_put_u32(b, (uint32_t)n);
	buf_put_bytes(b, s, n);
}
