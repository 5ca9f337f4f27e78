/* SPDX-License-Identifier: MIT */
/* The debugger's side of the remote protocol, against a machine of two bags of registers. */
#include "vmm/gdb/gdb.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "tests/control_rig.h"
#include "tests/unit/random.h"
#include "tests/unit/test.h"

static struct gdb *gdb;
static uint16_t port;
static int fd;
static char input[1 << 17];
static size_t input_length;
static char packet[1 << 16];
static bool is_closed;

static int connect_debugger(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int debugger = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    assert_int_equal(setsockopt(debugger, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
    assert_int_equal(connect(debugger, (struct sockaddr *)&address, sizeof(address)), 0);
    return debugger;
}

static void receive(void)
{
    ssize_t got = recv(fd, input + input_length, sizeof(input) - input_length - 1, MSG_DONTWAIT);
    if (got > 0)
        input_length += (size_t)got;
    input[input_length] = 0;
}

static bool has_packet(void)
{
    receive();
    char *start = strchr(input, '$'), *end = start ? strchr(start, '#') : NULL;
    return end && end + 2 < input + input_length;
}

/* The next packet, its frame and checksum taken off; acks before it are dropped. */
static const char *next(void)
{
    rig_until(has_packet());
    char *start = strchr(input, '$'), *end = strchr(start, '#');
    uint8_t sum = 0;
    for (char *at = start + 1; at < end; at++)
        sum = (uint8_t)(sum + (uint8_t)*at);
    assert_int_equal(strtoul((char[]){end[1], end[2], 0}, NULL, 16), sum);
    snprintf(packet, sizeof(packet), "%.*s", (int)(end - start - 1), start + 1);
    input_length -= (size_t)(end + 3 - input);
    memmove(input, end + 3, input_length + 1);
    return packet;
}

static bool is_ended(void)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return got == 0 || (got < 0 && errno != EAGAIN);
}

static void say_bytes(const char *bytes, size_t length)
{
    char frame[40000];
    uint8_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + (uint8_t)bytes[i]);
    frame[0] = '$';
    memcpy(frame + 1, bytes, length);
    snprintf(frame + 1 + length, 4, "#%02x", sum);
    assert_int_equal(send(fd, frame, length + 4, MSG_NOSIGNAL), length + 4);
}

static const char *ask(const char *text)
{
    say_bytes(text, strlen(text));
    return next();
}

static void expect(const char *text, const char *reply)
{
    const char *got = ask(text);
    if (strcmp(got, reply) != 0)
        fail_msg("'%s' was answered by '%s', not '%s'", text, got, reply);
}

static int set_up(void **state)
{
    rig_set_up(state);
    char where[32];
    struct error err = {0};
    for (port = 45700; port < 45800; port++) {
        snprintf(where, sizeof(where), "tcp::%u", port);
        rig.config.gdb = where;
        if (gdb_create(&rig.loop, &rig.machine, rig.control, &gdb, &err) == 0)
            break;
    }
    assert_true(port < 45800);
    rig.config.gdb = NULL;
    input_length = 0;
    input[0] = 0;
    fd = connect_debugger();
    rig_until(rig.machine.state == MACHINE_PAUSED);
    return 0;
}

static void on_closed(void *opaque)
{
    (void)opaque;
    is_closed = true;
}

static void close_gdb(void)
{
    is_closed = false;
    gdb_close(gdb, on_closed, NULL);
    rig_until(is_closed);
    gdb = NULL;
}

static int tear_down(void **state)
{
    if (gdb)
        close_gdb();
    if (fd >= 0)
        close(fd);
    return rig_tear_down(state);
}

static void test_greeting(void **state)
{
    (void)state;
    assert_non_null(strstr(ask("qSupported:multiprocess+"), "PacketSize=4000;"));
    expect("?", "T05thread:01;");
    expect("qAttached", "1");
    expect("qfThreadInfo", "m1,2");
    expect("qsThreadInfo", "l");
    expect("qC", "QC1");
    expect("qThreadExtraInfo,2", "4350552031"); /* "CPU 1" */
    expect("T2", "OK");
    expect("T3", "E03");
    expect("Hg2", "OK");
    expect("qC", "QC2");
    expect("Hc-1", "OK");
    expect("Hg99", "E03");
    expect("vMustReplyEmpty", "");
    expect("qSymbol::", "");
    expect("!", "");
    expect("", "");
    expect("QStartNoAckMode", "OK");
    input_length = 0;
    say_bytes("?", 1);
    rig_until(has_packet());
    assert_string_equal(input + strspn(input, "+"), "$T05thread:02;#08");
}

static void test_the_description_has_every_register(void **state)
{
    (void)state;
    char xml[20000] = "", request[80];
    for (size_t length = 0;;) {
        snprintf(request, sizeof(request), "qXfer:features:read:target.xml:%zx,400", length);
        const char *piece = ask(request);
        assert_true(*piece == 'm' || *piece == 'l');
        snprintf(xml + length, sizeof(xml) - length, "%s", piece + 1);
        length += strlen(piece + 1);
        if (*piece == 'l')
            break;
    }
    assert_non_null(strstr(xml, "<architecture>i386:x86-64</architecture>"));
    unsigned bits = 0, count = 0;
    for (const char *at = xml; (at = strstr(at, "bitsize=\"")); count++)
        bits += (unsigned)strtoul(at += 9, NULL, 10);
    assert_int_equal(strlen(ask("g")), bits / 4);
    snprintf(request, sizeof(request), "p%x", count - 1);
    assert_int_equal(*ask(request) == 'E', 0);
    snprintf(request, sizeof(request), "p%x", count);
    expect(request, "E16");
    expect("qXfer:features:read:other.xml:0,10", "E00");
    expect("qXfer:features:read:target.xml:fffff,10", "l");
}

static void test_registers(void **state)
{
    (void)state;
    struct accel_vcpu_state *cpu = &rig.machine.cpus[0].state;
    cpu->regs.rax = 0x1122334455667788;
    cpu->regs.rip = 0x1000;
    cpu->regs.rflags = 0x202;
    cpu->sregs.cs.selector = 0x10;
    cpu->fpu.ftwx = 0x01;
    memset(cpu->fpu.xmm[0], 0xab, 16);
    assert_memory_equal(ask("g"), "8877665544332211", 16);
    expect("p0", "8877665544332211");
    expect("p10", "0010000000000000"); /* rip */
    expect("p11", "02020000");         /* eflags */
    expect("p12", "10000000");         /* cs */
    expect("p22", "fcff0000");         /* ftag: the first valid, the rest empty */
    expect("p28", "abababababababababababababababab");
    expect("P1=0100000000000000", "OK");
    assert_int_equal(cpu->regs.rbx, 1);
    expect("P22=ffff0000", "OK");
    assert_int_equal(cpu->fpu.ftwx, 0);
    expect("P1=01", "E16");
    expect("P1=01000000000000zz", "E16");
    expect("Pfff=00", "E16");
    expect("P", "E16");
    char all[8192];
    snprintf(all, sizeof(all), "G%s", ask("g"));
    memcpy(all + 1, "ff00000000000000", 16);
    expect(all, "OK");
    assert_int_equal(cpu->regs.rax, 0xff);
    assert_int_equal(cpu->regs.rip, 0x1000);
    expect("G00", "E16");
    all[5] = 'x';
    expect(all, "E16");
    expect("Hg2", "OK");
    expect("p0", "0000000000000000");
}

/* They count only if the area says that they are in use; writing one says so. */
static void test_upper_halves(void **state)
{
    (void)state;
    struct accel_vcpu_state *cpu = &rig.machine.cpus[0].state;
    uint8_t *area = (uint8_t *)cpu->xsave.region;
    memset(area, 0, sizeof(cpu->xsave.region));
    memset(area + 576, 0xee, 256);
    expect("p41", "00000000000000000000000000000000");
    expect("P42=00000000000000000000000000000000", "OK");
    assert_int_equal(area[512], 0);
    expect("P42=00112233445566778899aabbccddeeff", "OK");
    assert_int_equal(area[512], 4);
    expect("p41", "00000000000000000000000000000000");
    expect("p42", "00112233445566778899aabbccddeeff");
    assert_memory_equal(area + 576 + 16, "\x00\x11\x22\x33", 4);
}

static void test_memory(void **state)
{
    (void)state;
    memcpy(rig.machine.ram + 0xffe, "\x01\x02\x03\x04", 4);
    expect("mffffffff80000ffe,4", "01020304");
    expect("mffffffff80000ffe,0", "");
    expect("Mffffffff80000100,3:0a0bfF", "OK");
    assert_memory_equal(rig.machine.ram + 0x100, "\x0a\x0b\xff", 3);
    say_bytes("Xffffffff80000200,4:a}\x03}\x5d\x80", 26);
    assert_string_equal(next(), "OK");
    assert_memory_equal(rig.machine.ram + 0x200, "a#}\x80", 4);
    say_bytes("Xffffffff80000200,0:", 20);
    assert_string_equal(next(), "OK");
    expect("m1000,4", "E0e");             /* not mapped */
    expect("mffffffff8000fffe,4", "E0e"); /* behind the end of RAM */
    expect("mffffffff8000fffe,ffffffffffffffff", "E0e");
    expect("Mffffffff8000fffe,4:00000000", "E0e");
    expect("Mffffffff80000100,4:0a0b", "E16");
    expect("Mffffffff80000100,ffffffffffffffff:0a", "E16");
    expect("Mffffffff80000100,1:0x", "E16");
    expect("m", "E16");
    expect("m10", "E16");
    expect("m,1", "E16");
    expect("m10000000000000000,1", "E16");
    assert_int_equal(strlen(ask("mffffffff80000000,ffff")), GDB_PACKET_MAX - 32);
}

static struct accel_exit trap(uint32_t exception, uint64_t rip, uint64_t dr6)
{
    return (struct accel_exit){.reason = ACCEL_EXIT_DEBUG,
                               .debug = {.rip = rip, .dr6 = dr6, .exception = exception}};
}

static void go(const char *how)
{
    say_bytes(how, strlen(how));
    rig_until(rig.machine.state == MACHINE_RUNNING);
    receive();
    assert_null(strchr(input, '$'));
    input_length = 0;
    input[0] = 0;
}

static void test_breakpoints_in_code(void **state)
{
    (void)state;
    struct fake_cpu *cpus = rig.machine.cpus;
    rig.machine.ram[0x500] = 0x90;
    expect("Z0,ffffffff80000500,1", "OK");
    expect("Z0,ffffffff80000500,1", "OK");
    expect("Z0,500,1", "E0e");
    assert_int_equal(rig.machine.ram[0x500], 0xcc);
    go("vCont;c");
    assert_int_equal(cpus[1].debug.control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP);
    struct accel_exit exit = trap(3, 0xffffffff80000500, 0);
    fake_machine_trap(&rig.machine, 1, &exit);
    assert_string_equal(next(), "T05thread:02;swbreak:;");
    expect("qC", "QC2");
    expect("z0,ffffffff80000500,1", "OK");
    assert_int_equal(rig.machine.ram[0x500], 0x90);
    expect("z0,ffffffff80000500,1", "E02");
    go("c");
    assert_int_equal(cpus[0].debug.control, 0);
}

/* What is not INT3 any more is the guest's: it was reset, or wrote there. */
static void test_a_breakpoint_that_the_guest_overwrote(void **state)
{
    (void)state;
    expect("Z0,ffffffff80000500,1", "OK");
    rig.machine.ram[0x500] = 0x55;
    expect("z0,ffffffff80000500,1", "OK");
    assert_int_equal(rig.machine.ram[0x500], 0x55);
}

static void test_an_int3_of_the_guest(void **state)
{
    (void)state;
    expect("Z0,ffffffff80000500,1", "OK");
    go("c");
    unsigned conts = rig.machine.conts;
    struct accel_exit exit = trap(3, 0xffffffff80000777, 0);
    fake_machine_trap(&rig.machine, 0, &exit);
    rig_turns(5);
    assert_int_equal(rig.machine.conts, conts + 1);
    assert_true(rig.machine.cpus[0].state.events.exception.injected);
    assert_int_equal(rig.machine.cpus[0].state.events.exception.nr, 3);
    receive();
    assert_null(strchr(input, '$'));
}

static void test_breakpoints_in_registers(void **state)
{
    (void)state;
    expect("Z1,ffffffff80000500,1", "OK");
    expect("Z2,ffffffff80000600,8", "OK");
    expect("Z4,ffffffff80000700,2", "OK");
    expect("Z3,ffffffff80000701,2", "E16");
    expect("Z2,ffffffff80000700,3", "E16");
    expect("Z2,ffffffff80000700,10", "E16");
    expect("Z2,ffffffff80000700,0", "E16");
    expect("Z1,ffffffff80000501,1", "OK");
    expect("Z1,ffffffff80000502,1", "E1c"); /* there are four */
    expect("Z5,0,1", "");
    expect("Z1", "E16");
    expect("Z1,1,1,1", "E16");
    go("c");
    const struct kvm_guest_debug *debug = &rig.machine.cpus[1].debug;
    assert_int_equal(debug->control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
    assert_true(debug->arch.debugreg[1] == 0xffffffff80000600);
    assert_int_equal(debug->arch.debugreg[7] & 0xff, 0xaa);
    assert_int_equal(debug->arch.debugreg[7] >> 16, 0x0790);
    struct accel_exit exit = trap(1, 0x1000, 1 << 1);
    fake_machine_trap(&rig.machine, 0, &exit);
    assert_string_equal(next(), "T05thread:01;watch:ffffffff80000600;");
    expect("z1,ffffffff80000500,1", "OK");
    expect("z1,ffffffff80000500,1", "E02");
}

static void test_steps(void **state)
{
    (void)state;
    go("vCont;s:2;c");
    assert_int_equal(rig.machine.cpus[0].debug.control, 0);
    assert_int_equal(rig.machine.cpus[1].debug.control,
                     KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
    struct accel_exit exit = trap(1, 0x1001, 1 << 14);
    fake_machine_trap(&rig.machine, 1, &exit);
    assert_string_equal(next(), "T05thread:02;");
    go("s2000");
    assert_int_equal(rig.machine.cpus[1].state.regs.rip, 0x2000);
    fake_machine_trap(&rig.machine, 1, &exit);
    next();
    expect("vCont?", "vCont;c;C;s;S");
    expect("vCont;x", "E16");
    expect("vCont;s:9", "E16");
    expect("vCont;", "E16");
    expect("vContzz", "E16");
    expect("czz", "E16");
    go("vCont;C05:1;c");
    assert_int_equal(rig.machine.cpus[1].debug.control, 0);
}

static void test_interrupt(void **state)
{
    (void)state;
    go("c");
    assert_int_equal(send(fd, "\x03", 1, 0), 1);
    assert_string_equal(next(), "T02thread:01;");
    send(fd, "\x03", 1, 0); /* stopped already */
    expect("qC", "QC1");
}

static void test_a_monitor_meddles(void **state)
{
    (void)state;
    go("c");
    machine_stop(&rig.machine, NULL, NULL); /* someone else's stop is told */
    assert_string_equal(next(), "T02thread:01;");
    machine_cont(&rig.machine, NULL, NULL); /* and his cont undone at the next look */
    rig_turns(3);
    assert_int_equal(rig.machine.state, MACHINE_RUNNING);
    expect("p0", "0000000000000000");
    assert_int_equal(rig.machine.state, MACHINE_PAUSED);
    rig.machine.failure = "Resetting the Virtual Machine is required";
    expect("c", "T05thread:01;");
}

static void test_monitor_commands(void **state)
{
    (void)state;
    /* "info kvm" */
    assert_string_equal(ask("qRcmd,696e666f206b766d"),
                        "O6b766d20737570706f72743a20656e61626c65640d0a");
    assert_string_equal(next(), "OK");
    expect("qRcmd,6z", "E16");
    expect("qRcmd,", "OK");
}

static void test_leaving(void **state)
{
    (void)state;
    expect("Z0,ffffffff80000500,1", "OK");
    unsigned conts = rig.machine.conts;
    close(fd);
    rig_until(rig.machine.conts == conts + 1);
    assert_int_equal(rig.machine.ram[0x500], 0);
    rig_turns(10);
    input_length = 0;
    input[0] = 0;
    fd = connect_debugger(); /* the next one may come */
    rig_until(rig.machine.state == MACHINE_PAUSED);
    expect("Z0,ffffffff80000500,1", "OK");
    expect("D", "OK");
    rig_until(rig.machine.state == MACHINE_RUNNING);
    assert_int_equal(rig.machine.ram[0x500], 0);
}

static void test_a_second_debugger_is_turned_away(void **state)
{
    (void)state;
    int first = fd, second = fd = connect_debugger();
    rig_until(is_ended());
    close(second);
    fd = first;
    expect("qC", "QC1");
}

static void test_bad_frames(void **state)
{
    (void)state;
    send(fd, "$qC#00", 6, 0);
    rig_until((receive(), input_length));
    assert_string_equal(input, "-");
    input_length = 0;
    send(fd, "+++garbage---$qC#b4", 19, 0);
    assert_string_equal(next(), "QC1");
    char big[GDB_PACKET_MAX + 100];
    memset(big, 'm', sizeof(big));
    big[0] = '$';
    assert_true(send(fd, big, sizeof(big), MSG_NOSIGNAL) > 0);
    rig_until((receive(), is_ended())); /* dropped */
    rig_until(rig.machine.state == MACHINE_RUNNING);
}

static void test_random_packets(void **state)
{
    (void)state;
    static const char *const pieces[] = {"g",     "G",
                                         "m",     "M",
                                         "X",     "p",
                                         "P",     "Z",
                                         "z",     "0",
                                         "1,",    "ffffffff80000000",
                                         ",",     ":",
                                         ";",     "4",
                                         "vCont", "H",
                                         "T",     "q",
                                         "Rcmd,", "Xfer:features:read:target.xml:",
                                         "=",     "}",
                                         "c",     "S",
                                         "\x80",  "-1"};
    struct random random = {9};
    for (int round = 0; round < 3000; round++) {
        char text[200] = "";
        unsigned count = 1 + random_below(&random, 7);
        for (unsigned i = 0; i < count; i++) {
            size_t length = strlen(text);
            snprintf(text + length, sizeof(text) - length, "%s",
                     pieces[random_below(&random, ARRAY_SIZE(pieces))]);
        }
        say_bytes(text, strlen(text));
        rig_turn();
        if (rig.machine.state == MACHINE_RUNNING)
            send(fd, "\x03", 1, 0);
        rig_turn();
        receive();
        input_length = 0;
    }
    /* All that is on its way is answered before this. */
    say_bytes("qRcmd,", 6);
    send(fd, "\x03", 1, 0);
    for (int quiet = 0; quiet < 200; quiet++) {
        size_t before = input_length;
        usleep(1000);
        rig_turn();
        if (rig.machine.state == MACHINE_RUNNING)
            send(fd, "\x03", 1, 0);
        receive();
        if (input_length != before)
            quiet = 0;
        input_length = 0;
    }
    input[0] = 0;
    expect("qsThreadInfo", "l");
}

static void test_the_end_is_told(void **state)
{
    (void)state;
    say_bytes("k", 1);
    rig_until(rig.machine.quits == 1);
    close_gdb();
    assert_string_equal(next(), "W00");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_greeting),
        TEST(test_the_description_has_every_register),
        TEST(test_registers),
        TEST(test_upper_halves),
        TEST(test_memory),
        TEST(test_breakpoints_in_code),
        TEST(test_a_breakpoint_that_the_guest_overwrote),
        TEST(test_an_int3_of_the_guest),
        TEST(test_breakpoints_in_registers),
        TEST(test_steps),
        TEST(test_interrupt),
        TEST(test_a_monitor_meddles),
        TEST(test_monitor_commands),
        TEST(test_leaving),
        TEST(test_a_second_debugger_is_turned_away),
        TEST(test_bad_frames),
        TEST(test_random_packets),
        TEST(test_the_end_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
