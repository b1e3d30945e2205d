/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stream of the agent and the process that it may have started, or such a process without a stream; private to the agent. session.c
 * has the life of a session and the frames of the host; session_io.c moves bytes between the process and the stream;
 * session_attach.c takes a process off its stream and puts it on another.
 */
#ifndef GUEST_SESSION_H
#define GUEST_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/loop.h"
#include "guest/agent.h"

struct session;

struct agent {
	struct agent_ops ops;
	struct loop *loop;
	struct loop_source *listener, *sigchld;
	int listen_fd, signal_fd;
	struct session *sessions; /* all that live */
	struct session *dead;     /* closed, freed when no callback of theirs can be running */
	unsigned n_sessions;
	bool setup_done;
	/* Kills for memory, as last counted: when a process failed, and a moment after one was started. Counting takes the kernel a good part of the time
	 * that a small program takes, so it is kept out of the way of starting one. */
	uint64_t oom_kills;
	struct loop_source *oom_timer;
	bool together;            /* the next process may be started with SPAWN_TOGETHER */
	uint8_t *scratch;         /* SCRATCH_SIZE bytes: what is read from a pipe or a stream before it goes on */
};

#define SCRATCH_SIZE (AGENT_HEADER_SIZE + AGENT_MAX_DATA)

enum session_state {
	SESSION_IDLE,     /* HELLO sent; SETUP, START or POWEROFF may come */
	SESSION_STARTING, /* forked; the report is awaited */
	SESSION_RUNNING,  /* STARTED sent; until EXIT is */
	SESSION_DETACHING, /* DETACHED is on its way; input is thrown away */
	SESSION_DETACHED, /* a process without a stream, until ATTACH */
	SESSION_LINGER,   /* the last frame is on its way; input is thrown away until the host closes */
	SESSION_ORPHAN,   /* the stream is gone, the processes are being ended */
	SESSION_DEAD,     /* in agent.dead */
};

/* What the session's one timer is armed for; each belongs to one state. */
enum session_timer {
	TIMER_NONE,
	TIMER_RETRY,  /* RUNNING: look again at a terminal that nobody had open */
	TIMER_GRACE,  /* RUNNING, process reaped: others may still hold its pipes */
	TIMER_KILL,   /* ORPHAN: SIGHUP was not enough */
	TIMER_LINGER, /* LINGER: the host does not close */
};

enum { OUT, ERR, N_OUTPUTS };

struct session {
	struct agent *a;
	struct session *next, **link;
	enum session_state state;

	/* the stream */
	int fd;
	struct loop_source *stream;
	bool had_setup;                   /* SETUP came on this stream */
	bool want_write;                  /* the stream's source also waits for room */
	uint8_t head[AGENT_HEADER_SIZE];  /* of the frame that is being received */
	unsigned head_len;
	struct agent_header header;
	uint8_t *body;                    /* a body that came in pieces, body_len bytes of it so far */
	uint32_t body_len;
	struct buf out;                   /* frames that the stream had no room for, from out_at on */
	size_t out_at;

	/* the process */
	struct spawned p;                 /* p.pid is -1 without one */
	bool reaped;
	int wait_status;
	bool preparing;                   /* it is the function "prepare" */
	bool apart;                       /* AGENT_START_DETACH: the session ends with STARTED, the process does not */
	bool builtin;                     /* AGENT_START_BUILTIN */
	struct session *heir;             /* DETACHING: gets the process; not in a list yet */
	uint64_t oom_kills;               /* of the machine, when it started */
	struct loop_source *report;
	struct loop_source *output[N_OUTPUTS]; /* NULL while throttled or closed */
	bool last_drain;                  /* take budget bytes at most of each output, then send EXIT */
	size_t budget[N_OUTPUTS];

	/* its stdin */
	bool stdin_open;                  /* STDIN frames are allowed */
	bool stdin_eof;                   /* close it when the queue is empty */
	uint32_t window;                  /* bytes that the host may still send */
	uint32_t owed;                    /* consumed, not yet credited */
	uint8_t last_byte;                /* of the input: decides how a terminal is told its end */
	struct buf in;                    /* queue, from in_at on */
	size_t in_at;
	struct loop_source *input;        /* waits for room in the pipe; NULL with an empty queue */

	struct loop_source *timer;
	enum session_timer timer_for;
};

/* session.c */

/* Without a stream and a process, and in no list; NULL without memory. */
struct session *session_alloc(struct agent *a);
/* Puts it among the agent's. */
void session_link(struct session *s);
/* Takes fd. Sends HELLO. */
int session_new(struct agent *a, int fd, struct cai_error *err);
/* The process of pid ended with this wait status. */
void session_reaped(struct agent *a, pid_t pid, int wait_status);
/* Reaps those of the sessions' own processes that ended, for an agent that is not PID 1. */
void session_reap_own(struct agent *a);
/* Ends a session at once, its process with SIGKILL. */
void session_kill(struct session *s);
/* Frees what earlier callbacks left in a->dead. */
void session_bury(struct agent *a);
/* Sends what waits and adjusts what is watched; to be called last in a callback. May end the session. */
void session_service(struct session *s);
/* The stream failed or the host closed it. */
void session_stream_lost(struct session *s);
/* Sends EXIT when the process is reaped and its output is through. */
void session_maybe_exit(struct session *s);
/* STARTED or ATTACHED is queued: output flows. */
void session_run(struct session *s);
/* The last frame is queued: send it, then wait for the host to close. */
void session_linger(struct session *s);
void session_end_with_error(struct session *s, uint32_t code, int errnum, const char *text);
/* The host broke the protocol: its process goes too. */
void session_protocol_error(struct session *s, const char *text);
/* Closes what it has and leaves it to session_bury; a process is left alone. */
void session_close(struct session *s);
void session_arm(struct session *s, enum session_timer what, uint64_t delay_ns);

/* session_io.c */

static inline size_t session_pending(const struct session *s)
{
	return s->out.len - s->out_at;
}
/* Sends of s->out what the stream takes. 0, or -1 when the stream failed. */
int session_flush(struct session *s);
/* Queues input of the host and writes what the process takes. 0, or -1 when memory ran out. */
int session_stdin(struct session *s, const void *p, size_t n);
void session_stdin_end(struct session *s);
/* Hands consumed input back to the host's window, once it is worth a frame. */
void session_credit(struct session *s);
/* Watches the outputs when the stream has room, stops when not. */
void session_watch_outputs(struct session *s);
/* Starts, or goes on with, the last drain. */
void session_drain(struct session *s);
void session_close_outputs(struct session *s);
void session_close_stdin(struct session *s);

/* session_attach.c: DETACH of a running session, ATTACH of one without a process */

void session_detach(struct session *s);
/* All up to DETACHED has left: the process becomes a session of its own. */
void session_leave_process(struct session *s);
void session_attach(struct session *s, const uint8_t *body, uint32_t len);

#endif
