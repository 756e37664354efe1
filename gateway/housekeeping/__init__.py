"""What jobs leave on disk and in the artefact store: lists, and removal by age, by size or by name."""
