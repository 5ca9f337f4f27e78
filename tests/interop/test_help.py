# SPDX-License-Identifier: MIT
"""Every subcommand explains itself, and the manual knows it."""
import re

from conftest import REPOSITORY, evisor_img


def commands():
    return re.findall(r"^  (\w+) ", evisor_img("--help").out, flags=re.MULTILINE)


def test_help():
    names = commands()
    assert {"create", "info", "check", "convert", "snapshot"} <= set(names)
    manual = (REPOSITORY / "docs" / "evisor-img.1").read_text().replace("\\", "")
    for name in names:
        result = evisor_img(name, "--help")
        assert result.status == 0 and not result.err
        assert result.out.startswith(f"usage: evisor-img {name} ") and "Example" in result.out
        assert f"\n.SS {name} " in manual
        synopsis = result.out.split("\n\n")[0].removeprefix("usage: evisor-img ")
        assert " ".join(synopsis.split()) in manual, name


def test_version():
    version = (REPOSITORY / "VERSION").read_text().strip()
    assert evisor_img("--version").out == f"evisor-img version {version}\n"
