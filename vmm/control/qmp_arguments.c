/* SPDX-License-Identifier: MIT */
/*
 * qmp_arguments: the types of commands' arguments that are more than a text, a number or a bool:
 * enums, objects, lists and alternates. The table of commands has the rest.
 */
#include <string.h>

#include "base/check.h"
#include "vmm/control/qmp_types.h"

const struct qmp_object_type qmp_argument_objects[] = {
    {.name = "AbortWrapper", .members = QMP_MEMBERS({"data", "0", false})},
    {.name = "BlockDirtyBitmap",
     .members = QMP_MEMBERS({"node", "str", false}, {"name", "str", false})},
    {.name = "BlockExportOptions",
     .members = QMP_MEMBERS({"type", "BlockExportType", false}, {"id", "str", false},
                            {"node-name", "str", false}, {"writable", "bool", true}),
     .tag = "type",
     .variants = QMP_VARIANTS({"nbd", "BlockExportOptionsNbd"})},
    {.name = "BlockExportOptionsNbd",
     .members = QMP_MEMBERS({"name", "str", true}, {"description", "str", true},
                            {"bitmaps", "[BlockDirtyBitmapOrStr]", true})},
    {.name = "BlockdevCacheOptions",
     .members = QMP_MEMBERS({"direct", "bool", true}, {"no-flush", "bool", true})},
    {.name = "BlockdevCreateOptions",
     .members = QMP_MEMBERS({"driver", "BlockdevCreateDriver", false}),
     .tag = "driver",
     .variants = QMP_VARIANTS({"file", "BlockdevCreateOptionsFile"},
                              {"qcow2", "BlockdevCreateOptionsQcow2"})},
    {.name = "BlockdevCreateOptionsFile",
     .members = QMP_MEMBERS({"filename", "str", false}, {"size", "int", false},
                            {"preallocation", "PreallocMode", true}, {"nocow", "bool", true})},
    {.name = "BlockdevCreateOptionsQcow2",
     .members = QMP_MEMBERS({"file", "BlockdevRef", false}, {"size", "int", false},
                            {"version", "BlockdevQcow2Version", true},
                            {"backing-file", "str", true}, {"backing-fmt", "BlockdevDriver", true},
                            {"cluster-size", "int", true}, {"preallocation", "PreallocMode", true},
                            {"lazy-refcounts", "bool", true}, {"refcount-bits", "int", true},
                            {"compression-type", "Qcow2CompressionType", true},
                            {"extended-l2", "bool", true})},
    {.name = "BlockdevOptions",
     .members = QMP_MEMBERS({"driver", "BlockdevDriver", false}, {"node-name", "str", true},
                            {"discard", "BlockdevDiscardOptions", true},
                            {"cache", "BlockdevCacheOptions", true}, {"read-only", "bool", true},
                            {"auto-read-only", "bool", true}, {"force-share", "bool", true},
                            {"detect-zeroes", "BlockdevDetectZeroesOptions", true}),
     .tag = "driver",
     .variants = QMP_VARIANTS(
         {"file", "BlockdevOptionsFile"}, {"host_device", "BlockdevOptionsFile"},
         {"qcow2", "BlockdevOptionsQcow2"}, {"raw", "BlockdevOptionsGenericFormat"},
         {"vdi", "BlockdevOptionsGenericFormat"}, {"vhdx", "BlockdevOptionsGenericFormat"},
         {"vmdk", "BlockdevOptionsGenericFormat"}, {"vpc", "BlockdevOptionsGenericFormat"})},
    {.name = "BlockdevOptionsFile",
     .members = QMP_MEMBERS({"filename", "str", false}, {"locking", "OnOffAuto", true},
                            {"aio", "BlockdevAioOptions", true})},
    {.name = "BlockdevOptionsGenericFormat",
     .members = QMP_MEMBERS({"file", "BlockdevRef", false})},
    {.name = "BlockdevOptionsQcow2",
     .members =
         QMP_MEMBERS({"file", "BlockdevRef", false}, {"backing", "BlockdevRefOrNull", true},
                     {"lazy-refcounts", "bool", true}, {"pass-discard-request", "bool", true},
                     {"pass-discard-snapshot", "bool", true}, {"pass-discard-other", "bool", true},
                     {"cache-size", "int", true}, {"l2-cache-size", "int", true},
                     {"l2-cache-entry-size", "int", true}, {"refcount-cache-size", "int", true},
                     {"cache-clean-interval", "int", true})},
    {.name = "ChardevBackend",
     .members = QMP_MEMBERS({"type", "ChardevBackendKind", false}),
     .tag = "type",
     .variants =
         QMP_VARIANTS({"file", "ChardevFileWrapper"}, {"memory", "ChardevRingbufWrapper"},
                      {"null", "ChardevCommonWrapper"}, {"pipe", "ChardevHostdevWrapper"},
                      {"pty", "ChardevCommonWrapper"}, {"ringbuf", "ChardevRingbufWrapper"},
                      {"socket", "ChardevSocketWrapper"}, {"stdio", "ChardevStdioWrapper"})},
    {.name = "ChardevCommon",
     .members = QMP_MEMBERS({"logfile", "str", true}, {"logappend", "bool", true})},
    {.name = "ChardevCommonWrapper", .members = QMP_MEMBERS({"data", "ChardevCommon", false})},
    {.name = "ChardevFile",
     .members = QMP_MEMBERS({"logfile", "str", true}, {"logappend", "bool", true},
                            {"out", "str", false}, {"append", "bool", true})},
    {.name = "ChardevFileWrapper", .members = QMP_MEMBERS({"data", "ChardevFile", false})},
    {.name = "ChardevHostdev",
     .members = QMP_MEMBERS({"logfile", "str", true}, {"logappend", "bool", true},
                            {"device", "str", false})},
    {.name = "ChardevHostdevWrapper", .members = QMP_MEMBERS({"data", "ChardevHostdev", false})},
    {.name = "ChardevRingbuf",
     .members =
         QMP_MEMBERS({"logfile", "str", true}, {"logappend", "bool", true}, {"size", "int", true})},
    {.name = "ChardevRingbufWrapper", .members = QMP_MEMBERS({"data", "ChardevRingbuf", false})},
    {.name = "ChardevSocket",
     .members = QMP_MEMBERS({"logfile", "str", true}, {"logappend", "bool", true},
                            {"addr", "SocketAddressLegacy", false}, {"server", "bool", true},
                            {"wait", "bool", true}, {"nodelay", "bool", true},
                            {"telnet", "bool", true}, {"reconnect", "int", true})},
    {.name = "ChardevSocketWrapper", .members = QMP_MEMBERS({"data", "ChardevSocket", false})},
    {.name = "ChardevStdio",
     .members = QMP_MEMBERS({"logfile", "str", true}, {"logappend", "bool", true},
                            {"signal", "bool", true})},
    {.name = "ChardevStdioWrapper", .members = QMP_MEMBERS({"data", "ChardevStdio", false})},
    {.name = "InetSocketAddress",
     .members = QMP_MEMBERS({"host", "str", false}, {"port", "str", false})},
    {.name = "InetSocketAddressWrapper",
     .members = QMP_MEMBERS({"data", "InetSocketAddress", false})},
    {.name = "IothreadProperties",
     .members = QMP_MEMBERS({"poll-max-ns", "int", true}, {"poll-grow", "int", true},
                            {"poll-shrink", "int", true}, {"aio-max-batch", "int", true},
                            {"thread-pool-min", "int", true}, {"thread-pool-max", "int", true})},
    {.name = "MemoryBackendFileProperties",
     .members =
         QMP_MEMBERS({"size", "int", false}, {"mem-path", "str", false}, {"share", "bool", true},
                     {"merge", "bool", true}, {"dump", "bool", true}, {"reserve", "bool", true},
                     {"prealloc", "bool", true})},
    {.name = "MemoryBackendMemfdProperties",
     .members =
         QMP_MEMBERS({"size", "int", false}, {"share", "bool", true}, {"merge", "bool", true},
                     {"dump", "bool", true}, {"reserve", "bool", true}, {"prealloc", "bool", true},
                     {"seal", "bool", true})},
    {.name = "MemoryBackendProperties",
     .members = QMP_MEMBERS({"size", "int", false}, {"share", "bool", true},
                            {"merge", "bool", true}, {"dump", "bool", true},
                            {"reserve", "bool", true}, {"prealloc", "bool", true})},
    {.name = "Netdev",
     .members = QMP_MEMBERS({"id", "str", false}, {"type", "NetClientDriver", false}),
     .tag = "type",
     .variants = QMP_VARIANTS({"bridge", "NetdevBridgeOptions"}, {"dgram", "NetdevDgramOptions"},
                              {"hostonly", "NetdevHostOnlyOptions"},
                              {"internal", "NetdevInternalOptions"}, {"nat", "NetdevNatOptions"},
                              {"socket", "NetdevSocketOptions"}, {"stream", "NetdevStreamOptions"},
                              {"tap", "NetdevTapOptions"}, {"user", "NetdevUserOptions"})},
    {.name = "NetdevBridgeOptions",
     .members = QMP_MEMBERS({"br", "str", true}, {"helper", "str", true})},
    {.name = "NetdevDgramOptions",
     .members = QMP_MEMBERS({"local", "SocketAddress", true}, {"remote", "SocketAddress", true})},
#define NETDEV_ENGINE                                                                              \
    {"net", "str", true}, {"host", "str", true}, {"dns", "str", true}, {"dhcpstart", "str", true}, \
        {"hostname", "str", true}, {"tftp", "str", true}, {"bootfile", "str", true},               \
        {"ipv4", "bool", true}, {"ipv6", "bool", true}, {"ipv6-prefix", "str", true},              \
        {"ipv6-prefixlen", "int", true}, {"tftp-server-name", "str", true},                        \
    {                                                                                              \
        "hostfwd", "[String]", true                                                                \
    }
#define NETDEV_NAT                                                                                 \
    NETDEV_ENGINE, {"dnssearch", "[String]", true}, {"domainname", "str", true},                   \
        {"restrict", "bool", true},                                                                \
    {                                                                                              \
        "guestfwd", "[String]", true                                                               \
    }
    {.name = "NetdevHostOnlyOptions",
     .members = QMP_MEMBERS(NETDEV_ENGINE, {"folder", "str", true})},
    {.name = "NetdevInternalOptions", .members = QMP_MEMBERS({"folder", "str", true})},
    {.name = "NetdevNatOptions", .members = QMP_MEMBERS(NETDEV_NAT, {"folder", "str", true})},
    {.name = "NetdevSocketOptions",
     .members =
         QMP_MEMBERS({"listen", "str", true}, {"connect", "str", true}, {"mcast", "str", true},
                     {"localaddr", "str", true}, {"udp", "str", true})},
    {.name = "NetdevStreamOptions",
     .members = QMP_MEMBERS({"addr", "SocketAddress", false}, {"server", "bool", true})},
    {.name = "NetdevTapOptions",
     .members =
         QMP_MEMBERS({"ifname", "str", true}, {"fd", "str", true}, {"script", "str", true},
                     {"downscript", "str", true}, {"br", "str", true}, {"helper", "str", true},
                     {"sndbuf", "int", true}, {"vnet_hdr", "bool", true}, {"vhost", "bool", true},
                     {"vhostforce", "bool", true}, {"queues", "int", true})},
    {.name = "NetdevUserOptions",
     .members = QMP_MEMBERS(NETDEV_NAT, {"ipv6-host", "str", true}, {"ipv6-dns", "str", true})},
    {.name = "ObjectOptions",
     .members = QMP_MEMBERS({"qom-type", "ObjectType", false}, {"id", "str", false}),
     .tag = "qom-type",
     .variants = QMP_VARIANTS(
         {"iothread", "IothreadProperties"}, {"memory-backend-file", "MemoryBackendFileProperties"},
         {"memory-backend-memfd", "MemoryBackendMemfdProperties"},
         {"memory-backend-ram", "MemoryBackendProperties"}, {"rng-builtin", "0"},
         {"rng-random", "RngRandomProperties"}, {"throttle-group", "ThrottleGroupProperties"})},
    {.name = "RngRandomProperties", .members = QMP_MEMBERS({"filename", "str", true})},
    {.name = "SocketAddress",
     .members = QMP_MEMBERS({"type", "SocketAddressType", false}),
     .tag = "type",
     .variants = QMP_VARIANTS({"inet", "InetSocketAddress"}, {"unix", "UnixSocketAddress"})},
    {.name = "SocketAddressLegacy",
     .members = QMP_MEMBERS({"type", "SocketAddressType", false}),
     .tag = "type",
     .variants =
         QMP_VARIANTS({"inet", "InetSocketAddressWrapper"}, {"unix", "UnixSocketAddressWrapper"})},
    {.name = "StatsRequest", .members = QMP_MEMBERS({"provider", "StatsProvider", false})},
    {.name = "String", .members = QMP_MEMBERS({"str", "str", false})},
#define LIMIT(name)                                                                                \
    {name, "int", true}, {name "-max", "int", true},                                               \
    {                                                                                              \
        name "-max-length", "int", true                                                            \
    }
#define LIMITS(prefix)                                                                             \
    LIMIT(prefix "iops-total"), LIMIT(prefix "iops-read"), LIMIT(prefix "iops-write"),             \
        LIMIT(prefix "bps-total"), LIMIT(prefix "bps-read"), LIMIT(prefix "bps-write"),            \
    {                                                                                              \
        prefix "iops-size", "int", true                                                            \
    }
    {.name = "ThrottleGroupProperties",
     .members = QMP_MEMBERS({"limits", "ThrottleLimits", true}, LIMITS("x-"))},
    {.name = "ThrottleLimits", .members = QMP_MEMBERS(LIMITS(""))},
    {.name = "TransactionAction",
     .members = QMP_MEMBERS({"type", "TransactionActionKind", false}),
     .tag = "type",
     .variants = QMP_VARIANTS(
         {"abort", "AbortWrapper"}, {"block-dirty-bitmap-add", "BlockDirtyBitmapAddWrapper"},
         {"block-dirty-bitmap-clear", "BlockDirtyBitmapWrapper"},
         {"block-dirty-bitmap-disable", "BlockDirtyBitmapWrapper"},
         {"block-dirty-bitmap-enable", "BlockDirtyBitmapWrapper"},
         {"block-dirty-bitmap-merge", "BlockDirtyBitmapMergeWrapper"},
         {"block-dirty-bitmap-remove", "BlockDirtyBitmapWrapper"},
         {"blockdev-backup", "BlockdevBackupWrapper"},
         {"blockdev-snapshot", "BlockdevSnapshotWrapper"},
         {"blockdev-snapshot-internal-sync", "BlockdevSnapshotInternalWrapper"},
         {"blockdev-snapshot-sync", "BlockdevSnapshotSyncWrapper"},
         {"drive-backup", "DriveBackupWrapper"})},
    {.name = "BlockDirtyBitmapAddWrapper",
     .members = QMP_MEMBERS({"data", "block-dirty-bitmap-add-arg", false})},
    {.name = "BlockDirtyBitmapMergeWrapper",
     .members = QMP_MEMBERS({"data", "block-dirty-bitmap-merge-arg", false})},
    {.name = "BlockDirtyBitmapWrapper",
     .members = QMP_MEMBERS({"data", "BlockDirtyBitmap", false})},
    {.name = "BlockdevBackupWrapper",
     .members = QMP_MEMBERS({"data", "blockdev-backup-arg", false})},
    {.name = "BlockdevSnapshotInternalWrapper",
     .members = QMP_MEMBERS({"data", "blockdev-snapshot-internal-sync-arg", false})},
    {.name = "BlockdevSnapshotSyncWrapper",
     .members = QMP_MEMBERS({"data", "blockdev-snapshot-sync-arg", false})},
    {.name = "BlockdevSnapshotWrapper",
     .members = QMP_MEMBERS({"data", "blockdev-snapshot-arg", false})},
    {.name = "DriveBackupWrapper", .members = QMP_MEMBERS({"data", "drive-backup-arg", false})},
    {.name = "TransactionProperties",
     .members = QMP_MEMBERS({"completion-mode", "ActionCompletionMode", true})},
    {.name = "UnixSocketAddress", .members = QMP_MEMBERS({"path", "str", false})},
    {.name = "UnixSocketAddressWrapper",
     .members = QMP_MEMBERS({"data", "UnixSocketAddress", false})},
};
const size_t qmp_argument_object_count = ARRAY_SIZE(qmp_argument_objects);

const struct qmp_alternate_type qmp_alternate_types[] = {
    {"BlockDirtyBitmapOrStr", {"str", "BlockDirtyBitmap"}},
    {"BlockdevRef", {"BlockdevOptions", "str"}},
    {"BlockdevRefOrNull", {"BlockdevOptions", "str", "null"}},
};
const size_t qmp_alternate_type_count = ARRAY_SIZE(qmp_alternate_types);

/* Without a command: of all that have an argument of the name, and no line of their own. */
static const struct {
    const char *command, *argument, *type;
} arguments[] = {
    {"block-export-add", "type", "BlockExportType"},
    {"block-export-del", "mode", "BlockExportRemoveMode"},
    {"blockdev-create", "options", "BlockdevCreateOptions"},
    {"blockdev-reopen", "options", "[BlockdevOptions]"},
    {"chardev-add", "backend", "ChardevBackend"},
    {"nbd-server-remove", "mode", "BlockExportRemoveMode"},
    {"ringbuf-read", "format", "DataFormat"},
    {"ringbuf-write", "format", "DataFormat"},
    {NULL, "actions", "[TransactionAction]"},
    {NULL, "addr", "SocketAddressLegacy"},
    {NULL, "bitmap-mode", "BitmapSyncMode"},
    {NULL, "bitmaps", "[BlockDirtyBitmapOrStr]"},
    {NULL, "boundaries", "[int]"},
    {NULL, "boundaries-flush", "[int]"},
    {NULL, "boundaries-read", "[int]"},
    {NULL, "boundaries-write", "[int]"},
    {NULL, "copy-mode", "MirrorCopyMode"},
    {NULL, "enable", "[QMPCapability]"},
    {NULL, "mode", "NewImageMode"},
    {NULL, "on-error", "BlockdevOnError"},
    {NULL, "on-source-error", "BlockdevOnError"},
    {NULL, "on-target-error", "BlockdevOnError"},
    {NULL, "properties", "TransactionProperties"},
    {NULL, "provider", "StatsProvider"},
    {NULL, "providers", "[StatsRequest]"},
    {"query-stats", "target", "StatsTarget"},
    {"set-action", "panic", "PanicAction"},
    {"set-action", "reboot", "RebootAction"},
    {"set-action", "shutdown", "ShutdownAction"},
    {NULL, "sync", "MirrorSyncMode"},
};

const char *qmp_argument_type(const char *command, const char *argument)
{
    for (size_t i = 0; i < ARRAY_SIZE(arguments); i++)
        if (strcmp(arguments[i].argument, argument) == 0 &&
            (!arguments[i].command || strcmp(arguments[i].command, command) == 0))
            return arguments[i].type;
    return NULL;
}

const char *qmp_arguments_type(const char *command)
{
    static const char *const whole[][2] = {{"block-export-add", "BlockExportOptions"},
                                           {"blockdev-add", "BlockdevOptions"},
                                           {"netdev_add", "Netdev"},
                                           {"object-add", "ObjectOptions"}};
    for (size_t i = 0; i < ARRAY_SIZE(whole); i++)
        if (strcmp(whole[i][0], command) == 0)
            return whole[i][1];
    return NULL;
}

bool qmp_enum_refuses(const char *type, const char *word)
{
    for (size_t i = 0; type && i < qmp_enum_type_count; i++) {
        if (strcmp(qmp_enum_types[i].name, type) != 0)
            continue;
        const char *value;
        for (unsigned k = 0; (value = qmp_enum_types[i].value(k)); k++)
            if (strcmp(value, word) == 0)
                return false;
        return true;
    }
    return false;
}
