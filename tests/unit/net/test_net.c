/* SPDX-License-Identifier: Apache-2.0 */
/* Networks, as far as they need no network: the command line's words, the sandbox's files, named networks,
 * DNS messages, the sieve. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "net/helper/dns_message.h"
#include "net/helper/proxy.h"
#include "net/helper/sieve.h"
#include "net/netlink.h"
#include "net/networks.h"
#include "net/ports.h"
#include "net/publish.h"
#include "net/resolv.h"
#include "net/rules.h"

static void ports_are_read_as_docker_reads_them_but_on_loopback(void **state)
{
	static const struct {
		const char *text, *shown; /* of the first; NULL: refused */
		size_t n;
	} cases[] = {
	    {"8080:80", "127.0.0.1:8080 -> 80/tcp", 1},
	    {"80", "127.0.0.1:0 -> 80/tcp", 1},
	    {"53:53/udp", "127.0.0.1:53 -> 53/udp", 1},
	    {"53:53/UDP", "127.0.0.1:53 -> 53/udp", 1},
	    {"0.0.0.0:80:80/tcp", "0.0.0.0:80 -> 80/tcp", 1},
	    {"192.0.2.1::80", "192.0.2.1:0 -> 80/tcp", 1},
	    {"[::1]:8080:80", "[::1]:8080 -> 80/tcp", 1},
	    {"[::]:8080:80/udp", "[::]:8080 -> 80/udp", 1},
	    {"[2001:DB8::1]::80", "[2001:db8::1]:0 -> 80/tcp", 1},
	    {"8000-8009:80-89", "127.0.0.1:8000 -> 80/tcp", 10},
	    {"80-81", "127.0.0.1:0 -> 80/tcp", 2},
	    {"", NULL, 0},
	    {":", NULL, 0},
	    {":80", "127.0.0.1:0 -> 80/tcp", 1},
	    {"80:", NULL, 0},
	    {"0:80", "127.0.0.1:0 -> 80/tcp", 1},
	    {"0", NULL, 0},
	    {"80:0", NULL, 0},
	    {"65536:80", NULL, 0},
	    {"80:65536", NULL, 0},
	    {"a:80", NULL, 0},
	    {"80:80/sctp", NULL, 0},
	    {"80:80/", NULL, 0},
	    {"localhost:80:80", NULL, 0},
	    {"::1:80:80", NULL, 0},
	    {"[127.0.0.1]:80:80", NULL, 0},
	    {"[::1:80:80", NULL, 0},
	    {"8000-8001:80-82", NULL, 0},
	    {"81-80:80-81", NULL, 0},
	    {"80-", NULL, 0},
	    {"-80:80", NULL, 0},
	    {"1-300:1-300", NULL, 0},
	    {" 80:80", NULL, 0},
	    {"80:+80", NULL, 0},
	    {"1:2:3:4", NULL, 0},
	    {"99999999999999999999:80", NULL, 0},
	};
	for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
		struct net_publish *list = NULL;
		struct cai_error err = {.text = ""};
		char shown[100];
		size_t n = 0;
		int r = net_publish_parse(cases[k].text, &list, &n, &err);
		if (!cases[k].shown) {
			assert_int_equal(r, -1);
			assert_int_equal(n, 0);
			assert_true(err.text[0]);
			continue;
		}
		if (r < 0)
			fail_msg("%s: %s", cases[k].text, err.text);
		assert_int_equal(n, cases[k].n);
		net_publish_format(&list[0], shown, sizeof(shown));
		assert_string_equal(shown, cases[k].shown);
		assert_int_equal(list[n - 1].guest_port, list[0].guest_port + n - 1);
		free(list);
	}
}

static void other_words_are_checked(void **state)
{
	static const struct {
		int kind; /* 0 mac, 1 dns, 2 add-host, 3 name */
		const char *text;
		bool good;
	} cases[] = {
	    {0, "02:00:00:00:00:01", true},
	    {0, "02:00:00:00:00:0g", false},
	    {0, "01:00:5e:00:00:01", false},
	    {0, "00:00:00:00:00:00", false},
	    {0, "ff:ff:ff:ff:ff:ff", false},
	    {0, "2:0:0:0:0:1", false},
	    {0, "02:00:00:00:00:01:02", false},
	    {0, "", false},
	    {1, "192.0.2.1", true},
	    {1, "2001:db8::1", true},
	    {1, "dns.example", false},
	    {1, "192.0.2.1 ", false},
	    {1, "", false},
	    {2, "db:192.0.2.1", true},
	    {2, "db=2001:db8::1", true},
	    {2, "db:2001:db8::1", true},
	    {2, "db", false},
	    {2, ":192.0.2.1", false},
	    {2, "db:x", false},
	    {2, "d b:192.0.2.1", false},
	    {2, "d\nb:192.0.2.1", false},
	    {2, "db:host-gateway", false},
	    {3, "shop", true},
	    {3, "a.b_c-1", true},
	    {3, "", false},
	    {3, ".x", false},
	    {3, "-x", false},
	    {3, "a/b", false},
	    {3, "a b", false},
	    {3, "..", false},
	};
	for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
		uint8_t mac[6];
		struct cai_error err = {.text = ""};
		const char *t = cases[k].text;
		bool good = cases[k].kind == 0	 ? net_mac_parse(t, mac, &err) == 0
			    : cases[k].kind == 1 ? net_dns_parse(t, &err) == 0
			    : cases[k].kind == 2 ? net_add_host_parse(t, &err) == 0
						 : net_name_ok(t);
		if (good != cases[k].good)
			fail_msg("%d '%s'", cases[k].kind, t);
	}
}

static void resolv_conf_is_read_and_written(void **state)
{
	struct resolv r;
	resolv_parse("# comment\nnameserver 192.0.2.1 # the first\n;x\nnameserver\t2001:db8::1\nnameserver "
		     "nonsense\nnameserver 192.0.2.3\n"
		     "nameserver 192.0.2.4\ndomain old.example\nsearch a.example b.example\noptions ndots:2 "
		     "\x1b[31m edns0\r\n",
		     &r);
	assert_int_equal(r.n_servers, 3);
	char *text = resolv_text(&r, NULL);
	assert_string_equal(
	    text,
	    "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.3\nsearch a.example b.example\n"
	    "options ndots:2 edns0\n");
	free(text);
	text = resolv_text(&r, "10.213.0.1");
	assert_true(strncmp(text, "nameserver 10.213.0.1\nsearch", 28) == 0);
	free(text);
	resolv_parse("", &r);
	text = resolv_text(&r, NULL);
	assert_string_equal(text, "");
	free(text);
}

static void servers_that_a_sandbox_cannot_reach_are_known(void **state)
{
	static const struct {
		const char *addr;
		bool unreachable;
	} cases[] = {{"127.0.0.1", true},  {"127.0.0.53", true},      {"::1", true},
		     {"fe80::1", true},	   {"169.254.169.254", true}, {"0.0.0.0", true},
		     {"192.0.2.1", false}, {"2001:db8::1", false}};
	for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
		struct ip_addr a;
		assert_int_equal(ip_parse(cases[k].addr, &a), 0);
		if (resolv_unreachable(&a) != cases[k].unreachable)
			fail_msg("%s", cases[k].addr);
	}
}

static void hosts_names_the_sandbox_and_what_was_added(void **state)
{
	const char *add[] = {"db:192.0.2.7", "v6=2001:db8::7", NULL};
	struct net_request q = {.hostname = "web1", .name = "shop", .add_host = add};
	struct ip_addr a4, a6;
	ip_parse("10.213.0.16", &a4);
	ip_parse("fd00::10", &a6);
	char *text = hosts_text(&q, &a4, &a6);
	assert_non_null(strstr(text, "127.0.0.1\tlocalhost\n"));
	assert_non_null(strstr(text, "192.0.2.7\tdb\n"));
	assert_non_null(strstr(text, "2001:db8::7\tv6\n"));
	assert_non_null(strstr(text, "10.213.0.16\tweb1 shop\n"));
	assert_non_null(strstr(text, "fd00::10\tweb1 shop\n"));
	free(text);
	text = hosts_text(&q, NULL, NULL);
	assert_non_null(strstr(text, "127.0.1.1\tweb1 shop\n"));
	free(text);
}

static void named_networks_are_kept(void **state)
{
	char dir[] = "/tmp/caisson-net-XXXXXX";
	struct network net, *list;
	struct cai_error err;
	size_t n;
	assert_non_null(mkdtemp(dir));
	int root = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(network_list(root, &list, &n, &err), 0);
	assert_int_equal(n, 0);
	assert_int_equal(network_load(root, "blue", &net, &err), -1);
	assert_int_equal(err.errnum, ENOENT);
	assert_int_equal(network_create(root, "red", true, &net, &err), 0);
	assert_int_equal(network_create(root, "blue", false, &net, &err), 0);
	assert_int_equal(network_create(root, "blue", false, &net, &err), -1);
	assert_int_equal(err.errnum, EEXIST);
	static const char *const bad[] = {"none", "host", "../x", "", ".hidden", "a/b"};
	for (size_t k = 0; k < ARRAY_LEN(bad); k++)
		assert_int_equal(network_create(root, bad[k], false, &net, &err), -1);
	assert_int_equal(network_list(root, &list, &n, &err), 0);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].name, "blue");
	assert_string_equal(list[1].name, "red");
	assert_true(list[1].internal && !list[0].internal && list[0].group != list[1].group);
	assert_true((list[0].group & 1) && (list[1].group & GROUP_INTERNAL) && list[1].group <= INT32_MAX);
	assert_int_equal(strlen(list[0].id), 32);
	free(list);

	/* A damaged file is named, and in nobody's way. */
	int fd = openat(root, "networks/red.json", O_WRONLY | O_TRUNC);
	assert_int_equal(write(fd, "{", 1), 1);
	close(fd);
	assert_int_equal(network_load(root, "red", &net, &err), -1);
	assert_non_null(strstr(err.text, "networks/red.json is damaged"));
	assert_int_equal(network_list(root, &list, &n, &err), 0);
	assert_int_equal(n, 1);
	free(list);
	unlinkat(root, "networks/red.json", 0);
	unlinkat(root, "networks/blue.json", 0);
	unlinkat(root, "networks", AT_REMOVEDIR);
	close(root);
	rmdir(dir);
}

static void of_many_that_create_a_network_at_once_one_wins(void **state)
{
	char dir[] = "/tmp/caisson-net-XXXXXX";
	struct network net;
	assert_non_null(mkdtemp(dir));
	int root = open(dir, O_RDONLY | O_DIRECTORY), won = 0, status;
	for (int k = 0; k < 8; k++)
		if (fork() == 0)
			_exit(network_create(root, "one", false, &net, NULL) == 0 ? 7 : 8);
	while (wait(&status) > 0)
		won += WEXITSTATUS(status) == 7;
	assert_int_equal(won, 1);
	unlinkat(root, "networks/one.json", 0);
	assert_int_equal(unlinkat(root, "networks", AT_REMOVEDIR), 0);
	close(root);
	rmdir(dir);
}

/* "example.org" as a query; returns its length. */
static size_t make_query(uint8_t *p, const char *name, uint16_t type)
{
	static const uint8_t head[12] = {0x12, 0x34, 1, 0, 0, 1};
	memcpy(p, head, 12);
	size_t n = 12 + dns_put_name(name, p + 12, 300);
	const uint8_t tail[4] = {0, (uint8_t)type, 0, 1};
	memcpy(p + n, tail, 4);
	return n + 4;
}

static void dns_queries_are_read(void **state)
{
	uint8_t p[512], out[512];
	struct dns_question q;
	size_t n = make_query(p, "Example.ORG", DNS_A);
	assert_true(dns_parse_query(p, n, &q));
	assert_string_equal(q.name, "example.org");
	assert_int_equal(q.type, DNS_A);
	assert_int_equal(q.end, n);
	for (size_t k = 0; k < n; k++)
		assert_false(dns_parse_query(p, k, &q));
	p[2] |= 0x80;
	assert_false(dns_parse_query(p, n, &q)); /* a response */
	p[2] &= 0x7f;
	p[5] = 2;
	assert_false(dns_parse_query(p, n, &q)); /* two questions */
	p[5] = 1;
	p[12] = 0xc0;
	assert_false(dns_parse_query(p, n, &q)); /* a pointer */
	n = make_query(p, "x.y", DNS_A);
	p[13] = '.';
	assert_true(dns_parse_query(p, n, &q));
	assert_string_equal(q.name, "?.y"); /* not "..y" */

	n = make_query(p, "db", DNS_A);
	assert_true(dns_parse_query(p, n, &q));
	size_t len =
	    dns_respond(p, &q, DNS_NOERROR, (const uint8_t *)"\x0a\xd5\x00\x10", 4, 1, 5, out, sizeof(out));
	assert_int_equal(len, n + 16);
	assert_memory_equal(out, "\x12\x34\x85\x80\x00\x01\x00\x01\x00\x00\x00\x00", 12);
	assert_memory_equal(out + n, "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\xd5\x00\x10", 16);
	assert_true(dns_is_response(out, len, p + 12, q.end - 12));
	out[13] = 'x';
	assert_false(dns_is_response(out, len, p + 12, q.end - 12));
}

static void a_name_of_the_greatest_length_fits(void **state)
{
	uint8_t p[512] = {0x12, 0x34, 1, 0, 0, 1};
	struct dns_question q;
	size_t at = 12;
	/* Three labels of 63 bytes and one of 61: 255 bytes with lengths and root. */
	for (int k = 0; k < 4; k++) {
		uint8_t len = k < 3 ? 63 : 61;
		p[at++] = len;
		memset(p + at, 'a', len);
		at += len;
	}
	p[at] = 0;
	p[at + 2] = p[at + 4] = 1;
	assert_true(dns_parse_query(p, at + 5, &q));
	assert_int_equal(strlen(q.name), 253);
	p[12 + 64 * 3] = 62;
	assert_false(dns_parse_query(p, sizeof(p), &q));
}

static void reverse_names_are_addresses(void **state)
{
	uint8_t a[16];
	assert_int_equal(dns_reverse_address("16.0.213.10.in-addr.arpa", a), 4);
	assert_memory_equal(a, "\x0a\xd5\x00\x10", 4);
	assert_int_equal(dns_reverse_address(
			     "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", a),
			 16);
	assert_memory_equal(a, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
	static const char *const bad[] = {
	    "",
	    "in-addr.arpa",
	    "1.2.3.in-addr.arpa",
	    "1.2.3.4.in-addr.arpa.x",
	    "256.1.1.1.in-addr.arpa",
	    "g.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"};
	for (size_t k = 0; k < ARRAY_LEN(bad); k++)
		assert_int_equal(dns_reverse_address(bad[k], a), 0);
}

static size_t frame4(uint8_t *f, const char *src, const char *dst, uint8_t proto, uint16_t port)
{
	memset(f, 2, 12);
	memset(f + 12, 0, 30);
	f[12] = 8;
	f[14] = 0x45;
	f[14 + 9] = proto;
	inet_pton(AF_INET, src, f + 14 + 12);
	inet_pton(AF_INET, dst, f + 14 + 16);
	f[14 + 22] = (uint8_t)(port >> 8);
	f[14 + 23] = (uint8_t)port;
	return 14 + 28;
}

static size_t frame6(uint8_t *f, const char *src, const char *dst, uint8_t next, uint8_t first)
{
	memset(f, 2, 12);
	memset(f + 12, 0, 70);
	f[12] = 0x86;
	f[13] = 0xdd;
	f[14] = 0x60;
	f[14 + 6] = next;
	inet_pton(AF_INET6, src, f + 14 + 8);
	inet_pton(AF_INET6, dst, f + 14 + 24);
	f[14 + 40] = first;
	return 14 + 48;
}

static void the_sieve_lets_through_what_goes_out_and_nothing_to_the_host(void **state)
{
	static const struct {
		const char *src, *dst;
		uint8_t proto;
		uint16_t what; /* port, or ICMPv6 type */
		bool pass;
	} cases[] = {
	    {"198.51.100.2", "192.0.2.1", 6, 80, true},
	    {"198.51.100.2", "10.0.0.1", 17, 53, true},
	    {"198.51.100.3", "192.0.2.1", 6, 80, false}, /* somebody else's address */
	    {"127.0.0.1", "192.0.2.1", 6, 80, false},
	    {"198.51.100.2", "127.0.0.1", 17, 53, false},
	    {"198.51.100.2", "127.255.0.1", 6, 80, false},
	    {"198.51.100.2", "0.0.0.0", 6, 80, false},
	    {"198.51.100.2", "198.51.100.2", 6, 80, false},
	    {"198.51.100.2", "172.17.0.1", 6, 80, false},
	    {"198.51.100.2", "169.254.169.254", 6, 80, false},
	    {"198.51.100.2", "224.0.0.251", 17, 5353, false},
	    {"198.51.100.2", "255.255.255.255", 17, 67, false},
	    {"198.51.100.2", "169.254.1.1", 17, 53, true},
	    {"198.51.100.2", "169.254.1.1", 6, 53, true},
	    {"198.51.100.2", "169.254.1.1", 17, 54, false},
	    {"198.51.100.2", "169.254.1.1", 1, 53, false},
	    {"2001:db8::2", "2001:db8:9::1", 6, 0, true},
	    {"2001:db8::3", "2001:db8:9::1", 6, 0, false},
	    {"2001:db8::2", "::1", 6, 0, false},
	    {"2001:db8::2", "::", 6, 0, false},
	    {"2001:db8::2", "::ffff:127.0.0.1", 6, 0, false},
	    {"2001:db8::2", "::127.0.0.1", 6, 0, false},
	    {"2001:db8::2", "64:ff9b::127.0.0.1", 6, 0, false},
	    {"2001:db8::2", "64:ff9b::192.0.2.1", 6, 0, true},
	    {"2001:db8::2", "2002:7f00:1::", 6, 0, false},
	    {"2001:db8::2", "2001:db8::2", 6, 0, false},
	    {"2001:db8::2", "fd00:ec2::254", 6, 0, false},
	    {"fe80::1", "2001:db8:9::1", 6, 0, false},
	    {"fe80::1", "ff02::1:ff00:1", 58, 135, true},
	    {"::", "ff02::1:ff00:1", 58, 135, true},
	    {"2001:db8::2", "fe80::1", 58, 136, true},
	    {"fe80::1", "ff02::1", 58, 134, true}, /* to passt, which ignores it */
	    {"fe80::1", "ff02::1", 58, 128, false},
	    {"2001:db8::2", "fe80::1", 6, 0, false},
	    {"2001:db8::2", "ff02::fb", 17, 0, false},
	};
	struct sieve s = {.n_host = 3};
	uint8_t f[128];
	ip_parse("198.51.100.2", &s.addr4);
	ip_parse("2001:db8::2", &s.addr6);
	ip_parse("169.254.1.1", &s.dns);
	s.host[0] = s.addr4;
	s.host[1] = s.addr6;
	ip_parse("172.17.0.1", &s.host[2]);
	for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
		bool six = strchr(cases[k].src, ':') != NULL;
		size_t n = six ? frame6(f, cases[k].src, cases[k].dst, cases[k].proto, (uint8_t)cases[k].what)
			       : frame4(f, cases[k].src, cases[k].dst, cases[k].proto, cases[k].what);
		if (sieve_pass(&s, f, n) != cases[k].pass)
			fail_msg("%s to %s", cases[k].src, cases[k].dst);
		for (size_t short_ = 0; short_ < 34; short_++)
			assert_false(sieve_pass(&s, f, short_));
	}
	f[12] = 0x81; /* a VLAN tag hides the rest */
	f[13] = 0;
	assert_false(sieve_pass(&s, f, 64));
	size_t n = frame4(f, "198.51.100.2", "169.254.1.1", 17, 53);
	f[14 + 7] = 1; /* a later fragment has no port */
	assert_false(sieve_pass(&s, f, n));
	s.dns.family = 0;
	f[14 + 7] = 0;
	assert_false(sieve_pass(&s, f, n));
}

static void a_port_in_use_is_named(void **state)
{
	struct net_publish p[2] = {{.addr = "127.0.0.1", .guest_port = 80, .proto = IPPROTO_TCP},
				   {.addr = "127.0.0.1", .guest_port = 80, .proto = IPPROTO_TCP}};
	struct ports a, b;
	struct cai_error err;
	char number[16];
	assert_int_equal(ports_bind(p, 1, &a, &err), 0);
	assert_true(a.list[0].host_port != 0 && a.fd[0] >= 0);
	p[1].host_port = a.list[0].host_port;
	assert_int_equal(ports_bind(p, 2, &b, &err), -1);
	snprintf(number, sizeof(number), "%u/tcp", p[1].host_port);
	assert_non_null(strstr(err.text, number));
	assert_non_null(strstr(err.text, "in use"));
	/* Nothing of the second attempt is left, and the port is free once the first lets go. */
	ports_free(&a);
	assert_int_equal(ports_bind(p + 1, 1, &b, &err), 0);
	ports_free(&b);
	struct net_publish foreign = {
	    .addr = "192.0.2.1", .host_port = 8080, .guest_port = 80, .proto = IPPROTO_TCP};
	assert_int_equal(ports_bind(&foreign, 1, &b, &err), -1);
	assert_non_null(strstr(err.text, "no such address"));
}

static void attributes_are_read_within_their_bounds(void **state)
{
	const struct nlattr *t[4];
	uint8_t p[] = {8, 0, 1, 0, 1, 2, 3, 4, 6, 0, 2, 0, 'h', 'i', 0, 0, 200, 0, 3, 0, 1, 2, 3, 4};
	char text[2];
	nl_parse(p, sizeof(p), t, 3);
	assert_non_null(t[1]);
	assert_int_equal(nl_get_u32(t[1]), 0x04030201);
	nl_get_str(t[2], text, sizeof(text));
	assert_string_equal(text, "h");
	assert_null(t[3]);
	assert_int_equal(nl_get_u32(t[3]), 0);
	p[16] = 3; /* shorter than its own header */
	nl_parse(p, sizeof(p), t, 3);
	assert_null(t[3]);
	nl_parse(p, 3, t, 3);
	assert_null(t[1]);
}

/* A sandbox's server that refuses, seen through the proxy. */
static void the_proxy_resets_what_the_sandbox_refuses(void **state)
{
	struct net_publish p = {.addr = "127.0.0.1", .guest_port = 1, .proto = IPPROTO_TCP};
	struct ports ports;
	struct proxy_target t = {.device = NULL};
	struct loop *l = loop_new(NULL);
	char byte;
	assert_int_equal(ip_parse("127.0.0.1", &t.addr4), 0);
	assert_int_equal(ports_bind(&p, 1, &ports, NULL), 0);
	struct proxy *x = proxy_new(l, &t, NULL);
	assert_int_equal(proxy_add_tcp(x, ports.fd[0], false, 1, NULL), 0);
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(ports.list[0].host_port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(c, (struct sockaddr *)&a, sizeof(a)), 0);
	for (int k = 0; k < 100 && recv(c, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN; k++) {
		loop_poll(l, NULL);
		usleep(2000);
	}
	assert_int_equal(recv(c, &byte, 1, MSG_DONTWAIT), 0); /* the reset has been told above */
	close(c);
	proxy_free(x);
	ports_free(&ports);
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ports_are_read_as_docker_reads_them_but_on_loopback),
	    cmocka_unit_test(other_words_are_checked),
	    cmocka_unit_test(resolv_conf_is_read_and_written),
	    cmocka_unit_test(servers_that_a_sandbox_cannot_reach_are_known),
	    cmocka_unit_test(hosts_names_the_sandbox_and_what_was_added),
	    cmocka_unit_test(named_networks_are_kept),
	    cmocka_unit_test(of_many_that_create_a_network_at_once_one_wins),
	    cmocka_unit_test(dns_queries_are_read),
	    cmocka_unit_test(a_name_of_the_greatest_length_fits),
	    cmocka_unit_test(reverse_names_are_addresses),
	    cmocka_unit_test(the_sieve_lets_through_what_goes_out_and_nothing_to_the_host),
	    cmocka_unit_test(a_port_in_use_is_named),
	    cmocka_unit_test(attributes_are_read_within_their_bounds),
	    cmocka_unit_test(the_proxy_resets_what_the_sandbox_refuses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
