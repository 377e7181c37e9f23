"""What is so without a server: errors, amounts, settings, secrets that are never printed."""

import asyncio
import json
import os
import re
import time
import uuid
from datetime import timedelta
from decimal import Decimal
from importlib import resources

import pytest

import holdfast_client
from holdfast_client import Client, Item, LeaseLost, Pool, Account, errors, money, to_decimal
from holdfast_client._connect import Token, from_env
from holdfast_client._proto.holdfast.v1 import (
    access_pb2,
    account_pb2,
    pool_pb2,
    provider_pb2,
    redemption_pb2,
)
from holdfast_client.testing import Card, FakeHoldfast
from holdfast_client.types import REDEMPTION_STATE_FAILED, REDEMPTION_STATE_SUCCEEDED

ROOT = os.path.join(os.path.dirname(__file__), "..", "..", "..")
TEN = money("10.00", "EUR")
SERVICES = [
    service
    for file in (access_pb2, account_pb2, pool_pb2, provider_pb2, redemption_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]


def page(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


@pytest.fixture
def fake():
    with FakeHoldfast() as fake:
        yield fake


@pytest.fixture
def client(fake):
    with fake.client() as client:
        client.create_pool(Pool(pool_id="shop", currency_code="EUR"))
        client.create_account(Account(pool_id="shop", account_id="anna"))
        yield client


def test_each_reason_of_the_contract_has_a_class():
    text = page("docs", "errors.md")
    table = text[text.index("## Error reasons") :]
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| `", table, re.M)
    reasons = {reason for row in rows for reason in re.findall(r"[A-Z_]+", row)}
    assert len(reasons) > 40
    assert reasons <= set(errors.BY_REASON)


def test_the_example_of_the_fake_runs_as_it_stands_in_the_readme():
    text = page("clients", "python", "README.md")
    (example,) = re.findall(r"^## Your own tests\n+```python\n(.*?)^```", text, re.M | re.S)
    exec(compile(example, "README.md", "exec"), {})


def test_each_rpc_has_a_method():
    special = {"AcquireAccount": "acquire", "BatchRedeem": "redeem_batch"}
    under_a_lease = {"RenewLease", "Redeem", "ReleaseAccount"}
    for kind in (holdfast_client.Client, holdfast_client.AsyncClient):
        for method in (method.name for service in SERVICES for method in service.methods):
            name = special.get(method, re.sub(r"(?<!^)([A-Z])", r"_\1", method).lower())
            assert method in under_a_lease or hasattr(kind, name), name


def test_the_service_config_is_the_published_one_and_names_rpcs():
    packed = resources.files("holdfast_client") / "service_config.json"
    text = packed.read_text(encoding="utf-8")
    assert text == page("clients", "service_config.json")
    (config,) = json.loads(text)["methodConfig"]
    named = {(name["service"], name["method"]) for name in config["name"]}
    rpcs = {(s.full_name, method.name) for s in SERVICES for method in s.methods}
    assert named <= rpcs
    unsafe = re.compile("Create|Delete|Import|Batch|Watch")
    assert {rpc for rpc in rpcs if not unsafe.match(rpc[1]) and "Batch" not in rpc[1]} == named
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_the_version_is_the_servers():
    version = re.search(r'^version = "(.*)"$', page("Cargo.toml"), re.M).group(1)
    assert holdfast_client.__version__ == version
    assert f'version = "{version}"' in page("clients", "python", "pyproject.toml")


def test_amounts():
    assert money("10.00", "EUR").amount_minor == 1000
    assert money("5", "JPY").amount_minor == 5
    assert money(Decimal("1.234"), "KWD").amount_minor == 1234
    assert str(to_decimal(TEN)) == "10.00"
    for bad in ("10.001", "NaN"):
        with pytest.raises(ValueError):
            money(bad, "EUR")
    with pytest.raises(TypeError):
        money(10.0, "EUR")


def test_codes_and_tokens_are_not_printed(client, fake, tmp_path):
    code = f"SECRET-{uuid.uuid4().hex}"
    fake.cards[code] = Card(failure="CARD_INVALID")
    printed = [repr(Item("i-1", code)), str(Item("i-1", code))]
    reply = client.redeem_card("shop", code, holder="till-7", expected=TEN)
    printed.append(str(reply))
    with pytest.raises(errors.InvalidArgument) as refused:
        client.redeem_card("shop", code, holder="", expected=TEN)
    printed += [str(refused.value), repr(refused.value), str(refused.getrepr(style="short"))]
    batch = client.redeem_batch("shop", [Item("i-2", code)], batch_id="b", holder="till-7")
    printed += [repr(batch), *map(repr, batch), repr(batch.summary)]
    with client.acquire("shop", holder="till-7") as lease:
        printed += [repr(lease), repr(client)]
    token = Token("hf_hidden", None)
    printed.append(repr(token))
    with pytest.raises(ValueError) as bad:
        Token("hf_hid\nden", None)
    printed.append(str(bad.value))
    text = "\n".join(printed)
    assert code not in text and "hf_hid" not in text


def test_a_token_file_is_read_again(tmp_path):
    file = tmp_path / "token"
    file.write_text("hf_one\n")
    token = Token(None, file)
    assert token.read() == "hf_one"
    file.write_text("hf_second\n")
    assert token.read() == "hf_second"


def test_a_token_goes_over_tls_or_to_this_machine_alone():
    with pytest.raises(ValueError, match="TLS"):
        Client("http://shop.example:50051", token="hf_x")
    with pytest.raises(ValueError, match="TLS"):
        Client("shop.example:50051", insecure=True, token="hf_x")
    for target in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "shop.example:1"):
        Client(target, token="hf_x").close()
    for bad in ("ftp://x", "host:port", ""):
        with pytest.raises(ValueError):
            Client(bad)
    with pytest.raises(ValueError, match="TLS"):
        Client("http://127.0.0.1:1", ca_file="x")


def test_settings_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_env({})["target"] == "http://127.0.0.1:50051"
    given = from_env(
        {
            "HOLDFAST_SERVER": "https://shop.example:1",
            "HOLDFAST_CA_FILE": "ca.pem",
            "HOLDFAST_TOKEN": "hf_x",
        }
    )
    assert (given["target"], given["ca_file"], given["token"]) == (
        "https://shop.example:1",
        "ca.pem",
        "hf_x",
    )
    assert from_env({"HOLDFAST_TOKEN": "x", "HOLDFAST_TOKEN_FILE": "f"}).get("token") is None
    (tmp_path / "admin.token").write_text("hf_admin")
    own = {"HOLDFAST_DATA_DIR": str(tmp_path)}
    assert from_env(own)["token_file"] == tmp_path / "admin.token"
    assert from_env({**own, "HOLDFAST_SERVER": "https://shop.example"})["token_file"] is None


def test_scripted_cards(client, fake):
    fake.cards["GOOD-CARD"] = Card(amount=money("20", "EUR"))
    fake.cards["SPENT-CARD"] = Card(failure="CARD_ALREADY_REDEEMED", code_spent=True)
    fake.cards["SLOW-CARD"] = Card(in_doubt=True)
    good = client.redeem_card("shop", "GOOD-CARD", holder="t", expected=TEN).redemption
    assert good.amount_mismatch and good.amount == money("20", "EUR")
    spent = client.redeem_card("shop", "SPENT-CARD", holder="t").redemption
    assert spent.state == REDEMPTION_STATE_FAILED and spent.failure.code_spent
    slow = client.redeem_card("shop", "SLOW-CARD", holder="t").redemption
    assert client.get_account("shop", "anna").open_redemption_id == slow.redemption_id
    fake.settle("shop", slow.redemption_id)
    settled = client.await_redemption("shop", slow.redemption_id)
    assert settled.state == REDEMPTION_STATE_SUCCEEDED


def test_the_clock_of_the_fake_ends_a_lease(client, fake):
    with client.acquire("shop", holder="t", lease_duration=timedelta(seconds=30)) as lease:
        fake.advance(timedelta(minutes=1))
        with pytest.raises(LeaseLost) as lost:
            lease.redeem("CODE-1234", request_id="r-1")
        assert lost.value.metadata["cause"] == "expired"
        assert lease.lost.is_set()


def test_a_retryable_item_is_attempted_again(client, fake):
    item = Item("i-1", "CODE-1234", TEN)
    fake.cards["CODE-1234"] = Card(failure="PROVIDER_UNREACHABLE", retryable=True)
    batch = client.redeem_batch("shop", [item], batch_id="b", holder="t")
    assert [result.redemption.state for result in batch] == [REDEMPTION_STATE_FAILED]
    assert (batch.summary.failed, batch.summary.retryable) == (1, 1)
    fake.cards.clear()
    (again,) = client.redeem_batch("shop", [item], batch_id="b", holder="t")
    assert again.redemption.state == REDEMPTION_STATE_SUCCEEDED
    assert again.redemption.attempt == 2


def test_a_call_is_sent_again_by_the_service_config(client, fake):
    """The server is away for a moment: a read comes through, a creation is not sent twice."""
    fake.stop()
    with pytest.raises(errors.Unavailable):
        client.create_pool(Pool(pool_id="other", currency_code="EUR"))
    import threading

    back = threading.Timer(0.5, fake._start)
    back.start()
    assert client.get_pool("shop").pool_id == "shop"
    back.join()


def test_reconnecting_ends(fake, client):
    fake.stop()
    begun = time.monotonic()
    with pytest.raises(errors.Unavailable):
        list(
            client.redeem_batch(
                "shop",
                [Item("i-1", "CODE-1234")],
                batch_id="b",
                holder="t",
                reconnect_for=timedelta(seconds=1),
            )
        )
    assert 0.9 < time.monotonic() - begun < 20


def test_spans_and_their_context(fake, client):
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from holdfast_client import _tracing

    _tracing._tracer = trace.TracerProvider().get_tracer("test")
    metadata = []
    with _tracing.call_span(redemption_pb2.RedeemRequest, metadata):
        from opentelemetry import trace as api

        span = api.get_current_span()
        assert span.name == "holdfast.v1.RedemptionService/Redeem"
    ((name, value),) = metadata
    assert name == "traceparent" and f"{span.get_span_context().trace_id:032x}" in value


def test_asyncio_errors_and_files(fake, client):
    async def session():
        async with holdfast_client.AsyncClient(fake.target) as own:
            with pytest.raises(errors.PoolNotFound):
                async for _ in own.redeem_batch(
                    "none", [Item("i-1", "CODE-1")], batch_id="b", holder="t"
                ):
                    pass

            async def broken():
                yield Item("i-1", "CODE-1234", TEN)
                raise LookupError

            with pytest.raises(LookupError):
                async for _ in own.redeem_batch("shop", broken(), batch_id="c", holder="t"):
                    pass

    asyncio.run(session())
