"""What holds of every release of the chart, and what single values do."""

import base64
import re
import tomllib

import helm_python
import kubernetes_validate
import kubernetes_validate.utils
import pytest
from conftest import CHART, DATABASE_URL, VALUE_SETS, container, environment, is_hook, pod

KUBERNETES_VERSIONS = sorted({version for version in kubernetes_validate.utils.all_versions() if int(version.split(".")[1]) >= 30})
with helm_python.Chart.load(CHART) as loaded:
    APP_VERSION = loaded.metadata["appVersion"]
# Objects whose schema comes with an operator and not with Kubernetes.
FOREIGN_KINDS = {"PodMonitor"}


def selected(selector, workload):
    """Whether a label selector selects the pods of a workload."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return selector.items() <= labels.items()


# The chart as such


@pytest.mark.parametrize("values", [{}, *VALUE_SETS.values()], ids=["defaults", *VALUE_SETS])
def test_lint_finds_nothing_that_matters(values):
    report = helm_python.lint(CHART, values, strict=True, kube_version="v1.30.0")
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_what_kubernetes_accepts(release, version):
    for item in release.objects:
        if item["kind"] not in FOREIGN_KINDS:
            kubernetes_validate.validate(item, version, strict=True)


def test_the_oldest_kubernetes_admitted_is_the_oldest_tested(chart):
    assert chart.metadata["kubeVersion"] == f">={KUBERNETES_VERSIONS[0]}-0"


def test_the_chart_installs_the_version_of_this_source():
    manifest = tomllib.loads((CHART.parents[1] / "Cargo.toml").read_text())
    assert manifest["package"]["version"] == APP_VERSION


def test_names_are_unique_and_short_enough(render):
    release = render(VALUE_SETS["everything"], {"nameOverride": "n" * 50}, name="r" * 53)
    names = [(item["kind"], item["metadata"]["name"]) for item in release.objects]
    assert len(set(names)) == len(names)
    assert max(len(name) for _, name in names) <= 63


def test_every_object_carries_the_recommended_labels_and_the_namespace(release):
    for item in release.objects:
        metadata = item["metadata"]
        assert metadata["namespace"] == "removal"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "prod"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "offboard"
        assert {"app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/version", "helm.sh/chart"} <= metadata[
            "labels"
        ].keys()


# What selects what


def test_selectors_meet_the_replicas_and_never_the_migration(release):
    selectors = [
        item["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor") for item in release.of(kind)
    ]
    selectors += [item["spec"]["selector"] for item in release.of("Service")]
    selectors += [item["spec"]["podSelector"]["matchLabels"] for item in release.of("NetworkPolicy", hook=False)]
    assert len(selectors) >= 3
    for selector in selectors:
        # Neither version nor chart: pods of the release before are selected too, and a Deployment's selector cannot change.
        assert set(selector) == {f"app.kubernetes.io/{label}" for label in ("name", "instance", "component")}
        assert selected(selector, release.deployment)
        assert not any(selected(selector, job) for job in release.of("Job"))


def test_replicas_are_spread_by_their_own_labels_unless_others_are_given(render):
    for constraint in pod(render().deployment)["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == render().deployment["spec"]["selector"]["matchLabels"]
    (given,) = pod(render(VALUE_SETS["everything"]).deployment)["topologySpreadConstraints"]
    assert given["labelSelector"]["matchLabels"] == {"example.com/team": "platform"}


def test_two_releases_in_one_namespace_do_not_select_each_other(render):
    assert not selected(render(name="one").deployment["spec"]["selector"]["matchLabels"], render(name="two").deployment)


# Security


def test_pods_run_as_anybody_but_root_with_nothing_to_spare(release):
    for workload in release.workloads:
        spec, security = pod(workload), container(workload)["securityContext"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsUser", 65532) > 0
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["privileged"] is False
        assert security["runAsNonRoot"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_an_identity_of_null_is_left_to_the_cluster(render):
    assert pod(render().deployment)["securityContext"]["runAsUser"] == 65532
    assert "runAsUser" not in pod(render(VALUE_SETS["three-replicas"]).deployment)["securityContext"]


def test_tmp_is_writable_although_the_root_is_not(release):
    for workload in release.workloads:
        (volume,) = [volume for volume in pod(workload)["volumes"] if volume["name"] == "tmp"]
        assert "emptyDir" in volume
        assert {"name": "tmp", "mountPath": "/tmp"} in container(workload)["volumeMounts"]


def test_every_container_asks_for_and_is_limited_in_memory(release):
    for workload in release.workloads:
        resources = container(workload)["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys()
        assert "memory" in resources["limits"]


def test_service_accounts_hand_out_no_token(release):
    assert release.of("ServiceAccount")
    for account in release.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


# The database's URL


def test_the_url_of_the_database_lies_in_secrets_alone(render):
    release = render()
    encoded = base64.b64encode(DATABASE_URL.encode()).decode()
    for secret in release.of("Secret"):
        assert secret["data"] == {"database-url": encoded}
        del secret["data"]
    assert "s3cret-of-the-test" in DATABASE_URL
    rest = f"{release.objects} {release.notes}"
    assert "s3cret-of-the-test" not in rest and encoded not in rest


def test_a_url_that_is_refused_is_not_repeated(render):
    with pytest.raises(helm_python.HelmError, match="must begin with postgres://") as refused:
        render({"database": {"url": "mysql://user:s3cret-of-the-test@db/offboard"}})
    assert "s3cret-of-the-test" not in str(refused.value)


def test_every_pod_reads_the_url_from_a_secret_that_is_there(release):
    database = release.values["database"]
    for workload in release.workloads:
        variable = environment(workload)["OFFBOARD_DATABASE_URL"]
        assert "value" not in variable
        reference = variable["valueFrom"]["secretKeyRef"]
        if database["existingSecret"]:
            assert reference == {"name": database["existingSecret"], "key": database["existingSecretKey"]}
            assert release.of("Secret") == []
        else:
            secret = release.one("Secret", hook=is_hook(workload))
            assert reference["name"] == secret["metadata"]["name"]
            assert reference["key"] in secret["data"]


def test_a_changed_url_rolls_the_pods_and_an_unchanged_one_does_not(render):
    def annotations(url):
        return render({"database": {"url": url}}).deployment["spec"]["template"]["metadata"]["annotations"]

    assert annotations("postgres://one/db") == annotations("postgres://one/db")
    assert annotations("postgres://one/db") != annotations("postgres://two/db")


# The migration


def test_the_migration_runs_before_each_install_and_upgrade(render):
    migration = render().migration
    assert container(migration)["args"] == ["migrate"]
    assert pod(migration)["restartPolicy"] == "Never"
    assert migration["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_what_the_migration_needs_is_made_before_it_and_removed_after(release):
    if not release.of("Job"):
        assert not [item for item in release.objects if is_hook(item)]
        return
    job = release.migration
    for item in filter(is_hook, release.objects):
        annotations = item["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        if item is not job:
            assert int(annotations["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])
    account = release.one("ServiceAccount", hook=True)
    assert pod(job)["serviceAccountName"] == account["metadata"]["name"]
    policy = release.one("NetworkPolicy", hook=True)
    assert selected(policy["spec"]["podSelector"]["matchLabels"], job)


def test_the_replicas_need_nothing_that_is_removed_with_the_hooks(render):
    release = render()
    assert pod(release.deployment)["serviceAccountName"] == release.one("ServiceAccount")["metadata"]["name"]
    reference = environment(release.deployment)["OFFBOARD_DATABASE_URL"]["valueFrom"]["secretKeyRef"]
    assert reference["name"] == release.one("Secret")["metadata"]["name"]


def test_an_account_of_ones_own_serves_the_replicas_and_the_migration(render):
    release = render({"serviceAccount": {"create": False, "name": "mine"}})
    assert release.of("ServiceAccount") == []
    assert {pod(workload)["serviceAccountName"] for workload in release.workloads} == {"mine"}


def test_the_migration_and_the_replicas_run_the_same_image(release):
    assert len({container(workload)["image"] for workload in release.workloads}) == 1


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"tag": ""}, f"offboard:{APP_VERSION}"),
        ({"repository": "registry.example.com/offboard", "tag": "2.0.0"}, "registry.example.com/offboard:2.0.0"),
        ({"tag": "2.0.0", "digest": f"sha256:{'a' * 64}"}, f"offboard@sha256:{'a' * 64}"),
    ],
)
def test_the_image_is_the_digest_else_the_tag_else_the_version_of_the_service(render, image, expected):
    assert container(render({"image": image}).deployment)["image"] == expected


# Listeners, probes and settings


def test_the_service_leads_to_listeners_that_are_there(render):
    release = render({"service": {"ports": {"grpc": 443, "http": 80}}})
    listeners = {port["name"]: port["containerPort"] for port in container(release.deployment)["ports"]}
    assert listeners == {"grpc": 50051, "http": 8080, "admin": 9464}
    ports = {port["name"]: port for port in release.one("Service")["spec"]["ports"]}
    assert {name: (port["port"], port["targetPort"]) for name, port in ports.items()} == {"grpc": (443, "grpc"), "http": (80, "http")}
    assert ports["grpc"]["appProtocol"] == "kubernetes.io/h2c"


@pytest.mark.parametrize(("roles", "listeners"), [(["grpc"], {"grpc"}), (["gateway", "worker"], {"http"}), (["worker"], set())])
def test_only_the_listeners_of_the_roles_are_open(render, roles, listeners):
    release = render({"roles": roles})
    assert {port["name"] for port in container(release.deployment)["ports"]} == listeners | {"admin"}
    assert {port["name"] for service in release.of("Service") for port in service["spec"]["ports"]} == listeners
    rules = release.one("NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} == listeners | {"admin"}
    assert environment(release.deployment)["OFFBOARD_ROLES"]["value"] == ",".join(roles)


def test_a_headless_service_has_no_address(render):
    assert render({"service": {"headless": True}}).one("Service")["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in render().one("Service")["spec"]


def test_probes_ask_the_listeners_that_can_tell(release):
    server = container(release.deployment)
    assert server["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}
    assert server["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    if "grpc" in release.values["roles"]:
        assert server["startupProbe"]["grpc"] == {"port": 50051}
    else:
        assert server["startupProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}


@pytest.mark.parametrize("seconds", [2, 7, 120])
def test_the_startup_probe_waits_as_long_as_it_is_told(render, seconds):
    probe = container(render({"startupSeconds": seconds}).deployment)["startupProbe"]
    assert seconds <= probe["failureThreshold"] * probe["periodSeconds"] < seconds + 2


def test_settings_reach_the_service(render):
    assert container(render().deployment)["args"] == ["serve"]
    variables = environment(render(VALUE_SETS["everything"]).deployment)
    assert {name: variable["value"] for name, variable in variables.items() if "value" in variable} == {
        "OFFBOARD_GRPC_ADDR": "0.0.0.0:50051",
        "OFFBOARD_HTTP_ADDR": "0.0.0.0:8080",
        "OFFBOARD_ADMIN_ADDR": "0.0.0.0:9464",
        "OFFBOARD_ROLES": "grpc,gateway,worker",
        "OFFBOARD_DRAIN_DELAY": "5",
        "OFFBOARD_DRAIN_TIMEOUT": "30",
        "OFFBOARD_LOG_FORMAT": "json",
        "OFFBOARD_LOG": "info,offboard::jobs=debug",
        "OFFBOARD_DB_POOL_SIZE": "8",
        "OFFBOARD_PUBLIC_URL": "https://offboard.example.com",
        "OFFBOARD_CORS_ORIGINS": "https://app.example.com,http://localhost:3000",
        "OFFBOARD_MAX_BODY_BYTES": "8388608",
        "OFFBOARD_MAX_CONCURRENT_CALLS": "256",
        "OFFBOARD_RATE_LIMIT": "0",
        "OFFBOARD_WRITE_RATE_LIMIT": "50",
        "OFFBOARD_TASK_RATE_LIMIT": "5",
        "OFFBOARD_STREAM_RATE_LIMIT": "20",
        "OFFBOARD_REALM_RATE_LIMIT": "1000",
        "OFFBOARD_REALM_WRITE_RATE_LIMIT": "200",
        "OFFBOARD_REALM_TASK_RATE_LIMIT": "20",
        "OFFBOARD_REALM_STREAM_RATE_LIMIT": "80",
        "OFFBOARD_ADDRESS_RATE_LIMIT": "10",
        "OFFBOARD_IDEMPOTENCY_RECORDS": "100000",
        "OFFBOARD_IDEMPOTENCY_BYTES": "67108864",
        "OFFBOARD_KEYS_PER_REALM": "5000",
        "OFFBOARD_MAX_TOKEN_BYTES": "4096",
        "OFFBOARD_JWKS_REFRESH": "60",
        "OFFBOARD_JWKS_REFETCH": "0.5",
        "OFFBOARD_JWKS_OUTAGE": "7200",
        "OFFBOARD_AUTH_FILE": "/etc/offboard/auth/issuers.toml",
        "OFFBOARD_REQUEST_TIMEOUT": "30",
        "OFFBOARD_REALM_CONCURRENT_CALLS": "100",
        "OFFBOARD_KEY_CONCURRENT_CALLS": "50",
        "OFFBOARD_MAX_CONCURRENT_STREAMS": "400",
        "OFFBOARD_REALM_CONCURRENT_STREAMS": "200",
        "OFFBOARD_KEY_CONCURRENT_STREAMS": "100",
        "OFFBOARD_STREAM_SILENCE_TIMEOUT": "20",
        "OFFBOARD_REALM_DB_CONNECTIONS": "6",
        "OFFBOARD_SLOW_DB_CONNECTIONS": "2",
        "OFFBOARD_MAX_CONNECTIONS": "500",
        "OFFBOARD_MAX_CONNECTIONS_PER_ADDRESS": "100",
        "OFFBOARD_MAX_STREAMS_PER_CONNECTION": "128",
        "OFFBOARD_HEAD_TIMEOUT": "2.5",
        "OFFBOARD_IDLE_TIMEOUT": "620",
        "OFFBOARD_IDLE_TIMEOUT_WITHOUT_KEY": "0",
        "OFFBOARD_TRUSTED_PROXIES": "10.1.0.0/16,2001:db8::/32",
        "OFFBOARD_FORWARDED_HEADER": "forwarded",
        "OFFBOARD_PROXY_PROTOCOL": "true",
        "OFFBOARD_REFLECTION": "key",
        "OFFBOARD_GRPC_KEEPALIVE_INTERVAL": "45",
        "OFFBOARD_GRPC_KEEPALIVE_TIMEOUT": "2.5",
        "OFFBOARD_GRPC_MAX_CONNECTION_AGE": "900",
        "OFFBOARD_GRPC_MAX_CONNECTION_AGE_GRACE": "0",
        "OFFBOARD_OTLP_ENDPOINT": "http://collector.monitoring:4317",
        "OFFBOARD_BULK_WORKERS": "2",
        "OFFBOARD_BODY_MEMORY_BYTES": "134217728",
        "OFFBOARD_RESPONSE_MEMORY_BYTES": "67108864",
        "OFFBOARD_BULK_IDLE_WORKERS": "0",
        "OFFBOARD_BULK_CHUNK_TARGET": "0.05",
        "OFFBOARD_BULK_CHUNK_SIZE": "5000",
        "OFFBOARD_BULK_TURN": "0",
        "OFFBOARD_NATS_SUBJECT_PREFIX": "platform.offboard",
        "OFFBOARD_NATS_STREAM": "REMOVALS",
        "OFFBOARD_NATS_CREATE_STREAM": "false",
        "OFFBOARD_NATS_CREDENTIALS_FILE": "/etc/nats/user.creds",
        "OFFBOARD_MAIL_FROM": "Offboard <offboard@example.com>",
        "OFFBOARD_MAILS_PER_HOUR": "60",
        "PGSSLROOTCERT": "/etc/database/ca.crt",
    }


def test_settings_without_a_value_are_left_to_the_service(render):
    variables = environment(render().deployment).keys()
    assert not {"OFFBOARD_DB_POOL_SIZE", "OFFBOARD_PUBLIC_URL", "OFFBOARD_OTLP_ENDPOINT", "OFFBOARD_CORS_ORIGINS"} & variables
    assert not {"OFFBOARD_MAX_BODY_BYTES", "OFFBOARD_RATE_LIMIT", "OFFBOARD_REQUEST_TIMEOUT", "OFFBOARD_REFLECTION"} & variables
    assert not {"OFFBOARD_MAX_CONNECTIONS", "OFFBOARD_HEAD_TIMEOUT", "OFFBOARD_IDLE_TIMEOUT"} & variables
    assert not {"OFFBOARD_TRUSTED_PROXIES", "OFFBOARD_FORWARDED_HEADER", "OFFBOARD_PROXY_PROTOCOL"} & variables
    assert not [name for name in variables if name.startswith("OFFBOARD_GRPC_") and name != "OFFBOARD_GRPC_ADDR"]
    assert not [name for name in variables if name.startswith(("OFFBOARD_NATS", "OFFBOARD_BULK", "OFFBOARD_SMTP", "OFFBOARD_MAIL"))]


def test_the_url_and_the_credentials_of_nats_come_from_a_secret(render):
    release = render(VALUE_SETS["everything"])
    assert environment(release.deployment)["OFFBOARD_NATS_URL"]["valueFrom"]["secretKeyRef"] == {"name": "offboard-nats", "key": "nats-url"}
    (volume,) = [volume for volume in pod(release.deployment)["volumes"] if volume["name"] == "nats"]
    (mount,) = [mount for mount in container(release.deployment)["volumeMounts"] if mount["name"] == "nats"]
    (item,) = volume["secret"]["items"]
    file = environment(release.deployment)["OFFBOARD_NATS_CREDENTIALS_FILE"]["value"]
    assert volume["secret"]["secretName"] == "offboard-nats"
    assert (item["key"], f"{mount['mountPath']}/{item['path']}") == ("user.creds", file)
    assert not [name for name in environment(release.migration) if "NATS" in name]


def test_the_url_of_the_mail_server_comes_from_a_secret(render):
    release = render(VALUE_SETS["everything"])
    assert environment(release.deployment)["OFFBOARD_SMTP_URL"]["valueFrom"]["secretKeyRef"] == {"name": "offboard-mail", "key": "smtp-url"}
    assert environment(release.deployment)["OFFBOARD_MAILS_PER_HOUR"]["value"] == "60"
    assert not [name for name in environment(release.migration) if "SMTP" in name or "MAIL" in name]


@pytest.mark.parametrize(("value", "kind", "name"), [("existingConfigMap", "configMap", "name"), ("existingSecret", "secret", "secretName")])
def test_the_file_of_issuers_is_mounted_whole_so_that_it_can_change(render, value, kind, name):
    release = render({"tokens": {value: "issuers"}})
    (volume,) = [volume for volume in pod(release.deployment)["volumes"] if volume["name"] == "auth"]
    (mount,) = [mount for mount in container(release.deployment)["volumeMounts"] if mount["name"] == "auth"]
    assert volume[kind] == {name: "issuers"}
    assert mount == {"name": "auth", "mountPath": "/etc/offboard/auth", "readOnly": True}
    assert environment(release.deployment)["OFFBOARD_AUTH_FILE"]["value"] == "/etc/offboard/auth/auth.toml"
    assert "OFFBOARD_AUTH_FILE" not in environment(release.migration)
    assert "OFFBOARD_AUTH_FILE" not in environment(render().deployment)


def test_further_variables_and_volumes_reach_the_migration_too(render):
    migration = render(VALUE_SETS["everything"]).migration
    assert {"PGSSLROOTCERT", "PGPASSWORD"} <= environment(migration).keys()
    assert "database-ca" in [volume["name"] for volume in pod(migration)["volumes"]]
    assert "/etc/database" in [mount["mountPath"] for mount in container(migration)["volumeMounts"]]


# Shutting down, and surviving a drain of nodes


def test_the_grace_period_outlasts_the_drain(release):
    server, variables = container(release.deployment), environment(release.deployment)
    before_the_signal = server.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    after_the_signal = int(variables["OFFBOARD_DRAIN_DELAY"]["value"]) + int(variables["OFFBOARD_DRAIN_TIMEOUT"]["value"])
    assert before_the_signal == release.values["drain"]["preStopSeconds"]
    assert pod(release.deployment)["terminationGracePeriodSeconds"] > before_the_signal + after_the_signal


def test_the_grace_period_follows_the_drain(render):
    drain = {"preStopSeconds": 1, "delaySeconds": 20, "timeoutSeconds": 300}
    assert pod(render({"drain": drain}).deployment)["terminationGracePeriodSeconds"] == 331
    given = {"drain": drain, "terminationGracePeriodSeconds": 322}
    assert pod(render(given).deployment)["terminationGracePeriodSeconds"] == 322


def test_stopping_needs_no_shell(release):
    assert "exec" not in container(release.deployment).get("lifecycle", {}).get("preStop", {})
    assert not any("exec" in container(release.deployment)[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe"))


def test_nodes_can_be_drained_and_no_rollout_lowers_the_number_of_replicas(render):
    release = render({"replicaCount": 1})
    assert release.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert release.deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


# Network


def test_the_network_is_closed_but_for_what_is_named(release):
    for policy in release.of("NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        # An absent or empty list of peers means everybody.
        for rule in policy["spec"]["ingress"]:
            assert rule["from"] and rule["ports"]
        for rule in policy["spec"]["egress"]:
            assert rule["to"] and rule["ports"]


def test_callers_and_monitoring_see_different_listeners(render):
    callers, monitoring = [{"podSelector": {"matchLabels": {"a": "b"}}}], [{"namespaceSelector": {"matchLabels": {"c": "d"}}}]
    release = render({"networkPolicy": {"ingress": {"callers": callers, "monitoring": monitoring}}})
    listeners = [(rule["from"], {port["port"] for port in rule["ports"]}) for rule in release.one("NetworkPolicy")["spec"]["ingress"]]
    assert listeners == [(callers, {"grpc", "http"}), (monitoring, {"admin"})]


def test_nobody_named_means_nobody_let_in(render):
    release = render({"networkPolicy": {"ingress": {"callers": [], "monitoring": []}}})
    assert [policy["spec"]["ingress"] for policy in release.of("NetworkPolicy")] == [[], []]


def test_the_database_is_reached_by_the_replicas_and_the_migration(release):
    port = release.values["networkPolicy"]["egress"]["database"]["port"]
    policies = release.of("NetworkPolicy")
    assert len(policies) == len(release.workloads)
    for policy in policies:
        open_ports = {item["port"] for rule in policy["spec"]["egress"] for item in rule["ports"]}
        assert {53, port} <= open_ports


def test_the_collector_is_reached_once_there_is_one(render):
    def ports(*values):
        return {port["port"] for rule in render(*values).one("NetworkPolicy")["spec"]["egress"] for port in rule["ports"]}

    assert 4317 not in ports()
    assert 4317 in ports({"telemetry": {"otlpEndpoint": "http://collector:4317"}})


def test_nats_is_reached_once_there_is_one(render):
    def ports(*values):
        return {port["port"] for rule in render(*values).one("NetworkPolicy")["spec"]["egress"] for port in rule["ports"]}

    assert 4222 not in ports()
    assert 4222 in ports({"nats": {"existingSecret": "offboard-nats"}})


def test_the_mail_server_is_reached_once_there_is_one(render):
    def ports(*values):
        return {port["port"] for rule in render(*values).one("NetworkPolicy")["spec"]["egress"] for port in rule["ports"]}

    assert 587 not in ports()
    assert 587 in ports({"mail": {"existingSecret": "offboard-mail", "from": "offboard@example.com"}})


def test_the_keys_of_issuers_are_reached_once_there_are_any(render):
    def ports(*values):
        return {port["port"] for rule in render(*values).one("NetworkPolicy")["spec"]["egress"] for port in rule["ports"]}

    assert 443 not in ports()
    for value in ("existingConfigMap", "existingSecret"):
        assert 443 in ports({"tokens": {value: "issuers"}})
    elsewhere = {"networkPolicy": {"egress": {"jwks": {"port": 8443}}}}
    assert 8443 in ports({"tokens": {"existingSecret": "issuers"}}, elsewhere)


def test_the_monitor_scrapes_a_port_that_is_there(render):
    release = render(VALUE_SETS["everything"])
    (endpoint,) = release.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("admin", "/metrics", "15s")
    assert release.one("PodMonitor")["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"podDisruptionBudget": {"enabled": False}}, "PodDisruptionBudget"),
        ({"networkPolicy": {"enabled": False}}, "NetworkPolicy"),
        ({"migration": {"enabled": False}}, "Job"),
        ({"metrics": {"podMonitor": {"enabled": False}}}, "PodMonitor"),
    ],
)
def test_what_is_switched_off_is_not_made(render, values, kind):
    everything = VALUE_SETS["everything"]
    assert render(everything).of(kind)
    assert render(everything, values).of(kind) == []


def test_the_notes_name_what_was_installed(release):
    commands = set(re.findall(r"(?:deployment|service)/\S+", release.notes))
    kinds = {"Deployment": "deployment", "Service": "service"}
    assert commands == {f"{kinds[item['kind']]}/{item['metadata']['name']}" for item in release.objects if item["kind"] in kinds}
