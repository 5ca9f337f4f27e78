/* SPDX-License-Identifier: MIT */
/* -blockdev, and -device, -object and -netdev as JSON objects. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/options_rig.h"
#include "tests/unit/test.h"
#include "vmm/options/file_nodes.h"

/* The two nodes and the device that libvirt makes of a disk. */
static void test_a_disk_in_two_nodes(void **state)
{
    (void)state;
    take("-kernel k "
         "-blockdev '{\"driver\":\"file\",\"filename\":\"/d/a.qcow2\",\"node-name\":\"s1\","
         "\"auto-read-only\":true,\"discard\":\"unmap\",\"cache\":{\"direct\":true,"
         "\"no-flush\":false}}' "
         "-blockdev '{\"node-name\":\"f1\",\"read-only\":false,\"discard\":\"unmap\","
         "\"driver\":\"qcow2\",\"file\":\"s1\",\"backing\":null}' "
         "-device '{\"driver\":\"virtio-blk-pci\",\"bus\":\"pcie.0\",\"addr\":\"0x3\","
         "\"drive\":\"f1\",\"id\":\"d1\",\"bootindex\":1,\"write-cache\":\"on\"}'");
    assert_int_equal(config.disk_count, 1);
    const struct config_disk *disk = &config.disks[0];
    assert_string_equal(disk->id, "f1");
    assert_string_equal(disk->qdev_id, "d1");
    assert_string_equal(disk->options.path, "/d/a.qcow2");
    assert_string_equal(disk->options.format, "qcow2");
    assert_true(disk->is_node && disk->is_attached && disk->options.discard_unmap);
    assert_true(disk->options.cache.direct && !disk->options.cache.no_flush);
    assert_true(disk->options.no_backing);
    assert_int_equal(disk->pci_slot, 3);
    assert_int_equal(disk->boot_rank, 2);
    assert_string_equal(file_nodes_path(&config, "s1"), "/d/a.qcow2");
    assert_int_equal(file_nodes_del(&config, "s1", &err), -EBUSY);
}

static void test_flat_nodes(void **state)
{
    (void)state;
    take("-kernel k -blockdev driver=qcow2,node-name=q,file.driver=file,file.filename=a,"
         "file.aio=threads,file.node-name=x,read-only=on -device virtio-blk,drive=q "
         "-blockdev raw,node-name=alone,file.driver=file,file.filename=b,file.locking=off");
    assert_int_equal(config.disk_count, 2);
    assert_string_equal(config.disks[0].options.path, "a");
    assert_true(config.disks[0].options.read_only && config.disks[0].is_attached);
    assert_int_equal(config.disks[0].options.aio, DISK_AIO_THREADS);
    assert_string_equal(config.disks[1].id, "alone");
    assert_true(config.disks[1].options.no_lock && !config.disks[1].is_attached);
}

/* A file's node is a raw disk where a device names it, wherever that stands. */
static void test_a_file_as_a_disk(void **state)
{
    (void)state;
    take("-kernel k -device virtio-blk-pci,drive=f,id=d "
         "-blockdev driver=file,node-name=f,filename=c,read-only=on");
    assert_int_equal(config.disk_count, 1);
    assert_string_equal(config.disks[0].id, "f");
    assert_string_equal(config.disks[0].options.format, "raw");
    assert_true(config.disks[0].options.read_only && config.disks[0].is_node);
    assert_false(file_nodes_has(&config, "f"));
}

static void test_backing_nodes(void **state)
{
    (void)state;
    take("-kernel k -blockdev driver=file,node-name=bf,filename=base "
         "-blockdev driver=qcow2,node-name=b,file=bf,read-only=on "
         "-blockdev driver=qcow2,node-name=top,file.driver=file,file.filename=t,backing=b");
    assert_string_equal(config.disks[1].options.backing_path, "base");
    assert_string_equal(config.disks[1].options.backing_format, "qcow2");
    assert_false(config.disks[1].options.no_backing);
    refuse("-kernel k -blockdev driver=qcow2,node-name=q,file.filename=a,backing=none", "'none'");
}

static void test_refused_nodes(void **state)
{
    (void)state;
    refuse("-kernel k -blockdev driver=nbd,node-name=n", "Unknown driver 'nbd'");
    refuse("-kernel k -blockdev driver=qcow2,file.filename=a", "'node-name' must be specified");
    refuse("-kernel k -blockdev driver=qcow2,node-name=7,file.filename=a",
           "Invalid node-name: '7'");
    refuse("-kernel k -blockdev driver=qcow2,node-name=n,file=nobody", "node-name='nobody'");
    refuse("-kernel k -blockdev driver=file,node-name=n", "'filename' is missing");
    refuse("-kernel k -drive if=none,id=n,file=a.raw -blockdev driver=file,node-name=n,filename=b",
           "Duplicate nodes");
    refuse("-kernel k -drive if=none,id=d,node-name=n,file=a.raw "
           "-blockdev driver=raw,node-name=n,file.filename=b",
           "Duplicate nodes");
    refuse("-kernel k -drive if=none,id=d,node-name=n,file=a.raw "
           "-drive if=none,id=e,node-name=n,file=b.raw",
           "Duplicate nodes");
    refuse("-kernel k -blockdev driver=raw,node-name=n", "Parameter 'file' is missing");
    refuse("-kernel k -blockdev driver=raw,node-name=n,file.driver=file",
           "'file.filename' is missing");
    refuse("-kernel k -blockdev driver=qcow2,node-name=n,file.filename=a,what=1", "'what'");
    refuse("-kernel k -blockdev driver=qcow2,node-name=n,file.driver=nbd,file.filename=a",
           "only files");
    refuse("-kernel k -blockdev driver=file,node-name=f,filename=a "
           "-blockdev driver=raw,node-name=one,file=f -blockdev driver=raw,node-name=two,file=f",
           "Node f is in use");
}

static void test_other_options_as_json(void **state)
{
    (void)state;
    take(
        "-kernel k -object '{\"qom-type\":\"memory-backend-ram\",\"id\":\"m\",\"size\":1073741824}'"
        " -object '{\"qom-type\":\"rng-random\",\"id\":\"r\",\"filename\":\"/dev/urandom\"}'"
        " -device '{\"driver\":\"virtio-mem-pci\",\"memdev\":\"m\",\"id\":\"v\","
        "\"requested-size\":2097152}' -device '{\"driver\":\"virtio-rng-pci\",\"rng\":\"r\"}'"
        " -netdev '{\"type\":\"user\",\"id\":\"n\",\"hostfwd\":[{\"str\":\"tcp::2222-:22\"}],"
        "\"restrict\":true}' -device '{\"driver\":\"virtio-net-pci\",\"netdev\":\"n\"}'");
    assert_int_equal(config.guest.mems[0].size_bytes, GIB);
    assert_int_equal(config.guest.mems[0].requested_bytes, 2 * MIB);
    assert_int_equal(config.rng_count, 1);
    assert_int_equal(config.nics[0].user.forwards[0].host_port, 2222);
    assert_true(config.nics[0].user.restrict_access && config.nics[0].has_device);
    refuse("-kernel k -device '{\"driver\":\"virtio-rng-pci\",}'", "JSON parse error");
    refuse("-kernel k -device '{\"driver\":\"virtio-rng-pci\",\"id\":\"a\",\"id\":\"b\"}'",
           "duplicate");
    refuse("-kernel k -device '{\"id\":\"x\"}'", "unknown device");
    refuse("-kernel k -device '{\"driver\":\"virtio-rng-pci\",\"max\":{\"a\":1}}'", "'max.a'");
    refuse("-kernel k -object '{}'", "the argument is empty");
    refuse("-kernel k -netdev '[1]'", "-netdev");
    refuse("-kernel k -chardev '{\"id\":\"c\"}'", "BACKEND,id=ID");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_a_disk_in_two_nodes, tear_down),
        cmocka_unit_test_teardown(test_flat_nodes, tear_down),
        cmocka_unit_test_teardown(test_a_file_as_a_disk, tear_down),
        cmocka_unit_test_teardown(test_backing_nodes, tear_down),
        cmocka_unit_test_teardown(test_refused_nodes, tear_down),
        cmocka_unit_test_teardown(test_other_options_as_json, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
