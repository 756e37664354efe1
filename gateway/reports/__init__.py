"""HTML reports of a dub and of an evaluation: plain dataclasses in, a folder of pages and pictures out."""
