/* SPDX-License-Identifier: MIT */
/*
 * acpi_pm: the ACPI power management registers of the ICH9: PM1a event and control, the PM timer,
 * GPE0, and the SMI command port by which a guest turns ACPI on.
 *
 * (ACPI 6.3, sections 4.8.2 to 4.8.4; ICH9 datasheet, section 13.8.3.) The SCI is level-triggered
 * on GSI 9. SMIs do not exist: the command port only flips SCI_EN.
 */
#ifndef DEVICES_ACPI_PM_H
#define DEVICES_ACPI_PM_H

#include "devices/bus.h"
#include "devices/device.h"
#include "devices/guest_clock.h"
#include "devices/irq.h"

#define ACPI_PM_BASE       0x600
#define ACPI_PM_SIZE       0x80
#define ACPI_PM1_EVENT     0x600 /* status, then enable: 2 bytes each */
#define ACPI_PM1_CONTROL   0x604
#define ACPI_PM_TIMER      0x608
#define ACPI_GPE0          0x620 /* status bytes, then as many enable bytes */
#define ACPI_GPE0_BYTES    16
#define ACPI_SMI_CMD       0xb2
#define ACPI_SMI_ENABLE    0x02
#define ACPI_SMI_DISABLE   0x03
#define ACPI_SCI_GSI       9
#define ACPI_SLEEP_TYPE_S5 0
#define ACPI_PM_TIMER_HZ   3579545

struct acpi_pm {
    struct device device;
    /* Private. */
    struct bus *bus;
    struct guest_clock *clock;
    struct irq_line sci;
    void (*on_power_off)(void *opaque);
    void *opaque;
    struct bus_region region, smi_region;
    struct guest_timer overflow_timer; /* of the PM timer's top bit, armed while enabled */
    uint16_t pm1_status, pm1_enable, pm1_control;
    uint32_t smi_enable;
    uint8_t gpe_status[ACPI_GPE0_BYTES / 2], gpe_enable[ACPI_GPE0_BYTES / 2];
    uint8_t smi_command, smi_status;
};

/* on_power_off: the guest has entered S5. Called from inside its write, once per write. */
int must_check acpi_pm_create(struct bus *bus, struct guest_clock *clock, struct irq_hub *hub,
                              void (*on_power_off)(void *opaque), void *opaque,
                              struct acpi_pm **out, struct error *err);

/* Presses and releases the button: sets its status bit, and interrupts where the guest wants it. */
void acpi_pm_power_button(struct acpi_pm *acpi_pm);

/* Raises general purpose event `event`, 0 to 63, for the DSDT's handler of it. */
void acpi_pm_raise_gpe(struct acpi_pm *acpi_pm, unsigned event);

#endif
