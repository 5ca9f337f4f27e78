# SPDX-License-Identifier: MIT
"""export and import; completion and the manual."""
import hashlib
import io
import pathlib
import shutil
import subprocess
import tarfile

import pytest

from conftest import BUILD, TOP

OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:o="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:r="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References><File o:id="f" o:href="{href}"/></References>
  <DiskSection><Disk o:diskId="d" o:fileRef="f" o:capacity="1048576"/></DiskSection>
  <VirtualSystem o:id="appliance"><VirtualHardwareSection>
    <Item><r:ResourceType>3</r:ResourceType><r:VirtualQuantity>2</r:VirtualQuantity></Item>
    <Item><r:AllocationUnits>byte * 2^30</r:AllocationUnits><r:ResourceType>4</r:ResourceType>
      <r:VirtualQuantity>1</r:VirtualQuantity></Item>
    <Item><r:ResourceType>10</r:ResourceType></Item>
    <Item><r:HostResource>ovf:/disk/d</r:HostResource><r:ResourceType>17</r:ResourceType></Item>
  </VirtualHardwareSection></VirtualSystem>
</Envelope>"""

VBOX = """<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.16-linux">
  <Machine uuid="{{1}}" name="Old Box">
    <MediaRegistry><HardDisks><HardDisk uuid="{{2}}" location="disk.vdi" format="VDI"/></HardDisks>
    </MediaRegistry>
    <Hardware><CPU count="3"/><Memory RAMSize="768"/><Network>
      <Adapter slot="0" enabled="true"><DisabledModes><InternalNetwork name="x"/></DisabledModes>
        <NAT><Forwarding name="ssh" proto="1" hostport="2222" guestport="22"/></NAT></Adapter>
      <Adapter slot="1" enabled="true"><BridgedInterface name="eth0"/></Adapter>
      <Adapter slot="2" enabled="false"><NAT/></Adapter></Network></Hardware>
    <StorageControllers><StorageController name="SATA"><AttachedDevice type="HardDisk" port="0">
      <Image uuid="{{2}}"/></AttachedDevice></StorageController></StorageControllers>
  </Machine>
</VirtualBox>""".replace("{{", "{").replace("}}", "}")

VMX = """.encoding = "UTF-8"
displayName = "Old Ware"
memsize = "640"
numvcpus = "2"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "disk.vmdk"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-raw"
ide1:0.fileName = "auto detect"
ethernet0.present = "TRUE"
ethernet0.connectionType = "nat"
"""


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(b"contents of the disk" * 1000 + bytes(3 << 20))
    return path


def same_contents(qemu_img, path, raw):
    return "identical" in qemu_img("compare", "-f", "qcow2", "-F", "raw", path, raw)


def test_export_and_import_again(evctl, qemu_img, raw, tmp_path):
    evctl("create", "web & co", "--image", raw, "--cpus", "2", "--memory", "300M", "--net", "user",
          "--net", "user")
    target = tmp_path / "out.ova"
    evctl("export", "web & co", target)
    with tarfile.open(target) as archive:
        assert archive.getnames() == ["out.ovf", "out.mf", "out-disk0.vmdk"]
        archive.extractall(tmp_path / "unpacked")
    disk = tmp_path / "unpacked/out-disk0.vmdk"
    assert "identical" in qemu_img("compare", "-f", "vmdk", "-F", "raw", disk, raw)
    sums = (tmp_path / "unpacked/out.mf").read_text()
    assert f"SHA256(out-disk0.vmdk)= {hashlib.sha256(disk.read_bytes()).hexdigest()}\n" in sums
    evctl("import", target, "again")
    info = evctl("info", "again", "--json").json()
    assert (info["cpus"], info["memory-mib"], len(info["nics"])) == (2, 300, 2)
    assert same_contents(qemu_img, evctl.store / "again/disk0.qcow2", raw)
    evctl.fails(1, ["already"], "export", "web & co", target)
    evctl.fails(2, [".ova"], "export", "web & co", tmp_path / "out.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == \
        ["disk.raw", "home", "out.ova", "unpacked"]


def test_export_as_ovf(evctl, raw, tmp_path):
    evctl("create", "web", "--image", raw)
    (tmp_path / "out").mkdir()
    evctl("export", "web", tmp_path / "out/web.ovf")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == \
        ["web-disk0.vmdk", "web.mf", "web.ovf"]
    evctl("import", tmp_path / "out/web.ovf", "again")
    assert len(evctl("info", "again", "--json").json()["disks"]) == 1
    if shutil.which("xmllint"):
        subprocess.run(["xmllint", "--noout", tmp_path / "out/web.ovf"], check=True)


def test_export_touches_nothing_that_is_there(evctl, raw, tmp_path):
    evctl("create", "web", "--image", raw)
    for name in ("x.mf", "x-disk0.vmdk", "x.ovf"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_text("mine")
        evctl.fails(1, [name, "already"], "export", "web", tmp_path / "out/x.ovf")
        # Nor where the disk cannot be read.
        (evctl.store / "web/disk0.qcow2").rename(tmp_path / "away")
        evctl("export", "web", tmp_path / "out/x.ovf", check=False)
        (tmp_path / "away").rename(evctl.store / "web/disk0.qcow2")
        assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {name: "mine"}
        shutil.rmtree(tmp_path / "out")


def test_import_of_an_appliance(evctl, qemu_img, raw, tmp_path):
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw,
             tmp_path / "d.vmdk")
    (tmp_path / "appliance.ovf").write_text(OVF.format(href="d.vmdk"))
    evctl("import", tmp_path / "appliance.ovf")
    info = evctl("info", "appliance", "--json").json()
    assert (info["cpus"], info["memory-mib"], len(info["nics"])) == (2, 1024, 1)
    assert same_contents(qemu_img, evctl.store / "appliance/disk0.qcow2", raw)


@pytest.mark.parametrize("kind", ["sha256", "sha1"])
def test_a_damaged_appliance_is_noticed_by_its_manifest(evctl, raw, tmp_path, kind):
    """With a manifest, and with one that has no sums for what is there, as without any."""
    description = OVF.format(href="d.vmdk")
    sums = "".join(f"{kind.upper()}({name})= {hashlib.new(kind, data).hexdigest()}\r\n" for name, data
                   in (("a.ovf", description.encode()), ("d.vmdk", raw.read_bytes())))
    make_ova(tmp_path / "good.ova", description, **{"d.vmdk": raw.read_bytes(),
                                                    "a.mf": sums.encode()})
    evctl("import", tmp_path / "good.ova")
    damaged = bytearray(raw.read_bytes())
    damaged[5000] ^= 1
    make_ova(tmp_path / "bad.ova", description, **{"d.vmdk": bytes(damaged), "a.mf": sums.encode()})
    evctl.fails(1, ["d.vmdk", "manifest"], "import", tmp_path / "bad.ova")
    make_ova(tmp_path / "none.ova", description, **{"d.vmdk": bytes(damaged), "a.mf": b"nothing"})
    evctl("import", tmp_path / "none.ova")
    assert evctl("list", "--names").out == "good\nnone\n"


def test_an_appliance_with_several_disks_and_choices(evctl, qemu_img, raw, tmp_path):
    item = "<Item {0}><r:ResourceType>{1}</r:ResourceType>{2}</Item>"
    disk = "<r:HostResource>ovf:/disk/{}</r:HostResource>"
    quantity = "<r:VirtualQuantity>{}</r:VirtualQuantity>"
    items = [item.format('o:configuration="small"', 3, quantity.format(1)),
             item.format('o:configuration="large"', 3, quantity.format(4)),
             item.format("", 4, quantity.format(512)),
             item.format('o:bound="max"', 4, quantity.format(9999)),
             item.format("", 17, disk.format("one")), item.format("", 17, disk.format("empty")),
             item.format("", 17, disk.format("two")),
             item.format("", 15, "<r:HostResource></r:HostResource>")]
    (tmp_path / "many.ovf").write_text(f"""<Envelope xmlns:o="o" xmlns:r="r"><References>
        <File o:id="f1" o:href="first%20disk.raw"/><File o:id="f2" o:href="second.raw"/></References>
        <DiskSection><Disk o:diskId="one" o:fileRef="f1" o:capacity="1"/>
        <Disk o:diskId="two" o:fileRef="f2" o:capacity="1"/>
        <Disk o:diskId="empty" o:capacity="3" o:capacityAllocationUnits="byte * 2^20"/></DiskSection>
        <DeploymentOptionSection><Configuration o:id="small"/>
        <Configuration o:id="large" o:default="true"/></DeploymentOptionSection>
        <VirtualSystem o:id="x"><OperatingSystemSection><Description>Debian GNU/Linux 12</Description>
        </OperatingSystemSection><VirtualHardwareSection>{"".join(items)}</VirtualHardwareSection>
        </VirtualSystem></Envelope>""")
    (tmp_path / "first disk.raw").write_bytes(raw.read_bytes())
    (tmp_path / "second.raw").write_bytes(b"2" * 4096)
    evctl("import", tmp_path / "many.ovf")
    info = evctl("info", "many", "--json").json()
    assert (info["cpus"], info["memory-mib"], info["os"]) == (4, 512, "debian")
    sizes = [row["virtual-size"] for row in evctl("disk", "info", "many", "--json").json()]
    assert sizes == [-(-raw.stat().st_size // 512) * 512, 3 << 20, 4096]
    assert same_contents(qemu_img, evctl.store / "many/disk0.qcow2", raw)


def test_images_that_lead_to_other_files(evctl, qemu_img, raw, tmp_path):
    """An overlay in an archive must not bring a file of the host into the guest."""
    qemu_img("create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", tmp_path / "evil.qcow2")
    make_ova(tmp_path / "evil.ova", OVF.format(href="d.vmdk"),
             **{"d.vmdk": (tmp_path / "evil.qcow2").read_bytes()})
    evctl.fails(1, ["builds on another file"], "import", tmp_path / "evil.ova")
    flat = b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n' \
        b'RW 8 FLAT "%s" 0\n'
    for name, files in ((b"/etc/passwd", {}), (b"link", {"link": "/etc/passwd"})):
        make_ova(tmp_path / "flat.ova", OVF.format(href="d.vmdk"), **{"d.vmdk": flat % name, **files})
        evctl.fails(1, ["d.vmdk"], "import", tmp_path / "flat.ova")
    (tmp_path / "in").mkdir()
    for href in ("%2e%2e%2fdisk.raw", "/etc/passwd", "../disk.raw"):
        (tmp_path / "in/out.ovf").write_text(OVF.format(href=href))
        evctl.fails(1, [href, "no file beside it"], "import", tmp_path / "in/out.ovf")
    assert evctl("list", "--names").out == ""


def test_packed_disks_are_refused(evctl, raw, tmp_path):
    make_ova(tmp_path / "a.ova", OVF.format(href='d.vmdk" o:compression="gzip'),
             **{"d.vmdk": raw.read_bytes()})
    evctl.fails(7, ["d.vmdk", "gzip"], "import", tmp_path / "a.ova")


def test_import_of_a_vbox_with_snapshots(evctl, raw, tmp_path):
    """A snapshot's hardware stands before the machine's own; the current disk is a difference."""
    snapshot = ('<Snapshot name="s"><Hardware><CPU count="7"/><Memory RAMSize="5000"/></Hardware>'
                '<StorageControllers><StorageController><AttachedDevice type="HardDisk">'
                '<Image uuid="{2}"/></AttachedDevice></StorageController></StorageControllers>'
                '</Snapshot>')
    (tmp_path / "disk.vdi").write_bytes(raw.read_bytes())
    (tmp_path / "snap.vbox").write_text(VBOX.replace("<MediaRegistry>", snapshot + "<MediaRegistry>"))
    evctl("import", tmp_path / "snap.vbox")
    info = evctl("info", "snap", "--json").json()
    assert (info["cpus"], info["memory-mib"], len(info["disks"])) == (3, 768, 1)
    nested = VBOX.replace('format="VDI"/>', 'format="VDI"><HardDisk uuid="{3}" location="S/3.vdi"/>'
                          '</HardDisk>').replace('<Image uuid="{2}"/>', '<Image uuid="{3}"/>')
    (tmp_path / "nested.vbox").write_text(nested)
    evctl.fails(7, ["S/3.vdi", "clonemedium"], "import", tmp_path / "nested.vbox")


ODD_VMX = """#!/usr/bin/vmware
.encoding = "windows-1252"
DISPLAYNAME = "L\xe4ufer |22x|22"
memSize = 512
numvcpus = "1000"
guestOS = "debian12-64"
scsi0:0.present = "true"
scsi0:0.fileName = "C:\\Virtual Machines\\x\\disk.vmdk"
sata0:1.present = "TRUE"
sata0:1.fileName = "tools.iso"
sata0:1.deviceType = "cdrom-image"
ide0:0.present = "FALSE"
ide0:0.fileName = "old.vmdk"
ide1:0.deviceType = "atapi-cdrom"
ide1:0.fileName = "auto detect"
floppy0.fileName = "a.img"
ethernet0.present = "True"
ethernet1.present = "FALSE"
nonsense
= "x"
"""


def test_import_of_an_odd_vmx(evctl, raw, tmp_path):
    (tmp_path / "disk.vmdk").write_bytes(raw.read_bytes())
    (tmp_path / "odd.vmx").write_bytes(ODD_VMX.encode("windows-1252"))
    result = evctl("import", tmp_path / "odd.vmx")
    assert "cpus of 1000 become 64" in result.err and "tools.iso" in result.err
    assert "bridged" in result.err
    info = evctl("info", "odd", "--json").json()
    assert (info["memory-mib"], info["os"], len(info["nics"])) == (512, "debian", 1)
    assert [disk["kind"] for disk in info["disks"]] == ["disk"]


@pytest.mark.parametrize("line, word", [
    ('memsize = "-5"', "memory-mib, '-5'"), ('memsize = "abc"', "'abc'"),
    ('memsize = "3"', "memory-mib of 3 become 16"), ('numvcpus = "0"', "cpus, '0'"),
    ('firmware = "efi"', "EFI"), ('memsize = ""', "")])
def test_values_that_cannot_be(evctl, tmp_path, line, word):
    (tmp_path / "odd.vmx").write_text(line + '\ndisplayName = "x"\n')
    assert word in evctl("import", tmp_path / "odd.vmx").err
    assert evctl("info", "odd", "--json").json()["cpus"] == 1


VMWARE_NICS = """sata0.present = "FALSE"
sata0:0.present = "TRUE"
sata0:0.fileName = "gone.vmdk"
ethernet0.present = "TRUE"
ethernet0.connectionType = "custom"
ethernet0.vnet = "VMnet8"
ethernet1.present = "TRUE"
ethernet1.connectionType = "custom"
ethernet1.vnet = "/dev/vmnet1"
ethernet1.startConnected = "FALSE"
ethernet2.present = "TRUE"
ethernet2.connectionType = "custom"
ethernet2.vnet = "VMnet5"
"""


def test_nics_of_vmware_networks(evctl, tmp_path):
    (tmp_path / "nics.vmx").write_text(VMWARE_NICS)
    notes = evctl("import", tmp_path / "nics.vmx").err
    assert "was hostonly is behind NAT" in notes and "was internal VMnet5" in notes
    assert "the cable of 'net1' is out" in notes and notes.count("behind NAT") == 2
    info = evctl("info", "nics", "--json").json()
    assert [nic.get("link") for nic in info["nics"]] == [None, "off", None] and not info["disks"]


def test_what_is_encrypted_is_refused(evctl, raw, tmp_path):
    (tmp_path / "secret.vmx").write_text('displayName = "x"\nencryption.keySafe = "vmware:key/list/x"\n'
                                         'encryption.data = "x"\n')
    evctl.fails(7, ["secret.vmx", "encrypted"], "import", tmp_path / "secret.vmx")
    (tmp_path / "disk.vdi").write_bytes(raw.read_bytes())
    (tmp_path / "secret.vbox").write_text(VBOX.replace(
        'format="VDI"/>', 'format="VDI"><Property name="CRYPT/KeyId" value="x"/></HardDisk>'))
    evctl.fails(7, ["disk.vdi is encrypted"], "import", tmp_path / "secret.vbox")
    assert evctl("list", "--names").out == ""


def test_an_adapter_that_is_attached_to_nothing(evctl, raw, tmp_path):
    (tmp_path / "disk.vdi").write_bytes(raw.read_bytes())
    (tmp_path / "alone.vbox").write_text(VBOX.replace('<BridgedInterface name="eth0"/>', ""))
    assert "the cable of 'net1' is out" in evctl("import", tmp_path / "alone.vbox").err
    nics = evctl("info", "alone", "--json").json()["nics"]
    assert [nic.get("link") for nic in nics] == [None, "off"]


@pytest.mark.parametrize("word, count", [
    ('<v:Config xmlns:v="v" v:key="firmware" v:value="efi"/>', 1),
    ('<v:Machine xmlns:v="v"><v:Firmware type="EFI"/></v:Machine>', 1),
    ('<v:Config xmlns:v="v" v:key="firmware" v:value="bios"/>', 0)], ids=["vmware", "virtualbox", "bios"])
def test_appliances_for_efi(evctl, raw, tmp_path, word, count):
    (tmp_path / "efi.ovf").write_text(
        OVF.format(href="disk.raw").replace("</VirtualHardwareSection>", word + "</VirtualHardwareSection>"))
    assert evctl("import", tmp_path / "efi.ovf").err.count("EFI firmware") == count


def test_import_of_vbox(evctl, qemu_img, raw, tmp_path):
    qemu_img("convert", "-f", "raw", "-O", "vdi", raw, tmp_path / "disk.vdi")
    (tmp_path / "old.vbox").write_text(VBOX)
    evctl("import", tmp_path / "old.vbox")
    info = evctl("info", "old", "--json").json()
    assert (info["cpus"], info["memory-mib"], len(info["nics"])) == (3, 768, 2)
    assert info["nics"][0]["forwards"] == ["tcp:127.0.0.1:2222-:22"]
    assert same_contents(qemu_img, evctl.store / "old/disk0.qcow2", raw)


def test_import_of_vmx(evctl, qemu_img, raw, tmp_path):
    qemu_img("convert", "-f", "raw", "-O", "vmdk", raw, tmp_path / "disk.vmdk")
    (tmp_path / "old.vmx").write_text(VMX)
    evctl("import", tmp_path / "old.vmx", "ware")
    info = evctl("info", "ware", "--json").json()
    assert (info["cpus"], info["memory-mib"], len(info["nics"])) == (2, 640, 1)
    assert [disk["kind"] for disk in info["disks"]] == ["disk"]
    assert same_contents(qemu_img, evctl.store / "ware/disk0.qcow2", raw)


DOCUMENTS = pathlib.Path(__file__).parent / "documents"


def test_an_appliance_as_virtualbox_exports_it(evctl, qemu_img, raw, tmp_path):
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw,
             tmp_path / "web-disk001.vmdk")
    (tmp_path / "web-disk002.iso").write_bytes(bytes(2048))
    shutil.copy(DOCUMENTS / "virtualbox.ovf", tmp_path / "web.ovf")
    with tarfile.open(tmp_path / "web.ova", "w") as archive:
        for name in ("web.ovf", "web-disk001.vmdk", "web-disk002.iso"):
            archive.add(tmp_path / name, name)
    assert "a NIC that was hostonly is behind NAT" in evctl("import", tmp_path / "web.ova").err
    info = evctl("info", "web", "--json").json()
    # What stands in vbox:Machine, for VirtualBox alone, does not come on top.
    assert (info["cpus"], info["memory-mib"], info["os"], len(info["nics"])) == (2, 2048, "debian", 2)
    assert [disk["kind"] for disk in info["disks"]] == ["disk", "iso"]
    assert same_contents(qemu_img, evctl.store / "web/disk0.qcow2", raw)
    # There and back again.
    evctl("export", "web", tmp_path / "again.ova")
    evctl("import", tmp_path / "again.ova")
    again = evctl("info", "again", "--json").json()
    assert (again["cpus"], again["memory-mib"], again["os"]) == (2, 2048, "debian")
    assert same_contents(qemu_img, evctl.store / "again/disk0.qcow2", raw)


def test_a_machine_as_virtualbox_keeps_it(evctl, qemu_img, raw, tmp_path):
    qemu_img("convert", "-f", "raw", "-O", "vdi", raw, tmp_path / "Debian web.vdi")
    shutil.copy(DOCUMENTS / "virtualbox.vbox", tmp_path / "Debian web.vbox")
    notes = evctl("import", tmp_path / "Debian web.vbox").err
    assert "hostonly vboxnet0 is behind NAT" in notes and "VBoxGuestAdditions.iso" in notes
    info = evctl("info", "Debian web", "--json").json()
    assert (info["cpus"], info["memory-mib"], info["os"], len(info["nics"])) == (2, 1536, "debian", 2)
    assert info["nics"][1]["link"] == "off"
    assert info["nics"][0]["forwards"] == ["tcp:127.0.0.1:2222-:22",
                                           "udp:127.0.0.1:5353-10.0.2.15:53"]
    assert same_contents(qemu_img, evctl.store / "Debian web/disk0.qcow2", raw)


def test_a_machine_as_workstation_keeps_it(evctl, qemu_img, raw, tmp_path):
    """Its disk is a descriptor and extents beside it."""
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", raw,
             tmp_path / "split.vmdk")
    shutil.copy(DOCUMENTS / "workstation.vmx", tmp_path / "split.vmx")
    assert "hostonly" in evctl("import", tmp_path / "split.vmx").err
    info = evctl("info", "split", "--json").json()
    assert (info["cpus"], info["memory-mib"], info["os"], len(info["nics"])) == (4, 2048, "ubuntu", 2)
    assert same_contents(qemu_img, evctl.store / "split/disk0.qcow2", raw)


@pytest.mark.parametrize("extent", ["/etc/passwd", "../disk.raw"])
def test_a_vmdk_that_leads_elsewhere(evctl, raw, tmp_path, extent):
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm/evil.vmdk").write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW 4 FLAT "{extent}" 0\n')
    (tmp_path / "vm/evil.vmx").write_text('scsi0:0.present = "TRUE"\nscsi0:0.fileName = "evil.vmdk"\n')
    evctl.fails(1, ["not in the same directory"], "import", tmp_path / "vm/evil.vmx")
    assert evctl("list", "--names").out == ""


def make_ova(path, description, **files):
    with tarfile.open(path, "w") as archive:
        for name, content in {"a.ovf": description.encode(), **files}.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("description, files", [
    (OVF.format(href="missing.vmdk"), {}),
    (OVF.format(href="/etc/passwd"), {}),
    (OVF.format(href="../../../etc/passwd"), {}),
    (OVF.format(href="link"), {"link": "/etc/passwd"}),
    (OVF.format(href="d.vmdk"), {"d.vmdk": b"no image at all" * 100}),
    ("<Envelope>", {}),
    ("<!DOCTYPE x [<!ENTITY a 'b'>]><Envelope>&a;</Envelope>", {}),
    ("<a>" * 1000, {}),
    ("not xml", {}),
    ("<Envelope/>", {})], ids=["missing", "absolute", "upward", "link", "no-image", "cut", "entity",
                               "deep", "text", "empty"])
def test_archives_that_mean_harm_or_are_broken(evctl, tmp_path, description, files):
    make_ova(tmp_path / "bad.ova", description, **files)
    result = evctl("import", tmp_path / "bad.ova", "bad", check=False)
    if files.get("d.vmdk"):
        # Bytes without a signature are a raw image, as everywhere.
        assert result.status in (0, 1), result
    else:
        assert result.status == 1 and result.err.count("\n") == 1, result
        assert evctl("list", "--names").out == ""


def test_files_that_are_no_descriptions(evctl, tmp_path):
    evctl.fails(2, [".vbox", "--image"], "import", tmp_path / "x.zip")
    evctl.fails(1, ["No such file"], "import", tmp_path / "x.ova")
    (tmp_path / "x.ova").write_bytes(b"\0" * 100)
    evctl.fails(1, [".ova"], "import", tmp_path / "x.ova")
    (tmp_path / "x.vmx").write_bytes(b"\xff\xfe" * 100)
    evctl.fails(1, ["x.vmx"], "import", tmp_path / "x.vmx")


def complete(evctl, *words):
    """What bash offers for the last word."""
    script = evctl("completion", "bash").out
    line = " ".join(f"'{word}'" for word in words)
    done = subprocess.run(
        ["bash", "-c", f"{script}\nCOMP_WORDS=(evctl {line}); COMP_CWORD={len(words)}; _evctl; "
         "printf '%s\\n' \"${COMPREPLY[@]}\""], capture_output=True, text=True, check=True,
        env={**evctl.environment, "PATH": f"{BUILD}:/usr/bin:/bin"})
    return [line for line in done.stdout.split("\n") if line]


def test_completion(evctl):
    evctl("create", "web")
    evctl("create", "db")
    assert complete(evctl, "cre") == ["create"]
    assert complete(evctl, "snapshot", "rev") == ["revert"]
    assert complete(evctl, "start", "w") == ["web"]
    assert "--wait-ip" in complete(evctl, "start", "--")
    assert complete(evctl, "snapshot", "create", "d") == ["db"]
    assert "--memory" in complete(evctl, "create", "--me")
    assert complete(evctl, "create", "x", "--os", "deb") == ["debian"]
    assert complete(evctl, "attach", "web", "n") == ["nic"]
    evctl("forward", "add", "web", "8080:80")
    for words, expected in ((("create", "x", "--console", "h"), ["hvc"]),
                            (("set", "web", "--accel", "s"), ["soft"]),
                            (("set", "web", "--boot", "d"), ["d", "dc"]),
                            (("net", "create", "x", "--mode", "b"), ["bridged"]),
                            (("disk", "create", "x", "1M", "--format", "v"),
                             ["vdi", "vmdk", "vpc", "vhdx"]),
                            (("forward", "del", "web", "8"), ["8080"])):
        assert complete(evctl, *words) == expected
    assert complete(evctl, "completion", "z") == ["zsh"]
    assert complete(evctl, "start", "web", "") == [
        "--paused", "--wait-ip", "--timeout", "--json", "--quiet", "--help"]


def test_completion_of_what_a_machine_has(evctl):
    evctl("create", "a b", "--disk", "1M", "--disk", "1M")
    for name in ("clean", "with apache"):
        evctl("snapshot", "create", "a b", name)
    assert complete(evctl, "snapshot", "revert", "a b", "with") == ["with apache"]
    assert complete(evctl, "snapshot", "delete", "--quiet", "a b", "c") == ["clean"]
    assert complete(evctl, "disk", "resize", "a b", "d") == ["disk0", "disk1"]
    assert complete(evctl, "detach", "a b", "n") == ["net0"]
    assert complete(evctl, "snapshot", "revert", "nobody", "x") == []
    # A name is a word, whatever it looks like to a shell.
    evctl("create", "$(touch pwned);`x`")
    assert complete(evctl, "start", "$") == ["$(touch pwned);`x`"]


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is missing: apt-get install zsh")
def test_completion_in_zsh(evctl):
    evctl("create", "web", "--disk", "1M")
    evctl("snapshot", "create", "web", "clean")
    script = evctl("completion", "zsh").out.replace("compdef _evctl evctl", "")
    for words, expected in ((("snapshot", "revert", "web"), "clean"), (("start",), "web"),
                            (("disk", "resize", "web"), "disk0"), (("snapshot",), "revert")):
        line = " ".join(words)
        done = subprocess.run(["zsh", "-fc", f"{script}\n_evctl_candidates {line}"],
                              capture_output=True, text=True, check=True,
                              env={**evctl.environment, "PATH": f"{BUILD}:/usr/bin:/bin"})
        assert expected in done.stdout.split("\n"), done
    zsh = evctl("completion", "zsh").out
    assert zsh.startswith("#compdef evctl\n")
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=zsh, text=True, check=True)
    evctl.fails(2, ["bash or zsh"], "completion", "fish")


def test_the_manual_is_current(evctl):
    manual = (TOP / "docs/evctl.1").read_text()
    done = subprocess.run([str(BUILD / "evctl"), "manual"], input=manual, text=True,
                          capture_output=True, check=True)
    assert done.stdout == manual, "run tools/update-man"
    for command in ("VBoxManage", "virsh", "vmrun", "snapshot create"):
        assert command.replace("-", "\\-") in manual
