"""The small synthetic dataset that these tests share."""

from musicbox_env.synthetic.generator import SyntheticConfig

SMALL = SyntheticConfig(sessions=1500, tracks=400, seed=3)
