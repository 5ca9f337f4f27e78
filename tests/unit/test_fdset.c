/* SPDX-License-Identifier: MIT */
#include "base/fdset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/test.h"

static int new_fd(int how)
{
    int fd = open("/dev/null", how | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void test_names(void **state)
{
    (void)state;
    int first = new_fd(O_RDWR), second = new_fd(O_RDWR);
    assert_int_equal(fdset_take("a"), -ENOENT);
    fdset_name("a", first);
    fdset_name("b", new_fd(O_RDWR));
    fdset_name("a", second); /* takes the place of the first, which is closed */
    assert_int_equal(fcntl(first, F_GETFD), -1);
    assert_int_equal(fdset_take("a"), second);
    assert_int_equal(fdset_take("a"), -ENOENT);
    close(second);
    close(fdset_take("b"));
}

static void collect(void *opaque, const struct fdset_member *member)
{
    char *text = opaque;
    size_t length = strlen(text);
    snprintf(text + length, 100 - length, "%lld%s ", (long long)member->set_id,
             member->opaque ? member->opaque : "");
}

static void test_sets(void **state)
{
    (void)state;
    char text[100] = "";
    int64_t id = -1, other = 5, third = -1;
    int reader = new_fd(O_RDONLY), writer = new_fd(O_RDWR);
    fdset_add(&id, reader, "ro");
    assert_int_equal(id, 0);
    fdset_add(&id, writer, NULL);
    fdset_add(&other, new_fd(O_RDWR), "x");
    fdset_add(&third, new_fd(O_RDWR), NULL);
    assert_int_equal(third, 1);
    fdset_for_each(collect, text);
    assert_string_equal(text, "0 0ro 1 5x ");
    /* The member with the same access mode; a duplicate that outlives it. */
    int fd = fdset_open("/dev/fdset/0", O_RDONLY);
    assert_true(fd >= 0 && fd != reader);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    assert_int_equal(fdset_open("/dev/fdset/0", O_WRONLY), -EACCES);
    assert_int_equal(fdset_remove(0, reader), 0);
    assert_int_equal(fdset_remove(0, reader), -ENOENT);
    assert_int_equal(fdset_open("/dev/fdset/0", O_RDONLY), -EACCES);
    assert_true(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    assert_int_equal(fdset_remove(0, -1), 0);
    assert_int_equal(fdset_open("/dev/fdset/0", O_RDWR), -ENOENT);
    assert_int_equal(fdset_remove(1, -1), 0);
    assert_int_equal(fdset_remove(5, -1), 0);
    assert_int_equal(fdset_remove(5, -1), -ENOENT);
}

static void test_paths(void **state)
{
    (void)state;
    assert_true(fdset_is_path("/dev/fdset/1"));
    assert_false(fdset_is_path("/dev/fdsets"));
    assert_false(fdset_is_path("/dev/null"));
    static const char *const wrong[] = {"/dev/fdset/", "/dev/fdset/x", "/dev/fdset/1x",
                                        "/dev/fdset/99999999999999999999"};
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(fdset_open(wrong[i], O_RDWR), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
