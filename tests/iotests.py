# SPDX-License-Identifier: MIT
"""
iotests: QEMU's own block tests with evisor-img in the place of qemu-img and the real qemu-io beside.

The tests compare texts, so they also hold evisor-img's wording to qemu-img's. They are QEMU's (GPL):
fetched from Debian's source package into the cache when they are run, and no part of evisor.
`python3 -B tests/iotests.py [TEST...]` runs all or some; the test run calls results().
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tools"))
from guestkit import packages  # noqa: E402

SUITE = "bookworm"  # of Debian: the expected outputs are those of its QEMU, 7.2
TEST_TIMEOUT_S = 600

TESTS = """
001 002 003 004 005 008 009 010 011 012 013 014 015 017 018 019 021 022 023 024 025 026 027 029 031
032 033 034 035 036 037 038 039 042 043 046 047 048 050 052 053 054 062 063 066 069 072 073 079 086
089 090 097 103 104 105 107 111 115 121 126 133 137 138 154 159 170 174 177 179 187 197 214 215 226
243 265 268 272 279 287 289 290 292 305 313
""".split()

# What cannot be the same, and why. A test that passes after all is reported, too.
DIFFERENT = {
    "020": "its fault comes from QEMU's driver blkdebug, inside qemu-img",
    "049": "makes an encrypted image, which evisor refuses",
    "061": "amend prints no progress while it expands zeroes, and cannot exchange the data file",
    "074": "its fault comes from QEMU's driver blkdebug, inside qemu-img",
    "080": "a broken snapshot table is refused in a sentence, not with an errno",
    "082": "-o help does not offer encryption",
    "098": "its fault comes from QEMU's driver blkdebug, inside qemu-img",
    "110": "opens images through QEMU's drivers blkdebug and quorum",
    "112": "a snapshot that finds a refcount full leaves no leaked cluster behind",
    "114": "a header with the same extension twice is refused",
    "122": "convert drops each cluster of zeroes, also where it is smaller than -S",
    "125": "a grown image takes one cluster less of the file",
    "134": "makes an encrypted image, which evisor refuses",
    "150": "opens QEMU's driver null-co",
    "158": "makes an encrypted image, which evisor refuses",
    "190": "prints the length of a file, which is the allocator's affair: ours is shorter",
    "204": "opens an image through QEMU's driver blkdebug",
    "217": "its fault comes from QEMU's driver blkdebug, inside qemu-img",
    "250": "map does not look for holes of the file below preallocated clusters",
    "252": "rebase writes zeroes as data where the image has no backing file yet",
    "261": "repairs snapshot tables that evisor reads as they are",
    "270": "sets a data file that is no file (null-co)",
    "271": "a zeroed cluster of extended L2 keeps saying so after a discard",
}


def fetch():
    """The folder of the unpacked tests. Raises packages.Failure with what the mirror said."""
    folder = packages.cache_folder() / f"qemu-iotests-{SUITE}"
    if folder.exists():
        return folder
    options = packages.source_options(SUITE)
    work = packages.cache_folder() / f".iotests.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        for words in (["update"], ["source", "--download-only", "--tar-only", "qemu"]):
            done = subprocess.run(["apt-get", "-qq", *options, *words], cwd=work, text=True,
                                  capture_output=True, check=False)
            if done.returncode:
                raise packages.Failure(f"the mirror has no source package of qemu: "
                                       f"{done.stderr.strip().splitlines()[-1:]}")
        archive = next(work.glob("*.orig.tar.*"))
        (work / "q").mkdir()
        subprocess.run(["tar", "-xf", archive, "-C", work / "q", "--strip-components=1",
                        "--wildcards", "*/tests/qemu-iotests", "*/python"], check=True)
        (work / "q").rename(folder)
    except (StopIteration, subprocess.CalledProcessError) as error:
        raise packages.Failure(f"the source package of qemu is not what was expected: {error}") \
            from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def environment(work):
    """evisor-img goes by the name qemu-img: what it calls itself in messages is its link's name."""
    for name in ("bin", "test", "sock"):
        (work / name).mkdir()
    (work / "bin" / "qemu-img").symlink_to(TOP / "build" / "evisor-img")
    programs = {"QEMU_IO_PROG": "qemu-io", "QEMU_PROG": "qemu-system-x86_64",
                "QEMU_NBD_PROG": "qemu-nbd", "QSD_PROG": "true"}
    found = {variable: shutil.which(name) or "/bin/true" for variable, name in programs.items()}
    return {**os.environ, **found, "QEMU_IMG_PROG": str(work / "bin" / "qemu-img"),
            "TEST_DIR": str(work / "test"), "SOCK_DIR": str(work / "sock"),
            "PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"}


def run_one(folder, work, variables, test):
    """(outcome, detail, output)"""
    command = [sys.executable, "./check", "-qcow2", test]
    try:
        done = subprocess.run(command, cwd=folder / "tests" / "qemu-iotests", env=variables,
                              text=True, errors="replace", capture_output=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=TEST_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "failed", f"took longer than {TEST_TIMEOUT_S} s", ""
    output = done.stdout + done.stderr
    not_run = re.search(r"not run.*?\]\s*(?:\.\.\.)?\s*(.*)", output)
    if not_run:
        return "skipped", not_run.group(1).strip(), output
    return ("failed" if done.returncode else "passed"), "", output


def judge(test, outcome, detail):
    if test not in DIFFERENT or outcome == "skipped":
        return outcome, detail
    if outcome == "passed":
        return "failed", "is listed as different, but passes: move it to TESTS"
    return "skipped", DIFFERENT[test]


def results(tests=()):
    """Yields (name, outcome, seconds, detail, output) per test."""
    try:
        folder = fetch()
    except packages.Failure as failure:
        yield "QEMU's iotests", "skipped", 0.0, str(failure), ""
        return
    for test in tests or sorted(TESTS + list(DIFFERENT)):
        with tempfile.TemporaryDirectory(prefix="iotests") as name:
            work = pathlib.Path(name)
            began = time.monotonic()
            outcome, detail, output = run_one(folder, work, environment(work), test)
            outcome, detail = judge(test, outcome, detail)
            yield f"iotest {test}", outcome, time.monotonic() - began, detail, output


def main():
    failed = 0
    for name, outcome, seconds, detail, output in results(sys.argv[1:]):
        if outcome == "failed":
            failed += 1
            print(output[-6000:])
        print(f"  {outcome:8}{name}  ({seconds:.1f} s){': ' + detail if detail else ''}",
              flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    packages.main(main)
