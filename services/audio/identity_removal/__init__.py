"""Identity removal: cepstra that keep the words and lose the speaker."""
