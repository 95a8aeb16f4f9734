"""Each contract, called by plain `curl` and served by the real binary: `cases/` has the conversations."""

import json
import subprocess
from pathlib import Path

import pytest
from exchange import Differs, check, read, replay, send

CASES = sorted((Path(__file__).parent / "cases").glob("*.http"))


@pytest.fixture(scope="module")
def variables(service):
    return {
        "base": service.url,
        "key": service.key("--email", "owner@example.com"),
        "reader": service.key(scopes=["entities:read", "portfolios:read"]),
        "stranger": service.key(org="other"),
        "live": service.key(mode="live"),
        "elsewhere": service.key("--allow", "192.0.2.0/24"),
    }


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_caller_of_the_contract_gets_what_it_says(case, variables):
    assert replay(case, dict(variables)) > 5


def test_an_answer_that_differs_in_anything_is_noticed(variables):
    always, steps = read(Path(__file__).parent / "cases" / "removal.http")
    step = steps[0]
    answer = send(step.command, variables)
    body = json.loads(answer.body)
    for change in (
        {"status": answer.status + 1},
        {"headers": {**answer.headers, "x-more": "1"}},
        {"headers": {name: value for name, value in answer.headers.items() if name != "content-type"}},
        {"body": json.dumps({**body, "more": 1})},
        {"body": json.dumps({name: value for name, value in body.items() if name != "code"})},
        {"body": json.dumps({**body, "code": "other"})},
    ):
        with pytest.raises(Differs):
            check(step, always, type(answer)(**{**vars(answer), **change}), dict(variables))
    check(step, always, answer, dict(variables))


def test_addresses_of_problems_lead_to_their_explanation(variables):
    failed = send("curl {base}/v1/entities/ent_1 -H 'apikey: wrong'", variables)
    address = json.loads(failed.body)["type"]
    page = send(f"curl {{base}}{address} -H 'Accept: text/html'", variables)
    assert page.status == 200 and page.headers["content-type"].startswith("text/html") and "Invalid credentials" in page.body
    reported = json.loads(send(f"curl {{base}}{address}", variables).body)
    assert (reported["code"], reported["http_status"], reported["grpc_status"]) == ("invalid_credentials", 401, "UNAUTHENTICATED")
    listed = json.loads(send("curl {base}/errors", variables).body)["errors"]
    for error in listed:
        answer = subprocess.run(["curl", "--silent", "--fail", variables["base"] + error["type"]], capture_output=True, check=True)
        assert json.loads(answer.stdout) == error
