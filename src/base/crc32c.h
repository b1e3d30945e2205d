/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C (Castagnoli; RFC 3720 appendix B.4): finds every burst of up to 32 flipped bits and any odd number of them, at several
 * gigabytes a second where the host's CPU has the instruction for it. It guards against accidents, not against forgery.
 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of the n bytes at p, going on from crc: 0 to begin with, a former result to continue. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

#endif
