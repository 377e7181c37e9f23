"""Calls and batches through a proxy, while its servers are drained, killed and started again.

usage: mesh.py PROXY PROGRAM DATABASE_URL DIRECTORY

PROXY is envoy, haproxy or nginx, and PROGRAM its program. HOLDFAST_BINARY is the server's. The proxy runs from its file in
deploy/, with other ports. Every call follows clients/service_config.json, and none may fail.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import timedelta

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "clients", "python", "src"))

from holdfast_client import Account, Client, Item, Pool, money  # noqa: E402
from stack import Program  # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SUCCEEDED = 4
POOL = "mesh"
CALLERS = 4
# How long each part of the run lasts: all servers, one drained, all again, one killed, all again.
PART = float(os.environ.get("HOLDFAST_MESH_SECONDS", "6"))
FILES = {
    "envoy": ("envoy/envoy.yaml", lambda program, path: [program, "-c", path, "--disable-hot-restart", "-l", "warn"]),
    "haproxy": ("haproxy/haproxy.cfg", lambda program, path: [program, "-db", "-f", path]),
    "nginx": ("nginx/nginx.conf", lambda program, path: [program, "-c", path, "-g", "daemon off;"]),
}


def free_ports(count):
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Servers:
    """Two servers of one database, each on ports of its own, over one provider."""

    def __init__(self, directory, database_url):
        self.binary = os.environ["HOLDFAST_BINARY"]
        self.directory = directory
        self.database_url = database_url
        self.key = os.path.join(directory, "key")
        with open(os.open(self.key, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write(os.urandom(32).hex())
        self.ports = list(zip(*[iter(free_ports(4))] * 2))
        ledger = os.path.join(directory, "ledger.jsonl")
        self.programs = []
        self.provider = self._run("provider", ["simulate-provider", "--listen", "127.0.0.1:0", "--ledger", ledger])
        self.provider_url = f"http://{self.provider.logged('address')}"
        self.running = [self.start(0), self.start(1)]

    def start(self, number):
        listen, admin = self.ports[number]
        server = self._run(
            f"server-{number}-{len(self.programs)}",
            [
                "serve",
                f"--listen=127.0.0.1:{listen}",
                f"--admin-listen=127.0.0.1:{admin}",
                f"--database-url={self.database_url}",
                f"--secret-key-file={self.key}",
                f"--provider-url={self.provider_url}",
                "--auth=off",
                "--drain-delay=3s",
                "--shutdown-timeout=25s",
            ],
        )
        server.logged("addr")
        return server

    def _run(self, name, arguments):
        program = Program(self.binary, self.directory, name, arguments)
        self.programs.append(program)
        return program

    def stop(self):
        for program in reversed(self.programs):
            program.stop()


class Proxy:
    """A proxy that runs from its file in deploy/, before these servers."""

    def __init__(self, name, program, servers, directory):
        self.port, admin = free_ports(2)
        path, command = FILES[name]
        with open(os.path.join(ROOT, "deploy", path), encoding="utf-8") as file:
            text = file.read()
        ports = {8080: self.port, 9901: admin}
        for number, (first, second) in enumerate([(50051, 50052), (50061, 50062)]):
            ports[first], ports[second] = servers.ports[number]
        text = re.sub(
            r"\b(127\.0\.0\.1:|port_value: |port )(\d+)", lambda found: found[1] + str(ports[int(found[2])]), text
        )
        text = text.replace("/etc/holdfast/holdfast.binpb", os.path.join(directory, "holdfast.binpb"))
        text = text.replace("/run/nginx-holdfast.pid", os.path.join(directory, "nginx.pid"))
        used = os.path.join(directory, os.path.basename(path))
        with open(used, "w", encoding="utf-8") as file:
            file.write(text)
        self.log_path = os.path.join(directory, f"{name}.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command(program, used), stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 30
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start:\n{self.log()[:3000]}")
            time.sleep(0.05)

    def _listens(self):
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Load:
    """Steady calls, and batches one after the other, until it is stopped."""

    def __init__(self, target):
        self.target = target
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.errors = []
        self.request_ids = []
        self.redeemed = self.leases = self.items = self.batches = 0
        work = [self._cards, self._leases, self._batches, self._watch]
        self.threads = [threading.Thread(target=self._run, args=(one,)) for one in work + [self._cards] * CALLERS]
        for thread in self.threads:
            thread.start()

    def _run(self, work):
        try:
            with Client(self.target) as client:
                work(client)
        except Exception as error:  # Whatever it is: none may fail.
            with self.lock:
                self.errors.append(f"{work.__name__}: {error!r}")

    def _cards(self, client):
        while not self.stopped.is_set():
            request_id = str(uuid.uuid4())
            client.redeem_card(
                POOL,
                code(),
                holder="mesh",
                expected=money("10.00", "EUR"),
                request_id=request_id,
                wait_timeout=timedelta(seconds=30),
            )
            with self.lock:
                self.request_ids.append(request_id)
                self.redeemed += 1

    def _leases(self, client):
        while not self.stopped.is_set():
            with client.acquire(POOL, holder="mesh", wait_timeout=timedelta(seconds=30)):
                pass
            self.leases += 1

    def _batches(self, client):
        while not self.stopped.is_set():
            items = [Item(f"i{n}", code(), money("10.00", "EUR")) for n in range(200)]
            batch_id = f"b{uuid.uuid4().hex[:12]}"
            results = {}
            for result in client.redeem_batch(POOL, items, batch_id=batch_id, holder="mesh", max_in_flight=8):
                results[result.item_id] = result
            refused = [one for one in results.values() if one.error is not None]
            if refused or len(results) != len(items):
                raise RuntimeError(f"{len(results)} results of {len(items)}, refused: {refused[:1]}")
            self.items += len(items)
            self.batches += 1

    def _watch(self, client):
        self.told = 0
        for _ in client.watch_redemptions(POOL, after="now"):
            self.told += 1
            if self.stopped.is_set():
                return

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(120)
            if thread.is_alive():
                self.errors.append("a caller still waits after two minutes")


def code():
    return f"MESH-{uuid.uuid4().hex.upper()}"


def unsettled(target, request_ids):
    """The redemptions that did not succeed in the end."""
    with Client(target) as client:
        wait = timedelta(seconds=60)
        states = {
            one: client.await_redemption(POOL, request_id=one, timeout=wait).state for one in request_ids
        }
    return {request_id: state for request_id, state in states.items() if state != SUCCEEDED}


def post(port, path, body, content_type="application/json"):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=body, headers={"content-type": content_type}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def check_json_and_web(port):
    """What Envoy makes of JSON and of gRPC-Web."""
    status, body = post(port, "/v1/PoolService/GetPool", json.dumps({"pool_id": POOL}).encode())
    if status != 200 or json.loads(body)["pool"]["currency_code"] != "EUR":
        raise RuntimeError(f"JSON: {status} {body!r}")
    status, body = post(port, "/v1/PoolService/GetPool", b'{"pool_id": "none"}')
    details = json.loads(body)["details"]
    if status != 404 or not any(one.get("reason") == "POOL_NOT_FOUND" for one in details):
        raise RuntimeError(f"an error in JSON: {status} {body!r}")
    message = b"\x0a" + bytes([len(POOL)]) + POOL.encode()
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    status, body = post(port, "/holdfast.v1.PoolService/GetPool", framed, "application/grpc-web+proto")
    if status != 200 or b"grpc-status:0" not in body:
        raise RuntimeError(f"gRPC-Web: {status} {body!r}")


def check_bad_fields(target):
    """An error of many bad fields comes through: the proxy reads its whole block."""
    import grpc
    from holdfast_client._proto.holdfast.v1 import redemption_pb2, redemption_pb2_grpc

    labels = {chr(0x1F600 + n) * 63: "\0" for n in range(32)}
    selector = redemption_pb2.AccountSelector(
        account_id="\0", plan_id="\0", country_code="\0", labels=labels, exclude_account_ids=["\0"] * 1000
    )
    request = redemption_pb2.AcquireAccountRequest(request_id="\0", holder="€" * 1000, selector=selector)
    with grpc.insecure_channel(target) as channel:
        try:
            redemption_pb2_grpc.RedemptionServiceStub(channel).AcquireAccount(request, timeout=20)
            raise RuntimeError("a request with bad fields was taken")
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
                raise RuntimeError(f"bad fields: {error}") from None


def run(name, program, database_url, directory):
    servers = Servers(directory, database_url)
    proxy = None
    try:
        proxy = Proxy(name, program, servers, directory)
        target = f"http://127.0.0.1:{proxy.port}"
        with Client(target) as client:
            client.create_pool(Pool(pool_id=POOL, currency_code="EUR"))
            for number in range(40):
                client.create_account(Account(pool_id=POOL, account_id=f"a{number}"))
        check_bad_fields(f"127.0.0.1:{proxy.port}")
        if name == "envoy":
            check_json_and_web(proxy.port)
        load = Load(target)
        time.sleep(PART)
        servers.running[0].ask_to_stop()
        code_of_drain = servers.running[0].process.wait(30)
        time.sleep(PART)
        servers.running[0] = servers.start(0)
        time.sleep(PART)
        servers.running[1].process.send_signal(signal.SIGKILL)
        servers.running[1].process.wait()
        time.sleep(PART)
        servers.running[1] = servers.start(1)
        time.sleep(PART)
        load.stop()
        unknown = unsettled(target, load.request_ids)
        told = (
            f"{name}: {load.redeemed} cards, {load.leases} leases, {load.items} items of {load.batches} batches, "
            f"{load.told} outcomes watched, {len(load.errors)} errors, {len(unknown)} not credited"
        )
        print(told, flush=True)
        if code_of_drain != 0:
            load.errors.append(f"the drained server ended with {code_of_drain}")
        if load.errors or unknown or not (load.redeemed and load.leases and load.batches):
            print("\n".join(load.errors[:20]), unknown, proxy.log()[-3000:], sep="\n", file=sys.stderr)
            return 1
        return 0
    finally:
        if proxy:
            proxy.stop()
        servers.stop()


def main():
    name, program, database_url, directory = sys.argv[1:]
    own = os.path.join(directory, name)
    os.mkdir(own)
    shutil.copy(os.path.join(directory, "holdfast.binpb"), own)
    sys.exit(run(name, program, database_url, own))


if __name__ == "__main__":
    main()
