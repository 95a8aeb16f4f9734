"""Starts the real binary on a database of its own in the cluster at `OFFBOARD_TEST_DATABASE_URL`."""

import json
import os
import shutil
import subprocess
import threading
import uuid
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "offboard"
SCOPES = [
    "entities:read",
    "entities:write",
    "entities:offboard",
    "entities:delete",
    "entities:delete_hard",
    "events:read",
    "portfolios:read",
    "portfolios:write",
    "admin",
]


def environment():
    """This process's environment, without what it says to the binary."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OFFBOARD_", "OTEL_", "RUST_LOG"))}


def psql(url, statement):
    program = shutil.which("psql") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/psql")))
    subprocess.run([program, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command", statement, url], check=True)


class Service:
    """A running `offboard serve`, with more arguments and variables than the usual ones."""

    def __init__(self, database, *more, **variables):
        self.database = database
        arguments = ["serve", "--database-url", database, "--migrate", "--log-format", "json", "--rate-limit", "1000000"]
        for listener in ("grpc", "http", "admin"):
            arguments += [f"--{listener}-addr", "127.0.0.1:0"]
        arguments += more
        self.log = []
        ready = threading.Event()
        self.process = subprocess.Popen([BINARY, *arguments], env={**environment(), **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

        def read():
            for line in self.process.stdout:
                self.log.append(line)
                fields = json.loads(line) if line.startswith("{") else {}
                fields = fields.get("fields", fields)
                if fields.get("message") == "ready":
                    self.grpc, self.http, self.admin = fields["grpc_addr"], fields["http_addr"], fields["admin_addr"]
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(60) or not hasattr(self, "http"):
            self.stop()
            raise AssertionError("the service did not get ready:\n" + "".join(self.log))
        self.url = f"http://{self.http}"

    def key(self, *more, org="acme", mode="test", scopes=SCOPES):
        """The secret of a new key."""
        arguments = ["key", "create", "--database-url", self.database, "--org", org, "--mode", mode, "--scope", ",".join(scopes), "--json", *more]
        created = subprocess.run([BINARY, *arguments], env=environment(), capture_output=True, text=True, check=True)
        return json.loads(created.stdout)["secret"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


@contextmanager
def running(*more, **variables):
    """A service on an empty database, which both go at the end."""
    cluster = urlsplit(os.environ["OFFBOARD_TEST_DATABASE_URL"])
    name = f"contracts_{uuid.uuid4().hex}"
    psql(urlunsplit(cluster), f"CREATE DATABASE {name}")
    service = None
    try:
        service = Service(urlunsplit(cluster._replace(path=f"/{name}")), *more, **variables)
        yield service
    finally:
        if service:
            service.stop()
        psql(urlunsplit(cluster), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def service():
    """A service on an empty database."""
    with running() as service:
        yield service


@pytest.fixture(scope="module")
def document(service):
    """The published document, as the service gives it."""
    answer = subprocess.run(["curl", "--silent", "--fail", f"{service.url}/openapi.json"], capture_output=True, check=True)
    return json.loads(answer.stdout)
