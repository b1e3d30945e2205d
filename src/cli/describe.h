/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox as JSON: what `inspect` prints, and `ps --json` a list of. */
#ifndef CLI_DESCRIBE_H
#define CLI_DESCRIBE_H

#include "sandbox/state.h"

/* A new reference. size: also how much of the host's disk it takes, which has to be counted. */
json_t *describe_sandbox(const struct sandbox_view *v, bool size);
/* "3 s", "5 min", "2 h", "4 days" since then. */
void describe_age(int64_t since_ns, char out[32]);

#endif
