"""The place from which `classroom.course` imports `Checkpoint`."""

from cmog_lib.engine.optimise.checkpoint import Checkpoint as Checkpoint
