/* SPDX-License-Identifier: MIT */
/*
 * fuzz_nbd: a libFuzzer target: what a client sends to the NBD server. The first byte chooses where
 * it begins: at the greeting, or as an old or a modern client that has chosen an export already.
 *
 *   ninja build/tests/fuzz_nbd && build/tests/fuzz_nbd -max_len=4096 -max_total_time=600 CORPUS
 */
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/nbd/nbd_private.h"

#define DISK_BYTES (256 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop loop;
static struct disk *disk;
static struct nbd_server *server;

static const uint8_t old_client[] = "\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\1d";
static const uint8_t modern_client[] = "\0\0\0\3IHAVEOPT\0\0\0\x8\0\0\0\0"
                                       "IHAVEOPT\0\0\0\xa\0\0\0\x33\0\0\0\1d\0\0\0\2\0\0\0\xf"
                                       "base:allocation\0\0\0\x13qemu:dirty-bitmap:b"
                                       "IHAVEOPT\0\0\0\7\0\0\0\7\0\0\0\1d\0\0";

static void set_up(void)
{
    char path[64];
    struct error err = {0};
    struct dirty_bitmap *bitmap;
    static const char *const names[] = {"b"};
    CHECK(loop_init(&loop) == 0);
    int fd = memfd_create("disk", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    const struct disk_options options = {.path = path,
                                         .format = "raw",
                                         .no_lock = true,
                                         .discard_unmap = true,
                                         .aio = DISK_AIO_THREADS,
                                         .cache = {.writeback = true}};
    CHECK(disk_open(&loop, &options, &disk, &err) == 0);
    CHECK(disk_add_bitmap(disk, "b", 4096, false, &bitmap, &err) == 0);
    const struct nbd_server_options of_server = {.listener = eventfd(0, EFD_NONBLOCK)};
    const struct nbd_export_options export = {
        .name = "d", .disk = disk, .bitmaps = names, .bitmap_count = 1, .detect_zeroes = true};
    CHECK(nbd_server_create(&loop, &of_server, &server, &err) == 0);
    CHECK(nbd_server_add(server, &export, &err) == 0);
}

static void drain(int fd)
{
    static char bytes[1 << 20];
    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
}

static void feed(int fd, const uint8_t *data, size_t size)
{
    while (size && server->client_count) {
        ssize_t sent = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            data += sent;
            size -= (size_t)sent;
        }
        loop_run_once(&loop, false);
        drain(fd);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int ends[2];
    if (!server)
        set_up();
    if (!size)
        return 0;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    CHECK(nbd_client_open(server, ends[0]) == 0);
    if (data[0] % 3 == 1)
        feed(ends[1], old_client, sizeof(old_client) - 1);
    if (data[0] % 3 == 2)
        feed(ends[1], modern_client, sizeof(modern_client) - 1);
    feed(ends[1], data + 1, size - 1);
    shutdown(ends[1], SHUT_WR);
    while (server->client_count) {
        loop_run_once(&loop, true);
        drain(ends[1]);
    }
    close(ends[1]);
    return 0;
}
