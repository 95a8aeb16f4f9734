"""Every gRPC method by reflection alone, with `grpcurl`."""

import re
import subprocess

import pytest

STATUSES = {
    "InvalidArgument",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "FailedPrecondition",
    "Aborted",
}
# Streams that go on until their caller hangs up.
ENDLESS = {"offboard.v1.EventService.WatchEvents"}


def grpcurl(service, *arguments):
    return subprocess.run(["grpcurl", "-plaintext", "-max-time", "10", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def methods(service):
    """The full name of every method of every service that the project has."""
    services = [name for name in grpcurl(service, service.grpc, "list").stdout.split() if name.startswith("offboard.")]
    assert len(services) >= 6
    return [method for name in services for method in grpcurl(service, service.grpc, "list", name).stdout.split()]


def test_every_method_is_described_with_its_comment_and_its_scope(service, methods):
    assert len(methods) > 40
    for method in methods:
        described = grpcurl(service, service.grpc, "describe", method)
        assert described.returncode == 0, f"{method}: {described.stderr}"
        assert re.search(r"^// \w.*$", described.stdout, flags=re.MULTILINE), f"{method} has no comment: {described.stdout}"
        assert "required_scope" in described.stdout, f"{method} has no scope: {described.stdout}"


def test_every_method_answers_an_empty_request_or_refuses_it_with_details(service, methods):
    key = service.key()
    for method in methods:
        limit = ["-max-time", "1"] if method in ENDLESS else []
        called = grpcurl(service, *limit, "-H", f"authorization: Bearer {key}", "-d", "{}", service.grpc, method)
        if called.returncode == 0 or method in ENDLESS and "DeadlineExceeded" in called.stderr:
            continue
        said = called.stdout + called.stderr
        (status,) = re.findall(r"Code: (\w+)", said)
        assert status in STATUSES, f"{method}: {said}"
        assert '"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"offboard"' in said, f"{method}: {said}"
        assert "google.rpc.RequestInfo" in said, f"{method}: {said}"
        if status == "InvalidArgument":
            assert "google.rpc.BadRequest" in said, f"{method}: {said}"


def test_every_method_refuses_a_caller_without_a_key(service, methods):
    for method in methods:
        called = grpcurl(service, "-d", "{}", service.grpc, method)
        said = called.stdout + called.stderr
        assert "Code: Unauthenticated" in said and '"reason":"AUTHENTICATION_REQUIRED"' in said, f"{method}: {said}"
