"""The files beside the package agree with it and with each other: version, bounds, tested versions, commands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import captum_ablate

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")  # pytest brings the latter
ROOT = Path(__file__).parents[1]
if not (ROOT / "pyproject.toml").exists():
    pytest.skip("the project's files are not beside the tests", allow_module_level=True)
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def dependencies(*extras: str) -> list[Requirement]:
    """The package's dependencies and those of ``extras``."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    return [r for r in map(Requirement, lines) if r.name != "captum-ablate"]


def pins(name: str, python: str) -> dict[str, str]:
    """The version of each package that a file of constraints pins for a version of Python."""
    found = [Requirement(line) for line in read(name).splitlines() if line and not line.startswith("#")]
    found = [r for r in found if r.marker is None or r.marker.evaluate({"python_version": python})]
    assert len({r.name for r in found}) == len(found), "a package is pinned twice"
    return {r.name: str(r.specifier).removeprefix("==") for r in found}


def test_the_version_stands_in_the_package_alone_and_the_citation_agrees():
    assert 'dynamic = ["version"]' in read("pyproject.toml")
    assert re.search(r"^version: (.+)$", read("CITATION.cff"), flags=re.M).group(1) == captum_ablate.__version__


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_a_tested_version_within_its_bounds(python):
    tested = pins("constraints.txt", python)
    for requirement in dependencies("demo", "papers", "dev"):
        assert tested[requirement.name] in requirement.specifier, requirement


def test_the_lower_bounds_are_the_oldest_versions_that_were_tested():
    oldest = {name: Version(version) for name, version in pins("constraints-oldest.txt", "3.10").items()}
    bounds = {r.name: Version(str(r.specifier).removeprefix(">=")) for r in dependencies("demo")}
    assert bounds.items() <= oldest.items()


def targets() -> set[str]:
    return set(re.search(r"^\.PHONY: (.+)$", read("Makefile"), flags=re.M).group(1).split())


def test_the_readme_names_the_demo_and_the_tests():
    assert {"demo", "test"} <= set(re.findall(r"^make (\S+)", read("README.md"), flags=re.M)) <= targets()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/performance.md", "docs/zoo.md"])
def test_the_commands_that_a_page_names_exist(page):
    named = set(re.findall(r"`make ([a-z-]+)", read(page)))
    assert named
    assert named <= targets()


@pytest.mark.skipif(not (ROOT / ".github").exists(), reason="a source distribution has no workflows")
def test_the_commands_that_the_workflows_run_exist():
    pages = "".join(read(f".github/workflows/{name}.yml") for name in ("test", "docs"))
    assert set(re.findall(r"run: make (\S+)", pages)) == {"check", "test", "examples", "demo"} & targets()
