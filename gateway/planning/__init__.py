"""Capacity planning: how many replicas of each stage some live streams and some hours of film a night need."""
