# SPDX-License-Identifier: MIT
"""
netlab: networks to try things in: namespaces that end with this process, cables and TAPs between
them, and guests without a machine (build/net-guest) whose TCP/IP stack is a namespace of its own.
"""

import contextlib
import pathlib
import shlex
import signal
import subprocess
import time

from . import packages

TOP = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["procps", "iproute2", "iperf3", "nftables", "dnsmasq-base", "ethtool", "iputils-ping",
            "busybox-static", "passt", "qemu-system-x86"]


def wait_for(condition, what, seconds=60):
    """Until condition() gives something true, which is returned; `what` is for the failure."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Namespace:
    """A network namespace, with a mount namespace so that it may have its own /etc/resolv.conf."""

    def __init__(self, name):
        self.name = name
        self._children = []
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c",
             "mount -t sysfs sys /sys && ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if self.holder.stdout.readline() != "up\n":
            raise packages.Failure("no network namespace can be made here: it takes root, and a "
                                   "root file system that is a mount point")
        self.pid = self.holder.pid
        self.path = f"/proc/{self.pid}/ns/net"

    def close(self):
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
        self.holder.stdin.close()
        self.holder.wait()

    def words(self, command):
        if isinstance(command, str):
            command = shlex.split(command)
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "--", *map(str, command)]

    def run(self, command, check=True, timeout=60, **options):
        """One command, to its end; its output. With check=False a CompletedProcess."""
        done = subprocess.run(self.words(command), capture_output=True, text=True, check=False,
                              timeout=timeout, stdin=subprocess.DEVNULL, **options)
        if not check:
            return done
        if done.returncode:
            raise AssertionError(f"in {self.name}, {command!r} ended with {done.returncode}: "
                                 f"{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, command, **options):
        """A command that goes on; it ends with the namespace."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
                   "stderr": subprocess.DEVNULL, **options}
        child = subprocess.Popen(self.words(command), **options)
        self._children.append(child)
        return child

    def script(self, lines):
        """Commands, one a line, up to the first that fails."""
        for line in lines.strip().splitlines():
            self.run(line.strip())

    def listens(self, port, kind="tcp"):
        flag = {"tcp": "-Htln", "udp": "-Huln"}[kind]
        return f":{port} " in self.run(f"ss {flag}") + " "

    def reaches(self, address, seconds=5):
        """Whether one of several pings is answered in that time."""
        deadline = time.monotonic() + seconds
        while True:
            wait = str(min(seconds, 1))
            if self.run(["ping", "-n", "-c", "1", "-W", wait, address],
                        check=False).returncode == 0:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)

    def fetch(self, url, seconds=20):
        """What a URL gives, or None. busybox's wget, which has no settings of the host's."""
        # Without wget's own -T, which makes Debian 12's busybox crash.
        done = subprocess.run(self.words(["timeout", seconds, "busybox", "wget", "-q", "-O", "-",
                                          url]),
                              capture_output=True, check=False, stdin=subprocess.DEVNULL)
        return done.stdout if done.returncode == 0 else None

    def serve(self, folder, port=80):
        """An HTTP server with the files of a folder, on all addresses."""
        server = self.start(["busybox", "httpd", "-f", "-p", f"[::]:{port}", "-h", folder])
        wait_for(lambda: self.listens(port), f"an HTTP server in {self.name}")
        return server


class Lab:
    """Namespaces by name; everything in it ends with close()."""

    def __init__(self):
        self.spaces = {}
        self.guests = []

    def close(self):
        for guest in self.guests:
            guest.close()
        for space in self.spaces.values():
            space.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def space(self, name):
        self.spaces[name] = Namespace(name)
        return self.spaces[name]

    def cable(self, one, one_name, other, other_name):
        """A pair of Ethernet ends, one in each namespace, both up."""
        one.run(f"ip link add {one_name} type veth peer name {other_name} netns {other.pid}")
        one.run(f"ip link set {one_name} up")
        other.run(f"ip link set {other_name} up")

    def guest(self, name, host, *nics, **options):
        guest = Guest(self, name, host, nics, **options)
        self.guests.append(guest)
        return guest


class Guest:
    """
    A namespace whose eth0 is a virtio-net device of evisor, with `nics` (what follows -nic). plain:
    it accepts no offloads; limit: of evisor's descriptors.
    """

    def __init__(self, lab, name, host, nics, mac=None, plain=False, mtu=None, limit=1024):
        self.space = lab.space(name)
        number = len(lab.guests) + 1
        self.mac = mac or f"52:54:00:00:77:{number:02x}"
        self.space.run("ip tuntap add dev eth0 mode tap")
        self.space.run(f"ip link set eth0 address {self.mac}")
        if mtu:
            self.space.run(f"ip link set eth0 mtu {mtu}")
        words = [nic + f",mac={self.mac}" for nic in nics]
        self.process = host.start(["prlimit", f"--nofile={limit}", TOP / "build/net-guest", *(["--plain"] if plain else []),
                                   self.space.path, "eth0", *words],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError(f"net-guest: {self.process.stderr.read()}")
        self.space.run("ip link set eth0 up")

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)

    def swap(self):
        """The device goes over to its other NIC."""
        self.process.send_signal(signal.SIGUSR1)
        if self.process.stdout.readline() != "swapped\n":
            raise AssertionError(f"net-guest: {self.process.stderr.read()}")

    def address(self, text, gateway=None):
        self.space.run(f"ip addr add {text} dev eth0")
        if gateway:
            self.space.run(f"ip route add default via {gateway}")

    def dhcp(self):
        """What a lease says, as udhcpc's variables; the address is then in use."""
        script = pathlib.Path(__file__).with_name("udhcpc.sh")
        text = self.space.run(["busybox", "udhcpc", "-n", "-q", "-f", "-i", "eth0", "-t", "20", "-T",
                               "1", "-s", script])
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)


def cpu_seconds(pid):
    """User and system time of a process so far, all its threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
