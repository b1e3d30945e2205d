/* SPDX-License-Identifier: Apache-2.0 */
/* The state file of a snapshot: what is whole is read, everything else is refused with a sentence that names the part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/util.h"
#include "sample.h"

static uint8_t *copy(const void *p, size_t n)
{
	uint8_t *q = malloc(n ? n : 1);
	memcpy(q, p, n);
	return q;
}

static void a_whole_file_is_read(void **state)
{
	struct buf b = {0};
	struct snapshot s;
	struct cai_error err;
	struct buf_reader r;
	sample_build(&b, NULL);
	assert_false(b.failed);
	assert_int_equal(snapshot_parse(&s, copy(b.p, b.len), b.len, &err), 0);
	assert_int_equal(s.manifest.vcpus, 2);
	assert_string_equal(s.manifest.cpu_model, "v2");
	assert_int_equal(s.manifest.device[1].bytes, 512);
	assert_int_equal(s.memory.n_extents, 3);
	assert_int_equal(s.memory.extent[2].first, 10);
	assert_int_equal(s.memory.crc[5], 6);
	assert_int_equal(snapshot_find(&s, SNAPSHOT_VCPU, 1, &r, &err), 0);
	assert_int_equal(r.left, 5);
	assert_memory_equal(r.p, "other", 5);
	assert_int_equal(snapshot_find(&s, SNAPSHOT_VCPU, 2, &r, &err), -1);
	assert_string_equal(err.text, "the snapshot lacks the state of processor 2");
	snapshot_free(&s);
	buf_free(&b);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
	struct buf b = {0};
	struct snapshot s;
	struct cai_error err;
	sample_build(&b, NULL);
	for (size_t n = 0; n < b.len; n++) {
		assert_int_equal(snapshot_parse(&s, copy(b.p, n), n, &err), -1);
		assert_non_null(strstr(err.text, n < 8 ? "no snapshot" : "cut short"));
	}
	buf_put_u8(&b, 0);
	assert_int_equal(snapshot_parse(&s, copy(b.p, b.len), b.len, &err), -1);
	assert_non_null(strstr(err.text, "longer"));
	buf_free(&b);
}

static void every_flipped_bit_is_found(void **state)
{
	struct buf b = {0};
	struct snapshot s;
	struct cai_error err;
	sample_build(&b, NULL);
	for (size_t at = 0; at < b.len; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			uint8_t *p = copy(b.p, b.len);
			p[at] ^= (uint8_t)(1u << bit);
			if (snapshot_parse(&s, p, b.len, &err) == 0)
				fail_msg("bit %u of byte %zu does not matter", bit, at);
			assert_true(err.text[0]);
		}
	buf_free(&b);
}

static void damage_is_told_by_the_part_it_hit(void **state)
{
	struct buf b = {0};
	struct snapshot s;
	struct cai_error err;
	sample_build(&b, NULL);
	b.p[b.len - 8] ^= 1;
	assert_int_equal(snapshot_parse(&s, copy(b.p, b.len), b.len, &err), -1);
	assert_string_equal(err.text, "the snapshot is damaged: the checksum of the state of processor 1 is wrong");
	b.p[b.len - 8] ^= 1;
	b.p[60] ^= 1;
	assert_int_equal(snapshot_parse(&s, copy(b.p, b.len), b.len, &err), -1);
	assert_string_equal(err.text, "the snapshot's header is damaged: its checksum is wrong");
	buf_free(&b);
}

static void other_files_and_newer_ones_are_refused(void **state)
{
	struct buf b = {0};
	struct snapshot s;
	struct cai_error err;
	sample_build(&b, NULL);
	store_le32(b.p + 8, 2);
	assert_int_equal(snapshot_parse(&s, copy(b.p, b.len), b.len, &err), -1);
	assert_string_equal(err.text, "the snapshot was written by a newer version of Caisson (format 2, this one reads 1)");
	memcpy(b.p, "\177ELF\2\1\1", 8);
	assert_int_equal(snapshot_parse(&s, copy(b.p, b.len), b.len, &err), -1);
	assert_non_null(strstr(err.text, "no snapshot"));
	buf_free(&b);
}

static void no_manifest(struct snapshot_manifest *f, struct snapshot_memory *x) { f->vcpus = 0; }
static void many_vcpus(struct snapshot_manifest *f, struct snapshot_memory *x) { f->vcpus = 33; }
static void odd_memory(struct snapshot_manifest *f, struct snapshot_memory *x) { f->mem_bytes = 4097; }
static void huge_memory(struct snapshot_manifest *f, struct snapshot_memory *x) { f->mem_bytes = 1ull << 60; }
static void other_machine(struct snapshot_manifest *f, struct snapshot_memory *x) { f->machine = 99; }
static void strange_flags(struct snapshot_manifest *f, struct snapshot_memory *x) { f->flags = 0x80; }
static void no_model(struct snapshot_manifest *f, struct snapshot_memory *x) { memset(f->cpu_model, 'x', sizeof(f->cpu_model)); }
static void control_characters(struct snapshot_manifest *f, struct snapshot_memory *x) { strcpy(f->vendor, "a\033b"); }
static void other_id(struct snapshot_manifest *f, struct snapshot_memory *x) { f->id[0] = 77; }
static void overlap(struct snapshot_manifest *f, struct snapshot_memory *x) { x->extent[1].first = 1; }
static void backwards(struct snapshot_manifest *f, struct snapshot_memory *x) { x->extent[2].first = 0; }
static void outside(struct snapshot_manifest *f, struct snapshot_memory *x) { x->extent[2].first = SAMPLE_RAM / SNAPSHOT_CHUNK - 2; }
static void wraps(struct snapshot_manifest *f, struct snapshot_memory *x) { x->extent[2] = (struct snapshot_extent){UINT32_MAX, 3, 0}; }
static void empty_extent(struct snapshot_manifest *f, struct snapshot_memory *x) { x->extent[1].n = 0; }
static void unknown_layer(struct snapshot_manifest *f, struct snapshot_memory *x) { x->extent[0].layer = 2; }
static void few_checksums(struct snapshot_manifest *f, struct snapshot_memory *x) { x->n_chunks = 5; }
static void no_layers(struct snapshot_manifest *f, struct snapshot_memory *x) { x->n_layers = 0; }

static void hostile_figures_are_refused(void **state)
{
	static const struct {
		void (*change)(struct snapshot_manifest *, struct snapshot_memory *);
		const char *says;
	} cases[] = {
		{no_manifest, "0 processors"},       {many_vcpus, "33 processors"},       {odd_memory, "4097 bytes"},
		{huge_memory, "bytes of memory"},    {other_machine, "version 99"},       {strange_flags, "unknown flags 0x80"},
		{no_model, "manifest is malformed"}, {control_characters, "manifest is malformed"}, {other_id, "another snapshot"},
		{overlap, "overlap"},                {backwards, "overlap"},              {outside, "outside"},
		{wraps, "outside"},                  {empty_extent, "overlap"},           {unknown_layer, "does not name"},
		{few_checksums, "another number of checksums"}, {no_layers, "no memory file"},
	};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf b = {0};
		struct snapshot s;
		struct cai_error err;
		sample_build(&b, cases[i].change);
		if (snapshot_parse(&s, copy(b.p, b.len), b.len, &err) == 0)
			fail_msg("case %u was taken", i);
		if (!strstr(err.text, cases[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
		buf_free(&b);
	}
}

static void a_descriptor_of_anything_else_is_refused(void **state)
{
	struct snapshot s;
	struct cai_error err;
	int p[2];
	assert_int_equal(pipe(p), 0);
	assert_int_equal(snapshot_read(&s, p[0], &err), -1);
	assert_non_null(strstr(err.text, "not a regular file"));
	int fd = memfd_create("t", MFD_CLOEXEC);
	assert_int_equal(snapshot_read(&s, fd, &err), -1);
	assert_non_null(strstr(err.text, "no snapshot"));
	assert_int_equal(ftruncate(fd, (off_t)SNAPSHOT_MAX_BYTES + 1), 0);
	assert_int_equal(snapshot_read(&s, fd, &err), -1);
	assert_non_null(strstr(err.text, "the most there can be"));
	close(fd);
	close(p[0]);
	close(p[1]);
}

static void crc32c_is_castagnolis(void **state)
{
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	static uint8_t b[70000];
	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(i * 7 + i / 251);
	uint32_t whole = crc32c(0, b, sizeof(b)), parts = 0;
	for (unsigned i = 0; i < sizeof(b); i += 7)
		parts = crc32c(parts, b + i, sizeof(b) - i < 7 ? sizeof(b) - i : 7);
	assert_int_equal(whole, parts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_file_is_read),
		cmocka_unit_test(a_file_cut_anywhere_is_refused),
		cmocka_unit_test(every_flipped_bit_is_found),
		cmocka_unit_test(damage_is_told_by_the_part_it_hit),
		cmocka_unit_test(other_files_and_newer_ones_are_refused),
		cmocka_unit_test(hostile_figures_are_refused),
		cmocka_unit_test(a_descriptor_of_anything_else_is_refused),
		cmocka_unit_test(crc32c_is_castagnolis),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
