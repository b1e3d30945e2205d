/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: limits are checked here, before any directory, process or file exists, so that a
 * typing mistake costs one sentence and leaves nothing to clean.
 */
#include "sandbox/spec.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/util.h"
#include "sandbox/store.h"

static const char *const boundary_names[] = {"none", "namespace", "software", "hypervisor", "hardware"};
static const char *const engine_names[] = {"microvm", "container"};
static const char *const trust_names[] = {"untrusted", "trusted", "hostile"};

static int find(const char *const *names, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(text, names[i]))
			return (int)i;
	return -1;
}

const char *boundary_name(enum boundary b)
{
	return boundary_names[b];
}

const char *engine_name(enum engine_kind e)
{
	return engine_names[e];
}

const char *trust_name(enum trust t)
{
	return trust_names[t];
}

int boundary_parse(const char *text, enum boundary *b)
{
	int i = find(boundary_names, ARRAY_LEN(boundary_names), text);
	if (i >= 0)
		*b = (enum boundary)i;
	return i < 0 ? -1 : 0;
}

int engine_parse(const char *text, enum engine_kind *e)
{
	int i = find(engine_names, ARRAY_LEN(engine_names), text);
	if (i >= 0)
		*e = (enum engine_kind)i;
	return i < 0 ? -1 : 0;
}

int trust_parse(const char *text, enum trust *t)
{
	int i = find(trust_names, ARRAY_LEN(trust_names), text);
	if (i >= 0)
		*t = (enum trust)i;
	return i < 0 ? -1 : 0;
}

int signal_parse(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);
	if (end != text && !*end)
		return n >= 1 && n <= 64 ? (int)n : -1;
	if (!strncasecmp(text, "SIG", 3))
		text += 3;
	for (int i = 1; i < 32; i++) {
		const char *name = sigabbrev_np(i);
		if (name && !strcasecmp(name, text))
			return i;
	}
	if (!strncasecmp(text, "RTMIN", 5)) {
		n = text[5] == '+' ? strtol(text + 6, &end, 10) : 0;
		if (text[5] == 0 || (text[5] == '+' && end != text + 6 && !*end && n >= 0 && n <= 30))
			return 34 + (int)n;
	}
	return -1;
}

void sandbox_spec_init(struct sandbox_spec *s)
{
	*s = (struct sandbox_spec){.cpus = 1, .memory = MIB(512), .disk = SPEC_DISK, .stop_timeout = SPEC_STOP_TIMEOUT};
}

int spec_parse_volume(const char *text, struct spec_volume *v, struct cai_error *err)
{
	const char *colon = strchr(text, ':');
	memset(v, 0, sizeof(*v));
	if (!colon)
		return cai_fail(err, EINVAL, "-v needs HOST:GUEST, not '%s'; a volume without a name on the host is not there yet", text);
	const char *guest = colon + 1, *mode = strchr(guest, ':');
	size_t n = (size_t)(colon - text), m = mode ? (size_t)(mode - guest) : strlen(guest);
	if (n == 0 || n >= sizeof(v->source) || (text[0] != '/' && text[0] != '.'))
		return cai_fail(err, EINVAL, "-v '%s': the host's directory must be an absolute path or start with './'; named volumes are not there yet", text);
	if (m == 0 || m >= sizeof(v->target) || guest[0] != '/')
		return cai_fail(err, EINVAL, "-v '%s': the sandbox's directory must be an absolute path", text);
	if (m == 1)
		return cai_fail(err, EINVAL, "-v '%s': a volume cannot replace the root directory; use --rootfs", text);
	if (mode && !strcmp(mode, ":ro"))
		v->read_only = true;
	else if (mode && strcmp(mode, ":rw"))
		return cai_fail(err, EINVAL, "-v '%s': after the second colon comes ro or rw", text);
	memcpy(v->source, text, n);
	memcpy(v->target, guest, m);
	return 0;
}

int parse_size(const char *text, uint64_t *bytes, struct cai_error *err)
{
	char *end;
	errno = 0;
	double v = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : -1;
	if (v < 0 || errno)
		return cai_fail(err, EINVAL, "'%s' is no size; write for example 512M or 2G", text);
	unsigned shift = 0;
	switch (*end) {
	case 't':
	case 'T':
		shift += 10;
		__attribute__((fallthrough));
	case 'g':
	case 'G':
		shift += 10;
		__attribute__((fallthrough));
	case 'm':
	case 'M':
		shift += 10;
		__attribute__((fallthrough));
	case 'k':
	case 'K':
		shift += 10;
		end++;
		if (end[0] == 'i')
			end++;
		__attribute__((fallthrough));
	case 'b':
	case 'B':
		if (*end == 'b' || *end == 'B')
			end++;
	}
	if (*end)
		return cai_fail(err, EINVAL, "'%s' is no size; write for example 512M or 2G", text);
	v *= (double)(1ull << shift);
	if (v >= 9e18)
		return cai_fail(err, ERANGE, "the size '%s' is too large", text);
	*bytes = (uint64_t)v;
	return 0;
}

/* What the trust allows: code that is not trusted gets a kernel of its own. */
static int check_trust(const struct sandbox_spec *s, struct cai_error *err)
{
	if (s->engine == ENGINE_CONTAINER && s->trust != TRUST_TRUSTED)
		return cai_fail(err, EPERM,
				"--engine container is refused for %s code: it would share this host's kernel; say --trust trusted if you trust the "
				"code, or leave out --engine container",
				trust_name(s->trust));
	if (s->engine == ENGINE_CONTAINER && s->at_least > BOUNDARY_NAMESPACE)
		return cai_fail(err, EPERM, "--boundary %s is refused: a container's boundary is 'namespace'; leave out --engine container",
				boundary_name(s->at_least));
	return 0;
}

static int check_mounts(const struct sandbox_spec *s, struct cai_error *err)
{
	struct spec_volume v;
	unsigned n = 0;
	for (char *const *t = s->volumes; t && *t; t++, n++)
		if (spec_parse_volume(*t, &v, err) < 0)
			return -1;
	for (char *const *t = s->tmpfs; t && *t; t++, n++)
		if (**t != '/')
			return cai_fail(err, EINVAL, "--tmpfs needs an absolute path, not '%s'", *t);
	return n <= SPEC_MAX_MOUNTS ? 0 : cai_fail(err, E2BIG, "a sandbox has at most %d mounts, not %u", SPEC_MAX_MOUNTS, n);
}

static int check_container(const struct sandbox_spec *s, struct cai_error *err)
{
	if (s->kernel || s->initrd || s->append || s->console)
		return cai_fail(err, EINVAL, "a container has no kernel of its own: --kernel, --initrd, --append and --console need --engine microvm");
	if (s->accel != ACCEL_AUTO)
		return cai_fail(err, EINVAL, "a container has no accelerator: --accel needs --engine microvm");
	if (s->memory && s->memory < SPEC_MIN_CONTAINER)
		return cai_fail(err, EINVAL, "%llu KiB of memory is too small for a container: it needs at least %lluM",
				(unsigned long long)(s->memory >> 10), (unsigned long long)(SPEC_MIN_CONTAINER >> 20));
	return 0;
}

int sandbox_spec_check(const struct sandbox_spec *s, struct cai_error *err)
{
	if (s->cpus < 1 || s->cpus > SPEC_MAX_CPUS)
		return cai_fail(err, EINVAL, "a sandbox has 1 to %d CPUs, not %u", SPEC_MAX_CPUS, s->cpus);
	if (check_trust(s, err) < 0 || check_mounts(s, err) < 0 || (s->engine == ENGINE_CONTAINER && check_container(s, err) < 0))
		return -1;
	if (s->disk < SPEC_MIN_DISK || s->disk > SPEC_MAX_DISK)
		return cai_fail(err, EINVAL, "--disk: a disk has 64M to 16T, not %llu bytes", (unsigned long long)s->disk);
	if (s->engine == ENGINE_MICROVM && s->memory < SPEC_MIN_MEMORY)
		return cai_fail(
		    err, EINVAL, "%llu KiB of memory is too small for a guest: it needs at least %lluM",
		    (unsigned long long)(s->memory >> 10), (unsigned long long)(SPEC_MIN_MEMORY >> 20));
	struct sysinfo si;
	if (sysinfo(&si) == 0) {
		uint64_t host = (uint64_t)si.totalram * si.mem_unit;
		if (s->memory > host)
			return cai_fail(err, ENOMEM, "%lluM of memory is more than this host has (%lluM)",
					(unsigned long long)(s->memory >> 20),
					(unsigned long long)(host >> 20));
	}
	if (s->name && !sandbox_name_ok(s->name))
		return cai_fail(err, EINVAL,
				"'%s' is no sandbox name: a letter or digit, then at most %d of letters, "
				"digits, '.', '_' and '-'",
				s->name, SANDBOX_NAME_MAX - 1);
	return 0;
}
