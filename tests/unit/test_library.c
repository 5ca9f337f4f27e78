/* SPDX-License-Identifier: MIT */
/* library: functions are found and work; what is not there is told with the package to install. */
#include "base/library.h"

#include <errno.h>
#include <zlib.h>

#include "tests/unit/test.h"

static __typeof__(crc32) *found;
static __typeof__(adler32) *other;

static const struct library_function functions[] = {{"crc32", &found}, {"adler32", &other}};

static void test_functions_are_found(void **state)
{
    struct library library = {"libz.so.1", "zlib1g", functions, ARRAY_SIZE(functions), false};
    (void)state;
    assert_int_equal(library_load(&library, NULL), 0);
    assert_true(library.is_loaded);
    assert_int_equal(found(0, (const Bytef *)"abc", 3), 0x352441c2);
    assert_int_equal(other(1, (const Bytef *)"abc", 3), 0x024d0127);
    found = NULL;
    assert_int_equal(library_load(&library, NULL), 0); /* nothing is done twice */
    assert_null(found);
}

static void test_a_library_that_is_not_there(void **state)
{
    struct library library = {"libnot-there.so.7", "libnot-there7", functions,
                              ARRAY_SIZE(functions), false};
    struct error err = {0};
    (void)state;
    assert_int_equal(library_load(&library, &err), -ENOENT);
    assert_string_equal(err.text,
                        "cannot load libnot-there.so.7 (libnot-there.so.7: cannot open shared "
                        "object file: No such file or directory): apt-get install libnot-there7");
    assert_false(library.is_loaded);
}

static void test_a_function_that_is_not_there(void **state)
{
    static const struct library_function newer[] = {{"crc32", &found}, {"crc128", &other}};
    struct library library = {"libz.so.1", "zlib1g", newer, ARRAY_SIZE(newer), false};
    struct error err = {0};
    (void)state;
    assert_int_equal(library_load(&library, &err), -ENOSYS);
    assert_string_equal(err.text,
                        "libz.so.1 has no crc128: it is too old: apt-get install a newer zlib1g");
    assert_false(library.is_loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions_are_found),
        cmocka_unit_test(test_a_library_that_is_not_there),
        cmocka_unit_test(test_a_function_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
