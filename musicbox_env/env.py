"""`MusicSession-v0`: one listening session at a time, for `gymnasium.make`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from musicbox_env.rewards import RewardConfig
from musicbox_env.rng import choose, new_key
from musicbox_env.schema import require_known
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.simulator.dynamics import Outcome, Simulator
from musicbox_env.simulator.imputed import warn_of_imputed_answers
from musicbox_env.simulator.observations import part_of

_ONLY = np.zeros(1, np.intp)


class MusicSessionEnv(gym.Env[Any, npt.NDArray]):
    """Recommend the next songs of a logged listening session so that fewer are skipped.

    ## Description
    An episode is one logged listening session. Its first half is shown as history, with how far
    each song was heard. Then, at each step, the agent recommends a slate of songs and a listener
    (user simulator) hears them in order. A song that is not skipped earns a reward.

    ```python
    import gymnasium as gym
    import musicbox_env

    env = gym.make("MusicSession-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    The option `action` decides what an action is; `d` is the dimension of the embedding space.

    | `action` | space | meaning |
    | --- | --- | --- |
    | `"proto"` | `Box(-1, 1, (d,))` | one proto-action, a point of the embedding space; the `slate_size` tracks of highest dot product are the slate, so that only its direction matters |
    | `"proto_list"` | `Box(-1, 1, (slate_size * d,))` | one proto-action for each place of the slate; no track twice |
    | `"slate"` | `MultiDiscrete([tracks] * slate_size)` | rows of the catalog |

    Tracks that the session heard are barred unless `repeats`: proto-actions do not find them. In a
    slate, a barred track, or one named twice, is replaced by the most popular track that is
    allowed, and counted in `info["replaced"]`. The observation `barred` lists these tracks. An
    action of another shape, type or range raises `ValueError` (`musicbox_env.simulator.actions`).

    ## Observation Space
    A `Dict` of one-dimensional `Box`es, or with `"flat"` one `Box`. The newest song is last,
    padding is in front.

    | `observation` | key | shape | meaning |
    | --- | --- | --- | --- |
    | `"embedding"` | `history` | `(history_length * d,)` | embeddings of the songs heard |
    | | `levels` | `(history_length,)` | how far each was heard, 0 brief to 1 full |
    | | `mask` | `(history_length,)` | 1 where there is a song |
    | | `context` | `(11,)` | hour as cosine and sine; premium and shuffle (-1, 1, 0 unknown); context type, one-hot; all of the last shown play; then songs heard over the longest session |
    | `"flat"` | | `(history_length * (d + 2) + 11,)` float32 | the parts of `"embedding"` side by side in this order: history, levels, mask, context |
    | `"ids"` | `tracks` | `(history_length,)` int32 | rows of the catalog, -1 pads |
    | | `levels` | `(history_length,)` int8 | listen levels 0 to 4, -1 pads |
    | | `context` | `(11,)` | as above |
    | | `barred` | `(longest session + horizon,)` int32 | with `candidates="catalog"`: all tracks that the session heard, also beyond `history_length`, -1 pads; none with `repeats` |
    | | `candidates` | `(longest session,)` int32 | with `candidates="session"`: tracks of the plays that may be chosen, ascending, -1 pads |

    ## Rewards
    `sum over k of gamma_position ** k * [song k was not skipped]`, with `gamma_position` 0.9 (the
    list discount of LIRD, arXiv:1801.00209, equation 5). Skipped is `skip_2`, the ground truth of
    the Music Streaming Sessions Dataset.

    The option `reward` sets weights of further terms (`musicbox_env.rewards.RewardConfig`):
    `graded`, `diversity` and `novelty`. Every term is in `info`, unweighted. `info["song_reward"]`
    holds what each song earned; the reward is
    `sum over k of gamma_position ** k * song_reward[k]`, and the weighted terms `diversity` and
    `novelty`, which only a whole slate has.

    ## Starting State
    A session of the split, drawn uniformly; `reset(options={"session": i})` names one by its index
    in the log. The index may be of any split, so that sessions to train on are left to be drawn, or
    taken from `env.unwrapped.assets.pool`, which holds those of the split alone. Of its L plays the
    first `L - ceil(L / 2)` are shown, as in the Sequential Skip Prediction Challenge (WSDM Cup
    2019).

    ## Episode End
    - `terminated` after `ceil(L / 2)` recommended songs, as many as the log has left, or when the
      listener leaves (option `leaving`). The last slate is heard only as far as the session goes.
    - `truncated` after `horizon` songs, where that option is set, unless the listener left before.

    ## Arguments
    | option | default | meaning |
    | --- | --- | --- |
    | `data` | None | dataset folder; None is the bundled synthetic dataset, made on first use |
    | `split` | `"train"` | `"train"`, `"train_a"`, `"train_b"`, `"validation"` or `"test"` |
    | `listener` | None | user simulator; see Listeners. None is `"ground_truth"` where the law that made the data is known, as with the bundled ones, and else `"replay"` |
    | `action` | `"proto"` | see Action Space |
    | `observation` | `"embedding"` | see Observation Space |
    | `candidates` | None | `"catalog"`, all tracks; `"session"`, only plays that the logged session still holds: with `"replay"` every reward is then a logged label. None is `"session"` with `"replay"`, unless `horizon` is set, and `"catalog"` with other listeners |
    | `slate_size` | 3 | songs of a slate |
    | `history_length` | 10 | songs of an observation |
    | `repeats` | False | whether songs already heard may be recommended again |
    | `horizon` | None | songs after which an episode is truncated, in place of the log's own length |
    | `leaving` | None | None, nobody leaves; `"published"`, after each song with the probability that published session lengths give; `"fitted"`, as `musicbox fit-leaving` found it in this dataset, or the path of its file |
    | `reward` | None | dictionary of weights; see Rewards |
    | `embedding` | `"hybrid+rate"` | `"hybrid"`, `"content"` or `"colisten"`; `"+rate"` adds a dimension that holds the track's keep rate |
    | `retrieval` | `"auto"` | how proto-actions find tracks: `"exact"`; `"approximate"`, many times faster among millions, some of the best overlooked (`musicbox_env.retrieval.approximate`); `"auto"`, exact below a million tracks |
    | `render_mode` | None | `"ansi"`, text; `"rgb_array"`, a picture; `"human"`, the text printed after every reset and step |

    `env.unwrapped.config` holds what was chosen for None.

    Set a `horizon` beside `leaving`: the log's own length is already the end of a listener who
    left. In real logs listeners leave after songs heard to the end and hardly ever after a skip
    (`musicbox_env.listeners.leaving`), so leaving is not a sign of bad songs and no reward term: an
    agent that prolongs sessions would learn to be skipped.

    ## Listeners
    A listener (user simulator) answers each song with a listen level. None of them is a person;
    `musicbox trust` validates them on sessions that they were not fitted on.

    | `listener` | answers with | valid for | not valid for |
    | --- | --- | --- | --- |
    | `"replay"` | the logged level of songs that the session still holds; for others the level of one of the session's own plays | with `candidates="session"`, claims about real logs: every reward is a label | comparing recommenders over the catalog: imputed answers carry almost no signal about the song |
    | `"learned"` | a recurrent model fitted on logs (`musicbox fit-listener`) | when skips come and how sessions run; with caution, songs much like those that sessions were offered | songs that an agent finds by searching the catalog for the model's favourites (winner's curse) |
    | `"pessimistic"` | the same, with songs that it knows little of taken to be worse | training agents that do not exploit the model's errors | its skip rates as such: they are too high by design |
    | `"similarity"` | the levels of the most similar moments of the training log, LIRD's way | the session effect | songs: it knows next to nothing of them |
    | `"ground_truth"` | the exact law of a synthetic dataset | everything about that law | how much taste matters among people: that is the law's assumption |
    | a path | a listener fitted on one fold (`musicbox fit-listener DATA --fold A`) | training with fold A and evaluation with fold B, which share no session | |

    ## Vectorized environment
    `gym.make_vec("MusicSession-v0", num_envs=n, vectorization_mode="vector_entry_point")` runs n
    sessions through the same dynamics, much faster than n environments
    (`musicbox_env.vector_env.MusicSessionVectorEnv`).

    ## Information
    `reset` and `step` return the same keys.

    | key | shape | meaning |
    | --- | --- | --- |
    | `slate`, `slate_levels` | `(slate_size,)` | tracks heard and their listen levels, -1 where not heard |
    | `logged` | `(slate_size,)` | whether the level is the logged one, neither imputed nor simulated |
    | `logged_share` | | share of the songs heard whose level is the logged one |
    | `replaced` | | places of the action that were replaced |
    | `song_reward` | `(slate_size,)` | what each song earned, 0 where not heard |
    | `reward_listen`, `reward_graded`, `reward_diversity`, `reward_novelty` | | the reward terms, unweighted |
    | `left` | | whether the listener left |
    | `session` | | index of the logged session |

    `env.unwrapped.assets.search.kind` is the kind of retrieval that `"auto"` chose.

    ## Version History
    - v0: first version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium types it as an instance variable)
        "render_modes": ["human", "ansi", "rgb_array"],
        "render_fps": 1,
    }

    def __init__(self, *, render_mode: str | None = None, **options: Any) -> None:
        """See the class; unknown options are refused with a suggestion."""
        self._spec: EnvSpec | None = None
        if render_mode is not None:
            require_known("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.assets = EnvAssets(SessionConfig.from_keywords(options))
        self.config = self.assets.config
        warn_of_imputed_answers(self.config)
        self.simulator = Simulator(self.assets, num_envs=1)
        self.observation_space: spaces.Space[Any] = self.assets.observation_space()
        self.action_space: spaces.Space[Any] = self.assets.action_space()
        self._last: Outcome | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a session; ``options={"session": i}`` names which, by its index in the log."""
        # First what may be refused: a refused reset changes nothing that the next one draws.
        options = checked_options(options, ["session"])
        named = checked_sessions(options.get("session"), self.assets, ((),))
        super().reset(seed=seed)
        keys = np.array([new_key(self.np_random)], np.uint64)
        self.simulator.begin(_ONLY, chosen_sessions(named, self.assets, keys), keys)
        self._last = None
        self._render_for_humans()
        return self._observation(), first_row(describe(self.simulator, _ONLY, None))

    def step(self, action: npt.NDArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Recommend; the listener hears the slate in order.

        Raises:
            gymnasium.error.ResetNeeded: The session is over, or none has begun.
            ValueError: An action that cannot be played; see `actions.checked_actions`.
        """
        if not self.simulator.remaining[0]:
            raise gym.error.ResetNeeded("No session is running; call reset() before step().")
        batch = action[None] if isinstance(action, np.ndarray) else [action]
        self._last = self.simulator.step(_ONLY, batch)
        self._render_for_humans()
        terminated, truncated = (bool(end[0]) for end in ends(self.simulator))
        info = first_row(describe(self.simulator, _ONLY, self._last))
        return self._observation(), float(self._last.reward[0]), terminated, truncated, info

    @property
    def spec(self) -> EnvSpec | None:
        """How `gymnasium.make` made this; see `without_objects`."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = without_objects(spec)

    def _observation(self) -> Any:
        return part_of(self.simulator.observe(_ONLY), 0)

    def _render_for_humans(self) -> None:
        if self.render_mode == "human":
            self.render()

    def render(self) -> Any:
        """The session as a strip of songs: text (``ansi``) or a picture ``(height, width, 3)``.

        With ``human`` the text goes to the standard output after every `reset` and `step`, and
        this returns None.

        Raises:
            gymnasium.error.ResetNeeded: No session has begun.
        """
        if self.render_mode is None:
            modes = ", ".join(f'"{mode}"' for mode in self.metadata["render_modes"])
            gym.logger.warn(f"Pass render_mode to gymnasium.make to render: {modes}.")
            return None
        return rendered(self.render_mode, self.simulator, 0, self._last)


def rendered(mode: str, simulator: Simulator, row: int, last: Outcome | None) -> Any:
    """One session of a simulator as `rendering` draws it; with ``human`` it is written out."""
    from musicbox_env import rendering

    if simulator.history.session[row] < 0:
        raise gym.error.ResetNeeded("Call reset() before render().")
    view = rendering.session_view(simulator, row, last)
    if mode == "rgb_array":
        return rendering.rgb_array(view)
    text = rendering.ansi(view)
    if mode == "ansi":
        return text
    sys.stdout.write(text)
    return None


def without_objects(spec: EnvSpec | None) -> EnvSpec | None:
    """A specification whose keywords are plain values, so that ``spec.to_json()`` can write it."""
    if spec is None:
        return None
    plain = {name: _plain(value) for name, value in spec.kwargs.items()}
    return replace(spec, kwargs=plain)


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    return asdict(value) if isinstance(value, RewardConfig) else value


def chosen_sessions(
    named: npt.NDArray[np.int64] | None, assets: EnvAssets, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """The sessions that `checked_sessions` gave, or where it gave none those drawn, ``(keys,)``."""
    return assets.pool[choose(keys, len(assets.pool))] if named is None else named.reshape(-1)


def checked_options(options: Any, known: Sequence[str]) -> dict[str, Any]:
    """The options of ``reset`` as a dictionary.

    Raises:
        ValueError: They are none, or one is unknown.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(
            f"options of reset are a {type(options).__name__}; expected a dictionary, such as "
            "{'session': 3}."
        )
    for name in options or {}:
        require_known("reset option", name, known)
    return dict(options or {})


def checked_array(what: str, given: Any, expected: str) -> npt.NDArray:
    """An option of ``reset`` as an array.

    Raises:
        ValueError: It makes none, or a masked one, of which some values are not meant.
    """
    if isinstance(given, np.ma.MaskedArray):
        raise ValueError(f"{what} is a masked array; expected {expected}, all given.")
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{what} makes no array ({error}); expected {expected}.") from error


def checked_sessions(
    sessions: Any, assets: EnvAssets, shapes: Sequence[tuple[int, ...]]
) -> npt.NDArray[np.int64] | None:
    """Session indices as an array of one of the shapes, all in the log and playable; None of None.

    Raises:
        ValueError: Another shape, no integers, or a session that cannot be played.
    """
    if sessions is None:
        return None
    expected = " or ".join(str(shape) if shape else "one index" for shape in dict.fromkeys(shapes))
    given = checked_array("options['session']", sessions, expected)
    if given.shape not in shapes:
        raise ValueError(
            f"options['session'] has shape {given.shape}; expected {expected}: an index of the log "
            "for each session that begins."
        )
    log = assets.dataset.sessions
    if given.dtype.kind not in "iu":
        raise ValueError(
            f"options['session'] holds {given.dtype} values; expected integer indices from 0 to "
            f"{log.num_sessions - 1}."
        )
    if given.min() < 0 or given.max() >= log.num_sessions:
        raise ValueError(
            f"Session {given.max() if given.min() >= 0 else given.min()} is not in the log; "
            f"expected an index from 0 to {log.num_sessions - 1}."
        )
    if not log.is_playable(given).all():
        raise ValueError("A session of one play has no first half to show; choose another.")
    return given.astype(np.int64)


def ends(simulator: Simulator) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which sessions are terminated and which truncated, each ``(num_envs,)``.

    A session of the log's own length ends by itself, as does one whose listener leaves; a horizon
    is a limit from without.
    """
    over = simulator.remaining == 0
    if simulator.assets.config.horizon is None:
        return over, np.zeros(len(over), np.bool_)
    timed = over & ~simulator.left
    return over & ~timed, timed


def describe(
    simulator: Simulator, rows: npt.NDArray[np.intp], outcome: Outcome | None
) -> dict[str, npt.NDArray]:
    """``info`` for each of the given sessions, a row each; None is the info of a reset."""
    session = simulator.history.session.take(rows)
    if outcome is None:
        outcome = Outcome.nothing(len(session), simulator.assets.config.slate_size)
    return {
        "slate": outcome.slate,
        "slate_levels": outcome.levels,
        "logged": outcome.logged,
        "logged_share": outcome.logged_share,
        "replaced": outcome.replaced,
        "song_reward": outcome.song_reward,
        **{f"reward_{name}": value for name, value in outcome.terms.items()},
        "left": simulator.left.take(rows),
        "session": session,
    }


def first_row(info: dict[str, npt.NDArray]) -> dict[str, Any]:
    """The ``info`` of a batch of one session: plain floats and ints, small arrays."""
    return {name: values[0] if values.ndim > 1 else values.item() for name, values in info.items()}
