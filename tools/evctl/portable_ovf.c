/* SPDX-License-Identifier: MIT */
/* portable_ovf: reads and writes OVF (DMTF DSP0243), the description in an OVA. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/evctl/model.h"
#include "tools/evctl/portable.h"
#include "tools/evctl/portable_plan.h"
#include "tools/evctl/tell.h"

/* CIM_ResourceAllocationSettingData.ResourceType */
enum {
    RESOURCE_CPU = 3,
    RESOURCE_MEMORY = 4,
    RESOURCE_SCSI = 6,
    RESOURCE_NIC = 10,
    RESOURCE_CDROM = 15,
    RESOURCE_DISK = 17
};

/* --- reading --- */

/* "byte * 2^20" is 1048576; "MegaBytes", an older form, too. Without units: `usual`. */
static double unit_bytes(const char *units, double usual)
{
    const char *power = strstr(units, "2^");
    if (power)
        return (double)(UINT64_C(1) << MIN(strtoul(power + 2, NULL, 10), 60ul));
    if (strncasecmp(units, "giga", 4) == 0)
        return 1 << 30;
    if (strncasecmp(units, "mega", 4) == 0)
        return 1 << 20;
    return strncasecmp(units, "kilo", 4) == 0 ? 1 << 10 : usual;
}

static bool plan_file(json_t *plan, const struct xml_node *file, const char *kind, const char *path,
                      struct error *err)
{
    const char *name = xml_attribute(file, "href"), *packed = xml_attribute(file, "compression");
    if (*packed && strcmp(packed, "identity") != 0) {
        error_set(err, ENOTSUP,
                  "%s: the disk %s is packed with %s; unpack it and take the word "
                  "ovf:compression out",
                  path, name, packed);
        return false;
    }
    plan_disk(plan, name, kind);
    return true;
}

/* "ovf:/disk/vmdisk1" names a Disk, which names a File, which names a file; or is empty. */
static bool plan_ovf_disk(json_t *plan, struct xml_node *root, const struct xml_node *item,
                          const char *kind, const char *path, struct error *err)
{
    const char *resource = xml_child_text(item, "HostResource");
    const char *slash = strrchr(resource, '/'), *id = slash ? slash + 1 : resource;
    struct xml_node *disk = *id ? plan_find_with(root, "Disk", "diskId", id) : NULL;
    const char *reference = disk ? xml_attribute(disk, "fileRef") : id;
    struct xml_node *file = *reference ? plan_find_with(root, "File", "id", reference) : NULL;
    if (file)
        return plan_file(plan, file, kind, path, err);
    if (disk && !*reference)
        plan_empty_disk(plan, strtod(xml_attribute(disk, "capacity"), NULL) *
                                  unit_bytes(xml_attribute(disk, "capacityAllocationUnits"), 1));
    return true;
}

/* What a connection is called is anybody's choice; these are what programs write by themselves. */
static void plan_connection(json_t *plan, const struct xml_node *item)
{
    const char *name = xml_child_text(item, "Connection");
    if (strncasecmp(name, "hostonly", 8) == 0 || strncasecmp(name, "host-only", 9) == 0)
        plan_nic(plan, "hostonly", "");
    else
        plan_nic(plan, strncasecmp(name, "bridged", 7) == 0 ? "bridged" : "user", "");
}

static bool plan_item(json_t *plan, struct xml_node *root, const struct xml_node *item,
                      const char *path, struct error *err)
{
    const char *quantity = xml_child_text(item, "VirtualQuantity");
    switch (strtol(xml_child_text(item, "ResourceType"), NULL, 10)) {
    case RESOURCE_CPU:
        plan_number(plan, "cpus", quantity, 1);
        return true;
    case RESOURCE_MEMORY:
        plan_number(plan, "memory-mib", quantity,
                    unit_bytes(xml_child_text(item, "AllocationUnits"), 1 << 20) / (1 << 20));
        return true;
    case RESOURCE_NIC:
        plan_connection(plan, item);
        return true;
    case RESOURCE_CDROM:
        return plan_ovf_disk(plan, root, item, "iso", path, err);
    case RESOURCE_DISK:
        return plan_ovf_disk(plan, root, item, "disk", path, err);
    default:
        return true;
    }
}

/* The configuration that is meant where nobody chooses; "" if there is no choice. */
static const char *usual_configuration(struct xml_node *root)
{
    struct xml_node *section = xml_find(root, NULL, "DeploymentOptionSection"), *one = NULL;
    const char *first = "";
    while (section && (one = xml_find(section, one, "Configuration"))) {
        first = *first ? first : xml_attribute(one, "id");
        if (strcmp(xml_attribute(one, "default"), "true") == 0)
            return xml_attribute(one, "id");
    }
    return first;
}

/* Items of other configurations, and those that only bound a value, say nothing here. */
static bool is_meant(const struct xml_node *item, const char *configuration)
{
    const char *wanted = xml_attribute(item, "configuration");
    if (*xml_attribute(item, "bound"))
        return false;
    while (*wanted) {
        size_t length = strcspn(wanted, " ");
        if (length == strlen(configuration) && strncmp(wanted, configuration, length) == 0)
            return true;
        wanted += length + strspn(wanted + length, " ");
    }
    return !*xml_attribute(item, "configuration");
}

static bool plan_items(json_t *plan, struct xml_node *root, struct xml_node *system,
                       const char *path, struct error *err)
{
    static const char *const kinds[] = {"Item", "StorageItem", "EthernetPortItem"};
    const char *configuration = usual_configuration(root);
    for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct xml_node *item = NULL;
        while ((item = xml_find(system, item, kinds[k])))
            if (!is_meant(item, configuration))
                continue;
            else if (k == 2)
                plan_connection(plan, item);
            else if (!plan_item(plan, root, item, path, err))
                return false;
    }
    return true;
}

bool portable_read_ovf(json_t *plan, struct xml_node *root, const char *path, struct error *err)
{
    struct xml_node *system = xml_find(root, NULL, "VirtualSystem");
    if (!system) {
        error_set(err, EBADMSG, "%s: it describes no VirtualSystem", path);
        return false;
    }
    const char *name = xml_child_text(system, "Name");
    struct xml_node *os = xml_find(system, NULL, "OperatingSystemSection");
    name = *name ? name : xml_attribute(system, "id");
    json_object_set_new(plan, "name", json_string(name));
    if (os) {
        plan_os(plan, xml_child_text(os, "Description"));
        plan_os(plan, xml_attribute(os, "osType"));
    }
    /* Neither is OVF's own: VMware's setting, and VirtualBox's description inside this one. */
    plan_firmware(xml_attribute(plan_find_with(system, "Config", "key", "firmware"), "value"));
    plan_firmware(xml_attribute(xml_find(system, NULL, "Firmware"), "type"));
    if (xml_find(root, system, "VirtualSystem"))
        tell_note("%s describes several machines; '%s', the first, is taken", path, name);
    return plan_items(plan, root, system, path, err);
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

/* In the order of the schema, which strict readers want; NULL and 0: left out. */
struct item {
    int type;
    const char *name, *subtype, *units, *connection;
    uint64_t quantity;
    unsigned parent; /* of a disk */
    size_t disk;
};

static void put_item(FILE *to, unsigned id, const struct item *item)
{
    fputs("      <Item>\n", to);
    if (item->parent)
        fprintf(to, "        <rasd:AddressOnParent>%zu</rasd:AddressOnParent>\n", item->disk);
    if (item->units)
        fprintf(to, "        <rasd:AllocationUnits>%s</rasd:AllocationUnits>\n", item->units);
    if (item->connection)
        fprintf(to,
                "        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>\n"
                "        <rasd:Connection>%s</rasd:Connection>\n",
                item->connection);
    fprintf(to, "        <rasd:ElementName>%s</rasd:ElementName>\n", item->name);
    if (item->parent)
        fprintf(to, "        <rasd:HostResource>ovf:/disk/vmdisk%zu</rasd:HostResource>\n",
                item->disk);
    fprintf(to, "        <rasd:InstanceID>%u</rasd:InstanceID>\n", id);
    if (item->parent)
        fprintf(to, "        <rasd:Parent>%u</rasd:Parent>\n", item->parent);
    if (item->subtype)
        fprintf(to, "        <rasd:ResourceSubType>%s</rasd:ResourceSubType>\n", item->subtype);
    fprintf(to, "        <rasd:ResourceType>%d</rasd:ResourceType>\n", item->type);
    if (item->quantity)
        fprintf(to, "        <rasd:VirtualQuantity>%llu</rasd:VirtualQuantity>\n",
                (unsigned long long)item->quantity);
    fputs("      </Item>\n", to);
}

static void put_hardware(FILE *to, const json_t *config, size_t disk_count)
{
    const unsigned controller = 3;
    unsigned id = 1;
    put_item(to, id++,
             &(struct item){
                 .type = RESOURCE_CPU, .name = "CPUs", .quantity = model_number(config, "cpus")});
    put_item(to, id++,
             &(struct item){.type = RESOURCE_MEMORY,
                            .name = "Memory",
                            .units = "byte * 2^20",
                            .quantity = model_number(config, "memory-mib")});
    put_item(
        to, id++,
        &(struct item){.type = RESOURCE_SCSI, .name = "Disk controller", .subtype = "VirtioSCSI"});
    for (size_t i = 0; i < disk_count; i++)
        put_item(
            to, id++,
            &(struct item){.type = RESOURCE_DISK, .name = "Disk", .parent = controller, .disk = i});
    for (size_t i = 0; i < json_array_size(json_object_get(config, "nics")); i++)
        put_item(
            to, id++,
            &(struct item){
                .type = RESOURCE_NIC, .name = "NIC", .subtype = "virtio", .connection = "NAT"});
}

static void put_files(FILE *to, const struct portable_disk *disks, size_t disk_count)
{
    fputs("  <References>\n", to);
    for (size_t i = 0; i < disk_count; i++) {
        fprintf(to, "    <File ovf:id=\"file%zu\" ovf:size=\"%llu\" ovf:href=\"", i,
                (unsigned long long)disks[i].file_bytes);
        put_text(to, disks[i].file);
        fputs("\"/>\n", to);
    }
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
          "      <Description>",
          to);
    put_text(to, model_text(config, "os"));
    fputs("</Description>\n    </OperatingSystemSection>\n    <VirtualHardwareSection>\n"
          "      <Info>The hardware</Info>\n",
          to);
    put_hardware(to, config, disk_count);
    fputs("    </VirtualHardwareSection>\n  </VirtualSystem>\n</Envelope>\n", to);
}
