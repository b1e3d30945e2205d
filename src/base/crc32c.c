/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: with SSE 4.2 one instruction takes 8 bytes; it has a latency of three cycles and could start every cycle, so a
 * long input is cut in three lanes whose remainders are joined at the end. Joining shifts a remainder over the bytes that follow it,
 * which is a multiplication modulo the polynomial by a constant of the lane's length. Other hosts go bit by bit.
 */
#include "base/crc32c.h"

#include "base/util.h"

#define POLY 0x82F63B78u /* reflected */
#define LANE 5440u       /* bytes of each of the three lanes: four rounds of them take 64 KiB but for 256 bytes */
/* x^(8 * LANE) and x^(16 * LANE), reflected: what a remainder is multiplied with when that many bits follow. */
#define SHIFT_ONE_LANE  0xACA00C83u
#define SHIFT_TWO_LANES 0xCEECA6DFu

static uint32_t by_bits(uint32_t crc, const uint8_t *p, size_t n)
{
	while (n--) {
		crc ^= *p++;
		for (unsigned k = 0; k < 8; k++)
			crc = crc >> 1 ^ (POLY & (0u - (crc & 1)));
	}
	return crc;
}

/* a * b modulo the polynomial, both reflected. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t r = 0;
	for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
		if (a & bit)
			r ^= b;
		b = b >> 1 ^ (POLY & (0u - (b & 1)));
	}
	return r;
}

__attribute__((target("sse4.2"))) static uint64_t step8(uint64_t crc, const uint8_t *p)
{
	return __builtin_ia32_crc32di(crc, load_le64(p));
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t n)
{
	for (; n >= 3 * LANE; n -= 3 * LANE, p += 3 * LANE) {
		uint64_t a = crc, b = 0, c = 0;
		for (size_t i = 0; i < LANE; i += 8) {
			a = step8(a, p + i);
			b = step8(b, p + LANE + i);
			c = step8(c, p + 2 * LANE + i);
		}
		crc = multiply((uint32_t)a, SHIFT_TWO_LANES) ^ multiply((uint32_t)b, SHIFT_ONE_LANE) ^ (uint32_t)c;
	}
	for (; n >= 8; n -= 8, p += 8)
		crc = (uint32_t)step8(crc, p);
	for (; n; n--, p++)
		crc = __builtin_ia32_crc32qi(crc, *p);
	return crc;
}

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
	crc = ~crc;
	return ~(__builtin_cpu_supports("sse4.2") ? by_instruction(crc, p, n) : by_bits(crc, p, n));
}
