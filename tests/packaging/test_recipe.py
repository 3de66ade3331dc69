"""The Yocto recipe names what the code needs: on a gateway Python's library is split into packages."""

from __future__ import annotations

import ast
import hashlib
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

HOUSE = Path(__file__).resolve().parents[2]
LAYER = HOUSE / "yocto" / "meta-denoised"
INC = (LAYER / "recipes-denoised/denoised/denoised.inc").read_text()
RECIPE = next((LAYER / "recipes-denoised/denoised").glob("denoised_*.bb"))

# oe-core's python3-manifest.json, scarthgap to wrynose: package -> modules in it. A module that differs between series
# stands in the package of the series that splits more.
SPLIT = {
    "asyncio": "asyncio concurrent",
    "compression": "gzip tarfile zipfile",
    "core": """__future__ abc argparse array ast atexit binascii bisect builtins bz2 codecs collections configparser
        contextlib copy csv dataclasses enum errno fnmatch functools gc gettext grp heapq importlib inspect io ipaddress
        itertools keyword linecache locale lzma marshal operator os pathlib pkgutil platform posixpath pwd re reprlib runpy
        select selectors shutil signal stat struct subprocess sys sysconfig textwrap time tokenize traceback types typing
        unicodedata urllib.parse warnings weakref zlib _thread""",
    "crypt": "hashlib",
    "ctypes": "ctypes",
    "datetime": "calendar datetime",
    "difflib": "difflib",
    "email": "email importlib.metadata",
    "fcntl": "fcntl",
    "html": "html",
    "io": "socket ssl tempfile termios",
    "json": "json",
    "logging": "logging",
    "math": "cmath math random",
    "mmap": "mmap",
    "multiprocessing": "multiprocessing",
    "netclient": "base64 ftplib hmac http mimetypes secrets smtplib urllib uuid",
    "netserver": "socketserver",
    "numbers": "contextvars decimal fractions numbers",
    "pickle": "pickle",
    "pprint": "pprint",
    "resource": "resource",
    "shell": "cmd glob shlex",
    "sqlite3": "sqlite3",
    "statistics": "statistics",
    "stringold": "string",
    "syslog": "syslog",
    "terminal": "pty tty",
    # threading itself is in core; what it needs for thread-local data and queues is not.
    "threading": "queue threading",
    "unixadmin": "getpass",
    "xml": "xml",
    "zoneinfo": "zoneinfo",
}
PACKAGE = {module: f"python3-{package}" for package, modules in SPLIT.items() for module in modules.split()}
PACKAGE |= {
    "cv2": "python3-opencv",
    "msgspec": "python3-msgspec",
    "numpy": "python3-numpy",
    "paho": "python3-paho-mqtt",
    "systemd": "python3-systemd",
    "yaml": "python3-pyyaml",
}
# Backends and extras: not on every gateway, each with a PACKAGECONFIG or a message of its own.
OPTIONAL = {"onnxruntime", "tensorrt", "pycuda", "amqtt", "google"}


def needed(source: str) -> set[str]:
    """Names of packages (or of modules that the table does not know) that this source imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {n for n in names if n.split(".")[0] not in OPTIONAL | {"denoised"}}
    return {next((PACKAGE[k] for k in prefixes(n) if k in PACKAGE), n) for n in names}


def prefixes(dotted: str) -> list[str]:
    """`a.b.c` -> a.b.c, a.b, a."""
    parts = dotted.split(".")
    return [".".join(parts[:i]) for i in range(len(parts), 0, -1)]


def sources() -> list[Path]:
    return [p for top in ("config", "engines", "plugins", "daemon", "demo") for p in sorted((HOUSE / top).rglob("*.py"))]


def run_time_packages() -> set[str]:
    listed = re.search(r'^RDEPENDS:\$\{PN\} = "(.*?)"', INC, re.S | re.M)
    assert listed
    return set(listed[1].replace("\\", " ").split())


@pytest.mark.parametrize("source", sources(), ids=lambda p: p.relative_to(HOUSE).as_posix())
def test_the_recipe_names_every_package_that_the_code_imports(source: Path) -> None:
    lacking = needed(source.read_text()) - run_time_packages()
    assert not lacking, f"add to RDEPENDS in denoised.inc (or, if it is a plain module name, to this test's table): {lacking}"


def test_an_import_from_a_package_of_its_own_is_seen() -> None:
    assert needed("import os\ndef f():\n    from ctypes import util\n    import sqlite3") == {
        "python3-core",
        "python3-ctypes",
        "python3-sqlite3",
    }
    assert needed("from importlib import metadata\nimport urllib.request") == {"python3-email", "python3-netclient"}
    assert needed("import turtle") == {"turtle"}


def test_the_table_speaks_of_modules_that_exist() -> None:
    known = sys.stdlib_module_names | {"cv2", "msgspec", "numpy", "paho", "systemd", "yaml"}
    assert {m for m in PACKAGE if m.split(".")[0] not in known} == set()


def test_the_recipe_takes_everything_that_setup_py_builds_from() -> None:
    taken = set(re.findall(r"file://(\S+);subdir=\$\{BP\}", RECIPE.read_text()))
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(HOUSE / "setup.py"))
    folders = {p.split(".")[1] for p in setup.call_args.kwargs["packages"] if "." in p}
    modules = {p.name for p in HOUSE.glob("*.py")}
    assert taken >= folders | modules | {"LICENSE", "README.md", "models", "systemd"}
    assert {name for name in taken if not (HOUSE / name).exists()} == set()


def test_the_recipe_has_the_version_and_the_licence_of_the_code() -> None:
    version = re.findall(r'__version__ = "(.+)"', (HOUSE / "__init__.py").read_text())[0]
    assert RECIPE.name == f"denoised_{version}.bb"
    assert hashlib.md5((HOUSE / "LICENSE").read_bytes()).hexdigest() in INC


def test_the_layer_says_who_keeps_it_and_where_patches_go() -> None:
    """What yocto-check-layer looks for."""
    readme = (LAYER / "README.md").read_text().lower()
    assert "maintainer" in readme and "patch" in readme and re.search(r"\S+@\S+\.\S+", readme)
    assert (LAYER / "SECURITY.md").stat().st_size
    assert "LAYERSERIES_COMPAT_denoised" in (LAYER / "conf/layer.conf").read_text()
