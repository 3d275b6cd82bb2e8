"""The labels by which the sessions of a run are found, and which worker made them."""

from __future__ import annotations

RUN = "enclave-sdk.ray.run"
"""A value of its own for each run."""
ACTOR = "enclave-sdk.ray.actor"
"""Ray's id of the actor, which stays the same when Ray restarts it."""
INCARNATION = "enclave-sdk.ray.incarnation"
"""A value of its own each time an actor is started."""
