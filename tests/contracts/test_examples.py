"""The examples of README and docs are replayed: what a reader sees there is what they get."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest
from conftest import BINARY, ROOT, environment, psql
from examples import Block, blocks, same, same_json, show

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
# What is not run, by the beginning of the block, and why.
NOT_RUN = {
    "script/demo ": "builds; what it starts is `offboard demo`, which is run below",
    "helm install ": "needs a cluster; the chart has tests of its own",
    "nats stream add ": "is a command of another project",
    "offboard serve --auth-file ": "needs an issuer; test_tokens.py has issuers of its own",
    "offboard token check ": "needs a token of that issuer; test_tokens.py checks its own",
}


def on_page(name, language=None):
    return [block for block in BLOCKS if block.page.name == name and language in (None, block.language)]


@pytest.fixture(scope="module")
def caller(service):
    """What the commands of the pages are run with: the address of the service in place of the usual one, and a key that may do everything."""
    key = service.key("--email", "owner@example.com")
    return Caller(service, key)


class Caller:
    def __init__(self, service, key):
        self.service, self.key = service, key
        self.variables = {"KEY": key, "URL": service.url, "TASK": ""}

    def placed(self, command):
        """A command with this service for the one that the page speaks of."""
        command = command.replace("http://127.0.0.1:8080", self.service.url).replace("127.0.0.1:50051", self.service.grpc)
        command = command.replace("http://localhost:50051", f"http://{self.service.grpc}")
        return re.sub(r"sk_(test|live)_[\w…]*(\[\.\.\.\]|\.\.\.|…)", self.key, command)

    def run(self, command, folder, seconds=60, **more):
        # The database is that of the service, not one of its own in the folder; where nothing is said to listen on, anything is.
        server = {"OFFBOARD_SERVER": f"http://{self.service.grpc}", "OFFBOARD_DATABASE_URL": self.service.database}
        path = f"{BINARY.parent}{os.pathsep}{os.environ['PATH']}"
        variables = {**environment(), **server, **self.variables, "PATH": path, **more}
        command = ["timeout", str(seconds), "bash", "-euo", "pipefail", "-c", self.placed(command)]
        return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder, stdin=subprocess.DEVNULL, check=False)

    def call(self, method, path, body=None):
        arguments = ["curl", "-sS", "--fail-with-body", "-X", method, "-H", f"Authorization: Bearer {self.key}", self.service.url + path]
        if body is not None:
            arguments += ["--json", json.dumps(body)]
        answer = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, f"{method} {path}: {answer.stdout}{answer.stderr}"
        return json.loads(answer.stdout) if answer.stdout else None

    def given(self, entity_id, **more):
        """Makes an entity, unless an example has brought it."""
        path = f"{self.service.url}/v1/entities/{entity_id}"
        found = subprocess.run(["curl", "-sS", "-f", "-H", f"Authorization: Bearer {self.key}", path], capture_output=True, check=False)
        if found.returncode != 0:
            self.call("POST", "/v1/entities", {"entity_id": entity_id, "type": "Company", **more})

    def ended(self, task):
        for _ in range(1500):
            found = self.call("GET", f"/api/acme/tasks/{task}")
            if found["endTime"] is not None:
                return found
            time.sleep(0.02)
        raise AssertionError(f"the task goes on: {found}")


def check(block, printed, due):
    assert same(due, printed), f"{block} {show(due, printed)}"


def test_no_example_is_left_out():
    """Whoever adds an example says how it is replayed."""
    replayed = {"README.md", "bulk-delete-start.md", "consistency.md", "events.md", "publishing.md", "removal-policy.md", "removal-preview.md"}
    # By `test_tokens.py`.
    replayed_there = {("tokens.md", "toml"), ("tokens.md", "text"), ("tokens.md", "python")}
    for block in BLOCKS:
        if (block.page.name, block.language) in replayed_there:
            continue
        assert block.page.name in replayed or any(block.text.startswith(beginning) for beginning in NOT_RUN), f"{block} is not replayed"


def test_an_example_that_is_not_so_is_noticed():
    due = '{"id":"01a20147-a07e-75c5-9cb4-d0d0a4464141","status":"pending","created_at":"2026-11-22T03:23:21.090911Z",...}'
    so = '{"id":"01a20147-a07e-75c5-9cb4-d0d0a4464142","status":"pending","created_at":"2026-11-22T03:23:22Z","more":1}'
    assert same(due, so)
    for other in (so.replace("pending", "running"), so.replace("Z", "+00:00"), so.replace('"id"', '"entity"'), so[:-1], so + "x"):
        assert not same(due, other), other
    assert not same('{"a":1}', '{"a":1,"b":2}'), "a member that is not named"
    assert same_json({"a": "0190…", "b": [1]}, {"a": "0190a1b2", "b": [1]})
    for other in ({"a": "0190", "b": [1], "c": 1}, {"a": "0190"}, {"a": "0190", "b": [2]}, {"a": 1, "b": [1]}):
        assert not same_json({"a": "0190…", "b": [1]}, other)
    block = Block(ROOT / "x.md", 1, "console", "$ one\nprinted\n$ two\n")
    assert block.steps() == [("one", "printed"), ("two", "")]


@pytest.fixture(scope="module")
def short_folder():
    """A folder that whoever runs the Postgres of a demo may enter."""
    folder = subprocess.run(["mktemp", "-d", "/tmp/offboard-examples.XXXXXX"], capture_output=True, text=True, check=True).stdout.strip()
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_tour_of_the_readme_is_what_the_demo_prints(short_folder):
    printed = subprocess.run([BINARY, "demo"], capture_output=True, text=True, env={**environment(), "TMPDIR": short_folder}, check=True).stdout
    (block,) = on_page("README.md", "text")
    # It begins behind where the demo listens.
    printed = printed[printed.index("\n1. ") :]
    check(block, printed, block.text)


@contextmanager
def invited(folder):
    """A demo that stays up: where it listens, and its key."""
    variables = {**environment(), "TMPDIR": folder, "OFFBOARD_GRPC_ADDR": "127.0.0.1:0"}
    process = subprocess.Popen([BINARY, "demo", "--serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables)
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            # The last of the five lines to try.
            if "entities/_delete" in line:
                break
        yield "".join(lines)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def test_what_the_readme_says_to_paste_prints_what_it_shows(short_folder):
    with invited(short_folder) as reported:
        find = lambda what: re.search(what, reported)[1]  # noqa: E731
        key = find(r"Bearer (sk_test_[\w-]+)")
        url, grpc = find(r"(http://127\.0\.0\.1:\d+)/v1/portfolios"), find(r"plaintext (127\.0\.0\.1:\d+) describe")
        shown = [step for block in on_page("README.md", "console") if not is_import(block) for step in block.steps()]
        assert len(shown) == 3, "detach, offboard, and the same line a second later"
        command = None
        for again, due in shown:
            command = again or command
            placed = re.sub(r"sk_test_\w*\[\.\.\.\]", key, command).replace("http://127.0.0.1:8080", url).replace("127.0.0.1:50051", grpc)
            for _ in range(100):
                done = subprocess.run(["bash", "-c", placed], capture_output=True, text=True, check=False)
                # A second later it may still be on its way on a busy machine.
                if same(due, done.stdout) or again:
                    break
                time.sleep(0.1)
            assert same(due, done.stdout), f"README.md {command}\n{show(due, done.stdout)}{done.stderr}"


def is_import(block):
    return "offboard import -" in block.text


def test_a_service_of_ones_own_takes_what_the_readme_says(caller, tmp_path):
    blocks_of = [block for block in on_page("README.md", "sh") if not any(block.text.startswith(beginning) for beginning in NOT_RUN)]
    (block,) = blocks_of
    path, serve, create, load, decide, look = [re.split(r"\s+# ", line)[0].strip() for line in block.text.strip().splitlines()]
    assert path.startswith("export PATH="), "the tests have the binary on theirs"
    assert serve == "offboard serve &", "what comes behind it calls the service that the tests have started"
    made = caller.run(create, ROOT)
    assert made.returncode == 0, made.stderr
    secret = json.loads(made.stdout)["secret"]
    loaded = caller.run(load.replace("sk_test_...", secret), ROOT)
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    try:
        for command in (decide, look):
            done = caller.run(command.replace("sk_test_...", secret), ROOT)
            assert done.returncode == 0, command + done.stdout + done.stderr
    finally:
        caller.call("PATCH", "/v1/removal-policy", {"default_grace_period": None})
    (line,) = filter(is_import, on_page("README.md", "console"))
    for command, due in line.steps():
        check(line, caller.run(command.replace("sk_test_...", secret), tmp_path).stdout, due)


def test_the_check_of_consistency_answers_what_its_page_shows(caller, tmp_path):
    caller.call("POST", "/v1/portfolios", {"portfolio_id": "pf_1", "name": "Fund I"})
    for n in range(5):
        caller.given(f"member-{n}", portfolio_id="pf_1")
    psql(caller.service.database, "UPDATE portfolio SET entity_count = 7 WHERE id = 'pf_1'")
    (block,) = on_page("consistency.md")
    (start, started), (look, found) = block.steps()
    printed = caller.run(start, tmp_path).stdout
    check(block, printed, started)
    task = json.loads(printed)["id"]
    caller.ended(task)
    check(block, caller.run(look.replace("0190…", task), tmp_path).stdout, found)
    psql(caller.service.database, "UPDATE portfolio SET entity_count = 5 WHERE id = 'pf_1'")


def test_the_removal_policy_is_what_its_page_shows(caller, tmp_path):
    (block,) = on_page("removal-policy.md")
    try:
        for command, due in block.steps():
            check(block, caller.run(command, tmp_path).stdout, due)
    finally:
        caller.call("PATCH", "/v1/removal-policy", {"default_grace_period": None})


def test_the_preview_of_a_removal_is_what_its_page_shows(caller, tmp_path):
    caller.call("POST", "/v1/portfolios", {"portfolio_id": "pf_S4dGqL2c", "name": "Studio Fund I"})
    dependents = [{"kind": "assessment"}, {"kind": "assessment"}, {"kind": "task"}]
    caller.given("ent_Nq3KcAbc", portfolio_id="pf_S4dGqL2c", dependents=dependents)
    (block,) = on_page("removal-preview.md")
    for command, due in block.steps():
        check(block, caller.run(command, tmp_path).stdout, due)


def test_events_are_what_their_page_shows(caller, tmp_path):
    caller.call("POST", "/v1/portfolios", {"portfolio_id": "fund-i", "name": "Fund I"})
    caller.given("pypi.anyio")
    caller.call("POST", "/v1/portfolios/fund-i/entities", {"entity_id": "pypi.anyio"})
    event, lost = (json.loads(block.text) for block in on_page("events.md", "json"))
    attached = caller.call("GET", "/v1/events?subject=fund-i&types=portfolio.entity_attached")["events"]
    assert same_json(event, attached[0]), (event, attached[0])

    histories, listed, streamed = on_page("events.md", "console")
    for command, due in listed.steps():
        check(listed, caller.run(command, tmp_path).stdout, due)
    for command, due in streamed.steps():
        # It has no end of its own: what happens meanwhile is sent, and then the reader hangs up.
        assert command.startswith("curl "), command
        watching = subprocess.Popen(
            ["timeout", "5", "bash", "-c", caller.placed(command)], stdout=subprocess.PIPE, text=True, env={**environment(), **caller.variables}
        )
        time.sleep(1)
        caller.call("POST", "/v1/portfolios", {"portfolio_id": "fund-ii", "name": "Fund II"})
        check(streamed, watching.communicate()[0], due)

    for command, due in histories.steps():
        check(histories, caller.run(command, tmp_path).stdout, due)
    # A database that lacks what the cursor stands behind, as after a restore.
    caller.call("POST", "/v1/portfolios", {"portfolio_id": "lost", "name": "Lost"})
    token, ended = "", False
    while not ended:
        page = caller.call("GET", f"/v1/events?page_size=1000&page_token={token}")
        token, ended = page["next_page_token"], page["caught_up"]
    psql(
        caller.service.database,
        """DELETE FROM event WHERE subjects = ARRAY['lost'];
           DELETE FROM event_position WHERE position = (SELECT position FROM event_sequencer);
           UPDATE event_sequencer SET position = position - 1""",
    )
    address = f"{caller.service.url}/v1/events?page_size=1000&page_token={token}"
    refused = subprocess.run(["curl", "-sS", "-H", f"Authorization: Bearer {caller.key}", address], capture_output=True, text=True, check=True)
    problem = json.loads(refused.stdout)
    assert same_json(lost, {name: problem.get(name) for name in lost}), (lost, problem)


def test_a_bulk_delete_is_started_as_its_page_says(caller, tmp_path):
    for name in ("Indira", "Indigo", "Ines"):
        entity = {"entity_id": name.lower(), "type": "HCP", "attributes": {"LastName": name}}
        caller.call("POST", "/v1/entities", {**entity, "state": "onboarding" if name == "Indigo" else "active"})
    look, demands, pages, policy, line = on_page("bulk-delete-start.md", "sh")
    preview = caller.run(look.text, tmp_path)
    assert preview.returncode == 0, preview.stderr
    reported = json.loads(preview.stdout)["preview"]
    # The members that the table behind it explains.
    page = look.page.read_text().split("with a `preview`:")[1].split("\n\n")[1]
    explained = set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in page.splitlines()[2:])))
    assert set(reported) == explained and reported["matchedCount"] == 2

    demanded = json.loads(caller.run(demands.text, tmp_path).stdout)
    assert (demanded["hard_delete"]["max_objects"], demanded["min_grace_period"]) == (10_000, "3600s"), demanded
    caller.call("PATCH", "/v1/removal-policy", {"hard_delete": None, "min_grace_period": None, "default_grace_period": None})

    allowed = caller.run(policy.text, tmp_path)
    assert json.loads(allowed.stdout)["mail_domains"] == ["example.com"], allowed

    where, look_again, start = line.text.strip().splitlines()
    assert where.startswith("export OFFBOARD_SERVER="), where
    seen = caller.run(f"{where}\n{look_again}", tmp_path)
    assert seen.returncode == 0 and "2 entities" in seen.stdout + seen.stderr, seen
    answered = typed(caller, f"{where}\n{start}", tmp_path, "y\n")
    assert "onboarding" in answered or "1 " in answered, answered

    tasks = caller.call("GET", "/api/acme/tasks/history?max=1")
    caller.variables["TASK"] = tasks[0]["id"]
    table = caller.run(pages.text, tmp_path)
    assert table.returncode == 0, table.stderr
    lines = table.stdout.strip().splitlines()
    assert lines[0] == "entityId,reason,message,time" and [line.split(",")[0] for line in lines[1:]] == ["indigo"], table.stdout


def typed(caller, command, folder, answer):
    """What a command prints to somebody who is asked by it, and answers."""
    variables = {**environment(), "OFFBOARD_SERVER": f"http://{caller.service.grpc}", "OFFBOARD_KEY": caller.key}
    variables["PATH"] = f"{BINARY.parent}{os.pathsep}{os.environ['PATH']}"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "-c", caller.placed(command)], variables)
    printed, until, said = b"", time.monotonic() + 60, False
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            read = os.read(terminal, 65536)
        except OSError:
            break
        if not read:
            break
        printed += read
        if not said and printed.rstrip().endswith((b"]", b"?", b":")):
            os.write(terminal, answer.encode())
            said = True
    os.close(terminal)
    os.waitpid(child, 0)
    return printed.decode()


def test_what_is_published_is_what_its_page_shows(caller, tmp_path):
    (message,) = on_page("publishing.md", "json")
    live = Caller(caller.service, caller.service.key(mode="live"))
    for entity in ("1AlLNjPS", "8C06vMB"):
        live.call("POST", "/v1/entities", {"entity_id": entity, "type": "HCP"})
    task = live.call("POST", "/api/acme/entities/_deleteByUris?mode=hard", ["1AlLNjPS", "8C06vMB"])
    live.ended(task["id"])
    (event,) = live.call("GET", "/v1/events?subject=1AlLNjPS&types=entity.deleted")["events"]
    # As it is published: without what only callers of this service can use.
    del event["cursor"]
    assert same_json(json.loads(message.text), event), (message.text, event)

    (tables,) = on_page("publishing.md", "sql")
    psql(caller.service.database, tables.text)
    flags = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    serve, _ = on_page("publishing.md", "sh")
    for flag in re.findall(r"--[a-z-]+", serve.text):
        assert flag in flags, flag


def test_addresses_of_the_pages_are_the_usual_ones():
    """What is put in their place above is what a service without settings has."""
    reported = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, env=environment(), check=True).stdout
    for address in ("127.0.0.1:50051", "127.0.0.1:8080"):
        assert address in reported
