"""One measurer per device: a lock that every process of the machine sees.

The lock is ``flock`` on a file per device, so it vanishes with the process that holds it,
however that ends. The file's content (who holds it) is only read while another holds the lock;
what a killed process left behind is never believed.

The files lie in /tmp/latlut-locks for all users: ``TMPDIR`` is not asked, since schedulers and
users set it per job, and two jobs on one GPU must meet. ``LATLUT_LOCK_DIR`` names another place.
Containers that share a device but not this folder do not see each other's locks.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from latlut.errors import DeviceBusyError, LatlutError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

#: How often, and how far apart, a holder that has just changed is asked for again.
_READ_ATTEMPTS = 5
_READ_PAUSE_S = 0.05


def lock_dir() -> Path:
    """The folder of the lock files: ``LATLUT_LOCK_DIR``, else latlut-locks in /tmp."""
    chosen = os.environ.get("LATLUT_LOCK_DIR")
    if chosen:
        return Path(chosen)
    root = Path("/tmp")
    return (root if root.is_dir() else Path(tempfile.gettempdir())) / "latlut-locks"


@contextmanager
def shared_device_lock(device: str, cpus: Iterable[int]) -> Iterator[None]:
    """Hold some CPUs of a device, beside others of its users that hold other ones.

    One that holds the device alone (``device_lock``) is refused meanwhile, and refuses this.

    Args:
        device: "cpu".
        cpus: their numbers.

    Raises:
        DeviceBusyError: another process has the device alone, or one of the CPUs.
        LatlutError: a lock file cannot be made.
    """
    with ExitStack() as stack:
        stack.enter_context(device_lock(device, is_shared=True))
        for cpu in cpus:
            stack.enter_context(device_lock(f"{device}-{cpu}"))
        yield


@contextmanager
def device_lock(device: str, *, is_shared: bool = False) -> Iterator[Path | None]:
    """Hold the right to measure on ``device`` while the context lasts; refuse at once otherwise.

    Not re-entrant: a second lock on the same device by the same process is refused too, since two
    measurements inside one process disturb each other just as well. Processes forked while the
    lock is held keep it until they end or the context does.

    Args:
        device: "cpu", or the GPU's UUID ("cuda:0" names different GPUs to different processes).
        is_shared: beside others that share it too (``shared_device_lock``).

    Yields:
        Path of the lock file; None, after a RuntimeWarning, on systems without ``flock``.

    Raises:
        DeviceBusyError: another process, or this one, is measuring there. The message names it.
        LatlutError: the lock file cannot be made.
    """
    if fcntl is None:
        warnings.warn(
            "this system has no flock: nothing keeps a second process from measuring on "
            f"{device} at the same time",
            RuntimeWarning,
            stacklevel=3,
        )
        yield None
        return
    path = lock_dir() / (re.sub(r"[^A-Za-z0-9_.-]+", "_", device) + ".lock")
    descriptor = _open(path)
    try:
        _acquire(descriptor, device, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
        _write_holder(descriptor)
        try:
            yield path
        finally:
            if not is_shared:  # the holder that it names may be another one
                os.ftruncate(descriptor, 0)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """A descriptor of the lock file, made if need be so that every user can open it."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        _make_shared_folder(path.parent)
        while True:
            try:
                # Without O_CREAT: with it Linux refuses, in a sticky folder that all may write
                # (fs.protected_regular), the files of other users.
                return os.open(path, flags)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
                    os.fchmod(descriptor, 0o666)  # the umask has taken bits away
                    return descriptor
    except OSError as error:
        raise LatlutError(
            f"cannot make the lock file {path}: {error.strerror}; it keeps two processes from "
            "measuring on one device. Set LATLUT_LOCK_DIR to a folder that all users of this "
            "machine can write"
        ) from error


def _make_shared_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
    except FileExistsError:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder)) from None


def _acquire(descriptor: int, device: str, kind: int) -> None:
    holder: dict[str, object] = {}
    for attempt in range(_READ_ATTEMPTS):
        if attempt:
            time.sleep(_READ_PAUSE_S)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            # The holder may have locked a moment ago and not yet written; the file then still
            # names one that was killed.
            holder = _read_holder(descriptor)
            if is_alive(holder.get("pid")):
                break
    raise DeviceBusyError(_refusal(device, holder))


def _refusal(device: str, holder: dict[str, object]) -> str:
    pid = holder.get("pid")
    if pid == os.getpid():
        return (
            f"{device} is busy: this process (pid {pid}) is measuring on it already, since "
            f"{holder.get('since')}; end that measurement first"
        )
    if not pid:
        who, advice = "a process that cannot be named", "wait until it has finished"
    elif is_alive(pid):
        who = f"process {pid}"
        advice = f"wait until it has finished (--wait does so), or stop it (kill {pid})"
    else:
        who = f"a process that {pid} started, or one in another container,"
        advice = "wait until it has finished"
    since = f" since {holder['since']}" if holder.get("since") else ""
    command = f"\nits command: {holder['command']}" if holder.get("command") else ""
    return (
        f"{device} is busy: {who} is measuring on it{since}{command}\n"
        f"two measurements on one device disturb each other: {advice}"
    )


def _write_holder(descriptor: int) -> None:
    holder = {
        "pid": os.getpid(),
        "command": shlex.join(sys.orig_argv),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _read_holder(descriptor: int) -> dict[str, object]:
    try:
        holder = json.loads(os.pread(descriptor, 1 << 16, 0))
    except ValueError:  # empty, or half written
        return {}
    return holder if isinstance(holder, dict) else {}


def is_alive(pid: object) -> bool:
    """Whether a process of that number exists, this user's or another's."""
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it exists and belongs to another user
        return True
    return True
