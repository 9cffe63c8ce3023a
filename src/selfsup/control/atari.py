"""Atari: the variables of the console's memory whose meaning is known, by game.

The bytes are those that Anand et al. (2019) name, who read the disassembled games.
"""

from __future__ import annotations

MEMORY: dict[str, dict[str, int]] = {
    "boxing": {
        "player_x": 32, "player_y": 34, "enemy_x": 33, "enemy_y": 35, "clock": 17, "score_player": 18,
        "score_enemy": 19,
    },
    "breakout": {"ball_x": 99, "ball_y": 101, "player_x": 72, "score_blocks": 77, "score_player": 84},
    "pong": {
        "ball_x": 49, "ball_y": 54, "player_x": 46, "player_y": 51, "enemy_x": 45, "enemy_y": 50, "score_player": 14,
        "score_enemy": 13,
    },
}  # fmt: skip


def memory_of(game: str) -> dict[str, int]:
    """Return the bytes that are recorded as states, by name; all 128 of a game whose variables are not known."""
    return MEMORY.get(game, {f"ram_{place}": place for place in range(128)})
