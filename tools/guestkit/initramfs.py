# SPDX-License-Identifier: MIT
"""initramfs: a cpio archive (newc) made in memory, so that no tool needs to be there."""

import gzip
import stat


class Initramfs:
    def __init__(self):
        self._parts = []
        self._inode = 0
        self._folders = set()

    def _entry(self, name, mode, content=b"", device=(0, 0)):
        self._inode += 1
        name = name.encode() + b"\0"
        header = "070701" + "".join(f"{value:08x}" for value in (
            self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0))
        part = header.encode() + name
        part += b"\0" * (-len(part) % 4) + content
        self._parts.append(part + b"\0" * (-len(part) % 4))

    def folder(self, path):
        parent, _, _ = path.rpartition("/")
        if parent:
            self.folder(parent)
        if path not in self._folders:
            self._folders.add(path)
            self._entry(path, stat.S_IFDIR | 0o755)

    def file(self, path, content, mode=0o644):
        self.folder(path.rpartition("/")[0] or ".")
        if isinstance(content, str):
            content = content.encode()
        self._entry(path, stat.S_IFREG | mode, content)

    def link(self, path, target):
        self.folder(path.rpartition("/")[0] or ".")
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path, major, minor):
        self.folder(path.rpartition("/")[0] or ".")
        self._entry(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def archive(self, compress=False):
        parts, inode = list(self._parts), self._inode
        self._entry("TRAILER!!!", 0)
        content = b"".join(self._parts)
        self._parts, self._inode = parts, inode
        return gzip.compress(content, 1) if compress else content
