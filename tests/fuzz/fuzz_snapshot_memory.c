/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot's memory index: the first 8 bytes are the machine's memory, the rest is the section. What is taken lies within that memory. */
#include <stdlib.h>

#include "base/util.h"
#include "fuzz.h"
#include "proto/snapshot.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snapshot_memory m;
	struct cai_error err = {.text = ""};
	if (size < 8)
		return 0;
	const uint64_t bytes = (load_le64(data) & ((512ull << 30) - 1)) + 4096;
	struct buf_reader r = buf_reader(data + 8, size - 8);
	if (snapshot_get_memory(&r, bytes, &m, &err) < 0) {
		must(err.text[0] && !m.extent && !m.crc);
		return 0;
	}
	uint64_t end = 0, chunks = 0;
	for (uint32_t i = 0; i < m.n_extents; i++) {
		must(m.extent[i].n && m.extent[i].first >= end && m.extent[i].layer < m.n_layers);
		end = (uint64_t)m.extent[i].first + m.extent[i].n;
		chunks += m.extent[i].n;
	}
	must((end ? end - 1 : 0) * SNAPSHOT_CHUNK < bytes && chunks == m.n_chunks);
	struct buf out = {0};
	snapshot_put_memory(&out, &m);
	must(!out.failed && out.len == size - 8);
	buf_free(&out);
	snapshot_memory_free(&m);
	return 0;
}
