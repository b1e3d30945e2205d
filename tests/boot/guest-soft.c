/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "run-guest.h"

int hv_soft_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err) __attribute__((weak));

int guest_soft_create(const struct hv_config *cfg, struct hv_vm **out, struct cai_error *err)
{
	if (!hv_soft_create)
		return cai_fail(err, ENOSYS, "this build has no software CPU");
	return hv_soft_create(cfg, out, err);
}
