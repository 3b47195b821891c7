"""The wheel and the source distribution hold the tracked files: none missing, none twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from checkout import ROOT

LINKED_FOLDERS = ("search", "reports", "profiles")

# One worker builds, once.
pytestmark = pytest.mark.xdist_group("packages")


class Packages(NamedTuple):
    """Both distributions of a clean copy of the project, and that copy's files."""

    wheel: Path
    sdist: Path
    sources: Path
    names: tuple[str, ...]

    @property
    def packed(self) -> dict[str, Path]:
        """Name inside the wheel -> the source file, for all that has to be packed."""
        packed = {}
        for name in self.names:
            source = self.sources / name
            if name.startswith("latlut/") and not source.is_symlink():
                packed[name] = source
            elif name.split("/")[0] in LINKED_FOLDERS:
                packed[f"latlut/{name}"] = source
        return packed


def project_files() -> tuple[str, ...]:
    """What git tracks or would track; symbolic links are entries of their own."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = sorted(set(filter(None, listed.stdout.split("\0"))))
    return tuple(name for name in names if (ROOT / name).is_file() or (ROOT / name).is_symlink())


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    if not (ROOT / ".git").exists():
        pytest.skip("the packages are compared with git's list of files: this is no git checkout")
    folder = tmp_path_factory.mktemp("packages")
    sources = folder / "sources"
    names = project_files()
    for name in names:
        copy = sources / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy, follow_symlinks=False)
    # Builds the source distribution, then the wheel from it: what an index would serve.
    build = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout[-3000:] + build.stderr[-3000:]
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Packages(wheel, sdist, sources, names)


def test_wheel_holds_the_tracked_files(packages: Packages) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert sorted(names) == sorted(packages.packed)
        for name in names:
            assert archive.read(name) == packages.packed[name].read_bytes(), name


def test_wheel_puts_one_name_into_site_packages(packages: Packages) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {"latlut", f"latlut-{_version()}.dist-info"}


def test_wheel_metadata(packages: Packages) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        info = f"latlut-{_version()}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert "License-Expression: Apache-2.0" in metadata
        assert "latlut = latlut.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()


def test_sdist_holds_each_file_once(packages: Packages) -> None:
    with tarfile.open(packages.sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    expected = {str(path.relative_to(packages.sources)) for path in packages.packed.values()}
    assert not (expected | {"pyproject.toml", "README.md", "LICENSE"}) - names
    twice = [
        name for name in names if name.split("/")[:2] in [["latlut", f] for f in LINKED_FOLDERS]
    ]
    assert not twice


def test_unpacked_wheel_runs(packages: Packages, tmp_path: Path) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from importlib.resources import files\n"
        "import latlut, latlut.search\n"
        "from latlut.cli import main\n"
        "assert latlut.__file__.startswith(sys.argv[1]), latlut.__file__\n"
        "assert latlut.search.__file__.startswith(sys.argv[1]), latlut.search.__file__\n"
        "assert any((files('latlut') / 'profiles').iterdir())\n"
        "main(['--version'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == f"latlut, version {_version()}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_installed_package_works_in_an_empty_environment(
    packages: Packages, tmp_path: Path, kind: str
) -> None:
    """An environment that holds pip and latlut alone; only what latlut depends on is lent to it."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    site = Path(next(home.glob("lib/python*/site-packages")))
    # After what is installed there; packages that are linked into the lender do not follow.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Some Pythons give every environment a setuptools, which may be too old to build latlut.
    ran(python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools", cwd=tmp_path)
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    ran(python, *install, "--no-build-isolation", str(getattr(packages, kind)), cwd=tmp_path)
    latlut = home / "bin" / "latlut"
    where = ran(python, "-c", "import latlut; print(latlut.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)
    assert _version() in ran(latlut, "--version", cwd=tmp_path)
    shipped = ran(latlut, "estimate", "--table", "1080ti", "--arch", "fasterseg-student", "--json",
                  cwd=tmp_path, may_fail=True)  # fmt: skip
    assert json.loads(shipped)["latency_ms"] == pytest.approx(5.69, abs=0.01)
    measuring = ["--cpu", "--op", "conv 8->8 at 16x16", "--passes", "1", "--table", "own.db"]
    ran(latlut, "profile", *measuring, cwd=tmp_path)
    entries = json.loads(ran(latlut, "table", "query", "own.db", "--json", cwd=tmp_path))
    assert [row["op_spec"] for row in entries] == ["conv 8->8 stride 1 at 16x16"]


def ran(program: Path, *words: str, cwd: Path, may_fail: bool = False) -> str:
    """The output of a program that sees nothing of this checkout."""
    unset = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    run = subprocess.run(
        [str(program), *words], cwd=cwd, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert may_fail or run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {_version()}\n" in text
    assert "1912.10917" in text and "cff-version: 1.2.0" in text


def _version() -> str:
    from latlut import __version__

    return __version__
