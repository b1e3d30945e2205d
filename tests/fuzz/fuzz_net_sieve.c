/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sieve before passt: a frame that passes is ARP, or comes from the sandbox's address and goes neither to
 * loopback nor to the host, whatever else is in it. The check here is written the other way round from the
 * sieve's.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/helper/sieve.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sieve s = {
	    .addr4 = {AF_INET, {198, 51, 100, 2}}, .dns = {AF_INET, {169, 254, 1, 1}}, .n_host = 3};
	ip_parse("2001:db8::2", &s.addr6);
	s.host[0] = s.addr4;
	s.host[1] = s.addr6;
	ip_parse("172.17.0.1", &s.host[2]);
	if (!sieve_pass(&s, data, size))
		return 0;
	must(size >= 14);
	const uint8_t *p = data + 14;
	switch (data[12] << 8 | data[13]) {
	case 0x0806:
		break;
	case 0x0800:
		must(size >= 34 && p[0] >> 4 == 4 && memcmp(p + 12, s.addr4.b, 4) == 0);
		must(p[16] != 0 && p[16] != 127 && p[16] < 224);
		must(memcmp(p + 16, s.addr4.b, 4) != 0 && memcmp(p + 16, s.host[2].b, 4) != 0);
		if (p[16] == 169 && p[17] == 254)
			must(p[18] == 1 && p[19] == 1 && size >= 38 && (p[9] == 6 || p[9] == 17));
		break;
	case 0x86dd:
		must(size >= 54 && p[0] >> 4 == 6);
		if (p[24] == 0xff || (p[24] == 0xfe && (p[25] & 0xc0) == 0x80))
			must(p[6] == 58 && size >= 62 && p[40] >= 133 && p[40] <= 136);
		else
			must(memcmp(p + 8, s.addr6.b, 16) == 0 && memcmp(p + 24, s.addr6.b, 16) != 0);
		static const uint8_t zero[10];
		must(memcmp(p + 24, zero, 10) != 0);
		break;
	default:
		abort();
	}
	return 0;
}
