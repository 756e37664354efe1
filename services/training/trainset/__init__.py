"""Training sets: one layout on disk that every trainer reads.

    SET/manifest.jsonl                      one line a clip (manifest.ClipRow)
    SET/refused.jsonl                       one line a clip that was left out, with the reason
    SET/incomplete.jsonl                    one line a clip that a preparation could not complete, with the reason
    SET/shards/00000/NAME.track.safetensors     face: landmarks, head pose, mouth, render boxes (films only)
    SET/shards/00000/NAME.sound.safetensors     sound: samples at 16 kHz
    SET/shards/00000/NAME.speech.safetensors    features of the sound on the motion grid
    SET/shards/00000/NAME.phones.safetensors    phone classes of the sound's rows
    SET/shards/00000/NAME.clip.json             file and networks that the clip was made with; `dubstage trainset` alone reads it
    SET/identities/SPEAKER.safetensors          identity of a person, SPEAKER.still.safetensors: from one frame

A shard is a folder of at most `layout.CLIPS_A_SHARD` clips, so that no folder grows without bound. Trainers read the clips that
they draw, when they draw them, and keep a bounded number of bytes.
"""
