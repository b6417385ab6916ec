"""A stand-in for YouTube (and for a mirror) on loopback, with videos whose content is known."""

from tests.standin.server import DEAD, Dead, Knob, Request, StandIn

__all__ = ["DEAD", "Dead", "Knob", "Request", "StandIn"]
