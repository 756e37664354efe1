"""Content credentials (C2PA) of films: what a film says of its making, who signed it, and whether the film is still the same."""
