/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/call.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "proto/text.h"
#include "sandbox/engine.h"
#include "sandbox/sandbox.h"

struct session *call_session(struct loop *l, struct sandbox_view *v, const struct agent_start *start, int in, int out, int err_fd,
			     void (*started)(void *ctx), void (*ended)(void *ctx), void *ctx, struct cai_error *err)
{
	if (v->state.status == STATUS_PAUSED) {
		cai_fail(err, EBUSY, "the sandbox is paused; let it go on with 'caisson unpause %s'", v->name);
		return NULL;
	}
	if (v->state.status != STATUS_RUNNING) {
		cai_fail(err, ESRCH, "the sandbox is not running (it is %s)", sandbox_status_name(v->state.status));
		return NULL;
	}
	int fd = sandbox_dir_connect(&v->dir, "agent.sock", SOCK_STREAM, err);
	if (fd < 0)
		return NULL;
	struct session_config c = {.stream = fd,
				   .connect_line = engine_of(v->conf.spec.engine)->connect_line,
				   .in = in,
				   .out = out,
				   .err = err_fd,
				   .start = start,
				   .started = started,
				   .ended = ended,
				   .ctx = ctx};
	return session_new(l, &c, err);
}

int call_status(const struct session *s, char *why, size_t n)
{
	const struct session_result *r = session_result(s);
	why[0] = 0;
	if (r->end == SESSION_EXITED) {
		if (r->lost_output)
			snprintf(why, n, "cannot write to standard output: %s", strerror(r->lost_output));
		return r->signal ? 128 + (int)(r->signal & 0x7f) : (int)(r->status & 0xff);
	}
	snprintf(why, n, "%s", r->text[0] ? r->text : "the sandbox ended");
	if (r->end == SESSION_REFUSED && r->error_code == AGENT_E_NOT_FOUND)
		return EXIT_NOT_FOUND;
	if (r->end == SESSION_REFUSED && (r->error_code == AGENT_E_NOT_EXEC || r->error_code == AGENT_E_BAD_CWD))
		return EXIT_NOT_EXEC;
	return EXIT_CAISSON;
}

static void on_started(void *ctx)
{
}

static void on_ended(void *ctx)
{
	loop_stop(ctx);
}

/* The first bytes of a file as one line for a sentence. */
static void first_line(int fd, char out[300])
{
	ssize_t n = file_pread_full(fd, out, 299, 0);
	out[n < 0 ? 0 : n] = 0;
	out[strcspn(out, "\n")] = 0;
	proto_make_printable(out, false);
}

int call_builtin(struct sandbox_view *v, char *const *argv, int in, int out, struct cai_error *err)
{
	struct agent_start start = {.flags = AGENT_START_BUILTIN | (in >= 0 ? AGENT_START_STDIN : 0), .argv = (char **)(uintptr_t)argv};
	cleanup_close int errors = memfd_create("stderr", MFD_CLOEXEC);
	struct loop *l = loop_new(err);
	struct session *s = l && errors >= 0 ? call_session(l, v, &start, in, out, errors, on_started, on_ended, l, err) : NULL;
	int status = EXIT_CAISSON;
	char why[480], said[300];
	if (s && loop_run(l, err) == 0) {
		status = call_status(s, why, sizeof(why));
		if (status) {
			first_line(errors, said);
			cai_fail(err, 0, "%s", why[0] ? why : said[0] ? said : "the agent failed without saying why");
		}
	}
	session_free(s);
	loop_free(l);
	return status;
}

json_t *call_builtin_json(struct sandbox_view *v, char *const *argv, size_t max, struct cai_error *err)
{
	cleanup_close int out = memfd_create("stdout", MFD_CLOEXEC);
	struct stat st;
	if (out < 0 || call_builtin(v, argv, -1, out, err) != 0)
		return NULL;
	if (fstat(out, &st) < 0 || st.st_size <= 0 || (uint64_t)st.st_size > max) {
		cai_fail(err, EPROTO, "the sandbox's agent gave no usable answer");
		return NULL;
	}
	cleanup_free char *text = malloc((size_t)st.st_size);
	if (!text || file_pread_full(out, text, (size_t)st.st_size, 0) != st.st_size) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	json_t *o = json_loadb(text, (size_t)st.st_size, 0, NULL);
	if (!o)
		cai_fail(err, EPROTO, "the sandbox's agent gave no usable answer");
	return o;
}
