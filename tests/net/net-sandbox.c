/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox's network without a sandbox, for tests: makes it, says what it is in one line of JSON on standard
 * output, waits until standard input ends, and takes it down. What the sandbox would do, the test does, in
 * the namespace or on the tap that are told.
 *
 *   net-sandbox --root DIR --libexec DIR [--id ID] [--name NAME] [--hostname NAME] [--network NAME] [--none]
 * [--tap QUEUES] [-p PORT]...
 *               [--dns ADDR]... [--add-host NAME:ADDR]... [--mac MAC]
 *   net-sandbox --root DIR heal | create NAME [internal] | rm NAME | ls | members NAME
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/loop.h"
#include "net/networks.h"
#include "net/publish.h"

#define MAX_LIST 16

static int fail(const struct cai_error *err)
{
	fprintf(stderr, "net-sandbox: %s\n", err->text);
	return 1;
}

static int command(int root, char **argv)
{
	struct cai_error err;
	struct network net, *list;
	struct network_member *members;
	size_t n;
	if (strcmp(argv[0], "heal") == 0)
		return net_heal(root, &err) < 0 ? fail(&err) : 0;
	if (strcmp(argv[0], "describe") == 0) {
		char text[200];
		int r = net_describe(text, sizeof(text));
		puts(text);
		return r < 0;
	}
	if (strcmp(argv[0], "create") == 0)
		return network_create(root, argv[1], argv[2] != NULL, &net, &err) < 0 ? fail(&err) : 0;
	if (strcmp(argv[0], "rm") == 0)
		return network_remove(root, argv[1], &err) < 0 ? fail(&err) : 0;
	if (strcmp(argv[0], "ls") == 0) {
		if (network_list(root, &list, &n, &err) < 0)
			return fail(&err);
		for (size_t k = 0; k < n; k++)
			printf("%s %s%s\n", list[k].name, list[k].id, list[k].internal ? " internal" : "");
		free(list);
		return 0;
	}
	if (strcmp(argv[0], "members") == 0) {
		if (network_load(root, argv[1], &net, &err) < 0 ||
		    network_members(&net, &members, &n, &err) < 0)
			return fail(&err);
		for (size_t k = 0; k < n; k++)
			printf("%s %s %s %s\n", members[k].id, members[k].name, members[k].addr4,
			       members[k].addr6);
		free(members);
		return 0;
	}
	return 2;
}

static void report(const struct net *n, double ms)
{
	json_t *o = json_object(), *fds = json_array(), *addrs = json_array(), *ports = json_array();
	char text[100];
	for (unsigned k = 0; k < n->n_fds; k++)
		json_array_append_new(fds, json_integer(n->fd[k]));
	for (unsigned k = 0; k < n->n_addrs; k++)
		json_array_append_new(addrs, json_string(n->addr[k]));
	for (size_t k = 0; k < n->n_publish; k++) {
		net_publish_format(&n->publish[k], text, sizeof(text));
		json_array_append_new(ports, json_string(text));
	}
	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2],
		 n->mac[3], n->mac[4], n->mac[5]);
	json_object_set_new(o, "pid", json_integer(getpid()));
	json_object_set_new(o, "kind", json_integer(n->kind));
	json_object_set_new(o, "fds", fds);
	json_object_set_new(o, "netns", json_integer(n->netns_fd));
	json_object_set_new(o, "mac", json_string(text));
	json_object_set_new(o, "mtu", json_integer(n->mtu));
	json_object_set_new(o, "addrs", addrs);
	json_object_set_new(o, "gateway4", json_string(n->gateway4));
	json_object_set_new(o, "gateway6", json_string(n->gateway6));
	json_object_set_new(o, "ports", ports);
	json_object_set_new(o, "resolv_conf", json_string(n->resolv_conf));
	json_object_set_new(o, "hosts", json_string(n->hosts));
	json_object_set_new(o, "warning", n->warning ? json_string(n->warning) : json_null());
	json_object_set_new(o, "setup_ms", json_real(ms));
	json_object_set_new(o, "attach_later", json_boolean(n->attach_later));
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(o);
}

/* A line "attach PID" joins that process's namespace (rootless containers), "stats" prints counters; the end
 * of input ends. */
static int serve(struct net *n)
{
	char line[100];
	struct cai_error err;
	struct net_counters c;
	int pid;
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "attach %d", &pid) == 1) {
			if (net_attach(n, pid, &err) < 0)
				return fail(&err);
			puts("attached");
		} else if (strncmp(line, "stats", 5) == 0) {
			if (net_stats(n, &c, &err) < 0)
				return fail(&err);
			printf("%llu %llu\n", (unsigned long long)c.rx_bytes, (unsigned long long)c.tx_bytes);
		}
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct cai_error err;
	struct net n;
	const char *dns[MAX_LIST] = {0}, *hosts[MAX_LIST] = {0};
	struct net_publish *publish = NULL;
	unsigned n_dns = 0, n_hosts = 0;
	struct net_request q = {
	    .root_fd = -1, .id = "0123456789abcdef", .queues = 1, .dns = dns, .add_host = hosts};
	for (int k = 1; k < argc; k++) {
		const char *o = argv[k], *v = argv[k + 1];
		if (strcmp(o, "--none") == 0) {
			q.mode = NET_NONE;
			continue;
		}
		if (o[0] != '-')
			return command(q.root_fd, argv + k);
		if (!v)
			return 2;
		k++;
		if (strcmp(o, "--root") == 0)
			q.root_fd = open(v, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		else if (strcmp(o, "--libexec") == 0)
			q.libexec = v;
		else if (strcmp(o, "--id") == 0)
			q.id = v;
		else if (strcmp(o, "--name") == 0)
			q.name = v;
		else if (strcmp(o, "--hostname") == 0)
			q.hostname = v;
		else if (strcmp(o, "--network") == 0)
			q.mode = NET_NAMED, q.network = v;
		else if (strcmp(o, "--tap") == 0)
			q.microvm = true, q.queues = (unsigned)atoi(v);
		else if (strcmp(o, "--mac") == 0 && net_mac_parse(v, q.mac, &err) == 0)
			q.have_mac = true;
		else if (strcmp(o, "--dns") == 0 && n_dns + 1 < MAX_LIST)
			dns[n_dns++] = v;
		else if (strcmp(o, "--add-host") == 0 && n_hosts + 1 < MAX_LIST)
			hosts[n_hosts++] = v;
		else if (strcmp(o, "-p") != 0 || net_publish_parse(v, &publish, &q.n_publish, &err) < 0)
			return strcmp(o, "-p") == 0 ? fail(&err) : 2;
	}
	q.publish = publish;
	uint64_t start = clock_mono_ns();
	if (net_setup(&q, &n, &err) < 0)
		return fail(&err);
	report(&n, (double)(clock_mono_ns() - start) / 1e6);
	int status = serve(&n);
	net_teardown(&n);
	free(publish);
	return status;
}
