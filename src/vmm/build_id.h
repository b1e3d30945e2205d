/* SPDX-License-Identifier: Apache-2.0 */
/* Which build of the monitor this is: what the linker wrote into it. */
#ifndef VMM_BUILD_ID_H
#define VMM_BUILD_ID_H

#include <stdbool.h>
#include <stdint.h>

/* Fills id; zeroes, and false, when the linker left none. */
bool build_id(uint8_t id[20]);

#endif
