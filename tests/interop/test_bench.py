# SPDX-License-Identifier: MIT
"""evisor-bench: its statistics, its runs without a guest, and what it says of bad arguments."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tools"))
from benchkit import exits, guest, machine, main, path as disk_path, plot, syscalls  # noqa: E402
from benchkit.figures import Figure, alternate, permutation_test  # noqa: E402
from benchkit.peers import Peer, time_marks  # noqa: E402
from guestkit import kvmbox  # noqa: E402


def bench(*arguments):
    return subprocess.run([TOP / "tools/evisor-bench", *map(str, arguments)], check=False,
                          capture_output=True, text=True, timeout=120)


def path(*arguments):
    return subprocess.run([TOP / "build/bench-path", *map(str, arguments)], check=False,
                          capture_output=True, text=True, timeout=120)


def test_permutations_tell_chance_from_difference():
    assert permutation_test([1, 1, 1], [1, 1, 1]) == 1
    assert permutation_test([1, 2, 3], [11, 12, 13]) == pytest.approx(2 / 20)  # exact: 2 of 20 splits
    assert permutation_test([1, 2, 3, 4, 5, 6, 7, 8], [101, 102, 103, 104, 105, 106, 107, 108]) < 0.01
    assert permutation_test([1, 9, 2, 8], [2, 8, 1, 9]) == 1
    assert permutation_test([], [1]) == 1


@pytest.mark.parametrize("better,ratio", [("less", 2), ("more", 0.5)])
def test_a_ratio_above_1_is_better(better, ratio):
    figure = Figure("t", "s", better, {"evisor": [1, 2, 3], "peer": [4, 4, 4], "none": []})
    assert figure.ratio("peer") == ratio
    assert figure.as_json()["peers"]["peer"]["ratio"] == ratio
    assert any("did not get there" in line for line in figure.lines())


def test_the_spread_of_a_ratio_is_that_of_runs_side_by_side():
    values = {"evisor": [1, 2, 4], "peer": [2, 8, 4], "failed once": [1, 2]}
    figure = Figure("t", "s", "less", values, remarks=["below"], details={"peer": {"cpu": 7}})
    assert figure.spread("peer") == [1, 4] and figure.spread("failed once") is None
    assert "[1.00 .. 4.00]" in "\n".join(figure.lines()) and list(figure.lines())[-1] == "below"
    told = figure.as_json()["peers"]["peer"]
    assert told["spread"] == [1, 4] and told["cpu"] == 7


def test_what_was_measured_before_an_interruption_is_written(tmp_path, monkeypatch):
    def measure(*_):
        yield Figure("t", "s", "less", {"evisor": [1]})
        raise KeyboardInterrupt
    monkeypatch.setitem(main.MACHINE, "exit", measure)
    out = tmp_path / "out.json"
    with pytest.raises(KeyboardInterrupt):
        main.run(argparse.Namespace(what="exit", json=str(out), plot=None))
    assert json.loads(out.read_text())[0]["peers"]["evisor"]["median"] == 1


def test_a_folder_that_is_not_ours_is_good_enough_to_stand_in(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda *_: False)
    main.check_destinations(argparse.Namespace(json=None, plot=None))
    with pytest.raises(main.packages.Failure, match="cannot be written"):
        main.check_destinations(argparse.Namespace(json=str(tmp_path / "x"), plot=None))


def test_latencies_of_several_are_put_together():
    def raw(seconds, buckets):
        return {"operations": sum(count for _, count in buckets), "elapsed-ns": seconds * 10**9,
                "loop-cpu-ns": 5, "latency-ns": {"p50": 0, "buckets": buckets}}
    both = disk_path.merged([raw(1, [[10, 98], [50, 1]]), raw(2, [[10, 99], [20, 2]])])
    assert both["operations"] == 200 and both["elapsed-ns"] == 2 * 10**9 and both["loop-cpu-ns"] == 10
    assert both["latency-ns"]["buckets"] == [[10, 197], [20, 2], [50, 1]]
    assert (both["latency-ns"]["p50"], both["latency-ns"]["p99"]) == (10, 20)
    assert disk_path.percentile([], .5) == 0


def test_a_histogram_is_drawn_in_shares():
    points = plot.widened([[1000, 3], [1010, 3], [4000, 4]])
    assert sum(share for _, share in points) == pytest.approx(100)
    assert max(points, key=lambda one: one[1])[1] == pytest.approx(60)
    assert points[0][1] == points[-1][1] == 0 and points[0][0] < 1 < 4 < points[-1][0]
    assert plot.colour_of(["QEMU q35", "evisor"])["evisor"] == "C0"


def test_exits_that_are_quick_are_counted_by_the_million(tmp_path, monkeypatch):
    exit_peer = machine.Exits(Peer("quick", []), tmp_path)
    monkeypatch.setattr(exit_peer, "_seconds", lambda: [1e-7 * exit_peer.reads] * 2)
    assert exit_peer.us() == pytest.approx([0.1, 0.1])
    assert exit_peer.reads * 1e-7 >= machine.LONG_SECONDS


def test_the_box_shares_a_current_folder_that_it_would_hide():
    assert kvmbox.shared([], "/tmp/one") == ["/tmp/one"]
    assert kvmbox.shared(["/tmp/one"], "/tmp/one/tools") == ["/tmp/one"]
    assert kvmbox.shared(["/srv/x"], "/srv/y") == ["/srv/x"]
    assert kvmbox.shared([], "/tmpfoo") == []


def test_who_fails_at_first_is_not_waited_for_again():
    tries = []

    def measure(peer):
        tries.append(peer.name)
        return None if peer.name == "hangs" or tries == ["works", "hangs", "works"] else 1
    values = alternate([Peer("works", []), Peer("hangs", [])], 3, measure)
    assert values == {"works": [1, 1], "hangs": []}
    assert tries == ["works", "hangs", "works", "works"]


def test_marks_are_timed_and_not_waited_for_without_end():
    first, second = time_marks(["sh", "-c", "echo one; sleep 0.2; echo two; sleep 60"],
                               [b"one", b"two"])
    assert 0 < first and first + 0.15 < second
    assert time_marks(["sleep", "60"], [b"one"], timeout=0.2) is None
    assert time_marks(["echo", "one"], [b"one", b"two"]) is None


def test_what_a_machine_said_that_did_not_start_is_told(capsys):
    assert time_marks(["sh", "-c", "echo no such thing >&2; exit 1"], [b"one"]) is None
    assert capsys.readouterr().out == "no such thing\n"
    assert time_marks(["sh", "-c", "echo warning >&2; echo one; sleep 60"], [b"one"])
    assert capsys.readouterr().out == ""


def test_exits_are_told_by_kind_and_by_device():
    def counters(path, **values):
        return {"qom-path": path,
                "stats": [{"name": name.replace("_", "-"), "value": value}
                          for name, value in values.items()]}
    kinds, regions = exits.of_stats([
        counters("loop", turns=7), counters("vcpu0", pio_exits=2, pio_ns=3000, mmio_exits=0, mmio_ns=0),
        counters("vcpu1", pio_exits=2, pio_ns=5000),
        {"qom-path": "bus", "stats": [{"name": "rtc@70", "value": 1},
                                      {"name": "serial@3f8", "value": 3},
                                      {"name": "pit@40", "value": 0}]}])
    assert (kinds, regions) == ({"pio": [4, 8000]}, {"rtc@70": 1, "serial@3f8": 3})
    told = exits.Exits("t", kinds, regions, {"QEMU q35": {"exits": 9}})
    text = "\n".join(told.lines())
    assert text.index("serial@3f8") < text.index("rtc@70") and "2.0 us each" in text, text
    assert "QEMU q35" in text and "exits 9" in text, text
    assert told.as_json()["kinds"]["pio"] == {"count": 4, "ns": 8000}


def test_what_failed_in_the_guest_is_no_rate_of_0():
    fields = ["3", "fio-3.33", "job", "0", "0", *["0"] * 45]
    fields[7], fields[48] = "1234", "56"
    assert guest.value_of("randread", ";".join(fields)) == 1234
    assert guest.value_of("randwrite", ";".join(fields)) == 56
    fields[4] = "22"
    assert guest.value_of("randread", ";".join(fields)) is None
    assert guest.value_of("randread", "fio: no such file") is None
    assert guest.value_of("net-up", "[  5] 0.00-1.00 sec 10 MBytes 83.9 Mbits/sec receiver") == 83.9
    assert guest.value_of("net-up", "iperf3: error") is None


@pytest.mark.parametrize("kind", ["blk", "kick", "disk"])
@pytest.mark.parametrize("format_name", ["raw", "qcow2"])
def test_what_was_written_is_there(kind, format_name, tmp_path):
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", format_name, image, "16M"], check=True)
    done = path(kind, "--image", image, "--format", format_name, "--write", "--random", "--verify",
                "--depth", 16, "--seconds", 1)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["operations"] > 0 and figures["host-operations"] > 0
    assert sum(count for _, count in figures["latency-ns"]["buckets"]) == figures["operations"]
    assert (figures["kicks"] > 0) == (figures["interrupts"] > 0) == (kind != "disk")
    assert (figures["driver-cpu-ns"] > 0) == (kind == "kick")
    if format_name == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", image], check=True)


def test_several_queues_and_a_mix(tmp_path):
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", image, "16M"], check=True)
    done = path("kick", "--image", image, "--random", "--read-percent", 70, "--queues", 4,
                "--depth", 32, "--seconds", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["operations"] > 0
    assert image.stat().st_blocks > 0  # some of them were writes


@pytest.mark.parametrize("kind", ["blk", "kick"])
def test_several_disks_are_driven_at_once(kind, tmp_path):
    images = [tmp_path / name for name in "abc"]
    for image in images:
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", image, "8M"], check=True)
    done = path(kind, *(word for image in images for word in ("--image", image)), "--write",
                "--random", "--verify", "--depth", 8, "--queues", 2, "--seconds", 1)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert all(image.stat().st_blocks > 0 for image in images)
    assert sum(count for _, count in figures["latency-ns"]["buckets"]) == figures["operations"]
    assert figures["interrupts"] > 0 and figures["host-operations"] >= figures["operations"]


def test_one_loop_for_several_disks_stands_beside_a_process_for_each(tmp_path):
    out = tmp_path / "out.json"
    done = bench("kick", "--disks", 2, "--image-mib", 8, "--depth", 8, "--random", "--seconds", 1,
                 "--runs", 1, "--json", out)
    assert done.returncode == 0, done.stderr
    peers = json.loads(out.read_text())[0]["peers"]
    assert list(peers) == ["evisor", "a process each", "QEMU iothreads"]
    for peer in peers.values():
        assert peer["cpu-ns-per-operation"]["loop"] > 0 < peer["cpu-ns-per-operation"]["driver"]
    assert 0 < peers["evisor"]["per-1000-operations"]["loop-busy"] < 1.1
    assert "its loop was busy for" in done.stdout


@pytest.mark.parametrize("format_name,count", [("raw", 2), ("qcow2", 2), ("qcow2", 1)])
def test_what_io_threads_wrote_is_there_and_their_time_is_told(format_name, count, tmp_path):
    images = [tmp_path / name for name in "ab"[:count]]
    for image in images:
        subprocess.run(["qemu-img", "create", "-q", "-f", format_name, image, "16M"], check=True)
    done = path("kick", *(word for image in images for word in ("--image", image)), "--format",
                format_name, "--write", "--random", "--verify", "--block", 65536, "--depth", 16,
                "--seconds", 1, "--iothreads")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    # All of the disks' work is theirs; the first loop's thread only waits.
    assert 100 * figures["operations"] < figures["iothread-cpu-ns"] < figures["elapsed-ns"] * count
    assert 5 * figures["loop-cpu-ns"] < figures["iothread-cpu-ns"]
    assert figures["host-operations"] > 0
    assert sum(cost for _, cost in figures["latency-ns"]["buckets"]) == figures["operations"] > 0
    for image in images:
        assert image.stat().st_blocks > 0
        subprocess.run(["qemu-img", "check", "-q", image] if format_name == "qcow2" else ["true"],
                       check=True)


def test_io_threads_take_disks_that_answer_at_once():
    done = path("kick", "--format", "null", "--disks", 3, "--depth", 16, "--queues", 2, "--seconds",
                1, "--iothreads")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["iothread-cpu-ns"] > 5 * figures["loop-cpu-ns"]
    assert figures["host-operations"] >= figures["operations"] > 0 < figures["interrupts"]


@pytest.mark.parametrize("kind", ["blk", "disk", "net", "vhost"])
def test_io_threads_are_for_drivers_on_threads_of_their_own(kind):
    done = path(kind, "--format", "null", "--iothreads")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "measure 'kick', or leave --iothreads out" in done.stderr


def test_io_threads_stand_beside_the_one_loop(tmp_path):
    out = tmp_path / "out.json"
    done = bench("kick", "--disks", 2, "--iothreads", "--image-mib", 8, "--block", 65536, "--depth",
                 16, "--random", "--seconds", 1, "--runs", 1, "--vs", "none", "--json", out)
    assert done.returncode == 0, done.stderr
    peers = json.loads(out.read_text())[0]["peers"]
    assert list(peers) == ["evisor", "evisor iothreads"] and peers["evisor iothreads"]["ratio"] > 0
    assert list(peers["evisor"]["cpu-ns-per-operation"]) == ["loop", "driver", "pool"]
    assert peers["evisor iothreads"]["cpu-ns-per-operation"]["iothread"] > 20
    assert re.search(r"evisor iothreads CPU time an operation: loop \d+ ns, I/O threads [1-9]",
                     done.stdout)
    assert done.stdout.count("its loop was busy for") == 1
    assert done.stdout.count(" for 1,000 operations: ") == 2


def test_the_storage_daemon_of_qemu_is_a_peer(tmp_path):
    out = tmp_path / "out.json"
    done = bench("kick", "--image-mib", 16, "--depth", "1,8", "--random", "--seconds", 1, "--runs",
                 2, "--json", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("QEMU vhost-user  CPU time an operation: loop ") == 2
    figures = json.loads(out.read_text())
    rates = [figure for figure in figures if figure["title"].endswith(": throughput")]
    assert len(rates) == 2  # one for each depth
    assert all(figure["peers"]["QEMU vhost-user"]["ratio"] > 0 for figure in rates)


def test_both_nbd_servers_are_driven_and_their_time_is_told(tmp_path):
    out, drawing = tmp_path / "out.json", tmp_path / "out.svg"
    done = bench("nbd", "--image-mib", 16, "--depth", "1,8", "--seconds", 1, "--runs", 1, "--json",
                 out, "--plot", drawing)
    assert done.returncode == 0, done.stderr
    for peer in ("evisor", "qemu-nbd"):
        assert len(re.findall(rf"{peer} +CPU time an operation: loop [1-9]", done.stdout)) == 2
    rates = [figure for figure in json.loads(out.read_text())
             if figure["title"].endswith(": throughput")]
    assert len(rates) == 2 and all(one["peers"]["qemu-nbd"]["ratio"] > 0 for one in rates)
    assert "throughput over depth" in drawing.read_text()


@pytest.mark.parametrize("words", [[], ["--write", "--verify"]], ids=["read", "write"])
def test_what_qcow2_costs_is_told_on_its_own_file(tmp_path, words):
    out = tmp_path / "out.json"
    done = bench("disk", "--format", "qcow2", "--image-mib", 16, "--depth", 8, "--random",
                 "--seconds", 1, "--runs", 2, "--json", out, *words)
    assert done.returncode == 0, done.stderr
    peers = json.loads(out.read_text())[0]["peers"]
    assert peers["evisor"]["median"] > 0 and peers["its file as raw"]["ratio"] > 0


def test_port_and_memory_exits_are_timed(tmp_path):
    out = tmp_path / "out.json"
    done = bench("exit", "--runs", 1, "--vs", "none", "--json", out)
    assert done.returncode == 0, done.stderr
    port, memory = json.loads(out.read_text())
    assert "port exit" in port["title"] and port["peers"]["evisor"]["median"] > 0
    assert "memory exit" in memory["title"] and memory["peers"]["evisor"]["median"] > 0


def test_peers_that_are_not_there_are_left_out(tmp_path):
    (tmp_path / "python3").symlink_to(sys.executable)
    done = subprocess.run([TOP / "tools/evisor-bench", "blk", "--image-mib", "8", "--seconds", "1",
                           "--runs", "1"], env={**os.environ, "PATH": str(tmp_path)}, check=False,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in ("fio is left out", "qemu-storage-daemon is not installed", "strace"):
        assert name in done.stdout
    assert "evisor " in done.stdout


def test_registered_memory_is_used():
    done = path("blk", "--format", "null", "--registered", "--seconds", 1)
    assert done.returncode == 1 and "cannot register memory" in done.stderr  # there is no ring


def test_figures_are_written(tmp_path):
    out = tmp_path / "out.json"
    done = bench("blk", "--format", "null", "--seconds", 1, "--runs", 2, "--json", out)
    assert done.returncode == 0, done.stderr
    assert "kop/s" in done.stdout and "kicks" in done.stdout
    titles = {figure["title"].split(": ")[1]: figure for figure in json.loads(out.read_text())}
    assert len(titles["throughput"]["peers"]["evisor"]["values"]) == 2


@pytest.mark.parametrize("arguments,said", [
    (["blk", "--format", "null", "--image", "x"], "the format null has no image"),
    (["disk", "--verify"], "--verify compares what --write has written"),
    (["disk", "--image", "/nowhere"], "/nowhere: no such image"),
    (["blk", "--format", "null", "--depth", "100"], "at most 85 requests"),
    (["disk", "--format", "null", "--block", "1000"], "multiple of 512"),
    (["disk", "--format", "null", "--depth", "1000"], "--depth: '1000' is no number from 1 to 256"),
    (["disk", "--image-mib", "1000000000"], "use a smaller --image-mib"),
    # Before there is an image: this one would be too large.
    (["blk", "--image-mib", "1000000000", "--depth", "8,100"], "at most 85 requests"),
    (["disk", "--image-mib", "1000000000", "--write", "--verify", "--block", "1000"], "multiple of 512"),
    (["blk", "--json", "/nowhere/x"], "--json: /nowhere/x cannot be written"),
    (["blk", "--plot", "x.txt"], "ends in .svg"),
    (["blk", "--depth", "4,x"], "'x' is no number above 0"),
    (["net", "--depth", "4,8"], "net takes one"),
    (["guest", "--image", "/nowhere"], "/nowhere: no such image"),
    (["guest", "--block", "1000"], "multiple of 512"),
    (["kick", "--queues", "9"], "--queues is from 1 to 8"),
    (["memry"], "invalid choice: 'memry'"),
    (["kick", "--disks", "9"], "--disks is from 1 to 8"),
    (["disk", "--image", "/etc/passwd", "--image", "/etc/hostname"], "disk takes one image"),
    (["kick", "--image", "/etc/passwd", "--image", "/etc/../etc/passwd"], "cannot share an image"),
    (["kick", "--image", "/etc/passwd", "--disks", "2"], "an image of its own"),
    (["kick", "--format", "null", "--disks", "8", "--depth", "64"], "at most 256 requests"),
    (["blk", "--format", "null", "--registered"], "no io_uring below the format null"),
    (["kick", "--iothreads", "--registered"], "leave --iothreads or --registered out"),
    (["blk", "--iothreads"], "unrecognized arguments: --iothreads"),
    (["disk", "--iothreads"], "unrecognized arguments: --iothreads"),
    (["nbd", "--iothreads"], "unrecognized arguments: --iothreads"),
    (["blk", "--format", "qcow2", "--vs", "fio"], "fio knows raw images only"),
    (["nbd", "--queues", "2"], "unrecognized arguments: --queues"),
    (["disk", "--registered"], "unrecognized arguments: --registered"),
    (["disk", "--seconds", "4000"], "'4000' is more than 3600"),
    (["blk", "--image", "/"], "/: Is a directory"),
])
def test_bad_arguments_get_one_line(arguments, said):
    done = bench(*arguments)
    assert done.returncode == 1 and said in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "evisor-bench: evisor-bench" not in done.stderr


def who_names(folder):
    """The processes that were told of a folder."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path.parent.name] if str(folder) in path.read_text(errors="replace") else []
    return found


def wait_until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("number,arguments", [
    (signal.SIGINT, ["kick", "--image-mib", 16, "--seconds", 60]),
    (signal.SIGTERM, ["nbd", "--image-mib", 16, "--seconds", 60]),
    (signal.SIGINT, ["exit", "--vs", "none", "--runs", 1000])])
def test_nothing_is_left_of_what_was_interrupted(arguments, number, tmp_path):
    with subprocess.Popen([TOP / "tools/evisor-bench", *map(str, arguments)],
                          env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: who_names(tmp_path), "its children")
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr.read() == ""
    wait_until(lambda: not who_names(tmp_path), "the end of its children")
    assert list(tmp_path.iterdir()) == []


def test_frames_pass_a_network_card():
    for backend, direction in (("null", "send"), ("null", "receive"), ("internal", "send")):
        done = path("net", "--format", backend, "--direction", direction, "--block", 100, "--depth",
                    8, "--seconds", 1)
        assert done.returncode == 0, done.stderr
        figures = json.loads(done.stdout)
        assert (figures["operations"] > 0) == (direction == "send")
        assert (figures["received"] > 0) == (backend == "internal" or direction == "receive")


def test_interrupts_of_several_cards_are_counted_once():
    done = path("net", "--format", "null", "--queues", 2, "--direction", "send", "--block", 100,
                "--depth", 8, "--seconds", 1)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    # A turn has one for each card that sends.
    assert 0 < figures["interrupts"] <= 2 * figures["loop-turns"] + 2


def test_a_network_is_made_in_the_folder_for_temporary_files(tmp_path):
    done = subprocess.run([TOP / "build/bench-path", "net", "--format", "internal", "--block",
                           "100"], check=False, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "TMPDIR": str(tmp_path / "none")})
    assert done.returncode == 1 and str(tmp_path / "none") in done.stderr


def test_system_calls_are_counted():
    way = syscalls.way()
    if way is None:
        pytest.skip("this host lets nobody count system calls")
    output, calls = syscalls.count(["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=10000"])
    assert output == "" and 20000 <= calls < 22000  # a read and a write for each
