"""Motion predictor `dubstage`: a linear map from states of a pretrained speech encoder to the mouth."""
