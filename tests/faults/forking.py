"""The process that forks a child for each command: everything is imported once, before.

Started by ``injecting.Injector`` with the shim preloaded. A request is a line of JSON on standard
input, the reply a line on standard output.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def command(arguments: Sequence[str]) -> None:
    """``latlut`` with these arguments."""
    from latlut.cli import main

    main(args=list(arguments), prog_name="latlut")


def _function(name: str) -> Callable[[Sequence[str]], object]:
    module, _, attribute = name.partition(":")
    found: Callable[[Sequence[str]], object] = getattr(import_module(module), attribute)
    return found


def _child(shim: ctypes.CDLL, request: Mapping[str, Any], output: int) -> None:
    """Does what is asked and ends the process; never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(request["cwd"])
        os.environ.update(request["environment"])
        call = _function(request["call"])
        shim.fault_arm(request["folder"].encode(), request["fault"], request["at"])
        call(request["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _answer(shim: ctypes.CDLL, request: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _child(shim, request, output.fileno())
        began_s = time.monotonic()
        descriptor = os.pidfd_open(child)
        kill_after_s = request["kill_after_s"]
        limit_s = request["timeout_s"] if kill_after_s is None else kill_after_s
        has_ended = select.select([descriptor], [], [], limit_s)[0]
        os.close(descriptor)
        if not has_ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "output": output.read().decode(errors="replace"),
            "calls": shim.fault_calls(),
            "hits": shim.fault_hits(),
            "has_ended": bool(has_ended) or kill_after_s is not None,
            "seconds": time.monotonic() - began_s,
        }


def main(library: str, modules: Sequence[str]) -> None:
    shim = ctypes.CDLL(library)
    for name in ("fault_calls", "fault_hits"):
        getattr(shim, name).restype = ctypes.c_long
    shim.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
    shim.fault_prepare()
    for name in modules:
        import_module(name)
    for line in sys.stdin:
        print(json.dumps(_answer(shim, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
