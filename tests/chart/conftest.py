"""Renders the chart with Helm's own engine and hands its objects to the tests."""

import copy
from pathlib import Path

import helm_python
import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "offboard"
# The value sets that the chart ships for tests, by name.
VALUE_SETS = {path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text()) for path in sorted(CHART.glob("ci/*-values.yaml"))}
DATABASE_URL = VALUE_SETS["database-url"]["database"]["url"]


def merge(base, *overrides):
    """`base` with each of the `overrides` laid over it, as Helm does: mappings merge, everything else replaces."""
    merged = copy.deepcopy(base)
    for override in overrides:
        for key, value in override.items():
            both_map = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both_map else copy.deepcopy(value)
    return merged


class Release:
    """A rendered release: its objects, and the notes that Helm prints."""

    def __init__(self, chart, values, name, namespace):
        self.values = chart.merge_values(values)
        self.name, self.namespace = name, namespace
        self.files = chart.render(values, name=name, namespace=namespace, is_install=True)
        self.notes = self.files["offboard/templates/NOTES.txt"]
        documents = (document for path, text in self.files.items() if path.endswith(".yaml") for document in yaml.safe_load_all(text))
        self.objects = [document for document in documents if document]

    def of(self, kind, hook=None):
        """The objects of a kind. `hook` narrows them to those that are (or are not) hooks."""
        return [item for item in self.objects if item["kind"] == kind and hook in (None, is_hook(item))]

    def one(self, kind, hook=False):
        """The only object of a kind."""
        found = self.of(kind, hook)
        assert len(found) == 1, f"{len(found)} objects of the kind {kind} (hook: {hook})"
        return found[0]

    @property
    def deployment(self):
        return self.one("Deployment")

    @property
    def migration(self):
        return self.one("Job", hook=True)

    @property
    def workloads(self):
        """What starts pods."""
        return [item for item in self.objects if item["kind"] in ("Deployment", "Job")]


def is_hook(item):
    return "helm.sh/hook" in item["metadata"].get("annotations", {})


def pod(workload):
    """The pod specification of a Deployment or Job."""
    return workload["spec"]["template"]["spec"]


def container(workload):
    """The only container of a Deployment or Job."""
    (only,) = pod(workload)["containers"]
    return only


def environment(workload):
    """The variables of a Deployment or Job, by name."""
    return {variable["name"]: variable for variable in container(workload)["env"]}


@pytest.fixture(scope="session")
def chart():
    with helm_python.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart):
    """Renders the least values that work, with further ones laid over them."""

    def render(*overrides, name="prod", namespace="removal"):
        return Release(chart, merge({"database": {"url": DATABASE_URL}}, *overrides), name, namespace)

    return render


@pytest.fixture(scope="session", params=VALUE_SETS)
def release(request, chart):
    """Each value set in turn."""
    return Release(chart, VALUE_SETS[request.param], "prod", "removal")
