#!/bin/sh
# SPDX-License-Identifier: MIT
# For busybox's udhcpc in a network namespace: takes the lease, prints what it says.
case $1 in
bound | renew)
    ip addr flush dev "$interface" scope global
    ip addr add "$ip/${mask:-24}" dev "$interface"
    [ -n "$router" ] && ip route replace default via "${router%% *}" dev "$interface"
    env
    ;;
esac
exit 0
