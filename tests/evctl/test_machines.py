# SPDX-License-Identifier: MIT
"""Machines as folders, without a guest: names, broken files, two commands at once, lack of space."""
import ctypes
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import BUILD
from guestkit.qmp import Client


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_commands_that_are_not_there_name_the_nearest(evctl):
    evctl.fails(2, ["did you mean 'list'"], "lsit")
    evctl.fails(2, ["did you mean 'info'"], "showvminfo", "x")
    evctl.fails(2, ["did you mean 'disk resize'"], "disk", "resise")
    evctl.fails(2, ["--memory"], "create", "x", "--memroy", "1G")
    evctl.fails(2, ["NAME"], "start")
    evctl.fails(2, ["too much"], "start", "a", "b")
    assert evctl.fails(2, ["'x' is too much"], "list", "x").err.endswith("evctl list\n")
    evctl.fails(3, ["there is no machine 'nobody'"], "start", "nobody")


def test_every_command_helps_with_an_example(evctl):
    names = re.findall(r"^  ([a-z]+(?: (?:create|resize|flatten|info|add|del|list|revert|delete|start|stop))?) ",
                       evctl("help").out.split("Every command")[0], re.MULTILINE)
    assert len(names) > 35
    for name in names:
        text = evctl(*name.split(), "--help").out
        assert "--json" in text and "Example:" in text and f"usage: evctl {name}" in text, name


@pytest.mark.parametrize("name", ["with space", "comma,equals=1", "ümlaut", "日本", "quote'\"", "a" * 64,
                                  "$(x);|&", "per%cent"])
def test_names_with_odd_characters(evctl, guest, name):
    evctl("create", name, *guest.diskless, "--disk", "10M")
    evctl("start", name, "--paused")
    assert evctl("info", name, "--json").json()["name"] == name
    assert evctl.state(name) == "paused"
    assert evctl("qmp", name, "query-name").json() == {"name": name}
    evctl("stop", "--force", name)
    assert evctl("list", "--names").out == name + "\n"
    evctl("delete", name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".hidden", "a\nb", "a" * 65])
def test_names_that_cannot_be(evctl, name):
    evctl.fails(2, ["cannot be a machine's name"], "create", "--", name)


def test_a_name_is_taken_once(evctl):
    evctl("create", "web")
    evctl.fails(1, ["already"], "create", "web")
    assert evctl("list", "--names").out == "web\n"


def test_a_create_that_fails_leaves_nothing(evctl, tmp_path):
    evctl.fails(2, ["no such file"], "create", "web", "--disk", "nonsense")
    evctl.fails(1, ["no.qcow2"], "create", "web", "--image", tmp_path / "no.qcow2")
    evctl.fails(2, ["MAC"], "create", "web", "--net", "user,mac=zz")
    evctl.fails(3, ["there is no network"], "create", "web", "--net", "lab")
    evctl.fails(2, ["--cpus"], "create", "web", "--cpus", "0")
    evctl.fails(2, ["--memory"], "create", "web", "--memory", "1K")
    evctl.fails(2, ["debian"], "create", "web", "--os", "debain")
    assert list(evctl.store.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_create_leaves_nothing(evctl, tmp_path, number):
    slow = tmp_path / "slow-img"
    slow.write_text("#!/bin/sh\n[ $1 = convert ] || exec \"$REAL_IMG\" \"$@\"\n"
                    "touch \"$STARTED\"\nexec sleep 60\n")
    slow.chmod(0o755)
    started = tmp_path / "started"
    evctl.environment.update(EVISOR_IMG=str(slow), REAL_IMG=str(BUILD / "evisor-img"),
                             STARTED=str(started))
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    process = evctl.start_process("create", "web", "--image", tmp_path / "image")
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -number and err == "evctl: interrupted\n"
    assert list(evctl.store.iterdir()) == []


def test_an_interrupted_stop_leaves_the_machine(evctl, guest):
    evctl("create", "web", *guest.diskless)
    evctl("start", "web")
    monitor = Client(os.path.relpath(evctl.store / "web" / "qmp"))
    process = evctl.start_process("stop", "web")
    monitor.wait_event("POWERDOWN")
    monitor.close()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert evctl.state("web") == "running"


def test_rename(evctl, guest):
    evctl("create", "web", "--disk", "10M", *guest.diskless)
    evctl("snapshot", "create", "web", "first")
    evctl("clone", "web", "twin", "--linked")
    evctl("create", "other")
    evctl.fails(1, ["'other' already"], "rename", "web", "other")
    evctl.fails(2, ["cannot be a machine's name"], "rename", "web", "a/b")
    evctl.fails(3, ["nobody"], "rename", "nobody", "x")
    evctl("start", "twin", "--paused")
    evctl.fails(4, ["linked clone of 'web' must follow", "'twin' is running"], "rename", "web", "x")
    assert "web" in evctl("list", "--names").out.split()
    evctl("stop", "--force", "twin")
    evctl("rename", "web", "new name")
    assert evctl("list", "--names").out.split("\n") == ["new name", "other", "twin", ""]
    assert evctl("info", "new name", "--json").json()["name"] == "new name"
    assert evctl("snapshot", "list", "new name", "--json").json()[0]["name"] == "first"
    # The clone's disk has found its base again, and still protects it.
    evctl("start", "twin", "--paused")
    evctl.fails(5, ["'twin' is a linked clone"], "start", "new name")
    evctl.fails(4, ["running"], "rename", "twin", "x")


def test_a_folder_that_cannot_be(evctl, tmp_path):
    (tmp_path / "file").write_text("")
    evctl.environment["XDG_DATA_HOME"] = str(tmp_path / "file/below")
    for words in (("create", "web"), ("list",), ("net", "create", "lab")):
        evctl.fails(1, ["cannot make the folder", "file/below"], *words)
    evctl.environment.update(XDG_DATA_HOME="", HOME="")
    evctl.fails(1, ["HOME", "XDG_DATA_HOME"], "list")
    evctl.environment["XDG_DATA_HOME"] = str(evctl.home)


def test_no_space_for_the_image(evctl, guest):
    limit = 1 << 20

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    result = evctl("create", "web", "--image", guest.image, check=False, preexec_fn=small)
    assert result.status == 1 and "File too large" in result.err, result
    assert list(evctl.store.iterdir()) == []


def test_no_space_for_anything(evctl, guest, tmp_path):
    def none():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    evctl("create", "web", *guest.diskless, "--disk", "1M")
    evctl("export", "web", tmp_path / "web.ova")
    files = sorted(path.name for path in (evctl.store / "web").iterdir())
    for words in (("set", "web", "--cpus", "2"), ("rename", "web", "other"), ("create", "other"),
                  ("clone", "web", "other"), ("attach", "web", "disk", "1M"),
                  ("import", tmp_path / "web.ova", "other"), ("snapshot", "create", "web", "one")):
        evctl.fails(1, ["File too large"], *words, preexec_fn=none)
        assert sorted(path.name for path in (evctl.store / "web").iterdir()) == files, words
        assert [path.name for path in evctl.store.iterdir()] == ["web"], words
    evctl.fails(1, ["did not start"], "start", "web", preexec_fn=none)
    assert "in order" not in evctl("info", "web").err
    evctl("start", "web", "--paused")


@pytest.mark.parametrize("content, word", [
    ("", "machine.json"), ("{", "line 1"), ("[]", "object"), ('{"format": 1}', "missing"),
    ('{"format": 2}', "missing"), ("x" * 100000, "line 1"), ("\0\0\0", "line 1")])
def test_a_broken_description_is_named_and_can_be_deleted(evctl, content, word):
    evctl("create", "bad")
    evctl("create", "good")
    (evctl.store / "bad/machine.json").write_text(content)
    evctl.fails(1, ["bad/machine.json", word, "--force"], "start", "bad")
    evctl.fails(1, ["machine.json"], "info", "bad")
    rows = {row["name"]: row for row in evctl("list", "--json").json()}
    assert {name: row["state"] for name, row in rows.items()} == {"bad": "broken", "good": "stopped"}
    assert "bad/machine.json" in rows["bad"]["problem"] and "problem" not in rows["good"]
    (line,) = [line for line in evctl("list").out.splitlines() if line.startswith("bad")]
    assert "broken" in line and word in line, line
    evctl("delete", "--force", "bad")
    assert "PROBLEM" not in evctl("list").out
    assert evctl("list", "--names").out == "good\n"


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def bound_by_permissions():
    """For preexec_fn: as any user is, also where root runs the tests."""
    if os.getuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.parametrize("what, mode", [("", 0o000), ("", 0o600), ("machine.json", 0o000)])
def test_what_may_not_be_read_is_listed_with_the_reason(evctl, what, mode):
    for name in ("web", "good"):
        evctl("create", name)
    bad = evctl.store / "web" / what
    bad.chmod(mode)
    try:
        rows = {row["name"]: row for row in evctl("list", "--json", preexec_fn=bound_by_permissions).json()}
        assert rows["web"]["state"] == "broken" and rows["good"]["state"] == "stopped"
        for word in ("web", "Permission denied", "chmod"):
            assert word in rows["web"]["problem"], rows
        (line,) = [line for line in evctl("list", preexec_fn=bound_by_permissions).out.splitlines()
                   if line.startswith("web")]
        assert "Permission denied" in line
        for command in ("info", "start", "stop"):
            evctl.fails(1, ["'web'", "Permission denied", "chmod"], command, "web",
                        preexec_fn=bound_by_permissions)
        assert evctl("list", "--names", preexec_fn=bound_by_permissions).out == "good\nweb\n"
    finally:
        bad.chmod(0o700)


def test_a_link_to_a_machine_that_is_away(evctl, tmp_path):
    evctl("create", "web")
    shutil.move(evctl.store / "web", tmp_path / "elsewhere")
    (evctl.store / "web").symlink_to(tmp_path / "elsewhere")
    assert evctl.state("web") == "stopped"
    shutil.move(tmp_path / "elsewhere", tmp_path / "unplugged")
    assert evctl.state("web") == "broken"
    evctl.fails(1, ["'web'", "a link", "No such file"], "info", "web")
    shutil.move(tmp_path / "unplugged", tmp_path / "elsewhere")
    assert evctl.state("web") == "stopped"


def test_networks_that_are_not_there(evctl):
    evctl("net", "create", "lab")
    evctl("create", "web")
    evctl.fails(3, ["there is no network 'lap'", "did you mean 'lab'?"], "net", "delete", "lap")
    result = evctl.fails(3, ["there is no network 'other'", "evctl net list"], "net", "delete", "other")
    assert "create" not in result.err
    evctl.fails(3, ["did you mean 'lab'?"], "net", "stop", "lap")
    evctl.fails(3, ["did you mean 'user'?"], "attach", "web", "nic", "usre")
    evctl.fails(3, ["net create other"], "attach", "web", "nic", "other")


@pytest.mark.parametrize("key, value", [
    ("cpus", 0), ("cpus", "2"), ("memory-mib", -1), ("memory-mib", 1 << 60), ("format", 9),
    ("surprise", 1), ("disks", [{"id": "a/b", "file": "x", "format": "raw", "kind": "disk"}]),
    ("nics", [{"id": "net0", "mode": "user", "mac": "x", "forwards": ["nonsense"]}])])
def test_a_description_with_wrong_values(evctl, key, value):
    evctl("create", "bad")
    path = evctl.store / "bad/machine.json"
    config = json.loads(path.read_text())
    config[key] = value
    path.write_text(json.dumps(config))
    evctl.fails(1, ["bad/machine.json"], "start", "bad")


def test_two_commands_at_once(evctl):
    evctl("create", "web")
    with open(evctl.store / "web/lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = evctl("set", "web", "--cpus", "2", check=False)
        assert result.status == 5 and "another evctl command" in result.err, result
        # Looking needs no lock.
        evctl("info", "web")
        evctl("list")
    many = [evctl.start_process("attach", "web", "nic", "user") for _ in range(6)]
    for process in many:
        assert process.wait(60) == 0, process.communicate()
    nics = evctl("info", "web", "--json").json()["nics"]
    assert sorted(nic["id"] for nic in nics) == [f"net{i}" for i in range(7)]


def test_two_starts_at_once_make_one_machine(evctl, guest):
    evctl("create", "web", *guest.diskless)
    processes = [evctl.start_process("start", "web", "--paused") for _ in range(4)]
    statuses = sorted(process.wait(60) for process in processes)
    assert statuses == [0, 4, 4, 4]
    evctl("stop", "--force", "web")


def test_a_start_that_fails_says_what_evisor_says(evctl, guest):
    evctl("create", "web", *guest.diskless, "--disk", "10M")
    (evctl.store / "web/disk0.qcow2").unlink()
    evctl.fails(1, ["did not start", "disk0.qcow2"], "start", "web")
    assert evctl.state("web") == "stopped"


def test_a_long_home(evctl, guest, tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    evctl.environment["XDG_DATA_HOME"] = str(deep)
    evctl("create", "web", *guest.diskless)
    evctl("start", "web", "--paused")
    assert evctl("qmp", "web", "query-status").json()["running"] is False
    evctl("delete", "--force", "web")


def test_json_of_errors(evctl):
    result = evctl("start", "nobody", "--json", check=False)
    assert result.json()["error"]["status"] == 3 == result.status
    assert "nobody" in result.json()["error"]["message"]


def test_qmp_arguments(evctl, guest):
    evctl("create", "web", *guest.diskless)
    evctl("start", "web", "--paused")
    assert "VM status" in evctl("qmp", "web", "human-monitor-command",
                                "command-line=info status").json()
    assert "VM status" in evctl("qmp", "web", "human-monitor-command",
                                '{"command-line": "info status"}').json()
    evctl.fails(1, ["nonsense"], "qmp", "web", "nonsense")
    evctl.fails(2, ["KEY=VALUE"], "qmp", "web", "query-status", "nonsense")
    stats = evctl("stats", "web", "--json").json()
    assert stats[0]["resident-bytes"] > 0 and "cpu-percent" in stats[0]
    assert [row["name"] for row in evctl("top", "--json").json()] == ["web"]


def test_list_asks_no_stopped_machine_and_survives_a_silent_one(evctl, guest):
    evctl("create", "web", *guest.diskless)
    for number in range(50):
        shutil.copytree(evctl.store / "web", evctl.store / f"m{number}")
    evctl("start", "web", "--paused")
    pid = evctl("info", "web", "--json").json()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert evctl.state("web") == "no answer"
        assert time.monotonic() - began < 30
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(evctl("list", "--json").json()) == 51
    trace = shutil.which("strace")
    if trace:
        evctl("stop", "--force", "web")
        calls = subprocess.run([trace, "-f", "-e", "trace=connect", *evctl.command("list")],
                               env=evctl.environment, capture_output=True, text=True, check=True)
        assert "connect(" not in calls.stderr


def test_a_person_sees_that_a_machine_does_not_answer(evctl, guest):
    evctl("create", "web", *guest.diskless)
    evctl("start", "web", "--paused")
    pid = evctl("info", "web", "--json").json()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        pause = evctl.start_process("pause", "web")
        assert pause.stderr.readline() == "waiting for the machine's answer ...\n"
        pause.send_signal(signal.SIGINT)
        assert pause.communicate(timeout=60)[1] == "evctl: interrupted\n"
        assert pause.returncode == -signal.SIGINT
    finally:
        os.kill(pid, signal.SIGCONT)


def test_disk_info_and_shrinking(evctl):
    evctl("create", "web", "--disk", "1G")
    assert evctl("disk", "info", "web", "--json").json()[0]["virtual-size"] == 1 << 30
    evctl.fails(2, ["--shrink"], "disk", "resize", "web", "disk0", "512M")
    evctl("disk", "resize", "web", "disk0", "2G")
    assert evctl("disk", "info", "web", "disk0", "--json").json()[0]["virtual-size"] == 2 << 30
    evctl.fails(3, ["no disk 'disk9'"], "disk", "info", "web", "disk9")


def test_a_detached_image_stays_and_comes_back(evctl):
    """The next new disk has the id of the last one, and must not have its file."""
    evctl("create", "web", "--disk", "1M", "--disk", "8M")
    kept = evctl.store / "web/disk1.qcow2"
    assert str(kept) in evctl("detach", "web", "disk1").err
    before = kept.read_bytes()
    evctl("attach", "web", "disk", "9M")
    assert kept.read_bytes() == before
    assert [row["file"] for row in evctl("info", "web", "--json").json()["disks"]] == \
        ["disk0.qcow2", "disk1-1.qcow2"]
    evctl("attach", "web", "disk", kept)
    evctl.fails(1, ["belongs to disk2"], "attach", "web", "disk", kept)
    # What lies in the folder is named so that it goes with the folder.
    evctl("rename", "web", "other")
    assert evctl("disk", "info", "other", "disk2", "--json").json()[0]["virtual-size"] == 8 << 20
    evctl("detach", "other", "disk1", "--delete")
    assert sorted(path.name for path in (evctl.store / "other").glob("disk*")) == \
        ["disk0.qcow2", "disk1.qcow2"]


def test_disk_create_overwrites_nothing(evctl, tmp_path):
    path = tmp_path / "data.qcow2"
    evctl("disk", "create", path, "1M")
    path.write_bytes(b"years of work")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for file in (path, tmp_path / "link", tmp_path):
        evctl.fails(1, [f"{file} is there already"], "disk", "create", file, "2M")
    assert path.read_bytes() == b"years of work" and not (tmp_path / "nowhere").exists()


def test_a_disk_that_comes_with_the_next_start(evctl, guest):
    evctl("create", "web", *guest.diskless, "--disk", "1M")
    evctl("start", "web", "--paused")
    evctl("attach", "web", "disk", "1M")
    for words in (("snapshot", "create", "web", "one"), ("clone", "web", "two"),
                  ("clone", "web", "two", "--linked")):
        evctl.fails(4, ["'disk1' of 'web' comes with its next start"], *words)
    evctl("detach", "web", "disk1")
    evctl("attach", "web", "disk", "1M", "--live")
    evctl("snapshot", "create", "web", "one")
    evctl("clone", "web", "two")
    assert len(evctl("info", "two", "--json").json()["disks"]) == 2


def test_info_tells_what_the_running_machine_has(evctl, guest):
    evctl("create", "web", *guest.diskless)
    assert "now" not in evctl("info", "web", "--json").json()
    evctl("start", "web", "--paused")
    assert re.search(r"^CPUs: +1$", evctl("info", "web").out, re.MULTILINE)
    evctl("set", "web", "--cpus", "3", "--memory", "200M")
    info = evctl("info", "web", "--json").json()
    assert (info["cpus"], info["memory-mib"]) == (3, 200)
    assert info["now"] == {"cpus": 1, "memory-mib": 128}
    assert "--live" in evctl("set", "web", "--cpus", "3").err
    assert "--live" not in evctl("set", "web", "--append", "other").err
    text = evctl("info", "web").out
    assert "1 now, 3 from the next start" in text and "128 MiB now, 200 MiB from" in text


def test_options_that_do_nothing_by_themselves(evctl, guest):
    for words, problem in ((["--append", "x"], "--append goes with a kernel"),
                           (["--initrd", guest.image], "--initrd goes with a kernel"),
                           (["--linked"], "--linked goes with --image"),
                           (["--image", guest.image, "--disk", "1M"], "--disk 1M is less than the 96 MiB")):
        evctl.fails(2, [problem], "create", "web", *words)
    assert evctl("list", "--names").out == ""
    evctl("create", "web", *guest.diskless)
    evctl.fails(2, ["--initrd ''"], "set", "web", "--kernel", "")
    evctl("set", "web", "--kernel", "", "--initrd", "", "--append", "")
    assert not {"kernel", "initrd", "append"} & evctl("info", "web", "--json").json().keys()


def test_an_attach_that_is_not_kept_leaves_no_image(evctl):
    evctl("create", "web", "--disk", "1M")
    (evctl.store / "web/machine.json.new").mkdir()
    evctl.fails(1, ["machine.json.new"], "attach", "web", "disk", "1M")
    evctl.fails(1, ["machine.json.new"], "detach", "web", "disk0", "--delete")
    assert [path.name for path in (evctl.store / "web").glob("disk*")] == ["disk0.qcow2"]


def test_logs_of_a_guest_that_prints_anything(evctl):
    evctl("create", "web", "--disk", "1M")
    folder = evctl.store / "web"
    (folder / "console.log").write_bytes(b"first\nzero\0after\nlogin: ")
    (folder / "evisor.log").write_text("words of evisor\n")
    assert evctl("logs", "web").out.split("\n") == \
        ["== console.log", "first", "zero after", "login: ", "== evisor.log", "words of evisor", ""]
    assert "has not run before" in evctl("logs", "web", "--previous").err
    assert evctl("logs", "web", "--lines", "1", "--json").json()["console"] == "login: "


def test_ssh_goes_through_the_forwarded_port(evctl, guest, tmp_path):
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/ssh"
    fake.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    fake.chmod(0o755)
    evctl.environment["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    evctl("create", "web", *guest.diskless, "--os", "debian")
    evctl.fails(4, ["not running"], "ssh", "web")
    evctl("start", "web", "--paused")
    words = evctl("ssh", "web", "ls", "-l").out.split("\n")
    port = words[words.index("-p") + 1]
    assert "debian@127.0.0.1" in words and words[-3:] == ["ls", "-l", ""]
    # The rule that was made stays, and is used again.
    assert evctl("forward", "list", "web", "--json").json()[0]["host"] == f"127.0.0.1:{port}"
    assert port in evctl("ssh", "--user", "me", "web").out.split("\n")
    assert evctl("ssh", "--json", "web").json() == {"host": "127.0.0.1", "port": int(port)}


@pytest.mark.parametrize("words", [("delete", "web"), ("detach", "web", "net0")], ids=" ".join)
def test_a_nic_of_its_own_goes_with_its_forwards(evctl, words):
    evctl("create", "web")
    evctl("forward", "add", "web", "8080:80")
    evctl(*words)
    evctl("list")


def test_networks_that_forward(evctl, guest):
    """Each machine on a shared NAT network forwards ports of its own, at once and after a start."""
    evctl("net", "create", "shared", "--mode", "nat", "--rootless")
    ports = iter(free_ports(3))
    for name in ("one", "two"):
        evctl("create", name, *guest.diskless, "--net", "shared", "--forward", f"{next(ports)}:22")
        evctl("start", name, "--paused")
    port = next(ports)
    evctl("forward", "add", "two", f"{port}:80")
    assert f"127.0.0.1:{port}" in evctl("forward", "list", "two").out
    evctl("net", "create", "inner")
    evctl("create", "three", *guest.diskless, "--net", "inner")
    evctl.fails(3, ["behind NAT"], "forward", "add", "three", "1234:80")
    evctl.fails(3, ["no NIC net0"], "forward", "add", "three", "1234:80", "--nic", "net0")
    evctl.fails(2, ["behind NAT"], "create", "four", "--net", "inner", "--forward", "1234:80")


def test_linked_clones_protect_their_base(evctl, guest):
    evctl("create", "web", "--disk", "10M", *guest.diskless)
    evctl("snapshot", "create", "web", "first")
    evctl("clone", "web", "one", "--linked")
    for words in (("start", "web"), ("delete", "web"), ("detach", "web", "disk0", "--delete"),
                  ("snapshot", "revert", "web", "first")):
        evctl.fails(5, ["'one' is a linked clone"], *words)
    evctl("clone", "one", "two")
    evctl("start", "one", "--paused")
    evctl("delete", "--force", "one")
    evctl("start", "web", "--paused")


def test_a_nic_that_moves_keeps_what_is_its_own(evctl):
    evctl.fails(2, ["forwarded twice"], "create", "web", "--forward", "8080:80", "--forward", "8080:81")
    evctl("create", "web", "--forward", "8080:80")
    evctl("net", "create", "mine", "--mode", "user")
    evctl("net", "create", "lab")
    evctl("set", "web", "--link", "net0=off")
    nic = evctl("info", "web", "--json").json()["nics"][0]
    evctl("set", "web", "--net", "net0=mine")
    moved = evctl("info", "web", "--json").json()["nics"][0]
    assert moved == {**nic, "mode": "network", "network": "mine"}
    assert "forwards no ports" in evctl("set", "web", "--net", "net0=lab").err
    moved = evctl("info", "web", "--json").json()["nics"][0]
    assert "forwards" not in moved and moved["mac"] == nic["mac"] and moved["link"] == "off"


def test_networks_by_name(evctl):
    evctl.fails(2, ["internal, nat, hostonly"], "net", "create", "lab", "--mode", "host")
    evctl("net", "create", "only", "--mode", "hostonly", "--rootless", "--subnet", "10.8.0.0/24")
    evctl.fails(1, ["no such bridge", "ip link add"], "net", "create", "wire", "--mode", "bridged",
                "--bridge", "br-none")
    evctl("net", "delete", "only")
    evctl.fails(2, ["--bridge"], "net", "create", "lab", "--mode", "bridged")
    evctl.fails(2, ["subnet"], "net", "create", "lab", "--mode", "user", "--subnet", "10.0.0.0")
    evctl("net", "create", "nat2", "--mode", "user", "--subnet", "10.7.0.0/24")
    evctl.fails(1, ["already"], "net", "create", "nat2")
    evctl("create", "web", "--net", "nat2")
    assert evctl("net", "list", "--json").json()[0]["machines"] == ["web"]
    evctl("set", "web", "--net", "net0=user")
    evctl("net", "delete", "nat2")
    evctl.fails(3, ["no network"], "net", "delete", "nat2")
