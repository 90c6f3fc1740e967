"""One trace as an HTML fragment. A page holds thousands of them, so this is Python and not a template.

Every text in it is a model's or a data set's: it comes in by `said`, which lets no tag and no hidden character through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from html import escape
from itertools import pairwise

from markupsafe import Markup

from backtrack_mrt.reports.trace_view import Piece, TraceView, TurnView
from backtrack_mrt.runs.trace import visible

FOLDED = 1500  # characters of a piece of text that are shown before the rest is folded away
WIDTH, HEIGHT = 640, 120  # of a trace's value curve
LONGEST = 12  # characters of a phase's name in the curve
LISTED = 8  # turns of a phase whose numbers are listed
MOST_TURNS = 1_000  # of a trace that are shown: no browser holds some ten thousands of them
TICKS = "".join(
    f'<text class="tick" x="-8" y="{y}">{label}</text>' for y, label in ((4, "1"), (HEIGHT // 2 + 4, "½"), (124, "0"))
)


def trace_html(trace: TraceView, level: int = 3) -> Markup:
    """level: of its heading."""
    trajectory, name = trace.trajectory, said(trace.name)
    problem, answer = trajectory.problem, trajectory.answer
    mark = {1.0: '<span class="grade right">✓</span> ', 0.0: '<span class="grade wrong">✗</span> '}
    facts = [
        f"<bdi>{said(trace.source)}</bdi>",
        f"problem <bdi>{said(problem.id)}</bdi>",
        f"{len(trace.turns)} turns",
        f"{trajectory.sampled_tokens} tokens",
    ]
    if trace.progress is not None:
        facts.append(f"progress {signed(trace.progress)}")
    final = "none" if answer is None else _said_in_span(answer)
    verdict = f" ({said(trajectory.verdict)})" if trajectory.verdict else ""
    turns = "".join(_shown(trace.turns, level + 1))
    return Markup(
        f'<article class="trace" data-name="{name}" aria-label="Trace {name}">\n<header>\n'
        f"<h{level}>{mark.get(trajectory.outcome, '')}{trace.headline}</h{level}>\n"
        f'<p class="meta">{" · ".join(facts)}</p>\n</header>\n<dl class="asked">\n'
        f'<dt>Problem</dt><dd class="question">{_text(problem.question)}</dd>\n'
        f"<dt>Right answer</dt><dd>{_said_in_span(problem.answer)}</dd>\n"
        f"<dt>Final answer</dt><dd>{final}{verdict}</dd>\n"
        f"<dt>Ended</dt><dd>{trace.stopped}</dd>\n</dl>\n"
        f'{_figure(trace)}{_phases(trace.turns)}<ol class="turns">\n{turns}</ol>\n'
        f'<details class="tokens" data-trace="{name}"><summary>Tokens: mask, log-probability, advantage</summary>'
        "<p>This view needs scripts.</p></details>\n</article>\n"
    )


def said(text: str) -> str:
    """Somebody's text, made visible and escaped."""
    return escape(visible(text))


def signed(value: float | None) -> str:
    """+0.42, −0.42 (a real minus sign), ±0 for what rounds to nothing; – for None."""
    if value is None:
        return "–"
    text = f"{value:+.2f}"
    return "±0" if not float(text) else text.replace("-", "−")


def _said_in_span(text: str) -> str:
    return f'<span class="said">{said(text)}</span>'


def _text(text: str) -> str:
    """What is shown of a text, and the rest; a little more than `FOLDED` is shown whole."""
    if len(text) < 1.2 * FOLDED:
        return _said_in_span(text)
    shown, rest = text[:FOLDED], text[FOLDED:]
    folded = f"<summary>{len(rest):,} more characters</summary>{_said_in_span(rest)}"
    return f'{_said_in_span(shown)}<details class="rest">{folded}</details>'


def _shown(turns: Sequence[TurnView], level: int) -> Iterator[str]:
    """The turns; of very many the first and the last ones."""
    half, hidden = MOST_TURNS // 2, len(turns) - MOST_TURNS
    yield from (_turn(turn, level) for turn in (turns if hidden <= 0 else turns[:half]))
    if hidden > 0:
        yield f'<li class="turn">… {hidden:,} turns, which `backtrack-mrt show` prints …</li>\n'
        yield from (_turn(turn, level) for turn in turns[-half:])


def _phases(turns: Sequence[TurnView]) -> str:
    """The turns grouped by phase, in the order in which the phases come about, where one comes more than once."""
    groups = dict[str, list[TurnView]]()
    for turn in turns:
        groups.setdefault(turn.phase, []).append(turn)
    if len(groups) == len(turns):
        return ""
    rows = ""
    for phase, group in groups.items():
        known = [turn.progress for turn in group if turn.progress is not None]
        rows += (
            f'<tr><th scope="row"><bdi>{said(phase)}</bdi></th><td>{_numbers(group)}</td>'
            f"<td>{sum(turn.tokens for turn in group)}</td><td>{signed(sum(known) if known else None)}</td></tr>\n"
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Phase", "Turns", "Tokens", "Progress"))
    return f'<div class="scroll"><table class="phases">\n<tr>{heads}</tr>\n{rows}</table></div>\n'


def _numbers(group: Sequence[TurnView]) -> str:
    """2, 5, 8; of many turns the first ones, and how many there are."""
    shown = ", ".join(str(turn.number) for turn in group[:LISTED])
    return shown if len(group) <= LISTED else f"{shown}, … ({len(group):,})"


def _turn(turn: TurnView, level: int) -> str:
    kind, name = _phase(turn.phase, turn.meaning, level)
    progress = ""
    if turn.progress is not None:
        strength = turn.strength
        arrow = "▲" if strength > 0 else "▼" if strength < 0 else "■"
        progress = (
            f'<span class="progress p{strength}">V {turn.before:.2f} → {turn.after:.2f}, '
            f"progress {arrow} {signed(turn.progress)}</span>\n"
        )
    weight = "" if turn.weight is None else f", weight {signed(turn.weight)}"
    return (
        f'<li class="turn {kind}{" given" if turn.given else ""}">\n<div class="head">\n'
        f'<h{level}><span class="number">{turn.number}</span> {name}\n'
        f'<span class="claim{" violation" if turn.violation else ""}"><bdi>{said(turn.claim)}</bdi> '
        f"{_GRADES[turn.right]}</span>\n{progress}"
        f'<span class="count">{turn.tokens} tokens{", given" if turn.given else ""}{weight}</span>\n</div>\n'
        f'<div class="text">{"".join(_pieces(turn.pieces)) or _NOTHING}</div>\n</li>\n'
    )


@lru_cache
def _phase(phase: str, meaning: str, level: int) -> tuple[str, str]:
    """Its class, and its name with the end of the heading."""
    name = f"<bdi>{said(phase)}</bdi></h{level}>"
    return (said(phase.lower()), f'{name}<span class="meaning">{said(meaning)}</span>') if meaning else ("other", name)


_GRADES = {
    None: "",
    True: '<span class="grade right">✓ right</span>',
    False: '<span class="grade wrong">✗ wrong</span>',
}
_NOTHING = '<span class="nothing">(nothing)</span>'


def _pieces(pieces: Iterable[Piece]) -> Iterator[str]:
    """Neighbours that were discarded together are told of once."""
    for piece, following in pairwise([*pieces, None]):
        assert piece is not None
        by = piece.discarded_by
        if by:
            yield f'<del title="discarded by turn {by}">{_text(piece.text)}</del>'
            if following is None or following.discarded_by != by:
                yield f'<small class="why">discarded by turn {by}</small>'
        else:
            yield f'<span class="step">{_text(piece.text)}</span>' if piece.step else _text(piece.text)


def _figure(trace: TraceView) -> str:
    """V over the tokens, a band per turn below it; the regret is the area above. Nothing without values or tokens."""
    total = trace.trajectory.sampled_tokens
    if not total or trace.values is None:
        return ""
    points = [
        (round(WIDTH * x / total, 1), round(HEIGHT * (1 - min(max(y, 0.0), 1.0)), 1))
        for x, y in zip(trace.spent.tolist(), trace.values, strict=True)
    ]
    few = points[:: 1 + len(points) // (2 * MOST_TURNS)]  # nobody sees more
    line = " ".join(f"{x:g},{y:g}" for x, y in few)
    regret, before, after = f"{trace.regret:.2f}", trace.turns[0].before, trace.turns[-1].after
    bands, ends = [], []
    drawn = zip(trace.turns, pairwise(points), strict=True) if len(trace.turns) <= MOST_TURNS else ()
    for turn, ((start, _), (end, y)) in drawn:
        width = end - start
        bands.append(f'<rect class="band p{turn.strength}" x="{start:g}" y="126" width="{width:g}" height="18"/>\n')
        if width > 22:
            phase = turn.phase if len(turn.phase) <= LONGEST else f"{turn.phase[: LONGEST - 1]}…"
            label = f" {said(phase)}" if width > 90 else ""
            bands.append(f'<text class="phase" x="{(start + end) / 2:g}" y="139">{turn.number}{label}</text>')
        ends.append(f'<circle cx="{end:g}" cy="{y:g}" r="4"/>')
    return (
        f'<figure class="value">\n<svg viewBox="-34 -8 690 158" role="img" aria-label="V over the tokens of the trace: '
        f'from {before:.2f} to {after:.2f}; regret {regret}">\n'
        f'<polygon class="regret" points="0,0 {line} {WIDTH},0"/>\n'
        f'<path class="axis" d="M0 0V120H640M-4 0H0M-4 60H0M-4 120H0"/>\n{TICKS}\n'
        f'{"".join(bands)}<polyline class="line" points="{line}"/>\n'
        f'{"".join(ends)}<circle cx="0" cy="{points[0][1]:g}" r="4"/>\n</svg>\n'
        "<figcaption>V, the chance of success if it had to answer at that point, over its "
        f"{total} sampled tokens. Hatched: regret {regret}.</figcaption>\n</figure>\n\n"
    )
