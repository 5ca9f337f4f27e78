/* SPDX-License-Identifier: MIT */
/* footprint: constants that were read once do not stay resident, and are the same when read again.
 */
#include "base/footprint.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/test.h"

#define PAGE  4096u
#define BYTES (256 * PAGE)

static const char constants[BYTES] __attribute__((aligned(PAGE))) = {1};
static const char *const pointers[2] = {constants, constants + PAGE}; /* relocated */
static volatile unsigned sum;

static void read_constants(void)
{
    for (unsigned i = 0; i < BYTES; i += PAGE)
        sum += (unsigned char)((volatile const char *)constants)[i];
}

/* Pages of the constants that this process has mapped now. */
static unsigned count_resident(void)
{
    static uint64_t entries[BYTES / PAGE]; /* pagemap's; bit 63: present */
    unsigned count = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, entries, sizeof(entries), (uintptr_t)constants / PAGE * 8),
                     sizeof(entries));
    close(fd);
    for (unsigned i = 0; i < BYTES / PAGE; i++)
        count += (unsigned)(entries[i] >> 63);
    return count;
}

static void test_constants_go_and_come_back(void **state)
{
    (void)state;
    read_constants();
    assert_int_equal(count_resident(), BYTES / PAGE);
    footprint_trim();
    assert_true(count_resident() < BYTES / PAGE / 4);
    sum = 0;
    read_constants();
    assert_int_equal(sum, 1);
    assert_ptr_equal(pointers[1], pointers[0] + PAGE);
}

/* As a debugger does with a breakpoint: a write to a page that is not writable. */
static void test_what_was_patched_stays_patched(void **state)
{
    (void)state;
    const char patch = 77;
    int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &patch, 1, (off_t)(uintptr_t)(constants + 5)), 1);
    close(fd);
    footprint_trim();
    assert_int_equal(((volatile const char *)constants)[5], patch);
}

static void test_what_was_allocated_stays(void **state)
{
    (void)state;
    char *blocks[64];
    for (unsigned i = 0; i < 64; i++) {
        blocks[i] = malloc(32 * 1024);
        assert_non_null(blocks[i]);
        memset(blocks[i], (int)i, 32 * 1024);
    }
    for (unsigned i = 0; i < 64; i += 2)
        free(blocks[i]);
    footprint_trim();
    for (unsigned i = 1; i < 64; i += 2) {
        assert_int_equal(blocks[i][0], i);
        assert_int_equal(blocks[i][32 * 1024 - 1], i);
        free(blocks[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constants_go_and_come_back),
        cmocka_unit_test(test_what_was_allocated_stays),
        cmocka_unit_test(test_what_was_patched_stays_patched), /* last: the page stays changed */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
