"""State of a job on the disk: its folder, records, journal and pictures, and what a dub takes of disk and time."""
