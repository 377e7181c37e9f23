/** Which card fits a plan: its target and denominations. The fake has no days. */
import type { Plan } from "../stubs/holdfast/v1/pool.js";

/** Why a plan with so much headroom does not take a card of this amount, or nothing. */
export function misfit(plan: Plan, headroom: bigint, amount: bigint): string | undefined {
  if (headroom < amount) return "too_full";
  if (!takes(plan, amount)) return "denomination";
  return canFill(plan, headroom - amount) ? undefined : "remainder";
}

function takes({ denominations }: Plan, amount: bigint): boolean {
  if (denominations?.$case === "multiplesOf") return amount % denominations.multiplesOf.amountMinor === 0n;
  if (denominations?.$case === "amountRange") {
    const { min, max } = denominations.amountRange;
    return amount >= (min?.amountMinor ?? 1n) && (!max || amount <= max.amountMinor);
  }
  if (denominations?.$case === "fixedAmounts") {
    return denominations.fixedAmounts.amounts.some((each) => each.amountMinor === amount);
  }
  return true;
}

/** Whether cards that the plan takes can add up to what is left. */
function canFill(plan: Plan, left: bigint): boolean {
  const { denominations } = plan;
  if (left === 0n || !denominations) return true;
  if (denominations.$case === "multiplesOf") return takes(plan, left);
  if (denominations.$case === "amountRange") {
    const { min, max } = denominations.amountRange;
    const least = min?.amountMinor ?? 1n;
    // So many cards as of the greatest amount are needed at least.
    const cards = max ? (left + max.amountMinor - 1n) / max.amountMinor : 1n;
    return cards * least <= left;
  }
  const amounts = denominations.fixedAmounts.amounts.map((each) => each.amountMinor);
  const reached = new Set<bigint>([0n]);
  for (const sum of reached) {
    for (const amount of amounts) {
      if (sum + amount === left) return true;
      if (sum + amount < left) reached.add(sum + amount);
    }
  }
  return false;
}
