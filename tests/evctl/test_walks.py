# SPDX-License-Identifier: MIT
"""Walks of a new user, with a real guest: each line is what would be typed."""
import os
import signal
import socket

PROMPT = "guest# "


def test_create_start_console_stop_delete(evctl, guest):
    made = evctl("create", "web", *guest.options, "--disk", "200M", "--cpus", "2").out
    assert "UUID" in made and "machine.json" in made
    assert evctl.state("web") == "stopped"
    started = evctl("start", "web", "--json").json()
    assert started["state"] == "running" and started["pid"] > 1
    assert evctl.state("web") == "running"
    evctl.wait_console("web", PROMPT)
    shown = evctl.type("web", "echo $((6 * 7)) CPUs: $(nproc)\n", "42 CPUs: 2")
    assert "42 CPUs: 2" in shown
    # Who attaches later sees what was said before.
    assert "42 CPUs: 2" in evctl("console", "web").out
    evctl("pause", "web")
    assert evctl.state("web") == "paused"
    evctl.fails(4, ["paused", "resume"], "stop", "web")
    evctl("resume", "web")
    evctl("stop", "web")
    assert evctl.state("web") == "stopped"
    assert "Power down" in evctl("logs", "web").out
    evctl("delete", "web")
    assert evctl("list", "--json").json() == []
    assert list(evctl.store.iterdir()) == []


def test_snapshot_before_installing_then_revert_then_clone(evctl, guest):
    evctl("create", "web", *guest.options)
    evctl("snapshot", "create", "web", "before apache")
    assert [row["name"] for row in evctl("snapshot", "list", "web", "--json").json()] == \
        ["before apache"]
    evctl("start", "web")
    evctl.wait_console("web", PROMPT)
    evctl.type("web", "echo apache >/etc/installed; sync; echo in$((1))stalled\n", "in1stalled")
    # While it runs: what it has written by now is in the snapshot and in the clone.
    evctl("snapshot", "create", "web", "with apache")
    evctl.fails(4, ["running", "evctl stop"], "snapshot", "revert", "web", "before apache")
    evctl.fails(4, ["has snapshots"], "clone", "web", "never", "--linked")
    evctl("clone", "web", "live")
    evctl.type("web", "rm /etc/installed; sync; echo re$((1))moved\n", "re1moved")
    evctl("stop", "web")
    evctl("snapshot", "revert", "web", "with apache")
    evctl("clone", "web", "with", "with2")
    evctl("snapshot", "revert", "web", "before apache")
    evctl("clone", "web", "without", "--linked")
    for name, answer in (("live", "apache"), ("with2", "apache"), ("without", "No such file")):
        evctl("start", name)
        evctl.wait_console(name, PROMPT)
        assert answer in evctl.type(name, "cat /etc/installed\n", answer)
    evctl.fails(5, ["'without' is a linked clone", "ruin"], "start", "web")
    evctl.fails(5, ["'without' is a linked clone"], "delete", "web")
    uuids = {evctl("info", name, "--json").json()["uuid"] for name in ("web", "with", "with2")}
    macs = {evctl("info", name, "--json").json()["nics"][0]["mac"]
            for name in ("web", "with", "with2")}
    assert len(uuids) == 3 and len(macs) == 3
    # The linked clone runs on the disk of the original.
    evctl.fails(1, ["disk0", "lock"], "snapshot", "delete", "web", "before apache")
    evctl("stop", "--force", "without")
    evctl("snapshot", "delete", "web", "before apache")
    evctl("snapshot", "delete", "web", "with apache")
    assert evctl("snapshot", "list", "web", "--json").json() == []
    # A linked clone of a machine that runs: both go on, and neither sees the other's changes.
    evctl.type("live", "echo shared >/etc/shared; sync; echo wri$((1))tten\n", "wri1tten")
    evctl("clone", "live", "branch", "--linked")
    evctl.type("live", "rm /etc/shared; sync; echo go$((1))ne\n", "go1ne")
    evctl("start", "branch")
    evctl.wait_console("branch", PROMPT)
    assert "shared" in evctl.type("branch", "cat /etc/shared\n", "\nshared")
    evctl("stop", "live")
    evctl.fails(5, ["'branch' is a linked clone"], "delete", "live")
    evctl("start", "live")
    evctl.wait_console("live", PROMPT)
    assert "No such" in evctl.type("live", "cat /etc/shared\n", "No such file")


def test_ip_of_the_guest(evctl, guest):
    evctl("create", "web", *guest.options)
    evctl.fails(4, ["not running", "evctl start"], "ip", "web")
    evctl("start", "web")
    evctl.wait_console("web", PROMPT)
    evctl.fails(6, ["--wait"], "ip", "web")
    evctl.type("web", "ip link set eth0 up; udhcpc -i eth0 -q; echo a$((1))sked\n", "a1sked")
    assert evctl("ip", "web", "--wait").out == "10.0.2.15\n"
    listed = evctl("ip", "web", "--json").json()
    assert listed["ip"] == "10.0.2.15"
    mac = evctl("info", "web", "--json").json()["nics"][0]["mac"]
    assert listed["addresses"][0]["mac"] == mac


def test_a_forwarded_port_added_while_it_runs(evctl, guest):
    evctl("create", "web", *guest.options)
    evctl("start", "web")
    evctl.wait_console("web", PROMPT)
    evctl.type("web", "ip link set eth0 up; udhcpc -i eth0 -q; (echo hello | nc -l -p 80 >/dev/null) & "
               "until netstat -ltn | grep -q :80; do sleep 0.1; done; echo l$((1))stens\n", "l1stens")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    evctl("forward", "add", "web", f"{port}:80")
    with socket.create_connection(("127.0.0.1", port), 120) as client:
        client.settimeout(120)
        assert client.recv(16) == b"hello\n"
    assert evctl("forward", "list", "web", "--json").json() == [
        {"nic": "net0", "protocol": "tcp", "host": f"127.0.0.1:{port}", "guest": "80"}]
    evctl.fails(1, ["already"], "forward", "add", "web", f"{port}:81")
    evctl("forward", "del", "web", port)
    assert evctl("forward", "list", "web", "--json").json() == []
    evctl.fails(3, ["not forwarded"], "forward", "del", "web", port)


def test_modify_and_start_again(evctl, guest):
    evctl("create", "web", *guest.options)
    evctl("set", "web", "--cpus", "3", "--memory", "300M")
    evctl("attach", "web", "disk", "64M")
    evctl("attach", "web", "nic", "user")
    evctl("start", "web")
    evctl.wait_console("web", PROMPT)
    shown = evctl.type("web", "echo n=$(nproc) d=$(cat /sys/block/vdb/size) e=$(ls /sys/class/net | "
                       "grep -c eth)\n", "n=3 d=131072 e=2")
    assert "n=3" in shown
    # A larger disk is seen at once.
    evctl("disk", "resize", "web", "disk1", "128M")
    evctl.type("web", "until [ $(cat /sys/block/vdb/size) = 262144 ]; do sleep 0.1; done; "
               "echo lar$((1))ger\n", "lar1ger")
    evctl("stop", "web")
    evctl("detach", "web", "disk1", "--delete")
    evctl("detach", "web", "net1")
    info = evctl("info", "web", "--json").json()
    assert len(info["disks"]) == 1 and len(info["nics"]) == 1
    assert not (evctl.store / "web/disk1.qcow2").exists()


def test_changes_while_it_runs(evctl, guest):
    """As controlvm, setvcpus, setmem, attach-disk and domif-setlink, in one run of the guest."""
    evctl("create", "web", *guest.options, "--max-cpus", "3", "--max-memory", "512M")
    evctl("start", "web")
    evctl.wait_console("web", PROMPT)
    evctl("set", "web", "--live", "--cpus", "2")
    evctl.type("web", "for c in /sys/devices/system/cpu/cpu?/online; do echo 1 >$c; done; "
               "echo cpus=$(nproc)\n", "cpus=2")
    of = "$(awk '/{}/ {{print int($2 / 1024)}}' /proc/meminfo)"
    evctl("set", "web", "--live", "--memory", "160M")
    evctl.type("web", f"[ {of.format('MemFree')} -lt 130 ] && echo ballo$((1))on\n", "ballo1on")
    evctl("set", "web", "--live", "--memory", "384M")
    evctl.type("web", "echo auto >/sys/devices/system/memory/auto_online_blocks; for m in "
               "/sys/devices/system/memory/memory*/state; do echo online >$m; done 2>/dev/null; "
               f"[ {of.format('MemTotal')} -gt 300 ] && echo mo$((1))re\n", "mo1re")
    assert evctl("attach", "web", "disk", "64M", "--live").out == "disk1\n"
    assert evctl("attach", "web", "nic", "user", "--live").out == "net1\n"
    evctl.type("web", "while [ ! -b /dev/vdb -o ! -e /sys/class/net/eth1 ]; do sleep 0.2; done; "
               "dd if=/dev/urandom of=/dev/vdb bs=1M count=4 conv=fsync 2>/dev/null; "
               "echo plu$((1))gged\n", "plu1gged")
    evctl("set", "web", "--live", "--link", "net0=off")
    evctl.type("web", "ip link set eth0 up; while [ $(cat /sys/class/net/eth0/carrier) != 0 ]; do "
               "sleep 0.2; done; echo no$((1))carrier\n", "no1carrier")
    evctl("disk", "resize", "web", "disk1", "128M")
    evctl.type("web", "while [ $(cat /sys/block/vdb/size) != 262144 ]; do sleep 0.2; done; "
               "echo lar$((1))ger\n", "lar1ger")
    evctl("detach", "web", "disk1", "--live", "--delete")
    evctl("detach", "web", "net1", "--live")
    evctl("set", "web", "--live", "--cpus", "1")
    evctl.type("web", "while [ -b /dev/vdb -o -e /sys/class/net/eth1 ]; do sleep 0.2; done; "
               "echo go$((1))ne cpus=$(nproc)\n", "go1ne cpus=1")
    assert not (evctl.store / "web/disk1.qcow2").exists()
    evctl.fails(7, ["at most 512 MiB", "--max-memory"], "set", "web", "--live", "--memory", "1G")
    evctl.fails(7, ["at most 3 CPUs", "--max-cpus"], "set", "web", "--live", "--cpus", "8")
    evctl.fails(7, ["--boot", "--live"], "set", "web", "--live", "--boot", "d")
    evctl.fails(3, ["net7"], "set", "web", "--live", "--link", "net7=off")
    info = evctl("info", "web", "--json").json()
    assert (info["cpus"], info["memory-mib"], info["nics"][0]["link"]) == (1, 384, "off")
    assert len(info["disks"]) == 1 and len(info["nics"]) == 1


def test_a_killed_evisor_is_a_stopped_machine(evctl, guest):
    evctl("create", "web", *guest.diskless)
    pid = evctl("start", "web", "--json").json()["pid"]
    os.kill(pid, signal.SIGKILL)
    while "pid" in evctl("info", "web", "--json").json():
        pass
    assert evctl.state("web") == "stopped"
    assert evctl("info", "web", "--json").json()["ended-in-order"] is False
    evctl.fails(4, ["not running"], "console", "web")
    evctl("start", "web")
    assert evctl.state("web") == "running"
    evctl("stop", "--force", "web")
    assert evctl.state("web") == "stopped"


def test_a_stop_that_waits_gives_way_to_force(evctl, guest):
    evctl("create", "web", *guest.diskless)
    evctl("start", "web")
    evctl.fails(6, ["did not shut down", "--force"], "stop", "web", "--timeout", "1",
                "--quiet")
    waiting = evctl.start_process("stop", "web", "--timeout", "60")
    evctl("stop", "--force", "web")
    waiting.communicate(timeout=120)
    assert evctl.state("web") == "stopped"


def test_up_from_a_folder(evctl, guest, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    words = dict(zip(guest.options[::2], guest.options[1::2]))
    lines = "".join(f"{key[2:]} = {value}\n" for key, value in words.items())
    (folder / "user-data").write_text("#cloud-config\nhostname: upped\n")
    (folder / "evctl.conf").write_text("# a machine\n" + lines + "user-data = user-data\n")
    assert evctl("up", "--json", cwd=folder).json()["was-running"] is False
    assert evctl("up", "--json", folder).json()["was-running"] is True
    evctl.wait_console("project", PROMPT)
    # The guest finds the seed by its label, as cloud-init does.
    seed = (evctl.store / "project/seed.iso").read_bytes()
    assert seed[16 * 2048 + 40:16 * 2048 + 46] == b"CIDATA"
    evctl.type("project", "tr -d '\\000' </dev/vdb | grep -c hostname:.upped\n", "\n1\r\n")
    with open(folder / "evctl.conf", "a", encoding="ascii") as description:
        description.write("cpus = 3\n")
    assert "at its next start" in evctl("up", cwd=folder).err
    assert evctl("info", "project", "--json").json()["cpus"] == 3
    assert "next start" not in evctl("up", cwd=folder).err
    (folder / "evctl.conf").write_text("name = other\nmemry = 1G\n")
    evctl.fails(2, ["memry", "--memory"], "up", cwd=folder)


def test_machines_on_an_internal_network_meet(evctl, guest):
    evctl("net", "create", "lab")
    for number, name in enumerate(("one", "two"), 1):
        evctl("create", name, *guest.options, "--net", "lab")
        evctl("start", name)
    for number, name in enumerate(("one", "two"), 1):
        evctl.wait_console(name, PROMPT)
        evctl.type(name, f"ip addr add 10.9.0.{number}/24 dev eth0; ip link set eth0 up; "
                   "echo s$((1))et\n", "s1et")
    evctl.type("one", "ping -c 2 10.9.0.2\n", "2 packets received")
    evctl.fails(5, ["used by"], "net", "delete", "lab")
    for name in ("one", "two"):
        evctl("delete", "--force", name)
    evctl("net", "delete", "lab")
    assert evctl("net", "list", "--json").json() == []
