/* SPDX-License-Identifier: MIT */
/* accel_select: times a small guest loop, remembers the answer, picks an accelerator. */
#include "vmm/accel_select.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/loop.h"

#define PROBE_ITERATIONS   400000u /* of two instructions each */
#define PROBE_TIMEOUT_MS   40
#define NATIVE_MIN_PER_SEC 30e6 /* emulated: about 2e6; native or under a translator: over 1e8 */
#define PROBE_RAM          (64 * KIB)
#define PROBE_CODE_GPA     0x8000

/* mov ecx, PROBE_ITERATIONS; 1: dec ecx; jnz 1b; out 0xf4, al; jmp . */
static const uint8_t probe_code[] = {0xb9,
                                     PROBE_ITERATIONS & 0xff,
                                     PROBE_ITERATIONS >> 8 & 0xff,
                                     PROBE_ITERATIONS >> 16 & 0xff,
                                     PROBE_ITERATIONS >> 24,
                                     0xff,
                                     0xc9,
                                     0x75,
                                     0xfc,
                                     0xe6,
                                     0xf4,
                                     0xeb,
                                     0xfe};

struct deadline {
    struct accel_vcpu *vcpu;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done;
};

/* Takes the vCPU out of a run that lasts too long. */
static void *watch_deadline(void *opaque)
{
    struct deadline *deadline = opaque;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PROBE_TIMEOUT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&deadline->lock);
    int result = 0;
    while (!deadline->is_done && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&deadline->done, &deadline->lock, &until);
    if (!deadline->is_done)
        deadline->vcpu->vm->ops->vcpu_kick(deadline->vcpu);
    pthread_mutex_unlock(&deadline->lock);
    return NULL;
}

static void finish_deadline(struct deadline *deadline, pthread_t thread)
{
    pthread_mutex_lock(&deadline->lock);
    deadline->is_done = true;
    pthread_cond_signal(&deadline->done);
    pthread_mutex_unlock(&deadline->lock);
    pthread_join(thread, NULL);
}

/* Flat 64-bit mode over three pages of tables: the mode in which a kernel lives. */
static int set_up_probe(struct accel_vcpu *vcpu, uint8_t *ram)
{
    const struct accel_ops *ops = vcpu->vm->ops;
    struct accel_vcpu_state state;
    int result = ops->vcpu_get_state(vcpu, ACCEL_STATE_SREGS, &state);
    if (result)
        return result;
    store_le64(ram + 0x1000, 0x2003);
    store_le64(ram + 0x2000, 0x3003);
    store_le64(ram + 0x3000, 0x83);
    memcpy(ram + PROBE_CODE_GPA, probe_code, sizeof(probe_code));
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 0x18, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    struct kvm_segment code = data;
    code.selector = 0x10;
    code.type = 0xb;
    code.db = 0;
    code.l = 1;
    state.sregs.cs = code;
    state.sregs.ds = state.sregs.es = state.sregs.fs = state.sregs.gs = state.sregs.ss = data;
    state.sregs.cr3 = 0x1000;
    state.sregs.cr4 = 0x20;
    state.sregs.cr0 = 0x80000011;
    state.sregs.efer = 0x500;
    state.regs = (struct kvm_regs){.rip = PROBE_CODE_GPA, .rflags = 2, .rsp = PROBE_CODE_GPA};
    return ops->vcpu_set_state(vcpu, ACCEL_STATE_SREGS | ACCEL_STATE_REGS, &state);
}

static double time_probe(struct accel_vcpu *vcpu)
{
    struct deadline deadline = {
        .vcpu = vcpu, .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};
    struct accel_exit exit;
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch_deadline, &deadline))
        return 0;
    uint64_t start_ns = loop_now_ns();
    vcpu->vm->ops->vcpu_run(vcpu, &exit);
    uint64_t elapsed_ns = loop_now_ns() - start_ns;
    finish_deadline(&deadline, thread);
    if (exit.reason == ACCEL_EXIT_INTR)
        return 1;
    if (exit.reason != ACCEL_EXIT_PIO)
        return 0;
    return 2.0 * PROBE_ITERATIONS * 1e9 / (double)MAX(elapsed_ns, 1);
}

static double measure_in(struct accel_vm *vm, uint8_t *ram)
{
    const struct accel_ops *ops = vm->ops;
    struct accel_cpuid *cpuid = calloc(1, sizeof(*cpuid));
    struct accel_vcpu *vcpu = NULL;
    double rate = 0;
    CHECK(cpuid);
    if (!ops->set_memslot(vm, 0, 0, PROBE_RAM, ram, false) && !ops->supported_cpuid(vm, cpuid) &&
        !ops->vcpu_create(vm, 0, &vcpu, NULL) && !ops->vcpu_set_cpuid(vcpu, cpuid) &&
        !set_up_probe(vcpu, ram))
        rate = time_probe(vcpu);
    ops->vcpu_destroy(vcpu);
    free(cpuid);
    return rate;
}

double accel_measure(const struct accel_ops *ops)
{
    struct accel_vm *vm;
    if (ops->vm_create(1, &vm, NULL))
        return 0;
    void *ram = mmap(NULL, PROBE_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double rate = ram == MAP_FAILED ? 0 : measure_in(vm, ram);
    ops->vm_destroy(vm);
    if (ram != MAP_FAILED)
        munmap(ram, PROBE_RAM);
    return rate;
}

/* The file that remembers, opened in `mode`; NULL where there is no home to keep it in. */
static FILE *open_memory(const char *mode)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[512], path[600];
    if (base && *base == '/')
        snprintf(folder, sizeof(folder), "%s/evisor", base);
    else if (home && *home == '/')
        snprintf(folder, sizeof(folder), "%s/.cache/evisor", home);
    else
        return NULL;
    if (*mode == 'w') {
        char *slash = strrchr(folder, '/');
        *slash = '\0';
        mkdir(folder, 0700);
        *slash = '/';
        mkdir(folder, 0700);
    }
    snprintf(path, sizeof(path), "%s/kvm-speed", folder);
    return fopen(path, mode);
}

static bool read_boot_id(char id[40])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    bool ok = file && fgets(id, 40, file);
    if (file)
        fclose(file);
    return ok;
}

static bool recall(double *rate)
{
    char now[40], then[40];
    FILE *file = open_memory("re");
    bool ok = file && read_boot_id(now) && fgets(then, sizeof(then), file) && !strcmp(now, then) &&
              fscanf(file, "%lf", rate) == 1;
    if (file)
        fclose(file);
    return ok;
}

static void remember(double rate)
{
    char now[40];
    FILE *file = read_boot_id(now) ? open_memory("we") : NULL;
    if (!file)
        return;
    fprintf(file, "%s%.0f\n", now, rate);
    fclose(file);
}

bool accel_kvm_is_native(char *why, size_t size)
{
    struct error err = {0};
    double rate;
    *why = '\0';
    if (kvm_accel_ops.probe(&err)) {
        snprintf(why, size, "%s", err.text);
        return false;
    }
    if (!recall(&rate)) {
        rate = accel_measure(&kvm_accel_ops);
        remember(rate);
    }
    if (rate >= NATIVE_MIN_PER_SEC)
        return true;
    snprintf(why, size, "/dev/kvm on this host only emulates (a small guest loop took over %d ms)",
             PROBE_TIMEOUT_MS);
    return false;
}

static const struct accel_ops *find(const char *name, size_t length)
{
    static const struct accel_ops *const known[] = {&kvm_accel_ops, &soft_accel_ops};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (strlen(known[i]->name) == length && !strncmp(known[i]->name, name, length))
            return known[i];
    return NULL;
}

int accel_select(const char *wanted, const struct accel_ops **out, char *why, size_t size,
                 struct error *err)
{
    bool is_list = strchr(wanted, ':') != NULL;
    *why = '\0';
    for (const char *at = wanted; *at;) {
        size_t length = strcspn(at, ":");
        const struct accel_ops *ops = find(at, length);
        if (!ops)
            return error_set(err, EINVAL, "unknown accelerator '%.*s': use kvm, soft or kvm:soft",
                             (int)length, at);
        bool is_last = !at[length];
        if (ops == &kvm_accel_ops && is_list && !is_last ? accel_kvm_is_native(why, size)
                                                         : !ops->probe(err)) {
            *out = ops;
            return 0;
        }
        at += length + !is_last;
    }
    return err && err->code ? -err->code
                            : error_set(err, ENODEV, "no accelerator of '%s' can be used", wanted);
}
