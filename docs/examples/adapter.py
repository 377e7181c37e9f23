"""An adapter: Holdfast's contract on one side, a provider's own protocol on the other. Python 3.11, nothing else.

    python3 adapter.py 127.0.0.1:50080 adapter.db http://provider.example/gateway

Yours to write is `ask`; here it speaks XML. A key is on disk before the provider is asked. A crash after that leaves it
`processing`, and the next look-up asks the provider what became of it. It neither cancels, inquires nor lists.
"""
import hashlib, json, sqlite3, sys, urllib.request
from contextlib import closing
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.etree import ElementTree

def ask(what, **values):
    """What the provider's answer proves. None: nothing certain, which is so also where it does not know the reference."""
    request = ElementTree.tostring(ElementTree.Element(what, values))
    with urllib.request.urlopen(PROVIDER, request, timeout=20) as answer:
        told = ElementTree.fromstring(answer.read()).attrib
    if told.get("status") == "ok":
        return {"state": "succeeded", "provider_ref": told["id"], "amount_minor": int(told["minor"]), "currency_code": told["currency"]}
    if told.get("status") == "refused":
        return {"state": "failed", "failure": {"code": told["reason"], "code_spent": told["spent"] == "yes"}}

def sql(statement, *values):
    with closing(sqlite3.connect(STORE, timeout=20, isolation_level=None)) as database:  # each commit is synced
        database.execute("CREATE TABLE IF NOT EXISTS redemptions (key PRIMARY KEY, payload, answer)")
        cursor = database.execute(statement, values)
        return cursor.fetchone() or (None, None), cursor.rowcount == 1

def settle(key, answer, what, **values):
    """Asks the provider, and writes down what is certain, once. Whatever goes wrong, the key stays `processing`."""
    try:
        told = ask(what, reference=key, **values)
    except Exception as error:  # its type alone: its text may hold the code
        return print("no certain answer for", key, type(error).__name__, file=sys.stderr)
    if told:
        sql("UPDATE redemptions SET answer = ? WHERE key = ? AND answer = ?", json.dumps(json.loads(answer) | told), key, answer)

class Contract(BaseHTTPRequestHandler):
    def do_POST(self):
        body, key = self.rfile.read(int(self.headers["content-length"] or 0)), self.headers["idempotency-key"]
        if self.path != "/redemptions" or not key:
            return self.give(405, {"error": "NOT_ALLOWED"})  # not 5xx: that would be asked again for ever
        request, payload = json.loads(body), hashlib.sha256(body).hexdigest()  # half a request is no JSON
        is_late = datetime.now(timezone.utc) > datetime.fromisoformat(request["not_after"])
        begun = json.dumps({"key": key, "account_ref": request["account_ref"], "state": "cancelled" if is_late else "processing"})
        is_new = sql("INSERT OR IGNORE INTO redemptions VALUES (?, ?, ?)", key, payload, begun)[1]
        if is_new and not is_late:  # once for a key, whoever sends it at the same time
            settle(key, begun, "redeem", card=request["code"], account=request["account_ref"])
        (recorded, answer), _ = sql("SELECT payload, answer FROM redemptions WHERE key = ?", key)
        status = {"succeeded": 200, "processing": 202, "failed": 402, "cancelled": 410}[json.loads(answer)["state"]]
        self.give(status if recorded == payload else 422, json.loads(answer) if recorded == payload else {"error": "KEY_REUSED"})

    def do_GET(self):
        key, find = self.path.removeprefix("/redemptions/"), "SELECT key, answer FROM redemptions WHERE key = ?"
        (_, answer), _ = sql(find, key)
        if answer and json.loads(answer)["state"] == "processing":
            settle(key, answer, "find")
            (_, answer), _ = sql(find, key)
        self.give(200 if answer else 404, json.loads(answer) if answer else {"error": "NOT_FOUND"})

    def give(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(json.dumps(body))))
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass  # paths have keys alone, but bodies have codes: nothing is logged

if __name__ == "__main__":
    address, STORE, PROVIDER = sys.argv[1:]
    ThreadingHTTPServer((address.rsplit(":", 1)[0], int(address.rsplit(":", 1)[1])), Contract).serve_forever()
