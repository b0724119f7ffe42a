"""How long and thin a picture may be; apart from what resizes it, because this imports nothing.

Source: AIDC-AI/Ovis @ 4de4946, `smart_resize`.
"""

#: A picture that is more than this many times as long as wide is not resized but squeezed.
MAX_ASPECT_RATIO = 200
