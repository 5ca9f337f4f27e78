/* SPDX-License-Identifier: MIT */
#include "vmm/options/keyval.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test.h"
#include "base/suggest.h"

static const struct keyval_known known[] = {{"file", NULL, NULL},
                                            {"wait", NULL, NULL},
                                            {"size", NULL, NULL},
                                            {"nowhere", NULL, NULL},
                                            {"old", "off|0", "it is gone"},
                                            {"any", "*", NULL},
                                            {0}};

static struct keyval list;
static struct error err;

static int parse(const char *text, const char *implied)
{
    keyval_fini(&list);
    memset(&err, 0, sizeof(err));
    int result = keyval_parse(&list, "-opt", text, implied, &err);
    return result ? result : keyval_check(&list, known, &err);
}

static int tear_down(void **state)
{
    (void)state;
    keyval_fini(&list);
    return 0;
}

static void test_implied_key_and_escaped_commas(void **state)
{
    (void)state;
    assert_int_equal(parse("a,,b=c,size=1,,,,2", "file"), 0);
    assert_string_equal(keyval_get(&list, "file"), "a,b=c");
    assert_int_equal(parse("x,file=y", "file"), 0);
    assert_string_equal(keyval_get(&list, "file"), "y"); /* the last one counts */
    assert_int_equal(parse("file=", NULL), 0);
    assert_string_equal(keyval_get(&list, "file"), "");
    assert_null(keyval_get(&list, "size"));
    assert_int_equal(parse("size=1,,,,2", NULL), 0);
    assert_string_equal(keyval_get(&list, "size"), "1,,2");
}

static void test_switches(void **state)
{
    (void)state;
    bool wait = false;
    assert_int_equal(parse("p,wait", "file"), 0);
    assert_int_equal(keyval_bool(&list, "wait", &wait, &err), 0);
    assert_true(wait);
    assert_int_equal(parse("p,nowait", "file"), 0);
    assert_int_equal(keyval_bool(&list, "wait", &wait, &err), 0);
    assert_false(wait);
    assert_int_equal(parse("p,nowhere", "file"), 0); /* "no" belongs to the name here */
    assert_string_equal(keyval_get(&list, "nowhere"), "on");
    assert_int_equal(parse("p,wait=maybe", "file"), 0);
    assert_int_equal(keyval_bool(&list, "wait", &wait, &err), -EINVAL);
    assert_non_null(strstr(err.text, "say on or off"));
}

static void test_unknown_keys_get_the_nearest(void **state)
{
    (void)state;
    assert_int_equal(parse("flie=x", NULL), -EINVAL);
    assert_non_null(strstr(err.text, "-opt flie=x: 'flie' is not known here; did you mean 'file'"));
    assert_int_equal(parse("zzzzzz=x", NULL), -EINVAL);
    assert_null(strstr(err.text, "did you mean"));
    assert_int_equal(parse("file=x,=y", NULL), -EINVAL);
    assert_int_equal(parse("file=x,,", NULL), 0);
    assert_int_equal(parse("", NULL), -EINVAL);
    assert_int_equal(parse("", "file"), -EINVAL);
}

static void test_values_that_change_nothing(void **state)
{
    (void)state;
    assert_int_equal(parse("old=off,any=thing,old=0", NULL), 0);
    assert_int_equal(parse("old=on", NULL), -ENOTSUP);
    assert_non_null(strstr(err.text, "old=on: it is gone"));
    assert_int_equal(parse("old", NULL), -ENOTSUP);
    assert_int_equal(parse("noold", NULL), 0);
    assert_int_equal(parse("old=", NULL), -ENOTSUP);
    assert_int_equal(parse("old=of", NULL), -ENOTSUP);
    assert_int_equal(parse("old=off|0", NULL), -ENOTSUP);
}

static void test_too_many_parts(void **state)
{
    (void)state;
    char text[(KEYVAL_MAX + 1) * 6 + 1];
    for (int i = 0; i <= KEYVAL_MAX; i++)
        snprintf(text + i * 6, 7, "any=1,");
    assert_int_equal(parse(text, NULL), -E2BIG);
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes; /* 0: refused */
    } cases[] = {
        {"512", 512 << 20},
        {"512M", 512 << 20},
        {"2G", UINT64_C(2) << 30},
        {"2g", UINT64_C(2) << 30},
        {"1.5G", UINT64_C(3) << 29},
        {"4096b", 4096},
        {"1T", UINT64_C(1) << 40},
        {"1E", UINT64_C(1) << 60},
        {"16E", 0},
        {"", 0},
        {"G", 0},
        {"-1", 0},
        {"+1", 0},
        {" 1", 0},
        {"1Q", 0},
        {"1GG", 0},
        {"1.G.", 0},
        {"1.5e3", 0},
        {"99999999999999999999", 0},
        {"0x10", 0},
        {"1.9999999999999999999999999999K", 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t bytes = 0;
        bool fits = keyval_text_to_size(cases[i].text, 1 << 20, &bytes);
        if (fits != (cases[i].bytes != 0) || (fits && bytes != cases[i].bytes))
            fail_msg("'%s' gave %llu", cases[i].text, (unsigned long long)bytes);
    }
    uint64_t number;
    assert_true(keyval_text_to_uint("18446744073709551615", &number));
    assert_false(keyval_text_to_uint("18446744073709551616", &number));
    assert_true(keyval_text_to_uint("0x1f", &number));
    assert_int_equal(number, 31);
    assert_false(keyval_text_to_uint("1x", &number));
    assert_false(keyval_text_to_uint("-1", &number));
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(suggest_distance("drive", "drive"), 0);
    assert_int_equal(suggest_distance("dirve", "drive"), 1); /* neighbours swapped */
    assert_int_equal(suggest_distance("Drive", "drive"), 0);
    assert_int_equal(suggest_distance("", "abc"), 3);
    assert_int_equal(suggest_distance("kitten", "sitting"), 3);
    char longest[1000];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    assert_int_equal(suggest_distance(longest, longest), 0);
    struct suggest suggest;
    suggest_init(&suggest, "x");
    suggest_offer(&suggest, "smp");
    assert_null(suggest.best);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_implied_key_and_escaped_commas, tear_down),
        cmocka_unit_test_teardown(test_switches, tear_down),
        cmocka_unit_test_teardown(test_unknown_keys_get_the_nearest, tear_down),
        cmocka_unit_test_teardown(test_values_that_change_nothing, tear_down),
        cmocka_unit_test_teardown(test_too_many_parts, tear_down),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
