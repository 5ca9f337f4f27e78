/* SPDX-License-Identifier: MIT */
/* kvmclock: host TSC frequency and KVM's paravirtual clock pages. */
#include "vmm/soft/kvmclock.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "vmm/soft/block.h"
#include "vmm/soft/physmem.h"
#include "vmm/soft/vm.h"

#define NS_PER_SECOND   UINT64_C(1000000000)
#define CALIBRATION_NS  UINT64_C(10000000)
#define FLAG_TSC_STABLE 1

/* KVM's ABI. */
struct pvclock_vcpu_time_info {
    uint32_t version;
    uint32_t pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad[2];
} __attribute__((packed));

struct pvclock_wall_clock {
    uint32_t version;
    uint32_t sec;
    uint32_t nsec;
} __attribute__((packed));

static pthread_once_t started = PTHREAD_ONCE_INIT, measured = PTHREAD_ONCE_INIT;
static uint64_t start_ns, start_tsc;
static uint32_t host_tsc_khz;
static uint32_t multiplier; /* ns = (ticks << shift or >> -shift) * multiplier >> 32 */
static int8_t shift;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* Scales so that the multiplier uses all of its 32 bits. */
static void set_scale(uint64_t hz)
{
    uint64_t scaled = hz;

    shift = 0;
    while (scaled > 2 * NS_PER_SECOND) {
        scaled >>= 1;
        shift--;
    }
    while (scaled <= NS_PER_SECOND) {
        scaled <<= 1;
        shift++;
    }
    multiplier = (uint32_t)((NS_PER_SECOND << 32) / scaled);
}

static void take_start(void)
{
    start_ns = clock_ns(CLOCK_MONOTONIC);
    start_tsc = kvmclock_host_tsc();
}

void kvmclock_start(void)
{
    pthread_once(&started, take_start);
}

/* Guests ask long after the start: then there is nothing left to wait for. */
static void measure(void)
{
    uint64_t now_ns;

    kvmclock_start();
    do {
        now_ns = clock_ns(CLOCK_MONOTONIC);
    } while (now_ns - start_ns < CALIBRATION_NS);
    uint64_t ticks = kvmclock_host_tsc() - start_tsc;
    uint64_t hz = (uint64_t)((unsigned __int128)ticks * NS_PER_SECOND / (now_ns - start_ns));

    host_tsc_khz = (uint32_t)(hz / 1000);
    set_scale((uint64_t)host_tsc_khz * 1000);
}

uint32_t kvmclock_tsc_khz(void)
{
    pthread_once(&measured, measure);
    return host_tsc_khz;
}

uint64_t kvmclock_ticks_to_ns(uint64_t ticks)
{
    kvmclock_tsc_khz();
    ticks = shift < 0 ? ticks >> -shift : ticks << shift;
    return (uint64_t)((unsigned __int128)ticks * multiplier >> 32);
}

/* Writes into guest RAM; an address outside it is the guest's mistake and does nothing. */
static void write_guest(struct soft_cpu *cpu, uint64_t gpa, const void *from, size_t length)
{
    const struct physmem_slot *slot = physmem_find(&cpu->vm->mem, gpa);

    if (!slot || slot->read_only || gpa + length - slot->gpa > slot->size)
        return;
    memcpy(physmem_host(slot, gpa), from, length);
    block_code_written(cpu->vm, cpu, slot, gpa, length);
}

void kvmclock_update(struct soft_cpu *cpu)
{
    struct pvclock_vcpu_time_info info = {
        .version = 2, .flags = FLAG_TSC_STABLE, .tsc_timestamp = soft_tsc(cpu)};

    if (!(cpu->kvm_clock & 1))
        return;
    kvmclock_tsc_khz();
    info.system_time = kvmclock_ticks_to_ns(kvmclock_host_tsc() - cpu->vm->tsc_base);
    info.tsc_to_system_mul = multiplier;
    info.tsc_shift = shift;
    write_guest(cpu, cpu->kvm_clock & ~UINT64_C(1), &info, sizeof(info));
}

void kvmclock_write_wall_clock(struct soft_cpu *cpu)
{
    if (!cpu->kvm_wall_clock)
        return;
    uint64_t up_ns = kvmclock_ticks_to_ns(kvmclock_host_tsc() - cpu->vm->tsc_base);
    uint64_t boot_ns = clock_ns(CLOCK_REALTIME) - up_ns;
    struct pvclock_wall_clock wall = {.version = 2,
                                      .sec = (uint32_t)(boot_ns / NS_PER_SECOND),
                                      .nsec = (uint32_t)(boot_ns % NS_PER_SECOND)};

    write_guest(cpu, cpu->kvm_wall_clock, &wall, sizeof(wall));
}
