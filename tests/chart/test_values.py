"""Bad values are refused, each with its sentence, and the schema knows every value."""

import helm_python
import pytest
from conftest import CHART, DATABASE_URL, merge

GOOD = {"database": {"url": DATABASE_URL}}


def paths(values, prefix=()):
    """The path and value of every leaf. An empty mapping is one."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from paths(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def at(path, value):
    """Values with one value at the path."""
    for key in reversed(path):
        value = {key: value}
    return value


with helm_python.Chart.load(CHART) as loaded:
    DEFAULTS = list(paths(loaded.values))


@pytest.mark.parametrize(("path", "default"), DEFAULTS, ids=[".".join(path) for path, _ in DEFAULTS])
def test_a_value_of_another_type_is_refused_by_its_name(chart, path, default):
    wrong = "text" if isinstance(default, (list, dict)) else {"of": "another type"}
    with pytest.raises(helm_python.HelmValuesError) as refused:
        chart.validate_schema(merge(GOOD, at(path, wrong)))
    assert f"at '/{'/'.join(path)}'" in str(refused.value)


def test_every_value_of_the_schema_has_a_default(chart):
    def missing(schema, defaults, where="values"):
        for key, part in schema.get("properties", {}).items():
            if key not in defaults:
                yield f"{where}.{key}"
            elif defaults[key]:  # the members of an empty mapping are Kubernetes' and have no defaults
                yield from missing(part, defaults[key], f"{where}.{key}")

    assert list(missing(chart.schema, chart.values)) == ["values.global"]


def test_no_mapping_takes_a_key_that_the_chart_does_not_know(chart):
    def loose(schema, where="values"):
        if isinstance(schema, list):
            for index, part in enumerate(schema):
                yield from loose(part, f"{where}[{index}]")
        elif isinstance(schema, dict):
            if schema.get("type") == "object" and "properties" in schema and schema.get("additionalProperties") is not False:
                yield where
            for key, part in schema.items():
                yield from loose(part, f"{where}.{key}")

    # A volume has dozens of kinds, which Kubernetes knows better.
    assert list(loose(chart.schema)) == ["values.properties.extraVolumes.items"]


def test_a_parent_chart_may_hand_down_its_globals(chart):
    chart.validate_schema(merge(GOOD, {"global": {"region": "north"}}))


BAD_VALUES = {
    "an unknown value": ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    "an unknown value further down": ({"database": {"uri": "x"}}, "additional properties 'uri' not allowed"),
    "a negative number of replicas": ({"replicaCount": -1}, "at '/replicaCount': minimum: got -1, want 0"),
    "half a replica": ({"replicaCount": 1.5}, "at '/replicaCount': got number, want integer"),
    "an unknown role": ({"roles": ["grpc", "cook"]}, "at '/roles/1': value must be one of 'grpc', 'gateway', 'worker'"),
    "a role twice": ({"roles": ["grpc", "grpc"]}, "at '/roles': items at 0 and 1 are equal"),
    "no role": ({"roles": []}, "at '/roles': minItems: got 0, want 1"),
    "a pool of nothing": ({"database": {"poolSize": 0}}, "at '/database/poolSize': minimum: got 0, want 1"),
    "a name that Kubernetes refuses": (
        {"database": {"existingSecret": "Under_Score"}},
        "at '/database/existingSecret': 'Under_Score' does not match",
    ),
    "an unknown log format": ({"logging": {"format": "xml"}}, "at '/logging/format': value must be one of 'json', 'text'"),
    "an endpoint without scheme": (
        {"telemetry": {"otlpEndpoint": "collector:4317"}},
        "at '/telemetry/otlpEndpoint': 'collector:4317' does not match",
    ),
    "a subject with a wildcard": ({"nats": {"subjectPrefix": "a.*"}}, "at '/nats/subjectPrefix': 'a.*' does not match"),
    "a stream with a point": ({"nats": {"stream": "a.b"}}, "at '/nats/stream': 'a.b' does not match"),
    "a sender of two lines": ({"mail": {"from": "a@b.c\nBcc: d@e.f"}}, "at '/mail/from': 'a@b.c\\nBcc: d@e.f' does not match"),
    "a public URL without scheme": ({"publicUrl": "example.com"}, "at '/publicUrl': 'example.com' does not match"),
    "an origin with a path": (
        {"cors": {"allowedOrigins": ["https://app.example.com/"]}},
        "at '/cors/allowedOrigins/0': 'https://app.example.com/' does not match",
    ),
    "no time for a call": (
        {"limits": {"requestTimeoutSeconds": 0}},
        "at '/limits/requestTimeoutSeconds': exclusiveMinimum: got 0, want 0",
    ),
    "a negative age": ({"grpc": {"maxConnectionAgeSeconds": -1}}, "at '/grpc/maxConnectionAgeSeconds': minimum: got -1, want 0"),
    "a negative delay": ({"drain": {"delaySeconds": -1}}, "at '/drain/delaySeconds': minimum: got -1, want 0"),
    "no time to drain": ({"drain": {"timeoutSeconds": 0}}, "at '/drain/timeoutSeconds': minimum: got 0, want 1"),
    "a port out of range": ({"service": {"ports": {"grpc": 70000}}}, "at '/service/ports/grpc': maximum: got 70,000, want 65,535"),
    "a headless load balancer": ({"service": {"headless": True, "type": "LoadBalancer"}}, "at '/service/type': value must be 'ClusterIP'"),
    "a budget that blocks every drain": (
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        "at '/podDisruptionBudget/maxUnavailable': minimum: got 0, want 1",
    ),
    "a budget of no per cent": (
        {"podDisruptionBudget": {"maxUnavailable": "0%"}},
        "at '/podDisruptionBudget/maxUnavailable': '0%' does not match",
    ),
    "root": ({"podSecurity": {"runAsUser": 0}}, "at '/podSecurity/runAsUser': minimum: got 0, want 1"),
    "a softer container": ({"podSecurity": {"privileged": True}}, "additional properties 'privileged' not allowed"),
    "a label of the chart's own": ({"podLabels": {"app.kubernetes.io/name": "x"}}, "invalid propertyName 'app.kubernetes.io/name'"),
    "an annotation of the chart's own": ({"podAnnotations": {"checksum/database": "x"}}, "invalid propertyName 'checksum/database'"),
    "a peer that is empty": (
        {"networkPolicy": {"ingress": {"callers": [{}]}}},
        "at '/networkPolicy/ingress/callers/0': minProperties: got 0, want 1",
    ),
    "no way to the database": (
        {"networkPolicy": {"egress": {"database": {"peers": []}}}},
        "at '/networkPolicy/egress/database/peers': minItems: got 0, want 1",
    ),
    "a volume that hides ours": ({"extraVolumes": [{"name": "tmp"}]}, "at '/extraVolumes/0/name': 'not' failed"),
    "a variable without name": ({"extraEnv": [{"value": "x"}]}, "at '/extraEnv/0': missing property 'name'"),
    "a proxy by its name": ({"proxies": {"trusted": ["lb.example.com"]}}, "at '/proxies/trusted/0': 'lb.example.com' does not match"),
    "an invalid digest": ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match"),
    "an invalid quantity": ({"resources": {"limits": {"memory": "much"}}}, "at '/resources/limits/memory': 'much' does not match"),
}


@pytest.mark.parametrize(("values", "sentence"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_the_schema_refuses(render, values, sentence):
    with pytest.raises(helm_python.HelmValuesError) as refused:
        render(values)
    assert sentence in str(refused.value)


BAD_COMBINATIONS = {
    "two sources of the URL": ({"database": {"existingSecret": "mine"}}, "database: give either `url` or `existingSecret`, not both"),
    "no source of the URL": (
        {"database": {"url": ""}},
        "database: give `url`, or `existingSecret` with the name of a Secret that contains it",
    ),
    "a grace period as long as the drain": (
        {"terminationGracePeriodSeconds": 40},
        "terminationGracePeriodSeconds: 40 is too short; preStopSeconds, delaySeconds and timeoutSeconds of `drain` are 40",
    ),
    "credentials from nowhere": (
        {"nats": {"credentialsKey": "user.creds"}},
        "nats.credentialsKey: is a key of `existingSecret`, which is not given",
    ),
    "two files of issuers": ({"tokens": {"existingConfigMap": "one", "existingSecret": "other"}}, "tokens: give either `existingConfigMap` or `existingSecret`, not both"),
    "mail from nobody": ({"mail": {"existingSecret": "offboard-mail"}}, "mail.from: must be given with `existingSecret`"),
    "mail without a server": ({"mail": {"from": "a@b.c"}}, "mail.from: needs `existingSecret`, with the URL of an SMTP server"),
    "a header of nobody": (
        {"proxies": {"forwardedHeader": "forwarded"}},
        "proxies.forwardedHeader: needs `trusted`; nobody else is believed",
    ),
    "a PROXY protocol of nobody": ({"proxies": {"proxyProtocol": True}}, "proxies.proxyProtocol: needs `trusted`; nobody else is believed"),
    "a variable that has a value": (
        {"extraEnv": [{"name": "OFFBOARD_ROLES", "value": "worker"}]},
        "extraEnv: OFFBOARD_ROLES is set by the chart",
    ),
    "the URL as a plain variable": (
        {"extraEnv": [{"name": "OFFBOARD_DATABASE_URL", "value": "x"}]},
        "extraEnv: OFFBOARD_DATABASE_URL is set by the chart",
    ),
    "ports that a headless Service cannot map": (
        {"service": {"headless": True, "ports": {"grpc": 443}}},
        "service.ports: a headless Service cannot map",
    ),
}


@pytest.mark.parametrize(("values", "sentence"), BAD_COMBINATIONS.values(), ids=BAD_COMBINATIONS)
def test_the_templates_refuse(render, values, sentence):
    with pytest.raises(helm_python.HelmRenderError) as refused:
        render(values)
    assert sentence in str(refused.value)


def test_all_faults_between_values_are_told_at_once(render):
    with pytest.raises(helm_python.HelmRenderError, match=r"the values have 3 fault\(s\)"):
        render(
            *(
                BAD_COMBINATIONS[name][0]
                for name in ("two sources of the URL", "a grace period as long as the drain", "a variable that has a value")
            )
        )
