/* SPDX-License-Identifier: MIT */
/*
 * mmio: accesses that leave the CPU.
 *
 * An instruction cannot wait in the middle, so it is given up with an exit, and run again from its
 * start when the answer is there. What it has already done outside (`replay`, in order) is then
 * taken from memory instead of being done twice. An instruction with several accesses thus leaves
 * several times, each time one access further.
 */
#include "vmm/soft/mmio.h"

#include <string.h>

#include "vmm/soft/mem.h"
#include "vmm/soft/vm.h"

/* In soft_replay.address: a port. */
#define REPLAY_PORT (UINT64_C(1) << 63)

/* True if this access was done in an earlier run of the instruction. */
static bool replay(struct soft_cpu *cpu, uint64_t address, uint64_t *value, unsigned size,
                   bool is_write)
{
    if (cpu->replay_next >= cpu->replay_count)
        return false;
    const struct soft_replay *done = &cpu->replay[cpu->replay_next];

    if (done->address != address || done->size != size || done->is_write != is_write) {
        /* The guest changed the instruction or its page tables meanwhile: what is known is void. */
        cpu->replay_count = cpu->replay_next;
        return false;
    }
    cpu->replay_next++;
    if (!is_write)
        *value = done->value;
    return true;
}

static bool leave(struct soft_cpu *cpu, uint64_t address, uint64_t value, unsigned size,
                  bool is_write)
{
    if (cpu->replay_count == SOFT_REPLAY_MAX)
        return true; /* no instruction has that many accesses */
    cpu->replay[cpu->replay_count] =
        (struct soft_replay){.address = address, .size = (uint8_t)size, .is_write = is_write};
    cpu->exit_data = is_write ? value : UINT64_MAX;
    cpu->pending = SOFT_PENDING_EXIT;
    cpu->replay_open = true;
    return false;
}

static void lapic_access(struct soft_cpu *cpu, uint64_t gpa, uint64_t *value, unsigned size,
                         bool is_write)
{
    uint32_t offset = (uint32_t)gpa & 0xfff;

    if (!is_write) {
        /* Parts of a register read as such; beyond it there is nothing. */
        uint64_t word = lapic_mmio_read(&cpu->lapic, offset & ~3u);

        *value = word >> (offset & 3) * 8;
    } else if (size == 4 && !(offset & 3)) {
        lapic_mmio_write(&cpu->lapic, offset, (uint32_t)*value);
        soft_lapic_written(cpu);
    }
}

/* At most eight bytes. */
static bool access_word(struct soft_cpu *cpu, uint64_t gpa, uint64_t *value, unsigned size,
                        bool is_write)
{
    if (lapic_covers(&cpu->lapic, gpa)) {
        lapic_access(cpu, gpa, value, size, is_write);
        return true;
    }
    if (replay(cpu, gpa, value, size, is_write))
        return true;
    if (is_write && ioevent_signal(&cpu->vm->ioevents, false, gpa, size, *value))
        return true;
    cpu->exit = (struct accel_exit){
        .reason = ACCEL_EXIT_MMIO,
        .mmio = {.gpa = gpa, .size = (uint8_t)size, .is_write = is_write, .data = &cpu->exit_data}};
    return leave(cpu, gpa, *value, size, is_write);
}

bool mmio_access(struct soft_cpu *cpu, uint64_t gpa, void *data, unsigned length, bool is_write)
{
    /* A delivery cannot be left half-way: stacks and tables outside RAM read as ones. */
    if (cpu->is_delivering) {
        if (!is_write)
            memset(data, 0xff, length);
        return true;
    }
    for (unsigned done = 0; done < length;) {
        unsigned size = MIN(length - done, 8);
        uint64_t value = UINT64_MAX;

        if (is_write) {
            value = 0;
            memcpy(&value, (char *)data + done, size);
        }
        if (!access_word(cpu, gpa + done, &value, size, is_write))
            return false;
        if (!is_write)
            memcpy((char *)data + done, &value, size);
        done += size;
    }
    return true;
}

bool mmio_port(struct soft_cpu *cpu, uint16_t port, void *data, unsigned size, bool is_write)
{
    uint64_t value = 0;

    if (is_write)
        memcpy(&value, data, size);
    bool done = replay(cpu, REPLAY_PORT | port, &value, size, is_write) ||
                (is_write && ioevent_signal(&cpu->vm->ioevents, true, port, size, value));

    if (!done) {
        cpu->exit = (struct accel_exit){.reason = ACCEL_EXIT_PIO,
                                        .pio = {.port = port,
                                                .size = (uint8_t)size,
                                                .is_write = is_write,
                                                .count = 1,
                                                .data = &cpu->exit_data}};
        value = is_write ? value : UINT64_MAX;
        done = leave(cpu, REPLAY_PORT | port, value, size, is_write);
    }
    if (done && !is_write)
        memcpy(data, &value, size);
    return done;
}

void mmio_answered(struct soft_cpu *cpu)
{
    cpu->replay[cpu->replay_count++].value = cpu->exit_data;
    cpu->replay_open = false;
    cpu->replay_next = 0;
}

void mmio_forget(struct soft_cpu *cpu)
{
    cpu->replay_count = cpu->replay_next = 0;
    cpu->replay_open = false;
}
