"""A dub in two passes: analyse the footage and the speech, then render windows and write the video."""
