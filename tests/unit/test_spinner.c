/* SPDX-License-Identifier: MIT */
/* spinner: it comes on with quick signals, goes off when it waits in vain, and then sleeps. */
#include "base/spinner.h"

#include "base/loop.h"
#include "tests/unit/test.h"

#define QUICK_NS 100000u /* as spinner.c has it */

struct source {
    struct spinner spinner;
    unsigned due; /* finds to come */
    unsigned polls, turned_on, turned_off;
    bool brings_late; /* something comes between the last look and turning off */
};

static struct loop loop;
static struct source source;

static bool poll_source(struct spinner *spinner)
{
    struct source *from = container_of(spinner, struct source, spinner);
    from->polls++;
    if (!from->due)
        return false;
    from->due--;
    return true;
}

static void on_turned(struct spinner *spinner, bool on)
{
    struct source *from = container_of(spinner, struct source, spinner);
    from->turned_on += on;
    from->turned_off += !on;
    if (!on && from->brings_late) {
        from->brings_late = false;
        from->due = 1;
    }
}

static int setup(void **state)
{
    (void)state;
    source = (struct source){0};
    assert_int_equal(loop_init(&loop), 0);
    loop.host_cpus = 2;
    spinner_init(&source.spinner, &loop, poll_source, on_turned);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    spinner_fini(&source.spinner);
    loop_fini(&loop);
    return 0;
}

/*
 * As if signals had come one right after the other, however slow this machine is: one that another
 * process has come before is no quick one, and is sent again.
 */
static void signal_quickly(unsigned count)
{
    for (unsigned i = 0; i < count;) {
        uint64_t before_ns = loop_now_ns();
        source.spinner.signalled_ns = before_ns;
        spinner_signalled(&source.spinner);
        i += source.spinner.signalled_ns - before_ns < QUICK_NS;
    }
}

static void test_slow_signals_leave_it_off(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        source.spinner.signalled_ns = loop_now_ns() - 1000000;
        spinner_signalled(&source.spinner);
    }
    assert_false(source.spinner.is_on);
    assert_false(spinner_run(&loop, false));
    assert_int_equal(source.polls, 0);
}

static void test_quick_signals_turn_it_on(void **state)
{
    (void)state;
    signal_quickly(1);
    assert_true(source.spinner.is_on);
    assert_int_equal(source.turned_on, 1);
    source.due = 3;
    for (unsigned i = 0; i < 3; i++)
        assert_true(spinner_run(&loop, false));
    assert_true(source.spinner.is_on);
    assert_int_equal(source.polls, 3);
}

static void test_a_wait_in_vain_turns_it_off(void **state)
{
    (void)state;
    signal_quickly(1);
    assert_false(spinner_run(&loop, false));
    assert_false(source.spinner.is_on);
    unsigned polls = source.polls;
    for (unsigned i = 0; i < 100; i++)
        assert_false(spinner_run(&loop, false));
    assert_int_equal(source.polls, polls); /* an idle loop does not look */
}

static void test_what_comes_late_is_not_lost(void **state)
{
    (void)state;
    signal_quickly(1);
    source.brings_late = true;
    assert_true(spinner_run(&loop, false));
    assert_false(source.spinner.is_on);
    assert_int_equal(source.due, 0);
}

static void test_each_failure_makes_it_rarer(void **state)
{
    (void)state;
    for (unsigned failures = 0; failures < 12; failures++) {
        unsigned needed = 1u << MIN(failures, 10u);
        signal_quickly(needed - 1);
        assert_false(source.spinner.is_on);
        signal_quickly(1);
        assert_true(source.spinner.is_on);
        assert_false(spinner_run(&loop, false));
    }
    signal_quickly(1 << 10);
    source.due = 1;
    assert_true(spinner_run(&loop, false));
    assert_false(spinner_run(&loop, false));
    signal_quickly(1);
    assert_true(source.spinner.is_on); /* a find forgives */
}

static void test_no_spinning_without_a_spare_cpu(void **state)
{
    (void)state;
    spinner_set_companions(&loop, 2);
    signal_quickly(10);
    assert_false(source.spinner.is_on);
    spinner_set_companions(&loop, 1);
    signal_quickly(1);
    assert_true(source.spinner.is_on);
}

static void test_a_busy_loop_looks_without_waiting(void **state)
{
    (void)state;
    signal_quickly(1);
    for (unsigned i = 0; i < 10; i++)
        assert_false(spinner_run(&loop, true));
    assert_int_equal(source.polls, 10);
    assert_true(source.spinner.is_on);
}

static void test_taking_one_away_from_inside(void **state)
{
    struct source other = {.due = 1};
    (void)state;
    spinner_init(&other.spinner, &loop, poll_source, NULL);
    signal_quickly(1);
    other.spinner.signalled_ns = loop_now_ns();
    spinner_signalled(&other.spinner);
    spinner_fini(&source.spinner);
    assert_true(spinner_run(&loop, false));
    assert_int_equal(source.polls, 0);
    spinner_fini(&other.spinner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_slow_signals_leave_it_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quick_signals_turn_it_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_wait_in_vain_turns_it_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_comes_late_is_not_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_failure_makes_it_rarer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_spinning_without_a_spare_cpu, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_busy_loop_looks_without_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_taking_one_away_from_inside, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
