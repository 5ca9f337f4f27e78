/* SPDX-License-Identifier: MIT */
/*
 * virtio_blk: turns chains into disk requests and their results into status bytes.
 *
 * A request sits in a slot of its own from pop to push; slots and their iovecs are allocated once,
 * as many as can be in flight. The header is copied out, then checked; the status byte is the last
 * writable one, wherever the driver's framing puts it. Every chain is pushed exactly once, from
 * finish(): rejected ones at once, the others when the disk answers. What the disk failed may be
 * held instead, and be submitted again; a reset lets go of it.
 */
#include "devices/virtio_blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/iov.h"
#include "base/limits.h"
#include "base/log.h"

#define SECTOR         512u
#define QUEUE_SIZE     256
#define IOV_MAX_A_SLOT (BLK_SEG_MAX + 2) /* data, header and status */
#define SHARE          4                 /* of what is offered, one part in so many */
#define SHARE_MIN      4u
#define SHARE_MAX      32u
#define PHYSICAL_EXP   3 /* 4 KiB: what files and page cache work in */

/* What each state permits. */
enum blk_state {
    BLK_FREE,      /* on the free list; nothing else is valid */
    BLK_POPPED,    /* the chain is ours; nobody else knows of it */
    BLK_SUBMITTED, /* the disk works on the chain's buffers; only on_disk_done may touch it */
    BLK_HELD,      /* failed, and on a list of those; `disk` says what to submit again */
};

struct blk_request {
    struct disk_request disk; /* first */
    struct virtio_blk *blk;
    struct virtqueue *vq;
    struct virtqueue_chain chain;
    enum blk_state state;
    int error;                       /* BLK_HELD: a positive errno */
    struct virtio_blk_outhdr header; /* our copy, little-endian as it came */
    struct iovec *data;              /* the chain's entries without header and status */
    unsigned data_count;
    uint64_t data_bytes;
    uint8_t *status;
    struct list node;
};

struct virtio_blk {
    struct virtio_pci pci; /* first */
    struct disk *disk;
    struct virtio_blk_config config;
    char serial[VIRTIO_BLK_ID_BYTES];
    unsigned slot_count;
    struct blk_request *slots;
    struct iovec *iovs; /* IOV_MAX_A_SLOT for each slot; resident only where used */
    struct list free;
    struct list held;      /* until virtio_blk_retry */
    struct list undecided; /* until virtio_blk_decide */
    unsigned in_use;
    enum virtio_blk_action (*on_error)(void *opaque, enum disk_op op, int error);
    void *on_error_opaque;
};

static struct virtio_blk *to_blk(struct virtio_device *vdev)
{
    return container_of(virtio_pci_of(vdev), struct virtio_blk, pci);
}

static struct blk_request *take_slot(struct virtio_blk *blk, struct virtqueue *vq)
{
    struct list *node = list_pop_front(&blk->free);
    CHECK(node); /* there is one more than chains can be in flight */
    struct blk_request *request = list_entry(node, struct blk_request, node);
    CHECK(request->state == BLK_FREE);
    request->state = BLK_POPPED;
    request->vq = vq;
    blk->in_use++;
    return request;
}

static void give_slot(struct blk_request *request)
{
    request->state = BLK_FREE;
    request->blk->in_use--;
    list_push_front(&request->blk->free, &request->node);
}

/* The end of every request. `data_is_whole`: all writable bytes before the status are written. */
static void finish(struct blk_request *request, uint8_t status, bool data_is_whole)
{
    struct virtqueue_chain *chain = &request->chain;
    *(volatile uint8_t *)request->status = status;
    if (data_is_whole || chain->in_bytes == 1) {
        virtqueue_push(request->vq, chain, chain->in_bytes);
    } else {
        guest_mem_written_host(request->vq->mem, request->status, 1);
        virtqueue_push(request->vq, chain, 0);
    }
    give_slot(request);
}

static void reject(struct blk_request *request, uint8_t status)
{
    CHECK(request->state == BLK_POPPED);
    finish(request, status, false);
}

/* The entry whose last byte is the status. */
static struct iovec *status_entry(const struct blk_request *request)
{
    return &virtqueue_chain_in(&request->chain)[request->chain.in_count - 1];
}

/* The disk gets the data's entries only: the status is cut off while it has them. */
static void cut_status(struct blk_request *request)
{
    if (--status_entry(request)->iov_len == 0)
        request->data_count--;
}

static void uncut_status(struct blk_request *request)
{
    status_entry(request)->iov_len++;
    request->data_count = request->chain.in_count;
}

/* The disk failed the request. */
static void fail(struct blk_request *request, int error)
{
    struct virtio_blk *blk = request->blk;
    bool is_read = request->disk.op == DISK_READ;
    enum virtio_blk_action action = VIRTIO_BLK_REPORT;
    /* When the device is not live any more, nobody waits for the answer or for a retry. */
    if (blk->on_error && virtio_is_live(&blk->pci.virtio))
        action = blk->on_error(blk->on_error_opaque, request->disk.op, error);
    if (action == VIRTIO_BLK_HOLD || action == VIRTIO_BLK_ASK_AGAIN) {
        request->state = BLK_HELD;
        request->error = error;
        list_push_back(action == VIRTIO_BLK_HOLD ? &blk->held : &blk->undecided, &request->node);
        return;
    }
    /* A failed read may have come half way: the guest sees all of it as zeroes. */
    if (is_read)
        iov_fill(request->data, request->data_count, 0, 0, request->data_bytes);
    finish(request, action == VIRTIO_BLK_IGNORE ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR, is_read);
}

static void on_disk_done(struct disk_request *disk_request, int result)
{
    struct blk_request *request = container_of(disk_request, struct blk_request, disk);
    bool is_read = disk_request->op == DISK_READ;
    CHECK(request->state == BLK_SUBMITTED);
    if (is_read)
        uncut_status(request);
    if (result)
        fail(request, -result);
    else
        finish(request, VIRTIO_BLK_S_OK, is_read);
}

static void submit(struct blk_request *request, enum disk_op op, unsigned flags, uint64_t offset,
                   uint64_t bytes)
{
    bool has_data = op == DISK_READ || op == DISK_WRITE;
    if (op == DISK_READ)
        cut_status(request);
    request->state = BLK_SUBMITTED;
    request->disk = (struct disk_request){
        .op = op,
        .flags = flags,
        .offset = offset,
        .bytes = bytes,
        .iov = has_data ? request->data : NULL,
        .iov_count = has_data ? request->data_count : 0,
        .on_done = on_disk_done,
    };
    disk_submit(request->blk->disk, &request->disk);
}

/* True if the sectors exist; then their range in bytes. */
static bool to_range(const struct virtio_blk *blk, uint64_t sector, uint64_t sectors,
                     uint64_t *offset)
{
    if (!range_fits(sector, sectors, disk_size_bytes(blk->disk) / SECTOR))
        return false;
    *offset = sector * SECTOR;
    return true;
}

/* A driver that does not flush must find each write on stable storage (5.2.6.2). */
static unsigned durability(const struct virtio_blk *blk, enum disk_op op)
{
    bool is_write = op == DISK_WRITE || op == DISK_ZERO;
    return is_write && !virtio_has(&blk->pci.virtio, VIRTIO_BLK_F_FLUSH) ? DISK_FUA : 0;
}

static void start_io(struct blk_request *request, enum disk_op op)
{
    struct virtio_blk *blk = request->blk;
    uint64_t offset;
    if (request->data_bytes % SECTOR ||
        !to_range(blk, le64toh(request->header.sector), request->data_bytes / SECTOR, &offset) ||
        (op == DISK_WRITE && disk_is_read_only(blk->disk))) {
        reject(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (!request->data_bytes) {
        reject(request, VIRTIO_BLK_S_OK);
        return;
    }
    submit(request, op, durability(blk, op), offset, request->data_bytes);
}

/* DISCARD and WRITE_ZEROES: one segment, as max_discard_seg and max_write_zeroes_seg say. */
static void start_erase(struct blk_request *request, enum disk_op op)
{
    struct virtio_blk *blk = request->blk;
    struct virtio_blk_discard_write_zeroes segment;
    uint32_t known_flags = op == DISK_ZERO ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    uint64_t offset;
    if (request->data_bytes != sizeof(segment) || disk_is_read_only(blk->disk)) {
        reject(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    CHECK(iov_read(request->data, request->data_count, 0, &segment, sizeof(segment)) ==
          sizeof(segment));
    uint32_t sectors = le32toh(segment.num_sectors), flags = le32toh(segment.flags);
    if (flags & ~known_flags) {
        reject(request, VIRTIO_BLK_S_UNSUPP);
    } else if (sectors > BLK_ERASE_SECTORS_MAX ||
               !to_range(blk, le64toh(segment.sector), sectors, &offset)) {
        reject(request, VIRTIO_BLK_S_IOERR);
    } else if (!sectors) {
        reject(request, VIRTIO_BLK_S_OK);
    } else {
        submit(request, op, durability(blk, op) | (flags ? DISK_MAY_UNMAP : 0), offset,
               (uint64_t)sectors * SECTOR);
    }
}

static void answer_id(struct blk_request *request)
{
    const struct virtio_blk *blk = request->blk;
    if (request->data_bytes != sizeof(blk->serial)) {
        reject(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    iov_write(request->data, request->data_count, 0, blk->serial, sizeof(blk->serial));
    finish(request, VIRTIO_BLK_S_OK, true);
}

/* Copies the header and finds data and status. NULL, or why the chain is no request. */
static const char *parse(struct blk_request *request)
{
    struct virtqueue_chain *chain = &request->chain;
    if (iov_read(chain->iov, chain->out_count, 0, &request->header, sizeof(request->header)) !=
        sizeof(request->header))
        return "a request without a whole header";
    if (!chain->in_count)
        return "a request without a writable status byte";
    const struct iovec *last = status_entry(request);
    request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    return NULL;
}

/* The readable entries after the header, cut in place: nobody needs them whole again. */
static void data_is_readable(struct blk_request *request)
{
    struct virtqueue_chain *chain = &request->chain;
    size_t skip = sizeof(request->header);
    unsigned first = 0;
    while (first < chain->out_count && skip >= chain->iov[first].iov_len)
        skip -= chain->iov[first++].iov_len;
    request->data = chain->iov + first;
    request->data_count = chain->out_count - first;
    request->data_bytes = chain->out_bytes - sizeof(request->header);
    if (skip) {
        request->data->iov_base = (char *)request->data->iov_base + skip;
        request->data->iov_len -= skip;
    }
}

/* The writable bytes before the status. */
static void data_is_writable(struct blk_request *request)
{
    struct virtqueue_chain *chain = &request->chain;
    request->data = virtqueue_chain_in(chain);
    request->data_count = chain->in_count;
    request->data_bytes = chain->in_bytes - 1u;
}

static void start(struct blk_request *request)
{
    uint32_t type = le32toh(request->header.type);
    if (type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID)
        data_is_writable(request);
    else
        data_is_readable(request);
    switch (type) {
    case VIRTIO_BLK_T_IN:
        start_io(request, DISK_READ);
        break;
    case VIRTIO_BLK_T_OUT:
        start_io(request, DISK_WRITE);
        break;
    case VIRTIO_BLK_T_FLUSH:
        submit(request, DISK_FLUSH, 0, 0, 0);
        break;
    case VIRTIO_BLK_T_DISCARD:
        start_erase(request, DISK_DISCARD);
        break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        start_erase(request, DISK_ZERO);
        break;
    case VIRTIO_BLK_T_GET_ID:
        answer_id(request);
        break;
    default:
        reject(request, VIRTIO_BLK_S_UNSUPP);
    }
}

/* The next chain, parsed; NULL if there is none that is a request. */
static struct blk_request *take(struct virtio_blk *blk, struct virtqueue *vq)
{
    struct blk_request *request = take_slot(blk, vq);
    const char *why = NULL;
    if (virtqueue_pop(vq, &request->chain)) {
        why = parse(request);
        if (!why)
            return request;
        virtio_broken(&blk->pci.virtio, why);
        virtqueue_push(vq, &request->chain, 0);
    }
    give_slot(request);
    return NULL;
}

/* Up to `most` requests, of which the disk hears before the first of them starts. */
static unsigned take_batch(struct virtio_blk *blk, struct virtqueue *vq, struct blk_request **batch,
                           unsigned most)
{
    unsigned count = 0;
    while (count < most && (batch[count] = take(blk, vq))) {
        uint64_t sector = le64toh(batch[count++]->header.sector);
        if (sector < UINT64_MAX / SECTOR)
            disk_expect(blk->disk, sector * SECTOR);
    }
    return count;
}

/*
 * A part of what is offered, in each turn: the driver is told of it and offers more while we are at
 * the rest. All at once, driver and loop would take turns in sleeping, and waking costs more than a
 * turn does.
 */
static unsigned share_of(struct virtqueue *vq)
{
    return MIN(MAX(virtqueue_offered(vq) / SHARE, SHARE_MIN), SHARE_MAX);
}

static void on_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_blk *blk = to_blk(vdev);
    struct virtqueue *vq = virtio_queue(vdev, queue);
    struct blk_request *batch[SHARE_MAX];
    unsigned share = share_of(vq), count = take_batch(blk, vq, batch, share);
    for (unsigned i = 0; i < count; i++)
        start(batch[i]);
    if (count == share)
        virtio_kick(vdev, queue);
}

/* Held requests need not wait for a retry that a reset makes pointless. */
static void on_reset(struct virtio_device *vdev)
{
    struct virtio_blk *blk = to_blk(vdev);
    struct list *node;
    list_splice_back(&blk->held, &blk->undecided);
    while ((node = list_pop_front(&blk->held)))
        finish(list_entry(node, struct blk_request, node), VIRTIO_BLK_S_IOERR, false);
}

void virtio_blk_decide(struct device *device)
{
    struct virtio_blk *blk = container_of(device, struct virtio_blk, pci.pci.device);
    struct list batch, *node;
    loop_check_thread(blk->pci.virtio.loop);
    list_init(&batch);
    list_splice_back(&batch, &blk->undecided);
    while ((node = list_pop_front(&batch))) {
        struct blk_request *request = list_entry(node, struct blk_request, node);
        fail(request, request->error);
    }
}

void virtio_blk_retry(struct device *device)
{
    struct virtio_blk *blk = container_of(device, struct virtio_blk, pci.pci.device);
    struct list batch, *node;
    list_init(&batch);
    list_splice_back(&batch, &blk->held);
    while ((node = list_pop_front(&batch))) {
        struct blk_request *request = list_entry(node, struct blk_request, node);
        const struct disk_request disk = request->disk;
        /* The disk may have shrunk in between. */
        if (range_fits(disk.offset, disk.bytes, disk_size_bytes(blk->disk)))
            submit(request, disk.op, disk.flags, disk.offset, disk.bytes);
        else
            finish(request, VIRTIO_BLK_S_IOERR, false);
    }
}

static uint64_t features(struct virtio_device *vdev)
{
    const struct virtio_blk *blk = to_blk(vdev);
    uint64_t offered = VIRTIO_FEATURE(VIRTIO_BLK_F_SEG_MAX) |
                       VIRTIO_FEATURE(VIRTIO_BLK_F_BLK_SIZE) |
                       VIRTIO_FEATURE(VIRTIO_BLK_F_TOPOLOGY) | VIRTIO_FEATURE(VIRTIO_BLK_F_FLUSH);
    if (le16toh(blk->config.num_queues) > 1)
        offered |= VIRTIO_FEATURE(VIRTIO_BLK_F_MQ);
    if (disk_is_read_only(blk->disk))
        return offered | VIRTIO_FEATURE(VIRTIO_BLK_F_RO);
    return offered | VIRTIO_FEATURE(VIRTIO_BLK_F_DISCARD) |
           VIRTIO_FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
}

static void update_capacity(struct virtio_blk *blk)
{
    blk->config.capacity = htole64(disk_size_bytes(blk->disk) / SECTOR);
}

static void on_resize(void *opaque)
{
    struct virtio_blk *blk = opaque;
    update_capacity(blk);
    virtio_config_changed(&blk->pci.virtio);
}

static void fill_config(struct virtio_blk *blk, unsigned queue_count)
{
    uint32_t granularity = disk_discard_granularity(blk->disk) / SECTOR;
    blk->config = (struct virtio_blk_config){
        .seg_max = htole32(BLK_SEG_MAX),
        .blk_size = htole32(SECTOR),
        .physical_block_exp = PHYSICAL_EXP,
        .min_io_size = htole16(1 << PHYSICAL_EXP),
        .num_queues = htole16((uint16_t)queue_count),
        .max_discard_sectors = htole32(BLK_ERASE_SECTORS_MAX),
        .max_discard_seg = htole32(1),
        .discard_sector_alignment = htole32(MAX(granularity, 1u)),
        .max_write_zeroes_sectors = htole32(BLK_ERASE_SECTORS_MAX),
        .max_write_zeroes_seg = htole32(1),
        .write_zeroes_may_unmap = 1,
    };
    update_capacity(blk);
}

static void init_slots(struct virtio_blk *blk, unsigned count)
{
    list_init(&blk->free);
    list_init(&blk->held);
    list_init(&blk->undecided);
    blk->slot_count = count;
    blk->slots = calloc(count, sizeof(*blk->slots));
    blk->iovs = mmap(NULL, count * IOV_MAX_A_SLOT * sizeof(*blk->iovs), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(blk->slots && blk->iovs != MAP_FAILED);
    for (unsigned i = 0; i < count; i++) {
        struct blk_request *request = &blk->slots[i];
        request->blk = blk;
        request->chain.iov = blk->iovs + (size_t)i * IOV_MAX_A_SLOT;
        request->chain.iov_max = IOV_MAX_A_SLOT;
        list_push_back(&blk->free, &request->node);
    }
}

static void release(struct virtio_blk *blk)
{
    CHECK(blk->in_use == 0);
    munmap(blk->iovs, blk->slot_count * IOV_MAX_A_SLOT * sizeof(*blk->iovs));
    free(blk->slots);
    free(blk);
}

static void destroy(struct virtio_device *vdev)
{
    struct virtio_blk *blk = to_blk(vdev);
    disk_set_resize_listener(blk->disk, NULL, NULL);
    release(blk);
}

static const struct virtio_ops virtio_ops = {
    .name = "virtio-blk",
    .device_id = VIRTIO_ID_BLOCK,
    .features = features,
    .kick = on_kick,
    .reset = on_reset,
    .destroy = destroy,
};

static const struct state_field state_fields[] = {VIRTIO_PCI_STATE_FIELDS(struct virtio_blk)};

static const struct state_table state = {"virtio-blk-pci", 1, state_fields,
                                         ARRAY_SIZE(state_fields)};

static const struct device_ops device_ops = {
    .kind = "virtio-blk-pci",
    .reset = virtio_pci_reset,
    .state = &state,
    .before_save = virtio_pci_before_save,
    .after_restore = virtio_pci_after_restore,
    .close = virtio_pci_close,
};

int virtio_blk_create(const struct virtio_pci_place *place, struct disk *disk,
                      const struct virtio_blk_options *options, struct device **out,
                      struct error *err)
{
    unsigned queue_count = MAX(options->queue_count, 1u);
    CHECK(queue_count < MIN(VIRTIO_QUEUES_MAX, MSIX_VECTOR_MAX));
    struct virtio_blk *blk = calloc(1, sizeof(*blk));
    CHECK(blk);
    blk->disk = disk;
    blk->on_error = options->on_error;
    blk->on_error_opaque = options->on_error_opaque;
    if (options->serial)
        memcpy(blk->serial, options->serial, strnlen(options->serial, sizeof(blk->serial)));
    fill_config(blk, queue_count);
    init_slots(blk, queue_count * QUEUE_SIZE + 1); /* one for a pop that finds nothing */
    const struct virtio_setup setup = {.ops = &virtio_ops,
                                       .config = &blk->config,
                                       .config_size = sizeof(blk->config),
                                       .queue_count = queue_count,
                                       .queue_size = QUEUE_SIZE};
    int result = virtio_pci_init(&blk->pci, place, &device_ops, &setup, err);
    if (result) {
        release(blk);
        return result;
    }
    disk_set_resize_listener(disk, on_resize, blk);
    *out = &blk->pci.pci.device;
    return 0;
}
