/* SPDX-License-Identifier: MIT */
/* posted: the table of index registers, and the one word that holds a write of them. */
#include "vmm/posted.h"

#include <string.h>

#include "base/check.h"
#include "devices/ioapic.h"
#include "devices/pci_host.h"
#include "devices/rtc.h"

#define VALUE_BITS 32

/* Only accesses of just this size are theirs: a byte of 0xcf9 resets the machine. */
static const struct {
    bool is_pio;
    uint8_t size;
    uint64_t address;
} registers[] = {
    {true, 4, PCI_HOST_ADDRESS_PORT},
    {false, 4, IOAPIC_BASE},
    {true, 1, RTC_INDEX_PORT},
};

/* Its place in the table, from 1; 0: none of these. */
static unsigned find(const struct accel_exit *exit)
{
    bool is_pio = exit->reason == ACCEL_EXIT_PIO;
    bool is_single = is_pio && exit->pio.is_write && exit->pio.count == 1;

    if (!is_single && !(exit->reason == ACCEL_EXIT_MMIO && exit->mmio.is_write))
        return 0;
    uint64_t address = is_pio ? exit->pio.port : exit->mmio.gpa;
    uint8_t size = is_pio ? exit->pio.size : exit->mmio.size;
    for (unsigned i = 0; i < ARRAY_SIZE(registers); i++)
        if (registers[i].is_pio == is_pio && registers[i].address == address &&
            registers[i].size == size)
            return i + 1;
    return 0;
}

bool posted_put(struct posted *posted, const struct accel_exit *exit)
{
    uint64_t place = find(exit);
    uint32_t value = 0;

    if (!place)
        return false;
    memcpy(&value, exit->reason == ACCEL_EXIT_PIO ? exit->pio.data : exit->mmio.data,
           registers[place - 1].size);
    uint64_t word = place << VALUE_BITS | value;
    uint64_t waiting = atomic_load(&posted->word);
    do {
        if (waiting && waiting >> VALUE_BITS != place)
            return false;
    } while (!atomic_compare_exchange_weak(&posted->word, &waiting, word));
    return true;
}

bool posted_take(struct posted *posted, struct accel_exit *exit, uint32_t *data)
{
    uint64_t word = atomic_exchange(&posted->word, 0);

    if (!word)
        return false;
    uint64_t place = word >> VALUE_BITS;
    CHECK(place <= ARRAY_SIZE(registers));
    *data = (uint32_t)word;
    uint64_t address = registers[place - 1].address;
    uint8_t size = registers[place - 1].size;
    *exit = (struct accel_exit){.reason = ACCEL_EXIT_MMIO, .mmio = {address, size, true, data}};
    if (registers[place - 1].is_pio)
        *exit = (struct accel_exit){.reason = ACCEL_EXIT_PIO,
                                    .pio = {(uint16_t)address, size, true, 1, data}};
    return true;
}
