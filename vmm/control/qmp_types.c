/* SPDX-License-Identifier: MIT */
/* qmp_types: the types of answers, named as QAPI names them; the enums from where their words are.
 */
#include "vmm/control/qmp_types.h"

#include "base/check.h"
#include "netbackends/address_snoop.h"
#include "vmm/machine_block.h"

const struct qmp_object_type qmp_object_types[] = {
    {.name = "AddfdInfo", .members = QMP_MEMBERS({"fdset-id", "int", false}, {"fd", "int", false})},
    {.name = "BalloonInfo", .members = QMP_MEMBERS({"actual", "int", false})},
    {.name = "BlockdevCacheInfo",
     .members = QMP_MEMBERS({"writeback", "bool", false}, {"direct", "bool", false},
                            {"no-flush", "bool", false})},
    {.name = "BlockDeviceInfo",
     .members = QMP_MEMBERS(
         {"file", "str", false}, {"node-name", "str", false}, {"ro", "bool", false},
         {"drv", "str", false}, {"backing_file", "str", true}, {"backing_file_depth", "int", false},
         {"encrypted", "bool", false}, {"detect_zeroes", "BlockdevDetectZeroesOptions", false},
         {"bps", "int", false}, {"bps_rd", "int", false}, {"bps_wr", "int", false},
         {"iops", "int", false}, {"iops_rd", "int", false}, {"iops_wr", "int", false},
         {"image", "ImageInfo", false}, {"bps_max", "int", true}, {"bps_rd_max", "int", true},
         {"bps_wr_max", "int", true}, {"iops_max", "int", true}, {"iops_rd_max", "int", true},
         {"iops_wr_max", "int", true}, {"bps_max_length", "int", true},
         {"bps_rd_max_length", "int", true}, {"bps_wr_max_length", "int", true},
         {"iops_max_length", "int", true}, {"iops_rd_max_length", "int", true},
         {"iops_wr_max_length", "int", true}, {"iops_size", "int", true}, {"group", "str", true},
         {"cache", "BlockdevCacheInfo", false}, {"write_threshold", "int", false},
         {"dirty-bitmaps", "[BlockDirtyInfo]", true})},
    {.name = "BlockDeviceStats",
     .members = QMP_MEMBERS(
         {"rd_bytes", "int", false}, {"wr_bytes", "int", false}, {"unmap_bytes", "int", false},
         {"rd_operations", "int", false}, {"wr_operations", "int", false},
         {"flush_operations", "int", false}, {"unmap_operations", "int", false},
         {"rd_total_time_ns", "int", false}, {"wr_total_time_ns", "int", false},
         {"flush_total_time_ns", "int", false}, {"unmap_total_time_ns", "int", false},
         {"wr_highest_offset", "int", false}, {"rd_merged", "int", false},
         {"wr_merged", "int", false}, {"unmap_merged", "int", false},
         {"failed_rd_operations", "int", false}, {"failed_wr_operations", "int", false},
         {"failed_flush_operations", "int", false}, {"failed_unmap_operations", "int", false},
         {"invalid_rd_operations", "int", false}, {"invalid_wr_operations", "int", false},
         {"invalid_flush_operations", "int", false}, {"invalid_unmap_operations", "int", false},
         {"account_invalid", "bool", false}, {"account_failed", "bool", false},
         {"timed_stats", "[any]", false},
         {"rd_latency_histogram", "BlockLatencyHistogramInfo", true},
         {"wr_latency_histogram", "BlockLatencyHistogramInfo", true},
         {"flush_latency_histogram", "BlockLatencyHistogramInfo", true})},
    {.name = "BlockDirtyInfo",
     .members =
         QMP_MEMBERS({"name", "str", false}, {"count", "int", false}, {"granularity", "int", false},
                     {"recording", "bool", false}, {"busy", "bool", false},
                     {"persistent", "bool", false}, {"inconsistent", "bool", true})},
    {.name = "BlockExportInfo",
     .members = QMP_MEMBERS({"id", "str", false}, {"type", "BlockExportType", false},
                            {"node-name", "str", false}, {"shutting-down", "bool", false})},
    {.name = "BlockInfo",
     .members = QMP_MEMBERS({"device", "str", false}, {"qdev", "str", true}, {"type", "str", false},
                            {"removable", "bool", false}, {"locked", "bool", false},
                            {"inserted", "BlockDeviceInfo", true},
                            {"io-status", "BlockDeviceIoStatus", false})},
    {.name = "BlockJobInfo",
     .members = QMP_MEMBERS({"type", "str", false}, {"device", "str", false}, {"len", "int", false},
                            {"offset", "int", false}, {"busy", "bool", false},
                            {"paused", "bool", false}, {"speed", "int", false},
                            {"io-status", "BlockDeviceIoStatus", false}, {"ready", "bool", false},
                            {"status", "JobStatus", false}, {"auto-finalize", "bool", false},
                            {"auto-dismiss", "bool", false}, {"error", "str", true})},
    {.name = "BlockLatencyHistogramInfo",
     .members = QMP_MEMBERS({"boundaries", "[int]", false}, {"bins", "[int]", false})},
    {.name = "BlockStats",
     .members = QMP_MEMBERS({"device", "str", false}, {"qdev", "str", true},
                            {"node-name", "str", false}, {"stats", "BlockDeviceStats", false})},
    {.name = "ChardevBackendInfo", .members = QMP_MEMBERS({"name", "str", false})},
    {.name = "ChardevInfo",
     .members = QMP_MEMBERS({"label", "str", false}, {"filename", "str", false},
                            {"frontend-open", "bool", false})},
    {.name = "ChardevReturn", .members = QMP_MEMBERS({"pty", "str", true})},
    {.name = "CommandInfo", .members = QMP_MEMBERS({"name", "str", false})},
    {.name = "CommandLineOptionInfo",
     .members = QMP_MEMBERS({"option", "str", false},
                            {"parameters", "[CommandLineParameterInfo]", false})},
    {.name = "CommandLineParameterInfo",
     .members = QMP_MEMBERS({"name", "str", false}, {"type", "CommandLineParameterType", false})},
    {.name = "CpuDefinitionInfo",
     .members = QMP_MEMBERS({"name", "str", false}, {"migration-safe", "bool", true},
                            {"static", "bool", false}, {"unavailable-features", "[str]", true},
                            {"typename", "str", false}, {"deprecated", "bool", false})},
    {.name = "CpuInfoFast",
     .members = QMP_MEMBERS({"cpu-index", "int", false}, {"qom-path", "str", false},
                            {"thread-id", "int", false}, {"props", "CpuInstanceProperties", false},
                            {"target", "SysEmuTarget", false})},
    {.name = "CpuInstanceProperties",
     .members = QMP_MEMBERS({"socket-id", "int", false}, {"die-id", "int", true},
                            {"core-id", "int", false}, {"thread-id", "int", false})},
    {.name = "CurrentMachineParams",
     .members = QMP_MEMBERS({"wakeup-suspend-support", "bool", false})},
    {.name = "FdsetFdInfo", .members = QMP_MEMBERS({"fd", "int", false}, {"opaque", "str", true})},
    {.name = "FdsetInfo",
     .members = QMP_MEMBERS({"fdset-id", "int", false}, {"fds", "[FdsetFdInfo]", false})},
    {.name = "ForwardsInfo",
     .members = QMP_MEMBERS({"netdev", "str", false}, {"hostfwd", "[str]", false},
                            {"guestfwd", "[str]", false})},
    {.name = "HotpluggableCPU",
     .members = QMP_MEMBERS({"type", "str", false}, {"vcpus-count", "int", false},
                            {"props", "CpuInstanceProperties", false}, {"qom-path", "str", true})},
    {.name = "ImageInfo",
     .members = QMP_MEMBERS(
         {"filename", "str", false}, {"format", "str", false}, {"actual-size", "int", true},
         {"virtual-size", "int", false}, {"backing-filename", "str", true},
         {"full-backing-filename", "str", true}, {"backing-filename-format", "str", true},
         {"snapshots", "[SnapshotInfo]", true}, {"backing-image", "ImageInfo", true})},
    {.name = "IOThreadInfo",
     .members = QMP_MEMBERS({"id", "str", false}, {"thread-id", "int", false},
                            {"poll-max-ns", "int", false}, {"poll-grow", "int", false},
                            {"poll-shrink", "int", false}, {"aio-max-batch", "int", false})},
    {.name = "JobInfo",
     .members = QMP_MEMBERS({"id", "str", false}, {"type", "JobType", false},
                            {"status", "JobStatus", false}, {"current-progress", "int", false},
                            {"total-progress", "int", false}, {"error", "str", true})},
    {.name = "KvmInfo",
     .members = QMP_MEMBERS({"enabled", "bool", false}, {"present", "bool", false})},
    {.name = "MachineInfo",
     .members =
         QMP_MEMBERS({"name", "str", false}, {"alias", "str", true}, {"is-default", "bool", true},
                     {"cpu-max", "int", false}, {"hotpluggable-cpus", "bool", false},
                     {"numa-mem-supported", "bool", false}, {"deprecated", "bool", false},
                     {"default-cpu-type", "str", true}, {"default-ram-id", "str", true})},
    {.name = "Memdev",
     .members = QMP_MEMBERS({"id", "str", true}, {"size", "int", false}, {"merge", "bool", false},
                            {"dump", "bool", false}, {"prealloc", "bool", false},
                            {"share", "bool", false}, {"reserve", "bool", true},
                            {"host-nodes", "[int]", false}, {"policy", "HostMemPolicy", false})},
    {.name = "MemoryDeviceInfo",
     .members = QMP_MEMBERS({"type", "MemoryDeviceInfoKind", false}),
     .tag = "type",
     .variants = QMP_VARIANTS({"virtio-mem", "VirtioMEMDeviceInfoWrapper"})},
    {.name = "MemoryInfo",
     .members = QMP_MEMBERS({"base-memory", "int", false}, {"plugged-memory", "int", false})},
    {.name = "NameInfo", .members = QMP_MEMBERS({"name", "str", true})},
    {.name = "NicAddress",
     .members = QMP_MEMBERS({"mac", "str", false}, {"ip-address", "str", false},
                            {"ip-address-type", "NicAddressType", false},
                            {"source", "NicAddressSource", false}, {"first-seen", "int", false},
                            {"last-seen", "int", false}, {"expires", "int", true})},
    {.name = "NicAddressesInfo",
     .members = QMP_MEMBERS({"id", "str", false}, {"nic", "str", true},
                            {"addresses", "[NicAddress]", false})},
    {.name = "ObjectPropertyInfo",
     .members =
         QMP_MEMBERS({"name", "str", false}, {"type", "str", false}, {"description", "str", true})},
    {.name = "ObjectTypeInfo",
     .members = QMP_MEMBERS({"name", "str", false}, {"parent", "str", true})},
    {.name = "PciDeviceClass",
     .members = QMP_MEMBERS({"desc", "str", true}, {"class", "int", false})},
    {.name = "PciDeviceId",
     .members = QMP_MEMBERS({"device", "int", false}, {"vendor", "int", false},
                            {"subsystem", "int", false}, {"subsystem-vendor", "int", false})},
    {.name = "PciDeviceInfo",
     .members =
         QMP_MEMBERS({"bus", "int", false}, {"slot", "int", false}, {"function", "int", false},
                     {"class_info", "PciDeviceClass", false}, {"id", "PciDeviceId", false},
                     {"irq", "int", true}, {"irq_pin", "int", false}, {"qdev_id", "str", false},
                     {"regions", "[PciMemoryRegion]", false})},
    {.name = "PciInfo",
     .members = QMP_MEMBERS({"bus", "int", false}, {"devices", "[PciDeviceInfo]", false})},
    {.name = "PciMemoryRegion",
     .members = QMP_MEMBERS({"bar", "int", false}, {"type", "str", false},
                            {"address", "int", false}, {"size", "int", false},
                            {"prefetch", "bool", true}, {"mem_type_64", "bool", true})},
    {.name = "RxFilterInfo",
     .members =
         QMP_MEMBERS({"name", "str", false}, {"promiscuous", "bool", false},
                     {"multicast", "RxState", false}, {"unicast", "RxState", false},
                     {"vlan", "RxState", false}, {"broadcast-allowed", "bool", false},
                     {"multicast-overflow", "bool", false}, {"unicast-overflow", "bool", false},
                     {"main-mac", "str", false}, {"vlan-table", "[int]", false},
                     {"unicast-table", "[str]", false}, {"multicast-table", "[str]", false})},
    {.name = "SchemaInfo",
     .members = QMP_MEMBERS({"name", "str", false}, {"meta-type", "SchemaMetaType", false}),
     .tag = "meta-type",
     .variants = QMP_VARIANTS({"builtin", "SchemaInfoBuiltin"}, {"enum", "SchemaInfoEnum"},
                              {"array", "SchemaInfoArray"}, {"object", "SchemaInfoObject"},
                              {"alternate", "SchemaInfoAlternate"},
                              {"command", "SchemaInfoCommand"}, {"event", "SchemaInfoEvent"})},
    {.name = "SchemaInfoAlternate",
     .members = QMP_MEMBERS({"members", "[SchemaInfoAlternateMember]", false})},
    {.name = "SchemaInfoAlternateMember", .members = QMP_MEMBERS({"type", "str", false})},
    {.name = "SchemaInfoArray", .members = QMP_MEMBERS({"element-type", "str", false})},
    {.name = "SchemaInfoBuiltin", .members = QMP_MEMBERS({"json-type", "JSONType", false})},
    {.name = "SchemaInfoCommand",
     .members = QMP_MEMBERS({"arg-type", "str", false}, {"ret-type", "str", false})},
    {.name = "SchemaInfoEnum",
     .members =
         QMP_MEMBERS({"members", "[SchemaInfoEnumMember]", false}, {"values", "[str]", false})},
    {.name = "SchemaInfoEnumMember", .members = QMP_MEMBERS({"name", "str", false})},
    {.name = "SchemaInfoEvent", .members = QMP_MEMBERS({"arg-type", "str", false})},
    {.name = "SchemaInfoObject",
     .members = QMP_MEMBERS({"members", "[SchemaInfoObjectMember]", false}, {"tag", "str", true},
                            {"variants", "[SchemaInfoObjectVariant]", true})},
    {.name = "SchemaInfoObjectMember",
     .members =
         QMP_MEMBERS({"name", "str", false}, {"type", "str", false}, {"default", "any", true})},
    {.name = "SchemaInfoObjectVariant",
     .members = QMP_MEMBERS({"case", "str", false}, {"type", "str", false})},
    {.name = "SnapshotInfo",
     .members =
         QMP_MEMBERS({"id", "str", false}, {"name", "str", false}, {"vm-state-size", "int", false},
                     {"date-sec", "int", false}, {"date-nsec", "int", false},
                     {"vm-clock-sec", "int", false}, {"vm-clock-nsec", "int", false})},
    {.name = "Stats", .members = QMP_MEMBERS({"name", "str", false}, {"value", "int", false})},
    {.name = "StatsResult",
     .members = QMP_MEMBERS({"provider", "StatsProvider", false}, {"qom-path", "str", false},
                            {"stats", "[Stats]", false})},
    {.name = "StatsSchema",
     .members = QMP_MEMBERS({"provider", "StatsProvider", false}, {"target", "StatsTarget", false},
                            {"stats", "[StatsSchemaValue]", false})},
    {.name = "StatsSchemaValue",
     .members = QMP_MEMBERS({"name", "str", false}, {"type", "StatsType", false},
                            {"unit", "StatsUnit", true}, {"base", "int", true},
                            {"exponent", "int", false})},
    {.name = "StatusInfo",
     .members = QMP_MEMBERS({"running", "bool", false}, {"singlestep", "bool", false},
                            {"status", "RunState", false})},
    {.name = "TargetInfo", .members = QMP_MEMBERS({"arch", "SysEmuTarget", false})},
    {.name = "UuidInfo", .members = QMP_MEMBERS({"UUID", "str", false})},
    {.name = "VersionInfo",
     .members = QMP_MEMBERS({"qemu", "VersionTriple", false}, {"package", "str", false})},
    {.name = "VersionTriple",
     .members =
         QMP_MEMBERS({"major", "int", false}, {"minor", "int", false}, {"micro", "int", false})},
    {.name = "VirtioMEMDeviceInfo",
     .members = QMP_MEMBERS({"id", "str", true}, {"memaddr", "int", false},
                            {"requested-size", "int", false}, {"size", "int", false},
                            {"max-size", "int", false}, {"block-size", "int", false},
                            {"node", "int", false}, {"memdev", "str", false})},
    {.name = "VirtioMEMDeviceInfoWrapper",
     .members = QMP_MEMBERS({"data", "VirtioMEMDeviceInfo", false})},
};
const size_t qmp_object_type_count = ARRAY_SIZE(qmp_object_types);

static const char *run_state(unsigned index)
{
    return index <= MACHINE_GUEST_PANICKED ? machine_state_name(index) : NULL;
}

static const char *address_source(unsigned index)
{
    return index <= ADDRESS_FROM_ND ? address_source_name(index) : NULL;
}

/* A function that tells these words. */
#define WORDS(function, ...)                                                                       \
    static const char *function(unsigned index)                                                    \
    {                                                                                              \
        static const char *const words[] = {__VA_ARGS__};                                          \
        return index < ARRAY_SIZE(words) ? words[index] : NULL;                                    \
    }

WORDS(address_type, "ipv4", "ipv6")
WORDS(architecture, "x86_64")
WORDS(detect_zeroes, "off")
WORDS(export_type, "nbd")
WORDS(io_status, "ok", "failed", "nospace")
WORDS(aio_options, "threads", "native", "io_uring")
WORDS(bitmap_sync, "on-success", "never", "always")
WORDS(capability, "oob")
WORDS(chardev_kind, "file", "memory", "null", "pipe", "pty", "ringbuf", "socket", "stdio")
WORDS(completion_mode, "individual", "grouped")
WORDS(compression, "zlib", "zstd")
WORDS(copy_mode, "background", "write-blocking")
WORDS(create_driver, "file", "qcow2")
WORDS(data_format, "utf8", "base64")
WORDS(discard_options, "ignore", "unmap")
WORDS(driver, "file", "host_device", "qcow2", "raw", "vdi", "vhdx", "vmdk", "vpc")
WORDS(parameter_type, "string", "boolean", "number", "size")
WORDS(json_kind, "string", "int", "boolean", "null", "value")
WORDS(net_driver, "bridge", "dgram", "hostonly", "internal", "nat", "socket", "stream", "tap",
      "user")
WORDS(new_image_mode, "existing", "absolute-paths")
WORDS(object_type, "iothread", "memory-backend-file", "memory-backend-memfd", "memory-backend-ram",
      "rng-builtin", "rng-random", "throttle-group")
WORDS(on_error, "report", "ignore", "enospc", "stop")
WORDS(on_off_auto, "auto", "on", "off")
WORDS(host_policy, "default")
WORDS(panic_action, "shutdown")
WORDS(reboot_action, "reset", "shutdown")
WORDS(shutdown_action, "poweroff", "pause")
WORDS(preallocation, "off", "metadata", "falloc", "full")
WORDS(qcow2_version, "v2", "v3")
WORDS(remove_mode, "safe", "hard")
WORDS(socket_type, "inet", "unix")
WORDS(sync_mode, "top", "full", "none", "incremental", "bitmap")
WORDS(transaction_kind, "abort", "block-dirty-bitmap-add", "block-dirty-bitmap-clear",
      "block-dirty-bitmap-disable", "block-dirty-bitmap-enable", "block-dirty-bitmap-merge",
      "block-dirty-bitmap-remove", "blockdev-backup", "blockdev-snapshot",
      "blockdev-snapshot-internal-sync", "blockdev-snapshot-sync", "drive-backup")
WORDS(memory_device, "virtio-mem")
WORDS(meta_type, "builtin", "enum", "array", "object", "alternate", "command", "event")
WORDS(rx_state, "normal", "none", "all")
WORDS(stats_provider, "evisor")
WORDS(stats_target, "vm", "vcpu")
WORDS(stats_type, "cumulative")
WORDS(stats_unit, "seconds")

const struct qmp_enum_type qmp_enum_types[] = {
    {"ActionCompletionMode", completion_mode},
    {"BitmapSyncMode", bitmap_sync},
    {"BlockdevAioOptions", aio_options},
    {"BlockdevCreateDriver", create_driver},
    {"BlockdevDiscardOptions", discard_options},
    {"BlockdevDriver", driver},
    {"BlockdevOnError", on_error},
    {"BlockdevQcow2Version", qcow2_version},
    {"BlockExportRemoveMode", remove_mode},
    {"ChardevBackendKind", chardev_kind},
    {"DataFormat", data_format},
    {"HostMemPolicy", host_policy},
    {"PanicAction", panic_action},
    {"RebootAction", reboot_action},
    {"ShutdownAction", shutdown_action},
    {"MirrorCopyMode", copy_mode},
    {"MirrorSyncMode", sync_mode},
    {"NetClientDriver", net_driver},
    {"NewImageMode", new_image_mode},
    {"ObjectType", object_type},
    {"OnOffAuto", on_off_auto},
    {"PreallocMode", preallocation},
    {"Qcow2CompressionType", compression},
    {"QMPCapability", capability},
    {"SocketAddressType", socket_type},
    {"TransactionActionKind", transaction_kind},
    {"BlockDeviceIoStatus", io_status},
    {"BlockdevDetectZeroesOptions", detect_zeroes},
    {"BlockExportType", export_type},
    {"JobStatus", machine_job_status},
    {"JobType", machine_job_type},
    {"CommandLineParameterType", parameter_type},
    {"JSONType", json_kind},
    {"MemoryDeviceInfoKind", memory_device},
    {"NicAddressSource", address_source},
    {"NicAddressType", address_type},
    {"RunState", run_state},
    {"RxState", rx_state},
    {"SchemaMetaType", meta_type},
    {"StatsProvider", stats_provider},
    {"StatsTarget", stats_target},
    {"StatsType", stats_type},
    {"StatsUnit", stats_unit},
    {"SysEmuTarget", architecture},
};
const size_t qmp_enum_type_count = ARRAY_SIZE(qmp_enum_types);
