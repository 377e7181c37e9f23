import { Holdfast, type BatchResult, type Lease } from "holdfast-client";

export async function redeem(client: Holdfast): Promise<bigint | undefined> {
  await using lease: Lease = await client.acquire({ poolId: "shop", waitTimeout: 5_000 });
  const { redemption } = await lease.redeem({ requestId: "1", code: "ABCD-EFGH" });
  const results: BatchResult[] = [];
  for await (const result of client.redeemBatch([], { batchId: "b", poolId: "shop" })) results.push(result);
  return redemption.amount?.amountMinor;
}
