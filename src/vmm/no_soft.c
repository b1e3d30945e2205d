/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for src/hv/soft in a build without it. */
#include <errno.h>

#include "hv/hv.h"

int hv_soft_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err)
{
	return cai_fail(err, ENOSYS, "this build has no software CPU");
}
