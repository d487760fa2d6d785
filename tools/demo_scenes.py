"""The images of the demo set: what draws them and their masks.

Every image shows one to three objects on a textured ground. Each class has a small telling part (eye and tail,
sails, legs, dotted cap, coloured panels) beside plainer area, and prefers certain grounds without being bound to
them, so that classifiers meet the two usual difficulties of the task: partial activation and co-occurring context.

Images are float32 RGB arrays in [0, 255] of shape (height, width, 3) unless stated otherwise.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

CANVAS = 256  # side in pixels of the square on which one object is drawn before it is scaled into the image
MIN_VISIBLE = 0.5  # share of an object that neither the frame nor later objects may hide

WATER_COLOURS = [((12, 48, 70), (75, 150, 175)), ((20, 60, 55), (95, 150, 125)), ((28, 45, 80), (110, 140, 175))]
LEAF_COLOURS = [(125, 80, 35), (95, 60, 32), (80, 85, 38), (150, 112, 62)]
FISH_COLOURS = [
    ((240, 140, 40), (250, 245, 235)),
    ((245, 205, 60), (40, 50, 120)),
    ((90, 150, 215), (25, 35, 70)),
    ((215, 70, 60), (250, 220, 200)),
    ((150, 165, 160), (55, 70, 65)),
]
HULL_COLOURS = [(125, 80, 45), (235, 232, 225), (165, 40, 40), (35, 60, 110), (70, 75, 80)]
SAIL_COLOURS = [(240, 238, 228), (225, 200, 150), (215, 80, 60), (90, 140, 190)]
BEETLE_COLOURS = [(205, 45, 30), (230, 140, 25), (225, 195, 60), (60, 140, 80), (120, 60, 45)]
CAP_COLOURS = [(200, 40, 30), (150, 85, 45), (220, 120, 45), (130, 60, 110), (185, 150, 95)]
PANEL_COLOURS = [(225, 50, 45), (245, 200, 40), (50, 110, 205), (60, 165, 85), (235, 120, 40), (235, 120, 170)]


def fractal_noise(rng: np.random.Generator, size: int, rows: int, columns: int, persistence: float = 0.6) -> np.ndarray:
    """Five octaves of value noise in [0, 1], float32 (size, size); the coarsest has ``rows`` x ``columns`` cells."""
    noise = np.zeros((size, size), np.float32)
    for octave in range(5):
        grid = rng.random((rows * 2**octave + 1, columns * 2**octave + 1), dtype=np.float32)
        noise += persistence**octave * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.min()) / (noise.max() - noise.min())


def blend(low: tuple, high: tuple, share: np.ndarray) -> np.ndarray:
    """Mix two RGB colours by a map of shares of the second one: (H, W) -> (H, W, 3)."""
    return np.float32(low) + share[..., None] * (np.float32(high) - np.float32(low))


def draw_grass(rng: np.random.Generator, size: int) -> np.ndarray:
    """Uneven lawn under several hundred single blades."""
    image = blend((35, 60, 22), (120, 145, 62), fractal_noise(rng, size, 4, 5))
    roots = rng.uniform(0, 1.1, (600, 2))
    tips = roots + rng.normal((0, -0.08), 0.03, (600, 2))
    for line in (np.stack((roots, tips), 1) * size).astype(int).tolist():
        colour = np.array((95, 130, 48)) * rng.uniform(0.4, 1.5) + rng.normal(0, 12, 3)
        cv2.line(image, *line, colour.tolist(), max(1, size // 160))
    return image


def draw_water(rng: np.random.Generator, size: int) -> np.ndarray:
    """Horizontal ripples with glints on their crests."""
    crests = 1 - np.abs(2 * fractal_noise(rng, size, 18, 5, 0.5) - 1)
    ripples = 0.7 * fractal_noise(rng, size, 14, 3) + 0.3 * crests
    return blend(*rng.choice(WATER_COLOURS), ripples) + 90 * crests[..., None] ** 14


def draw_sand(rng: np.random.Generator, size: int) -> np.ndarray:
    """Wind ripples, coarse grain and dark specks."""
    ripples = 0.65 * fractal_noise(rng, size, 9, 3, 0.45) + 0.35 * fractal_noise(rng, size, 20, 20, 0.9)
    specks = rng.random((size, size, 1), dtype=np.float32) > 0.985
    return blend((145, 110, 72), (238, 214, 170), ripples) - 60 * specks


def draw_forest(rng: np.random.Generator, size: int) -> np.ndarray:
    """Dark soil littered with fallen leaves, dappled with light."""
    image = blend((22, 18, 12), (95, 75, 48), fractal_noise(rng, size, 6, 6, 0.75))
    for centre in rng.uniform(0, size, (110, 2)):
        axes = size * rng.uniform(0.015, 0.045) * np.array((1, rng.uniform(0.35, 0.7)))
        colour = rng.choice(LEAF_COLOURS) * rng.uniform(0.5, 1.1)
        leaf = np.ceil(axes).astype(int).tolist(), rng.uniform(0, 180), 0, 360
        cv2.ellipse(image, (centre + size / 160).astype(int).tolist(), *leaf, (0.4 * colour).tolist(), -1)  # shadow
        cv2.ellipse(image, centre.astype(int).tolist(), *leaf, colour.tolist(), -1)
    return image * (0.7 + 0.5 * fractal_noise(rng, size, 10, 10)[..., None])


def draw_sky(rng: np.random.Generator, size: int) -> np.ndarray:
    """Vertical gradient with clouds."""
    gradient = blend((75, 125, 190), (205, 215, 222), np.linspace(0, 1, size, dtype=np.float32)[:, None])
    clouds = np.clip(2 * fractal_noise(rng, size, 4, 2) - 0.8, 0, 1)[..., None]
    return gradient * (1 - clouds) + clouds * np.float32((240, 238, 235))


GROUNDS = {'grass': draw_grass, 'water': draw_water, 'sand': draw_sand, 'forest': draw_forest}


def draw_background(rng: np.random.Generator, size: int, ground: str, horizon: float) -> np.ndarray:
    """Ground below and sky above ``horizon``, the share of the height that the sky takes."""
    rows = np.arange(size, dtype=np.float32)[:, None, None]
    sky_share = np.clip((horizon * size - rows) / 2, 0, 1)
    return sky_share * draw_sky(rng, size) + (1 - sky_share) * GROUNDS[ground](rng, size)


class Sketch:
    """One object on a square of side ``CANVAS``, addressed with x right and y down, both in [-1, 1].

    ``colour`` is float32 RGB, ``alpha`` the bool silhouette and ``height`` the float32 relief towards the viewer in
    canvas pixels. A *region* is a bool array (CANVAS, CANVAS).
    """

    def __init__(self, rng: np.random.Generator) -> None:
        axis = np.linspace(-1, 1, CANVAS, dtype=np.float32)
        self.x, self.y = np.meshgrid(axis, axis)
        self.colour = np.zeros((CANVAS, CANVAS, 3), np.float32)
        self.alpha = np.zeros((CANVAS, CANVAS), bool)
        self.height = np.zeros((CANVAS, CANVAS), np.float32)
        self.noise = fractal_noise(rng, CANVAS, 5, 5)

    def ellipse(self, x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
        """Region within an axis-aligned ellipse."""
        return ((self.x - x) / radius_x) ** 2 + ((self.y - y) / radius_y) ** 2 < 1

    def polygon(self, *points: tuple[float, float]) -> np.ndarray:
        """Region within a polygon."""
        corners = np.int32((np.array(points) + 1) / 2 * CANVAS)
        return cv2.fillPoly(np.zeros((CANVAS, CANVAS), np.uint8), [corners], 1) > 0

    def stroke(self, *points: tuple[float, float], width: float) -> np.ndarray:
        """Region along a polyline."""
        corners = np.int32((np.array(points) + 1) / 2 * CANVAS)
        thickness = round(width * CANVAS / 2)
        return cv2.polylines(np.zeros((CANVAS, CANVAS), np.uint8), [corners], False, 1, thickness) > 0

    def add(self, region: np.ndarray, colour: ArrayLike) -> None:
        """Extend the object by a rounded solid part in front of the earlier ones."""
        distance = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 5)
        self.height[region] = np.sqrt(distance * (2 * distance.max() - distance))[region]
        self.alpha |= region
        self.paint(region, colour)

    def paint(self, region: np.ndarray, colour: ArrayLike) -> None:
        """Colour the part of the surface within a region."""
        self.colour[region & self.alpha] = colour


def draw_fish(sketch: Sketch, rng: np.random.Generator) -> None:
    """Side view: striped scaly body with pale belly, forked tail, fins and an eye."""
    colour, stripe = rng.choice(FISH_COLOURS)
    fin = 0.75 * colour
    depth, fork, frequency = rng.uniform(0.3, 0.42), rng.uniform(0.3, 0.45), rng.uniform(14, 22)
    sketch.add(sketch.polygon((0.4, 0), (0.93, -fork), (0.78, 0), (0.93, fork)), fin)
    sketch.add(sketch.polygon((-0.4, -0.2), (-0.05, -depth - 0.25), (0.3, -depth - 0.1), (0.4, -0.1)), fin)
    sketch.add(sketch.polygon((-0.1, 0.2), (0.2, depth + 0.2), (0.3, 0.1)), fin)
    along = np.clip((sketch.x + 0.85) / 1.5, 0, 1)  # 0 at the mouth, 1 at the root of the tail
    body = np.abs(sketch.y) < depth * np.sin(np.pi * along**0.75)
    sketch.add(body, colour)
    sketch.paint(body & (sketch.y > 0.4 * depth), 0.4 * colour + 140)
    trunk = body & (along > 0.28)
    sketch.paint(trunk & (np.sin(frequency * sketch.x + 3 * sketch.noise) > 0.35), stripe)
    scales = np.sin(45 * (sketch.x + sketch.y)) * np.sin(45 * (sketch.x - sketch.y))
    sketch.colour *= 1 + 0.15 * (scales * trunk)[..., None]
    sketch.paint(body & (np.abs(np.hypot(sketch.x + 0.75, sketch.y) - 0.35) < 0.02), 0.5 * colour)  # gill
    sketch.add(sketch.polygon((-0.3, 0.05), (0.0, 0.0), (-0.02, 0.22)), fin)
    sketch.add(sketch.ellipse(-0.6, -0.08, 0.085, 0.085), (245, 240, 220))
    sketch.paint(sketch.ellipse(-0.61, -0.08, 0.05, 0.05), (12, 12, 15))


def draw_boat(sketch: Sketch, rng: np.random.Generator) -> None:
    """Side view: planked hull with a painted keel, mast and two seamed sails with a coloured band."""
    hull_colour, sail_colour, band_colour = (rng.choice(table) for table in (HULL_COLOURS, SAIL_COLOURS, PANEL_COLOURS))
    mast, top = rng.uniform(-0.1, 0.15), rng.uniform(-0.92, -0.75)
    main_sail = sketch.polygon((mast + 0.05, top + 0.05), (mast + 0.12, 0.2), (0.72, 0.25), (0.45, -0.15))
    fore_sail = sketch.polygon((mast - 0.05, top + 0.15), (mast - 0.08, 0.2), (-0.68, 0.28))
    hull = sketch.polygon((-0.88, 0.32), (-0.6, 0.72), (0.6, 0.74), (0.82, 0.38), (0.3, 0.43), (-0.4, 0.42))
    sketch.add(sketch.stroke((mast, top), (mast, 0.5), width=0.05), (95, 65, 40))
    sketch.add(main_sail, sail_colour)
    sketch.add(fore_sail, 0.92 * sail_colour)
    seams = np.mod(sketch.y + 0.1 * sketch.x, 0.16) < 0.02
    sketch.paint((main_sail | fore_sail) & seams, 0.7 * sail_colour)
    sketch.paint(main_sail & (np.abs(sketch.y + 0.1 - 0.3 * sketch.x) < 0.09), band_colour)
    sketch.add(hull, hull_colour)
    sketch.paint(hull & (np.mod(sketch.y, 0.085) < 0.018), 0.6 * hull_colour)  # gaps between planks
    sketch.paint(hull & (sketch.y > 0.63), band_colour)


def draw_beetle(sketch: Sketch, rng: np.random.Generator) -> None:
    """Top view: spotted wing cases parted by a seam, dark head and neck shield, six legs and two feelers."""
    dark, width = (28, 24, 24), rng.uniform(0.42, 0.56)
    for side in (-1, 1):
        for hip, knee, foot in ((-0.3, -0.42, -0.68), (0.05, 0.0, 0.22), (0.35, 0.45, 0.8)):
            swing = rng.uniform(-0.07, 0.07)
            joints = (0, hip), (side * (width + 0.14), knee + swing), (side * (width + 0.26), foot + swing)
            sketch.add(sketch.stroke(*joints, width=0.07), dark)
        sketch.add(sketch.stroke((side * 0.08, -0.7), (side * 0.2, -0.85), (side * 0.36, -0.9), width=0.045), dark)
    sketch.add(sketch.ellipse(0, -0.66, 0.2, 0.18), dark)
    sketch.add(sketch.ellipse(0, -0.46, 0.75 * width, 0.2), (52, 44, 40))
    cases = sketch.ellipse(0, 0.2, width, 0.64)
    sketch.add(cases, rng.choice(BEETLE_COLOURS))
    for x, y in ((0.5, -0.12), (0.3, 0.2), (0.68, 0.28), (0.35, 0.56)):
        radius = rng.uniform(0.07, 0.11)
        for side in (-1, 1):
            sketch.paint(cases & sketch.ellipse(side * x * width, y, radius, radius), dark)
    sketch.paint(cases & (np.abs(sketch.x) < 0.02), dark)
    for side in (-1, 1):
        sketch.paint(sketch.ellipse(side * 0.12, -0.72, 0.05, 0.05), (225, 220, 205))


def draw_mushroom(sketch: Sketch, rng: np.random.Generator) -> None:
    """Side view: dotted cap over gills, and a fibrous stem with a ring and a bulb."""
    pale, shady = (222, 208, 180), (180, 160, 128)
    width, drop, stem = rng.uniform(0.66, 0.9), rng.uniform(0.6, 0.85), rng.uniform(0.14, 0.22)
    sketch.add(sketch.polygon((-stem, -0.2), (stem, -0.2), (1.4 * stem, 0.85), (-1.4 * stem, 0.85)), pale)
    sketch.add(sketch.ellipse(0, 0.8, 1.8 * stem, 0.14), pale)
    sketch.paint(np.sin(70 * sketch.x + 8 * sketch.noise) > 0.4, shady)
    sketch.add(sketch.ellipse(0, 0.25, 1.6 * stem, 0.07), pale)
    gills = sketch.ellipse(0, -0.06, 0.95 * width, 0.17)
    sketch.add(gills, pale)
    sketch.paint(gills & (np.sin(40 * np.arctan2(sketch.x, 0.25 + sketch.y)) > 0), shady)
    cap = sketch.ellipse(0, -0.06, width, drop) & (sketch.y < -0.06 + 0.1 * (sketch.x / width) ** 2)
    sketch.add(cap, rng.choice(CAP_COLOURS))
    for x, y, radius in rng.uniform((-width, -drop, 0.045), (width, -0.1, 0.1), (14, 3)):
        sketch.paint(cap & sketch.ellipse(x, y, radius, 0.75 * radius), (240, 232, 215))


def draw_ball(sketch: Sketch, rng: np.random.Generator) -> None:
    """Beach ball: coloured panels alternate with white ones and meet at a ringed white pole tilted off the centre."""
    ball = sketch.ellipse(0, 0, 0.9, 0.9)
    sketch.add(ball, (238, 236, 230))
    x, y = sketch.x / 0.9, sketch.y / 0.9
    z, tilt = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1)), rng.uniform(-1.0, 1.0)
    latitude = np.cos(tilt) * z + np.sin(tilt) * y  # sine of it: 1 at the pole
    longitude = np.arctan2(np.cos(tilt) * y - np.sin(tilt) * z, x) / (2 * np.pi) + 0.5  # in turns
    colours = rng.permutation(PANEL_COLOURS)[: rng.integers(3, 5)]
    for index, colour in enumerate(colours):
        sketch.paint(ball & (np.floor(longitude * 2 * len(colours)) == 2 * index), colour)
    sketch.paint(latitude > 0.957, (120, 118, 115))
    sketch.paint(latitude > 0.972, (245, 244, 240))


class Kind(NamedTuple):
    """What to know about an object class; ``max_rotation`` is in degrees to either side."""

    draw: Callable[[Sketch, np.random.Generator], None]
    max_rotation: float
    usual_grounds: tuple[str, ...]


KINDS = {
    'fish': Kind(draw_fish, 35, ('water',)),
    'boat': Kind(draw_boat, 14, ('water',)),
    'beetle': Kind(draw_beetle, 75, ('grass', 'forest', 'sand')),
    'mushroom': Kind(draw_mushroom, 20, ('forest', 'grass')),
    'ball': Kind(draw_ball, 180, ('sand', 'grass')),
}
CLASSES = ('background', *KINDS)


def pose(sketch: Sketch, rng: np.random.Generator, max_rotation: float) -> tuple[np.ndarray, np.ndarray]:
    """Mirror, rotate, stretch and bend; gives premultiplied RGBA (CANVAS, CANVAS, 4) and height (CANVAS, CANVAS)."""
    angle = np.deg2rad(rng.uniform(-max_rotation, max_rotation))
    stretch, mirror, bend = np.exp(rng.uniform(-0.15, 0.15)), rng.choice((-1, 1)), rng.uniform(-0.15, 0.15)
    zoom_out = 1.35  # keeps rotated and stretched corners on the canvas
    along = zoom_out * mirror * stretch * (np.cos(angle) * sketch.x + np.sin(angle) * sketch.y)
    across = zoom_out / stretch * (np.cos(angle) * sketch.y - np.sin(angle) * sketch.x) + bend * along**2
    source = [np.float32((coordinate + 1) / 2 * (CANVAS - 1)) for coordinate in (along, across)]
    rgba = np.dstack((sketch.colour * (0.8 + 0.4 * sketch.noise[..., None]), sketch.alpha)) * sketch.alpha[..., None]
    return tuple(cv2.remap(np.float32(layer), *source, cv2.INTER_LINEAR) for layer in (rgba, sketch.height))


def shade(rgba: np.ndarray, height: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Light the relief from unit vector ``light`` (x right, y down, z to the viewer) with a soft gloss."""
    height = cv2.GaussianBlur(height, (0, 0), 2.5)
    normals = np.dstack(
        (-cv2.Sobel(height, -1, 1, 0, scale=0.125), -cv2.Sobel(height, -1, 0, 1, scale=0.125), np.ones_like(height))
    )
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    halfway = light + (0, 0, 1)
    diffuse = np.clip(normals @ light, 0, 1)[..., None]
    gloss = np.clip(normals @ (halfway / np.linalg.norm(halfway)), 0, 1)[..., None] ** 40
    alpha = rgba[..., 3:]
    return np.dstack((rgba[..., :3] * (0.4 + 0.75 * diffuse) + 70 * gloss * alpha, alpha)).astype(np.float32)


def draw_object(rng: np.random.Generator, name: str, size: int, light: np.ndarray) -> np.ndarray:
    """Premultiplied RGBA cut to the object; the root of its area is 15-50 % of the image's side."""
    sketch = Sketch(rng)
    KINDS[name].draw(sketch, rng)
    rgba = shade(*pose(sketch, rng, KINDS[name].max_rotation), light)
    left, top, width, height = cv2.boundingRect((rgba[..., 3] > 0.5).astype(np.uint8))
    rgba = rgba[top : top + height, left : left + width]
    scale = min(rng.uniform(0.15, 0.5) * size / np.sqrt(rgba[..., 3].sum()), 0.9 * size / max(width, height))
    return cv2.resize(rgba, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def place(rng: np.random.Generator, patch: np.ndarray, size: int, horizon: float) -> np.ndarray:
    """Move an RGBA patch to a random position, mostly inside the frame and not floating in the sky: (size, size, 4)."""
    height, width = patch.shape[:2]
    left = rng.uniform(-width / 6, size - width * 5 / 6)
    top = rng.uniform(max(-height / 6, horizon * size - height / 2), size - height * 5 / 6)
    shift = np.float32([[1, 0, round(left)], [0, 1, round(top)]])
    return cv2.warpAffine(patch, shift, (size, size), flags=cv2.INTER_NEAREST)


def composite(image: np.ndarray, layer: np.ndarray, light: np.ndarray, darkness: float) -> np.ndarray:
    """Lay premultiplied RGBA over its own soft shadow on the image."""
    size = len(image)
    shift = np.float32([[1, 0, -0.05 * size * light[0]], [0, 1, -0.05 * size * light[1]]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(layer[..., 3], shift, (size, size)), (0, 0), 0.02 * size)
    return image * (1 - darkness * shadow[..., None]) * (1 - layer[..., 3:]) + layer[..., :3]


def sample_scene(rng: np.random.Generator) -> tuple[list[str], str]:
    """Class name of each object, farthest first, and the name of the ground."""
    names = [str(rng.choice(list(KINDS)))]
    ground = str(rng.choice(KINDS[names[0]].usual_grounds if rng.random() < 0.85 else list(GROUNDS)))
    residents = [name for name, kind in KINDS.items() if ground in kind.usual_grounds]
    for _ in range(rng.choice(3, p=(0.2, 0.4, 0.4))):
        names.append(str(rng.choice(residents if rng.random() < 0.78 else list(KINDS))))
    return names, ground


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Uneven exposure, colour cast, blur and sensor noise: float32 -> uint8."""
    size = len(image)
    direction = rng.uniform(-0.2, 0.2, 2)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    exposure = rng.uniform(0.65, 1.15) * (1 + direction[0] * axis[:, None] + direction[1] * axis)
    image = image * exposure[..., None] * rng.uniform(0.92, 1.08, 3)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.8) * size / 160)
    image += rng.normal(0, rng.uniform(2, 6), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_image(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One image, uint8 RGB (size, size, 3), and its class ids, uint8 (size, size)."""
    names, ground = sample_scene(rng)
    horizon = rng.uniform(0.12, 0.4) if ground != 'forest' and rng.random() < 0.4 else 0.0
    light = np.array((rng.uniform(-0.7, 0.7), rng.uniform(-0.8, -0.3), 1.0))
    light /= np.linalg.norm(light)
    darkness = rng.uniform(0.1, 0.3) if ground == 'water' else rng.uniform(0.3, 0.6)
    image = draw_background(rng, size, ground, horizon)
    mask = np.zeros((size, size), np.uint8)
    objects: list[tuple[np.ndarray, int]] = []  # visible pixels, bool (size, size), and pixels of the whole object
    for name in names:
        patch = draw_object(rng, name, size, light)
        for _ in range(20):  # an object that finds no room in 20 tries is left out
            layer = place(rng, patch, size, horizon)
            footprint = layer[..., 3] > 0.5
            updated = [(visible & ~footprint, whole) for visible, whole in objects]
            updated.append((footprint, (patch[..., 3] > 0.5).sum()))
            if all(visible.sum() >= MIN_VISIBLE * whole for visible, whole in updated):
                objects = updated
                image = composite(image, layer, light, darkness)
                mask[footprint] = CLASSES.index(name)
                break
    return photograph(rng, image), mask
