/* SPDX-License-Identifier: MIT */
/*
 * cpu: one software x86-64 vCPU, as every room of vmm/soft sees it.
 *
 * A vCPU belongs to the thread that calls vcpu_run; only the fields under "any thread" may be
 * touched from elsewhere. Functions that can fault return false after they have noted the exception
 * (soft_raise) or the exit (MMIO, PIO); the caller passes the false on without changing the guest's
 * registers, so that the instruction can run again from its start.
 */
#ifndef VMM_SOFT_CPU_H
#define VMM_SOFT_CPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "vmm/accel.h"
#include "vmm/soft/lapic.h"

struct soft_op;
struct soft_block;
struct soft_cache;
struct soft_vm;

/* Slots of soft_cpu.r. Decoded operands are byte offsets into it, so AH is at 1. */
enum soft_reg {
    SOFT_RAX,
    SOFT_RCX,
    SOFT_RDX,
    SOFT_RBX,
    SOFT_RSP,
    SOFT_RBP,
    SOFT_RSI,
    SOFT_RDI,
    SOFT_R8,
    SOFT_R15 = 15,
    SOFT_REG_ZERO,   /* always 0: no base, no index */
    SOFT_REG_FSBASE, /* the segment bases, as address operands */
    SOFT_REG_GSBASE,
    SOFT_REG_TEMP,  /* address of a two-step operand */
    SOFT_REG_START, /* RIP at which the running block began */
    SOFT_REG_COUNT,
};

enum soft_segment_index { SOFT_ES, SOFT_CS, SOFT_SS, SOFT_DS, SOFT_FS, SOFT_GS, SOFT_SEG_COUNT };

enum soft_vector {
    SOFT_DE = 0,
    SOFT_DB = 1,
    SOFT_NMI = 2,
    SOFT_BP = 3,
    SOFT_OF = 4,
    SOFT_BR = 5,
    SOFT_UD = 6,
    SOFT_NM = 7,
    SOFT_DF = 8,
    SOFT_TS = 10,
    SOFT_NP = 11,
    SOFT_SS_FAULT = 12,
    SOFT_GP = 13,
    SOFT_PF = 14,
    SOFT_MF = 16,
    SOFT_AC = 17,
    SOFT_XM = 19,
};

/*
 * The six arithmetic flags are kept as LAHF and SETO leave them in EAX: SF ZF AF PF CF in bits 15
 * to 8, OF in bit 0. The rest of RFLAGS is in soft_cpu.rflags.
 */
#define SOFT_FLAG_OF UINT32_C(0x0001)
#define SOFT_FLAG_CF UINT32_C(0x0100)
#define SOFT_FLAG_PF UINT32_C(0x0400)
#define SOFT_FLAG_AF UINT32_C(0x1000)
#define SOFT_FLAG_ZF UINT32_C(0x4000)
#define SOFT_FLAG_SF UINT32_C(0x8000)

#define RFLAGS_CF    UINT64_C(0x00000001)
#define RFLAGS_FIXED UINT64_C(0x00000002)
#define RFLAGS_PF    UINT64_C(0x00000004)
#define RFLAGS_AF    UINT64_C(0x00000010)
#define RFLAGS_ZF    UINT64_C(0x00000040)
#define RFLAGS_SF    UINT64_C(0x00000080)
#define RFLAGS_TF    UINT64_C(0x00000100)
#define RFLAGS_IF    UINT64_C(0x00000200)
#define RFLAGS_DF    UINT64_C(0x00000400)
#define RFLAGS_OF    UINT64_C(0x00000800)
#define RFLAGS_IOPL  UINT64_C(0x00003000)
#define RFLAGS_NT    UINT64_C(0x00004000)
#define RFLAGS_RF    UINT64_C(0x00010000)
#define RFLAGS_VM    UINT64_C(0x00020000)
#define RFLAGS_AC    UINT64_C(0x00040000)
#define RFLAGS_VIF   UINT64_C(0x00080000)
#define RFLAGS_VIP   UINT64_C(0x00100000)
#define RFLAGS_ID    UINT64_C(0x00200000)
#define RFLAGS_ARITH (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

#define CR0_PE UINT64_C(0x00000001)
#define CR0_MP UINT64_C(0x00000002)
#define CR0_EM UINT64_C(0x00000004)
#define CR0_TS UINT64_C(0x00000008)
#define CR0_ET UINT64_C(0x00000010)
#define CR0_NE UINT64_C(0x00000020)
#define CR0_WP UINT64_C(0x00010000)
#define CR0_AM UINT64_C(0x00040000)
#define CR0_NW UINT64_C(0x20000000)
#define CR0_CD UINT64_C(0x40000000)
#define CR0_PG UINT64_C(0x80000000)

#define CR4_VME        UINT64_C(0x0001)
#define CR4_PVI        UINT64_C(0x0002)
#define CR4_TSD        UINT64_C(0x0004)
#define CR4_DE         UINT64_C(0x0008)
#define CR4_PSE        UINT64_C(0x0010)
#define CR4_PAE        UINT64_C(0x0020)
#define CR4_MCE        UINT64_C(0x0040)
#define CR4_PGE        UINT64_C(0x0080)
#define CR4_PCE        UINT64_C(0x0100)
#define CR4_OSFXSR     UINT64_C(0x0200)
#define CR4_OSXMMEXCPT UINT64_C(0x0400)
#define CR4_OSXSAVE    UINT64_C(0x40000)

#define XCR0_X87 UINT64_C(0x1)
#define XCR0_SSE UINT64_C(0x2)
#define XCR0_AVX UINT64_C(0x4)

#define EFER_SCE UINT64_C(0x0001)
#define EFER_LME UINT64_C(0x0100)
#define EFER_LMA UINT64_C(0x0400)
#define EFER_NX  UINT64_C(0x0800)

/*
 * What a decoded block depends on besides its bytes. The bits of SOFT_MODE_FPU_MASK are there so
 * that FPU and SSE handlers need not look at CR0 and CR4 each time: the decoder emits #NM or #UD.
 */
enum soft_mode {
    SOFT_MODE_16 = 0,
    SOFT_MODE_32 = 1,
    SOFT_MODE_64 = 2,
    SOFT_MODE_SIZE_MASK = 3,
    SOFT_MODE_EM = 1 << 2,     /* CR0.EM: x87 and MMX raise #NM and #UD, SSE #UD */
    SOFT_MODE_TS = 1 << 3,     /* CR0.TS: x87, MMX, SSE raise #NM */
    SOFT_MODE_MP = 1 << 4,     /* CR0.MP: WAIT raises #NM with TS */
    SOFT_MODE_NO_SSE = 1 << 5, /* CR4.OSFXSR clear: SSE raises #UD */
    SOFT_MODE_REAL = 1 << 6,   /* real or virtual-8086 mode: some instructions do not exist */
    SOFT_MODE_NO_AVX = 1 << 7, /* CR4.OSXSAVE or bits of XCR0 clear: AVX raises #UD */
};

#define SOFT_TLB_SIZE   1024
#define SOFT_JUMPS_SIZE 4096

/*
 * `read` and `write` hold the page's virtual address if that access needs no further look, or
 * SOFT_TLB_NONE. `addend` turns a virtual address into a host pointer. `exec` is the page with
 * SOFT_TLB_VALID, and SOFT_TLB_GLOBAL, or 0.
 */
struct soft_tlb_entry {
    uint64_t read;
    uint64_t write;
    uint64_t exec;
    uint64_t addend;
};

#define SOFT_TLB_NONE   UINT64_MAX
#define SOFT_TLB_VALID  UINT64_C(1)
#define SOFT_TLB_GLOBAL UINT64_C(2)

enum soft_tlb_set {
    SOFT_TLB_KERNEL,
    SOFT_TLB_USER,
    SOFT_TLB_SLOW, /* never filled: every access takes the slow path (#AC, data breakpoints) */
    SOFT_TLB_SETS,
};

/* Where indirect jumps go: RIP to block, for the present address space, mode and privilege. */
struct soft_jump {
    uint64_t rip;
    struct soft_op *ops;
};

struct soft_segment {
    uint64_t base;
    uint32_t limit; /* in bytes, expanded */
    uint16_t selector;
    uint16_t attributes; /* descriptor bits 40 to 55: type, S, DPL, P, limit, AVL, L, D, G */
};

#define SEG_TYPE     0x000fu
#define SEG_ACCESSED 0x0001u
#define SEG_WRITABLE 0x0002u /* data; readable for code */
#define SEG_EXPAND   0x0004u /* expands down for data; conforming for code */
#define SEG_CODE     0x0008u
#define SEG_S        0x0010u
#define SEG_DPL(a)   (((a) >> 5) & 3u)
#define SEG_P        0x0080u
#define SEG_L        0x2000u
#define SEG_D        0x4000u
#define SEG_G        0x8000u
#define SEG_UNUSABLE 0u /* attributes of a null segment: not present */

/* One completed access of an instruction that left with an exit half-way and will run again. */
struct soft_replay {
    uint64_t address;
    uint64_t value;
    uint8_t size;
    bool is_write;
};

#define SOFT_REPLAY_MAX 128 /* XSAVE to MMIO is 106 */

enum soft_pending {
    SOFT_PENDING_NONE,
    SOFT_PENDING_EXCEPTION,
    SOFT_PENDING_EXIT, /* soft_cpu.exit is filled; the instruction runs again afterwards */
};

/* Bits of soft_cpu.requests. */
enum soft_request {
    SOFT_REQUEST_KICK = 1 << 0,
    SOFT_REQUEST_IRQ = 1 << 1,   /* look at the LAPIC, its timer and EXTINT */
    SOFT_REQUEST_CODE = 1 << 2,  /* pages in soft_cpu.code_requests */
    SOFT_REQUEST_FLUSH = 1 << 3, /* memslots changed: forget everything derived from them */
};

#define SOFT_CODE_REQUESTS_MAX 512

/* What another thread wants this vCPU to do about a page of code (block.c). */
struct soft_code_request {
    uint64_t gpa;
    bool is_changed; /* its bytes changed; if not, another vCPU has decoded it */
};

struct soft_cpu {
    /* The registers first: handlers address them from the struct's start. */
    uint64_t r[SOFT_REG_COUNT + 3];
    uint64_t rip;
    uint32_t flags;             /* packed arithmetic flags */
    _Atomic uint32_t poll;      /* any thread: not 0 stops the run at the next block */
    uint64_t rflags;            /* without the arithmetic flags and the fixed bit */
    struct soft_tlb_entry *tlb; /* the set in use */
    struct soft_jump *jumps;    /* likewise */

    uint8_t ymm[16][32] __attribute__((aligned(64))); /* the lower halves are XMM */
    /* The x87 part of FXSAVE's image; its MXCSR and XMM fields are not used. */
    uint8_t fx[512] __attribute__((aligned(64)));
    uint32_t mxcsr;
    bool x87_live; /* the x87 state is in the host's FPU (fpu.h) */

    uint8_t cpl;
    uint8_t mode;     /* enum soft_mode */
    uint64_t cs_base; /* 0 in 64-bit mode */
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    struct soft_segment seg[SOFT_SEG_COUNT]; /* FS and GS bases are in r[] */
    struct soft_segment ldt, tr;
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, misc_enable, mtrr_def_type, mcg_status;
    uint64_t mtrr_fixed[11], mtrr_variable[16];
    uint64_t kvm_clock, kvm_wall_clock;
    uint64_t tsc_offset, tsc_adjust;
    uint64_t dr[8];
    uint64_t pdpte[4]; /* PAE paging: loaded with CR3 */

    /* What stopped the instruction at hand. */
    enum soft_pending pending;
    uint8_t exception;
    bool has_error_code;
    uint32_t error_code;
    uint64_t non_canonical; /* the address, where that is what is wrong; else 0 */
    struct accel_exit exit;

    /* Exits in the middle of an instruction. */
    uint64_t exit_data; /* where exit.data points */
    struct soft_replay replay[SOFT_REPLAY_MAX];
    unsigned replay_count; /* completed accesses known */
    unsigned replay_next;  /* how many of them this run of the instruction has met */
    bool replay_open;      /* an exit waits for its answer */

    bool inhibit;     /* STI or MOV SS was the last instruction: no interrupt before the next */
    bool holds_traps; /* that was MOV SS or the like: no #DB trap before the end of the next either */
    bool irq_waiting; /* one is pending that IF or `inhibit` held back */
    bool nmi_blocked; /* until IRET */
    bool is_halted;
    bool wait_for_sipi;
    bool is_stepping;   /* instructions run one by one: TF, debugger, breakpoints, replay */
    bool is_delivering; /* an exception or interrupt is being delivered */
    bool no_trap;       /* INT cleared TF before the trap of its own step */
    bool db_pending;    /* a #DB trap waits for the end of the instruction */
    uint64_t db_bits;   /* and its DR6 bits */
    struct kvm_guest_debug debug; /* the GDB stub's wishes */

    /* Any thread. */
    _Atomic uint32_t requests;
    pthread_mutex_t mutex; /* sleeping */
    pthread_cond_t wake;
    pthread_mutex_t code_mutex; /* code_requests */
    struct soft_code_request code_requests[SOFT_CODE_REQUESTS_MAX];
    unsigned code_request_count; /* more than fit: drop all code */
    _Atomic bool is_idle;        /* sleeps: leave no requests about new code, only the next */
    _Atomic bool missed_code;    /* on waking up, let go of all pages for writing */

    struct soft_vm *vm;
    unsigned index;
    struct lapic lapic;
    struct soft_cache *cache; /* block.c's */
    struct accel_cpuid cpuid;
    /* Feature words of it that the decoders look at: leaf 1, 7, 0x80000001 and 0xD. */
    uint32_t cpuid_1_ecx, cpuid_7_ebx, cpuid_ext_ecx, cpuid_d1_eax;
    int extint_vector; /* injected by the machine, or -1 */
    int eoi_vector;    /* to be told with ACCEL_EXIT_IOAPIC_EOI, or -1 */

    uint8_t physical_bits; /* of a guest-physical address */
    bool has_1g_pages;
    /* INVLPG's filters: 2 MiB and 1 GiB regions in which a large page was met. */
    uint64_t large_seen[2][4];
    bool large_4m;
    /* And whether an entry of `jumps` may lie in a page, by the page's hash. */
    uint64_t jump_pages[64];
    /* What the entries of each jump set were made for. */
    uint64_t jump_base[2];
    uint8_t jump_mode[2];

    /* Which entries hold what a CR3 load must drop; more than fit: drop all. */
    unsigned tlb_dirty_count, jump_dirty_count;
    uint16_t tlb_dirty[512], jump_dirty[1024];
    struct soft_tlb_entry tlbs[SOFT_TLB_SETS][SOFT_TLB_SIZE];
    struct soft_jump jump_sets[2][SOFT_JUMPS_SIZE];
};

/*
 * Notes an exception for the instruction at hand; false, for `return soft_raise(...)`. The error
 * code is ignored for vectors that have none.
 */
bool soft_raise(struct soft_cpu *cpu, enum soft_vector vector, uint32_t error_code);
bool soft_raise_page_fault(struct soft_cpu *cpu, uint64_t address, uint32_t error_code);

uint64_t soft_get_rflags(const struct soft_cpu *cpu);
/* All of RFLAGS that exists; callers apply the mask of their instruction. */
void soft_set_rflags(struct soft_cpu *cpu, uint64_t value);

/* After CR0, CR4, EFER, CPL, RFLAGS.VM, AC or CS changed: mode, TLB set, jump set. */
void soft_update_mode(struct soft_cpu *cpu);

static inline bool soft_is_long_mode(const struct soft_cpu *cpu)
{
    return cpu->efer & EFER_LMA;
}

static inline bool soft_is_64bit(const struct soft_cpu *cpu)
{
    return (cpu->mode & SOFT_MODE_SIZE_MASK) == SOFT_MODE_64;
}

static inline bool soft_is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* Any thread: sets bits of `requests` and makes the vCPU look, running or halted. */
void soft_post(struct soft_cpu *cpu, uint32_t requests);

/* After any write to the LAPIC or CR8 by the vCPU itself: EOIs, timer and priorities follow. */
void soft_lapic_written(struct soft_cpu *cpu);

/* The guest's TSC now. */
uint64_t soft_tsc(const struct soft_cpu *cpu);

#endif
