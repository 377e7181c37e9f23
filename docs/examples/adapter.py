"""An adapter: Holdfast's contract on one side, a provider's own protocol on the other. Python 3.11, nothing else.

    python3 adapter.py 127.0.0.1:50080 adapter.db http://provider.example/gateway

Yours to write are `redeem` and `find`; here they speak XML. The rest stays. A key is on disk before the provider is
asked. A crash after that leaves it `processing`, and `find` tells later what became of it.
"""
import hashlib, json, sqlite3, sys, time, urllib.request
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

COLUMNS = ("key", "payload", "account_ref", "state", "provider_ref", "amount_minor", "currency_code", "failure", "finished")

def ask(tag, **values):
    request = ElementTree.tostring(ElementTree.Element(tag, values))
    with urllib.request.urlopen(urllib.request.Request(PROVIDER, request, {"content-type": "text/xml"}), timeout=20) as answer:
        return meaning(ElementTree.fromstring(answer.read()))

def meaning(result):
    """What an answer proves, as columns. None: nothing yet, or nothing certain."""
    if result.get("status") == "ok":
        return {"state": "succeeded", "provider_ref": result.attrib["id"], "amount_minor": int(result.attrib["minor"]),
                "currency_code": result.attrib["currency"]}
    if result.get("status") == "refused":
        failure = {"code": result.attrib["reason"], "message": result.get("text", ""), "code_spent": result.get("spent") == "yes"}
        return {"state": "failed", "failure": json.dumps(failure)}

def redeem(key, code, account):
    """Redeems a card. The provider must keep our key beside it, or `find` finds nothing."""
    return ask("redeem", reference=key, card=code, account=account)

def find(key):
    """What became of a key. None where the provider does not know it: the request may still be on its way."""
    return ask("find", reference=key)

def sql(statement, *values):
    database = sqlite3.connect(STORE, timeout=20, isolation_level=None)  # each statement commits, and is synced
    try:
        database.execute(f"CREATE TABLE IF NOT EXISTS redemptions ({', '.join(COLUMNS)}, PRIMARY KEY (key))")
        cursor = database.execute(statement, values)
        return [dict(zip(COLUMNS, row)) for row in cursor.fetchall()], cursor.rowcount
    finally:
        database.close()

def begin(key, payload, account, state):
    """Writes a key down. False: it was there."""
    insert = "INSERT OR IGNORE INTO redemptions (key, payload, account_ref, state, finished) VALUES (?, ?, ?, ?, ?)"
    return sql(insert, key, payload, account, state, time.time() if state == "cancelled" else None)[1] == 1

def settle(key, asked):
    """Asks the provider, and writes down what it proves. Whatever goes wrong, the key stays `processing`."""
    try:
        told = asked()
    except Exception as error:  # its type alone: its text may hold the code
        return print("no certain answer for", key, type(error).__name__, file=sys.stderr)
    if told:
        told["finished"] = time.time()
        names = ", ".join(f"{name} = ?" for name in told)
        sql(f"UPDATE redemptions SET {names} WHERE key = ? AND state = 'processing'", *told.values(), key)

def row(key):
    found = sql("SELECT * FROM redemptions WHERE key = ?", key)[0]
    return found[0] if found else None

def redemption(row):
    told = {name: row[name] for name in COLUMNS if row[name] is not None and name not in ("payload", "finished", "failure")}
    return {**told, **({"failure": json.loads(row["failure"])} if row["failure"] else {})}

class Contract(BaseHTTPRequestHandler):
    def give(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("content-type", "application/json"), ("content-length", str(len(text)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        length, parts = int(self.headers["content-length"] or 0), self.path.strip("/").split("/")
        body = self.rfile.read(length)
        if len(body) < length:
            return  # half a request is none
        if len(parts) == 3 and parts[0] == "redemptions" and parts[2] == "cancel":
            key = unquote(parts[1])
            begin(key, None, None, "cancelled")  # a key that was never seen is refused from now on
            record = row(key)  # what is under way cannot be cancelled: it is looked up
            return self.give(409 if record["state"] in ("processing", "succeeded") else 200, redemption(record))
        if parts != ["redemptions"]:
            return self.give(501, {"error": "NOT_IMPLEMENTED"})
        request, key, payload = json.loads(body), self.headers["idempotency-key"], hashlib.sha256(body).hexdigest()
        account, not_after = request["account_ref"], datetime.fromisoformat(request["not_after"]).timestamp()
        if not key:
            return self.give(400, {"error": "BAD_REQUEST"})
        is_new = begin(key, payload, account, "processing")
        if is_new:  # once, whoever asks at the same time
            is_late = time.time() > not_after
            settle(key, lambda: {"state": "cancelled"} if is_late else redeem(key, request["code"], account))
        record = row(key)
        if record["payload"] not in (payload, None):
            return self.give(422, {"error": "KEY_REUSED"})
        status = {"succeeded": 201 if is_new else 200, "processing": 202, "failed": 402, "cancelled": 410}[record["state"]]
        self.give(status, redemption(record))

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/redemptions":
            return self.list(parse_qs(url.query))
        key = unquote(url.path.removeprefix("/redemptions/"))
        record = row(key)
        if record is None:
            return self.give(404, {"error": "NOT_FOUND"})
        if record["state"] == "processing":
            settle(key, lambda: find(key))
        self.give(200, redemption(row(key)))

    def list(self, query):
        begin, end = (datetime.fromisoformat(query[name][0]).timestamp() for name in ("from", "to"))
        after, token = query.get("page_token", [""])[0].partition(" ")[::2]
        page = sql("SELECT * FROM redemptions WHERE finished >= ? AND finished < ? AND (finished, key) > (?, ?)"
                   " ORDER BY finished, key LIMIT 1000", begin, end, float(after or 0), token)[0]
        following = f"{page[-1]['finished']!r} {page[-1]['key']}" if len(page) == 1000 else ""
        self.give(200, {"redemptions": [redemption(row) for row in page], "next_page_token": following})

    def log_message(self, *_):
        pass  # paths have keys alone, but bodies have codes: nothing is logged

if __name__ == "__main__":
    address, STORE, PROVIDER = sys.argv[1:]
    host, port = address.rsplit(":", 1)
    ThreadingHTTPServer((host, int(port)), Contract).serve_forever()
