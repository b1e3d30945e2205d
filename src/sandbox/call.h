/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program, or one of the agent's own functions, in a running sandbox, joined to descriptors of this process. The agent is the
 * sandbox's: what comes back is hostile.
 */
#ifndef SANDBOX_CALL_H
#define SANDBOX_CALL_H

#include "base/loop.h"
#include "proto/agent.h"
#include "sandbox/session.h"
#include "sandbox/state.h"

/* Opens a session for start (borrowed until it has ended) in the sandbox of v; hooks as in session_config. NULL with *err. */
struct session *call_session(struct loop *l, struct sandbox_view *v, const struct agent_start *start, int in, int out, int err_fd,
			     void (*started)(void *ctx), void (*ended)(void *ctx), void *ctx, struct cai_error *err);
/* What a session that has ended amounts to as an exit status; why gets a sentence, or "". */
int call_status(const struct session *s, char *why, size_t n);

/*
 * Runs to the end a function of the agent: argv as proto/agent.h lists them. Returns its exit status, 125 with *err when it could not
 * be run. Its standard error goes to *err when it fails.
 */
int call_builtin(struct sandbox_view *v, char *const *argv, int in, int out, struct cai_error *err);
/* The same for one that answers with one JSON value of at most max bytes. NULL with *err. */
json_t *call_builtin_json(struct sandbox_view *v, char *const *argv, size_t max, struct cai_error *err);

#endif
