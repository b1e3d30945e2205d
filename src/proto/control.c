/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * SOCK_SEQPACKET keeps packet boundaries, so a message needs no length: header, body, end of packet. Each decoder refuses a
 * body with bytes left over. Encoders mark the buffer failed when a packet would be over CONTROL_MAX_PACKET.
 *
 * Descriptors travel beside a packet (unix(7), SCM_RIGHTS). The kernel installs them in the receiver before anyone looked
 * at the bytes, so from then on there is one rule: whoever holds the array either hands all of it on or closes all of it.
 */
#include "proto/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "proto/text.h"

#define HEADER_SIZE       12
#define MAX_TEXT          2048u
#define MAX_CONSOLE       (8u << 10)
#define MAX_VCPUS         32u
#define KNOWN_FLAGS       (CONTROL_FLAG_SELFTEST_JAIL | CONTROL_FLAG_VERIFY | CONTROL_FLAG_VERIFY_LATE | CONTROL_FLAG_QUIET_GENERATION)
#define KNOWN_DISK_FLAGS  (CONTROL_DISK_READONLY | CONTROL_DISK_EMPTY)
#define MIN_MTU           68u /* IPv4's, and virtio-net's */

static void finish(struct buf *out, size_t start)
{
	if (!out->failed && out->len - start > CONTROL_MAX_PACKET)
		out->failed = true;
}

void control_put(struct buf *out, enum control_type type, uint32_t seq)
{
	buf_put_u32(out, CONTROL_MAGIC);
	buf_put_u16(out, CONTROL_VERSION);
	buf_put_u16(out, (uint16_t)type);
	buf_put_u32(out, seq);
}

/* The last max bytes of s: of a console, the end is what explains. */
static void put_tail(struct buf *out, const char *s, size_t max)
{
	size_t n = s ? strlen(s) : 0;
	size_t skip = n > max ? n - max : 0;
	buf_put_u32(out, (uint32_t)(n - skip));
	if (n)
		buf_put_bytes(out, s + skip, n - skip);
}

static void put_head(struct buf *out, const char *s, size_t max)
{
	size_t n = s ? strnlen(s, max) : 0;
	buf_put_u32(out, (uint32_t)n);
	if (n)
		buf_put_bytes(out, s, n);
}

static void put_devices(struct buf *out, const struct control_config *c)
{
	if (c->n_disks > CONTROL_MAX_DISKS || c->n_nets > CONTROL_MAX_NETS || c->n_fs > CONTROL_MAX_FS) {
		out->failed = true;
		return;
	}
	buf_put_u32(out, c->n_disks);
	for (uint32_t i = 0; i < c->n_disks; i++) {
		buf_put_u32(out, c->disk[i].flags);
		buf_put_bytes(out, c->disk[i].id, sizeof(c->disk[i].id));
	}
	buf_put_u32(out, c->n_nets);
	for (uint32_t i = 0; i < c->n_nets; i++) {
		const struct control_net *n = &c->net[i];
		buf_put_bytes(out, n->mac, sizeof(n->mac));
		buf_put_u16(out, n->mtu);
		buf_put_u8(out, n->kind);
		buf_put_u8(out, n->n_fds);
		buf_put_u8(out, n->n_pairs);
		buf_put_u64(out, n->offloads);
	}
	buf_put_u32(out, c->n_fs);
	for (uint32_t i = 0; i < c->n_fs; i++) {
		buf_put_bytes(out, c->fs[i].tag, sizeof(c->fs[i].tag));
		buf_put_u32(out, c->fs[i].flags);
	}
}

void control_put_config(struct buf *out, uint32_t seq, const struct control_config *c)
{
	size_t start = out->len;
	uint32_t fds = 0;
	for (unsigned i = 0; i < CONTROL_N_FDS; i++)
		if (c->fd[i] >= 0)
			fds |= 1u << i;
	control_put(out, CONTROL_CONFIGURE, seq);
	buf_put_u32(out, c->flags);
	buf_put_u32(out, c->vcpus);
	buf_put_u64(out, c->mem_bytes);
	buf_put_u32(out, c->accel);
	buf_put_bytes(out, c->cpu_model, sizeof(c->cpu_model));
	buf_put_u64(out, c->code_cache_bytes);
	buf_put_string(out, c->cmdline ? c->cmdline : "");
	buf_put_bytes(out, c->jail_probe, sizeof(c->jail_probe));
	buf_put_u32(out, fds);
	put_devices(out, c);
	finish(out, start);
}

void control_put_error(struct buf *out, uint32_t seq, uint32_t errnum, const char *text)
{
	control_put(out, CONTROL_ERROR, seq);
	buf_put_u32(out, errnum);
	put_head(out, text, MAX_TEXT);
}

/* The 64-bit fields of STATUS in the order of the wire. */
static const uint16_t status_u64[] = {
	offsetof(struct control_status, mem_bytes),
	offsetof(struct control_status, uptime_ns),
	offsetof(struct control_status, instructions),
	offsetof(struct control_status, instructions_at_ready),
	offsetof(struct control_status, blocks_decoded),
	offsetof(struct control_status, code_cache_bytes),
	offsetof(struct control_status, tlb_misses),
	offsetof(struct control_status, assists),
	offsetof(struct control_status, balloon_bytes),
	offsetof(struct control_status, net_rx_bytes),
	offsetof(struct control_status, net_rx_frames),
	offsetof(struct control_status, net_tx_bytes),
	offsetof(struct control_status, net_tx_frames),
	offsetof(struct control_status, net_rx_dropped),
	offsetof(struct control_status, net_tx_dropped),
	offsetof(struct control_status, disk_read_bytes),
	offsetof(struct control_status, disk_reads),
	offsetof(struct control_status, disk_written_bytes),
	offsetof(struct control_status, disk_writes),
	offsetof(struct control_status, fs_read_bytes),
	offsetof(struct control_status, fs_written_bytes),
	offsetof(struct control_status, fs_requests),
};

void control_put_status(struct buf *out, uint32_t seq, const struct control_status *s)
{
	control_put(out, CONTROL_STATUS, seq);
	buf_put_u32(out, s->state);
	buf_put_u32(out, s->vcpus);
	buf_put_u32(out, s->accel);
	buf_put_u32(out, s->ready);
	for (unsigned i = 0; i < ARRAY_LEN(status_u64); i++)
		buf_put_u64(out, *(const uint64_t *)((const char *)s + status_u64[i]));
}

void control_put_ended(struct buf *out, const struct control_ended *e)
{
	control_put(out, CONTROL_ENDED, 0);
	buf_put_u32(out, e->reason);
	put_head(out, e->text, MAX_TEXT);
	put_tail(out, e->console, MAX_CONSOLE);
}

int control_get_header(struct buf_reader *r, struct control_header *h, struct cai_error *err)
{
	uint32_t magic = buf_get_u32(r);
	uint16_t version = buf_get_u16(r);
	h->type = buf_get_u16(r);
	h->seq = buf_get_u32(r);
	if (r->bad)
		return cai_fail(err, 0, "malformed control packet: shorter than its header");
	if (magic != CONTROL_MAGIC)
		return cai_fail(err, 0, "malformed control packet: 0x%08x is not its magic number", magic);
	if (version != CONTROL_VERSION)
		return cai_fail(err, 0, "the peer speaks version %u of the control protocol, this side speaks %u", version,
				CONTROL_VERSION);
	return 0;
}

static void close_all(int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

/* A fixed field that must end within itself, with nothing but NULs after its text. */
static void get_name(struct buf_reader *r, char *to, size_t n)
{
	const char *p = buf_get_bytes(r, n);
	if (!p)
		return;
	size_t len = strnlen(p, n);
	if (len == n)
		r->bad = true;
	for (size_t i = len; i < n; i++)
		if (p[i])
			r->bad = true;
	if (!r->bad)
		memcpy(to, p, n);
}

static void get_bytes(struct buf_reader *r, void *to, size_t n)
{
	const void *p = buf_get_bytes(r, n);
	if (p)
		memcpy(to, p, n);
}

/* A count of things, or 0 and r->bad when there are too many. */
static uint32_t get_count(struct buf_reader *r, uint32_t max)
{
	uint32_t n = buf_get_u32(r);
	if (n > max)
		r->bad = true;
	return r->bad ? 0 : n;
}

static void get_devices(struct buf_reader *r, struct control_config *c)
{
	c->n_disks = get_count(r, CONTROL_MAX_DISKS);
	for (uint32_t i = 0; i < c->n_disks; i++) {
		c->disk[i].flags = buf_get_u32(r);
		get_bytes(r, c->disk[i].id, sizeof(c->disk[i].id));
		if (c->disk[i].flags & ~KNOWN_DISK_FLAGS)
			r->bad = true;
	}
	c->n_nets = get_count(r, CONTROL_MAX_NETS);
	for (uint32_t i = 0; i < c->n_nets; i++) {
		struct control_net *n = &c->net[i];
		get_bytes(r, n->mac, sizeof(n->mac));
		n->mtu = buf_get_u16(r);
		n->kind = buf_get_u8(r);
		n->n_fds = buf_get_u8(r);
		n->n_pairs = buf_get_u8(r);
		n->offloads = buf_get_u64(r);
		if (n->n_fds > CONTROL_MAX_NET_FDS) {
			r->bad = true;
			n->n_fds = 0;
		}
	}
	c->n_fs = get_count(r, CONTROL_MAX_FS);
	for (uint32_t i = 0; i < c->n_fs; i++) {
		get_bytes(r, c->fs[i].tag, sizeof(c->fs[i].tag));
		c->fs[i].flags = buf_get_u32(r);
	}
}

static int check_net(const struct control_net *n, unsigned number, struct cai_error *err)
{
	static const uint8_t zero[6];
	unsigned pairs = n->n_pairs ? n->n_pairs : n->n_fds ? n->n_fds : 1;
	if (n->kind < CONTROL_NET_TAP || n->kind > CONTROL_NET_DGRAM)
		return cai_fail(err, 0, "network %u is of kind %u, which does not exist", number, n->kind);
	if ((n->mac[0] & 1) || !memcmp(n->mac, zero, sizeof(zero)))
		return cai_fail(err, 0, "network %u: %02x:%02x:%02x:%02x:%02x:%02x is not the MAC address of one station", number, n->mac[0],
				n->mac[1], n->mac[2], n->mac[3], n->mac[4], n->mac[5]);
	if (n->mtu && n->mtu < MIN_MTU)
		return cai_fail(err, 0, "network %u: an MTU of %u is too small, %u is the least", number, n->mtu, MIN_MTU);
	if (pairs > CONTROL_MAX_NET_FDS || n->n_fds > pairs || (n->kind != CONTROL_NET_TAP && n->n_fds > 1))
		return cai_fail(err, 0, "network %u cannot have %u descriptors for %u queue pairs", number, n->n_fds, pairs);
	if (n->kind != CONTROL_NET_TAP && n->offloads)
		return cai_fail(err, 0, "network %u: a socket has no offloads", number);
	return 0;
}

static int check_fs(const struct control_config *c, unsigned i, struct cai_error *err)
{
	const struct control_fs *f = &c->fs[i];
	size_t n = strnlen(f->tag, sizeof(f->tag));
	if (f->flags)
		return cai_fail(err, 0, "shared directory %u has unknown flags 0x%x", i + 1, f->flags);
	if (!n)
		return cai_fail(err, 0, "shared directory %u has no tag", i + 1);
	for (size_t k = 0; k < sizeof(f->tag); k++)
		if (k < n ? f->tag[k] <= ' ' || f->tag[k] > '~' : f->tag[k])
			return cai_fail(err, 0, "the tag of shared directory %u holds more than visible ASCII characters", i + 1);
	for (unsigned k = 0; k < i; k++)
		if (!memcmp(c->fs[k].tag, f->tag, sizeof(f->tag)))
			return cai_fail(err, 0, "two shared directories have the tag \"%.36s\"", f->tag);
	return 0;
}

/* Everything but the descriptors; *fd_bits says which of enum control_fd came. */
static int get_config_body(struct buf_reader *r, struct control_config *c, uint32_t *fd_bits, struct cai_error *err)
{
	c->flags = buf_get_u32(r);
	c->vcpus = buf_get_u32(r);
	c->mem_bytes = buf_get_u64(r);
	c->accel = buf_get_u32(r);
	get_name(r, c->cpu_model, sizeof(c->cpu_model));
	c->code_cache_bytes = buf_get_u64(r);
	c->cmdline = buf_get_string(r, CONTROL_MAX_CMDLINE);
	get_name(r, c->jail_probe, sizeof(c->jail_probe));
	*fd_bits = buf_get_u32(r);
	get_devices(r, c);
	if (!buf_done(r))
		return cai_fail(err, 0, "malformed control packet: the body of CONFIGURE is truncated, too long or out of range");
	if (c->flags & ~KNOWN_FLAGS)
		return cai_fail(err, 0, "CONFIGURE has unknown flags 0x%x", c->flags);
	const bool restore = *fd_bits & (1u << CONTROL_FD_STATE);
	if ((c->vcpus < 1 && !restore) || c->vcpus > MAX_VCPUS)
		return cai_fail(err, 0, "%u vCPUs asked for; 1 to %u are possible", c->vcpus, MAX_VCPUS);
	if (c->accel != CONTROL_ACCEL_SOFT && c->accel != CONTROL_ACCEL_KVM)
		return cai_fail(err, 0, "CONFIGURE names accelerator %u, which does not exist", c->accel);
	if (*fd_bits >> CONTROL_N_FDS)
		return cai_fail(err, 0, "CONFIGURE announces unknown descriptors 0x%x", *fd_bits);
	if (!(*fd_bits & (1u << CONTROL_FD_KERNEL)) && !restore)
		return cai_fail(err, 0, "CONFIGURE came without a kernel");
	if (restore != !!(*fd_bits & (1u << CONTROL_FD_MEMORY)))
		return cai_fail(err, 0, "CONFIGURE came with one half of a snapshot");
	/* No gaps: the files are told apart by their order. */
	uint32_t layers = *fd_bits >> CONTROL_FD_MEMORY;
	if (layers & (layers + 1))
		return cai_fail(err, 0, "CONFIGURE lacks a memory file of a snapshot between others");
	for (uint32_t i = 0; i < c->n_nets; i++)
		if (check_net(&c->net[i], i + 1, err) < 0)
			return -1;
	for (uint32_t i = 0; i < c->n_fs; i++)
		if (check_fs(c, i, err) < 0)
			return -1;
	return 0;
}

int control_get_config(struct buf_reader *r, int *fds, unsigned n, struct control_config *c, struct cai_error *err)
{
	uint32_t bits = 0;
	control_config_init(c);
	int rc = get_config_body(r, c, &bits, err);
	unsigned want = (unsigned)__builtin_popcount(bits) + c->n_fs;
	for (uint32_t i = 0; i < c->n_disks; i++)
		want += !(c->disk[i].flags & CONTROL_DISK_EMPTY);
	for (uint32_t i = 0; i < c->n_nets; i++)
		want += c->net[i].n_fds;
	if (rc == 0 && want != n)
		rc = cai_fail(err, 0, "CONFIGURE announces %u descriptors, %u came with it", want, n);
	if (rc < 0) {
		close_all(fds, n);
		control_config_free(c);
		return -1;
	}
	unsigned at = 0;
	for (unsigned i = 0; i < CONTROL_N_FDS; i++)
		if (bits & (1u << i))
			c->fd[i] = fds[at++];
	for (uint32_t i = 0; i < c->n_disks; i++)
		if (!(c->disk[i].flags & CONTROL_DISK_EMPTY))
			c->disk_fd[i] = fds[at++];
	for (uint32_t i = 0; i < c->n_nets; i++)
		for (unsigned k = 0; k < c->net[i].n_fds; k++)
			c->net_fd[i][k] = fds[at++];
	for (uint32_t i = 0; i < c->n_fs; i++)
		c->fs_fd[i] = fds[at++];
	return 0;
}

int control_get_error(struct buf_reader *r, uint32_t *errnum, char **text, struct cai_error *err)
{
	*errnum = buf_get_u32(r);
	*text = buf_get_string(r, MAX_TEXT);
	if (!buf_done(r)) {
		free(*text);
		*text = NULL;
		return cai_fail(err, 0, "malformed control packet: the body of ERROR");
	}
	proto_make_printable(*text, false);
	return 0;
}

int control_get_status(struct buf_reader *r, struct control_status *s, struct cai_error *err)
{
	s->state = buf_get_u32(r);
	s->vcpus = buf_get_u32(r);
	s->accel = buf_get_u32(r);
	s->ready = buf_get_u32(r);
	for (unsigned i = 0; i < ARRAY_LEN(status_u64); i++)
		*(uint64_t *)((char *)s + status_u64[i]) = buf_get_u64(r);
	return buf_done(r) ? 0 : cai_fail(err, 0, "malformed control packet: the body of STATUS");
}

int control_get_ended(struct buf_reader *r, struct control_ended *e, struct cai_error *err)
{
	*e = (struct control_ended){0};
	e->reason = buf_get_u32(r);
	e->text = buf_get_string(r, MAX_TEXT);
	e->console = buf_get_string(r, MAX_CONSOLE);
	if (!buf_done(r)) {
		control_ended_free(e);
		return cai_fail(err, 0, "malformed control packet: the body of ENDED");
	}
	proto_make_printable(e->text, false);
	proto_make_printable(e->console, true);
	return 0;
}

void control_config_init(struct control_config *c)
{
	memset(c, 0, sizeof(*c));
	for (unsigned i = 0; i < CONTROL_N_FDS; i++)
		c->fd[i] = -1;
	for (unsigned i = 0; i < CONTROL_MAX_DISKS; i++)
		c->disk_fd[i] = -1;
	for (unsigned i = 0; i < CONTROL_MAX_NETS; i++)
		for (unsigned k = 0; k < CONTROL_MAX_NET_FDS; k++)
			c->net_fd[i][k] = -1;
	for (unsigned i = 0; i < CONTROL_MAX_FS; i++)
		c->fs_fd[i] = -1;
}

unsigned control_config_fds(const struct control_config *c, int fds[CONTROL_MAX_FDS])
{
	unsigned n = 0;
	for (unsigned i = 0; i < CONTROL_N_FDS; i++)
		if (c->fd[i] >= 0)
			fds[n++] = c->fd[i];
	for (uint32_t i = 0; i < c->n_disks && i < CONTROL_MAX_DISKS; i++)
		if (!(c->disk[i].flags & CONTROL_DISK_EMPTY))
			fds[n++] = c->disk_fd[i];
	for (uint32_t i = 0; i < c->n_nets && i < CONTROL_MAX_NETS; i++)
		for (unsigned k = 0; k < c->net[i].n_fds && k < CONTROL_MAX_NET_FDS; k++)
			fds[n++] = c->net_fd[i][k];
	for (uint32_t i = 0; i < c->n_fs && i < CONTROL_MAX_FS; i++)
		fds[n++] = c->fs_fd[i];
	return n;
}

void control_config_free(struct control_config *c)
{
	free(c->cmdline);
	close_all(c->fd, CONTROL_N_FDS);
	close_all(c->disk_fd, CONTROL_MAX_DISKS);
	close_all(&c->net_fd[0][0], CONTROL_MAX_NETS * CONTROL_MAX_NET_FDS);
	close_all(c->fs_fd, CONTROL_MAX_FS);
	control_config_init(c);
}

void control_ended_free(struct control_ended *e)
{
	free(e->text);
	free(e->console);
	*e = (struct control_ended){0};
}

int control_send(int sock, const void *p, size_t n, const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * CONTROL_MAX_FDS)];
	} u;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n_fds > CONTROL_MAX_FDS || n > CONTROL_MAX_PACKET) {
		errno = EMSGSIZE;
		return -1;
	}
	if (n_fds) {
		memset(&u, 0, sizeof(u));
		mh.msg_control = u.space;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(cm), fds, sizeof(int) * n_fds);
	}
	ssize_t sent;
	do
		sent = sendmsg(sock, &mh, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -1 : 0;
}

long control_recv(int sock, void *p, size_t max, int *fds, unsigned *n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * CONTROL_MAX_FDS)];
	} u;
	struct iovec iov = {.iov_base = p, .iov_len = max};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.space, .msg_controllen = sizeof(u.space)};
	unsigned room = *n_fds, got = 0;
	bool dropped = false;

	*n_fds = 0;
	ssize_t n;
	do
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -1;
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(&mh); cm; cm = CMSG_NXTHDR(&mh, cm)) {
		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
			if (got < room) {
				fds[got++] = fd;
			} else {
				close(fd);
				dropped = true;
			}
		}
	}
	if (dropped || (mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		close_all(fds, got);
		errno = EMSGSIZE;
		return -1;
	}
	*n_fds = got;
	return (long)n;
}
