// A redemption as a job of graphile-worker's: the call to the provider that Holdfast makes, and a row with
// what came of it. Jobs are there before the clock runs, and workers, one or a few processes, fetch and
// complete them in batches, which is how it is fastest. Prints one line of JSON on standard error, and ends;
// it ends early when standard input does.
import cluster from "node:cluster";
import http from "node:http";
import { randomBytes, randomUUID } from "node:crypto";
import pg from "pg";
import { makeWorkerUtils, run, Logger } from "graphile-worker";

const [socket, database, provider, pool, seconds, workers, concurrency, jobs] = process.argv.slice(2);
if (cluster.isPrimary) process.stdin.on("end", () => process.exit(1)).resume();

const connections = Math.min(Number(concurrency) + 4, 48);
const pgPool = new pg.Pool({ host: socket, user: "holdfast", database, max: connections });
pgPool.on("error", () => {});
const url = new URL("/redemptions", provider);
const agent = new http.Agent({ keepAlive: true });
const quiet = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});

function redeem(key, body) {
  return new Promise((resolve, reject) => {
    const headers = {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
      "idempotency-key": key,
    };
    const request = http.request(url, { method: "POST", agent, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part) => (text += part));
      response.on("end", () =>
        response.statusCode < 300 ? resolve(JSON.parse(text)) : reject(new Error(text)),
      );
    });
    request.on("error", reject);
    request.end(body);
  });
}

const insert = `
  INSERT INTO redemptions (
    pool_id, redemption_id, account_id, fencing_token, request_id, holder, state, release_on_completion,
    code_fingerprint, code_last4, expected_minor, not_after, amount_minor, amount_currency, provider_ref,
    attempts, finished_at
  ) VALUES ($1, $2, $3, 1, $4, 'bench', 'SUCCEEDED', true, $5, $6, 1000, $7, $8, $9, $10, 1, now())`;

let done = 0;
let failed = 0;

async function task(job, helpers) {
  try {
    const not_after = new Date(Date.now() + 900_000).toISOString();
    const expected = { amount_minor: 1000, currency_code: "EUR" };
    const ask = { code: job.code, account_ref: job.account_id, expected, not_after };
    const outcome = await redeem(job.key, JSON.stringify(ask));
    await helpers.withPgClient((client) =>
      client.query({
        name: "outcome",
        text: insert,
        values: [
          pool, job.key, job.account_id, job.key, randomBytes(32), job.code.slice(-4), not_after,
          outcome.amount_minor, outcome.currency_code, outcome.provider_ref,
        ],
      }),
    );
    done += 1;
  } catch (error) {
    if (failed++ === 0) console.error(error);
    throw error;
  }
}

// Names in the order of time, as Holdfast's are.
function key(number) {
  const time = (Date.now() + number).toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}

async function addJobs() {
  const utils = await makeWorkerUtils({ pgPool, logger: quiet });
  await utils.migrate();
  await pgPool.query("TRUNCATE graphile_worker._private_jobs");
  for (let first = 0; first < Number(jobs); first += 5000) {
    const batch = Array.from({ length: Math.min(5000, jobs - first) }, (_, index) => ({
      identifier: "redeem",
      payload: {
        key: key(first + index),
        code: `GW${randomUUID().replaceAll("-", "").toUpperCase()}`,
        account_id: `account-${String(1 + ((first + index) % 1000)).padStart(8, "0")}`,
      },
    }));
    await utils.addJobs(batch);
  }
  await pgPool.query("ANALYZE graphile_worker._private_jobs");
}

// Says what it has done so far, whenever it is asked.
async function work() {
  process.on("message", () => process.send({ done, failed }));
  process.on("disconnect", () => process.exit(0));
  await run({
    pgPool,
    logger: quiet,
    noHandleSignals: true,
    taskList: { redeem: task },
    preset: {
      worker: {
        concurrentJobs: Number(concurrency),
        localQueue: { size: Number(concurrency) * 4 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  });
  process.send("ready");
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const heard = (worker) => new Promise((resolve) => worker.once("message", resolve));

async function ask(all) {
  const answers = await Promise.all(
    all.map((worker) => {
      const answer = heard(worker);
      worker.send("count");
      return answer;
    }),
  );
  const sum = (of) => answers.map(of).reduce((left, right) => left + right, 0);
  return { done: sum((it) => it.done), failed: sum((it) => it.failed) };
}

async function measure() {
  await addJobs();
  const all = Array.from({ length: Number(workers) }, () => cluster.fork());
  cluster.on("exit", () => process.exit(1));
  await Promise.all(all.map(heard));
  // For connections and plans.
  await sleep(1000);
  const before = await ask(all);
  const begun = performance.now();
  await sleep(Number(seconds) * 1000);
  const after = await ask(all);
  const elapsed = (performance.now() - begun) / 1000;
  const jobs_per_second = (after.done - before.done) / elapsed;
  const left = Number(jobs) - after.done;
  console.error(JSON.stringify({ jobs_per_second, left, failed: after.failed }));
  process.exit(0);
}

await (cluster.isPrimary ? measure() : work());
