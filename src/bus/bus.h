/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device sees of the machine around it: a way to answer accesses and a way to interrupt. Devices depend on this and
 * on mem, never on an accelerator, so each can be tested with no VM around it. Header only.
 */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include <stdbool.h>
#include <stdint.h>

/* Answers one access inside the device's window. off is relative to the window; data is len (1, 2, 4, 8) bytes,
 * little-endian. Called on vCPU threads, several at once: the device takes its own lock. */
typedef void bus_access_fn(void *ctx, uint64_t off, void *data, unsigned len, bool is_write);

/* One interrupt pin. set may be called from any thread; edge-triggered pins fire when level rises. */
struct irq_line {
	void (*set)(void *ctx, unsigned gsi, bool level);
	void *ctx;
	unsigned gsi;
};

static inline void irq_set(const struct irq_line *l, bool level)
{
	if (l->set)
		l->set(l->ctx, l->gsi, level);
}
static inline void irq_pulse(const struct irq_line *l)
{
	irq_set(l, true);
	irq_set(l, false);
}

/* A bus is a sorted table of windows; port I/O and memory-mapped I/O each have one. Filled before vCPUs run, read-only
 * afterwards, so look-ups take no lock. */
#define BUS_MAX_WINDOWS 64

struct bus_window {
	uint64_t base, size;
	bus_access_fn *fn;
	void *ctx;
};
struct bus {
	struct bus_window window[BUS_MAX_WINDOWS];
	unsigned n;
};

/* Returns 0, or -1 when the table is full or the window overlaps another. */
static inline int bus_add(struct bus *b, uint64_t base, uint64_t size, bus_access_fn *fn, void *ctx)
{
	if (b->n == BUS_MAX_WINDOWS || size == 0 || base + size < base)
		return -1;
	unsigned at = 0;
	for (unsigned i = 0; i < b->n; i++) {
		if (base < b->window[i].base + b->window[i].size && b->window[i].base < base + size)
			return -1;
		if (b->window[i].base < base)
			at = i + 1;
	}
	for (unsigned i = b->n; i > at; i--)
		b->window[i] = b->window[i - 1];
	b->window[at] = (struct bus_window){base, size, fn, ctx};
	b->n++;
	return 0;
}

/* Dispatches one access; false when no window covers all of it. */
static inline bool bus_access(const struct bus *b, uint64_t addr, void *data, unsigned len, bool is_write)
{
	unsigned lo = 0, hi = b->n;
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		const struct bus_window *w = &b->window[mid];
		if (addr < w->base) {
			hi = mid;
		} else if (addr - w->base >= w->size) {
			lo = mid + 1;
		} else {
			if (len > w->size - (addr - w->base))
				return false;
			w->fn(w->ctx, addr - w->base, data, len, is_write);
			return true;
		}
	}
	return false;
}

#endif
