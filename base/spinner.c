/* SPDX-License-Identifier: MIT */
/* spinner: turns waiting on where signals come quickly, and off when it was in vain. */
#include "base/spinner.h"

#include "base/loop.h"
#include "base/side_loop.h"

#define QUICK_NS    100000u /* signals that follow each other within this are quick */
#define WINDOW_NS   40000u  /* for which the loop waits before it sleeps */
#define BACKOFF_MAX 10u     /* waits in vain: 2^10 quick signals at most until the next */

void spinner_init(struct spinner *spinner, struct loop *loop, bool (*poll)(struct spinner *spinner),
                  void (*on_turned)(struct spinner *spinner, bool on))
{
    *spinner = (struct spinner){.poll = poll, .on_turned = on_turned, .loop = loop};
    list_init(&spinner->node);
}

void spinner_fini(struct spinner *spinner)
{
    atomic_store(&spinner->is_on, false);
    list_remove(&spinner->node);
}

static void turn(struct spinner *spinner, bool on)
{
    atomic_store(&spinner->is_on, on);
    if (spinner->on_turned)
        spinner->on_turned(spinner, on);
}

void spinner_signalled(struct spinner *spinner)
{
    struct loop *loop = spinner->loop;
    loop_check_thread(loop);
    uint64_t now_ns = loop_now_ns();
    bool is_quick = now_ns - spinner->signalled_ns < QUICK_NS;
    spinner->signalled_ns = now_ns;
    if (!is_quick || spinner->is_on || loop->companions >= loop->host_cpus)
        return;
    if (++spinner->quick < 1u << spinner->backoff)
        return;
    spinner->quick = 0;
    spinner->has_found = false;
    list_push_back(&loop->spinners, &spinner->node);
    turn(spinner, true);
}

void spinner_set_companions(struct loop *loop, unsigned count)
{
    loop->companions = count;
}

static bool poll_all(struct loop *loop)
{
    bool found = false;
    struct list batch; /* what poll does may take any spinner away */
    list_init(&batch);
    list_splice_back(&batch, &loop->spinners);
    for (struct list *node; (node = list_pop_front(&batch));) {
        struct spinner *spinner = list_entry(node, struct spinner, node);
        list_push_back(&loop->spinners, node);
        if (!spinner->poll(spinner))
            continue;
        spinner->has_found = found = true;
        spinner->backoff = 0;
    }
    return found;
}

/* What came between the last look and turning off was not signalled: so poll looks once more. */
static bool turn_all_off(struct loop *loop)
{
    bool found = false;
    for (struct list *node; (node = list_pop_front(&loop->spinners));) {
        struct spinner *spinner = list_entry(node, struct spinner, node);
        if (!spinner->has_found)
            spinner->backoff = MIN(spinner->backoff + 1, BACKOFF_MAX);
        turn(spinner, false);
        found |= spinner->poll(spinner);
    }
    return found;
}

/* A side loop that its home turns would keep all of the home waiting. */
static uint64_t window_ns(const struct loop *loop)
{
    return loop->side && side_loop_is_taken(loop->side) ? 0 : WINDOW_NS;
}

bool spinner_run(struct loop *loop, bool is_busy)
{
    if (list_is_empty(&loop->spinners))
        return false;
    if (is_busy)
        return poll_all(loop);
    uint64_t deadline_ns = loop_now_ns() + window_ns(loop);
    do {
        if (poll_all(loop))
            return true;
        if (atomic_load_explicit(&loop->is_wanted, memory_order_relaxed))
            return true;
        __builtin_ia32_pause();
    } while (loop_now_ns() < deadline_ns);
    return turn_all_off(loop);
}
