/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one pass that copies the string onto itself. Bytes of 0x80 and above are UTF-8 and stay, except the
 * pairs C2 80..C2 9F, which a terminal reads as the C1 controls (C2 9B is "escape [").
 */
#include "proto/text.h"

void proto_make_printable(char *s, bool lines)
{
	if (!s)
		return;
	unsigned char before = 0;
	char *to = s;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (lines && c == '\r')
			continue;
		bool keep = lines && (c == '\n' || c == '\t');
		if ((c < 0x20 || c == 0x7f) && !keep)
			c = '?';
		else if (before == 0xc2 && c >= 0x80 && c < 0xa0)
			to[-1] = c = '?';
		before = c;
		*to++ = (char)c;
	}
	*to = 0;
}
