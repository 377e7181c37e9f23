/** What the fake and a real server answer alike. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";

import * as hf from "holdfast-client";

import { fakeWorld, RealWorld, unique, until, type World } from "./worlds.js";

const EUR = (minor: number) => hf.money(minor, "EUR");
const { SUCCEEDED, FAILED } = hf.RedemptionState;

/** That a call is refused for this reason. */
async function refused<E extends hf.HoldfastError>(Class: new (...args: never[]) => E, call: Promise<unknown>): Promise<E> {
  try {
    await call;
  } catch (error) {
    if (error instanceof Class) {
      assert.equal(hf.ERRORS_BY_REASON.get(error.reason!), Class);
      return error;
    }
    throw error;
  }
  return assert.fail(`it is not refused with ${Class.name}`);
}

async function all<T>(list: AsyncIterable<T>): Promise<T[]> {
  const listed: T[] = [];
  for await (const each of list) listed.push(each);
  return listed;
}

const binary = process.env["HOLDFAST_BIN"];
const worlds = [fakeWorld, ...(binary ? [() => RealWorld.start(binary)] : [])];
if (!binary) console.error("SKIPPED: the real server, because HOLDFAST_BIN names none");

for (const start of worlds) {
  describe(`over the ${start === fakeWorld ? "fake" : "real server"}`, () => {
    let world: World;
    let client: hf.Holdfast;

    before(async () => {
      world = await start();
      client = world.client({ holder: "node" });
    });
    after(async () => {
      client?.close();
      await world?.stop();
    });

    async function pool(accounts = 1, plan?: { target: number }): Promise<string> {
      const poolId = unique("pool");
      await client.createPool({ poolId, currencyCode: "EUR" });
      if (plan) await client.createPlan({ poolId, planId: "plan", target: EUR(plan.target) });
      for (let n = 0; n < accounts; n += 1) {
        await client.createAccount({ poolId, accountId: `account-${n}`, planId: plan ? "plan" : "" });
      }
      return poolId;
    }

    test("a server with TLS is trusted by its CA, and asks for a token", { skip: start === fakeWorld }, async () => {
      const stranger = world.client({ tokenFile: undefined, token: "hf_unknown" });
      await refused(hf.UnauthenticatedError, stranger.getPool("any"));
      stranger.close();
      const distrustful = world.client({ caFile: undefined });
      await assert.rejects(distrustful.createPool({ poolId: "any", currencyCode: "EUR" }), hf.ConnectionError);
      distrustful.close();
    });

    test("a lease is one caller's, and its token rises", async () => {
      const poolId = await pool();
      const first = await client.acquire({ poolId, leaseDuration: 30_000 });
      assert.equal(first.account.status, hf.AccountStatus.LOCKING);
      assert.equal(first.holder, "node");
      assert.ok(first.remaining > 25_000 && first.remaining <= 30_000, String(first.remaining));
      const none = await refused(hf.NoAccountAvailableError, client.acquire({ poolId }));
      assert.equal(none.metadata["locked"], "1");
      assert.equal(none.codeName, "RESOURCE_EXHAUSTED");
      assert.ok(none.retryAfter! > 0);
      const released = await first.release();
      assert.equal(released?.status, hf.AccountStatus.WAITING);
      await first.release();
      const second = await client.acquire({ poolId });
      assert.equal(second.fencingToken, first.fencingToken + 1n);
      const card = { requestId: randomUUID(), code: world.card() };
      const lost = await refused(hf.LeaseLostError, first.redeem(card));
      assert.deepEqual([lost.metadata["cause"], lost.metadata["account_id"]], ["released", first.accountId]);
      assert.equal(first.signal.reason, undefined, "a lease that was released is not lost");
      await second.release();
    });

    test("an acquisition waits for an account, and is the same when it is repeated", async () => {
      const poolId = await pool();
      const requestId = randomUUID();
      const lease = await client.acquire({ poolId, requestId });
      const again = await client.acquire({ poolId, requestId, renew: false });
      assert.equal(again.fencingToken, lease.fencingToken);
      const reused = await refused(hf.RequestIdReusedError, client.acquire({ poolId, requestId, holder: "other" }));
      assert.equal(reused.metadata["fields"], "holder");
      assert.equal(reused.fieldViolations[0]?.field, "holder");
      const waiting = client.acquire({ poolId, waitTimeout: 20_000 });
      await lease.release();
      await (await waiting).release();
    });

    test("a card is redeemed once, however often it is asked for", async () => {
      const poolId = await pool();
      const [requestId, code] = [randomUUID(), world.card()];
      await client.withLease({ poolId }, async (lease, signal) => {
        const card = { requestId, code, expected: EUR(1000) };
        const { redemption, replayed } = await lease.redeem(card, { signal });
        assert.deepEqual([redemption.state, redemption.amount, replayed], [SUCCEEDED, EUR(1000), false]);
        assert.equal(redemption.fencingToken, lease.fencingToken);
        assert.equal(redemption.codeLast4, code.replaceAll("-", "").slice(-4));
        assert.ok(redemption.createTime instanceof Date && redemption.finishTime instanceof Date);
        const again = await lease.redeem(card);
        assert.deepEqual([again.redemption.redemptionId, again.replayed], [redemption.redemptionId, true]);
        const other = await refused(hf.RequestIdReusedError, lease.redeem({ ...card, expected: EUR(999) }));
        assert.equal(other.metadata["fields"], "expected");
        const used = await refused(hf.CodeInUseError, lease.redeem({ requestId: randomUUID(), code: code.toLowerCase() }));
        assert.deepEqual({ ...used.metadata }, { redemption_id: redemption.redemptionId, request_id: requestId, state: "SUCCEEDED" });
      });
      const account = await client.getAccount(poolId, "account-0");
      assert.deepEqual([account.status, account.balance], [hf.AccountStatus.PROCESSING, EUR(1000)]);
    });

    test("what the provider makes of a card is in the redemption", async () => {
      const poolId = await pool();
      const ask = (code: string) => client.redeemCard({ poolId, requestId: randomUUID(), code, expected: EUR(1000) });
      const { redemption: failed } = await ask(world.card("unknown"));
      assert.deepEqual([failed.state, failed.failure?.codeSpent], [FAILED, false]);
      assert.match(failed.failure!.reason, /^[A-Z_]+$/);
      const { redemption: other } = await ask(world.card("other-amount"));
      assert.deepEqual([other.state, other.amount, other.amountMismatch], [SUCCEEDED, EUR(500), true]);
    });

    test("one call redeems a card, and its outcome is found by both names", async () => {
      const poolId = await pool();
      const requestId = randomUUID();
      const card = { poolId, requestId, code: world.card(), expected: EUR(1000), waitTimeout: 5_000 };
      const { redemption } = await client.redeemCard(card);
      assert.equal(redemption.state, SUCCEEDED);
      assert.equal((await client.redeemCard(card)).replayed, true);
      const { redemptionId } = redemption;
      assert.equal((await client.getRedemption({ poolId, requestId })).redemptionId, redemptionId);
      assert.equal((await client.awaitRedemption({ poolId, requestId })).state, SUCCEEDED);
      assert.equal((await client.awaitRedemption({ poolId, redemptionId, timeout: 0 })).requestId, requestId);
      assert.equal((await client.getAccount(poolId, "account-0")).lease, undefined);
      const missing = await refused(hf.RedemptionNotFoundError, client.getRedemption({ poolId, requestId: "none" }));
      assert.equal(missing.resource?.type, "redemption");
    });

    test("bad fields are named, all of them at once", async () => {
      const poolId = await pool();
      const bad = await refused(
        hf.InvalidArgumentError,
        client.redeemCard({ poolId, requestId: randomUUID(), code: "x", expected: EUR(-5) }),
      );
      assert.deepEqual(bad.fieldViolations.map(({ field }) => field), ["code", "expected.amount_minor"]);
      const dollars = hf.money(5, "USD");
      const other = await refused(
        hf.InvalidArgumentError,
        client.redeemCard({ poolId, requestId: randomUUID(), code: world.card(), expected: dollars }),
      );
      assert.equal(other.fieldViolations[0]?.field, "expected.currency_code");
    });

    test("an account is filled up to its plan's target", async () => {
      const poolId = await pool(1, { target: 2000 });
      const redeem = (minor: number) =>
        client.redeemCard({ poolId, requestId: randomUUID(), code: world.card(), expected: EUR(minor) });
      await redeem(1000);
      const full = await refused(hf.NoAccountAvailableError, redeem(1001));
      assert.equal(full.metadata["too_full"], "1");
      await client.withLease({ poolId }, async (lease) => {
        const card = { requestId: randomUUID(), code: world.card(), expected: EUR(1500) };
        const misfit = await refused(hf.AmountDoesNotFitError, lease.redeem(card));
        assert.deepEqual([misfit.metadata["cause"], misfit.metadata["headroom_minor"]], ["too_full", "1000"]);
      });
      await redeem(1000);
      assert.equal((await client.getAccount(poolId, "account-0")).status, hf.AccountStatus.COMPLETED);
      const done = await refused(hf.NoAccountAvailableError, client.acquire({ poolId }));
      assert.equal(done.metadata["completed"], "1");
    });

    test("pools, plans and accounts are made, changed, listed and deleted", async () => {
      const poolId = await pool(0, { target: 5000 });
      const again = await refused(hf.PoolAlreadyExistsError, client.createPool({ poolId, currencyCode: "EUR" }));
      assert.deepEqual(again.resource, { type: "pool", name: poolId });
      await refused(hf.PlanAlreadyExistsError, client.createPlan({ poolId, planId: "plan", target: EUR(1) }));
      await refused(hf.PoolNotFoundError, client.getPool("none"));
      await refused(hf.PlanNotFoundError, client.getPlan(poolId, "none"));
      await refused(hf.AccountNotFoundError, client.getAccount(poolId, "none"));
      assert.equal((await client.getPool(poolId)).defaultLeaseDuration, 60_000);
      const changed = await client.updatePool({ poolId, defaultLeaseDuration: 1_500.5 });
      assert.equal(changed.defaultLeaseDuration, 1_500.5);
      await client.updatePlan({ poolId, planId: "plan", target: EUR(6000) });
      assert.deepEqual((await client.getPlan(poolId, "plan")).target, EUR(6000));

      const accounts = ["a", "b", "c", "b"].map((accountId) => ({ poolId, accountId, planId: "plan", labels: { k: accountId } }));
      const imported = await client.importAccounts([...accounts, { poolId, accountId: "d", planId: "none" }]);
      assert.deepEqual([imported.received, imported.created, imported.failed], [5n, 3n, 2n]);
      assert.deepEqual(imported.failures.map(({ index, accountId }) => [index, accountId]), [[3n, "b"], [4n, "d"]]);
      const listed = await all(client.listAccounts(poolId, { pageSize: 2 }));
      assert.deepEqual(listed.map(({ accountId }) => accountId), ["a", "b", "c"]);
      assert.deepEqual((await all(client.listPlans(poolId))).map(({ planId }) => planId), ["plan"]);
      assert.ok((await all(client.listPools({ pageSize: 1 }))).some((it) => it.poolId === poolId));

      const inactive = await client.updateAccount({ poolId, accountId: "a", loginStatus: hf.LoginStatus.INACTIVE });
      assert.equal(inactive.loginStatus, hf.LoginStatus.INACTIVE);
      const cleared = await client.updateAccount({ poolId, accountId: "a" }, { updateMask: ["labels"] });
      assert.deepEqual([cleared.labels, cleared.loginStatus], [{}, hf.LoginStatus.INACTIVE]);
      const events = await all(client.listAccountEvents(poolId, "a"));
      assert.deepEqual(events.map(({ reason, version }) => [reason, version]), [["updated", 3n], ["updated", 2n], ["created", 1n]]);
      const used = await refused(hf.PlanInUseError, client.deletePlan(poolId, "plan"));
      assert.equal(used.metadata["plan_id"], "plan");
      const full = await refused(hf.PoolInUseError, client.deletePool(poolId));
      assert.equal(full.metadata["accounts"], "3");
      const empty = await pool(0);
      await client.deletePool(empty);
      await refused(hf.PoolNotFoundError, client.getPool(empty));
    });

    test("what is paused or draining begins nothing new", async () => {
      const poolId = await pool();
      const card = () => ({ requestId: randomUUID(), code: world.card(), expected: EUR(1000) });
      await client.withLease({ poolId }, async (lease) => {
        await client.updatePool({ poolId, draining: true });
        await refused(hf.PoolDrainingError, client.acquire({ poolId }));
        assert.equal((await lease.redeem(card())).redemption.state, SUCCEEDED);
        await client.updatePool({ poolId, draining: false, paused: true });
        await refused(hf.PoolPausedError, lease.redeem(card()));
        await client.updatePool({ poolId, paused: false });
        await client.updateAccount({ poolId, accountId: lease.accountId, paused: true });
        await refused(hf.AccountPausedError, lease.redeem(card()));
        const planned = client.updateAccount({ poolId, accountId: lease.accountId }, { updateMask: ["plan_id"] });
        await refused(hf.AccountLockedError, planned);
      });
    });

    test("a lease that is not renewed is lost, and calls under it fail at once", async () => {
      const poolId = await pool();
      const lease = await client.acquire({ poolId, leaseDuration: 1_000, renew: false });
      await until("the lease is lost", () => lease.signal.aborted);
      assert.ok(lease.signal.reason instanceof hf.LeaseLostError);
      assert.equal(lease.signal.reason.metadata["cause"], "expired");
      assert.equal(lease.remaining, 0);
      const card = { requestId: randomUUID(), code: world.card() };
      assert.equal(await refused(hf.LeaseLostError, lease.redeem(card)), lease.signal.reason);
      const next = await client.acquire({ poolId, waitTimeout: 10_000 });
      assert.equal(next.fencingToken, lease.fencingToken + 1n);
      const over = await refused(hf.LeaseLostError, lease.release());
      assert.equal(over.metadata["cause"], "taken_over");
      await next.release();
    });

    test("a lease renews itself for as long as it is held", async () => {
      const poolId = await pool();
      await client.withLease({ poolId, leaseDuration: 1_500 }, async (lease) => {
        const ends = performance.now() + 2_500;
        await until("more time than the lease's passes", () => performance.now() > ends);
        assert.ok(lease.remaining > 0);
        const { redemption } = await lease.redeem({ requestId: randomUUID(), code: world.card(), expected: EUR(1000) });
        assert.equal(redemption.fencingToken, lease.fencingToken);
      });
      const events = await all(client.listAccountEvents(poolId, "account-0"));
      assert.ok(events.filter(({ reason }) => reason === "renewed").length >= 2);
      assert.equal(events[0]?.reason, "released");
    });

    test("a batch answers each item once, and again what it knows", async () => {
      const poolId = await pool(8);
      const items = Array.from({ length: 40 }, (_, n) => ({ itemId: `item-${n}`, code: world.card(), expected: EUR(1000) }));
      items.push({ itemId: "unknown", code: world.card("unknown"), expected: EUR(1000) });
      items.push({ itemId: "bad", code: "x", expected: EUR(1000) });
      const options = { batchId: unique("batch"), poolId, maxInFlight: 8 };
      const batch = client.redeemBatch(items, options);
      const results = await all(batch);
      assert.equal(new Set(results.map(({ itemId }) => itemId)).size, 42);
      const { received, succeeded, failed, rejected, replayed } = batch.summary;
      assert.deepEqual({ received, succeeded, failed, rejected, replayed }, { received: 42, succeeded: 40, failed: 1, rejected: 1, replayed: 0 });
      const bad = results.find(({ itemId }) => itemId === "bad");
      assert.ok(bad?.error instanceof hf.InvalidArgumentError);
      assert.equal(bad.error.fieldViolations.length, 1);

      const again = client.redeemBatch(items, options);
      await all(again);
      assert.deepEqual([again.summary.succeeded, again.summary.replayed], [40, 41]);
      const listed = await all(client.listRedemptions(poolId, { batchId: options.batchId, states: [SUCCEEDED], pageSize: 7 }));
      assert.equal(listed.length, 40);
    });

    test("every outcome is told, over a restart, and after a cursor", async () => {
      const poolId = await pool();
      const redeem = async () =>
        (await client.redeemCard({ poolId, requestId: randomUUID(), code: world.card(), expected: EUR(1000), waitTimeout: 5_000 }))
          .redemption.redemptionId;
      const first = await redeem();
      const controller = new AbortController();
      const told = new Map<string, string>();
      const watching = (async () => {
        for await (const { redemption, cursor } of client.watchRedemptions(poolId, { signal: controller.signal })) {
          told.set(redemption.redemptionId, cursor);
        }
      })();
      const ended = assert.rejects(watching, { name: "AbortError" });
      await until("the first is told", () => told.has(first));
      await world.restart();
      const second = await redeem();
      await until("the second is told", () => told.has(second));
      controller.abort();
      await ended;
      for await (const { redemption } of client.watchRedemptions(poolId, { after: told.get(first)! })) {
        assert.equal(redemption.redemptionId, second);
        break;
      }
    });

    test("a higher priority is served first: leases, cards and items", async () => {
      const poolId = await pool();
      const served: string[] = [];
      const waiting = async () => {
        const probe = await refused(hf.NoAccountAvailableError, client.acquire({ poolId, holder: "probe" }));
        return Number(probe.metadata["waiting"]) - 1;
      };
      const acquire = async (holder: string, priority?: number) => {
        await client.withLease({ poolId, holder, priority, waitTimeout: 60_000 }, () => void served.push(holder));
      };
      const redeem = async (holder: string, priority: number) => {
        const card = { requestId: randomUUID(), code: world.card(), expected: EUR(1000) };
        await client.redeemCard({ poolId, holder, priority, waitTimeout: 60_000, ...card });
        served.push(holder);
      };
      const item = { itemId: "item", code: world.card(), expected: EUR(1000), priority: 4 };
      const batch = async () => {
        for await (const { itemId } of client.redeemBatch([item], { batchId: unique("batch"), poolId, holder: "batch" })) served.push(itemId);
      };
      const lease = await client.acquire({ poolId });
      const calls: Promise<void>[] = [];
      const begin = [() => acquire("first"), () => acquire("second"), () => batch(), () => redeem("card", 7), () => acquire("high", 9)];
      for (const call of begin) {
        calls.push(call());
        await until("it waits", async () => (await waiting()) === calls.length);
      }
      await lease.release();
      await Promise.all(calls);
      const events = await all(client.listAccountEvents(poolId, "account-0"));
      const holders = events.filter(({ reason }) => reason === "acquired").map(({ actor }) => actor).reverse();
      assert.deepEqual(holders.slice(1), ["high", "card", "batch", "first", "second"]);
      assert.equal(served.length, 5);
    });

    test("nothing is locked or begun before its time", async () => {
      const poolId = await pool();
      const notBefore = new Date(Date.now() + 2_000);
      // The call's own time is shorter than the wait, which is added to it.
      const later = client.acquire({ poolId, notBefore, callTimeout: 1_500 }).then(async (lease) => ({ lease, at: Date.now() }));
      await client.withLease({ poolId }, (lease) => assert.equal(lease.fencingToken, 1n));
      const { lease, at } = await later;
      assert.ok(at >= notBefore.getTime());
      assert.equal(lease.fencingToken, 2n);
      await lease.release();
      const time = new Date(Date.now() + 1_500);
      const items = [{ itemId: "later", notBefore: time }, { itemId: "now" }].map((it) => ({ ...it, code: world.card(), expected: EUR(1000) }));
      const results = await all(client.redeemBatch(items, { batchId: unique("batch"), poolId }));
      assert.deepEqual(results.map(({ itemId }) => itemId), ["now", "later"]);
      assert.ok(results[1]!.redemption!.createTime! >= time);
    });

    test("priorities and times have bounds", async () => {
      const poolId = await pool();
      const fieldsOf = (error: hf.HoldfastError) => error.fieldViolations.map(({ field }) => field);
      const card = () => ({ code: world.card(), expected: EUR(1000) });
      for (const priority of [-1, 10]) {
        assert.deepEqual(fieldsOf(await refused(hf.InvalidArgumentError, client.acquire({ poolId, priority }))), ["priority"]);
        const redeemed = client.redeemCard({ poolId, requestId: randomUUID(), priority, ...card() });
        assert.deepEqual(fieldsOf(await refused(hf.InvalidArgumentError, redeemed)), ["priority"]);
      }
      const far = client.acquire({ poolId, notBefore: new Date(Date.now() + 660_000) });
      assert.deepEqual(fieldsOf(await refused(hf.InvalidArgumentError, far)), ["not_before"]);
      const items = [
        { itemId: "priority", priority: 10, ...card() },
        { itemId: "time", notBefore: new Date(Date.now() + 90_000_000), ...card() },
      ];
      const wrong = new Map<string, string[]>();
      for await (const { itemId, error } of client.redeemBatch(items, { batchId: unique("batch"), poolId })) wrong.set(itemId, fieldsOf(error!));
      assert.deepEqual([wrong.get("priority"), wrong.get("time")], [["item.priority"], ["item.not_before"]]);
    });

    test("a batch goes on over a restart of the server, without an item lost or redeemed twice", async () => {
      const poolId = await pool(4);
      const count = 200;
      async function* items() {
        for (let n = 0; n < count; n += 1) yield { itemId: `item-${n}`, code: world.card(), expected: EUR(1000) };
      }
      const batch = client.redeemBatch(items(), { batchId: unique("batch"), poolId, maxInFlight: 4, itemTimeout: 60_000 });
      const seen = new Set<string>();
      let restarted: Promise<void> | undefined;
      for await (const { itemId, redemption, error } of batch) {
        assert.ok(!seen.has(itemId), `${itemId} is answered twice`);
        assert.equal(redemption?.state, SUCCEEDED, `${itemId}: ${error}`);
        seen.add(itemId);
        if (seen.size === 20) restarted = world.restart();
      }
      await restarted;
      assert.equal(seen.size, count);
      assert.equal(batch.summary.succeeded, count);
      const balances = (await all(client.listAccounts(poolId))).map(({ balance }) => balance!.amountMinor);
      assert.equal(balances.reduce((sum, each) => sum + each), BigInt(count * 1000));
    });
  });
}
