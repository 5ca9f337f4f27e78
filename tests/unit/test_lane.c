/* SPDX-License-Identifier: MIT */
/*
 * A lane between a socket, a guest's TCP that loses frames, shuts its window and has no buffers at
 * times, and a libslirp of a few lines that must never see a byte of what the host sends.
 */
#include "netbackends/lane.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "netbackends/offload.h"
#include "tests/frames.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

enum { ISS = 0xfffff000, TOTAL_MAX = 3 << 20, ANSWERS_MAX = 8192 };
enum { ALL = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 };

struct world {
    struct lane_set set;
    struct frames_flow flow; /* from the guest */
    struct random random;
    uint64_t now_ns;
    unsigned shift, mss;
    unsigned lost_percent, full_percent, shut_percent;
    uint32_t window; /* the guest's, in bytes */
    int host_fd, lane_fd;
    uint8_t *sent, *got;
    size_t total, written;
    /* The guest. */
    uint32_t next, edge; /* and how far it has ever let the sender go */
    bool is_ended, is_shut;
    unsigned frames, repeated;
    uint32_t answers[ANSWERS_MAX]; /* on their way, which they do while nothing is pumped */
    size_t answer_count;
    /* libslirp. */
    uint32_t acked, uploaded; /* what it acknowledged itself */
    bool sent_fin;
};

static struct world *world;
static struct frames_buffer frame;

static uint32_t base(void)
{
    return (uint32_t)ISS + 1;
}

static bool chance(unsigned percent)
{
    return random_below(&world->random, 100) < percent;
}

/* The guest speaks, and libslirp hears what the lanes leave of it. */

static void guest_says(uint8_t flags, const void *data, size_t length)
{
    struct packet packet;
    size_t payload;
    uint32_t window = world->is_shut ? 0 : world->window >> world->shift;
    frames_tcp(&frame, &world->flow, flags, 5000, flags & TCP_SYN ? 0 : world->next, data, length);
    if (flags & TCP_SYN) { /* scale, instead of MSS */
        const uint8_t scale[] = {1, 3, 3, (uint8_t)world->shift};
        memcpy(frame.bytes + frame.length - 4, scale, 4);
        window = 0xffff;
    }
    window = MIN(window, 0xffff);
    store_be16(frame.bytes + (world->flow.is_ipv6 ? 54 : 34) + 14, (uint16_t)window);
    if (flags == TCP_ACK && (int32_t)(world->next + (window << world->shift) - world->edge) > 0)
        world->edge = world->next + (window << world->shift);
    frames_fix_checksums(&frame);
    assert_true(packet_parse_ip(frame.bytes, frame.length, &packet));
    assert_true(packet_parse_tcp(frame.bytes, &packet, &payload));
    bool is_for_libslirp =
        lanes_from_guest(&world->set, frame.bytes, &packet, payload, world->now_ns);
    assert_true(is_for_libslirp || (flags == TCP_ACK && !length));
    if (!is_for_libslirp)
        return;
    assert_true(frames_are_checksums_right(frame.bytes, frame.length));
    if (flags & TCP_SYN)
        lanes_on_fd(&world->set, world->lane_fd);
    lanes_taken(&world->set);
    if (flags & TCP_ACK)
        world->acked = load_be32(frame.bytes + packet.transport + 8);
    /* No more than its SYN and its FIN. */
    if (flags & TCP_ACK)
        assert_in_range(world->acked - base(), 0, world->sent_fin);
}

/* The guest hears: in order, else it repeats what it has. */

static void take_piece(const uint8_t *bytes, size_t length)
{
    struct packet packet;
    size_t payload;
    assert_true(packet_parse_ip(bytes, length, &packet));
    assert_true(packet_parse_tcp(bytes, &packet, &payload));
    assert_true(frames_are_checksums_right(bytes, length));
    assert_true(packet.end - payload <= world->mss);
    uint32_t sequence = load_be32(bytes + packet.transport + 4);
    size_t data_bytes = packet.end - payload, at = sequence - base();
    assert_true(at + data_bytes <= world->total);
    assert_memory_equal(bytes + payload, world->sent + at, data_bytes);
    assert_int_equal(load_be32(bytes + packet.transport + 8), world->uploaded);
    /* A window that is shut is probed by one byte. */
    assert_true((int32_t)(world->edge - sequence - data_bytes) >= 0 || data_bytes <= 1);
    if (sequence == world->next && !world->is_ended && !world->is_shut) {
        memcpy(world->got + at, bytes + payload, data_bytes);
        world->next += (uint32_t)data_bytes;
        if (bytes[packet.transport + 13] & TCP_FIN) {
            assert_int_equal(world->next - base(), world->total);
            world->next++;
            world->is_ended = true;
        }
    } else {
        world->repeated++;
    }
}

static void answer_later(void)
{
    assert_true(world->answer_count < ANSWERS_MAX);
    world->answers[world->answer_count++] = world->next;
}

static void answer_now(void)
{
    const uint32_t newest = world->next;
    if (chance(world->lost_percent))
        world->answer_count = 0;
    for (size_t i = 0; i < world->answer_count; i++) {
        world->next = world->answers[i];
        guest_says(TCP_ACK, NULL, 0);
    }
    world->next = newest;
    world->answer_count = 0;
}

static int on_cut(void *opaque, uint8_t *bytes, size_t length)
{
    (void)opaque;
    take_piece(bytes, length);
    return 0;
}

static int on_emit(void *opaque, const struct net_meta *meta, const struct iovec *iov,
                   size_t iov_count)
{
    static uint8_t whole[OFFLOAD_SEGMENT_ROOM], room[OFFLOAD_SEGMENT_ROOM];
    (void)opaque;
    if (chance(world->full_percent))
        return -EAGAIN;
    world->frames++;
    if (chance(world->lost_percent))
        return 0;
    size_t length = iov_read(iov, iov_count, 0, whole, sizeof(whole));
    assert_int_equal(length, iov_size(iov, iov_count));
    if (world->set.offloads & NET_OFFLOAD_CSUM)
        assert_true(offload_check_meta(meta, length, world->set.offloads));
    else
        assert_int_equal(meta->flags, 0);
    if (meta->gso_type) {
        assert_true(meta->gso_size == world->mss);
        assert_int_equal(offload_segment(meta, whole, length, room, on_cut, NULL), 0);
    } else {
        assert_int_equal(offload_finish_checksum(meta, whole, length), 0);
        take_piece(whole, length);
    }
    answer_later();
    return 0;
}

/* libslirp speaks. */

/* Whether the guest may hear it. */
static bool libslirp_says(uint8_t flags, uint32_t sequence)
{
    struct frames_flow back = world->flow;
    struct packet packet;
    back.source = world->flow.target;
    back.target = world->flow.source;
    back.source_port = world->flow.target_port;
    back.target_port = world->flow.source_port;
    frames_tcp(&frame, &back, flags, sequence, world->uploaded, NULL, 0);
    assert_true(packet_parse_ip(frame.bytes, frame.length, &packet));
    assert_true(lanes_know(&world->set, frame.bytes, &packet));
    bool result = lanes_to_guest(&world->set, frame.bytes, &frame.length, &packet, world->mss);
    assert_true(frames_are_checksums_right(frame.bytes, frame.length));
    return result;
}

static void open_world(unsigned seed, size_t total)
{
    int ends[2], size = 1 << 18;
    world = calloc(1, sizeof(*world));
    world->flow = (struct frames_flow){
        .source_mac = FRAMES_GUEST_MAC,
        .target_mac = {0x52, 0x55, 10, 0, 2, 2},
        .source = FRAMES_IPV4(10, 0, 2, 15),
        .target = FRAMES_IPV4(192, 0, 2, 1),
        .source_port = 40000,
        .target_port = 80,
    };
    world->random.state = seed;
    world->set.offloads = ALL;
    world->mss = 1460;
    world->shift = 7;
    world->window = 1 << 20;
    world->uploaded = 5001;
    world->now_ns = 1000000;
    world->total = total;
    world->sent = malloc(total + 1);
    world->got = malloc(total + 1);
    for (size_t i = 0; i < total; i++)
        world->sent[i] = (uint8_t)(i * 31 + i / 253);
    assert_int_equal(lanes_init(&world->set), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    world->host_fd = ends[0];
    world->lane_fd = ends[1];
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static int tear_down(void **state)
{
    (void)state;
    if (world->host_fd >= 0)
        close(world->host_fd);
    close(world->lane_fd);
    lanes_fini(&world->set);
    free(world->sent);
    free(world->got);
    free(world);
    return 0;
}

static void shake_hands(void)
{
    guest_says(TCP_SYN, NULL, 0);
    assert_int_equal(world->set.count, 1);
    assert_true(libslirp_says(TCP_SYN | TCP_ACK, (uint32_t)ISS));
    world->next = world->edge = base();
    guest_says(TCP_ACK, NULL, 0);
    assert_int_equal(world->acked, base());
}

static void host_writes(void)
{
    if (world->host_fd < 0)
        return;
    while (world->written < world->total) {
        size_t wish = 1 + random_below(&world->random, 90000);
        size_t some = MIN(world->total - world->written, wish);
        ssize_t done = write(world->host_fd, world->sent + world->written, some);
        if (done < 0)
            return;
        world->written += (size_t)done;
        if (chance(30))
            return;
    }
    close(world->host_fd);
    world->host_fd = -1;
}

/* libslirp looks at the socket, as at all that are ready: it may read nothing but the end. */
static void libslirp_polls(void)
{
    uint8_t byte;
    uint32_t asked = EPOLLIN | EPOLLPRI | EPOLLERR | EPOLLHUP;
    if (!lanes_wanted(&world->set, world->lane_fd, asked) ||
        !(lanes_ready(&world->set, world->lane_fd, EPOLLIN) & EPOLLIN))
        return;
    assert_int_equal(recv(world->lane_fd, &byte, 1, MSG_DONTWAIT), 0);
    assert_true(libslirp_says(TCP_FIN | TCP_ACK, base()));
    assert_int_equal(load_be32(frame.bytes + (world->flow.is_ipv6 ? 54 : 34) + 4),
                     base() + (uint32_t)world->total);
    world->sent_fin = true;
    if (chance(world->lost_percent))
        return;
    world->frames++;
    take_piece(frame.bytes, frame.length);
    guest_says(TCP_ACK, NULL, 0);
}

static void one_round(void)
{
    host_writes();
    if (chance(10) && !world->sent_fin) {
        world->uploaded++;
        assert_true(libslirp_says(TCP_ACK, base()));
    }
    libslirp_polls();
    world->is_shut = chance(world->shut_percent);
    bool has_more =
        lanes_pump(&world->set, world->now_ns, chance(world->full_percent) ? NULL : on_emit, NULL);
    answer_now();
    world->now_ns += 1000;
    if (chance(5)) /* the window opens, or nothing */
        guest_says(TCP_ACK, NULL, 0);
    uint64_t deadline_ns = lanes_deadline(&world->set);
    if (!has_more && deadline_ns != UINT64_MAX && chance(20))
        world->now_ns = MAX(world->now_ns, deadline_ns);
    if (deadline_ns <= world->now_ns)
        lanes_expire(&world->set, world->now_ns);
}

static void transfer(void)
{
    shake_hands();
    for (unsigned i = 0; !(world->is_ended && world->acked == base() + 1); i++) {
        if (i > 2000000)
            fail_msg("%zu of %zu bytes came", (size_t)(world->next - base()), world->total);
        one_round();
    }
    assert_memory_equal(world->got, world->sent, world->total);
    assert_int_equal(world->set.lanes[0].held, 0);
    lanes_on_fd_closed(&world->set, world->lane_fd);
    assert_int_equal(world->set.count, 0);
}

static void test_a_good_wire(void **state)
{
    (void)state;
    for (int is_ipv6 = 0; is_ipv6 < 2; is_ipv6++) {
        open_world(1, TOTAL_MAX);
        world->flow.is_ipv6 = is_ipv6;
        transfer();
        assert_int_equal(world->repeated, 0);
        assert_true(world->frames < 400); /* large ones */
        tear_down(NULL);
    }
    open_world(1, 10);
}

static void test_without_offloads(void **state)
{
    (void)state;
    const unsigned weak[] = {0, NET_OFFLOAD_CSUM, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO6};
    for (size_t i = 0; i < ARRAY_SIZE(weak); i++) {
        open_world(2, 300000);
        world->set.offloads = weak[i];
        transfer();
        assert_int_equal(world->repeated, 0);
        tear_down(NULL);
    }
    open_world(1, 10);
}

/* The SYN's answer says that windows are scaled only to who asked for it. */
static void test_scale(void **state)
{
    (void)state;
    open_world(3, 1000);
    shake_hands();
    assert_true(libslirp_says(TCP_SYN | TCP_ACK, (uint32_t)ISS));
    const uint8_t scale[] = {1, 3, 3, 0};
    assert_memory_equal(frame.bytes + frame.length - 4, scale, 4);
    assert_int_equal(frame.bytes[34 + 12] >> 4, 7);
    assert_int_equal(load_be16(frame.bytes + 16), frame.length - 14);
}

static void test_all_that_can_go_wrong(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 120; seed++) {
        open_world(seed, seed % 7 ? 20000 + seed * 9000 : seed % 3);
        world->flow.is_ipv6 = seed & 1;
        world->shift = seed % 5 * 3;
        world->window = seed % 4 ? 0xffff << (seed % 5 * 3) : 3000 << (seed % 5 * 3);
        world->mss = seed % 6 ? 1400 : 88;
        world->lost_percent = seed % 8 * 2;
        world->full_percent = seed % 3 * 30;
        world->shut_percent = seed % 2 * 30;
        if (seed % 5 == 4)
            world->set.offloads = 0;
        transfer();
        tear_down(NULL);
    }
    open_world(1, 10);
}

/* libslirp ends it by itself, for it cannot write: what the host had sent comes first. */
static void test_an_early_end_waits(void **state)
{
    (void)state;
    open_world(8, 200000);
    world->window = 20000;
    shake_hands();
    host_writes();
    libslirp_polls();
    lanes_pump(&world->set, world->now_ns, on_emit, NULL);
    assert_false(libslirp_says(TCP_FIN | TCP_ACK, base()));
    assert_true(libslirp_says(TCP_ACK, base() + 1));
    answer_now();
    while (!world->sent_fin)
        one_round();
    assert_int_equal(world->next - base(), world->total + 1);
    assert_memory_equal(world->got, world->sent, world->total);
}

/* Three that say the same, and the frame they miss comes at once: nobody waits for the clock. */
static void test_duplicates_bring_the_lost_frame(void **state)
{
    (void)state;
    open_world(4, 20 * 1460);
    world->set.offloads = 0;
    shake_hands();
    host_writes();
    while (world->written < world->total)
        host_writes();
    libslirp_polls();
    lanes_pump(&world->set, world->now_ns, NULL, NULL); /* only reads */
    world->next--; /* as if the first frame began elsewhere: the guest misses it */
    lanes_pump(&world->set, world->now_ns, on_emit, NULL);
    world->next++;
    world->answer_count = 0;
    assert_int_equal(world->repeated, world->frames);
    for (unsigned i = 0; i < 3; i++) {
        unsigned before = world->frames;
        lanes_pump(&world->set, world->now_ns, on_emit, NULL);
        assert_int_equal(world->frames, before);
        guest_says(TCP_ACK, NULL, 0);
    }
    lanes_pump(&world->set, world->now_ns, on_emit, NULL);
    assert_int_equal(world->next - base(), 1460);
}

/* The guest acknowledges what it never got, or nothing of sense. */
static void test_hostile_acknowledgements(void **state)
{
    (void)state;
    open_world(5, 200000);
    world->window = 65535;
    world->shift = 0;
    world->lost_percent = 100;
    shake_hands();
    host_writes();
    libslirp_polls();
    lanes_pump(&world->set, world->now_ns, on_emit, NULL);
    const struct lane *lane = &world->set.lanes[0];
    const uint32_t una = lane->una;
    for (unsigned i = 0; i < 100000; i++) {
        uint32_t sent = lane->max - lane->una;
        world->next = una + (uint32_t)random_next(&world->random);
        world->sent_fin = true; /* whatever is acknowledged, libslirp judges by itself */
        struct packet packet;
        size_t payload;
        if (world->next - lane->una <= sent)
            continue;
        frames_tcp(&frame, &world->flow, TCP_ACK, 5000, world->next, NULL, 0);
        assert_true(packet_parse_ip(frame.bytes, frame.length, &packet));
        assert_true(packet_parse_tcp(frame.bytes, &packet, &payload));
        lanes_from_guest(&world->set, frame.bytes, &packet, payload, world->now_ns);
        assert_true(frames_are_checksums_right(frame.bytes, frame.length));
        assert_int_equal(lane->una, una);
    }
}

/* The guest has it all: libslirp hears so, however often the numbers went round. */
static void test_the_end_of_a_very_long_text(void **state)
{
    (void)state;
    for (uint32_t gib = 1; gib < 8; gib++) {
        struct packet packet;
        size_t payload;
        open_world(6, 1000);
        shake_hands();
        struct lane *lane = &world->set.lanes[0];
        for (unsigned i = 0; i < 1000 && lane->state != LANE_RELEASED; i++) {
            host_writes();
            lanes_ready(&world->set, world->lane_fd, EPOLLIN);
            lanes_pump(&world->set, world->now_ns, on_emit, NULL);
        }
        assert_int_equal(lane->state, LANE_RELEASED);
        lane->base -= gib << 30; /* as if so much had gone before */
        assert_true(libslirp_says(TCP_FIN | TCP_ACK, lane->base));
        assert_int_equal(load_be32(frame.bytes + 38), lane->max);
        frames_tcp(&frame, &world->flow, TCP_ACK, 5000, lane->max + 1, NULL, 0);
        assert_true(packet_parse_ip(frame.bytes, frame.length, &packet));
        assert_true(packet_parse_tcp(frame.bytes, &packet, &payload));
        assert_true(lanes_from_guest(&world->set, frame.bytes, &packet, payload, world->now_ns));
        assert_int_equal(load_be32(frame.bytes + packet.transport + 8), lane->base + 1);
        assert_true(frames_are_checksums_right(frame.bytes, frame.length));
        if (gib < 7)
            tear_down(NULL);
    }
}

/* A cable that is out for minutes ends nothing. */
static void test_a_guest_that_comes_back(void **state)
{
    (void)state;
    open_world(7, 300000);
    shake_hands();
    world->lost_percent = 100;
    const uint64_t back_ns = world->now_ns + UINT64_C(300) * 1000000000;
    while (world->now_ns < back_ns)
        one_round();
    world->lost_percent = 0;
    for (unsigned i = 0; i < 100000 && !world->is_ended; i++)
        one_round();
    assert_true(world->is_ended);
    assert_memory_equal(world->got, world->sent, world->total);
}

static void use_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
    close(world->lane_fd);
    close(world->host_fd);
    world->host_fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    world->lane_fd = fd;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    close(listener);
}

/* A guest that never answers does not hold the host's end for ever; one that is paused does. */
static void test_a_dead_guest_is_given_up(void **state)
{
    (void)state;
    for (int is_paused = 0; is_paused < 2; is_paused++) {
        open_world(6, TOTAL_MAX);
        use_tcp();
        world->lost_percent = 100;
        shake_hands();
        host_writes();
        libslirp_polls();
        lanes_pump(&world->set, world->now_ns, on_emit, NULL);
        for (unsigned i = 0; i < 100 && lanes_deadline(&world->set) != UINT64_MAX; i++) {
            world->now_ns = lanes_deadline(&world->set);
            lanes_expire(&world->set, world->now_ns);
            lanes_pump(&world->set, world->now_ns, is_paused ? NULL : on_emit, NULL);
        }
        bool is_over = lanes_deadline(&world->set) == UINT64_MAX;
        assert_int_equal(is_over, !is_paused);
        uint32_t seen = lanes_ready(&world->set, world->lane_fd, EPOLLIN);
        assert_int_equal(seen, is_paused ? 0 : EPOLLIN);
        char byte;
        if (!is_paused) { /* both hear a reset, and no end */
            assert_int_equal(recv(world->lane_fd, &byte, 1, MSG_DONTWAIT), -1);
            assert_int_equal(errno, ECONNRESET);
            assert_int_equal(recv(world->host_fd, &byte, 1, MSG_DONTWAIT), -1);
            assert_int_equal(errno, ECONNRESET);
        }
        tear_down(NULL);
    }
    open_world(1, 10);
}

/* More connections than lanes: the rest is libslirp's alone. */
static void test_lanes_run_out(void **state)
{
    (void)state;
    int fds[LANES_MAX + 1];
    open_world(7, 10);
    for (int i = 0; i <= LANES_MAX; i++) {
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        world->lane_fd = fds[i];
        world->flow.source_port++;
        guest_says(TCP_SYN, NULL, 0);
        assert_int_equal(world->set.count, MIN(i + 1, LANES_MAX));
    }
    assert_int_equal(lanes_wanted(&world->set, fds[LANES_MAX], EPOLLIN | EPOLLPRI),
                     EPOLLIN | EPOLLPRI);
    lanes_on_fd_closed(&world->set, fds[3]);
    assert_int_equal(world->set.count, LANES_MAX - 1);
    world->flow.source_port++;
    guest_says(TCP_SYN, NULL, 0);
    assert_int_equal(world->set.count, LANES_MAX);
    for (int i = 0; i < LANES_MAX; i++)
        close(fds[i]);
    world->lane_fd = fds[LANES_MAX];
}

static size_t resident_pages(void)
{
    unsigned char pages[LANE_RING_BYTES / 4096];
    size_t count = 0;
    assert_int_equal(mincore(world->set.rings, LANE_RING_BYTES, pages), 0);
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
        count += pages[i] & 1;
    return count;
}

/* Few pages stay behind what was delivered, and behind what a guest left in the ring. */
static void test_pages_are_given_back(void **state)
{
    (void)state;
    for (int is_taken = 0; is_taken < 2; is_taken++) {
        open_world(9, TOTAL_MAX);
        world->window = is_taken ? 1 << 20 : 0;
        shake_hands();
        while (is_taken ? !world->is_ended : resident_pages() < 100)
            one_round();
        if (!is_taken)
            lanes_on_fd_closed(&world->set, world->lane_fd);
        assert_true(resident_pages() <= 16);
        tear_down(NULL);
    }
    open_world(1, 10);
}

#define lane_test(function) cmocka_unit_test_teardown(function, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        lane_test(test_a_good_wire),
        lane_test(test_without_offloads),
        lane_test(test_scale),
        lane_test(test_all_that_can_go_wrong),
        lane_test(test_an_early_end_waits),
        lane_test(test_duplicates_bring_the_lost_frame),
        lane_test(test_hostile_acknowledgements),
        lane_test(test_the_end_of_a_very_long_text),
        lane_test(test_a_guest_that_comes_back),
        lane_test(test_a_dead_guest_is_given_up),
        lane_test(test_lanes_run_out),
        lane_test(test_pages_are_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
