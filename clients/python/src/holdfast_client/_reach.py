"""Why a server cannot be reached: found out by a connection beside the channel's, and told in plain words."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import grpc

from .errors import ConnectionFailed, TlsFailed

if TYPE_CHECKING:
    from ._connect import Server

#: How long the channel's first connection is waited for, before another one finds out what is wrong.
CONNECT_LIMIT = 2.0
# How long each step of that one may take.
_LIMIT = 3.0
# How long after the handshake the server's judgement of the client's certificate is waited for.
_JUDGEMENT = 1.0
# What a client of HTTP/2 says first, and its settings. The server answers with its own.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
# What the alerts of TLS begin with. No frame of HTTP/2 that comes first does.
_ALERT = b"\x15"
# How OpenSSL numbers what is wrong with a certificate.
_NOT_YET_VALID, _EXPIRED, _OTHER_NAMES = 9, 10, (62, 64)
_UNKNOWN_ISSUER = (2, 7, 18, 19, 20, 21, 27)
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


def trouble(server: Server) -> Optional[ConnectionFailed]:
    """What is wrong on the way to a server; None when that is not known."""
    address = (server.host, server.port)
    try:
        with socket.create_connection(address, _LIMIT) as tcp:
            if server.credentials is None:
                return _plain(server, tcp)
            with _context(server).wrap_socket(tcp, server_hostname=server.host) as tls:
                # Over TLS 1.3 a server judges the client's certificate only now. Nothing is sent: it could be answered
                # by a reset, which takes away what the server said before.
                tls.settimeout(_JUDGEMENT)
                _read(tls)
            return None
    except ssl.SSLError as error:
        return _tls(server, error)
    except OSError as error:
        return _network(server, error)


def _read(connection: socket.socket) -> bytes:
    """The first byte that the server says, if it says one in time."""
    try:
        return connection.recv(1)
    except socket.timeout:
        return b""


def _plain(server: Server, tcp: socket.socket) -> Optional[ConnectionFailed]:
    try:
        tcp.sendall(_PREFACE)
        first = _read(tcp)
    except OSError:  # It was cut off.
        first = b""
    if first == b"H":
        return _failed(server, "no gRPC server answers there: see whether the port is the one for calls")
    if first == _ALERT or (not first and _speaks_tls(server)):
        return _wrong_tls(server, "the server speaks TLS: write https://, and name its CA with ca_file")
    return None


def _speaks_tls(server: Server) -> bool:
    """Not all that speak TLS say so to a client that does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is sent to it, so it need not be known.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((server.host, server.port), _LIMIT) as tcp:
            context.wrap_socket(tcp).close()
        return True
    except OSError:
        return False


def _context(server: Server) -> ssl.SSLContext:
    roots = server.ca_file or os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
    own = Path(grpc.__file__).parent / "_cython" / "_credentials" / "roots.pem"
    context = ssl.create_default_context(cafile=roots or (own if own.exists() else None))
    # As gRPC judges: any certificate of the file is trusted as it is.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0)
    context.set_alpn_protocols(["h2"])
    if server.cert_file is not None:
        context.load_cert_chain(server.cert_file, server.key_file)
    return context


def _tls(server: Server, error: ssl.SSLError) -> ConnectionFailed:
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _wrong_tls(server, _certificate(server, error))
    if reason in _NOT_TLS:
        return _wrong_tls(server, "the server does not speak TLS: write http:// where it has none")
    if "ALERT" in reason and server.cert_file is None and _asks_for_certificate(reason):
        return _wrong_tls(
            server, "the server wants a client certificate: give yours with cert_file and key_file"
        )
    if "ALERT" in reason and server.cert_file is not None:
        return _wrong_tls(
            server,
            f"the server does not take this client's certificate ({reason}): it must be signed by a CA that the "
            "server trusts, for clients, and not be expired",
        )
    if "PEM" in reason or reason in ("NO_CERTIFICATE_OR_CRL_FOUND", "KEY_VALUES_MISMATCH", "NOT_ENOUGH_DATA"):
        return _wrong_tls(
            server,
            f"ca_file, cert_file or key_file cannot be used ({reason}): each must be whole, in PEM, and the key be the "
            "certificate's",
        )
    return _wrong_tls(server, f"TLS with the server failed: {reason or error}")


def _asks_for_certificate(reason: str) -> bool:
    return any(words in reason for words in ("CERTIFICATE", "HANDSHAKE_FAILURE"))


def _certificate(server: Server, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _OTHER_NAMES:
        return f"the server's certificate is for another name than {server.host}: use a name that it has"
    if error.verify_code == _EXPIRED:
        return "the server's certificate expired, or this machine's clock is wrong"
    if error.verify_code == _NOT_YET_VALID:
        return "the server's certificate is not valid yet, or this machine's clock is wrong"
    if error.verify_code in _UNKNOWN_ISSUER:
        return (
            "the server's certificate is signed by a CA that is not trusted here: name its CA with ca_file, or see "
            "whether this is the server that you mean"
        )
    return f"the server's certificate is not taken: {error.verify_message}"


def _network(server: Server, error: OSError) -> ConnectionFailed:
    if isinstance(error, socket.gaierror):
        return _failed(server, f"no address is known for {server.host}: see whether the host's name is right")
    if isinstance(error, ConnectionRefusedError):
        return _failed(
            server, "nothing listens there: see whether the server runs, and whether host and port are right"
        )
    if isinstance(error, socket.timeout):
        return _failed(
            server, "nothing answers there: see whether the address is right, and whether a firewall stands between"
        )
    return _failed(server, f"{error.strerror or error}: see whether the address is right, and the network works")


def _failed(server: Server, message: str) -> ConnectionFailed:
    return ConnectionFailed(f"{server.target}: {message}", code=grpc.StatusCode.UNAVAILABLE)


def _wrong_tls(server: Server, message: str) -> TlsFailed:
    return TlsFailed(f"{server.target}: {message}", code=grpc.StatusCode.UNAVAILABLE)
