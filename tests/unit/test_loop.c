/* SPDX-License-Identifier: MIT */
#include "base/loop.h"

#include <string.h>

#include "tests/unit/test.h"

static struct loop loop;
static char order[16];

static void note(char letter)
{
    order[strlen(order)] = letter;
}

static struct loop_task drain, submit;
static bool requeue;

static void on_drain(struct loop_task *task)
{
    note('d');
    loop_task_queue(&submit);
    if (requeue)
        loop_task_queue(task);
}

static void on_submit(struct loop_task *task)
{
    (void)task;
    note('s');
}

static int set_up(void **state)
{
    (void)state;
    memset(order, 0, sizeof(order));
    requeue = false;
    assert_int_equal(loop_init(&loop), 0);
    loop_task_init(&loop, &drain, LOOP_STAGE_DRAIN, on_drain);
    loop_task_init(&loop, &submit, LOOP_STAGE_SUBMIT, on_submit);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    loop_task_cancel(&drain);
    loop_task_cancel(&submit);
    loop_fini(&loop);
    return 0;
}

static void test_a_task_runs_once_a_turn_in_stage_order(void **state)
{
    (void)state;
    loop_task_queue(&submit);
    loop_task_queue(&drain);
    loop_task_queue(&drain);
    loop_run(&loop);
    assert_string_equal(order, "ds");
}

static void test_a_greedy_task_waits_for_the_next_turn(void **state)
{
    (void)state;
    requeue = true;
    loop_task_queue(&drain);
    loop_run_once(&loop, true);
    assert_string_equal(order, "ds");
    loop_run_once(&loop, true);
    assert_string_equal(order, "dsds");
}

static void on_expired(struct loop_timer *timer)
{
    note('t');
    loop_timer_close(timer, NULL);
}

static void test_timer(void **state)
{
    (void)state;
    static struct loop_timer timer;
    assert_int_equal(loop_timer_init(&loop, &timer, on_expired), 0);
    uint64_t start = loop_now_ns();
    loop_timer_arm(&timer, start + 3000000);
    loop_run(&loop);
    assert_string_equal(order, "t");
    assert_true(loop_now_ns() - start >= 3000000);
}

static void on_signal(struct loop_event *event)
{
    note('e');
    loop_event_close(event, NULL);
}

static void work(struct loop_job *job)
{
    (void)job;
    note('w');
}

static void on_done(struct loop_job *job)
{
    (void)job;
    note('j');
}

static void test_events_and_jobs(void **state)
{
    (void)state;
    static struct loop_event event;
    static struct loop_job job = {.work = work, .on_done = on_done};
    assert_int_equal(loop_event_init(&loop, &event, on_signal), 0);
    loop_event_signal(&event);
    loop_event_signal(&event);
    loop_run(&loop);
    assert_string_equal(order, "e");
    loop_job_submit(&loop, &job);
    loop_run(&loop);
    assert_string_equal(order, "ewj");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_task_runs_once_a_turn_in_stage_order, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_greedy_task_waits_for_the_next_turn, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_timer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_events_and_jobs, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
