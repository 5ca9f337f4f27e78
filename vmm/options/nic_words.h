/* SPDX-License-Identifier: MIT */
/*
 * nic_words: what people and clients call a NIC: its name, its path and its address, as QEMU forms
 * them. `index` is the NIC's place in the configuration.
 */
#ifndef VMM_OPTIONS_NIC_WORDS_H
#define VMM_OPTIONS_NIC_WORDS_H

#include "vmm/config.h"

#define NIC_NAME_BYTES 128
#define NIC_PATH_BYTES 160
#define NIC_MAC_BYTES  18

/* Its own address, or else the one that QEMU gives to a NIC without mac=. */
void nic_words_mac(const struct vm_config *config, unsigned index, uint8_t mac[6]);
void nic_words_print_mac(const uint8_t mac[6], char text[NIC_MAC_BYTES]);
/* Its id, or its model and the number of NICs before it. */
void nic_words_name(const struct vm_config *config, unsigned index, char name[NIC_NAME_BYTES]);
/* Of the device in QOM. Devices without an id are numbered behind the disks. */
void nic_words_path(const struct vm_config *config, unsigned index, char path[NIC_PATH_BYTES]);

#endif
