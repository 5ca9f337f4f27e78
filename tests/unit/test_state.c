/* SPDX-License-Identifier: MIT */
#include "devices/state.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/test.h"

struct gadget {
    uint8_t level;
    uint32_t words[3];
    uint64_t count;
};

static const struct state_field fields[] = {
    STATE_FIELD(struct gadget, level),
    STATE_ARRAY(struct gadget, words),
    STATE_FIELD(struct gadget, count),
};

static const struct state_table table = {"gadget", 1, fields, ARRAY_SIZE(fields)};

static void test_round_trip(void **state)
{
    (void)state;
    struct gadget a = {7, {1, 2, 3}, UINT64_MAX}, b = {0};
    struct state_buffer buffer = {0};
    struct error err = {0};
    state_save(&table, &a, &buffer);
    state_save(&table, &a, &buffer);
    assert_int_equal(state_restore(&table, &b, &buffer, &err), 0);
    assert_int_equal(b.level, 7);
    assert_memory_equal(b.words, a.words, sizeof(a.words));
    assert_true(b.count == UINT64_MAX);
    assert_int_equal(state_restore(&table, &b, &buffer, &err), 0);
    state_buffer_fini(&buffer);
}

static void test_refuses_another_version_and_short_input(void **state)
{
    (void)state;
    struct gadget a = {0};
    struct state_table newer = table;
    newer.version = 2;
    struct state_buffer buffer = {0};
    struct error err = {0};
    state_save(&newer, &a, &buffer);
    assert_int_equal(state_restore(&table, &a, &buffer, &err), -EINVAL);
    assert_non_null(strstr(err.text, "gadget"));

    size_t whole = 0;
    buffer.length = 0;
    state_save(&table, &a, &buffer);
    for (whole = buffer.length; buffer.length > 0; buffer.length--) {
        if (buffer.length == whole)
            continue;
        buffer.read_at = 0;
        assert_int_equal(state_restore(&table, &a, &buffer, NULL), -EINVAL);
    }
    state_buffer_fini(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refuses_another_version_and_short_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
