/* SPDX-License-Identifier: MIT */
/*
 * virtio_pci: registers of the modern transport in one BAR, doorbells per queue, interrupts by
 * MSI-X or, without it, by INTA# and the ISR byte.
 *
 * BAR 0: 0x0000 common, 0x1000 ISR, 0x2000 device configuration, 0x3000 notification (4 bytes a
 * queue). Registers answer to their natural width only (section 4.1.3.1); 64-bit ones as two halves
 * or whole. The window of VIRTIO_PCI_CAP_PCI_CFG reaches the same handlers without the BAR.
 */
#include "devices/virtio_pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define VENDOR            0x1af4
#define DEVICE_ID_BASE    0x1040
#define SUBSYSTEM         0x1100
#define REGISTERS_BAR     0
#define MSIX_BAR          2
#define PART_BYTES        0x1000u
#define COMMON_AT         0x0000u
#define ISR_AT            0x1000u
#define CONFIG_AT         0x2000u
#define NOTIFY_AT         0x3000u
#define BAR_BYTES         0x4000u
#define NOTIFY_MULTIPLIER 4u
#define ISR_QUEUE         1u
#define ISR_CONFIG        2u
#define WINDOW_BAR        4u
#define WINDOW_OFFSET     8u
#define WINDOW_LENGTH     12u
#define WINDOW_DATA       16u
#define COMMON_BYTES      sizeof(struct virtio_pci_common_cfg)
#define CAPABILITY_BYTES  ((unsigned)sizeof(struct virtio_pci_cap))

/* Natural widths by offset; 0 where no register begins. 64-bit registers as halves. */
static const uint8_t common_width[COMMON_BYTES] = {
    [VIRTIO_PCI_COMMON_DFSELECT] = 4,  [VIRTIO_PCI_COMMON_DF] = 4,
    [VIRTIO_PCI_COMMON_GFSELECT] = 4,  [VIRTIO_PCI_COMMON_GF] = 4,
    [VIRTIO_PCI_COMMON_MSIX] = 2,      [VIRTIO_PCI_COMMON_NUMQ] = 2,
    [VIRTIO_PCI_COMMON_STATUS] = 1,    [VIRTIO_PCI_COMMON_CFGGENERATION] = 1,
    [VIRTIO_PCI_COMMON_Q_SELECT] = 2,  [VIRTIO_PCI_COMMON_Q_SIZE] = 2,
    [VIRTIO_PCI_COMMON_Q_MSIX] = 2,    [VIRTIO_PCI_COMMON_Q_ENABLE] = 2,
    [VIRTIO_PCI_COMMON_Q_NOFF] = 2,    [VIRTIO_PCI_COMMON_Q_DESCLO] = 4,
    [VIRTIO_PCI_COMMON_Q_DESCHI] = 4,  [VIRTIO_PCI_COMMON_Q_AVAILLO] = 4,
    [VIRTIO_PCI_COMMON_Q_AVAILHI] = 4, [VIRTIO_PCI_COMMON_Q_USEDLO] = 4,
    [VIRTIO_PCI_COMMON_Q_USEDHI] = 4,
};

struct virtio_pci_events {
    unsigned open;
    struct virtio_pci *owner; /* NULL: a failed init, nobody waits for the close */
    struct loop_event event[];
};

static struct virtio_pci *to_virtio_pci(struct pci_device *pci)
{
    return container_of(pci, struct virtio_pci, pci);
}

/* The queue that the driver selected, or NULL. */
static struct virtqueue *selected(struct virtio_pci *vp)
{
    struct virtio_device *vdev = &vp->virtio;
    return vp->queue_select < vdev->queue_count ? virtio_queue(vdev, vp->queue_select) : NULL;
}

static uint32_t half_of(uint64_t value, unsigned half)
{
    return half > 1 ? 0 : (uint32_t)(value >> 32 * half);
}

static uint32_t read_queue_register(struct virtio_pci *vp, unsigned offset)
{
    const struct virtqueue *vq = selected(vp);
    if (!vq)
        return offset == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_MSI_NO_VECTOR : 0;
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        return vq->layout.size;
    case VIRTIO_PCI_COMMON_Q_MSIX:
        return vp->queue_vectors[vp->queue_select];
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        return vq->enabled;
    case VIRTIO_PCI_COMMON_Q_NOFF:
        return vp->queue_select;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        return half_of(vq->layout.desc_gpa, offset != VIRTIO_PCI_COMMON_Q_DESCLO);
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        return half_of(vq->layout.avail_gpa, offset != VIRTIO_PCI_COMMON_Q_AVAILLO);
    default:
        return half_of(vq->layout.used_gpa, offset != VIRTIO_PCI_COMMON_Q_USEDLO);
    }
}

static uint32_t read_common_register(struct virtio_pci *vp, unsigned offset)
{
    const struct virtio_device *vdev = &vp->virtio;
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        return vp->device_feature_select;
    case VIRTIO_PCI_COMMON_DF:
        return half_of(vdev->offered, vp->device_feature_select);
    case VIRTIO_PCI_COMMON_GFSELECT:
        return vp->driver_feature_select;
    case VIRTIO_PCI_COMMON_GF:
        return half_of(vdev->features, vp->driver_feature_select);
    case VIRTIO_PCI_COMMON_MSIX:
        return vp->config_vector;
    case VIRTIO_PCI_COMMON_NUMQ:
        return vdev->queue_count;
    case VIRTIO_PCI_COMMON_STATUS:
        return vdev->status;
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        return vdev->generation;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        return vp->queue_select;
    default:
        return read_queue_register(vp, offset);
    }
}

static uint16_t valid_vector(const struct virtio_pci *vp, uint32_t value)
{
    return value < vp->pci.vector_count ? (uint16_t)value : VIRTIO_MSI_NO_VECTOR;
}

static void set_half(uint64_t *value, unsigned half, uint32_t bits)
{
    *value = (*value & ~(UINT64_C(0xffffffff) << 32 * half)) | (uint64_t)bits << 32 * half;
}

/* Size and addresses: latched once the queue is enabled. */
static void write_layout_register(struct virtio_pci *vp, unsigned offset, uint32_t value)
{
    struct virtqueue_layout *layout = virtio_queue_layout(&vp->virtio, vp->queue_select);
    if (!layout)
        return;
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        layout->size = (uint16_t)value;
        break;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        set_half(&layout->desc_gpa, offset != VIRTIO_PCI_COMMON_Q_DESCLO, value);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        set_half(&layout->avail_gpa, offset != VIRTIO_PCI_COMMON_Q_AVAILLO, value);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        set_half(&layout->used_gpa, offset != VIRTIO_PCI_COMMON_Q_USEDLO, value);
        break;
    default:
        break;
    }
}

static void write_common_register(struct virtio_pci *vp, unsigned offset, uint32_t value)
{
    struct virtio_device *vdev = &vp->virtio;
    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        vp->device_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT:
        vp->driver_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GF:
        virtio_set_features(vdev, vp->driver_feature_select, value);
        break;
    case VIRTIO_PCI_COMMON_MSIX:
        vp->config_vector = valid_vector(vp, value);
        break;
    case VIRTIO_PCI_COMMON_STATUS:
        virtio_set_status(vdev, (uint8_t)value);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        vp->queue_select = (uint16_t)value;
        break;
    case VIRTIO_PCI_COMMON_Q_MSIX:
        if (selected(vp))
            vp->queue_vectors[vp->queue_select] = valid_vector(vp, value);
        break;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        if (value == 1)
            virtio_queue_enable(vdev, vp->queue_select);
        break;
    default:
        write_layout_register(vp, offset, value);
    }
}

static bool is_common(uint64_t offset, unsigned size)
{
    return offset < COMMON_BYTES && common_width[offset] == size;
}

/* A 64-bit register as a whole. */
static bool is_common_pair(uint64_t offset, unsigned size)
{
    return size == 8 && is_aligned(offset, 8) && offset >= VIRTIO_PCI_COMMON_Q_DESCLO &&
           is_common(offset, 4) && is_common(offset + 4, 4);
}

static uint64_t read_common(struct virtio_pci *vp, unsigned offset, unsigned size)
{
    if (is_common(offset, size))
        return read_common_register(vp, offset);
    if (!is_common_pair(offset, size))
        return bus_all_ones(size);
    return read_common_register(vp, offset) | (uint64_t)read_common_register(vp, offset + 4) << 32;
}

static void write_common(struct virtio_pci *vp, unsigned offset, unsigned size, uint64_t value)
{
    if (is_common(offset, size)) {
        write_common_register(vp, offset, (uint32_t)value);
    } else if (is_common_pair(offset, size)) {
        write_common_register(vp, offset, (uint32_t)value);
        write_common_register(vp, offset + 4, (uint32_t)(value >> 32));
    }
}

/* Reading acknowledges. */
static uint64_t read_isr(struct virtio_pci *vp)
{
    uint8_t isr = vp->isr;
    vp->isr = 0;
    pci_set_intx(&vp->pci, false);
    return isr;
}

static uint64_t read_config(const struct virtio_pci *vp, unsigned offset, unsigned size)
{
    uint8_t bytes[8] = {0};
    virtio_config_read(&vp->virtio, offset, bytes, size);
    return load_le64(bytes);
}

static void write_config(struct virtio_pci *vp, unsigned offset, unsigned size, uint64_t value)
{
    uint8_t bytes[8];
    store_le64(bytes, value);
    virtio_config_write(&vp->virtio, offset, bytes, size);
}

static uint64_t on_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *vp = opaque;
    unsigned within = (unsigned)offset % PART_BYTES;
    loop_check_thread(vp->virtio.loop);
    switch ((unsigned)offset - within) {
    case COMMON_AT:
        return read_common(vp, within, size);
    case ISR_AT:
        return within == 0 && size == 1 ? read_isr(vp) : bus_all_ones(size);
    case CONFIG_AT:
        return read_config(vp, within, size);
    default:
        return 0;
    }
}

static void notify(struct virtio_pci *vp, unsigned queue)
{
    if (queue >= vp->virtio.queue_count)
        return;
    virtio_queue(&vp->virtio, queue)->stats.kicks++;
    virtio_kick(&vp->virtio, queue);
}

static void on_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *vp = opaque;
    unsigned within = (unsigned)offset % PART_BYTES;
    loop_check_thread(vp->virtio.loop);
    switch ((unsigned)offset - within) {
    case COMMON_AT:
        write_common(vp, within, size, value);
        break;
    case CONFIG_AT:
        write_config(vp, within, size, value);
        break;
    case NOTIFY_AT:
        /* The bus takes the doorbells out: what comes here came through the window. */
        if (within % NOTIFY_MULTIPLIER == 0)
            notify(vp, within / NOTIFY_MULTIPLIER);
        break;
    default:
        break;
    }
}

static const struct bus_region_ops region_ops = {on_read, on_write};

static void on_kick(struct loop_event *event)
{
    struct virtio_pci *vp = event->opaque;
    unsigned queue = (unsigned)(event - vp->events->event);
    if (queue >= vp->virtio.queue_count)
        return;
    virtio_queue(&vp->virtio, queue)->stats.kicks++;
    virtio_doorbell(&vp->virtio, queue);
}

static void interrupt(struct virtio_pci *vp, uint16_t vector, uint8_t isr)
{
    if (pci_msix_is_enabled(&vp->pci)) {
        pci_msix_notify(&vp->pci, vector);
        return;
    }
    vp->isr |= isr;
    pci_set_intx(&vp->pci, true);
}

static void queue_interrupt(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_pci *vp = virtio_pci_of(vdev);
    interrupt(vp, vp->queue_vectors[queue], ISR_QUEUE);
}

static void config_interrupt(struct virtio_device *vdev)
{
    struct virtio_pci *vp = virtio_pci_of(vdev);
    interrupt(vp, vp->config_vector, ISR_CONFIG);
}

static void reset_registers(struct virtio_device *vdev)
{
    struct virtio_pci *vp = virtio_pci_of(vdev);
    vp->device_feature_select = 0;
    vp->driver_feature_select = 0;
    vp->queue_select = 0;
    vp->config_vector = VIRTIO_MSI_NO_VECTOR;
    for (unsigned i = 0; i < vdev->queue_count; i++)
        vp->queue_vectors[i] = VIRTIO_MSI_NO_VECTOR;
    vp->isr = 0;
    pci_set_intx(&vp->pci, false);
}

static const struct virtio_transport_ops transport_ops = {queue_interrupt, config_interrupt,
                                                          reset_registers};

/* The access that the window's fields describe; 0 if they describe none. */
static unsigned window_access(const struct virtio_pci *vp, uint32_t *offset)
{
    const uint8_t *window = vp->pci.config + vp->window_capability;
    uint32_t length = load_le32(window + WINDOW_LENGTH);
    *offset = load_le32(window + WINDOW_OFFSET);
    bool is_valid = window[WINDOW_BAR] == REGISTERS_BAR &&
                    (length == 1 || length == 2 || length == 4) && is_aligned(*offset, length) &&
                    range_fits(*offset, length, BAR_BYTES);
    return is_valid ? length : 0;
}

static bool touches_window(const struct virtio_pci *vp, unsigned offset, unsigned size)
{
    return ranges_overlap(offset, size, vp->window_capability + WINDOW_DATA, 4);
}

static void on_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_pci *vp = to_virtio_pci(pci);
    uint32_t at;
    unsigned length;
    if (touches_window(vp, offset, size) && (length = window_access(vp, &at)))
        store_le32(pci->config + vp->window_capability + WINDOW_DATA,
                   (uint32_t)on_read(vp, at, length));
}

static void on_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_pci *vp = to_virtio_pci(pci);
    uint32_t at;
    unsigned length;
    if (pci_is_bus_master(pci) != vp->dma_on) {
        vp->dma_on = !vp->dma_on;
        virtio_set_dma(&vp->virtio, vp->dma_on);
    }
    if (touches_window(vp, offset, size) && (length = window_access(vp, &at)))
        on_write(vp, at, length,
                 load_le32(pci->config + vp->window_capability + WINDOW_DATA) &
                     bus_all_ones(length));
}

static const struct pci_device_ops pci_ops = {.config_written = on_config_written,
                                              .config_read = on_config_read};

static unsigned add_capability(struct virtio_pci *vp, uint8_t type, uint32_t offset,
                               uint32_t length, unsigned extra)
{
    unsigned size = CAPABILITY_BYTES + extra;
    unsigned at = pci_add_capability(&vp->pci, PCI_CAP_ID_VNDR, size);
    uint8_t *capability = vp->pci.config + at;
    capability[VIRTIO_PCI_CAP_LEN] = (uint8_t)size;
    capability[VIRTIO_PCI_CAP_CFG_TYPE] = type;
    capability[VIRTIO_PCI_CAP_BAR] = REGISTERS_BAR;
    store_le32(capability + VIRTIO_PCI_CAP_OFFSET, offset);
    store_le32(capability + VIRTIO_PCI_CAP_LENGTH, length);
    return at;
}

static void add_capabilities(struct virtio_pci *vp, unsigned queue_count)
{
    add_capability(vp, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_AT, COMMON_BYTES, 0);
    add_capability(vp, VIRTIO_PCI_CAP_ISR_CFG, ISR_AT, 1, 0);
    add_capability(vp, VIRTIO_PCI_CAP_DEVICE_CFG, CONFIG_AT, PART_BYTES, 0);
    unsigned at = add_capability(vp, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_AT,
                                 NOTIFY_MULTIPLIER * queue_count, 4);
    store_le32(vp->pci.config + at + CAPABILITY_BYTES, NOTIFY_MULTIPLIER);
    at = add_capability(vp, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 4);
    vp->window_capability = at;
    uint8_t *mask = vp->pci.write_mask + at;
    mask[WINDOW_BAR] = 0xff;
    store_le32(mask + WINDOW_OFFSET, UINT32_MAX);
    store_le32(mask + WINDOW_LENGTH, UINT32_MAX);
    store_le32(mask + WINDOW_DATA, UINT32_MAX);
}

static uint32_t class_of(uint16_t device_id)
{
    switch (device_id) {
    case VIRTIO_ID_NET:
        return 0x020000;
    case VIRTIO_ID_BLOCK:
        return 0x010000;
    case VIRTIO_ID_CONSOLE:
        return 0x078000;
    default:
        return 0x00ff00;
    }
}

static void init_pci(struct virtio_pci *vp, const struct virtio_setup *setup)
{
    const struct pci_ids ids = {
        .vendor = VENDOR,
        .device = (uint16_t)(DEVICE_ID_BASE + setup->ops->device_id),
        .subsystem_vendor = VENDOR,
        .subsystem = SUBSYSTEM,
        .class_revision = class_of(setup->ops->device_id) << 8 | 1,
    };
    pci_device_init(&vp->pci, &ids, &pci_ops);
    vp->pci.config[PCI_INTERRUPT_PIN] = 1;
    vp->region = (struct bus_region){
        .name = setup->ops->name, .ops = &region_ops, .device = vp, .size = BAR_BYTES};
    pci_add_bar(&vp->pci, REGISTERS_BAR, &vp->region, false, false);
    pci_add_msix(&vp->pci, MSIX_BAR, MIN(setup->queue_count + 1, MSIX_VECTOR_MAX));
    add_capabilities(vp, setup->queue_count);
}

static void finish_close(struct virtio_pci *vp)
{
    struct closing closing = vp->closing;
    virtio_fini(&vp->virtio);
    free(vp->doorbells);
    free(vp->queue_vectors);
    vp->virtio.ops->destroy(&vp->virtio);
    closing_tell(closing);
}

static void on_event_closed(struct loop_event *event)
{
    struct virtio_pci_events *events = event->opaque;
    struct virtio_pci *vp = events->owner;
    if (--events->open)
        return;
    free(events);
    if (vp)
        finish_close(vp);
}

static void close_events(struct virtio_pci_events *events, struct virtio_pci *owner)
{
    unsigned open = events->open;
    events->owner = owner;
    for (unsigned i = 0; i < open; i++) {
        events->event[i].opaque = events;
        loop_event_close(&events->event[i], on_event_closed);
    }
    if (!open)
        free(events);
}

static int open_events(struct virtio_pci *vp, struct loop *loop, unsigned count)
{
    vp->events = calloc(1, sizeof(*vp->events) + count * sizeof(vp->events->event[0]));
    CHECK(vp->events);
    for (unsigned i = 0; i < count; i++) {
        int result = loop_event_init(loop, &vp->events->event[i], on_kick);
        if (result) {
            close_events(vp->events, NULL);
            return result;
        }
        vp->events->event[i].opaque = vp;
        vp->events->open++;
    }
    return 0;
}

static void add_doorbells(struct virtio_pci *vp)
{
    for (unsigned i = 0; i < vp->virtio.queue_count; i++) {
        vp->doorbells[i] = (struct bus_doorbell){.region = &vp->region,
                                                 .offset = NOTIFY_AT + NOTIFY_MULTIPLIER * i,
                                                 .any = true,
                                                 .event = &vp->events->event[i]};
        bus_doorbell_add(vp->pci.pci_bus->bus, &vp->doorbells[i]);
    }
}

int virtio_pci_init(struct virtio_pci *vp, const struct virtio_pci_place *place,
                    const struct device_ops *ops, const struct virtio_setup *setup,
                    struct error *err)
{
    *vp = (struct virtio_pci){.pci.device.ops = ops};
    snprintf(vp->pci.device.id, sizeof(vp->pci.device.id), "%s", place->id);
    list_init(&vp->pci.device.node);
    init_pci(vp, setup);
    int result = pci_plug(place->pci_bus, &vp->pci, place->slot, err);
    if (result)
        return result;
    result = open_events(vp, place->loop, setup->queue_count);
    if (result) {
        pci_unplug(&vp->pci);
        return error_set_errno(err, -result, "device '%s': no event descriptor for its queues",
                               place->id);
    }
    vp->doorbells = calloc(setup->queue_count, sizeof(*vp->doorbells));
    vp->queue_vectors = calloc(setup->queue_count, sizeof(*vp->queue_vectors));
    CHECK(vp->doorbells && vp->queue_vectors);
    struct virtio_setup placed = *setup;
    placed.loop = place->loop;
    placed.mem = place->mem;
    virtio_init(&vp->virtio, &placed, &transport_ops);
    virtio_set_dma(&vp->virtio, false);
    reset_registers(&vp->virtio);
    add_doorbells(vp);
    return 0;
}

static struct virtio_pci *from_device(const struct device *device)
{
    return container_of((struct device *)(uintptr_t)device, struct virtio_pci, pci.device);
}

void virtio_pci_reset(struct device *device)
{
    struct virtio_pci *vp = from_device(device);
    loop_check_thread(vp->virtio.loop);
    pci_device_reset(&vp->pci);
    vp->dma_on = false;
    virtio_set_dma(&vp->virtio, false);
    virtio_set_status(&vp->virtio, 0);
}

void virtio_pci_before_save(struct device *device)
{
    struct virtio_pci *vp = from_device(device);
    struct virtio_pci_saved *saved = &vp->saved;
    virtio_save(&vp->virtio, &saved->virtio);
    pci_save(&vp->pci, &saved->pci);
    saved->driver_feature_select = vp->driver_feature_select;
    saved->device_feature_select = vp->device_feature_select;
    saved->queue_select = vp->queue_select;
    saved->config_vector = vp->config_vector;
    for (unsigned i = 0; i < vp->virtio.queue_count; i++)
        saved->queue_vectors[i] = vp->queue_vectors[i];
    saved->isr = vp->isr;
}

int virtio_pci_after_restore(struct device *device, struct error *err)
{
    struct virtio_pci *vp = from_device(device);
    const struct virtio_pci_saved *saved = &vp->saved;
    vp->driver_feature_select = saved->driver_feature_select;
    vp->device_feature_select = saved->device_feature_select;
    vp->queue_select = saved->queue_select;
    vp->config_vector = valid_vector(vp, saved->config_vector);
    for (unsigned i = 0; i < vp->virtio.queue_count; i++)
        vp->queue_vectors[i] = valid_vector(vp, saved->queue_vectors[i]);
    pci_restore(&vp->pci, &saved->pci);
    vp->isr = saved->isr & (ISR_QUEUE | ISR_CONFIG);
    pci_set_intx(&vp->pci, vp->isr);
    vp->dma_on = pci_is_bus_master(&vp->pci);
    virtio_set_dma(&vp->virtio, vp->dma_on);
    return virtio_restore(&vp->virtio, &saved->virtio, err);
}

static void on_idle(struct virtio_device *vdev)
{
    struct virtio_pci *vp = virtio_pci_of(vdev);
    close_events(vp->events, vp);
}

void virtio_pci_close(struct device *device, void (*on_closed)(void *opaque), void *opaque)
{
    struct virtio_pci *vp = from_device(device);
    loop_check_thread(vp->virtio.loop);
    vp->closing = (struct closing){on_closed, opaque};
    for (unsigned i = 0; i < vp->virtio.queue_count; i++)
        bus_doorbell_del(vp->pci.pci_bus->bus, &vp->doorbells[i]);
    pci_unplug(&vp->pci);
    virtio_close(&vp->virtio, on_idle);
}

bool virtio_pci_is_on_its_own(const struct device *device)
{
    const struct virtio_pci *vp = from_device(device);
    if (virtio_is_live(&vp->virtio))
        return pci_msix_is_enabled(&vp->pci);
    return vp->virtio.state < VIRTIO_STATE_LIVE;
}

bool virtio_pci_is_idle(const struct device *device)
{
    const struct virtio_device *vdev = &from_device(device)->virtio;
    return virtio_is_idle(vdev) && vdev->state < VIRTIO_STATE_RESETTING;
}

unsigned virtio_pci_queue_count(const struct device *device)
{
    return from_device(device)->virtio.queue_count;
}

const struct virtqueue_stats *virtio_pci_queue_stats(const struct device *device, unsigned queue)
{
    return &from_device(device)->virtio.queues[queue].vq.stats;
}
