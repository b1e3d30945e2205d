/* SPDX-License-Identifier: Apache-2.0 */
/* A small but whole state file, for tests of the format. */
#ifndef TEST_SNAPSHOT_SAMPLE_H
#define TEST_SNAPSHOT_SAMPLE_H

#include "proto/snapshot.h"

#define SAMPLE_RAM (16u << 20)

/* Two memory layers, three extents; two sections of the caller's kind besides manifest and index. out is the whole file. */
static inline void sample_build(struct buf *out, void (*change)(struct snapshot_manifest *, struct snapshot_memory *))
{
	struct snapshot_writer w = {.n = 0};
	struct snapshot_manifest f = {.id = {1, 2, 3}, .machine = SNAPSHOT_MACHINE, .vcpus = 2, .mem_bytes = SAMPLE_RAM, .cpu_model = "v2",
				      .vendor = "GenuineIntel", .tsc_khz = 1000000, .n_devices = 2, .device = {{.kind = 19}, {.kind = 2, .bytes = 512}}};
	struct snapshot_extent e[] = {{0, 2, 0}, {2, 1, 1}, {10, 3, 0}};
	uint32_t crc[] = {1, 2, 3, 4, 5, 6};
	struct snapshot_memory x = {.n_layers = 2, .n_extents = 3, .n_chunks = 6, .layer = {{9}, {1, 2, 3}}, .extent = e, .crc = crc};
	if (change)
		change(&f, &x);
	snapshot_begin(&w, SNAPSHOT_MANIFEST, 0);
	snapshot_put_manifest(&w.body, &f);
	snapshot_end(&w);
	snapshot_begin(&w, SNAPSHOT_MEMORY, 0);
	snapshot_put_memory(&w.body, &x);
	snapshot_end(&w);
	snapshot_begin(&w, SNAPSHOT_VCPU, 0);
	buf_put_bytes(&w.body, "one", 3);
	snapshot_end(&w);
	snapshot_begin(&w, SNAPSHOT_VCPU, 1);
	buf_put_bytes(&w.body, "other", 5);
	snapshot_end(&w);
	if (!snapshot_finish(&w, out))
		out->failed = true;
	snapshot_writer_free(&w);
}

#endif
