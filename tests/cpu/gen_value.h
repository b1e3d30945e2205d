/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers and operand values at the edges, for gen.c. */
#ifndef TESTS_CPU_GEN_VALUE_H
#define TESTS_CPU_GEN_VALUE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct rng {
	uint64_t s;
};

/* splitmix64 */
static inline uint64_t next(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}
static inline uint64_t below(struct rng *r, uint64_t n)
{
	return (next(r) >> 33) % n;
}
static inline bool chance(struct rng *r, unsigned percent)
{
	return below(r, 100) < percent;
}

/* A general register: edges of each width, small numbers, random ones. */
static inline uint64_t edge(struct rng *r)
{
	static const uint64_t v[] = {0, 1, 2, ~0ull, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff,
				     0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000,
				     0xffffffff80000000, 0xffffffffffff8000, 0xffffffffffffff80, 0x5555555555555555};
	const uint64_t k = next(r);
	switch (k & 3) {
	case 0:
		return v[(k >> 8) % (sizeof(v) / sizeof(v[0]))];
	case 1:
		return next(r) >> (k >> 8 & 63);
	default:
		return next(r);
	}
}

static inline uint32_t edge_f32(struct rng *r)
{
	static const uint32_t v[] = {0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001,
				     0xffbfffff, 1, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x4f000000, 0xcf000000,
				     0x4effffff, 0x5f000000, 0x3f000000, 0x40200000, 0x7fc12345, 0x33800000, 0x4b000001};
	const uint64_t k = next(r);
	return k & 1 ? v[(k >> 8) % (sizeof(v) / sizeof(v[0]))] : k & 2 ? (uint32_t)(k >> 32) : 0x3e000000 + ((uint32_t)(k >> 32) & 0x83ffffff);
}

static inline uint64_t edge_f64(struct rng *r)
{
	static const uint64_t v[] = {0, 1ull << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
				     0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001, 0xfff7ffffffffffff, 1, 0x8000000000000001,
				     0x000fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff, 0x41e0000000000000, 0xc1e0000000000000,
				     0x43e0000000000000, 0xc3e0000000000000, 0x3fe0000000000000, 0x4004000000000000, 0x7ff8123456789abc,
				     0x47efffffffffffff, 0x36a0000000000000, 0x380fffffffffffff};
	const uint64_t k = next(r), m = next(r);
	return k & 1 ? v[(k >> 8) % (sizeof(v) / sizeof(v[0]))] : k & 2 ? m : 0x3fc0000000000000 + (m & 0x807fffffffffffff);
}

/* 16 bytes: floats, doubles, small integers, strings with zeros, or noise. */
static inline void vector_value(uint8_t *p, struct rng *r)
{
	uint64_t q[2];
	switch (below(r, 6)) {
	case 0:
	case 1:
		q[0] = edge_f32(r) | (uint64_t)edge_f32(r) << 32;
		q[1] = edge_f32(r) | (uint64_t)edge_f32(r) << 32;
		break;
	case 2:
	case 3:
		q[0] = edge_f64(r);
		q[1] = edge_f64(r);
		break;
	case 4:
		q[0] = edge(r);
		q[1] = edge(r);
		break;
	default:
		q[0] = next(r) & next(r) & 0x0303030303030303;
		q[1] = next(r) & 0x0303030303030303;
		break;
	}
	memcpy(p, q, 16);
}

/* 10 bytes of an x87 register, also unsupported formats. */
static inline void x87_value(uint8_t *p, struct rng *r)
{
	uint64_t m = next(r) | 1ull << 63;
	uint16_t e = (uint16_t)((next(r) & 0x8000) | (0x3fff + below(r, 80) - 40));
	switch (below(r, 16)) {
	case 0:
		m = 0;
		e &= 0x8000;
		break;
	case 1:
		m = 1ull << 63;
		break;
	case 2:
		m = 1ull << 63;
		e |= 0x7fff;
		break;
	case 3:
		e |= 0x7fff;
		break;
	case 4:
		m &= ~(1ull << 62);
		e |= 0x7fff;
		break;
	case 5:
		e &= 0x8000;
		m = next(r) >> below(r, 64);
		break;
	case 6:
		m &= ~(1ull << 63);
		e = (uint16_t)next(r);
		break;
	case 7:
		e = (uint16_t)next(r);
		break;
	case 8:
		m = ~0ull;
		e = 0x7ffe;
		break;
	case 9:
		m &= ~0ull << below(r, 64);
		break;
	case 10:
		m = ~0ull << 11;
		break;
	default:
		break;
	}
	memcpy(p, &m, 8);
	memcpy(p + 8, &e, 2);
	memset(p + 10, 0, 6);
}

#endif
