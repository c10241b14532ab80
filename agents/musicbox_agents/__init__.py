"""Agents for `MusicSession-v0`, by name."""

from musicbox_agents.base import Agent
from musicbox_agents.registry import AGENTS, agent_class, load_agent, make_agent

__all__ = ["AGENTS", "Agent", "agent_class", "load_agent", "make_agent"]
