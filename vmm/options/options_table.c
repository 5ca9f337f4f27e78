/* SPDX-License-Identifier: MIT */
/*
 * options_table: every option, in the order of the manual. Parsing, -help and the man page come
 * from here. Below what evisor has stands what changes nothing and is accepted, then what is known
 * from QEMU and refused with what to use instead.
 */
#include <errno.h>

#include "vmm/options/options_private.h"

#define HEADING(text)                                                                              \
    {                                                                                              \
        .help = text                                                                               \
    }
#define ALIAS(alias, metavariable, parser)                                                         \
    {                                                                                              \
        .name = alias, .argument = metavariable, .parse = parser                                   \
    }
#define ACCEPTED(alias, metavariable, values, reason)                                              \
    {                                                                                              \
        .name = alias, .argument = metavariable, .parse = option_accept, .only = values,           \
        .instead = reason                                                                          \
    }
#define REFUSED(alias, reason)                                                                     \
    {                                                                                              \
        .name = alias, .argument = "", .parse = option_refuse, .instead = reason                   \
    }

static const char no_window[] = "evisor has no window; use -nographic and a serial console "
                                "(-append console=ttyS0)";
static const char no_usb[] = "evisor has no USB; use virtio devices";
static const char no_sound[] = "evisor has no sound";
static const char no_floppy[] = "evisor has no floppy; use -drive file=FILE,format=raw,readonly=on";
static const char no_flash[] = "evisor has no flash memory; name firmware with -bios";
static const char no_state[] = "the state of a machine cannot be saved and loaded yet; only disks";
static const char no_trace[] =
    "evisor writes traces to standard error: EVISOR_TRACE=all evisor ...";
static const char no_share[] = "shared folders are not there; copy files over ssh, or give the "
                               "guest a disk";

const struct option_entry option_table[] = {
    HEADING("Machine"),
    {"machine", "[type=]q35[,accel=LIST][,memory-backend=ID][,unpack-kernel=on|off]",
     "The machine. There is one: a subset of Intel's Q35 with virtio devices; pc is accepted and "
     "means the same. accel= is as -accel. memory-backend= names the -object that the guest's "
     "memory is; -m may then be left out. unpack-kernel=off leaves a -kernel's unpacking to the "
     "kernel's own code, which evisor does otherwise, for it is faster; KASLR is kept. -M is short "
     "for it.",
     option_machine, NULL, NULL},
    ALIAS("M", "[type=]q35[,accel=LIST][,memory-backend=ID][,unpack-kernel=on|off]",
          option_machine),
    {"accel", "LIST",
     "What runs the guest's instructions: kvm, or soft (evisor's own CPU, also called tcg). In a "
     "list such as kvm:soft, which is the default, the first that this host can use is taken.",
     option_accel, NULL, NULL},
    {"enable-kvm", NULL, "The same as -accel kvm.", option_enable_kvm, NULL, NULL},
    {"cpu", "MODEL[,+FEATURE][,-FEATURE][,FEATURE=on|off][,enforce=on|off]",
     "The features that the guest's CPUs have: host (the default) or max for all that the "
     "accelerator can offer on this host, qemu64, or x86-64, x86-64-v2, -v3 or -v4 for those of "
     "that level. Features are switched by name; what needs one that is off goes with it. One that "
     "is asked for and not offered is a warning, with enforce an error. help lists the names.",
     option_cpu, NULL, NULL},
    {"smp", "[cpus=]N[,maxcpus=N][,sockets=N][,cores=N][,threads=N]",
     "The number of CPUs (default 1), and how they are laid out. What is left out of the layout "
     "follows from the rest, cores first. maxcpus= leaves room for CPUs that device_add plugs in; "
     "the layout is that of all of them.",
     option_smp, NULL, NULL},
    {"m", "[size=]SIZE[,maxmem=SIZE]",
     "The guest's memory, with suffix K, M, G or T; a plain number counts MiB (default 128). "
     "maxmem bounds it together with memory devices (-device virtio-mem-pci).",
     option_m, NULL, NULL},
    {"mem-path", "PATH",
     "Takes the guest's memory from a file without a name in a folder such as a mounted hugetlbfs, "
     "or from a file that is new, empty or of that size, which keeps it.",
     option_mem_path, NULL, NULL},
    {"mem-prealloc", NULL,
     "Takes all of the guest's memory from the host at the start, in huge pages where it has some, "
     "and registers it with io_uring where ulimit -l allows and there is no balloon: disk requests "
     "then cost an eighth less.",
     option_flag, NULL, NULL},
    {"name", "[guest=]NAME", "The machine's name, which query-name tells.", option_name, NULL,
     NULL},
    {"uuid", "UUID", "The machine's UUID, which query-uuid tells.", option_uuid, NULL, NULL},

    HEADING("Booting"),
    {"kernel", "FILE", "The kernel to start: a bzImage, or an ELF vmlinux with a PVH entry.",
     option_kernel, NULL, NULL},
    {"initrd", "FILE", "The initial RAM disk.", option_initrd, NULL, NULL},
    {"append", "TEXT", "The kernel's command line.", option_append, NULL, NULL},
    {"bios", "FILE",
     "The firmware that boots from disks when there is no -kernel (default: SeaBIOS from Debian's "
     "package seabios). Without a screen, it shows itself on the serial port.",
     option_bios, NULL, NULL},
    {"boot",
     "[order=]LETTERS[,once=LETTERS][,menu=on|off][,strict=on|off][,splash-time=MS]"
     "[,reboot-timeout=MS]",
     "What the firmware boots from: c the disks, d the CDs, in that order by default. once= counts "
     "until the first reset. menu=on shows a menu, for splash-time= milliseconds. strict=on tries "
     "nothing else. reboot-timeout= starts again where nothing could be booted.",
     option_boot, NULL, NULL},

    HEADING("Disks"),
    {"drive",
     "file=FILE[,format=raw|qcow2|vdi|vmdk|vpc|vhdx][,if=virtio|none][,id=ID][,index=N][,media="
     "disk|cdrom]"
     "[,readonly=on|off][,cache=MODE][,discard=unmap|ignore][,aio=threads|native|io_uring]"
     "[,node-name=NAME][,throttling.iops-total=N][,throttling.bps-total=N][,throttling.group=NAME]"
     "[,werror=ACTION][,rerror=ACTION][,serial=TEXT][,file.locking=on|off]"
     "[,cache-size=SIZE][,l2-cache-size=SIZE][,refcount-cache-size=SIZE]"
     "[,l2-cache-entry-size=SIZE][,cache-clean-interval=SECONDS]"
     "[,pass-discard-request=on|off][,pass-discard-other=on|off]"
     "[,overlap-check=cached|constant|none][,data-file.filename=FILE]",
     "A disk. With if=virtio, which is the default, the guest sees it as a virtio disk; with "
     "if=none it waits for a -device. Say which format the image has: without format= the names "
     "*.qcow2, *.raw and *.iso tell, and of any other image its contents, unless it builds on "
     "another file; that one needs format=qcow2. Images of VirtualBox (vdi), VMware (vmdk) and "
     "Hyper-V (vpc, vhdx) need readonly=on. "
     "cache is writeback (the default), none, writethrough, directsync or unsafe. discard is "
     "unmap by default: space that the guest frees goes back to the host. throttling.iops-total, "
     "-read and -write limit operations a second, throttling.bps-* bytes; "
     "with -max a burst may go so far, for -max-length seconds; iops= and bps= are short forms. "
     "Drives with the same throttling.group share the limits that one of them, or -object "
     "throttle-group,id=NAME, tells. "
     "werror and rerror are "
     "report, ignore, stop or enospc. A comma in a file's name is written twice. "
     "qcow2 keeps 32M of its tables in memory, enough for 256G in clusters of 64K, and drops what "
     "was not used for 600 seconds. Space that the guest discards is given back within a second or "
     "at its next flush. lazy-refcounts is accepted and changes nothing: refcounts are written "
     "with "
     "the barrier that the data needs anyway. The data file that an image names is opened only if "
     "format=qcow2 is said, relative to the working directory.",
     option_drive, NULL, NULL},
    {"blockdev",
     "[driver=]qcow2|raw|vdi|vmdk|vpc|vhdx,node-name=NAME,file.driver=file,file.filename=FILE"
     "[,read-only=on|off][,discard=unmap|ignore][,cache.direct=on|off][,backing=NODE]...",
     "An image without a device, as blockdev-add makes it: -device virtio-blk-pci,drive=NAME shows "
     "it to the guest, and it stays when the device goes. file=NODE names a node that -blockdev "
     "driver=file,node-name=NODE,filename=FILE made before. backing=NODE opens it above the image "
     "of another node; images below that one are those that its header names. All as one JSON "
     "object too: -blockdev '{\"driver\": ...}'; so may -device, -object and -netdev be written.",
     option_blockdev, NULL, NULL},
    {"hda", "FILE", "Short for -drive file=FILE,index=0; -hdb, -hdc and -hdd are index 1 to 3.",
     option_hd, NULL, NULL},
    ALIAS("hdb", "FILE", option_hd),
    ALIAS("hdc", "FILE", option_hd),
    ALIAS("hdd", "FILE", option_hd),
    {"cdrom", "FILE", "A read-only disk from an ISO image. The guest cannot start from it.",
     option_cdrom, NULL, NULL},

    HEADING("Network"),
    {"nic",
     "user[,hostfwd=RULE][,mac=ADDRESS][,model=virtio][,net=NETWORK][,host=ADDRESS][,dns=ADDRESS]"
     "[,dhcpstart=ADDRESS][,hostname=NAME][,domainname=NAME][,dnssearch=DOMAIN][,restrict=on|off]"
     "[,host-loopback=on|off][,ipv4=on|off][,ipv6=on|off][,ipv6-net=PREFIX][,tftp=FOLDER]"
     "[,tftp-server-name=NAME][,bootfile=FILE][,guestfwd=RULE][,antispoof=on|off]",
     "A virtio NIC behind evisor's built-in NAT; one is there without any option. The guest gets "
     "its address by DHCP. With host-loopback=on it reaches what listens on the host's own "
     "127.0.0.1, as 10.0.2.2; without, it does not. RULE is "
     "tcp|udp:[HOSTADDRESS]:HOSTPORT-[GUESTADDRESS]:GUESTPORT and may be given again and again: "
     "-nic user,hostfwd=tcp::2222-:22. Without HOSTADDRESS only this host gets in (127.0.0.1); "
     "IPv6 "
     "addresses stand in brackets. hostfwd=unix:PATH-:GUESTPORT makes a local socket instead. "
     "guestfwd=tcp:ADDRESS:PORT-TARGET leads an address of the guest's network to TARGET, for each "
     "connection anew: cmd:COMMAND, tcp:HOST:PORT, unix:PATH or chardev:ID. restrict=on shuts the "
     "guest off "
     "from everything but the rules. antispoof=on drops what the guest sends from other addresses "
     "than its own: its MAC, its DHCP leases and IPv6 addresses that it tried out first. -nic "
     "none: "
     "no NIC.",
     option_nic, NULL, NULL},
    {"netdev",
     "user,id=ID[,...]|tap,id=ID[,ifname=NAME|fd=N|br=BRIDGE][,script=no][,vnet_hdr=on|off]|"
     "bridge,id=ID[,br=BRIDGE][,helper=FILE]|"
     "stream,id=ID,addr.type=unix,addr.path=PATH[,server=on][,reconnect=SECONDS]|"
     "dgram,id=ID,local.path=PATH,remote.path=PATH|"
     "socket,id=ID,listen=:PORT|connect=HOST:PORT|mcast=GROUP:PORT|internal,id=ID,folder=PATH|"
     "nat,id=ID,folder=PATH[,...]|hostonly,id=ID,folder=PATH[,net=NETWORK][,hostfwd=RULE]",
     "The network side of -nic, for a -device virtio-net-pci; -nic takes all of these too. tap is "
     "an interface of the host (evisor runs no scripts for it), bridge has a helper make one on a "
     "bridge. stream and dgram speak to a program or another machine, over a path or "
     "addr.host and addr.port; dgram with remote.host= a multicast group (socket: mcast=) joins all "
     "who do the same, and local.host=127.0.0.1 keeps that on this host. internal joins all machines that name the same folder, without "
     "root and without a daemon; nat does so too, and gives each an address of its own and the way "
     "out (it takes the keys of user); hostonly leads to the host alone, which is 192.168.56.1 "
     "there "
     "and is reached as its own 127.0.0.1. Any of them takes antispoof=on.",
     option_netdev, NULL, NULL},
    {"net", "nic|user|none", "The old spelling of -nic.", option_net, NULL, NULL},

    HEADING("Devices"),
    {"device", "DRIVER[,KEY=VALUE]...",
     "A device: virtio-blk-pci,drive=ID[,serial=TEXT][,num-queues=N][,iothread=ID]; "
     "virtio-net-pci,netdev=ID[,mac=ADDRESS][,host_mtu=N][,KEY=off] (csum, gso, host_tso4, "
     "host_tso6, host_ecn, guest_csum, guest_tso4, guest_tso6, guest_ecn, guest_announce, "
     "mrg_rxbuf: what the guest is not to have); "
     "virtio-rng-pci; "
     "virtio-balloon-pci[,deflate-on-oom=on][,free-page-reporting=on]; "
     "virtio-mem-pci,memdev=ID[,requested-size=SIZE][,block-size=SIZE]; "
     "virtio-serial-pci[,max_ports=N] with virtserialport,chardev=ID[,name=NAME][,nr=N] (an "
     "agent's "
     "port is called org.qemu.guest_agent.0) and virtconsole,chardev=ID. What a device names may "
     "stand before or after it. -device help lists them.",
     option_device, NULL, NULL},
    {"object",
     "rng-builtin,id=ID|iothread,id=ID|memory-backend-ram,id=ID,size=SIZE|memory-backend-file,"
     "id=ID,size=SIZE,mem-path=PATH[,share=on][,prealloc=on]|throttle-group,id=ID"
     "[,x-iops-total=N][,x-bps-total=N]",
     "A source for virtio-rng-pci,rng=ID, which is the host's getrandom in any case; the memory of "
     "a virtio-mem-pci,memdev=ID or, by -machine memory-backend=ID, the guest's own, from a file or "
     "a folder such as a mounted hugetlbfs if wanted, all of it at the start with prealloc=on; a "
     "thread with an event loop of its own, for disks with iothread=ID and their devices (while "
     "jobs run, images are exported or limits are set for one of them, the first thread turns that "
     "loop, too); limits, in the words of throttling.*, for the drives with throttling.group=ID.",
     option_object, NULL, NULL},
    {"add-fd", "fd=NUMBER,set=NUMBER[,opaque=TEXT]",
     "Puts a descriptor that evisor was started with into a set: /dev/fdset/SET then stands for it "
     "wherever the path of an image is asked for.",
     option_add_fd, NULL, NULL},

    HEADING("Terminal and sockets"),
    {"nographic", NULL,
     "Serial port and monitor share the terminal: Ctrl-a c switches between them, Ctrl-a x ends "
     "the machine, Ctrl-a h tells more. Since evisor has no window, this is also what happens "
     "without -display, -serial, -nodefaults and -daemonize.",
     option_flag, NULL, NULL},
    {"serial", "stdio|mon:stdio|file:PATH|unix:PATH,server=on[,wait=off]|"
     "telnet:127.0.0.1:PORT,server=on[,wait=off]|pty|null|none|chardev:ID",
     "Where the serial port ends. mon:stdio shares the terminal with the monitor.", option_serial,
     NULL, NULL},
    {"monitor",
     "stdio|unix:PATH,server=on[,wait=off]|tcp:127.0.0.1:PORT,server=on[,wait=off]|"
     "telnet:127.0.0.1:PORT,server=on[,wait=off]|"
     "pty|none|chardev:ID",
     "A monitor for people: type help in it. The socket is for its owner only. Without wait=off "
     "the machine starts when the first client has come.",
     option_monitor, NULL, NULL},
    {"qmp", "unix:PATH,server=on[,wait=off]|tcp:127.0.0.1:PORT,server=on[,wait=off]|chardev:ID",
     "A monitor for programs, in QEMU's machine protocol. Any number of clients up to 8 may come "
     "at the same time. The older spelling server,nowait is understood.",
     option_monitor, NULL, NULL},
    {"qmp-pretty", "...", "As -qmp, with replies on many lines.", option_monitor, NULL, NULL},
    {"mon", "[chardev=]ID[,mode=readline|control][,pretty=on|off]",
     "A monitor for people (readline) or programs (control) on a -chardev.", option_mon, NULL,
     NULL},
    {"chardev",
     "null|stdio|pty|file,path=PATH[,append=on]|pipe,path=PATH|ringbuf[,size=SIZE]|"
     "socket,path=PATH[,server=on[,wait=off]][,reconnect=SECONDS]|"
     "socket,host=127.0.0.1,port=PORT[,telnet=on][,...],id=ID[,mux=on]",
     "An end for -serial chardev:ID, -mon chardev=ID or a virtio port. A socket without server=on "
     "connects: once, or with reconnect until somebody is there, and again when they leave. A pipe "
     "is read from PATH.in and written to PATH.out. With mux=on several users share it. "
     "logfile=FILE keeps a copy of the output (logappend=on: behind what is in it; logsize=SIZE: "
     "only so much of its end takes room); with history=on a socket's client first gets the last "
     "64 KiB. With telnet=on the other end is a telnet client.",
     option_chardev, NULL, NULL},
    {"display", "none",
     "There never is a window; with none the terminal is left alone too, unless another option "
     "takes it.",
     option_display, NULL, no_window},

    HEADING("Running"),
    {"S", NULL, "Does not start the guest; a monitor's cont does.", option_flag, NULL, NULL},
    {"no-reboot", NULL, "A reboot of the guest ends evisor.", option_flag, NULL, NULL},
    {"no-shutdown", NULL, "When the guest has shut down evisor stays, stopped, for its monitors.",
     option_flag, NULL, NULL},
    {"action", "reboot=reset|shutdown,shutdown=poweroff|pause",
     "The same choices as -no-reboot and -no-shutdown.", option_action, NULL, NULL},
    {"daemonize", NULL,
     "Goes to the background once the machine is built and its sockets are there.", option_flag,
     NULL, NULL},
    {"pidfile", "FILE", "Writes the process id to a file, which is locked while evisor runs.",
     option_pidfile, NULL, NULL},
    {"metrics", "unix:PATH|file:PATH",
     "Shows counters in Prometheus' text format, on a socket or in a file that is kept up to date.",
     option_metrics, NULL, NULL},
    {"gdb", "tcp:[127.0.0.1]:PORT", "Listens for the debugger gdb.", option_gdb, NULL, NULL},
    {"s", NULL, "Short for -gdb tcp::1234.", option_gdb_short, NULL, NULL},
    {"nodefaults", NULL, "Adds no NIC, serial port or monitor that was not asked for.", option_flag,
     NULL, NULL},
    {"help", NULL, "Prints this list.", option_help, NULL, NULL},
    ALIAS("h", NULL, option_help),
    {"version", NULL, "Prints the version.", option_version, NULL, NULL},

    /* Accepted: what these ask for is so anyway. */
    {"vga", "none", NULL, option_display, NULL, no_window},
    {"vnc", "none", NULL, option_display, NULL, no_window},
    ACCEPTED("no-user-config", NULL, "*", NULL),
    ACCEPTED("no-hpet", NULL, "*", NULL),
    ACCEPTED("no-fd-bootchk", NULL, "*", NULL),
    ACCEPTED("parallel", "none", "none|null", "evisor has no parallel port; leave it out"),
    ACCEPTED("rtc", "base=utc",
             "base=utc|base=utc,clock=host|clock=host|driftfix=slew|"
             "base=utc,driftfix=slew",
             "the clock is the host's, in UTC; leave it out"),
    ACCEPTED("msg", "...", "*", NULL),
    ACCEPTED("L", "FOLDER", "*", NULL),
    ACCEPTED("k", "LAYOUT", "*", NULL),
    ACCEPTED("overcommit", "...", "mem-lock=off|cpu-pm=off|mem-lock=off,cpu-pm=off",
             "memory is never locked; leave it out"),
    ACCEPTED("sandbox", "off", "off", "the sandbox is not there yet; leave it out"),
    ACCEPTED("balloon", "none", "none", "use -device virtio-balloon-pci"),

    /* Refused. */
    REFUSED("pflash", no_flash),
    REFUSED("fda", no_floppy),
    REFUSED("fdb", no_floppy),
    REFUSED("dtb", "a PC has no device tree"),
    REFUSED("usb", no_usb),
    REFUSED("usbdevice", no_usb),
    REFUSED("audiodev", no_sound),
    REFUSED("audio", no_sound),
    REFUSED("soundhw", no_sound),
    REFUSED("spice", no_window),
    REFUSED("sdl", no_window),
    REFUSED("curses", no_window),
    REFUSED("full-screen", no_window),
    REFUSED("loadvm", no_state),
    REFUSED("incoming", no_state),
    REFUSED("snapshot", "make an overlay instead: evisor-img create -f qcow2 -b IMAGE -F FORMAT "
                        "OVERLAY, and run that"),
    REFUSED("sd", "evisor has virtio disks only; use -drive file=FILE,if=virtio"),
    REFUSED("mtdblock", no_flash),
    REFUSED("virtfs", no_share),
    REFUSED("fsdev", no_share),
    REFUSED("smbios", "evisor has no SMBIOS tables; leave it out"),
    REFUSED("acpitable", "evisor writes its own ACPI tables; leave it out"),
    REFUSED("no-acpi", "Linux needs the ACPI tables here; leave it out"),
    REFUSED("fw_cfg", "give the guest its settings by -append or on a disk"),
    REFUSED("tpmdev", "evisor has no TPM; leave it out"),
    REFUSED("watchdog", "evisor has no watchdog; leave it out"),
    REFUSED("numa", "the guest has one NUMA node; leave it out"),
    REFUSED("global", "set it at the -device itself"),
    REFUSED("set", "set it at the -device itself"),
    REFUSED("readconfig", "write the options on the command line, or in a script"),
    REFUSED("writeconfig", "write the options on the command line, or in a script"),
    REFUSED("runas", "start evisor as that user"),
    REFUSED("chroot", "start evisor under chroot(8) or in a container"),
    REFUSED("icount", "evisor counts no instructions; leave it out"),
    REFUSED("D", no_trace),
    REFUSED("d", no_trace),
    REFUSED("trace", no_trace),
    REFUSED("debugcon", "use -serial"),
    REFUSED("plugin", "evisor has no plugins"),
    REFUSED("memory", "use -m SIZE"),
    REFUSED("mem", "use -m SIZE"),
    REFUSED("cpus", "use -smp N"),
    REFUSED("disk", "use -drive file=FILE,format=FORMAT"),
    REFUSED("iso", "use -cdrom FILE"),
    REFUSED("semihosting", "evisor has no semihosting; leave it out"),
};

const unsigned option_table_length = ARRAY_SIZE(option_table);

int option_accept(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)options;
    if (!argument || *entry->only == '*' || keyval_name_index(entry->only, argument) >= 0)
        return 0;
    return error_set(err, ENOTSUP, "-%s %s: %s", entry->name, argument, entry->instead);
}

int option_refuse(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)options, (void)argument;
    return error_set(err, ENOTSUP, "-%s is not supported: %s", entry->name, entry->instead);
}
