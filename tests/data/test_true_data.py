"""The true data, from the first real source that answers."""

import json

import tensorflow_datasets as tfds

from helpers import SHA256, lack


def test_the_true_data_is_prepared(build, tmp_path):
    end = build()
    if end.returncode != 0:
        # Otherwise a mistake in the script could pass for a missing network.
        assert end.stderr.startswith("Fashion-MNIST could not be had:\n")
        assert "sha256" not in end.stderr
        # A person without a network can test the rest; CI has to test this, too.
        lack(end.stderr)
    folder = tmp_path / "data/fashion_mnist/3.0.1"
    splits = tfds.builder_from_directory(folder).info.splits
    sizes = {name: split.num_examples for name, split in splits.items()}
    assert sizes == {"train": 60_000, "test": 10_000}
    facts = json.loads((tmp_path / "docs/_build/data.json").read_text())
    assert facts["sha256"] == SHA256
