/* SPDX-License-Identifier: MIT */
/* What keeps the loops of I/O threads at home, one reason at a time, with disks that only answer.
 */
#include "vmm/machine_io_threads.h"

#include <errno.h>
#include <string.h>

#include "base/side_loop.h"
#include "tests/unit/test.h"
#include "vmm/machine_block.h"
#include "vmm/machine_private.h"

#define DRIVES 3u /* the first on the first thread, the second on the second, the third at home */

struct disk {
    struct loop *loop;
    bool is_whole, is_alone, is_at_rest;
};

struct fake_device {
    struct device device; /* first */
    bool is_on_its_own;
    unsigned decisions;
};

static struct fixture {
    struct loop home;
    struct machine machine;
    struct vm_config config;
    struct config_disk drives[DRIVES];
    struct disk *table[DRIVES];
    struct disk_policy policies[DRIVES];
    struct disk disks[DRIVES];
    struct fake_device devices[DRIVES];
    bool block_is_busy;
    unsigned closings;
    bool has_closed;
} f;

struct loop *disk_loop(const struct disk *disk)
{
    return disk->loop;
}

const char *disk_path(const struct disk *disk)
{
    (void)disk;
    return "image";
}

int disk_move(struct disk *disk, struct loop *loop)
{
    if (!disk->is_at_rest)
        return -EBUSY;
    disk->loop = loop;
    return 0;
}

bool disk_gather(struct disk *disk)
{
    return disk->is_whole;
}

bool disk_is_alone(const struct disk *disk)
{
    return disk->is_alone;
}

bool virtio_pci_is_on_its_own(const struct device *device)
{
    return ((const struct fake_device *)device)->is_on_its_own;
}

void virtio_blk_decide(struct device *device)
{
    ((struct fake_device *)device)->decisions++;
}

bool machine_block_is_busy(const struct machine *machine)
{
    (void)machine;
    return f.block_is_busy;
}

void hotplug_close_begins(struct machine *machine)
{
    machine->hotplug.closing++;
}

void hotplug_close_ends(struct machine *machine)
{
    machine->hotplug.closing--;
    f.closings++;
}

static void make_drive(unsigned index, unsigned thread)
{
    f.drives[index].io_thread = thread;
    f.table[index] = &f.disks[index];
    f.disks[index] = (struct disk){machine_drive_loop(&f.machine, index), true, true, true};
    f.devices[index] = (struct fake_device){.is_on_its_own = true};
    f.policies[index].device = &f.devices[index].device;
}

static int set_up(void **state)
{
    (void)state;
    struct error err = {0};
    memset(&f, 0, sizeof(f));
    assert_int_equal(loop_init(&f.home), 0);
    f.config.disks = f.drives;
    f.config.disk_count = DRIVES;
    f.config.guest.io_threads[0] = (char[]){"io0"};
    f.config.guest.io_threads[1] = (char[]){"io1"};
    f.machine.loop = &f.home;
    f.machine.config = &f.config;
    f.machine.disks = f.table;
    f.machine.disk_policies = f.policies;
    f.machine.lifecycle.state = MACHINE_RUNNING;
    list_init(&f.machine.lifecycle.ops);
    assert_int_equal(machine_make_io_loops(&f.machine, &err), 0);
    for (unsigned i = 0; i < DRIVES; i++)
        make_drive(i, (i + 1) % DRIVES);
    assert_int_equal(machine_start_io_threads(&f.machine, &err), 0);
    return 0;
}

static void on_closed(struct machine *machine)
{
    (void)machine;
    f.has_closed = true;
}

static int tear_down(void **state)
{
    (void)state;
    machine_close_io_threads(&f.machine, on_closed);
    while (!f.has_closed)
        loop_run_once(&f.home, true);
    loop_run(&f.home);
    loop_fini(&f.home);
    return 0;
}

static bool is_at_home(unsigned thread)
{
    return side_loop_is_taken(f.machine.io_threads[thread].side);
}

/* After a command, say. */
static void expect_at_home(bool first, bool second)
{
    machine_take_io_threads(&f.machine);
    assert_true(is_at_home(0) && is_at_home(1));
    loop_run_once(&f.home, false);
    assert_int_equal(is_at_home(0), first);
    assert_int_equal(is_at_home(1), second);
}

static void test_they_go_when_nothing_holds_them(void **state)
{
    (void)state;
    expect_at_home(false, false);
    assert_true(machine_io_thread_id(&f.machine, 0) != machine_io_thread_id(&f.machine, 1));
}

static void test_what_holds_all_of_them(void **state)
{
    struct lifecycle_op op = {0};
    (void)state;
    f.machine.lifecycle.state = MACHINE_PAUSED;
    expect_at_home(true, true);
    f.machine.lifecycle.state = MACHINE_RUNNING;
    list_push_back(&f.machine.lifecycle.ops, &op.node);
    expect_at_home(true, true);
    list_remove(&op.node);
    f.machine.hotplug.closing = 1;
    expect_at_home(true, true);
    f.machine.hotplug.closing = 0;
    f.machine.irq.routes_dirty = true;
    expect_at_home(true, true);
    f.machine.irq.routes_dirty = false;
    f.block_is_busy = true;
    expect_at_home(true, true);
    f.block_is_busy = false;
    expect_at_home(false, false);
}

/* Its images' answers come on other loops, whosever disk it is. */
static void test_a_disk_in_pieces_holds_all_of_them(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DRIVES; i++) {
        f.disks[i].is_whole = false;
        expect_at_home(true, true);
        f.disks[i].is_whole = true;
        expect_at_home(false, false);
    }
}

static void test_what_holds_one_of_them(void **state)
{
    (void)state;
    f.disks[0].is_alone = false;
    expect_at_home(true, false);
    f.disks[0].is_alone = true;
    f.devices[1].is_on_its_own = false;
    expect_at_home(false, true);
    f.policies[1].device = NULL;
    expect_at_home(false, false);
    f.disks[2].is_alone = f.devices[2].is_on_its_own = false; /* at home anyway */
    expect_at_home(false, false);
}

static void test_its_devices_are_decided_about(void **state)
{
    (void)state;
    expect_at_home(false, false);
    machine_call_home(&f.machine, 1);
    while (!f.devices[1].decisions)
        loop_run_once(&f.home, true);
    assert_int_equal(f.devices[0].decisions + f.devices[2].decisions, 0);
    f.policies[1].device = NULL;
    machine_call_home(&f.machine, 1);
    loop_run_once(&f.home, true);
    assert_int_equal(f.devices[1].decisions, 1);
}

static void test_disks_are_put_where_their_devices_are(void **state)
{
    struct error err = {0};
    (void)state;
    f.drives[2].io_thread = 2;
    f.disks[2].is_at_rest = false;
    assert_int_equal(machine_place_disk(&f.machine, 2, &err), -EBUSY);
    assert_non_null(
        strstr(err.text, "image 'image' is busy, or writes its tables back; try again"));
    assert_ptr_equal(f.disks[2].loop, &f.home);
    f.disks[2].is_at_rest = true;
    assert_int_equal(machine_place_disk(&f.machine, 2, &err), 0);
    assert_ptr_equal(f.disks[2].loop, side_loop_of(f.machine.io_threads[1].side));
}

static void test_a_thread_goes_when_nobody_lives_there(void **state)
{
    struct loop *loop = side_loop_of(f.machine.io_threads[1].side);
    (void)state;
    assert_int_equal(machine_free_io_thread(&f.machine, 1), -EBUSY); /* a device names it */
    f.drives[1].io_thread = 0;
    f.disks[1].is_at_rest = false;
    assert_int_equal(machine_free_io_thread(&f.machine, 1), -EBUSY);
    f.disks[1].is_at_rest = true;
    loop->residents = 1; /* that the table does not know of */
    assert_int_equal(machine_free_io_thread(&f.machine, 1), -EBUSY);
    loop->residents = 0;
    assert_int_equal(machine_free_io_thread(&f.machine, 1), 0);
    assert_ptr_equal(f.disks[1].loop, &f.home);
    machine_end_io_thread(&f.machine, 1);
    assert_int_equal(f.machine.hotplug.closing, 1);
    while (!f.closings)
        loop_run_once(&f.home, true);
    assert_null(f.machine.io_threads[1].side);
}

#define io_test(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        io_test(test_they_go_when_nothing_holds_them),
        io_test(test_what_holds_all_of_them),
        io_test(test_a_disk_in_pieces_holds_all_of_them),
        io_test(test_what_holds_one_of_them),
        io_test(test_its_devices_are_decided_about),
        io_test(test_disks_are_put_where_their_devices_are),
        io_test(test_a_thread_goes_when_nobody_lives_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
