/* SPDX-License-Identifier: MIT */
#include "vmm/control/qmp_framer.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

static struct qmp_framer framer;
static char texts[16][256];
static unsigned text_count, error_count;

static int set_up(void **state)
{
    (void)state;
    qmp_framer_init(&framer);
    text_count = error_count = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    qmp_framer_fini(&framer);
    return 0;
}

static void note(enum qmp_frame frame)
{
    if (frame == QMP_FRAME_ERROR) {
        assert_non_null(framer.error);
        error_count++;
    } else if (frame == QMP_FRAME_TEXT) {
        assert_true(text_count < 16);
        assert_true(framer.length < sizeof(texts[0]));
        memcpy(texts[text_count], framer.text, framer.length);
        texts[text_count++][framer.length] = 0;
    }
}

/* In pieces of `step` bytes. */
static void feed(const char *bytes, size_t length, size_t step)
{
    for (size_t at = 0; at < length; at += step) {
        size_t piece = length - at < step ? length - at : step;
        for (size_t taken = 0; taken < piece;) {
            enum qmp_frame frame;
            size_t now = qmp_framer_feed(&framer, bytes + at + taken, piece - taken, &frame);
            assert_true(now > 0 && now <= piece - taken);
            taken += now;
            assert_true(taken == piece || frame != QMP_FRAME_MORE);
            note(frame);
        }
    }
}

static void feed_text(const char *text)
{
    feed(text, strlen(text), strlen(text));
}

static void test_texts_need_no_newline(void **state)
{
    (void)state;
    const char *stream = "{\"a\":1}{\"b\":[1,{\"c\":2}]} \r\n [] ";
    for (size_t step = 1; step <= strlen(stream); step++) {
        text_count = 0;
        feed(stream, strlen(stream), step);
        assert_int_equal(text_count, 3);
        assert_string_equal(texts[0], "{\"a\":1}");
        assert_string_equal(texts[1], "{\"b\":[1,{\"c\":2}]}");
        assert_string_equal(texts[2], "[]");
    }
    assert_int_equal(error_count, 0);
}

static void test_brackets_in_strings_do_not_count(void **state)
{
    (void)state;
    feed_text("{\"a\":\"}]\\\"}\\\\\"}");
    assert_int_equal(text_count, 1);
    assert_string_equal(texts[0], "{\"a\":\"}]\\\"}\\\\\"}");
}

static void test_single_quotes_become_double(void **state)
{
    (void)state;
    feed_text("{'execute': 'say \"hi\" it\\'s \\n'}");
    assert_int_equal(text_count, 1);
    assert_string_equal(texts[0], "{\"execute\": \"say \\\"hi\\\" it's \\n\"}");
}

static void test_junk_is_one_error_and_then_forgotten(void **state)
{
    (void)state;
    feed_text("hello world }}} \n");
    assert_int_equal(error_count, 1);
    feed_text("42\n{}");
    assert_int_equal(error_count, 2);
    assert_int_equal(text_count, 1);
    feed_text("x{'a':1}");
    assert_int_equal(error_count, 3);
    assert_int_equal(text_count, 2);
}

static void test_mismatched_brackets_are_the_parsers_business(void **state)
{
    (void)state;
    feed_text("{]{}");
    assert_int_equal(text_count, 2);
    assert_string_equal(texts[0], "{]");
}

static void test_depth_is_bounded(void **state)
{
    (void)state;
    char fits[2 * CONTROL_JSON_DEPTH_MAX + 1], deep[20001];
    memset(fits, '[', CONTROL_JSON_DEPTH_MAX);
    memset(fits + CONTROL_JSON_DEPTH_MAX, ']', CONTROL_JSON_DEPTH_MAX);
    feed(fits, sizeof(fits) - 1, 7);
    assert_int_equal(text_count, 1);
    memset(deep, '[', 10000);
    memset(deep + 10000, ']', 10000);
    feed(deep, 20000, 1000);
    assert_int_equal(error_count, 1);
    assert_int_equal(text_count, 1);
    feed_text("{}");
    assert_int_equal(text_count, 2);
}

static void test_an_unfinished_deep_text_ends_with_its_line(void **state)
{
    (void)state;
    char deep[10001];
    memset(deep, '{', 10000);
    deep[10000] = '\n';
    feed(deep, sizeof(deep), 512);
    assert_int_equal(error_count, 1);
    feed_text("{}");
    assert_int_equal(text_count, 1);
}

static void test_length_is_bounded(void **state)
{
    (void)state;
    size_t length = 3 * CONTROL_REQUEST_MAX_BYTES;
    char *big = malloc(length);
    memset(big, 'x', length);
    memcpy(big, "{\"", 2);
    memcpy(big + length - 3, "\"}\n", 3);
    feed(big, length, 4096);
    free(big);
    assert_int_equal(error_count, 1);
    assert_int_equal(text_count, 0);
    feed_text("{}");
    assert_int_equal(text_count, 1);
}

static void test_random_bytes(void **state)
{
    (void)state;
    static const char alphabet[] = "{}[]\"'\\,: a1\n\xff";
    struct random random = {1};
    for (int round = 0; round < 2000; round++) {
        char bytes[256];
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] =
                alphabet[random_below(&random, (unsigned)sizeof(alphabet) - (unsigned)(round % 2))];
        for (size_t taken = 0; taken < sizeof(bytes);) {
            enum qmp_frame frame;
            size_t now = qmp_framer_feed(&framer, bytes + taken, sizeof(bytes) - taken, &frame);
            assert_true(now > 0);
            assert_true(frame != QMP_FRAME_TEXT || framer.length >= 2);
            assert_true(framer.length <= CONTROL_REQUEST_MAX_BYTES);
            taken += now;
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_texts_need_no_newline),
        TEST(test_brackets_in_strings_do_not_count),
        TEST(test_single_quotes_become_double),
        TEST(test_junk_is_one_error_and_then_forgotten),
        TEST(test_mismatched_brackets_are_the_parsers_business),
        TEST(test_depth_is_bounded),
        TEST(test_an_unfinished_deep_text_ends_with_its_line),
        TEST(test_length_is_bounded),
        TEST(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
