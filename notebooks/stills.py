"""Still pictures of the library's Plotly figures, for outputs that are committed.

GitHub and the documentation's pages show pictures, but no interactive figures. A headless Chromium
draws a figure; where there is none, or it cannot write, Jupyter shows the interactive figure.
"""

import shutil
import subprocess
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from IPython.display import Image, display

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--timeout=4000"),
)
_EDGE = 12  # pixels above and below


def still(figure: Any, width: int = 760) -> None:
    """Show a figure as a picture of this width in pixels."""
    chromium = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if chromium is None:
        display(figure)
        return
    height = int(figure.layout.height or 450)
    width = int(figure.layout.width or width)
    with tempfile.TemporaryDirectory() as name:
        page, target = Path(name) / "figure.html", Path(name) / "figure.png"
        body = figure.to_html(config={"staticPlot": True}, default_width=f"{width}px")
        page.write_text(body.replace("<body>", '<body style="margin:0">'), encoding="utf-8")
        size = f"--window-size={width},{height + 100}"
        command = [chromium, *_FLAGS, size, f"--user-data-dir={Path(name) / 'profile'}"]
        subprocess.run(
            [*command, f"--screenshot={target}", page.as_uri()],
            capture_output=True,
            timeout=120,
            check=False,
        )
        display(Image(data=_small(target)) if target.exists() else figure)


def _small(path: Path) -> bytes:
    """A screenshot without the blank above and below, with a palette."""
    from PIL import Image as Picture
    from PIL import ImageChops

    drawn = Picture.open(path).convert("RGB")
    blank = Picture.new("RGB", drawn.size, drawn.getpixel((0, 0)))
    _, top, _, bottom = ImageChops.difference(drawn, blank).getbbox()
    rows = max(0, top - _EDGE), min(drawn.height, bottom + _EDGE)
    cropped = drawn.crop((0, rows[0], drawn.width, rows[1]))
    file = BytesIO()
    cropped.quantize(256, dither=Picture.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()
