/* SPDX-License-Identifier: MIT */
/* The mailbox between a vCPU thread and the loop, with an accelerator that follows a script. */
#include "vmm/vcpu.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "tests/unit/test.h"

#define ROUNDS 20000

struct fake_vcpu {
    struct accel_vcpu accel; /* first */
    atomic_bool kicked;
    uint32_t port_data;
    uint32_t sum;   /* of what reads answered */
    uint32_t round; /* exits so far */
    uint32_t rounds;
    enum accel_exit_reason at_end;
    uint8_t injected;
    uint32_t stale;  /* reads that did not see the write before them */
    bool uses_index; /* writes the number of the round to 0xcf8, reads 0xcfc, and so on */
};

static struct fake_vcpu fake;
static struct loop loop;
static struct vcpu_group group;
static struct vcpu vcpu;
static unsigned parked_with[ACCEL_EXIT_REASON_COUNT];
static uint32_t writes_seen;
static uint32_t latched; /* the index register */

static int fake_create(struct accel_vm *vm, unsigned index, struct accel_vcpu **out,
                       struct error *err)
{
    (void)err;
    fake.accel = (struct accel_vcpu){vm, index};
    *out = &fake.accel;
    return 0;
}

static void fake_destroy(struct accel_vcpu *accel)
{
    (void)accel;
}

static void fake_kick(struct accel_vcpu *accel)
{
    (void)accel;
    atomic_store(&fake.kicked, true);
}

/* What was written last must be what is read; the very last write finds nobody that reads. */
static void run_index(struct accel_exit *exit)
{
    uint32_t round = fake.round++;
    if (round > 0 && round % 2 == 0)
        fake.stale += fake.port_data != round - 2;
    exit->reason = ACCEL_EXIT_PIO;
    exit->pio.is_write = round % 2 == 0;
    exit->pio.port = exit->pio.is_write ? 0xcf8 : 0xcfc;
    exit->pio.size = 4;
    exit->pio.count = 1;
    exit->pio.data = &fake.port_data;
    fake.port_data = exit->pio.is_write ? round : 0;
}

/* Alternates between reads and writes of a port, then does what `at_end` says. */
static void fake_run(struct accel_vcpu *accel, struct accel_exit *exit)
{
    (void)accel;
    if (fake.round > 0 && fake.round <= fake.rounds && fake.round % 2)
        fake.sum += fake.port_data;
    if (atomic_exchange(&fake.kicked, false)) {
        exit->reason = ACCEL_EXIT_INTR;
        return;
    }
    if (fake.uses_index && fake.round < fake.rounds) {
        run_index(exit);
        return;
    }
    if (fake.round < fake.rounds) {
        bool is_write = fake.round++ % 2;
        exit->reason = ACCEL_EXIT_PIO;
        exit->pio.port = 0x80;
        exit->pio.size = 4;
        exit->pio.is_write = is_write;
        exit->pio.count = 1;
        exit->pio.data = &fake.port_data;
        fake.port_data = is_write ? 7 : 0;
        return;
    }
    fake.round++;
    exit->reason = fake.at_end;
    exit->text = "made up";
    if (fake.at_end == ACCEL_EXIT_INTR)
        while (!atomic_exchange(&fake.kicked, false))
            __builtin_ia32_pause();
}

static int fake_inject(struct accel_vcpu *accel, uint8_t vector)
{
    (void)accel;
    fake.injected = vector;
    fake.at_end = ACCEL_EXIT_INTR;
    return 0;
}

static const struct accel_ops fake_ops = {
    .name = "fake",
    .vcpu_create = fake_create,
    .vcpu_destroy = fake_destroy,
    .vcpu_run = fake_run,
    .vcpu_kick = fake_kick,
    .vcpu_inject_extint = fake_inject,
};
static struct accel_vm fake_vm = {&fake_ops};

static void on_exit_seen(void *opaque, struct vcpu *who, const struct accel_exit *exit)
{
    loop_check_thread(opaque);
    assert_ptr_equal(who, &vcpu);
    assert_int_equal(exit->reason, ACCEL_EXIT_PIO);
    uint32_t *data = exit->pio.data;
    if (exit->pio.port == 0xcf8)
        latched = *data;
    else if (exit->pio.port == 0xcfc)
        *data = latched;
    else if (exit->pio.is_write)
        writes_seen += *data;
    else
        *data = 3;
}

static uint8_t on_extint(void *opaque, struct vcpu *who)
{
    (void)opaque, (void)who;
    return 0x38;
}

static void on_parked(void *opaque, struct vcpu *who, const struct accel_exit *exit)
{
    loop_check_thread(opaque);
    assert_true(vcpu_is_parked(who));
    parked_with[exit->reason]++;
}

static const struct vcpu_handler handler = {on_exit_seen, on_extint, on_parked};

static int set_up(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof(fake));
    memset(parked_with, 0, sizeof(parked_with));
    writes_seen = latched = 0;
    fake.at_end = ACCEL_EXIT_INTR;
    assert_int_equal(loop_init(&loop), 0);
    vcpu_group_init(&group, &loop);
    assert_int_equal(vcpu_init(&vcpu, &group, &fake_vm, 0, &handler, &loop, NULL), 0);
    assert_int_equal(vcpu_start(&vcpu, NULL), 0);
    while (!vcpu_is_parked(&vcpu))
        loop_run_once(&loop, true);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    vcpu_park(&vcpu);
    while (!vcpu_is_parked(&vcpu))
        loop_run_once(&loop, true);
    vcpu_close(&vcpu, NULL);
    loop_run(&loop);
    vcpu_fini(&vcpu);
    vcpu_group_fini(&group);
    loop_fini(&loop);
    return 0;
}

static void run_until_parked(enum accel_exit_reason reason, unsigned times)
{
    while (parked_with[reason] < times)
        loop_run_once(&loop, true);
}

static void test_exits_are_answered_in_order(void **state)
{
    (void)state;
    fake.rounds = ROUNDS;
    fake.at_end = ACCEL_EXIT_SHUTDOWN;
    vcpu_resume(&vcpu);
    run_until_parked(ACCEL_EXIT_SHUTDOWN, 1);
    assert_int_equal(fake.sum, 3 * ROUNDS / 2);
    assert_int_equal(writes_seen, 7 * ROUNDS / 2);
    assert_int_equal(vcpu.stats[ACCEL_EXIT_PIO].count, ROUNDS);
    fake.at_end = ACCEL_EXIT_INTR;
    vcpu_resume(&vcpu);
}

static void test_parking_a_busy_vcpu_again_and_again(void **state)
{
    (void)state;
    fake.rounds = UINT32_MAX;
    for (unsigned i = 0; i < 1000; i++) {
        vcpu_resume(&vcpu);
        loop_run_once(&loop, false);
        vcpu_park(&vcpu);
        vcpu_park(&vcpu);
        run_until_parked(ACCEL_EXIT_INTR, i + 2);
        uint32_t round = fake.round;
        loop_run_once(&loop, false);
        assert_int_equal(fake.round, round);
    }
    assert_int_equal(parked_with[ACCEL_EXIT_INTR], 1001);
    vcpu_resume(&vcpu);
}

static void test_errors_and_debug_stops_park(void **state)
{
    (void)state;
    fake.at_end = ACCEL_EXIT_ERROR;
    vcpu_resume(&vcpu);
    run_until_parked(ACCEL_EXIT_ERROR, 1);
    fake.at_end = ACCEL_EXIT_DEBUG;
    vcpu_resume(&vcpu);
    run_until_parked(ACCEL_EXIT_DEBUG, 1);
    fake.at_end = ACCEL_EXIT_INTR;
    vcpu_resume(&vcpu);
}

static void test_extint_gets_the_vector(void **state)
{
    (void)state;
    fake.at_end = ACCEL_EXIT_EXTINT;
    vcpu_resume(&vcpu);
    while (!vcpu.stats[ACCEL_EXIT_EXTINT].count)
        loop_run_once(&loop, false);
    vcpu_park(&vcpu);
    run_until_parked(ACCEL_EXIT_INTR, 2);
    assert_int_equal(fake.injected, 0x38);
    vcpu_resume(&vcpu);
}

static void test_an_index_is_written_before_it_is_used(void **state)
{
    (void)state;
    fake.uses_index = true;
    fake.rounds = ROUNDS + 1;
    fake.at_end = ACCEL_EXIT_SHUTDOWN;
    vcpu_resume(&vcpu);
    run_until_parked(ACCEL_EXIT_SHUTDOWN, 1);
    assert_int_equal(fake.stale, 0);
    assert_int_equal(latched, ROUNDS);
    assert_int_equal(vcpu.stats[ACCEL_EXIT_PIO].count, ROUNDS + 1);
    fake.uses_index = false;
    fake.at_end = ACCEL_EXIT_INTR;
    vcpu_resume(&vcpu);
}

static struct accel_exit write_of(uint16_t port, uint8_t size, uint32_t *value)
{
    return (struct accel_exit){.reason = ACCEL_EXIT_PIO, .pio = {port, size, true, 1, value}};
}

static void test_the_last_write_of_an_index_counts(void **state)
{
    (void)state;
    struct posted posted = {0};
    uint32_t values[] = {11, 22, 33}, data;
    struct accel_exit writes[] = {write_of(0xcf8, 4, &values[0]), write_of(0xcf8, 4, &values[1]),
                                  write_of(0x70, 1, &values[2])};
    struct accel_exit taken;

    assert_true(posted_put(&posted, &writes[0]));
    assert_true(posted_put(&posted, &writes[1]));
    assert_false(posted_put(&posted, &writes[2])); /* another's waits */
    assert_true(posted_take(&posted, &taken, &data));
    assert_int_equal(taken.reason, ACCEL_EXIT_PIO);
    assert_int_equal(taken.pio.port, 0xcf8);
    assert_int_equal(taken.pio.size, 4);
    assert_true(taken.pio.is_write);
    assert_int_equal(taken.pio.count, 1);
    assert_ptr_equal(taken.pio.data, &data);
    assert_int_equal(data, 22);
    assert_false(posted_take(&posted, &taken, &data));
    assert_true(posted_put(&posted, &writes[2]));
}

static void test_the_ioapics_index_can_wait_and_its_data_cannot(void **state)
{
    (void)state;
    struct posted posted = {0};
    uint32_t value = 0x10, data;
    struct accel_exit write = {.reason = ACCEL_EXIT_MMIO, .mmio = {0xfec00000, 4, true, &value}};
    struct accel_exit taken;

    assert_true(posted_put(&posted, &write));
    assert_true(posted_take(&posted, &taken, &data));
    assert_int_equal(taken.reason, ACCEL_EXIT_MMIO);
    assert_int_equal(taken.mmio.gpa, 0xfec00000);
    assert_int_equal(taken.mmio.size, 4);
    assert_true(taken.mmio.is_write);
    assert_int_equal(*(uint32_t *)taken.mmio.data, 0x10);
    write.mmio.gpa += 0x10;
    assert_false(posted_put(&posted, &write));
    write.mmio.gpa -= 0x10;
    write.mmio.is_write = false;
    assert_false(posted_put(&posted, &write));
}

static void test_what_acts_is_never_put_off(void **state)
{
    (void)state;
    struct posted posted = {0};
    uint32_t value = 6;
    struct accel_exit reset = write_of(0xcf9, 1, &value), byte = write_of(0xcf8, 1, &value);
    struct accel_exit data = write_of(0xcfc, 4, &value), string = write_of(0xcf8, 4, &value);
    struct accel_exit read = string, parked = {.reason = ACCEL_EXIT_INTR};

    string.pio.count = 2;
    read.pio.is_write = false;
    assert_false(posted_put(&posted, &reset));
    assert_false(posted_put(&posted, &byte));
    assert_false(posted_put(&posted, &data));
    assert_false(posted_put(&posted, &string));
    assert_false(posted_put(&posted, &read));
    assert_false(posted_put(&posted, &parked));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_exits_are_answered_in_order),
        TEST(test_parking_a_busy_vcpu_again_and_again),
        TEST(test_errors_and_debug_stops_park),
        TEST(test_extint_gets_the_vector),
        TEST(test_an_index_is_written_before_it_is_used),
        cmocka_unit_test(test_the_last_write_of_an_index_counts),
        cmocka_unit_test(test_the_ioapics_index_can_wait_and_its_data_cannot),
        cmocka_unit_test(test_what_acts_is_never_put_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
