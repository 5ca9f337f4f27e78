/* SPDX-License-Identifier: MIT */
/* nic_addresses: feeds frames to the address snoop, ends leases, tells changes at a bounded rate.
 */
#include "vmm/nic_addresses.h"

#include <string.h>
#include <time.h>

#include "netbackends/antispoof.h"

#define SECOND_NS        UINT64_C(1000000000)
#define TELL_INTERVAL_NS SECOND_NS

static int64_t now_s(void)
{
    struct timespec now;
    CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return now.tv_sec;
}

/* Wakes for news that wait and for the end of the next lease, else never. */
static void arm(struct nic_addresses *addresses)
{
    int64_t expires_s = address_snoop_next_expiry(&addresses->snoop);
    uint64_t deadline_ns = addresses->has_news ? addresses->told_ns + TELL_INTERVAL_NS : UINT64_MAX;
    if (expires_s) {
        int64_t left_s = MAX(expires_s - now_s(), 0);
        deadline_ns = MIN(deadline_ns, loop_now_ns() + ((uint64_t)left_s + 1) * SECOND_NS);
    }
    if (deadline_ns == UINT64_MAX)
        loop_timer_disarm(&addresses->timer);
    else
        loop_timer_arm(&addresses->timer, deadline_ns);
}

static void tell(struct nic_addresses *addresses)
{
    uint64_t now_ns = loop_now_ns();
    if (addresses->has_news && now_ns - addresses->told_ns >= TELL_INTERVAL_NS) {
        addresses->has_news = false;
        addresses->told_ns = now_ns;
        addresses->on_changed(addresses);
    }
    arm(addresses);
}

static void on_frame(struct net_observer *observer, bool is_sent, const struct iovec *iov,
                     size_t iov_count)
{
    struct nic_addresses *addresses = container_of(observer, struct nic_addresses, observer);
    if (!address_snoop_wants(iov, iov_count))
        return;
    bool has_changed = (is_sent ? address_snoop_sent : address_snoop_received)(
        &addresses->snoop, iov, iov_count, now_s());
    addresses->has_news |= has_changed;
    tell(addresses);
}

static void on_expired(struct loop_timer *timer)
{
    struct nic_addresses *addresses = timer->opaque;
    addresses->has_news |= address_snoop_expire(&addresses->snoop, now_s());
    tell(addresses);
}

int nic_addresses_init(struct nic_addresses *addresses, struct loop *loop,
                       struct net_backend *backend,
                       void (*on_changed)(struct nic_addresses *addresses))
{
    *addresses = (struct nic_addresses){
        .observer = {on_frame, NULL}, .loop = loop, .on_changed = on_changed};
    int result = loop_timer_init(loop, &addresses->timer, on_expired);
    if (result)
        return result;
    addresses->timer.opaque = addresses;
    backend->observer = &addresses->observer;
    return 0;
}

static bool may_send(struct net_observer *observer, const struct iovec *iov, size_t iov_count)
{
    const struct nic_addresses *addresses = container_of(observer, struct nic_addresses, observer);
    return antispoof_allows(&addresses->snoop, addresses->guarded_mac, iov, iov_count);
}

void nic_addresses_guard(struct nic_addresses *addresses, const uint8_t mac[6])
{
    memcpy(addresses->guarded_mac, mac, sizeof(addresses->guarded_mac));
    addresses->observer.may_send = may_send;
}

void nic_addresses_clear(struct nic_addresses *addresses)
{
    addresses->has_news |= address_snoop_clear(&addresses->snoop);
    tell(addresses);
}

static void on_timer_closed(struct loop_timer *timer)
{
    struct nic_addresses *addresses = timer->opaque;
    addresses->on_closed(addresses);
}

void nic_addresses_close(struct nic_addresses *addresses,
                         void (*on_closed)(struct nic_addresses *addresses))
{
    addresses->on_closed = on_closed;
    loop_timer_close(&addresses->timer, on_timer_closed);
}
