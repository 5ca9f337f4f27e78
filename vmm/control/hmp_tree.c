/* SPDX-License-Identifier: MIT */
/* hmp_tree: the human monitor about what lies where: addresses, buses and what is on them. */
#include <stdlib.h>
#include <string.h>

#include "devices/pci.h"
#include "vmm/control/commands.h"
#include "vmm/control/hmp_private.h"
#include "vmm/control/qom.h"
#include "vmm/machine_inspect.h"
#include "vmm/machine_pci.h"

/* --- info mtree --- */

struct ranges {
    FILE *out;
    bool is_flat;
};

static void print_span(FILE *out, uint64_t base, uint64_t size)
{
    fprintf(out, "%016llx-%016llx", (unsigned long long)base,
            (unsigned long long)(base + size - 1));
}

static void print_range(void *opaque, const struct machine_range *range)
{
    static const char *const kinds[] = {
        [MACHINE_RANGE_DEVICE] = "i/o", [MACHINE_RANGE_RAM] = "ram", [MACHINE_RANGE_ROM] = "rom"};
    const struct ranges *ranges = opaque;
    fprintf(ranges->out, ranges->is_flat ? "  " : "    ");
    print_span(ranges->out, range->base, range->size_bytes);
    fprintf(ranges->out, " (prio 0, %s): ", kinds[range->kind]);
    if (ranges->is_flat) {
        fprintf(ranges->out, "%s", range->alias_of ? range->alias_of : range->name);
        if (range->offset_bytes)
            fprintf(ranges->out, " @%016llx", (unsigned long long)range->offset_bytes);
    } else if (range->alias_of) {
        fprintf(ranges->out, "alias %s @%s ", range->name, range->alias_of);
        print_span(ranges->out, range->offset_bytes, range->size_bytes);
    } else {
        fprintf(ranges->out, "%s", range->name);
    }
    fprintf(ranges->out, "\r\n");
}

static void print_space(struct hmp_call *call, struct ranges *ranges, enum bus_space space,
                        unsigned number)
{
    static const char *const names[] = {[BUS_MMIO] = "memory", [BUS_PIO] = "I/O"};
    static const char *const roots[] = {[BUS_MMIO] = "system", [BUS_PIO] = "io"};
    if (ranges->is_flat) {
        fprintf(call->out, "FlatView #%u\r\n AS \"%s\", root: %s\r\n Root memory region: %s\r\n",
                number, names[space], roots[space], roots[space]);
    } else {
        fprintf(call->out, "address-space: %s\r\n  ", names[space]);
        print_span(call->out, 0, space == BUS_PIO ? 0x10000 : 0);
        fprintf(call->out, " (prio 0, i/o): %s\r\n", roots[space]);
    }
    machine_for_each_range(call->control->machine, space, print_range, ranges);
    fprintf(call->out, "\r\n");
}

void hmp_info_mtree(struct hmp_call *call)
{
    struct ranges ranges = {.out = call->out};
    for (unsigned i = 1; i < call->word_count; i++) {
        if (strcmp(call->words[i], "-f") == 0) {
            ranges.is_flat = true;
            continue;
        }
        fprintf(call->out,
                "mtree: unsupported option %s\r\n"
                "Try \"help info mtree\" for more information\r\n",
                call->words[i]);
        return;
    }
    print_space(call, &ranges, BUS_MMIO, 0);
    print_space(call, &ranges, BUS_PIO, 1);
}

/* --- info qtree --- */

struct branch {
    struct hmp_call *call;
    const char *type;
    unsigned index;
    int indent;
};

/* As a property's kind has it: texts in quotes, numbers both ways. */
static void print_property(const struct branch *branch, const struct qom_property *property,
                           json_t *value)
{
    FILE *out = branch->call->out;
    fprintf(out, "%*s%s = ", branch->indent, "", property->name);
    if (json_is_string(value))
        fprintf(out, "\"%s\"", json_string_value(value));
    else if (json_is_boolean(value))
        fprintf(out, "%s", json_is_true(value) ? "true" : "false");
    else
        fprintf(out, "%lld (0x%llx)", (long long)json_integer_value(value),
                (unsigned long long)json_integer_value(value));
    fprintf(out, "\r\n");
}

static bool is_shown(const json_t *value, const struct qom_property *property)
{
    return (json_is_string(value) || json_is_boolean(value) || json_is_integer(value)) &&
           strcmp(property->name, "realized") != 0;
}

static bool print_properties(void *opaque, const struct qom_object *object)
{
    const struct branch *branch = opaque;
    if (strcmp(object->type->name, branch->type) != 0 || object->index != branch->index)
        return true;
    for (const struct qom_property *property = object->type->properties; property->name;
         property++) {
        json_t *value = property->read(branch->call->control->machine, object);
        if (is_shown(value, property))
            print_property(branch, property, value);
        json_decref(value);
    }
    return false;
}

static void print_device(struct branch *branch, const char *id)
{
    fprintf(branch->call->out, "%*sdev: %s, id \"%s\"\r\n", branch->indent, "", branch->type, id);
    branch->indent += 2;
    qom_walk(branch->call->control->machine, print_properties, branch);
}

/* The ports of a virtio-serial device are on a bus of its own. */
static void print_ports(struct hmp_call *call, unsigned bus)
{
    const struct config_guest *guest = &machine_config(call->control->machine)->guest;
    fprintf(call->out, "        bus: virtio-serial-bus.%u\r\n          type virtio-serial-bus\r\n",
            bus);
    for (unsigned i = 0; i < guest->serial_port_count; i++) {
        const struct config_serial_port *port = &guest->serial_ports[i];
        if (!port->is_present || port->bus != bus)
            continue;
        struct branch branch = {call, port->is_console ? "virtconsole" : "virtserialport", i, 10};
        print_device(&branch, port->qdev_id ? port->qdev_id : "");
    }
}

static void print_function(struct hmp_call *call, unsigned slot, const struct machine_pci *pci)
{
    struct branch branch = {call, pci->kind, pci->index, 6};
    const char *class = commands_pci_class_name(pci->class);
    print_device(&branch, pci->id);
    fprintf(call->out, "        addr = %02x.0\r\n        class ", slot);
    if (class)
        fprintf(call->out, "%s", class);
    else
        fprintf(call->out, "Class %04x", pci->class);
    fprintf(call->out, ", addr 00:%02x.0, pci id %04x:%04x (sub %04x:%04x)\r\n", slot, pci->vendor,
            pci->device, pci->subsystem_vendor, pci->subsystem);
    for (unsigned i = 0; i < MACHINE_PCI_BARS; i++)
        if (pci->bars[i].size_bytes)
            fprintf(call->out, "        bar %u: %s at 0x%llx [0x%llx]\r\n", i,
                    pci->bars[i].is_io ? "i/o" : "mem", (unsigned long long)pci->bars[i].address,
                    (unsigned long long)(pci->bars[i].address + pci->bars[i].size_bytes - 1));
    if (strcmp(branch.type, "virtio-serial-pci") == 0)
        print_ports(call, pci->index);
}

void hmp_info_qtree(struct hmp_call *call)
{
    fprintf(call->out, "bus: main-system-bus\r\n  type System\r\n  dev: q35-pcihost, id \"\"\r\n"
                       "    bus: pcie.0\r\n      type PCIE\r\n");
    for (unsigned slot = 0; slot < PCI_SLOT_MAX; slot++) {
        struct machine_pci pci;
        if (machine_get_pci(call->control->machine, slot, &pci))
            print_function(call, slot, &pci);
    }
}
