/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the receiver is a 16-byte FIFO that the host side fills, the transmitter is a 64 KiB buffer that the
 * host side drains. There is no shifting time: a byte written is sent, so the transmitter-empty condition arises at once,
 * except while the buffer is full. Every register access and every host call ends in update_irq(), which derives the interrupt
 * condition from the state and moves the line only when the condition changed. The line is edge-triggered in the guest, so
 * what matters is that it falls whenever the guest has acknowledged everything and rises with the next event: the
 * transmitter-empty interrupt therefore is a latch (thre) that a read of IIR or a write to THR clears, as the data sheet says.
 * A write to THR clears it and, since the byte is sent at once, sets it again: a fall and a rise, so that a driver which
 * acknowledges by writing gets its next edge. Edges that come faster than the guest takes them coalesce in the interrupt
 * controller.
 */
#include "dev/serial.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

enum { REG_DATA, REG_IER, REG_IIR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RDA  0x01u
#define IER_THRE 0x02u
#define IER_RLS  0x04u
#define IER_MASK 0x0Fu

#define IIR_NONE    0x01u
#define IIR_THRE    0x02u
#define IIR_RDA     0x04u
#define IIR_RLS     0x06u
#define IIR_TIMEOUT 0x0Cu
#define IIR_FIFO    0xC0u

#define FCR_ENABLE   0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_CLEAR_TX 0x04u
#define FCR_KEEP     0xC1u /* the bits that stay: trigger level and enable */

#define LCR_DLAB 0x80u
#define MCR_LOOP 0x10u
#define MCR_MASK 0x1Fu

#define LSR_DR     0x01u
#define LSR_OE     0x02u
#define LSR_ERRORS 0x1Eu
#define LSR_THRE   0x20u
#define LSR_TEMT   0x40u

/* What an always connected terminal shows: CTS, DSR, DCD. */
#define MSR_PRESENT 0xB0u

struct serial {
	struct serial_config cfg;
	pthread_mutex_t lock;
	uint8_t ier, fcr, lcr, mcr, lsr_sticky, scr, dll, dlm;
	bool thre;         /* transmitter-empty interrupt latched */
	bool irq_level;    /* as last driven */
	bool refused;      /* input did not fit: cfg.space is owed */
	uint8_t rx[SERIAL_FIFO_BYTES];
	unsigned rx_head, rx_len;
	uint32_t out_head, out_len; /* ring over out[] */
	uint64_t sent, lost;
	uint8_t out[SERIAL_OUT_BYTES];
	uint8_t tail[SERIAL_TAIL_BYTES]; /* byte i of all output is at i % SERIAL_TAIL_BYTES */
};

struct serial *serial_new(const struct serial_config *cfg)
{
	struct serial *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->cfg = *cfg;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

void serial_free(struct serial *s)
{
	if (!s)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static unsigned rx_capacity(const struct serial *s)
{
	return s->fcr & FCR_ENABLE ? SERIAL_FIFO_BYTES : 1;
}

static unsigned rx_trigger(const struct serial *s)
{
	static const uint8_t level[4] = {1, 4, 8, 14};
	return s->fcr & FCR_ENABLE ? level[s->fcr >> 6] : 1;
}

/* The highest-priority interrupt source that is enabled. Bytes below the trigger level count as timed out at once, since no
 * more may follow. */
static uint8_t irq_source(const struct serial *s)
{
	if ((s->ier & IER_RLS) && (s->lsr_sticky & LSR_ERRORS))
		return IIR_RLS;
	if ((s->ier & IER_RDA) && s->rx_len > 0)
		return s->rx_len >= rx_trigger(s) ? IIR_RDA : IIR_TIMEOUT;
	if ((s->ier & IER_THRE) && s->thre)
		return IIR_THRE;
	return IIR_NONE;
}

static void update_irq(struct serial *s)
{
	bool level = irq_source(s) != IIR_NONE;
	if (level == s->irq_level)
		return;
	s->irq_level = level;
	irq_set(&s->cfg.irq, level);
}

static bool rx_put(struct serial *s, uint8_t byte)
{
	if (s->rx_len >= rx_capacity(s))
		return false;
	s->rx[(s->rx_head + s->rx_len) % SERIAL_FIFO_BYTES] = byte;
	s->rx_len++;
	return true;
}

static uint8_t rx_get(struct serial *s)
{
	if (s->rx_len == 0)
		return 0;
	uint8_t byte = s->rx[s->rx_head];
	s->rx_head = (s->rx_head + 1) % SERIAL_FIFO_BYTES;
	s->rx_len--;
	return byte;
}

static void offer_space(struct serial *s)
{
	if (s->refused && s->rx_len < rx_capacity(s) && !(s->mcr & MCR_LOOP)) {
		s->refused = false;
		if (s->cfg.space)
			s->cfg.space(s->cfg.ctx);
	}
}

static void transmit(struct serial *s, uint8_t byte)
{
	if (s->thre) {
		s->thre = false;
		update_irq(s);
	}
	if (s->mcr & MCR_LOOP) {
		if (!rx_put(s, byte))
			s->lsr_sticky |= LSR_OE;
		s->thre = true;
		return;
	}
	s->tail[s->sent++ % SERIAL_TAIL_BYTES] = byte;
	if (s->out_len == SERIAL_OUT_BYTES) {
		s->lost++;
		return;
	}
	s->out[(s->out_head + s->out_len) % SERIAL_OUT_BYTES] = byte;
	s->out_len++;
	s->thre = s->out_len < SERIAL_OUT_BYTES;
	if (s->out_len == 1 && s->cfg.wake)
		s->cfg.wake(s->cfg.ctx);
}

static uint8_t read_lsr(struct serial *s)
{
	uint8_t v = s->lsr_sticky;
	s->lsr_sticky = 0;
	if (s->rx_len > 0)
		v |= LSR_DR;
	if (s->out_len < SERIAL_OUT_BYTES || (s->mcr & MCR_LOOP))
		v |= LSR_THRE | LSR_TEMT;
	return v;
}

static uint8_t read_msr(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_PRESENT;
	/* In loopback RTS, DTR, OUT1 and OUT2 come back as CTS, DSR, RI and DCD. */
	return (uint8_t)((s->mcr & 0x02) << 3 | (s->mcr & 0x01) << 5 | (s->mcr & 0x04) << 4 | (s->mcr & 0x08) << 4);
}

static uint8_t read_reg(struct serial *s, unsigned reg)
{
	switch (reg) {
	case REG_DATA:
		return s->lcr & LCR_DLAB ? s->dll : rx_get(s);
	case REG_IER:
		return s->lcr & LCR_DLAB ? s->dlm : s->ier;
	case REG_IIR: {
		uint8_t v = irq_source(s);
		if (v == IIR_THRE)
			s->thre = false;
		return v | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
	}
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return read_lsr(s);
	case REG_MSR:
		return read_msr(s);
	default:
		return s->scr;
	}
}

static void write_reg(struct serial *s, unsigned reg, uint8_t v)
{
	switch (reg) {
	case REG_DATA:
		if (s->lcr & LCR_DLAB)
			s->dll = v;
		else
			transmit(s, v);
		break;
	case REG_IER:
		if (s->lcr & LCR_DLAB) {
			s->dlm = v;
			break;
		}
		/* Enabling the interrupt while the transmitter is empty raises it: drivers test for just that. */
		if ((v & IER_THRE) && !(s->ier & IER_THRE) && s->out_len < SERIAL_OUT_BYTES)
			s->thre = true;
		s->ier = v & IER_MASK;
		break;
	case REG_IIR: /* FCR on write */
		if ((v & FCR_CLEAR_RX) || ((v ^ s->fcr) & FCR_ENABLE))
			s->rx_len = 0;
		if (v & FCR_CLEAR_TX)
			s->thre = s->out_len < SERIAL_OUT_BYTES;
		s->fcr = v & FCR_ENABLE ? v & FCR_KEEP : 0;
		break;
	case REG_LCR:
		s->lcr = v;
		break;
	case REG_MCR:
		s->mcr = v & MCR_MASK;
		break;
	case REG_SCR:
		s->scr = v;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
}

void serial_access(void *ctx, uint64_t off, void *data, unsigned len, bool is_write)
{
	struct serial *s = ctx;
	uint8_t *p = data;
	pthread_mutex_lock(&s->lock);
	/* A wider access is split into bytes, as the ISA bus does. */
	for (unsigned i = 0; i < len; i++) {
		if (off + i >= SERIAL_PORTS) {
			if (!is_write)
				p[i] = 0xFF;
		} else if (is_write) {
			write_reg(s, (unsigned)off + i, p[i]);
		} else {
			p[i] = read_reg(s, (unsigned)off + i);
		}
	}
	update_irq(s);
	offer_space(s);
	pthread_mutex_unlock(&s->lock);
}

size_t serial_input(struct serial *s, const void *p, size_t n)
{
	const uint8_t *byte = p;
	size_t done = 0;
	pthread_mutex_lock(&s->lock);
	if (!(s->mcr & MCR_LOOP))
		while (done < n && rx_put(s, byte[done]))
			done++;
	if (done < n)
		s->refused = true;
	update_irq(s);
	pthread_mutex_unlock(&s->lock);
	return done;
}

/* Drops the n oldest bytes of output. When that ends a full buffer, the transmitter becomes empty: an interrupt. */
static void consume(struct serial *s, uint32_t n)
{
	bool was_full = s->out_len == SERIAL_OUT_BYTES;
	s->out_head = (s->out_head + n) % SERIAL_OUT_BYTES;
	s->out_len -= n;
	if (was_full && n > 0) {
		s->thre = true;
		update_irq(s);
	}
}

static uint32_t peek(const struct serial *s, void *out, size_t max)
{
	uint32_t n = s->out_len < max ? s->out_len : (uint32_t)max;
	uint32_t first = SERIAL_OUT_BYTES - s->out_head;
	if (first > n)
		first = n;
	memcpy(out, s->out + s->out_head, first);
	memcpy((uint8_t *)out + first, s->out, n - first);
	return n;
}

size_t serial_drain(struct serial *s, void *out, size_t max)
{
	pthread_mutex_lock(&s->lock);
	uint32_t n = peek(s, out, max);
	consume(s, n);
	pthread_mutex_unlock(&s->lock);
	return n;
}

int serial_drain_fd(struct serial *s, int fd)
{
	uint8_t chunk[4096];
	for (;;) {
		pthread_mutex_lock(&s->lock);
		uint32_t n = peek(s, chunk, sizeof(chunk));
		pthread_mutex_unlock(&s->lock);
		if (n == 0)
			return 0;
		/* Written without the lock, so that a slow reader holds up nobody; the bytes leave the buffer once written. */
		ssize_t w = write(fd, chunk, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return errno == EAGAIN ? 1 : -1;
		pthread_mutex_lock(&s->lock);
		consume(s, (uint32_t)w);
		pthread_mutex_unlock(&s->lock);
	}
}

size_t serial_tail(struct serial *s, void *out, size_t max)
{
	pthread_mutex_lock(&s->lock);
	uint64_t n = s->sent < SERIAL_TAIL_BYTES ? s->sent : SERIAL_TAIL_BYTES;
	if (n > max)
		n = max;
	for (uint64_t i = 0; i < n; i++)
		((uint8_t *)out)[i] = s->tail[(s->sent - n + i) % SERIAL_TAIL_BYTES];
	pthread_mutex_unlock(&s->lock);
	return (size_t)n;
}

uint64_t serial_lost(struct serial *s)
{
	pthread_mutex_lock(&s->lock);
	uint64_t n = s->lost;
	pthread_mutex_unlock(&s->lock);
	return n;
}

void serial_save(struct serial *s, struct serial_state *st)
{
	pthread_mutex_lock(&s->lock);
	*st = (struct serial_state){
		.ier = s->ier,
		.fcr = s->fcr,
		.lcr = s->lcr,
		.mcr = s->mcr,
		.lsr_sticky = s->lsr_sticky,
		.scr = s->scr,
		.dll = s->dll,
		.dlm = s->dlm,
		.thre_pending = s->thre || s->out_len == SERIAL_OUT_BYTES,
		.rx_len = (uint8_t)s->rx_len,
	};
	for (unsigned i = 0; i < s->rx_len; i++)
		st->rx[i] = s->rx[(s->rx_head + i) % SERIAL_FIFO_BYTES];
	pthread_mutex_unlock(&s->lock);
}

void serial_load(struct serial *s, const struct serial_state *st)
{
	pthread_mutex_lock(&s->lock);
	s->ier = st->ier & IER_MASK;
	s->fcr = st->fcr & FCR_ENABLE ? st->fcr & FCR_KEEP : 0;
	s->lcr = st->lcr;
	s->mcr = st->mcr & MCR_MASK;
	s->lsr_sticky = st->lsr_sticky & LSR_ERRORS;
	s->scr = st->scr;
	s->dll = st->dll;
	s->dlm = st->dlm;
	s->thre = st->thre_pending && s->out_len < SERIAL_OUT_BYTES;
	s->rx_head = 0;
	s->rx_len = st->rx_len < rx_capacity(s) ? st->rx_len : rx_capacity(s);
	memcpy(s->rx, st->rx, sizeof(s->rx));
	update_irq(s);
	offer_space(s);
	pthread_mutex_unlock(&s->lock);
}
