/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Encoding: a frame is appended with a length of 0, its body after it, and the length is patched in when the body is
 * complete; so a body is written once, where it will be sent from. A body that came out over AGENT_MAX_BODY marks the buffer
 * failed, as running out of memory does: the caller checks one flag before it sends.
 *
 * Decoding: everything is read through struct buf_reader, which refuses to go past the end and remembers that it had to; each
 * decoder checks once, at its end, that all was there and nothing was left over, and releases what it had already copied
 * when not. Counts are checked against the bytes that are left before anything is allocated for them.
 */
#include "proto/agent.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "proto/text.h"

#define MAX_KERNEL_TEXT 256u  /* HELLO's kernel name */
#define MAX_ERROR_TEXT  1024u /* ERROR's sentence */
#define MAX_ADDR_TEXT   64u   /* an address with its prefix length */
#define MAX_PATH_TEXT   4096u
#define START_FLAGS     (AGENT_START_TTY | AGENT_START_STDIN | AGENT_START_BUILTIN | AGENT_START_DETACH)

int agent_get_header(const uint8_t raw[AGENT_HEADER_SIZE], struct agent_header *h, struct cai_error *err)
{
	struct buf_reader r = buf_reader(raw, AGENT_HEADER_SIZE);
	h->len = buf_get_u32(&r);
	h->type = buf_get_u16(&r);
	h->version = buf_get_u16(&r);
	uint32_t reserved = buf_get_u32(&r);

	if (h->version != AGENT_VERSION)
		return cai_fail(err, 0, "the peer speaks version %u of the agent protocol, this side speaks %u", h->version,
				AGENT_VERSION);
	if (reserved != 0)
		return cai_fail(err, 0, "malformed frame: a reserved field is 0x%x, not 0", reserved);
	if (h->len > AGENT_MAX_BODY)
		return cai_fail(err, 0, "malformed frame: a body of %u bytes, at most %u are allowed", h->len, AGENT_MAX_BODY);
	return 0;
}

/* Appends a header whose length is still 0. Returns where the body starts. */
static size_t begin(struct buf *out, enum agent_type type)
{
	buf_put_u32(out, 0);
	buf_put_u16(out, (uint16_t)type);
	buf_put_u16(out, AGENT_VERSION);
	buf_put_u32(out, 0);
	return out->len;
}

static void end(struct buf *out, size_t body)
{
	if (out->failed)
		return;
	size_t n = out->len - body;
	if (n > AGENT_MAX_BODY) {
		out->failed = true;
		return;
	}
	store_le32(out->p + body - AGENT_HEADER_SIZE, (uint32_t)n);
}

void agent_put_frame(struct buf *out, enum agent_type type, const void *body, size_t len)
{
	size_t at = begin(out, type);
	if (len > AGENT_MAX_BODY)
		out->failed = true;
	buf_put_bytes(out, body, len);
	end(out, at);
}

/* At most max bytes of s, so that a long sentence is cut instead of refused by the other side. */
static void put_cut(struct buf *out, const char *s, size_t max)
{
	size_t n = strnlen(s, max);
	buf_put_u32(out, (uint32_t)n);
	buf_put_bytes(out, s, n);
}

static void put_string(struct buf *out, const char *s)
{
	buf_put_string(out, s ? s : "");
}

static void put_strings(struct buf *out, char *const *v)
{
	uint32_t n = 0;
	while (v && v[n])
		n++;
	buf_put_u32(out, n);
	for (uint32_t i = 0; i < n; i++)
		buf_put_string(out, v[i]);
}

void agent_put_hello(struct buf *out, const struct agent_hello *m)
{
	size_t at = begin(out, AGENT_HELLO);
	buf_put_u32(out, m->version);
	put_cut(out, m->kernel ? m->kernel : "", MAX_KERNEL_TEXT);
	end(out, at);
}

void agent_put_error(struct buf *out, uint32_t code, uint32_t errnum, const char *text)
{
	size_t at = begin(out, AGENT_ERROR);
	buf_put_u32(out, code);
	buf_put_u32(out, errnum);
	put_cut(out, text ? text : "", MAX_ERROR_TEXT);
	end(out, at);
}

void agent_put_exit(struct buf *out, const struct agent_exit *m)
{
	size_t at = begin(out, AGENT_EXIT);
	buf_put_u32(out, m->status);
	buf_put_u32(out, m->signal);
	buf_put_u32(out, m->flags);
	end(out, at);
}

void agent_put_attached(struct buf *out, const struct agent_attached *m)
{
	size_t at = begin(out, AGENT_ATTACHED);
	buf_put_u32(out, m->window);
	buf_put_u32(out, m->flags);
	end(out, at);
}

void agent_put_u32(struct buf *out, enum agent_type type, uint32_t v)
{
	size_t at = begin(out, type);
	buf_put_u32(out, v);
	end(out, at);
}

void agent_put_resize(struct buf *out, uint16_t rows, uint16_t cols)
{
	size_t at = begin(out, AGENT_RESIZE);
	buf_put_u16(out, rows);
	buf_put_u16(out, cols);
	end(out, at);
}

static void put_iface(struct buf *out, const struct agent_iface *i)
{
	buf_put_bytes(out, i->mac, sizeof(i->mac));
	buf_put_u32(out, i->mtu);
	if (i->n_addrs > AGENT_MAX_ADDRS)
		out->failed = true;
	buf_put_u32(out, i->n_addrs);
	for (unsigned k = 0; k < i->n_addrs && k < AGENT_MAX_ADDRS; k++)
		put_string(out, i->addr[k]);
	put_string(out, i->gateway4);
	put_string(out, i->gateway6);
}

static void put_mount(struct buf *out, const struct agent_mount *m)
{
	buf_put_u32(out, m->type);
	buf_put_u32(out, m->flags);
	put_string(out, m->source);
	put_string(out, m->target);
	put_string(out, m->subpath);
	put_string(out, m->options);
}

void agent_put_setup(struct buf *out, const struct agent_setup *m)
{
	size_t at = begin(out, AGENT_SETUP);
	put_string(out, m->hostname);
	buf_put_u64(out, m->realtime_ns);
	buf_put_bytes(out, m->entropy, sizeof(m->entropy));
	put_string(out, m->root_dev);
	put_string(out, m->root_fstype);
	buf_put_u32(out, m->root_mode);
	buf_put_u32(out, m->flags);
	put_string(out, m->upper_dev);
	put_string(out, m->upper_fstype);
	put_string(out, m->resolv_conf);
	put_string(out, m->hosts);
	if (m->n_ifaces > AGENT_MAX_IFACES || m->n_mounts > AGENT_MAX_MOUNTS)
		out->failed = true;
	buf_put_u32(out, m->n_ifaces);
	for (unsigned i = 0; i < m->n_ifaces && i < AGENT_MAX_IFACES; i++)
		put_iface(out, &m->iface[i]);
	buf_put_u32(out, m->n_mounts);
	for (unsigned i = 0; i < m->n_mounts && i < AGENT_MAX_MOUNTS; i++)
		put_mount(out, &m->mount[i]);
	end(out, at);
}

void agent_put_start(struct buf *out, const struct agent_start *m)
{
	size_t at = begin(out, AGENT_START);
	buf_put_u32(out, m->flags);
	buf_put_u16(out, m->rows);
	buf_put_u16(out, m->cols);
	put_strings(out, m->argv);
	put_strings(out, m->env);
	put_string(out, m->cwd);
	put_string(out, m->user);
	if (m->n_rlimits > AGENT_MAX_RLIMITS)
		out->failed = true;
	buf_put_u32(out, m->n_rlimits);
	for (unsigned i = 0; i < m->n_rlimits && i < AGENT_MAX_RLIMITS; i++) {
		buf_put_u32(out, m->rlimit[i].resource);
		buf_put_u64(out, m->rlimit[i].soft);
		buf_put_u64(out, m->rlimit[i].hard);
	}
	end(out, at);
}

static int malformed(struct cai_error *err, const char *what)
{
	return cai_fail(err, 0, "malformed frame: the body of %s is truncated, too long or out of range", what);
}

int agent_get_hello(const void *body, size_t len, struct agent_hello *m, struct cai_error *err)
{
	struct buf_reader r = buf_reader(body, len);
	*m = (struct agent_hello){0};
	m->version = buf_get_u32(&r);
	m->kernel = buf_get_string(&r, MAX_KERNEL_TEXT);
	if (!buf_done(&r)) {
		agent_hello_free(m);
		return malformed(err, "HELLO");
	}
	proto_make_printable(m->kernel, false);
	return 0;
}

int agent_get_error(const void *body, size_t len, struct agent_error *m, struct cai_error *err)
{
	struct buf_reader r = buf_reader(body, len);
	*m = (struct agent_error){0};
	m->code = buf_get_u32(&r);
	m->errnum = buf_get_u32(&r);
	m->text = buf_get_string(&r, MAX_ERROR_TEXT);
	if (!buf_done(&r)) {
		agent_error_free(m);
		return malformed(err, "ERROR");
	}
	proto_make_printable(m->text, false);
	return 0;
}

int agent_get_exit(const void *body, size_t len, struct agent_exit *m, struct cai_error *err)
{
	struct buf_reader r = buf_reader(body, len);
	m->status = buf_get_u32(&r);
	m->signal = buf_get_u32(&r);
	m->flags = buf_get_u32(&r);
	/* The host makes its own exit status of these: what wait(2) cannot report must not reach that sum. */
	if (!buf_done(&r) || m->status > 255 || m->signal > 127 || (m->flags & ~AGENT_EXIT_OOM))
		return malformed(err, "EXIT");
	return 0;
}

int agent_get_attached(const void *body, size_t len, struct agent_attached *m, struct cai_error *err)
{
	struct buf_reader r = buf_reader(body, len);
	m->window = buf_get_u32(&r);
	m->flags = buf_get_u32(&r);
	/* The host sends as much as this says. */
	if (!buf_done(&r) || m->window > AGENT_STDIN_WINDOW || (m->flags & ~AGENT_ATTACHED_STDIN))
		return malformed(err, "ATTACHED");
	return 0;
}

int agent_get_u32(const void *body, size_t len, uint32_t *v, struct cai_error *err)
{
	struct buf_reader r = buf_reader(body, len);
	*v = buf_get_u32(&r);
	return buf_done(&r) ? 0 : malformed(err, "a one-number frame");
}

int agent_get_resize(const void *body, size_t len, uint16_t *rows, uint16_t *cols, struct cai_error *err)
{
	struct buf_reader r = buf_reader(body, len);
	*rows = buf_get_u16(&r);
	*cols = buf_get_u16(&r);
	return buf_done(&r) ? 0 : malformed(err, "RESIZE");
}

static void get_iface(struct buf_reader *r, struct agent_iface *i)
{
	const void *mac = buf_get_bytes(r, sizeof(i->mac));
	if (mac)
		memcpy(i->mac, mac, sizeof(i->mac));
	i->mtu = buf_get_u32(r);
	uint32_t n = buf_get_u32(r);
	if (n > AGENT_MAX_ADDRS)
		r->bad = true;
	while (!r->bad && i->n_addrs < n)
		i->addr[i->n_addrs++] = buf_get_string(r, MAX_ADDR_TEXT);
	i->gateway4 = buf_get_string(r, MAX_ADDR_TEXT);
	i->gateway6 = buf_get_string(r, MAX_ADDR_TEXT);
}

static void get_mount(struct buf_reader *r, struct agent_mount *m)
{
	m->type = buf_get_u32(r);
	m->flags = buf_get_u32(r);
	m->source = buf_get_string(r, MAX_PATH_TEXT);
	m->target = buf_get_string(r, MAX_PATH_TEXT);
	m->subpath = buf_get_string(r, MAX_PATH_TEXT);
	m->options = buf_get_string(r, MAX_PATH_TEXT);
	if (m->type < AGENT_MOUNT_VIRTIOFS || m->type > AGENT_MOUNT_DIRECTORY || (m->flags & ~AGENT_MOUNT_RDONLY))
		r->bad = true;
}

static bool setup_makes_sense(const struct agent_setup *m)
{
	if (m->root_mode > AGENT_ROOT_OVERLAY_DISK || (m->flags & ~AGENT_SETUP_READONLY_ROOT))
		return false;
	return (m->root_mode != AGENT_ROOT_NONE || !*m->root_dev) && (m->root_mode != AGENT_ROOT_OVERLAY_DISK || *m->upper_dev);
}

int agent_get_setup(const void *body, size_t len, struct agent_setup *m, struct cai_error *err)
{
	struct buf_reader r = buf_reader(body, len);
	*m = (struct agent_setup){0};
	m->hostname = buf_get_string(&r, AGENT_MAX_STRING);
	m->realtime_ns = buf_get_u64(&r);
	const void *entropy = buf_get_bytes(&r, sizeof(m->entropy));
	if (entropy)
		memcpy(m->entropy, entropy, sizeof(m->entropy));
	m->root_dev = buf_get_string(&r, AGENT_MAX_STRING);
	m->root_fstype = buf_get_string(&r, AGENT_MAX_STRING);
	m->root_mode = buf_get_u32(&r);
	m->flags = buf_get_u32(&r);
	m->upper_dev = buf_get_string(&r, AGENT_MAX_STRING);
	m->upper_fstype = buf_get_string(&r, AGENT_MAX_STRING);
	m->resolv_conf = buf_get_string(&r, AGENT_MAX_ETC_FILE);
	m->hosts = buf_get_string(&r, AGENT_MAX_ETC_FILE);
	/* An entry counts from before it is read: what it got until it failed is released with it. */
	uint32_t n = buf_get_u32(&r);
	if (n > AGENT_MAX_IFACES)
		r.bad = true;
	while (!r.bad && m->n_ifaces < n)
		get_iface(&r, &m->iface[m->n_ifaces++]);
	n = buf_get_u32(&r);
	if (n > AGENT_MAX_MOUNTS)
		r.bad = true;
	while (!r.bad && m->n_mounts < n)
		get_mount(&r, &m->mount[m->n_mounts++]);
	if (!buf_done(&r) || !setup_makes_sense(m)) {
		agent_setup_free(m);
		return malformed(err, "SETUP");
	}
	return 0;
}

static void free_strings(char **v)
{
	for (size_t i = 0; v && v[i]; i++)
		free(v[i]);
	free(v);
}

/* A counted list, NULL-terminated; NULL and r->bad on any violation. */
static char **get_strings(struct buf_reader *r)
{
	uint32_t n = buf_get_u32(r);
	/* Each string is at least its own length field: refuses counts that the body cannot hold. */
	if (n > AGENT_MAX_ARGS || n > r->left / 4)
		r->bad = true;
	if (r->bad)
		return NULL;
	char **v = calloc((size_t)n + 1, sizeof(*v));
	for (uint32_t i = 0; v && i < n; i++) {
		v[i] = buf_get_string(r, AGENT_MAX_STRING);
		if (!v[i]) {
			free_strings(v);
			v = NULL;
		}
	}
	if (!v)
		r->bad = true;
	return v;
}

int agent_get_start(const void *body, size_t len, struct agent_start *m, struct cai_error *err)
{
	struct buf_reader r = buf_reader(body, len);
	*m = (struct agent_start){0};
	m->flags = buf_get_u32(&r);
	m->rows = buf_get_u16(&r);
	m->cols = buf_get_u16(&r);
	m->argv = get_strings(&r);
	m->env = get_strings(&r);
	m->cwd = buf_get_string(&r, AGENT_MAX_STRING);
	m->user = buf_get_string(&r, AGENT_MAX_STRING);
	m->n_rlimits = buf_get_u32(&r);
	if (m->n_rlimits > AGENT_MAX_RLIMITS)
		r.bad = true;
	for (unsigned i = 0; !r.bad && i < m->n_rlimits; i++) {
		m->rlimit[i].resource = buf_get_u32(&r);
		m->rlimit[i].soft = buf_get_u64(&r);
		m->rlimit[i].hard = buf_get_u64(&r);
	}
	bool apart = m->flags & AGENT_START_DETACH;
	if (!buf_done(&r) || (m->flags & ~START_FLAGS) || (apart && (m->flags & (AGENT_START_TTY | AGENT_START_STDIN))) || !m->argv[0]) {
		agent_start_free(m);
		return malformed(err, "START");
	}
	return 0;
}

void agent_hello_free(struct agent_hello *m)
{
	free(m->kernel);
	*m = (struct agent_hello){0};
}

void agent_error_free(struct agent_error *m)
{
	free(m->text);
	*m = (struct agent_error){0};
}

void agent_setup_free(struct agent_setup *m)
{
	free(m->hostname);
	free(m->root_dev);
	free(m->root_fstype);
	free(m->upper_dev);
	free(m->upper_fstype);
	free(m->resolv_conf);
	free(m->hosts);
	for (unsigned i = 0; i < m->n_ifaces; i++) {
		for (unsigned k = 0; k < m->iface[i].n_addrs; k++)
			free(m->iface[i].addr[k]);
		free(m->iface[i].gateway4);
		free(m->iface[i].gateway6);
	}
	for (unsigned i = 0; i < m->n_mounts; i++) {
		free(m->mount[i].source);
		free(m->mount[i].target);
		free(m->mount[i].subpath);
		free(m->mount[i].options);
	}
	*m = (struct agent_setup){0};
}

void agent_start_free(struct agent_start *m)
{
	free_strings(m->argv);
	free_strings(m->env);
	free(m->cwd);
	free(m->user);
	*m = (struct agent_start){0};
}
