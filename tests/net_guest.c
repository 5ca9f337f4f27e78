/* SPDX-License-Identifier: MIT */
/*
 * net_guest: a guest without a machine: the host's own TCP/IP stack, behind a TAP in a network
 * namespace, drives a real virtio-net device in front of any backend that evisor has.
 *
 *   net-guest NETNS TAP NIC [NIC]       NETNS: a path, TAP: the guest's interface in there (it must
 *                                       exist), NIC: what follows -nic. Prints "ready". SIGUSR1
 *                                       moves the device to the other NIC, with its link down
 *                                       meanwhile. SIGTERM ends it.
 *   net-guest --plain ...               the driver accepts no offloads
 *
 * Theory of operation. What the stack sends is read from the TAP into buffers of guest RAM and
 * offered on the transmit queue; what the device put into receive buffers is written to the TAP as
 * it lies, for both speak struct virtio_net_hdr_v1. Driver and device share the loop's thread;
 * kicks and interrupts are suppressed by event_idx, as Linux's driver does.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/virtio_net.h"
#include "tools/bench/fake_guest.h"
#include "vmm/netdev.h"
#include "vmm/options/options.h"

enum { RX, TX, CTRL, QUEUE_COUNT };
enum {
    QUEUE_SIZE = 256,
    HEADER_BYTES = 12,
    RX_BYTES = 4096,      /* of a receive buffer */
    TX_COUNT = 64,        /* frames on their way */
    TX_BYTES = 68 * 1024, /* of a transmit buffer: a whole frame */
    FRAMES_A_TURN = 64,
    BACKENDS_MAX = 2,
    FIXED_WORDS = 3, /* of the command line that the NICs are parsed with */
};

struct net_guest {
    struct fake_guest guest;
    struct irq_hub_ops hub_ops;
    const struct irq_hub_ops *counting_ops;
    struct device *nic;
    struct fake_device driver;
    struct fake_queue queues[QUEUE_COUNT];
    uint16_t kicked_at[QUEUE_COUNT];
    struct loop_event *bells[QUEUE_COUNT]; /* in the order of the queues */
    unsigned bell_count;
    struct vm_config config;
    struct net_backend *backends[BACKENDS_MAX];
    unsigned backend_count, backend_at, closed_count;
    uint64_t rx_gpa, tx_gpa;
    uint16_t tx_free[TX_COUNT];
    unsigned tx_free_count;
    int tap_fd, signal_fd;
    struct loop_watch tap_watch, signal_watch;
    struct loop_task driver_task;
    bool is_ending, tap_is_readable;
};

static struct net_guest net_guest;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "net-guest: %s: %s\n", what, why);
    exit(1);
}

static uint8_t *host(uint64_t gpa, uint64_t bytes)
{
    return fake_guest_at(&net_guest.guest, gpa, bytes);
}

/* Tells the device of what was offered, if it wants to know. */
static void kick(struct net_guest *self, unsigned index)
{
    struct fake_queue *queue = &self->queues[index];
    uint16_t now = queue->avail_at, before = self->kicked_at[index];
    atomic_thread_fence(memory_order_seq_cst);
    self->kicked_at[index] = now;
    if (vring_need_event(load_le16(host(queue->used + 4 + 8u * queue->size, 2)), now, before))
        self->bells[index]->on_signal(self->bells[index]);
}

static int on_bell(void *opaque, enum bus_space space, uint64_t address,
                   const struct bus_doorbell *bell)
{
    struct net_guest *self = opaque;
    (void)space;
    (void)address;
    CHECK(self->bell_count < QUEUE_COUNT);
    self->bells[self->bell_count++] = bell->event;
    return 0;
}

static void on_bell_gone(void *opaque, enum bus_space space, uint64_t address,
                         const struct bus_doorbell *bell)
{
    struct net_guest *self = opaque;
    (void)space;
    (void)address;
    (void)bell;
    self->bell_count = 0;
}

/* Asks for an interrupt when `ahead` more entries than now are used. True if there are already. */
static bool want_interrupt(struct net_guest *self, unsigned index, unsigned ahead)
{
    struct fake_queue *queue = &self->queues[index];
    uint64_t event_gpa = queue->avail + 4 + 2u * queue->size;
    store_le16(host(event_gpa, 2), (uint16_t)(queue->used_at + ahead));
    atomic_thread_fence(memory_order_seq_cst);
    return (uint16_t)(fake_queue_used_index(queue) - queue->used_at) > ahead;
}

/* From the stack to the device. */

static void reap_tx(struct net_guest *self)
{
    uint32_t head, bytes;
    while (fake_queue_used(&self->queues[TX], &head, &bytes))
        self->tx_free[self->tx_free_count++] = (uint16_t)head;
}

/* False if the stack has nothing more to send. */
static bool send_one(struct net_guest *self)
{
    uint16_t slot = self->tx_free[self->tx_free_count - 1];
    uint64_t gpa = self->tx_gpa + (uint64_t)slot * TX_BYTES;
    ssize_t bytes = read(self->tap_fd, host(gpa, TX_BYTES), TX_BYTES);
    if (bytes < 0)
        return false;
    self->tx_free_count--;
    fake_queue_set_descriptor(&self->queues[TX], slot, gpa, (uint32_t)bytes, 0, 0);
    fake_queue_offer(&self->queues[TX], slot);
    return true;
}

static void drive_tx(struct net_guest *self)
{
    reap_tx(self);
    for (unsigned i = 0; self->tap_is_readable && i < FRAMES_A_TURN; i++) {
        if (!self->tx_free_count)
            break;
        self->tap_is_readable = send_one(self);
    }
    kick(self, TX);
    /* Interest in the TAP only while there is a buffer to read into. */
    unsigned in_flight = TX_COUNT - self->tx_free_count;
    if (!self->tx_free_count && want_interrupt(self, TX, in_flight / 2))
        loop_task_queue(&self->driver_task);
    loop_watch_set(&self->tap_watch, self->tx_free_count ? UV_READABLE : 0);
    if (self->tx_free_count && self->tap_is_readable)
        loop_task_queue(&self->driver_task);
}

/* From the device to the stack. */

static uint64_t rx_buffer(const struct net_guest *self, uint32_t head)
{
    CHECK(head < QUEUE_SIZE);
    return self->rx_gpa + (uint64_t)head * RX_BYTES;
}

/* A frame lies in as many buffers as its header says; they are used in order, all at once. */
static bool receive_one(struct net_guest *self)
{
    struct fake_queue *queue = &self->queues[RX];
    struct iovec iov[QUEUE_SIZE];
    uint16_t heads[QUEUE_SIZE];
    uint32_t head, bytes;
    unsigned count = 0, needed = 1;
    for (; count < needed && fake_queue_used(queue, &head, &bytes); count++) {
        uint8_t *at = host(rx_buffer(self, head), RX_BYTES);
        if (!count)
            needed = load_le16(at + 10);
        CHECK(needed && needed <= QUEUE_SIZE && bytes <= RX_BYTES);
        iov[count] = (struct iovec){at, bytes};
        heads[count] = (uint16_t)head;
    }
    if (!count)
        return false;
    CHECK(count == needed);
    /* A stack that has no room drops, as it does with any NIC. */
    unused_result(writev(self->tap_fd, iov, (int)count));
    for (unsigned i = 0; i < count; i++)
        fake_queue_offer(queue, heads[i]);
    return true;
}

static void drive_rx(struct net_guest *self)
{
    do
        while (receive_one(self)) {
        }
    while (want_interrupt(self, RX, 0));
    kick(self, RX);
}

static void on_driver_task(struct loop_task *task)
{
    struct net_guest *self = container_of(task, struct net_guest, driver_task);
    drive_rx(self);
    drive_tx(self);
}

static void on_interrupt(struct irq_route *route)
{
    net_guest.counting_ops->route_fire(route);
    loop_task_queue(&net_guest.driver_task);
}

/* In the poll, so that a kick reaches the device in the same turn, as an ioeventfd does. */
static void on_tap(struct loop_watch *watch, int events)
{
    struct net_guest *self = container_of(watch, struct net_guest, tap_watch);
    if (events & UV_READABLE)
        self->tap_is_readable = true;
    drive_tx(self);
}

/* Set-up. */

static unsigned tap_offloads(uint64_t features)
{
    unsigned flags = 0;
    if (!(features & VIRTIO_FEATURE(VIRTIO_NET_F_CSUM)))
        return 0;
    flags |= TUN_F_CSUM;
    flags |= features & VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO4) ? TUN_F_TSO4 : 0;
    flags |= features & VIRTIO_FEATURE(VIRTIO_NET_F_HOST_TSO6) ? TUN_F_TSO6 : 0;
    flags |= features & VIRTIO_FEATURE(VIRTIO_NET_F_HOST_ECN) ? TUN_F_TSO_ECN : 0;
    return flags;
}

/* Opens a TAP in another network namespace and comes back. */
static int open_tap(const char *netns, const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header_bytes = HEADER_BYTES, little_endian = 1;
    int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = open(netns, O_RDONLY | O_CLOEXEC);
    if (here < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
        die(netns, strerror(errno));
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 ||
        ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 ||
        ioctl(fd, TUNSETVNETLE, &little_endian) < 0)
        die(name, strerror(errno));
    if (setns(here, CLONE_NEWNET) < 0)
        die("cannot come back", strerror(errno));
    close(here);
    close(there);
    return fd;
}

static void fill_rx(struct net_guest *self)
{
    struct fake_queue *queue = &self->queues[RX];
    self->rx_gpa = fake_guest_alloc(&self->guest, (uint64_t)QUEUE_SIZE * RX_BYTES);
    for (uint16_t i = 0; i < QUEUE_SIZE; i++) {
        fake_queue_set_descriptor(queue, i, rx_buffer(self, i), RX_BYTES, VRING_DESC_F_WRITE, 0);
        fake_queue_offer(queue, i);
    }
    kick(self, RX);
}

static void make_device(struct net_guest *self, bool is_plain)
{
    const uint64_t offloads =
        VIRTIO_FEATURE(VIRTIO_NET_F_CSUM) | VIRTIO_FEATURE(VIRTIO_NET_F_GUEST_CSUM) |
        VIRTIO_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
        UINT64_C(0xf) << VIRTIO_NET_F_GUEST_TSO4 | UINT64_C(0xf) << VIRTIO_NET_F_HOST_TSO4;
    struct virtio_net_options options = {.mtu = self->config.nics[0].mtu};
    struct error err = {0};
    struct virtio_pci_place place = fake_guest_place(&self->guest, "nic");
    memcpy(options.mac, self->config.nics[0].mac, sizeof(options.mac));
    if (virtio_net_create(&place, self->backends[0], &options, &self->nic, &err))
        die("virtio-net", err.text);
    self->guest.mem.on_written = NULL; /* nothing here keeps decoded code */
    fake_device_probe(&self->driver, &self->guest, self->nic);
    uint64_t features = fake_device_features(&self->driver) & ~(is_plain ? offloads : 0);
    CHECK(fake_device_negotiate(&self->driver, features));
    for (unsigned i = 0; i < QUEUE_COUNT; i++)
        fake_queue_init(&self->queues[i], &self->driver, i, QUEUE_SIZE);
    fake_device_driver_ok(&self->driver);
    self->tx_gpa = fake_guest_alloc(&self->guest, (uint64_t)TX_COUNT * TX_BYTES);
    for (unsigned i = 0; i < TX_COUNT; i++)
        self->tx_free[self->tx_free_count++] = (uint16_t)i;
    fill_rx(self);
    if (ioctl(self->tap_fd, TUNSETOFFLOAD, (unsigned long)tap_offloads(features)) < 0)
        die("TUNSETOFFLOAD", strerror(errno));
}

static void make_backends(struct net_guest *self, char **nics, unsigned count)
{
    char *words[FIXED_WORDS + 2 * BACKENDS_MAX] = {"net-guest", "-kernel", "none"};
    struct error err = {0};
    char *text = NULL;
    for (unsigned i = 0; i < count; i++) {
        words[FIXED_WORDS + 2 * i] = "-nic";
        words[FIXED_WORDS + 1 + 2 * i] = nics[i];
    }
    if (options_parse((int)(FIXED_WORDS + 2 * count), words, &self->config, &text, &err) || text)
        die("-nic", err.text);
    for (; self->backend_count < count; self->backend_count++)
        if (netdev_create(&self->guest.loop, &self->config.nics[self->backend_count], "net-guest",
                          &self->backends[self->backend_count], &err))
            die("-nic", err.text);
}

static void swap(struct net_guest *self)
{
    struct error err = {0};
    unsigned next = (self->backend_at + 1) % self->backend_count;
    net_set_link(self->backends[self->backend_at], false);
    if (virtio_net_swap_backend(self->nic, self->backends[next], &err))
        die("swap", err.text);
    net_set_link(self->backends[next], true);
    self->backend_at = next;
    printf("swapped\n");
    fflush(stdout);
}

static void on_signal(struct loop_watch *watch, int events)
{
    struct net_guest *self = container_of(watch, struct net_guest, signal_watch);
    struct signalfd_siginfo info;
    (void)events;
    while (read(self->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGUSR1)
            swap(self);
        else
            self->is_ending = true;
    }
}

static void watch_all(struct net_guest *self)
{
    struct loop *loop = &self->guest.loop;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    self->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    CHECK(self->signal_fd >= 0);
    CHECK(loop_watch_init(loop, &self->signal_watch, self->signal_fd, on_signal) == 0);
    CHECK(loop_watch_init(loop, &self->tap_watch, self->tap_fd, on_tap) == 0);
    loop_watch_set(&self->signal_watch, UV_READABLE);
    loop_watch_set(&self->tap_watch, UV_READABLE);
    loop_task_init(loop, &self->driver_task, LOOP_STAGE_DRAIN, on_driver_task);
}

static void on_backend_closed(void *opaque)
{
    ((struct net_guest *)opaque)->closed_count++;
}

static void shut_down(struct net_guest *self)
{
    loop_task_cancel(&self->driver_task);
    loop_watch_close(&self->tap_watch, NULL);
    loop_watch_close(&self->signal_watch, NULL);
    fake_guest_close(&self->guest, self->nic);
    for (unsigned i = 0; i < self->backend_count; i++)
        self->backends[i]->ops->close(self->backends[i], on_backend_closed, self);
    while (self->closed_count < self->backend_count)
        loop_run_once(&self->guest.loop, true);
    self->guest.irq.hub.ops = self->counting_ops;
    fake_guest_fini(&self->guest);
    vm_config_fini(&self->config);
}

int main(int argc, char **argv)
{
    struct net_guest *self = &net_guest;
    bool is_plain = argc > 1 && strcmp(argv[1], "--plain") == 0;
    char **words = argv + 1 + is_plain;
    int count = argc - 1 - is_plain;
    if (count < 3 || count > 2 + BACKENDS_MAX)
        die("usage", "net-guest [--plain] NETNS TAP NIC [NIC]");
    net_ignore_sigpipe();
    self->tap_fd = open_tap(words[0], words[1]);
    fake_guest_init(&self->guest);
    self->counting_ops = self->guest.irq.hub.ops;
    self->hub_ops = *self->counting_ops;
    self->hub_ops.route_fire = on_interrupt;
    self->guest.irq.hub.ops = &self->hub_ops;
    static const struct bus_listener listener = {.doorbell_add = on_bell,
                                                 .doorbell_del = on_bell_gone};
    bus_set_listener(&self->guest.bus, &listener, self);
    watch_all(self);
    make_backends(self, words + 2, (unsigned)count - 2);
    make_device(self, is_plain);
    printf("ready\n");
    fflush(stdout);
    while (!self->is_ending)
        loop_run_once(&self->guest.loop, true);
    shut_down(self);
    return 0;
}
