"""A first session with a server from a command line: buf curl or grpcurl, and reflection alone."""

import base64
import json
import re
import subprocess
import uuid

from google.protobuf import json_format
from run import ACCOUNTS, POOLS, REDEMPTIONS, SERVICES

TIMEOUT = 60


class CommandFailed(Exception):
    """A command that should have gone well did not."""


def documents(text):
    """The JSON documents that a text is made of."""
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found


class Tool:
    """A program that calls RPCs."""

    def _run(self, command, requests=()):
        text = "\n".join(json.dumps(request) for request in requests)
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def services(self):
        code, out, errors = self._run(self.list_command())
        if code:
            raise CommandFailed(f"{self.name}: exit code {code}\n{errors}")
        return out.split()

    def call(self, rpc, *requests):
        """What an RPC answers."""
        code, out, errors = self._run(self.call_command(rpc), requests)
        if code:
            raise CommandFailed(f"{self.name} {rpc}: exit code {code}\n{out}{errors}")
        return documents(out)

    def refused(self, rpc, *requests):
        """What is printed when an RPC refuses; None when it did not."""
        code, out, errors = self._run(self.call_command(rpc), requests)
        return (out + errors) if code else None

    def readable(self, printed, _server):
        """What was printed of an error."""
        return printed


class Buf(Tool):
    """buf curl, which is told which version of reflection to use."""

    def __init__(self, binary, address, reflection, token):
        self.name = f"buf curl by {reflection}"
        self.url = f"http://{address}"
        self.command = [binary, "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
        self.command += ["--reflect-protocol", reflection]
        self.command += ["--header", f"authorization: Bearer {token}"]

    def list_command(self):
        return [*self.command, "--list-services", self.url]

    def call_command(self, rpc):
        return [*self.command, "--data", "@-", f"{self.url}/{rpc}"]

    def readable(self, printed, server):
        """buf names the types of details, but prints them in base64 whatever reflection says; its
        message has to do for people."""
        error = json.loads(printed)
        lines = [error["message"]]
        for detail in error["details"]:
            value = base64.b64decode(detail["value"] + "==")
            lines.append(detail["type"])
            lines.append(json_format.MessageToJson(server.decode(detail["type"], value)))
        return "\n".join(lines)


class Grpcurl(Tool):
    """grpcurl; versions before 1.8.8 know reflection v1alpha alone."""

    def __init__(self, binary, address, token):
        self.name = "grpcurl"
        self.command = [binary, "-plaintext", "-H", f"authorization: Bearer {token}"]
        self.address = address

    def list_command(self):
        return [*self.command, self.address, "list"]

    def call_command(self, rpc):
        return [*self.command, "-d", "@", self.address, rpc]


class Session:
    """What a person would try first."""

    def __init__(self, run, tool):
        self.run_of_all = run
        self.tool = tool

    def expect(self, found, wanted, what):
        self.run_of_all.expect(found, wanted, f"{self.tool.name}: {what}")

    def run(self):
        pool_id = f"curl-{uuid.uuid4().hex[:12]}"
        money = self.run_of_all.money
        amount_minor = self.run_of_all.amount_minor
        for service in [*SERVICES, "grpc.health.v1.Health"]:
            self.expect(service in self.tool.services(), True, f"{service} is listed")
        [health] = self.tool.call("grpc.health.v1.Health/Check", {})
        self.expect(health, {"status": "SERVING"}, "health")

        pool = {"poolId": pool_id, "currencyCode": self.run_of_all.currency}
        [reply] = self.tool.call(POOLS + "CreatePool", {"pool": pool})
        self.expect(reply["pool"]["defaultLeaseDuration"], "60s", "default lease")
        plan = {"poolId": pool_id, "planId": "plan", "target": money(100 * amount_minor)}
        self.tool.call(POOLS + "CreatePlan", {"plan": plan})
        account = {"poolId": pool_id, "accountId": "one", "planId": "plan"}
        self.tool.call(ACCOUNTS + "CreateAccount", {"account": account})
        stream = [{"account": {**account, "accountId": name}} for name in ("one", "two", "three")]
        [reply] = self.tool.call(ACCOUNTS + "ImportAccounts", *stream)
        self.expect((reply["created"], reply["failed"]), ("2", "1"), "import")
        why = reply["failures"][0]["error"]["details"][0]
        self.expect(why["reason"], "ACCOUNT_ALREADY_EXISTS", "a failure inside a reply")

        acquire = {"poolId": pool_id, "holder": "curl", "selector": {"accountId": "one"}}
        [reply] = self.tool.call(REDEMPTIONS + "AcquireAccount", acquire)
        lease = reply["lease"]["ref"]
        code = self.run_of_all.new_code()
        redeem = {"requestId": str(uuid.uuid4()), "lease": lease, "code": code}
        redeem["expected"] = money(amount_minor)
        [reply] = self.tool.call(REDEMPTIONS + "Redeem", redeem)
        self.expect(reply["redemption"]["state"], "REDEMPTION_STATE_SUCCEEDED", "redeemed")
        [reply] = self.tool.call(REDEMPTIONS + "ReleaseAccount", {"lease": lease})
        self.expect(reply["account"]["status"], "ACCOUNT_STATUS_PROCESSING", "released")

        opening = {"batchId": "cards", "poolId": pool_id, "holder": "curl"}
        items = [{"itemId": str(n), "code": self.run_of_all.new_code()} for n in range(5)]
        messages = [{"open": opening}, *({"item": item} for item in items)]
        messages.append({"item": {"itemId": "bad", "code": "x"}})
        replies = self.tool.call(REDEMPTIONS + "BatchRedeem", *messages)
        results = [reply["result"] for reply in replies if "result" in reply]
        states = sorted(r["redemption"]["state"] for r in results if "redemption" in r)
        self.expect(states, ["REDEMPTION_STATE_SUCCEEDED"] * 5, "batch")
        self.expect(replies[-1]["summary"]["succeeded"], "5", "summary")
        bad = [result["error"] for result in results if "error" in result]
        self.expect("item.code" in json.dumps(bad), True, f"the bad item's field in {bad}")

        self.errors(pool_id, redeem)

    def errors(self, pool_id, redeem):
        """The details of errors are printed as what they are, not as bytes."""
        bad = {"pool": {"poolId": "not a name", "currencyCode": "eur"}}
        self.shows(
            self.tool.refused(POOLS + "CreatePool", bad),
            ["google.rpc.BadRequest", "pool.pool_id", "pool.currency_code", "upper-case"],
        )
        self.shows(
            self.tool.refused(REDEMPTIONS + "Redeem", {**redeem, "code": "ANOTHER-CODE"}),
            ["REQUEST_ID_REUSED", '"domain": "holdfast"', '"fields": "code"'],
        )
        nobody = {"poolId": pool_id, "accountId": "nobody"}
        self.shows(
            self.tool.refused(ACCOUNTS + "GetAccount", nobody),
            ["ACCOUNT_NOT_FOUND", "google.rpc.ResourceInfo", '"resourceName": "nobody"'],
        )
        selector = {"accountId": "one", "countryCode": "DE"}
        acquire = {"poolId": pool_id, "holder": "curl", "selector": selector}
        self.shows(
            self.tool.refused(REDEMPTIONS + "AcquireAccount", acquire),
            ["NO_ACCOUNT_AVAILABLE", '"not_selected": "3"', "google.rpc.RetryInfo", '"retryDelay"'],
        )

    def shows(self, printed, words):
        if printed is None:
            self.expect("no error", words, "an error")
            return
        print("".join(f"    {line}\n" for line in printed.strip().splitlines()), end="")
        # However it is spaced.
        text = re.sub(r'"\s*:\s*', '": ', self.tool.readable(printed, self.run_of_all.server))
        for word in words:
            self.expect(word in text, True, f"{word} is printed")
