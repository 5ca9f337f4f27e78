/* SPDX-License-Identifier: MIT */
/*
 * All platform devices on one board, and a guest that writes rubbish to them: any port, any width,
 * any value, while time passes, input comes in and the machine is reset. Every run is a seed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "devices/acpi_pm.h"
#include "devices/fw_cfg.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/pci_host.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "tests/fake_board.h"
#include "tests/unit/test.h"

#define SEEDS 200
#define STEPS 4000

static struct fake_board board;
static struct fake_stream stream;
static struct pci_bus pci_bus;
static struct device *devices[16];
static unsigned device_count;
static struct ioapic *ioapic;
static struct pic *pic;
static uint64_t seed;
static uint8_t ram[0x10000];

static const struct guest_mem mem = {
    .regions = {{.gpa = 0, .size = sizeof(ram), .host = ram}},
    .region_count = 1,
};

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static unsigned below(unsigned limit)
{
    return (unsigned)(next_random() % limit);
}

static void on_event(void *opaque)
{
    (void)opaque;
}

static void on_panic(void *opaque, unsigned events)
{
    (void)opaque, (void)events;
}

static void on_intr(void *opaque, bool level)
{
    (void)opaque, (void)level;
}

static void add(struct device *device)
{
    devices[device_count++] = device;
}

static void build(void)
{
    struct pit *pit;
    struct rtc *rtc;
    struct acpi_pm *acpi_pm;
    struct i8042 *i8042;
    struct pvpanic *pvpanic;
    struct serial *serial;
    struct pci_host *host;
    struct fw_cfg *fw_cfg;
    const struct serial_config config = {&board.bus,      &board.clock,     &board.hub,
                                         &stream.backend, SERIAL_COM1_PORT, SERIAL_COM1_GSI};
    fake_board_init(&board);
    fake_stream_init(&stream);
    pci_bus_init(&pci_bus, &board.bus, &board.hub);
    device_count = 0;
    assert_int_equal(ioapic_create(&board.bus, &board.hub, on_event, NULL, &ioapic, NULL), 0);
    assert_int_equal(pic_create(&board.bus, on_intr, NULL, &pic, NULL), 0);
    assert_int_equal(pit_create(&board.bus, &board.clock, &board.hub, &pit, NULL), 0);
    assert_int_equal(rtc_create(&board.bus, &board.clock, &board.hub, 1 << 30, 0, 1, &rtc, NULL),
                     0);
    assert_int_equal(
        acpi_pm_create(&board.bus, &board.clock, &board.hub, on_event, NULL, &acpi_pm, NULL), 0);
    assert_int_equal(i8042_create(&board.bus, &board.hub, on_event, NULL, &i8042, NULL), 0);
    assert_int_equal(pvpanic_create(&board.bus, on_panic, NULL, &pvpanic, NULL), 0);
    assert_int_equal(serial_create(&config, &serial, NULL), 0);
    assert_int_equal(pci_host_create(&pci_bus, on_event, NULL, &host, NULL), 0);
    assert_int_equal(fw_cfg_create(&board.bus, &mem, &fw_cfg, NULL), 0);
    assert_int_equal(fw_cfg_add_file(fw_cfg, "etc/file", "content", 7, NULL), 0);
    add(&ioapic->device);
    add(&pic->device);
    add(&pit->device);
    add(&rtc->device);
    add(&acpi_pm->device);
    add(&i8042->device);
    add(&pvpanic->device);
    add(&serial->device);
    add(&host->device);
    add(&fw_cfg->device);
}

static void take_down(void)
{
    while (device_count > 0)
        fake_board_close(&board, devices[--device_count]);
    fake_board_fini(&board);
}

/* Mostly where something answers. */
static uint64_t random_address(enum bus_space space)
{
    unsigned count = board.bus.region_count[space];
    if (count == 0 || below(16) == 0)
        return space == BUS_PIO ? below(0x10000) : next_random();
    const struct bus_region *region = board.bus.regions[space][below(count)];
    uint64_t reach = below(4) ? MIN(region->size, 64u) : region->size + 8;
    return region->base + next_random() % reach;
}

static uint64_t random_value(void)
{
    static const uint64_t special[] = {0, 1, 0xff, 0x80, 0x8000, UINT32_MAX, UINT64_MAX, 0x10};
    return below(3) ? next_random() : special[below(ARRAY_SIZE(special))];
}

static void random_access_by_the_guest(void)
{
    enum bus_space space = below(4) ? BUS_PIO : BUS_MMIO;
    unsigned size = 1u << (below(3) ? 0 : below(4));
    uint64_t value, address = random_address(space);
    if (space == BUS_PIO && address + size > 0x10000)
        return;
    if (below(3) == 0) {
        bus_read(&board.bus, space, address, size, &value);
        assert_true((value & ~bus_all_ones(size)) == 0);
    } else {
        bus_write(&board.bus, space, address, size, random_value());
    }
}

static void random_event_from_outside(void)
{
    char bytes[32] = "rubbish";
    unsigned pin = below(GSI_IOAPIC_PINS);
    switch (below(10)) {
    case 8:
        ram[below(sizeof(ram))] = (uint8_t)next_random();
        break;
    case 9:
        loop_run_once(&board.loop, false);
        break;
    case 0:
        ioapic_eoi(ioapic, (uint8_t)next_random());
        break;
    case 1:
        pic_acknowledge(pic);
        break;
    case 2:
        ioapic_set_pin(ioapic, pin, below(2));
        break;
    case 3:
        pic_set_input(pic, below(PIC_INPUTS), below(2));
        break;
    case 4:
        fake_stream_feed(&stream, bytes, below(sizeof(bytes)));
        break;
    case 5:
        stream.room = below(3) ? below(20) : 0;
        stream.backend.user_ops->on_writable(stream.backend.user);
        break;
    case 6:
        fake_board_pass(&board, next_random() % UINT64_C(3000000000));
        break;
    default:
        if (below(50) == 0) {
            struct device *device = devices[below(device_count)];
            device->ops->reset(device);
        }
        break;
    }
}

static void test_rubbish(void **state)
{
    (void)state;
    const char *fixed = getenv("EVISOR_TEST_SEED");
    for (uint64_t i = 1; i <= SEEDS; i++) {
        uint64_t start = fixed ? strtoull(fixed, NULL, 0) : i * UINT64_C(0x9e3779b97f4a7c15);
        seed = start ? start : 1;
        build();
        if (fixed)
            print_message("EVISOR_TEST_SEED=%#llx\n", (unsigned long long)start);
        for (unsigned step = 0; step < STEPS; step++) {
            random_access_by_the_guest();
            if (below(4) == 0)
                random_event_from_outside();
        }
        for (unsigned j = 0; j < device_count; j++)
            if (devices[j]->ops->state && below(2))
                fake_board_save_and_restore(devices[j]);
        take_down();
    }
}

/* The rubbish may have set up timers of any period: in one second they may not ring too often. */
static void test_no_timer_storm(void **state)
{
    (void)state;
    const unsigned most = 1000000 / PIT_PERIOD_MIN_US;
    for (uint64_t i = 1; i <= SEEDS; i++) {
        unsigned total = 0;
        seed = i * 7919;
        build();
        for (unsigned step = 0; step < STEPS / 4; step++)
            random_access_by_the_guest();
        memset(board.raises, 0, sizeof(board.raises));
        board.msis = 0;
        for (unsigned step = 0; step < 10000; step++)
            fake_board_pass(&board, 100000);
        for (size_t gsi = 0; gsi < ARRAY_SIZE(board.raises); gsi++)
            total += board.raises[gsi];
        assert_true(total <= 2 * most + 100);
        take_down();
    }
}

/* Every port, every width, every device freshly reset. */
static void test_every_port(void **state)
{
    (void)state;
    build();
    for (unsigned port = 0; port < 0x10000; port++) {
        for (unsigned size = 1; size <= 8 && port + size <= 0x10000; size *= 2) {
            uint64_t value;
            bus_read(&board.bus, BUS_PIO, port, size, &value);
            bus_write(&board.bus, BUS_PIO, port, size, UINT64_MAX);
            bus_write(&board.bus, BUS_PIO, port, size, 0);
        }
    }
    take_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rubbish),
        cmocka_unit_test(test_no_timer_storm),
        cmocka_unit_test(test_every_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
