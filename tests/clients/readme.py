"""Runs the sessions of README.md as they stand there: TLS, a token, grpcurl and Python. Then those of other pages
with Node, where there are Node and the client's package.

usage: readme.py HOLDFAST [GRPCURL]

What the README runs in terminals of their own goes on beside the rest, and is stopped at the end. Where something
listens on the ports that the README names, it is not run.
"""

import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PORTS = [50051, 50052, 50080]
START_TIMEOUT = 60
LIMIT = 120
# What a person runs in a terminal of its own.
STAYS = ("holdfast simulate-provider", "holdfast serve")


def blocks(section, page="README.md", level="##"):
    """The blocks of code of one section of a page: the README, when none is named."""
    with open(page, encoding="utf-8") as file:
        text = file.read()
    end = rf"(?=^{level} )"
    body = re.search(rf"^{level} {re.escape(section)}\n(.*?){end}", text, re.M | re.S).group(1)
    return re.findall(r"^```\w*\n(.*?)^```$", body, re.M | re.S)


def is_free(port):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def commands(block):
    """The commands of a block. One goes on in the next line after a backslash."""
    return block.replace("\\\n", " ").strip().splitlines()


class Reader:
    """A person who does what the README says, in a directory of their own."""

    def __init__(self, holdfast, grpcurl):
        # Short, because the path of a socket may be 107 bytes at most.
        self.directory = tempfile.mkdtemp(prefix="hf-readme-", dir="/tmp")
        # Postgres may run as another user than this program.
        os.chmod(self.directory, 0o755)
        programs = os.path.join(self.directory, "bin")
        os.mkdir(programs)
        os.symlink(os.path.abspath(holdfast), os.path.join(programs, "holdfast"))
        if grpcurl:
            os.symlink(os.path.abspath(grpcurl), os.path.join(programs, "grpcurl"))
        os.symlink(os.path.abspath("proto"), os.path.join(self.directory, "proto"))
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("HOLDFAST_") or key == "HOLDFAST_POSTGRES_BIN"
        }
        self.environment["PYTHONPATH"] = os.pathsep.join(
            [os.path.abspath("clients/python/src"), *sys.path[1:]]
        )
        self.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        self.going_on = []

    def stop(self):
        for process in reversed(self.going_on):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def begin(self, command, port):
        """Runs what stays, until it listens."""
        process = subprocess.Popen(
            # `exec`: what is stopped is the program, not a shell.
            ["sh", "-c", f"exec {command}"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=open(os.path.join(self.directory, f"{port}.log"), "wb"),
            start_new_session=True,
        )
        self.going_on.append(process)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        with open(os.path.join(self.directory, f"{port}.log"), encoding="utf-8") as log:
            raise RuntimeError(f"{command} does not listen on {port}:\n{log.read()}")

    def run(self, script):
        """Runs commands in one shell. Answers what they print."""
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{script}\nends with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def grpcurl_session(self):
        terminals, prepare, calls = blocks("A session with grpcurl")
        ports = dict(zip(STAYS, [50080, 50051]))
        for command in commands(terminals):
            stays = next((words for words in STAYS if command.startswith(words)), None)
            if stays:
                self.begin(command, ports[stays])
            else:
                self.run(command)
        if not os.path.exists(os.path.join(self.directory, "bin", "grpcurl")):
            print("SKIPPED: the README's session with grpcurl, which is not here")
            self.run(prepare)
            return
        said = self.run(f"{prepare}\n{calls}")
        expect('"status": "ACCOUNT_STATUS_LOCKING"', said)
        expect('"state": "REDEMPTION_STATE_SUCCEEDED"', said)

    def python_session(self):
        install, program = blocks("A session with Python")
        with open(os.path.join(self.directory, "session.py"), "w", encoding="utf-8") as file:
            file.write(program)
        # What is installed is here already.
        lines = [line for line in commands(install) if "pip install" not in line]
        said = self.run("\n".join(lines).replace("venv/bin/python", sys.executable))
        expect("REDEMPTION_STATE_SUCCEEDED 1000", said)

    def node_sessions(self):
        """The tutorial's session with Node, and the one in the README of the client's package."""
        if not shutil.which("npm") or not glob.glob("target/packages/holdfast-client-*.tgz"):
            print("SKIPPED: the sessions with Node: npm is missing, or the client's package")
            return
        packages = os.path.join(self.directory, "target")
        os.mkdir(packages)
        os.symlink(os.path.abspath("target/packages"), os.path.join(packages, "packages"))
        # What the package depends on was fetched when its tests were installed.
        settings = {"prefer_offline": "true", "audit": "false", "fund": "false"}
        self.environment.update({f"npm_config_{name}": value for name, value in settings.items()})
        install, program = blocks("With Node", "docs/tutorial.md", "###")
        said = self.node_program("session.mjs", install, program)
        expect("REDEMPTION_STATE_SUCCEEDED 1000n", said)
        *_, install, program = blocks("Three minutes", "clients/node/README.md")
        connect = "export HOLDFAST_SERVER=https://localhost:50051 HOLDFAST_CA_FILE=tls.pem"
        said = self.node_program(
            "first.mjs", f"{connect} HOLDFAST_TOKEN_FILE=till-7.token\n{install}", program
        )
        expect("REDEMPTION_STATE_SUCCEEDED { amountMinor: 1000n, currencyCode: 'EUR' }", said)

    def node_program(self, name, commands, program):
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(program)
        return self.run(commands)


def expect(words, said):
    if words not in said:
        raise RuntimeError(f"the README's session does not say {words}, but:\n{said}")


def main():
    taken = [port for port in PORTS if not is_free(port)]
    if taken:
        print(f"SKIPPED: the README's sessions, because something listens on {taken}")
        return
    reader = Reader(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    try:
        reader.grpcurl_session()
        reader.python_session()
        reader.node_sessions()
    finally:
        reader.stop()
    print("the sessions of the README and of Node's pages ran as they stand there")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))
