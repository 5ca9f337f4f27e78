/* SPDX-License-Identifier: MIT */
/* Large frames read straight into the guest's buffers: what a backend does with receive_begin. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "devices/virtio_net.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/test.h"

enum { RX, TX, CTRL, HEADER = 12, FRAME = 20000, BUFFER = 4096 };
#define MAC "\x52\x54\x00\x12\x34\x56"
#define TSO (VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4))
#define MRG VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF)

static struct fake_guest guest;
static struct device *nic;
static struct fake_device fd;
static struct fake_queue rx;
static struct net_backend backend;
static unsigned observed;
static uint8_t frame[FRAME];
static const struct net_meta large = {.flags = NET_NEEDS_CSUM,
                                      .gso_type = NET_GSO_TCPV4,
                                      .hdr_len = 54,
                                      .gso_size = 1448,
                                      .csum_start = 34,
                                      .csum_offset = 16};

static unsigned on_offloads(const struct net_backend *self)
{
    (void)self;
    return NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4;
}

static void on_resume(struct net_backend *self)
{
    (void)self;
}

static const struct net_backend_ops backend_ops = {
    .kind = "fake", .offloads = on_offloads, .receive_resume = on_resume};

static void on_frame(struct net_observer *observer, bool is_sent, const struct iovec *iov,
                     size_t iov_count)
{
    (void)observer;
    assert_false(is_sent);
    assert_int_equal(iov_count, 1);
    assert_memory_equal(iov->iov_base, frame, NET_HEAD_BYTES);
    observed++;
}

static struct net_observer observer = {.on_frame = on_frame};

static int set_up(void **state)
{
    struct virtio_net_options options = {0};
    struct error err = {0};
    (void)state;
    observed = 0;
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)(i * 7 + i / 251);
    memcpy(frame, MAC, 6);
    fake_guest_init(&guest);
    net_backend_init(&backend, &backend_ops, &guest.loop, "net0");
    backend.observer = &observer;
    memcpy(options.mac, MAC, 6);
    const struct virtio_pci_place place = fake_guest_place(&guest, "nic0");
    assert_int_equal(virtio_net_create(&place, &backend, &options, &nic, &err), 0);
    fake_device_probe(&fd, &guest, nic);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_guest_close(&guest, nic);
    fake_guest_fini(&guest);
    return 0;
}

static void start(uint64_t features)
{
    assert_true(fake_device_negotiate(&fd, features | VIRTIO_FEATURE(VIRTIO_F_VERSION_1)));
    fake_queue_init(&rx, &fd, RX, 64);
    fake_device_driver_ok(&fd);
    fake_guest_run(&guest, 2);
}

static void offer(unsigned count, uint32_t bytes)
{
    for (unsigned i = 0; i < count; i++) {
        const struct fake_buffer buffer = {fake_guest_alloc(&guest, bytes), bytes, true};
        fake_queue_add(&rx, &buffer, 1);
    }
    fake_queue_kick(&rx);
    fake_guest_run(&guest, 2);
}

/* As a backend's read does: the head stays here, the rest goes to the room. */
static void begin(size_t bytes, struct net_room *room)
{
    assert_int_equal(net_receive_begin(&backend, room), 0);
    assert_true(NET_HEAD_BYTES + room->bytes >= bytes);
    assert_int_equal(iov_size(room->iov, room->iov_count), room->bytes);
    size_t rest = bytes - NET_HEAD_BYTES;
    assert_int_equal(iov_write(room->iov, room->iov_count, 0, frame + NET_HEAD_BYTES, rest), rest);
}

/* The next frame in the used ring lies there whole, over `chains` buffers. */
static void check_frame(size_t bytes, unsigned chains)
{
    static uint8_t seen[HEADER + FRAME];
    size_t at = 0;
    fake_guest_run(&guest, 1);
    for (unsigned i = 0; i < chains; i++) {
        uint32_t head, length;
        assert_true(fake_queue_used(&rx, &head, &length));
        uint64_t gpa = load_le64(fake_guest_at(&guest, rx.desc + 16u * head, 16));
        assert_true(at + length <= sizeof(seen));
        memcpy(seen + at, fake_guest_at(&guest, gpa, length), length);
        assert_true(fake_guest_was_written(&guest, gpa, length));
        at += length;
    }
    assert_int_equal(at, HEADER + bytes);
    assert_int_equal(load_le16(seen + 10), chains);
    assert_memory_equal(seen + HEADER, frame, bytes);
}

static void test_a_frame_goes_into_merged_buffers(void **state)
{
    struct net_room room;
    (void)state;
    start(MRG | TSO);
    offer(32, BUFFER);
    begin(FRAME, &room);
    net_receive_end(&backend, &large, frame, FRAME);
    net_receive_release(&backend);
    check_frame(FRAME, 5);
    assert_int_equal(backend.stats.rx_frames, 1);
    assert_int_equal(backend.stats.rx_bytes, FRAME);
    assert_int_equal(observed, 1);
    assert_true(virtio_is_idle(&container_of(nic, struct virtio_pci, pci.device)->virtio));
}

static void test_room_serves_frame_after_frame(void **state)
{
    struct net_room room;
    const struct iovec small = {frame, 600};
    (void)state;
    start(MRG | TSO);
    offer(32, BUFFER);
    for (int i = 0; i < 3; i++) {
        begin(FRAME, &room);
        net_receive_end(&backend, &large, frame, FRAME);
        assert_int_equal(net_receive(&backend, NULL, &small, 1), 0);
    }
    net_receive_release(&backend);
    for (int i = 0; i < 3; i++) {
        check_frame(FRAME, 5);
        check_frame(600, 1);
    }
    /* What was given back serves who does not know of it. */
    assert_int_equal(net_receive(&backend, NULL, &small, 1), 0);
    check_frame(600, 1);
}

static void test_many_laps_of_the_ring(void **state)
{
    struct net_room room;
    (void)state;
    start(MRG | TSO);
    offer(40, BUFFER);
    for (int lap = 0; lap < 50; lap++) {
        for (int i = 0; i < 6; i++) {
            begin(FRAME, &room);
            net_receive_end(&backend, &large, frame, FRAME);
        }
        net_receive_release(&backend);
        for (int i = 0; i < 6; i++)
            check_frame(FRAME, 5);
        for (uint16_t i = 0; i < 30; i++)
            fake_queue_offer(&rx, (uint16_t)((lap * 30 + i) % 40));
        fake_queue_kick(&rx);
        fake_guest_run(&guest, 2);
    }
}

static void test_scarce_buffers_give_little_room_or_none(void **state)
{
    struct net_room room;
    (void)state;
    start(MRG | TSO);
    assert_int_equal(net_receive_begin(&backend, &room), -EAGAIN);
    offer(1, 1000); /* not even the head */
    assert_int_equal(net_receive_begin(&backend, &room), -EAGAIN);
    offer(1, BUFFER);
    assert_int_equal(net_receive_begin(&backend, &room), 0);
    assert_int_equal(room.bytes, 1000 + BUFFER - HEADER - NET_HEAD_BYTES);
    net_receive_release(&backend);
    assert_true(virtio_is_idle(&container_of(nic, struct virtio_pci, pci.device)->virtio));
}

static void test_without_merging_one_buffer_is_the_room(void **state)
{
    struct net_room room;
    (void)state;
    start(TSO);
    offer(4, FRAME + HEADER);
    begin(FRAME, &room);
    assert_int_equal(room.bytes, FRAME - NET_HEAD_BYTES);
    net_receive_end(&backend, &large, frame, FRAME);
    net_receive_release(&backend);
    check_frame(FRAME, 1);
}

static void test_what_was_only_written_is_told_and_used_again(void **state)
{
    struct net_room room;
    (void)state;
    start(MRG | TSO);
    offer(8, BUFFER);
    begin(FRAME, &room);
    uint64_t gpa = load_le64(fake_guest_at(&guest, rx.desc, 16));
    fake_guest_forget_written(&guest);
    net_receive_end(&backend, NULL, NULL, FRAME);
    assert_true(fake_guest_was_written(&guest, gpa, BUFFER));
    assert_int_equal(backend.stats.rx_frames + backend.stats.rx_dropped + observed, 0);
    begin(FRAME, &room);
    net_receive_end(&backend, &large, frame, FRAME);
    net_receive_release(&backend);
    check_frame(FRAME, 5);
}

static void test_frames_that_the_guest_does_not_take(void **state)
{
    struct net_room room;
    (void)state;
    start(MRG | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM));
    offer(8, BUFFER);
    begin(5000, &room);
    net_receive_end(&backend, &large, frame, 5000); /* TSO was not taken */
    assert_int_equal(backend.stats.rx_dropped, 1);
    memcpy(frame, "\x52\x54\x00\x99\x99\x99", 6);
    net_receive_release(&backend);
    fake_guest_run(&guest, 2);
    assert_int_equal(fake_queue_used_index(&rx), 0);
    assert_int_equal(observed, 0);
}

static void test_no_room_before_the_driver_with_the_link_down_or_held(void **state)
{
    struct net_room room;
    (void)state;
    assert_int_equal(net_receive_begin(&backend, &room), -ENETDOWN);
    start(MRG | TSO);
    offer(8, BUFFER);
    net_hold(&backend, true);
    assert_int_equal(net_receive_begin(&backend, &room), -EAGAIN);
    net_hold(&backend, false);
    net_set_link(&backend, false);
    assert_int_equal(net_receive_begin(&backend, &room), -ENETDOWN);
}

static void test_a_readable_buffer_breaks_the_queue_and_nothing_stays(void **state)
{
    struct net_room room;
    (void)state;
    start(MRG | TSO);
    offer(2, BUFFER);
    const struct fake_buffer readable = {fake_guest_alloc(&guest, BUFFER), BUFFER, false};
    fake_queue_add(&rx, &readable, 1);
    assert_int_equal(net_receive_begin(&backend, &room), -EAGAIN);
    net_receive_release(&backend);
    assert_true(fake_device_status(&fd) & VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_int_equal(net_receive_begin(&backend, &room), -ENETDOWN);
    fake_device_reset(&fd);
}

static unsigned small_mtu(const struct net_backend *self)
{
    (void)self;
    return 1500;
}

static void test_an_mtu_that_the_backend_does_not_carry(void **state)
{
    static const struct net_backend_ops small = {.kind = "small", .mtu = small_mtu};
    const struct virtio_pci_place place = fake_guest_place(&guest, "nic1");
    struct virtio_net_options options = {.mac = {2}, .mtu = 9000};
    struct net_backend other;
    struct device *made = NULL;
    struct error err = {0};
    (void)state;
    net_backend_init(&other, &small, &guest.loop, "net1");
    assert_int_equal(virtio_net_create(&place, &other, &options, &made, &err), -EINVAL);
    assert_non_null(strstr(err.text, "net1"));
    assert_non_null(strstr(err.text, "host_mtu=9000"));
    assert_non_null(strstr(err.text, "1500"));
    options.mtu = 1500;
    assert_int_equal(virtio_net_create(&place, &other, &options, &made, &err), 0);
    fake_guest_close(&guest, made);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_frame_goes_into_merged_buffers),
        TEST(test_room_serves_frame_after_frame),
        TEST(test_many_laps_of_the_ring),
        TEST(test_scarce_buffers_give_little_room_or_none),
        TEST(test_without_merging_one_buffer_is_the_room),
        TEST(test_what_was_only_written_is_told_and_used_again),
        TEST(test_frames_that_the_guest_does_not_take),
        TEST(test_no_room_before_the_driver_with_the_link_down_or_held),
        TEST(test_an_mtu_that_the_backend_does_not_carry),
        TEST(test_a_readable_buffer_breaks_the_queue_and_nothing_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
