/* SPDX-License-Identifier: Apache-2.0 */
/* The entry point of every fuzz target, as libFuzzer defines it. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
