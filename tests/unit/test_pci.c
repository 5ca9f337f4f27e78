/* SPDX-License-Identifier: MIT */
#include "devices/pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/pci_host.h"
#include "tools/bench/fake_guest.h"
#include "tests/unit/test.h"

#define ALL_ONES 0xffffffffu

struct gadget {
    struct pci_device pci;
    struct bus_region small, large, ports;
    unsigned configs_written;
    uint64_t last_offset;
};

struct fixture {
    struct fake_guest guest;
    struct gadget a, b;
};

static uint64_t on_read(void *opaque, uint64_t offset, unsigned size)
{
    struct gadget *gadget = opaque;
    (void)size;
    gadget->last_offset = offset;
    return 0x1234567890abcdef;
}

static void on_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct gadget *gadget = opaque;
    (void)size;
    (void)value;
    gadget->last_offset = offset;
}

static const struct bus_region_ops region_ops = {on_read, on_write};

static void on_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    (void)offset;
    (void)size;
    container_of(pci, struct gadget, pci)->configs_written++;
}

static const struct pci_device_ops pci_ops = {.kind = "gadget", .config_written = on_config_written};

static void init_gadget(struct fixture *f, struct gadget *gadget, int slot)
{
    static const struct pci_ids ids = {0x1b36, 0x0010, 0x1af4, 0x1100, 0xff000001};
    pci_device_init(&gadget->pci, &ids, &pci_ops);
    gadget->small = (struct bus_region){"small", &region_ops, gadget, .size = 4096};
    gadget->large = (struct bus_region){"large", &region_ops, gadget, .size = 64 * KIB};
    gadget->ports = (struct bus_region){"ports", &region_ops, gadget, .size = 32};
    pci_add_bar(&gadget->pci, 0, &gadget->small, false, false);
    pci_add_bar(&gadget->pci, 2, &gadget->large, true, false);
    pci_add_bar(&gadget->pci, 4, &gadget->ports, false, true);
    pci_add_msix(&gadget->pci, 5, 3);
    pci_add_capability(&gadget->pci, PCI_CAP_ID_VNDR, 8);
    assert_int_equal(pci_plug(&f->guest.pci_bus, &gadget->pci, slot, NULL), 0);
}

static void start(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    fake_guest_init(&f->guest);
    init_gadget(f, &f->a, 3);
    init_gadget(f, &f->b, -1);
}

static void stop(struct fixture *f)
{
    pci_unplug(&f->a.pci);
    pci_unplug(&f->b.pci);
    fake_guest_fini(&f->guest);
}

static uint32_t get(struct fixture *f, const struct gadget *gadget, unsigned offset, unsigned size)
{
    return pci_config_read(&f->guest.pci_bus, gadget->pci.slot, 0, offset, size);
}

static void set(struct fixture *f, const struct gadget *gadget, unsigned offset, unsigned size,
                uint32_t value)
{
    pci_config_write(&f->guest.pci_bus, gadget->pci.slot, 0, offset, size, value);
}

static void decode(struct fixture *f, const struct gadget *gadget, uint16_t command)
{
    set(f, gadget, PCI_COMMAND, 2, command);
}

static bool answers(struct fixture *f, uint64_t address)
{
    uint64_t value;
    return bus_read(&f->guest.bus, BUS_MMIO, address, 4, &value);
}

static void test_identity(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    assert_int_equal(get(&f, &f.a, PCI_VENDOR_ID, 4), 0x00101b36);
    assert_int_equal(get(&f, &f.a, PCI_CLASS_REVISION, 4), 0xff000001);
    assert_int_equal(get(&f, &f.a, PCI_SUBSYSTEM_VENDOR_ID, 4), 0x11001af4);
    assert_int_equal(f.b.pci.slot, 0);
    set(&f, &f.a, PCI_VENDOR_ID, 4, 0);
    set(&f, &f.a, PCI_STATUS, 2, 0);
    set(&f, &f.a, PCI_CAPABILITY_LIST, 1, 0);
    assert_int_equal(get(&f, &f.a, PCI_VENDOR_ID, 4), 0x00101b36);
    assert_true(get(&f, &f.a, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
    /* Two capabilities, chained. */
    unsigned msix = get(&f, &f.a, PCI_CAPABILITY_LIST, 1);
    assert_int_equal(get(&f, &f.a, msix, 1), PCI_CAP_ID_MSIX);
    unsigned vendor = get(&f, &f.a, msix + 1, 1);
    assert_int_equal(get(&f, &f.a, vendor, 1), PCI_CAP_ID_VNDR);
    assert_int_equal(get(&f, &f.a, vendor + 1, 1), 0);
    set(&f, &f.a, PCI_INTERRUPT_LINE, 1, 11);
    assert_int_equal(get(&f, &f.a, PCI_INTERRUPT_LINE, 1), 11);
    stop(&f);
}

static void test_odd_accesses(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    struct pci_bus *bus = &f.guest.pci_bus;
    assert_int_equal(pci_config_read(bus, 4, 0, 0, 4), ALL_ONES);
    assert_int_equal(pci_config_read(bus, 3, 1, 0, 4), ALL_ONES);
    assert_int_equal(pci_config_read(bus, 3, 1, 0, 2), 0xffff);
    assert_int_equal(pci_config_read(bus, PCI_SLOT_MAX, 0, 0, 4), ALL_ONES);
    assert_int_equal(pci_config_read(bus, UINT32_MAX, 0, 0, 4), ALL_ONES);
    assert_int_equal(pci_config_read(bus, 3, 0, 1, 2), 0xffff);
    assert_int_equal(pci_config_read(bus, 3, 0, 2, 4), ALL_ONES);
    assert_int_equal(pci_config_read(bus, 3, 0, 0, 3), 0xffffff);
    assert_int_equal(pci_config_read(bus, 3, 0, 0, 8), ALL_ONES);
    assert_int_equal(pci_config_read(bus, 3, 0, PCI_EXT_CONFIG_SIZE, 4), ALL_ONES);
    assert_int_equal(pci_config_read(bus, 3, 0, UINT32_MAX - 3, 4), ALL_ONES);
    assert_int_equal(pci_config_read(bus, 3, 0, 0x100, 4), 0);
    pci_config_write(bus, 3, 0, 5, 4, ALL_ONES);
    pci_config_write(bus, 3, 0, PCI_EXT_CONFIG_SIZE, 4, ALL_ONES);
    pci_config_write(bus, 3, 0, 0, 16, ALL_ONES);
    pci_config_write(bus, 9, 7, 0, 4, ALL_ONES);
    assert_int_equal(f.a.configs_written, 0);
    assert_int_equal(get(&f, &f.a, PCI_COMMAND, 2), 0);
    stop(&f);
}

static void test_sizing(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    for (unsigned i = 0; i < PCI_BAR_MAX; i++)
        set(&f, &f.a, PCI_BASE_ADDRESS_0 + 4 * i, 4, ALL_ONES);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_0, 4), 0xfffff000);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_1, 4), 0);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_2, 4), 0xffff0004);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_3, 4), ALL_ONES);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_4, 4), 0xffffffe1);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_5, 4), 0xfffff000);
    assert_int_equal(get(&f, &f.a, PCI_ROM_ADDRESS, 4), 0);
    stop(&f);
}

static void test_bars_follow_decoding(void **state)
{
    (void)state;
    struct fixture f;
    uint64_t value;
    start(&f);
    set(&f, &f.a, PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    set(&f, &f.a, PCI_BASE_ADDRESS_4, 4, 0xc000);
    assert_false(answers(&f, 0xe0000000));
    decode(&f, &f.a, PCI_COMMAND_MEMORY);
    assert_true(answers(&f, 0xe0000ffc));
    assert_int_equal(f.a.last_offset, 0xffc);
    assert_false(bus_read(&f.guest.bus, BUS_PIO, 0xc000, 4, &value));
    decode(&f, &f.a, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    assert_true(bus_read(&f.guest.bus, BUS_PIO, 0xc01c, 4, &value));
    /* Moved while live, a byte at a time too. */
    set(&f, &f.a, PCI_BASE_ADDRESS_0 + 2, 1, 0x10);
    assert_false(answers(&f, 0xe0000000));
    assert_true(answers(&f, 0xe0100000));
    decode(&f, &f.a, 0);
    assert_false(answers(&f, 0xe0100000));
    assert_false(bus_read(&f.guest.bus, BUS_PIO, 0xc000, 4, &value));
    stop(&f);
}

static void test_sizing_while_live(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    set(&f, &f.a, PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    decode(&f, &f.a, PCI_COMMAND_MEMORY);
    set(&f, &f.a, PCI_BASE_ADDRESS_0, 4, ALL_ONES);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_0, 4), 0xfffff000);
    assert_false(answers(&f, 0xfffff000));
    assert_false(answers(&f, 0xe0000000));
    set(&f, &f.a, PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    assert_true(answers(&f, 0xe0000000));
    stop(&f);
}

static void test_64_bit_bar(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    decode(&f, &f.a, PCI_COMMAND_MEMORY);
    set(&f, &f.a, PCI_BASE_ADDRESS_3, 4, 0x10);
    set(&f, &f.a, PCI_BASE_ADDRESS_2, 4, 0x00120000);
    assert_true(answers(&f, UINT64_C(0x1000120000)));
    set(&f, &f.a, PCI_BASE_ADDRESS_3, 4, ALL_ONES);
    assert_false(answers(&f, UINT64_C(0xffffffff00120000)));
    assert_false(answers(&f, UINT64_C(0x1000120000)));
    set(&f, &f.a, PCI_BASE_ADDRESS_3, 4, 0x20);
    assert_true(answers(&f, UINT64_C(0x200012fffc)));
    assert_int_equal(f.a.last_offset, 0xfffc);
    stop(&f);
}

static void test_a_move_onto_another_bar_rolls_back(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    set(&f, &f.a, PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    set(&f, &f.b, PCI_BASE_ADDRESS_0, 4, 0xe0010000);
    set(&f, &f.b, PCI_BASE_ADDRESS_2, 4, 0xe0020000);
    decode(&f, &f.a, PCI_COMMAND_MEMORY);
    decode(&f, &f.b, PCI_COMMAND_MEMORY);
    set(&f, &f.a, PCI_BASE_ADDRESS_0, 4, 0xe002f000);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_0, 4), 0xe0000000);
    f.a.last_offset = f.b.last_offset = 1;
    assert_true(answers(&f, 0xe0000004));
    assert_int_equal(f.a.last_offset, 4);
    assert_true(answers(&f, 0xe002f008));
    assert_int_equal(f.b.last_offset, 0xf008);
    /* Onto one's own other BAR, too. */
    set(&f, &f.b, PCI_BASE_ADDRESS_0, 4, 0xe0020000);
    assert_int_equal(get(&f, &f.b, PCI_BASE_ADDRESS_0, 4), 0xe0010000);
    stop(&f);
}

static void test_a_bar_that_does_not_fit_stays_dark_until_it_does(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    set(&f, &f.a, PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    set(&f, &f.b, PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    decode(&f, &f.a, PCI_COMMAND_MEMORY);
    decode(&f, &f.b, PCI_COMMAND_MEMORY);
    f.b.last_offset = 99;
    assert_true(answers(&f, 0xe0000000));
    assert_int_equal(f.b.last_offset, 99);
    decode(&f, &f.a, 0);
    assert_false(answers(&f, 0xe0000000));
    decode(&f, &f.b, PCI_COMMAND_MEMORY);
    assert_true(answers(&f, 0xe0000000));
    assert_int_equal(f.b.last_offset, 0);
    stop(&f);
}

static uint64_t table_of(struct fixture *f, struct gadget *gadget)
{
    set(f, gadget, PCI_BASE_ADDRESS_5, 4, 0xe8000000);
    decode(f, gadget, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return 0xe8000000;
}

static void msix_control(struct fixture *f, const struct gadget *gadget, uint16_t bits)
{
    set(f, gadget, gadget->pci.msix_capability + PCI_MSIX_FLAGS, 2, bits);
}

static void set_vector(struct fixture *f, uint64_t table, unsigned vector, uint32_t address,
                       uint32_t data, uint32_t control)
{
    uint64_t entry = table + 16 * vector;
    fake_guest_write(&f->guest, entry, 4, address);
    fake_guest_write(&f->guest, entry + 4, 4, 0);
    fake_guest_write(&f->guest, entry + 8, 4, data);
    fake_guest_write(&f->guest, entry + 12, 4, control);
}

static void test_msix(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    uint64_t table = table_of(&f, &f.a);
    assert_int_equal(get(&f, &f.a, f.a.pci.msix_capability + PCI_MSIX_FLAGS, 2), 2);
    set_vector(&f, table, 0, 0xfee01000, FAKE_MSI(0), 0);
    set_vector(&f, table, 1, 0xfee00000, FAKE_MSI(1), 1);
    assert_true(fake_guest_read(&f.guest, table, 8) == 0xfee01000);
    assert_true(fake_guest_read(&f.guest, table + 8, 8) == FAKE_MSI(0));
    assert_false(pci_msix_is_enabled(&f.a.pci));
    assert_int_equal(f.guest.irq.routes, 0);

    msix_control(&f, &f.a, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    pci_msix_notify(&f.a.pci, 0);
    pci_msix_notify(&f.a.pci, 1);
    assert_int_equal(f.guest.irq.sent[0], 0);
    assert_int_equal(fake_guest_read(&f.guest, table + 2048, 4), 3);
    msix_control(&f, &f.a, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(f.guest.irq.sent[0], 1);
    assert_int_equal(f.guest.irq.sent[1], 0);
    assert_int_equal(fake_guest_read(&f.guest, table + 2048, 8), 2);
    assert_int_equal(f.guest.irq.routes, 1);
    set_vector(&f, table, 1, 0xfee00000, FAKE_MSI(2), 0);
    assert_int_equal(f.guest.irq.sent[2], 1);
    pci_msix_notify(&f.a.pci, 1);
    assert_int_equal(f.guest.irq.sent[2], 2);

    pci_msix_notify(&f.a.pci, 2);
    pci_msix_notify(&f.a.pci, 3);
    pci_msix_notify(&f.a.pci, UINT32_MAX);
    assert_int_equal(fake_guest_read(&f.guest, table + 2048, 4), 4);

    /* A message is a write to memory: without bus mastering it waits. */
    decode(&f, &f.a, PCI_COMMAND_MEMORY);
    pci_msix_notify(&f.a.pci, 0);
    assert_int_equal(f.guest.irq.sent[0], 1);
    decode(&f, &f.a, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(f.guest.irq.sent[0], 2);

    pci_device_reset(&f.a.pci);
    assert_false(pci_msix_is_enabled(&f.a.pci));
    pci_msix_notify(&f.a.pci, 0);
    assert_int_equal(f.guest.irq.sent[0], 2);
    stop(&f);
    assert_int_equal(f.guest.irq.routes, 0);
}

static void test_msix_without_routes(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    f.guest.irq.no_routes = true;
    uint64_t table = table_of(&f, &f.a);
    set_vector(&f, table, 0, 0xfee00000, FAKE_MSI(0), 0);
    msix_control(&f, &f.a, PCI_MSIX_FLAGS_ENABLE);
    pci_msix_notify(&f.a.pci, 0);
    assert_int_equal(f.guest.irq.sent[0], 1);
    stop(&f);
}

static void test_msix_odd_accesses(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    uint64_t table = table_of(&f, &f.a);
    set_vector(&f, table, 0, 0xfee00000, FAKE_MSI(0), 0);
    msix_control(&f, &f.a, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(fake_guest_read(&f.guest, table, 1), 0xff);
    assert_int_equal(fake_guest_read(&f.guest, table, 2), 0xffff);
    assert_true(fake_guest_read(&f.guest, table + 4, 8) == UINT64_MAX);
    fake_guest_write(&f.guest, table, 2, 0);
    fake_guest_write(&f.guest, table + 1, 4, 0);
    assert_int_equal(fake_guest_read(&f.guest, table, 4), 0xfee00000);
    /* Beyond the vectors, the rest of the table, the pending bits and the end of the BAR. */
    static const unsigned offsets[] = {16 * 3, 16 * 63, 1024, 2044, 2048, 2056, 4092};
    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
        fake_guest_write(&f.guest, table + offsets[i], 4, ALL_ONES);
        assert_int_equal(fake_guest_read(&f.guest, table + offsets[i], 4), 0);
    }
    assert_int_equal(fake_guest_read(&f.guest, table + 4092, 8), UINT64_MAX);
    /* A message to memory instead of a LAPIC is dropped. */
    set_vector(&f, table, 0, 0x00001000, FAKE_MSI(0), 0);
    pci_msix_notify(&f.a.pci, 0);
    assert_int_equal(f.guest.irq.sent[0] + f.guest.irq.sent_other, 0);
    stop(&f);
}

static void test_intx(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    unsigned gsi = pci_host_intx_gsi(3, 0);
    pci_set_intx(&f.a.pci, true);
    assert_int_equal(f.guest.irq.lines[gsi], 1);
    assert_true(get(&f, &f.a, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    decode(&f, &f.a, PCI_COMMAND_INTX_DISABLE);
    assert_int_equal(f.guest.irq.lines[gsi], 0);
    assert_true(get(&f, &f.a, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    decode(&f, &f.a, 0);
    assert_int_equal(f.guest.irq.lines[gsi], 1);
    msix_control(&f, &f.a, PCI_MSIX_FLAGS_ENABLE);
    assert_int_equal(f.guest.irq.lines[gsi], 0);
    msix_control(&f, &f.a, 0);
    assert_int_equal(f.guest.irq.lines[gsi], 1);
    pci_device_reset(&f.a.pci);
    assert_int_equal(f.guest.irq.lines[gsi], 0);
    assert_false(get(&f, &f.a, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    pci_set_intx(&f.a.pci, true);
    stop(&f);
    assert_int_equal(f.guest.irq.lines[gsi], 0);
}

static void test_reset_unmaps(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    set(&f, &f.a, PCI_BASE_ADDRESS_0, 4, 0xe0000000);
    set(&f, &f.a, PCI_BASE_ADDRESS_2, 4, 0xe0010000);
    decode(&f, &f.a, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_true(pci_is_bus_master(&f.a.pci));
    pci_device_reset(&f.a.pci);
    assert_false(answers(&f, 0xe0000000));
    assert_false(pci_is_bus_master(&f.a.pci));
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_0, 4), 0);
    assert_int_equal(get(&f, &f.a, PCI_BASE_ADDRESS_2, 4), 4);
    stop(&f);
}

static void test_slots(void **state)
{
    (void)state;
    struct fixture f;
    struct error err = {0};
    struct gadget extra[PCI_SLOT_MAX];
    start(&f);
    memset(extra, 0, sizeof(extra));
    pci_device_init(&extra[0].pci, &(struct pci_ids){0}, &pci_ops);
    assert_int_equal(pci_plug(&f.guest.pci_bus, &extra[0].pci, 3, &err), -EBUSY);
    assert_non_null(strstr(err.text, "slot 3"));
    unsigned count = 0;
    for (; count < PCI_SLOT_MAX - 2; count++) {
        pci_device_init(&extra[count].pci, &(struct pci_ids){0}, &pci_ops);
        assert_int_equal(pci_plug(&f.guest.pci_bus, &extra[count].pci, -1, NULL), 0);
    }
    pci_device_init(&extra[count].pci, &(struct pci_ids){0}, &pci_ops);
    assert_int_equal(pci_plug(&f.guest.pci_bus, &extra[count].pci, -1, NULL), -ENOSPC);
    while (count--)
        pci_unplug(&extra[count].pci);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_odd_accesses),
        cmocka_unit_test(test_sizing),
        cmocka_unit_test(test_bars_follow_decoding),
        cmocka_unit_test(test_sizing_while_live),
        cmocka_unit_test(test_64_bit_bar),
        cmocka_unit_test(test_a_move_onto_another_bar_rolls_back),
        cmocka_unit_test(test_a_bar_that_does_not_fit_stays_dark_until_it_does),
        cmocka_unit_test(test_msix),
        cmocka_unit_test(test_msix_without_routes),
        cmocka_unit_test(test_msix_odd_accesses),
        cmocka_unit_test(test_intx),
        cmocka_unit_test(test_reset_unmaps),
        cmocka_unit_test(test_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
