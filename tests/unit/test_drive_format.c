/* SPDX-License-Identifier: MIT */
#include "vmm/drive_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/test.h"

static char path[64];
static uint8_t header[104];
static struct error err;

static int set_up(void **state)
{
    (void)state;
    snprintf(path, sizeof(path), "/tmp/test_drive_format.XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    memset(header, 0, sizeof(header));
    store_be32(header, 0x514649fb);
    store_be32(header + 4, 3);
    memset(&err, 0, sizeof(err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static int tell(size_t bytes, const char **format)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, header, bytes), bytes);
    close(fd);
    *format = NULL;
    return drive_format_tell(path, format, &err);
}

static void test_harmless_images(void **state)
{
    (void)state;
    const char *format;
    assert_int_equal(tell(sizeof(header), &format), 0);
    assert_string_equal(format, "qcow2");
    store_be32(header + 4, 2); /* version 2 has no features; there may be anything */
    memset(header + 72, 0xff, 8);
    assert_int_equal(tell(sizeof(header), &format), 0);
    assert_string_equal(format, "qcow2");
    header[0] = 'q';
    assert_int_equal(tell(sizeof(header), &format), 0);
    assert_string_equal(format, "raw");
    for (size_t bytes = 0; bytes < 4; bytes++) {
        header[0] = 'Q';
        assert_int_equal(tell(bytes, &format), 0);
        assert_string_equal(format, "raw");
    }
}

/* What a guest could write into its raw disk to have a file of the host's opened. */
static void test_images_that_name_another_file(void **state)
{
    (void)state;
    const char *format;
    store_be64(header + 8, 1024);
    assert_int_equal(tell(sizeof(header), &format), -EINVAL);
    assert_non_null(strstr(err.text, "format=qcow2"));
    assert_int_equal(tell(16, &format), -EINVAL);
    store_be32(header + 4, 2);
    assert_int_equal(tell(sizeof(header), &format), -EINVAL);
    store_be64(header + 8, 0);
    store_be32(header + 4, 3);
    store_be64(header + 72, 4);
    assert_int_equal(tell(sizeof(header), &format), -EINVAL);
    store_be32(header + 4, 4); /* a version yet unknown */
    assert_int_equal(tell(sizeof(header), &format), -EINVAL);
}

static void test_no_image(void **state)
{
    (void)state;
    const char *format = NULL;
    assert_int_equal(drive_format_tell("/nonexistent/x.img", &format, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/x.img"));
    assert_int_equal(drive_format_tell("/tmp", &format, NULL), -EISDIR);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody writes to it: no waiting */
    assert_true(drive_format_tell(path, &format, NULL) < 0);
    assert_null(format);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_harmless_images, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_images_that_name_another_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_image, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
