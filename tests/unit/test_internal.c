/* SPDX-License-Identifier: MIT */
/* Several members of one internal network in one loop, and a stranger who throws in rubbish. */
#include "netbackends/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "netbackends/packet.h"
#include "netbackends/socket_address.h"
#include "tests/fake_nic.h"
#include "tests/frames.h"
#include "tests/unit/test.h"

enum { MEMBERS = 8, HEADER = 24 };
#define ALL_OFFLOADS (NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN)

static struct loop loop;
static struct fake_nic nics[MEMBERS];
static char folder[] = "/tmp/evisor-net-XXXXXX";
static uint8_t frame[70000];

static unsigned count_files(void)
{
    unsigned count = 0;
    DIR *open = opendir(folder);
    for (struct dirent *entry; (entry = readdir(open));)
        count += entry->d_name[0] != '.';
    closedir(open);
    return count;
}

static int set_up(void **state)
{
    (void)state;
    memcpy(strrchr(folder, '-') + 1, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 3 + i / 256);
    return loop_init(&loop);
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MEMBERS; i++)
        fake_nic_close(&nics[i]);
    loop_fini(&loop);
    assert_int_equal(rmdir(folder), 0); /* cleaned up */
    return 0;
}

static void join(unsigned member)
{
    char name[16];
    struct error err = {0};
    struct net_backend *net;
    snprintf(name, sizeof(name), "vm%u", member);
    const struct net_internal_options options = {.folder = folder, .name = name};
    if (net_internal_create(&loop, name, &options, &net, &err))
        fail_msg("%s", err.text);
    fake_nic_attach(&nics[member], net);
}

static void join_many(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        join(i);
    fake_nic_run_ms(&loop, 5);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(net_internal_peer_count(nics[i].net), count - 1);
}

static void set_addresses(int target, unsigned source)
{
    memset(frame, 0, 12);
    if (target < 0)
        memset(frame, 255, 6);
    frame[0] |= 2;
    frame[5] = target < 0 ? 255 : (uint8_t)target;
    frame[6] = 2;
    frame[11] = (uint8_t)source;
}

/* `target` -1 is everybody. */
static int send_frame(unsigned from, int target, size_t length)
{
    set_addresses(target, from);
    return fake_nic_send(&nics[from], frame, length);
}

static void expect(unsigned at, size_t length)
{
    const struct fake_frame *got = fake_nic_next(&nics[at]);
    assert_int_equal(got->length, length);
    assert_memory_equal(got->bytes, frame, length);
}

static size_t unread(unsigned member)
{
    return nics[member].count - nics[member].read;
}

/* Everybody hears everybody once. */
static void introduce(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(send_frame(i, -1, 60), 0);
        for (unsigned other = 0; other < count; other++)
            if (other != i)
                expect(other, 60);
    }
}

static void test_members_find_each_other_and_learn(void **state)
{
    (void)state;
    join_many(3);
    assert_int_equal(count_files(), 3);
    assert_int_equal(send_frame(0, 1, 100), 0); /* not heard of yet: to all */
    expect(1, 100);
    expect(2, 100);
    introduce(3);
    for (size_t length = 14; length <= 65562; length = length * 3 + 1) {
        assert_int_equal(send_frame(0, 1, length), 0);
        expect(1, length);
        assert_int_equal(send_frame(1, 0, length), 0);
        expect(0, length);
    }
    fake_nic_run_ms(&loop, 2);
    assert_int_equal(unread(2), 0);
}

static void test_members_come_and_go(void **state)
{
    (void)state;
    join_many(2);
    introduce(2);
    for (int i = 0; i < 3; i++) {
        join(2);
        fake_nic_run_ms(&loop, 5);
        introduce(3);
        fake_nic_close(&nics[2]);
        assert_int_equal(send_frame(0, 2, 100), 0); /* it moved: to all again */
        expect(1, 100);
        fake_nic_run_ms(&loop, 5);
        assert_int_equal(net_internal_peer_count(nics[0].net), 1);
    }
}

static void test_what_a_dead_process_left_is_removed(void **state)
{
    (void)state;
    char path[100], other[100];
    struct error err = {0};
    struct socket_address address;
    snprintf(path, sizeof(path), "%s/00000000deadbeef-dead.evnet", folder);
    snprintf(other, sizeof(other), "%s/notes.txt", folder);
    const struct net_socket_address where = {.path = path};
    assert_int_equal(socket_address_resolve(&where, &address, &err), 0);
    close(socket_address_bind(&address, SOCK_DGRAM, &err));
    close(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    join_many(2);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(unlink(other), 0); /* what is none of ours was left alone */
}

static struct frames_buffer large;

static void make_large(struct net_meta *meta)
{
    const struct frames_flow flow = {.source_mac = {2},
                                     .target_mac = {255, 255, 255, 255, 255, 255},
                                     .source = FRAMES_IPV4(192, 0, 2, 1),
                                     .target = FRAMES_IPV4(192, 0, 2, 2),
                                     .source_port = 1000,
                                     .target_port = 2000};
    frames_tcp(&large, &flow, TCP_ACK, 1, 1, frame, 30000);
    store_be16(large.bytes + 50, 0);
    *meta = (struct net_meta){NET_NEEDS_CSUM, NET_GSO_TCPV4, 54, 1460, 34, 16};
}

static void test_each_member_gets_what_it_takes(void **state)
{
    (void)state;
    struct net_meta meta;
    join_many(4);
    net_set_guest_offloads(nics[1].net, ALL_OFFLOADS);
    net_set_guest_offloads(nics[2].net, NET_OFFLOAD_CSUM);
    make_large(&meta);
    const struct iovec iov[] = {{large.bytes, 20}, {large.bytes + 20, large.length - 20}};
    assert_int_equal(net_send(nics[0].net, &meta, iov, 2), 0);
    const struct fake_frame *whole = fake_nic_next(&nics[1]);
    assert_int_equal(whole->length, large.length);
    assert_memory_equal(&whole->meta, &meta, sizeof(meta));
    for (unsigned member = 2; member < 4; member++) {
        for (size_t total = 0; total < 30000;) {
            const struct fake_frame *piece = fake_nic_next(&nics[member]);
            assert_int_equal(piece->meta.gso_type, 0);
            assert_true(piece->length <= 54 + 1460);
            assert_true(frames_are_checksums_right(piece->bytes, piece->length));
            assert_memory_equal(piece->bytes + 54, frame + total, piece->length - 54);
            total += piece->length - 54;
        }
    }
    meta.gso_type = 0;
    meta.gso_size = 0;
    large.length = 54 + 100;
    large.bytes[16] = 0;
    large.bytes[17] = 140;
    frames_fix_checksums(&large);
    store_be16(large.bytes + 50, 0);
    const struct iovec small = {large.bytes, large.length};
    assert_int_equal(net_send(nics[0].net, &meta, &small, 1), 0);
    assert_int_equal(fake_nic_next(&nics[1])->meta.flags, NET_NEEDS_CSUM);
    const struct fake_frame *finished = fake_nic_next(&nics[3]);
    assert_int_equal(finished->meta.flags, 0);
    assert_true(frames_are_checksums_right(finished->bytes, finished->length));
}

/* One member of eight reads nothing any more, as if stopped by SIGSTOP. */
static void test_a_stopped_member_does_not_hold_up_the_others(void **state)
{
    (void)state;
    unsigned sent = 0, waited = 0;
    join_many(MEMBERS);
    introduce(MEMBERS);
    nics[7].is_full = true;
    for (int result = 0; result != -ETIMEDOUT;) { /* waited for, but not forever */
        result = send_frame(0, 7, 9000);
        sent += result == 0;
        waited += result == -EAGAIN;
        assert_true(sent < 1000 && waited < 100000);
        if (result == -EAGAIN) {
            assert_int_equal(send_frame(0, 1, 100), 0);
            expect(1, 100);
            fake_nic_run_ms(&loop, 1);
        }
    }
    assert_true(sent > 0 && waited > 0 && nics[0].send_ready > 0);
    assert_int_equal(send_frame(0, 7, 9000), -ETIMEDOUT);
    assert_int_equal(send_frame(0, -1, 60), 0);
    for (unsigned i = 1; i < 7; i++)
        expect(i, 60);
    struct pollfd ready = {.fd = uv_backend_fd(&loop.uv), .events = POLLIN};
    fake_nic_run_ms(&loop, 2);
    assert_int_equal(poll(&ready, 1, 0), 0);
    fake_nic_make_room(&nics[7]);
    set_addresses(7, 0);
    for (unsigned i = 0; i < sent; i++) /* none of those that were accepted is lost */
        expect(7, 9000);
    fake_nic_run_ms(&loop, 2);
    assert_int_equal(send_frame(0, 7, 200), 0);
    expect(7, 200);
    nics[7].is_full = true; /* and it is waited for again */
    for (int result = 0; result != -EAGAIN;) {
        result = send_frame(0, 7, 9000);
        assert_true(result == 0 || result == -EAGAIN);
    }
    assert_int_equal(send_frame(0, 7, 9000), -EAGAIN);
}

static void test_a_full_guest_is_waited_for(void **state)
{
    (void)state;
    join_many(2);
    introduce(2);
    nics[1].is_full = true;
    for (int i = 0; i < 5; i++)
        assert_int_equal(send_frame(0, 1, 1514), 0);
    fake_nic_run_ms(&loop, 5);
    assert_int_equal(nics[1].refused, 1);
    fake_nic_make_room(&nics[1]);
    for (int i = 0; i < 5; i++)
        expect(1, 1514);
}

static int stranger(struct socket_address *member)
{
    struct error err = {0};
    char path[300] = "";
    DIR *open = opendir(folder);
    for (struct dirent *entry; (entry = readdir(open));)
        if (strstr(entry->d_name, "vm0"))
            snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
    closedir(open);
    const struct net_socket_address where = {.path = path};
    assert_int_equal(socket_address_resolve(&where, member, &err), 0);
    return socket_address_open(member, SOCK_DGRAM);
}

/* Throws a datagram at member 0; true if its guest got a frame from it. */
static bool throw(int fd, const struct socket_address *to, const void *datagram, size_t length)
{
    size_t before = nics[0].count;
    uint64_t dropped = nics[0].net->stats.rx_dropped;
    assert_int_equal(sendto(fd, datagram, length, 0, &to->at.any, to->length), length);
    while (nics[0].count == before && nics[0].net->stats.rx_dropped == dropped)
        fake_nic_run_ms(&loop, 1);
    return nics[0].count > before;
}

static void test_rubbish_is_dropped(void **state)
{
    (void)state;
    struct socket_address to;
    static uint8_t datagram[HEADER + 65563] = {'E', 'V', 'N', '1', 1, 2, 3};
    static const struct {
        size_t at;
        uint8_t value;
    } breaks[] = {
        {0, 'X'},          /* magic */
        {12, 1},           /* a checksum in the middle of the frame's addresses is fine, but ... */
        {13, 3},           /* UDP segmentation */
        {13, 1},           /* segmentation without size and checksum */
        {13, NET_GSO_ECN}, /* of nothing */
        {13, 200},         /* unknown */
    };
    join(0);
    int fd = stranger(&to);
    memcpy(datagram + HEADER, frame, 100);
    net_set_guest_offloads(nics[0].net, ALL_OFFLOADS);
    datagram[12] = NET_DATA_VALID; /* who says so? */
    assert_true(throw(fd, &to, datagram, HEADER + 14));
    assert_int_equal(nics[0].frames[0].meta.flags, 0);
    for (size_t length = 1; length < HEADER + 14; length++)
        assert_false(throw(fd, &to, datagram, length));
    assert_true(throw(fd, &to, datagram, HEADER + 65562));
    assert_false(throw(fd, &to, datagram, HEADER + 65563));
    for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
        uint8_t broken[HEADER + 100];
        memcpy(broken, datagram, sizeof(broken));
        broken[breaks[i].at] = breaks[i].value;
        if (breaks[i].at == 12)
            store_be16(broken + 18, 99); /* ... not beyond its end */
        if (throw(fd, &to, broken, sizeof(broken)))
            fail_msg("break %zu came through", i);
    }
    close(fd);
}

/* A member's queue holds ten datagrams; small frames need fewer than that, and stay in order. */
static void test_small_frames_leave_together(void **state)
{
    enum { FRAMES = 300 };
    (void)state;
    join_many(3);
    introduce(3);
    for (unsigned i = 0; i < FRAMES; i++) {
        frame[20] = (uint8_t)i;
        assert_int_equal(send_frame(0, i % 100 == 50 ? 2 : 1, i % 100 == 99 ? 9000 : 60 + i), 0);
    }
    nics[1].is_full = true; /* what one datagram brought waits as one frame does */
    fake_nic_run_ms(&loop, 5);
    fake_nic_make_room(&nics[1]);
    for (unsigned i = 0; i < FRAMES; i++) {
        bool is_for_2 = i % 100 == 50;
        frame[20] = (uint8_t)i;
        set_addresses(is_for_2 ? 2 : 1, 0);
        expect(is_for_2 ? 2 : 1, i % 100 == 99 ? 9000 : 60 + i);
    }
    assert_int_equal(nics[0].net->stats.tx_dropped + nics[1].net->stats.rx_dropped, 0);
}

static void test_lengths_that_lie_are_dropped(void **state)
{
    (void)state;
    struct socket_address to;
    uint8_t datagram[2 * (HEADER + 60)] = {'E', 'V', 'N', '1', 1, 2, 3};
    static const uint16_t lies[] = {1, 13, 61 + HEADER + 60, UINT16_MAX};
    join(0);
    int fd = stranger(&to);
    memcpy(datagram + HEADER + 60, datagram, HEADER);
    store_be16(datagram + 22, 60);
    assert_true(throw(fd, &to, datagram, sizeof(datagram)));
    fake_nic_run_ms(&loop, 2);
    assert_int_equal(nics[0].count, 2);
    assert_int_equal(nics[0].frames[0].length + nics[0].frames[1].length, 120);
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        store_be16(datagram + 22, lies[i]);
        assert_false(throw(fd, &to, datagram, sizeof(datagram)));
    }
    /* A first frame counts although the second is cut short, without its header, or rubbish. */
    store_be16(datagram + 22, 60);
    for (size_t cut = 1; cut < HEADER + 14; cut++) {
        size_t before = nics[0].count;
        uint64_t dropped = nics[0].net->stats.rx_dropped;
        throw(fd, &to, datagram, HEADER + 60 + cut);
        fake_nic_run_ms(&loop, 1);
        assert_int_equal(nics[0].count, before + 1);
        assert_int_equal(nics[0].net->stats.rx_dropped, dropped + 1);
    }
    close(fd);
}

/* What the process said on its standard error while `speak` ran. */
static void listen_to_log(void (*speak)(void), char *text, size_t size)
{
    int ends[2], kept = dup(STDERR_FILENO);
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    dup2(ends[1], STDERR_FILENO);
    speak();
    dup2(kept, STDERR_FILENO);
    ssize_t length = read(ends[0], text, size - 1);
    text[length > 0 ? length : 0] = '\0';
    close(ends[0]);
    close(ends[1]);
    close(kept);
}

/* Member 1 with the address of member 0, again and again. */
static void send_with_foreign_address(void)
{
    for (int i = 0; i < 5; i++) {
        set_addresses(-1, 0);
        assert_int_equal(fake_nic_send(&nics[1], frame, 60), 0);
        expect(0, 60);
    }
}

static void test_two_machines_with_one_address_hear_of_it(void **state)
{
    (void)state;
    char text[1000];
    join_many(2);
    assert_int_equal(send_frame(0, -1, 60), 0);
    expect(1, 60);
    listen_to_log(send_with_foreign_address, text, sizeof(text));
    assert_non_null(strstr(text, "netdev 'vm0': another machine on '/tmp/"));
    assert_non_null(strstr(text, "has the address 02:00:00:00:00:00 too: give each its own mac="));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* one line */
    assert_int_equal(send_frame(0, 1, 60), 0);
    expect(1, 60);
}

static void check_error(const char *where, const char *text)
{
    struct error err = {0};
    struct net_backend *net;
    const struct net_internal_options options = {.folder = where};
    assert_true(net_internal_create(&loop, "net9", &options, &net, &err) < 0);
    if (!strstr(err.text, text) || strncmp(err.text, "netdev 'net9': ", 15))
        fail_msg("'%s' is not in '%s'", text, err.text);
}

static void test_errors_say_what_to_do(void **state)
{
    (void)state;
    check_error("/dev/null", "is not a folder");
    check_error("/nowhere/at/all", "cannot make the folder");
}

static void test_the_folder_is_made_for_its_owner(void **state)
{
    (void)state;
    struct stat info;
    assert_int_equal(rmdir(folder), 0);
    join(0);
    assert_int_equal(stat(folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
}

/* Longer than the path of a socket may be. */
static void test_the_folder_may_lie_deep(void **state)
{
    (void)state;
    char deep[200];
    struct error err = {0};
    struct net_backend *net;
    snprintf(deep, sizeof(deep), "%s/%0*d", folder, 150, 0);
    for (unsigned i = 0; i < 2; i++) {
        const struct net_internal_options options = {.folder = deep, .name = "a/../b"};
        assert_int_equal(net_internal_create(&loop, "net0", &options, &net, &err), 0);
        fake_nic_attach(&nics[i], net);
    }
    fake_nic_run_ms(&loop, 5);
    introduce(2);
    fake_nic_close(&nics[0]);
    fake_nic_close(&nics[1]);
    assert_int_equal(rmdir(deep), 0);
}

static void test_runts_and_giants_are_not_sent(void **state)
{
    (void)state;
    join(0);
    assert_int_equal(send_frame(0, -1, 13), -EMSGSIZE);
    assert_int_equal(send_frame(0, -1, 65563), -EMSGSIZE);
    assert_int_equal(send_frame(0, -1, 60), 0); /* into the void */
}

#define internal_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        internal_test(test_members_find_each_other_and_learn),
        internal_test(test_members_come_and_go),
        internal_test(test_what_a_dead_process_left_is_removed),
        internal_test(test_each_member_gets_what_it_takes),
        internal_test(test_a_stopped_member_does_not_hold_up_the_others),
        internal_test(test_a_full_guest_is_waited_for),
        internal_test(test_rubbish_is_dropped),
        internal_test(test_small_frames_leave_together),
        internal_test(test_lengths_that_lie_are_dropped),
        internal_test(test_two_machines_with_one_address_hear_of_it),
        internal_test(test_errors_say_what_to_do),
        internal_test(test_the_folder_is_made_for_its_owner),
        internal_test(test_the_folder_may_lie_deep),
        internal_test(test_runts_and_giants_are_not_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
