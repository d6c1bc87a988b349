"""What tools/benchmark.py measures, a function for each suite."""
