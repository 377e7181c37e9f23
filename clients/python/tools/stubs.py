"""Makes the generated files of the package: stubs of the contract, and the methods without asyncio.

usage: stubs.py DIRECTORY_OF_THE_PACKAGE
"""

import glob
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..", "src", "holdfast_client")
PROTOS = os.path.join(HERE, "..", "..", "..", "proto")

# What the methods are called without asyncio, in this order.
WITHOUT_ASYNCIO = [
    (r"AsyncIterator", "Iterator"),
    (r"AsyncIterable\[(\w+)\] \| Iterable\[\1\]", r"Iterable[\1]"),
    (r"AsyncStub", "Stub"),
    (r"AsyncMethods", "Methods"),
    (r"\basync def\b", "def"),
    (r"\basync for\b", "for"),
    (r"\bawait ", ""),
]


def stubs(package):
    target = os.path.join(package, "_proto")
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    files = sorted(glob.glob(os.path.join(PROTOS, "holdfast", "v1", "*.proto")))
    outputs = ["--python_out", "--pyi_out", "--grpc_python_out", "--mypy_grpc_out"]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I", PROTOS]
    subprocess.run([*protoc, *(f"{out}={target}" for out in outputs), *files], check=True)
    for directory in ("", "holdfast", "holdfast/v1"):
        with open(os.path.join(target, directory, "__init__.py"), "w", encoding="utf-8"):
            pass
    for path in glob.glob(os.path.join(target, "holdfast", "v1", "*_pb2*.py*")):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        # The package's own modules: a program may have others of the same names.
        text = re.sub(r"^from holdfast\.v1 ", "from holdfast_client._proto.holdfast.v1 ", text, flags=re.M)
        text = re.sub(r"^import holdfast\.v1", "import holdfast_client._proto.holdfast.v1", text, flags=re.M)
        text = re.sub(r"(?<![\w./'\"_])holdfast\.v1\.(\w+_pb2)", r"holdfast_client._proto.holdfast.v1.\1", text)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def methods(package):
    with open(os.path.join(SOURCE, "_methods_async.py"), encoding="utf-8") as file:
        text = file.read()
    for pattern, words in WITHOUT_ASYNCIO:
        text = re.sub(pattern, words, text)
    text = text.replace('asyncio."""', 'threads."""\n\n# Made of _methods_async.py by make client-stubs.', 1)
    with open(os.path.join(package, "_methods_sync.py"), "w", encoding="utf-8") as file:
        file.write(text)


def main():
    package = sys.argv[1]
    stubs(package)
    methods(package)


if __name__ == "__main__":
    main()
