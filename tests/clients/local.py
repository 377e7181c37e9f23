"""Checks a build of Holdfast with clients in Python and on the command line.

usage: local.py HOLDFAST BUF [GRPCURL]

Starts a provider and a server of its own, and stops them again, whatever happens.
"""

import signal
import sys
import traceback

from check import Check
from curl import Buf, Grpcurl, Session
from doubt import Provider
from reflected import Server
from stack import Stack
from stopping import Stopping

AMOUNT_MINOR = 1000
CURRENCY = "EUR"
TIMEOUT = 30


def stop(number, _):
    sys.exit(128 + number)


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    holdfast, buf, *others = sys.argv[1:]
    with Stack(holdfast) as stack:
        provider = Provider(stack.provider_url)
        check = Check(Server(stack.address, TIMEOUT, stack.token), AMOUNT_MINOR, CURRENCY, provider)
        check.run()
        versions = ["grpc-v1", "grpc-v1alpha"]
        tools = [Buf(buf, stack.address, version, stack.token) for version in versions]
        tools += [Grpcurl(binary, stack.address, stack.token) for binary in others]
        for tool in tools:
            print(f"a session with {tool.name}")
            check.step(Session(check, tool).run)
        if not others:
            print("SKIPPED: a session with grpcurl, which is not here")
        for step in Stopping(check, stack, provider).steps():
            print(step.__name__)
            check.step(step)
        # The last words of a server that went wrong are worth having.
        if check.mismatches:
            print("".join(stack.server.log().splitlines(keepends=True)[-20:]))
    print(check.summary())
    sys.exit(1 if check.mismatches else 0)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError:
        traceback.print_exc()
        sys.exit(1)
