"""HTML reports of a dub and of an evaluation: dataclasses are turned into a folder of pages and pictures."""
