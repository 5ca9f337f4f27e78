/* SPDX-License-Identifier: MIT */
/*
 * gdb_private: what the files of the debugger's room share: the connection (gdb.c), the packets
 * (gdb_packets.c), the registers (gdb_registers.c) and the breakpoints (gdb_break.c).
 */
#ifndef VMM_GDB_GDB_PRIVATE_H
#define VMM_GDB_GDB_PRIVATE_H

#include "base/limits.h"
#include "vmm/accel.h"
#include "vmm/gdb/gdb.h"
#include "vmm/machine.h"

#define GDB_HW_BREAKPOINTS 4

enum gdb_break_kind { GDB_BREAK_SOFT, GDB_BREAK_HARD, GDB_WATCH_WRITE, GDB_WATCH_READ, GDB_WATCH };

struct gdb_breakpoint {
    enum gdb_break_kind kind;
    uint64_t address;
    unsigned length;
    /* GDB_BREAK_SOFT: where the instruction is, and the byte that it replaced. */
    uint64_t gpa;
    uint8_t original;
};

struct gdb {
    struct loop *loop;
    struct machine *machine;
    struct control *control;
    int listener;
    struct loop_watch listen_watch;

    /* The debugger; fd -1 while there is none. */
    int fd;
    struct loop_watch watch;
    bool has_watch;
    bool is_leaving; /* the connection closes; cleaning up goes on */
    bool is_busy;    /* a command under way will answer; no packet is taken meanwhile */
    bool is_running; /* it waits for the guest to stop */
    bool has_no_acks;
    unsigned cpu_index; /* that registers and memory are of */
    int step_cpu;       /* that makes one step, or -1 */

    struct gdb_breakpoint breakpoints[GDB_BREAKPOINT_MAX];
    unsigned breakpoint_count;

    /* The packet that is coming in; input after it waits in `input`. */
    enum { GDB_IDLE, GDB_PACKET, GDB_CHECKSUM_1, GDB_CHECKSUM_2 } state;
    char packet[GDB_PACKET_MAX + 1];
    size_t packet_length;
    bool is_escaped;
    uint8_t checksum, checksum_digit;
    char input[4096];
    size_t input_at, input_end;

    char *output;
    size_t output_at, output_end, output_capacity;

    bool is_closing;
    unsigned open_handles;
    struct loop_task closed;
    void (*on_closed)(void *opaque);
    void *closed_opaque;
};

/* gdb.c */
void gdb_send_packet(struct gdb *gdb, const char *data, size_t length);
void gdb_send(struct gdb *gdb, const char *format, ...) printf_like(2, 3);
void gdb_send_error(struct gdb *gdb, int code);
/* The command that made it busy is done. */
void gdb_go_on(struct gdb *gdb);
/* Lets the guest run; the stop reply follows. */
void gdb_run(struct gdb *gdb);
/* The connection ends, the guest goes on without a debugger. */
void gdb_leave(struct gdb *gdb);

/* gdb_packets.c */
void gdb_handle_packet(struct gdb *gdb);
void gdb_send_stop(struct gdb *gdb, int signal, const struct gdb_breakpoint *hit);
/* Hex digits to bytes; false at anything else. `to` may be `hex`. */
bool must_check gdb_from_hex(const char *hex, size_t count, uint8_t *to);
void gdb_to_hex(const void *bytes, size_t count, char *to);

/* gdb_memory.c: guest virtual addresses of the current CPU. False if any of it is no RAM. */
bool must_check gdb_read(struct gdb *gdb, uint64_t address, void *to, size_t length);
bool must_check gdb_write(struct gdb *gdb, uint64_t address, const void *from, size_t length);

/* gdb_registers.c: 0 or -errno. The texts are hex, `room` the bytes for them. */
int must_check gdb_read_registers(struct accel_vcpu *cpu, char *hex, size_t room);
int must_check gdb_write_registers(struct accel_vcpu *cpu, const char *hex);
int must_check gdb_read_register(struct accel_vcpu *cpu, unsigned number, char *hex, size_t room);
int must_check gdb_write_register(struct accel_vcpu *cpu, unsigned number, const char *hex);
/* The description that gdb asks for, freed by the caller. */
char *gdb_target_xml(void);

/* gdb_break.c: 0 or -errno. */
int must_check gdb_break_insert(struct gdb *gdb, enum gdb_break_kind kind, uint64_t address,
                                unsigned length);
int must_check gdb_break_remove(struct gdb *gdb, enum gdb_break_kind kind, uint64_t address,
                                unsigned length);
void gdb_break_remove_all(struct gdb *gdb);
/* Tells the CPUs of breakpoints and the step. All vCPUs are parked. */
int must_check gdb_break_arm(struct gdb *gdb);
/* Which breakpoint the exit is about, or NULL. */
const struct gdb_breakpoint *gdb_break_find(const struct gdb *gdb, const struct accel_exit *exit);

#endif
