/* SPDX-License-Identifier: MIT */
/* portable: reads .ovf (DMTF DSP0243), VirtualBox's .vbox and VMware's .vmx; writes .ovf. */
#include "tools/evctl/portable.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/evctl/model.h"
#include "tools/evctl/xml.h"

#define DESCRIPTION_MAX_BYTES (4u << 20)

/* CIM_ResourceAllocationSettingData.ResourceType */
enum {
    RESOURCE_CPU = 3,
    RESOURCE_MEMORY = 4,
    RESOURCE_SCSI = 6,
    RESOURCE_NIC = 10,
    RESOURCE_CDROM = 15,
    RESOURCE_DISK = 17
};

static json_t *new_plan(void)
{
    return json_pack("{s:i, s:i, s:[], s:[], s:[]}", "cpus", 1, "memory-mib", 1024, "disks", "nics",
                     "forwards");
}

static void plan_number(json_t *plan, const char *key, const char *text, double scale)
{
    double value = strtod(text, NULL) * scale;
    if (value >= 1 && value < 1e9)
        json_object_set_new(plan, key, json_integer((json_int_t)value));
}

static void plan_disk(json_t *plan, const char *file, const char *kind)
{
    if (*file)
        json_array_append_new(json_object_get(plan, "disks"),
                              json_pack("{s:s, s:s}", "file", file, "kind", kind));
}

static void plan_nic(json_t *plan, const char *mode, const char *name)
{
    json_array_append_new(json_object_get(plan, "nics"),
                          json_sprintf("%s%s%s", mode, *name ? " " : "", name));
}

/* --- OVF --- */

/* "byte * 2^20" counts MiB; "MegaBytes" too. */
static double unit_mib(const char *units)
{
    const char *power = strstr(units, "2^");
    if (power)
        return (double)(UINT64_C(1) << MIN(strtoul(power + 2, NULL, 10), 40ul)) / (1 << 20);
    if (strncasecmp(units, "giga", 4) == 0)
        return 1024;
    return strncasecmp(units, "kilo", 4) == 0 ? 1.0 / 1024 : 1;
}

static struct xml_node *find_with(struct xml_node *root, const char *name, const char *attribute,
                                  const char *value)
{
    struct xml_node *node = NULL;
    while ((node = xml_find(root, node, name)))
        if (strcmp(xml_attribute(node, attribute), value) == 0)
            return node;
    return NULL;
}

/* "ovf:/disk/vmdisk1" names a Disk, which names a File, which names a file. */
static void plan_ovf_disk(json_t *plan, struct xml_node *root, const struct xml_node *item,
                          const char *kind)
{
    const char *resource = xml_child_text(item, "HostResource");
    const char *slash = strrchr(resource, '/'), *id = slash ? slash + 1 : resource;
    struct xml_node *disk = find_with(root, "Disk", "diskId", id);
    struct xml_node *file =
        find_with(root, "File", "id", disk ? xml_attribute(disk, "fileRef") : id);
    if (file)
        plan_disk(plan, xml_attribute(file, "href"), kind);
}

static void plan_ovf_item(json_t *plan, struct xml_node *root, const struct xml_node *item)
{
    const char *quantity = xml_child_text(item, "VirtualQuantity");
    switch (strtol(xml_child_text(item, "ResourceType"), NULL, 10)) {
    case RESOURCE_CPU:
        plan_number(plan, "cpus", quantity, 1);
        break;
    case RESOURCE_MEMORY:
        plan_number(plan, "memory-mib", quantity,
                    unit_mib(xml_child_text(item, "AllocationUnits")));
        break;
    case RESOURCE_NIC:
        plan_nic(plan, "user", "");
        break;
    case RESOURCE_CDROM:
        plan_ovf_disk(plan, root, item, "iso");
        break;
    case RESOURCE_DISK:
        plan_ovf_disk(plan, root, item, "disk");
        break;
    default:
        break;
    }
}

static json_t *read_ovf(struct xml_node *root, const char *path, struct error *err)
{
    struct xml_node *system = xml_find(root, NULL, "VirtualSystem"), *item = NULL;
    if (!system) {
        error_set(err, EBADMSG, "%s: it describes no VirtualSystem", path);
        return NULL;
    }
    json_t *plan = new_plan();
    const char *name = xml_child_text(system, "Name");
    json_object_set_new(plan, "name", json_string(*name ? name : xml_attribute(system, "id")));
    while ((item = xml_find(system, item, "Item")))
        plan_ovf_item(plan, root, item);
    item = NULL;
    while ((item = xml_find(system, item, "StorageItem")))
        plan_ovf_item(plan, root, item);
    item = NULL;
    while ((item = xml_find(system, item, "EthernetPortItem")))
        plan_nic(plan, "user", "");
    return plan;
}

/* --- .vbox --- */

static void plan_vbox_forwards(json_t *plan, struct xml_node *nat)
{
    struct xml_node *rule = NULL;
    while ((rule = xml_find(nat, rule, "Forwarding"))) {
        char text[160];
        const char *host = xml_attribute(rule, "hostip"), *guest = xml_attribute(rule, "guestip");
        snprintf(text, sizeof(text), "%s:%.40s:%.6s-%.40s:%.6s",
                 strcmp(xml_attribute(rule, "proto"), "0") == 0 ? "udp" : "tcp", host,
                 xml_attribute(rule, "hostport"), guest, xml_attribute(rule, "guestport"));
        char *read = model_read_forward(text, NULL);
        if (read)
            json_array_append_new(json_object_get(plan, "forwards"), json_string(read));
        free(read);
    }
}

static void plan_vbox_adapter(json_t *plan, struct xml_node *adapter)
{
    struct xml_node *node;
    if (strcmp(xml_attribute(adapter, "enabled"), "true") != 0)
        return;
    /* What is not in use stands inside DisabledModes. */
    for (node = adapter->first; node; node = node->next) {
        if (strcmp(node->name, "BridgedInterface") == 0)
            plan_nic(plan, "bridged", xml_attribute(node, "name"));
        else if (strcmp(node->name, "InternalNetwork") == 0)
            plan_nic(plan, "internal", xml_attribute(node, "name"));
        else if (strcmp(node->name, "NAT") == 0 || strcmp(node->name, "NATNetwork") == 0 ||
                 strcmp(node->name, "HostOnlyInterface") == 0)
            plan_nic(plan, "user", "");
        else
            continue;
        plan_vbox_forwards(plan, node);
        return;
    }
    plan_nic(plan, "user", "");
}

static json_t *read_vbox(struct xml_node *root, const char *path, struct error *err)
{
    struct xml_node *machine = xml_find(root, NULL, "Machine"), *node = NULL;
    if (!machine) {
        error_set(err, EBADMSG, "%s: it describes no Machine", path);
        return NULL;
    }
    json_t *plan = new_plan();
    json_object_set_new(plan, "name", json_string(xml_attribute(machine, "name")));
    plan_number(plan, "cpus", xml_attribute(xml_find(machine, NULL, "CPU"), "count"), 1);
    plan_number(plan, "memory-mib", xml_attribute(xml_find(machine, NULL, "Memory"), "RAMSize"), 1);
    while ((node = xml_find(machine, node, "AttachedDevice"))) {
        bool is_dvd = strcmp(xml_attribute(node, "type"), "DVD") == 0;
        struct xml_node *image = xml_find(node, NULL, "Image");
        const char *uuid = xml_attribute(image, "uuid");
        struct xml_node *medium =
            *uuid ? find_with(root, is_dvd ? "Image" : "HardDisk", "uuid", uuid) : NULL;
        if (medium && *xml_attribute(medium, "location"))
            plan_disk(plan, xml_attribute(medium, "location"), is_dvd ? "iso" : "disk");
    }
    node = NULL;
    while ((node = xml_find(machine, node, "Adapter")))
        plan_vbox_adapter(plan, node);
    return plan;
}

/* --- .vmx --- */

struct vmx_line {
    char key[128], value[1024];
};

/* key = "value"; false for comments and anything else. */
static bool read_vmx_line(const char *line, struct vmx_line *out)
{
    if (sscanf(line, " %127[^ =#] = \"%1023[^\"]\"", out->key, out->value) != 2)
        return false;
    for (char *at = out->key; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    return true;
}

/* The values by their keys in small letters. */
static json_t *read_vmx_lines(char *text)
{
    json_t *lines = json_object();
    char *rest = text, *line;
    while ((line = strsep(&rest, "\r\n"))) {
        struct vmx_line parsed;
        json_t *value = read_vmx_line(line, &parsed) ? json_string(parsed.value) : NULL;
        if (value && json_object_set_new(lines, parsed.key, value))
            continue; /* a key that is no UTF-8 is none of ours */
    }
    return lines;
}

static const char *vmx_get(const json_t *lines, const char *device, const char *key)
{
    char name[160];
    snprintf(name, sizeof(name), "%s.%s", device, key);
    return model_text(lines, name);
}

static void plan_vmx_disk(json_t *plan, const json_t *lines, const char *device)
{
    const char *type = vmx_get(lines, device, "devicetype"), *file;
    if (strcasecmp(vmx_get(lines, device, "present"), "false") == 0 ||
        strcmp(type, "cdrom-raw") == 0 || strcmp(type, "atapi-cdrom") == 0)
        return;
    file = vmx_get(lines, device, "filename");
    plan_disk(plan, file, strcmp(type, "cdrom-image") == 0 ? "iso" : "disk");
}

static void plan_vmx_nic(json_t *plan, const json_t *lines, const char *device)
{
    const char *type = vmx_get(lines, device, "connectiontype");
    if (strcasecmp(vmx_get(lines, device, "present"), "true") == 0)
        plan_nic(plan, strcmp(type, "bridged") == 0 ? "bridged" : "user", "");
}

static json_t *read_vmx(char *text, const char *path, struct error *err)
{
    static const char *const buses[] = {"scsi", "sata", "nvme", "ide"};
    json_t *lines = read_vmx_lines(text), *plan = new_plan();
    char device[32];
    if (json_object_size(lines) == 0) {
        error_set(err, EBADMSG, "%s: no line of it reads KEY = \"VALUE\"", path);
        json_decref(lines);
        json_decref(plan);
        return NULL;
    }
    json_object_set_new(plan, "name", json_string(model_text(lines, "displayname")));
    plan_number(plan, "cpus", model_text(lines, "numvcpus"), 1);
    plan_number(plan, "memory-mib", model_text(lines, "memsize"), 1);
    for (unsigned b = 0; b < ARRAY_SIZE(buses); b++)
        for (unsigned bus = 0; bus < 4; bus++)
            for (unsigned unit = 0; unit < 16; unit++) {
                snprintf(device, sizeof(device), "%s%u:%u", buses[b], bus, unit);
                plan_vmx_disk(plan, lines, device);
            }
    for (unsigned i = 0; i < 10; i++) {
        snprintf(device, sizeof(device), "ethernet%u", i);
        plan_vmx_nic(plan, lines, device);
    }
    json_decref(lines);
    return plan;
}

/* --- by the name --- */

json_t *portable_read(const char *path, struct error *err)
{
    size_t length;
    const char *dot = strrchr(path, '.');
    bool is_vmx = dot && strcasecmp(dot, ".vmx") == 0, is_vbox = dot && !strcasecmp(dot, ".vbox");
    char *text = store_read_file(path, DESCRIPTION_MAX_BYTES, &length, err);
    json_t *plan = NULL;
    if (text && is_vmx) {
        plan = read_vmx(text, path, err);
    } else if (text) {
        struct xml_node *root = xml_parse(text, length, path, err);
        if (root)
            plan = is_vbox ? read_vbox(root, path, err) : read_ovf(root, path, err);
        xml_free(root);
    }
    free(text);
    return plan;
}

/* --- writing --- */

static void put_text(FILE *to, const char *text)
{
    for (; *text; text++) {
        const char *entity = *text == '&'   ? "&amp;"
                             : *text == '<' ? "&lt;"
                             : *text == '>' ? "&gt;"
                             : *text == '"' ? "&quot;"
                                            : NULL;
        if (entity)
            fputs(entity, to);
        else
            fputc(*text, to);
    }
}

static void put_item(FILE *to, unsigned id, int type, const char *name, const char *more)
{
    fprintf(to,
            "      <Item>\n        <rasd:ElementName>%s</rasd:ElementName>\n"
            "        <rasd:InstanceID>%u</rasd:InstanceID>\n"
            "        <rasd:ResourceType>%d</rasd:ResourceType>\n%s      </Item>\n",
            name, id, type, more);
}

static void put_hardware(FILE *to, const json_t *config, size_t disk_count)
{
    char more[512];
    unsigned id = 1;
    snprintf(more, sizeof(more), "        <rasd:VirtualQuantity>%llu</rasd:VirtualQuantity>\n",
             (unsigned long long)model_number(config, "cpus"));
    put_item(to, id++, RESOURCE_CPU, "CPUs", more);
    snprintf(more, sizeof(more),
             "        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>\n"
             "        <rasd:VirtualQuantity>%llu</rasd:VirtualQuantity>\n",
             (unsigned long long)model_number(config, "memory-mib"));
    put_item(to, id++, RESOURCE_MEMORY, "Memory", more);
    unsigned controller = id++;
    put_item(to, controller, RESOURCE_SCSI, "Disk controller",
             "        <rasd:ResourceSubType>VirtioSCSI</rasd:ResourceSubType>\n");
    for (size_t i = 0; i < disk_count; i++) {
        snprintf(more, sizeof(more),
                 "        <rasd:AddressOnParent>%zu</rasd:AddressOnParent>\n"
                 "        <rasd:HostResource>ovf:/disk/vmdisk%zu</rasd:HostResource>\n"
                 "        <rasd:Parent>%u</rasd:Parent>\n",
                 i, i, controller);
        put_item(to, id++, RESOURCE_DISK, "Disk", more);
    }
    for (size_t i = 0; i < json_array_size(json_object_get(config, "nics")); i++)
        put_item(to, id++, RESOURCE_NIC, "NIC",
                 "        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>\n"
                 "        <rasd:Connection>NAT</rasd:Connection>\n"
                 "        <rasd:ResourceSubType>virtio</rasd:ResourceSubType>\n");
}

static void put_files(FILE *to, const struct portable_disk *disks, size_t disk_count)
{
    fputs("  <References>\n", to);
    for (size_t i = 0; i < disk_count; i++)
        fprintf(to, "    <File ovf:id=\"file%zu\" ovf:href=\"%s\" ovf:size=\"%llu\"/>\n", i,
                disks[i].file, (unsigned long long)disks[i].file_bytes);
    fputs("  </References>\n  <DiskSection>\n    <Info>The disks</Info>\n", to);
    for (size_t i = 0; i < disk_count; i++)
        fprintf(to,
                "    <Disk ovf:diskId=\"vmdisk%zu\" ovf:fileRef=\"file%zu\" ovf:capacity=\"%llu\" "
                "ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#"
                "streamOptimized\"/>\n",
                i, i, (unsigned long long)disks[i].capacity_bytes);
    fputs("  </DiskSection>\n", to);
}

void portable_write_ovf(FILE *to, const json_t *config, const struct portable_disk *disks,
                        size_t disk_count)
{
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
          "<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\"\n"
          "    xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"\n"
          "    xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
          "CIM_ResourceAllocationSettingData\"\n"
          "    xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
          "CIM_VirtualSystemSettingData\">\n",
          to);
    put_files(to, disks, disk_count);
    fputs("  <NetworkSection>\n    <Info>The networks</Info>\n    <Network ovf:name=\"NAT\"/>\n"
          "  </NetworkSection>\n  <VirtualSystem ovf:id=\"",
          to);
    put_text(to, model_text(config, "name"));
    fputs("\">\n    <Info>A virtual machine</Info>\n    <Name>", to);
    put_text(to, model_text(config, "name"));
    fputs("</Name>\n    <OperatingSystemSection ovf:id=\"101\">\n      <Info>The system</Info>\n"
          "    </OperatingSystemSection>\n    <VirtualHardwareSection>\n"
          "      <Info>The hardware</Info>\n",
          to);
    put_hardware(to, config, disk_count);
    fputs("    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n", to);
}
