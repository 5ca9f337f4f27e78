# SPDX-License-Identifier: MIT
"""Jobs, snapshots, bitmaps and exports by QMP on a machine whose disk is written to all the while
(over its own NBD server), with the contents compared at the end; and killed at any moment."""
import json
import os
import random
import select
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest

from conftest import BUILD, assert_clean, qemu_img, qemu_io
from introspection import Schema

EVISOR = BUILD / "evisor"
SIZE = 8 << 20
UNIT = 65536
DEADLINE_S = 60


class Machine:
    """evisor, never started: only its disks live."""

    def __init__(self, folder, *disks, program=EVISOR):
        words = [program, "-accel", "soft" if program == EVISOR else "tcg", "-m", "64M", "-S", "-nographic", "-serial", "none",
                 "-monitor", "none", "-qmp", "unix:qmp,server=on,wait=off", *disks]
        self.folder = folder
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen(words, cwd=folder, stderr=self.log,
                                        stdin=subprocess.DEVNULL)
        self.socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                self.socket.connect(os.path.relpath(folder / "qmp"))
                break
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, \
                    (folder / "log").read_text()
                time.sleep(0.02)
        # Not "rw": writing throws away what was read ahead.
        self.file = self.socket.makefile("r")
        self.events = []
        self.schema = None
        assert "QMP" in json.loads(self.file.readline())
        self.ok("qmp_capabilities")
        self.schema = Schema(self.ok("query-qmp-schema"))

    def read(self):
        line = self.file.readline()
        assert line, (self.folder / "log").read_text()
        message = json.loads(line)
        if "event" in message and self.schema:
            self.schema.check_event(message)
        return message

    def ask(self, command, arguments=None):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments or {}}).encode())
        while True:
            answer = self.read()
            if "event" in answer:
                self.events.append(answer)
                continue
            if "return" in answer and self.schema:
                self.schema.check_answer(command, answer["return"])
            return answer

    def ok(self, command, **arguments):
        answer = self.ask(command, {k.replace("__", "-"): v for k, v in arguments.items()})
        assert "return" in answer, (command, answer)
        return answer["return"]

    def refused(self, words, command, **arguments):
        answer = self.ask(command, {k.replace("__", "-"): v for k, v in arguments.items()})
        assert words in answer["error"]["desc"], (command, answer)

    def until(self, name, **data):
        """The next such event; those before it are passed over."""
        while True:
            event = self.events.pop(0) if self.events else self.read()
            if event["event"] == name and data.items() <= event["data"].items():
                return event["data"]

    def job_ends(self, name):
        done = self.until("BLOCK_JOB_COMPLETED", device=name)
        self.until("JOB_STATUS_CHANGE", id=name, status="null")
        return done

    def quit(self):
        self.ask("quit")
        assert self.process.wait(DEADLINE_S) == 0
        self.close()

    def kill(self):
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.close()

    def close(self):
        self.socket.close()
        self.file.close()
        self.log.close()


@pytest.fixture
def machine(tmp_path):
    made = []

    def make(*disks):
        made.append(Machine(tmp_path, *disks))
        return made[-1]
    yield make
    for one in made:
        if one.process.poll() is None:
            one.kill()


class Load:
    """A client that writes to the exported disk as a guest would, and knows what is there."""

    def __init__(self, machine, seed=1):
        machine.ok("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd"}})
        machine.ok("nbd-server-add", device="d", writable=True)
        path = urllib.parse.quote(os.path.abspath(machine.folder / "nbd"))
        self.process = subprocess.Popen(
            ["qemu-io", "-f", "raw", f"nbd+unix:///d?socket={path}"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
        self.random = random.Random(seed)
        self.model = {}
        self.flushed = {}
        self.count = 0
        self.stopped = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def say(self, line, answer):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        while True:
            got = self.process.stdout.readline()
            if not got:
                return False
            if answer in got or "failed" in got:
                return "failed" not in got

    def run(self):
        while not self.stopped:
            unit = self.random.randrange(SIZE // UNIT)
            value = self.random.randrange(1, 255)
            # Until it is answered, the old and the new contents are right.
            old = self.model.get(unit, {0})
            self.model[unit] = old | {value}
            # Every other one is on the medium when it is answered.
            durable = "-f " if self.count % 2 else ""
            try:
                if not self.say(f"write {durable}-P {value} {unit * UNIT} {UNIT}", "ops"):
                    return
                self.model[unit] = {value}
                if durable:
                    self.flushed[unit] = {value}
                self.count += 1
            except OSError:
                return

    def wait_for(self, more):
        goal = self.count + more
        deadline = time.monotonic() + DEADLINE_S
        while self.count < goal:
            assert time.monotonic() < deadline and self.thread.is_alive()
            time.sleep(0.005)

    def stop(self):
        self.stopped = True
        self.thread.join(DEADLINE_S)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(DEADLINE_S)


def make_chain(folder):
    qemu_img("create", "-q", "-f", "qcow2", folder / "base", str(SIZE))
    qemu_io(folder / "base", f"write -P 1 0 {SIZE}", options=("-f", "qcow2"))
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", cwd=folder)
    qemu_io(folder / "top", f"write -P 2 0 {SIZE // 4}", options=("-f", "qcow2"))


def drive(name="top", more=""):
    return ("-drive", f"if=virtio,id=d,file={name},format=qcow2{more}")


def unit_values(path, format="qcow2"):
    """What each unit holds, as a set of byte values."""
    raw = str(path) + ".raw"
    done = qemu_img("convert", "-f", format, "-O", "raw", path, raw)
    assert done.status == 0, done
    with open(raw, "rb") as file:
        data = file.read()
    os.unlink(raw)
    return [set(data[at:at + UNIT]) for at in range(0, SIZE, UNIT)]


def initial(unit):
    return 2 if unit < SIZE // 4 // UNIT else 1


def assert_holds(path, model):
    for unit, values in enumerate(unit_values(path)):
        assert values <= model.get(unit, {initial(unit)}), f"unit {unit} of {path}"
        assert len(values) == 1 or len(model[unit]) > 1


def test_jobs_under_load(machine, tmp_path):
    make_chain(tmp_path)
    box = machine(*drive())
    load = Load(box)
    load.wait_for(5)
    box.ok("blockdev-snapshot-sync", device="d", snapshot__file="s1")
    load.wait_for(5)
    box.ok("blockdev-snapshot-sync", device="d", snapshot__file="s2", snapshot__node__name="n2")
    load.wait_for(5)
    # An image in the middle goes away; the one above names the one below.
    box.ok("block-commit", device="d", top="s1", base="top")
    assert box.job_ends("d")["type"] == "commit"
    assert "backing file: top" in qemu_img("info", "-U", tmp_path / "s2").out
    load.wait_for(5)
    box.ok("block-stream", device="d", base="base")
    assert "error" not in box.job_ends("d")
    assert "backing file: base" in qemu_img("info", "-U", tmp_path / "s2").out
    box.ok("drive-mirror", device="d", target="mirror", sync="full", format="qcow2")
    box.until("BLOCK_JOB_READY")
    load.wait_for(5)
    box.ok("block-job-complete", device="d")
    box.job_ends("d")
    assert box.ok("query-block")[0]["inserted"]["file"] == "mirror"
    load.wait_for(5)
    box.ok("blockdev-snapshot-sync", device="d", snapshot__file="s3")
    load.wait_for(5)
    box.ok("block-commit", device="d", job__id="active")
    box.until("BLOCK_JOB_READY")
    load.wait_for(5)
    box.ok("job-complete", id="active")
    box.job_ends("active")
    load.wait_for(5)
    load.stop()
    box.quit()
    assert_holds(tmp_path / "mirror", load.model)
    for image in ("mirror", "s2", "s3", "base"):
        assert_clean(tmp_path / image)


def test_backups_of_one_moment(machine, tmp_path):
    make_chain(tmp_path)
    box = machine(*drive())
    load = Load(box)
    load.wait_for(10)
    box.ok("block-dirty-bitmap-add", node="d", name="b", persistent=True)
    box.ok("transaction", actions=[
        {"type": "block-dirty-bitmap-clear", "data": {"node": "d", "name": "b"}},
        {"type": "drive-backup", "data": {"device": "d", "target": "full", "sync": "full",
                                          "format": "qcow2", "job-id": "full"}}])
    box.job_ends("full")
    load.wait_for(10)
    load.stop()
    # With the disk at rest, what the bitmap noted makes the full backup equal to it.
    box.ok("drive-backup", device="d", target="full", sync="incremental", bitmap="b",
           mode="existing", format="qcow2", job__id="more")
    box.job_ends("more")
    box.quit()
    assert qemu_img("compare", tmp_path / "full", tmp_path / "top").status == 0
    assert_clean(tmp_path / "full")
    assert_clean(tmp_path / "top")
    bitmaps = qemu_img("info", "--output=json", tmp_path / "top").json()
    assert bitmaps["format-specific"]["data"]["bitmaps"][0]["name"] == "b"


def test_all_or_nothing(machine, tmp_path):
    make_chain(tmp_path)
    box = machine(*drive())
    snapshot = {"type": "blockdev-snapshot-sync",
                "data": {"device": "d", "snapshot-file": "s1", "format": "qcow2"}}
    added = {"type": "block-dirty-bitmap-add", "data": {"node": "d", "name": "b"}}
    box.refused("aborted using Abort action", "transaction",
                actions=[snapshot, added, {"type": "abort", "data": {}}])
    box.refused("Cannot find device='x'", "transaction", actions=[
        added, snapshot, {"type": "drive-backup",
                          "data": {"device": "x", "target": "t", "sync": "full"}}])
    box.refused("does not accept value 'what'", "transaction",
                actions=[{"type": "what", "data": {}}])
    assert box.ok("query-block")[0]["inserted"]["file"] == "top"
    box.refused("Dirty bitmap 'b' not found", "block-dirty-bitmap-clear", node="d", name="b")
    # It is still written to, and nobody holds what was made in vain.
    load = Load(box)
    load.wait_for(3)
    load.stop()
    box.quit()
    assert_holds(tmp_path / "top", load.model)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("job", ["mirror", "commit", "active", "stream", "backup"])
def test_killed_at_any_moment(machine, tmp_path, job, seed):
    make_chain(tmp_path)
    box = machine(*drive())
    load = Load(box, seed)
    load.wait_for(3)
    if job in ("commit", "active"):
        box.ok("blockdev-snapshot-sync", device="d", snapshot__file="s1")
    if job == "commit":
        box.ok("blockdev-snapshot-sync", device="d", snapshot__file="s2")
        load.wait_for(2)
    {"mirror": lambda: box.ok("drive-mirror", device="d", target="t", sync="full"),
     "commit": lambda: box.ok("block-commit", device="d", top="s1"),
     "active": lambda: box.ok("block-commit", device="d"),
     "stream": lambda: box.ok("block-stream", device="d"),
     "backup": lambda: box.ok("drive-backup", device="d", target="t", sync="full")}[job]()
    for _ in range(random.Random(seed).randrange(60)):
        if select.select([box.socket], [], [], 0.001)[0]:
            break
    box.kill()
    load.stop()
    image = {"commit": "s2", "active": "s1"}.get(job, "top")
    # What a killed process had in flight keeps its files open for a moment.
    deadline = time.monotonic() + DEADLINE_S
    while "lock" in (checked := qemu_img("check", tmp_path / image)).err:
        assert time.monotonic() < deadline, checked
        time.sleep(0.02)
    assert checked.status in (0, 3), checked
    for unit, values in enumerate(unit_values(tmp_path / image)):
        flushed = load.flushed.get(unit)
        known = load.model.get(unit, {initial(unit)})
        if flushed and len(known) == 1 and known == flushed:
            assert values == flushed, f"unit {unit}: flushed data is lost"


def test_a_mirror_that_writes_to_both(machine, tmp_path):
    make_chain(tmp_path)
    box = machine(*drive())
    load = Load(box)
    box.ok("drive-mirror", device="d", target="m", sync="full", copy__mode="write-blocking")
    box.until("BLOCK_JOB_READY")
    load.wait_for(30)
    load.stop()
    # It has everything already: nothing is left to a cancel.
    box.ok("block-job-cancel", device="d")
    box.job_ends("d")
    box.quit()
    assert qemu_img("compare", tmp_path / "m", tmp_path / "top").status == 0
    assert_holds(tmp_path / "top", load.model)


def test_streams_below_the_top(machine, tmp_path):
    make_chain(tmp_path)
    box = machine(*drive())
    load = Load(box)
    for name in ("s1", "s2", "s3"):
        load.wait_for(4)
        box.ok("blockdev-snapshot-sync", device="d", snapshot__file=name,
               snapshot__node__name=name)
    box.refused("is not in a chain starting from", "block-stream", device="s1", bottom="s2")
    box.refused("cannot be specified at the same time", "block-stream", device="s2", bottom="s1",
                base="top")
    load.wait_for(3)
    # What is between goes into an image that is only read, and itself stands below the top.
    box.ok("block-stream", device="s2", bottom="s1", job__id="low")
    done = box.job_ends("low")
    assert (done["len"], done["offset"]) == (SIZE, SIZE)
    load.wait_for(3)
    assert "backing file: top" in qemu_img("info", "-U", tmp_path / "s2").out
    box.ok("change-backing-file", device="d", image__node__name="s2", backing__file="./top")
    assert "backing file: ./top" in qemu_img("info", "-U", tmp_path / "s2").out
    box.refused("node-name='s1'", "change-backing-file", device="d", image__node__name="s1",
                backing__file="x")
    load.wait_for(3)
    load.stop()
    box.quit()
    assert_holds(tmp_path / "s3", load.model)
    for image in ("s3", "s2", "top"):
        assert_clean(tmp_path / image)


def test_jobs_of_a_group_end_together(machine, tmp_path):
    make_chain(tmp_path)
    for name, size in (("other", SIZE), ("small", SIZE), ("spare", SIZE)):
        qemu_img("create", "-q", "-f", "qcow2", tmp_path / name, str(size))
    box = machine(*drive(), "-drive", "if=virtio,id=o,file=other,format=qcow2")

    def backups(tag, slow, **more):
        box.ok("transaction", properties={"completion-mode": "grouped"}, actions=[
            {"type": "drive-backup", "data": {"device": "d", "target": f"full-d{tag}", "sync": "full",
                                              "job-id": "jd", "speed": slow}},
            {"type": "drive-backup", "data": {"device": "o", "target": f"full-o{tag}", "sync": "full",
                                              "job-id": "jo", **more}}])
    # One waits for the other ...
    backups(1, 65536)
    box.until("JOB_STATUS_CHANGE", id="jo", status="waiting")
    assert {job["id"]: job["status"] for job in box.ok("query-jobs")} == \
        {"jd": "running", "jo": "waiting"}
    box.ok("block-job-set-speed", device="jd", speed=0)
    for name in ("jd", "jo"):
        assert "error" not in box.job_ends(name)
    # ... and goes down with it.
    backups(2, 65536)
    box.until("JOB_STATUS_CHANGE", id="jo", status="waiting")
    box.ok("job-cancel", id="jd")
    box.until("BLOCK_JOB_CANCELLED", device="jo")
    box.until("JOB_STATUS_CHANGE", id="jo", status="null")
    assert box.ok("query-jobs") == []
    # Finalized by hand, by any of them.
    backups(3, 0, **{"auto-finalize": False})
    box.until("BLOCK_JOB_PENDING", id="jo")
    assert {job["status"] for job in box.ok("query-jobs")} == {"pending"}
    box.ok("job-finalize", id="jd")
    box.until("JOB_STATUS_CHANGE", id="jo", status="null")
    box.refused("Cannot find device='x'", "transaction",
                properties={"completion-mode": "grouped"}, actions=[
                    {"type": "drive-backup", "data": {"device": "x", "target": "t",
                                                      "sync": "full"}}])
    box.quit()
    assert qemu_img("compare", tmp_path / "full-d3", tmp_path / "top").status == 0


QEMU = shutil.which("qemu-system-x86_64")
NULL = ("until", "null")
DIALOGUES = {
    "mirror": [("drive-mirror", {"target": "t", "sync": "full"}), ("until", "ready"),
               ("block-job-complete", {}), NULL],
    "blocking": [("drive-mirror", {"target": "t", "sync": "top", "copy-mode": "write-blocking"}),
                 ("until", "ready"), ("block-job-cancel", {}), NULL],
    "commit": [("block-commit", {"top": "mid", "base": "base"}), NULL],
    "active": [("block-commit", {}), ("until", "ready"), ("block-job-complete", {}), NULL],
    "stream": [("block-stream", {}), NULL],
    "backup": [("drive-backup", {"target": "t", "sync": "full", "auto-finalize": False,
                                 "auto-dismiss": False}),
               ("until", "pending"), ("job-dismiss", {"id": "d"}), ("job-finalize", {"id": "d"}),
               ("until", "concluded"), ("query-jobs", None), ("job-cancel", {"id": "d"}),
               ("job-dismiss", {"id": "d"}), NULL],
    "refused": [("block-commit", {"top": "x"}), ("block-commit", {"base": "x"}),
                ("block-commit", {"device": "x"}), ("block-commit", {"base": "top"}),
                ("block-commit", {"top": "base", "base": "mid"}),
                ("block-commit", {"backing-file": "x"}),
                ("block-stream", {"device": "x"}), ("block-stream", {"base": "top"}),
                ("block-stream", {"base": "base", "base-node": "b"}),
                ("block-stream", {"bottom": "x"}), ("block-stream", {"backing-file": "x"}),
                ("drive-mirror", {"target": "t", "sync": "full", "granularity": 1000}),
                ("drive-mirror", {"target": "t", "sync": "full", "replaces": "x"}),
                ("drive-mirror", {"target": "t", "sync": "full", "format": "x"}),
                ("blockdev-mirror", {"target": "d", "sync": "full"}),
                ("blockdev-backup", {"target": "d", "sync": "full"}),
                ("drive-backup", {"target": "t", "sync": "bitmap", "bitmap": "x"}),
                ("drive-backup", {"target": "t", "sync": "incremental", "bitmap": "x"}),
                ("drive-backup", {"target": "t", "sync": "full", "bitmap-mode": "always"}),
                ("drive-mirror", {"target": "t", "sync": "full", "buf-size": -1}),
                ("change-backing-file", {"image-node-name": "x", "backing-file": "y"}),
                ("blockdev-snapshot-delete-internal-sync", {"name": "x"}),
                ("block_set_io_throttle", {"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": -1,
                                           "iops_rd": 0, "iops_wr": 0})],
}


def converse(program, folder, dialogue):
    """All that is heard, but for what depends on time: pauses of QEMU's own."""
    folder.mkdir()
    make_chain(folder)
    os.rename(folder / "top", folder / "mid")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "mid", "-F", "qcow2", "top", cwd=folder)
    box = Machine(folder, *drive(), program=program)
    heard = []
    for command, arguments in dialogue:
        if command == "until":
            while True:
                event = box.events.pop(0) if box.events else box.read()
                event.pop("timestamp")
                heard.append(event)
                if event["data"].get("status") == arguments:
                    break
        elif arguments is None:
            heard.append(box.ask(command))
        else:
            own = command.startswith("job-")
            heard.append(box.ask(command, arguments if own else {"device": "d", **arguments}))
    box.kill()
    pauses, seen = ("paused", "running"), set()
    return [one for one in heard if not one.get("return") == {}
            and not (one.get("data", {}).get("status") in pauses and "running" in seen)
            and not seen.add(one.get("data", {}).get("status"))]


@pytest.mark.skipif(not QEMU, reason="apt-get install qemu-system-x86")
@pytest.mark.parametrize("name", DIALOGUES)
def test_what_qemu_says(tmp_path, name):
    events = [converse(program, tmp_path / str(index), DIALOGUES[name])
              for index, program in enumerate((EVISOR, QEMU))]
    assert events[0] == events[1]


def test_words_of_refusal(machine, tmp_path):
    make_chain(tmp_path)
    box = machine(*drive())
    box.refused("Cannot find device='x' nor node-name='x'", "block-stream", device="x")
    box.refused("Can't find 'x' in the backing chain", "block-commit", device="d", base="x")
    box.refused("does not accept value 'x'", "drive-mirror", device="d", target="t", sync="x")
    box.refused("Invalid job ID '9'", "drive-backup", device="d", target="t", sync="full",
                job__id="9")
    box.refused("valid bitmap name", "drive-backup", device="d", target="t", sync="incremental")
    box.refused("same filename as the backing file", "blockdev-snapshot-sync", device="d",
                snapshot__file="top")
    for verb in ("pause", "resume", "complete", "cancel"):
        answer = box.ask(f"block-job-{verb}", {"device": "x"})
        assert answer["error"] == {"class": "DeviceNotActive", "desc": "Block job 'x' not found"}
        box.refused("Job not found", f"job-{verb}", id="x")
    box.ok("drive-mirror", device="d", target="t", sync="full", speed=65536, job__id="m")
    box.refused("Job ID 'm' already in use", "drive-mirror", device="d", target="u", sync="full",
                job__id="m")
    for command, arguments in (("block-stream", {}), ("block-commit", {}),
                               ("blockdev-snapshot-sync", {"snapshot__file": "u"}),
                               ("block_resize", {"size": 16 << 20})):
        box.refused("is busy: block device is in use by block job: mirror", command, device="d",
                    **arguments)
    box.refused("cannot accept command verb 'complete'", "job-complete", id="m")
    job = box.ok("query-block-jobs")[0]
    assert (job["device"], job["type"], job["speed"], job["ready"]) == ("m", "mirror", 65536, False)
    box.ok("block-job-set-speed", device="m", speed=0)
    box.until("BLOCK_JOB_READY", device="m", len=SIZE, offset=SIZE)
    box.ok("block-job-cancel", device="m")
    assert "error" not in box.job_ends("m")
    assert box.ok("query-jobs") == []
    box.quit()
    assert qemu_img("compare", tmp_path / "t", tmp_path / "top").status == 0


def count_of(box, drive):
    [device] = [one for one in box.ok("query-block") if one["device"] == drive]
    [bitmap] = device["inserted"]["dirty-bitmaps"]
    return bitmap["count"]


def write_to_disk(box, folder, is_first):
    """QEMU lets no one else write to a device's disk, but itself; evisor has its exports."""
    if folder.name == "qemu":
        box.ok("human-monitor-command", **{"command-line": 'qemu-io d "write -P 9 0 128k"'})
        return
    if is_first:
        box.ok("nbd-server-start", addr={"type": "unix", "data": {"path": str(folder / "nbd")}})
        box.ok("nbd-server-add", device="d", writable=True)
    qemu_io(f"nbd+unix:///d?socket={folder}/nbd", "write -P 9 0 128k", options=("-f", "raw"))


def bitmap_dialogue(program, folder):
    """Full backups that leave a bitmap in step, and what is refused."""
    folder.mkdir()
    make_chain(folder)
    box = Machine(folder, *drive(more=",node-name=n"), program=program)
    heard = []
    box.ok("block-dirty-bitmap-add", node="n", name="b")
    for sync, mode in (("full", None), ("full", "never"), ("top", "never"), ("none", "always"),
                       ("incremental", "always"), ("bitmap", None)):
        more = {"bitmap-mode": mode} if mode else {}
        answer = box.ask("drive-backup", {"device": "d", "job-id": "j", "target": "t",
                                          "sync": sync, "bitmap": "b", **more})
        heard.append(answer["error"])
    for index, (sync, mode) in enumerate((("full", "always"), ("top", "on-success"))):
        heard.append(count_of(box, "d"))
        box.ok("drive-backup", **{"device": "d", "job-id": "j", "target": f"t{index}",
                                  "sync": sync, "bitmap": "b", "bitmap-mode": mode})
        box.until("JOB_STATUS_CHANGE", id="j", status="null")
        heard.append(count_of(box, "d"))
        write_to_disk(box, folder, is_first=not index)
    heard.append(count_of(box, "d"))
    box.kill()
    return heard


@pytest.mark.skipif(not QEMU, reason="apt-get install qemu-system-x86")
def test_bitmaps_of_full_backups(tmp_path):
    own = bitmap_dialogue(EVISOR, tmp_path / "own")
    assert own == bitmap_dialogue(QEMU, tmp_path / "qemu")
    assert own[-5:] == [0, 0, 128 << 10, 0, 128 << 10]


def test_limits_and_histograms(machine, tmp_path):
    make_chain(tmp_path)
    box = machine(*drive())
    none = {key: 0 for key in ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")}
    box.refused("cannot be used at the same time", "block_set_io_throttle", device="d",
                **(none | {"iops": 10, "iops_rd": 10}))
    box.ok("block_set_io_throttle", device="d", **(none | {"iops": 50}))
    box.refused("boundaries fail", "block-latency-histogram-set", id="d", boundaries=[5, 5])
    box.ok("block-latency-histogram-set", id="d", boundaries=[1000, 10 ** 9])
    load = Load(box)
    load.wait_for(12)
    load.stop()
    stats = box.ok("query-blockstats")[0]["stats"]
    histogram = stats["wr_latency_histogram"]
    assert histogram["boundaries"] == [1000, 10 ** 9]
    assert sum(histogram["bins"]) == stats["wr_operations"] >= 12
    assert box.ok("query-block")[0]["inserted"]["iops"] == 50
    box.quit()
    assert_holds(tmp_path / "top", load.model)


def test_drives_that_share_limits(machine, tmp_path):
    """Disks join and leave while requests wait, and the limits change: nothing is lost."""
    make_chain(tmp_path)
    for name in ("second", "third"):
        qemu_img("create", "-q", "-f", "qcow2", tmp_path / name, str(SIZE))
    box = machine("-object", "throttle-group,id=g,x-iops-total=40",
                  *drive(more=",throttling.group=g"),
                  "-drive", "if=virtio,id=e,file=second,format=qcow2,throttling.group=g",
                  "-drive", "if=none,id=x,file=third,format=qcow2,throttling.group=h,"
                  "throttling.iops-total=30")

    def seen():
        return {one["device"]: (one["inserted"].get("group"), one["inserted"]["iops"])
                for one in box.ok("query-block")}

    def limit(iops, **more):
        box.ok("block_set_io_throttle", device="d", bps=0, bps_rd=0, bps_wr=0, iops=iops,
               iops_rd=0, iops_wr=0, **more)

    assert seen() == {"d": ("g", 40), "e": ("g", 40), "x": ("h", 30)}
    load = Load(box)
    load.wait_for(8)
    limit(60, group="h")
    assert seen() == {"d": ("h", 60), "e": ("g", 40), "x": ("h", 60)}
    load.wait_for(8)
    limit(0)
    assert seen() == {"d": (None, 0), "e": ("g", 40), "x": ("h", 60)}
    load.wait_for(8)
    limit(70, group="g")
    box.ok("qom-set", path="/objects/g", property="limits", value={"iops-total": 80})
    assert seen() == {"d": ("g", 80), "e": ("g", 80), "x": ("h", 60)}
    box.ok("system_reset")
    load.wait_for(8)
    box.refused("is in use", "object-del", id="g")
    box.ok("human-monitor-command", **{"command-line": "drive_del x"})
    load.wait_for(3)
    load.stop()
    box.quit()
    assert_holds(tmp_path / "top", load.model)


def test_metrics(machine, tmp_path):
    make_chain(tmp_path)
    box = machine(*drive(), "-metrics", "unix:metrics", "-nic", "user,id=net0")
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.path.relpath(tmp_path / "metrics"))
    client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = client.makefile().read()
    client.close()
    assert text.startswith("HTTP/1.0 200 OK\n")
    for line in ('evisor_disk_operations_total{disk="d",op="read"} ', "evisor_running 0",
                 "# TYPE evisor_disk_bytes_total counter", 'netdev="net0"'):
        assert line in text
    schemas = {one["target"]: one["stats"] for one in box.ok("query-stats-schemas")}
    for one in box.ok("query-stats"):
        kind = "vcpu" if one["qom-path"].startswith("vcpu") else "vm"
        known = {stat["name"] for stat in schemas[kind]}
        assert {stat["name"] for stat in one["stats"]} <= known
    box.refused("does not accept value 'kvm'", "query-stats-schemas", provider="kvm")
    box.quit()
    assert not (tmp_path / "metrics").exists()
