/* SPDX-License-Identifier: MIT */
/* What a guest asks for in its SYN: kept for whoever cuts its segments, and offered larger. */
#include "netbackends/mss.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/frames.h"
#include "tests/unit/test.h"

static struct mss_table table;
static struct frames_buffer frame;
static struct packet packet;
static struct frames_flow flow;

static int set_up(void **state)
{
    (void)state;
    memset(&table, 0, sizeof(table));
    flow = (struct frames_flow){
        .source_mac = FRAMES_GUEST_MAC,
        .target_mac = {0x52, 0x55, 10, 0, 2, 2},
        .source = FRAMES_IPV4(10, 0, 2, 15),
        .target = FRAMES_IPV4(192, 0, 2, 1),
        .source_port = 40000,
        .target_port = 80,
    };
    return 0;
}

/* A SYN with these bytes as its options, whose length is a multiple of four. */
static void take(const uint8_t *options, size_t bytes)
{
    size_t payload, tcp;
    frames_tcp(&frame, &flow, TCP_SYN, 1, 0, NULL, 0);
    tcp = flow.is_ipv6 ? 54 : 34;
    memcpy(frame.bytes + tcp + PACKET_TCP_BYTES, options, bytes);
    frame.bytes[tcp + 12] = (uint8_t)((PACKET_TCP_BYTES + bytes) / 4 << 4);
    frame.length = tcp + PACKET_TCP_BYTES + bytes;
    if (flow.is_ipv6)
        store_be16(frame.bytes + 18, (uint16_t)(frame.length - tcp));
    else
        store_be16(frame.bytes + 16, (uint16_t)(frame.length - 14));
    frames_fix_checksums(&frame);
    assert_true(packet_parse_ip(frame.bytes, frame.length, &packet));
    assert_true(packet_parse_tcp(frame.bytes, &packet, &payload));
    mss_take_syn(&table, frame.bytes, &packet, payload);
    assert_true(frames_are_checksums_right(frame.bytes, frame.length));
}

static void take_mss(unsigned wish)
{
    const uint8_t options[] = {2, 4, (uint8_t)(wish >> 8), (uint8_t)wish};
    take(options, sizeof(options));
}

/* Of a frame that comes back. */
static size_t answer(void)
{
    struct frames_buffer back;
    struct frames_flow reverse = flow;
    struct packet found;
    reverse.source = flow.target;
    reverse.target = flow.source;
    reverse.source_port = flow.target_port;
    reverse.target_port = flow.source_port;
    frames_tcp(&back, &reverse, TCP_ACK, 1, 1, "x", 1);
    assert_true(packet_parse_ip(back.bytes, back.length, &found));
    return mss_of(&table, back.bytes, &found);
}

static void test_the_usual_needs_no_memory(void **state)
{
    (void)state;
    const unsigned wishes[] = {1460, 8960, 65495};
    for (size_t i = 0; i < ARRAY_SIZE(wishes); i++) {
        take_mss(wishes[i]);
        assert_int_equal(load_be16(frame.bytes + 56), MSS_OFFERED);
        assert_int_equal(answer(), 1460);
    }
    assert_int_equal(table.count, 0);
}

static void test_a_small_wish_is_kept(void **state)
{
    (void)state;
    take_mss(700);
    assert_int_equal(load_be16(frame.bytes + 56), MSS_OFFERED);
    assert_int_equal(answer(), 700);
    flow.source_port++;
    assert_int_equal(answer(), 1460);
    flow.source_port--;
    take_mss(1400); /* the same ends, another time */
    assert_int_equal(answer(), 1400);
    assert_int_equal(table.count, 1);
    take_mss(1460);
    assert_int_equal(answer(), 1460);
    assert_int_equal(table.count, 0);
}

static void test_ipv6(void **state)
{
    (void)state;
    flow.is_ipv6 = true;
    take_mss(1440);
    assert_int_equal(answer(), 1440);
    take_mss(1300);
    assert_int_equal(load_be16(frame.bytes + 76), MSS_OFFERED);
    assert_int_equal(answer(), 1300);
    const uint8_t none[] = {1, 1, 1, 0};
    take(none, sizeof(none));
    assert_int_equal(answer(), 1220);
}

static void test_options_at_any_place(void **state)
{
    (void)state;
    const uint8_t odd[] = {1, 2, 4, 2, 188, 1, 1, 0};
    take(odd, sizeof(odd));
    assert_int_equal(load_be16(frame.bytes + 57), MSS_OFFERED);
    assert_int_equal(answer(), 700);
    const uint8_t twice[] = {2, 4, 5, 180, 2, 4, 2, 88};
    take(twice, sizeof(twice));
    assert_int_equal(answer(), 600);
    const uint8_t behind_the_end[] = {0, 0, 0, 0, 2, 4, 1, 0};
    take(behind_the_end, sizeof(behind_the_end));
    assert_int_equal(answer(), 536);
    assert_int_equal(load_be16(frame.bytes + 60), 256);
    const uint8_t other[] = {3, 3, 7, 1, 4, 2, 1, 0};
    take(other, sizeof(other));
    assert_int_equal(answer(), 536);
}

static void test_nonsense_is_bounded(void **state)
{
    (void)state;
    take_mss(0);
    assert_int_equal(answer(), MSS_LEAST);
    take_mss(1);
    assert_int_equal(answer(), MSS_LEAST);
    const uint8_t wrong_length[] = {2, 3, 7, 1};
    take(wrong_length, sizeof(wrong_length));
    assert_int_equal(answer(), 536);
}

/* However many there are: nobody gets more than it asked for. */
static void test_who_is_forgotten_gets_no_more(void **state)
{
    (void)state;
    enum { MANY = 4 * MSS_SETS * MSS_WAYS };
    for (unsigned i = 0; i < MANY; i++) {
        flow.source_port = (uint16_t)(1000 + i);
        take_mss(900 + i % 100);
    }
    assert_int_equal(table.count, MSS_SETS * MSS_WAYS);
    for (unsigned i = 0; i < MANY; i++) {
        flow.source_port = (uint16_t)(1000 + i);
        assert_in_range(answer(), MSS_LEAST, 900 + i % 100);
    }
    assert_int_equal(answer(), 900 + (MANY - 1) % 100); /* the last one is still known */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_usual_needs_no_memory, set_up),
        cmocka_unit_test_setup(test_a_small_wish_is_kept, set_up),
        cmocka_unit_test_setup(test_ipv6, set_up),
        cmocka_unit_test_setup(test_options_at_any_place, set_up),
        cmocka_unit_test_setup(test_nonsense_is_bounded, set_up),
        cmocka_unit_test_setup(test_who_is_forgotten_gets_no_more, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
