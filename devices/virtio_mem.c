/* SPDX-License-Identifier: MIT */
/*
 * virtio_mem: answers the guest's requests from a bitmap of plugged blocks.
 *
 * An unplugged block is given back to the host. That takes time for much
 * memory, so it is done a piece a turn, after the answer; until then the block is stale, and a
 * request to plug it is told to come again.
 */
#include "devices/virtio_mem.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mem.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"

#define QUEUE_SIZE     128
#define SEGMENTS_MAX   16
#define CHAINS_A_TURN  16
#define RETURN_BYTES   (UINT64_C(16) << 20) /* given back in one turn */
#define REQUEST_BYTES  24
#define RESPONSE_BYTES 10
#define USABLE_AHEAD   (UINT64_C(256) << 20) /* Linux adds memory in pieces of 128 MiB */

enum { BLOCK_PLUGGED = 1, BLOCK_STALE = 2 };

struct virtio_mem {
    struct virtio_pci pci; /* first */
    struct virtio_mem_options options;
    struct virtio_mem_config config;
    uint64_t block_count, plugged_blocks, usable_bytes;
    uint8_t *blocks;      /* BLOCK_* */
    uint64_t return_from; /* no block before this one is stale */
    struct loop_task give_back;
    struct iovec iov[SEGMENTS_MAX];
};

static struct virtio_mem *to_mem(struct virtio_device *vdev)
{
    return container_of(virtio_pci_of(vdev), struct virtio_mem, pci);
}

static struct virtio_mem *of_device(const struct device *device)
{
    return container_of((struct device *)device, struct virtio_mem, pci.pci.device);
}

static void update_config(struct virtio_mem *mem)
{
    struct virtio_mem_config *config = &mem->config;
    store_le64(&config->block_size, mem->options.block_bytes);
    store_le64(&config->addr, mem->options.gpa);
    store_le64(&config->region_size, mem->options.size_bytes);
    store_le64(&config->usable_region_size, mem->usable_bytes);
    store_le64(&config->plugged_size, mem->plugged_blocks * mem->options.block_bytes);
    store_le64(&config->requested_size, mem->options.requested_bytes);
}

/* The guest may use a little more than was asked for, to find room in whole pieces. */
static bool grow_usable(struct virtio_mem *mem)
{
    uint64_t wanted = MIN(mem->options.size_bytes, mem->options.requested_bytes + 2 * USABLE_AHEAD);
    if (mem->options.requested_bytes == 0 || wanted <= mem->usable_bytes)
        return true;
    if (mem->options.make_usable && !mem->options.make_usable(mem->options.opaque, wanted))
        return false;
    mem->usable_bytes = wanted;
    return true;
}

/* --- giving back --- */

static void discard(struct virtio_mem *mem, uint64_t block, uint64_t count)
{
    const struct guest_mem *guest = mem->pci.virtio.mem;
    uint64_t gpa = mem->options.gpa + block * mem->options.block_bytes;
    uint64_t bytes = count * mem->options.block_bytes;
    void *host = guest_mem_span(guest, gpa, bytes);
    CHECK(host);
    if (guest_mem_discard_host(guest, host, bytes) == 0)
        return;
    memset(host, 0, bytes); /* as the guest will expect it when the block is plugged again */
    guest_mem_written(guest, gpa, bytes);
}

static void give_back(struct loop_task *task)
{
    struct virtio_mem *mem = container_of(task, struct virtio_mem, give_back);
    uint64_t most = MAX(RETURN_BYTES / mem->options.block_bytes, 1), run = 0;
    uint64_t *at = &mem->return_from;
    while (*at < mem->block_count && !(mem->blocks[*at] & BLOCK_STALE))
        ++*at;
    while (run < most && *at + run < mem->block_count && (mem->blocks[*at + run] & BLOCK_STALE))
        mem->blocks[*at + run++] &= (uint8_t)~BLOCK_STALE;
    if (!run)
        return;
    discard(mem, *at, run);
    *at += run;
    loop_task_queue(task);
}

static void unplug(struct virtio_mem *mem, uint64_t block, uint64_t count)
{
    for (uint64_t i = block; i < block + count; i++) {
        if (!(mem->blocks[i] & BLOCK_PLUGGED))
            continue;
        mem->blocks[i] = BLOCK_STALE;
        mem->plugged_blocks--;
    }
    mem->return_from = MIN(mem->return_from, block);
    loop_task_queue(&mem->give_back);
}

/* --- requests --- */

static void tell_size_changed(struct virtio_mem *mem)
{
    update_config(mem);
    if (mem->options.on_size_changed)
        mem->options.on_size_changed(mem->options.opaque);
}

/* The blocks of a request; false if they are not all inside what may be used. */
static bool find_blocks(const struct virtio_mem *mem, const uint8_t *request, uint64_t *block,
                        uint64_t *count)
{
    uint64_t gpa = load_le64(request + 8);
    *count = load_le16(request + 16);
    if (gpa < mem->options.gpa || !*count)
        return false;
    uint64_t offset = gpa - mem->options.gpa;
    *block = offset / mem->options.block_bytes;
    return is_aligned(offset, mem->options.block_bytes) &&
           range_fits(offset, *count * mem->options.block_bytes, mem->usable_bytes);
}

static uint64_t count_with(const struct virtio_mem *mem, uint64_t block, uint64_t count,
                           uint8_t bit)
{
    uint64_t found = 0;
    for (uint64_t i = block; i < block + count; i++)
        found += (mem->blocks[i] & bit) != 0;
    return found;
}

static uint16_t on_plug(struct virtio_mem *mem, const uint8_t *request)
{
    uint64_t block, count;
    if (!find_blocks(mem, request, &block, &count) || count_with(mem, block, count, BLOCK_PLUGGED))
        return VIRTIO_MEM_RESP_ERROR;
    if ((mem->plugged_blocks + count) * mem->options.block_bytes > mem->options.requested_bytes)
        return VIRTIO_MEM_RESP_NACK;
    if (count_with(mem, block, count, BLOCK_STALE))
        return VIRTIO_MEM_RESP_BUSY;
    memset(mem->blocks + block, BLOCK_PLUGGED, count);
    mem->plugged_blocks += count;
    tell_size_changed(mem);
    return VIRTIO_MEM_RESP_ACK;
}

static uint16_t on_unplug(struct virtio_mem *mem, const uint8_t *request)
{
    uint64_t block, count;
    if (!find_blocks(mem, request, &block, &count) ||
        count_with(mem, block, count, BLOCK_PLUGGED) != count)
        return VIRTIO_MEM_RESP_ERROR;
    unplug(mem, block, count);
    tell_size_changed(mem);
    return VIRTIO_MEM_RESP_ACK;
}

static uint16_t on_unplug_all(struct virtio_mem *mem)
{
    if (mem->plugged_blocks) {
        unplug(mem, 0, mem->block_count);
        tell_size_changed(mem);
    }
    return VIRTIO_MEM_RESP_ACK;
}

static uint16_t on_state(struct virtio_mem *mem, const uint8_t *request, uint16_t *out)
{
    uint64_t block, count;
    if (!find_blocks(mem, request, &block, &count))
        return VIRTIO_MEM_RESP_ERROR;
    uint64_t plugged = count_with(mem, block, count, BLOCK_PLUGGED);
    *out = VIRTIO_MEM_STATE_MIXED;
    if (plugged == count)
        *out = VIRTIO_MEM_STATE_PLUGGED;
    else if (!plugged)
        *out = VIRTIO_MEM_STATE_UNPLUGGED;
    return VIRTIO_MEM_RESP_ACK;
}

static uint16_t answer(struct virtio_mem *mem, const uint8_t *request, uint16_t *out)
{
    switch (load_le16(request)) {
    case VIRTIO_MEM_REQ_PLUG:
        return on_plug(mem, request);
    case VIRTIO_MEM_REQ_UNPLUG:
        return on_unplug(mem, request);
    case VIRTIO_MEM_REQ_UNPLUG_ALL:
        return on_unplug_all(mem);
    case VIRTIO_MEM_REQ_STATE:
        return on_state(mem, request, out);
    default:
        return VIRTIO_MEM_RESP_ERROR;
    }
}

/* The length of the answer; 0: the chain is none of ours. */
static uint32_t run_request(struct virtio_mem *mem, const struct virtqueue_chain *chain)
{
    uint8_t request[REQUEST_BYTES], response[RESPONSE_BYTES] = {0};
    uint16_t state = 0;
    if (chain->out_bytes < REQUEST_BYTES || chain->in_bytes < RESPONSE_BYTES ||
        iov_read(chain->iov, chain->out_count, 0, request, sizeof(request)) != sizeof(request))
        return 0;
    store_le16(response, answer(mem, request, &state));
    store_le16(response + 8, state);
    return (uint32_t)iov_write(virtqueue_chain_in(chain), chain->in_count, 0, response,
                               sizeof(response));
}

static void on_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_mem *mem = to_mem(vdev);
    struct virtqueue *vq = virtio_queue(vdev, queue);
    struct virtqueue_chain chain = {.iov = mem->iov, .iov_max = SEGMENTS_MAX};
    for (unsigned i = 0; i < CHAINS_A_TURN; i++) {
        if (!virtqueue_pop(vq, &chain))
            return;
        uint32_t written = run_request(mem, &chain);
        virtqueue_push(vq, &chain, written);
        if (!written) {
            virtio_broken(vdev, "a request without room for its answer");
            return;
        }
    }
    virtio_kick(vdev, queue);
}

/* --- the device --- */

/* Memory that is not plugged must not be touched: reading it would take it from the host. */
static uint64_t features(struct virtio_device *vdev)
{
    (void)vdev;
    return VIRTIO_FEATURE(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE);
}

/* A driver that comes anew finds what was plugged; only the machine's reset takes it. */
static void on_machine_reset(struct device *device)
{
    struct virtio_mem *mem = of_device(device);
    virtio_pci_reset(device);
    on_unplug_all(mem);
}

static void destroy(struct virtio_device *vdev)
{
    struct virtio_mem *mem = to_mem(vdev);
    loop_task_cancel(&mem->give_back);
    free(mem->blocks);
    free(mem);
}

static const struct virtio_ops virtio_ops = {
    .name = "virtio-mem",
    .device_id = VIRTIO_ID_MEM,
    .features = features,
    .kick = on_kick,
    .destroy = destroy,
};

static const struct state_field state_fields[] = {VIRTIO_PCI_STATE_FIELDS(struct virtio_mem),
                                                  STATE_FIELD(struct virtio_mem, plugged_blocks),
                                                  STATE_FIELD(struct virtio_mem, usable_bytes)};

static const struct state_table state = {"virtio-mem-pci", 1, state_fields,
                                         ARRAY_SIZE(state_fields)};

static const struct device_ops device_ops = {
    .kind = "virtio-mem-pci",
    .reset = on_machine_reset,
    .state = &state,
    .before_save = virtio_pci_before_save,
    .after_restore = virtio_pci_after_restore,
    .close = virtio_pci_close,
};

static int start(struct virtio_mem *mem, const struct virtio_pci_place *place, struct error *err)
{
    const struct virtio_setup setup = {
        .ops = &virtio_ops,
        .config = &mem->config,
        .config_size = sizeof(mem->config),
        .queue_count = 1,
        .queue_size = QUEUE_SIZE,
    };
    mem->block_count = mem->options.size_bytes / mem->options.block_bytes;
    mem->return_from = mem->block_count;
    mem->blocks = calloc(mem->block_count, 1);
    if (!mem->blocks || !grow_usable(mem))
        return error_set_errno(err, ENOMEM, "cannot make %llu MiB of memory to plug",
                               (unsigned long long)(mem->options.size_bytes >> 20));
    update_config(mem);
    loop_task_init(place->loop, &mem->give_back, LOOP_STAGE_DRAIN, give_back);
    return virtio_pci_init(&mem->pci, place, &device_ops, &setup, err);
}

int virtio_mem_create(const struct virtio_pci_place *place,
                      const struct virtio_mem_options *options, struct device **out,
                      struct error *err)
{
    struct virtio_mem *mem = calloc(1, sizeof(*mem));
    if (!mem)
        return error_set_errno(err, ENOMEM, "cannot make a memory device");
    mem->options = *options;
    int result = start(mem, place, err);
    if (result) {
        free(mem->blocks);
        free(mem);
        return result;
    }
    *out = &mem->pci.pci.device;
    return 0;
}

int virtio_mem_request(struct device *device, uint64_t bytes, struct error *err)
{
    struct virtio_mem *mem = of_device(device);
    uint64_t before = mem->options.requested_bytes;
    if (bytes % mem->options.block_bytes)
        return error_set(err, EINVAL,
                         "'requested-size' has to be multiples of 'block-size' (0x%llx)",
                         (unsigned long long)mem->options.block_bytes);
    if (bytes > mem->options.size_bytes)
        return error_set(err, EINVAL,
                         "'requested-size' cannot exceed the memory backend size(0x%llx)",
                         (unsigned long long)mem->options.size_bytes);
    mem->options.requested_bytes = bytes;
    if (!grow_usable(mem)) {
        mem->options.requested_bytes = before;
        return error_set(err, ENOMEM, "there is no room for more memory");
    }
    update_config(mem);
    virtio_config_changed(&mem->pci.virtio);
    return 0;
}

void virtio_mem_get_info(const struct device *device, struct virtio_mem_info *info)
{
    const struct virtio_mem *mem = of_device(device);
    *info = (struct virtio_mem_info){
        .gpa = mem->options.gpa,
        .size_bytes = mem->options.size_bytes,
        .block_bytes = mem->options.block_bytes,
        .requested_bytes = mem->options.requested_bytes,
        .plugged_bytes = mem->plugged_blocks * mem->options.block_bytes,
    };
}
