"""How tests run the build's script here, on a folder of their own."""

import os
from subprocess import CompletedProcess

import pytest
import tensorflow_datasets as tfds

import prepare_data


@pytest.fixture
def use_data(monkeypatch):
    """Return a function that makes a folder that of tensorflow-datasets, here."""
    return lambda data: monkeypatch.setattr(
        tfds.core.constants, "DATA_DIR", os.fspath(data)
    )


@pytest.fixture
def build(use_data, monkeypatch, capsys, tmp_path):
    """Return a function that runs the script's ``main`` and tells what came of it.

    A child would import TensorFlow first, which takes longer than all that is tested.
    """
    monkeypatch.setattr(prepare_data, "FACTS", tmp_path / "docs/_build/data.json")

    def run():
        use_data(tmp_path / "data")
        (tmp_path / "docs").mkdir(exist_ok=True)
        try:
            status, message = 0, prepare_data.main()
        except SystemExit as stop:  # with what Python prints before it ends
            status, message = 1, stop.code
        output, errors = capsys.readouterr()
        return CompletedProcess("main", status, output, f"{errors}{message}\n")

    return run
