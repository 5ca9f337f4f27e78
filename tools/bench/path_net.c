/* SPDX-License-Identifier: MIT */
/*
 * path_net: virtio-net with a driver in memory, driver and device taking turns on one thread.
 *
 * Before the backend "null", which takes every frame and always has one more, it is the device by
 * itself; on "internal" two NICs face each other, one sends and the other receives.
 */
#include <errno.h>
#include <limits.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/virtio_net.h"
#include "netbackends/internal.h"
#include "tools/bench/path.h"
#include "tools/bench/ring.h"

#define QUEUE_SIZE   256u
#define HEADER       sizeof(struct virtio_net_hdr_v1)
#define NULL_BATCH   64u /* frames that null hands over in one turn */
#define BUFFER_BYTES (HEADER + PATH_FRAME_MAX)
#define FEATURES     (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)

struct null_net {
    struct net_backend net; /* first */
    struct loop_task offer;
    struct iovec frame;
    bool offers, is_full;
    void (*on_closed)(void *opaque);
    void *opaque;
    struct loop_task close;
};

struct nic {
    struct net_path *path;
    struct net_backend *net;
    struct device *device;
    struct fake_device driver;
    struct ring rx, tx;
    uint64_t tx_gpa;
    uint64_t started_ns[QUEUE_SIZE]; /* by head of the transmit queue */
    uint8_t mac[6];
    unsigned sending;
    bool sends, is_closed;
};

struct net_path {
    struct path_run run;
    struct fake_guest guest;
    struct nic nics[2 * PATH_QUEUES_MAX];
    unsigned nic_count;
    uint8_t frame[PATH_FRAME_MAX];
    char folder[PATH_MAX];
};

static int null_send(struct net_backend *net, const struct net_meta *meta, const struct iovec *iov,
                     size_t iov_count)
{
    (void)net;
    (void)meta;
    (void)iov;
    (void)iov_count;
    return 0;
}

static void null_offer(struct loop_task *task)
{
    struct null_net *null = container_of(task, struct null_net, offer);
    static const struct net_meta plain = {0};
    for (unsigned i = 0; null->offers && i < NULL_BATCH; i++) {
        null->is_full = net_receive(&null->net, &plain, &null->frame, 1) == -EAGAIN;
        if (null->is_full)
            return;
    }
    if (null->offers)
        loop_task_queue(&null->offer);
}

static void null_resume(struct net_backend *net)
{
    loop_task_queue(&container_of(net, struct null_net, net)->offer);
}

static void null_closed(struct loop_task *task)
{
    struct null_net *null = container_of(task, struct null_net, close);
    void (*on_closed)(void *) = null->on_closed;
    void *opaque = null->opaque;
    free(null);
    on_closed(opaque);
}

static void null_close(struct net_backend *net, void (*on_closed)(void *opaque), void *opaque)
{
    struct null_net *null = container_of(net, struct null_net, net);
    null->on_closed = on_closed;
    null->opaque = opaque;
    loop_task_cancel(&null->offer);
    loop_task_init(net->loop, &null->close, LOOP_STAGE_DRAIN, null_closed);
    loop_task_queue(&null->close);
}

static struct net_backend *null_create(struct net_path *path, bool offers)
{
    static const struct net_backend_ops ops = {
        .kind = "null", .send = null_send, .receive_resume = null_resume, .close = null_close};
    struct null_net *null = calloc(1, sizeof(*null));
    CHECK(null);
    net_backend_init(&null->net, &ops, &path->guest.loop, "null");
    null->frame = (struct iovec){path->frame, path->run.options->block_bytes};
    null->offers = offers;
    loop_task_init(&path->guest.loop, &null->offer, LOOP_STAGE_DRAIN, null_offer);
    net_set_link(&null->net, true);
    return &null->net;
}

static void send_one(struct nic *nic, uint16_t head)
{
    nic->started_ns[head] = loop_now_ns();
    nic->sending++;
    fake_queue_offer(&nic->tx.queue, head);
}

static void fill_rings(struct nic *nic)
{
    struct fake_guest *guest = &nic->path->guest;
    uint32_t bytes = (uint32_t)(HEADER + nic->path->run.options->block_bytes);
    nic->tx_gpa = fake_guest_alloc(guest, BUFFER_BYTES);
    memset(fake_guest_at(guest, nic->tx_gpa, HEADER), 0, HEADER);
    uint8_t *frame = fake_guest_at(guest, nic->tx_gpa + HEADER, bytes - HEADER);
    memcpy(frame, nic->path->frame, bytes - HEADER);
    memcpy(frame + 6, nic->mac, sizeof(nic->mac));
    for (uint16_t head = 0; head < QUEUE_SIZE; head++) {
        uint64_t gpa = fake_guest_alloc(guest, BUFFER_BYTES);
        fake_queue_set_descriptor(&nic->rx.queue, head, gpa, BUFFER_BYTES, VRING_DESC_F_WRITE, 0);
        fake_queue_set_descriptor(&nic->tx.queue, head, nic->tx_gpa, bytes, 0, 0);
        fake_queue_offer(&nic->rx.queue, head);
    }
}

static void take(struct nic *nic)
{
    struct path_run *run = &nic->path->run;
    uint32_t head, bytes;
    bool is_over = path_is_over(run);
    do {
        while (fake_queue_used(&nic->tx.queue, &head, &bytes)) {
            nic->sending--;
            path_record(run, 0, nic->started_ns[head], 0);
            if (!is_over)
                send_one(nic, (uint16_t)head);
        }
    } while (ring_await(&nic->tx));
    do {
        while (fake_queue_used(&nic->rx.queue, &head, &bytes)) {
            run->result->received++;
            fake_queue_offer(&nic->rx.queue, (uint16_t)head);
        }
    } while (ring_await(&nic->rx));
}

static void kick(struct nic *nic)
{
    struct ring *rings[] = {&nic->rx, &nic->tx};
    for (unsigned i = 0; i < ARRAY_SIZE(rings); i++) {
        if (!ring_must_kick(rings[i]))
            continue;
        nic->path->run.result->kicks++;
        fake_queue_kick(&rings[i]->queue);
    }
}

static int make_nic(struct net_path *path, struct net_backend *net, bool sends, struct error *err)
{
    struct nic *nic = &path->nics[path->nic_count];
    struct virtio_net_options options = {.mac = {2, 0, 0, 0, 0, (uint8_t)(1 + path->nic_count)}};
    memcpy(nic->mac, options.mac, sizeof(nic->mac));
    struct virtio_pci_place place = fake_guest_place(&path->guest, "bench");
    int result = virtio_net_create(&place, net, &options, &nic->device, err);
    if (result)
        return result;
    path->nic_count++;
    nic->path = path;
    nic->net = net;
    nic->sends = sends;
    fake_device_probe(&nic->driver, &path->guest, nic->device);
    CHECK(fake_device_negotiate(&nic->driver, fake_device_features(&nic->driver) & FEATURES));
    fake_queue_init(&nic->rx.queue, &nic->driver, 0, QUEUE_SIZE);
    fake_queue_init(&nic->tx.queue, &nic->driver, 1, QUEUE_SIZE);
    fake_device_driver_ok(&nic->driver);
    fill_rings(nic);
    return 0;
}

/* One stream: a NIC on null, or two on a network of their own. */
static int make_stream(struct net_path *path, unsigned index, struct error *err)
{
    const struct path_options *options = path->run.options;
    if (strcmp(options->format, "null") == 0)
        return make_nic(path, null_create(path, options->direction != PATH_SEND),
                        options->direction != PATH_RECEIVE, err);
    char folder[PATH_MAX + 16];
    snprintf(folder, sizeof(folder), "%s/%u", path->folder, index);
    const struct net_internal_options internal = {.folder = folder};
    for (unsigned end = 0; end < 2; end++) {
        struct net_backend *net;
        int result = net_internal_create(&path->guest.loop, end ? "b" : "a", &internal, &net, err);
        if (!result)
            result = make_nic(path, net, !end || options->direction == PATH_BOTH, err);
        if (result)
            return result;
    }
    return 0;
}

static bool is_sending(const struct net_path *path)
{
    for (unsigned i = 0; i < path->nic_count; i++)
        if (path->nics[i].sending)
            return true;
    return false;
}

static void run_frames(struct net_path *path)
{
    const struct path_options *options = path->run.options;
    fake_guest_run(&path->guest, 16); /* the ends of a network see each other */
    path_begin(&path->run);
    for (unsigned i = 0; i < path->nic_count; i++) {
        struct nic *nic = &path->nics[i];
        for (uint16_t head = 0; nic->sends && head < MIN(options->depth, QUEUE_SIZE); head++)
            send_one(nic, head);
        kick(nic);
        if (nic->net->ops->receive_resume)
            nic->net->ops->receive_resume(nic->net); /* null begins to offer */
    }
    while (!path_is_over(&path->run) || is_sending(path)) {
        loop_run_once(&path->guest.loop, true);
        for (unsigned i = 0; i < path->nic_count; i++) {
            take(&path->nics[i]);
            kick(&path->nics[i]);
        }
    }
    path_take_figures(&path->run);
}

static void on_net_closed(void *opaque)
{
    ((struct nic *)opaque)->is_closed = true;
}

static void close_nics(struct net_path *path)
{
    /* NICs share the vectors of their queues. */
    for (unsigned queue = 0; queue < 2; queue++)
        path->run.result->interrupts += path->guest.irq.sent[queue + 1];
    for (unsigned i = 0; i < path->nic_count; i++) {
        struct nic *nic = &path->nics[i];
        fake_guest_close(&path->guest, nic->device);
        nic->net->ops->close(nic->net, on_net_closed, nic);
        while (!nic->is_closed)
            loop_run_once(&path->guest.loop, true);
    }
    fake_guest_fini(&path->guest);
}

int path_run_net(const struct path_options *options, struct path_result *result, struct error *err)
{
    struct net_path *path = calloc(1, sizeof(*path));
    CHECK(path);
    fake_guest_init(&path->guest);
    path->guest.mem.on_written = NULL; /* nothing here keeps decoded code */
    path->run = (struct path_run){.options = options, .result = result, .loop = &path->guest.loop};
    memset(path->frame, 0xff, 6); /* to all */
    path->frame[6] = 2;
    const char *parent = getenv("TMPDIR");
    snprintf(path->folder, sizeof(path->folder), "%s/evisor-bench-XXXXXX",
             parent ? parent : "/tmp");
    if (!mkdtemp(path->folder))
        return error_set_errno(err, errno, "%s: cannot make a folder there", path->folder);
    int status = 0;
    for (unsigned i = 0; i < options->queues && !status; i++)
        status = make_stream(path, i, err);
    if (!status) {
        run_frames(path);
        close_nics(path);
    }
    for (unsigned i = 0; i < options->queues; i++) {
        char folder[PATH_MAX + 16];
        snprintf(folder, sizeof(folder), "%s/%u", path->folder, i);
        rmdir(folder);
    }
    rmdir(path->folder);
    free(path);
    return status;
}
