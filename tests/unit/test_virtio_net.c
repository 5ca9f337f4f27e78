/* SPDX-License-Identifier: MIT */
/* The NIC between a fake driver and a fake backend. */
#include "devices/virtio_net.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/test.h"

enum { RX, TX, CTRL };
enum { HEADER = 12, ALL_OFFLOADS = 15 };
#define MAC "\x52\x54\x00\x12\x34\x56"
#define V1  VIRTIO_FEATURE(VIRTIO_F_VERSION_1)

static struct fake_guest guest;
static struct device *nic;
static struct fake_device fd;
static struct fake_queue queues[3];

/* The backend: keeps the last frame, answers what it is told to. */
static struct fake_net {
    struct net_backend backend;
    int answer;
    unsigned sent, resumed;
    struct net_meta meta;
    size_t length;
    uint8_t frame[70000];
    unsigned has_offloads, guest_offloads;
} net;

static int on_send(struct net_backend *backend, const struct net_meta *meta,
                   const struct iovec *iov, size_t iov_count)
{
    (void)backend;
    if (!net.answer) {
        net.sent++;
        net.meta = *meta;
        net.length = iov_size(iov, iov_count);
        iov_read(iov, iov_count, 0, net.frame, sizeof(net.frame));
    }
    return net.answer;
}

static void on_receive_resume(struct net_backend *backend)
{
    (void)backend;
    net.resumed++;
}

static unsigned on_offloads(const struct net_backend *backend)
{
    (void)backend;
    return net.has_offloads;
}

static void on_guest_offloads(struct net_backend *backend, unsigned offloads)
{
    (void)backend;
    net.guest_offloads = offloads;
}

static const struct net_backend_ops net_ops = {.kind = "fake",
                                               .send = on_send,
                                               .receive_resume = on_receive_resume,
                                               .offloads = on_offloads,
                                               .set_guest_offloads = on_guest_offloads};

static uint64_t features_off;
static unsigned changes; /* of the filter, as told */

static void count(void *counter, struct device *device)
{
    *(unsigned *)counter += device == nic;
}

static void plug(unsigned offloads, uint16_t mtu)
{
    struct virtio_net_options options = {
        .mtu = mtu, .features_off = features_off, .on_filter_changed = count, .opaque = &changes};
    struct error err = {0};
    memcpy(options.mac, MAC, 6);
    memset(&net, 0, sizeof(net));
    net_backend_init(&net.backend, &net_ops, &guest.loop, "net0");
    net.has_offloads = offloads;
    const struct virtio_pci_place place = fake_guest_place(&guest, "nic0");
    assert_int_equal(virtio_net_create(&place, &net.backend, &options, &nic, &err), 0);
    fake_device_probe(&fd, &guest, nic);
}

static void start_queues(uint64_t features, uint16_t size)
{
    assert_true(fake_device_negotiate(&fd, features | V1));
    for (unsigned i = 0; i < ARRAY_SIZE(queues); i++)
        fake_queue_init(&queues[i], &fd, i, size);
    fake_device_driver_ok(&fd);
    fake_guest_run(&guest, 2);
}

static int set_up(void **state)
{
    (void)state;
    fake_guest_init(&guest);
    plug(ALL_OFFLOADS, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_guest_close(&guest, nic);
    assert_null(net.backend.peer);
    fake_guest_fini(&guest);
    return 0;
}

static bool is_broken(void)
{
    fake_guest_run(&guest, 2);
    return fake_device_status(&fd) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static uint64_t put(const void *bytes, size_t length)
{
    uint64_t gpa = fake_guest_alloc(&guest, length + !length);
    if (length)
        memcpy(fake_guest_at(&guest, gpa, length), bytes, length);
    return gpa;
}

static void make_frame(uint8_t *frame, size_t length)
{
    for (size_t i = 0; i < length; i++)
        frame[i] = (uint8_t)(i * 5 + i / 256);
    memcpy(frame, MAC, MIN(length, 6));
}

/* Transmits header and frame, cut into pieces of `piece` bytes (0: two pieces). */
static void transmit(const uint8_t header[HEADER], size_t length, size_t piece)
{
    static uint8_t bytes[HEADER + 70000];
    struct fake_buffer buffers[40];
    unsigned count = 0;
    memcpy(bytes, header, HEADER);
    make_frame(bytes + HEADER, length);
    uint64_t gpa = put(bytes, HEADER + length);
    size_t end = HEADER + length;
    for (size_t at = 0; at < end;) {
        size_t here = piece ? piece : at ? end - at : HEADER;
        here = MIN(here, end - at);
        assert_true(count < ARRAY_SIZE(buffers));
        buffers[count++] = (struct fake_buffer){gpa + at, (uint32_t)here, false};
        at += here;
    }
    fake_queue_add(&queues[TX], buffers, count);
    fake_queue_kick(&queues[TX]);
}

static void check_sent(size_t length)
{
    uint8_t expected[2000];
    make_frame(expected, MIN(length, sizeof(expected)));
    assert_int_equal(net.length, length);
    assert_memory_equal(net.frame, expected, MIN(length, sizeof(expected)));
}

static const uint8_t plain[HEADER];

static void test_features_follow_the_backend(void **state)
{
    (void)state;
    const uint64_t checksum =
        VIRTIO_FEATURE(VIRTIO_NET_F_CSUM) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM);
    const uint64_t segmentation =
        VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO4) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4);
    uint64_t features = fake_device_features(&fd);
    assert_int_equal(features & (checksum | segmentation), checksum | segmentation);
    assert_false(features & VIRTIO_FEATURE(VIRTIO_NET_F_MTU));
    fake_guest_close(&guest, nic);
    plug(0, 9000);
    features = fake_device_features(&fd);
    assert_int_equal(
        features & (checksum | segmentation | VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)), 0);
    assert_true(features & VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF));
    assert_true(features & VIRTIO_FEATURE(VIRTIO_NET_F_MTU));
    assert_int_equal(fake_guest_read(&guest, fd.config + 10, 2), 9000);
    fake_guest_close(&guest, nic);
    plug(NET_OFFLOAD_CSUM, 0);
    assert_int_equal(fake_device_features(&fd) & (checksum | segmentation), checksum);
}

/* Nor what is of no use without it. */
static void test_a_feature_that_is_off_is_not_offered(void **state)
{
    (void)state;
    const uint64_t all = fake_device_features(&fd);
    const uint64_t gone = UINT64_C(7) << VIRTIO_NET_F_HOST_TSO4 | VIRTIO_FEATURE(VIRTIO_NET_F_CSUM);
    fake_guest_close(&guest, nic);
    features_off = VIRTIO_FEATURE(VIRTIO_NET_F_CSUM);
    plug(ALL_OFFLOADS, 0);
    features_off = 0;
    assert_int_equal(all & gone, gone);
    assert_int_equal(fake_device_features(&fd), all & ~gone);
}

static void test_dependent_features_are_refused_alone(void **state)
{
    (void)state;
    static const unsigned alone[] = {
        VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,    VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,  VIRTIO_NET_F_GUEST_ECN,     VIRTIO_NET_F_HOST_ECN,
        VIRTIO_NET_F_CTRL_RX,    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VLAN,
    };
    for (size_t i = 0; i < ARRAY_SIZE(alone); i++)
        assert_false(fake_device_negotiate(&fd, V1 | VIRTIO_FEATURE(alone[i])));
    assert_true(fake_device_negotiate(&fd, fake_device_features(&fd)));
}

static void test_config_shows_mac_and_link(void **state)
{
    (void)state;
    start_queues(0, 0);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(fake_guest_read(&guest, fd.config + i, 1), (uint8_t)MAC[i]);
    assert_int_equal(fake_guest_read(&guest, fd.config + 6, 2), VIRTIO_NET_S_LINK_UP);
    unsigned before = guest.irq.sent[0];
    net_set_link(&net.backend, false);
    assert_int_equal(fake_guest_read(&guest, fd.config + 6, 2), 0);
    net_set_link(&net.backend, true);
    assert_int_equal(fake_guest_read(&guest, fd.config + 6, 2), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(guest.irq.sent[0], before + 2);
}

static void test_transmit_in_any_framing(void **state)
{
    (void)state;
    static const size_t pieces[] = {0, 5000, 1, 5, 11, 12, 13, 26};
    start_queues(0, 0);
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        size_t length = pieces[i] == 1 ? 20 : 100;
        uint32_t bytes;
        transmit(plain, length, pieces[i]);
        fake_queue_wait(&queues[TX], &bytes);
        assert_int_equal(bytes, 0);
        assert_int_equal(net.sent, i + 1);
        check_sent(length);
    }
    assert_int_equal(net.backend.stats.tx_frames, ARRAY_SIZE(pieces));
    assert_false(is_broken());
}

static void test_transmit_with_offloads(void **state)
{
    (void)state;
    const uint8_t header[HEADER] = {NET_NEEDS_CSUM, NET_GSO_TCPV4, 54, 0, 0xb4, 5, 34, 0, 16, 0};
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_CSUM) | VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO4), 0);
    transmit(header, 60000, 0);
    fake_queue_wait(&queues[TX], NULL);
    check_sent(60000);
    const struct net_meta expected = {NET_NEEDS_CSUM, NET_GSO_TCPV4, 54, 1460, 34, 16};
    assert_memory_equal(&net.meta, &expected, sizeof(expected));
}

/* Each is dropped and counted, and the NIC works on. */
static void test_hostile_transmit_headers_are_dropped(void **state)
{
    (void)state;
    static const struct {
        uint8_t header[HEADER];
        size_t length;
    } cases[] = {
        {{0}, 13},                                      /* runt */
        {{0}, NET_FRAME_MAX + 1},                       /* too large */
        {{1, 0, 0, 0, 0, 0, 255, 255, 255, 255}, 100},  /* checksum far off */
        {{1, 0, 0, 0, 0, 0, 99, 0, 0, 0}, 100},         /* and by one byte */
        {{1, 4, 54, 0, 0xb4, 5, 34, 0, 16, 0}, 100},    /* TSO6: not chosen */
        {{1, 3, 54, 0, 0xb4, 5, 34, 0, 16, 0}, 100},    /* UFO */
        {{1, 0x81, 54, 0, 0xb4, 5, 34, 0, 16, 0}, 100}, /* ECN: not chosen */
        {{1, 77, 54, 0, 0xb4, 5, 34, 0, 16, 0}, 100},   /* unknown */
        {{1, 1, 54, 0, 0, 0, 34, 0, 16, 0}, 100},       /* segments of 0 */
        {{0, 1, 54, 0, 0xb4, 5, 0, 0, 0, 0}, 100},      /* TSO, no checksum */
        {{1, 1, 255, 255, 0xb4, 5, 34, 0, 16, 0}, 100}, /* headers past end */
    };
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_CSUM) | VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO4), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        transmit(cases[i].header, cases[i].length, 0);
        fake_queue_wait(&queues[TX], NULL);
        if (net.sent)
            fail_msg("case %zu was sent", i);
        assert_int_equal(net.backend.stats.tx_dropped, i + 1);
    }
    assert_false(is_broken());
    transmit(plain, 60, 0);
    fake_queue_wait(&queues[TX], NULL);
    assert_int_equal(net.sent, 1);
}

static void test_a_full_backend_is_waited_for(void **state)
{
    (void)state;
    uint32_t head;
    start_queues(0, 0);
    net.answer = -EAGAIN;
    transmit(plain, 60, 0);
    transmit(plain, 70, 0);
    fake_guest_run(&guest, 5);
    assert_false(fake_queue_used(&queues[TX], &head, NULL));
    net.answer = 0;
    net.backend.peer_ops->on_send_ready(net.backend.peer);
    fake_queue_wait(&queues[TX], NULL);
    fake_queue_wait(&queues[TX], NULL);
    assert_int_equal(net.sent, 2);
    check_sent(70);
    assert_int_equal(net.backend.stats.tx_dropped, 0);
}

static void test_a_frame_that_the_backend_refuses_is_used_up(void **state)
{
    (void)state;
    start_queues(0, 0);
    net.answer = -EPERM;
    transmit(plain, 60, 0);
    fake_queue_wait(&queues[TX], NULL);
    assert_int_equal(net.backend.stats.tx_dropped, 1);
}

static void test_many_frames_are_sent_over_several_turns(void **state)
{
    (void)state;
    const uint64_t gpa = fake_guest_alloc(&guest, 72);
    start_queues(0, 0);
    unsigned size = queues[TX].size;
    for (unsigned i = 0; i < size; i++)
        fake_queue_add(&queues[TX], &(struct fake_buffer){gpa, 72, false}, 1);
    fake_queue_kick(&queues[TX]);
    for (unsigned i = 0; i < size; i++)
        fake_queue_wait(&queues[TX], NULL);
    assert_int_equal(net.sent, size);
    assert_in_range(guest.irq.sent[TX + 1], 1, 2);
}

/* A megabyte a turn, then the rest of the machine has its turn; nothing is forgotten. */
static void test_large_frames_are_sent_over_several_turns(void **state)
{
    (void)state;
    const uint64_t gpa = fake_guest_alloc(&guest, 60012);
    start_queues(0, 0);
    for (unsigned i = 0; i < 100; i++)
        fake_queue_add(&queues[TX], &(struct fake_buffer){gpa, 60012, false}, 1);
    fake_queue_kick(&queues[TX]);
    fake_guest_run(&guest, 3);
    assert_in_range(net.sent, 17, 60);
    for (unsigned i = 0; i < 100; i++)
        fake_queue_wait(&queues[TX], NULL);
    assert_int_equal(net.sent, 100);
}

/* Receive buffers of `bytes` each; returns the first. */
static uint64_t offer_buffers(unsigned count, uint32_t bytes)
{
    uint64_t gpa = fake_guest_alloc(&guest, (uint64_t)count * bytes);
    memset(fake_guest_at(&guest, gpa, (uint64_t)count * bytes), 0xee, (size_t)count * bytes);
    for (unsigned i = 0; i < count; i++)
        fake_queue_add(&queues[RX], &(struct fake_buffer){gpa + (uint64_t)i * bytes, bytes, true},
                       1);
    fake_queue_kick(&queues[RX]);
    fake_guest_run(&guest, 1);
    return gpa;
}

static uint8_t incoming[70000];

static int receive_meta(const struct net_meta *meta, size_t length)
{
    make_frame(incoming, length);
    const struct iovec iov[] = {{incoming, MIN(length, 20)},
                                {incoming + MIN(length, 20), length - MIN(length, 20)}};
    return net_receive(&net.backend, meta, iov, 2);
}

static int receive(size_t length)
{
    return receive_meta(NULL, length);
}

static void test_receive_into_one_buffer(void **state)
{
    (void)state;
    uint32_t bytes;
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM), 0);
    uint64_t gpa = offer_buffers(1, 2000);
    const struct net_meta meta = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
    fake_guest_forget_written(&guest);
    assert_int_equal(receive_meta(&meta, 1000), 0);
    fake_queue_wait(&queues[RX], &bytes);
    assert_int_equal(bytes, HEADER + 1000);
    const uint8_t expected[HEADER] = {1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 1, 0};
    const uint8_t *got = fake_guest_at(&guest, gpa, 2000);
    assert_memory_equal(got, expected, HEADER);
    assert_memory_equal(got + HEADER, incoming, 1000);
    assert_int_equal(got[HEADER + 1000], 0xee);
    assert_true(fake_guest_was_written(&guest, gpa, HEADER + 1000));
    assert_int_equal(guest.irq.sent[RX + 1], 1);
}

static void test_receive_into_merged_buffers(void **state)
{
    (void)state;
    uint32_t bytes;
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF), 0);
    uint64_t gpa = offer_buffers(50, 1500);
    assert_int_equal(receive(65000), 0);
    for (unsigned i = 0; i < 44; i++) {
        fake_queue_wait(&queues[RX], &bytes);
        assert_int_equal(bytes, i < 43 ? 1500 : HEADER + 65000 - 43 * 1500);
    }
    const uint8_t *got = fake_guest_at(&guest, gpa, 50 * 1500);
    assert_int_equal(load_le16(got + 10), 44);
    assert_memory_equal(got + HEADER, incoming, 65000);
    assert_false(fake_queue_used(&queues[RX], &bytes, &bytes));
}

static void test_receive_into_tiny_and_odd_pieces(void **state)
{
    (void)state;
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF), 0);
    uint64_t gpa = offer_buffers(40, 7); /* even the header is split */
    assert_int_equal(receive(100), 0);
    for (unsigned i = 0; i < 16; i++)
        fake_queue_wait(&queues[RX], NULL);
    const uint8_t *got = fake_guest_at(&guest, gpa, 40 * 7);
    assert_int_equal(load_le16(got + 10), 16);
    assert_memory_equal(got + HEADER, incoming, 100);
}

static void test_without_buffers_the_backend_waits(void **state)
{
    (void)state;
    uint32_t head;
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF), 0);
    assert_int_equal(receive(1000), -EAGAIN);
    assert_int_equal(net.resumed, 0);
    offer_buffers(1, 500);
    assert_int_equal(net.resumed, 1);
    assert_int_equal(receive(1000), -EAGAIN); /* half of what it takes: put back */
    fake_guest_run(&guest, 2);
    assert_false(fake_queue_used(&queues[RX], &head, NULL));
    offer_buffers(2, 500);
    assert_int_equal(net.resumed, 2);
    assert_int_equal(receive(1000), 0);
    for (unsigned i = 0; i < 3; i++)
        fake_queue_wait(&queues[RX], NULL);
    assert_int_equal(net.backend.stats.rx_dropped, 0);
}

static void test_what_can_never_fit_is_dropped(void **state)
{
    (void)state;
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF), 4);
    offer_buffers(4, 100);
    assert_int_equal(receive(500), -EMSGSIZE);
    assert_int_equal(receive(300), 0);
    fake_queue_wait(&queues[RX], NULL);
    start_queues(0, 0); /* one buffer must hold it all */
    offer_buffers(4, 100);
    assert_int_equal(receive(89), -EMSGSIZE);
    assert_int_equal(receive(88), 0);
    fake_queue_wait(&queues[RX], NULL);
    assert_false(is_broken());
}

static void test_only_offloads_that_the_guest_took_are_received(void **state)
{
    (void)state;
    const struct net_meta checksum = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
    struct net_meta segments = checksum;
    segments.gso_type = NET_GSO_TCPV4;
    segments.gso_size = 1460;
    start_queues(0, 0);
    assert_int_equal(net.guest_offloads, 0);
    offer_buffers(4, 2000);
    assert_int_equal(receive_meta(&checksum, 100), -EINVAL);
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM), 0);
    assert_int_equal(net.guest_offloads, NET_OFFLOAD_CSUM);
    offer_buffers(4, 2000);
    assert_int_equal(receive_meta(&segments, 100), -EINVAL);
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_TSO4),
                 0);
    assert_int_equal(net.guest_offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    offer_buffers(4, 2000);
    assert_int_equal(receive_meta(&segments, 100), 0);
    segments.gso_type = NET_GSO_UDP;
    assert_int_equal(receive_meta(&segments, 100), -EINVAL);
    fake_device_reset(&fd);
    assert_int_equal(net.guest_offloads, 0);
}

static void test_frames_before_the_driver_and_out_of_range_are_dropped(void **state)
{
    (void)state;
    assert_int_equal(receive(100), -ENETDOWN);
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF), 0);
    offer_buffers(60, 1500);
    assert_int_equal(receive(13), -EINVAL);
    assert_int_equal(receive(NET_FRAME_MAX + 1), -EINVAL);
    assert_int_equal(receive(NET_FRAME_MAX), 0);
    fake_device_reset(&fd);
    assert_int_equal(receive(100), -ENETDOWN);
    assert_int_equal(net.guest_offloads, 0);
}

static void test_reset_lets_the_backend_go_on(void **state)
{
    (void)state;
    start_queues(0, 0);
    assert_int_equal(receive(100), -EAGAIN);
    fake_device_reset(&fd);
    assert_int_equal(net.resumed, 1);
    start_queues(0, 0);
    offer_buffers(1, 2000);
    assert_int_equal(net.resumed, 1);
    assert_int_equal(receive(100), 0);
}

/* Sends a command; the device's answer. */
static uint8_t control(const void *command, size_t length)
{
    const uint64_t data = put(command, length), answer = put("\xff", 1);
    const struct fake_buffer buffers[] = {
        {data, 2, false}, {data + 2, (uint32_t)length - 2, false}, {answer, 1, true}};
    uint32_t bytes;
    fake_queue_add(&queues[CTRL], buffers, ARRAY_SIZE(buffers));
    fake_queue_kick(&queues[CTRL]);
    fake_queue_wait(&queues[CTRL], &bytes);
    assert_int_equal(bytes, 1);
    return *(uint8_t *)fake_guest_at(&guest, answer, 1);
}

static uint64_t all_control(void)
{
    return fake_device_features(&fd);
}

static void test_control_commands(void **state)
{
    (void)state;
    start_queues(all_control(), 0);
    assert_int_equal(control("\0\0\1", 3), VIRTIO_NET_OK);           /* promiscuous */
    assert_int_equal(control("\0\5\1", 3), VIRTIO_NET_OK);           /* no broadcasts */
    assert_int_equal(control("\0\6\1", 3), VIRTIO_NET_ERR);          /* unknown mode */
    assert_int_equal(control("\2\0\5\0", 4), VIRTIO_NET_OK);         /* VLAN 5 */
    assert_int_equal(control("\3\0\0", 3), VIRTIO_NET_OK);           /* announced */
    assert_int_equal(control("\4\0\1\0", 4), VIRTIO_NET_ERR);        /* queue pairs */
    assert_int_equal(control("\7\0\0", 3), VIRTIO_NET_ERR);          /* unknown class */
    assert_int_equal(control("\1\1\2\0\0\0\0\1", 8), VIRTIO_NET_OK); /* address */
    assert_int_equal(fake_guest_read(&guest, fd.config + 5, 1), 1);
    assert_int_equal(control("\1\1\2\0\0\0\0", 7), VIRTIO_NET_ERR); /* too short */
    fake_device_reset(&fd);
    assert_int_equal(fake_guest_read(&guest, fd.config + 5, 1), 0x56);
}

static void test_commands_that_were_not_negotiated_fail(void **state)
{
    (void)state;
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ), 0);
    assert_int_equal(control("\0\0\1", 3), VIRTIO_NET_ERR);
    assert_int_equal(control("\1\1\2\0\0\0\0\1", 8), VIRTIO_NET_ERR);
    assert_int_equal(control("\2\0\5\0", 4), VIRTIO_NET_ERR);
    assert_int_equal(control("\3\0\0", 3), VIRTIO_NET_ERR);
    assert_int_equal(control("\5\0\0\0\0\0\0\0\0\0", 10), VIRTIO_NET_ERR);
}

static void test_guest_offloads_can_be_turned_off(void **state)
{
    (void)state;
    uint8_t command[10] = {VIRTIO_NET_CTRL_GUEST_OFFLOADS};
    start_queues(all_control() & ~VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ECN), 0);
    assert_int_equal(net.guest_offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    assert_int_equal(control(command, 10), VIRTIO_NET_OK);
    assert_int_equal(net.guest_offloads, 0);
    store_le64(command + 2, VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM));
    assert_int_equal(control(command, 10), VIRTIO_NET_OK);
    assert_int_equal(net.guest_offloads, NET_OFFLOAD_CSUM);
    store_le64(command + 2, VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ECN)); /* not negotiated */
    assert_int_equal(control(command, 10), VIRTIO_NET_ERR);
    store_le64(command + 2, VIRTIO_FEATURE(VIRTIO_NET_F_MAC)); /* no offload */
    assert_int_equal(control(command, 10), VIRTIO_NET_ERR);
    assert_int_equal(control(command, 9), VIRTIO_NET_ERR);
    assert_int_equal(net.guest_offloads, NET_OFFLOAD_CSUM);
}

static bool comes_through(const char *target)
{
    uint32_t head, bytes;
    make_frame(incoming, 60);
    memcpy(incoming, target, 6);
    const struct iovec iov = {incoming, 60};
    assert_int_equal(net_receive(&net.backend, NULL, &iov, 1), 0);
    fake_guest_run(&guest, 2);
    return fake_queue_used(&queues[RX], &head, &bytes);
}

static void test_the_filter_filters(void **state)
{
    (void)state;
    uint8_t tables[2 + 4 + 6 + 4 + 6] = {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, 1};
    memcpy(tables + 6, "\x02\0\0\0\0\x07", 6);
    tables[12] = 1;
    memcpy(tables + 16, "\x01\0\x5e\0\0\x07", 6);
    start_queues(all_control(), 0);
    offer_buffers(30, 2000);
    assert_true(comes_through("\x02\0\0\0\0\x09")); /* promiscuous after reset */
    assert_int_equal(control("\0\0\0", 3), VIRTIO_NET_OK);
    assert_false(comes_through("\x02\0\0\0\0\x09"));
    assert_false(comes_through("\x02\0\0\0\0\x07"));
    assert_false(comes_through("\x01\0\x5e\0\0\x07"));
    assert_true(comes_through(MAC));
    assert_true(comes_through("\xff\xff\xff\xff\xff\xff"));
    assert_int_equal(control(tables, sizeof(tables)), VIRTIO_NET_OK);
    assert_true(comes_through("\x02\0\0\0\0\x07"));
    assert_true(comes_through("\x01\0\x5e\0\0\x07"));
    assert_false(comes_through("\x01\0\x5e\0\0\x08"));
    assert_int_equal(control("\0\1\1", 3), VIRTIO_NET_OK); /* all multicast */
    assert_true(comes_through("\x01\0\x5e\0\0\x08"));
    assert_int_equal(control("\0\5\1", 3), VIRTIO_NET_OK);
    assert_false(comes_through("\xff\xff\xff\xff\xff\xff"));
}

/* Told once for each look at it, whatever the guest does in between. */
static void test_changes_of_the_filter_are_told(void **state)
{
    (void)state;
    start_queues(all_control(), 0);
    assert_int_equal(control("\0\0\0", 3), VIRTIO_NET_OK);
    assert_true(!changes && !virtio_net_read_filter(nic)->promiscuous); /* nobody had asked */
    assert_int_equal(control("\2\0\0\x10", 4), VIRTIO_NET_ERR);         /* VLAN 4096: no change */
    assert_int_equal(changes, 0);
    assert_int_equal(control("\2\0\5\0", 4), VIRTIO_NET_OK);
    assert_int_equal(control("\1\1\2\0\0\0\0\1", 8), VIRTIO_NET_OK);
    assert_memory_equal(virtio_net_read_filter(nic)->mac, "\2\0\0\0\0\1", 6);
    assert_int_equal(control("\2\1\5\0", 4), VIRTIO_NET_OK);
    assert_int_equal(changes, 2);
}

static void break_with(unsigned queue, const struct fake_buffer *buffers, unsigned count)
{
    start_queues(all_control(), 0);
    fake_queue_add(&queues[queue], buffers, count);
    fake_queue_kick(&queues[queue]);
    fake_guest_run(&guest, 2);
    if (queue == RX)
        receive(100);
    if (!is_broken())
        fail_msg("queue %u was not given up", queue);
    assert_int_equal(receive(100), -ENETDOWN);
}

static void test_rule_breakers_need_a_reset(void **state)
{
    (void)state;
    uint64_t gpa = fake_guest_alloc(&guest, 4096);
    break_with(TX, (struct fake_buffer[]){{gpa, 11, false}}, 1);
    break_with(TX, (struct fake_buffer[]){{gpa, 100, false}, {gpa, 100, true}}, 2);
    break_with(TX, (struct fake_buffer[]){{gpa, 100, true}}, 1);
    break_with(TX, (struct fake_buffer[]){{FAKE_RAM_LOW, 100, false}}, 1);
    break_with(RX, (struct fake_buffer[]){{gpa, 2000, false}}, 1);
    break_with(RX, (struct fake_buffer[]){{gpa, 12, false}, {gpa, 2000, true}}, 2);
    break_with(CTRL, (struct fake_buffer[]){{gpa, 3, false}}, 1);
    start_queues(0, 0); /* and after a reset it works */
    transmit(plain, 60, 0);
    fake_queue_wait(&queues[TX], NULL);
    assert_int_equal(net.sent, 1);
}

static void test_a_malformed_chain_in_the_middle_of_a_frame(void **state)
{
    (void)state;
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF), 0);
    offer_buffers(2, 100);
    fake_queue_set_descriptor(&queues[RX], 7, FAKE_RAM_LOW - 10, 100, VRING_DESC_F_WRITE, 0);
    fake_queue_offer(&queues[RX], 7);
    assert_true(receive(250) < 0);
    assert_true(is_broken());
    fake_device_reset(&fd);
    assert_int_equal(fake_device_status(&fd), 0);
}

static void test_swapping_the_backend(void **state)
{
    (void)state;
    static struct fake_net second;
    struct error err = {0};
    memset(&second, 0, sizeof(second));
    net_backend_init(&second.backend, &net_ops, &guest.loop, "net1");
    start_queues(VIRTIO_FEATURE(VIRTIO_NET_F_CSUM), 0);
    net.has_offloads = 0; /* of both: the ops are shared */
    assert_int_equal(virtio_net_swap_backend(nic, &second.backend, &err), -EBUSY);
    assert_non_null(strstr(err.text, "does not have"));
    net.has_offloads = ALL_OFFLOADS;
    assert_int_equal(virtio_net_swap_backend(nic, NULL, &err), 0);
    assert_int_equal(fake_guest_read(&guest, fd.config + 6, 2), 0);
    assert_null(net.backend.peer);
    transmit(plain, 60, 0);
    fake_queue_wait(&queues[TX], NULL); /* into the void */
    assert_int_equal(virtio_net_swap_backend(nic, &second.backend, &err), 0);
    assert_int_equal(net.resumed, 1); /* told by the ops that both share */
    assert_int_equal(fake_guest_read(&guest, fd.config + 6, 2), VIRTIO_NET_S_LINK_UP);
    transmit(plain, 60, 0);
    fake_queue_wait(&queues[TX], NULL);
    assert_int_equal(second.backend.stats.tx_frames, 1);
    assert_int_equal(virtio_net_swap_backend(nic, NULL, &err), 0);
}

static void test_announce(void **state)
{
    (void)state;
    virtio_net_announce(nic); /* nobody there */
    start_queues(all_control(), 0);
    virtio_net_announce(nic);
    assert_int_equal(fake_guest_read(&guest, fd.config + 6, 2),
                     VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    assert_int_equal(control("\3\0\0", 3), VIRTIO_NET_OK);
    assert_int_equal(fake_guest_read(&guest, fd.config + 6, 2), VIRTIO_NET_S_LINK_UP);
}

static void test_a_restored_nic_goes_on_where_it_was(void **state)
{
    (void)state;
    struct state_buffer saved = {0};
    struct error err = {0};
    uint8_t command[10] = {VIRTIO_NET_CTRL_GUEST_OFFLOADS};
    start_queues(all_control(), 0);
    transmit(plain, 60, 0);
    fake_queue_wait(&queues[TX], NULL);
    store_le64(command + 2, VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM));
    assert_int_equal(control(command, 10), VIRTIO_NET_OK);
    assert_int_equal(control("\0\0\0", 3), VIRTIO_NET_OK); /* not promiscuous */
    assert_int_equal(control("\1\1\2\0\0\0\0\1", 8), VIRTIO_NET_OK);
    nic->ops->before_save(nic);
    state_save(nic->ops->state, nic, &saved);
    const struct fake_device before = fd; /* its BARs come back with the state */
    fake_guest_close(&guest, nic);
    plug(ALL_OFFLOADS, 0);
    fd = before;
    assert_int_equal(state_restore(nic->ops->state, nic, &saved, &err), 0);
    assert_int_equal(nic->ops->after_restore(nic, &err), 0);
    state_buffer_fini(&saved);
    assert_int_equal(net.guest_offloads, NET_OFFLOAD_CSUM);
    assert_int_equal(fake_guest_read(&guest, fd.config + 5, 1), 1);
    transmit(plain, 70, 0);
    fake_queue_wait(&queues[TX], NULL);
    check_sent(70);
    offer_buffers(2, 2000);
    assert_false(comes_through(MAC));
    assert_true(comes_through("\2\0\0\0\0\1"));
}

#define nic_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        nic_test(test_features_follow_the_backend),
        nic_test(test_a_feature_that_is_off_is_not_offered),
        nic_test(test_dependent_features_are_refused_alone),
        nic_test(test_config_shows_mac_and_link),
        nic_test(test_transmit_in_any_framing),
        nic_test(test_transmit_with_offloads),
        nic_test(test_hostile_transmit_headers_are_dropped),
        nic_test(test_a_full_backend_is_waited_for),
        nic_test(test_a_frame_that_the_backend_refuses_is_used_up),
        nic_test(test_many_frames_are_sent_over_several_turns),
        nic_test(test_large_frames_are_sent_over_several_turns),
        nic_test(test_receive_into_one_buffer),
        nic_test(test_receive_into_merged_buffers),
        nic_test(test_receive_into_tiny_and_odd_pieces),
        nic_test(test_without_buffers_the_backend_waits),
        nic_test(test_what_can_never_fit_is_dropped),
        nic_test(test_only_offloads_that_the_guest_took_are_received),
        nic_test(test_frames_before_the_driver_and_out_of_range_are_dropped),
        nic_test(test_reset_lets_the_backend_go_on),
        nic_test(test_control_commands),
        nic_test(test_commands_that_were_not_negotiated_fail),
        nic_test(test_guest_offloads_can_be_turned_off),
        nic_test(test_the_filter_filters),
        nic_test(test_changes_of_the_filter_are_told),
        nic_test(test_rule_breakers_need_a_reset),
        nic_test(test_a_malformed_chain_in_the_middle_of_a_frame),
        nic_test(test_swapping_the_backend),
        nic_test(test_announce),
        nic_test(test_a_restored_nic_goes_on_where_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
