"""A client that is generated from the strict document of the offboarding contract (`offboarding.openapi.json`): it refuses every member, media type
and status that the document does not have, as those that are generated for Java and .NET do. It cancels, and reads every refusal.
"""

import copy
import json
import subprocess
import uuid
from pathlib import Path

import aiopenapi3
import httpx2
import pytest
from aiopenapi3.errors import ContentTypeError, HTTPStatusError, ResponseSchemaError

DOCUMENT = json.loads((Path(__file__).parent / "offboarding.openapi.json").read_text())
STRICT = (ContentTypeError, HTTPStatusError, ResponseSchemaError)
COMPONENT = "0190a1b2-0000-7000-8000-000000000001"


def generated(base, key):
    """The client. It reads what it gets by the models of the document, and raises what it cannot read."""
    document = {**copy.deepcopy(DOCUMENT), "servers": [{"url": base}]}
    if key is None:
        # It would send no request without a key otherwise.
        document["paths"]["/v1/offboarding/entities/{offboardingRequestId}/cancel"]["patch"].pop("security")
    client = aiopenapi3.OpenAPI(f"{base}/contract.json", document, session_factory=httpx2.Client)
    client.raise_on_http_status = []
    if key is not None:
        client.authenticate(bearer=key)
    return client


def cancel(base, key, request, headers=()):
    call = generated(base, key)._.cancel
    reported, read, answer = call.request(parameters={"offboardingRequestId": str(request), "Matter-Version": "1", **dict(headers)})
    return answer, read


def post(service, key, path, body):
    arguments = ["--silent", "--fail-with-body", "-H", f"Authorization: Bearer {key}", "--json", json.dumps(body)]
    answer = subprocess.run(["curl", *arguments, service.url + path], check=True, capture_output=True)
    return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def key(service):
    return service.key()


@pytest.fixture
def request_id(service, key):
    """A request that can be canceled, for an entity with a UUID for its id."""
    entity = str(uuid.uuid4())
    post(service, key, "/v1/entities", {"entity_id": entity, "type": "Company", "components": [COMPONENT]})
    return post(service, key, "/v1/offboarding/entities", {"entityId": entity, "gracePeriod": "3600s"})["id"]


def test_a_cancel_is_read(service, key, request_id):
    answer, read = cancel(service.url, key, request_id)
    assert answer.status_code == 200, answer.text
    assert (str(read.id), read.status, [str(part) for part in read.data.components]) == (request_id, "Canceled", [COMPONENT])
    assert sorted(answer.json()) == ["data", "id", "principalId", "status"] and sorted(answer.json()["data"]) == ["components", "id"]


def test_an_entity_without_components_is_read(service, key):
    entity = str(uuid.uuid4())
    post(service, key, "/v1/entities", {"entity_id": entity, "type": "Company"})
    request = post(service, key, "/v1/offboarding/entities", {"entityId": entity, "gracePeriod": "3600s"})["id"]
    answer, read = cancel(service.url, key, request)
    assert (answer.status_code, read.data.components) == (200, None)


def test_every_refusal_is_read(service, key, request_id):
    cancel(service.url, key, request_id)
    reader = service.key(scopes=["entities:read"])
    elsewhere = service.key("--allow", "192.0.2.0/24")
    for status, code, asker, request in (
        (400, "not_cancelable", key, request_id),
        (401, "authentication_required", None, request_id),
        (401, "invalid_credentials", "sk_test_nobody", request_id),
        (401, "invalid_credentials", elsewhere, request_id),
        (403, "permission_denied", reader, request_id),
        (404, "not_found", key, uuid.uuid4()),
        (404, "not_found", service.key(org="other"), request_id),
        (404, "not_found", service.key(mode="live"), request_id),
    ):
        answer, read = cancel(service.url, asker, request)
        assert (answer.status_code, [error.code for error in read.errors]) == (status, [code]), answer.text
        assert all(error.description and error.message for error in read.errors)


def reported(service, key, method, path, *arguments):
    """What a caller of any kind is refused with: its status, its media type and its body, compared with the contract's schema of errors."""
    command = ["curl", "--silent", "-X", method, "-H", f"Authorization: Bearer {key}", "--write-out", "\n%{http_code} %{content_type}", *arguments]
    printed = subprocess.run([*command, service.url + path], check=True, capture_output=True, text=True).stdout
    body, _, tail = printed.rpartition("\n")
    status, _, media_type = tail.partition(" ")
    return int(status), media_type, json.loads(body)


@pytest.mark.parametrize(
    ("status", "code", "method", "path", "arguments"),
    [
        (400, "required", "POST", "/v1/offboarding/entities", ["--json", "{}"]),
        (400, "invalid_json", "POST", "/v1/offboarding/entities", ["--json", "{"]),
        (400, "unknown_parameter", "GET", "/v1/offboarding/entities?nome=x", []),
        (400, "invalid_value", "GET", "/v1/offboarding/entities?status=Waiting", []),
        (404, "not_found", "GET", "/v1/offboarding/entities/none", []),
        (404, "not_found", "GET", "/v1/offboarding/entities/a/b/c", []),
        (404, "not_found", "GET", "/v1/offboarding/other", []),
        (405, "method_not_allowed", "PUT", "/v1/offboarding/entities", []),
        (405, "method_not_allowed", "POST", f"/v1/offboarding/entities/{uuid.uuid4()}/cancel", []),
        (413, "payload_too_large", "POST", "/v1/offboarding/entities", ["--json", "@-"]),
        (415, "unsupported_media_type", "POST", "/v1/offboarding/entities", ["-H", "Content-Type: text/plain", "--data-raw", "x"]),
        (400, "invalid", "GET", "/v1/offboarding/entities", ["-H", "X-Request-Timeout: soon"]),
    ],
)
def test_refusals_of_every_path_of_the_contract_are_errors_alone(service, key, tmp_path, status, code, method, path, arguments):
    if "@-" in arguments:
        large = tmp_path / "large"
        large.write_bytes(b"[" + b" " * (5 << 20) + b"]")
        arguments = [f"@{large}" if argument == "@-" else argument for argument in arguments]
    answered, media_type, body = reported(service, key, method, path, *arguments)
    assert (answered, media_type) == (status, "application/json"), body
    assert [sorted(body), sorted(body["errors"][0])] == [["errors"], ["code", "description", "message"]]
    assert body["errors"][0]["code"] == code
    # Whoever names the problem document gets it.
    for accept in ("application/problem+json", "application/json, application/problem+json;q=0.5"):
        answered, media_type, problem = reported(service, key, method, path, *arguments, "-H", f"Accept: {accept}")
        assert (answered, media_type, problem["status"]) == (status, "application/problem+json", status)


def test_refusals_of_other_contracts_are_problem_documents(service, key):
    for path in ("/v1/entities/none", "/v1/offboardings", "/v5/entities/jobs/none", "/api/acme/tasks/none"):
        answered, media_type, problem = reported(service, key, "GET", path, "-H", "Accept: application/json")
        assert (answered, media_type, problem["status"]) == (404, "application/problem+json", 404), path


def test_the_client_refuses_what_its_document_does_not_have(service, key, request_id):
    """Were it lenient, nothing above would mean a thing."""
    members = {
        "data": {"id": str(uuid.uuid4()), "components": None},
        "id": str(uuid.uuid4()),
        "principalId": str(uuid.uuid4()),
        "status": "Canceled",
    }
    error = {"code": "c", "description": "d", "message": "m"}

    def reads(status, media_type, body):
        transport = httpx2.MockTransport(lambda _: httpx2.Response(status, headers={"content-type": media_type}, content=json.dumps(body)))

        def session(*arguments, **more):
            return httpx2.Client(*arguments, **{**more, "transport": transport})

        client = generated("http://contract.test", "key")
        client._session_factory = session
        return client._.cancel.request(parameters={"offboardingRequestId": request_id})[1]

    assert reads(200, "application/json", members).status == "Canceled"
    assert reads(400, "application/json", {"errors": [error]}).errors[0].code == "c"
    for status, media_type, body in (
        (200, "application/json", {**members, "created": "2026-04-25T00:00:00Z"}),
        (200, "application/json", {**members, "status": "Running"}),
        (200, "application/json", {**members, "data": {**members["data"], "type": "Company"}}),
        (200, "application/json", {**members, "data": {**members["data"], "id": "ent_1"}}),
        (202, "application/json", members),
        (400, "application/problem+json", {"errors": [error]}),
        (400, "application/json", {"errors": [error], "detail": "d"}),
        (400, "application/json", {"errors": [{**error, "field": "f"}]}),
    ):
        with pytest.raises(STRICT):
            reads(status, media_type, body)
