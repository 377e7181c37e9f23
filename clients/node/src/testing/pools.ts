/** The fake's RPCs of pools and plans. */
import { durationOf } from "../messages.js";
import { AmountMismatchPolicy, Plan, Pool } from "../stubs/holdfast/v1/pool.js";
import * as pools from "../stubs/holdfast/v1/pool.js";
import { by, masked, pageOf } from "./answers.js";
import type { Model } from "./model.js";
import { exists, Fields, precondition } from "./refusal.js";

export class PoolServices {
  readonly #model: Model;

  constructor(model: Model) {
    this.#model = model;
  }

  async createPool({ pool: given }: pools.CreatePoolRequest): Promise<pools.CreatePoolResponse> {
    const pool = given ?? Pool.fromPartial({});
    const fields = new Fields().pool(pool.poolId, "pool.pool_id");
    if (!/^[A-Z]{3}$/.test(pool.currencyCode)) fields.refuse("pool.currency_code", "must be three upper-case letters");
    fields.done();
    if (this.#model.pools.has(pool.poolId)) throw exists("pool", pool.poolId);
    const now = new Date(this.#model.now());
    const made: Pool = {
      ...pool,
      defaultLeaseDuration: pool.defaultLeaseDuration ?? durationOf(60_000),
      maxLeaseDuration: pool.maxLeaseDuration ?? durationOf(600_000),
      minLeaseDuration: pool.minLeaseDuration ?? durationOf(1_000),
      paused: pool.paused ?? false,
      draining: pool.draining ?? false,
      amountMismatchPolicy: AmountMismatchPolicy.ACCEPT,
      holderSharePercent: pool.holderSharePercent || 50,
      providerId: pool.providerId || "holdfast",
      createTime: now,
      updateTime: now,
    };
    this.#model.pools.set(pool.poolId, { pool: made, plans: new Map(), accounts: new Map() });
    return { pool: made };
  }

  async getPool({ poolId }: pools.GetPoolRequest): Promise<pools.GetPoolResponse> {
    return { pool: this.#model.pool(poolId).pool };
  }

  async listPools(request: pools.ListPoolsRequest): Promise<pools.ListPoolsResponse> {
    const all = [...this.#model.pools.values()].map((it) => it.pool).sort(by((it) => it.poolId));
    const { page, nextPageToken } = pageOf(all, request, (it) => it.poolId);
    return { pools: page, nextPageToken };
  }

  async updatePool({ pool: given, updateMask }: pools.UpdatePoolRequest): Promise<pools.UpdatePoolResponse> {
    const { pool } = this.#model.pool(given?.poolId ?? "");
    const allowed = ["defaultLeaseDuration", "minLeaseDuration", "maxLeaseDuration", "paused", "draining", "holderSharePercent"] as const;
    Object.assign(pool, masked(given!, Pool.fromPartial({}), allowed, updateMask), { updateTime: new Date(this.#model.now()) });
    this.#model.changed();
    return { pool };
  }

  async deletePool({ poolId }: pools.DeletePoolRequest): Promise<pools.DeletePoolResponse> {
    const { accounts } = this.#model.pool(poolId);
    if (accounts.size > 0) {
      const redemptions = [...this.#model.redemptions.values()].filter((it) => it.redemption.poolId === poolId).length;
      const metadata = { pool_id: poolId, accounts: String(accounts.size), redemptions: String(redemptions) };
      throw precondition("POOL_IN_USE", `the pool ${poolId} has or had accounts`, metadata);
    }
    this.#model.pools.delete(poolId);
    return {};
  }

  async createPlan({ plan: given }: pools.CreatePlanRequest): Promise<pools.CreatePlanResponse> {
    const plan = given ?? Plan.fromPartial({});
    const fields = new Fields().pool(plan.poolId, "plan.pool_id").pool(plan.planId, "plan.plan_id");
    if (!plan.target) fields.refuse("plan.target", "must be set");
    fields.amount("plan.target", plan.target).done();
    const { plans } = this.#model.pool(plan.poolId);
    if (plans.has(plan.planId)) throw exists("plan", plan.planId);
    const now = new Date(this.#model.now());
    const made: Plan = {
      ...plan,
      dayInterval: plan.dayInterval ?? durationOf(86_400_000),
      redemptionInterval: plan.redemptionInterval ?? durationOf(0),
      createTime: now,
      updateTime: now,
    };
    plans.set(plan.planId, made);
    return { plan: made };
  }

  async getPlan({ poolId, planId }: pools.GetPlanRequest): Promise<pools.GetPlanResponse> {
    return { plan: this.#model.plan(poolId, planId) };
  }

  async listPlans(request: pools.ListPlansRequest): Promise<pools.ListPlansResponse> {
    const all = [...this.#model.pool(request.poolId).plans.values()].sort(by((it) => it.planId));
    const { page, nextPageToken } = pageOf(all, request, (it) => it.planId);
    return { plans: page, nextPageToken };
  }

  async updatePlan({ plan: given, updateMask }: pools.UpdatePlanRequest): Promise<pools.UpdatePlanResponse> {
    const plan = this.#model.plan(given?.poolId ?? "", given?.planId ?? "");
    const allowed = ["target", "dayAmounts", "dayTolerance", "dayInterval", "redemptionInterval", "denominations"] as const;
    Object.assign(plan, masked(given!, Plan.fromPartial({}), allowed, updateMask), { updateTime: new Date(this.#model.now()) });
    this.#model.changed();
    return { plan };
  }

  async deletePlan({ poolId, planId }: pools.DeletePlanRequest): Promise<pools.DeletePlanResponse> {
    this.#model.plan(poolId, planId);
    const { accounts, plans } = this.#model.pool(poolId);
    const user = [...accounts.values()].find((it) => it.account.planId === planId);
    if (user) {
      const metadata = { pool_id: poolId, plan_id: planId, account_id: user.account.accountId };
      throw precondition("PLAN_IN_USE", `accounts are bound to the plan ${planId}`, metadata);
    }
    plans.delete(planId);
    return {};
  }
}
