/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "dev/serial.h"

struct probe {
	struct serial *s;
	bool level;
	unsigned edges, wakes, spaces;
};

static void on_irq(void *ctx, unsigned gsi, bool level)
{
	struct probe *p = ctx;
	assert_int_equal(gsi, 4);
	p->edges += level && !p->level;
	p->level = level;
}
static void on_wake(void *ctx)
{
	((struct probe *)ctx)->wakes++;
}
static void on_space(void *ctx)
{
	((struct probe *)ctx)->spaces++;
}

static int setup(void **state)
{
	static struct probe p;
	p = (struct probe){0};
	struct serial_config cfg = {.irq = {on_irq, &p, 4}, .wake = on_wake, .space = on_space, .ctx = &p};
	p.s = serial_new(&cfg);
	*state = &p;
	return p.s ? 0 : -1;
}
static int teardown(void **state)
{
	serial_free(((struct probe *)*state)->s);
	return 0;
}

static uint8_t in(struct probe *p, unsigned reg)
{
	uint8_t v;
	serial_access(p->s, reg, &v, 1, false);
	return v;
}
static void out(struct probe *p, unsigned reg, uint8_t v)
{
	serial_access(p->s, reg, &v, 1, true);
}

static void test_output_reaches_the_reader_in_order(void **state)
{
	struct probe *p = *state;
	char got[16];
	for (const char *c = "hello"; *c; c++)
		out(p, 0, (uint8_t)*c);
	assert_int_equal(p->wakes, 1);
	assert_int_equal(serial_drain(p->s, got, 2), 2);
	assert_int_equal(serial_drain(p->s, got + 2, 14), 3);
	assert_memory_equal(got, "hello", 5);
	out(p, 0, '!');
	assert_int_equal(p->wakes, 2);
}

static void test_a_driver_finds_a_16550a(void **state)
{
	struct probe *p = *state;
	/* Interrupt enable has four bits; the scratch register holds its value. */
	out(p, 1, 0xFF);
	assert_int_equal(in(p, 1), 0x0F);
	out(p, 1, 0);
	out(p, 7, 0x5A);
	assert_int_equal(in(p, 7), 0x5A);
	/* FIFO on: both top bits of IIR; no 64-byte mode. */
	out(p, 2, 0x21);
	assert_int_equal(in(p, 2), 0xC1);
	out(p, 2, 0);
	assert_int_equal(in(p, 2), 0x01);
	/* Loopback: RTS and OUT2 come back as CTS and DCD; data comes back. */
	out(p, 4, 0x10 | 0x0A);
	assert_int_equal(in(p, 6) & 0xF0, 0x90);
	out(p, 0, 'x');
	assert_int_equal(in(p, 5) & 1, 1);
	assert_int_equal(in(p, 0), 'x');
	out(p, 4, 0);
	/* Divisor latch. */
	out(p, 3, 0x83);
	out(p, 0, 0x01);
	out(p, 1, 0x02);
	assert_int_equal(in(p, 0), 0x01);
	assert_int_equal(in(p, 1), 0x02);
	out(p, 3, 0x03);
	assert_int_equal(in(p, 1), 0);
}

static void test_enabling_the_transmit_interrupt_raises_it_each_time(void **state)
{
	struct probe *p = *state;
	for (unsigned i = 1; i <= 2; i++) {
		out(p, 1, 0x02);
		assert_true(p->level);
		assert_int_equal(p->edges, i);
		assert_int_equal(in(p, 2) & 0xF, 0x02); /* reading acknowledges */
		assert_false(p->level);
		assert_int_equal(in(p, 2) & 0xF, 0x01);
		out(p, 1, 0);
	}
}

static void test_a_write_to_the_transmitter_gives_a_new_edge(void **state)
{
	struct probe *p = *state;
	out(p, 1, 0x02);
	assert_int_equal(p->edges, 1);
	out(p, 0, 'a'); /* acknowledges by writing, without reading IIR */
	assert_int_equal(p->edges, 2);
	assert_true(p->level);
	in(p, 2);
	out(p, 0, 'b');
	assert_int_equal(p->edges, 3);
}

static void test_a_full_buffer_shows_a_busy_transmitter_and_recovers_with_an_interrupt(void **state)
{
	struct probe *p = *state;
	static uint8_t sink[SERIAL_OUT_BYTES];
	for (unsigned i = 0; i < SERIAL_OUT_BYTES; i++) {
		assert_int_equal(in(p, 5) & 0x60, 0x60);
		out(p, 0, (uint8_t)i);
	}
	assert_int_equal(in(p, 5) & 0x60, 0);
	out(p, 1, 0x02);
	assert_false(p->level);
	out(p, 0, 'L');
	assert_int_equal(serial_lost(p->s), 1);
	assert_int_equal(serial_drain(p->s, sink, 1), 1);
	assert_true(p->level);
	assert_int_equal(in(p, 5) & 0x60, 0x60);
	assert_int_equal(serial_drain(p->s, sink, sizeof(sink)), SERIAL_OUT_BYTES - 1);
	assert_int_equal(sink[0], 1);
	assert_int_equal(sink[SERIAL_OUT_BYTES - 2], (uint8_t)(SERIAL_OUT_BYTES - 1));
}

static void test_input_waits_for_room_and_interrupts(void **state)
{
	struct probe *p = *state;
	out(p, 2, 0xC1); /* FIFO, trigger at 14 */
	out(p, 1, 0x01);
	assert_int_equal(serial_input(p->s, "a", 1), 1);
	assert_int_equal(in(p, 2) & 0xF, 0x0C); /* timed out below the trigger */
	assert_int_equal(serial_input(p->s, "bcdefghijklmnopqrst", 19), 15);
	assert_int_equal(in(p, 2) & 0xF, 0x04);
	assert_int_equal(p->spaces, 0);
	assert_int_equal(in(p, 0), 'a');
	assert_int_equal(p->spaces, 1);
	for (char c = 'b'; c <= 'p'; c++)
		assert_int_equal(in(p, 0), c);
	assert_false(p->level);
	assert_int_equal(in(p, 5) & 1, 0);
	assert_int_equal(p->spaces, 1);
}

static void test_the_tail_keeps_the_last_output_although_it_was_drained(void **state)
{
	struct probe *p = *state;
	static char tail[SERIAL_TAIL_BYTES + 10], sink[SERIAL_OUT_BYTES];
	for (unsigned i = 0; i < SERIAL_TAIL_BYTES + 3; i++)
		out(p, 0, (uint8_t)('a' + i % 26));
	serial_drain(p->s, sink, sizeof(sink));
	assert_int_equal(serial_tail(p->s, tail, sizeof(tail)), SERIAL_TAIL_BYTES);
	assert_int_equal(tail[0], 'd');
	assert_int_equal(serial_tail(p->s, tail, 2), 2);
	assert_int_equal(tail[1], 'a' + (SERIAL_TAIL_BYTES + 2) % 26);
}

static void test_a_reader_that_does_not_read_holds_up_nobody(void **state)
{
	struct probe *p = *state;
	int fd[2];
	assert_int_equal(pipe2(fd, O_NONBLOCK), 0);
	/* More than a pipe holds. */
	for (unsigned i = 0; i < SERIAL_OUT_BYTES; i++)
		out(p, 0, 'x');
	assert_int_equal(serial_drain_fd(p->s, fd[1]), 0);
	for (unsigned i = 0; i < SERIAL_OUT_BYTES; i++)
		out(p, 0, 'y');
	assert_int_equal(serial_drain_fd(p->s, fd[1]), 1);
	close(fd[0]);
	close(fd[1]);
	assert_int_equal(serial_drain_fd(p->s, fd[1]), -1);
	assert_int_equal(errno, EBADF);
}

static void test_a_saved_port_continues(void **state)
{
	struct probe *p = *state;
	struct serial_state st, again;
	out(p, 2, 0x81);
	out(p, 1, 0x03);
	out(p, 3, 0x1B);
	serial_input(p->s, "xyz", 3);
	serial_save(p->s, &st);
	struct serial *other = serial_new(&(struct serial_config){0});
	serial_load(other, &st);
	serial_save(other, &again);
	assert_memory_equal(&st, &again, sizeof(st));
	uint8_t v;
	serial_access(other, 0, &v, 1, false);
	assert_int_equal(v, 'x');
	memset(&st, 0xFF, sizeof(st)); /* any bytes are safe */
	serial_load(other, &st);
	serial_free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_output_reaches_the_reader_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_driver_finds_a_16550a, setup, teardown),
		cmocka_unit_test_setup_teardown(test_enabling_the_transmit_interrupt_raises_it_each_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_write_to_the_transmitter_gives_a_new_edge, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_full_buffer_shows_a_busy_transmitter_and_recovers_with_an_interrupt, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_input_waits_for_room_and_interrupts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_tail_keeps_the_last_output_although_it_was_drained, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_reader_that_does_not_read_holds_up_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_saved_port_continues, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
