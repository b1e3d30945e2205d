/* SPDX-License-Identifier: Apache-2.0 */
/* See guest.h. */
#include "guest.h"

#include <stdarg.h>

uint64_t gdt[16] __attribute__((aligned(16)));
struct tss tss __attribute__((aligned(16)));
static uint64_t idt[512] __attribute__((aligned(16)));
static isr_fn *isr_table[256];
struct fault fault;
volatile uint64_t fault_recover, fault_rsp;
static unsigned n_failed;
static uint8_t pool[512 * 4096] __attribute__((aligned(4096)));
static size_t pool_used;
static uint64_t *pml4;
static uint8_t rsp0_stack[16384] __attribute__((aligned(16)));
static uint8_t ist_stacks[8192] __attribute__((aligned(16)));
extern uint8_t isr_stubs[], ap_trampoline[], ap_trampoline_end[];
extern uint32_t ap_cr3;
extern volatile uint64_t ap_next;
void reload_segments(void);
void guest_isr(struct frame *f);
void ap_entry(unsigned cpu);
static volatile unsigned ap_ready;
static ap_fn *ap_work;

void *memset(void *d, int c, size_t n)
{
	void *r = d;
	asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return r;
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *r = d;
	asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return r;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *p = a, *q = b;
	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}

static void put(char c)
{
	outb(0xE9, (uint8_t)c);
}

bool guest_skip_pvm(const char *what)
{
	if (!(guest_accel & 2))
		return false;
	print("skipped: %s (this host's KVM interprets ring 0, wrongly here)\n", what);
	return true;
}

static void put_num(uint64_t v, unsigned base)
{
	char b[24];
	int n = 0;
	do {
		b[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n)
		put(b[--n]);
}

void print(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(*fmt);
			continue;
		}
		switch (*++fmt) {
		case 's':
			for (const char *s = va_arg(ap, const char *); *s; s++)
				put(*s);
			break;
		case 'd': {
			int64_t v = va_arg(ap, int64_t);
			if (v < 0)
				put('-');
			put_num(v < 0 ? -(uint64_t)v : (uint64_t)v, 10);
			break;
		}
		case 'u':
			put_num(va_arg(ap, uint64_t), 10);
			break;
		case 'x':
			put('0');
			put('x');
			put_num(va_arg(ap, uint64_t), 16);
			break;
		case 'c':
			put((char)va_arg(ap, int));
			break;
		}
	}
	va_end(ap);
}

void guest_exit(int code)
{
	outb(0xF4, (uint8_t)code);
	for (;;)
		asm volatile("cli; hlt");
}

void check_failed(const char *file, int line, const char *what)
{
	n_failed++;
	print("FAILED %s:%u: %s\n", file, (uint64_t)line, what);
}

int guest_result(void)
{
	if (n_failed)
		print("%u checks failed\n", (uint64_t)n_failed);
	return n_failed ? 1 : 0;
}

void set_isr(unsigned vector, isr_fn *fn)
{
	isr_table[vector] = fn;
}

static void set_gate(unsigned vector, unsigned ist, unsigned dpl)
{
	uint64_t a = (uint64_t)(isr_stubs + 16 * vector);
	idt[2 * vector] = (a & 0xffff) | 0x10ull << 16 | (uint64_t)ist << 32 | (0x8eull | dpl << 5) << 40 |
			  (a >> 16 & 0xffff) << 48;
	idt[2 * vector + 1] = a >> 32;
}

void set_ist(unsigned vector, unsigned ist)
{
	set_gate(vector, ist, vector == 3 || vector == 4 || vector == 0x80 ? 3 : 0);
}

void guest_isr(struct frame *f)
{
	if (isr_table[f->vector]) {
		isr_table[f->vector](f);
		return;
	}
	bool user = f->cs & 3;
	if (user || fault_recover) {
		fault = (struct fault){
			.vector = f->vector, .error = f->error, .cr2 = READ_CR(2), .rip = f->rip, .cs = f->cs,
			.rflags = f->rflags, .rsp = f->rsp, .ss = f->ss, .rax = f->rax, .rcx = f->rcx, .rsi = f->rsi, .rdi = f->rdi,
		};
		if (user)
			leave_user();
		f->rip = fault_recover;
		f->rflags &= ~0x100ull;
		fault_recover = 0;
		return;
	}
	print("unexpected vector %u, error %x, CR2 %x, RIP %x, CS %x, RSP %x\n", f->vector, f->error, READ_CR(2), f->rip,
	      f->cs, f->rsp);
	guest_exit(3);
}

uint64_t run_user(void *rip, void *rsp, uint64_t rflags, uint64_t arg)
{
	fault.vector = NO_FAULT;
	enter_user((uint64_t)rip, (uint64_t)rsp, rflags | 2, arg);
	return fault.vector;
}

uint64_t run_user32(void *rip, void *rsp, uint64_t rflags)
{
	extern uint64_t enter_user_cs;
	enter_user_cs = 0x23;
	uint64_t v = run_user(rip, rsp, rflags, 0);
	enter_user_cs = 0x33;
	return v;
}

void *alloc_page(void)
{
	if (pool_used == sizeof pool) {
		print("out of pages\n");
		guest_exit(2);
	}
	void *p = pool + pool_used;
	pool_used += 4096;
	return p;
}

volatile uint64_t *map_page(uint64_t va, uint64_t pa, uint64_t flags, uint64_t size)
{
	uint64_t *t = pml4;
	unsigned leaf = size == 4096 ? 12 : size == 1 << 21 ? 21 : 30;
	for (unsigned shift = 39;; shift -= 9) {
		uint64_t *e = &t[va >> shift & 511];
		if (shift == leaf) {
			*e = pa | flags | (leaf > 12 ? PTE_PS : 0);
			return e;
		}
		if (!(*e & PTE_P))
			*e = (uint64_t)alloc_page() | PTE_P | PTE_W | PTE_U;
		t = (uint64_t *)(*e & 0xffffffffff000ull);
	}
}

void allow_user(uint64_t va)
{
	uint64_t *t = pml4;
	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t *e = &t[va >> shift & 511];
		*e |= PTE_U;
		if (*e & PTE_PS)
			break;
		t = (uint64_t *)(*e & 0xffffffffff000ull);
	}
	flush_tlb();
}

void flush_tlb(void)
{
	WRITE_CR(3, READ_CR(3));
}

static void load_tables(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) g = {sizeof gdt - 1, (uint64_t)gdt}, i = {sizeof idt - 1, (uint64_t)idt};
	asm volatile("lgdt %0" : : "m"(g));
	asm volatile("lidt %0" : : "m"(i));
}

void guest_init(void)
{
	gdt[1] = 0x00CF9B000000FFFF;
	gdt[2] = 0x00AF9B000000FFFF;
	gdt[3] = 0x00CF93000000FFFF;
	gdt[4] = 0x00CFFB000000FFFF;
	gdt[5] = 0x00CFF3000000FFFF;
	gdt[6] = 0x00AFFB000000FFFF;
	uint64_t t = (uint64_t)&tss;
	gdt[8] = (sizeof tss - 1) | (t & 0xffffff) << 16 | 0x89ull << 40 | (t >> 24 & 0xff) << 56;
	gdt[9] = t >> 32;
	tss.rsp[0] = (uint64_t)(rsp0_stack + sizeof rsp0_stack);
	tss.ist[0] = (uint64_t)(ist_stacks + 4096);
	tss.ist[1] = (uint64_t)(ist_stacks + 8192);
	tss.iopb = sizeof tss;
	for (unsigned v = 0; v < 256; v++)
		set_ist(v, 0);
	load_tables();
	reload_segments();
	asm volatile("ltr %0" : : "r"((uint16_t)0x40));

	pml4 = alloc_page();
	for (uint64_t a = 0; a < 0x100000000ull; a += 1 << 21)
		map_page(a, a, PTE_P | PTE_W, 1 << 21);
	wrmsr(0xC0000080, rdmsr(0xC0000080) | 0x801); /* NXE, SCE */
	WRITE_CR(3, (uint64_t)pml4);
	WRITE_CR(4, READ_CR(4) | 0x680); /* PGE, OSFXSR, OSXMMEXCPT */
}

void apic_enable(void)
{
	wrmsr(0x1B, rdmsr(0x1B) | 0x800);
	wrmsr(0x1B, rdmsr(0x1B) | 0xC00);
	wrmsr(X2APIC_SVR, 0x1FF);
	wrmsr(X2APIC_TPR, 0);
}

#define IOAPIC ((volatile uint32_t *)0xFEC00000)

uint32_t ioapic_read(unsigned reg)
{
	IOAPIC[0] = reg;
	return IOAPIC[4];
}

void ioapic_write(unsigned reg, uint32_t v)
{
	IOAPIC[0] = reg;
	IOAPIC[4] = v;
}

void ioapic_route(unsigned pin, unsigned vector, uint32_t flags)
{
	ioapic_write(0x11 + 2 * pin, 0);
	ioapic_write(0x10 + 2 * pin, vector | flags);
}

void ap_entry(unsigned cpu)
{
	WRITE_CR(4, READ_CR(4) | 0x680);
	wrmsr(0xC0000080, rdmsr(0xC0000080) | 0x801);
	load_tables();
	reload_segments();
	apic_enable();
	__atomic_fetch_add(&ap_ready, 1, __ATOMIC_SEQ_CST);
	ap_work(cpu);
}

void set_ap_work(ap_fn *fn)
{
	ap_work = fn;
}

unsigned start_aps(ap_fn *fn)
{
	ap_work = fn;
	ap_cr3 = (uint32_t)(uint64_t)pml4;
	memcpy((void *)0x8000, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
	for (unsigned i = 1; i < guest_cpus; i++) {
		wrmsr(X2APIC_ICR, (uint64_t)i << 32 | 0x4500); /* INIT */
		wrmsr(X2APIC_ICR, (uint64_t)i << 32 | 0x4608); /* SIPI to 0x8000 */
		if (!WAIT_FOR(ap_ready >= i, guest_accel & 4 ? 1000000000 : 5000)) {
			check_failed("lib.c", __LINE__, "a secondary CPU starts");
			break;
		}
	}
	return ap_ready;
}

uint64_t tsc_khz(void)
{
	static uint64_t khz;
	uint32_t r[4];
	if (!khz) {
		cpuid(0x40000010, 0, r);
		khz = r[0] ? r[0] : 1000000;
	}
	return khz;
}
