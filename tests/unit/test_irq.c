/* SPDX-License-Identifier: MIT */
#include "vmm/irq.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/test.h"

static struct loop loop;
static struct irq irq;
static char history[512];
static int irqfds[GSI_MAX];
static bool has_irqfds;
static struct accel_route table[GSI_MAX];
static unsigned table_count;

static void note(const char *format, unsigned a, unsigned b)
{
    size_t used = strlen(history);
    snprintf(history + used, sizeof(history) - used, format, a, b);
}

static int set_routes(struct accel_vm *vm, const struct accel_route *routes, unsigned count)
{
    (void)vm;
    memcpy(table, routes, count * sizeof(*routes));
    table_count = count;
    note("routes(%u,%u) ", count, count ? routes[count - 1].gsi : 0);
    return 0;
}

static int irqfd_add(struct accel_vm *vm, int fd, uint32_t gsi)
{
    (void)vm;
    irqfds[gsi] = fd;
    return has_irqfds ? 0 : -ENOSYS;
}

static void irqfd_del(struct accel_vm *vm, int fd, uint32_t gsi)
{
    (void)vm;
    assert_int_equal(fd, irqfds[gsi]);
    note("del(%u,%u) ", gsi, 0);
}

static void msi(struct accel_vm *vm, uint64_t address, uint32_t data)
{
    (void)vm;
    note("msi(%x,%x) ", (unsigned)address, data);
}

static const struct accel_ops fake_ops = {.name = "fake",
                                          .set_routes = set_routes,
                                          .irqfd_add = irqfd_add,
                                          .irqfd_del = irqfd_del,
                                          .msi = msi};
static struct accel_vm fake_vm = {&fake_ops};

static void set_pic(void *opaque, unsigned input, bool level)
{
    (void)opaque;
    note("pic(%u,%u) ", input, level);
}

static void set_ioapic(void *opaque, unsigned pin, bool level)
{
    (void)opaque;
    note("ioapic(%u,%u) ", pin, level);
}

static int set_up(void **state)
{
    (void)state;
    const struct irq_pins pins = {set_pic, set_ioapic, NULL};
    memset(history, 0, sizeof(history));
    has_irqfds = true;
    assert_int_equal(loop_init(&loop), 0);
    irq_init(&irq, &loop, &fake_vm);
    irq_set_pins(&irq, &pins);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    irq_fini(&irq);
    loop_fini(&loop);
    return 0;
}

static void expect(const char *text)
{
    assert_string_equal(history, text);
    memset(history, 0, sizeof(history));
}

static void test_isa_lines_reach_both_chips(void **state)
{
    (void)state;
    struct irq_line timer, serial;
    irq_line_init(&timer, &irq.hub, 0);
    irq_line_init(&serial, &irq.hub, 4);
    irq_line_pulse(&timer);
    expect("pic(0,1) ioapic(2,1) pic(0,0) ioapic(2,0) ");
    irq_line_set(&serial, true);
    irq_line_set(&serial, true);
    expect("pic(4,1) ioapic(4,1) ");
}

static void test_shared_pci_line_stays_up_until_the_last_lets_go(void **state)
{
    (void)state;
    struct irq_line a, b;
    irq_line_init(&a, &irq.hub, 17);
    irq_line_init(&b, &irq.hub, 17);
    irq_line_set(&a, true);
    irq_line_set(&b, true);
    irq_line_set(&a, false);
    expect("ioapic(17,1) ");
    irq_line_set(&b, false);
    expect("ioapic(17,0) ");
}

static void test_routes_are_pushed_once_a_turn_or_before_they_fire(void **state)
{
    (void)state;
    struct irq_route *a, *b;
    uint64_t fired = 0;
    assert_int_equal(irq.hub.ops->route_create(&irq.hub, &a), 0);
    assert_int_equal(irq.hub.ops->route_create(&irq.hub, &b), 0);
    irq.hub.ops->route_set(a, 0xfee00000, 0x41);
    irq.hub.ops->route_set(b, 0xfee00000, 0x42);
    expect("");
    loop_run(&loop);
    expect("routes(2,25) ");
    irq.hub.ops->route_set(b, 0xfee00000, 0x43);
    irq.hub.ops->route_fire(b);
    expect("routes(2,25) ");
    assert_int_equal(table[1].data, 0x43);
    assert_int_equal(read(irqfds[25], &fired, sizeof(fired)), sizeof(fired));
    assert_int_equal(fired, 1);
    irq.hub.ops->route_destroy(b);
    irq.hub.ops->route_destroy(a);
    loop_run(&loop);
    expect("del(25,0) del(24,0) routes(0,0) ");
}

static void test_without_irqfds_the_message_is_sent(void **state)
{
    (void)state;
    struct irq_route *route;
    has_irqfds = false;
    assert_int_equal(irq.hub.ops->route_create(&irq.hub, &route), 0);
    irq.hub.ops->route_set(route, 0xfee00000, 0x51);
    irq.hub.ops->route_fire(route);
    expect("msi(fee00000,51) ");
    irq.hub.ops->route_destroy(route);
}

static void test_routes_run_out(void **state)
{
    (void)state;
    static struct irq_route *routes[GSI_MAX];
    unsigned count = 0;
    has_irqfds = false;
    while (irq.hub.ops->route_create(&irq.hub, &routes[count]) == 0)
        count++;
    assert_int_equal(count, GSI_MAX - GSI_IOAPIC_PINS);
    while (count)
        irq.hub.ops->route_destroy(routes[--count]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_isa_lines_reach_both_chips),
        TEST(test_shared_pci_line_stays_up_until_the_last_lets_go),
        TEST(test_routes_are_pushed_once_a_turn_or_before_they_fire),
        TEST(test_without_irqfds_the_message_is_sent),
        TEST(test_routes_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
