/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: see docs/snapshots.md for the layout. The header and the table have a checksum of their own, and each section has
 * one in the table, so that damage is told by the name of what it hit. All are looked at before anything is believed: a
 * file that was cut short, flipped or made by something else never gets as far as a section's reader. A section whose tag is not
 * known is an error unless its table entry says that it may be ignored, which is how later versions can add to the format.
 */
#include "proto/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/util.h"

#define MAGIC        "CAISSNAP"
#define HEADER_BYTES 48u /* magic, version, header bytes, sections, flags, file bytes, two reserved words, checksum */
#define ENTRY_BYTES  32u /* tag, instance, offset, length, checksum, flags */
#define ENTRY_OPTIONAL 1u
#define ALIGN        8u  /* of sections: zeroes up to the next belong to a section's checksum but not to its length */

#define MAX_RAM (512ull << 30)

static bool known(uint32_t tag)
{
	switch (tag) {
	case SNAPSHOT_MANIFEST:
	case SNAPSHOT_MEMORY:
	case SNAPSHOT_CPUID:
	case SNAPSHOT_VCPU:
	case SNAPSHOT_VM:
	case SNAPSHOT_SERIAL:
	case SNAPSHOT_VIRTIO:
		return true;
	}
	return false;
}

void snapshot_section_name(uint32_t tag, uint32_t instance, char *text, size_t n)
{
	switch (tag) {
	case SNAPSHOT_MANIFEST:
		snprintf(text, n, "the manifest");
		break;
	case SNAPSHOT_MEMORY:
		snprintf(text, n, "the memory index");
		break;
	case SNAPSHOT_CPUID:
		snprintf(text, n, "the list of CPU features");
		break;
	case SNAPSHOT_VCPU:
		snprintf(text, n, "the state of processor %u", instance);
		break;
	case SNAPSHOT_VM:
		snprintf(text, n, "the state of the interrupt controller and clock");
		break;
	case SNAPSHOT_SERIAL:
		snprintf(text, n, "the state of the serial port");
		break;
	case SNAPSHOT_VIRTIO:
		snprintf(text, n, "the state of virtio device %u", instance);
		break;
	default:
		snprintf(text, n, "section 0x%08x", tag);
	}
}

/* ---- writing ---- */

void snapshot_begin(struct snapshot_writer *w, enum snapshot_tag tag, uint32_t instance)
{
	if (w->n == SNAPSHOT_MAX_SECTIONS) {
		w->failed = true;
		return;
	}
	w->section[w->n++] = (struct snapshot_section){.tag = tag, .instance = instance, .offset = w->body.len};
}

void snapshot_end(struct snapshot_writer *w)
{
	if (w->n && !w->failed)
		w->section[w->n - 1].length = w->body.len - w->section[w->n - 1].offset;
	while (w->body.len % ALIGN && !w->body.failed)
		buf_put_u8(&w->body, 0);
}

bool snapshot_finish(struct snapshot_writer *w, struct buf *out)
{
	const uint64_t first = HEADER_BYTES + (uint64_t)w->n * ENTRY_BYTES;
	if (w->failed || w->body.failed || first + w->body.len > SNAPSHOT_MAX_BYTES)
		return false;
	struct buf table = {0};
	for (unsigned i = 0; i < w->n; i++) {
		const struct snapshot_section *s = &w->section[i];
		buf_put_u32(&table, s->tag);
		buf_put_u32(&table, s->instance);
		buf_put_u64(&table, first + s->offset);
		buf_put_u64(&table, s->length);
		buf_put_u32(&table, crc32c(0, w->body.p + s->offset, align_up(s->length, ALIGN)));
		buf_put_u32(&table, 0);
	}
	buf_put_bytes(out, MAGIC, 8);
	buf_put_u32(out, SNAPSHOT_VERSION);
	buf_put_u32(out, HEADER_BYTES);
	buf_put_u32(out, w->n);
	buf_put_u32(out, 0);
	buf_put_u64(out, first + w->body.len);
	buf_put_u64(out, 0);
	buf_put_u32(out, 0);
	/* The checksum covers all of the header before it, and the table. */
	uint32_t crc = out->failed ? 0 : crc32c(0, out->p, HEADER_BYTES - 4);
	if (!table.failed)
		crc = crc32c(crc, table.p, table.len);
	buf_put_u32(out, crc);
	buf_put_bytes(out, table.p, table.len);
	buf_put_bytes(out, w->body.p, w->body.len);
	bool ok = !table.failed && !out->failed;
	buf_free(&table);
	return ok;
}

void snapshot_writer_free(struct snapshot_writer *w)
{
	buf_free(&w->body);
	*w = (struct snapshot_writer){0};
}

/* ---- the manifest ---- */

void snapshot_put_manifest(struct buf *out, const struct snapshot_manifest *m)
{
	buf_put_bytes(out, m->id, sizeof(m->id));
	buf_put_bytes(out, m->parent, sizeof(m->parent));
	buf_put_u32(out, m->flags);
	buf_put_u32(out, m->machine);
	buf_put_u64(out, m->real_ns);
	buf_put_u32(out, m->accel);
	buf_put_u32(out, m->vcpus);
	buf_put_u64(out, m->mem_bytes);
	buf_put_bytes(out, m->cpu_model, sizeof(m->cpu_model));
	buf_put_u32(out, m->cpu_model_version);
	buf_put_bytes(out, m->vendor, sizeof(m->vendor));
	buf_put_u32(out, m->tsc_khz);
	buf_put_u32(out, m->paravirt);
	buf_put_u64(out, m->mitigations);
	buf_put_bytes(out, m->build, sizeof(m->build));
	buf_put_u32(out, m->n_devices);
	for (uint32_t i = 0; i < m->n_devices && i < SNAPSHOT_MAX_DEVICES; i++) {
		buf_put_u32(out, m->device[i].kind);
		buf_put_u32(out, m->device[i].flags);
		buf_put_u64(out, m->device[i].bytes);
		buf_put_bytes(out, m->device[i].id, sizeof(m->device[i].id));
	}
}

static void get_bytes(struct buf_reader *r, void *to, size_t n)
{
	const void *p = buf_get_bytes(r, n);
	if (p)
		memcpy(to, p, n);
}

/* Visible ASCII, then NULs to the end; at least one of these. */
static void get_word(struct buf_reader *r, char *to, size_t n)
{
	get_bytes(r, to, n);
	size_t len = strnlen(to, n);
	if (len == n)
		r->bad = true;
	for (size_t i = 0; i < n; i++)
		if (i < len ? to[i] <= ' ' || to[i] > '~' : to[i])
			r->bad = true;
}

int snapshot_get_manifest(struct buf_reader *r, struct snapshot_manifest *m, struct cai_error *err)
{
	*m = (struct snapshot_manifest){0};
	get_bytes(r, m->id, sizeof(m->id));
	get_bytes(r, m->parent, sizeof(m->parent));
	m->flags = buf_get_u32(r);
	m->machine = buf_get_u32(r);
	m->real_ns = buf_get_u64(r);
	m->accel = buf_get_u32(r);
	m->vcpus = buf_get_u32(r);
	m->mem_bytes = buf_get_u64(r);
	get_word(r, m->cpu_model, sizeof(m->cpu_model));
	m->cpu_model_version = buf_get_u32(r);
	get_word(r, m->vendor, sizeof(m->vendor));
	m->tsc_khz = buf_get_u32(r);
	m->paravirt = buf_get_u32(r);
	m->mitigations = buf_get_u64(r);
	get_bytes(r, m->build, sizeof(m->build));
	m->n_devices = buf_get_u32(r);
	if (m->n_devices > SNAPSHOT_MAX_DEVICES)
		r->bad = true;
	for (uint32_t i = 0; !r->bad && i < m->n_devices; i++) {
		m->device[i].kind = buf_get_u32(r);
		m->device[i].flags = buf_get_u32(r);
		m->device[i].bytes = buf_get_u64(r);
		get_bytes(r, m->device[i].id, sizeof(m->device[i].id));
	}
	if (!buf_done(r))
		return cai_fail(err, EINVAL, "the snapshot's manifest is malformed");
	if (m->flags & ~SNAPSHOT_FLAG_READY)
		return cai_fail(err, EINVAL, "the snapshot's manifest has unknown flags 0x%x", m->flags);
	if (m->machine != SNAPSHOT_MACHINE)
		return cai_fail(err, EINVAL, "the snapshot is of a machine of version %u, this monitor makes version %u", m->machine,
				SNAPSHOT_MACHINE);
	if (m->vcpus < 1 || m->vcpus > SNAPSHOT_MAX_VCPUS)
		return cai_fail(err, EINVAL, "the snapshot's manifest tells of %u processors; 1 to %u are possible", m->vcpus, SNAPSHOT_MAX_VCPUS);
	if (!m->mem_bytes || m->mem_bytes % 4096 || m->mem_bytes > MAX_RAM)
		return cai_fail(err, EINVAL, "the snapshot's manifest tells of %llu bytes of memory, which no machine has",
				(unsigned long long)m->mem_bytes);
	for (uint32_t i = 0; i < m->n_devices; i++)
		if (m->device[i].flags & ~SNAPSHOT_DEVICE_READONLY)
			return cai_fail(err, EINVAL, "the snapshot's manifest has unknown flags 0x%x for virtio device %u", m->device[i].flags, i);
	return 0;
}

/* ---- the memory index ---- */

void snapshot_memory_free(struct snapshot_memory *m)
{
	free(m->extent);
	free(m->crc);
	*m = (struct snapshot_memory){0};
}

void snapshot_put_memory(struct buf *out, const struct snapshot_memory *m)
{
	buf_put_u32(out, SNAPSHOT_CHUNK);
	buf_put_u32(out, m->n_layers);
	buf_put_u32(out, m->n_extents);
	buf_put_u32(out, m->n_chunks);
	for (uint32_t i = 0; i < m->n_layers && i < SNAPSHOT_MAX_LAYERS; i++)
		buf_put_bytes(out, m->layer[i], SNAPSHOT_ID_BYTES);
	for (uint32_t i = 0; i < m->n_extents; i++) {
		buf_put_u32(out, m->extent[i].first);
		buf_put_u32(out, m->extent[i].n);
		buf_put_u32(out, m->extent[i].layer);
	}
	for (uint32_t i = 0; i < m->n_chunks; i++)
		buf_put_u32(out, m->crc[i]);
}

static int bad_index(struct snapshot_memory *m, struct cai_error *err, const char *what)
{
	snapshot_memory_free(m);
	return cai_fail(err, EINVAL, "the snapshot's memory index %s", what);
}

int snapshot_get_memory(struct buf_reader *r, uint64_t mem_bytes, struct snapshot_memory *m, struct cai_error *err)
{
	*m = (struct snapshot_memory){0};
	const uint64_t chunks = (mem_bytes + SNAPSHOT_CHUNK - 1) / SNAPSHOT_CHUNK;
	uint32_t chunk = buf_get_u32(r);
	uint32_t n_layers = buf_get_u32(r), n_extents = buf_get_u32(r), n_chunks = buf_get_u32(r);
	if (r->bad)
		return bad_index(m, err, "is cut short");
	if (chunk != SNAPSHOT_CHUNK)
		return bad_index(m, err, "has chunks of a size that this version does not know");
	if (n_layers < 1 || n_layers > SNAPSHOT_MAX_LAYERS)
		return bad_index(m, err, "names no memory file or too many");
	if (n_extents > SNAPSHOT_MAX_EXTENTS || n_chunks > chunks)
		return bad_index(m, err, "lists more than there can be");
	if (r->left != (uint64_t)n_layers * SNAPSHOT_ID_BYTES + n_extents * 12ull + n_chunks * 4ull)
		return bad_index(m, err, "has another size than it says");
	m->n_layers = n_layers;
	m->n_extents = n_extents;
	m->n_chunks = n_chunks;
	for (uint32_t i = 0; i < n_layers; i++)
		get_bytes(r, m->layer[i], SNAPSHOT_ID_BYTES);
	m->extent = calloc(n_extents ? n_extents : 1, sizeof(*m->extent));
	m->crc = calloc(n_chunks ? n_chunks : 1, sizeof(*m->crc));
	if (!m->extent || !m->crc) {
		snapshot_memory_free(m);
		return cai_fail(err, ENOMEM, "out of memory for the memory index");
	}
	uint64_t end = 0, sum = 0;
	for (uint32_t i = 0; i < n_extents; i++) {
		struct snapshot_extent *e = &m->extent[i];
		e->first = buf_get_u32(r);
		e->n = buf_get_u32(r);
		e->layer = buf_get_u32(r);
		if (!e->n || e->first < end || e->first + (uint64_t)e->n > chunks)
			return bad_index(m, err, "has extents that overlap, are out of order or lie outside of the memory");
		if (e->layer >= n_layers)
			return bad_index(m, err, "refers to a memory file that it does not name");
		end = e->first + (uint64_t)e->n;
		sum += e->n;
	}
	if (sum != n_chunks)
		return bad_index(m, err, "has another number of checksums than of chunks");
	for (uint32_t i = 0; i < n_chunks; i++)
		m->crc[i] = buf_get_u32(r);
	return 0;
}

/* ---- reading ---- */

void snapshot_free(struct snapshot *s)
{
	snapshot_memory_free(&s->memory);
	free(s->p);
	*s = (struct snapshot){0};
}

int snapshot_find(const struct snapshot *s, enum snapshot_tag tag, uint32_t instance, struct buf_reader *r, struct cai_error *err)
{
	char name[80];
	for (unsigned i = 0; i < s->n_sections; i++) {
		if (s->section[i].tag != tag || s->section[i].instance != instance)
			continue;
		*r = buf_reader(s->p + s->section[i].offset, s->section[i].length);
		return 0;
	}
	snapshot_section_name(tag, instance, name, sizeof(name));
	return cai_fail(err, ENOENT, "the snapshot lacks %s", name);
}

static int check_header(struct snapshot *s, struct buf_reader *r, struct cai_error *err)
{
	const void *magic = buf_get_bytes(r, 8);
	uint32_t version = buf_get_u32(r), header = buf_get_u32(r);
	s->n_sections = buf_get_u32(r);
	buf_get_u32(r);
	uint64_t bytes = buf_get_u64(r);
	buf_get_u64(r);
	buf_get_u32(r);
	uint32_t crc = buf_get_u32(r);
	if (!magic || memcmp(magic, MAGIC, 8))
		return cai_fail(err, EINVAL, "this is no snapshot of a microVM: it does not begin like one");
	if (r->bad)
		return cai_fail(err, EINVAL, "the snapshot's state file is cut short: it has %zu bytes, not even a header", s->n);
	if (version > SNAPSHOT_VERSION)
		return cai_fail(err, EINVAL, "the snapshot was written by a newer version of Caisson (format %u, this one reads %u)", version,
				SNAPSHOT_VERSION);
	if (version != SNAPSHOT_VERSION || header != HEADER_BYTES)
		return cai_fail(err, EINVAL, "the snapshot's header is damaged: there is no format %u", version);
	if (s->n_sections > SNAPSHOT_MAX_SECTIONS)
		return cai_fail(err, EINVAL, "the snapshot's header is damaged: it tells of %u sections", s->n_sections);
	if (s->n < bytes)
		return cai_fail(err, EINVAL, "the snapshot's state file is cut short: %zu of %llu bytes are there", s->n, (unsigned long long)bytes);
	if (s->n > bytes)
		return cai_fail(err, EINVAL, "the snapshot's state file is longer than its header says: %zu instead of %llu bytes", s->n,
				(unsigned long long)bytes);
	const size_t table = (size_t)s->n_sections * ENTRY_BYTES;
	if (r->left < table)
		return cai_fail(err, EINVAL, "the snapshot's header is damaged: its table does not fit the file");
	if (crc32c(crc32c(0, s->p, HEADER_BYTES - 4), r->p, table) != crc)
		return cai_fail(err, EINVAL, "the snapshot's header is damaged: its checksum is wrong");
	return 0;
}

static int check_table(struct snapshot *s, struct buf_reader *r, struct cai_error *err)
{
	const uint64_t first = HEADER_BYTES + (uint64_t)s->n_sections * ENTRY_BYTES;
	char name[80];
	for (unsigned i = 0; i < s->n_sections; i++) {
		struct snapshot_section *e = &s->section[i];
		e->tag = buf_get_u32(r);
		e->instance = buf_get_u32(r);
		e->offset = buf_get_u64(r);
		e->length = buf_get_u64(r);
		uint32_t crc = buf_get_u32(r), flags = buf_get_u32(r);
		snapshot_section_name(e->tag, e->instance, name, sizeof(name));
		if (e->offset < first || e->offset > s->n || e->length > s->n - e->offset || align_up(e->length, ALIGN) > s->n - e->offset)
			return cai_fail(err, EINVAL, "the snapshot's table is damaged: %s lies outside of the file", name);
		if (crc32c(0, s->p + e->offset, align_up(e->length, ALIGN)) != crc)
			return cai_fail(err, EINVAL, "the snapshot is damaged: the checksum of %s is wrong", name);
		if (!known(e->tag) && !(flags & ENTRY_OPTIONAL))
			return cai_fail(err, EINVAL, "the snapshot has a part that this version does not know: %s", name);
		for (unsigned k = 0; k < i; k++)
			if (s->section[k].tag == e->tag && s->section[k].instance == e->instance)
				return cai_fail(err, EINVAL, "the snapshot has %s twice", name);
	}
	return 0;
}

int snapshot_parse(struct snapshot *s, uint8_t *p, size_t n, struct cai_error *err)
{
	*s = (struct snapshot){.p = p, .n = n};
	struct buf_reader r = buf_reader(p, n), section;
	if (check_header(s, &r, err) < 0 || check_table(s, &r, err) < 0 || snapshot_find(s, SNAPSHOT_MANIFEST, 0, &section, err) < 0 ||
	    snapshot_get_manifest(&section, &s->manifest, err) < 0 || snapshot_find(s, SNAPSHOT_MEMORY, 0, &section, err) < 0 ||
	    snapshot_get_memory(&section, s->manifest.mem_bytes, &s->memory, err) < 0) {
		snapshot_free(s);
		return -1;
	}
	if (memcmp(s->memory.layer[s->memory.n_layers - 1], s->manifest.id, SNAPSHOT_ID_BYTES)) {
		snapshot_free(s);
		return cai_fail(err, EINVAL, "the snapshot's memory index belongs to another snapshot");
	}
	return 0;
}

int snapshot_read(struct snapshot *s, int fd, struct cai_error *err)
{
	struct stat st;
	*s = (struct snapshot){0};
	if (fstat(fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot examine the snapshot's state file");
	if (!S_ISREG(st.st_mode))
		return cai_fail(err, EINVAL, "the snapshot's state file is not a regular file");
	if (st.st_size > (off_t)SNAPSHOT_MAX_BYTES)
		return cai_fail(err, EFBIG, "the snapshot's state file has %lld bytes; %u are the most there can be", (long long)st.st_size,
				SNAPSHOT_MAX_BYTES);
	size_t n = (size_t)st.st_size, got = 0;
	uint8_t *p = malloc(n ? n : 1);
	if (!p)
		return cai_fail(err, ENOMEM, "out of memory");
	while (got < n) {
		ssize_t k = pread(fd, p + got, n - got, (off_t)got);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0) {
			int e = errno;
			free(p);
			return cai_fail_errno(err, e, "cannot read the snapshot's state file");
		}
		if (!k)
			break;
		got += (size_t)k;
	}
	return snapshot_parse(s, p, got, err);
}
