/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a first request goes out without credentials; a 401 says which kind the registry
 * wants, and the request is made again with them. libcurl follows redirects (registries send blobs from
 * elsewhere) and keeps the credentials from going to another host. HTTPS is asked for everywhere; only a
 * registry on loopback that does not speak it is talked to in plain HTTP.
 */
#include "image/registry.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "image/credentials.h"

#define PARALLEL    3
#define MAX_TRIES   4
#define MAX_REFUSED 16		 /* so many 401 a blob: tokens that run out while it is fetched */
#define PROGRESS    (1u << 20)	 /* bytes, after which the tries are counted anew */
#define RETRY_NS    500000000ull /* before the third try, twice that before the next */
#define MAX_TOKEN   (64u << 10)

static const char accept_manifests[] =
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";

struct registry {
	struct image_ref ref;
	char base[300]; /* "https://registry-1.docker.io" */
	bool plain;
	char *user, *password; /* NULL: none */
	char *token;	       /* bearer */
	bool basic;	       /* the registry wants user and password themselves */
	unsigned generation;   /* of the token */
	char challenge[4096];  /* of the blob that was last refused */
};

struct answer {
	char *p;
	size_t n, max;
	bool too_large;
	char challenge[4096];
};

static size_t on_body(char *p, size_t size, size_t n, void *ctx)
{
	struct answer *a = ctx;
	n *= size;
	if (n > a->max - a->n) {
		a->too_large = true;
		return 0;
	}
	char *q = realloc(a->p, a->n + n + 1);
	if (!q)
		return 0;
	memcpy(q + a->n, p, n);
	a->p = q;
	a->n += n;
	q[a->n] = 0;
	return n;
}

/* Keeps a challenge; of several, the bearer one. p is n bytes without an end. */
static void note_challenge(const char *p, size_t n, char out[4096])
{
	if (n <= 17 || strncasecmp(p, "WWW-Authenticate:", 17))
		return;
	for (p += 17, n -= 17; n && *p == ' '; p++)
		n--;
	if (!out[0] || (n > 6 && !strncasecmp(p, "Bearer", 6)))
		snprintf(out, 4096, "%.*s", (int)n, p);
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx)
{
	struct answer *a = ctx;
	note_challenge(p, n * size, a->challenge);
	return n * size;
}

int registry_challenge(const char *h, const char *key, char *out, size_t n)
{
	size_t k = strlen(key);
	for (const char *s = h; (s = strcasestr(s, key)); s += k) {
		if (s == h || (s[-1] != ' ' && s[-1] != ',') || s[k] != '=' || s[k + 1] != '"')
			continue;
		const char *v = s + k + 2, *end = strchr(v, '"');
		if (!end || (size_t)(end - v) >= n)
			return -1;
		memcpy(out, v, (size_t)(end - v));
		out[end - v] = 0;
		return 0;
	}
	return -1;
}

static bool loopback(const char *host)
{
	size_t v4 = strspn(host, "0123456789.");
	return (!strncmp(host, "127.", 4) && (!host[v4] || host[v4] == ':')) || !strncmp(host, "[::1]", 5) ||
	       (!strncmp(host, "localhost", 9) && (!host[9] || host[9] == ':'));
}

/* What every request has in common. */
static CURL *request(struct registry *r, const char *url, struct cai_error *err)
{
	CURL *c = curl_easy_init();
	if (!c) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	const char *protocols = r->plain ? "http,https" : "https";
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, protocols);
	curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, protocols);
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(c, CURLOPT_MAXREDIRS, 5L);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 20L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 60L);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS,
			 1L); /* a proxy's answer is not the registry's */
	curl_easy_setopt(c, CURLOPT_USERAGENT, "caisson");
	if (loopback(r->ref.registry))
		curl_easy_setopt(c, CURLOPT_NOPROXY, "*"); /* a proxy's loopback is another one */
	if (r->token) {
		curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
		curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, r->token);
	} else if (r->basic) {
		curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(c, CURLOPT_USERNAME, r->user);
		curl_easy_setopt(c, CURLOPT_PASSWORD, r->password);
	}
	return c;
}

static int perform(CURL *c, struct answer *a, long *status, struct cai_error *err)
{
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
	CURLcode e = curl_easy_perform(c);
	if (a->too_large)
		return cai_fail(err, EFBIG, "the registry sent a document of more than %zu KiB",
				a->max >> 10);
	if (e != CURLE_OK) {
		char *url = NULL;
		curl_easy_getinfo(c, CURLINFO_EFFECTIVE_URL, &url);
		return cai_fail(err, (int)e, "cannot reach %.200s: %s", url ? url : "the registry",
				curl_easy_strerror(e));
	}
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, status);
	return 0;
}

/* Gets a token from the place that a bearer challenge names. */
static int get_token(struct registry *r, const char *challenge, struct cai_error *err)
{
	char realm[1024], service[512] = "", scope[512], url[4096];
	struct answer a = {.max = MAX_TOKEN};
	long status = 0;
	if (registry_challenge(challenge, "realm", realm, sizeof(realm)) < 0)
		return cai_fail(err, EPROTO,
				"the registry %s asks for credentials in a way that Caisson does not know",
				r->ref.registry);
	registry_challenge(challenge, "service", service, sizeof(service));
	if (registry_challenge(challenge, "scope", scope, sizeof(scope)) < 0)
		snprintf(scope, sizeof(scope), "repository:%s:pull", r->ref.repo);
	free(r->token);
	r->token = NULL;
	r->basic = false;
	r->generation++;
	CURL *c = request(r, realm, err);
	if (!c)
		return -1;
	char *es = curl_easy_escape(c, service, 0), *ec = curl_easy_escape(c, scope, 0);
	snprintf(url, sizeof(url), "%s%cservice=%s&scope=%s", realm, strchr(realm, '?') ? '&' : '?',
		 es ? es : "", ec ? ec : "");
	curl_free(es);
	curl_free(ec);
	curl_easy_setopt(c, CURLOPT_URL, url);
	if (r->user) {
		curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(c, CURLOPT_USERNAME, r->user);
		curl_easy_setopt(c, CURLOPT_PASSWORD, r->password);
	}
	int ok = perform(c, &a, &status, err);
	curl_easy_cleanup(c);
	if (ok == 0 && status != 200)
		ok = cai_fail(err, EACCES, "the registry %s gave no access to %s (status %ld)%s",
			      r->ref.registry, r->ref.repo, status,
			      r->user ? "; are the credentials right?" : "");
	json_t *o = ok == 0 ? json_loadb(a.p ? a.p : "", a.n, 0, NULL) : NULL;
	const char *t = json_string_value(json_object_get(o, "token"));
	if (!t)
		t = json_string_value(json_object_get(o, "access_token"));
	if (ok == 0 && (!t || !(r->token = strdup(t))))
		ok = cai_fail(err, EPROTO, "the registry %s sent no token", r->ref.registry);
	json_decref(o);
	free(a.p);
	return ok;
}

static int authenticate(struct registry *r, const char *challenge, struct cai_error *err)
{
	while (*challenge == ' ')
		challenge++;
	if (!strncasecmp(challenge, "Bearer", 6))
		return get_token(r, challenge, err);
	if (!strncasecmp(challenge, "Basic", 5) && r->user && !r->basic) {
		r->basic = true;
		return 0;
	}
	return cai_fail(err, EACCES,
			r->user ? "the registry %s refuses the credentials"
				: "the registry %s wants credentials; use docker login",
			r->ref.registry);
}

static int ping(struct registry *r, const char *scheme, struct cai_error *err)
{
	char url[400];
	struct answer a = {.max = MAX_TOKEN};
	long status = 0;
	snprintf(r->base, sizeof(r->base), "%s://%s", scheme, r->ref.registry);
	snprintf(url, sizeof(url), "%s/v2/", r->base);
	CURL *c = request(r, url, err);
	if (!c)
		return -1;
	int ok = perform(c, &a, &status, err);
	curl_easy_cleanup(c);
	free(a.p);
	return ok;
}

struct registry *registry_open(const struct image_ref *ref, struct cai_error *err)
{
	struct registry *r = calloc(1, sizeof(*r));
	if (!r || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(r);
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	r->ref = *ref;
	snprintf(r->base, sizeof(r->base), "https://%s",
		 strcmp(ref->registry, "docker.io") ? ref->registry : "registry-1.docker.io");
	credentials_find(ref->registry, &r->user, &r->password);
	if (loopback(ref->registry) && ping(r, "https", err) < 0) {
		r->plain = true;
		if (ping(r, "http", err) < 0) {
			registry_close(r);
			return NULL;
		}
	}
	return r;
}

void registry_close(struct registry *r)
{
	if (!r)
		return;
	if (r->password)
		explicit_bzero(r->password, strlen(r->password));
	if (r->token)
		explicit_bzero(r->token, strlen(r->token));
	free(r->user);
	free(r->password);
	free(r->token);
	free(r);
	curl_global_cleanup();
}

char *registry_manifest(struct registry *r, const char *what, size_t max, size_t *n, struct cai_error *err)
{
	char url[1024];
	struct curl_slist *headers = curl_slist_append(NULL, accept_manifests);
	snprintf(url, sizeof(url), "%s/v2/%s/manifests/%s", r->base, r->ref.repo, what);
	for (unsigned k = 0; headers; k++) {
		struct answer a = {.max = max};
		long status = 0;
		CURL *c = request(r, url, err);
		int ok = -1;
		if (c) {
			curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
			ok = perform(c, &a, &status, err);
			curl_easy_cleanup(c);
		}
		if (ok == 0 && status == 200 && a.p) {
			curl_slist_free_all(headers);
			*n = a.n;
			return a.p;
		}
		free(a.p);
		if (ok == 0 && status == 401 && k < 2 && authenticate(r, a.challenge, err) == 0)
			continue;
		if (ok == 0 && status == 401 && !err->text[0])
			cai_fail(err, EACCES, "the registry %s refuses access to %s", r->ref.registry,
				 r->ref.repo);
		else if (ok == 0 && status == 404)
			cai_fail(err, ENOENT, "the registry %s has no image %s:%s", r->ref.registry,
				 r->ref.repo, what);
		else if (ok == 0 && status == 429)
			cai_fail(err, EBUSY, "the registry %s allows no more requests for now (status 429)",
				 r->ref.registry);
		else if (ok == 0 && status != 401)
			cai_fail(err, EPROTO, "the registry %s answered with status %ld", r->ref.registry,
				 status);
		break;
	}
	curl_slist_free_all(headers);
	return NULL;
}

static size_t on_blob(char *p, size_t size, size_t n, void *ctx)
{
	struct registry_fetch *f = ctx;
	long status = 0;
	n *= size;
	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200 && status != 206)
		return n; /* an error's text */
	if (n > f->size - f->have || pwrite(f->fd, p, n, (off_t)f->have) != (ssize_t)n) {
		f->failed_write = true;
		return 0;
	}
	f->have += n;
	return n;
}

/* A server that knows no ranges answers 200 from the start. */
static size_t on_blob_header(char *p, size_t size, size_t n, void *ctx)
{
	struct registry_fetch *f = ctx;
	long status;
	note_challenge(p, n * size, f->registry->challenge);
	if (n * size >= 5 && !strncmp(p, "HTTP/", 5)) {
		const char *sp = memchr(p, ' ', n * size);
		size_t left = sp ? n * size - (size_t)(sp + 1 - p) : 0;
		status = left >= 3 && !memcmp(sp + 1, "200", 3) ? 200 : 0;
		if (status == 200)
			f->have = 0;
		f->registry->challenge[0] = 0;
	}
	return n * size;
}

static int start(CURLM *m, struct registry_fetch *f, struct cai_error *err)
{
	char url[1024], range[40];
	struct registry *r = f->registry;
	snprintf(url, sizeof(url), "%s/v2/%s/blobs/%s", r->base, r->ref.repo, f->digest);
	CURL *c = request(r, url, err);
	if (!c)
		return -1;
	if (f->have) {
		snprintf(range, sizeof(range), "%llu-", (unsigned long long)f->have);
		curl_easy_setopt(c, CURLOPT_RANGE, range);
	}
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_blob);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, f);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_blob_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, f);
	curl_easy_setopt(c, CURLOPT_PRIVATE, (char *)f);
	f->easy = c;
	f->running = true;
	f->generation = r->generation;
	f->from = f->have;
	f->tries++;
	curl_multi_add_handle(m, c);
	return 0;
}

/* One transfer has ended: well, or to be tried again, or for good. */
static int ended(CURLM *m, struct registry_fetch *f, CURLcode e, struct cai_error *err)
{
	long status = 0;
	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_multi_remove_handle(m, f->easy);
	curl_easy_cleanup(f->easy);
	f->easy = NULL;
	f->running = false;
	if (f->failed_write)
		return f->have >= f->size
			   ? cai_fail(err, EBADMSG, "the registry sends more of %s than its manifest says",
				      f->digest)
			   : cai_fail_errno(err, ENOSPC, "cannot store the layer %s", f->digest);
	if (e == CURLE_OK && (status == 200 || status == 206) && f->have == f->size) {
		f->done = true;
		return 0;
	}
	if (e == CURLE_OK && status == 401 && ++f->refused <= MAX_REFUSED) {
		/* The token has run out, here or, by now, for another blob, too. */
		f->tries--;
		return f->generation == f->registry->generation
			   ? authenticate(f->registry, f->registry->challenge, err)
			   : 0;
	}
	if (f->have > f->from && f->have - f->from >= PROGRESS)
		f->tries = 0; /* a bad line is no reason to give up what it gets through */
	if (f->tries >= MAX_TRIES || (e == CURLE_OK && (status == 404 || status == 403)))
		return e != CURLE_OK
			   ? cai_fail(err, 0, "cannot fetch %s: %s", f->digest, curl_easy_strerror(e))
			   : cai_fail(err, 0,
				      "cannot fetch %s: the registry answered with status %ld after %llu of "
				      "%llu bytes",
				      f->digest, status, (unsigned long long)f->have,
				      (unsigned long long)f->size);
	if (status == 416)
		f->have = 0;
	log_debug("fetching %s again (%s, status %ld)", f->digest, curl_easy_strerror(e), status);
	if (f->tries > 1)
		f->not_before = clock_mono_ns() + (RETRY_NS << (f->tries - 2));
	return 0;
}

int registry_fetch(struct registry *r, struct registry_fetch *f, unsigned n, void (*progress)(void *ctx),
		   void *ctx, struct cai_error *err)
{
	CURLM *m = curl_multi_init();
	int ok = m ? 0 : cai_fail(err, ENOMEM, "out of memory");
	for (unsigned k = 0; k < n; k++) {
		f[k].registry = r;
		f[k].done = f[k].have == f[k].size;
	}
	for (;;) {
		unsigned running = 0, left = 0;
		for (unsigned k = 0; k < n; k++)
			running += f[k].running;
		for (unsigned k = 0; k < n && ok == 0; k++) {
			left += !f[k].done;
			if (!f[k].done && !f[k].running && running < PARALLEL &&
			    clock_mono_ns() >= f[k].not_before) {
				ok = start(m, &f[k], err);
				running += ok == 0;
			}
		}
		if (ok < 0 || !left)
			break;
		int active, msgs;
		if (curl_multi_perform(m, &active) != CURLM_OK ||
		    curl_multi_poll(m, NULL, 0, 100, NULL) != CURLM_OK) {
			ok = cai_fail(err, EIO, "cannot fetch from %s", r->ref.registry);
			break;
		}
		for (CURLMsg *msg; ok == 0 && (msg = curl_multi_info_read(m, &msgs));) {
			char *who = NULL;
			if (msg->msg != CURLMSG_DONE)
				continue;
			CURLcode e = msg->data.result;
			curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &who);
			ok = ended(m, (struct registry_fetch *)(void *)who, e, err);
		}
		progress(ctx);
	}
	for (unsigned k = 0; k < n; k++)
		if (f[k].easy) {
			curl_multi_remove_handle(m, f[k].easy);
			curl_easy_cleanup(f[k].easy);
			f[k].easy = NULL;
		}
	curl_multi_cleanup(m);
	return ok;
}
