/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: strings are copied in runs; what JSON does not allow inside quotes is written as an escape. UTF-8 is checked as
 * RFC 3629 defines it: no overlong forms, no surrogates, nothing over U+10FFFF.
 */
#include "guest/json.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

void json_put(struct buf *b, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(text))
		b->failed = true;
	else
		buf_put_bytes(b, text, (size_t)n);
}

/* Length of the UTF-8 sequence of two or more bytes at s, or 0 when there is none. */
static size_t sequence(const uint8_t *s, size_t n)
{
	static const struct {
		uint8_t mask, lead;
		uint32_t least;
	} forms[] = {{0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
	for (size_t f = 0; f < 3; f++) {
		size_t len = f + 2;
		if ((s[0] & forms[f].mask) != forms[f].lead || len > n)
			continue;
		uint32_t c = s[0] & (uint8_t)~forms[f].mask;
		for (size_t i = 1; i < len; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (s[i] & 0x3f);
		}
		return c < forms[f].least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : len;
	}
	return 0;
}

void json_put_string(struct buf *b, const char *string, size_t n)
{
	const uint8_t *s = (const uint8_t *)string;
	size_t from = 0, i = 0;

	buf_put_u8(b, '"');
	while (i < n) {
		size_t len = s[i] < 0x80 ? 1 : sequence(s + i, n - i);
		if (len > 1 || (len == 1 && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\' && s[i] != 0x7f)) {
			i += len;
			continue;
		}
		buf_put_bytes(b, s + from, i - from);
		json_put(b, "\\u%04x", len ? s[i] : 0xfffdu);
		from = ++i;
	}
	buf_put_bytes(b, s + from, n - from);
	buf_put_u8(b, '"');
}
