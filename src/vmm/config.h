/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration must satisfy before anything is made from it. */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "base/error.h"
#include "proto/control.h"

/* Slots before the first disk: vsock, rng, balloon. Disks come first, then networks, then shared directories. */
#define CONFIG_FIRST_DISK_SLOT 3u

/* Checks every figure and every descriptor. Returns 0, or -1 with a sentence that names what is wrong. */
int config_check(const struct control_config *c, struct cai_error *err);

#endif
