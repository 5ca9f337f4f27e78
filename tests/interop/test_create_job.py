# SPDX-License-Identifier: MIT
"""
blockdev-create, said to QEMU's monitor and to evisor's: the same events, the same jobs and errors,
and images that qemu-img finds alike.
"""

import json

import pytest

from conftest import BUILD, qemu_img
from test_monitor import Monitor, beside_qemu, start

MIB = 1 << 20
DONE = ["created", "running", "waiting", "pending", "concluded"]
FAILED = ["created", "running", "aborting", "concluded"]


@pytest.fixture(scope="module")
def monitors(tmp_path_factory):
    def furnish(folder):
        (folder / "base.img").write_bytes(bytes(MIB))
        return []

    with beside_qemu(tmp_path_factory, furnish) as opened:
        yield opened


def wait_for(monitor, status):
    """The states of the jobs until one has this."""
    seen = []
    while not seen or seen[-1] != status:
        event = monitor.next_event()
        assert event["event"] == "JOB_STATUS_CHANGE"
        seen.append(event["data"]["status"])
    return seen


def create(monitor, job="j", **options):
    """What becomes of it: an error at once, or the job's states and its entry."""
    options = {key.replace("_", "-"): value for key, value in options.items()}
    monitor.events.clear()
    answer = monitor.ask("blockdev-create", **{"job-id": job, "options": options})
    if "error" in answer:
        return answer
    states = wait_for(monitor, "concluded")
    jobs = monitor.ask("query-jobs")["return"]
    assert monitor.ask("query-block-jobs") == {"return": []}
    assert monitor.ask("job-dismiss", id=job) == {"return": {}}
    assert wait_for(monitor, "null") == ["null"]
    assert monitor.ask("query-jobs") == {"return": []}
    return states, jobs


def good(answer):
    states, jobs = answer
    return states == DONE and jobs == [{"id": "j", "type": "create", "status": "concluded",
                                        "current-progress": 1, "total-progress": 1}]


def new_node(monitor, name, path, size=0):
    assert good(create(monitor, driver="file", filename=path, size=size))
    assert monitor.ask("blockdev-add", driver="file", filename=path,
                       **{"node-name": name}) == {"return": {}}


def looks(path):
    """What qemu-img tells of an image, without where and when."""
    assert qemu_img("check", "-q", path).status == 0
    info = json.loads(qemu_img("info", "--output=json", path).out)
    for key in ("filename", "actual-size", "full-backing-filename"):
        info.pop(key, None)
    return info


@pytest.mark.parametrize("options", [
    {}, {"preallocation": "off"}, {"preallocation": "falloc"}, {"preallocation": "full"},
    {"nocow": True}])
@pytest.mark.parametrize("size", [0, 1000, MIB])
def test_files(monitors, options, size):
    for monitor in monitors:
        path = monitor.folder / "made.raw"
        path.write_bytes(b"old" * 1000)
        assert good(create(monitor, driver="file", filename="made.raw", size=size, **options))
        assert path.read_bytes() == bytes(size)
        if options.get("preallocation", "off") != "off":
            assert path.stat().st_blocks * 512 >= size


@pytest.mark.parametrize("options", [
    {}, {"size": 0}, {"size": 5 << 40}, {"version": "v2"}, {"version": "v3"},
    {"cluster_size": 512}, {"cluster_size": 2 * MIB}, {"lazy_refcounts": True},
    {"refcount_bits": 1}, {"refcount_bits": 64}, {"compression_type": "zstd"},
    {"extended_l2": True}, {"extended_l2": True, "cluster_size": 131072},
    {"backing_file": "base.img"}, {"backing_file": "base.img", "backing_fmt": "raw"},
    {"backing_file": ""}, {"preallocation": "metadata"}, {"preallocation": "falloc"},
    {"preallocation": "full"}], ids=json.dumps)
def test_qcow2_images(monitors, options):
    seen = []
    for monitor in monitors:
        new_node(monitor, "n", "made.qcow2", size=3000)
        assert good(create(monitor, **{"driver": "qcow2", "file": "n", "size": 8 * MIB, **options}))
        assert monitor.ask("blockdev-del", **{"node-name": "n"}) == {"return": {}}
        seen.append(looks(monitor.folder / "made.qcow2"))
    assert seen[0] == seen[1]


def test_a_file_that_is_described_in_place(monitors):
    for monitor in monitors:
        assert good(create(monitor, driver="file", filename="place.qcow2", size=0))
        file = {"driver": "file", "filename": "place.qcow2"}
        assert good(create(monitor, driver="qcow2", file=file, size=MIB))
        assert looks(monitor.folder / "place.qcow2")["virtual-size"] == MIB


def qcow2(**options):
    return {"driver": "qcow2", "file": "bad", "size": MIB, **options}


def file(**options):
    return {"driver": "file", "filename": "bad.raw", "size": MIB, **options}


@pytest.mark.parametrize("options", [
    {"driver": "file", "filename": "bad.raw"}, {"driver": "file", "size": 1}, {"size": 1},
    file(preallocation="bogus"), file(foo=True), file(size="x"), file(filename=3), file(size=None),
    {"driver": "raw"}, {"driver": "nbd"}, {"driver": "null-co"}, {"driver": "bogus"},
    {"driver": "qcow2", "size": 1024}, {"driver": "qcow2", "file": "bad"}, {"driver": 3},
    qcow2(version="v4"), qcow2(version=3), qcow2(compression_type="lz"), qcow2(backing_file=None),
    qcow2(backing_file="f", backing_fmt="bogus"), qcow2(file=7), qcow2(foo=1),
    qcow2(cluster_size="x"), qcow2(refcount_bits="x"), qcow2(lazy_refcounts=1),
], ids=json.dumps)
def test_what_is_refused_at_once(monitors, options):
    ours, theirs = (create(monitor, **options) for monitor in monitors)
    assert ours == theirs
    assert "error" in ours


def test_requests_that_are_not_whole(monitors):
    for arguments in ({}, {"job-id": "a"}, {"options": file()}, {"job-id": "a", "options": 3},
                      {"job-id": 3, "options": file()}, {"job-id": "9a", "options": file()},
                      {"job-id": "a", "options": file(), "foo": 1}):
        ours, theirs = (monitor.ask("blockdev-create", **arguments) for monitor in monitors)
        assert ours == theirs
        assert "error" in ours


@pytest.mark.parametrize("options", [
    file(filename="/nonexistent/x"), file(size=-1), file(size=1 << 62),
    file(preallocation="metadata"), qcow2(file="zz"), qcow2(size=-1), qcow2(size=1000),
    qcow2(version="v2", lazy_refcounts=True), qcow2(version="v2", extended_l2=True),
    qcow2(version="v2", refcount_bits=1), qcow2(version="v2", compression_type="zstd"),
    qcow2(cluster_size=1000), qcow2(cluster_size=4 * MIB), qcow2(cluster_size=256),
    qcow2(cluster_size=-1), qcow2(cluster_size=1 << 40), qcow2(refcount_bits=3),
    qcow2(refcount_bits=128), qcow2(refcount_bits=0), qcow2(refcount_bits=-1),
    qcow2(refcount_bits=1 << 33), qcow2(backing_fmt="qcow2"),
    qcow2(backing_file="f", preallocation="full"), qcow2(data_file_raw=True),
    qcow2(file="readonly"), qcow2(file="used")], ids=json.dumps)
def test_jobs_that_fail(monitors, options):
    seen = []
    for monitor in monitors:
        for name, more in (("bad", {}), ("readonly", {"read-only": True}), ("used", {})):
            path = monitor.folder / f"{name}.file"
            assert qemu_img("create", "-q", "-f", "qcow2", path, "1M").status == 0
            assert monitor.ask("blockdev-add", driver="file", filename=path.name,
                               **{"node-name": name}, **more) == {"return": {}}
        assert monitor.ask("blockdev-add", driver="qcow2", file="used",
                           **{"node-name": "user"}) == {"return": {}}
        seen.append(create(monitor, **options))
        for name in ("user", "used", "bad", "readonly"):
            assert monitor.ask("blockdev-del", **{"node-name": name}) == {"return": {}}
    assert seen[0] == seen[1]
    assert seen[0][0] == FAILED and seen[0][1][0]["error"]


@pytest.mark.parametrize("options", [qcow2(size=1 << 62), qcow2(size=1 << 44, cluster_size=512),
                                     qcow2(backing_file="x" * 1024)])
def test_jobs_that_fail_in_other_words(monitors, options):
    for monitor in monitors:
        new_node(monitor, "bad", "large.qcow2")
        states, jobs = create(monitor, **options)
        assert monitor.ask("blockdev-del", **{"node-name": "bad"}) == {"return": {}}
        assert states == FAILED and jobs[0]["error"]


def test_images_in_use_are_left_alone(monitors):
    for monitor in monitors:
        new_node(monitor, "n", "inuse.qcow2")
        assert good(create(monitor, driver="qcow2", file="n", size=MIB))
        assert monitor.ask("blockdev-add", driver="qcow2", file="n",
                           **{"node-name": "fmt"}) == {"return": {}}
        before = (monitor.folder / "inuse.qcow2").read_bytes()
        states, jobs = create(monitor, driver="file", filename="inuse.qcow2", size=0)
        assert states == FAILED and 'Failed to get "write" lock' in jobs[0]["error"]
        if monitor is monitors[0]:  # QEMU would make the image within the image
            states, jobs = create(monitor, driver="qcow2", file="fmt", size=MIB)
            assert states == FAILED and "'fmt' is an image's" in jobs[0]["error"]
        assert (monitor.folder / "inuse.qcow2").read_bytes() == before
        for name in ("fmt", "n"):
            assert monitor.ask("blockdev-del", **{"node-name": name}) == {"return": {}}


def test_no_image_is_made_of_its_backing_file(monitors):
    """QEMU does, and the data is gone."""
    monitor = monitors[0]
    base = monitor.folder / "base2.img"
    base.write_bytes(b"kept" * (MIB // 4))
    for backing in ("base2.img", str(base), f"../{monitor.folder.name}/base2.img"):
        states, jobs = create(monitor, **qcow2(file={"driver": "file", "filename": "base2.img"},
                                               backing_file=backing, backing_fmt="raw"))
        assert states == FAILED and "its own backing file" in jobs[0]["error"]
        assert base.read_bytes() == b"kept" * (MIB // 4)


def test_parts_that_are_not_made_here(monitors):
    evisor, _ = monitors
    for part in ({"data_file": "zz"}, {"encrypt": {"format": "luks"}}):
        error = create(evisor, **qcow2(**part))["error"]["desc"]
        assert f"'{[*part][0].replace('_', '-')}' is not supported" in error


def test_verbs_for_a_job_that_has_ended(monitors):
    seen = []
    for monitor in monitors:
        monitor.events.clear()
        request = {"job-id": "a", "options": file()}
        assert monitor.ask("blockdev-create", **request) == {"return": {}}
        wait_for(monitor, "concluded")
        answers = [monitor.ask("blockdev-create", **request)]
        answers += [monitor.ask("job-" + verb, id="a") for verb in (
            "cancel", "pause", "resume", "complete", "finalize")]
        answers += [monitor.ask("block-job-" + verb, device="a") for verb in ("cancel", "pause")]
        answers += [monitor.ask("block-job-dismiss", id="a")]
        answers += [monitor.ask("job-dismiss", id="a") for _ in range(2)]
        seen.append(answers)
        monitor.events.clear()
    assert seen[0] == seen[1]


def test_a_job_that_is_cancelled_fails_at_its_end(monitors):
    for monitor in monitors:
        monitor.events.clear()
        request = {"job-id": "a", "options": file(size=64 * MIB, preallocation="full")}
        assert monitor.ask("blockdev-create", **request) == {"return": {}}
        answer = monitor.ask("job-cancel", id="a")
        wait_for(monitor, "concluded")
        entry = monitor.ask("query-jobs")["return"][0]
        assert entry.get("error") == ("Operation canceled" if answer == {"return": {}} else None)
        assert monitor.ask("job-dismiss", id="a") == {"return": {}}
        monitor.events.clear()


def test_from_nothing_to_a_disk(monitors):
    evisor, _ = monitors
    new_node(evisor, "f", "disk.qcow2")
    assert good(create(evisor, driver="qcow2", file="f", size=8 * MIB))
    assert evisor.ask("blockdev-add", driver="qcow2", file="f",
                      **{"node-name": "fmt"}) == {"return": {}}
    assert evisor.ask("device_add", driver="virtio-blk-pci", drive="fmt", id="made") == {
        "return": {}}
    disks = [entry for entry in evisor.ask("query-block")["return"]
             if "made" in entry.get("qdev", "")]
    assert disks[0]["inserted"]["image"]["virtual-size"] == 8 * MIB
    assert disks[0]["inserted"]["image"]["format"] == "qcow2"


def test_the_end_of_the_machine_while_a_file_is_made(tmp_path):
    process, path = start(BUILD / "evisor", tmp_path, "e")
    monitor = Monitor(path)
    try:
        for job in ("a", "b"):
            options = file(filename=f"{job}.raw", size=64 * MIB, preallocation="full")
            assert monitor.ask("blockdev-create", **{"job-id": job, "options": options}) == {
                "return": {}}
        assert monitor.ask("quit") == {"return": {}}
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
