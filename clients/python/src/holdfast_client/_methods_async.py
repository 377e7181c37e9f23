"""The calls that need no more than a request and an answer, with asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._proto.holdfast.v1 import access_pb2, account_pb2, pool_pb2, provider_pb2, redemption_pb2
from ._proto.holdfast.v1.common_pb2 import Money
from ._requests import mask, named, new_id, seconds

if TYPE_CHECKING:
    from ._proto.holdfast.v1.access_pb2_grpc import AccessServiceAsyncStub
    from ._proto.holdfast.v1.account_pb2_grpc import AccountServiceAsyncStub
    from ._proto.holdfast.v1.pool_pb2_grpc import PoolServiceAsyncStub
    from ._proto.holdfast.v1.provider_pb2_grpc import ProviderServiceAsyncStub
    from ._proto.holdfast.v1.redemption_pb2_grpc import RedemptionServiceAsyncStub

PAGE = 500


class AsyncMethods:
    """What `AsyncClient` has of pools, plans, accounts, redemptions, providers and access."""

    if TYPE_CHECKING:
        _pools: PoolServiceAsyncStub
        _accounts: AccountServiceAsyncStub
        _redemptions: RedemptionServiceAsyncStub
        _providers: ProviderServiceAsyncStub
        _access: AccessServiceAsyncStub

    async def _call(self, method: Callable[..., Any], request: Any, wait: float = 0) -> Any:
        raise NotImplementedError

    # Pools and plans.

    async def create_pool(self, pool: pool_pb2.Pool) -> pool_pb2.Pool:
        request = pool_pb2.CreatePoolRequest(pool=pool)
        reply: pool_pb2.CreatePoolResponse = await self._call(self._pools.CreatePool, request)
        return reply.pool

    async def get_pool(self, pool_id: str) -> pool_pb2.Pool:
        request = pool_pb2.GetPoolRequest(pool_id=pool_id)
        reply: pool_pb2.GetPoolResponse = await self._call(self._pools.GetPool, request)
        return reply.pool

    async def list_pools(self) -> AsyncIterator[pool_pb2.Pool]:
        request = pool_pb2.ListPoolsRequest(page_size=PAGE)
        while True:
            page: pool_pb2.ListPoolsResponse = await self._call(self._pools.ListPools, request)
            for pool in page.pools:
                yield pool
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update_pool(
        self, pool: pool_pb2.Pool, fields: Optional[Sequence[str]] = None
    ) -> pool_pb2.Pool:
        """Changes the fields that are named; those that are set when none is."""
        request = pool_pb2.UpdatePoolRequest(pool=pool, update_mask=mask(fields))
        reply: pool_pb2.UpdatePoolResponse = await self._call(self._pools.UpdatePool, request)
        return reply.pool

    async def delete_pool(self, pool_id: str) -> None:
        request = pool_pb2.DeletePoolRequest(pool_id=pool_id)
        await self._call(self._pools.DeletePool, request)

    async def create_plan(self, plan: pool_pb2.Plan) -> pool_pb2.Plan:
        request = pool_pb2.CreatePlanRequest(plan=plan)
        reply: pool_pb2.CreatePlanResponse = await self._call(self._pools.CreatePlan, request)
        return reply.plan

    async def get_plan(self, pool_id: str, plan_id: str) -> pool_pb2.Plan:
        request = pool_pb2.GetPlanRequest(pool_id=pool_id, plan_id=plan_id)
        reply: pool_pb2.GetPlanResponse = await self._call(self._pools.GetPlan, request)
        return reply.plan

    async def list_plans(self, pool_id: str) -> AsyncIterator[pool_pb2.Plan]:
        request = pool_pb2.ListPlansRequest(pool_id=pool_id, page_size=PAGE)
        while True:
            page: pool_pb2.ListPlansResponse = await self._call(self._pools.ListPlans, request)
            for plan in page.plans:
                yield plan
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update_plan(
        self, plan: pool_pb2.Plan, fields: Optional[Sequence[str]] = None
    ) -> pool_pb2.Plan:
        """Changes the fields that are named; those that are set when none is."""
        request = pool_pb2.UpdatePlanRequest(plan=plan, update_mask=mask(fields))
        reply: pool_pb2.UpdatePlanResponse = await self._call(self._pools.UpdatePlan, request)
        return reply.plan

    async def delete_plan(self, pool_id: str, plan_id: str) -> None:
        request = pool_pb2.DeletePlanRequest(pool_id=pool_id, plan_id=plan_id)
        await self._call(self._pools.DeletePlan, request)

    # Accounts.

    async def create_account(self, account: account_pb2.Account) -> account_pb2.Account:
        request = account_pb2.CreateAccountRequest(account=account)
        reply: account_pb2.CreateAccountResponse = await self._call(
            self._accounts.CreateAccount, request
        )
        return reply.account

    async def get_account(self, pool_id: str, account_id: str) -> account_pb2.Account:
        request = account_pb2.GetAccountRequest(pool_id=pool_id, account_id=account_id)
        reply: account_pb2.GetAccountResponse = await self._call(self._accounts.GetAccount, request)
        return reply.account

    async def list_accounts(
        self,
        pool_id: str,
        *,
        status: account_pb2.AccountStatus = account_pb2.ACCOUNT_STATUS_UNSPECIFIED,
        login_status: account_pb2.LoginStatus = account_pb2.LOGIN_STATUS_UNSPECIFIED,
        plan_id: str = "",
        holder: str = "",
        update_time_from: Optional[datetime] = None,
        update_time_to: Optional[datetime] = None,
    ) -> AsyncIterator[account_pb2.Account]:
        request = account_pb2.ListAccountsRequest(
            pool_id=pool_id,
            page_size=PAGE,
            status=status,
            login_status=login_status,
            plan_id=plan_id,
            holder=holder,
            update_time_from=update_time_from,
            update_time_to=update_time_to,
        )
        while True:
            page: account_pb2.ListAccountsResponse = await self._call(
                self._accounts.ListAccounts, request
            )
            for account in page.accounts:
                yield account
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def update_account(
        self, account: account_pb2.Account, fields: Optional[Sequence[str]] = None
    ) -> account_pb2.Account:
        """Changes the fields that are named; those that are set when none is."""
        request = account_pb2.UpdateAccountRequest(account=account, update_mask=mask(fields))
        reply: account_pb2.UpdateAccountResponse = await self._call(
            self._accounts.UpdateAccount, request
        )
        return reply.account

    async def correct_balance(
        self,
        pool_id: str,
        account_id: str,
        *,
        balance: Money,
        expected_balance: Money,
        reason: str,
        corrected_by: str,
        evidence: str = "",
    ) -> account_pb2.Account:
        """Gives an account the balance that a person saw at the provider, where it still has `expected_balance`."""
        request = account_pb2.CorrectBalanceRequest(
            pool_id=pool_id,
            account_id=account_id,
            balance=balance,
            expected_balance=expected_balance,
            reason=reason,
            corrected_by=corrected_by,
            evidence=evidence,
        )
        reply: account_pb2.CorrectBalanceResponse = await self._call(
            self._accounts.CorrectBalance, request
        )
        return reply.account

    async def list_account_events(
        self,
        pool_id: str,
        account_id: str,
        *,
        event_time_from: Optional[datetime] = None,
        event_time_to: Optional[datetime] = None,
        reason: str = "",
        redemption_id: str = "",
        actor: str = "",
    ) -> AsyncIterator[account_pb2.AccountEvent]:
        """What happened to an account, the newest first."""
        request = account_pb2.ListAccountEventsRequest(
            pool_id=pool_id,
            account_id=account_id,
            page_size=PAGE,
            event_time_from=event_time_from,
            event_time_to=event_time_to,
            reason=reason,
            redemption_id=redemption_id,
            actor=actor,
        )
        while True:
            page: account_pb2.ListAccountEventsResponse = await self._call(
                self._accounts.ListAccountEvents, request
            )
            for event in page.account_events:
                yield event
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    # Redemptions.

    async def explain_acquire(
        self,
        pool_id: str,
        *,
        selector: Optional[redemption_pb2.AccountSelector] = None,
        page_size: int = 0,
    ) -> redemption_pb2.ExplainAcquireResponse:
        request = redemption_pb2.ExplainAcquireRequest(
            pool_id=pool_id, selector=selector, page_size=page_size
        )
        reply: redemption_pb2.ExplainAcquireResponse = await self._call(
            self._redemptions.ExplainAcquire, request
        )
        return reply

    async def redeem_card(
        self,
        pool_id: str,
        code: str,
        *,
        holder: str,
        request_id: Optional[str] = None,
        expected: Optional[Money] = None,
        selector: Optional[redemption_pb2.AccountSelector] = None,
        wait_timeout: Optional[timedelta] = None,
        priority: int = 0,
    ) -> redemption_pb2.RedeemCardResponse:
        """Redeems a card into an account that is picked for it.

        Store `request_id` with the card: a call that repeats it never redeems the card again. Of those who wait for an
        account, one of a higher `priority` (0 to 9) is served first.
        """
        request = redemption_pb2.RedeemCardRequest(
            request_id=request_id or new_id(),
            pool_id=pool_id,
            holder=holder,
            code=code,
            expected=expected,
            selector=selector,
            wait_timeout=wait_timeout,
            priority=priority,
        )
        # 90 s more than the others have: the provider is waited for, too.
        reply: redemption_pb2.RedeemCardResponse = await self._call(
            self._redemptions.RedeemCard, request, 90 + seconds(wait_timeout)
        )
        return reply

    async def await_redemption(
        self,
        pool_id: str,
        redemption_id: Optional[str] = None,
        *,
        request_id: Optional[str] = None,
        timeout: Optional[timedelta] = None,
    ) -> redemption_pb2.Redemption:
        """Waits for an outcome. The state is still an open one where the time is over first."""
        request = redemption_pb2.AwaitRedemptionRequest(
            pool_id=pool_id, timeout=timeout, **named(redemption_id, request_id)
        )
        reply: redemption_pb2.AwaitRedemptionResponse = await self._call(
            self._redemptions.AwaitRedemption, request, seconds(timeout) or 30
        )
        return reply.redemption

    async def get_redemption(
        self,
        pool_id: str,
        redemption_id: Optional[str] = None,
        *,
        request_id: Optional[str] = None,
    ) -> redemption_pb2.Redemption:
        request = redemption_pb2.GetRedemptionRequest(
            pool_id=pool_id, **named(redemption_id, request_id)
        )
        reply: redemption_pb2.GetRedemptionResponse = await self._call(
            self._redemptions.GetRedemption, request
        )
        return reply.redemption

    async def list_redemptions(
        self,
        pool_id: str,
        *,
        states: Iterable[redemption_pb2.RedemptionState] = (),
        account_id: str = "",
        batch_id: str = "",
        create_time_from: Optional[datetime] = None,
        create_time_to: Optional[datetime] = None,
        reversal_states: Iterable[redemption_pb2.ReversalState] = (),
        request_id: str = "",
        failure_reason: str = "",
        holder: str = "",
        code_last4: str = "",
    ) -> AsyncIterator[redemption_pb2.Redemption]:
        """Redemptions, the newest first. Times have a zone."""
        request = redemption_pb2.ListRedemptionsRequest(
            pool_id=pool_id,
            page_size=PAGE,
            states=states,
            account_id=account_id,
            batch_id=batch_id,
            create_time_from=create_time_from,
            create_time_to=create_time_to,
            reversal_states=reversal_states,
            request_id=request_id,
            failure_reason=failure_reason,
            holder=holder,
            code_last4=code_last4,
        )
        while True:
            page: redemption_pb2.ListRedemptionsResponse = await self._call(
                self._redemptions.ListRedemptions, request
            )
            for redemption in page.redemptions:
                yield redemption
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def resolve_redemption(
        self,
        pool_id: str,
        redemption_id: str,
        *,
        state: redemption_pb2.RedemptionState,
        reason: str,
        resolved_by: str,
        amount: Optional[Money] = None,
        provider_ref: str = "",
        code_spent: bool = False,
        evidence: str = "",
        recorded_amount_is_wrong: bool = False,
        corrects_resolution: int = 0,
    ) -> redemption_pb2.Redemption:
        request = redemption_pb2.ResolveRedemptionRequest(
            pool_id=pool_id,
            redemption_id=redemption_id,
            state=state,
            amount=amount,
            provider_ref=provider_ref,
            code_spent=code_spent,
            reason=reason,
            resolved_by=resolved_by,
            evidence=evidence,
            recorded_amount_is_wrong=recorded_amount_is_wrong,
            corrects_resolution=corrects_resolution,
        )
        reply: redemption_pb2.ResolveRedemptionResponse = await self._call(
            self._redemptions.ResolveRedemption, request
        )
        return reply.redemption

    async def reverse_redemption(
        self,
        pool_id: str,
        redemption_id: str,
        *,
        reason: str,
        reversed_by: str,
        evidence: str = "",
        outcome: redemption_pb2.ReversalOutcome = redemption_pb2.REVERSAL_OUTCOME_UNSPECIFIED,
    ) -> redemption_pb2.Redemption:
        request = redemption_pb2.ReverseRedemptionRequest(
            pool_id=pool_id,
            redemption_id=redemption_id,
            reason=reason,
            reversed_by=reversed_by,
            evidence=evidence,
            outcome=outcome,
        )
        reply: redemption_pb2.ReverseRedemptionResponse = await self._call(
            self._redemptions.ReverseRedemption, request, 90
        )
        return reply.redemption

    # Providers.

    async def apply_provider(self, profile: str) -> provider_pb2.Provider:
        request = provider_pb2.ApplyProviderRequest(profile=profile)
        reply: provider_pb2.ApplyProviderResponse = await self._call(
            self._providers.ApplyProvider, request
        )
        return reply.provider

    async def check_provider(self, profile: str) -> provider_pb2.CheckProviderResponse:
        request = provider_pb2.CheckProviderRequest(profile=profile)
        reply: provider_pb2.CheckProviderResponse = await self._call(
            self._providers.CheckProvider, request
        )
        return reply

    async def get_provider(self, provider_id: str, version: int = 0) -> provider_pb2.Provider:
        request = provider_pb2.GetProviderRequest(provider_id=provider_id, version=version)
        reply: provider_pb2.GetProviderResponse = await self._call(
            self._providers.GetProvider, request
        )
        return reply.provider

    async def list_providers(self) -> AsyncIterator[provider_pb2.Provider]:
        request = provider_pb2.ListProvidersRequest(page_size=PAGE)
        while True:
            page: provider_pb2.ListProvidersResponse = await self._call(
                self._providers.ListProviders, request
            )
            for provider in page.providers:
                yield provider
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    # Access.

    async def create_token(
        self,
        name: str,
        grants: Iterable[access_pb2.Grant],
        *,
        lifetime: Optional[timedelta] = None,
    ) -> access_pb2.CreateTokenResponse:
        """Makes a token. Its secret is answered once."""
        request = access_pb2.CreateTokenRequest(name=name, grants=grants, lifetime=lifetime)
        reply: access_pb2.CreateTokenResponse = await self._call(self._access.CreateToken, request)
        return reply

    async def list_tokens(self) -> AsyncIterator[access_pb2.Token]:
        request = access_pb2.ListTokensRequest(page_size=PAGE)
        while True:
            page: access_pb2.ListTokensResponse = await self._call(self._access.ListTokens, request)
            for token in page.tokens:
                yield token
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def revoke_token(self, name: str) -> access_pb2.Token:
        request = access_pb2.RevokeTokenRequest(name=name)
        reply: access_pb2.RevokeTokenResponse = await self._call(self._access.RevokeToken, request)
        return reply.token

    async def list_audit_events(
        self,
        *,
        pool_id: str = "",
        principal: str = "",
        subject: str = "",
        action: str = "",
        from_time: Optional[datetime] = None,
        to_time: Optional[datetime] = None,
    ) -> AsyncIterator[access_pb2.AuditEvent]:
        """What people did, the newest first."""
        request = access_pb2.ListAuditEventsRequest(
            pool_id=pool_id,
            principal=principal,
            subject=subject,
            action=action,
            from_time=from_time,
            to_time=to_time,
            page_size=PAGE,
        )
        while True:
            page: access_pb2.ListAuditEventsResponse = await self._call(
                self._access.ListAuditEvents, request
            )
            for event in page.events:
                yield event
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
