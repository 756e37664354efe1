"""The texture stage: mouth textures, drawn faces and backgrounds of a person."""
