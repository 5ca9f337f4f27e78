/* SPDX-License-Identifier: MIT */
/* hmp_commands: what the human monitor can do, and what `info` can tell. */
#include <stdlib.h>
#include <string.h>

#include "build/config.h"
#include "vmm/chardev/chardev.h"
#include "vmm/control/hmp_private.h"
#include "vmm/machine_io_threads.h"
#include "vmm/options/keyval.h"

static struct machine *machine_of(struct hmp_call *call)
{
    return call->control->machine;
}

static void run_stop(struct hmp_call *call)
{
    call->is_pending = true;
    machine_stop(machine_of(call), hmp_call_done, call);
}

static void run_cont(struct hmp_call *call)
{
    call->is_pending = true;
    machine_cont(machine_of(call), hmp_call_done, call);
}

static void run_reset(struct hmp_call *call)
{
    call->is_pending = true;
    machine_reset(machine_of(call), SHUTDOWN_HOST_QMP_SYSTEM_RESET, hmp_call_done, call);
}

static void run_powerdown(struct hmp_call *call)
{
    machine_powerdown(machine_of(call));
}

static void run_quit(struct hmp_call *call)
{
    machine_quit(machine_of(call), SHUTDOWN_HOST_QMP_QUIT);
}

static void describe(struct hmp_call *call, const struct hmp_command *command, const char *prefix)
{
    fprintf(call->out, "%s%s %s -- %s\r\n", prefix, command->names,
            command->arguments ? command->arguments : "", command->help);
}

static void list_commands(struct hmp_call *call, const struct hmp_command *table, unsigned count,
                          const char *prefix)
{
    for (unsigned i = 0; i < count; i++)
        describe(call, &table[i], prefix);
}

static void help_one(struct hmp_call *call, const struct hmp_command *table, unsigned count,
                     const char *prefix, const char *name)
{
    for (unsigned i = 0; i < count; i++)
        if (keyval_name_index(table[i].names, name) >= 0) {
            describe(call, &table[i], prefix);
            return;
        }
    fprintf(call->out, "unknown command: '%s%s'; type 'help'\r\n", prefix, name);
}

static void run_help(struct hmp_call *call)
{
    const char *name = call->words[1], *info = name ? call->words[2] : NULL;
    if (!name)
        list_commands(call, hmp_commands, hmp_command_count, "");
    else if (strcmp(name, "info") != 0)
        help_one(call, hmp_commands, hmp_command_count, "", name);
    else if (info)
        help_one(call, hmp_infos, hmp_info_count, "info ", info);
    else
        list_commands(call, hmp_infos, hmp_info_count, "info ");
}

static void run_info(struct hmp_call *call)
{
    if (call->word_count < 2) {
        list_commands(call, hmp_infos, hmp_info_count, "info ");
        return;
    }
    memmove(call->words, call->words + 1, call->word_count * sizeof(*call->words));
    call->word_count--;
    hmp_dispatch(call, hmp_infos, hmp_info_count, "info");
}

const struct hmp_command hmp_commands[] = {
    {"help|?", "[cmd] [subcommand]", "show the commands, or one of them", run_help},
    {"info", "[subcommand] [option] [option] [name]", "show something about the machine", run_info},
    {"stop|s", NULL, "stop the guest", run_stop},
    {"cont|c", NULL, "go on with the guest", run_cont},
    {"system_powerdown", NULL, "press the power button", run_powerdown},
    {"system_reset", NULL, "reset the machine", run_reset},
    {"system_wakeup", NULL, "wake a sleeping guest", hmp_system_wakeup},
    {"balloon", "target", "ask the guest to do with so many MiB", hmp_balloon},
    {"savevm", "tag", "save the machine's state (evisor saves disks only)", hmp_no_vmstate},
    {"loadvm", "tag", "go back to a saved state (evisor saves disks only)", hmp_loadvm},
    {"delvm", "tag", "delete a snapshot of the disks", hmp_delvm},
    {"getfd", "name", "give a passed descriptor a name (QMP only)", hmp_getfd},
    {"closefd", "name", "close a descriptor that was passed by QMP's getfd", hmp_closefd},
    {"qom-list", "path", "the properties of an object and the objects below it", hmp_qom_list},
    {"qom-get", "path property", "a property of an object", hmp_qom_get},
    {"qom-set", "[-j] path property value",
     "set a property: requested-size, "
     "guest-stats-polling-interval; with -j by JSON: limits",
     hmp_qom_set},
    {"nmi", NULL, "press the NMI button", hmp_by_qmp},
    {"set_link", "netdev on|off", "plug the cable of a NIC in or out", hmp_set_link},
    {"hostfwd_add", "[netdev] tcp|udp:[address]:port-[address]:port",
     "forward a port of the host to the guest", hmp_hostfwd_add},
    {"hostfwd_remove", "[netdev] tcp|udp:[address]:port", "take a forwarded port back",
     hmp_hostfwd_remove},
    {"block_job_cancel", "[-f] device", "end a job; -f: at once", hmp_by_qmp},
    {"block_job_complete", "device", "tell a job that is ready to pivot to its copy", hmp_by_qmp},
    {"block_job_pause", "device", "let a job wait", hmp_by_qmp},
    {"block_job_resume", "device", "let a job go on", hmp_by_qmp},
    {"block_job_set_speed", "device speed", "limit a job to so many bytes a second", hmp_by_qmp},
    {"block_resize", "device size", "make a disk larger or smaller", hmp_by_qmp},
    {"block_set_io_throttle", "device bps bps_rd bps_wr iops iops_rd iops_wr",
     "limit a disk's bytes and operations a second; 0 for no limit", hmp_by_qmp},
    {"block_stream", "device [speed [base]]", "copy what lies below into a disk's image",
     hmp_by_qmp},
    {"drive_backup", "[-n] [-f] [-c] device target [format]",
     "copy a disk as it is now into a file; -n: one that is there, -f: all of the chain",
     hmp_by_qmp},
    {"drive_mirror", "[-n] [-f] device target [format]",
     "copy a disk into a file, to pivot to it; -n: one that is there, -f: all of the chain",
     hmp_by_qmp},
    {"snapshot_blkdev", "[-n] device [new-image-file] [format]",
     "put a new image above a disk's; -n: one that is there", hmp_by_qmp},
    {"snapshot_blkdev_internal", "device name", "make a snapshot within a disk's image",
     hmp_by_qmp},
    {"snapshot_delete_blkdev_internal", "device name [id]", "remove an internal snapshot",
     hmp_by_qmp},
    {"nbd_server_start", "[-a] [-w] host:port|unix:path",
     "serve disks by NBD; -a: all of them, -w: to write too", hmp_nbd_server_start},
    {"nbd_server_add", "[-w] device [name]", "export a disk; -w: to write too", hmp_by_qmp},
    {"nbd_server_remove", "[-f] name", "end an export; -f: its clients too", hmp_by_qmp},
    {"nbd_server_stop", NULL, "end all exports and the server", hmp_by_qmp},
    {"chardev-send-break", "id", "send a break on a line", hmp_by_qmp},
    {"ringbuf_read", "device size", "take output out of a ring buffer", hmp_ringbuf_read},
    {"ringbuf_write", "device data", "put text into a ring buffer", hmp_by_qmp},
    {"chardev-add", "backend,id=id[,key=value...]", "open a chardev for device_add",
     hmp_chardev_add},
    {"chardev-remove", "id", "close a chardev", hmp_chardev_remove},
    {"device_add", "driver[,id=id][,key=value...]", "plug a device or a CPU in", hmp_device_add},
    {"device_del", "id", "ask the guest to let a device go", hmp_device_del},
    {"drive_add", "0 if=none,id=id,file=path[,key=value...]", "open an image for device_add",
     hmp_drive_add},
    {"drive_del", "id", "close an image of drive_add", hmp_drive_del},
    {"netdev_add", "type,id=id[,key=value...]", "open a network for device_add", hmp_netdev_add},
    {"netdev_del", "id", "close a network", hmp_netdev_del},
    {"object_add", "type,id=id", "make a source of random numbers, memory or an I/O thread",
     hmp_object_add},
    {"object_del", "id", "remove an object", hmp_object_del},
    {"cpu", "index", "the CPU that info registers, x and $registers are about", hmp_cpu},
    {"print|p", "/fmt expr", "the value of an expression, of $registers too: print/x $rip + 8",
     hmp_print},
    {"x", "/fmt expr", "memory at a virtual address of the current CPU: x/8xg $rsp", hmp_dump},
    {"xp", "/fmt expr", "memory at a physical address: xp/COUNT, x d u o or c, and b h w or g",
     hmp_dump},
    {"sum", "expr size", "the checksum of physical memory", hmp_sum},
    {"gva2gpa", "expr", "the physical address of a virtual one", hmp_gva2gpa},
    {"gpa2hva", "expr", "where the host has a physical address of the guest's", hmp_gpa2hva},
    {"i", "/fmt expr[.index]", "read a port; with an index: write that to it, and read the next",
     hmp_in},
    {"o", "/fmt expr value", "write to a port", hmp_out},
    {"quit|q", NULL, "end the machine at once", run_quit},
};
const unsigned hmp_command_count = ARRAY_SIZE(hmp_commands);

static void info_status(struct hmp_call *call)
{
    enum machine_state state = machine_get_state(machine_of(call));
    bool has_detail = state != MACHINE_RUNNING && state != MACHINE_PAUSED;
    fprintf(call->out, "VM status: %s%s%s%s\r\n", state == MACHINE_RUNNING ? "running" : "paused",
            has_detail ? " (" : "", has_detail ? machine_state_name(state) : "",
            has_detail ? ")" : "");
}

static void info_version(struct hmp_call *call)
{
    fprintf(call->out, "evisor " EVISOR_VERSION "\r\n");
}

static void info_name(struct hmp_call *call)
{
    const char *name = machine_config(machine_of(call))->name;
    if (name)
        fprintf(call->out, "%s\r\n", name);
}

static void info_uuid(struct hmp_call *call)
{
    const char *uuid = machine_config(machine_of(call))->uuid;
    fprintf(call->out, "%s\r\n", uuid ? uuid : "00000000-0000-0000-0000-000000000000");
}

static void info_kvm(struct hmp_call *call)
{
    bool is_kvm = strcmp(machine_accel_name(machine_of(call)), "kvm") == 0;
    fprintf(call->out, "kvm support: %s\r\n", is_kvm ? "enabled" : "disabled");
}

static void info_chardev(struct hmp_call *call)
{
    const struct vm_config *config = machine_config(machine_of(call));
    for (unsigned i = 0; i < config->chardev_count; i++) {
        const struct config_chardev *chardev = &config->chardevs[i];
        struct chardev *open = machine_chardev(machine_of(call), i);
        if (!chardev->id)
            continue;
        fprintf(call->out, "%s: filename=%s%s\r\n", chardev->id,
                open ? chardev_filename(open) : (chardev->path ? "unix:" : "tcp:"),
                !open && chardev->path ? chardev->path : "");
    }
}

static void info_io_threads(struct hmp_call *call)
{
    const struct config_guest *guest = &machine_config(machine_of(call))->guest;
    for (unsigned i = 0; i < CONFIG_IO_THREAD_MAX; i++)
        if (guest->io_threads[i])
            fprintf(call->out,
                    "%s:\r\n  thread_id=%d\r\n  poll-max-ns=0\r\n  poll-grow=0\r\n"
                    "  poll-shrink=0\r\n  aio-max-batch=0\r\n",
                    guest->io_threads[i], (int)machine_io_thread_id(machine_of(call), i));
}

static void print_stat(void *opaque, const char *group, const char *name, uint64_t value)
{
    FILE *out = opaque;
    fprintf(out, "%s.%s: %llu\r\n", group, name, (unsigned long long)value);
}

static void info_stats(struct hmp_call *call)
{
    machine_for_each_stat(machine_of(call), print_stat, call->out);
}

const struct hmp_command hmp_infos[] = {
    {"balloon", NULL, "how much memory the guest has outside its balloon", hmp_info_balloon},
    {"block", "[-n] [-v] [device]", "the disks, or one of them; -n: as nodes, -v: their images too",
     hmp_info_block},
    {"block-jobs", NULL, "the jobs on disks and how far they are", hmp_info_block_jobs},
    {"blockstats", NULL, "counters of the disks", hmp_info_blockstats},
    {"chardev", NULL, "the terminals and sockets", info_chardev},
    {"cpus", NULL, "the CPUs and their threads", hmp_info_cpus},
    {"hotpluggable-cpus", NULL, "CPUs that are there or may be plugged in",
     hmp_info_hotpluggable_cpus},
    {"iothreads", NULL, "the threads with loops for disks and their devices", info_io_threads},
    {"kvm", NULL, "whether KVM runs the guest", info_kvm},
    {"mem", NULL, "the ranges that the current CPU's page tables map", hmp_info_mem},
    {"memdev", NULL, "the memory backends", hmp_info_memdev},
    {"memory-devices", NULL, "memory that grows and shrinks", hmp_info_memory_devices},
    {"memory_size_summary", NULL, "memory from the start, and plugged since",
     hmp_info_memory_size_summary},
    {"mtree", "[-f]", "what lies where in memory and ports; -f: without aliases", hmp_info_mtree},
    {"name", NULL, "the machine's name", info_name},
    {"network", NULL, "the NICs and what they are connected to", hmp_info_network},
    {"numa", NULL, "the nodes of memory and CPUs", hmp_info_numa},
    {"pci", NULL, "the functions on the PCI bus", hmp_info_pci},
    {"qom-tree", "[path]", "the objects of the machine", hmp_info_qom_tree},
    {"qtree", NULL, "the buses and the devices on them", hmp_info_qtree},
    {"registers", "[-a|cpu]", "the registers of the current CPU, of another, or of all",
     hmp_info_registers},
    {"snapshots", NULL, "snapshots that all disks have", hmp_info_snapshots},
    {"stats", NULL, "all counters", info_stats},
    {"status", NULL, "whether the guest runs", info_status},
    {"tlb", NULL, "each page that the current CPU's page tables map", hmp_info_tlb},
    {"usernet", NULL, "forwarded ports and connections of the built-in NAT", hmp_info_usernet},
    {"uuid", NULL, "the machine's UUID", info_uuid},
    {"version", NULL, "evisor's version", info_version},
};
const unsigned hmp_info_count = ARRAY_SIZE(hmp_infos);
