/* SPDX-License-Identifier: MIT */
/*
 * accel_table: small guest programs under one accelerator, and the state that each leaves behind.
 *
 *   accel_table --accel soft|kvm [--without-xsave] [NAME...]
 *   accel_table --list | --seeds FOLDER
 *
 * Prints the same text under both if they agree: `diff` shows where they do not. One machine runs
 * all programs, for making one costs KVM more than a program does: before each the memory is laid
 * out anew and the vCPU's state set, by way of its state at power-on.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/acceltable/machine_setup.h"
#include "vmm/soft/cpuid.h"

#define TIMEOUT_S   20
#define EXITS_MAX   16
#define FRAME_WORDS 10

/* The area of XSAVE, not compacted. */
#define XSAVE_BV_OFFSET  512
#define XSAVE_YMM_OFFSET 576
#define XSAVE_YMM        4u

/* MSRs whose values count. */
static const uint32_t msrs[] = {0xc0000080, 0xc0000081, 0xc0000082, 0xc0000084,
                                0xc0000100, 0xc0000101, 0xc0000102, 0x174,
                                0x175,      0x176,      0x277};

struct machine {
    const struct accel_ops *ops;
    struct accel_vm *vm; /* none before the first program, and after one that broke it */
    struct accel_vcpu *vcpu;
    uint8_t *ram;
    struct accel_cpuid cpuid;
    struct accel_vcpu_state at_power_on;
    uint64_t msrs_at_power_on[ARRAY_SIZE(msrs)];
};

struct run {
    struct machine *machine;
    const struct accel_ops *ops;
    struct accel_vcpu *vcpu;
    uint8_t *ram;
    pthread_t watchdog;
    pthread_mutex_t mutex;
    pthread_cond_t finished;
    bool is_finished;
    bool timed_out;
    bool is_gone;   /* shut down: its state means nothing */
    bool is_broken; /* the machine is not used again */
};

static bool without_xsave;

static void die(const char *what, const struct error *err)
{
    fprintf(stderr, "accel_table: %s: %s\n", what, err && err->text[0] ? err->text : "failed");
    exit(2);
}

static void *watch(void *opaque)
{
    struct run *run = opaque;
    struct timespec deadline;

    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += TIMEOUT_S;
    pthread_mutex_lock(&run->mutex);
    while (!run->is_finished &&
           pthread_cond_timedwait(&run->finished, &run->mutex, &deadline) != ETIMEDOUT)
        ;
    run->timed_out = !run->is_finished;
    pthread_mutex_unlock(&run->mutex);
    if (run->timed_out)
        run->ops->vcpu_kick(run->vcpu);
    return NULL;
}

static uint64_t get_msr(struct machine *machine, uint32_t index, bool *exists)
{
    struct accel_msrs one = {.header.nmsrs = 1, .entries[0].index = index};

    *exists = machine->ops->vcpu_get_msrs(machine->vcpu, &one) == 1;
    return one.entries[0].data;
}

static void set_msr(struct machine *machine, uint32_t index, uint64_t value)
{
    struct accel_msrs one = {.header.nmsrs = 1, .entries[0] = {.index = index, .data = value}};

    if (machine->ops->vcpu_set_msrs(machine->vcpu, &one) != 1)
        die("vcpu_set_msrs", NULL);
}

/* --- What a program left --- */

static void print_segment(const char *name, const struct kvm_segment *s)
{
    if (s->unusable || !s->present) {
        printf("  %s %04x unusable\n", name, s->selector);
        return;
    }
    printf("  %s %04x base %" PRIx64 " limit %x type %x s %u dpl %u db %u l %u\n", name,
           s->selector, (uint64_t)s->base, s->limit, s->type | 1, s->s, s->dpl, s->db, s->l);
}

static void print_registers(const struct accel_vcpu_state *state)
{
    const struct kvm_regs *r = &state->regs;
    const struct kvm_sregs *s = &state->sregs;

    printf("  rax %llx rbx %llx rcx %llx rdx %llx\n", r->rax, r->rbx, r->rcx, r->rdx);
    printf("  rsi %llx rdi %llx rsp %llx rbp %llx\n", r->rsi, r->rdi, r->rsp, r->rbp);
    printf("  r8 %llx r9 %llx r10 %llx r11 %llx\n", r->r8, r->r9, r->r10, r->r11);
    printf("  r12 %llx r13 %llx r14 %llx r15 %llx rflags %llx\n", r->r12, r->r13, r->r14, r->r15,
           r->rflags);
    printf("  cr0 %llx cr2 %llx cr3 %llx cr4 %llx cr8 %llx efer %llx\n", s->cr0, s->cr2, s->cr3,
           s->cr4, s->cr8, s->efer);
    print_segment("cs", &s->cs);
    print_segment("ss", &s->ss);
    print_segment("ds", &s->ds);
    print_segment("es", &s->es);
    print_segment("fs", &s->fs);
    print_segment("gs", &s->gs);
    print_segment("ldt", &s->ldt);
    print_segment("tr", &s->tr);
    printf("  gdt %llx %x idt %llx %x\n", s->gdt.base, s->gdt.limit, s->idt.base, s->idt.limit);
    printf("  dr0 %llx dr1 %llx dr2 %llx dr3 %llx dr6 %llx dr7 %llx\n", state->debugregs.db[0],
           state->debugregs.db[1], state->debugregs.db[2], state->debugregs.db[3],
           state->debugregs.dr6, state->debugregs.dr7);
}

static void print_fpu(const struct kvm_fpu *fpu)
{
    printf("  fcw %x fsw %x ftw %x mxcsr %x\n", fpu->fcw, fpu->fsw, fpu->ftwx, fpu->mxcsr);
    for (unsigned i = 0; i < 8; i++)
        printf("  st%u %04x:%016" PRIx64 "\n", i, load_le16(fpu->fpr[i] + 8),
               load_le64(fpu->fpr[i]));
    for (unsigned i = 0; i < 16; i++)
        printf("  xmm%u %016" PRIx64 "%016" PRIx64 "\n", i, load_le64(fpu->xmm[i] + 8),
               load_le64(fpu->xmm[i]));
}

/* XCR0 and what AVX adds, where the CPU has it. */
static void print_extended(const struct accel_vcpu_state *state)
{
    const uint8_t *area = (const uint8_t *)state->xsave.region;

    if (without_xsave || !state->xcrs.nr_xcrs)
        return;
    printf("  xcr0 %llx\n", state->xcrs.xcrs[0].value);
    for (unsigned i = 0; i < 16; i++)
        if (load_le64(area + XSAVE_BV_OFFSET) & XSAVE_YMM)
            printf("  ymm%u %016" PRIx64 "%016" PRIx64 "\n", i,
                   load_le64(area + XSAVE_YMM_OFFSET + 16 * i + 8),
                   load_le64(area + XSAVE_YMM_OFFSET + 16 * i));
}

static void print_msrs(struct machine *machine)
{
    printf("  msrs");
    for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++) {
        bool exists;
        uint64_t value = get_msr(machine, msrs[i], &exists);

        if (exists)
            printf(" %x=%" PRIx64, msrs[i], value);
    }
    printf("\n");
}

static uint32_t hash(const uint8_t *bytes, size_t length)
{
    uint32_t value = 2166136261u;

    for (size_t i = 0; i < length; i++)
        value = (value ^ bytes[i]) * 16777619u;
    return value;
}

/*
 * CPUs set RF in the flags that a fault pushes; some that translate do not. A frame is told by the
 * vector that the stub pushed on top of it.
 */
static void forget_resume_flag(uint8_t *frame, unsigned word)
{
    for (unsigned i = 3; i < 5; i++) {
        uint32_t cs = load_le32(frame + word * (i - 1)), flags = load_le32(frame + word * i);

        if (((cs && cs < SEL_END) || flags & RFLAGS_VM) && (flags & 0xff00802a) == 2)
            store_le32(frame + word * i, flags & ~0x10000u);
    }
}

/* PAE's page-directory pointers have no accessed bit; some that translate set one. */
static void forget_accessed_pointers(struct run *run, const struct accel_vcpu_state *state)
{
    if (state->sregs.cr3 != GUEST_PAE_POINTERS)
        return;
    for (unsigned i = 0; i < 4; i++)
        run->ram[GUEST_PAE_POINTERS + 8 * i] &= (uint8_t)~0x20u;
}

static void print_memory(struct run *run, const struct accel_vcpu_state *state)
{
    uint64_t top = state->sregs.ss.base + state->regs.rsp;

    if (state->sregs.cs.l)
        top = state->regs.rsp;
    if (range_fits(top, 64, GUEST_RAM_BYTES) && load_le32(run->ram + top) < 256)
        forget_resume_flag(run->ram + top, state->sregs.cs.l ? 8 : 4);
    forget_accessed_pointers(run, state);
    printf("  stack");
    for (unsigned i = 0; i < FRAME_WORDS && range_fits(top + 8 * i, 8, GUEST_RAM_BYTES); i++)
        printf(" %" PRIx64, load_le64(run->ram + top + 8 * i));
    printf("\n  data %08x code %08x gdt %08x tables %08x stacks %08x\n",
           hash(run->ram + GUEST_DATA, 0x2000), hash(run->ram + GUEST_CODE, 0x1000),
           hash(run->ram + GUEST_GDT, SEL_END), hash(run->ram + 0x1000, 0x6000),
           hash(run->ram + 0x32000, 0x1e000));
}

static void print_state(struct run *run)
{
    static struct accel_vcpu_state state;

    memset(&state, 0, sizeof(state));
    if (run->ops->vcpu_get_state(run->vcpu, ACCEL_STATE_ALL & ~ACCEL_STATE_LAPIC, &state))
        die("vcpu_get_state", NULL);
    print_registers(&state);
    print_fpu(&state.fpu);
    print_extended(&state);
    print_msrs(run->machine);
    print_memory(run, &state);
}

/* --- Running --- */

/* Returns true when the program is over. */
static bool on_exit_of(struct run *run, struct accel_exit *exit)
{
    uint64_t value = 0;

    switch (exit->reason) {
    case ACCEL_EXIT_PIO:
        if (exit->pio.port == GUEST_END_PORT && exit->pio.is_write)
            return true;
        printf("  %s port %x size %u\n", exit->pio.is_write ? "out" : "in", exit->pio.port,
               exit->pio.size);
        if (!exit->pio.is_write)
            memset(exit->pio.data, 0xa5, exit->pio.size);
        return false;
    case ACCEL_EXIT_MMIO:
        if (exit->mmio.is_write)
            memcpy(&value, exit->mmio.data, exit->mmio.size);
        else
            memset(exit->mmio.data, 0xa5, exit->mmio.size);
        printf("  mmio %s %" PRIx64 " size %u value %" PRIx64 "\n",
               exit->mmio.is_write ? "write" : "read", exit->mmio.gpa, exit->mmio.size, value);
        return false;
    case ACCEL_EXIT_SHUTDOWN:
        /* What is left is the accelerator's affair. */
        printf("  shutdown\n");
        run->is_gone = run->is_broken = true;
        return true;
    case ACCEL_EXIT_INTR:
        if (run->timed_out)
            printf("  timed out\n");
        run->is_broken = run->timed_out;
        return run->timed_out;
    case ACCEL_EXIT_ERROR:
        printf("  error\n");
        run->is_broken = true;
        fprintf(stderr, "accel_table: %s\n", exit->text);
        return true;
    default:
        printf("  exit %d\n", exit->reason);
        return true;
    }
}

static void run_to_end(struct run *run)
{
    struct accel_exit exit;

    for (unsigned i = 0; i < EXITS_MAX; i++) {
        run->ops->vcpu_run(run->vcpu, &exit);
        if (on_exit_of(run, &exit))
            return;
    }
    printf("  too many exits\n");
    run->is_broken = true;
}

/* --- The machine --- */

/* CPUs that differ in nothing else: for comparing with a KVM whose hardware lacks it. */
static void leave_xsave_out(struct accel_cpuid *cpuid)
{
    for (uint32_t i = 0; i < cpuid->header.nent; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

        if (entry->function == 1)
            entry->ecx &= ~(1u << 12 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 29);
        else if (entry->function == 7 && !entry->index)
            entry->ebx &= ~(1u << 5);
        else if (entry->function == 0xd)
            entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
    }
}

static void power_on(struct machine *machine)
{
    const struct accel_ops *ops = machine->ops;
    struct error err = {0};
    bool exists;

    if (ops->vm_create(1, &machine->vm, &err))
        die("vm_create", &err);
    if (ops->set_memslot(machine->vm, 0, 0, GUEST_RAM_BYTES, machine->ram, false))
        die("set_memslot", NULL);
    if (ops->vcpu_create(machine->vm, 0, &machine->vcpu, &err))
        die("vcpu_create", &err);
    if (ops->supported_cpuid(machine->vm, &machine->cpuid))
        die("supported_cpuid", NULL);
    if (without_xsave)
        leave_xsave_out(&machine->cpuid);
    if (ops->vcpu_set_cpuid(machine->vcpu, &machine->cpuid))
        die("vcpu_set_cpuid", NULL);
    memset(&machine->at_power_on, 0, sizeof(machine->at_power_on));
    if (ops->vcpu_get_state(machine->vcpu, ACCEL_STATE_ALL, &machine->at_power_on))
        die("vcpu_get_state", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
        machine->msrs_at_power_on[i] = get_msr(machine, msrs[i], &exists);
}

static void power_off(struct machine *machine)
{
    if (!machine->vm)
        return;
    machine->ops->vcpu_destroy(machine->vcpu);
    machine->ops->vm_destroy(machine->vm);
    machine->vm = NULL;
}

/* By way of paging switched off, so that no translation of the program before is left. */
static void start(struct machine *machine, const struct program *program)
{
    static struct accel_vcpu_state state;

    if (!machine->vm)
        power_on(machine);
    machine_setup_memory(machine->ram, program);
    machine->ops->ram_written(machine->vm, 0, GUEST_RAM_BYTES);
    state = machine->at_power_on;
    if (machine->ops->vcpu_set_state(machine->vcpu, ACCEL_STATE_ALL, &state))
        die("vcpu_set_state", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++)
        set_msr(machine, msrs[i], machine->msrs_at_power_on[i]);
    machine_setup_state(&state, (enum guest_mode)program->mode);
    machine_setup_prologue(&state, (enum guest_mode)program->mode);
    if (machine->ops->vcpu_set_state(
            machine->vcpu, ACCEL_STATE_REGS | ACCEL_STATE_SREGS | ACCEL_STATE_FPU, &state))
        die("vcpu_set_state", NULL);
    set_msr(machine, 0xc0000081, 0x0023000800000000);
    set_msr(machine, 0xc0000082, GUEST_STUBS + 0xc2 * 16);
    set_msr(machine, 0xc0000084, 0x700);
}

/*
 * Hardware that translates keeps a breakpoint until an instruction clears the DR7 that set it,
 * whatever its hypervisor says; the next program would meet it.
 */
static void disarm_breakpoints(struct machine *machine)
{
    static const uint8_t code[] = {0x0f, 0x23, 0xf8, 0xe6, GUEST_END_PORT};
    static struct accel_vcpu_state state;
    struct accel_exit exit;

    state = machine->at_power_on;
    machine_setup_state(&state, MODE_REAL);
    state.regs.rax = 0x400;
    memcpy(machine->ram + GUEST_CODE, code, sizeof(code));
    machine->ops->ram_written(machine->vm, GUEST_CODE, sizeof(code));
    if (machine->ops->vcpu_set_state(machine->vcpu, ACCEL_STATE_ALL & ~ACCEL_STATE_DEBUGREGS,
                                     &state))
        die("vcpu_set_state", NULL);
    machine->ops->vcpu_run(machine->vcpu, &exit);
}

static void run_program(struct machine *machine, const struct program *program)
{
    printf("%s\n", program->name);
    start(machine, program);

    struct run run = {
        .machine = machine, .ops = machine->ops, .vcpu = machine->vcpu, .ram = machine->ram};

    pthread_mutex_init(&run.mutex, NULL);
    pthread_cond_init(&run.finished, NULL);
    if (pthread_create(&run.watchdog, NULL, watch, &run))
        die("pthread_create", NULL);
    run_to_end(&run);
    pthread_mutex_lock(&run.mutex);
    run.is_finished = true;
    pthread_cond_signal(&run.finished);
    pthread_mutex_unlock(&run.mutex);
    pthread_join(run.watchdog, NULL);
    if (!run.is_gone)
        print_state(&run);
    if (run.is_broken)
        power_off(machine);
    else
        disarm_breakpoints(machine);
}

/* An input of fuzz_soft that runs the program: small registers, nothing else out of order. */
static void write_seed(const char *folder, const struct program *program)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", folder, program->name);
    FILE *file = fopen(path, "wb");

    if (!file)
        die(path, NULL);
    fputc((int)program->mode, file);
    for (int i = 0; i < 16; i++) { /* RSP stays */
        fputc(i == 6 ? 0 : 0x60, file);
        if (i != 6)
            fputc(i, file);
    }
    fwrite("\0\0\0\0\0\1\0", 1, 7, file); /* flags, CR4, CR0, XCR0, patches */
    fwrite(program->start, 1, (size_t)(program->end - program->start), file);
    fclose(file);
}

static bool is_wanted(const struct program *program, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++)
        if (!strcmp(*names, program->name))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"accel", required_argument, NULL, 'a'},
                                          {"list", no_argument, NULL, 'l'},
                                          {"seeds", required_argument, NULL, 's'},
                                          {"without-xsave", no_argument, NULL, 'x'},
                                          {NULL, 0, NULL, 0}};
    static struct machine machine;
    const struct accel_ops *ops = NULL;
    struct error err = {0};
    const char *seeds = NULL;
    bool only_list = false;
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (option == 'a')
            ops = !strcmp(optarg, "kvm") ? &kvm_accel_ops : &soft_accel_ops;
        else if (option == 'l')
            only_list = true;
        else if (option == 's')
            seeds = optarg;
        else if (option == 'x')
            without_xsave = true;
        else
            return 2;
    }
    if (!ops && !only_list && !seeds) {
        fprintf(stderr, "usage: accel_table --accel soft|kvm [--without-xsave] [NAME...]\n"
                        "       accel_table --list | --seeds FOLDER\n");
        return 2;
    }
    if (ops && ops->probe(&err))
        die("probe", &err);
    machine.ops = ops;
    machine.ram =
        mmap(NULL, GUEST_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (machine.ram == MAP_FAILED)
        die("mmap", NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (const struct program *p = __start_guest_programs; p < __stop_guest_programs; p++) {
        if (seeds)
            write_seed(seeds, p);
        else if (only_list)
            printf("%s\n", p->name);
        else if (is_wanted(p, argv + optind))
            run_program(&machine, p);
    }
    power_off(&machine);
    return 0;
}
