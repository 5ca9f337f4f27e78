/* SPDX-License-Identifier: MIT */
#include "vmm/event_throttle.h"

#include <stdio.h>
#include <string.h>

#include "tests/unit/test.h"

static struct loop loop;
static struct event_throttle throttle;
static char told[200];
static bool is_closed;

static void tell(struct event_throttle *from, const char *name, json_t *data)
{
    size_t length = strlen(told);
    assert_ptr_equal(from, &throttle);
    snprintf(told + length, sizeof(told) - length, "%s=%lld ", name,
             (long long)json_integer_value(data));
    json_decref(data);
}

static void emit(const char *name, const char *key, int value)
{
    event_throttle_emit(&throttle, name, key, json_integer(value));
}

static void on_closed(struct event_throttle *from)
{
    (void)from;
    is_closed = true;
}

static void run_until(bool (*is_over)(void))
{
    uint64_t deadline_ns = loop_now_ns() + UINT64_C(20000000000);
    while (!is_over()) {
        assert_true(loop_now_ns() < deadline_ns);
        loop_run_once(&loop, true);
    }
}

static bool has_told_the_last(void)
{
    return strstr(told, "A=5") && strstr(told, "B=4");
}

static bool has_closed(void)
{
    return is_closed;
}

static void test_the_first_at_once_and_of_the_rest_the_last(void **state)
{
    (void)state;
    emit("A", "x", 1);
    assert_string_equal(told, "A=1 ");
    emit("A", "x", 2);
    emit("B", "x", 3); /* another name, another key: each has its own second */
    emit("A", "y", 9);
    assert_string_equal(told, "A=1 B=3 A=9 ");
    emit("B", "x", 4);
    emit("A", "x", 5);
    run_until(has_told_the_last);
    assert_null(strstr(told, "A=2"));
    emit("A", "x", 6);
    event_throttle_close(&throttle, on_closed);
    emit("A", "z", 7); /* too late */
    run_until(has_closed);
    assert_null(strstr(told, "A=6"));
    assert_null(strstr(told, "A=7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_at_once_and_of_the_rest_the_last),
    };
    CHECK(loop_init(&loop) == 0);
    CHECK(event_throttle_init(&throttle, &loop, tell) == 0);
    int result = cmocka_run_group_tests(tests, NULL, NULL);
    loop_fini(&loop);
    return result;
}
