/* SPDX-License-Identifier: MIT */
/* nic_words: the words for a NIC, made from its entry in the configuration. */
#include "vmm/options/nic_words.h"

#include <stdio.h>
#include <string.h>

void nic_words_mac(const struct vm_config *config, unsigned index, uint8_t mac[6])
{
    static const uint8_t first[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    const struct config_nic *nic = &config->nics[index];
    memcpy(mac, nic->has_mac ? nic->mac : first, sizeof(first));
    if (!nic->has_mac)
        mac[5] = (uint8_t)(mac[5] + index);
}

void nic_words_print_mac(const uint8_t mac[6], char text[NIC_MAC_BYTES])
{
    snprintf(text, NIC_MAC_BYTES, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
}

static unsigned count_before(const struct vm_config *config, unsigned index)
{
    unsigned count = 0;
    for (unsigned i = 0; i < index; i++)
        count += config->nics[i].has_device;
    return count;
}

void nic_words_name(const struct vm_config *config, unsigned index, char name[NIC_NAME_BYTES])
{
    const char *id = config->nics[index].qdev_id;
    if (id)
        snprintf(name, NIC_NAME_BYTES, "%s", id);
    else
        snprintf(name, NIC_NAME_BYTES, "virtio-net-pci.%u", count_before(config, index));
}

void nic_words_path(const struct vm_config *config, unsigned index, char path[NIC_PATH_BYTES])
{
    const char *id = config->nics[index].qdev_id;
    if (id)
        snprintf(path, NIC_PATH_BYTES, "/machine/peripheral/%s", id);
    else
        snprintf(path, NIC_PATH_BYTES, "/machine/peripheral-anon/device[%u]",
                 config->disk_count + count_before(config, index));
}
