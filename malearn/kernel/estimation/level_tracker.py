"""The online level tracker: exponential smoothing of local levels, with change detection.

It explains log-seconds as a sum::

    cluster + tool type + function in its context + effect of the inputs + noise

Levels follow the errors slowly. What of an error exceeds several times the
usual is taken for a change of regime (another backend, a crowded node) and
moves the tool type and the cluster at once, so that functions which have not
run since move too. That may be wrong, and three rules limit the damage:

- How much of a jump lasts, per tool type and by how many errors in a row agreed
  with it: later jumps move the others, and its own function, that much less.
- What of a jump the next execution of the same function does not bear out is
  taken back, as far as it still stands.
- How much of what others moved a function turns out to have moved itself, per
  tool type and per function: so much of the next such move it follows. All of
  it to begin with, but nothing of what came from another context.
"""

from __future__ import annotations

from malearn.kernel.estimation.explanation import Term
from malearn.kernel.estimation.level_state import (
    LEAST_SCALE,
    LONGEST_RUN,
    Component,
    Context,
    ContextLevel,
    FunctionState,
    LevelJump,
    ToolTypeState,
)
from malearn.kernel.estimation.robust import clip_share, clip_step, share_of, soft_threshold

__all__ = ["LevelTracker"]

# Shares of an ordinary error that function and tool type take over …
_FUNCTION_RATE, _TOOL_RATE = 0.05, 0.03
# … and of what exceeds `_JUMP` scales (fewer after several on one side) tool type and cluster.
_TOOL_JUMP, _CLUSTER_JUMP = 0.40, 0.05
_JUMP, _BIGGEST_JUMP = 4.0, 3.0
# A function's quick level takes over where it departs from the slow one by more than a scale.
_QUICK_RATE = 0.4
_FUNCTION_SCALE_RATE, _TOOL_SCALE_RATE = 0.1, 0.05
_BIGGEST_MOVE = 50.0  # a move of n scales weighs n², at most this
# Variances, in squared log-seconds, of what is known best, and of what function and words do not
# add up to.
_LEAST_VARIANCE, _MISFIT = 0.005, 0.04
_WORTH_DECAY = 0.98


class LevelTracker:
    """The level of the cluster, and the rules by which all levels move."""

    __slots__ = ("cluster",)

    def __init__(self) -> None:
        self.cluster = 0.0

    def start(self, function: FunctionState | None, tool: ToolTypeState, context: Context) -> float:
        """Where `function` starts in a context that it has not run in, above the tool type."""
        part = None if function is None else function.part
        start = tool.newcomer if part is None else part.mean
        for word in enumerate(context):
            known = tool.words.get(word)
            if known is not None:
                start += known.mean
        return start

    def new_state(
        self,
        function: FunctionState,
        tool: ToolTypeState,
        context: Context,
        value: float,
        effect: float,
    ) -> ContextLevel:
        """The line of a context that `function` had not run in, from one execution there."""
        own = value - effect - self.cluster - tool.level
        moves = tool.moves(context)
        if function.part is None:
            return ContextLevel(own, tool.scale, value, moves, 0)
        variance = (
            function.part.variance + _MISFIT + sum(part.variance for part in tool.parts(context))
        )
        start = self.start(function, tool, context)
        # The gain of a Kalman filter: the less sure the start, the more one execution counts.
        offset = start + variance / (variance + tool.scale**2) * (own - start)
        return ContextLevel(offset, tool.scale, value, moves, 1)

    def update_components(
        self, function: FunctionState, tool: ToolTypeState, context: Context, own: float
    ) -> None:
        """Divide `own`, above the tool type, among function and words by what is not known yet."""
        parts = tool.parts(context) if context else []
        noise = _MISFIT + max(tool.scale, LEAST_SCALE) ** 2
        if function.part is None:
            function.part = Component(own - sum([part.mean for part in parts]), noise)
            return
        parts.append(function.part)
        # A Kalman filter's update of independent parts of which only the sum is observed.
        error = clip_step(own - sum([part.mean for part in parts]))
        total = noise + sum([part.variance for part in parts])
        for part in parts:
            gain = part.variance / total
            part.mean += gain * error
            # Never quite sure: a part without variance could not follow a change any more.
            part.variance = max(_LEAST_VARIANCE, part.variance * (1.0 - gain))

    def level(self, line: ContextLevel, tool: ToolTypeState) -> float:
        """The level that follows the errors."""
        return self.level_seen(line, tool) + self._followed(line, tool)

    def level_seen(self, line: ContextLevel, tool: ToolTypeState) -> float:
        """The same just after `snapshot_level`: nothing has moved since."""
        quick = soft_threshold(line.quick - line.offset, max(line.scale, LEAST_SCALE))
        level = line.seen + line.offset
        # The quick level has followed one error at least; how far such ones last is learnt.
        return level + tool.lasts(1) * quick if quick else level

    def terms(self, line: ContextLevel, tool: ToolTypeState) -> tuple[Term, ...]:
        """What `level` is the sum of."""
        quick = self.level_seen(line, tool) - line.seen - line.offset
        return (
            Term("level", "shared level when the function ran last", line.seen),
            Term("level", "the function above it", line.offset),
            Term("level", "its latest shift", quick),
            Term("level", "what others moved since", self._followed(line, tool)),
        )

    def _moved(self, line: ContextLevel, tool: ToolTypeState) -> tuple[float, float]:
        """How the shared level moved since `line` was seen: by its own context, and by others."""
        others = tool.level - line.moves.total - line.elsewhere
        return self.cluster + tool.level - line.seen - others, others

    def _followed(self, line: ContextLevel, tool: ToolTypeState) -> float:
        """How far `line` follows the moves of the shared level since it was seen."""
        own, others = self._moved(line, tool)
        if not own and not others:
            return 0.0
        followed = own * clip_share(clip_share(tool.follows.mean) + line.followed)
        return followed + others * clip_share(tool.follows_others.mean) if others else followed

    def snapshot_level(self, line: ContextLevel, tool: ToolTypeState) -> None:
        """From here on `line` counts what moves the shared level."""
        line.seen = self.cluster + tool.level
        line.elsewhere = tool.level - line.moves.total

    def update_levels(
        self, line: ContextLevel, tool: ToolTypeState, value: float, raw: float
    ) -> None:
        """Move the levels towards `value`; `raw` is the effect that its inputs had before."""
        effect = raw * tool.worth
        # First settle what was assumed since this line ran last: only the rest is a new error.
        self._check_move(line, tool, value - effect)
        back = self._check_jump(line, tool, value - effect)
        level = self.level_seen(line, tool)
        error = clip_step(value - level - effect)
        if raw:
            # Scales are mean absolute errors, of which a normal distribution's σ is 1.25.
            scale = 1.25 * max(line.scale, LEAST_SCALE / 2.0)
            missed = min(3.0, max(-3.0, (value - level - raw) / scale))
            tool.xy = _WORTH_DECAY * tool.xy + missed * raw / scale
            tool.xx = _WORTH_DECAY * tool.xx + (raw / scale) ** 2
        tool.run = _run(tool.run, error, max(line.scale, LEAST_SCALE))
        rate = max(_FUNCTION_RATE, 1.0 / (line.count + line.prior_count + 1))
        # One that is still being learnt says nothing about the others.
        settled = rate == _FUNCTION_RATE and not back
        jump = self._jump(line, tool, error, level) if settled else 0.0
        own = value - effect - self.cluster - tool.level
        line.quick += max(_QUICK_RATE, rate) * clip_step(own - line.quick)
        line.offset += min(rate, 0.9) * clip_step(own - line.offset)
        # A context's moves are counted with each move of the level: `_moved` tells by the
        # difference what came from elsewhere.
        move = _TOOL_RATE * (error - jump) + _TOOL_JUMP * jump
        tool.level += move
        line.moves.total += move
        self.cluster += _CLUSTER_JUMP * jump
        miss = min(abs(error), 3.0 * line.scale)
        rate = max(_FUNCTION_SCALE_RATE, 1.0 / (line.count + 2))
        line.scale += rate * (miss - line.scale)
        tool.scale += _TOOL_SCALE_RATE * (miss - tool.scale)

    def _jump(self, line: ContextLevel, tool: ToolTypeState, error: float, level: float) -> float:
        """What of `error`, at `level`, to take for a change of regime that others share."""
        agreed = max(1, min(abs(tool.run), LONGEST_RUN))
        scale = max(line.scale, LEAST_SCALE)
        jump = soft_threshold(error, _JUMP / agreed * scale)
        if jump:
            weight = min(_BIGGEST_JUMP, abs(jump) / scale)
            jump *= tool.lasts(agreed)
            # Kept even where nothing of it is applied now: its outcome decides about the next one.
            line.jump = LevelJump(level, error, agreed, weight, tool.level, _TOOL_JUMP * jump)
        return jump

    def _check_move(self, line: ContextLevel, tool: ToolTypeState, value: float) -> None:
        """Learn from `value` whether what others moved since last time was this one's move too."""
        own, others = self._moved(line, tool)
        if not own and not others:
            return
        followed = self._followed(line, tool)
        # About a standard deviation: of smaller moves one execution cannot tell what became.
        step = 1.25 * max(line.scale, LEAST_SCALE)
        if abs(own) > step or abs(others) > step:
            found = value - self.level(line, tool) + followed
        if abs(own) > step:
            # As in a regression, a large move tells more of the slope than a small one. Each
            # share is learnt from what the other leaves over.
            weight = min((own / step) ** 2, _BIGGEST_MOVE)
            share = share_of(found - others * clip_share(tool.follows_others.mean), own)
            line.learn_follows(share - clip_share(tool.follows.mean), weight)
            tool.follows.learn(share, weight)
        if abs(others) > step:
            weight = min((others / step) ** 2, _BIGGEST_MOVE)
            share = share_of(found - own * clip_share(tool.follows.mean), others)
            tool.follows_others.learn(share, weight)
        # The shared level counts in full from here on, so the offset takes back what of its moves
        # was not followed: the level stays what it was.
        line.offset += followed - own - others
        line.quick += followed - own - others
        self.snapshot_level(line, tool)

    def _check_jump(self, line: ContextLevel, tool: ToolTypeState, value: float) -> bool:
        """Whether `value` does not bear out the last jump of `line`, which is then taken back."""
        if line.jump is None:
            return False
        jump, line.jump = line.jump, None
        share = share_of(value - jump.before, jump.error)
        tool.lasting[jump.agreed - 1].learn(share, jump.weight)
        if share >= 0.5:
            return False
        if not jump.moved:
            return True
        low, high = min(jump.moved, 0.0), max(jump.moved, 0.0)
        # Executions of others may have taken part of it back meanwhile.
        stands = min(high, max(low, tool.level - jump.tool_before))
        undone = (1.0 - max(0.0, share)) * stands
        tool.level -= undone
        line.moves.total -= undone
        # The cluster moved in this ratio to the tool type.
        self.cluster -= undone * _CLUSTER_JUMP / _TOOL_JUMP
        self.snapshot_level(line, tool)
        return True


def _run(run: int, error: float, scale: float) -> int:
    """How many errors in a row lay beyond a scale, on one side; its sign is the side."""
    if abs(error) <= scale:
        return 0
    if error > 0:
        return run + 1 if run > 0 else 1
    return run - 1 if run < 0 else -1
