/* SPDX-License-Identifier: MIT */
/*
 * virtio_balloon: gives the guest's pages back to the host.
 *
 * The four queues have the numbers that drivers give them: those of features that were not chosen
 * are not counted. The buffer with statistics stays in its queue once it is read; giving it back
 * asks for new ones. So nothing is ever in flight.
 */
#include "devices/virtio_balloon.h"

#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"

#define QUEUE_COUNT       4
#define QUEUE_SIZE        128
#define SEGMENTS_MAX      256 /* descriptors in one chain */
#define PFNS_A_TURN       4096
#define REPORT_BYTES_TURN (UINT64_C(64) << 20)
#define PAGE_BYTES        (UINT64_C(1) << VIRTIO_BALLOON_PFN_SHIFT)
#define STAT_BYTES        10 /* a tag of 2 bytes and a value of 8 */
#define STATS_IN_A_BUFFER 64

enum balloon_queue { INFLATE, DEFLATE, STATS, REPORTING, NO_QUEUE };

struct virtio_balloon {
    struct virtio_pci pci; /* first */
    struct virtio_balloon_options options;
    uint8_t config[8]; /* num_pages, actual */
    enum balloon_queue roles[QUEUE_COUNT];
    struct iovec iov[SEGMENTS_MAX];
    bool has_stats; /* the buffer at the head of the queue has been read */
    uint64_t stats[VIRTIO_BALLOON_STATS];
    uint64_t released_bytes;
};

/* Pages that lie in one row, collected until the row ends. */
struct page_run {
    struct virtio_balloon *balloon;
    uint64_t gpa, bytes;
};

static struct virtio_balloon *to_balloon(struct virtio_device *vdev)
{
    return container_of(virtio_pci_of(vdev), struct virtio_balloon, pci);
}

static struct virtio_balloon *of_device(const struct device *device)
{
    return container_of((struct device *)device, struct virtio_balloon, pci.pci.device);
}

static uint64_t features(struct virtio_device *vdev)
{
    const struct virtio_balloon *balloon = to_balloon(vdev);
    uint64_t offered = VIRTIO_FEATURE(VIRTIO_BALLOON_F_STATS_VQ);
    if (balloon->options.deflate_on_oom)
        offered |= VIRTIO_FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
    if (balloon->options.free_page_reporting)
        offered |= VIRTIO_FEATURE(VIRTIO_BALLOON_F_REPORTING);
    return offered;
}

static bool features_chosen(struct virtio_device *vdev)
{
    struct virtio_balloon *balloon = to_balloon(vdev);
    unsigned next = 0;
    balloon->roles[next++] = INFLATE;
    balloon->roles[next++] = DEFLATE;
    if (virtio_has(vdev, VIRTIO_BALLOON_F_STATS_VQ))
        balloon->roles[next++] = STATS;
    if (virtio_has(vdev, VIRTIO_BALLOON_F_REPORTING))
        balloon->roles[next++] = REPORTING;
    while (next < QUEUE_COUNT)
        balloon->roles[next++] = NO_QUEUE;
    return true;
}

/* Memory that cannot be given back (locked, or in larger pages) stays as it is. */
static void release(struct virtio_balloon *balloon, void *host, uint64_t bytes)
{
    if (guest_mem_discard_host(balloon->pci.virtio.mem, host, bytes) == 0)
        balloon->released_bytes += bytes;
}

static void end_run(struct page_run *run)
{
    void *host = guest_mem_span(run->balloon->pci.virtio.mem, run->gpa, run->bytes);
    if (host)
        release(run->balloon, host, run->bytes);
    run->bytes = 0;
}

/* A page that is no RAM is passed over: the guest loses nothing, and neither do we. */
static void add_page(struct page_run *run, uint32_t pfn)
{
    uint64_t gpa = (uint64_t)pfn << VIRTIO_BALLOON_PFN_SHIFT;
    const struct guest_mem *mem = run->balloon->pci.virtio.mem;
    if (!guest_mem_span(mem, gpa, PAGE_BYTES))
        return;
    if (run->bytes && gpa == run->gpa + run->bytes &&
        guest_mem_span(mem, run->gpa, run->bytes + PAGE_BYTES)) {
        run->bytes += PAGE_BYTES;
    } else if (run->bytes && gpa + PAGE_BYTES == run->gpa &&
               guest_mem_span(mem, gpa, run->bytes + PAGE_BYTES)) {
        run->gpa = gpa;
        run->bytes += PAGE_BYTES;
    } else {
        end_run(run);
        *run = (struct page_run){run->balloon, gpa, PAGE_BYTES};
    }
}

/* Page numbers of 4 bytes each, as many as one turn allows. */
static unsigned inflate(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    struct page_run run = {.balloon = balloon};
    unsigned count = (unsigned)MIN(chain->out_bytes / sizeof(uint32_t), PFNS_A_TURN);
    for (unsigned i = 0; i < count; i++) {
        uint8_t pfn[4];
        if (iov_read(chain->iov, chain->out_count, i * sizeof(pfn), pfn, sizeof(pfn)) !=
            sizeof(pfn))
            break;
        add_page(&run, load_le32(pfn));
    }
    end_run(&run);
    return count;
}

static void drain_pages(struct virtio_balloon *balloon, struct virtqueue *vq, bool is_inflate)
{
    struct virtqueue_chain chain = {.iov = balloon->iov, .iov_max = SEGMENTS_MAX};
    for (unsigned done = 0; done < PFNS_A_TURN; done++) {
        if (!virtqueue_pop(vq, &chain))
            return;
        if (is_inflate)
            done += inflate(balloon, &chain);
        virtqueue_push(vq, &chain, 0);
    }
    virtio_kick(&balloon->pci.virtio, vq->index);
}

/* Each buffer of a report is free memory; only whole pages of it can go. */
static uint64_t take_report(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    const struct iovec *in = virtqueue_chain_in(chain);
    uint64_t total = 0;
    for (unsigned i = 0; i < chain->in_count; i++) {
        uintptr_t start = align_up((uintptr_t)in[i].iov_base, PAGE_BYTES);
        uintptr_t end = align_down((uintptr_t)in[i].iov_base + in[i].iov_len, PAGE_BYTES);
        if (end > start)
            release(balloon, (void *)start, end - start);
        total += in[i].iov_len;
    }
    return total;
}

static void drain_reports(struct virtio_balloon *balloon, struct virtqueue *vq)
{
    struct virtqueue_chain chain = {.iov = balloon->iov, .iov_max = SEGMENTS_MAX};
    for (uint64_t done = 0; done < REPORT_BYTES_TURN; done += PAGE_BYTES) {
        if (!virtqueue_pop(vq, &chain))
            return;
        done += take_report(balloon, &chain);
        virtqueue_push(vq, &chain, 0);
    }
    virtio_kick(&balloon->pci.virtio, vq->index);
}

static void forget_stats(struct virtio_balloon *balloon)
{
    for (unsigned i = 0; i < VIRTIO_BALLOON_STATS; i++)
        balloon->stats[i] = UINT64_MAX;
}

static void read_stats(struct virtio_balloon *balloon, const struct virtqueue_chain *chain)
{
    unsigned count = (unsigned)MIN(chain->out_bytes / STAT_BYTES, STATS_IN_A_BUFFER);
    forget_stats(balloon);
    for (unsigned i = 0; i < count; i++) {
        uint8_t stat[STAT_BYTES];
        if (iov_read(chain->iov, chain->out_count, i * STAT_BYTES, stat, sizeof(stat)) !=
            sizeof(stat))
            return;
        unsigned tag = load_le16(stat);
        if (tag < VIRTIO_BALLOON_STATS)
            balloon->stats[tag] = load_le64(stat + 2);
    }
}

static void take_stats(struct virtio_balloon *balloon, struct virtqueue *vq)
{
    struct virtqueue_chain chain = {.iov = balloon->iov, .iov_max = SEGMENTS_MAX};
    if (balloon->has_stats || !virtqueue_pop(vq, &chain))
        return;
    balloon->has_stats = true;
    read_stats(balloon, &chain);
    virtqueue_unpop(vq, &chain);
    if (balloon->options.on_stats)
        balloon->options.on_stats(balloon->options.opaque);
}

static void on_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_balloon *balloon = to_balloon(vdev);
    struct virtqueue *vq = virtio_queue(vdev, queue);
    switch (balloon->roles[queue]) {
    case INFLATE:
    case DEFLATE:
        drain_pages(balloon, vq, balloon->roles[queue] == INFLATE);
        break;
    case STATS:
        take_stats(balloon, vq);
        break;
    case REPORTING:
        drain_reports(balloon, vq);
        break;
    case NO_QUEUE:
        virtio_broken(vdev, "a queue of a feature that was not chosen");
        break;
    }
}

static void tell_changed(const struct virtio_balloon *balloon)
{
    if (balloon->options.on_changed)
        balloon->options.on_changed(balloon->options.opaque);
}

/* Only `actual` is the driver's. */
static void config_written(struct virtio_device *vdev, size_t offset, const void *from,
                           size_t length)
{
    struct virtio_balloon *balloon = to_balloon(vdev);
    uint32_t before = load_le32(balloon->config + 4);
    if (offset < 4)
        return;
    memcpy(balloon->config + offset, from, length);
    if (load_le32(balloon->config + 4) != before)
        tell_changed(balloon);
}

/* After a reset the guest has all of its memory again. */
static void on_reset(struct virtio_device *vdev)
{
    struct virtio_balloon *balloon = to_balloon(vdev);
    balloon->has_stats = false;
    forget_stats(balloon);
    if (load_le32(balloon->config + 4) == 0)
        return;
    store_le32(balloon->config + 4, 0);
    tell_changed(balloon);
}

static void destroy(struct virtio_device *vdev)
{
    free(to_balloon(vdev));
}

static const struct virtio_ops virtio_ops = {
    .name = "virtio-balloon",
    .device_id = VIRTIO_ID_BALLOON,
    .features = features,
    .features_chosen = features_chosen,
    .config_written = config_written,
    .kick = on_kick,
    .reset = on_reset,
    .destroy = destroy,
};

static const struct state_field state_fields[] = {VIRTIO_PCI_STATE_FIELDS(struct virtio_balloon),
                                                  STATE_ARRAY(struct virtio_balloon, config)};

static const struct state_table state = {"virtio-balloon-pci", 1, state_fields,
                                         ARRAY_SIZE(state_fields)};

static const struct device_ops device_ops = {
    .kind = "virtio-balloon-pci",
    .reset = virtio_pci_reset,
    .state = &state,
    .before_save = virtio_pci_before_save,
    .after_restore = virtio_pci_after_restore,
    .close = virtio_pci_close,
};

int virtio_balloon_create(const struct virtio_pci_place *place,
                          const struct virtio_balloon_options *options, struct device **out,
                          struct error *err)
{
    struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));
    if (!balloon)
        return error_set_errno(err, ENOMEM, "cannot make a balloon");
    balloon->options = *options;
    forget_stats(balloon);
    const struct virtio_setup setup = {
        .ops = &virtio_ops,
        .config = balloon->config,
        .config_size = sizeof(balloon->config),
        .queue_count = QUEUE_COUNT,
        .queue_size = QUEUE_SIZE,
    };
    int result = virtio_pci_init(&balloon->pci, place, &device_ops, &setup, err);
    if (result) {
        free(balloon);
        return result;
    }
    *out = &balloon->pci.pci.device;
    return 0;
}

void virtio_balloon_set_target(struct device *device, uint64_t bytes)
{
    struct virtio_balloon *balloon = of_device(device);
    uint64_t total = balloon->options.ram_bytes;
    uint64_t pages = (total - MIN(bytes, total)) >> VIRTIO_BALLOON_PFN_SHIFT;
    store_le32(balloon->config, (uint32_t)pages);
    virtio_config_changed(&balloon->pci.virtio);
}

uint64_t virtio_balloon_actual(const struct device *device)
{
    const struct virtio_balloon *balloon = of_device(device);
    uint64_t total = balloon->options.ram_bytes;
    uint64_t inside = (uint64_t)load_le32(balloon->config + 4) << VIRTIO_BALLOON_PFN_SHIFT;
    return total - MIN(inside, total);
}

bool virtio_balloon_ask_stats(struct device *device)
{
    struct virtio_balloon *balloon = of_device(device);
    struct virtqueue_chain chain = {.iov = balloon->iov, .iov_max = SEGMENTS_MAX};
    unsigned queue = 0;
    while (queue < QUEUE_COUNT && balloon->roles[queue] != STATS)
        queue++;
    if (!balloon->has_stats || queue == QUEUE_COUNT || !virtio_is_live(&balloon->pci.virtio) ||
        !virtqueue_pop(virtio_queue(&balloon->pci.virtio, queue), &chain))
        return false;
    balloon->has_stats = false;
    virtqueue_push(virtio_queue(&balloon->pci.virtio, queue), &chain, 0);
    virtio_kick(&balloon->pci.virtio, queue);
    return true;
}

const uint64_t *virtio_balloon_stats(const struct device *device)
{
    return of_device(device)->stats;
}

uint64_t virtio_balloon_released(const struct device *device)
{
    return of_device(device)->released_bytes;
}
