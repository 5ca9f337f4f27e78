# SPDX-License-Identifier: MIT
"""
The same conversation with QEMU's monitor and with evisor's, on machines that are never started:
the same shapes, the same classes and words of errors. And clients as people write them.
"""

import array
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time

import pytest

from conftest import BUILD, qemu_img
from introspection import Schema

QEMU = shutil.which("qemu-system-x86_64")
DEVICES = [
    "-m", "256,slots=2,maxmem=4G", "-nodefaults", "-display", "none", "-S",
    "-device", "virtio-balloon-pci,id=b0",
    "-object", "memory-backend-ram,id=mem0,size=1G",
    "-device", "virtio-mem-pci,id=vm0,memdev=mem0,requested-size=256M",
    "-device", "virtio-serial-pci,id=vs0", "-chardev", "null,id=ch0",
    "-device", "virtserialport,chardev=ch0,name=org.x.0,id=p0",
    "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,id=nic0",
    "-device", "virtio-rng-pci,id=rng0", "-object", "iothread,id=io0,poll-max-ns=0"]


class Monitor:
    """One connection; says JSON, hears JSON, all of which must be as its own schema tells."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                assert time.monotonic() < deadline, f"nobody listens on {path}"
                time.sleep(0.02)
        self.stream = self.socket.makefile("r")
        self.greeting = json.loads(self.stream.readline())
        self.events = []
        self.schema = None
        assert self.ask("qmp_capabilities") == {"return": {}}
        self.schema = Schema(self.ask("query-qmp-schema")["return"])

    def read(self):
        message = json.loads(self.stream.readline())
        if "event" in message and self.schema:
            self.schema.check_event(message)
        return message

    def hear(self):
        while True:
            message = self.read()
            if "event" not in message:
                return message
            self.events.append(message)

    def next_event(self):
        return self.events.pop(0) if self.events else self.read()

    def ask(self, command, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = {key.replace("_", "-") if key in ("fdset_id", "qom_type") else key:
                                    value for key, value in arguments.items()}
        self.socket.sendall(json.dumps(request).encode())
        reply = self.hear()
        if "return" in reply and self.schema:
            self.schema.check_answer(command, reply["return"])
        return reply

    def pass_fd(self, command, fd, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.socket.sendmsg([json.dumps(request).encode()],
                            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        return self.hear()


def start(program, folder, name, *arguments):
    folder.mkdir(exist_ok=True)
    disk = folder / f"{name}.raw"
    if not disk.exists():
        disk.write_bytes(bytes(1 << 20))
    path = folder / f"{name}.qmp"
    process = subprocess.Popen(
        [str(program), *DEVICES, "-drive", f"file={disk},format=raw,if=none,id=d0",
         "-device", "virtio-blk-pci,drive=d0,id=disk0,iothread=io0", "-qmp", f"unix:{path},server=on,wait=off",
         *map(str, arguments)], stdin=subprocess.DEVNULL, cwd=folder)
    return process, path


@contextlib.contextmanager
def beside_qemu(tmp_path_factory, furnish):
    """evisor's monitor and QEMU's; `furnish(folder)` makes files, and tells more arguments."""
    if not QEMU:
        pytest.skip("there is no qemu-system-x86_64 to compare with")
    processes, opened = [], []
    for program, name, more in ((BUILD / "evisor", "e", []),
                                (QEMU, "q", ["-accel", "tcg", "-machine", "q35"])):
        folder = tmp_path_factory.mktemp(name)
        process, path = start(program, folder, name, *more, *furnish(folder))
        processes.append(process)
        opened.append(Monitor(path))
        opened[-1].folder = folder
    yield opened
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def evisor(tmp_path_factory):
    process, path = start(BUILD / "evisor", tmp_path_factory.mktemp("evisor"), "e")
    yield Monitor(path)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def qemu(tmp_path_factory):
    if not QEMU:
        pytest.skip("there is no qemu-system-x86_64 to compare with")
    process, path = start(QEMU, tmp_path_factory.mktemp("qemu"), "q", "-accel", "tcg", "-machine",
                          "q35")
    yield Monitor(path)
    process.kill()
    process.wait()


# What both must answer alike: the very same error, or a return of the same shape.
SAME = [
    ("query-balloon", {}),
    ("balloon", {"value": 0}),
    ("balloon", {"value": -4}),
    ("balloon", {"value": 128 << 20}),
    ("balloon", {"value": 1 << 50}),
    ("balloon", {}),
    ("balloon", {"value": "much"}),
    ("query-memory-devices", {}),
    ("query-memory-size-summary", {}),
    ("query-memdev", {}),
    ("query-current-machine", {}),
    ("inject-nmi", {}),
    ("set-action", {}),
    ("set-action", {"reboot": "shutdown", "shutdown": "pause"}),
    ("set-action", {"reboot": "reset", "shutdown": "poweroff", "panic": "shutdown"}),
    ("set-action", {"reboot": "zz"}),
    ("set-action", {"shutdown": 1}),
    ("query-status", {}),
    ("query-version", {}),
    ("query-name", {}),
    ("query-uuid", {}),
    ("query-kvm", {}),
    ("query-target", {}),
    ("query-iothreads", {}),
    ("query-cpus-fast", {}),
    ("query-hotpluggable-cpus", {}),
    ("system_wakeup", {}),
    ("qom-list", {"path": "/"}),
    ("qom-list", {"path": "/machine/nonsense"}),
    ("qom-list", {}),
    ("qom-get", {"path": "/machine/peripheral/b0", "property": "nope"}),
    ("qom-get", {"path": "/machine/peripheral/b0", "property": "guest-stats"}),
    ("qom-get", {"path": "/machine/peripheral/b0", "property": "guest-stats-polling-interval"}),
    ("qom-get", {"path": "b0", "property": "type"}),
    ("qom-get", {"path": "nic0", "property": "mac"}),
    ("qom-get", {"path": "nic0", "property": "netdev"}),
    ("qom-get", {"path": "p0", "property": "name"}),
    ("qom-get", {"path": "vm0", "property": "requested-size"}),
    ("qom-get", {"path": "/nonsense", "property": "type"}),
    ("qom-set", {"path": "b0", "property": "type", "value": "x"}),
    ("qom-set", {"path": "b0", "property": "guest-stats-polling-interval", "value": "x"}),
    ("qom-set", {"path": "b0", "property": "guest-stats-polling-interval", "value": -1}),
    ("qom-set", {"path": "b0", "property": "guest-stats-polling-interval", "value": 2}),
    ("qom-set", {"path": "vm0", "property": "requested-size", "value": 512 << 20}),
    ("device-list-properties", {"typename": "zz"}),
    ("device-list-properties", {}),
    ("qom-list-types", {"implements": "virtio-balloon-pci"}),
    ("getfd", {"fdname": "x"}),
    ("getfd", {}),
    ("closefd", {"fdname": "x"}),
    ("add-fd", {}),
    ("add-fd", {"fdset-id": -3}),
    ("remove-fd", {"fdset-id": 3}),
    ("remove-fd", {"fdset-id": 3, "fd": 4}),
    ("query-fdsets", {}),
    ("query-chardev-backends", {}),
    ("chardev-add", {"id": "c1", "backend": {"type": "null", "data": {}}}),
    ("chardev-add", {"id": "c1", "backend": {"type": "null", "data": {}}}),
    ("chardev-add", {"id": "c2", "backend": {"type": "pty", "data": {}}}),
    ("chardev-remove", {"id": "c1"}),
    ("chardev-remove", {"id": "c1"}),
    ("chardev-remove", {"id": "ch0"}),
    ("chardev-remove", {"id": "c2"}),
    ("chardev-add", {"id": "c3", "backend": {"type": "ringbuf", "data": {"size": 1024}}}),
    ("ringbuf-write", {"device": "c3", "data": "hello"}),
    ("ringbuf-read", {"device": "c3", "size": 100}),
    ("ringbuf-write", {"device": "c3", "data": "aGVsbG8=", "format": "base64"}),
    ("ringbuf-read", {"device": "c3", "size": 100, "format": "base64"}),
    ("ringbuf-read", {"device": "c3", "size": 0}),
    ("ringbuf-read", {"device": "ch0", "size": 10}),
    ("ringbuf-read", {"device": "zz", "size": 10}),
    ("ringbuf-write", {"device": "ch0", "data": "x"}),
    ("chardev-send-break", {"id": "zz"}),
    ("device_add", {"driver": "zz", "id": "x"}),
    ("device_add", {"id": "x"}),
    ("device_add", {"driver": "virtio-net-pci", "id": "9x"}),
    ("device_add", {"driver": "virtio-rng-pci", "id": "x", "bus": "zz"}),
    ("device_del", {"id": "zz"}),
    ("device_del", {}),
    ("netdev_add", {"id": "n1"}),
    ("netdev_add", {"type": "user"}),
    ("netdev_add", {"type": "user", "id": "9"}),
    ("netdev_add", {"type": "user", "id": "n1", "restrict": True}),
    ("netdev_del", {"id": "zz"}),
    ("netdev_del", {"id": "n1"}),
    ("netdev_del", {"id": "n1"}),
    ("object-add", {"id": "o"}),
    ("object-add", {"qom-type": "rng-random"}),
    ("object-add", {"qom-type": "rng-random", "id": "o"}),
    ("object-add", {"qom-type": "rng-random", "id": "o"}),
    ("object-add", {"qom-type": "iothread"}),
    ("object-add", {"qom-type": "iothread", "id": "0io"}),
    ("object-add", {"qom-type": "iothread", "id": "io1", "poll-max-ns": 0, "aio-max-batch": 0}),
    ("object-add", {"qom-type": "iothread", "id": "io1"}),
    ("query-iothreads", {}),
    ("qom-get", {"path": "/objects/io1", "property": "type"}),
    ("qom-get", {"path": "/objects/io1", "property": "poll-max-ns"}),
    ("qom-get", {"path": "/objects/io1", "property": "nope"}),
    ("qom-get", {"path": "disk0", "property": "iothread"}),
    ("qom-get", {"path": "/objects/io0", "property": "poll-max-ns"}),
    ("qom-get", {"path": "/objects/io0", "property": "thread-pool-min"}),
    ("qom-get", {"path": "/objects/io0", "property": "thread-pool-max"}),
    ("object-del", {"id": "io1"}),
    ("object-del", {"id": "io1"}),
    ("object-del", {"id": "zz"}),
    ("object-del", {"id": "mem0"}),
    ("object-del", {"id": "o"}),
    ("query-rx-filter", {}),
    ("query-rx-filter", {"name": "nic0"}),
    ("query-rx-filter", {"name": "n0"}),
    ("query-rx-filter", {"name": "zz"}),
    ("query-rx-filter", {"name": 1}),
    ("query-pci", {}),
    ("query-block", {}),
    ("query-blockstats", {}),
    ("query-named-block-nodes", {}),
    ("block_resize", {"device": "zz", "size": 1024}),
    ("block_resize", {"size": 1024}),
    ("block_resize", {"device": "d0", "size": -1024}),
    ("set_link", {"name": "zz", "up": False}),
    ("set_link", {"name": "nic0", "up": False}),
    ("set_link", {"name": "n0", "up": True}),
    ("set_link", {"name": "n0"}),
    ("stop", {"now": True}),
    ("stop", {}),
    ("query-commands", {}),
    ("human-monitor-command", {}),
    ("human-monitor-command", {"command-line": "info balloon"}),
    ("human-monitor-command", {"command-line": "info memory_size_summary"}),
    ("human-monitor-command", {"command-line": "info status"}),
]

# Members of one side only: evisor's QEMU is small, and tells more of some things.
OPTIONAL = {"query-commands", "query-chardev-backends"}


# Nothing that QEMU has not, and not all that it has.
PARTS = {"query-block", "query-blockstats", "query-named-block-nodes", "query-pci"}


def is_part(ours, theirs):
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and all(
            key in theirs and is_part(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and ours and theirs:
        return is_part(ours[0], theirs[0])
    return type(ours) is type(theirs)


def shape(value):
    """Names and types, without values; of lists the first entry stands for all."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in sorted(value.items())
                if key not in ("node-id", "die-id")}  # what QEMU tells of only by -smp and NUMA
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return type(value).__name__


def members_of(entries):
    """Each member that any of them has, and of which type."""
    return {(key, json.dumps(shape(value))) for entry in entries for key, value in entry.items()
            if value != []}


@pytest.mark.parametrize("command", ["query-machines", "query-cpu-definitions"])
def test_what_there_is_is_told_as_qemu_tells_it(evisor, qemu, command):
    ours, theirs = (monitor.ask(command)["return"] for monitor in (evisor, qemu))
    needed = {key for key in theirs[0] if all(key in entry for entry in theirs)}
    assert all(needed <= set(entry) for entry in ours), needed
    assert members_of(ours) <= members_of(theirs)
    assert len({entry["name"] for entry in ours}) == len(ours) > 1


def test_options_are_told_as_qemu_tells_them(evisor, qemu):
    """The same names in the same groups are of the same types."""
    ours, theirs = ({entry["option"]: {one["name"]: one["type"] for one in entry["parameters"]}
                     for entry in monitor.ask("query-command-line-options")["return"]}
                    for monitor in (evisor, qemu))
    assert set(ours) <= set(theirs)
    for group, parameters in ours.items():
        common = {name: kind for name, kind in parameters.items() if name in theirs[group]}
        assert common == {name: theirs[group][name] for name in common}, group
    assert {"type", "accel", "usb"} <= set(ours["machine"]) and ours["netdev"] == {}
    assert {"throttling.iops-size", "node-name", "werror"} <= set(ours["drive"])
    one = evisor.ask("query-command-line-options", option="smp-opts")["return"]
    assert [entry["option"] for entry in one] == ["smp-opts"]
    for monitor in (evisor, qemu):
        error = monitor.ask("query-command-line-options", option="zz")["error"]
        assert error == {"class": "GenericError", "desc": "invalid option name: zz"}


def test_the_default_machine_has_a_cpu_that_there_is(evisor):
    machines = evisor.ask("query-machines")["return"]
    default, = [entry for entry in machines if entry.get("is-default")]
    assert default["alias"] == "q35"
    types = [entry["typename"] for entry in evisor.ask("query-cpu-definitions")["return"]]
    plugged = {entry["type"] for entry in evisor.ask("query-hotpluggable-cpus")["return"]}
    assert plugged == {default["default-cpu-type"]} <= set(types)


BACKENDS = {
    "of -m": [["-m", "64"], ["-m", "64", "-mem-prealloc"], ["-m", "64", "-mem-path", "FOLDER"]],
    "of an object": [
        ["-object", f"memory-backend-{words}", "-machine", "q35,memory-backend=a"] for words in (
            "ram,id=a,size=64M,prealloc=on", "memfd,id=a,size=64M", "memfd,id=a,size=64M,share=off",
            "ram,id=a,size=64M,share=on", "file,id=a,size=64M,mem-path=FOLDER",
            "file,id=a,size=64M,mem-path=FOLDER/mem,share=on")],
    "beside": [["-m", "64", "-object", "memory-backend-memfd,id=a,size=64M",
                "-object", "memory-backend-ram,id=b,size=32M,prealloc=on",
                "-object", "memory-backend-file,id=c,size=32M,mem-path=FOLDER,share=off"]],
}


@pytest.mark.parametrize("arguments", [words for kind in BACKENDS.values() for words in kind],
                         ids=" ".join)
def test_memory_backends_are_told_as_asked_for(tmp_path, arguments):
    if not QEMU:
        pytest.skip("there is no qemu-system-x86_64 to compare with")
    told = []
    for program, name, more in ((BUILD / "evisor", "e", []), (QEMU, "q", ["-accel", "tcg"])):
        folder = tmp_path / name
        folder.mkdir()
        words = [word.replace("FOLDER", str(folder)) for word in arguments]
        (folder / "d").write_bytes(bytes(65536))
        process = subprocess.Popen([str(program), "-nodefaults", "-display", "none", "-S", "-hda", "d",
                                    "-qmp", "unix:m,server=on,wait=off", *more, *words], cwd=folder)
        try:
            monitor = Monitor(folder / "m")
            memory = sorted(monitor.ask("query-memdev")["return"], key=lambda one: one["id"])
            text = monitor.ask("human-monitor-command", **{"command-line": "info memdev"})["return"]
            types = {item["name"]: item["type"] for item in
                     monitor.ask("qom-list", path="/objects")["return"] if item["name"] != "type"}
            types.pop("pc.ram", None)  # QEMU keeps its own among the objects
            told.append((memory, sorted(part.strip() for part in text.split("memory backend: ")), types))
        finally:
            process.kill()
            process.wait()
    assert told[0] == told[1]


def test_the_same_conversation(evisor, qemu):
    differences = []
    for command, arguments in SAME:
        ours, theirs = (monitor.ask(command, **arguments) for monitor in (evisor, qemu))
        if "error" in theirs or "error" in ours:
            same = ours == theirs
        elif command in PARTS:
            same = is_part(shape(ours), shape(theirs))
        else:
            same = command in OPTIONAL or shape(ours) == shape(theirs)
        if not same:
            differences.append(f"{command} {json.dumps(arguments)}\n  evisor {json.dumps(ours)[:400]}"
                               f"\n  QEMU   {json.dumps(theirs)[:400]}")
    assert not differences, "\n".join(differences)


def test_the_same_filters(evisor, qemu):
    """But for broadcast-allowed, in which QEMU 7.2 tells the opposite of what its schema says."""
    ours, theirs = (monitor.ask("query-rx-filter")["return"] for monitor in (evisor, qemu))
    allowed = [nic.pop("broadcast-allowed") for nic in ours + theirs]
    assert ours == theirs and len(ours) == 1
    assert allowed == [True, False]


# The human monitor: the very same text.
TEXTS = ["info balloon", "info status", "info uuid", "info memory_size_summary", "info memory-devices",
         "balloon 100", "info balloon", "set_link zz off", "closefd zz", "system_wakeup", "info name",
         "info cpus", "qom-list /machine/nonsense", "qom-get nic0 type", "qom-get nic0 nope",
         "info usernet", "hostfwd_remove tcp::9", "info iothreads", "object_add iothread,id=io0",
         "object_add iothread", "object_add iothread,id=io2,poll-max-ns=0", "object_del io2",
         "object_del io2", "info iothreads"]


def test_the_same_texts(evisor, qemu):
    differences = []
    for line in TEXTS:
        ours, theirs = (re.sub(r"thread_id=\d+", "thread_id=N", monitor.ask(
            "human-monitor-command", **{"command-line": line})["return"])
            for monitor in (evisor, qemu))
        if ours != theirs:
            differences.append(f"{line}\n  evisor {ours!r}\n  QEMU   {theirs!r}")
    assert not differences, "\n".join(differences)


def test_all_commands_are_in_the_schema_and_check_their_arguments(evisor):
    schema = evisor.ask("query-qmp-schema")["return"]
    types = {entry["name"]: entry for entry in schema}
    harmless = 0
    for command in (entry["name"] for entry in evisor.ask("query-commands")["return"]):
        entry = types[command]
        assert entry["meta-type"] == "command"
        members = types[entry["arg-type"]]["members"]
        reply = evisor.ask(command, **{"no-such-argument": 1}) if command != "quit" else None
        takes_any = any(member["name"] == "*" for member in members)
        if reply and not takes_any and command != "qmp_capabilities":
            assert reply["error"]["class"] == "GenericError", command
            assert "unexpected" in reply["error"]["desc"] or "missing" in reply["error"]["desc"]
            harmless += 1
    assert harmless > 40


def commands_of_both(evisor, qemu):
    return [entry["name"] for entry in evisor.ask("query-commands")["return"]
            if entry["name"] in qemu.schema.types]


# What differs on purpose.
OUR_OWN = re.compile(r"^query-stats(-schemas)?\[\]\.provider: evisor is not there$")


def test_answers_have_the_types_that_qemu_gives_them(evisor, qemu):
    """Each type that evisor's schema tells of an answer, beside QEMU's of the same command."""
    found, told = [], 0
    for name in commands_of_both(evisor, qemu):
        answer = evisor.schema.answer(name)
        told += answer not in ("0", "any")
        found += evisor.schema.differences(qemu.schema, answer, qemu.schema.answer(name), name, set())
    assert [line for line in found if not OUR_OWN.match(line)] == []
    assert told > 30


def test_every_question_is_answered_as_the_schema_tells(evisor, qemu):
    """The monitors hold all answers against the schema; here all are given that need no argument."""
    for monitor in (evisor, qemu):
        asked = 0
        for name, entry in monitor.schema.types.items():
            members = monitor.schema.types.get(entry.get("arg-type"), {}).get("members", [])
            if entry["meta-type"] != "command" or not name.startswith("query-") or \
                    any("default" not in member for member in members):
                continue
            asked += "return" in monitor.ask(name)
        assert asked > 20
    for path in ("/machine", "/machine/peripheral", "/machine/unattached", "/objects"):
        assert "return" in evisor.ask("qom-list", path=path)
    for entry in evisor.ask("qom-list-types")["return"]:
        evisor.ask("qom-list-properties", typename=entry["name"])
        evisor.ask("device-list-properties", typename=entry["name"])


def test_passed_descriptors(evisor, tmp_path):
    image = tmp_path / "passed.raw"
    image.write_bytes(bytes(1 << 20))
    with open(image, "r+b") as file:
        added = evisor.pass_fd("add-fd", file.fileno(), opaque="rdwr:disk")["return"]
        named = evisor.pass_fd("getfd", file.fileno(), fdname="later")
    assert named == {"return": {}}
    (known,) = evisor.ask("query-fdsets")["return"]
    assert known["fdset-id"] == added["fdset-id"]
    assert known["fds"] == [{"fd": added["fd"], "opaque": "rdwr:disk"}]
    path = f"/dev/fdset/{added['fdset-id']}"
    assert evisor.ask("blockdev-add", driver="raw", **{"node-name": "passed"},
                      file={"driver": "file", "filename": path}) == {"return": {}}
    nodes = evisor.ask("query-named-block-nodes")["return"]
    assert path in [node["image"]["filename"] for node in nodes]
    assert evisor.ask("blockdev-del", **{"node-name": "passed"}) == {"return": {}}
    assert evisor.ask("remove-fd", **{"fdset-id": added["fdset-id"]}) == {"return": {}}
    assert evisor.ask("query-fdsets") == {"return": []}
    assert evisor.ask("closefd", fdname="later") == {"return": {}}
    assert evisor.ask("closefd", fdname="later")["error"]["desc"] == \
        "File descriptor named 'later' not found"
    reply = evisor.ask("blockdev-add", driver="raw", **{"node-name": "gone"},
                       file={"driver": "file", "filename": path})
    assert "error" in reply


def test_a_read_only_descriptor_is_no_writable_disk(evisor, tmp_path):
    image = tmp_path / "ro.raw"
    image.write_bytes(bytes(1 << 20))
    with open(image, "rb") as file:
        added = evisor.pass_fd("add-fd", file.fileno(), **{"fdset-id": 7})["return"]
    assert added["fdset-id"] == 7
    reply = evisor.ask("blockdev-add", driver="raw", **{"node-name": "ro"},
                       file={"driver": "file", "filename": "/dev/fdset/7"})
    assert "descriptor" in reply["error"]["desc"]
    assert evisor.ask("blockdev-add", driver="raw", **{"node-name": "ro", "read-only": True},
                      file={"driver": "file", "filename": "/dev/fdset/7"}) == {"return": {}}
    assert evisor.ask("blockdev-del", **{"node-name": "ro"}) == {"return": {}}
    assert evisor.ask("remove-fd", **{"fdset-id": 7, "fd": added["fd"]}) == {"return": {}}


def ends(process):
    return process.wait(60) == 0


def socat(path, *lines, half_close=False):
    """What `socat - UNIX-CONNECT:path` prints when the lines are piped in."""
    command = ["socat", "-t", "60" if half_close else "5", "-", f"UNIX-CONNECT:{path}"]
    return subprocess.run(command, input="".join(line + "\n" for line in lines), text=True,
                          capture_output=True, timeout=60, check=True).stdout


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def machine(tmp_path):
    """machine(*arguments): evisor with a human monitor; (process, monitor's path)."""
    processes = []

    def begin(*arguments, monitor=True):
        path = tmp_path / "monitor"
        words = ["-monitor", f"unix:{path},server=on,wait=off"] if monitor else []
        process, _ = start(BUILD / "evisor", tmp_path, "m", *words, *arguments)
        processes.append(process)
        wait_for(tmp_path / "m.qmp")
        return process, path

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def test_nomad_writes_and_never_reads(machine):
    """drivers/qemu/driver.go: connect, write one line, close."""
    process, path = machine()
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.sendall(b"system_powerdown\n")
    client.close()
    other = socket.socket(socket.AF_UNIX)
    other.connect(str(path))
    other.sendall(b"quit\n")
    other.close()
    assert ends(process)


def test_vagrant_qemu_reads_to_the_end(machine, tmp_path):
    """driver.rb: -chardev and -mon in readline mode; write, close the sending side, read all."""
    path = tmp_path / "vagrant"
    process, _ = machine("-chardev", f"socket,id=mon0,path={path},server=on,wait=off",
                         "-mon", "chardev=mon0,mode=readline", "-parallel", "null", "-vga", "none",
                         monitor=False)
    wait_for(path)

    def send(line):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(line)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        return answer

    assert b"(qemu)" in send(b"system_powerdown\n")
    send(b"quit\n")
    assert ends(process)


@pytest.mark.skipif(not shutil.which("socat"), reason="socat is missing")
def test_socat_scripts(machine):
    process, path = machine()
    answer = socat(path, "info status", "info balloon", half_close=True)
    assert "VM status: paused (prelaunch)" in answer and "balloon: actual=256" in answer
    one_liner = subprocess.run(f"echo info version | socat - unix-connect:{path}", shell=True,
                               capture_output=True, text=True, timeout=60, check=True).stdout
    assert "evisor" in one_liner
    qmp = path.with_name("m.qmp")
    lines = socat(qmp, '{"execute":"qmp_capabilities"}', '{"execute":"query-status","id":"s"}',
                  half_close=True).splitlines()
    assert json.loads(lines[0])["QMP"] and json.loads(lines[1]) == {"return": {}}
    assert json.loads(lines[2])["id"] == "s"
    socat(path, "quit", half_close=True)
    assert ends(process)


@pytest.fixture
def with_qcow2(tmp_path):
    """(monitor, image) of a machine whose one disk can have snapshots."""
    image, path = tmp_path / "disk.qcow2", tmp_path / "q.qmp"
    qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    process = subprocess.Popen(
        [str(BUILD / "evisor"), "-S", "-display", "none", "-nodefaults", "-drive",
         f"file={image},format=qcow2,if=none,id=d0", "-device", "virtio-blk-pci,drive=d0,id=disk0",
         "-qmp", f"unix:{path},server=on,wait=off"], stdin=subprocess.DEVNULL)
    yield Monitor(path), image
    process.kill()
    process.wait()


def test_lima_asks_for_snapshots_by_human_monitor_command(with_qcow2):
    evisor, image = with_qcow2

    def run(line):
        return evisor.ask("human-monitor-command", **{"command-line": line})["return"]
    assert run("savevm tag").startswith("Error: no block device can store vmstate for snapshot")
    assert run("info snapshots") == "There is no snapshot available.\r\n"
    assert run("loadvm tag") == "Error: Snapshot 'tag' does not exist in one or more devices\r\n"
    # Of the disks alone there can be snapshots, and they are seen and deleted.
    assert evisor.ask("blockdev-snapshot-internal-sync", device="d0", name="tag") == {"return": {}}
    assert evisor.ask("query-block")["return"][0]["inserted"]["image"]["snapshots"][0]["name"] == "tag"
    table = run("info snapshots").split("\r\n")
    assert table[0] == "List of snapshots present on all disks:"
    assert table[1].split()[:2] == ["ID", "TAG"] and table[2].split()[:4] == ["--", "tag", "0", "B"]
    assert run("loadvm tag").startswith("Error: This is a disk-only snapshot.")
    assert run("delvm tag") == "" == run("delvm tag")
    assert run("info snapshots") == "There is no snapshot available.\r\n"
    assert "tag" not in qemu_img("snapshot", "-l", "-U", image).out


def test_packer_looks_for_its_nic(evisor):
    """qmp.go: children of /machine/peripheral whose type is a NIC, then netdev and mac."""
    children = evisor.ask("qom-list", path="/machine/peripheral")["return"]
    nics = [child["name"] for child in children if child["type"] == "child<virtio-net-pci>"]
    assert nics == ["nic0"]
    path = f"/machine/peripheral/{nics[0]}"
    assert evisor.ask("qom-get", path=path, property="netdev")["return"] == "n0"
    assert evisor.ask("qom-get", path=path, property="mac")["return"] == "52:54:00:12:34:56"
    assert evisor.ask("qom-list", path="/machine/peripheral-anon")["return"][0]["name"] == "type"


def test_a_monitor_that_connects_by_itself(machine, tmp_path):
    """-chardev socket without server=on, reconnect=: the machine is first, its manager comes."""
    path = tmp_path / "manager"
    process, _ = machine("-chardev", f"socket,id=mon0,path={path},reconnect=1",
                         "-mon", "chardev=mon0,mode=control")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(60)
    for _ in range(2):
        client, _address = listener.accept()
        client.settimeout(60)
        stream = client.makefile("r")
        assert "QMP" in json.loads(stream.readline())
        client.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-target"}')
        assert json.loads(stream.readline()) == {"return": {}}
        assert json.loads(stream.readline()) == {"return": {"arch": "x86_64"}}
        stream.close()
        client.close()
    client, _address = listener.accept()
    client.sendall(b'{"execute":"qmp_capabilities"}{"execute":"quit"}')
    assert ends(process)
    client.close()


def test_several_sockets_and_kinds_of_chardevs(machine, tmp_path):
    os.mkfifo(tmp_path / "pipe.in")
    os.mkfifo(tmp_path / "pipe.out")
    process, path = machine(
        "-qmp", f"unix:{tmp_path}/two,server=on,wait=off",
        "-chardev", f"pipe,id=pipe0,path={tmp_path}/pipe", "-mon", "chardev=pipe0,mode=readline",
        "-chardev", f"file,id=file0,path={tmp_path}/log", "-serial", "chardev:file0",
        "-chardev", "ringbuf,id=ring0,size=4k", "-chardev", "pty,id=pty0")
    one, two = Monitor(path.with_name("m.qmp")), Monitor(tmp_path / "two")
    labels = {entry["label"]: entry for entry in one.ask("query-chardev")["return"]}
    assert labels["ring0"]["filename"] == "ringbuf" and labels["pty0"]["filename"].startswith("pty:")
    assert labels["pipe0"]["filename"] == "pipe" and labels["file0"]["filename"] == "file"
    two.ask("cont")
    one.ask("query-status")
    assert "RESUME" in [event["event"] for event in one.events]
    with open(tmp_path / "pipe.in", "w") as writer:
        writer.write("quit\n")
    assert ends(process)


def test_devices_come_and_go_by_the_human_monitor(evisor):
    def say(line):
        return evisor.ask("human-monitor-command", **{"command-line": line})["return"]

    def names():
        listing = evisor.ask("qom-list", path="/machine/peripheral")["return"]
        return {entry["name"] for entry in listing}

    def deleted():
        return [event["data"].get("device") for event in evisor.events
                if event["event"] == "DEVICE_DELETED"]

    assert say("chardev-add ringbuf,id=hr,size=4096") == ""
    assert say("device_add virtserialport,id=hp,chardev=hr,name=org.h") == ""
    assert "busy" in say("chardev-remove hr")
    assert say("device_add virtio-rng-pci,id=hrng") == ""
    assert {"hp", "hrng"} <= names()
    assert say("device_del hp") == "" and say("device_del hrng") == ""
    assert not {"hp", "hrng"} & names()
    assert "hp" in deleted() and "hrng" in deleted()
    assert say("chardev-remove hr") == ""
    assert "Only one balloon" in say("device_add virtio-balloon-pci,id=second")
    assert say("object_add memory-backend-ram,id=hm,size=1G") == ""
    assert say("device_add virtio-mem-pci,id=hv,memdev=hm") == ""
    assert '"hv"' in say("info memory-devices")
    assert "cannot be unplugged" in say("device_del hv")
    assert "in use" in say("object_del hm")
    assert "not found" in say("device_del nobody")


def test_a_disk_of_two_nodes_as_libvirt_writes_it(tmp_path):
    image = tmp_path / "i.qcow2"
    subprocess.run([str(BUILD / "evisor-img"), "create", "-q", "-f", "qcow2", image, "8M"],
                   check=True)
    arguments = [
        "-blockdev", json.dumps({"driver": "file", "filename": str(image), "node-name": "s1",
                                 "auto-read-only": True, "discard": "unmap"}),
        "-blockdev", json.dumps({"node-name": "f1", "read-only": True, "discard": "unmap",
                                 "driver": "qcow2", "file": "s1"}),
        "-device", json.dumps({"driver": "virtio-blk-pci", "addr": "0x9", "drive": "f1", "id": "d1",
                               "bootindex": 1})]
    programs = [(BUILD / "evisor", [])] + ([(QEMU, ["-machine", "q35"])] if QEMU else [])
    seen = []
    for index, (program, more) in enumerate(programs):
        process, path = start(program, tmp_path / str(index), "m", *more, *arguments)
        try:
            monitor = Monitor(path)
            (block,) = [entry for entry in monitor.ask("query-block")["return"]
                        if entry.get("inserted", {}).get("node-name") == "f1"]
            (slot,) = [entry["slot"] for bus in monitor.ask("query-pci")["return"]
                       for entry in bus["devices"] if entry["qdev_id"] == "d1"]
            again = {"driver": "file", "node-name": "s1", "filename": str(image)}
            seen.append((block["qdev"], block["device"], block["inserted"]["ro"],
                         block["inserted"]["drv"], block["inserted"]["image"]["virtual-size"], slot,
                         monitor.ask("blockdev-del", **{"node-name": "f1"}),
                         monitor.ask("blockdev-del", **{"node-name": "s1"})["error"]["class"],
                         monitor.ask("blockdev-add", **again)["error"]))
        finally:
            process.kill()
            process.wait()
    assert seen[0][5] == 9 and seen[0] == seen[-1]
