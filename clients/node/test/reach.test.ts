/** What is told where a server cannot be reached, and while a stream is tried again. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createTcp, type AddressInfo, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { createServer as createTls, type TlsOptions } from "node:tls";

import { trace } from "@opentelemetry/api";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import * as hf from "holdfast-client";
import { FakeHoldfast } from "holdfast-client/testing";

import { unique } from "./worlds.js";

const directory = mkdtempSync("/tmp/hf-node-reach-");
const file = (name: string) => join(directory, name);
let fake: FakeHoldfast;

before(async () => {
  for (const name of ["server", "other"]) {
    const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost";
    const names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    const files = ["-keyout", file(`${name}.key`), "-out", file(`${name}.pem`)];
    execFileSync("openssl", [...request.split(" "), ...names, ...files], { stdio: "ignore" });
  }
  writeFileSync(file("empty.pem"), "nothing\n");
  fake = await FakeHoldfast.start();
});
after(async () => {
  await fake.stop();
  rmSync(directory, { recursive: true });
});

/** What a call says, which must come at once. */
async function asked(options: hf.HoldfastOptions): Promise<Error> {
  const client = new hf.Holdfast(options);
  const begun = performance.now();
  const error = await client.getPool("shop").catch((error) => error);
  client.close();
  assert.ok(performance.now() - begun < 5_000, `it took ${performance.now() - begun} ms: ${error}`);
  return error;
}

async function listening<T>(server: Server, then: (port: number) => Promise<T>): Promise<T> {
  server.on("error", () => {});
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, () => resolve()));
  try {
    return await then((server.address() as AddressInfo).port);
  } finally {
    server.close();
    for (const socket of sockets) socket.destroy();
  }
}

function tls(options: TlsOptions = {}): Server {
  const own = { cert: readFileSync(file("server.pem")), key: readFileSync(file("server.key")), ALPNProtocols: ["h2"] };
  const server = createTls({ ...own, ...options }, (socket) => socket.on("error", () => {}));
  server.on("tlsClientError", () => {});
  return server;
}

describe("a server that cannot be reached", () => {
  test("is told at once where nobody listens, or its name has no address", async () => {
    const nobody = await asked({ server: "http://127.0.0.1:1" });
    assert.equal(nobody.constructor, hf.ConnectionError);
    assert.match(nobody.message, /^127\.0\.0\.1:1: nothing listens there/);
    const unknown = await asked({ server: "https://no-such-host.invalid:50051" });
    assert.equal(unknown.constructor, hf.ConnectionError);
    assert.match(unknown.message, /no address is known for no-such-host\.invalid/);
  });

  test("is told at once where TLS is wrong", async () => {
    await listening(tls(), async (port) => {
      const cases: [hf.HoldfastOptions, RegExp][] = [
        [{ server: `https://localhost:${port}`, caFile: file("other.pem") }, /CA that is not trusted here/],
        [{ server: `https://localhost:${port}` }, /name its CA with caFile/],
        [{ server: `https://127.0.0.1:${port}`, caFile: file("server.pem") }, /another name than 127\.0\.0\.1/],
        [{ server: `http://localhost:${port}` }, /write https:\/\//],
      ];
      for (const [options, words] of cases) {
        const error = await asked(options);
        assert.ok(error instanceof hf.TlsError, `${options.server}: ${error}`);
        assert.match(error.message, words);
      }
    });
    const wants = tls({ requestCert: true, rejectUnauthorized: true, ca: readFileSync(file("server.pem")) });
    await listening(wants, async (port) => {
      const error = await asked({ server: `https://localhost:${port}`, caFile: file("server.pem") });
      assert.ok(error instanceof hf.TlsError && /certFile and keyFile/.test(error.message), String(error));
    });
    const plain = await asked({ server: fake.server.replace("http:", "https:"), caFile: file("server.pem") });
    assert.ok(plain instanceof hf.TlsError && /write http:\/\//.test(plain.message), String(plain));
    assert.throws(() => new hf.Holdfast({ server: "https://localhost", caFile: file("empty.pem") }), /holds no certificate in PEM/);
  });

  test("is told where something else answers", async () => {
    const other = createTcp((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    await listening(other, async (port) => {
      const error = await asked({ server: `http://127.0.0.1:${port}` });
      assert.equal(error.constructor, hf.ConnectionError);
      assert.match(error.message, /no gRPC server answers there/);
    });
  });

  test("is told within five seconds and a bit where nothing answers at all", async () => {
    // Connections are taken, and nothing is ever said on them.
    await listening(createTcp((socket) => socket.on("error", () => {})), async (port) => {
      const client = new hf.Holdfast({ server: `https://localhost:${port}`, caFile: file("server.pem") });
      const error = await client.getPool("shop", { callTimeout: 20_000 }).catch((error) => error);
      client.close();
      assert.ok(error instanceof hf.ConnectionError && /nothing answers there/.test(error.message), String(error));
    });
  });

  test("ends a batch at once where TLS is wrong", async () => {
    const client = new hf.Holdfast({ server: fake.server.replace("http:", "https:"), caFile: file("server.pem") });
    let told = 0;
    const options = { batchId: "tls", poolId: "shop", onReconnect: () => (told += 1) };
    const batch = client.redeemBatch([{ itemId: "1", code: "CODE-1234" }], options);
    await assert.rejects(async () => { for await (const _ of batch); }, hf.TlsError);
    await assert.rejects(async () => { for await (const _ of client.watchRedemptions("shop", options)); }, hf.TlsError);
    assert.equal(told, 0);
    client.close();
  });
});

describe("a stream that is opened again", () => {
  test("tells why and for how long it was lost", async () => {
    const poolId = unique("pool");
    const own = await FakeHoldfast.start();
    const client = own.client();
    try {
      await client.createPool({ poolId, currencyCode: "EUR" });
      await client.createAccount({ poolId, accountId: "anna" });
      const heal = own.fail({ method: "BatchRedeem", reason: "SHUTTING_DOWN", times: 100 });
      const events: hf.Reconnecting[] = [];
      const onReconnect = (event: hf.Reconnecting) => {
        events.push(event);
        if (events.length === 3) heal();
      };
      const items = [{ itemId: "1", code: unique("CODE-1234"), expected: hf.money(1000, "EUR") }];
      const batch = client.redeemBatch(items, { batchId: "told", poolId, onReconnect });
      for await (const { redemption } of batch) assert.equal(redemption?.state, hf.RedemptionState.SUCCEEDED);
      assert.deepEqual(events.map(({ tries }) => tries), [1, 2, 3]);
      assert.ok(events.every(({ error }) => error instanceof hf.ShuttingDownError));
      assert.ok(events[0]!.pause < events[2]!.pause && events[2]!.failingFor > 0);
    } finally {
      client.close();
      await own.stop();
    }
  });

  test("has a span for each time that it is opened, and sends its trace", async () => {
    const exporter = new InMemorySpanExporter();
    trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
    const client = fake.client();
    const poolId = unique("pool");
    try {
      await client.createPool({ poolId, currencyCode: "EUR" });
      await client.createAccount({ poolId, accountId: "anna" });
      exporter.reset();
      const items = [{ itemId: "1", code: unique("CODE-1234"), expected: hf.money(1000, "EUR") }];
      for await (const _ of client.redeemBatch(items, { batchId: "spans", poolId }));
      for await (const _ of client.watchRedemptions(poolId)) break;
      await assert.rejects(async () => { for await (const _ of client.watchRedemptions("none")); }, hf.PoolNotFoundError);
      const spans = exporter.getFinishedSpans().map(({ name, attributes }) => [name.split("/")[1], attributes["error.type"]]);
      assert.deepEqual(spans, [["BatchRedeem", undefined], ["WatchRedemptions", undefined], ["WatchRedemptions", "POOL_NOT_FOUND"]]);
    } finally {
      client.close();
      trace.disable();
    }
  });
});
