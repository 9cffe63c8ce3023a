"""`control`: an agent learns to reach goals that it sees. Imports torch and Gymnasium only when it is called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_numbers
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.errors import UserError, unknown

if TYPE_CHECKING:
    Target = str | os.PathLike[str]
else:
    Target = str  # what the command line can give


@dataclass(frozen=True)
class Controlled(Printable):
    """What `control` learned in the folder `path`.

    `distance`: the true distance from image goals at the end of an episode by that at its start, over `episodes` of
    them; `half`: half of its 95% interval over these episodes, which says nothing of other seeds; `random`: the same of
    random actions. `history`: the distance after some steps, of fewer episodes.
    """

    path: Path
    task: str
    env: str
    test: str
    sees: str
    steps: int
    distance: float
    half: float
    random: float
    episodes: int
    history: Sequence[tuple[int, float]]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {**vars(self), "path": str(self.path), "history": [list(one) for one in self.history]}

    def __rich__(self) -> str:
        what = f"{self.task}" if self.sees == "latents" else f"{self.sees} in place of {self.task}'s latents"
        tested = "" if self.test == self.env else f", measured in {self.test}"
        return (
            f"{self.env}{tested}, {what}, {self.steps:,} steps: episodes end at {self.distance:.2f} ± {self.half:.2f} "
            f"of the distance from the goal that they begin with ({self.episodes} image goals; random actions "
            f"{self.random:.2f})\n{self.path}"
        )


def control(
    task: str,
    env: str,
    /,
    *,
    steps: int = 15_000,
    test: str | None = None,
    sees: str = "latents",
    agent: str = "td3",
    out: Target | None = None,
    episodes: int | None = None,
    encoder: str | None = None,
    encoder_steps: int = 1_000,
    batch_size: int = 128,
    seed: int = 0,
    quiet: bool = False,
    **options: Any,
) -> Controlled:
    """Let an agent learn to reach goals that it imagines, and measure how far from image goals it ends.

    First episodes of random actions, from which the task's encoder learns; then rounds, in which the agent collects
    episodes and learns from all of them, without any reward of the environment. Everything follows from the seed:
    called again after it was stopped or killed, it ends with the same weights. See docs/control.md.

    Args:
        task: The task whose latents have goals in them: rig, or cc_rig where scenes differ.
        env: An environment of Gymnasium with actions that are numbers (Reacher-v5), PointRoom, PointRoom:colours,
            module:Class or module:Id of your own.
        steps: Steps that the agent acts, and updates that it makes.
        test: Another environment, in which it is measured, such as PointRoom:colours:test.
        sees: What agent and reward see: latents; for comparison the true state, or pixels, without an encoder.
        agent: td3 or sac, of Stable-Baselines3.
        out: The folder to write; by default control/TASK-ENV, with what it sees if these are not latents.
        episodes: Episodes of random actions at first; by default so many that they have 10,000 observations.
        encoder: As in pretrain; the task's own by default.
        encoder_steps: Steps of the encoder's training.
        batch_size: Transitions of an update.
        seed: Seed of everything, at least 0.
        quiet: No progress bar.
        options: Those of the task, see `selfsup tasks NAME`, and size: pixels a side of what is seen, 48 by default.

    Raises:
        UserError: For a task that has no goals, and for an environment that is unknown, not installed, renders nothing,
            or whose actions are not numbers with bounds.
        RunFailed: If no episode can be played, or a loss is not finite.
    """
    from selfsup.control.agents import AGENTS
    from selfsup.control.rounds import asked_of, learn
    from selfsup.control.sight import SEES
    from selfsup.data import split_options
    from selfsup.evaluation.draws import interval
    from selfsup.tasks import TASKS, find_task
    from selfsup.tasks.options import check_ranges

    check_numbers(steps=steps, episodes=episodes, encoder_steps=encoder_steps, batch_size=batch_size, seed=seed)
    for what, given, known in (("agent", agent, AGENTS), ("sight", sees, SEES)):
        if given not in known:
            raise unknown(what, given, known)
    kind = find_task(task)
    if not getattr(kind, "imagines_goals", False):
        able = [name for name in TASKS if getattr(find_task(name), "imagines_goals", False)]
        raise UserError(
            f"{task} is for data of the kind {kind.kind}, and has no goals to act for: selfsup control takes "
            f"{', '.join(able)}; selfsup pretrain learns without acting"
        )
    if os.path.exists(env):
        raise UserError(
            f"{env} is a folder or a file, and not an environment: selfsup pretrain {env} --task {task} learns from it"
        )
    about_data, own = split_options(kind.kind, options)
    check_numbers(size=(size := about_data.pop("size", 48)))
    for name in about_data:
        raise UserError(f"--{name} is not for control, where one frame is seen in colour: leave it out")
    for name in own.keys() - kind.hyperparameters().keys():
        raise unknown(f"option of {task}", name, kind.hyperparameters())
    check_ranges(kind, own)
    asked = asked_of(
        env, task, own, test=test or env, steps=steps, sees=sees, agent=agent, episodes=episodes,
        encoder=encoder or kind.default_encoder, encoder_steps=encoder_steps, size=size, batch_size=batch_size,
        seed=seed,
    )  # fmt: skip
    name = "-".join([task, env.replace("/", "-").replace(":", "-"), *([sees] if sees != "latents" else [])])
    folder = user_path(out) if out is not None else Path("control") / name
    ended, chance, history = learn(asked, folder, quiet)
    half = interval((ended.final / ended.start.mean()).tolist()).half
    return Controlled(
        folder, task, env, asked.test, sees, steps, ended.ratio, half, chance.ratio, len(ended.final), tuple(history)
    )


learn_control = control  # in Python: `selfsup.control` is the package
