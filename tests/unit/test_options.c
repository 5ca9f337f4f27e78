/* SPDX-License-Identifier: MIT */
#include "vmm/options/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tests/options_rig.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"
#include "vmm/options/machine_types.h"

static void append(char *line, size_t size, const char *more)
{
    size_t length = strlen(line);
    snprintf(line + length, size - length, "%s", more);
}

static void test_defaults(void **state)
{
    (void)state;
    take("-kernel k");
    assert_string_equal(config.kernel, "k");
    assert_true(config.ram_bytes == 128 * MIB);
    assert_int_equal(config.cpus, 1);
    assert_string_equal(config.accel, "kvm:soft");
    assert_string_equal(config.cpu_model, "host");
    assert_string_equal(config.machine_type, "q35");
    assert_int_equal(config.nic_count, 1); /* as QEMU: a NIC behind NAT */
    assert_true(config.nics[0].has_device);
    assert_int_equal(config.serial_chardev, 0); /* as -nographic */
    assert_int_equal(config.chardevs[0].kind, CHARDEV_STDIO);
    assert_true(config.chardevs[0].is_mux);
    assert_int_equal(config.monitor_count, 1);
    assert_int_equal(config.monitors[0].kind, MONITOR_HUMAN);
    take("-kernel k -nodefaults");
    assert_int_equal(config.nic_count, 0);
    assert_int_equal(config.chardev_count, 0);
    assert_int_equal(config.serial_chardev, -1);
    take("-kernel k -display none");
    assert_int_equal(config.chardev_count, 0);
    take("-kernel k -display none -nographic");
    assert_int_equal(config.chardev_count, 1);
}

static void test_memory(void **state)
{
    (void)state;
    take("-kernel k -m 512");
    assert_true(config.ram_bytes == 512 * MIB);
    take("-kernel k -m 2G");
    assert_true(config.ram_bytes == 2 * GIB);
    take("-kernel k -m size=1.5G,slots=0");
    assert_true(config.ram_bytes == 1536 * MIB);
    take("-kernel k -m 17000k");
    assert_true(config.ram_bytes == 17 * MIB); /* whole MiB */
    refuse("-kernel k -m 15", "from 16M to 512G");
    refuse("-kernel k -m 1T", "from 16M to 512G");
    refuse("-kernel k -m lots", "512M or 2G");
    take("-kernel k -m 1G,slots=4,maxmem=4G");
    assert_int_equal(config.guest.max_ram_bytes, 4 * GIB);
    refuse("-kernel k -m 4G,maxmem=1G", "less than");
    refuse("-kernel k -m 1G,slot=0", "did you mean 'slots'?");
    refuse("-kernel k -m", "needs an argument");
}

static void test_smp(void **state)
{
    (void)state;
    static const struct {
        const char *smp;
        unsigned cpus, sockets, cores, threads;
    } cases[] = {
        {"4", 4, 1, 4, 1},
        {"cpus=4,sockets=2", 4, 2, 2, 1},
        {"4,cores=2", 4, 2, 2, 1},
        {"4,sockets=1,cores=2,threads=2", 4, 1, 2, 2},
        {"4,sockets=1,cores=2", 4, 1, 2, 2},
        {"sockets=2,cores=2,threads=2", 8, 2, 2, 2},
        {"3", 3, 1, 3, 1},
        {"maxcpus=4", 4, 1, 4, 1},
        {"4,maxcpus=4,dies=1", 4, 1, 4, 1},
        {"64", 64, 1, 64, 1},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        char line[128];
        snprintf(line, sizeof(line), "-kernel k -smp %s", cases[i].smp);
        take(line);
        assert_int_equal(config.cpus, cases[i].cpus);
        assert_int_equal(config.sockets, cases[i].sockets);
        assert_int_equal(config.cores, cases[i].cores);
        assert_int_equal(config.threads, cases[i].threads);
    }
    refuse("-kernel k -smp 4,cores=3", "must give the number of CPUs (4)");
    refuse("-kernel k -smp 0", "from 1 to 64");
    refuse("-kernel k -smp 65", "from 1 to 64");
    refuse("-kernel k -smp sockets=64,cores=64", "at most 64");
    refuse("-kernel k -smp 5,maxcpus=4", "must be at least the number of CPUs (5)");
    refuse("-kernel k -smp 2,maxcpus=65", "from 1 to 64");
    take("-kernel k -smp 1,maxcpus=4,sockets=2");
    assert_int_equal(config.cpus, 1);
    assert_int_equal(config.max_cpus, 4);
    assert_int_equal(config.cores, 2);
    refuse("-kernel k -smp 6,threads=3", "power of 2");
    refuse("-kernel k -smp 6,sockets=2", "power of 2");
    refuse("-kernel k -smp 2,dies=2", "sockets, cores and threads");
}

static void test_cpu_and_accel(void **state)
{
    (void)state;
    take("-kernel k -cpu max,migratable=off -accel kvm");
    assert_string_equal(config.cpu_model, "max");
    assert_string_equal(config.accel, "kvm");
    take("-kernel k -accel kvm -accel tcg,thread=multi");
    assert_string_equal(config.accel, "kvm:soft");
    take("-kernel k -machine pc,accel=tcg");
    assert_string_equal(config.accel, "soft");
    assert_string_equal(config.machine_type, "pc");
    for (unsigned i = 0; i < MACHINE_TYPES; i++) {
        char line[80];
        snprintf(line, sizeof(line), "-kernel k -machine %s", machine_types[i].name);
        take(line);
        snprintf(line, sizeof(line), "-kernel k -machine %s", machine_types[i].alias);
        take(line);
    }
    take("-kernel k -machine q35,kernel-irqchip=split -accel kvm,kernel-irqchip=split");
    take("-kernel k -machine q35,kernel_irqchip=on");
    refuse("-kernel k -machine q35,kernel-irqchip=off", "always split");
    take("-kernel k -M pc-q35-7.2,usb=off,accel=kvm:tcg -enable-kvm");
    assert_string_equal(config.accel, "kvm:soft");
    assert_string_equal(config.machine_type, "q35");
    take("-kernel k -cpu max,-avx2,sse4_1=off,+bmi1,enforce");
    assert_true(config.cpu_features.enforce);
    refuse("-kernel k -cpu Skylake-Server", "no such CPU model; use host");
    refuse("-kernel k -cpu host,+avz2", "did you mean 'avx2'?");
    refuse("-kernel k -cpu host,-quantum", "no feature 'quantum'");
    refuse("-kernel k -cpu host,avx=maybe", "on or off");
    refuse("-kernel k -cpu host,+avx=on", "on or off");
    refuse("-kernel k -cpu max,kvm=off", "always sees what runs it");
    refuse("-kernel k -cpu max,enforce=soon", "enforce");
    refuse("-kernel k -accel hax", "use kvm");
    refuse("-kernel k -M microvm", "use q35");
    refuse("-kernel k -M q35,usb=on", "there is no USB");
    refuse("-kernel k -M q35,acel=kvm", "did you mean 'accel'?");
    prints("-accel help", "kvm\n");
    prints("-M none -accel help", "kvm\n");
    prints("-machine help", "q35");
    prints("-cpu help -machine q35", "x86-64-v3");
}

static void test_what_runs(void **state)
{
    (void)state;
    take("-kernel k -initrd i -append 'root=/dev/vda quiet' -name guest=box,debug-threads=on "
         "-uuid 6BA7B810-9dad-11d1-80b4-00c04fd430c8 -S -no-reboot -no-shutdown -pidfile p -s");
    assert_string_equal(config.append, "root=/dev/vda quiet");
    assert_string_equal(config.initrd, "i");
    assert_string_equal(config.name, "box");
    assert_string_equal(config.uuid, "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    assert_string_equal(config.pidfile, "p");
    assert_string_equal(config.gdb, "tcp::1234");
    assert_true(config.start_paused && config.no_reboot && config.no_shutdown);
    take("-kernel k -action reboot=shutdown,shutdown=pause,panic=shutdown");
    assert_true(config.no_reboot && config.no_shutdown);
    refuse("-kernel k -uuid 1234", "a UUID looks like");
    refuse("-kernel k -gdb 1234", "-gdb tcp::1234");
    refuse("-kernel k -gdb tcp::99999", "-gdb tcp::1234");
    refuse("-m 64", "-kernel FILE");
    char line[CMDLINE_MAX_BYTES + 64] = "-kernel k -append ";
    memset(line + strlen(line), 'x', CMDLINE_MAX_BYTES);
    refuse(line, "4096 bytes; at most 4095");
}

static void test_drives(void **state)
{
    (void)state;
    take("-kernel k -drive file=a,,b.qcow2,if=virtio,id=root,cache=none,aio=io_uring,"
         "discard=ignore,readonly=on,serial=XYZ,werror=stop,rerror=ignore,l2-cache-size=1M");
    assert_int_equal(config.disk_count, 1);
    const struct config_disk *disk = config.disks;
    assert_string_equal(disk->options.path, "a,b.qcow2");
    assert_string_equal(disk->options.format, "qcow2");
    assert_string_equal(disk->id, "root");
    assert_string_equal(disk->serial, "XYZ");
    assert_true(disk->options.cache.direct && disk->options.cache.writeback);
    assert_false(disk->options.cache.no_flush);
    assert_int_equal(disk->options.aio, DISK_AIO_IO_URING);
    assert_false(disk->options.discard_unmap);
    assert_true(disk->options.read_only && disk->is_attached);
    assert_int_equal(disk->werror, ON_ERROR_STOP);
    assert_int_equal(disk->rerror, ON_ERROR_IGNORE);
    assert_true(disk->options.l2_cache_bytes == MIB);

    take("-kernel k -drive file=x.img");
    assert_null(config.disks[0].options.format); /* its name does not tell */
    assert_string_equal(config.disks[0].id, "virtio0");
    assert_true(config.disks[0].options.discard_unmap);
    assert_true(config.disks[0].options.cache.writeback);
    assert_int_equal(config.disks[0].werror, ON_ERROR_ENOSPC);
    assert_int_equal(config.disks[0].rerror, ON_ERROR_REPORT);
    take("-kernel k -drive file=/dev/sdb -drive file=x,format=qcow2,cache=directsync");
    assert_string_equal(config.disks[0].options.format, "raw");
    assert_string_equal(config.disks[1].id, "virtio1");
    assert_false(config.disks[1].options.cache.writeback);
    take("-kernel k -hda a,b.raw -cdrom seed.iso -drive if=none,file=c.qcow2,media=cdrom");
    assert_string_equal(config.disks[0].options.path, "a,b.raw");
    assert_true(config.disks[1].is_cdrom && config.disks[1].options.read_only);
    assert_string_equal(config.disks[1].options.format, "raw");
    assert_string_equal(config.disks[1].id, "virtio2");
    assert_false(config.disks[2].is_attached);
    assert_string_equal(config.disks[2].id, "none0");
}

static void test_how_qcow2_is_tuned(void **state)
{
    (void)state;
    take("-kernel k -drive file=a.qcow2");
    const struct disk_options *options = &config.disks[0].options;
    assert_true(options->no_data_file_name); /* its name alone is not to be trusted */
    assert_int_equal(options->cache_clean_s, CACHE_CLEAN_INTERVAL_S);
    assert_int_equal(options->idle_writeback_ms, IDLE_WRITEBACK_MS);
    assert_false(options->keep_requested || options->discard_other);
    take("-kernel k -drive file=a,format=qcow2,cache-size=8M,refcount-cache-size=1M,"
         "l2-cache-entry-size=16k,cache-clean-interval=7,lazy-refcounts=on,"
         "pass-discard-request=off,pass-discard-snapshot=on,pass-discard-other=on,"
         "overlap-check=constant,data-file.filename=/d");
    options = &config.disks[0].options;
    assert_false(options->no_data_file_name);
    assert_string_equal(options->data_file_path, "/d");
    assert_int_equal(options->l2_cache_bytes, 7 * MIB);
    assert_int_equal(options->refcount_cache_bytes, MIB);
    assert_int_equal(options->cache_entry_bytes, 16384);
    assert_int_equal(options->cache_clean_s, 7);
    assert_true(options->keep_requested && options->discard_other);
    assert_int_equal(options->overlap_check, DISK_OVERLAP_CONSTANT);
    refuse("-kernel k -drive file=a,cache-size=1M,l2-cache-size=2M", "may not exceed");
    refuse("-kernel k -drive file=a,cache-size=4M,l2-cache-size=2M,refcount-cache-size=1M",
           "at the same time");
    refuse("-kernel k -drive file=a,overlap-check=all", "cached");
}

static void test_the_order_of_disks(void **state)
{
    (void)state;
    take("-kernel k -hdb 2.raw -drive if=none,id=y,file=y.raw -device virtio-blk,drive=x,id=dx "
         "-drive file=3.raw,index=5 -device virtio-blk-pci,drive=y,serial=S "
         "-drive if=none,id=x,file=x.raw -hda 1.raw -drive if=none,file=loose.raw");
    static const char *const order[] = {"x.raw", "y.raw", "1.raw", "2.raw", "3.raw", "loose.raw"};
    assert_int_equal(config.disk_count, ARRAY_SIZE(order));
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        assert_string_equal(config.disks[i].options.path, order[i]);
    assert_string_equal(config.disks[0].qdev_id, "dx");
    assert_string_equal(config.disks[1].serial, "S");
    assert_true(config.disks[4].is_attached);
    assert_false(config.disks[5].is_attached);
}

static void test_bad_drives(void **state)
{
    (void)state;
    refuse("-kernel k -drive if=virtio", "file=PATH");
    refuse("-kernel k -drive file=x,if=ide", "use if=virtio");
    refuse("-kernel k -drive file=x,format=vmdk", "evisor-img convert");
    refuse("-kernel k -drive file=x,format=qed,readonly=on", "evisor-img convert");
    refuse("-kernel k -drive file=x,fromat=raw", "did you mean 'format'?");
    refuse("-kernel k -drive file=x,cache=fast", "writeback");
    refuse("-kernel k -drive file=x,aio=fast", "io_uring");
    refuse("-kernel k -drive file=x,discard=yes", "unmap");
    refuse("-kernel k -drive file=x,snapshot=on", "evisor-img create");
    refuse("-kernel k -drive file=nbd:localhost:10809", "protocol");
    refuse("-kernel k -drive file=http://x/y", "protocol");
    refuse("-kernel k -drive file=x,serial=123456789012345678901", "20 bytes");
    refuse("-kernel k -drive file=x,iops=100,iops_rd=5", "same time");
    refuse("-kernel k -drive file=x,force-share=on", "readonly=on");
    refuse("-kernel k -drive file=x,id=a -drive file=y,id=a", "another drive with id=a");
    refuse("-kernel k -hdc a -cdrom b", "index 2");
    refuse("-kernel k -drive file=x,index=26", "from 0 to 25");
    refuse("-kernel k -device virtio-blk-pci", "drive=ID");
    refuse("-kernel k -drive file=x,if=none,id=disk0 -device virtio-blk-pci,drive=disk1",
           "did you mean 'disk0'?");
    refuse("-kernel k -drive file=x,id=d -device virtio-blk-pci,drive=d", "write if=none");
    refuse("-kernel k -drive file=x,if=none,id=d -device virtio-blk-pci,drive=d "
           "-device virtio-blk-pci,drive=d",
           "used by another device");
    refuse("-kernel k disk.qcow2", "file=disk.qcow2,if=virtio");
    char line[2048] = "-kernel k";
    for (int i = 0; i < 27; i++)
        append(line, sizeof(line), " -drive file=x.raw");
    refuse(line, "more than 26 drives");
}

static void test_network(void **state)
{
    (void)state;
    take("-kernel k -nic user,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.2:53-10.0.2.20:5353,"
         "mac=52:54:00:aB:cd:ef,restrict=on,net=10.9.0.0/24,host=10.9.0.1,dns=10.9.0.3,"
         "dhcpstart=10.9.0.9,hostname=h,dnssearch=a,dnssearch=b,domainname=d,tftp=/t,bootfile=b,"
         "ipv6=off,model=virtio");
    assert_int_equal(config.nic_count, 1);
    const struct config_nic *nic = config.nics;
    assert_true(nic->has_device && nic->has_mac && nic->user.restrict_access && nic->user.ipv6_off);
    assert_memory_equal(nic->mac, "\x52\x54\x00\xab\xcd\xef", 6);
    assert_false(nic->user.host_loopback); /* the host's own services only when asked */
    assert_int_equal(nic->user.forward_count, 2);
    const struct config_forward *forward = nic->user.forwards;
    assert_false(forward[0].is_udp);
    assert_null(forward[0].host_address);
    assert_null(forward[0].guest_address);
    assert_int_equal(forward[0].host_port, 2222);
    assert_int_equal(forward[0].guest_port, 22);
    assert_true(forward[1].is_udp);
    assert_string_equal(forward[1].host_address, "127.0.0.2");
    assert_string_equal(forward[1].guest_address, "10.0.2.20");
    assert_string_equal(nic->user.dnssearch, "a,b");
    assert_string_equal(nic->netdev_id, "net0");

    take("-kernel k -device virtio-net,netdev=n1,id=eth0,mac=52:54:00:00:00:02 "
         "-netdev user,id=n1 -nic none");
    assert_int_equal(config.nic_count, 1);
    assert_string_equal(config.nics[0].qdev_id, "eth0");
    assert_int_equal(config.nics[0].mac[5], 2);
    assert_int_equal(config.nics[0].features_off, 0);
    take("-kernel k -netdev user,id=n1 -device virtio-net,netdev=n1,csum=off,gso=off,mrg_rxbuf=on");
    assert_int_equal(config.nics[0].features_off, 1 << 0 | 1 << 11 | 1 << 12);
    take("-kernel k -net nic,model=virtio -net user,hostfwd=:127.0.0.1:1-:2");
    assert_int_equal(config.nic_count, 1);
    assert_int_equal(config.nics[0].user.forward_count, 1);
    take("-kernel k -nic user,host-loopback=on");
    assert_true(config.nics[0].user.host_loopback);
    take("-kernel k -net none");
    assert_int_equal(config.nic_count, 0);
    take("-kernel k -netdev user,id=a");
    assert_false(config.nics[0].has_device);
    prints("-M none -netdev help", "user");
}

static void test_other_networks(void **state)
{
    (void)state;
    take("-kernel k -netdev tap,id=a,ifname=tap0,script=no,downscript=no,vnet_hdr=off "
         "-netdev bridge,id=b -nic tap,fd=7,mac=52:54:00:00:00:01 "
         "-netdev stream,id=c,server=on,addr.type=unix,addr.path=/s "
         "-netdev stream,id=d,addr.type=inet,addr.host=127.0.0.1,addr.port=9,reconnect=2 "
         "-netdev dgram,id=e,local.path=/l,remote.path=/r "
         "-netdev socket,id=f,listen=:1234 -nic internal,folder=/lan,model=virtio");
    assert_int_equal(config.nic_count, 8);
    const struct config_nic *nic = config.nics;
    assert_int_equal(nic[0].kind, NET_KIND_TAP);
    assert_string_equal(nic[0].tap.ifname, "tap0");
    assert_true(nic[0].tap.vnet_hdr_off && nic[0].tap.fd == -1);
    assert_string_equal(nic[1].tap.bridge, "br0");
    assert_int_equal(nic[2].tap.fd, 7);
    assert_true(nic[2].has_device && nic[2].has_mac);
    assert_int_equal(nic[3].kind, NET_KIND_STREAM);
    assert_true(nic[3].socket.is_server);
    assert_string_equal(nic[3].socket.local.path, "/s");
    assert_string_equal(nic[4].socket.remote.host, "127.0.0.1");
    assert_int_equal(nic[4].socket.remote.port, 9);
    assert_int_equal(nic[4].socket.reconnect_ms, 2000);
    assert_int_equal(nic[5].kind, NET_KIND_DGRAM);
    assert_string_equal(nic[5].socket.remote.path, "/r");
    assert_string_equal(nic[6].socket.local.host, "127.0.0.1");
    assert_int_equal(nic[6].socket.local.port, 1234);
    assert_string_equal(nic[7].folder, "/lan");
    take("-kernel k -netdev socket,id=a,udp=127.0.0.1:1,localaddr=127.0.0.1:2 "
         "-netdev socket,id=b,connect=127.0.0.1:3");
    assert_int_equal(config.nics[0].kind, NET_KIND_DGRAM);
    assert_int_equal(config.nics[0].socket.local.port, 2);
    assert_int_equal(config.nics[1].socket.remote.port, 3);

    refuse("-kernel k -netdev tap,id=a,script=/etc/qemu-ifup", "runs no scripts");
    refuse("-kernel k -netdev tap,id=a,ifname=t,fd=3", "only one of");
    refuse("-kernel k -netdev tap,id=a,vhost=on", "vhost is not there");
    refuse("-kernel k -netdev tap,id=a,ifnam=t", "did you mean 'ifname'?");
    refuse("-kernel k -nic tap,modl=virtio", "did you mean 'model'?");
    refuse("-kernel k -netdev stream,id=a", "say where");
    refuse("-kernel k -netdev stream,id=a,addr.host=x", "addr.port");
    refuse("-kernel k -netdev stream,id=a,addr.type=fd", "only inet and unix");
    refuse("-kernel k -netdev dgram,id=a,local.path=/x", "remote.path");
    refuse("-kernel k -netdev dgram,id=a,local.path=/x,remote.host=h,remote.port=1", "local.path");
    refuse("-kernel k -netdev socket,id=a", "listen=:PORT");
    refuse("-kernel k -netdev socket,id=a,listen=1234", "127.0.0.1:1234");
    refuse("-kernel k -netdev socket,id=a,mcast=130.0.0.1:1234", "239.255.255.255");
    refuse("-kernel k -netdev socket,id=a,mcast=230.0.0.1:1234,listen=:1", "mcast=GROUP:PORT");
    refuse("-kernel k -netdev internal,id=a", "folder=PATH");
    refuse("-kernel k -netdev nat,id=a", "folder=PATH");
    refuse("-kernel k -netdev hostonly,id=a,folder=/n,restrict=on", "restrict");
}

static void test_bad_network(void **state)
{
    (void)state;
    refuse("-kernel k -nic vde,sock=/x", "-netdev internal");
    refuse("-kernel k -nic passt", "-netdev stream");
    refuse("-kernel k -nic usr", "did you mean 'user'?");
    refuse("-kernel k -nic xyzzy", "nat or hostonly");
    refuse("-kernel k -nic user,model=e1000", "virtio");
    refuse("-kernel k -nic user,hostfw=x", "did you mean 'hostfwd'?");
    static const char *const rules[] = {
        "tcp:2222-:22",     "tcp::2222",  "tcp::0-:22", "tcp::1-:65536", "sctp::1-:2",
        "tcp:nowhere:1-:2", "tcp::1-x:2", "",           "tcp::-:",       "tcp::1x-:2"};
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
        char line[128];
        snprintf(line, sizeof(line), "-kernel k -nic user,hostfwd=%s", rules[i]);
        refuse(line, "tcp::HOSTPORT-:GUESTPORT");
    }
    refuse("-kernel k -nic user,hostfwd=tcp::1-:2,hostfwd=tcp:127.0.0.1:1-:3", "forwarded twice");
    refuse("-kernel k -nic user,mac=52:54:00:00:00", "52:54:00:12:34:56");
    refuse("-kernel k -nic user,host_mtu=20", "host_mtu");
    refuse("-kernel k -netdev user,id=n -device virtio-net,netdev=n,host_mtu=70000", "host_mtu");
    refuse("-kernel k -netdev user,id=n -device virtio-net,netdev=n,csum=maybe", "say on or off");
    refuse("-kernel k -netdev user,id=n -device virtio-net,netdev=n,host_ufo=on", "UDP");
    refuse("-kernel k -nic user,mac=52:54:00:00:00:0g", "52:54:00:12:34:56");
    refuse("-kernel k -nic user,mac=53:54:00:00:00:00", "multicast");
    refuse("-kernel k -nic user,net=10.0.2.0/31", "10.0.2.0/24");
    refuse("-kernel k -nic user,dns=one", "IPv4 address");
    refuse("-kernel k -nic user,ipv4=off,ipv6=off", "both");
    refuse("-kernel k -nic user,smb=/x", "no SMB");
    refuse("-kernel k -netdev user", "add id=NAME");
    refuse("-kernel k -netdev user,id=a -netdev user,id=a", "another netdev");
    refuse("-kernel k -device virtio-net-pci,netdev=n0 -netdev user,id=n1", "did you mean 'n1'?");
    refuse("-kernel k -device virtio-net-pci", "netdev=ID");
    refuse("-kernel k -net nic", "belong together");
    refuse("-kernel k -net nic -net user -net user", "-nic user for each");
    refuse("-kernel k -nic user -nic user -nic user -nic user -nic user -nic user -nic user "
           "-nic user -nic user",
           "more than 8 NICs");
}

static void test_devices(void **state)
{
    (void)state;
    take("-kernel k -device virtio-rng-pci -device virtio-rng,rng=r0,bus=pcie.0 "
         "-object rng-random,id=r0,filename=/dev/urandom");
    assert_int_equal(config.rng_count, 2);
    refuse("-kernel k -device virtio-rng-pci,rng=r0", "no -object rng-builtin with id=r0");
    refuse("-kernel k -device virtio-blk-cpi", "did you mean 'virtio-blk-pci'?");
    refuse("-kernel k -device e1000,netdev=n", "use virtio-net-pci");
    refuse("-kernel k -device ide-hd,drive=d", "use virtio-blk-pci");
    refuse("-kernel k -device qemu-xhci", "no USB");
    refuse("-kernel k -device xyzzy", "-device help");
    take("-kernel k -device virtio-rng-pci,addr=1e,id=r -device virtio-rng-pci,addr=0x3 "
         "-device virtio-rng-pci,addr=04.0");
    assert_int_equal(config.rngs[0].pci_slot, 0x1e);
    assert_string_equal(config.rngs[0].qdev_id, "r");
    assert_int_equal(config.rngs[1].pci_slot, 3);
    assert_int_equal(config.rngs[2].pci_slot, 4);
    static const char *const addresses[] = {"0", "1f", "20", "4.1", "x", "-1", "0x1f", "3,5"};
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
        char line[96];
        snprintf(line, sizeof(line), "-kernel k -device virtio-rng-pci,addr=%s", addresses[i]);
        refuse(line, i == ARRAY_SIZE(addresses) - 1 ? "'5'" : "a slot from 1 to 1e");
    }
    refuse("-kernel k -device virtio-rng-pci,id=a -device virtio-rng-pci,id=a", "another device");
    refuse("-kernel k -object memory-backend-file,id=m", "mem-path property not set");
    refuse("-kernel k -object memory-backend-file,id=m,size=1G,mem-path=f", "share=on");
    refuse("-kernel k -object iothrea,id=m", "there are rng-random, rng-builtin, iothread");
    prints("-device help", "virtio-blk-pci");
}

static void test_terminals(void **state)
{
    (void)state;
    take("-kernel k -serial stdio -display none");
    assert_int_equal(config.chardevs[config.serial_chardev].kind, CHARDEV_STDIO);
    assert_true(config.chardevs[0].has_signals);
    assert_int_equal(config.monitor_count, 0);
    take("-kernel k -nographic -serial mon:stdio");
    assert_true(config.chardevs[0].is_mux);
    assert_false(config.chardevs[0].has_signals);
    assert_int_equal(config.monitor_count, 1);
    take("-kernel k -nographic -monitor none");
    assert_int_equal(config.monitor_count, 0);
    assert_int_equal(config.serial_chardev, 0);
    take("-kernel k -serial file:/tmp/a,,b -monitor unix:/m,server,nowait "
         "-qmp unix:/q,server=on,wait=off -qmp-pretty tcp:localhost:4444,server=on,wait=off");
    assert_string_equal(config.chardevs[config.serial_chardev].path, "/tmp/a,b");
    assert_int_equal(config.monitor_count, 3);
    assert_string_equal(config.chardevs[config.monitors[0].chardev].path, "/m");
    assert_false(config.chardevs[config.monitors[0].chardev].wait);
    assert_int_equal(config.monitors[1].kind, MONITOR_QMP);
    assert_true(config.monitors[2].pretty);
    assert_int_equal(config.chardevs[config.monitors[2].chardev].port, 4444);
    assert_true(vm_config_chardev_is_control(&config, config.monitors[1].chardev));
    assert_false(vm_config_chardev_is_control(&config, (unsigned)config.serial_chardev));
    take("-kernel k -qmp unix:/q,server");
    assert_true(config.chardevs[0].wait);
    take("-kernel k -serial pty -monitor null -parallel none");
    assert_int_equal(config.chardevs[config.serial_chardev].kind, CHARDEV_PTY);
    take("-kernel k -serial none");
    assert_int_equal(config.serial_chardev, -1);
    take("-kernel k -mon chardev=c,mode=control,pretty=on -serial chardev:c "
         "-chardev stdio,id=c,mux=on,signal=off");
    assert_int_equal(config.chardev_count, 1);
    assert_int_equal(config.serial_chardev, 0);
    assert_int_equal(config.monitors[0].kind, MONITOR_QMP);
    prints("-chardev help", "socket");
}

static void test_bad_terminals(void **state)
{
    (void)state;
    refuse("-kernel k -chardev socket,id=a,path=/q,server=on,reconnect=2", "incompatible");
    refuse("-kernel k -chardev socket,id=a,path=/q,wait=on", "incompatible");
    refuse("-kernel k -chardev ringbuf,id=a,size=1000", "power of two");
    refuse("-kernel k -chardev pipe,id=a", "path=PATH");
    refuse("-kernel k -qmp tcp:1.2.3.4:1,server=on", "127.0.0.1");
    refuse("-kernel k -qmp tcp:4444", "");
    refuse("-kernel k -qmp tcp::x,server", "port=x");
    refuse("-kernel k -qmp stdoi", "chardev:ID");
    refuse("-kernel k -qmp chardev:x", "no chardev with id=x");
    refuse("-kernel k -monitor vc", "no window");
    refuse("-kernel k -serial stdio -monitor stdio", "mux=on");
    refuse("-kernel k -chardev stdio,id=a -chardev stdio,id=b", "in use already");
    refuse("-kernel k -chardev null,id=a -mon a -mon a", "another user");
    refuse("-kernel k -chardev null,id=a -chardev pty,id=a", "another chardev");
    refuse("-kernel k -chardev socket,id=a,server=on", "where to listen");
    refuse("-kernel k -chardev socket,id=a,path=/x,sever=on", "did you mean 'server'?");
    refuse("-kernel k -chardev vc,id=a", "no window");
    refuse("-kernel k -chardev udp,id=a", "is not there");
    refuse("-kernel k -chardev spicevmc,id=a", "is not there");
    refuse("-kernel k -chardev socke,id=a", "did you mean 'socket'?");
    refuse("-kernel k -chardev null", "add id=NAME");
    refuse("-kernel k -chardev socket,id=a,path=/x,server=on,mux=on", "only stdio and pty");
    refuse("-kernel k -monitor file:/x", "cannot give commands");
    refuse("-kernel k -serial null -serial stdio", "one serial port");
    refuse("-kernel k -daemonize -nographic", "-daemonize leaves");
    refuse("-kernel k -daemonize -serial stdio", "-daemonize leaves");
    char line[1024] = "-kernel k -chardev stdio,id=c,mux=on";
    for (int i = 0; i < 9; i++)
        append(line, sizeof(line), " -mon c");
    refuse(line, "more than 8 monitors");
}

static void test_habits(void **state)
{
    (void)state;
    take("-no-user-config -nodefaults -display none -vga none -parallel null -monitor none "
         "--kernel k -no-hpet -rtc base=utc -msg timestamp=on -L /usr/share -boot order=c,menu=on");
    take("-machine type=pc,accel=kvm -name ID -m 512M -drive file=F,if=virtio,id=image0 "
         "-nographic -monitor unix:P,server=on,wait=off -netdev user,id=user.0,dns=,dnssearch=,"
         "hostfwd=udp::80-:80,hostfwd=tcp::80-:80 -device virtio-net,netdev=user.0 -enable-kvm "
         "-smp 4 -kernel k");
    assert_int_equal(config.cpus, 4);
    assert_null(config.nics[0].user.dns);
    take("-machine q35,accel=kvm -cpu host -smp 2 -m 4G -device virtio-net-pci,netdev=net0 "
         "-netdev user,id=net0,hostfwd=tcp::50022-:22 -drive if=virtio,id=disk0,format=qcow2,"
         "file=F -chardev socket,id=mon0,path=P,server=on,wait=off -mon chardev=mon0,"
         "mode=readline -chardev socket,id=ser0,path=S,server=on,wait=off -serial chardev:ser0 "
         "-pidfile P -daemonize -parallel null -monitor none -display none -vga none -kernel k");
    assert_true(config.daemonize);
    assert_int_equal(config.monitor_count, 1);
    refuse("-vga std -kernel k", "no window");
    refuse("-display gtk", "no window");
    refuse("-boot n", "no boot ROM");
    refuse("-boot order=ca", "floppy");
    refuse("-boot cc", "twice");
    refuse("-boot x", "no kind of drive");
    refuse("-boot menu=perhaps", "menu");
    refuse("-bios x -kernel k", "leave one out");
    refuse("-append x -hda d.raw", "-kernel FILE");
    refuse("-m 64", "nothing to boot");
    take("-hda d.raw -boot order=dc,once=d,menu=on,strict=on,splash-time=5,reboot-timeout=-1");
    assert_null(config.kernel);
    assert_string_equal(config.boot.order, "dc");
    assert_string_equal(config.boot.once, "d");
    assert_true(config.boot.has_menu && config.boot.is_strict);
    assert_int_equal(config.boot.splash_ms, 5);
    assert_int_equal(config.boot.reboot_ms, -1);
    take("-bios b -drive if=none,id=a,file=a.raw -device virtio-blk-pci,drive=a,bootindex=3");
    assert_string_equal(config.bios, "b");
    assert_int_equal(config.disks[0].boot_rank, 4);
    assert_int_equal(config.disks[0].queue_count, 1);
    take("-bios b -drive if=none,id=a,file=a.raw -device virtio-blk-pci,drive=a,num-queues=4");
    assert_int_equal(config.disks[0].queue_count, 4);
    refuse("-bios b -drive if=none,id=a,file=a.raw -device virtio-blk-pci,drive=a,num-queues=99",
           "num-queues");
    refuse("-usb", "no USB");
    refuse("-loadvm x", "not supported");
    refuse("-blockdev x", "Unknown driver 'x'");
    refuse("-kernell k", "did you mean '-kernel'?");
    refuse("--memory 1", "use -m SIZE");
    refuse("--nonsense", "unknown option '--nonsense'");
    refuse("-", "'-' is no option");
    refuse("--", "unknown option");
    refuse("-kernel", "needs an argument");
}

static void test_help_and_version(void **state)
{
    (void)state;
    prints("-h", "-drive file=FILE");
    prints("--help", "evisor");
    for (const char *line = text, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        if (end - line > 80)
            fail_msg("too wide: %.*s", (int)(end - line), line);
    }
    prints("-version", "evisor version 0");
    assert_memory_equal(text, "evisor version ", 15);
}

static void test_any_order(void **state)
{
    (void)state;
    char *words[] = {"-kernel k",
                     "-device virtio-blk-pci,drive=d",
                     "-drive if=none,id=d,file=f.raw",
                     "-device virtio-net-pci,netdev=n",
                     "-netdev user,id=n",
                     "-chardev stdio,id=c,mux=on",
                     "-serial chardev:c",
                     "-mon chardev=c",
                     "-m 64",
                     "-display none"};
    struct random random = {3};
    for (int round = 0; round < 200; round++) {
        char line[512] = "";
        for (unsigned i = ARRAY_SIZE(words) - 1; i > 0; i--) {
            unsigned j = random_below(&random, i + 1);
            char *word = words[i];
            words[i] = words[j];
            words[j] = word;
        }
        for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
            append(line, sizeof(line), words[i]);
            append(line, sizeof(line), " ");
        }
        take(line);
        assert_true(config.disks[0].is_attached && config.nics[0].has_device);
        assert_int_equal(config.serial_chardev, 0);
        assert_int_equal(config.monitor_count, 1);
        assert_int_equal(config.chardev_count, 1);
    }
}

/* Whatever is typed: a config, a text or a sentence. */
static void test_random_words(void **state)
{
    (void)state;
    static const char *const words[] = {"-kernel",
                                        "k",
                                        "-drive",
                                        "file=x",
                                        "if=none,id=d",
                                        ",",
                                        "file=x,id=d,if=none",
                                        "-device",
                                        "virtio-blk-pci,drive=d",
                                        "-m",
                                        "1G",
                                        "-smp",
                                        "4,cores=",
                                        "=,=,",
                                        "-nic",
                                        "user,hostfwd=",
                                        "-serial",
                                        "mon:stdio",
                                        "-qmp",
                                        "unix:,server",
                                        "tcp:",
                                        "-chardev",
                                        "socket,id=x",
                                        "-mon",
                                        "-S",
                                        "-nographic",
                                        "help",
                                        "-cpu",
                                        "-accel",
                                        "::",
                                        "-name",
                                        "-uuid",
                                        "-append",
                                        "",
                                        "-boot"};
    struct random random = {5};
    for (int round = 0; round < 3000; round++) {
        char *argv[12] = {"evisor"};
        int argc = 1 + (int)random_below(&random, 11);
        for (int i = 1; i < argc; i++)
            argv[i] = (char *)words[random_below(&random, ARRAY_SIZE(words))];
        memset(&err, 0, sizeof(err));
        vm_config_fini(&config);
        free(text);
        if (options_parse(argc, argv, &config, &text, &err))
            assert_true(*err.text && err.code);
    }
}

static void test_the_manual_is_written(void **state)
{
    (void)state;
    char *manual = NULL;
    size_t size;
    FILE *to = open_memstream(&manual, &size);
    options_write_man(to);
    fclose(to);
    assert_non_null(strstr(manual, ".SS Disks\n"));
    assert_non_null(strstr(manual, ".BI \\-no\\-reboot\n"));
    assert_null(strstr(manual, "\n\n"));
    free(manual);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_defaults, tear_down),
        cmocka_unit_test_teardown(test_memory, tear_down),
        cmocka_unit_test_teardown(test_smp, tear_down),
        cmocka_unit_test_teardown(test_cpu_and_accel, tear_down),
        cmocka_unit_test_teardown(test_what_runs, tear_down),
        cmocka_unit_test_teardown(test_drives, tear_down),
        cmocka_unit_test_teardown(test_how_qcow2_is_tuned, tear_down),
        cmocka_unit_test_teardown(test_the_order_of_disks, tear_down),
        cmocka_unit_test_teardown(test_bad_drives, tear_down),
        cmocka_unit_test_teardown(test_network, tear_down),
        cmocka_unit_test_teardown(test_other_networks, tear_down),
        cmocka_unit_test_teardown(test_bad_network, tear_down),
        cmocka_unit_test_teardown(test_devices, tear_down),
        cmocka_unit_test_teardown(test_terminals, tear_down),
        cmocka_unit_test_teardown(test_bad_terminals, tear_down),
        cmocka_unit_test_teardown(test_habits, tear_down),
        cmocka_unit_test_teardown(test_help_and_version, tear_down),
        cmocka_unit_test_teardown(test_any_order, tear_down),
        cmocka_unit_test_teardown(test_random_words, tear_down),
        cmocka_unit_test_teardown(test_the_manual_is_written, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
