"""A client of Holdfast, the lock-and-redeem service."""

from . import errors, types
from ._batch import Batch
from ._requests import Item
from ._tally import BatchResult, BatchSummary
from .aio import AsyncBatch, AsyncClient, AsyncLease
from .client import Client, Lease
from .errors import HoldfastError, LeaseLost
from .money import money, to_datetime, to_decimal, to_timedelta
from .types import (
    Account,
    AccountSelector,
    AccountStatus,
    LoginStatus,
    Money,
    Plan,
    Pool,
    Redemption,
    RedemptionState,
)
from .version import __version__

__all__ = [
    "Account",
    "AccountSelector",
    "AccountStatus",
    "AsyncBatch",
    "AsyncClient",
    "AsyncLease",
    "Batch",
    "BatchResult",
    "BatchSummary",
    "Client",
    "HoldfastError",
    "Item",
    "Lease",
    "LeaseLost",
    "LoginStatus",
    "Money",
    "Plan",
    "Pool",
    "Redemption",
    "RedemptionState",
    "__version__",
    "errors",
    "money",
    "to_datetime",
    "to_decimal",
    "to_timedelta",
    "types",
]
