/* SPDX-License-Identifier: Apache-2.0 */
/* What the user is told about KVM and the boundary, once. */
#ifndef CLI_NOTICE_H
#define CLI_NOTICE_H

#include "sandbox/accel.h"

/* When `auto` could not take KVM and stderr is a terminal: which case it is, the boundary used and what mends
 * it; not again while the case stays the same. */
void notice_boundary(const struct accel_pick *p);

#endif
