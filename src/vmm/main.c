/* SPDX-License-Identifier: Apache-2.0 */
/*
 * caisson-vmm: one process is one microVM. It is started by `caisson` with its control socket as descriptor 3 and is told
 * everything else through it (proto/control.h, caisson-vmm(8)). Before it reads a byte it enters its jail.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "hv/kvm/probe.h"
#include "proto/control.h"
#include "vmm/fatal.h"
#include "vmm/jail.h"
#include "vmm/monitor.h"
#include "vmm/server.h"

static bool have_control_socket(void)
{
	int type = 0;
	socklen_t n = sizeof(type);
	return getsockopt(CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET;
}

/* What this host's KVM is good for, as one line of JSON: `caisson` asks, so that it needs no code of an accelerator itself. */
static int print_probe(void)
{
	struct kvm_probe p;
	char text[1024];
	kvm_probe_run(-1, &p);
	if (kvm_probe_json(&p, text, sizeof(text)) < 0)
		return 1;
	return puts(text) < 0 || fflush(stdout) != 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		puts("caisson-vmm " CAISSON_VERSION);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--probe"))
		return print_probe();
	if (argc != 1 || !have_control_socket()) {
		fprintf(stderr, "caisson-vmm: this program is started by caisson, with its control socket as descriptor %d; "
				"see caisson-vmm(8)\n", CONTROL_FD);
		return 2;
	}
	const char *debug = getenv("CAISSON_DEBUG");
	log_set_debug(debug && !strcmp(debug, "1"));
	/* One heap for all threads: they allocate little, and the filter would not let another be made. */
	mallopt(M_ARENA_MAX, 1);

	static struct fatal fatal; /* signal handlers refer to it until the end */
	struct jail_status jail;
	struct cai_error err;
	if (jail_enter(&jail, log_debug_on(), &err) < 0 || fatal_install(&fatal, &err) < 0) {
		server_refuse(CONTROL_FD, &err);
		return MONITOR_BAD_CONFIG;
	}
	_exit(monitor_run(CONTROL_FD, &jail, &fatal, true));
}
