"""Three small films for an app that reads real ones."""

from pathlib import Path

import numpy as np

FRAMES, HEIGHT, WIDTH, SQUARE = 96, 32, 48, 16


def write_films(folder: Path) -> Path:
    """Write one that gets brighter, one in which a square goes to and fro, one of a single picture; give the folder."""
    from tests.data.test_videos import write_video  # which skips without PyAV

    random = np.random.default_rng(0)
    picture = random.integers(40, 120, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    moving = np.stack([picture] * FRAMES)
    for t, frame in enumerate(moving):
        left = abs(WIDTH - SQUARE - t % (2 * (WIDTH - SQUARE)))
        frame[8:24, left : left + SQUARE] = 200
    brighter = picture + np.arange(FRAMES)[:, None, None, None]
    for name, frames in (("brighter", brighter), ("moving", moving), ("still", np.stack([picture] * FRAMES))):
        write_video(folder / f"{name}.mkv", frames.astype("uint8"), pixels="bgr0")
    return folder
