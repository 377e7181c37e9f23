import assert from "node:assert/strict";
import { Holdfast, RedemptionState, LeaseLostError } from "holdfast-client";
import { FakeHoldfast } from "holdfast-client/testing";

const fake = await FakeHoldfast.start();
const client = fake.client();
await client.createPool({ poolId: "shop", currencyCode: "EUR" });
await client.createAccount({ poolId: "shop", accountId: "anna" });
const { redemption } = await client.redeemCard({ poolId: "shop", requestId: "1", code: "ABCD-EFGH" });
assert.equal(redemption.state, RedemptionState.SUCCEEDED);
assert.ok(client instanceof Holdfast && LeaseLostError);
client.close();
await fake.stop();
