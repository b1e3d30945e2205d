/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Build-time tool: turns seccomp.list into C (the list says its own format).
 *
 * Theory of operation: libseccomp compiles the profile here, once, so that starting a container costs one system call and no library. The calls
 * that come with a capability are left as tables of numbers: where such a capability is given, the engine puts a few comparisons in front of the
 * finished program (src/container/confine.c). In front of everything stands the answer to calls that are younger than the list: ENOSYS, which
 * makes programs fall back, where EPERM would make them fail.
 *
 *   gen_seccomp LIST OUTPUT.h
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_ARGS   6
#define LAST_KNOWN 466 /* removexattrat, Linux 6.13: the youngest call that the list has judged */
#define X32_BIT    0x40000000u

static const char *const capabilities[] = {
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
};

struct by_cap {
	int cap, nr;
};

static int die(const char *what, const char *on, int line)
{
	fprintf(stderr, "gen_seccomp: %s: %s (line %d)\n", what, on, line);
	return 1;
}

/* "name" or "name=number". */
static int number_of(char *word)
{
	char *equals = strchr(word, '=');
	if (equals)
		*equals = 0;
	int nr = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, word);
	return nr >= 0 ? nr : equals ? atoi(equals + 1) : -1;
}

static int add_cap_line(struct by_cap *table, unsigned *n, char *name, char **save, int line)
{
	int cap = -1;
	for (unsigned i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++)
		if (!strcmp(capabilities[i], name + 1))
			cap = (int)i;
	if (cap < 0)
		return die("no such capability", name + 1, line);
	for (char *word; (word = strtok_r(NULL, " \t\n", save));) {
		int nr = number_of(word);
		if (nr < 0 || *n == 256)
			return die("no such system call", word, line);
		table[(*n)++] = (struct by_cap){cap, nr};
	}
	return 0;
}

static int add_line(scmp_filter_ctx ctx, struct by_cap *table, unsigned *n_table, char *text, int line)
{
	char *hash = strchr(text, '#');
	if (hash)
		*hash = 0;
	char *save, *name = strtok_r(text, " \t\n", &save);
	if (!name)
		return 0;
	if (*name == '%')
		return add_cap_line(table, n_table, name, &save, line);
	int nr = number_of(name);
	if (nr < 0)
		return die("no such system call", name, line);
	struct scmp_arg_cmp cmp[MAX_ARGS];
	unsigned n = 0;
	uint32_t action = SCMP_ACT_ALLOW;
	for (char *word; (word = strtok_r(NULL, " \t\n", &save));) {
		unsigned arg;
		unsigned long long mask, value;
		int used = 0;
		if (*word == '@') {
			action = SCMP_ACT_ERRNO((unsigned)atoi(word + 1));
			continue;
		}
		if (n == MAX_ARGS || sscanf(word, "%u:%llx:%llx%n", &arg, &mask, &value, &used) != 3 || word[used] || arg >= MAX_ARGS)
			return die("not ARGUMENT:MASK:VALUE", word, line);
		cmp[n++] = (struct scmp_arg_cmp){.arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
	}
	int r = seccomp_rule_add_array(ctx, action, nr, n, cmp);
	return r < 0 ? die(strerror(-r), name, line) : 0;
}

static void put(FILE *out, unsigned code, unsigned jt, unsigned jf, unsigned k)
{
	fprintf(out, "\t{0x%04x, %u, %u, 0x%08x},\n", code, jt, jf, k);
}

static int put_program(scmp_filter_ctx ctx, FILE *out)
{
	int fd = memfd_create("bpf", 0);
	if (fd < 0 || seccomp_export_bpf(ctx, fd) < 0)
		return die("cannot export the program", strerror(errno), 0);
	struct sock_filter op;
	unsigned n = 0;
	lseek(fd, 0, SEEK_SET);
	fprintf(out, "static const struct sock_filter container_filter[] = {\n");
	/* Another architecture goes on to the program below, which kills it; x32 numbers are refused there too. */
	put(out, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
	put(out, BPF_JMP | BPF_JEQ | BPF_K, 0, 4, AUDIT_ARCH_X86_64);
	put(out, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
	put(out, BPF_JMP | BPF_JGE | BPF_K, 2, 0, X32_BIT);
	put(out, BPF_JMP | BPF_JGT | BPF_K, 0, 1, LAST_KNOWN);
	put(out, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOSYS);
	while (read(fd, &op, sizeof(op)) == (ssize_t)sizeof(op)) {
		put(out, op.code, op.jt, op.jf, op.k);
		n++;
	}
	fprintf(out, "};\n");
	close(fd);
	return n ? 0 : die("empty program", "", 0);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return die("usage: gen_seccomp LIST OUTPUT", "", 0);
	FILE *in = fopen(argv[1], "r");
	if (!in)
		return die("cannot open", argv[1], 0);
	FILE *out = fopen(argv[2], "w");
	if (!out)
		return die("cannot write", argv[2], 0);
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!ctx || seccomp_arch_native() != SCMP_ARCH_X86_64)
		return die("x86-64 only", "", 0);
	seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	struct by_cap table[256];
	unsigned n = 0;
	char text[512];
	for (int line = 1; fgets(text, sizeof(text), in); line++)
		if (add_line(ctx, table, &n, text, line))
			return 1;
	fprintf(out, "/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by gen_seccomp from seccomp.list. */\n");
	if (put_program(ctx, out))
		return 1;
	fprintf(out, "static const struct {\n\tunsigned char cap;\n\tunsigned short nr;\n} container_filter_caps[] = {\n");
	for (unsigned i = 0; i < n; i++)
		fprintf(out, "\t{%d, %d}, /* %s */\n", table[i].cap, table[i].nr, capabilities[table[i].cap]);
	fprintf(out, "};\nstatic const char *const container_capabilities[] = {\n");
	for (unsigned i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++)
		fprintf(out, "\t\"%s\",\n", capabilities[i]);
	fprintf(out, "};\n");
	seccomp_release(ctx);
	fclose(in);
	return fclose(out) ? die("cannot write", argv[2], 0) : 0;
}
