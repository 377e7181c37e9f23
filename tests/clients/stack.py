"""A provider and a server of this program's own, for as long as a `with` block lasts.

They listen on ports that the system chose, keep what they keep in a directory that is removed at
the end, and stop when this program does, however it ends: their standard input is a pipe of its.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

START_TIMEOUT = 60
STOP_TIMEOUT = 20
# How long the server goes on when it was told to stop.
DRAIN_DELAY = 2


def children_of(process):
    """The ids of the processes that a process has started."""
    if os.path.isdir("/proc/self"):
        parents = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    # After the command's name, in brackets: the state, and the parent.
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except OSError:  # It has ended.
                continue
    else:
        listing = ["ps", "-A", "-o", "pid=,ppid="]
        listed = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
        parents = dict(tuple(map(int, line.split())) for line in listed.splitlines())
    return [child for child, parent in parents.items() if parent == process]


class Program:
    """A command of holdfast's that listens on an address."""

    def __init__(self, binary, directory, name, arguments):
        self.log_path = os.path.join(directory, f"{name}.log")
        self.name = name
        # The settings of the caller are not passed to these programs, except the folder of Postgres.
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("HOLDFAST_") or key == "HOLDFAST_POSTGRES_BIN"
        }
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [binary, "--while-stdin-is-open", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                # Ctrl-C is for this program, which then stops that one.
                start_new_session=True,
            )

    def logged(self, field):
        """The field of the first line that has it, which is waited for."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            for line in self.log().splitlines():
                try:
                    return json.loads(line)[field]
                except (KeyError, TypeError, ValueError):
                    continue
            if ended:
                break
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not start; it says:\n{self.log()}")

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def end_input(self):
        """What happens when this program ends without a word."""
        self.process.stdin.close()

    def ask_to_stop(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Stops it, and answers with its exit code."""
        if self.process.poll() is None:
            self.ask_to_stop()
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.end_input()


class Stack:
    """The programs that a check needs."""

    def __init__(self, binary):
        self.binary = binary
        self.programs = []

    def __enter__(self):
        # Short, because the path of a socket may be 107 bytes at most.
        self.directory = tempfile.mkdtemp(prefix="hf-clients-", dir="/tmp")
        # Postgres may run as another user than this program.
        os.chmod(self.directory, 0o755)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        ledger = os.path.join(self.directory, "ledger.jsonl")
        flags = ["--listen", "127.0.0.1:0", "--ledger", ledger]
        provider = self._run("provider", ["simulate-provider", *flags])
        self.provider_url = f"http://{provider.logged('address')}"
        self.start_server()

    def start_server(self):
        """Starts a server; on what the one before left, if there was one."""
        self.server = self._run("server", ["serve", *self._server_flags()])
        self.address = self.server.logged("addr")
        with open(os.path.join(self.directory, "data", "admin.token"), encoding="utf-8") as file:
            self.token = file.read().strip()

    def _server_flags(self):
        settings = {
            "listen": "127.0.0.1:0",
            "admin-listen": "127.0.0.1:0",
            "data-dir": os.path.join(self.directory, "data"),
            "provider-url": self.provider_url,
            "provider-timeout": "8s",
            "provider-send-window": "15s",
            "drain-delay": f"{DRAIN_DELAY}s",
            "shutdown-timeout": "10s",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _run(self, name, arguments):
        program = Program(self.binary, self.directory, name, arguments)
        self.programs.append(program)
        return program

    def postgres_processes(self):
        """The ids of the private Postgres's processes, the first of them its own."""
        for root, _, files in os.walk(os.path.join(self.directory, "data")):
            if "postmaster.pid" in files:
                with open(os.path.join(root, "postmaster.pid"), encoding="utf-8") as file:
                    postmaster = int(file.readline())
                return [postmaster, *children_of(postmaster)]
        raise RuntimeError("the private Postgres was not found")

    def __exit__(self, *_):
        for program in reversed(self.programs):
            program.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
