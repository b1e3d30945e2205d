/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/console.h"

struct fixture {
	struct loop *loop;
	struct console c;
	int out[2], in[2];
	int lines;
};

static void on_wake(void *ctx)
{
	console_on_wake(ctx);
}

static void on_line(void *ctx)
{
	((struct fixture *)ctx)->lines++;
}

static void make(struct fixture *f)
{
	struct cai_error err;
	memset(f, 0, sizeof(*f));
	assert_int_equal(pipe2(f->out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(f->in, O_CLOEXEC), 0);
	f->loop = loop_new(&err);
	assert_int_equal(console_init(&f->c, f->loop, f->out[1], f->in[0], &err), 0);
	f->c.written = on_line;
	f->c.ctx = f;
	loop_on_wake(f->loop, on_wake, &f->c);
	struct serial_config sc = {.wake = console_wake, .space = console_space, .ctx = &f->c};
	f->c.serial = serial_new(&sc);
}

static void drop(struct fixture *f)
{
	for (int i = 0; i < 2; i++) {
		if (f->out[i] >= 0)
			close(f->out[i]);
		if (f->in[i] >= 0)
			close(f->in[i]);
	}
	loop_free(f->loop);
	serial_free(f->c.serial);
}

/* Lets the loop work off everything, gathering time included. */
static void settle(struct fixture *f)
{
	for (int i = 0; i < 10; i++) {
		loop_poll(f->loop, NULL);
		usleep(500);
	}
}

static void guest_writes(struct fixture *f, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t b = (uint8_t)s[i];
		serial_access(f->c.serial, 0, &b, 1, true);
	}
}

static void output_arrives_gathered(void **state)
{
	struct fixture f;
	char got[64] = "";
	make(&f);
	guest_writes(&f, "hello\nwor", 9);
	settle(&f);
	assert_int_equal(read(f.out[0], got, sizeof(got)), 9);
	assert_memory_equal(got, "hello\nwor", 9);
	assert_int_equal(f.lines, 1);
	guest_writes(&f, "ld", 2);
	settle(&f);
	assert_int_equal(read(f.out[0], got, sizeof(got)), 2);
	assert_int_equal(f.lines, 1);
	drop(&f);
}

static void a_reader_that_stalls_loses_nothing_and_blocks_nobody(void **state)
{
	struct fixture f;
	make(&f);
	fcntl(f.out[1], F_SETPIPE_SZ, 4096);
	static char sent[40000], got[40000];
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (char)('a' + i % 26);
	guest_writes(&f, sent, sizeof(sent));
	settle(&f);
	size_t n = 0;
	for (int i = 0; i < 1000 && n < sizeof(got); i++) {
		ssize_t r = read(f.out[0], got + n, sizeof(got) - n);
		assert_true(r > 0);
		n += (size_t)r;
		settle(&f);
	}
	assert_int_equal(n, sizeof(sent));
	assert_memory_equal(got, sent, n);
	drop(&f);
}

static void a_reader_that_leaves_does_not_stop_the_guest(void **state)
{
	struct fixture f;
	make(&f);
	close(f.out[0]);
	f.out[0] = -1;
	static char sent[3 * SERIAL_OUT_BYTES];
	memset(sent, 'x', sizeof(sent));
	for (int i = 0; i < 3; i++) {
		guest_writes(&f, sent, SERIAL_OUT_BYTES / 2);
		settle(&f);
	}
	assert_int_equal(serial_lost(f.c.serial), 0);
	drop(&f);
}

static size_t guest_reads(struct fixture *f, char *to, size_t max)
{
	size_t n = 0;
	for (;;) {
		uint8_t lsr = 0, b = 0;
		serial_access(f->c.serial, 5, &lsr, 1, false);
		if (!(lsr & 1) || n == max)
			return n;
		serial_access(f->c.serial, 0, &b, 1, false);
		to[n++] = (char)b;
	}
}

static void input_waits_for_the_guest_and_survives_the_writers_end(void **state)
{
	struct fixture f;
	make(&f);
	static char sent[3000], got[3000];
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (char)('a' + i % 26);
	assert_int_equal(write(f.in[1], sent, sizeof(sent)), sizeof(sent));
	close(f.in[1]);
	f.in[1] = -1;
	size_t n = 0;
	for (int i = 0; i < 10000 && n < sizeof(got); i++) {
		loop_poll(f.loop, NULL);
		n += guest_reads(&f, got + n, sizeof(got) - n);
	}
	assert_int_equal(n, sizeof(sent));
	assert_memory_equal(got, sent, n);
	settle(&f);
	assert_int_equal(f.c.in_fd, -1);
	drop(&f);
}

static void the_tail_is_text(void **state)
{
	struct fixture f;
	make(&f);
	guest_writes(&f, "a\0b\n", 4);
	char *t = console_tail(&f.c);
	assert_string_equal(t, "ab\n");
	free(t);
	drop(&f);
}

static void a_regular_file_as_input_is_refused(void **state)
{
	struct cai_error err;
	struct console c;
	struct loop *l = loop_new(&err);
	int fd = open("/proc/self/exe", O_RDONLY);
	assert_int_equal(console_init(&c, l, -1, fd, &err), -1);
	assert_non_null(strstr(err.text, "regular file"));
	close(fd);
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_arrives_gathered),
		cmocka_unit_test(a_reader_that_stalls_loses_nothing_and_blocks_nobody),
		cmocka_unit_test(a_reader_that_leaves_does_not_stop_the_guest),
		cmocka_unit_test(input_waits_for_the_guest_and_survives_the_writers_end),
		cmocka_unit_test(the_tail_is_text),
		cmocka_unit_test(a_regular_file_as_input_is_refused),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
