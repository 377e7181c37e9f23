"""What clients see of a server that loses its database, and of one that stops."""

import os
import queue
import signal
import threading
import time
import uuid

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from reflected import Refusal, Server, name_of
from run import HOLDER, POOLS, REDEMPTIONS, SERVICES, print_refusal
from stack import DRAIN_DELAY

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# How long health may take to notice: it asks twice a second, and waits two seconds for an answer.
NOTICE = 10


class Watch:
    """Follows the health of a service on a connection of its own."""

    def __init__(self, address, service):
        self.seen = queue.Queue()
        # None of the connections that other calls share.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(address, options=options)
        request = health_pb2.HealthCheckRequest(service=service)
        self.call = health_pb2_grpc.HealthStub(self.channel).Watch(request)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        try:
            for reply in self.call:
                self.seen.put(reply.status)
            self.seen.put("ended")
        except grpc.RpcError:
            self.seen.put("ended")

    def next(self, timeout=NOTICE):
        try:
            return self.seen.get(timeout=timeout)
        except queue.Empty:
            return "nothing"

    def close(self):
        self.call.cancel()
        self.channel.close()


class Stopping:
    """Steps after which there is no server any more."""

    def __init__(self, run, stack, provider):
        self.run = run
        self.server = run.server
        self.stack = stack
        self.provider = provider

    def watch_all(self):
        watches = {name: Watch(self.stack.address, name) for name in ["", *SERVICES]}
        for name, watch in watches.items():
            self.run.expect(watch.next(), SERVING, f"first word about {name or 'the server'}")
        return watches

    def database_out_of_reach(self):
        watches = self.watch_all()
        processes = self.stack.postgres_processes()
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            for name, watch in watches.items():
                found = watch.next()
                self.run.expect(found, NOT_SERVING, f"{name or 'the server'} without Postgres")
            stub = health_pb2_grpc.HealthStub(self.server.channel)
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            self.run.expect(reply.status, NOT_SERVING, "Check without Postgres")
            acquire = {"pool_id": self.run.pool, "holder": HOLDER}
            begun = time.monotonic()
            try:
                self.server.call(REDEMPTIONS + "AcquireAccount", acquire)
                self.run.expect("no error", "UNAVAILABLE", "an acquisition without Postgres")
            except Refusal as refusal:
                print(f"  an acquisition, after {time.monotonic() - begun:.1f} s:")
                print_refusal(refusal)
                self.run.expect(refusal.code, grpc.StatusCode.UNAVAILABLE, "without Postgres")
                self.run.expect(refusal.reason, "DATABASE_UNAVAILABLE", "without Postgres")
                retry = refusal.detail("google.rpc.RetryInfo")
                self.run.expect(retry is not None, True, "says when to try again")
        finally:
            for process in processes:
                try:
                    os.kill(process, signal.SIGCONT)
                except ProcessLookupError:  # A connection that has ended since.
                    pass
        for name, watch in watches.items():
            self.run.expect(watch.next(), SERVING, f"{name or 'the server'} with Postgres again")
            watch.close()
        found = self.server.call(POOLS + "GetPool", {"pool_id": self.run.pool}).pool.pool_id
        self.run.expect(found, self.run.pool, "calls are answered again")

    def told_to_stop(self):
        """The redemption that is under way takes longer than the drain delay."""
        watches = self.watch_all()
        self.provider.set_faults(latency=f"{DRAIN_DELAY + 1}s")
        lease = self.run.lease_ref(self.run.acquire("batch-1").lease)
        request = {"request_id": str(uuid.uuid4()), "lease": lease, "code": self.run.new_code()}
        outcome = queue.Queue()
        redeeming = threading.Thread(target=self._redeem, args=(request, outcome), daemon=True)
        redeeming.start()
        time.sleep(0.3)
        begun = time.monotonic()
        self.stack.server.ask_to_stop()
        for name, watch in watches.items():
            self.run.expect(watch.next(), NOT_SERVING, f"{name or 'the server'} while draining")
        soon = time.monotonic() - begun < DRAIN_DELAY
        self.run.expect(soon, True, "it says so during the drain delay")
        found = self.server.call(POOLS + "GetPool", {"pool_id": self.run.pool}).pool.pool_id
        self.run.expect(found, self.run.pool, "calls are answered while draining")
        for name, watch in watches.items():
            self.run.expect(watch.next(), "ended", f"{name or 'the server'} at the end")
        try:
            state = outcome.get(timeout=NOTICE)
        except queue.Empty:
            state = "nothing"
        self.run.expect(state, "REDEMPTION_STATE_SUCCEEDED", "what was under way")
        code = self.stack.server.process.wait(20)
        took = time.monotonic() - begun
        self.run.expect(code, 0, "exit code")
        self.run.expect(took < DRAIN_DELAY + 5, True, f"it ends with the work: {took:.1f} s")
        print(f"  stopped after {took:.1f} s")
        for watch in watches.values():
            watch.close()
        try:
            self.server.call(POOLS + "GetPool", {"pool_id": self.run.pool})
            self.run.expect("no error", "UNAVAILABLE", "a call to nobody")
        except Refusal as refusal:
            self.run.expect(refusal.code, grpc.StatusCode.UNAVAILABLE, "a call to nobody")

    def started_again(self):
        """On the same data; then it stops because its input ends, as it would with its parent."""
        self.stack.start_server()
        server = Server(self.stack.address, NOTICE, self.stack.token)
        request = {"pool_id": self.run.pool, "account_id": "batch-1"}
        page = server.call(REDEMPTIONS + "ListRedemptions", request)
        newest = page.redemptions[0]
        self.run.expect(name_of(newest, "state"), "REDEMPTION_STATE_SUCCEEDED", "remembered")
        server.channel.close()
        self.stack.server.end_input()
        self.run.expect(self.stack.server.process.wait(20), 0, "exit code at the input's end")

    def _redeem(self, request, outcome):
        try:
            redemption = self.server.call(REDEMPTIONS + "Redeem", request).redemption
            outcome.put(name_of(redemption, "state"))
        except Refusal as refusal:
            outcome.put(str(refusal))

    def steps(self):
        return [self.database_out_of_reach, self.told_to_stop, self.started_again]
