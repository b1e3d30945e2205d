/* SPDX-License-Identifier: Apache-2.0 */
/* What a sandbox shall be: everything `caisson run` can be asked for, checked, before anything is started. */
#ifndef SANDBOX_SPEC_H
#define SANDBOX_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum accel_choice { ACCEL_AUTO, ACCEL_KVM, ACCEL_SOFT };

/* Ordered by strength: a greater value satisfies a smaller demand. */
enum boundary { BOUNDARY_NONE, BOUNDARY_SOFTWARE, BOUNDARY_HYPERVISOR, BOUNDARY_HARDWARE };

#define SPEC_MAX_CPUS	32
#define SPEC_MIN_MEMORY (64ull << 20) /* the guest kernel and its initramfs need most of this */

/* All pointers are borrowed from whoever fills the struct and must outlive the sandbox. */
struct sandbox_spec {
	const char *name; /* NULL: one is invented */
	enum accel_choice accel;
	enum boundary at_least;	     /* BOUNDARY_NONE: any */
	unsigned cpus;		     /* 1..32 */
	uint64_t memory;	     /* bytes */
	const char *rootfs;	     /* directory or file; NULL: the built-in image */
	const char *kernel, *initrd; /* NULL: Caisson's own */
	const char *append;	     /* added to the kernel command line; NULL: nothing */
	char *const *argv;	     /* NULL-terminated; not used with console */
	char *const *env;	     /* NULL-terminated "NAME=value" */
	const char *cwd, *user;	     /* NULL: "/", root */
	bool interactive;	     /* -i: stdin goes to the program */
	bool tty;		     /* -t */
	bool console; /* the guest's serial port instead of the agent: for kernels and initramfs of others */
	bool debug;   /* show the serial console and the monitor's own lines on stderr */
};

void sandbox_spec_init(struct sandbox_spec *s);
/* Checks what can be checked without opening anything: counts, memory against this host's, the name. */
int sandbox_spec_check(const struct sandbox_spec *s, struct cai_error *err);

/* "512M", "1.5g", "1073741824", with an optional suffix b, k, m, g or t (powers of 1024), into bytes. */
int parse_size(const char *text, uint64_t *bytes, struct cai_error *err);

const char *boundary_name(enum boundary b);
/* "software", "hypervisor", "hardware"; else -1. */
int boundary_parse(const char *text, enum boundary *b);

#endif
