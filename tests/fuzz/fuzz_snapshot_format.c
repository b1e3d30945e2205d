/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's state file as a whole: header, table, manifest. Checksums would stop every mutation at the door, so they are put right first when
 * the input's first byte says so; what is then taken must keep its promises.
 */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/util.h"
#include "fuzz.h"
#include "proto/snapshot.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void repair(uint8_t *p, size_t n)
{
	if (n < 48)
		return;
	memcpy(p, "CAISSNAP", 8);
	store_le32(p + 8, SNAPSHOT_VERSION);
	store_le32(p + 12, 48);
	store_le64(p + 24, n);
	uint32_t sections = load_le32(p + 16) % 8;
	store_le32(p + 16, sections);
	if (n < 48 + sections * 32ull)
		return;
	for (uint32_t i = 0; i < sections; i++) {
		uint8_t *e = p + 48 + i * 32;
		uint64_t off = load_le64(e + 8), len = load_le64(e + 16);
		if (off <= n && len <= n - off && align_up(len, 8) <= n - off)
			store_le32(e + 24, crc32c(0, p + off, align_up(len, 8)));
	}
	store_le32(p + 44, crc32c(crc32c(0, p, 44), p + 48, sections * 32ull));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snapshot s;
	struct cai_error err = {.text = ""};
	if (!size)
		return 0;
	uint8_t *p = malloc(size);
	memcpy(p, data + 1, size - 1);
	if (data[0] & 1)
		repair(p, size - 1);
	if (snapshot_parse(&s, p, size - 1, &err) < 0) {
		must(err.text[0]);
		return 0;
	}
	must(s.manifest.vcpus >= 1 && s.manifest.vcpus <= SNAPSHOT_MAX_VCPUS && s.manifest.n_devices <= SNAPSHOT_MAX_DEVICES);
	must(memchr(s.manifest.cpu_model, 0, sizeof(s.manifest.cpu_model)) && memchr(s.manifest.vendor, 0, sizeof(s.manifest.vendor)));
	for (unsigned i = 0; i < s.n_sections; i++) {
		struct buf_reader r;
		must(snapshot_find(&s, s.section[i].tag, s.section[i].instance, &r, &err) == 0);
		unsigned sum = 0;
		for (size_t k = 0; k < r.left; k++)
			sum += r.p[k];
		must(sum < UINT32_MAX);
	}
	snapshot_free(&s);
	return 0;
}
