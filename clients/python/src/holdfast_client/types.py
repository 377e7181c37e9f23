"""The messages of the contract, as calls take and answer them. int64 is int, and enums are ints."""

from ._proto.holdfast.v1.access_pb2 import *  # noqa: F403
from ._proto.holdfast.v1.account_pb2 import *  # noqa: F403
from ._proto.holdfast.v1.common_pb2 import *  # noqa: F403
from ._proto.holdfast.v1.pool_pb2 import *  # noqa: F403
from ._proto.holdfast.v1.provider_pb2 import *  # noqa: F403
from ._proto.holdfast.v1.redemption_pb2 import *  # noqa: F403
