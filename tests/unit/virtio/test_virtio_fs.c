/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-fs against a server that the test plays itself, at the other end of the socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/fs.h"
#include "virtio/state.h"

#define RAM   MIB(32)
#define RINGS (BIT(28) | BIT(29)) /* indirect descriptors, event index */
#define HDR   ((uint32_t)sizeof(struct fuse_in_header))
#define OUT   ((uint32_t)sizeof(struct fuse_out_header))

static struct drv d;
static struct virtio_fs *f;
static int server;
static uint8_t msg[VIRTIO_FS_MAX_MESSAGE + 100];

static int setup(void **state)
{
	int sv[2];
	char tag[36] = "data";
	drv_init(&d, RAM);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	f = virtio_fs_create(&d.mem, drv_irq(&d), NULL, sv[0], tag, NULL);
	assert_non_null(f);
	server = sv[1];
	drv_start(&d, virtio_fs_dev(f), RINGS, 2, 128);
	return 0;
}

static int teardown(void **state)
{
	virtio_fs_destroy(f);
	if (server >= 0)
		close(server);
	drv_fini(&d);
	return 0;
}

/* Puts a request with `body` bytes behind its header into queue q; room: bytes for the reply, in pieces. */
static uint64_t ask(unsigned q, uint32_t opcode, uint64_t unique, uint32_t body, uint32_t room, uint32_t piece)
{
	uint64_t in = drv_alloc(&d, HDR + body, 8), out = room ? drv_alloc(&d, room, 8) : 0;
	struct fuse_in_header h = {.len = HDR + body, .opcode = opcode, .unique = unique, .nodeid = 1};
	memcpy(drv_ptr(&d, in, HDR), &h, HDR);
	uint8_t *p = drv_ptr(&d, in + HDR, body);
	for (uint32_t i = 0; i < body; i++)
		p[i] = (uint8_t)(unique + i);
	struct drv_seg seg[128];
	unsigned n = 0;
	for (uint32_t at = 0; at < HDR + body; at += piece)
		seg[n++] = (struct drv_seg){in + at, piece < HDR + body - at ? piece : HDR + body - at, false};
	for (uint32_t at = 0; at < room; at += piece)
		seg[n++] = (struct drv_seg){out + at, piece < room - at ? piece : room - at, true};
	drv_add_indirect(&d, q, seg, n);
	return out;
}

/* What the server got: the header; the body is in msg. */
static struct fuse_in_header heard(void)
{
	struct fuse_in_header h;
	assert_int_equal(recv(server, &h, HDR, MSG_WAITALL), HDR);
	assert_true(h.len >= HDR && h.len <= sizeof(msg));
	if (h.len > HDR)
		assert_int_equal(recv(server, msg, h.len - HDR, MSG_WAITALL), h.len - HDR);
	return h;
}

static void say(uint64_t unique, int32_t error, uint32_t body, uint8_t with)
{
	struct fuse_out_header h = {.len = OUT + body, .error = error, .unique = unique};
	uint8_t *p = malloc(h.len);
	memcpy(p, &h, OUT);
	memset(p + OUT, with, body);
	for (uint32_t at = 0; at < h.len;) {
		ssize_t r = send(server, p + at, h.len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r > 0)
			at += (uint32_t)r;
		virtio_fs_poll(f);
	}
	free(p);
	virtio_fs_poll(f);
}

/* The next finished request of queue q has that reply. */
static void answered(unsigned q, uint64_t out, uint64_t unique, int32_t error, uint32_t len)
{
	uint32_t used;
	struct fuse_out_header h;
	assert_true(drv_used(&d, q, NULL, &used));
	memcpy(&h, drv_ptr(&d, out, OUT), OUT);
	assert_int_equal(h.error, error);
	assert_true(h.unique == unique);
	assert_int_equal(h.len, len);
	assert_int_equal(used, len);
}

static bool silent(unsigned q)
{
	return !drv_used(&d, q, NULL, NULL);
}

static void the_tag_and_one_queue_are_offered(void **state)
{
	assert_int_equal(drv_config(&d, 0, 4), load_le32("data"));
	assert_int_equal(drv_config(&d, 4, 4), 0);
	assert_int_equal(drv_config(&d, offsetof(struct virtio_fs_config, num_request_queues), 4), 1);
}

static void requests_go_out_and_replies_come_back_in_any_order(void **state)
{
	uint64_t a = ask(1, FUSE_GETATTR, 0x1111222233334444, 16, 200, 4096);
	uint64_t b = ask(1, FUSE_READ, 7, 40, OUT + 9000, 1000);
	uint64_t c = ask(0, FUSE_GETATTR, 9, 16, 200, 10);
	drv_notify(&d, 1);
	drv_notify(&d, 0);
	struct fuse_in_header ha = heard();
	assert_int_equal(ha.len, HDR + 16);
	assert_int_equal(ha.opcode, FUSE_GETATTR);
	assert_int_equal(ha.nodeid, 1);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(msg[i], (uint8_t)(0x44 + i));
	struct fuse_in_header hb = heard(), hc = heard();
	assert_true(ha.unique != hb.unique && hb.unique != hc.unique);
	unsigned rises = d.rises;
	say(hb.unique, 0, 9000, 0xab);
	assert_true(d.rises > rises);
	answered(1, b, 7, 0, OUT + 9000);
	const uint8_t *p = drv_ptr(&d, b, OUT + 9000);
	for (unsigned i = 0; i < 9000; i++)
		assert_int_equal(p[OUT + i], 0xab);
	say(ha.unique, -ENOENT, 0, 0);
	answered(1, a, 0x1111222233334444, -ENOENT, OUT);
	say(hc.unique, 0, 100, 1);
	answered(0, c, 9, 0, OUT + 100);
	assert_true(silent(0) && silent(1));
}

static void forgetting_needs_no_reply(void **state)
{
	struct virtio_fs_stats s;
	ask(0, FUSE_FORGET, 3, 8, 0, 4096);
	ask(0, FUSE_BATCH_FORGET, 4, 24, 0, 4096);
	drv_notify(&d, 0);
	assert_true(drv_used(&d, 0, NULL, NULL) && drv_used(&d, 0, NULL, NULL));
	assert_int_equal(heard().opcode, FUSE_FORGET);
	assert_int_equal(heard().opcode, FUSE_BATCH_FORGET);
	virtio_fs_get_stats(f, &s);
	assert_int_equal(s.in_flight, 0);
}

static void large_requests_wait_for_room_and_arrive_whole(void **state)
{
	uint64_t out[8];
	struct virtio_fs_stats s;
	uint8_t *got = malloc(HDR + 40 + 400000);
	for (unsigned i = 0; i < 8; i++)
		out[i] = ask(1, FUSE_WRITE, 100 + i, 40 + 400000, 24, 8192);
	drv_notify(&d, 1);
	/* The guest scribbles over its buffers: what was taken must stay what it was, or at least as long. */
	for (unsigned i = 0; i < 8; i++) {
		uint32_t at = 0, want = HDR + 40 + 400000;
		while (at < want) {
			ssize_t r = recv(server, got + at, want - at, MSG_DONTWAIT);
			if (r > 0)
				at += (uint32_t)r;
			virtio_fs_poll(f);
		}
		struct fuse_in_header h;
		memcpy(&h, got, HDR);
		assert_int_equal(h.len, want);
		for (uint32_t k = 0; k < 40 + 400000; k++)
			assert_int_equal(got[HDR + k], (uint8_t)(100 + i + k));
		say(h.unique, 0, 8, 0);
		answered(1, out[i], 100 + i, 0, OUT + 8);
	}
	free(got);
	virtio_fs_get_stats(f, &s);
	assert_true(s.requests == 8 && s.written_bytes == 8 * 400000);
}

static void large_replies_arrive_in_pieces(void **state)
{
	struct virtio_fs_stats s;
	uint64_t out = ask(1, FUSE_READ, 5, 40, OUT + 491520, 8192);
	drv_notify(&d, 1);
	say(heard().unique, 0, 491520, 0x5a);
	answered(1, out, 5, 0, OUT + 491520);
	const uint8_t *p = drv_ptr(&d, out, OUT + 491520);
	for (unsigned i = 0; i < 491520; i++)
		assert_int_equal(p[OUT + i], 0x5a);
	virtio_fs_get_stats(f, &s);
	assert_true(s.read_bytes == 491520);
}

static void a_server_that_dies_fails_requests_at_once(void **state)
{
	struct virtio_fs_stats s;
	uint64_t a = ask(1, FUSE_GETATTR, 1, 16, 200, 4096), b = ask(1, FUSE_GETATTR, 2, 16, 200, 4096);
	drv_notify(&d, 1);
	uint64_t u = heard().unique;
	struct fuse_out_header half = {.len = OUT + 50, .unique = u};
	send(server, &half, OUT, 0);
	close(server);
	server = -1;
	virtio_fs_poll(f);
	answered(1, a, 1, -ENOTCONN, OUT);
	answered(1, b, 2, -ENOTCONN, OUT);
	uint64_t c = ask(1, FUSE_GETATTR, 3, 16, 200, 4096);
	drv_notify(&d, 1);
	answered(1, c, 3, -ENOTCONN, OUT);
	ask(0, FUSE_FORGET, 4, 8, 0, 4096);
	drv_notify(&d, 0);
	assert_true(drv_used(&d, 0, NULL, NULL));
	virtio_fs_get_stats(f, &s);
	assert_true(!s.connected && s.in_flight == 0);

	int sv[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(virtio_fs_attach(f, sv[0], NULL), 0);
	server = sv[1];
	uint64_t e = ask(1, FUSE_GETATTR, 5, 16, 200, 4096);
	drv_notify(&d, 1);
	say(heard().unique, 0, 10, 0);
	answered(1, e, 5, 0, OUT + 10);
}

static void replies_without_sense_end_the_connection(void **state)
{
	static const struct {
		uint32_t len;
		int32_t error;
		int unique; /* added to the right one */
	} cases[] = {{OUT, 0, 2}, {OUT - 1, 0, 0}, {OUT + 185, 0, 0}, {OUT, 5, 0}, {OUT, -5000, 0}, {OUT + 8, -5, 0}, {OUT, 0, 1}};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t out = ask(1, FUSE_GETATTR, i, 16, 200, 4096);
		drv_notify(&d, 1);
		struct fuse_out_header h = {
			.len = cases[i].len, .error = cases[i].error, .unique = heard().unique + (uint64_t)cases[i].unique};
		assert_int_equal(send(server, &h, OUT, 0), OUT);
		virtio_fs_poll(f);
		answered(1, out, i, -ENOTCONN, OUT);
		close(server);
		int sv[2];
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
		assert_int_equal(virtio_fs_attach(f, sv[0], NULL), 0);
		server = sv[1];
	}
}

static void replies_for_a_driver_that_has_gone_are_dropped(void **state)
{
	ask(1, FUSE_READ, 1, 40, OUT + 100, 4096);
	drv_notify(&d, 1);
	uint64_t u = heard().unique;
	drv_start(&d, virtio_fs_dev(f), RINGS, 2, 128);
	say(u, 0, 100, 0xff);
	assert_true(silent(1));
	uint64_t b = ask(1, FUSE_GETATTR, 2, 16, 200, 4096);
	drv_notify(&d, 1);
	say(heard().unique, 0, 20, 0);
	answered(1, b, 2, 0, OUT + 20);
}

static void a_chain_that_is_no_request_stops_the_device(void **state)
{
	uint64_t a = drv_alloc(&d, 64, 8);
	struct drv_seg seg[] = {{a, HDR - 1, false}, {a, 20, true}};
	drv_add(&d, 1, seg, 2);
	drv_notify(&d, 1);
	assert_true(drv_needs_reset(&d));
}

static void a_request_without_room_for_a_reply_is_not_passed_on(void **state)
{
	uint64_t a = ask(1, FUSE_GETATTR, 1, 16, OUT - 1, 4096);
	uint32_t used;
	(void)a;
	drv_notify(&d, 1);
	assert_true(drv_used(&d, 1, NULL, &used));
	assert_int_equal(used, 0);
	assert_int_equal(recv(server, msg, 1, MSG_DONTWAIT), -1);
}

static void draining_waits_for_replies(void **state)
{
	uint64_t a = ask(1, FUSE_GETATTR, 1, 16, 200, 4096);
	assert_true(virtio_fs_drain(f, 0));
	drv_notify(&d, 1);
	assert_false(virtio_fs_drain(f, 10));
	struct fuse_out_header h = {.len = OUT, .unique = heard().unique};
	assert_int_equal(send(server, &h, OUT, 0), OUT);
	assert_true(virtio_fs_drain(f, 1000));
	answered(1, a, 1, 0, OUT);
}

static struct virtio_fs *another(int *peer)
{
	int sv[2];
	char tag[36] = "data";
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	struct virtio_fs *g = virtio_fs_create(&d.mem, drv_irq(&d), NULL, sv[0], tag, NULL);
	assert_non_null(g);
	*peer = sv[1];
	return g;
}

/* Answers requests of the monitor's own: parts 1 to n of a state on the way out, OK on the way in. What came in is in `got`. */
struct own {
	int sock;
	unsigned parts;
	char got[256];
	unsigned n_got;
	uint64_t how[8];
};

static void *serve_own(void *ctx)
{
	struct own *o = ctx;
	struct fuse_in_header h;
	while (recv(o->sock, &h, HDR, MSG_WAITALL) == (ssize_t)HDR) {
		uint8_t body[256];
		if (h.len > HDR && recv(o->sock, body, h.len - HDR, MSG_WAITALL) != (ssize_t)(h.len - HDR))
			return NULL;
		struct {
			struct fuse_out_header h;
			uint64_t next;
			char text[8];
		} out = {.h = {.len = OUT, .unique = h.unique}};
		if (h.opcode == VIRTIO_FS_OP_SAVE) {
			out.h.len = OUT + 16;
			out.next = h.nodeid + 1 < o->parts ? h.nodeid + 1 : 0;
			snprintf(out.text, sizeof(out.text), "part %u", (unsigned)h.nodeid);
		} else {
			memcpy(o->got + strlen(o->got), body, h.len - HDR);
			o->how[o->n_got++] = h.nodeid;
		}
		send(o->sock, &out, out.h.len, MSG_NOSIGNAL);
	}
	return NULL;
}

static void the_servers_state_goes_with_a_snapshot(void **state)
{
	struct own from = {.sock = server, .parts = 3}, to = {.sock = -1};
	struct buf b = {0};
	struct cai_error err;
	pthread_t t;
	assert_int_equal(pthread_create(&t, NULL, serve_own, &from), 0);
	assert_int_equal(virtio_dev_save(virtio_fs_dev(f), &b, &err), 0);
	shutdown(server, SHUT_RDWR);
	pthread_join(t, NULL);

	struct virtio_fs *g = another(&to.sock);
	struct buf_reader r = buf_reader(b.p, b.len);
	assert_int_equal(virtio_dev_load(virtio_fs_dev(g), &r, &err), 0);
	assert_int_equal(pthread_create(&t, NULL, serve_own, &to), 0);
	virtio_dev_resume(virtio_fs_dev(g));
	shutdown(to.sock, SHUT_RDWR);
	pthread_join(t, NULL);
	assert_int_equal(to.n_got, 3);
	assert_true(to.how[0] == VIRTIO_FS_LOAD_FIRST && to.how[1] == 0 && to.how[2] == VIRTIO_FS_LOAD_LAST);
	assert_memory_equal(to.got, "part 0", 6);
	virtio_fs_destroy(g);
	close(to.sock);

	/* Every cut is refused, and so is another tag. */
	for (size_t n = 0; n < b.len; n++) {
		int peer;
		g = another(&peer);
		uint8_t *p = malloc(n + 1);
		memcpy(p, b.p, n);
		r = buf_reader(p, n);
		assert_int_equal(virtio_dev_load(virtio_fs_dev(g), &r, &err), -1);
		free(p);
		virtio_fs_destroy(g);
		close(peer);
	}
	buf_free(&b);
}

static void what_the_server_has_not_answered_fails_after_a_restore(void **state)
{
	struct buf b = {0};
	struct cai_error err;
	int peer;
	uint64_t out = ask(1, FUSE_READ, 42, 40, OUT + 9000, 1000);
	drv_notify(&d, 1);
	heard();
	assert_int_equal(virtio_dev_save(virtio_fs_dev(f), &b, &err), 0);
	struct virtio_fs *g = another(&peer);
	struct buf_reader r = buf_reader(b.p, b.len);
	assert_int_equal(virtio_dev_load(virtio_fs_dev(g), &r, &err), 0);
	virtio_dev_resume(virtio_fs_dev(g));
	answered(1, out, 42, -EIO, OUT);
	virtio_fs_destroy(g);
	close(peer);
	/* A buffer outside of memory. */
	for (size_t at = 0; at + 8 <= b.len; at++) {
		if (load_le64(b.p + at) != out)
			continue;
		store_le64(b.p + at, RAM);
		g = another(&peer);
		r = buf_reader(b.p, b.len);
		assert_int_equal(virtio_dev_load(virtio_fs_dev(g), &r, &err), -1);
		virtio_fs_destroy(g);
		close(peer);
		break;
	}
	buf_free(&b);
}

static void a_guest_cannot_ask_for_the_servers_state(void **state)
{
	uint64_t a = ask(1, VIRTIO_FS_OP_SAVE, 1, 0, 4096, 4096), b = ask(1, VIRTIO_FS_OP_LOAD, 2, 0, 4096, 4096);
	drv_notify(&d, 1);
	answered(1, a, 1, -EIO, OUT);
	answered(1, b, 2, -EIO, OUT);
	assert_int_equal(recv(server, msg, 1, MSG_DONTWAIT), -1);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_tag_and_one_queue_are_offered),
		T(requests_go_out_and_replies_come_back_in_any_order),
		T(forgetting_needs_no_reply),
		T(large_requests_wait_for_room_and_arrive_whole),
		T(large_replies_arrive_in_pieces),
		T(a_server_that_dies_fails_requests_at_once),
		T(replies_without_sense_end_the_connection),
		T(replies_for_a_driver_that_has_gone_are_dropped),
		T(a_chain_that_is_no_request_stops_the_device),
		T(a_request_without_room_for_a_reply_is_not_passed_on),
		T(draining_waits_for_replies),
		T(the_servers_state_goes_with_a_snapshot),
		T(what_the_server_has_not_answered_fails_after_a_restore),
		T(a_guest_cannot_ask_for_the_servers_state),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
