/* SPDX-License-Identifier: MIT */
/*
 * virtio_net: one receive, one transmit and one control queue.
 *
 * Theory of operation. Frames are handed on at once, both ways: a transmitted chain is pushed when
 * net_send has returned, a received frame goes straight into the chains popped for it, so nothing
 * is in flight between loop turns and a reset has nothing to wait for.
 *
 * A received frame takes as many chains as it needs (one, without mergeable buffers). Their buffers
 * lie one behind the other in rx_iov, so header and frame are written as one stream, however the
 * guest framed it. If the chains do not suffice yet, all are put back and the backend hears
 * -EAGAIN; the guest's next kick of the queue resumes it. A backend that reads straight into guest
 * memory (receive_begin) keeps chains popped from frame to frame and gives the rest back at the end
 * of its turn.
 */
#include "devices/virtio_net.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/iov.h"

enum { RX, TX, CTRL, QUEUE_COUNT };
enum {
    QUEUE_SIZE = 256,
    HEADER_BYTES = 12, /* struct virtio_net_hdr_v1 */
    ETHERNET_BYTES = 14,
    FILTER_BYTES = 18,         /* of a frame, for the filter */
    TX_BUDGET_BYTES = 1 << 20, /* taken from the guest in one loop turn */
    RX_IOV_MAX = 4 * VIRTQUEUE_INDIRECT_MAX,
    DIRECT_PLAIN_BYTES = 9 * 1024, /* room for a frame that is no larger than an MTU */
};

static const struct {
    unsigned device_bit; /* the device does it for what the guest sends */
    unsigned guest_bit;  /* the guest does it for what it receives */
    enum net_offloads offload;
} offload_features[] = {
    {VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, NET_OFFLOAD_CSUM},
    {VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4, NET_OFFLOAD_TSO4},
    {VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6, NET_OFFLOAD_TSO6},
    {VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_GUEST_ECN, NET_OFFLOAD_ECN},
};

/* One feature is of no use without another (virtio 1.2, section 5.1.3.1). */
static const struct {
    unsigned feature;
    unsigned needs, or_needs;
} dependencies[] = {
    {VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_CSUM},
    {VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_CSUM},
    {VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6},
    {VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CSUM},
    {VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CSUM},
    {VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6},
    {VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_VQ},
    {VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_VQ},
    {VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_VQ},
    {VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_VQ},
    {VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_VQ},
};

/* What the driver reads, up to the last field that we have a feature for. */
struct net_config {
    uint8_t mac[6];
    uint8_t status[2];
    uint8_t max_queue_pairs[2];
    uint8_t mtu[2];
};

/* Chains that are popped for frames to come, and their buffers. */
struct rx_room {
    unsigned chain_at, chain_count; /* in rx_chains */
    size_t iov_at, iov_count;       /* in rx_iov */
    size_t bytes;
};

struct virtio_net {
    struct virtio_pci pci; /* first: it is a device */
    struct net_backend *backend;
    struct net_config config;
    uint8_t mac[6]; /* after power-on */
    uint16_t mtu;
    uint64_t features_off;
    struct net_filter filter;
    bool is_filter_read; /* since its last change */
    void (*on_filter_changed)(void *opaque, struct device *device);
    void *opaque;
    uint32_t guest_offloads; /* of enum net_offloads: what receive may bring */
    bool rx_waits;           /* the backend heard -EAGAIN */
    bool tx_waits;           /* we did */
    struct rx_room room;
    struct virtqueue_chain rx_chains[QUEUE_SIZE];
    struct iovec rx_iov[RX_IOV_MAX];
    struct iovec rx_tail_iov[RX_IOV_MAX]; /* rx_iov without header and head, for receive_begin */
    struct iovec tx_iov[VIRTQUEUE_INDIRECT_MAX];
    struct iovec tx_frame_iov[VIRTQUEUE_INDIRECT_MAX];
};

static struct virtio_net *from_vdev(struct virtio_device *vdev)
{
    return container_of(virtio_pci_of(vdev), struct virtio_net, pci);
}

static struct virtio_device *vdev_of(struct virtio_net *net)
{
    return &net->pci.virtio;
}

/* Features and configuration. */

static uint64_t features_of_backend(const struct net_backend *backend)
{
    unsigned offloads = backend ? net_offloads(backend) : 0;
    uint64_t features = 0;
    for (size_t i = 0; i < ARRAY_SIZE(offload_features); i++)
        if (offloads & offload_features[i].offload)
            features |= VIRTIO_FEATURE(offload_features[i].device_bit) |
                        VIRTIO_FEATURE(offload_features[i].guest_bit);
    return features;
}

/* In the order of the table, in which nothing needs what comes after it. */
static uint64_t without_what_lacks_its_base(uint64_t features)
{
    for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++)
        if (!(features &
              (VIRTIO_FEATURE(dependencies[i].needs) | VIRTIO_FEATURE(dependencies[i].or_needs))))
            features &= ~VIRTIO_FEATURE(dependencies[i].feature);
    return features;
}

static uint64_t net_features(struct virtio_device *vdev)
{
    const struct virtio_net *net = from_vdev(vdev);
    uint64_t features =
        VIRTIO_FEATURE(VIRTIO_NET_F_MAC) | VIRTIO_FEATURE(VIRTIO_NET_F_STATUS) |
        VIRTIO_FEATURE(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VQ) |
        VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_RX) | VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_RX_EXTRA) |
        VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_VLAN) | VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_MAC_ADDR) |
        VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE);
    uint64_t offloads = features_of_backend(net->backend) & ~net->features_off;
    if (offloads)
        features |= offloads | VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
    if (net->mtu)
        features |= VIRTIO_FEATURE(VIRTIO_NET_F_MTU);
    return without_what_lacks_its_base(features & ~net->features_off);
}

static bool net_features_chosen(struct virtio_device *vdev)
{
    for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++)
        if (virtio_has(vdev, dependencies[i].feature) && !virtio_has(vdev, dependencies[i].needs) &&
            !virtio_has(vdev, dependencies[i].or_needs))
            return false;
    return true;
}

static void set_guest_offloads(struct virtio_net *net, uint32_t offloads)
{
    net->guest_offloads = offloads;
    if (net->backend)
        net_set_guest_offloads(net->backend, offloads);
}

/* The guest's bits among `bits`, as offloads. */
static uint32_t guest_bits_to_offloads(uint64_t bits)
{
    uint32_t offloads = 0;
    for (size_t i = 0; i < ARRAY_SIZE(offload_features); i++)
        if (bits & VIRTIO_FEATURE(offload_features[i].guest_bit))
            offloads |= offload_features[i].offload;
    return offloads;
}

static void net_started(struct virtio_device *vdev)
{
    struct virtio_net *net = from_vdev(vdev);
    net->filter.checks_vlan = virtio_has(vdev, VIRTIO_NET_F_CTRL_VLAN);
    set_guest_offloads(net, guest_bits_to_offloads(vdev->features));
}

static void resume_backend(struct virtio_net *net)
{
    if (!net->rx_waits)
        return;
    net->rx_waits = false;
    net->backend->ops->receive_resume(net->backend);
}

static void net_reset(struct virtio_device *vdev)
{
    struct virtio_net *net = from_vdev(vdev);
    net_filter_reset(&net->filter, net->mac);
    memcpy(net->config.mac, net->mac, sizeof(net->mac));
    net->config.status[0] &= (uint8_t)~VIRTIO_NET_S_ANNOUNCE;
    set_guest_offloads(net, 0);
    net->tx_waits = false;
    resume_backend(net); /* what it holds is dropped now */
}

/* Transmit. */

/* What the guest wrote before its frame, checked against what it may ask for. */
static bool read_header(struct virtio_device *vdev, const struct iovec *iov, size_t iov_count,
                        size_t frame_bytes, struct net_meta *meta)
{
    uint8_t header[HEADER_BYTES];
    CHECK(iov_read(iov, iov_count, 0, header, sizeof(header)) == sizeof(header));
    *meta = (struct net_meta){
        .flags = header[0] & VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = header[1],
        .hdr_len = load_le16(header + 2),
        .gso_size = load_le16(header + 4),
        .csum_start = load_le16(header + 6),
        .csum_offset = load_le16(header + 8),
    };
    if (!meta->flags)
        meta->csum_start = meta->csum_offset = 0;
    else if (!virtio_has(vdev, VIRTIO_NET_F_CSUM) ||
             (size_t)meta->csum_start + meta->csum_offset + 2 > frame_bytes)
        return false;
    switch (meta->gso_type & ~NET_GSO_ECN) {
    case NET_GSO_NONE:
        meta->gso_type = NET_GSO_NONE;
        meta->hdr_len = meta->gso_size = 0;
        return true;
    case NET_GSO_TCPV4:
        if (!virtio_has(vdev, VIRTIO_NET_F_HOST_TSO4))
            return false;
        break;
    case NET_GSO_TCPV6:
        if (!virtio_has(vdev, VIRTIO_NET_F_HOST_TSO6))
            return false;
        break;
    default:
        return false;
    }
    if ((meta->gso_type & NET_GSO_ECN) && !virtio_has(vdev, VIRTIO_NET_F_HOST_ECN))
        return false;
    return meta->flags && meta->gso_size && meta->hdr_len <= frame_bytes;
}

/* False if the backend has no room: the chain is not used up. */
static bool transmit(struct virtio_net *net, const struct virtqueue_chain *chain)
{
    struct net_meta meta;
    size_t bytes = chain->out_bytes - HEADER_BYTES;
    if (!net->backend)
        return true;
    if (bytes < ETHERNET_BYTES || bytes > NET_FRAME_MAX ||
        !read_header(vdev_of(net), chain->iov, chain->out_count, bytes, &meta)) {
        net->backend->stats.tx_dropped++;
        return true;
    }
    size_t count = iov_slice(net->tx_frame_iov, ARRAY_SIZE(net->tx_frame_iov), chain->iov,
                             chain->out_count, HEADER_BYTES, bytes);
    return net_send(net->backend, &meta, net->tx_frame_iov, count) != -EAGAIN;
}

static void drain_tx(struct virtio_net *net)
{
    struct virtio_device *vdev = vdev_of(net);
    struct virtqueue *vq = virtio_queue(vdev, TX);
    size_t bytes = 0;
    struct virtqueue_chain chain = {.iov = net->tx_iov, .iov_max = ARRAY_SIZE(net->tx_iov)};
    if (net->tx_waits)
        return;
    for (unsigned i = 0; i < VIRTIO_DRAIN_BUDGET && bytes < TX_BUDGET_BYTES; i++) {
        if (!virtqueue_pop(vq, &chain))
            return;
        if (chain.in_count || chain.out_bytes < HEADER_BYTES) {
            virtqueue_push(vq, &chain, 0);
            virtio_broken(vdev, "a transmitted chain is writable or shorter than its header");
            return;
        }
        if (!transmit(net, &chain)) {
            virtqueue_unpop(vq, &chain);
            net->tx_waits = true;
            return;
        }
        bytes += chain.out_bytes;
        virtqueue_push(vq, &chain, 0);
    }
    virtio_kick(vdev, TX);
}

static void on_send_ready(void *nic)
{
    struct virtio_net *net = nic;
    if (!net->tx_waits)
        return;
    net->tx_waits = false;
    virtio_kick(vdev_of(net), TX);
}

/* Receive. */

static void release_room(void *nic)
{
    struct virtio_net *net = nic;
    struct rx_room *room = &net->room;
    for (unsigned i = room->chain_count; i-- > 0;)
        virtqueue_unpop(virtio_queue(vdev_of(net), RX), &net->rx_chains[room->chain_at + i]);
    *room = (struct rx_room){0};
}

/* The receive queue can hold no more than this, so waiting for more would never end. */
static bool is_room_exhausted(struct virtio_net *net)
{
    const struct rx_room *room = &net->room;
    if (room->chain_count && !virtio_has(vdev_of(net), VIRTIO_NET_F_MRG_RXBUF))
        return true;
    return room->chain_count >= virtio_queue(vdev_of(net), RX)->layout.size ||
           RX_IOV_MAX - room->iov_count < VIRTQUEUE_INDIRECT_MAX;
}

/* One chain more. 0, -EAGAIN if there is none, or -EIO. */
static int take_chain(struct virtio_net *net)
{
    struct rx_room *room = &net->room;
    struct virtqueue_chain *chain = &net->rx_chains[room->chain_at + room->chain_count];
    chain->iov = net->rx_iov + room->iov_at + room->iov_count;
    chain->iov_max = VIRTQUEUE_INDIRECT_MAX;
    if (!virtqueue_pop(virtio_queue(vdev_of(net), RX), chain))
        return -EAGAIN;
    room->chain_count++;
    room->iov_count += chain->in_count;
    room->bytes += chain->in_bytes;
    if (!chain->out_count)
        return 0;
    virtio_broken(vdev_of(net), "a receive buffer is not writable");
    return -EIO;
}

/* The arrays have a place behind what is popped; else they are begun anew. */
static void wind_back(struct virtio_net *net)
{
    const struct rx_room *room = &net->room;
    if (room->chain_at + room->chain_count >= QUEUE_SIZE ||
        RX_IOV_MAX - room->iov_at - room->iov_count < VIRTQUEUE_INDIRECT_MAX)
        release_room(net);
}

/* 0, -EAGAIN for want of chains, -EMSGSIZE or -EIO. On failure nothing is popped. */
static int make_room(struct virtio_net *net, size_t bytes)
{
    int result = 0;
    while (!result && net->room.bytes < bytes) {
        wind_back(net);
        result = is_room_exhausted(net) ? -EMSGSIZE : take_chain(net);
    }
    if (result)
        release_room(net);
    return result;
}

/* The frame lies in its chains: puts the header before it and gives them back. */
static void push_frame(struct virtio_net *net, const struct net_meta *meta, size_t bytes)
{
    struct rx_room *room = &net->room;
    const struct iovec *iov = net->rx_iov + room->iov_at;
    uint8_t header[HEADER_BYTES] = {meta->flags, meta->gso_type};
    size_t iov_count = room->iov_count, left = HEADER_BYTES + bytes;
    unsigned count = 0;
    while (left) {
        const struct virtqueue_chain *chain = &net->rx_chains[room->chain_at];
        size_t here = MIN(left, chain->in_bytes);
        virtqueue_push(virtio_queue(vdev_of(net), RX), chain, (uint32_t)here);
        left -= here;
        room->chain_at++;
        room->chain_count--;
        room->iov_at += chain->in_count;
        room->iov_count -= chain->in_count;
        room->bytes -= chain->in_bytes;
        count++;
    }
    store_le16(header + 2, meta->hdr_len);
    store_le16(header + 4, meta->gso_size);
    store_le16(header + 6, meta->csum_start);
    store_le16(header + 8, meta->csum_offset);
    store_le16(header + 10, (uint16_t)count);
    iov_write(iov, iov_count, 0, header, sizeof(header));
}

static bool is_meta_taken(const struct virtio_net *net, const struct net_meta *meta)
{
    unsigned needed = net_gso_offloads(meta->gso_type) | (meta->flags ? NET_OFFLOAD_CSUM : 0);
    return !(needed & ~net->guest_offloads);
}

static bool is_receiving(struct virtio_net *net)
{
    return virtio_is_live(vdev_of(net)) && virtio_queue(vdev_of(net), RX)->enabled;
}

static int on_receive(void *nic, const struct net_meta *meta, const struct iovec *iov,
                      size_t iov_count)
{
    struct virtio_net *net = nic;
    uint8_t start[FILTER_BYTES];
    size_t bytes = iov_size(iov, iov_count);
    if (!is_receiving(net))
        return -ENETDOWN;
    if (bytes < ETHERNET_BYTES || bytes > NET_FRAME_MAX || !is_meta_taken(net, meta))
        return -EINVAL;
    size_t seen = iov_read(iov, iov_count, 0, start, sizeof(start));
    if (!net_filter_passes(&net->filter, start, seen))
        return 0;
    int result = make_room(net, HEADER_BYTES + bytes);
    if (result) {
        net->rx_waits = result == -EAGAIN;
        return result;
    }
    iov_copy(net->rx_iov + net->room.iov_at, net->room.iov_count, HEADER_BYTES, iov, iov_count, 0,
             bytes);
    push_frame(net, meta, bytes);
    return 0;
}

/* As much as a frame may take, or as there is. */
static int on_receive_begin(void *nic, struct net_room *out)
{
    struct virtio_net *net = nic;
    struct rx_room *room = &net->room;
    const size_t start = HEADER_BYTES + NET_HEAD_BYTES;
    bool has_large = net->guest_offloads & (NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    size_t wanted = HEADER_BYTES + (size_t)(has_large ? NET_FRAME_MAX : DIRECT_PLAIN_BYTES);
    int result = 0;
    if (!is_receiving(net))
        return -ENETDOWN;
    while (!result && room->bytes < wanted) {
        wind_back(net);
        result = is_room_exhausted(net) ? -EMSGSIZE : take_chain(net);
    }
    if (result == -EIO || room->bytes <= start) {
        release_room(net);
        return -EAGAIN;
    }
    out->is_scarce = result == -EAGAIN;
    out->bytes = room->bytes - start;
    out->iov = net->rx_tail_iov;
    out->iov_count = iov_slice(net->rx_tail_iov, ARRAY_SIZE(net->rx_tail_iov),
                               net->rx_iov + room->iov_at, room->iov_count, start, out->bytes);
    return 0;
}

static int on_receive_end(void *nic, const struct net_meta *meta, const uint8_t *head, size_t bytes)
{
    struct virtio_net *net = nic;
    const struct rx_room *room = &net->room;
    const struct iovec *iov = net->rx_iov + room->iov_at;
    CHECK(bytes > NET_HEAD_BYTES && HEADER_BYTES + bytes <= room->bytes);
    if (!meta || !is_meta_taken(net, meta) ||
        !net_filter_passes(&net->filter, head, FILTER_BYTES)) {
        virtqueue_written(virtio_queue(vdev_of(net), RX), iov, room->iov_count,
                          HEADER_BYTES + bytes);
        return meta && !is_meta_taken(net, meta) ? -EINVAL : 0;
    }
    iov_write(iov, room->iov_count, HEADER_BYTES, head, NET_HEAD_BYTES);
    push_frame(net, meta, bytes);
    return 0;
}

/* Control. */

static bool do_guest_offloads(struct virtio_net *net, const struct virtqueue_chain *chain)
{
    uint8_t bytes[8];
    if (iov_read(chain->iov, chain->out_count, 2, bytes, sizeof(bytes)) != sizeof(bytes))
        return false;
    uint64_t bits = load_le64(bytes), known = 0;
    for (size_t i = 0; i < ARRAY_SIZE(offload_features); i++)
        known |= VIRTIO_FEATURE(offload_features[i].guest_bit);
    if (bits & ~(known & vdev_of(net)->features))
        return false;
    set_guest_offloads(net, guest_bits_to_offloads(bits));
    return true;
}

static bool may_use_class(const struct virtio_device *vdev, uint8_t class, uint8_t command)
{
    switch (class) {
    case VIRTIO_NET_CTRL_RX:
        return virtio_has(vdev, command <= VIRTIO_NET_CTRL_RX_ALLMULTI
                                    ? VIRTIO_NET_F_CTRL_RX
                                    : VIRTIO_NET_F_CTRL_RX_EXTRA);
    case VIRTIO_NET_CTRL_MAC:
        return virtio_has(vdev, command == VIRTIO_NET_CTRL_MAC_TABLE_SET
                                    ? VIRTIO_NET_F_CTRL_RX
                                    : VIRTIO_NET_F_CTRL_MAC_ADDR);
    case VIRTIO_NET_CTRL_VLAN:
        return virtio_has(vdev, VIRTIO_NET_F_CTRL_VLAN);
    case VIRTIO_NET_CTRL_ANNOUNCE:
        return virtio_has(vdev, VIRTIO_NET_F_GUEST_ANNOUNCE);
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return virtio_has(vdev, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
    default:
        return false;
    }
}

/* At most once for each look at the filter, so that no guest keeps anybody busy. */
static void tell_filter(struct virtio_net *net)
{
    if (net->is_filter_read && net->on_filter_changed)
        net->on_filter_changed(net->opaque, &net->pci.pci.device);
    net->is_filter_read = false;
}

static bool do_command(struct virtio_net *net, const struct virtqueue_chain *chain)
{
    uint8_t what[2];
    if (iov_read(chain->iov, chain->out_count, 0, what, sizeof(what)) != sizeof(what) ||
        !may_use_class(vdev_of(net), what[0], what[1]))
        return false;
    switch (what[0]) {
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return what[1] == VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET && do_guest_offloads(net, chain);
    case VIRTIO_NET_CTRL_ANNOUNCE:
        net->config.status[0] &= (uint8_t)~VIRTIO_NET_S_ANNOUNCE;
        return what[1] == VIRTIO_NET_CTRL_ANNOUNCE_ACK;
    default:
        if (!net_filter_command(&net->filter, what[0], what[1], chain->iov, chain->out_count, 2))
            return false;
        memcpy(net->config.mac, net->filter.mac, sizeof(net->config.mac));
        tell_filter(net);
        return true;
    }
}

static void drain_ctrl(struct virtio_net *net)
{
    struct virtio_device *vdev = vdev_of(net);
    struct virtqueue *vq = virtio_queue(vdev, CTRL);
    struct virtqueue_chain chain = {.iov = net->tx_iov, .iov_max = ARRAY_SIZE(net->tx_iov)};
    for (unsigned i = 0; i < VIRTIO_DRAIN_BUDGET; i++) {
        if (!virtqueue_pop(vq, &chain))
            return;
        if (!chain.in_bytes) {
            virtqueue_push(vq, &chain, 0);
            virtio_broken(vdev, "a control command has no room for its answer");
            return;
        }
        uint8_t answer = do_command(net, &chain) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
        iov_write(virtqueue_chain_in(&chain), chain.in_count, 0, &answer, 1);
        virtqueue_push(vq, &chain, 1);
    }
    virtio_kick(vdev, CTRL);
}

static void net_kick(struct virtio_device *vdev, unsigned queue)
{
    struct virtio_net *net = from_vdev(vdev);
    switch (queue) {
    case RX:
        resume_backend(net);
        break;
    case TX:
        drain_tx(net);
        break;
    case CTRL:
        drain_ctrl(net);
        break;
    }
}

/* The carrier, and which backend is behind it. */

static void on_link(void *nic, bool up)
{
    struct virtio_net *net = nic;
    uint8_t before = net->config.status[0];
    net->config.status[0] =
        up ? before | VIRTIO_NET_S_LINK_UP : before & (uint8_t)~VIRTIO_NET_S_LINK_UP;
    if (net->config.status[0] != before)
        virtio_config_changed(vdev_of(net));
}

static const struct net_peer_ops peer_ops = {
    .receive = on_receive,
    .receive_begin = on_receive_begin,
    .receive_end = on_receive_end,
    .receive_release = release_room,
    .on_send_ready = on_send_ready,
    .on_link = on_link,
};

int virtio_net_swap_backend(struct device *device, struct net_backend *backend, struct error *err)
{
    struct virtio_net *net = container_of(device, struct virtio_net, pci.pci.device);
    struct virtio_device *vdev = vdev_of(net);
    uint64_t used = vdev->state == VIRTIO_STATE_SETUP ? 0 : vdev->features;
    for (size_t i = 0; backend && i < ARRAY_SIZE(offload_features); i++)
        if ((used & VIRTIO_FEATURE(offload_features[i].device_bit)) &&
            !(net_offloads(backend) & offload_features[i].offload))
            return error_set(err, EBUSY,
                             "the guest uses offloads on NIC '%s' that netdev '%s' does not have: "
                             "reset the guest, or choose a netdev of the same kind",
                             device->id, backend->id);
    if (net->backend)
        net_detach(net->backend);
    net->backend = backend;
    net->rx_waits = false;
    if (backend) {
        net_attach(backend, &peer_ops, net);
        net_set_guest_offloads(backend, net->guest_offloads);
        backend->ops->receive_resume(backend); /* it may have waited for a NIC before this one */
    }
    on_link(net, backend && backend->link_up);
    on_send_ready(net);
    return 0;
}

const struct net_filter *virtio_net_read_filter(struct device *device)
{
    struct virtio_net *net = container_of(device, struct virtio_net, pci.pci.device);
    net->is_filter_read = true;
    return &net->filter;
}

void virtio_net_announce(struct device *device)
{
    struct virtio_net *net = container_of(device, struct virtio_net, pci.pci.device);
    if (!virtio_is_live(vdev_of(net)) || !virtio_has(vdev_of(net), VIRTIO_NET_F_GUEST_ANNOUNCE))
        return;
    net->config.status[0] |= VIRTIO_NET_S_ANNOUNCE;
    virtio_config_changed(vdev_of(net));
}

static void net_destroy(struct virtio_device *vdev)
{
    struct virtio_net *net = from_vdev(vdev);
    if (net->backend)
        net_detach(net->backend);
    free(net);
}

static const struct virtio_ops virtio_net_ops = {
    .name = "virtio-net",
    .device_id = VIRTIO_ID_NET,
    .features = net_features,
    .features_chosen = net_features_chosen,
    .started = net_started,
    .kick = net_kick,
    .reset = net_reset,
    .destroy = net_destroy,
};

static const struct state_field fields[] = {
    VIRTIO_PCI_STATE_FIELDS(struct virtio_net),
    STATE_ARRAY(struct virtio_net, config.mac),
    STATE_ARRAY(struct virtio_net, config.status),
    STATE_FIELD(struct virtio_net, guest_offloads),
    STATE_ARRAY(struct virtio_net, filter.mac),
    STATE_FIELD(struct virtio_net, filter.promiscuous),
    STATE_FIELD(struct virtio_net, filter.all_multicast),
    STATE_FIELD(struct virtio_net, filter.all_unicast),
    STATE_FIELD(struct virtio_net, filter.no_multicast),
    STATE_FIELD(struct virtio_net, filter.no_unicast),
    STATE_FIELD(struct virtio_net, filter.no_broadcast),
    STATE_FIELD(struct virtio_net, filter.checks_vlan),
    STATE_FIELD(struct virtio_net, filter.unicast.count),
    STATE_FIELD(struct virtio_net, filter.unicast.overflowed),
    STATE_ARRAY(struct virtio_net, filter.unicast.addresses),
    STATE_FIELD(struct virtio_net, filter.multicast.count),
    STATE_FIELD(struct virtio_net, filter.multicast.overflowed),
    STATE_ARRAY(struct virtio_net, filter.multicast.addresses),
    STATE_ARRAY(struct virtio_net, filter.vlans),
};

static const struct state_table state = {"virtio-net-pci", 1, fields, ARRAY_SIZE(fields)};

static int after_restore(struct device *device, struct error *err)
{
    struct virtio_net *net = container_of(device, struct virtio_net, pci.pci.device);
    uint32_t offloads = net->guest_offloads; /* starting sets them from the features */
    int result = virtio_pci_after_restore(device, err);
    if (result)
        return result;
    if (net->filter.unicast.count > NET_FILTER_ADDRESSES_MAX ||
        net->filter.multicast.count > NET_FILTER_ADDRESSES_MAX)
        return error_set(err, EINVAL, "saved state of NIC '%s' has too many addresses", device->id);
    set_guest_offloads(net, offloads);
    return 0;
}

static const struct device_ops device_ops = {
    .kind = "virtio-net-pci",
    .reset = virtio_pci_reset,
    .state = &state,
    .before_save = virtio_pci_before_save,
    .after_restore = after_restore,
    .close = virtio_pci_close,
};

static int check_mtu(unsigned mtu, const struct net_backend *backend, struct error *err)
{
    unsigned most = backend && backend->ops->mtu ? backend->ops->mtu(backend) : 0;
    if (!most || mtu <= most)
        return 0;
    return error_set(err, EINVAL,
                     "host_mtu=%u is more than the %u bytes that netdev '%s' carries: enlarge its "
                     "interface's MTU with 'ip link set', or leave host_mtu= out",
                     mtu, most, backend->id);
}

int virtio_net_create(const struct virtio_pci_place *place, struct net_backend *backend,
                      const struct virtio_net_options *options, struct device **out,
                      struct error *err)
{
    int result = check_mtu(options->mtu, backend, err);
    struct virtio_net *net = result ? NULL : calloc(1, sizeof(*net));
    if (result)
        return result;
    if (!net)
        return error_set_errno(err, ENOMEM, "cannot make a NIC");
    net->backend = backend;
    net->mtu = options->mtu;
    net->features_off = options->features_off;
    net->on_filter_changed = options->on_filter_changed;
    net->opaque = options->opaque;
    memcpy(net->mac, options->mac, sizeof(net->mac));
    memcpy(net->config.mac, options->mac, sizeof(net->config.mac));
    net->config.status[0] = backend && backend->link_up ? VIRTIO_NET_S_LINK_UP : 0;
    store_le16(net->config.max_queue_pairs, 1);
    store_le16(net->config.mtu, options->mtu);
    net_filter_reset(&net->filter, options->mac);
    const struct virtio_setup setup = {
        .ops = &virtio_net_ops,
        .config = &net->config,
        .config_size = sizeof(net->config),
        .queue_count = QUEUE_COUNT,
        .queue_size = QUEUE_SIZE,
    };
    result = virtio_pci_init(&net->pci, place, &device_ops, &setup, err);
    if (result) {
        free(net);
        return result;
    }
    if (backend)
        net_attach(backend, &peer_ops, net);
    *out = &net->pci.pci.device;
    return 0;
}
