"""The motion stage: audio features and a speaking style in, mouth motion out; and the lag between sound and picture."""
