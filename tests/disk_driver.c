/* SPDX-License-Identifier: MIT */
/*
 * disk_driver: applies a list of operations to an image through disk.h, for tests that compare with
 * other tools. Lines on standard input, numbers in any base that C knows:
 *
 *   write OFFSET LENGTH BYTE    submits; many may run at once, until `wait`
 *   fill OFFSET LENGTH SEED     as write, every 512 bytes different
 *   zero OFFSET LENGTH, discard OFFSET LENGTH, unmap OFFSET LENGTH (zero, may unmap)
 *   flush, wait
 *
 * These wait for what was submitted:
 *
 *   read OFFSET LENGTH          prints a checksum
 *   is OFFSET LENGTH BYTE       compares
 *   resize SIZE, size (prints it), dump FILE (all contents)
 *   idle MS                     lets timers run
 *   shrinks BYTES               lets timers run until the image takes no more of its file system
 *   create NAME, apply NAME, delete NAME, snapshots (lists them)
 *   refused NAME                create, which has to fail
 *   vmstate SIZE, vmwrite OFFSET LENGTH BYTE, vmis OFFSET LENGTH BYTE
 *
 * Exit status 1 and a line on standard error at the first failure.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/bytes.h"
#include "disk/disk.h"

#define DUMP_BYTES         (1024 * 1024u)
#define SHRINK_DEADLINE_NS UINT64_C(60000000000)

struct driver {
    struct loop loop;
    struct disk *disk;
    const char *path;
    unsigned in_flight;
    int failed;
};

struct operation {
    struct disk_request request;
    struct iovec iov;
    struct driver *driver;
};

static void fail(const char *what, int result)
{
    fprintf(stderr, "disk_driver: %s: %s\n", what, strerror(result < 0 ? -result : result));
    exit(1);
}

static void on_done(struct disk_request *request, int result)
{
    struct operation *operation = container_of(request, struct operation, request);
    operation->driver->in_flight--;
    if (result && !operation->driver->failed)
        operation->driver->failed = result;
    free(operation->iov.iov_base);
    free(operation);
}

static void wait_all(struct driver *driver)
{
    while (driver->in_flight)
        loop_run_once(&driver->loop, true);
    if (driver->failed)
        fail("a request failed", driver->failed);
}

static void submit(struct driver *driver, enum disk_op op, unsigned flags, uint64_t offset,
                   uint64_t bytes, uint8_t *data)
{
    struct operation *operation = calloc(1, sizeof(*operation));
    operation->driver = driver;
    operation->iov = (struct iovec){data, bytes};
    operation->request = (struct disk_request){
        .op = op,
        .flags = flags,
        .offset = offset,
        .bytes = bytes,
        .iov = &operation->iov,
        .iov_count = 1,
        .on_done = on_done,
    };
    driver->in_flight++;
    disk_submit(driver->disk, &operation->request);
}

static uint8_t *make_data(uint64_t offset, uint64_t bytes, uint64_t value, bool varies)
{
    uint8_t *data = malloc(MAX(bytes, 1));
    for (uint64_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(varies ? (offset + i) / 512 * 7 + value : value);
    return data;
}

static void read_now(struct driver *driver, unsigned flags, uint64_t offset, uint8_t *data,
                     uint64_t bytes)
{
    struct iovec iov = {data, bytes};
    struct disk_request request = {.op = DISK_READ,
                                   .flags = flags,
                                   .offset = offset,
                                   .bytes = bytes,
                                   .iov = &iov,
                                   .iov_count = 1};
    wait_all(driver);
    int result = disk_run(driver->disk, &request);
    if (result)
        fail("read", result);
}

static void compare(struct driver *driver, unsigned flags, uint64_t offset, uint64_t bytes,
                    uint64_t value)
{
    uint8_t *data = malloc(MAX(bytes, 1));
    read_now(driver, flags, offset, data, bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        if (data[i] == (uint8_t)value)
            continue;
        fprintf(stderr, "disk_driver: byte %llu is %#x, not %#x\n",
                (unsigned long long)(offset + i), data[i], (unsigned)value);
        exit(1);
    }
    free(data);
}

static void checksum(struct driver *driver, uint64_t offset, uint64_t bytes)
{
    uint8_t *data = malloc(MAX(bytes, 1));
    read_now(driver, 0, offset, data, bytes);
    printf("%08lx\n", crc32(0, data, (unsigned)bytes));
    free(data);
}

static void dump(struct driver *driver, const char *path)
{
    static uint8_t data[DUMP_BYTES];
    uint64_t size = disk_size_bytes(driver->disk);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    for (uint64_t at = 0; at < size; at += DUMP_BYTES) {
        uint64_t bytes = MIN(size - at, DUMP_BYTES);
        read_now(driver, 0, at, data, bytes);
        if (pwrite(fd, data, bytes, (off_t)at) != (ssize_t)bytes)
            fail(path, EIO);
    }
    close(fd);
}

static void on_resized(void *opaque, int result, const struct error *err)
{
    struct driver *driver = opaque;
    if (result)
        fprintf(stderr, "disk_driver: %s\n", err ? err->text : strerror(-result));
    driver->failed = result;
    driver->in_flight--;
}

struct snapshot {
    struct disk_snapshot_request request;
    struct driver *driver;
};

static void on_snapshot(struct disk_snapshot_request *request, int result, const struct error *err)
{
    on_resized(container_of(request, struct snapshot, request)->driver, result, err);
}

static bool snapshot_line(struct driver *driver, const char *verb, const char *name)
{
    static const char *const verbs[] = {"create", "apply", "delete"};
    struct snapshot snapshot = {.driver = driver};
    for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++) {
        if (strcmp(verb, verbs[i]) != 0)
            continue;
        snapshot.request = (struct disk_snapshot_request){
            .action = (enum disk_snapshot_action)i,
            .name = name,
            .vm_clock_ns = 12345678,
            .vmstate_bytes = disk_vmstate_bytes(driver->disk),
            .on_done = on_snapshot,
        };
        driver->in_flight++;
        disk_snapshot(driver->disk, &snapshot.request);
        wait_all(driver);
        return true;
    }
    return false;
}

static void refused_line(struct driver *driver, const char *name)
{
    struct snapshot snapshot = {.driver = driver};
    snapshot.request = (struct disk_snapshot_request){
        .action = DISK_SNAPSHOT_CREATE, .name = name, .on_done = on_snapshot};
    wait_all(driver);
    driver->in_flight++;
    disk_snapshot(driver->disk, &snapshot.request);
    while (driver->in_flight)
        loop_run_once(&driver->loop, true);
    if (!driver->failed)
        fail("it was not refused", 0);
    driver->failed = 0;
}

static void list_snapshots(const struct driver *driver)
{
    for (size_t i = 0; i < disk_snapshot_count(driver->disk); i++) {
        struct disk_snapshot_info info;
        disk_snapshot_get(driver->disk, i, &info);
        printf("%s %s %llu %llu\n", info.id, info.name, (unsigned long long)info.vmstate_bytes,
               (unsigned long long)info.disk_bytes);
    }
}

/* The machine's state: "vmstate SIZE" makes room, "vmwrite" and "vmis" are write and is there. */
static bool vmstate_line(struct driver *driver, const char *verb, uint64_t a, uint64_t b,
                         uint64_t c)
{
    if (!strcmp(verb, "vmstate")) {
        driver->in_flight++;
        disk_vmstate_reserve(driver->disk, a, on_resized, driver);
        wait_all(driver);
    } else if (!strcmp(verb, "vmwrite")) {
        submit(driver, DISK_WRITE, DISK_VMSTATE, a, b, make_data(a, b, c, false));
    } else if (!strcmp(verb, "vmis")) {
        compare(driver, DISK_VMSTATE, a, b, c);
    } else {
        return false;
    }
    return true;
}

/* Lets the loop run, without a request. */
static void idle(struct driver *driver, uint64_t ms)
{
    uint64_t end = loop_now_ns() + ms * 1000000;
    while (loop_now_ns() < end) {
        loop_run_once(&driver->loop, false);
        usleep(1000);
    }
}

static void wait_until_small(struct driver *driver, uint64_t bytes)
{
    struct stat stat;
    uint64_t end = loop_now_ns() + SHRINK_DEADLINE_NS;
    do {
        if (loop_now_ns() > end)
            fail("shrinks", ETIMEDOUT);
        idle(driver, 1);
    } while (lstat(driver->path, &stat) || (uint64_t)stat.st_blocks * 512 > bytes);
}

static void run_line(struct driver *driver, const char *line)
{
    char verb[16] = "", word[256] = "";
    unsigned long long a = 0, b = 0, c = 0;
    sscanf(line, "%15s %lli %lli %lli", verb, (long long *)&a, (long long *)&b, (long long *)&c);
    sscanf(line, "%*s %255s", word);
    if (!strcmp(verb, "write") || !strcmp(verb, "fill"))
        submit(driver, DISK_WRITE, 0, a, b, make_data(a, b, c, verb[0] == 'f'));
    else if (!strcmp(verb, "zero") || !strcmp(verb, "unmap"))
        submit(driver, DISK_ZERO, verb[0] == 'u' ? DISK_MAY_UNMAP : 0, a, b, NULL);
    else if (!strcmp(verb, "discard"))
        submit(driver, DISK_DISCARD, 0, a, b, NULL);
    else if (!strcmp(verb, "flush"))
        submit(driver, DISK_FLUSH, 0, 0, 0, NULL);
    else if (!strcmp(verb, "wait"))
        wait_all(driver);
    else if (!strcmp(verb, "read"))
        checksum(driver, a, b);
    else if (!strcmp(verb, "is"))
        compare(driver, 0, a, b, c);
    else if (!strcmp(verb, "dump"))
        dump(driver, word);
    else if (!strcmp(verb, "size"))
        printf("%llu\n", (unsigned long long)disk_size_bytes(driver->disk));
    else if (!strcmp(verb, "idle"))
        idle(driver, a);
    else if (!strcmp(verb, "shrinks"))
        wait_until_small(driver, a);
    else if (!strcmp(verb, "resize")) {
        driver->in_flight++;
        disk_resize(driver->disk, a, on_resized, driver);
        wait_all(driver);
    } else if (!strcmp(verb, "snapshots")) {
        list_snapshots(driver);
    } else if (!strcmp(verb, "refused")) {
        refused_line(driver, word);
    } else if (snapshot_line(driver, verb, word) || vmstate_line(driver, verb, a, b, c)) {
        return;
    } else if (verb[0] && verb[0] != '#')
        fail(line, EINVAL);
}

int main(int argc, char **argv)
{
    static struct driver driver;
    struct error err = {0};
    char line[512];
    struct disk_options options = {.discard_unmap = true, .cache.writeback = true};
    for (int option; (option = getopt(argc, argv, "f:rRdtUc:wi:e:C:")) != -1;) {
        if (option == 'f')
            options.format = optarg;
        options.read_only |= option == 'r';
        options.cache.direct |= option == 'd';
        options.no_lock |= option == 'U';
        if (option == 'R')
            options.discard_unmap = false;
        if (option == 't')
            options.aio = DISK_AIO_THREADS;
        if (option == 'w')
            options.cache.writeback = false;
        if (option == 'i')
            options.idle_writeback_ms = (uint32_t)strtoul(optarg, NULL, 0);
        if (option == 'e')
            options.cache_entry_bytes = (uint32_t)strtoul(optarg, NULL, 0);
        if (option == 'C')
            options.cache_clean_s = (uint32_t)strtoul(optarg, NULL, 0);
        if (option == 'c')
            options.l2_cache_bytes = strtoull(optarg, NULL, 0);
    }
    if (optind + 1 != argc) {
        fprintf(stderr,
                "usage: disk_driver [-f FORMAT] [-rRdtUw] [-c CACHE] [-e ENTRY] [-i MS] [-C S] "
                "IMAGE <OPERATIONS\n"
                "-r read-only  -R keep space  -d O_DIRECT  -t threads  -U no lock  "
                "-w writethrough\n");
        return 1;
    }
    options.path = driver.path = argv[optind];
    if (!options.format)
        options.format = "qcow2";
    if (loop_init(&driver.loop))
        return 1;
    if (disk_open(&driver.loop, &options, &driver.disk, &err)) {
        fprintf(stderr, "disk_driver: %s\n", err.text);
        return 1;
    }
    while (fgets(line, sizeof(line), stdin))
        run_line(&driver, line);
    wait_all(&driver);
    int result = disk_close_wait(driver.disk);
    if (result)
        fail("close", result);
    loop_run(&driver.loop);
    loop_fini(&driver.loop);
    return 0;
}
