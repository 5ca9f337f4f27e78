/* SPDX-License-Identifier: MIT */
/*
 * Devices, disks, networks and CPUs that come and go, on a whole machine whose guest does nothing
 * but halt: the test reads and writes the registers of the DSDT's methods in its place.
 */
#include "vmm/hotplug/hotplug.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "netbackends/net.h"
#include "tests/guest_tcp.h"
#include "tests/unit/test.h"
#include "vmm/machine_chardev.h"
#include "vmm/machine_guest.h"
#include "vmm/machine_private.h"

#define ROM_BYTES 4096
#define CYCLES    1000
#define PAUSES    10000

static struct loop loop;
static struct vm_config config;
static struct machine *machine;
static char folder[] = "/tmp/evisor-hotplug-XXXXXX", rom[64], image[64];
static struct error err;

/* What the machine told. */
static char deleted[64], refused[64];
static unsigned deletions, osts, resets, address_changes, dones;
static int done_result;

static void on_named_event(void *opaque, const char *name, json_t *data)
{
    (void)opaque;
    const char *device = json_string_value(json_object_get(data, "device"));
    if (strcmp(name, "DEVICE_DELETED") == 0 && device) {
        snprintf(deleted, sizeof(deleted), "%s", device);
        deletions++;
    }
    if (strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR") == 0)
        snprintf(refused, sizeof(refused), "%s", device);
    osts += strcmp(name, "ACPI_DEVICE_OST") == 0;
}

static void on_event(void *opaque, enum machine_event event, enum machine_shutdown_cause cause)
{
    (void)opaque, (void)cause;
    resets += event == MACHINE_EVENT_RESET;
}

static void on_nic_addresses(void *opaque, unsigned nic)
{
    (void)opaque, (void)nic;
    address_changes++;
}

static void on_done(void *opaque, int result, const struct error *error)
{
    (void)opaque;
    dones++;
    done_result = result;
    if (result && error)
        err = *error;
}

static void wait_done(void)
{
    unsigned before = dones;
    while (dones == before)
        loop_run_once(&loop, true);
    assert_int_equal(done_result, 0);
}

static void make_files(void)
{
    static uint8_t bytes[ROM_BYTES];
    memset(bytes, 0x90, sizeof(bytes));
    memcpy(bytes + ROM_BYTES - 16, "\xfa\xf4\xeb\xfd", 4); /* cli; hlt; back to hlt */
    assert_non_null(mkdtemp(folder));
    snprintf(rom, sizeof(rom), "%s/rom", folder);
    snprintf(image, sizeof(image), "%s/image", folder);
    int fd = open(rom, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, bytes, sizeof(bytes)), ROM_BYTES);
    close(fd);
    fd = open(image, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
}

static int set_up(void **state)
{
    (void)state;
    memset(&config, 0, sizeof(config));
    *deleted = *refused = 0;
    err = (struct error){0};
    config.ram_bytes = 16 << 20;
    config.cpus = config.sockets = config.threads = 1;
    config.max_cpus = config.cores = 3;
    config.cpu_model = strdup("host");
    config.accel = strdup("soft");
    config.bios = strdup(rom);
    config.serial_chardev = -1;
    config.guest.max_ram_bytes = UINT64_C(3) << 30;
    assert_int_equal(loop_init(&loop), 0);
    if (machine_create(&loop, &config, &machine, &err))
        fail_msg("%s", err.text);
    machine_set_listener(machine, &(struct machine_listener){.on_event = on_event,
                                                             .on_nic_addresses = on_nic_addresses,
                                                             .on_named_event = on_named_event});
    return 0;
}

static void on_closed(void *opaque)
{
    *(bool *)opaque = true;
}

static void ignore_exit(void *opaque, int status)
{
    *(bool *)opaque = status == 0;
}

/* As quit does it. */
static int tear_down(void **state)
{
    (void)state;
    bool has_left = false, is_closed = false;
    machine_on_exit(machine, ignore_exit, &has_left);
    machine_quit(machine, SHUTDOWN_HOST_QMP_QUIT);
    while (!has_left)
        loop_run_once(&loop, true);
    machine_set_listener(machine, &(struct machine_listener){0});
    machine_close(machine, on_closed, &is_closed);
    while (!is_closed)
        loop_run_once(&loop, true);
    loop_fini(&loop);
    vm_config_fini(&config);
    return 0;
}

static uint32_t reg_read(unsigned offset)
{
    uint64_t value = 0;
    bus_read(&machine->bus, BUS_PIO, ACPI_HOTPLUG_BASE + offset, 4, &value);
    return (uint32_t)value;
}

static void reg_write(unsigned offset, uint32_t value)
{
    bus_write(&machine->bus, BUS_PIO, ACPI_HOTPLUG_BASE + offset, 4, value);
}

/* Runs what a command line of the human monitor would. */
static int run(int (*add)(struct machine *, struct keyval *, struct error *), const char *implied,
               const char *text)
{
    struct keyval list;
    err = (struct error){0};
    assert_int_equal(keyval_parse(&list, "test", text, implied, &err), 0);
    int result = add(machine, &list, &err);
    keyval_fini(&list);
    return result;
}

static int device_add(const char *text)
{
    return run(machine_device_add, "driver", text);
}

static void expect_error(int result, const char *text)
{
    assert_true(result < 0);
    if (!strstr(err.text, text))
        fail_msg("'%s' lacks '%s'", err.text, text);
}

static int device_del(const char *id)
{
    err = (struct error){0};
    return machine_device_del(machine, id, &err);
}

/* As the commands that answer when the image is open. */
static int add_image(int (*add)(struct machine *, struct keyval *, machine_done_fn *, void *,
                                struct error *),
                     const char *text)
{
    struct keyval list;
    unsigned before = dones;
    err = (struct error){0};
    assert_int_equal(keyval_parse(&list, "test", text, NULL, &err), 0);
    int result = add(machine, &list, on_done, NULL, &err);
    keyval_fini(&list);
    while (!result && dones == before)
        loop_run_once(&loop, true);
    return result ? result : done_result;
}

static int blockdev_add(const char *text)
{
    return add_image(machine_blockdev_add, text);
}

static void add_node(const char *name)
{
    char text[160];
    snprintf(text, sizeof(text), "driver=raw,node-name=%s,file.driver=file,file.filename=%s", name,
             image);
    if (blockdev_add(text))
        fail_msg("%s", err.text);
}

static void del_node(const char *name)
{
    err = (struct error){0};
    if (machine_blockdev_del(machine, name, on_done, NULL, &err))
        fail_msg("%s", err.text);
    wait_done();
}

static void start(void)
{
    machine_cont(machine, on_done, NULL);
    wait_done();
}

/* The slot of the one device that came. */
static uint32_t take_new(void)
{
    uint32_t up = reg_read(ACPI_HOTPLUG_SLOTS_UP);
    assert_true(up && !(up & (up - 1)));
    assert_int_equal(reg_read(ACPI_HOTPLUG_SLOTS_UP), 0);
    return up;
}

static void wait_deleted(const char *id)
{
    while (strcmp(deleted, id) != 0)
        loop_run_once(&loop, true);
    *deleted = 0;
}

/* The guest lets go what it is asked for. */
static void let_go(uint32_t slot, const char *id)
{
    assert_int_equal(reg_read(ACPI_HOTPLUG_SLOTS_DOWN), slot);
    reg_write(ACPI_HOTPLUG_SLOTS_EJECT, slot);
    wait_deleted(id);
    assert_int_equal(reg_read(ACPI_HOTPLUG_SLOTS_DOWN), 0);
}

static void unplug(uint32_t slot, const char *id)
{
    assert_int_equal(device_del(id), 0);
    let_go(slot, id);
}

static void cycle(const char *device, const char *id)
{
    if (device_add(device))
        fail_msg("%s", err.text);
    uint32_t slot = take_new();
    unplug(slot, id);
}

static unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *all = opendir("/proc/self/fd");
    while (readdir(all))
        count++;
    closedir(all);
    return count;
}

static unsigned count_routes(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < GSI_MAX; i++)
        count += machine->irq.used[i];
    return count;
}

static void add_netdev(const char *id)
{
    char text[256];
    snprintf(text, sizeof(text),
             "dgram,id=%s,local.type=unix,local.path=%s/%s,remote.type=unix,remote.path=%s/peer",
             id, folder, id, folder);
    if (run(machine_netdev_add, "type", text))
        fail_msg("%s", err.text);
}

static void del_netdev(const char *id)
{
    err = (struct error){0};
    if (machine_netdev_del(machine, id, on_done, NULL, &err))
        fail_msg("%s", err.text);
    wait_done();
}

static void plug_everything_once(void)
{
    add_node("n");
    assert_int_equal(run(machine_object_add, "qom-type", "iothread,id=io"), 0);
    cycle("virtio-blk-pci,drive=n,id=d,iothread=io", "d"); /* the node stays, without it */
    assert_int_equal(machine_object_del(machine, "io", &err), 0);
    del_node("n");
    add_netdev("net");
    cycle("virtio-net-pci,netdev=net,id=nic", "nic");
    del_netdev("net");
    assert_int_equal(run(machine_object_add, "qom-type", "rng-random,id=r"), 0);
    cycle("virtio-rng-pci,rng=r,id=rng", "rng");
    assert_int_equal(machine_object_del(machine, "r", &err), 0);
    cycle("virtio-balloon-pci,id=b", "b");
    assert_int_equal(device_add("virtio-serial-pci,id=s"), 0);
    uint32_t slot = take_new();
    assert_int_equal(device_add("virtserialport,id=p,chardev=c,name=org.x"), 0);
    assert_int_equal(device_del("p"), 0);
    assert_string_equal(deleted, "p");
    assert_int_equal(device_add("virtconsole,id=q,chardev=c,bus=s.0"), 0);
    unplug(slot, "s");
    assert_int_equal(device_del("q"), -ENODEV); /* it went with its bus */
}

static void wait_settled(void)
{
    while (machine->hotplug.closing)
        loop_run_once(&loop, true);
}

static void add_chardev(void)
{
    if (run(machine_chardev_add, "backend", "null,id=c"))
        fail_msg("%s", err.text);
}

static void test_a_thousand_cycles(void **state)
{
    (void)state;
    start();
    add_chardev();
    plug_everything_once();
    wait_settled();
    unsigned descriptors = count_descriptors(), routes = count_routes();
    for (unsigned i = 0; i < CYCLES; i++)
        plug_everything_once();
    wait_settled();
    assert_int_equal(count_descriptors(), descriptors);
    assert_int_equal(count_routes(), routes);
    assert_true(config.disk_count <= 1 && config.nic_count <= 1);
}

static void test_ten_thousand_pauses(void **state)
{
    (void)state;
    start();
    for (unsigned i = 0; i < PAUSES; i++) {
        machine_stop(machine, on_done, NULL);
        wait_done();
        assert_int_equal(machine_get_state(machine), MACHINE_PAUSED);
        if (i % 100 == 0)
            assert_int_equal(device_add("virtio-rng-pci,id=r"), 0);
        start();
        if (i % 100 == 0) {
            uint32_t slot = take_new();
            assert_int_equal(device_del("r"), 0);
            let_go(slot, "r");
        }
    }
}

static void test_names_and_places_that_are_taken(void **state)
{
    (void)state;
    start();
    add_node("n");
    assert_int_equal(run(machine_object_add, "qom-type", "iothread,id=io"), 0);
    expect_error(run(machine_object_add, "qom-type", "iothread,id=io"), "duplicate property 'io'");
    assert_int_equal(device_add("virtio-blk-pci,drive=n,id=d,addr=5,iothread=/objects/io"), 0);
    expect_error(machine_object_del(machine, "io", &err), "object 'io' is in use");
    expect_error(device_add("virtio-rng-pci,id=d"), "Duplicate device ID 'd'");
    expect_error(device_add("virtio-rng-pci,addr=5"), "slot 5 function 0 not available");
    expect_error(device_add("virtio-rng-pci,addr=40"), "a slot from 1 to 1e");
    expect_error(device_add("virtio-rng-pci,bus=pci.7"), "Bus 'pci.7' not found");
    expect_error(device_add("virtio-rng-pci,id=9"), "expects an identifier");
    expect_error(device_add("e1000"), "'e1000' is not a valid device model name");
    expect_error(device_add("virtio-rng-pci,color=red"), "'virtio-rng-pci.color' not found");
    expect_error(device_add("virtio-rng-pci,rng=r"), "can't find value 'r'");
    expect_error(device_add("virtio-blk-pci,id=e"), "drive property not set");
    expect_error(device_add("virtio-blk-pci,id=e,drive=m"), "can't find value 'm'");
    expect_error(device_add("virtio-blk-pci,id=e,drive=n"), "already in use");
    expect_error(device_add("virtio-net-pci,id=e,netdev=m"), "can't find value 'm'");
    assert_int_equal(device_del("nobody"), -ENODEV);
    expect_error(machine_blockdev_del(machine, "n", on_done, NULL, &err), "");
    expect_error(blockdev_add("driver=raw,node-name=n,file.filename=/x"), "node-name='n'");
    expect_error(blockdev_add("driver=raw,file.filename=/x"), "'node-name' must be specified");
    expect_error(blockdev_add("driver=raw,node-name=o,file.filename=/no/such"), "/no/such");
    expect_error(blockdev_add("driver=nbd,node-name=o"), "Unknown driver 'nbd'");
    unplug(1 << 5, "d");
    del_node("n");
}

static void test_balloons_and_ports_that_cannot_be(void **state)
{
    (void)state;
    start();
    add_chardev();
    assert_int_equal(device_add("virtio-balloon-pci,id=b"), 0);
    take_new();
    expect_error(device_add("virtio-balloon-pci,id=c"), "Only one balloon");
    assert_int_equal(device_del("b"), 0);
    machine->has_pinned_memory = true;
    reg_write(ACPI_HOTPLUG_SLOTS_EJECT, reg_read(ACPI_HOTPLUG_SLOTS_DOWN));
    wait_deleted("b");
    expect_error(device_add("virtio-balloon-pci,id=b"), "-mem-prealloc");
    expect_error(device_add("virtserialport,chardev=c"), "No 'virtio-serial-bus' bus found");
    assert_int_equal(device_add("virtio-serial-pci,id=s,max_ports=2"), 0);
    expect_error(device_add("virtserialport,chardev=none"), "can't find value 'none'");
    expect_error(device_add("virtserialport,id=p"), "chardev=ID");
    expect_error(device_add("virtserialport,chardev=c,nr=7"), "ports 0 to 1");
    expect_error(device_add("virtserialport,chardev=c,bus=t.0"), "'t.0' not found");
    assert_int_equal(device_add("virtserialport,chardev=c,id=p"), 0);
    expect_error(device_add("virtserialport,chardev=c,id=p"), "Duplicate device ID 'p'");
    expect_error(device_add("virtconsole,chardev=c"), "in use already");
    assert_int_equal(device_del("p"), 0);
    assert_int_equal(device_add("virtconsole,chardev=c"), 0);
    err = (struct error){0};
    expect_error(machine_chardev_remove(machine, "c", on_done, NULL, &err), "busy");
}

/* Room for 3 GiB less what there is, which counts in whole GiB. */
static void test_memory_that_comes(void **state)
{
    (void)state;
    struct machine_mem mem;
    char text[128];
    start();
    expect_error(device_add("virtio-mem-pci,memdev=m"), "no -object");
    assert_int_equal(run(machine_object_add, "qom-type", "memory-backend-ram,id=m,size=2G"), 0);
    expect_error(run(machine_object_add, "qom-type", "memory-backend-ram,id=m,size=1G"),
                 "duplicate property 'm'");
    expect_error(run(machine_object_add, "qom-type", "memory-backend-file,id=f,size=1G"),
                 "mem-path property not set");
    expect_error(device_add("virtio-mem-pci,memdev=m,block-size=2G"), "at most 1G");
    assert_int_equal(device_add("virtio-mem-pci,memdev=m,id=v,requested-size=64M"), 0);
    take_new();
    assert_true(machine_get_mem(machine, 0, &mem));
    assert_int_equal(mem.gpa, UINT64_C(4) << 30);
    assert_int_equal(mem.requested_bytes, 64 << 20);
    assert_true(memory_pci64_base(&machine->memory) >= mem.gpa + (UINT64_C(3) << 30));
    assert_int_equal(machine->memory.guest.regions[1].gpa, mem.gpa);
    expect_error(device_add("virtio-mem-pci,memdev=m"), "already busy memdev");
    err = (struct error){0};
    expect_error(machine_object_del(machine, "m", &err), "in use");
    expect_error(device_del("v"), "cannot be unplugged");
    snprintf(text, sizeof(text), "memory-backend-file,id=f,size=1G,mem-path=%s", folder);
    assert_int_equal(run(machine_object_add, "qom-type", text), 0);
    assert_int_equal(device_add("virtio-mem-pci,memdev=f,id=w"), 0);
    assert_int_equal(run(machine_object_add, "qom-type", "memory-backend-ram,id=n,size=16M"), 0);
    expect_error(device_add("virtio-mem-pci,memdev=n"), "maxmem=");
    err = (struct error){0};
    assert_int_equal(machine_object_del(machine, "n", &err), 0);
}

static void test_more_than_the_slots(void **state)
{
    (void)state;
    char text[64];
    start();
    unsigned count = 0;
    for (; count < PCI_SLOT_MAX; count++) {
        snprintf(text, sizeof(text), "virtio-rng-pci,id=r%u", count);
        if (device_add(text))
            break;
    }
    assert_int_equal(count, PCI_SLOT_MAX - 2);
    expect_error(device_add("virtio-rng-pci"), "all in use or reserved");
    uint32_t all = reg_read(ACPI_HOTPLUG_SLOTS_UP);
    assert_int_equal(all, 0x7ffffffe);
    for (unsigned i = 0; i < count; i++) {
        snprintf(text, sizeof(text), "r%u", i);
        assert_int_equal(device_del(text), 0);
    }
    deletions = 0;
    reg_write(ACPI_HOTPLUG_SLOTS_EJECT, UINT32_MAX); /* the chipset stays */
    while (deletions < count)
        loop_run_once(&loop, true);
    assert_int_equal(reg_read(ACPI_HOTPLUG_SLOTS_DOWN), 0);
    assert_non_null(machine->pci_bus.devices[0]);
    *deleted = 0;
}

static void test_asked_twice_and_ejected_unasked(void **state)
{
    (void)state;
    start();
    assert_int_equal(device_add("virtio-rng-pci,id=r"), 0);
    uint32_t slot = take_new();
    assert_int_equal(device_del("r"), 0);
    expect_error(device_del("r"), "already in the process of unplug");
    /* A guest that was starting up has missed it: after a while it may be asked again. */
    machine->hotplug.slots[__builtin_ctz(slot)].asked_ns -= HOTPLUG_ASK_NS;
    assert_int_equal(device_del("/machine/peripheral/r"), 0);
    let_go(slot, "r");
    assert_int_equal(device_add("virtio-rng-pci,id=r"), 0);
    slot = take_new();
    reg_write(ACPI_HOTPLUG_SLOTS_EJECT, slot);
    expect_error(device_del("r"), "already in the process of unplug"); /* it closes */
    expect_error(device_add("virtio-rng-pci,id=r"), "Duplicate device ID");
    reg_write(ACPI_HOTPLUG_SLOTS_EJECT, slot);
    wait_deleted("r");
    assert_int_equal(device_del("r"), -ENODEV);
}

static void test_goes_unasked_before_the_start(void **state)
{
    (void)state;
    assert_int_equal(device_add("virtio-rng-pci,id=r"), 0);
    assert_int_equal(reg_read(ACPI_HOTPLUG_SLOTS_UP), 0);
    assert_int_equal(device_del("r"), 0);
    wait_deleted("r");
}

static void test_reset_takes_what_was_asked(void **state)
{
    (void)state;
    start();
    add_node("n");
    assert_int_equal(device_add("virtio-blk-pci,drive=n,id=d"), 0);
    assert_int_equal(device_add("virtio-rng-pci,id=stays"), 0);
    assert_int_equal(device_add("host-x86_64-cpu,id=c,socket-id=0,core-id=1,thread-id=0"), 0);
    assert_int_equal(device_del("d"), 0);
    assert_int_equal(device_del("c"), 0);
    deletions = 0;
    machine_reset(machine, SHUTDOWN_HOST_QMP_SYSTEM_RESET, on_done, NULL);
    wait_done();
    assert_int_equal(deletions, 2);
    assert_int_equal(reg_read(ACPI_HOTPLUG_SLOTS_UP), 0);
    assert_int_equal(reg_read(ACPI_HOTPLUG_CPUS_PRESENT), 1);
    assert_true(hotplug_has_device(machine, "stays"));
    del_node("n");
    *deleted = 0;
}

/* The machine ends while a device waits for its guest, another closes, and an image closes. */
static void test_quit_while_all_is_under_way(void **state)
{
    (void)state;
    start();
    add_node("n");
    assert_int_equal(run(machine_object_add, "qom-type", "iothread,id=io"), 0);
    assert_int_equal(device_add("virtio-blk-pci,drive=n,id=d,iothread=io"), 0);
    uint32_t slot = take_new();
    assert_int_equal(device_add("virtio-rng-pci,id=r"), 0);
    assert_int_equal(device_del("r"), 0);
    add_netdev("net");
    assert_int_equal(device_add("virtio-net-pci,netdev=net,id=nic"), 0);
    reg_write(ACPI_HOTPLUG_SLOTS_EJECT, slot);
    assert_int_equal(machine_netdev_del(machine, "net", on_done, NULL, &err), 0);
    assert_true(machine->hotplug.closing >= 2);
}

static void test_drives_go_with_their_devices(void **state)
{
    (void)state;
    char text[160];
    start();
    snprintf(text, sizeof(text), "if=none,id=hd,file=%s,format=raw", image);
    assert_int_equal(add_image(machine_drive_add, text), 0);
    expect_error(add_image(machine_drive_add, text), "Duplicate ID 'hd'");
    assert_non_null(machine_find_disk(machine, "hd"));
    expect_error(device_add("virtio-blk-pci,drive=hd,id=d,iothread=m"), "Device 'm' not found");
    assert_int_equal(device_add("virtio-blk-pci,drive=hd,id=d,serial=S1"), 0);
    uint32_t slot = take_new();
    expect_error(machine_drive_del(machine, "hd", on_done, NULL, &err), "in use");
    err = (struct error){0};
    expect_error(machine_blockdev_del(machine, "hd", on_done, NULL, &err), "not owned");
    unplug(slot, "d");
    assert_null(machine_find_disk(machine, "hd"));
    add_node("hd"); /* its lock is free by now */
    del_node("hd");
}

static void test_images_over_nodes_of_files(void **state)
{
    (void)state;
    char text[160];
    start();
    snprintf(text, sizeof(text), "driver=file,node-name=f,filename=%s", image);
    assert_int_equal(blockdev_add(text), 0);
    expect_error(blockdev_add(text), "Duplicate nodes");
    expect_error(blockdev_add("driver=raw,node-name=i,file=g"), "node-name='g'");
    assert_int_equal(blockdev_add("driver=raw,node-name=i,file=f"), 0);
    expect_error(blockdev_add("driver=raw,node-name=j,file=f"), "in use");
    expect_error(machine_blockdev_del(machine, "f", on_done, NULL, &err), "");
    cycle("virtio-blk-pci,drive=i,id=d", "d");
    del_node("i");
    /* The file itself as a disk. */
    cycle("virtio-blk-pci,drive=f,id=d", "d");
    del_node("f");
    assert_int_equal(blockdev_add(text), 0);
    unsigned before = dones;
    assert_int_equal(machine_blockdev_del(machine, "f", on_done, NULL, &err), 0);
    assert_int_equal(dones, before + 1);
    assert_int_equal(blockdev_add(text), 0); /* left to the machine's end */
    expect_error(blockdev_add("driver=file,node-name=g,filename=/no/such"), "/no/such");
}

/* The guest's connections end with it, and it can make them again at once. */
static void test_a_reset_ends_connections(void **state)
{
    (void)state;
    static struct fake_nic nic;
    uint16_t port;
    char byte;
    int listener = guest_tcp_listen(&port);
    start();
    assert_int_equal(run(machine_netdev_add, "type", "user,id=a,host-loopback=on"), 0);
    fake_nic_attach(&nic, machine->backends[machine_netdev_index(machine, "a")]);
    for (unsigned life = 0; life < 3; life++) {
        struct guest_tcp tcp = guest_tcp_to_router(&nic, 40000, port);
        guest_tcp_introduce(&nic);
        guest_tcp_connect(&tcp);
        int fd = guest_tcp_accept(&loop, listener);
        machine_reset(machine, SHUTDOWN_HOST_QMP_SYSTEM_RESET, on_done, NULL);
        wait_done();
        assert_int_equal(read(fd, &byte, 1), -1);
        assert_int_equal(errno, ECONNRESET);
        close(fd);
    }
    close(listener);
    nic.read = nic.count;
    fake_nic_forget_read(&nic);
    net_detach(nic.net);
}

static const struct address_snoop *learn_address(const char *netdev)
{
    static const uint8_t mac[] = FRAMES_GUEST_MAC;
    unsigned index = (unsigned)machine_netdev_index(machine, netdev);
    struct frames_buffer frame;
    frames_arp_request(&frame, mac, FRAMES_IPV4(10, 0, 0, 1), FRAMES_IPV4(10, 0, 0, 2));
    const struct iovec iov = {frame.bytes, frame.length};
    assert_int_equal(net_send(machine->backends[index], NULL, &iov, 1), 0);
    assert_int_equal(machine_nic_addresses(machine, index)->count, 1);
    return machine_nic_addresses(machine, index);
}

/* Where the guest has been is not where it is. */
static void test_addresses_stay_behind_with_nobody(void **state)
{
    (void)state;
    start();
    assert_int_equal(run(machine_netdev_add, "type", "user,id=a"), 0);
    assert_int_equal(run(machine_netdev_add, "type", "user,id=b"), 0);
    assert_int_equal(device_add("virtio-net-pci,netdev=a,id=nic"), 0);
    uint32_t slot = take_new();
    const struct address_snoop *at_a = learn_address("a");
    assert_int_equal(machine_nic_set_netdev(machine, "nic", "b", &err), 0);
    assert_int_equal(at_a->count, 0);
    const struct address_snoop *at_b = learn_address("b");
    unsigned before = address_changes;
    del_netdev("b");
    assert_int_equal(at_b->count, 0);
    assert_int_equal(address_changes, before + 1);
    assert_non_null(machine_read_filter(machine, 1));
    assert_int_equal(machine_nic_set_netdev(machine, "nic", "a", &err), 0);
    learn_address("a");
    unplug(slot, "nic");
    assert_int_equal(at_a->count, 0);
    assert_null(machine_read_filter(machine, 0));
    del_netdev("a");
}

static void test_nics_change_their_networks(void **state)
{
    (void)state;
    start();
    add_netdev("a");
    add_netdev("b");
    assert_int_equal(device_add("virtio-net-pci,netdev=a,id=nic"), 0);
    uint32_t slot = take_new();
    expect_error(device_add("virtio-net-pci,netdev=a"), "it's in use");
    expect_error(run(machine_netdev_add, "type", "user,id=b"), "Duplicate ID 'b' for netdev");
    assert_int_equal(machine_nic_set_netdev(machine, "nic", "b", &err), 0);
    assert_null(machine->backends[0]->peer);
    assert_non_null(machine->backends[1]->peer);
    del_netdev("a");
    del_netdev("b"); /* with the NIC in it */
    add_netdev("a");
    assert_int_equal(machine_nic_set_netdev(machine, "nic", "a", &err), 0);
    assert_non_null(machine->backends[machine_netdev_index(machine, "a")]->peer);
    assert_int_equal(machine_nic_set_netdev(machine, "nobody", "a", &err), -ENODEV);
    unplug(slot, "nic");
    assert_null(machine->backends[machine_netdev_index(machine, "a")]->peer);
    del_netdev("a");
    err = (struct error){0};
    assert_int_equal(machine_netdev_del(machine, "a", on_done, NULL, &err), -ENODEV);
}

static void plug_cpu(void)
{
    if (device_add("host-x86_64-cpu,id=c,socket-id=0,core-id=2,thread-id=0"))
        fail_msg("%s", err.text);
    assert_int_equal(reg_read(ACPI_HOTPLUG_CPUS_PRESENT), 5);
    assert_int_equal(reg_read(ACPI_HOTPLUG_CPUS_UP), 4);
    assert_int_equal(reg_read(ACPI_HOTPLUG_CPUS_UP), 0);
}

static void test_cpus_come_and_go(void **state)
{
    (void)state;
    start();
    for (unsigned i = 0; i < 200; i++) {
        plug_cpu();
        assert_int_equal(device_del("c"), 0);
        assert_int_equal(reg_read(ACPI_HOTPLUG_CPUS_DOWN), 4);
        reg_write(ACPI_HOTPLUG_CPUS_EJECT, i % 2 ? 4 : UINT32_MAX); /* the first one stays */
        wait_deleted("c");
        assert_int_equal(reg_read(ACPI_HOTPLUG_CPUS_PRESENT), 1);
        assert_int_equal(reg_read(ACPI_HOTPLUG_CPUS_DOWN), 0);
    }
    machine_stop(machine, on_done, NULL);
    wait_done();
    plug_cpu();
    start();
    machine_stop(machine, on_done, NULL);
    wait_done();
}

static void test_cpus_that_cannot_be(void **state)
{
    (void)state;
    start();
    plug_cpu();
    static const char *const wrong[][2] = {
        {"host-x86_64-cpu,socket-id=0,core-id=2,thread-id=0", "CPU[2] with APIC ID 2 exists"},
        {"host-x86_64-cpu,socket-id=1,core-id=0,thread-id=0", "must be in range 0:0"},
        {"host-x86_64-cpu,socket-id=0,core-id=3,thread-id=0", "must be in range 0:2"},
        {"host-x86_64-cpu,core-id=0,thread-id=0", "CPU socket-id is not set"},
        {"host-x86_64-cpu,socket-id=0,core-id=1,thread-id=0,id=c", "Duplicate device ID"},
        {"host-x86_64-cpu,socket-id=0,core-id=1,thread-id=0,die-id=1", "leave it out"},
        {"qemu64-x86_64-cpu,socket-id=0,core-id=1,thread-id=0", "expected cpu type"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
        expect_error(device_add(wrong[i][0]), wrong[i][1]);
    /* The guest refuses: it stays, and may be asked again at once. */
    assert_int_equal(device_del("c"), 0);
    expect_error(device_del("c"), "already in the process");
    reg_write(ACPI_HOTPLUG_OST_CPU, 2);
    reg_write(ACPI_HOTPLUG_OST_EVENT, 3);
    osts = 0;
    reg_write(ACPI_HOTPLUG_OST_STATUS, 0x84); /* under way */
    assert_int_equal(*refused, 0);
    reg_write(ACPI_HOTPLUG_OST_STATUS, 0x82);
    assert_string_equal(refused, "c");
    assert_int_equal(osts, 2);
    assert_int_equal(reg_read(ACPI_HOTPLUG_CPUS_DOWN), 0);
    assert_int_equal(device_del("c"), 0);
    reg_write(ACPI_HOTPLUG_OST_CPU, 77);
    reg_write(ACPI_HOTPLUG_OST_STATUS, 1);
    assert_int_equal(osts, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_thousand_cycles),
        TEST(test_ten_thousand_pauses),
        TEST(test_names_and_places_that_are_taken),
        TEST(test_balloons_and_ports_that_cannot_be),
        TEST(test_memory_that_comes),
        TEST(test_more_than_the_slots),
        TEST(test_asked_twice_and_ejected_unasked),
        TEST(test_goes_unasked_before_the_start),
        TEST(test_reset_takes_what_was_asked),
        TEST(test_quit_while_all_is_under_way),
        TEST(test_drives_go_with_their_devices),
        TEST(test_images_over_nodes_of_files),
        TEST(test_nics_change_their_networks),
        TEST(test_addresses_stay_behind_with_nobody),
        TEST(test_a_reset_ends_connections),
        TEST(test_cpus_come_and_go),
        TEST(test_cpus_that_cannot_be),
    };
    make_files();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(rom);
    unlink(image);
    rmdir(folder);
    return failed;
}
