"""The motion predictor `hetero`: mel spectrogram, reference landmarks and pose landmarks in, mouth landmarks out."""
