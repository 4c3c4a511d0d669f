import hashlib
import math
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from orrery.errors import SettingsError
from orrery.worlds.factory.render import Renderer, project

# A still bench with moving parts; `carried` is `front` on a moving body, which takes the way that keeps nothing.
SCENE = """
<mujoco>
  <size nuser_geom="6"/>
  <visual><headlight ambient=".3 .3 .32" diffuse=".2 .2 .2" specular=".1 .1 .1"/></visual>
  <asset>
    <material name="plastic" specular=".4" shininess=".4"/>
    <material name="metal" specular=".8" shininess=".8" reflectance=".5"/>
  </asset>
  <worldbody>
    <light name="key" type="point" pos="-.8 -.9 2" diffuse=".5 .48 .45"/>
    <light name="fill" type="point" pos="1 -.4 1.8" diffuse=".2 .22 .25" attenuation="1 0 .1"/>
    <geom name="floor" type="plane" size="0 0 .1" rgba=".6 .6 .65 1" user="1 .3 .5 .5 .55 0"/>
    <geom name="bench" type="box" size=".5 .3 .05" pos="0 0 .25" rgba=".78 .7 .58 1"/>
    <geom name="belt" type="box" size=".45 .08 .01" pos="0 .15 .31" euler="0 0 2" rgba=".2 .2 .2 1"
      user="2 .1 .3 .3 .3 0"/>
    <geom name="post" type="cylinder" size=".03 .2" pos="-.3 .2 .5" rgba=".9 .7 .1 1" material="metal"/>
    <geom name="helper" type="sphere" size=".2" pos="0 0 .6" rgba="1 0 0 0" group="3"/>
    <camera name="front" pos="0 -1.4 1.3" xyaxes="1 0 0 0 .6 .8" fovy="40"/>
    <body name="rig" mocap="true"><camera name="carried" pos="0 -1.4 1.3" xyaxes="1 0 0 0 .6 .8" fovy="40"/></body>
    <body name="box" pos="-.15 -.1 .33"><freejoint/>
      <geom name="box" type="box" size=".04 .03 .03" rgba=".8 .2 .2 1" material="plastic" user="1 .02 1 1 1 0"/></body>
    <body name="can" pos=".05 -.05 .35"><freejoint/>
      <geom name="can" type="cylinder" size=".03 .05" rgba=".2 .6 .3 1" material="metal"/></body>
    <body name="ball" pos=".25 -.15 .34"><freejoint/>
      <geom name="ball" type="sphere" size=".04" rgba=".2 .4 .8 1" material="plastic"/></body>
    <body pos=".3 .2 .3"><joint name="turn" axis="0 0 1"/>
      <geom type="capsule" size=".03" fromto="0 0 0 0 0 .3" rgba=".9 .5 .1 1"/>
      <geom type="capsule" size=".025" fromto="0 0 .3 -.3 -.1 .2" rgba=".9 .5 .1 1"/></body>
  </worldbody>
</mujoco>
"""

# Block means of red, green, blue of the 64 x 64 picture of SCENE at rest from `front`, rows of 16 x 16 pixels. Made by
# printing `blocks(...)` of the test below (mujoco 3.17.0, numpy 2.4.6, x86-64) after looking at the picture. Means and
# not a hash: the shading is the same everywhere, but MuJoCo's own rounding may move single pixels of an edge.
GOLDEN = [
    [(100.1, 97.9, 104.4), (101.2, 98.6, 103.2), (112.7, 99.7, 96.7), (98.4, 96.6, 106.0)],
    [(125.0, 119.7, 121.9), (117.4, 106.8, 96.5), (110.9, 99.8, 85.8), (118.2, 114.3, 117.9)],
    [(142.4, 130.4, 119.2), (140.9, 125.7, 109.5), (133.9, 122.7, 110.9), (127.4, 117.5, 108.6)],
    [(138.8, 137.2, 150.3), (136.7, 135.5, 148.9), (135.8, 134.8, 148.5), (136.0, 135.5, 150.2)],
]


def simulation(xml=SCENE):
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def world(inside, headlight='ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"', head=""):
    return simulation(
        f"<mujoco><size nuser_geom='6'/><visual><headlight {headlight}/></visual>{head}"
        f"<worldbody>{inside}</worldbody></mujoco>"
    )


def scatter(model, data, rng):
    """Parts and the arm anywhere above and on the bench, in any attitude."""
    for name in ("box", "can", "ball"):
        attitude = rng.normal(size=4)
        place = rng.uniform((-0.4, -0.25, 0.3), (0.4, 0.25, 0.6))
        data.joint(model.body_jntadr[model.body(name).id]).qpos[:] = [*place, *(attitude / np.linalg.norm(attitude))]
    data.joint("turn").qpos[:] = rng.uniform(-3, 3)
    mujoco.mj_forward(model, data)


def same(view, other):
    return all(
        np.array_equal(getattr(view, name), getattr(other, name)) for name in ("colour", "depth_m", "segmentation")
    )


def rays(model, data, camera, height, width):
    """Directions of depth 1 from the definition of the camera, apart from the renderer."""
    tangent = math.tan(math.radians(model.camera(camera).fovy[0]) / 2)
    v, u = np.mgrid[:height, :width] + 0.5
    local = np.stack(
        [(2 * u - width) / height * tangent, (1 - 2 * v / height) * tangent, np.full((height, width), -1.0)], axis=-1
    )
    return data.camera(camera).xpos, local @ data.camera(camera).xmat.reshape(3, 3).T


def sphere(start, way):
    """Least t >= 0 with |start + t way| = 0.5."""
    a, b, c = (way**2).sum(-1), 2 * way @ start, start @ start - 0.25
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    return np.where(b * b > 4 * a * c, (-b - root) / (2 * a), np.inf)


def box(start, way):
    """Faces at 0.5, 0.4 and 0.3."""
    sides = np.stack([(np.array([0.5, 0.4, 0.3]) * sign - start) / way for sign in (-1, 1)])
    enter, leave = sides.min(axis=0).max(axis=-1), sides.max(axis=0).min(axis=-1)
    return np.where(enter < leave, enter, np.inf)


def cylinder(start, way):
    """Radius 0.5, from -0.4 to 0.4 along z."""
    a, b = (way[..., :2] ** 2).sum(-1), 2 * way[..., :2] @ start[:2]
    c = start[:2] @ start[:2] - 0.25
    inside = b * b > 4 * a * c
    root = np.sqrt(np.where(inside, b * b - 4 * a * c, 0))
    ends = np.sort(np.stack([(sign * 0.4 - start[2]) / way[..., 2] for sign in (-1, 1)]), axis=0)
    enter, leave = np.maximum((-b - root) / (2 * a), ends[0]), np.minimum((-b + root) / (2 * a), ends[1])
    return np.where(inside & (enter < leave), enter, np.inf)


def plane(start, way):
    return np.where(way[..., 2] < 0, -start[2] / way[..., 2], np.inf)


@pytest.mark.parametrize(
    ("geom", "distance"),
    [
        ('type="sphere" size=".5"', sphere),
        ('type="box" size=".5 .4 .3"', box),
        ('type="cylinder" size=".5 .4"', cylinder),
        ('type="plane" size="0 0 1"', plane),
    ],
    ids=["sphere", "box", "cylinder", "plane"],
)
@pytest.mark.parametrize("body", ["<body>", '<body mocap="true">'], ids=["still", "moving"])
def test_depth_is_that_of_the_geometry(geom, distance, body):
    model, data = world(
        f'{body}<geom {geom}/></body><camera name="c" pos="1.1 -2 1.4" xyaxes=".9 .5 0 -.3 .5 .9" fovy="50"/>'
    )
    view = Renderer(model).render(data, "c", 48, 80)
    true = distance(*rays(model, data, "c", 48, 80))
    seen = view.segmentation == 0
    # A pixel whose middle is on the edge may fall either way; here there is none.
    np.testing.assert_array_equal(seen, np.isfinite(true))
    assert seen.mean() > 0.05
    assert np.abs(view.depth_m[seen] - true[seen]).max() < 1e-5
    assert np.isinf(view.depth_m[~seen]).all()
    assert (view.segmentation[~seen] == -1).all()


def test_segmented_parts_are_where_their_centres_project_to():
    model, data = simulation()
    segmentation, depth = Renderer(model).segment(data, "front", 128, 128)
    for name in ("box", "can", "ball"):
        v, u = np.nonzero(segmentation == model.geom(name).id)
        (at,) = project(model, data, "front", data.body(name).xpos[None], 128, 128)
        assert (u.mean() + 0.5, v.mean() + 0.5) == pytest.approx(tuple(at[:2]), abs=1)
        assert 0 < at[2] - depth[v, u].min() < 0.06
    assert (segmentation != model.geom("helper").id).all()


def test_projecting_the_seen_points_gives_the_pixels_back():
    model, data = simulation()
    _, depth = Renderer(model).segment(data, "front", 40, 60)
    start, way = rays(model, data, "front", 40, 60)
    pixels = project(model, data, "front", (start + way * depth[..., None]).reshape(-1, 3), 40, 60)
    v, u = np.mgrid[:40, :60] + 0.5
    np.testing.assert_allclose(pixels, np.stack([u, v, depth], axis=-1).reshape(-1, 3), atol=1e-4)
    (behind,) = project(model, data, "front", np.array([[0.0, -3.0, 2.0]]), 40, 60)
    assert np.isnan(behind[:2]).all()
    assert behind[2] < 0


def test_the_same_state_has_the_same_bytes_here_and_in_another_process():
    script = (
        "import hashlib, sys, mujoco; from orrery.worlds.factory.render import Renderer\n"
        "model = mujoco.MjModel.from_xml_string(sys.stdin.read()); data = mujoco.MjData(model)\n"
        "mujoco.mj_forward(model, data); view = Renderer(model).render(data, 'front', 64, 64)\n"
        "bytes_ = b''.join(x.tobytes() for x in (view.colour, view.depth_m, view.segmentation))\n"
        "print(hashlib.sha256(bytes_).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", script], input=SCENE, text=True, capture_output=True, check=True)
    model, data = simulation()
    renderer = Renderer(model)
    for _ in range(2):
        view = renderer.render(data, "front", 64, 64)
        bytes_ = b"".join(x.tobytes() for x in (view.colour, view.depth_m, view.segmentation))
        assert hashlib.sha256(bytes_).hexdigest() == there.stdout.strip()


def test_what_is_kept_never_shows():
    model, data = simulation()
    kept, rng = Renderer(model), np.random.default_rng(0)
    belt = model.geom("belt").id
    for index in range(20):
        scatter(model, data, rng)
        shift = {belt: (0.007 * index, 0.0)} if index % 3 else {}
        colours = model.geom_rgba * rng.uniform(0.5, 1, (model.ngeom, 1)) if index % 4 == 1 else None
        views = [
            renderer.render(data, camera, 48, 64, geom_rgba=colours, pattern_shift_m=shift)
            for renderer, camera in ((kept, "front"), (Renderer(model), "front"), (kept, "carried"))
        ]
        assert same(views[0], views[1]), index
        assert same(views[0], views[2]), index
        segmentation, depth = kept.segment(data, "front", 48, 64)
        np.testing.assert_array_equal(segmentation, views[0].segmentation)
        np.testing.assert_array_equal(depth, views[0].depth_m)


def _edits():
    def edit(name, change):
        return pytest.param(change, id=name)

    return [
        edit("light moved", lambda m: m.light("key").pos.__iadd__((0.3, 0, 0))),
        edit("light dimmed", lambda m: m.light("fill").diffuse.__imul__(0.2)),
        edit("light off", lambda m: m.light_active.__setitem__(0, False)),
        edit("light without shadow", lambda m: m.light_castshadow.__setitem__(0, False)),
        edit("headlight", lambda m: m.vis.headlight.ambient.__imul__(0.5)),
        edit("camera moved", lambda m: m.camera("front").pos.__iadd__((0, 0.1, 0))),
        edit("camera zoomed", lambda m: m.camera("front").fovy.__imul__(0.8)),
        edit("still geom moved", lambda m: m.geom("post").pos.__iadd__((0.1, 0, 0))),
        edit("still geom turned", lambda m: m.geom("belt").quat.__setitem__(slice(None), (0.96, 0, 0, 0.28))),
        edit("still geom grown", lambda m: m.geom("post").size.__imul__(0.7)),
        edit("still geom hidden", lambda m: m.geom("post").group.__setitem__(0, 4)),
        edit("still geom painted", lambda m: m.geom("bench").rgba.__setitem__(0, 0.1)),
        edit("moving geom painted", lambda m: m.geom("ball").rgba.__setitem__(0, 0.9)),
        edit("pattern", lambda m: m.geom("floor").user.__setitem__(1, 0.2)),
        edit("gloss", lambda m: m.material("metal").shininess.__imul__(0.2)),
        edit("sheen", lambda m: m.material("metal").reflectance.__imul__(0.2)),
    ]


@pytest.mark.parametrize("change", _edits())
def test_an_edit_of_the_model_shows_at_once(change):
    model, data = simulation()
    renderer = Renderer(model)
    before = renderer.render(data, "front", 64, 64)
    change(model)
    mujoco.mj_forward(model, data)
    after = renderer.render(data, "front", 64, 64)
    assert not np.array_equal(before.colour, after.colour)
    assert same(after, Renderer(model).render(data, "front", 64, 64))


def test_a_shadow_falls_where_the_body_hides_the_light_and_nowhere_else():
    light, radius = np.array([0.6, -0.4, 2.0]), 0.15
    model, data = world(
        f'<light type="point" pos="{light[0]} {light[1]} {light[2]}" diffuse=".6 .6 .6"/>'
        '<geom type="plane" size="0 0 1" rgba=".7 .7 .7 1"/><camera name="top" pos="0 0 3" fovy="45"/>'
        f'<body><freejoint/><geom type="sphere" size="{radius}"/></body>',
        headlight='ambient=".3 .3 .3" diffuse="0 0 0"',
    )
    renderer = Renderer(model)
    data.qpos[:3] = 0, 0, -5
    mujoco.mj_forward(model, data)
    empty = renderer.render(data, "top", 96, 96).colour.astype(int)
    data.qpos[:3] = middle = np.array([0.1, 0.2, 0.5])
    mujoco.mj_forward(model, data)
    view = renderer.render(data, "top", 96, 96)

    start, way = rays(model, data, "top", 96, 96)
    floor = start + way * 3
    along = (floor - light) / np.linalg.norm(floor - light, axis=-1, keepdims=True)
    apart = np.linalg.norm(np.cross(middle - light, along), axis=-1)
    on_floor = view.segmentation == 0
    darker = (empty - view.colour).max(axis=-1) > 20
    assert (darker & on_floor).sum() > 50
    # The ray through the middle of a pixel decides, so that the edge is as sharp as rounding.
    np.testing.assert_array_equal(darker[on_floor], apart[on_floor] < radius)
    np.testing.assert_array_equal(view.colour[on_floor & ~darker], empty[on_floor & ~darker])


def test_under_ambient_light_alone_a_face_that_looks_up_has_exactly_its_colour():
    model, data = world('<geom type="box" size="1 1 .1" rgba=".2 .4 .6 1"/><camera name="top" pos="0 0 3" fovy="20"/>')
    view = Renderer(model).render(data, "top", 8, 8)
    assert (view.colour == [51, 102, 153]).all()
    colours = np.array([[1.0, 0, 0, 1]])
    assert (Renderer(model).render(data, "top", 8, 8, geom_rgba=colours).colour == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("user", "colour"),
    [
        ("1 .2 0 0 1 0", lambda x, y: (x % 0.2 < 0.1) == (y % 0.2 < 0.1)),
        ("2 .2 0 0 1 0", lambda x, y: x % 0.2 < 0.1),
        ("2 .2 0 0 1 1", lambda x, y: y % 0.2 < 0.1),
    ],
    ids=["checker", "stripes along x", "stripes along y"],
)
def test_patterns_repeat_in_metres_and_move_with_their_shift(user, colour):
    model, data = world(
        f'<geom type="box" size="1 1 .1" pos="0 0 -.1" rgba="1 0 0 1" user="{user}"/>'
        '<camera name="top" pos=".03 .02 2" fovy="20"/>'
    )
    renderer = Renderer(model)
    start, way = rays(model, data, "top", 60, 60)
    x, y, _ = np.moveaxis(start + way * 2, -1, 0)
    for shift in ((0.0, 0.0), (0.1, 0.0), (0.04, -0.07)):
        seen = renderer.render(data, "top", 60, 60, pattern_shift_m={0: shift}).colour
        first = colour(x - shift[0], y - shift[1])
        pure = (seen == [255, 0, 0]).all(-1) | (seen == [0, 0, 255]).all(-1)
        assert pure.mean() > 0.75  # the rest are edges, mixed of both
        np.testing.assert_array_equal(seen[pure][:, 0] == 255, first[pure])


def test_a_fine_pattern_far_away_blurs_into_its_mean():
    model, data = world(
        '<geom type="plane" size="0 0 1" rgba="1 0 0 1" user="1 .01 0 0 1 0"/><camera name="top" pos="0 0 9"/>'
    )
    seen = Renderer(model).render(data, "top", 32, 32).colour.astype(int)
    assert np.abs(seen - [127, 0, 127]).max() < 25


def test_supersampling_smooths_colour_and_leaves_depth_and_segmentation():
    model, data = simulation()
    renderer = Renderer(model)
    plain, smooth = (renderer.render(data, "front", 32, 32, supersample=each) for each in (1, 2))
    fine = renderer.render(data, "front", 64, 64).colour.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(smooth.colour - fine).max() <= 0.5
    np.testing.assert_array_equal(smooth.depth_m, plain.depth_m)
    np.testing.assert_array_equal(smooth.segmentation, plain.segmentation)


def test_gloss_makes_a_highlight_and_metal_reflects():
    assets = (
        '<asset><material name="dull" specular="0"/><material name="gloss" specular="1" shininess=".5"/>'
        '<material name="metal" specular="0" reflectance=".6"/></asset>'
    )

    def ball(material):
        model, data = world(
            f'<geom type="sphere" size=".3" rgba=".2 .2 .5 1" material="{material}"/>'
            '<light type="point" pos="1 -1 2" diffuse=".5 .5 .5" specular="1 1 1"/>'
            '<camera name="c" pos="0 -2 0" xyaxes="1 0 0 0 0 1" fovy="20"/>',
            headlight='ambient=".3 .3 .3" diffuse="0 0 0" specular="0 0 0"',
            head=assets,
        )
        return Renderer(model).render(data, "c", 64, 64).colour.astype(int)

    dull, gloss, metal = ball("dull"), ball("gloss"), ball("metal")
    assert (gloss >= dull).all()
    assert (gloss - dull).max() > 60
    # Brightest where the mirrored ray goes up, darkest where it goes to the horizon: above the middle against in it.
    assert metal[12, 32].sum() - metal[32, 32].sum() > dull[12, 32].sum() - dull[32, 32].sum() + 60


def test_a_scene_without_moving_geoms_lights_or_anything_in_view():
    model, data = world(
        '<geom type="sphere" size=".1" pos="0 0 9"/><camera name="down" pos="0 0 5"/><camera name="up" pos="0 0 5" '
        'euler="180 0 0"/>'
    )
    renderer = Renderer(model)
    view = renderer.render(data, "down", 5, 7)
    assert view.colour.shape == (5, 7, 3)
    assert (view.segmentation == -1).all()
    assert renderer.render(data, "up", 31, 31).segmentation[15, 15] == 0


def test_meshes_and_height_fields_are_cast_too():
    model, data = world(
        '<geom type="mesh" mesh="wedge" pos="0 0 0"/><geom type="hfield" hfield="hill" pos="3 0 0"/>'
        '<light type="point" pos="1 -1 4"/><camera name="c" pos="0 0 3"/><camera name="d" pos="3 0 3"/>',
        head='<asset><mesh name="wedge" vertex="-1 -1 0  1 -1 0  1 1 0  -1 1 0  0 0 1"/>'
        '<hfield name="hill" nrow="2" ncol="2" elevation="1 1 1 1" size="1 1 .5 .1"/></asset>',
    )
    renderer = Renderer(model)
    assert renderer.render(data, "c", 33, 33).depth_m[16, 16] == pytest.approx(2, abs=1e-3)
    for height in (0.5, 1.0):
        model.hfield_data[:] = height
        assert renderer.render(data, "d", 32, 32).depth_m[16, 16] == pytest.approx(3 - 0.5 * height, abs=1e-3)


def blocks(colour):
    return colour.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))


def test_golden_picture():
    model, data = simulation()
    np.testing.assert_allclose(blocks(Renderer(model).render(data, "front", 64, 64).colour), GOLDEN, atol=1)


def test_an_unknown_camera_is_answered_with_the_known_ones():
    model, data = simulation()
    with pytest.raises(SettingsError, match=r"'frnt'.*front, carried"):
        Renderer(model).render(data, "frnt", 8, 8)
    with pytest.raises(SettingsError, match="front, carried"):
        project(model, data, "frnt", np.zeros((1, 3)), 8, 8)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ('<geom name="ghost" size="1" rgba="1 1 1 0"/>', "'ghost'.*group 3"),
        ('<geom name="odd" size="1" user="3 .1 0 0 0 0"/>', "'odd'.*checker"),
        ('<geom size="1" user="1 0 0 0 0 0"/>', "period"),
        ('<geom size="1" user="2 .1 0 0 0 3"/>', "axis"),
        ('<geom size="1"/><light name="sun" type="directional"/>', "'sun'.*point"),
    ],
)
def test_what_cannot_be_drawn_is_refused(inside, message):
    model, _ = world(inside)
    with pytest.raises(SettingsError, match=message):
        Renderer(model)


def test_settings_that_cannot_be_followed_are_refused():
    model, data = simulation()
    renderer = Renderer(model)
    with pytest.raises(SettingsError, match="supersample"):
        renderer.render(data, "front", 8, 8, supersample=3)
    with pytest.raises(SettingsError, match="0 x 8"):
        renderer.segment(data, "front", 0, 8)
    with pytest.raises(SettingsError, match="no pattern"):
        renderer.render(data, "front", 8, 8, pattern_shift_m={model.geom("bench").id: (0.1, 0.0)})
    with pytest.raises(SettingsError, match="geom_rgba"):
        renderer.render(data, "front", 8, 8, geom_rgba=np.zeros((2, 4)))
    model.material("metal").rgba[3] = 0
    with pytest.raises(SettingsError, match="'post' or its material"):
        renderer.render(data, "front", 8, 8)
    model.geom("bench").rgba[3] = 0
    with pytest.raises(SettingsError, match="'bench'"):
        renderer.segment(data, "front", 8, 8)
    flat, data = world('<geom size="1"/><camera name="flat" projection="orthographic"/>')
    with pytest.raises(SettingsError, match="pinhole"):
        Renderer(flat).segment(data, "flat", 8, 8)
