/* SPDX-License-Identifier: MIT */
/* The policies of -drive, with the machine's wish to stop and the device's retry counted here. */
#include "vmm/disk_policy.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/test.h"
#include "vmm/machine_private.h"

static unsigned stops, retries, told, calls_home;
static struct device *retried;
static struct machine_block_error last;

void lifecycle_io_error(struct machine *machine)
{
    (void)machine;
    stops++;
}

void virtio_blk_retry(struct device *device)
{
    retried = device;
    retries++;
}

void machine_call_home(struct machine *machine, unsigned drive)
{
    (void)machine;
    assert_int_equal(drive, 1);
    calls_home++;
}

static void on_block_error(void *opaque, const struct machine_block_error *error)
{
    (void)opaque;
    told++;
    last = *error;
}

struct fixture {
    struct config_disk drives[2];
    struct vm_config config;
    struct disk_policy policies[2];
    struct machine machine;
    struct loop loop; /* only asked whose it is */
    struct device device;
};

static void start(struct fixture *f, enum config_on_error werror, enum config_on_error rerror)
{
    memset(f, 0, sizeof(*f));
    f->drives[1] = (struct config_disk){.id = "data", .werror = werror, .rerror = rerror};
    f->config.disks = f->drives;
    f->config.disk_count = 2;
    f->machine.config = &f->config;
    f->machine.loop = &f->loop;
    f->loop.thread = pthread_self();
    f->machine.disk_policies = f->policies;
    f->machine.lifecycle.listener.on_block_error = on_block_error;
    f->policies[1] = (struct disk_policy){.machine = &f->machine, .drive = 1, .device = &f->device};
    stops = retries = told = calls_home = 0;
    retried = NULL;
}

static enum virtio_blk_action fail_one(struct fixture *f, enum disk_op op, int error)
{
    return disk_policy_on_error(&f->policies[1], op, error);
}

static void test_policies(void **state)
{
    (void)state;
    static const struct {
        enum config_on_error policy;
        int error;
        enum virtio_blk_action action;
        const char *name;
    } cases[] = {
        {ON_ERROR_REPORT, EIO, VIRTIO_BLK_REPORT, "report"},
        {ON_ERROR_REPORT, ENOSPC, VIRTIO_BLK_REPORT, "report"},
        {ON_ERROR_IGNORE, EIO, VIRTIO_BLK_IGNORE, "ignore"},
        {ON_ERROR_STOP, EIO, VIRTIO_BLK_HOLD, "stop"},
        {ON_ERROR_ENOSPC, ENOSPC, VIRTIO_BLK_HOLD, "stop"},
        {ON_ERROR_ENOSPC, EIO, VIRTIO_BLK_REPORT, "report"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        for (int is_read = 0; is_read < 2; is_read++) {
            struct fixture f;
            enum config_on_error other = ON_ERROR_IGNORE;
            start(&f, is_read ? other : cases[i].policy, is_read ? cases[i].policy : other);
            assert_int_equal(fail_one(&f, is_read ? DISK_READ : DISK_WRITE, cases[i].error),
                             cases[i].action);
            assert_int_equal(told, 1);
            assert_int_equal(last.disk, 1);
            assert_int_equal(last.is_read, is_read);
            assert_int_equal(last.code, cases[i].error);
            assert_string_equal(last.action, cases[i].name);
            bool is_held = cases[i].action == VIRTIO_BLK_HOLD;
            assert_int_equal(stops, is_held);
            assert_int_equal(f.policies[1].held_error, is_held ? cases[i].error : 0);
        }
    }
}

static void test_everything_but_reads_is_a_write(void **state)
{
    (void)state;
    static const enum disk_op ops[] = {DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_ZERO};
    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
        struct fixture f;
        start(&f, ON_ERROR_STOP, ON_ERROR_REPORT);
        assert_int_equal(fail_one(&f, ops[i], EIO), VIRTIO_BLK_HOLD);
    }
}

static void test_retry_once_for_all_that_is_held(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ON_ERROR_STOP, ON_ERROR_STOP);
    disk_policy_retry(&f.machine);
    assert_int_equal(retries, 0);
    fail_one(&f, DISK_WRITE, EIO);
    fail_one(&f, DISK_READ, ENOSPC);
    disk_policy_retry(&f.machine);
    assert_int_equal(retries, 1);
    assert_ptr_equal(retried, &f.device);
    disk_policy_retry(&f.machine);
    assert_int_equal(retries, 1);
    fail_one(&f, DISK_WRITE, EIO);
    disk_policy_forget(&f.machine);
    disk_policy_retry(&f.machine);
    assert_int_equal(retries, 1);
}

/* An I/O thread must not decide: what a failure means to the machine is the machine's affair. */
static void test_an_io_thread_asks_the_machine(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ON_ERROR_STOP, ON_ERROR_REPORT);
    f.loop.thread = 0;
    assert_int_equal(fail_one(&f, DISK_WRITE, EIO), VIRTIO_BLK_ASK_AGAIN);
    assert_int_equal(fail_one(&f, DISK_READ, EIO), VIRTIO_BLK_ASK_AGAIN);
    assert_int_equal(calls_home, 2);
    assert_int_equal(told + stops + f.policies[1].held_error, 0);
    f.loop.thread = pthread_self();
    assert_int_equal(fail_one(&f, DISK_WRITE, EIO), VIRTIO_BLK_HOLD);
    assert_int_equal(fail_one(&f, DISK_READ, EIO), VIRTIO_BLK_REPORT);
    assert_int_equal(calls_home, 2);
}

static void test_nobody_listens(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, ON_ERROR_STOP, ON_ERROR_STOP);
    f.machine.lifecycle.listener.on_block_error = NULL;
    assert_int_equal(fail_one(&f, DISK_WRITE, EIO), VIRTIO_BLK_HOLD);
    assert_int_equal(stops, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_everything_but_reads_is_a_write),
        cmocka_unit_test(test_retry_once_for_all_that_is_held),
        cmocka_unit_test(test_an_io_thread_asks_the_machine),
        cmocka_unit_test(test_nobody_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
