/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: no state at all; a write with the right value ends the machine, anything else is ignored, and every
 * register reads as an idle device. Wider accesses are looked at byte by byte, as the ISA bus splits them.
 */
#include "dev/reset.h"

#include "base/util.h"
#include "dev/layout.h"

#define I8042_BASE    0x60u
#define I8042_PORTS   5u
#define I8042_SPEAKER 1u /* port 0x61 */
#define I8042_COMMAND 4u /* port 0x64 */
#define CF9_BASE      0xCF9u
#define CF9_RST_CPU   0x04u

#define ACPI_PORTS     3u
#define ACPI_CONTROL   0u
#define ACPI_RESET     2u
#define SLEEP_ENABLE   0x20u
#define SLEEP_TYPE(v)  (((v) >> 2) & 7u)
#define RESET_VALUE    0x01u

void reset_i8042_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write)
{
	struct reset_dev *d = ctx;
	uint8_t *p = data;
	for (unsigned i = 0; i < len; i++) {
		/* Port 0x61 shows timer 2 as run out, so that a kernel that calibrates with a PIT that is not there gives up
		 * at once instead of waiting for it. */
		if (!is_write)
			p[i] = off + i == I8042_SPEAKER ? 0x20 : 0;
		/* Commands 0xF0..0xFF pulse the output lines whose bits are 0; line 0 is the CPU's reset. */
		else if (off + i == I8042_COMMAND && (p[i] & 0xF1) == 0xF0)
			d->ended(d->ctx, RESET_REBOOT);
	}
}

void reset_cf9_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write)
{
	struct reset_dev *d = ctx;
	uint8_t *p = data;
	if (!is_write)
		memset(p, 0, len);
	else if (p[0] & CF9_RST_CPU)
		d->ended(d->ctx, RESET_REBOOT);
}

void reset_acpi_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write)
{
	struct reset_dev *d = ctx;
	uint8_t *p = data;
	for (unsigned i = 0; i < len; i++) {
		if (!is_write)
			p[i] = 0;
		else if (off + i == ACPI_CONTROL && (p[i] & SLEEP_ENABLE) && SLEEP_TYPE(p[i]) == RESET_SLEEP_S5)
			d->ended(d->ctx, RESET_POWEROFF);
		else if (off + i == ACPI_RESET && p[i] == RESET_VALUE)
			d->ended(d->ctx, RESET_REBOOT);
	}
}

int reset_attach(struct reset_dev *dev, struct bus *pio)
{
	if (bus_add(pio, I8042_BASE, I8042_PORTS, reset_i8042_access, dev) < 0 ||
	    bus_add(pio, CF9_BASE, 1, reset_cf9_access, dev) < 0 ||
	    bus_add(pio, LAYOUT_SLEEP_PORT, ACPI_PORTS, reset_acpi_access, dev) < 0)
		return -1;
	return 0;
}
