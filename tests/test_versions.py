"""What the page on versions says is so: the public modules, the Pythons, and the floors of the dependencies."""

from __future__ import annotations

import importlib
import re
import tomllib

import pytest

from tests.support.programs import PAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGE = PAGES["docs/versions.md"]
PUBLIC = re.findall(r"`(enclave[.\w]*)`", PAGE.partition("## What is public")[2].partition("The [reference]")[0])
NOT_PINNED = {"mcp", "ray"}  # extras, as the page says


def floors(requirements: list[str]) -> dict[str, str]:
    """The lowest release of each that is allowed, with three numbers as a pin has them."""
    found = [re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement) for requirement in requirements]
    return {each[1]: ".".join([*each[2].split("."), "0", "0"][:3]) for each in found}


def test_the_page_names_public_modules() -> None:
    assert {"enclave", "enclave.errors", "enclave.simulator"} <= set(PUBLIC)


@pytest.mark.parametrize("module", PUBLIC)
def test_each_public_module_says_what_is_public_in_it(module: str) -> None:
    assert importlib.import_module(module).__all__


def test_the_page_names_the_pythons_that_the_package_names() -> None:
    pythons = re.findall(r"Python :: (3\.\d+)", "".join(PROJECT["classifiers"]))
    assert re.findall(r"3\.\d+", PAGE.partition("## Pythons")[2].partition("##")[0]) == pythons
    assert PROJECT["requires-python"] == f">={pythons[0]}"


def test_the_page_names_every_extra() -> None:
    extras = re.search(r"- The extras: (.*)\.\n", PAGE)[1]
    assert set(re.findall(r"`(\w+)`", extras)) == PROJECT["optional-dependencies"].keys()


def test_the_floors_that_are_tested_are_those_of_the_package() -> None:
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "tests/lowest-pins.txt").read_text(), re.MULTILINE))
    required = floors(PROJECT["dependencies"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra not in NOT_PINNED:
            required |= floors(requirements)
    assert required.items() <= pins.items()


def test_a_dependency_has_no_ceiling_but_mcp() -> None:
    requirements = [
        *PROJECT["dependencies"],
        *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
    ]
    assert [each.partition(">")[0] for each in requirements if "<" in each] == ["mcp"]
