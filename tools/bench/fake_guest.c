/* SPDX-License-Identifier: MIT */
/* fake_guest: see the header. Addresses of BARs are handed out upwards from FAKE_BAR_BASE. */
#include "tools/bench/fake_guest.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"

#define PAGE      4096u
#define TURNS_MAX 100000

struct fake_route {
    struct irq_route route; /* first */
    uint64_t address;
    uint32_t data;
};

static void count_message(struct fake_irq *irq, uint32_t data)
{
    unsigned vector = data - FAKE_MSI(0);
    if (vector >= FAKE_ROUTE_MAX) {
        irq->sent_other++;
        return;
    }
    irq->sent[vector]++;
    if (irq->on_sent)
        irq->on_sent(irq, vector);
}

static void set_line(struct irq_hub *hub, unsigned gsi, bool level)
{
    struct fake_irq *irq = container_of(hub, struct fake_irq, hub);
    CHECK(gsi < ARRAY_SIZE(irq->lines));
    irq->lines[gsi] = level;
    irq->line_changes++;
}

static void send_msi(struct irq_hub *hub, uint64_t address, uint32_t data)
{
    (void)address;
    count_message(container_of(hub, struct fake_irq, hub), data);
}

static int route_create(struct irq_hub *hub, struct irq_route **out)
{
    struct fake_irq *irq = container_of(hub, struct fake_irq, hub);
    if (irq->no_routes)
        return -28;
    struct fake_route *route = calloc(1, sizeof(*route));
    CHECK(route);
    route->route.hub = hub;
    irq->routes++;
    *out = &route->route;
    return 0;
}

static void route_set(struct irq_route *irq_route, uint64_t address, uint32_t data)
{
    struct fake_route *route = container_of(irq_route, struct fake_route, route);
    route->address = address;
    route->data = data;
}

static void route_fire(struct irq_route *irq_route)
{
    const struct fake_route *route = container_of(irq_route, struct fake_route, route);
    CHECK((uint32_t)route->address >> 20 == 0xfee);
    count_message(container_of(irq_route->hub, struct fake_irq, hub), route->data);
}

static void route_destroy(struct irq_route *irq_route)
{
    container_of(irq_route->hub, struct fake_irq, hub)->routes--;
    free(container_of(irq_route, struct fake_route, route));
}

static const struct irq_hub_ops hub_ops = {set_line,  send_msi,   route_create,
                                           route_set, route_fire, route_destroy};

/* Private, as a real guest has it. */
static void *map_ram(uint64_t bytes)
{
    char *base =
        mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(base != MAP_FAILED);
    CHECK(mprotect(base + PAGE, bytes, PROT_READ | PROT_WRITE) == 0);
    return base + PAGE;
}

static void unmap_ram(void *host, uint64_t bytes)
{
    munmap((char *)host - PAGE, bytes + 2 * PAGE);
}

static void on_written(void *opaque, uint64_t gpa, uint64_t length)
{
    struct fake_guest *guest = opaque;
    CHECK(guest_mem_span(&guest->mem, gpa, length));
    guest->written_bytes += length;
    if (gpa < FAKE_RAM_LOW)
        memset(guest->written + gpa, 1, length);
}

void fake_guest_init(struct fake_guest *guest)
{
    *guest = (struct fake_guest){
        .irq.hub.ops = &hub_ops, .next_gpa = 0x10000, .next_bar = FAKE_BAR_BASE};
    CHECK(loop_init(&guest->loop) == 0);
    bus_init(&guest->bus, &guest->loop);
    pci_bus_init(&guest->pci_bus, &guest->bus, &guest->irq.hub);
    guest->mem.regions[0] =
        (struct guest_mem_region){.size = FAKE_RAM_LOW, .host = map_ram(FAKE_RAM_LOW)};
    guest->mem.regions[1] = (struct guest_mem_region){
        .gpa = FAKE_HIGH_GPA, .size = FAKE_RAM_HIGH, .host = map_ram(FAKE_RAM_HIGH)};
    guest->mem.region_count = 2;
    guest->mem.on_written = on_written;
    guest->mem.opaque = guest;
    guest->written = calloc(1, FAKE_RAM_LOW);
    CHECK(guest->written);
}

void fake_guest_fini(struct fake_guest *guest)
{
    CHECK(guest->irq.routes == 0);
    bus_fini(&guest->bus);
    loop_fini(&guest->loop);
    unmap_ram(guest->mem.regions[0].host, FAKE_RAM_LOW);
    unmap_ram(guest->mem.regions[1].host, FAKE_RAM_HIGH);
    free(guest->written);
}

void fake_guest_run(struct fake_guest *guest, unsigned turns)
{
    for (unsigned i = 0; i < turns; i++)
        loop_run_once(&guest->loop, false);
}

static void on_closed(void *opaque)
{
    *(bool *)opaque = true;
}

void fake_guest_close(struct fake_guest *guest, struct device *device)
{
    bool is_closed = false;
    device->ops->close(device, on_closed, &is_closed);
    CHECK(!is_closed);
    for (unsigned i = 0; i < TURNS_MAX && !is_closed; i++)
        loop_run_once(&guest->loop, false);
    CHECK(is_closed);
}

struct virtio_pci_place fake_guest_place(struct fake_guest *guest, const char *id)
{
    return (struct virtio_pci_place){
        .loop = &guest->loop, .mem = &guest->mem, .pci_bus = &guest->pci_bus, .slot = -1, .id = id};
}

void *fake_guest_at(struct fake_guest *guest, uint64_t gpa, uint64_t bytes)
{
    void *host = guest_mem_span(&guest->mem, gpa, bytes);
    CHECK(host);
    return host;
}

uint64_t fake_guest_alloc(struct fake_guest *guest, uint64_t bytes)
{
    uint64_t gpa = guest->next_gpa;
    guest->next_gpa = align_up(gpa + bytes, PAGE);
    memset(fake_guest_at(guest, gpa, bytes), 0, bytes);
    return gpa;
}

bool fake_guest_was_written(struct fake_guest *guest, uint64_t gpa, uint64_t bytes)
{
    CHECK(range_fits(gpa, bytes, FAKE_RAM_LOW));
    return !memchr(guest->written + gpa, 0, bytes);
}

void fake_guest_forget_written(struct fake_guest *guest)
{
    memset(guest->written, 0, FAKE_RAM_LOW);
    guest->written_bytes = 0;
}

uint64_t fake_guest_read(struct fake_guest *guest, uint64_t address, unsigned size)
{
    uint64_t value;
    bus_read(&guest->bus, BUS_MMIO, address, size, &value);
    return value;
}

void fake_guest_write(struct fake_guest *guest, uint64_t address, unsigned size, uint64_t value)
{
    bus_write(&guest->bus, BUS_MMIO, address, size, value);
}

uint32_t fake_device_config_read(struct fake_device *fd, unsigned offset, unsigned size)
{
    return pci_config_read(&fd->guest->pci_bus, fd->slot, 0, offset, size);
}

void fake_device_config_write(struct fake_device *fd, unsigned offset, unsigned size,
                              uint32_t value)
{
    pci_config_write(&fd->guest->pci_bus, fd->slot, 0, offset, size, value);
}

static void place_bars(struct fake_device *fd)
{
    for (unsigned i = 0; i < PCI_BAR_MAX; i++) {
        unsigned at = PCI_BASE_ADDRESS_0 + 4 * i;
        fake_device_config_write(fd, at, 4, UINT32_MAX);
        uint32_t mask = fake_device_config_read(fd, at, 4) & ~UINT32_C(15);
        if (!mask)
            continue;
        fd->bar_bytes[i] = ~mask + 1u;
        fd->bars[i] = align_up(fd->guest->next_bar, fd->bar_bytes[i]);
        fd->guest->next_bar = fd->bars[i] + fd->bar_bytes[i];
        fake_device_config_write(fd, at, 4, (uint32_t)fd->bars[i]);
    }
}

static void note_virtio_capability(struct fake_device *fd, unsigned at)
{
    unsigned bar = fake_device_config_read(fd, at + VIRTIO_PCI_CAP_BAR, 1);
    uint64_t address = (bar < PCI_BAR_MAX ? fd->bars[bar] : 0) +
                       fake_device_config_read(fd, at + VIRTIO_PCI_CAP_OFFSET, 4);
    switch (fake_device_config_read(fd, at + VIRTIO_PCI_CAP_CFG_TYPE, 1)) {
    case VIRTIO_PCI_CAP_COMMON_CFG:
        fd->common = address;
        break;
    case VIRTIO_PCI_CAP_ISR_CFG:
        fd->isr = address;
        break;
    case VIRTIO_PCI_CAP_DEVICE_CFG:
        fd->config = address;
        break;
    case VIRTIO_PCI_CAP_NOTIFY_CFG:
        fd->notify = address;
        fd->notify_multiplier = fake_device_config_read(fd, at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
        break;
    case VIRTIO_PCI_CAP_PCI_CFG:
        fd->window = at;
        break;
    default:
        break;
    }
}

static void enable_msix(struct fake_device *fd)
{
    uint32_t table = fake_device_config_read(fd, fd->msix + PCI_MSIX_TABLE, 4);
    uint32_t flags = fake_device_config_read(fd, fd->msix + PCI_MSIX_FLAGS, 2);
    fd->msix_table = fd->bars[table & PCI_MSIX_TABLE_BIR] + (table & PCI_MSIX_TABLE_OFFSET);
    fd->vector_count = (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
    fake_device_config_write(fd, fd->msix + PCI_MSIX_FLAGS, 2, flags | PCI_MSIX_FLAGS_ENABLE);
    for (unsigned i = 0; i < fd->vector_count; i++) {
        uint64_t entry = fd->msix_table + PCI_MSIX_ENTRY_SIZE * i;
        fake_guest_write(fd->guest, entry + PCI_MSIX_ENTRY_LOWER_ADDR, 4, 0xfee00000);
        fake_guest_write(fd->guest, entry + PCI_MSIX_ENTRY_UPPER_ADDR, 4, 0);
        fake_guest_write(fd->guest, entry + PCI_MSIX_ENTRY_DATA, 4,
                         FAKE_MSI(fd->guest->first_vector + i));
        fake_guest_write(fd->guest, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 4, 0);
    }
}

void fake_device_probe(struct fake_device *fd, struct fake_guest *guest,
                       const struct device *device)
{
    *fd = (struct fake_device){.guest = guest};
    while (fd->slot < PCI_SLOT_MAX && (!guest->pci_bus.devices[fd->slot] ||
                                       &guest->pci_bus.devices[fd->slot]->device != device))
        fd->slot++;
    CHECK(fd->slot < PCI_SLOT_MAX);
    fake_device_config_write(fd, PCI_COMMAND, 2, 0);
    place_bars(fd);
    unsigned at = fake_device_config_read(fd, PCI_CAPABILITY_LIST, 1);
    for (unsigned hops = 0; at; hops++) {
        CHECK(hops < 48);
        unsigned id = fake_device_config_read(fd, at, 1);
        if (id == PCI_CAP_ID_VNDR)
            note_virtio_capability(fd, at);
        else if (id == PCI_CAP_ID_MSIX)
            fd->msix = at;
        at = fake_device_config_read(fd, at + PCI_CAP_LIST_NEXT, 1);
    }
    fake_device_config_write(fd, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    if (fd->msix)
        enable_msix(fd);
}

uint64_t fake_device_read(struct fake_device *fd, unsigned common_offset, unsigned size)
{
    return fake_guest_read(fd->guest, fd->common + common_offset, size);
}

void fake_device_write(struct fake_device *fd, unsigned common_offset, unsigned size,
                       uint64_t value)
{
    fake_guest_write(fd->guest, fd->common + common_offset, size, value);
}

uint8_t fake_device_status(struct fake_device *fd)
{
    return (uint8_t)fake_device_read(fd, VIRTIO_PCI_COMMON_STATUS, 1);
}

static void add_status(struct fake_device *fd, uint8_t bits)
{
    fake_device_write(fd, VIRTIO_PCI_COMMON_STATUS, 1, fake_device_status(fd) | bits);
}

uint64_t fake_device_features(struct fake_device *fd)
{
    fake_device_write(fd, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
    uint64_t low = fake_device_read(fd, VIRTIO_PCI_COMMON_DF, 4);
    fake_device_write(fd, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
    return low | fake_device_read(fd, VIRTIO_PCI_COMMON_DF, 4) << 32;
}

void fake_device_reset(struct fake_device *fd)
{
    fake_device_write(fd, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    for (unsigned i = 0; fake_device_status(fd); i++) {
        CHECK(i < TURNS_MAX);
        loop_run_once(&fd->guest->loop, false);
    }
}

bool fake_device_negotiate(struct fake_device *fd, uint64_t features)
{
    fake_device_reset(fd);
    add_status(fd, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    add_status(fd, VIRTIO_CONFIG_S_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        fake_device_write(fd, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
        fake_device_write(fd, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(features >> 32 * half));
    }
    fake_device_write(fd, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    add_status(fd, VIRTIO_CONFIG_S_FEATURES_OK);
    return fake_device_status(fd) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void fake_device_driver_ok(struct fake_device *fd)
{
    add_status(fd, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void write_address(struct fake_device *fd, unsigned offset, uint64_t gpa)
{
    fake_device_write(fd, offset, 4, (uint32_t)gpa);
    fake_device_write(fd, offset + 4, 4, gpa >> 32);
}

void fake_queue_init(struct fake_queue *queue, struct fake_device *fd, unsigned index,
                     uint16_t size)
{
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
    if (!size)
        size = (uint16_t)fake_device_read(fd, VIRTIO_PCI_COMMON_Q_SIZE, 2);
    *queue = (struct fake_queue){.fd = fd, .index = index, .size = size};
    queue->desc = fake_guest_alloc(fd->guest, 16u * size);
    queue->avail = fake_guest_alloc(fd->guest, 6u + 2u * size);
    queue->used = fake_guest_alloc(fd->guest, 6u + 8u * size);
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_MSIX, 2, index + 1);
    write_address(fd, VIRTIO_PCI_COMMON_Q_DESCLO, queue->desc);
    write_address(fd, VIRTIO_PCI_COMMON_Q_AVAILLO, queue->avail);
    write_address(fd, VIRTIO_PCI_COMMON_Q_USEDLO, queue->used);
    fake_device_write(fd, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void store_descriptor(struct fake_queue *queue, uint64_t at, uint64_t gpa, uint32_t bytes,
                             uint16_t flags, uint16_t next)
{
    uint8_t *descriptor = fake_guest_at(queue->fd->guest, at, 16);
    store_le64(descriptor, gpa);
    store_le32(descriptor + 8, bytes);
    store_le16(descriptor + 12, flags);
    store_le16(descriptor + 14, next);
}

void fake_queue_set_descriptor(struct fake_queue *queue, uint16_t index, uint64_t gpa,
                               uint32_t bytes, uint16_t flags, uint16_t next)
{
    store_descriptor(queue, queue->desc + 16u * index, gpa, bytes, flags, next);
}

void fake_queue_set_avail_index(struct fake_queue *queue, uint16_t index)
{
    queue->avail_at = index;
    store_le16(fake_guest_at(queue->fd->guest, queue->avail + 2, 2), index);
}

void fake_queue_offer(struct fake_queue *queue, uint16_t head)
{
    uint64_t at = queue->avail + 4 + 2u * (queue->avail_at % queue->size);
    store_le16(fake_guest_at(queue->fd->guest, at, 2), head);
    fake_queue_set_avail_index(queue, (uint16_t)(queue->avail_at + 1));
}

static uint16_t flags_of(const struct fake_buffer *buffer, bool is_last)
{
    return (uint16_t)((buffer->is_in ? VRING_DESC_F_WRITE : 0) | (is_last ? 0 : VRING_DESC_F_NEXT));
}

static uint16_t next_descriptor(struct fake_queue *queue)
{
    uint16_t index = queue->next_desc;
    queue->next_desc = (uint16_t)((index + 1) % queue->size);
    return index;
}

uint16_t fake_queue_add(struct fake_queue *queue, const struct fake_buffer *buffers, unsigned count)
{
    uint16_t head = queue->next_desc;
    for (unsigned i = 0; i < count; i++) {
        uint16_t index = next_descriptor(queue);
        fake_queue_set_descriptor(queue, index, buffers[i].gpa, buffers[i].bytes,
                                  flags_of(&buffers[i], i + 1 == count), queue->next_desc);
    }
    fake_queue_offer(queue, head);
    return head;
}

uint16_t fake_queue_add_indirect(struct fake_queue *queue, const struct fake_buffer *buffers,
                                 unsigned count)
{
    uint64_t table = fake_guest_alloc(queue->fd->guest, 16u * count);
    for (unsigned i = 0; i < count; i++)
        store_descriptor(queue, table + 16u * i, buffers[i].gpa, buffers[i].bytes,
                         flags_of(&buffers[i], i + 1 == count), (uint16_t)(i + 1));
    uint16_t head = next_descriptor(queue);
    fake_queue_set_descriptor(queue, head, table, 16u * count, VRING_DESC_F_INDIRECT, 0);
    fake_queue_offer(queue, head);
    return head;
}

void fake_queue_kick(struct fake_queue *queue)
{
    struct fake_device *fd = queue->fd;
    fake_guest_write(fd->guest, fd->notify + fd->notify_multiplier * queue->index, 2, queue->index);
}

uint16_t fake_queue_used_index(struct fake_queue *queue)
{
    return load_le16(fake_guest_at(queue->fd->guest, queue->used + 2, 2));
}

bool fake_queue_used(struct fake_queue *queue, uint32_t *head, uint32_t *bytes)
{
    if (fake_queue_used_index(queue) == queue->used_at)
        return false;
    uint64_t at = queue->used + 4 + 8u * (queue->used_at % queue->size);
    const uint8_t *entry = fake_guest_at(queue->fd->guest, at, 8);
    *head = load_le32(entry);
    if (bytes)
        *bytes = load_le32(entry + 4);
    queue->used_at++;
    /* As an honest driver: tell me of the next one (used_event; ignored without EVENT_IDX). */
    store_le16(fake_guest_at(queue->fd->guest, queue->avail + 4 + 2u * queue->size, 2),
               queue->used_at);
    return true;
}

uint32_t fake_queue_wait(struct fake_queue *queue, uint32_t *bytes)
{
    uint32_t head;
    for (unsigned i = 0; !fake_queue_used(queue, &head, bytes); i++) {
        CHECK(i < TURNS_MAX);
        loop_run_once(&queue->fd->guest->loop, false);
    }
    return head;
}
