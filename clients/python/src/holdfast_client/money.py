"""Amounts as decimals, and times as Python has them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Union

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ._proto.holdfast.v1.common_pb2 import Money

# Currencies whose minor unit is not a hundredth, by ISO 4217.
_DIGITS = dict.fromkeys(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0
)
_DIGITS.update(dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3))
_DIGITS.update(dict.fromkeys(["CLF", "UYW"], 4))


def money(amount: Union[str, Decimal], currency_code: str) -> Money:
    """`money("10.00", "EUR")`. Numbers are refused: a float is not exact, and an integer may mean cents."""
    if not isinstance(amount, (str, Decimal)):
        raise TypeError('an amount is a text or a Decimal, such as "10.00", not a number')
    minor = Decimal(amount).scaleb(_DIGITS.get(currency_code, 2))
    if not minor.is_finite() or minor != minor.to_integral_value():
        raise ValueError(f"{amount} is not a whole number of {currency_code}'s minor unit")
    return Money(amount_minor=int(minor), currency_code=currency_code)


def to_decimal(amount: Money) -> Decimal:
    """10.00 for 1000 of EUR."""
    return Decimal(amount.amount_minor).scaleb(-_DIGITS.get(amount.currency_code, 2))


def to_datetime(time: Timestamp) -> datetime:
    """A time, in UTC. Ask `HasField` first whether it is set."""
    return time.ToDatetime(timezone.utc)


def to_timedelta(duration: Duration) -> timedelta:
    return duration.ToTimedelta()
