/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs cases on the host's CPU.
 *
 * Theory of operation: a child maps the code page and the data pages at the fixed addresses, from memfds that it also has mapped
 * read-write elsewhere. All the work is done in one signal handler on its own stack: the trap or fault that ends a case enters it, it
 * saves what the signal frame holds as that case's outcome, puts the next case into the frame, and returns into it. The child
 * lives in that handler; between batches it waits there on a futex.
 */
#include "diff.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096u
#define CS_64 0x33u /* Linux's user code segments */
#define CS_32 0x23u

/* The child's; a signal handler has no other place for it. */
static struct {
	struct batch *batches;
	unsigned batch, at;
	bool running;
	uint8_t *code, *data;
	uint8_t last_code;
} child;

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void futex(_Atomic uint32_t *p, int op, uint32_t v, const struct timespec *t)
{
	syscall(SYS_futex, p, op, v, t, NULL, 0);
}

static uint8_t *window(uint64_t boundary)
{
	return child.data + (boundary - DATA) - WINDOW / 2;
}

static void take(struct test_case *t, const ucontext_t *uc)
{
	struct outcome *o = &t->native;
	const greg_t *g = uc->uc_mcontext.gregs;
	for (unsigned i = 0; i < 16; i++)
		o->r[i] = (uint64_t)g[greg_of[i]];
	o->rip = (uint64_t)g[REG_RIP];
	o->rflags = (uint64_t)g[REG_EFL];
	o->vector = (uint32_t)g[REG_TRAPNO];
	o->error = (uint32_t)g[REG_ERR];
	o->cr2 = (uint64_t)g[REG_CR2];
	memcpy(&o->fx, uc->uc_mcontext.fpregs, sizeof(o->fx));
	memcpy(o->win, window(t->boundary), WINDOW);
}

static void give(const struct test_case *t, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	for (unsigned i = 0; i < 16; i++)
		g[greg_of[i]] = (greg_t)t->r[i];
	g[REG_RIP] = (greg_t)CODE_START;
	g[REG_EFL] = (greg_t)t->rflags;
	g[REG_CSGSFS] = (greg_t)(((uint64_t)g[REG_CSGSFS] & ~0xffffull) | (t->mode32 ? CS_32 : CS_64));
	uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
	memcpy(fp, &t->fx, 416); /* what follows is the kernel's own */
	uint32_t magic;
	memcpy(&magic, fp + 464, 4);
	if (magic == 0x46505853) { /* an XSAVE image: x87 and SSE are not in their initial state */
		uint64_t bv;
		memcpy(&bv, fp + 512, 8);
		bv |= 3;
		memcpy(fp + 512, &bv, 8);
	}
	memcpy(child.code + (CODE_START & 0xfff), t->code, CODE_BYTES);
	memcpy(window(t->boundary), t->win, WINDOW);
}

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;
	struct batch *b = &child.batches[child.batch];
	if (child.running) {
		take(&b->c[child.at], uc);
		if (++child.at == b->n) {
			child.running = false;
			child.batch = (child.batch + 1) % N_BATCHES;
			b->state = 0;
			futex(&b->state, FUTEX_WAKE, 1, NULL);
			b = &child.batches[child.batch];
		}
	}
	if (!child.running) {
		while (b->state != 1)
			futex(&b->state, FUTEX_WAIT, 0, NULL);
		child.running = true;
		child.at = 0;
	}
	give(&b->c[child.at], uc);
}

static int map_at(uint64_t at, uint64_t size, int prot, int fd, off_t off)
{
	void *want = (void *)(uintptr_t)at;
	return mmap(want, size, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, off) == want ? 0 : -1;
}

static void child_main(struct batch *batches)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	child.batches = batches;
	const int code = memfd_create("code", 0), data = memfd_create("data", 0);
	if (code < 0 || data < 0 || ftruncate(code, PAGE) || ftruncate(data, DATA_PAGES * PAGE))
		_exit(10);
	child.code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, code, 0);
	child.data = mmap(NULL, DATA_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, data, 0);
	if (child.code == MAP_FAILED || child.data == MAP_FAILED)
		_exit(11);
	memset(child.code, 0xcc, PAGE);
	if (map_at(CODE_PAGE, PAGE, PROT_READ | PROT_EXEC, code, 0) || map_at(DATA, 2 * PAGE, PROT_READ | PROT_WRITE, data, 0) ||
	    map_at(DATA + 2 * PAGE, 2 * PAGE, PROT_READ, data, 2 * PAGE) ||
	    map_at(DATA + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE, data, 5 * PAGE))
		_exit(12);
	stack_t ss = {.ss_sp = malloc(1 << 17), .ss_size = 1 << 17};
	if (!ss.ss_sp || sigaltstack(&ss, NULL))
		_exit(13);
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	const int sigs[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
	for (unsigned i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++)
		sigaction(sigs[i], &sa, NULL);
	/* 32-bit code needs data segments; 64-bit code does not mind them. */
	__asm__ volatile("movl %%ss, %%eax\n\tmovl %%eax, %%ds\n\tmovl %%eax, %%es\n\tint3" : : : "eax");
	_exit(14);
}

int native_start(struct batch *b)
{
	const int pid = fork();
	if (pid == 0)
		child_main(b);
	return pid;
}

void native_submit(struct batch *b)
{
	b->state = 1;
	futex(&b->state, FUTEX_WAKE, 1, NULL);
}

bool native_wait(struct batch *b, int pid)
{
	const struct timespec tick = {.tv_sec = 2};
	unsigned ticks = 0;
	while (b->state == 1) {
		futex(&b->state, FUTEX_WAIT, 1, &tick);
		if (b->state != 1)
			break;
		int status;
		if (waitpid(pid, &status, WNOHANG) == pid) {
			fprintf(stderr, "difftest: the native child ended with status 0x%x\n", status);
			return false;
		}
		if (++ticks > 15) {
			fprintf(stderr, "difftest: the native child hangs\n");
			return false;
		}
	}
	return true;
}
