/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounds-checked reader over untrusted bytes and a growing writer. The reader is the only way wire messages are
 * parsed: each accessor checks what is left, and after one failure all later ones fail too, so a parser may check once
 * at its end. All integers are little-endian.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf_reader {
	const uint8_t *p;
	size_t left;
	bool bad; /* an accessor asked for more than was left */
};

static inline struct buf_reader buf_reader(const void *p, size_t n)
{
	return (struct buf_reader){.p = p, .left = n};
}
uint8_t buf_get_u8(struct buf_reader *r);
uint16_t buf_get_u16(struct buf_reader *r);
uint32_t buf_get_u32(struct buf_reader *r);
uint64_t buf_get_u64(struct buf_reader *r);
/* n bytes in place (borrowed from the reader's memory), or NULL. */
const void *buf_get_bytes(struct buf_reader *r, size_t n);
/* A string with a u32 length in front; must hold no NUL inside and be at most max bytes. Copied, NUL-terminated, owned by
 * the caller; NULL and r->bad on any violation. */
char *buf_get_string(struct buf_reader *r, size_t max);
/* True when nothing failed and nothing is left over. */
static inline bool buf_done(const struct buf_reader *r)
{
	return !r->bad && r->left == 0;
}

struct buf {
	uint8_t *p;
	size_t len, cap;
	bool failed; /* memory ran out; contents are unusable */
};

void buf_free(struct buf *b);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_bytes(struct buf *b, const void *p, size_t n);
void buf_put_string(struct buf *b, const char *s);

#endif
