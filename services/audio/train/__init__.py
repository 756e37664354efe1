"""Training of the posteriorgram network: phone labels of a training set, the training, the evaluation."""
