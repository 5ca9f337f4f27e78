/* SPDX-License-Identifier: MIT */
/*
 * fuzz_native: runs a case on the host's own CPU.
 *
 * Theory of operation. All registers are loaded from a page at a fixed low address, which absolute
 * operands reach without a register; then a jump through memory leads to the instruction, whose
 * last byte ends a page. The next page leads to a copy of `fuzz_native_exit`, which stores all
 * registers and returns. A fault arrives as a signal, whose handler takes the registers from its
 * frame and goes on behind the stores.
 */
#include "tests/softfuzz/fuzz_native.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/bytes.h"
#include "base/check.h"

/* At FUZZ_STATE_BASE; the assembly below knows the offsets. */
struct native_page {
    uint8_t in_fx[512] __attribute__((aligned(64)));
    uint8_t out_fx[512];
    uint64_t in_gpr[16];  /* 0x400 */
    uint64_t out_gpr[16]; /* 0x480 */
    uint64_t in_rflags;   /* 0x500 */
    uint64_t out_rflags;  /* 0x508 */
    uint64_t host_rsp;    /* 0x510 */
    uint64_t target;      /* 0x518 */
    uint64_t was_taken;   /* 0x520 */
    uint64_t clean_mxcsr; /* 0x528 */
    uint64_t far_target;  /* 0x530: offset and selector, into compatibility mode */
    uint64_t has_avx;     /* 0x538 */
    uint8_t in_ymm[16][32] __attribute__((aligned(64))); /* 0x540; of which XMM is in_fx's */
    uint8_t out_ymm[16][32];                             /* 0x740 */
};

_Static_assert(offsetof(struct native_page, in_gpr) == 0x400, "see the assembly");
_Static_assert(offsetof(struct native_page, clean_mxcsr) == 0x528, "see the assembly");
_Static_assert(offsetof(struct native_page, in_ymm) == 0x540, "see the assembly");

/* Linux's code segments for users. */
#define SELECTOR_32 0x23
#define SELECTOR_64 0x33

/* In a signal's frame. */
#define FRAME_MAGIC     464
#define FRAME_XSTATE_BV 512
#define FRAME_YMM       576
#define XSTATE_YMM      4u
#ifndef FP_XSTATE_MAGIC1
#define FP_XSTATE_MAGIC1 0x46505853u
#endif

#define EXIT_OFFSET    0x200
#define RESTORE_OFFSET 0x500

static struct native_page *const page = (struct native_page *)FUZZ_STATE_BASE;
static uint8_t *const code = (uint8_t *)FUZZ_CODE_BASE;
static uint8_t *const data = (uint8_t *)FUZZ_DATA_BASE;
static struct fuzz_result *running;

void fuzz_native_enter(void);
void fuzz_native_enter_32(void);
extern const uint8_t fuzz_native_exit[], fuzz_native_exit_end[], fuzz_native_leave[];
extern const uint8_t fuzz_native_restore[], fuzz_native_exit_32[], fuzz_native_exit_32_end[];

#define LOAD(reg, n)     "movq 0x10000400+8*" #n ", %" #reg "\n"
#define STORE(reg, n)    "movq %" #reg ", 0x10000480+8*" #n "\n"
#define LOAD_32(reg, n)  "movq 0x10000400+8*" #n ", %r" #reg "\n"
#define STORE_32(reg, n) "movl %e" #reg ", 0x10000480+8*" #n "\n"
/* RSP, number 4, goes last and first. */
#define ALL_32(X) X(ax, 0) X(cx, 1) X(dx, 2) X(bx, 3) X(bp, 5) X(si, 6) X(di, 7)
/* Before XMM is loaded, and with flags that do not matter yet or any more. */
#define ALL_YMM(X)                                                                                 \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define LOAD_ONE_YMM(n)  "vmovdqu 0x10000540+32*" #n ", %ymm" #n "\n"
#define STORE_ONE_YMM(n) "vmovdqu %ymm" #n ", 0x10000740+32*" #n "\n"
#define LOAD_YMM         "cmpb $0, 0x10000538\n je 1f\n" ALL_YMM(LOAD_ONE_YMM) "1:\n"
#define STORE_YMM        "cmpb $0, 0x10000538\n je 1f\n" ALL_YMM(STORE_ONE_YMM) "vzeroupper\n 1:\n"
#define CLEAN_YMM        "cmpb $0, 0x10000538\n je 1f\n vzeroupper\n 1:\n"
#define ALL(X)                                                                                     \
    X(rax, 0)                                                                                      \
    X(rcx, 1)                                                                                      \
    X(rdx, 2)                                                                                      \
    X(rbx, 3)                                                                                      \
    X(rbp, 5)                                                                                      \
    X(rsi, 6)                                                                                      \
    X(rdi, 7)                                                                                      \
    X(r8, 8) X(r9, 9) X(r10, 10) X(r11, 11) X(r12, 12) X(r13, 13) X(r14, 14) X(r15, 15)

__asm__(".pushsection .text\n"
        ".globl fuzz_native_enter, fuzz_native_exit, fuzz_native_exit_end, fuzz_native_leave\n"
        ".globl fuzz_native_restore, fuzz_native_enter_32, fuzz_native_exit_32, "
        "fuzz_native_exit_32_end\n"
        "fuzz_native_enter:\n"
        "pushq %rbx\n pushq %rbp\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, 0x10000510\n" LOAD_YMM "fxrstor64 0x10000000\n"
        "pushq 0x10000500\n popfq\n"                 /* flags */
        ALL(LOAD) LOAD(rsp, 4) "jmpq *0x10000518\n"  /* to the instruction */
                               "fuzz_native_exit:\n" /* copied behind it */
        ALL(STORE)
            STORE(rsp,
                  4) "fuzz_native_restore: movq 0x10000510, %rsp\n" /* the host's stack again */
                     "pushfq\n popq 0x10000508\n"                   /* flags */
                     "cld\n fxsave64 0x10000200\n"                  /* FPU */
        STORE_YMM "fninit\n ldmxcsr 0x10000528\n"                   /* as C wants it */
                     "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbp\n popq %rbx\n ret\n"
                     "fuzz_native_exit_end:\n"
                     "fuzz_native_leave:\n" /* after a signal */
                     "movq 0x10000510, %rsp\n" CLEAN_YMM "cld\n fninit\n ldmxcsr 0x10000528\n"
                     "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbp\n popq %rbx\n ret\n"
                     "fuzz_native_enter_32:\n"
                     "pushq %rbx\n pushq %rbp\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
                     "movq %rsp, 0x10000510\n"
                     "movl $0x2b, %eax\n movl %eax, %ds\n movl %eax, %es\n" LOAD_YMM
                     "fxrstor64 0x10000000\n"
                     "pushq 0x10000500\n popfq\n" ALL_32(LOAD_32) LOAD_32(
                         sp, 4) "ljmpl *0x10000530\n"
                                ".code32\n"
                                "fuzz_native_exit_32:\n" ALL_32(STORE_32) STORE_32(
                                    sp, 4) "ljmp $0x33, $0x30001500\n" /* to fuzz_native_restore */
                                           ".code64\n"
                                           "fuzz_native_exit_32_end:\n"
                                           ".popsection\n");

_Static_assert(FUZZ_CODE_END + RESTORE_OFFSET == 0x30001500, "see the assembly");

static void take_registers(const greg_t *from, struct fuzz_state *out)
{
    static const uint8_t order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                      REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                      REG_R12, REG_R13, REG_R14, REG_R15};

    for (unsigned i = 0; i < 16; i++)
        out->gpr[i] = (uint64_t)from[order[i]];
    out->rflags = (uint64_t)from[REG_EFL];
    out->rip = (uint64_t)from[REG_RIP];
}

/* The kernel's frame holds XSAVE's area, behind what it says about it in the legacy part. */
static void take_upper_halves(const uint8_t *frame, struct fuzz_state *out)
{
    bool has_area = load_le32(frame + FRAME_MAGIC) == FP_XSTATE_MAGIC1;

    memset(out->ymm_high, 0, sizeof(out->ymm_high));
    if (has_area && load_le64(frame + FRAME_XSTATE_BV) & XSTATE_YMM)
        memcpy(out->ymm_high, frame + FRAME_YMM, sizeof(out->ymm_high));
}

static void on_signal(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;
    greg_t *registers = frame->uc_mcontext.gregs;

    (void)info;
    if (!running) {
        signal(signal_number, SIG_DFL);
        return;
    }
    take_registers(registers, &running->out);
    memcpy(running->out.fx, frame->uc_mcontext.fpregs, sizeof(running->out.fx));
    take_upper_halves((const uint8_t *)frame->uc_mcontext.fpregs, &running->out);
    running->vector = (int)registers[REG_TRAPNO];
    running->error_code = (uint32_t)registers[REG_ERR];
    running->cr2 = (uint64_t)registers[REG_CR2];
    registers[REG_RIP] = (greg_t)(uintptr_t)fuzz_native_leave;
    registers[REG_CSGSFS] = (registers[REG_CSGSFS] & ~0xffffll) | SELECTOR_64;
    registers[REG_EFL] &= ~0x40500;
    running = NULL;
}

static int map(uint64_t address, size_t size, int protection)
{
    void *at = mmap((void *)address, size, protection,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);

    return at == (void *)address ? 0 : -errno;
}

/* The page behind the instruction: jumps to the exit, and to the exit with a note. */
static void install_exits(bool is_32)
{
    uint8_t *end = (uint8_t *)FUZZ_CODE_END, *taken = (uint8_t *)FUZZ_TAKEN;
    unsigned note = is_32 ? 10 : 12;

    if (is_32)
        memcpy(end + EXIT_OFFSET, fuzz_native_exit_32,
               (size_t)(fuzz_native_exit_32_end - fuzz_native_exit_32));
    else
        memcpy(end + EXIT_OFFSET, fuzz_native_exit,
               (size_t)(fuzz_native_exit_end - fuzz_native_exit));
    memcpy(end + RESTORE_OFFSET, fuzz_native_restore,
           (size_t)(fuzz_native_exit_end - fuzz_native_restore));
    *end = 0xe9;
    store_le32(end + 1, EXIT_OFFSET - 5);
    /* mov $1, was_taken; jmp */
    if (is_32)
        memcpy(taken, "\xc7\x05\x20\x05\x00\x10\x01\x00\x00\x00\xe9", 11);
    else
        memcpy(taken, "\x48\xc7\x04\x25\x20\x05\x00\x10\x01\x00\x00\x00\xe9", 13);
    store_le32(taken + note + 1, (uint32_t)(FUZZ_CODE_END + EXIT_OFFSET - (FUZZ_TAKEN + note + 5)));
}

void fuzz_native_catch_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP};
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_ONSTACK | SA_SIGINFO | SA_NODEFER};

    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &action, NULL);
}

int fuzz_native_init(bool is_32)
{
    static uint8_t signal_stack[1 << 18];
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};
    int failed = map(FUZZ_STATE_BASE, 0x1000, PROT_READ | PROT_WRITE);

    failed = failed ?: map(FUZZ_CODE_BASE, 0x2000, PROT_READ | PROT_WRITE | PROT_EXEC);
    failed =
        failed ?: map(FUZZ_DATA_BASE, FUZZ_DATA_BYTES + FUZZ_RDONLY_BYTES, PROT_READ | PROT_WRITE);
    if (failed || sigaltstack(&stack, NULL))
        return failed ?: -errno;
    install_exits(is_32);
    page->clean_mxcsr = 0x1f80;
    page->has_avx = !!__builtin_cpu_supports("avx");
    fuzz_native_catch_signals();
    return 0;
}

/* The read-only page is filled once; all cases have the same noise there. */
static void fill_data(const struct fuzz_case *c)
{
    static bool is_filled;

    if (!is_filled) {
        memcpy(data, c->data, sizeof(c->data));
        mprotect(data + FUZZ_DATA_BYTES, FUZZ_RDONLY_BYTES, PROT_READ);
        is_filled = true;
    }
    memcpy(data, c->data, FUZZ_DATA_BYTES);
}

void fuzz_native_run(const struct fuzz_case *c, struct fuzz_result *result)
{
    uint64_t start = FUZZ_CODE_END - c->length;

    fill_data(c);
    memcpy(code + 0x1000 - c->length, c->bytes, c->length);
    memcpy(page->in_fx, c->in.fx, sizeof(page->in_fx));
    for (unsigned i = 0; i < 16; i++)
        memcpy(page->in_ymm[i] + 16, c->in.ymm_high[i], 16);
    memcpy(page->in_gpr, c->in.gpr, sizeof(page->in_gpr));
    page->in_rflags = c->in.rflags;
    page->target = start;
    page->was_taken = 0;
    result->vector = -1;
    page->far_target = start | (uint64_t)SELECTOR_32 << 32;
    memset(page->out_gpr, 0, sizeof(page->out_gpr));
    running = result;
    if (c->is_32)
        fuzz_native_enter_32();
    else
        fuzz_native_enter();
    if (running) {
        running = NULL;
        memcpy(result->out.fx, page->out_fx, sizeof(page->out_fx));
        for (unsigned i = 0; i < 16; i++)
            memcpy(result->out.ymm_high[i], page->out_ymm[i] + 16, 16);
        memcpy(result->out.gpr, page->out_gpr, sizeof(page->out_gpr));
        result->out.rflags = page->out_rflags;
        result->out.rip = page->was_taken ? FUZZ_TAKEN : FUZZ_CODE_END;
    }
    if (c->is_32) /* the upper registers are still ours */
        memset(&result->out.gpr[8], 0, 8 * sizeof(result->out.gpr[8]));
    memcpy(result->data, data, sizeof(result->data));
}
