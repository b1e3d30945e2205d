/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one ustar block for each entry. What its fields cannot hold (long names, large numbers, times before 1970) is
 * said in a pax header in front of it, and the field holds what fits, which a reader of pax does not look at. Names that are not
 * ASCII are declared to be plain bytes there, for that is what they are.
 */
#include <stdio.h>
#include <string.h>

#include "guest/tar.h"

#define OCTAL_7  07777777u
#define OCTAL_11 077777777777ull

static void octal(uint8_t *field, size_t n, uint64_t v)
{
	field[n - 1] = 0;
	while (--n) {
		field[n - 1] = (uint8_t)('0' + (v & 7));
		v >>= 3;
	}
}

/* Splits name into prefix and name at a slash. False when no slash does. */
static bool split(const char *name, size_t n, uint8_t *block)
{
	size_t at;
	if (n <= 100) {
		memcpy(block, name, n);
		return true;
	}
	if (n > 256)
		return false;
	/* The latest that leaves a prefix of at most 155; a name that begins or ends at it would be another one. */
	for (at = n - 2 < 155 ? n - 2 : 155; at > 0 && (name[at] != '/' || n - at - 1 > 100); at--)
		;
	if (at == 0)
		return false;
	memcpy(block + 345, name, at);
	memcpy(block, name + at + 1, n - at - 1);
	return true;
}

static void pax_record(struct buf *b, const char *key, const void *value, size_t n)
{
	/* The length counts its own digits. */
	size_t rest = 1 + strlen(key) + 1 + n + 1, len = rest + 1;
	char head[96];
	while (len != rest + (size_t)snprintf(NULL, 0, "%zu", len))
		len++;
	buf_put_bytes(b, head, (size_t)snprintf(head, sizeof(head), "%zu %s=", len, key));
	buf_put_bytes(b, value, n);
	buf_put_u8(b, '\n');
}

static void pax_number(struct buf *b, const char *key, int64_t v)
{
	char text[24];
	pax_record(b, key, text, (size_t)snprintf(text, sizeof(text), "%lld", (long long)v));
}

static void pax_name(struct buf *b, const char *key, const char *value)
{
	size_t n = strlen(value);
	for (size_t i = 0; i < n; i++) {
		if ((uint8_t)value[i] >= 0x80) {
			pax_record(b, "hdrcharset", "BINARY", 6);
			break;
		}
	}
	pax_record(b, key, value, n);
}

static void put_block(struct buf *out, uint8_t block[TAR_BLOCK], uint8_t type, uint64_t size)
{
	uint32_t sum = 0;
	octal(block + 124, 12, size <= OCTAL_11 ? size : 0);
	memset(block + 148, ' ', 8);
	block[156] = type;
	memcpy(block + 257, "ustar\00000", 8);
	for (unsigned i = 0; i < TAR_BLOCK; i++)
		sum += block[i];
	octal(block + 148, 7, sum);
	buf_put_bytes(out, block, TAR_BLOCK);
}

static void put_zeros(struct buf *out, size_t n)
{
	static const uint8_t zero[TAR_BLOCK];
	buf_put_bytes(out, zero, n);
}

static void put_pax(struct buf *out, const struct buf *records)
{
	uint8_t block[TAR_BLOCK] = "./PaxHeaders/entry";
	octal(block + 100, 8, 0600);
	octal(block + 108, 8, 0);
	octal(block + 116, 8, 0);
	octal(block + 136, 12, 0);
	put_block(out, block, 'x', records->len);
	buf_put_bytes(out, records->p, records->len);
	put_zeros(out, tar_padding(records->len));
}

void tar_put_header(struct buf *out, const struct tar_entry *e)
{
	uint8_t block[TAR_BLOCK] = {0};
	struct buf pax = {0};
	size_t n = strlen(e->name), target = strlen(e->target);

	if (!split(e->name, n, block)) {
		pax_name(&pax, "path", e->name);
		memcpy(block, e->name, 100);
	}
	if (target > 100)
		pax_name(&pax, "linkpath", e->target);
	memcpy(block + 157, e->target, target < 100 ? target : 100);
	if (e->size > OCTAL_11)
		pax_number(&pax, "size", (int64_t)e->size);
	if (e->uid > OCTAL_7)
		pax_number(&pax, "uid", e->uid);
	if (e->gid > OCTAL_7)
		pax_number(&pax, "gid", e->gid);
	bool time_fits = e->mtime >= 0 && (uint64_t)e->mtime <= OCTAL_11;
	if (!time_fits)
		pax_number(&pax, "mtime", e->mtime);
	if (pax.len)
		put_pax(out, &pax);
	out->failed |= pax.failed;
	buf_free(&pax);

	octal(block + 100, 8, e->mode & 07777);
	octal(block + 108, 8, e->uid <= OCTAL_7 ? e->uid : 0);
	octal(block + 116, 8, e->gid <= OCTAL_7 ? e->gid : 0);
	octal(block + 136, 12, time_fits ? (uint64_t)e->mtime : 0);
	octal(block + 329, 8, e->major & OCTAL_7);
	octal(block + 337, 8, e->minor & OCTAL_7);
	put_block(out, block, (uint8_t)e->type, e->size);
}
