/* SPDX-License-Identifier: MIT */
/* -device virtio-balloon-pci, virtio-serial-pci with ports, virtio-mem-pci; -object iothread and
 * throttle-group; -add-fd. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fdset.h"
#include "disk/throttle.h"
#include "tests/options_rig.h"
#include "tests/unit/test.h"

static void test_guest_services(void **state)
{
    (void)state;
    take("-kernel k -device virtserialport,chardev=q,name=org.qemu.guest_agent.0,id=p "
         "-device virtio-balloon,deflate-on-oom=on,free-page-reporting=on,id=b "
         "-device virtio-serial,max_ports=4 -chardev socket,path=/q,server=on,wait=off,id=q "
         "-device virtconsole,chardev=c -chardev socket,path=/c,reconnect=3,id=c "
         "-device virtserialport,chardev=n,nr=3 -chardev null,id=n "
         "-object memory-backend-ram,id=m,size=1G -device virtio-mem-pci,memdev=m,id=vm,"
         "requested-size=512M,block-size=4M");
    const struct config_guest *guest = &config.guest;
    assert_true(guest->balloon.is_present && guest->balloon.deflate_on_oom);
    assert_true(guest->balloon.free_page_reporting);
    assert_string_equal(guest->balloon.qdev_id, "b");
    assert_int_equal(guest->serial_buses[0].port_count, 4);
    assert_int_equal(guest->serial_port_count, 3);
    assert_int_equal(guest->serial_ports[0].number, 1); /* 0 is kept for a console */
    assert_string_equal(guest->serial_ports[0].name, "org.qemu.guest_agent.0");
    assert_string_equal(config.chardevs[guest->serial_ports[0].chardev].id, "q");
    assert_int_equal(guest->serial_ports[1].number, 0);
    assert_true(guest->serial_ports[1].is_console);
    assert_int_equal(config.chardevs[guest->serial_ports[1].chardev].reconnect_ms, 3000);
    assert_false(config.chardevs[guest->serial_ports[1].chardev].is_server);
    assert_int_equal(guest->serial_ports[2].number, 3);
    assert_int_equal(guest->mems[0].size_bytes, GIB);
    assert_int_equal(guest->mems[0].requested_bytes, 512 * MIB);
    assert_int_equal(guest->mems[0].block_bytes, 4 * MIB);
    take("-kernel k -chardev ringbuf,id=r,size=1k -serial chardev:r");
    assert_int_equal(config.chardevs[0].ring_bytes, 1024);
}

static void test_memory_of_the_machine(void **state)
{
    (void)state;
    take("-kernel k -machine q35,memory-backend=pc.ram -object memory-backend-ram,id=pc.ram,"
         "size=512M,share=on,x-use-canonical-path-for-ramblock-id=false");
    assert_int_equal(config.ram_bytes, 512 * MIB);
    assert_null(config.mem_path);
    assert_false(config.mem_prealloc);
    assert_true(config.guest.memory_backends[0].is_shared);
    take("-kernel k -m 1G -object memory-backend-file,id=m,size=1G,mem-path=/tmp,prealloc=on,"
         "prealloc-threads=4 -M memory-backend=m");
    assert_int_equal(config.ram_bytes, GIB);
    assert_string_equal(config.mem_path, "/tmp");
    assert_true(config.mem_prealloc);
    take("-kernel k -object memory-backend-ram,id=m,size=1G,prealloc=on");
    assert_int_equal(config.ram_bytes, 128 * MIB);
    assert_false(config.mem_prealloc); /* nobody uses it */
}

/* `rest` belongs to the backend that is the machine's memory, or follows it. */
static void refuse_of_m(const char *rest, const char *part)
{
    char line[256];
    snprintf(line, sizeof(line), "-kernel k -M memory-backend=m -object memory-backend-ram,id=m,%s",
             rest);
    refuse(line, part);
}

static void test_who_unpacks_the_kernel(void **state)
{
    (void)state;
    take("-kernel k");
    assert_false(config.guest_unpacks);
    take("-kernel k -machine q35,unpack-kernel=off");
    assert_true(config.guest_unpacks);
    take("-kernel k -machine unpack-kernel=off -M unpack-kernel=on");
    assert_false(config.guest_unpacks);
    refuse("-kernel k -machine unpack-kernel=no-idea", "unpack-kernel");
}

static void test_bad_memory_of_the_machine(void **state)
{
    (void)state;
    refuse("-kernel k -machine memory-backend=m",
           "there is no such memory backend; add -object memory-backend-ram,id=m,size=SIZE");
    refuse_of_m("size=1G -m 2G", "has 1073741824 bytes, not 2147483648; leave -m out");
    refuse_of_m("size=1G -mem-path /tmp", "leave -mem-path out");
    refuse_of_m("size=8M", "from 16M to 512G");
    refuse_of_m("size=20000001", "in whole MiB");
    refuse_of_m("size=1G -device virtio-mem-pci,memdev=m", "already busy");
    refuse_of_m("size=1G,host-nodes=0,policy=bind", "start by numactl");
    refuse_of_m("size=1G,prealloc=maybe", "say on or off");
    refuse("-kernel k -object memory-backend-memfd,id=m,size=1G,hugetlb=on", "hugetlbfs");
    refuse("-kernel k -object memory-backend-ram,id=m,size=1G,prealloc=on "
           "-device virtio-mem-pci,memdev=m",
           "leave its prealloc=on out");
}

static void test_io_threads(void **state)
{
    (void)state;
    take("-kernel k -device virtio-blk-pci,drive=d,iothread=io1 -drive if=none,id=d,file=d "
         "-device virtio-blk-pci,drive=e,iothread=/objects/io0 -drive if=none,id=e,file=e "
         "-device virtio-blk-pci,drive=f,iothread= -drive if=none,id=f,file=f "
         "-object iothread,id=io0,poll-max-ns=0,poll-grow=0,poll-shrink=0,aio-max-batch=0,"
         "thread-pool-min=0,thread-pool-max=64 -object "
         "'{\"qom-type\":\"iothread\",\"id\":\"io1\"}'");
    assert_string_equal(config.guest.io_threads[0], "io0");
    assert_string_equal(config.guest.io_threads[1], "io1");
    assert_null(config.guest.io_threads[2]);
    assert_int_equal(config.disks[0].io_thread, 2);
    assert_int_equal(config.disks[1].io_thread, 1);
    assert_int_equal(config.disks[2].io_thread, 0);
    /* The pool tells the loop that asked it. */
    take("-kernel k -object iothread,id=io -drive if=none,id=d,file=d,aio=threads "
         "-device virtio-blk-pci,drive=d,iothread=io "
         "-blockdev driver=file,node-name=f,filename=e,aio=threads "
         "-blockdev driver=raw,file=f,node-name=e -device virtio-blk-pci,drive=e,iothread=io");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(config.disks[i].options.aio, DISK_AIO_THREADS);
        assert_int_equal(config.disks[i].io_thread, 1);
    }
}

static void test_throttle_groups(void **state)
{
    (void)state;
    take("-kernel k -drive if=none,id=d,file=d,throttling.group=t,throttling.iops-total=9 "
         "-object throttle-group,id=t,x-iops-total=7,limits.bps-read=3,limits.bps-read-max=8,"
         "limits.bps-read-max-length=2,x-iops-size=512 "
         "-object '{\"qom-type\":\"throttle-group\",\"id\":\"u\",\"limits\":{\"bps-total\":5}}'");
    const struct config_throttle_group *groups = config.guest.throttle_groups;
    assert_string_equal(groups[0].id, "t");
    assert_int_equal(groups[0].limits->bucket[THROTTLE_OPS_TOTAL].average, 7);
    assert_int_equal(groups[0].limits->bucket[THROTTLE_BPS_READ].average, 3);
    assert_int_equal(groups[0].limits->bucket[THROTTLE_BPS_READ].burst, 8);
    assert_int_equal(groups[0].limits->bucket[THROTTLE_BPS_READ].burst_s, 2);
    assert_int_equal(groups[0].limits->operation_bytes, 512);
    assert_string_equal(groups[1].id, "u");
    assert_int_equal(groups[1].limits->bucket[THROTTLE_BPS_TOTAL].average, 5);
    assert_string_equal(config.disks[0].throttle_group, "t");
    assert_int_equal(config.disks[0].limits->bucket[THROTTLE_OPS_TOTAL].average, 9);
}

static void test_bad_throttle_groups(void **state)
{
    (void)state;
    refuse("-kernel k -object throttle-group", "Parameter 'id' is missing");
    refuse("-kernel k -object throttle-group,id=a -object iothread,id=a", "duplicate property 'a'");
    refuse("-kernel k -object throttle-group,id=a,iops-total=5",
           "Parameter 'iops-total' is unexpected");
    refuse("-kernel k -object throttle-group,id=a,limits=5", "expected: object");
    refuse("-kernel k -object throttle-group,id=a,x-iops-total", "expected: integer");
    refuse("-kernel k -object throttle-group,id=a,x-iops-total=5,limits.iops-read=5",
           "cannot be used at the same time");
    char line[2048] = "-kernel k";
    for (int i = 0; i <= CONFIG_THROTTLE_MAX; i++)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), " -object throttle-group,id=t%d",
                 i);
    refuse(line, "there are 16 such objects");
}

static void test_bad_io_threads(void **state)
{
    (void)state;
    refuse("-kernel k -object iothread", "Parameter 'id' is missing");
    refuse("-kernel k -object iothread,id=1a", "Parameter 'id' expects an identifier");
    refuse("-kernel k -object iothread,id=a -object rng-random,id=a", "duplicate property 'a'");
    refuse("-kernel k -object rng-random,id=a -object iothread,id=a", "duplicate property 'a'");
    refuse("-kernel k -object iothread,id=a,poll-max-ns=32768", "as it sees fit; leave it out");
    refuse("-kernel k -object iothread,id=a,poll-grow=2", "as it sees fit; leave it out");
    refuse("-kernel k -object iothread,id=a,aio-max-batch=8", "one batch; leave it out");
    refuse("-kernel k -object iothread,id=a,thread-pool-max=8",
           "one pool for all of evisor; leave it out");
    refuse("-kernel k -object iothread,id=a,color=red", "'color' is not known");
    refuse("-kernel k -drive if=none,id=d,file=d -device virtio-blk-pci,drive=d,iothread=io",
           "there is no -object iothread with id=io; add -object iothread,id=io");
    refuse("-kernel k -object rng-random,id=r -drive if=none,id=d,file=d "
           "-device virtio-blk-pci,drive=d,iothread=r",
           "there is no -object iothread with id=r");
    refuse("-kernel k -object iothread,id=io -device virtio-balloon-pci,iothread=io",
           "leave it out");
    char line[1024] = "-kernel k";
    for (int i = 0; i <= CONFIG_IO_THREAD_MAX; i++)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), " -object iothread,id=io%d", i);
    refuse(line, "there are 16 such objects");
}

static void test_bad_guest_services(void **state)
{
    (void)state;
    refuse("-kernel k -device virtio-balloon -device virtio-balloon", "only one balloon");
    refuse("-kernel k -device virtserialport,chardev=n -chardev null,id=n",
           "No 'virtio-serial-bus' bus");
    refuse("-kernel k -device virtio-serial -device virtserialport,chardev=zz", "no chardev");
    refuse("-kernel k -device virtio-serial -device virtserialport,name=a", "chardev=ID");
    refuse("-kernel k -device virtio-serial,id=v -chardev null,id=n "
           "-device virtserialport,chardev=n,bus=w.0",
           "Bus 'w.0' not found");
    refuse("-kernel k -device virtio-serial -chardev null,id=n "
           "-device virtserialport,chardev=n,nr=0",
           "reserved for virtconsole");
    refuse("-kernel k -device virtio-serial,max_ports=2 -chardev null,id=n "
           "-device virtserialport,chardev=n,nr=2",
           "ports 0 to 1");
    refuse("-kernel k -device virtio-serial -chardev null,id=n -chardev null,id=o "
           "-device virtserialport,chardev=n,nr=2 -device virtserialport,chardev=o,nr=2",
           "already exists at id 2");
    refuse("-kernel k -device virtio-serial,max_ports=32", "max_ports");
    refuse("-kernel k -device virtio-mem-pci", "memdev");
    refuse("-kernel k -device virtio-mem-pci,memdev=m", "-object memory-backend-ram with id=m");
    refuse("-kernel k -object memory-backend-ram,id=m", "size 0");
    refuse("-kernel k -object memory-backend-ram,id=m,size=1G -device virtio-mem-pci,memdev=m "
           "-device virtio-mem-pci,memdev=m",
           "already busy");
    refuse("-kernel k -object memory-backend-ram,id=m,size=1G "
           "-device virtio-mem-pci,memdev=m,requested-size=3G",
           "requested-size");
    refuse("-kernel k -object memory-backend-ram,id=m,size=1G "
           "-device virtio-mem-pci,memdev=m,block-size=3M",
           "power of two");
    refuse("-kernel k -m 1G,maxmem=2G -object memory-backend-ram,id=m,size=2G "
           "-device virtio-mem-pci,memdev=m",
           "more than maxmem");
    refuse("-kernel k -device pc-dimm", "virtio-mem-pci");
}

static void test_descriptors_of_the_command_line(void **state)
{
    (void)state;
    char line[128];
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    snprintf(line, sizeof(line), "-kernel k -add-fd fd=%d,set=3,opaque=mine", fd);
    take(line);
    int opened = fdset_open("/dev/fdset/3", O_RDONLY);
    assert_true(opened >= 0);
    close(opened);
    assert_int_equal(fdset_open("/dev/fdset/3", O_RDWR), -EACCES);
    assert_int_equal(fdset_remove(3, -1), 0);
    close(fd);
    refuse("-kernel k -add-fd set=3", "fd=NUMBER");
    refuse("-kernel k -add-fd fd=4711,set=3", "fd=4711");
    refuse("-kernel k -add-fd fd=1,set=-1", "set=-1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_guest_services, tear_down),
        cmocka_unit_test_teardown(test_bad_guest_services, tear_down),
        cmocka_unit_test_teardown(test_memory_of_the_machine, tear_down),
        cmocka_unit_test_teardown(test_who_unpacks_the_kernel, tear_down),
        cmocka_unit_test_teardown(test_bad_memory_of_the_machine, tear_down),
        cmocka_unit_test_teardown(test_io_threads, tear_down),
        cmocka_unit_test_teardown(test_bad_io_threads, tear_down),
        cmocka_unit_test_teardown(test_throttle_groups, tear_down),
        cmocka_unit_test_teardown(test_bad_throttle_groups, tear_down),
        cmocka_unit_test_teardown(test_descriptors_of_the_command_line, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
