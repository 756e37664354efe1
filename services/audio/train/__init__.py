"""Training of the phonetic posteriorgram network: labels by forced alignment, the loop, the evaluation."""
