"""`MusicSession-v0` for many sessions at once, for `gymnasium.make_vec`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from musicbox_env.env import (
    checked_array,
    checked_options,
    checked_sessions,
    chosen_sessions,
    describe,
    ends,
    rendered,
    without_objects,
)
from musicbox_env.rng import KeyStreams
from musicbox_env.schema import brief, require_known
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.checks import require_memory, require_whole
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.simulator.dynamics import Outcome, Simulator
from musicbox_env.simulator.imputed import warn_of_imputed_answers
from musicbox_env.simulator.observations import observation_bytes, part_of

Batch = Any
"""Observations of all sessions: a dictionary of arrays, or one array with ``"flat"``."""
MOST_STEPS = 2**62


class MusicSessionVectorEnv(VectorEnv[Batch, npt.NDArray, npt.NDArray]):
    """Many sessions of `env.MusicSessionEnv` at once; its docstring is the manual page.

    Equal, session for session, to `gymnasium.vector.SyncVectorEnv` over single environments with
    the same seeds. Autoreset follows Gymnasium: with `NEXT_STEP` (the default) the step after an
    end ignores the action and returns the next session's first observation, so an agent must not
    learn from it; with `SAME_STEP` the end's own observation is in `final_obs`; with `DISABLED`
    a finished session stays as it is until `reset(options={"reset_mask": ...})`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium types it as an instance variable)
        "render_modes": ["human", "ansi", "rgb_array"],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        """Make room for ``num_envs`` sessions; `reset` begins them.

        Args:
            num_envs: Sessions played at once.
            autoreset_mode: See the class.
            render_mode: As of `env.MusicSessionEnv`; the first session is drawn.
            max_episode_steps: Slates after which a session is truncated, as by
                `gymnasium.wrappers.TimeLimit`, which `gymnasium.make` puts around single ones.
            **options: Those of `env.MusicSessionEnv`.
        """
        super().__init__()
        if max_episode_steps is not None:
            require_whole("max_episode_steps", max_episode_steps, 1, MOST_STEPS)
        self._spec: EnvSpec | None = None
        if render_mode is not None:
            require_known("render_mode", render_mode, self.metadata["render_modes"])
        self.num_envs = num_envs
        self.render_mode = render_mode
        if not isinstance(autoreset_mode, AutoresetMode):
            require_known("autoreset_mode", autoreset_mode, [mode.value for mode in AutoresetMode])
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.assets = EnvAssets(SessionConfig.from_keywords(options))
        self.config = self.assets.config
        warn_of_imputed_answers(self.config)
        self.single_observation_space = self.assets.observation_space()
        # The space of all holds two bounds, and a step returns as much.
        require_memory(num_envs, 3 * observation_bytes(self.single_observation_space))
        self.simulator = Simulator(self.assets, num_envs)
        self.single_action_space = self.assets.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._everyone = np.arange(num_envs)
        self._over = np.ones(num_envs, np.bool_)
        self._steps_left = np.zeros(num_envs, np.int64)
        self._limit = np.iinfo(np.int64).max if max_episode_steps is None else max_episode_steps
        self._keys: KeyStreams | None = None
        self._last: Outcome | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """How `gymnasium.make_vec` made this; see `env.without_objects`."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = without_objects(spec)

    def render(self) -> tuple[Any, ...] | None:
        """The first session as `env.MusicSessionEnv.render` draws it, alone in a tuple.

        Gymnasium's vector environments return a picture for each of theirs.
        """
        if self.render_mode is None:
            gym.logger.warn("Pass render_mode to gymnasium.make_vec to render.")
            return None
        picture = rendered(self.render_mode, self.simulator, 0, self._last)
        return None if picture is None else (picture,)

    def _show(self, last: Outcome | None) -> None:
        """Remember what a step did, for `render`; print it for humans."""
        self._last = last
        if self.render_mode == "human":
            self.render()

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Batch, dict[str, Any]]:
        """Begin sessions.

        Args:
            seed: One number (environment i gets ``seed + i``) or one for each.
            options: ``{"session": (num_envs,) indices}`` names the sessions; ``{"reset_mask":
                (num_envs,) bool}`` begins only some, once all have begun.

        Raises:
            gymnasium.error.ResetNeeded: The first reset leaves out some.
            ValueError: A seed, a mask or sessions that are none. Nothing has changed then.
        """
        options = checked_options(options, ["session", "reset_mask"])
        everyone = np.ones(self.num_envs, np.bool_)
        mask = checked_array("reset_mask", options.get("reset_mask", everyone), "one bool for each")
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f"reset_mask is {mask.dtype} of shape {mask.shape}; expected bool of shape "
                f"({self.num_envs},) with at least one True."
            )
        if self._keys is None and not mask.all():
            raise gym.error.ResetNeeded("The first reset() begins every session: no reset_mask.")
        rows = np.flatnonzero(mask)
        shapes = (self.num_envs,), (len(rows),)
        chosen = checked_sessions(options.get("session"), self.assets, shapes)
        if chosen is not None and len(chosen) == self.num_envs:
            chosen = chosen[rows]
        self._seed(seed, mask)
        self._begin(rows, chosen)
        self._show(None)
        return self.simulator.observe(self._everyone), self._info(self._everyone, None)

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that decides what happens next, actions aside, so that a training can be kept.

        Raises:
            gymnasium.error.ResetNeeded: No session has begun.
        """
        if self._keys is None:
            raise gym.error.ResetNeeded("Call reset() before arrays().")
        simulator, keys = self.simulator.arrays(), self._keys.arrays()
        own = {"over": self._over, "steps_left": self._steps_left}
        return {**named("simulator", simulator), **named("keys", keys), **own}

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> Batch:
        """Go on where `arrays` was taken, from an environment with the same options.

        Returns:
            The observation that the sessions show.

        Raises:
            ValueError: The arrays are no state of this environment.
        """
        if self._keys is None:
            self.reset(seed=0)
        assert self._keys is not None
        self.simulator.restore(part("simulator", arrays))
        self._keys.restore(part("keys", arrays))
        for name, own in (("over", self._over), ("steps_left", self._steps_left)):
            given = arrays[name]
            if given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(
                    f"{name} is {given.dtype} of shape {given.shape}; expected {own.dtype} of "
                    f"shape {own.shape}."
                )
            own[:] = given
        return self.simulator.observe(self._everyone)

    def _seed(self, seed: int | Sequence[int | None] | None, mask: npt.NDArray[np.bool_]) -> None:
        seeds: Sequence[int | None]
        if seed is None or isinstance(seed, int):
            seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        elif isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
            seeds = seed
        else:
            raise ValueError(
                f"seed is {brief(seed)}; expected a whole number, a list of one for each of the "
                f"{self.num_envs} environments, or None."
            )
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments.")
        for each in seeds:
            if each is not None and not (isinstance(each, int) and each >= 0):
                raise ValueError(f"A seed is {brief(each)}; expected a whole number of 0 or more.")
        if self._keys is None:
            self._keys = KeyStreams([seeding.np_random(s)[0] for s in seeds])
            return
        for i, s in enumerate(seeds):
            if s is not None and mask[i]:
                self._keys.replace(i, seeding.np_random(s)[0])

    def _begin(
        self, rows: npt.NDArray[np.intp], chosen: npt.NDArray[np.int64] | None = None
    ) -> None:
        if self._keys is None:
            raise gym.error.ResetNeeded("Call reset() before step().")
        keys = self._keys.draw(rows)
        self.simulator.begin(rows, chosen_sessions(chosen, self.assets, keys), keys)
        self._over[rows] = False
        self._steps_left[rows] = self._limit

    def step(
        self, actions: npt.NDArray
    ) -> tuple[
        Batch, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]
    ]:
        """Recommend a slate to every session; see the class for what happens at an end.

        Raises:
            gymnasium.error.ResetNeeded: No session has begun.
            ValueError: Actions that cannot be played; see `actions.checked_actions`.
        """
        if self._keys is None:
            raise gym.error.ResetNeeded("Call reset() before step().")
        resting = self._over
        if resting.all():
            outcome = Outcome.nothing(self.num_envs, self.config.slate_size)
        else:
            outcome = self.simulator.step(self._everyone, actions)
        terminated, truncated = ends(self.simulator)
        self._steps_left -= ~resting
        truncated |= self._steps_left == 0
        ended = (terminated | truncated) & ~resting
        self._over = ended | resting
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and resting.any():
            self._begin(np.flatnonzero(resting))
        self._show(outcome)
        info = self._info(self._everyone, outcome)
        observation = self.simulator.observe(self._everyone)
        if self.autoreset_mode == AutoresetMode.SAME_STEP and ended.any():
            observation, info = self._restart(np.flatnonzero(ended), observation, info)
        shown = self._over if self.autoreset_mode == AutoresetMode.DISABLED else ended
        return observation, outcome.reward, terminated & shown, truncated & shown, info

    def _restart(
        self, rows: npt.NDArray[np.intp], last: Batch, info: dict[str, Any]
    ) -> tuple[Batch, dict[str, Any]]:
        """Begin the next sessions within the step, the last observations kept in the info."""
        ended = np.zeros(self.num_envs, np.bool_)
        ended[rows] = True
        final_obs = np.full(self.num_envs, None, dtype=object)
        for row in rows:
            final_obs[row] = part_of(last, row)
        final_info = {
            name: value
            if name.startswith("_")
            else np.where(ended.reshape(-1, *[1] * (value.ndim - 1)), value, np.zeros_like(value))
            for name, value in info.items()
        }
        final_info |= {name: ended.copy() for name in info if name.startswith("_")}
        self._begin(rows)
        restarted = self._info(rows, None)
        for name, value in info.items():
            if not name.startswith("_"):
                value[rows] = restarted[name]
        info |= {"final_obs": final_obs, "_final_obs": ended.copy()}
        info |= {"final_info": final_info, "_final_info": ended.copy()}
        return self.simulator.observe(self._everyone), info

    def _info(self, rows: npt.NDArray[np.intp], outcome: Outcome | None) -> dict[str, Any]:
        """Batched info, with Gymnasium's masks that say which environments have an entry."""
        info: dict[str, Any] = dict(describe(self.simulator, rows, outcome))
        masks = np.ones((len(info), len(info["session"])), np.bool_)
        return info | {f"_{name}": mask for name, mask in zip(info, masks, strict=True)}


def named(name: str, arrays: Mapping[str, npt.NDArray]) -> dict[str, npt.NDArray]:
    """The same arrays under ``name.``; `part` takes it away again."""
    return {f"{name}.{key}": array for key, array in arrays.items()}


def part(name: str, arrays: Mapping[str, npt.NDArray]) -> dict[str, npt.NDArray]:
    """The arrays that `named` put under ``name.``, out of others."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
