/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net over socket pairs, and over a real tap in a network namespace of its own where the host allows one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/net.h"

#define RAM     (32u << 20)
#define RING    (BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))
#define MRG     BIT(VIRTIO_NET_F_MRG_RXBUF)
#define BASE    (RING | MRG | BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS))
#define MQ      (BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ))
#define HDR     12u
#define RX_LEN  1526u
#define TX_MAX  70000u

static struct drv d;
static struct virtio_net *n;
static uint64_t rx_area, tx_area, rx_next;
static uint8_t frame[TX_MAX], got[TX_MAX + 64];

static const uint8_t mac[6] = {0x02, 0xca, 0x15, 0, 0, 1};

static void make(uint64_t offloads, unsigned pairs)
{
	struct cai_error err;
	struct virtio_net_options opt = {.mtu = 1500, .max_pairs = pairs, .offloads = offloads};
	memcpy(opt.mac, mac, 6);
	n = virtio_net_create(&d.mem, drv_irq(&d), NULL, &opt, &err);
	assert_non_null(n);
	d.dev = virtio_net_dev(n);
}

/* Attaches one end of a socket pair and returns the other. */
static int attach(enum virtio_net_kind kind, int type)
{
	int sv[2];
	struct cai_error err;
	assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
	if (virtio_net_attach(n, kind, &sv[0], 1, &err) < 0)
		fail_msg("%s", err.text);
	return sv[1];
}

static int setup(void **state)
{
	drv_init(&d, RAM);
	rx_area = drv_alloc(&d, 128 * 65600, 4096);
	tx_area = drv_alloc(&d, 2 << 20, 4096);
	rx_next = rx_area;
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 7 + i / 251);
	n = NULL;
	return 0;
}

static int teardown(void **state)
{
	virtio_net_destroy(n);
	drv_fini(&d);
	return 0;
}

static void up(uint64_t features, unsigned queues)
{
	drv_start(&d, virtio_net_dev(n), features, queues, 128);
}

static void give_rx(unsigned pair, unsigned count, uint32_t len)
{
	for (unsigned i = 0; i < count; i++) {
		struct drv_seg seg = {rx_next, len, true};
		drv_add(&d, 2 * pair, &seg, 1);
		rx_next += len;
		if (rx_next + 65600 > rx_area + 128 * 65600)
			rx_next = rx_area;
	}
	drv_notify(&d, 2 * pair);
}

/* Takes the next frame into got; its length, or -1. */
static int take(unsigned pair, struct virtio_net_hdr_v1 *h)
{
	uint16_t head;
	uint32_t len, at = 0;
	unsigned bufs = 1;
	virtio_net_poll(n);
	drv_ack(&d);
	for (unsigned i = 0; i < bufs; i++) {
		if (!drv_used(&d, 2 * pair, &head, &len)) {
			assert_int_equal(i, 0); /* all the buffers of a frame appear at once */
			return -1;
		}
		struct vring_desc desc;
		memcpy(&desc, drv_ptr(&d, d.q[2 * pair].desc + 16 * head, 16), 16);
		const uint8_t *p = drv_ptr(&d, desc.addr, desc.len);
		assert_true(len <= desc.len);
		if (!i) {
			memcpy(h, p, HDR);
			bufs = h->num_buffers;
			assert_true(bufs >= 1);
			p += HDR;
			len -= HDR;
		}
		memcpy(got + at, p, len);
		at += len;
	}
	return (int)at;
}

static void queue_tx(unsigned pair, const struct virtio_net_hdr_v1 *h, uint32_t len)
{
	struct virtio_net_hdr_v1 zero = {0};
	uint64_t at = tx_area + (d.q[2 * pair + 1].avail_idx % 16) * 0x20000;
	memcpy(drv_ptr(&d, at, HDR), h ? h : &zero, HDR);
	memcpy(drv_ptr(&d, at + HDR, len), frame, len);
	/* the header apart, and the frame in two pieces */
	struct drv_seg seg[] = {{at, HDR, false}, {at + HDR, 14, false}, {at + HDR + 14, len - 14, false}};
	drv_add(&d, 2 * pair + 1, seg, 3);
}

static void send_frame(unsigned pair, const struct virtio_net_hdr_v1 *h, uint32_t len)
{
	queue_tx(pair, h, len);
	drv_notify(&d, 2 * pair + 1);
	drv_ack(&d);
}

static struct virtio_net_stats stats(void)
{
	struct virtio_net_stats s;
	virtio_net_get_stats(n, &s);
	return s;
}

static bool loop_idle(void)
{
	/* Nothing left to do must mean that nothing wakes the loop. */
	for (unsigned i = 0; i < 20; i++)
		virtio_net_poll(n);
	char path[64];
	bool idle = true;
	snprintf(path, sizeof(path), "/proc/self/fd");
	DIR *dir = opendir(path);
	for (struct dirent *e; (e = readdir(dir));) {
		char link[64] = "";
		if (readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1) < 0 || !strstr(link, "eventpoll"))
			continue;
		struct pollfd p = {.fd = atoi(e->d_name), .events = POLLIN};
		idle &= poll(&p, 1, 0) == 0;
	}
	closedir(dir);
	return idle;
}

/* -- configuration -- */

static void configuration_says_mac_mtu_pairs_and_link(void **state)
{
	make(0, 4);
	up(BASE | MQ | BIT(VIRTIO_NET_F_MTU), 9);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(drv_config(&d, i, 1), mac[i]);
	assert_int_equal(drv_config(&d, 6, 2), 0); /* no backend, no link */
	assert_int_equal(drv_config(&d, 8, 2), 4);
	assert_int_equal(drv_config(&d, 10, 2), 1500);
	uint32_t gen = drv_read(&d, VIRTIO_MMIO_CONFIG_GENERATION);
	int fd = attach(NET_DGRAM, SOCK_SEQPACKET);
	assert_int_equal(drv_config(&d, 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(drv_ack(&d), VIRTIO_MMIO_INT_CONFIG);
	assert_int_not_equal(drv_read(&d, VIRTIO_MMIO_CONFIG_GENERATION), gen);
	virtio_net_set_link(n, false);
	assert_int_equal(drv_ack(&d), VIRTIO_MMIO_INT_CONFIG);
	assert_int_equal(drv_config(&d, 6, 2), 0);
	static const uint8_t other[6] = {2, 9, 9, 9, 9, 9};
	virtio_net_set_mac(n, other);
	assert_int_equal(drv_config(&d, 5, 1), 9);
	virtio_net_set_link(n, true);
	assert_int_equal(drv_config(&d, 6, 2), VIRTIO_NET_S_LINK_UP);
	close(fd);
}

static void what_cannot_be_is_refused(void **state)
{
	struct cai_error err;
	struct virtio_net_options opt = {.max_pairs = 9};
	assert_null(virtio_net_create(&d.mem, drv_irq(&d), NULL, &opt, &err));
	opt = (struct virtio_net_options){.max_pairs = 1, .mac = {1}};
	assert_null(virtio_net_create(&d.mem, drv_irq(&d), NULL, &opt, &err));
	opt = (struct virtio_net_options){.max_pairs = 1, .mtu = 67};
	assert_null(virtio_net_create(&d.mem, drv_irq(&d), NULL, &opt, &err));
	opt = (struct virtio_net_options){.max_pairs = 1, .offloads = BIT(VIRTIO_NET_F_MQ)};
	assert_null(virtio_net_create(&d.mem, drv_irq(&d), NULL, &opt, &err));

	make(BIT(VIRTIO_NET_F_CSUM), 2);
	int sv[2], file = open("/dev/null", O_RDWR);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv), 0);
	assert_int_equal(virtio_net_attach(n, NET_DGRAM, sv, 1, &err), -1); /* offloads without headers */
	assert_int_equal(virtio_net_attach(n, NET_DGRAM_HDR, sv, 2, &err), -1);
	assert_int_equal(virtio_net_attach(n, NET_DGRAM_HDR, &file, 1, &err), -1);
	assert_int_equal(virtio_net_attach(n, NET_TAP, sv, 1, &err), -1);
	assert_int_equal(virtio_net_attach(n, NET_TAP, &file, 1, &err), -1); /* epoll takes no such file */
	assert_int_equal(virtio_net_attach(n, NET_DGRAM_HDR, sv, 1, &err), 0);
	assert_int_equal(virtio_net_attach(n, NET_DGRAM_HDR, sv + 1, 1, &err), -1); /* busy */
	virtio_net_detach(n);
	assert_int_equal(virtio_net_attach(n, NET_DGRAM_HDR, sv + 1, 1, &err), 0);
	close(file);
}

/* -- frames -- */

static void frames_go_both_ways(void **state)
{
	static const struct {
		enum virtio_net_kind kind;
		int type;
	} cases[] = {{NET_DGRAM, SOCK_DGRAM}, {NET_DGRAM, SOCK_SEQPACKET}, {NET_DGRAM_HDR, SOCK_SEQPACKET}};
	for (unsigned c = 0; c < ARRAY_LEN(cases); c++) {
		unsigned h = cases[c].kind == NET_DGRAM_HDR ? HDR : 0;
		make(0, 1);
		int fd = attach(cases[c].kind, cases[c].type);
		up(BASE, 2);
		give_rx(0, 64, RX_LEN);
		static const uint32_t sizes[] = {14, 60, 1514, 1515, 9000, 65554};
		for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
			struct virtio_net_hdr_v1 hdr;
			memset(got, 0, h);
			memcpy(got + h, frame, sizes[i]);
			assert_int_equal(send(fd, got, h + sizes[i], 0), h + sizes[i]);
			assert_int_equal(take(0, &hdr), sizes[i]);
			assert_memory_equal(got, frame, sizes[i]);
			assert_int_equal(hdr.flags, 0);
			assert_int_equal(hdr.num_buffers, (sizes[i] + HDR + RX_LEN - 1) / RX_LEN);
			give_rx(0, hdr.num_buffers, RX_LEN);
			send_frame(0, NULL, sizes[i]);
			assert_true(drv_used(&d, 1, NULL, NULL));
			assert_int_equal(recv(fd, got, sizeof(got), 0), h + sizes[i]);
			assert_memory_equal(got + h, frame, sizes[i]);
		}
		struct virtio_net_stats s = stats();
		assert_int_equal(s.rx_frames, ARRAY_LEN(sizes));
		assert_int_equal(s.tx_frames, ARRAY_LEN(sizes));
		assert_int_equal(s.rx_dropped + s.tx_dropped, 0);
		assert_true(loop_idle());
		close(fd);
		virtio_net_destroy(n);
		n = NULL;
	}
}

static void without_merged_buffers_a_frame_takes_one_chain(void **state)
{
	struct virtio_net_hdr_v1 h;
	make(0, 1);
	int fd = attach(NET_DGRAM, SOCK_DGRAM);
	up(BASE & ~MRG, 2);
	give_rx(0, 4, RX_LEN);
	assert_int_equal(send(fd, frame, 1514, 0), 1514);
	assert_int_equal(send(fd, frame, 1515, 0), 1515); /* one byte too many: dropped, and the buffer is used again */
	assert_int_equal(send(fd, frame, 100, 0), 100);
	assert_int_equal(take(0, &h), 1514);
	assert_int_equal(h.num_buffers, 1);
	assert_int_equal(take(0, &h), 100);
	assert_memory_equal(got, frame, 100);
	assert_int_equal(stats().rx_dropped, 1);
	close(fd);
}

static void a_frame_waits_for_enough_buffers(void **state)
{
	struct virtio_net_hdr_v1 h;
	make(0, 1);
	int fd = attach(NET_DGRAM, SOCK_DGRAM);
	up(BASE, 2);
	assert_int_equal(send(fd, frame, 9000, 0), 9000);
	assert_int_equal(send(fd, frame + 1, 200, 0), 200);
	assert_int_equal(take(0, &h), -1);
	assert_true(loop_idle()); /* no buffers: the socket is not watched */
	give_rx(0, 3, RX_LEN);
	assert_int_equal(take(0, &h), -1);
	assert_true(loop_idle());
	give_rx(0, 4, RX_LEN);
	assert_int_equal(take(0, &h), 9000);
	assert_memory_equal(got, frame, 9000);
	assert_int_equal(h.num_buffers, 6);
	assert_int_equal(take(0, &h), 200);
	assert_memory_equal(got, frame + 1, 200);
	assert_int_equal(stats().rx_dropped, 0);
	/* A ring too small for the frame is not waited for. */
	drv_start(&d, d.dev, BASE, 2, 4);
	give_rx(0, 4, RX_LEN);
	assert_int_equal(send(fd, frame, 9000, 0), 9000);
	assert_int_equal(send(fd, frame, 300, 0), 300);
	assert_int_equal(take(0, &h), 300);
	assert_int_equal(stats().rx_dropped, 1);
	close(fd);
}

static void a_full_backend_holds_the_queue(void **state)
{
	static const int types[] = {SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
	for (unsigned t = 0; t < ARRAY_LEN(types); t++) {
		make(0, 1);
		int fd = attach(types[t] == SOCK_STREAM ? NET_STREAM : NET_DGRAM, types[t]);
		up(BASE, 2);
		unsigned sent = 0, back = 0, came = 0;
		/* 3 descriptors a frame: a test keeps at most 16 in flight */
		while (sent - back < 16) {
			send_frame(0, NULL, 32000);
			sent++;
			while (drv_used(&d, 1, NULL, NULL))
				back++;
			assert_true(sent < 1000);
		}
		assert_true(back < sent);
		assert_true(loop_idle());
		size_t stream = 0;
		for (unsigned i = 0; i < 10000 && back < sent; i++) {
			ssize_t r = recv(fd, got, 32000, 0);
			if (r > 0 && types[t] == SOCK_STREAM)
				stream += (size_t)r;
			else if (r > 0)
				came++;
			virtio_net_poll(n);
			while (drv_used(&d, 1, NULL, NULL))
				back++;
		}
		assert_int_equal(back, sent);
		for (ssize_t r; (r = recv(fd, got, 32000, 0)) > 0; virtio_net_poll(n)) {
			stream += types[t] == SOCK_STREAM ? (size_t)r : 0;
			came += types[t] != SOCK_STREAM;
		}
		if (types[t] == SOCK_STREAM)
			assert_int_equal(stream, sent * 32004ull);
		else
			assert_int_equal(came, sent);
		assert_int_equal(stats().tx_dropped, 0);
		assert_int_equal(stats().tx_frames, sent);
		close(fd);
		virtio_net_destroy(n);
		n = NULL;
	}
}

static void a_held_queue_is_emptied_when_the_backend_goes(void **state)
{
	make(0, 1);
	int fd = attach(NET_DGRAM, SOCK_DGRAM);
	up(BASE, 2);
	unsigned sent = 0, back = 0;
	while (sent - back < 4) {
		send_frame(0, NULL, 32000);
		sent++;
		while (drv_used(&d, 1, NULL, NULL))
			back++;
	}
	virtio_net_detach(n);
	virtio_net_poll(n);
	while (drv_used(&d, 1, NULL, NULL))
		back++;
	assert_int_equal(back, sent);
	assert_int_equal(stats().tx_dropped, 4);
	close(fd);
}

/* -- streams -- */

static void put_stream(int fd, uint32_t len)
{
	uint8_t p[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
	assert_int_equal(send(fd, p, 4, 0), 4);
	assert_int_equal(send(fd, frame, len, 0), len);
}

static void a_stream_carries_lengths(void **state)
{
	struct virtio_net_hdr_v1 h;
	make(0, 1);
	int fd = attach(NET_STREAM, SOCK_STREAM);
	up(BASE, 2);
	give_rx(0, 100, RX_LEN);
	put_stream(fd, 60);
	put_stream(fd, 1514);
	put_stream(fd, 65554);
	assert_int_equal(take(0, &h), 60);
	assert_int_equal(take(0, &h), 1514);
	assert_int_equal(take(0, &h), 65554);
	assert_memory_equal(got, frame, 65554);
	/* a byte at a time */
	static const uint8_t start[4] = {0, 0, 0, 20};
	for (unsigned i = 0; i < 24; i++) {
		assert_int_equal(take(0, &h), -1);
		assert_int_equal(send(fd, i < 4 ? start + i : frame + i - 4, 1, 0), 1);
	}
	assert_int_equal(take(0, &h), 20);
	assert_memory_equal(got, frame, 20);
	send_frame(0, NULL, 100);
	assert_int_equal(recv(fd, got, sizeof(got), 0), 104);
	assert_int_equal(load_le32(got), htonl(100));
	assert_memory_equal(got + 4, frame, 100);
	close(fd);
}

static void frames_read_ahead_survive_a_lack_of_buffers(void **state)
{
	struct virtio_net_hdr_v1 h;
	make(0, 1);
	int fd = attach(NET_STREAM, SOCK_STREAM);
	up(BASE, 2);
	give_rx(0, 1, RX_LEN);
	for (unsigned i = 0; i < 10; i++)
		put_stream(fd, 100 + i);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(take(0, &h), 100 + i);
		assert_int_equal(take(0, &h), -1);
		assert_true(loop_idle());
		give_rx(0, 1, RX_LEN);
	}
	close(fd);
}

static void a_backend_that_goes_takes_the_link_down(void **state)
{
	static const uint8_t bad[][8] = {{0, 0, 0, 13}, {0, 1, 0, 0x13}, {0xff, 0xff, 0xff, 0xff}};
	for (unsigned c = 0; c < ARRAY_LEN(bad) + 4; c++) {
		make(0, 1);
		bool stream = c < ARRAY_LEN(bad) + 2;
		int fd = attach(stream ? NET_STREAM : NET_DGRAM, stream ? SOCK_STREAM : SOCK_SEQPACKET);
		up(BASE, 2);
		give_rx(0, 4, RX_LEN);
		if (c < ARRAY_LEN(bad))
			assert_int_equal(send(fd, bad[c], 8, 0), 8);
		else if (c % 2)
			shutdown(fd, SHUT_WR);
		else
			close(fd);
		virtio_net_poll(n);
		assert_false(stats().link_up);
		assert_int_equal(drv_config(&d, 6, 2), 0);
		assert_true(drv_ack(&d) & VIRTIO_MMIO_INT_CONFIG);
		assert_true(loop_idle());
		send_frame(0, NULL, 60);
		assert_true(drv_used(&d, 1, NULL, NULL));
		assert_int_equal(stats().tx_dropped, 1);
		/* another may come */
		int again = attach(NET_DGRAM, SOCK_DGRAM);
		assert_true(stats().link_up);
		send_frame(0, NULL, 60);
		assert_int_equal(recv(again, got, sizeof(got), 0), 60);
		close(again);
		close(fd);
		virtio_net_destroy(n);
		n = NULL;
	}
}

/* -- hostile or odd drivers -- */

static void headers_are_checked(void **state)
{
	enum { NONE = 0, T4 = 1, UFO = 3, T6 = 4, U4 = 5, ECN = 0x80 };
	static const struct {
		uint64_t without; /* features the driver does not take */
		struct virtio_net_hdr_v1 h;
		uint32_t len;
		bool ok;
	} cases[] = {
		{0, {0}, 60, true},
		{0, {.flags = 1, .csum_start = 34, .csum_offset = 16}, 60, true},
		{0, {.flags = 1, .csum_start = 34, .csum_offset = 24}, 60, true},
		{0, {.flags = 1, .csum_start = 34, .csum_offset = 25}, 60, false},
		{0, {.flags = 1, .csum_start = 60, .csum_offset = 0}, 60, false},
		{0, {.flags = 1, .csum_start = 0, .csum_offset = 16}, 60, false},
		{0, {.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff}, 60, false},
		{0, {.flags = 1, .csum_start = 0xffff, .csum_offset = 3}, 60, false},
		{BIT(VIRTIO_NET_F_CSUM), {.flags = 1, .csum_start = 34, .csum_offset = 16}, 60, false},
		{0, {.flags = 0xfe, .csum_start = 0xffff, .csum_offset = 0xffff}, 60, true}, /* nothing that counts */
		{0, {.flags = 1, .gso_type = T4, .gso_size = 1448, .hdr_len = 54, .csum_start = 34, .csum_offset = 16}, 9000, true},
		{0, {.flags = 1, .gso_type = T4 | ECN, .gso_size = 1448, .hdr_len = 54, .csum_start = 34, .csum_offset = 16}, 9000, true},
		{0, {.flags = 1, .gso_type = T6, .gso_size = 1448, .hdr_len = 74, .csum_start = 54, .csum_offset = 16}, 9000, true},
		{0, {.flags = 1, .gso_type = U4, .gso_size = 1448, .hdr_len = 42, .csum_start = 34, .csum_offset = 6}, 9000, true},
		{0, {.flags = 1, .gso_type = T4, .gso_size = 1448, .hdr_len = 9001, .csum_start = 34, .csum_offset = 16}, 9000, false},
		{0, {.flags = 1, .gso_type = T4, .gso_size = 0, .hdr_len = 54, .csum_start = 34, .csum_offset = 16}, 9000, false},
		{0, {.flags = 0, .gso_type = T4, .gso_size = 1448, .hdr_len = 54}, 9000, false},
		{0, {.flags = 1, .gso_type = T4, .gso_size = 10, .hdr_len = 54, .csum_start = 41, .csum_offset = 16}, 60, false},
		{0, {.flags = 1, .gso_type = UFO, .gso_size = 1448, .hdr_len = 42, .csum_start = 34, .csum_offset = 6}, 9000, false},
		{0, {.flags = 1, .gso_type = 2, .gso_size = 1448, .hdr_len = 42, .csum_start = 34, .csum_offset = 6}, 9000, false},
		{0, {.flags = 1, .gso_type = U4 | ECN, .gso_size = 1448, .hdr_len = 42, .csum_start = 34, .csum_offset = 6}, 9000, false},
		{0, {.gso_type = ECN}, 60, false},
		{0, {.gso_size = 9, .hdr_len = 0xffff}, 60, true}, /* no segmentation: these do not count */
		{BIT(VIRTIO_NET_F_HOST_TSO4), {.flags = 1, .gso_type = T4, .gso_size = 1448, .hdr_len = 54, .csum_start = 34, .csum_offset = 16}, 9000, false},
		{BIT(VIRTIO_NET_F_HOST_ECN), {.flags = 1, .gso_type = T4 | ECN, .gso_size = 1448, .hdr_len = 54, .csum_start = 34, .csum_offset = 16}, 9000, false},
		{BIT(NET_F_HOST_USO), {.flags = 1, .gso_type = U4, .gso_size = 1448, .hdr_len = 42, .csum_start = 34, .csum_offset = 6}, 9000, false},
		{0, {0}, 65554, true},
		{0, {0}, 65555, false},
	};
	make(NET_OFFLOADS, 1);
	int fd = attach(NET_DGRAM_HDR, SOCK_DGRAM);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		up((BASE | NET_OFFLOADS) & ~cases[i].without, 2);
		send_frame(0, &cases[i].h, cases[i].len);
		assert_true(drv_used(&d, 1, NULL, NULL));
		assert_false(drv_needs_reset(&d));
		ssize_t r = recv(fd, got, sizeof(got), 0);
		if (r != (cases[i].ok ? (ssize_t)(HDR + cases[i].len) : -1))
			fail_msg("case %u: %zd bytes came", i, r);
		if (r < 0)
			continue;
		struct virtio_net_hdr_v1 h;
		memcpy(&h, got, HDR);
		assert_int_equal(h.flags, cases[i].h.flags & 1);
		assert_int_equal(h.gso_type, cases[i].h.gso_type);
		assert_int_equal(h.csum_start, h.flags ? cases[i].h.csum_start : 0);
		assert_int_equal(h.gso_size, h.gso_type ? cases[i].h.gso_size : 0);
		assert_int_equal(h.hdr_len, h.gso_type ? cases[i].h.hdr_len : 0);
		assert_memory_equal(got + HDR, frame, cases[i].len);
	}
	close(fd);
}

static void chains_without_room_break_the_device(void **state)
{
	make(0, 2);
	int fd = attach(NET_DGRAM, SOCK_DGRAM);
	static const struct {
		unsigned q;
		uint32_t len;
		bool in;
	} cases[] = {{1, 11, false}, {1, 100, true}, {0, 11, true}, {0, 100, false}, {4, 1, false}, {4, 1, true}, {4, 100, false}};
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		up(BASE | MQ, 5);
		assert_false(drv_needs_reset(&d));
		drv_add(&d, cases[i].q, &(struct drv_seg){tx_area, cases[i].len, cases[i].in}, 1);
		assert_int_equal(send(fd, frame, 60, 0), 60);
		drv_notify(&d, cases[i].q);
		virtio_net_poll(n);
		if (!drv_needs_reset(&d))
			fail_msg("case %u did not break it", i);
		assert_true(loop_idle());
	}
	/* short frames are only dropped */
	up(BASE | MQ, 5);
	drv_add(&d, 1, &(struct drv_seg){tx_area, HDR, false}, 1);
	drv_add(&d, 1, &(struct drv_seg){tx_area, HDR + 13, false}, 1);
	drv_notify(&d, 1);
	assert_true(drv_used(&d, 1, NULL, NULL) && drv_used(&d, 1, NULL, NULL));
	assert_false(drv_needs_reset(&d));
	assert_int_equal(stats().tx_dropped, 2);
	close(fd);
}

static void tiny_rx_segments_carry_a_frame(void **state)
{
	struct virtio_net_hdr_v1 h;
	make(0, 1);
	int fd = attach(NET_DGRAM, SOCK_DGRAM);
	up(BASE & ~MRG, 2);
	struct drv_seg seg[100];
	for (unsigned i = 0; i < ARRAY_LEN(seg); i++)
		seg[i] = (struct drv_seg){rx_area + i * 8, i % 3 + 1, true};
	drv_add_indirect(&d, 0, seg, ARRAY_LEN(seg));
	drv_notify(&d, 0);
	assert_int_equal(send(fd, frame, 100, 0), 100);
	virtio_net_poll(n);
	uint32_t len, at = 0;
	assert_true(drv_used(&d, 0, NULL, &len));
	assert_int_equal(len, 112);
	for (unsigned i = 0; at < 112; i++) {
		uint32_t k = seg[i].len < 112 - at ? seg[i].len : 112 - at;
		memcpy(got + at, drv_ptr(&d, seg[i].gpa, k), k);
		at += k;
	}
	memcpy(&h, got, HDR);
	assert_int_equal(h.num_buffers, 1);
	assert_memory_equal(got + HDR, frame, 100);
	close(fd);
}

static void offloads_the_driver_has_not_taken_stay_away_from_it(void **state)
{
	struct virtio_net_hdr_v1 h, k = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
	uint8_t msg[HDR + 1000];
	make(NET_OFFLOADS, 1);
	int fd = attach(NET_DGRAM_HDR, SOCK_DGRAM);
	up(BASE | NET_OFFLOADS, 2);
	give_rx(0, 100, RX_LEN);
	memcpy(msg, &k, HDR);
	memcpy(msg + HDR, frame, 101);
	assert_int_equal(send(fd, msg, HDR + 101, 0), HDR + 101);
	assert_int_equal(take(0, &h), 101);
	assert_int_equal(h.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(h.csum_start, 34);

	up(BASE, 2);
	give_rx(0, 100, RX_LEN);
	assert_int_equal(send(fd, msg, HDR + 101, 0), HDR + 101);
	k.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	memcpy(msg, &k, HDR);
	assert_int_equal(send(fd, msg, HDR + 101, 0), HDR + 101);
	k = (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 90, .csum_offset = 10};
	memcpy(msg, &k, HDR);
	assert_int_equal(send(fd, msg, HDR + 101, 0), HDR + 101);
	assert_int_equal(take(0, &h), 101);
	assert_int_equal(h.flags, 0);
	assert_int_equal(h.csum_start, 0);
	/* The sum over all, the complemented checksum included, is the sum of what the field held before. */
	uint32_t before = (uint32_t)(frame[40] << 8 | frame[41]), sum = 0;
	for (unsigned i = 34; i < 101; i++)
		sum += i % 2 ? got[i] : (uint32_t)got[i] << 8;
	sum += before;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(sum, 0xffff);
	assert_int_equal(take(0, &h), -1);
	assert_int_equal(stats().rx_dropped, 2);
	close(fd);
}

/* -- several queues -- */

static uint8_t set_pairs(unsigned ctrl, uint16_t pairs)
{
	uint64_t at = tx_area + (1 << 20);
	uint8_t *p = drv_ptr(&d, at, 16);
	p[0] = VIRTIO_NET_CTRL_MQ;
	p[1] = VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
	store_le16(p + 2, pairs);
	p[8] = 0x55;
	struct drv_seg seg[] = {{at, 2, false}, {at + 2, 2, false}, {at + 8, 1, true}};
	drv_add(&d, ctrl, seg, 3);
	drv_notify(&d, ctrl);
	assert_true(drv_used(&d, ctrl, NULL, NULL));
	return p[8];
}

static void the_number_of_pairs_can_be_chosen(void **state)
{
	make(0, 8);
	int fd = attach(NET_DGRAM, SOCK_DGRAM);
	up(BASE | MQ, 17);
	assert_int_equal(stats().pairs, 1);
	assert_int_equal(set_pairs(16, 8), VIRTIO_NET_OK);
	assert_int_equal(stats().pairs, 8);
	assert_int_equal(set_pairs(16, 0), VIRTIO_NET_ERR);
	assert_int_equal(set_pairs(16, 9), VIRTIO_NET_ERR);
	assert_int_equal(stats().pairs, 8);
	for (unsigned i = 0; i < 8; i++) {
		send_frame(i, NULL, 100 + i);
		assert_int_equal(recv(fd, got, sizeof(got), 0), 100 + i);
	}
	/* a command that is not known */
	uint8_t *p = drv_ptr(&d, tx_area, 16);
	p[0] = VIRTIO_NET_CTRL_RX;
	struct drv_seg seg[] = {{tx_area, 3, false}, {tx_area + 8, 1, true}};
	drv_add(&d, 16, seg, 2);
	drv_notify(&d, 16);
	assert_int_equal(p[8], VIRTIO_NET_ERR);
	/* without MQ the control queue is the third, and it chooses nothing */
	up(BASE | BIT(VIRTIO_NET_F_CTRL_VQ), 3);
	assert_int_equal(stats().pairs, 1);
	assert_int_equal(set_pairs(2, 1), VIRTIO_NET_ERR);
	close(fd);
}

static void a_driver_reset_forgets_the_old_frames(void **state)
{
	struct virtio_net_hdr_v1 h;
	make(0, 2);
	int fd = attach(NET_DGRAM, SOCK_DGRAM);
	up(BASE | MQ, 5);
	set_pairs(4, 2);
	give_rx(0, 2, RX_LEN);
	assert_int_equal(send(fd, frame, 9000, 0), 9000);
	assert_int_equal(take(0, &h), -1); /* held */
	drv_write(&d, VIRTIO_MMIO_STATUS, 0);
	assert_true(loop_idle());
	up(BASE | MQ, 5);
	assert_int_equal(stats().pairs, 1);
	give_rx(0, 50, RX_LEN);
	assert_int_equal(take(0, &h), -1);
	assert_int_equal(send(fd, frame, 77, 0), 77);
	assert_int_equal(take(0, &h), 77);
	close(fd);
}

/* A loop's thread and a vCPU's thread at once. */
struct echo {
	struct loop *l;
	int fd;
};

static void *run_loop(void *ctx)
{
	loop_run(((struct echo *)ctx)->l, NULL);
	return NULL;
}

static void *run_peer(void *ctx)
{
	/* Sends back what it gets, as fast as the other end takes it. */
	int fd = ((struct echo *)ctx)->fd;
	static uint8_t buf[65536];
	for (ssize_t r; (r = recv(fd, buf, sizeof(buf), 0)) > 0;)
		if (send(fd, buf, (size_t)r, MSG_NOSIGNAL) != r)
			break;
	return NULL;
}

static void vcpu_and_loop_threads_work_together(void **state)
{
	struct cai_error err;
	struct echo e = {.l = loop_new(&err)};
	struct virtio_net_options opt = {.max_pairs = 1};
	pthread_t loop_thread, peer_thread;
	int sv[2];
	n = virtio_net_create(&d.mem, drv_irq(&d), e.l, &opt, &err);
	assert_non_null(n);
	d.dev = virtio_net_dev(n);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	e.fd = sv[1];
	assert_int_equal(virtio_net_attach(n, NET_DGRAM, sv, 1, &err), 0);
	fcntl(sv[1], F_SETFL, 0);
	up(BASE, 2);
	pthread_create(&loop_thread, NULL, run_loop, &e);
	pthread_create(&peer_thread, NULL, run_peer, &e);
	give_rx(0, 100, RX_LEN);
	unsigned sent = 0, back = 0, rx = 0;
	uint16_t head;
	uint32_t len;
	uint64_t deadline = clock_mono_ns() + 20000000000ull;
	while (rx < 5000 && clock_mono_ns() < deadline) {
		if (sent - back < 16 && sent - rx < 64 && sent < 5000) {
			send_frame(0, NULL, 60 + sent % 1400);
			sent++;
		}
		while (drv_used(&d, 1, NULL, NULL))
			back++;
		while (drv_used(&d, 0, &head, &len)) {
			assert_int_equal(len, HDR + 60 + rx % 1400);
			rx++;
			give_rx(0, 1, RX_LEN);
		}
	}
	assert_int_equal(rx, 5000);
	shutdown(sv[1], SHUT_RDWR);
	pthread_join(peer_thread, NULL);
	loop_stop(e.l);
	pthread_join(loop_thread, NULL);
	virtio_net_destroy(n);
	n = NULL;
	loop_free(e.l);
	close(sv[1]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(configuration_says_mac_mtu_pairs_and_link),
		T(what_cannot_be_is_refused),
		T(frames_go_both_ways),
		T(without_merged_buffers_a_frame_takes_one_chain),
		T(a_frame_waits_for_enough_buffers),
		T(a_full_backend_holds_the_queue),
		T(a_held_queue_is_emptied_when_the_backend_goes),
		T(a_stream_carries_lengths),
		T(frames_read_ahead_survive_a_lack_of_buffers),
		T(a_backend_that_goes_takes_the_link_down),
		T(headers_are_checked),
		T(chains_without_room_break_the_device),
		T(tiny_rx_segments_carry_a_frame),
		T(offloads_the_driver_has_not_taken_stay_away_from_it),
		T(the_number_of_pairs_can_be_chosen),
		T(a_driver_reset_forgets_the_old_frames),
		T(vcpu_and_loop_threads_work_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
