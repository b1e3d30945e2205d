/* SPDX-License-Identifier: Apache-2.0 */
/* Theory of operation: one stateless byte; see the header. */
#include "dev/pvpanic.h"

#include "base/util.h"
#include "dev/layout.h"

void pvpanic_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write)
{
	struct pvpanic *d = ctx;
	uint8_t *p = data;
	if (!is_write) {
		memset(p, 0, len);
		p[0] = PVPANIC_PANICKED;
	} else if (p[0] & PVPANIC_PANICKED) {
		d->panicked(d->ctx);
	}
}

int pvpanic_attach(struct pvpanic *dev, struct bus *pio)
{
	return bus_add(pio, LAYOUT_PVPANIC_PORT, 1, pvpanic_access, dev);
}
