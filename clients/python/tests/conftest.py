"""The same tests against the fake and against a real server: HOLDFAST_BINARY names its program."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

import pytest

from holdfast_client import Account, Client, Pool
from holdfast_client.testing import FakeHoldfast

START_TIMEOUT = 60


class Program:
    """A command of holdfast's, for as long as this process has its standard input."""

    def __init__(self, directory, name, *arguments):
        self.log_path = os.path.join(directory, f"{name}.log")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        if "HOLDFAST_POSTGRES_BIN" in os.environ:
            environment["HOLDFAST_POSTGRES_BIN"] = os.environ["HOLDFAST_POSTGRES_BIN"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [os.environ["HOLDFAST_BINARY"], "--while-stdin-is-open", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def logged(self, field):
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                text = log.read()
            for line in text.splitlines():
                try:
                    return json.loads(line)[field]
                except (KeyError, TypeError, ValueError):
                    continue
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"it did not start:\n{text}")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()


class Real:
    """A provider and a server with TLS and tokens."""

    name = "real"

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="hf-py-", dir="/tmp")
        # Postgres may run as another user than this program.
        os.chmod(self.directory, 0o755)
        self.ca_file = os.path.join(self.directory, "tls.pem")
        self.key_file = os.path.join(self.directory, "tls.key")
        make_certificate(self.ca_file, self.key_file)
        ledger = os.path.join(self.directory, "ledger.jsonl")
        self.provider = Program(
            self.directory, "provider", "simulate-provider", "--listen", "127.0.0.1:0", "--ledger", ledger
        )
        self.server = None
        self.port = 0
        self.start()

    def start(self):
        self.server = Program(
            self.directory,
            f"server-{uuid.uuid4().hex[:4]}",
            "serve",
            f"--listen=127.0.0.1:{self.port}",
            "--admin-listen=127.0.0.1:0",
            f"--data-dir={self.directory}/data",
            f"--provider-url=http://{self.provider.logged('address')}",
            f"--tls-cert-file={self.ca_file}",
            f"--tls-key-file={self.key_file}",
            "--drain-delay=0s",
            "--shutdown-timeout=5s",
        )
        self.port = int(self.server.logged("addr").rpartition(":")[2])

    def restart(self):
        self.server.stop()
        self.start()

    @property
    def settings(self):
        return {
            "target": f"https://localhost:{self.port}",
            "ca_file": self.ca_file,
            "token_file": os.path.join(self.directory, "data", "admin.token"),
        }

    def stop(self):
        self.server.stop()
        self.provider.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def make_certificate(certificate, key):
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    extensions = ["subjectAltName=DNS:localhost", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(
        [*command.split(), "-subj", "/CN=localhost"]
        + [word for extension in extensions for word in ("-addext", extension)]
        + ["-keyout", key, "-out", certificate],
        check=True,
        stderr=subprocess.DEVNULL,
    )


class Fake(FakeHoldfast):
    name = "fake"

    @property
    def settings(self):
        return {"target": self.target}


@pytest.fixture(scope="session", params=["fake", "real"])
def stack(request):
    if request.param == "real" and "HOLDFAST_BINARY" not in os.environ:
        pytest.skip("HOLDFAST_BINARY names no program")
    stack = Fake() if request.param == "fake" else Real()
    yield stack
    stack.stop()


@pytest.fixture
def client(stack):
    with Client(**stack.settings) as client:
        yield client


@pytest.fixture
def pool(client):
    """A pool of its own for each test, with one account."""
    pool_id = f"test-{uuid.uuid4().hex[:12]}"
    client.create_pool(Pool(pool_id=pool_id, currency_code="EUR"))
    client.create_account(Account(pool_id=pool_id, account_id="anna", country_code="DE"))
    return pool_id


@pytest.fixture
def code():
    return f"CODE-{uuid.uuid4().hex.upper()}"


if sys.version_info < (3, 9):
    raise RuntimeError("Python 3.9 or later is needed")
