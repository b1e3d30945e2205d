/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net over a real tap, in a network namespace of its own: what the kernel sends and takes is what counts here. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/net.h"

#define RAM     (32u << 20)
#define BASE                                                                                                       \
	(BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_NET_F_MRG_RXBUF) |           \
	 BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS))
#define MQ      (BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_VQ))
#define HDR     12u
#define RX_LEN  1526u

static struct drv d;
static struct virtio_net *n;
static uint64_t rx_area, tx_area;
static unsigned rx_given;
static uint64_t have;
static int packet; /* an AF_PACKET socket on the tap, with headers */
static uint8_t got[70000], out[70000];

/* In the new namespace: one tap, tap0, 10.9.0.1/24 with a fixed neighbour 10.9.0.2, which is the guest. */
static const uint8_t guest_mac[6] = {2, 0, 0, 0, 0, 2};
static uint8_t tap_mac[6];

static int open_tap(bool several)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	struct ifreq ifr = {.ifr_name = "tap0"};
	ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (several ? IFF_MULTI_QUEUE : 0));
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0)
		fail_msg("tap: %s", strerror(errno));
	return fd;
}

static void in4(struct sockaddr *sa, const char *a)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	inet_pton(AF_INET, a, &in.sin_addr);
	memcpy(sa, &in, sizeof(in));
}

static void interface_up(bool yes)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {.ifr_name = "tap0"};
	in4(&ifr.ifr_addr, "10.9.0.1");
	assert_int_equal(ioctl(s, SIOCSIFADDR, &ifr), 0);
	in4(&ifr.ifr_netmask, "255.255.255.0");
	assert_int_equal(ioctl(s, SIOCSIFNETMASK, &ifr), 0);
	ifr.ifr_flags = yes ? IFF_UP | IFF_NOARP : IFF_NOARP;
	assert_int_equal(ioctl(s, SIOCSIFFLAGS, &ifr), 0);
	assert_int_equal(ioctl(s, SIOCGIFHWADDR, &ifr), 0);
	memcpy(tap_mac, ifr.ifr_hwaddr.sa_data, 6);
	close(s);
}

static void open_packet(void)
{
	int one = 1;
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)if_nametoindex("tap0")};
	packet = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
	assert_true(packet >= 0);
	assert_int_equal(setsockopt(packet, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(packet, (struct sockaddr *)&ll, sizeof(ll)), 0);
}

static void start(unsigned queues, uint64_t offloads, uint64_t accept)
{
	struct cai_error err;
	int fd[VIRTIO_NET_MAX_PAIRS];
	for (unsigned i = 0; i < queues; i++) {
		fd[i] = open_tap(queues > 1);
		if (net_tap_setup(fd[i], offloads, &have, &err) < 0)
			fail_msg("%s", err.text);
	}
	interface_up(true);
	open_packet();
	struct virtio_net_options opt = {.max_pairs = queues, .offloads = have};
	memcpy(opt.mac, guest_mac, 6);
	n = virtio_net_create(&d.mem, drv_irq(&d), NULL, &opt, &err);
	assert_non_null(n);
	if (virtio_net_attach(n, NET_TAP, fd, queues, &err) < 0)
		fail_msg("%s", err.text);
	drv_start(&d, virtio_net_dev(n), BASE | (queues > 1 ? MQ : 0) | (have & accept), queues > 1 ? 2 * queues + 1 : 2, 128);
}

static int setup(void **state)
{
	drv_init(&d, RAM);
	rx_area = drv_alloc(&d, 128 * 2048, 4096);
	tx_area = drv_alloc(&d, 2 << 20, 4096);
	n = NULL;
	packet = -1;
	rx_given = 0;
	return 0;
}

static int teardown(void **state)
{
	virtio_net_destroy(n);
	if (packet >= 0)
		close(packet);
	drv_fini(&d);
	return 0;
}

static void give_rx(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		drv_add(&d, 0, &(struct drv_seg){rx_area + (rx_given++ % 128) * 2048ull, RX_LEN, true}, 1);
	drv_notify(&d, 0);
}

static int take(struct virtio_net_hdr_v1 *h)
{
	uint16_t head;
	uint32_t len, at = 0;
	unsigned bufs = 1;
	virtio_net_poll(n);
	drv_ack(&d);
	for (unsigned i = 0; i < bufs; i++) {
		if (!drv_used(&d, 0, &head, &len))
			return -1;
		struct vring_desc desc;
		memcpy(&desc, drv_ptr(&d, d.q[0].desc + 16 * head, 16), 16);
		memcpy(got + at, drv_ptr(&d, desc.addr, len), len);
		at += len;
		if (!i) {
			memcpy(h, got, HDR);
			bufs = h->num_buffers;
		}
	}
	memmove(got, got + HDR, at - HDR);
	give_rx(bufs);
	return (int)(at - HDR);
}

/* The next IPv4 frame for the guest from us (the interface says things of its own). */
static int take_ours(struct virtio_net_hdr_v1 *h)
{
	for (unsigned i = 0; i < 1000; i++) {
		int len = take(h);
		if (len > 34 && got[12] == 8 && got[13] == 0 && got[14 + 15] == 1 && (got[14 + 9] == 6 || got[14 + 9] == 17))
			return len;
		if (len < 0)
			usleep(1000);
	}
	return -1;
}

static void send_frame(unsigned pair, const struct virtio_net_hdr_v1 *h, uint32_t len)
{
	memcpy(drv_ptr(&d, tx_area, HDR), h, HDR);
	memcpy(drv_ptr(&d, tx_area + HDR, len), out, len);
	struct drv_seg seg[] = {{tx_area, HDR, false}, {tx_area + HDR, 34, false}, {tx_area + HDR + 34, len - 34, false}};
	drv_add(&d, 2 * pair + 1, seg, 3);
	drv_notify(&d, 2 * pair + 1);
	drv_ack(&d);
	assert_true(drv_used(&d, 2 * pair + 1, NULL, NULL));
}

static uint32_t add16(const uint8_t *p, unsigned len)
{
	uint32_t s = 0;
	for (unsigned i = 0; i < len; i++)
		s += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* Makes an IPv4 frame of payload bytes over TCP or UDP in out, its checksum left to the device. Returns its length. */
static uint32_t make_frame(bool from_guest, uint8_t proto, uint32_t payload, struct virtio_net_hdr_v1 *h)
{
	uint32_t t = proto == 6 ? 20 : 8, ip_len = 20 + t + payload;
	memset(out, 0, 34 + t);
	memcpy(out, from_guest ? tap_mac : guest_mac, 6);
	memcpy(out + 6, from_guest ? guest_mac : tap_mac, 6);
	out[12] = 8;
	uint8_t *ip = out + 14, *l4 = out + 34;
	ip[0] = 0x45;
	ip[2] = (uint8_t)(ip_len >> 8);
	ip[3] = (uint8_t)ip_len;
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, from_guest ? "\x0a\x09\0\2\x0a\x09\0\1" : "\x0a\x09\0\1\x0a\x09\0\2", 8);
	uint32_t c = ~add16(ip, 20);
	ip[10] = (uint8_t)(c >> 8);
	ip[11] = (uint8_t)c;
	l4[0] = l4[2] = 0x30; /* port 12288 to itself */
	if (proto == 6) {
		l4[12] = 0x50;
		l4[13] = 0x10;
	} else {
		l4[4] = (uint8_t)((8 + payload) >> 8);
		l4[5] = (uint8_t)(8 + payload);
	}
	/* the pseudo header */
	uint32_t sum = add16(ip + 12, 8) + proto + t + payload;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	unsigned at = proto == 6 ? 16 : 6;
	l4[at] = (uint8_t)(sum >> 8);
	l4[at + 1] = (uint8_t)sum;
	for (uint32_t i = 0; i < payload; i++)
		l4[t + i] = (uint8_t)(i * 13 + i / 251);
	*h = (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = (uint16_t)at};
	return 34 + t + payload;
}

static int udp_socket(void)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr sa;
	in4(&sa, "10.9.0.1");
	((struct sockaddr_in *)&sa)->sin_port = htons(12288);
	assert_int_equal(bind(s, &sa, sizeof(sa)), 0);
	return s;
}

static ssize_t wait_recv(int s)
{
	for (unsigned i = 0; i < 1000; i++) {
		ssize_t r = recv(s, got, sizeof(got), 0);
		if (r >= 0)
			return r;
		usleep(1000);
	}
	return -1;
}

static void the_kernel_completes_checksums(void **state)
{
	struct virtio_net_hdr_v1 h;
	start(1, NET_OFFLOADS, NET_OFFLOADS);
	int s = udp_socket();
	uint32_t len = make_frame(true, 17, 1000, &h);
	send_frame(0, &h, len);
	assert_int_equal(wait_recv(s), 1000);
	assert_memory_equal(got, out + 42, 1000);
	assert_int_equal(virtio_net_dev(n)->status & 64, 0);
	/* and leaves them to a guest that can */
	give_rx(120);
	struct sockaddr sa;
	in4(&sa, "10.9.0.2");
	((struct sockaddr_in *)&sa)->sin_port = htons(7);
	assert_int_equal(sendto(s, out, 500, 0, &sa, sizeof(sa)), 500);
	assert_int_equal(take_ours(&h), 542);
	assert_int_equal(h.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(h.csum_start, 34);
	close(s);
}

static void a_driver_without_checksums_gets_whole_ones(void **state)
{
	struct virtio_net_hdr_v1 h;
	start(1, NET_OFFLOADS, 0);
	int s = udp_socket();
	give_rx(120);
	struct sockaddr sa;
	in4(&sa, "10.9.0.2");
	((struct sockaddr_in *)&sa)->sin_port = htons(7);
	assert_int_equal(sendto(s, out, 501, 0, &sa, sizeof(sa)), 501);
	assert_int_equal(take_ours(&h), 543);
	assert_int_equal(h.flags, 0);
	uint32_t sum = add16(got + 34, 509) + add16(got + 26, 8) + 17 + 509;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	assert_int_equal(sum, 0xffff);
	close(s);
}

static void a_large_segment_goes_to_the_kernel_whole(void **state)
{
	struct virtio_net_hdr_v1 h, k;
	start(1, NET_OFFLOADS, NET_OFFLOADS);
	uint32_t len = make_frame(true, 6, 50000, &h);
	h.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	h.gso_size = 1460;
	h.hdr_len = 54;
	send_frame(0, &h, len);
	assert_int_equal(virtio_net_dev(n)->status & 64, 0);
	for (unsigned i = 0; i < 20; i++) {
		ssize_t r = wait_recv(packet);
		assert_true(r > 10);
		if (got[10 + 12] != 8 || r < 1000)
			continue;
		memcpy(&k, got, 10);
		assert_int_equal(r, 10 + len);
		assert_int_equal(k.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
		assert_int_equal(k.gso_size, 1460);
		assert_memory_equal(got + 10, out, len);
		return;
	}
	fail_msg("it did not come");
}

static void udp_segments_are_cut_by_the_kernel(void **state)
{
	struct virtio_net_hdr_v1 h;
	start(1, NET_OFFLOADS, NET_OFFLOADS);
	if (!(have & BIT(NET_F_HOST_USO))) {
		print_message("skipped: this kernel's tap has no UDP segmentation\n");
		skip();
	}
	int s = udp_socket();
	uint32_t len = make_frame(true, 17, 5000, &h);
	h.gso_type = 5;
	h.gso_size = 1000;
	h.hdr_len = 42;
	send_frame(0, &h, len);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(wait_recv(s), 1000);
		assert_memory_equal(got, out + 42 + 1000 * i, 1000);
	}
	close(s);
}

static void a_large_segment_comes_in_merged_buffers(void **state)
{
	/* with what the driver takes, and without */
	for (unsigned i = 0; i < 2; i++) {
		struct virtio_net_hdr_v1 h;
		start(1, i ? 0 : NET_OFFLOADS, NET_OFFLOADS);
		give_rx(126);
		uint32_t len = make_frame(false, 6, 60000, &h);
		h.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		h.gso_size = 1460;
		h.hdr_len = 54;
		memcpy(got, &h, 10);
		memcpy(got + 10, out, len);
		assert_int_equal(send(packet, got, 10 + len, 0), 10 + len);
		if (!i) {
			assert_int_equal(take_ours(&h), len);
			assert_int_equal(h.num_buffers, (len + HDR + RX_LEN - 1) / RX_LEN);
			assert_int_equal(h.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
			assert_int_equal(h.gso_size, 1460);
			assert_memory_equal(got + 54, out + 54, len - 54);
		} else {
			for (uint32_t at = 0; at < 60000; at += 1460) {
				uint32_t k = at + 1460 < 60000 ? 1460 : 60000 - at;
				assert_int_equal(take_ours(&h), 54 + k);
				assert_int_equal(h.gso_type, 0);
				assert_memory_equal(got + 54, out + 54 + at, k);
			}
		}
		assert_int_equal(virtio_net_dev(n)->status & 64, 0);
		virtio_net_destroy(n);
		n = NULL;
		close(packet);
		packet = -1;
		rx_given = 0;
	}
}

static void frames_of_all_tap_queues_reach_a_driver_with_one(void **state)
{
	struct virtio_net_hdr_v1 h;
	struct sockaddr sa;
	start(4, NET_OFFLOADS, NET_OFFLOADS);
	give_rx(120);
	in4(&sa, "10.9.0.2");
	for (unsigned i = 0; i < 32; i++) {
		/* a flow each, so that the kernel spreads them */
		int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		((struct sockaddr_in *)&sa)->sin_port = htons((uint16_t)(1000 + i));
		assert_int_equal(sendto(s, out, 100, 0, &sa, sizeof(sa)), 100);
		close(s);
	}
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(take_ours(&h), 142);
	int s = udp_socket();
	for (unsigned i = 0; i < 4; i++) {
		uint32_t len = make_frame(true, 17, 100 + i, &h);
		send_frame(i, &h, len);
		assert_int_equal(wait_recv(s), 100 + i);
	}
	close(s);
}

static void what_the_kernel_refuses_is_dropped(void **state)
{
	struct virtio_net_hdr_v1 h;
	struct virtio_net_stats s;
	start(1, NET_OFFLOADS, NET_OFFLOADS);
	uint32_t len = make_frame(true, 17, 100, &h);
	interface_up(false);
	send_frame(0, &h, len);
	virtio_net_get_stats(n, &s);
	assert_int_equal(s.tx_dropped, 1);
	interface_up(true);
	send_frame(0, &h, len);
	virtio_net_get_stats(n, &s);
	assert_int_equal(s.tx_dropped, 1);
	assert_int_equal(s.tx_frames, 1);
	assert_true(s.link_up);
	/* headers at random: the device and the kernel take or leave them */
	unsigned seed = 1;
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t *p = (uint8_t *)&h;
		make_frame(true, i & 1 ? 6 : 17, 1000, &h);
		for (unsigned k = rand_r(&seed) % 4; k; k--)
			p[rand_r(&seed) % HDR] = (uint8_t)rand_r(&seed);
		send_frame(0, &h, 54 + (uint32_t)rand_r(&seed) % 1000);
	}
	virtio_net_get_stats(n, &s);
	assert_int_equal(s.tx_frames + s.tx_dropped, 20002);
}

static void delete_tap(void)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} msg = {.h = {.nlmsg_len = sizeof(msg), .nlmsg_type = RTM_DELLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		 .i = {.ifi_index = (int)if_nametoindex("tap0")}};
	uint8_t answer[512];
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	assert_int_equal(send(s, &msg, sizeof(msg), 0), sizeof(msg));
	assert_true(recv(s, answer, sizeof(answer), 0) > 0);
	assert_int_equal(if_nametoindex("tap0"), 0);
	close(s);
}

static void a_deleted_tap_takes_the_link_down(void **state)
{
	struct virtio_net_stats s;
	start(1, 0, 0);
	give_rx(10);
	virtio_net_poll(n);
	delete_tap();
	virtio_net_poll(n);
	virtio_net_get_stats(n, &s);
	assert_false(s.link_up);
}

static void a_wrong_tap_is_refused(void **state)
{
	struct cai_error err;
	uint64_t h;
	struct ifreq ifr = {.ifr_name = "tun9", .ifr_flags = IFF_TAP | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	assert_int_equal(net_tap_setup(fd, NET_OFFLOADS, &h, &err), -1); /* not connected to an interface */
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	assert_int_equal(net_tap_setup(fd, NET_OFFLOADS, &h, &err), -1); /* no headers */
	close(fd);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(net_tap_setup(fd, NET_OFFLOADS, &h, &err), -1);
	close(fd);
}

/* 0, or why there can be no tap here. */
static const char *own_namespace(void)
{
	static char why[128];
	const char *what = "a network namespace of its own";
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		goto no;
	what = "/dev/net/tun";
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		goto no;
	struct ifreq ifr = {.ifr_name = "tap0", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int r = ioctl(fd, TUNSETIFF, &ifr), e = errno;
	close(fd);
	errno = e;
	what = "a tap device";
	if (r == 0)
		return NULL;
no:
	snprintf(why, sizeof(why), "no access to %s: %s", what, strerror(errno));
	return why;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_kernel_completes_checksums),
		T(a_driver_without_checksums_gets_whole_ones),
		T(a_large_segment_goes_to_the_kernel_whole),
		T(udp_segments_are_cut_by_the_kernel),
		T(a_large_segment_comes_in_merged_buffers),
		T(frames_of_all_tap_queues_reach_a_driver_with_one),
		T(what_the_kernel_refuses_is_dropped),
		T(a_deleted_tap_takes_the_link_down),
		T(a_wrong_tap_is_refused),
	};
	const char *why = own_namespace();
	if (why) {
		printf("skipped: %s\n", why);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
