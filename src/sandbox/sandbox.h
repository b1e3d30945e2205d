/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run of one sandbox, from a plan to an exit status: network, engine, the program's session, log, and the socket on which other
 * commands reach it (runner.h). What it is and becomes is in its directory (store.h, state.h).
 *
 * Single-threaded, on the loop's thread. Whatever way a run ends, sandbox_finish leaves no process, socket, link or rule behind; when
 * this process itself is killed, everything else ends by its leashes and the next command heals the record.
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "sandbox/plan.h"
#include "sandbox/state.h"

/* What `caisson run` exits with when it is not the program's own status, as docker has it. */
#define EXIT_CAISSON   125
#define EXIT_NOT_EXEC  126
#define EXIT_NOT_FOUND 127

struct sandbox;

struct sandbox_hooks {
	void (*started)(void *ctx); /* the program runs (console: the machine was started) */
	void (*ended)(void *ctx);   /* called once: sandbox_exit_status and the rest are valid; the usual answer
				       is loop_stop */
	void *ctx;
	int in, out, err;    /* borrowed; in is only read with spec->interactive */
	uint16_t rows, cols; /* the terminal's size, 0: unknown */
};

/*
 * Makes a new sandbox in the store, locked, its record written, not started; starting: it will be at once. The spec's image must be
 * resolved. -1 with *err, with nothing left.
 */
int sandbox_create(const struct sandbox_plan *p, bool starting, struct sandbox_dir *d, struct sandbox_state *st, struct cai_error *err);

/* Starts it. dir (locked) and state are borrowed until sandbox_finish. NULL with *err, with nothing left running. */
struct sandbox *sandbox_start(struct loop *l, const struct sandbox_plan *p, struct sandbox_dir *dir, struct sandbox_state *state,
			      const struct sandbox_hooks *h, struct cai_error *err);
int sandbox_signal(struct sandbox *s, int signo, struct cai_error *err);
void sandbox_resize(struct sandbox *s, uint16_t rows, uint16_t cols);
/* The stop signal now, SIGKILL after that many seconds. */
void sandbox_stop(struct sandbox *s, unsigned seconds);
int sandbox_pause(struct sandbox *s, bool paused, struct cai_error *err);
/* Adds what `stats` shows. */
int sandbox_stats(struct sandbox *s, json_t *into, struct cai_error *err);
/* Applies changed limits of the spec on disk. */
int sandbox_update(struct sandbox *s, struct cai_error *err);
/*
 * Saves the running sandbox into dir (absolute; there and empty): the machine, its disk, and the process that is its program. told is called
 * once, perhaps before this returns, with NULL or what went wrong; the sandbox goes on in either case, or with stop has ended then.
 */
typedef void sandbox_told_fn(void *ctx, const struct cai_error *err);
void sandbox_checkpoint(struct sandbox *s, const char *dir, bool stop, sandbox_told_fn *told, void *ctx);
/* Whether the program runs; before it does, there is nobody to give a signal to. */
bool sandbox_running(const struct sandbox *s);
/* Ends it from this side; the exit status will be `status`, with `why` (may be empty) as its sentence. */
void sandbox_kill(struct sandbox *s, int status, const char *why);

/* After ended(): */
int sandbox_exit_status(const struct sandbox *s);
const char *sandbox_why(const struct sandbox *s);	   /* one sentence, or "" when the program ended by itself */
const char *sandbox_console(const struct sandbox *s);	   /* the last console lines of a guest that failed, or "" */
const char *sandbox_guest_kernel(const struct sandbox *s); /* NULL: never known */
const char *sandbox_warning(const struct sandbox *s);	   /* of its network: one sentence for the user, or "" */

/* Ends what is left, writes the record, or with spec->remove removes all. Frees s; dir stays open (and locked) unless removed. */
void sandbox_finish(struct sandbox *s);

/* Makes the template of the plan's image anew (template.h); warm: the NULL-terminated command to run in it first, or NULL. */
int sandbox_template(const struct sandbox_plan *p, char *const *warm, struct cai_error *err);

#endif
