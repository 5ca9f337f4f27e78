# SPDX-License-Identifier: MIT
"""
The same conversation about disks with QEMU's monitor and with evisor's, good and bad: the very same
errors, or answers of the same shape; and the same events in the same order.
"""

import json

import pytest

from conftest import qemu_img
from test_monitor import beside_qemu, is_part, shape

DEVICE = "/machine/peripheral/disk1/virtio-backend"
NO_LIMITS = {"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}


def image(name, path, driver="raw", **more):
    return {"driver": driver, "node-name": name, "file": {"driver": "file", "filename": path}, **more}


def limits(**given):
    return "block_set_io_throttle", {**NO_LIMITS, **given}


def job(verb, name="zz"):
    return verb, {"device" if verb.startswith("block") else "id": name}


def action(kind, **data):
    return "transaction", {"actions": [{"type": kind, "data": data}]}


def bitmap(verb, node="top", name="b", **more):
    return f"block-dirty-bitmap-{verb}", {"node": node, "name": name, **more}


NODES = [
    ("blockdev-add", {"node-name": "a"}),
    ("blockdev-add", {"driver": "raw", "node-name": "a"}),
    ("blockdev-add", {"driver": "qcow2", "node-name": "a"}),
    ("blockdev-add", {"driver": "raw", "node-name": "a", "file": "nonode"}),
    ("blockdev-add", {"driver": "raw", "node-name": "a", "file": {"driver": "file"}}),
    ("blockdev-add", image("9a", "t.raw")),
    ("blockdev-add", image("a", "t.raw")),
    ("blockdev-add", image("a", "other.raw")),
    ("blockdev-add", image("top", "other.raw")),
    ("blockdev-del", {}),
    ("blockdev-del", {"node-name": "zz"}),
    ("blockdev-del", {"node-name": "top"}),
    ("block_resize", {"node-name": "zz", "size": 8 << 20}),
    ("block_resize", {"device": "disk1", "size": 8 << 20}),
]

LIMITS = [
    ("block_set_io_throttle", {"device": "d1"}),
    limits(), limits(device="zz"), limits(id="zz"),
    limits(id=DEVICE, bps=-1), limits(id=DEVICE, bps=10 ** 16),
    limits(id=DEVICE, bps=1000, bps_rd=5), limits(id=DEVICE, bps_max=1000),
    limits(id=DEVICE, bps=1000, bps_max=10), limits(id=DEVICE, bps=1000, foo=10),
    limits(id=DEVICE, bps=1000, bps_max="x"),
    limits(id=DEVICE, bps=1000, bps_max=2000, bps_max_length=0),
    limits(id=DEVICE, bps=1000, bps_max=2000, bps_max_length=10 ** 13),
    limits(id=DEVICE, bps=1000, bps_max_length=5), limits(id=DEVICE, iops_size=4096),
    limits(id=DEVICE, iops=100, iops_size=4096, iops_max=200, iops_max_length=10),
    ("query-block", {}),
    limits(device="d1"),
    ("block-latency-histogram-set", {"id": "zz"}),
    ("block-latency-histogram-set", {"id": DEVICE, "boundaries": []}),
    ("block-latency-histogram-set", {"id": DEVICE, "boundaries": [10, 5]}),
    ("block-latency-histogram-set", {"id": DEVICE, "boundaries": [1000, 50000, 1000000]}),
    ("query-blockstats", {}),
    ("block-latency-histogram-set", {"id": DEVICE}),
]

BITMAPS = [
    bitmap("add", "zz"), bitmap("add", name=""), bitmap("add", granularity=3),
    bitmap("add", granularity=256), bitmap("add", granularity=-512),
    bitmap("add", granularity=4 << 30), bitmap("add"), bitmap("add"), bitmap("clear", name="zz"),
    bitmap("disable"), bitmap("disable", name="zz"), bitmap("enable", name="zz"),
    ("block-dirty-bitmap-merge", {"node": "top", "target": "b", "bitmaps": ["zz"]}),
    ("block-dirty-bitmap-merge", {"node": "top", "target": "zz", "bitmaps": ["b"]}),
    bitmap("remove", name="zz"), bitmap("remove"),
]

TRANSACTIONS = [
    ("transaction", {}), ("transaction", {"actions": []}), ("transaction", {"actions": ["x"]}),
    ("transaction", {"actions": [{"data": {}}]}),
    ("transaction", {"actions": [{"type": "abort"}]}),
    ("transaction", {"actions": [{"type": "abort", "data": {}, "foo": 1}]}),
    ("transaction", {"actions": [], "properties": {"foo": "zz"}}),
    action("foo"), action("abort"), action("abort", foo=1),
    action("block-dirty-bitmap-add", node="top", name="tb", foo=1),
    action("block-dirty-bitmap-add", node="top", name=3),
    action("block-dirty-bitmap-add", node="top"),
    action("blockdev-snapshot-sync"),
    action("blockdev-backup", device="d1", target="a"),
    action("blockdev-backup", device="zz", target="a", sync="full"),
    ("transaction", {"actions": [
        {"type": "block-dirty-bitmap-add", "data": {"node": "top", "name": "tb"}},
        {"type": "block-dirty-bitmap-add", "data": {"node": "top", "name": "tb"}}]}),
]

EXPORTS = [
    ("nbd-server-add", {"device": "d1"}), ("nbd-server-stop", {}),
    ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd.sock"}}}),
    ("nbd-server-start", {"addr": {"type": "unix", "data": {"path": "nbd.sock"}}}),
    ("nbd-server-add", {"device": "zz"}), ("nbd-server-add", {"device": "d1", "bitmap": "zz"}),
    ("block-export-add", {"type": "foo", "id": "e1", "node-name": "a"}),
    ("block-export-add", {"type": "nbd", "id": "e1", "node-name": "a", "name": "an"}),
    ("block-export-add", {"type": "nbd", "id": "e1", "node-name": "a", "name": "bn"}),
    ("block-export-add", {"type": "nbd", "id": "e2", "node-name": "a", "name": "an"}),
    ("query-block-exports", {}), ("block-export-del", {"id": "zz"}),
    ("block-export-del", {"id": "e1", "mode": "zz"}), ("query-block-exports", {}),
    ("block-export-del", {"id": "e1"}), ("nbd-server-remove", {"name": "zz"}),
    ("nbd-server-stop", {}),
]

REFUSED_JOBS = [
    ("block-stream", {"device": "zz"}), ("block-stream", {"device": "d1", "base": "zz"}),
    ("block-stream", {"device": "top", "job-id": "j", "base-node": "zz"}),
    ("block-stream", {"device": "top", "job-id": "9"}),
    ("block-stream", {"device": "top", "job-id": "j", "speed": -1}),
    ("block-stream", {"device": "top", "base": "base.qcow2", "base-node": "x"}),
    ("block-stream", {"device": "top", "job-id": "j", "on-error": "x"}),
    ("block-commit", {"device": "zz"}), ("block-commit", {"device": "top", "top": "zz"}),
    ("block-commit", {"device": "top", "job-id": "j", "base": "zz"}),
    ("block-commit", {"device": "top", "top": "base.qcow2", "top-node": "d"}),
    ("block-commit", {"device": "top", "base": "base.qcow2", "base-node": "d"}),
    *map(job, ("block-job-cancel", "block-job-complete", "block-job-pause", "block-job-resume",
               "job-cancel", "job-complete", "job-pause", "job-resume", "job-dismiss",
               "job-finalize")),
    ("block-job-set-speed", {"device": "zz", "speed": 1}),
    ("block-job-dismiss", {"id": "zz"}), ("block-job-finalize", {"id": "zz"}),
    ("blockdev-mirror", {"device": "zz", "target": "a", "sync": "full"}),
    ("blockdev-mirror", {"device": "d1", "target": "zz", "sync": "full"}),
    ("blockdev-mirror", {"device": "d1", "target": "a", "sync": "foo"}),
    ("blockdev-mirror", {"device": "d1", "target": "a"}),
    ("blockdev-mirror", {"device": "d1", "target": "top", "sync": "full", "job-id": "m"}),
    ("blockdev-mirror", {"device": "d1", "target": "a", "sync": "incremental", "job-id": "m"}),
    ("blockdev-mirror", {"device": "d1", "target": "a", "sync": "full", "granularity": 3}),
    ("blockdev-mirror", {"device": "d1", "target": "a", "sync": "full", "copy-mode": "z"}),
    ("blockdev-mirror", {"device": "d1", "target": "a", "sync": "full", "on-source-error": "z"}),
    ("blockdev-backup", {"device": "zz", "target": "a", "sync": "full"}),
    ("blockdev-backup", {"device": "d1", "target": "zz", "sync": "full"}),
    ("blockdev-backup", {"device": "d1", "target": "a", "sync": "incremental"}),
    ("blockdev-backup", {"device": "d1", "target": "a", "sync": "bitmap"}),
    ("blockdev-backup", {"device": "d1", "target": "a", "sync": "bitmap", "bitmap": "zz",
                         "bitmap-mode": "never"}),
    ("blockdev-backup", {"device": "d1", "target": "a", "sync": "full", "bitmap-mode": "always"}),
    ("drive-mirror", {"device": "d1", "target": "dm", "sync": "zz"}),
    ("drive-mirror", {"device": "zz", "target": "dm", "sync": "full"}),
    ("blockdev-snapshot-sync", {"device": "d1"}),
    ("blockdev-snapshot-sync", {"device": "d1", "snapshot-file": "s1", "mode": "foo"}),
    ("blockdev-snapshot-delete-internal-sync", {"device": "d1"}),
    ("blockdev-snapshot-delete-internal-sync", {"device": "zz", "name": "x"}),
    ("blockdev-snapshot-delete-internal-sync", {"device": "d1", "name": "y"}),
    ("blockdev-snapshot-delete-internal-sync", {"device": "d1", "id": "7"}),
]

def reopen(*nodes):
    return "blockdev-reopen", {"options": list(nodes)}


RAW = {"driver": "raw", "node-name": "r", "file": "rf"}
SOLO = image("solo", "solo.qcow2", "qcow2")
PLAIN = image("plain", "plain.raw")

REOPENED = [
    ("blockdev-add", {"driver": "file", "node-name": "rf", "filename": "file.raw"}),
    ("blockdev-add", RAW), ("blockdev-add", SOLO),
    ("blockdev-reopen", {}), ("blockdev-reopen", {"options": "x"}), reopen("x"), reopen({}),
    reopen({"driver": 3}), reopen({"driver": "raw"}), reopen({"driver": "foo", "node-name": "r"}),
    reopen({"node-name": "r"}), reopen({"driver": "raw", "file": "rf"}),
    reopen({"driver": "raw", "node-name": "r"}), reopen({"driver": "raw", "node-name": "zz"}),
    reopen({**RAW, "node-name": "zz"}), reopen({**RAW, "driver": "qcow2"}),
    reopen({**RAW, "file": "zz"}), reopen({**RAW, "bogus": 1}), reopen({**RAW, "read-only": "x"}),
    reopen({**RAW, "discard": "zz"}), reopen({**RAW, "cache": {"zz": True}}),
    reopen({**RAW, "force-share": True}), reopen({"driver": "file", "node-name": "rf"}),
    reopen({**SOLO, "file": {"driver": "file", "filename": "x"}}),
    reopen({**SOLO, "driver": "raw"}), reopen({**SOLO, "backing": "zz"}),
    reopen({**SOLO, "data-file": "rf"}), reopen({"driver": "qcow2", "node-name": "solo"}),
    reopen({**RAW, "read-only": True}, {**RAW, "node-name": "zz"}),
    reopen({**PLAIN, "read-only": True}),
    reopen({**RAW, "read-only": True}, {**PLAIN, "read-only": True}),
]

# What goes well, and is seen afterwards.
REOPENS = [
    (RAW,), ({**RAW, "read-only": True},), ({**RAW, "read-only": False},),
    ({**RAW, "discard": "unmap", "auto-read-only": True},), ({**RAW, "cache": {"no-flush": True}},),
    ({**RAW, "cache": {"no-flush": False}},), (RAW, {**RAW, "read-only": True}), (SOLO,), (RAW,),
    ({**SOLO, "read-only": True}, {**RAW, "read-only": True}), ({**SOLO, "backing": None}, RAW),
    ({**SOLO, "cache": {"no-flush": True}, "detect-zeroes": "off"}, PLAIN), (SOLO,),
    ({**PLAIN, "cache": {"no-flush": True}},), (PLAIN,),
]

PARTS = {"query-block", "query-blockstats"}


@pytest.fixture(scope="module")
def monitors(tmp_path_factory):
    """evisor's and QEMU's, each with a chain of its own of two images."""
    def furnish(folder):
        qemu_img("create", "-q", "-f", "qcow2", folder / "base.qcow2", "4M")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
                 folder / "top.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", folder / "solo.qcow2", "4M")
        for raw in ("t.raw", "other.raw", "file.raw", "plain.raw"):
            (folder / raw).write_bytes(bytes(4 << 20))
        return ["-drive", "file=top.qcow2,format=qcow2,if=none,id=d1,node-name=top",
                "-device", "virtio-blk-pci,drive=d1,id=disk1",
                "-drive", "file=plain.raw,format=raw,if=none,id=d2,node-name=plain",
                "-device", "virtio-blk-pci,drive=d2,id=disk2"]

    with beside_qemu(tmp_path_factory, furnish) as opened:
        yield opened


def differences(monitors, conversation):
    for command, arguments in conversation:
        ours, theirs = (monitor.ask(command, **arguments) for monitor in monitors)
        if "error" in ours or "error" in theirs:
            same = ours == theirs
        elif command in PARTS:
            same = is_part(shape(ours), shape(theirs))
        else:
            same = shape(ours) == shape(theirs)
        if not same:
            yield (f"{command} {json.dumps(arguments)}\n  evisor {json.dumps(ours)[:400]}"
                   f"\n  QEMU   {json.dumps(theirs)[:400]}")


def test_the_same_conversation_about_disks(monitors):
    found = list(differences(monitors, NODES + LIMITS + BITMAPS + TRANSACTIONS + EXPORTS +
                             REFUSED_JOBS))
    assert not found, "\n".join(found)


def until(monitor, event, status=None):
    """All events up to this one, without their times, and without those of pauses."""
    heard = []
    while not heard or heard[-1][0] != event or heard[-1][1].get("status") != status:
        entry = monitor.next_event()
        heard.append((entry["event"], entry["data"]))
    return [(name, data) for name, data in heard if data.get("status") not in ("paused", "running")]


def test_a_job_that_waits_to_be_finalized(monitors):
    seen = []
    for monitor in monitors:
        monitor.events.clear()
        assert monitor.ask("blockdev-add", **image("waits", "other.raw")) == {"return": {}}
        backup = {"device": "d1", "target": "waits", "sync": "full", "job-id": "b1",
                  "auto-finalize": False}
        assert monitor.ask("blockdev-backup", **backup) == {"return": {}}
        pending = until(monitor, "BLOCK_JOB_PENDING")
        verbs = [monitor.ask(verb, **job(verb, "b1")[1]) for verb in
                 ("job-dismiss", "block-job-complete", "job-pause", "job-finalize")]
        seen.append((pending, verbs, until(monitor, "JOB_STATUS_CHANGE", "null")))
    assert seen[0] == seen[1]
    assert ("BLOCK_JOB_PENDING", {"type": "backup", "id": "b1"}) in seen[0][0]


def test_limits_by_the_name_of_the_device(monitors):
    evisor, _ = monitors
    set_limits = "block_set_io_throttle"
    for name in (DEVICE, "disk1", "/machine/peripheral/disk1", "d1"):
        given = limits(id=name, iops=50, iops_max=100, iops_max_length=3)[1]
        assert evisor.ask(set_limits, **given) == {"return": {}}, name
        inserted = evisor.ask("query-block")["return"][1]["inserted"]
        assert [inserted[key] for key in ("iops", "iops_max", "iops_max_length")] == [50, 100, 3]
        assert evisor.ask(set_limits, **limits(id=name)[1]) == {"return": {}}
    assert evisor.ask(set_limits, **limits(id=DEVICE + "x")[1])["error"] == {
        "class": "DeviceNotFound", "desc": f"Device '{DEVICE}x' not found"}


DEVICE2 = DEVICE.replace("disk1", "disk2")
LIMIT_KEYS = {key + more for key in NO_LIMITS for more in ("", "_max", "_max_length")}


def seen_limits(monitor):
    """Of both drives, and the group's."""
    listed = [one["inserted"] for one in monitor.ask("query-block")["return"]
              if one["device"] in ("d1", "d2")]
    group = monitor.ask("qom-get", path="/objects/tg", property="limits")
    return [{key: one.get(key) for key in LIMIT_KEYS | {"iops_size", "group"}}
            for one in listed] + [group]


def group_object(**more):
    return "object-add", {"qom-type": "throttle-group", **more}


def set_group(value, name="limits", path="/objects/tg"):
    return "qom-set", {"path": path, "property": name, "value": value}


GROUPS = [
    group_object(), group_object(id="9tg"), group_object(id="t2", foo=1),
    group_object(id="t2", **{"x-iops-total": "x"}), group_object(id="t2", limits=5),
    group_object(id="t2", limits={"foo": 1}), group_object(id="t2", limits={"iops-total": "x"}),
    group_object(id="t2", **{"x-iops-total": 5, "x-iops-read": 5}),
    group_object(id="t2", **{"x-iops-total-max": 5}),
    group_object(id="t2", **{"x-iops-total": 10 ** 16}),
    group_object(id="t2", limits={"iops-total": 7, "iops-total-max": 3}),
    group_object(id="t2", limits={"iops-total": 7, "iops-total-max": 9,
                                  "iops-total-max-length": 0}),
    group_object(id="t2", limits={"iops-total-max-length": 2 ** 32}),
    group_object(id="tg", limits={"iops-total": 7}, **{"x-bps-total": 8, "x-bps-total-max": 99}),
    group_object(id="tg"),
    ("qom-get", {"path": "tg", "property": "x-bps-total-max"}),
    ("qom-get", {"path": "tg", "property": "x-iops-size"}),
    ("qom-get", {"path": "tg", "property": "type"}),
    ("qom-get", {"path": "tg", "property": "nope"}),
    set_group(5), set_group("x"), set_group({"foo": 1}), set_group({"iops-total": "x"}),
    set_group({"iops-total": -1}), set_group({"iops-total-max-length": 1 << 32}),
    set_group({"iops-read": 5}), set_group({"iops-total-max": 1}), set_group(7, "x-iops-total"),
    set_group("y", "x-iops-total"), set_group({"iops-total": 70, "iops-total-max": 100}),
    set_group({}),
    limits(id=DEVICE, iops=50, group="g1"), limits(id=DEVICE2, iops=60, iops_max=90, group="g1"),
    limits(id=DEVICE, bps=1 << 20), limits(id=DEVICE2, iops=40, group="g2"),
    limits(id=DEVICE, iops=33, iops_size=4096, group="tg"), limits(id=DEVICE2, bps=-1, group="tg"),
    limits(id=DEVICE2, bps_rd=99, group="tg"), ("object-del", {"id": "tg"}),
    limits(id=DEVICE, group="g3"), limits(id=DEVICE2), ("object-del", {"id": "t2"}),
    limits(id=DEVICE, iops=5), group_object(id=DEVICE), limits(id=DEVICE, iops=5, group="gg"),
    group_object(id="gg"), limits(id=DEVICE, group="gg"), group_object(id="gg"),
    ("object-del", {"id": "gg"}), ("object-del", {"id": "tg"}), ("object-del", {"id": "tg"}),
]


def test_groups_of_limits(monitors):
    """What is answered, and what is seen after each."""
    for command, arguments in GROUPS:
        found = list(differences(monitors, [(command, arguments)]))
        assert not found, "\n".join(found)
        ours, theirs = (seen_limits(monitor) for monitor in monitors)
        assert ours == theirs, (command, arguments)


def test_properties_of_groups(monitors):
    for monitor in monitors:
        command, arguments = group_object(id="tp")
        assert monitor.ask(command, **arguments) == {"return": {}}
    for command, arguments in (("qom-list", {"path": "/objects/tp"}),
                               ("qom-list-properties", {"typename": "throttle-group"})):
        ours, theirs = ({(one["name"], one["type"]) for one in
                         monitor.ask(command, **arguments)["return"]} for monitor in monitors)
        assert ours == theirs


def modes(monitor):
    return {node["node-name"]: (node["ro"], node["cache"])
            for node in monitor.ask("query-named-block-nodes")["return"]
            if node["node-name"] in ("r", "solo", "plain")}


def test_reopened_nodes(monitors):
    found = list(differences(monitors, REOPENED))
    assert not found, "\n".join(found)
    assert modes(monitors[0]) == modes(monitors[1])
    assert not any(read_only for read_only, _ in modes(monitors[0]).values())
    for nodes in REOPENS:
        command, arguments = reopen(*nodes)
        for monitor in monitors:
            assert monitor.ask(command, **arguments) == {"return": {}}, nodes
        assert modes(monitors[0]) == modes(monitors[1]), nodes
