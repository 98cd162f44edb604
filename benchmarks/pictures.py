"""Pictures of the README: what is found out about one simulated detector, and a report.

    python benchmarks/pictures.py docs/images

writes ``detector.png``, and ``report.png`` where there is Chromium to look at a report with.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

import skysub
from skysub.demo import run as run_demo
from skysub.report.colour import diverging, mask_palette, sequential
from skysub.report.scales import image_scale, residual_scale, sky_scale
from skysub.report.views import View, pictures_of
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene

WINDOW = (1440, 1130)


def draw_detector(path, *, scene="moonlit:0.4", shape=(4000, 4072)):
    visit_image, _ = simulate_detector(named_scene(scene), 1, 0, seed=8, shape=shape)
    result = skysub.calibrate_image(visit_image)
    pictures = pictures_of(result.preliminary_visit_image, result.preliminary_visit_image_background, 420)
    view = View(visit=1, detector=0, unit=visit_image.unit, pictures=pictures)
    image, sky, residual = (scale([view], "") for scale in (image_scale, sky_scale, residual_scale))
    shares = [np.ceil(15 * pictures[name]).astype(int) for name in ("defects", "sources")]
    figure = Figure(figsize=(14, 3.7), layout="constrained")
    panels = [
        ("post_isr_image", pictures["image"], sequential(), image, "nearest"),
        ("mask", 16 * shares[0] + shares[1], mask_palette(), None, "nearest"),
        ("superpixel statistics", pictures["superpixels"], sequential(), sky, "nearest"),
        ("background", pictures["model"], sequential(), sky, "bilinear"),
        ("residual", pictures["residual"], diverging(), residual, "nearest"),
    ]
    for axes, (title, values, palette, scale, blending) in zip(figure.subplots(1, 5), panels, strict=True):
        norm = Normalize(0, 255) if scale is None else Normalize(scale.low, scale.high)
        colours = ListedColormap(palette / 255, N=len(palette))
        ny, nx = shape
        shown = axes.imshow(
            values, origin="lower", cmap=colours, norm=norm, interpolation=blending, extent=(0, nx, 0, ny)
        )
        axes.set_title(title, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("#cfccc4")
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.9, pad=0.03, aspect=32)
        bar.outline.set_visible(False)
        if scale is None:
            # the room of a bar, so that all pictures stand in line
            bar.ax.set_visible(False)
            note = axes.text(0.5, -0.05, "blue: sources, orange: defects", transform=axes.transAxes)
            note.set(fontsize=9, color="#555555", ha="center", va="top", in_layout=False)
            continue
        bar.set_ticks([scale.low, (scale.low + scale.high) / 2, scale.high], labels=scale.ticks)
        bar.ax.tick_params(length=0, labelsize=9, colors="#555555")
        bar.set_label("electron per pixel", fontsize=9, color="#555555")
    figure.savefig(path, dpi=80)


def photograph_report(path):
    from selenium import webdriver

    driver = shutil.which("chromedriver")
    if driver is None:
        print("no chromedriver: the picture of the report stays as it is")
        return
    with tempfile.TemporaryDirectory() as folder:
        run_demo([f"{folder}/demo"])
        options = webdriver.ChromeOptions()
        size = "--window-size={},{}".format(*WINDOW)
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            browser.get(Path(folder, "demo", "out", "report.html").as_uri())
            browser.execute_async_script(
                "Promise.all([...document.images].map(image => image.decode())).then(arguments[0])"
            )
            browser.execute_script("document.querySelector('#visits').scrollIntoView({behavior: 'instant'})")
            browser.save_screenshot(str(path))
        finally:
            browser.quit()
    shrink(path)


def shrink(path):
    """Few colours make a small file, at no loss that could be seen."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    draw_detector(folder / "detector.png")
    photograph_report(folder / "report.png")


if __name__ == "__main__":
    main()
