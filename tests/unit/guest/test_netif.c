/* SPDX-License-Identifier: Apache-2.0 */
/* Network interfaces through netlink, in network namespaces of this test's own, on veth devices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "guest/netif.h"

static void addresses_are_parsed_or_refused(void **state)
{
	static const struct {
		const char *text;
		int family; /* 0: refused */
		unsigned prefix;
		uint8_t first, last;
	} cases[] = {
		{"10.88.0.2/24", AF_INET, 24, 10, 2},
		{"10.88.0.2", AF_INET, 32, 10, 2},
		{"0.0.0.0/0", AF_INET, 0, 0, 0},
		{"fd00::2/64", AF_INET6, 64, 0xfd, 2},
		{"fe80::1", AF_INET6, 128, 0xfe, 1},
		{"10.88.0.2/33", 0, 0, 0, 0},
		{"10.88.0.2/", 0, 0, 0, 0},
		{"10.88.0.2/-1", 0, 0, 0, 0},
		{"10.88.0.2/+1", 0, 0, 0, 0},
		{"10.88.0.2/2x", 0, 0, 0, 0},
		{"10.88.0.256", 0, 0, 0, 0},
		{"10.88", 0, 0, 0, 0},
		{"", 0, 0, 0, 0},
		{"/8", 0, 0, 0, 0},
		{"fd00::2/129", 0, 0, 0, 0},
		{"fd00::g", 0, 0, 0, 0},
		{"fd00:0000:0000:0000:0000:0000:0000:0000:0000:0000:0002", 0, 0, 0, 0},
		{"fe80::1%eth0", 0, 0, 0, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct netif_addr a;
		struct cai_error err = {.text = ""};
		int rc = netif_parse(cases[i].text, &a, &err);
		assert_int_equal(rc, cases[i].family ? 0 : -1);
		if (rc < 0) {
			assert_non_null(strstr(err.text, "is not an address"));
			continue;
		}
		assert_int_equal(a.family, cases[i].family);
		assert_int_equal(a.prefix, cases[i].prefix);
		assert_int_equal(a.bits[0], cases[i].first);
		assert_int_equal(a.bits[a.family == AF_INET6 ? 15 : 3], cases[i].last);
	}
}

/* Runs fn in a network namespace with two veth pairs a0-a1 and b0-b1; skips where that cannot be had. */
static void in_namespace(void (*fn)(void))
{
	int status;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNET | (geteuid() ? CLONE_NEWUSER : 0)) < 0)
			_exit(77);
		if (system("ip link add a0 address 02:00:00:00:00:0a type veth peer name a1 2>/dev/null &&"
			   "ip link add b0 address 02:00:00:00:00:0b type veth peer name b1 2>/dev/null && ip link set a1 up && ip link set b1 up") != 0)
			_exit(77);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("skipped: no network namespace, veth or ip(8) on this host\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "failed: %s\n", what);
	(void)!system("ip addr >&2; ip route >&2; ip -6 route >&2");
	_exit(1);
}
#define MUST(x) must(x, #x)

static int shell(const char *command)
{
	return system(command) == 0;
}

static void configure(void)
{
	struct netif n = {0};
	struct cai_error err = {.text = ""};
	const struct agent_setup m = {
		.n_ifaces = 2,
		.iface = {{.mac = {2, 0, 0, 0, 0, 0x0b},
			   .mtu = 1300,
			   .n_addrs = 3,
			   .addr = {(char[]){"10.1.2.3/24"}, (char[]){"10.1.9.9/31"}, (char[]){"fd01::3/64"}},
			   .gateway4 = (char[]){"10.1.2.1"},
			   .gateway6 = (char[]){"fe80::1"}},
			  {.mac = {2, 0, 0, 0, 0, 0x0a}, .n_addrs = 1, .addr = {(char[]){"10.5.0.1"}}, .gateway4 = (char[]){"10.99.0.1"}}},
	};
	for (int again = 0; again < 2; again++) { /* a SETUP that is sent again finds its own work */
		must(netif_setup(&n, &m, &err) == 0, err.text);
		MUST(shell("ip link show b0 | grep -q 'UP.*mtu 1300'"));
		MUST(shell("ip link show a0 | grep -q 'UP.*mtu 1500'"));
		MUST(shell("ip addr show b0 | grep -q 'inet 10.1.2.3/24 brd 10.1.2.255 '"));
		MUST(shell("ip addr show b0 | grep -q 'inet 10.1.9.9/31 '"));
		MUST(shell("ip addr show b0 | grep -q 'inet6 fd01::3/64'"));
		MUST(shell("! ip addr show b0 | grep -q tentative"));
		MUST(shell("ip route | grep -q 'default via 10.1.2.1 dev b0'"));
		MUST(shell("ip route | grep -q 'default via 10.99.0.1 dev a0.*metric 1'"));
		MUST(shell("ip -6 route | grep -q 'default via fe80::1 dev b0'"));
	}
}

static void rename_one(void)
{
	struct netif n = {0};
	struct cai_error err = {.text = ""};
	const struct agent_setup m = {.n_ifaces = 2, .iface = {{.mac = {2, 0, 0, 0, 0, 0x77}}, {.mac = {2, 0, 0, 0, 0, 0x0a}}}};
	/* Restored from a template: the first of those that no entry names takes the new address. */
	MUST(shell("ip link set a1 down; ip link set b1 down; ip link set a1 arp off; ip link set b1 arp off"));
	must(netif_setup(&n, &m, &err) == 0, err.text);
	MUST(shell("ip link show b0 | grep -q 02:00:00:00:00:77")); /* never one without ARP, such as a dummy */
	MUST(shell("ip link show a0 | grep -q UP"));
}

static void renew(void)
{
	struct netif n = {0};
	struct cai_error err = {.text = ""};
	const struct agent_setup m = {
		.n_ifaces = 2,
		.iface = {{.mac = {2, 0, 0, 0, 0, 0x0a}, .n_addrs = 1, .addr = {(char[]){"10.7.0.7/24"}}, .gateway4 = (char[]){"10.7.0.1"}},
			  {.mac = {2, 0, 0, 0, 0, 0x77},
			   .n_addrs = 2,
			   .addr = {(char[]){"10.8.0.8/24"}, (char[]){"fd08::8/64"}},
			   .gateway6 = (char[]){"fe80::1"}}},
	};
	configure();
	MUST(shell("ip link set a1 arp off; ip link set b1 arp off"));
	/* What its programs made of it meanwhile; more addresses than are read at once; one that survives "down". */
	MUST(shell("ip route add 10.44.0.0/16 via 10.1.2.1 dev b0 && ip route add 10.45.0.0/16 via 10.1.2.9 dev b0 table 100"));
	MUST(shell("for i in $(seq 1 150); do ip addr add 10.1.3.$i/24 dev b0; done"));
	MUST(shell("ip addr add 10.60.0.1 peer 10.60.0.2 dev a0"));
	MUST(shell("echo 1 >/proc/sys/net/ipv6/conf/b0/keep_addr_on_down"));
	for (int again = 0; again < 2; again++) {
		must(netif_renew(&n, &m, &err) == 0, err.text);
		MUST(shell("ip link show b0 | grep -q 02:00:00:00:00:77"));
		MUST(shell("ip link show a0 | grep -q 02:00:00:00:00:0a"));
		MUST(shell("ip link show b0 | grep -q UP && ip link show a0 | grep -q UP"));
		MUST(shell("! ip addr | grep -E '10[.](1|5|60)[.]|fd01::'"));
		MUST(shell("! ip route show table all | grep -E '10[.](1|5|44|45|60|99)[.]'"));
		MUST(shell("! ip -6 route show table all | grep -E 'fd01::'"));
		MUST(shell("test $(ip -4 -o addr show | wc -l) = 2"));
		MUST(shell("ip addr show a0 | grep -q 'inet 10.7.0.7/24 brd 10.7.0.255 '"));
		MUST(shell("ip addr show b0 | grep -q 'inet 10.8.0.8/24' && ip addr show b0 | grep -q 'inet6 fd08::8/64'"));
		MUST(shell("ip route | grep -q 'default via 10.7.0.1 dev a0'"));
		MUST(shell("test $(ip route | grep -c default) = 1 && test $(ip -6 route | grep -c 'default via fe80::1 dev b0') = 1"));
	}
}

/* What a saved machine does before it is saved. */
static void bring_up_early(void)
{
	struct cai_error err = {.text = ""};
	static struct netif n;
	const struct agent_setup m = {.n_ifaces = 1,
				      .iface = {{.mac = {2, 0, 0, 0, 0, 0x77}, .n_addrs = 2, .addr = {(char[]){"10.1.2.3/24"}, (char[]){"fd01::3/64"}},
						 .gateway6 = (char[]){"fe80::1"}}}};
	MUST(shell("ip link set a1 arp off; ip link set b1 arp off"));
	netif_early(&n);
	MUST(n.n_links == 2);
	MUST(shell("ip link show a0 | grep -q ',UP' && ip link show b0 | grep -q ',UP' && ip link show lo | grep -q ',UP'"));
	MUST(shell("! ip addr show a0 | grep -q inet && ! ip addr show b0 | grep -q inet"));
	for (int again = 0; again < 2; again++) {
		must(netif_setup(&n, &m, &err) == 0, err.text);
		MUST(shell("ip link show a0 | grep -q 02:00:00:00:00:77 && ip addr show a0 | grep -q 'inet 10.1.2.3/24'"));
		MUST(shell("ip addr show a0 | grep -q 'inet6 fe80::ff:fe00:77/64 scope link' && ip addr show a0 | grep -q 'inet6 fd01::3/64'"));
		MUST(shell("! ip addr | grep -q tentative; ip -6 route | grep -q 'default via fe80::1 dev a0'"));
		MUST(shell("! ip link show b0 | grep -q ',UP'"));
	}
}

static void fail_with(const struct agent_setup *m, const char *says)
{
	struct netif n = {0};
	struct cai_error err = {.text = ""};
	MUST(netif_setup(&n, m, &err) == -1);
	must(strstr(err.text, says) != NULL, err.text);
}

static void refuse(void)
{
	struct agent_setup m = {.n_ifaces = 1, .iface = {{.mac = {2, 0, 0, 0, 0, 0x0a}, .n_addrs = 1, .addr = {(char[]){"nonsense"}}}}};
	fail_with(&m, "\"nonsense\" is not an address");
	m.iface[0].addr[0] = (char[]){"10.0.0.1/8"};
	m.iface[0].gateway4 = (char[]){"fe80::1"};
	fail_with(&m, "wrong family");
	m.iface[0].gateway4 = (char[]){"224.0.0.1"};
	fail_with(&m, "cannot use the gateway 224.0.0.1");
	m.iface[0].gateway4 = NULL;
	m.iface[0].mtu = 7;
	fail_with(&m, "a0 cannot be brought up");
	MUST(shell("ip link del a0; ip link del b0"));
	fail_with(&m, "no network interface for 02:00:00:00:00:0a");
}

static void interfaces_are_found_by_mac_and_get_all_that_was_asked_for(void **state)
{
	in_namespace(configure);
}

static void an_unknown_mac_goes_to_an_interface_that_nobody_names(void **state)
{
	in_namespace(rename_one);
}

static void interfaces_in_use_become_new_ones(void **state)
{
	in_namespace(renew);
}

static void links_are_up_before_setup_but_have_no_address(void **state)
{
	in_namespace(bring_up_early);
}

static void what_the_kernel_does_not_take_is_said(void **state)
{
	in_namespace(refuse);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_parsed_or_refused),
		cmocka_unit_test(interfaces_are_found_by_mac_and_get_all_that_was_asked_for),
		cmocka_unit_test(an_unknown_mac_goes_to_an_interface_that_nobody_names),
		cmocka_unit_test(interfaces_in_use_become_new_ones),
		cmocka_unit_test(links_are_up_before_setup_but_have_no_address),
		cmocka_unit_test(what_the_kernel_does_not_take_is_said),
	};
	return cmocka_run_group_tests_name("network interfaces", tests, NULL, NULL);
}
