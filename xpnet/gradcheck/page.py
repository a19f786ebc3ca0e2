"""A gradient check as HTML: for a notebook, and as a page of its own. Words and colours, no script."""

from html import escape

from .verdicts import FAR

STYLE = """
.xpnet { font: 14px/1.5 system-ui, sans-serif; max-width: 64em }
.xpnet table { border-collapse: collapse; margin: .8em 0 }
.xpnet th, .xpnet td { padding: .25em .8em; text-align: right; border-bottom: 1px solid rgb(128 128 128 / .35) }
.xpnet th:first-child, .xpnet td:first-child { text-align: left; white-space: nowrap }
.xpnet tr.what td { text-align: left; font-size: 13px; padding-left: 2.5em }
.xpnet b { padding: .1em .5em; border-radius: .3em; font-weight: 600 }
.xpnet .pass { background: rgb(46 160 67 / .28) } .xpnet .kink { background: rgb(56 139 253 / .28) }
.xpnet .undecided { background: rgb(210 153 34 / .32) } .xpnet .fail { background: rgb(248 81 73 / .36) }
.xpnet ul { margin: .3em 0; padding-left: 1.2em } .xpnet svg { vertical-align: middle }
.xpnet svg .pass { fill: rgb(46 160 67 / .25) } .xpnet svg .kink { fill: rgb(56 139 253) }
.xpnet svg .undecided { fill: rgb(210 153 34) } .xpnet svg .fail { fill: rgb(248 81 73) }
.xpnet code { font: 12.5px/1.5 ui-monospace, monospace }
"""
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 2em; background: Canvas; color: CanvasText }}
</style>
{body}
</html>
"""
CODES = ("pass", "kink", "undecided", "fail")
CELLS = 48  # of a map, along each side


def fragment(check):
    """Return a check as a piece of HTML with a style of its own, in whatever colours stand around it."""
    word, css = ("pass", "pass") if check else ("FAIL", "fail")
    lines = [f"<p><b class='{css}'>{word}</b> {escape(check.summary())}</p>", f"<p>{escape(check.head())}</p>"]
    if check.audit:
        lines.append(f"<p>audit: {escape(check.audit)}</p>")
    for kind, texts in (("problem", check.problems), ("note", check.notes)):
        if texts:
            lines.append(f"<ul>{''.join(f'<li>{kind}: {escape(text)}</li>' for text in texts)}</ul>")
    if check.parameters:
        heads = ("parameter", "checked", *CODES, "largest error", "where")
        rows = [f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"]
        rows += [_row(parameter, check.verdicts.get(parameter.name)) for parameter in check.parameters]
        lines.append(f"<table>{''.join(rows)}</table>")
    return f"<div class='xpnet'><style>{STYLE}</style>{''.join(lines)}</div>"


def page(check):
    """Return a check as a whole page, light or dark as the reader has it."""
    return PAGE.format(title=escape(f"gradient check: {check.title}"), body=fragment(check))


def _row(p, verdicts):
    name = f"<code>{escape(p.name)}</code> ({', '.join(map(str, p.shape))})"
    counts = zip(CODES, (p.passed, p.kinks, p.undecided, p.failed), strict=True)
    cells = [f"<td><b class='{code}'>{count}</b></td>" if count else "<td>0</td>" for code, count in counts]
    error = f"{p.largest.error:.1e}" if p.largest else ""
    what = [_entry(entry) for entry in p.worst] + ([escape(p.hint)] if p.hint else [])
    if p.unseen:
        what.append(f"{p.unseen} of them are counted like the {p.failed - p.unseen} looked at closely")
    map_ = _map(verdicts) if p.failed or p.kinks or p.undecided else ""
    row = f"<tr><td>{name}</td><td>{p.checked}</td>{''.join(cells)}<td>{error}</td><td>{map_}</td></tr>"
    return row + (f"<tr class='what'><td colspan='8'>{'<br>'.join(what)}</td></tr>" if what else "")


def both_gradients(entry):
    """Return in words both gradients of an entry, with their ratio where it tells something."""
    text = f"numerical {entry.numerical + 0.0:.5e}, backprop {entry.backprop + 0.0:.5e}"  # no −0
    if entry.ratio != entry.ratio:
        return text
    if abs(entry.ratio) > FAR and entry.backprop - entry.backprop == 0:
        return f"{text}, should be {'0' if entry.numerical == 0 else 'nearly 0'}"
    return f"{text}, ratio {entry.ratio + 0.0:.6g}"


def _entry(entry):
    return f"<code>{escape(str(entry.index))}</code> {both_gradients(entry)}"


def _map(verdicts):
    """Return a small picture of where in an array which verdict was given, the worst of each cell."""
    if verdicts is None or not verdicts.size:
        return ""
    flat = verdicts.reshape(-1, verdicts.shape[-1]) if verdicts.ndim else verdicts.reshape(1, 1)
    rows, columns = (min(CELLS, length) for length in flat.shape)
    high, wide = (-(-length // count) for length, count in zip(flat.shape, (rows, columns), strict=True))
    size = max(2, min(8, 96 // max(rows, columns)))
    boxes = []
    for i in range(0, flat.shape[0], high):
        for j in range(0, flat.shape[1], wide):
            found = set(flat[i : i + high, j : j + wide].ravel().tolist())
            code = next((code for code in reversed(CODES) if code in found), "pass")
            if code != "pass":
                boxes.append((j // wide, i // high, code))
    wide, high = size * -(-flat.shape[1] // wide), size * -(-flat.shape[0] // high)
    marks = (f"<rect x='{x * size}' y='{y * size}' width='{size}' height='{size}' class='{c}'/>" for x, y, c in boxes)
    return (
        f"<svg width='{wide}' height='{high}' role='img' aria-label='where'>"
        f"<rect width='{wide}' height='{high}' class='pass'/>{''.join(marks)}</svg>"
    )
