/* SPDX-License-Identifier: MIT */
/* alloc_fault: see the header. The functions are called in place of those that they are named for.
 */
#include "tests/crash_sim/alloc_fault.h"

#include <errno.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/loop.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes);
void __wrap_loop_job_submit(struct loop *loop, struct loop_job *job);

static struct {
    bool is_armed, stays;
    unsigned paused;
    uint64_t after, count, failed;
} fault;

void alloc_fault_arm(uint64_t after, bool stays)
{
    fault.is_armed = true;
    fault.stays = stays;
    fault.after = after;
    fault.count = fault.failed = 0;
}

uint64_t alloc_fault_disarm(uint64_t *failed)
{
    fault.is_armed = false;
    *failed = fault.failed;
    return fault.count;
}

bool alloc_fault_has_struck(void)
{
    return fault.failed;
}

void alloc_fault_pause(void)
{
    fault.paused++;
}

void alloc_fault_resume(void)
{
    CHECK(fault.paused);
    fault.paused--;
}

static bool strikes(void)
{
    if (!fault.is_armed || fault.paused)
        return false;
    uint64_t number = fault.count++;
    if (number != fault.after && !(fault.stays && number > fault.after))
        return false;
    fault.failed++;
    return true;
}

void *__wrap_malloc(size_t bytes)
{
    return strikes() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return strikes() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    return strikes() ? NULL : __real_realloc(memory, bytes);
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    return strikes() ? ENOMEM : __real_posix_memalign(memory, alignment, bytes);
}

/* --- the pool --- */

#define JOBS_MAX 64u

static struct {
    struct loop_task task;
    struct loop_job *jobs[JOBS_MAX];
    unsigned count;
} pool;

static void on_run(struct loop_task *task)
{
    struct loop_job *jobs[JOBS_MAX];
    unsigned count = pool.count;
    (void)task;
    for (unsigned i = 0; i < count; i++)
        jobs[i] = pool.jobs[i];
    pool.count = 0;
    for (unsigned i = 0; i < count; i++) {
        jobs[i]->work(jobs[i]);
        jobs[i]->on_done(jobs[i]);
    }
}

void __wrap_loop_job_submit(struct loop *loop, struct loop_job *job)
{
    if (!pool.count)
        loop_task_init(loop, &pool.task, LOOP_STAGE_NOTIFY, on_run);
    CHECK(pool.count < JOBS_MAX);
    pool.jobs[pool.count++] = job;
    loop_task_queue(&pool.task);
}
