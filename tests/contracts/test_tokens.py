"""Callers with tokens of issuers instead of keys: what they may do, and as whom."""

import json
import subprocess
import time
import uuid
from pathlib import Path

import grpc
import pytest
from authlib.jose import JsonWebKey, JsonWebToken
from conftest import BINARY, SCOPES, environment, running
from cryptography.hazmat.primitives import serialization
from examples import blocks
from exchange import replay
from issuing import KINDS, KeyServer, Signer, claims, eventually, grpc_call, issuer, principal, rest

ISSUER = "https://login.example.com/"
SIGNERS = {name: Signer(f"key-{name}", name) for name in KINDS}
FIXED = """
org = "fixed"
mode = "live"
principal = "0190a1b2-0000-7000-8000-00000000000a"
scopes = ["events:read"]
[issuer.roles]
claim = "/realm_access/roles"
[issuer.roles.scopes]
clerk = ["entities:read"]
"""
NARROW = """
org = { claim = "org" }
mode = { claim = "mode" }
scopes = { claim = "scope" }
"""


@pytest.fixture(scope="module")
def keys():
    server = KeyServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def auth_file(keys, tmp_path_factory):
    """The file of three issuers with the same keys."""
    file = tmp_path_factory.mktemp("auth") / "auth.toml"
    public = [signer.public() for signer in SIGNERS.values()]
    (file.parent / "keys.json").write_text(json.dumps({"keys": public}))
    file.write_text(
        issuer(ISSUER, keys.serve("/keys", *public)) + issuer("fixed", "keys.json", rest=FIXED) + issuer("narrow", "keys.json", rest=NARROW)
    )
    return file


@pytest.fixture(scope="module")
def service(auth_file):
    with running("--auth-file", str(auth_file), OFFBOARD_LOG="info,offboard=trace") as service:
        yield service


def token(algorithm="ES256", name=ISSUER, **more):
    return SIGNERS[algorithm].sign(claims(name, **more))


def by_authlib(algorithm):
    signer = SIGNERS[algorithm]
    pem = signer.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    header = {"alg": algorithm, "kid": signer.name}
    return JsonWebToken([algorithm]).encode(header, claims(ISSUER), JsonWebKey.import_key(pem)).decode()


@pytest.mark.parametrize("algorithm", KINDS)
@pytest.mark.parametrize("library", ["pyjwt", "authlib"])
def test_a_token_is_taken_over_both_protocols(service, algorithm, library):
    shown = token(algorithm) if library == "pyjwt" else by_authlib(algorithm)
    answer = rest(service, shown)
    assert answer.status == 200 and answer.headers["offboard-realm"] == "acme/test", answer
    assert grpc_call(service, shown).code == "OK"


@pytest.mark.parametrize("case", ["bulk_delete", "offboarding", "portfolio_membership"])
def test_the_contracts_hold_with_a_token_in_place_of_the_key(service, case):
    def sign(org="acme", mode="test", scopes=SCOPES, subject="caller"):
        return token(org=org, mode=mode, scope=" ".join(scopes), sub=f"{case}|{subject}")

    variables = {
        "base": service.url,
        "key": sign(),
        "reader": sign(scopes=["entities:read", "portfolios:read"], subject="reader"),
        "stranger": sign(org="other"),
        "live": sign(mode="live"),
    }
    # The one address that is registered with a key is for keys alone.
    assert replay(Path(__file__).parent / "cases" / f"{case}.http", variables) > 5


def test_a_principal_is_a_uuid_that_others_can_compute(service):
    entity = {"entity_id": "of-a-principal", "type": "Company"}
    assert rest(service, token(), "/v1/entities", "--json", f"'{json.dumps(entity)}'").status == 201
    body = json.dumps({"entityId": "of-a-principal", "gracePeriod": "3600s"})
    asked = rest(service, token(sub="auth0|5f7c"), "/v1/offboarding/entities", "--json", f"'{body}'")
    assert json.loads(asked.body)["principalId"] == principal(ISSUER, "auth0|5f7c"), asked
    # Canceled by another, and asked for again: the next request is of who asks.
    request = json.loads(asked.body)["id"]
    assert rest(service, token(), f"/v1/offboarding/entities/{request}/cancel", "-X", "PATCH").status == 200
    own = str(uuid.uuid4())
    again = rest(service, token(sub=own), "/v1/offboarding/entities", "--json", f"'{body}'")
    assert json.loads(again.body)["principalId"] == own, again


def test_fixed_values_hold_whatever_a_token_says_and_roles_give_scopes(service):
    shown = token(name="fixed", org="acme", mode="test", scope="admin", sub=None, realm_access={"roles": ["clerk", "admin"]})
    answer = rest(service, shown)
    assert answer.status == 200 and answer.headers["offboard-realm"] == "fixed/live", answer
    refused = rest(service, shown, "/v1/portfolios")
    assert refused.status == 403 and json.loads(refused.body)["required_scope"] == "portfolios:read"
    assert grpc_call(service, shown, "PortfolioService/ListPortfolios").code == "PERMISSION_DENIED"
    without = rest(service, token(name="fixed"))
    assert without.status == 403 and json.loads(without.body)["required_scope"] == "entities:read"


def test_a_token_without_a_scope_is_known_and_may_nothing(service):
    for scope in (None, "", "openid profile", []):
        answer = rest(service, token(scope=scope))
        assert answer.status == 403 and json.loads(answer.body)["code"] == "permission_denied", answer


def test_an_organisation_that_is_not_there_is_made_only_where_the_file_says_so(service):
    shown = token(name="narrow", org="not-there")
    for _ in range(3):
        assert rest(service, shown).status == 401
    assert grpc_call(service, shown).code == "UNAUTHENTICATED"
    service.key(org="not-there")
    eventually("its realm is noticed", lambda: rest(service, shown).status == 200)
    assert rest(service, token(name="narrow", org="not-there", mode="live")).status == 401
    assert rest(service, token(org="made")).headers["offboard-realm"] == "made/test"


def test_the_list_of_a_realm_is_for_callers_with_tokens_too(service):
    shown = token(org="listed")
    allow = lambda *networks: ("/v1/access-policy", "-X", "PATCH", "--json", f"'{json.dumps({'allowed': networks, 'allow_lockout': True})}'")
    assert rest(service, shown, *allow("127.0.0.0/8")).status == 200
    assert rest(service, shown).status == 200
    with grpc.insecure_channel(service.grpc) as channel:
        watch = channel.unary_stream("/offboard.v1.EventService/WatchEvents")(b"", metadata=[("authorization", f"Bearer {shown}")], timeout=30)
        assert next(iter(watch))
        assert rest(service, shown, *allow("192.0.2.0/24")).status == 200
        with pytest.raises(grpc.RpcError) as ended:
            for _ in watch:
                pass
    assert ended.value.code().name == "UNAUTHENTICATED", "who is under way is not admitted any more"
    refused = lambda: rest(service, shown)
    eventually("the list takes effect", lambda: refused().status == 401)
    assert json.loads(refused().body)["code"] == "address_not_allowed"
    assert grpc_call(service, shown).code == "UNAUTHENTICATED"
    assert rest(service, token(org="listed", sub="another")).status == 401
    assert rest(service, token()).status == 200, "of another organisation"


def test_calls_are_repeated_by_the_principal_and_not_by_the_token(service):
    def create(shown, name):
        return rest(service, shown, "/v1/portfolios", "-H", "'idempotency-key: once'", "--json", f"'{json.dumps({'name': name})}'")

    first = create(token(sub="repeats"), "one")
    assert first.status == 201
    renewed = create(token("RS256", sub="repeats", iat=None), "one")
    assert renewed.headers.get("idempotent-replayed") == "true" and renewed.body == first.body
    assert create(token(sub="repeats"), "other").status == 409
    for other in (token(sub="someone else"), token(sub="repeats", org="elsewhere"), service.key()):
        answer = create(other, "other")
        assert answer.status == 201 and "idempotent-replayed" not in answer.headers


def test_a_subject_that_names_a_key_is_not_that_key(service):
    arguments = ["key", "list", "--database-url", service.database, "--json"]
    secret = service.key("--email", "owner@example.com", org="keys")
    listed = subprocess.run([BINARY, *arguments], env=environment(), capture_output=True, text=True, check=True)
    key = next(key for key in map(json.loads, listed.stdout.splitlines()) if key["org"] == "keys")
    shown = token(org="keys", sub=key["id"])
    body = "'" + json.dumps({"name": "x"}) + "'"
    by_key = rest(service, secret, "/v1/portfolios", "-H", "'idempotency-key: mine'", "--json", body)
    by_token = rest(service, shown, "/v1/portfolios", "-H", "'idempotency-key: mine'", "--json", body)
    assert (by_key.status, by_token.status) == (201, 201) and "idempotent-replayed" not in by_token.headers


def test_a_token_makes_keys_and_gives_no_scope_that_it_lacks(service):
    shown = token(org="makers", scope="keys:write keys:read entities:read")

    def make(*scopes):
        return rest(service, shown, "/v1/keys", "--json", f"'{json.dumps({'scopes': list(scopes)})}'")

    made = make("entities:read")
    assert made.status == 201
    secret = json.loads(made.body)["secret"]
    assert rest(service, secret).status == 200
    refused = make("entities:read", "admin")
    assert refused.status == 403 and json.loads(refused.body)["required_scope"] == "admin"


def test_a_stream_ends_with_the_token(service):
    shown = token(org="streams", exp=int(time.time()) + 3)
    with grpc.insecure_channel(service.grpc) as channel:
        watch = channel.unary_stream("/offboard.v1.EventService/WatchEvents")(b"", metadata=[("authorization", f"Bearer {shown}")], timeout=30)
        with pytest.raises(grpc.RpcError) as ended:
            for _ in watch:
                pass
    assert ended.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_caller_with_a_token_costs_no_call_of_the_database(service):
    def statements():
        metrics = subprocess.run(["curl", "--silent", f"http://{service.admin}/metrics"], capture_output=True, text=True, check=True).stdout
        return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("db_client_operation_duration_seconds_count"))

    def refused(count):
        for n in range(count):
            # Another token of another caller each time, of a realm that is known; what it asks for is refused before the database is asked.
            assert rest(service, token(sub=f"busy|{n}"), "/v1/entities?max_page_size=x").status == 400

    refused(1)
    began, before = time.monotonic(), statements()
    time.sleep(3)
    idle = (statements() - before) / (time.monotonic() - began)
    began, before = time.monotonic(), statements()
    refused(200)
    # What is done now and then is done meanwhile, too.
    assert statements() - before < idle * (time.monotonic() - began) + 100


def test_two_credentials_are_refused_and_the_same_twice_is_one(service):
    shown = token()
    twice = rest(service, shown, "/v1/entities", "-H", f"'apikey: {shown}'")
    assert twice.status == 200
    two = rest(service, shown, "/v1/entities", "-H", f"'apikey: {token(sub='other')}'")
    assert two.status == 401


def test_a_caller_with_a_token_asks_for_mails_to_domains_that_its_realm_allows(auth_file):
    with running("--auth-file", str(auth_file), "--smtp-url", "smtp://127.0.0.1:9", "--mail-from", "offboard@example.com") as service:
        shown = token()

        def start(send_mail):
            path = f"/api/acme/entities?entityType=Nothing&mode=soft&sendMail={send_mail}"
            return rest(service, shown, path, "-X", "DELETE")

        def code(answer):
            return answer.status, [error["code"] for error in json.loads(answer.body).get("errors", [])]

        assert code(start("someone@example.com")) == (400, ["not_allowed"])
        policy = "'" + json.dumps({"mail_domains": ["example.com"]}) + "'"
        changed = rest(service, shown, "/v1/removal-policy", "-X", "PATCH", "--json", policy)
        assert changed.status == 200, changed
        assert start("someone@example.com").status == 200
        assert code(start("someone@example.org")) == (400, ["not_allowed"])
        # No address is registered with a token.
        assert code(start("true")) == (400, ["invalid"])


def test_commands_take_a_token_where_they_take_a_key(service):
    arguments = ["key", "list", "--server", f"http://{service.grpc}", "--key", token(org="commands", scope="keys:read"), "--json"]
    listed = subprocess.run([BINARY, *arguments], env=environment(), capture_output=True, text=True, check=False)
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", "")


def check(auth_file, *arguments, **options):
    command = [BINARY, "token", "check", "--auth-file", auth_file, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, **options)


def test_the_command_says_what_a_service_would_make_of_a_token(service, auth_file, tmp_path):
    shown = token(sub="user|7", scope="entities:read openid", nbf=int(time.time()) - 5)
    told = check(auth_file, shown, "--json")
    assert told.returncode == 0, told
    report = json.loads(told.stdout)
    due = {
        "accepted": True, "issuer": ISSUER, "org": "acme", "mode": "test", "scopes": ["entities:read"], "ignored": ["openid"],
        "subject": "user|7", "principal_id": principal(ISSUER, "user|7"), "algorithm": "ES256", "key_id": "key-ES256", "faults": [],
    }
    assert {name: report[name] for name in due} == due and report["expires_at"].endswith("Z") and report["not_before"]
    file = tmp_path / "token"
    file.write_text(shown + "\n")
    for way in (check(auth_file, "-", "--json", input=shown + "\n"), check(auth_file, "--token-file", file, "--json")):
        assert json.loads(way.stdout) == report
    text = check(auth_file, shown)
    assert text.returncode == 0 and "realm      acme (test)\n" in text.stdout and text.stderr == ""
    for neither in (check(auth_file), check(auth_file, shown, "--token-file", file)):
        assert neither.returncode == 2
    assert "No such file" in check(auth_file, "--token-file", tmp_path / "none").stderr


def test_the_example_of_the_page_is_read_and_means_what_it_says(tmp_path):
    page = {block.language: block for block in blocks(Path(__file__).parents[2] / "docs" / "tokens.md")}
    file = tmp_path / "auth.toml"
    file.write_text('[[issuer]]\nissuer = "a"\naudiense = "b"\naudience = "b"\nalgorithms = ["HS256"]\njwks_url = "https://a/"\norg = "a"\nmode = "test"\nscopes = ["admin"]\n')
    refused = subprocess.run([BINARY, "serve", "--auth-file", file], env=environment(), capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, page["text"].text), refused
    file.write_text(page["toml"].text)
    (tmp_path / "acme-ci.json").write_text(json.dumps({"keys": [SIGNERS["EdDSA"].public()]}))
    report = json.loads(check(file, token("EdDSA", "acme-ci", aud="offboard", org=None, mode=None, scope=None), "--json").stdout)
    assert (report["accepted"], report["org"], report["mode"], report["scopes"]) == (True, "acme", "test", ["entities:read", "entities:write"]), report


def test_the_command_names_every_fault_of_a_token(auth_file, service):
    wrong = token(aud="other", exp=5, org="a/b", mode="prod", sub="")
    told = check(auth_file, wrong, "--json")
    report = json.loads(told.stdout)
    assert told.returncode == 1 and report["accepted"] is False
    assert [(fault["code"], fault["at"]) for fault in report["faults"]] == [
        ("wrong_audience", "claims.aud"), ("expired", "claims.exp"), ("wrong_claims", "claims.org"), ("wrong_claims", "claims.mode"), ("wrong_claims", "claims.sub"),
    ]
    text = check(auth_file, wrong)
    assert text.returncode == 1 and text.stdout.count("fault: ") == 5 and text.stderr == "The service would refuse this token.\n"
    assert check(auth_file, "nonsense", "--json").returncode == 1


def test_the_command_says_that_keys_cannot_be_fetched(tmp_path):
    file = tmp_path / "auth.toml"
    file.write_text(issuer(ISSUER, "http://127.0.0.1:9/keys"))
    report = json.loads(check(file, token(), "--json").stdout)
    assert [fault["code"] for fault in report["faults"]] == ["keys_unavailable"] and "Connection refused" in report["faults"][0]["description"]


def test_a_service_does_not_start_with_a_file_that_has_faults_and_names_them_all(service, tmp_path):
    file = tmp_path / "auth.toml"
    file.write_text('[[issuer]]\nissuer = "x"\naudiense = "y"\njwks_file = "none.json"\nalgorithms = ["HS256"]\n')
    arguments = ["serve", "--database-url", service.database, "--auth-file", str(file), "--jwks-outage", "5", "--jwks-refresh", "9"]
    ended = subprocess.run([BINARY, *arguments], env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    for fault in ("line 3: unknown member `issuer[0].audiense`", "`issuer[0].audience` must be given", "line 4: `issuer[0].jwks_file` cannot be read",
                  "line 5: `issuer[0].algorithms`", "`issuer[0].org` must be given", "`issuer[0].mode` must be given", "`issuer[0].scopes` or `roles`", "--jwks-outage"):
        assert fault in ended.stderr, (fault, ended.stderr)


def test_no_log_has_a_token_and_callers_are_named_by_issuer_and_principal(service):
    shown = [token(sub="logged"), token(sub="logged", aud="other"), token(sub="logged")[:-8] + "AAAAAAAA"]
    for one in shown:
        rest(service, one)
        grpc_call(service, one)
    log = "".join(service.log)
    assert len(log) > 10_000
    for one in shown:
        assert not any(part in log for part in one.split("."))
    # No token of any test of this file: all begin so.
    assert "eyJ" not in log
    ended = [json.loads(line) for line in service.log if '"call ended"' in line and principal(ISSUER, "logged") in line]
    assert ended and all(ISSUER in json.dumps(line) for line in ended)
    refused = [line for line in service.log if "wrong_audience" in line]
    assert refused and all(ISSUER in line for line in refused)
