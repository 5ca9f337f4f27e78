# SPDX-License-Identifier: MIT
"""A stock kernel boots, sees its machine, ends and starts again as it should."""

import hashlib
import pathlib
import re
import socket
import subprocess
import time

import pytest


@pytest.mark.box
def test_boots_from_qcow2_to_a_shell_and_off(boot, disk, evisor_img):
    machine = boot("-nic", "none", quick="")
    assert "ext4" in machine.check("grep ' / ' /proc/mounts")
    # The kernel has tested its ciphers, those of the CPU's own instructions among them.
    assert not re.search("alg: .*fail", machine.check("dmesg"))
    machine.check("echo kept >/root/kept && sync")
    machine.type("poweroff\n")
    assert machine.wait() == 0
    assert evisor_img("check", "-f", "qcow2", disk).returncode == 0


def test_four_cpus_and_five_gigabytes(start, diskless):
    machine = start(diskless, "-smp", "4", "-nic", "none", memory="5G")
    machine.expect("GUEST-INIT", 180)
    assert machine.check("nproc") == "4"
    total = int(re.search(r"MemTotal:\s+(\d+)", machine.check("cat /proc/meminfo")).group(1))
    assert total > 4.8 * (1 << 20)
    info = machine.qmp.execute("query-cpus-fast")
    assert [cpu["cpu-index"] for cpu in info] == [0, 1, 2, 3]
    # Memory above the hole is memory: write and read more than lies below it.
    machine.check("mount -t tmpfs -o size=4G tmp /tmp", 30)
    machine.check("dd if=/dev/zero of=/tmp/a bs=1M count=300 2>/dev/null && rm /tmp/a", 120)


def test_sixteen_cpus_come_up(start, diskless):
    machine = start(diskless, "-smp", "16", "-nic", "none", memory="512")
    machine.expect("GUEST-INIT", 240)
    assert machine.check("nproc") == "16"


def test_small_memory_and_topology(start, diskless):
    machine = start(diskless, "-smp", "4,sockets=1,cores=2,threads=2", "-nic", "none", memory="128")
    machine.expect("GUEST-INIT", 120)
    siblings = machine.check("cat /sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    assert siblings == "0-1"
    cores = machine.check("cat /sys/devices/system/cpu/cpu3/topology/core_siblings_list")
    assert cores == "0-3"


def features(machine):
    return set(machine.check("grep -m1 ^flags /proc/cpuinfo").split(":")[1].split())


def host_features():
    return set(pathlib.Path("/proc/cpuinfo").read_text().split("flags")[1].split("\n")[0].split())


def test_the_cpu_has_what_the_host_has(start, diskless):
    machine = start(diskless, "-nic", "none")
    machine.expect("GUEST-INIT", 120)
    level = {"sse4_2", "popcnt", "xsave", "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm",
             "movbe"}
    assert features(machine) & level == host_features() & level | {"xsave", "movbe"}
    log = machine.check("dmesg | grep x86/fpu")
    assert ("AVX registers" in log) == ("avx" in host_features())


@pytest.mark.parametrize("cpu, gone, kept", [
    ("x86-64-v2", {"xsave", "avx", "avx2", "fma", "bmi1", "movbe"}, {"sse4_2", "popcnt"}),
    ("max,-avx2,bmi1=off", {"avx2", "bmi1"}, {"sse4_2"}),
    ("max,-xsave", {"xsave", "xsaveopt", "avx", "avx2", "fma"}, {"sse4_2", "popcnt"})])
def test_cpu_features_switched_off(start, diskless, cpu, gone, kept):
    machine = start(diskless, "-nic", "none", "-cpu", cpu)
    machine.expect("GUEST-INIT", 120)
    assert not features(machine) & gone
    assert features(machine) >= kept & host_features()
    assert "WARNING" not in machine.check("dmesg")


@pytest.mark.box
def test_the_machine_as_the_guest_sees_it(start, diskless):
    machine = start(diskless, "-nic", "user", "-device", "virtio-rng-pci")
    machine.expect("GUEST-INIT", 120)
    devices = machine.check("cat /sys/bus/pci/devices/*/device").split()
    assert {"0x29c0", "0x2918", "0x1041", "0x1044"} <= set(devices)
    log = machine.check("dmesg")
    assert "ACPI: Interpreter enabled" in log
    assert re.search(r"PCI: (MMCONFIG|ECAM) for domain 0000", log)
    assert not re.search(r"ACPI (BIOS )?Error|ACPI Exception", log)
    assert not re.search(r"Call Trace|BUG:|WARNING:", log)
    interrupts = machine.check("cat /proc/interrupts")
    assert re.search(r"PCI-MSI.*virtio", interrupts)
    assert machine.check("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c") == "64"


def kernel_place(machine):
    """Where the kernel's code lies: virtual and physical."""
    return (machine.check("awk '$3 == \"_text\" { print $1 }' /proc/kallsyms"),
            machine.check("awk '/Kernel code/ { print $1 }' /proc/iomem").split("-")[0])


def test_who_unpacks_the_kernel(start, diskless):
    """The kernel's own unpacker tells that it works, where there is an early console."""
    words = {"append": "nokaslr", "quick": "earlyprintk=ttyS0"}
    machine = start(diskless, "-nic", "none", "-machine", "unpack-kernel=off", **words)
    machine.expect("KASLR disabled", 60)
    machine = start(diskless, "-nic", "none", **words)
    machine.expect("GUEST-INIT", 120)
    assert "KASLR disabled" not in machine.output
    assert kernel_place(machine) == ("ffffffff81000000", "01000000")


def resident_mib(machine):
    status = pathlib.Path(f"/proc/{machine.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def test_a_kernel_is_unpacked_when_somebody_asks_for_the_machine(start, diskless):
    machine = start(diskless, "-nic", "none", "-S", append="nokaslr")
    client = machine.qmp
    before = resident_mib(machine)
    registers = client.execute("human-monitor-command", **{"command-line": "info registers"})
    assert "RIP=0000000001000000" in registers
    assert resident_mib(machine) > before + 20


@pytest.mark.box
def test_reboots_as_often_as_the_guest_likes(boot):
    machine = boot("-nic", "none")
    places = [kernel_place(machine)]
    for how in ("reboot", "echo b >/proc/sysrq-trigger", "reboot -f"):
        client = machine.qmp
        machine.type(how + "\n")
        event = client.wait_event("RESET")
        assert event["data"]["guest"] is True and event["data"]["reason"] == "guest-reset"
        machine.forget()
        machine.wait_shell()
        places.append(kernel_place(machine))
    # KASLR: four times the same place of hundreds would be no chance.
    assert len({virtual for virtual, _ in places}) > 1
    assert len({physical for _, physical in places}) > 1
    machine.type("poweroff\n")
    assert machine.wait() == 0


def test_reset_by_the_control_socket(boot):
    """In the middle of a transfer, of which the host's side hears at once."""
    machine = boot("-nic", "user,host-loopback=on")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        fetch = f"udhcpc -n -q -i eth0 && nc 10.0.2.2 {server.getsockname()[1]}"
        machine.type(f"({fetch} >/dev/null) &\n")
        with server.accept()[0] as connection:
            connection.settimeout(120)
            for _ in range(64):
                connection.sendall(bytes(1 << 16))
            machine.qmp.execute("system_reset")
            event = machine.qmp.wait_event("RESET")
            assert event["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
            with pytest.raises(ConnectionError):
                while True:
                    connection.sendall(bytes(1 << 16))
        machine.forget()
        machine.wait_shell()
        machine.type(f"{fetch} | md5sum\n")
        with server.accept()[0] as connection:
            connection.sendall(bytes(1 << 20))
    machine.expect(hashlib.md5(bytes(1 << 20)).hexdigest())


def test_no_reboot_ends_the_process(start, diskless):
    machine = start(diskless, "-no-reboot", "-nic", "none")
    machine.expect("GUEST-INIT", 120)
    client = machine.qmp
    machine.type("echo b >/proc/sysrq-trigger\n")
    event = client.wait_event("SHUTDOWN")
    assert event["data"]["guest"] is True and event["data"]["reason"] == "guest-reset"
    assert machine.wait() == 0


def test_a_triple_fault_is_told_apart(start, diskless):
    machine = start(diskless, "-no-reboot", "-nic", "none", append="reboot=t")
    machine.expect("GUEST-INIT", 120)
    client = machine.qmp
    machine.type("reboot -f\n")
    event = client.wait_event("SHUTDOWN")
    assert event["data"]["reason"] == "guest-reset"
    assert event["data"]["detail"] == "triple-fault"
    assert machine.wait() == 0


@pytest.mark.box
def test_a_panic_is_told_apart(start, diskless):
    machine = start(diskless, "-nic", "none")
    machine.expect("GUEST-INIT", 120)
    client = machine.qmp
    machine.type("echo c >/proc/sysrq-trigger\n")
    client.wait_event("GUEST_PANICKED")
    event = client.wait_event("SHUTDOWN")
    assert event["data"] == {"guest": True, "reason": "guest-panic"}
    assert machine.wait() == 0


def test_no_shutdown_keeps_the_machine(start, diskless):
    machine = start(diskless, "-no-shutdown", "-nic", "none")
    machine.expect("GUEST-INIT", 120)
    client = machine.qmp
    machine.type("poweroff -f\n")
    assert client.wait_event("SHUTDOWN")["data"]["reason"] == "guest-shutdown"
    assert client.execute("query-status")["status"] == "shutdown"
    client.execute("system_reset")
    client.execute("cont")
    machine.expect("GUEST-INIT", 120)
    client.execute("quit")
    assert machine.wait() == 0


def test_an_elf_kernel_by_pvh(evisor, accel, kernel, diskless, tmp_path, start):
    """The ELF inside the bzImage, unpacked as Linux's own extract-vmlinux does."""
    packed = kernel.image.read_bytes()
    vmlinux = tmp_path / "vmlinux"
    for magic, *tool in ((b"\x02\x21\x4c\x18", "lz4", "-dc"), (b"\xfd7zXZ\0", "xz", "-dc"),
                         (b"\x1f\x8b\x08", "gzip", "-dc")):
        if magic in packed and not vmlinux.exists():
            # What follows the packed kernel makes the tool fail, after it has written it all.
            unpacked = subprocess.run(tool, input=packed[packed.find(magic):], capture_output=True,
                                      check=False).stdout
            if unpacked.startswith(b"\177ELF"):
                vmlinux.write_bytes(unpacked)
    assert vmlinux.exists(), "the kernel is packed in a way that this test does not know"
    machine = start(diskless, "-kernel", vmlinux, "-nic", "none")
    machine.expect("GUEST-INIT", 120)
    machine.check("uname -a")


def test_wall_clock_is_the_hosts(start, diskless):
    machine = start(diskless, "-nic", "none")
    machine.expect("GUEST-INIT", 120)
    before = time.time()
    guest = int(machine.check("date +%s"))
    assert before - 5 <= guest <= time.time() + 5
