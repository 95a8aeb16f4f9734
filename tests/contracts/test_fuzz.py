"""Requests of all kinds, made from the published document, good and bad, alone and one after another.

`OFFBOARD_FUZZ_EXAMPLES` says how many of each kind to try, in an order that is new each time; without it they are few and always the same.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def send(service, key, method, path, body):
    arguments = ["--silent", "--fail-with-body", "-X", method, "-H", f"Authorization: Bearer {key}", "--json", json.dumps(body)]
    subprocess.run(["curl", *arguments, service.url + path], check=True, capture_output=True)


def test_no_request_finds_the_service_other_than_it_is_published(service, tmp_path):
    key = service.key("--email", "owner@example.com")
    # What the examples of the document are about.
    send(service, key, "POST", "/v1/portfolios", {"portfolio_id": "pf_S4dGqL2c", "name": "Studio Fund I"})
    dependents = [{"kind": "assessment", "id": "as_1"}]
    entity = {"entity_id": "ent_Nq3KcAbc", "type": "configuration/entityTypes/HCP", "attributes": {"LastName": "Indira"}}
    send(service, key, "POST", "/v1/entities", {**entity, "dependents": dependents, "portfolio_id": "pf_S4dGqL2c"})

    examples = os.environ.get("OFFBOARD_FUZZ_EXAMPLES")
    amount = ["--max-examples", examples] if examples else ["--max-examples", "3", "--generation-deterministic"]
    report = tmp_path / "report.json"
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            *("--config-file", HERE / "schemathesis.toml"),
            *("run", f"{service.url}/openapi.json", "--header", f"Authorization: Bearer {key}"),
            *("--report", "json", "--report-json-path", report, "--no-color"),
            *amount,
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Stateful" in ran.stdout and " generated" in ran.stdout
    failures = [line for line in service.log if '"level":"ERROR"' in line]
    assert failures == []
