/* SPDX-License-Identifier: MIT */
/* -netdev nat and hostonly, and the ways through a NAT: hostfwd, guestfwd. */
#include <string.h>

#include "tests/options_rig.h"
#include "tests/unit/test.h"

static void test_shared_networks(void **state)
{
    (void)state;
    take("-kernel k -name a -nic nat,folder=/n,net=10.9.0.0/24,hostfwd=tcp::1-:2,antispoof=on "
         "-nic hostonly,folder=/h,hostfwd=tcp:127.0.0.1:1-:2,mac=52:54:00:00:00:01 "
         "-nic internal,folder=/i -nic user");
    const struct config_nic *nics = config.nics;
    assert_int_equal(config.nic_count, 4);
    assert_int_equal(nics[0].kind, NET_KIND_NAT);
    assert_string_equal(nics[0].folder, "/n");
    assert_string_equal(nics[0].user.net, "10.9.0.0/24");
    assert_int_equal(nics[0].user.forwards[0].guest_port, 2);
    assert_true(nics[0].antispoof && !nics[1].antispoof);
    assert_int_equal(nics[1].kind, NET_KIND_HOST_ONLY);
    assert_int_equal(nics[1].mac[5], 1);
    /* Neighbours by their names; elsewhere the address that everybody knows. */
    assert_true(nics[0].has_mac && nics[2].has_mac && !nics[3].has_mac);
    assert_int_not_equal(memcmp(nics[0].mac, nics[2].mac, 6), 0);
    uint8_t first[6];
    memcpy(first, nics[0].mac, 6);
    take("-kernel k -name a -nic nat,folder=/n");
    assert_memory_equal(config.nics[0].mac, first, 6);
    take("-kernel k -name b -nic nat,folder=/n");
    assert_int_not_equal(memcmp(config.nics[0].mac, first, 6), 0);
    take("-kernel k -nic nat,folder=/n");
    assert_false(config.nics[0].has_mac);
}

static void test_forwards(void **state)
{
    (void)state;
    take("-kernel k -nic user,hostfwd=unix:/s-:22,hostfwd=tcp:[::1]:1-[fec0::9]:2,"
         "guestfwd=tcp:10.0.2.100:80-cmd:nc,guestfwd=tcp::81-unix:/u,ipv6-net=fd00::/64");
    const struct config_net_user *user = &config.nics[0].user;
    assert_string_equal(user->forwards[0].host_path, "/s");
    assert_string_equal(user->forwards[1].guest_address, "fec0::9");
    assert_int_equal(user->guest_forward_count, 2);
    assert_int_equal(user->guest_forwards[0].port, 80);
    assert_string_equal(user->guest_forwards[1].target_path, "/u");
    assert_string_equal(user->ipv6_prefix, "fd00::/64");
    take("-kernel k -nic user,ipv6-prefix=fd00::,ipv6-prefixlen=60");
    assert_string_equal(config.nics[0].user.ipv6_prefix, "fd00::/60");
    refuse("-kernel k -nic user,hostfwd=unix:/s-:22,hostfwd=unix:/s-:23", "forwarded twice");
    refuse("-kernel k -nic user,guestfwd=tcp:10.0.2.100:80", "-cmd:COMMAND");
    take("-kernel k -nic user,guestfwd=tcp::80-chardev:c,guestfwd=tcp::81-chardev:c "
         "-chardev socket,id=c,path=/u");
    user = &config.nics[0].user;
    assert_string_equal(user->guest_forwards[0].target_path, "/u");
    assert_string_equal(user->guest_forwards[1].target_path, "/u");
    assert_int_equal(config.chardevs[0].kind, CHARDEV_NULL);
    assert_string_equal(config.chardevs[0].path, "/u"); /* for who names it later */
    take("-kernel k -chardev socket,id=c,host=127.0.0.1,port=9 "
         "-nic user,guestfwd=tcp::80-chardev:c");
    assert_int_equal(config.nics[0].user.guest_forwards[0].target_port, 9);
    refuse("-kernel k -nic user,guestfwd=tcp::80-chardev:c", "no chardev with id=c");
    refuse("-kernel k -chardev null,id=c -nic user,guestfwd=tcp::80-chardev:c", "is no client");
    refuse("-kernel k -chardev socket,id=c,path=/u -serial chardev:c "
           "-nic user,guestfwd=tcp::80-chardev:c",
           "used by something else");
    refuse("-kernel k -nic user,ipv6-net=fd00::/64,ipv6-prefix=fd00::", "not both");
    refuse("-kernel k -nic user,ipv6-prefixlen=64", "goes with");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_shared_networks, tear_down),
        cmocka_unit_test_teardown(test_forwards, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
