/* SPDX-License-Identifier: MIT */
/* qom_types: the types of objects and how their properties are read and set. */
#include "vmm/control/qom.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "vmm/machine_guest.h"
#include "vmm/options/nic_words.h"

static const struct vm_config *config_of(struct machine *machine)
{
    return machine_config(machine);
}

static json_t *text_or_empty(const char *text)
{
    return json_string(text ? text : "");
}

static json_t *read_true(struct machine *machine, const struct qom_object *object)
{
    (void)machine, (void)object;
    return json_true();
}

/* --- the machine --- */

static json_t *read_kernel(struct machine *machine, const struct qom_object *object)
{
    (void)object;
    return text_or_empty(config_of(machine)->kernel);
}

static json_t *read_initrd(struct machine *machine, const struct qom_object *object)
{
    (void)object;
    return text_or_empty(config_of(machine)->initrd);
}

static json_t *read_append(struct machine *machine, const struct qom_object *object)
{
    (void)object;
    return text_or_empty(config_of(machine)->append);
}

static json_t *read_firmware(struct machine *machine, const struct qom_object *object)
{
    (void)object;
    return text_or_empty(config_of(machine)->bios);
}

static const struct qom_property machine_properties[] = {
    {"append", "string", "Linux kernel command line", read_append, NULL, true},
    {"firmware", "string", "Firmware image", read_firmware, NULL, true},
    {"initrd", "string", "Linux initial ramdisk file", read_initrd, NULL, true},
    {"kernel", "string", "Linux kernel image file", read_kernel, NULL, true},
    {0}};

/* --- disks and NICs --- */

static json_t *read_drive(struct machine *machine, const struct qom_object *object)
{
    return text_or_empty(config_of(machine)->disks[object->index].id);
}

static json_t *read_disk_serial(struct machine *machine, const struct qom_object *object)
{
    return text_or_empty(config_of(machine)->disks[object->index].serial);
}

static json_t *read_bootindex(struct machine *machine, const struct qom_object *object)
{
    return json_integer((json_int_t)config_of(machine)->disks[object->index].boot_rank - 1);
}

static json_t *read_io_thread(struct machine *machine, const struct qom_object *object)
{
    unsigned number = config_of(machine)->disks[object->index].io_thread;
    char path[QOM_PATH_MAX] = "";
    if (number)
        snprintf(path, sizeof(path), "/objects/%s",
                 config_of(machine)->guest.io_threads[number - 1]);
    return json_string(path);
}

static const struct qom_property blk_properties[] = {
    {"bootindex", "int32", NULL, read_bootindex, NULL, true},
    {"drive", "str", "Node name or ID of a block device to use as a backend", read_drive, NULL,
     true},
    {"iothread", "link<iothread>", NULL, read_io_thread, NULL, true},
    {"realized", "bool", NULL, read_true, NULL, true},
    {"serial", "str", NULL, read_disk_serial, NULL, true},
    {0}};

static json_t *read_netdev(struct machine *machine, const struct qom_object *object)
{
    return text_or_empty(config_of(machine)->nics[object->index].netdev_id);
}

static json_t *read_mac(struct machine *machine, const struct qom_object *object)
{
    uint8_t mac[6];
    char text[NIC_MAC_BYTES];
    nic_words_mac(config_of(machine), object->index, mac);
    nic_words_print_mac(mac, text);
    return json_string(text);
}

static json_t *read_host_mtu(struct machine *machine, const struct qom_object *object)
{
    return json_integer(config_of(machine)->nics[object->index].mtu);
}

static const struct qom_property net_properties[] = {
    {"host_mtu", "uint16", NULL, read_host_mtu, NULL, true},
    {"mac", "str", "Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56", read_mac, NULL, true},
    {"netdev", "str", "ID of a netdev to use as a backend", read_netdev, NULL, true},
    {"realized", "bool", NULL, read_true, NULL, true},
    {0}};

static const struct qom_property plain_properties[] = {
    {"realized", "bool", NULL, read_true, NULL, true}, {0}};

/* --- the balloon --- */

/* virtio 1.2, section 5.5.6.3 */
static const char *const stat_names[MACHINE_BALLOON_STATS] = {
    "stat-swap-in",      "stat-swap-out",     "stat-major-faults",     "stat-minor-faults",
    "stat-free-memory",  "stat-total-memory", "stat-available-memory", "stat-disk-caches",
    "stat-htlb-pgalloc", "stat-htlb-pgfail"};

/* A statistic that the guest did not tell is -1: JSON here has no larger numbers. */
static json_t *read_stats(struct machine *machine, const struct qom_object *object)
{
    (void)object;
    struct machine_balloon balloon;
    if (!machine_get_balloon(machine, &balloon))
        return json_null();
    json_t *stats = json_object();
    for (unsigned i = 0; i < MACHINE_BALLOON_STATS; i++) {
        uint64_t value = balloon.stats[i];
        json_int_t shown = value == UINT64_MAX ? -1 : (json_int_t)MIN(value, INT64_MAX);
        json_object_set_new(stats, stat_names[i], json_integer(shown));
    }
    return json_pack("{s:o,s:I}", "stats", stats, "last-update", (json_int_t)balloon.updated_s);
}

static json_t *read_polling(struct machine *machine, const struct qom_object *object)
{
    (void)object;
    struct machine_balloon balloon;
    return json_integer(machine_get_balloon(machine, &balloon) ? (json_int_t)balloon.polling_s : 0);
}

static int write_polling(struct machine *machine, const struct qom_object *object, json_t *value,
                         struct error *err)
{
    (void)object;
    json_int_t period_s = json_integer_value(value);
    if (period_s < 0)
        return error_set(err, EINVAL, "timer value must be greater than zero");
    if (period_s > UINT32_MAX)
        return error_set(err, EINVAL, "timer value is too big");
    return machine_set_balloon_polling(machine, (uint64_t)period_s);
}

static json_t *read_deflate(struct machine *machine, const struct qom_object *object)
{
    (void)object;
    return json_boolean(config_of(machine)->guest.balloon.deflate_on_oom);
}

static json_t *read_reporting(struct machine *machine, const struct qom_object *object)
{
    (void)object;
    return json_boolean(config_of(machine)->guest.balloon.free_page_reporting);
}

static const struct qom_property balloon_properties[] = {
    {"deflate-on-oom", "bool", "on/off", read_deflate, NULL, true},
    {"free-page-reporting", "bool", "on/off", read_reporting, NULL, true},
    {"guest-stats", "guest statistics", NULL, read_stats, NULL, false},
    {"guest-stats-polling-interval", "int", NULL, read_polling, write_polling, false},
    {"realized", "bool", NULL, read_true, NULL, true},
    {0}};

/* --- ports --- */

static json_t *read_max_ports(struct machine *machine, const struct qom_object *object)
{
    return json_integer(config_of(machine)->guest.serial_buses[object->index].port_count);
}

static const struct qom_property bus_properties[] = {
    {"max_ports", "uint32", NULL, read_max_ports, NULL, true},
    {"realized", "bool", NULL, read_true, NULL, true},
    {0}};

static json_t *read_port_chardev(struct machine *machine, const struct qom_object *object)
{
    int chardev = config_of(machine)->guest.serial_ports[object->index].chardev;
    return text_or_empty(chardev < 0 ? NULL : config_of(machine)->chardevs[chardev].id);
}

static json_t *read_port_name(struct machine *machine, const struct qom_object *object)
{
    return text_or_empty(config_of(machine)->guest.serial_ports[object->index].name);
}

static json_t *read_port_number(struct machine *machine, const struct qom_object *object)
{
    return json_integer(config_of(machine)->guest.serial_ports[object->index].number);
}

static const struct qom_property port_properties[] = {
    {"chardev", "str", "ID of a chardev to use as a backend", read_port_chardev, NULL, true},
    {"name", "str", NULL, read_port_name, NULL, true},
    {"nr", "uint32", NULL, read_port_number, NULL, true},
    {"realized", "bool", NULL, read_true, NULL, true},
    {0}};

/* --- memory devices --- */

static struct machine_mem mem_of(struct machine *machine, const struct qom_object *object)
{
    struct machine_mem mem = {0};
    if (!machine_get_mem(machine, object->index, &mem))
        return (struct machine_mem){0};
    return mem;
}

static json_t *read_mem_size(struct machine *machine, const struct qom_object *object)
{
    return json_integer((json_int_t)mem_of(machine, object).plugged_bytes);
}

static json_t *read_requested(struct machine *machine, const struct qom_object *object)
{
    return json_integer((json_int_t)mem_of(machine, object).requested_bytes);
}

static json_t *read_block(struct machine *machine, const struct qom_object *object)
{
    return json_integer((json_int_t)mem_of(machine, object).block_bytes);
}

static json_t *read_memaddr(struct machine *machine, const struct qom_object *object)
{
    return json_integer((json_int_t)mem_of(machine, object).gpa);
}

static json_t *read_memdev(struct machine *machine, const struct qom_object *object)
{
    char path[QOM_PATH_MAX];
    snprintf(path, sizeof(path), "/objects/%s",
             config_of(machine)->guest.mems[object->index].memdev);
    return json_string(path);
}

static int write_requested(struct machine *machine, const struct qom_object *object, json_t *value,
                           struct error *err)
{
    json_int_t bytes = json_integer_value(value);
    if (bytes < 0)
        return error_set(err, EINVAL, "Parameter 'requested-size' expects uint64");
    return machine_request_mem(machine, object->index, (uint64_t)bytes, err);
}

static const struct qom_property mem_properties[] = {
    {"block-size", "size", NULL, read_block, NULL, true},
    {"memaddr", "uint64", NULL, read_memaddr, NULL, true},
    {"memdev", "link<memory-backend>", NULL, read_memdev, NULL, true},
    {"realized", "bool", NULL, read_true, NULL, true},
    {"requested-size", "size", NULL, read_requested, write_requested, false},
    {"size", "size", NULL, read_mem_size, NULL, false},
    {0}};

static const struct config_memory_backend *backend_of(struct machine *machine,
                                                      const struct qom_object *object)
{
    return &config_of(machine)->guest.memory_backends[object->index];
}

static json_t *read_backend_size(struct machine *machine, const struct qom_object *object)
{
    return json_integer((json_int_t)backend_of(machine, object)->size_bytes);
}

static json_t *read_share(struct machine *machine, const struct qom_object *object)
{
    return json_boolean(backend_of(machine, object)->is_shared);
}

static json_t *read_prealloc(struct machine *machine, const struct qom_object *object)
{
    return json_boolean(backend_of(machine, object)->prealloc);
}

static const struct qom_property backend_properties[] = {
    {"prealloc", "bool", NULL, read_prealloc, NULL, true},
    {"share", "bool", NULL, read_share, NULL, true},
    {"size", "size", NULL, read_backend_size, NULL, true},
    {0}};

/* --- I/O threads --- */

static json_t *read_zero(struct machine *machine, const struct qom_object *object)
{
    (void)machine, (void)object;
    return json_integer(0);
}

/* The one value of thread-pool-max= that is taken: there is no pool that could have more. */
static json_t *read_pool_max(struct machine *machine, const struct qom_object *object)
{
    (void)machine, (void)object;
    return json_integer(64);
}

static const struct qom_property io_thread_properties[] = {
    {"aio-max-batch", "int", NULL, read_zero, NULL, true},
    {"poll-grow", "int", NULL, read_zero, NULL, true},
    {"poll-max-ns", "int", NULL, read_zero, NULL, true},
    {"poll-shrink", "int", NULL, read_zero, NULL, true},
    {"thread-pool-max", "int", NULL, read_pool_max, NULL, true},
    {"thread-pool-min", "int", NULL, read_zero, NULL, true},
    {0}};

/* --- CPUs --- */

static struct machine_cpu_info cpu_of(struct machine *machine, const struct qom_object *object)
{
    struct machine_cpu_info cpu;
    machine_get_cpu(machine, object->index, &cpu);
    return cpu;
}

static json_t *read_socket(struct machine *machine, const struct qom_object *object)
{
    return json_integer(cpu_of(machine, object).socket);
}

static json_t *read_core(struct machine *machine, const struct qom_object *object)
{
    return json_integer(cpu_of(machine, object).core);
}

static json_t *read_thread(struct machine *machine, const struct qom_object *object)
{
    return json_integer(cpu_of(machine, object).thread);
}

static const struct qom_property cpu_properties[] = {
    {"core-id", "int32", NULL, read_core, NULL, true},
    {"realized", "bool", NULL, read_true, NULL, true},
    {"socket-id", "int32", NULL, read_socket, NULL, true},
    {"thread-id", "int32", NULL, read_thread, NULL, true},
    {0}};

static const struct qom_property no_properties[] = {{0}};

const struct qom_type qom_types[] = {
    {"root", "container", false, no_properties},
    {"container", "object", false, no_properties},
    {"chardev", "object", false, no_properties},
    {"pc-q35-7.2-machine", "machine", false, machine_properties},
    {"iothread", "object", false, io_thread_properties},
    {"max-x86_64-cpu", "x86_64-cpu", true, cpu_properties},
    {"memory-backend-file", "memory-backend", false, backend_properties},
    {"memory-backend-memfd", "memory-backend", false, backend_properties},
    {"memory-backend-ram", "memory-backend", false, backend_properties},
    {"throttle-group", "object", false, qom_throttle_properties},
    {"virtconsole", "virtserialport", true, port_properties},
    {"virtio-balloon-pci", "virtio-pci", true, balloon_properties},
    {"virtio-blk-pci", "virtio-pci", true, blk_properties},
    {"virtio-mem-pci", "virtio-pci", true, mem_properties},
    {"virtio-net-pci", "virtio-pci", true, net_properties},
    {"virtio-rng-pci", "virtio-pci", true, plain_properties},
    {"virtio-serial-pci", "virtio-pci", true, bus_properties},
    {"virtserialport", "virtio-serial-port", true, port_properties},
};
const unsigned qom_type_count = ARRAY_SIZE(qom_types);

const struct qom_type *qom_find_type(const char *name)
{
    for (unsigned i = 0; i < qom_type_count; i++)
        if (strcmp(qom_types[i].name, name) == 0)
            return &qom_types[i];
    return NULL;
}
