import re

from orrery.evaluation.chart import BOTTOM, LEFT, RIGHT, TOP, Chart, Line, draw

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def chart(*values, label="imagined"):
    lines = tuple(Line(label=label, values=row) for row in values)
    return Chart(caption="Nearer is higher.", lines=lines, across="frame", up="dB")


def paths(html):
    """Lines of the plot, without those of the legend; the first line is drawn last."""
    return [path for path in re.findall(r'd="([^"]*)"', html) if path != "M0 4L24 4"][::-1]


def points(path):
    return [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]]


def test_a_line_goes_through_its_values_from_left_to_right_and_higher_is_up():
    (path,) = paths(draw(chart([0.0, 1.0, 0.5])))
    assert points(path) == [(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, TOP), (RIGHT, (TOP + BOTTOM) / 2)]


def test_lines_share_one_scale():
    first, second = paths(draw(chart([0.0, 4.0], [1.0, 2.0])))
    assert points(first)[1][1] == TOP
    assert points(second)[0][1] == BOTTOM - (BOTTOM - TOP) / 4


def test_what_is_not_there_or_not_finite_is_a_gap():
    (path,) = paths(draw(chart([1.0, 2.0, None, 3.0, float("inf"), float("nan"), 4.0])))
    assert path.count("M") == 3
    assert "nan" not in path
    assert "inf" not in path


def test_nothing_and_a_constant_can_be_drawn():
    assert paths(draw(chart([None, None]))) == []
    assert len(paths(draw(chart([2.0, 2.0])))) == 1


def test_text_is_escaped():
    drawn = draw(Chart(caption=HOSTILE, lines=(Line(label=HOSTILE, values=[1.0]),), across=HOSTILE, up=HOSTILE))
    assert "<script>" not in drawn
    assert 'aria-label="&lt;script' in drawn
