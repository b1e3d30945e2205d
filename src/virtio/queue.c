/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * The driver publishes chains in the available ring and we answer in the used ring, both in memory that other vCPUs write
 * at any moment. So everything read from a ring is copied to a local once and only the copy is checked and used. The
 * addresses of the rings were checked when the queue became ready, but are resolved again at each use: nothing here
 * holds a pointer across calls, so guest RAM may be remapped between them.
 *
 * A chain is walked at most `size` descriptors long, which bounds both loops and overlong chains; an indirect table has the same
 * bound. Whatever breaks a rule of section 2.7 ends in fail(), after which the queue answers nothing until reset.
 *
 * Memory order: the host is x86-64 like the guest, but the compiler is not; the atomics below name the order the protocol
 * needs, and the two full fences are needed on x86 as well (a store followed by a load of something else).
 */
#include "virtio/queue.h"

#include <linux/virtio_ring.h>
#include <string.h>

#include "base/util.h"

#define DESC_SIZE 16u

/* Offsets in the available and the used ring. */
#define RING_FLAGS 0u
#define RING_IDX   2u
#define RING_ELEMS 4u

static uint64_t avail_bytes(const struct virtq *q)
{
	return RING_ELEMS + 2ull * q->size + 2; /* used_event behind the elements, present or not */
}

static uint64_t used_bytes(const struct virtq *q)
{
	return RING_ELEMS + 8ull * q->size + 2; /* avail_event likewise */
}

static uint8_t *ring(const struct mem *m, uint64_t gpa, uint64_t bytes)
{
	return mem_hva(m, gpa, bytes);
}

static uint16_t get16(const uint8_t *p, int order)
{
	return order == __ATOMIC_ACQUIRE ? __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE)
					 : __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}

static int fail(struct virtq *q)
{
	q->broken = true;
	return -1;
}

void virtq_reset(struct virtq *q)
{
	*q = (struct virtq){.max_size = q->max_size, .size = q->max_size};
}

int virtq_start(struct virtq *q, const struct mem *m)
{
	if (!q->size || q->size > q->max_size || (q->size & (q->size - 1)))
		return -1;
	if (q->desc % 16 || q->avail % 2 || q->used % 4)
		return -1;
	if (!ring(m, q->desc, (uint64_t)q->size * DESC_SIZE) || !ring(m, q->avail, avail_bytes(q)) ||
	    !ring(m, q->used, used_bytes(q)))
		return -1;
	q->next_avail = q->next_used = q->signalled_used = 0;
	q->signalled_valid = q->broken = false;
	q->ready = true;
	return 0;
}

/* One descriptor, read once. */
static struct vring_desc fetch(const uint8_t *table, unsigned i)
{
	struct vring_desc d;
	memcpy(&d, table + (size_t)i * DESC_SIZE, DESC_SIZE);
	/* The driver may rewrite the table meanwhile: the compiler must not go back to it for a second look. */
	__asm__ volatile("" : "+m"(d) : : "memory");
	return d;
}

/* Appends a segment; false when it breaks a rule. */
static bool add_segment(const struct mem *m, struct virtq_chain *c, const struct vring_desc *d)
{
	bool in = d->flags & VRING_DESC_F_WRITE;
	if (!in && c->n_in)
		return false; /* readable after writable */
	if (!d->len)
		return true;
	void *p = mem_hva(m, d->addr, d->len);
	if (!p || c->out_len + c->in_len + d->len > UINT32_MAX)
		return false;
	unsigned i = c->n_out + c->n_in;
	c->iov[i] = (struct iovec){.iov_base = p, .iov_len = d->len};
	c->gpa[i] = d->addr;
	if (in) {
		c->n_in++;
		c->in_len += d->len;
	} else {
		c->n_out++;
		c->out_len += d->len;
	}
	return true;
}

int virtq_pop(struct virtq *q, const struct mem *m, struct virtq_chain *c)
{
	if (!q->ready || q->broken)
		return q->broken ? -1 : 0;
	const uint8_t *avail = ring(m, q->avail, avail_bytes(q));
	const uint8_t *table = ring(m, q->desc, (uint64_t)q->size * DESC_SIZE);
	if (!avail || !table)
		return fail(q);

	/* Acquire: what the driver wrote before it moved the index (ring entry, descriptors, buffers) is seen after it. */
	uint16_t pending = (uint16_t)(get16(avail + RING_IDX, __ATOMIC_ACQUIRE) - q->next_avail);
	if (!pending)
		return 0;
	if (pending > q->size)
		return fail(q);

	c->head = get16(avail + RING_ELEMS + 2 * (q->next_avail & (q->size - 1)), __ATOMIC_RELAXED);
	c->n_out = c->n_in = 0;
	c->out_len = c->in_len = 0;

	unsigned entries = q->size, i = c->head;
	bool indirect = false;
	for (unsigned n = 0;;) {
		if (i >= entries || n++ >= q->size)
			return fail(q);
		struct vring_desc d = fetch(table, i);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			/* Ends the chain of direct descriptors and may not nest. */
			if (!q->indirect || indirect || (d.flags & VRING_DESC_F_NEXT) || !d.len || d.len % DESC_SIZE ||
			    d.len / DESC_SIZE > q->size)
				return fail(q);
			table = mem_hva(m, d.addr, d.len);
			if (!table)
				return fail(q);
			indirect = true;
			entries = d.len / DESC_SIZE;
			i = 0;
			n--; /* the descriptor that names the table carries no data */
			continue;
		}
		if (!add_segment(m, c, &d))
			return fail(q);
		if (!(d.flags & VRING_DESC_F_NEXT))
			break;
		i = d.next;
	}
	q->next_avail++;
	return 1;
}

void virtq_unpop(struct virtq *q)
{
	q->next_avail--;
}

void virtq_fill(struct virtq *q, struct mem *m, unsigned i, uint16_t head, uint32_t written)
{
	uint8_t *used = ring(m, q->used, used_bytes(q));
	if (!q->ready || !used)
		return;
	unsigned slot = (q->next_used + i) & (q->size - 1u);
	uint8_t *elem = used + RING_ELEMS + 8 * slot;
	__atomic_store_n((uint32_t *)elem, head, __ATOMIC_RELAXED);
	__atomic_store_n((uint32_t *)(elem + 4), written, __ATOMIC_RELAXED);
	mem_written(m, q->used + RING_ELEMS + 8 * slot, 8);
}

void virtq_publish(struct virtq *q, struct mem *m, unsigned n)
{
	uint8_t *used = ring(m, q->used, used_bytes(q));
	if (!q->ready || !used)
		return;
	q->next_used = (uint16_t)(q->next_used + n);
	/* Release: a driver that sees the new index also sees the entries, and the buffers' contents. */
	__atomic_store_n((uint16_t *)(used + RING_IDX), q->next_used, __ATOMIC_RELEASE);
	mem_written(m, q->used + RING_IDX, 2);
}

void virtq_push(struct virtq *q, struct mem *m, uint16_t head, uint32_t written)
{
	virtq_fill(q, m, 0, head, written);
	virtq_publish(q, m, 1);
}

bool virtq_should_interrupt(struct virtq *q, const struct mem *m)
{
	const uint8_t *avail = ring(m, q->avail, avail_bytes(q));
	if (!q->ready || !avail)
		return false;
	/*
	 * Full fence: our used index must be visible before we look at what the driver wants. The driver stores its wish and then
	 * looks at the index once more; without this, both could miss the other's store and the driver would sleep.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx)
		return !(get16(avail + RING_FLAGS, __ATOMIC_RELAXED) & VRING_AVAIL_F_NO_INTERRUPT);
	uint16_t event = get16(avail + RING_ELEMS + 2 * q->size, __ATOMIC_RELAXED);
	bool need = !q->signalled_valid || vring_need_event(event, q->next_used, q->signalled_used);
	q->signalled_used = q->next_used;
	q->signalled_valid = true;
	return need;
}

bool virtq_enable_notify(struct virtq *q, struct mem *m)
{
	uint8_t *used = ring(m, q->used, used_bytes(q));
	const uint8_t *avail = ring(m, q->avail, avail_bytes(q));
	if (!q->ready || q->broken || !used || !avail)
		return false;
	if (q->event_idx) {
		uint64_t off = RING_ELEMS + 8u * q->size;
		__atomic_store_n((uint16_t *)(used + off), q->next_avail, __ATOMIC_RELAXED);
		mem_written(m, q->used + off, 2);
	} else {
		__atomic_store_n((uint16_t *)(used + RING_FLAGS), 0, __ATOMIC_RELAXED);
		mem_written(m, q->used, 2);
	}
	/* Full fence: the wish to be notified must be visible before the last look at the index; see virtq_should_interrupt. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return get16(avail + RING_IDX, __ATOMIC_RELAXED) != q->next_avail;
}

void virtq_disable_notify(struct virtq *q, struct mem *m)
{
	/* With event indices the old avail_event, which the driver's index has passed, keeps it quiet by itself. */
	if (q->event_idx || !q->ready)
		return;
	uint8_t *used = ring(m, q->used, used_bytes(q));
	if (!used)
		return;
	__atomic_store_n((uint16_t *)(used + RING_FLAGS), VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
	mem_written(m, q->used, 2);
}

unsigned virtq_slice(const struct virtq_chain *c, bool writable, uint64_t off, uint64_t n, struct iovec *out)
{
	unsigned first = writable ? c->n_out : 0, count = writable ? c->n_in : c->n_out, k = 0;
	for (unsigned i = first; i < first + count && n; i++) {
		uint64_t len = c->iov[i].iov_len;
		if (off >= len) {
			off -= len;
			continue;
		}
		len -= off;
		if (len > n)
			len = n;
		out[k++] = (struct iovec){.iov_base = (uint8_t *)c->iov[i].iov_base + off, .iov_len = len};
		off = 0;
		n -= len;
	}
	return k;
}

/* Small copies walk the segments themselves: no second array on the stack. */
bool virtq_read(const struct virtq_chain *c, uint64_t off, void *buf, size_t n)
{
	if (off > c->out_len || n > c->out_len - off)
		return false;
	uint8_t *to = buf;
	for (unsigned i = 0; n; i++) {
		uint64_t len = c->iov[i].iov_len;
		if (off >= len) {
			off -= len;
			continue;
		}
		len = len - off < n ? len - off : n;
		memcpy(to, (const uint8_t *)c->iov[i].iov_base + off, len);
		to += len;
		n -= len;
		off = 0;
	}
	/* What was copied is checked by the caller; the compiler must not read guest memory again instead of the copy. */
	__asm__ volatile("" : : : "memory");
	return true;
}

bool virtq_write(struct mem *m, const struct virtq_chain *c, uint64_t off, const void *buf, size_t n)
{
	if (off > c->in_len || n > c->in_len - off)
		return false;
	const uint8_t *from = buf;
	for (unsigned i = c->n_out; n; i++) {
		uint64_t len = c->iov[i].iov_len;
		if (off >= len) {
			off -= len;
			continue;
		}
		len = len - off < n ? len - off : n;
		memcpy((uint8_t *)c->iov[i].iov_base + off, from, len);
		mem_written(m, c->gpa[i] + off, len);
		from += len;
		n -= len;
		off = 0;
	}
	return true;
}

void virtq_written(struct mem *m, const struct virtq_chain *c, uint64_t off, uint64_t n)
{
	for (unsigned i = c->n_out; i < c->n_out + c->n_in && n; i++) {
		uint64_t len = c->iov[i].iov_len;
		if (off >= len) {
			off -= len;
			continue;
		}
		len = len - off < n ? len - off : n;
		mem_written(m, c->gpa[i] + off, len);
		n -= len;
		off = 0;
	}
}
