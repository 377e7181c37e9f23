"""What is told where a server cannot be reached, and what is logged while a stream is tried again."""

import asyncio
import logging
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

from conftest import make_certificate
from holdfast_client import Account, AsyncClient, Client, Item, Pool, errors, money
from holdfast_client._tally import Pauses
from holdfast_client.testing import FakeHoldfast

TEN = money("10.00", "EUR")


def asked_by_threads(target, **settings):
    with Client(target, **settings) as client, pytest.raises(errors.HoldfastError) as raised:
        client.get_pool("shop")
    return raised.value


def asked_by_asyncio(target, **settings):
    async def session():
        async with AsyncClient(target, **settings) as client:
            with pytest.raises(errors.HoldfastError) as raised:
                await client.get_pool("shop")
            return raised.value

    return asyncio.run(session())


@pytest.fixture(params=[asked_by_threads, asked_by_asyncio])
def asked(request):
    """Asks by each of the two clients, and sees that the answer comes at once."""

    def ask(target, **settings):
        begun = time.monotonic()
        error = request.param(target, **settings)
        assert time.monotonic() - begun < 5
        return error

    return ask


@contextmanager
def listening(answer):
    """Something that listens, and gives each connection to `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection):
            with connection:
                try:
                    answer(connection)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    for name in ("server", "other"):
        make_certificate(str(directory / f"{name}.pem"), str(directory / f"{name}.key"))
    return directory


def tls_server(certificates, *, client_ca=None):
    """A server with TLS, which says nothing over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.set_alpn_protocols(["h2"])
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)

    def answer(connection):
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)

    return listening(answer)


def test_a_server_that_does_not_listen_is_told_at_once(asked):
    error = asked("http://127.0.0.1:1")
    assert type(error) is errors.ConnectionFailed
    assert "127.0.0.1:1: nothing listens there" in str(error)


def test_a_name_without_an_address_is_told_at_once(asked):
    error = asked("https://no-such-host.invalid:50051")
    assert type(error) is errors.ConnectionFailed
    assert "no address is known for no-such-host.invalid" in str(error)


def test_an_address_that_answers_nothing_is_told(monkeypatch):
    def silent(address, timeout):
        raise socket.timeout

    from holdfast_client import _connect, _reach

    monkeypatch.setattr(_reach.socket, "create_connection", silent)
    error = _reach.trouble(_connect.Server("https://shop.example:1"))
    assert "nothing answers there" in str(error)


def test_what_is_wrong_with_tls_is_told_at_once(asked, certificates):
    trusted = certificates / "server.pem"
    with tls_server(certificates) as port:
        cases = [
            (f"https://localhost:{port}", {"ca_file": certificates / "other.pem"}, "CA that is not trusted here"),
            (f"https://localhost:{port}", {}, "name its CA with ca_file"),
            (f"https://127.0.0.1:{port}", {"ca_file": trusted}, "another name than 127.0.0.1"),
            (f"http://localhost:{port}", {}, "write https://"),
        ]
        for target, settings, words in cases:
            error = asked(target, **settings)
            assert isinstance(error, errors.TlsFailed) and words in str(error), (target, error)
    with tls_server(certificates, client_ca=trusted) as port:
        error = asked(f"https://localhost:{port}", ca_file=trusted)
        assert isinstance(error, errors.TlsFailed) and "cert_file and key_file" in str(error)
    with FakeHoldfast() as fake:
        error = asked(fake.target.replace("http:", "https:"), ca_file=trusted)
        assert isinstance(error, errors.TlsFailed) and "write http://" in str(error)
    (certificates / "empty.pem").write_text("nothing\n")
    with pytest.raises(ValueError, match="holds no certificate in PEM"):
        Client("https://localhost:1", ca_file=certificates / "empty.pem")
    with tls_server(certificates) as port:
        files = {"cert_file": trusted, "key_file": certificates / "other.key"}
        error = asked(f"https://localhost:{port}", ca_file=trusted, **files)
        assert isinstance(error, errors.TlsFailed) and "the key be the certificate's" in str(error)


def test_something_else_that_answers_is_told(asked):
    def answer(connection):
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(answer) as port:
        error = asked(f"http://127.0.0.1:{port}")
    assert type(error) is errors.ConnectionFailed and "no gRPC server answers there" in str(error)


def batch_of(kind, target, **settings):
    """The results of a batch of one item, by threads or by asyncio."""
    items = [Item("i-1", "CODE-1234", TEN)]
    arguments = {"batch_id": "b-1", "holder": "t", "reconnect_for": timedelta(seconds=20)}
    if kind == "threads":
        with Client(target, **settings) as client:
            return list(client.redeem_batch("shop", items, **arguments))

    async def session():
        async with AsyncClient(target, **settings) as client:
            return [result async for result in client.redeem_batch("shop", items, **arguments)]

    return asyncio.run(session())


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_batch_fails_at_once_where_tls_is_wrong(kind, caplog, certificates):
    begun = time.monotonic()
    with FakeHoldfast() as fake, pytest.raises(errors.TlsFailed, match="write http://"):
        batch_of(kind, fake.target.replace("http:", "https:"), ca_file=certificates / "server.pem")
    assert time.monotonic() - begun < 5 and not caplog.records


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_batch_warns_while_it_connects_and_says_that_it_goes_on(kind, caplog):
    with FakeHoldfast() as fake:
        with fake.client() as client:
            client.create_pool(Pool(pool_id="shop", currency_code="EUR"))
            client.create_account(Account(pool_id="shop", account_id="anna"))
        fake.stop()

        def back():
            while not caplog.records:
                time.sleep(0.01)
            fake._start()

        returning = threading.Thread(target=back)
        returning.start()
        (result,) = batch_of(kind, fake.target)
        returning.join()
    assert result.redemption is not None
    said = [record.getMessage() for record in caplog.records]
    assert {record.name for record in caplog.records} == {"holdfast_client"}
    assert said[0].startswith("the batch b-1 of pool shop was cut off") and "nothing listens" in said[0]
    assert said[-1].startswith("the batch b-1 of pool shop goes on")
    assert not any("CODE-1234" in text for text in said)


def test_warnings_come_at_first_and_then_ever_more_seldom(caplog):
    caplog.set_level(logging.WARNING, logger="holdfast_client")
    error = errors.ConnectionFailed("nothing listens there")
    pauses = Pauses(300, 0, "the batch b-1")
    at = [now for now in range(301) if _warns(caplog, pauses, now, error)]
    assert at == [0, 5, 15, 35, 75, 155]
    caplog.clear()
    pauses.heard(301)
    assert [record.getMessage() for record in caplog.records] == ["the batch b-1 goes on, after 301 s"]
    assert _warns(caplog, pauses, 310, error), "another failure is told anew"


def _warns(caplog, pauses, now, error):
    caplog.clear()
    pauses.next(now, error)
    return bool(caplog.records)


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_streams_have_spans_which_are_not_current_for_the_callers_code(kind, monkeypatch):
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from holdfast_client import _tracing

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(_tracing, "_tracer", provider.get_tracer("test"))
    outside = trace.get_current_span()
    with FakeHoldfast() as fake:
        with fake.client() as client:
            client.create_pool(Pool(pool_id="shop", currency_code="EUR"))
            client.create_account(Account(pool_id="shop", account_id="anna"))
        batch_of(kind, fake.target)

        async def watched():
            async with AsyncClient(fake.target) as client:
                stream = client.watch_redemptions("shop")
                async for _ in stream:
                    assert trace.get_current_span() is outside
                    break
                await stream.aclose()

        if kind == "asyncio":
            asyncio.run(watched())
        else:
            with fake.client() as client:
                stream = client.watch_redemptions("shop")
                next(stream)
                assert trace.get_current_span() is outside
                stream.close()
        with fake.client() as client, pytest.raises(errors.PoolNotFound):
            next(client.watch_redemptions("none"))
    streams = [span for span in exporter.get_finished_spans() if "Batch" in span.name or "Watch" in span.name]
    assert [(span.name.rpartition("/")[2], span.status.is_ok) for span in streams] == [
        ("BatchRedeem", True),
        ("WatchRedemptions", True),
        ("WatchRedemptions", False),
    ]
    assert all(span.kind is trace.SpanKind.CLIENT for span in streams)
