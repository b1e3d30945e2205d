/* SPDX-License-Identifier: Apache-2.0 */
/* What users and the host's resolv.conf say about networks. What is accepted is well formed, and means the
 * same when it is read again. */
#include "fuzz.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "net/publish.h"
#include "net/resolv.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void publish(const char *text)
{
	struct net_publish *list = NULL;
	size_t n = 0;
	struct cai_error err = {.text = ""};
	char shown[100];
	if (net_publish_parse(text, &list, &n, &err) < 0) {
		must(err.text[0] && n == 0);
		return;
	}
	must(n >= 1 && n <= NET_MAX_PUBLISH);
	for (size_t k = 0; k < n; k++) {
		struct ip_addr a;
		must(list[k].guest_port != 0 &&
		     (list[k].proto == IPPROTO_TCP || list[k].proto == IPPROTO_UDP));
		must(ip_parse(list[k].addr, &a) == 0);
		net_publish_format(&list[k], shown, sizeof(shown));
	}
	free(list);
}

static void resolv_conf(const char *text)
{
	struct resolv a, b;
	resolv_parse(text, &a);
	must(a.n_servers <= RESOLV_MAX);
	char *out = resolv_text(&a, NULL);
	must(out);
	resolv_parse(out, &b);
	must(b.n_servers == a.n_servers && memcmp(a.server, b.server, sizeof(a.server)) == 0);
	must(strcmp(a.search, b.search) == 0 && strcmp(a.options, b.options) == 0);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t mac[6];
	if (size < 1)
		return 0;
	char *text = malloc(size);
	must(text);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	switch (data[0] % 6) {
	case 0:
		publish(text);
		break;
	case 1:
		resolv_conf(text);
		break;
	case 2:
		if (net_mac_parse(text, mac, NULL) == 0)
			must(!(mac[0] & 1));
		break;
	case 3:
		if (net_add_host_parse(text, NULL) == 0)
			must(!strpbrk(text, " \t\n#"));
		break;
	case 4:
		net_dns_parse(text, NULL);
		break;
	default:
		if (net_name_ok(text))
			must(text[0] != '.' && !strchr(text, '/') && strlen(text) <= NET_NAME_MAX);
	}
	free(text);
	return 0;
}
