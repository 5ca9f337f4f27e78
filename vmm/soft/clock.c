/* SPDX-License-Identifier: MIT */
/* clock: a thread that sleeps until the earliest deadline of all vCPUs. */
#include "vmm/soft/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "vmm/soft/cpu.h"
#include "vmm/soft/vm.h"

#define NEVER UINT64_MAX

struct clock {
    struct soft_vm *vm;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    _Atomic uint64_t deadlines_ns[VCPU_MAX]; /* each written by its vCPU; taken by the thread */
    uint64_t wakes_at_ns;                    /* what the thread sleeps until */
    bool stops;
};

uint64_t clock_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Tells whoever is due; returns the earliest of the others. */
static uint64_t ring(struct clock *clock, uint64_t now_ns)
{
    uint64_t earliest_ns = NEVER;

    for (unsigned i = 0; i < VCPU_MAX; i++) {
        uint64_t deadline_ns = atomic_load(&clock->deadlines_ns[i]);

        if (deadline_ns <= now_ns) {
            atomic_store(&clock->deadlines_ns[i], NEVER);
            soft_post(clock->vm->cpus[i], SOFT_REQUEST_IRQ);
        } else {
            earliest_ns = MIN(earliest_ns, deadline_ns);
        }
    }
    return earliest_ns;
}

static void *clock_thread(void *argument)
{
    struct clock *clock = argument;

    pthread_mutex_lock(&clock->mutex);
    while (!clock->stops) {
        clock->wakes_at_ns = ring(clock, clock_now_ns());
        struct timespec until = {.tv_sec = (time_t)(clock->wakes_at_ns / 1000000000),
                                 .tv_nsec = (long)(clock->wakes_at_ns % 1000000000)};

        if (clock->wakes_at_ns == NEVER)
            pthread_cond_wait(&clock->changed, &clock->mutex);
        else
            pthread_cond_timedwait(&clock->changed, &clock->mutex, &until);
    }
    pthread_mutex_unlock(&clock->mutex);
    return NULL;
}

void clock_arm(struct clock *clock, unsigned index, uint64_t deadline_ns)
{
    if (atomic_load_explicit(&clock->deadlines_ns[index], memory_order_relaxed) == deadline_ns)
        return;
    pthread_mutex_lock(&clock->mutex);
    atomic_store(&clock->deadlines_ns[index], deadline_ns);
    if (deadline_ns < clock->wakes_at_ns)
        pthread_cond_signal(&clock->changed);
    pthread_mutex_unlock(&clock->mutex);
}

int clock_create(struct soft_vm *vm, struct clock **out)
{
    struct clock *clock = calloc(1, sizeof(*clock));
    pthread_condattr_t attributes;

    if (!clock)
        return -ENOMEM;
    clock->vm = vm;
    for (unsigned i = 0; i < VCPU_MAX; i++)
        atomic_init(&clock->deadlines_ns[i], NEVER);
    pthread_mutex_init(&clock->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&clock->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    int result = pthread_create(&clock->thread, NULL, clock_thread, clock);

    if (result) {
        free(clock);
        return -result;
    }
    *out = clock;
    return 0;
}

void clock_destroy(struct clock *clock)
{
    if (!clock)
        return;
    pthread_mutex_lock(&clock->mutex);
    clock->stops = true;
    pthread_cond_signal(&clock->changed);
    pthread_mutex_unlock(&clock->mutex);
    pthread_join(clock->thread, NULL);
    pthread_mutex_destroy(&clock->mutex);
    pthread_cond_destroy(&clock->changed);
    free(clock);
}
