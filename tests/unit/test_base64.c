/* SPDX-License-Identifier: MIT */
#include "vmm/control/base64.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

/* RFC 4648, section 10. */
static void test_the_examples_of_the_rfc(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++) {
        char *text = base64_encode((const uint8_t *)pairs[i][0], strlen(pairs[i][0]));
        size_t length;
        assert_string_equal(text, pairs[i][1]);
        assert_true(base64_decode(text, &length));
        assert_int_equal(length, strlen(pairs[i][0]));
        assert_memory_equal(text, pairs[i][0], length);
        free(text);
    }
}

static void test_bytes_come_back(void **state)
{
    (void)state;
    struct random random = {1};
    for (size_t length = 0; length < 200; length++) {
        uint8_t bytes[200];
        size_t back;
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)random_next(&random);
        char *text = base64_encode(bytes, length);
        assert_true(base64_decode(text, &back));
        assert_int_equal(back, length);
        assert_memory_equal(text, bytes, length);
        free(text);
    }
}

static void test_what_is_none(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "Z", "Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9\n", "Zm-v", "Z\xc3\xa4o"};
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        char *text = strdup(wrong[i]);
        size_t length;
        assert_false(base64_decode(text, &length));
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_examples_of_the_rfc),
        cmocka_unit_test(test_bytes_come_back),
        cmocka_unit_test(test_what_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
