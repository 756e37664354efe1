"""Content credentials (C2PA) of videos: what a video says of its making, who signed it, and whether the video is still the same."""
