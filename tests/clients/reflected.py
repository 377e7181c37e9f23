"""A gRPC client that knows nothing but an address: it asks the server what it serves."""

import collections

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status


class Refusal(Exception):
    """An error status, with the details that came along."""

    def __init__(self, code, message, details):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.details = details  # [(type name, message)]

    def detail(self, type_name):
        """The first detail of a type such as google.rpc.ErrorInfo; None when there is none."""
        return next((found for name, found in self.details if name == type_name), None)

    @property
    def reason(self):
        info = self.detail("google.rpc.ErrorInfo")
        return info.reason if info else None

    @property
    def metadata(self):
        """What the ErrorInfo says besides."""
        info = self.detail("google.rpc.ErrorInfo")
        return dict(info.metadata) if info else {}

    @property
    def violations(self):
        """What is wrong with which field."""
        bad = self.detail("google.rpc.BadRequest")
        return {v.field: v.description for v in bad.field_violations} if bad else {}

    def lines(self):
        """All of it, for people."""
        yield str(self)
        for name, detail in self.details:
            text = json_format.MessageToJson(detail, preserving_proto_field_name=True, indent=None)
            yield f"  {name} {text}"


CALL_FIELDS = ["method", "timeout", "metadata", "credentials", "wait_for_ready"]


class Call(collections.namedtuple("Call", CALL_FIELDS), grpc.ClientCallDetails):
    """What a call is made with, as grpc takes it."""


class Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Shows a token with each call."""

    def __init__(self, token):
        self.header = ("authorization", f"Bearer {token}")

    def _shown(self, call):
        metadata = [*(call.metadata or []), self.header]
        return Call(call.method, call.timeout, metadata, call.credentials, call.wait_for_ready)

    def intercept_unary_unary(self, continuation, call, request):
        return continuation(self._shown(call), request)

    def intercept_stream_unary(self, continuation, call, requests):
        return continuation(self._shown(call), requests)

    def intercept_unary_stream(self, continuation, call, request):
        return continuation(self._shown(call), request)

    def intercept_stream_stream(self, continuation, call, requests):
        return continuation(self._shown(call), requests)


class Server:
    """The services behind an address."""

    def __init__(self, address, timeout, token=None):
        self.channel = grpc.insecure_channel(address)
        if token:
            self.channel = grpc.intercept_channel(self.channel, Bearer(token))
        self.timeout = timeout
        self._database = ProtoReflectionDescriptorDatabase(self.channel)
        self._pool = descriptor_pool.DescriptorPool(self._database)

    def services(self):
        """The names of the services that the server says it has."""
        return set(self._database.get_services())

    def call(self, rpc, request):
        """Calls an RPC with one reply.

        `rpc` is a name such as "holdfast.v1.PoolService/GetPool"; `request` is a dict, or a list of
        dicts for a stream. Bytes stand for themselves, whether or not they are a message.
        """
        method = self._method(rpc)
        if method.client_streaming:
            request = iter([self._encode(method, one) for one in request])
            stub = self.channel.stream_unary
        else:
            request = self._encode(method, request)
            stub = self.channel.unary_unary
        try:
            return self._bind(stub, rpc, method)(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._refusal(error) from None

    def converse(self, rpc, requests):
        """Calls an RPC with a stream each way; answers with the list of replies."""
        method = self._method(rpc)
        stub = self._bind(self.channel.stream_stream, rpc, method)
        encoded = iter([self._encode(method, request) for request in requests])
        try:
            return list(stub(encoded, timeout=self.timeout))
        except grpc.RpcError as error:
            raise self._refusal(error) from None

    def methods(self, service):
        """The names of a service's RPCs."""
        return set(self._pool.FindServiceByName(service).methods_by_name)

    def details_of(self, status):
        """The details of a google.rpc.Status, by the types that the server describes."""
        for any_message in status.details:
            name = any_message.type_url.rsplit("/", 1)[-1]
            yield name, self.decode(name, any_message.value)

    def decode(self, name, value):
        """A message, by the type that the server describes."""
        return self._class(self._pool.FindMessageTypeByName(name)).FromString(value)

    def _method(self, rpc):
        service, name = rpc.split("/")
        return self._pool.FindServiceByName(service).methods_by_name[name]

    def _class(self, descriptor):
        return message_factory.GetMessageClass(descriptor)

    def _encode(self, method, request):
        if isinstance(request, bytes):
            return request
        message = self._class(method.input_type)()
        json_format.ParseDict(request, message, descriptor_pool=self._pool)
        return message.SerializeToString()

    def _bind(self, stub, rpc, method):
        return stub(
            f"/{rpc}",
            response_deserializer=self._class(method.output_type).FromString,
        )

    def _refusal(self, error):
        # grpc-status-details-bin, which has to agree with the status itself.
        status = rpc_status.from_call(error)
        details = list(self.details_of(status)) if status else []
        return Refusal(error.code(), error.details(), details)


def name_of(message, field):
    """The name of an enum field's value, such as ACCOUNT_STATUS_LOCKING."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    return enum.values_by_number[getattr(message, field)].name
