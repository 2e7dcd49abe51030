"""Figures of what one has in hand: what is drawn is what was given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import linearize as lz
from linearize import edit, plot


def drawn(ax):
    """A figure is drawn without complaint."""
    ax.figure.canvas.draw()
    return ax


def test_a_map_is_drawn_with_its_values_and_its_box():
    f, params = lambda params, x: x @ params["w"], {"w": np.eye(2, dtype=np.float32)}
    taus = [{"w": np.diag([1.0, 0.0])}, {"w": np.diag([0.0, 1.0])}]
    x = [np.array([[3.0, 1.7]]), np.array([[1.7, 3.0]])]
    alphas = [np.linspace(0, 2, 3), np.linspace(-1, 2, 4)]
    found = lz.disentanglement_error(f, params, taus, x, alphas=alphas)
    ax = drawn(found.plot(names=("one", "two"), search_box=(0.0, 1.0)))
    (mesh,) = ax.collections
    np.testing.assert_array_equal(mesh.get_array().reshape(4, 3), found.total.T)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("α of one", "α of two")
    assert ax.patches[0].get_bbox().bounds == (0.0, 0.0, 1.0, 1.0)
    own = Figure().subplots()
    assert plot.error_map(alphas, found.total, own, search_box=None) is own
    assert not own.patches
    with pytest.raises(ValueError, match="two tasks"):
        plot.error_map([*alphas, alphas[0]], np.zeros((3, 4, 3)))


def test_cosines_are_written_in_their_cells():
    taus = {
        name: lz.TaskVector({"w": np.asarray(w, np.float32)})
        for name, w in {"a$": [1.0, 0.0], "b": [3.0, 4.0]}.items()
    }
    ax = drawn(plot.cosines(taus))
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.60", "0.60", "1.00"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a$", "b"]
    with pytest.raises(ValueError, match="taus is empty"):
        plot.cosines({})


def test_a_search_is_a_line_a_task_and_their_mean():
    found = edit.search_scale(lambda a: [0.9 - (a - 0.25) ** 2, 0.8], [0.9, 0.8])
    ax = drawn(plot.sweep(found.alphas, found.values, names=("a$", "b"), chosen=found.alpha))
    first, second, mean, line = ax.lines
    np.testing.assert_array_equal(first.get_ydata(), found.values[:, 0])
    np.testing.assert_array_equal(second.get_ydata(), found.values[:, 1])
    np.testing.assert_allclose(mean.get_ydata(), found.values.mean(1))
    assert set(line.get_xdata()) == {found.alpha}
    with pytest.raises(ValueError, match="do not fit"):
        plot.sweep([0.0, 1.0], [[1.0]])


def test_a_spectrum_falls_and_has_positive_values_alone():
    ax = drawn(plot.spectrum([1.0, 0.0, 4.0, -1e-9]))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [4.0, 1.0])
    with pytest.raises(ValueError, match="none positive"):
        plot.spectrum([0.0])


def test_a_drift_begins_at_the_bottom():
    ax = drawn(plot.drift([0, 1, 2], [0.0, 0.5, 0.25], label="Adam"))
    assert ax.get_ylim()[0] == 0
    with pytest.raises(ValueError, match=r"\(S,\) both"):
        plot.drift([0, 1], [0.0])


def test_a_map_with_points_that_have_no_error_shows_the_others():
    """Models that were displaced too far: NaN or infinity is drawn as nothing."""
    alphas, total = [np.arange(3.0)] * 2, np.arange(9.0).reshape(3, 3)
    total[2, 1:] = np.nan, np.inf
    (mesh,) = drawn(plot.error_map(alphas, total)).collections
    assert mesh.get_clim() == (0, 6)
    (mesh,) = drawn(plot.error_map(alphas, np.full((3, 3), np.nan))).collections
    assert mesh.get_clim() == (0, 1)


def test_maps_and_cosines_of_what_does_not_fit_are_refused():
    axis = np.arange(3.0)
    for alphas, names in (([axis, axis[:2]], "ab"), ([axis, axis], "a")):
        with pytest.raises(ValueError, match=r"do not fit; expected \(G_1,\), \(G_2,\)"):
            plot.error_map(alphas, np.zeros((3, 3)), names=names)
    with pytest.raises(ValueError, match=r"taus\['a'\] is a dict; expected a task vector"):
        plot.cosines({"a": {}})
