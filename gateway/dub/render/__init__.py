"""Mouths and videos: windows of mouths, background videos, composited frames and encoded segments."""
