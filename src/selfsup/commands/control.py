"""`control`: an agent learns to act by what it sees. Imports torch and Gymnasium only when it is called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from selfsup.base.checks import check_numbers
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.commands.given import Target
from selfsup.errors import UserError, unknown

AGENTS = {True: "td3", False: "sac"}  # for goals, for rewards


@dataclass(frozen=True)
class Measured:
    """What episodes of an environment had, by the `agent` or by `random` actions: `mean` with its 95% interval.

    Of one run the interval is that of its `episodes`, and says nothing of other seeds; of several `runs` it is the
    interquartile mean of their means, and the interval that of a bootstrap over runs.
    """

    env: str
    policy: str
    mean: float
    low: float
    high: float
    episodes: int
    runs: int


@dataclass(frozen=True, repr=False)
class Controlled(Printable):
    """What `control` learned in the folder `path`, or, of several seeds, in a folder below it for each.

    `unit` is what `rows` measure: the return, or the true distance from image goals at the end of an episode by that at
    its start. `history`: the same after some steps, of fewer episodes, for each run.
    """

    path: Path
    task: str
    env: str
    sees: str
    joint: bool
    steps: int
    unit: str
    rows: Sequence[Measured]
    history: Sequence[Sequence[tuple[int, float]]]
    dropped: int

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        rows, history = [vars(row) for row in self.rows], [[list(one) for one in run] for run in self.history]
        return {**vars(self), "path": str(self.path), "rows": rows, "history": history}

    def __rich__(self) -> Group:
        seen = self.task if self.sees == "latents" else f"{self.sees} in place of {self.task}"
        how = f"{seen}{', with the gradient of the critic' if self.joint else ''}"
        runs = self.rows[0].runs
        of = f"IQM of {runs} runs, 95% bootstrap interval" if runs > 1 else "mean, 95% interval of the episodes"
        table = Table(title=f"{self.env}, {how}, {self.steps:,} steps: {self.unit}, {of}", title_justify="left")
        for column in ("measured in", "policy", self.unit, "interval", "episodes"):
            table.add_column(column)
        for row in self.rows:
            numbers = f"{row.mean:.3g}", f"{row.low:.3g} to {row.high:.3g}", str(row.episodes)
            table.add_row(row.env, row.policy, *numbers)
        dropped = [f"{self.dropped:,} episodes were dropped"] if self.dropped else []
        return Group(table, *dropped, str(self.path))


def control(
    task: str,
    env: str,
    /,
    *,
    steps: int = 15_000,
    test: str | None = None,
    sees: str = "latents",
    joint: bool = False,
    own_reward: bool = False,
    agent: str | None = None,
    out: Target | None = None,
    episodes: int | None = None,
    encoder: str | None = None,
    encoder_steps: int = 1_000,
    batch_size: int = 128,
    seed: int = 0,
    seeds: int = 1,
    quiet: bool = False,
    **options: Any,
) -> Controlled:
    """Train an agent that sees pixels through an encoder, and measure how well it acts.

    A task that imagines goals (rig, cc_rig): the encoder learns from episodes of random actions, then the agent learns
    to reach goals that are imagined, without any reward; it is measured by the true distance from image goals. Any
    other task on single episodes (curl, deepmdp, dbc): the encoder learns by the loss of the task while the agent
    learns from the environment's rewards.

    In rounds, the agent collects episodes and learns from all of them. Everything follows from the seed: called again
    after it was stopped or killed, it ends with the same weights. See docs/control.md.

    Args:
        task: A task on episodes, such as curl, deepmdp or dbc; rig, or cc_rig where scenes differ, for goals.
        env: An environment of Gymnasium with actions that are numbers (Reacher-v5), SwingUp, PointRoom, one of their
            variants, module:Class or module:Id of your own.
        steps: Steps that the agent takes, and updates that it makes.
        test: Another environment, in which it is measured too, such as SwingUp:background:test.
        sees: What the agent sees: latents of the task; for comparison the true state; pixels, with the same encoder
            trained by the critic alone, or of goals without one; crops, the same in the crops of the task; random, an
            untrained encoder.
        joint: Let the critic train the encoder too.
        own_reward: Use the environment's reward also with a task that imagines goals, such as an auto-encoder: rig
            --beta 0.
        agent: td3 or sac, of Stable-Baselines3; by default td3 for goals, sac for rewards.
        out: The folder to write; by default control/TASK-ENV, followed by --sees unless that is latents.
        episodes: Episodes of random actions at the start; by default enough for 10,000 observations with goals, 1,000
            with rewards.
        encoder: As in pretrain; the task's own by default.
        encoder_steps: With goals, steps of the encoder's training.
        batch_size: Transitions per update.
        seed: Seed of everything, at least 0.
        seeds: Number of runs, with this seed and the next ones, each in a folder of its own.
        quiet: Hide progress.
        options: Those of the task, see `selfsup tasks NAME`; size, pixels a side of what is seen, 48 by default; of
            rewards also stack, the frames that are seen at once, 3 by default.

    Raises:
        UserError: For a task that is not for episodes, and for an environment that is unknown, not installed, renders
            nothing, or whose actions are not numbers with bounds.
        RunFailed: If no episode can be played, or a loss is not finite.
    """
    from selfsup.control.agents import AGENTS as KNOWN
    from selfsup.control.asked import SIGHTS, asked_of
    from selfsup.control.rounds import learn
    from selfsup.data import split_options
    from selfsup.tasks import find_task
    from selfsup.tasks.options import check_ranges

    check_numbers(
        steps=steps, episodes=episodes, encoder_steps=encoder_steps, batch_size=batch_size, seed=seed, seeds=seeds
    )
    task_class = find_task(task)
    _check_task(task, task_class)
    imagines = getattr(task_class, "imagines_goals", False)
    goals, agent = imagines and not own_reward, agent or AGENTS[imagines and not own_reward]
    for what, given, known in (("agent", agent, KNOWN), ("sight", sees, SIGHTS[goals])):
        if given not in known:
            raise unknown(what, given, known)
    if joint and (goals or sees in ("state", "random")):
        why = "imagined goals need an encoder that stays as it is" if goals else f"--sees {sees} trains no encoder"
        raise UserError(f"{why}: leave --joint out")
    if own_reward and not imagines:
        raise UserError(f"{task} learns from the environment's reward anyway: leave --own-reward out")
    if os.path.exists(env):
        raise UserError(
            f"{env} is a folder or a file, and not an environment: selfsup pretrain {env} --task {task} learns from it"
        )
    about_data, own = split_options(task_class.kind, options)
    size, stack = about_data.pop("size", None) or 48, (1 if goals else about_data.pop("stack", None) or 3)
    check_numbers(size=size)
    for name, value in about_data.items():
        if value is not None:
            seen = "one frame" if goals else "what one camera shows"
            raise UserError(f"--{name} is not for control, where {seen} is seen in colour: leave it out")
    for name in own.keys() - task_class.hyperparameters().keys():
        raise unknown(f"option of {task}", name, task_class.hyperparameters())
    check_ranges(task_class, own)
    name = "-".join([task, env.replace("/", "-").replace(":", "-"), *([sees] if sees != "latents" else [])])
    folder = user_path(out) if out is not None else Path("control") / (f"{name}-joint" if joint else name)
    found = []
    for number in range(seed, seed + seeds):
        asked = asked_of(
            env, task, own, test=test or env, goals=goals, steps=steps, sees=sees, joint=joint, agent=agent,
            episodes=episodes, encoder=encoder or task_class.default_encoder, encoder_steps=encoder_steps, size=size,
            stack=stack, batch_size=batch_size, seed=number,
        )  # fmt: skip
        found.append(learn(asked, folder if seeds == 1 else folder / f"seed-{number}", quiet))
    rows = [_measured([run.rows[place] for run in found]) for place in range(len(found[0].rows))]
    history = [tuple(run.history) for run in found]
    dropped = sum(run.dropped for run in found)
    return Controlled(folder, task, env, sees, joint, steps, found[0].unit, rows, history, dropped)


def _check_task(name: str, task_class: Any) -> None:
    """Raise `UserError` for a task that does not learn from episodes."""
    from selfsup.tasks import TASKS

    if task_class.kind != "trajectory":
        able = [one for one, place in TASKS.items() if ".control." in place]
        raise UserError(
            f"{name} is for data of the kind {task_class.kind}, and an agent has episodes: selfsup control takes "
            f"{', '.join(able)}; selfsup pretrain learns without acting"
        )


def _measured(rows: Sequence[Any]) -> Measured:
    """Return one row of one or of several runs."""
    from selfsup.evaluation.draws import interval, iqm

    first, count = rows[0], sum(len(row.values) for row in rows)
    if len(rows) == 1:
        mean, half, _ = interval(first.values)
        return Measured(first.env, first.policy, mean, mean - half, mean + half, count, 1)
    mean, low, high = iqm([sum(row.values) / len(row.values) for row in rows])
    return Measured(first.env, first.policy, mean, low, high, count, len(rows))


learn_control = control  # in Python: `selfsup.control` is the package
