/* SPDX-License-Identifier: MIT */
/*
 * gdb_packets: what the debugger asks while the guest stands still. An empty reply means "not known
 * here", to which gdb finds another way.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/control/hmp.h"
#include "vmm/gdb/gdb_private.h"

/* As much memory as fits into one packet in hex. */
#define MEMORY_MAX (GDB_PACKET_MAX / 2 - 16)

static int digit_of(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    if (letter >= 'a' && letter <= 'f')
        return letter - 'a' + 10;
    return letter >= 'A' && letter <= 'F' ? letter - 'A' + 10 : -1;
}

bool gdb_from_hex(const char *hex, size_t count, uint8_t *to)
{
    for (size_t i = 0; i < count; i++) {
        int high = digit_of(hex[2 * i]);
        int low = high < 0 ? -1 : digit_of(hex[2 * i + 1]);
        if (low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void gdb_to_hex(const void *bytes, size_t count, char *to)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;
    for (size_t i = 0; i < count; i++) {
        *to++ = digits[from[i] >> 4];
        *to++ = digits[from[i] & 15];
    }
    *to = 0;
}

/* Reads a hex number and moves *at behind it. False if there is none, or it does not fit. */
static bool take_number(const char **at, uint64_t *out)
{
    uint64_t number = 0;
    const char *from = *at;
    for (int digit; (digit = digit_of(**at)) >= 0; ++*at) {
        if (number >> 60)
            return false;
        number = number << 4 | (unsigned)digit;
    }
    *out = number;
    return *at != from;
}

static bool take_letter(const char **at, char letter)
{
    if (**at != letter)
        return false;
    ++*at;
    return true;
}

/* "addr,length" and what follows after `end`, which may be 0. */
static bool take_range(const char **at, char end, uint64_t *address, uint64_t *length)
{
    return take_number(at, address) && take_letter(at, ',') && take_number(at, length) &&
           (end ? take_letter(at, end) : !**at);
}

static struct accel_vcpu *current_cpu(struct gdb *gdb)
{
    return machine_accel_vcpu(gdb->machine, gdb->cpu_index);
}

static unsigned cpu_count(struct gdb *gdb)
{
    return machine_config(gdb->machine)->cpus;
}

void gdb_send_stop(struct gdb *gdb, int signal, const struct gdb_breakpoint *hit)
{
    static const char *const reasons[] = {
        [GDB_BREAK_SOFT] = "swbreak:", [GDB_BREAK_HARD] = "hwbreak:", [GDB_WATCH_WRITE] = "watch:",
        [GDB_WATCH_READ] = "rwatch:",  [GDB_WATCH] = "awatch:",
    };
    char reason[64] = "";
    if (hit && hit->kind >= GDB_WATCH_WRITE)
        snprintf(reason, sizeof(reason), "%s%llx;", reasons[hit->kind],
                 (unsigned long long)hit->address);
    else if (hit)
        snprintf(reason, sizeof(reason), "%s;", reasons[hit->kind]);
    gdb_send(gdb, "T%02xthread:%02x;%s", (unsigned)signal, gdb->cpu_index + 1, reason);
}

static void reply(struct gdb *gdb, int result)
{
    if (result)
        gdb_send_error(gdb, -result);
    else
        gdb_send(gdb, "OK");
}

static void read_memory(struct gdb *gdb, const char *at)
{
    uint64_t address, length;
    static uint8_t bytes[MEMORY_MAX];
    static char hex[2 * MEMORY_MAX + 1];
    if (!take_range(&at, 0, &address, &length)) {
        gdb_send_error(gdb, EINVAL);
        return;
    }
    length = MIN(length, MEMORY_MAX);
    if (!gdb_read(gdb, address, bytes, length)) {
        gdb_send_error(gdb, EFAULT);
        return;
    }
    gdb_to_hex(bytes, length, hex);
    gdb_send_packet(gdb, hex, 2 * length);
}

/* M with hex digits, X with bytes. */
static void write_memory(struct gdb *gdb, const char *at, bool is_hex)
{
    uint64_t address, length;
    if (!take_range(&at, ':', &address, &length)) {
        gdb_send_error(gdb, EINVAL);
        return;
    }
    size_t given = gdb->packet_length - (size_t)(at - gdb->packet);
    uint8_t *bytes = (uint8_t *)gdb->packet + (at - gdb->packet);
    if (length > GDB_PACKET_MAX || given != (is_hex ? 2 * length : length) ||
        (is_hex && !gdb_from_hex(at, length, bytes))) {
        gdb_send_error(gdb, EINVAL);
        return;
    }
    reply(gdb, gdb_write(gdb, address, bytes, length) ? 0 : -EFAULT);
}

static void read_registers(struct gdb *gdb)
{
    char hex[4096];
    int result = gdb_read_registers(current_cpu(gdb), hex, sizeof(hex));
    if (result)
        gdb_send_error(gdb, -result);
    else
        gdb_send_packet(gdb, hex, strlen(hex));
}

static void read_register(struct gdb *gdb, const char *at)
{
    uint64_t number;
    char hex[64];
    bool is_good = take_number(&at, &number) && !*at && number < UINT_MAX;
    int result =
        is_good ? gdb_read_register(current_cpu(gdb), (unsigned)number, hex, sizeof(hex)) : -EINVAL;
    if (result)
        gdb_send_error(gdb, -result);
    else
        gdb_send(gdb, "%s", hex);
}

static void write_register(struct gdb *gdb, const char *at)
{
    uint64_t number;
    bool is_good = take_number(&at, &number) && take_letter(&at, '=') && number < UINT_MAX;
    reply(gdb, is_good ? gdb_write_register(current_cpu(gdb), (unsigned)number, at) : -EINVAL);
}

/* "kind,address,length"; gdb numbers the kinds as we do. */
static void change_breakpoint(struct gdb *gdb, const char *at, bool insert)
{
    uint64_t kind, address, length;
    if (!take_number(&at, &kind) || !take_letter(&at, ',') ||
        !take_range(&at, 0, &address, &length) || length > 16) {
        gdb_send_error(gdb, EINVAL);
        return;
    }
    if (kind > GDB_WATCH)
        gdb_send(gdb, "%s", "");
    else if (insert)
        reply(gdb, gdb_break_insert(gdb, (enum gdb_break_kind)kind, address, (unsigned)length));
    else
        reply(gdb, gdb_break_remove(gdb, (enum gdb_break_kind)kind, address, (unsigned)length));
}

/* A thread's number, from 1; 0 and -1 mean any. False if there is no such CPU. */
static bool take_thread(struct gdb *gdb, const char **at, int *index)
{
    uint64_t number;
    if (strncmp(*at, "-1", 2) == 0) {
        *at += 2;
        *index = -1;
        return true;
    }
    if (!take_number(at, &number) || number > cpu_count(gdb))
        return false;
    *index = (int)number - 1;
    return true;
}

static void select_thread(struct gdb *gdb, const char *at)
{
    int index;
    char what = *at;
    if (what)
        at++;
    bool is_good = take_thread(gdb, &at, &index) && !*at;
    if (is_good && what == 'g' && index >= 0)
        gdb->cpu_index = (unsigned)index;
    reply(gdb, is_good ? 0 : -ESRCH);
}

static void list_threads(struct gdb *gdb)
{
    char text[8 * VCPU_MAX] = "m";
    size_t length = 1;
    for (unsigned i = 0; i < cpu_count(gdb); i++)
        length +=
            (size_t)snprintf(text + length, sizeof(text) - length, "%s%x", i ? "," : "", i + 1);
    gdb_send_packet(gdb, text, length);
}

static void describe_thread(struct gdb *gdb, const char *at)
{
    int index;
    char text[32], hex[2 * sizeof(text) + 1];
    if (!take_thread(gdb, &at, &index) || index < 0) {
        gdb_send_error(gdb, ESRCH);
        return;
    }
    int length = snprintf(text, sizeof(text), "CPU %d", index);
    gdb_to_hex(text, (size_t)length, hex);
    gdb_send(gdb, "%s", hex);
}

/* Runs all CPUs; `step` is the one that makes one instruction, or -1. */
static void run(struct gdb *gdb, int step)
{
    gdb->step_cpu = step;
    gdb_run(gdb);
}

/* c and s, with an optional address to go on from. */
static void run_from(struct gdb *gdb, const char *at, bool is_step)
{
    uint64_t address;
    if (*at) {
        struct accel_vcpu *cpu = current_cpu(gdb);
        struct accel_vcpu_state state;
        if (!take_number(&at, &address) || *at ||
            cpu->vm->ops->vcpu_get_state(cpu, ACCEL_STATE_REGS, &state)) {
            gdb_send_error(gdb, EINVAL);
            return;
        }
        state.regs.rip = address;
        if (cpu->vm->ops->vcpu_set_state(cpu, ACCEL_STATE_REGS, &state)) {
            gdb_send_error(gdb, EINVAL);
            return;
        }
    }
    run(gdb, is_step ? (int)gdb->cpu_index : -1);
}

/* vCont;action[:thread]... : one CPU may step, the others run. */
static void run_actions(struct gdb *gdb, const char *at)
{
    int step = -1;
    while (take_letter(&at, ';')) {
        char action = *at;
        int index = -1;
        uint64_t signal;
        at += action != 0;
        if (action == 'C' || action == 'S')
            unused_result(!take_number(&at, &signal));
        if (!action || !strchr("cCsS", action) ||
            (take_letter(&at, ':') && !take_thread(gdb, &at, &index))) {
            gdb_send_error(gdb, EINVAL);
            return;
        }
        if ((action == 's' || action == 'S') && step < 0)
            step = index < 0 ? (int)gdb->cpu_index : index;
    }
    if (*at)
        gdb_send_error(gdb, EINVAL);
    else
        run(gdb, step);
}

/* qXfer:features:read:target.xml:offset,length */
static void send_features(struct gdb *gdb, const char *at)
{
    uint64_t offset, length;
    if (strncmp(at, "target.xml:", 11) != 0 || (at += 11, !take_range(&at, 0, &offset, &length))) {
        gdb_send(gdb, "E00");
        return;
    }
    char *xml = gdb_target_xml();
    size_t size = strlen(xml);
    offset = MIN(offset, size);
    length = MIN(MIN(length, GDB_PACKET_MAX - 16), size - offset);
    char *text;
    CHECK(asprintf(&text, "%c%.*s", offset + length < size ? 'm' : 'l', (int)length, xml + offset) >
          0);
    gdb_send_packet(gdb, text, strlen(text));
    free(text);
    free(xml);
}

/* The monitor's text in hex, in as many packets as it takes, then OK. */
static void on_monitor_done(void *opaque, const char *output)
{
    struct gdb *gdb = opaque;
    size_t left = strlen(output);
    while (left && gdb->fd >= 0 && !gdb->is_leaving) {
        char packet[1026] = "O";
        size_t piece = MIN(left, 512);
        gdb_to_hex(output, piece, packet + 1);
        gdb_send_packet(gdb, packet, 1 + 2 * piece);
        output += piece, left -= piece;
    }
    if (gdb->fd < 0 || gdb->is_leaving)
        return;
    gdb_send(gdb, "OK");
    gdb_go_on(gdb);
}

/* "monitor LINE" */
static void run_monitor(struct gdb *gdb, const char *hex)
{
    size_t length = strlen(hex) / 2;
    char *line = calloc(1, length + 1);
    CHECK(line);
    if (!gdb->control || !gdb_from_hex(hex, length, (uint8_t *)line)) {
        gdb_send_error(gdb, EINVAL);
    } else {
        gdb->is_busy = true;
        hmp_run(gdb->control, line, 0, on_monitor_done, gdb);
    }
    free(line);
}

static bool take_word(const char **at, const char *word)
{
    size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

static void answer_query(struct gdb *gdb, const char *at)
{
    if (take_word(&at, "Supported"))
        gdb_send(gdb,
                 "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;"
                 "hwbreak+",
                 GDB_PACKET_MAX);
    else if (take_word(&at, "Xfer:features:read:"))
        send_features(gdb, at);
    else if (take_word(&at, "fThreadInfo"))
        list_threads(gdb);
    else if (take_word(&at, "sThreadInfo"))
        gdb_send(gdb, "l");
    else if (take_word(&at, "ThreadExtraInfo,"))
        describe_thread(gdb, at);
    else if (take_word(&at, "Attached"))
        gdb_send(gdb, "1");
    else if (take_word(&at, "Rcmd,"))
        run_monitor(gdb, at);
    else if (strcmp(at, "C") == 0)
        gdb_send(gdb, "QC%x", gdb->cpu_index + 1);
    else
        gdb_send(gdb, "%s", "");
}

static void handle_v(struct gdb *gdb, const char *at)
{
    if (strcmp(at, "Cont?") == 0)
        gdb_send(gdb, "vCont;c;C;s;S");
    else if (take_word(&at, "Cont"))
        run_actions(gdb, at);
    else if (take_word(&at, "Kill"))
        machine_quit(gdb->machine, SHUTDOWN_HOST_UI);
    else
        gdb_send(gdb, "%s", "");
}

static void detach(struct gdb *gdb)
{
    gdb_send(gdb, "OK");
    gdb_leave(gdb);
}

static void check_thread(struct gdb *gdb, const char *at)
{
    int index;
    reply(gdb, take_thread(gdb, &at, &index) && index >= 0 ? 0 : -ESRCH);
}

static void start_no_acks(struct gdb *gdb)
{
    gdb_send(gdb, "OK");
    gdb->has_no_acks = true;
}

/* What touches registers, memory or breakpoints. */
static bool handle_access(struct gdb *gdb, char command, const char *at)
{
    switch (command) {
    case 'g':
        read_registers(gdb);
        return true;
    case 'G':
        reply(gdb, gdb_write_registers(current_cpu(gdb), at));
        return true;
    case 'p':
        read_register(gdb, at);
        return true;
    case 'P':
        write_register(gdb, at);
        return true;
    case 'm':
        read_memory(gdb, at);
        return true;
    case 'M':
    case 'X':
        write_memory(gdb, at, command == 'M');
        return true;
    case 'z':
    case 'Z':
        change_breakpoint(gdb, at, command == 'Z');
        return true;
    default:
        return false;
    }
}

void gdb_handle_packet(struct gdb *gdb)
{
    char command = *gdb->packet;
    const char *at = gdb->packet + (command != 0);
    if (handle_access(gdb, command, at))
        return;
    if (command == '?')
        gdb_send_stop(gdb, SIGTRAP, NULL);
    else if (command == 'c' || command == 's')
        run_from(gdb, at, command == 's');
    else if (command == 'v')
        handle_v(gdb, at);
    else if (command == 'q')
        answer_query(gdb, at);
    else if (command == 'H')
        select_thread(gdb, at);
    else if (command == 'T')
        check_thread(gdb, at);
    else if (command == 'D')
        detach(gdb);
    else if (command == 'k')
        machine_quit(gdb->machine, SHUTDOWN_HOST_UI);
    else if (strcmp(gdb->packet, "QStartNoAckMode") == 0)
        start_no_acks(gdb);
    else
        gdb_send(gdb, "%s", "");
}
