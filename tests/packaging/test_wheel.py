"""What is in the wheel and in the source archive: all that a gateway needs, and nothing else."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built from a copy of the tree, without a network."""
    tree, out = tmp_path_factory.mktemp("tree") / "denoised", tmp_path_factory.mktemp("out")
    ignored = [line.strip("/") for line in (HOUSE / ".gitignore").read_text().split()]
    shutil.copytree(HOUSE, tree, ignore=shutil.ignore_patterns(".git", *ignored))
    for command in ("bdist_wheel", "sdist"):
        subprocess.run(
            [sys.executable, "setup.py", "-q", command, "--dist-dir", str(out)], cwd=tree, check=True, capture_output=True
        )
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def test_the_wheel_holds_every_module_of_the_house(wheel: zipfile.ZipFile) -> None:
    floors = ("config", "engines", "plugins", "daemon", "demo")
    code = {f"denoised/{p.relative_to(HOUSE).as_posix()}" for floor in floors for p in (HOUSE / floor).rglob("*.py")}
    assert code - set(wheel.namelist()) == set()


def test_the_wheel_holds_the_models_and_the_configuration(wheel: zipfile.ZipFile) -> None:
    shipped = [p for p in (HOUSE / "models").rglob("*") if p.is_file() and p.parent != HOUSE / "models"]
    shipped += (HOUSE / "config").glob("*.yaml")
    assert {f"denoised/{p.relative_to(HOUSE).as_posix()}" for p in shipped} - set(wheel.namelist()) == set()


def test_the_wheel_holds_no_tests_no_benches_and_no_layer(wheel: zipfile.ZipFile) -> None:
    allowed = {"__init__.py", "__main__.py", "config", "engines", "plugins", "daemon", "demo", "training", "models"}
    inside = {name.split("/")[1] for name in wheel.namelist() if name.startswith("denoised/")}
    assert inside <= allowed
    assert {name.split("/")[0] for name in wheel.namelist()} == {"denoised", wheel_info(wheel)}
    # Training code may be there, and the weights that it begins with; what it was trained on is not.
    assert {Path(n).suffix for n in wheel.namelist() if n.startswith("denoised/training/")} == {".py", ".npz"}


def test_the_wheel_brings_the_command_the_kinds_and_the_licence(wheel: zipfile.ZipFile) -> None:
    points = configparser.ConfigParser(delimiters=("=",))
    points.read_string(wheel.read(f"{wheel_info(wheel)}/entry_points.txt").decode())
    assert points["console_scripts"]["denoised"] == "denoised.daemon.cli.main:main"
    assert set(points["denoised.kinds"]) == {"defect-synthesis", "sensor-imputation"}
    assert any(name.endswith("LICENSE") for name in wheel.namelist())


def test_the_source_archive_holds_what_packagers_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert inside >= {"LICENSE", "setup.py", "systemd/denoised.service", "yocto/meta-denoised/conf/layer.conf"}


def test_the_installed_package_names_its_command_and_its_kinds() -> None:
    mine = [p for p in metadata.entry_points(group="denoised.kinds") if p.value.startswith("denoised.")]
    assert {p.name for p in mine} == {"defect-synthesis", "sensor-imputation"}
    # A set: Python 3.10 finds the metadata of an editable checkout twice.
    commands = metadata.entry_points(group="console_scripts", name="denoised")
    assert {p.value for p in commands} == {"denoised.daemon.cli.main:main"}


def wheel_info(wheel: zipfile.ZipFile) -> str:
    return next(name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name)
