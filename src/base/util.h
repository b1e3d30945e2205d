/* SPDX-License-Identifier: Apache-2.0 */
/* Small things that every module uses. */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_LEN(a)            (sizeof(a) / sizeof((a)[0]))
#define likely(x)               __builtin_expect(!!(x), 1)
#define unlikely(x)             __builtin_expect(!!(x), 0)
#define container_of(p, T, m)   ((T *)((char *)(p) - offsetof(T, m)))
#define BIT(n)                  (1ULL << (n))
#define KIB(n)                  ((uint64_t)(n) << 10)
#define MIB(n)                  ((uint64_t)(n) << 20)
#define GIB(n)                  ((uint64_t)(n) << 30)

static inline uint64_t align_down(uint64_t v, uint64_t a)
{
	return v & ~(a - 1);
}
static inline uint64_t align_up(uint64_t v, uint64_t a)
{
	return (v + a - 1) & ~(a - 1);
}

/* Little-endian loads and stores at any alignment. */
static inline uint16_t load_le16(const void *p)
{
	uint16_t v;
	memcpy(&v, p, 2);
	return v;
}
static inline uint32_t load_le32(const void *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}
static inline uint64_t load_le64(const void *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return v;
}
static inline void store_le16(void *p, uint16_t v)
{
	memcpy(p, &v, 2);
}
static inline void store_le32(void *p, uint32_t v)
{
	memcpy(p, &v, 4);
}
static inline void store_le64(void *p, uint64_t v)
{
	memcpy(p, &v, 8);
}

#endif
