/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How other commands reach the process that runs a sandbox: runner.sock in its directory, a SOCK_SEQPACKET Unix socket that only this
 * user can open. A request is one JSON object, a reply one more, in order:
 *
 *   {"op":"signal","signal":N}           {"ok":true}
 *   {"op":"stop","timeout":SECONDS}      {"ok":true}; then the exit, as with wait
 *   {"op":"wait"}                        {"exit":STATUS} when it has ended and its record says so
 *   {"op":"pause"}, {"op":"unpause"}     {"ok":true}
 *   {"op":"stats"}                       {"stats":{...}}
 *   {"op":"checkpoint","dir":DIR,"stop":BOOL}  {"ok":true} when all is in DIR; the sandbox goes on, unless stop
 *   {"op":"update"}                      {"ok":true}; config.json has changed
 *   {"op":"resize","rows":N,"cols":N}    {"ok":true}
 *
 * or {"error":TEXT}. Every client is told of the end, whatever it asked.
 */
#ifndef SANDBOX_RUNNER_H
#define SANDBOX_RUNNER_H

#include <jansson.h>

#include "base/loop.h"
#include "sandbox/sandbox.h"

#define RUNNER_MAX_PACKET 65536

/* The runner's side. */
struct runner;
struct runner *runner_new(struct loop *l, struct sandbox *s, struct sandbox_dir *dir, struct cai_error *err);
/* Tells every client of the end and takes no more requests. NULL is allowed, here and below. */
void runner_conclude(struct runner *r, int status);
void runner_free(struct runner *r);

/* The other commands' side. A connection to the runner of d, or -1: nobody runs it. */
int runner_connect(struct sandbox_dir *d, struct cai_error *err);
/* Sends request (taken over) and returns the reply; an {"error"} becomes *err and NULL. timeout_ms < 0: waits for ever. */
json_t *runner_ask(int fd, json_t *request, int timeout_ms, struct cai_error *err);
/* The next packet, such as the {"exit"} that was announced. NULL with *err when the runner is gone. */
json_t *runner_next(int fd, int timeout_ms, struct cai_error *err);

#endif
