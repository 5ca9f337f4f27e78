# SPDX-License-Identifier: MIT
"""runner: the test run: stages in order, fast ones first; each test is one line, with its time."""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tools"))
from guestkit import machine, packages  # noqa: E402
from guestkit.kernel import Kernel  # noqa: E402
import accel_compare  # noqa: E402
import iotests  # noqa: E402

BUILD = TOP / "build"
RESULTS = BUILD / "test-results"
WORKERS = 2  # that run tests side by side; many a test has two busy threads itself
STUCK_S = 600  # after which a test says where it is


class Tally:
    """What came out, and the lines that say so: printed at once, or held while others print."""

    def __init__(self, is_held=False):
        self.passed, self.failed, self.skipped = 0, [], 0
        self.held = [] if is_held else None

    def say(self, text):
        if self.held is None:
            print(text, flush=True)
        else:
            self.held.append(text)

    def take(self, other):
        """Adds what another counted, and prints what it held."""
        for text in other.held:
            self.say(text)
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def add(self, name, outcome, seconds, detail=""):
        if outcome == "passed":
            self.passed += 1
        elif outcome == "skipped":
            self.skipped += 1
        else:
            self.failed.append(name)
        self.say(f"  {outcome:8}{name}  ({seconds:.1f} s){': ' + detail if detail else ''}")


def run_command(tally, name, command, timeout, environment=None):
    """One command is one test; its output is shown only when it fails."""
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                              check=False, timeout=timeout, cwd=TOP, stdin=subprocess.DEVNULL,
                              env={**os.environ, **(environment or {})})
        status, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        status, output = "a timeout", str(error.stdout or "")
    seconds = time.monotonic() - began
    if status == 0:
        tally.add(name, "passed", seconds)
    else:
        tally.say(output[-6000:])
        tally.add(name, "failed", seconds, f"status {status}")


def run_cmocka(tally, program, environment=None):
    """A cmocka program: each of its tests counts."""
    began = time.monotonic()
    try:
        done = subprocess.run([program], capture_output=True, text=True, errors="replace",
                              check=False, timeout=600, cwd=TOP, stdin=subprocess.DEVNULL,
                              env={**os.environ, **(environment or {})})
        output, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired:
        output, status = "", "a timeout"
    seconds = time.monotonic() - began
    good = re.findall(r"^\[       OK \] (\S+)", output, re.MULTILINE)
    bad = set(re.findall(r"^\[  FAILED  \] (\S+)$", output, re.MULTILINE))
    skipped = set(re.findall(r"^\[  SKIPPED \] (\S+)", output, re.MULTILINE))
    tally.passed += len(good)
    tally.skipped += len(skipped)
    if status == 0 and "[==========]" not in output:
        # No cmocka program: a test by itself, whose last line says what it did.
        tally.add(program.name, "passed", seconds, output.strip().split("\n")[0][:100])
        return
    if status == 0 and good:
        note = f", {len(skipped)} skipped: {', '.join(sorted(skipped))}" if skipped else ""
        tally.say(f"  passed  {program.name}  ({len(good)} tests{note}, {seconds:.1f} s)")
        return
    tally.say(output[-6000:])
    for name in sorted(bad) or [f"ended with {status}"]:
        tally.add(f"{program.name}: {name}", "failed", seconds)


def run_pytest(tally, folder, environment=None, timeout=1800, prefix=(), select=None, workers=0):
    """A folder of pytest files, by as many workers (0: in one process); outcomes come from its
    report."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = RESULTS / (folder.replace("/", "-") + ".xml")
    report.unlink(missing_ok=True)
    command = [*prefix, "env", "PYTHONDONTWRITEBYTECODE=1", "pytest-3", "-v", "-p",
               "no:cacheprovider", "-o", f"faulthandler_timeout={STUCK_S}", f"--junitxml={report}", *(["-m", select] if select else []),
               *(["-n", str(workers), "--dist", "loadfile"] if workers else []), folder]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                              check=False, timeout=timeout, cwd=TOP, stdin=subprocess.DEVNULL,
                              env={**os.environ, **(environment or {})})
        output = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        output = f"{folder} took longer than {timeout} s\n{error.stdout or ''}"
    if not report.exists():
        tally.say(output[-6000:])
        tally.add(folder, "failed", time.monotonic() - began, "gave no report")
        return
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        count_case(tally, case)


def count_case(tally, case):
    name = f"{case.get('classname').split('.')[-1]}::{case.get('name')}"
    seconds = float(case.get("time"))
    for tag in ("failure", "error"):
        problem = case.find(tag)
        if problem is not None:
            tally.say((problem.text or "")[-6000:])
            tally.add(name, "failed", seconds, (problem.get("message") or "").split("\n")[0][:200])
            return
    skip = case.find("skipped")
    if skip is not None:
        tally.add(name, "skipped", seconds, skip.get("message"))
    else:
        tally.add(name, "passed", seconds)


def stage(tally, name):
    tally.say(f"\n== {name}")


def build(tally):
    stage(tally, "build")
    before = len(tally.failed)
    run_command(tally, "configure", ["./configure"], 120)
    run_command(tally, "ninja", ["ninja", "programs", "tests"], 3600)
    return len(tally.failed) == before


def compile_more(tally):
    """What no other stage needs before the last, and the second compiler."""
    stage(tally, "build: fuzzers, TSan, clang")
    run_command(tally, "ninja: fuzzers and TSan",
                ["ninja", "soft-tests", "tsan-tests", "fuzzers"], 3600)
    run_command(tally, "no warnings with clang", ["tests/clang-build"], 1800)


def unit(tally):
    stage(tally, "rules of the house")
    run_command(tally, "check_rules", ["python3", "-B", "tests/check_rules.py"], 60)
    stage(tally, "unit tests, under ASan and UBSan")
    programs = [program for program in sorted((BUILD / "tests").glob("test_*"))
                if os.access(program, os.X_OK) and program.is_file() and not program.suffix]

    def run(program):
        part = Tally(is_held=True)
        run_cmocka(part, program)
        return part

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as workers:
        for part in workers.map(run, programs):
            tally.take(part)


def guests(tally):
    stage(tally, "guests")
    run_pytest(tally, "tests/guest", workers=WORKERS)


def kvm_is_native():
    return machine.kvm_is_native(BUILD / "evisor", Kernel().image)


def compare_accelerators(tally, in_box):
    """System instructions and exceptions: what small programs leave behind under both."""
    began = time.monotonic()
    count, differences = accel_compare.compare(in_box)
    for difference in differences[:40]:
        tally.say(difference)
    tally.add(f"accel_table: soft and KVM agree in every register after {count} programs",
              "failed" if differences or not count else "passed", time.monotonic() - began)


def kvm(tally):
    """The guest tests on the KVM code: all of them natively, or the marked ones in the box."""
    environment = {"EVISOR_ACCEL": "kvm"}
    if kvm_is_native():
        stage(tally, "guests under KVM")
        run_pytest(tally, "tests/guest", environment)
        compare_accelerators(tally, in_box=False)
        return
    stage(tally,
          "guests under KVM, in the KVM box (this host has no KVM that runs guests natively)")
    RESULTS.mkdir(parents=True, exist_ok=True)
    box = ["tools/kvm-box", "--writable", str(RESULTS), "--timeout", "1500", "--", "env",
           "EVISOR_ACCEL=kvm", "EVISOR_CACHE=" + str(packages.cache_folder())]
    run_pytest(tally, "tests/guest", environment, prefix=box, select="box")
    compare_accelerators(tally, in_box=True)


def interop(tally):
    stage(tally, "interop: evisor-img and QEMU's tools on the same images")
    run_pytest(tally, "tests/interop", workers=WORKERS)


def evctl(tally):
    stage(tally, "evctl, as a person types it")
    run_pytest(tally, "tests/evctl", workers=WORKERS)


def networks(tally):
    stage(tally, "networks: every kind, in namespaces of its own")
    run_pytest(tally, "tests/net")


def qemu_iotests(tally):
    stage(tally, "QEMU's own tests of qemu-img, run on evisor-img")
    for name, outcome, seconds, detail, output in iotests.results():
        if outcome == "failed":
            tally.say(output[-6000:])
        tally.add(name, outcome, seconds, detail)


def crash(tally):
    """Power cuts and faults under the disk engine, and whether each of its rules is needed."""
    stage(tally, "power cuts: the disk engine on a simulated disk")
    run_command(tally, "crash: a million states", ["tests/crash", "--states", "1000000", "--seed",
                                                   "1"], 1200)
    run_command(tally, "crash: every rule of order, broken, is noticed",
                ["tests/crash", "--gate"], 900)


def proof(tally):
    """What compares the software CPU with the host's, and looks for races and crashes."""
    stage(tally, "the software CPU against the host's, its threads under TSan, parsers under "
          "fuzzing")
    run_command(tally, "soft_fuzz: 20 million instructions",
                ["build/tests/soft_fuzz", "--cases", "20000000"], 1200)
    for words in (["--32"], ["--set", "vex", "--32"]):
        run_command(tally, f"soft_fuzz {' '.join(words)}: 2 million instructions",
                    ["build/tests/soft_fuzz", *words, "--cases", "2000000"], 600)
    for name in ("tsan_soft_smp", "tsan_soft_lapic", "tsan_side_loop", "tsan_disk_move"):
        run_cmocka(tally, BUILD / "tests" / name,
                   {"TSAN_OPTIONS": "suppressions=tests/tsan.supp"})
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as workers:
        runs = [workers.submit(fuzz, tally, name)
                for name in ("fuzz_soft", "fuzz_control", "fuzz_frames", "fuzz_snoop", "fuzz_nbd")]
        runs += [workers.submit(fuzz_images, tally, kind) for kind in ("qcow2", "foreign")]
        for run in runs:
            run.result()


# Of the same code the same inputs: what fails here is the change's, not the draw's.
FUZZ_SEED = "-seed=1"


def fuzz(tally, name):
    corpus = []
    if name == "fuzz_soft":
        corpus = [f"build/tests/corpus-{name}"]
        run_command(tally, f"{name}: seeds", ["sh", "-c", 'mkdir -p "$0" && '
                                              'build/tests/accel_table --seeds "$0"', *corpus], 60)
    run_command(tally, f"{name}: 20 s", [f"build/tests/{name}", FUZZ_SEED, "-max_total_time=20",
                                         "-rss_limit_mb=2048", "-timeout=30", *corpus], 240)


def fuzz_images(tally, kind):
    """No crash, no hang, no allocation out of proportion, from whole images on."""
    corpus = f"build/tests/corpus-{kind}"
    run_command(tally, f"fuzz_{kind}: seeds",
                ["python3", "-B", "tests/fuzz/seeds.py", kind, corpus], 120)
    run_command(tally, f"fuzz_{kind}: 30 s", [
        f"build/tests/fuzz_{kind}", FUZZ_SEED, "-max_len=65536", "-timeout=10", "-malloc_limit_mb=64",
        "-rss_limit_mb=1024", "-max_total_time=30", corpus], 240)


STAGES = {"compile": compile_more, "unit": unit, "interop": interop, "iotests": qemu_iotests, "evctl": evctl,
          "net": networks, "crash": crash, "guest": guests, "kvm": kvm, "proof": proof}
# Run together: none of a group keeps both cores busy by itself. (Only one of a group may run ninja.)
SIDE_BY_SIDE = [("unit", "compile"), ("interop", "iotests"), ("evctl", "net", "crash"), ("guest",),
                ("kvm", "proof")]


def run_stages(tally, wanted):
    for group in SIDE_BY_SIDE:
        names = [name for name in group if name in wanted]
        parts = [Tally(is_held=True) for _ in names[1:]]
        with concurrent.futures.ThreadPoolExecutor(len(parts) or 1) as others:
            beside = [others.submit(STAGES[name], part) for name, part in zip(names[1:], parts)]
            for name in names[:1]:
                STAGES[name](tally)
            for run, part in zip(beside, parts):
                run.result()
                tally.take(part)


def measure():
    """The figures of docs/performance.md; under KVM in the box where no host offers it natively."""
    bench = ["tools/evisor-bench"]
    runs = [["boot"], ["exit"], ["memory"], ["loops"], ["disk", "--random"], ["blk", "--random"],
            ["blk", "--random", "--write"], ["blk", "--random", "--format", "qcow2"],
            ["kick", "--format", "null", "--depth", "1"], ["nbd", "--random"]]
    status = max(subprocess.run(bench + run, check=False, cwd=TOP).returncode for run in runs)
    status = max(status, subprocess.run(["tools/bench-disk"], check=False, cwd=TOP).returncode)
    for run in (["boot"], ["exit"], ["memory"]):
        command = [*bench, *run, "--accel", "kvm", "--runs", "3"]
        status = max(status, subprocess.run(
            command if kvm_is_native() else ["tools/kvm-box", "--timeout", "1500", "--", *command],
            check=False, cwd=TOP).returncode)
    return status


def main():
    parser = argparse.ArgumentParser(
        prog="tests/run", description="Installs what is missing, builds, and runs every test.")
    parser.add_argument("stage", nargs="*", metavar="STAGE",
                        help="only these, of: " + ", ".join(STAGES))
    parser.add_argument("--measure", action="store_true",
                        help="print the figures of docs/performance.md instead of testing")
    options = parser.parse_args()
    unknown = set(options.stage) - set(STAGES)
    if unknown:
        parser.error(f"unknown stage '{unknown.pop()}': use " + ", ".join(STAGES))
    packages.install(packages.BUILD + packages.GUEST + packages.TESTS, "the tests")
    if options.measure:
        return measure()
    tally = Tally()
    began = time.monotonic()
    if build(tally):
        run_stages(tally, ["compile", *options.stage] if options.stage else STAGES)
    for name in tally.failed:
        print(f"failed: {name}")
    print(f"\nin {time.monotonic() - began:.0f} s")
    print(f"{tally.passed} passed, {len(tally.failed)} failed, {tally.skipped} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    packages.main(main)
