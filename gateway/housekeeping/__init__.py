"""What jobs leave on disk and in the artefact store: looked at, and removed by age, by size or by name."""
