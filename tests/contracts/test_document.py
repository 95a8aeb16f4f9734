"""The published document is OpenAPI 3.1, as two validators that share no code have it, and the one that is in the repository."""

import copy
import json
import subprocess

import aiopenapi3
import pydantic
import pytest
from conftest import ROOT
from openapi_spec_validator import OpenAPIV31SpecValidator


def test_it_is_valid_by_the_schema_of_openapi(document):
    # By JSON Schema: the schema that the OpenAPI Initiative publishes.
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_it_is_valid_by_a_model_of_openapi(document):
    # By a model in Python, which reads every object as the specification's text has it, and resolves every reference.
    # It writes into what it reads.
    api = aiopenapi3.OpenAPI("http://localhost/openapi.json", copy.deepcopy(document))
    assert set(api.paths.paths) == set(document["paths"])


def test_a_document_with_a_fault_is_refused_by_both(document):
    for path, value in (("responses", {"200": {}}), ("tags", "one")):
        broken = copy.deepcopy(document)
        operation = broken["paths"]["/v1/entities/{entity_id}"]["get"]
        operation[path] = value
        assert list(OpenAPIV31SpecValidator(broken).iter_errors()), path
        with pytest.raises(pydantic.ValidationError):
            aiopenapi3.OpenAPI("http://localhost/openapi.json", copy.deepcopy(broken))


def test_it_is_the_one_in_the_repository(document):
    assert document == json.loads((ROOT / "docs" / "openapi.json").read_text())


def test_it_is_sent_compressed_and_once(service):
    def read(*arguments):
        command = ["curl", "--silent", "--dump-header", "-", "--output", "/dev/null", *arguments, f"{service.url}/openapi.json"]
        status, *lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
        pairs = (line.split(": ", 1) for line in lines)
        return int(status.split()[1]), {name.lower(): value for name, value in pairs}

    status, headers = read("-H", "Accept-Encoding: gzip")
    assert (status, headers["content-type"], headers["content-encoding"]) == (200, "application/json", "gzip")
    assert read("-H", f"If-None-Match: {headers['etag']}")[0] == 304
    assert read("-H", 'If-None-Match: "other"')[0] == 200
