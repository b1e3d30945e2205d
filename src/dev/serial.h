/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A serial port (National Semiconductor PC16550D data sheet) without modem and without baud rate: bytes move at once.
 *
 * Output goes to a bounded buffer that a consumer drains; while the buffer is full the transmitter reports itself busy (LSR
 * THRE clear), which is the flow control a UART has, so a vCPU never waits inside this device. A driver that writes all the
 * same loses the byte, as on hardware. The last SERIAL_TAIL_BYTES of all output stay readable for reporting panics.
 *
 * Thread rules: every function may be called from any thread; the device has its own lock. The callbacks `wake` and
 * `space` and the interrupt line are called with that lock held, so they must not call back into the device.
 */
#ifndef DEV_SERIAL_H
#define DEV_SERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "bus/bus.h"

#define SERIAL_OUT_BYTES  65536u /* bound of undrained output */
#define SERIAL_TAIL_BYTES 8192u
#define SERIAL_FIFO_BYTES 16u
#define SERIAL_PORTS      8u     /* size of the window on the port bus */

struct serial;

struct serial_config {
	struct irq_line irq;     /* edge-triggered on the ISA bus; the level follows the interrupt condition */
	void (*wake)(void *ctx); /* output is waiting and the buffer was empty before; may be NULL */
	void (*space)(void *ctx); /* input was refused earlier and there is room now; may be NULL */
	void *ctx;
};

/* What a snapshot holds beside the undrained output, which is lost to the guest and not kept. */
struct serial_state {
	uint8_t ier, fcr, lcr, mcr, lsr_sticky, scr, dll, dlm;
	uint8_t thre_pending; /* the transmitter-empty interrupt was raised and not yet acknowledged */
	uint8_t timeout_pending, rx_len;
	uint8_t rx[SERIAL_FIFO_BYTES];
};

/* Returns NULL only when memory runs out. Owned by the caller. */
struct serial *serial_new(const struct serial_config *cfg);
void serial_free(struct serial *s);

/* The register window (bus_access_fn with ctx = struct serial): put it on the port bus at LAYOUT_COM1_PORT, SERIAL_PORTS long. */
void serial_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write);

/* Gives input to the guest; returns how many of the n bytes the FIFO took. After fewer than n, `space` is called once when
 * there is room again. */
size_t serial_input(struct serial *s, const void *p, size_t n);

/* Moves up to max bytes of output into out and returns the count; 0 when there is none. */
size_t serial_drain(struct serial *s, void *out, size_t max);
/* Writes undrained output to fd (non-blocking or not) until it is empty or fd would block. Returns 0 when all is written, 1
 * when fd would block, -1 with errno when fd failed (the output is then kept). One caller at a time. */
int serial_drain_fd(struct serial *s, int fd);

/* Copies the last output (at most max bytes, at most SERIAL_TAIL_BYTES), drained or not; returns the count. No NUL is added. */
size_t serial_tail(struct serial *s, void *out, size_t max);
/* Bytes that the guest wrote to a full transmitter and that were lost. */
uint64_t serial_lost(struct serial *s);

void serial_save(struct serial *s, struct serial_state *st);
/* Takes a saved state; the fields are masked to what registers can hold, so any bytes are safe. Updates the interrupt line. */
void serial_load(struct serial *s, const struct serial_state *st);

#endif
