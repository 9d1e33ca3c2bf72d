"""Render the four pictures that `worker demo` shrinks: drawn here from numbers, so that they are the project's own.

    python scripts/render_demo_pictures.py [DIRECTORY]

Needs Pillow and nothing else. The seeds are fixed: one version of Pillow renders the same pictures every time.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

TARGET = Path(__file__).resolve().parent.parent / "src/avtomatika_worker/demo_app/data"
WIDTH, HEIGHT = 960, 640
FINE = 2
"""Lines are drawn this many times larger and then reduced, which smooths their edges."""
QUALITY = 85

Colour = tuple[int, int, int]
Point = tuple[float, float]


def rgb(code: str) -> Colour:
    """Return ``#rrggbb`` as numbers."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour ``share`` of the way from ``first`` to ``second``."""
    r, g, b = (round(a + (z - a) * share) for a, z in zip(first, second, strict=True))
    return r, g, b


def ramp(colours: Sequence[Colour], position: float) -> Colour:
    """Return the colour at ``position`` (0 to 1) of a gradient through ``colours``."""
    place = min(max(position, 0.0), 1.0) * (len(colours) - 1)
    index = min(int(place), len(colours) - 2)
    return mix(colours[index], colours[index + 1], place - index)


def smooth(share: float) -> float:
    """Ease from 0 to 1 with soft ends."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def grain(image: Image.Image, seed: int, strength: int) -> Image.Image:
    """Add fine noise: without it wide gradients show bands."""
    table = [128 + round((value / 255 - 0.5) * strength) for value in range(256)]
    noise = Image.frombytes("L", image.size, random.Random(seed).randbytes(image.width * image.height)).point(table)
    return ImageChops.add(image, Image.merge("RGB", [noise] * 3), scale=1, offset=-128)


def reduced(image: Image.Image) -> Image.Image:
    """Return the picture in its final size."""
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


# ---------------------------------------------------------------------------------------------------- Julia set

JULIA = [
    rgb(code)
    for code in (
        "#05030f",
        "#140a3c",
        "#3b1478",
        "#a31e84",
        "#f0623c",
        "#ffc85a",
        "#fff6d8",
        "#58c4d6",
        "#12487a",
        "#061128",
    )
]


def julia() -> Image.Image:
    """Draw the Julia set of z² + c, coloured by how soon each point escapes."""
    width, height = WIDTH * FINE, HEIGHT * FINE
    palette = [ramp(JULIA, (step / 1023) ** 0.8) for step in range(1024)]
    scale = 3.3 / width
    rows = bytearray()
    for y in range(height // 2):
        imaginary = (y + 0.5 - height / 2) * scale
        for x in range(width):
            rows += bytes(palette[int(escape(complex((x + 0.5 - width / 2) * scale, imaginary)) * 1023)])
    upper = Image.frombytes("RGB", (width, height // 2), bytes(rows))
    image = Image.new("RGB", (width, height))
    image.paste(upper, (0, 0))
    image.paste(upper.rotate(180), (0, height // 2))  # a Julia set is its own half turn
    return reduced(image)


def escape(z: complex, c: complex = complex(-0.7269, 0.1889), limit: int = 900) -> float:
    """Return how long ``z`` stays near: 0 for gone at once, 1 for never gone, smooth in between."""
    for count in range(limit):
        z = z * z + c
        if z.real * z.real + z.imag * z.imag > 64:
            steps = count + 1 - math.log2(math.log2(abs(z)) / 3)
            return min(max(math.log1p(steps) / math.log1p(limit), 0.0), 1.0)
    return 1.0


# ---------------------------------------------------------------------------------------------------- mountains

SKY = [rgb(code) for code in ("#141a3f", "#2c2c63", "#5b3f7d", "#a8527f", "#e5786b", "#f9b06b", "#fbdc9a")]
HILLS = [rgb(code) for code in ("#d98a86", "#a8647f", "#6f4474", "#40305f", "#232247", "#131733", "#0a0e22")]


def mountains() -> Image.Image:
    """Draw ridges at dusk, each one darker than the one behind it."""
    width, height = WIDTH * FINE, HEIGHT * FINE
    chance = random.Random(20)
    image = sky(width, height, chance)
    for layer, colour in enumerate(HILLS):
        depth = layer / (len(HILLS) - 1)
        base = height * (0.50 + 0.40 * depth**1.15)
        line = ridge(chance, width, base, height * (0.10 + 0.07 * depth), 0.50 + 0.06 * depth)
        # Mist gathers in the valleys: each ridge fades towards the haze at its foot, the near ones less.
        foot = mix(colour, HILLS[0], 0.38 * (1 - depth))
        shade = gradient(width, height, fading(colour, foot, base, height * 0.2))
        mask = Image.new("L", (width, height))
        ImageDraw.Draw(mask).polygon([*enumerate(line), (width, height), (0, height)], fill=255)
        if colour == HILLS[-1]:
            plant(ImageDraw.Draw(mask), line, chance)
        image.paste(shade, (0, 0), mask)
    return grain(reduced(image), 21, 6)


def fading(colour: Colour, foot: Colour, top: float, length: float) -> Callable[[float], Colour]:
    """Return a gradient from one colour to another that begins at ``top`` and takes ``length`` rows."""
    return lambda y: mix(colour, foot, smooth((y - top) / length))


def gradient(width: int, height: int, colour: Callable[[float], Colour]) -> Image.Image:
    """Return a picture whose rows have the colours that ``colour`` gives."""
    column = Image.new("RGB", (1, height))
    column.putdata([colour(y) for y in range(height)])
    return column.resize((width, height), Image.Resampling.NEAREST)


def sky(width: int, height: int, chance: random.Random) -> Image.Image:
    """Return the evening sky, with stars above and the sun about to go."""
    image = gradient(width, height, lambda y: ramp(SKY, (y / (height * 0.62)) ** 0.9))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(260):
        x, y = chance.uniform(0, width), height * 0.42 * chance.random() ** 1.7
        size = chance.choice((1, 1, 1, 1.6, 2.2))
        fade = 1 - y / (height * 0.42)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=(255, 244, 226, round(210 * fade**1.2)))
    sun_x, sun_y = width * 0.66, height * 0.455
    for radius, strength in ((900, 0.55), (420, 0.5), (190, 0.55)):
        halo = ImageChops.invert(Image.radial_gradient("L")).resize((radius * 2, radius * 2), Image.Resampling.BICUBIC)
        halo = halo.point([round(255 * strength * smooth((value - 75) / 180)) for value in range(256)])
        image.paste(rgb("#ffe0a0"), (round(sun_x) - radius, round(sun_y) - radius), halo)
    ImageDraw.Draw(image).ellipse((sun_x - 58, sun_y - 58, sun_x + 58, sun_y + 58), fill=rgb("#fff3d0"))
    return image


def ridge(chance: random.Random, width: int, base: float, height: float, roughness: float) -> list[float]:
    """Return the height of a ridge for every column, by midpoint displacement."""
    line = [chance.uniform(-1, 1) for _ in range(5)]
    spread = 0.8
    while len(line) < width:
        middles = [(a + b) / 2 + chance.uniform(-spread, spread) for a, b in itertools.pairwise(line)]
        line = [value for pair in zip(line, middles, strict=False) for value in pair] + line[-1:]
        spread *= roughness
    step = (len(line) - 1) / (width - 1)
    return [base - height * line[round(x * step)] for x in range(width)]


def plant(draw: ImageDraw.ImageDraw, line: Sequence[float], chance: random.Random) -> None:
    """Draw firs on a ridge."""
    x = 0.0
    while x < len(line):
        foot, tall = line[int(x)] + 8, chance.uniform(34, 92) * (0.75 + 0.35 * math.sin(x / 210))
        for tier in range(5):
            top, half = foot - tall * (1 - tier * 0.17), tall * (0.06 + 0.042 * tier)
            draw.polygon([(x, top), (x - half, top + tall * 0.30), (x + half, top + tall * 0.30)], fill=255)
        draw.rectangle((x - 3, foot - tall * 0.3, x + 3, foot + 12), fill=255)
        x += chance.uniform(10, 44)


# ---------------------------------------------------------------------------------------------------- stained glass

GLASS = [rgb(code) for code in ("#fff1b8", "#ffc23d", "#f07a24", "#d42a3c", "#8c1d6b", "#3a2a9c", "#1560b8", "#12919c")]
LEAD = rgb("#15131a")
CELL = 32


def stained_glass() -> Image.Image:
    """Draw a rose window: the Voronoi cells of a sunflower's seeds, in lead."""
    seeds = sunflower()
    grid: dict[tuple[int, int], list[int]] = {}
    for index, (x, y) in enumerate(seeds):
        grid.setdefault((int(x // CELL), int(y // CELL)), []).append(index)
    colours = panes(len(seeds))
    pixels = bytearray()
    for y in range(HEIGHT):
        for column in range(0, WIDTH, CELL):
            near = neighbours(grid, column // CELL, y // CELL)
            for x in range(column, min(column + CELL, WIDTH)):
                pixels += bytes(pane_colour(x + 0.5, y + 0.5, near, seeds, colours))
    image = Image.frombytes("RGB", (WIDTH, HEIGHT), bytes(pixels))
    glow = image.filter(ImageFilter.GaussianBlur(14)).point([round(v * 0.32) for v in range(256)] * 3)
    return grain(ImageChops.screen(image, glow), 31, 10)


def sunflower() -> list[Point]:
    """Return points on Vogel's spiral, finer towards the middle, that cover the picture and its surroundings."""
    golden = math.pi * (3 - math.sqrt(5))
    radii = (17.5 * index**0.5 * (0.72 + 0.0125 * index**0.5) for index in range(1, 1400))
    turned = enumerate(radii, 1)
    points = ((WIDTH / 2 + r * math.cos(i * golden), HEIGHT / 2 + r * math.sin(i * golden)) for i, r in turned)
    return [(x, y) for x, y in points if -99 < x < WIDTH + 99 and -99 < y < HEIGHT + 99]


def panes(count: int) -> list[Colour]:
    """Return a colour for every cell: rings from gold to deep blue, broken by the spiral's arms and by chance."""
    chance = random.Random(30)
    colours: list[Colour] = []
    for index in range(count):
        ring = (index / count) ** 0.55
        arm = 0.09 * math.sin(index * math.tau * 8 / 21)
        colour = ramp(GLASS, ring + arm + chance.gauss(0, 0.035))
        colours.append(mix(colour, (255, 255, 255) if chance.random() < 0.5 else (0, 0, 0), chance.uniform(0, 0.16)))
    return colours


def neighbours(grid: dict[tuple[int, int], list[int]], column: int, row: int) -> list[int]:
    """Return the seeds close enough to matter for one square of the grid."""
    around = range(-2, 3)
    return [index for dx in around for dy in around for index in grid.get((column + dx, row + dy), ())]


def pane_colour(x: float, y: float, near: list[int], seeds: list[Point], colours: list[Colour]) -> Colour:
    """Return one pixel: the glass of the nearest seed, or lead when the second nearest is hardly farther."""
    best = second = math.inf
    first_index = second_index = 0
    for index in near:
        dx, dy = seeds[index][0] - x, seeds[index][1] - y
        distance = dx * dx + dy * dy
        if distance < best:
            best, second, first_index, second_index = distance, best, index, first_index
        elif distance < second:
            second, second_index = distance, index
    (ax, ay), (bx, by) = seeds[first_index], seeds[second_index]
    edge = (second - best) / (2 * math.hypot(bx - ax, by - ay))
    light = 1.12 - 0.0135 * math.sqrt(best) - 0.00042 * math.hypot(x - WIDTH / 2, y - HEIGHT / 2)
    light *= 1 + 0.06 * math.sin(x * 0.21 + first_index) * math.sin(y * 0.17 + 2 * first_index)
    r, g, b = (min(round(part * light), 255) for part in colours[first_index])
    return mix(LEAD, (r, g, b), smooth((edge - 1.5) / 1.6))


# ---------------------------------------------------------------------------------------------------- flow field

PAPER = rgb("#f4ecdc")
INKS = [rgb(code) for code in ("#12355b", "#1f6f8b", "#2a9d8f", "#e9c46a", "#f4a261", "#e4572e", "#9b2335", "#30263d")]
SHARES = (22, 16, 14, 14, 10, 9, 5, 10)


def flow_field() -> Image.Image:
    """Draw ribbons that follow a swirling field and do not cross."""
    width, height = WIDTH * FINE, HEIGHT * FINE
    chance = random.Random(7)
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    taken = Image.new("L", (width // 4 + 100, height // 4 + 100))
    claim = ImageDraw.Draw(taken)
    for widest, attempts in ((46, 300), (26, 900), (13, 2600), (6, 5200)):
        for _ in range(attempts):
            half = widest / 2 * chance.uniform(0.75, 1.0)
            start = chance.uniform(-60, width + 60), chance.uniform(-60, height + 60)
            path = ribbon(start, half, taken, width, height)
            if len(path) * STRIDE > widest * 2.2:
                ink = chance.choices(INKS, SHARES)[0]
                draw_ribbon(draw, path, half, mix(ink, PAPER, chance.uniform(0, 0.12)))
                draw_ribbon(claim, [(x / 4 + 50, y / 4 + 50) for x, y in path], (half + 4) / 4, 255)
    return grain(reduced(image), 41, 7)


STRIDE = 4.0


def heading(x: float, y: float) -> float:
    """Return the field's direction at a point, in radians."""
    u, v = x / 1000, y / 1000
    swirl = math.sin(1.9 * u + 0.6) * math.cos(2.3 * v - 0.4) + 0.55 * math.sin(3.1 * v + 1.7 * u)
    return 0.35 + 1.75 * swirl + 0.4 * math.cos(2.2 * u - 2.9 * v)


def ribbon(start: Point, half: float, taken: Image.Image, width: int, height: int) -> list[Point]:
    """Follow the field from ``start`` as long as there is free room on both sides."""
    path: list[Point] = []
    x, y = start
    while len(path) < 230 and -120 < x < width + 120 and -120 < y < height + 120:
        angle = heading(x, y)
        side_x, side_y = -math.sin(angle) * (half + 3), math.cos(angle) * (half + 3)
        for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
            at = round((x + side_x * share) / 4 + 50), round((y + side_y * share) / 4 + 50)
            if not (0 <= at[0] < taken.width and 0 <= at[1] < taken.height) or taken.getpixel(at):
                return path
        path.append((x, y))
        x, y = x + math.cos(angle) * STRIDE, y + math.sin(angle) * STRIDE
    return path


def draw_ribbon(draw: ImageDraw.ImageDraw, path: Sequence[Point], half: float, ink: Colour | int) -> None:
    """Draw a path with round ends."""
    last = len(path) - 1
    sides: list[Point] = []
    for index in range(len(path)):
        (ax, ay), (bx, by) = path[max(index - 1, 0)], path[min(index + 1, last)]
        long = math.hypot(bx - ax, by - ay)
        sides.append((-(by - ay) / long * half, (bx - ax) / long * half))
    there = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(path, sides, strict=True)]
    back = [(x - dx, y - dy) for (x, y), (dx, dy) in zip(path, sides, strict=True)]
    draw.polygon(there + back[::-1], fill=ink)
    for x, y in (path[0], path[-1]):
        draw.ellipse((x - half, y - half, x + half, y + half), fill=ink)


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "dusk.jpg": mountains,
    "julia.jpg": julia,
    "ribbons.jpg": flow_field,
    "window.jpg": stained_glass,
}


def main(arguments: list[str]) -> int:
    """Render every picture into the directory."""
    directory = Path(arguments[0]) if arguments else TARGET
    directory.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        began = time.perf_counter()
        path = directory / name
        draw().save(path, quality=QUALITY, optimize=True, progressive=True)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB  {time.perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
