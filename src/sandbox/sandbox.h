/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one sandbox: plan (choose and open everything, nothing started yet), start, run on the caller's
 * loop, result, free.
 *
 * Single-threaded, on the loop's thread. Whatever way a sandbox ends, sandbox_free leaves no process, socket
 * or file behind; when this process itself is killed, the monitor ends by its closed control socket and the
 * next command removes the directory.
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "sandbox/accel.h"
#include "sandbox/registry.h"
#include "sandbox/rootfs.h"
#include "sandbox/spec.h"

/* Everything a sandbox needs, open and checked. */
struct sandbox_plan {
	const struct sandbox_spec *spec; /* borrowed */
	struct registry reg;
	struct accel_pick accel;
	struct rootfs root;
	int kernel, initrd, kvm; /* descriptors; kvm -1 under the software CPU */
	char *monitor;		 /* path of caisson-vmm */
	char *cmdline;
};

/* Fails with one sentence, having started nothing. May take long (an image is made of a directory, the host
 * is probed) and may be interrupted by a signal that kills. On failure *p needs no freeing. */
int sandbox_plan_make(struct sandbox_plan *p, const struct sandbox_spec *spec, struct cai_error *err);
void sandbox_plan_free(struct sandbox_plan *p);

struct sandbox;

struct sandbox_hooks {
	void (*started)(void *ctx); /* the program runs (console: the machine was started) */
	void (*ended)(void *ctx); /* called once: sandbox_exit_status and the rest are valid; the usual answer
				     is loop_stop */
	void *ctx;
	int in, out, err;    /* borrowed; in is only read with spec->interactive */
	uint16_t rows, cols; /* the terminal's size, 0: unknown */
};

struct sandbox *sandbox_start(struct loop *l, const struct sandbox_plan *p, const struct sandbox_hooks *h,
			      struct cai_error *err);
void sandbox_signal(struct sandbox *s, int signo);
void sandbox_resize(struct sandbox *s, uint16_t rows, uint16_t cols);
/* Whether the program runs; before it does, there is nobody to give a signal to. */
bool sandbox_running(const struct sandbox *s);
/* Ends it from this side; the exit status will be `status`, with `why` (may be empty) as its sentence. */
void sandbox_kill(struct sandbox *s, int status, const char *why);

#define EXIT_CAISSON   125 /* Caisson itself, or the machine, failed */
#define EXIT_NOT_EXEC  126
#define EXIT_NOT_FOUND 127

int sandbox_exit_status(const struct sandbox *s);
const char *sandbox_why(const struct sandbox *s); /* a sentence for the user, or "" */
const char *
sandbox_console(const struct sandbox *s); /* the guest's last console lines when its kernel failed, or "" */
const char *sandbox_name(const struct sandbox *s);
const char *sandbox_guest_kernel(const struct sandbox *s); /* NULL before the agent answered */

void sandbox_free(
    struct sandbox *s); /* stops the monitor, waits for it, removes the directory; NULL is allowed */

#endif
