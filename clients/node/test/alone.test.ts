/** What the client does by itself, over the fake. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";

import { context, propagation, SpanKind, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import * as hf from "holdfast-client";
import { FakeHoldfast } from "holdfast-client/testing";

import { unique, until } from "./worlds.js";

const project = process.env["HOLDFAST_PROJECT"] ?? join(process.cwd(), "../..");
const EUR = (minor: number) => hf.money(minor, "EUR");
const read = (path: string) => readFileSync(join(project, path), "utf8");

let fake: FakeHoldfast;
let client: hf.Holdfast;
let poolId: string;

before(async () => {
  fake = await FakeHoldfast.start();
  client = fake.client();
});
after(async () => {
  client.close();
  await fake.stop();
});
beforeEach(async () => {
  poolId = unique("pool");
  await client.createPool({ poolId, currencyCode: "EUR" });
  await client.createAccount({ poolId, accountId: "anna" });
});

const card = (code = unique("CODE-1234")) => ({ poolId, requestId: randomUUID(), code, expected: EUR(1000) });

describe("the contract", () => {
  test("every reason of the page of errors has a class, and no other has", () => {
    const [, table] = read("docs/errors.md").split("## Error reasons");
    const reasons = new Set<string>();
    for (const line of table!.split("\n")) {
      const [, cell] = /^\| ((?:`[A-Z_]+`(?:, )?)+) \|/.exec(line) ?? [];
      for (const [, reason] of cell?.matchAll(/`([A-Z_]+)`/g) ?? []) reasons.add(reason!);
    }
    assert.ok(reasons.size > 40);
    assert.deepEqual([...hf.ERRORS_BY_REASON.keys()].sort(), [...reasons].sort());
  });

  test("the service config is the published one", async () => {
    const copy = read("clients/node/src/stubs/service_config.ts").replace(/^[^{]*/, "").replace(/;\s*$/, "");
    assert.deepEqual(JSON.parse(copy), JSON.parse(read("clients/service_config.json")));
  });

  test("every Duration of the stubs is a number of milliseconds, and nothing else of that name is", () => {
    const durations = new Set<string>();
    const others = new Set<string>();
    const directory = "clients/node/src/stubs/holdfast/v1";
    for (const file of readdirSync(join(project, directory))) {
      for (const [, name, type] of read(join(directory, file)).matchAll(/^ {2}(\w+)\??:\s*(?:\|\s*)?(\w+)/gm)) {
        (type === "Duration" ? durations : others).add(name!);
      }
    }
    const listed = [...read("clients/node/src/messages.ts").split("DURATION_FIELDS")[1]!.split("]")[0]!.matchAll(/"(\w+)"/g)];
    assert.deepEqual(listed.map(([, name]) => name).sort(), [...durations].sort());
    assert.deepEqual([...durations].filter((name) => others.has(name)), []);
  });

  test("the example of the fake runs as it stands in the README", () => {
    const [, example] = /^## Tests of your own\n+```js\n(.*?)^```/ms.exec(read("clients/node/README.md"))!;
    const file = fileURLToPath(new URL("readme.mjs", import.meta.url));
    writeFileSync(file, example!);
    execFileSync(process.execPath, [file], { stdio: "pipe" });
  });

  test("the version is the server's", () => {
    const [, version] = /^version = "(.*)"/m.exec(read("Cargo.toml"))!;
    assert.equal(JSON.parse(read("clients/node/package.json")).version, version);
  });
});

describe("a client", () => {
  test("sends a token over TLS, or to this machine, alone", () => {
    const open = (options: hf.HoldfastOptions) => new hf.Holdfast(options).close();
    for (const server of ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://example.test"]) {
      open({ server, token: "hf_secret" });
    }
    for (const server of ["http://10.0.0.1:1", "http://localhost.example:1", "http://example.test"]) {
      open({ server });
      assert.throws(() => open({ server, token: "hf_secret" }), (error: Error) => /only over TLS/.test(error.message) && !/hf_/.test(error.message));
    }
    for (const bad of ["localhost:50051", "ftp://x", "https://user:pw@x", "https://x/path"]) {
      assert.throws(() => open({ server: bad }), /must be a URL/);
    }
    assert.throws(() => open({ server: "https://x", keyFile: "key.pem" }), /belong together/);
    assert.throws(() => open({ server: "http://localhost", caFile: "ca.pem" }), /https/);
    for (const token of ["", " ", "hf_sec\nret"]) {
      assert.throws(() => open({ token }), (error: Error) => /no token/.test(error.message) && !/sec/.test(error.message));
    }
  });

  test("reads its token's file again when it has changed, by the environment's variables", async () => {
    const directory = mkdtempSync("/tmp/hf-node-token-");
    const file = join(directory, "token");
    writeFileSync(file, "hf_one\n");
    process.env["HOLDFAST_SERVER"] = fake.server;
    process.env["HOLDFAST_TOKEN_FILE"] = file;
    const shown: unknown[] = [];
    fake.onCall = (_, headers) => shown.push(headers["authorization"]);
    const own = hf.Holdfast.fromEnv();
    try {
      await own.getPool(poolId);
      writeFileSync(`${file}.new`, "hf_two");
      renameSync(`${file}.new`, file);
      await own.getPool(poolId);
      rmSync(file);
      await own.getPool(poolId);
      assert.deepEqual(shown, ["Bearer hf_one", "Bearer hf_two", "Bearer hf_two"]);
      assert.ok(!inspect(own, { depth: 9, showHidden: true }).includes("hf_"));
    } finally {
      fake.onCall = undefined;
      delete process.env["HOLDFAST_SERVER"];
      delete process.env["HOLDFAST_TOKEN_FILE"];
      own.close();
      rmSync(directory, { recursive: true });
    }
  });

  test("tries again what the service config says, and nothing else", async () => {
    let calls = 0;
    fake.onCall = () => (calls += 1);
    try {
      fake.fail({ method: "RedeemCard", reason: "DATABASE_UNAVAILABLE", times: 2 });
      assert.equal((await client.redeemCard(card())).replayed, false);
      assert.equal(calls, 3);
      calls = 0;
      fake.fail({ method: "RedeemCard", reason: "OVERLOADED", code: 8, retryAfter: 200 });
      await assert.rejects(client.redeemCard(card()), (error) => error instanceof hf.OverloadedError && error.retryAfter === 200);
      fake.fail({ method: "CreatePool", reason: "DATABASE_UNAVAILABLE" });
      await assert.rejects(client.createPool({ poolId: "x", currencyCode: "EUR" }), hf.DatabaseUnavailableError);
      assert.equal(calls, 2);
    } finally {
      fake.onCall = undefined;
    }
  });

  test("ends a call when its signal aborts, or its time is over", async () => {
    await using _lease = await client.acquire({ poolId });
    const reason = new Error("enough");
    const controller = new AbortController();
    const waiting = client.acquire({ poolId, waitTimeout: 60_000, signal: controller.signal });
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(waiting, (error) => error === reason);
    await assert.rejects(client.getPool(poolId, { signal: controller.signal }), (error) => error === reason);
    await assert.rejects(client.acquire({ poolId, waitTimeout: 1_000, callTimeout: -900 }), hf.CallTimeoutError);
  });

  test("says that nothing answers", async () => {
    const nobody = new hf.Holdfast({ server: "http://127.0.0.1:1" });
    const error = await nobody.createPool({ poolId: "x", currencyCode: "EUR" }).catch((error) => error);
    assert.ok(error instanceof hf.ConnectionError);
    assert.deepEqual([error.reason, error.codeName], [undefined, "UNAVAILABLE"]);
    nobody.close();
  });

  test("passes the trace on, and makes a span of each call", async () => {
    const exporter = new InMemorySpanExporter();
    const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
    trace.setGlobalTracerProvider(provider);
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    let header = "";
    fake.onCall = (_, headers) => (header = String(headers["traceparent"]));
    try {
      const parent = provider.getTracer("test").startSpan("parent");
      const code = unique("SECR-1234");
      await context.with(trace.setSpan(context.active(), parent), () => client.redeemCard(card(code)));
      await assert.rejects(client.getPool("none"));
      const [redeem, failed] = exporter.getFinishedSpans();
      assert.equal(redeem!.name, "holdfast.v1.RedemptionService/RedeemCard");
      assert.equal(redeem!.kind, SpanKind.CLIENT);
      assert.equal(redeem!.spanContext().traceId, parent.spanContext().traceId);
      assert.equal(failed!.attributes["error.type"], "POOL_NOT_FOUND");
      assert.match(header, /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
      assert.ok(!inspect(exporter.getFinishedSpans(), { depth: 9 }).includes(code));
    } finally {
      fake.onCall = undefined;
      trace.disable();
    }
  });
});

describe("a lease", () => {
  test("is lost when the server says so, and its signal has the reason", async () => {
    const lease = await client.acquire({ poolId, leaseDuration: 3_000 });
    fake.advance(3_100);
    await until("the renewal is refused", () => lease.signal.aborted);
    assert.ok(lease.signal.reason instanceof hf.LeaseLostError);
    assert.equal(lease.signal.reason.metadata["cause"], "expired");
    let calls = 0;
    fake.onCall = () => (calls += 1);
    await assert.rejects(lease.redeem({ requestId: "1", code: "ABCD-1234" }), hf.LeaseLostError);
    await lease[Symbol.asyncDispose]();
    assert.equal(calls, 0, "nothing is asked of the server about a lease that is lost");
    fake.onCall = undefined;
  });

  test("outlives renewals that fail for a while", async () => {
    fake.fail({ method: "RenewLease", reason: "OVERLOADED", code: 8, times: 2 });
    await client.withLease({ poolId, leaseDuration: 2_000 }, async (lease) => {
      const ends = performance.now() + 3_000;
      await until("time passes", () => performance.now() > ends);
      assert.ok(!lease.signal.aborted);
    });
  });

  test("is released also when the work under it fails", async () => {
    const reason = new Error("work");
    const work = client.withLease({ poolId }, () => Promise.reject(reason));
    await assert.rejects(work, (error) => error === reason);
    assert.equal((await client.getAccount(poolId, "anna")).lease, undefined);
  });
});

describe("a redemption", () => {
  test("in doubt is waited for", async () => {
    const code = unique("DOUB-1234");
    fake.script(code, { state: "IN_DOUBT" });
    const { redemption } = await client.redeemCard(card(code));
    assert.equal(redemption.state, hf.RedemptionState.IN_DOUBT);
    assert.equal((await client.getAccount(poolId, "anna")).status, hf.AccountStatus.LOCKING);
    const waiting = client.awaitRedemption({ poolId, redemptionId: redemption.redemptionId });
    fake.settle(redemption.redemptionId, { amountMinor: 700n });
    assert.deepEqual((await waiting).amount, EUR(700));
    assert.equal((await client.getAccount(poolId, "anna")).status, hf.AccountStatus.PROCESSING);
  });

  test("leaves no code in what the client makes", async () => {
    const code = "SECR-ETCO-DE12";
    const made: unknown[] = [client, await client.redeemCard(card(code))];
    const lease = await client.acquire({ poolId });
    made.push(lease, await lease.redeem({ requestId: randomUUID(), code }).catch((error) => error));
    made.push(await lease.redeem({ requestId: randomUUID(), code, expected: EUR(-1) }).catch((error) => error));
    const batch = client.redeemBatch([{ itemId: "1", code }, { itemId: "2", code: `${code}\u0000` }], { batchId: "b", poolId });
    for await (const result of batch) made.push(result, batch);
    await lease.release();
    made.push(fake);
    const text = (_: string, value: unknown) => (typeof value === "bigint" ? String(value) : value);
    assert.ok(made.some((each) => each instanceof hf.CodeInUseError) && made.some((each) => each instanceof hf.InvalidArgumentError));
    for (const each of made) {
      for (const said of [inspect(each, { depth: 20, showHidden: true }), JSON.stringify(each, text), String(each), String((each as Error).stack)]) {
        assert.ok(!/SECR-?ETCO/.test(said), said);
      }
    }
  });
});

describe("a batch", () => {
  test("is read no faster than its results are taken", async () => {
    let pulled = 0;
    function* items() {
      for (; pulled < 1_000; pulled += 1) yield { itemId: `item-${pulled}`, code: unique("BACK-1234"), expected: EUR(1) };
    }
    const batch = client.redeemBatch(items(), { batchId: "slow", poolId, maxInFlight: 4 });
    let taken = 0;
    for await (const _ of batch) {
      taken += 1;
      await new Promise((resolve) => setTimeout(resolve, 5));
      // What is on its way, and what the streams' buffers hold.
      assert.ok(pulled - taken <= 8 + 1, `${pulled} are read, ${taken} are taken`);
      if (taken === 60) break;
    }
    assert.equal(batch.summary.received, 60);
  });

  test("sends again what was refused by a server that goes, and tells its progress", async () => {
    fake.fail({ method: "BatchRedeem", reason: "SHUTTING_DOWN", times: 2 });
    const code = unique("LATE-1234");
    let told: unknown;
    // The card is not answered before the progress was told.
    const after = new Promise((resolve) => (told = resolve));
    fake.script(code, { after });
    const options = { batchId: "again", poolId, onProgress: told as () => void };
    const batch = client.redeemBatch([{ itemId: "1", code, expected: EUR(1000) }], options);
    for await (const { redemption } of batch) assert.equal(redemption?.state, hf.RedemptionState.SUCCEEDED);
    assert.equal(batch.summary.succeeded, 1);
    assert.deepEqual(await after, { received: 1n, inFlight: 1n, succeeded: 0n, failed: 0n, inDoubt: 0n, rejected: 0n, retryable: 0n, heldBack: 0n });
  });

  test("redeems again what failed and is not spent, when it is opened again", async () => {
    const code = unique("BUSY-1234");
    fake.script(code, { state: "FAILED", reason: "PROVIDER_BUSY", retryable: true }, {});
    const items = [{ itemId: "1", code, expected: EUR(1000) }];
    const open = async () => {
      const batch = client.redeemBatch(items, { batchId: "retry", poolId });
      for await (const _ of batch);
      return batch.summary;
    };
    assert.equal((await open()).retryable, 1);
    assert.equal((await open()).succeeded, 1);
    assert.equal((await client.getRedemption({ poolId, requestId: "batch:retry:1" })).attempt, 2);
  });

  test("gives up when the connection does not come back, and at once when it cannot be opened", async () => {
    const heal = fake.fail({ method: "BatchRedeem", reason: "SHUTTING_DOWN", times: 100 });
    const items = [{ itemId: "1", code: unique("GONE-1234") }];
    const begun = performance.now();
    const lost = client.redeemBatch(items, { batchId: "lost", poolId, reconnectFor: 1_000 });
    await assert.rejects(async () => { for await (const _ of lost); }, hf.ShuttingDownError);
    assert.ok(performance.now() - begun < 3_000);
    heal();
    const none = client.redeemBatch(items, { batchId: "none", poolId: "none" });
    await assert.rejects(async () => { for await (const _ of none); }, hf.PoolNotFoundError);
  });

  test("ends with what its items throw, or its signal's reason", async () => {
    const reason = new Error("no more");
    function* items() {
      yield { itemId: "1", code: unique("THRO-1234") };
      throw reason;
    }
    const thrown = client.redeemBatch(items(), { batchId: "throws", poolId });
    await assert.rejects(async () => { for await (const _ of thrown); }, (error) => error === reason);
    const controller = new AbortController();
    async function* never() {
      controller.abort(reason);
      await new Promise(() => {});
    }
    const aborted = client.redeemBatch(never(), { batchId: "aborts", poolId, signal: controller.signal });
    await assert.rejects(async () => { for await (const _ of aborted); }, (error) => error === reason);
  });
});

describe("money", () => {
  test("is read and written as decimals, in the currency's digits", () => {
    for (const [decimal, currency, minor] of [["10.50", "EUR", 1050n], ["0.07", "EUR", 7n], ["1050", "JPY", 1050n], ["1.234", "KWD", 1234n], ["-0.50", "USD", -50n], ["9007199254740993.01", "EUR", 900719925474099301n]] as const) {
      assert.deepEqual(hf.parseMoney(decimal, currency), { amountMinor: minor, currencyCode: currency });
      assert.equal(hf.formatMoney({ amountMinor: minor, currencyCode: currency }), decimal);
    }
    assert.deepEqual(hf.parseMoney("5", "EUR"), EUR(500));
    for (const [decimal, currency] of [["1.005", "EUR"], ["1.5", "JPY"], ["1,50", "EUR"], ["", "EUR"], ["1e3", "EUR"], ["5", "eur"]] as const) {
      assert.throws(() => hf.parseMoney(decimal, currency), RangeError);
    }
  });
});
