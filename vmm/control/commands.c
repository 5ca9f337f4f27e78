/* SPDX-License-Identifier: MIT */
/* commands: the table of QMP commands, the check of arguments, and how a call ends. */
#include "vmm/control/commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "vmm/control/qmp_types.h"

static void query_commands(struct qmp_call *call);

/* For clients that look for it in query-commands; qmp.c answers it, before and after. */
static void qmp_capabilities(struct qmp_call *call)
{
    qmp_call_return(call, NULL);
}

/* Arguments that commands share; each adds its own behind them. */
/* clang-format off */
#define JOB_ARGUMENTS                       \
    {"job-id", QMP_STRING, true},           \
    {"speed", QMP_INT, true},               \
    {"auto-finalize", QMP_BOOL, true},      \
    {"auto-dismiss", QMP_BOOL, true}
#define BACKUP_ARGUMENTS                    \
    {"device", QMP_STRING, false},          \
    {"target", QMP_STRING, false},          \
    {"sync", QMP_STRING, false},            \
    {"bitmap", QMP_STRING, true},           \
    {"bitmap-mode", QMP_STRING, true},      \
    {"compress", QMP_BOOL, true},           \
    {"on-source-error", QMP_STRING, true},  \
    {"on-target-error", QMP_STRING, true},  \
    JOB_ARGUMENTS
#define MIRROR_ARGUMENTS                    \
    {"device", QMP_STRING, false},          \
    {"target", QMP_STRING, false},          \
    {"sync", QMP_STRING, false},            \
    {"granularity", QMP_INT, true},         \
    {"buf-size", QMP_INT, true},            \
    {"on-source-error", QMP_STRING, true},  \
    {"on-target-error", QMP_STRING, true},  \
    {"unmap", QMP_BOOL, true},              \
    {"copy-mode", QMP_STRING, true},        \
    {"replaces", QMP_STRING, true},         \
    JOB_ARGUMENTS
/* clang-format on */

static const struct qmp_command table[] = {
    {"add-fd",
     "Adds a descriptor, which came with the command, to a set behind /dev/fdset/NUMBER.",
     qmp_add_fd,
     "AddfdInfo",
     {{"fdset-id", QMP_INT, true}, {"opaque", QMP_STRING, true}}},
    {"balloon",
     "Asks the guest to give memory back until it has this much; BALLOON_CHANGE tells what it "
     "does.",
     qmp_balloon,
     NULL,
     {{"value", QMP_INT, false}}},
    {"block-commit",
     "Commits images of a chain into one below them, down to the active layer.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, false},
      {"base-node", QMP_STRING, true},
      {"base", QMP_STRING, true},
      {"top-node", QMP_STRING, true},
      {"top", QMP_STRING, true},
      {"backing-file", QMP_STRING, true},
      {"on-error", QMP_STRING, true},
      JOB_ARGUMENTS}},
    {"block-dirty-bitmap-add",
     "Notes from now on what is written to a disk.",
     qmp_block,
     NULL,
     {{"node", QMP_STRING, false},
      {"name", QMP_STRING, false},
      {"granularity", QMP_INT, true},
      {"persistent", QMP_BOOL, true},
      {"disabled", QMP_BOOL, true}}},
    {"block-dirty-bitmap-clear",
     "Forgets what a bitmap has noted.",
     qmp_block,
     NULL,
     {{"node", QMP_STRING, false}, {"name", QMP_STRING, false}}},
    {"block-dirty-bitmap-disable",
     "A bitmap notes nothing for now.",
     qmp_block,
     NULL,
     {{"node", QMP_STRING, false}, {"name", QMP_STRING, false}}},
    {"block-dirty-bitmap-enable",
     "A bitmap notes writes again.",
     qmp_block,
     NULL,
     {{"node", QMP_STRING, false}, {"name", QMP_STRING, false}}},
    {"block-dirty-bitmap-merge",
     "Adds to a bitmap what others have noted.",
     qmp_block,
     NULL,
     {{"node", QMP_STRING, false}, {"target", QMP_STRING, false}, {"bitmaps", QMP_ARRAY, false}}},
    {"block-dirty-bitmap-remove",
     "Removes a bitmap, from the image too.",
     qmp_block,
     NULL,
     {{"node", QMP_STRING, false}, {"name", QMP_STRING, false}}},
    {"block-export-add",
     "Exports a disk by the NBD server.",
     qmp_block,
     NULL,
     {{"type", QMP_STRING, false},
      {"id", QMP_STRING, false},
      {"node-name", QMP_STRING, false},
      {"name", QMP_STRING, true},
      {"description", QMP_STRING, true},
      {"writable", QMP_BOOL, true},
      {"bitmaps", QMP_ARRAY, true}}},
    {"block-export-del",
     "Ends an export; BLOCK_EXPORT_DELETED tells when it has.",
     qmp_block,
     NULL,
     {{"id", QMP_STRING, false}, {"mode", QMP_STRING, true}}},
    {"block-job-cancel",
     "Ends a job; one that is ready ends well, without a pivot.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, false}, {"force", QMP_BOOL, true}}},
    {"block-job-complete",
     "Tells a job that is ready to pivot to its copy.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, false}}},
    {"block-job-dismiss", "As job-dismiss.", qmp_block, NULL, {{"id", QMP_STRING, false}}},
    {"block-job-finalize", "As job-finalize.", qmp_block, NULL, {{"id", QMP_STRING, false}}},
    {"block-job-pause", "Lets a job wait.", qmp_block, NULL, {{"device", QMP_STRING, false}}},
    {"block-job-resume", "Lets a job go on.", qmp_block, NULL, {{"device", QMP_STRING, false}}},
    {"block-job-set-speed",
     "Limits a job to so many bytes a second; 0 for no limit.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, false}, {"speed", QMP_INT, false}}},
    {"block-latency-histogram-set",
     "Counts a disk's requests by how long they take, between boundaries in nanoseconds; without "
     "any, no longer.",
     qmp_block,
     NULL,
     {{"id", QMP_STRING, false},
      {"boundaries", QMP_ARRAY, true},
      {"boundaries-read", QMP_ARRAY, true},
      {"boundaries-write", QMP_ARRAY, true},
      {"boundaries-flush", QMP_ARRAY, true}}},
    {"block-stream",
     "Copies what lies below into an image of a disk, which then stands alone or on `base`.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, false},
      {"base", QMP_STRING, true},
      {"base-node", QMP_STRING, true},
      {"bottom", QMP_STRING, true},
      {"backing-file", QMP_STRING, true},
      {"on-error", QMP_STRING, true},
      JOB_ARGUMENTS}},
    {"block_resize",
     "Makes a disk larger or smaller; the guest sees it at once.",
     qmp_block_resize,
     NULL,
     {{"device", QMP_STRING, true}, {"node-name", QMP_STRING, true}, {"size", QMP_INT, false}}},
    {"block_set_io_throttle",
     "Limits the bytes and operations a second of a disk, and of all others in its group; 0 for no "
     "limit: the disk leaves its group.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, true},
      {"id", QMP_STRING, true},
      {"bps", QMP_INT, false},
      {"bps_rd", QMP_INT, false},
      {"bps_wr", QMP_INT, false},
      {"iops", QMP_INT, false},
      {"iops_rd", QMP_INT, false},
      {"iops_wr", QMP_INT, false},
      {"iops_size", QMP_INT, true},
      {"bps_max", QMP_INT, true},
      {"bps_rd_max", QMP_INT, true},
      {"bps_wr_max", QMP_INT, true},
      {"iops_max", QMP_INT, true},
      {"iops_rd_max", QMP_INT, true},
      {"iops_wr_max", QMP_INT, true},
      {"bps_max_length", QMP_INT, true},
      {"bps_rd_max_length", QMP_INT, true},
      {"bps_wr_max_length", QMP_INT, true},
      {"iops_max_length", QMP_INT, true},
      {"iops_rd_max_length", QMP_INT, true},
      {"iops_wr_max_length", QMP_INT, true},
      {"group", QMP_STRING, true}}},
    {"blockdev-add",
     "Opens an image, for a device to use.",
     qmp_blockdev_add,
     NULL,
     {{"driver", QMP_STRING, false}, {"node-name", QMP_STRING, true}, QMP_ANY_OTHERS}},
    {"blockdev-backup",
     "Copies a disk as it is at this moment into a node.",
     qmp_block,
     NULL,
     {BACKUP_ARGUMENTS}},
    {"blockdev-create",
     "Makes a file, or a qcow2 image within a node's file, as a job; job-dismiss ends it.",
     qmp_blockdev_create,
     NULL,
     {{"job-id", QMP_STRING, false}, {"options", QMP_OBJECT, false}}},
    {"blockdev-del",
     "Closes an image of blockdev-add.",
     qmp_blockdev_del,
     NULL,
     {{"node-name", QMP_STRING, false}}},
    {"blockdev-mirror",
     "Copies a disk into a node while the guest goes on, to pivot to it.",
     qmp_block,
     NULL,
     {MIRROR_ARGUMENTS}},
    {"blockdev-reopen",
     "Changes how open images are accessed: read-only, cache.direct, cache.no-flush and discard; "
     "all of the list or none. What is left out becomes the default again.",
     qmp_blockdev_reopen,
     NULL,
     {{"options", QMP_ARRAY, false}}},
    {"blockdev-snapshot",
     "Puts a node above a disk, which takes what is written from now on.",
     qmp_block,
     NULL,
     {{"node", QMP_STRING, false}, {"overlay", QMP_STRING, false}}},
    {"blockdev-snapshot-delete-internal-sync",
     "Removes an internal snapshot.",
     qmp_block,
     "SnapshotInfo",
     {{"device", QMP_STRING, false}, {"id", QMP_STRING, true}, {"name", QMP_STRING, true}}},
    {"blockdev-snapshot-internal-sync",
     "Makes a snapshot within a disk's image.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, false}, {"name", QMP_STRING, false}}},
    {"blockdev-snapshot-sync",
     "Makes a new image above a disk's, which takes what is written from now on.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, true},
      {"node-name", QMP_STRING, true},
      {"snapshot-file", QMP_STRING, false},
      {"snapshot-node-name", QMP_STRING, true},
      {"format", QMP_STRING, true},
      {"mode", QMP_STRING, true}}},
    {"change-backing-file",
     "Writes into an image what it stands on, under another name.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, false},
      {"image-node-name", QMP_STRING, false},
      {"backing-file", QMP_STRING, false}}},
    {"chardev-add",
     "Opens a terminal, file or socket.",
     qmp_chardev_add,
     "ChardevReturn",
     {{"id", QMP_STRING, false}, {"backend", QMP_OBJECT, false}}},
    {"chardev-remove",
     "Closes a terminal, file or socket that nothing uses.",
     qmp_chardev_remove,
     NULL,
     {{"id", QMP_STRING, false}}},
    {"chardev-resize",
     "Tells a virtconsole the size of the terminal on its chardev (evisor's own).",
     qmp_chardev_resize,
     NULL,
     {{"id", QMP_STRING, false}, {"cols", QMP_INT, false}, {"rows", QMP_INT, false}}},
    {"chardev-send-break",
     "Sends a break on a line.",
     qmp_chardev_send_break,
     NULL,
     {{"id", QMP_STRING, false}}},
    {"closefd",
     "Closes a descriptor of getfd.",
     qmp_closefd,
     NULL,
     {{"fdname", QMP_STRING, false}}},
    {"cont", "Starts the guest, or goes on with it.", qmp_cont, NULL, {{0}}},
    {"device-list-properties",
     "The properties that a kind of device has.",
     qmp_device_list_properties,
     "[ObjectPropertyInfo]",
     {{"typename", QMP_STRING, false}}},
    {"device_add",
     "Plugs a device or a CPU in.",
     qmp_device_add,
     NULL,
     {{"driver", QMP_STRING, false},
      {"bus", QMP_STRING, true},
      {"id", QMP_STRING, true},
      QMP_ANY_OTHERS}},
    {"device_del",
     "Asks the guest to let a device go; DEVICE_DELETED tells when it has.",
     qmp_device_del,
     NULL,
     {{"id", QMP_STRING, false}}},
    {"drive-backup",
     "Copies a disk as it is at this moment into a file.",
     qmp_block,
     NULL,
     {BACKUP_ARGUMENTS, {"format", QMP_STRING, true}, {"mode", QMP_STRING, true}}},
    {"drive-mirror",
     "Copies a disk into a file while the guest goes on, to pivot to it.",
     qmp_block,
     NULL,
     {MIRROR_ARGUMENTS,
      {"format", QMP_STRING, true},
      {"node-name", QMP_STRING, true},
      {"mode", QMP_STRING, true}}},
    {"getfd",
     "Gives a descriptor, which came with the command, a name: for netdev_add's fd=NAME.",
     qmp_getfd,
     NULL,
     {{"fdname", QMP_STRING, false}}},
    {"guestfwd-add",
     "Leads an address of a NAT's network to a command, or to a service of the host.",
     qmp_guestfwd_add,
     NULL,
     {{"rule", QMP_STRING, false}, {"netdev", QMP_STRING, true}}},
    {"guestfwd-remove",
     "Takes such a way back.",
     qmp_guestfwd_remove,
     NULL,
     {{"rule", QMP_STRING, false}, {"netdev", QMP_STRING, true}}},
    {"hostfwd-add",
     "Forwards a port or a local socket of the host to the guest.",
     qmp_hostfwd_add,
     NULL,
     {{"rule", QMP_STRING, false}, {"netdev", QMP_STRING, true}}},
    {"hostfwd-remove",
     "Takes a forwarded port back.",
     qmp_hostfwd_remove,
     NULL,
     {{"rule", QMP_STRING, false}, {"netdev", QMP_STRING, true}}},
    {"human-monitor-command",
     "Runs a command of the human monitor and returns its text.",
     qmp_human_monitor_command,
     "str",
     {{"command-line", QMP_STRING, false}, {"cpu-index", QMP_INT, true}}},
    {"inject-nmi",
     "Presses the NMI button: the CPUs whose LAPIC the guest has told so take an NMI.",
     qmp_inject_nmi,
     NULL,
     {{0}}},
    {"job-cancel", "Ends a job at once.", qmp_block, NULL, {{"id", QMP_STRING, false}}},
    {"job-complete",
     "Tells a job that is ready to pivot to its copy.",
     qmp_block,
     NULL,
     {{"id", QMP_STRING, false}}},
    {"job-dismiss",
     "Forgets a job that has concluded.",
     qmp_block,
     NULL,
     {{"id", QMP_STRING, false}}},
    {"job-finalize",
     "Lets a job end that waits for it (auto-finalize false).",
     qmp_block,
     NULL,
     {{"id", QMP_STRING, false}}},
    {"job-pause", "Lets a job wait.", qmp_block, NULL, {{"id", QMP_STRING, false}}},
    {"job-resume", "Lets a job go on.", qmp_block, NULL, {{"id", QMP_STRING, false}}},
    {"nbd-server-add",
     "Exports a disk by the NBD server.",
     qmp_block,
     NULL,
     {{"device", QMP_STRING, false},
      {"name", QMP_STRING, true},
      {"description", QMP_STRING, true},
      {"writable", QMP_BOOL, true},
      {"bitmap", QMP_STRING, true}}},
    {"nbd-server-remove",
     "Ends an export.",
     qmp_block,
     NULL,
     {{"name", QMP_STRING, false}, {"mode", QMP_STRING, true}}},
    {"nbd-server-start",
     "Listens for NBD clients, on a unix socket or on loopback.",
     qmp_block,
     NULL,
     {{"addr", QMP_OBJECT, false},
      {"tls-creds", QMP_STRING, true},
      {"tls-authz", QMP_STRING, true},
      {"max-connections", QMP_INT, true}}},
    {"nbd-server-stop", "Ends all exports and the server.", qmp_block, NULL, {{0}}},
    {"netdev_add",
     "Opens a network, for a NIC to use.",
     qmp_netdev_add,
     NULL,
     {{"type", QMP_STRING, false}, {"id", QMP_STRING, false}, QMP_ANY_OTHERS}},
    {"netdev_del",
     "Closes a network; a NIC that uses it loses its carrier.",
     qmp_netdev_del,
     NULL,
     {{"id", QMP_STRING, false}}},
    {"nic-set-netdev",
     "Joins a NIC to another network while the guest runs.",
     qmp_nic_set_netdev,
     NULL,
     {{"id", QMP_STRING, false}, {"netdev", QMP_STRING, false}}},
    {"object-add",
     "Makes a source of random numbers, memory or an I/O thread, for a device to name.",
     qmp_object_add,
     NULL,
     {{"qom-type", QMP_STRING, false}, {"id", QMP_STRING, false}, QMP_ANY_OTHERS}},
    {"object-del",
     "Removes what object-add made.",
     qmp_object_del,
     NULL,
     {{"id", QMP_STRING, false}}},
    {"qmp_capabilities",
     "Ends the negotiation; the first command of every client.",
     qmp_capabilities,
     NULL,
     {{"enable", QMP_ARRAY, true}}},
    {"qom-get",
     "A property of an object of the machine.",
     qmp_qom_get,
     "any",
     {{"path", QMP_STRING, false}, {"property", QMP_STRING, false}}},
    {"qom-list",
     "The properties of an object, and the objects below it.",
     qmp_qom_list,
     "[ObjectPropertyInfo]",
     {{"path", QMP_STRING, false}}},
    {"qom-list-properties",
     "The properties that a type has.",
     qmp_qom_list_properties,
     "[ObjectPropertyInfo]",
     {{"typename", QMP_STRING, false}}},
    {"qom-list-types",
     "The types of objects.",
     qmp_qom_list_types,
     "[ObjectTypeInfo]",
     {{"implements", QMP_STRING, true}, {"abstract", QMP_BOOL, true}}},
    {"qom-set",
     "Sets a property: virtio-mem's requested-size, the balloon's guest-stats-polling-interval.",
     qmp_qom_set,
     NULL,
     {{"path", QMP_STRING, false}, {"property", QMP_STRING, false}, {"value", QMP_ANY, false}}},
    {"query-balloon",
     "How much memory the guest has outside the balloon.",
     qmp_query_balloon,
     "BalloonInfo",
     {{0}}},
    {"query-block", "The disks and their images.", qmp_query_block, "[BlockInfo]", {{0}}},
    {"query-block-exports", "The disks exported by NBD.", qmp_block, "[BlockExportInfo]", {{0}}},
    {"query-block-jobs", "The jobs and how far they are.", qmp_block, "[BlockJobInfo]", {{0}}},
    {"query-blockstats",
     "Counters of the disks.",
     qmp_query_blockstats,
     "[BlockStats]",
     {{"query-nodes", QMP_BOOL, true}}},
    {"query-chardev", "Terminals and sockets.", qmp_query_chardev, "[ChardevInfo]", {{0}}},
    {"query-chardev-backends",
     "The kinds of terminals and sockets.",
     qmp_query_chardev_backends,
     "[ChardevBackendInfo]",
     {{0}}},
    {"query-command-line-options",
     "The options that take parameters, and which; -device, -netdev and -object tell theirs by "
     "help.",
     qmp_query_command_line_options,
     "[CommandLineOptionInfo]",
     {{"option", QMP_STRING, true}}},
    {"query-commands", "The names of these commands.", query_commands, "[CommandInfo]", {{0}}},
    {"query-cpus-fast",
     "The CPUs and their host threads.",
     qmp_query_cpus_fast,
     "[CpuInfoFast]",
     {{0}}},
    {"query-cpu-definitions",
     "The models of -cpu, and what this host's accelerator lacks of each.",
     qmp_query_cpu_definitions,
     "[CpuDefinitionInfo]",
     {{0}}},
    {"query-current-machine",
     "What the machine can do: wake up from sleep, or not.",
     qmp_query_current_machine,
     "CurrentMachineParams",
     {{0}}},
    {"query-fdsets", "The descriptors of add-fd.", qmp_query_fdsets, "[FdsetInfo]", {{0}}},
    {"query-forwards", "The ways through the NATs.", qmp_query_forwards, "[ForwardsInfo]", {{0}}},
    {"query-hotpluggable-cpus",
     "The CPUs that are there or may be plugged in.",
     qmp_query_hotpluggable_cpus,
     "[HotpluggableCPU]",
     {{0}}},
    {"query-iothreads",
     "The threads with loops for disks and their devices.",
     qmp_query_iothreads,
     "[IOThreadInfo]",
     {{0}}},
    {"query-jobs",
     "The jobs and how far they are, in the newer shape.",
     qmp_block,
     "[JobInfo]",
     {{0}}},
    {"query-kvm", "Whether KVM runs the guest.", qmp_query_kvm, "KvmInfo", {{0}}},
    {"query-machines", "The machines of -machine.", qmp_query_machines, "[MachineInfo]", {{0}}},
    {"query-memdev", "The memory backends.", qmp_query_memdev, "[Memdev]", {{0}}},
    {"query-memory-devices",
     "Memory that grows and shrinks, and how much of it the guest has plugged.",
     qmp_query_memory_devices,
     "[MemoryDeviceInfo]",
     {{0}}},
    {"query-memory-size-summary",
     "The memory of -m, and what memory devices add to it.",
     qmp_query_memory_size_summary,
     "MemoryInfo",
     {{0}}},
    {"query-name", "The machine's name.", qmp_query_name, "NameInfo", {{0}}},
    {"query-named-block-nodes",
     "The images, each under its drive's id.",
     qmp_query_named_block_nodes,
     "[BlockDeviceInfo]",
     {{"flat", QMP_BOOL, true}}},
    {"query-nic-addresses",
     "The IP addresses that the guest uses on each NIC, as seen in its frames.",
     qmp_query_nic_addresses,
     "[NicAddressesInfo]",
     {{0}}},
    {"query-pci", "The functions on the PCI bus.", qmp_query_pci, "[PciInfo]", {{0}}},
    {"query-qmp-schema",
     "All commands and events with the types of their arguments and answers.",
     qmp_query_qmp_schema,
     "[SchemaInfo]",
     {{0}}},
    {"query-rx-filter",
     "Which frames the guest wants on each NIC, or on that of the name.",
     qmp_query_rx_filter,
     "[RxFilterInfo]",
     {{"name", QMP_STRING, true}}},
    {"query-stats",
     "evisor's own counters: exits by kind, queues, loop.",
     qmp_query_stats,
     "[StatsResult]",
     {{"target", QMP_STRING, true}, {"providers", QMP_ARRAY, true}}},
    {"query-stats-schemas",
     "Which counters query-stats has.",
     qmp_query_stats_schemas,
     "[StatsSchema]",
     {{"provider", QMP_STRING, true}}},
    {"query-status", "Whether the guest runs.", qmp_query_status, "StatusInfo", {{0}}},
    {"query-target", "The guest's architecture.", qmp_query_target, "TargetInfo", {{0}}},
    {"query-uuid", "The machine's UUID.", qmp_query_uuid, "UuidInfo", {{0}}},
    {"query-version",
     "The level of QEMU's protocol, and evisor's version.",
     qmp_query_version,
     "VersionInfo",
     {{0}}},
    {"quit", "Ends the machine at once.", qmp_quit, NULL, {{0}}},
    {"remove-fd",
     "Closes a descriptor of add-fd, or a whole set; what was opened from it stays open.",
     qmp_remove_fd,
     NULL,
     {{"fdset-id", QMP_INT, false}, {"fd", QMP_INT, true}}},
    {"ringbuf-read",
     "Takes output out of a ring buffer.",
     qmp_ringbuf_read,
     "str",
     {{"device", QMP_STRING, false}, {"size", QMP_INT, false}, {"format", QMP_STRING, true}}},
    {"ringbuf-write",
     "Puts bytes into a ring buffer.",
     qmp_ringbuf_write,
     NULL,
     {{"device", QMP_STRING, false}, {"data", QMP_STRING, false}, {"format", QMP_STRING, true}}},
    {"set-action",
     "What a reset and a power-off of the guest's do from now on, as -action.",
     qmp_set_action,
     NULL,
     {{"reboot", QMP_STRING, true}, {"shutdown", QMP_STRING, true}, {"panic", QMP_STRING, true}}},
    {"set_link",
     "Plugs the cable of a NIC in or out.",
     qmp_set_link,
     NULL,
     {{"name", QMP_STRING, false}, {"up", QMP_BOOL, false}}},
    {"stop", "Stops the guest.", qmp_stop, NULL, {{0}}},
    {"system_powerdown", "Presses the power button.", qmp_system_powerdown, NULL, {{0}}},
    {"system_reset", "Resets the machine.", qmp_system_reset, NULL, {{0}}},
    {"system_wakeup",
     "Wakes a sleeping guest; guests here do not sleep.",
     qmp_system_wakeup,
     NULL,
     {{0}}},
    {"transaction",
     "Does several of: snapshots, backups, changes of bitmaps; at one moment, and all or none.",
     qmp_transaction,
     NULL,
     {{"actions", QMP_ARRAY, false}, {"properties", QMP_OBJECT, true}}},
};

const struct qmp_command *commands_table(unsigned *count)
{
    *count = ARRAY_SIZE(table);
    return table;
}

const struct qmp_command *commands_find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

const char *commands_suggest(const char *name)
{
    struct suggest suggest;
    suggest_init(&suggest, name);
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        suggest_offer(&suggest, table[i].name);
    return suggest.best;
}

static const struct {
    const char *name;
    json_type type;
} types[] = {
    [QMP_STRING] = {"string", JSON_STRING}, [QMP_INT] = {"integer", JSON_INTEGER},
    [QMP_BOOL] = {"boolean", JSON_TRUE},    [QMP_OBJECT] = {"object", JSON_OBJECT},
    [QMP_ARRAY] = {"array", JSON_ARRAY},    [QMP_ANY] = {"value", JSON_NULL},
};

static bool has_type(const json_t *value, enum qmp_type type)
{
    if (type == QMP_ANY)
        return true;
    return type == QMP_BOOL ? json_is_boolean(value) : json_typeof(value) == types[type].type;
}

static const struct qmp_argument *find_argument(const struct qmp_command *command, const char *name)
{
    for (const struct qmp_argument *argument = command->arguments; argument->name; argument++)
        if (strcmp(argument->name, name) == 0)
            return argument;
    return NULL;
}

char *commands_check(const struct qmp_command *command, json_t *arguments, const char *where)
{
    char *text = NULL;
    for (const struct qmp_argument *argument = command->arguments; argument->name; argument++) {
        const json_t *value = json_object_get(arguments, argument->name);
        if (!value && !argument->is_optional)
            CHECK(asprintf(&text, "Parameter '%s%s' is missing", where, argument->name) > 0);
        else if (value && !has_type(value, argument->type))
            CHECK(asprintf(&text, "Invalid parameter type for '%s%s', expected: %s", where,
                           argument->name, types[argument->type].name) > 0);
        else if (json_is_string(value) &&
                 qmp_enum_refuses(qmp_argument_type(command->name, argument->name),
                                  json_string_value(value)))
            CHECK(asprintf(&text, "Parameter '%s' does not accept value '%.64s'", argument->name,
                           json_string_value(value)) > 0);
        if (text)
            return text;
    }
    const char *key;
    json_t *value;
    json_object_foreach(arguments, key, value)
    {
        if (find_argument(command, key) || find_argument(command, "*"))
            continue;
        CHECK(asprintf(&text, "Parameter '%s%.64s' is unexpected", where, key) > 0);
        break;
    }
    return text;
}

char *commands_check_entry(const struct qmp_command *command, json_t *entry, const char *list,
                           size_t index)
{
    char where[48], *text = NULL;
    snprintf(where, sizeof(where), "%s[%zu].", list, index);
    if (json_is_object(entry))
        return commands_check(command, entry, where);
    CHECK(asprintf(&text, "Invalid parameter type for '%s[%zu]', expected: object", list, index) >
          0);
    return text;
}

/* Sends { member: value, id } and frees the call; takes `value` over. */
static void finish(struct qmp_call *call, const char *member, json_t *value)
{
    list_remove(&call->node);
    if (call->on_done)
        call->on_done(call->opaque, strcmp(member, "return") == 0 ? value : NULL,
                      strcmp(member, "error") == 0
                          ? json_string_value(json_object_get(value, "desc"))
                          : NULL);
    if (call->client) {
        json_t *reply = json_object();
        json_object_set(reply, member, value);
        if (call->id)
            json_object_set(reply, "id", call->id);
        qmp_send_reply(call->client, reply);
    }
    /* Sending may have dropped the client: then it has left the call. */
    if (call->client)
        qmp_call_finished(call->client);
    json_decref(value);
    json_decref(call->arguments);
    json_decref(call->id);
    free(call);
}

void qmp_call_return(struct qmp_call *call, json_t *value)
{
    finish(call, "return", value ? value : json_object());
}

void qmp_call_fail(struct qmp_call *call, const char *class, const char *format, ...)
{
    va_list args;
    char *text;
    va_start(args, format);
    CHECK(vasprintf(&text, format, args) >= 0);
    va_end(args);
    json_t *desc = json_string(text);
    free(text);
    finish(call, "error",
           json_pack("{s:s,s:o}", "class", class, "desc",
                     desc ? desc : json_string("the text of the error is not UTF-8")));
}

void qmp_call_done(void *opaque, int result, const struct error *err)
{
    struct qmp_call *call = opaque;
    if (!result)
        qmp_call_return(call, NULL);
    else
        qmp_call_fail(call, QMP_GENERIC, "%s", err && *err->text ? err->text : strerror(-result));
}

void commands_run(struct control *control, const char *name, json_t *arguments,
                  commands_done_fn *on_done, void *opaque)
{
    const struct qmp_command *command = commands_find(name);
    CHECK(command);
    char *text = commands_check(command, arguments, "");
    if (text) {
        on_done(opaque, NULL, text);
        free(text);
        return;
    }
    struct qmp_call *call = calloc(1, sizeof(*call));
    CHECK(call);
    *call = (struct qmp_call){.control = control,
                              .command = command,
                              .arguments = json_incref(arguments),
                              .on_done = on_done,
                              .opaque = opaque};
    list_init(&call->node);
    commands_start(call);
}

void commands_start(struct qmp_call *call)
{
    machine_take_io_threads(call->control->machine);
    call->command->run(call);
}

void commands_answer_quits(struct control *control)
{
    while (!list_is_empty(&control->quits)) {
        struct list *node = list_pop_front(&control->quits);
        qmp_call_return(list_entry(node, struct qmp_call, node), NULL);
    }
}

static void query_commands(struct qmp_call *call)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        json_array_append_new(list, json_pack("{s:s}", "name", table[i].name));
    qmp_call_return(call, list);
}
