/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format of a snapshot's state file, as docs/snapshots.md describes it: a header, a table of sections, the sections. The monitor
 * writes and reads it; `caisson` reads the manifest and the memory index. What is in the sections of processors and devices is the
 * business of whoever they belong to.
 *
 * A snapshot is hostile until snapshot_parse() has taken it: sizes, version, checksums, and every figure of the manifest and of the
 * memory index are checked there; readers of other sections check their own. All integers are little-endian.
 */
#ifndef PROTO_SNAPSHOT_H
#define PROTO_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define SNAPSHOT_VERSION      1
#define SNAPSHOT_MACHINE      1 /* version of the machine: address map, ACPI tables, device list */
#define SNAPSHOT_ID_BYTES     16
#define SNAPSHOT_MAX_BYTES    (64u << 20) /* a state file; most of it is the memory index */
#define SNAPSHOT_MAX_SECTIONS 128
#define SNAPSHOT_MAX_VCPUS    32
#define SNAPSHOT_MAX_DEVICES  16
#define SNAPSHOT_MAX_LAYERS   8     /* memory files that one snapshot may be made of */
#define SNAPSHOT_MAX_EXTENTS  4096
#define SNAPSHOT_CHUNK        65536u /* memory is listed and checked by chunks of this many bytes */

#define SNAPSHOT_TAG(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
enum snapshot_tag {
	SNAPSHOT_MANIFEST = SNAPSHOT_TAG('M', 'N', 'F', 'T'),
	SNAPSHOT_MEMORY = SNAPSHOT_TAG('M', 'E', 'M', 'I'),  /* the memory index */
	SNAPSHOT_CPUID = SNAPSHOT_TAG('C', 'P', 'I', 'D'),   /* what CPUID told the guest */
	SNAPSHOT_VCPU = SNAPSHOT_TAG('V', 'C', 'P', 'U'),    /* one for each processor */
	SNAPSHOT_VM = SNAPSHOT_TAG('V', 'M', 'S', 'T'),      /* I/O APIC and clock */
	SNAPSHOT_SERIAL = SNAPSHOT_TAG('S', 'E', 'R', 'L'),
	SNAPSHOT_VIRTIO = SNAPSHOT_TAG('V', 'I', 'R', 'T'),  /* one for each virtio slot */
};

#define SNAPSHOT_FLAG_READY (1u << 0) /* the agent had announced itself */

struct snapshot_device {
	uint32_t kind;  /* virtio device id: 19 vsock, 4 rng, 5 balloon, 2 blk, 1 net, 26 fs */
	uint32_t flags; /* SNAPSHOT_DEVICE_* */
	uint64_t bytes; /* of a disk; 0: an empty slot */
	char id[20];    /* of a disk */
};
#define SNAPSHOT_DEVICE_READONLY (1u << 0)

struct snapshot_manifest {
	uint8_t id[SNAPSHOT_ID_BYTES];     /* random; names this snapshot's memory file to the ones built on it */
	uint8_t parent[SNAPSHOT_ID_BYTES]; /* zero: a full snapshot */
	uint32_t flags;                    /* SNAPSHOT_FLAG_* */
	uint32_t machine;                  /* SNAPSHOT_MACHINE */
	uint64_t real_ns;                  /* CLOCK_REALTIME when the guest stood still */
	uint32_t accel;                    /* enum control_accel of the monitor that wrote it */
	uint32_t vcpus;
	uint64_t mem_bytes;
	char cpu_model[16];
	uint32_t cpu_model_version;
	char vendor[16];                   /* of the host's CPU: "GenuineIntel" */
	uint32_t tsc_khz;                  /* of the guest's TSC */
	uint32_t paravirt;                 /* CPUID 0x40000001 EAX as the guest saw it */
	uint64_t mitigations;              /* IA32_ARCH_CAPABILITIES, likewise */
	uint8_t build[20];                 /* of the monitor; decides about saved code */
	uint32_t n_devices;                /* virtio slots in order */
	struct snapshot_device device[SNAPSHOT_MAX_DEVICES];
};

/* A run of chunks that lie in one memory file, at the offset they have in RAM. What is in no extent is zero. */
struct snapshot_extent {
	uint32_t first, n; /* chunks */
	uint32_t layer;
};

struct snapshot_memory {
	uint32_t n_layers, n_extents;
	uint8_t layer[SNAPSHOT_MAX_LAYERS][SNAPSHOT_ID_BYTES]; /* ids of the snapshots whose memory files these are; the last is our own */
	struct snapshot_extent *extent;                        /* sorted, apart from each other; owned */
	uint32_t n_chunks;                                     /* in all extents */
	uint32_t *crc;                                         /* CRC-32C of each of these chunks, in order; owned */
};
void snapshot_memory_free(struct snapshot_memory *m);
void snapshot_put_memory(struct buf *out, const struct snapshot_memory *m);
int snapshot_get_memory(struct buf_reader *r, uint64_t mem_bytes, struct snapshot_memory *m, struct cai_error *err);

void snapshot_put_manifest(struct buf *out, const struct snapshot_manifest *m);
int snapshot_get_manifest(struct buf_reader *r, struct snapshot_manifest *m, struct cai_error *err);

/* Writing: begin a section, append to w->body, end it; then finish. */
struct snapshot_writer {
	struct buf body;
	unsigned n;
	bool failed;
	struct snapshot_section {
		uint32_t tag, instance;
		uint64_t offset, length; /* in body; in the file behind header and table */
	} section[SNAPSHOT_MAX_SECTIONS];
};
void snapshot_begin(struct snapshot_writer *w, enum snapshot_tag tag, uint32_t instance);
void snapshot_end(struct snapshot_writer *w);
/* The finished file in out; false when memory ran out or there were too many sections. */
bool snapshot_finish(struct snapshot_writer *w, struct buf *out);
void snapshot_writer_free(struct snapshot_writer *w);

/* Reading. */
struct snapshot {
	uint8_t *p; /* the file; owned */
	size_t n;
	unsigned n_sections;
	struct snapshot_section section[SNAPSHOT_MAX_SECTIONS]; /* offsets in the file */
	struct snapshot_manifest manifest;
	struct snapshot_memory memory;
};
/* Takes p (malloc'd) over, in every case. */
int snapshot_parse(struct snapshot *s, uint8_t *p, size_t n, struct cai_error *err);
/* Reads fd from its start. The descriptor stays the caller's. */
int snapshot_read(struct snapshot *s, int fd, struct cai_error *err);
void snapshot_free(struct snapshot *s);
/* A reader over a section; -1 with a sentence when there is none. */
int snapshot_find(const struct snapshot *s, enum snapshot_tag tag, uint32_t instance, struct buf_reader *r, struct cai_error *err);
/* "the state of processor 2" */
void snapshot_section_name(uint32_t tag, uint32_t instance, char *text, size_t n);

#endif
