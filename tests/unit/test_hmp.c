/* SPDX-License-Identifier: MIT */
/* The human monitor, on a socket as programs use it and on a terminal as people do. */
#include "vmm/control/hmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/limits.h"
#include "netbackends/slirp.h"
#include "tests/fake_machine.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"
#include "vmm/control/control.h"

static struct loop loop;
static struct machine machine;
static struct control *control;
static struct vm_config config;
static struct config_disk disk_configs[2];
static struct config_nic nic_config;
static char folder[64];
static char path[80];
static bool is_closed;
static char text[1 << 20];
static size_t text_length;

static void on_closed(void *opaque)
{
    (void)opaque;
    is_closed = true;
}

static void open_control(enum config_chardev_kind kind)
{
    config.chardevs[0] = (struct config_chardev){
        .kind = kind, .id = "compat_monitor0", .path = path, .is_server = true};
    assert_int_equal(control_create(&loop, &machine, &control, NULL), 0);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/test_hmp.XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/monitor", folder);
    memset(&config, 0, sizeof(config));
    config.cpus = 2;
    config.name = "box";
    config.serial_chardev = -1;
    config.chardev_count = config.monitor_count = 1;
    config.monitors[0].kind = MONITOR_HUMAN;
    disk_configs[0] = (struct config_disk){.id = "virtio0", .is_attached = true};
    disk_configs[0].options.cache.writeback = true;
    disk_configs[1] = (struct config_disk){.id = "none0"};
    disk_configs[1].options.cache.direct = true;
    config.disks = disk_configs;
    config.disk_count = 2;
    nic_config = (struct config_nic){.netdev_id = "net0", .has_device = true};
    config.nics = &nic_config;
    config.nic_count = 1;
    assert_int_equal(loop_init(&loop), 0);
    fake_machine_init(&machine, &loop, &config);
    text_length = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    is_closed = false;
    control_close(control, on_closed, NULL);
    for (int turns = 0; turns < 2000 && !is_closed; turns++)
        loop_run_once(&loop, true);
    assert_true(is_closed);
    fake_machine_fini(&machine);
    loop_run(&loop);
    loop_fini(&loop);
    rmdir(folder);
    return 0;
}

static int connect_to_monitor(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Turns until the text ends with `end`, or the connection ends (then NULL may be given). */
static void read_until(int fd, const char *end)
{
    for (int turns = 0; turns < 3000; turns++) {
        loop_run_once(&loop, false);
        ssize_t got = recv(fd, text + text_length, sizeof(text) - text_length - 1, 0);
        if (got > 0)
            text_length += (size_t)got;
        text[text_length] = 0;
        if (got == 0 && !end)
            return;
        size_t length = end ? strlen(end) : 0;
        if (end && text_length >= length && strcmp(text + text_length - length, end) == 0)
            return;
    }
    fail_msg("'%s' did not end with '%s'", text, end ? end : "the end");
}

/* The answer to one line; the prompt is cut off. */
static const char *ask(int fd, const char *line)
{
    text_length = 0;
    assert_int_equal(send(fd, line, strlen(line), MSG_NOSIGNAL), strlen(line));
    assert_int_equal(send(fd, "\n", 1, MSG_NOSIGNAL), 1);
    read_until(fd, "(qemu) ");
    text[text_length - 7] = 0;
    return text;
}

static int open_monitor(void)
{
    open_control(CHARDEV_UNIX);
    int fd = connect_to_monitor();
    read_until(fd, " monitor - type 'help' for more information\r\n(qemu) ");
    return fd;
}

static void test_commands_act_on_the_machine(void **state)
{
    (void)state;
    int fd = open_monitor();
    assert_string_equal(ask(fd, "info status"), "VM status: running\r\n");
    assert_string_equal(ask(fd, "stop"), "");
    assert_int_equal(machine.state, MACHINE_PAUSED);
    assert_string_equal(ask(fd, "info status"), "VM status: paused\r\n");
    machine.state = MACHINE_SHUTDOWN;
    assert_string_equal(ask(fd, "info status"), "VM status: paused (shutdown)\r\n");
    assert_string_equal(ask(fd, "c"), "");
    assert_int_equal(machine.state, MACHINE_RUNNING);
    assert_string_equal(ask(fd, "system_powerdown"), "");
    assert_int_equal(machine.powerdowns, 1);
    assert_string_equal(ask(fd, "system_reset"), "");
    assert_int_equal(machine.resets, 1);
    machine.failure = "it is broken";
    assert_string_equal(ask(fd, "cont"), "Error: it is broken\r\n");
    assert_string_equal(ask(fd, "set_link net0 off"), "");
    assert_false(machine.nic.link_up);
    assert_non_null(strstr(ask(fd, "set_link net7 off"), "not found"));
    assert_non_null(strstr(ask(fd, "set_link net0"), "usage"));
    close(fd);
}

/* As QEMU 7.2 prints the same bytes, except that d has a sign, as its manual says. */
static void test_memory(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x41, 0x0a, 0xff, 0x27, 0x00, 0x00, 0x00, 0x80};
    int fd = open_monitor();
    memcpy(machine.ram + 0x100, bytes, sizeof(bytes));
    assert_string_equal(ask(fd, "xp/2xw 0x100"), "0000000000000100: 0x27ff0a41 0x80000000\r\n");
    assert_string_equal(ask(fd, "xp 0x100"), "0000000000000100: 0x27ff0a41\r\n");
    assert_string_equal(ask(fd, "xp/2dw 256"), "0000000000000100:  671025729 -2147483648\r\n");
    assert_string_equal(ask(fd, "xp/1ug 0x100"), "0000000000000100:  9223372037525801537\r\n");
    assert_string_equal(ask(fd, "xp/3oh 0x100"), "0000000000000100:  05101 023777      0\r\n");
    assert_string_equal(ask(fd, "xp/5c 0x100"),
                        "0000000000000100: 'A' '\\n' '\\xff' '\\'' '\\x00'\r\n");
    assert_string_equal(ask(fd, "xp/9xb 0xfff8"),
                        "000000000000fff8: 0x00 0x00 0x00 0x00 0x00 0x00 0x00 0x00\r\n"
                        "0000000000010000: Cannot access memory\r\n");
    assert_non_null(strstr(ask(fd, "xp/99999999xg 0"), "at most"));
    assert_non_null(strstr(ask(fd, "xp/99999999999999999999xg 0"), "at most"));
    assert_string_equal(ask(fd, "x/2xw 0xffffffff80000100"),
                        "ffffffff80000100: 0x27ff0a41 0x80000000\r\n");
    assert_int_equal(machine.state, MACHINE_RUNNING);
    close(fd);
}

/* The monitor looks at one CPU, which stays its own; ports; what is not there says why. */
static void test_cpus(void **state)
{
    (void)state;
    int fd = open_monitor();
    machine.cpus[1].state.regs.rip = 0x1234;
    machine.cpus[1].state.regs.rax = 0xabc;
    machine.cpus[1].state.sregs.cs.base = 0x10000;
    assert_string_equal(ask(fd, "print/x $eip"), "0\r\n");
    assert_string_equal(ask(fd, "cpu 1"), "");
    assert_string_equal(ask(fd, "print/x $rip + 4"), "0x1238\r\n");
    assert_string_equal(ask(fd, "p $pc"), "0x11234\r\n");
    assert_non_null(strstr(ask(fd, "info registers"), "\r\nCPU#1\r\nEAX=00000abc EBX="));
    assert_non_null(strstr(ask(fd, "info cpus"), "* CPU #1: thread_id="));
    assert_string_equal(ask(fd, "cpu 2"), "invalid CPU index\r\n");
    assert_string_equal(ask(fd, "info registers 2"), "CPU#2 not available\r\n");
    assert_string_equal(ask(fd, "info tlb"), "PG disabled\r\n");
    assert_string_equal(ask(fd, "o /h 0x3f8 0x141"), "");
    assert_int_equal(machine.port_value, 0x141);
    assert_string_equal(ask(fd, "i /b 0x10"), "portb[0x0010] = 0x51\r\n");
    uint8_t *lint1 = (uint8_t *)machine.cpus[1].state.lapic.regs + 0x360;
    memcpy((uint8_t *)machine.cpus[0].state.lapic.regs + 0x360, &(uint32_t){0x10400}, 4);
    memcpy(lint1, &(uint32_t){0x400}, 4);
    assert_string_equal(ask(fd, "nmi"), "");
    assert_int_equal(machine.messages, 1);
    assert_int_equal(machine.message_address, 0xfee01000);
    assert_int_equal(machine.message_data, 0x400);
    assert_non_null(strstr(ask(fd, "migrate tcp:0:1"), "migrate: evisor does not migrate"));
    assert_int_equal(machine.state, MACHINE_RUNNING);
    close(fd);
}

/* Tables that lead to themselves end, with a word about it, and the client is kept. */
static void test_endless_page_tables(void **state)
{
    (void)state;
    int fd = open_monitor();
    struct kvm_sregs *sregs = &machine.cpus[0].state.sregs;
    sregs->cr0 = 0x80000001;
    sregs->cr4 = 0x20;
    sregs->efer = 0x500;
    sregs->cr3 = 0x1000;
    for (unsigned i = 0; i < 512; i++)
        memcpy(machine.ram + 0x1000 + 8 * i, &(uint64_t){0x1003 + 4 * (i & 1)}, 8);
    assert_non_null(strstr(ask(fd, "info tlb"), "... and more"));
    assert_non_null(strstr(ask(fd, "info mem"), "... and more"));
    assert_string_equal(ask(fd, "info name"), "box\r\n");
    close(fd);
}

static void test_info(void **state)
{
    (void)state;
    int fd = open_monitor();
    assert_memory_equal(ask(fd, "info version"), "evisor ", 7);
    assert_string_equal(ask(fd, "info kvm"), "kvm support: enabled\r\n");
    assert_string_equal(ask(fd, "info name"), "box\r\n");
    assert_string_equal(ask(fd, "info uuid"), "00000000-0000-0000-0000-000000000000\r\n");
    assert_string_equal(ask(fd, "info cpus"),
                        "* CPU #0: thread_id=100\r\n  CPU #1: thread_id=101\r\n");
    config.guest.io_threads[0] = (char[]){"io0"};
    assert_string_equal(ask(fd, "info iothreads"),
                        "io0:\r\n  thread_id=200\r\n  poll-max-ns=0\r\n  poll-grow=0\r\n"
                        "  poll-shrink=0\r\n  aio-max-batch=0\r\n");
    config.guest.io_threads[0] = NULL;
    assert_string_equal(ask(fd, "info iothreads"), "");
    assert_string_equal(
        ask(fd, "info block"),
        "virtio0: /tmp/top.qcow2 (qcow2)\r\n"
        "    Attached to:      /machine/peripheral-anon/device[0]/virtio-backend\r\n"
        "    Cache mode:       writeback\r\n"
        "    Backing file:     /tmp/base.raw (chain depth: 1)\r\n"
        "\r\n"
        "none0 (virtio1): /tmp/base.raw (raw, read-only)\r\n"
        "    Cache mode:       writethrough, direct\r\n");
    assert_non_null(strstr(ask(fd, "info blockstats"), "virtio0: rd_bytes=4096 wr_bytes=0"));
    assert_string_equal(ask(fd, "info network"),
                        "virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr="
                        "52:54:00:12:34:56\r\n"
                        " \\ net0: index=0,type=user\r\n");
    assert_non_null(strstr(ask(fd, "info chardev"), "compat_monitor0: filename=unix:/tmp"));
    assert_string_equal(ask(fd, "info snapshots"), "There is no snapshot available.\r\n");
    assert_non_null(strstr(ask(fd, "info stats"), "vcpu0.exits.pio: 7\r\n"));
    assert_non_null(strstr(ask(fd, "info"), "info status"));
    assert_non_null(strstr(ask(fd, "help"), "system_powerdown  -- "));
    assert_non_null(strstr(ask(fd, "help info"), "info network  -- "));
    assert_string_equal(ask(fd, "help s"), "stop|s  -- stop the guest\r\n");
    assert_string_equal(ask(fd, "help info kvm"), "info kvm  -- whether KVM runs the guest\r\n");
    assert_string_equal(ask(fd, "help xyzzy"), "unknown command: 'xyzzy'; type 'help'\r\n");
    assert_string_equal(ask(fd, "info block-jobs"),
                        "Type mirror, device j1: Completed 1 of 2 bytes, speed limit 3 bytes/s\r\n"
                        "Streaming device j2: Completed 4 of 5 bytes, speed limit 0 bytes/s\r\n");
    assert_string_equal(ask(fd, "info block none0"),
                        "none0 (virtio1): /tmp/base.raw (raw, read-only)\r\n"
                        "    Cache mode:       writethrough, direct\r\n");
    assert_string_equal(ask(fd, "info block zz"), "Error: Device 'zz' not found\r\n");
    assert_non_null(strstr(ask(fd, "info pci"), "PCI device "));
    assert_non_null(strstr(ask(fd, "info qtree"), "dev: virtio-net-pci, id \"nic0\""));
    close(fd);
}

static void test_snapshots(void **state)
{
    (void)state;
    int fd = open_monitor();
    assert_string_equal(ask(fd, "loadvm s1"),
                        "Error: Snapshot 's1' does not exist in one or more devices\r\n");
    machine.disks[0].snapshot = "s1";
    assert_string_equal(ask(fd, "info snapshots"),
                        "List of snapshots present on all disks:\r\n"
                        "ID        TAG               VM SIZE                DATE     VM CLOCK     "
                        "ICOUNT\r\n"
                        "--        s1                    0 B 1970-01-01 00:00:00 00:00:00.000      "
                        "     \r\n");
    assert_non_null(strstr(ask(fd, "loadvm s1"), "Error: This is a disk-only snapshot."));
    assert_non_null(strstr(ask(fd, "savevm s1"), "Error: "));
    assert_string_equal(ask(fd, "delvm s1"), "");
    assert_null(machine.disks[0].snapshot);
    assert_string_equal(ask(fd, "delvm s1"), "");
    assert_non_null(strstr(ask(fd, "delvm"), "string expected"));
    close(fd);
}

/* A command with more behind it than it takes was not meant: nothing happens. */
static void test_too_many_words(void **state)
{
    (void)state;
    int fd = open_monitor();
    assert_string_equal(ask(fd, "q x"), "quit|q: extraneous characters at the end of line\r\n"
                                        "Try \"help q\" for more information\r\n");
    assert_int_equal(machine_get_state(&machine), MACHINE_RUNNING);
    assert_non_null(strstr(ask(fd, "stop now please"), "extraneous"));
    assert_non_null(strstr(ask(fd, "info kvm x"), "Try \"help info kvm\" for"));
    assert_non_null(strstr(ask(fd, "device_del a b"), "extraneous"));
    assert_string_equal(ask(fd, "info kvm"), "kvm support: enabled\r\n");
    close(fd);
}

static void ignore_closed(void *opaque)
{
    (void)opaque;
}

static void test_forwarded_ports(void **state)
{
    (void)state;
    int fd = open_monitor();
    assert_non_null(strstr(ask(fd, "hostfwd_add tcp::45871-:22"), "there is no NAT"));
    struct net_slirp_options options = {0};
    assert_int_equal(net_slirp_create(&loop, "net0", &options, &machine.backend, NULL), 0);
    assert_string_equal(ask(fd, "hostfwd_add tcp::45871-:22"), "");
    assert_non_null(strstr(ask(fd, "info usernet"), "  hostfwd=tcp:127.0.0.1:45871-:22\r\n"));
    assert_non_null(strstr(ask(fd, "hostfwd_add net0 tcp::45871-:22"), "Error: "));
    assert_non_null(strstr(ask(fd, "hostfwd_add net9 tcp::45872-:22"), "netdev net9"));
    assert_string_equal(ask(fd, "hostfwd_remove net0 tcp::45871"),
                        "host forwarding rule for tcp::45871 removed\r\n");
    assert_non_null(strstr(ask(fd, "hostfwd_remove tcp::45871"), "rule for tcp::45871 not found"));
    assert_non_null(strstr(ask(fd, "hostfwd_add"), "usage: hostfwd_add"));
    assert_non_null(strstr(ask(fd, "hostfwd_add tcp:127.0.0.1:1"), "usage: hostfwd_add"));
    assert_non_null(strstr(ask(fd, "hostfwd_add tcp:127.0.0.1:1-10.0.2.15:x"), "usage"));
    assert_non_null(strstr(ask(fd, "hostfwd_remove a b c d"), "extraneous"));
    machine.backend->ops->close(machine.backend, ignore_closed, NULL);
    machine.backend = &machine.nic;
    close(fd);
}

static void test_bad_lines(void **state)
{
    (void)state;
    int fd = open_monitor();
    assert_string_equal(ask(fd, ""), "");
    assert_string_equal(ask(fd, "   "), "");
    assert_string_equal(ask(fd, "system_powerdwn"),
                        "unknown command: 'system_powerdwn'; did you mean 'system_powerdown'?\r\n");
    assert_string_equal(ask(fd, "xyzzy"), "unknown command: 'xyzzy'; type 'help'\r\n");
    assert_string_equal(ask(fd, "info sttaus"),
                        "unknown info: 'sttaus'; did you mean 'status'?\r\n");
    char line[6001];
    memset(line, 'x', 6000);
    line[6000] = 0;
    assert_string_equal(ask(fd, line), "the line is too long\r\n");
    assert_string_equal(ask(fd, "info kvm"), "kvm support: enabled\r\n");
    close(fd);
}

static void test_lines_end_in_any_way_and_come_in_pieces(void **state)
{
    (void)state;
    int fd = open_monitor();
    text_length = 0;
    send(fd, "info kvm\r\ninfo kvm\rinfo na", 26, 0);
    read_until(fd, "(qemu) ");
    send(fd, "me\n", 3, 0);
    read_until(fd, "box\r\n(qemu) ");
    assert_string_equal(text, "kvm support: enabled\r\n(qemu) kvm support: enabled\r\n(qemu) "
                              "box\r\n(qemu) ");
    close(fd);
}

/* Nomad writes and goes away; it never reads, not even the greeting. */
static void test_a_writer_that_never_reads(void **state)
{
    (void)state;
    open_control(CHARDEV_UNIX);
    int fd = connect_to_monitor();
    assert_int_equal(send(fd, "system_powerdown\n", 17, 0), 17);
    close(fd);
    for (int i = 0; i < 20; i++)
        loop_run_once(&loop, false);
    assert_int_equal(machine.powerdowns, 1);
}

/* vagrant-qemu writes, shuts its side, and reads to the end. */
static void test_a_reader_to_the_end(void **state)
{
    (void)state;
    int fd = open_monitor();
    send(fd, "stop\nsystem_powerdown\n", 22, 0);
    shutdown(fd, SHUT_WR);
    read_until(fd, NULL);
    assert_int_equal(machine.powerdowns, 1);
    assert_int_equal(machine.state, MACHINE_PAUSED);
    assert_non_null(strstr(text, "(qemu) "));
    close(fd);
}

static void test_quit(void **state)
{
    (void)state;
    int fd = open_monitor();
    assert_string_equal(ask(fd, "quit"), "");
    assert_int_equal(machine.quits, 1);
    close(fd);
}

static void test_leaving_while_a_command_runs(void **state)
{
    (void)state;
    int fd = open_monitor();
    machine.is_held = true;
    send(fd, "stop\ninfo kvm\n", 14, 0);
    for (int i = 0; i < 10; i++)
        loop_run_once(&loop, false);
    assert_int_equal(machine.op_count, 1);
    close(fd);
    for (int i = 0; i < 10; i++)
        loop_run_once(&loop, false);
    fake_machine_release(&machine);
    for (int i = 0; i < 10; i++)
        loop_run_once(&loop, false);
    assert_int_equal(machine.state, MACHINE_PAUSED);
}

/* What comes back. */
static const char *type(const char *keys)
{
    static char output[sizeof(machine.terminal.output)];
    struct chardev *terminal = &machine.terminal;
    fake_terminal_type(terminal, keys);
    for (int i = 0; i < 10; i++)
        loop_run_once(&loop, false);
    memcpy(output, terminal->output, terminal->output_length);
    output[terminal->output_length] = 0;
    terminal->output_length = 0;
    return output;
}

static void test_a_person_at_a_terminal(void **state)
{
    (void)state;
    open_control(CHARDEV_STDIO);
    assert_non_null(strstr(type(""), "type 'help'"));
    assert_string_equal(type("infx\177o"), "infx\b \bo");
    assert_string_equal(type(" kvm\r"), " kvm\r\nkvm support: enabled\r\n(qemu) ");
    assert_string_equal(type("ab\x15stop\r"), "ab\b \b\b \bstop\r\n(qemu) ");
    assert_int_equal(machine.state, MACHINE_PAUSED);
    assert_string_equal(type("\b\x01\x1b"), "");
    machine.terminal.is_full = true;
    for (int i = 0; i < 400; i++)
        type("help\r");
    machine.terminal.is_full = false;
    const char *output = type("info kvm\r");
    for (int i = 0; i < 40 && !strstr(output, "kvm support"); i++)
        output = type("");
    assert_non_null(strstr(output, "kvm support: enabled\r\n(qemu) "));
}

/* Beside the serial port the monitor is silent until Ctrl-a c brings the input to it. */
static void test_a_shared_terminal(void **state)
{
    (void)state;
    config.serial_chardev = 0;
    open_control(CHARDEV_STDIO);
    assert_string_equal(type(""), "");
    const struct char_user_ops *ops = machine.terminal.backend.user_ops;
    ops->on_focus(machine.terminal.backend.user, true);
    assert_non_null(strstr(type(""), "type 'help' for more information\r\n(qemu) "));
    ops->on_focus(machine.terminal.backend.user, false);
    ops->on_focus(machine.terminal.backend.user, true);
    assert_string_equal(type(""), "\r\n(qemu) ");
}

static void test_random_input(void **state)
{
    (void)state;
    int fd = open_monitor();
    struct random random = {11};
    for (int round = 0; round < 300; round++) {
        char bytes[64];
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (char)random_next(&random);
        unused_result(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) < 0);
        loop_run_once(&loop, false);
        unused_result(recv(fd, text, sizeof(text), 0) < 0);
    }
    send(fd, "\n", 1, 0);
    for (int i = 0; i < 500; i++) {
        loop_run_once(&loop, false);
        unused_result(recv(fd, text, sizeof(text), 0) < 0);
    }
    assert_string_equal(ask(fd, "info kvm"), "kvm support: enabled\r\n");
    close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_commands_act_on_the_machine),
        TEST(test_memory),
        TEST(test_cpus),
        TEST(test_endless_page_tables),
        TEST(test_info),
        TEST(test_snapshots),
        TEST(test_too_many_words),
        TEST(test_forwarded_ports),
        TEST(test_bad_lines),
        TEST(test_lines_end_in_any_way_and_come_in_pieces),
        TEST(test_a_writer_that_never_reads),
        TEST(test_a_reader_to_the_end),
        TEST(test_quit),
        TEST(test_leaving_while_a_command_runs),
        TEST(test_a_person_at_a_terminal),
        TEST(test_a_shared_terminal),
        TEST(test_random_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
