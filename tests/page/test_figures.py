"""What figures show: colours that stay apart, shapes besides, one kind of damage a panel."""

import itertools

import numpy as np
import pandas as pd
import pytest

from qaq.page.drawing import DEFECT_COLOURS, DEFECT_SHAPES, SERIES_COLOURS, SHAPES, element
from qaq.page.figures import kept_band, score_map
from qaq.page.names import DEFECTS

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
SIGHT = {
    "full": np.eye(3),
    "deuteranopia": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "protanopia": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
}


def lab(colour: str, sight: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a hexadecimal sRGB colour as somebody sees it."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    )
    xyz = to_xyz @ np.clip(sight @ linear, 0, 1) / np.array([0.9505, 1, 1.0888])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("palette", [tuple(DEFECT_COLOURS.values()), SERIES_COLOURS[:5]])
def test_colours_that_share_a_panel_stay_apart_for_the_colour_blind(palette, sight):
    seen = [lab(colour, SIGHT[sight]) for colour in palette]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert nearest > 10


def test_marks_that_share_a_panel_have_shapes_of_their_own():
    assert len(set(DEFECT_SHAPES.values())) == len(DEFECT_COLOURS) == len(DEFECT_SHAPES)
    assert len(set(SHAPES)) == len(SERIES_COLOURS)


def scored(kinds: list[str | None]) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    defect = np.array(kinds * 20, dtype=object)
    values = rng.normal(size=(2, len(defect)))
    return pd.DataFrame({"rmi": values[0], "log_ppl_q": values[1], "defect": defect})


def shown_panels(kinds: list[str | None]) -> list[str]:
    drawn = score_map({"strong": scored(kinds), "weak": scored(kinds)})
    assert drawn is not None
    return [a.get_title(loc="left") or a.get_title() for a in drawn[0].axes if a.get_visible()]


def test_few_kinds_of_damage_share_a_panel_and_many_have_one_each():
    assert shown_panels([None, "echo", "truncated"]) == ["strong model", "weak model"]
    many = [k for k in DEFECTS if k != "clean"][:12]
    assert shown_panels([None, *many]) == 2 * [DEFECTS[k] for k in many]


def test_every_row_of_a_kind_is_in_its_panel_before_all_clean_rows():
    many = [k for k in DEFECTS if k != "clean"][:7]
    drawn = score_map({"strong": scored([None, *many])})
    assert drawn is not None
    for axes in [a for a in drawn[0].axes if a.get_visible()]:
        assert [len(points.get_offsets()) for points in axes.collections] == [20, 20]


def test_the_kept_band_counts_every_row_with_a_score():
    rows = pd.DataFrame({"score": np.arange(40.0), "stratum": 0.0, "rank": np.linspace(0, 1, 40)})
    rows.loc[:3, ["score", "rank"]] = np.nan
    rows["kept"] = rows["rank"].between(0.5, 0.75)
    drawn = kept_band(rows)
    assert drawn is not None
    for axes in drawn[0].axes:
        heights = [sum(steps.get_data().values) for steps in axes.patches]
        assert heights == [36, rows["kept"].sum()]


def test_a_rule_without_scores_has_no_histogram():
    rows = pd.DataFrame({"score": [np.nan] * 3, "stratum": np.nan, "rank": np.nan, "kept": True})
    assert element("kept", lambda: kept_band(rows)) == {}
