/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders of the control protocol, one packet an input. The first byte says how many descriptors come with it; whatever
 * the outcome, none of them may stay open.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/control.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void config(struct buf_reader *r, unsigned n)
{
	struct control_config c;
	int fds[CONTROL_MAX_FDS], first = -1;
	for (unsigned i = 0; i < n; i++) {
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		must(fds[i] >= 0);
		if (i == 0)
			first = fds[i];
	}
	if (control_get_config(r, fds, n, &c, NULL) == 0) {
		struct buf out = {0};
		must(c.vcpus >= 1 && c.vcpus <= 32 && c.n_disks <= CONTROL_MAX_DISKS && c.cmdline && c.fd[CONTROL_FD_KERNEL] >= 0);
		must(c.n_nets <= CONTROL_MAX_NETS && c.n_fs <= CONTROL_MAX_FS);
		int again[CONTROL_MAX_FDS];
		must(control_config_fds(&c, again) == n);
		for (unsigned i = 0; i < n; i++)
			must(again[i] >= 0);
		control_put_config(&out, 1, &c);
		must(!out.failed && out.len <= CONTROL_MAX_PACKET);
		buf_free(&out);
		control_config_free(&c);
	}
	if (n) {
		int probe = open("/dev/null", O_RDONLY | O_CLOEXEC);
		must(probe == first); /* the lowest number is free again: all were closed */
		close(probe);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > CONTROL_MAX_PACKET)
		return 0;
	unsigned n = data[0] % (CONTROL_MAX_FDS + 1);
	struct buf_reader r = buf_reader(data + 1, size - 1);
	struct control_header h;
	struct control_status st;
	struct control_ended en;
	struct buf out = {0};
	uint32_t errnum;
	char *text;

	if (control_get_header(&r, &h, NULL) < 0)
		return 0;
	switch (h.type) {
	case CONTROL_CONFIGURE:
		config(&r, n);
		break;
	case CONTROL_ERROR:
		if (control_get_error(&r, &errnum, &text, NULL) == 0)
			control_put_error(&out, h.seq, errnum, text);
		free(text);
		break;
	case CONTROL_STATUS:
		if (control_get_status(&r, &st, NULL) == 0)
			control_put_status(&out, h.seq, &st);
		break;
	case CONTROL_ENDED:
		if (control_get_ended(&r, &en, NULL) == 0)
			control_put_ended(&out, &en);
		control_ended_free(&en);
		break;
	default:
		break;
	}
	must(!out.failed);
	buf_free(&out);
	return 0;
}
