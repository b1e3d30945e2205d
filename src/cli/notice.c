/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/notice.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "cli/cli.h"
#include "sandbox/paths.h"

void notice_boundary(const struct accel_pick *p)
{
	if (!p->probed || p->kvm || !isatty(STDERR_FILENO))
		return;
	const char *state = kvm_state_name(p->verdict.state);
	cleanup_free char *dir = paths_state(NULL);
	cleanup_free char *file = dir ? path_join(dir, "kvm-notice") : NULL;
	cleanup_free char *said = NULL;
	size_t len;
	if (!file)
		return; /* where it cannot be remembered it would be said every time, which is worse than
			   never */
	if (file_read_all(file, 64, &said, &len, NULL) == 0 && !strcmp(said, state))
		return;
	if (file_replace(file, state, strlen(state), 0600, NULL) < 0)
		return;
	cli_say("this host's KVM is %s%s%s%s; the boundary is software: the guest runs on Caisson's own CPU",
		p->verdict.state == KVM_NO_PERMISSION ? "not permitted to you" : state,
		p->verdict.reason[0] ? " (" : "", p->verdict.reason, p->verdict.reason[0] ? ")" : "");
	cli_say("to mend it: %s (this is said once; 'caisson doctor' says more)", kvm_mend(p->verdict.state));
}
