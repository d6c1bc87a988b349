"""Rendered scenes: an object in a room, all of whose factors are known.

Each image is a function of six numbers, drawn anew for every image: a set
without end, with held-out images without end, and without a download. The
factors are those of 3D Shapes (Kim and Mnih, arXiv 1802.05983); here each label
stands for a range of values, so that the images of one combination of labels
differ.
"""

import numpy as np

from keras_flows.datasets.checkerboard import generator
from keras_flows.ops import given
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

SHAPES = ("ball", "box", "cylinder", "cone")
# The number of labels of each factor.
FACTORS = {
    "floor_hue": 8,
    "wall_hue": 8,
    "object_hue": 8,
    "shape": len(SHAPES),
    "size": 4,
    "pose": 6,
}
SIZES = (32, 64, 128)
# Share of a label's range that its values take: ranges do not touch.
SPREAD = 0.6
# Half of the object's height, and the angle to a corner of the room.
HEIGHTS = (0.38, 0.92)
ANGLES = (-np.pi / 4, np.pi / 4)
# Half the width of the room, and where the camera stands and looks.
ROOM = 3.2
CAMERA, TARGET = (0.0, 2.1, -3.1), (0.0, 0.72, 0.0)
ZOOM = 1.75
LIGHT = np.array([-0.5, 0.75, -0.43])
LIGHT = (LIGHT / np.linalg.norm(LIGHT)).astype("float32")
AMBIENT = 0.45
# Images rendered at a time: 128 pixels take 64 MiB an array.
CHUNK = 2**22


class Scenes:
    """Colour images of one object on the floor of a room.

    The factors of an image and the number of their labels are in `factors`:
    "floor_hue", "wall_hue", "object_hue" (8 each, red first, round the circle
    of hues), "shape" (4: ball, box, cylinder, cone), "size" (4, small to
    large) and "pose" (6: the angle from which the room and the object are
    seen). Labels are independent and uniform. Within a label the values are
    uniform on the middle 60 % of its range. The camera, the light and the
    object's place are fixed.

    Args:
        size: pixels a side: 32, 64 or 128.

    Example:

    ```python
    images, labels = kf.datasets.Scenes(32).sample_labelled(16, seed=0)
    images.shape                    # (16, 32, 32, 3), in [-1, 1]
    labels["shape"]                 # (16,) int32, below 4
    ```
    """

    factors = dict(FACTORS)

    @checked(size=SIZE)
    def __init__(self, size: int = 32) -> None:
        if size not in SIZES:
            raise ValueError(
                f"`size` must be one of {SIZES}. Received: {size}."
            )
        self.size = size

    def sample(self, num, seed=None):
        """(num, size, size, 3) float32 in [-1, 1]; `seed` as in `Rings`."""
        return self.sample_labelled(num, seed)[0]

    @checked(num=COUNT)
    def sample_labelled(self, num, seed=None):
        """Images, and a dict of each factor's labels, (num,) int32."""
        values, labels = self.sample_factors(num, seed)
        return self.render(values), labels

    @checked(num=COUNT)
    def sample_factors(self, num, seed=None):
        """Values and labels of `num` images that are not rendered.

        Returns:
            Two dicts of (num,) arrays: values as `render` takes them, and
            int32 labels.
        """
        rng = generator(seed)
        labels = {
            name: rng.integers(0, count, num).astype("int32")
            for name, count in FACTORS.items()
        }
        values = {}
        for name, count in FACTORS.items():
            offset = 0.5 + SPREAD * (rng.random(num) - 0.5)
            if name == "shape":
                values[name] = labels[name]
                continue
            share = (labels[name] + offset) / count
            # The first label of a hue is about red, which is 0.
            values[name] = (
                (share - 0.5 / count) % 1.0 if name.endswith("hue") else share
            )
        return values, labels

    def render(self, values):
        """The images of given values.

        Args:
            values: dict of (num,) arrays: hues in [0, 1), 0 being red; "shape"
                0 to 3; "size" and "pose" in [0, 1].

        Returns:
            (num, size, size, 3) float32 in [-1, 1].

        Raises:
            ValueError: if a factor is missing, or a value out of its range.
        """
        values = _checked(values)
        num = len(values["shape"])
        out = np.empty((num, self.size, self.size, 3), "float32")
        step = max(1, CHUNK // (4 * self.size**2))
        for start in range(0, num, step):
            part = {k: v[start : start + step] for k, v in values.items()}
            out[start : start + step] = _render(part, self.size)
        return out


def _checked(values):
    if not isinstance(values, dict) or set(values) != set(FACTORS):
        raise ValueError(
            f"`values` must be a dict of {list(FACTORS)}. Received: "
            f"{list(values) if isinstance(values, dict) else values!r}."
        )
    found = {}
    for name, value in values.items():
        value = given.array(f"values[{name!r}]", value)
        high = len(SHAPES) - 1 if name == "shape" else 1.0
        if value.ndim != 1 or len(value) != len(values["shape"]):
            raise ValueError(
                f"`values[{name!r}]` must be (num,), as many as shapes. "
                f"Received: {value.shape}."
            )
        if value.size and not (0 <= value.min() and value.max() <= high):
            raise ValueError(
                f"`values[{name!r}]` must lie in [0, {high}]. Received: "
                f"{value.min()} to {value.max()}."
            )
        found[name] = value.astype("int32" if name == "shape" else "float32")
    return found


def hue_to_rgb(hue, saturation=0.62, value=0.95):
    """Colours (n, 3) of hues (n,) in [0, 1), as in HSV."""
    k = (np.array([5.0, 3.0, 1.0], "float32") + 6.0 * hue[:, None]) % 6.0
    chroma = np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return (value * (1.0 - saturation * chroma)).astype("float32")


def _rays(size):
    """The camera's place (3,), and directions (rays, 3), 2 x 2 a pixel.

    The rays of a pixel follow one another.
    """
    eye, target = np.array(CAMERA), np.array(TARGET)
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross([0.0, 1.0, 0.0], ahead)
    up = np.cross(ahead, right)
    fine = (np.arange(2 * size) + 0.5) / size - 1.0
    y, x = np.meshgrid(-fine, fine, indexing="ij")
    rays = ZOOM * ahead + x[..., None] * right + y[..., None] * up
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    rays = rays.reshape(size, 2, size, 2, 3).swapaxes(1, 2)
    return eye.astype("float32"), rays.reshape(-1, 3).astype("float32")


def _shaded(normal_dot_light):
    return AMBIENT + (1.0 - AMBIENT) * np.maximum(normal_dot_light, 0.0)


def _render(values, size):
    eye, rays = _rays(size)
    low, high = ANGLES
    angle = (low + (high - low) * values["pose"])[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    low, high = HEIGHTS
    half = (low + (high - low) * values["size"])[:, None]
    distance, shade = _room(eye, rays, cos, sin)
    on_floor = shade < 0
    floor = hue_to_rgb(values["floor_hue"])[:, None]
    wall = hue_to_rgb(values["wall_hue"])[:, None]
    light = np.where(on_floor, _floor_light(eye, rays, distance, half), shade)
    colour = np.where(on_floor[..., None], floor, wall) * light[..., None]
    thing = hue_to_rgb(values["object_hue"], 0.75, 1.0)
    for number, shape in enumerate(OBJECTS):
        rows = np.flatnonzero(values["shape"] == number)
        if not len(rows):
            continue
        hit, normal = shape(eye, rays, half[rows], cos[rows], sin[rows])
        seen = hit < distance[rows]
        # (image, ray) of what is seen of the objects, some tenth of all.
        image, ray = np.nonzero(seen)
        normal = normal(image, ray, hit[image, ray])
        light = _shaded(normal @ LIGHT)
        half_way = LIGHT - rays[ray]
        half_way /= np.linalg.norm(half_way, axis=-1, keepdims=True)
        gloss = 0.35 * np.maximum((normal * half_way).sum(-1), 0.0) ** 40
        colour[rows[image], ray] = (
            thing[rows[image]] * light[:, None] + gloss[:, None]
        )
    colour = colour.reshape(len(half), size, size, 4, 3).mean(axis=3)
    return 2.0 * np.clip(colour, 0.0, 1.0) - 1.0


def _room(eye, rays, cos, sin):
    """Distance of floor or walls, and the light on walls; -1 on the floor."""
    with np.errstate(divide="ignore"):
        floor = np.where(rays[:, 1] < 0, -eye[1] / rays[:, 1], np.inf)
    distance = np.broadcast_to(floor, (len(cos), len(rays))).copy()
    shade = np.full(distance.shape, -1.0, "float32")
    for x, z in ((cos, sin), (-sin, cos)):
        # The wall of this normal, or the one opposite, whichever is ahead.
        ahead = x * rays[:, 0] + z * rays[:, 2]
        side = np.where(ahead < 0, -1.0, 1.0).astype("float32")
        here = x * eye[0] + z * eye[2]
        far = (ROOM * side - here) / np.where(ahead == 0, 1e-9, ahead)
        nearer = far < distance
        distance = np.where(nearer, far, distance)
        light = _shaded(-side * (x * LIGHT[0] + z * LIGHT[2]) + 0.25)
        shade = np.where(nearer, light, shade)
    return distance, shade


def _floor_light(eye, rays, distance, half):
    """Light on the floor: less of it beside the object, away from the lamp."""
    x = eye[0] + distance * rays[:, 0] + 0.45 * half * LIGHT[0] / LIGHT[1]
    z = eye[2] + distance * rays[:, 2] + 0.45 * half * LIGHT[2] / LIGHT[1]
    near = (x * x + z * z) / (1.5 * half * half)
    return _shaded(LIGHT[1]) * (1.0 - 0.45 * np.exp(-near * near))


def _ball(eye, rays, half, cos, sin):
    centre = np.concatenate([0 * half, half, 0 * half], axis=1)
    towards = (centre - eye) @ rays.T
    apart = ((centre - eye) ** 2).sum(axis=1, keepdims=True)
    found, root = _root(towards**2 - apart + half**2)
    hit = np.where(found, towards - root, np.inf)

    def normal(image, ray, distance):
        point = eye + distance[:, None] * rays[ray]
        return (point - centre[image]) / half[image]

    return hit, normal


def _box(eye, rays, half, cos, sin):
    side = 0.8 * half
    # In the box's own frame: (origin, direction, low, high) of each axis.
    axes = (
        (
            cos * eye[0] + sin * eye[2],
            cos * rays[:, 0] + sin * rays[:, 2],
            -side,
            side,
        ),
        (eye[1], rays[None, :, 1], 0 * side, 2 * side),
        (
            cos * eye[2] - sin * eye[0],
            cos * rays[:, 2] - sin * rays[:, 0],
            -side,
            side,
        ),
    )
    enter, leave = -np.inf, np.inf
    which = 0
    for axis, (origin, direction, low, high) in enumerate(axes):
        direction = np.where(direction == 0, np.float32(1e-9), direction)
        ends = (low - origin) / direction, (high - origin) / direction
        first = np.minimum(*ends)
        which = np.where(first > enter, axis, which)
        enter = np.maximum(enter, first)
        leave = np.minimum(leave, np.maximum(*ends))
    hit = np.where(enter < leave, enter, np.inf)

    def normal(image, ray, distance):
        axis = which[image, ray]
        c, s = cos[image, 0], sin[image, 0]
        zero = np.zeros_like(c)
        own = np.stack(
            [
                np.stack([c, zero, s], axis=-1),
                np.stack([zero, zero + 1, zero], axis=-1),
                np.stack([-s, zero, c], axis=-1),
            ]
        )[axis, np.arange(len(axis))]
        # Of the two sides of an axis, the one that looks at the camera.
        return -np.sign((own * rays[ray]).sum(-1, keepdims=True)) * own

    return hit, normal


def _cylinder(eye, rays, half, cos, sin):
    radius, height = 0.75 * half, 1.8 * half
    flat = rays[:, [0, 2]]
    a = (flat**2).sum(axis=1)
    b = flat @ eye[[0, 2]]
    c = (eye[[0, 2]] ** 2).sum() - radius**2
    found, root = _root(b * b - a * c)
    side = (-b - root) / a
    y = eye[1] + side * rays[:, 1]
    side = np.where(found & (0 < y) & (y < height), side, np.inf)
    # The camera is above the lid.
    lid = (height - eye[1]) / np.minimum(rays[:, 1], -1e-9)
    point = eye[[0, 2]] + lid[..., None] * flat
    lid = np.where((point**2).sum(axis=-1) < radius**2, lid, np.inf)
    hit = np.minimum(side, lid)

    def normal(image, ray, distance):
        point = eye + distance[:, None] * rays[ray]
        out = point * [1.0, 0.0, 1.0] / radius[image]
        above = np.isfinite(lid[image, ray])[:, None]
        return np.where(above, np.float32([0, 1, 0]), out)

    return hit, normal


def _cone(eye, rays, half, cos, sin):
    height, slope = 2.0 * half, 0.48
    flat = rays[:, [0, 2]]
    up = eye[1] - height
    a = (flat**2).sum(axis=1) - slope**2 * rays[:, 1] ** 2
    b = flat @ eye[[0, 2]] - slope**2 * up * rays[:, 1]
    c = (eye[[0, 2]] ** 2).sum() - slope**2 * up**2
    found, root = _root(b * b - a * c)
    hit = np.full(root.shape, np.inf, "float32")
    for distance in ((-b + root) / a, (-b - root) / a):
        y = eye[1] + distance * rays[:, 1]
        # The other half of the double cone stands on its tip.
        kept = found & (0 < y) & (y < height)
        hit = np.where(kept, distance, hit)

    def normal(image, ray, distance):
        point = eye + distance[:, None] * rays[ray]
        out = point * [1.0, 0.0, 1.0]
        out = out / np.linalg.norm(out, axis=-1, keepdims=True)
        return (out + [0.0, slope, 0.0]) / np.hypot(1.0, slope)

    return hit, normal


def _root(square):
    """Where there is a root, and the root, 0 elsewhere."""
    return square > 0, np.sqrt(np.maximum(square, 0.0))


OBJECTS = (_ball, _box, _cylinder, _cone)
