/* SPDX-License-Identifier: MIT */
/* hmp_absent: commands of QEMU's monitor that evisor has no use for, and what to do instead. */
#include <string.h>

#include "vmm/control/hmp_private.h"
#include "vmm/options/keyval.h"

struct absent {
    const char *names;
    const char *why;
};

static const struct absent commands[] = {
    {"announce_self|client_migrate_info|migrate|migrate_cancel|migrate_continue|migrate_incoming|"
     "migrate_pause|migrate_recover|migrate_set_capability|migrate_set_parameter|"
     "migrate_start_postcopy|calc_dirty_rate|set_vcpu_dirty_limit|cancel_vcpu_dirty_limit|"
     "x_colo_lost_heartbeat",
     "evisor does not migrate machines: power the guest off, copy its images, start it there"},
    {"mouse_button|mouse_move|mouse_set|sendkey|screendump|set_password|expire_password|"
     "stopcapture|wavcapture",
     "the machine has no display, keyboard, mouse or sound: use the serial console"},
    {"change|eject", "evisor's drives do not change their media: use drive_add and device_add"},
    {"chardev-change", "chardevs do not change: use chardev-remove and chardev-add"},
    {"boot_set", "the boot order is that of the start: use -boot, or bootindex= of a device"},
    {"gdbserver", "the port for gdb is opened at the start: use -gdb tcp::1234"},
    {"dump-guest-memory|dump-skeys",
     "evisor writes no core files: use -gdb, or crash(8) in the guest"},
    {"gpa2hpa", "the host's physical addresses are its own: use gpa2hva"},
    {"log|logfile|trace-event|trace-file|sync-profile|singlestep",
     "evisor counts instead of tracing: use info stats, and -gdb for single steps"},
    {"commit", "use QMP's block-commit and block_job_complete, or evisor-img commit while the "
               "machine is off"},
    {"memsave|pmemsave", "use xp, or gdb's dump memory with -gdb"},
    {"dumpdtb", "the machine has no device tree: the guest's tables are ACPI's"},
    {"qemu-io", "use evisor-img while the machine is off, or nbd_server_add and an NBD client"},
    {"exit_preconfig", "there is no such state: start with -S, then cont"},
    {"mce|pcie_aer_inject_error", "evisor's machine reports no hardware errors"},
    {"replay_break|replay_delete_break|replay_seek", "evisor neither records nor replays"},
    {"watchdog_action", "the machine has no watchdog"},
};

static const struct absent infos[] = {
    {"capture|mice|spice|vnc", "the machine has no display, mouse or sound"},
    {"migrate|migrate_capabilities|migrate_parameters|dirty_rate|vcpu_dirty_limit|rdma",
     "evisor does not migrate machines"},
    {"dump", "evisor writes no core files"},
    {"irq|lapic|pic", "use info stats, which counts interrupts and exits"},
    {"qdm", "evisor -device help lists the kinds of devices"},
    {"ramblock|roms", "use info mtree"},
    {"history", "evisor's monitor keeps no history: use rlwrap, or socat's READLINE"},
    {"jit|opcount|profile|sync-profile|trace-events", "use info stats"},
    {"replay", "evisor neither records nor replays"},
    {"rocker|rocker-of-dpa-flows|rocker-of-dpa-groups|rocker-ports", "there is no such switch"},
    {"sev|sgx|skeys", "the guest's memory is not encrypted, and there are no enclaves"},
    {"tpm", "the machine has no TPM"},
    {"usb|usbhost", "the machine has no USB"},
    {"virtio|virtio-queue-element|virtio-queue-status|virtio-status|virtio-vhost-queue-status",
     "use info qtree, info stats and info network"},
    {"vm-generation-id", "the machine has no such device"},
};

static const char *look_up(const struct absent *table, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (keyval_name_index(table[i].names, name) >= 0)
            return table[i].why;
    return NULL;
}

const char *hmp_why_absent(const char *name, bool is_info)
{
    return is_info ? look_up(infos, ARRAY_SIZE(infos), name)
                   : look_up(commands, ARRAY_SIZE(commands), name);
}
