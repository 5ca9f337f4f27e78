/* SPDX-License-Identifier: MIT */
#include "devices/bus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "tests/unit/test.h"

static struct loop loop;
static struct bus bus;

struct gadget {
    struct bus_region region;
    uint64_t offset, value, answer;
    unsigned size, reads, writes;
    bool unmap_on_write;
};

static uint64_t gadget_read(void *device, uint64_t offset, unsigned size)
{
    struct gadget *gadget = device;
    gadget->offset = offset;
    gadget->size = size;
    gadget->reads++;
    return gadget->answer;
}

static void gadget_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct gadget *gadget = device;
    gadget->offset = offset;
    gadget->size = size;
    gadget->value = value;
    gadget->writes++;
    if (gadget->unmap_on_write)
        bus_unmap(&bus, &gadget->region);
}

static const struct bus_region_ops gadget_ops = {gadget_read, gadget_write};

static void gadget_init(struct gadget *gadget, uint64_t size)
{
    *gadget = (struct gadget){.answer = UINT64_MAX};
    gadget->region =
        (struct bus_region){.name = "gadget", .ops = &gadget_ops, .device = gadget, .size = size};
}

/* The accelerator's side: takes doorbells while `room` lasts. */
static struct {
    unsigned added, deleted, room;
    uint64_t address;
} accelerator;

static int on_doorbell_add(void *opaque, enum bus_space space, uint64_t address,
                           const struct bus_doorbell *doorbell)
{
    (void)space, (void)doorbell;
    assert_ptr_equal(opaque, &accelerator);
    if (accelerator.added - accelerator.deleted >= accelerator.room)
        return -ENOSPC;
    accelerator.added++;
    accelerator.address = address;
    return 0;
}

static void on_doorbell_del(void *opaque, enum bus_space space, uint64_t address,
                            const struct bus_doorbell *doorbell)
{
    (void)opaque, (void)space, (void)doorbell;
    accelerator.deleted++;
    accelerator.address = address;
}

static const struct bus_listener listener = {on_doorbell_add, on_doorbell_del};

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(loop_init(&loop), 0);
    bus_init(&bus, &loop);
    accelerator = (typeof(accelerator)){.room = 100};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    bus_fini(&bus);
    loop_fini(&loop);
    return 0;
}

static void test_finds_the_region_and_masks(void **state)
{
    (void)state;
    struct gadget low, high;
    uint64_t value = 0;
    gadget_init(&low, 8);
    gadget_init(&high, 4);
    assert_int_equal(bus_map(&bus, BUS_PIO, 0x3f8, &high.region), 0);
    assert_int_equal(bus_map(&bus, BUS_PIO, 0x60, &low.region), 0);
    assert_true(bus_read(&bus, BUS_PIO, 0x62, 2, &value));
    assert_int_equal(value, 0xffff);
    assert_int_equal(low.offset, 2);
    assert_int_equal(low.size, 2);
    assert_true(bus_write(&bus, BUS_PIO, 0x3fb, 1, 0x1234));
    assert_int_equal(high.value, 0x34);
    assert_int_equal(high.offset, 3);
    bus_unmap(&bus, &low.region);
    bus_unmap(&bus, &low.region);
    assert_false(bus_read(&bus, BUS_PIO, 0x62, 2, &value));
    bus_unmap(&bus, &high.region);
}

static void test_uncovered_reads_all_ones(void **state)
{
    (void)state;
    struct gadget gadget;
    uint64_t value = 0;
    gadget_init(&gadget, 4);
    gadget.answer = 0;
    assert_int_equal(bus_map(&bus, BUS_MMIO, 0x1000, &gadget.region), 0);
    assert_false(bus_read(&bus, BUS_MMIO, 0xfff, 1, &value));
    assert_int_equal(value, 0xff);
    assert_false(bus_read(&bus, BUS_MMIO, 0xfff, 4, &value));
    assert_false(bus_read(&bus, BUS_MMIO, 0x1002, 4, &value));
    assert_int_equal(value, UINT32_MAX);
    assert_false(bus_read(&bus, BUS_MMIO, 0x1000, 8, &value));
    assert_true(value == UINT64_MAX);
    assert_false(bus_read(&bus, BUS_MMIO, UINT64_MAX, 8, &value));
    assert_false(bus_write(&bus, BUS_MMIO, 0x1003, 2, 0));
    assert_false(bus_read(&bus, BUS_PIO, 0x1000, 1, &value));
    assert_int_equal(gadget.reads + gadget.writes, 0);
    bus_unmap(&bus, &gadget.region);
}

static void test_refuses_overlap_and_what_leaves_the_space(void **state)
{
    (void)state;
    struct gadget a, b;
    gadget_init(&a, 0x10);
    gadget_init(&b, 0x10);
    assert_int_equal(bus_map(&bus, BUS_PIO, 0x100, &a.region), 0);
    assert_int_equal(bus_map(&bus, BUS_PIO, 0x100, &b.region), -EEXIST);
    assert_int_equal(bus_map(&bus, BUS_PIO, 0x10f, &b.region), -EEXIST);
    assert_int_equal(bus_map(&bus, BUS_PIO, 0xf1, &b.region), -EEXIST);
    assert_int_equal(bus_map(&bus, BUS_PIO, 0xfff1, &b.region), -EINVAL);
    assert_int_equal(bus_map(&bus, BUS_MMIO, UINT64_MAX - 0xf, &b.region), -EINVAL);
    assert_int_equal(bus_map(&bus, BUS_MMIO, UINT64_MAX - 0x7, &b.region), -EINVAL);
    b.region.size = 0;
    assert_int_equal(bus_map(&bus, BUS_PIO, 0, &b.region), -EINVAL);
    b.region.size = 0x10;
    assert_int_equal(bus_map(&bus, BUS_PIO, 0xf0, &b.region), 0);
    bus_unmap(&bus, &a.region);
    bus_unmap(&bus, &b.region);
}

static void test_many_regions_agree_with_a_plain_search(void **state)
{
    (void)state;
    static struct gadget gadgets[BUS_REGION_MAX + 1];
    static int owner[0x10000];
    srandom(7);
    for (unsigned i = 0; i < 0x10000; i++)
        owner[i] = -1;
    unsigned mapped = 0;
    for (int i = 0; mapped < BUS_REGION_MAX; i = (i + 1) % BUS_REGION_MAX) {
        if (gadgets[i].region.mapped)
            continue;
        gadget_init(&gadgets[i], (uint64_t)(1 + random() % 32));
        uint64_t base = (uint64_t)(random() % 0xffe0);
        if (bus_map(&bus, BUS_PIO, base, &gadgets[i].region))
            continue;
        mapped++;
        for (uint64_t port = base; port < base + gadgets[i].region.size; port++) {
            assert_int_equal(owner[port], -1);
            owner[port] = i;
        }
    }
    for (unsigned port = 0; port < 0x10000; port++) {
        uint64_t value;
        unsigned before = owner[port] < 0 ? 0 : gadgets[owner[port]].reads;
        assert_int_equal(bus_read(&bus, BUS_PIO, port, 1, &value), owner[port] >= 0);
        if (owner[port] >= 0)
            assert_int_equal(gadgets[owner[port]].reads, before + 1);
    }
    gadget_init(&gadgets[BUS_REGION_MAX], 1);
    unsigned free_port = 0;
    while (owner[free_port] >= 0)
        free_port++;
    assert_int_equal(bus_map(&bus, BUS_PIO, free_port, &gadgets[BUS_REGION_MAX].region), -ENOSPC);
    for (unsigned i = 0; i < BUS_REGION_MAX; i++)
        bus_unmap(&bus, &gadgets[i].region);
}

static void test_a_handler_may_unmap_its_own_region(void **state)
{
    (void)state;
    struct gadget gadget;
    gadget_init(&gadget, 4);
    gadget.unmap_on_write = true;
    assert_int_equal(bus_map(&bus, BUS_MMIO, 0x1000, &gadget.region), 0);
    assert_true(bus_write(&bus, BUS_MMIO, 0x1000, 4, 1));
    assert_false(bus_write(&bus, BUS_MMIO, 0x1000, 4, 1));
    assert_int_equal(gadget.writes, 1);
}

static unsigned rings;

static void on_signal(struct loop_event *event)
{
    (void)event;
    rings++;
}

static unsigned rings_after(uint64_t address, unsigned size, uint64_t value)
{
    rings = 0;
    assert_true(bus_write(&bus, BUS_MMIO, address, size, value));
    loop_run_once(&loop, false);
    return rings;
}

static void test_doorbells_the_accelerator_did_not_take_ring_here(void **state)
{
    (void)state;
    static struct loop_event event;
    struct gadget gadget;
    gadget_init(&gadget, 0x100);
    assert_int_equal(loop_event_init(&loop, &event, on_signal), 0);
    struct bus_doorbell exact = {
        .region = &gadget.region, .offset = 0x10, .size = 2, .value = 3, .event = &event};
    struct bus_doorbell any = {
        .region = &gadget.region, .offset = 0x20, .any = true, .event = &event};
    bus_doorbell_add(&bus, &exact);
    bus_doorbell_add(&bus, &any);
    assert_int_equal(bus_map(&bus, BUS_MMIO, 0x1000, &gadget.region), 0);
    assert_int_equal(rings_after(0x1010, 2, 3), 1);
    assert_int_equal(gadget.writes, 0);
    assert_int_equal(rings_after(0x1010, 2, 4), 0);
    assert_int_equal(rings_after(0x1010, 4, 3), 0);
    assert_int_equal(gadget.writes, 2);
    assert_int_equal(rings_after(0x1020, 4, 77), 1);
    assert_int_equal(rings_after(0x1020, 1, 0), 1);
    assert_int_equal(rings_after(0x1021, 1, 0), 0);
    bus_doorbell_del(&bus, &any);
    assert_int_equal(rings_after(0x1020, 4, 77), 0);
    bus_unmap(&bus, &gadget.region);
    bus_doorbell_del(&bus, &exact);
    loop_event_close(&event, NULL);
}

static void test_doorbells_follow_their_region_to_the_accelerator(void **state)
{
    (void)state;
    static struct loop_event event;
    struct gadget gadget;
    gadget_init(&gadget, 0x100);
    assert_int_equal(loop_event_init(&loop, &event, on_signal), 0);
    struct bus_doorbell first = {
        .region = &gadget.region, .offset = 4, .any = true, .event = &event};
    struct bus_doorbell second = {
        .region = &gadget.region, .offset = 8, .any = true, .event = &event};
    bus_set_listener(&bus, &listener, &accelerator);
    bus_doorbell_add(&bus, &first);
    assert_int_equal(accelerator.added, 0);
    assert_int_equal(bus_map(&bus, BUS_MMIO, 0x1000, &gadget.region), 0);
    assert_int_equal(accelerator.added, 1);
    assert_int_equal(accelerator.address, 0x1004);
    accelerator.room = 1;
    bus_doorbell_add(&bus, &second);
    assert_int_equal(accelerator.added, 1);
    assert_int_equal(rings_after(0x1008, 4, 0), 1);
    accelerator.address = 0;
    bus_unmap(&bus, &gadget.region);
    assert_int_equal(accelerator.address, 0x1004);
    assert_int_equal(accelerator.deleted, 1);
    assert_int_equal(bus_map(&bus, BUS_MMIO, 0x5000, &gadget.region), 0);
    assert_int_equal(accelerator.address, 0x5004);
    bus_doorbell_del(&bus, &first);
    bus_doorbell_del(&bus, &second);
    assert_int_equal(accelerator.added, accelerator.deleted);
    bus_unmap(&bus, &gadget.region);
    loop_event_close(&event, NULL);
}

static void test_doorbells_of_a_mapped_region_go_live_at_once(void **state)
{
    (void)state;
    static struct loop_event event;
    struct gadget gadget;
    gadget_init(&gadget, 0x100);
    assert_int_equal(loop_event_init(&loop, &event, on_signal), 0);
    struct bus_doorbell doorbell = {
        .region = &gadget.region, .offset = 8, .event = &event, .registered = true};
    bus_set_listener(&bus, &listener, &accelerator);
    bus_doorbell_add(&bus, &doorbell);
    assert_false(doorbell.registered);
    assert_int_equal(bus_map(&bus, BUS_MMIO, 0x1000, &gadget.region), 0);
    bus_doorbell_del(&bus, &doorbell);
    assert_int_equal(accelerator.deleted, 1);
    assert_false(doorbell.registered);
    bus_doorbell_add(&bus, &doorbell);
    assert_int_equal(accelerator.added, 2);
    assert_int_equal(accelerator.address, 0x1008);
    bus_doorbell_del(&bus, &doorbell);
    bus_unmap(&bus, &gadget.region);
    assert_int_equal(accelerator.deleted, 2);
    loop_event_close(&event, NULL);
}

struct counts {
    uint64_t gadget, none_pio, none_mmio;
    unsigned lines;
};

static void on_count(void *opaque, const char *name, uint64_t count)
{
    struct counts *counts = opaque;
    counts->lines++;
    if (strcmp(name, "gadget@1000") == 0)
        counts->gadget = count;
    else if (strcmp(name, "none@pio") == 0)
        counts->none_pio = count;
    else if (strcmp(name, "none@mmio") == 0)
        counts->none_mmio = count;
}

static void test_accesses_are_counted_by_region(void **state)
{
    (void)state;
    struct gadget gadget;
    struct counts counts = {0};
    uint64_t value = 0;
    gadget_init(&gadget, 16);
    assert_int_equal(bus_map(&bus, BUS_MMIO, 0x1000, &gadget.region), 0);
    assert_true(bus_read(&bus, BUS_MMIO, 0x1000, 4, &value));
    assert_true(bus_write(&bus, BUS_MMIO, 0x1004, 4, 1));
    assert_false(bus_write(&bus, BUS_MMIO, 0x1010, 4, 1));
    for (unsigned i = 0; i < 3; i++)
        assert_false(bus_read(&bus, BUS_PIO, 0x80 + i, 1, &value));
    bus_for_each_count(&bus, on_count, &counts);
    assert_int_equal(counts.lines, 3);
    assert_int_equal(counts.gadget, 2);
    assert_int_equal(counts.none_pio, 3);
    assert_int_equal(counts.none_mmio, 1);
    bus_unmap(&bus, &gadget.region);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static char accesses[64];

static uint64_t note_read(void *device, uint64_t offset, unsigned size)
{
    (void)device;
    snprintf(accesses + strlen(accesses), sizeof(accesses) - strlen(accesses), " %u:%u",
             (unsigned)offset, size);
    return UINT64_C(0x0706050403020100) >> (8 * offset);
}

static void note_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device;
    snprintf(accesses + strlen(accesses), sizeof(accesses) - strlen(accesses), " %u:%u=%llx",
             (unsigned)offset, size, (unsigned long long)value);
}

/* What an access across two pages has on one of them, as KVM hands it on. */
static void test_an_access_of_any_size_is_one_of_several(void **state)
{
    static const struct bus_region_ops ops = {note_read, note_write};
    struct bus_region region = {.name = "notes", .ops = &ops, .size = 8};
    uint64_t value;
    (void)state;
    assert_int_equal(bus_map(&bus, BUS_MMIO, 0x1000, &region), 0);
    assert_true(bus_read(&bus, BUS_MMIO, 0x1000, 7, &value));
    assert_int_equal(value, UINT64_C(0x06050403020100));
    assert_string_equal(accesses, " 0:4 4:2 6:1");
    *accesses = 0;
    assert_true(bus_write(&bus, BUS_MMIO, 0x1001, 3, 0xff030201));
    assert_string_equal(accesses, " 1:2=201 3:1=3");
    assert_true(bus_read(&bus, BUS_MMIO, 0x1006, 3, &value)); /* the last byte is nobody's */
    assert_int_equal(value, 0xff0706);
    assert_false(bus_read(&bus, BUS_MMIO, 0x2000, 5, &value));
    assert_int_equal(value, UINT64_C(0xffffffffff));
    bus_unmap(&bus, &region);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_finds_the_region_and_masks),
        TEST(test_uncovered_reads_all_ones),
        TEST(test_refuses_overlap_and_what_leaves_the_space),
        TEST(test_many_regions_agree_with_a_plain_search),
        TEST(test_a_handler_may_unmap_its_own_region),
        TEST(test_doorbells_the_accelerator_did_not_take_ring_here),
        TEST(test_doorbells_follow_their_region_to_the_accelerator),
        TEST(test_accesses_are_counted_by_region),
        TEST(test_doorbells_of_a_mapped_region_go_live_at_once),
        TEST(test_an_access_of_any_size_is_one_of_several),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
