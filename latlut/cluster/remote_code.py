"""latlut's own code for a remote machine: what is sent, and the command that takes it there."""

from __future__ import annotations

import io
import shlex
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from latlut.resources import profiles_dir

#: Of the folder that the remote machine makes, and removes at the end.
FOLDER_PREFIX = "latlut-remote-"
#: What the remote Python says, in a frame, once it can take the code.
READY = b'{"type": "ready"}'
#: The rooms that measuring needs.
_ROOMS = (
    "cluster", "engines", "files", "machine", "measure", "operators", "predict", "pricing",
    "spaces", "stats", "table",
)  # fmt: skip

#: Run by the remote python. It must be readable by a Python of any age, to refuse it by name.
_BOOT = """
import sys
sys.path[:] = [place for place in sys.path if place]

def say(values):
    import json, struct
    text = json.dumps(values).encode()
    sys.stdout.buffer.write(b"J" + struct.pack(">I", len(text)) + text)
    sys.stdout.flush()

def lost(reason):
    say({"type": "lost", "reason": reason, "is_final": True})
    sys.exit(3)

def end_others(prefix):
    import glob, os, shutil, signal, tempfile, time
    for folder in glob.glob(os.path.join(tempfile.gettempdir(), prefix + "*")):
        try:
            with open(os.path.join(folder, "process")) as file:
                os.kill(int(file.read()), signal.SIGTERM)
            for _ in range(50):
                if not os.path.exists(folder):
                    break
                time.sleep(0.1)
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)

def main(needed, prefix, size, timeout_s):
    from importlib.util import find_spec
    import io, os, platform, shutil, tempfile, zipfile
    version = platform.python_version()
    if not sys.platform.startswith("linux"):
        lost("it runs " + sys.platform + ": latlut measures by ssh on Linux alone")
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        lost(sys.executable + " there is Python " + version + ", latlut needs 3.11 to 3.13: "
             "name another one with --remote-python PATH")
    missing = [package for module, package in needed if find_spec(module) is None]
    if missing:
        lost(sys.executable + " there (Python " + version + ") lacks " + ", ".join(missing) + ": "
             + sys.executable + " -m pip install " + " ".join(missing)
             + ", or name a Python that has it with --remote-python PATH")
    end_others(prefix)
    folder = tempfile.mkdtemp(prefix=prefix)
    try:
        with open(os.path.join(folder, "process"), "w") as file:
            file.write(str(os.getpid()))
        say({"type": "ready"})
        parts = []
        while size:
            part = os.read(0, min(size, 1 << 20))
            if not part:
                return 0
            parts.append(part)
            size -= len(part)
        zipfile.ZipFile(io.BytesIO(b"".join(parts))).extractall(folder)
        os.environ["LATLUT_CACHE"] = os.path.join(folder, "cache")
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.path.insert(0, folder)
        from latlut.cluster.keeper import keep
        return keep(timeout_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
"""


@cache
def packed_code() -> bytes:
    """The rooms as a zip file."""
    package = Path(__file__).resolve().parent.parent
    files = {f"latlut/{path.name}": path for path in sorted(package.glob("*.py"))}
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            files[f"latlut/{path.relative_to(package).as_posix()}"] = path
    for path in sorted((profiles_dir() / "targets").glob("*.toml")):
        files[f"latlut/profiles/targets/{path.name}"] = path
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            archive.writestr(name, path.read_bytes())
    return packed.getvalue()


def boot_command(
    python: str, needed: Sequence[tuple[str, str]], token: str, timeout_s: float | None
) -> str:
    """The shell command that makes a worker there.

    It says ``READY``, and ``packed_code`` is to be its first input then.

    Args:
        python: the remote interpreter.
        needed: (module, package) that must be installed there.
        token: of the sweep: a worker of it that still runs there is ended first.
        timeout_s: of one op spec in one pass.
    """
    arguments = (list(needed), f"{FOLDER_PREFIX}{token}-", len(packed_code()), timeout_s)
    code = f"{_BOOT}\nsys.exit(main(*{arguments!r}))\n"
    return f"exec {shlex.quote(python)} -u -c {shlex.quote(code)}"
