/* SPDX-License-Identifier: MIT */
/*
 * fuzz_control: a libFuzzer target: what comes from outside to the control plane. The first byte
 * chooses who reads the rest: QMP, the human monitor, the debugger's packets, or the command line
 * (its words separated by newlines).
 *
 *   ninja build/tests/fuzz_control && build/tests/fuzz_control -max_len=4096 -max_total_time=600
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fake_machine.h"
#include "vmm/control/control_private.h"
#include "vmm/gdb/gdb_private.h"
#include "vmm/options/options.h"

#define TURNS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop loop;
static struct machine machine;
static struct vm_config config;
static struct config_disk disks[2];
static struct config_nic nic;
static struct config_monitor monitors[2] = {{.kind = MONITOR_QMP}, {.kind = MONITOR_HUMAN}};

static void set_up(void)
{
    config.cpus = 2;
    config.serial_chardev = -1;
    disks[0].id = "virtio0";
    disks[1].id = "none0";
    config.disks = disks;
    config.disk_count = 2;
    nic.netdev_id = "net0";
    config.nics = &nic;
    config.nic_count = 1;
    CHECK(loop_init(&loop) == 0);
}

static void on_closed(void *opaque)
{
    *(bool *)opaque = true;
}

static void turn_until(const bool *done)
{
    for (int turns = 0; turns < TURNS_MAX && !*done; turns++)
        loop_run_once(&loop, false);
}

static void drain(int fd)
{
    char bytes[65536];
    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
}

static void feed_monitor(const struct config_monitor *monitor, const uint8_t *data, size_t size)
{
    static const char hello[] = "{'execute':'qmp_capabilities'}";
    int ends[2];
    struct control *control;
    CHECK(control_create(&loop, &machine, &control, NULL) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    control_client_open_socket(control, monitor, ends[0]);
    if (monitor->kind == MONITOR_QMP)
        unused_result(send(ends[1], hello, strlen(hello), MSG_NOSIGNAL) < 0);
    unused_result(send(ends[1], data, size, MSG_NOSIGNAL) < 0);
    shutdown(ends[1], SHUT_WR);
    for (int turns = 0; turns < TURNS_MAX && control->client_count; turns++) {
        loop_run_once(&loop, false);
        drain(ends[1]);
    }
    close(ends[1]);
    bool is_closed = false;
    control_close(control, on_closed, &is_closed);
    while (!is_closed)
        loop_run_once(&loop, true);
}

static void feed_debugger(const uint8_t *data, size_t size)
{
    static struct gdb gdb;
    memset(&gdb, 0, sizeof(gdb));
    gdb.loop = &loop;
    gdb.machine = &machine;
    gdb.fd = gdb.step_cpu = -1;
    gdb.is_leaving = true; /* there is no connection that could end */
    machine.state = MACHINE_PAUSED;
    /* Packets are separated by newlines. */
    for (const uint8_t *end = data + size; data < end;) {
        const uint8_t *stop = memchr(data, '\n', (size_t)(end - data));
        size_t length = MIN((size_t)((stop ? stop : end) - data), GDB_PACKET_MAX);
        memcpy(gdb.packet, data, length);
        gdb.packet[length] = 0;
        gdb.packet_length = length;
        gdb_handle_packet(&gdb);
        data += length + 1;
        loop_run_once(&loop, false);
    }
}

static void feed_options(const uint8_t *data, size_t size)
{
    char *copy = strndup((const char *)data, size), *rest = copy;
    char *argv[65] = {"evisor"};
    int argc = 1;
    CHECK(copy);
    for (char *word; argc < 64 && (word = strsep(&rest, "\n"));)
        argv[argc++] = word;
    struct vm_config parsed;
    struct error err = {0};
    char *text = NULL;
    int result = options_parse(argc, argv, &parsed, &text, &err);
    CHECK(!result == !*err.text);
    if (!result && !text)
        vm_config_fini(&parsed);
    free(text);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!config.cpus)
        set_up();
    if (!size)
        return 0;
    fake_machine_init(&machine, &loop, &config);
    switch (data[0] % 4) {
    case 0:
    case 1:
        feed_monitor(&monitors[data[0] % 4], data + 1, size - 1);
        break;
    case 2:
        feed_debugger(data + 1, size - 1);
        break;
    case 3:
        feed_options(data + 1, size - 1);
        break;
    }
    bool never = false;
    while (loop_task_is_queued(&machine.step))
        turn_until(&never);
    fake_machine_fini(&machine);
    return 0;
}
