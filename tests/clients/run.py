"""What the steps of check.py are made of."""

import traceback
import uuid

from reflected import Refusal

POOLS = "holdfast.v1.PoolService/"
ACCOUNTS = "holdfast.v1.AccountService/"
REDEMPTIONS = "holdfast.v1.RedemptionService/"
PROVIDERS = "holdfast.v1.ProviderService/"
SERVICES = [name.rstrip("/") for name in (POOLS, ACCOUNTS, REDEMPTIONS, PROVIDERS)]

HOLDER = "check.py"


def print_refusal(refusal):
    for line in refusal.lines():
        print(f"    {line}")


class Run:
    """One run: a server, and names that nobody else has."""

    def __init__(self, server, amount_minor, currency):
        self.server = server
        self.amount_minor = amount_minor
        self.currency = currency
        self.mismatches = 0
        self.expectations = 0
        run = uuid.uuid4().hex[:12]
        self.pool = f"check-{run}"
        self.review_pool = f"check-{run}-review"

    def step(self, step):
        """Takes a step, and counts it when it ends early."""
        try:
            step()
        except Refusal as refusal:
            self.mismatches += 1
            print("  UNEXPECTED")
            print_refusal(refusal)
            traceback.print_exc()
        except Exception:  # Whatever it is, the other steps have something to say too.
            self.mismatches += 1
            traceback.print_exc()

    def summary(self):
        if self.mismatches:
            return f"{self.mismatches} mismatches of {self.expectations} expectations"
        return f"all {self.expectations} expectations are met"

    def expect(self, found, wanted, what):
        self.expectations += 1
        if found != wanted:
            self.mismatches += 1
            print(f"  MISMATCH {what}: wanted {wanted!r}, found {found!r}")

    def expect_in(self, wanted, found, what):
        self.expect(wanted in found, True, f"{what}: {wanted!r} in {sorted(found)!r}")

    def expect_refusal(self, rpc, request, code, reason=None, fields=(), metadata=None):
        """Calls what has to be refused, and shows how it was."""
        what = f"{rpc} refused"
        try:
            self.server.call(rpc, request)
        except Refusal as refusal:
            print_refusal(refusal)
            self.expect(refusal.code, code, what)
            card = isinstance(request, dict) and request.get("code", "")
            if card:
                self.expect(card in str(list(refusal.lines())), False, f"{what}: tells the card")
            if reason:
                info = refusal.detail("google.rpc.ErrorInfo")
                self.expect(refusal.reason, reason, what)
                self.expect(info.domain if info else None, "holdfast", f"{what}: domain")
            for field in fields:
                self.expect_in(field, refusal.violations, f"{what}: fields")
            for key, value in (metadata or {}).items():
                found = refusal.metadata.get(key)
                self.expect(found, value, f"{what}: {key} in the metadata")
            return refusal
        self.expect("no error", reason or code.name, what)
        return None

    def money(self, amount_minor):
        return {"amount_minor": amount_minor, "currency_code": self.currency}

    def new_code(self):
        return f"CHECK-{uuid.uuid4().hex.upper()}"

    def account(self, account_id, pool=None):
        request = {"pool_id": pool or self.pool, "account_id": account_id}
        return self.server.call(ACCOUNTS + "GetAccount", request).account

    def acquire(self, account_id, pool=None, **more):
        request = {
            "request_id": str(uuid.uuid4()),
            "pool_id": pool or self.pool,
            "holder": HOLDER,
            "selector": {"account_id": account_id},
            **more,
        }
        return self.server.call(REDEMPTIONS + "AcquireAccount", request)

    def lease_ref(self, lease):
        ref = lease.ref
        return {
            "pool_id": ref.pool_id,
            "account_id": ref.account_id,
            "fencing_token": ref.fencing_token,
        }

    def list_all(self, rpc, request, field, key="pool_id"):
        """Keys of all pages, with pages as small as they can be without taking long."""
        keys, token = [], ""
        while True:
            page = self.server.call(rpc, {**request, "page_size": 2, "page_token": token})
            keys += [getattr(item, key) for item in getattr(page, field)]
            token = page.next_page_token
            if not token:
                self.expect(len(set(keys)), len(keys), f"{rpc}: nothing is listed twice")
                return keys
