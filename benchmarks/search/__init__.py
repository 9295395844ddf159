"""Test accuracy against model tokens, by strategy, mode and prior: ``python -m benchmarks.search --help``."""
