/* SPDX-License-Identifier: MIT */
/*
 * options_device: -device. Kept as text until all options are read, since the drive or netdev that
 * a device names may come after it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "vmm/options/keyval_json.h"
#include "vmm/options/options_private.h"

static const char one_bus[] = "all devices sit on the one bus pcie.0; leave it out";
static const char modern[] = "devices are modern virtio (1.x) only; leave it out";

#define PCI_KEYS                                                                                   \
    {"driver", NULL, NULL}, {"id", NULL, NULL}, {"bus", "pcie.0|pci.0", one_bus},                  \
        {"addr", NULL, NULL}, {"romfile", "*", NULL},                 \
        {"rombar", "*", NULL}, {"disable-legacy", "on|auto", modern},                              \
    {                                                                                              \
        "disable-modern", "off", modern                                                            \
    }

static const struct keyval_known blk_known[] = {
    PCI_KEYS,
    {"bootindex", NULL, NULL},
    {"drive", NULL, NULL},
    {"serial", NULL, NULL},
    {"write-cache", NULL, NULL},
    {"num-queues", NULL, NULL},
    {"scsi", "off", "SCSI commands are not there; leave it out"},
    {"iothread", NULL, NULL},
    {"config-wce", "*", NULL},
    {"queue-size", "*", NULL},
    {0}};

static const struct keyval_known net_known[] = {
    PCI_KEYS,
    {"bootindex", "*", NULL}, /* no NIC has a boot ROM; as QEMU where the ROM finds no server */
    {"netdev", NULL, NULL},
    {"mac", NULL, NULL},
    {"host_mtu", NULL, NULL},
    {"csum", NULL, NULL},
    {"gso", NULL, NULL},
    {"host_tso4", NULL, NULL},
    {"host_tso6", NULL, NULL},
    {"host_ecn", NULL, NULL},
    {"guest_csum", NULL, NULL},
    {"guest_tso4", NULL, NULL},
    {"guest_tso6", NULL, NULL},
    {"guest_ecn", NULL, NULL},
    {"guest_announce", NULL, NULL},
    {"mrg_rxbuf", NULL, NULL},
    {"host_ufo", "off", "UDP is not segmented here; leave it out"},
    {"guest_ufo", "off", "UDP is not segmented here; leave it out"},
    {"mq", "off", "the NIC has one pair of queues; leave it out"},
    {"vectors", "*", NULL},
    {"rx_queue_size", "*", NULL},
    {"tx_queue_size", "*", NULL},
    {0}};

static const struct keyval_known rng_known[] = {
    PCI_KEYS,
    {"rng", NULL, NULL},
    {"max-bytes", "", "there is no limit on the guest's entropy; leave it out"},
    {"period", "*", NULL},
    {0}};

static const struct keyval_known balloon_known[] = {
    PCI_KEYS,
    {"deflate-on-oom", NULL, NULL},
    {"free-page-reporting", NULL, NULL},
    {"guest-stats-polling-interval", NULL, NULL},
    {"free-page-hint", "off", "hints serve migration only; use free-page-reporting=on"},
    {"page-poison", "*", NULL},
    {"iothread", "", "what the host takes of the balloon is no work for a thread; leave it out"},
    {0}};

static const struct keyval_known serial_bus_known[] = {
    PCI_KEYS, {"max_ports", NULL, NULL}, {"vectors", "*", NULL}, {"emergency-write", "*", NULL}, {0}};

static const struct keyval_known serial_port_known[] = {
    {"driver", NULL, NULL}, {"id", NULL, NULL},   {"bus", NULL, NULL}, {"chardev", NULL, NULL},
    {"name", NULL, NULL},   {"nr", NULL, NULL},   {0}};

static const struct keyval_known mem_known[] = {
    PCI_KEYS,
    {"memdev", NULL, NULL},
    {"requested-size", NULL, NULL},
    {"block-size", NULL, NULL},
    {"memaddr", "", "evisor places it after the memory of -m; leave it out"},
    {"node", "0", "the guest has one NUMA node; leave it out"},
    {"prealloc", "off", "memory is taken from the host when it is first used; leave it out"},
    {"unplugged-inaccessible", "*", NULL},
    {0}};

static int attach_rng(struct options *options, struct keyval *device, struct error *err)
{
    const char *id = keyval_get(device, "rng");
    int object = id ? options_find_rng_object(&options->config->guest, id) : -1;
    if (id && object < 0)
        return error_set(err, ENOENT, "%s: there is no -object rng-builtin with id=%s",
                         device->option, id);
    struct vm_config *config = options->config;
    if (config->rng_count == CONFIG_RNG_MAX)
        return error_set(err, E2BIG, "%s: more than %d of them", device->option, CONFIG_RNG_MAX);
    struct config_rng *rng = &config->rngs[config->rng_count++];
    keyval_string(device, "id", &rng->qdev_id);
    rng->object = object;
    return options_read_slot(device, &rng->pci_slot, err);
}

static const struct device_kind {
    const char *names; /* the first is the real one */
    const struct keyval_known *known;
    int (*attach)(struct options *options, struct keyval *device, struct error *err);
    const char *about;
} kinds[] = {
    {"virtio-blk-pci|virtio-blk|virtio-blk-pci-non-transitional", blk_known, options_attach_drive,
     "disk of a -drive if=none: drive=ID[,serial=TEXT][,num-queues=N][,iothread=ID]"},
    {"virtio-net-pci|virtio-net|virtio-net-pci-non-transitional", net_known, options_attach_net,
     "NIC of a -netdev: netdev=ID[,mac=ADDRESS]"},
    {"virtio-rng-pci|virtio-rng|virtio-rng-pci-non-transitional", rng_known, attach_rng,
     "random numbers of the host"},
    {"virtio-balloon-pci|virtio-balloon|virtio-balloon-pci-non-transitional", balloon_known,
     options_attach_balloon, "memory that the guest can give back"},
    {"virtio-serial-pci|virtio-serial|virtio-serial-pci-non-transitional", serial_bus_known,
     options_attach_serial_bus, "bus of serial ports: [max_ports=NUMBER]"},
    {"virtserialport", serial_port_known, options_attach_serial_port,
     "named port, as for an agent: chardev=ID,name=NAME"},
    {"virtconsole", serial_port_known, options_attach_serial_port,
     "one more console (hvc0): chardev=ID"},
    {"virtio-mem-pci|virtio-mem", mem_known, options_attach_mem,
     "memory that grows and shrinks: memdev=ID[,requested-size=SIZE]"},
};

/* Devices that people ask for by habit, and what to use instead. */
static const struct {
    const char *prefix, *instead;
} refusals[] = {
    {"ide-", "use virtio-blk-pci; the guest then sees /dev/vda"},
    {"ahci", "there is no SATA; use virtio-blk-pci"},
    {"ich9-ahci", "there is no SATA; use virtio-blk-pci"},
    {"scsi-", "use virtio-blk-pci"},
    {"virtio-scsi", "use virtio-blk-pci for each disk"},
    {"nvme", "use virtio-blk-pci"},
    {"megasas", "use virtio-blk-pci"},
    {"lsi", "use virtio-blk-pci"},
    {"usb-", "there is no USB; use virtio devices"},
    {"qemu-xhci", "there is no USB; use virtio devices"},
    {"nec-usb", "there is no USB; use virtio devices"},
    {"e1000", "use virtio-net-pci"},
    {"rtl8139", "use virtio-net-pci"},
    {"ne2k", "use virtio-net-pci"},
    {"vmxnet3", "use virtio-net-pci"},
    {"VGA", "there is no screen; use -nographic and a serial console"},
    {"virtio-vga", "there is no screen; use -nographic and a serial console"},
    {"virtio-gpu", "there is no screen; use -nographic and a serial console"},
    {"qxl", "there is no screen; use -nographic and a serial console"},
    {"pc-dimm", "use virtio-mem-pci, which grows and shrinks"},
    {"virtio-pmem", "use virtio-blk-pci"},
    {"virtio-9p", "shared folders are not there; copy files over ssh"},
    {"vhost-", "vhost devices are not there; use virtio devices"},
    {"pcie-root-port", "all devices sit on the one bus pcie.0; leave it out"},
    {"pvpanic", "it is always there; leave it out"},
    {"isa-serial", "use -serial"},
    {"vfio-pci", "passing devices of the host through is not there"},
    {"intel-hda", "there is no sound"},
    {"AC97", "there is no sound"},
};

int options_read_slot(const struct keyval *device, unsigned *slot, struct error *err)
{
    const char *text = keyval_get(device, "addr");
    unsigned function = 0;
    int slot_end = 0, end = 0;
    if (!text)
        return 0;
    int fields = sscanf(text, "%2x%n.%1u%n", slot, &slot_end, &function, &end);
    bool is_whole = fields >= 1 && !text[fields == 1 ? slot_end : end] && text[0] != '-';
    if (strncmp(text, "0x", 2) == 0)
        is_whole = sscanf(text, "%4x%n", slot, &end) == 1 && !text[end];
    if (!is_whole || function || !*slot || *slot >= PCI_SLOT_MAX - 1)
        return error_set(err, EINVAL, "%s: addr=%s: say a slot from 1 to 1e, in hexadecimal",
                         device->option, text);
    return 0;
}

static const struct device_kind *find_kind(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        if (keyval_name_index(kinds[i].names, name) >= 0)
            return &kinds[i];
    return NULL;
}

const struct keyval_known *options_device_known(const char *driver, const char **names)
{
    const struct device_kind *kind = find_kind(driver);
    if (!kind)
        return NULL;
    *names = kind->names;
    return kind->known;
}

static int refuse_device(const struct keyval *device, const char *name, struct error *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(refusals); i++)
        if (strncasecmp(name, refusals[i].prefix, strlen(refusals[i].prefix)) == 0)
            return error_set(err, ENOTSUP, "%s: device %s is not there: %s", device->option, name,
                             refusals[i].instead);
    struct suggest suggest;
    suggest_init(&suggest, name);
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        char first[32];
        snprintf(first, sizeof(first), "%.*s", (int)strcspn(kinds[i].names, "|"), kinds[i].names);
        const char *before = suggest.best;
        suggest_offer(&suggest, first);
        if (suggest.best != before)
            suggest.best = kinds[i].names;
    }
    if (suggest.best)
        return error_set(err, EINVAL, "%s: unknown device '%s'; did you mean '%.*s'?",
                         device->option, name, (int)strcspn(suggest.best, "|"), suggest.best);
    return error_set(err, EINVAL, "%s: unknown device '%s'; see evisor -device help",
                     device->option, name);
}

static char *list_text(void)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);
    CHECK(to);
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        fprintf(to, "name \"%.*s\", %s\n", (int)strcspn(kinds[i].names, "|"), kinds[i].names,
                kinds[i].about);
    CHECK(fclose(to) == 0);
    return text;
}

int option_device(struct options *options, const struct option_entry *entry, const char *argument,
                  struct error *err)
{
    (void)entry;
    if (strcmp(argument, "help") == 0 || strcmp(argument, "?") == 0) {
        options->text = list_text();
        return 0;
    }
    if (options->device_count == OPTIONS_DEVICE_MAX)
        return error_set(err, E2BIG, "-device %s: more than %d devices", argument,
                         OPTIONS_DEVICE_MAX);
    struct keyval *device = &options->devices[options->device_count];
    int result = keyval_parse_either(device, "-device", argument, "driver", err);
    if (result)
        return result;
    options->device_count++;
    const char *name = keyval_get(device, "driver");
    if (!name || !find_kind(name))
        return refuse_device(device, name ? name : "", err);
    return keyval_check(device, find_kind(name)->known, err);
}

static int check_id(const struct options *options, unsigned index, struct error *err)
{
    const char *id = keyval_get(&options->devices[index], "id");
    if (id && strlen(id) > 63)
        return error_set(err, EINVAL, "%s: an id has at most 63 bytes",
                         options->devices[index].option);
    for (unsigned i = 0; id && i < index; i++) {
        const char *other = keyval_get(&options->devices[i], "id");
        if (other && strcmp(other, id) == 0)
            return error_set(err, EEXIST, "%s: there is another device with id=%s",
                             options->devices[index].option, id);
    }
    return 0;
}

static bool is_port(const struct keyval *device)
{
    return find_kind(keyval_get(device, "driver"))->attach == options_attach_serial_port;
}

static int attach(struct options *options, unsigned index, struct error *err)
{
    struct keyval *device = &options->devices[index];
    return find_kind(keyval_get(device, "driver"))->attach(options, device, err);
}

int options_finish_devices(struct options *options, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i < options->device_count && !result; i++) {
        result = check_id(options, i, err);
        if (!result && !is_port(&options->devices[i]))
            result = attach(options, i, err);
    }
    /* Ports sit on a bus that may have come after them. */
    for (unsigned i = 0; i < options->device_count && !result; i++)
        if (is_port(&options->devices[i]))
            result = attach(options, i, err);
    return result;
}
