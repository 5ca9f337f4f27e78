# SPDX-License-Identifier: MIT
"""
A world for each test, in network namespaces of its own: `host`, where evisor runs; `outside`, on a
cable from the host's only uplink; and the guests that a test adds.
"""

import json
import os
import pathlib
import sys
import types

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tools"))
from guestkit import packages, rootfs  # noqa: E402
from guestkit.kernel import Kernel  # noqa: E402
from guestkit.netlab import PACKAGES, Lab, wait_for  # noqa: E402

BUILD = pathlib.Path(os.environ.get("EVISOR_BUILD", TOP / "build")).resolve()
HOST, OUTSIDE = "198.51.100.1", "198.51.100.2"
HOST6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"


@pytest.fixture(scope="session", autouse=True)
def needs_root():
    if os.geteuid() != 0:
        pytest.skip("network namespaces with bridges and nftables need root")
    packages.install(PACKAGES, "the tests of networks")
    try:
        with Lab() as lab:
            lab.space("trial")
    except packages.Failure as failure:
        pytest.skip(str(failure))


@pytest.fixture
def world(tmp_path):
    """world.host, world.outside, world.lab; world.evctl(...) runs in `host` and must succeed."""
    with Lab() as lab:
        host, outside = lab.space("host"), lab.space("outside")
        lab.cable(host, "up0", outside, "eth0")
        host.script(f"""
            sysctl -qw net.ipv4.ping_group_range='0 2147483647'
            sysctl -qw net.ipv6.conf.up0.accept_dad=0
            ip address add {HOST}/24 dev up0
            ip address add {HOST6}/64 dev up0 nodad
            ip route add default via {OUTSIDE}
            ip route add default via {OUTSIDE6}""")
        # It would find the way to a guest, if the host let it.
        outside.script(f"""
            ip address add {OUTSIDE}/24 dev eth0
            ip address add {OUTSIDE6}/64 dev eth0 nodad
            ip route add 192.168.0.0/16 via {HOST}
            ip route add 10.0.0.0/8 via {HOST}""")
        resolv = tmp_path / "resolv.conf"
        resolv.write_text(f"nameserver {OUTSIDE}\n")
        host.run(["mount", "--bind", resolv, "/etc/resolv.conf"])
        evctl = make_evctl(host, tmp_path)
        yield types.SimpleNamespace(lab=lab, host=host, outside=outside, folder=tmp_path,
                                    evctl=evctl)
        # dnsmasq is a daemon, which would outlive its namespace.
        for network in json.loads(evctl("net", "list", "--json")):
            evctl("net", "delete", network["name"])


def make_evctl(host, folder):
    environment = {**os.environ, "XDG_DATA_HOME": str(folder / "home"), "NO_COLOR": "1"}
    (folder / "home").mkdir()

    def evctl(*words, status=0, user=None, **more):
        as_user = ["setpriv", "--reuid", user, "--clear-groups"] if user else []
        done = host.run([*as_user, BUILD / "evctl", *words], check=False,
                        env={**environment, **more})
        assert done.returncode == status, (words, done)
        return done.stdout if status == 0 else done.stderr
    return evctl


@pytest.fixture
def site(tmp_path):
    """site(namespace, word): an HTTP server there, whose /who says the word; big is 3 MiB."""
    def serve(space, word, port=80):
        folder = tmp_path / f"site-{word}"
        folder.mkdir()
        (folder / "who").write_text(word)
        (folder / "big").write_bytes(bytes(range(256)) * (3 << 12))
        space.serve(folder, port)
    return serve


@pytest.fixture
def wire_dhcp(world, tmp_path):
    """DHCP and DNS (NAME.test is OUTSIDE) on the wire, by the outside."""
    def start():
        world.outside.start(
            ["dnsmasq", "--conf-file=", "--keep-in-foreground", "--interface=eth0",
             "--bind-interfaces", "--no-resolv", "--no-hosts", f"--dhcp-leasefile={tmp_path}/leases",
             f"--address=/name.test/{OUTSIDE}", "--user=root",
             "--dhcp-range=198.51.100.100,198.51.100.150,1h", f"--pid-file={tmp_path}/wire.pid"])
        wait_for(lambda: world.outside.listens(53, "udp"), "dnsmasq outside")
    return start


@pytest.fixture(scope="session")
def kernel():
    return Kernel()


@pytest.fixture(scope="session")
def diskless(kernel, tmp_path_factory):
    path = tmp_path_factory.mktemp("diskless") / "initrd"
    rootfs.make_initramfs(kernel, path, rootfs.DISKLESS_INIT)
    return path
