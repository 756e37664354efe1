"""Reproduction of the five papers: the protocol of each paper on the data at hand, and our figures beside those of the paper."""
