/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line that a client of the monitor's vsock socket begins with, "CONNECT port\n": byte 0 chooses the pieces in which the input is
 * written (bit 7: the client then closes its direction). Only such a line may make a connection, and then one that waits for the agent, with
 * what follows the line still unread; all else is closed.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio/vsock.h"

#define MAX_INPUT 256

static void must(bool ok)
{
	if (!ok)
		abort();
}

/* Told by other means than the device's: a decimal number that is written as printf writes it but for leading zeroes, ten digits at most. */
static bool is_connect(const uint8_t *p, size_t n)
{
	char line[64];
	unsigned long long port;
	const uint8_t *nl = n ? memchr(p, '\n', n) : NULL;
	if (!nl || nl - p < 9 || nl - p > 18 || memcmp(p, "CONNECT ", 8))
		return false;
	size_t digits = (size_t)(nl - p) - 8;
	memcpy(line, p + 8, digits);
	line[digits] = 0;
	if (strspn(line, "0123456789") != digits)
		return false;
	port = strtoull(line, NULL, 10);
	return port < 0xffffffffull;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > MAX_INPUT)
		return 0;
	const size_t step = 1 + (data[0] & 0x3f);
	const bool closes = data[0] & 0x80;
	data++;
	size--;

	struct mem m;
	must(mem_create(&m, MEM_MIN_BYTES, NULL) == 0);
	/* A name that the kernel finds: nothing in the file system. */
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(a);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(listener >= 0 && client >= 0 && bind(listener, (struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path)) == 0 &&
	     listen(listener, 4) == 0 && getsockname(listener, (struct sockaddr *)&a, &len) == 0);
	struct virtio_vsock *v = virtio_vsock_create(&m, (struct irq_line){0}, NULL, listener, NULL, NULL, NULL);
	must(v && connect(client, (struct sockaddr *)&a, len) == 0);
	virtio_vsock_poll(v);

	struct virtio_vsock_stats s;
	for (size_t at = 0; at < size; at += step) {
		size_t n = size - at < step ? size - at : step;
		if (send(client, data + at, n, MSG_NOSIGNAL) < 0)
			break;
		virtio_vsock_poll(v);
	}
	virtio_vsock_get_stats(v, &s);
	must(s.conns <= 1 && s.waiting <= s.conns);
	const bool good = is_connect(data, size);
	must(s.waiting == (good ? 1u : 0));
	if (closes) {
		shutdown(client, SHUT_WR);
		virtio_vsock_poll(v);
		virtio_vsock_get_stats(v, &s);
		must(good || s.conns == 0);
	}
	if (!s.conns) {
		char c;
		must(recv(client, &c, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET); /* closed, and without an answer */
	}
	close(client);
	virtio_vsock_poll(v);
	virtio_vsock_get_stats(v, &s);
	must(s.conns == 0 && s.waiting == 0);
	virtio_vsock_destroy(v);
	mem_destroy(&m);
	return 0;
}
