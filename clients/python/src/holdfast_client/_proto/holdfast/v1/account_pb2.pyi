import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from holdfast_client._proto.holdfast.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AccountStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCOUNT_STATUS_UNSPECIFIED: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_WAITING: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_PROCESSING: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_LOCKING: _ClassVar[AccountStatus]
    ACCOUNT_STATUS_COMPLETED: _ClassVar[AccountStatus]

class LoginStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOGIN_STATUS_UNSPECIFIED: _ClassVar[LoginStatus]
    LOGIN_STATUS_ACTIVE: _ClassVar[LoginStatus]
    LOGIN_STATUS_INACTIVE: _ClassVar[LoginStatus]
    LOGIN_STATUS_INVALID: _ClassVar[LoginStatus]

class HoldCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOLD_CAUSE_UNSPECIFIED: _ClassVar[HoldCause]
    HOLD_CAUSE_LOGIN_INVALID: _ClassVar[HoldCause]
    HOLD_CAUSE_LIMIT_REACHED: _ClassVar[HoldCause]
    HOLD_CAUSE_THROTTLED: _ClassVar[HoldCause]
ACCOUNT_STATUS_UNSPECIFIED: AccountStatus
ACCOUNT_STATUS_WAITING: AccountStatus
ACCOUNT_STATUS_PROCESSING: AccountStatus
ACCOUNT_STATUS_LOCKING: AccountStatus
ACCOUNT_STATUS_COMPLETED: AccountStatus
LOGIN_STATUS_UNSPECIFIED: LoginStatus
LOGIN_STATUS_ACTIVE: LoginStatus
LOGIN_STATUS_INACTIVE: LoginStatus
LOGIN_STATUS_INVALID: LoginStatus
HOLD_CAUSE_UNSPECIFIED: HoldCause
HOLD_CAUSE_LOGIN_INVALID: HoldCause
HOLD_CAUSE_LIMIT_REACHED: HoldCause
HOLD_CAUSE_THROTTLED: HoldCause

class LeaseRef(_message.Message):
    __slots__ = ("pool_id", "account_id", "fencing_token")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    account_id: str
    fencing_token: int
    def __init__(self, pool_id: _Optional[str] = ..., account_id: _Optional[str] = ..., fencing_token: _Optional[int] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("ref", "holder", "acquire_time", "expire_time", "remaining", "principal")
    REF_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ref: LeaseRef
    holder: str
    acquire_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    remaining: _duration_pb2.Duration
    principal: str
    def __init__(self, ref: _Optional[_Union[LeaseRef, _Mapping]] = ..., holder: _Optional[str] = ..., acquire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., principal: _Optional[str] = ...) -> None: ...

class Account(_message.Message):
    __slots__ = ("pool_id", "account_id", "status", "login_status", "plan_id", "country_code", "balance", "labels", "lease", "open_redemption_id", "create_time", "update_time", "plan_day", "day_credited", "reserved", "available_time", "hold", "paused", "draining", "credentials")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class CredentialsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LOGIN_STATUS_FIELD_NUMBER: _ClassVar[int]
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_CODE_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    OPEN_REDEMPTION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    PLAN_DAY_FIELD_NUMBER: _ClassVar[int]
    DAY_CREDITED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_TIME_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    account_id: str
    status: AccountStatus
    login_status: LoginStatus
    plan_id: str
    country_code: str
    balance: _common_pb2.Money
    labels: _containers.ScalarMap[str, str]
    lease: Lease
    open_redemption_id: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    plan_day: int
    day_credited: _common_pb2.Money
    reserved: _common_pb2.Money
    available_time: _timestamp_pb2.Timestamp
    hold: AccountHold
    paused: bool
    draining: bool
    credentials: _containers.ScalarMap[str, str]
    def __init__(self, pool_id: _Optional[str] = ..., account_id: _Optional[str] = ..., status: _Optional[_Union[AccountStatus, str]] = ..., login_status: _Optional[_Union[LoginStatus, str]] = ..., plan_id: _Optional[str] = ..., country_code: _Optional[str] = ..., balance: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., open_redemption_id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., plan_day: _Optional[int] = ..., day_credited: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., reserved: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., available_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., hold: _Optional[_Union[AccountHold, _Mapping]] = ..., paused: bool = ..., draining: bool = ..., credentials: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AccountHold(_message.Message):
    __slots__ = ("cause", "expire_time", "count")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    cause: HoldCause
    expire_time: _timestamp_pb2.Timestamp
    count: int
    def __init__(self, cause: _Optional[_Union[HoldCause, str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class AccountEvent(_message.Message):
    __slots__ = ("pool_id", "account_id", "version", "event_time", "actor", "reason", "from_status", "to_status", "fencing_token", "redemption_id", "balance", "lease_expire_time", "principal")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FROM_STATUS_FIELD_NUMBER: _ClassVar[int]
    TO_STATUS_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REDEMPTION_ID_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    account_id: str
    version: int
    event_time: _timestamp_pb2.Timestamp
    actor: str
    reason: str
    from_status: AccountStatus
    to_status: AccountStatus
    fencing_token: int
    redemption_id: str
    balance: _common_pb2.Money
    lease_expire_time: _timestamp_pb2.Timestamp
    principal: str
    def __init__(self, pool_id: _Optional[str] = ..., account_id: _Optional[str] = ..., version: _Optional[int] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., from_status: _Optional[_Union[AccountStatus, str]] = ..., to_status: _Optional[_Union[AccountStatus, str]] = ..., fencing_token: _Optional[int] = ..., redemption_id: _Optional[str] = ..., balance: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., principal: _Optional[str] = ...) -> None: ...

class CreateAccountRequest(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: Account
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ...) -> None: ...

class CreateAccountResponse(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: Account
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ...) -> None: ...

class ImportAccountsRequest(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: Account
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ...) -> None: ...

class ImportFailure(_message.Message):
    __slots__ = ("index", "account_id", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    account_id: str
    error: _status_pb2.Status
    def __init__(self, index: _Optional[int] = ..., account_id: _Optional[str] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ImportAccountsResponse(_message.Message):
    __slots__ = ("received", "created", "failed", "failures")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    received: int
    created: int
    failed: int
    failures: _containers.RepeatedCompositeFieldContainer[ImportFailure]
    def __init__(self, received: _Optional[int] = ..., created: _Optional[int] = ..., failed: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[ImportFailure, _Mapping]]] = ...) -> None: ...

class GetAccountRequest(_message.Message):
    __slots__ = ("pool_id", "account_id")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    account_id: str
    def __init__(self, pool_id: _Optional[str] = ..., account_id: _Optional[str] = ...) -> None: ...

class GetAccountResponse(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: Account
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ...) -> None: ...

class ListAccountsRequest(_message.Message):
    __slots__ = ("pool_id", "page_size", "page_token", "status", "login_status", "plan_id", "holder", "update_time_from", "update_time_to")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LOGIN_STATUS_FIELD_NUMBER: _ClassVar[int]
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FROM_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_TO_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    page_size: int
    page_token: str
    status: AccountStatus
    login_status: LoginStatus
    plan_id: str
    holder: str
    update_time_from: _timestamp_pb2.Timestamp
    update_time_to: _timestamp_pb2.Timestamp
    def __init__(self, pool_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., status: _Optional[_Union[AccountStatus, str]] = ..., login_status: _Optional[_Union[LoginStatus, str]] = ..., plan_id: _Optional[str] = ..., holder: _Optional[str] = ..., update_time_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListAccountsResponse(_message.Message):
    __slots__ = ("accounts", "next_page_token")
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    accounts: _containers.RepeatedCompositeFieldContainer[Account]
    next_page_token: str
    def __init__(self, accounts: _Optional[_Iterable[_Union[Account, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateAccountRequest(_message.Message):
    __slots__ = ("account", "update_mask")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    account: Account
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateAccountResponse(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: Account
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ...) -> None: ...

class CorrectBalanceRequest(_message.Message):
    __slots__ = ("pool_id", "account_id", "balance", "expected_balance", "reason", "corrected_by", "evidence")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_BALANCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CORRECTED_BY_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    account_id: str
    balance: _common_pb2.Money
    expected_balance: _common_pb2.Money
    reason: str
    corrected_by: str
    evidence: str
    def __init__(self, pool_id: _Optional[str] = ..., account_id: _Optional[str] = ..., balance: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., expected_balance: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., reason: _Optional[str] = ..., corrected_by: _Optional[str] = ..., evidence: _Optional[str] = ...) -> None: ...

class CorrectBalanceResponse(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: Account
    def __init__(self, account: _Optional[_Union[Account, _Mapping]] = ...) -> None: ...

class ListAccountEventsRequest(_message.Message):
    __slots__ = ("pool_id", "account_id", "page_size", "page_token", "event_time_from", "event_time_to", "reason", "redemption_id", "actor")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FROM_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_TO_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REDEMPTION_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    account_id: str
    page_size: int
    page_token: str
    event_time_from: _timestamp_pb2.Timestamp
    event_time_to: _timestamp_pb2.Timestamp
    reason: str
    redemption_id: str
    actor: str
    def __init__(self, pool_id: _Optional[str] = ..., account_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., event_time_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., event_time_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., redemption_id: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class ListAccountEventsResponse(_message.Message):
    __slots__ = ("account_events", "next_page_token")
    ACCOUNT_EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    account_events: _containers.RepeatedCompositeFieldContainer[AccountEvent]
    next_page_token: str
    def __init__(self, account_events: _Optional[_Iterable[_Union[AccountEvent, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
