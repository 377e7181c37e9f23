"""What a person corrects."""

from __future__ import annotations

from typing import Any

from ._refused import precondition
from ._state import COMPLETED, AccountState, PoolState, State
from .._proto.holdfast.v1 import account_pb2


def correct_balance(state: State, pool: PoolState, account: AccountState, request: Any) -> None:
    message = account.message
    if message.open_redemption_id:
        metadata = {"redemption_id": message.open_redemption_id}
        raise precondition("REDEMPTION_OPEN", "a redemption is open", metadata)
    has, wanted = message.balance.amount_minor, request.balance.amount_minor
    if has == wanted:
        return
    if has != request.expected_balance.amount_minor:
        raise precondition("BALANCE_CHANGED", "the account has another balance by now")
    message.balance.CopyFrom(request.balance)
    plan = pool.plans.get(message.plan_id)
    if plan is not None and message.status != account_pb2.ACCOUNT_STATUS_LOCKING:
        if wanted >= plan.target.amount_minor:
            message.status = COMPLETED
        elif message.status == COMPLETED:
            message.status = account_pb2.ACCOUNT_STATUS_PROCESSING
    state.event(account, "balance_corrected")
