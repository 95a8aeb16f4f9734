"""The keys of issuers and the file that names them: rotated, out of reach, false, and changed while the service runs."""

import json
import re
import ssl
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
from conftest import running
from issuing import KeyServer, Signer, claims, eventually, grpc_call, issuer, rest

ISSUER = "https://login.example.com/"
FIRST, SECOND = Signer("first"), Signer("second", "EdDSA")
# Keys are fetched again once a second, for the one who waits for that.
EAGER = ["--jwks-refresh", "1", "--jwks-refetch", "0.1"]
SELDOM = ["--jwks-refresh", "3600", "--jwks-outage", "7200", "--jwks-refetch", "0.1"]


class Scene:
    """A service with a file of issuers, and the server of their keys."""

    def __init__(self, folder):
        self.keys = KeyServer()
        self.file = folder / "auth.toml"

    def write(self, *issuers):
        """Has the file have these issuers from one moment to the next, as a mounted ConfigMap does."""
        new = self.file.with_suffix(".new")
        new.write_text("".join(issuers))
        new.rename(self.file)

    def running(self, *more):
        return running("--auth-file", str(self.file), *more)


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    yield scene
    scene.keys.stop()


def sign(signer=FIRST, name=ISSUER, **more):
    return signer.sign(claims(name, **more))


def status(service, token):
    """The status by both protocols, which must be the same."""
    answer, called = rest(service, token), grpc_call(service, token)
    assert called.code == {200: "OK", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 503: "UNAVAILABLE"}[answer.status], (answer, called.code)
    if answer.status == 503:
        assert answer.headers["retry-after"] == "1" and json.loads(answer.body)["code"] == "unavailable"
    return answer.status


def becomes(what, service, token, due):
    """Waits until a token has this status by one protocol; from then on it has it by both."""
    eventually(what, lambda: rest(service, token()).status == due)
    assert status(service, token()) == due


def metric(service, name, **labels):
    text = subprocess.run(["curl", "--silent", f"http://{service.admin}/metrics"], capture_output=True, text=True, check=True).stdout
    lines = [line for line in text.splitlines() if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items())]
    return sum(float(line.split()[-1]) for line in lines)


def test_a_key_that_is_new_is_found_by_the_first_token_and_one_that_is_gone_opens_nothing(scene):
    scene.write(issuer(ISSUER, scene.keys.serve("/keys", FIRST.public())))
    with scene.running(*SELDOM) as service:
        assert status(service, sign()) == 200
        scene.keys.serve("/keys", FIRST.public(), SECOND.public())
        time.sleep(0.2)
        # Nobody waits for the next hour.
        assert status(service, sign(SECOND)) == 200
        assert status(service, sign()) == 200
        # The first is withdrawn, which is noticed with the next fetch: here by a token with another key that is new.
        third = Signer("third")
        scene.keys.serve("/keys", SECOND.public(), third.public())
        time.sleep(0.2)
        assert status(service, sign(third)) == 200
        time.sleep(0.2)
        assert status(service, sign()) == 401
        assert metric(service, "offboard_jwks_fetches_total", offboard_outcome="succeeded", offboard_token_issuer=ISSUER) >= 3
        assert metric(service, "offboard_token_refused_total", offboard_token_fault="unknown_key") >= 1


def test_keys_are_fetched_again_by_themselves(scene):
    scene.write(issuer(ISSUER, scene.keys.serve("/keys", FIRST.public(), SECOND.public())))
    with scene.running(*EAGER) as service:
        assert status(service, sign()) == 200
        scene.keys.serve("/keys", SECOND.public())
        # Though what was checked is remembered, and nobody asks after another key.
        becomes("the key is withdrawn", service, lambda: sign(), 401)
        assert status(service, sign(SECOND)) == 200


def test_an_outage_is_borne_for_as_long_as_is_set_and_then_nobody_is_let_in(scene):
    address = scene.keys.serve("/keys", FIRST.public())
    scene.write(issuer(ISSUER, address) + issuer("other", scene.keys.serve("/other", SECOND.public())))
    with scene.running(*EAGER, "--jwks-outage", "4") as service:
        assert status(service, sign()) == 200
        scene.keys.answers["/keys"] = (500, "application/json", b"{}")
        down = time.monotonic()
        eventually("it is noticed", lambda: "responds with the status 500" in "".join(service.log))
        assert status(service, sign()) == 200 or time.monotonic() - down > 3
        # Whether a key that is not known is genuine cannot be told.
        assert status(service, sign(Signer("new"))) == 503
        becomes("nobody is let in", service, lambda: sign(), 503)
        assert status(service, sign(aud="other")) == 401, "what is wrong anyway is refused as such"
        assert status(service, sign(SECOND, "other")) == 200, "another issuer is another"
        scene.keys.serve("/keys", FIRST.public())
        becomes("the keys are back", service, lambda: sign(), 200)


def test_a_service_starts_without_the_keys_and_takes_tokens_once_they_are_there(scene):
    scene.write(issuer(ISSUER, scene.keys.url("/keys")))
    with scene.running(*EAGER) as service:
        assert status(service, sign()) == 503
        assert rest(service, service.key()).status == 200
        scene.keys.serve("/keys", FIRST.public())
        becomes("the keys are there", service, lambda: sign(), 200)


def hang(request):
    request.server.hung.wait(60)


def drip(request):
    """Sends a byte now and then, for ever."""
    request.send_response(200)
    request.send_header("content-type", "application/json")
    request.end_headers()
    while not request.server.hung.wait(0.2):
        request.wfile.write(b" ")


def endless(request):
    request.send_response(200)
    request.send_header("content-type", "application/json")
    request.end_headers()
    while not request.server.hung.is_set():
        request.wfile.write(b" " * 65536)


def redirect(request):
    request.send_response(302)
    request.send_header("location", "/good")
    request.send_header("content-length", "0")
    request.end_headers()


def large_head(request):
    request.send_response(200)
    for n in range(2000):
        request.send_header(f"x-{n}", "x" * 1000)
    request.end_headers()


def break_off(request):
    request.send_response(200)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", "1000")
    request.end_headers()
    request.wfile.write(b'{"keys":')


def gzipped(request):
    request.send_response(200)
    request.send_header("content-type", "application/json")
    request.send_header("content-encoding", "gzip")
    request.send_header("content-length", "0")
    request.end_headers()


def key_set(*keys):
    return json.dumps({"keys": list(keys)}).encode()


GOOD = key_set(FIRST.public())
JSON = "application/json"
# What is wrong with these is for the HTTP library to say.
UNFETCHED = "cannot be fetched"
# What is served instead of keys, and what becomes of a token that was signed with the key: 503 where nothing is known of the issuer's keys, and 401
# where it says that there are others.
LIES = {
    "hangs": (hang, 503, "takes longer than 5 seconds"),
    "drips": (drip, 503, "takes longer than 5 seconds"),
    "does not end": (endless, 503, "more than 262144 bytes"),
    "is large": ((200, JSON, GOOD + b" " * 300_000), 503, "more than 262144 bytes"),
    "has a large head": (large_head, 503, UNFETCHED),
    "breaks off": (break_off, 503, UNFETCHED),
    "leads elsewhere": (redirect, 503, "responds with the status 302"),
    "is gone": ((404, JSON, GOOD), 503, "responds with the status 404"),
    "is empty": ((204, JSON, b""), 503, "responds with the status 204"),
    "is a page": ((200, "text/html", b"<html><body>Sign in</body></html>"), 503, "media type"),
    "is a page that says to be JSON": ((200, JSON, b"<html><body>Sign in</body></html>"), 503, "is not valid JSON"),
    "is of another type": ((200, "text/plain", GOOD), 503, "media type"),
    "is compressed": (gzipped, 503, "compressed"),
    "is cut": ((200, JSON, GOOD[:-9]), 503, "is not valid JSON"),
    "is another object": ((200, JSON, b'{"issuer":"x","jwks_uri":"y"}'), 503, "not a JSON Web Key Set"),
    "is a PEM": ((200, JSON, b"-----BEGIN PUBLIC KEY-----"), 503, "is not valid JSON"),
    "has a key twice": ((200, JSON, key_set(FIRST.public(), Signer("first").public())), 503, "has two keys for ES256"),
    "says keys twice": ((200, JSON, GOOD[:-1] + b', "keys": []}'), 503, "twice"),
    "has too many keys": ((200, JSON, key_set(*(FIRST.public(kid=f"k{n}") for n in range(65)))), 503, "has 65 keys"),
    "has none": ((200, JSON, b'{"keys":[]}'), 401, None),
    "has others": ((200, JSON, key_set(SECOND.public())), 401, None),
    "has the name of another key": ((200, JSON, key_set(Signer("first").public())), 401, None),
    "has a secret one": ((200, JSON, key_set({"kty": "oct", "kid": "first", "k": "AAAA"})), 401, None),
    "has one for encryption": ((200, JSON, key_set(FIRST.public(use="enc"))), 401, None),
    "has it for another algorithm": ((200, JSON, key_set(FIRST.public(alg="ES384"))), 401, None),
    "has a private one": ((200, JSON, key_set(FIRST.public(d="AAAA"))), 401, None),
}


def test_a_server_of_keys_that_lies_lets_nobody_in_and_harms_no_other_issuer(scene):
    scene.keys.server.hung = threading.Event()
    scene.keys.answers["/good"] = (200, JSON, GOOD)
    written = [issuer("good", scene.keys.url("/good"))]
    for n, (lie, (answer, _, _)) in enumerate(LIES.items()):
        scene.keys.answers[f"/lie/{n}"] = answer
        written.append(issuer(lie, scene.keys.url(f"/lie/{n}")))
    scene.write(*written)
    with scene.running(*SELDOM) as service:
        began = time.monotonic()
        assert status(service, sign(name="good")) == 200
        for lie, (_, due, told) in LIES.items():
            assert status(service, sign(name=lie)) == due, lie
            if told:
                # What is wrong is for the log, by the issuer, and not for the caller.
                warned = [line for line in service.log if json.dumps(lie) in line and '"WARN"' in line]
                assert warned and told in "".join(warned), (lie, warned)
                body = rest(service, sign(name=lie)).body
                assert "127.0.0.1" not in body and (told == UNFETCHED or told not in body)
        assert status(service, sign(name="good")) == 200
        assert time.monotonic() - began < 120
        scene.keys.server.hung.set()


def test_calls_that_wait_for_keys_are_few_and_keep_nobody_else_waiting(scene):
    scene.keys.server.hung = threading.Event()
    scene.keys.answers["/hangs"] = hang
    scene.write(issuer("hangs", scene.keys.url("/hangs")) + issuer(ISSUER, scene.keys.serve("/keys", FIRST.public())))
    with scene.running(*SELDOM, "--db-pool-size", "4") as service, grpc.insecure_channel(service.grpc) as channel:
        assert status(service, sign()) == 200
        call = channel.unary_unary("/offboard.v1.EntityService/ListEntities")
        waiting = [call.future(b"", metadata=[("authorization", f"Bearer {sign(name='hangs', sub=str(n))}")], timeout=30) for n in range(150)]
        for _ in range(5):
            assert status(service, sign()) == 200
        assert {future.code() for future in waiting} == {grpc.StatusCode.UNAVAILABLE}
        assert metric(service, "offboard_limit_reached_total", offboard_limit_name="calls_for_jwks") >= 1
        # One fetch at a time, whoever asks.
        assert scene.keys.asked.count("/hangs") <= 4
        scene.keys.server.hung.set()


def test_the_file_is_read_again_and_a_broken_one_changes_nothing(scene):
    address = scene.keys.serve("/keys", FIRST.public())
    scene.write(issuer(ISSUER, address))
    with scene.running(*SELDOM) as service:
        assert (status(service, sign()), status(service, sign(name="new"))) == (200, 401)
        scene.write(issuer(ISSUER, address) + issuer("new", address))
        becomes("the new issuer is known", service, lambda: sign(name="new"), 200)
        assert metric(service, "offboard_auth_file_reads_total", offboard_outcome="succeeded") == 1
        fetched = len(scene.keys.asked)

        scene.write(issuer(ISSUER, address), "\n[[issuer]]\nissuer = 7\nalgorithm = 'none'\n")
        eventually("it is noticed", lambda: metric(service, "offboard_auth_file_reads_total", offboard_outcome="failed") == 1)
        assert (status(service, sign()), status(service, sign(name="new"))) == (200, 200)
        (warned,) = [line for line in service.log if "the file of issuers has faults" in line]
        assert '"WARN"' in warned and "`issuer[1].issuer` must be a string" in warned and "unknown member `issuer[1].algorithm`" in warned
        scene.file.unlink()
        eventually("that is noticed, too", lambda: metric(service, "offboard_auth_file_reads_total", offboard_outcome="failed") == 2)
        assert status(service, sign()) == 200

        # What an issuer may do is less from here on, and another one is gone.
        scene.write(issuer(ISSUER, address, rest='org = "acme"\nmode = "test"\nscopes = ["events:read"]'))
        becomes("it may less", service, lambda: sign(), 403)
        assert status(service, sign(name="new")) == 401
        assert len(scene.keys.asked) == fetched, "keys of the same address are not fetched again for that"


def test_keys_of_a_file_are_rotated_by_the_file(scene):
    keys = scene.file.parent / "keys.json"
    keys.write_bytes(GOOD)
    scene.write(issuer(ISSUER, "keys.json"))
    with scene.running() as service:
        assert (status(service, sign()), status(service, sign(SECOND))) == (200, 401)
        keys.write_bytes(key_set(SECOND.public()))
        becomes("the other key is known", service, lambda: sign(SECOND), 200)
        assert status(service, sign()) == 401


def test_a_stream_ends_when_its_issuer_does(scene):
    address = scene.keys.serve("/keys", FIRST.public(), SECOND.public())
    scene.write(issuer(ISSUER, address) + issuer("other", address))
    with scene.running(*SELDOM) as service, grpc.insecure_channel(service.grpc) as channel:
        watch = channel.unary_stream("/offboard.v1.EventService/WatchEvents")

        def begin(name):
            return watch(b"", metadata=[("authorization", f"Bearer {sign(name=name)}")], timeout=60)

        goes, stays = begin("other"), begin(ISSUER)
        assert rest(service, sign(name="other")).status == 200
        scene.write(issuer(ISSUER, address))
        with pytest.raises(grpc.RpcError) as ended:
            for _ in goes:
                pass
        assert ended.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert stays.is_active()
        stays.cancel()


def test_keys_are_fetched_by_tls_from_a_server_that_can_be_checked(scene):
    kit = Path(__file__).parents[1] / "kit" / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit / "localhost.crt", kit / "localhost.key")
    scene.keys.server.socket = context.wrap_socket(scene.keys.server.socket, server_side=True)
    scene.keys.serve("/keys", FIRST.public())
    address = re.sub(r"^http://127.0.0.1", "https://localhost", scene.keys.url("/keys"))
    file = f'jwks_url = "{address}"'
    checked = issuer(ISSUER, "x").replace('jwks_file = "x"', f'{file}\njwks_ca_file = "{kit / "localhost.crt"}"')
    strange = issuer("strange", "x").replace('jwks_file = "x"', file)
    scene.write(checked, strange)
    with scene.running(*SELDOM) as service:
        assert status(service, sign()) == 200
        assert status(service, sign(name="strange")) == 503
        assert "certificate" in "".join(line for line in service.log if '"strange"' in line)
