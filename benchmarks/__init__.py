"""What keras_flows costs beside code written by hand: tools/benchmark.py."""
