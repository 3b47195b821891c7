"""An ssh server on the loopback that runs real processes, and a Python with one engine alone."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import asyncssh

from latlut.cluster.remote_code import FOLDER_PREFIX


class LoopbackServer:
    """Serves users whose key it knows; see ``serving``.

    Attributes:
        port: where it listens.
        commands: how many processes it has started.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands = 0
        self._is_refusing = False
        self._started: list[asyncio.subprocess.Process] = []
        self.environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir(parents=True)
        self._connections: list[asyncssh.SSHServerConnection] = []
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, authorized: Path) -> None:
        asyncio.run_coroutine_threadsafe(self._listen(authorized), self._loop).result(20)

    def cut(self) -> None:
        """End all connections as a cable that is pulled does, without a word."""

        def abort() -> None:
            for connection in self._connections:
                connection.abort()
            self._connections.clear()

        self._loop.call_soon_threadsafe(abort)

    def refuse(self) -> None:
        """From here on no connection gets far."""
        self._is_refusing = True

    def accept(self) -> None:
        self._is_refusing = False

    def stop(self) -> None:
        """End all that runs in the loop: what it would leave is told of at any later time."""
        self.cut()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    async def _end(self) -> None:
        self._listener.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for started in self._started:
            started._transport.close()  # kills what has not ended
        await asyncio.sleep(0.1)

    def folders(self) -> list[Path]:
        """What workers have left behind."""
        return list((self.folder / "tmp").glob(f"{FOLDER_PREFIX}*"))

    async def _listen(self, authorized: Path) -> None:
        server = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                if server._is_refusing:
                    conn.abort()
                server._connections.append(conn)

        self._listener = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Server, server_host_keys=[self.host_key],
            authorized_client_keys=str(authorized), process_factory=self._run, encoding=None,
        )  # fmt: skip
        self.port = self._listener.get_port()

    async def _run(self, process: asyncssh.SSHServerProcess) -> None:
        self.commands += 1
        started = await asyncio.create_subprocess_shell(
            process.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=self.environment, start_new_session=True,
        )  # fmt: skip
        self._started.append(started)
        said = [
            asyncio.ensure_future(_copy(started.stdout, process.stdout)),
            asyncio.ensure_future(_copy(started.stderr, process.stderr)),
        ]
        heard = asyncio.ensure_future(_copy(process.stdin, started.stdin))
        gone = asyncio.ensure_future(process.wait_closed())
        await asyncio.wait([asyncio.gather(*said), gone], return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()  # what its process does not read any more
        if started.returncode is None:
            started.stdin.close()
        code = await started.wait()
        for task in (*said, gone):
            task.cancel()
        with suppress(OSError):
            process.exit(code)  # as sshd does: all output, then the status, then the end


async def _copy(source: Any, sink: Any) -> None:
    """Pass on what comes until the end of either side."""
    with suppress(OSError, asyncssh.Error):
        while content := await source.read(1 << 16):
            sink.write(content)
            await sink.drain()


@contextmanager
def serving(folder: Path, home: Path) -> Iterator[LoopbackServer]:
    """A server that the user of ``home`` has a key for and whose host key is known there."""
    server = LoopbackServer(folder)
    ssh = home / ".ssh"
    ssh.mkdir(parents=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(ssh / "id_ed25519"))
    key.write_public_key(str(folder / "authorized"))
    server.start(folder / "authorized")
    public = server.host_key.export_public_key().decode().strip()
    (ssh / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {public}\n")
    try:
        yield server
    finally:
        server.stop()


def lean_python(folder: Path, packages: Sequence[str]) -> Path:
    """An interpreter that has these installed packages and no others."""
    site = folder / "packages"
    site.mkdir(parents=True)
    for name in packages:
        found = distribution(name)
        for top in {path.parts[0] for path in found.files or () if path.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))
    program = folder / "lean-python"
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {base} -S "$@"\n')
    program.chmod(0o755)
    return program
