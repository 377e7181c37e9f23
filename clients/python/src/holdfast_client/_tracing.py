"""A span for each call, and its context in the metadata, where opentelemetry-api is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import Message

from ._proto.holdfast.v1 import access_pb2, account_pb2, pool_pb2, provider_pb2, redemption_pb2

try:
    from opentelemetry import propagate, trace
except ImportError:  # It is an extra.
    _tracer: Any = None
else:
    _tracer = trace.get_tracer("holdfast_client")

# The service and the name of the RPC that takes a message.
_RPCS: dict[str, tuple[str, str]] = {
    method.input_type.full_name: (service.full_name, method.name)
    for file in (access_pb2, account_pb2, pool_pb2, provider_pb2, redemption_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@contextmanager
def call_span(kind: type[Message], metadata: list[tuple[str, str]]) -> Iterator[None]:
    """A client's span for the call that takes messages of a type; the metadata gets its context."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(**_span(kind)):
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        metadata.extend(carrier.items())
        yield


@contextmanager
def stream_span(kind: type[Message], metadata: list[tuple[str, str]]) -> Iterator[None]:
    """As `call_span`, for a stream. It is not the current span: between its messages the caller's own code runs."""
    if _tracer is None:
        yield
        return
    span = _tracer.start_span(**_span(kind))
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    metadata.extend(carrier.items())
    try:
        yield
    except Exception as error:
        span.record_exception(error)
        span.set_status(trace.Status(trace.StatusCode.ERROR))
        raise
    finally:
        span.end()


def _span(kind: type[Message]) -> dict[str, Any]:
    """How the span of a call is begun."""
    service, method = _RPCS[kind.DESCRIPTOR.full_name]
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return {"name": f"{service}/{method}", "kind": trace.SpanKind.CLIENT, "attributes": attributes}
