/* SPDX-License-Identifier: MIT */
#include "vmm/soft/lapic.h"

#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/unit/test.h"

#define CPUS 4

struct fixture {
    struct lapic_hub hub;
    struct lapic lapics[CPUS];
};

static uint64_t clock_ns;
static _Atomic unsigned attentions;

static void on_attention(struct lapic *lapic)
{
    (void)lapic;
    attentions++;
}

static uint64_t now_ns(struct lapic *lapic)
{
    (void)lapic;
    return clock_ns;
}

/* The guest's TSC runs at 2 GHz. */
static uint64_t tsc_to_ns(struct lapic *lapic, uint64_t tsc)
{
    (void)lapic;
    return tsc / 2;
}

static const struct lapic_ops ops = {on_attention, now_ns, tsc_to_ns};

static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    clock_ns = 1000;
    for (unsigned i = 0; i < CPUS; i++) {
        lapic_init(&f.lapics[i], &f.hub, &ops);
        lapic_mmio_write(&f.lapics[i], 0xf0, 0x1ff);
    }
    attentions = 0;
    *state = &f;
    return 0;
}

static void enter_x2apic(struct fixture *f)
{
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(
            lapic_msr_write(&f->lapics[i], 0x1b, lapic_get_base(&f->lapics[i]) | (1 << 10)));
}

/* Which CPUs have something pending, as a mask; takes and ends it. */
static unsigned drain(struct fixture *f, int vector)
{
    unsigned mask = 0;

    for (unsigned i = 0; i < CPUS; i++) {
        int got = lapic_acknowledge(&f->lapics[i]);

        if (got < 0)
            continue;
        assert_int_equal(got, vector);
        lapic_mmio_write(&f->lapics[i], 0xb0, 0);
        assert_int_equal(lapic_acknowledge(&f->lapics[i]), -1);
        mask |= 1u << i;
    }
    return mask;
}

static void ipi(struct fixture *f, unsigned from, uint32_t icr2, uint32_t icr)
{
    lapic_mmio_write(&f->lapics[from], 0x310, icr2);
    lapic_mmio_write(&f->lapics[from], 0x300, icr);
}

static void test_power_on(void **state)
{
    struct fixture *f = *state;
    struct lapic *second = &f->lapics[1];

    assert_int_equal(lapic_get_base(&f->lapics[0]), 0xfee00900);
    assert_int_equal(lapic_get_base(second), 0xfee00800);
    assert_int_equal(lapic_mmio_read(second, 0x20), 1u << 24);
    assert_int_equal(lapic_mmio_read(second, 0x30), 0x50014);
    assert_int_equal(lapic_mmio_read(second, 0x350), 0x10000);
    assert_int_equal(lapic_mmio_read(second, 0xe0), UINT32_MAX);
    assert_true(lapic_covers(second, 0xfee00ffc));
    assert_false(lapic_covers(second, 0xfee01000));
}

static void test_priorities(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[0];

    lapic_msi(&f->hub, 0xfee00000, 0x45);
    lapic_msi(&f->hub, 0xfee00000, 0x61);
    assert_int_equal(lapic_pending(lapic), 0x61);
    assert_int_equal(lapic_acknowledge(lapic), 0x61);
    assert_int_equal(lapic_mmio_read(lapic, 0xa0), 0x60);
    assert_int_equal(lapic_pending(lapic), -1);
    lapic_msi(&f->hub, 0xfee00000, 0x6f); /* same class waits */
    assert_int_equal(lapic_pending(lapic), -1);
    lapic_msi(&f->hub, 0xfee00000, 0x70);
    assert_int_equal(lapic_acknowledge(lapic), 0x70);
    attentions = 0;
    lapic_mmio_write(lapic, 0xb0, 0);
    assert_int_equal(attentions, 0);
    lapic_mmio_write(lapic, 0xb0, 0);
    assert_int_equal(attentions, 1);
    assert_int_equal(lapic_acknowledge(lapic), 0x6f);
    lapic_mmio_write(lapic, 0xb0, 0);
    lapic_set_cr8(lapic, 4);
    assert_int_equal(lapic_mmio_read(lapic, 0x80), 0x40);
    assert_int_equal(lapic_pending(lapic), -1);
    lapic_set_cr8(lapic, 3);
    assert_int_equal(lapic_pending(lapic), 0x45);
    lapic_mmio_write(lapic, 0x80, 0x4a);
    assert_int_equal(lapic_get_cr8(lapic), 4);
    assert_int_equal(lapic_mmio_read(lapic, 0xa0), 0x4a);
}

static void test_eoi_of_level(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[2];

    lapic_msi(&f->hub, 0xfee02000, 0xc031); /* level, asserted */
    assert_int_equal(lapic_mmio_read(lapic, 0x190), 1u << 0x11);
    assert_int_equal(lapic_acknowledge(lapic), 0x31);
    assert_int_equal(lapic_take_eoi(lapic), -1);
    lapic_mmio_write(lapic, 0xb0, 0);
    assert_int_equal(lapic_take_eoi(lapic), 0x31);
    assert_int_equal(lapic_take_eoi(lapic), -1);
    lapic_msi(&f->hub, 0xfee02000, 0x31); /* edge: TMR is cleared */
    assert_int_equal(lapic_acknowledge(lapic), 0x31);
    lapic_mmio_write(lapic, 0xb0, 0);
    assert_int_equal(lapic_take_eoi(lapic), -1);
    lapic_mmio_write(lapic, 0xb0, 0); /* nothing in service */
    assert_int_equal(lapic_take_eoi(lapic), -1);
}

static void test_destinations(void **state)
{
    struct fixture *f = *state;

    ipi(f, 0, 3u << 24, 0x4031);
    assert_int_equal(drain(f, 0x31), 1 << 3);
    ipi(f, 0, 0xffu << 24, 0x4031);
    assert_int_equal(drain(f, 0x31), 0xf);
    ipi(f, 1, 0, 0x44031);
    assert_int_equal(drain(f, 0x31), 1 << 1);
    ipi(f, 1, 0, 0x84031);
    assert_int_equal(drain(f, 0x31), 0xf);
    ipi(f, 1, 0, 0xc4031);
    assert_int_equal(drain(f, 0x31), 0xd);
    ipi(f, 1, 9u << 24, 0x4031); /* nobody */
    assert_int_equal(drain(f, 0x31), 0);
}

static void test_logical_flat(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < CPUS; i++)
        lapic_mmio_write(&f->lapics[i], 0xd0, 1u << (24 + i));
    ipi(f, 0, 0xau << 24, 0x4831);
    assert_int_equal(drain(f, 0x31), 0xa);
    lapic_msi(&f->hub, 0xfee05004, 0x31);
    assert_int_equal(drain(f, 0x31), 5);
}

static void test_logical_cluster(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < CPUS; i++) {
        lapic_mmio_write(&f->lapics[i], 0xe0, 0x0fffffff);
        lapic_mmio_write(&f->lapics[i], 0xd0, (i / 2) << 28 | 1u << (24 + i % 2));
    }
    ipi(f, 0, 0x13u << 24, 0x4831);
    assert_int_equal(drain(f, 0x31), 0xc);
    ipi(f, 0, 0x02u << 24, 0x4831);
    assert_int_equal(drain(f, 0x31), 2);
}

static void test_lowest_priority(void **state)
{
    struct fixture *f = *state;
    unsigned seen = 0;

    lapic_set_cr8(&f->lapics[1], 1);
    for (unsigned i = 0; i < 3 * CPUS; i++) {
        lapic_msi(&f->hub, 0xfeeff000, 0x131);
        unsigned mask = drain(f, 0x31);

        assert_true(is_power_of_2(mask));
        seen |= mask;
    }
    assert_int_equal(seen, 0xd); /* in turn, but not the busy one */
}

static void test_events(void **state)
{
    struct fixture *f = *state;

    ipi(f, 0, 0, 0xc4500); /* INIT to the others */
    ipi(f, 0, 0, 0xc8500); /* de-assert: nothing */
    assert_false(lapic_has_events(&f->lapics[0], LAPIC_EVENT_INIT));
    assert_int_equal(lapic_take_events(&f->lapics[1], LAPIC_EVENT_INIT), LAPIC_EVENT_INIT);
    assert_int_equal(lapic_take_events(&f->lapics[1], LAPIC_EVENT_INIT), 0);
    ipi(f, 0, 2u << 24, 0x4609);
    assert_int_equal(lapic_sipi_vector(&f->lapics[2]), 9);
    assert_int_equal(lapic_take_events(&f->lapics[2], LAPIC_EVENT_SIPI | LAPIC_EVENT_NMI),
                     LAPIC_EVENT_SIPI);
    lapic_msi(&f->hub, 0xfee03000, 0x400);
    assert_true(lapic_has_events(&f->lapics[3], LAPIC_EVENT_NMI));
}

static void test_illegal_vectors(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[0];

    lapic_mmio_write(lapic, 0x370, 0xfe);
    ipi(f, 0, 1u << 24, 0x400f);
    assert_int_equal(drain(f, 0xfe), 1);
    assert_int_equal(lapic_mmio_read(lapic, 0x280), 0); /* latched by a write only */
    lapic_mmio_write(lapic, 0x280, 0);
    assert_int_equal(lapic_mmio_read(lapic, 0x280), 1 << 5);
    lapic_msi(&f->hub, 0xfee00000, 3);
    assert_int_equal(drain(f, 0xfe), 1);
    lapic_mmio_write(lapic, 0x280, 0);
    assert_int_equal(lapic_mmio_read(lapic, 0x280), 1 << 6);
    assert_int_equal(lapic_mmio_read(lapic, 0x40), 0);
    lapic_mmio_write(lapic, 0x280, 0);
    assert_int_equal(lapic_mmio_read(lapic, 0x280), 1 << 7);
    lapic_msi(&f->hub, 0xfed00000, 0x31); /* not a message's address */
    assert_int_equal(lapic_pending(lapic), 0xfe);
}

static void test_switched_off(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[0];

    lapic_mmio_write(lapic, 0x350, 0x700);
    assert_true(lapic_accepts_extint(lapic));
    lapic_mmio_write(lapic, 0xf0, 0xff);
    assert_int_equal(lapic_mmio_read(lapic, 0x350), 0x10700);
    assert_false(lapic_accepts_extint(lapic));
    lapic_mmio_write(lapic, 0x350, 0x700); /* stays masked while off */
    assert_int_equal(lapic_mmio_read(lapic, 0x350), 0x10700);
    lapic_msi(&f->hub, 0xfee00000, 0x31);
    assert_int_equal(lapic_pending(lapic), -1);
    lapic_msi(&f->hub, 0xfee00000, 0x400);
    assert_true(lapic_has_events(lapic, LAPIC_EVENT_NMI));
    assert_true(lapic_msr_write(lapic, 0x1b, 0xfee00100));
    assert_false(lapic_covers(lapic, 0xfee00000));
    assert_true(lapic_accepts_extint(lapic));
    lapic_take_events(lapic, LAPIC_EVENT_NMI);
    lapic_msi(&f->hub, 0xfee00000, 0x400);
    assert_false(lapic_has_events(lapic, LAPIC_EVENT_NMI));
}

static void test_one_shot(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[0];

    lapic_mmio_write(lapic, 0x320, 0xec);
    lapic_mmio_write(lapic, 0x3e0, 0x3); /* by 16 */
    lapic_mmio_write(lapic, 0x380, 100);
    assert_int_equal(lapic_deadline_ns(lapic), 1000 + 1600);
    clock_ns += 800;
    assert_int_equal(lapic_mmio_read(lapic, 0x390), 50);
    lapic_mmio_write(lapic, 0x3e0, 0xb); /* by 1: the rest counts faster */
    assert_int_equal(lapic_deadline_ns(lapic), 1800 + 50);
    clock_ns += 49;
    lapic_run_timer(lapic);
    assert_int_equal(lapic_pending(lapic), -1);
    clock_ns += 1;
    lapic_run_timer(lapic);
    assert_int_equal(lapic_acknowledge(lapic), 0xec);
    assert_int_equal(lapic_deadline_ns(lapic), LAPIC_NO_DEADLINE);
    assert_int_equal(lapic_mmio_read(lapic, 0x390), 0);
}

static void test_periodic(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[0];

    lapic_mmio_write(lapic, 0x320, 0x200ec);
    lapic_mmio_write(lapic, 0x3e0, 0x0); /* by 2 */
    lapic_mmio_write(lapic, 0x380, 50);
    clock_ns += 350; /* three periods and a half */
    lapic_run_timer(lapic);
    assert_int_equal(drain(f, 0xec), 1);
    assert_int_equal(lapic_deadline_ns(lapic), 1400);
    lapic_mmio_write(lapic, 0x320, 0x300ec | 0x10000); /* masked */
    lapic_mmio_write(lapic, 0x320, 0x200ec | 0x10000);
    lapic_mmio_write(lapic, 0x380, 50);
    clock_ns += 100;
    lapic_run_timer(lapic);
    assert_int_equal(drain(f, 0xec), 0);
    lapic_mmio_write(lapic, 0x380, 0);
    assert_int_equal(lapic_deadline_ns(lapic), LAPIC_NO_DEADLINE);
}

static void test_tsc_deadline(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[0];
    uint64_t value;

    assert_true(lapic_msr_write(lapic, 0x6e0, 5000)); /* not in that mode: ignored */
    assert_int_equal(lapic_deadline_ns(lapic), LAPIC_NO_DEADLINE);
    lapic_mmio_write(lapic, 0x320, 0x400ec);
    lapic_mmio_write(lapic, 0x380, 50); /* ignored in this mode */
    assert_int_equal(lapic_deadline_ns(lapic), LAPIC_NO_DEADLINE);
    assert_true(lapic_msr_write(lapic, 0x6e0, 5000));
    assert_int_equal(lapic_deadline_ns(lapic), 2500);
    clock_ns = 2500;
    assert_true(lapic_msr_read(lapic, 0x6e0, &value));
    assert_int_equal(value, 5000);
    lapic_run_timer(lapic);
    assert_int_equal(drain(f, 0xec), 1);
    assert_true(lapic_msr_read(lapic, 0x6e0, &value));
    assert_int_equal(value, 0);
    assert_true(lapic_msr_write(lapic, 0x6e0, 6000));
    assert_true(lapic_msr_write(lapic, 0x6e0, 0));
    assert_int_equal(lapic_deadline_ns(lapic), LAPIC_NO_DEADLINE);
    assert_true(lapic_msr_write(lapic, 0x6e0, 6000));
    lapic_mmio_write(lapic, 0x320, 0xec); /* leaving the mode disarms */
    assert_int_equal(lapic_deadline_ns(lapic), LAPIC_NO_DEADLINE);
}

static void test_x2apic(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[1];
    uint64_t value;

    assert_false(lapic_msr_read(lapic, 0x802, &value));
    enter_x2apic(f);
    assert_false(lapic_covers(lapic, 0xfee00000));
    assert_true(lapic_msr_read(lapic, 0x802, &value));
    assert_int_equal(value, 1);
    assert_true(lapic_msr_read(lapic, 0x80d, &value));
    assert_int_equal(value, 2);
    assert_true(lapic_msr_write(lapic, 0x830, (UINT64_C(2) << 32) | 0x31));
    assert_int_equal(drain(f, 0x31), 4);
    assert_true(lapic_msr_read(lapic, 0x830, &value));
    assert_int_equal(value, (UINT64_C(2) << 32) | 0x31);
    assert_true(lapic_msr_write(lapic, 0x830, (UINT64_C(0x0000000c) << 32) | 0x831));
    assert_int_equal(drain(f, 0x31), 0xc);
    assert_true(lapic_msr_write(lapic, 0x830, (UINT64_C(0xffffffff) << 32) | 0x31));
    assert_int_equal(drain(f, 0x31), 0xf);
    assert_true(lapic_msr_write(lapic, 0x830, (UINT64_C(0xff) << 32) | 0x31));
    assert_int_equal(drain(f, 0x31), 0);
    assert_true(lapic_msr_write(lapic, 0x83f, 0x31));
    assert_int_equal(drain(f, 0x31), 2);
    lapic_msi(&f->hub, 0xfeeff000, 0x31);
    assert_int_equal(drain(f, 0x31), 0xf);
}

static void test_x2apic_refuses(void **state)
{
    static const uint32_t not_readable[] = {0x800, 0x80b, 0x80e, 0x831, 0x83f, 0x840, 0x8ff, 0x809};
    static const uint32_t not_writable[] = {0x802, 0x803, 0x80a, 0x80d, 0x80e,
                                            0x810, 0x820, 0x831, 0x839, 0x8ff};
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[1];
    uint64_t value;

    enter_x2apic(f);
    for (unsigned i = 0; i < ARRAY_SIZE(not_readable); i++)
        assert_false(lapic_msr_read(lapic, not_readable[i], &value));
    for (unsigned i = 0; i < ARRAY_SIZE(not_writable); i++)
        assert_false(lapic_msr_write(lapic, not_writable[i], 0));
    assert_false(lapic_msr_write(lapic, 0x80b, 1));
    assert_false(lapic_msr_write(lapic, 0x808, 0x100));
    assert_false(lapic_msr_write(lapic, 0x832, UINT64_C(1) << 32));
    assert_false(lapic_msr_write(lapic, 0x1b, 0xfee00800)); /* back to xAPIC directly */
    assert_false(lapic_msr_write(lapic, 0x1b, 0xfee00400));
    assert_false(lapic_msr_write(lapic, 0x1b, UINT64_C(1) << 52 | 0xfee00c00));
    assert_true(lapic_msr_write(lapic, 0x1b, 0xfee00000));
    assert_false(lapic_msr_write(lapic, 0x1b, 0xfee00c00)); /* nor from off */
}

static void test_reset(void **state)
{
    struct fixture *f = *state;
    struct lapic *lapic = &f->lapics[0];

    lapic_mmio_write(lapic, 0x320, 0x200ec);
    lapic_mmio_write(lapic, 0x380, 50);
    lapic_msi(&f->hub, 0xfee00000, 0x31);
    lapic_reset(lapic);
    assert_int_equal(lapic_pending(lapic), -1);
    assert_int_equal(lapic_deadline_ns(lapic), LAPIC_NO_DEADLINE);
    assert_int_equal(lapic_mmio_read(lapic, 0xf0), 0xff);
    assert_int_equal(lapic_mmio_read(lapic, 0x320), 0x10000);
}

static void test_state_travels(void **state)
{
    struct fixture *f = *state;
    struct kvm_lapic_state saved;

    lapic_mmio_write(&f->lapics[1], 0x320, 0xec);
    lapic_mmio_write(&f->lapics[1], 0x3e0, 0xb);
    lapic_mmio_write(&f->lapics[1], 0x380, 500);
    lapic_msi(&f->hub, 0xfee01000, 0x31);
    clock_ns += 100;
    lapic_get_state(&f->lapics[1], &saved);
    assert_int_equal(load_le32(saved.regs + 0x20), 1u << 24);
    assert_int_equal(load_le32(saved.regs + 0x390), 400);
    clock_ns += 1000;
    lapic_set_state(&f->lapics[2], &saved);
    assert_int_equal(lapic_mmio_read(&f->lapics[2], 0x20), 2u << 24);
    assert_int_equal(lapic_pending(&f->lapics[2]), 0x31);
    assert_int_equal(lapic_deadline_ns(&f->lapics[2]), clock_ns + 400);
}

/* Any state that a client hands in must leave a LAPIC that works on. */
static void test_hostile_state(void **state)
{
    struct fixture *f = *state;
    struct kvm_lapic_state junk;

    memset(&junk, 0xff, sizeof(junk));
    lapic_set_state(&f->lapics[0], &junk);
    lapic_run_timer(&f->lapics[0]);
    clock_ns = UINT64_MAX - 1;
    lapic_run_timer(&f->lapics[0]);
    for (uint32_t offset = 0; offset < 0x1000; offset += 4)
        lapic_mmio_write(&f->lapics[0], offset, lapic_mmio_read(&f->lapics[0], offset));
    assert_int_equal(lapic_mmio_read(&f->lapics[0], 0x20), 0);
}

#define MESSAGES 20000

static void *send_many(void *opaque)
{
    struct fixture *f = opaque;

    for (unsigned i = 0; i < MESSAGES; i++)
        lapic_msi(&f->hub, 0xfee00000, 0x20 + i % 64);
    return NULL;
}

/* A vector sent after the last acknowledge of it is never lost. */
static void test_senders_on_other_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[2];
    uint8_t seen[256] = {0};

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, f), 0);
    for (unsigned i = 0; i < MESSAGES; i++) {
        if (lapic_acknowledge(&f->lapics[0]) >= 0)
            lapic_mmio_write(&f->lapics[0], 0xb0, 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    send_many(f);
    for (int vector; (vector = lapic_acknowledge(&f->lapics[0])) >= 0;) {
        seen[vector] = 1;
        lapic_mmio_write(&f->lapics[0], 0xb0, 0);
    }
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(seen[0x20 + i], 1);
}

#define LAPIC_TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        LAPIC_TEST(test_power_on),
        LAPIC_TEST(test_priorities),
        LAPIC_TEST(test_eoi_of_level),
        LAPIC_TEST(test_destinations),
        LAPIC_TEST(test_logical_flat),
        LAPIC_TEST(test_logical_cluster),
        LAPIC_TEST(test_lowest_priority),
        LAPIC_TEST(test_events),
        LAPIC_TEST(test_illegal_vectors),
        LAPIC_TEST(test_switched_off),
        LAPIC_TEST(test_one_shot),
        LAPIC_TEST(test_periodic),
        LAPIC_TEST(test_tsc_deadline),
        LAPIC_TEST(test_x2apic),
        LAPIC_TEST(test_x2apic_refuses),
        LAPIC_TEST(test_reset),
        LAPIC_TEST(test_state_travels),
        LAPIC_TEST(test_hostile_state),
        LAPIC_TEST(test_senders_on_other_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
