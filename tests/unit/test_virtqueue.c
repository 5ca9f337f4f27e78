/* SPDX-License-Identifier: MIT */
#include "devices/virtqueue.h"

#include <linux/virtio_ring.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/test.h"

#define SIZE 8

struct fixture {
    struct fake_guest guest;
    struct fake_device fd;
    struct fake_queue driver;
    struct virtqueue vq;
    uint64_t page;
    unsigned interrupts, broken, idle;
    const char *why;
    struct iovec iov[16];
    struct virtqueue_chain chain;
};

static void on_interrupt(struct virtqueue *vq)
{
    container_of(vq, struct fixture, vq)->interrupts++;
}

static void on_broken(struct virtqueue *vq, const char *why)
{
    struct fixture *f = container_of(vq, struct fixture, vq);
    f->broken++;
    f->why = why;
}

static void on_idle(struct virtqueue *vq)
{
    container_of(vq, struct fixture, vq)->idle++;
}

static const struct virtqueue_ops ops = {on_interrupt, on_broken, on_idle};

static void start_disabled(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    fake_guest_init(&f->guest);
    f->fd.guest = &f->guest;
    f->driver = (struct fake_queue){.fd = &f->fd, .size = SIZE};
    f->driver.desc = fake_guest_alloc(&f->guest, 4096);
    f->driver.avail = fake_guest_alloc(&f->guest, 4096);
    f->driver.used = fake_guest_alloc(&f->guest, 4096);
    f->page = fake_guest_alloc(&f->guest, 4096);
    f->chain = (struct virtqueue_chain){.iov = f->iov, .iov_max = ARRAY_SIZE(f->iov)};
    virtqueue_init(&f->vq, &f->guest.loop, &f->guest.mem, &ops, 0, 64);
    f->vq.layout = (struct virtqueue_layout){SIZE, f->driver.desc, f->driver.avail, f->driver.used};
}

static void start(struct fixture *f, bool event_idx)
{
    start_disabled(f);
    assert_true(virtqueue_enable(&f->vq, event_idx, true));
}

static void stop(struct fixture *f)
{
    virtqueue_fini(&f->vq);
    fake_guest_fini(&f->guest);
}

static uint16_t add(struct fixture *f, bool is_in)
{
    const struct fake_buffer buffer = {f->page, 64, is_in};
    return fake_queue_add(&f->driver, &buffer, 1);
}

static bool pop(struct fixture *f)
{
    return virtqueue_pop(&f->vq, &f->chain);
}

static uint16_t used_flags(struct fixture *f)
{
    return load_le16(fake_guest_at(&f->guest, f->driver.used, 2));
}

static uint16_t avail_event(struct fixture *f)
{
    return load_le16(fake_guest_at(&f->guest, f->driver.used + 4 + 8 * SIZE, 2));
}

static void set_used_event(struct fixture *f, uint16_t value)
{
    store_le16(fake_guest_at(&f->guest, f->driver.avail + 4 + 2 * SIZE, 2), value);
}

static void test_pops_a_chain(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, false);
    assert_false(pop(&f));
    const struct fake_buffer buffers[] = {
        {f.page, 16, false}, {f.page + 64, 3, false}, {FAKE_HIGH_GPA, 512, true}};
    uint16_t head = fake_queue_add(&f.driver, buffers, 3);
    assert_true(virtqueue_has_chain(&f.vq));
    assert_true(pop(&f));
    assert_false(virtqueue_has_chain(&f.vq));
    assert_int_equal(f.chain.out_count, 2);
    assert_int_equal(f.chain.in_count, 1);
    assert_int_equal(f.chain.out_bytes, 19);
    assert_int_equal(f.chain.in_bytes, 512);
    assert_ptr_equal(f.iov[1].iov_base, fake_guest_at(&f.guest, f.page + 64, 3));
    assert_ptr_equal(virtqueue_chain_in(&f.chain)->iov_base,
                     fake_guest_at(&f.guest, FAKE_HIGH_GPA, 512));
    virtqueue_push(&f.vq, &f.chain, 100);
    assert_int_equal(f.idle, 1);
    assert_int_equal(fake_queue_used_index(&f.driver), 0);
    fake_guest_run(&f.guest, 1);
    uint32_t id, bytes;
    assert_true(fake_queue_used(&f.driver, &id, &bytes));
    assert_int_equal(id, head);
    assert_int_equal(bytes, 100);
    assert_int_equal(f.interrupts, 1);
    stop(&f);
}

static void test_wraps_around(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, true);
    uint32_t pushed = 0, seen = 0;
    for (unsigned round = 0; round < 70000 / 5; round++) {
        for (unsigned i = 0; i < 5; i++)
            add(&f, true);
        while (pop(&f))
            virtqueue_push(&f.vq, &f.chain, pushed++ % 65);
        virtqueue_publish(&f.vq);
        uint32_t id, bytes;
        while (fake_queue_used(&f.driver, &id, &bytes))
            assert_int_equal(bytes, seen++ % 65);
    }
    assert_int_equal(seen, 70000);
    assert_int_equal(f.interrupts, 70000 / 5);
    assert_int_equal(f.broken, 0);
    stop(&f);
}

static void test_one_decision_for_a_batch(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, false);
    for (unsigned i = 0; i < SIZE; i++)
        add(&f, true);
    while (pop(&f))
        virtqueue_push(&f.vq, &f.chain, 0);
    fake_guest_run(&f.guest, 1);
    assert_int_equal(fake_queue_used_index(&f.driver), SIZE);
    assert_int_equal(f.interrupts, 1);
    assert_int_equal(f.vq.stats.interrupts, 1);
    assert_int_equal(f.vq.stats.chains, SIZE);
    stop(&f);
}

static void test_no_interrupt_flag(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, false);
    store_le16(fake_guest_at(&f.guest, f.driver.avail, 2), VRING_AVAIL_F_NO_INTERRUPT);
    add(&f, true);
    assert_true(pop(&f));
    virtqueue_push(&f.vq, &f.chain, 0);
    fake_guest_run(&f.guest, 1);
    assert_int_equal(f.interrupts, 0);
    assert_int_equal(f.vq.stats.suppressed, 1);
    stop(&f);
}

static void test_used_event(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, true);
    set_used_event(&f, 2); /* "when the third is used" */
    for (unsigned i = 0; i < 4; i++) {
        add(&f, true);
        assert_true(pop(&f));
        virtqueue_push(&f.vq, &f.chain, 0);
        virtqueue_publish(&f.vq);
        assert_int_equal(f.interrupts, i >= 2);
    }
    assert_int_equal(f.vq.stats.suppressed, 3);
    stop(&f);
}

static void test_kick_suppression_by_flag(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, false);
    add(&f, true);
    add(&f, true);
    assert_true(pop(&f));
    virtqueue_push(&f.vq, &f.chain, 0);
    assert_true(pop(&f));
    virtqueue_push(&f.vq, &f.chain, 0);
    assert_false(pop(&f));
    assert_int_equal(used_flags(&f), 0);
    add(&f, true);
    assert_true(pop(&f));
    assert_int_equal(used_flags(&f), VRING_USED_F_NO_NOTIFY);
    assert_false(pop(&f));
    assert_int_equal(used_flags(&f), 0);
    virtqueue_push(&f.vq, &f.chain, 0);
    stop(&f);
}

static void test_avail_event(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, true);
    assert_false(pop(&f));
    assert_int_equal(avail_event(&f), 0);
    for (unsigned i = 1; i <= 3; i++) {
        add(&f, true);
        assert_true(pop(&f));
        assert_int_equal(avail_event(&f), i - 1);
        assert_false(pop(&f));
        assert_int_equal(avail_event(&f), i);
        assert_int_equal(used_flags(&f), 0);
        virtqueue_push(&f.vq, &f.chain, 0);
    }
    fake_guest_forget_written(&f.guest);
    add(&f, true);
    assert_true(pop(&f));
    assert_false(pop(&f));
    assert_true(fake_guest_was_written(&f.guest, f.driver.used + 4 + 8 * SIZE, 2));
    virtqueue_push(&f.vq, &f.chain, 0);
    stop(&f);
}

static void test_unpop(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, true);
    uint16_t first = add(&f, true), second = add(&f, true);
    struct iovec iov[4];
    struct virtqueue_chain other = {.iov = iov, .iov_max = 4};
    assert_true(pop(&f));
    assert_true(virtqueue_pop(&f.vq, &other));
    virtqueue_unpop(&f.vq, &other);
    virtqueue_unpop(&f.vq, &f.chain);
    assert_int_equal(f.idle, 1);
    assert_true(pop(&f));
    assert_int_equal(f.chain.head, first);
    assert_true(virtqueue_pop(&f.vq, &other));
    assert_int_equal(other.head, second);
    virtqueue_push(&f.vq, &other, 1);
    virtqueue_push(&f.vq, &f.chain, 2);
    fake_guest_run(&f.guest, 1);
    uint32_t id;
    assert_true(fake_queue_used(&f.driver, &id, NULL));
    assert_int_equal(id, second);
    stop(&f);
}

static void test_indirect(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, true);
    struct fake_buffer buffers[16];
    for (unsigned i = 0; i < 16; i++)
        buffers[i] = (struct fake_buffer){f.page + 16 * i, 16, i >= 4};
    fake_queue_add_indirect(&f.driver, buffers, 16);
    assert_true(pop(&f));
    assert_int_equal(f.chain.out_count, 4);
    assert_int_equal(f.chain.in_bytes, 12 * 16);
    virtqueue_push(&f.vq, &f.chain, 12 * 16);

    /* Plain descriptors, then a table (2.7.5.3.2). */
    uint64_t table = fake_guest_alloc(&f.guest, 16);
    fake_queue_set_descriptor(&f.driver, 6, f.page, 8, VRING_DESC_F_NEXT, 7);
    fake_queue_set_descriptor(&f.driver, 7, table, 16, VRING_DESC_F_INDIRECT, 0);
    uint8_t *entry = fake_guest_at(&f.guest, table, 16);
    store_le64(entry, f.page + 8);
    store_le32(entry + 8, 4);
    store_le16(entry + 12, VRING_DESC_F_WRITE);
    fake_queue_offer(&f.driver, 6);
    assert_true(pop(&f));
    assert_int_equal(f.chain.out_bytes, 8);
    assert_int_equal(f.chain.in_bytes, 4);
    virtqueue_push(&f.vq, &f.chain, 4);
    stop(&f);
}

static void test_hold(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, true);
    add(&f, true);
    add(&f, true);
    assert_true(pop(&f));
    virtqueue_hold(&f.vq, true);
    fake_guest_forget_written(&f.guest);
    struct virtqueue_chain other = {.iov = f.iov, .iov_max = 1};
    assert_false(virtqueue_pop(&f.vq, &other));
    assert_false(virtqueue_has_chain(&f.vq));
    virtqueue_push(&f.vq, &f.chain, 0);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(f.guest.written_bytes, 0);
    virtqueue_hold(&f.vq, false);
    fake_guest_run(&f.guest, 2);
    assert_int_equal(fake_queue_used_index(&f.driver), 1);
    assert_true(pop(&f));
    virtqueue_push(&f.vq, &f.chain, 0);
    /* RAM that went away while the queue was held breaks it. */
    virtqueue_hold(&f.vq, true);
    f.guest.mem.region_count = 0;
    virtqueue_hold(&f.vq, false);
    assert_int_equal(f.broken, 1);
    fake_guest_run(&f.guest, 2);
    f.guest.mem.region_count = 2;
    stop(&f);
}

static void test_enable_refuses(void **state)
{
    (void)state;
    struct fixture f;
    start_disabled(&f);
    const struct virtqueue_layout good = f.vq.layout;
    const struct virtqueue_layout bad[] = {
        {0, good.desc_gpa, good.avail_gpa, good.used_gpa},
        {3, good.desc_gpa, good.avail_gpa, good.used_gpa},
        {128, good.desc_gpa, good.avail_gpa, good.used_gpa},
        {0x8000, good.desc_gpa, good.avail_gpa, good.used_gpa},
        {SIZE, good.desc_gpa + 8, good.avail_gpa, good.used_gpa},
        {SIZE, good.desc_gpa, good.avail_gpa + 1, good.used_gpa},
        {SIZE, good.desc_gpa, good.avail_gpa, good.used_gpa + 2},
        {SIZE, FAKE_RAM_LOW - 16, good.avail_gpa, good.used_gpa},
        {SIZE, good.desc_gpa, FAKE_RAM_LOW, good.used_gpa},
        {SIZE, good.desc_gpa, good.avail_gpa, FAKE_BAR_BASE},
        {SIZE, UINT64_MAX - 15, good.avail_gpa, good.used_gpa},
        {SIZE, good.desc_gpa, UINT64_MAX - 1, good.used_gpa},
        {SIZE, good.desc_gpa, good.avail_gpa, FAKE_HIGH_GPA + FAKE_RAM_HIGH - 64},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        f.vq.layout = bad[i];
        assert_false(virtqueue_enable(&f.vq, true, true));
        assert_false(f.vq.enabled);
        assert_false(pop(&f));
    }
    f.vq.layout = good;
    assert_true(virtqueue_enable(&f.vq, true, true));
    stop(&f);
}

/* The driver adds a chain just as the device asks for kicks, and so does not kick. */
static void on_written_add(void *opaque, uint64_t gpa, uint64_t length)
{
    struct fixture *f = opaque;
    (void)length;
    f->guest.mem.on_written = NULL;
    assert_true(gpa >= f->driver.used && gpa < f->driver.used + 4096);
    add(f, true);
}

static void test_a_chain_that_comes_while_kicks_are_asked_for(void **state)
{
    (void)state;
    for (int event_idx = 0; event_idx < 2; event_idx++) {
        struct fixture f;
        start(&f, event_idx);
        f.guest.mem.on_written = on_written_add;
        f.guest.mem.opaque = &f;
        assert_true(pop(&f));
        virtqueue_push(&f.vq, &f.chain, 0);
        stop(&f);
    }
}

/* Malice: each case sets up a ring that must break the queue at the pop. */

static void bad_head(struct fixture *f)
{
    fake_queue_offer(&f->driver, SIZE);
}

static void bad_head_far(struct fixture *f)
{
    fake_queue_offer(&f->driver, UINT16_MAX);
}

static void bad_avail_jump(struct fixture *f)
{
    fake_queue_set_avail_index(&f->driver, SIZE + 1);
}

static void bad_avail_back(struct fixture *f)
{
    fake_queue_set_avail_index(&f->driver, UINT16_MAX);
}

static void descriptor(struct fixture *f, uint64_t gpa, uint32_t bytes, uint16_t flags,
                       uint16_t next)
{
    fake_queue_set_descriptor(&f->driver, 0, gpa, bytes, flags, next);
    fake_queue_offer(&f->driver, 0);
}

static void bad_next(struct fixture *f)
{
    descriptor(f, f->page, 1, VRING_DESC_F_NEXT, SIZE);
}

static void bad_loop_of_one(struct fixture *f)
{
    descriptor(f, f->page, 1, VRING_DESC_F_NEXT, 0);
}

static void bad_loop_of_all(struct fixture *f)
{
    for (uint16_t i = 0; i < SIZE; i++)
        fake_queue_set_descriptor(&f->driver, i, f->page, 1, VRING_DESC_F_NEXT,
                                  (uint16_t)((i + 1) % SIZE));
    fake_queue_offer(&f->driver, 3);
}

static void bad_empty(struct fixture *f)
{
    descriptor(f, f->page, 0, 0, 0);
}

static void bad_empty_in_the_middle(struct fixture *f)
{
    fake_queue_set_descriptor(&f->driver, 1, f->page, 0, VRING_DESC_F_WRITE, 0);
    descriptor(f, f->page, 1, VRING_DESC_F_NEXT, 1);
}

static void bad_hole(struct fixture *f)
{
    descriptor(f, FAKE_BAR_BASE, 16, VRING_DESC_F_WRITE, 0);
}

static void bad_over_the_end(struct fixture *f)
{
    descriptor(f, FAKE_RAM_LOW - 8, 16, VRING_DESC_F_WRITE, 0);
}

static void bad_across_the_hole(struct fixture *f)
{
    descriptor(f, FAKE_RAM_LOW - 4096, UINT32_MAX, 0, 0);
}

static void bad_wrap(struct fixture *f)
{
    descriptor(f, UINT64_MAX - 3, 16, 0, 0);
}

static void bad_huge(struct fixture *f)
{
    descriptor(f, 0, UINT32_MAX, 0, 0);
}

static void bad_order(struct fixture *f)
{
    fake_queue_set_descriptor(&f->driver, 1, f->page, 1, 0, 0);
    descriptor(f, f->page, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
}

static void bad_too_many(struct fixture *f)
{
    struct fake_buffer buffers[17];
    for (unsigned i = 0; i < ARRAY_SIZE(buffers); i++)
        buffers[i] = (struct fake_buffer){f->page, 1, false};
    fake_queue_add_indirect(&f->driver, buffers, ARRAY_SIZE(buffers));
}

static void bad_indirect_with_next(struct fixture *f)
{
    descriptor(f, f->page, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
}

static void bad_indirect_length(struct fixture *f)
{
    descriptor(f, f->page, 24, VRING_DESC_F_INDIRECT, 0);
}

static void bad_indirect_empty(struct fixture *f)
{
    descriptor(f, f->page, 0, VRING_DESC_F_INDIRECT, 0);
}

static void bad_indirect_oversize(struct fixture *f)
{
    descriptor(f, 0, 16 * (VIRTQUEUE_INDIRECT_MAX + 1), VRING_DESC_F_INDIRECT, 0);
}

static void bad_indirect_outside(struct fixture *f)
{
    descriptor(f, FAKE_RAM_LOW - 16, 32, VRING_DESC_F_INDIRECT, 0);
}

static void indirect_entry(struct fixture *f, uint16_t flags, uint16_t next)
{
    uint8_t *entry = fake_guest_at(&f->guest, f->page, 16);
    store_le64(entry, f->page + 64);
    store_le32(entry + 8, 16);
    store_le16(entry + 12, flags);
    store_le16(entry + 14, next);
    descriptor(f, f->page, 16, VRING_DESC_F_INDIRECT, 0);
}

static void bad_indirect_nested(struct fixture *f)
{
    indirect_entry(f, VRING_DESC_F_INDIRECT, 0);
}

static void bad_indirect_loop(struct fixture *f)
{
    indirect_entry(f, VRING_DESC_F_NEXT, 0);
}

static void bad_indirect_next(struct fixture *f)
{
    indirect_entry(f, VRING_DESC_F_NEXT, 1);
}

static void bad_head_in_flight(struct fixture *f)
{
    uint16_t head = add(f, true);
    assert_true(pop(f));
    fake_queue_offer(&f->driver, head);
}

static void bad_head_pushed_but_not_published(struct fixture *f)
{
    uint16_t head = add(f, true);
    assert_true(pop(f));
    virtqueue_push(&f->vq, &f->chain, 0);
    fake_queue_offer(&f->driver, head);
}

static void test_malice_breaks_the_queue(void **state)
{
    (void)state;
    static const struct {
        void (*play)(struct fixture *f);
        const char *why;
    } cases[] = {
        {bad_head, "head beyond"},
        {bad_head_far, "head beyond"},
        {bad_avail_jump, "available index"},
        {bad_avail_back, "available index"},
        {bad_next, "index beyond"},
        {bad_loop_of_one, "loop"},
        {bad_loop_of_all, "loop"},
        {bad_empty, "no length"},
        {bad_empty_in_the_middle, "no length"},
        {bad_hole, "not in RAM"},
        {bad_over_the_end, "not in RAM"},
        {bad_across_the_hole, "not in RAM"},
        {bad_wrap, "not in RAM"},
        {bad_huge, "not in RAM"},
        {bad_order, "readable buffer follows"},
        {bad_too_many, "more buffers"},
        {bad_indirect_with_next, "successor"},
        {bad_indirect_length, "illegal length"},
        {bad_indirect_empty, "illegal length"},
        {bad_indirect_oversize, "illegal length"},
        {bad_indirect_outside, "table is not in RAM"},
        {bad_indirect_nested, "inside an indirect"},
        {bad_indirect_loop, "loop"},
        {bad_indirect_next, "index beyond"},
        {bad_head_in_flight, "still in flight"},
        {bad_head_pushed_but_not_published, "still in flight"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture f;
        start(&f, true);
        cases[i].play(&f);
        struct virtqueue_chain popped = f.chain;
        unsigned in_flight = f.vq.in_flight;
        assert_false(pop(&f));
        assert_int_equal(f.broken, 1);
        if (!strstr(f.why, cases[i].why))
            fail_msg("case %u broke for another reason: %s", i, f.why);
        /* From now on no ring is read or written, whatever the driver offers. */
        fake_guest_forget_written(&f.guest);
        add(&f, true);
        assert_false(pop(&f));
        if (in_flight)
            virtqueue_push(&f.vq, &popped, 0);
        fake_guest_run(&f.guest, 2);
        assert_int_equal(f.guest.written_bytes, 0);
        assert_int_equal(f.interrupts, 0);
        assert_int_equal(f.broken, 1);
        stop(&f);
    }
}

static void test_indirect_only_if_negotiated(void **state)
{
    (void)state;
    struct fixture f;
    start_disabled(&f);
    assert_true(virtqueue_enable(&f.vq, false, false));
    const struct fake_buffer buffer = {f.page, 16, true};
    fake_queue_add_indirect(&f.driver, &buffer, 1);
    assert_false(pop(&f));
    assert_int_equal(f.broken, 1);
    stop(&f);
}

static void test_reset_starts_afresh(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, true);
    virtqueue_reset(&f.vq);
    assert_int_equal(f.vq.layout.size, 64);
    assert_false(f.vq.enabled);
    assert_false(pop(&f));
    f.vq.layout = (struct virtqueue_layout){SIZE, f.driver.desc, f.driver.avail, f.driver.used};
    assert_true(virtqueue_enable(&f.vq, true, true));
    add(&f, false);
    assert_true(pop(&f));
    virtqueue_push(&f.vq, &f.chain, 0);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pops_a_chain),
        cmocka_unit_test(test_wraps_around),
        cmocka_unit_test(test_one_decision_for_a_batch),
        cmocka_unit_test(test_no_interrupt_flag),
        cmocka_unit_test(test_used_event),
        cmocka_unit_test(test_kick_suppression_by_flag),
        cmocka_unit_test(test_avail_event),
        cmocka_unit_test(test_a_chain_that_comes_while_kicks_are_asked_for),
        cmocka_unit_test(test_unpop),
        cmocka_unit_test(test_indirect),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_enable_refuses),
        cmocka_unit_test(test_malice_breaks_the_queue),
        cmocka_unit_test(test_indirect_only_if_negotiated),
        cmocka_unit_test(test_reset_starts_afresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
