/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: limits are checked here, before any directory, process or file exists, so that a
 * typing mistake costs one sentence and leaves nothing to clean.
 */
#include "sandbox/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/util.h"
#include "sandbox/registry.h"

static const char *const boundary_names[] = {
    [BOUNDARY_NONE] = "none",
    [BOUNDARY_SOFTWARE] = "software",
    [BOUNDARY_HYPERVISOR] = "hypervisor",
    [BOUNDARY_HARDWARE] = "hardware",
};

const char *boundary_name(enum boundary b)
{
	return boundary_names[b];
}

int boundary_parse(const char *text, enum boundary *b)
{
	for (unsigned i = 0; i < ARRAY_LEN(boundary_names); i++)
		if (!strcmp(text, boundary_names[i])) {
			*b = (enum boundary)i;
			return 0;
		}
	return -1;
}

void sandbox_spec_init(struct sandbox_spec *s)
{
	*s = (struct sandbox_spec){.cpus = 1, .memory = MIB(512)};
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

int sandbox_spec_check(const struct sandbox_spec *s, struct cai_error *err)
{
	if (s->cpus < 1 || s->cpus > SPEC_MAX_CPUS)
		return cai_fail(err, EINVAL, "a sandbox has 1 to %d CPUs, not %u", SPEC_MAX_CPUS, s->cpus);
	if (s->memory < SPEC_MIN_MEMORY)
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
