"""Random streets, with a camera on a car that drives along them."""

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from tiekd.data.synthetic.render import Atmosphere, Light, Scene
from tiekd.data.synthetic.solids import Cuboid, Cylinder, GroundPlane, Solid, Sphere, Vector
from tiekd.data.synthetic.textures import Texture, by_facing, plain, random_color, random_shade, rough, street, tiles, windows

STREET_END = 130.0  # m; there are no solids beyond, far outside the valid range of depths
SUN_DISTANCE = 1e4  # m; far enough for parallel shadows
STEP_LENGTH = 1.0  # m between frames


def outdoor(rng: Generator) -> Scene:
    """Compose a street with houses, trees, walls, cars, lamps and people."""
    half_width, pavement = rng.uniform(3.2, 5.0), rng.uniform(1.5, 3.5)
    verge = [(0.14, 0.22, 0.06), (0.24, 0.22, 0.12), (0.3, 0.29, 0.27)][rng.integers(3)]
    asphalt = random_shade(rng, (1, 1, 1), 0.1, 0.26, spread=0.05)
    ground = GroundPlane(street(half_width, pavement, asphalt, verge, seed=rng.uniform(0, 9)))
    solids: list[Solid] = [ground, *_traffic(rng, half_width)]
    for side in (-1, 1):
        solids += _roadside(rng, side, half_width + pavement)
        solids += _on_pavement(rng, side, half_width + pavement / 2)
    if rng.random() < 0.4:
        end = rng.uniform(45, 100)
        solids.append(Cuboid((0, 6, end + 6), (rng.uniform(10, 30), 6, 6), _house_front(rng), yaw=rng.uniform(-0.2, 0.2)))
    height, lateral, yaw = rng.uniform(1.5, 1.8), rng.uniform(-0.5, 0.5) * half_width, rng.normal(0, 0.03)
    pitches = rng.normal(-0.02, 0.012, size=64)  # the pitch of a car varies from frame to frame

    def camera(frame: int) -> tuple[Vector, float, float]:
        return (lateral, height, STEP_LENGTH * frame), yaw, pitches[frame % len(pitches)]

    return Scene(solids, *_daylight(rng), exposure=rng.uniform(0.8, 1.15), camera=camera)


def _daylight(rng: Generator) -> tuple[Light, Atmosphere]:
    """The sun in a random direction, or an overcast sky."""
    turn, elevation, overcast = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.2), rng.random() < 0.3
    sun = SUN_DISTANCE * np.array([np.cos(elevation) * np.sin(turn), np.sin(elevation), np.cos(elevation) * np.cos(turn)])
    strength, warmth = 0.25 if overcast else rng.uniform(0.9, 1.3), rng.uniform(0.85, 1.0)
    ambient = rng.uniform(0.7, 0.9) if overcast else rng.uniform(0.35, 0.5)
    light = Light(
        (sun[0], sun[1], sun[2]),
        (strength, strength * warmth**0.5, strength * warmth),
        (0.95 * ambient, ambient, 1.08 * ambient),
    )
    blue = 0.0 if overcast else rng.uniform(0.3, 1.0)
    horizon, zenith = (0.75, 0.8 + 0.02 * blue, 0.84 + 0.08 * blue), (0.7 - 0.5 * blue, 0.74 - 0.3 * blue, 0.8)
    return light, Atmosphere(rng.uniform(90, 260), horizon, zenith)


def _traffic(rng: Generator, half_width: float) -> Iterator[Solid]:
    """Cars at both kerbs, ahead in the lane, and coming the other way."""
    for lane, gap in ((-half_width + 1.1, 18), (half_width - 1.1, 18), (0.5 * half_width, 60), (-0.4 * half_width, 60)):
        z = rng.uniform(6, 10) + rng.exponential(gap)
        while z < 80:
            yield from _car(rng, lane + rng.normal(0, 0.1), z, yaw=rng.normal(0, 0.03))
            z += 6.5 + rng.exponential(gap)


def _car(rng: Generator, x: float, z: float, yaw: float) -> Iterator[Solid]:
    color = random_shade(rng, (1, 1, 1), 0.03, 0.8) if rng.random() < 0.6 else random_color(rng, 0.02, 0.6)
    paint, dark = plain(color), plain((0.03, 0.035, 0.04))
    yield Cuboid((x, 0.25, z), (0.85, 0.25, 1.75), dark, yaw)  # wheels and sills
    if rng.random() < 0.15:
        yield Cuboid((x, 1.4, z), (1.0, 1.1, 2.6), paint, yaw)  # a van
    else:
        yield Cuboid((x, 0.66, z), (0.88, 0.32, 2.1), paint, yaw)
        yield Cuboid((x, 1.22, z + 0.2), (0.74, 0.26, 1.15), by_facing(dark, paint, paint), yaw)


def _roadside(rng: Generator, side: int, from_middle: float) -> Iterator[Solid]:
    """A row of houses, a wall with trees behind, or open land with trees."""
    kind = rng.choice(["houses", "houses", "wall", "open"])
    setback = from_middle + rng.uniform(0.5, 5)
    if kind == "wall":
        height = rng.uniform(0.8, 2.6)
        bricks = tiles(random_shade(rng, (1, 0.55, 0.4), 0.3, 0.55), (0.45, 0.43, 0.4), 0.4, seed=rng.uniform(0, 9))
        yield Cuboid((side * (setback + 0.15), height / 2, 60), (0.15, height / 2, 70), bricks)
    z = rng.uniform(-6, 10)
    while z < STREET_END:
        length, depth, height = rng.uniform(7, 18), rng.uniform(6, 12), rng.uniform(4, 14)
        if kind == "houses":
            away = setback + rng.uniform(0, 1.5)
            yield Cuboid(
                (side * (away + depth / 2), height / 2, z + length / 2), (depth / 2, height / 2, length / 2), _house_front(rng)
            )
            z += length + (rng.uniform(2, 9) if rng.random() < 0.4 else 0.0)
        else:
            yield from _tree(rng, side * (setback + rng.uniform(1, 8)), z)
            z += rng.uniform(6, 18)


def _house_front(rng: Generator) -> Texture:
    wall = random_shade(rng, (1, 0.88, 0.75), 0.25, 0.8, spread=0.2)
    front = windows(
        wall, random_shade(rng, (0.8, 0.9, 1), 0.03, 0.15), rng.uniform(2.7, 3.4), rng.uniform(2.0, 3.5), seed=rng.uniform(0, 9)
    )
    roof = plain(random_shade(rng, (1, 0.5, 0.4), 0.2, 0.4))
    return by_facing(front, roof, roof)


def _on_pavement(rng: Generator, side: int, from_middle: float) -> Iterator[Solid]:
    """Street lamps or trees at equal distances, and some people."""
    spacing, z = rng.uniform(12, 28), rng.uniform(2, 15)
    lamps, x = rng.random() < 0.6, side * from_middle
    while z < 90:
        if lamps:
            yield Cylinder(x, z, 0.09, 0, 7, plain(random_shade(rng, (1, 1, 1), 0.15, 0.4)))
        else:
            yield from _tree(rng, x, z)
        z += spacing
    for z in rng.uniform(6, 45, rng.poisson(1.2)):
        yield from _person(rng, x + rng.normal(0, 0.4), z)


def _tree(rng: Generator, x: float, z: float) -> Iterator[Solid]:
    radius, trunk = rng.uniform(1.2, 2.6), rng.uniform(1.8, 3.2)
    leaves = rough(random_shade(rng, (0.6, 1, 0.3), 0.12, 0.28, spread=0.25), 0.7, 0.8, seed=rng.uniform(0, 9))
    yield Cylinder(x, z, 0.16, 0, trunk + 0.5, plain((0.12, 0.09, 0.06)))
    yield Sphere((x, trunk + 0.8 * radius, z), radius, leaves)
    yield Sphere((x + rng.normal(0, 0.6), trunk + 1.5 * radius, z + rng.normal(0, 0.6)), 0.7 * radius, leaves)


def _person(rng: Generator, x: float, z: float) -> Iterator[Solid]:
    yield Cylinder(x, z, 0.17, 0, 0.85, plain(random_color(rng, 0.03, 0.3)))
    yield Cylinder(x, z, 0.24, 0.85, 1.5, plain(random_color(rng, 0.05, 0.7)))
    yield Sphere((x, 1.64, z), 0.14, plain((0.5, 0.32, 0.24)))
