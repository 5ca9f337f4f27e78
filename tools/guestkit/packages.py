# SPDX-License-Identifier: MIT
"""packages: Debian packages: which are missing, installing them, unpacking one without installing."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys

BUILD = ["gcc", "libc6-dev", "ninja-build", "pkg-config", "libuv1-dev", "libslirp-dev",
         "zlib1g-dev", "libjansson-dev", "libexpat1-dev",
         "liburing-dev", "libzstd-dev", "liblz4-dev", "liblzma-dev"]
GUEST = ["busybox-static", "e2fsprogs"]
TESTS = ["libcmocka-dev", "python3-pytest", "qemu-utils", "qemu-system-x86", "clang",
         "libclang-rt-14-dev", "acpica-tools", "man-db", "lz4", "iproute2", "mmdebstrap",
         "libnbd-bin", "fio", "xz-utils", "nftables", "dnsmasq-base", "passt", "iputils-ping",
         "ethtool", "iperf3", "inetutils-telnet", "python3-pytest-xdist",
         "procps", "socat", "strace", "zsh", "genisoimage", "python3-matplotlib"]


class Failure(Exception):
    """One line for the person: what failed and what to do."""


def cache_folder():
    base = os.environ.get("EVISOR_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        base = os.path.join(home, "evisor")
    path = pathlib.Path(base)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name):
    """One process at a time, of those that share the cache."""
    with open(cache_folder() / f".{name}.lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_installed(name):
    if not shutil.which("dpkg-query"):
        return False
    query = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name],
                           capture_output=True, text=True, check=False)
    return query.stdout == "installed"


def missing(names):
    return [name for name in names if not is_installed(name)]


def _as_root(command):
    return command if os.geteuid() == 0 else ["sudo", *command]


def _apt(*arguments):
    command = _as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", *arguments])
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL if os.geteuid() == 0 else None,
                   stdout=subprocess.DEVNULL)


def _apt_lists_are_empty():
    lists = pathlib.Path("/var/lib/apt/lists")
    return not any(path.name.endswith(("_Packages", "_Packages.lz4")) for path in lists.glob("*"))


def _install_now(names):
    if _apt_lists_are_empty():
        _apt("update")
    try:
        _apt("install", "-y", "--no-install-recommends", *names)
    except subprocess.CalledProcessError:
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *names)


def install(names, why):
    """Installs what is missing of `names`, after saying what and why."""
    wanted = missing(names)
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        raise Failure("this system has no apt-get; install what corresponds to: " +
                      " ".join(wanted))
    print(f"installing for {why}: {' '.join(wanted)}", flush=True)
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise Failure("run as root: apt-get install " + " ".join(wanted))
        print("  (through sudo, which may ask for your password)", flush=True)
    try:
        with locked("apt"):
            _install_now(wanted)
    except subprocess.CalledProcessError as error:
        raise Failure("apt-get could not install " + " ".join(wanted)) from error


def _suite_options(suite, kind="deb", architecture=None):
    """Options that make apt see one other suite of Debian, in a state folder of its own."""
    words = [suite, kind if kind != "deb" else "", architecture or ""]
    state = cache_folder() / "apt" / "-".join(word for word in words if word)
    for part in ("state/lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "sources.list").write_text(
        f"{kind} [{f'arch={architecture} ' if architecture else ''}signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
        f"http://deb.debian.org/debian {suite} main\n")
    return ["-o", f"Dir::State={state}/state", "-o", f"Dir::Cache={state}/cache",
            "-o", f"Dir::Etc::SourceList={state}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
            "-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User=root",
            *(["-o", f"APT::Architecture={architecture}",
               "-o", f"APT::Architectures={architecture}"] if architecture else [])]


def source_options(suite):
    """Options that make apt-get source see the source packages of a suite of Debian."""
    return _suite_options(suite, "deb-src")


def _dependencies(name, options):
    depends = subprocess.run(["apt-cache", *options, "depends", name], capture_output=True,
                             text=True, check=False)
    words = [line.split() for line in depends.stdout.splitlines()]
    return [word[1] for word in words if len(word) == 2 and word[0] == "Depends:"]


def resolve(name, options=()):
    """The package that a metapackage depends on, such as linux-image-cloud-amd64's kernel."""
    kernels = [needed for needed in _dependencies(name, options)
               if needed.startswith("linux-image-")]
    return kernels[0] if kernels else name


def _parts(name, options):
    """The packages that make up `name`: from Debian 14 on a kernel's image is only a list of them."""
    return [name] + [needed for needed in _dependencies(name, options)
                     if needed.startswith(("linux-binary-", "linux-modules-"))]


def unpack(name, suite=None, architecture=None):
    """
    Fetches a package and unpacks it into the cache, never installing it. Returns the folder.
    `suite` names another suite of Debian than this system's, `architecture` (which needs a suite)
    another architecture.
    """
    with locked("apt"):
        return _unpack_now(name, suite, architecture)


def _unpack_now(name, suite, architecture):
    options = _suite_options(suite, architecture=architecture) if suite else []
    if suite:
        updated = subprocess.run(["apt-get", "-qq", *options, "update"], capture_output=True,
                                 text=True, check=False)
        if updated.returncode:
            raise Failure(f"the mirror has no suite {suite}: {updated.stderr.strip()[:200]}")
    elif _apt_lists_are_empty():
        _apt("update")
    name = resolve(name, options)
    folder = cache_folder() / (f"{name}_{architecture}" if architecture else name)
    if folder.exists():
        return folder
    print(f"fetching package {name}", flush=True)
    work = cache_folder() / f".{name}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        _download(_parts(name, options), work, options)
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)
        (work / "root").rename(folder)
    except subprocess.CalledProcessError as error:
        raise Failure(f"cannot fetch package {name} from the mirror") from error
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _download(names, folder, options):
    command = ["apt-get", "-qq", *options, "download", *names]
    if subprocess.run(command, cwd=folder, check=False, stderr=subprocess.DEVNULL).returncode:
        if not options:
            _apt("update")
        subprocess.run(command, cwd=folder, check=True)


def main(run):
    """
    Runs `run` and turns failures into one line and exit status 1. Whoever ends us by a signal finds
    nothing left behind.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(run())
    except Failure as failure:
        print(f"{os.path.basename(sys.argv[0])}: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
