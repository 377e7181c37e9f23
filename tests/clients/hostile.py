"""What no client should send: refused in the contract's words, and the server goes on.

Each case is an RPC, a request, and the fields that the answer's BadRequest has to name.
"""

import grpc
from reflected import Refusal
from run import ACCOUNTS, HOLDER, POOLS, PROVIDERS, REDEMPTIONS, SERVICES, print_refusal

MIB = 1024 * 1024
NO_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
LISTS = {
    POOLS + "ListPools": {},
    PROVIDERS + "ListProviders": {},
    POOLS + "ListPlans": {},
    ACCOUNTS + "ListAccounts": {},
    ACCOUNTS + "ListAccountEvents": {"account_id": "single"},
    REDEMPTIONS + "ListRedemptions": {},
}
# Of no pool.
LISTS_OF_ALL = {POOLS + "ListPools", PROVIDERS + "ListProviders"}
# Nothing has to be in their requests. That a profile is empty is a fault, which is no error.
UNASKING = LISTS_OF_ALL | {PROVIDERS + "CheckProvider"}
STREAMS = {REDEMPTIONS + "BatchRedeem", ACCOUNTS + "ImportAccounts"}


class Hostile:
    """Steps that send what is wrong."""

    def __init__(self, run):
        self.run = run
        self.server = run.server
        self.pool = run.pool
        self.lease = {"pool_id": self.pool, "account_id": "single", "fencing_token": 1}

    def refused(self, rpc, request, *fields, quiet=True):
        """Expects INVALID_ARGUMENT, each of the fields named, and a server that goes on."""
        what = f"{rpc} with {str(request)[:120]}"
        try:
            if rpc.endswith("BatchRedeem"):
                self.server.converse(rpc, request)
            else:
                self.server.call(rpc, request)
            self.run.expect("no error", "INVALID_ARGUMENT", what)
        except Refusal as refusal:
            if not quiet:
                print_refusal(refusal)
            self.run.expect(refusal.code, grpc.StatusCode.INVALID_ARGUMENT, what)
            self.run.expect(refusal.reason, "INVALID_ARGUMENT", what)
            for field in fields:
                self.run.expect_in(field, refusal.violations, f"{what}: fields")
            self.run.expect(any(refusal.violations.values()), True, f"{what}: says the rule")
            for text in [refusal.message, *refusal.violations.values()]:
                self.run.expect(text.isprintable(), True, f"{what}: printable {text!r}")
        found = self.server.call(POOLS + "GetPool", {"pool_id": self.pool}).pool.pool_id
        self.run.expect(found, self.pool, "the server goes on")

    def nothing_at_all(self):
        for service in SERVICES:
            for method in sorted(self.server.methods(service)):
                rpc = f"{service}/{method}"
                if rpc not in STREAMS | UNASKING:
                    self.refused(rpc, {})
        self.refused(REDEMPTIONS + "BatchRedeem", [], "open")
        self.refused(REDEMPTIONS + "BatchRedeem", [{}], "open")
        item = {"item": {"item_id": "1", "code": "CODE-1"}}
        self.refused(REDEMPTIONS + "BatchRedeem", [item], "open")

    def long_text(self):
        names = {"pool_id": "p" * 129, "account_id": "a" * 257}
        self.refused(ACCOUNTS + "GetAccount", names, "pool_id", "account_id")
        acquire = {"pool_id": self.pool, "holder": "h" * 257, "request_id": "r" * 129}
        self.refused(REDEMPTIONS + "AcquireAccount", acquire, "holder", "request_id")
        redeem = {"request_id": "r", "lease": self.lease, "code": "C" * 129}
        self.refused(REDEMPTIONS + "Redeem", redeem, "code")
        account = {"pool_id": self.pool, "account_id": "long"}
        for labels in (
            {"k" * 64: "v"},
            {"k": "v" * 257},
            {str(n): "v" for n in range(33)},
        ):
            self.refused(ACCOUNTS + "CreateAccount", {"account": {**account, "labels": labels}})
        excluded = {"exclude_account_ids": [f"a{n}" for n in range(1001)]}
        acquire = {"pool_id": self.pool, "holder": HOLDER, "selector": excluded}
        self.refused(REDEMPTIONS + "AcquireAccount", acquire, "selector.exclude_account_ids")
        word = {
            "pool_id": self.pool,
            "redemption_id": NO_ID,
            "state": "REDEMPTION_STATE_FAILED",
            "reason": "r" * 1001,
            "resolved_by": "b" * 257,
        }
        self.refused(REDEMPTIONS + "ResolveRedemption", word, "reason", "resolved_by")
        word = {
            "pool_id": self.pool,
            "redemption_id": NO_ID,
            "reason": "r" * 1001,
            "reversed_by": "b" * 257,
        }
        self.refused(REDEMPTIONS + "ReverseRedemption", word, "reason", "reversed_by")
        opening = {"batch_id": "b" * 65, "pool_id": self.pool, "holder": HOLDER}
        self.refused(REDEMPTIONS + "BatchRedeem", [{"open": opening}], "open.batch_id")

    def large_messages(self):
        acquire = {"pool_id": self.pool, "holder": "h" * MIB}
        self.refused(REDEMPTIONS + "AcquireAccount", acquire, "message")
        opening = {"batch_id": "large", "pool_id": self.pool, "holder": HOLDER}
        item = {"item": {"item_id": "1", "code": self.run.new_code()}}
        for size in (MIB + 1, 17 * MIB):
            # Above what is read, and above what is even looked at.
            large = b"\x0a" * size
            self.refused(POOLS + "GetPool", large, "message", quiet=False)
            self.refused(ACCOUNTS + "ImportAccounts", [large], "message")
            self.refused(REDEMPTIONS + "BatchRedeem", [large], "message")
            # It is nobody's item, so the batch ends there, and says so; sent again, it goes on.
            messages = [{"open": opening}, item, large, item]
            self.refused(REDEMPTIONS + "BatchRedeem", messages, "message")
        replies = self.server.converse(REDEMPTIONS + "BatchRedeem", [{"open": opening}, item])
        [result] = [reply.result for reply in replies if reply.HasField("result")]
        self.run.expect(result.HasField("redemption"), True, "what came before has its outcome")

    def text_that_is_none(self):
        bad_text = b"\x0a\x02\xff\xfe"
        for service in SERVICES:
            for method in sorted(self.server.methods(service)):
                rpc = f"{service}/{method}"
                # The first field of a few is a message or a number; in any of them this is no text.
                cut_short = b"\x0a\x7fabc"
                for request in (cut_short, b"\xff" * 20):
                    self.refused(rpc, [request] if rpc in STREAMS else request, "message")
        for rpc in (
            POOLS + "GetPool",
            ACCOUNTS + "GetAccount",
            ACCOUNTS + "ListAccounts",
            REDEMPTIONS + "AcquireAccount",
            REDEMPTIONS + "Redeem",
            REDEMPTIONS + "GetRedemption",
            REDEMPTIONS + "ResolveRedemption",
            REDEMPTIONS + "ReverseRedemption",
        ):
            self.refused(rpc, bad_text, "message", quiet=rpc != REDEMPTIONS + "Redeem")
        # The code of a card, which nobody is told.
        self.refused(REDEMPTIONS + "Redeem", b"\x1a\x06AB\xff\xfeYZ", "message", quiet=False)
        nested = b"\x0a\x04" + bad_text
        self.refused(POOLS + "CreatePool", nested, "message")
        self.refused(ACCOUNTS + "CreateAccount", nested, "message")
        self.refused(ACCOUNTS + "ImportAccounts", [nested], "message")
        self.refused(REDEMPTIONS + "BatchRedeem", [nested], "message")

    def control_characters(self):
        for text in ("a\0b", "a\nb", "a\x1b[31mb", "a\x7f", "\u0085", " a", ""):
            names = {"pool_id": self.pool, "account_id": text}
            self.refused(ACCOUNTS + "GetAccount", names, "account_id")
            self.refused(ACCOUNTS + "CreateAccount", {"account": names}, "account.account_id")
            acquire = {"pool_id": self.pool, "holder": text}
            self.refused(REDEMPTIONS + "AcquireAccount", acquire, "holder")
            redeem = {"request_id": text, "lease": self.lease, "code": "CODE-1"}
            self.refused(REDEMPTIONS + "Redeem", redeem, "request_id")
        text = "a\0b"
        self.refused(POOLS + "GetPool", {"pool_id": text}, "pool_id")
        self.refused(POOLS + "GetPlan", {"pool_id": self.pool, "plan_id": text}, "plan_id")
        listing = {"pool_id": self.pool, "plan_id": text}
        self.refused(ACCOUNTS + "ListAccounts", listing, "plan_id")
        listing = {"pool_id": self.pool, "account_id": text, "batch_id": text}
        self.refused(REDEMPTIONS + "ListRedemptions", listing, "account_id", "batch_id")
        reading = {"pool_id": self.pool, "request_id": text}
        self.refused(REDEMPTIONS + "GetRedemption", reading, "request_id")
        redeem = {"request_id": "r", "lease": self.lease, "code": "CODE\0-1"}
        self.refused(REDEMPTIONS + "Redeem", redeem, "code")
        for labels in ({"k\0": "v"}, {"k": "v\0"}, {"": "v"}):
            account = {"pool_id": self.pool, "account_id": "single", "labels": labels}
            self.refused(ACCOUNTS + "UpdateAccount", {"account": account})
            selector = {"labels": labels}
            acquire = {"pool_id": self.pool, "holder": HOLDER, "selector": selector}
            self.refused(REDEMPTIONS + "AcquireAccount", acquire)
        selector = {name: text for name in ("account_id", "plan_id", "country_code")}
        selector["exclude_account_ids"] = ["fine", text]
        acquire = {"pool_id": self.pool, "holder": HOLDER, "selector": selector}
        fields = ["account_id", "plan_id", "country_code", "exclude_account_ids[1]"]
        fields = [f"selector.{field}" for field in fields]
        self.refused(REDEMPTIONS + "AcquireAccount", acquire, *fields)
        word = {
            "pool_id": self.pool,
            "redemption_id": NO_ID,
            "state": "REDEMPTION_STATE_SUCCEEDED",
            "amount": self.run.money(1),
            "provider_ref": text,
            "reason": text,
            "resolved_by": text,
        }
        fields = ["provider_ref", "reason", "resolved_by"]
        self.refused(REDEMPTIONS + "ResolveRedemption", word, *fields)

    def money(self):
        plan = {"pool_id": self.pool, "plan_id": "hostile"}
        account = {"pool_id": self.pool, "account_id": "hostile"}
        for minor in (-1, -(2**63), 10**15 + 1, 2**63 - 1):
            money = self.run.money(minor)
            request = {"plan": {**plan, "target": money}}
            self.refused(POOLS + "CreatePlan", request, "plan.target.amount_minor")
            request = {"account": {**account, "balance": money}}
            self.refused(ACCOUNTS + "CreateAccount", request, "account.balance.amount_minor")
            redeem = {"request_id": "r", "lease": self.lease, "code": "CODE-1", "expected": money}
            self.refused(REDEMPTIONS + "Redeem", redeem, "expected.amount_minor")
            selector = {"min_headroom": money}
            acquire = {"pool_id": self.pool, "holder": HOLDER, "selector": selector}
            field = "selector.min_headroom.amount_minor"
            self.refused(REDEMPTIONS + "AcquireAccount", acquire, field)
        request = {"plan": {**plan, "target": self.run.money(0)}}
        self.refused(POOLS + "CreatePlan", request, "plan.target.amount_minor")
        for code in ("", "eur", "EURO", "\0\0\0", "ÄÖÜ"):
            request = {"plan": {**plan, "target": {"amount_minor": 1, "currency_code": code}}}
            self.refused(POOLS + "CreatePlan", request, "plan.target.currency_code")
        other = {"amount_minor": 1, "currency_code": "XTS"}
        self.refused(POOLS + "CreatePlan", {"plan": {**plan, "target": other}})
        self.refused(ACCOUNTS + "CreateAccount", {"account": {**account, "balance": other}})
        redeem = {"request_id": "r", "lease": self.lease, "code": "CODE-1", "expected": other}
        self.refused(REDEMPTIONS + "Redeem", redeem)
        acquire = {"pool_id": self.pool, "holder": HOLDER, "selector": {"min_headroom": other}}
        self.refused(REDEMPTIONS + "AcquireAccount", acquire)
        change = {"pool": {"pool_id": self.pool, "currency_code": "XTS"}}
        self.refused(POOLS + "UpdatePool", change, "pool.currency_code")

    def durations(self):
        acquire = {"pool_id": self.pool, "holder": HOLDER}
        renewal = {"lease": self.lease}
        # The longest that a Duration may be is about 10,000 years.
        for duration in ("0s", "-1s", "0.999s", "86401s", "315576000000s", "-315576000000s"):
            asked = {"lease_duration": duration}
            self.refused(REDEMPTIONS + "AcquireAccount", {**acquire, **asked}, "lease_duration")
            self.refused(REDEMPTIONS + "RenewLease", {**renewal, **asked}, "lease_duration")
            pool = {"pool_id": self.pool, "max_lease_duration": duration}
            self.refused(POOLS + "UpdatePool", {"pool": pool}, "pool.max_lease_duration")
        # Within any lease's bounds, but above the pool's 10 minutes.
        request = {**acquire, "lease_duration": "601s"}
        self.refused(REDEMPTIONS + "AcquireAccount", request, "lease_duration")
        for duration in ("-0.001s", "600.001s"):
            request = {**acquire, "wait_timeout": duration}
            self.refused(REDEMPTIONS + "AcquireAccount", request, "wait_timeout")
            opening = {"batch_id": "b", **acquire, "item_timeout": duration}
            self.refused(REDEMPTIONS + "BatchRedeem", [{"open": opening}], "open.item_timeout")
        # Shorter than the default lease, which is one minute.
        pool = {"pool_id": self.pool, "max_lease_duration": "30s"}
        self.refused(POOLS + "UpdatePool", {"pool": pool})
        # Seconds and nanoseconds that no Duration may have: {seconds: 1, nanos: -5} and more than
        # fits, as the wire has them; lease_duration is field 2 of a renewal.
        lease = b"\x0a\x09\x0a\x01p\x12\x01a\x18\x01\x10\x00"
        lease = lease[:1] + bytes([len(lease) - 2]) + lease[2:]
        minus_five = b"\xfb" + b"\xff" * 8 + b"\x01"
        most = b"\xff" * 8 + b"\x7f"
        too_many = b"\xff\xff\xff\xff\x07"
        one = b"\x08\x01\x10"
        for fields in (one + minus_five, one + too_many, b"\x08" + most):
            request = lease + b"\x12" + bytes([len(fields)]) + fields
            self.refused(REDEMPTIONS + "RenewLease", request)

    def enums(self):
        listing = {"pool_id": self.pool, "status": 99, "login_status": -1}
        self.refused(ACCOUNTS + "ListAccounts", listing, "status", "login_status")
        listing = {"pool_id": self.pool, "states": [99]}
        self.refused(REDEMPTIONS + "ListRedemptions", listing, "states[0]")
        for rpc in ("CreateAccount", "UpdateAccount"):
            account = {"pool_id": self.pool, "account_id": "single", "login_status": 99}
            self.refused(ACCOUNTS + rpc, {"account": account}, "account.login_status")
        for rpc in ("CreatePool", "UpdatePool"):
            pool = {"pool_id": self.pool, "currency_code": "EUR", "amount_mismatch_policy": 99}
            self.refused(POOLS + rpc, {"pool": pool}, "pool.amount_mismatch_policy")
        for state in (0, 1, 2, 3, 99, -1):
            word = {"pool_id": self.pool, "redemption_id": NO_ID, "state": state}
            self.refused(
                REDEMPTIONS + "ResolveRedemption",
                {**word, "reason": "r", "resolved_by": "b"},
                "state",
            )

    def contradictions(self):
        word = {"pool_id": self.pool, "redemption_id": NO_ID, "reason": "r", "resolved_by": "b"}
        succeeded = {**word, "state": "REDEMPTION_STATE_SUCCEEDED"}
        self.refused(REDEMPTIONS + "ResolveRedemption", succeeded, "amount")
        failed = {**word, "state": "REDEMPTION_STATE_FAILED", "amount": self.run.money(1)}
        self.refused(REDEMPTIONS + "ResolveRedemption", failed, "amount")
        reading = {"pool_id": self.pool, "redemption_id": NO_ID, "request_id": "r"}
        self.refused(REDEMPTIONS + "GetRedemption", reading, "request_id")
        self.refused(REDEMPTIONS + "GetRedemption", {"pool_id": self.pool}, "redemption_id")
        reading = {"pool_id": self.pool, "redemption_id": "not-a-uuid"}
        self.refused(REDEMPTIONS + "GetRedemption", reading, "redemption_id")
        account = {"pool_id": self.pool, "account_id": "hostile"}
        for field, value in (
            ("status", "ACCOUNT_STATUS_COMPLETED"),
            ("lease", {"holder": HOLDER}),
            ("open_redemption_id", NO_ID),
            ("country_code", "DEU"),
        ):
            request = {"account": {**account, field: value}}
            self.refused(ACCOUNTS + "CreateAccount", request, f"account.{field}")
        for rpc, resource in (
            (POOLS + "UpdatePool", {"pool": {"pool_id": self.pool}}),
            (POOLS + "UpdatePlan", {"plan": {"pool_id": self.pool, "plan_id": "one-card"}}),
            (ACCOUNTS + "UpdateAccount", {"account": {**account, "account_id": "single"}}),
        ):
            self.refused(rpc, {**resource, "update_mask": "status"}, "update_mask")
        plan = {"pool_id": self.pool, "plan_id": "one-card"}
        # A target can be changed, and not cleared.
        self.refused(POOLS + "UpdatePlan", {"plan": plan, "update_mask": "target"}, "plan.target")
        for token in (0, -1, -(2**63)):
            lease = {**self.lease, "fencing_token": token}
            self.refused(REDEMPTIONS + "ReleaseAccount", {"lease": lease}, "lease.fencing_token")
        redeem = {"request_id": "batch:b:1", "lease": self.lease, "code": "CODE-1"}
        self.refused(REDEMPTIONS + "Redeem", redeem, "request_id")
        opening = {"batch_id": "b", "pool_id": self.pool, "holder": HOLDER, "max_in_flight": 1025}
        self.refused(REDEMPTIONS + "BatchRedeem", [{"open": opening}], "open.max_in_flight")

    def pages(self):
        for rpc, request in LISTS.items():
            if rpc not in LISTS_OF_ALL:
                request = {"pool_id": self.pool, **request}
            for size in (-1, 1001, -(2**31), 2**31 - 1):
                self.refused(rpc, {**request, "page_size": size}, "page_size")
            # No base64, no text, an empty name, a name with a zero byte.
            for token in ("!", "_w", "Cg", "YQBi", "x" * 10000):
                self.refused(rpc, {**request, "page_token": token}, "page_token")

    def unknown_methods(self):
        for path in ("/holdfast.v1.PoolService/NoSuchCall", "/no.such.Service/Call"):
            try:
                self.server.channel.unary_unary(path)(b"", timeout=5)
                self.run.expect("no error", "UNIMPLEMENTED", path)
            except grpc.RpcError as error:
                self.run.expect(error.code(), grpc.StatusCode.UNIMPLEMENTED, path)
        # Fields of a later version of the contract are passed over.
        request = b"\x0a" + bytes([len(self.pool)]) + self.pool.encode() + b"\xba\x3e\x01x"
        found = self.server.call(POOLS + "GetPool", request).pool.pool_id
        self.run.expect(found, self.pool, "a request with an unknown field")

    def steps(self):
        return [
            self.nothing_at_all,
            self.long_text,
            self.large_messages,
            self.text_that_is_none,
            self.control_characters,
            self.money,
            self.durations,
            self.enums,
            self.contradictions,
            self.pages,
            self.unknown_methods,
        ]
