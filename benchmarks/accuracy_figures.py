"""Figures and tables of ``accuracy.py``, from its result alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from diffractory.report.style import INK, new_figure, save_figure, tidy, title

Row = dict[str, Any]
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
#: By thickness in Å, and by orientation.
COLOURS = {"200": BLUE, "1000": ORANGE, "2000": GREEN}
GROUP_COLOURS = {"on zone": BLUE, "random": ORANGE}
MODEL_LABELS = {
    "wk-cp for wk-cp-exact": "py4DSTEM's evaluation\n(wk-cp for wk-cp-exact)",
    "wk-exact for wk-cp-exact": "no absorption\n(wk-exact for wk-cp-exact)",
    "lobato for wk-exact, atoms at rest": "Lobato–Van Dyck for\nWeickenmeier–Kohl, at rest",
    "u = 0.10 Å for 0.08 Å": "thermal displacement\n0.10 for 0.08 Å",
}
#: A ring for a code as it is, a disk inside for the same physics.
AGREEMENT_STYLES: dict[str, dict[str, Any]] = {
    "as it is": {"marker": "o", "color": ORANGE, "markerfacecolor": "none", "markersize": 7},
    "same": {"marker": "o", "color": BLUE, "markersize": 3.5},
}
_DPI = 130


def draw(result: Row, folder: Path) -> None:
    """Write all figures."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Callable[[Row], Figure]] = {
        "beams": figure_of_beam_sets,
        "precision": figure_of_precision,
        "form-factors": figure_of_form_factors,
        "agreement": figure_of_agreement,
    }
    for name, make in figures.items():
        save_figure(make(result), folder / f"accuracy-{name}.png", _DPI)


def _log(axes: Axes, which: str, low: float, high: float) -> None:
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axes.minorticks_off()


def _plain_numbers() -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:g}")


def _across(axes: Axes) -> None:
    """Turn the grid: values run along x."""
    tidy(axes)
    axes.grid(visible=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.tick_params(axis="y", length=0)


def _legend(figure: Any, handles: Sequence[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)


def _dots(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), linestyle="", **style)


def figure_of_beam_sets(result: Row) -> Figure:
    """Draw R against q_max, against s_max, and at the default against the heaviest element."""
    study, figure = result["beam sets"], new_figure(9.6, 5.2)
    panels = figure.subplots(2, 3, sharey=True, sharex="col", width_ratios=[1.15, 1.0, 1.0])
    for row, (group, where) in zip(panels, (("on zone", "on zone"), ("random", "random")), strict=True):
        for axes, name, default in zip(row, ("q_max", "s_max"), (2.0, 0.06), strict=False):
            _draw_sweep(axes, study[name]["settings"], name, group)
            axes.axvline(default, color=INK, linewidth=0.8, linestyle=":")
            title(axes, f"{where}: {name[0]}$_{{max}}$")
        for thickness in ("200", "1000"):
            points = [
                (of["heaviest"], 100.0 * r)
                for of in study["default by crystal"]
                for r in of[group][thickness]
            ]
            _dots(row[2], points, marker="o", color=COLOURS[thickness], alpha=0.7, markersize=4)
        title(row[2], f"{where}: default, by element")
        row[0].set_ylabel("R of scattered beams (%)")
    labels = ("q$_{max}$ (Å⁻¹)", "s$_{max}$ (Å⁻¹)", "atomic number of the heaviest element")
    for axes, text in zip(panels[1], labels, strict=True):
        axes.set_xlabel(text)
    _log(panels[0, 0], "y", 1e-2, 2e3)
    panels[0, 0].yaxis.set_major_formatter(_plain_numbers())
    for axes in panels.flat:
        axes.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
        tidy(axes)
    panels[0, 0].text(2.04, 600, "default", fontsize=8, color=INK)
    panels[0, 1].text(
        0.063, 3, "from 0.04 on, most\ncrystals have all\nbeams to 2 Å⁻¹", fontsize=8, color=INK
    )
    _legend(
        figure,
        [
            Line2D(
                [],
                [],
                color=COLOURS[t],
                marker="o",
                markersize=4,
                label=f"{t} Å: median, range over crystals",
            )
            for t in ("200", "1000")
        ],
    )
    return figure


def _draw_sweep(axes: Axes, settings: Sequence[Row], name: str, group: str) -> None:
    for thickness in ("200", "1000"):
        spreads = [[100.0 * value for value in s[group]["r"][thickness]] for s in settings]
        x, (low, middle, high) = [s[name] for s in settings], zip(*spreads, strict=True)
        axes.fill_between(x, low, high, color=COLOURS[thickness], alpha=0.15, linewidth=0)
        # Beam sets that are the same differ by nothing, which has no place on a logarithmic axis.
        points = [(a, b) for a, b in zip(x, middle, strict=True) if b > 0.0]
        axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[thickness], markersize=4, linewidth=1.5)


def figure_of_precision(result: Row) -> Figure:
    """Draw the error of the series against thickness, and against its truncation."""
    figure = new_figure(7.6, 3.3)
    left, right = figure.subplots(1, 2)
    _draw_precision(left, result["precision"])
    _draw_truncation(right, result["precision"])
    for axes in (left, right):
        tidy(axes)
    return figure


def _draw_precision(axes: Axes, study: Row) -> None:
    for key, colour, style in (
        ("single, no absorption", BLUE, "o--"),
        ("single", BLUE, "o-"),
        ("double, no absorption", ORANGE, "o--"),
        ("double", ORANGE, "o-"),
    ):
        largest = [row[2] for row in study["errors"][key]]
        axes.plot(study["thicknesses"], largest, style, color=colour, markersize=4, linewidth=1.3, label=key)
    axes.set(xscale="log", xlabel="thickness (Å)", ylabel="max |ΔI| from dense, worst solve")
    axes.set_xticks([20, 50, 100, 200, 500, 1000, 2000, 5000])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(_plain_numbers())
    axes.tick_params(axis="x", rotation=45)
    axes.set_xlim(18, 5600)
    _log(axes, "y", 1e-15, 1e-5)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0.0, 0.6))
    title(axes, "Precision")


def _draw_truncation(axes: Axes, study: Row) -> None:
    styles = {"single": "-", "double": "--"}
    for precision, style in styles.items():
        for thickness, rows in study["truncation_errors"][precision].items():
            largest = [row[2] for row in rows]
            axes.plot(study["truncations"], largest, style, color=COLOURS[thickness], linewidth=1.5)
    handles = [Line2D([], [], color=COLOURS[t], label=f"{t} Å") for t in study["products"]]
    handles += [Line2D([], [], color=INK, linestyle=s, label=f"{p} precision") for p, s in styles.items()]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="lower left")
    axes.axvline(study["default_truncation"]["complex64"], color=INK, linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="Bessel coefficients left out below", ylabel="max |ΔI|, worst solve")
    axes.invert_xaxis()
    _log(axes, "y", 1e-12, 1e-1)
    axes.text(8e-9, 1e-2, "default\n(single)", fontsize=8, color=INK)
    title(axes, "Truncation of the series")


def figure_of_form_factors(result: Row) -> Figure:
    """Draw elastic form factors of two elements, and what exchanging the physics does to intensities."""
    study, figure = result["form factors"], new_figure(7.6, 6.0)
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.15, 1.0])
    lines = (
        ("exact", "Weickenmeier–Kohl as published (-exact)", INK, "-", 1.2),
        ("py4dstem", "as py4DSTEM evaluates it (wk, wk-cp)", ORANGE, "-", 2.2),
        ("lobato", "Lobato–Van Dyck (lobato)", BLUE, "--", 1.4),
    )
    for axes, (symbol, curves) in zip(upper.subplots(1, 2), study["curves"].items(), strict=True):
        for key, _, colour, style, width in lines:
            axes.plot(curves["g"], curves[key], style, color=colour, linewidth=width)
        axes.set(xlabel="|g| (Å⁻¹)", ylabel="elastic form factor f (Å)", xlim=(0.0, 1.5), ylim=(0.0, None))
        tidy(axes)
        title(axes, symbol)
    _legend(
        upper,
        [Line2D([], [], color=c, linestyle=s, linewidth=w, label=label) for _, label, c, s, w in lines],
    )
    panels = lower.subplots(1, 2, sharey=True)
    for i, (axes, thickness) in enumerate(zip(panels, study["thicknesses"], strict=True)):
        _draw_models(axes, study["rows"], i)
        title(axes, f"{thickness:g} Å")
    panels[0].set_yticks(range(len(MODEL_LABELS)), list(MODEL_LABELS.values()))
    panels[0].invert_yaxis()
    _legend(
        lower,
        [
            Line2D([], [], color=GROUP_COLOURS[group], marker="o", linestyle="", markersize=4, label=group)
            for group in GROUP_COLOURS
        ],
    )
    return figure


def _draw_models(axes: Axes, rows: dict[str, list[Row]], thickness: int) -> None:
    for place, model in enumerate(MODEL_LABELS):
        for row in rows[model]:
            group = "on zone" if row["orientation"] == "on zone" else "random"
            height = place - 0.14 if group == "on zone" else place + 0.14
            style = {"color": GROUP_COLOURS[group], "alpha": 0.6, "markersize": 4, "markeredgewidth": 0}
            _dots(axes, [(100.0 * row["r"][thickness], height)], marker="o", **style)
    _log(axes, "x", 1e-1, 1e4)
    axes.xaxis.set_major_formatter(_plain_numbers())
    axes.set_xlabel("R of scattered beams (%)")
    _across(axes)


def figure_of_agreement(result: Row) -> Figure:
    """Draw the largest |ΔI| from each other code by crystal class: as it is, and with the same physics."""
    ours, others = result["py4DSTEM"]["rows"], result["abTEM and quantem"]["rows"]
    names = {
        "py4DSTEM, WK-CP": (ours, "wk-cp, 4", "wk-cp, complete, same constants"),
        "py4DSTEM, Lobato": (ours, "lobato, 4", "lobato, complete, same constants"),
        "abTEM": (others, "abtem", "abtem, obliquity in"),
        "quantem": (others, "quantem, wk-cp-exact", "quantem"),
    }
    kinds, figure = list(dict.fromkeys(row["kind"] for row in ours)), new_figure(7.6, 3.9)
    panels = figure.subplots(1, len(names), sharey=True)
    for axes, (name, (rows, *keys)) in zip(panels, names.items(), strict=True):
        for key, style in zip(keys, AGREEMENT_STYLES.values(), strict=True):
            largest = [_largest(rows, kind, key) for kind in kinds]
            _dots(axes, [(value, i) for i, value in enumerate(largest) if value is not None], **style)
        if not any(keys[0] in row for row in rows):
            axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", fontsize=8, color=INK)
        _log(axes, "x", 1e-14, 1e-1)
        axes.set_xticks([1e-12, 1e-9, 1e-6, 1e-3])
        axes.set_xlabel("max |ΔI|")
        _across(axes)
        title(axes, name)
    panels[0].set_yticks(range(len(kinds)), kinds)
    panels[0].set_ylim(len(kinds) - 0.5, -0.5)
    labels = ("as the code is", "with the known differences taken out")
    styles = zip(labels, AGREEMENT_STYLES.values(), strict=True)
    _legend(figure, [Line2D([], [], linestyle="", label=label, **style) for label, style in styles])
    return figure


def _largest(rows: Sequence[Row], kind: str, key: str) -> float | None:
    return max((row[key] for row in rows if row["kind"] == kind and key in row), default=None)


def write_tables(result: Row, page: Path | None) -> None:
    """Put the tables into the page, between comments that name them; print them if there is no page."""
    tables = {
        "beams": _table_of_presets(result),
        "truncation": _table_of_truncations(result),
        "form factors": _table_of_models(result),
        "py4DSTEM": _table_of_py4dstem(result),
        "abTEM and quantem": _table_of_others(result),
    }
    if page is None:
        print("\n\n".join(f"{name}\n{table}" for name, table in tables.items()))
        return
    text = page.read_text()
    for name, table in tables.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text, n = re.subn(pattern, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL)
        if n != 1:
            raise ValueError(f"{page.name} has {n} places for the table {name!r}")
    page.write_text(text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _digits(share: float) -> str:
    """Return a share in percent with two digits."""
    return f"{100.0 * share:.2g}" if share < 0.995 else f"{100.0 * share:.0f}"


def _percent(spread: Sequence[float]) -> str:
    low, middle, high = map(_digits, spread)
    return f"**{middle} %** ({low} … {high})"


def _power(value: float | None, digits: int = 1) -> str:
    return "—" if value is None else f"{value:.{digits}e}".replace("e-0", "e-")


def _table_of_presets(result: Row) -> str:
    settings = result["beam sets"]["both"]["settings"]
    seconds = [sum(s[group]["seconds"] for group in GROUP_COLOURS) for s in settings]
    at = next(i for i, s in enumerate(settings) if (s["q_max"], s["s_max"]) == (2.0, 0.06))
    classes = ("light", "medium", "heavy")

    def cell(found: Row | None) -> str:
        return "—" if found is None else " / ".join(_digits(found["r"][t][1]) for t in ("200", "1000"))

    rows = [
        [
            f"{s['q_max']:g}, {s['s_max']:g}" + " (default)" * (i == at),
            " / ".join(f"{s[group]['beams'][1]:.0f}" for group in GROUP_COLOURS),
            f"{seconds[i] / seconds[at]:.2g}",
            *(cell(s["by element"].get(c, {}).get(group)) for group in GROUP_COLOURS for c in classes),
        ]
        for i, s in enumerate(settings)
    ]
    head = ["q_max, s_max (Å⁻¹)", "beams, on zone / random", "time", *(f"on zone: {c}" for c in classes)]
    return _table([*head, *(f"random: {c}" for c in classes)], rows)


def _table_of_truncations(result: Row) -> str:
    study = result["precision"]
    at = study["truncations"].index(study["default_truncation"]["complex64"])
    rows = []
    for t, products in study["products"].items():
        errors = study["truncation_errors"]["single"][t]
        rows.append([f"{t} Å: largest \\|ΔI\\|", *(_power(error[2]) for error in errors)])
        rows.append([f"{t} Å: products with the matrix", *(f"{n / products[at]:.2f}" for n in products)])
    return _table(["coefficients left out below", *(_power(x, 0) for x in study["truncations"])], rows)


def _table_of_models(result: Row) -> str:
    rows = []
    for model, label in MODEL_LABELS.items():
        about = result["form factors"]["models"][model]
        largest = [f"{about['max'][t][1]:.1g} ({about['max'][t][2]:.1g})" for t in ("200", "1000")]
        rows.append([label.replace("\n", " "), *(_percent(about["r"][t]) for t in ("200", "1000")), *largest])
    head = ["changed", "R, 200 Å", "R, 1000 Å", "max \\|ΔI\\|, 200 Å: median (worst)", "1000 Å"]
    return _table(head, rows)


def _table_of_py4dstem(result: Row) -> str:
    rows = result["py4DSTEM"]["rows"]
    columns = {
        f"{label}, {name}": f"{model}, {key}"
        for model, label in (("wk-cp", "WK-CP"), ("lobato", "Lobato"))
        for key, name in (("4", "k_max 4"), ("5", "k_max 5"), ("complete, same constants", "same constants"))
    }
    lines = [
        [kind, *(_power(_largest(rows, kind, key)) for key in columns.values())]
        for kind in dict.fromkeys(row["kind"] for row in rows)
    ]
    return _table(["max \\|ΔI\\|", *columns], lines)


def _table_of_others(result: Row) -> str:
    study = result["abTEM and quantem"]
    flat = [row for row in study["rows"] if row["zero zone"]]
    other = [row for row in study["rows"] if not row["zero zone"]]
    columns = (
        ("abTEM, zero-order zone", flat, "abtem"),
        ("abTEM, other zones too", other, "abtem"),
        ("the same, obliquity put in", other, "abtem, obliquity in"),
        ("quantem, wk-cp", study["rows"], "quantem, wk-cp"),
        ("quantem, wk-cp-exact", study["rows"], "quantem, wk-cp-exact"),
        ("quantem, its evaluation", study["rows"], "quantem"),
    )
    lines = [
        [kind, *(_power(_largest(rows, kind, key)) for _, rows, key in columns)]
        for kind in dict.fromkeys(row["kind"] for row in study["rows"])
    ]
    notes = [
        f"\n{peer}: {about['unavailable'] or str(len(about['failures'])) + ' solves failed'}."
        for peer, about in study["peers"].items()
        if about["unavailable"] or about["failures"]
    ]
    return "\n".join([_table(["max \\|ΔI\\|", *(name for name, _, _ in columns)], lines), *notes])
