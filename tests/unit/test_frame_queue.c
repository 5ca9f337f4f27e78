/* SPDX-License-Identifier: MIT */
#include "netbackends/frame_queue.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/test.h"

enum { CAPACITY = 4096 };

static struct frame_queue queue;

static int set_up(void **state)
{
    (void)state;
    return frame_queue_init(&queue, CAPACITY);
}

static int tear_down(void **state)
{
    (void)state;
    frame_queue_fini(&queue);
    return 0;
}

static bool push(uint8_t value, size_t length)
{
    struct frame *frame = frame_queue_push(&queue, length);
    if (frame)
        memset(frame->bytes, value, length);
    return frame;
}

static void check_front(uint8_t value, size_t length)
{
    const struct frame *frame = frame_queue_front(&queue);
    assert_non_null(frame);
    assert_int_equal(frame->length, length);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(frame->bytes[i], value);
    frame_queue_pop(&queue);
}

static void test_first_in_first_out(void **state)
{
    (void)state;
    assert_null(frame_queue_front(&queue));
    assert_true(push(1, 100) && push(2, 1) && push(3, 0));
    assert_int_equal(frame_queue_bytes(&queue), 101);
    check_front(1, 100);
    check_front(2, 1);
    check_front(3, 0);
    assert_null(frame_queue_front(&queue));
    assert_int_equal(frame_queue_bytes(&queue), 0);
}

static void test_it_is_bounded_and_wraps(void **state)
{
    (void)state;
    unsigned count = 0;
    while (push((uint8_t)count, 300))
        count++;
    assert_in_range(count, 10, 13);
    assert_false(push(99, 300));
    check_front(0, 300);
    check_front(1, 300);
    assert_true(push(100, 300)); /* in front of the oldest */
    assert_false(push(101, 600));
    for (unsigned i = 2; i < count; i++)
        check_front((uint8_t)i, 300);
    check_front(100, 300);
    assert_null(frame_queue_front(&queue));
}

static void test_the_newest_grows_until_it_meets_something(void **state)
{
    (void)state;
    assert_true(push(1, 10));
    assert_true(frame_queue_grow(&queue, 20));
    memset(frame_queue_newest(&queue)->bytes, 1, 30);
    check_front(1, 30);
    assert_true(push(1, 3000) && push(2, 900));
    check_front(1, 3000);
    assert_true(push(3, 1000));
    assert_true(frame_queue_grow(&queue, 1500));
    assert_false(frame_queue_grow(&queue, 600)); /* would touch frame 2 */
    memset(frame_queue_newest(&queue)->bytes, 3, 2500);
    check_front(2, 900);
    check_front(3, 2500);
}

static void test_a_frame_larger_than_the_arena_never_fits(void **state)
{
    (void)state;
    assert_false(push(1, CAPACITY));
    assert_true(push(1, CAPACITY - 64));
    assert_false(frame_queue_grow(&queue, 64));
}

static void test_clear(void **state)
{
    (void)state;
    assert_true(push(1, 3000) && push(1, 500));
    frame_queue_clear(&queue);
    assert_null(frame_queue_front(&queue));
    assert_null(frame_queue_newest(&queue));
    assert_true(push(2, 3500));
    check_front(2, 3500);
}

/* Against a plain list of what must come out. */
static void test_random_work(void **state)
{
    (void)state;
    static struct {
        uint8_t value;
        size_t length;
    } expected[CAPACITY];
    size_t head = 0, tail = 0;
    srandom(7);
    for (unsigned i = 0; i < 200000; i++) {
        if (random() % 2 && tail - head < CAPACITY) {
            size_t length = (size_t)random() % 700;
            if (!push((uint8_t)i, length))
                continue;
            size_t more = (size_t)random() % 200;
            if (random() % 3 == 0 && frame_queue_grow(&queue, more)) {
                memset(frame_queue_newest(&queue)->bytes + length, (uint8_t)i, more);
                length += more;
            }
            expected[tail % CAPACITY].value = (uint8_t)i;
            expected[tail++ % CAPACITY].length = length;
        } else if (head < tail) {
            check_front(expected[head % CAPACITY].value, expected[head % CAPACITY].length);
            head++;
        }
    }
    assert_true(tail > 50000);
}

#define queue_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        queue_test(test_first_in_first_out),
        queue_test(test_it_is_bounded_and_wraps),
        queue_test(test_the_newest_grows_until_it_meets_something),
        queue_test(test_a_frame_larger_than_the_arena_never_fits),
        queue_test(test_clear),
        queue_test(test_random_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
