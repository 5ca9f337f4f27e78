/* SPDX-License-Identifier: MIT */
/* memory: where the guest's RAM comes from, and when. */
#include "vmm/memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/test.h"

#define SIZE (32 * MIB)

static size_t resident_pages_of(void *host, size_t size)
{
    size_t pages = size / 4096, count = 0;
    unsigned char *map = malloc(pages);
    assert_int_equal(mincore(host, size, map), 0);
    for (size_t i = 0; i < pages; i++)
        count += map[i] & 1;
    free(map);
    return count;
}

static size_t resident_pages(const struct memory *memory)
{
    return resident_pages_of(memory->host, memory->size);
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

static bool huge_pages_are_offered(void)
{
    char text[64] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    bool is_read = file && fgets(text, sizeof(text), file);
    if (file)
        fclose(file);
    return is_read && !strstr(text, "[never]");
}

/* What smaps tells under this word of the mapping that begins at `host`. */
static void read_smaps(const void *host, const char *word, char text[256])
{
    char start[32];
    bool is_there = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    assert_non_null(file);
    snprintf(start, sizeof(start), "%lx-", (unsigned long)(uintptr_t)host);
    while (fgets(text, 256, file)) {
        if (strchr("0123456789abcdef", text[0]))
            is_there = strncmp(text, start, strlen(start)) == 0;
        else if (is_there && strncmp(text, word, strlen(word)) == 0)
            break;
    }
    assert_false(feof(file));
    fclose(file);
}

static unsigned long huge_kib(const void *host)
{
    char text[256];
    unsigned long found;
    read_smaps(host, "AnonHugePages:", text);
    assert_int_equal(sscanf(text, "AnonHugePages: %lu", &found), 1);
    return found;
}

static bool is_advised(const void *host, const char *flag)
{
    char text[256];
    read_smaps(host, "VmFlags:", text);
    return strstr(text, flag);
}

/* As the host does with a setting of its own only: it takes a file's memory in small pages. */
static void test_the_host_maps_huge_pages(void **state)
{
    struct memory memory;
    (void)state;
    if (!huge_pages_are_offered())
        skip();
    make(&memory, NULL, false);
    assert_int_equal((uintptr_t)memory.host % (2 * MIB), 0);
    memory_settle(&memory);
    for (uint64_t at = 0; at < SIZE; at += 2 * MIB)
        ((char *)memory.host)[at] = 'x';
    assert_true(huge_kib(memory.host) > 0);
    memory_fini(&memory);
}

static void test_the_lowest_pages_are_small_at_first(void **state)
{
    struct memory memory;
    (void)state;
    if (!huge_pages_are_offered())
        skip();
    make(&memory, NULL, false);
    char *low = memory.host, *above = low + 2 * MIB;
    *low = *above = 'x';
    assert_int_equal(resident_pages_of(low, 2 * MIB), 1);
    assert_int_equal(huge_kib(low), 0);
    assert_true(huge_kib(above) > 0);
    assert_true(is_advised(low, " nh"));
    memory_settle(&memory);
    assert_true(is_advised(low, " hg"));
    memory_fini(&memory);
}

static void give_back_half(const char *path)
{
    struct memory memory;
    make(&memory, path, true);
    char *half = (char *)memory.host + SIZE / 2;
    memset(memory.host, 'x', SIZE);
    assert_int_equal(guest_mem_discard_host(&memory.guest, half, SIZE / 2), 0);
    assert_int_equal(resident_pages(&memory), SIZE / 2 / 4096);
    assert_int_equal(half[-1], 'x');
    assert_int_equal(half[0], 0);
    assert_int_equal(half[SIZE / 2 - 1], 0);
    memory_fini(&memory);
}

static void test_what_is_given_back_is_gone_and_reads_as_zero(void **state)
{
    (void)state;
    give_back_half(NULL);
    give_back_half("/dev/shm");
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

static void expect_refusal(const char *path, const char *part)
{
    struct memory memory;
    struct error err = {0};
    assert_true(memory_init(&memory, SIZE, path, false, &err) < 0);
    if (!strstr(err.text, part))
        fail_msg("'%s' lacks '%s'", err.text, part);
}

static void test_a_file_of_something_else_is_left_alone(void **state)
{
    char path[] = "/tmp/evisor-memory-XXXXXX";
    (void)state;
    int fd = mkstemp(path);
    for (off_t size = 4096; size <= 2 * (off_t)SIZE; size *= 2 * SIZE / 4096) {
        assert_int_equal(ftruncate(fd, size), 0);
        assert_int_equal(pwrite(fd, "data", 4, size - 4), 4);
        expect_refusal(path, "name a folder, or a file that is new, empty or of that size");
        assert_int_equal(lseek(fd, 0, SEEK_END), size);
    }
    close(fd);
    unlink(path);
}

static void test_a_file_is_one_machines(void **state)
{
    char path[] = "/tmp/evisor-memory-XXXXXX";
    struct memory first;
    (void)state;
    close(mkstemp(path));
    make(&first, path, false);
    expect_refusal(path, "is the memory of another machine");
    memory_fini(&first);
    make(&first, path, false);
    memory_fini(&first);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_taken_before_its_use),
        cmocka_unit_test(test_prealloc_takes_all),
        cmocka_unit_test(test_a_folder_gives_memory_and_keeps_no_file),
        cmocka_unit_test(test_a_file_holds_the_memory),
        cmocka_unit_test(test_the_host_maps_huge_pages),
        cmocka_unit_test(test_the_lowest_pages_are_small_at_first),
        cmocka_unit_test(test_what_is_given_back_is_gone_and_reads_as_zero),
        cmocka_unit_test(test_too_little_room_is_an_error),
        cmocka_unit_test(test_a_file_of_something_else_is_left_alone),
        cmocka_unit_test(test_a_file_is_one_machines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
