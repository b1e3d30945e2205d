/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor: a machine, the control socket's server and the event loop of both. */
#ifndef VMM_MONITOR_H
#define VMM_MONITOR_H

#include "vmm/fatal.h"
#include "vmm/jail.h"

enum monitor_status {
	MONITOR_OK = 0,           /* the guest ended by itself or was stopped; ENDED said how */
	MONITOR_FAILED = 1,       /* the accelerator, the jail or the monitor failed; ENDED said how */
	MONITOR_BAD_CONFIG = 2,   /* CONFIGURE was answered with ERROR */
};

/* Serves the control socket fd (owned) until the end of the guest or of its clients. Returns the process's exit status; what is
 * left open or mapped goes with the process. seal: for tests, false leaves out the system call filter. */
enum monitor_status monitor_run(int fd, struct jail_status *jail, struct fatal *fatal, bool seal);

#endif
