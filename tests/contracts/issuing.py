"""Issuers of tokens: what they sign with, the server that their keys are fetched from, and how a token is shown to the service."""

import base64
import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from exchange import send
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "offboard"
KINDS = {
    "RS256": (RSAAlgorithm, lambda: rsa.generate_private_key(65537, 2048)),
    "ES256": (ECAlgorithm, lambda: ec.generate_private_key(ec.SECP256R1())),
    "EdDSA": (OKPAlgorithm, ed25519.Ed25519PrivateKey.generate),
}


def encoded(value):
    """A part of a token: bytes, or JSON."""
    if not isinstance(value, bytes):
        value = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class Signer:
    """A private key, by its name."""

    def __init__(self, name, algorithm="ES256"):
        self.name, self.algorithm = name, algorithm
        self.kind, make = KINDS[algorithm]
        self.private = make()

    def public(self, **more):
        """The public part as a JSON Web Key."""
        key = json.loads(self.kind.to_jwk(self.private.public_key()))
        return {**{name: key[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in key}, "kid": self.name, **more}

    def raw(self, header, claims):
        """A token with exactly these parts, each JSON or bytes."""
        signed = f"{encoded(header)}.{encoded(claims)}"
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return f"{signed}.{encoded(algorithm.sign(signed.encode(), self.private))}"

    def sign(self, claims, **header):
        """A token by pyjwt."""
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers={"kid": self.name, **header})


def claims(issuer, **more):
    """What a token of a caller says; `None` leaves a claim out."""
    now = int(time.time())
    said = {"iss": issuer, "aud": AUDIENCE, "exp": now + 600, "iat": now, "sub": "user|1", "org": "acme", "mode": "test", "scope": "admin", **more}
    return {name: value for name, value in said.items() if value is not None}


class KeyServer:
    """Serves what it is told to, by path: `(status, content type, body)`, or a function of the request."""

    def __init__(self):
        self.answers, self.asked = {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                answer = server.answers.get(self.path, (404, "application/json", b"{}"))
                try:
                    if callable(answer):
                        answer(self)
                        return
                    status, kind, body = answer
                    self.send_response(status)
                    self.send_header("content-type", kind)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    # The service has had enough.
                    pass

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def serve(self, path, *keys):
        """Serves these keys at a path, and returns the address."""
        self.answers[path] = (200, "application/json", json.dumps({"keys": list(keys)}).encode())
        return self.url(path)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


CLAIMED = """
org = { claim = "org" }
mode = { claim = "mode" }
scopes = { claim = "scope" }
make_realms = true
leeway = 0
"""


def issuer(name, source, algorithms=tuple(KINDS), rest=CLAIMED):
    """An issuer of the file. Its keys are at an address, or in a file."""
    keys = f'jwks_url = "{source}"\ninsecure_http = true' if str(source).startswith("http:") else f'jwks_file = "{source}"'
    return f'\n[[issuer]]\nissuer = "{name}"\naudience = "{AUDIENCE}"\nalgorithms = {json.dumps(list(algorithms))}\n{keys}\n{rest}\n'


def rest(service, token, path="/v1/entities", *more):
    """The response to a request by REST with a token."""
    return send("curl {url} -H {header} " + " ".join(more), {"url": service.url + path, "header": f"authorization: Bearer {token}"})


class Called:
    """The end of a call by gRPC."""

    def __init__(self, code, details, trailers):
        self.code, self.details = code, details
        # The id of a request is its own.
        self.trailers = {name for name, _ in trailers}


def grpc_call(service, token, method="EntityService/ListEntities", message=b""):
    """The outcome of a unary call by gRPC with a token."""
    with grpc.insecure_channel(service.grpc) as channel:
        call = channel.unary_unary(f"/offboard.v1.{method}")
        try:
            call(message, metadata=[("authorization", f"Bearer {token}")], timeout=20)
        except grpc.RpcError as error:
            return Called(error.code().name, error.details(), error.trailing_metadata())
        return Called("OK", "", [])


def eventually(what, holds, seconds=30):
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.05)


def principal(name, subject):
    """The principal of a subject that is no UUID, as `docs/tokens.md` has it."""
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, name), subject))
