/* SPDX-License-Identifier: MIT */
/* acpi_pm: status and enable bits, and the SCI that follows from them. */
#include "devices/acpi_pm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    PM1_TIMER = 1 << 0,
    PM1_BUS_MASTER = 1 << 4,
    PM1_GLOBAL = 1 << 5,
    PM1_POWER_BUTTON = 1 << 8,
    PM1_SLEEP_BUTTON = 1 << 9,
    PM1_RTC = 1 << 10,
    PM1_WAKE = 1 << 15,
    PM1_ENABLE_KNOWN = PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_SLEEP_BUTTON | PM1_RTC,
};

enum {
    CONTROL_SCI_ENABLE = 1 << 0,
    CONTROL_SLEEP_TYPE_AT = 10,
    CONTROL_SLEEP_ENABLE = 1 << 13,
    CONTROL_KEPT = 1 << 0 | 1 << 1 | 7 << CONTROL_SLEEP_TYPE_AT,
};

enum { /* offsets in the block */
       STATUS = ACPI_PM1_EVENT - ACPI_PM_BASE,
       ENABLE = STATUS + 2,
       CONTROL = ACPI_PM1_CONTROL - ACPI_PM_BASE,
       TIMER = ACPI_PM_TIMER - ACPI_PM_BASE,
       GPE0 = ACPI_GPE0 - ACPI_PM_BASE,
       GPE0_ENABLE = GPE0 + ACPI_GPE0_BYTES / 2,
       SMI_ENABLE = 0x30,
};

#define SMI_ENABLE_APMC (1u << 5) /* the command port raises SMIs */

#define NS_PER_S   UINT64_C(1000000000)
#define TIMER_BITS 24
#define HALF_TICKS (UINT64_C(1) << (TIMER_BITS - 1)) /* the status bit follows the top bit */

static uint64_t timer_ticks(const struct acpi_pm *acpi_pm)
{
    unsigned __int128 ns = guest_clock_now_ns(acpi_pm->clock);
    return (uint64_t)(ns * ACPI_PM_TIMER_HZ / NS_PER_S);
}

static bool has_gpe(const struct acpi_pm *acpi_pm)
{
    for (size_t i = 0; i < ARRAY_SIZE(acpi_pm->gpe_status); i++)
        if (acpi_pm->gpe_status[i] & acpi_pm->gpe_enable[i])
            return true;
    return false;
}

static void update_sci(struct acpi_pm *acpi_pm)
{
    bool wants = (acpi_pm->pm1_status & acpi_pm->pm1_enable & PM1_ENABLE_KNOWN) || has_gpe(acpi_pm);
    irq_line_set(&acpi_pm->sci, wants && (acpi_pm->pm1_control & CONTROL_SCI_ENABLE));
}

static void arm_overflow(struct acpi_pm *acpi_pm)
{
    if (!(acpi_pm->pm1_enable & PM1_TIMER)) {
        guest_timer_disarm(&acpi_pm->overflow_timer);
        return;
    }
    unsigned __int128 ticks = (timer_ticks(acpi_pm) / HALF_TICKS + 1) * HALF_TICKS;
    uint64_t at_ns = (uint64_t)((ticks * NS_PER_S + ACPI_PM_TIMER_HZ - 1) / ACPI_PM_TIMER_HZ);
    guest_timer_arm(&acpi_pm->overflow_timer, at_ns);
}

static void on_overflow(struct guest_timer *timer)
{
    struct acpi_pm *acpi_pm = container_of(timer, struct acpi_pm, overflow_timer);
    acpi_pm->pm1_status |= PM1_TIMER;
    update_sci(acpi_pm);
    arm_overflow(acpi_pm);
}

void acpi_pm_power_button(struct acpi_pm *acpi_pm)
{
    acpi_pm->pm1_status |= PM1_POWER_BUTTON;
    update_sci(acpi_pm);
}

void acpi_pm_raise_gpe(struct acpi_pm *acpi_pm, unsigned event)
{
    CHECK(event < 8 * ARRAY_SIZE(acpi_pm->gpe_status));
    acpi_pm->gpe_status[event / 8] |= (uint8_t)(1u << event % 8);
    update_sci(acpi_pm);
}

/*
 * The block is bytes to us, so that every width and alignment that a guest may use on these
 * registers means the same.
 */
static uint8_t read_byte(const struct acpi_pm *acpi_pm, unsigned offset)
{
    unsigned shift = 8 * (offset % 2);
    switch (offset) {
    case STATUS:
    case STATUS + 1:
        return (uint8_t)(acpi_pm->pm1_status >> shift);
    case ENABLE:
    case ENABLE + 1:
        return (uint8_t)(acpi_pm->pm1_enable >> shift);
    case CONTROL:
    case CONTROL + 1:
        return (uint8_t)(acpi_pm->pm1_control >> shift);
    case GPE0 ... GPE0_ENABLE - 1:
        return acpi_pm->gpe_status[offset - GPE0];
    case GPE0_ENABLE ... GPE0_ENABLE + ACPI_GPE0_BYTES / 2 - 1:
        return acpi_pm->gpe_enable[offset - GPE0_ENABLE];
    case SMI_ENABLE ... SMI_ENABLE + 3:
        return (uint8_t)(acpi_pm->smi_enable >> 8 * (offset - SMI_ENABLE));
    default:
        return 0;
    }
}

static void write_byte(struct acpi_pm *acpi_pm, unsigned offset, uint8_t value)
{
    unsigned shift = 8 * (offset % 2);
    uint16_t word = (uint16_t)(value << shift), kept = (uint16_t)(0xff00 >> shift);
    switch (offset) {
    case STATUS:
    case STATUS + 1: /* written ones clear */
        acpi_pm->pm1_status &= (uint16_t)~word;
        break;
    case ENABLE:
    case ENABLE + 1:
        acpi_pm->pm1_enable = ((acpi_pm->pm1_enable & kept) | word) & PM1_ENABLE_KNOWN;
        break;
    case CONTROL:
    case CONTROL + 1:
        /* SCI_EN belongs to the SMI command port. */
        kept |= CONTROL_SCI_ENABLE;
        acpi_pm->pm1_control =
            (acpi_pm->pm1_control & kept) | (word & (uint16_t)~kept & CONTROL_KEPT);
        break;
    case GPE0 ... GPE0_ENABLE - 1:
        acpi_pm->gpe_status[offset - GPE0] &= (uint8_t)~value;
        break;
    case GPE0_ENABLE ... GPE0_ENABLE + ACPI_GPE0_BYTES / 2 - 1:
        acpi_pm->gpe_enable[offset - GPE0_ENABLE] = value;
        break;
    case SMI_ENABLE ... SMI_ENABLE + 3:
        shift = 8 * (offset - SMI_ENABLE);
        acpi_pm->smi_enable = (acpi_pm->smi_enable & ~(0xffu << shift)) | (uint32_t)value << shift;
        break;
    default:
        break;
    }
}

/* The sleep bit acts when its byte is written, after the type beside it is in place. */
static bool enters_s5(const struct acpi_pm *acpi_pm, unsigned offset, unsigned size, uint64_t value)
{
    unsigned sleep_byte = CONTROL + 1;
    if (sleep_byte < offset || sleep_byte >= offset + size)
        return false;
    bool sleeps = value >> 8 * (sleep_byte - offset) & (CONTROL_SLEEP_ENABLE >> 8);
    return sleeps && (acpi_pm->pm1_control >> CONTROL_SLEEP_TYPE_AT & 7) == ACPI_SLEEP_TYPE_S5;
}

static uint64_t pm_read(void *device, uint64_t offset, unsigned size)
{
    const struct acpi_pm *acpi_pm = device;
    uint64_t value = 0;
    if (size > 4)
        return bus_all_ones(size);
    if (offset == TIMER && size == 4)
        return timer_ticks(acpi_pm) & ((UINT64_C(1) << TIMER_BITS) - 1);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(acpi_pm, (unsigned)offset + i) << 8 * i;
    return value;
}

static void pm_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *acpi_pm = device;
    if (size > 4)
        return;
    for (unsigned i = 0; i < size; i++)
        write_byte(acpi_pm, (unsigned)offset + i, (uint8_t)(value >> 8 * i));
    arm_overflow(acpi_pm);
    update_sci(acpi_pm);
    if (enters_s5(acpi_pm, (unsigned)offset, size, value))
        acpi_pm->on_power_off(acpi_pm->opaque);
}

static uint64_t smi_read(void *device, uint64_t offset, unsigned size)
{
    const struct acpi_pm *acpi_pm = device;
    if (size != 1)
        return bus_all_ones(size);
    return offset == 0 ? acpi_pm->smi_command : acpi_pm->smi_status;
}

static void smi_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *acpi_pm = device;
    if (size != 1)
        return;
    if (offset == 1) {
        acpi_pm->smi_status = (uint8_t)value;
        return;
    }
    acpi_pm->smi_command = (uint8_t)value;
    if (value == ACPI_SMI_ENABLE)
        acpi_pm->pm1_control |= CONTROL_SCI_ENABLE;
    else if (value == ACPI_SMI_DISABLE)
        acpi_pm->pm1_control &= (uint16_t)~CONTROL_SCI_ENABLE;
    update_sci(acpi_pm);
}

static const struct bus_region_ops pm_ops = {pm_read, pm_write};
static const struct bus_region_ops smi_ops = {smi_read, smi_write};

static void acpi_pm_reset(struct device *device)
{
    struct acpi_pm *acpi_pm = (struct acpi_pm *)device;
    acpi_pm->pm1_status = 0;
    acpi_pm->pm1_enable = 0;
    acpi_pm->pm1_control = 0;
    /* Firmware takes this to mean that system management mode is set up already, and leaves it. */
    acpi_pm->smi_enable = SMI_ENABLE_APMC;
    acpi_pm->smi_command = 0;
    acpi_pm->smi_status = 0;
    memset(acpi_pm->gpe_status, 0, sizeof(acpi_pm->gpe_status));
    memset(acpi_pm->gpe_enable, 0, sizeof(acpi_pm->gpe_enable));
    arm_overflow(acpi_pm);
    update_sci(acpi_pm);
}

static int acpi_pm_after_restore(struct device *device, struct error *err)
{
    struct acpi_pm *acpi_pm = (struct acpi_pm *)device;
    (void)err;
    arm_overflow(acpi_pm);
    update_sci(acpi_pm);
    return 0;
}

static void acpi_pm_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct acpi_pm *acpi_pm = (struct acpi_pm *)device;
    acpi_pm_reset(device);
    bus_unmap(acpi_pm->bus, &acpi_pm->region);
    bus_unmap(acpi_pm->bus, &acpi_pm->smi_region);
    device_close_later(acpi_pm->bus->loop, device, on_closed, opaque);
}

static const struct state_field fields[] = {
    STATE_FIELD(struct acpi_pm, pm1_status),  STATE_FIELD(struct acpi_pm, pm1_enable),
    STATE_FIELD(struct acpi_pm, pm1_control), STATE_FIELD(struct acpi_pm, smi_enable),
    STATE_ARRAY(struct acpi_pm, gpe_status),  STATE_ARRAY(struct acpi_pm, gpe_enable),
    STATE_FIELD(struct acpi_pm, smi_command), STATE_FIELD(struct acpi_pm, smi_status),
};

static const struct state_table state = {"acpi-pm", 1, fields, ARRAY_SIZE(fields)};

static const struct device_ops device_ops = {
    .kind = "acpi-pm",
    .reset = acpi_pm_reset,
    .state = &state,
    .after_restore = acpi_pm_after_restore,
    .close = acpi_pm_close,
};

int acpi_pm_create(struct bus *bus, struct guest_clock *clock, struct irq_hub *hub,
                   void (*on_power_off)(void *opaque), void *opaque, struct acpi_pm **out,
                   struct error *err)
{
    struct acpi_pm *acpi_pm = calloc(1, sizeof(*acpi_pm));
    CHECK(acpi_pm);
    acpi_pm->device.ops = &device_ops;
    acpi_pm->bus = bus;
    acpi_pm->clock = clock;
    acpi_pm->on_power_off = on_power_off;
    acpi_pm->opaque = opaque;
    irq_line_init(&acpi_pm->sci, hub, ACPI_SCI_GSI);
    guest_timer_init(clock, &acpi_pm->overflow_timer, on_overflow);
    acpi_pm->region = (struct bus_region){
        .name = "acpi-pm", .ops = &pm_ops, .device = acpi_pm, .size = ACPI_PM_SIZE};
    acpi_pm->smi_region =
        (struct bus_region){.name = "smi", .ops = &smi_ops, .device = acpi_pm, .size = 2};
    int result = bus_map(bus, BUS_PIO, ACPI_PM_BASE, &acpi_pm->region);
    if (!result)
        result = bus_map(bus, BUS_PIO, ACPI_SMI_CMD, &acpi_pm->smi_region);
    if (result) {
        bus_unmap(bus, &acpi_pm->region);
        free(acpi_pm);
        return error_set(err, -result, "power management finds its ports taken");
    }
    acpi_pm_reset(&acpi_pm->device);
    *out = acpi_pm;
    return 0;
}
