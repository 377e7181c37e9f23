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
    """The first row that a statement answers with."""
    with closing(sqlite3.connect(STORE, timeout=20, isolation_level=None)) as database:  # each commit is synced
        database.execute("CREATE TABLE IF NOT EXISTS redemptions (key PRIMARY KEY, payload, answer)")
        return (database.execute(statement, values).fetchall() or [(None, None)])[0]

def recorded(key):
    return sql("SELECT payload, answer FROM redemptions WHERE key = ?", key)

def settle(key, begun, what, **values):
    """Asks the provider, and writes down what is certain, once. Whatever goes wrong, the key stays `processing`."""
    try:
        told = json.dumps(json.loads(begun) | (ask(what, reference=key, **values) or {}))
        sql("UPDATE redemptions SET answer = ? WHERE key = ? AND answer = ?", told, key, begun)
    except Exception as error:  # its type alone: its text may hold the code
        print("no certain answer for", key, type(error).__name__, file=sys.stderr)

class Contract(BaseHTTPRequestHandler):  # it logs paths, which have keys alone: codes are in bodies
    def do_POST(self):
        body, key = self.rfile.read(int(self.headers["content-length"] or 0)), self.headers["idempotency-key"]
        if self.path != "/redemptions" or not key:
            return self.give(405, '{"error": "NOT_ALLOWED"}')  # not 5xx: that would be asked again for ever
        request, payload = json.loads(body), hashlib.sha256(body).hexdigest()  # half a request is no JSON
        is_late = datetime.now(timezone.utc) > datetime.fromisoformat(request["not_after"])
        begun = json.dumps({"key": key, "account_ref": request["account_ref"], "state": "cancelled" if is_late else "processing"})
        is_new, _ = sql("INSERT OR IGNORE INTO redemptions VALUES (?, ?, ?) RETURNING key, payload", key, payload, begun)
        if is_new and not is_late:  # once for a key, whoever sends it at the same time
            settle(key, begun, "redeem", card=request["code"], account=request["account_ref"])
        first, answer = recorded(key)
        status = {"succeeded": 200, "processing": 202, "failed": 402, "cancelled": 410}[json.loads(answer)["state"]]
        self.give(status, answer) if first == payload else self.give(422, '{"error": "KEY_REUSED"}')

    def do_GET(self):
        key = self.path.removeprefix("/redemptions/")
        if (begun := recorded(key)[1]) and json.loads(begun)["state"] == "processing":
            settle(key, begun, "find")
        self.give(200 if begun else 404, recorded(key)[1] or '{"error": "NOT_FOUND"}')

    def give(self, status, answer):
        head = f"HTTP/1.0 {status} Answer\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
        self.wfile.write((head + answer).encode())

address, STORE, PROVIDER = sys.argv[1:]
ThreadingHTTPServer((address.rsplit(":", 1)[0], int(address.rsplit(":", 1)[1])), Contract).serve_forever()
