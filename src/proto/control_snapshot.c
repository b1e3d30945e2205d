/* SPDX-License-Identifier: Apache-2.0 */
/* The control protocol's requests SNAPSHOT and ATTACH_DISK. */
#include <string.h>
#include <unistd.h>

#include "proto/control.h"

#define KNOWN_SNAPSHOT_FLAGS (CONTROL_SNAPSHOT_CODE | CONTROL_SNAPSHOT_INCREMENTAL | CONTROL_SNAPSHOT_STOP)

void control_put_snapshot(struct buf *out, uint32_t seq, const struct control_snapshot *s)
{
	control_put(out, CONTROL_SNAPSHOT, seq);
	buf_put_u32(out, s->flags);
	buf_put_bytes(out, s->parent, sizeof(s->parent));
}

void control_put_attach(struct buf *out, uint32_t seq, const struct control_attach *a)
{
	control_put(out, CONTROL_ATTACH_DISK, seq);
	buf_put_u32(out, a->disk);
	buf_put_u32(out, a->flags);
}

static int refuse(int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		close(fds[i]);
		fds[i] = -1;
	}
	return -1;
}

int control_get_snapshot(struct buf_reader *r, int *fds, unsigned n, struct control_snapshot *s, struct cai_error *err)
{
	*s = (struct control_snapshot){.flags = buf_get_u32(r), .state_fd = -1, .memory_fd = -1, .code_fd = -1};
	const void *parent = buf_get_bytes(r, sizeof(s->parent));
	if (parent)
		memcpy(s->parent, parent, sizeof(s->parent));
	unsigned want = s->flags & CONTROL_SNAPSHOT_CODE ? 3 : 2;
	int rc = 0;
	if (!buf_done(r) || (s->flags & ~KNOWN_SNAPSHOT_FLAGS))
		rc = cai_fail(err, 0, "malformed control packet: the body of SNAPSHOT");
	else if (n != want)
		rc = cai_fail(err, 0, "SNAPSHOT needs %u descriptors, %u came with it", want, n);
	if (rc < 0)
		return refuse(fds, n);
	s->state_fd = fds[0];
	s->memory_fd = fds[1];
	s->code_fd = want == 3 ? fds[2] : -1;
	return 0;
}

int control_get_attach(struct buf_reader *r, int *fds, unsigned n, struct control_attach *a, struct cai_error *err)
{
	*a = (struct control_attach){.disk = buf_get_u32(r), .flags = buf_get_u32(r), .fd = -1};
	int rc = 0;
	if (!buf_done(r) || (a->flags & ~CONTROL_DISK_READONLY))
		rc = cai_fail(err, 0, "malformed control packet: the body of ATTACH_DISK");
	else if (n != 1)
		rc = cai_fail(err, 0, "ATTACH_DISK needs one descriptor, %u came with it", n);
	if (rc < 0)
		return refuse(fds, n);
	a->fd = fds[0];
	return 0;
}
