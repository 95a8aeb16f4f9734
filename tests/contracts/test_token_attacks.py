"""Tokens that somebody made who may not: each is refused as a key is that there is not, over both protocols."""

import base64
import hashlib
import hmac
import json
import time

import pytest
from conftest import running
from cryptography.hazmat.primitives import serialization
from exchange import send
from issuing import AUDIENCE, KINDS, KeyServer, Signer, claims, encoded, grpc_call, issuer, rest

ISSUER, OTHER = "https://login.example.com/", "https://other.example.com/"
OURS = {name: Signer(f"ours-{name}", name) for name in KINDS}
ES, RS, ED = OURS["ES256"], OURS["RS256"], OURS["EdDSA"]
THEIRS = Signer("theirs")
ATTACKER = Signer("ours-ES256")
HEADER = {"alg": "ES256", "kid": "ours-ES256"}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """The service, and the server of its keys, which also serves those of an attacker."""
    server = KeyServer()
    server.serve("/attacker", ATTACKER.public())
    address = server.serve("/keys", *(signer.public() for signer in OURS.values()))
    others = server.serve("/others", THEIRS.public())
    file = tmp_path_factory.mktemp("auth") / "auth.toml"
    file.write_text(issuer(ISSUER, address) + issuer(OTHER, others) + issuer("only-es", address, algorithms=["ES256"]))
    with running("--auth-file", str(file), "--max-token-bytes", "4096", "--jwks-refetch", "0.1") as service:
        yield service, server
    server.stop()


def hmac_with(secret, header, said):
    signed = f"{encoded(header)}.{encoded(said)}"
    return f"{signed}.{encoded(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def pem(signer):
    return signer.private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def der(signer):
    return signer.private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def with_signature(token, signature):
    return token[: token.rindex(".") + 1] + signature


def twice(name, one, other):
    """JSON of the claims in which one stands twice."""
    text = json.dumps({**claims(ISSUER), name: one})
    return (text[:-1] + f", {json.dumps(name)}: {json.dumps(other)}}}").encode()


def tokens():
    good, now = claims(ISSUER), int(time.time())
    signed = ES.raw(HEADER, good)
    embedded = {"jwk": ATTACKER.public(), "jku": "http://127.0.0.1/attacker", "x5u": "http://127.0.0.1/attacker", "x5c": ["MIIB"]}
    yield "alg none", f"{encoded({'alg': 'none', 'kid': 'ours-ES256'})}.{encoded(good)}."
    yield "alg none with a signature", ES.raw({**HEADER, "alg": "none"}, good)
    yield "alg NONE", f"{encoded({'alg': 'NONE', 'kid': 'ours-ES256'})}.{encoded(good)}.{encoded(b'x')}"
    yield "no alg", ES.raw({"kid": "ours-ES256"}, good)
    for signer in (RS, ES):
        for name, secret in (("PEM", pem(signer)), ("DER", der(signer)), ("JWK", json.dumps(signer.public()).encode())):
            yield f"HS256 by the public {signer.algorithm} key in {name}", hmac_with(secret, {"alg": "HS256", "kid": signer.name}, good)
            yield f"the same under the name {signer.algorithm}", hmac_with(secret, {"alg": signer.algorithm, "kid": signer.name}, good)
    yield "HS256 by an empty secret", hmac_with(b"", {"alg": "HS256", "kid": "ours-ES256"}, good)
    for other in ("RS384", "RS512", "PS256", "ES384", "ES256K", "es256", "EdDSA ", ["ES256"], None, 7):
        yield f"alg {other}", ES.raw({**HEADER, "alg": other}, good)
    for signer in (RS, ED):
        yield f"{signer.algorithm} by the name of another key", signer.raw({"alg": signer.algorithm, "kid": "ours-ES256"}, good)
        yield f"ES256 by the name of the {signer.algorithm} key", ES.raw({"alg": "ES256", "kid": signer.name}, good)
    yield "an algorithm that the issuer does not use", RS.raw({"alg": "RS256", "kid": RS.name}, claims("only-es"))
    yield "a key of another issuer", THEIRS.sign(good)
    yield "a key of another issuer by our name", THEIRS.raw(HEADER, good)
    yield "our key for another issuer", ES.sign(claims(OTHER))
    yield "a key of nobody", ATTACKER.sign(good)
    yield "a key in the header", ATTACKER.raw({**HEADER, **embedded}, good)
    yield "a key in the header by its own name", ATTACKER.raw({**HEADER, **embedded, "kid": "attacker"}, good)
    for kid in ("../../../../dev/null", "/dev/null", "ours-ES256\0", "' OR 1=1 --", "ours-ES256/../ours-ES256", "http://127.0.0.1/attacker", "OURS-ES256", "ours-ES256 ", "", None, 7, ["ours-ES256"], {"a": 1}):
        yield f"kid {kid!r}", ATTACKER.raw({**HEADER, "kid": kid}, good)
        yield f"kid {kid!r} by our key", ES.raw({**HEADER, "kid": kid}, good)
    yield "no kid", ES.raw({"alg": "ES256"}, good)
    yield "crit", ES.raw({**HEADER, "crit": ["exp"], "exp": now + 600}, good)
    yield "crit that is empty", ES.raw({**HEADER, "crit": []}, good)
    yield "crit of what is no extension", ES.raw({**HEADER, "crit": ["alg"]}, good)
    yield "b64 false", ES.raw({**HEADER, "b64": False, "crit": ["b64"]}, good)
    yield "b64 false without crit", ES.raw({**HEADER, "b64": False}, good)
    yield "a token for another purpose", ES.raw({**HEADER, "typ": "dpop+jwt"}, good)
    yield "an ID token that is nested", ES.raw({**HEADER, "cty": "JWT"}, signed.encode())
    yield "an empty signature", with_signature(signed, "")
    yield "a signature of zeros", with_signature(signed, encoded(bytes(64)))
    yield "a signature in DER", with_signature(signed, encoded(bytes.fromhex("3006020101020101")))
    yield "half a signature", with_signature(signed, signed[signed.rindex(".") + 1 :][:43])
    yield "a signature that is longer", signed + "AA"
    yield "a signature with padding", signed + "=="
    yield "no signature", signed[: signed.rindex(".")]
    yield "claims of another token", ".".join([signed.split(".")[0], encoded(claims(ISSUER, org="globex")), signed.split(".")[2]])
    yield "a header of another token", ".".join([encoded({**HEADER, "typ": "JWT"}), *signed.split(".")[1:]])
    yield "four parts", signed + ".e30"
    yield "five parts", signed + ".e30.e30"
    yield "standard base64", with_signature(signed, base64.b64encode(b"\xfb\xff" * 32).decode())
    for name, value in (
        ("iss", None), ("iss", "https://login.example.com"), ("iss", [ISSUER]), ("iss", ISSUER + "\0"), ("iss", {"a": ISSUER}),
        ("aud", None), ("aud", "other"), ("aud", []), ("aud", [["offboard"]]), ("aud", AUDIENCE.upper()), ("aud", f"{AUDIENCE} other"),
        ("exp", None), ("exp", now - 1), ("exp", str(now + 600)), ("exp", 1e200), ("exp", True), ("exp", -1),
        ("nbf", now + 600), ("nbf", "0"), ("iat", now + 600),
        ("sub", None), ("sub", ""), ("sub", 7), ("org", None), ("org", "../acme"), ("org", ["acme"]), ("mode", "LIVE"), ("mode", None),
        ("scope", {"admin": True}), ("scope", 7),
    ):
        yield f"{name} {value!r}", ES.raw(HEADER, claims(ISSUER, **{name: value}))
    for name, one, other in (("iss", ISSUER, OTHER), ("exp", now - 600, now + 600), ("exp", now + 600, now + 600), ("org", "acme", "globex"), ("aud", "other", AUDIENCE), ("x", 1, 1)):
        yield f"two claims {name}", ES.raw(HEADER, twice(name, one, other))
    yield "two claims by an escape", ES.raw(HEADER, json.dumps(good)[:-1].encode() + b', "\\u006frg": "globex"}')
    yield "two headers alg", ES.raw(b'{"alg":"none","kid":"ours-ES256","alg":"ES256"}', good)
    yield "claims that are no object", ES.raw(HEADER, b"[]")
    yield "claims that are no JSON", ES.raw(HEADER, b"exp=1")
    yield "claims that are no UTF-8", ES.raw(HEADER, b'{"iss":"\xff"}')
    yield "claims with something behind", ES.raw(HEADER, json.dumps(good).encode() + b"{}")
    yield "claims that are deep", ES.raw(HEADER, b'{"a":' + b"[" * 1500 + b"]" * 1500 + b"}")
    yield "a token that is too large", ES.raw(HEADER, claims(ISSUER, padding="x" * 4096))
    yield "points", "." * 3000
    yield "a token of nothing", ".."


CASES = list(tokens())


def test_a_token_that_is_right_is_taken_and_keys_in_its_header_are_not_looked_at(attacked):
    service, server = attacked
    # As the tokens below are made, but for what is wrong with each.
    for signer in OURS.values():
        right = signer.raw({"alg": signer.algorithm, "kid": signer.name}, claims(ISSUER))
        assert rest(service, right).status == 200 and grpc_call(service, right).code == "OK"
    assert rest(service, ES.raw(HEADER, claims("only-es"))).status == 200
    assert rest(service, THEIRS.sign(claims(OTHER))).status == 200
    header = {**HEADER, "jwk": ATTACKER.public(), "jku": server.url("/attacker"), "x5u": server.url("/attacker")}
    assert rest(service, ES.raw(header, claims(ISSUER))).status == 200
    refused = rest(service, ATTACKER.raw({**header, "kid": "attacker"}, claims(ISSUER)))
    assert refused.status == 401 and "/attacker" not in server.asked


@pytest.mark.parametrize("name, token", CASES, ids=[name for name, _ in CASES])
def test_it_is_refused_as_any_wrong_key(attacked, name, token):
    service, _ = attacked

    def without_id(answer):
        body = json.loads(answer.body)
        return answer.status, {key: value for key, value in body.items() if key != "request_id"}, sorted(answer.headers)

    nobody = send("curl {url} -H 'authorization: Bearer sk_test_nobody'", {"url": service.url + "/v1/entities"})
    assert without_id(rest(service, token)) == without_id(nobody)
    assert nobody.status == 401
    by_key, called = grpc_call(service, "sk_test_nobody"), grpc_call(service, token)
    assert (called.code, called.details, called.trailers) == (by_key.code, by_key.details, by_key.trailers)
    assert called.code == "UNAUTHENTICATED"


def test_unknown_keys_are_asked_after_as_often_as_is_set_and_no_more(attacked):
    service, server = attacked
    began, before = time.monotonic(), server.asked.count("/keys")
    for n in range(60):
        assert rest(service, ES.raw({**HEADER, "kid": f"unknown-{n}"}, claims(ISSUER))).status == 401
    # What is wrong in another way as well asks after no key.
    asked = server.asked.count("/keys") - before
    assert 1 <= asked <= 2 + 10 * (time.monotonic() - began) * 2
    before = server.asked.count("/keys")
    time.sleep(0.3)
    for n in range(20):
        assert rest(service, ES.raw({**HEADER, "kid": f"unknown-{n}"}, claims(ISSUER, aud="other"))).status == 401
    assert server.asked.count("/keys") == before
