"""A whole method in small packages. test_toy_method.py adds their folders to those of the stages, and their rows to the table."""
