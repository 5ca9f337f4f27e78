# SPDX-License-Identifier: MIT
"""
Jobs on disks that a real guest writes to and reads back all the while: mirror, backup, snapshot,
commit, stream, to their ends, and killed in the middle. QEMU's tools judge what is left.
"""

import hashlib
import os
import re
import subprocess
import time

UNIT = 65536
UNITS = 256
STEP = 37  # prime to UNITS: every unit is written before one is written again
DEADLINE_S = 120

# load NAME DEVICE: writes unit after unit, each flushed, reads it back from the device past the
# page cache, and keeps what it should hold; rests while /tmp/hold.NAME is there.
LOAD = f"""
n=$1 dev=$2 i=0
while [ ! -e /tmp/stop.$n ]; do
if [ -e /tmp/hold.$n ]; then : >/tmp/held.$n; sleep 0.05; continue; fi
i=$((i+1)); at=$(((i*{STEP})%{UNITS}))
yes $(printf '%s-%08d' $n $i) | dd iflag=fullblock bs=64k count=1 of=/tmp/w.$n 2>/dev/null
dd if=/tmp/w.$n of=$dev bs=64k seek=$at conv=notrunc,fsync 2>/dev/null || echo BAD''-WRITE
dd if=$dev bs=64k skip=$at count=1 iflag=direct 2>/dev/null | cmp - /tmp/w.$n || echo BAD''-READ
[ -e /tmp/model.$n ] && dd if=/tmp/w.$n of=/tmp/model.$n bs=64k seek=$at conv=notrunc 2>/dev/null
echo $i >/tmp/new.$n; mv /tmp/new.$n /tmp/count.$n
[ -e /tmp/loud ] && echo "DONE-$n-$i."
done
"""


def content(name, i):
    line = f"{name}-{i:08d}\n".encode()
    return (line * (UNIT // len(line) + 1))[:UNIT]


def qemu_img(*words):
    return subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, timeout=60,
                          check=False)


def make_chain(folder, name, depth):
    """NAME.0 full of Zs, NAME.1 ... above it, each with a few units of its own."""
    for level in range(depth):
        path = folder / f"{name}.{level}"
        backing = ["-b", f"{name}.{level - 1}", "-F", "qcow2"] if level else []
        assert qemu_img("create", "-q", "-f", "qcow2", *backing, path, UNIT * UNITS).returncode == 0
        count = UNITS if not level else 16
        subprocess.run(["qemu-io", "-f", "qcow2", "-c",
                        f"write -P {90 - level} {level * UNIT * 32} {count * UNIT}", path],
                       check=True, capture_output=True, timeout=60)
    return path


def drive(path, name):
    """Every second one has its I/O done by a thread of its own, which they share."""
    index = ord(name) - ord("a")
    thread = ",iothread=io0" if index % 2 == 0 else ""
    return ["-drive", f"if=none,id={name},file={path},format=qcow2,discard=unmap",
            "-device", f"virtio-blk-pci,drive={name},addr={0x10 + index:x}{thread}"]


class Load:
    def __init__(self, machine, name, device):
        self.machine, self.name = machine, name
        machine.check(f"sh /tmp/load {name} {device} & sleep 0")

    def count(self):
        return int(self.machine.shell(f"cat /tmp/count.{self.name} 2>/dev/null || echo 0")[1])

    def go(self, more=4):
        goal = self.count() + more
        deadline = time.monotonic() + DEADLINE_S
        while self.count() < goal:
            assert time.monotonic() < deadline, self.machine.output[-2000:]

    def hold(self):
        self.machine.check(f"rm -f /tmp/held.{self.name}; : >/tmp/hold.{self.name}; "
                           f"until [ -e /tmp/held.{self.name} ]; do sleep 0.05; done", DEADLINE_S)

    def release(self):
        self.machine.check(f"rm /tmp/hold.{self.name}")


class Jobs:
    """The machine's control socket, with the ends of jobs waited for."""

    def __init__(self, machine):
        self.qmp = machine.qmp

    def until(self, job, wanted):
        """Waits for the job's state; `null` is that of one that is gone."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            event = self.qmp.wait_event("JOB_STATUS_CHANGE", deadline - time.monotonic())
            if event["data"]["id"] == job and event["data"]["status"] == wanted:
                return

    def run(self, command, job="j", complete=False, **arguments):
        self.qmp.execute(command, **{"job-id": job}, **arguments)
        if complete:
            self.until(job, "ready")
        return job

    def end(self, job="j", complete=False):
        if complete:
            self.qmp.execute("job-complete", id=job)
        self.until(job, "null")
        done = self.qmp.wait_event("BLOCK_JOB_COMPLETED")["data"]
        assert done["device"] == job and "error" not in done

    def snapshot(self, disk, path, node):
        self.qmp.execute("blockdev-snapshot-sync", device=disk,
                         **{"snapshot-file": str(path), "snapshot-node-name": node})


def digest_of(image):
    raw = f"{image}.raw"
    assert qemu_img("convert", "-O", "raw", "-f", "qcow2", image, raw).returncode == 0
    with open(raw, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    os.unlink(raw)
    return digest


def all_jobs_in_turn(machine, jobs, load, folder):
    """Returns the image that the guest's disk is in the end."""
    full = folder / "full"
    jobs.qmp.execute("block-dirty-bitmap-add", node="a", name="since", persistent=True)
    jobs.qmp.execute("transaction", actions=[
        {"type": "block-dirty-bitmap-clear", "data": {"node": "a", "name": "since"}},
        {"type": "drive-backup", "data": {"device": "a", "job-id": "j", "target": str(full),
                                          "sync": "full", "format": "qcow2"}}])
    load.go()
    jobs.end()
    load.go()
    load.hold()
    jobs.run("drive-backup", device="a", target=str(full), sync="incremental", bitmap="since",
             mode="existing", format="qcow2")
    load.release()
    jobs.end()
    load.hold()
    jobs.run("drive-backup", device="a", target=str(full), sync="incremental", bitmap="since",
             mode="existing", format="qcow2")
    jobs.end()
    on_disk = machine.check("sha256sum /dev/vdb", DEADLINE_S).split()[0]
    assert digest_of(full) == on_disk
    load.release()
    jobs.snapshot("a", folder / "s1", "s1")
    load.go()
    jobs.run("drive-mirror", complete=True, device="a", target=str(folder / "mirror"), sync="full")
    load.go()
    jobs.end(complete=True)
    load.go()
    jobs.snapshot("a", folder / "s2", "s2")
    load.go()
    jobs.snapshot("a", folder / "s3", "s3")
    load.go()
    jobs.run("block-commit", device="a", **{"top-node": "s2"})
    jobs.end()
    load.go()
    jobs.run("block-commit", complete=True, device="a")
    load.go()
    jobs.end(complete=True)
    load.go()
    jobs.snapshot("a", folder / "s4", "s4")
    load.go()
    jobs.run("block-stream", device="a")
    load.go()
    jobs.end()
    load.go()
    return folder / "s4"


# Of each disk: the command that is killed, and whether before that its copy is ready.
KILLED = {
    "b": ("drive-mirror", {"target": "mirror-b", "sync": "full"}, False),
    "c": ("drive-backup", {"target": "backup-c", "sync": "full"}, False),
    "d": ("block-commit", {"top-node": "d1"}, False),
    "e": ("block-commit", {}, True),
    "f": ("block-stream", {}, False),
    "g": ("drive-mirror", {"target": "mirror-g", "sync": "full"}, True),
}


def start_and_kill(machine, jobs, loads, folder):
    """All jobs are in the middle of their work when evisor is killed."""
    tops = {}
    for name in KILLED:
        tops[name] = folder / f"{name}.2"
        for level in (1, 2) if name in "de" else ():
            tops[name] = folder / f"{name}-over{level}"
            jobs.snapshot(name, tops[name], f"{name}{level}")
            loads[name].go(2)
    for name, (command, arguments, is_ready) in KILLED.items():
        arguments = {key: str(folder / value) if key == "target" else value
                     for key, value in arguments.items()}
        speed = {} if is_ready else {"speed": UNIT}
        jobs.run(command, job=f"job-{name}", complete=is_ready, device=name, **arguments, **speed)
    machine.check(": >/tmp/loud")
    deadline = time.monotonic() + DEADLINE_S
    while not all(machine.output.count(f"DONE-{name}-") > 2 for name in loads):
        assert machine._pump(1) and time.monotonic() < deadline, machine.output[-2000:]
    states = {job["id"]: job for job in jobs.qmp.execute("query-jobs")}
    for name, (_, _, is_ready) in KILLED.items():
        assert states[f"job-{name}"]["status"] == ("ready" if is_ready else "running")
    machine.process.kill()
    machine.wait()
    return tops


def initial(unit):
    level = unit // 32 if unit % 32 < 16 and unit < 96 else 0
    return bytes([90 - level]) * UNIT


def judge_killed(machine, name, image):
    """What the guest said it has flushed is there; what it may have begun is old or new."""
    checked = qemu_img("check", "-f", "qcow2", image)
    assert checked.returncode in (0, 3), checked
    raw = f"{image}.raw"
    assert qemu_img("convert", "-O", "raw", "-f", "qcow2", image, raw).returncode == 0
    last = max(int(count) for count in re.findall(rf"^DONE-{name}-(\d+)\.", machine.output, re.M))
    may = {unit: [initial(unit)] for unit in range(UNITS)}
    for i in range(1, last + 1):
        may[i * STEP % UNITS] = [content(name, i)]
    for i in range(last + 1, last + 9):  # its console is behind its disk
        may[i * STEP % UNITS].append(content(name, i))
    with open(raw, "rb") as file:
        for unit in range(UNITS):
            data = file.read(UNIT)
            for page in range(0, UNIT, 4096):
                assert any(data[page:page + 4096] == one[page:page + 4096] for one in may[unit]), \
                    f"unit {unit} of {image}, {last} were flushed: {data[page:page + 16]}"
    os.unlink(raw)


def test_jobs_under_a_guest(boot, tmp_path):
    path = make_chain(tmp_path, "a", 3)
    more = [word for name in KILLED for word in drive(make_chain(tmp_path, name, 3), name)]
    machine = boot("-nic", "none", "-object", "iothread,id=io0", *drive(path, "a"), *more)
    machine.type(f"cat >/tmp/load <<'END'{LOAD}END\n")
    machine.check("dd if=/dev/vdb of=/tmp/model.a bs=64k 2>/dev/null")
    jobs = Jobs(machine)
    load = Load(machine, "a", "/dev/vdb")
    load.go()
    image = all_jobs_in_turn(machine, jobs, load, tmp_path)
    load.hold()
    machine.check("echo 3 >/proc/sys/vm/drop_caches; cmp /dev/vdb /tmp/model.a", DEADLINE_S)
    on_disk = machine.check("sha256sum /dev/vdb", DEADLINE_S).split()[0]
    loads = {name: Load(machine, name, f"/dev/vd{chr(ord('c') + index)}")
             for index, name in enumerate(KILLED)}
    for one in loads.values():
        one.go(2)
    tops = start_and_kill(machine, jobs, loads, tmp_path)
    assert "BAD-" not in machine.output
    # What a killed process had in flight may hold its files for a moment.
    deadline = time.monotonic() + DEADLINE_S
    while "lock" in qemu_img("check", "-f", "qcow2", image).stderr:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert digest_of(image) == on_disk
    for done in ("full", "mirror", "a.2", "s1", "s2", "s4"):
        assert qemu_img("check", "-f", "qcow2", tmp_path / done).returncode in (0, 3), done
    assert "backing file" not in qemu_img("info", image).stdout
    for name, top in tops.items():
        judge_killed(machine, name, top)


def test_a_mirror_onto_an_image_on_another_thread(boot, evisor_img, tmp_path):
    """Its image comes to the disk's loop afterwards, and the disk back to its thread."""
    for name in ("a", "b", "c"):
        evisor_img("create", "-f", "qcow2", tmp_path / name, "64M")
    attached = [word for name, place in (("a", "addr=10,iothread=io0"), ("c", "addr=12,iothread=io1"))
                for word in ("-drive", f"if=none,id={name},file={tmp_path / name},format=qcow2",
                             "-device", f"virtio-blk-pci,drive={name},{place}")]
    machine = boot("-nic", "none", "-object", "iothread,id=io0", "-object", "iothread,id=io1",
                   *attached)
    qmp = machine.qmp
    qmp.execute("blockdev-add", **{"driver": "qcow2", "node-name": "b",
                                   "file": {"driver": "file", "filename": str(tmp_path / "b")}})
    qmp.execute("device_add", driver="virtio-blk-pci", id="d", drive="b", iothread="io1",
                addr="14")
    machine.check("until [ -b /dev/vdd ]; do sleep 0.1; done")
    qmp.execute("device_del", id="d")
    qmp.wait_event("DEVICE_DELETED", DEADLINE_S)
    machine.type(f"cat >/tmp/load <<'END'{LOAD}END\n")
    machine.check(f"dd if=/dev/zero of=/tmp/model.a bs=64k count={UNITS} 2>/dev/null")
    loads = [Load(machine, "a", "/dev/vdb"), Load(machine, "c", "/dev/vdc")]
    for one in loads:
        one.go()
    qmp.execute("blockdev-mirror", **{"job-id": "m", "device": "a", "target": "b", "sync": "full"})
    qmp.wait_event("BLOCK_JOB_READY", DEADLINE_S)
    qmp.execute("block-job-complete", device="m")
    qmp.wait_event("BLOCK_JOB_COMPLETED", DEADLINE_S)
    for one in loads:
        one.go(20)
        one.hold()
    threads = {thread["id"]: thread for thread in qmp.execute("query-iothreads")}
    before = machine.ran_ns(threads["io0"])
    machine.check("echo 3 >/proc/sys/vm/drop_caches; "
                  f"dd if=/dev/vdb bs=64k count={UNITS} 2>/dev/null | cmp - /tmp/model.a", DEADLINE_S)
    assert machine.ran_ns(threads["io0"]) - before > 500_000
    assert "BAD-" not in machine.output
    qmp.execute("object-add", **{"qom-type": "iothread", "id": "io2"})
    machine.check("dd if=/tmp/model.a of=/dev/vdb bs=64k seek=512 conv=fsync 2>/dev/null", DEADLINE_S)
    machine.type("poweroff -f\n")
    assert machine.wait() == 0
    for name in ("a", "b", "c"):
        assert qemu_img("check", "-f", "qcow2", tmp_path / name).returncode in (0, 3), name
