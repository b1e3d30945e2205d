/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small kernel under every test guest: printing, checks, faults as values, page tables, interrupts, secondary CPUs.
 *
 * A guest defines guest_main(), which returns the exit code (0 passed, 77 skipped). CHECK counts and prints what fails and goes
 * on; `return guest_result();` ends with the verdict. Compiled without SSE and without a red zone.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int guest_main(void);
void guest_init(void);
void guest_exit(int code) __attribute__((noreturn));
int guest_result(void);
extern uint64_t guest_cpus, guest_accel; /* number of CPUs; accelerator: bit 0 KVM, bit 1 one that interprets ring 0, bit 2 now this and now soft */
/* On such a KVM: says that `what` is left out because of a defect of it, and gives true. */
bool guest_skip_pvm(const char *what);

/* %s %d %u %x (64-bit), %c; no widths */
void print(const char *fmt, ...);
void check_failed(const char *file, int line, const char *what);
#define CHECK(cond)                                                                                                \
	do {                                                                                                       \
		if (!(cond))                                                                                       \
			check_failed(__FILE_NAME__, __LINE__, #cond);                                              \
	} while (0)
#define CHECK_EQ(a, b)                                                                                             \
	do {                                                                                                       \
		uint64_t a_ = (uint64_t)(a), b_ = (uint64_t)(b);                                                   \
		if (a_ != b_) {                                                                                    \
			check_failed(__FILE_NAME__, __LINE__, #a " == " #b);                                       \
			print("    %x and %x\n", a_, b_);                                                          \
		}                                                                                                  \
	} while (0)
void *memset(void *d, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* Ports, control registers, MSRs */
static inline void outb(uint16_t p, uint8_t v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(p)); }
static inline void outw(uint16_t p, uint16_t v) { asm volatile("outw %0, %1" : : "a"(v), "Nd"(p)); }
static inline void outl(uint16_t p, uint32_t v) { asm volatile("outl %0, %1" : : "a"(v), "Nd"(p)); }
static inline uint8_t inb(uint16_t p) { uint8_t v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline uint16_t inw(uint16_t p) { uint16_t v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline uint32_t inl(uint16_t p) { uint32_t v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline uint64_t rdmsr(uint32_t i)
{
	uint32_t lo, hi;
	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(i));
	return lo | (uint64_t)hi << 32;
}
static inline void wrmsr(uint32_t i, uint64_t v)
{
	asm volatile("wrmsr" : : "c"(i), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;
	asm volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return lo | (uint64_t)hi << 32;
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
	asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}
#define READ_CR(n) ({ uint64_t v_; asm volatile("mov %%cr" #n ", %0" : "=r"(v_) : : "memory"); v_; })
#define WRITE_CR(n, v) asm volatile("mov %0, %%cr" #n : : "r"((uint64_t)(v)) : "memory")
static inline void invlpg(void *p) { asm volatile("invlpg (%0)" : : "r"(p) : "memory"); }
static inline void sti(void) { asm volatile("sti" : : : "memory"); }
static inline void cli(void) { asm volatile("cli" : : : "memory"); }
static inline void pause(void) { asm volatile("pause" : : : "memory"); }
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))

/* Exceptions and interrupts. frame is what the stub saved. */
struct frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};
typedef void isr_fn(struct frame *f);
void set_isr(unsigned vector, isr_fn *fn);        /* NULL: back to default */
void set_ist(unsigned vector, unsigned ist);      /* 1..7, or 0 */
extern uint8_t ist_stack_top[];                   /* IST 1's stack ends here; IST 2's 4 KiB above */

/* The last fault caught by TRY() or by run_user(). */
struct fault {
	uint64_t vector, error, cr2, rip, cs, rflags, rsp, ss;
	uint64_t rax, rcx, rsi, rdi;
};
extern struct fault fault;
extern volatile uint64_t fault_recover, fault_rsp;
#define NO_FAULT 0xffff
/* Executes asm; if it faults, `fault` says how and execution goes on behind it. Gives the vector, NO_FAULT if none. Input operands
 * follow; RAX, RBX, RCX, RDX and R11 are free for use in the asm. */
#define TRY(insn, ...)                                                                                             \
	({                                                                                                         \
		fault.vector = NO_FAULT;                                                                           \
		asm volatile("leaq 77f(%%rip), %%r11\n\tmovq %%r11, fault_recover(%%rip)\n\t"                      \
			     "movq %%rsp, fault_rsp(%%rip)\n\t" insn                                              \
			     "\n77:\tmovq $0, fault_recover(%%rip)\n\tmovq fault_rsp(%%rip), %%rsp"               \
			     : : __VA_ARGS__ : "rax", "rbx", "rcx", "rdx", "r11", "memory", "cc");                                             \
		fault.vector;                                                                                      \
	})
/* As TRY for an address that is read or written. */
#define TRY_READ(p) TRY("movb (%0), %%r11b", "r"(p))
#define TRY_WRITE(p) TRY("movb $0x5a, (%0)", "r"(p))
#define TRY_CALL(p) TRY("call *%0", "r"(p))

/* Runs code in ring 3 until an exception or an INT that nobody handles; gives the vector. */
uint64_t run_user(void *rip, void *rsp, uint64_t rflags, uint64_t arg);
uint64_t run_user32(void *rip, void *rsp, uint64_t rflags); /* the same with a 32-bit code segment; addresses below 4 GiB */
void enter_user(uint64_t rip, uint64_t rsp, uint64_t rflags, uint64_t arg);
void leave_user(void) __attribute__((noreturn));

/* Memory. All RAM is mapped one to one at its address in 2 MiB pages, supervisor only. */
#define PTE_P   1ull
#define PTE_W   2ull
#define PTE_U   4ull
#define PTE_A   0x20ull
#define PTE_D   0x40ull
#define PTE_PS  0x80ull
#define PTE_G   0x100ull
#define PTE_NX  (1ull << 63)
#define TEST_VA 0x8000000000ull /* a range of linear addresses where nothing is mapped */
void *alloc_page(void);                            /* zeroed */
/* Maps va to pa with a page of 4096, 2 MiB or 1 GiB; upper levels allow everything. Returns the entry. */
volatile uint64_t *map_page(uint64_t va, uint64_t pa, uint64_t flags, uint64_t size);
void flush_tlb(void);
void allow_user(uint64_t va); /* sets the U bit at the upper levels of va */

/* Selectors, as Linux has them: 0x08 32-bit code, 0x10 code, 0x18 data, 0x23 user 32-bit code, 0x2b user data, 0x33 user code, 0x40 TSS (two
 * slots); from 0x50 free for tests */
extern uint64_t gdt[16];
struct tss {
	uint32_t rsvd0;
	uint64_t rsp[3], rsvd1, ist[7], rsvd2;
	uint16_t rsvd3, iopb;
} __attribute__((packed));
extern struct tss tss;

/* Local APIC in x2APIC mode */
void apic_enable(void);
#define X2APIC_ID    0x802
#define X2APIC_TPR   0x808
#define X2APIC_PPR   0x80A
#define X2APIC_EOI   0x80B
#define X2APIC_SVR   0x80F
#define X2APIC_IRR   0x820
#define X2APIC_ISR   0x810
#define X2APIC_ICR   0x830
#define X2APIC_LVTT  0x832
#define X2APIC_LVT0  0x835
#define X2APIC_TMICT 0x838
#define X2APIC_TMCCT 0x839
#define X2APIC_TDCR  0x83E
#define X2APIC_SELF  0x83F
static inline void apic_eoi(void) { wrmsr(X2APIC_EOI, 0); }
/* IOAPIC pin to vector on CPU 0. flags: bit 15 level, bit 16 masked. */
void ioapic_route(unsigned pin, unsigned vector, uint32_t flags);
uint32_t ioapic_read(unsigned reg);
void ioapic_write(unsigned reg, uint32_t v);

/* Secondary CPUs: starts all of them and waits until each is in fn(cpu). They have interrupts off and the same IDT. */
typedef void ap_fn(unsigned cpu);
unsigned start_aps(ap_fn *fn);
void set_ap_work(ap_fn *fn); /* what a CPU started by hand from now on does */

/* Spins until cond or about `ms` milliseconds of TSC time have passed; gives cond. */
uint64_t tsc_khz(void);
#define WAIT_FOR(cond, ms)                                                                                         \
	({                                                                                                         \
		uint64_t until_ = rdtsc() + tsc_khz() * (ms);                                                      \
		while (!(cond) && rdtsc() < until_)                                                                \
			pause();                                                                                   \
		(cond);                                                                                            \
	})

#endif
