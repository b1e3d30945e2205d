/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the reference is cut from its end (digest, then tag, then the registry in front), and
 * each part is held to the distribution specification's grammar, so that what is left can be put into a URL
 * or a file name as it is.
 */
#include "image/ref.h"

#include <stdio.h>
#include <string.h>

static bool lower_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool image_digest_valid(const char *s)
{
	if (strncmp(s, "sha256:", 7) || strlen(s) != IMAGE_DIGEST_LEN)
		return false;
	return strspn(s + 7, "0123456789abcdef") == 64;
}

/* path-component *("/" path-component); separators are one '.', one or two '_', any number of '-' between
 * alphanumerics. */
static bool repo_valid(const char *s)
{
	bool start = true;
	for (; *s; s++) {
		if (lower_digit(*s)) {
			start = false;
			continue;
		}
		if (start)
			return false;
		if (*s == '/') {
			start = true;
			continue;
		}
		size_t run = strspn(s, "-");
		if (!run && *s == '_')
			run = s[1] == '_' ? 2 : 1;
		if (!run && *s == '.')
			run = 1;
		if (!run || !lower_digit(s[run]))
			return false;
		s += run - 1;
	}
	return !start;
}

static bool tag_valid(const char *s)
{
	size_t n = strlen(s);
	static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
	if (!n || n > 128 || !strchr(word, s[0]))
		return false;
	return strspn(s, word) == n ||
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == n;
}

static bool registry_valid(const char *s)
{
	if (*s == '[') { /* an IPv6 address */
		size_t n = strspn(s + 1, "0123456789abcdefABCDEF:.");
		if (!n || s[1 + n] != ']')
			return false;
		s += n + 2;
	} else {
		size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-");
		if (!n || s[0] == '-' || s[0] == '.')
			return false;
		s += n;
	}
	if (!*s)
		return true;
	size_t digits = *s == ':' ? strspn(s + 1, "0123456789") : 0;
	return digits >= 1 && digits <= 5 && !s[1 + digits];
}

int image_ref_parse(const char *text, struct image_ref *out, struct cai_error *err)
{
	char s[700];
	memset(out, 0, sizeof(*out));
	size_t n = strlen(text);
	if (!n)
		return cai_fail(err, 0, "the image name is empty");
	if (n >= sizeof(s))
		return cai_fail(err, 0, "the image name is longer than %zu characters", sizeof(s) - 1);
	memcpy(s, text, n + 1);
	char *at = strchr(s, '@');
	if (at) {
		*at++ = 0;
		if (!image_digest_valid(at))
			return cai_fail(err, 0,
					"'%.100s' is no digest; it must be sha256: and 64 hexadecimal digits",
					at);
		strcpy(out->digest, at);
	}
	char *slash = strrchr(s, '/'), *colon = strrchr(slash ? slash : s, ':');
	if (colon) {
		*colon++ = 0;
		if (!tag_valid(colon))
			return cai_fail(err, 0, "'%.140s' is no image tag", colon);
		strcpy(out->tag, colon);
	} else if (!at) {
		strcpy(out->tag, "latest");
	}
	char *repo = s, *first = strchr(s, '/');
	if (first) {
		*first = 0;
		if (strpbrk(s, ".:[") || !strcmp(s, "localhost")) {
			if (strlen(s) >= sizeof(out->registry) || !registry_valid(s))
				return cai_fail(err, 0, "'%.100s' is no registry's host name", s);
			strcpy(out->registry, strcmp(s, "index.docker.io") ? s : "docker.io");
			repo = first + 1;
		} else {
			*first = '/';
		}
	}
	if (!out->registry[0])
		strcpy(out->registry, "docker.io");
	bool official = !strcmp(out->registry, "docker.io") && !strchr(repo, '/');
	if (strlen(repo) > 200 || !repo_valid(repo))
		return cai_fail(err, 0,
				"'%.100s' is no image name; it is made of lower-case letters, digits and "
				"single '.', '_' or '-' between them",
				repo);
	/* What looks like an id must be one. */
	if (official &&
	    (!strcmp(repo, "sha256") || (strlen(repo) == 64 && strspn(repo, "0123456789abcdef") == 64)))
		return cai_fail(err, 0, "'%.100s' cannot be an image's name, since it looks like an id",
				repo);
	snprintf(out->repo, sizeof(out->repo), "%s%.200s", official ? "library/" : "", repo);
	return 0;
}

char *image_ref_full(const struct image_ref *r, char *out, size_t n)
{
	snprintf(out, n, "%s/%s%s%s%s%s", r->registry, r->repo, r->tag[0] ? ":" : "", r->tag,
		 r->digest[0] ? "@" : "", r->digest);
	return out;
}

const char *image_ref_familiar(const char *full)
{
	if (!strncmp(full, "docker.io/", 10))
		full += 10;
	else
		return full;
	return strncmp(full, "library/", 8) ? full : full + 8;
}
