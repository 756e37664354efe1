"""How well the watermark of dubbed mouths holds, how often it is seen where there is none, and what it costs."""
