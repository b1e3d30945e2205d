/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A session is a stream and a process. DETACH stops its output at a frame's end and queues DETACHED behind what waits already; once that has
 * left, the process's half moves to a session of its own, which is in no loop but to go on feeding the input that is queued, and the
 * stream's half lingers as after EXIT. So by the time a host can know of the end, the process can be attached: no order of the two
 * streams' events matters, nor whether the old one is closed, reset by a restore, or left open.
 *
 * ATTACH moves the process's half to the new stream's session. Output was left in the pipes and nowhere else. Of the input
 * window each byte is in one place: still the host's to send, queued here, or written to the process; so what the host may send now is the
 * window less the queue, whatever credit the old stream was told of.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"
#include "guest/session.h"

/* Moves the process's half, from a session that watches nothing of it but its input. 0, or -1 when the input cannot be watched. */
static int move_process(struct session *from, struct session *to)
{
	loop_del(from->input);
	from->input = NULL;
	to->p = from->p;
	to->reaped = from->reaped;
	to->wait_status = from->wait_status;
	to->oom_kills = from->oom_kills;
	to->last_drain = from->last_drain;
	for (int i = 0; i < N_OUTPUTS; i++)
		to->budget[i] = from->budget[i];
	to->stdin_open = from->stdin_open;
	to->stdin_eof = from->stdin_eof;
	to->window = from->window;
	to->owed = from->owed;
	to->last_byte = from->last_byte;
	to->in = from->in;
	to->in_at = from->in_at;

	from->p = SPAWNED_NONE;
	from->reaped = from->last_drain = from->stdin_open = from->stdin_eof = false;
	from->in = (struct buf){0};
	from->in_at = 0;
	return session_stdin(to, NULL, 0);
}

void session_detach(struct session *s)
{
	if (s->builtin) {
		session_protocol_error(s, "DETACH is not for a function of the agent");
		return;
	}
	s->heir = session_alloc(s->a);
	if (!s->heir) {
		session_protocol_error(s, "out of memory in the guest");
		return;
	}
	s->timer_for = TIMER_NONE;
	if (s->timer)
		loop_timer_set(s->timer, 0);
	agent_put_u32(&s->out, AGENT_DETACHED, (uint32_t)s->p.pid);
	s->state = SESSION_DETACHING; /* session_service stops watching the outputs */
}

void session_leave_process(struct session *s)
{
	struct session *heir = s->heir;
	s->heir = NULL;
	heir->state = SESSION_DETACHED;
	session_watch_outputs(s);
	session_link(heir);
	if (move_process(s, heir) < 0)
		session_kill(heir);
	session_linger(s);
}

void session_attach(struct session *s, const uint8_t *body, uint32_t len)
{
	uint32_t pid;
	if (agent_get_u32(body, len, &pid, NULL) < 0) {
		session_protocol_error(s, "malformed ATTACH");
		return;
	}
	struct session *d = s->a->sessions;
	while (d && !(d->state == SESSION_DETACHED && (uint32_t)d->p.pid == pid))
		d = d->next;
	if (!d) {
		char text[80];
		snprintf(text, sizeof(text), "no process %u waits to be attached", pid);
		session_end_with_error(s, AGENT_E_NOT_FOUND, ESRCH, text);
		return;
	}
	int rc = move_process(d, s);
	session_close(d);
	if (rc < 0) {
		session_protocol_error(s, "out of memory in the guest");
		return;
	}
	s->owed = 0;
	s->window = s->stdin_open ? AGENT_STDIN_WINDOW - (uint32_t)(s->in.len - s->in_at) : 0;
	agent_put_attached(&s->out, &(struct agent_attached){.window = s->window, .flags = s->stdin_open ? AGENT_ATTACHED_STDIN : 0});
	session_run(s);
}
