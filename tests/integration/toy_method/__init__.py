"""A whole method in two small rooms. test_toy_method.py copies this package to a temporary folder and registers its parts there."""
