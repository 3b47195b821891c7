"""Connections by ssh, made as the ssh command makes them, and refusals that say what to type."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from latlut.errors import LatlutError

#: A connection takes no longer, seconds; a silent one is given up after three of its questions.
_CONNECT_S, _ASK_EVERY_S = 20, 15


@dataclass(frozen=True)
class Host:
    """A machine as ``USER@HOST[:PORT]`` names it; what is None is ssh's to know."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Host:
        """The host of a text.

        Raises:
            LatlutError: it is none.
        """
        found = re.fullmatch(
            r"(?:([^@\s:]+)@)?(\[[0-9a-fA-F:.]+\]|[^@\s:\[\]-][^@\s:\[\]]*)(?::(\d{1,5}))?", text
        )
        port = int(found[3]) if found and found[3] else None
        if found is None or (port is not None and not 1 <= port <= 65535):
            raise LatlutError(f"--remote is USER@HOST or USER@HOST:PORT, received {text!r}")
        return cls(found[2].strip("[]"), found[1], port)

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        user, port = f"{self.user}@" if self.user else "", f":{self.port}" if self.port else ""
        return f"{user}{name}{port}"

    def command(self, program: str, flag: str, *, with_user: bool = True) -> str:
        """``ssh-copy-id -p 2222 user@host``; ``flag`` is the program's for the port."""
        user = f"{self.user}@" if self.user and with_user else ""
        port = f" {flag} {self.port}" if self.port else ""
        return f"{program}{port} {user}{self.name}"


class UnreachableError(LatlutError):
    """Nothing answers there now; it may later."""


def imported_asyncssh() -> Any:
    """The package.

    Raises:
        LatlutError: it is not installed.
    """
    try:
        import asyncssh
    except ImportError as error:
        raise LatlutError(
            "--remote needs asyncssh, which is not installed: pip install 'latlut[remote]'"
        ) from error
    return asyncssh


async def connect(host: Host) -> Any:
    """An open connection: known host keys only, keys or an agent, no passwords.

    Raises:
        UnreachableError: nothing answers.
        LatlutError: the host's key is not known, the host refuses the user, or ssh's own
            configuration is wrong.
    """
    asyncssh = imported_asyncssh()
    wanted: dict[str, Any] = {"host": host.name}
    wanted |= {"username": host.user} if host.user else {}
    wanted |= {"port": host.port} if host.port else {}
    try:
        return await asyncssh.connect(
            **wanted,
            password_auth=False,
            kbdint_auth=False,
            connect_timeout=_CONNECT_S,
            login_timeout=_CONNECT_S,
            keepalive_interval=_ASK_EVERY_S,
            keepalive_count_max=3,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise LatlutError(await _unknown_key(host, wanted, asyncssh)) from error
    except asyncssh.PermissionDenied as error:
        raise LatlutError(
            f"{host} refuses {f'the user {host.user}' if host.user else 'this user'}: no key that "
            "is offered is accepted there, and latlut asks for no password\n"
            f"make a key with `ssh-keygen -t ed25519`, put it there with "
            f"`{host.command('ssh-copy-id', '-p')}`; a key with a passphrase needs ssh-agent"
        ) from error
    except TimeoutError as error:
        raise UnreachableError(f"{host} does not answer within {_CONNECT_S} s") from error
    except (OSError, asyncssh.ConnectionLost, asyncssh.DisconnectError) as error:
        raise UnreachableError(
            f"{host} cannot be reached by ssh: {error}\n"
            f"`{host.command('ssh', '-p')} true` must work without a question"
        ) from error
    except (asyncssh.Error, asyncssh.ConfigParseError, ValueError) as error:
        raise LatlutError(f"{host}: no connection by ssh: {error}") from error


async def _unknown_key(host: Host, wanted: dict[str, Any], asyncssh: Any) -> str:
    """What a person does about a host's key that is not known."""
    shown = "a key"
    place = {name: value for name, value in wanted.items() if name != "username"}
    with suppress(OSError, asyncssh.Error, TimeoutError, ValueError):
        key = await asyncio.wait_for(asyncssh.get_server_host_key(**place), _CONNECT_S)
        if key is not None:
            shown = f"the key {key.get_fingerprint()} ({key.get_algorithm()})"
    scan = host.command("ssh-keyscan", "-p", with_user=False)
    return (
        f"{host} shows {shown}, which is not in known_hosts\n"
        "compare it with the machine's own, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` "
        f"there; to accept it: `{scan} >> ~/.ssh/known_hosts`, or "
        f"`{host.command('ssh', '-p')}` once; "
        "a key that changed is taken out first by ssh-keygen -R"
    )
