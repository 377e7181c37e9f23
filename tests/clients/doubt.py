"""Redemptions whose outcome is not known at once: the simulated provider is told to misbehave."""

import json
import threading
import time
import urllib.request
import uuid

import grpc
from reflected import name_of
from run import ACCOUNTS, HOLDER, REDEMPTIONS

PATIENCE = 20


class Provider:
    """What the simulated provider does wrong."""

    def __init__(self, url):
        self.url = url

    def set_faults(self, **faults):
        """Sets what goes wrong from now on: all of it."""
        request = urllib.request.Request(
            f"{self.url}/faults",
            data=json.dumps(faults).encode(),
            headers={"Content-Type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            reply.read()


class Doubt:
    """Steps for which the provider is made to fail."""

    def __init__(self, run, provider):
        self.run = run
        self.server = run.server
        self.provider = provider

    def redeem(self, account_id, code):
        lease = self.run.lease_ref(self.run.acquire(account_id).lease)
        request = {
            "request_id": str(uuid.uuid4()),
            "lease": lease,
            "code": code,
            "release_on_completion": True,
        }
        return request, self.server.call(REDEMPTIONS + "Redeem", request).redemption

    def expect_state(self, redemption, wanted, what):
        self.run.expect(name_of(redemption, "state"), f"REDEMPTION_STATE_{wanted}", what)

    def in_doubt(self):
        code = self.run.new_code()
        rule = {"code_prefix": code, "fault": "apply_then_drop", "times": 1}
        self.provider.set_faults(rules=[rule], lookup_error=100)
        try:
            request, redemption = self.redeem("batch-1", code)
            self.expect_state(redemption, "IN_DOUBT", "no answer")
            self.run.expect(redemption.last_answer != "", True, "the last answer of the provider")
            account = self.run.account("batch-1")
            self.run.expect(account.open_redemption_id, redemption.redemption_id, "open")
            self.run.expect(name_of(account, "status"), "ACCOUNT_STATUS_LOCKING", "in doubt")
            self.run.expect_refusal(
                REDEMPTIONS + "Redeem",
                {**request, "request_id": str(uuid.uuid4()), "code": self.run.new_code()},
                grpc.StatusCode.FAILED_PRECONDITION,
                "REDEMPTION_OPEN",
                metadata={"redemption_id": redemption.redemption_id},
            )
            other = self.run.lease_ref(self.run.acquire("batch-2").lease)
            self.run.expect_refusal(
                REDEMPTIONS + "Redeem",
                {"request_id": str(uuid.uuid4()), "lease": other, "code": code},
                grpc.StatusCode.FAILED_PRECONDITION,
                "CODE_IN_USE",
                metadata={
                    "redemption_id": redemption.redemption_id,
                    "request_id": request["request_id"],
                },
            )
            self.server.call(REDEMPTIONS + "ReleaseAccount", {"lease": other})
        finally:
            self.provider.set_faults()
        # The provider can be asked again, and tells what it did.
        by_id = {"pool_id": self.run.pool, "redemption_id": redemption.redemption_id}
        settled = self.wait_for(by_id, "SUCCEEDED")
        self.run.expect(settled.amount.amount_minor, self.run.amount_minor, "credited")
        account = self.run.account("batch-1")
        self.run.expect(name_of(account, "status"), "ACCOUNT_STATUS_PROCESSING", "released")

    def resolved_in_doubt(self):
        code = self.run.new_code()
        rule = {"code_prefix": code, "fault": "drop_before_apply", "times": 1}
        self.provider.set_faults(rules=[rule], lookup_error=100)
        try:
            _, redemption = self.redeem("batch-2", code)
            self.expect_state(redemption, "IN_DOUBT", "no answer")
            word = {
                "pool_id": self.run.pool,
                "redemption_id": redemption.redemption_id,
                "state": "REDEMPTION_STATE_FAILED",
                "code_spent": False,
                "reason": "the provider's statement does not have it",
                "resolved_by": HOLDER,
                "evidence": "the statement's third page",
            }
            for _ in range(2):
                resolved = self.server.call(REDEMPTIONS + "ResolveRedemption", word).redemption
                self.expect_state(resolved, "FAILED", "resolved")
                self.run.expect(resolved.resolution.reason, word["reason"], "why, for good")
                self.run.expect(resolved.resolution.resolved_by, HOLDER, "who")
                self.run.expect(resolved.resolution.evidence, word["evidence"], "on what")
            self.run.expect_refusal(
                REDEMPTIONS + "ResolveRedemption",
                {**word, "code_spent": True},
                grpc.StatusCode.ALREADY_EXISTS,
                "REDEMPTION_ALREADY_SETTLED",
                metadata={"redemption_id": redemption.redemption_id, "state": "FAILED"},
            )
        finally:
            self.provider.set_faults()
        account = self.run.account("batch-2")
        self.run.expect(account.open_redemption_id, "", "nothing is open")
        self.run.expect(account.HasField("lease"), False, "released, as was asked")

    def submitted(self):
        self.provider.set_faults(latency="2500ms")
        code = self.run.new_code()
        replies = []
        redeeming = threading.Thread(
            target=lambda: replies.append(self.redeem("batch-3", code)), daemon=True
        )
        try:
            redeeming.start()
            listing = {"pool_id": self.run.pool, "states": ["REDEMPTION_STATE_SUBMITTED"]}
            deadline = time.monotonic() + 2
            found = []
            while not found and time.monotonic() < deadline:
                page = self.server.call(REDEMPTIONS + "ListRedemptions", listing)
                found = page.redemptions
                time.sleep(0.02)
            self.run.expect(len(found), 1, "redemptions that are being sent")
            if found:
                word = {
                    "pool_id": self.run.pool,
                    "redemption_id": found[0].redemption_id,
                    "state": "REDEMPTION_STATE_FAILED",
                    "reason": "too early",
                    "resolved_by": HOLDER,
                }
                self.run.expect_refusal(
                    REDEMPTIONS + "ResolveRedemption",
                    word,
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "REDEMPTION_OPEN",
                )
            self.run.expect_refusal(
                ACCOUNTS + "UpdateAccount",
                {
                    "account": {
                        "pool_id": self.run.pool,
                        "account_id": "batch-3",
                        "plan_id": "one-card",
                    }
                },
                grpc.StatusCode.FAILED_PRECONDITION,
                "ACCOUNT_LOCKED",
            )
            redeeming.join(PATIENCE)
            self.run.expect(len(replies), 1, "an answer in the end")
            for _, redemption in replies:
                self.expect_state(redemption, "SUCCEEDED", "a slow one")
        finally:
            self.provider.set_faults()

    def unknown_to_the_provider(self):
        self.run.expect_refusal(
            REDEMPTIONS + "ResolveRedemption",
            {
                "pool_id": self.run.pool,
                "redemption_id": str(uuid.uuid4()),
                "state": "REDEMPTION_STATE_FAILED",
                "reason": "there is none",
                "resolved_by": HOLDER,
            },
            grpc.StatusCode.NOT_FOUND,
            "REDEMPTION_NOT_FOUND",
        )

    def wait_for(self, request, state):
        deadline = time.monotonic() + PATIENCE
        while True:
            redemption = self.server.call(REDEMPTIONS + "GetRedemption", request).redemption
            now = name_of(redemption, "state") == f"REDEMPTION_STATE_{state}"
            if now or time.monotonic() > deadline:
                self.expect_state(redemption, state, f"after at most {PATIENCE} s")
                return redemption
            time.sleep(0.1)

    def steps(self):
        return [self.in_doubt, self.resolved_in_doubt, self.submitted, self.unknown_to_the_provider]
