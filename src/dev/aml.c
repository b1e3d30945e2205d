/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: AML puts the length of a block in front of it, in one to four bytes. We always reserve three, which
 * the format allows for any length below 1 MiB, and fill them in when the block is closed: no second pass, no nested buffers.
 */
#include "dev/aml.h"

#include <string.h>

#include "base/util.h"

#define OP_ZERO     0x00
#define OP_ONE      0x01
#define OP_NAME     0x08
#define OP_BYTE     0x0A
#define OP_WORD     0x0B
#define OP_DWORD    0x0C
#define OP_STRING   0x0D
#define OP_SCOPE    0x10
#define OP_BUFFER   0x11
#define OP_PACKAGE  0x12
#define OP_METHOD   0x14
#define OP_ARG0     0x68
#define OP_NOTIFY   0x86
#define OP_LEQUAL   0x93
#define OP_IF       0xA0
#define OP_EXT      0x5B
#define OP_DEVICE   0x82
#define PREFIX_DUAL 0x2E

#define PKG_LENGTH_BYTES 3

static size_t open_block(struct buf *b)
{
	size_t at = b->len;
	buf_put_bytes(b, (uint8_t[PKG_LENGTH_BYTES]){0}, PKG_LENGTH_BYTES);
	return at;
}

void aml_close(struct buf *b, size_t at)
{
	if (b->failed)
		return;
	size_t len = b->len - at; /* counts its own bytes */
	b->p[at] = (uint8_t)(0x80 | (len & 0x0F));
	b->p[at + 1] = (uint8_t)(len >> 4);
	b->p[at + 2] = (uint8_t)(len >> 12);
}

/* "NAME", "\NAME" or "\NAM1.NAM2". */
static void put_path(struct buf *b, const char *path)
{
	if (*path == '\\') {
		buf_put_u8(b, '\\');
		path++;
	}
	if (strlen(path) > 4) {
		buf_put_u8(b, PREFIX_DUAL);
		buf_put_bytes(b, path, 4);
		path += 5;
	}
	buf_put_bytes(b, path, 4);
}

size_t aml_scope(struct buf *b, const char *path)
{
	buf_put_u8(b, OP_SCOPE);
	size_t at = open_block(b);
	put_path(b, path);
	return at;
}

size_t aml_device(struct buf *b, const char *name)
{
	buf_put_u8(b, OP_EXT);
	buf_put_u8(b, OP_DEVICE);
	size_t at = open_block(b);
	put_path(b, name);
	return at;
}

size_t aml_method(struct buf *b, const char *name, unsigned n_args, bool serialized)
{
	buf_put_u8(b, OP_METHOD);
	size_t at = open_block(b);
	put_path(b, name);
	buf_put_u8(b, (uint8_t)((n_args & 7) | (serialized ? 8 : 0)));
	return at;
}

size_t aml_if_arg0_equals(struct buf *b, uint32_t value)
{
	buf_put_u8(b, OP_IF);
	size_t at = open_block(b);
	buf_put_u8(b, OP_LEQUAL);
	buf_put_u8(b, OP_ARG0);
	aml_integer(b, value);
	return at;
}

size_t aml_package(struct buf *b, uint8_t n_elements)
{
	buf_put_u8(b, OP_PACKAGE);
	size_t at = open_block(b);
	buf_put_u8(b, n_elements);
	return at;
}

void aml_name(struct buf *b, const char *name)
{
	buf_put_u8(b, OP_NAME);
	put_path(b, name);
}

void aml_integer(struct buf *b, uint32_t v)
{
	if (v <= 1) {
		buf_put_u8(b, v ? OP_ONE : OP_ZERO);
	} else if (v <= 0xFF) {
		buf_put_u8(b, OP_BYTE);
		buf_put_u8(b, (uint8_t)v);
	} else if (v <= 0xFFFF) {
		buf_put_u8(b, OP_WORD);
		buf_put_u16(b, (uint16_t)v);
	} else {
		buf_put_u8(b, OP_DWORD);
		buf_put_u32(b, v);
	}
}

void aml_string(struct buf *b, const char *s)
{
	buf_put_u8(b, OP_STRING);
	buf_put_bytes(b, s, strlen(s) + 1);
}

static uint32_t hex_digit(char c)
{
	return (uint32_t)(c >= 'A' ? c - 'A' + 10 : c - '0');
}

void aml_eisaid(struct buf *b, const char *id)
{
	/* Three 5-bit letters and four nibbles, big-endian (ACPI 6.5 section 19.3.4). */
	uint32_t v = 0;
	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | ((uint32_t)(id[i] - '@') & 0x1F);
	for (unsigned i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	buf_put_u8(b, OP_DWORD);
	buf_put_u32(b, __builtin_bswap32(v));
}

void aml_notify(struct buf *b, const char *path, uint8_t value)
{
	buf_put_u8(b, OP_NOTIFY);
	put_path(b, path);
	aml_integer(b, value);
}

/* Buffer(size){bytes}: the size is a byte constant that is patched at the end. */
size_t aml_resources(struct buf *b)
{
	buf_put_u8(b, OP_BUFFER);
	size_t at = open_block(b);
	buf_put_u8(b, OP_BYTE);
	buf_put_u8(b, 0);
	return at;
}

void aml_res_memory32(struct buf *b, uint32_t base, uint32_t len)
{
	buf_put_u8(b, 0x86);
	buf_put_u16(b, 9);
	buf_put_u8(b, 1); /* read-write */
	buf_put_u32(b, base);
	buf_put_u32(b, len);
}

void aml_res_io(struct buf *b, uint16_t base, uint8_t len)
{
	buf_put_u8(b, 0x47);
	buf_put_u8(b, 1); /* decodes 16 bits */
	buf_put_u16(b, base);
	buf_put_u16(b, base);
	buf_put_u8(b, 1); /* alignment */
	buf_put_u8(b, len);
}

void aml_res_irq_edge(struct buf *b, uint32_t gsi)
{
	buf_put_u8(b, 0x89);
	buf_put_u16(b, 6);
	buf_put_u8(b, 0x03); /* consumer, edge; active high and exclusive are zeros */
	buf_put_u8(b, 1);
	buf_put_u32(b, gsi);
}

void aml_resources_end(struct buf *b, size_t at)
{
	buf_put_u8(b, 0x79);
	buf_put_u8(b, 0); /* no checksum */
	if (b->failed)
		return;
	size_t head = at + PKG_LENGTH_BYTES + 2;
	b->p[head - 1] = (uint8_t)(b->len - head);
	aml_close(b, at);
}
