/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serial port and the stateless ports under a hostile guest and any host: a program of two-byte steps. Afterwards the port must
 * still work: a driver that starts it anew sends and receives a byte.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "dev/layout.h"
#include "dev/pvpanic.h"
#include "dev/reset.h"
#include "dev/serial.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}
static void on_irq(void *ctx, unsigned gsi, bool level)
{
	bool *now = ctx;
	must(gsi == LAYOUT_COM1_GSI && level != *now); /* the line only ever changes */
	*now = level;
}
static void on_ended(void *ctx, enum reset_kind kind)
{
	must(kind == RESET_REBOOT || kind == RESET_POWEROFF);
}
static void on_panic(void *ctx)
{
}

static uint8_t in(struct serial *s, unsigned reg)
{
	uint8_t v;
	serial_access(s, reg, &v, 1, false);
	return v;
}
static void out(struct serial *s, unsigned reg, uint8_t v)
{
	serial_access(s, reg, &v, 1, true);
}

static void still_works(struct serial *s)
{
	static uint8_t sink[SERIAL_OUT_BYTES];
	out(s, 3, 0x03);
	out(s, 4, 0x0B);
	out(s, 1, 0);
	out(s, 2, 0x07);
	while (serial_drain(s, sink, sizeof(sink)))
		;
	must((in(s, 5) & 0x61) == 0x60);
	out(s, 0, 'o');
	must(serial_drain(s, sink, sizeof(sink)) == 1 && sink[0] == 'o');
	must(serial_input(s, "i", 1) == 1 && (in(s, 5) & 1) && in(s, 0) == 'i');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t port[] = {LAYOUT_COM1_PORT, 0x60, 0xCF9, LAYOUT_SLEEP_PORT, LAYOUT_PVPANIC_PORT, 0x64, 0x3FC, 0x3FF};
	bool level = false, filled = false;
	struct serial *s = serial_new(&(struct serial_config){.irq = {on_irq, &level, LAYOUT_COM1_GSI}});
	struct reset_dev reset = {on_ended, NULL};
	struct pvpanic panic = {on_panic, NULL};
	struct bus pio = {0};
	uint8_t buf[512];
	must(s && bus_add(&pio, LAYOUT_COM1_PORT, SERIAL_PORTS, serial_access, s) == 0 && reset_attach(&reset, &pio) == 0 &&
	     pvpanic_attach(&panic, &pio) == 0);

	for (; size >= 2; data += 2, size -= 2) {
		unsigned op = data[0] >> 5, arg = data[0] & 31;
		memset(buf, data[1], sizeof(buf));
		switch (op) {
		case 0:
			out(s, arg, data[1]); /* offsets past the window included */
			break;
		case 1:
			in(s, arg);
			break;
		case 2:
			must(serial_input(s, buf, data[1]) <= SERIAL_FIFO_BYTES);
			break;
		case 3:
			serial_drain(s, buf, data[1]);
			break;
		case 4:
			must(serial_tail(s, buf, arg) <= arg);
			break;
		case 5: { /* a burst; rarely, and once for each input, one that fills the transmitter: it is slow */
			bool fill = arg == 31 && data[1] == 0x5A && !filled;
			for (unsigned i = 0; i < (fill ? SERIAL_OUT_BYTES : arg); i++)
				out(s, 0, data[1]);
			filled |= fill;
			break;
		}
		case 6: {
			struct serial_state st;
			serial_save(s, &st);
			((uint8_t *)&st)[arg % sizeof(st)] ^= data[1];
			serial_load(s, &st);
			break;
		}
		default:
			bus_access(&pio, port[arg & 7], buf, 1u << (arg >> 3), data[1] & 1);
			break;
		}
	}
	still_works(s);
	serial_free(s);
	return 0;
}
