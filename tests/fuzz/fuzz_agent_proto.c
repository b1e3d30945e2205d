/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders of the agent protocol, over a stream of frames as a hostile peer would send it. A body that decodes is encoded
 * again and must decode once more: what the encoder makes, the decoder takes.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "proto/agent.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void frame(const struct agent_header *h, const uint8_t *body)
{
	struct cai_error err;
	struct buf out = {0};
	struct agent_hello hello;
	struct agent_error error;
	struct agent_exit ex;
	struct agent_attached attached;
	struct agent_setup setup;
	struct agent_start start;
	uint16_t rows, cols;
	uint32_t v;

	switch (h->type) {
	case AGENT_HELLO:
		if (agent_get_hello(body, h->len, &hello, &err) == 0)
			agent_put_hello(&out, &hello);
		agent_hello_free(&hello);
		if (out.len) {
			must(agent_get_hello(out.p + AGENT_HEADER_SIZE, out.len - AGENT_HEADER_SIZE, &hello, &err) == 0);
			agent_hello_free(&hello);
		}
		break;
	case AGENT_ERROR:
		if (agent_get_error(body, h->len, &error, &err) == 0)
			agent_put_error(&out, error.code, error.errnum, error.text);
		agent_error_free(&error);
		if (out.len) {
			must(agent_get_error(out.p + AGENT_HEADER_SIZE, out.len - AGENT_HEADER_SIZE, &error, &err) == 0);
			agent_error_free(&error);
		}
		break;
	case AGENT_EXIT:
		if (agent_get_exit(body, h->len, &ex, &err) == 0)
			must(ex.status <= 255 && ex.signal <= 127);
		break;
	case AGENT_SETUP:
		if (agent_get_setup(body, h->len, &setup, &err) == 0)
			agent_put_setup(&out, &setup);
		agent_setup_free(&setup);
		if (out.len) {
			must(agent_get_setup(out.p + AGENT_HEADER_SIZE, out.len - AGENT_HEADER_SIZE, &setup, &err) == 0);
			agent_setup_free(&setup);
		}
		break;
	case AGENT_START:
		if (agent_get_start(body, h->len, &start, &err) == 0)
			agent_put_start(&out, &start);
		agent_start_free(&start);
		if (out.len) {
			must(out.len == AGENT_HEADER_SIZE + h->len && !memcmp(out.p + AGENT_HEADER_SIZE, body, h->len));
			must(agent_get_start(out.p + AGENT_HEADER_SIZE, out.len - AGENT_HEADER_SIZE, &start, &err) == 0);
			agent_start_free(&start);
		}
		break;
	case AGENT_ATTACHED:
		if (agent_get_attached(body, h->len, &attached, &err) == 0)
			must(attached.window <= AGENT_STDIN_WINDOW);
		break;
	case AGENT_RESIZE:
		agent_get_resize(body, h->len, &rows, &cols, &err);
		break;
	default:
		agent_get_u32(body, h->len, &v, &err);
	}
	buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	while (size >= AGENT_HEADER_SIZE) {
		struct agent_header h;
		if (agent_get_header(data, &h, NULL) < 0)
			return 0;
		data += AGENT_HEADER_SIZE;
		size -= AGENT_HEADER_SIZE;
		if (h.len > size)
			h.len = (uint32_t)size; /* decode what a cut stream left */
		uint8_t *body = malloc(h.len ? h.len : 1);
		must(body != NULL);
		if (h.len)
			memcpy(body, data, h.len);
		frame(&h, body);
		free(body);
		data += h.len;
		size -= h.len;
	}
	return 0;
}
