/* SPDX-License-Identifier: MIT */
/* memory: where the guest's RAM comes from, and when. */
#include "vmm/memory.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/test.h"

#define SIZE (32 * MIB)

static size_t resident_pages(const struct memory *memory)
{
    size_t pages = memory->size / 4096, count = 0;
    unsigned char *map = malloc(pages);
    assert_int_equal(mincore(memory->host, memory->size, map), 0);
    for (size_t i = 0; i < pages; i++)
        count += map[i] & 1;
    free(map);
    return count;
}

static void make(struct memory *memory, const char *path, bool prealloc)
{
    struct error err = {0};
    int result = memory_init(memory, SIZE, path, prealloc, &err);
    if (result)
        print_message("%s\n", err.text);
    assert_int_equal(result, 0);
}

static void test_nothing_is_taken_before_its_use(void **state)
{
    struct memory memory;
    (void)state;
    make(&memory, NULL, false);
    assert_int_equal(resident_pages(&memory), 0);
    memory_fini(&memory);
}

static void test_prealloc_takes_all(void **state)
{
    struct memory memory;
    (void)state;
    make(&memory, NULL, true);
    assert_int_equal(resident_pages(&memory), SIZE / 4096);
    memory_fini(&memory);
}

static void test_a_folder_gives_memory_and_keeps_no_file(void **state)
{
    char folder[] = "/tmp/evisor-memory-XXXXXX";
    struct memory memory;
    (void)state;
    assert_non_null(mkdtemp(folder));
    make(&memory, folder, true);
    memcpy(memory.host, "here", 5);
    assert_int_equal(rmdir(folder), 0); /* it is empty */
    memory_fini(&memory);
}

static void test_a_file_holds_the_memory(void **state)
{
    char path[] = "/tmp/evisor-memory-XXXXXX";
    char found[5] = "";
    struct memory memory;
    (void)state;
    int fd = mkstemp(path);
    make(&memory, path, false);
    memcpy(memory.host, "here", 5);
    memory_fini(&memory);
    assert_int_equal(pread(fd, found, 4, 0), 4);
    assert_string_equal(found, "here");
    close(fd);
    unlink(path);
}

/* A file that may not grow is told of in a sentence, not by a signal later. */
static void test_too_little_room_is_an_error(void **state)
{
    char path[] = "/tmp/evisor-memory-XXXXXX";
    struct rlimit before, small = {MIB, RLIM_INFINITY};
    struct memory memory;
    struct error err = {0};
    (void)state;
    close(mkstemp(path));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    signal(SIGXFSZ, SIG_IGN);
    int result = memory_init(&memory, SIZE, path, true, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_true(result < 0);
    assert_non_null(strstr(err.text, "32 MiB"));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_taken_before_its_use),
        cmocka_unit_test(test_prealloc_takes_all),
        cmocka_unit_test(test_a_folder_gives_memory_and_keeps_no_file),
        cmocka_unit_test(test_a_file_holds_the_memory),
        cmocka_unit_test(test_too_little_room_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
