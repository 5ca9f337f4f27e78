/* SPDX-License-Identifier: MIT */
/* The NBD server under a client written by hand: every message, good and bad, on a real image. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "disk/nbd/nbd_private.h"
#include "tests/unit/test.h"

#define DISK_BYTES  (1u << 20)
#define TURNS_MAX   200000
#define FIXED       (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)
#define RECORDED_AT 131072

struct fixture {
    struct loop loop;
    char path[64];
    struct disk *disk;
    struct nbd_server *server;
    int fd; /* the client's end */
    bool removed, closed;
};

/* --- the machinery --- */

static void turn(struct fixture *fixture)
{
    loop_run_once(&fixture->loop, false);
    usleep(50);
}

/* How many bytes came, up to `bytes`; fewer if the server closed. */
static size_t take(struct fixture *fixture, void *to, size_t bytes)
{
    size_t got = 0;
    for (int turns = 0; got < bytes && turns < TURNS_MAX; turns++) {
        ssize_t now = recv(fixture->fd, (char *)to + got, bytes - got, MSG_DONTWAIT);
        if (!now || (now < 0 && errno != EAGAIN))
            break;
        if (now > 0)
            got += (size_t)now;
        else
            turn(fixture);
    }
    return got;
}

static void put(struct fixture *fixture, const void *from, size_t bytes)
{
    for (size_t sent = 0; sent < bytes;) {
        ssize_t now =
            send(fixture->fd, (const char *)from + sent, bytes - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (now > 0)
            sent += (size_t)now;
        else if (errno == EAGAIN)
            turn(fixture);
        else
            return; /* the server has closed, which the test will see */
    }
}

static void leave(struct fixture *fixture)
{
    close(fixture->fd);
    fixture->fd = -1;
    for (int turns = 0; fixture->server->client_count && turns < TURNS_MAX; turns++)
        turn(fixture);
    assert_int_equal(fixture->server->client_count, 0);
}

static void assert_hung_up(struct fixture *fixture)
{
    uint8_t byte;
    assert_int_equal(take(fixture, &byte, 1), 0);
    leave(fixture);
}

static void connect_client(struct fixture *fixture)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    assert_int_equal(nbd_client_open(fixture->server, ends[0]), 0);
    fixture->fd = ends[1];
}

/* Also sends the client's flags. */
static void greet(struct fixture *fixture, uint32_t flags)
{
    uint8_t hello[18], answer[4];
    connect_client(fixture);
    assert_int_equal(take(fixture, hello, sizeof(hello)), sizeof(hello));
    assert_true(load_be64(hello) == NBD_MAGIC && load_be64(hello + 8) == NBD_OPTION_MAGIC);
    assert_int_equal(load_be16(hello + 16), FIXED);
    store_be32(answer, flags);
    put(fixture, answer, sizeof(answer));
}

static void put_option(struct fixture *fixture, uint32_t option, const void *data, uint32_t bytes)
{
    uint8_t head[16];
    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, option);
    store_be32(head + 12, bytes);
    put(fixture, head, sizeof(head));
    put(fixture, data, bytes);
}

/* The type of the next reply to `option`; its data in `data`. */
static uint32_t take_reply(struct fixture *fixture, uint32_t option, uint8_t *data, uint32_t room,
                           uint32_t *bytes)
{
    uint8_t head[20];
    assert_int_equal(take(fixture, head, sizeof(head)), sizeof(head));
    assert_true(load_be64(head) == NBD_OPTION_REPLY_MAGIC);
    assert_int_equal(load_be32(head + 8), option);
    *bytes = load_be32(head + 16);
    assert_true(*bytes <= room);
    assert_int_equal(take(fixture, data, *bytes), *bytes);
    return load_be32(head + 12);
}

static uint32_t ask(struct fixture *fixture, uint32_t option, const void *data, uint32_t bytes)
{
    uint8_t answer[4096];
    uint32_t length, type;
    put_option(fixture, option, data, bytes);
    do
        type = take_reply(fixture, option, answer, sizeof(answer), &length);
    while (type == NBD_REP_SERVER || type == NBD_REP_INFO || type == NBD_REP_META_CONTEXT);
    return type;
}

/* "name", and nothing else wanted. */
static uint32_t go(struct fixture *fixture, const char *name)
{
    uint8_t data[64];
    uint32_t bytes = (uint32_t)strlen(name);
    store_be32(data, bytes);
    memcpy(data + 4, name, bytes);
    store_be16(data + 4 + bytes, 0);
    return ask(fixture, NBD_OPT_GO, data, bytes + 6);
}

static uint32_t queries(uint8_t *data, const char *name, const char *const *list, uint32_t count)
{
    uint8_t *at = data;
    store_be32(at, (uint32_t)strlen(name));
    memcpy(at + 4, name, strlen(name));
    at += 4 + strlen(name);
    store_be32(at, count);
    at += 4;
    for (uint32_t i = 0; i < count; i++) {
        store_be32(at, (uint32_t)strlen(list[i]));
        memcpy(at + 4, list[i], strlen(list[i]));
        at += 4 + strlen(list[i]);
    }
    return (uint32_t)(at - data);
}

static void enter(struct fixture *fixture, bool structured)
{
    static const char *const contexts[] = {"base:allocation", "qemu:dirty-bitmap:b", "other:x"};
    uint8_t data[256];
    greet(fixture, FIXED);
    if (structured) {
        assert_int_equal(ask(fixture, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
        assert_int_equal(
            ask(fixture, NBD_OPT_SET_META_CONTEXT, data, queries(data, "disk", contexts, 3)),
            NBD_REP_ACK);
    }
    assert_int_equal(go(fixture, "disk"), NBD_REP_ACK);
}

static void put_request(struct fixture *fixture, unsigned command, unsigned flags, uint64_t handle,
                        uint64_t offset, uint32_t bytes)
{
    uint8_t head[28];
    store_be32(head, NBD_REQUEST_MAGIC);
    store_be16(head + 4, (uint16_t)flags);
    store_be16(head + 6, (uint16_t)command);
    store_be64(head + 8, handle);
    store_be64(head + 16, offset);
    store_be32(head + 24, bytes);
    put(fixture, head, sizeof(head));
}

static uint32_t take_simple(struct fixture *fixture, uint64_t handle)
{
    uint8_t head[16];
    assert_int_equal(take(fixture, head, sizeof(head)), sizeof(head));
    assert_int_equal(load_be32(head), NBD_SIMPLE_REPLY_MAGIC);
    assert_true(load_be64(head + 8) == handle);
    return load_be32(head + 4);
}

/* The type of the chunk; what it holds goes to `data`. */
static unsigned take_chunk(struct fixture *fixture, uint64_t handle, bool is_last, uint8_t *data,
                           uint32_t room, uint32_t *bytes)
{
    uint8_t head[20];
    assert_int_equal(take(fixture, head, sizeof(head)), sizeof(head));
    assert_int_equal(load_be32(head), NBD_STRUCTURED_REPLY_MAGIC);
    assert_int_equal(load_be16(head + 4), is_last ? NBD_CHUNK_DONE : 0);
    assert_true(load_be64(head + 8) == handle);
    *bytes = load_be32(head + 16);
    assert_true(*bytes <= room);
    assert_int_equal(take(fixture, data, *bytes), *bytes);
    return load_be16(head + 6);
}

static void write_and_check(struct fixture *fixture, uint64_t offset, uint8_t value, uint32_t bytes)
{
    uint8_t *data = malloc(bytes);
    memset(data, value, bytes);
    put_request(fixture, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 77, offset, bytes);
    put(fixture, data, bytes);
    assert_int_equal(take_simple(fixture, 77), 0);
    free(data);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error err = {0};
    struct dirty_bitmap *bitmap;
    const char *const names[] = {"b"};
    assert_int_equal(loop_init(&fixture->loop), 0);
    snprintf(fixture->path, sizeof(fixture->path), "/tmp/test_nbd.XXXXXX");
    int fd = mkstemp(fixture->path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
    const struct disk_options options = {.path = fixture->path,
                                         .format = "raw",
                                         .discard_unmap = true,
                                         .cache = {.writeback = true}};
    assert_int_equal(disk_open(&fixture->loop, &options, &fixture->disk, &err), 0);
    assert_int_equal(disk_add_bitmap(fixture->disk, "b", 65536, false, &bitmap, &err), 0);
    dirty_bitmap_mark(bitmap, RECORDED_AT, 1);
    /* Nobody connects through the listener here. */
    const struct nbd_server_options server = {.listener = eventfd(0, EFD_NONBLOCK)};
    assert_int_equal(nbd_server_create(&fixture->loop, &server, &fixture->server, &err), 0);
    const struct nbd_export_options export = {.name = "disk",
                                              .description = "for tests",
                                              .disk = fixture->disk,
                                              .bitmaps = names,
                                              .bitmap_count = 1};
    assert_int_equal(nbd_server_add(fixture->server, &export, &err), 0);
    fixture->fd = -1;
    *state = fixture;
    return 0;
}

static void on_flag(void *opaque)
{
    *(bool *)opaque = true;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    nbd_server_close(fixture->server, on_flag, &fixture->closed);
    while (!fixture->closed)
        loop_run_once(&fixture->loop, true);
    assert_int_equal(disk_close_wait(fixture->disk), 0);
    loop_run(&fixture->loop);
    loop_fini(&fixture->loop);
    if (fixture->fd >= 0)
        close(fixture->fd);
    unlink(fixture->path);
    free(fixture);
    return 0;
}

/* --- handshake --- */

static void test_handshake(void **state)
{
    struct fixture *fixture = *state;
    uint8_t data[256];
    uint32_t bytes;
    greet(fixture, FIXED);
    put_option(fixture, NBD_OPT_LIST, NULL, 0);
    assert_int_equal(take_reply(fixture, NBD_OPT_LIST, data, sizeof(data), &bytes), NBD_REP_SERVER);
    assert_int_equal(load_be32(data), 4);
    assert_memory_equal(data + 4, "diskfor tests", 13);
    assert_int_equal(take_reply(fixture, NBD_OPT_LIST, data, sizeof(data), &bytes), NBD_REP_ACK);
    memcpy(data, "\0\0\0\4disk\0\2\0\1\0\2", 14);
    put_option(fixture, NBD_OPT_INFO, data, 14);
    static const unsigned infos[] = {NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE,
                                     NBD_INFO_EXPORT};
    for (size_t i = 0; i < ARRAY_SIZE(infos); i++) {
        assert_int_equal(take_reply(fixture, NBD_OPT_INFO, data, sizeof(data), &bytes),
                         NBD_REP_INFO);
        assert_int_equal(load_be16(data), infos[i]);
    }
    assert_true(load_be64(data + 2) == DISK_BYTES);
    assert_false(load_be16(data + 10) & (NBD_FLAG_SEND_DF | NBD_FLAG_READ_ONLY));
    assert_int_equal(take_reply(fixture, NBD_OPT_INFO, data, sizeof(data), &bytes), NBD_REP_ACK);
    assert_int_equal(go(fixture, "none"), NBD_REP_ERR_UNKNOWN);
    assert_int_equal(ask(fixture, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
    assert_hung_up(fixture);
}

static void test_contexts(void **state)
{
    struct fixture *fixture = *state;
    static const char *const all[] = {"qemu:", "base:"}, *const one[] = {"qemu:dirty-bitmap:b"};
    uint8_t data[256];
    uint32_t bytes, option = NBD_OPT_LIST_META_CONTEXT;
    greet(fixture, FIXED);
    assert_int_equal(ask(fixture, option, data, queries(data, "disk", all, 2)),
                     NBD_REP_ERR_INVALID); /* structured replies come first */
    assert_int_equal(ask(fixture, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
    assert_int_equal(ask(fixture, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ERR_INVALID);
    for (uint32_t count = 0; count <= 2; count += 2) {
        put_option(fixture, option, data, queries(data, "disk", all, count));
        assert_int_equal(take_reply(fixture, option, data, 256, &bytes), NBD_REP_META_CONTEXT);
        assert_memory_equal(data + 4, "base:allocation", 15);
        assert_int_equal(take_reply(fixture, option, data, 256, &bytes), NBD_REP_META_CONTEXT);
        assert_memory_equal(data + 4, "qemu:dirty-bitmap:b", 19);
        assert_int_equal(take_reply(fixture, option, data, 256, &bytes), NBD_REP_ACK);
    }
    assert_int_equal(ask(fixture, option, data, queries(data, "none", all, 2)),
                     NBD_REP_ERR_UNKNOWN);
    option = NBD_OPT_SET_META_CONTEXT;
    put_option(fixture, option, data, queries(data, "disk", one, 1));
    assert_int_equal(take_reply(fixture, option, data, 256, &bytes), NBD_REP_META_CONTEXT);
    assert_int_equal(load_be32(data), 1);
    assert_int_equal(take_reply(fixture, option, data, 256, &bytes), NBD_REP_ACK);
    assert_int_equal(ask(fixture, option, data, queries(data, "disk", one, 1) - 1),
                     NBD_REP_ERR_INVALID);
}

static void test_bad_options(void **state)
{
    struct fixture *fixture = *state;
    static uint8_t long_data[100000];
    greet(fixture, FIXED);
    assert_int_equal(ask(fixture, 4242, "x", 1), NBD_REP_ERR_UNSUP);
    assert_int_equal(ask(fixture, 4242, long_data, sizeof(long_data)), NBD_REP_ERR_TOO_BIG);
    assert_int_equal(ask(fixture, NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(fixture, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_POLICY);
    assert_int_equal(ask(fixture, NBD_OPT_GO, NULL, 0), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(fixture, NBD_OPT_GO, "\0\0\0\4dis", 7), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(fixture, NBD_OPT_GO, "\0\0\0\4disk\0\2\0\1", 12), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(fixture, NBD_OPT_GO, "\xff\xff\xff\xff", 4), NBD_REP_ERR_INVALID);
    put(fixture, "this is no option", 17);
    assert_hung_up(fixture);
    greet(fixture, 0xff); /* unknown flags */
    assert_hung_up(fixture);
    greet(fixture, 0); /* an old client may only name an export */
    put_option(fixture, NBD_OPT_LIST, NULL, 0);
    assert_hung_up(fixture);
}

static void test_old_clients(void **state)
{
    struct fixture *fixture = *state;
    uint8_t data[134], byte;
    greet(fixture, 0);
    put_option(fixture, NBD_OPT_EXPORT_NAME, "disk", 4);
    assert_int_equal(take(fixture, data, sizeof(data)), sizeof(data));
    assert_true(load_be64(data) == DISK_BYTES);
    put_request(fixture, NBD_CMD_READ, 0, 5, 0, 1);
    assert_int_equal(take_simple(fixture, 5), 0);
    assert_int_equal(take(fixture, &byte, 1), 1);
    put_request(fixture, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_hung_up(fixture);
    greet(fixture, FIXED);
    put_option(fixture, NBD_OPT_EXPORT_NAME, "none", 4);
    assert_hung_up(fixture);
}

/* --- transmission --- */

static void test_commands(void **state)
{
    struct fixture *fixture = *state;
    uint8_t data[8192];
    uint32_t bytes;
    enter(fixture, true);
    write_and_check(fixture, 4000, 0x5a, 5000);
    put_request(fixture, NBD_CMD_READ, NBD_CMD_FLAG_DF, 1, 3999, 5002);
    assert_int_equal(take_chunk(fixture, 1, true, data, sizeof(data), &bytes),
                     NBD_CHUNK_OFFSET_DATA);
    assert_true(bytes == 8 + 5002 && load_be64(data) == 3999);
    assert_true(!data[8] && data[9] == 0x5a && data[5008] == 0x5a && !data[5009]);
    put_request(fixture, NBD_CMD_READ, 0, 2, 500000, 4096);
    assert_int_equal(take_chunk(fixture, 2, true, data, sizeof(data), &bytes),
                     NBD_CHUNK_OFFSET_HOLE);
    assert_true(bytes == 12 && load_be32(data + 8) == 4096);
    put_request(fixture, NBD_CMD_READ, 0, 3, DISK_BYTES, 1);
    assert_int_equal(take_chunk(fixture, 3, true, data, sizeof(data), &bytes), NBD_CHUNK_ERROR);
    assert_int_equal(load_be32(data), NBD_EINVAL);
    put_request(fixture, NBD_CMD_READ, 0, 3, 0, 0);
    assert_int_equal(take_chunk(fixture, 3, true, data, sizeof(data), &bytes), NBD_CHUNK_NONE);
    static const unsigned others[] = {NBD_CMD_FLUSH, NBD_CMD_CACHE, NBD_CMD_TRIM,
                                      NBD_CMD_WRITE_ZEROES};
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        put_request(fixture, others[i], 0, i, 4096, others[i] == NBD_CMD_FLUSH ? 0 : 4096);
        assert_int_equal(take_simple(fixture, i), 0);
    }
    put_request(fixture, NBD_CMD_READ, 0, 4, 4096, 4096);
    assert_int_equal(take_chunk(fixture, 4, true, data, sizeof(data), &bytes),
                     NBD_CHUNK_OFFSET_HOLE);
    put_request(fixture, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_hung_up(fixture);
}

static void test_block_status(void **state)
{
    struct fixture *fixture = *state;
    uint8_t data[256];
    uint32_t bytes;
    enter(fixture, true);
    write_and_check(fixture, 4096, 1, 4096); /* marks the bitmap's first granule */
    put_request(fixture, NBD_CMD_BLOCK_STATUS, 0, 9, 0, DISK_BYTES);
    assert_int_equal(take_chunk(fixture, 9, false, data, sizeof(data), &bytes),
                     NBD_CHUNK_BLOCK_STATUS);
    assert_int_equal(load_be32(data), 0);
    uint64_t sum = 0;
    for (uint32_t at = 4; at < bytes; at += 8)
        sum += load_be32(data + at);
    assert_true(sum == DISK_BYTES && (bytes - 4) % 8 == 0);
    assert_int_equal(take_chunk(fixture, 9, true, data, sizeof(data), &bytes),
                     NBD_CHUNK_BLOCK_STATUS);
    static const uint32_t expected[] = {65536, 1, 65536, 0, 65536, 1, DISK_BYTES - 3 * 65536, 0};
    assert_int_equal(load_be32(data), 1);
    assert_int_equal(bytes, 4 + sizeof(expected));
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
        assert_int_equal(load_be32(data + 4 + 4 * i), expected[i]);
    put_request(fixture, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 10, RECORDED_AT, 100000);
    take_chunk(fixture, 10, false, data, sizeof(data), &bytes);
    assert_int_equal(bytes, 12);
    take_chunk(fixture, 10, true, data, sizeof(data), &bytes);
    assert_true(bytes == 12 && load_be32(data + 4) == 65536 && load_be32(data + 8) == 1);
}

static void test_bad_requests(void **state)
{
    static const struct {
        unsigned command, flags;
        uint64_t offset;
        uint32_t bytes;
        unsigned error;
    } bad[] = {
        {NBD_CMD_READ, 0, DISK_BYTES, 1, NBD_EINVAL},
        {NBD_CMD_READ, 0, UINT64_MAX, 2, NBD_EINVAL},
        {NBD_CMD_READ, 0, 0, NBD_REQUEST_BYTES_MAX + 1, NBD_EINVAL},
        {NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512, NBD_EINVAL}, /* not negotiated */
        {NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL},
        {NBD_CMD_TRIM, 0, DISK_BYTES - 1, 2, NBD_EINVAL},
        {NBD_CMD_WRITE_ZEROES, 0, DISK_BYTES, 1, NBD_ENOSPC},
        {NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 512, NBD_ENOTSUP},
        {NBD_CMD_CACHE, 0, 0, UINT32_MAX, NBD_EINVAL},
        {NBD_CMD_FLUSH, 1 << 12, 0, 0, NBD_EINVAL},
        {NBD_CMD_BLOCK_STATUS, 0, 0, 512, NBD_EINVAL},
        {99, 0, 0, 0, NBD_EINVAL},
    };
    struct fixture *fixture = *state;
    static uint8_t payload[70000];
    enter(fixture, false);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        put_request(fixture, bad[i].command, bad[i].flags, i, bad[i].offset, bad[i].bytes);
        assert_int_equal(take_simple(fixture, i), bad[i].error);
    }
    /* What belongs to a write that is refused is no request. */
    memset(payload, 0xee, sizeof(payload));
    put_request(fixture, NBD_CMD_WRITE, 0, 50, DISK_BYTES - 1, sizeof(payload));
    put(fixture, payload, sizeof(payload));
    assert_int_equal(take_simple(fixture, 50), NBD_ENOSPC);
    put_request(fixture, NBD_CMD_FLUSH, 0, 51, 0, 0);
    assert_int_equal(take_simple(fixture, 51), 0);
    put(fixture, payload, NBD_REQUEST_BYTES);
    assert_hung_up(fixture);
}

static void test_byte_by_byte(void **state)
{
    struct fixture *fixture = *state;
    uint8_t head[28 + 3] = {0}, data[3];
    enter(fixture, false);
    store_be32(head, NBD_REQUEST_MAGIC);
    store_be16(head + 6, NBD_CMD_WRITE);
    store_be32(head + 24, 3);
    memcpy(head + 28, "abc", 3);
    for (size_t i = 0; i < sizeof(head); i++) {
        put(fixture, head + i, 1);
        turn(fixture);
    }
    assert_int_equal(take_simple(fixture, 0), 0);
    put_request(fixture, NBD_CMD_READ, 0, 1, 0, 3);
    assert_int_equal(take_simple(fixture, 1), 0);
    assert_int_equal(take(fixture, data, 3), 3);
    assert_memory_equal(data, "abc", 3);
}

/* More than there are slots and memory for: it is read only as far as it can be answered. */
static void test_many_in_flight(void **state)
{
    struct fixture *fixture = *state;
    enum { COUNT = 1000, BYTES = 524288 };
    uint8_t *data = malloc(BYTES), seen[COUNT] = {0}, requests[COUNT][28] = {{0}};
    enter(fixture, false);
    for (uint64_t i = 0; i < COUNT; i++) {
        store_be32(requests[i], NBD_REQUEST_MAGIC);
        store_be64(requests[i] + 8, i);
        store_be32(requests[i] + 24, BYTES);
    }
    put(fixture, requests, sizeof(requests));
    const struct nbd_client *client =
        list_entry(fixture->server->clients.next, struct nbd_client, node);
    for (int i = 0; i < COUNT; i++) {
        uint8_t head[16];
        assert_int_equal(take(fixture, head, sizeof(head)), sizeof(head));
        uint64_t handle = load_be64(head + 8);
        assert_true(handle < COUNT && !seen[handle]++ && !load_be32(head + 4));
        assert_int_equal(take(fixture, data, BYTES), BYTES);
        assert_true(client->buffer_bytes <= NBD_CLIENT_BUFFER_BYTES);
    }
    free(data);
}

static void test_gone_in_the_middle(void **state)
{
    struct fixture *fixture = *state;
    uint8_t byte = 1;
    enter(fixture, false);
    put_request(fixture, NBD_CMD_WRITE, 0, 1, 0, 4096);
    put(fixture, &byte, 1);
    for (int i = 0; i < 10; i++)
        turn(fixture);
    leave(fixture);
    enter(fixture, false); /* leaves while it is owed a lot */
    for (int i = 0; i < 60; i++)
        put_request(fixture, NBD_CMD_READ, 0, 1, 0, DISK_BYTES);
    turn(fixture);
    leave(fixture);
    enter(fixture, false);
    put_request(fixture, NBD_CMD_READ, 0, 2, 0, 1);
    assert_int_equal(take_simple(fixture, 2), 0);
    assert_int_equal(take(fixture, &byte, 1), 1);
    assert_int_equal(byte, 0); /* half a write is none */
}

static void test_remove(void **state)
{
    struct fixture *fixture = *state;
    struct error err = {0};
    enter(fixture, false);
    put_request(fixture, NBD_CMD_READ, 0, 2, 0, 65536);
    turn(fixture);
    assert_int_equal(nbd_server_remove(fixture->server, "x", true, NULL, NULL, &err), -ENOENT);
    assert_int_equal(nbd_server_remove(fixture->server, "disk", false, NULL, NULL, NULL), -EBUSY);
    assert_int_equal(
        nbd_server_remove(fixture->server, "disk", true, on_flag, &fixture->removed, NULL), 0);
    assert_false(fixture->removed);
    for (int turns = 0; !fixture->removed && turns < TURNS_MAX; turns++)
        turn(fixture);
    assert_true(fixture->removed);
    close(fixture->fd);
    greet(fixture, FIXED);
    assert_int_equal(go(fixture, "disk"), NBD_REP_ERR_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_handshake, setup, teardown),
        cmocka_unit_test_setup_teardown(test_contexts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_options, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_block_status, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_byte_by_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone_in_the_middle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remove, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
