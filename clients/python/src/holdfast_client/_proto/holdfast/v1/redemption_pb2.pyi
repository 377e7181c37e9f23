import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from holdfast_client._proto.holdfast.v1 import account_pb2 as _account_pb2
from holdfast_client._proto.holdfast.v1 import common_pb2 as _common_pb2
from holdfast_client._proto.holdfast.v1 import provider_pb2 as _provider_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RedemptionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDEMPTION_STATE_UNSPECIFIED: _ClassVar[RedemptionState]
    REDEMPTION_STATE_SUBMITTED: _ClassVar[RedemptionState]
    REDEMPTION_STATE_IN_DOUBT: _ClassVar[RedemptionState]
    REDEMPTION_STATE_NEEDS_REVIEW: _ClassVar[RedemptionState]
    REDEMPTION_STATE_SUCCEEDED: _ClassVar[RedemptionState]
    REDEMPTION_STATE_FAILED: _ClassVar[RedemptionState]

class ReversalState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVERSAL_STATE_UNSPECIFIED: _ClassVar[ReversalState]
    REVERSAL_STATE_REQUESTED: _ClassVar[ReversalState]
    REVERSAL_STATE_IN_DOUBT: _ClassVar[ReversalState]
    REVERSAL_STATE_NEEDS_REVIEW: _ClassVar[ReversalState]
    REVERSAL_STATE_SUCCEEDED: _ClassVar[ReversalState]
    REVERSAL_STATE_FAILED: _ClassVar[ReversalState]

class ReversalOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVERSAL_OUTCOME_UNSPECIFIED: _ClassVar[ReversalOutcome]
    REVERSAL_OUTCOME_REVERSED: _ClassVar[ReversalOutcome]
    REVERSAL_OUTCOME_NOT_REVERSED: _ClassVar[ReversalOutcome]

class AcquireVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACQUIRE_VERDICT_UNSPECIFIED: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_FITS: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_NOT_SELECTED: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_COMPLETED: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_INACTIVE: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_PAUSED: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_DRAINING: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_TOO_FULL: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_DENOMINATION: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_REMAINDER: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_DAY_FULL: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_ON_HOLD: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_NEXT_DAY: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_COOLING_DOWN: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_LOCKED: _ClassVar[AcquireVerdict]
    ACQUIRE_VERDICT_UNWRITABLE: _ClassVar[AcquireVerdict]
REDEMPTION_STATE_UNSPECIFIED: RedemptionState
REDEMPTION_STATE_SUBMITTED: RedemptionState
REDEMPTION_STATE_IN_DOUBT: RedemptionState
REDEMPTION_STATE_NEEDS_REVIEW: RedemptionState
REDEMPTION_STATE_SUCCEEDED: RedemptionState
REDEMPTION_STATE_FAILED: RedemptionState
REVERSAL_STATE_UNSPECIFIED: ReversalState
REVERSAL_STATE_REQUESTED: ReversalState
REVERSAL_STATE_IN_DOUBT: ReversalState
REVERSAL_STATE_NEEDS_REVIEW: ReversalState
REVERSAL_STATE_SUCCEEDED: ReversalState
REVERSAL_STATE_FAILED: ReversalState
REVERSAL_OUTCOME_UNSPECIFIED: ReversalOutcome
REVERSAL_OUTCOME_REVERSED: ReversalOutcome
REVERSAL_OUTCOME_NOT_REVERSED: ReversalOutcome
ACQUIRE_VERDICT_UNSPECIFIED: AcquireVerdict
ACQUIRE_VERDICT_FITS: AcquireVerdict
ACQUIRE_VERDICT_NOT_SELECTED: AcquireVerdict
ACQUIRE_VERDICT_COMPLETED: AcquireVerdict
ACQUIRE_VERDICT_INACTIVE: AcquireVerdict
ACQUIRE_VERDICT_PAUSED: AcquireVerdict
ACQUIRE_VERDICT_DRAINING: AcquireVerdict
ACQUIRE_VERDICT_TOO_FULL: AcquireVerdict
ACQUIRE_VERDICT_DENOMINATION: AcquireVerdict
ACQUIRE_VERDICT_REMAINDER: AcquireVerdict
ACQUIRE_VERDICT_DAY_FULL: AcquireVerdict
ACQUIRE_VERDICT_ON_HOLD: AcquireVerdict
ACQUIRE_VERDICT_NEXT_DAY: AcquireVerdict
ACQUIRE_VERDICT_COOLING_DOWN: AcquireVerdict
ACQUIRE_VERDICT_LOCKED: AcquireVerdict
ACQUIRE_VERDICT_UNWRITABLE: AcquireVerdict

class Failure(_message.Message):
    __slots__ = ("reason", "message", "code_spent", "retryable")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CODE_SPENT_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    code_spent: bool
    retryable: bool
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., code_spent: bool = ..., retryable: bool = ...) -> None: ...

class Redemption(_message.Message):
    __slots__ = ("redemption_id", "request_id", "pool_id", "account_id", "fencing_token", "state", "expected", "amount", "provider_ref", "code_last4", "failure", "attempts", "create_time", "finish_time", "next_check_time", "amount_mismatch", "last_answer", "resolution", "expected_learned", "provider_id", "provider_version", "provider_task", "reverse_time", "reversal", "principal", "attempt", "superseded_resolutions")
    REDEMPTION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REF_FIELD_NUMBER: _ClassVar[int]
    CODE_LAST4_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_CHECK_TIME_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_MISMATCH_FIELD_NUMBER: _ClassVar[int]
    LAST_ANSWER_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_LEARNED_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_TASK_FIELD_NUMBER: _ClassVar[int]
    REVERSE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVERSAL_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_RESOLUTIONS_FIELD_NUMBER: _ClassVar[int]
    redemption_id: str
    request_id: str
    pool_id: str
    account_id: str
    fencing_token: int
    state: RedemptionState
    expected: _common_pb2.Money
    amount: _common_pb2.Money
    provider_ref: str
    code_last4: str
    failure: Failure
    attempts: int
    create_time: _timestamp_pb2.Timestamp
    finish_time: _timestamp_pb2.Timestamp
    next_check_time: _timestamp_pb2.Timestamp
    amount_mismatch: bool
    last_answer: str
    resolution: Resolution
    expected_learned: bool
    provider_id: str
    provider_version: int
    provider_task: str
    reverse_time: _timestamp_pb2.Timestamp
    reversal: Reversal
    principal: str
    attempt: int
    superseded_resolutions: _containers.RepeatedCompositeFieldContainer[SupersededResolution]
    def __init__(self, redemption_id: _Optional[str] = ..., request_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., account_id: _Optional[str] = ..., fencing_token: _Optional[int] = ..., state: _Optional[_Union[RedemptionState, str]] = ..., expected: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., amount: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., provider_ref: _Optional[str] = ..., code_last4: _Optional[str] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., attempts: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_check_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., amount_mismatch: bool = ..., last_answer: _Optional[str] = ..., resolution: _Optional[_Union[Resolution, _Mapping]] = ..., expected_learned: bool = ..., provider_id: _Optional[str] = ..., provider_version: _Optional[int] = ..., provider_task: _Optional[str] = ..., reverse_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reversal: _Optional[_Union[Reversal, _Mapping]] = ..., principal: _Optional[str] = ..., attempt: _Optional[int] = ..., superseded_resolutions: _Optional[_Iterable[_Union[SupersededResolution, _Mapping]]] = ...) -> None: ...

class Reversal(_message.Message):
    __slots__ = ("state", "number", "reversed_by", "reason", "evidence", "resolution", "attempts", "last_answer", "next_check_time", "create_time", "finish_time", "principal")
    STATE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REVERSED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LAST_ANSWER_FIELD_NUMBER: _ClassVar[int]
    NEXT_CHECK_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    state: ReversalState
    number: int
    reversed_by: str
    reason: str
    evidence: str
    resolution: Resolution
    attempts: int
    last_answer: str
    next_check_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    finish_time: _timestamp_pb2.Timestamp
    principal: str
    def __init__(self, state: _Optional[_Union[ReversalState, str]] = ..., number: _Optional[int] = ..., reversed_by: _Optional[str] = ..., reason: _Optional[str] = ..., evidence: _Optional[str] = ..., resolution: _Optional[_Union[Resolution, _Mapping]] = ..., attempts: _Optional[int] = ..., last_answer: _Optional[str] = ..., next_check_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., principal: _Optional[str] = ...) -> None: ...

class Resolution(_message.Message):
    __slots__ = ("resolved_by", "reason", "evidence", "principal", "number")
    RESOLVED_BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    resolved_by: str
    reason: str
    evidence: str
    principal: str
    number: int
    def __init__(self, resolved_by: _Optional[str] = ..., reason: _Optional[str] = ..., evidence: _Optional[str] = ..., principal: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class SupersededResolution(_message.Message):
    __slots__ = ("resolution", "state", "amount", "code_spent", "finish_time", "supersede_time")
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CODE_SPENT_FIELD_NUMBER: _ClassVar[int]
    FINISH_TIME_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDE_TIME_FIELD_NUMBER: _ClassVar[int]
    resolution: Resolution
    state: RedemptionState
    amount: _common_pb2.Money
    code_spent: bool
    finish_time: _timestamp_pb2.Timestamp
    supersede_time: _timestamp_pb2.Timestamp
    def __init__(self, resolution: _Optional[_Union[Resolution, _Mapping]] = ..., state: _Optional[_Union[RedemptionState, str]] = ..., amount: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., code_spent: bool = ..., finish_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., supersede_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AccountSelector(_message.Message):
    __slots__ = ("account_id", "plan_id", "country_code", "min_headroom", "labels", "exclude_account_ids", "expected")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_CODE_FIELD_NUMBER: _ClassVar[int]
    MIN_HEADROOM_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ACCOUNT_IDS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    account_id: str
    plan_id: str
    country_code: str
    min_headroom: _common_pb2.Money
    labels: _containers.ScalarMap[str, str]
    exclude_account_ids: _containers.RepeatedScalarFieldContainer[str]
    expected: _common_pb2.Money
    def __init__(self, account_id: _Optional[str] = ..., plan_id: _Optional[str] = ..., country_code: _Optional[str] = ..., min_headroom: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., exclude_account_ids: _Optional[_Iterable[str]] = ..., expected: _Optional[_Union[_common_pb2.Money, _Mapping]] = ...) -> None: ...

class AcquireAccountRequest(_message.Message):
    __slots__ = ("request_id", "pool_id", "holder", "lease_duration", "wait_timeout", "selector", "priority", "not_before")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    WAIT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    pool_id: str
    holder: str
    lease_duration: _duration_pb2.Duration
    wait_timeout: _duration_pb2.Duration
    selector: AccountSelector
    priority: int
    not_before: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., holder: _Optional[str] = ..., lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., wait_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., selector: _Optional[_Union[AccountSelector, _Mapping]] = ..., priority: _Optional[int] = ..., not_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AcquireAccountResponse(_message.Message):
    __slots__ = ("lease", "account")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    lease: _account_pb2.Lease
    account: _account_pb2.Account
    def __init__(self, lease: _Optional[_Union[_account_pb2.Lease, _Mapping]] = ..., account: _Optional[_Union[_account_pb2.Account, _Mapping]] = ...) -> None: ...

class ExplainAcquireRequest(_message.Message):
    __slots__ = ("pool_id", "selector", "page_size")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    selector: AccountSelector
    page_size: int
    def __init__(self, pool_id: _Optional[str] = ..., selector: _Optional[_Union[AccountSelector, _Mapping]] = ..., page_size: _Optional[int] = ...) -> None: ...

class ExplainAcquireResponse(_message.Message):
    __slots__ = ("considered_accounts", "verdict_counts", "pool_closed", "provider_status")
    CONSIDERED_ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_COUNTS_FIELD_NUMBER: _ClassVar[int]
    POOL_CLOSED_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_STATUS_FIELD_NUMBER: _ClassVar[int]
    considered_accounts: _containers.RepeatedCompositeFieldContainer[ConsideredAccount]
    verdict_counts: _containers.RepeatedCompositeFieldContainer[VerdictCount]
    pool_closed: bool
    provider_status: _provider_pb2.ProviderStatus
    def __init__(self, considered_accounts: _Optional[_Iterable[_Union[ConsideredAccount, _Mapping]]] = ..., verdict_counts: _Optional[_Iterable[_Union[VerdictCount, _Mapping]]] = ..., pool_closed: bool = ..., provider_status: _Optional[_Union[_provider_pb2.ProviderStatus, _Mapping]] = ...) -> None: ...

class ConsideredAccount(_message.Message):
    __slots__ = ("account", "verdict", "headroom", "day_headroom")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_FIELD_NUMBER: _ClassVar[int]
    DAY_HEADROOM_FIELD_NUMBER: _ClassVar[int]
    account: _account_pb2.Account
    verdict: AcquireVerdict
    headroom: _common_pb2.Money
    day_headroom: _common_pb2.Money
    def __init__(self, account: _Optional[_Union[_account_pb2.Account, _Mapping]] = ..., verdict: _Optional[_Union[AcquireVerdict, str]] = ..., headroom: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., day_headroom: _Optional[_Union[_common_pb2.Money, _Mapping]] = ...) -> None: ...

class VerdictCount(_message.Message):
    __slots__ = ("verdict", "accounts")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    verdict: AcquireVerdict
    accounts: int
    def __init__(self, verdict: _Optional[_Union[AcquireVerdict, str]] = ..., accounts: _Optional[int] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("lease", "lease_duration")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    LEASE_DURATION_FIELD_NUMBER: _ClassVar[int]
    lease: _account_pb2.LeaseRef
    lease_duration: _duration_pb2.Duration
    def __init__(self, lease: _Optional[_Union[_account_pb2.LeaseRef, _Mapping]] = ..., lease_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: _account_pb2.Lease
    def __init__(self, lease: _Optional[_Union[_account_pb2.Lease, _Mapping]] = ...) -> None: ...

class RedeemRequest(_message.Message):
    __slots__ = ("request_id", "lease", "code", "expected", "release_on_completion")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ON_COMPLETION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease: _account_pb2.LeaseRef
    code: str
    expected: _common_pb2.Money
    release_on_completion: bool
    def __init__(self, request_id: _Optional[str] = ..., lease: _Optional[_Union[_account_pb2.LeaseRef, _Mapping]] = ..., code: _Optional[str] = ..., expected: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., release_on_completion: bool = ...) -> None: ...

class RedeemResponse(_message.Message):
    __slots__ = ("redemption", "replayed")
    REDEMPTION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    redemption: Redemption
    replayed: bool
    def __init__(self, redemption: _Optional[_Union[Redemption, _Mapping]] = ..., replayed: bool = ...) -> None: ...

class RedeemCardRequest(_message.Message):
    __slots__ = ("request_id", "pool_id", "holder", "code", "expected", "selector", "wait_timeout", "priority")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    WAIT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    pool_id: str
    holder: str
    code: str
    expected: _common_pb2.Money
    selector: AccountSelector
    wait_timeout: _duration_pb2.Duration
    priority: int
    def __init__(self, request_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., holder: _Optional[str] = ..., code: _Optional[str] = ..., expected: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., selector: _Optional[_Union[AccountSelector, _Mapping]] = ..., wait_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., priority: _Optional[int] = ...) -> None: ...

class RedeemCardResponse(_message.Message):
    __slots__ = ("redemption", "replayed")
    REDEMPTION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    redemption: Redemption
    replayed: bool
    def __init__(self, redemption: _Optional[_Union[Redemption, _Mapping]] = ..., replayed: bool = ...) -> None: ...

class ReleaseAccountRequest(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: _account_pb2.LeaseRef
    def __init__(self, lease: _Optional[_Union[_account_pb2.LeaseRef, _Mapping]] = ...) -> None: ...

class ReleaseAccountResponse(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: _account_pb2.Account
    def __init__(self, account: _Optional[_Union[_account_pb2.Account, _Mapping]] = ...) -> None: ...

class BatchRedeemRequest(_message.Message):
    __slots__ = ("open", "item")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    open: BatchOpen
    item: BatchItem
    def __init__(self, open: _Optional[_Union[BatchOpen, _Mapping]] = ..., item: _Optional[_Union[BatchItem, _Mapping]] = ...) -> None: ...

class BatchOpen(_message.Message):
    __slots__ = ("batch_id", "pool_id", "holder", "selector", "max_in_flight", "item_timeout")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ITEM_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    pool_id: str
    holder: str
    selector: AccountSelector
    max_in_flight: int
    item_timeout: _duration_pb2.Duration
    def __init__(self, batch_id: _Optional[str] = ..., pool_id: _Optional[str] = ..., holder: _Optional[str] = ..., selector: _Optional[_Union[AccountSelector, _Mapping]] = ..., max_in_flight: _Optional[int] = ..., item_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BatchItem(_message.Message):
    __slots__ = ("item_id", "code", "expected", "selector", "priority", "not_before")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    code: str
    expected: _common_pb2.Money
    selector: AccountSelector
    priority: int
    not_before: _timestamp_pb2.Timestamp
    def __init__(self, item_id: _Optional[str] = ..., code: _Optional[str] = ..., expected: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., selector: _Optional[_Union[AccountSelector, _Mapping]] = ..., priority: _Optional[int] = ..., not_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BatchRedeemResponse(_message.Message):
    __slots__ = ("result", "progress", "summary")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    result: BatchItemResult
    progress: BatchProgress
    summary: BatchSummary
    def __init__(self, result: _Optional[_Union[BatchItemResult, _Mapping]] = ..., progress: _Optional[_Union[BatchProgress, _Mapping]] = ..., summary: _Optional[_Union[BatchSummary, _Mapping]] = ...) -> None: ...

class BatchItemResult(_message.Message):
    __slots__ = ("item_id", "redemption", "error", "replayed")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    REDEMPTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    redemption: Redemption
    error: _status_pb2.Status
    replayed: bool
    def __init__(self, item_id: _Optional[str] = ..., redemption: _Optional[_Union[Redemption, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., replayed: bool = ...) -> None: ...

class BatchProgress(_message.Message):
    __slots__ = ("received", "in_flight", "succeeded", "failed", "in_doubt", "rejected", "retryable", "held_back")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    IN_DOUBT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_FIELD_NUMBER: _ClassVar[int]
    received: int
    in_flight: int
    succeeded: int
    failed: int
    in_doubt: int
    rejected: int
    retryable: int
    held_back: int
    def __init__(self, received: _Optional[int] = ..., in_flight: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., in_doubt: _Optional[int] = ..., rejected: _Optional[int] = ..., retryable: _Optional[int] = ..., held_back: _Optional[int] = ...) -> None: ...

class BatchSummary(_message.Message):
    __slots__ = ("received", "in_flight", "succeeded", "failed", "in_doubt", "rejected", "retryable")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    IN_DOUBT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    received: int
    in_flight: int
    succeeded: int
    failed: int
    in_doubt: int
    rejected: int
    retryable: int
    def __init__(self, received: _Optional[int] = ..., in_flight: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., in_doubt: _Optional[int] = ..., rejected: _Optional[int] = ..., retryable: _Optional[int] = ...) -> None: ...

class GetRedemptionRequest(_message.Message):
    __slots__ = ("pool_id", "redemption_id", "request_id")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    REDEMPTION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    redemption_id: str
    request_id: str
    def __init__(self, pool_id: _Optional[str] = ..., redemption_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetRedemptionResponse(_message.Message):
    __slots__ = ("redemption",)
    REDEMPTION_FIELD_NUMBER: _ClassVar[int]
    redemption: Redemption
    def __init__(self, redemption: _Optional[_Union[Redemption, _Mapping]] = ...) -> None: ...

class AwaitRedemptionRequest(_message.Message):
    __slots__ = ("pool_id", "redemption_id", "request_id", "timeout")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    REDEMPTION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    redemption_id: str
    request_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, pool_id: _Optional[str] = ..., redemption_id: _Optional[str] = ..., request_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AwaitRedemptionResponse(_message.Message):
    __slots__ = ("redemption",)
    REDEMPTION_FIELD_NUMBER: _ClassVar[int]
    redemption: Redemption
    def __init__(self, redemption: _Optional[_Union[Redemption, _Mapping]] = ...) -> None: ...

class WatchRedemptionsRequest(_message.Message):
    __slots__ = ("pool_id", "after")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    after: str
    def __init__(self, pool_id: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class WatchRedemptionsResponse(_message.Message):
    __slots__ = ("redemption", "cursor")
    REDEMPTION_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    redemption: Redemption
    cursor: str
    def __init__(self, redemption: _Optional[_Union[Redemption, _Mapping]] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListRedemptionsRequest(_message.Message):
    __slots__ = ("pool_id", "page_size", "page_token", "states", "account_id", "batch_id", "create_time_from", "create_time_to", "reversal_states", "request_id", "failure_reason", "holder", "code_last4")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FROM_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_TO_FIELD_NUMBER: _ClassVar[int]
    REVERSAL_STATES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_REASON_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    CODE_LAST4_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    page_size: int
    page_token: str
    states: _containers.RepeatedScalarFieldContainer[RedemptionState]
    account_id: str
    batch_id: str
    create_time_from: _timestamp_pb2.Timestamp
    create_time_to: _timestamp_pb2.Timestamp
    reversal_states: _containers.RepeatedScalarFieldContainer[ReversalState]
    request_id: str
    failure_reason: str
    holder: str
    code_last4: str
    def __init__(self, pool_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., states: _Optional[_Iterable[_Union[RedemptionState, str]]] = ..., account_id: _Optional[str] = ..., batch_id: _Optional[str] = ..., create_time_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reversal_states: _Optional[_Iterable[_Union[ReversalState, str]]] = ..., request_id: _Optional[str] = ..., failure_reason: _Optional[str] = ..., holder: _Optional[str] = ..., code_last4: _Optional[str] = ...) -> None: ...

class ListRedemptionsResponse(_message.Message):
    __slots__ = ("redemptions", "next_page_token")
    REDEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    redemptions: _containers.RepeatedCompositeFieldContainer[Redemption]
    next_page_token: str
    def __init__(self, redemptions: _Optional[_Iterable[_Union[Redemption, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ResolveRedemptionRequest(_message.Message):
    __slots__ = ("pool_id", "redemption_id", "state", "amount", "provider_ref", "code_spent", "reason", "resolved_by", "evidence", "recorded_amount_is_wrong", "corrects_resolution")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    REDEMPTION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REF_FIELD_NUMBER: _ClassVar[int]
    CODE_SPENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_BY_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AMOUNT_IS_WRONG_FIELD_NUMBER: _ClassVar[int]
    CORRECTS_RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    redemption_id: str
    state: RedemptionState
    amount: _common_pb2.Money
    provider_ref: str
    code_spent: bool
    reason: str
    resolved_by: str
    evidence: str
    recorded_amount_is_wrong: bool
    corrects_resolution: int
    def __init__(self, pool_id: _Optional[str] = ..., redemption_id: _Optional[str] = ..., state: _Optional[_Union[RedemptionState, str]] = ..., amount: _Optional[_Union[_common_pb2.Money, _Mapping]] = ..., provider_ref: _Optional[str] = ..., code_spent: bool = ..., reason: _Optional[str] = ..., resolved_by: _Optional[str] = ..., evidence: _Optional[str] = ..., recorded_amount_is_wrong: bool = ..., corrects_resolution: _Optional[int] = ...) -> None: ...

class ResolveRedemptionResponse(_message.Message):
    __slots__ = ("redemption",)
    REDEMPTION_FIELD_NUMBER: _ClassVar[int]
    redemption: Redemption
    def __init__(self, redemption: _Optional[_Union[Redemption, _Mapping]] = ...) -> None: ...

class ReverseRedemptionRequest(_message.Message):
    __slots__ = ("pool_id", "redemption_id", "reason", "reversed_by", "evidence", "outcome")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    REDEMPTION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVERSED_BY_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    redemption_id: str
    reason: str
    reversed_by: str
    evidence: str
    outcome: ReversalOutcome
    def __init__(self, pool_id: _Optional[str] = ..., redemption_id: _Optional[str] = ..., reason: _Optional[str] = ..., reversed_by: _Optional[str] = ..., evidence: _Optional[str] = ..., outcome: _Optional[_Union[ReversalOutcome, str]] = ...) -> None: ...

class ReverseRedemptionResponse(_message.Message):
    __slots__ = ("redemption",)
    REDEMPTION_FIELD_NUMBER: _ClassVar[int]
    redemption: Redemption
    def __init__(self, redemption: _Optional[_Union[Redemption, _Mapping]] = ...) -> None: ...
