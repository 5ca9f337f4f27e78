/* SPDX-License-Identifier: MIT */
/*
 * gdb: the connection to the debugger: listens, frames packets, runs and stops the guest.
 *
 * Theory of operation. While a debugger is there the guest is either stopped, and packets are
 * answered one by one, or running, and the debugger waits for a stop reply; then only its
 * interrupt (the byte 3) is looked at. The machine tells each stop, whatever its reason. CPUs are
 * touched only while the machine is stopped, that is, while all of them are parked.
 *
 * (Framing: gdb's manual, appendix "Remote Protocol": $packet#checksum, answered by + or -.)
 */
#include "vmm/gdb/gdb.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/socket.h"
#include "vmm/gdb/gdb_private.h"
#include "vmm/options/keyval.h"

#define INTERRUPT 3
#define ESCAPE    '}'

static void set_interest(struct gdb *gdb)
{
    if (gdb->fd < 0)
        return;
    bool has_output = gdb->output_at < gdb->output_end;
    bool wants_input = !gdb->is_busy && !gdb->is_leaving;
    loop_watch_set(&gdb->watch, (wants_input ? UV_READABLE : 0) | (has_output ? UV_WRITABLE : 0));
}

static void flush(struct gdb *gdb)
{
    while (gdb->output_at < gdb->output_end) {
        ssize_t sent = send(gdb->fd, gdb->output + gdb->output_at, gdb->output_end - gdb->output_at,
                            MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        gdb->output_at += (size_t)sent;
    }
    if (gdb->output_at == gdb->output_end)
        gdb->output_at = gdb->output_end = 0;
    set_interest(gdb);
}

static void queue_output(struct gdb *gdb, const char *bytes, size_t length)
{
    if (gdb->fd < 0 || gdb->is_leaving)
        return;
    if (gdb->output_end + length > CONTROL_OUTPUT_MAX_BYTES) {
        log_limited("gdb: dropped a debugger that does not read");
        gdb_leave(gdb);
        return;
    }
    if (gdb->output_end + length > gdb->output_capacity) {
        gdb->output_capacity = 2 * (gdb->output_end + length);
        gdb->output = realloc(gdb->output, gdb->output_capacity);
        CHECK(gdb->output);
    }
    memcpy(gdb->output + gdb->output_end, bytes, length);
    gdb->output_end += length;
}

void gdb_send_packet(struct gdb *gdb, const char *data, size_t length)
{
    uint8_t checksum = 0;
    char tail[4];
    for (size_t i = 0; i < length; i++)
        checksum = (uint8_t)(checksum + (uint8_t)data[i]);
    snprintf(tail, sizeof(tail), "#%02x", checksum);
    queue_output(gdb, "$", 1);
    queue_output(gdb, data, length);
    queue_output(gdb, tail, 3);
    if (gdb->fd >= 0 && !gdb->is_leaving)
        flush(gdb);
}

void gdb_send(struct gdb *gdb, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    CHECK(length >= 0 && (size_t)length < sizeof(text));
    gdb_send_packet(gdb, text, (size_t)length);
}

void gdb_send_error(struct gdb *gdb, int code)
{
    gdb_send(gdb, "E%02x", (unsigned)code & 0xff);
}

static void on_stopped_to_handle(void *opaque, int result, const struct error *err)
{
    struct gdb *gdb = opaque;
    (void)result, (void)err;
    if (gdb->fd < 0 || gdb->is_leaving || gdb->is_closing)
        return;
    gdb->is_busy = false;
    gdb_handle_packet(gdb);
    if (!gdb->is_busy)
        gdb_go_on(gdb);
}

static void take_packet(struct gdb *gdb)
{
    bool is_good = gdb->checksum == gdb->checksum_digit;
    gdb->state = GDB_IDLE;
    if (!gdb->has_no_acks)
        queue_output(gdb, is_good ? "+" : "-", 1);
    gdb->packet[gdb->packet_length] = 0;
    if (!is_good || gdb->is_running)
        return;
    if (machine_get_state(gdb->machine) != MACHINE_RUNNING) {
        gdb_handle_packet(gdb);
        return;
    }
    /* A monitor let it run behind the debugger's back: the CPUs must stand still to be looked at.
     */
    gdb->is_busy = true;
    machine_stop(gdb->machine, on_stopped_to_handle, gdb);
}

static void take_packet_byte(struct gdb *gdb, char byte)
{
    if (byte == '#') {
        gdb->state = GDB_CHECKSUM_1;
        return;
    }
    gdb->checksum = (uint8_t)(gdb->checksum + (uint8_t)byte);
    if (byte == ESCAPE && !gdb->is_escaped) {
        gdb->is_escaped = true;
        return;
    }
    if (gdb->packet_length == GDB_PACKET_MAX) {
        log_limited("gdb: dropped a debugger that sent a packet of more than %d bytes",
                    GDB_PACKET_MAX);
        gdb_leave(gdb);
        return;
    }
    gdb->packet[gdb->packet_length++] = gdb->is_escaped ? (char)(byte ^ 0x20) : byte;
    gdb->is_escaped = false;
}

static void take_idle_byte(struct gdb *gdb, char byte)
{
    if (byte == '$') {
        gdb->state = GDB_PACKET;
        gdb->packet_length = 0;
        gdb->checksum = 0;
        gdb->is_escaped = false;
    } else if (byte == INTERRUPT && gdb->is_running) {
        machine_stop(gdb->machine, NULL, NULL);
    }
}

static void take_byte(struct gdb *gdb, char byte)
{
    uint8_t digit = 0;
    char pair[2] = {'0', byte};
    switch (gdb->state) {
    case GDB_IDLE:
        take_idle_byte(gdb, byte);
        break;
    case GDB_PACKET:
        take_packet_byte(gdb, byte);
        break;
    case GDB_CHECKSUM_1:
        unused_result(gdb_from_hex(pair, 1, &digit));
        gdb->checksum_digit = (uint8_t)(digit << 4);
        gdb->state = GDB_CHECKSUM_2;
        break;
    case GDB_CHECKSUM_2:
        unused_result(gdb_from_hex(pair, 1, &digit));
        gdb->checksum_digit |= digit;
        take_packet(gdb);
        break;
    }
}

static void take_input(struct gdb *gdb)
{
    while (gdb->fd >= 0 && !gdb->is_leaving && !gdb->is_busy && gdb->input_at < gdb->input_end)
        take_byte(gdb, gdb->input[gdb->input_at++]);
    if (gdb->fd >= 0 && !gdb->is_leaving)
        flush(gdb);
}

void gdb_go_on(struct gdb *gdb)
{
    gdb->is_busy = false;
    take_input(gdb);
}

static void on_ready(struct loop_watch *watch, int events)
{
    struct gdb *gdb = watch->opaque;
    if (events & UV_WRITABLE)
        flush(gdb);
    if (!(events & UV_READABLE) || gdb->is_busy || gdb->is_leaving ||
        gdb->input_at < gdb->input_end)
        return;
    ssize_t got = recv(gdb->fd, gdb->input, sizeof(gdb->input), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        gdb_leave(gdb);
        return;
    }
    gdb->input_at = 0;
    gdb->input_end = (size_t)got;
    take_input(gdb);
}

static void queue_closed(struct gdb *gdb)
{
    if (gdb->is_closing && --gdb->open_handles == 0)
        loop_task_queue(&gdb->closed);
}

static void on_client_closed(struct loop_watch *watch)
{
    struct gdb *gdb = watch->opaque;
    gdb->has_watch = gdb->is_leaving = gdb->is_busy = false;
    queue_closed(gdb);
}

static void close_connection(struct gdb *gdb)
{
    loop_watch_close(&gdb->watch, on_client_closed);
    close(gdb->fd);
    gdb->fd = -1;
}

/* All vCPUs are parked: the guest gets its code and its debug registers back. */
static void clean_up(struct gdb *gdb)
{
    gdb_break_remove_all(gdb);
    gdb->step_cpu = -1;
    if (gdb_break_arm(gdb))
        log_warn("gdb: the CPUs did not take their debug registers back");
}

static void on_stopped_to_leave(void *opaque, int result, const struct error *err)
{
    struct gdb *gdb = opaque;
    (void)result, (void)err;
    if (gdb->is_closing)
        return;
    clean_up(gdb);
    close_connection(gdb);
    machine_cont(gdb->machine, NULL, NULL);
}

void gdb_leave(struct gdb *gdb)
{
    if (gdb->is_leaving)
        return;
    gdb->is_leaving = true;
    gdb->is_running = false;
    set_interest(gdb);
    machine_stop(gdb->machine, on_stopped_to_leave, gdb);
}

static void on_continued(void *opaque, int result, const struct error *err)
{
    struct gdb *gdb = opaque;
    (void)err;
    if (!result || !gdb->is_running)
        return;
    gdb->is_running = false;
    gdb_send_stop(gdb, SIGTRAP, NULL);
}

void gdb_run(struct gdb *gdb)
{
    int result = gdb_break_arm(gdb);
    if (result) {
        gdb_send_error(gdb, -result);
        return;
    }
    gdb->is_running = true;
    machine_cont(gdb->machine, on_continued, gdb);
}

/* An INT3 of the guest's own: the guest gets its exception. */
static bool give_back_int3(struct gdb *gdb, unsigned index, const struct accel_exit *exit)
{
    struct accel_vcpu *cpu = machine_accel_vcpu(gdb->machine, index);
    struct accel_vcpu_state state;
    if (exit->debug.exception != 3 || gdb_break_find(gdb, exit) ||
        cpu->vm->ops->vcpu_get_state(cpu, ACCEL_STATE_EVENTS, &state))
        return false;
    state.events.exception.injected = 1;
    state.events.exception.nr = 3;
    state.events.exception.has_error_code = 0;
    return cpu->vm->ops->vcpu_set_state(cpu, ACCEL_STATE_EVENTS, &state) == 0;
}

static void on_machine_stopped(void *opaque, unsigned cpu, const struct accel_exit *exit)
{
    struct gdb *gdb = opaque;
    if (!gdb->is_running)
        return;
    if (exit && give_back_int3(gdb, cpu, exit)) {
        machine_cont(gdb->machine, on_continued, gdb);
        return;
    }
    gdb->is_running = false;
    gdb->step_cpu = -1;
    if (exit)
        gdb->cpu_index = cpu;
    gdb_send_stop(gdb, exit ? SIGTRAP : SIGINT, exit ? gdb_break_find(gdb, exit) : NULL);
}

/* The debugger is there and the guest stands still: now its packets are taken. */
static void on_stopped_to_begin(void *opaque, int result, const struct error *err)
{
    struct gdb *gdb = opaque;
    (void)result, (void)err;
    if (gdb->fd < 0 || gdb->is_leaving || gdb->is_closing)
        return;
    gdb_go_on(gdb);
}

static void on_connection(struct loop_watch *watch, int events)
{
    struct gdb *gdb = watch->opaque;
    (void)events;
    int fd = socket_accept(gdb->listener);
    if (fd < 0)
        return;
    if (gdb->has_watch || loop_watch_init(gdb->loop, &gdb->watch, fd, on_ready) < 0) {
        close(fd);
        return;
    }
    gdb->watch.opaque = gdb;
    gdb->has_watch = true;
    gdb->fd = fd;
    gdb->state = GDB_IDLE;
    gdb->is_busy = true;
    gdb->is_running = gdb->has_no_acks = false;
    gdb->input_at = gdb->input_end = gdb->output_at = gdb->output_end = 0;
    gdb->cpu_index = 0;
    gdb->step_cpu = -1;
    machine_stop(gdb->machine, on_stopped_to_begin, gdb);
}

/* "tcp:[address]:port", checked by options. */
static int listen_at(const char *where, struct error *err)
{
    const char *colon = strrchr(where, ':'), *address = where + 4;
    char host[64];
    uint64_t port;
    if (strncmp(where, "tcp:", 4) != 0 || colon < address ||
        (size_t)(colon - address) >= sizeof(host) || !keyval_text_to_uint(colon + 1, &port) ||
        port > UINT16_MAX)
        return error_set(err, EINVAL, "-gdb %s: say where to listen as in -gdb tcp::1234", where);
    snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
    return socket_listen_tcp(host, (uint16_t)port, err);
}

static void run_closed(struct loop_task *task)
{
    struct gdb *gdb = container_of(task, struct gdb, closed);
    void (*on_closed)(void *opaque) = gdb->on_closed;
    void *opaque = gdb->closed_opaque;
    free(gdb->output);
    free(gdb);
    on_closed(opaque);
}

int gdb_create(struct loop *loop, struct machine *machine, struct control *control,
               struct gdb **out, struct error *err)
{
    int fd = listen_at(machine_config(machine)->gdb, err);
    if (fd < 0)
        return fd;
    struct gdb *gdb = calloc(1, sizeof(*gdb));
    CHECK(gdb);
    gdb->loop = loop;
    gdb->machine = machine;
    gdb->control = control;
    gdb->listener = fd;
    gdb->fd = -1;
    gdb->step_cpu = -1;
    int result = loop_watch_init(loop, &gdb->listen_watch, fd, on_connection);
    if (result) {
        close(fd);
        free(gdb);
        return error_set_errno(err, -result, "-gdb");
    }
    gdb->listen_watch.opaque = gdb;
    loop_watch_set(&gdb->listen_watch, UV_READABLE);
    loop_task_init(loop, &gdb->closed, LOOP_STAGE_COMPLETE, run_closed);
    machine_set_debugger(machine, &(struct machine_debugger){on_machine_stopped, gdb});
    *out = gdb;
    return 0;
}

static void on_listener_closed(struct loop_watch *watch)
{
    queue_closed(watch->opaque);
}

void gdb_close(struct gdb *gdb, void (*on_closed)(void *opaque), void *opaque)
{
    machine_set_debugger(gdb->machine, &(struct machine_debugger){NULL, NULL});
    gdb->on_closed = on_closed;
    gdb->closed_opaque = opaque;
    gdb->is_closing = true;
    gdb->open_handles = 1;
    loop_watch_close(&gdb->listen_watch, on_listener_closed);
    close(gdb->listener);
    gdb->open_handles += gdb->has_watch;
    if (gdb->fd < 0)
        return;
    gdb_send(gdb, "W00");
    close_connection(gdb);
}
