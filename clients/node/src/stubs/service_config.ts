// Made of clients/service_config.json by scripts/client-stubs.sh. Do not edit.

export const SERVICE_CONFIG = {
  "methodConfig": [
    {
      "name": [
        { "service": "holdfast.v1.PoolService", "method": "GetPool" },
        { "service": "holdfast.v1.PoolService", "method": "ListPools" },
        { "service": "holdfast.v1.PoolService", "method": "UpdatePool" },
        { "service": "holdfast.v1.PoolService", "method": "GetPlan" },
        { "service": "holdfast.v1.PoolService", "method": "ListPlans" },
        { "service": "holdfast.v1.PoolService", "method": "UpdatePlan" },
        { "service": "holdfast.v1.AccountService", "method": "GetAccount" },
        { "service": "holdfast.v1.AccountService", "method": "ListAccounts" },
        { "service": "holdfast.v1.AccountService", "method": "UpdateAccount" },
        { "service": "holdfast.v1.AccountService", "method": "CorrectBalance" },
        { "service": "holdfast.v1.AccountService", "method": "ListAccountEvents" },
        { "service": "holdfast.v1.RedemptionService", "method": "AcquireAccount" },
        { "service": "holdfast.v1.RedemptionService", "method": "ExplainAcquire" },
        { "service": "holdfast.v1.RedemptionService", "method": "RenewLease" },
        { "service": "holdfast.v1.RedemptionService", "method": "Redeem" },
        { "service": "holdfast.v1.RedemptionService", "method": "RedeemCard" },
        { "service": "holdfast.v1.RedemptionService", "method": "ReleaseAccount" },
        { "service": "holdfast.v1.RedemptionService", "method": "GetRedemption" },
        { "service": "holdfast.v1.RedemptionService", "method": "AwaitRedemption" },
        { "service": "holdfast.v1.RedemptionService", "method": "ListRedemptions" },
        { "service": "holdfast.v1.RedemptionService", "method": "ResolveRedemption" },
        { "service": "holdfast.v1.RedemptionService", "method": "ReverseRedemption" },
        { "service": "holdfast.v1.ProviderService", "method": "ApplyProvider" },
        { "service": "holdfast.v1.ProviderService", "method": "CheckProvider" },
        { "service": "holdfast.v1.ProviderService", "method": "GetProvider" },
        { "service": "holdfast.v1.ProviderService", "method": "ListProviders" },
        { "service": "holdfast.v1.AccessService", "method": "ListTokens" },
        { "service": "holdfast.v1.AccessService", "method": "RevokeToken" },
        { "service": "holdfast.v1.AccessService", "method": "ListAuditEvents" }
      ],
      "retryPolicy": {
        "maxAttempts": 5,
        "initialBackoff": "0.2s",
        "maxBackoff": "5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"]
      }
    }
  ],
  "retryThrottling": {
    "maxTokens": 100,
    "tokenRatio": 0.1
  }
};
