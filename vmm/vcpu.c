/* SPDX-License-Identifier: MIT */
/*
 * vcpu: the vCPU thread and the mailbox between it and the loop.
 *
 * Theory of operation. `owner` says whose turn the mailbox is. The thread fills `exit`, passes
 * ownership to the loop, signals the exit event and waits; the loop handles the exit and passes
 * ownership back. While the loop owns the mailbox the thread is certain to touch nothing, which is
 * what "parked" means: the loop simply keeps the mailbox. Nobody holds a lock.
 *
 * The thread spins a bounded while before it sleeps in the futex: an answer usually takes less time
 * than going to sleep and waking up. The loop does the same before its poll while exits come thick
 * and fast (struct vcpu_group), and then the thread saves the signal. Both give way where they find
 * that they wait in vain: on a busy host they would keep each other from the CPU.
 */
#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"

enum vcpu_owner { OWNER_VCPU, OWNER_LOOP, OWNER_LOOP_VCPU_ASLEEP };

#define ANSWER_SPINS_MAX 2000u
#define ANSWER_SPINS_MIN 16u

static long futex(atomic_int *word, int operation, int value)
{
    return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Thread: until the loop gives the mailbox back. */
static void wait_for_answer(struct vcpu *vcpu)
{
    for (unsigned i = 0; i < vcpu->answer_spins; i++) {
        if (atomic_load_explicit(&vcpu->owner, memory_order_acquire) == OWNER_VCPU) {
            vcpu->answer_spins = MIN(2 * vcpu->answer_spins, ANSWER_SPINS_MAX);
            return;
        }
        __builtin_ia32_pause();
    }
    /* Perhaps the loop waits for the very CPU on which this spins. */
    vcpu->answer_spins = MAX(vcpu->answer_spins / 4, ANSWER_SPINS_MIN);
    int expected = OWNER_LOOP;
    if (!atomic_compare_exchange_strong(&vcpu->owner, &expected, OWNER_LOOP_VCPU_ASLEEP))
        return;
    while (atomic_load_explicit(&vcpu->owner, memory_order_acquire) != OWNER_VCPU)
        futex(&vcpu->owner, FUTEX_WAIT, OWNER_LOOP_VCPU_ASLEEP);
}

/* Thread: hands the exit over and waits for its answer. */
static void hand_over(struct vcpu *vcpu)
{
    uint64_t start_ns = loop_now_ns();
    struct vcpu_exit_stats *stats = &vcpu->stats[vcpu->exit.reason];
    atomic_store(&vcpu->owner, OWNER_LOOP);
    if (!atomic_load(&vcpu->group->spinner.is_on))
        loop_event_signal(&vcpu->exit_event);
    wait_for_answer(vcpu);
    atomic_fetch_add_explicit(&stats->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&stats->total_ns, loop_now_ns() - start_ns, memory_order_relaxed);
}

/* Loop: gives the mailbox back to the thread. */
static void answer(struct vcpu *vcpu)
{
    if (atomic_exchange(&vcpu->owner, OWNER_VCPU) == OWNER_LOOP_VCPU_ASLEEP)
        futex(&vcpu->owner, FUTEX_WAKE, 1);
}

static void park(struct vcpu *vcpu)
{
    atomic_store(&vcpu->park_wanted, false);
    hand_over(vcpu);
}

static void run_once(struct vcpu *vcpu)
{
    const struct accel_ops *ops = vcpu->accel->vm->ops;
    ops->vcpu_run(vcpu->accel, &vcpu->exit);
    if (vcpu->exit.reason == ACCEL_EXIT_INTR) {
        if (atomic_load(&vcpu->park_wanted))
            park(vcpu);
        return;
    }
    if (posted_put(&vcpu->group->posted, &vcpu->exit)) {
        atomic_fetch_add_explicit(&vcpu->stats[vcpu->exit.reason].count, 1, memory_order_relaxed);
        return;
    }
    hand_over(vcpu);
    if (vcpu->exit.reason == ACCEL_EXIT_EXTINT)
        unused_result(ops->vcpu_inject_extint(vcpu->accel, vcpu->extint_vector));
}

static void *vcpu_main(void *opaque)
{
    struct vcpu *vcpu = opaque;
    char name[16];
    snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
    pthread_setname_np(pthread_self(), name);
    atomic_store(&vcpu->thread_id, (int)syscall(SYS_gettid));
    vcpu->exit.reason = ACCEL_EXIT_INTR;
    park(vcpu);
    while (!vcpu->end_wanted)
        run_once(vcpu);
    return NULL;
}

static bool parks(enum accel_exit_reason reason)
{
    return reason == ACCEL_EXIT_INTR || reason == ACCEL_EXIT_SHUTDOWN ||
           reason == ACCEL_EXIT_DEBUG || reason == ACCEL_EXIT_ERROR;
}

/* Loop: the write that nobody waits for, which came before all exits that are seen now. */
static void make_up_posted(struct vcpu *vcpu)
{
    struct accel_exit exit;
    uint32_t data;
    if (posted_take(&vcpu->group->posted, &exit, &data))
        vcpu->handler->on_exit(vcpu->opaque, vcpu, &exit);
}

/* Loop: handles the exit in the mailbox, if there is one. */
static bool take_exit(struct vcpu *vcpu)
{
    if (vcpu->is_parked || atomic_load(&vcpu->owner) < OWNER_LOOP)
        return false;
    make_up_posted(vcpu);
    if (parks(vcpu->exit.reason)) {
        vcpu->is_parked = true;
        vcpu->handler->on_parked(vcpu->opaque, vcpu, &vcpu->exit);
        return true;
    }
    if (vcpu->exit.reason == ACCEL_EXIT_EXTINT)
        vcpu->extint_vector = vcpu->handler->on_extint(vcpu->opaque, vcpu);
    else
        vcpu->handler->on_exit(vcpu->opaque, vcpu, &vcpu->exit);
    answer(vcpu);
    return true;
}

static void on_exit_event(struct loop_event *event)
{
    struct vcpu *vcpu = container_of(event, struct vcpu, exit_event);
    struct vcpu_group *group = vcpu->group;
    if (take_exit(vcpu))
        spinner_signalled(&group->spinner);
}

static bool take_exits(struct spinner *spinner)
{
    struct vcpu_group *group = container_of(spinner, struct vcpu_group, spinner);
    bool found = false;
    list_for_each(node, &group->vcpus)
    {
        found |= take_exit(list_entry(node, struct vcpu, node));
    }
    return found;
}

void vcpu_group_init(struct vcpu_group *group, struct loop *loop)
{
    *group = (struct vcpu_group){.loop = loop};
    list_init(&group->vcpus);
    spinner_init(&group->spinner, loop, take_exits, NULL);
}

void vcpu_group_fini(struct vcpu_group *group)
{
    spinner_fini(&group->spinner);
}

int vcpu_init(struct vcpu *vcpu, struct vcpu_group *group, struct accel_vm *vm, unsigned index,
              const struct vcpu_handler *handler, void *opaque, struct error *err)
{
    *vcpu = (struct vcpu){.group = group, .index = index, .handler = handler, .opaque = opaque};
    vcpu->answer_spins = ANSWER_SPINS_MAX;
    int result = vm->ops->vcpu_create(vm, index, &vcpu->accel, err);
    if (result)
        return result;
    result = loop_event_init(group->loop, &vcpu->exit_event, on_exit_event);
    if (result) {
        vm->ops->vcpu_destroy(vcpu->accel);
        return error_set_errno(err, -result, "cannot make the exit event of CPU %u", index);
    }
    list_push_back(&group->vcpus, &vcpu->node);
    spinner_set_companions(group->loop, ++group->count);
    return 0;
}

int vcpu_start(struct vcpu *vcpu, struct error *err)
{
    int result = thread_start(&vcpu->thread, vcpu_main, vcpu);
    if (result)
        return error_set_errno(err, -result, "cannot start the thread of CPU %u", vcpu->index);
    vcpu->has_thread = true;
    return 0;
}

void vcpu_close(struct vcpu *vcpu, void (*on_closed)(struct loop_event *exit_event))
{
    list_remove(&vcpu->node);
    if (vcpu->has_thread) {
        CHECK(vcpu->is_parked);
        vcpu->end_wanted = true;
        answer(vcpu);
        pthread_join(vcpu->thread, NULL);
        vcpu->has_thread = false;
    }
    loop_event_close(&vcpu->exit_event, on_closed);
}

void vcpu_fini(struct vcpu *vcpu)
{
    vcpu->accel->vm->ops->vcpu_destroy(vcpu->accel);
}

void vcpu_park(struct vcpu *vcpu)
{
    if (vcpu->is_parked)
        return;
    atomic_store(&vcpu->park_wanted, true);
    vcpu->accel->vm->ops->vcpu_kick(vcpu->accel);
}

void vcpu_resume(struct vcpu *vcpu)
{
    CHECK(vcpu->is_parked);
    vcpu->is_parked = false;
    /* It may have parked for another reason than the wish to park it, which is then fulfilled. */
    atomic_store(&vcpu->park_wanted, false);
    answer(vcpu);
}

bool vcpu_is_parked(const struct vcpu *vcpu)
{
    return vcpu->is_parked;
}

const char *vcpu_exit_name(enum accel_exit_reason reason)
{
    static const char *const names[ACCEL_EXIT_REASON_COUNT] = {
        [ACCEL_EXIT_INTR] = "park",     [ACCEL_EXIT_PIO] = "pio",
        [ACCEL_EXIT_MMIO] = "mmio",     [ACCEL_EXIT_IOAPIC_EOI] = "ioapic-eoi",
        [ACCEL_EXIT_EXTINT] = "extint", [ACCEL_EXIT_SHUTDOWN] = "shutdown",
        [ACCEL_EXIT_DEBUG] = "debug",   [ACCEL_EXIT_ERROR] = "error",
    };
    return names[reason];
}
