/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-vsock between real Unix sockets and a guest's side played here, packet by packet. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/vsock.h"

#define RAM      (32u << 20)
#define RING     (BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))
#define RX_BUFS  64u
#define RX_LEN   4096u
#define HDR      ((uint32_t)sizeof(struct virtio_vsock_hdr))
#define GUEST_BUF (256u << 10)

enum { RX, TX, EVENT };

static struct drv d;
static struct virtio_vsock *v;
static struct sockaddr_un addr;
static unsigned announced;
static uint64_t rx_buf, tx_buf;
static unsigned ready_calls;

static void on_ready(void *ctx)
{
	ready_calls++;
}

static void give_rx(uint64_t gpa)
{
	struct drv_seg seg = {gpa, RX_LEN, true};
	drv_add(&d, RX, &seg, 1);
}

/* Brings the guest's driver up with n rx buffers. */
static void guest_up(unsigned n)
{
	drv_start(&d, virtio_vsock_dev(v), RING, 3, RX_BUFS);
	for (unsigned i = 0; i < n; i++)
		give_rx(rx_buf + i * RX_LEN);
	drv_notify(&d, RX);
}

static int setup(void **state)
{
	struct cai_error err;
	drv_init(&d, RAM);
	rx_buf = drv_alloc(&d, RX_BUFS * RX_LEN, 4096);
	tx_buf = drv_alloc(&d, 512 << 10, 4096);
	addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "virtio-vsock-test-%d", (int)getpid()); /* abstract */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1024), 0);
	ready_calls = announced = 0;
	v = virtio_vsock_create(&d.mem, drv_irq(&d), NULL, fd, on_ready, NULL, &err);
	assert_non_null(v);
	return 0;
}

static int teardown(void **state)
{
	virtio_vsock_destroy(v);
	drv_fini(&d);
	return 0;
}

/* -- the guest's side -- */

struct packet {
	struct virtio_vsock_hdr h;
	uint64_t data;  /* where the payload is */
	uint64_t buf;
};

/* Takes the next packet for the guest without giving its buffer back; false when there is none. */
static bool guest_take(struct packet *k)
{
	uint16_t head;
	uint32_t len;
	virtio_vsock_poll(v);
	drv_ack(&d);
	if (!drv_used(&d, RX, &head, &len))
		return false;
	struct vring_desc desc;
	memcpy(&desc, drv_ptr(&d, d.q[RX].desc + 16 * head, 16), 16);
	k->buf = desc.addr;
	k->data = desc.addr + HDR;
	memcpy(&k->h, drv_ptr(&d, desc.addr, HDR), HDR);
	assert_int_equal(len, HDR + k->h.len);
	assert_int_equal(k->h.dst_cid, 3);
	return true;
}

static void guest_return(const struct packet *k)
{
	give_rx(k->buf);
	drv_notify(&d, RX);
}

/* Takes a packet that must be there and have this op; its buffer goes back at once. */
static struct packet expect(uint16_t op)
{
	struct packet k;
	if (!guest_take(&k))
		fail_msg("no packet where op %u should come", op);
	if (k.h.op != op)
		fail_msg("op %u instead of %u", k.h.op, op);
	guest_return(&k);
	return k;
}

static void expect_silence(void)
{
	struct packet k;
	if (guest_take(&k))
		fail_msg("op %u where nothing should come", k.h.op);
}

static void guest_send_raw(const struct virtio_vsock_hdr *h, const void *data, uint32_t n)
{
	memcpy(drv_ptr(&d, tx_buf, HDR), h, HDR);
	if (n)
		memcpy(drv_ptr(&d, tx_buf + HDR, n), data, n);
	struct drv_seg seg[] = {{tx_buf, HDR, false}, {tx_buf + HDR, n, false}};
	drv_add(&d, TX, seg, n ? 2 : 1);
	drv_notify(&d, TX);
	drv_ack(&d);
	if (!drv_needs_reset(&d))
		assert_true(drv_used(&d, TX, NULL, NULL));
}

struct peer {
	uint32_t host_port, guest_port;
	uint32_t fwd_cnt;
};

static void guest_send(const struct peer *p, uint16_t op, uint32_t flags, const void *data, uint32_t n)
{
	struct virtio_vsock_hdr h = {.src_cid = 3, .dst_cid = 2, .src_port = p->guest_port, .dst_port = p->host_port, .len = n,
				     .type = VIRTIO_VSOCK_TYPE_STREAM, .op = op, .flags = flags, .buf_alloc = GUEST_BUF,
				     .fwd_cnt = p->fwd_cnt};
	guest_send_raw(&h, data, n);
}

static void announce(void)
{
	struct peer p = {.host_port = VIRTIO_VSOCK_READY_PORT, .guest_port = 5000 + announced++};
	guest_send(&p, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	struct packet k = expect(VIRTIO_VSOCK_OP_RESPONSE);
	assert_int_equal(k.h.src_port, VIRTIO_VSOCK_READY_PORT);
	assert_int_equal(k.h.dst_port, p.guest_port);
}

static void announce_and_close(void)
{
	announce();
	struct peer p = {.host_port = VIRTIO_VSOCK_READY_PORT, .guest_port = 5000 + announced - 1};
	guest_send(&p, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_RST).h.dst_port, p.guest_port);
}

/* -- the host's side -- */

static int client(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int client_connect(unsigned port)
{
	int fd = client();
	dprintf(fd, "CONNECT %u\n", port);
	virtio_vsock_poll(v); /* accept */
	virtio_vsock_poll(v); /* read the line */
	return fd;
}

static bool closed(int fd)
{
	char c;
	virtio_vsock_poll(v);
	ssize_t n = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	return n == 0 || (n < 0 && errno != EAGAIN);
}

static void host_expect(int fd, const char *text)
{
	char buf[256] = "";
	assert_int_equal(read(fd, buf, sizeof(buf) - 1), strlen(text));
	assert_string_equal(buf, text);
}

/* An open connection to guest port `port`. */
static int open_conn(struct peer *p, unsigned port)
{
	int fd = client_connect(port);
	struct packet k = expect(VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(k.h.dst_port, port);
	assert_int_equal(k.h.src_cid, 2);
	*p = (struct peer){.host_port = k.h.src_port, .guest_port = port};
	guest_send(p, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	char line[32];
	snprintf(line, sizeof(line), "OK %u\n", p->host_port);
	host_expect(fd, line);
	return fd;
}

static struct virtio_vsock_stats stats(void)
{
	struct virtio_vsock_stats s;
	virtio_vsock_get_stats(v, &s);
	return s;
}

/* -- tests -- */

static void the_guest_is_cid_3(void **state)
{
	d.dev = virtio_vsock_dev(v);
	assert_int_equal(drv_config(&d, 0, 8), 3);
	assert_int_equal(drv_read(&d, VIRTIO_MMIO_DEVICE_ID), 19);
}

static void a_stream_goes_both_ways(void **state)
{
	struct peer p;
	guest_up(RX_BUFS);
	announce_and_close();
	assert_int_equal(ready_calls, 1);
	int fd = open_conn(&p, 1024);
	assert_int_equal(write(fd, "ping", 4), 4);
	struct packet k = expect(VIRTIO_VSOCK_OP_RW);
	assert_int_equal(k.h.len, 4);
	assert_memory_equal(drv_ptr(&d, k.data, 4), "ping", 4);
	guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, "pong!", 5);
	host_expect(fd, "pong!");
	/* the host closes: told, and gone when the guest resets */
	close(fd);
	virtio_vsock_poll(v);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_SHUTDOWN).h.flags, 3);
	expect_silence();
	assert_int_equal(stats().conns, 1);
	guest_send(&p, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	assert_int_equal(stats().conns, 0);
	expect_silence();
}

static void clients_wait_for_driver_and_agent(void **state)
{
	int a = client_connect(7), b = client();
	dprintf(b, "CONN");
	virtio_vsock_poll(v);
	virtio_vsock_poll(v);
	dprintf(b, "ECT 8\nearly data");
	virtio_vsock_poll(v);
	assert_int_equal(stats().waiting, 2);
	guest_up(RX_BUFS);
	expect_silence();
	announce();
	assert_int_equal(ready_calls, 1);
	struct packet ka = expect(VIRTIO_VSOCK_OP_REQUEST), kb = expect(VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(ka.h.dst_port, 7);
	assert_int_equal(kb.h.dst_port, 8);
	expect_silence(); /* no data before the guest has accepted */
	struct peer pb = {.host_port = kb.h.src_port, .guest_port = 8};
	guest_send(&pb, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	struct packet k = expect(VIRTIO_VSOCK_OP_RW);
	assert_int_equal(k.h.len, 10);
	assert_memory_equal(drv_ptr(&d, k.data, 10), "early data", 10);
	/* the other is refused */
	struct peer pa = {.host_port = ka.h.src_port, .guest_port = 7};
	guest_send(&pa, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	assert_true(closed(a));
	close(a);
	close(b);
}

static void too_many_waiting_are_refused(void **state)
{
	int fd[VIRTIO_VSOCK_MAX_WAITING + 1];
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++)
		fd[i] = client_connect(9);
	assert_int_equal(stats().waiting, VIRTIO_VSOCK_MAX_WAITING);
	assert_true(closed(fd[VIRTIO_VSOCK_MAX_WAITING]));
	assert_false(closed(fd[0]));
	for (unsigned i = 0; i < ARRAY_LEN(fd); i++)
		close(fd[i]);
	for (unsigned i = 0; i < 6; i++)
		virtio_vsock_poll(v);
	assert_int_equal(stats().conns, 0);
	assert_int_equal(stats().waiting, 0);
}

static void malformed_greetings_are_closed(void **state)
{
	static const char *const lines[] = {"CONNECT \n", "CONNECT 12x\n", "connect 12\n", "CONNECT -1\n", "CONNECT 4294967295\n",
					    "CONNECT 99999999999\n", "\n", "CONNECT 12 \n", "CONNECT  12\n",
					    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "GET / HTTP/1.1\r\n"};
	for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
		int fd = client();
		assert_int_equal(write(fd, lines[i], strlen(lines[i])), strlen(lines[i]));
		virtio_vsock_poll(v);
		virtio_vsock_poll(v);
		if (!closed(fd))
			fail_msg("accepted: %s", lines[i]);
		close(fd);
	}
	int half = client();
	dprintf(half, "CONN");
	virtio_vsock_poll(v);
	shutdown(half, SHUT_WR);
	virtio_vsock_poll(v);
	assert_true(closed(half));
	close(half);
	assert_int_equal(stats().conns, 0);
}

static void other_ports_and_strange_packets_are_refused(void **state)
{
	guest_up(RX_BUFS);
	struct virtio_vsock_hdr ok = {.src_cid = 3, .dst_cid = 2, .src_port = 77, .dst_port = 22, .type = 1,
				      .op = VIRTIO_VSOCK_OP_REQUEST};
	struct virtio_vsock_hdr h = ok;
	guest_send_raw(&h, NULL, 0);
	struct packet k = expect(VIRTIO_VSOCK_OP_RST);
	assert_int_equal(k.h.src_port, 22);
	assert_int_equal(k.h.dst_port, 77);
	h = ok;
	h.dst_cid = 4242; /* another host */
	guest_send_raw(&h, NULL, 0);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_RST).h.src_cid, 4242);
	h = ok;
	h.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	h.dst_port = VIRTIO_VSOCK_READY_PORT;
	guest_send_raw(&h, NULL, 0);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_RST).h.type, VIRTIO_VSOCK_TYPE_SEQPACKET);
	h = ok;
	h.src_cid = 9; /* a lie about itself */
	guest_send_raw(&h, NULL, 0);
	expect_silence();
	h = ok;
	h.op = VIRTIO_VSOCK_OP_RST; /* never answered */
	guest_send_raw(&h, NULL, 0);
	expect_silence();
	h = ok;
	h.op = VIRTIO_VSOCK_OP_RW; /* of no connection */
	h.dst_port = 0x40000000;
	guest_send_raw(&h, NULL, 0);
	expect(VIRTIO_VSOCK_OP_RST);
	assert_int_equal(ready_calls, 0);
	h = ok;
	h.len = 1; /* longer than the chain */
	guest_send_raw(&h, NULL, 0);
	assert_true(drv_needs_reset(&d));
}

static void unknown_ops_reset_the_connection(void **state)
{
	static const uint16_t ops[] = {0, VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, 8, 0xffff};
	guest_up(RX_BUFS);
	announce_and_close();
	for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
		struct peer p;
		int fd = open_conn(&p, 100 + i);
		guest_send(&p, ops[i], 0, NULL, 0);
		expect(VIRTIO_VSOCK_OP_RST);
		assert_true(closed(fd));
		close(fd);
	}
	assert_int_equal(stats().conns, 0);
}

static void half_close_by_the_host(void **state)
{
	struct peer p;
	guest_up(RX_BUFS);
	announce_and_close();
	int fd = open_conn(&p, 1);
	assert_int_equal(write(fd, "all", 3), 3);
	shutdown(fd, SHUT_WR);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_RW).h.len, 3);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_SHUTDOWN).h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, "answer", 6);
	host_expect(fd, "answer");
	guest_send(&p, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
	expect(VIRTIO_VSOCK_OP_RST);
	assert_true(closed(fd));
	assert_int_equal(stats().conns, 0);
	close(fd);
}

static void half_close_by_the_guest(void **state)
{
	struct peer p;
	guest_up(RX_BUFS);
	announce_and_close();
	int fd = open_conn(&p, 1);
	guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, "last", 4);
	guest_send(&p, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
	host_expect(fd, "last");
	char c;
	assert_int_equal(read(fd, &c, 1), 0); /* end of stream */
	assert_int_equal(write(fd, "more", 4), 4);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_RW).h.len, 4);
	/* sending after one's own end of stream is an offence */
	guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, "x", 1);
	expect(VIRTIO_VSOCK_OP_RST);
	close(fd);

	fd = open_conn(&p, 2);
	guest_send(&p, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_RCV, NULL, 0);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, "still", 5);
	host_expect(fd, "still");
	expect_silence();
	close(fd);
}

static void what_the_guest_sent_survives_its_end(void **state)
{
	for (int by_reset = 0; by_reset < 2; by_reset++) {
		struct peer p;
		guest_up(RX_BUFS);
		announce_and_close();
		int fd = open_conn(&p, 3);
		int small = 4096;
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		static uint8_t block[32768], back[32768];
		for (unsigned i = 0; i < sizeof(block); i++)
			block[i] = (uint8_t)(i * 31 + i / 256);
		for (unsigned i = 0; i < 8; i++)
			guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, block, sizeof(block));
		if (by_reset)
			guest_send(&p, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
		else
			guest_send(&p, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
		struct packet k;
		while (guest_take(&k))
			guest_return(&k);
		size_t total = 0;
		for (;;) {
			ssize_t n = read(fd, back, sizeof(back));
			if (n < 0 && errno == EAGAIN) {
				virtio_vsock_poll(v);
				continue;
			}
			assert_true(n >= 0);
			if (!n)
				break;
			for (ssize_t i = 0; i < n; i++)
				assert_int_equal(back[i], block[(total + (size_t)i) % sizeof(block)]);
			total += (size_t)n;
		}
		assert_int_equal(total, 8 * sizeof(block));
		assert_int_equal(stats().conns, 0);
		close(fd);
	}
}

static void a_guest_that_exceeds_its_credit_is_reset(void **state)
{
	struct peer p;
	static uint8_t block[65536];
	guest_up(RX_BUFS);
	announce_and_close();
	int fd = open_conn(&p, 3);
	unsigned sent = 0;
	struct packet k = {0};
	/* nobody reads: at most the socket's buffer and our ring are taken */
	for (; sent < 100; sent++) {
		guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, block, sizeof(block));
		bool rst = false;
		while (guest_take(&k)) {
			rst |= k.h.op == VIRTIO_VSOCK_OP_RST;
			guest_return(&k);
		}
		if (rst)
			break;
	}
	assert_in_range(sent, 4, 12);
	assert_int_equal(stats().conns, 0);
	close(fd);
}

static void credit_comes_back_as_the_client_reads(void **state)
{
	struct peer p;
	static uint8_t block[65536], back[65536];
	guest_up(RX_BUFS);
	announce_and_close();
	int fd = open_conn(&p, 3);
	uint32_t tx = 0, fwd = 0;
	uint64_t got = 0;
	/* a guest that keeps to its credit, and a slow client: 8 MiB arrive, whole */
	while (got < 8u << 20) {
		if (tx - fwd + sizeof(block) <= VIRTIO_VSOCK_BUF_BYTES && tx < 8u << 20) {
			for (unsigned i = 0; i < sizeof(block); i++)
				block[i] = (uint8_t)((tx + i) * 5 + (tx + i) / 1000);
			guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, block, sizeof(block));
			tx += sizeof(block);
		} else {
			ssize_t n = read(fd, back, 10000);
			for (ssize_t i = 0; i < n; i++)
				assert_int_equal(back[i], (uint8_t)((got + (uint64_t)i) * 5 + (got + (uint64_t)i) / 1000));
			got += n > 0 ? (uint64_t)n : 0;
		}
		struct packet k;
		while (guest_take(&k)) {
			assert_int_equal(k.h.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
			fwd = k.h.fwd_cnt;
			guest_return(&k);
		}
	}
	guest_send(&p, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, NULL, 0);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE).h.fwd_cnt, tx);
	close(fd);
}

static void the_guests_credit_is_kept(void **state)
{
	struct peer p;
	static uint8_t block[65536];
	guest_up(RX_BUFS);
	announce_and_close();
	int fd = open_conn(&p, 3);
	uint32_t got = 0;
	bool asked = false;
	struct packet k;
	for (unsigned i = 0; i < 200; i++) {
		ssize_t n = write(fd, block, sizeof(block));
		(void)n;
		while (guest_take(&k)) {
			if (k.h.op == VIRTIO_VSOCK_OP_RW)
				got += k.h.len;
			asked |= k.h.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST;
			guest_return(&k);
		}
	}
	assert_int_equal(got, GUEST_BUF);
	assert_true(asked);
	p.fwd_cnt = 5000;
	guest_send(&p, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	while (guest_take(&k)) {
		got += k.h.op == VIRTIO_VSOCK_OP_RW ? k.h.len : 0;
		guest_return(&k);
	}
	assert_int_equal(got, GUEST_BUF + 5000);
	/* nonsense must not open the tap */
	p.fwd_cnt = got + 1;
	guest_send(&p, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	while (guest_take(&k)) {
		assert_int_not_equal(k.h.op, VIRTIO_VSOCK_OP_RW);
		guest_return(&k);
	}
	close(fd);
}

static void many_small_packets_are_held_back(void **state)
{
	struct peer p;
	guest_up(RX_BUFS);
	announce_and_close();
	int fd = open_conn(&p, 3);
	unsigned packets = 0;
	struct packet k;
	for (unsigned i = 0; i < 250; i++) {
		assert_int_equal(write(fd, "x", 1), 1);
		while (guest_take(&k)) {
			packets += k.h.op == VIRTIO_VSOCK_OP_RW;
			p.fwd_cnt += k.h.len; /* not told yet */
			guest_return(&k);
		}
	}
	assert_in_range(packets, 100, 128);
	guest_send(&p, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	while (guest_take(&k)) {
		packets += k.h.op == VIRTIO_VSOCK_OP_RW;
		p.fwd_cnt += k.h.len;
		guest_return(&k);
	}
	assert_int_equal(p.fwd_cnt, 250);
	assert_in_range(packets, 101, 129); /* the rest in one */
	close(fd);
}

static void without_rx_buffers_nothing_is_read_or_lost(void **state)
{
	struct peer p;
	guest_up(8); /* few */
	announce_and_close();
	int fd = open_conn(&p, 3);
	struct packet k[8], extra;
	static uint8_t block[4096];
	size_t written = 0, got = 0;
	for (unsigned i = 0; i < 500; i++) {
		ssize_t n = write(fd, block, sizeof(block));
		written += n > 0 ? (size_t)n : 0;
		virtio_vsock_poll(v);
	}
	assert_true(written < 500 * sizeof(block)); /* the client feels it */
	for (unsigned i = 0; i < 8; i++)
		assert_true(guest_take(&k[i]));
	expect_silence();
	for (unsigned i = 0; i < 8; i++) {
		got += k[i].h.len;
		give_rx(k[i].buf);
	}
	drv_notify(&d, RX);
	while (guest_take(&extra)) {
		got += extra.h.op == VIRTIO_VSOCK_OP_RW ? extra.h.len : 0;
		if (extra.h.op == VIRTIO_VSOCK_OP_RW) {
			p.fwd_cnt = (uint32_t)got;
			guest_send(&p, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
		}
		guest_return(&extra);
	}
	assert_int_equal(got, written);
	close(fd);
}

static void a_guest_that_never_resets_loses_the_connection_anyway(void **state)
{
	struct peer p;
	guest_up(RX_BUFS);
	announce_and_close();
	int fd = open_conn(&p, 3);
	close(fd);
	virtio_vsock_poll(v);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_SHUTDOWN).h.flags, 3);
	uint64_t start = clock_mono_ns();
	struct packet k;
	while (!guest_take(&k))
		usleep(50000);
	assert_int_equal(k.h.op, VIRTIO_VSOCK_OP_RST);
	assert_in_range(clock_mono_ns() - start, 7000000000ull, 12000000000ull);
	assert_int_equal(stats().conns, 0);
}

static unsigned open_fds(void)
{
	unsigned n = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void thousands_of_connections_leak_nothing(void **state)
{
	guest_up(RX_BUFS);
	announce_and_close();
	unsigned fds = open_fds();
	uint32_t ports[3] = {0};
	for (unsigned i = 0; i < 6000; i++) {
		struct peer p;
		int fd = open_conn(&p, 3);
		for (unsigned j = 0; j < 3; j++)
			assert_int_not_equal(ports[j], p.host_port); /* a port does not come back soon */
		ports[i % 3] = p.host_port;
		switch (i % 4) {
		case 0: /* the guest ends it */
			guest_send(&p, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
			expect(VIRTIO_VSOCK_OP_RST);
			break;
		case 1:
			guest_send(&p, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
			break;
		case 2: /* the host ends it, with data on the way */
			assert_int_equal(write(fd, "bye", 3), 3);
			close(fd);
			fd = -1;
			virtio_vsock_poll(v);
			for (struct packet k; guest_take(&k);)
				guest_return(&k);
			guest_send(&p, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
			break;
		default: /* both at once */
			close(fd);
			fd = -1;
			guest_send(&p, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
			for (struct packet k; guest_take(&k);)
				guest_return(&k);
		}
		if (fd >= 0) {
			assert_true(closed(fd));
			close(fd);
		}
	}
	assert_int_equal(stats().conns, 0);
	assert_int_equal(stats().opened, 6001 - 1);
	assert_int_equal(open_fds(), fds);
}

static void a_driver_reset_closes_what_was_open(void **state)
{
	struct peer p;
	guest_up(RX_BUFS);
	announce_and_close();
	int open = open_conn(&p, 3), connecting = client_connect(4);
	expect(VIRTIO_VSOCK_OP_REQUEST);
	drv_write(&d, VIRTIO_MMIO_STATUS, 0);
	assert_true(closed(open));
	assert_true(closed(connecting));
	assert_int_equal(stats().conns, 0);
	int later = client_connect(5); /* waits for the next agent */
	assert_int_equal(stats().waiting, 1);
	guest_up(RX_BUFS);
	announce();
	assert_int_equal(expect(VIRTIO_VSOCK_OP_REQUEST).h.dst_port, 5);
	assert_int_equal(ready_calls, 2);
	close(open);
	close(connecting);
	close(later);
}

static void clients_that_give_up_are_forgotten(void **state)
{
	guest_up(RX_BUFS);
	int waiting = client_connect(6);
	close(waiting);
	virtio_vsock_poll(v);
	assert_int_equal(stats().conns, 0);
	announce_and_close();
	expect_silence();
	int connecting = client_connect(6);
	struct packet k = expect(VIRTIO_VSOCK_OP_REQUEST);
	close(connecting);
	virtio_vsock_poll(v);
	assert_int_equal(expect(VIRTIO_VSOCK_OP_RST).h.src_port, k.h.src_port);
	assert_int_equal(stats().conns, 0);
}

static void the_monitor_may_open_a_connection_itself(void **state)
{
	struct cai_error err;
	int sv[2], pipes[2];
	guest_up(RX_BUFS);
	announce_and_close();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(virtio_vsock_open(v, 1024, sv[0], &err), 0);
	struct packet k = expect(VIRTIO_VSOCK_OP_REQUEST);
	struct peer p = {.host_port = k.h.src_port, .guest_port = 1024};
	guest_send(&p, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	guest_send(&p, VIRTIO_VSOCK_OP_RW, 0, "hi", 2);
	host_expect(sv[1], "hi"); /* and no line before it */
	close(sv[1]);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(virtio_vsock_open(v, 1024, pipes[0], &err), -1);
	close(pipes[0]);
	close(pipes[1]);
}

static void at_most_1024_connections_are_taken(void **state)
{
	struct cai_error err;
	int sv[2];
	guest_up(RX_BUFS);
	announce(); /* one */
	for (unsigned i = 1; i < VIRTIO_VSOCK_MAX_CONNS; i++) {
		/* connections without a socket are only made by the guest; these share one pair's worth of descriptors */
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
		if (virtio_vsock_open(v, 1, sv[0], &err) < 0) {
			close(sv[0]);
			close(sv[1]);
			fail_msg("connection %u: %s", i, err.text);
		}
		close(sv[1]);
	}
	assert_int_equal(stats().conns, VIRTIO_VSOCK_MAX_CONNS);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(virtio_vsock_open(v, 1, sv[0], &err), -1);
	close(sv[0]);
	close(sv[1]);
}

/* A whole machine in small: a loop thread, a vCPU thread that echoes, and a client that checks. */
struct echo {
	struct peer p;
	_Atomic bool stop;
	bool up;
};

static void *echo_guest(void *arg)
{
	struct echo *e = arg;
	static uint8_t data[RX_LEN];
	uint32_t seen = 0, fwd = 0, sent = 0;
	while (!e->stop) {
		uint16_t head;
		uint32_t len;
		drv_ack(&d);
		if (!drv_used(&d, RX, &head, &len)) {
			usleep(20);
			continue;
		}
		struct vring_desc desc;
		struct virtio_vsock_hdr h;
		memcpy(&desc, drv_ptr(&d, d.q[RX].desc + 16 * head, 16), 16);
		memcpy(&h, drv_ptr(&d, desc.addr, HDR), HDR);
		memcpy(data, drv_ptr(&d, desc.addr + HDR, h.len), h.len);
		give_rx(desc.addr);
		drv_notify(&d, RX);
		seen = h.fwd_cnt;
		if (h.op == VIRTIO_VSOCK_OP_REQUEST) {
			e->p = (struct peer){.host_port = h.src_port, .guest_port = h.dst_port};
			guest_send(&e->p, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
		} else if (h.op == VIRTIO_VSOCK_OP_RW) {
			e->p.fwd_cnt = fwd += h.len;
			guest_send(&e->p, VIRTIO_VSOCK_OP_RW, 0, data, h.len);
			sent += h.len;
		} else if (h.op == VIRTIO_VSOCK_OP_SHUTDOWN) {
			guest_send(&e->p, VIRTIO_VSOCK_OP_SHUTDOWN, 3, NULL, 0);
		}
		if (sent - seen > VIRTIO_VSOCK_BUF_BYTES)
			abort();
	}
	return NULL;
}

static void *run_loop(void *arg)
{
	struct cai_error err;
	loop_run(arg, &err);
	return NULL;
}

static void vcpu_and_loop_threads_work_together(void **state)
{
	struct cai_error err;
	struct loop *l = loop_new(&err);
	virtio_vsock_destroy(v);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	addr.sun_path[1] = 'V';
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 16), 0);
	v = virtio_vsock_create(&d.mem, drv_irq(&d), l, fd, on_ready, NULL, &err);
	assert_non_null(v);
	guest_up(RX_BUFS);
	announce_and_close();

	struct echo e = {0};
	pthread_t loop_thread, guest_thread;
	pthread_create(&loop_thread, NULL, run_loop, l);
	pthread_create(&guest_thread, NULL, echo_guest, &e);

	int c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(c, (struct sockaddr *)&addr, sizeof(addr)), 0);
	dprintf(c, "CONNECT 80\n");
	char line[64];
	unsigned n = 0;
	while (n < sizeof(line) - 1 && read(c, line + n, 1) == 1 && line[n] != '\n')
		n++;
	assert_memory_equal(line, "OK ", 3);
	static uint8_t out[48 << 10], in[48 << 10];
	for (unsigned i = 0; i < 200; i++) {
		memset(out, (int)i, sizeof(out));
		assert_int_equal(write(c, out, sizeof(out)), sizeof(out));
		for (size_t got = 0; got < sizeof(in);) {
			ssize_t r = read(c, in + got, sizeof(in) - got);
			assert_true(r > 0);
			got += (size_t)r;
		}
		assert_memory_equal(in, out, sizeof(in));
	}
	shutdown(c, SHUT_WR);
	assert_int_equal(read(c, in, 1), 0);
	close(c);
	e.stop = true;
	pthread_join(guest_thread, NULL);
	loop_stop(l);
	pthread_join(loop_thread, NULL);
	virtio_vsock_destroy(v);
	v = NULL;
	loop_free(l);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_guest_is_cid_3),
		T(a_stream_goes_both_ways),
		T(clients_wait_for_driver_and_agent),
		T(too_many_waiting_are_refused),
		T(malformed_greetings_are_closed),
		T(other_ports_and_strange_packets_are_refused),
		T(unknown_ops_reset_the_connection),
		T(half_close_by_the_host),
		T(half_close_by_the_guest),
		T(what_the_guest_sent_survives_its_end),
		T(a_guest_that_exceeds_its_credit_is_reset),
		T(credit_comes_back_as_the_client_reads),
		T(the_guests_credit_is_kept),
		T(many_small_packets_are_held_back),
		T(without_rx_buffers_nothing_is_read_or_lost),
		T(a_guest_that_never_resets_loses_the_connection_anyway),
		T(thousands_of_connections_leak_nothing),
		T(a_driver_reset_closes_what_was_open),
		T(clients_that_give_up_are_forgotten),
		T(the_monitor_may_open_a_connection_itself),
		T(at_most_1024_connections_are_taken),
		T(vcpu_and_loop_threads_work_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
