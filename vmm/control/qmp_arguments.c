/* SPDX-License-Identifier: MIT */
/*
 * qmp_arguments: the types of commands' arguments that are more than a text, a number or a bool:
 * enums, objects, lists and alternates. The table of commands has the rest.
 */
#include <string.h>

#include "base/check.h"
#include "vmm/control/qmp_types.h"

const struct qmp_object_type qmp_argument_objects[] = {
    {.name = "AbortWrapper", .members = {{"data", "0", false}}},
    {.name = "BlockDirtyBitmap", .members = {{"node", "str", false}, {"name", "str", false}}},
    {.name = "BlockExportOptions",
     .members = {{"type", "BlockExportType", false},
                 {"id", "str", false},
                 {"node-name", "str", false},
                 {"writable", "bool", true}},
     .tag = "type",
     .variants = {{"nbd", "BlockExportOptionsNbd"}}},
    {.name = "BlockExportOptionsNbd",
     .members = {{"name", "str", true},
                 {"description", "str", true},
                 {"bitmaps", "[BlockDirtyBitmapOrStr]", true}}},
    {.name = "BlockdevCacheOptions",
     .members = {{"direct", "bool", true}, {"no-flush", "bool", true}}},
    {.name = "BlockdevCreateOptions",
     .members = {{"driver", "BlockdevCreateDriver", false}},
     .tag = "driver",
     .variants = {{"file", "BlockdevCreateOptionsFile"}, {"qcow2", "BlockdevCreateOptionsQcow2"}}},
    {.name = "BlockdevCreateOptionsFile",
     .members = {{"filename", "str", false},
                 {"size", "int", false},
                 {"preallocation", "PreallocMode", true},
                 {"nocow", "bool", true}}},
    {.name = "BlockdevCreateOptionsQcow2",
     .members = {{"file", "BlockdevRef", false},
                 {"size", "int", false},
                 {"version", "BlockdevQcow2Version", true},
                 {"backing-file", "str", true},
                 {"backing-fmt", "BlockdevDriver", true},
                 {"cluster-size", "int", true},
                 {"preallocation", "PreallocMode", true},
                 {"lazy-refcounts", "bool", true},
                 {"refcount-bits", "int", true},
                 {"compression-type", "Qcow2CompressionType", true},
                 {"extended-l2", "bool", true}}},
    {.name = "BlockdevOptions",
     .members = {{"driver", "BlockdevDriver", false},
                 {"node-name", "str", true},
                 {"discard", "BlockdevDiscardOptions", true},
                 {"cache", "BlockdevCacheOptions", true},
                 {"read-only", "bool", true},
                 {"auto-read-only", "bool", true},
                 {"force-share", "bool", true},
                 {"detect-zeroes", "BlockdevDetectZeroesOptions", true}},
     .tag = "driver",
     .variants = {{"file", "BlockdevOptionsFile"},
                  {"host_device", "BlockdevOptionsFile"},
                  {"qcow2", "BlockdevOptionsQcow2"},
                  {"raw", "BlockdevOptionsGenericFormat"},
                  {"vdi", "BlockdevOptionsGenericFormat"},
                  {"vhdx", "BlockdevOptionsGenericFormat"},
                  {"vmdk", "BlockdevOptionsGenericFormat"},
                  {"vpc", "BlockdevOptionsGenericFormat"}}},
    {.name = "BlockdevOptionsFile",
     .members = {{"filename", "str", false},
                 {"locking", "OnOffAuto", true},
                 {"aio", "BlockdevAioOptions", true}}},
    {.name = "BlockdevOptionsGenericFormat", .members = {{"file", "BlockdevRef", false}}},
    {.name = "BlockdevOptionsQcow2",
     .members = {{"file", "BlockdevRef", false},
                 {"backing", "BlockdevRefOrNull", true},
                 {"lazy-refcounts", "bool", true},
                 {"pass-discard-request", "bool", true},
                 {"pass-discard-snapshot", "bool", true},
                 {"pass-discard-other", "bool", true},
                 {"cache-size", "int", true},
                 {"l2-cache-size", "int", true},
                 {"l2-cache-entry-size", "int", true},
                 {"refcount-cache-size", "int", true},
                 {"cache-clean-interval", "int", true}}},
    {.name = "ChardevBackend",
     .members = {{"type", "ChardevBackendKind", false}},
     .tag = "type",
     .variants = {{"file", "ChardevFileWrapper"},
                  {"memory", "ChardevRingbufWrapper"},
                  {"null", "ChardevCommonWrapper"},
                  {"pipe", "ChardevHostdevWrapper"},
                  {"pty", "ChardevCommonWrapper"},
                  {"ringbuf", "ChardevRingbufWrapper"},
                  {"socket", "ChardevSocketWrapper"},
                  {"stdio", "ChardevStdioWrapper"}}},
    {.name = "ChardevCommon", .members = {{"logfile", "str", true}, {"logappend", "bool", true}}},
    {.name = "ChardevCommonWrapper", .members = {{"data", "ChardevCommon", false}}},
    {.name = "ChardevFile",
     .members = {{"logfile", "str", true},
                 {"logappend", "bool", true},
                 {"out", "str", false},
                 {"append", "bool", true}}},
    {.name = "ChardevFileWrapper", .members = {{"data", "ChardevFile", false}}},
    {.name = "ChardevHostdev",
     .members = {{"logfile", "str", true}, {"logappend", "bool", true}, {"device", "str", false}}},
    {.name = "ChardevHostdevWrapper", .members = {{"data", "ChardevHostdev", false}}},
    {.name = "ChardevRingbuf",
     .members = {{"logfile", "str", true}, {"logappend", "bool", true}, {"size", "int", true}}},
    {.name = "ChardevRingbufWrapper", .members = {{"data", "ChardevRingbuf", false}}},
    {.name = "ChardevSocket",
     .members = {{"logfile", "str", true},
                 {"logappend", "bool", true},
                 {"addr", "SocketAddressLegacy", false},
                 {"server", "bool", true},
                 {"wait", "bool", true},
                 {"nodelay", "bool", true},
                 {"telnet", "bool", true},
                 {"reconnect", "int", true}}},
    {.name = "ChardevSocketWrapper", .members = {{"data", "ChardevSocket", false}}},
    {.name = "ChardevStdio",
     .members = {{"logfile", "str", true}, {"logappend", "bool", true}, {"signal", "bool", true}}},
    {.name = "ChardevStdioWrapper", .members = {{"data", "ChardevStdio", false}}},
    {.name = "InetSocketAddress", .members = {{"host", "str", false}, {"port", "str", false}}},
    {.name = "InetSocketAddressWrapper", .members = {{"data", "InetSocketAddress", false}}},
    {.name = "IothreadProperties",
     .members = {{"poll-max-ns", "int", true},
                 {"poll-grow", "int", true},
                 {"poll-shrink", "int", true},
                 {"aio-max-batch", "int", true},
                 {"thread-pool-min", "int", true},
                 {"thread-pool-max", "int", true}}},
    {.name = "MemoryBackendFileProperties",
     .members = {{"size", "int", false},
                 {"mem-path", "str", false},
                 {"share", "bool", true},
                 {"merge", "bool", true},
                 {"dump", "bool", true},
                 {"reserve", "bool", true},
                 {"prealloc", "bool", true}}},
    {.name = "MemoryBackendProperties",
     .members = {{"size", "int", false},
                 {"share", "bool", true},
                 {"merge", "bool", true},
                 {"dump", "bool", true},
                 {"reserve", "bool", true},
                 {"prealloc", "bool", true}}},
    {.name = "Netdev",
     .members = {{"id", "str", false}, {"type", "NetClientDriver", false}},
     .tag = "type",
     .variants = {{"bridge", "NetdevBridgeOptions"},
                  {"dgram", "NetdevDgramOptions"},
                  {"hostonly", "NetdevHostOnlyOptions"},
                  {"internal", "NetdevInternalOptions"},
                  {"nat", "NetdevNatOptions"},
                  {"socket", "NetdevSocketOptions"},
                  {"stream", "NetdevStreamOptions"},
                  {"tap", "NetdevTapOptions"},
                  {"user", "NetdevUserOptions"}}},
    {.name = "NetdevBridgeOptions", .members = {{"br", "str", true}, {"helper", "str", true}}},
    {.name = "NetdevDgramOptions",
     .members = {{"local", "SocketAddress", true}, {"remote", "SocketAddress", true}}},
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
    {.name = "NetdevHostOnlyOptions", .members = {NETDEV_ENGINE, {"folder", "str", true}}},
    {.name = "NetdevInternalOptions", .members = {{"folder", "str", true}}},
    {.name = "NetdevNatOptions", .members = {NETDEV_NAT, {"folder", "str", true}}},
    {.name = "NetdevSocketOptions",
     .members = {{"listen", "str", true},
                 {"connect", "str", true},
                 {"mcast", "str", true},
                 {"localaddr", "str", true},
                 {"udp", "str", true}}},
    {.name = "NetdevStreamOptions",
     .members = {{"addr", "SocketAddress", false}, {"server", "bool", true}}},
    {.name = "NetdevTapOptions",
     .members = {{"ifname", "str", true},
                 {"fd", "str", true},
                 {"script", "str", true},
                 {"downscript", "str", true},
                 {"br", "str", true},
                 {"helper", "str", true},
                 {"sndbuf", "int", true},
                 {"vnet_hdr", "bool", true},
                 {"vhost", "bool", true},
                 {"vhostforce", "bool", true},
                 {"queues", "int", true}}},
    {.name = "NetdevUserOptions",
     .members = {NETDEV_NAT, {"ipv6-host", "str", true}, {"ipv6-dns", "str", true}}},
    {.name = "ObjectOptions",
     .members = {{"qom-type", "ObjectType", false}, {"id", "str", false}},
     .tag = "qom-type",
     .variants = {{"iothread", "IothreadProperties"},
                  {"memory-backend-file", "MemoryBackendFileProperties"},
                  {"memory-backend-ram", "MemoryBackendProperties"},
                  {"rng-builtin", "0"},
                  {"rng-random", "RngRandomProperties"},
                  {"throttle-group", "ThrottleGroupProperties"}}},
    {.name = "RngRandomProperties", .members = {{"filename", "str", true}}},
    {.name = "SocketAddress",
     .members = {{"type", "SocketAddressType", false}},
     .tag = "type",
     .variants = {{"inet", "InetSocketAddress"}, {"unix", "UnixSocketAddress"}}},
    {.name = "SocketAddressLegacy",
     .members = {{"type", "SocketAddressType", false}},
     .tag = "type",
     .variants = {{"inet", "InetSocketAddressWrapper"}, {"unix", "UnixSocketAddressWrapper"}}},
    {.name = "StatsRequest", .members = {{"provider", "StatsProvider", false}}},
    {.name = "String", .members = {{"str", "str", false}}},
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
     .members = {{"limits", "ThrottleLimits", true}, LIMITS("x-")}},
    {.name = "ThrottleLimits", .members = {LIMITS("")}},
    {.name = "TransactionAction",
     .members = {{"type", "TransactionActionKind", false}},
     .tag = "type",
     .variants = {{"abort", "AbortWrapper"},
                  {"block-dirty-bitmap-add", "BlockDirtyBitmapAddWrapper"},
                  {"block-dirty-bitmap-clear", "BlockDirtyBitmapWrapper"},
                  {"block-dirty-bitmap-disable", "BlockDirtyBitmapWrapper"},
                  {"block-dirty-bitmap-enable", "BlockDirtyBitmapWrapper"},
                  {"block-dirty-bitmap-merge", "BlockDirtyBitmapMergeWrapper"},
                  {"block-dirty-bitmap-remove", "BlockDirtyBitmapWrapper"},
                  {"blockdev-backup", "BlockdevBackupWrapper"},
                  {"blockdev-snapshot", "BlockdevSnapshotWrapper"},
                  {"blockdev-snapshot-internal-sync", "BlockdevSnapshotInternalWrapper"},
                  {"blockdev-snapshot-sync", "BlockdevSnapshotSyncWrapper"},
                  {"drive-backup", "DriveBackupWrapper"}}},
    {.name = "BlockDirtyBitmapAddWrapper",
     .members = {{"data", "block-dirty-bitmap-add-arg", false}}},
    {.name = "BlockDirtyBitmapMergeWrapper",
     .members = {{"data", "block-dirty-bitmap-merge-arg", false}}},
    {.name = "BlockDirtyBitmapWrapper", .members = {{"data", "BlockDirtyBitmap", false}}},
    {.name = "BlockdevBackupWrapper", .members = {{"data", "blockdev-backup-arg", false}}},
    {.name = "BlockdevSnapshotInternalWrapper",
     .members = {{"data", "blockdev-snapshot-internal-sync-arg", false}}},
    {.name = "BlockdevSnapshotSyncWrapper",
     .members = {{"data", "blockdev-snapshot-sync-arg", false}}},
    {.name = "BlockdevSnapshotWrapper", .members = {{"data", "blockdev-snapshot-arg", false}}},
    {.name = "DriveBackupWrapper", .members = {{"data", "drive-backup-arg", false}}},
    {.name = "TransactionProperties",
     .members = {{"completion-mode", "ActionCompletionMode", true}}},
    {.name = "UnixSocketAddress", .members = {{"path", "str", false}}},
    {.name = "UnixSocketAddressWrapper", .members = {{"data", "UnixSocketAddress", false}}},
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
