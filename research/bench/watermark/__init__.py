"""Benchmarks of the watermark: how well it holds, how often it is found in videos without one, and its cost."""
