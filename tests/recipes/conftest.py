"""The files of a recipe's page in a folder of their own, as a reader would have them, and no word to anybody else."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.programs import files

SILENCE = {"OPENAI_AGENTS_DISABLE_TRACING": "1", "LANGSMITH_TRACING": "false"}


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SILENCE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[str], Path]:
    """`folder_of(page)` is a folder with the files that the page names."""

    def write(page: str) -> Path:
        for name, text in files(page).items():
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


@pytest.fixture
def module_of(folder_of: Callable[[str], Path]) -> Iterator[Callable[[str], ModuleType]]:
    """`module_of(page)` is the module that the page's first file is, freshly imported."""
    loaded: list[str] = []

    def load(page: str) -> ModuleType:
        path = folder_of(page) / next(iter(files(page)))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # frameworks look annotations up there
        loaded.append(path.stem)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]
