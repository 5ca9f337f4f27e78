/* SPDX-License-Identifier: MIT */
#include "base/iov.h"

#include <string.h>

#include "tests/unit/test.h"

static void test_copies_across_entries(void **state)
{
    (void)state;
    char a[3], b[1], c[6];
    struct iovec list[] = {{a, 3}, {b, 0}, {b, 1}, {c, 6}};
    assert_int_equal(iov_size(list, 4), 10);
    assert_int_equal(iov_write(list, 4, 0, "0123456789", 10), 10);
    char out[11] = {0};
    assert_int_equal(iov_read(list, 4, 2, out, 8), 8);
    assert_string_equal(out, "23456789");
    assert_int_equal(iov_fill(list, 4, 9, 'x', 5), 1);
    assert_int_equal(c[5], 'x');
}

static void test_stops_at_the_end(void **state)
{
    (void)state;
    char a[4];
    struct iovec list[] = {{a, 4}};
    assert_int_equal(iov_write(list, 1, 2, "abcdef", 6), 2);
    assert_int_equal(iov_write(list, 1, 4, "abcdef", 6), 0);
    assert_int_equal(iov_write(list, 1, 400, "abcdef", 6), 0);
    assert_int_equal(iov_write(NULL, 0, 0, "abcdef", 6), 0);
}

static void test_slice_is_a_view(void **state)
{
    (void)state;
    char a[4], b[4];
    struct iovec list[] = {{a, 4}, {b, 4}}, out[2];
    assert_int_equal(iov_slice(out, 2, list, 2, 3, 3), 2);
    assert_ptr_equal(out[0].iov_base, a + 3);
    assert_int_equal(out[0].iov_len, 1);
    assert_ptr_equal(out[1].iov_base, b);
    assert_int_equal(out[1].iov_len, 2);
    assert_int_equal(iov_slice(out, 1, list, 2, 3, 3), 1);
}

static void test_copy_between_lists(void **state)
{
    (void)state;
    char from[] = "abcdefgh", x[3], y[5];
    struct iovec in[] = {{from, 2}, {from + 2, 6}}, out[] = {{x, 3}, {y, 5}};
    assert_int_equal(iov_copy(out, 2, 1, in, 2, 1, 100), 7);
    assert_memory_equal(x + 1, "bc", 2);
    assert_memory_equal(y, "defgh", 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies_across_entries),
        cmocka_unit_test(test_stops_at_the_end),
        cmocka_unit_test(test_slice_is_a_view),
        cmocka_unit_test(test_copy_between_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
