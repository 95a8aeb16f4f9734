"""Reads case files, sends their requests by `curl`, and compares the responses with them.

A case file is a conversation. A step is a title behind `###`, the `curl` command as a caller would type it, and the response: its status, its
headers and its body. `{name}` is a variable; `<kind>` stands for a value that cannot be known before, and `<kind:name>` keeps it. The step
`Always` lists the headers that every answer of the file has. No other header may be there, and no member of a body that is not written.
"""

import json
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    # Also `null`, or nothing.
    "any": r".*",
    "int": r"-?\d+",
    "ratelimit": r'("[a-z-]+";r=\d+;t=\d+(, )?)+',
    "text": r".+",
    "id": r"[A-Za-z0-9._~-]{1,128}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z",
    "date": r"\d{4}-\d\d-\d\d",
    "millis": r"1\d{12}",
    "seconds": r"\d+(\.\d{1,9})?s",
    "number": r"-?\d+(\.\d+)?(e-?\d+)?",
}
# The headers of every HTTP response, whatever it is about.
TRANSPORT = {"date", "content-length", "transfer-encoding", "vary"}
PLACEHOLDER = re.compile(r"<(\w+)(?::(\w+))?>")


@dataclass
class Step:
    title: str
    command: str
    status: int
    headers: dict
    body: str


@dataclass
class Answer:
    status: int
    headers: dict
    body: str


def read(path):
    """The headers of every response, and the steps of a case file."""
    always, steps = {}, []
    for block in re.split(r"^### ", Path(path).read_text(), flags=re.MULTILINE)[1:]:
        title, *lines = block.rstrip().split("\n")
        if title == "Always":
            always = headers(lines)
            continue
        command = []
        while lines:
            line = lines.pop(0)
            command.append(line.rstrip("\\"))
            if not line.endswith("\\"):
                break
        status = int(lines.pop(0))
        end = lines.index("") if "" in lines else len(lines)
        steps.append(Step(title, "\n".join(command), status, headers(lines[:end]), "\n".join(lines[end + 1 :])))
    return always, steps


def headers(lines):
    pairs = (line.split(":", 1) for line in lines if line.strip())
    return {name.strip().lower(): value.strip() for name, value in pairs}


def fill(text, variables):
    """`text` with the variables that it names."""
    return re.sub(r"\{(\w+)\}", lambda found: str(variables[found[1]]), text)


def send(command, variables):
    """Runs a `curl` command and reads the last response that it prints."""
    program, *arguments = [fill(word, variables) for word in shlex.split(command)]
    assert program == "curl", command
    printed = subprocess.run(["curl", "--silent", "--show-error", "--include", "--max-time", "30", *arguments], capture_output=True, check=True)
    head, _, body = printed.stdout.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return Answer(int(status.split()[1]), headers(lines), body)


class Differs(AssertionError):
    pass


def match(due, found, where, variables):
    """Holds a value to what it must be, and keeps what the placeholders in it stand for."""
    if isinstance(due, dict) and isinstance(found, dict):
        if set(due) != set(found):
            raise Differs(f"{where}: has {sorted(found)}, not {sorted(due)}")
        for name, value in due.items():
            match(value, found[name], f"{where}.{name}", variables)
    elif isinstance(due, list) and isinstance(found, list):
        if len(due) != len(found):
            raise Differs(f"{where}: has {len(found)} elements, not {len(due)}: {found}")
        for index, value in enumerate(due):
            match(value, found[index], f"{where}[{index}]", variables)
    elif isinstance(due, str):
        text(due, found, where, variables)
    elif due != found or type(due) is not type(found):
        raise Differs(f"{where}: is {found!r}, not {due!r}")


def text(due, found, where, variables):
    """The same for text, of which placeholders may be a part. One that is all of it may stand for a number."""
    due = fill(due, variables)
    whole = PLACEHOLDER.fullmatch(due)
    if whole and whole[1] == "any":
        return
    is_number = bool(whole) and whole[1] in ("int", "millis", "number") and not where.startswith("header")
    if isinstance(found, bool) or is_number != isinstance(found, (int, float)):
        raise Differs(f"{where}: is {found!r}, not {due!r}")
    names, pattern, end = [], "", 0
    for placeholder in PLACEHOLDER.finditer(due):
        pattern += re.escape(due[end : placeholder.start()]) + f"({KINDS[placeholder[1]].replace('(', '(?:')})"
        names.append(placeholder[2])
        end = placeholder.end()
    kept = re.fullmatch(pattern + re.escape(due[end:]), str(found), flags=re.DOTALL)
    if not kept:
        raise Differs(f"{where}: is {found!r}, not {due!r}")
    variables.update({name: value for name, value in zip(names, kept.groups()) if name})


def check(step, always, answer, variables):
    """Compares a response with its step."""
    if answer.status != step.status:
        raise Differs(f"status: is {answer.status}, not {step.status}: {answer.body}")
    due = {name: value for name, value in {**always, **step.headers}.items() if value != "-"}
    found = {name: value for name, value in answer.headers.items() if name not in TRANSPORT}
    if set(due) != set(found):
        raise Differs(f"headers: {sorted(found)}, not {sorted(due)}")
    for name, value in due.items():
        text(value, found[name], f"header {name}", variables)
    if not step.body:
        if answer.body:
            raise Differs(f"body: there is one: {answer.body}")
    elif step.body.startswith(("{", "[")):
        bodies = [json.loads(line) for line in step.body.split("\n")] if "\n{" in step.body else [json.loads(step.body)]
        lines = answer.body.rstrip("\n").split("\n") if len(bodies) > 1 else [answer.body]
        match(bodies, [json.loads(line) for line in lines], "body", variables)
    else:
        # Lines of a table end with CR and LF, and so does the last.
        text(step.body, answer.body.replace("\r\n", "\n").rstrip("\n"), "body", variables)


def replay(path, variables):
    """Plays a case file to its end and fails with all that differed. A step whose title ends with `eventually` is repeated until it passes."""
    always, steps = read(path)
    differences = []
    for step in steps:
        patience = 200 if step.title.endswith("eventually") else 1
        while patience:
            patience -= 1
            try:
                check(step, always, send(step.command, variables), variables)
                break
            except (Differs, KeyError) as difference:
                if not patience:
                    differences.append(f"{Path(path).name}: {step.title}: {difference}")
                time.sleep(0.05)
    assert not differences, "\n".join(differences)
    return len(steps)
