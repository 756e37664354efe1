"""A still picture whose head turns and whose eyes shut."""
