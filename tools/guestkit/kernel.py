# SPDX-License-Identifier: MIT
"""kernel: a Debian kernel unpacked from its package, its modules in loading order."""

import lzma

from . import packages

# Debian's kernels test their ciphers at each boot, which is 40 % of it under the software CPU.
QUICK = "cryptomgr.notests"


class Kernel:
    def __init__(self, package="linux-image-cloud-amd64", suite=None, architecture=None):
        self.folder = packages.unpack(package, suite, architecture)
        modules = next(path for pattern in ("lib/modules/*", "usr/lib/modules/*")
                       for path in self.folder.glob(pattern))
        self.version = modules.name
        # From Debian 14 on the image lies with its modules.
        self.image = next(path for path in (self.folder / f"boot/vmlinuz-{self.version}",
                                            modules / "vmlinuz") if path.exists())
        self._paths = {}
        for path in modules.rglob("*.ko*"):
            self._paths[path.name.split(".ko")[0].replace("-", "_")] = path

    def module(self, name):
        """The bytes of module `name`, or None where this kernel has it built in."""
        path = self._paths.get(name.replace("-", "_"))
        if path is None:
            return None
        content = path.read_bytes()
        return lzma.decompress(content) if path.suffix == ".xz" else content

    def loading_order(self, names):
        """`names` and what they need, in an order in which insmod succeeds."""
        order = []

        def visit(name):
            name = name.replace("-", "_")
            content = self.module(name)
            if content is None or name in order:
                return
            for needed in self._needs(content):
                visit(needed)
            order.append(name)

        for name in names:
            visit(name)
        return order

    @staticmethod
    def _needs(content):
        """Reads `depends=` out of .modinfo; modules.dep is made only when a package is installed."""
        at = content.find(b"\0depends=")
        if at < 0:
            return []
        value = content[at + len(b"\0depends="):]
        return [name for name in value[:value.index(b"\0")].decode().split(",") if name]
