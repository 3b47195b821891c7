"""The engine's code against the real bindings of TensorRT and TensorRT-RTX: every call exists.

The bindings are compiled and carry their signatures; mypy's stubgen reads them into stubs, and
mypy checks the code against these. TensorRT's bindings load without its libraries, which weigh
gigabytes, when empty libraries of the same names satisfy the linker: nothing of them is called.

To check against another release, such as the 8.6 line, install its bindings into an environment of
their own and run this file there: pip install --no-deps tensorrt-bindings==8.6.1
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from checkout import ROOT

FILES = sorted((ROOT / "latlut" / "engines" / "tensorrt").glob("*.py"))
BINDINGS = {
    "tensorrt_bindings": "tensorrt-cu13-bindings",
    "tensorrt_rtx_bindings": "tensorrt-rtx-cu13",
}
#: What TensorRT's bindings import from its libraries, found with nm -D.
SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry", "getNvOnnxParserVersion", "getPluginRegistry",
    "initLibNvInferPlugins", "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv", "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)  # fmt: skip
#: What only weakly typed networks have, those of TensorRT 8.6.
VERSION_DEPENDENT = {
    "BuilderFlag.FP16", "BuilderFlag.INT8", "IInt8MinMaxCalibrator",
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
}  # fmt: skip


@pytest.fixture(scope="module", params=BINDINGS)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(package, environment in which it can be imported)."""
    package = request.param
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{BINDINGS[package]} is not installed")
    environment = dict(os.environ)
    if package == "tensorrt_bindings" and find_spec("tensorrt_libs") is None:
        if shutil.which("gcc") is None or shutil.which("objdump") is None:
            pytest.skip("gcc and objdump are needed to load TensorRT's bindings without libraries")
        folder = tmp_path_factory.mktemp("libraries")
        _empty_libraries(Path(found.origin).with_name("tensorrt.so"), folder)
        environment["LD_LIBRARY_PATH"] = str(folder)
    return package, environment


def _empty_libraries(extension: Path, folder: Path) -> None:
    source = folder / "empty.c"
    source.write_text("\n".join(f"void {symbol}(void) {{}}" for symbol in SYMBOLS))
    needed = subprocess.run(
        ["objdump", "-p", str(extension)], capture_output=True, text=True, check=True
    ).stdout
    for name in re.findall(r"NEEDED\s+(libnv\S+)", needed):
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source],
            check=True,
        )


def _stubs(package: str, environment: dict[str, str], folder: Path) -> Path:
    """The bindings' signatures as the module ``tensorrt``, in what stubgen gets wrong mended."""
    module = package.removesuffix("_bindings")
    subprocess.run(
        [sys.executable, "-c", "from mypy.stubgen import main; main()",
         "--inspect-mode", "-m", f"{package}.{module}", "-o", str(folder / "raw")],
        env=environment, check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    text = (folder / "raw" / package / f"{module}.pyi").read_text(encoding="utf-8")
    # The name of a data type hides the builtin; the buffer and sequence protocols are invisible.
    text = re.sub(r"^bool: DataType\n", "", text, flags=re.MULTILINE)
    text = text.replace(
        "class IHostMemory:\n",
        "class IHostMemory:\n    def __buffer__(self, flags: int, /) -> memoryview: ...\n",
    ).replace("class Dims:\n", "class Dims:\n    def __iter__(self) -> Any: ...\n")
    lines = ("# mypy: ignore-errors\n" + text).split("\n")
    while True:  # defaults before parameters without one, which C++ signatures may have
        try:
            ast.parse("\n".join(lines))
            break
        except SyntaxError as error:
            number = int(error.lineno or 0) - 1
            changed = re.sub(
                r"def (\w+)\(.*\) -> .*",
                r"def \1(self, *args: Any, **kwargs: Any) -> Any: ...",
                lines[number],
            )
            assert changed != lines[number], f"not mendable: {lines[number]}"
            lines[number] = changed
    (folder / "tensorrt.pyi").write_text("\n".join(lines), encoding="utf-8")
    return folder


def _mypy(paths: list[Path], stubs: Path) -> str:
    answer = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=skip", "--cache-dir", stubs / "cache",
         "--config-file", ROOT / "pyproject.toml", *paths],
        env={**os.environ, "MYPYPATH": str(stubs)}, cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return answer.stdout + answer.stderr


def test_every_call_is_one_that_the_bindings_have(bindings, tmp_path: Path) -> None:
    stubs = _stubs(*bindings, tmp_path)
    assert "Success" in _mypy(FILES, stubs)
    # The check itself: a call that does not exist, and one with a wrong argument, are found.
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import tensorrt\n"
        "def wrong(context: tensorrt.IExecutionContext) -> None:\n"
        "    context.execute_async_v9(0)\n"
        "    context.set_tensor_address(3, 'in0')\n",
        encoding="utf-8",
    )
    found = _mypy([wrong], stubs)
    assert "execute_async_v9" in found
    assert 'has incompatible type "int"' in found


def _named_members() -> set[str]:
    """What the code takes from the module handle by name: ``BuilderFlag.TF32``."""
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                match = re.fullmatch(r"(?:self\.)?(?:engine\.)?module\.([A-Z]\w+(?:\.\w+)*)", text)
                if match:
                    found.add(match[1].removesuffix(".__init__"))
    return found


def test_every_member_that_is_named_exists(bindings) -> None:
    package, environment = bindings
    wanted = sorted(_named_members() - VERSION_DEPENDENT)
    assert "BuilderFlag.TF32" in wanted
    assert "OnnxParser" in wanted
    program = (
        f"import functools, {package} as module\n"
        f"print([n for n in {wanted} if not functools.reduce("
        "lambda value, part: getattr(value, part, None) if value is not None else None,"
        " n.split('.'), module)])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
