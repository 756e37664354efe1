"""The audio stage: speech in, features a video frame out (mel, MFCC, phonetic posteriorgram, speech probability)."""
