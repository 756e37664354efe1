"""Motion predictor `speech_map`: from states of a pretrained speech encoder to the mouth."""
