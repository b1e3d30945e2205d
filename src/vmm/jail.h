/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's jail: what is left to an attacker who takes the monitor over from inside the guest.
 *
 * Two stages. jail_enter() comes first, before a byte of anyone's input is read: namespaces, an empty root, an identity of
 * its own, no capabilities. jail_seal() comes when descriptors, memory and threads are all there and before the first
 * guest instruction: the system call filter, which also ends the making of threads.
 */
#ifndef VMM_JAIL_H
#define VMM_JAIL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define JAIL_UID_BASE 0x70000000u /* started by root: the monitor's user is this + its process id, shared with nobody */
#define JAIL_MAX_FDS  1100u       /* RLIMIT_NOFILE: one for each of VIRTIO_VSOCK_MAX_CONNS, and a few */

struct jail_status {
	bool user_ns;  /* in a user namespace of its own (else: started by root where those are switched off) */
	bool own_uid;  /* runs as a user of its own, not as whoever started it */
	bool sealed;   /* the filter is in force */
	uid_t uid;     /* as the host sees it */
};

/*
 * Called once, with one thread. Forks: returns 0 in the new process, which is process 1 of its own pid namespace and dies with
 * the old one; the old one never returns but waits and ends as the new one did. Only descriptors 0 to 3 survive; 0 and 1,
 * and 2 unless keep_stderr, become /dev/null. Returns -1 with a sentence when the host does not allow something; then the
 * process may be half-way in and can only report and exit.
 */
int jail_enter(struct jail_status *st, bool keep_stderr, struct cai_error *err);

/* Limits and the filter, for all threads. fsize: the largest file offset to be written. kvm: KVM will run, which makes a
 * kernel thread on our account later. After this the monitor can make no thread. A forbidden call raises SIGSYS (see fatal.h). */
int jail_seal(struct jail_status *st, uint64_t fsize, bool kvm, struct cai_error *err);

/* Name of an x86-64 system call, or NULL. Safe in a signal handler. */
const char *jail_syscall_name(int nr);

/* Tests: makes the forbidden call of that name ("open", "socket", "execve", "ptrace", ...); returns only when the jail let it
 * pass, or when there is no such probe (-1 with a sentence). */
int jail_probe(const char *name, struct cai_error *err);

#endif
