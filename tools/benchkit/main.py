# SPDX-License-Identifier: MIT
"""main: the command line of evisor-bench."""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from guestkit import packages

from . import guest, loops, machine, nbd, net, path, peers, plot
from .figures import OURS

DISK = {"blk": path.measure_blk, "kick": path.measure_kick, "disk": path.measure_disk,
        "nbd": nbd.measure_nbd}
NET = {"net": net.measure_net}
GUEST = {"guest": guest.measure_guest}
MACHINE = {"boot": machine.measure_boot, "exit": machine.measure_exit,
           "memory": machine.measure_memory, "loops": loops.measure_loops}

EPILOG = """examples:
  evisor-bench boot --accel soft --to init start-up on the software CPU, beside QEMU
  evisor-bench blk --depth 32 --random     virtio-blk beside fio without a VMM
  evisor-bench blk --format null           what the device model itself costs
  evisor-bench disk --format qcow2 --write --verify
  evisor-bench kick --disks 4 --random     four disks on one loop; is it the limit?
  evisor-bench kick --disks 4 --random --iothreads
                                           the same, and with a loop for each disk
  evisor-bench kick --vs qemu --depth 1,4,16,32 --random --plot curve.svg
  evisor-bench net --backend null --direction both --packet 64
  evisor-bench guest --accel soft          fio and iperf3 in a stock guest, beside QEMU
  evisor-bench nbd --depth 16 --random --json result.json --plot result.svg

Peers run in alternation. A ratio above 1 means that evisor is better; p is the chance that as large
a difference comes about where there is none, by a permutation test."""


QUEUES_MAX, DISKS_MAX = 8, 8


class OneLine(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to look."""

    def error(self, message):
        self.exit(1, f"{self.prog}: {message}; see {self.prog} --help\n")


def positive(text):
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


def seconds(text):
    if positive(text) > peers.SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"'{text}' is more than {peers.SECONDS_MAX}")
    return int(text)


def positives(text):
    return [positive(part) for part in text.split(",")]


PEERS = {"all": "all of them", "qemu": "the machine's QEMU", "fio": "fio without any VMM",
         "none": "nobody"}


def peers_of(name):
    """Whom `name` can be compared with."""
    return [peer for peer in PEERS if peer != "fio" or name in ("blk", "disk")]


def add_common(command, name, runs):
    command.add_argument("--runs", type=positive, default=runs, metavar="N",
                         help=f"how often each peer runs (default {runs})")
    command.add_argument("--vs", choices=peers_of(name), default="all",
                         help="whom to compare with: " + ", ".join(
                             f"{peer} ({PEERS[peer]})" for peer in peers_of(name)) + "; default all")
    command.add_argument("--json", metavar="FILE", help="write all values there")
    command.add_argument("--plot", metavar="FILE.svg", help="draw them (needs matplotlib)")


BLOCK_HELP = "size of a request (default 4096)"


def add_seconds(command, default):
    command.add_argument("--seconds", type=seconds, default=default, metavar="N",
                         help=f"how long a run takes (default {default})")


def add_disk_options(command, name):
    """What a path does not have is not offered: engine and NBD know no queues and no guest."""
    has_device = name in ("blk", "kick")
    command.set_defaults(disks=1, queues=1, iothreads=False, registered=False, verify=False)
    command.add_argument("--image", metavar="FILE", action="append", help="measure on this image"
                         + ("; again for each further disk" if has_device else "") +
                         "; --write changes it (default: made for the run)")
    command.add_argument("--format", choices=["raw", "qcow2"] + ["null"] * (name != "nbd"),
                         default="raw", help="null answers at once: what is left is evisor itself"
                         if name != "nbd" else None)
    command.add_argument("--image-mib", type=positive, default=1024, metavar="N",
                         help="size of an image made for the run (default 1024)")
    command.add_argument("--block", type=positive, default=4096, metavar="BYTES", help=BLOCK_HELP)
    command.add_argument("--depth", type=positives, default=[32], metavar="N[,N...]",
                         help="requests in flight; several depths are measured one after the "
                         "other, and drawn as a curve (default 32)")
    if has_device:
        command.add_argument("--disks", type=positive, default=None, metavar="N",
                             help="disks at once, each with its own image, device and depth, all "
                             "on one loop; beside as many processes with a disk each, and QEMU with "
                             "an I/O thread for each (default 1)")
        command.add_argument("--queues", type=positive, default=1, metavar="N",
                             help="virtqueues of a disk, over which its depth is spread (default 1)")
    command.add_argument("--read-percent", type=positive, default=None, metavar="N",
                         help="a mix of N %% reads, the rest writes")
    add_seconds(command, 3)
    flags = {"write": "writes instead of reads", "random": "at random offsets",
             "direct": "O_DIRECT"}
    if name != "nbd":
        flags["verify"] = "read back what was written"
    if name == "kick":
        flags["iothreads"] = ("also evisor with each disk and its device on a loop of their own "
                              "(-object iothread), whose threads' CPU time is told by itself")
    if has_device:
        flags["registered"] = "the guest's memory is registered with io_uring, as by -mem-prealloc"
    for flag, text in flags.items():
        command.add_argument(f"--{flag}", action="store_true", help=text)


def add_net_options(command):
    command.add_argument("--backend", choices=["all", "null", "internal", "tap", "slirp"],
                         default="null", help="null takes and gives frames at once: what is left "
                         "is the device; the others also run a TCP stack, beside QEMU's, and need "
                         "root (default null)")
    command.add_argument("--direction", choices=["send", "receive", "both", "all"], default="all",
                         help="both is both at once (default: one after the other)")
    command.add_argument("--packet", type=positive, default=None, metavar="BYTES",
                         help="a frame, from 60 to 1514 bytes (default 1514); with a TCP stack, "
                         "what a datagram carries (default 64)")
    command.add_argument("--streams", type=positive, default=None, metavar="N",
                         help="NICs, or pairs of them: 1 or 2 (default 1); with a TCP stack, "
                         "connections at once (default 1, then 4)")
    command.add_argument("--depth", type=positives, default=[32], metavar="N",
                         help="frames that the driver has in flight, without a TCP stack (default 32)")
    add_seconds(command, 2)


def add_guest_options(command):
    command.set_defaults(disks=1)
    command.add_argument("--image", metavar="FILE", action="append", help="the guest's second disk, "
                         "which is written (default: one made for the run)")
    command.add_argument("--format", choices=["raw", "qcow2"], default="raw")
    command.add_argument("--image-mib", type=positive, default=256, metavar="N",
                         help="size of an image made for the run (default 256)")
    command.add_argument("--block", type=positive, default=4096, metavar="BYTES", help=BLOCK_HELP)
    command.add_argument("--depth", type=positives, default=[32], metavar="N",
                         help="fio's requests in flight (default 32)")
    command.add_argument("--cpus", type=positive, default=1, metavar="N",
                         help="of the guest (default 1)")
    add_seconds(command, 5)


def parser():
    top = OneLine(
        prog="evisor-bench", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measures evisor's I/O paths, without a guest and with one, beside its peers.")
    commands = top.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, measure in {**DISK, **NET, **GUEST, **MACHINE}.items():
        command = commands.add_parser(name, help=measure.__doc__, description=measure.__doc__)
        add_common(command, name, 3 if name in GUEST else 5)
        if name in DISK:
            add_disk_options(command, name)
        elif name in NET:
            add_net_options(command)
        elif name != "loops":
            command.add_argument("--accel", default="soft", choices=["soft", "kvm"] + (
                ["all"] if name == "boot" else []))
        if name == "boot":
            command.add_argument("--to", choices=["first", "init", "all"], default="all",
                                 help="to the guest's first instruction, to init, or both")
        if name in GUEST:
            add_guest_options(command)
    return top


def is_writable(path):
    path = pathlib.Path(path)
    if path.exists():
        return not path.is_dir() and os.access(path, os.W_OK)
    return path.parent.is_dir() and os.access(path.parent, os.W_OK)


def check_destinations(options):
    """Before anything is measured: figures that cannot be written would be lost."""
    for option, path in (("--json", options.json), ("--plot", options.plot)):
        if path is not None and not is_writable(path):
            raise packages.Failure(f"{option}: {path or 'no name'} cannot be written: name a "
                                   "file in a folder of yours")
    if options.plot and not options.plot.endswith(".svg"):
        raise packages.Failure(f"--plot: {options.plot}: name a file that ends in .svg")


def check(options):
    check_destinations(options)
    for program in (peers.EVISOR, peers.EVISOR_IMG, peers.BENCH_PATH):
        if not program.exists():
            raise packages.Failure(f"{program} is not there: build it by ./configure && ninja")
    if options.what in ("net", "guest") and len(options.depth) > 1:
        raise packages.Failure(f"--depth: {options.what} takes one, not several")
    if getattr(options, "accel", "soft") != "soft":
        peers.check_accel("kvm")
    if options.what in DISK:
        check_disk(options)
    elif options.what in GUEST:
        check_disks(options)
        if options.block % 512:
            raise packages.Failure("the block size must be a multiple of 512")
    for image in getattr(options, "image", None) or []:
        check_image(image)


def check_image(image):
    try:
        with open(image, "rb"):
            pass
    except FileNotFoundError:
        raise packages.Failure(f"{image}: no such image: make one with evisor-img create, or leave "
                               "--image out") from None
    except OSError as error:
        raise packages.Failure(f"{image}: {error.strerror}: name an image of yours") from None


def check_disk(options):
    if options.format == "null" and options.image:
        raise packages.Failure("the format null has no image: leave --image out, or use raw")
    if options.verify and not options.write:
        raise packages.Failure("--verify compares what --write has written: give both")
    if options.read_percent is not None and (options.write or options.read_percent > 99):
        raise packages.Failure("--read-percent is from 1 to 99, and goes without --write")
    check_disks(options)
    if options.vs == "fio" and options.format != "raw":
        raise packages.Failure("fio knows raw images only: leave --vs out, or use --format raw")
    if options.registered and options.format == "null":
        raise packages.Failure("there is no io_uring below the format null to register memory with: "
                               "leave --registered out, or use raw")
    if options.iothreads and options.registered:
        raise packages.Failure("memory is registered with the io_uring of one loop: leave "
                               "--iothreads or --registered out")
    if options.vs == "qemu" and options.format == "null":
        raise packages.Failure("QEMU is not driven without an image: leave --vs out, or use raw")
    if options.queues > QUEUES_MAX:
        raise packages.Failure(f"--queues is from 1 to {QUEUES_MAX}")
    if options.what != "nbd":
        path.check_limits(options.what, options)


def check_disks(options):
    """Images that are given are as many as there are disks."""
    given = len(options.image or ())
    if given > 1 and options.what not in ("blk", "kick"):
        raise packages.Failure(f"{options.what} takes one image: give --image once")
    options.disks = options.disks or given or 1
    if given and given != options.disks:
        raise packages.Failure("each disk has an image of its own: give --image once for each, or "
                               "leave it out")
    if options.disks > DISKS_MAX:
        raise packages.Failure(f"--disks is from 1 to {DISKS_MAX}")
    if given != len({os.path.realpath(image) for image in options.image or ()}):
        raise packages.Failure("two disks cannot share an image: name another one for each")


def main():
    options = parser().parse_args()
    options.latencies, options.curves = {}, {}
    check(options)
    if options.plot:
        plot.prepare()
    if options.vs != "none" and options.what in {**MACHINE, **GUEST} and not shutil.which("qemu-system-x86_64"):
        print("qemu-system-x86_64 is not installed: evisor is measured alone")
    try:
        return run(options)
    except OSError as error:
        raise packages.Failure(str(error)) from error
    except subprocess.CalledProcessError as error:
        raise packages.Failure(f"{error.cmd[0]} failed with status {error.returncode}: is there room "
                               f"in {tempfile.gettempdir()}? TMPDIR names another folder") from error


def run(options):
    found = []
    try:
        with tempfile.TemporaryDirectory(prefix="evisor-bench-") as folder:
            for figure in {**DISK, **NET, **GUEST, **MACHINE}[options.what](options,
                                                                            pathlib.Path(folder)):
                found.append(figure)
                print("\n".join(figure.lines()), flush=True)
    finally:
        # What was measured before an interruption is not lost.
        if options.json and found:
            pathlib.Path(options.json).write_text(
                json.dumps([figure.as_json() for figure in found], indent=2) + "\n")
    if options.plot:
        drawn = [one for one in found if one.values]
        plot.draw(drawn, options.latencies, options.curves, options.plot)
    # Its line says that it did not get there.
    return 1 if any(one.values.get(OURS) == [] for one in found) else 0
