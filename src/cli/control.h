/* SPDX-License-Identifier: Apache-2.0 */
/* Ending a sandbox from another command. */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include "sandbox/state.h"

/* Kills what runs in the sandbox of v, and waits until its record says so. 0 also when it has ended already. */
int control_end(struct sandbox_view *v, struct cai_error *err);

#endif
