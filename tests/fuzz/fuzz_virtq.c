/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue core alone: the rings are the input. Every segment of a popped chain must lie in RAM, readable ones first, and the
 * copies and slices must agree with the lengths.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "mem/mem.h"
#include "virtio/queue.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void check(struct mem *m, const struct virtq_chain *c, unsigned size)
{
	uint64_t out = 0, in = 0;
	must(c->n_out + c->n_in <= size && c->head < size);
	for (unsigned i = 0; i < c->n_out + c->n_in; i++) {
		must(c->iov[i].iov_len > 0 && mem_hva(m, c->gpa[i], c->iov[i].iov_len) == c->iov[i].iov_base);
		*(i < c->n_out ? &out : &in) += c->iov[i].iov_len;
	}
	must(out == c->out_len && in == c->in_len);

	uint8_t byte[64];
	must(virtq_read(c, out, byte, 0) && !virtq_read(c, out, byte, 1) && !virtq_read(c, ~0ull, byte, 2));
	must(virtq_write(m, c, in, byte, 0) && !virtq_write(m, c, in, byte, 1) && !virtq_write(m, c, ~0ull, byte, 2));
	size_t n = out < sizeof(byte) ? out : sizeof(byte);
	must(virtq_read(c, out - n, byte, n));
	struct iovec iov[VIRTQ_MAX_SIZE];
	for (int w = 0; w < 2; w++) {
		uint64_t len = w ? in : out, sum = 0;
		for (uint64_t off = 0; off <= len; off += len / 3 + 1) {
			unsigned k = virtq_slice(c, w, off, len, iov);
			sum = 0;
			for (unsigned i = 0; i < k; i++)
				sum += iov[i].iov_len;
			must(sum == len - off);
		}
	}
	virtq_written(m, c, 0, in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 8)
		return 0;
	struct mem m;
	if (mem_create(&m, MEM_MIN_BYTES, NULL) < 0)
		abort();
	struct virtq q = {.max_size = VIRTQ_MAX_SIZE,
			  .size = (uint16_t)(1u << (data[0] & 7)),
			  .event_idx = data[1] & 1,
			  .indirect = data[1] & 2,
			  /* the parts may overlap: that is the driver's own problem */
			  .desc = (data[2] & 15) * 16ull,
			  .avail = 0x80 + data[3] * 2ull,
			  .used = data[1] & 4 ? 0x80 + data[4] * 4ull : 0x10000};
	if (virtq_start(&q, &m) == 0) {
		mem_write(&m, 0, data + 8, size - 8 < 0x8000 ? size - 8 : 0x8000);
		struct virtq_chain *c = malloc(sizeof(*c));
		must(c != NULL);
		unsigned budget = 600;
		int r = 0;
		while (budget-- && (r = virtq_pop(&q, &m, c)) == 1) {
			check(&m, c, q.size);
			if (budget % 7 == 3) {
				virtq_unpop(&q);
				continue;
			}
			virtq_disable_notify(&q, &m);
			virtq_push(&q, &m, c->head, (uint32_t)c->in_len);
			virtq_should_interrupt(&q, &m);
			virtq_enable_notify(&q, &m);
		}
		must(r >= 0 || (q.broken && virtq_pop(&q, &m, c) == -1));
		free(c);
	}
	mem_destroy(&m);
	return 0;
}
