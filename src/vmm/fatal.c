/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a handler runs on whichever thread tripped, with that thread's locks held and the heap in any state.
 * So the packet is encoded into a buffer made beforehand, with functions that only copy, and sent without waiting. If
 * the handler itself makes a forbidden call, the kernel finds SIGSYS blocked and kills the process: no loop is possible.
 */
#include "vmm/fatal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "proto/control.h"
#include "vmm/jail.h"

#define PACKET_BYTES 4096

/* A signal handler has no context argument; this is set once, before any thread exists. */
static struct fatal *the_fatal;

struct text {
	char s[320];
	size_t n;
};

static void add(struct text *t, const char *s)
{
	while (*s && t->n < sizeof(t->s) - 1)
		t->s[t->n++] = *s++;
	t->s[t->n] = 0;
}

static void add_number(struct text *t, uint64_t v, unsigned base)
{
	char d[24];
	size_t at = sizeof(d) - 1;
	d[at] = 0;
	do
		d[--at] = "0123456789abcdef"[v % base];
	while (v /= base);
	add(t, d + at);
}

static void __attribute__((noreturn)) say_and_exit(struct fatal *f, enum control_end reason, struct text *t)
{
	/* Two processors may meet the same missing page: one of them speaks, and its exit is the other's. */
	while (atomic_exchange(&f->speaking, true))
		sched_yield();
	struct control_ended e = {.reason = reason, .text = t->s};
	control_put_ended(&f->packet, &e);
	if (!f->packet.failed)
		for (unsigned i = 0; i < FATAL_MAX_SOCKETS; i++) {
			int s = atomic_load(&f->socket[i]);
			if (s >= 0)
				send(s, f->packet.p, f->packet.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		}
	_exit(FATAL_EXIT);
}

static void on_sigsys(int sig, siginfo_t *si, void *uc)
{
	struct text t = {.n = 0};
	const char *name = jail_syscall_name(si->si_syscall);
	add(&t, "the monitor called ");
	if (name) {
		add(&t, name);
		add(&t, "(2)");
	} else {
		add(&t, "system call ");
		add_number(&t, (uint64_t)(uint32_t)si->si_syscall, 10);
	}
	add(&t, ", which its jail forbids, and was ended: this is a defect of the monitor or an attempt to break out of the guest");
	say_and_exit(the_fatal, CONTROL_END_JAIL, &t);
}

static void on_sigbus(int sig, siginfo_t *si, void *uc)
{
	const struct mem *m = the_fatal->mem;
	uint64_t at = (uint64_t)(uintptr_t)si->si_addr - (m ? (uint64_t)(uintptr_t)m->base : 0);
	struct text t = {.n = 0};
	if (!m || !m->base || at >= m->size) {
		if (si->si_code != BUS_ADRERR) {
			/* An ordinary crash. The fault comes again and kills. */
			signal(SIGBUS, SIG_DFL);
			return;
		}
		add(&t, "the host could not provide a page of a file that the monitor has mapped: it is out of memory, or the file was cut short");
		say_and_exit(the_fatal, CONTROL_END_ACCEL_LOST, &t);
	}
	add(&t, "the host could not provide a page of the guest's memory (at guest address 0x");
	add_number(&t, at < m->region[0].size ? at : at - m->region[0].size + MEM_HOLE_END, 16);
	add(&t, "): it is out of memory, or the file behind it was cut short");
	say_and_exit(the_fatal, CONTROL_END_ACCEL_LOST, &t);
}

int fatal_install(struct fatal *f, struct cai_error *err)
{
	*f = (struct fatal){0};
	for (unsigned i = 0; i < FATAL_MAX_SOCKETS; i++)
		atomic_store(&f->socket[i], -1);
	f->packet.p = malloc(PACKET_BYTES);
	if (!f->packet.p)
		return cai_fail(err, ENOMEM, "out of memory");
	f->packet.cap = PACKET_BYTES;
	the_fatal = f;
	struct sigaction sa = {.sa_flags = SA_SIGINFO};
	sigfillset(&sa.sa_mask); /* SIGSYS too: a second forbidden call is final */
	sa.sa_sigaction = on_sigsys;
	if (sigaction(SIGSYS, &sa, NULL) < 0)
		return cai_fail_errno(err, errno, "cannot handle SIGSYS");
	sa.sa_sigaction = on_sigbus;
	if (sigaction(SIGBUS, &sa, NULL) < 0)
		return cai_fail_errno(err, errno, "cannot handle SIGBUS");
	return 0;
}
