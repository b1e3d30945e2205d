/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Build-time tool: turns seccomp.list into C.
 *
 * Theory of operation: libseccomp compiles rules into a good BPF program, but doing so takes a program that links it and
 * hundreds of microseconds at every start. So it runs here, once, and the monitor carries the finished program and
 * a table of system call names for the message about a forbidden call.
 *
 *   gen_seccomp LIST OUTPUT.h
 */
#define _GNU_SOURCE
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/filter.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_SYSCALL 512
#define MAX_ARGS    6

static int die(const char *what, const char *on, int line)
{
	fprintf(stderr, "gen_seccomp: %s: %s (line %d)\n", what, on, line);
	return 1;
}

/* One line of the list; returns 0, or 1 after a message. */
static int add_line(scmp_filter_ctx ctx, char *text, int line)
{
	char *hash = strchr(text, '#');
	if (hash)
		*hash = 0;
	char *save, *name = strtok_r(text, " \t\n", &save);
	if (!name)
		return 0;
	int nr = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name);
	if (nr < 0)
		return die("no such system call", name, line);
	struct scmp_arg_cmp cmp[MAX_ARGS];
	unsigned n = 0;
	for (char *word; (word = strtok_r(NULL, " \t\n", &save)); n++) {
		unsigned arg;
		unsigned long long mask, value;
		int used = 0;
		if (n == MAX_ARGS || sscanf(word, "%u:%llx:%llx%n", &arg, &mask, &value, &used) != 3 || word[used] || arg >= MAX_ARGS)
			return die("not ARGUMENT:MASK:VALUE", word, line);
		cmp[n] = (struct scmp_arg_cmp){.arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
	}
	int r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, n, cmp);
	return r < 0 ? die(strerror(-r), name, line) : 0;
}

/* The program as an array of struct sock_filter initialisers. */
static int put_program(scmp_filter_ctx ctx, FILE *out)
{
	int fd = memfd_create("bpf", 0);
	if (fd < 0 || seccomp_export_bpf(ctx, fd) < 0)
		return die("cannot export the program", strerror(errno), 0);
	struct sock_filter op;
	unsigned n = 0;
	lseek(fd, 0, SEEK_SET);
	fprintf(out, "static const struct sock_filter jail_filter[] = {\n");
	while (read(fd, &op, sizeof(op)) == (ssize_t)sizeof(op)) {
		fprintf(out, "\t{0x%04x, %u, %u, 0x%08x},\n", op.code, op.jt, op.jf, op.k);
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
	/* A forbidden call traps, so that the handler can name it; the other ABIs of the kernel are not reported but fatal. */
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	if (!ctx || seccomp_arch_native() != SCMP_ARCH_X86_64)
		return die("x86-64 only", "", 0);
	seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	char text[512];
	for (int line = 1; fgets(text, sizeof(text), in); line++)
		if (add_line(ctx, text, line))
			return 1;
	fprintf(out, "/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by gen_seccomp from seccomp.list. */\n");
	if (put_program(ctx, out))
		return 1;
	fprintf(out, "static const char *const jail_syscall_names[] = {\n");
	for (int nr = 0; nr < MAX_SYSCALL; nr++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, nr);
		if (name)
			fprintf(out, "\t[%d] = \"%s\",\n", nr, name);
		free(name);
	}
	fprintf(out, "};\n");
	seccomp_release(ctx);
	fclose(in);
	return fclose(out) ? die("cannot write", argv[2], 0) : 0;
}
