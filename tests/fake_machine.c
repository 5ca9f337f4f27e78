/* SPDX-License-Identifier: MIT */
/* fake_machine: answers machine.h, and the parts of disk.h and chardev.h that monitors call. */
#include "tests/fake_machine.h"

#include <errno.h>
#include <string.h>

#include "disk/dirty.h"
#include "disk/histogram.h"
#include "disk/throttle.h"
#include "vmm/chardev/chardev.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/machine_block.h"
#include "vmm/machine_chardev.h"
#include "vmm/machine_inspect.h"
#include "vmm/machine_pci.h"

static void run_op(struct machine *machine, const struct fake_op *op)
{
    struct error err = {0};
    int result = machine->failure ? error_set(&err, EINVAL, "%s", machine->failure) : 0;
    machine->failure = NULL;
    if (!result && op->kind == FAKE_STOP && machine->state == MACHINE_RUNNING) {
        machine->state = MACHINE_PAUSED;
        fake_machine_emit(machine, MACHINE_EVENT_STOP, 0);
        if (machine->debugger.on_stopped)
            machine->debugger.on_stopped(machine->debugger.opaque, 0, NULL);
    } else if (!result && op->kind == FAKE_CONT && machine->state != MACHINE_RUNNING) {
        machine->state = MACHINE_RUNNING;
        machine->conts++;
        fake_machine_emit(machine, MACHINE_EVENT_RESUME, 0);
    } else if (!result && op->kind == FAKE_RESET) {
        machine->resets++;
        fake_machine_emit(machine, MACHINE_EVENT_RESET, op->cause);
    } else if (op->kind == FAKE_QUIT) {
        fake_machine_emit(machine, MACHINE_EVENT_SHUTDOWN, op->cause);
    }
    if (op->on_done)
        op->on_done(op->opaque, result, &err);
}

static void run_ops(struct loop_task *task)
{
    struct machine *machine = container_of(task, struct machine, step);
    unsigned count = machine->op_count;
    struct fake_op ops[ARRAY_SIZE(machine->ops)];
    memcpy(ops, machine->ops, sizeof(ops));
    machine->op_count = 0;
    for (unsigned i = 0; i < count; i++)
        run_op(machine, &ops[i]);
}

static void add_op(struct machine *machine, struct fake_op op)
{
    CHECK(machine->op_count < ARRAY_SIZE(machine->ops));
    machine->ops[machine->op_count++] = op;
    if (!machine->is_held)
        loop_task_queue(&machine->step);
}

void fake_machine_release(struct machine *machine)
{
    machine->is_held = false;
    loop_task_queue(&machine->step);
}

void fake_machine_emit(struct machine *machine, enum machine_event event,
                       enum machine_shutdown_cause cause)
{
    if (machine->listener.on_event)
        machine->listener.on_event(machine->listener.opaque, event, cause);
}

void fake_machine_trap(struct machine *machine, unsigned cpu, const struct accel_exit *exit)
{
    CHECK(machine->state == MACHINE_RUNNING);
    machine->state = MACHINE_PAUSED;
    fake_machine_emit(machine, MACHINE_EVENT_STOP, 0);
    machine->debugger.on_stopped(machine->debugger.opaque, cpu, exit);
}

static struct fake_cpu *fake_cpu_of(struct accel_vcpu *cpu)
{
    return container_of(cpu, struct fake_cpu, accel);
}

static int get_state(struct accel_vcpu *cpu, unsigned groups, struct accel_vcpu_state *out)
{
    (void)groups;
    *out = fake_cpu_of(cpu)->state;
    return 0;
}

static int set_state(struct accel_vcpu *cpu, unsigned groups, const struct accel_vcpu_state *state)
{
    struct accel_vcpu_state *to = &fake_cpu_of(cpu)->state;
    if (groups & ACCEL_STATE_REGS)
        to->regs = state->regs;
    if (groups & ACCEL_STATE_SREGS)
        to->sregs = state->sregs;
    if (groups & ACCEL_STATE_FPU)
        to->fpu = state->fpu;
    if (groups & ACCEL_STATE_XSAVE)
        to->xsave = state->xsave;
    if (groups & ACCEL_STATE_EVENTS)
        to->events = state->events;
    return 0;
}

static int set_debug(struct accel_vcpu *cpu, const struct kvm_guest_debug *debug)
{
    fake_cpu_of(cpu)->debug = *debug;
    return 0;
}

static int translate(struct accel_vcpu *cpu, uint64_t address, uint64_t *gpa)
{
    (void)cpu;
    if (address < FAKE_VIRTUAL)
        return -EFAULT;
    *gpa = address - FAKE_VIRTUAL;
    return 0;
}

static void take_message(struct accel_vm *vm, uint64_t address, uint32_t data)
{
    struct machine *machine = container_of(vm, struct machine, vm);
    machine->message_address = address;
    machine->message_data = data;
    machine->messages++;
}

static const struct accel_ops fake_accel_ops = {
    .name = "fake",
    .vcpu_get_state = get_state,
    .vcpu_set_state = set_state,
    .vcpu_set_debug = set_debug,
    .vcpu_translate = translate,
    .msi = take_message,
};

static void init_cpus(struct machine *machine)
{
    machine->vm.ops = &fake_accel_ops;
    for (unsigned i = 0; i < ARRAY_SIZE(machine->cpus); i++)
        machine->cpus[i].accel = (struct accel_vcpu){.vm = &machine->vm, .index = i};
    machine->mem.regions[0] =
        (struct guest_mem_region){.size = FAKE_RAM_BYTES, .host = machine->ram};
    machine->mem.region_count = 1;
}

static size_t terminal_write(struct char_backend *backend, const void *bytes, size_t length)
{
    struct chardev *terminal = container_of(backend, struct chardev, backend);
    if (terminal->is_full)
        return 0;
    length = MIN(length, sizeof(terminal->output) - 1 - terminal->output_length);
    memcpy(terminal->output + terminal->output_length, bytes, length);
    terminal->output_length += length;
    terminal->output[terminal->output_length] = 0;
    return length;
}

static void terminal_accept_input(struct char_backend *backend)
{
    (void)backend;
}

void fake_terminal_type(struct chardev *terminal, const char *text)
{
    const struct char_user_ops *ops = terminal->backend.user_ops;
    size_t room = ops->input_room(terminal->backend.user);
    CHECK(strlen(text) <= room);
    ops->on_input(terminal->backend.user, (const uint8_t *)text, strlen(text));
}

void fake_machine_init(struct machine *machine, struct loop *loop, struct vm_config *config)
{
    static const struct char_backend_ops terminal_ops = {terminal_write, terminal_accept_input};
    static const struct net_backend_ops nic_ops = {.kind = "user"};
    memset(machine, 0, sizeof(*machine));
    machine->loop = loop;
    machine->config = config;
    machine->state = MACHINE_RUNNING;
    loop_task_init(loop, &machine->step, LOOP_STAGE_COMPLETE, run_ops);
    machine->disks[0] = (struct disk){.path = "/tmp/top.qcow2",
                                      .format = "qcow2",
                                      .size_bytes = 1 << 30,
                                      .backing = &machine->disks[1]};
    machine->disks[1] = (struct disk){
        .path = "/tmp/base.raw", .format = "raw", .size_bytes = 1 << 20, .read_only = true};
    net_backend_init(&machine->nic, &nic_ops, loop, "net0");
    machine->backend = &machine->nic;
    init_cpus(machine);
    machine->terminal.backend.ops = &terminal_ops;
    machine->terminal.backend.is_open = true;
}

void fake_machine_fini(struct machine *machine)
{
    loop_task_cancel(&machine->step);
}

const char *machine_state_name(enum machine_state state)
{
    static const char *const names[] = {"prelaunch", "running",        "paused",        "shutdown",
                                        "io-error",  "internal-error", "guest-panicked"};
    return names[state];
}

const char *machine_job_status(unsigned index)
{
    return index == 0 ? "running" : NULL;
}

const char *machine_job_type(unsigned index)
{
    return index == 0 ? "mirror" : NULL;
}

const char *machine_shutdown_cause_name(enum machine_shutdown_cause cause)
{
    static const char *const names[] = {
        "host-qmp-quit",  "host-qmp-system-reset", "host-signal", "host-ui",    "host-error",
        "guest-shutdown", "guest-reset",           "guest-panic", "guest-reset"};
    return names[cause];
}

const char *machine_shutdown_cause_detail(enum machine_shutdown_cause cause)
{
    return cause == SHUTDOWN_GUEST_TRIPLE_FAULT ? "triple-fault" : NULL;
}

bool machine_shutdown_cause_is_guest(enum machine_shutdown_cause cause)
{
    return cause >= SHUTDOWN_GUEST_SHUTDOWN;
}

void machine_set_listener(struct machine *machine, const struct machine_listener *listener)
{
    machine->listener = *listener;
}

void machine_set_debugger(struct machine *machine, const struct machine_debugger *debugger)
{
    machine->debugger = *debugger;
}

struct accel_vcpu *machine_accel_vcpu(const struct machine *machine, unsigned index)
{
    return (struct accel_vcpu *)&machine->cpus[index].accel;
}

const struct guest_mem *machine_guest_mem(const struct machine *machine)
{
    return &machine->mem;
}

void machine_stop(struct machine *machine, machine_done_fn *on_done, void *opaque)
{
    add_op(machine, (struct fake_op){.kind = FAKE_STOP, .on_done = on_done, .opaque = opaque});
}

void machine_cont(struct machine *machine, machine_done_fn *on_done, void *opaque)
{
    add_op(machine, (struct fake_op){.kind = FAKE_CONT, .on_done = on_done, .opaque = opaque});
}

void machine_reset(struct machine *machine, enum machine_shutdown_cause cause,
                   machine_done_fn *on_done, void *opaque)
{
    add_op(machine, (struct fake_op){
                        .kind = FAKE_RESET, .cause = cause, .on_done = on_done, .opaque = opaque});
}

void machine_set_actions(struct machine *machine, bool no_reboot, bool no_shutdown)
{
    machine->config->no_reboot = no_reboot;
    machine->config->no_shutdown = no_shutdown;
}

void machine_inspect(struct machine *machine, machine_done_fn *on_done, void *opaque)
{
    add_op(machine, (struct fake_op){.kind = FAKE_INSPECT, .on_done = on_done, .opaque = opaque});
}

/* Ports remember what was written, all of them the same. */
void machine_access_port(struct machine *machine, uint16_t port, unsigned size_bytes, bool is_write,
                         uint64_t *value)
{
    if (is_write)
        machine->port_value = *value;
    else
        *value = (machine->port_value + port) & ((UINT64_C(1) << 8 * size_bytes) - 1);
}

void machine_for_each_range(const struct machine *machine, enum bus_space space,
                            void (*visit)(void *opaque, const struct machine_range *range),
                            void *opaque)
{
    const struct machine_range ram = {.name = "ram-below-4g",
                                      .size_bytes = machine->mem.regions[0].size,
                                      .kind = MACHINE_RANGE_RAM,
                                      .alias_of = "pc.ram"};
    const struct machine_range port = {.name = "serial", .base = 0x3f8, .size_bytes = 8};
    visit(opaque, space == BUS_PIO ? &port : &ram);
}

void machine_powerdown(struct machine *machine)
{
    machine->powerdowns++;
    fake_machine_emit(machine, MACHINE_EVENT_POWERDOWN, 0);
}

void machine_quit(struct machine *machine, enum machine_shutdown_cause cause)
{
    machine->quits++;
    add_op(machine, (struct fake_op){.kind = FAKE_QUIT, .cause = cause});
}

enum machine_state machine_get_state(const struct machine *machine)
{
    return machine->state;
}

const struct vm_config *machine_config(const struct machine *machine)
{
    return machine->config;
}

const char *machine_accel_name(const struct machine *machine)
{
    (void)machine;
    return "kvm";
}

/* SSE3 is all that is there of leaf 1's ECX. */
int machine_offered_cpuid(const struct machine *machine, struct accel_cpuid *out)
{
    (void)machine;
    *out = (struct accel_cpuid){.header.nent = 1};
    out->entries[0] = (struct kvm_cpuid_entry2){.function = 1, .ecx = 1, .edx = UINT32_MAX};
    return 0;
}

struct disk *machine_disk(const struct machine *machine, unsigned index)
{
    return (struct disk *)&machine->disks[index];
}

int machine_disk_error(const struct machine *machine, unsigned index)
{
    return machine->disks[index].held_error;
}

const struct address_snoop *machine_nic_addresses(const struct machine *machine, unsigned index)
{
    (void)index;
    return &machine->addresses;
}

const struct net_filter *machine_read_filter(const struct machine *machine, unsigned index)
{
    return machine->config->nics[index].has_device ? &machine->filter : NULL;
}

void machine_take_io_threads(struct machine *machine)
{
    (void)machine;
}

pid_t machine_io_thread_id(const struct machine *machine, unsigned index)
{
    CHECK(machine->config->guest.io_threads[index]);
    return 200 + (pid_t)index;
}

const struct throttle_limits *machine_throttle_limits(const struct machine *machine, unsigned index)
{
    return machine->config->guest.throttle_groups[index].limits;
}

void machine_set_throttle_limits(struct machine *machine, unsigned index,
                                 const struct throttle_limits *limits)
{
    *machine->config->guest.throttle_groups[index].limits = *limits;
}

struct net_backend *machine_net_backend(const struct machine *machine, unsigned index)
{
    return index ? NULL : machine->backend;
}

struct chardev *machine_chardev(const struct machine *machine, unsigned index)
{
    enum config_chardev_kind kind = machine->config->chardevs[index].kind;
    return kind == CHARDEV_STDIO ? (struct chardev *)&machine->terminal : NULL;
}

bool machine_has_cpu(const struct machine *machine, int64_t index)
{
    return index >= 0 && index < machine->config->cpus;
}

void machine_get_cpu(const struct machine *machine, unsigned index, struct machine_cpu_info *out)
{
    *out = (struct machine_cpu_info){.index = index,
                                     .core = index,
                                     .thread_id = 100 + (int)index,
                                     .is_present = machine_has_cpu(machine, index),
                                     .id = ""};
}

void machine_for_each_stat(const struct machine *machine,
                           void (*emit)(void *opaque, const char *group, const char *name,
                                        uint64_t value),
                           void *opaque)
{
    (void)machine;
    emit(opaque, "vcpu0", "exits.pio", 7);
    emit(opaque, "vcpu0", "exits.mmio", 8);
    emit(opaque, "loop", "turns", UINT64_MAX);
}

const char *chardev_filename(const struct chardev *chardev)
{
    (void)chardev;
    return "stdio";
}

int chardev_attach(struct chardev *chardev, struct char_backend **out, struct error *err)
{
    (void)err;
    *out = &chardev->backend;
    return 0;
}

uint64_t disk_size_bytes(const struct disk *disk)
{
    return disk->size_bytes;
}

bool disk_is_read_only(const struct disk *disk)
{
    return disk->read_only;
}

const char *disk_path(const struct disk *disk)
{
    return disk->path;
}

const char *disk_format(const struct disk *disk)
{
    return disk->format;
}

const struct disk *disk_backing(const struct disk *disk)
{
    return disk->backing;
}

void disk_get_stats(const struct disk *disk, struct disk_stats *stats)
{
    (void)disk;
    memset(stats, 0, sizeof(*stats));
    stats->by_op[DISK_READ].operations = 3;
    stats->by_op[DISK_READ].bytes = 4096;
    stats->by_op[DISK_FLUSH].operations = 2;
}

void disk_resize(struct disk *disk, uint64_t size_bytes,
                 void (*on_done)(void *opaque, int result, const struct error *err), void *opaque)
{
    disk->size_bytes = size_bytes;
    on_done(opaque, disk->resize_result, NULL);
}

bool machine_get_balloon(const struct machine *machine, struct machine_balloon *out)
{
    if (machine->has_balloon)
        *out = machine->balloon;
    return machine->has_balloon;
}

int machine_set_balloon(struct machine *machine, uint64_t bytes)
{
    machine->balloon.actual_bytes = MIN(bytes, machine->config->ram_bytes);
    return machine->has_balloon ? 0 : -ENODEV;
}

int machine_set_balloon_polling(struct machine *machine, uint64_t period_s)
{
    machine->balloon.polling_s = period_s;
    return machine->has_balloon ? 0 : -ENODEV;
}

bool machine_get_mem(const struct machine *machine, unsigned index, struct machine_mem *out)
{
    (void)index;
    *out = machine->mem_device;
    return true;
}

int machine_request_mem(struct machine *machine, unsigned index, uint64_t bytes, struct error *err)
{
    (void)index;
    if (bytes > machine->mem_device.size_bytes)
        return error_set(err, EINVAL, "'requested-size' cannot exceed the memory backend size");
    machine->mem_device.requested_bytes = bytes;
    return 0;
}

bool machine_resize_console(struct machine *machine, const char *chardev, unsigned columns,
                            unsigned rows)
{
    machine->console_columns = columns;
    machine->console_rows = rows;
    return strcmp(chardev, "hvc") == 0;
}

bool machine_port_is_open(const struct machine *machine, unsigned index)
{
    return machine->port_is_open & 1u << index;
}

/* Hot-plug: what was asked for is written down, and fails where a test wants it to. */

static int note(struct machine *machine, const char *verb, const char *argument, struct error *err)
{
    snprintf(machine->hotplug, sizeof(machine->hotplug), "%s %s", verb, argument);
    if (machine->hotplug_code)
        return error_set(err, machine->hotplug_code, "cannot %s", verb);
    return 0;
}

static int note_list(struct machine *machine, const char *verb, const struct keyval *list,
                     struct error *err)
{
    char text[1024] = "";
    for (unsigned i = 0; i < list->count; i++) {
        size_t length = strlen(text);
        snprintf(text + length, sizeof(text) - length, "%s%s=%s", i ? "," : "", list->pairs[i].key,
                 list->pairs[i].value);
    }
    return note(machine, verb, text, err);
}

int machine_device_add(struct machine *machine, struct keyval *list, struct error *err)
{
    return note_list(machine, "device_add", list, err);
}

int machine_device_del(struct machine *machine, const char *id, struct error *err)
{
    return note(machine, "device_del", id, err);
}

int machine_netdev_add(struct machine *machine, struct keyval *list, struct error *err)
{
    return note_list(machine, "netdev_add", list, err);
}

/* A close answers a turn later. */
static int close_later(struct machine *machine, const char *verb, const char *name,
                       machine_done_fn *on_done, void *opaque, struct error *err)
{
    int result = note(machine, verb, name, err);
    if (!result)
        add_op(machine, (struct fake_op){.kind = FAKE_CLOSE, .on_done = on_done, .opaque = opaque});
    return result;
}

int machine_netdev_del(struct machine *machine, const char *id, machine_done_fn *on_done,
                       void *opaque, struct error *err)
{
    return close_later(machine, "netdev_del", id, on_done, opaque, err);
}

int machine_nic_set_netdev(struct machine *machine, const char *nic, const char *netdev,
                           struct error *err)
{
    char text[160];
    snprintf(text, sizeof(text), "%s %s", nic, netdev);
    return note(machine, "nic-set-netdev", text, err);
}

static int add_later(struct machine *machine, const char *what, struct keyval *list,
                     machine_done_fn *on_done, void *opaque, struct error *err)
{
    int result = note_list(machine, what, list, err);
    if (!result)
        add_op(machine, (struct fake_op){.kind = FAKE_CLOSE, .on_done = on_done, .opaque = opaque});
    return result;
}

int machine_blockdev_add(struct machine *machine, struct keyval *list, machine_done_fn *on_done,
                         void *opaque, struct error *err)
{
    return add_later(machine, "blockdev-add", list, on_done, opaque, err);
}

int machine_blockdev_reopen(struct machine *machine, struct keyval *lists, unsigned count,
                            machine_done_fn *on_done, void *opaque, struct error *err)
{
    CHECK(count);
    return add_later(machine, "blockdev-reopen", &lists[count - 1], on_done, opaque, err);
}

int machine_blockdev_del(struct machine *machine, const char *name, machine_done_fn *on_done,
                         void *opaque, struct error *err)
{
    return close_later(machine, "blockdev-del", name, on_done, opaque, err);
}

int machine_drive_add(struct machine *machine, struct keyval *list, machine_done_fn *on_done,
                      void *opaque, struct error *err)
{
    return add_later(machine, "drive_add", list, on_done, opaque, err);
}

int machine_drive_del(struct machine *machine, const char *id, machine_done_fn *on_done,
                      void *opaque, struct error *err)
{
    return close_later(machine, "drive_del", id, on_done, opaque, err);
}

int machine_object_add(struct machine *machine, struct keyval *list, struct error *err)
{
    return note_list(machine, "object-add", list, err);
}

int machine_object_del(struct machine *machine, const char *id, struct error *err)
{
    return note(machine, "object-del", id, err);
}

struct disk *machine_find_disk(const struct machine *machine, const char *name)
{
    for (unsigned i = 0; i < machine->config->disk_count; i++)
        if (strcmp(machine->config->disks[i].id, name) == 0)
            return machine_disk(machine, i);
    return NULL;
}

void machine_cpu_type(const struct machine *machine, char *text, size_t size)
{
    (void)machine;
    snprintf(text, size, "host-x86_64-cpu");
}

const char *disk_node_name(const struct disk *disk)
{
    return disk->path[5] == 't' ? "virtio0" : "virtio1";
}

const struct throttle_limits *disk_get_limits(const struct disk *disk)
{
    static const struct throttle_limits none;
    (void)disk;
    return &none;
}

const char *disk_throttle_group(const struct disk *disk)
{
    (void)disk;
    return NULL;
}

const struct disk_histogram *disk_get_histogram(const struct disk *disk, enum disk_op op)
{
    (void)disk, (void)op;
    return NULL;
}

struct list *disk_bitmaps(struct disk *disk)
{
    static struct list none = LIST_INIT(none);
    (void)disk;
    return &none;
}

uint64_t dirty_bitmap_count_bytes(const struct dirty_bitmap *bitmap)
{
    (void)bitmap;
    return 0;
}

size_t disk_snapshot_count(const struct disk *disk)
{
    return disk->snapshot ? 1 : 0;
}

void disk_snapshot_get(const struct disk *disk, size_t index, struct disk_snapshot_info *out)
{
    (void)index;
    *out = (struct disk_snapshot_info){.id = "1", .name = disk->snapshot};
}

/* Answers with what it was asked; snapshots are gone then, and there are two jobs. */
void machine_block_command(struct machine *machine, const char *name, const json_t *arguments,
                           machine_block_fn *done, void *opaque)
{
    (void)arguments;
    if (strcmp(name, "query-block-jobs") == 0) {
        done(opaque,
             json_pack("[{s:s,s:s,s:i,s:i,s:i},{s:s,s:s,s:i,s:i,s:i}]", "type", "mirror", "device",
                       "j1", "offset", 1, "len", 2, "speed", 3, "type", "stream", "device", "j2",
                       "offset", 4, "len", 5, "speed", 0),
             NULL, NULL);
        return;
    }
    if (strstr(name, "delete"))
        machine->disks[0].snapshot = NULL;
    done(opaque, json_pack("{s:s}", "command", name), NULL, NULL);
}

int machine_guest_forward_target(struct machine *machine, struct config_guest_forward *forward,
                                 struct error *err)
{
    (void)machine;
    if (!forward->chardev)
        return 0;
    return error_set(err, ENOENT, "guestfwd: there is no chardev with id=%s", forward->chardev);
}

struct chardev *machine_find_chardev(const struct machine *machine, const char *id)
{
    for (unsigned i = 0; i < machine->config->chardev_count; i++)
        if (strcmp(machine->config->chardevs[i].id, id) == 0)
            return (struct chardev *)&machine->terminal;
    return NULL;
}

int machine_chardev_add(struct machine *machine, struct keyval *list, struct error *err)
{
    (void)machine;
    return error_set(err, EEXIST, "Chardev with id '%s' already exists", keyval_get(list, "id"));
}

int machine_chardev_remove(struct machine *machine, const char *id, machine_done_fn *on_done,
                           void *opaque, struct error *err)
{
    (void)on_done, (void)opaque;
    if (!machine_find_chardev(machine, id))
        return error_set(err, ENOENT, "Chardev '%s' not found", id);
    return error_set(err, EBUSY, "Chardev '%s' is busy", id);
}

bool chardev_is_ringbuf(const struct chardev *chardev)
{
    (void)chardev;
    return true;
}

size_t chardev_ringbuf_read(struct chardev *chardev, void *to, size_t length)
{
    length = MIN(length, chardev->output_length);
    memcpy(to, chardev->output, length);
    chardev->output_length = 0;
    return length;
}

void chardev_ringbuf_write(struct chardev *chardev, const void *bytes, size_t length)
{
    terminal_write(&chardev->backend, bytes, length);
}

void chardev_send_break(struct chardev *chardev)
{
    chardev->breaks++;
}

bool machine_get_pci(const struct machine *machine, unsigned slot, struct machine_pci *out)
{
    (void)machine;
    *out = (struct machine_pci){.vendor = 0x1af4,
                                .device = 0x1000,
                                .class = 0x0200,
                                .irq_pin = 1,
                                .kind = "virtio-net-pci",
                                .id = "nic0"};
    out->bars[0] = (struct machine_pci_bar){.size_bytes = 4096, .address = UINT64_MAX};
    return slot == 3;
}
