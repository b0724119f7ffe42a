"""Which frames of a video the model sees.  The one sampler, used wherever videos are read.

Source: AIDC-AI/Ovis @ 4de4946, `MultimodalDataset.get_frames`.
"""

SAMPLER_NAME = "uniform_midpoint"


def sample_frame_indices(num_frames: int, *, min_frames: int, max_frames: int) -> list[int]:
    """Pick the middle frame of equal stretches of the video.

    With min_frames <= num_frames <= max_frames every frame is taken; a shorter video repeats
    frames until there are min_frames, a longer one is thinned to max_frames.

    Args:
        num_frames: Frames in the video.
        min_frames: Fewest frames wanted.
        max_frames: Most frames wanted.

    Returns:
        Frame indices in ascending order.

    Raises:
        ValueError: If there is no frame, or the limits are not 1 <= min <= max.

    Example:
        >>> sample_frame_indices(16, min_frames=4, max_frames=4)
        [2, 6, 10, 14]
        >>> sample_frame_indices(2, min_frames=4, max_frames=4)
        [0, 0, 1, 1]
    """
    if num_frames < 1:
        raise ValueError("the video has no frames to sample from")
    if not 1 <= min_frames <= max_frames:
        raise ValueError(f"need 1 <= min_frames <= max_frames, got {min_frames} and {max_frames}")
    if min_frames <= num_frames <= max_frames:
        return list(range(num_frames))
    target = min_frames if num_frames < min_frames else max_frames
    stride = num_frames / target
    # Python's round is half-to-even, as numpy's is in the reference.
    edges = [round(stride * i) for i in range(target + 1)]
    return [min(num_frames - 1, (edges[i] + edges[i + 1]) // 2) for i in range(target)]
