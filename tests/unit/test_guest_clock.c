/* SPDX-License-Identifier: MIT */
#include "devices/guest_clock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/test.h"

static struct loop loop;
static struct guest_clock clock_;
static char order[64];

struct letter_timer {
    struct guest_timer timer;
    char letter;
    struct letter_timer *disarms; /* or NULL */
    uint64_t again_ns;
};

static struct letter_timer a = {.letter = 'a'}, b = {.letter = 'b'}, c = {.letter = 'c'};

static void on_expired(struct guest_timer *timer)
{
    struct letter_timer *letter = container_of(timer, struct letter_timer, timer);
    if (strlen(order) < sizeof(order) - 1)
        order[strlen(order)] = letter->letter;
    if (letter->disarms)
        guest_timer_disarm(&letter->disarms->timer);
    if (letter->again_ns)
        guest_timer_arm(timer, letter->again_ns);
}

static int set_up(void **state)
{
    (void)state;
    struct letter_timer *all[] = {&a, &b, &c};
    memset(order, 0, sizeof(order));
    assert_int_equal(loop_init(&loop), 0);
    assert_int_equal(guest_clock_init(&clock_, &loop), 0);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        all[i]->disarms = NULL;
        all[i]->again_ns = 0;
        guest_timer_init(&clock_, &all[i]->timer, on_expired);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    guest_timer_disarm(&a.timer);
    guest_timer_disarm(&b.timer);
    guest_timer_disarm(&c.timer);
    guest_clock_close(&clock_, NULL, NULL);
    loop_fini(&loop);
    return 0;
}

static void test_order_of_deadlines(void **state)
{
    (void)state;
    guest_timer_arm(&b.timer, 20);
    guest_timer_arm(&c.timer, 30);
    guest_timer_arm(&a.timer, 10);
    guest_clock_advance(&clock_, 9);
    assert_string_equal(order, "");
    guest_clock_advance(&clock_, 1);
    assert_string_equal(order, "a");
    assert_false(guest_timer_is_armed(&a.timer));
    guest_timer_arm(&b.timer, 40);
    guest_clock_advance(&clock_, 100);
    assert_string_equal(order, "acb");
}

static void test_a_timer_may_disarm_one_that_is_due_too(void **state)
{
    (void)state;
    a.disarms = &b;
    guest_timer_arm(&a.timer, 10);
    guest_timer_arm(&b.timer, 10);
    guest_clock_advance(&clock_, 20);
    assert_string_equal(order, "a");
}

static void test_rearming_in_the_past_does_not_spin(void **state)
{
    (void)state;
    a.again_ns = 1;
    guest_timer_arm(&a.timer, 1);
    guest_clock_advance(&clock_, 10);
    assert_string_equal(order, "a");
    guest_clock_advance(&clock_, 10);
    assert_string_equal(order, "aa");
}

/* Whatever is due by then has run, however busy the host is. */
static void run_for_ms(unsigned ms)
{
    uint64_t end_ns = loop_now_ns() + ms * UINT64_C(1000000);
    do {
        loop_run_once(&loop, false);
        usleep(500);
    } while (loop_now_ns() < end_ns);
    loop_run_once(&loop, false);
}

static void test_runs_and_stands_still(void **state)
{
    (void)state;
    guest_timer_arm(&a.timer, 5000000);
    run_for_ms(10);
    assert_string_equal(order, "");
    assert_int_equal(guest_clock_now_ns(&clock_), 0);
    guest_clock_start(&clock_);
    guest_clock_start(&clock_);
    run_for_ms(10);
    assert_string_equal(order, "a");
    guest_clock_stop(&clock_);
    guest_clock_stop(&clock_);
    uint64_t stopped_ns = guest_clock_now_ns(&clock_);
    assert_true(stopped_ns >= 5000000);
    guest_timer_arm(&b.timer, stopped_ns + 3000000);
    run_for_ms(20);
    assert_int_equal(guest_clock_now_ns(&clock_), stopped_ns);
    assert_string_equal(order, "a");
    guest_clock_start(&clock_);
    run_for_ms(10);
    assert_string_equal(order, "ab");
    guest_timer_arm(&c.timer, UINT64_MAX);
    run_for_ms(2);
    assert_string_equal(order, "ab");
}

static void test_many_timers_in_random_order(void **state)
{
    (void)state;
    static struct letter_timer many[200];
    uint64_t last_ns = 0;
    srandom(3);
    for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
        guest_timer_init(&clock_, &many[i].timer, on_expired);
        guest_timer_arm(&many[i].timer, (uint64_t)(random() % 1000));
        if (random() % 3 == 0)
            guest_timer_arm(&many[random() % (long)(i + 1)].timer, (uint64_t)(random() % 1000));
    }
    for (struct list *node = clock_.timers.next; node != &clock_.timers; node = node->next) {
        const struct guest_timer *timer = list_entry(node, struct guest_timer, node);
        assert_true(timer->deadline_ns >= last_ns);
        last_ns = timer->deadline_ns;
    }
    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        guest_timer_disarm(&many[i].timer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_order_of_deadlines),
        TEST(test_a_timer_may_disarm_one_that_is_due_too),
        TEST(test_rearming_in_the_past_does_not_spin),
        TEST(test_runs_and_stands_still),
        TEST(test_many_timers_in_random_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
