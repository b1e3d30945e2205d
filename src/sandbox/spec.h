/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sandbox shall be: everything `caisson run` can be asked for, after the image had its say, checked before anything is
 * started. It is also what is kept of a sandbox (config.json), so that it can be started again.
 */
#ifndef SANDBOX_SPEC_H
#define SANDBOX_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum engine_kind { ENGINE_MICROVM, ENGINE_CONTAINER };
enum accel_choice { ACCEL_AUTO, ACCEL_KVM, ACCEL_SOFT };

/* How far the code is trusted. Anything but TRUST_TRUSTED forbids the container engine. */
enum trust { TRUST_UNTRUSTED, TRUST_TRUSTED, TRUST_HOSTILE };

/* Ordered by strength: a greater value satisfies a smaller demand. */
enum boundary { BOUNDARY_NONE, BOUNDARY_NAMESPACE, BOUNDARY_SOFTWARE, BOUNDARY_HYPERVISOR, BOUNDARY_HARDWARE };

#define SPEC_MAX_CPUS	   32
#define SPEC_MIN_MEMORY	   (64ull << 20) /* the guest kernel and its initramfs need most of this */
#define SPEC_MIN_CONTAINER (4ull << 20)
#define SPEC_MAX_MOUNTS	   32
#define SPEC_STOP_TIMEOUT  10 /* seconds between the stop signal and SIGKILL */
#define SPEC_DISK	   (10ull << 30)
#define SPEC_MIN_DISK	   (64ull << 20)
#define SPEC_MAX_DISK	   (16ull << 40)

/* All pointers are borrowed from whoever fills the struct and must outlive the sandbox. Lists end with NULL; a NULL list is empty. */
struct sandbox_spec {
	const char *name; /* NULL: its id */
	enum engine_kind engine;
	enum trust trust;
	enum accel_choice accel;
	enum boundary at_least;	/* BOUNDARY_NONE: any */
	unsigned cpus;		/* 1..32 virtual CPUs; of a container: ignored */
	unsigned cpu_milli;	/* CPU time in thousandths of a CPU; 0: no limit beyond the virtual CPUs */
	uint64_t memory;	/* bytes; of a container: 0 is no limit */
	uint64_t pids;		/* most processes; 0: no limit; of a microVM: ignored */
	const char *image;	/* as the user called it; NULL: the built-in image or rootfs */
	const char *image_id;	/* its id in the image store */
	const char *rootfs;	/* directory or file; NULL: image */
	const char *kernel, *initrd; /* NULL: Caisson's own */
	const char *append;	/* added to the kernel command line; NULL: nothing */
	char *const *argv;	/* not used with console */
	char *const *env;	/* "NAME=value" */
	const char *cwd, *user;	/* NULL: "/", root */
	const char *hostname;	/* NULL: the id */
	char *const *labels;	/* "KEY=value" */
	char *const *volumes;	/* "HOST:GUEST[:ro]", checked by spec_parse_volume */
	char *const *anon;	/* absolute paths of the image's VOLUMEs: part of the writable layer */
	char *const *tmpfs;	/* "GUEST[:OPTIONS]" */
	char *const *publish;	/* "[ADDR:]HOST:GUEST[/udp]" */
	const char *network;	/* NULL: a private one; "none"; a named network */
	char *const *dns, *const *add_host;
	const char *mac;
	uint64_t disk;		/* bytes of the writable layer's disk */
	bool ephemeral;		/* the writable layer is in memory and dies with the run */
	bool read_only;
	bool interactive;	/* -i: stdin goes to the program */
	bool tty;		/* -t */
	bool detached;		/* -d */
	bool remove;		/* --rm */
	bool console; /* the guest's serial port instead of the agent: for kernels and initramfs of others */
	bool cold;    /* boot, even where a template could be restored */
	bool debug;   /* show the serial console and the monitor's own lines on stderr */
	int stop_signal;	/* 0: SIGTERM */
	unsigned stop_timeout;	/* seconds */
};

void sandbox_spec_init(struct sandbox_spec *s);
/* Checks what can be checked without opening anything: counts, memory against this host's, the name, mounts, trust. */
int sandbox_spec_check(const struct sandbox_spec *s, struct cai_error *err);

/* The spec as JSON and back. The second keeps *json (a new reference) and allocates lists; spec_loaded_free gives all back. */
json_t *sandbox_spec_to_json(const struct sandbox_spec *s);
struct spec_loaded {
	struct sandbox_spec spec;
	json_t *json; /* owned */
	char **lists[16]; /* owned */
	unsigned n_lists;
	char **texts; /* owned: strings that JSON cannot hold as they are */
	unsigned n_texts;
};
int sandbox_spec_from_json(json_t *o, struct spec_loaded *out, struct cai_error *err);
void spec_loaded_free(struct spec_loaded *s);
/* A string as JSON; one that is not UTF-8 becomes {"hex": "..."}. */
json_t *spec_json_text(const char *s);

/* "512M", "1.5g", "1073741824", with an optional suffix b, k, m, g or t (powers of 1024), into bytes. */
int parse_size(const char *text, uint64_t *bytes, struct cai_error *err);

struct spec_volume {
	char source[4096], target[4096];
	bool read_only;
};
/* HOST:GUEST[:ro|rw]. HOST must be absolute or start with '.', GUEST absolute. */
int spec_parse_volume(const char *text, struct spec_volume *v, struct cai_error *err);

const char *engine_name(enum engine_kind e);
const char *boundary_name(enum boundary b);
const char *trust_name(enum trust t);
/* The names back to values; -1 for no such name. */
int boundary_parse(const char *text, enum boundary *b);
int engine_parse(const char *text, enum engine_kind *e);
int trust_parse(const char *text, enum trust *t);
/* "TERM", "SIGTERM", "15": the signal's number, or -1. */
int signal_parse(const char *text);

#endif
