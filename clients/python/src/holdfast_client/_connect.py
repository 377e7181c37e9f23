"""How the server is reached: its address, TLS, the token, and the settings of a channel."""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Optional, Union

import grpc

from .version import __version__

PathLike = Union[str, "os.PathLike[str]"]
DEFAULT_SERVER = "http://127.0.0.1:50051"


class Token:
    """A token, or the file that has it: read again when it changes."""

    def __init__(self, token: Optional[str], file: Optional[PathLike]) -> None:
        if token is not None and file is not None:
            raise ValueError("give token or token_file, not both")
        self._file = Path(file) if file is not None else None
        self._seen: Optional[tuple[int, int, int]] = None
        self._lock = threading.Lock()
        self._token = _checked(token, "token") if token is not None else None
        self.read()

    def __repr__(self) -> str:
        return "Token(hidden)"

    def read(self) -> Optional[str]:
        if self._file is None:
            return self._token
        with self._lock:
            found = self._file.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                self._token = _checked(self._file.read_text(encoding="utf-8"), str(self._file))
                self._seen = seen
            return self._token


def _checked(token: str, name: str) -> str:
    token = token.strip()
    # What is wrong with it is not told, nor the token.
    if not token or not token.isascii() or not token.isprintable():
        raise ValueError(f"{name} holds no token")
    return token


class Server:
    """A server's address, and how it is called."""

    def __init__(
        self,
        target: str,
        *,
        ca_file: Optional[PathLike] = None,
        cert_file: Optional[PathLike] = None,
        key_file: Optional[PathLike] = None,
        token: Optional[str] = None,
        token_file: Optional[PathLike] = None,
        insecure: bool = False,
    ) -> None:
        scheme, found, address = target.rpartition("://")
        if found and scheme not in ("http", "https"):
            raise ValueError("a server is host:port, https://host:port or http://host:port")
        if scheme == "https" and insecure:
            raise ValueError("insecure is for a server without TLS: write http:// or host:port")
        insecure = insecure or scheme == "http"
        address = address.rstrip("/")
        host, port = _host_and_port(address)
        self.host = host
        self.port = port if port is not None else 80 if insecure else 443
        self.target = f"{address}:{self.port}" if port is None else address
        files = (ca_file, cert_file, key_file)
        if insecure and any(file is not None for file in files):
            raise ValueError("ca_file, cert_file and key_file are for a server with TLS")
        if (cert_file is None) != (key_file is None):
            raise ValueError("cert_file and key_file are given together")
        if insecure and (token is not None or token_file is not None) and not _is_loopback(host):
            raise ValueError("a token goes over TLS, or to a server of this machine, alone")
        self._token = Token(token, token_file)
        self.ca_file, self.cert_file, self.key_file = files
        self.credentials: Optional[grpc.ChannelCredentials] = None
        if not insecure:
            ca = _read_pem(ca_file, "ca_file", b"CERTIFICATE")
            cert = _read_pem(cert_file, "cert_file", b"CERTIFICATE")
            key = _read_pem(key_file, "key_file", b"PRIVATE KEY")
            self.credentials = grpc.ssl_channel_credentials(ca, key, cert)
        self.options: list[tuple[str, Any]] = [
            ("grpc.service_config", service_config()),
            ("grpc.primary_user_agent", f"holdfast-client-python/{__version__}"),
            # A server that is gone without a word is noticed also while a call waits.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # An address that does not answer is given up soon, and a server that is back is found soon.
            ("grpc.min_reconnect_backoff_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]

    def metadata(self) -> list[tuple[str, str]]:
        token = self._token.read()
        return [] if token is None else [("authorization", f"Bearer {token}")]


def _read_pem(file: Optional[PathLike], option: str, kind: bytes) -> Optional[bytes]:
    """What gRPC would pass over, or tell at each call, is told here: a file without what is wanted of it."""
    if file is None:
        return None
    text = Path(file).read_bytes()
    if not re.search(rb"-----BEGIN [A-Z ]*" + kind + rb"-----", text):
        raise ValueError(f"{option}: {os.fspath(file)} holds no {kind.decode().lower()} in PEM")
    return text


def from_env(environ: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of a client, from the variables that the commands read, too."""
    given = {name: value for name, value in environ.items() if value}
    server = given.get("HOLDFAST_SERVER", DEFAULT_SERVER)
    arguments: dict[str, Any] = {"target": server}
    for name in ("ca_file", "cert_file", "key_file", "token_file"):
        arguments[name] = given.get(f"HOLDFAST_{name.upper()}")
    if arguments["token_file"] is None:
        arguments["token"] = given.get("HOLDFAST_TOKEN")
        # As the commands do: a server of this machine has its admin token in a file.
        file = Path(given.get("HOLDFAST_DATA_DIR", "holdfast-data")) / "admin.token"
        own = _is_loopback(_host_and_port(server.rpartition("://")[2].rstrip("/"))[0])
        if arguments["token"] is None and own and os.access(file, os.R_OK):
            arguments["token_file"] = file
    return arguments


def service_config() -> str:
    """When calls are sent again: a copy of clients/service_config.json."""
    file = resources.files(__package__) / "service_config.json"
    return file.read_text(encoding="utf-8")


def _host_and_port(address: str) -> tuple[str, Optional[int]]:
    host, colon, port = address.rpartition(":")
    if address.endswith("]") or not colon:
        host, port = address, ""
    if not host or (port and not port.isdigit()):
        raise ValueError("a server is host:port, https://host:port or http://host:port")
    return host.strip("[]"), int(port) if port else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
